//! The records of one frame, kept until its transaction is committed.

use std::ops::Range;
use std::sync::Arc;

use crate::metadata::TopicMetadata;
use crate::record::{NewHeader, NewRecord, RecordBatchBuilder, batch_size_of};

/// Records that are written in one transaction, or not at all. They are copied once, and are there
/// to be written again after an abort.
#[derive(Debug, Default)]
pub struct TransactionFrame {
    records: Vec<FrameRecord>,
    /// Keys, values, and values of headers.
    bytes: Vec<u8>,
    size: usize,
}

/// One record of a frame, whose bytes are the frame's.
#[derive(Debug)]
pub(super) struct FrameRecord {
    pub(super) topic: Arc<TopicMetadata>,
    /// The one that was asked for.
    pub(super) partition: Option<i32>,
    /// In bytes, as the only record of a batch.
    pub(super) size: usize,
    timestamp: i64,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: Vec<KeptHeader>,
}

#[derive(Debug)]
struct KeptHeader {
    key: Box<str>,
    value: Option<Range<usize>>,
}

impl TransactionFrame {
    /// Adds a record. Its partition is the given one, or the key's, or any.
    pub fn push(
        &mut self,
        topic: &Arc<TopicMetadata>,
        partition: Option<i32>,
        record: &NewRecord<'_>,
    ) {
        let size = batch_size_of(record);
        let headers = record.headers.iter().map(|header| KeptHeader {
            key: header.key.into(),
            value: self.keep(header.value),
        });
        let headers = headers.collect();
        let record = FrameRecord {
            topic: Arc::clone(topic),
            partition,
            size,
            timestamp: record.timestamp,
            key: self.keep(record.key),
            value: self.keep(record.value),
            headers,
        };
        self.size += size;
        self.records.push(record);
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes that the records take, each in a batch of its own.
    pub fn size(&self) -> usize {
        self.size
    }

    pub(super) fn records(&self) -> &[FrameRecord] {
        &self.records
    }

    pub(super) fn key(&self, record: usize) -> Option<&[u8]> {
        self.slice(self.records[record].key.as_ref())
    }

    pub(super) fn timestamp(&self, record: usize) -> i64 {
        self.records[record].timestamp
    }

    /// Encodes a record at the end of a batch.
    pub(super) fn append_to(&self, builder: &mut RecordBatchBuilder, record: usize) {
        let record = &self.records[record];
        let headers = record.headers.iter().map(|header| NewHeader {
            key: &header.key,
            value: self.slice(header.value.as_ref()),
        });
        let headers: Vec<_> = headers.collect();
        builder.append(&NewRecord {
            key: self.slice(record.key.as_ref()),
            value: self.slice(record.value.as_ref()),
            headers: &headers,
            timestamp: record.timestamp,
        });
    }

    fn keep(&mut self, bytes: Option<&[u8]>) -> Option<Range<usize>> {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(bytes?);
        Some(from..self.bytes.len())
    }

    fn slice(&self, range: Option<&Range<usize>>) -> Option<&[u8]> {
        Some(&self.bytes[range?.clone()])
    }
}
