//! All partitions' queues, and what is due: batches to send, time to look again.
//!
//! ```text
//!  append ─▶ topic ─▶ partitioner ─▶ queue ─┬─▶ ready[broker] ─▶ drain ─▶ request
//!                                     ▲  ▲  └─▶ timers ─▶ tick
//!              snapshot ─▶ follow ────┘  └── land ◀─ answer
//! ```
//!
//! Pure like the queues: what must happen outside is left in [`Effects`], which the
//! caller carries out after it has let go of the lock.
//!
//! # Invariants
//! - A queue from which something may be sent is listed under its leader; one that is
//!   listed in vain is taken off when its turn comes.
//! - A queue that changes by time alone has a timer, never a later one than needed.

#[cfg(test)]
mod tests;
mod topics;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;
use uuid::Uuid;

use self::topics::TopicQueues;
use super::body::Body;
use super::delivery::{DeliveryFuture, ProduceResult};
use super::error::ProduceError;
use super::identity::Identity;
use super::queue::{Landing, Limits, Payload, Queue, Sent, Settled};
use crate::backoff::ExponentialBackoff;
use crate::metadata::{ClusterSnapshot, TopicMetadata};
use crate::record::{NewRecord, RecordBatchBuilder};
use crate::topic::{BrokerId, TopicPartition};

/// What is to be done once the lock is released.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// To tell, and to give back to the budget.
    pub(super) settled: Vec<Settled>,
    /// Brokers for which there is something to send.
    pub(super) wake: Vec<BrokerId>,
    /// A producer id is needed, an earlier timer was set, or a topic is missing.
    pub(super) direct: bool,
    /// Topics with records for a partition that has no leader: the cluster is to be asked,
    /// now and from time to time, for nobody tells us when it has one, nor that it still
    /// has none.
    pub(super) leaderless: Vec<Arc<str>>,
}

/// The sizes that batches and requests obey.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// A batch is full at this many bytes; a larger record has one of its own.
    pub(super) batch: usize,
    /// A request holds about this many bytes.
    pub(super) request: usize,
}

/// All batches of a producer.
#[derive(Debug)]
pub(super) struct Accumulator {
    limits: Limits,
    sizes: Sizes,
    /// What was followed last. It is the very one that the metadata publishes, so that a
    /// topic in it does not count as held by somebody.
    known: Arc<ClusterSnapshot>,
    topics: Vec<TopicQueues>,
    /// Where each is in `topics`.
    names: HashMap<Arc<str>, usize>,
    /// The last one that was looked up: mostly the next one as well.
    recent: Option<(Arc<str>, usize)>,
    lines: Vec<Line>,
    /// Those that belong to no topic any more.
    spare: Vec<usize>,
    /// Lines, and which entry each of them is: one that was overtaken counts no more.
    ready: HashMap<BrokerId, VecDeque<(usize, u64)>>,
    last_entry: u64,
    timers: BTreeSet<(Instant, usize)>,
    /// For queues that have no producer id yet.
    fresh: Option<Identity>,
    /// Topics with records that the cluster did not list when it was asked last.
    missing: HashSet<Arc<str>>,
    stopped: bool,
}

/// A queue's place among the others.
#[derive(Debug)]
struct Line {
    queue: Queue<Body>,
    topic_id: Uuid,
    listed: Option<BrokerId>,
    /// The one entry in that list which counts.
    entry: u64,
    timer: Option<Instant>,
    /// When to ask again who leads the partition, while nobody does; and the waits
    /// between.
    ask_at: Option<Instant>,
    asking: ExponentialBackoff,
    /// Bytes of the last batch: the next one may need as much.
    usual_size: usize,
}

/// A batch in a request, and where it belongs.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) line: usize,
    pub(super) partition: TopicPartition,
    pub(super) topic_id: Uuid,
    pub(super) sent: Sent<Body>,
}

/// What became of one.
#[derive(Debug)]
pub(super) struct Landed {
    pub(super) line: usize,
    pub(super) id: u64,
    pub(super) body: Body,
    pub(super) landing: Landing,
    /// The request named the topic by its id.
    pub(super) by_id: bool,
}

/// A batch's first guess of what it needs.
const FIRST_SIZE: usize = 512;

