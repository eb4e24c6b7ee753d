//! Client frames: always masked, possibly fragmented, cut anywhere by TCP.
//!
//! ```text
//!             ┌──────────── frame complete ───────────────┐
//!             ▼                                           │
//!  ── header incomplete ── header ─▶ payload incomplete ──┤
//!                                     unmasked and        ├─▶ control frame ─▶ WebSocketMessage
//!                                     validated as it     ├─▶ unfragmented: split off ─▶ WebSocketMessage
//!                                     arrives             └─▶ fragment: appended, the final one ─▶ WebSocketMessage
//! ```

use std::borrow::Cow;

use bytes::{Buf, Bytes, BytesMut};

use super::utf8::{InvalidUtf8, Utf8Validator};
use super::{
    CONTROL_PAYLOAD_MAX, CloseCode, CloseFrame, Opcode, Utf8Bytes, WebSocketMessage, mask,
};

/// The client broke RFC 6455: the server must _Fail the WebSocket Connection_ (section
/// 7.1.7), by a close frame with this status code and reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} ({code})")]
pub struct ProtocolViolation {
    /// 1002, 1007 or 1009.
    pub code: CloseCode,
    /// The rule that was broken, short enough for a close frame.
    pub reason: Cow<'static, str>,
}

impl From<ProtocolViolation> for CloseFrame {
    fn from(violation: ProtocolViolation) -> Self {
        Self::new(violation.code, &violation.reason)
    }
}

/// Decodes one connection's frames.
#[derive(Debug)]
pub struct FrameDecoder {
    message_bytes_max: usize,
    /// The frame whose header has been taken off the buffer.
    pub(super) frame: Option<FrameHeader>,
    /// The type of the fragmented message under way.
    pub(super) fragmented: Option<MessageType>,
    /// The payloads of its fragments so far.
    pub(super) fragments: BytesMut,
    /// Of the text message under way.
    utf8: Utf8Validator,
    /// After a close frame or a violation.
    closed: bool,
}

/// What a data message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageType {
    Text,
    Binary,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct FrameHeader {
    opcode: Opcode,
    fin: bool,
    payload_len: usize,
    masking_key: [u8; 4],
    /// How much of the payload has been unmasked and validated.
    unmasked: usize,
}

impl FrameDecoder {
    /// A decoder for a new connection. A message, all its fragments together, may have at
    /// most `message_bytes_max` bytes of payload.
    pub fn new(message_bytes_max: usize) -> FrameDecoder {
        FrameDecoder {
            message_bytes_max,
            frame: None,
            fragmented: None,
            fragments: BytesMut::new(),
            utf8: Utf8Validator::default(),
            closed: false,
        }
    }

    /// Takes the next message off the front of `buffer`; `None` when more must be read
    /// first. To be called until it returns `None` after each read.
    ///
    /// Between calls `buffer` may only grow at its end: an incomplete payload stays in
    /// it, already unmasked. A message of one frame shares the buffer's memory.
    ///
    /// # Errors
    /// [`ProtocolViolation`]; nothing is decoded after it.
    pub fn decode(
        &mut self,
        buffer: &mut BytesMut,
    ) -> Result<Option<WebSocketMessage>, ProtocolViolation> {
        if self.closed {
            buffer.clear();
            return Ok(None);
        }
        let result = self.decode_message(buffer);
        if matches!(result, Err(_) | Ok(Some(WebSocketMessage::Close(_)))) {
            self.closed = true;
            self.frame = None;
            self.fragments = BytesMut::new();
            buffer.clear();
        }
        result
    }

    /// How many bytes of payload the frame under way still lacks: what to make room for
    /// before the next read. Zero between frames. Never over the limit.
    pub fn payload_missing(&self) -> usize {
        self.frame
            .map_or(0, |frame| frame.payload_len - frame.unmasked)
    }

