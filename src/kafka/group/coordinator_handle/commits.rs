//! OffsetCommit, for the topics that the offsets belong to.
//!
//! ```text
//! prepare_commit ─ by name: describe the topics ─▶ permit
//! commit_offsets ─ by id: OffsetCommit, and the broker refuses what is gone
//!                └ by name: another topic? ─no─▶ OffsetCommit ─▶ describe again: another? ─no─▶ done
//!                             │ yes                                  │ yes
//!                             └▶ refused ◀── replaced by its log's start ┘
//! ```
//!
//! # Invariants
//! - No permit is held while metadata or logs are asked for: they may not answer.
//! - A topic of which nothing can be said holds up the offsets of no other.
//! - An offset that was committed for another topic of its name does not stay: the group begins
//!   at that one's log start, as in any topic that is born while the group runs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::CoordinatorHandle;
use crate::fetcher::{FetchPosition, OffsetSpec};
use crate::group::error::GroupError;
use crate::group::partition_assignment::PartitionAssignment;
use crate::group::requests::{self, ConsumerGroupMetadata};
use crate::group::topic_identity::{DescribedTopics, OffsetToCommit};
use crate::net::pool::CommitPermit;
use crate::protocol::topics_by_id::BY_ID_VERSION;
use crate::{BrokerId, ConnectionPurpose, IsolationLevel, TopicIdentity, TopicPartition};

/// How long a commit waits for an end of a partition's log.
const LIST_OFFSETS_TIMEOUT: Duration = Duration::from_secs(2);

/// One commit of a group may be in flight, until this is dropped.
#[derive(Debug)]
pub(in super::super) struct GroupCommitPermit {
    broker: CommitPermit,
    _group: OwnedSemaphorePermit,
}

/// A commit may be sent now.
#[derive(Debug)]
pub(in super::super) struct PreparedCommit {
    permit: GroupCommitPermit,
    /// Of offsets that are committed by name: which topics have these names.
    described: Option<DescribedTopics>,
}

impl PreparedCommit {
    /// The coordinator to which it may be sent.
    pub(in super::super) fn broker(&self) -> BrokerId {
        self.permit.broker.broker()
    }

    /// Whether offsets of that topic may be sent.
    pub(in super::super) fn allows(&self, topic: &str) -> bool {
        let described = self.described.as_ref();
        described.is_none_or(|described| described.contains(topic))
    }
}

/// What became of each partition, as an error code.
type CommitCodes = Vec<(PartitionAssignment, i16)>;

/// What became of the offsets of a commit.
#[derive(Debug)]
pub(in super::super) struct CommitResult {
    pub(in super::super) codes: CommitCodes,
    /// Those that failed, and may have been committed for another topic of the name.
    pub(in super::super) unconfirmed: Vec<PartitionAssignment>,
}

impl CoordinatorHandle {
    /// Waits until this group, and then any group, may have one more commit in flight at that
    /// broker, which is returned if another one is the coordinator by now; before that, for what
    /// has to be known of the topics. Cancel-safe.
    pub(in super::super) async fn prepare_commit(
        self,
        broker: BrokerId,
        topics: Vec<Arc<str>>,
    ) -> Result<PreparedCommit, BrokerId> {
        let described = async {
            let purpose = ConnectionPurpose::Coordinator;
            let version = self.version::<OffsetCommitRequest>(broker, purpose).await;
            // If it is not known: it may be by name.
            let by_id = version.is_ok_and(|version| version >= BY_ID_VERSION);
            let metadata = self.cluster.metadata();
            match by_id {
                true => None,
                false => Some(DescribedTopics::ask(metadata, topics).await),
            }
        };
        let described = tokio::select! {
            biased;
            described = described => described,
            () = self.moved_from(broker) => return Err(broker),
        };
        let permit = self.commit_permit(broker).await?;
        Ok(PreparedCommit { permit, described })
    }

    async fn commit_permit(&self, broker: BrokerId) -> Result<GroupCommitPermit, BrokerId> {
        let permit = async {
            let group = Arc::clone(&self.group.commits).acquire_owned().await;
            GroupCommitPermit {
                broker: self.cluster.commit_permit(broker).await,
                _group: group.expect("the semaphore is never closed"),
            }
        };
        tokio::select! {
            biased;
            permit = permit => Ok(permit),
            () = self.moved_from(broker) => Err(broker),
        }
    }

