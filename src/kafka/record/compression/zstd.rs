//! RFC 8878, at zstd's default level.

use std::io::{self, Read};

use bytes::buf::Reader;
use bytes::{Buf, Bytes};
use structured_zstd::decoding::errors::{
    DecodeBlockContentError, DecodeBufferError, DecompressBlockError, ExecuteSequencesError,
    FrameDecoderError,
};
use structured_zstd::decoding::{FrameDecoder, StreamingDecoder};
use structured_zstd::encoding::{CompressionLevel, FrameCompressor};

use super::error::DecompressError;
use super::section_reader::SectionReader;

pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) {
    let mut compressor: FrameCompressor = FrameCompressor::new(CompressionLevel::Default);
    // The batch has a checksum.
    compressor.set_content_checksum(false);
    out.extend_from_slice(&compressor.compress_independent_frame(input));
}

/// Decodes into a guessed buffer, and again into one four times as large while it does
/// not fit: the decoder then needs no window of its own, whose size the frame claims.
pub(super) fn decompress(input: &[u8], limit: usize) -> Result<Vec<u8>, DecompressError> {
    let mut decoder = FrameDecoder::new();
    let most = input.len().saturating_mul(RATIO_MAX).min(limit);
    let mut room = input.len().saturating_mul(8).max(ROOM_MIN).min(most);
    loop {
        let mut out = vec![0; room];
        match decoder.decode_all(input, &mut out) {
            Ok(length) => {
                out.truncate(length);
                return Ok(out);
            }
            Err(error) if does_not_fit(&error) && room < most => {
                room = room.saturating_mul(4).min(most);
            }
            Err(error) if does_not_fit(&error) && most == limit => {
                return Err(DecompressError::TooLarge { limit });
            }
            Err(error) => return Err(DecompressError::malformed(error)),
        }
    }
}

/// What [`decompress`] gives, in pieces: no more than a block and the frame's window, of at most
/// 128 MiB, is held.
pub(super) struct ZstdReader(StreamingDecoder<Reader<Bytes>, FrameDecoder>);

impl ZstdReader {
    pub(super) fn new(input: Bytes) -> Self {
        Self(StreamingDecoder::new(input.reader()))
    }
}

impl Read for ZstdReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl SectionReader for ZstdReader {
    fn held_bytes(&mut self) -> usize {
        self.0.decoder_mut().workspace_size()
    }
}

/// The decoder tells a buffer that is too small in more than one way, depending on the
/// operation that met its end.
fn does_not_fit(error: &FrameDecoderError) -> bool {
    use DecodeBlockContentError::DecompressBlockError as Block;
    use DecompressBlockError::ExecuteSequencesError as Sequences;
    let FrameDecoderError::FailedToReadBlockBody(Block(Sequences(error))) = error else {
        return matches!(error, FrameDecoderError::TargetTooSmall);
    };
    matches!(
        error,
        ExecuteSequencesError::OutputBufferOverflow { .. }
            | ExecuteSequencesError::DecodebufferError(
                DecodeBufferError::OutputBufferOverflow { .. }
            )
    )
}

/// The most that four bytes can say: a block of 128 KiB that repeats one byte.
const RATIO_MAX: usize = (128 << 10) / 4;
const ROOM_MIN: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_size_allocates_no_more_than_the_bytes_could_yield() {
        // A single segment frame of 2 GiB, in one empty block.
        let claim = [
            0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0x80, 0x01, 0x00, 0x00,
        ];
        assert!(matches!(
            decompress(&claim, 1 << 30),
            Err(DecompressError::Malformed(_))
        ));
    }

    /// As streaming writers do, Java's among them.
    #[test]
    fn a_frame_that_does_not_say_its_size_is_read_whatever_it_is() {
        for len in (0..40_000).step_by(997).chain([200_000, 1 << 20]) {
            let input: Vec<u8> = (0..len as u32)
                .map(|n| if n % 1000 < 900 { n / 1000 } else { n.wrapping_mul(n) / 77 } as u8)
                .collect();
            let mut compressor: FrameCompressor = FrameCompressor::new(CompressionLevel::Default);
            compressor.set_content_size_flag(false);
            let packed = compressor.compress_independent_frame(&input);
            assert!(decompress(&packed, usize::MAX).unwrap() == input);
            assert!(decompress(&packed, len).unwrap() == input);
            if let Some(limit) = len.checked_sub(1) {
                assert_eq!(
                    decompress(&packed, limit),
                    Err(DecompressError::TooLarge { limit }),
                    "{len}"
                );
            }
        }
    }

    #[test]
    fn frames_may_follow_each_other() {
        let mut packed = Vec::new();
        compress(b"one", &mut packed);
        // A skippable frame of two bytes.
        packed.extend_from_slice(&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9]);
        compress(&[b'2'; 100_000], &mut packed);
        let out = decompress(&packed, 1 << 20).unwrap();
        assert_eq!(out.len(), 100_003);
        assert!(out.starts_with(b"one2"));
    }
}
