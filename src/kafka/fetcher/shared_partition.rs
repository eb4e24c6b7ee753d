//! One partition at one isolation level: the fetch state that its cursors share, and what
//! ties it to the budget and to the tasks that fetch it.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use runtime::long_work::LongWork;
use runtime::mutex::lock;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::budget::{BudgetPermit, BudgetPool, ChunkCache};
use super::chunk::{Chunk, ChunkMemory, ChunkSizeEstimator};
use super::error::FetchError;
use super::fetch_state::{CursorWaiter, FetchStateUpdate, PartitionFetchState};
use super::request::FetchPartitionData;
use super::tail_changes::TailChanges;
use crate::metrics::FetchMetrics;
use crate::record::{
    CutRecords, DecodeOptions, DecodedRecords, PartialBatch, RecordError, UnreadableRecords,
    decode_parts,
};
use crate::{IsolationLevel, TopicIdentity, TopicPartition};

/// Decoding what was fetched, which may be compressed: so much takes about a millisecond.
pub(super) static DECODING: LongWork = LongWork::from_bytes(32 << 10);

/// A partition that is read, shared by its cursors, its task and the tail.
pub(super) struct SharedPartition {
    pub(super) tp: TopicPartition,
    pub(super) isolation: IsolationLevel,
    /// Of the topic whose records these are, once it is known: a partition of another topic of
    /// that name is another partition.
    pub(super) topic: OnceLock<TopicIdentity>,
    pub(super) fetch_state: Mutex<PartitionFetchState<Chunk>>,
    /// Notified when the partition's task has something to do.
    pub(super) work: Notify,
    pub(super) size_estimator: Arc<ChunkSizeEstimator>,
    /// Batches of which parts were decoded, to go on in.
    partial_batches: Mutex<Vec<KeptBatch>>,
    /// Of the tail that fetches it, or did last.
    tail_changes: Mutex<Option<Arc<TailChanges>>>,
    pub(super) metrics: Arc<FetchMetrics>,
    this: Weak<Self>,
}

/// A batch of which a part was decoded.
struct KeptBatch {
    batch: PartialBatch,
    since: Instant,
    /// By which it can be evicted.
    seq: u64,
    /// Counts what it holds.
    _permit: BudgetPermit,
}

/// How fetched bytes are decoded.
#[derive(Clone, Copy, Debug)]
pub(super) struct DecodeLimits {
    /// Bytes that decompressed records may take, as was acquired for them.
    pub(super) bytes_allowed: usize,
    /// Bytes that one record may take.
    pub(super) record_bytes_max: usize,
    /// Whether a batch that is larger than that is read in parts, which may take long.
    pub(super) read_parts: bool,
    /// Whether a batch that cannot be read is reported in place of its records.
    pub(super) report_unreadable: bool,
}

/// Fetched and decoded records, before the budget has counted them.
#[derive(Debug)]
pub(super) struct DecodedFetch {
    decoded: DecodedRecords,
    first_offset: i64,
    next_offset: i64,
    serving_epoch: i32,
    wire_bytes: usize,
    /// Bytes of memory that the records hold.
    decoded_bytes: usize,
}

/// Why the fetched bytes cannot be delivered.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnreadableFetch {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("{bytes} bytes do not get beyond it")]
    NoProgress { bytes: usize },
}

impl UnreadableFetch {
    /// Whether it has to be read in parts.
    pub(super) fn is_too_large(&self) -> bool {
        matches!(self, Self::Record(RecordError::TooLarge { .. }))
    }
}

