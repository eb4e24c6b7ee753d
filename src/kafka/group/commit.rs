//! Which offsets wait to be committed, and who waits for it. Pure.
//!
//! ```text
//! add ─▶ pending (the newest per partition) ─begin▶ in flight ─finished▶ done
//!           ▲                                           │
//!           └─────────── to be tried again ─────────────┘
//! ```
//!
//! # Invariants
//! - One request at a time; what comes meanwhile is gathered for the next.
//! - An older offset never follows a newer one of its partition, also not one that
//!   another member has committed: what was lost while in flight is not tried again.
//! - Whoever waits hears when everything added before the call is settled.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use tokio::sync::oneshot;

use super::error::{CommitError, Failure, Verdict};
use crate::TopicPartition;
use crate::fetcher::FetchPosition;

type Waiter = oneshot::Sender<Result<(), CommitError>>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    pending: Flush,
    in_flight: Option<Flush>,
}

#[derive(Debug, Default)]
struct Flush {
    offsets: BTreeMap<TopicPartition, FetchPosition>,
    waiters: Vec<Waiter>,
    /// What was lost to the group while it was in flight: it may be ours again by the
    /// time of the answer, and further on.
    lost: Vec<TopicPartition>,
    /// The first thing that went wrong with it.
    error: Option<CommitError>,
}

/// What follows from an answer.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Something is to be tried again, after a while.
    pub(crate) retry: bool,
    /// And the membership is concerned.
    pub(crate) failure: Option<Failure>,
}

impl Commits {
    /// Everything up to `next` has been dealt with.
    pub(crate) fn add(&mut self, tp: TopicPartition, next: FetchPosition) {
        self.pending.offsets.insert(tp, next);
    }

    /// Tells when everything that was added is settled; `None` if it is.
    pub(crate) fn completion(&mut self) -> Option<oneshot::Receiver<Result<(), CommitError>>> {
        if self.is_idle() {
            return None;
        }
        let (waiter, told) = oneshot::channel();
        match &mut self.in_flight {
            Some(flush) if self.pending.offsets.is_empty() => flush.waiters.push(waiter),
            _ => self.pending.waiters.push(waiter),
        }
        Some(told)
    }

    /// Nothing waits and nothing is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.offsets.is_empty() && self.in_flight.is_none()
    }

    /// Nothing of these waits or is in flight.
    pub(crate) fn is_settled(&self, partitions: &[TopicPartition]) -> bool {
        let flushes = [Some(&self.pending), self.in_flight.as_ref()];
        let held = |flush: &Flush| partitions.iter().any(|tp| flush.offsets.contains_key(tp));
        !flushes.into_iter().flatten().any(held)
    }

    /// There is something to send.
    pub(crate) fn is_due(&self) -> bool {
        !self.pending.offsets.is_empty() && self.in_flight.is_none()
    }

    /// Takes everything that waits, less what `ours` refuses, into one request.
    pub(crate) fn begin(
        &mut self,
        ours: impl Fn(&TopicPartition) -> bool,
    ) -> Vec<(TopicPartition, FetchPosition)> {
        self.retain(ours);
        if !self.is_due() {
            return Vec::new();
        }
        let flush = std::mem::take(&mut self.pending);
        let offsets = flush.offsets.iter().map(|(tp, next)| (tp.clone(), *next));
        let offsets = offsets.collect();
        self.in_flight = Some(flush);
        offsets
    }

    /// Drops what is no longer ours to commit.
    pub(crate) fn retain(&mut self, ours: impl Fn(&TopicPartition) -> bool) {
        if let Some(sent) = &mut self.in_flight {
            let lost = sent.offsets.keys().filter(|tp| !ours(tp));
            sent.lost.extend(lost.cloned());
        }
        let flush = &mut self.pending;
        let error = &mut flush.error;
        flush.offsets.retain(|tp, _| {
            let keep = ours(tp);
            if !keep {
                error.get_or_insert_with(|| CommitError::Lost { tp: tp.clone() });
            }
            keep
        });
        if flush.offsets.is_empty() && self.in_flight.is_none() {
            std::mem::take(flush).settle();
        }
    }

    /// The answer to the request, by partition; a partition without one counts as failed.
    pub(crate) fn finished(
        &mut self,
        result: Result<Vec<(TopicPartition, i16)>, Failure>,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let Some(mut flush) = self.in_flight.take() else {
            return outcome;
        };
        match result {
            Ok(codes) => {
                for (tp, code) in codes {
                    let Some(failure) = Failure::of(code) else {
                        flush.offsets.remove(&tp);
                        continue;
                    };
                    match fault(&tp, &failure) {
                        Some(error) => {
                            flush.offsets.remove(&tp);
                            flush.error.get_or_insert(error);
                        }
                        None => outcome.failure = Some(failure),
                    }
                }
            }
            Err(failure) => outcome.failure = Some(failure),
        }
        for tp in std::mem::take(&mut flush.lost) {
            if flush.offsets.remove(&tp).is_some() {
                flush.error.get_or_insert(CommitError::Lost { tp });
            }
        }
        if flush.offsets.is_empty() {
            flush.settle();
            return outcome;
        }
        outcome.retry = true;
        // Back in line; what came meanwhile is newer.
        for (tp, next) in flush.offsets {
            self.pending.offsets.entry(tp).or_insert(next);
        }
        self.pending.waiters.append(&mut flush.waiters);
        if self.pending.error.is_none() {
            self.pending.error = flush.error;
        }
        outcome
    }

    /// Nothing will be committed any more.
    pub(crate) fn close(&mut self, error: &CommitError) {
        for mut flush in [
            self.in_flight.take(),
            Some(std::mem::take(&mut self.pending)),
        ]
        .into_iter()
        .flatten()
        {
            flush.error.get_or_insert_with(|| error.clone());
            flush.settle();
        }
    }
}

