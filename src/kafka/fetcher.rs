//! Shared fetching: any number of cursors, one stream of records per partition.
//!
//! ```text
//!                               ┌ PartitionFetchState ┐
//! broker ◀─ long polls ─ tail ─────▶ tail cache ───────┐
//!        ◀─ fetches ──── catch-up ─▶ completed fetches ┴▶ Cursor, … ─▶ PartitionRecords
//!                               └─ one per partition ─┘
//! ```
//!
//! A cursor is an offset and a signal to wake its owner. Near the end of its partition it is
//! served from the tail cache, which one long poll per broker fills for all; where it lags, by
//! fetches that the cursors at one offset share. What is fetched is decoded once and shared by
//! `Arc`, and so may be what the layers above make of it ([`Chunk::derived`]).
//!
//! # Invariants
//! - Each cursor gets each offset of its partition once, in order, from whichever source.
//! - The bytes of all chunks, and of what is derived from them, are bounded by
//!   `fetch_memory`, give or take one response.
//! - No cursor holds up the tail or another cursor. One that lags beyond the tail cache has
//!   catch-up fetches of its own.
//! - A cursor reads one cluster: it ends when another takes its place.
//! - Moved leaders, lost connections and evicted fetch sessions are repaired inside.

mod budget;
mod catch_up;
mod chunk;
mod cursor;
mod cut_response;
mod error;
mod fetch_session;
mod fetch_state;
mod offset_fetcher;
mod partition_fetcher;
mod request;
mod shared_partition;
mod tail;
mod tail_cache;
mod tail_changes;
mod truncation;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use runtime::mutex::lock;
use tokio::time::Instant;

pub use self::budget::FetchBudget;
use self::catch_up::CatchUpFetcher;
pub use self::chunk::{Chunk, DerivedPermit, PartitionRecords};
pub use self::cursor::Cursor;
pub use self::error::FetchError;
pub use self::fetch_state::PartitionReading;
use self::offset_fetcher::OffsetFetcher;
pub use self::offset_fetcher::OffsetSpec;
use self::shared_partition::{DecodeLimits, DecodedFetch, SharedPartition};
use self::tail::TailFetchers;
use super::config::ConsumerConfig;
use super::metrics::FetchMetrics;
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
    partitions: Mutex<ReadPartitions>,
}

/// The partitions that are read, all of one cluster.
#[derive(Debug, Default)]
struct ReadPartitions {
    /// Counts the clusters that took another one's place.
    cluster_changes: u64,
    by_key: HashMap<(TopicPartition, IsolationLevel), Arc<SharedPartition>>,
}

impl Fetcher {
    /// A fetcher whose chunks `budget` counts, as those of all others that share it.
    pub fn new(cluster: Cluster, mut config: ConsumerConfig, budget: FetchBudget) -> Self {
        let cluster = cluster.with_requests(&config.requests);
        // More than one batch must not make a response too large; one alone may.
        let response_max = cluster.config().receive_message_max_bytes / 2;
        let response_max = i32::try_from(response_max).unwrap_or(i32::MAX);
        config.fetch_max_bytes = config.fetch_max_bytes.min(response_max);
        config.max_partition_fetch_bytes = config.max_partition_fetch_bytes.min(response_max);
        let config = Arc::new(config);
        let catch_up = CatchUpFetcher::new(
            cluster.clone(),
            Arc::clone(&config),
            Arc::clone(&budget.catch_up),
            budget.tail.limit(),
        );
        let shared = FetcherShared {
            offsets: OffsetFetcher::new(cluster.clone()),
            cluster,
            config,
            budget,
            catch_up,
            tails: TailFetchers::default(),
            partitions: Mutex::default(),
        };
        let shared = Arc::new(shared);
        let observed = Arc::downgrade(&shared);
        shared.cluster.metadata().observe_cluster(move || {
            if let Some(shared) = observed.upgrade() {
                shared.forget_all();
            }
        });
        Self { shared }
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
        self.cursor_since(None, tp, position, isolation, wake)
    }

