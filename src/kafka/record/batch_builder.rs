//! Builds magic 2 batches.
//!
//! ```text
//! append() ─▶ │ room for the header │ record │ record │ …   RecordBatchBuilder
//! build() ──▶ │ room for the header │ compressed records │  RecordBatch
//! set_producer_state() ─▶ │ header with producer and checksum │ … │ ─▶ Produce
//! ```
//!
//! A record is encoded once, straight into its batch: appending allocates only when the
//! batch outgrows its capacity. Who produces it, under which sequence, is decided when
//! the batch is sent, so the header is written then, and again if the producer's epoch
//! changes before the batch is in the log.
//!
//! # Invariants
//! - The bytes are those that the Java producer writes, up to the codecs' choices.
//! - A batch that is being sent is never changed: setting the producer's state copies it if
//!   it is shared.

use bytes::{Bytes, BytesMut};

use super::compression::{compress, decompress};
use super::default_record::{self, DefaultRecord};
use super::header::{
    BatchAttributes, BatchHeader, LOG_OVERHEAD, NO_PRODUCER_ID, NO_SEQUENCE, RECORD_BATCH_OVERHEAD,
    write_crc,
};
use super::varint::{ByteReader, VarintBuffer, size_of_varint, write_varint};
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

/// A batch that records are appended to (Java's `MemoryRecordsBuilder`).
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
        let mut bytes = Vec::with_capacity(capacity.max(RECORD_BATCH_OVERHEAD));
        bytes.resize(RECORD_BATCH_OVERHEAD, 0);
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
        self.write_front(body, record.timestamp, record.key, record.value);
        write_varint(&mut self.bytes, record.headers.len() as i64);
        for header in record.headers {
            write_varint(&mut self.bytes, header.key.len() as i64);
            self.bytes.extend_from_slice(header.key.as_bytes());
            write_nullable(&mut self.bytes, header.value);
        }
        self.count_record(record.timestamp)
    }

    /// Appends a record of another batch, whose headers are encoded already.
    fn append_encoded(&mut self, record: &DefaultRecord<'_>, timestamp: i64) {
        let headers = record.header_count_size + record.headers.len();
        let body = self.front_size(timestamp, record.key, record.value) + headers;
        self.write_front(body, timestamp, record.key, record.value);
        write_varint(&mut self.bytes, i64::from(record.header_count));
        self.bytes.extend_from_slice(record.headers);
        self.count_record(timestamp);
    }

    /// Everything of a record before its headers.
    #[inline]
    fn write_front(
        &mut self,
        body: usize,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) {
        assert!(
            self.bytes.len() + body < i32::MAX as usize - Self::LENGTH_MAX,
            "a batch is smaller than 2 GiB"
        );
        if self.count == 0 {
            self.base_timestamp = timestamp;
        }
        let mut front = VarintBuffer::new();
        front.varint(body as i64);
        front.byte(0); // attributes: none are defined
        front.varint(timestamp.wrapping_sub(self.base_timestamp));
        front.varint(i64::from(self.count));
        front.varint(key.map_or(-1, |key| key.len() as i64));
        self.bytes.extend_from_slice(front.as_slice());
        self.bytes.extend_from_slice(key.unwrap_or_default());
        write_nullable(&mut self.bytes, value);
    }

    #[inline]
    fn count_record(&mut self, timestamp: i64) -> u32 {
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.count += 1;
        self.count - 1
    }

    /// Bytes that `record` would add if it were appended now, before compression.
    pub(crate) fn size_of(&self, record: &NewRecord<'_>) -> usize {
        let body = self.body_size(record);
        size_of_varint(body as i64) + body
    }

    #[inline]
    fn body_size(&self, record: &NewRecord<'_>) -> usize {
        let mut size = self.front_size(record.timestamp, record.key, record.value);
        size += size_of_varint(record.headers.len() as i64);
        for header in record.headers {
            size += size_of_varint(header.key.len() as i64) + header.key.len();
            size += size_of_nullable(header.value);
        }
        size
    }

    #[inline]
    fn front_size(&self, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> usize {
        let delta = match self.count {
            0 => 0,
            _ => timestamp.wrapping_sub(self.base_timestamp),
        };
        1 + size_of_varint(delta)
            + size_of_varint(i64::from(self.count))
            + size_of_nullable(key)
            + size_of_nullable(value)
    }

    /// Bytes so far, header included, before compression.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Records so far.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Whether nothing was appended yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Compresses the records; if the codec fails, they go out as they are. The [producer's
    /// state](RecordBatch::set_producer_state) is still to be set.
    ///
    /// # Panics
    /// If nothing was appended: a producer's batch holds at least one record.
    pub fn build(self, mut compression: CompressionType) -> RecordBatch {
        assert!(self.count > 0, "a batch holds at least one record");
        let uncompressed = self.bytes.len();
        let mut compressed = Vec::new();
        if compression != CompressionType::None {
            compressed.reserve(RECORD_BATCH_OVERHEAD + (uncompressed - RECORD_BATCH_OVERHEAD) / 2);
            compressed.resize(RECORD_BATCH_OVERHEAD, 0);
            let records = &self.bytes[RECORD_BATCH_OVERHEAD..];
            if let Err(error) = compress(compression, records, &mut compressed) {
                tracing::error!(%error, "a batch is sent uncompressed");
                compression = CompressionType::None;
            }
        }
        let bytes = match compression {
            CompressionType::None => self.bytes,
            _ => compressed,
        };
        let header = BatchHeader {
            base_offset: 0,
            length: (bytes.len() - LOG_OVERHEAD) as i32,
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
pub(crate) fn batch_size_of(record: &NewRecord<'_>) -> usize {
    let empty = RecordBatchBuilder {
        bytes: Vec::new(),
        count: 0,
        base_timestamp: 0,
        max_timestamp: NO_TIMESTAMP,
    };
    RECORD_BATCH_OVERHEAD + empty.size_of(record)
}

/// A whole batch, ready to be sent once the producer's state is set.
#[derive(Clone, Debug)]
pub struct RecordBatch {
    bytes: Bytes,
    header: BatchHeader,
    compression: CompressionType,
    uncompressed: usize,
}

impl RecordBatch {
    /// Writes producer id, epoch and first sequence number, and computes the checksum. -1 for
    /// all three is a producer that is not idempotent.
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

    /// Marks the batch as part of a transaction, or not. To be called before
    /// [`set_producer_state`](Self::set_producer_state).
    pub fn set_transactional(&mut self, transactional: bool) {
        self.header.attributes = self.header.attributes.with_transactional(transactional);
    }

    fn write_header(&mut self) {
        // A request that still holds the bytes keeps them as they are.
        let mut bytes = std::mem::take(&mut self.bytes)
            .try_into_mut()
            .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        self.header.write(&mut bytes);
        self.header.crc = write_crc(&mut bytes);
        self.bytes = bytes.freeze();
    }

    /// The batch as it is sent. The producer's state must have been set.
    pub fn bytes(&self) -> Bytes {
        debug_assert!(
            BatchHeader::parse(&self.bytes).as_ref() == Ok(&self.header),
            "the producer's state is set before a batch is sent"
        );
        self.bytes.clone()
    }

    /// Bytes before compression, header included.
    pub(crate) fn uncompressed_size(&self) -> usize {
        self.uncompressed
    }

    /// Records in the batch.
    pub(crate) fn count(&self) -> u32 {
        self.header.record_count as u32
    }

    /// The largest timestamp.
    pub(crate) fn max_timestamp(&self) -> i64 {
        self.header.max_timestamp
    }

    /// The header with the producer's state that was set last.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The records whose index `keep` accepts, in order, as a batch whose producer's
    /// state is to be set anew; `None` if it accepts none, or if the codec does not give back
    /// what it was given. For INVALID_RECORD, which names records by index.
    pub(crate) fn retain(&self, mut keep: impl FnMut(u32) -> bool) -> Option<RecordBatch> {
        let mut kept = RecordBatchBuilder::new(self.uncompressed);
        self.for_each_record(|index, record, timestamp| {
            if keep(index) {
                kept.append_encoded(record, timestamp);
            }
        })?;
        (!kept.is_empty()).then(|| self.build_like_this(kept))
    }

    fn build_like_this(&self, builder: RecordBatchBuilder) -> RecordBatch {
        let mut batch = builder.build(self.compression);
        batch.set_transactional(self.header.attributes.is_transactional());
        batch
    }

    /// Calls `found` with the index, the record and its timestamp. `None`: the codec did not
    /// compress what it was given.
    fn for_each_record(&self, mut found: impl FnMut(u32, &DefaultRecord<'_>, i64)) -> Option<()> {
        let packed = &self.bytes[RECORD_BATCH_OVERHEAD..];
        let unpacked;
        let records = match self.compression {
            CompressionType::None => packed,
            codec => {
                unpacked = decompress(codec, packed, self.uncompressed).ok()?;
                &unpacked
            }
        };
        let mut reader = ByteReader::new(records);
        for index in 0..self.count() {
            let record = default_record::read_record(&mut reader)?;
            let timestamp = self
                .header
                .base_timestamp
                .wrapping_add(record.timestamp_delta);
            found(index, &record, timestamp);
        }
        Some(())
    }
}

#[inline]
fn write_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    write_varint(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend_from_slice(bytes.unwrap_or_default());
}

#[inline]
fn size_of_nullable(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(size_of_varint(-1), |bytes| {
        size_of_varint(bytes.len() as i64) + bytes.len()
    })
}

const NO_TIMESTAMP: i64 = -1;
const NO_LEADER_EPOCH: i32 = -1;
const NO_EPOCH: i16 = -1;
