//! The transactions of one transactional id, one after another, as their coordinator has them
//! (Kafka's `TransactionMetadata`). Pure: time is passed in, markers are written by the caller.
//!
//! ```text
//!  InitProducerId        a partition is added       EndTxn              markers are written
//!  ──────────────▶ Empty ──────────────────▶ Ongoing ─────▶ PrepareCommit ─▶ CompleteCommit
//!                                              │  ▲  └────▶ PrepareAbort ──▶ CompleteAbort
//!                                   time-out, ─┘  │                              │
//!                            a newer producer     └── a partition is added ──────┘
//! ```
//!
//! With transaction version 2 (KIP-890) every end raises the producer's epoch, and what its client
//! has then comes with the answer. Before it only InitProducerId raises it.
//!
//! # Invariants
//! - There is one producer id and epoch that may write; who has an older epoch is fenced.
//! - Markers carry the epoch that fences what was written under the transaction's own.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use uuid::Uuid;

/// A producer id with its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProducerEpoch {
    pub(super) id: i64,
    pub(super) epoch: i16,
}

/// A partition of a topic that is not mistaken for a later one of the same name.
pub(super) type PartitionOfId = (Uuid, i32);

/// Kafka's names of the states are those that are listed and described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransactionPhase {
    Empty,
    Ongoing,
    PrepareCommit,
    PrepareAbort,
    CompleteCommit,
    CompleteAbort,
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransactionResult {
    Commit,
    Abort,
}

/// The protocol of a transaction's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndProtocol {
    /// Up to `transaction.version` 1: the epoch stays.
    KeepsEpoch,
    /// From `transaction.version` 2 on (KIP-890).
    BumpsEpoch,
}

/// A transaction that has ended: which markers go where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EndedTransaction {
    pub(super) producer: ProducerEpoch,
    pub(super) result: TransactionResult,
    pub(super) partitions: BTreeSet<PartitionOfId>,
}

/// One transactional id.
#[derive(Debug)]
pub(super) struct TransactionMetadata {
    producer: ProducerEpoch,
    /// The epoch before, of a client that may ask again: its answer may have been lost.
    last_epoch: i16,
    /// The id before the epochs of it were used up.
    previous_id: i64,
    /// The id after this one, once the transaction under way has ended.
    next_id: Option<i64>,
    timeout: Duration,
    phase: TransactionPhase,
    partitions: BTreeSet<PartitionOfId>,
    /// When the transaction began, while there is one.
    started: Option<Instant>,
    /// When its end was decided.
    prepared: Instant,
    pub(super) last_used: Instant,
}

impl TransactionPhase {
    pub(super) const ALL: [Self; 6] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }
}

impl TransactionMetadata {
    /// No transaction yet, and no epoch: [`init`](Self::init) gives the first one.
    pub(super) fn new(producer_id: i64, now: Instant) -> Self {
        Self {
            producer: ProducerEpoch {
                id: producer_id,
                epoch: NO_EPOCH,
            },
            last_epoch: NO_EPOCH,
            previous_id: NO_PRODUCER_ID,
            next_id: None,
            timeout: Duration::ZERO,
            phase: TransactionPhase::Empty,
            partitions: BTreeSet::new(),
            started: None,
            prepared: now,
            last_used: now,
        }
    }

    pub(super) fn phase(&self) -> TransactionPhase {
        self.phase
    }

    pub(super) fn producer(&self) -> ProducerEpoch {
        self.producer
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn partitions(&self) -> &BTreeSet<PartitionOfId> {
        &self.partitions
    }

    /// How long the transaction under way has lasted.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        Some(now.saturating_duration_since(self.started?))
    }

    /// As if so many transactions had ended.
    #[cfg(any(test, feature = "faults"))]
    pub(super) fn set_epoch(&mut self, epoch: i16) {
        self.producer.epoch = epoch;
    }

    /// Whether nothing is lost when it is forgotten, but who is fenced.
    pub(super) fn is_idle(&self) -> bool {
        use TransactionPhase::{CompleteAbort, CompleteCommit, Empty};
        matches!(self.phase, Empty | CompleteCommit | CompleteAbort)
    }

    /// When its clock has to be looked at: `marker_delay` after its end was decided, and when an
    /// open transaction has lasted for its timeout.
    pub(super) fn deadline(&self, marker_delay: Duration) -> Option<Instant> {
        match self.phase {
            TransactionPhase::Ongoing => Some(self.started? + self.timeout),
            TransactionPhase::PrepareCommit | TransactionPhase::PrepareAbort => {
                Some(self.prepared + marker_delay)
            }
            _ => None,
        }
    }

