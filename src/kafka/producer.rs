//! The idempotent producer: from records to acknowledged offsets.
//!
//! ```text
//! send ─▶ budget ─▶ Accumulator ─ ready[broker] ─▶ lane ─▶ connection ─▶ broker
//!   │      (bytes)   └ Queue per partition          (one task per broker)
//!   ▼                     ▲        └────── landings ◀──┘
//! DeliveryFuture ◀── outcome ─────┘        director: time, leaders, producer id
//! ```
//!
//! # Invariants
//! - Every delivery future resolves, at the latest when `delivery.timeout.ms` has passed since the
//!   record's batch was begun, or when the cluster is stopped.
//! - What a delivery future says is true: acknowledged is in the log, exactly once; an error other
//!   than [`UnknownOutcome`](ProduceError::UnknownOutcome) is not, and never will be.
//! - The records that one caller sends to a partition, one after another, are in the log
//!   in that order.
//! - A record that is refused takes no other record with it.
//! - No more than `buffer.memory` bytes of records are held.

mod accumulator;
mod answer;
mod body;
mod delivery;
mod director;
mod error;
mod identity;
mod lane;
pub mod partitioner;
mod queue;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use self::accumulator::{Accumulator, Effects, Sizes};
use self::queue::Limits;
use super::cluster::Cluster;
use super::config::ProducerConfig;
use super::lock::lock;
use super::metadata::TopicMetadata;
use super::record::{NewRecord, batch_size_of};
use super::topic::BrokerId;

pub use self::delivery::{DeliveryFuture, RecordMetadata};
pub use self::error::ProduceError;

/// Writes records, acknowledged by all in-sync replicas. Clones share everything; there
/// is to be one per cluster and principal.
#[derive(Clone, Debug)]
pub struct Producer {
    shared: Arc<Shared>,
}

impl Producer {
    /// Works in the background until the cluster is stopped: call [`flush`](Self::flush)
    /// before that.
    pub fn new(cluster: Cluster, config: ProducerConfig) -> Self {
        let retry = cluster.config();
        let limits = Limits {
            linger: config.linger,
            delivery: config.delivery_timeout,
            in_flight: config.max_in_flight.clamp(1, IN_FLIGHT_MAX),
            retry: (retry.retry_backoff, retry.retry_backoff_max),
        };
        let sizes = Sizes {
            batch: config.batch_size.min(config.max_request_size),
            request: config.max_request_size,
        };
        let memory = config.buffer_memory.min(Semaphore::MAX_PERMITS);
        let shared = Arc::new(Shared {
            accumulator: Mutex::new(Accumulator::new(limits, sizes)),
            budget: Semaphore::new(memory),
            lanes: Mutex::default(),
            direct: Notify::new(),
            cluster,
            config,
        });
        let tasks = shared.cluster.tasks();
        tasks.spawn(director::run(Arc::clone(&shared)));
        Self { shared }
    }

    /// Puts a record on its way. The partition is the given one, or the key's, or the one
    /// that is being filled. Waits only while `buffer.memory` is spent; cancel-safe.
    ///
    /// # Errors
    /// [`TooLarge`](ProduceError::TooLarge),
    /// [`InvalidPartition`](ProduceError::InvalidPartition),
    /// [`Stopped`](ProduceError::Stopped); all others come through the future.
    pub async fn send(
        &self,
        topic: &Arc<TopicMetadata>,
        partition: Option<i32>,
        record: &NewRecord<'_>,
    ) -> Result<DeliveryFuture, ProduceError> {
        let cost = self.shared.check(record)?;
        if !self.shared.try_reserve(cost)? {
            match self.shared.budget.acquire_many(cost).await {
                Ok(permits) => permits.forget(),
                Err(_closed) => return Err(ProduceError::Stopped),
            }
        }
        self.shared.append(topic, partition, record, cost)
    }

    /// As [`send`](Self::send), but `None` where that would wait.
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    pub fn try_send(
        &self,
        topic: &Arc<TopicMetadata>,
        partition: Option<i32>,
        record: &NewRecord<'_>,
    ) -> Result<Option<DeliveryFuture>, ProduceError> {
        let cost = self.shared.check(record)?;
        if !self.shared.try_reserve(cost)? {
            return Ok(None);
        }
        self.shared.append(topic, partition, record, cost).map(Some)
    }

