//! Codecs under inputs that nobody thought of: seeded and bounded by count.
//!
//! They run without containment here, so that a panic is seen where it happens.

use std::io::Read;

use super::*;

const CODECS: [CompressionType; 4] = [
    CompressionType::Gzip,
    CompressionType::Snappy,
    CompressionType::Lz4,
    CompressionType::Zstd,
];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// Small numbers as often as large ones.
    fn up_to_bits(&mut self, bits: usize) -> usize {
        let bits = self.below(bits);
        self.below(1 << bits)
    }

    /// Runs, noise, words of a small alphabet and copies of what came before, mixed.
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len);
        while out.len() < len {
            let part = 1 + self.up_to_bits(16);
            match self.below(4) {
                0 => {
                    let byte = self.next() as u8;
                    out.resize(out.len() + part, byte);
                }
                1 => out.extend((0..part).map(|_| self.next() as u8)),
                2 => out.extend((0..part).map(|_| b"etaoin shrdlu"[self.below(13)])),
                _ if out.is_empty() => {}
                _ => {
                    let from = self.below(out.len());
                    let to = (from + part).min(out.len());
                    out.extend_from_within(from..to);
                }
            }
        }
        out.truncate(len);
        out
    }

    /// Flips, overwrites, removes or repeats some of `bytes`.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..1 + self.below(4) {
            if bytes.is_empty() {
                return;
            }
            let at = self.below(bytes.len());
            let to = (at + 1 + self.below(8)).min(bytes.len());
            match self.below(5) {
                0 => {
                    let bit = self.below(8);
                    bytes[at] ^= 1 << bit;
                }
                1 => bytes[at..to].fill_with(|| self.next() as u8),
                2 => drop(bytes.drain(at..to)),
                3 => bytes.truncate(at),
                _ => {
                    let part = bytes[at..to].to_vec();
                    bytes.splice(at..at, part);
                }
            }
        }
    }
}

#[test]
fn whatever_is_compressed_is_given_back() {
    for seed in 0..400 {
        let mut random = Random(seed);
        let len = random.up_to_bits(20);
        let input = random.bytes(len);
        for codec in CODECS {
            let mut packed = Vec::new();
            encode(codec, &input, &mut packed);
            let unpacked = decode(codec, &packed, len);
            assert!(unpacked.as_ref() == Ok(&input), "{codec:?}, seed {seed}");
            let mut in_pieces = Vec::new();
            reader(codec, packed.clone().into())
                .read_to_end(&mut in_pieces)
                .unwrap();
            assert!(in_pieces == input, "{codec:?} in pieces, seed {seed}");
        }
    }
}

#[test]
fn damaged_bytes_end_in_an_error_or_in_other_bytes_within_the_limit() {
    for seed in 0..400 {
        let mut random = Random(seed);
        let len = random.up_to_bits(17);
        let input = random.bytes(len);
        for codec in CODECS {
            let mut packed = Vec::new();
            encode(codec, &input, &mut packed);
            for _ in 0..8 {
                let mut damaged = packed.clone();
                random.damage(&mut damaged);
                let limit = random.below(2 * len + 1);
                if let Ok(out) = decode(codec, &damaged, limit) {
                    assert!(out.len() <= limit, "{codec:?}, seed {seed}");
                }
                // A window of 128 MiB may be claimed, but is not filled here.
                let _ = std::io::copy(
                    &mut reader(codec, damaged.clone().into()).take(1 << 20),
                    &mut std::io::sink(),
                );
            }
        }
    }
}

#[test]
fn noise_is_refused_or_decoded_within_the_limit() {
    for seed in 0..2_000 {
        let mut random = Random(seed);
        let len = random.below(300);
        let mut noise = random.bytes(len);
        // Behind the magic, more of a decoder is reached.
        noise.splice(0..0, [0x28, 0xb5, 0x2f, 0xfd]);
        for codec in CODECS {
            if let Ok(out) = decode(codec, &noise, 10_000) {
                assert!(out.len() <= 10_000, "{codec:?}, seed {seed}");
            }
        }
    }
}
