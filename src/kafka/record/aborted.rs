//! Which batches `read_committed` leaves out.
//!
//! With a response come the aborted transactions that overlap it: producer id and first
//! offset. A transactional batch of that producer is aborted from that offset on, until
//! the producer's abort marker in the log ends the transaction.
//!
//! Brokers do not promise an order, so we sort.

use std::collections::HashMap;

use super::default_record;
use super::varint::ByteReader;

/// A transaction whose records must not be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// The producer that wrote it.
    pub producer_id: i64,
    /// Its first record's offset.
    pub first_offset: i64,
}

/// Each producer's aborted transactions whose abort marker is still to come.
pub(super) struct AbortedTransactionIndex {
    /// First offsets in descending order: the next to end is the last.
    by_producer: HashMap<i64, Vec<i64>>,
}

impl AbortedTransactionIndex {
    pub(super) fn new(transactions: &[AbortedTransaction]) -> Self {
        let mut by_producer: HashMap<i64, Vec<i64>> = HashMap::new();
        for transaction in transactions {
            by_producer
                .entry(transaction.producer_id)
                .or_default()
                .push(transaction.first_offset);
        }
        for first_offsets in by_producer.values_mut() {
            first_offsets.sort_unstable_by(|a, b| b.cmp(a));
        }
        Self { by_producer }
    }

    /// Whether a transactional batch that ends at `last_offset` is aborted.
    pub(super) fn is_aborted(&self, producer_id: i64, last_offset: i64) -> bool {
        self.by_producer
            .get(&producer_id)
            .and_then(|first_offsets| first_offsets.last())
            .is_some_and(|&first| first <= last_offset)
    }

    /// Ends the transaction to which the producer's abort marker at `offset` belongs.
    pub(super) fn end_transaction(&mut self, producer_id: i64, offset: i64) {
        if let Some(first_offsets) = self.by_producer.get_mut(&producer_id)
            && first_offsets.last().is_some_and(|&first| first <= offset)
        {
            first_offsets.pop();
        }
    }
}

/// Whether a control batch's records section begins with an abort marker.
pub(super) fn is_abort_marker(records: &[u8]) -> bool {
    default_record::read_record(&mut ByteReader::new(records))
        .and_then(|record| ByteReader::new(record.key?).array::<4>())
        // Version i16, whatever it is; type i16: 0 is abort, 1 commit.
        .is_some_and(|[_, _, high, low]| [high, low] == [0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_marker_ends_the_earliest_transaction_of_its_producer() {
        let aborted = |producer_id, first_offset| AbortedTransaction {
            producer_id,
            first_offset,
        };
        let mut aborted =
            AbortedTransactionIndex::new(&[aborted(1, 10), aborted(2, 5), aborted(1, 50)]);
        assert!(!aborted.is_aborted(1, 9));
        assert!(aborted.is_aborted(1, 10));
        assert!(!aborted.is_aborted(3, 10));
        // A marker of an earlier transaction, which the broker did not list.
        aborted.end_transaction(1, 8);
        assert!(aborted.is_aborted(1, 20));
        aborted.end_transaction(1, 30);
        assert!(!aborted.is_aborted(1, 40), "committed in between");
        assert!(aborted.is_aborted(1, 55));
        assert!(aborted.is_aborted(2, 55));
        aborted.end_transaction(1, 60);
        assert!(!aborted.is_aborted(1, 70));
    }
}
