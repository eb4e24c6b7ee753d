//! RFC 1952, at the level Java's producer uses by default.

use std::io::{Read, Write};

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::error::DecompressError;

pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) {
    let mut encoder = GzEncoder::new(out, flate2::Compression::default());
    encoder
        .write_all(input)
        .and_then(|()| encoder.try_finish())
        .expect("a Vec takes every byte");
}

pub(super) fn decompress(input: &[u8], limit: usize) -> Result<Vec<u8>, DecompressError> {
    let mut out = Vec::with_capacity(input.len().saturating_mul(4).min(limit));
    // One byte more, to tell "exactly the limit" from "more".
    MultiGzDecoder::new(input)
        .take((limit as u64).saturating_add(1))
        .read_to_end(&mut out)
        .map_err(DecompressError::malformed)?;
    if out.len() > limit {
        return Err(DecompressError::TooLarge { limit });
    }
    Ok(out)
}

/// What [`decompress`] gives, in pieces.
pub(super) fn reader(input: &[u8]) -> impl Read + '_ {
    MultiGzDecoder::new(input)
}
