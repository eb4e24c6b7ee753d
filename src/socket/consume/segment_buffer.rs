//! The memory that a segment's frames are written to, used again for later segments.
//!
//! ```text
//! SegmentBuffers ─ take ─▶ SegmentBuffer ─ written, sent ─▶ dropped ─▶ SegmentBuffers
//! ```
//!
//! Allocators give memory of this size back to the system and fetch it anew, zeroed page by page:
//! that costs about as much as writing the frames.
//!
//! # Invariants
//! - At most [`KEPT_MAX`] buffers are kept, of [`SEGMENT_BYTES`] each: they count as memory of the
//!   process, and while they are in use as their segments'.

use std::mem;
use std::ops::Deref;
use std::sync::Mutex;

use bytes::BytesMut;
use runtime::mutex::lock;

/// How many bytes of frames are encoded at a time.
pub(super) const SEGMENT_BYTES: usize = 256 << 10;

/// Buffers that are kept, of all sockets together: those of one chunk, which are given back
/// together.
const KEPT_MAX: usize = 16;

static BUFFERS: SegmentBuffers = SegmentBuffers {
    kept: Mutex::new(Vec::new()),
};

/// Buffers that are not in use.
struct SegmentBuffers {
    kept: Mutex<Vec<BytesMut>>,
}

impl SegmentBuffers {
    /// An empty buffer for about so many bytes.
    fn take(&self, bytes: usize) -> BytesMut {
        // Much smaller ones are cheap to allocate, and larger ones seldom.
        if !(SEGMENT_BYTES / 2..=SEGMENT_BYTES).contains(&bytes) {
            return BytesMut::with_capacity(bytes);
        }
        let kept = lock(&self.kept).pop();
        kept.unwrap_or_else(|| BytesMut::with_capacity(SEGMENT_BYTES))
    }

    fn give_back(&self, mut buffer: BytesMut) {
        if buffer.capacity() == SEGMENT_BYTES {
            buffer.clear();
            let mut kept = lock(&self.kept);
            if kept.len() < KEPT_MAX {
                kept.push(buffer);
            }
        }
    }
}

/// What was written of a segment.
#[derive(Debug)]
pub(super) struct SegmentBuffer(BytesMut);

impl SegmentBuffer {
    /// Lends a buffer for about `bytes` to `write`, and keeps what was written.
    pub(super) fn written<T>(bytes: usize, write: impl FnOnce(&mut BytesMut) -> T) -> (Self, T) {
        let mut out = Self(BUFFERS.take(bytes));
        let result = write(&mut out.0);
        (out.fitted(), result)
    }

    pub(super) fn copied(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Bytes of memory that it takes.
    pub(super) fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// In memory that is not much larger than it needs.
    fn fitted(self) -> Self {
        match self.capacity() - self.len() > self.len() / 4 {
            true => Self::copied(&self),
            false => self,
        }
    }
}

impl Deref for SegmentBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for SegmentBuffer {
    fn drop(&mut self) {
        BUFFERS.give_back(mem::take(&mut self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffers() -> SegmentBuffers {
        SegmentBuffers {
            kept: Mutex::default(),
        }
    }

    #[test]
    fn a_segments_memory_is_used_again() {
        let buffers = buffers();
        let mut first = buffers.take(SEGMENT_BYTES);
        first.extend_from_slice(&[7; 1000]);
        let at = first.as_ptr();
        buffers.give_back(first);
        let second = buffers.take(SEGMENT_BYTES - 1000);
        assert_eq!(second.as_ptr(), at);
        assert!(second.is_empty() && second.capacity() == SEGMENT_BYTES);
    }

    #[test]
    fn few_buffers_of_one_size_are_kept() {
        let buffers = buffers();
        for bytes in [1, 1000, SEGMENT_BYTES + 1, 10 * SEGMENT_BYTES] {
            buffers.give_back(buffers.take(bytes));
        }
        assert_eq!(lock(&buffers.kept).len(), 0);
        let taken: Vec<_> = (0..20).map(|_| buffers.take(SEGMENT_BYTES)).collect();
        for buffer in taken {
            buffers.give_back(buffer);
        }
        assert_eq!(lock(&buffers.kept).len(), KEPT_MAX);
    }

    #[test]
    fn what_is_kept_of_a_segment_is_not_much_larger_than_it() {
        for written in [1, 100_000, 200_000, SEGMENT_BYTES, 2 * SEGMENT_BYTES] {
            let (buffer, ()) = SegmentBuffer::written(SEGMENT_BYTES, |out| out.resize(written, 7));
            assert_eq!(buffer[..], vec![7; written]);
            assert!(buffer.capacity() <= written + written / 4 + 16, "{written}");
        }
    }
}
