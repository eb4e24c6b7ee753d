use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::central::*;
use super::size_class::*;
use super::*;

/// Bytes that came from `System` for size classes and have not been freed to it.
pub(super) static SYSTEM_BYTES: AtomicIsize = AtomicIsize::new(0);

/// The tests look at what all threads share: one at a time.
static SERIAL: Mutex<()> = Mutex::new(());

/// The most that a thread caches.
fn thread_cache_bytes_max() -> usize {
    (0..SIZE_CLASSES).map(|class| 2 * batch_bytes(class)).sum()
}

/// The most that can be cached, with some for what else is going on in the process.
fn cached_bytes_max() -> isize {
    (CENTRAL_BYTES_MAX + 8 * thread_cache_bytes_max()) as isize
}

/// How often something is done; Miri is too slow for as often as usual.
fn times(usual: usize, under_miri: usize) -> usize {
    if cfg!(miri) { under_miri } else { usual }
}

/// A block with a pattern that is checked when it is dropped.
struct PatternedBlock {
    block: NonNull<u8>,
    layout: Layout,
    seed: u8,
}

// SAFETY: the block is its own.
unsafe impl Send for PatternedBlock {}

impl PatternedBlock {
    fn new(size: usize, align: usize, seed: u8) -> PatternedBlock {
        let layout = Layout::from_size_align(size, align).unwrap();
        // SAFETY: this allocator takes size 0, too.
        let block = NonNull::new(unsafe { ThreadCachingAllocator.alloc(layout) }).unwrap();
        assert_eq!(block.as_ptr() as usize % align.max(16), 0);
        let mut filled = PatternedBlock {
            block,
            layout,
            seed,
        };
        filled.fill(0);
        filled
    }

    /// What the block should hold, differently for each seed.
    fn pattern(&self, from: usize, until: usize) -> &'static [u8] {
        static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
        let pattern = PATTERN.get_or_init(|| {
            let mut pattern: Vec<u8> = (0..=u8::MAX).collect();
            while pattern.len() < 2 << 20 {
                pattern.extend_from_within(..);
            }
            pattern
        });
        &pattern[usize::from(self.seed)..][from..until]
    }

    fn fill(&mut self, from: usize) {
        let pattern = self.pattern(from, self.layout.size());
        // SAFETY: within the block.
        unsafe {
            let rest = self.block.as_ptr().add(from);
            ptr::copy_nonoverlapping(pattern.as_ptr(), rest, pattern.len());
        }
    }

    fn check(&self, until: usize) {
        // SAFETY: within the block, and written by `fill`.
        let found = unsafe { std::slice::from_raw_parts(self.block.as_ptr(), until) };
        assert!(
            found == self.pattern(0, until),
            "overwritten: {until} bytes"
        );
    }

    fn resize(&mut self, size: usize) {
        let kept = self.layout.size().min(size);
        // SAFETY: ours, with its layout.
        let moved =
            unsafe { ThreadCachingAllocator.realloc(self.block.as_ptr(), self.layout, size) };
        self.block = NonNull::new(moved).unwrap();
        self.layout = Layout::from_size_align(size, self.layout.align()).unwrap();
        assert_eq!(moved as usize % self.layout.align().max(16), 0);
        self.check(kept);
        self.fill(kept);
    }
}

impl Drop for PatternedBlock {
    fn drop(&mut self) {
        self.check(self.layout.size());
        // SAFETY: ours, with its layout.
        unsafe { ThreadCachingAllocator.dealloc(self.block.as_ptr(), self.layout) };
    }
}

fn serial() -> impl Drop {
    SERIAL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes in this thread's free lists, each shown to be as long as it should.
fn cached_bytes() -> usize {
    let length = |mut block: *mut FreeBlock| {
        let mut count = 0;
        while !block.is_null() {
            count += 1;
            // SAFETY: this thread's list.
            block = unsafe { (*block).next };
        }
        count
    };
    THREAD_CACHE.with(|cache| {
        let classes = cache.free_lists.iter().enumerate().map(|(class, lists)| {
            let (current, spare) = (length(lists.current.get()), length(lists.spare.get()));
            let batch = batch_len(class);
            assert!(spare == 0 || spare == batch, "{class}: {spare}");
            assert!(current + lists.room.get() == batch || current + lists.room.get() == 0);
            (current + spare) * block_size(class)
        });
        classes.sum()
    })
}

fn central_bytes(class: usize) -> usize {
    CENTRAL_FREE_LISTS[class].0.lock().unwrap().batches * batch_bytes(class)
}

/// Small numbers that look random and are the same every time.
fn numbers(mut seed: u64) -> impl FnMut(usize) -> usize {
    move |below| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    }
}

