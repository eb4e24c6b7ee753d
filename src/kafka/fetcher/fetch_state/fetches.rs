//! The fetches that cursors ask for, and what came of them.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::error::FetchError;
use super::super::tail_cache::{OffsetRange, TailCache, TailCacheLookup};
use super::{
    COMPLETED_FETCH_TTL, CompletedFetch, CursorWaiter, EVICTION_GRACE, FETCH_RESULT_TTL, FetchKind,
    FetchOutcome, FetchResult, FetchSpec, FetchStateUpdate, NEVER_VALIDATED, PartitionFetchState,
    PendingFetch, TailState,
};

impl<C: OffsetRange> PartitionFetchState<C> {
    /// Notes the current leader epoch. When it rises, positions are validated against the new
    /// leader's log before they are served: the tail cache's end for all that it covers, each other
    /// one by itself.
    pub(in crate::fetcher) fn set_leader_epoch(&mut self, leader_epoch: i32) {
        self.leader_epoch = self.leader_epoch.max(leader_epoch);
    }

    /// Whether the tail cache is to be extended by a handover fetch now.
    pub(in crate::fetcher) fn wants_handover_fetch(&self) -> bool {
        self.tail_cache.is_some()
            && self.tail != TailState::Fetched
            && !self.handover_fetch_in_flight
            && !self.waiting_at_end.is_empty()
    }

    pub(in crate::fetcher) fn start_handover_fetch(&mut self) -> Option<FetchSpec> {
        let tail_cache = self.tail_cache.as_ref()?;
        self.handover_fetch_in_flight = true;
        let epoch = tail_cache.end_epoch();
        let validate = !self.tail_cache_is_valid() && self.may_be_truncated(epoch, NEVER_VALIDATED);
        Some(FetchSpec {
            kind: FetchKind::Handover(self.tail_cache_number),
            offset: tail_cache.end(),
            validate_epoch: validate.then_some(epoch),
        })
    }

    /// Whether a fetch waits to be started.
    pub(in crate::fetcher) fn wants_fetch(&self) -> bool {
        self.pending_fetches
            .iter()
            .any(|fetch| !fetch.in_flight && (fetch.ahead || !fetch.waiters.is_empty()))
    }

    /// The fetch that was asked for first; prefetches come last.
    pub(in crate::fetcher) fn start_fetch(&mut self) -> Option<FetchSpec> {
        self.pending_fetches
            .retain(|fetch| fetch.in_flight || fetch.ahead || !fetch.waiters.is_empty());
        let queued = |ahead: bool| {
            move |fetch: &PendingFetch| !fetch.in_flight && (ahead || !fetch.waiters.is_empty())
        };
        let index = self
            .pending_fetches
            .iter()
            .position(queued(false))
            .or_else(|| self.pending_fetches.iter().position(queued(true)))?;
        self.pending_fetches[index].in_flight = true;
        let fetch = &self.pending_fetches[index];
        let epoch = self.leader_epoch;
        let covered = |tail_cache: &TailCache<C>| {
            tail_cache.was_validated_in(epoch)
                && tail_cache.covers(fetch.offset, fetch.validated_epoch, epoch)
        };
        let validate = self.may_be_truncated(fetch.leader_epoch, fetch.validated_epoch)
            && !self.tail_cache.as_ref().is_some_and(covered);
        Some(FetchSpec {
            kind: if fetch.waiters.is_empty() {
                FetchKind::Prefetch(fetch.id)
            } else {
                FetchKind::Requested(fetch.id)
            },
            offset: fetch.offset,
            validate_epoch: validate.then_some(fetch.leader_epoch),
        })
    }

    /// Whether a cursor waits for this fetch by now.
    pub(in crate::fetcher) fn is_awaited(&self, kind: FetchKind) -> bool {
        match kind {
            FetchKind::Handover(_) => true,
            FetchKind::Requested(id) | FetchKind::Prefetch(id) => self
                .pending_fetches
                .iter()
                .any(|fetch| fetch.id == id && !fetch.waiters.is_empty()),
        }
    }

