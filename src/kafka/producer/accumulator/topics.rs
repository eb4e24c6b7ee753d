//! Which queues a topic has, and how they follow the metadata.
//!
//! ```text
//!  append ─▶ topic_index ─▶ slot_for_record ─▶ slot (made when the partition is new)
//!                                               ▲
//!                snapshot ─▶ update_metadata ───┤ leader, topic id
//!             fatal error ─▶ fail_topic ────────┤ its queued batches fail
//!                            remove_deleted ────┘ once the topic is gone and its queues empty
//! ```
//!
//! # Invariants
//! - Leaders, topic ids and numbers of partitions are those of the snapshot that was
//!   followed last: a caller may hold on to a description of its topic for as long as it
//!   likes.
//! - Nothing that one cluster issued is used in another: producer ids, epochs and sequences end
//!   with the cluster id of the snapshot, and are taken from, and sent to, that cluster only.
//! - Of a topic that is deleted nothing is kept once its queues are empty.

use std::cell::LazyCell;
use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::Instant;
use uuid::Uuid;

use super::super::error::ProduceError;
use super::super::partition_queue::PartitionQueue;
use super::super::partitioner::{StickyPartitioner, partition_for_key};
use super::queue_slot::QueueSlot;
use super::{AccumulatorEffects, RecordAccumulator};
use crate::metadata::{ClusterSnapshot, TopicMetadata};
use crate::record::NewRecord;
use crate::topic::TopicPartition;

/// A topic that was written to.
#[derive(Debug)]
pub(super) struct TopicQueues {
    pub(super) name: Arc<str>,
    pub(super) id: Uuid,
    /// How many partitions the topic has.
    pub(super) partition_count: i32,
    /// By partition: where in `slots`.
    pub(super) slots: Vec<Option<usize>>,
    pub(super) sticky: StickyPartitioner,
}

impl RecordAccumulator {
    /// Where the topic is among those that were written to.
    pub(super) fn topic_index(&mut self, topic: &Arc<TopicMetadata>) -> usize {
        match &self.last_topic {
            Some((name, index)) if Arc::ptr_eq(name, &topic.name) => return *index,
            _ => {}
        }
        let index = match self.topic_indexes.get(&topic.name) {
            Some(&index) => index,
            None => {
                let index = self.topics.len();
                let newest = self.metadata.topic(&topic.name).unwrap_or(topic);
                let seed = index as u64 ^ (Arc::as_ptr(topic) as usize as u64);
                self.topics.push(TopicQueues {
                    name: topic.name.clone(),
                    id: newest.id,
                    partition_count: partition_count(newest),
                    slots: Vec::new(),
                    sticky: StickyPartitioner::new(seed),
                });
                self.topic_indexes.insert(topic.name.clone(), index);
                index
            }
        };
        self.last_topic = Some((topic.name.clone(), index));
        index
    }

    /// The slot of the record's partition. Without partition and key it is none of those in
    /// `full`, if there is another one.
    pub(super) fn slot_for_record(
        &mut self,
        topic_index: usize,
        topic: &Arc<TopicMetadata>,
        partition: Option<i32>,
        record: &NewRecord<'_>,
        full: &[i32],
    ) -> Result<usize, ProduceError> {
        let queues = &mut self.topics[topic_index];
        let count = queues.partition_count;
        if count == 0 || partition.is_some_and(|partition| !(0..count).contains(&partition)) {
            return Err(ProduceError::InvalidPartition {
                topic: topic.name.clone(),
                partition: partition.unwrap_or(0),
                partitions: count,
            });
        }
        let newest = LazyCell::new(|| self.metadata.topic(&topic.name).unwrap_or(topic));
        let partition = match (partition, record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_for_key(key, count),
            (None, None) => {
                let slots = &queues.slots;
                let queue_size = |partition: i32| match slots.get(partition as usize) {
                    _ if full.contains(&partition) => None,
                    Some(&Some(slot)) => self.slots[slot].available_queue_size(),
                    _ => newest.leader(partition).map(|_| 0),
                };
                queues.sticky.partition(count, queue_size)
            }
        };
        let position = partition as usize;
        if queues.slots.len() <= position {
            queues.slots.resize(position + 1, None);
        }
        Ok(*queues.slots[position].get_or_insert_with(|| {
            let topic_partition = TopicPartition::new(topic.name.clone(), partition);
            let mut queue = PartitionQueue::new(topic_partition, self.config);
            // If the metadata does not list the topic, an old handle knows old leaders.
            let listed = self.metadata.topic(&topic.name);
            queue.set_leader(listed.and_then(|listed| listed.leader(partition)));
            let slot = QueueSlot::new(queue, newest.id, self.config);
            if let Some(free) = self.free_slots.pop() {
                self.slots[free] = slot;
                return free;
            }
            self.slots.push(slot);
            self.slots.len() - 1
        }))
    }

    pub(super) fn update_sticky_partition(
        &mut self,
        topic_index: usize,
        size: usize,
        batch_full: bool,
    ) {
        let sticky = &mut self.topics[topic_index].sticky;
        sticky.record_appended(size, batch_full, self.limits.batch_size);
    }

