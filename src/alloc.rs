//! The allocator of the static binary: a cache per thread in front of musl's `malloc`.
//!
//! musl keeps one lock around all of its heap, which is slow with one thread and slower with
//! each more. So small blocks are kept where they were freed and used again from there, and
//! batches of them pass from threads that mostly free to threads that mostly allocate:
//!
//! ```text
//!            alloc ◀─┐   ┌─ dealloc            one pair of lists per thread and class:
//!                    │   ▼                     two batches, so that a thread at the border
//!                   [ current ]                of one does not go to the depot every time
//!                        ▲ │ full or empty
//!                        │ ▼
//!                   [  spare  ]
//!                        ▲ │ a whole batch
//!                        │ ▼
//!   all threads:    [  depot  ]   ── full ──▶ System (musl)
//!                                 ◀─ empty ──
//! ```
//!
//! Every cached block is a `System` block of its own, rounded up to the size of its class, so
//! any of them can be given back at any time, and a thread that may not cache (it is ending)
//! simply goes to `System`. No headers: `dealloc` is told the layout and thereby the class.
//!
//! # Invariants
//! - A block has exactly one owner: its user, one thread's list, the depot, or `System`.
//! - A block of a class is at least that class's size and aligned to 16 bytes, whoever made it.
//! - A thread holds at most two batches per class, [`THREAD_BYTES`] in total, and nothing once
//!   it ended. The depot holds at most [`DEPOT_BYTES`], and 1 MiB of one class. Nothing else is
//!   held.
//! - What is larger or more aligned than the largest class is `System`'s alone, so that large
//!   buffers grow in place.
//! - Nothing here allocates through the global allocator, holds two locks or panics.
//!
//! This is the only module with unsafe code.
#![allow(
    unsafe_code,
    reason = "an allocator is unsafe by its trait; this is the one audited module"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::{c_int, c_uint, c_void};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The most that one thread keeps for itself, in bytes.
pub const THREAD_BYTES: usize = thread_bytes();

/// The most that is kept for all threads together, in bytes.
pub const DEPOT_BYTES: usize = 16 << 20;

/// `System` with a bounded cache of small blocks per thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThreadCached;

