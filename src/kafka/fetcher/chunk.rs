//! What one fetch brought of a partition, decoded once for all cursors that read there.
//!
//! # Invariants
//! - A chunk's bytes count in the budget until its last holder lets go, and those of what is
//!   derived from it ([`DerivedPermit`]) until that is dropped.
//! - Memory for what is derived is acquired before: what the read of the chunk has reserved
//!   for it, then what the budget has free. Only where nothing else derived from the chunk
//!   is in memory may it exceed both: a reader gets on whatever others hold.

use std::any::Any;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use runtime::mutex::lock;

use super::budget::BudgetPermit;
use super::tail_cache::OffsetRange;
use crate::TopicPartition;
use crate::record::{DecodedRecords, Records, RecordsMark};

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
    /// What the layers above keep of what they derived.
    derived: OnceLock<Arc<dyn Any + Send + Sync>>,
    memory: Arc<ChunkMemory>,
    serving_epoch: i32,
}

impl Chunk {
    /// The records at or after `from`.
    #[inline]
    pub fn records_from(&self, from: i64) -> Records<'_> {
        self.decoded.records_from(from)
    }

    /// The records from a place on that [`Records::mark`] has named.
    #[inline]
    pub fn records_at(&self, mark: RecordsMark) -> Records<'_> {
        self.decoded.records_at(mark)
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
        memory: Arc<ChunkMemory>,
    ) -> Self {
        Self {
            tp,
            first_offset,
            next_offset,
            last_epoch: decoded.leader_epoch,
            decoded,
            derived: OnceLock::new(),
            memory,
            serving_epoch,
        }
    }

    /// What the layer above keeps of what it derives from the chunk, for all who read it: a
    /// value of one type, made by the first who asks. What grows in it holds permits of
    /// [`try_acquire_derived`](Self::try_acquire_derived).
    ///
    /// # Panics
    /// When it is asked for as a second type.
    pub fn derived<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        let value = self.derived.get_or_init(|| Arc::new(T::default()));
        let value = Arc::clone(value).downcast::<T>();
        value.expect("a chunk keeps derived values of one type")
    }

    /// Acquires memory for what will be derived from the chunk. `None` while there is none:
    /// then something else derived from the chunk is in memory, and dropping that gives room.
    pub fn try_acquire_derived(&self, bytes: usize) -> Option<DerivedPermit> {
        let reserved = self.memory.try_acquire(bytes)?;
        Some(DerivedPermit {
            memory: Arc::clone(&self.memory),
            bytes,
            reserved,
        })
    }

    pub(super) fn permit(&self) -> &BudgetPermit {
        &self.memory.permit
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

/// What a chunk, and what is derived from it, takes of the budget.
#[derive(Debug)]
pub(super) struct ChunkMemory {
    permit: BudgetPermit,
    derived: Mutex<DerivedMemory>,
    wire_bytes: usize,
    estimator: Arc<ChunkSizeEstimator>,
}

/// How much of a chunk's permit is for what is derived from it.
#[derive(Debug)]
struct DerivedMemory {
    /// Reserved for what is yet to be derived.
    reserved: usize,
    /// Permits that are out, and their bytes.
    permits: usize,
    bytes: usize,
    /// The most that these ever were.
    bytes_max: usize,
}

/// Memory for something derived from a chunk; dropping it returns the bytes.
#[derive(Debug)]
pub struct DerivedPermit {
    memory: Arc<ChunkMemory>,
    bytes: usize,
    /// How many of them the chunk had reserved.
    reserved: usize,
}

impl ChunkMemory {
    /// `decoded_bytes` of the permit are the chunk's own; `wire_bytes` were fetched for it.
    pub(super) fn new(
        permit: BudgetPermit,
        decoded_bytes: usize,
        wire_bytes: usize,
        estimator: Arc<ChunkSizeEstimator>,
    ) -> Arc<Self> {
        let reserved = estimator.derived_bytes(wire_bytes);
        permit.resize(decoded_bytes + CHUNK_OVERHEAD + reserved);
        Arc::new(Self {
            permit,
            derived: Mutex::new(DerivedMemory {
                reserved,
                permits: 0,
                bytes: 0,
                bytes_max: 0,
            }),
            wire_bytes,
            estimator,
        })
    }

    /// How many of the bytes were reserved; the others are taken from the pool, without the
    /// lock: to make room, it may drop chunks of whatever partitions.
    fn try_acquire(&self, bytes: usize) -> Option<usize> {
        let (reserved, is_first) = {
            let mut derived = lock(&self.derived);
            derived.permits += 1;
            (derived.take_reserved(bytes), derived.permits == 1)
        };
        let missing = bytes - reserved;
        if missing > 0 && !self.permit.try_grow(missing) {
            // One thing can always be derived: to wait for room that only the readers of this
            // chunk could free would be to wait for ever.
            if !is_first {
                let mut derived = lock(&self.derived);
                derived.permits -= 1;
                derived.reserved += reserved;
                return None;
            }
            self.permit.charge(missing);
        }
        lock(&self.derived).add(bytes);
        Some(reserved)
    }
}

impl DerivedMemory {
    fn take_reserved(&mut self, bytes: usize) -> usize {
        let taken = self.reserved.min(bytes);
        self.reserved -= taken;
        taken
    }

    fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.bytes_max = self.bytes_max.max(self.bytes);
    }
}

