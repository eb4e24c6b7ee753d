//! The sizes in which small blocks come.

use std::alloc::Layout;

/// The class that serves a layout, or none where `System` does.
#[inline]
pub(super) fn class_of(layout: Layout) -> Option<usize> {
    (layout.size() <= LARGEST && layout.align() <= ALIGN).then(|| class_of_size(layout.size()))
}

/// Steps of 16 bytes up to 128, then four steps to each doubling: 160, 192, 224, 256, 320, …
#[inline]
pub(super) const fn class_of_size(size: usize) -> usize {
    if size <= FINE {
        return size.saturating_sub(1) / ALIGN;
    }
    let last = size - 1;
    let log = last.ilog2();
    let doublings = (log - FINE.ilog2()) as usize;
    FINE / ALIGN + doublings * 4 + ((last >> (log - 2)) & 3)
}

#[inline]
pub(super) const fn size_of_class(class: usize) -> usize {
    if class < FINE / ALIGN {
        return (class + 1) * ALIGN;
    }
    let (doublings, quarter) = ((class - FINE / ALIGN) / 4, (class - FINE / ALIGN) % 4);
    (FINE / 4 * (5 + quarter)) << doublings
}

#[inline]
pub(super) const fn layout_of(class: usize) -> Layout {
    // SAFETY: a power of two, and far from overflow.
    unsafe { Layout::from_size_align_unchecked(size_of_class(class), ALIGN) }
}

/// How many blocks go to and from the depot together.
#[inline]
pub(super) const fn batch_of(class: usize) -> usize {
    let fitting = BATCH_BYTES / size_of_class(class);
    match fitting {
        0 => 1,
        1..BATCH_MAX => fitting,
        _ => BATCH_MAX,
    }
}

#[inline]
pub(super) const fn batch_bytes(class: usize) -> usize {
    batch_of(class) * size_of_class(class)
}

pub(super) const fn thread_bytes() -> usize {
    let (mut class, mut sum) = (0, 0);
    while class < CLASSES {
        sum += 2 * batch_bytes(class);
        class += 1;
    }
    sum
}

/// Every block's alignment, and the smallest class.
pub(super) const ALIGN: usize = 16;
/// Up to here classes are `ALIGN` apart.
pub(super) const FINE: usize = 128;
/// The largest class.
pub(super) const LARGEST: usize = 32 << 10;
pub(super) const CLASSES: usize = class_of_size(LARGEST) + 1;
/// A batch is this large, if it is neither longer than `BATCH_MAX` nor less than one block.
pub(super) const BATCH_BYTES: usize = 16 << 10;
pub(super) const BATCH_MAX: usize = 128;
