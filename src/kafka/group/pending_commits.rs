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
//!   that another member has committed: what was lost while in flight is not retried.
//! - A partition that the coordinator does not know is given up after a number of attempts: its
//!   topic was deleted. It is retried until then: metadata of a new one may still be on its way.
//! - A waiting caller is notified when everything that was added before its call is committed or
//!   has failed.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use tokio::sync::oneshot;

use super::error::{CommitError, GroupError, GroupErrorAction};
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
    unknown: BTreeMap<TopicPartition, u32>,
}

/// The offsets of one OffsetCommit request: Java's `Map<TopicPartition, OffsetAndMetadata>`.
#[derive(Debug, Default)]
struct CommitBatch {
    offsets: BTreeMap<TopicPartition, FetchPosition>,
    waiters: Vec<CommitWaiter>,
    /// Partitions that were lost while this was in flight: a partition may be owned again, at
    /// a newer offset, by the time of the response.
    lost: Vec<TopicPartition>,
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
}

impl PendingCommits {
    /// Everything before `next` has been processed.
    pub(crate) fn add(&mut self, tp: TopicPartition, next: FetchPosition) {
        self.unsent.offsets.insert(tp, next);
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

    /// Nothing of these partitions is unsent or in flight.
    pub(crate) fn is_settled(&self, partitions: &[TopicPartition]) -> bool {
        let batches = [Some(&self.unsent), self.in_flight.as_ref()];
        let held = |batch: &CommitBatch| partitions.iter().any(|tp| batch.offsets.contains_key(tp));
        !batches.into_iter().flatten().any(held)
    }

    /// There are offsets to send, and no request is in flight.
    pub(crate) fn is_sendable(&self) -> bool {
        !self.unsent.offsets.is_empty() && self.in_flight.is_none()
    }

    /// Takes everything unsent of partitions that are `owned` into one request.
    pub(crate) fn start_request(
        &mut self,
        owned: impl Fn(&TopicPartition) -> bool,
    ) -> Vec<(TopicPartition, FetchPosition)> {
        self.retain_owned(owned);
        if !self.is_sendable() {
            return Vec::new();
        }
        let batch = std::mem::take(&mut self.unsent);
        let offsets = batch.offsets.iter().map(|(tp, next)| (tp.clone(), *next));
        let offsets = offsets.collect();
        self.in_flight = Some(batch);
        offsets
    }

    /// Drops the offsets of partitions that are no longer `owned`.
    pub(crate) fn retain_owned(&mut self, owned: impl Fn(&TopicPartition) -> bool) {
        if let Some(sent) = &mut self.in_flight {
            let lost = sent.offsets.keys().filter(|tp| !owned(tp));
            sent.lost.extend(lost.cloned());
        }
        let batch = &mut self.unsent;
        let error = &mut batch.error;
        batch.offsets.retain(|tp, _| {
            let keep = owned(tp);
            if !keep {
                error.get_or_insert_with(|| CommitError::Lost { tp: tp.clone() });
            }
            keep
        });
        self.unknown.retain(|tp, _| owned(tp));
        if batch.offsets.is_empty() && self.in_flight.is_none() {
            std::mem::take(batch).notify_waiters();
        }
    }

    /// The response to the request: the error code per partition; one without a code has failed.
    pub(crate) fn complete_request(
        &mut self,
        result: Result<Vec<(TopicPartition, i16)>, GroupError>,
    ) -> CommitOutcome {
        let mut outcome = CommitOutcome::default();
        let Some(mut batch) = self.in_flight.take() else {
            return outcome;
        };
        match result {
            Ok(codes) => {
                for (tp, code) in codes {
                    let Some(error) = GroupError::from_code(code) else {
                        batch.offsets.remove(&tp);
                        self.unknown.remove(&tp);
                        continue;
                    };
                    match self.partition_error(&tp, &error) {
                        Some(error) => {
                            batch.offsets.remove(&tp);
                            outcome.failed.push(error.clone());
                            batch.error.get_or_insert(error);
                        }
                        None => outcome.error = Some(error),
                    }
                }
            }
            Err(error) => outcome.error = Some(error),
        }
        for tp in std::mem::take(&mut batch.lost) {
            if batch.offsets.remove(&tp).is_some() {
                batch.error.get_or_insert(CommitError::Lost { tp });
            }
        }
        if batch.offsets.is_empty() {
            batch.notify_waiters();
            return outcome;
        }
        outcome.retry = true;
        // Unsent again; what was added meanwhile is newer.
        for (tp, next) in batch.offsets {
            self.unsent.offsets.entry(tp).or_insert(next);
        }
        self.unsent.waiters.append(&mut batch.waiters);
        if self.unsent.error.is_none() {
            self.unsent.error = batch.error;
        }
        outcome
    }

    /// The error of this partition if it is not to be committed any more.
    fn partition_error(&mut self, tp: &TopicPartition, error: &GroupError) -> Option<CommitError> {
        if !matches!(
            error,
            GroupError::Code(ResponseError::UnknownTopicOrPartition)
        ) {
            self.unknown.remove(tp);
            return fatal_partition_error(tp, error);
        }
        let attempts = self.unknown.entry(tp.clone()).or_default();
        *attempts += 1;
        if *attempts < UNKNOWN_PARTITION_ATTEMPTS {
            return None;
        }
        self.unknown.remove(tp);
        Some(CommitError::Rejected {
            tp: tp.clone(),
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

    fn tp(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    fn at(offset: i64) -> FetchPosition {
        FetchPosition {
            offset,
            leader_epoch: 3,
        }
    }

    fn all(_: &TopicPartition) -> bool {
        true
    }

    const REBALANCE: i16 = 27;

    #[test]
    fn only_the_newest_offset_of_a_partition_is_sent() {
        let mut commits = PendingCommits::default();
        for offset in 1..100 {
            commits.add(tp(0), at(offset));
        }
        commits.add(tp(1), at(7));
        assert_eq!(
            commits.start_request(all),
            [(tp(0), at(99)), (tp(1), at(7))]
        );
        assert!(!commits.is_sendable());
    }

    #[test]
    fn offsets_added_while_a_request_is_in_flight_wait_for_the_next() {
        let mut commits = PendingCommits::default();
        commits.add(tp(0), at(1));
        commits.start_request(all);
        let mut first = commits.completion().unwrap();
        commits.add(tp(0), at(2));
        let mut second = commits.completion().unwrap();
        assert!(commits.start_request(all).is_empty(), "one at a time");
        commits.complete_request(Ok(vec![(tp(0), 0)]));
        assert_eq!(first.try_recv(), Ok(Ok(())));
        assert!(second.try_recv().is_err());
        assert_eq!(commits.start_request(all), [(tp(0), at(2))]);
        commits.complete_request(Ok(vec![(tp(0), 0)]));
        assert_eq!(second.try_recv(), Ok(Ok(())));
        assert!(commits.is_idle() && commits.completion().is_none());
    }

    #[test]
    fn an_offset_that_failed_never_overtakes_a_newer_one() {
        let mut commits = PendingCommits::default();
        commits.add(tp(0), at(1));
        let mut completed = commits.completion().unwrap();
        commits.start_request(all);
        commits.add(tp(0), at(5));
        let outcome = commits.complete_request(Ok(vec![(tp(0), REBALANCE)]));
        assert!(outcome.retry);
        assert_eq!(outcome.error.unwrap().action(), GroupErrorAction::Rejoin);
        assert!(completed.try_recv().is_err(), "kept, not failed");
        assert_eq!(commits.start_request(all), [(tp(0), at(5))]);
    }

    #[test]
    fn a_request_without_a_response_is_retried() {
        let mut commits = PendingCommits::default();
        commits.add(tp(0), at(1));
        commits.start_request(all);
        assert!(
            commits
                .complete_request(Err(GroupError::MalformedResponse))
                .retry
        );
        commits.start_request(all);
        // A response that leaves a partition out did not commit it.
        assert!(commits.complete_request(Ok(vec![])).retry);
        assert_eq!(commits.start_request(all), [(tp(0), at(1))]);
    }

    #[test]
    fn a_lost_partition_is_dropped_and_its_waiters_notified() {
        let mut commits = PendingCommits::default();
        commits.add(tp(0), at(1));
        commits.add(tp(1), at(1));
        let mut completed = commits.completion().unwrap();
        assert_eq!(
            commits.start_request(|tp| tp.partition == 1),
            [(tp(1), at(1))]
        );
        commits.complete_request(Ok(vec![(tp(1), 0)]));
        assert_eq!(
            completed.try_recv(),
            Ok(Err(CommitError::Lost { tp: tp(0) }))
        );
        commits.add(tp(0), at(2));
        let mut completed = commits.completion().unwrap();
        commits.retain_owned(|_| false);
        assert_eq!(
            completed.try_recv(),
            Ok(Err(CommitError::Lost { tp: tp(0) }))
        );
    }

    #[test]
    fn what_is_lost_in_flight_is_not_retried() {
        let mut commits = PendingCommits::default();
        commits.add(tp(0), at(1));
        commits.add(tp(1), at(1));
        let mut completed = commits.completion().unwrap();
        commits.start_request(all);
        commits.retain_owned(|tp| tp.partition == 1);
        // It is owned again, at 10, when the response comes.
        assert!(
            commits
                .complete_request(Err(GroupError::MalformedResponse))
                .retry
        );
        assert_eq!(commits.start_request(all), [(tp(1), at(1))]);
        commits.complete_request(Ok(vec![(tp(1), 0)]));
        assert_eq!(
            completed.try_recv(),
            Ok(Err(CommitError::Lost { tp: tp(0) }))
        );
        // What was committed all the same is not lost.
        commits.add(tp(0), at(2));
        let mut completed = commits.completion().unwrap();
        commits.start_request(all);
        commits.retain_owned(|_| false);
        commits.complete_request(Ok(vec![(tp(0), 0)]));
        assert_eq!(completed.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn partitions_are_settled_independently_of_others() {
        let mut commits = PendingCommits::default();
        commits.add(tp(0), at(1));
        commits.start_request(all);
        commits.add(tp(1), at(1));
        assert!(!commits.is_settled(&[tp(0)]), "in flight");
        assert!(!commits.is_settled(&[tp(2), tp(1)]), "unsent");
        assert!(commits.is_settled(&[tp(2)]));
        commits.complete_request(Ok(vec![(tp(0), 0)]));
        assert!(commits.is_settled(&[tp(0)]) && !commits.is_idle());
    }

    #[test]
    fn a_refused_partition_does_not_hold_up_the_others() {
        let mut commits = PendingCommits::default();
        commits.add(tp(0), at(1));
        commits.add(tp(1), at(1));
        let mut completed = commits.completion().unwrap();
        commits.start_request(all);
        let outcome = commits.complete_request(Ok(vec![(tp(0), 29), (tp(1), 0)]));
        assert!(!outcome.retry && outcome.error.is_none());
        assert_eq!(
            completed.try_recv(),
            Ok(Err(CommitError::NotAuthorized { tp: tp(0) }))
        );
        assert!(commits.is_idle());
    }

    #[test]
    fn a_partition_that_stays_unknown_is_given_up_and_its_waiters_notified() {
        const UNKNOWN: i16 = 3;
        let mut commits = PendingCommits::default();
        let respond = |commits: &mut PendingCommits, code| {
            assert_eq!(commits.start_request(all), [(tp(0), at(1))]);
            commits.complete_request(Ok(vec![(tp(0), code)]))
        };
        // A response of another kind in between starts over.
        for last in [0, UNKNOWN] {
            commits.add(tp(0), at(1));
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
        commits.add(tp(0), at(1));
        commits.start_request(all);
        let mut first = commits.completion().unwrap();
        commits.add(tp(1), at(1));
        let mut second = commits.completion().unwrap();
        commits.close(&CommitError::Closed);
        assert_eq!(first.try_recv(), Ok(Err(CommitError::Closed)));
        assert_eq!(second.try_recv(), Ok(Err(CommitError::Closed)));
    }
}