    /// How many clusters have taken another one's place.
    pub(crate) fn cluster_changes(&self) -> u64 {
        lock(&self.shared.partitions).cluster_changes
    }

    /// As [`cursor`](Self::cursor), from a position that was found after so many changes of the
    /// cluster. One of a former cluster ends at once, as those do that were there at the change.
    pub(crate) fn cursor_since(
        &self,
        cluster_changes: Option<u64>,
        tp: TopicPartition,
        position: FetchPosition,
        isolation: IsolationLevel,
        wake: Arc<WakeSignal>,
    ) -> Cursor {
        self.shared.forget_if_replaced(&tp, isolation);
        let mut partitions = lock(&self.shared.partitions);
        if cluster_changes.is_some_and(|changes| changes != partitions.cluster_changes) {
            drop(partitions);
            let metrics = Arc::clone(self.shared.metrics());
            let partition = SharedPartition::new(tp.clone(), isolation, metrics);
            partition.close(FetchError::ClusterReplaced { tp });
            let state =
                lock(&partition.fetch_state).add_cursor(position.offset, position.leader_epoch);
            return Cursor::new(partition, state, wake);
        }
        let entry = partitions.by_key.entry((tp, isolation));
        let partition = entry.or_insert_with_key(|key| {
            let metrics = Arc::clone(self.shared.metrics());
            let partition = SharedPartition::new(key.0.clone(), isolation, metrics);
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

    /// Where `tp` begins or ends. Lookups of many consumers are sent together.
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

    /// How many batches and single records were reported as unreadable.
    pub fn unreadable_count(&self) -> u64 {
        self.shared.metrics().unreadable.get()
    }

    /// How many partitions are read, or were in the last ten seconds, and by how many cursors. For
    /// tests.
    pub fn read_partitions(&self) -> (usize, usize) {
        let partitions = lock(&self.shared.partitions);
        let partitions = partitions.by_key.values();
        let cursors = partitions.map(|partition| lock(&partition.fetch_state).cursors());
        cursors.fold((0, 0), |(count, sum), cursors| (count + 1, sum + cursors))
    }

    /// The partitions that are read now. Each is looked at for itself, and for no longer than it
    /// takes to copy a few numbers.
    pub fn partition_readings(&self) -> Vec<PartitionReading> {
        let partitions: Vec<_> = {
            let partitions = lock(&self.shared.partitions);
            partitions.by_key.values().cloned().collect()
        };
        let read = |partition: &Arc<SharedPartition>| PartitionReading {
            topic: Arc::clone(&partition.tp.topic),
            ..lock(&partition.fetch_state).reading()
        };
        partitions.iter().map(read).collect()
    }

    /// How many tails are at work: one long poll each, per broker and isolation level. For tests.
    pub fn tails(&self) -> usize {
        self.shared.tails.count()
    }
}

impl FetcherShared {
    fn metrics(&self) -> &Arc<FetchMetrics> {
        &self.cluster.config().metrics.fetch
    }

    /// A chunk of what was fetched at a tail cache's end, if the tail's half of the budget has room
    /// for it, or has when the oldest chunks of all tail caches are evicted. `None`: cursors hold
    /// too much.
    fn tail_chunk(&self, partition: &SharedPartition, decoded: DecodedFetch) -> Option<Chunk> {
        let pool = &self.budget.tail;
        let chunk = partition.chunk(decoded, pool.charge(0));
        pool.fit_charged(Instant::now()).then_some(chunk)
    }

    /// Limits for what comes at the end of a partition, for which no memory is acquired before.
    fn tail_decode_limits(&self) -> DecodeLimits {
        DecodeLimits {
            bytes_allowed: self.budget.tail.limit() / 8,
            record_bytes_max: self.config.record_bytes_max,
            read_parts: false,
            report_unreadable: false,
        }
    }

    /// Removes the partition, whose topic is gone: a cursor that is added later under the same name
    /// reads the topic that exists then.
    fn forget(&self, partition: &Arc<SharedPartition>) {
        let key = (partition.tp.clone(), partition.isolation);
        let partitions = &mut lock(&self.partitions).by_key;
        if partitions
            .get(&key)
            .is_some_and(|known| Arc::ptr_eq(known, partition))
        {
            partitions.remove(&key);
        }
    }

    /// Closes a partition that nobody has read since another topic took the name of its topic: its
    /// task would find that out only when it is read.
    fn forget_if_replaced(&self, tp: &TopicPartition, isolation: IsolationLevel) {
        let known = lock(&self.partitions)
            .by_key
            .get(&(tp.clone(), isolation))
            .cloned();
        let metadata = self.cluster.metadata();
        if let Some(known) = known.filter(|known| metadata.is_replaced(&tp.topic, known.topic())) {
            self.forget(&known);
            let topic = Arc::clone(&tp.topic);
            known.close(FetchError::UnknownTopic { topic });
            known.work.notify_one();
        }
    }

    /// Closes all partitions: another cluster took the place of the one that has them. What was
    /// fetched of it is dropped, and no cursor of it is served by the new one.
    fn forget_all(&self) {
        let partitions = {
            let mut partitions = lock(&self.partitions);
            partitions.cluster_changes += 1;
            std::mem::take(&mut partitions.by_key)
        };
        for partition in partitions.into_values() {
            let tp = partition.tp.clone();
            partition.close(FetchError::ClusterReplaced { tp });
        }
    }

    fn forget_if_idle(&self, partition: &Arc<SharedPartition>, now: Instant) -> bool {
        let mut partitions = lock(&self.partitions);
        let mut fetch_state = lock(&partition.fetch_state);
        let idle = fetch_state
            .idle_since()
            .is_some_and(|since| now >= since + fetch_state::TAIL_MAX_IDLE);
        if idle {
            fetch_state.drop_tail_cache();
            drop(fetch_state);
            partition.tail_target_changed();
            let key = (partition.tp.clone(), partition.isolation);
            let is_it = |known: &Arc<SharedPartition>| Arc::ptr_eq(known, partition);
            if partitions.by_key.get(&key).is_some_and(is_it) {
                partitions.by_key.remove(&key);
            }
        }
        idle
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::Principal;
    use crate::config::ClientConfig;
    use crate::fake::metadata_response;

    fn name_cluster(cluster: &Cluster, id: &'static str) {
        let metadata = cluster.metadata();
        let brokers = [(1, "127.0.0.1:9".parse().unwrap())];
        let id = kafka_protocol::protocol::StrBytes::from_static_str(id);
        let response = metadata_response(&brokers, Vec::new()).with_cluster_id(Some(id));
        metadata.complete_update(&metadata.begin_update(true), &response);
    }

    #[tokio::test]
    async fn a_position_in_a_former_cluster_is_not_read_in_the_next() {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let cluster = Cluster::new(ClientConfig::default(), Principal::Proxy, tasks, stop);
        let budget = FetchBudget::new(1 << 20);
        let fetcher = Fetcher::new(cluster.clone(), ConsumerConfig::default(), budget);
        name_cluster(&cluster, "old");
        let found_after = fetcher.cluster_changes();
        let cursor = |changes| {
            let tp = TopicPartition::new("t", 0);
            let position = FetchPosition {
                offset: 5,
                leader_epoch: -1,
            };
            let isolation = IsolationLevel::ReadUncommitted;
            fetcher.cursor_since(Some(changes), tp, position, isolation, Arc::default())
        };
        let mut there = cursor(found_after);
        assert!(matches!(there.try_next(), Ok(None)));
        name_cluster(&cluster, "new");
        // It was handed over before the change, and comes to be read after it.
        let mut late = cursor(found_after);
        for cursor in [&mut there, &mut late] {
            let ended = cursor.try_next();
            assert!(
                matches!(ended, Err(FetchError::ClusterReplaced { .. })),
                "{ended:?}"
            );
        }
        let mut anew = cursor(fetcher.cluster_changes());
        assert!(matches!(anew.try_next(), Ok(None)));
        cluster.stop().cancel();
    }
}
