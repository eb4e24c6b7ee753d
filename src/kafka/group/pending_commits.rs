//! Offsets that wait to be committed, and the callers that wait for their commit. Pure.
//!
//! ```text
//! add ─▶ unsent (the newest per partition) ─start_request▶ in flight ─complete_request▶ done
//!           ▲                                                 │
//!           └───────────────────── retried ───────────────────┘
//! ```
//!
//! # Invariants
//! - One OffsetCommit request is in flight at a time; offsets that are added meanwhile are
//!   gathered for the next.
//! - An older offset is never committed after a newer one of its partition, also not after one
//!   that another member has committed: an offset belongs to one assignment of its partition,
//!   and what was lost while in flight is not retried.
//! - A partition that fails alone waits alone until it is retried; the others are sent meanwhile.
//! - A partition that the coordinator does not know, or whose log ends before the offset, is given
//!   up after a number of attempts: its topic was deleted. It is retried until then: metadata of
//!   a new one may still be on its way.
//! - A waiting caller is notified when everything that was added before its call is committed or
//!   has failed.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::error::{CommitError, GroupError, GroupErrorAction};
use super::partition_assignment::PartitionAssignment;
use crate::TopicPartition;
use crate::backoff::ExponentialBackoff;
use crate::fetcher::FetchPosition;

/// Responses, one after another, that there is no such partition or offset, and that end the
/// attempts.
const UNKNOWN_PARTITION_ATTEMPTS: u32 = 10;

/// One member's offsets to commit: those that wait, and those in flight.
#[derive(Debug, Default)]
pub(crate) struct PendingCommits {
    unsent: PendingOffsets,
    in_flight: Option<InFlightCommit>,
    /// Partitions that failed alone the last time.
    retries: BTreeMap<PartitionAssignment, PartitionRetry>,
    waiters: Vec<CommitWaiter>,
    /// How many offsets were added so far.
    added: u64,
}

/// Java's `Map<TopicPartition, OffsetAndMetadata>`.
type PendingOffsets = BTreeMap<PartitionAssignment, PendingOffset>;

#[derive(Clone, Copy, Debug)]
struct PendingOffset {
    next: FetchPosition,
    /// The number of the first addition that it stands for.
    first_added: u64,
}

/// The offsets of one OffsetCommit request.
#[derive(Debug)]
struct InFlightCommit {
    offsets: PendingOffsets,
    /// What was lost while it was in flight.
    lost: Vec<PartitionAssignment>,
}

/// A partition that failed, while the others of its request may not have.
#[derive(Debug)]
struct PartitionRetry {
    backoff: ExponentialBackoff,
    not_before: Instant,
    /// How often in a row there was no such partition or offset.
    unknown: u32,
}

/// A caller that waits for the additions up to that number.
#[derive(Debug)]
struct CommitWaiter {
    last_added: u64,
    /// The first error of one of their partitions.
    error: Option<CommitError>,
    result: oneshot::Sender<Result<(), CommitError>>,
}

/// What follows from the response to an OffsetCommit request.
#[derive(Debug, Default)]
pub(crate) struct CommitOutcome {
    /// No offset is to be sent again before the backoff is over.
    pub(crate) retry: bool,
    /// An error that concerns the membership, not single offsets.
    pub(crate) error: Option<GroupError>,
    /// Offsets that will not be committed.
    pub(crate) failed: Vec<CommitError>,
    /// Whose topic was deleted and created again.
    pub(crate) recreated: Vec<PartitionAssignment>,
}

impl PendingCommits {
    /// Everything before `next` has been processed under that assignment.
    pub(crate) fn add(&mut self, assignment: PartitionAssignment, next: FetchPosition) {
        self.added += 1;
        let first_added = self.added;
        let added = PendingOffset { next, first_added };
        let pending = self.unsent.entry(assignment).or_insert(added);
        pending.next = next;
    }

    /// Resolves when everything that was added is committed or has failed; `None` if it is.
    pub(crate) fn completion(&mut self) -> Option<oneshot::Receiver<Result<(), CommitError>>> {
        if self.is_idle() {
            return None;
        }
        let (result, completed) = oneshot::channel();
        self.waiters.push(CommitWaiter {
            last_added: self.added,
            error: None,
            result,
        });
        Some(completed)
    }

