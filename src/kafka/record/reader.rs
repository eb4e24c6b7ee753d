//! Reads what a Fetch response holds for one partition.
//!
//! ```text
//! bytes ─▶ batch │ batch │ message │ batch │ half a ba
//!            │ checksum, limits, transactions            (once, here)
//!            ▼
//!         Decoded: whole, checked batches over the fetched bytes, or over
//!            │     decompressed ones
//!            ▼
//!         Record, Record, …                              (any number of times)
//! ```
//!
//! A broker sends whole batches from the one that holds the wanted offset, and cuts the
//! last where the response is full. So records before the wanted offset, and a cut
//! tail, are ordinary.
//!
//! # Invariants
//! - Every record was checked here: iterating cannot fail and allocates nothing.
//! - Offsets rise strictly from record to record, and all lie below
//!   [`next_offset`](Decoded::next_offset).
//! - What was read before a broken batch is delivered; the error comes when reading
//!   starts at that batch.

use bytes::Bytes;

use super::aborted::{Aborted, AbortedTransaction, is_abort_marker};
use super::compression::{DecompressError, decompress};
use super::error::RecordError;
use super::header::{BatchHeader, MAGIC_AT, PREFIX, SIZE};
use super::old;
use super::records::{Layout, Records};
use super::varint::Cursor;
use super::wire;
use crate::config::CompressionType;

/// What the caller wants from fetched bytes.
#[derive(Clone, Debug)]
pub struct DecodeOptions {
    /// Records before this offset are left out.
    pub fetch_offset: i64,
    /// `read_committed`: the aborted transactions that came with the response, in any
    /// order. `None` is `read_uncommitted`.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// Bytes that all compressed batches together may take once decompressed. What
    /// would exceed it is left for the next call, if there is something before it.
    pub max_decompressed_bytes: usize,
}

/// Fetched batches, checked.
#[derive(Clone, Debug)]
pub struct DecodedRecords {
    /// The batches that hold a record for the caller.
    pub batches: Vec<DecodedBatch>,
    /// Where to read on: behind the last batch that was complete, even if nothing in
    /// it was for the caller. `None` if no batch was.
    pub next_offset: Option<i64>,
    /// Leader epoch of that last batch, to be carried with the position; -1 if unknown.
    pub leader_epoch: i32,
    /// Bytes of records that are held.
    pub bytes: usize,
    from: i64,
}

impl DecodedRecords {
    /// The records at or after [`Want::from`], in the order of the log.
    #[inline]
    pub fn records(&self) -> Records<'_> {
        Records::new(&self.batches, self.from)
    }

    /// The records at or after `from`, in the order of the log.
    #[inline]
    pub fn records_from(&self, from: i64) -> Records<'_> {
        let first = self.batches.partition_point(|b| b.last_offset < from);
        Records::new(&self.batches[first..], from.max(self.from))
    }

    /// How many records [`records`](Self::records) yields.
    #[inline]
    pub fn count(&self) -> usize {
        self.batches.iter().map(|b| b.count as usize).sum()
    }

    /// Whether there is no record for the caller.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }
}

/// One batch of which at least one record is for the caller.
#[derive(Clone, Debug)]
pub struct DecodedBatch {
    /// The records section, decompressed.
    pub(super) records: Bytes,
    pub(super) layout: Layout,
    pub(super) last_offset: i64,
    count: u32,
    leader_epoch: i32,
}

impl DecodedBatch {
    /// Offset of the last record that was written into the batch; compaction may have
    /// removed it since.
    #[inline]
    pub fn last_offset(&self) -> i64 {
        self.last_offset
    }

    /// Records for the caller.
    #[inline]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Epoch of the leader that appended the batch; -1 before magic 2.
    #[inline]
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }
}

/// Checks and decompresses what a Fetch response holds for one partition.
///
/// # Errors
/// Only if nothing at or after `options.fetch_offset` could be read before the broken batch.
pub fn decode(records: Bytes, options: &DecodeOptions) -> Result<DecodedRecords, RecordError> {
    let mut decoder = Decoder {
        rest: records,
        options,
        room: options.max_decompressed_bytes,
        aborted: options.aborted_transactions.as_deref().map(Aborted::new),
        decoded: DecodedRecords {
            batches: Vec::new(),
            next_offset: None,
            leader_epoch: NO_LEADER_EPOCH,
            bytes: 0,
            from: options.fetch_offset,
        },
    };
    loop {
        match decoder.step() {
            Ok(true) => {}
            Ok(false) => return Ok(decoder.decoded),
            Err(_) if decoder.decoded.next_offset > Some(options.fetch_offset) => {
                return Ok(decoder.decoded);
            }
            Err(error) => return Err(error),
        }
    }
}

