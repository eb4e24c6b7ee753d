//! What one fetch brought of a partition, decoded once for all cursors that read there.
//!
//! # Invariants
//! - A chunk's bytes, and those of what is derived from it, count in the budget until its
//!   last holder lets go.
//! - A derived value is made once, however many ask for it at the same time.

use std::any::Any;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use runtime::mutex::lock;

use super::budget::BudgetPermit;
use super::tail_cache::OffsetRange;
use crate::TopicPartition;
use crate::record::{DecodedRecords, Records};

/// What a cursor returns: the records of one chunk from an offset on.
#[derive(Clone, Debug)]
pub struct PartitionRecords {
    /// Shared by all cursors that read the same offsets.
    pub chunk: Arc<Chunk>,
    /// Records before this offset were delivered earlier.
    pub from_offset: i64,
}

impl PartitionRecords {
    /// The records to deliver.
    #[inline]
    pub fn records(&self) -> Records<'_> {
        self.chunk.decoded.records_from(self.from_offset)
    }
}

/// A range of offsets of one partition, as one fetch read it. Offsets that compaction,
/// aborted transactions or control records leave out hold no record.
#[derive(Debug)]
pub struct Chunk {
    /// The partition.
    pub tp: TopicPartition,
    /// The fetch offset: the one that was asked for.
    pub(crate) first_offset: i64,
    /// The offset to fetch next.
    pub next_offset: i64,
    /// Leader epoch of the last batch; −1 when unknown.
    pub last_epoch: i32,
    /// The records.
    pub decoded: DecodedRecords,
    /// What the layers above derived from them.
    pub derived: DerivedCache,
    serving_epoch: i32,
}

impl Chunk {
    /// All records, whatever the offset of a cursor.
    #[inline]
    pub fn records(&self) -> Records<'_> {
        self.decoded.records()
    }

    /// The leader epoch to commit together with the offset `next`, which lies in this
    /// chunk or at its end: the epoch of the record before it.
    #[inline]
    pub fn leader_epoch_before(&self, next: i64) -> i32 {
        if next >= self.next_offset {
            return self.last_epoch;
        }
        let batches = &self.decoded.batches;
        let index = batches.partition_point(|batch| batch.last_offset() < next - 1);
        batches
            .get(index)
            .map_or(self.last_epoch, |batch| batch.leader_epoch())
    }

    /// `first_offset` is the fetch offset, `serving_epoch` the epoch of the leader that
    /// answered.
    pub(super) fn new(
        tp: TopicPartition,
        first_offset: i64,
        next_offset: i64,
        serving_epoch: i32,
        decoded: DecodedRecords,
        derived: DerivedCache,
    ) -> Self {
        Self {
            tp,
            first_offset,
            next_offset,
            last_epoch: decoded.leader_epoch,
            decoded,
            derived,
            serving_epoch,
        }
    }

    pub(super) fn permit(&self) -> &BudgetPermit {
        &self.derived.permit
    }
}

impl OffsetRange for Chunk {
    fn first_offset(&self) -> i64 {
        self.first_offset
    }

    fn next_offset(&self) -> i64 {
        self.next_offset
    }

    fn last_epoch(&self) -> i32 {
        self.last_epoch
    }

    fn serving_epoch(&self) -> i32 {
        self.serving_epoch
    }

    fn is_empty(&self) -> bool {
        self.decoded.is_empty()
    }
}

/// What the layers above make of a chunk, for instance its records encoded for delivery: made
/// once, however many readers want it, and counted in the budget with the chunk. There may be
/// several variants (one per encoding), numbered by the layer that makes them.
pub struct DerivedCache {
    permit: BudgetPermit,
    /// Bytes of the permit that are reserved for values yet to be derived.
    reserved: AtomicUsize,
    wire_bytes: usize,
    bytes: AtomicUsize,
    /// Most often all readers ask for one variant: its value is reached without a lock.
    first: OnceLock<(u64, DerivedValue)>,
    others: Mutex<Vec<(u64, Arc<OnceLock<DerivedValue>>)>>,
    estimator: Arc<ChunkSizeEstimator>,
}

