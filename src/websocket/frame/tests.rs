//! What a client may and may not send, as the RFC and the Autobahn test suite have it.
//! Every case is fed whole, one byte at a time, and one frame at a time.

mod compressed;

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use super::encode::write_frame_header;
use super::*;

const MESSAGE_BYTES_MAX: usize = 1 << 20;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client frame: `first` is the first byte, with FIN and reserved bits as given.
fn client(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = BytesMut::new();
    write_frame_header(&mut frame, Opcode::Binary, payload.len());
    frame[0] = first;
    frame[1] |= 0x80;
    frame.put_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(b, k)| b ^ k));
    frame.to_vec()
}

const TEXT: u8 = 0x81;
const TEXT_OPEN: u8 = 0x01;
const BINARY: u8 = 0x82;
const BINARY_OPEN: u8 = 0x02;
const MORE: u8 = 0x00;
const LAST: u8 = 0x80;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;

type Decoded = (Vec<WebSocketMessage>, Option<u16>);

fn decoded<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Decoded {
    decoded_by(FrameDecoder::new(MESSAGE_BYTES_MAX), pieces)
}

/// With what is compressed inflated.
fn decoded_by<'a>(
    mut decoder: FrameDecoder,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Decoded {
    let mut buffer = BytesMut::new();
    let mut messages = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(WebSocketMessage::Compressed(message))) => {
                    match message.inflate(MESSAGE_BYTES_MAX) {
                        Ok(message) => messages.push(message),
                        Err(violation) => return (messages, Some(violation.code.0)),
                    }
                }
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(violation) => {
                    assert!(violation.reason.len() <= 123);
                    assert_eq!(decoder.decode(&mut buffer), Ok(None), "nothing after it");
                    return (messages, Some(violation.code.0));
                }
            }
        }
    }
    (messages, None)
}

/// The outcome of these frames, which must not depend on how TCP cuts them.
fn all_ways(frames: &[Vec<u8>]) -> Decoded {
    let whole = frames.concat();
    let at_once = decoded([&whole[..]]);
    assert_eq!(decoded(whole.chunks(1)), at_once, "byte by byte");
    assert_eq!(decoded(whole.chunks(7)), at_once, "seven at a time");
    assert_eq!(decoded(frames.iter().map(|f| &f[..])), at_once, "by frame");
    at_once
}

fn is_text(expected: &str, frames: &[Vec<u8>]) {
    let message = WebSocketMessage::Text(Utf8Bytes(expected.as_bytes().to_vec().into()));
    assert_eq!(all_ways(frames), (vec![message], None));
}

fn is_refused(code: u16, frames: &[Vec<u8>]) {
    let (messages, violation) = all_ways(frames);
    assert_eq!(violation, Some(code), "{frames:02x?} gave {messages:?}");
}

fn binary_of(payload: &[u8]) -> WebSocketMessage {
    WebSocketMessage::Binary(Bytes::copy_from_slice(payload))
}

fn ping_of(payload: &[u8]) -> WebSocketMessage {
    WebSocketMessage::Ping(Bytes::copy_from_slice(payload))
}

#[test]
fn the_masked_examples_of_the_rfc_are_read() {
    let hello = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec();
    is_text("Hello", &[hello]);
    let ping = b"\x89\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec();
    assert_eq!(all_ways(&[ping]), (vec![ping_of(b"Hello")], None));
}

#[test]
fn messages_of_every_header_size_are_read() {
    for len in [0, 1, 7, 8, 125, 126, 127, 128, 65535, 65536, 65537] {
        let payload: Vec<u8> = (0..len).map(|i| (i % 120) as u8).collect();
        let text = String::from_utf8(payload.clone()).expect("ASCII");
        assert_eq!(
            decoded([&[client(TEXT, &payload), client(BINARY, &payload)].concat()[..]]),
            (
                vec![
                    WebSocketMessage::Text(Utf8Bytes(text.into())),
                    binary_of(&payload)
                ],
                None
            )
        );
    }
}

#[test]
fn a_message_of_one_frame_is_not_copied() {
    let mut buffer = BytesMut::from(&client(BINARY, &[9; 500])[..]);
    let at = buffer.as_ptr() as usize + 8;
    let Ok(Some(WebSocketMessage::Binary(bytes))) =
        FrameDecoder::new(MESSAGE_BYTES_MAX).decode(&mut buffer)
    else {
        panic!("not the message");
    };
    assert_eq!(bytes.as_ptr() as usize, at);
}

#[test]
fn pings_and_pongs_are_read_between_fragments_too() {
    // Autobahn 2.x and 5.6 to 5.8, 5.19, 5.20.
    assert_eq!(
        all_ways(&[
            client(PING, b""),
            client(PONG, b"unasked"),
            client(TEXT_OPEN, b"frag"),
            client(PING, &[0xFE; 125]),
            client(MORE, b""),
            client(PING, b"\x00\xff"),
            client(LAST, b"ment"),
            client(PING, b"x"),
        ]),
        (
            vec![
                ping_of(b""),
                WebSocketMessage::Pong(Bytes::from_static(b"unasked")),
                ping_of(&[0xFE; 125]),
                ping_of(b"\x00\xff"),
                WebSocketMessage::Text(Utf8Bytes("fragment".into())),
                ping_of(b"x"),
            ],
            None
        )
    );
}

