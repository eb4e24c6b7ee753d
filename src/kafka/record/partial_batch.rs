//! Reads part of a batch that is too large to be held whole.
//!
//! ```text
//! section in pieces ─▶ record │ record │ record │ record │ …
//!                      before  kept while     read again from
//!                      `from`  there is room  its offset later
//! ```
//!
//! A batch's size says nothing about that of its records: Java's producer bounds a batch by an
//! estimate of its compressed size, and 42 kB can hold 760 MB.
//!
//! # Invariants
//! - What is kept is within `bytes_allowed`, but for one record that is larger alone.
//! - A record over `record_bytes_max` is never held, only reported as unreadable.

use std::io::{self, BufRead, BufReader, Read};

use super::default_record;
use super::header::BatchHeader;
use super::records::UnreadableRecords;
use super::varint::ByteReader;

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

/// Keeps records of the section, within `read`. An error that comes after something to
/// deliver is left for the next read, which begins there.
pub(super) fn read_part(
    section: impl Read,
    header: &BatchHeader,
    read: PartialRead,
) -> Result<PartialRecords, String> {
    let mut reader = PartReader {
        section: BufReader::with_capacity(READ_BUFFER, section),
        header,
        read,
        part: PartialRecords::default(),
        last_delta: -1,
        last_reported: None,
    };
    match reader.read_all() {
        Ok(stopped) => reader.part.stopped_at = reader.last_reported.filter(|_| stopped),
        Err(_) if reader.last_reported.is_some() => reader.part.stopped_at = reader.last_reported,
        Err(error) => return Err(error.to_string()),
    }
    Ok(reader.part)
}

struct PartReader<'a, R> {
    section: BufReader<R>,
    header: &'a BatchHeader,
    read: PartialRead,
    part: PartialRecords,
    last_delta: i32,
    last_reported: Option<i64>,
}

impl<R: Read> PartReader<'_, R> {
    /// Whether it stopped before the end.
    fn read_all(&mut self) -> io::Result<bool> {
        for _ in 0..self.header.record_count {
            if !self.read_record()? {
                return Ok(true);
            }
        }
        if !self.section.fill_buf()?.is_empty() {
            return Err(malformed("more records than it counts"));
        }
        Ok(false)
    }

    /// Reads one record; `false` if there is no room for it.
    fn read_record(&mut self) -> io::Result<bool> {
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
        if delta <= self.last_delta || delta > self.header.last_offset_delta {
            return Err(malformed(
                "record offsets that do not rise within the batch",
            ));
        }
        self.last_delta = delta;
        let offset = self.header.base_offset + i64::from(delta);
        let size = head.len() as u64 + rest;
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
            self.last_reported = Some(offset);
        } else {
            let kept = self.part.records.len();
            if kept > 0 && kept as u64 + size > self.read.bytes_allowed as u64 {
                return Ok(false);
            }
            self.keep(&head, rest)?;
            self.last_reported = Some(offset);
        }
        Ok(true)
    }

    /// Appends a record, or leaves what is kept as it was.
    fn keep(&mut self, head: &[u8], rest: u64) -> io::Result<()> {
        let records = &mut self.part.records;
        let start = records.len();
        records.extend_from_slice(head);
        let read = self.section.by_ref().take(rest).read_to_end(records);
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
        let skipped = io::copy(&mut self.section.by_ref().take(bytes), &mut io::sink())?;
        if skipped < bytes {
            return Err(malformed("a record does not fit its length"));
        }
        Ok(())
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.section.read_exact(&mut byte)?;
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

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

const READ_BUFFER: usize = 64 << 10;
/// Length, attributes, and two deltas, at their longest.
const RECORD_PREFIX_MAX: usize = 10 + 1 + 10 + 10;
const VARLONG_MAX: usize = 10;
