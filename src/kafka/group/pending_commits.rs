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
//! - A partition that the coordinator does not know is given up after a number of attempts: its
//!   topic was deleted. It is retried until then: metadata of a new one may still be on its way.
//! - A waiting caller is notified when everything that was added before its call is committed or
//!   has failed.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use tokio::sync::oneshot;

use super::error::{CommitError, GroupError, GroupErrorAction};
use super::partition_assignment::PartitionAssignment;
use crate::TopicPartition;
use crate::fetcher::FetchPosition;

/// Responses of UNKNOWN_TOPIC_OR_PARTITION, one after another, that end the attempts.
const UNKNOWN_PARTITION_ATTEMPTS: u32 = 10;

type CommitWaiter = oneshot::Sender<Result<(), CommitError>>;

/// One member's offsets to commit: those that wait, and those in flight.
#[derive(Debug, Default)]
pub(crate) struct PendingCommits {
    unsent: CommitBatch,
    in_flight: Option<CommitBatch>,
    /// Partitions that the coordinator did not know the last time, and how often in a row.
    unknown: BTreeMap<PartitionAssignment, u32>,
}

/// The offsets of one OffsetCommit request: Java's `Map<TopicPartition, OffsetAndMetadata>`.
#[derive(Debug, Default)]
struct CommitBatch {
    offsets: BTreeMap<PartitionAssignment, FetchPosition>,
    waiters: Vec<CommitWaiter>,
    /// What was lost while this was in flight.
    lost: Vec<PartitionAssignment>,
    /// The first error of one of its partitions.
    error: Option<CommitError>,
}

/// What follows from the response to an OffsetCommit request.
#[derive(Debug, Default)]
pub(crate) struct CommitOutcome {
    /// Some offsets are to be sent again after the backoff.
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
        self.unsent.offsets.insert(assignment, next);
    }

    /// Resolves when everything that was added is committed or has failed; `None` if it is.
    pub(crate) fn completion(&mut self) -> Option<oneshot::Receiver<Result<(), CommitError>>> {
        if self.is_idle() {
            return None;
        }
        let (waiter, completed) = oneshot::channel();
        match &mut self.in_flight {
            Some(batch) if self.unsent.offsets.is_empty() => batch.waiters.push(waiter),
            _ => self.unsent.waiters.push(waiter),
        }
        Some(completed)
    }

    /// Nothing is unsent and nothing is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.unsent.offsets.is_empty() && self.in_flight.is_none()
    }

    /// Nothing of these is unsent or in flight.
    pub(crate) fn is_settled(&self, assignments: &[PartitionAssignment]) -> bool {
        let batches = [Some(&self.unsent), self.in_flight.as_ref()];
        let held = |batch: &CommitBatch| assignments.iter().any(|a| batch.offsets.contains_key(a));
        !batches.into_iter().flatten().any(held)
    }

    /// There are offsets to send, and no request is in flight.
    pub(crate) fn is_sendable(&self) -> bool {
        !self.unsent.offsets.is_empty() && self.in_flight.is_none()
    }

    /// Takes everything unsent that is still `owned` into one request, of each partition one
    /// assignment.
    pub(crate) fn start_request(
        &mut self,
        owned: impl Fn(&PartitionAssignment) -> bool,
    ) -> Vec<(PartitionAssignment, FetchPosition)> {
        self.retain_owned(owned);
        if !self.is_sendable() {
            return Vec::new();
        }
        let batch = std::mem::take(&mut self.unsent);
        let offsets = batch.offsets.iter();
        let offsets = offsets.map(|(assignment, next)| (assignment.clone(), *next));
        let offsets = offsets.collect();
        self.in_flight = Some(batch);
        offsets
    }

    /// Drops the offsets of what is no longer `owned`.
    pub(crate) fn retain_owned(&mut self, owned: impl Fn(&PartitionAssignment) -> bool) {
        if let Some(sent) = &mut self.in_flight {
            let lost = sent.offsets.keys().filter(|assignment| !owned(assignment));
            sent.lost.extend(lost.cloned());
        }
        let batch = &mut self.unsent;
        let error = &mut batch.error;
        batch.offsets.retain(|assignment, _| {
            let keep = owned(assignment);
            if !keep {
                let tp = || assignment.tp.clone();
                error.get_or_insert_with(|| CommitError::Lost { tp: tp() });
            }
            keep
        });
        self.unknown.retain(|assignment, _| owned(assignment));
        if batch.offsets.is_empty() && self.in_flight.is_none() {
            std::mem::take(batch).notify_waiters();
        }
    }

    /// The response to the request: the error code per partition; one without a code has failed.
    pub(crate) fn complete_request(
        &mut self,
        result: Result<Vec<(PartitionAssignment, i16)>, GroupError>,
    ) -> CommitOutcome {
        let mut outcome = CommitOutcome::default();
        let Some(mut batch) = self.in_flight.take() else {
            return outcome;
        };
        match result {
            Ok(codes) => {
                for (assignment, code) in codes {
                    let Some(error) = GroupError::from_code(code) else {
                        batch.offsets.remove(&assignment);
                        self.unknown.remove(&assignment);
                        continue;
                    };
                    if let GroupError::Code(ResponseError::InconsistentTopicId) = error {
                        outcome.recreated.push(assignment.clone());
                    }
                    match self.partition_error(&assignment, &error) {
                        Some(error) => {
                            batch.offsets.remove(&assignment);
                            outcome.failed.push(error.clone());
                            batch.error.get_or_insert(error);
                        }
                        None => outcome.error = Some(error),
                    }
                }
            }
            Err(error) => outcome.error = Some(error),
        }
        for assignment in std::mem::take(&mut batch.lost) {
            if batch.offsets.remove(&assignment).is_some() {
                let tp = assignment.tp;
                batch.error.get_or_insert(CommitError::Lost { tp });
            }
        }
        if batch.offsets.is_empty() {
            batch.notify_waiters();
            return outcome;
        }
        outcome.retry = true;
        // Unsent again; what was added meanwhile is newer.
        for (assignment, next) in batch.offsets {
            self.unsent.offsets.entry(assignment).or_insert(next);
        }
        self.unsent.waiters.append(&mut batch.waiters);
        if self.unsent.error.is_none() {
            self.unsent.error = batch.error;
        }
        outcome
    }

    /// The error of this partition if it is not to be committed any more.
    fn partition_error(
        &mut self,
        assignment: &PartitionAssignment,
        error: &GroupError,
    ) -> Option<CommitError> {
        if !matches!(
            error,
            GroupError::Code(ResponseError::UnknownTopicOrPartition)
        ) {
            self.unknown.remove(assignment);
            return fatal_partition_error(&assignment.tp, error);
        }
        let attempts = self.unknown.entry(assignment.clone()).or_default();
        *attempts += 1;
        if *attempts < UNKNOWN_PARTITION_ATTEMPTS {
            return None;
        }
        self.unknown.remove(assignment);
        Some(CommitError::Rejected {
            tp: assignment.tp.clone(),
            reason: error.message(),
        })
    }

    /// The member has ended: nothing will be committed any more.
    pub(crate) fn close(&mut self, error: &CommitError) {
        for mut batch in [
            self.in_flight.take(),
            Some(std::mem::take(&mut self.unsent)),
        ]
        .into_iter()
        .flatten()
        {
            batch.error.get_or_insert_with(|| error.clone());
            batch.notify_waiters();
        }
    }
}

