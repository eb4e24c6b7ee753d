//! Fetches for cursors that are not at the tail: at once, without fetch sessions, within the
//! budget.
//!
//! ```text
//! partitions ──▶ fetch queue per broker ─▶ memory ─┬─▶ connection 0 ─▶ broker
//!            └─▶ handover queue per broker ─────────┴─▶ connection 1 ─▶
//! ```
//!
//! Each of a broker's connections has a task that takes queued fetches, acquires room for them,
//! and sends them in one request. While one response is decoded, the other is in flight.
//!
//! # Invariants
//! - A partition stands in a request at most once.
//! - Room for a fetch is acquired before it is sent, in the order asked. Prefetches never
//!   wait for room, and handover fetches take none here: what they bring belongs to the tail
//!   cache.
//! - A fetch that waits for room holds up only others that need room. Handover fetches, which
//!   need none, are sent meanwhile: what readers hold of one partition keeps nobody from the end
//!   of another.
//! - Every fetch is answered, be it with [`CatchUpFetchResult::NotSent`].
//! - A fetch that nobody waits for any more, because its partition has another leader by now,
//!   gives its room back at once, be it on its way or behind another that is; a request of such
//!   fetches alone is abandoned.

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use futures_util::future::{BoxFuture, FutureExt};
use kafka_protocol::messages::FetchRequest;
use runtime::mutex::lock;
use tokio::sync::{Semaphore, oneshot};
use uuid::Uuid;

use super::budget::{BudgetPermit, BudgetPool};
use super::cut_response::CutResponse;
use super::fetch_session::{FetchRequestData, FetchTarget};
use super::fetch_state::{FetchKind, FetchSpec};
use super::request::{self, FetchParams, FetchPartitionData};
use super::shared_partition::SharedPartition;
use crate::config::ConsumerConfig;
use crate::metadata::{LeaderAndEpoch, OVERDUE_AFTER};
use crate::{BrokerId, Cluster, ConnectionPurpose, IsolationLevel, RequestError};

/// Sends the catch-up fetches of a fetcher, to all brokers.
#[derive(Debug)]
pub(super) struct CatchUpFetcher {
    cluster: Cluster,
    config: Arc<ConsumerConfig>,
    pool: Arc<BudgetPool>,
    tail_limit: usize,
    brokers: Mutex<HashMap<BrokerId, Arc<BrokerFetchQueue>>>,
    /// Fetches that are queued or in flight: they share the pool.
    pending: AtomicUsize,
}

/// One partition's part of a Fetch request, as its task queues it for a broker.
#[derive(Debug)]
pub(super) struct CatchUpFetch {
    pub(super) partition: Arc<SharedPartition>,
    pub(super) spec: FetchSpec,
    pub(super) topic_id: Uuid,
    pub(super) leader_epoch: i32,
    /// In a request of its own: the only way to get a batch larger than the limits.
    pub(super) exclusive: bool,
}

/// What came of a [`CatchUpFetch`].
#[derive(Debug)]
pub(super) enum CatchUpFetchResult {
    /// The response, with the room acquired for it; a handover fetch has none.
    Fetched(FetchPartitionData, Option<BudgetPermit>),
    /// No cursor waits for it any more, or there is no room for a prefetch.
    NotSent,
    /// The response left the partition out; the error code of the whole response.
    Missing(i16),
    /// There was no response.
    Failed(RequestError),
}

#[derive(Debug)]
struct BrokerFetchQueue {
    /// Fetches that need memory.
    fetches: FetchQueue,
    /// Handover fetches, which need none.
    handovers: FetchQueue,
}

#[derive(Debug)]
struct FetchQueue {
    queued: Mutex<VecDeque<QueuedFetch>>,
    /// One permit per entry. Entries may be taken without one: a permit only says that it is
    /// worth looking.
    added: Semaphore,
}

#[derive(Debug)]
struct QueuedFetch {
    fetch: CatchUpFetch,
    result: oneshot::Sender<CatchUpFetchResult>,
}

/// A queued fetch that goes into the next request, and the room acquired for it.
struct SelectedFetch {
    queued: QueuedFetch,
    permit: Option<BudgetPermit>,
    max_bytes: usize,
}

