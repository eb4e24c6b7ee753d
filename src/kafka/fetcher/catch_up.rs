//! Fetches for cursors that are not at the tail: at once, without fetch sessions, within the
//! budget.
//!
//! ```text
//! partitions ──▶ read queue per broker ─▶ connection 0 ─▶ broker
//!                (ring polls first)   └─▶ connection 1 ─▶
//! ```
//!
//! Each of a broker's connections has a task that takes queued reads, acquires room for them,
//! and sends them in one request. While one response is decoded, the other is in flight.
//!
//! # Invariants
//! - A partition stands in a request at most once.
//! - Room for a read is acquired before it is sent, in the order asked. Reads ahead never
//!   wait for room, and ring polls take none here: what they bring belongs to the ring.
//! - Every read is answered, be it with [`CatchUpResult::NotSent`].
//! - A read that nobody waits for any more, because its partition has another leader by now,
//!   gives its room back at once; a request of such reads alone is abandoned.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use kafka_protocol::messages::FetchRequest;
use runtime::mutex::lock;
use tokio::sync::{Semaphore, oneshot};
use uuid::Uuid;

use super::budget::{BudgetPermit, BudgetPool};
use super::fetch_session::{FetchRequestData, FetchTarget};
use super::fetch_state::{ReadKind, ReadSpec};
use super::request::{self, FetchParams, FetchPartitionData};
use super::shared_partition::SharedPartition;
use crate::config::ConsumerConfig;
use crate::metadata::LeaderAndEpoch;
use crate::{BrokerId, Cluster, ConnectionPurpose, IsolationLevel, RequestError};

/// The catch-up reads of a fetcher, at all brokers.
#[derive(Debug)]
pub(super) struct CatchUpFetcher {
    cluster: Cluster,
    config: Arc<ConsumerConfig>,
    pool: Arc<BudgetPool>,
    ring_limit: usize,
    brokers: Mutex<HashMap<BrokerId, Arc<BrokerReadQueue>>>,
    /// Reads that are queued or in flight: they share the pool.
    pending: AtomicUsize,
}

/// A read that a partition asks for.
#[derive(Debug)]
pub(super) struct CatchUpRead {
    pub(super) partition: Arc<SharedPartition>,
    pub(super) spec: ReadSpec,
    pub(super) topic_id: Uuid,
    pub(super) leader_epoch: i32,
    /// No other read in its request: the only way to get a batch larger than the limits.
    pub(super) alone: bool,
}

/// What came of a [`CatchUpRead`].
#[derive(Debug)]
pub(super) enum CatchUpResult {
    /// The response, with the room acquired for it; a ring poll has none.
    Fetched(FetchPartitionData, Option<BudgetPermit>),
    /// No cursor waits for it any more, or there is no room for a read ahead.
    NotSent,
    /// The response left the partition out; the error code of the whole response.
    Missing(i16),
    /// There was no response.
    Failed(RequestError),
}

#[derive(Debug)]
struct BrokerReadQueue {
    reads: Mutex<VecDeque<QueuedRead>>,
    /// One permit per entry. Entries may be taken without one: a permit only says that it is
    /// worth looking.
    added: Semaphore,
}

#[derive(Debug)]
struct QueuedRead {
    read: CatchUpRead,
    result: oneshot::Sender<CatchUpResult>,
}

/// A read that goes into the next request.
struct SelectedRead {
    queued: QueuedRead,
    permit: Option<BudgetPermit>,
    max_bytes: usize,
}

