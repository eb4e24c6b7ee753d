//! The batches of one partition: what may be sent next, and what an answer means.
//!
//! ```text
//!            head                                              open, being filled
//!  settled ◀─ [ in a request ][ in a request ][ to retry ][ waiting ][ waiting ] ◀─ append
//!               seq 40          seq 52          seq 60      none       none
//! ```
//!
//! Pure: time is passed in, requests go out through [`Queue::take`] and come back
//! through [`Queue::landed`]; nothing here waits or locks.
//!
//! # Invariants
//! - Batches settle in order: an answer that comes too early is parked. (Only the
//!   delivery timeout tells the callers of a batch while its request is still out.)
//! - A sequence stays with its batch as long as the batch may have been appended
//!   (`unsure`): sent again, the broker recognises it. It is given a new one, under a
//!   new epoch, only when it is certain that it was not.
//! - No more than five batches lie between the first undecided one and the last that was
//!   sent: as many as a broker recognises when they are sent again.
//! - After a failure, and on a new leader, one request is out at a time until the first
//!   success; nothing is sent to a leader while requests to another one are out.
//!
//! # Gaps
//! When a batch leaves the queue without having been appended, the sequences behind it
//! cannot be used: the broker refuses whatever does not follow directly.
//! - *Sure* gap (refused, or never sent): what follows was not appended either. Once all
//!   requests are back, everything is renumbered under the next epoch.
//! - *Unknown* gap (given up on while unsure): the next batch that may have been appended
//!   is sent again as it was. If it is taken, the lost one was there too and the gap never
//!   existed; if it is refused as out of order, it is unknown as well: a broker that was
//!   restarted may hold it and not remember. What certainly was not appended follows under
//!   the next epoch, whose first batch fences off copies that are still on their way.

mod landing;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::delivery::{Owner, Placed, ProduceResult};
use super::error::ProduceError;
use super::identity::{Identity, advance};
use crate::backoff::ExponentialBackoff;
use crate::metadata::LeaderAndEpoch;
use crate::topic::{BrokerId, TopicPartition};

pub(super) use landing::Landing;

/// The records of a batch, as far as the queue needs to know them.
pub(super) trait Payload: Sized {
    /// How many there are.
    fn count(&self) -> u32;
    /// Their size in bytes, uncompressed.
    fn size(&self) -> usize;
    /// A batch of those records for whose position `wanted` holds. `None` if these are
    /// none, or the records cannot be read.
    fn keep(&self, wanted: &dyn Fn(u32) -> bool) -> Option<Self>;
}

/// The settings that a queue obeys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How long a batch that is not full waits for more.
    pub(super) linger: Duration,
    /// From the append of a batch's first record to the end of all attempts.
    pub(super) delivery: Duration,
    /// Requests that may be out at once.
    pub(super) in_flight: usize,
    /// The waits between attempts: first and longest.
    pub(super) retry: (Duration, Duration),
}

/// One partition's batches.
#[derive(Debug)]
pub(super) struct Queue<P> {
    partition: TopicPartition,
    limits: Limits,
    leader: Option<LeaderAndEpoch>,
    /// What `next` counts under; taken from the producer at the first send.
    identity: Option<Identity>,
    /// A producer id that is used up.
    burnt: Option<i64>,
    /// The sequence of the next batch that has none.
    next: i32,
    /// Between what the broker has and the first batch.
    gap: Gap,
    batches: VecDeque<Pending<P>>,
    /// How many of them are in requests, and to whom these went.
    out: usize,
    out_to: BrokerId,
    /// When the leader last took a batch: then several may be out.
    confirmed: Option<Instant>,
    backoff: ExponentialBackoff,
    retry_at: Option<Instant>,
    last_id: u64,
}

#[derive(Debug)]
struct Pending<P> {
    id: u64,
    /// `None` while in a request, and when there is nothing left to send.
    payload: Option<P>,
    /// `None` once the callers were told.
    owner: Option<Owner>,
    state: State,
    sequence: Option<i32>,
    /// Some attempt may have been appended.
    unsure: bool,
    /// One of those named the topic by its name: it may reach another topic of that name.
    by_name: bool,
    /// The topic was created again while this one was in a request.
    outlived: bool,
    /// Nothing can be appended any more.
    closed: bool,
    /// Need not wait for the linger time.
    ripe: bool,
    attempts: u32,
    created: Instant,
    /// Bytes of the producer's budget.
    cost: usize,
    /// A gap directly in front of this one: takes effect when this one is the first.
    gap: Gap,
}

