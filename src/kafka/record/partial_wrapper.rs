//! Reads a part of the messages of magic 0 or 1 that a wrapper holds, where all of them are too
//! large to be held.
//!
//! ```text
//! 1. section in pieces ─▶ offsets of all    (those of magic 1 count up to the wrapper's)
//! 2. section in pieces ─▶ message │ message │ message │ …
//!                         before    kept while there is room
//!                         `from`
//! ```
//!
//! # Invariants
//! - As for batches that are read in parts: what is kept is within `bytes_allowed`, but for one
//!   message that is larger alone; one over `record_bytes_max` is only reported.

use std::io::{self, BufRead, BufReader, Read};

use bytes::Bytes;

use super::compression::{self, SectionReader};
use super::header::LOG_OVERHEAD;
use super::legacy_record::{self, LENGTH_MIN};
use super::partial_batch::{PartialRead, malformed};
use super::records::UnreadableRecords;
use super::varint::ByteReader;
use crate::config::CompressionType;

/// A wrapper whose messages are read.
pub(super) struct Wrapper {
    pub(super) codec: CompressionType,
    pub(super) magic: u8,
    pub(super) offset: i64,
    /// The compressed messages.
    pub(super) section: Bytes,
}

/// Consecutive messages of a wrapper.
#[derive(Debug, Default)]
pub(super) struct PartialMessages {
    /// As they stand in the section.
    pub(super) records: Vec<u8>,
    /// What to add to their offsets.
    pub(super) base_offset: i64,
    /// Offset of the wrapper's first message in the log.
    pub(super) first_offset: i64,
    pub(super) count: u32,
    pub(super) unreadable: Vec<UnreadableRecords>,
    /// The last offset that was kept or reported; `None` when the wrapper is read to its end.
    pub(super) stopped_at: Option<i64>,
}

impl Wrapper {
    /// Keeps messages, within `read`.
    pub(super) fn read_part(&self, read: PartialRead) -> io::Result<PartialMessages> {
        let (first, last) = self.inner_offsets()?;
        let base_offset = match self.magic {
            0 => 0,
            _ => self.offset - last,
        };
        if base_offset < 0 || base_offset + last > self.offset {
            return Err(malformed("a wrapper's offset is not its last message's"));
        }
        let mut part = PartialMessages {
            base_offset,
            first_offset: base_offset + first,
            ..PartialMessages::default()
        };
        let mut messages = MessageReader::new(self);
        let mut last_reported = None;
        while let Some((prefix, length)) = messages.next()? {
            let offset = base_offset + i64::from_be_bytes(prefix[..8].try_into().expect("8 bytes"));
            let size = LOG_OVERHEAD + length;
            if offset < read.from {
                messages.skip(length)?;
                continue;
            }
            if size > read.record_bytes_max {
                messages.skip(length)?;
                let limit = read.record_bytes_max;
                part.unreadable.push(UnreadableRecords {
                    from_offset: offset,
                    last_offset: offset,
                    reason: format!("a record of {size} bytes, over the limit of {limit}").into(),
                });
            } else {
                let kept = part.records.len();
                if kept > 0 && kept + size > read.bytes_allowed {
                    part.stopped_at = last_reported;
                    return Ok(part);
                }
                part.records.extend_from_slice(&prefix);
                messages.take(length, &mut part.records)?;
                let message =
                    legacy_record::read_record(&mut ByteReader::new(&part.records[kept..]));
                if !message.is_some_and(|message| message.is_plain(self.magic)) {
                    return Err(malformed(
                        "a wrapped message of another kind than its wrapper",
                    ));
                }
                part.count += 1;
            }
            last_reported = Some(offset);
        }
        Ok(part)
    }

    /// The offsets of the first and the last message, as written; all of them rise.
    fn inner_offsets(&self) -> io::Result<(i64, i64)> {
        let mut messages = MessageReader::new(self);
        let mut offsets: Option<(i64, i64)> = None;
        while let Some((prefix, length)) = messages.next()? {
            let offset = i64::from_be_bytes(prefix[..8].try_into().expect("8 bytes"));
            if offset <= offsets.map_or(-1, |(_, last)| last) {
                return Err(malformed("wrapped offsets that do not rise"));
            }
            offsets = Some((offsets.map_or(offset, |(first, _)| first), offset));
            messages.skip(length)?;
        }
        offsets.ok_or_else(|| malformed("a wrapper of nothing"))
    }
}

struct MessageReader {
    section: BufReader<Box<dyn SectionReader>>,
}

impl MessageReader {
    fn new(wrapper: &Wrapper) -> Self {
        let section = compression::reader(wrapper.codec, wrapper.section.clone());
        Self {
            section: BufReader::with_capacity(READ_BUFFER, section),
        }
    }