impl CatchUpFetcher {
    pub(super) fn new(
        cluster: Cluster,
        config: Arc<ConsumerConfig>,
        pool: Arc<BudgetPool>,
        ring_limit: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            cluster,
            config,
            pool,
            ring_limit,
            brokers: Mutex::default(),
            pending: AtomicUsize::new(0),
        })
    }

    /// Reads at `leader`.
    pub(super) async fn read(
        self: &Arc<Self>,
        leader: LeaderAndEpoch,
        read: CatchUpRead,
    ) -> CatchUpResult {
        let queue = self.queue(leader.broker);
        let (result, response) = oneshot::channel();
        let ring_poll = matches!(read.spec.kind, ReadKind::RingPoll(_));
        let queued = QueuedRead { read, result };
        if ring_poll {
            lock(&queue.reads).push_front(queued);
        } else {
            lock(&queue.reads).push_back(queued);
        }
        queue.added.add_permits(1);
        let _pending = PendingCount::add_one(&self.pending);
        response
            .await
            .unwrap_or(CatchUpResult::Failed(RequestError::Stopped))
    }

    fn queue(self: &Arc<Self>, broker: BrokerId) -> Arc<BrokerReadQueue> {
        let mut brokers = lock(&self.brokers);
        let queue = brokers.entry(broker).or_insert_with(|| {
            let queue = Arc::new(BrokerReadQueue {
                reads: Mutex::default(),
                added: Semaphore::new(0),
            });
            for connection in 0..CONNECTIONS_PER_BROKER {
                let (this, queue) = (Arc::clone(self), Arc::clone(&queue));
                let stop = self.cluster.stop().clone();
                self.cluster.tasks().spawn(async move {
                    stop.run_until_cancelled(this.run(broker, connection, queue))
                        .await;
                });
            }
            queue
        });
        Arc::clone(queue)
    }

    async fn run(&self, broker: BrokerId, connection: u8, queue: Arc<BrokerReadQueue>) {
        loop {
            if let Ok(added) = queue.added.acquire().await {
                added.forget();
            }
            let Some(first) = lock(&queue.reads).pop_front() else {
                continue;
            };
            let Some(first) = self.select_first(first).await else {
                continue;
            };
            let selected = self.select_others(first, &queue);
            let purpose = ConnectionPurpose::CatchUp(connection);
            self.fetch(broker, purpose, selected).await;
        }
    }

    /// Acquires room, and waits for it if a cursor waits for the read.
    async fn select_first(&self, queued: QueuedRead) -> Option<SelectedRead> {
        let (max_bytes, cost) = self.size(&queued.read);
        if queued.result.is_closed() {
            return None;
        }
        let permit = match queued.read.spec.kind {
            ReadKind::RingPoll(_) => None,
            _ if queued.is_awaited() => Some(self.pool.acquire(cost).await),
            _ => match self.pool.try_acquire(cost) {
                Some(permit) => Some(permit),
                None => {
                    queued.complete(CatchUpResult::NotSent);
                    return None;
                }
            },
        };
        // It may have waited long.
        if !queued.is_awaited() && !matches!(queued.read.spec.kind, ReadKind::ReadAhead(_)) {
            queued.complete(CatchUpResult::NotSent);
            return None;
        }
        Some(SelectedRead {
            queued,
            permit,
            max_bytes,
        })
    }

    /// Adds the other queued reads that fit and that there is room for now.
    fn select_others(&self, first: SelectedRead, queue: &BrokerReadQueue) -> Vec<SelectedRead> {
        let mut selected = vec![first];
        if selected[0].queued.read.alone {
            return selected;
        }
        let isolation = selected[0].queued.read.partition.isolation;
        let mut bytes = selected[0].max_bytes;
        let mut partitions = HashSet::from([selected[0].queued.read.partition.tp.clone()]);
        let mut left = VecDeque::new();
        let mut reads = lock(&queue.reads);
        while let Some(next) = reads.pop_front() {
            let read = &next.read;
            let (max_bytes, cost) = self.size(read);
            let fits = bytes + max_bytes <= self.config.fetch_max_bytes as usize
                && partitions.len() < PARTITIONS_MAX
                && !read.alone
                && read.partition.isolation == isolation
                && !partitions.contains(&read.partition.tp);
            let permit = match (fits, read.spec.kind) {
                (true, ReadKind::RingPoll(_)) => Ok(None),
                (true, _) => self.pool.try_acquire(cost).map(Some).ok_or(()),
                (false, _) => Err(()),
            };
            match permit {
                Ok(permit) => {
                    bytes += max_bytes;
                    partitions.insert(read.partition.tp.clone());
                    selected.push(SelectedRead {
                        queued: next,
                        permit,
                        max_bytes,
                    });
                }
                Err(()) => left.push_back(next),
            }
            if partitions.len() >= PARTITIONS_MAX {
                break;
            }
        }
        left.append(&mut reads);
        *reads = left;
        selected
    }

    async fn fetch(
        &self,
        broker: BrokerId,
        purpose: ConnectionPurpose,
        selected: Vec<SelectedRead>,
    ) {
        let mut reads = Vec::with_capacity(selected.len());
        let mut results = Vec::with_capacity(selected.len());
        for selected in selected {
            let QueuedRead { read, result } = selected.queued;
            reads.push((read, selected.max_bytes));
            results.push((result, selected.permit));
        }
        let metadata = self.cluster.metadata();
        let response = self.request(broker, purpose, &reads);
        let response = request::while_not_overdue(metadata, request::OVERDUE_AFTER, response);
        let mut response = tokio::select! {
            response = response => response,
            () = all_abandoned(&mut results) => return,
        };
        for ((read, _), (result, permit)) in reads.into_iter().zip(results) {
            let answer = match &mut response {
                Ok(response) => match response.by_partition.remove(&read.partition.tp) {
                    Some(data) => CatchUpResult::Fetched(data, permit),
                    None => CatchUpResult::Missing(response.error),
                },
                Err(error) => CatchUpResult::Failed(error.clone()),
            };
            // The reader may be gone; the permit returns with the result.
            let _ = result.send(answer);
        }
    }

    async fn request(
        &self,
        broker: BrokerId,
        purpose: ConnectionPurpose,
        selected: &[(CatchUpRead, usize)],
    ) -> Result<CatchUpResponse, RequestError> {
        let connection = self.cluster.connection(broker, purpose).await?;
        let reads = || selected.iter().map(|(read, _)| read);
        let ids = reads().all(|read| !read.topic_id.is_nil());
        let version = request::version(&connection, ids)?;
        let isolation = reads()
            .next()
            .map_or(IsolationLevel::default(), |first| first.partition.isolation);
        let data = FetchRequestData {
            session_id: 0,
            session_epoch: -1,
            to_send: selected.iter().map(fetch_target).collect(),
            to_forget: Vec::new(),
        };
        let bytes: usize = selected.iter().map(|(_, max_bytes)| max_bytes).sum();
        let params = FetchParams {
            max_wait_ms: 0,
            min_bytes: 0,
            max_bytes: request::clamp_to_i32(bytes.min(self.config.fetch_max_bytes as usize)),
            isolation,
        };
        let names = reads()
            .map(|read| (read.topic_id, Arc::clone(&read.partition.tp.topic)))
            .collect();
        let fetch: FetchRequest = request::build(version, params, &data);
        let timeout = self.cluster.config().request_timeout;
        let response = connection.send(version, &fetch, timeout).await?.await?;
        let error = response.error_code;
        let metadata = self.cluster.metadata();
        Ok(CatchUpResponse {
            error,
            by_partition: request::parse_response(version, isolation, response, &names, metadata),
        })
    }

    /// Bytes to ask for, and the room that they take. All pending reads share the pool.
    fn size(&self, read: &CatchUpRead) -> (usize, usize) {
        let most = self.config.max_partition_fetch_bytes.max(1) as usize;
        if let ReadKind::RingPoll(_) = read.spec.kind {
            return (most.min(self.ring_limit / 8).max(1), 0);
        }
        let pending = self.pending.load(Ordering::Relaxed).max(1);
        let share = self.pool.limit() / 2 / pending;
        let bytes = share
            .clamp(READ_BYTES_MIN, READ_BYTES_MIN.max(most))
            .min(most);
        let estimator = &read.partition.size_estimator;
        let (cost, limit) = (estimator.total_bytes(bytes), self.pool.limit() / 2);
        if cost <= limit {
            return (bytes, cost);
        }
        // Integer arithmetic in this order cannot overflow for any sane limit.
        let bytes = (bytes as u128 * limit as u128 / cost as u128) as usize;
        (bytes.max(1), limit.max(1))
    }
}