#[test]
fn fragments_make_one_message() {
    is_text("", &[client(TEXT_OPEN, b""), client(LAST, b"")]);
    is_text(
        "abc",
        &[
            client(TEXT_OPEN, b""),
            client(MORE, b"abc"),
            client(MORE, b""),
            client(LAST, b""),
        ],
    );
    assert_eq!(
        all_ways(&[
            client(BINARY_OPEN, b"\xff\xfe"),
            client(LAST, b"\xfd"),
            client(TEXT, b"next"),
        ]),
        (
            vec![
                binary_of(b"\xff\xfe\xfd"),
                WebSocketMessage::Text(Utf8Bytes("next".into()))
            ],
            None
        )
    );
}

#[test]
fn reserved_bits_and_opcodes_are_refused() {
    for bit in [0x40, 0x20, 0x10] {
        for first in [TEXT, BINARY, PING, PONG, CLOSE] {
            is_refused(1002, &[client(first | bit, b"")]);
        }
    }
    for opcode in [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF] {
        is_refused(1002, &[client(0x80 | opcode, b"ab")]);
    }
}

#[test]
fn misplaced_fragments_are_refused() {
    is_refused(1002, &[client(LAST, b"nothing to continue")]);
    is_refused(1002, &[client(MORE, b"nothing to continue")]);
    is_refused(1002, &[client(TEXT_OPEN, b"a"), client(TEXT, b"b")]);
    is_refused(1002, &[client(TEXT_OPEN, b"a"), client(BINARY_OPEN, b"b")]);
    is_refused(
        1002,
        &[
            client(TEXT_OPEN, b"a"),
            client(LAST, b"b"),
            client(LAST, b"c"),
        ],
    );
    for first in [0x08, 0x09, 0x0A] {
        is_refused(1002, &[client(first, b"")]);
    }
}

#[test]
fn long_control_frames_are_refused_by_their_header() {
    for first in [PING, PONG, CLOSE] {
        is_refused(1002, &[client(first, &[b'a'; 126])]);
        is_refused(1002, &[vec![first, 0xFE]]);
    }
}

#[test]
fn unmasked_frames_are_refused() {
    is_refused(1002, &[b"\x81\x05Hello".to_vec()]);
    is_refused(1002, &[b"\x88\x00".to_vec()]);
}

#[test]
fn lengths_in_more_bytes_than_needed_and_of_64_bits_are_refused() {
    is_refused(1002, &[b"\x82\xfe\x00\x7d".to_vec()]);
    is_refused(
        1002,
        &[b"\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff".to_vec()],
    );
    is_refused(
        1002,
        &[b"\x82\xff\x80\x00\x00\x00\x00\x01\x00\x00".to_vec()],
    );
}

#[test]
fn a_message_over_the_limit_is_refused_before_its_payload_comes() {
    let over = MESSAGE_BYTES_MAX + 1;
    let mut header = BytesMut::new();
    write_frame_header(&mut header, Opcode::Text, over);
    header[1] |= 0x80;
    header.put_slice(&MASK);
    is_refused(1009, &[header.to_vec()]);
    let huge = b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00";
    is_refused(1009, &[huge.to_vec()]);

    let limited = |max: usize, frames: &[Vec<u8>]| {
        let mut decoder = FrameDecoder::new(max);
        let mut buffer = BytesMut::from(&frames.concat()[..]);
        decoder
            .decode(&mut buffer)
            .map_err(|violation| violation.code)
    };
    let fragments = [client(BINARY_OPEN, b"abc"), client(LAST, b"de")];
    assert_eq!(limited(5, &fragments), Ok(Some(binary_of(b"abcde"))));
    assert_eq!(limited(4, &fragments), Err(CloseCode::MESSAGE_TOO_BIG));
    assert_eq!(
        limited(0, &[client(PING, b"not a message")]),
        Ok(Some(ping_of(b"not a message")))
    );
}

#[test]
fn text_is_valid_over_fragment_borders() {
    let text = "Hello-µ@ßöäüàá-UTF-8!!κόσμε😀";
    for cut in 0..=text.len() {
        let (a, b) = text.as_bytes().split_at(cut);
        is_text(text, &[client(TEXT_OPEN, a), client(LAST, b)]);
    }
    let bytes: Vec<Vec<u8>> = std::iter::once(client(TEXT_OPEN, b""))
        .chain(text.bytes().map(|b| client(MORE, &[b])))
        .chain([client(LAST, b"")])
        .collect();
    is_text(text, &bytes);
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    // Autobahn 6.3 to 6.21: one per kind; the validator's own tests have them all.
    for bad in [
        &b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"[..],
        b"\xce\xba\xf4\x90\x80\x80edited",
        b"\xce",
        b"\xce\xba\xe1",
        b"\xf8\x88\x80\x80\x80",
        b"\xc0\x80",
        b"\xed\xad\xbf\xed\xb0\x80",
    ] {
        is_refused(1007, &[client(TEXT, bad)]);
        for cut in 0..=bad.len() {
            let (a, b) = bad.split_at(cut);
            is_refused(1007, &[client(TEXT_OPEN, a), client(LAST, b)]);
        }
    }
}

