//! The queues of all partitions, and what is due: batches to send, timers that fire.
//!
//! ```text
//!  append ─▶ topic ─▶ partitioner ─▶ queue ─┬─▶ ready[broker] ─▶ drain ─▶ request
//!                                     ▲  ▲  └─▶ timers ─▶ tick
//!      snapshot ─▶ update_metadata ───┘  └── complete ◀─ response
//! ```
//!
//! Sans-I/O like the queues: the time is passed in, and what must happen outside is left in
//! [`AccumulatorEffects`], which the caller carries out after it has released the lock. Only
//! the jitter of backoffs, and the partition at which records without key begin, are drawn inside.
//!
//! # Invariants
//! - A queue from which something may be sent is in its leader's ready list; one from which
//!   nothing may be sent any more is taken off when its turn comes.
//! - A queue that changes by time alone has a timer, never a later one than needed.

mod partition_memory;
mod queue_slot;
#[cfg(test)]
mod tests;
mod topics;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;
use uuid::Uuid;

use self::queue_slot::QueueSlot;
use self::topics::TopicQueues;
use super::batch_records::BatchRecords;
use super::delivery::{DeliveryFuture, ProduceResult};
use super::error::ProduceError;
use super::expired_records::{ExpiredRecords, ExpiredReport};
use super::partition_queue::{
    BatchResult, FinishedBatch, QueueConfig, QueuedRecords, SendableBatch, TopicNaming,
};
use super::producer_id::ProducerIdAndEpoch;
use crate::metadata::{ClusterSnapshot, TopicMetadata};
use crate::record::{NewRecord, RecordBatchBuilder};
use crate::topic::{BrokerId, TopicPartition};

pub(super) use self::partition_memory::{
    PartitionMemoryTurn, PartitionMemoryWaiters, RecordAppendError, RecordMemory,
};

/// What is to be done once the lock is released.
#[derive(Debug, Default)]
pub(super) struct AccumulatorEffects {
    /// Their futures are to be resolved, and their memory is to be given back.
    pub(super) finished: Vec<FinishedBatch>,
    /// Brokers for which there is something to send.
    pub(super) wake_senders: Vec<BrokerId>,
    /// A producer id is needed, an earlier timer was set, or a topic is missing.
    pub(super) wake_maintenance: bool,
    /// Topics with records for a partition that has no leader: metadata is to be requested,
    /// now and with backoff, for no broker says by itself when the partition has a leader.
    pub(super) leaderless_topics: Vec<Arc<str>>,
    /// The partitions that may hold less than before: the caller that has waited longest for
    /// each tries again.
    pub(super) memory_waiters_to_wake: Vec<Arc<PartitionMemoryWaiters>>,
}

/// The sizes that batches and requests obey.
#[derive(Clone, Copy, Debug)]
pub(super) struct SizeLimits {
    /// `batch.size`: a batch is full at this many bytes; a larger record has one of its
    /// own.
    pub(super) batch_size: usize,
    /// `max.request.size`: a request holds about this many bytes.
    pub(super) max_request_size: usize,
    /// `buffer.memory`
    pub(super) buffer_memory: usize,
}

/// All batches of a producer.
#[derive(Debug)]
pub(super) struct RecordAccumulator {
    config: QueueConfig,
    limits: SizeLimits,
    /// The metadata that the queues follow: an `Arc` of the published snapshot, not a copy of
    /// it. The metadata takes a topic for used as long as its `Arc<TopicMetadata>` is held by
    /// more than the published snapshots; a copy would hold every topic for ever.
    metadata: Arc<ClusterSnapshot>,
    topics: Vec<TopicQueues>,
    /// Where each is in `topics`.
    topic_indexes: HashMap<Arc<str>, usize>,
    /// The topic that was looked up last: mostly the next one as well.
    last_topic: Option<(Arc<str>, usize)>,
    slots: Vec<QueueSlot>,
    /// Slots that belong to no topic any more.
    free_slots: Vec<usize>,
    /// Slots, and which entry each of them is: one that was replaced counts no more.
    ready: HashMap<BrokerId, VecDeque<(usize, u64)>>,
    last_entry: u64,
    timers: BTreeSet<(Instant, usize)>,
    /// For queues that have no producer id yet.
    new_producer_id: Option<ProducerIdAndEpoch>,
    /// Topics with records that the metadata did not list when it was looked at last.
    missing_topics: HashSet<Arc<str>>,
    /// Bytes of `buffer.memory` that the stalled partitions hold together.
    stalled_memory: usize,
    expired: ExpiredRecords,
    stopped: bool,
}

