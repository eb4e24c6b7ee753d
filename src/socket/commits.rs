//! What a client with `autoCommit=false` may commit.
//!
//! ```text
//! delivered ─▶ stack per partition (bounded, oldest dropped first)
//! commit(id) ─ delivered here, not below the last commit ─▶ position to store
//!                └─ else: unknown
//! ```
//!
//! An id whose entry the stack has dropped is still known: its offset lies in what was
//! delivered. While the entry is there, the id has to name it exactly.
//!
//! The entries carry the time of their delivery: committing those of a certain age by
//! ourselves works on this stack.

use std::collections::VecDeque;

use super::encoded::Mark;
use kafka_client::TopicPartition;
use kafka_client::consumer::FetchPosition;
use tokio::time::Instant;

/// Deliveries and commits of one socket.
#[derive(Debug)]
pub(super) struct Commits {
    stack_size_max: usize,
    partitions: Vec<Partition>,
}

#[derive(Debug)]
struct Partition {
    tp: TopicPartition,
    /// Everything before it is committed, or was never delivered here.
    committed: i64,
    /// What lies before it is not in the stack any more.
    dropped: i64,
    /// Behind the last record that was delivered.
    next: i64,
    stack: VecDeque<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: i64,
    timestamp: i64,
    epoch: i32,
    _delivered: Instant,
}

impl Commits {
    /// Nothing delivered yet.
    pub(super) fn new(stack_size_max: usize) -> Self {
        Self {
            stack_size_max,
            partitions: Vec::new(),
        }
    }

    /// These records of `tp` were handed to the kernel, in order.
    pub(super) fn delivered(&mut self, tp: &TopicPartition, records: &[Mark], now: Instant) {
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return;
        };
        let known = self.partitions.iter().position(|p| p.tp == *tp);
        let index = known.unwrap_or_else(|| {
            self.partitions.push(Partition {
                tp: tp.clone(),
                committed: first.offset,
                dropped: first.offset,
                next: first.offset,
                stack: VecDeque::new(),
            });
            self.partitions.len() - 1
        });
        let partition = &mut self.partitions[index];
        if first.offset < partition.next {
            // The log was cut, or the position reset: what lay behind is no more.
            partition.committed = partition.committed.min(first.offset);
            partition.dropped = partition.dropped.min(first.offset);
            partition.stack.retain(|entry| entry.offset < first.offset);
        }
        partition.next = last.offset + 1;
        let keep = records.len().min(self.stack_size_max);
        let (dropped, kept) = records.split_at(records.len() - keep);
        if let Some(last) = dropped.last() {
            partition.stack.clear();
            partition.dropped = last.offset + 1;
        }
        for mark in kept {
            if partition.stack.len() == self.stack_size_max
                && let Some(oldest) = partition.stack.pop_front()
            {
                partition.dropped = oldest.offset + 1;
            }
            partition.stack.push_back(Entry {
                offset: mark.offset,
                timestamp: mark.timestamp,
                epoch: mark.epoch,
                _delivered: now,
            });
        }
    }

    /// The client is done with that record and those before it: the position to commit,
    /// or `None` when the id is not known.
    pub(super) fn commit(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        timestamp: i64,
    ) -> Option<(TopicPartition, FetchPosition)> {
        let partition = self
            .partitions
            .iter_mut()
            .find(|p| p.tp.partition == partition && *p.tp.topic == *topic)?;
        if !(partition.committed..partition.next).contains(&offset) {
            return None;
        }
        let leader_epoch = match offset < partition.dropped {
            true => -1,
            false => {
                let stack = &partition.stack;
                let at = stack.partition_point(|entry| entry.offset < offset);
                let named = |e: &&Entry| e.offset == offset && e.timestamp == timestamp;
                stack.get(at).filter(named)?.epoch
            }
        };
        let done = partition
            .stack
            .partition_point(|entry| entry.offset <= offset);
        partition.stack.drain(..done);
        partition.committed = offset + 1;
        let position = FetchPosition {
            offset: offset + 1,
            leader_epoch,
        };
        Some((partition.tp.clone(), position))
    }

    /// These partitions are not ours any more.
    pub(super) fn forget(&mut self, partitions: &[TopicPartition]) {
        self.partitions.retain(|p| !partitions.contains(&p.tp));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(offsets: impl IntoIterator<Item = i64>) -> Vec<Mark> {
        let mark = |offset| Mark {
            end: 0,
            epoch: 3,
            offset,
            timestamp: offset * 100,
        };
        offsets.into_iter().map(mark).collect()
    }

    fn commits(size: usize, offsets: impl IntoIterator<Item = i64>) -> Commits {
        let mut commits = Commits::new(size);
        let tp = TopicPartition::new("t", 0);
        commits.delivered(&tp, &marks(offsets), Instant::now());
        commits
    }

    fn offset(commits: &mut Commits, offset: i64) -> Option<i64> {
        let (_, position) = commits.commit("t", 0, offset, offset * 100)?;
        Some(position.offset)
    }

    #[test]
    fn a_commit_covers_the_older_records_of_its_partition() {
        let mut commits = commits(100, 5..10);
        assert_eq!(offset(&mut commits, 7), Some(8));
        assert_eq!(offset(&mut commits, 6), None, "below the last commit");
        assert_eq!(offset(&mut commits, 7), None, "committed already");
        assert_eq!(offset(&mut commits, 9), Some(10));
    }

    #[test]
    fn what_was_not_delivered_here_is_unknown() {
        let mut commits = commits(100, [5, 6, 9]);
        assert_eq!(offset(&mut commits, 4), None);
        assert_eq!(offset(&mut commits, 10), None);
        assert_eq!(offset(&mut commits, 7), None, "compacted away");
        assert_eq!(commits.commit("t", 0, 6, 1), None, "another timestamp");
        assert_eq!(commits.commit("t", 1, 6, 600), None);
        assert_eq!(commits.commit("u", 0, 6, 600), None);
    }

    #[test]
    fn what_the_stack_has_dropped_is_still_known() {
        let mut commits = commits(3, 0..10);
        assert_eq!(commits.partitions[0].stack.len(), 3);
        assert_eq!(offset(&mut commits, 2), Some(3));
        let (_, position) = commits.commit("t", 0, 8, 800).unwrap();
        assert_eq!((position.offset, position.leader_epoch), (9, 3));
        let tp = TopicPartition::new("t", 0);
        commits.delivered(&tp, &marks(10..12), Instant::now());
        commits.delivered(&tp, &marks(12..14), Instant::now());
        assert_eq!(commits.partitions[0].stack.len(), 3);
        assert_eq!(offset(&mut commits, 9), Some(10));
    }

    #[test]
    fn a_partition_that_is_gone_takes_its_ids_with_it() {
        let mut commits = commits(100, 0..3);
        commits.forget(&[TopicPartition::new("t", 0)]);
        assert_eq!(offset(&mut commits, 1), None);
    }
}
