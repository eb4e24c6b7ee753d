//! Reading a section that is decompressed piece by piece.

use std::io::Read;

use bytes::Bytes;

/// A section that is decompressed as it is read.
pub(in crate::record) trait SectionReader: Read + Send {
    /// Bytes that it holds besides its input.
    fn held_bytes(&mut self) -> usize;
}

/// What is not compressed needs no memory.
impl SectionReader for bytes::buf::Reader<Bytes> {
    fn held_bytes(&mut self) -> usize {
        0
    }
}