struct CatchUpResponse {
    error: i16,
    by_partition: HashMap<crate::TopicPartition, FetchPartitionData>,
}

impl QueuedRead {
    fn is_awaited(&self) -> bool {
        lock(&self.read.partition.fetch_state).is_awaited(self.read.spec.kind)
    }

    fn complete(self, result: CatchUpResult) {
        // The reader may be gone; the permit returns with the result.
        let _ = self.result.send(result);
    }
}

fn fetch_target((read, max_bytes): &(CatchUpRead, usize)) -> FetchTarget {
    FetchTarget {
        tp: read.partition.tp.clone(),
        topic_id: read.topic_id,
        fetch_offset: read.spec.offset,
        current_leader_epoch: read.leader_epoch,
        max_bytes: request::clamp_to_i32(*max_bytes),
    }
}

/// Completes when nobody waits for any of these. Each gives back its room before.
async fn all_abandoned(results: &mut [(oneshot::Sender<CatchUpResult>, Option<BudgetPermit>)]) {
    std::future::poll_fn(|cx| {
        let mut all = Poll::Ready(());
        for (result, permit) in results.iter_mut() {
            match result.poll_closed(cx) {
                Poll::Ready(()) => *permit = None,
                Poll::Pending => all = Poll::Pending,
            }
        }
        all
    })
    .await;
}

/// Counts one read as pending as long as it lives.
struct PendingCount<'a>(&'a AtomicUsize);

impl<'a> PendingCount<'a> {
    fn add_one(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for PendingCount<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Connections per broker.
const CONNECTIONS_PER_BROKER: u8 = 2;
/// Partitions in one request at most.
const PARTITIONS_MAX: usize = 256;
/// However many reads are pending, none asks for less than this.
const READ_BYTES_MIN: usize = 16 << 10;
