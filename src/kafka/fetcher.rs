//! Shared fetching: any number of readers, one stream of records per partition.
//!
//! ```text
//!                    ┌────────── Fetcher ──────────┐
//! broker ◀─ long poll ─ tail ─▶ ring ─┐            │
//!        ◀─ reads ── catch-up ─▶ shelf ┴▶ feed ─▶ Cursor, Cursor, … ─▶ ConsumerRecords
//!                    └─ one feed per partition ────┘
//! ```
//!
//! A cursor is an offset and somebody to wake. Near the end of its partition it is served
//! from the ring that one long poll per broker fills for all; where it lags, by reads
//! that those who stand at the same place share. What is read is decoded once and shared
//! by `Arc`; [`DerivedCache`] keeps what the layers above derive from it, made once as well.
//!
//! # Invariants
//! - Each cursor gets each offset of its partition once, in order, whichever way it comes.
//! - The bytes of all chunks, and of what is attached to them, are bounded by
//!   `fetch_memory`, give or take one response.
//! - No reader holds up the tail or another reader. One that is slow falls behind the
//!   ring and reads on its own.
//! - Moved leaders, lost connections and evicted sessions are repaired inside.

mod budget;
mod catchup;
mod chunk;
mod cursor;
mod error;
mod feed;
mod offsets;
mod partition;
mod request;
mod ring;
mod session;
mod tail;
mod task;
mod truncation;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

pub use self::budget::FetchBudget;
use self::catchup::CatchUp;
pub use self::chunk::{Chunk, ConsumerRecords, DerivedCache};
pub use self::cursor::Cursor;
pub use self::error::FetchError;
use self::offsets::Offsets;
pub use self::offsets::{OffsetSpec, list_offset};
use self::partition::{Partition, Unpacked};
use self::tail::Tails;
use super::config::ConsumerConfig;
use super::lock::lock;
use super::{Cluster, IsolationLevel, TopicPartition};
use runtime::wake::WakeSignal;

/// A place in a partition, and the leader epoch of the record before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FetchPosition {
    /// The next offset to read.
    pub offset: i64,
    /// LeaderAndEpoch epoch of the record before it; −1 when unknown (KIP-320).
    pub leader_epoch: i32,
}

/// Fetches for everybody who reads a cluster as one principal. Clones share it.
#[derive(Clone, Debug)]
pub struct Fetcher {
    shared: Arc<Shared>,
}

/// What all parts of a fetcher work with.
#[derive(Debug)]
struct Shared {
    cluster: Cluster,
    config: Arc<ConsumerConfig>,
    budget: FetchBudget,
    catch_up: Arc<CatchUp>,
    tails: Tails,
    offsets: Offsets,
    partitions: Mutex<Partitions>,
    /// Bytes that one batch may take decompressed.
    unpack_max: usize,
}

type Partitions = HashMap<(TopicPartition, IsolationLevel), Arc<Partition>>;

impl Fetcher {
    /// A fetcher with `fetch_memory` of its own.
    pub fn new(cluster: Cluster, config: ConsumerConfig) -> Self {
        let budget = FetchBudget::new(config.fetch_memory);
        Self::with_budget(cluster, config, budget)
    }

    /// A fetcher that shares its memory with others.
    pub fn with_budget(cluster: Cluster, config: ConsumerConfig, budget: FetchBudget) -> Self {
        let config = Arc::new(config);
        let catch_up = CatchUp::new(
            cluster.clone(),
            Arc::clone(&config),
            Arc::clone(&budget.catch_up),
            budget.ring.limit(),
        );
        let shared = Shared {
            offsets: Offsets::new(cluster.clone()),
            unpack_max: cluster.config().receive_message_max_bytes,
            cluster,
            config,
            budget,
            catch_up,
            tails: Tails::default(),
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
            let partition = Partition::new(key.0.clone(), isolation);
            let task = task::run(Arc::clone(&self.shared), Arc::clone(&partition));
            self.shared.cluster.tasks().spawn(task);
            partition
        });
        let partition = Arc::clone(partition);
        // Under the lock of the map: a partition with a reader is not forgotten.
        let reader = lock(&partition.feed).enter(position.offset, position.leader_epoch);
        drop(partitions);
        Cursor::new(partition, reader, wake)
    }

    /// Where `tp` begins or ends. Questions of many sockets are asked together.
    ///
    /// # Errors
    /// See [`list_offset`].
    pub async fn list_offset(
        &self,
        tp: &TopicPartition,
        at: OffsetSpec,
        isolation: IsolationLevel,
    ) -> Result<FetchPosition, FetchError> {
        self.shared.offsets.find(tp, at, isolation).await
    }

    /// The memory that it works within.
    pub fn budget(&self) -> &FetchBudget {
        &self.shared.budget
    }

    /// Partitions that somebody reads, or has read shortly before.
    pub fn partitions(&self) -> usize {
        lock(&self.shared.partitions).len()
    }

    /// Long polls at work: one per broker and isolation.
    pub fn tails(&self) -> usize {
        self.shared.tails.count()
    }
}

impl Shared {
    /// Makes room in the rings for what was read at a ring's end, by giving up what is
    /// oldest. `None`: readers hold on to too much.
    fn room_in_ring(&self, partition: &Partition, unpacked: Unpacked) -> Option<Chunk> {
        let ring = &self.budget.ring;
        let chunk = partition.chunk(unpacked, ring.charge(0));
        ring.evict_to_limit(Instant::now());
        (ring.used() <= ring.limit()).then_some(chunk)
    }

    /// New readers of its name get another partition.
    fn forget(&self, partition: &Arc<Partition>) {
        let key = (partition.tp.clone(), partition.isolation);
        let mut partitions = lock(&self.partitions);
        if partitions
            .get(&key)
            .is_some_and(|known| Arc::ptr_eq(known, partition))
        {
            partitions.remove(&key);
        }
    }

    fn forget_if_idle(&self, partition: &Arc<Partition>, now: Instant) -> bool {
        let mut partitions = lock(&self.partitions);
        let mut feed = lock(&partition.feed);
        let idle = feed
            .idle_since()
            .is_some_and(|since| now >= since + feed::TAIL_IDLE);
        if idle {
            feed.drop_ring();
            drop(feed);
            partitions.remove(&(partition.tp.clone(), partition.isolation));
        }
        idle
    }
}
