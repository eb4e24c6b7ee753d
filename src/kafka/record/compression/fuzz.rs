//! Codecs under inputs that nobody thought of.
//!
//! They run without containment here, so that a panic is seen where it happens.

use std::io::Read;

use fuzzing::{fuzz, within};

use super::*;

const CODECS: [CompressionType; 4] = [
    CompressionType::Gzip,
    CompressionType::Snappy,
    CompressionType::Lz4,
    CompressionType::Zstd,
];

#[test]
fn fuzz_compression() {
    fuzz("compression", |input| {
        let codec = *input.pick(&CODECS);
        let len = input.up_to_bits(17);
        let bytes = input.bytes(len);
        let mut packed = Vec::new();
        encode(codec, &bytes, &mut packed);
        let unpacked = decode(codec, &packed, len);
        assert!(unpacked.as_ref() == Ok(&bytes), "{codec:?}");
        let mut in_pieces = Vec::new();
        let mut pieces = reader(codec, packed.into());
        pieces.read_to_end(&mut in_pieces).expect("it is whole");
        assert!(in_pieces == bytes, "{codec:?} in pieces");
    });
}

#[test]
fn fuzz_decompression() {
    fuzz("decompression", |input| {
        let codec = *input.pick(&CODECS);
        let len = input.up_to_bits(14);
        let bytes = input.bytes(len);
        let mut packed = Vec::new();
        if input.one_in(8) {
            // Behind the magic, more of a decoder is reached.
            packed = bytes.clone();
            let magic = *input.pick::<&[u8]>(&[
                b"\x28\xb5\x2f\xfd",
                b"\x04\x22\x4d\x18",
                b"\x1f\x8b\x08",
                b"",
            ]);
            packed.splice(0..0, magic.iter().copied());
        } else {
            encode(codec, &bytes, &mut packed);
            input.damage(&mut packed);
        }
        let limit = input.below(2 * len + 1);
        let decoded = within(MEMORY + 4 * limit, "a codec", || {
            decode(codec, &packed, limit)
        });
        assert!(decoded.is_ok_and(|out| out.len() <= limit) || decoded_in_pieces(codec, packed));
    });
}

/// What a codec may take beside what it decodes: its tables, and a window.
const MEMORY: usize = 1 << 20;

/// In pieces there is no limit, but whoever reads them has one.
fn decoded_in_pieces(codec: CompressionType, packed: Vec<u8>) -> bool {
    let mut pieces = reader(codec, packed.into()).take(1 << 20);
    let _ = std::io::copy(&mut pieces, &mut std::io::sink());
    true
}
