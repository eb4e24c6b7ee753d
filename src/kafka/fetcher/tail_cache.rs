//! The newest chunks of one partition, in offset order, for all cursors near its end.
//!
//! ```text
//!               start                     end
//!                 ├── chunk ──┬── chunk ──┤ ← the tail appends here
//!  before start   │        found          │ at the end / past the end
//! ```
//!
//! # Invariants
//! - All of it is in the log of the leader of `validated_epoch` (KIP-320, see
//!   [`fetch_state`](super::fetch_state)): a chunk of an earlier leader is not appended.
//! - The chunks cover `start..end` without a gap. A chunk may begin before the end of
//!   the one before it (a fetch that overlapped); it never begins after it.
//! - Sans-I/O: no clock, no lock, no budget.

use std::collections::VecDeque;
use std::sync::Arc;

/// A range of a partition's offsets that one fetch read.
pub(super) trait OffsetRange {
    /// The fetch offset: the one that was asked for.
    fn first_offset(&self) -> i64;
    /// The offset to fetch next.
    fn next_offset(&self) -> i64;
    /// Leader epoch of its last batch.
    fn last_epoch(&self) -> i32;
    /// Epoch of the leader that it was read from.
    fn serving_epoch(&self) -> i32;
    /// Whether it holds no record to deliver.
    fn is_empty(&self) -> bool;
}

/// The newest chunks, each under the number by which it can be evicted.
#[derive(Debug)]
pub(super) struct TailCache<C> {
    chunks: VecDeque<(u64, Arc<C>)>,
    start: i64,
    end: i64,
    /// Leader epoch of the record before `end`; −1 when unknown.
    end_epoch: i32,
    /// Serving epoch of what led to `end`: all leaders from that one to `validated_epoch` have
    /// `end` in their logs.
    end_serving_epoch: i32,
    /// `end` and `end_serving_epoch` before a chunk of a new leader was appended.
    former_end: Option<(i64, i32)>,
    /// Epoch of the latest leader whose log `end` was fetched from or validated against.
    validated_epoch: i32,
}

/// Where an offset lies.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TailCacheLookup<C> {
    BeforeStart,
    Found(Arc<C>),
    AtEnd,
    PastEnd,
}

impl<C: OffsetRange> TailCache<C> {
    /// An empty tail cache whose first chunk will begin at `offset`; `end_epoch` is the leader
    /// epoch of the record before it. The position is valid in the log of the leader of
    /// `validated_epoch`.
    pub(super) fn starting_at(offset: i64, end_epoch: i32, validated_epoch: i32) -> Self {
        Self {
            chunks: VecDeque::new(),
            start: offset,
            end: offset,
            end_epoch,
            end_serving_epoch: validated_epoch,
            former_end: None,
            validated_epoch,
        }
    }

    /// How many chunks it has.
    pub(super) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// The leader of `epoch` read on from the end, or its log was compared with it.
    pub(super) fn validated(&mut self, epoch: i32) {
        self.validated_epoch = self.validated_epoch.max(epoch);
    }

    /// Whether the end is known to be in the log of the leader of `epoch`. Without an epoch
    /// of its record there is nothing to compare.
    pub(super) fn is_valid_in(&self, epoch: i32) -> bool {
        self.end_epoch < 0 || self.was_validated_in(epoch)
    }

    /// Whether the end was compared with the log of the leader of `epoch`, or came from it.
    pub(super) fn was_validated_in(&self, epoch: i32) -> bool {
        self.validated_epoch >= epoch
    }

    /// Whether the end's validation in that epoch, done or to come, holds for this position
    /// too: it lies before it, and was read from one of the logs that all hold the end.
    pub(super) fn covers(&self, offset: i64, validated_epoch: i32, epoch: i32) -> bool {
        let ends = [self.former_end, Some((self.end, self.end_serving_epoch))];
        let before = |(end, since)| offset <= end && validated_epoch >= since;
        (self.end_epoch >= 0 || self.was_validated_in(epoch))
            && ends.into_iter().flatten().any(before)
    }

    /// The end moves to `next`, up to which the leader of `epoch` was fetched from. `false`: it is
    /// a former leader.
    fn move_end(&mut self, next: i64, end_epoch: i32, epoch: i32) -> bool {
        if epoch < self.validated_epoch {
            return false;
        }
        if epoch > self.end_serving_epoch {
            self.former_end = Some((self.end, self.end_serving_epoch));
            self.end_serving_epoch = epoch;
        }
        self.validated_epoch = epoch;
        self.end = next;
        self.end_epoch = end_epoch;
        true
    }

    pub(super) fn end(&self) -> i64 {
        self.end
    }

    pub(super) fn end_epoch(&self) -> i32 {
        self.end_epoch
    }

    pub(super) fn lookup(&self, offset: i64) -> TailCacheLookup<C> {
        if offset < self.start {
            return TailCacheLookup::BeforeStart;
        }
        if offset >= self.end {
            return if offset == self.end {
                TailCacheLookup::AtEnd
            } else {
                TailCacheLookup::PastEnd
            };
        }
        // Most often it is in the newest chunk.
        let ends_before = |(_, chunk): &(u64, Arc<C>)| chunk.next_offset() <= offset;
        let newest = self.chunks.len().saturating_sub(1);
        let index = match self.chunks.range(..newest).next_back() {
            Some(before) if !ends_before(before) => self.chunks.partition_point(ends_before),
            _ => newest,
        };
        match self.chunks.get(index) {
            Some((_, chunk)) => TailCacheLookup::Found(chunk.clone()),
            None => TailCacheLookup::AtEnd,
        }
    }

