//! The log of one partition, in memory.
//!
//! ```text
//!  dropped │ [batch][batch][batch][batch][batch] │ next append
//!          start                  last stable   end = high watermark
//! ```
//!
//! There are no replicas that could lag, so the high watermark is the end. The last
//! stable offset is the start of the oldest open transaction.
//!
//! # Invariants
//! - Batches are sorted by offset; there may be gaps between them, as after compaction.
//! - `start ≤ last stable ≤ end`; the end never falls but by [`PartitionLog::truncate`].
//! - Epochs and their start offsets only rise.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};

use bytes::{Bytes, BytesMut};

use kafka_client::record::header::{self, BatchHeader};
use kafka_client::record::{DecodeOptions, decode};

use super::batch;
use super::producer_state::ProducerStateManager;
use super::transaction::{ProducerEpoch, TransactionResult};

/// The batches of one partition and what is derived from them.
#[derive(Debug)]
pub(super) struct PartitionLog {
    batches: VecDeque<StoredBatch>,
    start: i64,
    end: i64,
    bytes: usize,
    /// Each leader epoch with the offset at which it began.
    epochs: Vec<(i32, i64)>,
    /// First offset of each producer's open transaction.
    open: HashMap<i64, i64>,
    aborted: Vec<AbortedTxn>,
    /// The idempotent producers.
    pub(super) producers: ProducerStateManager,
}

#[derive(Clone, Debug)]
struct StoredBatch {
    base: i64,
    last: i64,
    epoch: i32,
    max_timestamp: i64,
    bytes: Bytes,
    /// Tells this batch from one that was at the same offset before a truncation.
    serial: u64,
}

/// An aborted transaction: whose, its first offset, and that of its marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AbortedTxn {
    pub(super) producer_id: i64,
    pub(super) first: i64,
    pub(super) marker: i64,
}

/// A record found by its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimestampAndOffset {
    pub(super) offset: i64,
    pub(super) timestamp: i64,
    pub(super) epoch: i32,
}

impl PartitionLog {
    /// An empty log that remembers that many producers.
    pub(super) fn new(producers_max: usize) -> Self {
        Self {
            batches: VecDeque::new(),
            start: 0,
            end: 0,
            bytes: 0,
            epochs: Vec::new(),
            open: HashMap::new(),
            aborted: Vec::new(),
            producers: ProducerStateManager::new(producers_max),
        }
    }

    /// Offset of the first record that is still there.
    pub(super) fn start(&self) -> i64 {
        self.start
    }

    /// Offset that the next record gets.
    pub(super) fn end(&self) -> i64 {
        self.end
    }

    /// Offset up to which every transaction is decided.
    pub(super) fn last_stable(&self) -> i64 {
        let first = self.open.values().copied().min();
        // What a transaction began with may have been dropped.
        first.map_or(self.end, |first| first.max(self.start))
    }

    /// What the log counts in the memory limit.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many batches there are.
    pub(super) fn len(&self) -> usize {
        self.batches.len()
    }

    /// Begins a leader epoch: what is appended from here on belongs to it.
    pub(super) fn begin_epoch(&mut self, epoch: i32) {
        while self.epochs.last().is_some_and(|&(_, at)| at >= self.end) {
            self.epochs.pop();
        }
        self.epochs.push((epoch, self.end));
    }

    /// Appends a batch that was checked; returns the first record's offset.
    pub(super) fn append(
        &mut self,
        bytes: &[u8],
        header: &BatchHeader,
        epoch: i32,
        append_time: Option<i64>,
        serial: u64,
    ) -> i64 {
        let base = self.end;
        let stored = batch::stamp(bytes, base, epoch, append_time);
        self.push(stored, header, base, epoch, append_time, serial);
        base
    }

    fn push(
        &mut self,
        bytes: Bytes,
        header: &BatchHeader,
        base: i64,
        epoch: i32,
        append_time: Option<i64>,
        serial: u64,
    ) {
        let last = base + i64::from(header.last_offset_delta);
        self.producers
            .appended(header, base, append_time.unwrap_or(-1));
        if header.attributes.is_transactional() && !header.attributes.is_control_batch() {
            self.open.entry(header.producer_id).or_insert(base);
        }
        self.bytes += bytes.len() + OVERHEAD;
        self.batches.push_back(StoredBatch {
            base,
            last,
            epoch,
            max_timestamp: append_time.unwrap_or(header.max_timestamp),
            bytes,
            serial,
        });
        self.end = last + 1;
    }

    /// Whether the batch's producer has begun a transaction here that is not ended.
    pub(super) fn has_ongoing(&self, header: &BatchHeader) -> bool {
        self.open.contains_key(&header.producer_id)
            && self.producers.epoch(header.producer_id) == Some(header.producer_epoch)
    }

