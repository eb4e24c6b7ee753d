//! Where a group begins that starts at the log's end (`auto.offset.reset=latest`), decided before
//! its consumer joins.
//!
//! ```text
//! OffsetFetch ─ all committed ─▶ decided long ago
//!     │ some are not
//!     ▼
//! ListOffsets ─▶ OffsetFetch again ─▶ OffsetCommit (generation −1)
//!                                       ├─ done: decided for every member, now and later
//!                                       └─ refused: the group has members; this consumer keeps the ends
//! ```
//!
//! A consumer joins a while after its owner was told that it reads, and the log grows meanwhile:
//! were the end looked up only when the partition is assigned, what was written in between would
//! be delivered to nobody. A commit without a member is what Java's consumer sends that assigns
//! partitions to itself; brokers take it while the group has no members.
//!
//! A partition without a leader holds up none of this: nothing can be written to it. What is kept of
//! it is its leader epoch. Once it has a leader, the end of that epoch is where the log ended all the
//! while (OffsetForLeaderEpoch), whatever was written since the leader came. Java's consumer begins
//! at the end that it finds then, and skips what was written between.
//!
//! # Invariants
//! - No offset is committed that lies after a record which was written after another consumer of
//!   the group was told that it reads. Say A and B decide at the same time, in two processes:
//!   B has looked up the end before it finds that A has committed nothing, so before A has told
//!   anybody; whichever of the two ends is committed last, neither lies after such a record.
//! - Of the consumers of one group that wait in this process, one asks for all; what it found
//!   counts for those who came before it began.
//! - Where a partition without a leader begins is known to this process alone until it is
//!   committed, which the member does that is assigned the partition, as soon as there is a leader.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::try_join_all;
use kafka_protocol::error::ResponseError;
use tokio::time::{Instant, sleep};

use super::coordinator_handle::CoordinatorHandle;
use super::error::{ConsumerError, GroupError, GroupErrorAction};
use super::last_group_start::{DecidedStart, LastGroupStart};
use super::partition_assignment::PartitionAssignment;
use super::requests::{CommittedPosition, ConsumerGroupMetadata};
use super::topic_identity::OffsetToCommit;
use crate::backoff::ExponentialBackoff;
use crate::fetcher::{FetchError, FetchPosition, OffsetSpec};
use crate::metadata::{ClusterSnapshot, MetadataError, TopicMetadata};
use crate::{IsolationLevel, TopicIdentity, TopicPartition};

/// Where a group at `latest` begins, for a consumer that will join it.
#[derive(Clone, Debug)]
pub struct GroupStart {
    /// What the group's members in this process share stays until the consumer has joined.
    _handle: CoordinatorHandle,
    start: Arc<DecidedStart>,
}

impl GroupStart {
    /// Decides for all partitions of these topics; asks until there is an answer. Cancel-safe.
    pub(crate) async fn decide(
        handle: CoordinatorHandle,
        topics: &[Arc<TopicMetadata>],
        isolation: IsolationLevel,
    ) -> Result<Self, ConsumerError> {
        let asked_at = Instant::now();
        let group = handle.clone();
        let mut last = group.last_start().await;
        let known = last.as_ref();
        let start = match known.filter(|last| last.answers(asked_at, isolation, topics)) {
            Some(known) => Arc::clone(&known.start),
            None => {
                let began_at = Instant::now();
                let decision = StartDecision {
                    handle: &handle,
                    topics: topics.to_vec(),
                    isolation,
                    last: known.map(|last| Arc::clone(&last.start)),
                };
                let start = Arc::new(decision.decide().await?);
                *last = Some(LastGroupStart {
                    began_at,
                    isolation,
                    start: Arc::clone(&start),
                });
                start
            }
        };
        drop(last);
        Ok(Self {
            _handle: handle,
            start,
        })
    }

    pub(crate) fn into_decided(self) -> Arc<DecidedStart> {
        self.start
    }
}

/// One decision under way.
struct StartDecision<'a> {
    handle: &'a CoordinatorHandle,
    topics: Vec<Arc<TopicMetadata>>,
    isolation: IsolationLevel,
    /// What was decided before.
    last: Option<Arc<DecidedStart>>,
}

/// Ends of logs that are not committed.
type LogEnds = Vec<(TopicPartition, FetchPosition)>;

