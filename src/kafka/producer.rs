//! The idempotent producer: from records to acknowledged offsets.
//!
//! ```text
//! send ─▶ memory ─▶ RecordAccumulator ─ ready[broker] ─▶ BrokerSender ─▶ connection ─▶ broker
//!   │  (buffer.memory)  └ PartitionQueue                  (one task per broker)
//!   ▼                        ▲       └─────── BatchResult ◀──────┘
//! DeliveryFuture ◀─ result ──┘               maintenance: time, leaders, producer id
//! ```
//!
//! # Invariants
//! - Every delivery future resolves, at the latest when `delivery.timeout.ms` has passed
//!   since its batch was begun, or when the cluster is stopped.
//! - What a delivery future says is true: acknowledged is in the log, exactly once; an error
//!   other than [`UnknownOutcome`](ProduceError::UnknownOutcome) is not, and never will be.
//! - The records that one caller sends to a partition, one after another, are in the log
//!   in that order.
//! - A record that is refused takes no other record with it.
//! - No more than `buffer.memory` bytes of records are held, and a partition that does not
//!   drain holds its share of them at most: callers that write to it wait, callers that write
//!   to others do not.

mod accumulator;
mod batch_records;
mod delivery;
mod error;
mod expired_records;
mod maintenance;
mod partition_queue;
pub mod partitioner;
mod produce_request;
mod producer_id;
mod result_wakers;
mod sender;
mod topic_lookup;
pub mod transactional;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime::mutex::lock;
use tokio::sync::{Notify, Semaphore, TryAcquireError};
use tokio::time::{Instant, timeout};

use self::accumulator::{
    AccumulatorEffects, PartitionMemoryTurn, RecordAccumulator, RecordAppendError, RecordMemory,
    SizeLimits,
};
use self::partition_queue::QueueConfig;
use super::cluster::Cluster;
use super::config::ProducerConfig;
use super::metadata::TopicMetadata;
use super::record::{NewRecord, batch_size_of};
use super::topic::BrokerId;

pub use self::delivery::{DeliveryFuture, RecordMetadata};
pub use self::error::ProduceError;
pub use self::transactional::{
    FrameDelivery, TransactionError, TransactionFrame, TransactionalConfig, TransactionalProducer,
};

/// Writes records, acknowledged by all in-sync replicas. Clones share everything; there
/// is to be one per cluster and principal.
#[derive(Clone, Debug)]
pub struct Producer {
    shared: Arc<ProducerShared>,
}

impl Producer {
    /// Works in the background until the cluster is stopped: call [`flush`](Self::flush)
    /// before that.
    pub fn new(cluster: Cluster, config: ProducerConfig) -> Self {
        let cluster = cluster.with_requests(&config.requests);
        let client = cluster.config();
        let queues = QueueConfig {
            linger: config.linger,
            delivery_timeout: config.delivery_timeout,
            max_in_flight: config.max_in_flight.clamp(1, MAX_IN_FLIGHT),
            retry_backoff: client.retry_backoff,
            retry_backoff_max: client.retry_backoff_max,
        };
        let limits = SizeLimits {
            batch_size: config.batch_size.min(config.max_request_size),
            max_request_size: config.max_request_size,
            buffer_memory: config.buffer_memory,
        };
        let shared = Arc::new(ProducerShared {
            accumulator: Mutex::new(RecordAccumulator::new(queues, limits)),
            memory: Semaphore::new(config.buffer_memory.min(Semaphore::MAX_PERMITS)),
            senders: Mutex::default(),
            wake_maintenance: Notify::new(),
            cluster,
            config,
        });
        let tasks = shared.cluster.tasks();
        tasks.spawn(maintenance::run(Arc::clone(&shared)));
        Self { shared }
    }

    /// Appends a record to its partition's batch. The partition is the given one, or the
    /// key's, or the sticky one. Waits only while `buffer.memory`, or the partition's share of
    /// it, is used up; cancel-safe.
    ///
    /// # Errors
    /// [`TooLarge`](ProduceError::TooLarge),
    /// [`InvalidPartition`](ProduceError::InvalidPartition),
    /// [`BufferExhausted`](ProduceError::BufferExhausted),
    /// [`Stopped`](ProduceError::Stopped); all others come through the future.
    pub async fn send(
        &self,
        topic: &Arc<TopicMetadata>,
        partition: Option<i32>,
        record: &NewRecord<'_>,
    ) -> Result<DeliveryFuture, ProduceError> {
        // Without a timer as long as there is nothing to wait for.
        if let Some(delivery) = self.try_send(topic, partition, record)? {
            return Ok(delivery);
        }
        let sent = self.shared.wait_and_append(topic, partition, record);
        timeout(self.shared.config.delivery_timeout, sent)
            .await
            .unwrap_or(Err(ProduceError::BufferExhausted))
    }

