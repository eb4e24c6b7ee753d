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
//!
//! With RSV1 in its first frame a message is compressed (RFC 7692): it is handed out as it came.
//!
//! ```text
//!  WebSocketMessage::Compressed ─▶ inflate, validate ─▶ WebSocketMessage
//! ```

use std::borrow::Cow;

use bytes::{Buf, Bytes, BytesMut};

use super::utf8::{InvalidUtf8, Utf8Validator};
use super::{
    CONTROL_PAYLOAD_MAX, CloseCode, CloseFrame, CompressedMessage, Opcode, RSV1, Utf8Bytes,
    WebSocketMessage, mask,
};
use crate::deflate::{self, InflateError};

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
    /// Whether messages may be compressed.
    takes_compressed: bool,
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
pub(super) struct MessageType {
    is_text: bool,
    is_compressed: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct FrameHeader {
    opcode: Opcode,
    fin: bool,
    /// RSV1.
    is_compressed: bool,
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
            takes_compressed: false,
            frame: None,
            fragmented: None,
            fragments: BytesMut::new(),
            utf8: Utf8Validator::default(),
            closed: false,
        }
    }

    /// Takes messages that are compressed, too, as far as no more than the limit may come of them.
    pub fn taking_compressed(mut self) -> FrameDecoder {
        self.takes_compressed = true;
        self
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
                    let parsed = FrameHeader::parse(buffer, self.takes_compressed)?;
                    let Some((frame, size)) = parsed else {
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
        let is_compressed = match self.fragmented {
            Some(begun) => begun.is_compressed,
            None => frame.is_compressed,
        };
        let bytes_max = match is_compressed {
            true => deflate::compressed_bytes_max(self.message_bytes_max),
            false => self.message_bytes_max,
        };
        if frame.payload_len > bytes_max - before {
            return Err(message_too_big(self.message_bytes_max));
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
        let is_plain_text = match frame.opcode {
            Opcode::Text => !frame.is_compressed,
            Opcode::Continuation => self
                .fragmented
                .is_some_and(|begun| begun.is_text && !begun.is_compressed),
            _ => false,
        };
        if is_plain_text {
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
            Opcode::Text | Opcode::Binary => {
                let message_type = MessageType {
                    is_text: frame.opcode == Opcode::Text,
                    is_compressed: frame.is_compressed,
                };
                (message_type, payload)
            }
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
        match message_type.is_text {
            is_text if message_type.is_compressed => {
                let payload = bytes;
                Ok(WebSocketMessage::Compressed(CompressedMessage {
                    is_text,
                    payload,
                }))
            }
            false => Ok(WebSocketMessage::Binary(bytes)),
            true if self.utf8.is_complete() => Ok(WebSocketMessage::Text(Utf8Bytes(bytes))),
            true => Err(INVALID_TEXT),
        }
    }
}

impl CompressedMessage {
    /// How many bytes came.
    pub fn compressed_len(&self) -> usize {
        self.payload.len()
    }

    /// The message, if it has at most `bytes_max` bytes: no more than that is inflated.
    ///
    /// # Errors
    /// [`ProtocolViolation`]: it has more, or is no message. What does not inflate is not consistent
    /// with the type of its message, which is 1007 (RFC 6455, section 7.4.1), as a text is that is
    /// not UTF-8.
    pub fn inflate(&self, bytes_max: usize) -> Result<WebSocketMessage, ProtocolViolation> {
        let inflated = deflate::inflate(&self.payload, bytes_max);
        let message = inflated.map_err(|error| match error {
            InflateError::TooLong => message_too_big(bytes_max),
            InflateError::Invalid => ProtocolViolation {
                code: CloseCode::INVALID_FRAME_PAYLOAD_DATA,
                reason: Cow::Borrowed("the compressed message cannot be inflated"),
            },
        })?;
        match self.is_text {
            false => Ok(WebSocketMessage::Binary(message.into())),
            true if std::str::from_utf8(&message).is_err() => Err(INVALID_TEXT),
            true => Ok(WebSocketMessage::Text(Utf8Bytes(message.into()))),
        }
    }
}

impl FrameHeader {
    /// Reads a header, and returns how long it was; `None` when it is not all there. What two
    /// bytes already show to be wrong is refused with two bytes.
    fn parse(
        buffer: &[u8],
        takes_compressed: bool,
    ) -> Result<Option<(FrameHeader, usize)>, ProtocolViolation> {
        let [first, second, rest @ ..] = buffer else {
            return Ok(None);
        };
        let is_compressed = takes_compressed && first & RSV1 != 0;
        if first & 0x70 != 0 && !(is_compressed && first & 0x30 == 0) {
            return Err(protocol_error("a reserved bit is set"));
        }
        let Some(opcode) = Opcode::from_bits(first & 0x0F) else {
            return Err(protocol_error("a reserved opcode"));
        };
        if is_compressed && !matches!(opcode, Opcode::Text | Opcode::Binary) {
            return Err(protocol_error(
                "only the first frame of a message says that it is compressed",
            ));
        }
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
            is_compressed,
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

fn message_too_big(bytes_max: usize) -> ProtocolViolation {
    ProtocolViolation {
        code: CloseCode::MESSAGE_TOO_BIG,
        reason: format!("the message is over {bytes_max} bytes").into(),
    }
}

fn protocol_error(reason: &'static str) -> ProtocolViolation {
    ProtocolViolation {
        code: CloseCode::PROTOCOL_ERROR,
        reason: Cow::Borrowed(reason),
    }
}
