//! Builds magic 2 batches.
//!
//! ```text
//! append ─▶ │ room for the header │ record │ record │ …   RecordBatchBuilder
//! finish ─▶ │ room for the header │ compressed records │  Batch
//! stamp ──▶ │ header with producer and checksum │ … │     Batch::bytes ─▶ Produce
//! ```
//!
//! A record is encoded once, straight into its batch: appending allocates only when the
//! batch outgrows its capacity. Who produces it, under which sequence, is decided when
//! the batch is sent, so the header is stamped then, and again if the producer's epoch
//! changes before the batch is in the log.
//!
//! # Invariants
//! - The bytes are those that the Java producer writes, up to the codecs' choices.
//! - A batch that is handed out is never changed: stamping copies it if it is shared.

use bytes::{Bytes, BytesMut};

use super::compression::{compress, decompress};
use super::header::{
    BatchAttributes, BatchHeader, NO_PRODUCER_ID, NO_SEQUENCE, PREFIX, SIZE, seal,
};
use super::varint::{Cursor, Short, put, size_of};
use super::wire;
use crate::config::CompressionType;

/// A record to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// The key, or null.
    pub key: Option<&'a [u8]>,
    /// The value, or null: a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, in order. Keys may repeat.
    pub headers: &'a [NewHeader<'a>],
    /// Milliseconds since the epoch.
    pub timestamp: i64,
}

/// One header of a [`NewRecord`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewHeader<'a> {
    /// The name.
    pub key: &'a str,
    /// The value, or null.
    pub value: Option<&'a [u8]>,
}

/// A batch that records are appended to.
#[derive(Debug)]
pub struct RecordBatchBuilder {
    /// Room for a header, then whole records.
    bytes: Vec<u8>,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl RecordBatchBuilder {
    /// An empty batch with room for `capacity` bytes, header included. It grows beyond
    /// that if it must.
    pub fn new(capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity.max(SIZE));
        bytes.resize(SIZE, 0);
        Self {
            bytes,
            count: 0,
            base_timestamp: 0,
            max_timestamp: NO_TIMESTAMP,
        }
    }

    /// Encodes `record` at the end and returns its index in the batch.
    ///
    /// # Panics
    /// If the batch would exceed 2 GiB: `max.request.size` is far below that.
    pub fn append(&mut self, record: &NewRecord<'_>) -> u32 {
        let body = self.body_size(record);
        self.start(body, record.timestamp, record.key, record.value);
        put(&mut self.bytes, record.headers.len() as i64);
        for header in record.headers {
            put(&mut self.bytes, header.key.len() as i64);
            self.bytes.extend_from_slice(header.key.as_bytes());
            put_nullable(&mut self.bytes, header.value);
        }
        self.end(record.timestamp)
    }

    /// Appends a record of another batch, whose headers are encoded already.
    fn append_encoded(&mut self, record: &wire::Record<'_>, timestamp: i64) {
        let headers = record.header_count_size + record.headers.len();
        let body = self.front_size(timestamp, record.key, record.value) + headers;
        self.start(body, timestamp, record.key, record.value);
        put(&mut self.bytes, i64::from(record.header_count));
        self.bytes.extend_from_slice(record.headers);
        self.end(timestamp);
    }

    /// Everything of a record before its headers.
    fn start(&mut self, body: usize, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        assert!(
            self.bytes.len() + body < i32::MAX as usize - Self::LENGTH_MAX,
            "a batch is smaller than 2 GiB"
        );
        if self.count == 0 {
            self.base_timestamp = timestamp;
        }
        let mut front = Short::new();
        front.varint(body as i64);
        front.byte(0); // attributes: none are defined
        front.varint(timestamp.wrapping_sub(self.base_timestamp));
        front.varint(i64::from(self.count));
        front.varint(key.map_or(-1, |key| key.len() as i64));
        self.bytes.extend_from_slice(front.as_slice());
        self.bytes.extend_from_slice(key.unwrap_or_default());
        put_nullable(&mut self.bytes, value);
    }

    fn end(&mut self, timestamp: i64) -> u32 {
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.count += 1;
        self.count - 1
    }

    /// Bytes that `record` would add if it were appended now, before compression.
    pub fn size_of(&self, record: &NewRecord<'_>) -> usize {
        let body = self.body_size(record);
        size_of(body as i64) + body
    }

    fn body_size(&self, record: &NewRecord<'_>) -> usize {
        let mut size = self.front_size(record.timestamp, record.key, record.value);
        size += size_of(record.headers.len() as i64);
        for header in record.headers {
            size += size_of(header.key.len() as i64) + header.key.len();
            size += nullable_size(header.value);
        }
        size
    }

