//! A batch in its partition's queue: its state, and what is known of earlier attempts.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::delivery::{AppendedAt, DeliveryPromise, ProduceResult};
use super::super::error::ProduceError;
use super::super::producer_id::ProducerIdAndEpoch;
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
    /// Some attempt may have been appended.
    pub(super) maybe_appended: bool,
    /// One of those attempts named the topic by its name: it may reach another topic of
    /// that name.
    pub(super) sent_by_name: bool,
    /// The topic was deleted and created again while this batch was in flight: what becomes
    /// of it says nothing of the new topic's log.
    pub(super) topic_recreated: bool,
    /// No record can be appended any more.
    pub(super) closed: bool,
    /// Need not wait for `linger.ms`.
    pub(super) ready: bool,
    pub(super) attempts: u32,
    pub(super) created: Instant,
    /// Bytes of `buffer.memory`.
    pub(super) memory: usize,
    /// A gap directly in front of this batch: takes effect when this one is the first.
    pub(super) gap_before: SequenceGap,
}

#[derive(Debug)]
pub(super) enum BatchState {
    /// To be sent, for the first time or again.
    Queued,
    /// In a request that is not answered.
    InFlight,
    Done(Result<AppendedAt, ProduceError>),
}

/// Whether sequences are missing from what the broker has, because their batch failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SequenceGap {
    None,
    /// The batch may have been appended; then there is no gap.
    Possible,
    Certain,
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

/// A batch that is done and has left the queue; or one that is still in flight, or parked
/// behind such a one, and whose delivery timeout has expired.
#[derive(Debug)]
pub(in super::super) struct FinishedBatch {
    /// `None` if the futures were resolved before.
    pub(in super::super) promise: Option<DeliveryPromise>,
    pub(in super::super) result: Result<AppendedAt, ProduceError>,
    /// Bytes to give back to `buffer.memory`.
    pub(in super::super) memory: usize,
}

impl<R> ProducerBatch<R> {
    /// A batch that was never sent.
    pub(super) fn new(id: u64, records: R, promise: DeliveryPromise, created: Instant) -> Self {
        Self {
            id,
            records: Some(records),
            promise: Some(promise),
            state: BatchState::Queued,
            base_sequence: None,
            maybe_appended: false,
            sent_by_name: false,
            topic_recreated: false,
            closed: false,
            ready: false,
            attempts: 0,
            created,
            memory: 0,
            gap_before: SequenceGap::None,
        }
    }

    /// The batch that takes records, if it still does, and the result of its records.
    #[inline]
    pub(super) fn open(&mut self) -> Option<(&mut R, &Arc<ProduceResult>)> {
        if self.closed {
            return None;
        }
        Some((self.records.as_mut()?, self.promise.as_ref()?.result()))
    }

    pub(super) fn is_queued(&self) -> bool {
        matches!(self.state, BatchState::Queued)
    }

    pub(super) fn is_in_flight(&self) -> bool {
        matches!(self.state, BatchState::InFlight)
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, BatchState::Done(_))
    }

    /// The delivery timeout expired while it was in flight, or parked: the callers know their
    /// result, and there is no next attempt.
    pub(super) fn is_expired(&self) -> bool {
        self.promise.is_none()
    }

    /// Ends it with an error, and leaves `gap` where it was.
    pub(super) fn fail(&mut self, error: ProduceError, gap: SequenceGap) {
        self.state = BatchState::Done(Err(error));
        self.records = None;
        self.closed = true;
        if gap != SequenceGap::None {
            self.gap_before = gap;
        }
    }

    /// The topic was deleted and created again: no attempt so far is in the new one, unless
    /// one that may have been appended named the topic by its name.
    pub(super) fn forget_attempts(&mut self, partition: &TopicPartition) {
        if self.maybe_appended && self.sent_by_name {
            let error = unknown_outcome(partition, "the topic was deleted and created again");
            self.fail(error, SequenceGap::None);
        }
        self.maybe_appended = false;
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
        match self.maybe_appended {
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