#[test]
fn a_size_class_wastes_at_most_a_quarter() {
    for size in 1..=LARGEST {
        let class = size_class_of_size(size);
        let given = block_size(class);
        assert!(given >= size, "{size} in {given}");
        assert!(
            given - size < 16 || (given - size) * 4 <= given,
            "{size} in {given}"
        );
        assert!(
            class == 0 || block_size(class - 1) < size,
            "{size} in {given}"
        );
    }
    assert_eq!(size_class_of_size(0), 0);
    assert_eq!(block_size(SIZE_CLASSES - 1), LARGEST);
}

#[test]
fn blocks_are_aligned_and_apart() {
    let _serial = serial();
    let sizes = (0..SIZE_CLASSES).flat_map(|class| {
        let size = block_size(class);
        [size - 1, size, size + 1]
    });
    let mut blocks = Vec::new();
    for size in sizes.chain([0, LARGEST * 3, 1 << 20]) {
        for align in [1, 8, 16, 32, 4096] {
            blocks.push(PatternedBlock::new(size, align, blocks.len() as u8));
        }
    }
    drop(blocks);
    assert!(cached_bytes() <= thread_cache_bytes_max());
}

#[test]
fn contents_survive_growing_and_shrinking() {
    let _serial = serial();
    let mut next = numbers(1);
    for align in [1, 16, 64] {
        let mut block = PatternedBlock::new(0, align, 7);
        for class in 0..SIZE_CLASSES {
            block.resize(block_size(class));
            block.resize(block_size(class) + 1);
        }
        block.resize(LARGEST * 4);
        block.resize(LARGEST * 20);
        for _ in 0..times(500, 20) {
            block.resize(next(LARGEST * 2));
        }
        block.resize(1);
    }
}

#[test]
fn zeroed_blocks_are_zero_though_used_before() {
    let _serial = serial();
    for size in [1, 16, 100, 5000, LARGEST, LARGEST + 1] {
        drop(PatternedBlock::new(size, 1, 200));
        let layout = Layout::from_size_align(size, 1).unwrap();
        // SAFETY: allocated, read within its size, and freed with the same layout.
        unsafe {
            let block = ThreadCachingAllocator.alloc_zeroed(layout);
            let found = std::slice::from_raw_parts(block, size);
            assert!(found == vec![0; size]);
            ThreadCachingAllocator.dealloc(block, layout);
        }
    }
}

#[test]
fn a_freed_block_is_the_next_one_given() {
    let _serial = serial();
    let first = PatternedBlock::new(1000, 8, 1).block;
    assert_eq!(PatternedBlock::new(900, 8, 2).block, first);
}

/// Frees as much of a size class at once as its central free list takes, and twice more.
fn flood(class: usize) {
    let size = block_size(class);
    let count = 3 * CENTRAL_CLASS_BYTES_MAX / size;
    let blocks = (0..count).map(|i| PatternedBlock::new(size, 1, i as u8));
    drop(blocks.collect::<Vec<_>>());
}

#[test]
fn what_is_cached_is_bounded() {
    let _serial = serial();
    for class in 0..SIZE_CLASSES {
        flood(class);
        let central = central_bytes(class);
        assert!(central > 0 && central <= CENTRAL_CLASS_BYTES_MAX, "{class}");
        assert!(CENTRAL_BYTES.load(Relaxed) <= CENTRAL_BYTES_MAX);
    }
    let central: usize = (0..SIZE_CLASSES).map(central_bytes).sum();
    assert!(central <= CENTRAL_BYTES_MAX);
    let (cached, max) = (cached_bytes(), thread_cache_bytes_max());
    assert!(cached <= max);
    assert!(cached > max / 3, "hardly anything: {cached}");
}

