//! One record of a magic 2 batch, as it stands in the (decompressed) records section
//! (Java's `DefaultRecord`).
//!
//! ```text
//! length varint │ attributes i8 │ timestamp delta varlong │ offset delta varint
//! │ key length varint │ key │ value length varint │ value
//! │ header count varint │ (key length varint │ key │ value length varint │ value)*
//! ```
//!
//! Lengths of -1 are nulls; a header's key is never null.

use super::varint::ByteReader;

/// A record whose headers are left encoded.
pub(super) struct DefaultRecord<'a> {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) header_count: u32,
    /// Bytes that the count itself takes.
    pub(super) header_count_size: usize,
    /// The headers, and nothing after them.
    pub(super) headers: &'a [u8],
}

/// Reads one record from the front; `None` if it does not fit its length or the bytes.
#[inline]
pub(super) fn read_record<'a>(section: &mut ByteReader<'a>) -> Option<DefaultRecord<'a>> {
    let length = usize::try_from(section.varint()?).ok()?;
    let mut body = ByteReader::new(section.take(length)?);
    body.byte()?;
    let timestamp_delta = body.varlong()?;
    let offset_delta = body.varint()?;
    let key = body.nullable()?;
    let value = body.nullable()?;
    let before_count = body.rest().len();
    let header_count = u32::try_from(body.varint()?).ok()?;
    Some(DefaultRecord {
        timestamp_delta,
        offset_delta,
        key,
        value,
        header_count,
        header_count_size: before_count - body.rest().len(),
        headers: body.rest(),
    })
}

/// Reads one header from the front.
#[inline]
pub(super) fn read_header<'a>(
    headers: &mut ByteReader<'a>,
) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let key = headers.nullable()??;
    Some((key, headers.nullable()?))
}

/// Whether `headers` holds exactly `count` headers.
#[inline]
pub(super) fn headers_are_whole(count: u32, headers: &[u8]) -> bool {
    let mut reader = ByteReader::new(headers);
    for _ in 0..count {
        if read_header(&mut reader).is_none() {
            return false;
        }
    }
    reader.rest().is_empty()
}
