//! The end of a partition: the tail cache, and the tail that extends it.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::tail_cache::{OffsetRange, TailCache};
use super::{FetchStateUpdate, PartitionFetchState, TAIL_MAX_IDLE, TailState};

impl<C: OffsetRange> PartitionFetchState<C> {
    /// The number of the tail cache, and the offset to fetch for it, if the tail is to fetch this
    /// partition.
    pub(in crate::fetcher) fn tail_target(&self) -> Option<(u64, i64)> {
        match self.tail {
            TailState::NotFetched => None,
            TailState::Requested | TailState::Fetched => {
                let tail_cache = self.tail_cache.as_ref()?;
                Some((self.tail_cache_number, tail_cache.end()))
            }
        }
    }

    /// Has the tail fetch this partition. `false`: there is no tail cache to extend, or this was
    /// requested before.
    pub(in crate::fetcher) fn request_tail(&mut self) -> bool {
        let request = self.tail_cache_is_valid()
            && self.tail == TailState::NotFetched
            && self.tail_barred_at.is_none();
        if request {
            self.tail = TailState::Requested;
        }
        request
    }

    /// A request of the tail names this partition from now on.
    pub(in crate::fetcher) fn mark_tail_fetched(&mut self) {
        if self.tail == TailState::Requested {
            self.tail = TailState::Fetched;
        }
    }

    /// The tail no longer fetches this partition. Says whether a cursor waits for it.
    pub(in crate::fetcher) fn tail_removed(&mut self) -> bool {
        self.tail = TailState::NotFetched;
        if self.waiting_at_end.is_empty() {
            self.drop_tail_cache();
        }
        !self.waiting_at_end.is_empty()
    }

    /// As [`tail_removed`](Self::tail_removed), until another request has fetched what the tail was
    /// to fetch: the tail's response was too large, perhaps because of this partition.
    pub(in crate::fetcher) fn tail_barred(&mut self) -> bool {
        self.tail_barred_at = self.tail_cache.as_ref().map(TailCache::end);
        self.tail_removed()
    }

    /// Whether what the tail fetched for that tail cache continues it.
    pub(in crate::fetcher) fn tail_accepts(&self, number: u64, first: i64, next: i64) -> bool {
        self.tail != TailState::NotFetched
            && number == self.tail_cache_number
            && self
                .tail_cache
                .as_ref()
                .is_some_and(|tail_cache| tail_cache.accepts(first, next))
    }

    pub(in crate::fetcher) fn tail_append(
        &mut self,
        number: u64,
        chunk: Arc<C>,
        readable_end: i64,
    ) -> FetchStateUpdate {
        if !self.tail_accepts(number, chunk.first_offset(), chunk.next_offset()) {
            return FetchStateUpdate::none();
        }
        self.update_readable_end(readable_end);
        self.append_to_tail_cache(chunk)
    }

    /// The budget has no room for what the tail fetched up to `next`.
    pub(in crate::fetcher) fn tail_skip(
        &mut self,
        number: u64,
        first: i64,
        next: i64,
        (last_epoch, serving_epoch): (i32, i32),
    ) -> FetchStateUpdate {
        if !self.tail_accepts(number, first, next) {
            return FetchStateUpdate::none();
        }
        self.skip_tail_cache_to(next, last_epoch, serving_epoch)
    }

    /// Whether the tail fetches this partition although no cursor has used the tail cache for long.
    /// The tail asks every now and then, so that cursors need not look at the clock.
    pub(in crate::fetcher) fn tail_is_idle(&mut self, now: Instant) -> bool {
        if std::mem::take(&mut self.tail_cache_used) || !self.waiting_at_end.is_empty() {
            self.tail_cache_used_at = now;
        }
        now >= self.tail_cache_used_at + TAIL_MAX_IDLE
    }

    pub(in crate::fetcher) fn drop_tail_cache(&mut self) {
        self.tail_cache = None;
        self.tail = TailState::NotFetched;
    }

    pub(super) fn skip_tail_cache_to(
        &mut self,
        next: i64,
        last_epoch: i32,
        serving_epoch: i32,
    ) -> FetchStateUpdate {
        let tail_cache = self.tail_cache.as_mut();
        if !tail_cache.is_some_and(|tail_cache| tail_cache.skip_to(next, last_epoch, serving_epoch))
        {
            return FetchStateUpdate::none();
        }
        self.highest_valid = self.highest_valid.max(next);
        self.wake_cursors_at_end()
    }

    pub(super) fn append_to_tail_cache(&mut self, chunk: Arc<C>) -> FetchStateUpdate {
        let seq = self.next_seq();
        let next = chunk.next_offset();
        let appended = self
            .tail_cache
            .as_mut()
            .is_some_and(|tail_cache| tail_cache.append(seq, chunk));
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
            wake: std::mem::take(&mut self.waiting_at_end),
            ..FetchStateUpdate::none()
        }
    }
}
