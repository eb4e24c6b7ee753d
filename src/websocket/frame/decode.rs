//! Client frames: always masked, possibly fragmented, cut anywhere by TCP.
//!
//! ```text
//!             ┌──────────────── frame done ───────────────┐
//!             ▼                                           │
//!  ── header incomplete ── header ─▶ payload incomplete ──┤
//!                                     unmasked and        ├─▶ control ─▶ Message
//!                                     checked as it       ├─▶ whole message: split off ─▶ Message
//!                                     arrives             └─▶ fragment: gathered, the last ─▶ Message
//! ```

use bytes::{Buf, Bytes, BytesMut};

use super::encode::CONTROL_BYTES_MAX;
use super::utf8::{Invalid, Utf8};
use super::{Close, CloseCode, Message, Opcode, Text, mask};

/// What a client may send at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Payload bytes of one message, all its fragments together.
    pub message_bytes_max: usize,
}

/// The client broke a rule: close with this code and reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} ({code})")]
pub struct Violation {
    /// 1002, 1007 or 1009.
    pub code: CloseCode,
    /// Which rule, short enough for a close frame.
    pub reason: &'static str,
}

impl From<Violation> for Close {
    fn from(violation: Violation) -> Self {
        Self::new(violation.code, violation.reason)
    }
}

/// Reads one connection's frames.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    /// The frame whose header has been taken off the buffer.
    frame: Option<Frame>,
    /// The fragmented message under way.
    message: Option<Kind>,
    pub(super) gathered: BytesMut,
    /// Of the text message under way.
    utf8: Utf8,
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    last: bool,
    len: usize,
    mask: [u8; 4],
    /// How much of the payload has been unmasked and checked.
    seen: usize,
}

impl Decoder {
    /// A decoder for a new connection.
    pub fn new(limits: Limits) -> Decoder {
        Decoder {
            limits,
            frame: None,
            message: None,
            gathered: BytesMut::new(),
            utf8: Utf8::default(),
            ended: false,
        }
    }

    /// Takes the next message off the front of `buffer`; `None` when more must be read
    /// first. To be called until it says `None` after each read.
    ///
    /// Between calls `buffer` may only grow at its end: an incomplete payload stays in
    /// it, already unmasked. A message of one frame shares the buffer's memory.
    pub fn read(&mut self, buffer: &mut BytesMut) -> Result<Option<Message>, Violation> {
        if self.ended {
            buffer.clear();
            return Ok(None);
        }
        let result = self.next(buffer);
        if matches!(result, Err(_) | Ok(Some(Message::Close(_)))) {
            self.ended = true;
            self.frame = None;
            self.gathered = BytesMut::new();
            buffer.clear();
        }
        result
    }

    /// How many bytes the frame under way still lacks: what to make room for before the
    /// next read. Zero between frames. Never over the limit.
    pub fn missing(&self) -> usize {
        self.frame.map_or(0, |frame| frame.len - frame.seen)
    }

    /// Whether nothing is under way, in the frame sense and in the message sense.
    pub fn is_idle(&self) -> bool {
        self.frame.is_none() && self.message.is_none()
    }

    fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Message>, Violation> {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => {
                    let Some((frame, size)) = Frame::parse(buffer)? else {
                        return Ok(None);
                    };
                    self.admit(&frame)?;
                    buffer.advance(size);
                    frame
                }
            };
            self.inspect(&mut frame, buffer)?;
            if frame.seen < frame.len {
                self.frame = Some(frame);
                return Ok(None);
            }
            let payload = buffer.split_to(frame.len);
            if let Some(message) = self.finish(frame, payload)? {
                return Ok(Some(message));
            }
        }
    }

    /// Decides from the header alone whether the frame may come.
    fn admit(&mut self, frame: &Frame) -> Result<(), Violation> {
        let expected = match frame.opcode {
            Opcode::Continuation if self.message.is_none() => {
                return Err(protocol("a continuation without a message to continue"));
            }
            Opcode::Text | Opcode::Binary if self.message.is_some() => {
                return Err(protocol("a new message inside a fragmented one"));
            }
            Opcode::Continuation => self.gathered.len(),
            Opcode::Text | Opcode::Binary => 0,
            _ => return Ok(()),
        };
        if frame.len > self.limits.message_bytes_max - expected {
            return Err(Violation {
                code: CloseCode::TOO_BIG,
                reason: "the message is over the size limit",
            });
        }
        Ok(())
    }

    /// Unmasks, and where it is text validates, what has arrived since the last look.
    fn inspect(&mut self, frame: &mut Frame, buffer: &mut BytesMut) -> Result<(), Violation> {
        let arrived = buffer.len().min(frame.len);
        if arrived == frame.seen {
            return Ok(());
        }
        let fresh = &mut buffer[frame.seen..arrived];
        mask::unmask(fresh, frame.mask, frame.seen);
        frame.seen = arrived;
        let text = match frame.opcode {
            Opcode::Text => true,
            Opcode::Continuation => self.message == Some(Kind::Text),
            _ => false,
        };
        if text {
            self.utf8.feed(fresh).map_err(|Invalid| NOT_UTF8)?;
        }
        Ok(())
    }

    /// Takes a complete frame; a message when it was a control frame or a last fragment.
    fn finish(&mut self, frame: Frame, payload: BytesMut) -> Result<Option<Message>, Violation> {
        let (kind, whole) = match frame.opcode {
            Opcode::Ping => return Ok(Some(Message::Ping(payload.freeze()))),
            Opcode::Pong => return Ok(Some(Message::Pong(payload.freeze()))),
            Opcode::Close => return close(&payload).map(|close| Some(Message::Close(close))),
            Opcode::Text => (Kind::Text, payload),
            Opcode::Binary => (Kind::Binary, payload),
            Opcode::Continuation => {
                let kind = self.message.take().expect("admitted as a continuation");
                self.gathered.extend_from_slice(&payload);
                (kind, BytesMut::new())
            }
        };
        let continued = frame.opcode == Opcode::Continuation;
        if !frame.last {
            self.message = Some(kind);
            if !continued {
                self.gathered.extend_from_slice(&whole);
            }
            return Ok(None);
        }
        let bytes = match continued {
            true => std::mem::take(&mut self.gathered).freeze(),
            false => whole.freeze(),
        };
        self.message(kind, bytes).map(Some)
    }

    fn message(&mut self, kind: Kind, bytes: Bytes) -> Result<Message, Violation> {
        match kind {
            Kind::Binary => Ok(Message::Binary(bytes)),
            Kind::Text if self.utf8.is_whole() => Ok(Message::Text(Text(bytes))),
            Kind::Text => Err(NOT_UTF8),
        }
    }
}

impl Frame {
    /// Reads a header and says how long it was; `None` when it is not all there. What two
    /// bytes already show to be wrong is refused with two bytes.
    fn parse(buffer: &[u8]) -> Result<Option<(Frame, usize)>, Violation> {
        let [first, second, rest @ ..] = buffer else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(protocol("a reserved bit is set"));
        }
        let Some(opcode) = Opcode::from_bits(first & 0x0F) else {
            return Err(protocol("a reserved opcode"));
        };
        let last = first & 0x80 != 0;
        if second & 0x80 == 0 {
            return Err(protocol("a client frame must be masked"));
        }
        let short = usize::from(second & 0x7F);
        if opcode.is_control() {
            if !last {
                return Err(protocol("a control frame must not be fragmented"));
            }
            if short > CONTROL_BYTES_MAX {
                return Err(protocol("a control frame carries at most 125 bytes"));
            }
        }
        let (len, rest, size) = match short {
            126 => {
                let Some((len, rest)) = rest.split_first_chunk() else {
                    return Ok(None);
                };
                (u64::from(u16::from_be_bytes(*len)), rest, 4)
            }
            127 => {
                let Some((len, rest)) = rest.split_first_chunk() else {
                    return Ok(None);
                };
                (u64::from_be_bytes(*len), rest, 10)
            }
            _ => (short as u64, rest, 2),
        };
        if len > i64::MAX as u64 {
            return Err(protocol("a length of 64 bits"));
        }
        if (short == 126 && len < 126) || (short == 127 && len <= 0xFFFF) {
            return Err(protocol("a length in more bytes than it needs"));
        }
        let Some((mask, _)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        let frame = Frame {
            opcode,
            last,
            // Saturated only where addresses are shorter than 63 bits, far over any limit.
            len: usize::try_from(len).unwrap_or(usize::MAX),
            mask: *mask,
            seen: 0,
        };
        Ok(Some((frame, size + 4)))
    }
}

/// What a close frame's payload says.
fn close(payload: &[u8]) -> Result<Option<Close>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok(None),
            _ => Err(protocol("a close code has two bytes")),
        };
    };
    let code = CloseCode(u16::from_be_bytes(*code));
    if !code.may_be_sent() {
        return Err(protocol("a close code that must not be sent"));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| Violation {
        code: CloseCode::INVALID_PAYLOAD,
        reason: "the close reason is not UTF-8",
    })?;
    Ok(Some(Close {
        code,
        reason: reason.into(),
    }))
}

const NOT_UTF8: Violation = Violation {
    code: CloseCode::INVALID_PAYLOAD,
    reason: "the text is not UTF-8",
};

fn protocol(reason: &'static str) -> Violation {
    Violation {
        code: CloseCode::PROTOCOL_ERROR,
        reason,
    }
}
