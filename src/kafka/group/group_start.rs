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
//! # Invariants
//! - No offset is committed that lies after a record which was written after another consumer of
//!   the group was told that it reads. Say A and B decide at the same time, in two processes:
//!   B has looked up the end before it finds that A has committed nothing, so before A has told
//!   anybody; whichever of the two ends is committed last, neither lies after such a record.
//! - Of the consumers of one group that wait in this process, one asks for all; what it found
//!   counts for those who came before it began.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::try_join_all;
use kafka_protocol::error::ResponseError;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::coordinator_handle::CoordinatorHandle;
use super::error::{ConsumerError, GroupError, GroupErrorAction};
use super::last_group_start::{DecidedStart, LastGroupStart};
use super::partition_assignment::PartitionAssignment;
use super::requests::ConsumerGroupMetadata;
use super::topic_identity::OffsetToCommit;
use crate::backoff::ExponentialBackoff;
use crate::fetcher::{FetchError, FetchPosition, OffsetSpec};
use crate::metadata::TopicMetadata;
use crate::{IsolationLevel, TopicPartition};

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
                    topics,
                    topic_ids: topics.iter().map(|t| (Arc::clone(&t.name), t.id)).collect(),
                    isolation,
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
    topics: &'a [Arc<TopicMetadata>],
    topic_ids: HashMap<Arc<str>, Uuid>,
    isolation: IsolationLevel,
}

/// Ends of logs that are not committed.
type LogEnds = Vec<(TopicPartition, FetchPosition)>;

impl StartDecision<'_> {
    async fn decide(&self) -> Result<DecidedStart, ConsumerError> {
        let of_topic = |topic: &Arc<TopicMetadata>| {
            let name = Arc::clone(&topic.name);
            let numbers = 0..topic.partitions.len() as i32;
            numbers.map(move |number| TopicPartition::new(Arc::clone(&name), number))
        };
        let mut partitions: Vec<_> = self.topics.iter().flat_map(of_topic).collect();
        partitions.sort_unstable();
        let config = self.handle.cluster.config();
        let mut backoff = ExponentialBackoff::new(config.retry_backoff, config.retry_backoff_max);
        loop {
            let error = match self.attempt(&partitions).await {
                Ok(Ok(ends)) => return Ok(DecidedStart::new(self.topics, ends)),
                Ok(Err(error)) => return Err(error.into()),
                Err(error) => error,
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
        }
    }

    async fn attempt(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Result<LogEnds, FetchError>, GroupError> {
        let open = self.uncommitted(partitions).await?;
        if open.is_empty() {
            return Ok(Ok(Vec::new()));
        }
        let fetcher = &self.handle.fetcher;
        let end = async |tp: TopicPartition| {
            let end = fetcher.list_offset(&tp, OffsetSpec::Latest, self.isolation);
            Ok((end.await?, tp))
        };
        let ends = match try_join_all(open.iter().cloned().map(end)).await {
            Ok(ends) => ends,
            // The caller has a deadline.
            Err(FetchError::Unavailable { reason, .. }) => {
                return Err(GroupError::MetadataUnavailable(reason.into()));
            }
            Err(error) => return Ok(Err(error)),
        };
        let mut open = self.uncommitted(&open).await?;
        open.sort_unstable();
        let ends = ends
            .into_iter()
            .filter(|(_, tp)| open.binary_search(tp).is_ok());
        self.commit(ends.map(|(end, tp)| self.to_commit(tp, end)).collect())
            .await
            .map(Ok)
    }

    /// Those of the partitions of which nothing is committed.
    async fn uncommitted(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<TopicPartition>, GroupError> {
        let with_id = |tp: &TopicPartition| (tp.clone(), self.topic_id(tp));
        let partitions: Vec<_> = partitions.iter().map(with_id).collect();
        let committed = self.handle.fetch_committed(&partitions, self.isolation);
        let mut open = Vec::new();
        for (tp, offset) in committed.await? {
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

    fn to_commit(&self, tp: TopicPartition, next: FetchPosition) -> OffsetToCommit {
        OffsetToCommit {
            topic_id: self.topic_id(&tp),
            // There is no member to number the assignments of.
            assignment: PartitionAssignment { tp, number: 0 },
            next,
        }
    }

    fn topic_id(&self, tp: &TopicPartition) -> Uuid {
        self.topic_ids.get(&tp.topic).copied().unwrap_or_default()
    }

    /// Commits without a member; what is refused, since the group has members.
    async fn commit(&self, offsets: Vec<OffsetToCommit>) -> Result<LogEnds, GroupError> {
        if offsets.is_empty() {
            return Ok(Vec::new());
        }
        let handle = self.handle;
        let broker = handle.coordinator().await?;
        let moved = |_| GroupError::Code(ResponseError::NotCoordinator);
        let permit = handle.clone().commit_permit(broker).await.map_err(moved)?;
        let metadata = ConsumerGroupMetadata::without_member(&handle.group_id);
        let codes = handle.commit_offsets(permit, &metadata, offsets.clone());
        let kept = codes.await.and_then(|codes| refused_ends(&offsets, &codes));
        if let Err(error) = &kept {
            handle.check_coordinator(broker, error);
        }
        kept
    }
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
            topic_id: Uuid::nil(),
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
    fn what_passes_is_tried_again_for_all() {
        let moved = ResponseError::NotCoordinator.code();
        let error = refused(&[0, moved]).unwrap_err();
        assert_eq!(error.action(), GroupErrorAction::FindCoordinator);
        assert!(refused_ends(&[offset(0)], &[]).is_err(), "left out");
    }
}
