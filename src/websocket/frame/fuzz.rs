//! Frames that nobody thought of: of valid connections, of damaged ones, and noise.

use bytes::{BufMut, BytesMut};
use fuzzing::{FuzzInput, fuzz, within};

use super::encode::write_frame_header;
use super::*;
use crate::deflate::{self, PermessageDeflate};

/// A message, or what ends the connection.
type Outcome = (Vec<WebSocketMessage>, Option<ProtocolViolation>);

/// How many times the largest message the decoder may hold, beside the buffer that it is given:
/// fragments are in a buffer that doubles, and for a moment in what that was before.
const HELD: usize = 3;
/// What inflating takes beside the message: its state, which is kept for others.
const INFLATING: usize = 192 << 10;

#[test]
fn fuzz_frames() {
    fuzz("frames", |input| {
        let message_bytes_max = input.up_to_bits(17);
        let deflate = input.one_in(2).then(negotiated);
        let mut client = SendingClient {
            bytes_max: message_bytes_max,
            deflate,
            sent: Vec::new(),
            expected: (Vec::new(), None),
        };
        for _ in 0..input.below(6) {
            client.send_message(input);
        }
        let SendingClient {
            mut sent, expected, ..
        } = client;
        let valid = input.one_in(2);
        if !valid {
            input.damage(&mut sent);
        }
        let decoder = || match deflate {
            None => FrameDecoder::new(message_bytes_max),
            Some(_) => FrameDecoder::new(message_bytes_max).taking_compressed(),
        };
        let whole = decode_all(decoder(), &[&sent], message_bytes_max);
        let pieces = input.cut(&sent, 12);
        let in_pieces = decode_all(decoder(), &pieces, message_bytes_max);
        assert_eq!(
            in_pieces, whole,
            "it depends on how the stream is cut: {sent:02x?}"
        );
        if valid {
            let (messages, violation) = whole;
            let refused = violation.map(|violation| violation.code);
            assert_eq!((messages, refused), expected, "{sent:02x?}");
        }
    });
}

fn negotiated() -> PermessageDeflate {
    let mut request = http::HeaderMap::new();
    let offer = http::HeaderValue::from_static("permessage-deflate");
    request.insert("sec-websocket-extensions", offer);
    PermessageDeflate::negotiate(&request).expect("taken").0
}

/// Everything that comes of these pieces.
fn decode_all(mut decoder: FrameDecoder, pieces: &[&[u8]], message_bytes_max: usize) -> Outcome {
    let mut buffer = BytesMut::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
    let mut messages = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let bytes_max = HELD * message_bytes_max + 1024;
            let decoded = within(bytes_max, "a frame", || decoder.decode(&mut buffer));
            let missing_max = deflate::compressed_bytes_max(message_bytes_max);
            assert!(decoder.payload_missing() <= missing_max.max(CONTROL_PAYLOAD_MAX));
            let decoded = match decoded {
                Ok(Some(WebSocketMessage::Compressed(message))) => {
                    within(bytes_max + INFLATING, "inflating", || {
                        message.inflate(message_bytes_max).map(Some)
                    })
                }
                decoded => decoded,
            };
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

/// A client that sends what is valid, but for a message over the limit at times.
struct SendingClient {
    bytes_max: usize,
    /// How it compresses some of its messages.
    deflate: Option<PermessageDeflate>,
    sent: Vec<u8>,
    /// What must come of it; nothing does after a close frame, or after what is refused.
    expected: (Vec<WebSocketMessage>, Option<CloseCode>),
}

impl SendingClient {
    /// Sends a message in any number of fragments, with control frames in between.
    fn send_message(&mut self, input: &mut FuzzInput) {
        if input.one_in(12) {
            return self.send_close(input);
        }
        let bytes_max = match input.one_in(12) {
            true => usize::MAX,
            false => self.bytes_max,
        };
        let mut text = input.text(200);
        while text.len() > bytes_max {
            text.pop();
        }
        let bits = if input.one_in(20) { 17 } else { 11 };
        let len = input.up_to_bits(bits).min(bytes_max);
        let bytes = input.bytes(len);
        let is_text = input.one_in(2);
        let message = if is_text { text.as_bytes() } else { &bytes };
        let fits = message.len() <= self.bytes_max;
        let mut compressor = self.deflate.filter(|_| fits).map(|d| d.compressor());
        let compressed = compressor.as_mut().and_then(|c| c.compress(message));
        let (payload, rsv1) = compressed.map_or((message, 0), |payload| (payload, RSV1));
        let parts = input.cut(payload, 4);
        let (count, mut size) = (parts.len(), 0);
        for (at, part) in parts.into_iter().enumerate() {
            let opcode = match (at, is_text) {
                (0, true) => Opcode::Text,
                (0, false) => Opcode::Binary,
                _ => Opcode::Continuation,
            };
            size += part.len();
            if size > self.bytes_max && !self.has_ended() {
                self.expected.1 = Some(CloseCode::MESSAGE_TOO_BIG);
            }
            let at_frame = self.sent.len();
            self.send_frame(input, opcode, at + 1 == count, part);
            if at == 0 {
                self.sent[at_frame] |= rsv1;
            }
            if at + 1 < count && input.one_in(3) {
                self.send_control(input);
            }
        }
        self.expect(match is_text {
            true => WebSocketMessage::Text(Utf8Bytes(text.into())),
            false => WebSocketMessage::Binary(bytes.into()),
        });
    }

    fn send_control(&mut self, input: &mut FuzzInput) {
        let len = input.below(CONTROL_PAYLOAD_MAX + 1);
        let payload = input.bytes(len);
        if input.one_in(2) {
            self.send_frame(input, Opcode::Ping, true, &payload);
            self.expect(WebSocketMessage::Ping(payload.into()));
        } else {
            self.send_frame(input, Opcode::Pong, true, &payload);
            self.expect(WebSocketMessage::Pong(payload.into()));
        }
    }

    /// As the encoder writes it, with whatever reason.
    fn send_close(&mut self, input: &mut FuzzInput) {
        let code = *input.pick(&[1000, 1001, 1011, 1014, 3000, 4999, 1005]);
        let reason = input.text(130);
        let mut written = BytesMut::new();
        write_close(&mut written, CloseCode(code), &reason);
        self.send_frame(input, Opcode::Close, true, &written[2..]);
        self.expect(WebSocketMessage::Close(match code {
            1005 => None,
            code => Some(CloseFrame::new(CloseCode(code), &reason)),
        }));
    }

    fn expect(&mut self, message: WebSocketMessage) {
        if !self.has_ended() {
            self.expected.0.push(message);
        }
    }

    fn has_ended(&self) -> bool {
        let (messages, refused) = &self.expected;
        refused.is_some() || matches!(messages.last(), Some(WebSocketMessage::Close(_)))
    }

    fn send_frame(&mut self, input: &mut FuzzInput, opcode: Opcode, fin: bool, payload: &[u8]) {
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
        self.sent.extend_from_slice(&frame);
    }
}
