//! Server frames: never masked, and unfragmented but for text written by [`write_text_fragment`].

use bytes::{BufMut, BytesMut};

use super::close::fitting;
use super::{CONTROL_PAYLOAD_MAX, CloseCode, Opcode, RSV1};
use crate::deflate::{COMPRESSED_BYTES_MIN, PermessageDeflate};

/// How many bytes stand in front of a payload of that length: 2, 4 or 10.
#[inline]
const fn frame_header_len(payload: usize) -> usize {
    match payload {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    }
}

/// Writes the header of a whole, unmasked frame whose payload the caller writes next.
pub(super) fn write_frame_header(out: &mut BytesMut, opcode: Opcode, payload: usize) {
    let (header, len) = header(opcode, payload);
    out.put_slice(&header[..len]);
}

/// Writes a text frame; `payload` must be UTF-8.
pub fn write_text(out: &mut BytesMut, payload: &[u8]) {
    write_frame(out, Opcode::Text, payload);
}

/// Writes a whole message; compressed, as by [`end_message`].
pub fn write_message(
    out: &mut BytesMut,
    opcode: Opcode,
    payload: &[u8],
    deflate: Option<PermessageDeflate>,
) {
    let deflate = deflate.filter(|_| payload.len() >= COMPRESSED_BYTES_MIN);
    let mut compressor = deflate.map(PermessageDeflate::compressor);
    match compressor.as_mut().and_then(|c| c.compress(payload)) {
        None => write_frame(out, opcode, payload),
        Some(compressed) => {
            let at = out.len();
            write_frame(out, opcode, compressed);
            out[at] |= RSV1;
        }
    }
}

/// Writes a fragment of a text message: its first, its final one (`fin`), both or neither.
/// The borders may lie within a character.
pub fn write_text_fragment(out: &mut BytesMut, payload: &[u8], first: bool, fin: bool) {
    let opcode = match first {
        true => Opcode::Text,
        false => Opcode::Continuation,
    };
    let at = out.len();
    write_frame(out, opcode, payload);
    if !fin {
        out[at] &= !FIN;
    }
}

/// Writes a ping. A payload over 125 bytes, which the RFC forbids, is cut.
pub fn write_ping(out: &mut BytesMut, payload: &[u8]) {
    write_frame(
        out,
        Opcode::Ping,
        &payload[..payload.len().min(CONTROL_PAYLOAD_MAX)],
    );
}

/// Writes a pong. A payload over 125 bytes, which the RFC forbids, is cut.
pub fn write_pong(out: &mut BytesMut, payload: &[u8]) {
    write_frame(
        out,
        Opcode::Pong,
        &payload[..payload.len().min(CONTROL_PAYLOAD_MAX)],
    );
}

/// Writes a close frame. A reason over 123 bytes is cut before the character that does
/// not fit; a code that must not be sent ([`CloseCode::NO_STATUS_RECEIVED`], say) gives a
/// close frame without payload.
pub fn write_close(out: &mut BytesMut, code: CloseCode, reason: &str) {
    if !code.may_be_sent() {
        return write_frame_header(out, Opcode::Close, 0);
    }
    let reason = fitting(reason);
    write_frame_header(out, Opcode::Close, 2 + reason.len());
    out.put_u16(code.0);
    out.put_slice(reason.as_bytes());
}

/// Starts a frame whose payload's length is not known yet; the payload is what the
/// caller appends up to [`end_message`]. Returns where the frame begins, for that.
#[inline]
pub fn begin_frame(out: &mut BytesMut) -> usize {
    let start = out.len();
    out.put_slice(&[0; HEADER_ROOM]);
    start
}

/// Ends the frame begun at `start`: writes its header. A header of another size than the
/// usual one costs moving the payload, by two bytes when it is short.
#[inline]
fn end_frame(out: &mut BytesMut, start: usize, opcode: Opcode) {
    let payload = out.len() - start - HEADER_ROOM;
    let (header, len) = header(opcode, payload);
    let from = start + HEADER_ROOM..start + HEADER_ROOM + payload;
    if len < HEADER_ROOM {
        out.copy_within(from, start + len);
        out.truncate(start + len + payload);
    } else if len > HEADER_ROOM {
        out.put_bytes(0, len - HEADER_ROOM);
        out.copy_within(from, start + len);
    }
    out[start..start + len].copy_from_slice(&header[..len]);
}

