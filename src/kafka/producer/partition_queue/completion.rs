//! What a response, or its absence, does to a batch.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::delivery::LogAppendInfo;
use super::super::error::ProduceError;
use super::PartitionQueue;
use super::batch::{
    BatchState, FinishedBatch, ProducerBatch, QueuedRecords, TopicNaming, unknown_outcome,
};
use super::sequencer::SequenceGap;

/// How an attempt to write a batch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum BatchResult {
    /// It is in the log, from this attempt or an earlier one.
    Appended(LogAppendInfo),
    /// Not appended by this attempt, because the batches that should precede it are
    /// missing: the sequence is out of order, or the producer id unknown.
    OutOfOrder,
    /// Not appended, because the broker saw a newer epoch of the producer id.
    Fenced,
    /// Retriable.
    Retry {
        /// This attempt may have been appended.
        maybe_appended: bool,
    },
    /// Not appended, damaged on its way or unacceptable to the broker: old brokers do not
    /// say which.
    Corrupt {
        /// Kafka's code.
        code: i16,
        /// The broker's message.
        message: Arc<str>,
    },
    /// The broker failed with an error that does not tell whether it appended the batch.
    UnknownError {
        /// The broker's message.
        message: Arc<str>,
    },
    /// Not appended, the batch is over the broker's limit.
    TooLarge,
    /// Not appended, because some records are unacceptable.
    InvalidRecords {
        /// Which, by position, and why; empty if the broker does not say.
        errors: Vec<(u32, Arc<str>)>,
        /// Kafka's code.
        code: i16,
        /// The broker's message about the whole batch.
        message: Arc<str>,
    },
    /// Not appended, and not retriable.
    Fatal(ProduceError),
}

/// A batch that arrived corrupt is sent this often before its records are suspected.
const CORRUPT_ATTEMPTS: u32 = 2;
/// A batch that fails with an unknown error is sent this often.
const UNKNOWN_ERROR_ATTEMPTS: u32 = 4;

/// What becomes of the records that are not wanted in the first part of a split batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OtherRecords {
    /// They follow in a batch of their own.
    Requeued,
    /// They have their result.
    Dropped,
}

impl<R: QueuedRecords> PartitionQueue<R> {
    /// Takes a batch back from a request that named topics as `naming` says.
    pub(in super::super) fn complete(
        &mut self,
        id: u64,
        records: R,
        result: BatchResult,
        naming: TopicNaming,
        now: Instant,
        finished: &mut Vec<FinishedBatch>,
    ) {
        let Some(index) = self
            .batches
            .iter()
            .position(|batch| batch.id == id && batch.is_in_flight())
        else {
            return; // the producer was stopped meanwhile
        };
        self.in_flight -= 1;
        let batch = &mut self.batches[index];
        let of_topic_before = matches!(
            batch.state,
            BatchState::InFlight {
                of_old_topic: true,
                ..
            }
        );
        batch.state = BatchState::Retry(batch.earlier_attempts());
        batch.records = Some(records);
        batch.attempts += 1;
        if !matches!(result, BatchResult::Appended(_)) {
            self.leader_confirmed_at = None;
        }
        self.apply_result(index, result, naming, now, finished);
        let batch = &mut self.batches[index];
        match &mut batch.state {
            BatchState::Done { of_old_topic, .. } => *of_old_topic = of_topic_before,
            _ if of_topic_before => batch.settle_on_topic_recreated(&self.partition),
            _ => {}
        }
        self.finish_done(finished);
    }

