//! Frames that nobody thought of: of valid connections, of damaged ones, and noise.

use bytes::{BufMut, BytesMut};
use fuzzing::{FuzzInput, fuzz, within};

use super::encode::write_frame_header;
use super::*;

/// A message, or what ends the connection.
type Outcome = (Vec<WebSocketMessage>, Option<ProtocolViolation>);

/// How many times the largest message the decoder may hold, beside the buffer that it is given:
/// fragments are in a buffer that doubles, and for a moment in what that was before.
const HELD: usize = 3;

#[test]
fn fuzz_frames() {
    fuzz("frames", |input| {
        let message_bytes_max = input.up_to_bits(17);
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..input.below(6) {
            send_message(input, message_bytes_max, &mut bytes, &mut expected);
        }
        let valid = input.one_in(2);
        if !valid {
            input.damage(&mut bytes);
        }
        let whole = decode_all(&[&bytes], message_bytes_max);
        let pieces = input.cut(&bytes, 12);
        let in_pieces = decode_all(&pieces, message_bytes_max);
        assert_eq!(
            in_pieces, whole,
            "it depends on how the stream is cut: {bytes:02x?}"
        );
        if valid {
            assert_eq!(whole, (expected, None), "{bytes:02x?}");
        }
    });
}

/// Everything that comes of these pieces.
fn decode_all(pieces: &[&[u8]], message_bytes_max: usize) -> Outcome {
    let mut decoder = FrameDecoder::new(message_bytes_max);
    let mut buffer = BytesMut::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
    let mut messages = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let bytes_max = HELD * message_bytes_max + 1024;
            let decoded = within(bytes_max, "a frame", || decoder.decode(&mut buffer));
            assert!(decoder.payload_missing() <= message_bytes_max.max(CONTROL_PAYLOAD_MAX));
            match decoded {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(violation) => {
                    assert!(violation.reason.len() <= CONTROL_PAYLOAD_MAX - 2);
                    return (messages, Some(violation));
                }
            }
        }
    }
    (messages, None)
}

/// Writes a message in any number of fragments, with control frames in between.
fn send_message(
    input: &mut FuzzInput,
    bytes_max: usize,
    out: &mut Vec<u8>,
    expected: &mut Vec<WebSocketMessage>,
) {
    if matches!(expected.last(), Some(WebSocketMessage::Close(_))) {
        return;
    }
    if input.one_in(12) {
        return send_close(input, out, expected);
    }
    let mut text = input.text(200);
    while text.len() > bytes_max {
        text.pop();
    }
    let bits = if input.one_in(20) { 17 } else { 11 };
    let len = input.up_to_bits(bits).min(bytes_max);
    let bytes = input.bytes(len);
    let is_text = input.one_in(2);
    let payload = if is_text { text.as_bytes() } else { &bytes };
    let parts = input.cut(payload, 4);
    let count = parts.len();
    for (at, part) in parts.into_iter().enumerate() {
        let opcode = match (at, is_text) {
            (0, true) => Opcode::Text,
            (0, false) => Opcode::Binary,
            _ => Opcode::Continuation,
        };
        send_frame(input, opcode, at + 1 == count, part, out);
        if at + 1 < count && input.one_in(3) {
            send_control(input, out, expected);
        }
    }
    expected.push(match is_text {
        true => WebSocketMessage::Text(Utf8Bytes(text.into())),
        false => WebSocketMessage::Binary(bytes.into()),
    });
}

fn send_control(input: &mut FuzzInput, out: &mut Vec<u8>, expected: &mut Vec<WebSocketMessage>) {
    let len = input.below(CONTROL_PAYLOAD_MAX + 1);
    let payload = input.bytes(len);
    if input.one_in(2) {
        send_frame(input, Opcode::Ping, true, &payload, out);
        expected.push(WebSocketMessage::Ping(payload.into()));
    } else {
        send_frame(input, Opcode::Pong, true, &payload, out);
        expected.push(WebSocketMessage::Pong(payload.into()));
    }
}

/// As the encoder writes it, with whatever reason.
fn send_close(input: &mut FuzzInput, out: &mut Vec<u8>, expected: &mut Vec<WebSocketMessage>) {
    let code = *input.pick(&[1000, 1001, 1011, 1014, 3000, 4999, 1005]);
    let reason = input.text(130);
    let mut written = BytesMut::new();
    write_close(&mut written, CloseCode(code), &reason);
    send_frame(input, Opcode::Close, true, &written[2..], out);
    expected.push(WebSocketMessage::Close(match code {
        1005 => None,
        code => Some(CloseFrame::new(CloseCode(code), &reason)),
    }));
}

fn send_frame(input: &mut FuzzInput, opcode: Opcode, fin: bool, payload: &[u8], out: &mut Vec<u8>) {
    let mut frame = BytesMut::new();
    write_frame_header(&mut frame, opcode, payload.len());
    if !fin {
        frame[0] &= 0x7F;
    }
    frame[1] |= 0x80;
    let key = (input.number() as u32).to_be_bytes();
    frame.put_slice(&key);
    let payload_at = frame.len();
    frame.put_slice(payload);
    mask::unmask(&mut frame[payload_at..], key, 0);
    out.extend_from_slice(&frame);
}