    /// Commits offsets for the topics that they belong to. After an error, any of them may have
    /// been committed.
    pub(in super::super) async fn commit_offsets(
        &self,
        prepared: PreparedCommit,
        metadata: &ConsumerGroupMetadata,
        offsets: Vec<OffsetToCommit>,
    ) -> Result<CommitResult, GroupError> {
        let unconfirmed = offsets.iter().filter(|offset| offset.is_unconfirmed);
        let mut unconfirmed: BTreeSet<_> = unconfirmed.map(|of| of.assignment.clone()).collect();
        let PreparedCommit { permit, described } = prepared;
        let codes = match described {
            None => self.commit_by_id(permit, metadata, offsets).await?,
            Some(described) => {
                let sent = &mut unconfirmed;
                self.commit_by_name(permit, metadata, &described, offsets, sent)
                    .await?
            }
        };
        for (assignment, _) in codes.iter().filter(|(_, code)| *code == 0) {
            unconfirmed.remove(assignment);
        }
        Ok(CommitResult {
            codes,
            unconfirmed: unconfirmed.into_iter().collect(),
        })
    }

    async fn commit_by_id(
        &self,
        permit: GroupCommitPermit,
        metadata: &ConsumerGroupMetadata,
        offsets: Vec<OffsetToCommit>,
    ) -> Result<CommitCodes, GroupError> {
        // By name only after it was looked at who has it: the broker may have been replaced.
        let sendable = |version| version >= BY_ID_VERSION;
        let response = self.send_commit(permit, metadata, &offsets, sendable);
        let codes = requests::commit_error_codes(&response.await?, &offsets).into_iter();
        let (unknown, mut codes): (Vec<_>, Vec<_>) =
            codes.partition(|(_, code)| *code == ResponseError::UnknownTopicId.code());
        if unknown.is_empty() {
            return Ok(codes);
        }
        // Recreated, or not known to the coordinator yet.
        let unknown: BTreeSet<_> = unknown.into_iter().map(|(of, _)| of).collect();
        let unknown = offsets.iter().filter(|of| unknown.contains(&of.assignment));
        let unknown: Vec<_> = unknown.collect();
        let topics = self.describe_topics(unknown.iter().copied()).await;
        for offset in unknown {
            let error = topics.check(offset).err();
            let error = error.unwrap_or(ResponseError::UnknownTopicOrPartition);
            codes.push((offset.assignment.clone(), error.code()));
        }
        Ok(codes)
    }

    async fn commit_by_name(
        &self,
        permit: GroupCommitPermit,
        metadata: &ConsumerGroupMetadata,
        described: &DescribedTopics,
        offsets: Vec<OffsetToCommit>,
        unconfirmed: &mut BTreeSet<PartitionAssignment>,
    ) -> Result<CommitCodes, GroupError> {
        let broker = permit.broker.broker();
        let (mut current, mut misplaced) = (Vec::new(), Vec::new());
        let mut codes = CommitCodes::new();
        for offset in offsets {
            match described.check(&offset) {
                Ok(()) => current.push(offset),
                Err(ResponseError::InconsistentTopicId) if offset.is_unconfirmed => {
                    misplaced.push(offset);
                }
                Err(error) => codes.push((offset.assignment, error.code())),
            }
        }
        let without_id = |of: &OffsetToCommit| !described.has_id(&of.assignment.tp.topic);
        let permit = match current.iter().any(without_id) {
            false => permit,
            true => {
                drop(permit);
                let current = &mut current;
                codes.extend(self.take_beyond_log_end(current, without_id).await);
                let moved = |_| GroupError::Code(ResponseError::NotCoordinator);
                self.commit_permit(broker).await.map_err(moved)?
            }
        };
        if !current.is_empty() {
            let response = self.send_commit(permit, metadata, &current, |_| true);
            let answered = requests::commit_error_codes(&response.await?, &current);
            let (committed, failed): (Vec<_>, Vec<_>) =
                answered.into_iter().partition(|(_, code)| *code == 0);
            codes.extend(failed);
            let committed: BTreeSet<_> = committed.into_iter().map(|(of, _)| of).collect();
            current.retain(|offset| committed.contains(&offset.assignment));
            unconfirmed.extend(committed);
            let described = self.describe_topics(current.iter()).await;
            for offset in current {
                match described.check(&offset) {
                    Err(ResponseError::InconsistentTopicId) => misplaced.push(offset),
                    Err(error @ ResponseError::LeaderNotAvailable) => {
                        codes.push((offset.assignment, error.code()));
                    }
                    // With a topic that is gone its offsets are.
                    Ok(()) | Err(_) => codes.push((offset.assignment, 0)),
                }
            }
        }
        codes.extend(self.replace_misplaced(broker, metadata, misplaced).await);
        Ok(codes)
    }

    /// Sends an OffsetCommit; of nothing, if its version is not `sendable`.
    async fn send_commit(
        &self,
        permit: GroupCommitPermit,
        metadata: &ConsumerGroupMetadata,
        offsets: &[OffsetToCommit],
        sendable: impl FnOnce(i16) -> bool,
    ) -> Result<OffsetCommitResponse, GroupError> {
        let (broker, purpose) = (permit.broker.broker(), permit.broker.purpose());
        let build = |version| {
            let offsets = if sendable(version) { offsets } else { &[] };
            requests::offset_commit(version, metadata, offsets)
        };
        let timeout = self.cluster.config().request_timeout;
        self.call::<OffsetCommitRequest>(broker, purpose, build, timeout)
            .await
    }