/// Where a batch in a request belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHandle {
    slot: usize,
    id: u64,
}

/// A batch for a request.
#[derive(Debug)]
pub(super) struct DrainedBatch {
    pub(super) handle: BatchHandle,
    pub(super) partition: TopicPartition,
    pub(super) topic_id: Uuid,
    pub(super) batch: SendableBatch<BatchRecords>,
}

/// A batch that comes back from a request.
#[derive(Debug)]
pub(super) struct CompletedBatch {
    pub(super) handle: BatchHandle,
    pub(super) records: BatchRecords,
    pub(super) result: BatchResult,
    /// How the request named the topic.
    pub(super) naming: TopicNaming,
}

impl RecordAccumulator {
    pub(super) fn new(config: QueueConfig, limits: SizeLimits) -> Self {
        Self {
            config,
            limits,
            metadata: Arc::default(),
            topics: Vec::new(),
            topic_indexes: HashMap::new(),
            last_topic: None,
            slots: Vec::new(),
            free_slots: Vec::new(),
            ready: HashMap::new(),
            last_entry: 0,
            timers: BTreeSet::new(),
            new_producer_id: None,
            missing_topics: HashSet::new(),
            stalled_memory: 0,
            expired: ExpiredRecords::default(),
            stopped: false,
        }
    }

    /// Appends a record, for which memory was taken, to its partition's open batch.
    /// `now` is asked only if a batch begins or becomes ready: most appends need no clock.
    ///
    /// # Errors
    /// [`InvalidPartition`](ProduceError::InvalidPartition) if the topic does not have it
    /// according to the metadata, [`Stopped`](ProduceError::Stopped), and
    /// [`PartitionMemoryExhausted`](RecordAppendError::PartitionMemoryExhausted).
    pub(super) fn append(
        &mut self,
        topic: &Arc<TopicMetadata>,
        partition: Option<i32>,
        record: &NewRecord<'_>,
        memory: RecordMemory<'_>,
        now: impl Fn() -> Instant,
        effects: &mut AccumulatorEffects,
    ) -> Result<DeliveryFuture, RecordAppendError> {
        if self.stopped {
            return Err(ProduceError::Stopped.into());
        }
        let topic_index = self.topic_index(topic);
        let mut slot_index = self.slot_for_record(topic_index, topic, partition, record, &[])?;
        let is_sticky = partition.is_none() && record.key.is_none();
        if !self.memory_allows(slot_index, memory) {
            if is_sticky {
                let used_up = self.slots[slot_index].queue.partition().partition;
                self.topics[topic_index].sticky.leave(used_up);
                let full = self.partitions_without_memory(topic_index, memory);
                slot_index = self.slot_for_record(topic_index, topic, partition, record, &full)?;
            }
            if !is_sticky || !self.memory_allows(slot_index, memory) {
                return Err(self.wait_for_partition_memory(slot_index, memory, now(), effects));
            }
        }
        let batch_size = self.limits.batch_size;
        let slot = &mut self.slots[slot_index];
        if let Some((BatchRecords::Open(builder), result)) = slot.queue.open_batch() {
            let size = builder.size_of(record);
            if builder.bytes() + size <= batch_size {
                let index = builder.append(record);
                let full = builder.bytes() + size > batch_size;
                let delivery = DeliveryFuture::new(result.clone(), index, record.timestamp);
                let became_ready = slot.queue.record_appended(memory.taken, full);
                self.count_stalled(slot_index, memory.taken);
                if is_sticky {
                    self.update_sticky_partition(topic_index, size, full);
                }
                if became_ready {
                    self.reschedule(slot_index, now(), effects);
                }
                return Ok(delivery);
            }
        }
        let mut builder = RecordBatchBuilder::new(slot.expected_size);
        let result = ProduceResult::new(slot.queue.partition().partition);
        let index = builder.append(record);
        let size = builder.bytes();
        let delivery = DeliveryFuture::new(result.clone(), index, record.timestamp);
        let now = now();
        slot.queue.push_batch(
            BatchRecords::Open(builder),
            result,
            memory.since.unwrap_or(now),
        );
        slot.queue.record_appended(memory.taken, size >= batch_size);
        if is_sticky {
            self.update_sticky_partition(topic_index, size, size >= batch_size);
        }
        self.reschedule(slot_index, now, effects);
        Ok(delivery)
    }