    /// Sends what lingers, and waits until everything that was sent before this call has
    /// its outcome.
    pub async fn flush(&self) {
        let now = Instant::now();
        let outcomes = self
            .shared
            .with(|batches, effects| batches.flush(now, effects));
        for outcome in outcomes {
            outcome.settled().await;
        }
    }

    /// Bytes of `buffer.memory` that are not in use.
    pub fn memory_available(&self) -> usize {
        self.shared.budget.available_permits()
    }
}

/// Brokers recognise a duplicate among a producer's last five batches per partition.
const IN_FLIGHT_MAX: usize = 5;

/// What producer, lanes and director share.
#[derive(Debug)]
struct Shared {
    cluster: Cluster,
    config: ProducerConfig,
    accumulator: Mutex<Accumulator>,
    /// Bytes of `buffer.memory`.
    budget: Semaphore,
    /// Wakes each broker's lane.
    lanes: Mutex<HashMap<BrokerId, Arc<Notify>>>,
    /// Wakes the director.
    direct: Notify,
}

impl Shared {
    /// What a record costs of the budget.
    fn check(&self, record: &NewRecord<'_>) -> Result<u32, ProduceError> {
        let size = batch_size_of(record);
        let limit = self.config.max_request_size.min(self.config.buffer_memory);
        match u32::try_from(size) {
            Ok(cost) if size <= limit => Ok(cost),
            _ => Err(ProduceError::TooLarge {
                size,
                limit: Some(limit),
            }),
        }
    }

    fn try_reserve(&self, cost: u32) -> Result<bool, ProduceError> {
        match self.budget.try_acquire_many(cost) {
            Ok(permits) => {
                permits.forget();
                Ok(true)
            }
            Err(tokio::sync::TryAcquireError::NoPermits) => Ok(false),
            Err(tokio::sync::TryAcquireError::Closed) => Err(ProduceError::Stopped),
        }
    }

    fn append(
        self: &Arc<Self>,
        topic: &Arc<TopicMetadata>,
        partition: Option<i32>,
        record: &NewRecord<'_>,
        cost: u32,
    ) -> Result<DeliveryFuture, ProduceError> {
        let append = || {
            self.with(|batches, effects| {
                batches.append(topic, partition, record, cost as usize, effects)
            })
        };
        let appended = match append() {
            // The partition may have been added a moment ago.
            Err(ProduceError::InvalidPartition { .. }) if self.catch_up() => append(),
            appended => appended,
        };
        if appended.is_err() {
            self.budget.add_permits(cost as usize);
        }
        appended
    }

    /// Lets the queues follow what is known of the cluster, if the director has not got
    /// round to it; returns whether there was something to follow.
    fn catch_up(self: &Arc<Self>) -> bool {
        let snapshot = self.cluster.metadata().snapshot();
        let news = !lock(&self.accumulator).follows(&snapshot);
        if news {
            self.with(|batches, effects| batches.follow(&snapshot, Instant::now(), effects));
        }
        news
    }

    /// Works on the batches under the lock, and carries out what follows without it.
    fn with<T>(self: &Arc<Self>, work: impl FnOnce(&mut Accumulator, &mut Effects) -> T) -> T {
        let mut effects = Effects::default();
        let result = work(&mut lock(&self.accumulator), &mut effects);
        let mut freed = 0;
        for settled in effects.settled {
            freed += settled.cost;
            if let Some(owner) = settled.owner {
                owner.settle(settled.result);
            }
        }
        if freed > 0 {
            self.budget.add_permits(freed);
        }
        for broker in effects.wake {
            self.wake(broker);
        }
        for topic in effects.leaderless {
            self.cluster.metadata().request_update_for_topic(&topic);
        }
        if effects.direct {
            self.direct.notify_one();
        }
        result
    }

    fn has_ready(&self, broker: BrokerId) -> bool {
        lock(&self.accumulator).has_ready(broker)
    }

    /// Wakes the broker's lane; starts it when it is the first time.
    fn wake(self: &Arc<Self>, broker: BrokerId) {
        let mut lanes = lock(&self.lanes);
        let wake = lanes.entry(broker).or_insert_with(|| {
            let wake = Arc::new(Notify::new());
            let lane = lane::run(Arc::clone(self), broker, Arc::clone(&wake));
            self.cluster.tasks().spawn(lane);
            wake
        });
        wake.notify_one();
    }
}
