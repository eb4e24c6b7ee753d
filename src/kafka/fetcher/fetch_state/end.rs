//! The end of a partition: the ring, and the tail that extends it.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::ring::OffsetRange;
use super::{FetchStateUpdate, PartitionFetchState, TAIL_IDLE_MAX, TailMembership};

impl<C: OffsetRange> PartitionFetchState<C> {
    /// The ring that the tail has to extend and the offset to fetch for it, if the tail is to
    /// read this partition.
    pub(in crate::fetcher) fn tail_target(&self) -> Option<(u64, i64)> {
        match self.tail {
            TailMembership::Out => None,
            TailMembership::Requested | TailMembership::Joined => {
                let ring = self.ring.as_ref()?;
                Some((self.ring_number, ring.end()))
            }
        }
    }

    /// Asks for the tail. `false`: there is no ring to extend, or it is asked already.
    pub(in crate::fetcher) fn request_tail(&mut self) -> bool {
        let request = self.ring_is_valid() && self.tail == TailMembership::Out;
        if request {
            self.tail = TailMembership::Requested;
        }
        request
    }

    /// A request of the tail names this partition from now on.
    pub(in crate::fetcher) fn tail_joined(&mut self) {
        if self.tail == TailMembership::Requested {
            self.tail = TailMembership::Joined;
        }
    }

    /// The tail no longer reads this partition. Says whether a cursor waits for it.
    pub(in crate::fetcher) fn tail_left(&mut self) -> bool {
        self.tail = TailMembership::Out;
        if self.waiting_at_end.is_empty() {
            self.drop_ring();
        }
        !self.waiting_at_end.is_empty()
    }

    /// Whether what the tail read for that ring continues it.
    pub(in crate::fetcher) fn tail_accepts(&self, ring: u64, first: i64, next: i64) -> bool {
        self.tail != TailMembership::Out
            && ring == self.ring_number
            && self
                .ring
                .as_ref()
                .is_some_and(|ring| ring.accepts(first, next))
    }

    pub(in crate::fetcher) fn tail_append(
        &mut self,
        ring: u64,
        chunk: Arc<C>,
        readable_end: i64,
    ) -> FetchStateUpdate {
        if !self.tail_accepts(ring, chunk.first_offset(), chunk.next_offset()) {
            return FetchStateUpdate::none();
        }
        self.update_readable_end(readable_end);
        self.append_to_ring(chunk)
    }

    /// The budget has no room for what the tail read up to `next`.
    pub(in crate::fetcher) fn tail_skip(
        &mut self,
        ring: u64,
        first: i64,
        next: i64,
        (last_epoch, serving_epoch): (i32, i32),
    ) -> FetchStateUpdate {
        if !self.tail_accepts(ring, first, next) {
            return FetchStateUpdate::none();
        }
        self.skip_ring_to(next, last_epoch, serving_epoch)
    }

    /// Whether the tail reads this partition although no cursor has used the ring for long.
    /// The tail asks every now and then, so that cursors need not look at the clock.
    pub(in crate::fetcher) fn tail_is_idle(&mut self, now: Instant) -> bool {
        if std::mem::take(&mut self.ring_used) || !self.waiting_at_end.is_empty() {
            self.ring_used_at = now;
        }
        now >= self.ring_used_at + TAIL_IDLE_MAX
    }

    pub(in crate::fetcher) fn drop_ring(&mut self) {
        self.ring = None;
        self.tail = TailMembership::Out;
    }

    pub(super) fn skip_ring_to(
        &mut self,
        next: i64,
        last_epoch: i32,
        serving_epoch: i32,
    ) -> FetchStateUpdate {
        let ring = self.ring.as_mut();
        if !ring.is_some_and(|ring| ring.skip_to(next, last_epoch, serving_epoch)) {
            return FetchStateUpdate::none();
        }
        self.highest_valid = self.highest_valid.max(next);
        self.wake_cursors_at_end()
    }

    pub(super) fn append_to_ring(&mut self, chunk: Arc<C>) -> FetchStateUpdate {
        let seq = self.next_seq();
        let next = chunk.next_offset();
        let appended = self
            .ring
            .as_mut()
            .is_some_and(|ring| ring.append(seq, chunk));
        if !appended {
            return FetchStateUpdate::none();
        }
        self.highest_valid = self.highest_valid.max(next);
        FetchStateUpdate {
            cached: Some(seq),
            ..self.wake_cursors_at_end()
        }
    }

    pub(super) fn wake_cursors_at_end(&mut self) -> FetchStateUpdate {
        self.end_wakeups += 1;
        FetchStateUpdate {
            cached: None,
            wake: std::mem::take(&mut self.waiting_at_end),
        }
    }
}
