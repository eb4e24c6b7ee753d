//! The sink without `batchSize`: each record is a text frame, written from the chunk that it
//! is encoded in, without a copy.

use std::io;

use super::chunk::OutgoingChunk;
use super::delivery_listener::DeliveryListener;
use crate::socket::session::SocketSession;

/// What one call has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SentRecords {
    /// How many records it began to send: a record counts for the rate when it is begun.
    pub(super) begun: usize,
    /// Whether the kernel did not take all.
    pub(super) blocked: bool,
}

/// Writes frames of the chunk, of which `permits` may be begun.
///
/// A frame that is partly sent is completed first; while the session has frames of its own
/// to send, nothing but that.
pub(super) fn send(
    chunk: &mut OutgoingChunk,
    permits: usize,
    session: &mut SocketSession,
    listener: &mut impl DeliveryListener,
) -> io::Result<SentRecords> {
    let begun = chunk.begun();
    let end = match chunk.is_inside_frame() && !session.out.is_empty() {
        true => begun,
        false => begun.saturating_add(permits),
    };
    let bytes = chunk.bytes_before(end);
    let wanted = bytes.len();
    let written = session.write(bytes)?;
    let completed = chunk.sent(written);
    if chunk.is_assigned {
        listener.delivered(chunk.tp(), &chunk.frames()[completed]);
    }
    Ok(SentRecords {
        begun: chunk.begun() - begun,
        blocked: written < wanted,
    })
}