impl Flush {
    fn settle(self) {
        for waiter in self.waiters {
            // Whoever waited may be gone.
            let _ = waiter.send(self.error.clone().map_or(Ok(()), Err));
        }
    }
}

/// A failure that is this partition's own and for good.
fn fault(tp: &TopicPartition, failure: &Failure) -> Option<CommitError> {
    let tp = tp.clone();
    match failure {
        Failure::Code(ResponseError::TopicAuthorizationFailed) => {
            Some(CommitError::NotAuthorized { tp })
        }
        Failure::Code(
            ResponseError::OffsetMetadataTooLarge
            | ResponseError::InvalidCommitOffsetSize
            | ResponseError::InvalidTopicException,
        ) => Some(CommitError::Refused {
            tp,
            reason: failure.text(),
        }),
        _ if failure.verdict() == Verdict::NotAuthorized => Some(CommitError::NotAuthorized { tp }),
        _ if failure.verdict() == Verdict::Refused => Some(CommitError::Refused {
            tp,
            reason: failure.text(),
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
        let mut commits = Commits::default();
        for offset in 1..100 {
            commits.add(tp(0), at(offset));
        }
        commits.add(tp(1), at(7));
        assert_eq!(commits.begin(all), [(tp(0), at(99)), (tp(1), at(7))]);
        assert!(!commits.is_due());
    }

    #[test]
    fn what_comes_while_one_is_in_flight_waits_for_the_next() {
        let mut commits = Commits::default();
        commits.add(tp(0), at(1));
        commits.begin(all);
        let mut first = commits.completion().unwrap();
        commits.add(tp(0), at(2));
        let mut second = commits.completion().unwrap();
        assert!(commits.begin(all).is_empty(), "one at a time");
        commits.finished(Ok(vec![(tp(0), 0)]));
        assert_eq!(first.try_recv(), Ok(Ok(())));
        assert!(second.try_recv().is_err());
        assert_eq!(commits.begin(all), [(tp(0), at(2))]);
        commits.finished(Ok(vec![(tp(0), 0)]));
        assert_eq!(second.try_recv(), Ok(Ok(())));
        assert!(commits.is_idle() && commits.completion().is_none());
    }

    #[test]
    fn an_offset_that_failed_never_overtakes_a_newer_one() {
        let mut commits = Commits::default();
        commits.add(tp(0), at(1));
        let mut told = commits.completion().unwrap();
        commits.begin(all);
        commits.add(tp(0), at(5));
        let outcome = commits.finished(Ok(vec![(tp(0), REBALANCE)]));
        assert!(outcome.retry);
        assert_eq!(outcome.failure.unwrap().verdict(), Verdict::Rejoin);
        assert!(told.try_recv().is_err(), "kept, not failed");
        assert_eq!(commits.begin(all), [(tp(0), at(5))]);
    }

    #[test]
    fn a_request_without_an_answer_is_tried_again() {
        let mut commits = Commits::default();
        commits.add(tp(0), at(1));
        commits.begin(all);
        assert!(commits.finished(Err(Failure::Malformed)).retry);
        commits.begin(all);
        // An answer that leaves a partition out did not commit it.
        assert!(commits.finished(Ok(vec![])).retry);
        assert_eq!(commits.begin(all), [(tp(0), at(1))]);
    }

    #[test]
    fn a_partition_that_went_elsewhere_is_dropped_and_told() {
        let mut commits = Commits::default();
        commits.add(tp(0), at(1));
        commits.add(tp(1), at(1));
        let mut told = commits.completion().unwrap();
        assert_eq!(commits.begin(|tp| tp.partition == 1), [(tp(1), at(1))]);
        commits.finished(Ok(vec![(tp(1), 0)]));
        assert_eq!(told.try_recv(), Ok(Err(CommitError::Lost { tp: tp(0) })));
        commits.add(tp(0), at(2));
        let mut told = commits.completion().unwrap();
        commits.retain(|_| false);
        assert_eq!(told.try_recv(), Ok(Err(CommitError::Lost { tp: tp(0) })));
    }

    #[test]
    fn what_is_lost_in_flight_is_not_tried_again() {
        let mut commits = Commits::default();
        commits.add(tp(0), at(1));
        commits.add(tp(1), at(1));
        let mut told = commits.completion().unwrap();
        commits.begin(all);
        commits.retain(|tp| tp.partition == 1);
        // It is ours again, at 10, when the answer comes.
        assert!(commits.finished(Err(Failure::Malformed)).retry);
        assert_eq!(commits.begin(all), [(tp(1), at(1))]);
        commits.finished(Ok(vec![(tp(1), 0)]));
        assert_eq!(told.try_recv(), Ok(Err(CommitError::Lost { tp: tp(0) })));
        // What was committed all the same is not lost.
        commits.add(tp(0), at(2));
        let mut told = commits.completion().unwrap();
        commits.begin(all);
        commits.retain(|_| false);
        commits.finished(Ok(vec![(tp(0), 0)]));
        assert_eq!(told.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn partitions_are_settled_whatever_goes_on_with_others() {
        let mut commits = Commits::default();
        commits.add(tp(0), at(1));
        commits.begin(all);
        commits.add(tp(1), at(1));
        assert!(!commits.is_settled(&[tp(0)]), "in flight");
        assert!(!commits.is_settled(&[tp(2), tp(1)]), "waits");
        assert!(commits.is_settled(&[tp(2)]));
        commits.finished(Ok(vec![(tp(0), 0)]));
        assert!(commits.is_settled(&[tp(0)]) && !commits.is_idle());
    }

    #[test]
    fn a_refused_partition_does_not_hold_up_the_others() {
        let mut commits = Commits::default();
        commits.add(tp(0), at(1));
        commits.add(tp(1), at(1));
        let mut told = commits.completion().unwrap();
        commits.begin(all);
        let outcome = commits.finished(Ok(vec![(tp(0), 29), (tp(1), 0)]));
        assert!(!outcome.retry && outcome.failure.is_none());
        assert_eq!(
            told.try_recv(),
            Ok(Err(CommitError::NotAuthorized { tp: tp(0) }))
        );
        assert!(commits.is_idle());
    }

    #[test]
    fn the_end_is_told_to_everyone() {
        let mut commits = Commits::default();
        commits.add(tp(0), at(1));
        commits.begin(all);
        let mut first = commits.completion().unwrap();
        commits.add(tp(1), at(1));
        let mut second = commits.completion().unwrap();
        commits.close(&CommitError::Closed);
        assert_eq!(first.try_recv(), Ok(Err(CommitError::Closed)));
        assert_eq!(second.try_recv(), Ok(Err(CommitError::Closed)));
    }
}