    /// As [`send`](Self::send), but `None` where that would wait.
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    #[inline]
    pub fn try_send(
        &self,
        topic: &Arc<TopicMetadata>,
        partition: Option<i32>,
        record: &NewRecord<'_>,
    ) -> Result<Option<DeliveryFuture>, ProduceError> {
        let memory = self.shared.memory_for(record)?;
        if !self.shared.try_allocate(memory)? {
            return Ok(None);
        }
        let waited = Waited::default();
        let appended = self
            .shared
            .append(topic, partition, record, memory, &waited);
        match appended {
            Ok(delivery) => Ok(Some(delivery)),
            Err(RecordAppendError::PartitionMemoryExhausted(_)) => Ok(None),
            Err(RecordAppendError::Refused(error)) => Err(error),
        }
    }

    /// Learns whether the topic has a partition that the metadata of before `asked_at` does not
    /// have: it may have been added since. Waits for a response for `delivery.timeout.ms`.
    ///
    /// # Errors
    /// [`InvalidPartition`](ProduceError::InvalidPartition),
    /// [`UnknownTopic`](ProduceError::UnknownTopic),
    /// [`NotAuthorized`](ProduceError::NotAuthorized),
    /// [`TimedOut`](ProduceError::TimedOut).
    pub async fn confirm_partition(
        &self,
        topic: &TopicMetadata,
        partition: i32,
        asked_at: Instant,
    ) -> Result<(), ProduceError> {
        let metadata = self.shared.cluster.metadata();
        let timeout = self.shared.config.delivery_timeout;
        topic_lookup::confirm_partition(metadata, topic, partition, asked_at, timeout).await
    }

    /// Sends what lingers, and waits until everything that was sent before this call has
    /// its result.
    pub async fn flush(&self) {
        let now = Instant::now();
        let results = self
            .shared
            .with_accumulator(|accumulator, effects| accumulator.flush(now, effects));
        for result in results {
            result.completed().await;
        }
    }

    /// Bytes of `buffer.memory` that are not in use.
    pub fn memory_available(&self) -> usize {
        self.shared.memory.available_permits()
    }
}

/// How long a record without key waits for one partition's share of memory before another
/// partition is tried.
const TRY_ELSEWHERE: Duration = Duration::from_secs(1);

/// Brokers recognise a duplicate among a producer's last five batches per partition.
const MAX_IN_FLIGHT: usize = 5;

/// What the producer's clones, its senders and its maintenance task share.
#[derive(Debug)]
struct ProducerShared {
    cluster: Cluster,
    config: ProducerConfig,
    accumulator: Mutex<RecordAccumulator>,
    /// Bytes of `buffer.memory` that are not in use.
    memory: Semaphore,
    /// Wakes each broker's sender.
    senders: Mutex<HashMap<BrokerId, Arc<Notify>>>,
    wake_maintenance: Notify,
}

/// How a caller has waited for memory.
#[derive(Debug, Default)]
struct Waited {
    /// Since when; the delivery timeout counts from there.
    since: Option<Instant>,
    turn: Option<PartitionMemoryTurn>,
}

impl ProducerShared {
    /// The bytes of `buffer.memory` that a record takes.
    #[inline]
    fn memory_for(&self, record: &NewRecord<'_>) -> Result<u32, ProduceError> {
        let size = batch_size_of(record);
        let limit = self.config.max_request_size.min(self.config.buffer_memory);
        match u32::try_from(size) {
            Ok(memory) if size <= limit => Ok(memory),
            _ => Err(ProduceError::TooLarge {
                size,
                limit: Some(limit),
            }),
        }
    }

    /// Takes memory if there is enough; returns whether there was.
    #[inline]
    fn try_allocate(&self, memory: u32) -> Result<bool, ProduceError> {
        match self.memory.try_acquire_many(memory) {
            Ok(permits) => {
                permits.forget();
                Ok(true)
            }
            Err(TryAcquireError::NoPermits) => Ok(false),
            Err(TryAcquireError::Closed) => Err(ProduceError::Stopped),
        }
    }

