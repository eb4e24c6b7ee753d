//! Free blocks on their way from thread to thread, and to and from `System`.

use std::alloc::{GlobalAlloc, System};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::DEPOT_BYTES;
#[cfg(test)]
use super::class::size_of_class;
use super::class::{ALIGN, CLASSES, batch_bytes, layout_of};
#[cfg(test)]
use super::tests;

/// A free block, seen as a list's element.
pub(super) struct Block {
    pub(super) next: *mut Block,
    /// In the depot, a batch's first block points to the batch below.
    below: *mut Block,
}

/// Hands a whole batch (or none) to the depot, or to `System` when that has enough of the class.
///
/// When the depot as a whole is full, any other class pays for it: what nobody needs any more
/// makes way for what is in use.
///
/// # Safety
/// A list of that class, as long as a batch, and the caller's to give up.
pub(super) unsafe fn give_away(class: usize, batch: *mut Block) {
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
pub(super) static DEPOT: [Depot; CLASSES] = [const {
    Depot(Mutex::new(Pile {
        top: ptr::null_mut(),
        height: 0,
    }))
}; CLASSES];

/// Bytes in the depot; for a moment, a batch per thread too many.
pub(super) static HELD: AtomicUsize = AtomicUsize::new(0);

/// The class that has to give up a batch next time.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// One class's batches. On cache lines of its own, as threads meet here.
#[repr(align(64))]
pub(super) struct Depot(pub(super) Mutex<Pile>);

pub(super) struct Pile {
    top: *mut Block,
    /// In batches.
    pub(super) height: usize,
}

// SAFETY: the blocks of a pile are nobody else's.
unsafe impl Send for Pile {}

impl Depot {
    /// A batch, or null when there is none.
    pub(super) fn take(&self, class: usize) -> *mut Block {
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
pub(super) fn fresh(class: usize) -> *mut u8 {
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
pub(super) unsafe fn release(class: usize, block: *mut Block) {
    #[cfg(test)]
    tests::OUT.fetch_sub(size_of_class(class) as isize, Relaxed);
    // SAFETY: the caller's promise; all blocks of a class were allocated by `fresh`.
    unsafe { System.dealloc(block.cast(), layout_of(class)) }
}

/// Gives all of a list (or none) back to `System`.
///
/// # Safety
/// The blocks are of that class, and the caller's to give up.
pub(super) unsafe fn release_all(class: usize, mut block: *mut Block) {
    while !block.is_null() {
        // SAFETY: the caller's promise; the successor is read while the block is still ours.
        unsafe {
            let next = (*block).next;
            release(class, block);
            block = next;
        }
    }
}

/// The depot's limit for each class: what two threads typically have on the way between them.
pub(super) const DEPOT_CLASS_BYTES: usize = 1 << 20;

const _: () = assert!(size_of::<Block>() <= ALIGN && align_of::<Block>() <= ALIGN);