struct Decoder<'a> {
    rest: Bytes,
    options: &'a DecodeOptions,
    room: usize,
    aborted: Option<Aborted>,
    decoded: DecodedRecords,
}

/// What a batch turns into: where its records are, and how many are for the caller.
struct Section {
    records: Bytes,
    layout: Layout,
    count: u32,
}

impl Decoder<'_> {
    /// Reads one batch; `false` where the complete ones end.
    fn step(&mut self) -> Result<bool, RecordError> {
        let Some(&magic) = self.rest.get(MAGIC_AT) else {
            return Ok(false);
        };
        let mut prefix = Cursor::new(&self.rest);
        let base_offset = i64::from_be_bytes(prefix.array().expect("the magic is behind it"));
        let length = i32::from_be_bytes(prefix.array().expect("the magic is behind it"));
        let malformed = |what| RecordError::Malformed { base_offset, what };
        // Shorter than any batch is damage, longer than what is there is the cut tail.
        let length = usize::try_from(length).map_err(|_| malformed("negative length"))?;
        if length < old::LENGTH_MIN {
            return Err(malformed("shorter than its header"));
        }
        if length > self.rest.len() - PREFIX {
            return Ok(false);
        }
        match magic as i8 {
            2 => self.batch(PREFIX + length),
            0 | 1 => self.messages(base_offset),
            magic => Err(RecordError::UnknownMagic { base_offset, magic }),
        }?;
        Ok(true)
    }

    /// Reads a magic 2 batch of `size` bytes.
    fn batch(&mut self, size: usize) -> Result<(), RecordError> {
        let header = BatchHeader::parse(&self.rest[..size])?;
        self.check_order(header.base_offset)?;
        let last_offset = header.last_offset();
        // Not even looked at: the response starts with the batch that holds `from`.
        if last_offset < self.options.fetch_offset {
            self.advance(size, last_offset, header.leader_epoch);
            return Ok(());
        }
        header.verify(&self.rest[..size])?;
        if let Some(section) = self.section(&header, size)? {
            self.push(section, last_offset, header.leader_epoch);
        }
        self.advance(size, last_offset, header.leader_epoch);
        Ok(())
    }

    /// The records of a batch, unless none of them is for the caller.
    fn section(
        &mut self,
        header: &BatchHeader,
        size: usize,
    ) -> Result<Option<Section>, RecordError> {
        let base_offset = header.base_offset;
        let attributes = header.attributes;
        if attributes.control() {
            if let Some(aborted) = &mut self.aborted
                && is_abort_marker(&self.rest[SIZE..size])
            {
                aborted.end(header.producer_id, header.last_offset());
            }
            return Ok(None);
        }
        if attributes.transactional()
            && let Some(aborted) = &self.aborted
            && aborted.contains(header.producer_id, header.last_offset())
        {
            return Ok(None);
        }
        // Compaction leaves an empty batch for its producer's sequence (KIP-98).
        if header.record_count == 0 {
            return Ok(None);
        }
        let compression = attributes
            .compression()
            .map_err(|id| RecordError::UnknownCompression { base_offset, id })?;
        let records = match compression {
            CompressionType::None => self.rest.slice(SIZE..size),
            codec => self.unpack(base_offset, codec, SIZE..size)?,
        };
        let layout = Layout::Batch {
            base_offset,
            base_timestamp: header.base_timestamp,
            append_time: attributes.log_append_time().then_some(header.max_timestamp),
        };
        let count = check(&records, header, self.options.fetch_offset)
            .map_err(|what| RecordError::Malformed { base_offset, what })?;
        Ok(Some(Section {
            records,
            layout,
            count,
        }))
    }

    /// Reads messages of magic 0 and 1: one that wraps compressed ones, or a run of
    /// plain ones.
    fn messages(&mut self, base_offset: i64) -> Result<(), RecordError> {
        self.check_order(base_offset)?;
        let message = old::message(&self.rest)?;
        old::verify(&message, &self.rest)?;
        let from = self.options.fetch_offset;
        let codec = message.compression()?;
        if codec != CompressionType::None && message.offset < from {
            // The wrapper's offset is that of its last message.
            let (size, offset) = (message.size, message.offset);
            self.advance(size, offset, NO_LEADER_EPOCH);
            return Ok(());
        }
        if codec == CompressionType::None {
            self.plain_messages()
        } else {
            self.wrapped_messages(codec)
        }
    }

    fn plain_messages(&mut self) -> Result<(), RecordError> {
        let run = old::run(&self.rest, self.options.fetch_offset)?;
        let section = Section {
            records: self.rest.slice(run.skip..run.size),
            layout: Layout::Messages {
                base_offset: 0,
                append_time: None,
            },
            count: run.count,
        };
        self.push(section, run.last_offset, NO_LEADER_EPOCH);
        self.advance(run.size, run.last_offset, NO_LEADER_EPOCH);
        Ok(())
    }

    fn wrapped_messages(&mut self, codec: CompressionType) -> Result<(), RecordError> {
        let rest = self.rest.clone();
        let wrapper = old::message(&rest)?;
        let offset = wrapper.offset;
        let records = self.unpack(offset, codec, wrapper.packed()?)?;
        let inner = old::inner(&records, wrapper.magic, offset, self.options.fetch_offset)?;
        self.check_order(inner.first_offset)?;
        let section = Section {
            records,
            layout: Layout::Messages {
                base_offset: inner.base_offset,
                append_time: wrapper.append_time(),
            },
            count: inner.count,
        };
        self.push(section, offset, NO_LEADER_EPOCH);
        self.advance(wrapper.size, offset, NO_LEADER_EPOCH);
        Ok(())
    }

    /// Decompresses a part of what is left, within what the caller wants to hold.
    fn unpack(
        &mut self,
        base_offset: i64,
        codec: CompressionType,
        part: std::ops::Range<usize>,
    ) -> Result<Bytes, RecordError> {
        let unpacked =
            decompress(codec, &self.rest[part], self.room).map_err(|error| match error {
                DecompressError::TooLarge { .. } => RecordError::TooLarge {
                    base_offset,
                    limit: self.options.max_decompressed_bytes,
                },
                DecompressError::Malformed(reason) => RecordError::Decompression {
                    base_offset,
                    codec,
                    reason,
                },
            })?;
        self.room -= unpacked.len();
        Ok(unpacked.into())
    }

    /// A log never goes back; and if it did, records would be delivered twice.
    fn check_order(&self, base_offset: i64) -> Result<(), RecordError> {
        if base_offset < 0 || Some(base_offset) < self.decoded.next_offset {
            return Err(RecordError::Malformed {
                base_offset,
                what: "offsets that do not rise",
            });
        }
        Ok(())
    }

    fn push(&mut self, section: Section, last_offset: i64, leader_epoch: i32) {
        if section.count == 0 {
            return;
        }
        self.decoded.bytes += section.records.len();
        self.decoded.batches.push(DecodedBatch {
            records: section.records,
            layout: section.layout,
            last_offset,
            count: section.count,
            leader_epoch,
        });
    }

    fn advance(&mut self, size: usize, last_offset: i64, leader_epoch: i32) {
        let _ = self.rest.split_to(size);
        self.decoded.next_offset = Some(last_offset + 1);
        self.decoded.leader_epoch = leader_epoch;
    }
}

/// What a message of magic 0 or 1 knows of leader epochs.
const NO_LEADER_EPOCH: i32 = -1;

/// Checks all records of a batch, and counts those at or after `from`.
fn check(records: &[u8], header: &BatchHeader, from: i64) -> Result<u32, &'static str> {
    let mut cursor = Cursor::new(records);
    let mut previous = -1;
    let mut wanted = 0;
    for _ in 0..header.record_count {
        let record = wire::record(&mut cursor).ok_or("a record does not fit its length")?;
        if !wire::headers_are_whole(record.header_count, record.headers) {
            return Err("headers do not fit their record");
        }
        if record.offset_delta <= previous || record.offset_delta > header.last_offset_delta {
            return Err("record offsets that do not rise within the batch");
        }
        previous = record.offset_delta;
        if header.base_offset + i64::from(record.offset_delta) >= from {
            wanted += 1;
        }
    }
    if !cursor.rest().is_empty() {
        return Err("more records than it counts");
    }
    Ok(wanted)
}
