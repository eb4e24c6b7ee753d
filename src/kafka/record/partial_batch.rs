//! A batch that is too large to be held whole, read part by part.
//!
//! ```text
//! section in pieces ─▶ record │ record │ record │ record │ …
//!                      before  kept while     the next part
//!                      `from`  there is room  begins here
//! ```
//!
//! A batch's size says nothing about that of its records: Java's producer bounds a batch by an
//! estimate of its compressed size, and 42 kB can hold 760 MB.
//!
//! # Invariants
//! - What is kept is within `bytes_allowed`, but for one record that is larger alone.
//! - A record over `record_bytes_max` is never held, only reported as unreadable.
//! - A batch that is read in parts, one after another, is decompressed once.

use std::io::{self, BufRead, BufReader, Read};

use bytes::Bytes;

use super::compression::{self, SectionReader};
use super::default_record;
use super::header::BatchHeader;
use super::records::UnreadableRecords;
use super::varint::ByteReader;
use crate::config::CompressionType;

/// What is to be kept of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartialRead {
    /// Records before this offset are dropped.
    pub(super) from: i64,
    /// Bytes of records to keep.
    pub(super) bytes_allowed: usize,
    /// Bytes that one record may take.
    pub(super) record_bytes_max: usize,
}

/// Consecutive records of a batch.
#[derive(Debug, Default)]
pub(super) struct PartialRecords {
    /// As they stand in the records section.
    pub(super) records: Vec<u8>,
    pub(super) count: u32,
    pub(super) unreadable: Vec<UnreadableRecords>,
    /// The last offset that was kept or reported; `None` when the batch is read to its end.
    pub(super) stopped_at: Option<i64>,
}

/// A batch, and how far it was read.
pub(crate) struct PartialBatch {
    header: BatchHeader,
    section: BufReader<Box<dyn SectionReader>>,
    section_bytes: usize,
    /// Records that were not read yet, with the one whose head was.
    records_left: i32,
    last_delta: i32,
    /// The record for which there was no room.
    pending: Option<RecordPrefix>,
    /// The last offset that was kept or reported.
    last_reported: Option<i64>,
    /// Bytes of records that were read for the last part.
    #[cfg(test)]
    bytes_read: u64,
}

/// The beginning of a record, and what is to come of it.
struct RecordPrefix {
    head: Vec<u8>,
    rest: u64,
    offset: i64,
}

impl PartialBatch {
    /// `section_bytes` are those of the memory that the section holds.
    pub(super) fn new(
        header: &BatchHeader,
        codec: CompressionType,
        section: Bytes,
        section_bytes: usize,
    ) -> Self {
        Self {
            header: *header,
            section_bytes,
            section: BufReader::with_capacity(READ_BUFFER, compression::reader(codec, section)),
            records_left: header.record_count,
            last_delta: -1,
            pending: None,
            last_reported: None,
            #[cfg(test)]
            bytes_read: 0,
        }
    }

    /// Whether what follows in this batch can be read on at `offset`.
    pub(crate) fn continues_at(&self, offset: i64) -> bool {
        self.last_reported.is_some_and(|last| last < offset) && offset <= self.header.last_offset()
    }

    /// Whether it is the batch with this header.
    pub(super) fn is_of(&self, header: &BatchHeader) -> bool {
        self.header == *header
    }

    /// The last offset that was kept or reported.
    pub(crate) fn last_reported(&self) -> Option<i64> {
        self.last_reported
    }

    /// Bytes that it holds.
    pub(crate) fn held_bytes(&mut self) -> usize {
        self.section_bytes + READ_BUFFER + self.section.get_mut().held_bytes()
    }

    /// Keeps records of the section, within `read`. An error that comes after something to
    /// deliver is left for the next read, which begins there, and from the start of the batch.
    pub(super) fn read_part(&mut self, read: PartialRead) -> Result<PartialRecords, PartError> {
        let before = self.last_reported;
        #[cfg(test)]
        {
            self.bytes_read = 0;
        }
        let mut reader = PartReader {
            batch: self,
            read,
            part: PartialRecords::default(),
        };
        let ended = reader.read_all();
        let mut part = reader.part;
        let reported = self.last_reported.filter(|_| self.last_reported != before);
        match ended {
            Ok(stopped) => {
                part.stopped_at = reported.filter(|_| stopped);
                Ok(part)
            }
            Err(error) => {
                part.stopped_at = reported;
                Err(PartError { part, error })
            }
        }
    }

    pub(super) fn base_offset(&self) -> i64 {
        self.header.base_offset
    }

    #[cfg(test)]
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }
}

/// A batch cannot be read on.
pub(super) struct PartError {
    /// What was read before, if [`PartialRecords::stopped_at`] says so.
    pub(super) part: PartialRecords,
    pub(super) error: io::Error,
}