    fn apply_result(
        &mut self,
        index: usize,
        result: BatchResult,
        naming: TopicNaming,
        now: Instant,
        finished: &mut Vec<FinishedBatch>,
    ) {
        let batch = &mut self.batches[index];
        match result {
            BatchResult::Appended(appended) => self.appended(index, appended, now),
            BatchResult::OutOfOrder => self.out_of_order(index, now),
            BatchResult::Fenced => self.fenced(index, now),
            BatchResult::Retry { maybe_appended } => {
                if maybe_appended {
                    let earlier = batch.earlier_attempts();
                    batch.state = BatchState::Retry(earlier.and_maybe_appended(naming));
                }
                if batch.is_expired() {
                    batch.fail(unobserved_error(), batch.gap_if_failed());
                } else {
                    self.back_off(now);
                }
            }
            BatchResult::Corrupt { .. } if batch.attempts < CORRUPT_ATTEMPTS => {
                let maybe_appended = false;
                let retry = BatchResult::Retry { maybe_appended };
                self.apply_result(index, retry, naming, now, finished);
            }
            BatchResult::UnknownError { .. } if batch.attempts < UNKNOWN_ERROR_ATTEMPTS => {
                let maybe_appended = true;
                let retry = BatchResult::Retry { maybe_appended };
                self.apply_result(index, retry, naming, now, finished);
            }
            BatchResult::UnknownError { message } => {
                let error = unknown_outcome(&self.partition, &message);
                batch.fail(error, SequenceGap::Possible);
            }
            // From here on the result is final for the whole batch as it is; but it says
            // nothing of an earlier attempt that may have been appended under other rules.
            BatchResult::Fatal(error) if batch.maybe_appended() => {
                let error = unknown_outcome(&self.partition, &error.to_string());
                batch.fail(error, SequenceGap::Possible);
            }
            BatchResult::TooLarge
            | BatchResult::Corrupt { .. }
            | BatchResult::InvalidRecords { .. }
                if batch.maybe_appended() =>
            {
                let reason = "refused after an attempt that was not answered";
                let error = unknown_outcome(&self.partition, reason);
                batch.fail(error, SequenceGap::Possible);
            }
            BatchResult::Fatal(error) => batch.fail(error, SequenceGap::Certain),
            BatchResult::TooLarge => {
                let size = batch.records.as_ref().map_or(0, QueuedRecords::size);
                self.split_in_half(index, ProduceError::TooLarge { size, limit: None });
            }
            BatchResult::Corrupt { code, message } => {
                self.split_in_half(index, ProduceError::Rejected { code, message });
            }
            BatchResult::InvalidRecords {
                errors,
                code,
                message,
            } => self.fail_invalid_records(index, errors, code, message, finished),
        }
    }

    fn appended(&mut self, index: usize, appended: LogAppendInfo, now: Instant) {
        let batch = &mut self.batches[index];
        batch.state = BatchState::Done {
            result: Ok(appended),
            of_old_topic: false,
        };
        batch.records = None;
        if self
            .leader
            .is_some_and(|leader| leader.broker == self.in_flight_to)
        {
            self.leader_confirmed_at = Some(now);
        }
        self.appended_at = Some(now);
        self.backoff.succeeded();
        self.retry_at = None;
    }

    fn out_of_order(&mut self, index: usize, now: Instant) {
        if self.batches[index].attempts > 1 {
            self.back_off(now);
        }
        let is_first = index == 0;
        let batch = &mut self.batches[index];
        if batch.is_expired() {
            batch.fail(unobserved_error(), batch.gap_if_failed());
        } else if is_first && batch.maybe_appended() && self.sequencer.gap() != SequenceGap::Certain
        {
            // Not appended; or appended by an earlier attempt, and forgotten: a broker that
            // was restarted remembers the last batch only.
            let error = unknown_outcome(&self.partition, "sent again, it was out of order");
            batch.fail(error, SequenceGap::Possible);
        } else if is_first {
            self.sequencer.set_gap(SequenceGap::Certain);
        }
        // After an unresolved batch this only says that it must wait for that.
    }

    fn fenced(&mut self, index: usize, now: Instant) {
        let reason = "the broker knows a newer epoch of the producer";
        let batch = &mut self.batches[index];
        if index > 0 && !batch.is_expired() {
            self.back_off(now);
        } else if batch.maybe_appended() {
            let error = unknown_outcome(&self.partition, reason);
            batch.fail(error, SequenceGap::Possible);
        } else if batch.is_expired() {
            batch.fail(unobserved_error(), SequenceGap::Certain);
        } else {
            tracing::warn!(partition = %self.partition, reason, "taking a new producer id");
            self.sequencer.fenced();
            self.back_off(now);
        }
    }

