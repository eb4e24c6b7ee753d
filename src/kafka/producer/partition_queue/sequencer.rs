//! Under which producer id, epoch and sequence the batches of a partition are sent.
//!
//! # Sequence gaps
//! When a batch leaves the queue without having been appended, the sequences after it
//! cannot be used: the broker refuses whatever does not follow directly.
//! - *Certain* gap (the batch was refused, or never sent): what follows was not appended
//!   either. Once no request is in flight, the epoch is bumped and every batch gets a new
//!   sequence.
//! - *Possible* gap (the batch failed while it may have been appended): the next batch that
//!   may have been appended is sent again as it was. If it is taken, the failed one was
//!   appended too and the gap never existed; if it is refused as out of order, its outcome
//!   is unknown as well: a broker that was restarted may hold it and not remember. What
//!   certainly was not appended follows under the next epoch, whose first batch fences
//!   requests that are still on their way.
//!
//! A topic that was deleted and created again has a certain gap before its first batch. It
//! is not closed by the old topic: five batches are in flight, the topic is recreated, and
//! two of the five are acknowledged by the old one. The new one has neither of them, and a
//! new log takes whichever sequence comes first.

use super::super::producer_id::{ProducerIdAndEpoch, increment_sequence};

/// Whether sequences are missing from what the broker has, because their batch failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SequenceGap {
    None,
    /// The batch may have been appended; then there is no gap.
    Possible,
    Certain,
}

/// The sequences of one partition.
#[derive(Debug)]
pub(super) struct Sequencer {
    /// What sequences count under; taken from the producer at the first attempt.
    producer_id: Option<ProducerIdAndEpoch>,
    /// A producer id that must not be used again: its epochs are used up, or it is fenced.
    exhausted_producer_id: Option<i64>,
    /// Of the next batch that has none.
    next_sequence: i32,
    /// Between what the broker has and the first batch.
    gap: SequenceGap,
}

impl Sequencer {
    pub(super) fn new() -> Self {
        Self {
            producer_id: None,
            exhausted_producer_id: None,
            next_sequence: 0,
            gap: SequenceGap::None,
        }
    }

    /// The gap between what the broker has and the first batch.
    pub(super) fn gap(&self) -> SequenceGap {
        self.gap
    }

    /// The partition's brokers may know sequences under that producer id.
    pub(super) fn has_used_producer_id(&self, id: i64) -> bool {
        self.producer_id.is_some_and(|own| own.id == id) || self.exhausted_producer_id == Some(id)
    }

    /// Needs another producer id than `new` to go on.
    pub(super) fn needs_producer_id(&self, new: Option<ProducerIdAndEpoch>) -> bool {
        self.producer_id.is_none()
            && new.is_none_or(|new| self.exhausted_producer_id == Some(new.id))
    }

    /// The producer id and epoch of the next request: `new` if there is none yet.
    pub(super) fn producer_id(
        &mut self,
        new: Option<ProducerIdAndEpoch>,
    ) -> Option<ProducerIdAndEpoch> {
        self.producer_id = self.producer_id.or(new);
        self.producer_id
    }

    /// The sequence of the next batch, which has that many records.
    pub(super) fn next_sequence(&mut self, count: u32) -> i32 {
        let sequence = self.next_sequence;
        self.next_sequence = increment_sequence(sequence, count);
        sequence
    }

    /// Notes a gap in front of the first batch.
    pub(super) fn set_gap(&mut self, gap: SequenceGap) {
        if gap != SequenceGap::None {
            self.gap = gap;
        }
    }

    /// The first batch was appended: the broker has everything up to there; or it has lost
    /// the producer's state.
    pub(super) fn first_was_appended(&mut self) {
        self.gap = match self.gap {
            SequenceGap::Certain => SequenceGap::Possible,
            SequenceGap::Possible | SequenceGap::None => SequenceGap::None,
        };
    }

    /// Starts a new epoch, whose sequences begin at 0; returns the old one. When the epochs
    /// are used up, another producer id is needed.
    pub(super) fn bump_epoch(&mut self) -> Option<ProducerIdAndEpoch> {
        let old = self.producer_id;
        if let Some(old) = old {
            self.producer_id = old.bumped();
            if self.producer_id.is_none() {
                self.exhausted_producer_id = Some(old.id);
            }
        }
        self.next_sequence = 0;
        self.gap = SequenceGap::None;
        old
    }

    /// Gives up the producer id, which is fenced: the epoch is bumped under another one.
    pub(super) fn fenced(&mut self) {
        let old = self.producer_id.take().map(|old| old.id);
        self.exhausted_producer_id = old.or(self.exhausted_producer_id);
        self.gap = SequenceGap::Certain;
    }

    /// Another cluster took the place of the one that issued the producer id: it may give the same
    /// one to another producer, or to this one.
    pub(super) fn cluster_changed(&mut self) {
        self.producer_id = None;
        self.exhausted_producer_id = None;
        self.gap = SequenceGap::Certain;
    }

    #[cfg(test)]
    pub(super) fn set_next(&mut self, producer_id: ProducerIdAndEpoch, sequence: i32) {
        self.producer_id = Some(producer_id);
        self.next_sequence = sequence;
    }
}
