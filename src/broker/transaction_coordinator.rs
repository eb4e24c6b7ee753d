//! All transactional ids of the cluster, and when the clock has to look at which.
//!
//! # Invariants
//! - For each transaction with a deadline there is one entry in `deadlines`, at that time.
//! - All of them together take no more memory than theirs; the ids without a transaction go
//!   first, the one unused for longest.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;

use super::transaction::{
    EndProtocol, EndedTransaction, PartitionOfId, ProducerEpoch, TransactionMetadata,
};

/// The transactional ids with their transactions.
#[derive(Debug)]
pub(super) struct TransactionCoordinator {
    by_id: HashMap<Arc<str>, TransactionMetadata>,
    deadlines: BTreeSet<(Instant, Arc<str>)>,
    marker_delay: Duration,
    /// How the coordinator itself ends transactions.
    protocol: EndProtocol,
    bytes: usize,
    bytes_max: usize,
}

impl TransactionCoordinator {
    /// No ids yet. Markers are written `marker_delay` after the end of a transaction.
    pub(super) fn new(protocol: EndProtocol, marker_delay: Duration, bytes_max: usize) -> Self {
        Self {
            by_id: HashMap::new(),
            deadlines: BTreeSet::new(),
            marker_delay,
            protocol,
            bytes: 0,
            bytes_max,
        }
    }

    /// An id that is known.
    pub(super) fn get(&self, id: &str) -> Option<&TransactionMetadata> {
        self.by_id.get(id)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &TransactionMetadata)> {
        self.by_id.iter().map(|(id, metadata)| (&**id, metadata))
    }

    /// InitProducerId, of an id that may be new.
    pub(super) fn init(
        &mut self,
        id: &str,
        expected: Option<ProducerEpoch>,
        timeout: Duration,
        now: Instant,
        mut new_id: impl FnMut() -> i64,
    ) -> Result<ProducerEpoch, ResponseError> {
        if !self.by_id.contains_key(id) {
            if !self.make_room(id, id.len() + OVERHEAD) {
                return Err(ResponseError::CoordinatorNotAvailable);
            }
            self.bytes += id.len() + OVERHEAD;
            let metadata = TransactionMetadata::new(new_id(), now);
            self.by_id.insert(id.into(), metadata);
        }
        let protocol = self.protocol;
        self.with(id, now, |metadata| {
            metadata.init(expected, timeout, protocol, now, new_id)
        })
    }

    /// Adds partitions to a transaction.
    pub(super) fn add(
        &mut self,
        id: &str,
        producer: ProducerEpoch,
        partitions: &BTreeSet<PartitionOfId>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        if !self.make_room(id, partitions.len() * PARTITION) {
            // Until others have ended.
            return Err(ResponseError::ConcurrentTransactions);
        }
        self.with(id, now, |metadata| metadata.add(producer, partitions, now))
    }

    /// Changes a transaction of a known id.
    pub(super) fn with<T>(
        &mut self,
        id: &str,
        now: Instant,
        change: impl FnOnce(&mut TransactionMetadata) -> Result<T, ResponseError>,
    ) -> Result<T, ResponseError> {
        let known = self.by_id.get_key_value(id);
        let id = Arc::clone(known.ok_or(ResponseError::InvalidProducerIdMapping)?.0);
        let result = self.change(&id, |metadata| {
            metadata.last_used = now;
            change(metadata)
        });
        result.ok_or(ResponseError::InvalidProducerIdMapping)?
    }

    /// Changes one, and keeps count of its deadline and memory.
    fn change<T>(
        &mut self,
        id: &Arc<str>,
        change: impl FnOnce(&mut TransactionMetadata) -> T,
    ) -> Option<T> {
        let metadata = self.by_id.get_mut(id)?;
        let partitions = metadata.partitions().len();
        let deadline = metadata.deadline(self.marker_delay);
        let result = change(metadata);
        self.bytes -= partitions * PARTITION;
        self.bytes += metadata.partitions().len() * PARTITION;
        let next = metadata.deadline(self.marker_delay);
        if deadline != next {
            if let Some(at) = deadline {
                self.deadlines.remove(&(at, Arc::clone(id)));
            }
            if let Some(at) = next {
                self.deadlines.insert((at, Arc::clone(id)));
            }
        }
        Some(result)
    }

    /// The next deadline of all.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Aborts what has lasted too long; returns the transactions whose markers are due.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<EndedTransaction> {
        let protocol = self.protocol;
        let mut ended = Vec::new();
        while let Some((_, id)) = self.deadlines.first().filter(|(at, _)| *at <= now) {
            let id = Arc::clone(id);
            let completed = self.change(&id, |metadata| match metadata.complete() {
                Some(ended) => Some(ended),
                None => {
                    metadata.expire(protocol, now);
                    None
                }
            });
            ended.extend(completed.flatten());
        }
        ended
    }

    /// Whether so many bytes may be added for `id`, at the cost of unused ones.
    fn make_room(&mut self, id: &str, bytes: usize) -> bool {
        while self.bytes + bytes > self.bytes_max {
            let others = self.by_id.iter().filter(|(other, _)| &***other != id);
            let unused = others.filter(|(_, metadata)| metadata.is_idle());
            let oldest = unused.min_by_key(|(_, metadata)| metadata.last_used);
            let Some(oldest) = oldest.map(|(id, _)| Arc::clone(id)) else {
                return false;
            };
            self.by_id.remove(&oldest);
            self.bytes -= oldest.len() + OVERHEAD;
        }
        true
    }
}

