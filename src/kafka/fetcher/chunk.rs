//! What was read of a partition at once, decoded once for all who read there.
//!
//! # Invariants
//! - A chunk's bytes, and those of what is attached to it, count in the budget until its
//!   last holder lets go.
//! - What is attached is made once, however many ask for it at the same time.

use std::any::Any;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::budget::Permit;
use super::ring::Extent;
use crate::TopicPartition;
use crate::lock::lock;
use crate::record::{Decoded, Records};

/// What one cursor is given: the records of `chunk` from offset `from` on.
#[derive(Clone, Debug)]
pub struct Slice {
    /// Shared with everybody who reads the same offsets.
    pub chunk: Arc<Chunk>,
    /// Records before this offset were delivered before.
    pub from: i64,
}

impl Slice {
    /// The records to deliver.
    pub fn records(&self) -> Records<'_> {
        self.chunk.decoded.records_from(self.from)
    }
}

/// A run of offsets of one partition. What compaction, transactions or control records
/// leave out of it is not there.
#[derive(Debug)]
pub struct Chunk {
    /// The partition.
    pub tp: TopicPartition,
    /// The offset that was asked for.
    pub first: i64,
    /// Where reading goes on.
    pub next: i64,
    /// Leader epoch of the last batch; −1 when unknown.
    pub leader_epoch: i32,
    /// The records.
    pub decoded: Decoded,
    /// What the layers above derived from them.
    pub attached: Attached,
    read_under: i32,
}

impl Chunk {
    /// All records, whoever reads.
    pub fn records(&self) -> Records<'_> {
        self.decoded.records()
    }

    /// The leader epoch to commit together with the position `next`, which lies in this
    /// chunk or at its end: that of the record before it.
    pub fn epoch_before(&self, next: i64) -> i32 {
        if next >= self.next {
            return self.leader_epoch;
        }
        let batches = &self.decoded.batches;
        let index = batches.partition_point(|batch| batch.last_offset() < next - 1);
        batches
            .get(index)
            .map_or(self.leader_epoch, |batch| batch.leader_epoch())
    }

    /// `first` is what was asked, `read_under` the epoch of the leader that answered.
    pub(super) fn new(
        tp: TopicPartition,
        first: i64,
        next: i64,
        read_under: i32,
        decoded: Decoded,
        attached: Attached,
    ) -> Self {
        Self {
            tp,
            first,
            next,
            leader_epoch: decoded.leader_epoch,
            decoded,
            attached,
            read_under,
        }
    }

    pub(super) fn permit(&self) -> &Permit {
        &self.attached.permit
    }
}

impl Extent for Chunk {
    fn first(&self) -> i64 {
        self.first
    }

    fn next(&self) -> i64 {
        self.next
    }

    fn epoch(&self) -> i32 {
        self.leader_epoch
    }

    fn read_under(&self) -> i32 {
        self.read_under
    }

    fn is_empty(&self) -> bool {
        self.decoded.is_empty()
    }
}

/// What was derived from a chunk once for all who read it, by a key of the deriver's
/// choice.
pub struct Attached {
    permit: Permit,
    /// Bytes of the permit that are set aside for what is yet to be attached.
    reserve: AtomicUsize,
    wire: usize,
    bytes: AtomicUsize,
    /// Mostly all readers want the same: that is reached without a lock.
    first: OnceLock<(u64, Anything)>,
    others: Mutex<Vec<(u64, Arc<OnceLock<Anything>>)>>,
    growth: Arc<Growth>,
}

type Anything = Arc<dyn Any + Send + Sync>;

impl Attached {
    /// `held` bytes of the permit are the chunk's own; `wire` is what was fetched for it.
    pub(super) fn new(permit: Permit, held: usize, wire: usize, growth: Arc<Growth>) -> Self {
        let reserve = growth.attached(wire);
        permit.resize(held + CHUNK_ITSELF + reserve);
        Self {
            permit,
            reserve: AtomicUsize::new(reserve),
            wire,
            bytes: AtomicUsize::new(0),
            first: OnceLock::new(),
            others: Mutex::default(),
            growth,
        }
    }

