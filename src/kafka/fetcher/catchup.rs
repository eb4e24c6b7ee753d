//! Reads for those who are not at the tail: at once, without sessions, within the budget.
//!
//! ```text
//! partitions ─▶ queue per broker ─▶ lane 0 ─▶ broker
//!               (polls first)   └─▶ lane 1 ─▶
//! ```
//!
//! Each lane takes what waits, acquires room for it, and asks for all of it in one
//! request. While one lane's answer is decoded, the other is on its way.
//!
//! # Invariants
//! - A partition stands in a request at most once.
//! - Room for a read is acquired before it is sent, in the order asked. Reads ahead of
//!   time never wait for room, and polls at a ring's end take none here: what they bring
//!   belongs to the ring.
//! - Everything asked is answered, be it with [`Read::NotNow`].

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use kafka_protocol::messages::FetchRequest;
use tokio::sync::{Semaphore, oneshot};
use uuid::Uuid;

use super::budget::{BudgetPermit, BudgetPool};
use super::feed::{Spec, What};
use super::partition::Partition;
use super::request::{self, Fetched, Terms};
use super::session::{Plan, Wanted};
use crate::config::ConsumerConfig;
use crate::lock::lock;
use crate::metadata::LeaderAndEpoch;
use crate::{BrokerId, Cluster, ConnectionPurpose, IsolationLevel, RequestError};

/// See the module.
#[derive(Debug)]
pub(super) struct CatchUp {
    cluster: Cluster,
    config: Arc<ConsumerConfig>,
    pool: Arc<BudgetPool>,
    ring_limit: usize,
    brokers: Mutex<HashMap<BrokerId, Arc<Queue>>>,
    /// Reads that are asked and not answered: they share the pool.
    asked: AtomicUsize,
}

/// What a partition wants read.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) partition: Arc<Partition>,
    pub(super) spec: Spec,
    pub(super) topic_id: Uuid,
    pub(super) leader_epoch: i32,
    /// Nothing else in its request: the only way to get a batch larger than the limits.
    pub(super) alone: bool,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Read {
    /// An answer, with the room acquired for it; a poll has none.
    Fetched(Fetched, Option<BudgetPermit>),
    /// Nobody waits for it any more, or there is no room for a read ahead of time.
    NotNow,
    /// The answer did not speak of the partition, or was an error as a whole.
    Refused(i16),
    /// There was no answer.
    Failed(RequestError),
}

#[derive(Debug)]
struct Queue {
    waiting: Mutex<VecDeque<Waiting>>,
    /// One permit per entry; entries may be taken without one, so it says "look".
    news: Semaphore,
}

#[derive(Debug)]
struct Waiting {
    ask: Ask,
    answer: oneshot::Sender<Read>,
}

/// One that goes into the next request.
struct Chosen {
    waiting: Waiting,
    permit: Option<BudgetPermit>,
    max_bytes: usize,
}