/// What an id costs beyond its text.
const OVERHEAD: usize = size_of::<TransactionMetadata>() + 64;
/// What a partition of a transaction costs.
const PARTITION: usize = 2 * size_of::<PartitionOfId>();

#[cfg(test)]
mod tests {
    use kafka_protocol::ResponseError::ConcurrentTransactions;
    use uuid::Uuid;

    use super::super::transaction::{TransactionPhase, TransactionResult};
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(15);

    fn coordinator(marker_delay: Duration, bytes_max: usize) -> (TransactionCoordinator, Instant) {
        let coordinator =
            TransactionCoordinator::new(EndProtocol::BumpsEpoch, marker_delay, bytes_max);
        (coordinator, Instant::now())
    }

    fn init(coordinator: &mut TransactionCoordinator, id: &str, now: Instant) -> ProducerEpoch {
        coordinator.init(id, None, TIMEOUT, now, || 7).unwrap()
    }

    fn partitions(count: i32) -> BTreeSet<PartitionOfId> {
        (0..count).map(|index| (Uuid::nil(), index)).collect()
    }

    #[test]
    fn markers_are_due_after_their_delay_and_the_next_transaction_waits_for_them() {
        let delay = Duration::from_millis(100);
        let (mut coordinator, now) = coordinator(delay, 1 << 20);
        let producer = init(&mut coordinator, "id", now);
        coordinator
            .add("id", producer, &partitions(2), now)
            .unwrap();
        let end = |metadata: &mut TransactionMetadata| {
            let bumps = EndProtocol::BumpsEpoch;
            metadata.end(producer, TransactionResult::Commit, bumps, now, || 8)
        };
        let next = coordinator.with("id", now, end).unwrap();
        assert_eq!(next.epoch, producer.epoch + 1);
        assert_eq!(coordinator.tick(now), []);
        assert_eq!(coordinator.next_deadline(), Some(now + delay));
        let early = coordinator.add("id", next, &partitions(1), now);
        assert_eq!(early, Err(ConcurrentTransactions));
        let ended = coordinator.tick(now + delay);
        assert_eq!(ended.len(), 1);
        assert_eq!((ended[0].producer, ended[0].partitions.len()), (next, 2));
        assert_eq!(coordinator.add("id", next, &partitions(1), now), Ok(()));
    }

    #[test]
    fn a_transaction_that_lasts_too_long_is_aborted_and_its_producer_fenced() {
        let (mut coordinator, now) = coordinator(Duration::ZERO, 1 << 20);
        let producer = init(&mut coordinator, "id", now);
        coordinator
            .add("id", producer, &partitions(1), now)
            .unwrap();
        let early = now + TIMEOUT - Duration::from_millis(1);
        assert_eq!(coordinator.tick(early), []);
        let ended = coordinator.tick(now + TIMEOUT);
        assert_eq!(ended[0].result, TransactionResult::Abort);
        assert_eq!(ended[0].producer.epoch, producer.epoch + 1);
        let late = coordinator.add("id", producer, &partitions(1), now + TIMEOUT);
        assert_eq!(late, Err(ResponseError::ProducerFenced));
        assert_eq!(coordinator.next_deadline(), None);
    }

    #[test]
    fn unused_ids_make_room_the_oldest_first_and_open_transactions_do_not() {
        let room = 3 * (OVERHEAD + 4) + PARTITION;
        let (mut coordinator, now) = coordinator(Duration::ZERO, room);
        for (age, id) in (0..).zip(["open", "old.", "new."]) {
            let then = now + Duration::from_secs(age);
            let producer = init(&mut coordinator, id, then);
            if id == "open" {
                coordinator.add(id, producer, &partitions(1), then).unwrap();
            }
        }
        init(&mut coordinator, "more", now + Duration::from_secs(9));
        let left = ["open", "old.", "new.", "more"].map(|id| coordinator.get(id).is_some());
        assert_eq!(left, [true, false, true, true]);
        let open = coordinator.get("open").unwrap();
        assert_eq!(open.phase(), TransactionPhase::Ongoing);
        let producer = open.producer();
        let many = coordinator.add("open", producer, &partitions(10_000), now);
        assert_eq!(many, Err(ConcurrentTransactions));
        coordinator.tick(now + TIMEOUT);
        let counted = coordinator.iter().map(|(id, _)| id.len() + OVERHEAD);
        assert_eq!(coordinator.bytes, counted.sum::<usize>());
    }
}