impl SharedPartition {
    pub(super) fn new(
        tp: TopicPartition,
        isolation: IsolationLevel,
        metrics: Arc<FetchMetrics>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            tp,
            isolation,
            topic: OnceLock::new(),
            fetch_state: Mutex::new(PartitionFetchState::new(Instant::now())),
            work: Notify::new(),
            size_estimator: Arc::default(),
            partial_batches: Mutex::default(),
            tail_changes: Mutex::default(),
            metrics,
            this: this.clone(),
        })
    }

    /// Which topic's records these are, as far as it is known.
    pub(super) fn topic(&self) -> TopicIdentity {
        self.topic.get().copied().unwrap_or_default()
    }

    /// Decodes what was fetched at `first_offset` from the leader of `serving_epoch`.
    pub(super) fn decode(
        &self,
        fetched: FetchPartitionData,
        first_offset: i64,
        serving_epoch: i32,
        limits: DecodeLimits,
    ) -> Result<DecodedFetch, UnreadableFetch> {
        self.decode_on(fetched, first_offset, serving_epoch, limits, &mut None)
    }

    /// As [`decode`](Self::decode), but goes on in a batch of which a part was decoded before. What
    /// is kept of such batches is counted in `pool`.
    pub(super) fn decode_parts(
        &self,
        fetched: FetchPartitionData,
        first_offset: i64,
        serving_epoch: i32,
        limits: DecodeLimits,
        pool: &Arc<BudgetPool>,
    ) -> Result<DecodedFetch, UnreadableFetch> {
        let mut partial = self.take_partial_batch(first_offset);
        let decoded = self.decode_on(fetched, first_offset, serving_epoch, limits, &mut partial);
        if let Some(batch) = partial {
            self.keep_batch(batch, pool);
        }
        decoded
    }

    /// Keeps a batch to go on in, unless there is no room for what it holds: then it will be
    /// decompressed from its start again. Others that need the room have it evicted.
    fn keep_batch(&self, mut batch: PartialBatch, pool: &Arc<BudgetPool>) {
        let Some(permit) = pool.try_acquire(batch.held_bytes()) else {
            return;
        };
        let seq = lock(&self.fetch_state).next_seq();
        let cache: Weak<dyn ChunkCache> = self.this.clone();
        let mut batches = lock(&self.partial_batches);
        pool.add_evictable(cache, seq, &permit);
        let kept = KeptBatch {
            batch,
            since: Instant::now(),
            seq,
            _permit: permit,
        };
        batches.insert(0, kept);
        batches.truncate(PARTIAL_BATCHES_MAX);
    }

    /// Whether what is fetched at `offset` goes on in a batch of which a part was decoded.
    pub(super) fn has_partial_batch(&self, offset: i64) -> bool {
        let batches = lock(&self.partial_batches);
        batches.iter().any(|kept| kept.batch.continues_at(offset))
    }

    fn take_partial_batch(&self, offset: i64) -> Option<PartialBatch> {
        let mut batches = lock(&self.partial_batches);
        let nearest = batches
            .iter()
            .enumerate()
            .filter(|(_, kept)| kept.batch.continues_at(offset));
        let (index, _) = nearest.max_by_key(|(_, kept)| kept.batch.last_reported())?;
        Some(batches.remove(index).batch)
    }

    /// Drops the batches in which nobody went on for long.
    pub(super) fn drop_expired_batches(&self, now: Instant) {
        let is_fresh = |kept: &KeptBatch| now < kept.since + PARTIAL_BATCH_TTL;
        lock(&self.partial_batches).retain(is_fresh);
    }

    fn decode_on(
        &self,
        fetched: FetchPartitionData,
        first_offset: i64,
        serving_epoch: i32,
        limits: DecodeLimits,
        partial: &mut Option<PartialBatch>,
    ) -> Result<DecodedFetch, UnreadableFetch> {
        let wire_bytes = fetched.records.len();
        // A small part must not keep the whole response in memory.
        let is_small = wire_bytes < COPIED_BELOW || wire_bytes <= fetched.response_bytes / 2;
        let (records, backing_bytes) = match is_small {
            true => (Bytes::copy_from_slice(&fetched.records), wire_bytes),
            false => (fetched.records, fetched.response_bytes),
        };
        let options = DecodeOptions {
            fetch_offset: first_offset,
            aborted_transactions: fetched.aborted_transactions,
            max_decompressed_bytes: limits.bytes_allowed.max(BYTES_ALLOWED_MIN),
            record_bytes_max: limits.record_bytes_max,
            read_parts: limits.read_parts,
            report_unreadable: limits.report_unreadable,
            backing_bytes,
            cut: fetched.batch_bytes_max.map(|batch_bytes_max| CutRecords {
                batch_bytes_max,
                readable_end: fetched.readable_end,
            }),
        };
        let decoded = decode_parts(records, &options, partial)?;
        let next_offset = match decoded.next_offset {
            Some(next) if next > first_offset => next,
            _ => return Err(UnreadableFetch::NoProgress { bytes: wire_bytes }),
        };
        let unpacked_bytes = decoded.bytes - decoded.shared_bytes;
        let decoded_bytes = match decoded.shared_bytes {
            0 => unpacked_bytes,
            _ => unpacked_bytes + backing_bytes,
        };
        // What was left for the next fetch says nothing of how large this one's becomes.
        self.size_estimator.record_decoded(
            decoded.consumed_bytes,
            decoded.bytes.max(decoded.consumed_bytes),
        );
        Ok(DecodedFetch {
            decoded,
            first_offset,
            next_offset,
            serving_epoch,
            wire_bytes,
            decoded_bytes,
        })
    }

    /// The chunk, with its bytes counted by `permit`.
    pub(super) fn chunk(&self, fetch: DecodedFetch, permit: BudgetPermit) -> Chunk {
        let DecodedFetch {
            decoded,
            first_offset,
            next_offset,
            serving_epoch,
            wire_bytes,
            decoded_bytes,
        } = fetch;
        self.metrics.records.add(decoded.count() as u64);
        self.metrics.bytes.add(wire_bytes as u64);
        let memory = ChunkMemory::new(
            permit,
            decoded_bytes,
            wire_bytes.min(decoded_bytes),
            Arc::clone(&self.size_estimator),
        );
        Chunk::new(
            self.tp.clone(),
            first_offset,
            next_offset,
            serving_epoch,
            decoded,
            memory,
        )
    }

    /// Tells the pool what is cached and the tail what has changed, and wakes the cursors. Not to
    /// be called under the lock of the fetch state.
    pub(super) fn publish(&self, update: FetchStateUpdate, chunk: Option<&Arc<Chunk>>) {
        if let (Some(seq), Some(chunk)) = (update.cached, chunk) {
            let cache: Weak<dyn ChunkCache> = self.this.clone();
            let permit = chunk.permit();
            permit.pool().add_evictable(cache, seq, permit);
        }
        if update.tail_target_changed {
            self.tail_target_changed();
        }
        wake_all(update.wake);
    }

    /// Fails every cursor, now and later: the partition is no more.
    pub(super) fn close(&self, error: FetchError) {
        let wake = lock(&self.fetch_state).close(error);
        self.tail_target_changed();
        wake_all(wake);
    }

    /// Fails the fetches that are pending now; later ones are tried again.
    pub(super) fn fail_fetches(&self, error: &FetchError) {
        let wake = lock(&self.fetch_state).fail_fetches(error, Instant::now());
        self.tail_target_changed();
        wake_all(wake);
    }

    /// A tail fetches the partition from now on, and is to know of changes by these.
    pub(super) fn set_tail_changes(&self, changes: &Arc<TailChanges>) {
        *lock(&self.tail_changes) = Some(Arc::clone(changes));
    }

    /// The tail, if one fetches the partition, looks at what is to be fetched before its next
    /// request.
    pub(super) fn tail_target_changed(&self) {
        if let Some(changes) = &*lock(&self.tail_changes) {
            changes.add(&self.tp);
        }
    }
}