impl CommitBatch {
    fn notify_waiters(self) {
        for waiter in self.waiters {
            // A caller that was cancelled has dropped its receiver.
            let _ = waiter.send(self.error.clone().map_or(Ok(()), Err));
        }
    }
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

    #[test]
    fn only_the_newest_offset_of_a_partition_is_sent() {
        let mut commits = PendingCommits::default();
        for offset in 1..100 {
            commits.add(first_of(0), at(offset));
        }
        commits.add(first_of(1), at(7));
        assert_eq!(
            commits.start_request(all),
            [(first_of(0), at(99)), (first_of(1), at(7))]
        );
        assert!(!commits.is_sendable());
    }

    #[test]
    fn offsets_added_while_a_request_is_in_flight_wait_for_the_next() {
        let mut commits = PendingCommits::default();
        commits.add(first_of(0), at(1));
        commits.start_request(all);
        let mut first = commits.completion().unwrap();
        commits.add(first_of(0), at(2));
        let mut second = commits.completion().unwrap();
        assert!(commits.start_request(all).is_empty(), "one at a time");
        commits.complete_request(Ok(vec![(first_of(0), 0)]));
        assert_eq!(first.try_recv(), Ok(Ok(())));
        assert!(second.try_recv().is_err());
        assert_eq!(commits.start_request(all), [(first_of(0), at(2))]);
        commits.complete_request(Ok(vec![(first_of(0), 0)]));
        assert_eq!(second.try_recv(), Ok(Ok(())));
        assert!(commits.is_idle() && commits.completion().is_none());
    }

    #[test]
    fn an_offset_that_failed_never_overtakes_a_newer_one() {
        let mut commits = PendingCommits::default();
        commits.add(first_of(0), at(1));
        let mut completed = commits.completion().unwrap();
        commits.start_request(all);
        commits.add(first_of(0), at(5));
        let outcome = commits.complete_request(Ok(vec![(first_of(0), REBALANCE)]));
        assert!(outcome.retry);
        assert_eq!(outcome.error.unwrap().action(), GroupErrorAction::Rejoin);
        assert!(completed.try_recv().is_err(), "kept, not failed");
        assert_eq!(commits.start_request(all), [(first_of(0), at(5))]);
    }

