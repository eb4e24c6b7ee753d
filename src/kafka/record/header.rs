//! The header of a magic 2 batch: 61 fixed bytes (KIP-98; Java's `DefaultRecordBatch`).
//!
//! ```text
//!  0 base offset i64     │ 21 attributes i16          │ 43 producer id i64
//!  8 length i32 (from 12)│ 23 last offset delta i32   │ 51 producer epoch i16
//! 12 leader epoch i32    │ 27 base timestamp i64      │ 53 base sequence i32
//! 16 magic i8            │ 35 max timestamp i64       │ 57 record count i32
//! 17 CRC-32C u32 ────────┴── of everything from 21 to the end of the batch
//! ```
//!
//! Base offset and leader epoch lie outside the checksum, so that the broker can
//! assign them without computing it again.
//!
//! # Invariants
//! - A parsed header's length and count are not negative, and its last offset fits an
//!   `i64`; whether the records agree with it is for the reader to find out.

use super::error::RecordError;
use crate::config::CompressionType;

/// Bytes of base offset and length: what is needed to know how long a batch is. The
/// same for all magics.
pub const LOG_OVERHEAD: usize = 12;
/// Bytes of a magic 2 header; the records follow.
pub const RECORD_BATCH_OVERHEAD: usize = 61;
/// Where the magic byte is, in all magics.
pub const MAGIC_OFFSET: usize = 16;
/// Where the checksum is.
pub(crate) const CRC_OFFSET: usize = 17;
/// From here on the checksum covers everything.
pub const ATTRIBUTES_OFFSET: usize = 21;
/// The producer id of a batch that is neither idempotent nor transactional.
pub(crate) const NO_PRODUCER_ID: i64 = -1;
/// The sequence of such a batch.
pub const NO_SEQUENCE: i32 = -1;

/// The attributes of a batch: compression type and flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchAttributes(pub i16);

impl BatchAttributes {
    const COMPRESSION: i16 = 0x07;
    const LOG_APPEND_TIME: i16 = 0x08;
    const TRANSACTIONAL: i16 = 0x10;
    const CONTROL: i16 = 0x20;

    /// Plain attributes of a batch that a producer writes.
    pub fn new(compression: CompressionType) -> Self {
        Self(match compression {
            CompressionType::None => 0,
            CompressionType::Gzip => 1,
            CompressionType::Snappy => 2,
            CompressionType::Lz4 => 3,
            CompressionType::Zstd => 4,
        })
    }

    /// How the records are compressed.
    ///
    /// # Errors
    /// The number in the attributes, 5 to 7, if it stands for no compression type.
    pub fn compression(self) -> Result<CompressionType, u8> {
        match self.0 & Self::COMPRESSION {
            0 => Ok(CompressionType::None),
            1 => Ok(CompressionType::Gzip),
            2 => Ok(CompressionType::Snappy),
            3 => Ok(CompressionType::Lz4),
            4 => Ok(CompressionType::Zstd),
            other => Err(other as u8),
        }
    }

    /// The broker set the time: every record's timestamp is the batch's largest.
    pub fn is_log_append_time(self) -> bool {
        self.0 & Self::LOG_APPEND_TIME != 0
    }