impl std::fmt::Debug for PartialBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartialBatch")
            .field("header", &self.header)
            .field("last_reported", &self.last_reported)
            .finish_non_exhaustive()
    }
}

struct PartReader<'a> {
    batch: &'a mut PartialBatch,
    read: PartialRead,
    part: PartialRecords,
}

impl PartReader<'_> {
    /// Whether it stopped before the end.
    fn read_all(&mut self) -> io::Result<bool> {
        while self.batch.records_left > 0 {
            if !self.read_record()? {
                return Ok(true);
            }
            self.batch.records_left -= 1;
        }
        if !self.batch.section.fill_buf()?.is_empty() {
            return Err(malformed("more records than it counts"));
        }
        Ok(false)
    }

    /// Reads one record; `false` if there is no room for it.
    fn read_record(&mut self) -> io::Result<bool> {
        let prefix = match self.batch.pending.take() {
            Some(prefix) => prefix,
            None => self.read_prefix()?,
        };
        let (offset, rest) = (prefix.offset, prefix.rest);
        let size = prefix.head.len() as u64 + rest;
        if offset < self.read.from {
            self.skip(rest)?;
        } else if size > self.read.record_bytes_max as u64 {
            self.skip(rest)?;
            let limit = self.read.record_bytes_max;
            self.part.unreadable.push(UnreadableRecords {
                from_offset: offset,
                last_offset: offset,
                reason: format!("a record of {size} bytes, over the limit of {limit}").into(),
            });
            self.batch.last_reported = Some(offset);
        } else {
            let kept = self.part.records.len();
            if kept > 0 && kept as u64 + size > self.read.bytes_allowed as u64 {
                self.batch.pending = Some(prefix);
                return Ok(false);
            }
            self.keep(&prefix.head, rest)?;
            self.batch.last_reported = Some(offset);
        }
        #[cfg(test)]
        {
            self.batch.bytes_read += size;
        }
        Ok(true)
    }

    fn read_prefix(&mut self) -> io::Result<RecordPrefix> {
        let mut head = Vec::with_capacity(RECORD_PREFIX_MAX);
        let length = self.varint(&mut head)?;
        let length = u64::try_from(length).map_err(|_| malformed("a record of negative length"))?;
        let start = head.len();
        head.push(self.byte()?);
        self.varint(&mut head)?; // the timestamp
        let delta = self.varint(&mut head)?;
        let rest = length
            .checked_sub((head.len() - start) as u64)
            .ok_or_else(|| malformed("a record does not fit its length"))?;
        let delta = i32::try_from(delta).unwrap_or(-1);
        let header = &self.batch.header;
        if delta <= self.batch.last_delta || delta > header.last_offset_delta {
            return Err(malformed(
                "record offsets that do not rise within the batch",
            ));
        }
        let offset = header.base_offset + i64::from(delta);
        self.batch.last_delta = delta;
        Ok(RecordPrefix { head, rest, offset })
    }

    /// Appends a record, or leaves what is kept as it was.
    fn keep(&mut self, head: &[u8], rest: u64) -> io::Result<()> {
        let records = &mut self.part.records;
        let start = records.len();
        records.extend_from_slice(head);
        let read = self.batch.section.by_ref().take(rest).read_to_end(records);
        let is_whole = matches!(read, Ok(read) if read as u64 == rest)
            && default_record::read_record(&mut ByteReader::new(&records[start..])).is_some_and(
                |record| default_record::headers_are_whole(record.header_count, record.headers),
            );
        if !is_whole {
            records.truncate(start);
            read?;
            return Err(malformed("a record does not fit its length"));
        }
        self.part.count += 1;
        Ok(())
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(
            &mut self.batch.section.by_ref().take(bytes),
            &mut io::sink(),
        )?;
        if skipped < bytes {
            return Err(malformed("a record does not fit its length"));
        }
        Ok(())
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.batch.section.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// A varint of at most ten bytes, which are appended to `head` too.
    fn varint(&mut self, head: &mut Vec<u8>) -> io::Result<i64> {
        let start = head.len();
        loop {
            let byte = self.byte()?;
            head.push(byte);
            if byte < 0x80 {
                break;
            }
            if head.len() - start == VARLONG_MAX {
                return Err(malformed("a number that does not end"));
            }
        }
        ByteReader::new(&head[start..])
            .varlong()
            .ok_or_else(|| malformed("a number out of range"))
    }
}

pub(super) fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

const READ_BUFFER: usize = 64 << 10;
/// Length, attributes, and two deltas, at their longest.
const RECORD_PREFIX_MAX: usize = 10 + 1 + 10 + 10;
const VARLONG_MAX: usize = 10;
