//! The batches of one partition: which may be sent next, and what a response means.
//!
//! ```text
//!            first                                            open, being filled
//!  finished ◀─ [ in flight ][ in flight ][ to retry ][ queued ][ queued ] ◀─ append
//!  sequences       40           52           60        none      none
//! ```
//!
//! Sans-I/O: time is passed in, batches go out through [`PartitionQueue::next_batch`] and come
//! back through [`PartitionQueue::complete`]. Nothing here waits, locks or wakes: delivery
//! futures are resolved by the caller, from `finished`. Only the jitter of backoffs is drawn
//! inside.
//!
//! # Invariants
//! - Batches finish in order: a response that comes too early is parked.
//! - Every future is resolved when the delivery timeout of its batch expires, whatever the
//!   batches before it wait for: that of one that is in flight as unknown, that of a parked
//!   one by its response.
//! - A sequence stays with its batch as long as the batch may have been appended
//!   (`maybe_appended`): sent again, the broker recognises it. It is given a new one, under
//!   a new epoch, only when it is certain that it was not.
//! - No more than five batches lie between the first unresolved one and the last that was
//!   sent: as many as a broker recognises when they are sent again.
//! - After a failure, and on a new leader, one request is in flight at a time until the
//!   first success; nothing is sent to a leader while requests to another one are in flight.
//! - What is missing between what the broker has and the first batch is known: see
//!   [`sequencer`].

mod batch;
mod completion;
mod draining;
mod sequencer;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::delivery::{DeliveryPromise, ProduceResult};
use super::error::ProduceError;
use crate::backoff::ExponentialBackoff;
use crate::metadata::LeaderAndEpoch;
use crate::topic::{BrokerId, TopicPartition};

use self::batch::{BatchState, EarlierAttempts, ProducerBatch, unknown_outcome};
use self::sequencer::{SequenceGap, Sequencer};

pub(super) use self::batch::{FinishedBatch, QueuedRecords, SendableBatch, TopicNaming};
pub(super) use self::completion::BatchResult;

/// The settings that a partition's queue obeys.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueConfig {
    /// `linger.ms`: how long a batch that is not full waits for more records.
    pub(super) linger: Duration,
    /// `delivery.timeout.ms`: from the append of a batch's first record to the end of all
    /// attempts.
    pub(super) delivery_timeout: Duration,
    /// `max.in.flight.requests.per.connection`
    pub(super) max_in_flight: usize,
    /// `retry.backoff.ms`
    pub(super) retry_backoff: Duration,
    /// `retry.backoff.max.ms`
    pub(super) retry_backoff_max: Duration,
}

impl QueueConfig {
    pub(super) fn backoff(&self) -> ExponentialBackoff {
        ExponentialBackoff::new(self.retry_backoff, self.retry_backoff_max)
    }
}

/// How long a partition that has a leader may be written to without success before it counts
/// as stalled: Java's `partitioner.availability.timeout.ms` (KIP-794).
const AVAILABILITY_TIMEOUT: Duration = Duration::from_secs(1);

/// One partition's batches.
#[derive(Debug)]
pub(super) struct PartitionQueue<R> {
    partition: TopicPartition,
    config: QueueConfig,
    leader: Option<LeaderAndEpoch>,
    sequencer: Sequencer,
    batches: VecDeque<ProducerBatch<R>>,
    /// Bytes of `buffer.memory` that they hold.
    memory: usize,
    /// How many of them are in flight, and to which broker.
    in_flight: usize,
    in_flight_to: BrokerId,
    /// When the leader last appended a batch: then several requests may be in flight.
    leader_confirmed_at: Option<Instant>,
    /// When any leader last appended a batch.
    appended_at: Option<Instant>,
    backoff: ExponentialBackoff,
    retry_at: Option<Instant>,
    last_batch_id: u64,
}

impl<R: QueuedRecords> PartitionQueue<R> {
    pub(super) fn new(partition: TopicPartition, config: QueueConfig) -> Self {
        Self {
            partition,
            config,
            leader: None,
            sequencer: Sequencer::new(),
            batches: VecDeque::new(),
            memory: 0,
            in_flight: 0,
            in_flight_to: BrokerId(-1),
            leader_confirmed_at: None,
            appended_at: None,
            backoff: config.backoff(),
            retry_at: None,
            last_batch_id: 0,
        }
    }

    pub(super) fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    pub(super) fn leader(&self) -> Option<BrokerId> {
        Some(self.leader?.broker)
    }

    /// How many batches are not in flight.
    pub(super) fn queued(&self) -> usize {
        self.batches.len() - self.in_flight
    }

    /// Bytes of `buffer.memory` that its batches hold.
    #[inline]
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    /// Holds no batch, in flight or not.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// The partition's brokers may know sequences under that producer id.
    pub(super) fn has_used_producer_id(&self, id: i64) -> bool {
        self.sequencer.has_used_producer_id(id)
    }

