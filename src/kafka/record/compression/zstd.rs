//! RFC 8878, at zstd's default level.

use structured_zstd::decoding::FrameDecoder;
use structured_zstd::decoding::errors::FrameDecoderError;
use structured_zstd::encoding::{CompressionLevel, FrameCompressor};

use super::DecompressError;

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
            Err(FrameDecoderError::TargetTooSmall) if room < most => {
                room = room.saturating_mul(4).min(most);
            }
            Err(FrameDecoderError::TargetTooSmall) if most == limit => {
                return Err(DecompressError::TooLarge { limit });
            }
            Err(error) => return Err(DecompressError::malformed(error)),
        }
    }
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