    /// Appends a record once there is memory for it, within its partition's share.
    async fn wait_and_append(
        self: &Arc<Self>,
        topic: &Arc<TopicMetadata>,
        partition: Option<i32>,
        record: &NewRecord<'_>,
    ) -> Result<DeliveryFuture, ProduceError> {
        let memory = self.memory_for(record)?;
        let may_go_elsewhere = partition.is_none() && record.key.is_none();
        let mut waited = Waited {
            since: Some(Instant::now()),
            turn: None,
        };
        loop {
            match self.memory.acquire_many(memory).await {
                Ok(permits) => permits.forget(),
                Err(_closed) => return Err(ProduceError::Stopped),
            }
            let waiters = match self.append(topic, partition, record, memory, &waited) {
                Ok(delivery) => return Ok(delivery),
                Err(RecordAppendError::Refused(error)) => return Err(error),
                Err(RecordAppendError::PartitionMemoryExhausted(waiters)) => waiters,
            };
            let turn = waiters.wait(waited.turn.take());
            waited.turn = match may_go_elsewhere {
                // Another partition may be available before this one is.
                true => timeout(TRY_ELSEWHERE, turn).await.ok(),
                false => Some(turn.await),
            };
        }
    }

    /// Appends a record, for which memory was allocated; gives that back if it cannot.
    fn append(
        self: &Arc<Self>,
        topic: &Arc<TopicMetadata>,
        partition: Option<i32>,
        record: &NewRecord<'_>,
        memory: u32,
        waited: &Waited,
    ) -> Result<DeliveryFuture, RecordAppendError> {
        let append = || {
            let memory = RecordMemory {
                taken: memory as usize,
                free: self.memory.available_permits(),
                turn: waited.turn.as_ref(),
                since: waited.since,
            };
            self.with_accumulator(|accumulator, effects| {
                accumulator.append(topic, partition, record, memory, Instant::now, effects)
            })
        };
        let appended = match append() {
            // The partition may have been added a moment ago.
            Err(RecordAppendError::Refused(ProduceError::InvalidPartition { .. }))
                if self.update_metadata() =>
            {
                append()
            }
            appended => appended,
        };
        if appended.is_err() {
            self.memory.add_permits(memory as usize);
        }
        appended
    }

    /// Lets the queues follow the newest metadata, if the maintenance task has not done so
    /// yet; returns whether there was something to follow.
    fn update_metadata(self: &Arc<Self>) -> bool {
        let snapshot = self.cluster.metadata().snapshot();
        let is_new = !lock(&self.accumulator).follows(&snapshot);
        if is_new {
            self.with_accumulator(|accumulator, effects| {
                accumulator.update_metadata(&snapshot, Instant::now(), effects);
            });
        }
        is_new
    }

    /// Works on the batches under the lock, and carries out the effects without it.
    fn with_accumulator<T>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut RecordAccumulator, &mut AccumulatorEffects) -> T,
    ) -> T {
        let mut effects = AccumulatorEffects::default();
        let result = work(&mut lock(&self.accumulator), &mut effects);
        let mut freed = 0;
        for batch in effects.finished {
            freed += batch.memory;
            if let Some(promise) = batch.promise {
                if batch.result.is_ok() {
                    let took = Instant::now().saturating_duration_since(batch.created);
                    let latency = &self.cluster.config().metrics.produce.latency;
                    latency.observe(took, u64::from(batch.sent_count));
                }
                promise.complete(batch.result);
            }
        }
        if freed > 0 {
            self.memory.add_permits(freed);
        }
        for broker in effects.wake_senders {
            self.wake_sender(broker);
        }
        for topic in effects.leaderless_topics {
            self.cluster.metadata().request_update_for_topic(&topic);
        }
        for waiters in effects.memory_waiters_to_wake {
            waiters.notify_freed();
        }
        if effects.wake_maintenance {
            self.wake_maintenance.notify_one();
        }
        result
    }

    fn has_ready(&self, broker: BrokerId) -> bool {
        lock(&self.accumulator).has_ready(broker)
    }

    /// Wakes the broker's sender; starts it when it is the first time.
    fn wake_sender(self: &Arc<Self>, broker: BrokerId) {
        let mut senders = lock(&self.senders);
        let wake = senders.entry(broker).or_insert_with(|| {
            let wake = Arc::new(Notify::new());
            let sender = sender::run(Arc::clone(self), broker, Arc::clone(&wake));
            self.cluster.tasks().spawn(sender);
            wake
        });
        wake.notify_one();
    }
}