    #[test]
    fn a_request_without_a_response_is_retried() {
        let mut commits = PendingCommits::default();
        commits.add(first_of(0), at(1));
        commits.start_request(all);
        assert!(
            commits
                .complete_request(Err(GroupError::MalformedResponse))
                .retry
        );
        commits.start_request(all);
        // A response that leaves a partition out did not commit it.
        assert!(commits.complete_request(Ok(vec![])).retry);
        assert_eq!(commits.start_request(all), [(first_of(0), at(1))]);
    }

    #[test]
    fn a_lost_partition_is_dropped_and_its_waiters_notified() {
        let mut commits = PendingCommits::default();
        commits.add(first_of(0), at(1));
        commits.add(first_of(1), at(1));
        let mut completed = commits.completion().unwrap();
        assert_eq!(
            commits.start_request(|assignment| assignment.tp.partition == 1),
            [(first_of(1), at(1))]
        );
        commits.complete_request(Ok(vec![(first_of(1), 0)]));
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
        commits.start_request(all);
        commits.retain_owned(|assignment| assignment.tp.partition == 1);
        // It is owned again, at 10, when the response comes.
        assert!(
            commits
                .complete_request(Err(GroupError::MalformedResponse))
                .retry
        );
        assert_eq!(commits.start_request(all), [(first_of(1), at(1))]);
        commits.complete_request(Ok(vec![(first_of(1), 0)]));
        assert_eq!(
            completed.try_recv(),
            Ok(Err(CommitError::Lost {
                tp: topic_partition(0)
            }))
        );
        // What was committed all the same is not lost.
        commits.add(first_of(0), at(2));
        let mut completed = commits.completion().unwrap();
        commits.start_request(all);
        commits.retain_owned(|_| false);
        commits.complete_request(Ok(vec![(first_of(0), 0)]));
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
        assert_eq!(commits.start_request(second), [(assigned(0, 2), at(9))]);
        commits.complete_request(Ok(vec![(assigned(0, 2), 0)]));
        let lost = CommitError::Lost {
            tp: topic_partition(0),
        };
        assert_eq!(completed.try_recv(), Ok(Err(lost)));

        // It was in flight when the partition was revoked, and failed.
        commits.add(first_of(0), at(4));
        commits.start_request(all);
        commits.add(assigned(0, 2), at(9));
        commits.complete_request(Err(GroupError::MalformedResponse));
        assert_eq!(commits.start_request(second), [(assigned(0, 2), at(9))]);
    }

    #[test]
    fn partitions_are_settled_independently_of_others() {
        let mut commits = PendingCommits::default();
        commits.add(first_of(0), at(1));
        commits.start_request(all);
        commits.add(first_of(1), at(1));
        assert!(!commits.is_settled(&[first_of(0)]), "in flight");
        assert!(!commits.is_settled(&[first_of(2), first_of(1)]), "unsent");
        assert!(commits.is_settled(&[first_of(2)]));
        commits.complete_request(Ok(vec![(first_of(0), 0)]));
        assert!(commits.is_settled(&[first_of(0)]) && !commits.is_idle());
    }

    #[test]
    fn a_refused_partition_does_not_hold_up_the_others() {
        let mut commits = PendingCommits::default();
        commits.add(first_of(0), at(1));
        commits.add(first_of(1), at(1));
        let mut completed = commits.completion().unwrap();
        commits.start_request(all);
        let outcome = commits.complete_request(Ok(vec![(first_of(0), 29), (first_of(1), 0)]));
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
    fn a_partition_that_stays_unknown_is_given_up_and_its_waiters_notified() {
        const UNKNOWN: i16 = 3;
        let mut commits = PendingCommits::default();
        let respond = |commits: &mut PendingCommits, code| {
            assert_eq!(commits.start_request(all), [(first_of(0), at(1))]);
            commits.complete_request(Ok(vec![(first_of(0), code)]))
        };
        // A response of another kind in between starts over.
        for last in [0, UNKNOWN] {
            commits.add(first_of(0), at(1));
            let mut completed = commits.completion().unwrap();
            for _ in 1..UNKNOWN_PARTITION_ATTEMPTS {
                let outcome = respond(&mut commits, UNKNOWN);
                assert!(outcome.retry && outcome.failed.is_empty());
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
        commits.start_request(all);
        let mut first = commits.completion().unwrap();
        commits.add(first_of(1), at(1));
        let mut second = commits.completion().unwrap();
        commits.close(&CommitError::Closed);
        assert_eq!(first.try_recv(), Ok(Err(CommitError::Closed)));
        assert_eq!(second.try_recv(), Ok(Err(CommitError::Closed)));
    }
}