    /// The batch that records are appended to, and the result of its records.
    #[inline]
    pub(super) fn open_batch(&mut self) -> Option<(&mut R, &Arc<ProduceResult>)> {
        self.batches.back_mut()?.open()
    }

    /// Notes that a record was appended to the open batch, which took `memory` bytes of
    /// `buffer.memory`; `full`: it was the last. Returns whether the batch has become
    /// ready, which it was not before.
    #[inline]
    pub(super) fn record_appended(&mut self, memory: usize, full: bool) -> bool {
        let Some(last) = self.batches.back_mut() else {
            return false;
        };
        self.memory += memory;
        last.memory += memory;
        full && last.make_ready()
    }

    /// Adds a batch, which is open; the one before it is closed. Its delivery timeout begins at
    /// `created`, or where that of the batch before it does if that is later: batches expire in
    /// order.
    pub(super) fn push_batch(
        &mut self,
        records: R,
        result: Arc<ProduceResult>,
        mut created: Instant,
    ) {
        if let Some(last) = self.batches.back_mut() {
            last.close();
            created = created.max(last.created);
        }
        self.last_batch_id += 1;
        let promise = DeliveryPromise::new(result);
        self.batches.push_back(ProducerBatch {
            state: BatchState::Open {
                ready: self.config.linger.is_zero(),
            },
            ..ProducerBatch::new(self.last_batch_id, records, promise, created)
        });
    }

    /// Makes the open batch ready; returns whether it was not.
    pub(super) fn make_ready(&mut self) -> bool {
        let last = self.batches.back_mut();
        last.is_some_and(ProducerBatch::make_ready)
    }