    /// What is attached under `key`; `make` makes it, and says how many bytes it takes,
    /// if nobody has before. Who asks while it is being made waits for it: `make` should
    /// compute, not block.
    ///
    /// One key stands for one type. Under a second type the value is made anew each time.
    pub fn get_or_insert_with<T, F>(&self, key: u64, make: F) -> Arc<T>
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
        let (first, value) = self.first.get_or_init(|| (key, made()));
        let value: Anything = match *first == key {
            true => Arc::clone(value),
            false => Arc::clone(self.other(key).get_or_init(|| made())),
        };
        value.downcast::<T>().unwrap_or_else(|_| made())
    }

    fn other(&self, key: u64) -> Arc<OnceLock<Anything>> {
        let mut others = lock(&self.others);
        if let Some((_, other)) = others.iter().find(|(known, _)| *known == key) {
            return Arc::clone(other);
        }
        let other = Arc::default();
        others.push((key, Arc::clone(&other)));
        other
    }

    fn charge(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let taken = self
            .reserve
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |reserve| {
                Some(reserve - reserve.min(bytes))
            })
            .map_or(0, |reserve| reserve.min(bytes));
        if bytes > taken {
            self.permit.grow(bytes - taken);
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.growth
            .learn_attached(self.wire, self.bytes.load(Ordering::Relaxed));
    }
}

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attached")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// How much larger than what was fetched a partition's chunks become, as learned from
/// those before: room is acquired for what a read will turn into.
#[derive(Debug)]
pub(super) struct Growth {
    /// Percent of the fetched bytes that the decompressed ones take.
    unpacked: AtomicU32,
    /// Percent that what is attached takes.
    attached: AtomicU32,
}

impl Default for Growth {
    fn default() -> Self {
        Self {
            unpacked: AtomicU32::new(100),
            attached: AtomicU32::new(100),
        }
    }
}

impl Growth {
    /// Bytes that a read of `wire` bytes is expected to take in the end.
    pub(super) fn cost(&self, wire: usize) -> usize {
        percent(wire, &self.unpacked) + percent(wire, &self.attached) + CHUNK_ITSELF
    }

    fn attached(&self, wire: usize) -> usize {
        percent(wire, &self.attached)
    }

    pub(super) fn learn_unpacked(&self, wire: usize, bytes: usize) {
        learn(&self.unpacked, wire, bytes);
    }

    fn learn_attached(&self, wire: usize, bytes: usize) {
        learn(&self.attached, wire, bytes);
    }
}

fn percent(wire: usize, of: &AtomicU32) -> usize {
    wire.saturating_mul(of.load(Ordering::Relaxed) as usize) / 100
}

/// Up at once, down slowly: too little room is worse than too much.
fn learn(known: &AtomicU32, wire: usize, bytes: usize) {
    // Small chunks are mostly headers; they say little.
    if wire < 1024 {
        return;
    }
    let seen = u32::try_from(bytes.saturating_mul(100) / wire).unwrap_or(u32::MAX);
    let before = known.load(Ordering::Relaxed);
    let next = seen.max(((u64::from(before) * 7 + u64::from(seen)) / 8) as u32);
    known.store(next.min(100_000), Ordering::Relaxed);
}

/// Bytes of a chunk's own structure, roughly.
pub(super) const CHUNK_ITSELF: usize = 512;

#[cfg(test)]
mod tests {
    use super::super::budget::Pool;
    use super::*;

    fn attached(pool: &Arc<Pool>) -> Attached {
        Attached::new(pool.charge(0), 10_000, 10_000, Arc::default())
    }

    #[test]
    fn what_is_attached_is_made_once_for_all() {
        let pool = Pool::new(1 << 20);
        let attached = attached(&pool);
        let count = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let value = attached.get_or_insert_with(7, || {
                        count.fetch_add(1, Ordering::Relaxed);
                        (Arc::new("text".to_owned()), 4)
                    });
                    assert_eq!(*value, "text");
                });
            }
        });
        assert_eq!(count.load(Ordering::Relaxed), 1);
        let other = attached.get_or_insert_with(8, || (Arc::new(8u64), 8));
        assert_eq!(*other, 8);
    }

    #[test]
    fn what_is_attached_counts_until_the_chunk_goes() {
        let pool = Pool::new(1 << 20);
        let attached = attached(&pool);
        let before = pool.used();
        assert_eq!(before, 10_000 + 10_000 + CHUNK_ITSELF);
        attached.get_or_insert_with(1, || (Arc::new(()), 9_000));
        assert_eq!(pool.used(), before, "out of what was set aside");
        attached.get_or_insert_with(2, || (Arc::new(()), 5_000));
        assert_eq!(pool.used(), before + 4_000);
        drop(attached);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn a_partition_learns_what_its_chunks_turn_into() {
        let growth = Arc::new(Growth::default());
        growth.learn_unpacked(1000, 900);
        assert_eq!(
            growth.cost(10_000),
            20_000 + CHUNK_ITSELF,
            "too small to say"
        );
        growth.learn_unpacked(10_000, 100_000);
        assert_eq!(growth.cost(10_000), 110_000 + CHUNK_ITSELF);
        for _ in 0..100 {
            growth.learn_unpacked(10_000, 10_000);
            growth.learn_attached(10_000, 0);
        }
        assert!(growth.cost(10_000) < 11_000 + CHUNK_ITSELF);
    }
}