    /// Nothing is unsent and nothing is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.unsent.is_empty() && self.in_flight.is_none()
    }

    /// Nothing of these is unsent or in flight.
    pub(crate) fn is_settled(&self, assignments: &[PartitionAssignment]) -> bool {
        let in_flight = self.in_flight.as_ref().map(|sent| &sent.offsets);
        let mut batches = [Some(&self.unsent), in_flight].into_iter().flatten();
        !batches.any(|batch| assignments.iter().any(|of| batch.contains_key(of)))
    }

    /// When the next request may be sent, if there are offsets for it and none is in flight.
    pub(crate) fn due_at(&self, now: Instant) -> Option<Instant> {
        if self.in_flight.is_some() || self.unsent.is_empty() {
            return None;
        }
        if self.retries.is_empty() {
            return Some(now);
        }
        self.unsent.keys().map(|of| self.not_before(of, now)).min()
    }

    /// The topics of what may be sent now.
    pub(crate) fn due_topics(&self, now: Instant) -> Vec<Arc<str>> {
        let due = self.unsent.keys();
        let due = due.filter(|of| self.not_before(of, now) <= now);
        let mut topics: Vec<_> = due.map(|of| Arc::clone(&of.tp.topic)).collect();
        topics.dedup();
        topics
    }

    fn not_before(&self, assignment: &PartitionAssignment, now: Instant) -> Instant {
        let retry = self.retries.get(assignment);
        retry.map_or(now, |retry| retry.not_before)
    }

    /// Takes everything unsent that is still `owned`, may be sent now and is of an `allowed` topic
    /// into one request, of each partition one assignment.
    pub(crate) fn start_request(
        &mut self,
        now: Instant,
        owned: impl Fn(&PartitionAssignment) -> bool,
        allowed: impl Fn(&str) -> bool,
    ) -> Vec<(PartitionAssignment, FetchPosition)> {
        self.retain_owned(owned);
        if self.in_flight.is_some() {
            return Vec::new();
        }
        let unsent = std::mem::take(&mut self.unsent);
        let is_due =
            |of: &PartitionAssignment| allowed(&of.tp.topic) && self.not_before(of, now) <= now;
        let (sent, unsent): (PendingOffsets, _) =
            unsent.into_iter().partition(|(of, _)| is_due(of));
        self.unsent = unsent;
        let offsets = sent.iter();
        let offsets = offsets.map(|(assignment, pending)| (assignment.clone(), pending.next));
        let offsets: Vec<_> = offsets.collect();
        if !offsets.is_empty() {
            self.in_flight = Some(InFlightCommit {
                offsets: sent,
                lost: Vec::new(),
            });
        }
        offsets
    }

    /// Drops the offsets of what is no longer `owned`.
    pub(crate) fn retain_owned(&mut self, owned: impl Fn(&PartitionAssignment) -> bool) {
        if let Some(sent) = &mut self.in_flight {
            let lost = sent.offsets.keys().filter(|assignment| !owned(assignment));
            sent.lost.extend(lost.cloned());
        }
        let lost: Vec<_> = self.unsent.extract_if(.., |of, _| !owned(of)).collect();
        for (assignment, pending) in lost {
            let tp = assignment.tp;
            self.fail(pending, &CommitError::Lost { tp });
        }
        self.retries.retain(|assignment, _| owned(assignment));
        self.notify_waiters();
    }

    /// The response to the request: the error code per partition; one without a code has failed.
    /// A partition that failed alone waits as `backoff` says, which is its first.
    pub(crate) fn complete_request(
        &mut self,
        result: Result<Vec<(PartitionAssignment, i16)>, GroupError>,
        now: Instant,
        backoff: &ExponentialBackoff,
    ) -> CommitOutcome {
        let mut outcome = CommitOutcome::default();
        let Some(InFlightCommit { mut offsets, lost }) = self.in_flight.take() else {
            return outcome;
        };
        let mut failed_alone = PendingOffsets::new();
        match result {
            Ok(codes) => {
                for (assignment, code) in codes {
                    let Some(error) = GroupError::from_code(code) else {
                        offsets.remove(&assignment);
                        self.retries.remove(&assignment);
                        continue;
                    };
                    if let GroupError::Code(ResponseError::InconsistentTopicId) = error {
                        outcome.recreated.push(assignment.clone());
                    }
                    if let Some(error) = self.partition_error(&assignment, &error, now, backoff) {
                        if let Some(pending) = offsets.remove(&assignment) {
                            self.fail(pending, &error);
                        }
                        outcome.failed.push(error);
                    } else if is_of_partition(&error) {
                        failed_alone.extend(offsets.remove_entry(&assignment));
                    } else {
                        outcome.error = Some(error);
                    }
                }
            }
            Err(error) => outcome.error = Some(error),
        }
        for assignment in lost {
            let of_all = offsets.remove(&assignment);
            if let Some(pending) = of_all.or_else(|| failed_alone.remove(&assignment)) {
                let tp = assignment.tp;
                self.fail(pending, &CommitError::Lost { tp });
            }
        }
        outcome.retry = !offsets.is_empty();
        // Unsent again; what was added meanwhile is newer.
        for (assignment, pending) in offsets.into_iter().chain(failed_alone) {
            let unsent = self.unsent.entry(assignment).or_insert(pending);
            unsent.first_added = unsent.first_added.min(pending.first_added);
        }
        self.notify_waiters();
        outcome
    }

    /// The error of this partition if it is not to be committed any more.
    fn partition_error(
        &mut self,
        assignment: &PartitionAssignment,
        error: &GroupError,
        now: Instant,
        backoff: &ExponentialBackoff,
    ) -> Option<CommitError> {
        if !is_of_partition(error) {
            self.retries.remove(assignment);
            return fatal_partition_error(&assignment.tp, error);
        }
        let retry = self.retries.entry(assignment.clone());
        let retry = retry.or_insert_with(|| PartitionRetry {
            backoff: backoff.clone(),
            not_before: now,
            unknown: 0,
        });
        retry.unknown = match is_unknown_partition(error) {
            true => retry.unknown + 1,
            false => 0,
        };
        if retry.unknown < UNKNOWN_PARTITION_ATTEMPTS {
            retry.not_before = now + retry.backoff.after_failure();
            return None;
        }
        self.retries.remove(assignment);
        Some(CommitError::Rejected {
            tp: assignment.tp.clone(),
            reason: error.message(),
        })
    }

    /// The member has ended: nothing will be committed any more.
    pub(crate) fn close(&mut self, error: &CommitError) {
        self.in_flight = None;
        self.unsent.clear();
        for waiter in &mut self.waiters {
            waiter.error.get_or_insert_with(|| error.clone());
        }
        self.notify_waiters();
    }

    /// Those who wait for that offset are told why it is not committed.
    fn fail(&mut self, pending: PendingOffset, error: &CommitError) {
        for waiter in &mut self.waiters {
            if pending.first_added <= waiter.last_added {
                waiter.error.get_or_insert_with(|| error.clone());
            }
        }
    }

    fn notify_waiters(&mut self) {
        if self.waiters.is_empty() {
            return;
        }
        let in_flight = self.in_flight.iter().flat_map(|sent| sent.offsets.values());
        let pending = self.unsent.values().chain(in_flight);
        let first_pending = pending.map(|pending| pending.first_added).min();
        let is_done =
            |waiter: &mut CommitWaiter| first_pending.is_none_or(|first| first > waiter.last_added);
        for waiter in self.waiters.extract_if(.., is_done) {
            // A caller that was cancelled has dropped its receiver.
            let _ = waiter.result.send(waiter.error.map_or(Ok(()), Err));
        }
    }
}