    /// The batches for one request to `broker`: one per partition, in turn.
    pub(super) fn drain(
        &mut self,
        broker: BrokerId,
        now: Instant,
        effects: &mut AccumulatorEffects,
    ) -> Vec<DrainedBatch> {
        let mut drained = Vec::new();
        let mut size = 0;
        let listed = self.ready.get(&broker).map_or(0, VecDeque::len);
        for _ in 0..listed {
            let next = self.ready.get_mut(&broker).and_then(VecDeque::pop_front);
            let Some((slot_index, entry)) = next else {
                break;
            };
            let slot = &mut self.slots[slot_index];
            if !slot.is_listed(broker, entry) {
                continue;
            }
            slot.listed_for = None;
            let finished = &mut effects.finished;
            let batch = slot
                .queue
                .next_batch(broker, self.new_producer_id, now, finished);
            if let Some(batch) = batch {
                size += batch.records.size();
                if !batch.is_retry {
                    slot.note_batch_size(batch.records.size(), self.limits.batch_size);
                }
                drained.push(DrainedBatch {
                    handle: BatchHandle {
                        slot: slot_index,
                        id: batch.id,
                    },
                    partition: slot.queue.partition().clone(),
                    topic_id: slot.topic_id,
                    batch,
                });
            }
            self.reschedule(slot_index, now, effects);
            if size + self.limits.batch_size > self.limits.max_request_size {
                break;
            }
        }
        drained
    }

    /// Whether [`drain`](Self::drain) would be worth a connection.
    pub(super) fn has_ready(&self, broker: BrokerId) -> bool {
        let is_listed = |&(slot, entry): &(usize, u64)| self.slots[slot].is_listed(broker, entry);
        self.ready
            .get(&broker)
            .is_some_and(|ready| ready.iter().any(is_listed))
    }

    /// Takes batches back from a request.
    pub(super) fn complete(
        &mut self,
        batches: Vec<CompletedBatch>,
        now: Instant,
        effects: &mut AccumulatorEffects,
    ) {
        for batch in batches {
            let BatchHandle { slot, id } = batch.handle;
            self.slots[slot].queue.complete(
                id,
                batch.records,
                batch.result,
                batch.naming,
                now,
                &mut effects.finished,
            );
            self.reschedule(slot, now, effects);
        }
    }

