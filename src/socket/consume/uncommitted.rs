//! The records that a client with `autoCommit=false` has been sent and has not committed.
//!
//! ```text
//! delivered ─▶ stack per partition (`max-stack-size` entries, oldest dropped first)
//! find(id) ─ delivered here, not below the last commit ─▶ position to commit ─▶ forget_before
//!              └─ else: unknown
//! commit_delivered_until(then) ─ the newest entry from then or before ─▶ position to commit
//! ```
//!
//! An id whose entry the stack has dropped is still known: its offset lies in what was
//! delivered. While the entry is there, the id has to match it exactly.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use super::encoded_frames::RecordFrame;
use kafka_client::consumer::{FetchPosition, TopicPartition};

/// Deliveries and commits of one socket.
#[derive(Debug)]
pub(super) struct UncommittedRecords {
    stack_size_max: usize,
    /// By topic and partition.
    topics: HashMap<Arc<str>, HashMap<i32, UncommittedPartition>>,
}

#[derive(Debug)]
struct UncommittedPartition {
    tp: TopicPartition,
    /// Everything before it is committed, or was never delivered here.
    committed: i64,
    /// What lies before it is not in the stack any more.
    stack_start: i64,
    /// After the last record that was delivered.
    delivered_end: i64,
    /// The oldest entry first.
    stack: VecDeque<UncommittedRecord>,
}

#[derive(Clone, Copy, Debug)]
struct UncommittedRecord {
    offset: i64,
    timestamp: i64,
    leader_epoch: i32,
    delivered_at: Instant,
}

impl UncommittedRecord {
    fn next_position(&self) -> FetchPosition {
        FetchPosition {
            offset: self.offset + 1,
            leader_epoch: self.leader_epoch,
        }
    }
}

impl UncommittedRecords {
    /// Nothing delivered yet.
    pub(super) fn new(stack_size_max: usize) -> Self {
        Self {
            stack_size_max,
            topics: HashMap::new(),
        }
    }