/// Ends the frame of a whole message: compressed where that was negotiated, the message is worth it
/// (256 bytes and more), and becomes shorter.
#[inline]
pub fn end_message(
    out: &mut BytesMut,
    start: usize,
    opcode: Opcode,
    deflate: Option<PermessageDeflate>,
) {
    let payload = out.len() - start - HEADER_ROOM;
    match deflate.filter(|_| payload >= COMPRESSED_BYTES_MIN) {
        None => end_frame(out, start, opcode),
        Some(deflate) => end_compressed(out, start, opcode, deflate),
    }
}

fn end_compressed(out: &mut BytesMut, start: usize, opcode: Opcode, deflate: PermessageDeflate) {
    let payload_at = start + HEADER_ROOM;
    let mut compressor = deflate.compressor();
    let compressed = compressor.compress(&out[payload_at..]);
    let rsv1 = match compressed {
        None => 0,
        Some(compressed) => {
            out.truncate(payload_at);
            out.put_slice(compressed);
            RSV1
        }
    };
    end_frame(out, start, opcode);
    out[start] |= rsv1;
}

/// The FIN bit: the frame is the final fragment of its message.
const FIN: u8 = 0x80;

/// The header size that [`begin_frame`] leaves room for: that of 126 bytes to 64 KiB.
const HEADER_ROOM: usize = 4;

fn write_frame(out: &mut BytesMut, opcode: Opcode, payload: &[u8]) {
    out.reserve(frame_header_len(payload.len()) + payload.len());
    write_frame_header(out, opcode, payload.len());
    out.put_slice(payload);
}

#[inline]
fn header(opcode: Opcode, payload: usize) -> ([u8; 10], usize) {
    let mut header = [0; 10];
    header[0] = FIN | opcode.bits();
    let len = frame_header_len(payload);
    match len {
        2 => header[1] = payload as u8,
        4 => {
            header[1] = 126;
            header[2..4].copy_from_slice(&(payload as u16).to_be_bytes());
        }
        _ => {
            header[1] = 127;
            header[2..].copy_from_slice(&(payload as u64).to_be_bytes());
        }
    }
    (header, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_short_as_the_length_allows() {
        for (payload, expected) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65535, &[0x82, 126, 0xFF, 0xFF]),
            (65536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = BytesMut::new();
            write_frame_header(&mut out, Opcode::Binary, payload);
            assert_eq!(&out[..], expected);
            assert_eq!(frame_header_len(payload), expected.len());
        }
    }

    #[test]
    fn the_examples_of_the_rfc() {
        let mut out = BytesMut::new();
        write_text(&mut out, b"Hello");
        assert_eq!(&out[..], b"\x81\x05Hello");
        out.clear();
        write_ping(&mut out, b"Hello");
        assert_eq!(&out[..], b"\x89\x05Hello");
        out.clear();
        write_pong(&mut out, b"Hello");
        assert_eq!(&out[..], b"\x8a\x05Hello");
        out.clear();
        write_frame_header(&mut out, Opcode::Binary, 256);
        assert_eq!(&out[..], b"\x82\x7e\x01\x00");
        out.clear();
        write_close(&mut out, CloseCode(4401), "who?");
        assert_eq!(&out[..], b"\x88\x06\x11\x31who?");
    }

    #[test]
    fn control_frames_never_carry_more_than_125_bytes() {
        let mut out = BytesMut::new();
        write_close(&mut out, CloseCode::POLICY_VIOLATION, &"é".repeat(100));
        assert_eq!(out.len(), 2 + 2 + 122, "123 would cut a character");
        assert!(std::str::from_utf8(&out[4..]).is_ok());
        out.clear();
        write_ping(&mut out, &[0; 200]);
        assert_eq!(out.len(), 127);
        out.clear();
        write_close(&mut out, CloseCode(1005), "nothing was said");
        assert_eq!(&out[..], b"\x88\x00");
    }

    #[test]
    fn a_frame_of_unknown_length_is_the_frame_of_that_length() {
        for len in [0, 1, 125, 126, 127, 65535, 65536, 70000] {
            let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut expected = BytesMut::from(&b"before"[..]);
            write_text(&mut expected, &payload);
            let mut out = BytesMut::from(&b"before"[..]);
            let start = begin_frame(&mut out);
            out.put_slice(&payload);
            end_frame(&mut out, start, Opcode::Text);
            assert_eq!(out, expected, "{len}");
        }
    }
}
