//! What one partition remembers of its idempotent producers (`ProducerStateManager`).
//!
//! A batch is new, a repeat of one of the last five, or out of order:
//!
//! ```text
//! remembered:  [10..14] [15..19] [20..24] [25..29] [30..34]
//! 15..19 again ─▶ duplicate: answered with the offset it got the first time
//! 35..         ─▶ new
//! 40..         ─▶ OUT_OF_ORDER_SEQUENCE_NUMBER, so is 5..9, which is forgotten
//! ```

use std::collections::{HashMap, VecDeque};

use kafka_protocol::ResponseError;

use kafka_client::record::header::BatchHeader;

use super::batch::AppendError;

/// The producers of one partition.
#[derive(Debug)]
pub(super) struct ProducerStateManager {
    by_id: HashMap<i64, ProducerStateEntry>,
    uses: u64,
    limit: usize,
}

#[derive(Clone, Debug)]
struct ProducerStateEntry {
    epoch: i16,
    batches: VecDeque<BatchMetadata>,
    last_used: u64,
}

/// A batch that was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchMetadata {
    first_sequence: i32,
    last_sequence: i32,
    pub(super) base_offset: i64,
    pub(super) append_time: i64,
}

/// What is to be done with a batch that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SequenceCheck {
    Append,
    Duplicate(BatchMetadata),
}

impl ProducerStateManager {
    /// Remembers up to `limit` producers.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            by_id: HashMap::new(),
            uses: 0,
            limit: limit.max(1),
        }
    }

    /// Whether a batch may be appended.
    pub(super) fn check(&self, header: &BatchHeader) -> Result<SequenceCheck, AppendError> {
        if header.producer_id < 0 {
            return Ok(SequenceCheck::Append);
        }
        // An unknown producer may continue with any sequence: its records may have been
        // deleted.
        let Some(known) = self.by_id.get(&header.producer_id) else {
            return Ok(SequenceCheck::Append);
        };
        if header.producer_epoch < known.epoch {
            return Err(AppendError::new(
                ResponseError::InvalidProducerEpoch,
                "the producer has a newer epoch",
            ));
        }
        let (first, last) = sequences(header);
        if header.producer_epoch > known.epoch {
            return if first == 0 {
                Ok(SequenceCheck::Append)
            } else {
                Err(AppendError::new(
                    ResponseError::OutOfOrderSequenceNumber,
                    "a new epoch starts with sequence 0",
                ))
            };
        }
        let same = |b: &&BatchMetadata| (b.first_sequence, b.last_sequence) == (first, last);
        if let Some(&batch) = known.batches.iter().find(same) {
            return Ok(SequenceCheck::Duplicate(batch));
        }
        match known.batches.back() {
            Some(before) if first != next_sequence(before.last_sequence) => Err(AppendError::new(
                ResponseError::OutOfOrderSequenceNumber,
                "the sequence does not follow the last one",
            )),
            None if first != 0 => Err(AppendError::new(
                ResponseError::OutOfOrderSequenceNumber,
                "an epoch starts with sequence 0",
            )),
            _ => Ok(SequenceCheck::Append),
        }
    }

    /// Remembers a batch that was appended at `base_offset`.
    pub(super) fn appended(&mut self, header: &BatchHeader, base_offset: i64, append_time: i64) {
        if header.producer_id < 0 {
            return;
        }
        self.uses += 1;
        let (first_sequence, last_sequence) = sequences(header);
        let producer = self.entry_for(header.producer_id, header.producer_epoch);
        if producer.batches.len() == KEPT {
            producer.batches.pop_front();
        }
        producer.batches.push_back(BatchMetadata {
            first_sequence,
            last_sequence,
            base_offset,
            append_time,
        });
    }

    /// Forgets who wrote nothing at `offset` or after it.
    pub(super) fn forget_before(&mut self, offset: i64) {
        self.by_id.retain(|_, producer| {
            let last = producer.batches.back();
            last.is_none_or(|batch| batch.base_offset >= offset)
        });
    }

    /// A transaction marker raises the epoch: the marker's producer is the newest.
    pub(super) fn fence(&mut self, producer_id: i64, epoch: i16) {
        self.uses += 1;
        self.entry_for(producer_id, epoch);
    }

    /// The epoch of a producer that is remembered.
    pub(super) fn epoch(&self, producer_id: i64) -> Option<i16> {
        Some(self.by_id.get(&producer_id)?.epoch)
    }

    /// How many are remembered.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    fn entry_for(&mut self, producer_id: i64, epoch: i16) -> &mut ProducerStateEntry {
        if !self.by_id.contains_key(&producer_id) && self.by_id.len() >= self.limit {
            let oldest = self.by_id.iter().min_by_key(|(_, p)| p.last_used);
            if let Some(id) = oldest.map(|(&id, _)| id) {
                self.by_id.remove(&id);
            }
        }
        let uses = self.uses;
        let producer = self
            .by_id
            .entry(producer_id)
            .or_insert_with(|| ProducerStateEntry {
                epoch,
                batches: VecDeque::with_capacity(KEPT),
                last_used: uses,
            });
        if epoch > producer.epoch {
            producer.epoch = epoch;
            producer.batches.clear();
        }
        producer.last_used = uses;
        producer
    }
}

