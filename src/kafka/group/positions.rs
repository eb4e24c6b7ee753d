//! The position from which a consumer reads a partition.
//!
//! ```text
//! committed offset? ──yes──▶ there, with its leader epoch
//!     │ no: auto.offset.reset
//!     ├─▶ latest:   the log's end, which is then committed; where the group's start was decided
//!     │             (GroupStart): the end that was found then, or the end of then if there was no
//!     │             leader; of a partition that was added since, the log's start
//!     ├─▶ earliest: the log's start
//!     └─▶ none:     the consumer ends
//! ```
//!
//! The log's end moves. Were it not committed, then a partition that is reassigned before
//! its first record is acknowledged would be read on from a later end, and what was written
//! in between by no member. So it is committed as soon as it is looked up, also with
//! `autoCommit=false`: it acknowledges no record, it says where the group begins. The
//! log's start needs no such commit: a member that finds nothing committed begins there again.
//!
//! # Who may wait for whom
//! - The committed offsets of partitions that are assigned together are asked for together: one
//!   coordinator knows them all. A partition for which it has none to give yet is asked about
//!   again alone, with those for which it has none either.
//! - The log's start or end is each partition's own: a leader that is missing, cannot be reached
//!   or hangs holds up the partitions that it leads.
//! - A position is looked up until it is found, or its assignment has ended: the caller drops
//!   what is not needed any more.
//!
//! # Invariants
//! - The reset strategy applies only where the coordinator says that nothing is committed. That a
//!   broker does not know a topic says nothing of its offsets: its metadata may lag. What is asked
//!   for again and stays unknown ends the consumer, and its group's offsets are as they were.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::coordinator_handle::CoordinatorHandle;
use super::error::{ConsumerError, GroupError, GroupErrorAction, PositionError};
use super::last_group_start::DecidedStart;
use super::member_channel::InitialPosition;
use super::partition_assignment::PartitionAssignment;
use crate::backoff::ExponentialBackoff;
use crate::config::ClientConfig;
use crate::fetcher::{FetchError, FetchPosition, OffsetSpec};
use crate::metadata::MetadataError;
use crate::{IsolationLevel, TopicIdentity, TopicPartition};

/// `auto.offset.reset`: where to start without a usable committed offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OffsetResetStrategy {
    /// At the first record that is there.
    #[default]
    Earliest,
    /// After the last record that is there.
    Latest,
    /// Nowhere: the consumer ends.
    None,
}

/// Attempts of OffsetFetch when its error is not known to pass, or a topic is unknown.
const ATTEMPTS: u32 = 10;

/// Partitions whose committed offsets are asked for in one OffsetFetch, again after failures.
#[derive(Debug)]
pub(crate) struct OffsetFetchBatch {
    pub(crate) assignments: Vec<PartitionAssignment>,
    backoff: ExponentialBackoff,
    /// Failures of the whole request that are not known to pass.
    lasting_failures: u32,
    /// How many responses in a row did not know these topics.
    unknown_topics: BTreeMap<Arc<str>, u32>,
}

/// What follows from the response to an OffsetFetch.
#[derive(Debug, Default)]
pub(crate) struct OffsetFetchOutcome {
    /// Reading begins there.
    pub(crate) committed: Vec<InitialPosition>,
    /// Reading begins where the reset strategy says, in that topic.
    pub(crate) uncommitted: Vec<(PartitionAssignment, TopicIdentity)>,
    /// To be asked again after that time.
    pub(crate) retry: Option<(OffsetFetchBatch, Duration)>,
    /// There is no use in asking again.
    pub(crate) failed: Option<(Vec<PartitionAssignment>, PositionError)>,
}

/// What is committed of one partition, if anything is, in which topic.
#[derive(Debug)]
pub(crate) struct CommittedOffset {
    pub(crate) topic: TopicIdentity,
    pub(crate) offset: Result<Option<FetchPosition>, GroupError>,
}

impl OffsetFetchBatch {
    pub(crate) fn new(assignments: Vec<PartitionAssignment>, config: &ClientConfig) -> Self {
        Self {
            assignments,
            backoff: ExponentialBackoff::new(config.retry_backoff, config.retry_backoff_max),
            lasting_failures: 0,
            unknown_topics: BTreeMap::new(),
        }
    }