    /// Makes all batches ready, and lists the results of those that have none.
    pub(super) fn flush(&mut self) -> impl Iterator<Item = Arc<ProduceResult>> + '_ {
        self.batches.iter_mut().filter_map(|batch| {
            batch.make_ready();
            batch
                .promise
                .as_ref()
                .map(|promise| promise.result().clone())
        })
    }

    /// Where requests go from now on; returns whether that is new.
    pub(super) fn set_leader(&mut self, leader: Option<LeaderAndEpoch>) -> bool {
        let changed = self.leader != leader;
        if changed {
            self.leader = leader;
            self.leader_confirmed_at = None;
            // What the old leader refused need not wait before it is sent to the new one.
            self.retry_at = None;
        }
        changed
    }

    /// The topic was deleted and created again. What was sent by the old topic's id is not
    /// in the new one; what was sent by name, and not answered, may be or may yet arrive:
    /// sent again it could be there twice.
    pub(super) fn topic_recreated(&mut self, finished: &mut Vec<FinishedBatch>) {
        self.sequencer.set_gap(SequenceGap::Certain);
        for batch in &mut self.batches {
            match &mut batch.state {
                BatchState::InFlight { of_old_topic, .. }
                | BatchState::Done { of_old_topic, .. } => *of_old_topic = true,
                BatchState::Retry(_) => batch.settle_on_topic_recreated(&self.partition),
                BatchState::Open { .. } | BatchState::Ready => {}
            }
        }
        self.finish_done(finished);
    }

    /// Another cluster took the place of the one that the batches were sent to. The outcome of
    /// those that are in flight, or may have been appended, is unknown; no response of the old
    /// cluster changes that. The others are sent to the new one, under another producer id.
    pub(super) fn cluster_changed(&mut self, finished: &mut Vec<FinishedBatch>) {
        self.sequencer.cluster_changed();
        self.leader_confirmed_at = None;
        let unknown =
            || unknown_outcome(&self.partition, "another cluster took the old one's place");
        for batch in &mut self.batches {
            match &mut batch.state {
                BatchState::InFlight { of_old_topic, .. } => {
                    *of_old_topic = true;
                    // Like one that has expired: it leaves the queue when its request has ended.
                    finished.extend(batch.promise.take().map(|promise| FinishedBatch {
                        promise: Some(promise),
                        result: Err(unknown()),
                        memory: 0,
                        sent_count: batch.sent_count,
                        created: batch.created,
                    }));
                }
                BatchState::Retry(EarlierAttempts::MaybeAppended { .. }) => {
                    batch.fail(unknown(), SequenceGap::None);
                }
                BatchState::Done { of_old_topic, .. } => *of_old_topic = true,
                BatchState::Open { .. } | BatchState::Ready | BatchState::Retry(_) => {}
            }
        }
        self.finish_done(finished);
        // Whatever gaps the finished ones left: none of the old sequences is of use.
        self.sequencer.set_gap(SequenceGap::Certain);
    }

    /// Fails the batches whose delivery timeout has expired, and resolves the futures of all
    /// of them, whatever the batches before them wait for. Returns how many records that were.
    pub(super) fn expire(&mut self, now: Instant, finished: &mut Vec<FinishedBatch>) -> u32 {
        let mut count = 0;
        let delivery_timeout = self.config.delivery_timeout;
        let expired = |batch: &&mut ProducerBatch<R>| batch.created + delivery_timeout <= now;
        let unknown =
            |partition: &_| unknown_outcome(partition, "no answer within the delivery timeout");
        for batch in self.batches.iter_mut().take_while(expired) {
            if !batch.is_queued() {
                continue;
            }
            count += batch.records.as_ref().map_or(0, QueuedRecords::count);
            if batch.maybe_appended() {
                batch.fail(unknown(&self.partition), SequenceGap::Possible);
            } else {
                let partition = self.partition.clone();
                let gap = batch.gap_if_not_appended();
                batch.fail(ProduceError::TimedOut { partition }, gap);
            }
        }
        self.finish_done(finished);
        for batch in self.batches.iter_mut().take_while(expired) {
            let Some(promise) = batch.promise.take() else {
                continue;
            };
            let (result, memory) = match &batch.state {
                BatchState::Done { result, .. } => {
                    (result.clone(), std::mem::take(&mut batch.memory))
                }
                // It is in flight. The response is still of use: for the sequences.
                _ => {
                    count += batch.sent_count;
                    (Err(unknown(&self.partition)), 0)
                }
            };
            self.memory -= memory;
            finished.push(FinishedBatch {
                promise: Some(promise),
                result,
                memory,
                sent_count: batch.sent_count,
                created: batch.created,
            });
        }
        count
    }

    /// Fails the batches that are not in flight. The outcome of those that may have been
    /// appended is unknown, even if the topic is deleted: it may have been there, and read,
    /// before that.
    pub(super) fn fail_queued(&mut self, error: &ProduceError, finished: &mut Vec<FinishedBatch>) {
        for batch in &mut self.batches {
            if !batch.is_queued() {
                continue;
            }
            if batch.maybe_appended() {
                let error = unknown_outcome(&self.partition, &error.to_string());
                batch.fail(error, SequenceGap::Possible);
            } else {
                batch.fail(error.clone(), batch.gap_if_not_appended());
            }
        }
        self.finish_done(finished);
    }

    /// Fails all batches: the outcome of those that were sent and not answered is unknown.
    pub(super) fn stop(&mut self, finished: &mut Vec<FinishedBatch>) {
        for batch in &mut self.batches {
            if batch.is_done() {
                continue;
            }
            let is_in_flight = batch.is_in_flight();
            self.in_flight -= usize::from(is_in_flight);
            let error = if is_in_flight || batch.maybe_appended() {
                let reason = "the producer was stopped before the answer";
                unknown_outcome(&self.partition, reason)
            } else {
                ProduceError::Stopped
            };
            batch.fail(error, SequenceGap::None);
        }
        self.finish_done(finished);
    }

    /// Batches wait, and the partition has no leader, or nothing was appended for the
    /// availability timeout.
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        match self.leader {
            None => !self.batches.is_empty(),
            Some(_) => self.stalls_at().is_some_and(|at| at <= now),
        }
    }

    /// When the partition counts as stalled if nothing is appended until then.
    fn stalls_at(&self) -> Option<Instant> {
        let first = self.batches.iter().find(|batch| !batch.is_done())?;
        let waits_since = Some(first.created + self.config.linger).max(self.appended_at)?;
        Some(waits_since + AVAILABILITY_TIMEOUT)
    }

    /// When [`is_ready`](Self::is_ready) or [`is_stalled`](Self::is_stalled) may change, or a
    /// batch expires, by time alone.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let expires = |batch: &&ProducerBatch<R>| !batch.is_expired();
        let deadline = self
            .batches
            .iter()
            .find(expires)
            .map(|batch| batch.created + self.config.delivery_timeout);
        let first = self.batches.iter().find(|batch| batch.is_queued());
        let linger_ends = first
            .filter(|batch| !batch.is_ready())
            .map(|batch| batch.created + self.config.linger);
        let retry_at = first.and(self.retry_at);
        let sendable = linger_ends.max(retry_at).filter(|&at| at > now);
        let stalls_at = self.leader.and_then(|_| self.stalls_at());
        let stalls_at = stalls_at.filter(|&at| at > now);
        let times = [deadline, sendable, stalls_at];
        times.into_iter().flatten().min()
    }

    /// Takes the batches that are done off the front.
    fn finish_done(&mut self, finished: &mut Vec<FinishedBatch>) {
        while let Some(first) = self.batches.front_mut() {
            let gap = std::mem::replace(&mut first.gap_before, SequenceGap::None);
            self.sequencer.set_gap(gap);
            if !first.is_done() {
                break;
            }
            let Some(first) = self.batches.pop_front() else {
                break;
            };
            let BatchState::Done {
                result,
                of_old_topic,
            } = first.state
            else {
                break;
            };
            if result.is_ok() && !of_old_topic {
                self.sequencer.first_was_appended();
            }
            self.memory -= first.memory;
            finished.push(FinishedBatch {
                promise: first.promise,
                result,
                memory: first.memory,
                sent_count: first.sent_count,
                created: first.created,
            });
        }
    }
}