#[test]
fn full_central_free_lists_make_way_for_the_class_in_use() {
    let _serial = serial();
    let (in_use, others) = (12, 16..SIZE_CLASSES);
    for class in others {
        flood(class);
    }
    flood(in_use);
    assert!(central_bytes(in_use) > CENTRAL_CLASS_BYTES_MAX / 2);
}

#[test]
fn an_ended_thread_caches_nothing() {
    let _serial = serial();
    let before = SYSTEM_BYTES.load(Relaxed);
    for _ in 0..times(200, 3) {
        let thread = thread::spawn(|| {
            for class in 0..SIZE_CLASSES {
                let count = (batch_len(class) * 3).div_ceil(2);
                let blocks: Vec<_> = (0..count)
                    .map(|i| PatternedBlock::new(block_size(class), 1, i as u8))
                    .collect();
                drop(blocks);
            }
            cached_bytes()
        });
        assert!(thread.join().unwrap() > 0);
    }
    let kept = SYSTEM_BYTES.load(Relaxed) - before;
    assert!(kept <= cached_bytes_max(), "{kept}");
}

#[test]
fn an_ending_thread_may_still_allocate_and_free() {
    struct FreesAtThreadExit(Cell<Option<PatternedBlock>>);
    impl Drop for FreesAtThreadExit {
        fn drop(&mut self) {
            THREAD_CACHE.with(ThreadCache::close);
            self.0.take();
            drop(PatternedBlock::new(100, 1, 2));
            assert_eq!(cached_bytes(), 0);
        }
    }
    thread_local!(static LATE: FreesAtThreadExit = const { FreesAtThreadExit(Cell::new(None)) });

    let _serial = serial();
    let thread = thread::spawn(|| {
        drop(PatternedBlock::new(100, 1, 0));
        LATE.with(|late| late.0.set(Some(PatternedBlock::new(100, 1, 1))));
    });
    thread.join().unwrap();
}

#[test]
fn blocks_freed_by_another_thread_return_to_the_one_that_allocates() {
    let _serial = serial();
    let before = SYSTEM_BYTES.load(Relaxed);
    let (to, from) = sync_channel::<Vec<PatternedBlock>>(4);
    let consumer = thread::spawn(move || from.into_iter().map(|batch| batch.len()).sum());
    let rounds = times(2000, 30);
    for round in 0..rounds {
        let batch = (0..64).map(|i| PatternedBlock::new(1024, 8, (round + i) as u8));
        to.send(batch.collect()).unwrap();
    }
    drop(to);
    let passed: usize = consumer.join().unwrap();
    assert_eq!(passed, rounds * 64);
    let grown = SYSTEM_BYTES.load(Relaxed) - before;
    assert!(grown <= cached_bytes_max(), "{grown}");
}

#[test]
fn threads_that_exchange_blocks_find_them_as_they_left_them() {
    let _serial = serial();
    let before = SYSTEM_BYTES.load(Relaxed);
    let slots: Vec<Mutex<Option<PatternedBlock>>> = (0..64).map(|_| Mutex::new(None)).collect();
    thread::scope(|scope| {
        for thread in 0..4 {
            let slots = &slots;
            scope.spawn(move || {
                let mut next = numbers(thread);
                for round in 0..times(20_000, 100) {
                    let size = match next(100) {
                        0 => next(LARGEST * 2),
                        1..10 => next(5000),
                        _ => next(300),
                    };
                    let mut block = Some(PatternedBlock::new(size, 1 << next(6), round as u8));
                    // Swapped under the lock, used and freed without it.
                    std::mem::swap(&mut *slots[next(64)].lock().unwrap(), &mut block);
                    if let (Some(block), 0) = (&mut block, next(4)) {
                        block.resize(next(2000));
                    }
                }
                assert!(cached_bytes() <= thread_cache_bytes_max());
            });
        }
    });
    drop(slots);
    let kept = SYSTEM_BYTES.load(Relaxed) - before;
    assert!(kept <= cached_bytes_max(), "{kept}");
}
