//! Decoded batches, and an iterator over their records, which were checked before.

use std::sync::Arc;

use bytes::Bytes;

use super::default_record;
use super::legacy_record;
use super::varint::ByteReader;

/// A record, borrowed from what was fetched or decompressed.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its offset in the partition.
    pub offset: i64,
    /// Milliseconds since the epoch: when it was created or appended, as the topic has
    /// it. -1 if there is none (magic 0).
    pub timestamp: i64,
    /// The key, or null.
    pub key: Option<&'a [u8]>,
    /// The value, or null: a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, in order.
    pub headers: Headers<'a>,
}

/// A record's headers, in order; keys may repeat.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    count: u32,
    encoded: &'a [u8],
}

impl<'a> Headers<'a> {
    /// Key and value of each. Keys are UTF-8 by agreement only.
    #[inline]
    pub(crate) fn iter(&self) -> HeaderIter<'a> {
        HeaderIter {
            left: self.count,
            reader: ByteReader::new(self.encoded),
        }
    }
}

impl<'a> IntoIterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);
    type IntoIter = HeaderIter<'a>;

    #[inline]
    fn into_iter(self) -> HeaderIter<'a> {
        self.iter()
    }
}

/// Iterates over keys and values of [`Headers`].
#[derive(Clone)]
pub struct HeaderIter<'a> {
    left: u32,
    reader: ByteReader<'a>,
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        default_record::read_header(&mut self.reader)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for HeaderIter<'_> {}

/// One batch of which at least one record is for the caller.
#[derive(Clone, Debug)]
pub struct DecodedBatch {
    /// The records section, decompressed.
    pub(super) records: Bytes,
    pub(super) layout: RecordLayout,
    pub(super) last_offset: i64,
    pub(super) count: u32,
    pub(super) leader_epoch: i32,
}

impl DecodedBatch {
    /// Offset of the last record that was written into the batch; compaction may have
    /// removed it since.
    #[inline]
    pub(crate) fn last_offset(&self) -> i64 {
        self.last_offset
    }

    /// Epoch of the leader that appended the batch; -1 before magic 2.
    #[inline]
    pub(crate) fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }
}

/// Offsets whose records cannot be delivered: a batch that cannot be decoded, or a record that
/// alone is over the limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableRecords {
    /// The first of the offsets.
    pub from_offset: i64,
    /// The last of them.
    pub last_offset: i64,
    /// What is wrong, as text.
    pub reason: Arc<str>,
}

/// How the records of a batch are laid out.
#[derive(Clone, Copy, Debug)]
pub(super) enum RecordLayout {
    /// Magic 2.
    Batch {
        base_offset: i64,
        base_timestamp: i64,
        append_time: Option<i64>,
    },
    /// Messages of magic 0 and 1, whose own offsets count from the base offset.
    Messages {
        base_offset: i64,
        append_time: Option<i64>,
    },
}

/// A place between two records; see [`Records::mark`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordsMark {
    batches_left: usize,
    /// Of the batch under way.
    bytes_left: usize,
    fetch_offset: i64,
}

/// Iterates over the records of decoded batches, in the order of the log.
#[derive(Clone)]
pub struct Records<'a> {
    batches: std::slice::Iter<'a, DecodedBatch>,
    reader: ByteReader<'a>,
    layout: RecordLayout,
    fetch_offset: i64,
}

impl<'a> Records<'a> {
    #[inline]
    pub(super) fn new(batches: &'a [DecodedBatch], fetch_offset: i64) -> Self {
        Self {
            batches: batches.iter(),
            reader: ByteReader::new(&[]),
            layout: RecordLayout::Messages {
                base_offset: 0,
                append_time: None,
            },
            fetch_offset,
        }
    }

    /// Where it stands, to go on from there later without what comes before.
    #[inline]
    pub fn mark(&self) -> RecordsMark {
        RecordsMark {
            batches_left: self.batches.len(),
            bytes_left: self.reader.rest().len(),
            fetch_offset: self.fetch_offset,
        }
    }

    /// Goes on at `mark`, which was taken of these batches.
    pub(super) fn at(batches: &'a [DecodedBatch], mark: RecordsMark) -> Self {
        let next = batches.len().saturating_sub(mark.batches_left);
        let mut records = Self::new(&batches[next..], mark.fetch_offset);
        if mark.bytes_left > 0
            && let Some(current) = next.checked_sub(1).map(|index| &batches[index])
        {
            let read = current.records.len().saturating_sub(mark.bytes_left);
            records.reader = ByteReader::new(&current.records[read..]);
            records.layout = current.layout;
        }
        records
    }

    /// The next record of the current batch; `None` at its end.
    #[inline]
    fn in_batch(&mut self) -> Option<Record<'a>> {
        if self.reader.rest().is_empty() {
            return None;
        }
        match self.layout {
            RecordLayout::Batch {
                base_offset,
                base_timestamp,
                append_time,
            } => {
                let record = default_record::read_record(&mut self.reader)?;
                Some(Record {
                    offset: base_offset + i64::from(record.offset_delta),
                    timestamp: append_time
                        .unwrap_or_else(|| base_timestamp.wrapping_add(record.timestamp_delta)),
                    key: record.key,
                    value: record.value,
                    headers: Headers {
                        count: record.header_count,
                        encoded: record.headers,
                    },
                })
            }
            RecordLayout::Messages {
                base_offset,
                append_time,
            } => {
                let message = legacy_record::read_record(&mut self.reader)?;
                Some(Record {
                    offset: base_offset + message.offset,
                    timestamp: append_time.unwrap_or(message.timestamp),
                    key: message.key,
                    value: message.value,
                    headers: Headers::default(),
                })
            }
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    #[inline]
    fn next(&mut self) -> Option<Record<'a>> {
        loop {
            match self.in_batch() {
                Some(record) if record.offset >= self.fetch_offset => return Some(record),
                Some(_) => {}
                None => {
                    let batch = self.batches.next()?;
                    self.reader = ByteReader::new(&batch.records);
                    self.layout = batch.layout;
                }
            }
        }
    }
}
