//! The size classes of small blocks.

use std::alloc::Layout;

/// The size class that serves a layout, or none where `System` does.
#[inline]
pub(super) fn size_class_of(layout: Layout) -> Option<usize> {
    let small = layout.size() <= LARGEST && layout.align() <= ALIGN;
    small.then(|| size_class_of_size(layout.size()))
}

/// Steps of 16 bytes up to 128, then four steps to each doubling: 160, 192, 224, 256, 320, …
#[inline]
pub(super) const fn size_class_of_size(size: usize) -> usize {
    if size <= FINE {
        return size.saturating_sub(1) / ALIGN;
    }
    let last = size - 1;
    let log = last.ilog2();
    let doublings = (log - FINE.ilog2()) as usize;
    FINE / ALIGN + doublings * 4 + ((last >> (log - 2)) & 3)
}

/// The size of a class's blocks.
#[inline]
pub(super) const fn block_size(class: usize) -> usize {
    if class < FINE / ALIGN {
        return (class + 1) * ALIGN;
    }
    let (doublings, quarter) = ((class - FINE / ALIGN) / 4, (class - FINE / ALIGN) % 4);
    (FINE / 4 * (5 + quarter)) << doublings
}

/// The layout with which `System` allocates and frees a class's blocks.
#[inline]
pub(super) const fn block_layout(class: usize) -> Layout {
    // SAFETY: a power of two, and far from overflow.
    unsafe { Layout::from_size_align_unchecked(block_size(class), ALIGN) }
}

/// How many blocks pass between a thread cache and a central free list together.
#[inline]
pub(super) const fn batch_len(class: usize) -> usize {
    let fitting = BATCH_BYTES / block_size(class);
    match fitting {
        0 => 1,
        1..BATCH_LEN_MAX => fitting,
        _ => BATCH_LEN_MAX,
    }
}

#[inline]
pub(super) const fn batch_bytes(class: usize) -> usize {
    batch_len(class) * block_size(class)
}

/// Every block's alignment, and the size of the smallest class.
pub(super) const ALIGN: usize = 16;
/// Up to here classes are `ALIGN` apart.
pub(super) const FINE: usize = 128;
/// The size of the largest class.
pub(super) const LARGEST: usize = 32 << 10;
/// How many size classes there are.
pub(super) const SIZE_CLASSES: usize = size_class_of_size(LARGEST) + 1;
/// A batch has this size, if it is neither longer than `BATCH_LEN_MAX` nor less than one block.
pub(super) const BATCH_BYTES: usize = (16 << 10) / SCALE;
pub(super) const BATCH_LEN_MAX: usize = 128 / SCALE;
/// Under Miri, which is slow, every limit is that much smaller, so that the tests reach it.
pub(super) const SCALE: usize = if cfg!(miri) { 32 } else { 1 };
