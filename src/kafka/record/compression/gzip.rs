//! RFC 1952, at the level Java's producer uses by default.

use std::io::{self, Read, Write};

use bytes::buf::Reader;
use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::error::DecompressError;
use super::section_reader::SectionReader;

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
pub(super) struct GzipReader(MultiGzDecoder<Reader<Bytes>>);

impl GzipReader {
    pub(super) fn new(input: Bytes) -> Self {
        Self(MultiGzDecoder::new(input.reader()))
    }
}

impl Read for GzipReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl SectionReader for GzipReader {
    fn held_bytes(&mut self) -> usize {
        INFLATE_STATE
    }
}

/// The window of 32 KiB, and the tables, roughly.
const INFLATE_STATE: usize = 48 << 10;