#[test]
fn bad_text_is_refused_in_the_middle_of_a_frame() {
    // Autobahn 6.4.3: the rest of the frame never comes.
    let frame = client(TEXT, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xf4\x90\x80\x80edited");
    let header = 6;
    assert_eq!(decoded([&frame[..header + 8]]), (vec![], None));
    assert_eq!(decoded([&frame[..header + 9]]), (vec![], Some(1007)));
    // And between fragments (6.4.1), before the last one.
    is_refused(1007, &[client(TEXT_OPEN, b"ok"), client(MORE, b"\xf4\x90")]);
}

#[test]
fn binary_is_never_checked_as_text() {
    assert_eq!(
        all_ways(&[client(BINARY_OPEN, b"\xce"), client(LAST, b"\xff")]),
        (vec![binary_of(b"\xce\xff")], None)
    );
}

#[test]
fn close_frames_say_why() {
    let says = |payload: &[u8]| {
        let (mut messages, violation) = all_ways(&[client(CLOSE, payload)]);
        assert_eq!((messages.len(), violation), (1, None));
        match messages.remove(0) {
            WebSocketMessage::Close(close) => close.map(|c| (c.code.0, c.reason.to_string())),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(says(b""), None);
    assert_eq!(says(b"\x03\xe8"), Some((1000, String::new())));
    let reason = [&b"\x03\xf3"[..], "fällt um".as_bytes()].concat();
    assert_eq!(says(&reason), Some((1011, "fällt um".into())));
    let longest = [&b"\x03\xe9"[..], &[b'r'; 123]].concat();
    assert_eq!(says(&longest), Some((1001, "r".repeat(123))));
    for code in [
        1000u16, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 3999, 4000, 4999,
    ] {
        assert_eq!(says(&code.to_be_bytes()), Some((code, String::new())));
    }

    is_refused(1002, &[client(CLOSE, b"\x03")]);
    is_refused(
        1007,
        &[client(CLOSE, b"\x03\xe8\xce\xba\xe1\xbd\xb9\xed\xa0\x80")],
    );
    for code in [
        0u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
    ] {
        is_refused(1002, &[client(CLOSE, &code.to_be_bytes())]);
    }
}

#[test]
fn nothing_is_read_after_a_close_frame() {
    // Autobahn 7.1.3 to 7.1.5.
    assert_eq!(
        all_ways(&[
            client(TEXT_OPEN, b"never ends"),
            client(CLOSE, b""),
            client(LAST, b"text"),
            client(PING, b"ping"),
            vec![0xFF; 20],
        ]),
        (vec![WebSocketMessage::Close(None)], None)
    );
}

#[test]
fn between_messages_a_decoder_owns_no_memory() {
    let mut decoder = FrameDecoder::new(MESSAGE_BYTES_MAX);
    let mut buffer = BytesMut::new();
    buffer.extend_from_slice(&client(TEXT_OPEN, &[b'a'; 1000]));
    assert_eq!(decoder.decode(&mut buffer), Ok(None));
    assert!(decoder.fragmented.is_some());
    buffer.extend_from_slice(&client(LAST, b"b")[..6]);
    assert_eq!(decoder.decode(&mut buffer), Ok(None));
    assert_eq!(decoder.payload_missing(), 1);
    buffer.extend_from_slice(&client(LAST, b"b")[6..]);
    assert!(
        matches!(decoder.decode(&mut buffer), Ok(Some(WebSocketMessage::Text(text))) if text.as_bytes().len() == 1001)
    );
    assert!(decoder.frame.is_none() && decoder.fragmented.is_none());
    assert_eq!(decoder.payload_missing(), 0);
    assert_eq!(decoder.fragments.capacity(), 0);
}

proptest! {
    #[test]
    fn a_message_cut_into_any_fragments_arrives_as_it_was(
        text: String,
        cuts in prop::collection::vec(0usize..100, 0..5),
    ) {
        let bytes = text.as_bytes();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.sort_unstable();
        let mut sent = Vec::new();
        let mut from = 0;
        for cut in cuts {
            sent.push(client(if sent.is_empty() { TEXT_OPEN } else { MORE }, &bytes[from..cut]));
            from = cut;
        }
        sent.push(client(if sent.is_empty() { TEXT } else { LAST }, &bytes[from..]));
        is_text(&text, &sent);
    }
}
