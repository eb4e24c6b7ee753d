//! The records of one transaction that go to one partition: which are to be sent, and what an
//! answer means for them.
//!
//! ```text
//! [ appended ][ the batch in flight, or to retry ][ not in a batch yet ]
//! ```
//!
//! Pure: time is passed in. Only the jitter of backoffs is drawn inside.
//!
//! # Invariants
//! - One batch is in flight at a time, so that no gap of sequences can arise: what is sent again
//!   has the sequence that it had, and the next one follows on what was appended.
//! - Nothing here raises the epoch: whatever would need that aborts the transaction.
//! - A batch that is refused for some of its records is halved until these are found.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use tokio::time::Instant;

use super::super::batch_records::BatchRecords;
use super::super::delivery::LogAppendInfo;
use super::super::error::ProduceError;
use super::super::partition_queue::BatchResult;
use super::super::producer_id::increment_sequence;
use super::abort_cause::{AbortCause, RecordFault, RecordPlace};
use crate::backoff::ExponentialBackoff;
use crate::record::{RecordBatch, RecordBatchBuilder};
use crate::topic::TopicPartition;

/// A batch that arrived corrupt is sent this often before its records are suspected.
const CORRUPT_ATTEMPTS: u32 = 2;
/// A batch that fails with an unknown error is sent this often.
const UNKNOWN_ERROR_ATTEMPTS: u32 = 4;

/// One partition of a transaction.
#[derive(Debug)]
pub(super) struct PartitionWrites {
    partition: TopicPartition,
    records: Vec<RecordPlace>,
    /// How many of them are in the log.
    appended: usize,
    /// How many the next batch may have.
    count_max: usize,
    /// Of the next batch.
    sequence: i32,
    batch: BatchProgress,
    attempts: u32,
    /// An attempt of the batch may have been appended.
    maybe_appended: bool,
    backoff: ExponentialBackoff,
    /// While the transaction before is being ended.
    concurrent_backoff: ExponentialBackoff,
    retry_at: Option<Instant>,
}

/// How long to wait before a batch is sent again.
#[derive(Clone, Debug)]
pub(super) struct WriteBackoff {
    /// After a failure.
    pub(super) failure: ExponentialBackoff,
    /// While the transaction before is being ended.
    pub(super) concurrent: ExponentialBackoff,
}

#[derive(Debug)]
enum BatchProgress {
    /// The next batch is not made yet.
    None,
    InFlight {
        count: usize,
    },
    /// To be sent again as it is.
    Retry(RecordBatch),
}

/// How one attempt ended.
#[derive(Debug)]
pub(super) enum WriteProgress {
    /// These records are in the log.
    Appended {
        places: Vec<RecordPlace>,
        at: LogAppendInfo,
    },
    /// There is more to be sent, now or later.
    Continues,
    /// The transaction cannot be committed.
    Aborts(AbortCause),
}

impl PartitionWrites {
    /// The first batch has that sequence.
    pub(super) fn new(partition: TopicPartition, sequence: i32, backoff: WriteBackoff) -> Self {
        Self {
            partition,
            records: Vec::new(),
            appended: 0,
            count_max: usize::MAX,
            sequence,
            batch: BatchProgress::None,
            attempts: 0,
            maybe_appended: false,
            backoff: backoff.failure,
            concurrent_backoff: backoff.concurrent,
            retry_at: None,
        }
    }

    pub(super) fn push(&mut self, place: RecordPlace) {
        self.records.push(place);
    }

    pub(super) fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    pub(super) fn records(&self) -> &[RecordPlace] {
        &self.records
    }

    /// Of the next batch.
    pub(super) fn sequence(&self) -> i32 {
        self.sequence
    }

    /// All records are in the log.
    pub(super) fn is_written(&self) -> bool {
        self.appended == self.records.len()
    }

    /// When the next batch may be sent; `None` while one is in flight, or if there is none.
    pub(super) fn due_at(&self, now: Instant) -> Option<Instant> {
        let in_flight = matches!(self.batch, BatchProgress::InFlight { .. });
        (!in_flight && !self.is_written()).then(|| self.retry_at.unwrap_or(now).max(now))
    }

    /// Waits before the next attempt: the partition has no leader.
    pub(super) fn wait_for_leader(&mut self, now: Instant) {
        self.retry_at = Some(now + self.backoff.after_failure());
    }

    /// The next batch, which is in flight until [`complete`](Self::complete) takes it back. It has
    /// so many bytes at most, or one record; `append` encodes one.
    pub(super) fn take_batch(
        &mut self,
        size_max: usize,
        size_of: impl Fn(RecordPlace) -> usize,
        append: impl Fn(&mut RecordBatchBuilder, RecordPlace),
    ) -> BatchRecords {
        let records = match std::mem::replace(&mut self.batch, BatchProgress::None) {
            BatchProgress::Retry(batch) => BatchRecords::Built(batch),
            _ => {
                let rest = &self.records[self.appended..];
                let mut builder = RecordBatchBuilder::new(0);
                for &place in rest.iter().take(self.count_max) {
                    let is_first = builder.count() == 0;
                    if !is_first && builder.bytes() + size_of(place) > size_max {
                        break;
                    }
                    append(&mut builder, place);
                }
                BatchRecords::Open(builder)
            }
        };
        let count = match &records {
            BatchRecords::Open(builder) => builder.count(),
            BatchRecords::Built(batch) => batch.count(),
        };
        self.batch = BatchProgress::InFlight {
            count: count as usize,
        };
        self.retry_at = None;
        records
    }