    async fn describe_topics<'a>(
        &self,
        offsets: impl Iterator<Item = &'a OffsetToCommit>,
    ) -> DescribedTopics {
        let mut names: Vec<_> = offsets
            .map(|offset| Arc::clone(&offset.assignment.tp.topic))
            .collect();
        names.dedup();
        DescribedTopics::ask(self.cluster.metadata(), names).await
    }

    /// Takes out the offsets that lie beyond the end of their log, with the error code of each:
    /// it is not the log that they belong to, or its leader does not know all of it yet (KIP-207).
    async fn take_beyond_log_end(
        &self,
        offsets: &mut Vec<OffsetToCommit>,
        in_question: impl Fn(&OffsetToCommit) -> bool,
    ) -> CommitCodes {
        let ends = offsets.iter().map(async |offset| {
            let tp = &offset.assignment.tp;
            let has_leader = self.cluster.metadata().current_leader(tp).is_some();
            // Where no leader says where its log ends, nothing says that it is another one.
            match in_question(offset) && has_leader {
                true => self.list_offset(tp, OffsetSpec::Latest).await,
                false => None,
            }
        });
        let ends = join_all(ends).await;
        let mut codes = CommitCodes::new();
        let mut ends = ends.into_iter();
        offsets.retain(|offset| {
            let end = ends.next().flatten();
            let is_beyond = end.is_some_and(|end| end.offset < offset.next.offset);
            if is_beyond {
                let code = ResponseError::OffsetOutOfRange.code();
                codes.push((offset.assignment.clone(), code));
            }
            !is_beyond
        });
        codes
    }

    async fn list_offset(&self, tp: &TopicPartition, spec: OffsetSpec) -> Option<FetchPosition> {
        let isolation = IsolationLevel::ReadUncommitted;
        let found = self.fetcher.list_offset(tp, spec, isolation);
        timeout(LIST_OFFSETS_TIMEOUT, found).await.ok()?.ok()
    }

    /// Replaces what may have been committed for another topic of the name by the start of that
    /// topic's log.
    async fn replace_misplaced(
        &self,
        broker: BrokerId,
        metadata: &ConsumerGroupMetadata,
        misplaced: Vec<OffsetToCommit>,
    ) -> CommitCodes {
        if misplaced.is_empty() {
            return CommitCodes::new();
        }
        let start = async |mut offset: OffsetToCommit| {
            let tp = &offset.assignment.tp;
            let start = self.list_offset(tp, OffsetSpec::Earliest).await;
            offset.next = start?;
            offset.topic = self.current_topic(&tp.topic, TopicIdentity::default());
            Some(offset)
        };
        let assignments = misplaced.iter().map(|offset| offset.assignment.clone());
        let assignments: Vec<_> = assignments.collect();
        let starts = join_all(misplaced.into_iter().map(start)).await;
        let starts: Vec<_> = starts.into_iter().flatten().collect();
        let replaced = match self.commit_permit(broker).await {
            Ok(permit) => self.send_commit(permit, metadata, &starts, |_| true).await,
            Err(_) => Err(GroupError::Code(ResponseError::NotCoordinator)),
        };
        let replaced = replaced.map(|response| requests::commit_error_codes(&response, &starts));
        let replaced = replaced.unwrap_or_else(|error| {
            tracing::debug!(group = %self.group_id, ?error, "replacing a misplaced commit");
            CommitCodes::new()
        });
        let replaced = replaced.into_iter().filter(|(_, code)| *code == 0);
        let replaced: BTreeSet<_> = replaced.map(|(of, _)| of).collect();
        let code_of = |assignment: PartitionAssignment| {
            let tp = &assignment.tp;
            let error = match replaced.contains(&assignment) {
                true => {
                    tracing::warn!(group = %self.group_id, %tp,
                        "the topic was deleted and created again during a commit: the group \
                         begins at the new log's start");
                    ResponseError::InconsistentTopicId
                }
                false => ResponseError::LeaderNotAvailable,
            };
            (assignment, error.code())
        };
        assignments.into_iter().map(code_of).collect()
    }

    /// That topic, with its id if it is known by now: brokers that were upgraded give one to a
    /// topic that had none.
    pub(in super::super) fn current_topic(
        &self,
        name: &str,
        topic: TopicIdentity,
    ) -> TopicIdentity {
        let snapshot = self.cluster.metadata().snapshot();
        match snapshot.topic(name).map(|topic| topic.identity()) {
            Some(now) if topic.id.is_nil() && !now.differs_from(topic) => now,
            _ => topic,
        }
    }
}
