//! The sink without `batchSize`: each record is a text frame, written from the chunk that it
//! is encoded in, without a copy.

use std::io;
use std::ops::Range;

use super::chunk::OutgoingChunk;
use crate::socket::session::SocketSession;

/// What one write has sent.
#[derive(Debug)]
pub(super) struct SentFrames {
    /// How many frames it began; a frame counts for the rate when it is begun.
    pub(super) begun: usize,
    /// The frames that it completed.
    pub(super) completed: Range<usize>,
    /// Whether the kernel did not take all.
    pub(super) blocked: bool,
}

/// Writes frames of the chunk, of which `permits` may be begun.
///
/// A frame that is partly sent is completed first; while the session has frames of its own
/// to send, nothing but that.
pub(super) fn send_frames(
    chunk: &mut OutgoingChunk,
    permits: usize,
    session: &mut SocketSession,
) -> io::Result<SentFrames> {
    let begun = chunk.begun();
    let end = match chunk.is_inside_frame() && !session.out.is_empty() {
        true => begun,
        false => begun.saturating_add(permits),
    };
    let bytes = chunk.bytes_before(end);
    let wanted = bytes.len();
    let written = session.write(bytes)?;
    let completed = chunk.sent(written);
    Ok(SentFrames {
        begun: chunk.begun() - begun,
        completed,
        blocked: written < wanted,
    })
}
