//! A batch in its partition's queue: its state, and what is known of earlier attempts.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::delivery::{DeliveryPromise, LogAppendInfo, ProduceResult};
use super::super::error::ProduceError;
use super::super::producer_id::ProducerIdAndEpoch;
use super::sequencer::SequenceGap;
use crate::topic::TopicPartition;

/// The records of a batch, as far as the queue needs to know them.
pub(in super::super) trait QueuedRecords: Sized {
    /// How many there are.
    fn count(&self) -> u32;
    /// Their size in bytes, uncompressed.
    fn size(&self) -> usize;
    /// A batch of those records for whose position `wanted` holds. `None` if these are
    /// none, or the records cannot be read.
    fn retain(&self, wanted: &dyn Fn(u32) -> bool) -> Option<Self>;
}

/// A batch of records for one partition, from its first record to its result.
#[derive(Debug)]
pub(super) struct ProducerBatch<R> {
    pub(super) id: u64,
    /// `None` while in flight, and when there is nothing left to send.
    pub(super) records: Option<R>,
    /// `None` once the delivery futures are resolved.
    pub(super) promise: Option<DeliveryPromise>,
    pub(super) state: BatchState,
    /// The sequence of the first record; `None` until the first attempt.
    pub(super) base_sequence: Option<i32>,
    pub(super) attempts: u32,
    /// How many records the last attempt sent.
    pub(super) sent_count: u32,
    pub(super) created: Instant,
    /// Bytes of `buffer.memory`.
    pub(super) memory: usize,
    /// A gap directly in front of this batch: takes effect when this one is the first.
    pub(super) gap_before: SequenceGap,
}

/// A batch's life.
///
/// ```text
/// Open ─▶ Ready ─▶ InFlight ─▶ Done
///   └──────────────▶ │  ▲
///                    ▼  │
///                    Retry
/// ```
#[derive(Debug)]
pub(super) enum BatchState {
    /// Takes records; `ready`: need not wait for `linger.ms` before it is sent.
    Open { ready: bool },
    /// Takes no more records, and was not sent as it is.
    Ready,
    /// In a request that is not answered.
    InFlight {
        earlier: EarlierAttempts,
        /// The topic was deleted and created again meanwhile: what becomes of the batch says
        /// nothing of the new topic's log.
        of_old_topic: bool,
    },
    /// To be sent again.
    Retry(EarlierAttempts),
    /// Has its result.
    Done {
        result: Result<LogAppendInfo, ProduceError>,
        /// The topic was deleted and created again before the batch left the queue.
        of_old_topic: bool,
    },
}

/// What became of the attempts to write a batch that ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EarlierAttempts {
    /// None was appended.
    NotAppended,
    /// One may have been appended; `by_name`: such a one named the topic by its name, and may
    /// reach another topic of that name.
    MaybeAppended { by_name: bool },
}

impl EarlierAttempts {
    /// With one more, which may have been appended.
    pub(super) fn and_maybe_appended(self, naming: TopicNaming) -> Self {
        let by_name =
            naming == TopicNaming::ByName || self == Self::MaybeAppended { by_name: true };
        Self::MaybeAppended { by_name }
    }
}

/// How a request names topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum TopicNaming {
    /// By name: it reaches whichever topic has that name when it arrives.
    ByName,
    /// By id: it reaches no other topic.
    ById,
}

/// A batch that goes into a request.
#[derive(Debug)]
pub(in super::super) struct SendableBatch<R> {
    pub(in super::super) id: u64,
    pub(in super::super) records: R,
    pub(in super::super) producer_id: ProducerIdAndEpoch,
    pub(in super::super) base_sequence: i32,
    /// It was in a request before.
    pub(in super::super) is_retry: bool,
}

/// Records that have their result: a batch that is done and has left the queue; one that is
/// still in flight, or parked after such a one, and whose delivery timeout has expired; or a
/// record that the broker named as invalid.
#[derive(Debug)]
pub(in super::super) struct FinishedBatch {
    /// `None` if the futures were resolved before.
    pub(in super::super) promise: Option<DeliveryPromise>,
    pub(in super::super) result: Result<LogAppendInfo, ProduceError>,
    /// Bytes to give back to `buffer.memory`.
    pub(in super::super) memory: usize,
    /// How many records the last attempt sent.
    pub(in super::super) sent_count: u32,
    /// When the first record was given to the producer.
    pub(in super::super) created: Instant,
}