    /// Ends a producer's transaction with a marker.
    pub(super) fn end_transaction(
        &mut self,
        producer: ProducerEpoch,
        result: TransactionResult,
        now: i64,
        epoch: i32,
        serial: u64,
    ) {
        let marker = marker(producer, result, now);
        let at = self.end;
        let stored = batch::stamp(&marker, at, epoch, None);
        self.bytes += stored.len() + OVERHEAD;
        self.batches.push_back(StoredBatch {
            base: at,
            last: at,
            epoch,
            max_timestamp: now,
            bytes: stored,
            serial,
        });
        self.end = at + 1;
        self.producers.fence(producer.id, producer.epoch);
        if let Some(first) = self.open.remove(&producer.id)
            && result == TransactionResult::Abort
        {
            self.aborted.push(AbortedTxn {
                producer_id: producer.id,
                first,
                marker: at,
            });
        }
    }

    /// Whether the transaction that a batch belongs to or begins is within the limit.
    pub(super) fn admits(&self, header: &BatchHeader) -> bool {
        !header.attributes.is_transactional()
            || self.open.len() < OPEN_MAX
            || self.open.contains_key(&header.producer_id)
    }

    /// Whole batches from the one that holds `from` on, of which none starts at or beyond
    /// `until`, of at most `max_bytes` in all. With `at_least_one` the first is returned
    /// whatever its size; with `partial` the last is cut at the limit.
    pub(super) fn read(
        &self,
        from: i64,
        until: i64,
        max_bytes: usize,
        at_least_one: bool,
        partial: bool,
    ) -> Bytes {
        let first = self.batches.partition_point(|batch| batch.last < from);
        let candidates = || {
            self.batches
                .range(first..)
                .take_while(|batch| batch.base < until)
        };
        let Some(head) = candidates().next() else {
            return Bytes::new();
        };
        let limit = if at_least_one {
            max_bytes.max(head.bytes.len())
        } else {
            max_bytes
        };
        if limit < head.bytes.len() && !partial {
            return Bytes::new();
        }
        if limit <= head.bytes.len() {
            return head.bytes.slice(..limit);
        }
        let mut out = BytesMut::with_capacity(limit.min(64 << 10));
        for batch in candidates() {
            let room = limit - out.len();
            if batch.bytes.len() > room {
                if partial {
                    out.extend_from_slice(&batch.bytes[..room]);
                }
                break;
            }
            out.extend_from_slice(&batch.bytes);
        }
        out.freeze()
    }

    /// The aborted transactions that overlap `from..until`.
    pub(super) fn aborted(&self, from: i64, until: i64) -> Vec<AbortedTxn> {
        let overlaps = |txn: &&AbortedTxn| txn.marker >= from && txn.first < until;
        self.aborted.iter().filter(overlaps).copied().collect()
    }

    /// The first record at or after `timestamp` that lies below `until`.
    ///
    /// Decompresses at most `unpack` bytes, and takes off what it did.
    pub(super) fn at_time(
        &self,
        timestamp: i64,
        until: i64,
        unpack: &mut usize,
    ) -> Option<TimestampAndOffset> {
        self.batches
            .iter()
            .filter(|batch| batch.max_timestamp >= timestamp && batch.base < until)
            .find_map(|batch| batch.first_at(|time| time >= timestamp, unpack))
            .filter(|found| found.offset < until)
    }

    /// The first of the records with the largest timestamp.
    pub(super) fn latest_time(&self, unpack: &mut usize) -> Option<TimestampAndOffset> {
        let largest = self.batches.iter().map(|batch| batch.max_timestamp).max()?;
        self.at_time(largest, i64::MAX, unpack)
    }

    /// The last epoch not above `epoch`, and where it ended (KIP-101). None when `epoch` is
    /// newer than all; an epoch older than all ended where the first began.
    pub(super) fn end_of_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        let after = self.epochs.partition_point(|&(known, _)| known <= epoch);
        match (
            after.checked_sub(1).map(|at| self.epochs[at].0),
            self.epochs.get(after),
        ) {
            (Some(found), Some(&(_, end))) => Some((found, end)),
            (None, Some(&(_, end))) => Some((epoch, end)),
            (Some(found), None) if found == epoch => Some((found, self.end)),
            (_, None) => None,
        }
    }

    /// The epoch that the record at `offset` was appended in; the newest at the end.
    pub(super) fn epoch_at(&self, offset: i64) -> i32 {
        let after = self.epochs.partition_point(|&(_, at)| at <= offset);
        match after.checked_sub(1).and_then(|at| self.epochs.get(at)) {
            Some(&(epoch, _)) => epoch,
            None => -1,
        }
    }

    /// Moves the start up to `offset` (not beyond the end) and drops what lies below.
    pub(super) fn delete_before(&mut self, offset: i64) {
        self.start = self.start.max(offset.min(self.end));
        let start = self.start;
        while self.batches.front().is_some_and(|batch| batch.last < start)
            && let Some(batch) = self.batches.pop_front()
        {
            self.bytes -= batch.bytes.len() + OVERHEAD;
        }
        self.aborted.retain(|txn| txn.marker >= start);
        // Not each time: this looks at them all.
        if self.producers.len() > 2 * self.batches.len() + PRODUCERS_MIN {
            let first = self.batches.front().map_or(self.end, |batch| batch.base);
            self.producers.forget_before(first);
        }
    }

    /// Drops the oldest batch if it is the one with that serial; returns whether it was.
    pub(super) fn drop_oldest(&mut self, serial: u64) -> bool {
        match self.batches.front() {
            Some(batch) if batch.serial == serial => {
                let next = batch.last + 1;
                self.delete_before(next);
                true
            }
            _ => false,
        }
    }

    /// Whether the batch with that serial, appended after the one before it, may still be there.
    pub(super) fn may_hold(&self, serial: u64) -> bool {
        self.batches
            .front()
            .is_some_and(|batch| batch.serial <= serial)
    }
}

