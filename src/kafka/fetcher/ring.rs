//! The newest chunks of one partition, in offset order, for everybody near its end.
//!
//! ```text
//!        start                     end
//!          ├── chunk ──┬── chunk ──┤ ← the tail appends here
//!  behind  │        found          │ at the end / ahead
//! ```
//!
//! # Invariants
//! - The chunks cover `start..end` without a gap. A chunk may begin before the end of
//!   the one ahead of it (a read that overlapped); it never begins after it.
//! - Pure: no clock, no lock, no budget.

use std::collections::VecDeque;
use std::sync::Arc;

/// A run of a partition's offsets that was read at once.
pub(super) trait OffsetRange {
    /// The offset that was asked for.
    fn first_offset(&self) -> i64;
    /// Where reading goes on.
    fn next_offset(&self) -> i64;
    /// Leader epoch of its last batch.
    fn last_epoch(&self) -> i32;
    /// Epoch of the leader that it was read from.
    fn serving_epoch(&self) -> i32;
    /// Whether nothing in it is to be delivered.
    fn is_empty(&self) -> bool;
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ring<C> {
    chunks: VecDeque<(u64, Arc<C>)>,
    start: i64,
    end: i64,
    /// Leader epoch of the record before `end`; −1 when unknown.
    end_epoch: i32,
}

/// Where an offset lies.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place<C> {
    Behind,
    Found(Arc<C>),
    AtEnd,
    Ahead,
}

impl<C: OffsetRange> Ring<C> {
    /// An empty ring whose first chunk will begin at `offset`, behind a record of `epoch`.
    pub(super) fn at(offset: i64, epoch: i32) -> Self {
        Self {
            chunks: VecDeque::new(),
            start: offset,
            end: offset,
            end_epoch: epoch,
        }
    }

    pub(super) fn end(&self) -> i64 {
        self.end
    }

    pub(super) fn end_epoch(&self) -> i32 {
        self.end_epoch
    }

    pub(super) fn find(&self, offset: i64) -> Place<C> {
        if offset < self.start {
            return Place::Behind;
        }
        if offset >= self.end {
            return if offset == self.end {
                Place::AtEnd
            } else {
                Place::Ahead
            };
        }
        // Mostly it is in the newest.
        let ends_before = |(_, chunk): &(u64, Arc<C>)| chunk.next_offset() <= offset;
        let newest = self.chunks.len().saturating_sub(1);
        let index = match self.chunks.range(..newest).next_back() {
            Some(before) if !ends_before(before) => self.chunks.partition_point(ends_before),
            _ => newest,
        };
        match self.chunks.get(index) {
            Some((_, chunk)) => Place::Found(chunk.clone()),
            None => Place::AtEnd,
        }
    }

    /// Appends `chunk` under `seq`, unless it brings nothing new or would leave a gap.
    pub(super) fn push(&mut self, seq: u64, chunk: Arc<C>) -> bool {
        if !self.accepts(chunk.first_offset(), chunk.next_offset()) {
            return false;
        }
        self.end = chunk.next_offset();
        self.end_epoch = chunk.last_epoch();
        self.chunks.push_back((seq, chunk));
        true
    }

    /// Whether a chunk of these bounds would be appended.
    pub(super) fn accepts(&self, first: i64, next: i64) -> bool {
        first <= self.end && next > self.end
    }

    /// Goes on at `next` without what lies before it: whoever wants that reads it again.
    pub(super) fn skip(&mut self, next: i64, epoch: i32) {
        self.chunks.clear();
        self.start = next;
        self.end = next;
        self.end_epoch = epoch;
    }

    /// Gives up everything up to and including what was pushed under `seq`, if that is
    /// still here.
    pub(super) fn evict(&mut self, seq: u64) -> Vec<Arc<C>> {
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

    /// A chunk of bounds only.
    #[derive(Debug, PartialEq, Eq)]
    pub(in super::super) struct Span {
        pub(in super::super) first: i64,
        pub(in super::super) next: i64,
        pub(in super::super) epoch: i32,
        pub(in super::super) under: i32,
        pub(in super::super) empty: bool,
    }

    impl OffsetRange for Span {
        fn first_offset(&self) -> i64 {
            self.first
        }
        fn next_offset(&self) -> i64 {
            self.next
        }
        fn last_epoch(&self) -> i32 {
            self.epoch
        }
        fn serving_epoch(&self) -> i32 {
            self.under
        }
        fn is_empty(&self) -> bool {
            self.empty
        }
    }

    pub(in super::super) fn span(first: i64, next: i64) -> Arc<Span> {
        Arc::new(Span {
            first,
            next,
            epoch: 0,
            under: 0,
            empty: false,
        })
    }

    fn ring() -> Ring<Span> {
        let mut ring = Ring::at(10, -1);
        assert!(ring.push(0, span(10, 20)));
        assert!(ring.push(1, span(20, 21)));
        assert!(ring.push(2, span(21, 30)));
        ring
    }

    #[test]
    fn every_offset_has_its_place() {
        let ring = ring();
        assert_eq!(ring.find(9), Place::Behind);
        assert_eq!(ring.find(10), Place::Found(span(10, 20)));
        assert_eq!(ring.find(19), Place::Found(span(10, 20)));
        assert_eq!(ring.find(20), Place::Found(span(20, 21)));
        assert_eq!(ring.find(29), Place::Found(span(21, 30)));
        assert_eq!(ring.find(30), Place::AtEnd);
        assert_eq!(ring.find(31), Place::Ahead);
    }

    #[test]
    fn a_chunk_that_brings_nothing_new_or_leaves_a_gap_is_refused() {
        let mut ring = ring();
        assert!(!ring.push(3, span(21, 30)));
        assert!(!ring.push(3, span(31, 40)));
        assert_eq!(ring.end(), 30);
    }

    #[test]
    fn an_overlapping_chunk_serves_only_what_the_one_before_lacks() {
        let mut ring = ring();
        assert!(ring.push(3, span(25, 40)));
        assert_eq!(ring.find(29), Place::Found(span(21, 30)));
        assert_eq!(ring.find(30), Place::Found(span(25, 40)));
    }

    #[test]
    fn eviction_moves_the_start() {
        let mut ring = ring();
        assert_eq!(ring.evict(1), [span(10, 20), span(20, 21)]);
        assert_eq!(ring.evict(1), [], "gone already");
        assert_eq!(ring.find(20), Place::Behind);
        assert_eq!(ring.find(21), Place::Found(span(21, 30)));
        assert_eq!(ring.evict(2), [span(21, 30)]);
        assert_eq!(ring.find(29), Place::Behind);
        assert_eq!(ring.find(30), Place::AtEnd);
        assert!(ring.push(3, span(30, 31)));
        assert_eq!(ring.find(30), Place::Found(span(30, 31)));
    }

    #[test]
    fn a_skip_leaves_those_before_it_behind() {
        let mut ring = ring();
        ring.skip(50, 0);
        assert_eq!(ring.find(49), Place::Behind);
        assert_eq!(ring.find(50), Place::AtEnd);
    }
}
