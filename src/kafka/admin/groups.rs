//! Consumer groups and their offsets, as `kafka-consumer-groups` sees and changes them.
//!
//! ```text
//! list_groups ──────▶ every broker at once ─▶ GroupListing: id, coordinator, type
//! describe_groups ──▶ batches of a coordinator and a type, one after another
//! committed_offsets, alter_offsets, delete_offsets ─▶ the group's coordinator
//! log_ends ─────────▶ the partitions' leaders
//! ```
//!
//! What is asked and what answers mean stands in the files below, without I/O; here is who is asked,
//! and again when a coordinator or leader has moved.
//!
//! # Who may wait for whom
//! - Sockets wait for nothing here: requests have connections of their own
//!   ([`ConnectionPurpose::Admin`]), but for looking coordinators and leaders up, which brokers
//!   answer at once.
//! - A request waits while `REQUESTS_MAX` others are under way, whoever asked: so many answers are
//!   in memory at once. It ends after `ANSWER_TIMEOUT` whatever the brokers do.
//! - Groups are described in batches of a hundred, which are cut in halves while an answer is larger
//!   than `receive.message.max.bytes`.

mod describe;
mod description;
mod error;
mod listing;
mod log_ends;
mod offsets;
mod state;

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{
    ListOffsetsRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

pub use self::description::{ConsumerGroupDescription, DescriptionDetail, MemberDescription};
pub use self::error::GroupAdminError;
use self::error::{GroupAttemptError, lookup_error};
pub use self::listing::{GroupListing, GroupType};
pub use self::log_ends::{LogEndOffset, LogEndOffsets};
use self::offsets::BY_NAME_VERSION_MAX;
pub use self::offsets::GroupOffset;
pub use self::state::GroupState;
use crate::backoff::ExponentialBackoff;
use crate::group::find_coordinators;
use crate::protocol::versions::Api;
use crate::{BrokerId, Cluster, ConnectionPurpose, RequestError, TopicPartition};

/// Requests that are under way at once.
const REQUESTS_MAX: usize = 4;
/// How long the brokers may take with all of what one call asks, or `request.timeout.ms` if that is
/// less.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Topics whose leaders one request asks for.
const TOPICS_MAX: usize = 500;
/// For requests whose newest version is as good as any.
const ANY_VERSION: i16 = i16::MAX;

/// Asks about consumer groups and changes their offsets, as the principal of a cluster. Clones share
/// what limits them.
#[derive(Clone, Debug)]
pub struct GroupAdmin {
    cluster: Cluster,
    turns: Arc<Semaphore>,
}

impl GroupAdmin {
    /// As that cluster's principal.
    pub fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            turns: Arc::new(Semaphore::new(REQUESTS_MAX)),
        }
    }

    /// The groups of consumers, in the order of their ids; of brokers from 2.6 on only those with
    /// members if `active_only`.
    ///
    /// # Errors
    /// [`GroupAdminError::Unavailable`] when not every broker has answered: some would be missing.
    pub async fn list_groups(
        &self,
        active_only: bool,
    ) -> Result<Vec<GroupListing>, GroupAdminError> {
        self.retry(|| self.list_once(active_only)).await
    }

    async fn list_once(&self, active_only: bool) -> Result<Vec<GroupListing>, GroupAttemptError> {
        // One that was added, or is gone for good, has others' groups.
        let metadata = self.cluster.metadata();
        let refreshed = metadata.refresh().await;
        refreshed.map_err(|error| GroupAttemptError::Retriable(error.to_string().into()))?;
        let brokers: Vec<_> = metadata.snapshot().brokers.iter().map(|b| b.id).collect();
        let list = async |broker| {
            let build = |version| listing::request(version, active_only);
            let (_, response) = self.call(broker, ANY_VERSION, build).await?;
            let none = Arc::from("");
            match GroupAttemptError::from_code(response.error_code, &none) {
                Some(error) => Err(error),
                None => Ok(listing::parse(response, broker)),
            }
        };
        let listed = join_all(brokers.into_iter().map(list)).await;
        let listed: Result<Vec<_>, _> = listed.into_iter().collect();
        Ok(listing::merge(listed?))
    }

    /// What a group has committed, in the order of topics and partitions.
    ///
    /// # Errors
    /// [`GroupAdminError::NotAuthorized`] and [`GroupAdminError::Unavailable`]. A group that there is
    /// not has committed nothing.
    pub async fn committed_offsets(
        &self,
        group: &Arc<str>,
    ) -> Result<Vec<GroupOffset>, GroupAdminError> {
        let fetch = async |coordinator| {
            let build = |version| offsets::fetch_request(version, group);
            let called = self.call::<OffsetFetchRequest>(coordinator, BY_NAME_VERSION_MAX, build);
            offsets::fetched(called.await?.1, group)
        };
        self.retry(|| async { fetch(self.coordinator(group).await?).await })
            .await
    }

    /// Commits offsets for a group without members: all of them, or none if a single one is refused.
    ///
    /// # Errors
    /// [`GroupAdminError::OffsetRefused`], [`GroupAdminError::NotEmpty`],
    /// [`GroupAdminError::NotAuthorized`] and [`GroupAdminError::Unavailable`], after which they
    /// may have been committed.
    pub async fn alter_offsets(
        &self,
        group: &Arc<str>,
        new: &[GroupOffset],
    ) -> Result<(), GroupAdminError> {
        // What a broker looks at offset by offset is the length of the metadata. If the longest
        // passes, so do the others.
        let mut new = new.to_vec();
        new.sort_by_key(|offset| Reverse(offset.metadata.len()));
        let first = match new.first() {
            Some(longest) if !longest.metadata.is_empty() => 1,
            _ => 0,
        };
        for part in [&new[..first], &new[first..]] {
            if !part.is_empty() {
                self.retry(|| self.commit_once(group, part)).await?;
            }
        }
        Ok(())
    }

    async fn commit_once(
        &self,
        group: &Arc<str>,
        new: &[GroupOffset],
    ) -> Result<(), GroupAttemptError> {
        let coordinator = self.coordinator(group).await?;
        let build = |_version| offsets::commit_request(group, new);
        let called = self.call::<OffsetCommitRequest>(coordinator, BY_NAME_VERSION_MAX, build);
        for (tp, code) in offsets::commit_codes(called.await?.1) {
            match GroupAttemptError::from_code(code, group) {
                None => {}
                Some(GroupAttemptError::Final(GroupAdminError::Rejected { reason, .. })) => {
                    let refused = GroupAdminError::OffsetRefused { tp, reason };
                    return Err(GroupAttemptError::Final(refused));
                }
                Some(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Forgets offsets of a group without members. Those of topics that are gone brokers forget by
    /// themselves.
    ///
    /// # Errors
    /// [`GroupAdminError::NotFound`], [`GroupAdminError::NotEmpty`],
    /// [`GroupAdminError::NotAuthorized`] and [`GroupAdminError::Unavailable`], after which they
    /// may have been forgotten.
    pub async fn delete_offsets(
        &self,
        group: &Arc<str>,
        forgotten: &[GroupOffset],
    ) -> Result<(), GroupAdminError> {
        if forgotten.is_empty() {
            return Ok(());
        }
        let delete = async |coordinator| {
            let build = |_version| offsets::delete_request(group, forgotten);
            let called = self.call::<OffsetDeleteRequest>(coordinator, ANY_VERSION, build);
            let codes = offsets::delete_codes(&called.await?.1);
            let gone = ResponseError::UnknownTopicOrPartition.code();
            let mut errors = codes.into_iter().filter(|code| *code != gone);
            let first = errors.find_map(|code| GroupAttemptError::from_code(code, group));
            first.map_or(Ok(()), Err)
        };
        self.retry(|| async { delete(self.coordinator(group).await?).await })
            .await
    }

    /// Where the logs of these partitions end. What no broker has said in time is unknown.
    ///
    /// # Errors
    /// [`GroupAdminError::Unavailable`] when no broker says which topics there are.
    pub async fn log_ends(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<LogEndOffsets, GroupAdminError> {
        let mut topics: Vec<_> = partitions.iter().map(|tp| Arc::clone(&tp.topic)).collect();
        topics.sort_unstable();
        topics.dedup();
        let deadline = self.deadline();
        let mut backoff = self.backoff();
        let mut ends = LogEndOffsets::default();
        loop {
            let asked = timeout_at(deadline, self.ask_ends(&topics, partitions, &mut ends)).await;
            match asked.unwrap_or(Ok(true)) {
                Ok(true) => return Ok(ends),
                Ok(false) => {}
                Err(reason) if Instant::now() >= deadline => {
                    return Err(GroupAdminError::Unavailable { reason });
                }
                Err(_) => {}
            }
            sleep(backoff.after_failure()).await;
            if Instant::now() >= deadline {
                return Ok(ends);
            }
        }
    }

    /// Asks once for what is missing; whether nothing is missing any more.
    async fn ask_ends(
        &self,
        topics: &[Arc<str>],
        partitions: &[TopicPartition],
        ends: &mut LogEndOffsets,
    ) -> Result<bool, Arc<str>> {
        let timeout = self.timeout();
        let mut knows_all = true;
        for topics in topics.chunks(TOPICS_MAX) {
            let build = |_version| log_ends::leaders_request(topics);
            let described = self.cluster.call_any(build, timeout).await;
            let (_, response) = described.map_err(|error| error.to_string())?;
            knows_all &= ends.learn_leaders(response);
        }
        let by_leader = ends.missing(partitions);
        let ask = async |(leader, partitions): (Option<BrokerId>, Vec<&TopicPartition>)| {
            let build = |_version| log_ends::ends_request(&partitions);
            let called = self.call::<ListOffsetsRequest>(leader?, ANY_VERSION, build);
            called.await.ok().map(|(_, response)| response)
        };
        for response in join_all(by_leader.into_iter().map(ask)).await {
            response
                .iter()
                .for_each(|response| ends.learn_ends(response));
        }
        Ok(knows_all && ends.missing(partitions).is_empty())
    }

    async fn coordinator(&self, group: &Arc<str>) -> Result<BrokerId, GroupAttemptError> {
        let found = find_coordinators(&self.cluster, &[group]).await;
        let found = found.into_iter().next();
        let found = found.ok_or_else(|| GroupAttemptError::Retriable("no coordinator".into()))?;
        found.map_err(|error| lookup_error(error, group))
    }

    /// Sends a request when its turn comes, in a version that is no newer than `newest`.
    async fn call<A: Api>(
        &self,
        broker: BrokerId,
        newest: i16,
        build: impl FnOnce(i16) -> A,
    ) -> Result<(i16, A::Response), RequestError> {
        let _turn = self.turns.acquire().await;
        let purpose = ConnectionPurpose::Admin;
        let connection = self.cluster.connection(broker, purpose).await?;
        let versions = connection.versions::<A>()?;
        let version = newest.clamp(*versions.start(), *versions.end());
        let request = build(version);
        let sent = connection.send(version, &request, self.timeout()).await?;
        Ok((version, sent.await?))
    }

    /// Tries until there is an answer or the time is over.
    async fn retry<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, GroupAdminError>
    where
        F: Future<Output = Result<T, GroupAttemptError>>,
    {
        let deadline = self.deadline();
        let mut backoff = self.backoff();
        let mut reason: Arc<str> = "no answer in time".into();
        while let Ok(result) = timeout_at(deadline, attempt()).await {
            match result {
                Ok(done) => return Ok(done),
                Err(GroupAttemptError::Final(error)) => return Err(error),
                Err(GroupAttemptError::Retriable(why)) => reason = why,
            }
            sleep(backoff.after_failure()).await;
        }
        Err(GroupAdminError::Unavailable { reason })
    }

    fn timeout(&self) -> Duration {
        self.cluster.config().request_timeout.min(ANSWER_TIMEOUT)
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout()
    }

    fn backoff(&self) -> ExponentialBackoff {
        let config = self.cluster.config();
        ExponentialBackoff::new(config.retry_backoff, config.retry_backoff_max)
    }
}