    /// The response: what each partition of this batch has committed, in its order.
    pub(crate) fn complete(
        mut self,
        group_id: &str,
        result: Result<Vec<CommittedOffset>, GroupError>,
    ) -> OffsetFetchOutcome {
        let mut outcome = OffsetFetchOutcome::default();
        let committed = match result {
            Ok(committed) => committed,
            Err(error) => {
                tracing::debug!(group = %group_id, ?error, "fetching committed offsets");
                match self.failure(group_id, error) {
                    Some(error) => outcome.failed = Some((self.assignments, error)),
                    None => outcome.retry = Some(self.after_backoff()),
                }
                return outcome;
            }
        };
        let mut pending = Vec::new();
        let mut unknown_topics = BTreeMap::new();
        let assignments = std::mem::take(&mut self.assignments);
        for (assignment, committed) in assignments.into_iter().zip(committed) {
            let CommittedOffset { topic, offset } = committed;
            let tp = &assignment.tp;
            match offset {
                Ok(Some(position)) => outcome.committed.push(InitialPosition {
                    assignment,
                    position,
                    topic,
                }),
                Ok(None) => outcome.uncommitted.push((assignment, topic)),
                Err(GroupError::Code(ResponseError::UnknownTopicOrPartition)) => {
                    let topic = Arc::clone(&tp.topic);
                    let before = self.unknown_topics.get(&topic).copied().unwrap_or_default();
                    if before + 1 < ATTEMPTS {
                        unknown_topics.insert(topic, before + 1);
                        pending.push(assignment);
                    } else {
                        let error = ConsumerError::UnknownTopic { topic };
                        outcome.failed = Some((vec![assignment], error.into()));
                    }
                }
                Err(GroupError::Code(ResponseError::TopicAuthorizationFailed)) => {
                    let topic = tp.topic.clone();
                    let error = ConsumerError::TopicNotAuthorized { topic };
                    outcome.failed = Some((vec![assignment], error.into()));
                }
                Err(error) => {
                    tracing::debug!(group = %group_id, %tp, ?error, "fetching a committed offset");
                    if self.backoff.failures() + 1 == ATTEMPTS && !is_known_to_pass(&error) {
                        tracing::warn!(group = %group_id, %tp, error = %error.message(),
                            "the committed offset cannot be fetched; it is asked for again");
                    }
                    pending.push(assignment);
                }
            }
        }
        self.unknown_topics = unknown_topics;
        if !pending.is_empty() {
            self.assignments = pending;
            outcome.retry = Some(self.after_backoff());
        }
        outcome
    }

    fn after_backoff(mut self) -> (Self, Duration) {
        let delay = self.backoff.after_failure();
        (self, delay)
    }

    /// Why there is no use in asking again after this error of the whole request, if so.
    fn failure(&mut self, group_id: &str, error: GroupError) -> Option<PositionError> {
        let group = || group_id.into();
        match error.action() {
            GroupErrorAction::FindCoordinator => None,
            GroupErrorAction::Retry => {
                if !is_known_to_pass(&error) {
                    self.lasting_failures += 1;
                }
                (self.lasting_failures > ATTEMPTS).then_some(PositionError::RejoinNeeded)
            }
            GroupErrorAction::FailNotAuthorized => {
                Some(ConsumerError::GroupNotAuthorized { group: group() }.into())
            }
            GroupErrorAction::Stop => Some(ConsumerError::Stopped.into()),
            GroupErrorAction::Fail => Some(error.into_consumer_error(group()).into()),
            GroupErrorAction::FailFenced
            | GroupErrorAction::Rejoin
            | GroupErrorAction::ResetMemberId
            | GroupErrorAction::ResetGeneration => Some(PositionError::RejoinNeeded),
        }
    }
}

fn is_known_to_pass(error: &GroupError) -> bool {
    matches!(
        error,
        GroupError::Code(
            ResponseError::UnstableOffsetCommit | ResponseError::CoordinatorLoadInProgress
        ) | GroupError::MetadataUnavailable(_)
    )
}

/// The lookups by the reset strategy that are under way.
#[derive(Debug, Default)]
pub(crate) struct PositionResets(BTreeMap<PartitionAssignment, DropGuard>);