/// Where a partition begins of which nothing is committed.
enum PartitionStart {
    At(FetchPosition),
    /// Where the log ends in that leader epoch, in which there is no leader.
    Leaderless(i32),
}

/// Why an attempt has failed.
enum AttemptError {
    Group(GroupError),
    Fetch(FetchError),
}

impl From<GroupError> for AttemptError {
    fn from(error: GroupError) -> Self {
        Self::Group(error)
    }
}

impl StartDecision<'_> {
    async fn decide(mut self) -> Result<DecidedStart, ConsumerError> {
        let config = self.handle.cluster.config();
        let mut backoff = ExponentialBackoff::new(config.retry_backoff, config.retry_backoff_max);
        loop {
            let error = match self.attempt().await {
                Ok(start) => return Ok(start),
                Err(AttemptError::Fetch(error)) => return Err(error.into()),
                Err(AttemptError::Group(error)) => error,
            };
            let group = &self.handle.group_id;
            tracing::debug!(%group, ?error, "deciding where the group begins");
            match error.action() {
                GroupErrorAction::FailNotAuthorized => {
                    let group = Arc::clone(group);
                    return Err(ConsumerError::GroupNotAuthorized { group });
                }
                GroupErrorAction::Stop => return Err(ConsumerError::Stopped),
                GroupErrorAction::Fail => {
                    return Err(error.into_consumer_error(Arc::clone(group)));
                }
                _ => sleep(backoff.after_failure()).await,
            }
            if is_about_topics(&error) {
                self.describe_topics().await?;
            }
        }
    }

    /// Takes the topics as they are now: one may have been deleted and created again.
    async fn describe_topics(&mut self) -> Result<(), ConsumerError> {
        let names: Vec<_> = self.topics.iter().map(|t| Arc::clone(&t.name)).collect();
        let metadata = self.handle.cluster.metadata();
        let described = metadata.topics_refreshed_after(&names, Instant::now());
        for (topic, described) in self.topics.iter_mut().zip(described.await) {
            match described {
                Ok(described) => *topic = described,
                Err(MetadataError::UnknownTopic { topic } | MetadataError::Invalid { topic }) => {
                    return Err(ConsumerError::UnknownTopic { topic });
                }
                Err(MetadataError::NotAuthorized { topic }) => {
                    return Err(ConsumerError::TopicNotAuthorized { topic });
                }
                // The next attempt says whether it is still needed.
                Err(MetadataError::Unavailable { .. }) => {}
            }
        }
        Ok(())
    }

    async fn attempt(&self) -> Result<DecidedStart, AttemptError> {
        let of_topic = |topic: &Arc<TopicMetadata>| {
            let name = Arc::clone(&topic.name);
            let numbers = 0..topic.partitions.len() as i32;
            numbers.map(move |number| TopicPartition::new(Arc::clone(&name), number))
        };
        let mut partitions: Vec<_> = self.topics.iter().flat_map(of_topic).collect();
        partitions.sort_unstable();
        let open = self.uncommitted(&partitions).await?;
        let starts = open.into_iter().map(async |tp: TopicPartition| {
            let start = self.start_of(&tp).await?;
            Ok((tp, start))
        });
        let starts = match try_join_all(starts).await {
            Ok(starts) => starts,
            // The caller has a deadline.
            Err(FetchError::Unavailable { reason, .. }) => {
                return Err(GroupError::MetadataUnavailable(reason.into()).into());
            }
            Err(error) => return Err(AttemptError::Fetch(error)),
        };
        let (mut ends, mut leaderless) = (Vec::new(), Vec::new());
        for (tp, start) in starts {
            match start {
                PartitionStart::At(end) => ends.push((tp, end)),
                PartitionStart::Leaderless(epoch) => leaderless.push((tp, epoch)),
            }
        }
        if !ends.is_empty() {
            let found: Vec<_> = ends.iter().map(|(tp, _)| tp.clone()).collect();
            let open = self.uncommitted(&found).await?;
            ends.retain(|(tp, _)| open.contains(tp));
            ends = self.commit(ends).await?;
        }
        // The next decision, too, goes by what a consumer was told before this one.
        let kept = ends.iter().filter_map(|(tp, _)| {
            let epoch = self.leaderless_before(tp)?;
            Some((tp.clone(), epoch))
        });
        leaderless.extend(kept);
        Ok(DecidedStart::new(&self.topics, ends, leaderless))
    }

    /// Where the partition's log ends, or would if it had a leader.
    async fn start_of(&self, tp: &TopicPartition) -> Result<PartitionStart, FetchError> {
        let before = self.leaderless_before(tp);
        let spec = before.map_or(OffsetSpec::Latest, OffsetSpec::EndOfLeaderlessEpoch);
        let end = self.handle.fetcher.list_offset(tp, spec, self.isolation);
        tokio::select! {
            biased;
            epoch = self.without_leader(tp) => {
                Ok(PartitionStart::Leaderless(before.unwrap_or(epoch)))
            }
            end = end => end.map(PartitionStart::At),
        }
    }

    /// Completes when the partition is known to have no leader, in which leader epoch.
    async fn without_leader(&self, tp: &TopicPartition) -> i32 {
        let leaderless_epoch = |snapshot: &ClusterSnapshot| {
            let topic = snapshot.topic(&tp.topic)?;
            let partition = topic.partitions.get(usize::try_from(tp.partition).ok()?)?;
            let is_leaderless = partition.leader_id.is_none() && partition.leader_epoch >= 0;
            is_leaderless.then_some(partition.leader_epoch)
        };
        let mut snapshots = self.handle.cluster.metadata().subscribe();
        let found = snapshots.wait_for(|snapshot| leaderless_epoch(snapshot).is_some());
        match found.await.ok().and_then(|found| leaderless_epoch(&found)) {
            Some(epoch) => epoch,
            None => std::future::pending().await,
        }
    }

    /// The leader epoch of a partition that had no leader when another consumer was told that it
    /// reads.
    fn leaderless_before(&self, tp: &TopicPartition) -> Option<i32> {
        let last = self.last.as_ref()?;
        last.leaderless_epoch(tp, self.identity(tp))
    }

    /// Those of the partitions of which nothing is committed.
    async fn uncommitted(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<TopicPartition>, GroupError> {
        let with_id = |tp: &TopicPartition| (tp.clone(), self.identity(tp).id);
        let partitions: Vec<_> = partitions.iter().map(with_id).collect();
        let committed = self.handle.fetch_committed(&partitions, self.isolation);
        open_partitions(committed.await?)
    }

    fn to_commit(&self, tp: TopicPartition, next: FetchPosition) -> OffsetToCommit {
        OffsetToCommit {
            topic: self.identity(&tp),
            is_unconfirmed: false,
            // There is no member to number the assignments of.
            assignment: PartitionAssignment { tp, number: 0 },
            next,
        }
    }

    fn identity(&self, tp: &TopicPartition) -> TopicIdentity {
        let mut topics = self.topics.iter();
        let topic = topics.find(|topic| topic.name == tp.topic);
        topic.map(|topic| topic.identity()).unwrap_or_default()
    }

    /// Commits without a member; what is refused, since the group has members.
    async fn commit(&self, ends: LogEnds) -> Result<LogEnds, GroupError> {
        if ends.is_empty() {
            return Ok(ends);
        }
        let offsets = ends.into_iter().map(|(tp, end)| self.to_commit(tp, end));
        let offsets: Vec<_> = offsets.collect();
        let handle = self.handle;
        let broker = handle.coordinator().await?;
        let moved = |_| GroupError::Code(ResponseError::NotCoordinator);
        let mut names: Vec<_> = self.topics.iter().map(|t| Arc::clone(&t.name)).collect();
        names.dedup();
        let prepared = handle.clone().prepare_commit(broker, names);
        let prepared = prepared.await.map_err(moved)?;
        let metadata = ConsumerGroupMetadata::without_member(&handle.group_id);
        let codes = handle.commit_offsets(prepared, &metadata, offsets.clone());
        let kept = codes
            .await
            .and_then(|result| refused_ends(&offsets, &result.codes));
        if let Err(error) = &kept {
            handle.check_coordinator(broker, error);
        }
        kept
    }
}