    /// Waits before the next attempt. Several failures of one moment count once.
    fn back_off(&mut self, now: Instant) {
        if self.retry_at.is_none_or(|at| at <= now) {
            self.retry_at = Some(now + self.backoff.after_failure());
        }
    }

    /// Puts two halves in a batch's place; a single record fails with `error`.
    fn split_in_half(&mut self, index: usize, error: ProduceError) {
        let batch = &mut self.batches[index];
        let count = batch.records.as_ref().map_or(0, QueuedRecords::count);
        if count < 2 || batch.is_expired() {
            batch.fail(error, SequenceGap::Certain);
            return;
        }
        let first = |position| position < count / 2;
        self.split(index, &first, OtherRecords::Requeued, error);
    }

    /// Fails the records that the broker named, one by one, and keeps the others.
    fn fail_invalid_records(
        &mut self,
        index: usize,
        errors: Vec<(u32, Arc<str>)>,
        code: i16,
        message: Arc<str>,
        finished: &mut Vec<FinishedBatch>,
    ) {
        let rejected = |message: Arc<str>| ProduceError::Rejected { code, message };
        let batch = &mut self.batches[index];
        let count = batch.records.as_ref().map_or(0, QueuedRecords::count);
        let mut errors: Vec<_> = errors.into_iter().filter(|(i, _)| *i < count).collect();
        errors.sort_by_key(|(position, _)| *position);
        errors.dedup_by_key(|(position, _)| *position);
        if errors.is_empty() || count < 2 || batch.is_expired() {
            let why = errors.pop().map_or(message, |(_, why)| why);
            return self.split_in_half(index, rejected(why));
        }
        // Each fails with its own message.
        let is_valid = |position: u32| errors.binary_search_by_key(&position, |(i, _)| *i).is_err();
        if let Some(promise) = batch.promise.take() {
            let (valid, mut invalid) = promise.split(count, is_valid);
            for (left, (_, why)) in (1..=errors.len() as u32).rev().zip(&errors) {
                let (one, rest) = invalid.split(left, |position| position == 0);
                finished.push(FinishedBatch {
                    promise: Some(one),
                    result: Err(rejected(why.clone())),
                    memory: 0,
                    sent_count: 1,
                    created: batch.created,
                });
                invalid = rest;
            }
            batch.promise = Some(valid);
        }
        self.split(index, &is_valid, OtherRecords::Dropped, rejected(message));
    }

    /// Leaves the records for which `first` holds in the batch's place. If the records
    /// cannot be split, all fail with `error`.
    fn split(
        &mut self,
        index: usize,
        first: &dyn Fn(u32) -> bool,
        others: OtherRecords,
        error: ProduceError,
    ) {
        let batch = &mut self.batches[index];
        let whole = batch.records.take();
        let kept = whole.as_ref().and_then(|whole| whole.retain(first));
        let requeued = match others {
            OtherRecords::Requeued => whole
                .as_ref()
                .and_then(|whole| whole.retain(&|position| !first(position))),
            OtherRecords::Dropped => None,
        };
        let (Some(whole), Some(kept)) = (whole, kept) else {
            batch.fail(error, SequenceGap::Certain);
            return;
        };
        batch.state = BatchState::Ready;
        batch.records = Some(kept);
        batch.base_sequence = None;
        batch.attempts = 0;
        // The batches after this one have sequences that count its records.
        batch.gap_before = SequenceGap::Certain;
        let Some(requeued) = requeued else {
            return;
        };
        let Some(promise) = batch.promise.take() else {
            return; // expired batches are not split
        };
        let (first, second) = promise.split(whole.count(), first);
        batch.promise = Some(first);
        let memory = batch.memory / 2;
        batch.memory -= memory;
        self.last_batch_id += 1;
        let second_half = ProducerBatch {
            memory,
            ..ProducerBatch::new(self.last_batch_id, requeued, second, batch.created)
        };
        self.batches.insert(index + 1, second_half);
    }
}

/// The error of a batch whose delivery timeout has expired: its futures are resolved, so nobody
/// sees it.
fn unobserved_error() -> ProduceError {
    ProduceError::Stopped
}