    /// Belongs to a transaction.
    pub fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Holds a transaction marker or another record that is not for consumers.
    pub fn is_control_batch(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// With or without the flag for [`is_transactional`](Self::is_transactional).
    #[must_use]
    pub fn with_transactional(self, on: bool) -> Self {
        self.with(Self::TRANSACTIONAL, on)
    }

    /// With or without the flag for [`is_control_batch`](Self::is_control_batch).
    #[must_use]
    pub fn with_control(self, on: bool) -> Self {
        self.with(Self::CONTROL, on)
    }

    fn with(self, flag: i16, on: bool) -> Self {
        Self(if on { self.0 | flag } else { self.0 & !flag })
    }
}

/// The header of a magic 2 batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record, as it was written: compaction may have removed it.
    pub base_offset: i64,
    /// Bytes that follow the length field itself, see [`size`](Self::size).
    pub length: i32,
    /// Epoch of the leader that appended the batch; -1 from producers.
    pub leader_epoch: i32,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Compression type and flags.
    pub attributes: BatchAttributes,
    /// The last record's offset less the base offset; stays when compaction removes
    /// that record.
    pub last_offset_delta: i32,
    /// What the records' timestamp deltas are relative to, in ms since 1970.
    pub base_timestamp: i64,
    /// The largest timestamp, or the append time of all, in ms since 1970; -1 if there is none.
    pub max_timestamp: i64,
    /// The producer that wrote it; -1 if it is not idempotent.
    pub producer_id: i64,
    /// That producer's epoch.
    pub producer_epoch: i16,
    /// Sequence number of the first record; [`NO_SEQUENCE`] if the producer is not idempotent.
    pub base_sequence: i32,
    /// Records that are in the batch now.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`, which need not hold the records.
    ///
    /// Does not verify the checksum: see [`verify`](Self::verify).
    ///
    /// # Errors
    /// [`Short`](RecordError::Short) if `bytes` end within the header,
    /// [`UnknownMagic`](RecordError::UnknownMagic) for any magic but 2, and
    /// [`Malformed`](RecordError::Malformed) if a length, count or offset cannot be.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let Some(&b) = bytes.first_chunk::<RECORD_BATCH_OVERHEAD>() else {
            return Err(RecordError::Short {
                base_offset: bytes
                    .first_chunk()
                    .map_or(-1, |&raw| i64::from_be_bytes(raw)),
                available: bytes.len(),
            });
        };
        let base_offset = i64::from_be_bytes(field(&b, 0));
        let magic = b[MAGIC_OFFSET] as i8;
        if magic != 2 {
            return Err(RecordError::UnknownMagic { base_offset, magic });
        }
        let header = Self {
            base_offset,
            length: i32::from_be_bytes(field(&b, 8)),
            leader_epoch: i32::from_be_bytes(field(&b, 12)),
            crc: u32::from_be_bytes(field(&b, CRC_OFFSET)),
            attributes: BatchAttributes(i16::from_be_bytes(field(&b, ATTRIBUTES_OFFSET))),
            last_offset_delta: i32::from_be_bytes(field(&b, 23)),
            base_timestamp: i64::from_be_bytes(field(&b, 27)),
            max_timestamp: i64::from_be_bytes(field(&b, 35)),
            producer_id: i64::from_be_bytes(field(&b, 43)),
            producer_epoch: i16::from_be_bytes(field(&b, 51)),
            base_sequence: i32::from_be_bytes(field(&b, 53)),
            record_count: i32::from_be_bytes(field(&b, 57)),
        };
        let malformed = |what| Err(RecordError::Malformed { base_offset, what });
        if header.length < (RECORD_BATCH_OVERHEAD - LOG_OVERHEAD) as i32 {
            return malformed("shorter than its header");
        }
        if header.record_count < 0 {
            return malformed("negative record count");
        }
        if base_offset < 0 || header.last_offset_delta < 0 {
            return malformed("negative offset");
        }
        // One less than the largest, so that the next offset exists too.
        if base_offset >= i64::MAX - i64::from(header.last_offset_delta) {
            return malformed("offsets beyond the largest");
        }
        Ok(header)
    }

    /// Writes the header over the first [`RECORD_BATCH_OVERHEAD`] bytes of `batch`, with the
    /// checksum it has: [`write_crc`] computes that afterwards.
    ///
    /// # Panics
    /// If `batch` is shorter than a header.
    pub fn write(&self, batch: &mut [u8]) {
        batch[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        batch[8..12].copy_from_slice(&self.length.to_be_bytes());
        batch[12..16].copy_from_slice(&self.leader_epoch.to_be_bytes());
        batch[16] = 2;
        batch[17..21].copy_from_slice(&self.crc.to_be_bytes());
        batch[21..23].copy_from_slice(&self.attributes.0.to_be_bytes());
        batch[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        batch[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        batch[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        batch[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        batch[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        batch[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        batch[57..61].copy_from_slice(&self.record_count.to_be_bytes());
    }

    /// Bytes of the whole batch, header included.
    pub fn size(&self) -> usize {
        LOG_OVERHEAD + self.length as usize
    }

    /// Offset of the last record that was written into the batch.
    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// Checks that `batch`, which is exactly this batch, is what was written.
    ///
    /// # Errors
    /// [`Short`](RecordError::Short) if `batch` has another size than the header says, and
    /// [`Checksum`](RecordError::Checksum) if its checksum is another.
    pub fn verify(&self, batch: &[u8]) -> Result<(), RecordError> {
        if batch.len() != self.size() {
            return Err(RecordError::Short {
                base_offset: self.base_offset,
                available: batch.len(),
            });
        }
        let computed = checksum(batch);
        if computed != self.crc {
            return Err(RecordError::Checksum {
                base_offset: self.base_offset,
                stored: self.crc,
                computed,
            });
        }
        Ok(())
    }
}

/// Computes the checksum of a whole batch and writes it into its header.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn write_crc(batch: &mut [u8]) -> u32 {
    let crc = checksum(batch);
    batch[CRC_OFFSET..ATTRIBUTES_OFFSET].copy_from_slice(&crc.to_be_bytes());
    crc
}

fn checksum(batch: &[u8]) -> u32 {
    crc32c::crc32c(&batch[ATTRIBUTES_OFFSET..])
}

fn field<const N: usize>(header: &[u8; RECORD_BATCH_OVERHEAD], at: usize) -> [u8; N] {
    *header[at..]
        .first_chunk()
        .expect("every field lies within the header")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> BatchHeader {
        BatchHeader {
            base_offset: 1 << 40,
            length: (RECORD_BATCH_OVERHEAD - LOG_OVERHEAD + 3) as i32,
            leader_epoch: 7,
            crc: 0,
            attributes: BatchAttributes::new(CompressionType::Zstd).with_transactional(true),
            last_offset_delta: 5,
            base_timestamp: 1_000,
            max_timestamp: 2_000,
            producer_id: 1 << 33,
            producer_epoch: 3,
            base_sequence: 77,
            record_count: 6,
        }
    }

    fn batch(header: &BatchHeader) -> Vec<u8> {
        let mut batch = vec![0; RECORD_BATCH_OVERHEAD];
        header.write(&mut batch);
        batch.extend_from_slice(b"abc");
        write_crc(&mut batch);
        batch
    }

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        let written = batch(&header());
        let read = BatchHeader::parse(&written).unwrap();
        assert_eq!(
            BatchHeader {
                crc: read.crc,
                ..header()
            },
            read
        );
        assert_eq!(read.size(), written.len());
        assert_eq!(read.last_offset(), (1 << 40) + 5);
        read.verify(&written).unwrap();
    }

    #[test]
    fn the_broker_may_assign_offset_and_epoch_without_a_new_checksum() {
        let mut bytes = batch(&header());
        let mut assigned = BatchHeader::parse(&bytes).unwrap();
        assigned.base_offset = 9;
        assigned.leader_epoch = 1;
        assigned.write(&mut bytes);
        BatchHeader::parse(&bytes).unwrap().verify(&bytes).unwrap();
        bytes[RECORD_BATCH_OVERHEAD] ^= 1;
        assert!(matches!(
            assigned.verify(&bytes),
            Err(RecordError::Checksum { base_offset: 9, .. })
        ));
    }

    #[test]
    fn a_header_that_contradicts_itself_is_refused() {
        let broken: [fn(&mut BatchHeader); 6] = [
            |h| h.length = 48,
            |h| h.length = i32::MIN,
            |h| h.record_count = -1,
            |h| h.base_offset = -1,
            |h| h.last_offset_delta = -1,
            |h| h.base_offset = i64::MAX - 5,
        ];
        for (at, change) in broken.iter().enumerate() {
            let mut header = header();
            change(&mut header);
            let mut bytes = [0; RECORD_BATCH_OVERHEAD];
            header.write(&mut bytes);
            assert!(
                matches!(
                    BatchHeader::parse(&bytes),
                    Err(RecordError::Malformed { .. })
                ),
                "case {at}"
            );
        }
    }

    #[test]
    fn a_short_or_foreign_header_is_named_by_its_offset() {
        let bytes = batch(&header());
        let short = |base_offset, available| {
            Err(RecordError::Short {
                base_offset,
                available,
            })
        };
        assert_eq!(BatchHeader::parse(&bytes[..60]), short(1 << 40, 60));
        assert_eq!(BatchHeader::parse(&[]), short(-1, 0));
        let mut foreign = bytes;
        foreign[MAGIC_OFFSET] = 3;
        assert_eq!(
            BatchHeader::parse(&foreign),
            Err(RecordError::UnknownMagic {
                base_offset: 1 << 40,
                magic: 3
            })
        );
    }
}