// What tests do and see.
#[cfg(any(test, feature = "faults"))]
impl PartitionLog {
    /// Appends bytes as they are but for offset and epoch: also what a producer may not
    /// write, such as a control batch. Its base offset is kept when it lies beyond the end.
    pub(super) fn append_raw(
        &mut self,
        bytes: &[u8],
        header: &BatchHeader,
        epoch: i32,
        serial: u64,
    ) -> i64 {
        let base = self.end.max(header.base_offset);
        let stored = batch::stamp(bytes, base, epoch, None);
        self.push(stored, header, base, epoch, None, serial);
        base
    }

    /// Removes everything from `offset` on, as a replica that lost records would.
    pub(super) fn truncate(&mut self, offset: i64) {
        let offset = offset.max(self.start);
        while self
            .batches
            .back()
            .is_some_and(|batch| batch.last >= offset)
            && let Some(batch) = self.batches.pop_back()
        {
            self.bytes -= batch.bytes.len() + OVERHEAD;
        }
        self.end = self.end.min(offset);
        self.producers.truncate(self.end);
        self.open.retain(|_, first| *first < offset);
        self.aborted.retain(|txn| txn.marker < offset);
        let end = self.end;
        self.epochs.retain(|&(_, at)| at <= end);
    }
}

impl StoredBatch {
    /// The first record whose time fits. Of compressed records that cannot be read it is
    /// the first.
    fn first_at(
        &self,
        fits: impl Fn(i64) -> bool,
        unpack: &mut usize,
    ) -> Option<TimestampAndOffset> {
        let found = |delta: i32, timestamp| TimestampAndOffset {
            offset: self.base + i64::from(delta),
            timestamp,
            epoch: self.epoch,
        };
        let header = BatchHeader::parse(&self.bytes).ok()?;
        if header.attributes.0 & 0x07 != 0 {
            let want = DecodeOptions {
                max_decompressed_bytes: DECOMPRESSED_MAX.min(*unpack),
                read_parts: false,
                ..DecodeOptions::from_offset(self.base)
            };
            let Ok(decoded) = decode(self.bytes.clone(), &want) else {
                *unpack -= want.max_decompressed_bytes;
                return Some(found(0, self.max_timestamp));
            };
            *unpack = unpack.saturating_sub(decoded.bytes);
            let mut records = decoded.records();
            let record = records.find(|record| fits(record.timestamp))?;
            return Some(found((record.offset - self.base) as i32, record.timestamp));
        }
        batch::times(&self.bytes[header::RECORD_BATCH_OVERHEAD..], &header)
            .find(|&(_, time)| fits(time))
            .map(|(delta, time)| found(delta, time))
    }
}

/// A control batch with one record: the key says what, the value who coordinated it
/// (`EndTransactionMarker`).
fn marker(producer: ProducerEpoch, result: TransactionResult, now: i64) -> Vec<u8> {
    let mut bytes = vec![0; header::RECORD_BATCH_OVERHEAD];
    // length 16, attributes, deltas, key of 4 bytes, value of 6 bytes, no headers; all
    // varints here are one byte, zigzag
    bytes.extend_from_slice(&[16 << 1, 0, 0, 0, 4 << 1]);
    bytes.extend_from_slice(&0i16.to_be_bytes());
    let commits = result == TransactionResult::Commit;
    bytes.extend_from_slice(&i16::from(commits).to_be_bytes());
    bytes.push(6 << 1);
    bytes.extend_from_slice(&[0; 6]);
    bytes.push(0);
    let header = BatchHeader {
        base_offset: 0,
        length: (bytes.len() - header::LOG_OVERHEAD) as i32,
        leader_epoch: -1,
        crc: 0,
        attributes: header::BatchAttributes::default()
            .with_transactional(true)
            .with_control(true),
        last_offset_delta: 0,
        base_timestamp: now,
        max_timestamp: now,
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        base_sequence: header::NO_SEQUENCE,
        record_count: 1,
    };
    header.write(&mut bytes);
    header::write_crc(&mut bytes);
    bytes
}

/// Bytes that a batch may decompress to when a record in it is looked for.
const DECOMPRESSED_MAX: usize = 64 << 20;
/// So many producers are remembered even if all their batches are gone.
const PRODUCERS_MIN: usize = 64;
/// Open transactions of one partition.
const OPEN_MAX: usize = 1_000;
/// What a batch costs beyond its bytes.
const OVERHEAD: usize = size_of::<StoredBatch>();