    /// Takes a batch back from a request.
    pub(super) fn complete(
        &mut self,
        batch: RecordBatch,
        result: BatchResult,
        now: Instant,
    ) -> WriteProgress {
        use WriteProgress::{Aborts, Appended, Continues};

        let BatchProgress::InFlight { count } = self.batch else {
            return Continues;
        };
        self.batch = BatchProgress::None;
        self.attempts += 1;
        match result {
            BatchResult::Appended(at) => {
                let places = self.records[self.appended..self.appended + count].to_vec();
                self.appended += count;
                self.sequence = increment_sequence(self.sequence, count as u32);
                self.attempts = 0;
                self.maybe_appended = false;
                self.backoff.succeeded();
                Appended { places, at }
            }
            BatchResult::Retry { maybe_appended } => {
                self.maybe_appended |= maybe_appended;
                self.retry(batch, now)
            }
            BatchResult::Corrupt { .. } if self.attempts < CORRUPT_ATTEMPTS => {
                self.retry(batch, now)
            }
            BatchResult::UnknownError { .. } if self.attempts < UNKNOWN_ERROR_ATTEMPTS => {
                self.maybe_appended = true;
                self.retry(batch, now)
            }
            BatchResult::OutOfOrder => Aborts(AbortCause::again("the broker misses a batch")),
            // By a newer producer, or by the coordinator, which has aborted it for its age.
            BatchResult::Fenced => Aborts(AbortCause::again("the broker knows a newer epoch")),
            BatchResult::Fatal(ProduceError::Rejected { code, message }) if is_state(code) => {
                Aborts(AbortCause::Again { reason: message })
            }
            BatchResult::Fatal(ProduceError::Rejected { code, .. })
                if code == ResponseError::TransactionalIdAuthorizationFailed.code() =>
            {
                Aborts(AbortCause::NotAuthorized)
            }
            BatchResult::Fatal(error) => {
                let rest = self.records.iter();
                Aborts(faults(rest.map(|&place| (place, error.clone()))))
            }
            // Of an attempt that was not answered nobody knows under which rules it came.
            BatchResult::TooLarge
            | BatchResult::Corrupt { .. }
            | BatchResult::InvalidRecords { .. }
                if self.maybe_appended =>
            {
                let reason = "refused after an attempt that was not answered";
                Aborts(AbortCause::again(reason))
            }
            BatchResult::UnknownError { message } => {
                let code = ResponseError::UnknownServerError.code();
                let places = self.records[self.appended..].iter().take(count);
                let error = ProduceError::Rejected { code, message };
                Aborts(faults(places.map(|&place| (place, error.clone()))))
            }
            BatchResult::TooLarge => {
                let size = batch.uncompressed_size();
                self.halve(count, ProduceError::TooLarge { size, limit: None })
            }
            BatchResult::Corrupt { code, message } => {
                self.halve(count, ProduceError::Rejected { code, message })
            }
            BatchResult::InvalidRecords {
                errors,
                code,
                message,
            } => self.find_invalid(count, errors, code, message),
        }
    }

    /// Takes a batch back that was refused because the transaction before is being ended.
    pub(super) fn postpone(&mut self, batch: RecordBatch, now: Instant) {
        self.batch = BatchProgress::Retry(batch);
        self.retry_at = Some(now + self.concurrent_backoff.after_failure());
    }

    fn retry(&mut self, batch: RecordBatch, now: Instant) -> WriteProgress {
        self.batch = BatchProgress::Retry(batch);
        self.retry_at = Some(now + self.backoff.after_failure());
        WriteProgress::Continues
    }

    /// Sends half as many records next; a single one is the fault.
    fn halve(&mut self, count: usize, error: ProduceError) -> WriteProgress {
        if count < 2 {
            let place = self.records[self.appended];
            return WriteProgress::Aborts(faults([(place, error)].into_iter()));
        }
        self.count_max = count / 2;
        self.attempts = 0;
        WriteProgress::Continues
    }

    fn find_invalid(
        &mut self,
        count: usize,
        errors: Vec<(u32, Arc<str>)>,
        code: i16,
        message: Arc<str>,
    ) -> WriteProgress {
        let sent = &self.records[self.appended..self.appended + count];
        let named: Vec<_> = errors
            .into_iter()
            .filter_map(|(position, message)| {
                let place = *sent.get(position as usize)?;
                Some((place, ProduceError::Rejected { code, message }))
            })
            .collect();
        match named.is_empty() {
            true => self.halve(count, ProduceError::Rejected { code, message }),
            false => WriteProgress::Aborts(faults(named.into_iter())),
        }
    }
}

/// The transaction is not, or not any more, what this producer takes it for.
fn is_state(code: i16) -> bool {
    let error = ResponseError::try_from_code(code);
    matches!(
        error,
        Some(ResponseError::InvalidTxnState | ResponseError::TransactionAbortable)
    )
}

fn faults(faulty: impl Iterator<Item = (RecordPlace, ProduceError)>) -> AbortCause {
    AbortCause::Faults(
        faulty
            .map(|(place, error)| RecordFault { place, error })
            .collect(),
    )
}