    /// Offset and length of the next message, as they stand there, and how many bytes follow.
    fn next(&mut self) -> io::Result<Option<([u8; LOG_OVERHEAD], usize)>> {
        if self.section.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut prefix = [0; LOG_OVERHEAD];
        self.section.read_exact(&mut prefix)?;
        let length = i32::from_be_bytes(prefix[8..].try_into().expect("4 bytes"));
        let length = usize::try_from(length).unwrap_or(0);
        if length < LENGTH_MIN {
            return Err(malformed("a wrapped message does not fit its length"));
        }
        Ok(Some((prefix, length)))
    }

    fn skip(&mut self, length: usize) -> io::Result<()> {
        let mut rest = self.section.by_ref().take(length as u64);
        match io::copy(&mut rest, &mut io::sink())? {
            skipped if skipped == length as u64 => Ok(()),
            _ => Err(malformed("a wrapped message does not fit its length")),
        }
    }

    fn take(&mut self, length: usize, records: &mut Vec<u8>) -> io::Result<()> {
        let mut rest = self.section.by_ref().take(length as u64);
        match rest.read_to_end(records)? {
            read if read == length => Ok(()),
            _ => Err(malformed("a wrapped message does not fit its length")),
        }
    }
}

const READ_BUFFER: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::super::{DecodeOptions, RecordError, decode};
    use super::*;

    fn message(magic: u8, attributes: u8, offset: i64, value: &[u8]) -> Vec<u8> {
        let mut body = vec![magic, attributes];
        if magic == 1 {
            body.extend_from_slice(&1_000_i64.to_be_bytes());
        }
        body.extend_from_slice(&(-1_i32).to_be_bytes()); // no key
        body.extend_from_slice(&(value.len() as i32).to_be_bytes());
        body.extend_from_slice(value);
        let mut crc = flate2::Crc::new();
        crc.update(&body);
        let mut message = offset.to_be_bytes().to_vec();
        message.extend_from_slice(&(body.len() as i32 + 4).to_be_bytes());
        message.extend_from_slice(&crc.sum().to_be_bytes());
        message.extend_from_slice(&body);
        message
    }

    /// 20 messages of 1,000 bytes at the offsets 5 to 24, in one wrapper.
    fn wrapper(magic: u8) -> Bytes {
        let first = if magic == 0 { 5 } else { 0 };
        let inner: Vec<u8> = (0..20)
            .flat_map(|n| message(magic, 0, first + n, &[n as u8 + 5; 1000]))
            .collect();
        let mut section = Vec::new();
        compression::compress(CompressionType::Gzip, &inner, &mut section).unwrap();
        message(magic, 1, 24, &section).into()
    }

    fn options(from: i64) -> DecodeOptions {
        DecodeOptions {
            max_decompressed_bytes: 4_500,
            ..DecodeOptions::from_offset(from)
        }
    }

    #[test]
    fn a_wrapper_larger_than_the_room_is_read_in_parts_within_it() {
        for magic in [0, 1] {
            let bytes = wrapper(magic);
            let (mut next, mut parts) = (5, 0);
            while next < 25 {
                let part = decode(bytes.clone(), &options(next)).unwrap();
                assert!(part.bytes <= 4_500, "{}", part.bytes);
                for record in part.records() {
                    assert_eq!(record.offset, next);
                    assert_eq!(record.value, Some(&[next as u8; 1000][..]));
                    next += 1;
                }
                assert_eq!(part.next_offset, Some(next));
                parts += 1;
            }
            assert_eq!((next, parts), (25, 5), "magic {magic}");
        }
    }

    #[test]
    fn a_wrapper_is_not_read_in_parts_unless_that_is_wanted() {
        let options = DecodeOptions {
            read_parts: false,
            ..options(5)
        };
        assert_eq!(
            decode(wrapper(1), &options).unwrap_err(),
            RecordError::TooLarge {
                base_offset: 24,
                limit: 4_500
            }
        );
    }

    #[test]
    fn a_wrapped_message_over_the_limit_is_reported_and_the_others_are_read() {
        for magic in [0, 1] {
            let first = if magic == 0 { 7 } else { 0 };
            let sizes = [10, 9_000, 20];
            let inner: Vec<u8> = (0..3)
                .flat_map(|n| message(magic, 0, first + n as i64, &vec![0; sizes[n]]))
                .collect();
            let mut section = Vec::new();
            compression::compress(CompressionType::Gzip, &inner, &mut section).unwrap();
            let options = DecodeOptions {
                record_bytes_max: 5_000,
                ..options(7)
            };
            let decoded = decode(message(magic, 1, 9, &section).into(), &options).unwrap();
            let offsets: Vec<i64> = decoded.records().map(|record| record.offset).collect();
            assert_eq!(offsets, [7, 9], "magic {magic}");
            let unreadable: Vec<i64> = decoded.unreadable.iter().map(|u| u.last_offset).collect();
            assert_eq!(unreadable, [8]);
            assert_eq!(decoded.next_offset, Some(10));
        }
    }
}
