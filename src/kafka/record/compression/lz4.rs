//! The LZ4 frame format, around `lz4_flex`'s blocks.
//!
//! ```text
//! magic u32 │ flags │ block size │ [content size u64] [dictionary u32] │ header checksum
//! ( size u32, top bit: stored as it is │ block │ [checksum u32] )*
//! 0 u32 │ [content checksum u32]
//! ```
//!
//! We write what Java's producer writes: independent blocks of 64 KiB, no checksums.
//! We read linked blocks too, and skip all checksums: the batch's own has been verified,
//! and Kafka clients before 0.10 computed the header's over the wrong bytes (KAFKA-3160).

use std::io::Read;

use bytes::{Buf, Bytes};
use lz4_flex::block::{
    CompressTable, compress_into_with_table, decompress_into_with_dict, get_maximum_output_size,
};

use super::error::DecompressError;
use super::section_reader::SectionReader;
use crate::record::varint::ByteReader;

const MAGIC: u32 = 0x184D_2204;
const STORED: u32 = 1 << 31;

const VERSION: u8 = 0b0100_0000;
const VERSION_MASK: u8 = 0b1100_0000;
const BLOCK_CHECKSUM: u8 = 0b0001_0000;
const CONTENT_SIZE: u8 = 0b0000_1000;
const CONTENT_CHECKSUM: u8 = 0b0000_0100;
const DICTIONARY: u8 = 0b0000_0001;

/// Magic; version 1 with independent blocks; 64 KiB; and the checksum of those two.
const HEADER: [u8; 7] = [0x04, 0x22, 0x4D, 0x18, 0x60, 0x40, 0x82];
const BLOCK: usize = 64 << 10;
/// How far back a match may reach.
const WINDOW: usize = 64 << 10;

pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&HEADER);
    let mut table = CompressTable::default();
    for block in input.chunks(BLOCK) {
        let at = out.len();
        out.resize(at + 4 + get_maximum_output_size(block.len()), 0);
        let length = compress_into_with_table(block, &mut out[at + 4..], &mut table)
            .expect("there is room for the longest block");
        let size = if length < block.len() {
            out.truncate(at + 4 + length);
            length as u32
        } else {
            out.truncate(at + 4);
            out.extend_from_slice(block);
            block.len() as u32 | STORED
        };
        out[at..at + 4].copy_from_slice(&size.to_le_bytes());
    }
    out.extend_from_slice(&0_u32.to_le_bytes());
}

pub(super) fn decompress(input: &[u8], limit: usize) -> Result<Vec<u8>, DecompressError> {
    let mut out = Vec::new();
    let mut blocks = Lz4Blocks::new(input);
    while blocks.next(&mut out, limit)? {}
    Ok(out)
}

/// Reads frames block by block.
pub(super) struct Lz4Blocks<'a> {
    input: ByteReader<'a>,
    /// Flags and largest block of the frame under way.
    frame: Option<(u8, usize)>,
    /// Where the frame under way starts in the output, as far as that is kept.
    frame_start: usize,
}

impl<'a> Lz4Blocks<'a> {
    fn new(input: &'a [u8]) -> Self {
        Self {
            input: ByteReader::new(input),
            frame: None,
            frame_start: 0,
        }
    }

    /// Appends the next block to `out`, which ends with those before it; `false` at the end.
    fn next(&mut self, out: &mut Vec<u8>, limit: usize) -> Result<bool, DecompressError> {
        let input = &mut self.input;
        loop {
            let (flags, block_max) = match self.frame {
                Some(frame) => frame,
                None if input.rest().is_empty() => return Ok(false),
                None => {
                    self.frame_start = out.len();
                    *self.frame.insert(descriptor(input)?)
                }
            };
            let size = u32::from_le_bytes(input.array().ok_or_else(cut)?);
            if size == 0 {
                if flags & CONTENT_CHECKSUM != 0 {
                    input.take(4).ok_or_else(cut)?;
                }
                self.frame = None;
                continue;
            }
            let length = (size & !STORED) as usize;
            if length > block_max {
                return Err(DecompressError::malformed("a block over the block size"));
            }
            let block = input.take(length).ok_or_else(cut)?;
            if size & STORED == 0 {
                append(block, block_max, self.frame_start, out, limit)?;
            } else if block.len() > limit - out.len() {
                return Err(DecompressError::TooLarge { limit });
            } else {
                out.extend_from_slice(block);
            }
            if flags & BLOCK_CHECKSUM != 0 {
                input.take(4).ok_or_else(cut)?;
            }
            return Ok(true);
        }
    }
}

/// What [`decompress`] gives, in pieces: no more than a block and the window is held.
pub(super) struct Lz4Reader {
    /// What is left of it.
    input: Bytes,
    frame: Option<(u8, usize)>,
    frame_start: usize,
    out: Vec<u8>,
    at: usize,
}

