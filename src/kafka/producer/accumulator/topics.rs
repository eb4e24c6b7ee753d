//! Which queues a topic has, and how they follow what is known of it.
//!
//! ```text
//!  append ─▶ topic_at ─▶ line_of ─▶ line (made when the partition is new)
//!                                     ▲
//!            snapshot ─▶ follow ──────┤ leader, id
//!             verdict ─▶ fail_topic ──┤ the end of what waits
//!                        forget ──────┘ once it is gone and empty
//! ```
//!
//! # Invariants
//! - Leaders, ids and numbers of partitions are those of the snapshot that was followed
//!   last: a caller may hold on to a description of its topic for as long as it likes.
//! - Of a topic that is gone nothing is kept once its queues are empty.

use std::cell::LazyCell;
use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::Instant;
use uuid::Uuid;

use super::super::error::ProduceError;
use super::super::partitioner::{Sticky, partition_for_key};
use super::super::queue::Queue;
use super::{Accumulator, Effects, Line};
use crate::metadata::{ClusterSnapshot, TopicMetadata};
use crate::record::NewRecord;
use crate::topic::TopicPartition;

/// A topic that was written to.
#[derive(Debug)]
pub(super) struct TopicQueues {
    pub(super) name: Arc<str>,
    pub(super) id: Uuid,
    /// How many partitions the topic has.
    pub(super) count: i32,
    /// By partition: where in `lines`.
    pub(super) lines: Vec<Option<usize>>,
    pub(super) sticky: Sticky,
}

impl Accumulator {
    /// Where the topic is among those that were written to.
    pub(super) fn topic_at(&mut self, topic: &Arc<TopicMetadata>) -> usize {
        match &self.recent {
            Some((name, at)) if Arc::ptr_eq(name, &topic.name) => return *at,
            _ => {}
        }
        let at = match self.names.get(&topic.name) {
            Some(&at) => at,
            None => {
                let at = self.topics.len();
                let newest = self.known.topic(&topic.name).unwrap_or(topic);
                self.topics.push(TopicQueues {
                    name: topic.name.clone(),
                    id: newest.id,
                    count: count_of(newest),
                    lines: Vec::new(),
                    sticky: Sticky::new(at as u64 ^ (Arc::as_ptr(topic) as usize as u64)),
                });
                self.names.insert(topic.name.clone(), at);
                at
            }
        };
        self.recent = Some((topic.name.clone(), at));
        at
    }

    /// Where the record's queue is.
    pub(super) fn line_of(
        &mut self,
        among: usize,
        topic: &Arc<TopicMetadata>,
        partition: Option<i32>,
        record: &NewRecord<'_>,
    ) -> Result<usize, ProduceError> {
        let queues = &mut self.topics[among];
        let count = queues.count;
        if count == 0 || partition.is_some_and(|partition| !(0..count).contains(&partition)) {
            return Err(ProduceError::InvalidPartition {
                topic: topic.name.clone(),
                partition: partition.unwrap_or(0),
                partitions: count,
            });
        }
        let newest = LazyCell::new(|| self.known.topic(&topic.name).unwrap_or(topic));
        let partition = match (partition, record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_for_key(key, count),
            (None, None) => {
                let lines = &queues.lines;
                let waiting = |partition: i32| match lines.get(partition as usize) {
                    Some(&Some(at)) => {
                        let queue = &self.lines[at].queue;
                        queue.leader().map(|_| queue.waiting())
                    }
                    _ => newest.leader(partition).map(|_| 0),
                };
                queues.sticky.current(count, waiting)
            }
        };
        let slot = partition as usize;
        if queues.lines.len() <= slot {
            queues.lines.resize(slot + 1, None);
        }
        Ok(*queues.lines[slot].get_or_insert_with(|| {
            let at = TopicPartition::new(topic.name.clone(), partition);
            let mut queue = Queue::new(at, self.limits);
            // Of a topic that is not listed an old handle knows old leaders.
            let listed = self.known.topic(&topic.name);
            queue.set_leader(listed.and_then(|listed| listed.leader(partition)));
            let line = Line::new(queue, newest.id, self.limits);
            if let Some(at) = self.spare.pop() {
                self.lines[at] = line;
                return at;
            }
            self.lines.push(line);
            self.lines.len() - 1
        }))
    }