#[derive(Debug)]
enum State {
    Waiting,
    Out,
    Done(Result<Placed, ProduceError>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gap {
    None,
    Unknown,
    Sure,
}

/// A batch that goes into a request.
#[derive(Debug)]
pub(super) struct Sent<P> {
    pub(super) id: u64,
    pub(super) payload: P,
    pub(super) identity: Identity,
    pub(super) sequence: i32,
    /// Was in a request before.
    pub(super) again: bool,
}

/// A batch that has left the queue.
#[derive(Debug)]
pub(super) struct Settled {
    /// Whom to tell; `None` if they know, or if the batch was divided.
    pub(super) owner: Option<Owner>,
    pub(super) result: Result<Placed, ProduceError>,
    /// To give back to the budget.
    pub(super) cost: usize,
}

/// A broker forgets a producer that has been silent for long, and a forgotten one's
/// sequences are taken as they come: with several requests out, a refused one would not
/// hold back the next. After this long, start again with one.
const CONFIRMED_FOR: Duration = Duration::from_secs(60);

impl<P: Payload> Queue<P> {
    pub(super) fn new(partition: TopicPartition, limits: Limits) -> Self {
        Self {
            partition,
            limits,
            leader: None,
            identity: None,
            burnt: None,
            next: 0,
            gap: Gap::None,
            batches: VecDeque::new(),
            out: 0,
            out_to: BrokerId(-1),
            confirmed: None,
            backoff: ExponentialBackoff::new(limits.retry.0, limits.retry.1),
            retry_at: None,
            last_id: 0,
        }
    }

    pub(super) fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    pub(super) fn leader(&self) -> Option<BrokerId> {
        Some(self.leader?.broker)
    }

    /// Batches that are not in requests.
    pub(super) fn waiting(&self) -> usize {
        self.batches.len() - self.out
    }

    /// Holds nothing; nor is anything in a request.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// The partition's brokers may know sequences under that producer id.
    pub(super) fn has_used(&self, producer: i64) -> bool {
        self.identity
            .is_some_and(|identity| identity.id == producer)
            || self.burnt == Some(producer)
    }

    /// The batch that records are appended to, and the outcome of its records.
    pub(super) fn open(&mut self) -> Option<(&mut P, &Arc<ProduceResult>)> {
        let last = self.batches.back_mut().filter(|last| !last.closed)?;
        Some((last.payload.as_mut()?, last.owner.as_ref()?.outcome()))
    }

    /// A record of that cost was appended to the open batch; `full`: it was the last.
    /// Returns whether the batch need not linger any more, and did before.
    pub(super) fn wrote(&mut self, cost: usize, full: bool) -> bool {
        let Some(last) = self.batches.back_mut() else {
            return false;
        };
        last.cost += cost;
        let ripened = full && !last.ripe;
        last.ripe |= full;
        ripened
    }

    /// Adds a batch, which is open; the one before it is closed.
    pub(super) fn push(&mut self, payload: P, outcome: Arc<ProduceResult>, now: Instant) {
        if let Some(last) = self.batches.back_mut() {
            last.closed = true;
            last.ripe = true;
        }
        self.last_id += 1;
        self.batches.push_back(Pending {
            id: self.last_id,
            payload: Some(payload),
            owner: Some(Owner::new(outcome)),
            state: State::Waiting,
            sequence: None,
            unsure: false,
            by_name: false,
            outlived: false,
            closed: false,
            ripe: self.limits.linger.is_zero(),
            attempts: 0,
            created: now,
            cost: 0,
            gap: Gap::None,
        });
    }

    /// Lets nothing linger of what is here now, and lists the outcomes of all of it.
    pub(super) fn flush(&mut self) -> impl Iterator<Item = Arc<ProduceResult>> + '_ {
        self.batches.iter_mut().filter_map(|batch| {
            batch.ripe = true;
            batch.owner.as_ref().map(|owner| owner.outcome().clone())
        })
    }

    /// Where requests go from now on; returns whether that is new.
    pub(super) fn set_leader(&mut self, leader: Option<LeaderAndEpoch>) -> bool {
        let changed = self.leader != leader;
        if changed {
            self.leader = leader;
            self.confirmed = None;
            // What was refused by the old leader need not wait for the new one.
            self.retry_at = None;
        }
        changed
    }

    /// The topic was deleted and created again. What was sent by the old topic's id is not
    /// in the new one; what was sent by name, and not answered, may be or may yet arrive:
    /// sent again it could be there twice.
    pub(super) fn recreated(&mut self, settled: &mut Vec<Settled>) {
        self.gap = Gap::Sure;
        for batch in &mut self.batches {
            match batch.state {
                State::Waiting => batch.forsake(&self.partition),
                State::Out => batch.outlived = true,
                State::Done(_) => {}
            }
        }
        self.settle(settled);
    }

    /// Is there something to send, given that new producer id?
    pub(super) fn is_ready(&self, fresh: Option<Identity>, now: Instant) -> bool {
        self.candidate(fresh, now).is_some()
    }

    /// Needs another producer id than `fresh` to go on.
    pub(super) fn lacks_identity(&self, fresh: Option<Identity>) -> bool {
        self.identity.is_none()
            && !self.batches.is_empty()
            && fresh.is_none_or(|fresh| self.burnt == Some(fresh.id))
    }

    /// The next batch to send to `broker`; hands it out until it has [`landed`](Self::landed).
    pub(super) fn take(
        &mut self,
        broker: BrokerId,
        fresh: Option<Identity>,
        now: Instant,
        settled: &mut Vec<Settled>,
    ) -> Option<Sent<P>> {
        if self.leader()? != broker {
            return None;
        }
        let mut at = self.candidate(fresh, now)?;
        if self.needs_renumbering(&self.batches[at]) {
            self.renumber();
            self.settle(settled);
            at = self.candidate(fresh, now)?;
        }
        let batch = &mut self.batches[at];
        let count = batch.payload.as_ref()?.count();
        let identity = *match &mut self.identity {
            Some(identity) => identity,
            none => none.insert(fresh?),
        };
        let sequence = *batch.sequence.get_or_insert_with(|| {
            let sequence = self.next;
            self.next = advance(sequence, count);
            sequence
        });
        let payload = batch.payload.take()?;
        batch.state = State::Out;
        batch.closed = true;
        batch.ripe = true;
        if self.out == 0 && self.confirmed.is_some_and(|at| now >= at + CONFIRMED_FOR) {
            self.confirmed = None;
        }
        self.out += 1;
        self.out_to = broker;
        Some(Sent {
            id: batch.id,
            payload,
            identity,
            sequence,
            again: batch.attempts > 0,
        })
    }

    /// Which batch is next, if one may be sent now.
    fn candidate(&self, fresh: Option<Identity>, now: Instant) -> Option<usize> {
        let leader = self.leader?.broker;
        if self.retry_at.is_some_and(|at| at > now) {
            return None;
        }
        let several = self.confirmed.is_some() && self.out_to == leader;
        let room = self.out == 0 || (several && self.out < self.limits.in_flight);
        if !room || (self.gap != Gap::None && self.out > 0) {
            return None;
        }
        let (at, batch) =
            self.batches.iter().enumerate().find(|(at, b)| {
                matches!(b.state, State::Waiting) || (*at > 0 && b.gap != Gap::None)
            })?;
        let overtaken = || {
            let before = self.batches.range(..at);
            before.filter(|b| matches!(b.state, State::Out)).count() < self.out
        };
        // What stands behind a gap waits until the gap is reached; what is sent again
        // waits until nothing behind it is out. A broker recognises a duplicate among the
        // last five batches: what would push an undecided one out of these waits for it.
        if (at > 0 && batch.gap != Gap::None)
            || (batch.sequence.is_some() && overtaken())
            || at >= self.limits.in_flight
        {
            return None;
        }
        let identified = self.identity.is_some() || !self.lacks_identity(fresh);
        let lingered = || now >= batch.created + self.limits.linger;
        (identified && (batch.ripe || lingered())).then_some(at)
    }

    fn needs_renumbering(&self, first: &Pending<P>) -> bool {
        match self.gap {
            Gap::None => false,
            Gap::Unknown => !(first.unsure && first.sequence.is_some()),
            Gap::Sure => true,
        }
    }

    /// Starts a new epoch. Nothing is out, and what waits is known not to be appended.
    fn renumber(&mut self) {
        debug_assert_eq!(self.out, 0, "requests of the old epoch are out");
        if let Some(old) = self.identity {
            self.identity = old.bumped();
            if self.identity.is_none() {
                self.burnt = Some(old.id);
            }
            tracing::debug!(partition = %self.partition, %old, "new producer epoch");
        }
        self.next = 0;
        self.gap = Gap::None;
        self.confirmed = None;
        let mut contradicted = false;
        for batch in &mut self.batches {
            batch.gap = Gap::None;
            match batch.state {
                // Taken although something before it was refused: the broker had
                // forgotten us, and what comes after may have been taken as well.
                State::Done(Ok(_)) => contradicted = true,
                State::Waiting if contradicted && batch.unsure => {
                    let error = unknown(&self.partition, "the broker lost the producer's state");
                    batch.give_up(error, Gap::None);
                }
                _ => {}
            }
            batch.unsure = false;
            batch.by_name = false;
            batch.sequence = None;
        }
    }

    /// Ends what the delivery timeout has overtaken.
    pub(super) fn expire(&mut self, now: Instant, settled: &mut Vec<Settled>) {
        let delivery = self.limits.delivery;
        let expired = |batch: &&mut Pending<P>| batch.created + delivery <= now;
        for batch in self.batches.iter_mut().take_while(expired) {
            let unknown = || unknown(&self.partition, "no answer within the delivery timeout");
            match batch.state {
                State::Waiting if batch.unsure => batch.give_up(unknown(), Gap::Unknown),
                State::Waiting => {
                    let partition = self.partition.clone();
                    batch.give_up(ProduceError::TimedOut { partition }, batch.sure_gap());
                }
                // The answer is still of use: for the sequences.
                State::Out => settled.extend(batch.owner.take().map(|owner| Settled {
                    owner: Some(owner),
                    result: Err(unknown()),
                    cost: 0,
                })),
                State::Done(_) => {}
            }
        }
        self.settle(settled);
    }

    /// Fails what is not in a request. What was sent before stays unknown, even if the
    /// topic is gone: it may have been there, and read, when it was.
    pub(super) fn fail(&mut self, error: &ProduceError, settled: &mut Vec<Settled>) {
        for batch in &mut self.batches {
            if !matches!(batch.state, State::Waiting) {
                continue;
            }
            if batch.unsure {
                let error = unknown(&self.partition, &error.to_string());
                batch.give_up(error, Gap::Unknown);
            } else {
                batch.give_up(error.clone(), batch.sure_gap());
            }
        }
        self.settle(settled);
    }

    /// Ends everything: what was sent and not answered is unknown.
    pub(super) fn stop(&mut self, settled: &mut Vec<Settled>) {
        for batch in &mut self.batches {
            match batch.state {
                State::Out => {
                    self.out -= 1;
                    batch.unsure = true;
                }
                State::Waiting => {}
                State::Done(_) => continue,
            }
            let error = if batch.unsure {
                unknown(
                    &self.partition,
                    "the producer was stopped before the answer",
                )
            } else {
                ProduceError::Stopped
            };
            batch.give_up(error, Gap::None);
        }
        self.settle(settled);
    }

    /// When [`is_ready`](Self::is_ready) may change, or something expires, by time alone.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let undecided = |b: &&Pending<P>| !matches!(b.state, State::Done(_)) && b.owner.is_some();
        let deadline = self
            .batches
            .iter()
            .find(undecided)
            .map(|b| b.created + self.limits.delivery);
        let first = self
            .batches
            .iter()
            .find(|b| matches!(b.state, State::Waiting));
        let linger = first
            .filter(|b| !b.ripe)
            .map(|b| b.created + self.limits.linger);
        let retry = first.and(self.retry_at);
        let sendable = linger.max(retry).filter(|&at| at > now);
        [deadline, sendable].into_iter().flatten().min()
    }

