//! Iterates over records that were checked before.

use super::old;
use super::reader::DecodedBatch;
use super::varint::Cursor;
use super::wire;

/// A record, borrowed from what was fetched or decompressed.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its place in the partition.
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
    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Key and value of each. Keys are UTF-8 by agreement only.
    #[inline]
    pub fn iter(&self) -> HeaderIter<'a> {
        HeaderIter {
            left: self.count,
            cursor: Cursor::new(self.encoded),
        }
    }
}

impl<'a> IntoIterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);
    type IntoIter = HeaderIter<'a>;

    fn into_iter(self) -> HeaderIter<'a> {
        self.iter()
    }
}

/// See [`Headers::iter`].
#[derive(Clone)]
pub struct HeaderIter<'a> {
    left: u32,
    cursor: Cursor<'a>,
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        wire::header(&mut self.cursor)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for HeaderIter<'_> {}

/// How the records of a batch are laid out.
#[derive(Clone, Copy, Debug)]
pub(super) enum Layout {
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

/// See [`Decoded::records`](super::reader::Decoded::records).
#[derive(Clone)]
pub struct Records<'a> {
    batches: std::slice::Iter<'a, DecodedBatch>,
    cursor: Cursor<'a>,
    layout: Layout,
    from: i64,
}

impl<'a> Records<'a> {
    pub(super) fn new(batches: &'a [DecodedBatch], from: i64) -> Self {
        Self {
            batches: batches.iter(),
            cursor: Cursor::new(&[]),
            layout: Layout::Messages {
                base_offset: 0,
                append_time: None,
            },
            from,
        }
    }

    /// The next record of the current batch; `None` at its end.
    #[inline]
    fn in_batch(&mut self) -> Option<Record<'a>> {
        if self.cursor.rest().is_empty() {
            return None;
        }
        match self.layout {
            Layout::Batch {
                base_offset,
                base_timestamp,
                append_time,
            } => {
                let record = wire::record(&mut self.cursor)?;
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
            Layout::Messages {
                base_offset,
                append_time,
            } => {
                let message = old::next(&mut self.cursor)?;
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
                Some(record) if record.offset >= self.from => return Some(record),
                Some(_) => {}
                None => {
                    let batch = self.batches.next()?;
                    self.cursor = Cursor::new(&batch.records);
                    self.layout = batch.layout;
                }
            }
        }
    }
}