    /// Follows leaders, and topics that vanish or were created again.
    pub(in super::super) fn update_metadata(
        &mut self,
        snapshot: &Arc<ClusterSnapshot>,
        now: Instant,
        effects: &mut AccumulatorEffects,
    ) {
        let before = std::mem::replace(&mut self.metadata, Arc::clone(snapshot));
        let mut changed = Vec::new();
        if snapshot.is_other_cluster_than(&before) {
            self.new_producer_id = None;
            for (index, slot) in self.slots.iter_mut().enumerate() {
                slot.queue.cluster_changed(&mut effects.finished);
                changed.push(index);
            }
        }
        for queues in &mut self.topics {
            let slots = || queues.slots.iter().copied().flatten();
            let Some(topic) = snapshot.topic(&queues.name) else {
                // Whoever led it, nobody does now.
                changed.extend(slots().filter(|&slot| self.slots[slot].queue.set_leader(None)));
                continue;
            };
            let same = |before: &Arc<TopicMetadata>| Arc::ptr_eq(before, topic);
            if before.topic(&queues.name).is_some_and(same) {
                continue;
            }
            // Brokers before 2.8 know no topic ids.
            let recreated = !queues.id.is_nil() && !topic.id.is_nil() && queues.id != topic.id;
            for index in slots() {
                let slot = &mut self.slots[index];
                slot.topic_id = topic.id;
                if recreated {
                    slot.queue.topic_recreated(&mut effects.finished);
                }
                let leader = topic.leader(slot.queue.partition().partition);
                if slot.queue.set_leader(leader) || recreated || leader.is_none() {
                    changed.push(index);
                }
            }
            queues.id = topic.id;
            queues.partition_count = partition_count(topic);
        }
        for slot in changed {
            self.reschedule(slot, now, effects);
        }
        self.remove_deleted(|_| true);
    }

    /// The id of the cluster that the queues follow, if it has named one.
    pub(in super::super) fn cluster_id(&self) -> Option<&Arc<str>> {
        self.metadata.cluster_id.as_ref()
    }

    /// Topics of which it is to be found out whether they are deleted.
    pub(in super::super) fn take_missing_topics(&mut self) -> HashSet<Arc<str>> {
        std::mem::take(&mut self.missing_topics)
    }

    /// Whether that snapshot is the one that was followed last.
    pub(in super::super) fn follows(&self, snapshot: &Arc<ClusterSnapshot>) -> bool {
        Arc::ptr_eq(&self.metadata, snapshot)
    }

    /// Fails the queued batches of a topic.
    pub(in super::super) fn fail_topic(
        &mut self,
        topic: &str,
        error: &ProduceError,
        now: Instant,
        effects: &mut AccumulatorEffects,
    ) {
        let Some(&topic_index) = self.topic_indexes.get(topic) else {
            return;
        };
        let partitions = self.topics[topic_index].slots.len();
        for partition in 0..partitions {
            if let Some(slot) = self.topics[topic_index].slots[partition] {
                let queue = &mut self.slots[slot].queue;
                queue.fail_queued(error, &mut effects.finished);
                self.reschedule(slot, now, effects);
            }
        }
        self.remove_deleted(|name| name == topic);
    }

    /// Drops those of the wanted topics that the metadata does not list, and their queues,
    /// if these are empty.
    fn remove_deleted(&mut self, wanted: impl Fn(&str) -> bool) {
        let mut index = 0;
        while let Some(queues) = self.topics.get(index) {
            let is_empty = |&slot: &usize| self.slots[slot].queue.is_empty();
            if !wanted(&queues.name)
                || self.metadata.topic(&queues.name).is_some()
                || !queues.slots.iter().flatten().all(is_empty)
            {
                index += 1;
                continue;
            }
            let deleted = self.topics.swap_remove(index);
            self.topic_indexes.remove(&deleted.name);
            if let Some(moved) = self.topics.get(index) {
                self.topic_indexes.insert(moved.name.clone(), index);
            }
            self.last_topic = None;
            for slot in deleted.slots.into_iter().flatten() {
                self.free_slot(slot);
            }
        }
    }

    /// Makes a slot, whose queue is empty, free for another partition.
    fn free_slot(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        // Should the topic only have been missing from the metadata, then its next queue
        // counts sequences from 0: under the same producer id they would look like
        // duplicates of the first records.
        if self
            .new_producer_id
            .is_some_and(|new| slot.queue.has_used_producer_id(new.id))
        {
            self.new_producer_id = None;
        }
        self.stalled_memory -= slot.stalled_memory;
        if let Some(timer) = slot.timer {
            self.timers.remove(&(timer, index));
        }
        let partition = slot.queue.partition().clone();
        let unused = PartitionQueue::new(partition, self.config);
        *slot = QueueSlot::new(unused, Uuid::nil(), self.config);
        self.free_slots.push(index);
    }
}

fn partition_count(topic: &TopicMetadata) -> i32 {
    i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX)
}
