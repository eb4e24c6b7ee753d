//! Shared fetching: any number of cursors, one stream of records per partition.
//!
//! ```text
//!                               ┌ PartitionFetchState ┐
//! broker ◀─ long polls ─ tail ─────▶ ring ─────────────┐
//!        ◀─ reads ──── catch-up ───▶ completed fetches ┴▶ Cursor, … ─▶ ConsumerRecords
//!                               └─ one per partition ─┘
//! ```
//!
//! A cursor is an offset and a signal to wake its owner. Near the end of its partition it is
//! served from the ring, which one long poll per broker fills for all; where it lags, by reads
//! that the cursors at one offset share. What is fetched is decoded once and shared by `Arc`;
//! [`DerivedCache`] keeps what the layers above derive from it, made once as well.
//!
//! # Invariants
//! - Each cursor gets each offset of its partition once, in order, from whichever source.
//! - The bytes of all chunks, and of what is derived from them, are bounded by
//!   `fetch_memory`, give or take one response.
//! - No cursor holds up the tail or another cursor. A slow one falls behind the ring and
//!   reads on its own.
//! - Moved leaders, lost connections and evicted fetch sessions are repaired inside.

mod budget;
mod catch_up;
mod chunk;
mod cursor;
mod error;
mod fetch_session;
mod fetch_state;
mod offset_fetcher;
mod partition_fetcher;
mod request;
mod ring;
mod shared_partition;
mod tail;
mod truncation;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use runtime::mutex::lock;
use tokio::time::Instant;

pub use self::budget::FetchBudget;
use self::catch_up::CatchUpFetcher;
pub use self::chunk::{Chunk, ConsumerRecords, DerivedCache};
pub use self::cursor::Cursor;
pub use self::error::FetchError;
use self::offset_fetcher::OffsetFetcher;
pub use self::offset_fetcher::OffsetSpec;
use self::shared_partition::{DecodeLimits, DecodedFetch, SharedPartition};
use self::tail::TailFetchers;
use super::config::ConsumerConfig;
use super::{Cluster, IsolationLevel, TopicPartition};
use runtime::wake::WakeSignal;

/// An offset of a partition, and the leader epoch of the record before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FetchPosition {
    /// The next offset to read.
    pub offset: i64,
    /// Leader epoch of the record before it; −1 when unknown (KIP-320).
    pub leader_epoch: i32,
}

/// Fetches for all cursors of one principal on one cluster. Clones share it.
#[derive(Clone, Debug)]
pub struct Fetcher {
    shared: Arc<FetcherShared>,
}

/// What all parts of a fetcher work with.
#[derive(Debug)]
struct FetcherShared {
    cluster: Cluster,
    config: Arc<ConsumerConfig>,
    budget: FetchBudget,
    catch_up: Arc<CatchUpFetcher>,
    tails: TailFetchers,
    offsets: OffsetFetcher,
    partitions: Mutex<HashMap<(TopicPartition, IsolationLevel), Arc<SharedPartition>>>,
    /// Offsets or ranges of offsets that were told as unreadable.
    unreadable: AtomicU64,
}

impl Fetcher {
    /// A fetcher whose chunks `budget` counts, as those of all others that share it.
    pub fn new(cluster: Cluster, config: ConsumerConfig, budget: FetchBudget) -> Self {
        let config = Arc::new(config);
        let catch_up = CatchUpFetcher::new(
            cluster.clone(),
            Arc::clone(&config),
            Arc::clone(&budget.catch_up),
            budget.ring.limit(),
        );
        let shared = FetcherShared {
            offsets: OffsetFetcher::new(cluster.clone()),
            cluster,
            config,
            budget,
            catch_up,
            tails: TailFetchers::default(),
            unreadable: AtomicU64::new(0),
            partitions: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Reads `tp` from `position` on. `wake` is notified when [`Cursor::try_next`] may
    /// have something; several cursors may share one.
    pub fn cursor(
        &self,
        tp: TopicPartition,
        position: FetchPosition,
        isolation: IsolationLevel,
        wake: Arc<WakeSignal>,
    ) -> Cursor {
        let mut partitions = lock(&self.shared.partitions);
        let partition = partitions.entry((tp, isolation)).or_insert_with_key(|key| {
            let partition = SharedPartition::new(key.0.clone(), isolation);
            let task = partition_fetcher::run(Arc::clone(&self.shared), Arc::clone(&partition));
            self.shared.cluster.tasks().spawn(task);
            partition
        });
        let partition = Arc::clone(partition);
        // Under the lock of the map: a partition with a cursor is not forgotten.
        let state = lock(&partition.fetch_state).add_cursor(position.offset, position.leader_epoch);
        drop(partitions);
        Cursor::new(partition, state, wake)
    }

    /// Where `tp` begins or ends. Lookups of many sockets are sent together.
    ///
    /// # Errors
    /// [`FetchError::UnknownTopic`], [`FetchError::NotAuthorized`], [`FetchError::Stopped`],
    /// and [`FetchError::Unavailable`] after `request.timeout.ms`.
    pub async fn list_offset(
        &self,
        tp: &TopicPartition,
        spec: OffsetSpec,
        isolation: IsolationLevel,
    ) -> Result<FetchPosition, FetchError> {
        self.shared.offsets.list_offset(tp, spec, isolation).await
    }

    /// The memory that it works within.
    pub fn budget(&self) -> &FetchBudget {
        &self.shared.budget
    }

    /// How many batches and records were told as unreadable.
    pub fn unreadable(&self) -> u64 {
        self.shared.unreadable.load(Ordering::Relaxed)
    }

    /// Tails at work: one long poll per broker and isolation level.
    pub fn tails(&self) -> usize {
        self.shared.tails.count()
    }
}

impl FetcherShared {
    /// A chunk of what was read at a ring's end, if there is room in the rings or the oldest
    /// chunks can be evicted to make it. `None`: cursors hold on to too much.
    fn ring_chunk(&self, partition: &SharedPartition, decoded: DecodedFetch) -> Option<Chunk> {
        let ring = &self.budget.ring;
        let chunk = partition.chunk(decoded, ring.charge(0));
        ring.evict_to_limit(Instant::now());
        (ring.used() <= ring.limit()).then_some(chunk)
    }

    /// Limits for what comes at the end of a partition: no room is acquired for it.
    fn ring_limits(&self) -> DecodeLimits {
        DecodeLimits {
            room: self.budget.ring.limit() / 8,
            record_bytes_max: self.config.record_bytes_max,
            read_parts: false,
            tell_unreadable: false,
        }
    }

    /// New cursors of its name get another partition.
    fn forget(&self, partition: &Arc<SharedPartition>) {
        let key = (partition.tp.clone(), partition.isolation);
        let mut partitions = lock(&self.partitions);
        if partitions
            .get(&key)
            .is_some_and(|known| Arc::ptr_eq(known, partition))
        {
            partitions.remove(&key);
        }
    }

    fn forget_if_idle(&self, partition: &Arc<SharedPartition>, now: Instant) -> bool {
        let mut partitions = lock(&self.partitions);
        let mut fetch_state = lock(&partition.fetch_state);
        let idle = fetch_state
            .idle_since()
            .is_some_and(|since| now >= since + fetch_state::TAIL_IDLE_MAX);
        if idle {
            fetch_state.drop_ring();
            drop(fetch_state);
            partitions.remove(&(partition.tp.clone(), partition.isolation));
        }
        idle
    }
}
