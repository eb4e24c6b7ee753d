//! The four codecs, without C.
//!
//! ```text
//! records section ──compress──▶ appended to the batch
//! compressed section ──decompress(limit)──▶ a buffer of its own
//!                    ──reader()──▶ in pieces, where the whole is too large
//! ```
//!
//! The batch's checksum has covered the compressed bytes before they come here, so the
//! codecs' own checksums are left out where the codec lets us (and old Kafka clients
//! wrote a wrong one into LZ4 frames of magic 0 and 1).
//!
//! # Invariants
//! - Output grows with what the input really yields; a size that the input merely
//!   claims allocates nothing. It never exceeds the limit.
//! - Both directions keep no state between calls, but for what `reader()` returns.
//! - A codec that panics costs the batch that it was given, never the process.

mod error;
mod gzip;
mod lz4;
mod section_reader;
mod snappy;
mod zstd;

use bytes::{Buf, Bytes};
use runtime::panic_policy::catch_panic;

pub(super) use self::error::{CompressError, DecompressError};
pub(super) use self::section_reader::SectionReader;
use crate::config::CompressionType;

/// Appends `input`, compressed, to `out`; after an error nothing is appended.
pub(super) fn compress(
    codec: CompressionType,
    input: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CompressError> {
    let before = out.len();
    catch_panic(|| encode(codec, input, out)).map_err(|panic| {
        out.truncate(before);
        CompressError { codec, panic }
    })
}

fn encode(codec: CompressionType, input: &[u8], out: &mut Vec<u8>) {
    match codec {
        CompressionType::None => out.extend_from_slice(input),
        CompressionType::Gzip => gzip::compress(input, out),
        CompressionType::Snappy => snappy::compress(input, out),
        CompressionType::Lz4 => lz4::compress(input, out),
        CompressionType::Zstd => zstd::compress(input, out),
    }
}

/// Decompresses all of `input` into at most `limit` bytes.
pub(super) fn decompress(
    codec: CompressionType,
    input: &[u8],
    limit: usize,
) -> Result<Vec<u8>, DecompressError> {
    let decoded = catch_panic(|| decode(codec, input, limit));
    let mut out = decoded.unwrap_or_else(|panic| {
        let panic = format!("the decoder panicked: {panic}");
        Err(DecompressError::Malformed(panic))
    })?;
    // What is decoded may be held for long: give back room that was only a guess.
    if out.capacity() > out.len() + out.len() / 4 + SLACK {
        out.shrink_to_fit();
    }
    Ok(out)
}

/// What [`decompress`] gives, in pieces and without a limit: however much it is, only what the
/// codec refers back to is held. Reading may panic.
pub(super) fn reader(codec: CompressionType, input: Bytes) -> Box<dyn SectionReader> {
    match codec {
        CompressionType::None => Box::new(input.reader()),
        CompressionType::Gzip => Box::new(gzip::GzipReader::new(input)),
        CompressionType::Snappy => Box::new(snappy::SnappyReader::new(input)),
        CompressionType::Lz4 => Box::new(lz4::Lz4Reader::new(input)),
        CompressionType::Zstd => Box::new(zstd::ZstdReader::new(input)),
    }
}

fn decode(codec: CompressionType, input: &[u8], limit: usize) -> Result<Vec<u8>, DecompressError> {
    match codec {
        CompressionType::None if input.len() > limit => Err(DecompressError::TooLarge { limit }),
        CompressionType::None => Ok(input.to_vec()),
        CompressionType::Gzip => gzip::decompress(input, limit),
        CompressionType::Snappy => snappy::decompress(input, limit),
        CompressionType::Lz4 => lz4::decompress(input, limit),
        CompressionType::Zstd => zstd::decompress(input, limit),
    }
}

/// Unused room that is not worth moving a buffer for.
const SLACK: usize = 1024;

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    const CODECS: [CompressionType; 5] = [
        CompressionType::None,
        CompressionType::Gzip,
        CompressionType::Snappy,
        CompressionType::Lz4,
        CompressionType::Zstd,
    ];

    /// Bytes that compress about as well as JSON does.
    fn text(len: usize) -> Vec<u8> {
        let mut seed = 7_u32;
        let mut out = Vec::with_capacity(len + 32);
        while out.len() < len {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            out.extend_from_slice(format!("{{\"id\":{},\"name\":\"x\"}}", seed >> 12).as_bytes());
        }
        out.truncate(len);
        out
    }

    #[test]
    fn every_codec_gives_back_what_it_was_given() {
        for codec in CODECS {
            for len in [0, 1, 100, 32_767, 32_768, 65_536, 65_537, 1 << 20] {
                let input = text(len);
                let mut packed = b"before".to_vec();
                compress(codec, &input, &mut packed).unwrap();
                let unpacked = decompress(codec, &packed[6..], len).unwrap();
                assert!(unpacked == input, "{codec:?} {len}");
                if codec != CompressionType::None && len > 1000 {
                    assert!(packed.len() < len * 2 / 3, "{codec:?} {len}");
                }
            }
        }
    }

    #[test]
    fn one_byte_over_the_limit_is_refused() {
        for codec in CODECS {
            for len in [1, 1000, 100_000, 1 << 20] {
                let mut packed = Vec::new();
                compress(codec, &text(len), &mut packed).unwrap();
                assert_eq!(
                    decompress(codec, &packed, len - 1),
                    Err(DecompressError::TooLarge { limit: len - 1 }),
                    "{codec:?} {len}"
                );
            }
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        for codec in CODECS {
            let mut packed = Vec::new();
            compress(codec, &vec![0; 32 << 20], &mut packed).unwrap();
            assert_eq!(
                decompress(codec, &packed, 1 << 20),
                Err(DecompressError::TooLarge { limit: 1 << 20 }),
                "{codec:?}"
            );
        }
    }

    #[test]
    fn what_is_kept_is_no_larger_than_it_needs_to_be() {
        for codec in CODECS {
            let input = text(300_000);
            let mut packed = Vec::new();
            compress(codec, &input, &mut packed).unwrap();
            let kept = decompress(codec, &packed, usize::MAX).unwrap();
            assert!(kept.capacity() <= 300_000 * 5 / 4 + SLACK, "{codec:?}");
        }
    }

    #[test]
    fn damage_is_an_error_or_other_bytes_but_never_a_panic() {
        let input = text(3000);
        for codec in CODECS {
            let mut packed = Vec::new();
            compress(codec, &input, &mut packed).unwrap();
            for at in 0..packed.len() {
                if codec != CompressionType::None {
                    assert!(
                        decompress(codec, &packed[..at], 1 << 16) != Ok(input.clone())
                            // Gzip's and LZ4's trailers add nothing to the data.
                            || at + 8 >= packed.len(),
                        "{codec:?} cut at {at}"
                    );
                }
                for bit in 0..8 {
                    packed[at] ^= 1 << bit;
                    if let Ok(out) = decompress(codec, &packed, 1 << 16) {
                        assert!(out.capacity() <= (1 << 17) + SLACK);
                    }
                    packed[at] ^= 1 << bit;
                }
            }
        }
    }
}