impl PositionResets {
    /// Begins a lookup; the token is cancelled when its result is not needed any more.
    pub(crate) fn start(&mut self, assignment: PartitionAssignment) -> CancellationToken {
        let cancelled = CancellationToken::new();
        let guard = cancelled.clone().drop_guard();
        self.0.insert(assignment, guard);
        cancelled
    }

    /// The lookup has a result.
    pub(crate) fn finish(&mut self, assignment: &PartitionAssignment) {
        self.0.remove(assignment);
    }

    /// Cancels the lookups of assignments that are not `needed`.
    pub(crate) fn cancel_unless(&mut self, needed: impl Fn(&PartitionAssignment) -> bool) {
        self.0.retain(|assignment, _| needed(assignment));
    }
}

/// Looks up the positions of partitions that a consumer is to read, as Java's
/// `updateFetchPositions`.
#[derive(Clone, Debug)]
pub(crate) struct PositionInitializer {
    handle: CoordinatorHandle,
    reset: OffsetResetStrategy,
    isolation: IsolationLevel,
    /// With `latest`, where the group begins, if that was decided.
    start: Option<Arc<DecidedStart>>,
}

impl PositionInitializer {
    pub(crate) fn new(
        handle: CoordinatorHandle,
        reset: OffsetResetStrategy,
        isolation: IsolationLevel,
        start: Option<Arc<DecidedStart>>,
    ) -> Self {
        Self {
            handle,
            reset,
            isolation,
            start,
        }
    }

    /// Whether an initial position by the reset strategy has to be committed, so that other
    /// members begin there too.
    pub(crate) fn commits_initial_reset(&self) -> bool {
        self.reset == OffsetResetStrategy::Latest
    }

    /// What was decided holds for a cluster that is gone.
    pub(crate) fn forget_start(&mut self) {
        self.start = None;
    }

    /// Where the group begins in that partition, if its end was kept when that was decided.
    pub(crate) fn decided_start(
        &self,
        tp: &TopicPartition,
        topic: TopicIdentity,
    ) -> Option<FetchPosition> {
        self.start.as_ref()?.end(tp, topic)
    }

    /// Which end of the log the reset strategy starts at, for an initial position (in that
    /// topic) or for one that replaces an offset out of range.
    pub(crate) fn reset_spec(
        &self,
        tp: &TopicPartition,
        initial_of: Option<TopicIdentity>,
    ) -> Result<OffsetSpec, PositionError> {
        let start = self.start.as_ref().zip(initial_of);
        match self.reset {
            OffsetResetStrategy::Earliest => Ok(OffsetSpec::Earliest),
            OffsetResetStrategy::Latest => Ok(start.map_or(OffsetSpec::Latest, |(start, id)| {
                if start.is_added_since(tp, id) {
                    return OffsetSpec::Earliest;
                }
                let leaderless = start.leaderless_epoch(tp, id);
                leaderless.map_or(OffsetSpec::Latest, OffsetSpec::EndOfLeaderlessEpoch)
            })),
            OffsetResetStrategy::None => {
                Err(PositionError::Fatal(ConsumerError::NoCommittedOffset {
                    group: self.handle.group_id.clone(),
                    tp: tp.clone(),
                }))
            }
        }
    }

    /// An end of a partition's log; asked for until there is an answer.
    pub(crate) async fn list_offset(
        self,
        tp: TopicPartition,
        spec: OffsetSpec,
    ) -> Result<FetchPosition, PositionError> {
        let fetcher = &self.handle.fetcher;
        loop {
            match fetcher.list_offset(&tp, spec, self.isolation).await {
                Ok(position) => return Ok(position),
                Err(FetchError::Unavailable { reason, .. }) => {
                    tracing::debug!(%tp, reason, "the log's offsets are not available yet");
                }
                Err(error) => return Err(PositionError::Fatal(error.into())),
            }
        }
    }

