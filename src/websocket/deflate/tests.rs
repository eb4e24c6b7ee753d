//! What is negotiated, and what is compressed and inflated, as the RFC has it.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use http::header::HeaderValue;
use proptest::prelude::*;

use super::compressor::FLUSH_END;
use super::spare::{SPARE_MAX, Spare};
use super::*;

fn headers(values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        let value = HeaderValue::from_str(value).expect("a header");
        headers.append(SEC_WEBSOCKET_EXTENSIONS, value);
    }
    headers
}

/// The answer, without what is in every one.
fn answered(values: &[&str]) -> Option<String> {
    const ALWAYS: &str =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    let (_, answer) = PermessageDeflate::negotiate(&headers(values))?;
    let rest = answer.to_str().expect("ASCII").strip_prefix(ALWAYS);
    Some(rest.expect("what is always negotiated").to_owned())
}

fn with_window(window_bits: u8) -> PermessageDeflate {
    PermessageDeflate { window_bits }
}

fn compressed(message: &[u8], window_bits: u8) -> Option<Vec<u8>> {
    let mut compressor = with_window(window_bits).compressor();
    compressor.compress(message).map(<[u8]>::to_vec)
}

/// As a client does it, at another level than ours.
fn compressed_by_client(message: &[u8], flush: FlushCompress) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() * 2 + 100);
    let mut deflate = Compress::new(Compression::best(), false);
    deflate
        .compress_vec(message, &mut out, flush)
        .expect("room");
    if let Some(payload) = out.strip_suffix(&FLUSH_END) {
        return payload.to_vec();
    }
    out
}

/// Text in which much recurs, at all distances.
fn recurring(len: usize) -> Vec<u8> {
    let mut random = 1_u32;
    let mut word = move || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        format!("word{} ", random >> 24)
    };
    let mut text = String::new();
    while text.len() < len {
        text.push_str(&word());
    }
    text.truncate(len);
    text.into_bytes()
}

#[test]
fn what_browsers_and_libraries_offer_is_taken() {
    // Chrome and Firefox, Python's websockets, Node's ws, a client without windows.
    for offer in [
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        "permessage-deflate",
    ] {
        assert!(answered(&[offer]).is_some(), "{offer}");
    }
    assert_eq!(answered(&[]), None);
    assert_eq!(
        answered(&["x-webkit-deflate-frame, bbf-usp-protocol"]),
        None
    );
}

#[test]
fn a_window_is_in_the_answer_where_it_is_in_the_offer() {
    for bits in 9..=15 {
        let offer = format!("permessage-deflate; server_max_window_bits={bits}");
        let expected = format!("; server_max_window_bits={bits}");
        assert_eq!(answered(&[&offer]), Some(expected));
        let (deflate, _) = PermessageDeflate::negotiate(&headers(&[&offer])).expect("taken");
        assert_eq!(deflate.window_bits, bits);
    }
    assert_eq!(
        answered(&["permessage-deflate; client_max_window_bits=10"]),
        Some(String::new())
    );
    let default = PermessageDeflate::negotiate(&headers(&["permessage-deflate"]));
    assert_eq!(default.expect("taken").0, with_window(15));
}

#[test]
fn the_first_offer_that_can_be_served_is_taken_from_any_header() {
    let ninth = Some("; server_max_window_bits=9".to_owned());
    let second = "permessage-deflate; what_is_this, permessage-deflate; server_max_window_bits=9";
    assert_eq!(answered(&[second]), ninth);
    let first = "permessage-deflate; server_max_window_bits=9, permessage-deflate";
    assert_eq!(answered(&[first]), ninth);
    let headers = [
        "x-other; a=\"permessage-deflate, \\\"; b\"",
        "permessage-deflate;server_max_window_bits=\"9\" , permessage-deflate",
    ];
    assert_eq!(
        answered(&headers),
        ninth,
        "quoted, and in the second header"
    );
    let quoted = "permessage-deflate; server_max_window_bits=\"\\9\"";
    assert_eq!(answered(&[quoted]), ninth);
}