type DerivedValue = Arc<dyn Any + Send + Sync>;

impl DerivedCache {
    /// `decoded_bytes` of the permit are the chunk's own; `wire_bytes` were fetched for it.
    pub(super) fn new(
        permit: BudgetPermit,
        decoded_bytes: usize,
        wire_bytes: usize,
        estimator: Arc<ChunkSizeEstimator>,
    ) -> Self {
        let reserved = estimator.derived_bytes(wire_bytes);
        permit.resize(decoded_bytes + CHUNK_OVERHEAD + reserved);
        Self {
            permit,
            reserved: AtomicUsize::new(reserved),
            wire_bytes,
            bytes: AtomicUsize::new(0),
            first: OnceLock::new(),
            others: Mutex::default(),
            estimator,
        }
    }

    /// That variant's value. If there is none yet, `make` makes it and says how many bytes it
    /// takes. A caller that asks while it is being made waits for it: `make` should
    /// compute, not block.
    ///
    /// A variant is of one type. Asked for as a second type, the value is made each time.
    pub fn get_or_insert_with<T, F>(&self, variant: u64, make: F) -> Arc<T>
    where
        T: Send + Sync + 'static,
        F: FnOnce() -> (Arc<T>, usize),
    {
        let mut make = Some(make);
        let mut made = || {
            let (value, bytes) = (make.take().expect("made once"))();
            self.charge(bytes);
            value
        };
        let (first, value) = self.first.get_or_init(|| (variant, made()));
        let value: DerivedValue = match *first == variant {
            true => Arc::clone(value),
            false => Arc::clone(self.other(variant).get_or_init(|| made())),
        };
        value.downcast::<T>().unwrap_or_else(|_| made())
    }

    fn other(&self, variant: u64) -> Arc<OnceLock<DerivedValue>> {
        let mut others = lock(&self.others);
        if let Some((_, other)) = others.iter().find(|(known, _)| *known == variant) {
            return Arc::clone(other);
        }
        let other = Arc::default();
        others.push((variant, Arc::clone(&other)));
        other
    }

    fn charge(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let taken = self
            .reserved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |reserved| {
                Some(reserved - reserved.min(bytes))
            })
            .map_or(0, |reserved| reserved.min(bytes));
        if bytes > taken {
            self.permit.grow(bytes - taken);
        }
    }
}

impl Drop for DerivedCache {
    fn drop(&mut self) {
        self.estimator
            .record_derived(self.wire_bytes, self.bytes.load(Ordering::Relaxed));
    }
}

impl std::fmt::Debug for DerivedCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DerivedCache")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// How many bytes a partition's chunks take per byte fetched, as seen with those before:
/// a fetch acquires room for what it will turn into.
#[derive(Debug)]
pub(super) struct ChunkSizeEstimator {
    /// Percent of the fetched bytes that the decompressed ones take.
    decoded_percent: AtomicU32,
    /// Percent of the fetched bytes that derived values take.
    derived_percent: AtomicU32,
}

impl Default for ChunkSizeEstimator {
    fn default() -> Self {
        Self {
            decoded_percent: AtomicU32::new(100),
            derived_percent: AtomicU32::new(100),
        }
    }
}

impl ChunkSizeEstimator {
    /// Bytes that a fetch of `wire_bytes` is expected to take in the end.
    pub(super) fn total_bytes(&self, wire_bytes: usize) -> usize {
        percent_of(wire_bytes, &self.decoded_percent)
            + percent_of(wire_bytes, &self.derived_percent)
            + CHUNK_OVERHEAD
    }