impl Accumulator {
    pub(super) fn new(limits: Limits, sizes: Sizes) -> Self {
        Self {
            limits,
            sizes,
            known: Arc::default(),
            topics: Vec::new(),
            names: HashMap::new(),
            recent: None,
            lines: Vec::new(),
            spare: Vec::new(),
            ready: HashMap::new(),
            last_entry: 0,
            timers: BTreeSet::new(),
            fresh: None,
            missing: HashSet::new(),
            stopped: false,
        }
    }

    /// Puts a record into its partition's open batch.
    ///
    /// # Errors
    /// [`InvalidPartition`](ProduceError::InvalidPartition) if the topic did not have it
    /// when it was looked at last, and [`Stopped`](ProduceError::Stopped).
    pub(super) fn append(
        &mut self,
        topic: &Arc<TopicMetadata>,
        partition: Option<i32>,
        record: &NewRecord<'_>,
        cost: usize,
        effects: &mut Effects,
    ) -> Result<DeliveryFuture, ProduceError> {
        if self.stopped {
            return Err(ProduceError::Stopped);
        }
        let among = self.topic_at(topic);
        let at = self.line_of(among, topic, partition, record)?;
        let limit = self.sizes.batch;
        let line = &mut self.lines[at];
        if let Some((Body::Open(builder), outcome)) = line.queue.open() {
            let size = builder.size_of(record);
            if builder.bytes() + size <= limit {
                let index = builder.append(record);
                let full = builder.bytes() + size > limit;
                let delivery = DeliveryFuture::new(outcome.clone(), index, record.timestamp);
                let ripened = line.queue.wrote(cost, full);
                if partition.is_none() && record.key.is_none() {
                    self.stick(among, size, full);
                }
                if ripened {
                    self.look(at, Instant::now(), effects);
                }
                return Ok(delivery);
            }
        }
        let mut builder = RecordBatchBuilder::new(line.usual_size);
        let outcome = ProduceResult::new(line.queue.partition().partition);
        let index = builder.append(record);
        let size = builder.bytes();
        let delivery = DeliveryFuture::new(outcome.clone(), index, record.timestamp);
        let now = Instant::now();
        line.queue.push(Body::Open(builder), outcome, now);
        line.queue.wrote(cost, size >= limit);
        if partition.is_none() && record.key.is_none() {
            self.stick(among, size, size >= limit);
        }
        self.look(at, now, effects);
        Ok(delivery)
    }

    /// The batches for one request to `broker`: one per partition, in turn.
    pub(super) fn drain(
        &mut self,
        broker: BrokerId,
        now: Instant,
        effects: &mut Effects,
    ) -> Vec<Outgoing> {
        let mut out = Vec::new();
        let mut size = 0;
        let listed = self.ready.get(&broker).map_or(0, VecDeque::len);
        for _ in 0..listed {
            let next = self.ready.get_mut(&broker).and_then(VecDeque::pop_front);
            let Some((at, entry)) = next else {
                break;
            };
            let line = &mut self.lines[at];
            if !line.is_listed(broker, entry) {
                continue;
            }
            line.listed = None;
            let taken = line
                .queue
                .take(broker, self.fresh, now, &mut effects.settled);
            if let Some(sent) = taken {
                size += sent.payload.size();
                if !sent.again {
                    let usual = sent.payload.size() + sent.payload.size() / 8;
                    line.usual_size = usual.clamp(FIRST_SIZE, self.sizes.batch.max(FIRST_SIZE));
                }
                out.push(Outgoing {
                    line: at,
                    partition: line.queue.partition().clone(),
                    topic_id: line.topic_id,
                    sent,
                });
            }
            self.look(at, now, effects);
            if size + self.sizes.batch > self.sizes.request {
                break;
            }
        }
        out
    }

    /// Whether [`drain`](Self::drain) would be worth a connection.
    pub(super) fn has_ready(&self, broker: BrokerId) -> bool {
        let listed = |&(at, entry): &(usize, u64)| self.lines[at].is_listed(broker, entry);
        self.ready
            .get(&broker)
            .is_some_and(|ready| ready.iter().any(listed))
    }

    /// Takes batches back from a request.
    pub(super) fn land(&mut self, landed: Vec<Landed>, now: Instant, effects: &mut Effects) {
        for Landed {
            line: at,
            id,
            body,
            landing,
            by_id,
        } in landed
        {
            self.lines[at]
                .queue
                .landed(id, body, landing, by_id, now, &mut effects.settled);
            self.look(at, now, effects);
        }
    }

