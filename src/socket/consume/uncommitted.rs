//! The records that a client with `autoCommit=false` has been sent and has not committed.
//!
//! ```text
//! delivered ─▶ queue per partition (`max-stack-size` entries, oldest dropped first)
//! commit(id) ─ delivered here, not below the last commit ─▶ position to commit
//!                └─ else: unknown
//! ```
//!
//! An id whose entry the queue has dropped is still known: its offset lies in what was
//! delivered. While the entry is there, the id has to match it exactly.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::encoded_frames::RecordFrame;
use kafka_client::consumer::{FetchPosition, TopicPartition};

/// Deliveries and commits of one socket.
#[derive(Debug)]
pub(super) struct UncommittedRecords {
    queue_len_max: usize,
    /// By topic and partition.
    topics: HashMap<Arc<str>, HashMap<i32, UncommittedPartition>>,
}

#[derive(Debug)]
struct UncommittedPartition {
    tp: TopicPartition,
    /// Everything before it is committed, or was never delivered here.
    committed: i64,
    /// What lies before it is not in the queue any more.
    queue_start: i64,
    /// After the last record that was delivered.
    delivered_end: i64,
    queue: VecDeque<UncommittedRecord>,
}

#[derive(Clone, Copy, Debug)]
struct UncommittedRecord {
    offset: i64,
    timestamp: i64,
    leader_epoch: i32,
}

impl UncommittedRecords {
    /// Nothing delivered yet.
    pub(super) fn new(queue_len_max: usize) -> Self {
        Self {
            queue_len_max,
            topics: HashMap::new(),
        }
    }

    /// These records of `tp` were sent, in order.
    pub(super) fn delivered(&mut self, tp: &TopicPartition, records: &[RecordFrame]) {
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return;
        };
        if !self.topics.contains_key(&*tp.topic) {
            self.topics.insert(Arc::clone(&tp.topic), HashMap::new());
        }
        let topic = self.topics.get_mut(&*tp.topic).expect("it is there");
        let partition = topic
            .entry(tp.partition)
            .or_insert_with(|| UncommittedPartition {
                tp: tp.clone(),
                committed: first.offset,
                queue_start: first.offset,
                delivered_end: first.offset,
                queue: VecDeque::new(),
            });
        if first.offset < partition.delivered_end {
            // The log was truncated, or the position reset: what came after is gone.
            partition.committed = partition.committed.min(first.offset);
            partition.queue_start = partition.queue_start.min(first.offset);
            partition.queue.retain(|entry| entry.offset < first.offset);
        }
        partition.delivered_end = last.offset + 1;
        let keep = records.len().min(self.queue_len_max);
        let (dropped, kept) = records.split_at(records.len() - keep);
        if let Some(last) = dropped.last() {
            partition.queue.clear();
            partition.queue_start = last.offset + 1;
        }
        for frame in kept {
            if partition.queue.len() == self.queue_len_max
                && let Some(oldest) = partition.queue.pop_front()
            {
                partition.queue_start = oldest.offset + 1;
            }
            partition.queue.push_back(UncommittedRecord {
                offset: frame.offset,
                timestamp: frame.timestamp,
                leader_epoch: frame.leader_epoch,
            });
        }
    }

    /// The client has processed that record and those before it: the position to commit, or
    /// `None` when the id is not known.
    pub(super) fn commit(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        timestamp: i64,
    ) -> Option<(TopicPartition, FetchPosition)> {
        let partition = self.topics.get_mut(topic)?.get_mut(&partition)?;
        if !(partition.committed..partition.delivered_end).contains(&offset) {
            return None;
        }
        let leader_epoch = match offset < partition.queue_start {
            true => -1,
            false => {
                let queue = &partition.queue;
                let at = queue.partition_point(|entry| entry.offset < offset);
                let matches =
                    |e: &&UncommittedRecord| e.offset == offset && e.timestamp == timestamp;
                queue.get(at).filter(matches)?.leader_epoch
            }
        };
        let covered = partition
            .queue
            .partition_point(|entry| entry.offset <= offset);
        partition.queue.drain(..covered);
        partition.committed = offset + 1;
        let position = FetchPosition {
            offset: offset + 1,
            leader_epoch,
        };
        Some((partition.tp.clone(), position))
    }

    /// These partitions are not assigned to the socket any more.
    pub(super) fn remove_partitions(&mut self, partitions: &[TopicPartition]) {
        for tp in partitions {
            if let Some(topic) = self.topics.get_mut(&*tp.topic) {
                topic.remove(&tp.partition);
                if topic.is_empty() {
                    self.topics.remove(&*tp.topic);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(offsets: impl IntoIterator<Item = i64>) -> Vec<RecordFrame> {
        let frame = |offset| RecordFrame {
            end: 0,
            leader_epoch: 3,
            offset,
            timestamp: offset * 100,
        };
        offsets.into_iter().map(frame).collect()
    }

    fn uncommitted(size: usize, offsets: impl IntoIterator<Item = i64>) -> UncommittedRecords {
        let mut uncommitted = UncommittedRecords::new(size);
        let tp = TopicPartition::new("t", 0);
        uncommitted.delivered(&tp, &frames(offsets));
        uncommitted
    }

    fn committed(uncommitted: &mut UncommittedRecords, offset: i64) -> Option<i64> {
        let (_, position) = uncommitted.commit("t", 0, offset, offset * 100)?;
        Some(position.offset)
    }

    #[test]
    fn a_commit_covers_the_older_records_of_its_partition() {
        let mut uncommitted = uncommitted(100, 5..10);
        assert_eq!(committed(&mut uncommitted, 7), Some(8));
        assert_eq!(
            committed(&mut uncommitted, 6),
            None,
            "below the last commit"
        );
        assert_eq!(committed(&mut uncommitted, 7), None, "committed already");
        assert_eq!(committed(&mut uncommitted, 9), Some(10));
    }

    #[test]
    fn what_was_not_delivered_here_is_unknown() {
        let mut uncommitted = uncommitted(100, [5, 6, 9]);
        assert_eq!(committed(&mut uncommitted, 4), None);
        assert_eq!(committed(&mut uncommitted, 10), None);
        assert_eq!(committed(&mut uncommitted, 7), None, "compacted away");
        assert_eq!(uncommitted.commit("t", 0, 6, 1), None, "another timestamp");
        assert_eq!(uncommitted.commit("t", 1, 6, 600), None);
        assert_eq!(uncommitted.commit("u", 0, 6, 600), None);
    }

    #[test]
    fn what_the_queue_has_dropped_is_still_known() {
        let mut uncommitted = uncommitted(3, 0..10);
        assert_eq!(uncommitted.topics["t"][&0].queue.len(), 3);
        assert_eq!(committed(&mut uncommitted, 2), Some(3));
        let (_, position) = uncommitted.commit("t", 0, 8, 800).unwrap();
        assert_eq!((position.offset, position.leader_epoch), (9, 3));
        let tp = TopicPartition::new("t", 0);
        uncommitted.delivered(&tp, &frames(10..12));
        uncommitted.delivered(&tp, &frames(12..14));
        assert_eq!(uncommitted.topics["t"][&0].queue.len(), 3);
        assert_eq!(committed(&mut uncommitted, 9), Some(10));
    }

    #[test]
    fn the_ids_of_a_partition_that_was_removed_are_unknown() {
        let mut uncommitted = uncommitted(100, 0..3);
        uncommitted.remove_partitions(&[TopicPartition::new("t", 0)]);
        assert_eq!(committed(&mut uncommitted, 1), None);
    }
}