    /// InitProducerId: a producer takes over from those before it, or, with the id and epoch that
    /// it has, goes on after an error. An open transaction is aborted first: the producer is to
    /// ask again.
    pub(super) fn init(
        &mut self,
        expected: Option<ProducerEpoch>,
        timeout: Duration,
        protocol: EndProtocol,
        now: Instant,
        new_id: impl FnOnce() -> i64,
    ) -> Result<ProducerEpoch, ResponseError> {
        if expected.is_some_and(|expected| !self.may_continue(expected)) {
            return Err(ResponseError::ProducerFenced);
        }
        match self.phase {
            TransactionPhase::PrepareCommit | TransactionPhase::PrepareAbort => {
                return Err(ResponseError::ConcurrentTransactions);
            }
            TransactionPhase::Ongoing => {
                self.fence(protocol, now);
                return Err(ResponseError::ConcurrentTransactions);
            }
            _ => {}
        }
        let epoch = self.producer.epoch;
        let expected = expected.map(|producer| producer.epoch);
        if is_exhausted(epoch) && expected.is_none_or(|expected| expected == epoch) {
            self.previous_id = self.producer.id;
            self.producer = ProducerEpoch {
                id: new_id(),
                epoch: 0,
            };
            self.last_epoch = expected.map_or(NO_EPOCH, |_| epoch);
        } else {
            match expected {
                None => (self.producer.epoch, self.last_epoch) = (epoch + 1, NO_EPOCH),
                Some(expected) if epoch == NO_EPOCH || expected == epoch => {
                    (self.producer.epoch, self.last_epoch) = (epoch + 1, epoch);
                }
                // The answer was lost.
                Some(expected) if expected == self.last_epoch => {}
                Some(_) => return Err(ResponseError::ProducerFenced),
            }
        }
        self.phase = TransactionPhase::Empty;
        self.timeout = timeout;
        self.started = None;
        self.partitions.clear();
        Ok(self.producer)
    }

    fn may_continue(&self, expected: ProducerEpoch) -> bool {
        self.producer.epoch == NO_EPOCH
            || expected.id == self.producer.id
            || expected.id == self.previous_id && is_exhausted(expected.epoch)
    }

    /// Adds partitions to the transaction under way, or begins one with them.
    pub(super) fn add(
        &mut self,
        producer: ProducerEpoch,
        partitions: &BTreeSet<PartitionOfId>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        self.check(producer)?;
        if self.phase != TransactionPhase::Ongoing {
            self.phase = TransactionPhase::Ongoing;
            self.started = Some(now);
            self.partitions.clear();
        }
        self.partitions.extend(partitions);
        Ok(())
    }

    /// Whether that producer may write to those partitions already.
    pub(super) fn verify(
        &self,
        producer: ProducerEpoch,
        partition: &PartitionOfId,
    ) -> Result<(), ResponseError> {
        self.check(producer)?;
        match self.partitions.contains(partition) {
            true => Ok(()),
            false => Err(ResponseError::TransactionAbortable),
        }
    }

    /// Whether that is the producer, and no transaction of it is being ended.
    fn check(&self, producer: ProducerEpoch) -> Result<(), ResponseError> {
        let ends = matches!(
            self.phase,
            TransactionPhase::PrepareCommit | TransactionPhase::PrepareAbort
        );
        if ends && self.next_id == Some(producer.id) {
            return Err(ResponseError::ConcurrentTransactions);
        }
        if producer.id != self.producer.id {
            return Err(ResponseError::InvalidProducerIdMapping);
        }
        if producer.epoch != self.producer.epoch {
            return Err(ResponseError::ProducerFenced);
        }
        match ends {
            true => Err(ResponseError::ConcurrentTransactions),
            false => Ok(()),
        }
    }

    /// EndTxn: the markers are due now. Answers which id and epoch the client goes on with.
    pub(super) fn end(
        &mut self,
        producer: ProducerEpoch,
        result: TransactionResult,
        protocol: EndProtocol,
        now: Instant,
        new_id: impl FnOnce() -> i64,
    ) -> Result<ProducerEpoch, ResponseError> {
        match protocol {
            EndProtocol::KeepsEpoch => self.end_keeping_epoch(producer, result, now),
            EndProtocol::BumpsEpoch => self.end_bumping_epoch(producer, result, now, new_id),
        }
    }

    fn end_keeping_epoch(
        &mut self,
        producer: ProducerEpoch,
        result: TransactionResult,
        now: Instant,
    ) -> Result<ProducerEpoch, ResponseError> {
        if producer.id != self.producer.id {
            return Err(ResponseError::InvalidProducerIdMapping);
        }
        if producer.epoch != self.producer.epoch {
            return Err(ResponseError::ProducerFenced);
        }
        match self.ended_as() {
            None if self.phase == TransactionPhase::Ongoing => {
                self.prepare(result, now);
                Ok(self.producer)
            }
            // Whichever end is asked for.
            Some((_, true)) => Err(ResponseError::ConcurrentTransactions),
            Some((before, false)) if before == result => Ok(self.producer),
            _ => Err(ResponseError::InvalidTxnState),
        }
    }