impl CatchUpFetcher {
    pub(super) fn new(
        cluster: Cluster,
        config: Arc<ConsumerConfig>,
        pool: Arc<BudgetPool>,
        tail_limit: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            cluster,
            config,
            pool,
            tail_limit,
            brokers: Mutex::default(),
            pending: AtomicUsize::new(0),
        })
    }

    /// Fetches from `leader`.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        leader: LeaderAndEpoch,
        fetch: CatchUpFetch,
    ) -> CatchUpFetchResult {
        let queue = self.queue(leader.broker);
        let (result, response) = oneshot::channel();
        let is_handover = matches!(fetch.spec.kind, FetchKind::Handover(_));
        let queued = QueuedFetch { fetch, result };
        match is_handover {
            true => queue.handovers.push(queued),
            false => queue.fetches.push(queued),
        }
        let _pending = PendingCount::add_one(&self.pending);
        response
            .await
            .unwrap_or(CatchUpFetchResult::Failed(RequestError::Stopped))
    }

    fn queue(self: &Arc<Self>, broker: BrokerId) -> Arc<BrokerFetchQueue> {
        let mut brokers = lock(&self.brokers);
        let queue = brokers.entry(broker).or_insert_with(|| {
            let queue = Arc::new(BrokerFetchQueue {
                fetches: FetchQueue::new(),
                handovers: FetchQueue::new(),
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

    async fn run(&self, broker: BrokerId, connection: u8, queue: Arc<BrokerFetchQueue>) {
        let purpose = ConnectionPurpose::CatchUp(connection);
        let mut waiting = WaitingFetch::None;
        loop {
            let first = tokio::select! {
                handover = queue.handovers.pop() => handover.and_then(|queued| self.select_handover(queued)),
                selected = waiting.selected() => selected,
                first = queue.fetches.pop(), if waiting.is_none() => {
                    if let Some(first) = first {
                        waiting = WaitingFetch::ForRoom(self.acquire_room(first).boxed());
                    }
                    continue;
                }
            };
            if let Some(first) = first {
                let selected = self.select_others(first, &queue);
                tokio::select! {
                    () = self.send_selected(broker, purpose, selected) => {}
                    never = waiting.keep_place() => match never {},
                }
            }
        }
    }

    /// `None`: it is not sent, for nobody waits for it any more.
    fn select_handover(&self, queued: QueuedFetch) -> Option<SelectedFetch> {
        let (max_bytes, _) = self.size(&queued.fetch);
        (!queued.result.is_closed()).then_some(SelectedFetch {
            queued,
            permit: None,
            max_bytes,
        })
    }

    /// Acquires room, and waits for it if a cursor waits for the fetch. `None`: it is not sent.
    async fn acquire_room(&self, mut queued: QueuedFetch) -> Option<SelectedFetch> {
        let (max_bytes, cost) = self.size(&queued.fetch);
        let permit = if queued.is_awaited() {
            tokio::select! {
                permit = self.pool.acquire(cost) => permit,
                () = queued.result.closed() => return None,
            }
        } else {
            match self.pool.try_acquire(cost) {
                Some(permit) => permit,
                None => {
                    queued.complete(CatchUpFetchResult::NotSent);
                    return None;
                }
            }
        };
        // It may have waited long.
        if !queued.is_awaited() && !matches!(queued.fetch.spec.kind, FetchKind::Prefetch(_)) {
            queued.complete(CatchUpFetchResult::NotSent);
            return None;
        }
        Some(SelectedFetch {
            queued,
            permit: Some(permit),
            max_bytes,
        })
    }

    /// Adds the other queued fetches that fit and that there is room for now.
    fn select_others(&self, first: SelectedFetch, queue: &BrokerFetchQueue) -> Vec<SelectedFetch> {
        let mut selected = vec![first];
        if selected[0].queued.fetch.exclusive {
            return selected;
        }
        let isolation = selected[0].queued.fetch.partition.isolation;
        let mut bytes = selected[0].max_bytes;
        let mut partitions = HashSet::from([selected[0].queued.fetch.partition.tp.clone()]);
        for queue in [&queue.handovers, &queue.fetches] {
            let mut left = VecDeque::new();
            let mut queued = lock(&queue.queued);
            while let Some(next) = queued.pop_front() {
                let fetch = &next.fetch;
                let (max_bytes, cost) = self.size(fetch);
                let fits = bytes + max_bytes <= self.config.fetch_max_bytes as usize
                    && partitions.len() < PARTITIONS_MAX
                    && !fetch.exclusive
                    && fetch.partition.isolation == isolation
                    && !partitions.contains(&fetch.partition.tp);
                let permit = match (fits, fetch.spec.kind) {
                    (true, FetchKind::Handover(_)) => Ok(None),
                    (true, _) => self.pool.try_acquire(cost).map(Some).ok_or(()),
                    (false, _) => Err(()),
                };
                match permit {
                    Ok(permit) => {
                        bytes += max_bytes;
                        partitions.insert(fetch.partition.tp.clone());
                        selected.push(SelectedFetch {
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
            left.append(&mut queued);
            *queued = left;
        }
        selected
    }

    async fn send_selected(
        &self,
        broker: BrokerId,
        purpose: ConnectionPurpose,
        selected: Vec<SelectedFetch>,
    ) {
        let mut fetches = Vec::with_capacity(selected.len());
        let mut results = Vec::with_capacity(selected.len());
        for selected in selected {
            let QueuedFetch { fetch, result } = selected.queued;
            fetches.push((fetch, selected.max_bytes));
            results.push((result, selected.permit));
        }
        let metadata = self.cluster.metadata();
        let response = self.request(broker, purpose, &fetches);
        let response = request::await_requesting_metadata(metadata, OVERDUE_AFTER, response);
        let mut response = tokio::select! {
            response = response => response,
            () = all_abandoned(&mut results) => return,
        };
        for ((fetch, _), (result, permit)) in fetches.into_iter().zip(results) {
            let answer = match &mut response {
                Ok(response) => match response.by_partition.remove(&fetch.partition.tp) {
                    Some(data) => CatchUpFetchResult::Fetched(data, permit),
                    None => CatchUpFetchResult::Missing(response.error),
                },
                Err(error) => CatchUpFetchResult::Failed(error.clone()),
            };
            // The reader may be gone; the permit returns with the result.
            let _ = result.send(answer);
        }
    }

    async fn request(
        &self,
        broker: BrokerId,
        purpose: ConnectionPurpose,
        selected: &[(CatchUpFetch, usize)],
    ) -> Result<CatchUpResponse, RequestError> {
        let connection = self.cluster.connection(broker, purpose).await?;
        let fetches = || selected.iter().map(|(fetch, _)| fetch);
        let ids = fetches().all(|fetch| !fetch.topic_id.is_nil());
        let version = request::version(&connection, ids)?;
        let isolation = fetches()
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
        let names: HashMap<Uuid, Arc<str>> = fetches()
            .map(|fetch| (fetch.topic_id, Arc::clone(&fetch.partition.tp.topic)))
            .collect();
        let name = |id: &Uuid| names.get(id).cloned();
        let fetch: FetchRequest = request::build(version, params, &data);
        let timeout = self.cluster.config().request_timeout;
        let response = connection.send(version, &fetch, timeout).await?.await;
        let (response, batch_bytes_max) = match response {
            Ok(response) => (response, None),
            Err(error) => {
                let cut = CutResponse::of(&error, version).filter(|_| selected.len() == 1);
                let cut = cut.ok_or(error)?;
                (cut.response, Some(cut.batch_bytes_max))
            }
        };
        let error = response.error_code;
        let metadata = self.cluster.metadata();
        let mut by_partition =
            request::parse_response(version, isolation, response, name, metadata);
        for data in by_partition.values_mut() {
            data.batch_bytes_max = batch_bytes_max;
        }
        Ok(CatchUpResponse {
            error,
            by_partition,
        })
    }

    /// Bytes to ask for, and the room that they take. All pending fetches share the pool.
    fn size(&self, fetch: &CatchUpFetch) -> (usize, usize) {
        let most = self.config.max_partition_fetch_bytes.max(1) as usize;
        if let FetchKind::Handover(_) = fetch.spec.kind {
            return (most.min(self.tail_limit / 8).max(1), 0);
        }
        let pending = self.pending.load(Ordering::Relaxed).max(1);
        let share = self.pool.limit() / 2 / pending;
        let bytes = share
            .clamp(FETCH_BYTES_MIN, FETCH_BYTES_MIN.max(most))
            .min(most);
        let estimator = &fetch.partition.size_estimator;
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

impl FetchQueue {
    fn new() -> Self {
        Self {
            queued: Mutex::default(),
            added: Semaphore::new(0),
        }
    }

    fn push(&self, fetch: QueuedFetch) {
        lock(&self.queued).push_back(fetch);
        self.added.add_permits(1);
    }

    /// The oldest entry, once one was added; `None` if another task was faster. Cancel-safe.
    async fn pop(&self) -> Option<QueuedFetch> {
        if let Ok(added) = self.added.acquire().await {
            added.forget();
        }
        lock(&self.queued).pop_front()
    }
}

/// The fetch that a connection's task has taken from the queue to send it next.
enum WaitingFetch<'a> {
    None,
    ForRoom(BoxFuture<'a, Option<SelectedFetch>>),
    /// It has its room.
    ForConnection(SelectedFetch),
}

impl WaitingFetch<'_> {
    fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// The fetch, once it has its room; `None` if nobody waits for it any more. Pends while there
    /// is none. Cancel-safe.
    async fn selected(&mut self) -> Option<SelectedFetch> {
        if self.is_none() {
            std::future::pending::<()>().await;
        }
        self.acquire().await;
        match std::mem::replace(self, Self::None) {
            Self::ForConnection(selected) => Some(selected),
            Self::None | Self::ForRoom(_) => None,
        }
    }

    /// For as long as the connection is in use: keeps the fetch's place among those that wait for
    /// room, which holds up the ones behind it, and gives its room back as soon as nobody waits
    /// for it. Cancel-safe.
    async fn keep_place(&mut self) -> Infallible {
        self.acquire().await;
        if let Self::ForConnection(selected) = self {
            selected.queued.result.closed().await;
            *self = Self::None;
        }
        std::future::pending().await
    }

    /// Waits until it has its room, or is not there any more.
    async fn acquire(&mut self) {
        if let Self::ForRoom(acquired) = self {
            *self = match acquired.await {
                Some(selected) => Self::ForConnection(selected),
                None => Self::None,
            };
        }
    }
}

impl QueuedFetch {
    fn is_awaited(&self) -> bool {
        lock(&self.fetch.partition.fetch_state).is_awaited(self.fetch.spec.kind)
    }

    fn complete(self, result: CatchUpFetchResult) {
        // The reader may be gone; the permit returns with the result.
        let _ = self.result.send(result);
    }
}

fn fetch_target((fetch, max_bytes): &(CatchUpFetch, usize)) -> FetchTarget {
    FetchTarget {
        tp: fetch.partition.tp.clone(),
        topic_id: fetch.topic_id,
        fetch_offset: fetch.spec.offset,
        current_leader_epoch: fetch.leader_epoch,
        max_bytes: request::clamp_to_i32(*max_bytes),
    }
}

/// Completes when nobody waits for any of these. Each gives back its room before.
async fn all_abandoned(
    results: &mut [(oneshot::Sender<CatchUpFetchResult>, Option<BudgetPermit>)],
) {
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

/// Counts one fetch as pending as long as it lives.
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
/// However many fetches are pending, none asks for less than this.
const FETCH_BYTES_MIN: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;
    use crate::TopicPartition;

    fn queued() -> (QueuedFetch, oneshot::Receiver<CatchUpFetchResult>) {
        let (result, received) = oneshot::channel();
        let isolation = IsolationLevel::ReadUncommitted;
        let fetch = CatchUpFetch {
            partition: SharedPartition::new(TopicPartition::new("t", 0), isolation, Arc::default()),
            spec: FetchSpec {
                offset: 0,
                validate_epoch: None,
                kind: FetchKind::Requested(1),
            },
            topic_id: Uuid::nil(),
            leader_epoch: 0,
            exclusive: false,
        };
        (QueuedFetch { fetch, result }, received)
    }

    /// Polls, as though a request were under way.
    fn poll_while_sending(waiting: &mut WaitingFetch<'_>) {
        let never = pin!(waiting.keep_place());
        let polled = never.poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
    }

    #[tokio::test]
    async fn a_fetch_that_waits_while_another_is_under_way_keeps_its_place_and_gives_its_room_back()
    {
        let pool = BudgetPool::new(100);
        let held = pool.acquire(100).await;
        let (queued, received) = queued();
        let acquire = {
            let pool = Arc::clone(&pool);
            async move {
                Some(SelectedFetch {
                    queued,
                    permit: Some(pool.acquire(60).await),
                    max_bytes: 10,
                })
            }
        };
        let mut waiting = WaitingFetch::ForRoom(acquire.boxed());
        poll_while_sending(&mut waiting);
        drop(held);
        poll_while_sending(&mut waiting);
        assert!(matches!(waiting, WaitingFetch::ForConnection(_)));
        assert_eq!(pool.used(), 60);
        drop(received);
        poll_while_sending(&mut waiting);
        assert!(waiting.is_none());
        assert_eq!(pool.used(), 0, "nobody waits for it");
    }
}