    /// How many of the `total` bytes acquired are for what is decompressed.
    pub(super) fn decoded_share(&self, total: usize) -> usize {
        let decoded = u64::from(self.decoded_percent.load(Ordering::Relaxed));
        let derived = u64::from(self.derived_percent.load(Ordering::Relaxed));
        let share = total.saturating_sub(CHUNK_OVERHEAD) as u64;
        (share * decoded / (decoded + derived).max(1)) as usize
    }

    fn derived_bytes(&self, wire_bytes: usize) -> usize {
        percent_of(wire_bytes, &self.derived_percent)
    }

    pub(super) fn record_decoded(&self, wire_bytes: usize, bytes: usize) {
        update_percent(&self.decoded_percent, wire_bytes, bytes);
    }

    fn record_derived(&self, wire_bytes: usize, bytes: usize) {
        update_percent(&self.derived_percent, wire_bytes, bytes);
    }
}

fn percent_of(wire_bytes: usize, percent: &AtomicU32) -> usize {
    wire_bytes.saturating_mul(percent.load(Ordering::Relaxed) as usize) / 100
}

/// Up at once, down slowly: too little room is worse than too much.
fn update_percent(estimate: &AtomicU32, wire_bytes: usize, bytes: usize) {
    // Small chunks are mostly headers: their ratio says little.
    if wire_bytes < 1024 {
        return;
    }
    let seen = u32::try_from(bytes.saturating_mul(100) / wire_bytes).unwrap_or(u32::MAX);
    let before = estimate.load(Ordering::Relaxed);
    let next = seen.max(((u64::from(before) * 7 + u64::from(seen)) / 8) as u32);
    estimate.store(next.min(100_000), Ordering::Relaxed);
}

/// Bytes of a chunk's own structure, roughly.
pub(super) const CHUNK_OVERHEAD: usize = 512;

#[cfg(test)]
mod tests {
    use super::super::budget::BudgetPool;
    use super::*;

    fn derived(pool: &Arc<BudgetPool>) -> DerivedCache {
        DerivedCache::new(pool.charge(0), 10_000, 10_000, Arc::default())
    }

    #[test]
    fn a_derived_value_is_made_once_for_all() {
        let pool = BudgetPool::new(1 << 20);
        let derived = derived(&pool);
        let count = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let value = derived.get_or_insert_with(7, || {
                        count.fetch_add(1, Ordering::Relaxed);
                        (Arc::new("text".to_owned()), 4)
                    });
                    assert_eq!(*value, "text");
                });
            }
        });
        assert_eq!(count.load(Ordering::Relaxed), 1);
        let other = derived.get_or_insert_with(8, || (Arc::new(8u64), 8));
        assert_eq!(*other, 8);
    }

    #[test]
    fn derived_values_count_until_the_chunk_is_dropped() {
        let pool = BudgetPool::new(1 << 20);
        let derived = derived(&pool);
        let before = pool.used();
        assert_eq!(before, 10_000 + 10_000 + CHUNK_OVERHEAD);
        derived.get_or_insert_with(1, || (Arc::new(()), 9_000));
        assert_eq!(pool.used(), before, "out of the reserved bytes");
        derived.get_or_insert_with(2, || (Arc::new(()), 5_000));
        assert_eq!(pool.used(), before + 4_000);
        drop(derived);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn the_estimate_follows_the_sizes_of_earlier_chunks() {
        let estimator = Arc::new(ChunkSizeEstimator::default());
        estimator.record_decoded(1000, 900);
        assert_eq!(
            estimator.total_bytes(10_000),
            20_000 + CHUNK_OVERHEAD,
            "too small to say"
        );
        estimator.record_decoded(10_000, 100_000);
        assert_eq!(estimator.total_bytes(10_000), 110_000 + CHUNK_OVERHEAD);
        for _ in 0..100 {
            estimator.record_decoded(10_000, 10_000);
            estimator.record_derived(10_000, 0);
        }
        assert!(estimator.total_bytes(10_000) < 11_000 + CHUNK_OVERHEAD);
    }
}
