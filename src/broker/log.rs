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
//! - `start ≤ last stable ≤ end`; the end never falls but by [`Log::truncate`].
//! - Epochs and their start offsets only rise.

use std::collections::{HashMap, VecDeque};

use bytes::{Bytes, BytesMut};

use crate::kafka::record::header::{self, BatchHeader};
use crate::kafka::record::{Want, decode};

use super::batch;
use super::producers::Producers;

/// The batches of one partition and what is derived from them.
#[derive(Debug)]
pub(super) struct Log {
    batches: VecDeque<Stored>,
    start: i64,
    end: i64,
    bytes: usize,
    /// Each leader epoch with the offset at which it began.
    epochs: Vec<(i32, i64)>,
    /// First offset of each producer's open transaction.
    open: HashMap<i64, i64>,
    aborted: Vec<Aborted>,
    /// The idempotent producers.
    pub(super) producers: Producers,
}

#[derive(Clone, Debug)]
struct Stored {
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
pub(super) struct Aborted {
    pub(super) producer_id: i64,
    pub(super) first: i64,
    pub(super) marker: i64,
}

/// A record found by its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) offset: i64,
    pub(super) timestamp: i64,
    pub(super) epoch: i32,
}

impl Log {
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
            producers: Producers::new(producers_max),
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
        self.open.values().copied().min().unwrap_or(self.end)
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
        if header.attributes.transactional() && !header.attributes.control() {
            self.open.entry(header.producer_id).or_insert(base);
        }
        self.bytes += bytes.len() + OVERHEAD;
        self.batches.push_back(Stored {
            base,
            last,
            epoch,
            max_timestamp: append_time.unwrap_or(header.max_timestamp),
            bytes,
            serial,
        });
        self.end = last + 1;
    }

    /// Whether there is room for the transaction that a batch belongs to or begins.
    pub(super) fn admits(&self, header: &BatchHeader) -> bool {
        !header.attributes.transactional()
            || self.open.len() < OPEN_MAX
            || self.open.contains_key(&header.producer_id)
    }

    /// Ends the producer's transaction with a marker.
    pub(super) fn end_transaction(
        &mut self,
        producer_id: i64,
        producer_epoch: i16,
        commit: bool,
        now: i64,
        epoch: i32,
        serial: u64,
    ) {
        let marker = marker(producer_id, producer_epoch, commit, now);
        let header = BatchHeader::parse(&marker).expect("a marker is a batch");
        let at = self.end;
        let stored = batch::stamp(&marker, at, epoch, None);
        self.bytes += stored.len() + OVERHEAD;
        self.batches.push_back(Stored {
            base: at,
            last: at,
            epoch,
            max_timestamp: header.max_timestamp,
            bytes: stored,
            serial,
        });
        self.end = at + 1;
        self.producers.fence(producer_id, producer_epoch);
        if let Some(first) = self.open.remove(&producer_id)
            && !commit
        {
            self.aborted.push(Aborted {
                producer_id,
                first,
                marker: at,
            });
        }
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
    pub(super) fn aborted(&self, from: i64, until: i64) -> Vec<Aborted> {
        let overlaps = |txn: &&Aborted| txn.marker >= from && txn.first < until;
        self.aborted.iter().filter(overlaps).copied().collect()
    }

    /// The first record at or after `timestamp` that lies below `until`.
    pub(super) fn at_time(&self, timestamp: i64, until: i64) -> Option<Found> {
        self.batches
            .iter()
            .filter(|batch| batch.max_timestamp >= timestamp && batch.base < until)
            .find_map(|batch| batch.first_at(|time| time >= timestamp))
            .filter(|found| found.offset < until)
    }

    /// The first of the records with the largest timestamp.
    pub(super) fn latest_time(&self) -> Option<Found> {
        let largest = self.batches.iter().map(|batch| batch.max_timestamp).max()?;
        self.at_time(largest, i64::MAX)
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

impl Stored {
    /// The first record whose time fits. Of compressed records that cannot be read it is
    /// the first.
    fn first_at(&self, fits: impl Fn(i64) -> bool) -> Option<Found> {
        let found = |delta: i32, timestamp| Found {
            offset: self.base + i64::from(delta),
            timestamp,
            epoch: self.epoch,
        };
        let header = BatchHeader::parse(&self.bytes).ok()?;
        if header.attributes.0 & 0x07 != 0 {
            let want = Want {
                from: self.base,
                aborted: None,
                max_decompressed: DECOMPRESSED_MAX,
            };
            let Ok(decoded) = decode(self.bytes.clone(), &want) else {
                return Some(found(0, self.max_timestamp));
            };
            let mut records = decoded.records();
            let record = records.find(|record| fits(record.timestamp))?;
            return Some(found((record.offset - self.base) as i32, record.timestamp));
        }
        batch::times(&self.bytes[header::SIZE..], &header)
            .find(|&(_, time)| fits(time))
            .map(|(delta, time)| found(delta, time))
    }
}

/// A control batch with one record: the key says what, the value who coordinated it.
fn marker(producer_id: i64, producer_epoch: i16, commit: bool, now: i64) -> Vec<u8> {
    let mut bytes = vec![0; header::SIZE];
    // length 16, attributes, deltas, key of 4 bytes, value of 6 bytes, no headers; all
    // varints here are one byte, zigzag
    bytes.extend_from_slice(&[16 << 1, 0, 0, 0, 4 << 1]);
    bytes.extend_from_slice(&0i16.to_be_bytes());
    bytes.extend_from_slice(&i16::from(commit).to_be_bytes());
    bytes.push(6 << 1);
    bytes.extend_from_slice(&[0; 6]);
    bytes.push(0);
    let header = BatchHeader {
        base_offset: 0,
        length: (bytes.len() - header::PREFIX) as i32,
        leader_epoch: -1,
        crc: 0,
        attributes: header::Attributes::default()
            .with_transactional(true)
            .with_control(true),
        last_offset_delta: 0,
        base_timestamp: now,
        max_timestamp: now,
        producer_id,
        producer_epoch,
        base_sequence: header::NO_SEQUENCE,
        record_count: 1,
    };
    header.write(&mut bytes);
    header::seal(&mut bytes);
    bytes
}

/// Bytes that a batch may decompress to when a record in it is looked for.
const DECOMPRESSED_MAX: usize = 64 << 20;
/// So many producers are remembered even if all their batches are gone.
const PRODUCERS_MIN: usize = 64;
/// Open transactions. No client can end one.
const OPEN_MAX: usize = 1_000;
/// What a batch costs beyond its bytes.
const OVERHEAD: usize = size_of::<Stored>();

#[cfg(test)]
mod tests {
    use super::super::batch::tests::{PLAIN, batch_of};
    use super::super::producers::Verdict;
    use super::*;
    use crate::kafka::config::Compression;
    use crate::kafka::record::{BatchBuilder, NewRecord};

    /// Appends batches of as many records; their records' times are their offsets × 10
    /// plus their place in the batch.
    fn log(counts: &[i32]) -> Log {
        let mut log = Log::new(10);
        log.begin_epoch(0);
        for (serial, &count) in counts.iter().enumerate() {
            put(&mut log, count, PLAIN, serial as u64);
        }
        log
    }

    fn put(log: &mut Log, count: i32, producer: (i64, i16, i32), serial: u64) -> i64 {
        let bytes = batch_of(count, log.end() * 10, producer);
        let header = BatchHeader::parse(&bytes).unwrap();
        log.append(&bytes, &header, 0, None, serial)
    }

    fn bases(mut bytes: &[u8]) -> Vec<i64> {
        let mut bases = Vec::new();
        while let Ok(header) = BatchHeader::parse(bytes) {
            let Some(rest) = bytes.get(header.size()..) else {
                break;
            };
            bases.push(header.base_offset);
            bytes = rest;
        }
        bases
    }

    #[test]
    fn producers_are_forgotten_with_their_batches() {
        let mut log = Log::new(1_000);
        for n in 0..200 {
            put(&mut log, 1, (n, 0, 0), n as u64);
            log.delete_before(n - 9);
            assert!(log.producers.len() <= 2 * log.len() + PRODUCERS_MIN + 1);
        }
        // Who is still read is still known.
        let known = |log: &Log, n| {
            let header = BatchHeader::parse(&batch_of(1, 0, (n, 0, 0))).unwrap();
            log.producers.check(&header) != Ok(Verdict::Append)
        };
        assert!((190..200).all(|n| known(&log, n)));
        assert!(!known(&log, 0));
    }

    #[test]
    fn so_many_transactions_are_open_and_no_more() {
        let mut log = log(&[]);
        let batch = |n| {
            let bytes = batch_of(1, 0, (n, 0, 0));
            let mut header = BatchHeader::parse(&bytes).unwrap();
            header.attributes = header.attributes.with_transactional(true);
            (bytes, header)
        };
        for n in 0..OPEN_MAX as i64 {
            let (bytes, header) = batch(n);
            assert!(log.admits(&header));
            log.append(&bytes, &header, 0, None, n as u64);
        }
        assert!(!log.admits(&batch(-2).1));
        assert!(log.admits(&batch(7).1));
        log.end_transaction(3, 0, true, 0, 0, 0);
        assert!(log.admits(&batch(-2).1));
    }

    #[test]
    fn a_read_begins_with_the_batch_that_holds_the_offset() {
        let log = log(&[2, 3, 4]);
        assert_eq!(log.end(), 9);
        let all = log.read(0, i64::MAX, usize::MAX, true, false);
        assert_eq!(bases(&all), [0, 2, 5]);
        assert_eq!(
            bases(&log.read(4, i64::MAX, usize::MAX, true, false)),
            [2, 5]
        );
        assert_eq!(bases(&log.read(0, 5, usize::MAX, true, false)), [0, 2]);
        assert!(log.read(9, i64::MAX, usize::MAX, true, false).is_empty());
    }

    #[test]
    fn the_first_batch_is_returned_over_the_limit_and_the_last_is_cut_at_it() {
        let log = log(&[2, 3, 4]);
        let all = log.read(0, i64::MAX, usize::MAX, true, false).len();
        assert_eq!(bases(&log.read(2, i64::MAX, 1, true, true)), [2]);
        assert!(log.read(2, i64::MAX, 1, false, false).is_empty());
        assert_eq!(log.read(2, i64::MAX, 1, false, true).len(), 1);
        assert_eq!(log.read(0, i64::MAX, all - 1, false, true).len(), all - 1);
        let whole = log.read(0, i64::MAX, all - 1, false, false);
        assert_eq!(bases(&whole), [0, 2]);
    }

    #[test]
    fn a_record_is_found_by_its_time() {
        let log = log(&[2, 3, 4]);
        let found = |time| log.at_time(time, i64::MAX).map(|f| (f.offset, f.timestamp));
        assert_eq!(found(-5), Some((0, 0)));
        assert_eq!(found(1), Some((1, 1)));
        assert_eq!(found(2), Some((2, 20)));
        assert_eq!(found(51), Some((6, 51)));
        assert_eq!(found(54), None);
        let latest = log.latest_time().unwrap();
        assert_eq!((latest.offset, latest.timestamp), (8, 53));
    }

    #[test]
    fn a_compressed_record_is_found_by_its_time_too() {
        let mut log = log(&[2]);
        let mut builder = BatchBuilder::new(1 << 10);
        for timestamp in [100, 200, 300] {
            builder.append(&NewRecord {
                key: None,
                value: Some(b"value"),
                headers: &[],
                timestamp,
            });
        }
        let mut batch = builder.finish(Compression::Gzip);
        batch.stamp(-1, -1, -1);
        let bytes = batch.bytes();
        let header = BatchHeader::parse(&bytes).unwrap();
        log.append(&bytes, &header, 0, None, 1);
        let found = log.at_time(150, i64::MAX).unwrap();
        assert_eq!((found.offset, found.timestamp), (3, 200));
        assert_eq!(log.latest_time().unwrap().offset, 4);
    }

    #[test]
    fn truncation_removes_the_tail_and_the_epochs_that_began_in_it() {
        let mut log = log(&[2, 3]);
        log.begin_epoch(1);
        put(&mut log, 4, PLAIN, 9);
        assert_eq!(log.end_of_epoch(0), Some((0, 5)));
        assert_eq!(log.end_of_epoch(1), Some((1, 9)));
        assert_eq!(log.end_of_epoch(-1), Some((-1, 0)));
        assert_eq!(log.end_of_epoch(2), None);
        log.truncate(2);
        assert_eq!((log.end(), log.len()), (2, 1));
        assert_eq!(log.epochs, [(0, 0)]);
        log.begin_epoch(2);
        assert_eq!(log.end_of_epoch(1), Some((0, 2)));
        assert_eq!((log.epoch_at(1), log.epoch_at(2)), (0, 2));
    }

    #[test]
    fn the_start_moves_up_and_the_bytes_are_given_back() {
        let mut log = log(&[2, 3, 4]);
        let full = log.bytes();
        assert!(!log.drop_oldest(1));
        assert!(log.drop_oldest(0));
        assert!(log.bytes() < full);
        assert_eq!(log.start(), 2);
        log.delete_before(3);
        assert_eq!((log.start(), log.len()), (3, 2));
        log.delete_before(100);
        assert_eq!(
            (log.start(), log.end(), log.len(), log.bytes()),
            (9, 9, 0, 0)
        );
    }

    #[test]
    fn an_open_transaction_holds_the_last_stable_offset() {
        let mut log = log(&[2]);
        let bytes = batch_of(3, 0, (7, 0, 0));
        let mut bytes = bytes.to_vec();
        let mut header = BatchHeader::parse(&bytes).unwrap();
        header.attributes = header.attributes.with_transactional(true);
        header.write(&mut bytes);
        header::seal(&mut bytes);
        log.append(&bytes, &header, 0, None, 5);
        put(&mut log, 1, PLAIN, 6);
        assert_eq!((log.last_stable(), log.end()), (2, 6));
        log.end_transaction(7, 0, false, 99, 0, 7);
        assert_eq!((log.last_stable(), log.end()), (7, 7));
        let aborted = Aborted {
            producer_id: 7,
            first: 2,
            marker: 6,
        };
        assert_eq!(log.aborted(3, 4), [aborted]);
        assert_eq!(log.aborted(0, 2), []);
        let marker = log.read(6, i64::MAX, usize::MAX, true, false);
        let header = BatchHeader::parse(&marker).unwrap();
        header.verify(&marker).unwrap();
        assert!(header.attributes.control());
    }
}