    fn end_bumping_epoch(
        &mut self,
        producer: ProducerEpoch,
        result: TransactionResult,
        now: Instant,
        new_id: impl FnOnce() -> i64,
    ) -> Result<ProducerEpoch, ResponseError> {
        let after_new_id = self.previous_id == producer.id
            && producer.epoch == EPOCH_LAST
            && self.producer.epoch == 0
            && self.phase != TransactionPhase::Ongoing;
        if producer.id != self.producer.id && !after_new_id {
            return Err(ResponseError::InvalidProducerIdMapping);
        }
        // The epoch tells an end that is asked for again from the next one.
        let again = after_new_id || producer.epoch.checked_add(1) == Some(self.producer.epoch);
        let same = producer.epoch == self.producer.epoch && !after_new_id;
        let ended = self.ended_as();
        let is_valid = match ended {
            None => same,
            Some((_, true)) => again,
            Some((_, false)) => same || again,
        };
        if !is_valid {
            return Err(ResponseError::ProducerFenced);
        }
        match ended {
            // Whichever end is asked for.
            Some((_, true)) => Err(ResponseError::ConcurrentTransactions),
            Some((before, false)) if again => match before == result {
                true => Ok(self.producer),
                false => Err(ResponseError::InvalidTxnState),
            },
            // Nothing was written: there is nothing to commit.
            _ if self.phase != TransactionPhase::Ongoing && result == TransactionResult::Commit => {
                Err(ResponseError::InvalidTxnState)
            }
            _ => {
                if is_exhausted(self.producer.epoch) {
                    self.next_id = Some(new_id());
                }
                self.bump();
                self.prepare(result, now);
                Ok(match self.next_id {
                    Some(id) => ProducerEpoch { id, epoch: 0 },
                    None => self.producer,
                })
            }
        }
    }

    /// How the last transaction ended, and whether its markers are still due.
    fn ended_as(&self) -> Option<(TransactionResult, bool)> {
        match self.phase {
            TransactionPhase::Empty | TransactionPhase::Ongoing => None,
            TransactionPhase::PrepareCommit => Some((TransactionResult::Commit, true)),
            TransactionPhase::PrepareAbort => Some((TransactionResult::Abort, true)),
            TransactionPhase::CompleteCommit => Some((TransactionResult::Commit, false)),
            TransactionPhase::CompleteAbort => Some((TransactionResult::Abort, false)),
        }
    }

    /// Aborts the open transaction in the place of its producer, which has that epoch no more.
    fn fence(&mut self, protocol: EndProtocol, now: Instant) {
        self.bump();
        if protocol == EndProtocol::KeepsEpoch {
            self.last_epoch = NO_EPOCH;
        }
        self.prepare(TransactionResult::Abort, now);
    }

    /// Fences a transaction that has lasted for its timeout.
    pub(super) fn expire(&mut self, protocol: EndProtocol, now: Instant) {
        let is_over = self.age(now).is_some_and(|age| age >= self.timeout);
        if self.phase == TransactionPhase::Ongoing && is_over {
            self.fence(protocol, now);
        }
    }

    fn bump(&mut self) {
        self.last_epoch = self.producer.epoch;
        self.producer.epoch = self.producer.epoch.saturating_add(1);
    }

    fn prepare(&mut self, result: TransactionResult, now: Instant) {
        self.prepared = now;
        self.phase = match result {
            TransactionResult::Commit => TransactionPhase::PrepareCommit,
            TransactionResult::Abort => TransactionPhase::PrepareAbort,
        };
    }

    /// The end that is due, as done: which markers are to be written.
    pub(super) fn complete(&mut self) -> Option<EndedTransaction> {
        let (result, phase) = match self.phase {
            TransactionPhase::PrepareCommit => {
                (TransactionResult::Commit, TransactionPhase::CompleteCommit)
            }
            TransactionPhase::PrepareAbort => {
                (TransactionResult::Abort, TransactionPhase::CompleteAbort)
            }
            _ => return None,
        };
        let producer = self.producer;
        self.phase = phase;
        self.started = None;
        if let Some(id) = self.next_id.take() {
            self.previous_id = self.producer.id;
            self.producer = ProducerEpoch { id, epoch: 0 };
        }
        Some(EndedTransaction {
            producer,
            result,
            partitions: std::mem::take(&mut self.partitions),
        })
    }
}

fn is_exhausted(epoch: i16) -> bool {
    epoch >= EPOCH_LAST
}

/// The last epoch that a client gets; one more is kept for fencing it.
const EPOCH_LAST: i16 = i16::MAX - 1;
const NO_EPOCH: i16 = -1;
const NO_PRODUCER_ID: i64 = -1;

#[cfg(test)]
mod tests;