impl<R> ProducerBatch<R> {
    /// A batch that was never sent, and takes no records.
    pub(super) fn new(id: u64, records: R, promise: DeliveryPromise, created: Instant) -> Self {
        Self {
            id,
            records: Some(records),
            promise: Some(promise),
            state: BatchState::Ready,
            base_sequence: None,
            attempts: 0,
            sent_count: 0,
            created,
            memory: 0,
            gap_before: SequenceGap::None,
        }
    }

    /// The batch that takes records, if it still does, and the result of its records.
    #[inline]
    pub(super) fn open(&mut self) -> Option<(&mut R, &Arc<ProduceResult>)> {
        if !matches!(self.state, BatchState::Open { .. }) {
            return None;
        }
        Some((self.records.as_mut()?, self.promise.as_ref()?.result()))
    }

    /// It takes no more records.
    pub(super) fn close(&mut self) {
        if matches!(self.state, BatchState::Open { .. }) {
            self.state = BatchState::Ready;
        }
    }

    /// Lets it wait for `linger.ms` no longer; returns whether it did.
    pub(super) fn make_ready(&mut self) -> bool {
        match &mut self.state {
            BatchState::Open { ready } => !std::mem::replace(ready, true),
            _ => false,
        }
    }

    /// Need not wait for `linger.ms`.
    pub(super) fn is_ready(&self) -> bool {
        !matches!(self.state, BatchState::Open { ready: false })
    }

    /// To be sent, for the first time or again.
    pub(super) fn is_queued(&self) -> bool {
        !self.is_in_flight() && !self.is_done()
    }

    pub(super) fn is_in_flight(&self) -> bool {
        matches!(self.state, BatchState::InFlight { .. })
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, BatchState::Done { .. })
    }

    /// What became of the attempts that have ended.
    pub(super) fn earlier_attempts(&self) -> EarlierAttempts {
        match self.state {
            BatchState::InFlight { earlier, .. } | BatchState::Retry(earlier) => earlier,
            BatchState::Open { .. } | BatchState::Ready | BatchState::Done { .. } => {
                EarlierAttempts::NotAppended
            }
        }
    }

    /// Some attempt that has ended may have been appended.
    pub(super) fn maybe_appended(&self) -> bool {
        self.earlier_attempts() != EarlierAttempts::NotAppended
    }

    /// The delivery timeout expired while it was in flight, or parked: the callers know their
    /// result, and there is no next attempt.
    pub(super) fn is_expired(&self) -> bool {
        self.promise.is_none()
    }

    /// Ends it with an error, and leaves `gap` where it was.
    pub(super) fn fail(&mut self, error: ProduceError, gap: SequenceGap) {
        self.state = BatchState::Done {
            result: Err(error),
            of_old_topic: false,
        };
        self.records = None;
        if gap != SequenceGap::None {
            self.gap_before = gap;
        }
    }

    /// The topic was deleted and created again: no attempt so far is in the new one, and the
    /// next is the first; unless one that may have been appended named the topic by its name:
    /// then the batch fails, for it may be in either.
    pub(super) fn settle_on_topic_recreated(&mut self, partition: &TopicPartition) {
        match self.earlier_attempts() {
            EarlierAttempts::MaybeAppended { by_name: true } => {
                let error = unknown_outcome(partition, "the topic was deleted and created again");
                self.fail(error, SequenceGap::None);
            }
            EarlierAttempts::MaybeAppended { by_name: false } => {
                self.state = BatchState::Retry(EarlierAttempts::NotAppended);
            }
            EarlierAttempts::NotAppended => {}
        }
    }

    /// The gap that this batch leaves if it certainly was not appended.
    pub(super) fn gap_if_not_appended(&self) -> SequenceGap {
        match self.base_sequence {
            Some(_) => SequenceGap::Certain,
            None => SequenceGap::None,
        }
    }

    /// The gap that this batch, which was sent, leaves if it fails now.
    pub(super) fn gap_if_failed(&self) -> SequenceGap {
        match self.maybe_appended() {
            true => SequenceGap::Possible,
            false => SequenceGap::Certain,
        }
    }
}

pub(super) fn unknown_outcome(partition: &TopicPartition, reason: &str) -> ProduceError {
    ProduceError::UnknownOutcome {
        partition: partition.clone(),
        reason: reason.into(),
    }
}