    /// Leader epoch of the position that a fetch starts from; −1 when unknown.
    pub(in crate::fetcher) fn position_epoch(&self, spec: FetchSpec) -> i32 {
        match spec.kind {
            FetchKind::Handover(_) => self.tail_cache.as_ref().map_or(-1, TailCache::end_epoch),
            FetchKind::Requested(id) | FetchKind::Prefetch(id) => self
                .pending_fetches
                .iter()
                .find(|fetch| fetch.id == id)
                .map_or(-1, |fetch| fetch.leader_epoch),
        }
    }

    pub(in crate::fetcher) fn finish(
        &mut self,
        spec: FetchSpec,
        outcome: FetchOutcome<C>,
        now: Instant,
    ) -> FetchStateUpdate {
        let is_fetched = !matches!(outcome, FetchOutcome::Failed(_) | FetchOutcome::Retry);
        if is_fetched && self.tail_barred_at.is_some_and(|at| spec.offset >= at) {
            self.tail_barred_at = None;
        }
        if let FetchOutcome::Failed(FetchError::Truncated { .. }) = outcome {
            // Some of these may hold records that were truncated.
            self.completed_fetches.clear();
        }
        let tail_target = self.tail_target();
        let update = match spec.kind {
            FetchKind::Handover(number) => self.finish_handover_fetch(number, outcome),
            FetchKind::Requested(id) | FetchKind::Prefetch(id) => {
                self.finish_fetch(id, outcome, now)
            }
        };
        FetchStateUpdate {
            tail_target_changed: self.tail_target() != tail_target,
            ..update
        }
    }

    pub(super) fn finish_handover_fetch(
        &mut self,
        number: u64,
        outcome: FetchOutcome<C>,
    ) -> FetchStateUpdate {
        self.handover_fetch_in_flight = false;
        if self.tail_cache.is_none() || number != self.tail_cache_number {
            return FetchStateUpdate::none();
        }
        match outcome {
            FetchOutcome::Retry => FetchStateUpdate::none(),
            FetchOutcome::AtEnd {
                readable_end,
                serving_epoch,
            } => {
                if let Some(tail_cache) = &mut self.tail_cache {
                    tail_cache.validated(serving_epoch);
                }
                self.update_readable_end(readable_end);
                FetchStateUpdate::none()
            }
            FetchOutcome::Chunk {
                chunk,
                readable_end,
            } => {
                self.update_readable_end(readable_end);
                self.append_to_tail_cache(chunk)
            }
            FetchOutcome::NoRoom {
                next_offset,
                last_epoch,
                readable_end,
                serving_epoch,
            } => {
                self.update_readable_end(readable_end);
                self.skip_tail_cache_to(next_offset, last_epoch, serving_epoch)
            }
            // Each cursor at the end gets the error for its own position, by its own fetch.
            FetchOutcome::Failed(_) => {
                self.drop_tail_cache();
                self.highest_valid = -1;
                self.wake_cursors_at_end()
            }
        }
    }

    pub(super) fn finish_fetch(
        &mut self,
        id: u64,
        outcome: FetchOutcome<C>,
        now: Instant,
    ) -> FetchStateUpdate {
        let Some(index) = self.pending_fetches.iter().position(|fetch| fetch.id == id) else {
            return FetchStateUpdate::none();
        };
        if let FetchOutcome::Retry = outcome {
            self.pending_fetches[index].in_flight = false;
            // A prefetch is worth one attempt only.
            if self.pending_fetches[index].waiters.is_empty() {
                self.pending_fetches.swap_remove(index);
            }
            return FetchStateUpdate::none();
        }
        let fetch = self.pending_fetches.remove(index);
        let mut cached = None;
        let (validated_epoch, error) = match outcome {
            FetchOutcome::Chunk {
                chunk,
                readable_end,
            } => {
                self.update_readable_end(readable_end);
                let serving_epoch = chunk.serving_epoch();
                if self.tail_cache.is_none() && chunk.next_offset() >= readable_end {
                    self.start_tail_cache(chunk.next_offset(), chunk.last_epoch(), serving_epoch);
                }
                cached = Some(self.add_completed(id, chunk, now));
                (serving_epoch, None)
            }
            FetchOutcome::AtEnd {
                readable_end,
                serving_epoch,
            } => {
                self.update_readable_end(readable_end);
                self.highest_valid = self.highest_valid.max(fetch.offset);
                // A tail cache that begins beyond the end of the log waits for the wrong offset:
                // this one is the end.
                let at_end = match &self.tail_cache {
                    Some(tail_cache) => matches!(
                        tail_cache.lookup(fetch.offset),
                        TailCacheLookup::BeforeStart
                    ),
                    None => true,
                };
                if at_end {
                    self.start_tail_cache(fetch.offset, fetch.leader_epoch, serving_epoch);
                }
                (serving_epoch, None)
            }
            FetchOutcome::Failed(error) => (NEVER_VALIDATED, Some(error)),
            // A catch-up fetch acquires its room first.
            FetchOutcome::NoRoom { .. } | FetchOutcome::Retry => return FetchStateUpdate::none(),
        };
        self.add_result(id, validated_epoch, error, fetch.waiters.len(), now);
        FetchStateUpdate {
            cached,
            wake: fetch.waiters,
            ..FetchStateUpdate::none()
        }
    }