/// Wakes these cursors, without a lock held.
fn wake_all(waiters: Vec<CursorWaiter>) {
    for waiter in waiters {
        waiter.wake.notify();
    }
}

impl DecodedFetch {
    /// Leader epoch of the last batch.
    pub(super) fn last_epoch(&self) -> i32 {
        self.decoded.leader_epoch
    }

    /// The offset to fetch next.
    pub(super) fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Epoch of the leader that it was read from.
    pub(super) fn serving_epoch(&self) -> i32 {
        self.serving_epoch
    }

    /// What is reported as unreadable.
    pub(super) fn unreadable(&self) -> &[UnreadableRecords] {
        &self.decoded.unreadable
    }
}

impl ChunkCache for SharedPartition {
    fn evict(&self, seq: u64, now: Instant) -> bool {
        let kept = {
            let mut batches = lock(&self.partial_batches);
            let index = batches.iter().position(|kept| kept.seq == seq);
            index.map(|index| batches.remove(index))
        };
        if kept.is_some() {
            return true;
        }
        let evicted = lock(&self.fetch_state).evict(seq, now);
        // Dropped here, without the lock.
        evicted.is_some()
    }
}

impl fmt::Debug for SharedPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedPartition")
            .field("tp", &self.tp)
            .field("isolation", &self.isolation)
            .finish_non_exhaustive()
    }
}

