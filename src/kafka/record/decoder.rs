//! Reads what a Fetch response holds for one partition.
//!
//! ```text
//! bytes ─▶ batch │ batch │ message │ batch │ half a ba
//!            │ checksum, limits, aborted transactions    (once, here)
//!            ▼
//!         DecodedRecords: whole, checked batches over the fetched bytes, or over
//!            │            decompressed ones
//!            ▼
//!         Record, Record, …                              (any number of times)
//! ```
//!
//! A broker sends whole batches from the one that holds the fetch offset, and cuts the last
//! where the response is full. So records before the fetch offset, and an incomplete last
//! batch, are ordinary. A batch that is too large once decompressed is delivered in parts: a call
//! decompresses it in pieces and keeps what follows the fetch offset; the next one goes on there
//! if it is given the [`PartialBatch`], or else begins at the start of the batch.
//!
//! # Invariants
//! - Every record was checked here: iterating cannot fail and allocates nothing.
//! - Offsets rise strictly from record to record, and all lie below
//!   [`next_offset`](DecodedRecords::next_offset).
//! - What was read before a broken batch is delivered; the error comes when reading
//!   starts at that batch.

use bytes::Bytes;
use runtime::panic_policy::catch_panic;

use super::aborted::{AbortedTransaction, AbortedTransactionIndex, is_abort_marker};
use super::compression::{self, DecompressError};
use super::default_record;
use super::error::RecordError;
use super::header::{BatchHeader, LOG_OVERHEAD, MAGIC_OFFSET, RECORD_BATCH_OVERHEAD};
use super::legacy_record;
use super::partial_batch::{PartError, PartialBatch, PartialRead, PartialRecords};
use super::partial_wrapper::Wrapper;
use super::records::{DecodedBatch, RecordLayout, Records, RecordsMark, UnreadableRecords};
use super::varint::ByteReader;
use crate::config::CompressionType;

/// What the caller needs of fetched bytes.
#[derive(Clone, Debug)]
pub struct DecodeOptions {
    /// Records before this offset are left out.
    pub fetch_offset: i64,
    /// `read_committed`: the aborted transactions that came with the response, in any
    /// order. `None` is `read_uncommitted`.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// Bytes that all compressed batches together may take once decompressed, but for a single
    /// record. What would exceed it is left for the next call.
    pub max_decompressed_bytes: usize,
    /// Bytes that one record may take; a larger one is reported as unreadable.
    pub record_bytes_max: usize,
    /// Whether a batch that stands first and exceeds the limit is read in parts, which takes
    /// time for the whole of it. Else it is [`RecordError::TooLarge`].
    pub read_parts: bool,
    /// Whether a batch that cannot be read, and comes first, is reported as unreadable instead of
    /// being an error.
    pub report_unreadable: bool,
    /// Bytes of memory that are held as long as any part of these bytes is: of the whole response,
    /// perhaps. Of a batch to go on in, which may be a small part of them, a copy is made then.
    pub backing_bytes: usize,
    /// If these bytes are the beginning of what is more than can be received.
    pub cut: Option<CutRecords>,
}

/// Of the first batch, only the beginning may be here. If it is too large to be received, it is
/// reported as unreadable by what its header says.
#[derive(Clone, Copy, Debug)]
pub struct CutRecords {
    /// Bytes of the largest batch that can be received.
    pub batch_bytes_max: usize,
    /// All that was sent lies before this offset.
    pub readable_end: i64,
}

impl DecodeOptions {
    /// For all that is readable at or after `fetch_offset`, uncommitted or not, without limits.
    pub fn from_offset(fetch_offset: i64) -> Self {
        Self {
            fetch_offset,
            aborted_transactions: None,
            max_decompressed_bytes: usize::MAX,
            record_bytes_max: usize::MAX,
            read_parts: true,
            report_unreadable: false,
            backing_bytes: 0,
            cut: None,
        }
    }
}

/// Fetched batches, checked.
#[derive(Clone, Debug)]
pub struct DecodedRecords {
    /// The batches that hold a record for the caller.
    pub(crate) batches: Vec<DecodedBatch>,
    /// Where to read on: after the last batch that was complete, even if nothing in
    /// it was for the caller. `None` if no batch was.
    pub next_offset: Option<i64>,
    /// Leader epoch of that last batch, to be carried with the position; -1 if unknown.
    pub(crate) leader_epoch: i32,
    /// Bytes of records that are held.
    pub bytes: usize,
    /// How many of them are part of the bytes that were fetched.
    pub(crate) shared_bytes: usize,
    /// Bytes of the batches that were read, as they were fetched.
    pub(crate) consumed_bytes: usize,
    /// What cannot be delivered, in the order of the log.
    pub unreadable: Vec<UnreadableRecords>,
    fetch_offset: i64,
}