// What tests do and see.
#[cfg(any(test, feature = "faults"))]
impl ProducerStateManager {
    /// Forgets what was appended from `offset` on.
    pub(super) fn truncate(&mut self, offset: i64) {
        for producer in self.by_id.values_mut() {
            producer.batches.retain(|batch| batch.base_offset < offset);
        }
        self.by_id
            .retain(|_, producer| !producer.batches.is_empty());
    }
}

/// Sequence numbers of the first and last record; they wrap to 0 after the largest.
fn sequences(header: &BatchHeader) -> (i32, i32) {
    let first = header.base_sequence;
    let last = (i64::from(first) + i64::from(header.last_offset_delta)) & i64::from(i32::MAX);
    (first, last as i32)
}

fn next_sequence(sequence: i32) -> i32 {
    sequence.wrapping_add(1) & i32::MAX
}

/// Batches per producer: as many as a producer may have in flight.
const KEPT: usize = 5;

#[cfg(test)]
mod tests {
    use super::super::batch::tests::batch_of;
    use super::*;

    fn header(count: i32, epoch: i16, sequence: i32) -> BatchHeader {
        BatchHeader::parse(&batch_of(count, 0, (9, epoch, sequence))).unwrap()
    }

    fn append(producers: &mut ProducerStateManager, header: &BatchHeader, offset: i64) {
        assert_eq!(producers.check(header), Ok(SequenceCheck::Append));
        producers.appended(header, offset, -1);
    }

    fn error(producers: &ProducerStateManager, header: &BatchHeader) -> ResponseError {
        producers.check(header).unwrap_err().error
    }

    #[test]
    fn a_repeat_of_the_last_five_batches_gets_its_first_offset() {
        let mut producers = ProducerStateManager::new(10);
        for n in 0..6 {
            append(&mut producers, &header(5, 0, n * 5), 100 + i64::from(n) * 5);
        }
        for n in 1..6 {
            let Ok(SequenceCheck::Duplicate(batch)) = producers.check(&header(5, 0, n * 5)) else {
                panic!("batch {n} is not known");
            };
            assert_eq!(batch.base_offset, 100 + i64::from(n) * 5);
        }
        let forgotten = error(&producers, &header(5, 0, 0));
        assert_eq!(forgotten, ResponseError::OutOfOrderSequenceNumber);
        let overlapping = error(&producers, &header(4, 0, 25));
        assert_eq!(overlapping, ResponseError::OutOfOrderSequenceNumber);
    }

    #[test]
    fn a_gap_in_the_sequence_is_refused() {
        let mut producers = ProducerStateManager::new(10);
        append(&mut producers, &header(2, 0, 0), 0);
        let gap = error(&producers, &header(1, 0, 3));
        assert_eq!(gap, ResponseError::OutOfOrderSequenceNumber);
        append(&mut producers, &header(1, 0, 2), 2);
    }

    #[test]
    fn the_sequence_wraps_to_zero_after_the_largest() {
        let mut producers = ProducerStateManager::new(10);
        append(&mut producers, &header(3, 0, i32::MAX - 1), 0);
        append(&mut producers, &header(1, 0, 1), 3);
        append(&mut producers, &header(1, 1, 0), 4);
    }

    #[test]
    fn an_older_epoch_is_fenced_and_a_newer_one_starts_at_zero() {
        let mut producers = ProducerStateManager::new(10);
        append(&mut producers, &header(2, 1, 0), 0);
        let old = error(&producers, &header(2, 0, 2));
        assert_eq!(old, ResponseError::InvalidProducerEpoch);
        let late = error(&producers, &header(2, 2, 2));
        assert_eq!(late, ResponseError::OutOfOrderSequenceNumber);
        append(&mut producers, &header(2, 2, 0), 2);
    }

    #[test]
    fn truncation_forgets_what_it_removed() {
        let mut producers = ProducerStateManager::new(10);
        append(&mut producers, &header(2, 0, 0), 0);
        append(&mut producers, &header(2, 0, 2), 2);
        producers.truncate(2);
        append(&mut producers, &header(2, 0, 2), 2);
    }

    #[test]
    fn the_producer_unused_for_longest_is_forgotten_first() {
        let mut producers = ProducerStateManager::new(2);
        for pid in [1, 2, 1, 3] {
            let header = BatchHeader {
                producer_id: pid,
                ..header(1, 0, 0)
            };
            producers.appended(&header, 0, -1);
        }
        assert_eq!(producers.by_id.len(), 2);
        assert!(!producers.by_id.contains_key(&2));
    }
}
