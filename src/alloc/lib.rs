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
//! This is the only crate with unsafe code.
#![cfg(target_os = "linux")]

mod cache;
mod class;
mod depot;
#[cfg(test)]
mod tests;

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{c_int, c_uint, c_void};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use self::cache::Cache;
use self::class::class_of;

/// The most that one thread keeps for itself, in bytes.
pub const THREAD_BYTES: usize = class::thread_bytes();

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