#[test]
fn an_offer_with_anything_wrong_is_declined() {
    for parameters in [
        "unknown",
        "unknown=1",
        "server_no_context_takeover=1",
        "client_no_context_takeover=\"true\"",
        "server_no_context_takeover; server_no_context_takeover",
        "client_max_window_bits; client_max_window_bits=10",
        "server_max_window_bits",
        "server_max_window_bits=",
        "server_max_window_bits=\"",
        "server_max_window_bits=\"\"",
        "server_max_window_bits=\"10",
        "server_max_window_bits=10\"",
        "server_max_window_bits=1\"0\"",
        "server_max_window_bits=8",
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=09",
        "server_max_window_bits=+9",
        "server_max_window_bits=-9",
        "server_max_window_bits=9.0",
        "server_max_window_bits=256",
        "server_max_window_bits=9999999999999999999999",
        "client_max_window_bits=7",
        "client_max_window_bits=16",
        "client_max_window_bits=",
        "client_max_window_bits=08",
        "",
        "client_max_window_bits;",
    ] {
        let offer = format!("permessage-deflate; {parameters}");
        assert_eq!(answered(&[&offer]), None, "{offer}");
        let with_another = format!("{offer}, permessage-deflate");
        if parameters.matches('"').count() % 2 == 0 {
            assert!(answered(&[&with_another]).is_some(), "{with_another}");
        }
    }
}

#[test]
fn the_examples_of_the_rfc_inflate() {
    // Section 7.2.3: one block, with a context that is not taken over, stored, final, two blocks,
    // none.
    for (payload, message) in [
        (&b"\xf2\x48\xcd\xc9\xc9\x07\x00"[..], "Hello"),
        (b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", "Hello"),
        (b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", "Hello"),
        (
            b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
            "Hello",
        ),
        (b"\x00", ""),
    ] {
        let inflated = inflate(payload, 5);
        assert_eq!(
            inflated.as_deref(),
            Ok(message.as_bytes()),
            "{payload:02x?}"
        );
    }
    // The second message of section 7.2.3.2 refers to the first: nobody has that any more.
    let refers = inflate(b"\xf2\x00\x11\x00\x00", 100);
    assert_eq!(refers, Err(InflateError::Invalid));
}

#[test]
fn what_others_send_that_is_not_quite_as_it_should_be_inflates() {
    assert_eq!(inflate(b"", 0), Ok(Vec::new()), "empty, without a block");
    let finished = compressed_by_client(b"Hello", FlushCompress::Finish);
    assert_eq!(inflate(&finished, 5).as_deref(), Ok(&b"Hello"[..]));
    let twice = [&finished[..], &finished].concat();
    assert_eq!(inflate(&twice, 10).as_deref(), Ok(&b"HelloHello"[..]));
}

#[test]
fn what_is_no_message_does_not_inflate() {
    let message = recurring(5000);
    let whole = compressed_by_client(&message, FlushCompress::Sync);
    assert_eq!(inflate(&whole, 5000), Ok(message));
    for len in 1..whole.len() {
        assert!(
            inflate(&whole[..len], 5000).is_err(),
            "cut after {len} bytes"
        );
    }
    let with_end = [&whole[..], &FLUSH_END].concat();
    assert_eq!(inflate(&with_end, 5000), Err(InflateError::Invalid));
    for payload in [&b"\x06"[..], b"\xff\xff\xff", b"Hello", b"\x00\x05\x00\xfa"] {
        assert_eq!(inflate(payload, 5000), Err(InflateError::Invalid));
    }
}

#[test]
fn no_more_than_the_limit_is_inflated() {
    let bomb = compressed_by_client(&vec![b'a'; 64 << 20], FlushCompress::Sync);
    assert!(bomb.len() < 100 << 10, "{} bytes", bomb.len());
    drop(inflate(b"\x00", 0));
    for bytes_max in [0, 1, 1000, 1 << 20] {
        let inflated = fuzzing::within(2 * bytes_max + (64 << 10), "a bomb", || {
            inflate(&bomb, bytes_max)
        });
        assert_eq!(inflated, Err(InflateError::TooLong), "{bytes_max}");
    }
    for len in [0, 1, 255, 65_535, 65_536, 65_537, 1 << 20] {
        let message = vec![b'a'; len];
        let payload = compressed_by_client(&message, FlushCompress::Sync);
        assert_eq!(inflate(&payload, len), Ok(message));
        if len > 0 {
            assert_eq!(inflate(&payload, len - 1), Err(InflateError::TooLong));
        }
    }
}

#[test]
fn the_worst_that_a_compressor_makes_of_a_message_is_within_its_limit() {
    let mut random = 1_u64;
    let mut byte = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 56) as u8
    };
    for len in [1, 10, 1000, 100_000] {
        let message: Vec<u8> = (0..len).map(|_| byte()).collect();
        for level in 0..=9 {
            let mut out = Vec::with_capacity(len * 2 + 100);
            let mut deflate = Compress::new(Compression::new(level), false);
            deflate
                .compress_vec(&message, &mut out, FlushCompress::Sync)
                .expect("room");
            assert!(out.len() <= compressed_bytes_max(len), "{len} at {level}");
        }
    }
}