impl DerivedPermit {
    /// How many bytes it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets it to what is really taken.
    pub fn resize(&mut self, bytes: usize) {
        match bytes.checked_sub(self.bytes) {
            Some(missing) => {
                let reserved = {
                    let mut derived = lock(&self.memory.derived);
                    derived.add(missing);
                    derived.take_reserved(missing)
                };
                self.reserved += reserved;
                self.memory.permit.charge(missing - reserved);
                self.bytes = bytes;
            }
            None => self.give_back(self.bytes - bytes),
        }
    }

    /// First what the pool gave, then what was reserved.
    fn give_back(&mut self, bytes: usize) {
        let returned = (self.bytes - self.reserved).min(bytes);
        let unused = bytes - returned;
        {
            let mut derived = lock(&self.memory.derived);
            derived.bytes -= bytes;
            derived.reserved += unused;
        }
        self.bytes -= bytes;
        self.reserved -= unused;
        self.memory.permit.shrink(returned);
    }
}

impl Drop for DerivedPermit {
    fn drop(&mut self) {
        self.give_back(self.bytes);
        lock(&self.memory.derived).permits -= 1;
    }
}

impl Drop for ChunkMemory {
    fn drop(&mut self) {
        let most = lock(&self.derived).bytes_max;
        self.estimator.record_derived(self.wire_bytes, most);
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
    use bytes::Bytes;

    use super::super::budget::BudgetPool;
    use super::*;
    use crate::record::{DecodeOptions, decode};

    fn chunk(pool: &Arc<BudgetPool>) -> Chunk {
        let memory = ChunkMemory::new(pool.charge(0), 10_000, 10_000, Arc::default());
        let decoded = decode(Bytes::new(), &DecodeOptions::from_offset(0)).unwrap();
        Chunk::new(TopicPartition::new("t", 0), 0, 1, 0, decoded, memory)
    }

    #[test]
    fn what_is_kept_of_what_was_derived_is_one_value_for_all() {
        let chunk = chunk(&BudgetPool::new(1 << 20));
        let first = chunk.derived::<Mutex<u64>>();
        *lock(&first) = 7;
        assert_eq!(*lock(&chunk.derived::<Mutex<u64>>()), 7);
    }

    #[test]
    fn what_is_derived_counts_while_it_is_held_and_comes_out_of_what_was_reserved_first() {
        let pool = BudgetPool::new(1 << 20);
        let chunk = chunk(&pool);
        let before = pool.used();
        assert_eq!(before, 10_000 + 10_000 + CHUNK_OVERHEAD);
        let first = chunk.try_acquire_derived(9_000).unwrap();
        assert_eq!(pool.used(), before, "out of the reserved bytes");
        let second = chunk.try_acquire_derived(5_000).unwrap();
        assert_eq!(pool.used(), before + 4_000);
        drop(first);
        assert_eq!(pool.used(), before + 4_000, "reserved again");
        drop(second);
        assert_eq!(pool.used(), before);
        drop(chunk);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn a_full_pool_lets_one_thing_be_derived_from_a_chunk_and_no_second() {
        let pool = BudgetPool::new(21_000);
        let chunk = chunk(&pool);
        let mut held = chunk.try_acquire_derived(50_000).unwrap();
        let used = pool.used();
        assert_eq!(used, 10_000 + 50_000 + CHUNK_OVERHEAD);
        assert!(chunk.try_acquire_derived(1).is_none());
        assert_eq!(pool.used(), used, "nothing is taken in vain");
        held.resize(8_000);
        assert_eq!(pool.used(), 20_000 + CHUNK_OVERHEAD);
        let small = chunk.try_acquire_derived(2_000).unwrap();
        held.resize(9_000);
        assert_eq!(pool.used(), 21_000 + CHUNK_OVERHEAD);
        drop((held, small));
        assert_eq!(pool.used(), 20_000 + CHUNK_OVERHEAD);
        assert!(chunk.try_acquire_derived(50_000).is_some());
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
