//! Snappy blocks, in the framing of Xerial's `SnappyOutputStream` or bare.
//!
//! ```text
//! 82 "SNAPPY" 00 │ version i32 │ compatible i32 │ (length i32 │ block)*
//! ```
//!
//! Java clients frame; librdkafka and others write one bare block. A bare block could
//! begin with Xerial's magic only if it decompressed to 10,626 bytes whose literals
//! spell "SNAPPY" in tags: it cannot.

use std::io::Read;

use bytes::{Buf, Bytes};
use snap::raw::{Decoder, Encoder, decompress_len, max_compress_len};

use super::error::DecompressError;
use super::section_reader::SectionReader;

const MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
/// Magic, version 1, compatible with version 1.
const HEADER: &[u8; 16] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// Xerial's default block size.
const BLOCK: usize = 32 << 10;
/// The largest block that is decompressed in one piece: a bare stream is one block.
const BLOCK_MAX: usize = 256 << 20;
/// A copy of 64 bytes takes three: no block yields more than this per byte.
const RATIO_MAX: usize = 22;

pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(HEADER);
    let mut encoder = Encoder::new();
    for block in input.chunks(BLOCK) {
        let length_at = out.len();
        out.resize(length_at + 4 + max_compress_len(block.len()), 0);
        let length = encoder
            .compress(block, &mut out[length_at + 4..])
            .expect("there is room for the longest block");
        out[length_at..length_at + 4].copy_from_slice(&(length as u32).to_be_bytes());
        out.truncate(length_at + 4 + length);
    }
}

pub(super) fn decompress(input: &[u8], limit: usize) -> Result<Vec<u8>, DecompressError> {
    let mut out = Vec::new();
    let mut blocks = SnappyBlocks::new(input);
    while blocks.next(&mut out, limit)? {}
    Ok(out)
}

/// Reads a stream block by block; a bare one is one block.
struct SnappyBlocks<'a> {
    rest: &'a [u8],
    is_framed: bool,
    decoder: Decoder,
}

impl<'a> SnappyBlocks<'a> {
    fn new(input: &'a [u8]) -> Self {
        Self {
            rest: input,
            is_framed: input.starts_with(MAGIC),
            decoder: Decoder::new(),
        }
    }

    /// Appends the next block to `out`; `false` at the end.
    fn next(&mut self, out: &mut Vec<u8>, limit: usize) -> Result<bool, DecompressError> {
        if !self.is_framed {
            self.is_framed = true;
            let block = std::mem::take(&mut self.rest);
            append(&mut self.decoder, block, out, limit)?;
            return Ok(true);
        }
        // Streams may be concatenated, each with its header.
        while self.rest.starts_with(MAGIC) {
            self.rest = self.rest.get(HEADER.len()..).ok_or_else(cut)?;
        }
        if self.rest.is_empty() {
            return Ok(false);
        }
        let (length, after) = self.rest.split_first_chunk().ok_or_else(cut)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (block, after) = after.split_at_checked(length).ok_or_else(cut)?;
        append(&mut self.decoder, block, out, limit)?;
        self.rest = after;
        Ok(true)
    }
}

/// What [`decompress`] gives, in pieces: no more than a block is held.
pub(super) struct SnappyReader {
    /// What is left of it.
    input: Bytes,
    is_framed: bool,
    block: Vec<u8>,
    at: usize,
}

impl SnappyReader {
    pub(super) fn new(input: Bytes) -> Self {
        Self {
            is_framed: SnappyBlocks::new(&input).is_framed,
            input,
            block: Vec::new(),
            at: 0,
        }
    }

    /// Decompresses the next block; `false` at the end.
    fn next_block(&mut self) -> Result<bool, DecompressError> {
        self.block.clear();
        self.at = 0;
        let mut blocks = SnappyBlocks {
            rest: &self.input,
            is_framed: self.is_framed,
            decoder: Decoder::new(),
        };
        let more = blocks.next(&mut self.block, BLOCK_MAX)?;
        let left = blocks.rest.len();
        self.is_framed = blocks.is_framed;
        self.input.advance(self.input.len() - left);
        Ok(more)
    }
}

impl SectionReader for SnappyReader {
    fn held_bytes(&mut self) -> usize {
        self.block.capacity()
    }
}

impl Read for SnappyReader {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.block.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let read = (&self.block[self.at..]).read(buf)?;
        self.at += read;
        Ok(read)
    }
}

fn append(
    decoder: &mut Decoder,
    block: &[u8],
    out: &mut Vec<u8>,
    limit: usize,
) -> Result<(), DecompressError> {
    let claimed = decompress_len(block).map_err(DecompressError::malformed)?;
    if claimed > block.len().saturating_mul(RATIO_MAX) {
        return Err(DecompressError::malformed("claims more than it can hold"));
    }
    let start = out.len();
    if claimed > limit - start {
        return Err(DecompressError::TooLarge { limit });
    }
    out.resize(start + claimed, 0);
    decoder
        .decompress(block, &mut out[start..])
        .map_err(DecompressError::malformed)?;
    Ok(())
}

fn cut() -> DecompressError {
    DecompressError::malformed("cut short")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_and_concatenated_streams_are_read() {
        let bare = Encoder::new().compress_vec(b"hello hello").unwrap();
        assert_eq!(decompress(&bare, 100).unwrap(), b"hello hello");
        let mut framed = Vec::new();
        compress(b"one", &mut framed);
        compress(b"two", &mut framed);
        assert_eq!(decompress(&framed, 100).unwrap(), b"onetwo");
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        // A varint of 4 GiB - 1 and no data.
        let claim = [0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(matches!(
            decompress(&claim, usize::MAX),
            Err(DecompressError::Malformed(_))
        ));
        let mut framed = HEADER.to_vec();
        framed.extend_from_slice(&u32::MAX.to_be_bytes());
        framed.extend_from_slice(b"abc");
        assert_eq!(decompress(&framed, usize::MAX), Err(cut()));
    }
}