/// Batches of one partition in which cursors at different offsets may go on.
const PARTIAL_BATCHES_MAX: usize = 4;
/// How long a batch waits for a cursor to go on in it.
const PARTIAL_BATCH_TTL: Duration = Duration::from_secs(30);
/// Records below this size are copied out of the connection's buffer.
const COPIED_BELOW: usize = 16 << 10;
/// However little is allowed, so much is decompressed of a response.
const BYTES_ALLOWED_MIN: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CompressionType;
    use crate::record::header::RECORD_BATCH_OVERHEAD;
    use crate::record::{NewRecord, RecordBatchBuilder};

    fn batch(first: i64, count: usize, size: usize, codec: CompressionType) -> Vec<u8> {
        let mut builder = RecordBatchBuilder::new(1024);
        for n in 0..count {
            // Not to be compressed.
            let mut state = n as u32 + 1;
            let value: Vec<u8> = std::iter::repeat_with(|| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .take(size)
            .collect();
            builder.append(&NewRecord {
                key: None,
                value: Some(&value),
                headers: &[],
                timestamp: 1,
            });
        }
        let mut batch = builder.build(codec);
        batch.set_producer_state(-1, -1, -1);
        let mut bytes = batch.bytes().to_vec();
        bytes[..8].copy_from_slice(&first.to_be_bytes());
        bytes
    }

    fn fetched(records: Vec<u8>, response_bytes: usize) -> FetchPartitionData {
        FetchPartitionData {
            error: 0,
            readable_end: 1_000,
            records: records.into(),
            aborted_transactions: None,
            diverging_epoch: None,
            response_bytes,
            batch_bytes_max: None,
        }
    }

    fn partition() -> Arc<SharedPartition> {
        let isolation = IsolationLevel::ReadUncommitted;
        SharedPartition::new(TopicPartition::new("t", 0), isolation, Arc::default())
    }

    const LIMITS: DecodeLimits = DecodeLimits {
        bytes_allowed: 64 << 10,
        record_bytes_max: 1 << 20,
        read_parts: true,
        report_unreadable: false,
    };

    #[test]
    fn a_batch_to_go_on_in_counts_with_the_memory_that_it_holds() {
        let first = batch(0, 10, 50_000, CompressionType::Gzip);
        let mut buffers = Vec::new();
        for others in [400_000, 900_000] {
            let (partition, pool) = (partition(), BudgetPool::new(64 << 20));
            let mut records = first.clone();
            records.extend(batch(10, 1, others, CompressionType::None));
            let response_bytes = records.len();
            let fetched = fetched(records, response_bytes);
            let decoded = partition
                .decode_parts(fetched, 0, 0, LIMITS, &pool)
                .unwrap();
            assert_eq!(decoded.next_offset(), 1);
            let section = match first.len() > response_bytes / 2 {
                true => response_bytes,
                false => first.len() - RECORD_BATCH_OVERHEAD,
            };
            buffers.push(pool.used() - section);
        }
        assert_eq!(buffers[0], buffers[1], "what the decoder needs besides");
    }

    #[test]
    fn a_chunk_counts_with_the_memory_that_its_records_hold() {
        let plain = batch(0, 1, 40_000, CompressionType::None);
        let gzip = batch(1, 1, 30_000, CompressionType::Gzip);
        let both = [&plain[..], &gzip[..]].concat();
        for (records, response_bytes, expected) in [
            (plain.clone(), plain.len(), plain.len()),
            // All of a response, and a copy of the smaller part of one.
            (plain.clone(), plain.len() + 30_000, plain.len() + 30_000),
            (plain.clone(), plain.len() * 2, plain.len()),
            // What is unpacked holds nothing else.
            (gzip.clone(), gzip.len(), 30_010),
            (both.clone(), both.len(), both.len() + 30_010),
        ] {
            let fetched = fetched(records, response_bytes);
            let from = fetched.records[7].into();
            let decoded = partition().decode(fetched, from, 0, LIMITS).unwrap();
            let difference = decoded.decoded_bytes as i64 - expected as i64;
            assert!(difference.abs() < 20, "{difference} of {expected}");
        }
    }
}
