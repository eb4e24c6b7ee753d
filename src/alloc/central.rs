//! The central free lists: batches on their way from thread to thread, and to `System`.

use std::alloc::{GlobalAlloc, System};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

#[cfg(test)]
use super::size_class::block_size;
use super::size_class::{ALIGN, SCALE, SIZE_CLASSES, batch_bytes, block_layout};
#[cfg(test)]
use super::tests;

/// The start of a free block, as an element of a list.
pub(super) struct FreeBlock {
    pub(super) next: *mut FreeBlock,
    /// In a central free list, a batch's first block points to the batch below.
    next_batch: *mut FreeBlock,
}

/// Hands a whole batch (or none) to its central free list, or to `System` when that is full.
///
/// When all central free lists together are full, any other size class pays for it: batches
/// that nobody needs any more make way for those in use.
///
/// # Safety
/// A list of that class, as long as a batch, and the caller's to give up.
pub(super) unsafe fn insert_batch(class: usize, batch: *mut FreeBlock) {
    if let Some(batch) = NonNull::new(batch) {
        // SAFETY: the caller's promise.
        unsafe {
            if !CENTRAL_FREE_LISTS[class].push(class, batch) {
                return free_list_to_system(class, batch.as_ptr());
            }
        }
        while CENTRAL_BYTES.load(Relaxed) > CENTRAL_BYTES_MAX {
            let victim = NEXT_VICTIM.fetch_add(1, Relaxed) % SIZE_CLASSES;
            // SAFETY: a batch from that class's central free list, and ours now.
            unsafe { free_list_to_system(victim, CENTRAL_FREE_LISTS[victim].pop(victim)) };
        }
    }
}

/// Whole batches of each size class, for whichever thread needs them.
pub(super) static CENTRAL_FREE_LISTS: [CentralFreeList; SIZE_CLASSES] = [const {
    CentralFreeList(Mutex::new(BatchStack {
        top: ptr::null_mut(),
        batches: 0,
    }))
}; SIZE_CLASSES];

/// Bytes in all central free lists; for a moment, a batch per thread too many.
pub(super) static CENTRAL_BYTES: AtomicUsize = AtomicUsize::new(0);

/// The size class that has to give up a batch next time.
static NEXT_VICTIM: AtomicUsize = AtomicUsize::new(0);

/// One size class's batches. On cache lines of its own, as threads meet here.
#[repr(align(64))]
pub(super) struct CentralFreeList(pub(super) Mutex<BatchStack>);

pub(super) struct BatchStack {
    top: *mut FreeBlock,
    pub(super) batches: usize,
}

// SAFETY: the blocks of a stack are nobody else's.
unsafe impl Send for BatchStack {}

impl CentralFreeList {
    /// A batch, or null when there is none.
    pub(super) fn pop(&self, class: usize) -> *mut FreeBlock {
        let mut stack = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = stack.top;
        if !batch.is_null() {
            // SAFETY: a stack's batches are its own, and `push` has written this field.
            stack.top = unsafe { (*batch).next_batch };
            stack.batches -= 1;
            CENTRAL_BYTES.fetch_sub(batch_bytes(class), Relaxed);
        }
        batch
    }

    /// Takes a batch in, unless there are enough.
    ///
    /// # Safety
    /// A list of that class, as long as a batch, and the caller's to give up if this is true.
    unsafe fn push(&self, class: usize, batch: NonNull<FreeBlock>) -> bool {
        let mut stack = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if (stack.batches + 1) * batch_bytes(class) > CENTRAL_CLASS_BYTES_MAX {
            return false;
        }
        let batch = batch.as_ptr();
        // SAFETY: the caller's promise; every class has room for a `FreeBlock`.
        unsafe { (&raw mut (*batch).next_batch).write(stack.top) };
        stack.top = batch;
        stack.batches += 1;
        CENTRAL_BYTES.fetch_add(batch_bytes(class), Relaxed);
        true
    }
}

/// A new block of that size class from `System`, or null.
#[inline]
pub(super) fn allocate_from_system(class: usize) -> *mut u8 {
    #[cfg(test)]
    tests::SYSTEM_BYTES.fetch_add(block_size(class) as isize, Relaxed);
    // SAFETY: the size is not 0.
    unsafe { System.alloc(block_layout(class)) }
}

/// Frees a block to `System`.
///
/// # Safety
/// The block is of that size class, and the caller's to give up.
#[inline]
pub(super) unsafe fn free_to_system(class: usize, block: *mut FreeBlock) {
    #[cfg(test)]
    tests::SYSTEM_BYTES.fetch_sub(block_size(class) as isize, Relaxed);
    // SAFETY: the caller's promise; `allocate_from_system` allocated all blocks of a class.
    unsafe { System.dealloc(block.cast(), block_layout(class)) }
}

/// Frees all of a list (or none) to `System`.
///
/// # Safety
/// The blocks are of that size class, and the caller's to give up.
pub(super) unsafe fn free_list_to_system(class: usize, mut block: *mut FreeBlock) {
    while !block.is_null() {
        // SAFETY: the caller's promise; the successor is read while the block is still ours.
        unsafe {
            let next = (*block).next;
            free_to_system(class, block);
            block = next;
        }
    }
}

/// The limit of all central free lists together.
pub(super) const CENTRAL_BYTES_MAX: usize = (16 << 20) / SCALE;

/// The limit of each: what two threads typically have on the way between them.
pub(super) const CENTRAL_CLASS_BYTES_MAX: usize = (1 << 20) / SCALE;

const _: () = assert!(size_of::<FreeBlock>() <= ALIGN && align_of::<FreeBlock>() <= ALIGN);
