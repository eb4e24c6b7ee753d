//! Which batch is sent next, and under which epoch and sequence.

use std::time::Duration;

use tokio::time::Instant;

use super::super::producer_id::ProducerIdAndEpoch;
use super::PartitionQueue;
use super::batch::{
    BatchState, EarlierAttempts, FinishedBatch, ProducerBatch, QueuedRecords, SendableBatch,
    unknown_outcome,
};
use super::sequencer::SequenceGap;
use crate::topic::BrokerId;

/// A broker forgets a producer that has been silent for long, and takes the sequences of
/// one that it has forgotten as they come: with several requests in flight, a refused one
/// would not hold back the next. After this long, start again with one.
const LEADER_CONFIRMED_FOR: Duration = Duration::from_secs(60);

impl<R: QueuedRecords> PartitionQueue<R> {
    /// Is there a batch to send, given that new producer id?
    pub(in super::super) fn is_ready(
        &self,
        new_producer_id: Option<ProducerIdAndEpoch>,
        now: Instant,
    ) -> bool {
        self.sendable(new_producer_id, now).is_some()
    }

    /// Needs another producer id than `new_producer_id` to go on.
    pub(in super::super) fn needs_producer_id(
        &self,
        new_producer_id: Option<ProducerIdAndEpoch>,
    ) -> bool {
        !self.batches.is_empty() && self.sequencer.needs_producer_id(new_producer_id)
    }

    /// The next batch to send to `broker`; it is in flight until
    /// [`complete`](Self::complete) takes it back.
    pub(in super::super) fn next_batch(
        &mut self,
        broker: BrokerId,
        new_producer_id: Option<ProducerIdAndEpoch>,
        now: Instant,
        finished: &mut Vec<FinishedBatch>,
    ) -> Option<SendableBatch<R>> {
        if self.leader()? != broker {
            return None;
        }
        let mut index = self.sendable(new_producer_id, now)?;
        if self.needs_epoch_bump(&self.batches[index]) {
            self.bump_epoch();
            self.finish_done(finished);
            index = self.sendable(new_producer_id, now)?;
        }
        let batch = &mut self.batches[index];
        let count = batch.records.as_ref()?.count();
        let producer_id = self.sequencer.producer_id(new_producer_id)?;
        let sequencer = &mut self.sequencer;
        let next = || sequencer.next_sequence(count);
        let base_sequence = *batch.base_sequence.get_or_insert_with(next);
        let records = batch.records.take()?;
        batch.sent_count = count;
        batch.state = BatchState::InFlight {
            earlier: batch.earlier_attempts(),
            of_old_topic: false,
        };
        let is_silent = |since: Instant| now >= since + LEADER_CONFIRMED_FOR;
        if self.in_flight == 0 && self.leader_confirmed_at.is_some_and(is_silent) {
            self.leader_confirmed_at = None;
        }
        self.in_flight += 1;
        self.in_flight_to = broker;
        Some(SendableBatch {
            id: batch.id,
            records,
            producer_id,
            base_sequence,
            is_retry: batch.attempts > 0,
        })
    }

    /// The index of the next batch, if one may be sent now.
    fn sendable(&self, new_producer_id: Option<ProducerIdAndEpoch>, now: Instant) -> Option<usize> {
        let leader = self.leader?.broker;
        if self.retry_at.is_some_and(|at| at > now) {
            return None;
        }
        let several = self.leader_confirmed_at.is_some() && self.in_flight_to == leader;
        let has_room =
            self.in_flight == 0 || (several && self.in_flight < self.config.max_in_flight);
        if !has_room || (self.sequencer.gap() != SequenceGap::None && self.in_flight > 0) {
            return None;
        }
        let is_after_gap = |index: usize, batch: &ProducerBatch<R>| {
            index > 0 && batch.gap_before != SequenceGap::None
        };
        let (index, batch) = self
            .batches
            .iter()
            .enumerate()
            .find(|(index, batch)| batch.is_queued() || is_after_gap(*index, batch))?;
        let is_overtaken = || {
            let before = self.batches.range(..index);
            before.filter(|before| before.is_in_flight()).count() < self.in_flight
        };
        // A batch after a gap waits until the gap is reached; one that is sent again waits
        // until nothing after it is in flight. A broker recognises a duplicate among the
        // last five batches: one that would push an unresolved one out of these waits for
        // its result.
        if is_after_gap(index, batch)
            || (batch.base_sequence.is_some() && is_overtaken())
            || index >= self.config.max_in_flight
        {
            return None;
        }
        let has_producer_id = !self.sequencer.needs_producer_id(new_producer_id);
        let linger_ended = || now >= batch.created + self.config.linger;
        (has_producer_id && (batch.is_ready() || linger_ended())).then_some(index)
    }

    fn needs_epoch_bump(&self, first: &ProducerBatch<R>) -> bool {
        match self.sequencer.gap() {
            SequenceGap::None => false,
            SequenceGap::Possible => !(first.maybe_appended() && first.base_sequence.is_some()),
            SequenceGap::Certain => true,
        }
    }

    /// Starts a new epoch, whose sequences begin at 0. Nothing is in flight, and what is
    /// queued is known not to be appended.
    fn bump_epoch(&mut self) {
        debug_assert_eq!(self.in_flight, 0, "requests of the old epoch are in flight");
        if let Some(old) = self.sequencer.bump_epoch() {
            tracing::debug!(partition = %self.partition, %old, "new producer epoch");
        }
        self.leader_confirmed_at = None;
        let mut contradicted = false;
        for batch in &mut self.batches {
            batch.gap_before = SequenceGap::None;
            batch.base_sequence = None;
            match &batch.state {
                // Appended although a batch before it was refused: the broker had lost the
                // producer's state, and what comes after may have been appended as well.
                BatchState::Done { result: Ok(_), .. } => contradicted = true,
                BatchState::Retry(_) if contradicted && batch.maybe_appended() => {
                    let reason = "the broker lost the producer's state";
                    let error = unknown_outcome(&self.partition, reason);
                    batch.fail(error, SequenceGap::None);
                }
                BatchState::Retry(_) => {
                    batch.state = BatchState::Retry(EarlierAttempts::NotAppended);
                }
                _ => {}
            }
        }
    }
}