    /// These records of `tp` were sent, in order.
    pub(super) fn delivered(&mut self, tp: &TopicPartition, records: &[RecordFrame], now: Instant) {
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
                stack_start: first.offset,
                delivered_end: first.offset,
                stack: VecDeque::new(),
            });
        if first.offset < partition.delivered_end {
            // The log was truncated, or the position reset: what came after is gone.
            partition.committed = partition.committed.min(first.offset);
            partition.stack_start = partition.stack_start.min(first.offset);
            partition.stack.retain(|entry| entry.offset < first.offset);
        }
        partition.delivered_end = last.offset + 1;
        let keep = records.len().min(self.stack_size_max);
        let (dropped, kept) = records.split_at(records.len() - keep);
        if let Some(last) = dropped.last() {
            partition.stack.clear();
            partition.stack_start = last.offset + 1;
        }
        for frame in kept {
            if partition.stack.len() == self.stack_size_max
                && let Some(oldest) = partition.stack.pop_front()
            {
                partition.stack_start = oldest.offset + 1;
            }
            partition.stack.push_back(UncommittedRecord {
                offset: frame.offset,
                timestamp: frame.timestamp,
                leader_epoch: frame.leader_epoch,
                delivered_at: now,
            });
        }
    }

    /// The position to commit when the client has processed that record and those before it, or
    /// `None` when the id is not known.
    pub(super) fn find(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        timestamp: i64,
    ) -> Option<(TopicPartition, FetchPosition)> {
        let partition = self.topics.get(topic)?.get(&partition)?;
        if !(partition.committed..partition.delivered_end).contains(&offset) {
            return None;
        }
        let next = match offset < partition.stack_start {
            true => FetchPosition {
                offset: offset + 1,
                leader_epoch: -1,
            },
            false => {
                let stack = &partition.stack;
                let at = stack.partition_point(|entry| entry.offset < offset);
                let matches =
                    |e: &&UncommittedRecord| e.offset == offset && e.timestamp == timestamp;
                stack.get(at).filter(matches)?.next_position()
            }
        };
        Some((partition.tp.clone(), next))
    }

    /// Everything of `tp` before `offset` is committed.
    pub(super) fn forget_before(&mut self, tp: &TopicPartition, offset: i64) {
        let topic = self.topics.get_mut(&*tp.topic);
        if let Some(partition) = topic.and_then(|topic| topic.get_mut(&tp.partition)) {
            partition.forget_before(offset);
        }
    }

    /// Of each partition the position after its newest entry that was delivered at `until` or
    /// earlier: `commit` says whether it took it for commit, and then the older are forgotten.
    pub(super) fn commit_delivered_until(
        &mut self,
        until: Instant,
        mut commit: impl FnMut(&TopicPartition, FetchPosition) -> bool,
    ) {
        let partitions = self.topics.values_mut().flat_map(HashMap::values_mut);
        for partition in partitions {
            let stack = &partition.stack;
            // They were delivered in the order in which they stand.
            let aged = stack.partition_point(|entry| entry.delivered_at <= until);
            if let Some(newest) = aged.checked_sub(1).and_then(|at| stack.get(at)) {
                let next = newest.next_position();
                if commit(&partition.tp, next) {
                    partition.forget_before(next.offset);
                }
            }
        }
    }

    /// When the oldest entry was delivered.
    pub(super) fn oldest_delivered_at(&self) -> Option<Instant> {
        let partitions = self.topics.values().flat_map(HashMap::values);
        let oldest = partitions.filter_map(|partition| partition.stack.front());
        oldest.map(|entry| entry.delivered_at).min()
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

impl UncommittedPartition {
    fn forget_before(&mut self, offset: i64) {
        let covered = self.stack.partition_point(|entry| entry.offset < offset);
        self.stack.drain(..covered);
        self.committed = offset;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frames(offsets: impl IntoIterator<Item = i64>) -> Vec<RecordFrame> {
        let frame = |offset| RecordFrame {
            record_bytes_before: 0,
            end: 0,
            leader_epoch: 3,
            offset,
            timestamp: offset * 100,
        };
        offsets.into_iter().map(frame).collect()
    }

    fn uncommitted(size: usize, offsets: impl IntoIterator<Item = i64>) -> UncommittedRecords {
        let mut uncommitted = UncommittedRecords::new(size);
        uncommitted.delivered(&t0(), &frames(offsets), Instant::now());
        uncommitted
    }

    fn t0() -> TopicPartition {
        TopicPartition::new("t", 0)
    }

    /// What a client's commit does.
    fn committed(uncommitted: &mut UncommittedRecords, offset: i64) -> Option<i64> {
        let (tp, position) = uncommitted.find("t", 0, offset, offset * 100)?;
        uncommitted.forget_before(&tp, position.offset);
        Some(position.offset)
    }

    /// What is committed of `t-0` because it was delivered at `until` or earlier.
    fn committed_by_age(uncommitted: &mut UncommittedRecords, until: Instant) -> Option<i64> {
        let mut committed = None;
        uncommitted.commit_delivered_until(until, |tp, position| {
            assert_eq!((tp, position.leader_epoch), (&t0(), 3));
            committed = Some(position.offset);
            true
        });
        committed
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
        assert_eq!(uncommitted.find("t", 0, 6, 1), None, "another timestamp");
        assert_eq!(uncommitted.find("t", 1, 6, 600), None);
        assert_eq!(uncommitted.find("u", 0, 6, 600), None);
    }

    #[test]
    fn what_the_stack_has_dropped_is_still_known() {
        let mut uncommitted = uncommitted(3, 0..10);
        assert_eq!(uncommitted.topics["t"][&0].stack.len(), 3);
        assert_eq!(committed(&mut uncommitted, 2), Some(3));
        let (tp, position) = uncommitted.find("t", 0, 8, 800).unwrap();
        assert_eq!((position.offset, position.leader_epoch), (9, 3));
        uncommitted.forget_before(&tp, 9);
        let now = Instant::now();
        uncommitted.delivered(&tp, &frames(10..12), now);
        uncommitted.delivered(&tp, &frames(12..14), now);
        assert_eq!(uncommitted.topics["t"][&0].stack.len(), 3);
        assert_eq!(committed(&mut uncommitted, 9), Some(10));
    }

    #[test]
    fn the_ids_of_a_partition_that_was_removed_are_unknown() {
        let mut uncommitted = uncommitted(100, 0..3);
        uncommitted.remove_partitions(&[t0()]);
        assert_eq!(committed(&mut uncommitted, 1), None);
        assert_eq!(uncommitted.oldest_delivered_at(), None);
        assert_eq!(committed_by_age(&mut uncommitted, Instant::now()), None);
    }

    #[test]
    fn what_was_delivered_long_enough_ago_is_committed_and_the_rest_stays() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut uncommitted = UncommittedRecords::new(100);
        uncommitted.delivered(&t0(), &frames(0..3), at(0));
        uncommitted.delivered(&t0(), &frames(3..5), at(1));
        uncommitted.delivered(&TopicPartition::new("u", 0), &frames(0..1), at(3));
        uncommitted.delivered(&t0(), &frames(5..6), at(3));
        assert_eq!(uncommitted.oldest_delivered_at(), Some(at(0)));
        assert_eq!(committed_by_age(&mut uncommitted, at(1)), Some(5));
        assert_eq!(committed_by_age(&mut uncommitted, at(2)), None);
        assert_eq!(uncommitted.oldest_delivered_at(), Some(at(3)));
        assert_eq!(committed(&mut uncommitted, 4), None, "committed already");
        assert_eq!(committed(&mut uncommitted, 5), Some(6));
    }

    #[test]
    fn what_is_not_taken_for_commit_is_offered_again() {
        let now = Instant::now();
        let mut uncommitted = UncommittedRecords::new(100);
        uncommitted.delivered(&t0(), &frames(0..3), now);
        uncommitted.commit_delivered_until(now, |_, _| false);
        assert_eq!(committed_by_age(&mut uncommitted, now), Some(3));
    }

    #[test]
    fn the_age_of_what_the_stack_has_dropped_does_not_count() {
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        let mut uncommitted = UncommittedRecords::new(2);
        uncommitted.delivered(&t0(), &frames(0..2), start);
        uncommitted.delivered(&t0(), &frames(2..4), later);
        assert_eq!(uncommitted.oldest_delivered_at(), Some(later));
        assert_eq!(committed_by_age(&mut uncommitted, start), None);
        assert_eq!(committed_by_age(&mut uncommitted, later), Some(4));
    }
}