impl DecodedRecords {
    /// The records at or after [`DecodeOptions::fetch_offset`], in the order of the log.
    #[inline]
    pub fn records(&self) -> Records<'_> {
        Records::new(&self.batches, self.fetch_offset)
    }

    /// The records at or after `from`, in the order of the log.
    #[inline]
    pub(crate) fn records_from(&self, from: i64) -> Records<'_> {
        let first = self.batches.partition_point(|b| b.last_offset < from);
        Records::new(&self.batches[first..], from.max(self.fetch_offset))
    }

    /// The records from a place on that [`Records::mark`] has named.
    #[inline]
    pub(crate) fn records_at(&self, mark: RecordsMark) -> Records<'_> {
        Records::at(&self.batches, mark)
    }

    /// How many records [`records`](Self::records) yields.
    #[inline]
    pub fn count(&self) -> usize {
        self.batches.iter().map(|b| b.count as usize).sum()
    }

    /// Whether there is nothing for the caller: no record, and none that is unreadable.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.unreadable.is_empty()
    }
}

/// Checks and decompresses what a Fetch response holds for one partition.
///
/// # Errors
/// Only if nothing at or after `options.fetch_offset` could be read before the broken batch.
pub fn decode(records: Bytes, options: &DecodeOptions) -> Result<DecodedRecords, RecordError> {
    decode_parts(records, options, &mut None)
}

/// As [`decode`], but goes on in `partial` if the first batch is that one, and leaves there the
/// batch of which only a part was decoded.
pub(crate) fn decode_parts(
    records: Bytes,
    options: &DecodeOptions,
    partial: &mut Option<PartialBatch>,
) -> Result<DecodedRecords, RecordError> {
    if options.fetch_offset == i64::MAX {
        // No record can have it: there would be no next offset.
        return Err(RecordError::Malformed {
            base_offset: i64::MAX,
            what: "offsets beyond the largest",
        });
    }
    let mut decoder = BatchDecoder {
        rest: records,
        options,
        resumed: partial.take(),
        partial,
        bytes_left: options.max_decompressed_bytes,
        aborted: options
            .aborted_transactions
            .as_deref()
            .map(AbortedTransactionIndex::new),
        decoded: DecodedRecords {
            batches: Vec::new(),
            next_offset: None,
            leader_epoch: NO_LEADER_EPOCH,
            bytes: 0,
            shared_bytes: 0,
            consumed_bytes: 0,
            unreadable: Vec::new(),
            fetch_offset: options.fetch_offset,
        },
    };
    loop {
        match decoder.next_batch() {
            Ok(true) => {}
            Ok(false) if options.report_unreadable && !decoder.has_progressed() => {
                let available = decoder.rest.len();
                let base_offset = options.fetch_offset;
                decoder.skip_unreadable(&RecordError::Short {
                    base_offset,
                    available,
                });
            }
            Ok(false) => return Ok(decoder.decoded),
            Err(_) if decoder.has_progressed() => return Ok(decoder.decoded),
            Err(error) if options.report_unreadable => decoder.skip_unreadable(&error),
            Err(error) => return Err(error),
        }
    }
}

struct BatchDecoder<'a> {
    rest: Bytes,
    options: &'a DecodeOptions,
    /// A batch of which a part was decoded before.
    resumed: Option<PartialBatch>,
    /// The batch of which a part is decoded now.
    partial: &'a mut Option<PartialBatch>,
    /// Bytes that may still be decompressed.
    bytes_left: usize,
    aborted: Option<AbortedTransactionIndex>,
    decoded: DecodedRecords,
}

/// What a batch turns into: where its records are, and how many are for the caller.
struct RecordsSection {
    records: Bytes,
    /// Whether these are part of the bytes that were fetched.
    is_shared: bool,
    layout: RecordLayout,
    count: u32,
    /// The last offset of what is a part of the batch only.
    stopped_at: Option<i64>,
}