    fn add_result(
        &mut self,
        id: u64,
        validated_epoch: i32,
        error: Option<FetchError>,
        waiters: usize,
        since: Instant,
    ) {
        if waiters > 0 {
            self.fetch_results.push(FetchResult {
                id,
                validated_epoch,
                error,
                unclaimed: waiters,
                since,
            });
        }
    }

    fn add_completed(&mut self, fetch: u64, chunk: Arc<C>, since: Instant) -> u64 {
        let seq = self.next_seq();
        self.completed_fetches.push(CompletedFetch {
            seq,
            fetch,
            chunk,
            since,
        });
        seq
    }

    /// Starts the tail cache at `offset`, a position that is valid in the log of the leader of
    /// `serving_epoch`.
    pub(super) fn start_tail_cache(&mut self, offset: i64, end_epoch: i32, serving_epoch: i32) {
        self.tail_cache = Some(TailCache::starting_at(offset, end_epoch, serving_epoch));
        self.tail_cache_number += 1;
    }

    /// Fails every cursor, now and later: the partition is no more.
    pub(in crate::fetcher) fn close(&mut self, error: FetchError) -> Vec<CursorWaiter> {
        self.closed.get_or_insert(error);
        self.drop_tail_cache();
        self.completed_fetches.clear();
        self.fetch_results.clear();
        let mut wake = self.wake_cursors_at_end().wake;
        for fetch in self.pending_fetches.drain(..) {
            wake.extend(fetch.waiters);
        }
        wake
    }

    pub(in crate::fetcher) fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Fails the fetches that are pending now; later ones are tried again.
    pub(in crate::fetcher) fn fail_fetches(
        &mut self,
        error: &FetchError,
        now: Instant,
    ) -> Vec<CursorWaiter> {
        self.drop_tail_cache();
        let mut wake = self.wake_cursors_at_end().wake;
        for fetch in std::mem::take(&mut self.pending_fetches) {
            let (error, waiters) = (Some(error.clone()), fetch.waiters.len());
            self.add_result(fetch.id, NEVER_VALIDATED, error, waiters, now);
            wake.extend(fetch.waiters);
        }
        wake
    }

    /// Since when no cursor reads this partition.
    pub(in crate::fetcher) fn idle_since(&self) -> Option<Instant> {
        (self.cursors == 0).then_some(self.idle_since)
    }

    /// Drops completed fetches and results that no cursor came for.
    pub(in crate::fetcher) fn drop_expired(&mut self, now: Instant) {
        self.completed_fetches
            .retain(|fetch| now < fetch.since + COMPLETED_FETCH_TTL);
        self.fetch_results
            .retain(|result| now < result.since + FETCH_RESULT_TTL);
    }

    /// Evicts the chunk cached under `seq`, unless a cursor is about to take it.
    pub(in crate::fetcher) fn evict(&mut self, seq: u64, now: Instant) -> Option<Vec<Arc<C>>> {
        let Some(index) = self
            .completed_fetches
            .iter()
            .position(|fetch| fetch.seq == seq)
        else {
            return Some(
                self.tail_cache
                    .as_mut()
                    .map_or_else(Vec::new, |tail_cache| tail_cache.evict_through(seq)),
            );
        };
        let fetch = &self.completed_fetches[index];
        let expected = now < fetch.since + EVICTION_GRACE
            && self
                .fetch_results
                .iter()
                .any(|result| result.id == fetch.fetch);
        (!expected).then(|| vec![self.completed_fetches.swap_remove(index).chunk])
    }
}