// SAFETY: blocks of a class come from `System` with that class's layout, which covers every
// layout of that class, and have one owner (see the module's invariants); all others are
// `System`'s. `realloc` keeps the alignment, so both of its layouts are judged alike.
unsafe impl GlobalAlloc for ThreadCached {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match class_of(layout) {
            Some(class) => CACHE.with(|cache| cache.take(class)),
            // SAFETY: the caller's contract is System's.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match class_of(layout) {
            // SAFETY: the caller owned a block of this layout, hence of this class.
            Some(class) => CACHE.with(|cache| unsafe { cache.keep(class, block.cast()) }),
            // SAFETY: the caller's contract is System's, which made this block.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if class_of(layout).is_none() {
            // System knows which pages are zero already.
            // SAFETY: the caller's contract is System's.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: the same contract.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            // SAFETY: just allocated, at least that long.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size fits that alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (class_of(layout), class_of(wanted)) {
            // SAFETY: the caller's contract is System's, which made this block.
            (None, None) => return unsafe { System.realloc(block, layout, size) },
            (from, to) if from == to => return block,
            _ => {}
        }
        // SAFETY: as `alloc`; the copy stays within both blocks, which do not overlap; the old
        // one is the caller's to give up, and is kept when there is no memory for a new one.
        unsafe {
            let moved = self.alloc(wanted);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

thread_local! {
    // Constant, and nothing to drop: reaching it neither allocates nor can fail. What is to be
    // done when the thread ends is told to pthread (see `at_thread_exit`).
    static CACHE: Cache = const { Cache::new() };
}

/// What one thread keeps.
struct Cache {
    bins: [Bin; CLASSES],
    stage: Cell<Stage>,
}

/// One class's blocks of one thread.
///
/// `room` is 0 until the thread may cache and again when it may no longer, so that the usual
/// path of `keep` need not ask about that.
struct Bin {
    current: Cell<*mut Block>,
    /// How many blocks `current` still takes.
    room: Cell<usize>,
    /// Null, or a whole batch.
    spare: Cell<*mut Block>,
}

/// A free block, seen as a list's element.
struct Block {
    next: *mut Block,
    /// In the depot, a batch's first block points to the batch below.
    below: *mut Block,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// Has cached nothing so far.
    Fresh,
    /// Gives everything away when it ends.
    Caching,
    /// Is ending; caches nothing any more.
    Closed,
}

impl Cache {
    const fn new() -> Cache {
        Cache {
            bins: [const {
                Bin {
                    current: Cell::new(ptr::null_mut()),
                    room: Cell::new(0),
                    spare: Cell::new(ptr::null_mut()),
                }
            }; CLASSES],
            stage: Cell::new(Stage::Fresh),
        }
    }

    /// A block of that class, or null when there is no memory.
    #[inline]
    fn take(&self, class: usize) -> *mut u8 {
        let bin = &self.bins[class];
        let block = bin.current.get();
        if block.is_null() {
            return self.take_more(class);
        }
        // SAFETY: blocks in our lists are ours, and begin with a `Block`.
        bin.current.set(unsafe { (*block).next });
        bin.room.set(bin.room.get() + 1);
        block.cast()
    }

    #[cold]
    fn take_more(&self, class: usize) -> *mut u8 {
        let bin = &self.bins[class];
        let mut batch = bin.spare.replace(ptr::null_mut());
        if batch.is_null() && self.may_cache() {
            batch = DEPOT[class].take(class);
        }
        if batch.is_null() {
            // One at a time: memory that nobody asked for is never touched.
            return fresh(class);
        }
        bin.current.set(batch);
        bin.room.set(0);
        self.take(class)
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// The block is of that class, and the caller's to give up.
    #[inline]
    unsafe fn keep(&self, class: usize, block: *mut Block) {
        let bin = &self.bins[class];
        if bin.room.get() == 0 && !self.make_room(class) {
            // SAFETY: the caller's promise.
            return unsafe { release(class, block) };
        }
        // SAFETY: the block is ours now; every class has room for a `Block`, suitably aligned.
        unsafe { (&raw mut (*block).next).write(bin.current.get()) };
        bin.current.set(block);
        bin.room.set(bin.room.get() - 1);
    }

    #[cold]
    fn make_room(&self, class: usize) -> bool {
        if !self.may_cache() {
            return false;
        }
        let bin = &self.bins[class];
        // Either whole, or empty because this is the class's first block.
        let whole = bin.current.replace(ptr::null_mut());
        if !whole.is_null() {
            let older = bin.spare.replace(whole);
            // SAFETY: a spare is a whole batch of this class, and ours.
            unsafe { give_away(class, older) };
        }
        bin.room.set(batch_of(class));
        true
    }

    /// Whether this thread will be told of its end, or has not been yet.
    fn may_cache(&self) -> bool {
        if self.stage.get() == Stage::Fresh {
            let told = at_thread_exit();
            self.stage
                .set(if told { Stage::Caching } else { Stage::Closed });
        }
        self.stage.get() == Stage::Caching
    }

    /// Gives everything away. What the thread still frees goes to `System`.
    fn close(&self) {
        self.stage.set(Stage::Closed);
        for (class, bin) in self.bins.iter().enumerate() {
            let spare = bin.spare.replace(ptr::null_mut());
            let current = bin.current.replace(ptr::null_mut());
            bin.room.set(0);
            // SAFETY: a spare is a whole batch; both are lists of this class, and ours.
            unsafe {
                give_away(class, spare);
                release_all(class, current);
            }
        }
    }
}

/// Hands a whole batch (or none) to the depot, or to `System` when that has enough of the class.
///
/// When the depot as a whole is full, any other class pays for it: what nobody needs any more
/// makes way for what is in use.
///
/// # Safety
/// A list of that class, as long as a batch, and the caller's to give up.
unsafe fn give_away(class: usize, batch: *mut Block) {
    if let Some(batch) = NonNull::new(batch) {
        // SAFETY: the caller's promise.
        unsafe {
            if !DEPOT[class].put(class, batch) {
                return release_all(class, batch.as_ptr());
            }
        }
        while HELD.load(Relaxed) > DEPOT_BYTES {
            let unlucky = NEXT.fetch_add(1, Relaxed) % CLASSES;
            // SAFETY: a batch from a class's pile, and ours now.
            unsafe { release_all(unlucky, DEPOT[unlucky].take(unlucky)) };
        }
    }
}

/// Whole batches of each class, for whichever thread needs them.
static DEPOT: [Depot; CLASSES] = [const {
    Depot(Mutex::new(Pile {
        top: ptr::null_mut(),
        height: 0,
    }))
}; CLASSES];

/// Bytes in the depot; for a moment, a batch per thread too many.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// The class that has to give up a batch next time.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// One class's batches. On cache lines of its own, as threads meet here.
#[repr(align(64))]
struct Depot(Mutex<Pile>);

struct Pile {
    top: *mut Block,
    /// In batches.
    height: usize,
}

// SAFETY: the blocks of a pile are nobody else's.
unsafe impl Send for Pile {}

impl Depot {
    /// A batch, or null when there is none.
    fn take(&self, class: usize) -> *mut Block {
        let mut pile = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = pile.top;
        if !batch.is_null() {
            // SAFETY: a pile's batches are its own, and `put` has written this field.
            pile.top = unsafe { (*batch).below };
            pile.height -= 1;
            HELD.fetch_sub(batch_bytes(class), Relaxed);
        }
        batch
    }

    /// Takes a batch in, unless there are enough.
    ///
    /// # Safety
    /// A list of that class, as long as a batch, and the caller's to give up if this is true.
    unsafe fn put(&self, class: usize, batch: NonNull<Block>) -> bool {
        let mut pile = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if (pile.height + 1) * batch_bytes(class) > DEPOT_CLASS_BYTES {
            return false;
        }
        let batch = batch.as_ptr();
        // SAFETY: the caller's promise; every class has room for a `Block`.
        unsafe { (&raw mut (*batch).below).write(pile.top) };
        pile.top = batch;
        pile.height += 1;
        HELD.fetch_add(batch_bytes(class), Relaxed);
        true
    }
}

/// A new block of that class from `System`, or null.
#[inline]
fn fresh(class: usize) -> *mut u8 {
    #[cfg(test)]
    tests::OUT.fetch_add(size_of_class(class) as isize, Relaxed);
    // SAFETY: the size is not 0.
    unsafe { System.alloc(layout_of(class)) }
}

/// Gives a block back to `System`.
///
/// # Safety
/// The block is of that class, and the caller's to give up.
#[inline]
unsafe fn release(class: usize, block: *mut Block) {
    #[cfg(test)]
    tests::OUT.fetch_sub(size_of_class(class) as isize, Relaxed);
    // SAFETY: the caller's promise; all blocks of a class were allocated by `fresh`.
    unsafe { System.dealloc(block.cast(), layout_of(class)) }
}

/// Gives all of a list (or none) back to `System`.
///
/// # Safety
/// The blocks are of that class, and the caller's to give up.
unsafe fn release_all(class: usize, mut block: *mut Block) {
    while !block.is_null() {
        // SAFETY: the caller's promise; the successor is read while the block is still ours.
        unsafe {
            let next = (*block).next;
            release(class, block);
            block = next;
        }
    }
}

/// Has this thread's cache closed when the thread ends; false if that cannot be.
///
/// By pthread and not by a `Drop` in the thread local, because std's list of those may itself
/// allocate while it is being changed, and would find itself here. Which of the two runs first
/// at the end of a thread does not matter: a closed cache still serves.
fn at_thread_exit() -> bool {
    static KEY: OnceLock<Option<c_uint>> = OnceLock::new();
    let key = KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: writes the key; the function stays valid as long as the program runs.
        (unsafe { pthread_key_create(&mut key, Some(close_cache)) } == 0).then_some(key)
    });
    // The value only has to be other than null, or pthread would not call.
    let value = NonNull::<c_void>::dangling();
    // SAFETY: the key was made above, and is never deleted.
    key.is_some_and(|key| unsafe { pthread_setspecific(key, value.as_ptr()) } == 0)
}

extern "C" fn close_cache(_: *mut c_void) {
    CACHE.with(Cache::close);
}

// As POSIX has them, with Linux's `pthread_key_t`.
unsafe extern "C" {
    fn pthread_key_create(key: *mut c_uint, at_exit: Option<extern "C" fn(*mut c_void)>) -> c_int;
    fn pthread_setspecific(key: c_uint, value: *const c_void) -> c_int;
}

/// The class that serves a layout, or none where `System` does.
#[inline]
fn class_of(layout: Layout) -> Option<usize> {
    (layout.size() <= LARGEST && layout.align() <= ALIGN).then(|| class_of_size(layout.size()))
}

/// Steps of 16 bytes up to 128, then four steps to each doubling: 160, 192, 224, 256, 320, …
#[inline]
const fn class_of_size(size: usize) -> usize {
    if size <= FINE {
        return size.saturating_sub(1) / ALIGN;
    }
    let last = size - 1;
    let log = last.ilog2();
    let doublings = (log - FINE.ilog2()) as usize;
    FINE / ALIGN + doublings * 4 + ((last >> (log - 2)) & 3)
}

#[inline]
const fn size_of_class(class: usize) -> usize {
    if class < FINE / ALIGN {
        return (class + 1) * ALIGN;
    }
    let (doublings, quarter) = ((class - FINE / ALIGN) / 4, (class - FINE / ALIGN) % 4);
    (FINE / 4 * (5 + quarter)) << doublings
}

#[inline]
const fn layout_of(class: usize) -> Layout {
    // SAFETY: a power of two, and far from overflow.
    unsafe { Layout::from_size_align_unchecked(size_of_class(class), ALIGN) }
}

/// How many blocks go to and from the depot together.
#[inline]
const fn batch_of(class: usize) -> usize {
    let fitting = BATCH_BYTES / size_of_class(class);
    match fitting {
        0 => 1,
        1..BATCH_MAX => fitting,
        _ => BATCH_MAX,
    }
}

#[inline]
const fn batch_bytes(class: usize) -> usize {
    batch_of(class) * size_of_class(class)
}

const fn thread_bytes() -> usize {
    let (mut class, mut sum) = (0, 0);
    while class < CLASSES {
        sum += 2 * batch_bytes(class);
        class += 1;
    }
    sum
}

/// Every block's alignment, and the smallest class.
const ALIGN: usize = 16;
/// Up to here classes are `ALIGN` apart.
const FINE: usize = 128;
/// The largest class.
const LARGEST: usize = 32 << 10;
const CLASSES: usize = class_of_size(LARGEST) + 1;
/// A batch is this large, if it is neither longer than `BATCH_MAX` nor less than one block.
const BATCH_BYTES: usize = 16 << 10;
const BATCH_MAX: usize = 128;
/// The depot's limit for each class: what two threads typically have on the way between them.
const DEPOT_CLASS_BYTES: usize = 1 << 20;

const _: () = assert!(size_of::<Block>() <= ALIGN && align_of::<Block>() <= ALIGN);

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicIsize;
    use std::sync::mpsc::sync_channel;
    use std::thread;

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
}