#[test]
fn what_does_not_become_shorter_is_not_compressed() {
    let mut random = 1_u64;
    let noise = |_| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 56) as u8
    };
    let noise: Vec<u8> = (0..100_000).map(noise).collect();
    for len in [0, 1, 5, 256, 1000, 100_000] {
        assert_eq!(compressed(&noise[..len], 15), None, "{len}");
    }
    assert!(compressed(&recurring(256), 15).is_some());
}

#[test]
fn a_message_compressed_again_is_the_same() {
    let (first, other) = (recurring(100_000), recurring(3000));
    let once = compressed(&first, 15);
    for _ in 0..2 * SPARE_MAX {
        compressed(&other, 15);
        compressed(&other, 9);
        assert_eq!(compressed(&first, 15), once);
    }
}

#[test]
fn nothing_refers_farther_back_than_the_window_of_the_client() {
    let message = recurring(200_000);
    for bits in 9..=15 {
        let payload = compressed(&message, bits).expect("it recurs");
        let mut inflater = Decompress::new_with_window_bits(false, bits);
        let mut inflated = Vec::new();
        let mut left = [&payload[..], &FLUSH_END].concat();
        // A piece at a time: what came before is in its window, or nowhere.
        while !left.is_empty() {
            inflated.reserve_exact(100);
            let mut piece = Vec::with_capacity(100);
            let before = inflater.total_in();
            inflater
                .decompress_vec(&left, &mut piece, FlushDecompress::None)
                .unwrap_or_else(|error| panic!("{bits} bits: {error}"));
            left.drain(..(inflater.total_in() - before) as usize);
            inflated.extend_from_slice(&piece);
        }
        assert!(message.starts_with(&inflated), "{bits} bits");
        assert!(inflated.len() + 400 > message.len(), "{bits} bits");
    }
}

#[test]
fn few_of_what_is_costly_are_kept_and_the_newest() {
    let spare = Spare::new();
    (0..100).for_each(|n| spare.give_back(n));
    assert_eq!(spare.take(|n| *n == 0), None);
    assert_eq!(spare.take(|_| true), Some(99));
    let rest = std::iter::from_fn(|| spare.take(|_| true));
    assert_eq!(rest.count(), SPARE_MAX - 1);
}

proptest! {
    #[test]
    fn any_message_is_itself_again(
        message in prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), any::<u8>()], 0..3000),
        bits in 9_u8..=15,
    ) {
        if let Some(payload) = compressed(&message, bits) {
            prop_assert!(payload.len() < message.len());
            prop_assert_eq!(inflate(&payload, message.len()), Ok(message.clone()));
        }
        let theirs = compressed_by_client(&message, FlushCompress::Sync);
        prop_assert_eq!(inflate(&theirs, message.len()), Ok(message));
    }

    #[test]
    fn any_header_is_an_offer_or_none(header in "(permessage-deflate|[;,=\"\\\\ ]|server_max_window_bits|1[0-9]?){0,12}") {
        if let Some(answer) = answered(&[&header]) {
            prop_assert!(answer.is_empty() || answer.starts_with("; server_max_window_bits="));
        }
    }

    #[test]
    fn any_bytes_inflate_to_a_message_or_to_nothing(
        payload in prop::collection::vec(any::<u8>(), 0..200),
        bytes_max in 0_usize..2000,
    ) {
        if let Ok(message) = inflate(&payload, bytes_max) {
            prop_assert!(message.len() <= bytes_max);
        }
    }
}
