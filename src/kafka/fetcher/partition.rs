//! One partition under one isolation: the feed that its readers share, and what ties it
//! to the budget and to their tasks.

use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::budget::{BudgetPermit, ChunkCache};
use super::chunk::{Chunk, ChunkSizeEstimator, DerivedCache};
use super::feed::{Feed, News, Waiter};
use super::request::Fetched;
use crate::lock::lock;
use crate::record::{DecodeOptions, DecodedRecords, RecordError, decode};
use crate::{IsolationLevel, TopicPartition};

/// See the module.
pub(super) struct Partition {
    pub(super) tp: TopicPartition,
    pub(super) isolation: IsolationLevel,
    pub(super) feed: Mutex<Feed<Chunk>>,
    /// Told when the task has something to do.
    pub(super) work: Notify,
    pub(super) size_estimator: Arc<ChunkSizeEstimator>,
    me: Weak<Self>,
}

/// A fetched and decoded run of records, before it has its room.
#[derive(Debug)]
pub(super) struct Unpacked {
    decoded: DecodedRecords,
    first: i64,
    next: i64,
    read_under: i32,
    wire: usize,
    held: usize,
}

/// Why what was fetched is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("{bytes} bytes do not get beyond it")]
    NoProgress { bytes: usize },
}

impl Partition {
    pub(super) fn new(tp: TopicPartition, isolation: IsolationLevel) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            tp,
            isolation,
            feed: Mutex::new(Feed::new(Instant::now())),
            work: Notify::new(),
            size_estimator: Arc::default(),
            me: me.clone(),
        })
    }

    /// Decodes what was fetched at offset `first` from the leader of epoch `read_under`.
    /// One batch may take `max` bytes unpacked.
    pub(super) fn unpack(
        &self,
        fetched: Fetched,
        first: i64,
        read_under: i32,
        max: usize,
    ) -> Result<Unpacked, Unreadable> {
        let wire = fetched.records.len();
        // A small part must not keep the whole answer in memory.
        let records = if wire * 2 < fetched.together || wire < COPIED {
            Bytes::copy_from_slice(&fetched.records)
        } else {
            fetched.records
        };
        let mut want = DecodeOptions {
            fetch_offset: first,
            aborted_transactions: fetched.aborted,
            max_decompressed_bytes: wire
                .saturating_mul(UNPACK)
                .clamp(UNPACK_MIN, max.max(UNPACK_MIN)),
        };
        let decoded = match decode(records.clone(), &want) {
            // One batch beyond what is usual: it has to be read all the same.
            Err(RecordError::TooLarge { .. }) if want.max_decompressed_bytes < max => {
                want.max_decompressed_bytes = max;
                decode(records, &want)
            }
            decoded => decoded,
        }?;
        let next = match decoded.next_offset {
            Some(next) if next > first => next,
            _ => return Err(Unreadable::NoProgress { bytes: wire }),
        };
        let held = if decoded.is_empty() {
            0
        } else {
            decoded.bytes.max(wire)
        };
        self.size_estimator.record_decoded(wire, held);
        Ok(Unpacked {
            decoded,
            first,
            next,
            read_under,
            wire,
            held,
        })
    }

    /// The chunk, with its bytes counted by `permit`.
    pub(super) fn chunk(&self, unpacked: Unpacked, permit: BudgetPermit) -> Chunk {
        let Unpacked {
            decoded,
            first,
            next,
            read_under,
            wire,
            held,
        } = unpacked;
        let attached = DerivedCache::new(
            permit,
            held,
            wire.min(held),
            Arc::clone(&self.size_estimator),
        );
        Chunk::new(self.tp.clone(), first, next, read_under, decoded, attached)
    }

    /// Tells the pool what is kept, and the readers that there is news.
    pub(super) fn publish(&self, news: News, chunk: Option<&Arc<Chunk>>) {
        if let (Some(seq), Some(chunk)) = (news.kept, chunk) {
            let cache: Weak<dyn ChunkCache> = self.me.clone();
            chunk
                .permit()
                .pool()
                .add_evictable(cache, seq, chunk.permit());
        }
        notify(news.wake);
    }
}

/// Wakes everybody, without a lock held.
pub(super) fn notify(wake: Vec<Waiter>) {
    for waiter in wake {
        waiter.wake.notify();
    }
}

impl Unpacked {
    /// Leader epoch of the last batch.
    pub(super) fn epoch(&self) -> i32 {
        self.decoded.leader_epoch
    }

    /// Where reading goes on.
    pub(super) fn next(&self) -> i64 {
        self.next
    }
}

impl ChunkCache for Partition {
    fn evict(&self, seq: u64, now: Instant) -> bool {
        let given = lock(&self.feed).evict(seq, now);
        // Dropped here, without the lock.
        given.is_some()
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition")
            .field("tp", &self.tp)
            .field("isolation", &self.isolation)
            .finish_non_exhaustive()
    }
}

/// Answers below this size are copied out of the connection's buffer.
const COPIED: usize = 16 << 10;
/// How many times its size a response may take unpacked before the rest is left for the
/// next read, if it is more than `UNPACK_MIN`.
const UNPACK: usize = 4;
const UNPACK_MIN: usize = 1 << 20;