impl BatchDecoder<'_> {
    /// Reads one batch; `false` where the complete ones end.
    fn next_batch(&mut self) -> Result<bool, RecordError> {
        let Some(&magic) = self.rest.get(MAGIC_OFFSET) else {
            return Ok(false);
        };
        let mut prefix = ByteReader::new(&self.rest);
        let base_offset = i64::from_be_bytes(prefix.array().expect("the magic comes after it"));
        let length = i32::from_be_bytes(prefix.array().expect("the magic comes after it"));
        let malformed = |what| RecordError::Malformed { base_offset, what };
        // Shorter than any batch is damage; longer than the rest is an incomplete last batch.
        let length = usize::try_from(length).map_err(|_| malformed("negative length"))?;
        if length < legacy_record::LENGTH_MIN {
            return Err(malformed("shorter than its header"));
        }
        if length > self.rest.len() - LOG_OVERHEAD {
            return Ok(self.skip_too_large(base_offset, LOG_OVERHEAD + length));
        }
        match magic as i8 {
            2 => self.batch(LOG_OVERHEAD + length),
            0 | 1 => self.messages(base_offset),
            magic => Err(RecordError::UnknownMagic { base_offset, magic }),
        }?;
        Ok(true)
    }

    /// Reads a magic 2 batch of `size` bytes.
    fn batch(&mut self, size: usize) -> Result<(), RecordError> {
        let header = BatchHeader::parse(&self.rest[..size])?;
        self.check_offsets_rise(header.base_offset)?;
        let last_offset = header.last_offset();
        // Skipped unread: the response starts with the batch that holds the fetch offset.
        if last_offset < self.options.fetch_offset {
            self.advance(size, last_offset, header.leader_epoch);
            return Ok(());
        }
        header.verify(&self.rest[..size])?;
        let section = self.records_section(&header, size)?;
        let stopped_at = section.as_ref().and_then(|section| section.stopped_at);
        let end = stopped_at.unwrap_or(last_offset);
        if let Some(section) = section {
            self.push(section, end, header.leader_epoch);
        }
        self.advance(size, end, header.leader_epoch);
        if stopped_at.is_some() {
            // The rest of it comes first.
            self.rest.clear();
        }
        Ok(())
    }

    /// The records of a batch, unless none of them is for the caller.
    fn records_section(
        &mut self,
        header: &BatchHeader,
        size: usize,
    ) -> Result<Option<RecordsSection>, RecordError> {
        let base_offset = header.base_offset;
        let attributes = header.attributes;
        if attributes.is_control_batch() {
            if let Some(aborted) = &mut self.aborted
                && is_abort_marker(&self.rest[RECORD_BATCH_OVERHEAD..size])
            {
                aborted.end_transaction(header.producer_id, header.last_offset());
            }
            return Ok(None);
        }
        if attributes.is_transactional()
            && let Some(aborted) = &self.aborted
            && aborted.is_aborted(header.producer_id, header.last_offset())
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
        let layout = RecordLayout::Batch {
            base_offset,
            base_timestamp: header.base_timestamp,
            append_time: attributes
                .is_log_append_time()
                .then_some(header.max_timestamp),
        };
        let section = RECORD_BATCH_OVERHEAD..size;
        let from = self.options.fetch_offset;
        let continues = |batch: &mut PartialBatch| batch.is_of(header) && batch.continues_at(from);
        if let Some(resumed) = self.resumed.take_if(continues) {
            return self.next_part(resumed, layout, compression).map(Some);
        }
        let whole = match compression {
            CompressionType::None if section.len() <= self.options.record_bytes_max => {
                Ok(self.rest.slice(section.clone()))
            }
            CompressionType::None => Err(self.too_large(base_offset)),
            codec => self.decompress(base_offset, codec, section.clone(), self.bytes_left),
        };
        let records = match whole {
            Ok(records) => records,
            Err(RecordError::TooLarge { .. })
                if self.options.read_parts && !self.has_progressed() =>
            {
                let (section, held_bytes) = self.section_to_keep(section);
                let batch = PartialBatch::new(header, compression, section, held_bytes);
                return self.next_part(batch, layout, compression).map(Some);
            }
            Err(error) => return Err(error),
        };
        let count = check_records(&records, header, self.options.fetch_offset)
            .map_err(|what| RecordError::Malformed { base_offset, what })?;
        Ok(Some(RecordsSection {
            records,
            is_shared: compression == CompressionType::None,
            layout,
            count,
            stopped_at: None,
        }))
    }

    /// A section to go on in later, and the bytes of memory that it holds.
    fn section_to_keep(&self, section: std::ops::Range<usize>) -> (Bytes, usize) {
        let (size, backing) = (section.len(), self.options.backing_bytes);
        match size < backing / 2 {
            true => (Bytes::copy_from_slice(&self.rest[section]), size),
            false => (self.rest.slice(section), size.max(backing)),
        }
    }

    /// Whether something at or after the fetch offset is decoded.
    fn has_progressed(&self) -> bool {
        self.decoded.next_offset > Some(self.options.fetch_offset)
    }

    /// Reads on in a batch, in pieces, and keeps as much as is allowed.
    fn next_part(
        &mut self,
        mut batch: PartialBatch,
        layout: RecordLayout,
        codec: CompressionType,
    ) -> Result<RecordsSection, RecordError> {
        let read = PartialRead {
            from: self.options.fetch_offset,
            bytes_allowed: self.bytes_left,
            record_bytes_max: self.options.record_bytes_max,
        };
        let base_offset = batch.base_offset();
        let part = match catch_panic(|| batch.read_part(read)) {
            Ok(Ok(part)) => {
                *self.partial = part.stopped_at.map(|_| batch);
                Ok(part)
            }
            Ok(Err(PartError { part, .. })) if part.stopped_at.is_some() => Ok(part),
            Ok(Err(PartError { error, .. })) => Err(error.to_string()),
            Err(panic) => Err(format!("the decoder panicked: {panic}")),
        };
        let part: PartialRecords = part.map_err(|reason| RecordError::Decompression {
            base_offset,
            codec,
            reason,
        })?;
        let records = Bytes::from(part.records);
        self.bytes_left = self.bytes_left.saturating_sub(records.len());
        self.decoded.unreadable.extend(part.unreadable);
        Ok(RecordsSection {
            records,
            is_shared: false,
            layout,
            count: part.count,
            stopped_at: part.stopped_at,
        })
    }

    /// Reports the first batch as unreadable, and goes on after it.
    fn skip_unreadable(&mut self, error: &RecordError) {
        let from = self.options.fetch_offset;
        let (size, last_offset, leader_epoch) = self.unreadable_extent();
        let last_offset = last_offset.unwrap_or(from).max(from);
        let base_offset = self
            .rest
            .first_chunk()
            .copied()
            .map_or(from, i64::from_be_bytes);
        self.decoded.unreadable.push(UnreadableRecords {
            from_offset: from.max(base_offset.min(last_offset)),
            last_offset,
            reason: error.to_string().into(),
        });
        self.advance(size, last_offset, leader_epoch);
    }

    /// Reports the first batch, which is not all there, if it is too large to be received. Its
    /// header has no checksum of its own: what contradicts the rest of it, or how far the log can
    /// be read, is not believed.
    fn skip_too_large(&mut self, base_offset: i64, size: usize) -> bool {
        let Some(cut) = self.options.cut.filter(|cut| size > cut.batch_bytes_max) else {
            return false;
        };
        if self.has_progressed() {
            return false;
        }
        let from = self.options.fetch_offset;
        let header = BatchHeader::parse(&self.rest).ok().filter(|header| {
            header.record_count <= header.last_offset_delta.saturating_add(1)
                && header.last_offset() < cut.readable_end
        });
        let is_aborted = header.is_some_and(|header| {
            header.attributes.is_transactional()
                && self.aborted.as_ref().is_some_and(|aborted| {
                    aborted.is_aborted(header.producer_id, header.last_offset())
                })
        });
        let last_offset = match (self.rest.get(MAGIC_OFFSET), header) {
            (_, Some(header)) => header.last_offset(),
            // The offset of messages that are wrapped is that of the last.
            (Some(0 | 1), None) if base_offset < cut.readable_end => base_offset,
            _ => from,
        };
        let last_offset = last_offset.max(from);
        if !is_aborted {
            self.decoded.unreadable.push(UnreadableRecords {
                from_offset: from.max(base_offset.min(last_offset)),
                last_offset,
                reason: format!("a batch of {size} bytes, which is too large to be received")
                    .into(),
            });
        }
        let leader_epoch = header.map_or(NO_LEADER_EPOCH, |header| header.leader_epoch);
        self.advance(
            self.rest.len(),
            last_offset,
            leader_epoch.max(NO_LEADER_EPOCH),
        );
        true
    }

    /// How many bytes the first batch takes, the last offset that it covers, and its leader epoch.
    /// Anything in it may be damaged: what is believed is the batch after it, or two fields that
    /// agree; and of an epoch only one that is not above that of the batch after it.
    fn unreadable_extent(&self) -> (usize, Option<i64>, i32) {
        let mut prefix = ByteReader::new(&self.rest);
        let (Some(base_offset), Some(length)) = (prefix.array(), prefix.array()) else {
            return (self.rest.len(), None, NO_LEADER_EPOCH);
        };
        let (base_offset, length) = (i64::from_be_bytes(base_offset), i32::from_be_bytes(length));
        let size = match usize::try_from(length) {
            Ok(length)
                if length >= legacy_record::LENGTH_MIN
                    && length + LOG_OVERHEAD <= self.rest.len() =>
            {
                length + LOG_OVERHEAD
            }
            _ => return (self.rest.len(), None, NO_LEADER_EPOCH),
        };
        if matches!(self.rest.get(MAGIC_OFFSET), Some(0 | 1)) {
            let last_offset = Some(base_offset).filter(|_| self.message_offset_is_credible(size));
            return (size, last_offset, NO_LEADER_EPOCH);
        }
        let following = BatchHeader::parse(&self.rest[size..]).ok().filter(|next| {
            (base_offset.saturating_add(1)..=base_offset.saturating_add(i64::from(u32::MAX)))
                .contains(&next.base_offset)
                && self.rest[size..]
                    .get(..next.size())
                    .is_none_or(|batch| next.verify(batch).is_ok())
        });
        let own = BatchHeader::parse(&self.rest[..size])
            .ok()
            .filter(|header| {
                header.record_count == header.last_offset_delta.saturating_add(1)
                    || header.verify(&self.rest[..size]).is_ok()
            });
        let last_offset = match (&following, &own) {
            (Some(next), _) => Some(next.base_offset - 1),
            (None, Some(own)) => Some(own.last_offset()),
            (None, None) => None,
        };
        let leader_epoch = own.map_or(NO_LEADER_EPOCH, |own| own.leader_epoch);
        let is_credible = following.is_none_or(|next| leader_epoch <= next.leader_epoch);
        let leader_epoch = if is_credible {
            leader_epoch
        } else {
            NO_LEADER_EPOCH
        };
        (size, last_offset, leader_epoch.max(NO_LEADER_EPOCH))
    }

    /// Whether the first message, of `size` bytes and of magic 0 or 1, has the offset that it says:
    /// what follows is a little above it, or the message is whole. No checksum covers the offset.
    fn message_offset_is_credible(&self, size: usize) -> bool {
        let offset_at = |at: usize| {
            let bytes = self.rest[at..].first_chunk().copied();
            bytes.map(i64::from_be_bytes)
        };
        if let (Some(offset), Some(following)) = (offset_at(0), offset_at(size)) {
            return following > offset && following - offset.max(0) <= i64::from(u32::MAX);
        }
        legacy_record::first_record(&self.rest)
            .and_then(|message| legacy_record::verify_checksum(&message, &self.rest))
            .is_ok()
    }

    /// Reads messages of magic 0 and 1: one that wraps compressed ones, or a run of
    /// plain ones.
    fn messages(&mut self, base_offset: i64) -> Result<(), RecordError> {
        self.check_offsets_rise(base_offset)?;
        let message = legacy_record::first_record(&self.rest)?;
        legacy_record::verify_checksum(&message, &self.rest)?;
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
        let plain = legacy_record::plain_records(&self.rest, self.options.fetch_offset)?;
        let section = RecordsSection {
            records: self.rest.slice(plain.skip..plain.size),
            is_shared: true,
            layout: RecordLayout::Messages {
                base_offset: 0,
                append_time: None,
            },
            count: plain.count,
            stopped_at: None,
        };
        self.push(section, plain.last_offset, NO_LEADER_EPOCH);
        self.advance(plain.size, plain.last_offset, NO_LEADER_EPOCH);
        Ok(())
    }

    fn wrapped_messages(&mut self, codec: CompressionType) -> Result<(), RecordError> {
        let rest = self.rest.clone();
        let wrapper = legacy_record::first_record(&rest)?;
        let offset = wrapper.offset;
        let section = wrapper.compressed_range()?;
        let records = match self.decompress(offset, codec, section.clone(), self.bytes_left) {
            Ok(records) => records,
            Err(RecordError::TooLarge { .. })
                if self.options.read_parts && !self.has_progressed() =>
            {
                let part = Wrapper {
                    codec,
                    magic: wrapper.magic,
                    offset,
                    section: rest.slice(section),
                };
                return self.part_of_wrapper(&part, wrapper.size, wrapper.append_time());
            }
            Err(error) => return Err(error),
        };
        let inner = legacy_record::inner_records(
            &records,
            wrapper.magic,
            offset,
            self.options.fetch_offset,
        )?;
        self.check_offsets_rise(inner.first_offset)?;
        let section = RecordsSection {
            records,
            is_shared: false,
            layout: RecordLayout::Messages {
                base_offset: inner.base_offset,
                append_time: wrapper.append_time(),
            },
            count: inner.count,
            stopped_at: None,
        };
        self.push(section, offset, NO_LEADER_EPOCH);
        self.advance(wrapper.size, offset, NO_LEADER_EPOCH);
        Ok(())
    }

    /// Reads a wrapper of `size` bytes in pieces, and keeps as much as is allowed.
    fn part_of_wrapper(
        &mut self,
        wrapper: &Wrapper,
        size: usize,
        append_time: Option<i64>,
    ) -> Result<(), RecordError> {
        let read = PartialRead {
            from: self.options.fetch_offset,
            bytes_allowed: self.bytes_left,
            record_bytes_max: self.options.record_bytes_max,
        };
        let part = catch_panic(|| wrapper.read_part(read).map_err(|error| error.to_string()))
            .unwrap_or_else(|panic| Err(format!("the decoder panicked: {panic}")))
            .map_err(|reason| RecordError::Decompression {
                base_offset: wrapper.offset,
                codec: wrapper.codec,
                reason,
            })?;
        self.check_offsets_rise(part.first_offset)?;
        self.bytes_left = self.bytes_left.saturating_sub(part.records.len());
        self.decoded.unreadable.extend(part.unreadable);
        let end = part.stopped_at.unwrap_or(wrapper.offset);
        let section = RecordsSection {
            records: part.records.into(),
            is_shared: false,
            layout: RecordLayout::Messages {
                base_offset: part.base_offset,
                append_time,
            },
            count: part.count,
            stopped_at: part.stopped_at,
        };
        self.push(section, end, NO_LEADER_EPOCH);
        self.advance(size, end, NO_LEADER_EPOCH);
        if part.stopped_at.is_some() {
            // The rest of it comes first.
            self.rest.clear();
        }
        Ok(())
    }

    /// Decompresses a part of what is left, within `limit` bytes.
    fn decompress(
        &mut self,
        base_offset: i64,
        codec: CompressionType,
        part: std::ops::Range<usize>,
        limit: usize,
    ) -> Result<Bytes, RecordError> {
        let decompressed = compression::decompress(codec, &self.rest[part], limit).map_err(
            |error| match error {
                DecompressError::TooLarge { .. } => self.too_large(base_offset),
                DecompressError::Malformed(reason) => RecordError::Decompression {
                    base_offset,
                    codec,
                    reason,
                },
            },
        )?;
        self.bytes_left = self.bytes_left.saturating_sub(decompressed.len());
        Ok(decompressed.into())
    }

    fn too_large(&self, base_offset: i64) -> RecordError {
        RecordError::TooLarge {
            base_offset,
            limit: self.options.max_decompressed_bytes,
        }
    }

    /// A log never goes back; and if it did, records would be delivered twice.
    fn check_offsets_rise(&self, base_offset: i64) -> Result<(), RecordError> {
        if base_offset < 0 || Some(base_offset) < self.decoded.next_offset {
            return Err(RecordError::Malformed {
                base_offset,
                what: "offsets that do not rise",
            });
        }
        Ok(())
    }

    fn push(&mut self, section: RecordsSection, last_offset: i64, leader_epoch: i32) {
        if section.count == 0 {
            return;
        }
        self.decoded.bytes += section.records.len();
        if section.is_shared {
            self.decoded.shared_bytes += section.records.len();
        }
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
        self.decoded.consumed_bytes += size;
        self.decoded.next_offset = Some(last_offset + 1);
        self.decoded.leader_epoch = leader_epoch;
    }
}

/// What a message of magic 0 or 1 knows of leader epochs.
const NO_LEADER_EPOCH: i32 = -1;

/// Checks all records of a batch, and counts those at or after `from`.
fn check_records(records: &[u8], header: &BatchHeader, from: i64) -> Result<u32, &'static str> {
    let mut reader = ByteReader::new(records);
    let mut previous = -1;
    let mut wanted = 0;
    for _ in 0..header.record_count {
        let record =
            default_record::read_record(&mut reader).ok_or("a record does not fit its length")?;
        if !default_record::headers_are_whole(record.header_count, record.headers) {
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
    if !reader.rest().is_empty() {
        return Err("more records than it counts");
    }
    Ok(wanted)
}