    pub(super) fn stick(&mut self, among: usize, size: usize, batch_ends: bool) {
        let sticky = &mut self.topics[among].sticky;
        sticky.wrote(size, batch_ends, self.sizes.batch);
    }

    /// Follows leaders, and topics that vanish or were created again.
    pub(in super::super) fn follow(
        &mut self,
        snapshot: &Arc<ClusterSnapshot>,
        now: Instant,
        effects: &mut Effects,
    ) {
        let before = std::mem::replace(&mut self.known, Arc::clone(snapshot));
        let mut changed = Vec::new();
        for queues in &mut self.topics {
            let lines = || queues.lines.iter().copied().flatten();
            let Some(topic) = snapshot.topic(&queues.name) else {
                // Whoever led it, nobody does now.
                changed.extend(lines().filter(|&at| self.lines[at].queue.set_leader(None)));
                continue;
            };
            let same = |before: &Arc<TopicMetadata>| Arc::ptr_eq(before, topic);
            if before.topic(&queues.name).is_some_and(same) {
                continue;
            }
            // Brokers before 2.8 know no ids.
            let recreated = !queues.id.is_nil() && !topic.id.is_nil() && queues.id != topic.id;
            for at in lines() {
                let line = &mut self.lines[at];
                line.topic_id = topic.id;
                if recreated {
                    line.queue.recreated(&mut effects.settled);
                }
                let leader = topic.leader(line.queue.partition().partition);
                if line.queue.set_leader(leader) || recreated || leader.is_none() {
                    changed.push(at);
                }
            }
            queues.id = topic.id;
            queues.count = count_of(topic);
        }
        for at in changed {
            self.look(at, now, effects);
        }
        self.forget(|_| true);
    }

    /// Topics of which it is to be found out whether they are gone.
    pub(in super::super) fn take_missing(&mut self) -> HashSet<Arc<str>> {
        std::mem::take(&mut self.missing)
    }

    /// Whether that snapshot is the one that was followed last.
    pub(in super::super) fn follows(&self, snapshot: &Arc<ClusterSnapshot>) -> bool {
        Arc::ptr_eq(&self.known, snapshot)
    }

    /// Fails what waits to be sent to a topic.
    pub(in super::super) fn fail_topic(
        &mut self,
        topic: &str,
        error: &ProduceError,
        now: Instant,
        effects: &mut Effects,
    ) {
        let Some(&among) = self.names.get(topic) else {
            return;
        };
        let slots = self.topics[among].lines.len();
        for slot in 0..slots {
            if let Some(at) = self.topics[among].lines[slot] {
                self.lines[at].queue.fail(error, &mut effects.settled);
                self.look(at, now, effects);
            }
        }
        self.forget(|name| name == topic);
    }

    /// Drops topics that the cluster does not list, and their queues, if these are empty.
    fn forget(&mut self, wanted: impl Fn(&str) -> bool) {
        let mut at = 0;
        while let Some(queues) = self.topics.get(at) {
            let is_empty = |&line: &usize| self.lines[line].queue.is_empty();
            if !wanted(&queues.name)
                || self.known.topic(&queues.name).is_some()
                || !queues.lines.iter().flatten().all(is_empty)
            {
                at += 1;
                continue;
            }
            let gone = self.topics.swap_remove(at);
            self.names.remove(&gone.name);
            if let Some(moved) = self.topics.get(at) {
                self.names.insert(moved.name.clone(), at);
            }
            self.recent = None;
            for line in gone.lines.into_iter().flatten() {
                self.vacate(line);
            }
        }
    }

    /// Makes a line, whose queue is empty, ready for another partition.
    fn vacate(&mut self, at: usize) {
        let line = &mut self.lines[at];
        // Should the topic only have been out of sight, then its next queue counts from 0:
        // under the same producer id that would look like the first records once more.
        if self
            .fresh
            .is_some_and(|fresh| line.queue.has_used(fresh.id))
        {
            self.fresh = None;
        }
        if let Some(timer) = line.timer {
            self.timers.remove(&(timer, at));
        }
        let partition = line.queue.partition().clone();
        *line = Line::new(Queue::new(partition, self.limits), Uuid::nil(), self.limits);
        self.spare.push(at);
    }
}

fn count_of(topic: &TopicMetadata) -> i32 {
    i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX)
}