impl CatchUp {
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
            asked: AtomicUsize::new(0),
        })
    }

    /// Reads at `leader`.
    pub(super) async fn read(self: &Arc<Self>, leader: LeaderAndEpoch, ask: Ask) -> Read {
        let queue = self.queue(leader.broker);
        let (answer, answered) = oneshot::channel();
        let poll = matches!(ask.spec.what, What::Poll(_));
        let waiting = Waiting { ask, answer };
        if poll {
            lock(&queue.waiting).push_front(waiting);
        } else {
            lock(&queue.waiting).push_back(waiting);
        }
        queue.news.add_permits(1);
        let _counted = Counted::new(&self.asked);
        answered
            .await
            .unwrap_or(Read::Failed(RequestError::Stopped))
    }

    fn queue(self: &Arc<Self>, broker: BrokerId) -> Arc<Queue> {
        let mut brokers = lock(&self.brokers);
        let queue = brokers.entry(broker).or_insert_with(|| {
            let queue = Arc::new(Queue {
                waiting: Mutex::default(),
                news: Semaphore::new(0),
            });
            for lane in 0..LANES {
                let (this, queue) = (Arc::clone(self), Arc::clone(&queue));
                let stop = self.cluster.stop().clone();
                self.cluster.tasks().spawn(async move {
                    stop.run_until_cancelled(this.run(broker, lane, queue))
                        .await;
                });
            }
            queue
        });
        Arc::clone(queue)
    }

    async fn run(&self, broker: BrokerId, lane: u8, queue: Arc<Queue>) {
        loop {
            if let Ok(news) = queue.news.acquire().await {
                news.forget();
            }
            let Some(first) = lock(&queue.waiting).pop_front() else {
                continue;
            };
            let Some(first) = self.choose_first(first).await else {
                continue;
            };
            let chosen = self.join_others(first, &queue);
            self.serve(broker, ConnectionPurpose::CatchUp(lane), chosen)
                .await;
        }
    }

    /// Acquires room, and waits for it if somebody waits for the read.
    async fn choose_first(&self, waiting: Waiting) -> Option<Chosen> {
        let (max_bytes, cost) = self.size(&waiting.ask);
        if waiting.answer.is_closed() {
            return None;
        }
        let permit = match waiting.ask.spec.what {
            What::Poll(_) => None,
            _ if waiting.is_awaited() => Some(self.pool.acquire(cost).await),
            _ => match self.pool.try_acquire(cost) {
                Some(permit) => Some(permit),
                None => return waiting.answer(Read::NotNow),
            },
        };
        // It may have waited long.
        if !waiting.is_awaited() && !matches!(waiting.ask.spec.what, What::Ahead(_)) {
            return waiting.answer(Read::NotNow);
        }
        Some(Chosen {
            waiting,
            permit,
            max_bytes,
        })
    }

    /// Adds what else waits and has room now.
    fn join_others(&self, first: Chosen, queue: &Queue) -> Vec<Chosen> {
        let mut chosen = vec![first];
        if chosen[0].waiting.ask.alone {
            return chosen;
        }
        let isolation = chosen[0].waiting.ask.partition.isolation;
        let mut bytes = chosen[0].max_bytes;
        let mut partitions = HashSet::from([chosen[0].waiting.ask.partition.tp.clone()]);
        let mut left = VecDeque::new();
        let mut waiting = lock(&queue.waiting);
        while let Some(next) = waiting.pop_front() {
            let ask = &next.ask;
            let (max_bytes, cost) = self.size(ask);
            let fits = bytes + max_bytes <= self.config.fetch_max_bytes as usize
                && partitions.len() < PARTITIONS
                && !ask.alone
                && ask.partition.isolation == isolation
                && !partitions.contains(&ask.partition.tp);
            let permit = match (fits, ask.spec.what) {
                (true, What::Poll(_)) => Ok(None),
                (true, _) => self.pool.try_acquire(cost).map(Some).ok_or(()),
                (false, _) => Err(()),
            };
            match permit {
                Ok(permit) => {
                    bytes += max_bytes;
                    partitions.insert(ask.partition.tp.clone());
                    chosen.push(Chosen {
                        waiting: next,
                        permit,
                        max_bytes,
                    });
                }
                Err(()) => left.push_back(next),
            }
            if partitions.len() >= PARTITIONS {
                break;
            }
        }
        left.append(&mut waiting);
        *waiting = left;
        chosen
    }

    async fn serve(&self, broker: BrokerId, lane: ConnectionPurpose, chosen: Vec<Chosen>) {
        match self.request(broker, lane, &chosen).await {
            Ok(mut answers) => {
                for Chosen {
                    waiting, permit, ..
                } in chosen
                {
                    let read = match answers.by_partition.remove(&waiting.ask.partition.tp) {
                        Some(fetched) => Read::Fetched(fetched, permit),
                        None => Read::Refused(answers.error),
                    };
                    waiting.answer::<()>(read);
                }
            }
            Err(error) => {
                for Chosen { waiting, .. } in chosen {
                    waiting.answer::<()>(Read::Failed(error.clone()));
                }
            }
        }
    }

    async fn request(
        &self,
        broker: BrokerId,
        lane: ConnectionPurpose,
        chosen: &[Chosen],
    ) -> Result<Answers, RequestError> {
        let connection = self.cluster.connection(broker, lane).await?;
        let asks = || chosen.iter().map(|chosen| &chosen.waiting.ask);
        let ids = asks().all(|ask| !ask.topic_id.is_nil());
        let version = request::version(&connection, ids)?;
        let isolation = chosen.first().map_or(IsolationLevel::default(), |first| {
            first.waiting.ask.partition.isolation
        });
        let plan = Plan {
            session_id: 0,
            session_epoch: -1,
            fetch: chosen.iter().map(Chosen::wanted).collect(),
            forget: Vec::new(),
        };
        let bytes: usize = chosen.iter().map(|chosen| chosen.max_bytes).sum();
        let terms = Terms {
            max_wait_ms: 0,
            min_bytes: 0,
            max_bytes: bounded(bytes.min(self.config.fetch_max_bytes as usize)),
            isolation,
        };
        let names = asks()
            .map(|ask| (ask.topic_id, Arc::clone(&ask.partition.tp.topic)))
            .collect();
        let fetch: FetchRequest = request::build(version, terms, &plan);
        let timeout = self.cluster.config().request_timeout;
        let response = connection.send(version, &fetch, timeout).await?.await?;
        let error = response.error_code;
        let metadata = self.cluster.metadata();
        Ok(Answers {
            error,
            by_partition: request::take(version, isolation, response, &names, metadata),
        })
    }

    /// Bytes to ask for, and the room that takes. All who read share the pool.
    fn size(&self, ask: &Ask) -> (usize, usize) {
        let most = self.config.max_partition_fetch_bytes.max(1) as usize;
        if let What::Poll(_) = ask.spec.what {
            return (most.min(self.ring_limit / 8).max(1), 0);
        }
        let readers = self.asked.load(Ordering::Relaxed).max(1);
        let share = self.pool.limit() / 2 / readers;
        let bytes = share.clamp(READ_MIN, READ_MIN.max(most)).min(most);
        let estimator = &ask.partition.size_estimator;
        let (cost, limit) = (estimator.total_bytes(bytes), self.pool.limit() / 2);
        if cost <= limit {
            return (bytes, cost);
        }
        // Integer arithmetic in this order cannot overflow for any sane limit.
        let bytes = (bytes as u128 * limit as u128 / cost as u128) as usize;
        (bytes.max(1), limit.max(1))
    }
}

struct Answers {
    error: i16,
    by_partition: HashMap<crate::TopicPartition, Fetched>,
}

impl Waiting {
    fn is_awaited(&self) -> bool {
        lock(&self.ask.partition.feed).is_awaited(self.ask.spec.what)
    }

    /// Returns `None`, of whatever.
    fn answer<T>(self, read: Read) -> Option<T> {
        // Who asked may be gone; permits return with the answer.
        let _ = self.answer.send(read);
        None
    }
}

impl Chosen {
    fn wanted(&self) -> Wanted {
        let ask = &self.waiting.ask;
        Wanted {
            tp: ask.partition.tp.clone(),
            topic_id: ask.topic_id,
            offset: ask.spec.offset,
            leader_epoch: ask.leader_epoch,
            max_bytes: bounded(self.max_bytes),
        }
    }
}

/// Counts one as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn bounded(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

/// Lanes per broker.
const LANES: u8 = 2;
/// Partitions in one request at most.
const PARTITIONS: usize = 256;
/// However many read, one read is not smaller than this.
const READ_MIN: usize = 16 << 10;