    /// Heeds the time. Returns when to be called again.
    pub(super) fn tick(&mut self, now: Instant, effects: &mut Effects) -> Option<Instant> {
        while let Some(&(at, line)) = self.timers.first() {
            if at > now {
                return Some(at);
            }
            self.timers.pop_first();
            self.lines[line].timer = None;
            self.lines[line].queue.expire(now, &mut effects.settled);
            self.look(line, now, effects);
        }
        None
    }

    /// Whether a producer id is needed to go on.
    pub(super) fn lacks_identity(&self) -> bool {
        self.fresh.is_none()
            && self
                .lines
                .iter()
                .any(|line| line.queue.lacks_identity(None))
    }

    /// A producer id for all queues that have none.
    pub(super) fn identify(&mut self, fresh: Identity, now: Instant, effects: &mut Effects) {
        self.fresh = Some(fresh);
        for at in 0..self.lines.len() {
            self.look(at, now, effects);
        }
    }

    /// Fails what waits for a producer id that is not to be had.
    pub(super) fn fail_unidentified(&mut self, error: &ProduceError, effects: &mut Effects) {
        for line in &mut self.lines {
            if line.queue.lacks_identity(self.fresh) {
                line.queue.fail(error, &mut effects.settled);
            }
        }
    }

    /// Lets nothing linger of what is here now. Returns the outcomes to wait for.
    pub(super) fn flush(&mut self, now: Instant, effects: &mut Effects) -> Vec<Arc<ProduceResult>> {
        let mut outcomes = Vec::new();
        for at in 0..self.lines.len() {
            outcomes.extend(self.lines[at].queue.flush());
            self.look(at, now, effects);
        }
        outcomes
    }

    /// Ends everything; nothing is appended any more.
    pub(super) fn stop(&mut self, effects: &mut Effects) {
        self.stopped = true;
        for line in &mut self.lines {
            line.queue.stop(&mut effects.settled);
            line.listed = None;
        }
        self.ready.clear();
        self.timers.clear();
    }

    /// Lists a queue and sets its timer, as its state demands.
    fn look(&mut self, at: usize, now: Instant, effects: &mut Effects) {
        let line = &mut self.lines[at];
        if line.queue.lacks_identity(self.fresh) {
            self.fresh = None;
            effects.direct = true;
        }
        let leader = line.queue.leader();
        if leader.is_some() || line.queue.is_empty() {
            line.ask_at = None;
            line.asking.succeeded();
        }
        if line.listed != leader {
            line.listed = None;
        }
        match leader {
            Some(leader) if line.listed != Some(leader) && line.queue.is_ready(self.fresh, now) => {
                line.listed = Some(leader);
                self.last_entry += 1;
                line.entry = self.last_entry;
                let ready = self.ready.entry(leader).or_default();
                ready.push_back((at, line.entry));
                if !effects.wake.contains(&leader) {
                    effects.wake.push(leader);
                }
            }
            None if !line.queue.is_empty() && line.ask_at.is_none_or(|at| at <= now) => {
                line.ask_at = Some(now + line.asking.after_failure());
                let topic = &line.queue.partition().topic;
                if self.known.topic(topic).is_none() {
                    effects.direct |= self.missing.insert(Arc::clone(topic));
                } else if !effects.leaderless.contains(topic) {
                    effects.leaderless.push(Arc::clone(topic));
                }
            }
            _ => {}
        }
        let wake_at = line.queue.wake_at(now);
        if let Some(when) = wake_at.into_iter().chain(line.ask_at).min()
            && line.timer.is_none_or(|timer| when < timer)
        {
            if let Some(old) = line.timer.replace(when) {
                self.timers.remove(&(old, at));
            }
            self.timers.insert((when, at));
            effects.direct |= self.timers.first() == Some(&(when, at));
        }
    }
}

impl Line {
    fn new(queue: Queue<Body>, topic_id: Uuid, limits: Limits) -> Self {
        Self {
            queue,
            topic_id,
            listed: None,
            entry: 0,
            timer: None,
            ask_at: None,
            asking: ExponentialBackoff::new(limits.retry.0, limits.retry.1),
            usual_size: FIRST_SIZE,
        }
    }

    /// Leaders come and go, and may come back before the entry that was made for them the
    /// first time has had its turn: taking both would put a partition into one request
    /// twice.
    fn is_listed(&self, broker: BrokerId, entry: u64) -> bool {
        self.listed == Some(broker) && self.entry == entry
    }
}
