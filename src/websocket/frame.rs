//! The WebSocket wire format (RFC 6455), server side, without any I/O.
//!
//! ```text
//!  socket bytes ─▶ BytesMut ─▶ Decoder ─▶ Message    a whole frame is split off the buffer,
//!                                │                   unmasked where it lies, never copied
//!                                └─▶ Violation       the close code and reason to answer with
//!
//!  payload ─▶ text / binary / ping / pong / close ─▶ BytesMut ─▶ socket bytes
//!  payload of unknown length ─▶ begin … end ───────────┘
//! ```
//!
//! # Invariants
//! - A message is handed out only when all of it is known to be valid; text is UTF-8.
//! - What is refused is refused as early as the bytes allow: a size by its header, a bad
//!   character at the octet that breaks it, also in the middle of a frame.
//! - Between messages a decoder owns no memory; in a fragmented message it owns what has
//!   arrived of it, never more than the limit.
//! - After a close frame or a violation everything else is thrown away.

mod close;
mod decode;
mod encode;
mod mask;
#[cfg(test)]
mod tests;
mod utf8;

use bytes::Bytes;

pub use close::{Close, CloseCode};
pub use decode::{Decoder, Limits, Violation};
pub use encode::{
    begin, binary, close, end, frame_header_len, ping, pong, text, text_fragment, write_header,
};

/// What a data frame carries, as it stands in the low four bits of a frame's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// A further fragment of the message under way.
    Continuation,
    /// UTF-8 text.
    Text,
    /// Bytes.
    Binary,
    /// The connection's end.
    Close,
    /// A question whether the peer is alive.
    Ping,
    /// The answer to a ping, or an unasked sign of life.
    Pong,
}

impl Opcode {
    /// The opcode of that number; `None` for the reserved ones.
    pub fn from_bits(bits: u8) -> Option<Opcode> {
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
    pub fn bits(self) -> u8 {
        match self {
            Opcode::Continuation => 0x0,
            Opcode::Text => 0x1,
            Opcode::Binary => 0x2,
            Opcode::Close => 0x8,
            Opcode::Ping => 0x9,
            Opcode::Pong => 0xA,
        }
    }

    /// Control frames are short, whole, and may stand between the fragments of a message.
    pub fn is_control(self) -> bool {
        self.bits() & 0x8 != 0
    }
}

/// One whole message from the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Text, valid UTF-8.
    Text(Text),
    /// Bytes.
    Binary(Bytes),
    /// To be answered by a pong with the same payload.
    Ping(Bytes),
    /// An answer to our ping, or unasked.
    Pong(Bytes),
    /// The client closes; `None` when it gave no code. Nothing comes after it.
    Close(Option<Close>),
}

/// Bytes that the decoder has found to be UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Text(Bytes);

impl Text {
    /// The text as bytes: free.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text as a string. This looks at every byte again; what works on bytes should
    /// take [`Text::as_bytes`].
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("only the decoder makes texts, after validation")
    }

    /// The bytes themselves, to slice or to keep.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