    fn decode_message(
        &mut self,
        buffer: &mut BytesMut,
    ) -> Result<Option<WebSocketMessage>, ProtocolViolation> {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => {
                    let Some((frame, size)) = FrameHeader::parse(buffer)? else {
                        return Ok(None);
                    };
                    self.check_header(&frame)?;
                    buffer.advance(size);
                    frame
                }
            };
            self.unmask_and_validate(&mut frame, buffer)?;
            if frame.unmasked < frame.payload_len {
                self.frame = Some(frame);
                return Ok(None);
            }
            let payload = buffer.split_to(frame.payload_len);
            if let Some(message) = self.complete_frame(frame, payload)? {
                return Ok(Some(message));
            }
        }
    }

    /// Decides from the header alone whether the frame may come.
    fn check_header(&mut self, frame: &FrameHeader) -> Result<(), ProtocolViolation> {
        let before = match frame.opcode {
            Opcode::Continuation if self.fragmented.is_none() => {
                return Err(protocol_error(
                    "a continuation without a message to continue",
                ));
            }
            Opcode::Text | Opcode::Binary if self.fragmented.is_some() => {
                return Err(protocol_error("a new message inside a fragmented one"));
            }
            Opcode::Continuation => self.fragments.len(),
            Opcode::Text | Opcode::Binary => 0,
            _ => return Ok(()),
        };
        if frame.payload_len > self.message_bytes_max - before {
            let reason = format!("the message is over {} bytes", self.message_bytes_max);
            return Err(ProtocolViolation {
                code: CloseCode::MESSAGE_TOO_BIG,
                reason: reason.into(),
            });
        }
        Ok(())
    }

    /// Unmasks, and where it is text validates, what has arrived since the last call.
    fn unmask_and_validate(
        &mut self,
        frame: &mut FrameHeader,
        buffer: &mut BytesMut,
    ) -> Result<(), ProtocolViolation> {
        let arrived = buffer.len().min(frame.payload_len);
        if arrived == frame.unmasked {
            return Ok(());
        }
        let fresh = &mut buffer[frame.unmasked..arrived];
        mask::unmask(fresh, frame.masking_key, frame.unmasked);
        frame.unmasked = arrived;
        let is_text = match frame.opcode {
            Opcode::Text => true,
            Opcode::Continuation => self.fragmented == Some(MessageType::Text),
            _ => false,
        };
        if is_text {
            self.utf8
                .validate(fresh)
                .map_err(|InvalidUtf8| INVALID_TEXT)?;
        }
        Ok(())
    }

    /// Takes a complete frame; a message when it was a control frame or a final fragment.
    fn complete_frame(
        &mut self,
        frame: FrameHeader,
        payload: BytesMut,
    ) -> Result<Option<WebSocketMessage>, ProtocolViolation> {
        let (message_type, whole) = match frame.opcode {
            Opcode::Ping => return Ok(Some(WebSocketMessage::Ping(payload.freeze()))),
            Opcode::Pong => return Ok(Some(WebSocketMessage::Pong(payload.freeze()))),
            Opcode::Close => {
                return parse_close(&payload).map(|close| Some(WebSocketMessage::Close(close)));
            }
            Opcode::Text => (MessageType::Text, payload),
            Opcode::Binary => (MessageType::Binary, payload),
            Opcode::Continuation => {
                let message_type = self.fragmented.take().expect("checked with the header");
                self.fragments.extend_from_slice(&payload);
                (message_type, BytesMut::new())
            }
        };
        let continued = frame.opcode == Opcode::Continuation;
        if !frame.fin {
            self.fragmented = Some(message_type);
            if !continued {
                self.fragments.extend_from_slice(&whole);
            }
            return Ok(None);
        }
        let bytes = match continued {
            true => std::mem::take(&mut self.fragments).freeze(),
            false => whole.freeze(),
        };
        self.complete_message(message_type, bytes).map(Some)
    }

    fn complete_message(
        &mut self,
        message_type: MessageType,
        bytes: Bytes,
    ) -> Result<WebSocketMessage, ProtocolViolation> {
        match message_type {
            MessageType::Binary => Ok(WebSocketMessage::Binary(bytes)),
            MessageType::Text if self.utf8.is_complete() => {
                Ok(WebSocketMessage::Text(Utf8Bytes(bytes)))
            }
            MessageType::Text => Err(INVALID_TEXT),
        }
    }
}

impl FrameHeader {
    /// Reads a header, and returns how long it was; `None` when it is not all there. What two
    /// bytes already show to be wrong is refused with two bytes.
    fn parse(buffer: &[u8]) -> Result<Option<(FrameHeader, usize)>, ProtocolViolation> {
        let [first, second, rest @ ..] = buffer else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(protocol_error("a reserved bit is set"));
        }
        let Some(opcode) = Opcode::from_bits(first & 0x0F) else {
            return Err(protocol_error("a reserved opcode"));
        };
        let fin = first & 0x80 != 0;
        if second & 0x80 == 0 {
            return Err(protocol_error("a client frame must be masked"));
        }
        let short = usize::from(second & 0x7F);
        if opcode.is_control() {
            if !fin {
                return Err(protocol_error("a control frame must not be fragmented"));
            }
            if short > CONTROL_PAYLOAD_MAX {
                return Err(protocol_error("a control frame carries at most 125 bytes"));
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
            return Err(protocol_error("a length of 64 bits"));
        }
        if (short == 126 && len < 126) || (short == 127 && len <= 0xFFFF) {
            return Err(protocol_error("a length in more bytes than it needs"));
        }
        let Some((masking_key, _)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        let frame = FrameHeader {
            opcode,
            fin,
            // Saturated only where addresses are shorter than 63 bits, far over any limit.
            payload_len: usize::try_from(len).unwrap_or(usize::MAX),
            masking_key: *masking_key,
            unmasked: 0,
        };
        Ok(Some((frame, size + 4)))
    }
}

/// Reads a close frame's payload.
fn parse_close(payload: &[u8]) -> Result<Option<CloseFrame>, ProtocolViolation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok(None),
            _ => Err(protocol_error("a close code has two bytes")),
        };
    };
    let code = CloseCode(u16::from_be_bytes(*code));
    if !code.may_be_sent() {
        return Err(protocol_error("a close code that must not be sent"));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| ProtocolViolation {
        code: CloseCode::INVALID_FRAME_PAYLOAD_DATA,
        reason: Cow::Borrowed("the close reason is not UTF-8"),
    })?;
    Ok(Some(CloseFrame {
        code,
        reason: reason.into(),
    }))
}

const INVALID_TEXT: ProtocolViolation = ProtocolViolation {
    code: CloseCode::INVALID_FRAME_PAYLOAD_DATA,
    reason: Cow::Borrowed("the text is not UTF-8"),
};

fn protocol_error(reason: &'static str) -> ProtocolViolation {
    ProtocolViolation {
        code: CloseCode::PROTOCOL_ERROR,
        reason: Cow::Borrowed(reason),
    }
}
