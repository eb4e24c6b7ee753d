//! One thread's free blocks.

use std::cell::Cell;
use std::ptr;

use super::at_thread_exit;
use super::class::{CLASSES, batch_of};
use super::depot::{Block, DEPOT, fresh, give_away, release, release_all};

/// What one thread keeps.
pub(super) struct Cache {
    pub(super) bins: [Bin; CLASSES],
    stage: Cell<Stage>,
}

/// One class's blocks of one thread.
///
/// `room` is 0 until the thread may cache and again when it may no longer, so that the usual
/// path of `keep` need not ask about that.
pub(super) struct Bin {
    pub(super) current: Cell<*mut Block>,
    /// How many blocks `current` still takes.
    pub(super) room: Cell<usize>,
    /// Null, or a whole batch.
    pub(super) spare: Cell<*mut Block>,
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
    pub(super) const fn new() -> Cache {
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
    pub(super) fn take(&self, class: usize) -> *mut u8 {
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
    pub(super) unsafe fn keep(&self, class: usize, block: *mut Block) {
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
    pub(super) fn close(&self) {
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