    /// One attempt to fetch the committed offsets of these, in their order.
    pub(crate) async fn fetch_committed(
        &self,
        assignments: &[PartitionAssignment],
    ) -> Result<Vec<CommittedOffset>, GroupError> {
        let handle = &self.handle;
        // Before the offsets: an offset of a later topic is not taken for one of this.
        let topics = self.topics_of(assignments).await?;
        let with_id = |of: &PartitionAssignment| {
            let topic = topics[&of.tp.topic].as_ref().copied();
            (of.tp.clone(), topic.unwrap_or_default().id)
        };
        let partitions: Vec<_> = assignments.iter().map(with_id).collect();
        let fetched = handle.fetch_committed(&partitions, self.isolation);
        let committed = fetched
            .await?
            .into_iter()
            .map(|(tp, offset)| match &topics[&tp.topic] {
                Ok(topic) => CommittedOffset {
                    topic: *topic,
                    offset,
                },
                Err(error) => CommittedOffset {
                    topic: TopicIdentity::default(),
                    offset: Err(error.clone()),
                },
            });
        Ok(committed.collect())
    }

    /// The topics' identities, asked for if they are not known.
    async fn topics_of(
        &self,
        assignments: &[PartitionAssignment],
    ) -> Result<HashMap<Arc<str>, Result<TopicIdentity, GroupError>>, GroupError> {
        let mut names: Vec<_> = assignments.iter().map(|of| of.tp.topic.clone()).collect();
        names.dedup();
        let topics = self.handle.cluster.metadata().topics(&names).await;
        let mut identities = HashMap::with_capacity(names.len());
        for (name, topic) in names.into_iter().zip(topics) {
            let identity = match topic {
                Ok(topic) => Ok(topic.identity()),
                Err(MetadataError::UnknownTopic { .. } | MetadataError::Invalid { .. }) => {
                    Err(GroupError::Code(ResponseError::UnknownTopicOrPartition))
                }
                Err(MetadataError::NotAuthorized { .. }) => {
                    Err(GroupError::Code(ResponseError::TopicAuthorizationFailed))
                }
                Err(MetadataError::Unavailable { reason }) => {
                    return Err(GroupError::MetadataUnavailable(reason));
                }
            };
            identities.insert(name, identity);
        }
        Ok(identities)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(partition: i32) -> PartitionAssignment {
        PartitionAssignment {
            tp: TopicPartition::new("t", partition),
            number: 7,
        }
    }

    fn batch(count: i32) -> OffsetFetchBatch {
        let assignments = (0..count).map(assigned).collect();
        OffsetFetchBatch::new(assignments, &ClientConfig::default())
    }

    fn code(error: ResponseError) -> GroupError {
        GroupError::Code(error)
    }

    fn committed(offset: Result<Option<FetchPosition>, GroupError>) -> CommittedOffset {
        CommittedOffset {
            topic: TOPIC,
            offset,
        }
    }

    const TOPIC: TopicIdentity = TopicIdentity {
        id: uuid::Uuid::from_u128(5),
        incarnation: 1,
    };
    const AT_3: FetchPosition = FetchPosition {
        offset: 3,
        leader_epoch: 1,
    };

    #[test]
    fn a_partition_without_a_committed_offset_to_give_holds_up_no_other() {
        let unstable = code(ResponseError::UnstableOffsetCommit);
        let response = [
            Ok(Some(AT_3)),
            Err(unstable.clone()),
            Ok(None),
            Err(GroupError::MalformedResponse),
        ];
        let response = response.map(committed).into();
        let outcome = batch(4).complete("g", Ok(response));
        let at_3 = InitialPosition {
            assignment: assigned(0),
            position: AT_3,
            topic: TOPIC,
        };
        assert_eq!(outcome.committed, [at_3]);
        assert_eq!(outcome.uncommitted, [(assigned(2), TOPIC)]);
        assert!(outcome.failed.is_none());
        let (mut again, first_delay) = outcome.retry.unwrap();
        assert_eq!(again.assignments, [assigned(1), assigned(3)]);
        // However often it is asked again.
        for _ in 0..2 * ATTEMPTS {
            let response = again.assignments.iter();
            let response = response.map(|_| committed(Err(unstable.clone())));
            let response = Ok(response.collect());
            let outcome = again.complete("g", response);
            assert!(outcome.failed.is_none());
            let (next, delay) = outcome.retry.unwrap();
            assert!(delay > first_delay / 2);
            again = next;
        }
        assert_eq!(again.assignments, [assigned(1), assigned(3)]);
    }

    #[test]
    fn brokers_that_do_not_know_a_topic_have_no_committed_offset_dropped() {
        let unknown = || committed(Err(code(ResponseError::UnknownTopicOrPartition)));
        let mut batch = batch(2);
        for _ in 1..ATTEMPTS {
            let outcome = batch.complete("g", Ok(vec![unknown(), unknown()]));
            assert!(outcome.uncommitted.is_empty() && outcome.failed.is_none());
            batch = outcome.retry.unwrap().0;
        }
        // One has caught up.
        let outcome = batch.complete("g", Ok(vec![committed(Ok(Some(AT_3))), unknown()]));
        assert_eq!(outcome.committed.len(), 1);
        assert!(outcome.uncommitted.is_empty() && outcome.retry.is_none());
        let (assignments, error) = outcome.failed.unwrap();
        assert_eq!(assignments, [assigned(1)]);
        assert!(
            matches!(&error, PositionError::Fatal(ConsumerError::UnknownTopic { topic })
                if **topic == *"t"),
            "{error:?}"
        );
    }

    #[test]
    fn a_topic_that_is_known_again_has_all_its_attempts() {
        let unknown = || committed(Err(code(ResponseError::UnknownTopicOrPartition)));
        let unstable = || committed(Err(code(ResponseError::UnstableOffsetCommit)));
        let mut batch = batch(1);
        for attempt in 1..2 * ATTEMPTS {
            let response = if attempt == 5 { unstable() } else { unknown() };
            let outcome = batch.complete("g", Ok(vec![response]));
            match outcome.retry {
                Some((next, _)) => batch = next,
                None => {
                    assert_eq!(attempt, 5 + ATTEMPTS);
                    return;
                }
            }
        }
        panic!("it is asked for ever");
    }

    #[test]
    fn failures_that_pass_do_not_count_towards_a_rejoin() {
        let mut batch = batch(1);
        for _ in 0..2 * ATTEMPTS {
            for passing in [
                code(ResponseError::CoordinatorLoadInProgress),
                code(ResponseError::NotCoordinator),
            ] {
                batch = batch.complete("g", Err(passing)).retry.unwrap().0;
            }
        }
        let outcome = batch.complete("g", Err(GroupError::MalformedResponse));
        assert!(outcome.failed.is_none(), "the first that may last");
    }

    #[test]
    fn a_request_that_fails_is_repeated_and_in_the_end_the_member_rejoins() {
        let mut batch = batch(2);
        for _ in 0..ATTEMPTS {
            let outcome = batch.complete("g", Err(GroupError::MalformedResponse));
            batch = outcome.retry.unwrap().0;
            assert_eq!(batch.assignments.len(), 2);
        }
        // What is known to pass, or to be elsewhere, does not count.
        let loading = code(ResponseError::CoordinatorLoadInProgress);
        batch = batch.complete("g", Err(loading)).retry.unwrap().0;
        let moved = code(ResponseError::NotCoordinator);
        batch = batch.complete("g", Err(moved)).retry.unwrap().0;
        let outcome = batch.complete("g", Err(GroupError::MalformedResponse));
        assert!(outcome.retry.is_none());
        let (assignments, error) = outcome.failed.unwrap();
        assert_eq!(assignments.len(), 2);
        assert!(matches!(error, PositionError::RejoinNeeded), "{error:?}");
    }

    #[test]
    fn a_refusal_is_not_repeated() {
        let refused = code(ResponseError::GroupAuthorizationFailed);
        let (_, error) = batch(1).complete("g", Err(refused)).failed.unwrap();
        let group = "g".into();
        assert!(
            matches!(&error, PositionError::Fatal(error)
                if *error == ConsumerError::GroupNotAuthorized { group }),
            "{error:?}"
        );
        let refused = Err(code(ResponseError::TopicAuthorizationFailed));
        let response = vec![committed(Ok(None)), committed(refused)];
        let outcome = batch(2).complete("g", Ok(response));
        assert_eq!(outcome.uncommitted, [(assigned(0), TOPIC)]);
        let (assignments, error) = outcome.failed.unwrap();
        assert_eq!(assignments, [assigned(1)]);
        assert!(matches!(
            error,
            PositionError::Fatal(ConsumerError::TopicNotAuthorized { .. })
        ));
    }
}
