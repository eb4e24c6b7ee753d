//! One thread's free lists.

use std::cell::Cell;
use std::ptr;

use super::central::{
    CENTRAL_FREE_LISTS, FreeBlock, allocate_from_system, free_list_to_system, free_to_system,
    insert_batch,
};
use super::register_for_thread_exit;
use super::size_class::{SIZE_CLASSES, batch_len};

/// What one thread caches.
pub(super) struct ThreadCache {
    pub(super) free_lists: [FreeLists; SIZE_CLASSES],
    state: Cell<CacheState>,
}

/// One thread's free blocks of one size class.
///
/// `room` is 0 until the thread may cache and again when it may no longer, so that the usual
/// path of `deallocate` need not ask about that.
pub(super) struct FreeLists {
    pub(super) current: Cell<*mut FreeBlock>,
    /// How many blocks `current` still takes.
    pub(super) room: Cell<usize>,
    /// Null, or a whole batch.
    pub(super) spare: Cell<*mut FreeBlock>,
}

#[derive(Clone, Copy, PartialEq)]
enum CacheState {
    /// Has cached nothing so far.
    Unregistered,
    /// Is flushed when its thread ends.
    Active,
    /// Its thread is ending; caches nothing any more.
    Closed,
}

impl ThreadCache {
    pub(super) const fn new() -> ThreadCache {
        ThreadCache {
            free_lists: [const {
                FreeLists {
                    current: Cell::new(ptr::null_mut()),
                    room: Cell::new(0),
                    spare: Cell::new(ptr::null_mut()),
                }
            }; SIZE_CLASSES],
            state: Cell::new(CacheState::Unregistered),
        }
    }

    /// A block of that size class, or null when there is no memory.
    #[inline]
    pub(super) fn allocate(&self, class: usize) -> *mut u8 {
        let lists = &self.free_lists[class];
        let block = lists.current.get();
        if block.is_null() {
            return self.refill_and_allocate(class);
        }
        // SAFETY: blocks in our lists are ours, and begin with a `FreeBlock`.
        lists.current.set(unsafe { (*block).next });
        lists.room.set(lists.room.get() + 1);
        block.cast()
    }

    #[cold]
    fn refill_and_allocate(&self, class: usize) -> *mut u8 {
        let lists = &self.free_lists[class];
        let mut batch = lists.spare.replace(ptr::null_mut());
        if batch.is_null() && self.is_active() {
            batch = CENTRAL_FREE_LISTS[class].pop(class);
        }
        if batch.is_null() {
            // One at a time: memory that nobody asked for is never touched.
            return allocate_from_system(class);
        }
        lists.current.set(batch);
        lists.room.set(0);
        self.allocate(class)
    }

    /// Takes a freed block in.
    ///
    /// # Safety
    /// The block is of that size class, and the caller's to give up.
    #[inline]
    pub(super) unsafe fn deallocate(&self, class: usize, block: *mut FreeBlock) {
        let lists = &self.free_lists[class];
        if lists.room.get() == 0 && !self.make_room(class) {
            // SAFETY: the caller's promise.
            return unsafe { free_to_system(class, block) };
        }
        // SAFETY: the block is ours now; every class has room for a `FreeBlock`, aligned.
        unsafe { (&raw mut (*block).next).write(lists.current.get()) };
        lists.current.set(block);
        lists.room.set(lists.room.get() - 1);
    }

    #[cold]
    fn make_room(&self, class: usize) -> bool {
        if !self.is_active() {
            return false;
        }
        let lists = &self.free_lists[class];
        // Either whole, or empty because this is the class's first block.
        let whole = lists.current.replace(ptr::null_mut());
        if !whole.is_null() {
            let older = lists.spare.replace(whole);
            // SAFETY: a spare is a whole batch of this class, and ours.
            unsafe { insert_batch(class, older) };
        }
        lists.room.set(batch_len(class));
        true
    }

    /// Whether this thread may cache; registers it for that when it first asks.
    fn is_active(&self) -> bool {
        if self.state.get() == CacheState::Unregistered {
            self.state.set(if register_for_thread_exit() {
                CacheState::Active
            } else {
                CacheState::Closed
            });
        }
        self.state.get() == CacheState::Active
    }

    /// Flushes everything. What the thread still frees goes to `System`.
    pub(super) fn close(&self) {
        self.state.set(CacheState::Closed);
        for (class, lists) in self.free_lists.iter().enumerate() {
            let spare = lists.spare.replace(ptr::null_mut());
            let current = lists.current.replace(ptr::null_mut());
            lists.room.set(0);
            // SAFETY: a spare is a whole batch; both are lists of this class, and ours.
            unsafe {
                insert_batch(class, spare);
                free_list_to_system(class, current);
            }
        }
    }
}
