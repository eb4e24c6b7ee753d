//! Which batches `read_committed` leaves out.
//!
//! With a response come the aborted transactions that reach into it: producer and first
//! offset. A transactional batch of that producer is aborted from that offset on, until
//! the producer's abort marker in the log ends the transaction.
//!
//! Brokers do not promise an order, so we sort.

use std::collections::HashMap;

use super::varint::Cursor;
use super::wire;

/// A transaction whose records must not be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Who wrote it.
    pub producer_id: i64,
    /// Its first record's offset.
    pub first_offset: i64,
}

/// What is left of each producer's aborted transactions.
pub(super) struct Aborted {
    /// First offsets, latest first: the next to end is the last.
    by_producer: HashMap<i64, Vec<i64>>,
}

impl Aborted {
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
    pub(super) fn contains(&self, producer_id: i64, last_offset: i64) -> bool {
        self.by_producer
            .get(&producer_id)
            .and_then(|first_offsets| first_offsets.last())
            .is_some_and(|&first| first <= last_offset)
    }

    /// The producer's abort marker at `offset`.
    pub(super) fn end(&mut self, producer_id: i64, offset: i64) {
        if let Some(first_offsets) = self.by_producer.get_mut(&producer_id)
            && first_offsets.last().is_some_and(|&first| first <= offset)
        {
            first_offsets.pop();
        }
    }
}

/// Whether a control batch's records section begins with an abort marker.
pub(super) fn is_abort_marker(records: &[u8]) -> bool {
    wire::record(&mut Cursor::new(records))
        .and_then(|record| Cursor::new(record.key?).array::<4>())
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
        let mut aborted = Aborted::new(&[aborted(1, 10), aborted(2, 5), aborted(1, 50)]);
        assert!(!aborted.contains(1, 9));
        assert!(aborted.contains(1, 10));
        assert!(!aborted.contains(3, 10));
        // A marker of an earlier transaction, which the broker did not list.
        aborted.end(1, 8);
        assert!(aborted.contains(1, 20));
        aborted.end(1, 30);
        assert!(!aborted.contains(1, 40), "committed in between");
        assert!(aborted.contains(1, 55));
        assert!(aborted.contains(2, 55));
        aborted.end(1, 60);
        assert!(!aborted.contains(1, 70));
    }
}