    /// Lets timers fire. Returns when to be called again.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        effects: &mut AccumulatorEffects,
    ) -> Option<Instant> {
        while let Some(&(at, slot)) = self.timers.first() {
            if at > now {
                return Some(at);
            }
            self.timers.pop_first();
            self.slots[slot].timer = None;
            let queue = &mut self.slots[slot].queue;
            let expired = queue.expire(now, &mut effects.finished);
            self.expired.add(&queue.partition().topic, expired);
            self.reschedule(slot, now, effects);
        }
        None
    }

    /// The records that expired, if that is to be reported now; and when it is to be otherwise.
    pub(super) fn expired_records(
        &mut self,
        now: Instant,
    ) -> (Option<ExpiredReport>, Option<Instant>) {
        (self.expired.take_report(now), self.expired.due_at(now))
    }

    /// Whether a producer id is needed to go on.
    pub(super) fn needs_producer_id(&self) -> bool {
        self.new_producer_id.is_none()
            && self
                .slots
                .iter()
                .any(|slot| slot.queue.needs_producer_id(None))
    }

    /// Gives a producer id to all queues that have none, unless another cluster issued it.
    pub(super) fn set_producer_id(
        &mut self,
        new: ProducerIdAndEpoch,
        cluster_id: Option<&Arc<str>>,
        now: Instant,
        effects: &mut AccumulatorEffects,
    ) {
        if self.cluster_id() != cluster_id {
            return; // another one is requested
        }
        self.new_producer_id = Some(new);
        for slot in 0..self.slots.len() {
            self.reschedule(slot, now, effects);
        }
    }

    /// Fails the batches that need a producer id, because of a fatal error there is none.
    pub(super) fn fail_without_producer_id(
        &mut self,
        error: &ProduceError,
        now: Instant,
        effects: &mut AccumulatorEffects,
    ) {
        for index in 0..self.slots.len() {
            let queue = &mut self.slots[index].queue;
            if queue.needs_producer_id(self.new_producer_id) {
                queue.fail_queued(error, &mut effects.finished);
                self.update_partition_memory(index, now, effects);
            }
        }
    }

    /// Makes all batches that are queued now ready. Returns the results to wait for.
    pub(super) fn flush(
        &mut self,
        now: Instant,
        effects: &mut AccumulatorEffects,
    ) -> Vec<Arc<ProduceResult>> {
        let mut results = Vec::new();
        for slot in 0..self.slots.len() {
            results.extend(self.slots[slot].queue.flush());
            self.reschedule(slot, now, effects);
        }
        results
    }

    /// Fails all batches; no record is appended any more.
    pub(super) fn stop(&mut self, effects: &mut AccumulatorEffects) {
        self.stopped = true;
        for slot in &mut self.slots {
            slot.queue.stop(&mut effects.finished);
            slot.listed_for = None;
            effects
                .memory_waiters_to_wake
                .extend(slot.memory_waiters.take());
        }
        self.ready.clear();
        self.timers.clear();
    }

    /// Puts a queue into its leader's ready list and sets its timer, as its state demands,
    /// updates its share, and has records without key leave a partition that cannot be written
    /// to.
    fn reschedule(&mut self, index: usize, now: Instant, effects: &mut AccumulatorEffects) {
        let slot = &mut self.slots[index];
        if slot.queue.needs_producer_id(self.new_producer_id) {
            self.new_producer_id = None;
            effects.wake_maintenance = true;
        }
        let leader = slot.queue.leader();
        if leader.is_some() || slot.queue.is_empty() {
            slot.ask_leader_at = None;
            slot.ask_leader_backoff.succeeded();
        }
        if slot.listed_for != leader {
            slot.listed_for = None;
        }
        self.update_partition_memory(index, now, effects);
        let slot = &mut self.slots[index];
        if leader.is_none() || slot.is_stalled {
            let partition = slot.queue.partition();
            if let Some(&topic) = self.topic_indexes.get(&partition.topic) {
                self.topics[topic].sticky.leave(partition.partition);
            }
        }
        let is_due = |at: Instant| at <= now;
        match leader {
            Some(leader)
                if slot.listed_for != Some(leader)
                    && slot.queue.is_ready(self.new_producer_id, now) =>
            {
                slot.listed_for = Some(leader);
                self.last_entry += 1;
                slot.entry = self.last_entry;
                let ready = self.ready.entry(leader).or_default();
                ready.push_back((index, slot.entry));
                if !effects.wake_senders.contains(&leader) {
                    effects.wake_senders.push(leader);
                }
            }
            None if !slot.queue.is_empty() && slot.ask_leader_at.is_none_or(is_due) => {
                slot.ask_leader_at = Some(now + slot.ask_leader_backoff.after_failure());
                let topic = &slot.queue.partition().topic;
                if self.metadata.topic(topic).is_none() {
                    effects.wake_maintenance |= self.missing_topics.insert(Arc::clone(topic));
                } else if !effects.leaderless_topics.contains(topic) {
                    effects.leaderless_topics.push(Arc::clone(topic));
                }
            }
            _ => {}
        }
        let wake_at = slot.queue.wake_at(now);
        if let Some(when) = wake_at.into_iter().chain(slot.ask_leader_at).min()
            && slot.timer.is_none_or(|timer| when < timer)
        {
            if let Some(old) = slot.timer.replace(when) {
                self.timers.remove(&(old, index));
            }
            self.timers.insert((when, index));
            effects.wake_maintenance |= self.timers.first() == Some(&(when, index));
        }
    }
}