    fn front_size(&self, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> usize {
        let delta = match self.count {
            0 => 0,
            _ => timestamp.wrapping_sub(self.base_timestamp),
        };
        1 + size_of(delta)
            + size_of(i64::from(self.count))
            + nullable_size(key)
            + nullable_size(value)
    }

    /// Bytes so far, header included, before compression.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Records so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether nothing was appended yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The largest timestamp so far; -1 in an empty batch.
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// Compresses the records. The batch still has to be [stamped](RecordBatch::set_producer_state).
    ///
    /// # Panics
    /// If nothing was appended: a producer's batch holds at least one record.
    pub fn build(self, compression: CompressionType) -> RecordBatch {
        assert!(self.count > 0, "a batch holds at least one record");
        let uncompressed = self.bytes.len();
        let bytes = match compression {
            CompressionType::None => self.bytes,
            codec => {
                let mut packed = Vec::with_capacity(SIZE + (uncompressed - SIZE) / 2);
                packed.resize(SIZE, 0);
                compress(codec, &self.bytes[SIZE..], &mut packed);
                packed
            }
        };
        let header = BatchHeader {
            base_offset: 0,
            length: (bytes.len() - PREFIX) as i32,
            leader_epoch: NO_LEADER_EPOCH,
            crc: 0,
            attributes: BatchAttributes::new(compression),
            last_offset_delta: self.count as i32 - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_EPOCH,
            base_sequence: NO_SEQUENCE,
            record_count: self.count as i32,
        };
        RecordBatch {
            bytes: bytes.into(),
            header,
            compression,
            uncompressed,
        }
    }

    const LENGTH_MAX: usize = 5;
}

/// Bytes of a batch that holds nothing but `record`, before compression.
pub fn batch_size_of(record: &NewRecord<'_>) -> usize {
    let empty = RecordBatchBuilder {
        bytes: Vec::new(),
        count: 0,
        base_timestamp: 0,
        max_timestamp: NO_TIMESTAMP,
    };
    SIZE + empty.size_of(record)
}

/// A whole batch, ready to be sent once it is stamped.
#[derive(Clone, Debug)]
pub struct RecordBatch {
    bytes: Bytes,
    header: BatchHeader,
    compression: CompressionType,
    uncompressed: usize,
}

impl RecordBatch {
    /// Writes who produces the batch, and computes its checksum. -1 for all three is a
    /// producer that is not idempotent.
    pub fn set_producer_state(
        &mut self,
        producer_id: i64,
        producer_epoch: i16,
        base_sequence: i32,
    ) {
        self.header.producer_id = producer_id;
        self.header.producer_epoch = producer_epoch;
        self.header.base_sequence = base_sequence;
        self.write_header();
    }

    /// Marks the batch as part of a transaction, or not. To be called before it is
    /// stamped.
    pub fn set_transactional(&mut self, transactional: bool) {
        self.header.attributes = self.header.attributes.with_transactional(transactional);
    }

    fn write_header(&mut self) {
        // A request that still holds the bytes keeps them as they are.
        let mut bytes = std::mem::take(&mut self.bytes)
            .try_into_mut()
            .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        self.header.write(&mut bytes);
        self.header.crc = seal(&mut bytes);
        self.bytes = bytes.freeze();
    }

    /// The batch as it goes over the wire. It must have been stamped.
    pub fn bytes(&self) -> Bytes {
        debug_assert!(
            BatchHeader::parse(&self.bytes).as_ref() == Ok(&self.header),
            "a batch is stamped before it is sent"
        );
        self.bytes.clone()
    }

    /// Bytes over the wire.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes before compression, header included.
    pub fn uncompressed_size(&self) -> usize {
        self.uncompressed
    }

    /// Records in the batch.
    pub fn count(&self) -> u32 {
        self.header.record_count as u32
    }

    /// The largest timestamp.
    pub fn max_timestamp(&self) -> i64 {
        self.header.max_timestamp
    }

    /// The header as it was last stamped.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Two halves, by bytes, to be stamped anew; `None` if there is only one record.
    /// For MESSAGE_TOO_LARGE.
    pub fn split(&self) -> Option<(RecordBatch, RecordBatch)> {
        let count = self.count();
        if count < 2 {
            return None;
        }
        let half = SIZE + (self.uncompressed - SIZE).div_ceil(2);
        let mut first = RecordBatchBuilder::new(half);
        let mut second = RecordBatchBuilder::new(self.uncompressed - half + SIZE);
        self.each(|index, record, timestamp| {
            // Neither half may be empty, however uneven the records are.
            let into_first = index == 0 || (first.bytes() < half && index + 1 < count);
            if into_first && second.is_empty() {
                first.append_encoded(record, timestamp);
            } else {
                second.append_encoded(record, timestamp);
            }
        });
        Some((self.like(first), self.like(second)))
    }

    /// The records whose index `keep` accepts, in order, as a batch to be stamped anew;
    /// `None` if it accepts none. For INVALID_RECORD, which names records by index.
    pub fn retain(&self, mut keep: impl FnMut(u32) -> bool) -> Option<RecordBatch> {
        let mut kept = RecordBatchBuilder::new(self.uncompressed);
        self.each(|index, record, timestamp| {
            if keep(index) {
                kept.append_encoded(record, timestamp);
            }
        });
        (!kept.is_empty()).then(|| self.like(kept))
    }

    fn like(&self, builder: RecordBatchBuilder) -> RecordBatch {
        let mut batch = builder.build(self.compression);
        batch.set_transactional(self.header.attributes.transactional());
        batch
    }

    /// Calls `found` with the index, the record and its timestamp.
    fn each(&self, mut found: impl FnMut(u32, &wire::Record<'_>, i64)) {
        let packed = &self.bytes[SIZE..];
        let unpacked;
        let records = match self.compression {
            CompressionType::None => packed,
            codec => {
                unpacked = decompress(codec, packed, self.uncompressed)
                    .expect("what this module compressed, it decompresses");
                &unpacked
            }
        };
        let mut cursor = Cursor::new(records);
        for index in 0..self.count() {
            let record = wire::record(&mut cursor).expect("this module wrote the record");
            let timestamp = self
                .header
                .base_timestamp
                .wrapping_add(record.timestamp_delta);
            found(index, &record, timestamp);
        }
    }
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend_from_slice(bytes.unwrap_or_default());
}

fn nullable_size(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(size_of(-1), |bytes| {
        size_of(bytes.len() as i64) + bytes.len()
    })
}

const NO_TIMESTAMP: i64 = -1;
const NO_LEADER_EPOCH: i32 = -1;
const NO_EPOCH: i16 = -1;