impl Lz4Reader {
    pub(super) fn new(input: Bytes) -> Self {
        Self {
            input,
            frame: None,
            frame_start: 0,
            out: Vec::new(),
            at: 0,
        }
    }

    /// Appends the next block to `out`, of which only the window is kept; `false` at the end.
    fn next_block(&mut self) -> Result<bool, DecompressError> {
        let before_window = self.out.len().saturating_sub(WINDOW);
        self.out.drain(..before_window);
        self.at = self.out.len();
        let mut blocks = Lz4Blocks {
            input: ByteReader::new(&self.input),
            frame: self.frame,
            frame_start: self.frame_start.saturating_sub(before_window),
        };
        let more = blocks.next(&mut self.out, usize::MAX)?;
        let left = blocks.input.rest().len();
        (self.frame, self.frame_start) = (blocks.frame, blocks.frame_start);
        self.input.advance(self.input.len() - left);
        Ok(more)
    }
}

impl SectionReader for Lz4Reader {
    fn held_bytes(&mut self) -> usize {
        self.out.capacity()
    }
}

impl Read for Lz4Reader {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.out.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let read = (&self.out[self.at..]).read(buf)?;
        self.at += read;
        Ok(read)
    }
}

/// The frame's flags and its largest block.
fn descriptor(input: &mut ByteReader<'_>) -> Result<(u8, usize), DecompressError> {
    if input.array().map(u32::from_le_bytes) != Some(MAGIC) {
        return Err(DecompressError::malformed("not an LZ4 frame"));
    }
    let [flags, block_size] = input.array().ok_or_else(cut)?;
    if flags & VERSION_MASK != VERSION {
        return Err(DecompressError::malformed("unknown frame version"));
    }
    if flags & DICTIONARY != 0 {
        return Err(DecompressError::malformed("needs a dictionary"));
    }
    let block_max = match block_size >> 4 & 0b111 {
        4 => 64 << 10,
        5 => 256 << 10,
        6 => 1 << 20,
        7 => 4 << 20,
        _ => return Err(DecompressError::malformed("unknown block size")),
    };
    let content_size = if flags & CONTENT_SIZE != 0 { 8 } else { 0 };
    let header_checksum = 1;
    input.take(content_size + header_checksum).ok_or_else(cut)?;
    Ok((flags, block_max))
}

/// Decompresses one block, which may refer to the frame's blocks before it.
fn append(
    block: &[u8],
    block_max: usize,
    frame_start: usize,
    out: &mut Vec<u8>,
    limit: usize,
) -> Result<(), DecompressError> {
    let start = out.len();
    // A byte of a match's length stands for at most 255.
    let most = block_max.min(block.len() * 255 + 16);
    let room = most.min(limit - start);
    out.resize(start + room, 0);
    let (before, target) = out.split_at_mut(start);
    let window = &before[frame_start.max(start.saturating_sub(WINDOW))..];
    let length = decompress_into_with_dict(block, target, window).map_err(|error| {
        // What does not fit into the room for the largest block is no block.
        match error {
            lz4_flex::block::DecompressError::OutputTooSmall { .. } if room < most => {
                DecompressError::TooLarge { limit }
            }
            other => DecompressError::malformed(other),
        }
    })?;
    out.truncate(start + length);
    Ok(())
}

fn cut() -> DecompressError {
    DecompressError::malformed("cut short")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

    use super::*;

    fn text() -> Vec<u8> {
        (0..60_000_u32)
            .flat_map(|n| (n * n / 7).to_string().into_bytes())
            .collect()
    }

    #[test]
    fn linked_blocks_checksums_and_sizes_of_other_writers_are_read() {
        let text = text();
        for block_size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max4MB] {
            for mode in [BlockMode::Linked, BlockMode::Independent] {
                let info = FrameInfo::new()
                    .block_mode(mode)
                    .block_size(block_size)
                    .block_checksums(true)
                    .content_checksum(true)
                    .content_size(Some(text.len() as u64));
                let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
                encoder.write_all(&text).unwrap();
                let packed = encoder.finish().unwrap();
                assert!(decompress(&packed, text.len()).unwrap() == text);
            }
        }
    }

    #[test]
    fn another_reader_understands_our_frames() {
        let text = text();
        let mut packed = Vec::new();
        compress(&text, &mut packed);
        let mut read = Vec::new();
        std::io::Read::read_to_end(
            &mut lz4_flex::frame::FrameDecoder::new(&packed[..]),
            &mut read,
        )
        .unwrap();
        assert!(read == text);
    }

    #[test]
    fn a_wrong_header_checksum_of_an_old_client_is_forgiven() {
        let mut packed = Vec::new();
        compress(b"old old old old", &mut packed);
        packed[6] ^= 0xff;
        assert_eq!(decompress(&packed, 100).unwrap(), b"old old old old");
    }
}
