//! The allocator of the static binary: a thread cache in front of musl's `malloc`.
//!
//! musl keeps one lock around all of its heap, which is slow with one thread and slower with
//! each more. So freed blocks of small sizes stay in free lists and are allocated again from
//! there, as in tcmalloc: each thread has free lists of its own, one pair per size class, and
//! whole batches pass through central free lists from threads that mostly free to threads that
//! mostly allocate:
//!
//! ```text
//!                       alloc ◀─┐   ┌─ dealloc       one pair of lists per thread and size
//!                               │   ▼                class: two batches, so that a thread at
//!   thread cache:             [ current ]            the border of one does not go to the
//!                                 ▲ │ full or empty  central list every time
//!                                 │ ▼
//!                             [  spare  ]
//!                                 ▲ │ a whole batch
//!                                 │ ▼
//!   all threads:         [ central free list ]  ── full ──▶ System (musl)
//!                                               ◀─ empty ──
//! ```
//!
//! There are no spans: every block is an allocation of `System` of its own, rounded up to the
//! size of its class, so any of them can be freed to it at any time, and a thread that may not
//! cache (it is ending) simply goes to `System`. There are no headers: `dealloc` is given the
//! layout and thereby the size class.
//!
//! # Invariants
//! - A block has exactly one owner: its user, one thread cache, a central free list, or
//!   `System`.
//! - A block of a size class is at least that class's size and aligned to 16 bytes, whoever
//!   allocated it.
//! - A thread cache holds at most two batches per size class, 1.2 MiB in all, and nothing once
//!   its thread has ended. The central free lists hold at most 16 MiB, and 1 MiB each. Nothing
//!   else is cached.
//! - What is larger or more aligned than the largest size class is `System`'s alone, so that
//!   large buffers grow in place.
//! - Nothing here allocates through the global allocator, holds two locks or panics.
//!
//! This is the only crate with unsafe code. `scripts/miri` runs its tests under Miri,
//! AddressSanitizer and ThreadSanitizer; no other script calls it, so whoever changes something
//! here does.
#![cfg(target_os = "linux")]

mod central;
mod size_class;
#[cfg(test)]
mod tests;
mod thread_cache;

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{c_int, c_uint, c_void};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use self::size_class::size_class_of;
use self::thread_cache::ThreadCache;

/// `System` with a bounded cache of small blocks per thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThreadCachingAllocator;

// SAFETY: blocks of a size class come from `System` with that class's layout, which covers
// every layout of that class, and have one owner (see the crate's invariants); all others are
// `System`'s. `realloc` keeps the alignment, so both of its layouts are judged alike.
unsafe impl GlobalAlloc for ThreadCachingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match size_class_of(layout) {
            Some(class) => THREAD_CACHE.with(|cache| cache.allocate(class)),
            // SAFETY: the caller's contract is System's.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match size_class_of(layout) {
            Some(class) => THREAD_CACHE.with(|cache| {
                // SAFETY: the caller owned a block of this layout, hence of this class.
                unsafe { cache.deallocate(class, block.cast()) }
            }),
            // SAFETY: the caller's contract is System's, which allocated this block.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if size_class_of(layout).is_none() {
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
        match (size_class_of(layout), size_class_of(wanted)) {
            // SAFETY: the caller's contract is System's, which allocated this block.
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
    // Constant, and nothing to drop: reaching it neither allocates nor can fail. pthread calls
    // `flush_thread_cache` when the thread ends (see `register_for_thread_exit`).
    static THREAD_CACHE: ThreadCache = const { ThreadCache::new() };
}

/// Has this thread's cache flushed when the thread ends; false if that cannot be.
///
/// By pthread and not by a `Drop` in the thread local, because std's list of those may itself
/// allocate while it is being changed, and would find itself here. Which of the two runs first
/// at the end of a thread does not matter: a closed cache still serves.
fn register_for_thread_exit() -> bool {
    static KEY: OnceLock<Option<c_uint>> = OnceLock::new();
    let key = KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: writes the key; the function stays valid as long as the program runs.
        let created = unsafe { pthread_key_create(&mut key, Some(flush_thread_cache)) };
        (created == 0).then_some(key)
    });
    // The value only has to be other than null, or pthread would not call.
    let value = NonNull::<c_void>::dangling();
    // SAFETY: the key was made above, and is never deleted.
    key.is_some_and(|key| unsafe { pthread_setspecific(key, value.as_ptr()) } == 0)
}

extern "C" fn flush_thread_cache(_: *mut c_void) {
    THREAD_CACHE.with(ThreadCache::close);
}

// As POSIX has them, with Linux's `pthread_key_t`.
unsafe extern "C" {
    fn pthread_key_create(key: *mut c_uint, at_exit: Option<extern "C" fn(*mut c_void)>) -> c_int;
    fn pthread_setspecific(key: c_uint, value: *const c_void) -> c_int;
}
