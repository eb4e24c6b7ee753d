//! Messages that are compressed (RFC 7692, sections 6 and 7), and where they may not be.

use super::*;
use crate::deflate::PermessageDeflate;

const RSV1_TEXT: u8 = TEXT | RSV1;
const RSV1_BINARY: u8 = BINARY | RSV1;
const RSV1_TEXT_OPEN: u8 = TEXT_OPEN | RSV1;

/// "Hello", as section 7.2.3.1 has it.
const HELLO: &[u8] = b"\xf2\x48\xcd\xc9\xc9\x07\x00";

fn taking_compressed() -> FrameDecoder {
    FrameDecoder::new(MESSAGE_BYTES_MAX).taking_compressed()
}

fn negotiated() -> PermessageDeflate {
    let mut request = http::HeaderMap::new();
    let offer = http::HeaderValue::from_static("permessage-deflate");
    request.insert("sec-websocket-extensions", offer);
    PermessageDeflate::negotiate(&request).expect("taken").0
}

/// What comes of these frames, inflated, however TCP cuts them.
fn inflated(frames: &[Vec<u8>]) -> Decoded {
    let whole = frames.concat();
    let at_once = decoded_by(taking_compressed(), [&whole[..]]);
    let by_byte = decoded_by(taking_compressed(), whole.chunks(1));
    assert_eq!(by_byte, at_once, "byte by byte");
    at_once
}

fn text_of(text: &str) -> WebSocketMessage {
    WebSocketMessage::Text(Utf8Bytes(text.as_bytes().to_vec().into()))
}

#[test]
fn compressed_messages_stand_beside_others() {
    let frames = [
        client(RSV1_TEXT, HELLO),
        client(TEXT, b"plain"),
        client(RSV1_BINARY, HELLO),
        client(RSV1_TEXT, b"\x00"),
        client(PING, b""),
        client(BINARY, b"\xff"),
    ];
    let messages = vec![
        text_of("Hello"),
        text_of("plain"),
        binary_of(b"Hello"),
        text_of(""),
        ping_of(b""),
        binary_of(b"\xff"),
    ];
    assert_eq!(inflated(&frames), (messages, None));
}

#[test]
fn a_compressed_message_is_cut_anywhere_and_pings_stand_in_between() {
    for cut in 0..=HELLO.len() {
        let (first, last) = HELLO.split_at(cut);
        let frames = [
            client(RSV1_TEXT_OPEN, first),
            client(PING, b"\xff"),
            client(MORE, b""),
            client(LAST, last),
            client(TEXT_OPEN, b"pl"),
            client(LAST, b"ain"),
        ];
        let messages = vec![ping_of(b"\xff"), text_of("Hello"), text_of("plain")];
        assert_eq!(inflated(&frames), (messages, None), "{cut}");
    }
}

#[test]
fn only_the_first_frame_of_a_message_says_that_it_is_compressed() {
    for frames in [
        vec![client(PING | RSV1, b"")],
        vec![client(PONG | RSV1, b"")],
        vec![client(CLOSE | RSV1, b"")],
        vec![client(RSV1_TEXT_OPEN, HELLO), client(LAST | RSV1, b"")],
        vec![client(TEXT_OPEN, b"Hello"), client(MORE | RSV1, b"")],
        vec![client(TEXT | 0x20, b"")],
        vec![client(TEXT | 0x10, b"")],
        vec![client(RSV1_TEXT | 0x20, HELLO)],
    ] {
        assert_eq!(inflated(&frames).1, Some(1002), "{frames:02x?}");
    }
}

#[test]
fn nothing_is_compressed_where_that_was_not_negotiated() {
    is_refused(1002, &[client(RSV1_TEXT, HELLO)]);
    is_refused(1002, &[client(RSV1_BINARY, HELLO)]);
}

#[test]
fn what_cannot_be_inflated_or_is_no_text_is_refused() {
    assert_eq!(inflated(&[client(RSV1_TEXT, b"Hello")]).1, Some(1007));
    assert_eq!(inflated(&[client(RSV1_BINARY, b"\xff")]).1, Some(1007));
    // A stored block with half a character.
    let half = b"\x00\x01\x00\xfe\xff\xce\x00";
    assert_eq!(inflated(&[client(RSV1_TEXT, half)]).1, Some(1007));
    let bytes = (vec![binary_of(b"\xce")], None);
    assert_eq!(inflated(&[client(RSV1_BINARY, half)]), bytes);
}

#[test]
fn a_message_that_is_over_the_limit_only_when_inflated_is_too_big() {
    let mut written = BytesMut::new();
    let start = begin_frame(&mut written);
    written.put_bytes(b'a', MESSAGE_BYTES_MAX + 1);
    end_message(&mut written, start, Opcode::Text, Some(negotiated()));
    assert!(written.len() < 20_000, "{} bytes", written.len());
    let bomb = client(RSV1_TEXT, &written[4..]);
    let pieces = [&bomb[..]];
    let (messages, violation) = decoded_by(taking_compressed(), pieces);
    assert_eq!((messages.len(), violation), (0, Some(1009)));
}

#[test]
fn a_compressed_message_longer_than_any_within_the_limit_is_refused_by_its_header() {
    let mut header = BytesMut::new();
    write_frame_header(&mut header, Opcode::Text, 2 * MESSAGE_BYTES_MAX);
    header[0] |= RSV1;
    header[1] |= 0x80;
    header.put_slice(&MASK);
    assert_eq!(inflated(&[header.to_vec()]).1, Some(1009));
}

#[test]
fn messages_of_256_bytes_and_more_are_compressed_where_that_was_negotiated() {
    let write = |len: usize, deflate: Option<PermessageDeflate>| {
        let mut out = BytesMut::from(&b"before"[..]);
        let start = begin_frame(&mut out);
        out.put_bytes(b'a', len);
        end_message(&mut out, start, Opcode::Text, deflate);
        out.split_off(6)
    };
    for len in [0, 125, 126, 255] {
        assert_eq!(write(len, Some(negotiated())), write(len, None), "{len}");
        let mut at_once = BytesMut::new();
        let message = vec![b'a'; len];
        write_message(&mut at_once, Opcode::Text, &message, Some(negotiated()));
        assert_eq!(at_once, write(len, None), "{len}");
    }
    for len in [256, 1000, 65_536, 100_000] {
        assert_eq!(write(len, None)[0], 0x81, "{len}");
        let mut frame = write(len, Some(negotiated()));
        let mut at_once = BytesMut::new();
        let message = vec![b'a'; len];
        write_message(&mut at_once, Opcode::Text, &message, Some(negotiated()));
        assert_eq!(frame, at_once, "{len}");
        assert_eq!(frame[0], 0xC1, "{len}");
        assert!(frame.len() < len / 10 + 20, "{len}: {}", frame.len());
        let header = if frame[1] == 126 { 4 } else { 2 };
        let payload = frame.split_off(header);
        let expected = text_of(&"a".repeat(len));
        let frames = [client(RSV1_TEXT, &payload)];
        assert_eq!(inflated(&frames), (vec![expected], None));
    }
}