    /// Takes what is decided off the front.
    fn settle(&mut self, settled: &mut Vec<Settled>) {
        while let Some(first) = self.batches.front_mut() {
            match std::mem::replace(&mut first.gap, Gap::None) {
                Gap::None => {}
                gap => self.gap = gap,
            }
            if !matches!(first.state, State::Done(_)) {
                break;
            }
            let Some(first) = self.batches.pop_front() else {
                break;
            };
            let State::Done(result) = first.state else {
                break;
            };
            if result.is_ok() {
                // The broker has everything up to here; or has lost track of us.
                self.gap = match self.gap {
                    Gap::Sure => Gap::Unknown,
                    Gap::Unknown | Gap::None => Gap::None,
                };
            }
            settled.push(Settled {
                owner: first.owner,
                result,
                cost: first.cost,
            });
        }
    }
}

impl<P> Pending<P> {
    /// Lets go of attempts that were meant for a topic that is no more.
    fn forsake(&mut self, partition: &TopicPartition) {
        if self.unsure && self.by_name {
            let error = unknown(partition, "the topic was deleted and created again");
            self.give_up(error, Gap::None);
        }
        self.unsure = false;
    }

    fn give_up(&mut self, error: ProduceError, gap: Gap) {
        self.state = State::Done(Err(error));
        self.payload = None;
        self.closed = true;
        if gap != Gap::None {
            self.gap = gap;
        }
    }

    /// The gap that this batch leaves if it certainly was not appended.
    fn sure_gap(&self) -> Gap {
        match self.sequence {
            Some(_) => Gap::Sure,
            None => Gap::None,
        }
    }
}

fn unknown(partition: &TopicPartition, reason: &str) -> ProduceError {
    ProduceError::UnknownOutcome {
        partition: partition.clone(),
        reason: reason.into(),
    }
}
