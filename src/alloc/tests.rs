use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::class::*;
use super::depot::*;
use super::*;

/// Bytes that came from `System` for classes and have not gone back.
pub(super) static OUT: AtomicIsize = AtomicIsize::new(0);

/// The tests look at what all threads share: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// The most that can be kept, with some for what else is going on in the process.
const SLACK: isize = (DEPOT_BYTES + 8 * THREAD_BYTES) as isize;

/// A block with a pattern that is checked when it is dropped.
struct Filled {
    block: NonNull<u8>,
    layout: Layout,
    seed: u8,
}

// SAFETY: the block is its own.
unsafe impl Send for Filled {}

impl Filled {
    fn new(size: usize, align: usize, seed: u8) -> Filled {
        let layout = Layout::from_size_align(size, align).unwrap();
        // SAFETY: this allocator takes size 0, too.
        let block = NonNull::new(unsafe { ThreadCached.alloc(layout) }).unwrap();
        assert_eq!(block.as_ptr() as usize % align.max(16), 0);
        let mut filled = Filled {
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
        let pattern = PATTERN.get_or_init(|| (0..=u8::MAX).cycle().take(2 << 20).collect());
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
        let moved = unsafe { ThreadCached.realloc(self.block.as_ptr(), self.layout, size) };
        self.block = NonNull::new(moved).unwrap();
        self.layout = Layout::from_size_align(size, self.layout.align()).unwrap();
        assert_eq!(moved as usize % self.layout.align().max(16), 0);
        self.check(kept);
        self.fill(kept);
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        self.check(self.layout.size());
        // SAFETY: ours, with its layout.
        unsafe { ThreadCached.dealloc(self.block.as_ptr(), self.layout) };
    }
}

fn alone() -> impl Drop {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes in this thread's lists, each shown to be as long as it should.
fn cached() -> usize {
    let length = |mut block: *mut Block| {
        let mut count = 0;
        while !block.is_null() {
            count += 1;
            // SAFETY: this thread's list.
            block = unsafe { (*block).next };
        }
        count
    };
    CACHE.with(|cache| {
        let bins = cache.bins.iter().enumerate().map(|(class, bin)| {
            let (current, spare) = (length(bin.current.get()), length(bin.spare.get()));
            let batch = batch_of(class);
            assert!(spare == 0 || spare == batch, "{class}: {spare}");
            assert!(current + bin.room.get() == batch || current + bin.room.get() == 0);
            (current + spare) * size_of_class(class)
        });
        bins.sum()
    })
}

fn in_depot(class: usize) -> usize {
    DEPOT[class].0.lock().unwrap().height * batch_bytes(class)
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
fn a_class_wastes_at_most_a_quarter() {
    for size in 1..=LARGEST {
        let class = class_of_size(size);
        let given = size_of_class(class);
        assert!(given >= size, "{size} in {given}");
        assert!(
            given - size < 16 || (given - size) * 4 <= given,
            "{size} in {given}"
        );
        assert!(
            class == 0 || size_of_class(class - 1) < size,
            "{size} in {given}"
        );
    }
    assert_eq!(class_of_size(0), 0);
    assert_eq!(size_of_class(CLASSES - 1), LARGEST);
}

#[test]
fn blocks_are_aligned_and_apart() {
    let _alone = alone();
    let sizes = (0..CLASSES).flat_map(|class| {
        let size = size_of_class(class);
        [size - 1, size, size + 1]
    });
    let mut blocks = Vec::new();
    for size in sizes.chain([0, LARGEST * 3, 1 << 20]) {
        for align in [1, 8, 16, 32, 4096] {
            blocks.push(Filled::new(size, align, blocks.len() as u8));
        }
    }
    drop(blocks);
    assert!(cached() <= THREAD_BYTES);
}

#[test]
fn contents_survive_growing_and_shrinking() {
    let _alone = alone();
    let mut next = numbers(1);
    for align in [1, 16, 64] {
        let mut block = Filled::new(0, align, 7);
        for class in 0..CLASSES {
            block.resize(size_of_class(class));
            block.resize(size_of_class(class) + 1);
        }
        block.resize(LARGEST * 4);
        block.resize(LARGEST * 20);
        for _ in 0..if cfg!(miri) { 20 } else { 500 } {
            block.resize(next(LARGEST * 2));
        }
        block.resize(1);
    }
}

#[test]
fn zeroed_blocks_are_zero_though_used_before() {
    let _alone = alone();
    for size in [1, 16, 100, 5000, LARGEST, LARGEST + 1] {
        drop(Filled::new(size, 1, 200));
        let layout = Layout::from_size_align(size, 1).unwrap();
        // SAFETY: allocated, read within its size, and freed with the same layout.
        unsafe {
            let block = ThreadCached.alloc_zeroed(layout);
            assert!(
                std::slice::from_raw_parts(block, size)
                    .iter()
                    .all(|&b| b == 0)
            );
            ThreadCached.dealloc(block, layout);
        }
    }
}

#[test]
fn a_freed_block_is_the_next_one_given() {
    let _alone = alone();
    let first = Filled::new(1000, 8, 1).block;
    assert_eq!(Filled::new(900, 8, 2).block, first);
}

/// Frees as much of a class at once as the depot takes of it, and twice more.
fn flood(class: usize) {
    let bytes = if cfg!(miri) {
        1 << 16
    } else {
        DEPOT_CLASS_BYTES
    };
    let size = size_of_class(class);
    let blocks = (0..3 * bytes / size).map(|i| Filled::new(size, 1, i as u8));
    drop(blocks.collect::<Vec<_>>());
}

#[test]
fn what_is_kept_is_bounded() {
    let _alone = alone();
    for class in 0..CLASSES {
        flood(class);
        assert!(in_depot(class) <= DEPOT_CLASS_BYTES, "{class}");
        assert!(HELD.load(Relaxed) <= DEPOT_BYTES);
    }
    let in_depot: usize = (0..CLASSES).map(in_depot).sum();
    assert!(in_depot <= DEPOT_BYTES);
    let cached = cached();
    assert!(cached <= THREAD_BYTES);
    assert!(
        cached > THREAD_BYTES / 3 || cfg!(miri),
        "hardly anything: {cached}"
    );
}

#[test]
fn a_full_depot_makes_way_for_the_class_in_use() {
    let _alone = alone();
    let (in_use, others) = (12, 16..CLASSES);
    for class in others.filter(|_| !cfg!(miri)) {
        flood(class);
    }
    flood(in_use);
    assert!(in_depot(in_use) > DEPOT_CLASS_BYTES / 2 || cfg!(miri));
}

#[test]
fn an_ended_thread_keeps_nothing() {
    let _alone = alone();
    let before = OUT.load(Relaxed);
    for _ in 0..if cfg!(miri) { 3 } else { 200 } {
        let thread = thread::spawn(|| {
            for class in 0..CLASSES {
                let count = if cfg!(miri) {
                    2
                } else {
                    batch_of(class) * 3 / 2
                };
                let blocks: Vec<_> = (0..count)
                    .map(|i| Filled::new(size_of_class(class), 1, i as u8))
                    .collect();
                drop(blocks);
            }
            cached()
        });
        assert!(thread.join().unwrap() > 0);
    }
    let kept = OUT.load(Relaxed) - before;
    assert!(kept <= SLACK, "{kept}");
}

#[test]
fn an_ending_thread_may_still_allocate_and_free() {
    struct AtTheEnd(Cell<Option<Filled>>);
    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            CACHE.with(Cache::close);
            self.0.take();
            drop(Filled::new(100, 1, 2));
            assert_eq!(cached(), 0);
        }
    }
    thread_local!(static LATE: AtTheEnd = const { AtTheEnd(Cell::new(None)) });

    let _alone = alone();
    let thread = thread::spawn(|| {
        drop(Filled::new(100, 1, 0));
        LATE.with(|late| late.0.set(Some(Filled::new(100, 1, 1))));
    });
    thread.join().unwrap();
}

#[test]
fn blocks_freed_by_another_thread_return_to_the_one_that_allocates() {
    let _alone = alone();
    let before = OUT.load(Relaxed);
    let (to, from) = sync_channel::<Vec<Filled>>(4);
    let consumer = thread::spawn(move || from.into_iter().map(|batch| batch.len()).sum());
    let rounds = if cfg!(miri) { 30 } else { 2000 };
    for round in 0..rounds {
        let batch = (0..64).map(|i| Filled::new(1024, 8, (round + i) as u8));
        to.send(batch.collect()).unwrap();
    }
    drop(to);
    let passed: usize = consumer.join().unwrap();
    assert_eq!(passed, rounds * 64);
    let grown = OUT.load(Relaxed) - before;
    assert!(grown <= SLACK, "{grown}");
}

#[test]
fn threads_that_exchange_blocks_find_them_as_they_left_them() {
    let _alone = alone();
    let before = OUT.load(Relaxed);
    let shelf: Vec<Mutex<Option<Filled>>> = (0..64).map(|_| Mutex::new(None)).collect();
    thread::scope(|scope| {
        for thread in 0..4 {
            let shelf = &shelf;
            scope.spawn(move || {
                let mut next = numbers(thread);
                for round in 0..if cfg!(miri) { 100 } else { 20_000 } {
                    let size = match next(100) {
                        0 => next(LARGEST * 2),
                        1..10 => next(5000),
                        _ => next(300),
                    };
                    let mut block = Some(Filled::new(size, 1 << next(6), round as u8));
                    // Swapped under the lock, used and freed without it.
                    std::mem::swap(&mut *shelf[next(64)].lock().unwrap(), &mut block);
                    if let (Some(block), 0) = (&mut block, next(4)) {
                        block.resize(next(2000));
                    }
                }
                assert!(cached() <= THREAD_BYTES);
            });
        }
    });
    drop(shelf);
    let kept = OUT.load(Relaxed) - before;
    assert!(kept <= SLACK, "{kept}");
}
