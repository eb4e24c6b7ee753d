//! The WebSocket wire format (RFC 6455, section 5), server side, without any I/O.
//!
//! ```text
//!  socket bytes ─▶ BytesMut ─▶ FrameDecoder ─▶ WebSocketMessage   a whole frame is split off the
//!                                   │                             buffer, unmasked where it lies,
//!                                   │                             never copied
//!                                   └─▶ ProtocolViolation         status code and reason of the
//!                                                                 close frame to send
//!
//!  payload ─▶ write_text / write_ping / write_pong / write_close ─▶ BytesMut ─▶ socket bytes
//!  payload of unknown length ─▶ begin_frame … end_message ────────────┘
//! ```
//!
//! # Invariants
//! - A message is handed out only when all of it is known to be valid; text is UTF-8. One that is
//!   compressed is known to be so when it is inflated.
//! - What is invalid is refused as early as the bytes allow: a size by its header, a bad
//!   character at the octet that breaks it, also in the middle of a frame.
//! - Between messages a decoder owns no memory; in a fragmented message it owns what has
//!   arrived of it, never more than the limit.
//! - After a close frame or a violation everything else is thrown away.

mod close;
mod decode;
mod encode;
#[cfg(test)]
mod fuzz;
mod mask;
#[cfg(test)]
mod tests;
mod utf8;

use bytes::Bytes;

pub use close::{CloseCode, CloseFrame};
pub use decode::{FrameDecoder, ProtocolViolation};
pub use encode::{
    begin_frame, end_message, write_close, write_message, write_ping, write_pong, write_text,
    write_text_fragment,
};

/// The most bytes of payload that a control frame may carry (section 5.5).
const CONTROL_PAYLOAD_MAX: usize = 125;

/// The reserved bit that says that a message is compressed, where that was negotiated: in the first
/// byte of its first frame (RFC 7692, section 6).
const RSV1: u8 = 0x40;

/// How a frame's payload is to be read: the low four bits of its first byte (section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// A further fragment of the message under way.
    Continuation,
    /// UTF-8 text.
    Text,
    /// Bytes.
    Binary,
    /// The closing handshake: its first half or its answer.
    Close,
    /// Asks the peer for a pong.
    Ping,
    /// The answer to a ping, or an unsolicited heartbeat.
    Pong,
}

impl Opcode {
    /// The opcode of that number; `None` for the reserved ones.
    pub(crate) fn from_bits(bits: u8) -> Option<Opcode> {
        Some(match bits {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xA => Opcode::Pong,
            _ => return None,
        })
    }

    /// The number in the frame.
    #[inline]
    pub(crate) fn bits(self) -> u8 {
        match self {
            Opcode::Continuation => 0x0,
            Opcode::Text => 0x1,
            Opcode::Binary => 0x2,
            Opcode::Close => 0x8,
            Opcode::Ping => 0x9,
            Opcode::Pong => 0xA,
        }
    }

    /// Control frames are short, unfragmented, and may stand between the fragments of a
    /// message.
    pub(crate) fn is_control(self) -> bool {
        self.bits() & 0x8 != 0
    }
}

/// One whole message from the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebSocketMessage {
    /// Text, valid UTF-8.
    Text(Utf8Bytes),
    /// Bytes.
    Binary(Bytes),
    /// Text or bytes, to be inflated.
    Compressed(CompressedMessage),
    /// To be answered by a pong with the same payload.
    Ping(Bytes),
    /// An answer to our ping, or unsolicited.
    Pong(Bytes),
    /// The client starts the closing handshake, or answers ours; `None` when its frame
    /// has no status code. Nothing comes after it.
    Close(Option<CloseFrame>),
}

/// A message that the client sent compressed, and nobody has inflated yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompressedMessage {
    is_text: bool,
    payload: Bytes,
}

/// Bytes that the decoder has found to be UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Utf8Bytes(Bytes);

impl Utf8Bytes {
    /// The text as bytes: free.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