    /// Appends `chunk` under `seq`, unless it brings nothing new or would leave a gap.
    pub(super) fn append(&mut self, seq: u64, chunk: Arc<C>) -> bool {
        let (next, epochs) = (
            chunk.next_offset(),
            (chunk.last_epoch(), chunk.serving_epoch()),
        );
        if !self.accepts(chunk.first_offset(), next) || !self.move_end(next, epochs.0, epochs.1) {
            return false;
        }
        self.chunks.push_back((seq, chunk));
        true
    }

    /// Whether a chunk of these bounds would be appended.
    pub(super) fn accepts(&self, first: i64, next: i64) -> bool {
        first <= self.end && next > self.end
    }

    /// Goes on at `next`, up to which the leader of `serving_epoch` was fetched from, without the
    /// chunks before it: cursors that want those offsets have them fetched again. `false`: that
    /// leader is a former one.
    pub(super) fn skip_to(&mut self, next: i64, end_epoch: i32, serving_epoch: i32) -> bool {
        if !self.move_end(next, end_epoch, serving_epoch) {
            return false;
        }
        self.chunks.clear();
        self.start = next;
        true
    }

    /// Evicts all chunks up to and including the one that was appended under `seq`, if that
    /// is still here.
    pub(super) fn evict_through(&mut self, seq: u64) -> Vec<Arc<C>> {
        let mut evicted = Vec::new();
        if self
            .chunks
            .binary_search_by_key(&seq, |(seq, _)| *seq)
            .is_err()
        {
            return evicted;
        }
        while let Some((front, _)) = self.chunks.front()
            && *front <= seq
        {
            if let Some((_, chunk)) = self.chunks.pop_front() {
                self.start = chunk.next_offset();
                evicted.push(chunk);
            }
        }
        evicted
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A chunk without records.
    #[derive(Debug, PartialEq, Eq)]
    pub(in super::super) struct TestChunk {
        pub(in super::super) first: i64,
        pub(in super::super) next: i64,
        pub(in super::super) last_epoch: i32,
        pub(in super::super) serving_epoch: i32,
        pub(in super::super) empty: bool,
    }

    impl OffsetRange for TestChunk {
        fn first_offset(&self) -> i64 {
            self.first
        }
        fn next_offset(&self) -> i64 {
            self.next
        }
        fn last_epoch(&self) -> i32 {
            self.last_epoch
        }
        fn serving_epoch(&self) -> i32 {
            self.serving_epoch
        }
        fn is_empty(&self) -> bool {
            self.empty
        }
    }

    pub(in super::super) fn span(first: i64, next: i64) -> Arc<TestChunk> {
        Arc::new(TestChunk {
            first,
            next,
            last_epoch: 0,
            serving_epoch: 0,
            empty: false,
        })
    }

    fn three_chunks() -> TailCache<TestChunk> {
        let mut tail_cache = TailCache::starting_at(10, -1, 0);
        assert!(tail_cache.append(0, span(10, 20)));
        assert!(tail_cache.append(1, span(20, 21)));
        assert!(tail_cache.append(2, span(21, 30)));
        tail_cache
    }

    #[test]
    fn lookup_finds_the_chunk_that_covers_an_offset() {
        let tail_cache = three_chunks();
        assert_eq!(tail_cache.lookup(9), TailCacheLookup::BeforeStart);
        assert_eq!(tail_cache.lookup(10), TailCacheLookup::Found(span(10, 20)));
        assert_eq!(tail_cache.lookup(19), TailCacheLookup::Found(span(10, 20)));
        assert_eq!(tail_cache.lookup(20), TailCacheLookup::Found(span(20, 21)));
        assert_eq!(tail_cache.lookup(29), TailCacheLookup::Found(span(21, 30)));
        assert_eq!(tail_cache.lookup(30), TailCacheLookup::AtEnd);
        assert_eq!(tail_cache.lookup(31), TailCacheLookup::PastEnd);
    }

    #[test]
    fn a_chunk_that_brings_nothing_new_or_leaves_a_gap_is_not_appended() {
        let mut tail_cache = three_chunks();
        assert!(!tail_cache.append(3, span(21, 30)));
        assert!(!tail_cache.append(3, span(31, 40)));
        assert_eq!(tail_cache.end(), 30);
    }

    #[test]
    fn an_overlapping_chunk_serves_only_what_the_one_before_lacks() {
        let mut tail_cache = three_chunks();
        assert!(tail_cache.append(3, span(25, 40)));
        assert_eq!(tail_cache.lookup(29), TailCacheLookup::Found(span(21, 30)));
        assert_eq!(tail_cache.lookup(30), TailCacheLookup::Found(span(25, 40)));
    }

    #[test]
    fn eviction_moves_the_start() {
        let mut tail_cache = three_chunks();
        assert_eq!(tail_cache.evict_through(1), [span(10, 20), span(20, 21)]);
        assert_eq!(tail_cache.evict_through(1), [], "gone already");
        assert_eq!(tail_cache.lookup(20), TailCacheLookup::BeforeStart);
        assert_eq!(tail_cache.lookup(21), TailCacheLookup::Found(span(21, 30)));
        assert_eq!(tail_cache.evict_through(2), [span(21, 30)]);
        assert_eq!(tail_cache.lookup(29), TailCacheLookup::BeforeStart);
        assert_eq!(tail_cache.lookup(30), TailCacheLookup::AtEnd);
        assert!(tail_cache.append(3, span(30, 31)));
        assert_eq!(tail_cache.lookup(30), TailCacheLookup::Found(span(30, 31)));
    }

    #[test]
    fn a_skip_leaves_out_those_before_it() {
        let mut tail_cache = three_chunks();
        assert!(tail_cache.skip_to(50, 0, 0));
        assert_eq!(tail_cache.lookup(49), TailCacheLookup::BeforeStart);
        assert_eq!(tail_cache.lookup(50), TailCacheLookup::AtEnd);
    }
}