/// Whether the topics may be others than they were.
fn is_about_topics(error: &GroupError) -> bool {
    matches!(
        error,
        GroupError::Code(
            ResponseError::UnknownTopicId
                | ResponseError::InconsistentTopicId
                | ResponseError::UnknownTopicOrPartition
        )
    )
}

/// The partitions of which nothing is committed. That the coordinator does not know a topic does
/// not say so.
fn open_partitions(committed: Vec<CommittedPosition>) -> Result<Vec<TopicPartition>, GroupError> {
    let mut open = Vec::new();
    for (tp, offset) in committed {
        match offset {
            Ok(Some(_)) => {}
            // Why a topic may not be read, its leader says.
            Ok(None) | Err(GroupError::Code(ResponseError::TopicAuthorizationFailed)) => {
                open.push(tp);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(open)
}

/// The offsets that were not committed and need not be: the group has members, which have decided
/// where it begins, or is of another kind, as its join will say, or the broker takes no offset of
/// that partition. Any other error is for all.
fn refused_ends(
    offsets: &[OffsetToCommit],
    codes: &[(PartitionAssignment, i16)],
) -> Result<LogEnds, GroupError> {
    let code_of = |(of, code): &(PartitionAssignment, i16)| ((of.tp.clone(), of.number), *code);
    let codes: HashMap<_, _> = codes.iter().map(code_of).collect();
    let mut refused = Vec::new();
    for OffsetToCommit {
        assignment, next, ..
    } in offsets
    {
        let code = codes.get(&(assignment.tp.clone(), assignment.number));
        let code = code.ok_or(GroupError::MalformedResponse)?;
        let Some(error) = GroupError::from_code(*code) else {
            continue;
        };
        let is_final = matches!(
            error,
            GroupError::Code(
                ResponseError::UnknownMemberId
                    | ResponseError::IllegalGeneration
                    | ResponseError::RebalanceInProgress
                    | ResponseError::StaleMemberEpoch
                    | ResponseError::GroupIdNotFound
                    | ResponseError::TopicAuthorizationFailed
                    | ResponseError::OffsetMetadataTooLarge
                    | ResponseError::InvalidCommitOffsetSize
            )
        );
        if !is_final {
            return Err(error);
        }
        refused.push((assignment.tp.clone(), *next));
    }
    Ok(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(partition: i32) -> OffsetToCommit {
        let tp = TopicPartition::new("t", partition);
        OffsetToCommit {
            assignment: PartitionAssignment { tp, number: 0 },
            next: FetchPosition {
                offset: 7,
                leader_epoch: 1,
            },
            topic: TopicIdentity::default(),
            is_unconfirmed: false,
        }
    }

    fn refused(codes: &[i16]) -> Result<Vec<i32>, GroupError> {
        let offsets: Vec<_> = (0..codes.len() as i32).map(offset).collect();
        let codes = offsets.iter().zip(codes);
        let codes: Vec<_> = codes
            .map(|(o, code)| (o.assignment.clone(), *code))
            .collect();
        let ends = refused_ends(&offsets, &codes)?;
        Ok(ends.iter().map(|(tp, _)| tp.partition).collect())
    }

    #[test]
    fn ends_that_a_group_with_members_refuses_are_kept_and_those_it_takes_are_not() {
        assert!(refused(&[0, 0]).unwrap().is_empty());
        let unknown_member = ResponseError::UnknownMemberId.code();
        assert_eq!(refused(&[unknown_member; 2]).unwrap(), [0, 1]);
        assert_eq!(
            refused(&[0, ResponseError::OffsetMetadataTooLarge.code()]).unwrap(),
            [1]
        );
    }

    #[test]
    fn a_topic_that_the_coordinator_does_not_know_is_not_taken_for_uncommitted() {
        let committed = |partition, offset| (TopicPartition::new("t", partition), offset);
        let at = FetchPosition {
            offset: 7,
            leader_epoch: 1,
        };
        let open = vec![committed(0, Ok(Some(at))), committed(1, Ok(None))];
        assert_eq!(
            open_partitions(open).unwrap(),
            [TopicPartition::new("t", 1)]
        );
        let unknown = GroupError::Code(ResponseError::UnknownTopicOrPartition);
        let lags = vec![committed(0, Ok(None)), committed(1, Err(unknown))];
        let error = open_partitions(lags).unwrap_err();
        assert!(is_about_topics(&error), "{error:?}");
    }

    #[test]
    fn what_passes_is_tried_again_for_all() {
        let moved = ResponseError::NotCoordinator.code();
        let error = refused(&[0, moved]).unwrap_err();
        assert_eq!(error.action(), GroupErrorAction::FindCoordinator);
        assert!(refused_ends(&[offset(0)], &[]).is_err(), "left out");
    }
}