/// Whether an error that passes is about the partition alone, not about the group.
fn is_of_partition(error: &GroupError) -> bool {
    is_unknown_partition(error)
        || matches!(
            error,
            GroupError::Code(ResponseError::UnknownTopicId | ResponseError::LeaderNotAvailable)
        )
}

fn is_unknown_partition(error: &GroupError) -> bool {
    matches!(
        error,
        GroupError::Code(ResponseError::UnknownTopicOrPartition | ResponseError::OffsetOutOfRange)
    )
}

/// A fatal error of this partition alone.
fn fatal_partition_error(tp: &TopicPartition, error: &GroupError) -> Option<CommitError> {
    let tp = tp.clone();
    match error {
        GroupError::Code(ResponseError::TopicAuthorizationFailed) => {
            Some(CommitError::NotAuthorized { tp })
        }
        GroupError::Code(
            ResponseError::OffsetMetadataTooLarge
            | ResponseError::InvalidCommitOffsetSize
            | ResponseError::InconsistentTopicId
            | ResponseError::InvalidTopicException,
        ) => Some(CommitError::Rejected {
            tp,
            reason: error.message(),
        }),
        _ if error.action() == GroupErrorAction::FailNotAuthorized => {
            Some(CommitError::NotAuthorized { tp })
        }
        _ if error.action() == GroupErrorAction::Fail => Some(CommitError::Rejected {
            tp,
            reason: error.message(),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn topic_partition(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    /// The first assignment of that partition.
    fn first_of(partition: i32) -> PartitionAssignment {
        assigned(partition, 1)
    }

    fn assigned(partition: i32, number: u64) -> PartitionAssignment {
        PartitionAssignment {
            tp: topic_partition(partition),
            number,
        }
    }

    fn at(offset: i64) -> FetchPosition {
        FetchPosition {
            offset,
            leader_epoch: 3,
        }
    }

    fn all(_: &PartitionAssignment) -> bool {
        true
    }

    const REBALANCE: i16 = 27;
    const UNKNOWN: i16 = 3;

    fn backoff() -> ExponentialBackoff {
        ExponentialBackoff::new(Duration::from_millis(100), Duration::from_secs(1))
    }

    /// After any backoff.
    fn start(
        commits: &mut PendingCommits,
        owned: impl Fn(&PartitionAssignment) -> bool,
    ) -> Vec<(PartitionAssignment, FetchPosition)> {
        let now = Instant::now() + Duration::from_secs(60);
        commits.start_request(now, owned, |_| true)
    }

    fn complete(
        commits: &mut PendingCommits,
        result: Result<Vec<(PartitionAssignment, i16)>, GroupError>,
    ) -> CommitOutcome {
        commits.complete_request(result, Instant::now(), &backoff())
    }

    #[test]
    fn only_the_newest_offset_of_a_partition_is_sent() {
        let mut commits = PendingCommits::default();
        for offset in 1..100 {
            commits.add(first_of(0), at(offset));
        }
        commits.add(first_of(1), at(7));
        assert_eq!(
            start(&mut commits, all),
            [(first_of(0), at(99)), (first_of(1), at(7))]
        );
        assert!(commits.due_at(Instant::now()).is_none());
    }

    #[test]
    fn offsets_added_while_a_request_is_in_flight_wait_for_the_next() {
        let mut commits = PendingCommits::default();
        commits.add(first_of(0), at(1));
        start(&mut commits, all);
        let mut first = commits.completion().unwrap();
        commits.add(first_of(0), at(2));
        let mut second = commits.completion().unwrap();
        assert!(start(&mut commits, all).is_empty(), "one at a time");
        complete(&mut commits, Ok(vec![(first_of(0), 0)]));
        assert_eq!(first.try_recv(), Ok(Ok(())));
        assert!(second.try_recv().is_err());
        assert_eq!(start(&mut commits, all), [(first_of(0), at(2))]);
        complete(&mut commits, Ok(vec![(first_of(0), 0)]));
        assert_eq!(second.try_recv(), Ok(Ok(())));
        assert!(commits.is_idle() && commits.completion().is_none());
    }

    #[test]
    fn an_offset_that_failed_never_overtakes_a_newer_one() {
        let mut commits = PendingCommits::default();
        commits.add(first_of(0), at(1));
        let mut completed = commits.completion().unwrap();
        start(&mut commits, all);
        commits.add(first_of(0), at(5));
        let outcome = complete(&mut commits, Ok(vec![(first_of(0), REBALANCE)]));
        assert!(outcome.retry);
        assert_eq!(outcome.error.unwrap().action(), GroupErrorAction::Rejoin);
        assert!(completed.try_recv().is_err(), "kept, not failed");
        assert_eq!(start(&mut commits, all), [(first_of(0), at(5))]);
    }

    #[test]
    fn a_request_without_a_response_is_retried() {
        let mut commits = PendingCommits::default();
        commits.add(first_of(0), at(1));
        start(&mut commits, all);
        assert!(complete(&mut commits, Err(GroupError::MalformedResponse)).retry);
        start(&mut commits, all);
        // A response that leaves a partition out did not commit it.
        assert!(complete(&mut commits, Ok(vec![])).retry);
        assert_eq!(start(&mut commits, all), [(first_of(0), at(1))]);
    }

    #[test]
    fn a_lost_partition_is_dropped_and_its_waiters_notified() {
        let mut commits = PendingCommits::default();
        commits.add(first_of(0), at(1));
        commits.add(first_of(1), at(1));
        let mut completed = commits.completion().unwrap();
        assert_eq!(
            start(&mut commits, |assignment| assignment.tp.partition == 1),
            [(first_of(1), at(1))]
        );
        complete(&mut commits, Ok(vec![(first_of(1), 0)]));
        assert_eq!(
            completed.try_recv(),
            Ok(Err(CommitError::Lost {
                tp: topic_partition(0)
            }))
        );
        commits.add(first_of(0), at(2));
        let mut completed = commits.completion().unwrap();
        commits.retain_owned(|_| false);
        assert_eq!(
            completed.try_recv(),
            Ok(Err(CommitError::Lost {
                tp: topic_partition(0)
            }))
        );
    }

    #[test]
    fn what_is_lost_in_flight_is_not_retried() {
        let mut commits = PendingCommits::default();
        commits.add(first_of(0), at(1));
        commits.add(first_of(1), at(1));
        let mut completed = commits.completion().unwrap();
        start(&mut commits, all);
        commits.retain_owned(|assignment| assignment.tp.partition == 1);
        // It is owned again, at 10, when the response comes.
        assert!(complete(&mut commits, Err(GroupError::MalformedResponse)).retry);
        assert_eq!(start(&mut commits, all), [(first_of(1), at(1))]);
        complete(&mut commits, Ok(vec![(first_of(1), 0)]));
        assert_eq!(
            completed.try_recv(),
            Ok(Err(CommitError::Lost {
                tp: topic_partition(0)
            }))
        );
        // What was committed all the same is not lost.
        commits.add(first_of(0), at(2));
        let mut completed = commits.completion().unwrap();
        start(&mut commits, all);
        commits.retain_owned(|_| false);
        complete(&mut commits, Ok(vec![(first_of(0), 0)]));
        assert_eq!(completed.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn an_offset_of_an_assignment_that_ended_is_not_committed_under_the_next() {
        let mut commits = PendingCommits::default();
        let second = |assignment: &PartitionAssignment| *assignment == assigned(0, 2);
        // It comes late, when the partition was revoked and assigned again.
        commits.add(assigned(0, 2), at(9));
        commits.add(first_of(0), at(4));
        let mut completed = commits.completion().unwrap();
        assert_eq!(start(&mut commits, second), [(assigned(0, 2), at(9))]);
        complete(&mut commits, Ok(vec![(assigned(0, 2), 0)]));
        let lost = CommitError::Lost {
            tp: topic_partition(0),
        };
        assert_eq!(completed.try_recv(), Ok(Err(lost)));

        // It was in flight when the partition was revoked, and failed.
        commits.add(first_of(0), at(4));
        start(&mut commits, all);
        commits.add(assigned(0, 2), at(9));
        complete(&mut commits, Err(GroupError::MalformedResponse));
        assert_eq!(start(&mut commits, second), [(assigned(0, 2), at(9))]);
    }

    #[test]
    fn partitions_are_settled_independently_of_others() {
        let mut commits = PendingCommits::default();
        commits.add(first_of(0), at(1));
        start(&mut commits, all);
        commits.add(first_of(1), at(1));
        assert!(!commits.is_settled(&[first_of(0)]), "in flight");
        assert!(!commits.is_settled(&[first_of(2), first_of(1)]), "unsent");
        assert!(commits.is_settled(&[first_of(2)]));
        complete(&mut commits, Ok(vec![(first_of(0), 0)]));
        assert!(commits.is_settled(&[first_of(0)]) && !commits.is_idle());
    }

    #[test]
    fn a_refused_partition_does_not_hold_up_the_others() {
        let mut commits = PendingCommits::default();
        commits.add(first_of(0), at(1));
        commits.add(first_of(1), at(1));
        let mut completed = commits.completion().unwrap();
        start(&mut commits, all);
        let outcome = complete(&mut commits, Ok(vec![(first_of(0), 29), (first_of(1), 0)]));
        assert!(!outcome.retry && outcome.error.is_none());
        assert_eq!(
            completed.try_recv(),
            Ok(Err(CommitError::NotAuthorized {
                tp: topic_partition(0)
            }))
        );
        assert!(commits.is_idle());
    }

    #[test]
    fn a_partition_that_fails_alone_waits_alone() {
        let now = Instant::now();
        let mut commits = PendingCommits::default();
        let all_due = |commits: &mut PendingCommits, now| commits.start_request(now, all, |_| true);
        commits.add(first_of(0), at(1));
        commits.add(first_of(1), at(1));
        let mut both = commits.completion().unwrap();
        assert_eq!(all_due(&mut commits, now).len(), 2);
        let codes = Ok(vec![(first_of(0), UNKNOWN), (first_of(1), 0)]);
        let outcome = commits.complete_request(codes, now, &backoff());
        assert!(!outcome.retry && outcome.error.is_none());
        let due_at = commits.due_at(now).unwrap();
        assert!(due_at > now);
        assert!(commits.due_topics(now).is_empty());

        commits.add(first_of(0), at(2));
        commits.add(first_of(1), at(2));
        let mut later = commits.completion().unwrap();
        assert_eq!(commits.due_at(now), Some(now));
        assert_eq!(all_due(&mut commits, now), [(first_of(1), at(2))]);
        commits.complete_request(Ok(vec![(first_of(1), 0)]), now, &backoff());
        assert!(both.try_recv().is_err() && later.try_recv().is_err());

        assert_eq!(all_due(&mut commits, due_at), [(first_of(0), at(2))]);
        let codes = Ok(vec![(first_of(0), UNKNOWN)]);
        commits.complete_request(codes, due_at, &backoff());
        let next = commits.due_at(due_at).unwrap();
        assert!(next - due_at > due_at - now, "it grows");
        all_due(&mut commits, next);
        commits.complete_request(Ok(vec![(first_of(0), 0)]), next, &backoff());
        assert_eq!(both.try_recv(), Ok(Ok(())));
        assert_eq!(later.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn offsets_of_a_topic_that_is_not_described_wait_for_the_next_request() {
        let now = Instant::now();
        let mut commits = PendingCommits::default();
        commits.add(first_of(0), at(1));
        assert_eq!(commits.due_topics(now), ["t".into()]);
        assert!(commits.start_request(now, all, |_| false).is_empty());
        assert_eq!(commits.due_at(now), Some(now));
        let sent = commits.start_request(now, all, |topic| topic == "t");
        assert_eq!(sent, [(first_of(0), at(1))]);
    }

    #[test]
    fn a_partition_that_stays_unknown_is_given_up_and_its_waiters_notified() {
        let mut commits = PendingCommits::default();
        let respond = |commits: &mut PendingCommits, code| {
            assert_eq!(start(commits, all), [(first_of(0), at(1))]);
            complete(commits, Ok(vec![(first_of(0), code)]))
        };
        // A response of another kind in between starts over.
        for last in [0, UNKNOWN] {
            commits.add(first_of(0), at(1));
            let mut completed = commits.completion().unwrap();
            for _ in 1..UNKNOWN_PARTITION_ATTEMPTS {
                let outcome = respond(&mut commits, UNKNOWN);
                assert!(!outcome.retry && outcome.failed.is_empty());
                assert!(!commits.is_idle());
                assert!(completed.try_recv().is_err());
            }
            let outcome = respond(&mut commits, last);
            assert!(!outcome.retry && commits.is_idle());
            let result = completed.try_recv().unwrap();
            assert_eq!(result.is_err(), last == UNKNOWN);
            assert_eq!(result.err().as_ref(), outcome.failed.first());
        }
    }

    #[test]
    fn closing_fails_every_waiter() {
        let mut commits = PendingCommits::default();
        commits.add(first_of(0), at(1));
        start(&mut commits, all);
        let mut first = commits.completion().unwrap();
        commits.add(first_of(1), at(1));
        let mut second = commits.completion().unwrap();
        commits.close(&CommitError::Closed);
        assert_eq!(first.try_recv(), Ok(Err(CommitError::Closed)));
        assert_eq!(second.try_recv(), Ok(Err(CommitError::Closed)));
    }
}
