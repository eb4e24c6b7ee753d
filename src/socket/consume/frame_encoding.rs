//! How records become frames: what all sockets have in common that share frames.

use super::segment_buffer::SEGMENT_BYTES;
use crate::codec::FrameFormat;
use websocket::deflate::PermessageDeflate;

/// The encoding of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameEncoding {
    /// What a frame carries.
    pub(super) format: FrameFormat,
    /// How the frames are compressed that are worth it.
    pub(super) deflate: Option<PermessageDeflate>,
}

/// Bytes of frames, before they are compressed, of a segment that is: that takes some five times as
/// long as writing them, and a segment is encoded without a pause.
const COMPRESSED_AT_ONCE: usize = 64 << 10;

/// Segments that are kept for further sockets, of each chunk and encoding. Of those that are
/// compressed more: they are of less.
pub(super) const SEGMENTS_MAX: usize = 16;

impl FrameEncoding {
    /// How many bytes of frames, before they are compressed, a segment has at most; or it is one
    /// larger frame.
    pub(super) fn segment_bytes_max(self) -> usize {
        match self.deflate {
            None => SEGMENT_BYTES,
            Some(_) => COMPRESSED_AT_ONCE,
        }
    }

    /// How many segments of a chunk are kept.
    pub(super) fn segments_max(self) -> usize {
        SEGMENTS_MAX * (SEGMENT_BYTES / self.segment_bytes_max())
    }

    /// What encoding a segment takes, of so many bytes of frames before they are compressed: a large
    /// one stands beside what becomes of it.
    pub(super) fn encoding_bytes(self, frames: usize) -> usize {
        match self.deflate {
            Some(_) if frames > COMPRESSED_AT_ONCE => frames.saturating_mul(2),
            _ => frames,
        }
    }
}
