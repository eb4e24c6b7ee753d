//! The reads that cursors ask for, and what came of them.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::error::FetchError;
use super::super::ring::{ChunkRing, OffsetRange, RingLookup};
use super::{
    COMPLETED_FETCH_TTL, CompletedFetch, CursorWaiter, EVICTION_GRACE, FetchStateUpdate,
    NEVER_VALIDATED, PartitionFetchState, PendingRead, READ_RESULT_TTL, ReadKind, ReadOutcome,
    ReadResult, ReadSpec, TailMembership,
};

impl<C: OffsetRange> PartitionFetchState<C> {
    /// Notes the current leader epoch. When it rises, positions are validated against the new
    /// leader's log before they are served: the ring's end for all that it covers, each other
    /// one by itself.
    pub(in crate::fetcher) fn set_leader_epoch(&mut self, leader_epoch: i32) {
        self.leader_epoch = self.leader_epoch.max(leader_epoch);
    }

    /// Whether the ring is to be extended by a ring poll now.
    pub(in crate::fetcher) fn wants_ring_poll(&self) -> bool {
        self.ring.is_some()
            && self.tail != TailMembership::Joined
            && !self.ring_poll_in_flight
            && !self.waiting_at_end.is_empty()
    }

    pub(in crate::fetcher) fn start_ring_poll(&mut self) -> Option<ReadSpec> {
        let ring = self.ring.as_ref()?;
        self.ring_poll_in_flight = true;
        let epoch = ring.end_epoch();
        let validate = !self.ring_is_valid() && self.is_in_doubt(epoch, NEVER_VALIDATED);
        Some(ReadSpec {
            kind: ReadKind::RingPoll(self.ring_number),
            offset: ring.end(),
            validate_epoch: validate.then_some(epoch),
        })
    }

    /// Whether a read waits to be started.
    pub(in crate::fetcher) fn wants_read(&self) -> bool {
        self.pending_reads
            .iter()
            .any(|read| !read.in_flight && (read.ahead || !read.waiters.is_empty()))
    }

    /// The read that was asked for first; reads ahead come last.
    pub(in crate::fetcher) fn start_read(&mut self) -> Option<ReadSpec> {
        self.pending_reads
            .retain(|read| read.in_flight || read.ahead || !read.waiters.is_empty());
        let queued = |ahead: bool| {
            move |read: &PendingRead| !read.in_flight && (ahead || !read.waiters.is_empty())
        };
        let index = self
            .pending_reads
            .iter()
            .position(queued(false))
            .or_else(|| self.pending_reads.iter().position(queued(true)))?;
        self.pending_reads[index].in_flight = true;
        let read = &self.pending_reads[index];
        let epoch = self.leader_epoch;
        let covered = |ring: &ChunkRing<C>| {
            ring.was_validated_in(epoch) && ring.covers(read.offset, read.validated_epoch, epoch)
        };
        let validate = self.is_in_doubt(read.leader_epoch, read.validated_epoch)
            && !self.ring.as_ref().is_some_and(covered);
        Some(ReadSpec {
            kind: if read.waiters.is_empty() {
                ReadKind::ReadAhead(read.id)
            } else {
                ReadKind::Requested(read.id)
            },
            offset: read.offset,
            validate_epoch: validate.then_some(read.leader_epoch),
        })
    }

    /// Whether a cursor waits for this read by now.
    pub(in crate::fetcher) fn is_awaited(&self, kind: ReadKind) -> bool {
        match kind {
            ReadKind::RingPoll(_) => true,
            ReadKind::Requested(id) | ReadKind::ReadAhead(id) => self
                .pending_reads
                .iter()
                .any(|read| read.id == id && !read.waiters.is_empty()),
        }
    }

    /// Leader epoch of the position that a read starts from; −1 when unknown.
    pub(in crate::fetcher) fn position_epoch(&self, spec: ReadSpec) -> i32 {
        match spec.kind {
            ReadKind::RingPoll(_) => self.ring.as_ref().map_or(-1, ChunkRing::end_epoch),
            ReadKind::Requested(id) | ReadKind::ReadAhead(id) => self
                .pending_reads
                .iter()
                .find(|read| read.id == id)
                .map_or(-1, |read| read.leader_epoch),
        }
    }

    pub(in crate::fetcher) fn finish(
        &mut self,
        spec: ReadSpec,
        outcome: ReadOutcome<C>,
        now: Instant,
    ) -> FetchStateUpdate {
        if let ReadOutcome::Failed(FetchError::Truncated { .. }) = outcome {
            // Some of these may hold records that were truncated.
            self.completed_fetches.clear();
        }
        match spec.kind {
            ReadKind::RingPoll(ring) => self.finish_ring_poll(ring, outcome),
            ReadKind::Requested(id) | ReadKind::ReadAhead(id) => self.finish_read(id, outcome, now),
        }
    }

    pub(super) fn finish_ring_poll(
        &mut self,
        ring: u64,
        outcome: ReadOutcome<C>,
    ) -> FetchStateUpdate {
        self.ring_poll_in_flight = false;
        if self.ring.is_none() || ring != self.ring_number {
            return FetchStateUpdate::none();
        }
        match outcome {
            ReadOutcome::Retry => FetchStateUpdate::none(),
            ReadOutcome::AtEnd {
                readable_end,
                serving_epoch,
            } => {
                if let Some(ring) = &mut self.ring {
                    ring.validated(serving_epoch);
                }
                self.update_readable_end(readable_end);
                FetchStateUpdate::none()
            }
            ReadOutcome::Chunk {
                chunk,
                readable_end,
            } => {
                self.update_readable_end(readable_end);
                self.append_to_ring(chunk)
            }
            ReadOutcome::NoRoom {
                next_offset,
                last_epoch,
                readable_end,
                serving_epoch,
            } => {
                self.update_readable_end(readable_end);
                self.skip_ring_to(next_offset, last_epoch, serving_epoch)
            }
            // Each cursor at the end gets the error for its own position, by its own read.
            ReadOutcome::Failed(_) => {
                self.drop_ring();
                self.highest_valid = -1;
                self.wake_cursors_at_end()
            }
        }
    }

    pub(super) fn finish_read(
        &mut self,
        id: u64,
        outcome: ReadOutcome<C>,
        now: Instant,
    ) -> FetchStateUpdate {
        let Some(index) = self.pending_reads.iter().position(|read| read.id == id) else {
            return FetchStateUpdate::none();
        };
        if let ReadOutcome::Retry = outcome {
            self.pending_reads[index].in_flight = false;
            // A read ahead is worth one try only.
            if self.pending_reads[index].waiters.is_empty() {
                self.pending_reads.swap_remove(index);
            }
            return FetchStateUpdate::none();
        }
        let read = self.pending_reads.remove(index);
        let mut cached = None;
        let (validated_epoch, error) = match outcome {
            ReadOutcome::Chunk {
                chunk,
                readable_end,
            } => {
                self.update_readable_end(readable_end);
                let serving_epoch = chunk.serving_epoch();
                if self.ring.is_none() && chunk.next_offset() >= readable_end {
                    self.start_ring(chunk.next_offset(), chunk.last_epoch(), serving_epoch);
                }
                cached = Some(self.add_completed(id, chunk, now));
                (serving_epoch, None)
            }
            ReadOutcome::AtEnd {
                readable_end,
                serving_epoch,
            } => {
                self.update_readable_end(readable_end);
                self.highest_valid = self.highest_valid.max(read.offset);
                // A ring that begins beyond the end of the log waits for the wrong offset:
                // this one is the end.
                let at_end = match &self.ring {
                    Some(ring) => matches!(ring.lookup(read.offset), RingLookup::BeforeStart),
                    None => true,
                };
                if at_end {
                    self.start_ring(read.offset, read.leader_epoch, serving_epoch);
                }
                (serving_epoch, None)
            }
            ReadOutcome::Failed(error) => (NEVER_VALIDATED, Some(error)),
            // A read acquires its room first.
            ReadOutcome::NoRoom { .. } | ReadOutcome::Retry => return FetchStateUpdate::none(),
        };
        self.add_result(id, validated_epoch, error, read.waiters.len(), now);
        FetchStateUpdate {
            cached,
            wake: read.waiters,
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
            self.read_results.push(ReadResult {
                id,
                validated_epoch,
                error,
                unclaimed: waiters,
                since,
            });
        }
    }

    fn add_completed(&mut self, read: u64, chunk: Arc<C>, since: Instant) -> u64 {
        let seq = self.next_seq();
        self.completed_fetches.push(CompletedFetch {
            seq,
            read,
            chunk,
            since,
        });
        seq
    }

    /// Starts the ring at `offset`, a position that is valid in the log of the leader of
    /// `serving_epoch`.
    pub(super) fn start_ring(&mut self, offset: i64, end_epoch: i32, serving_epoch: i32) {
        self.ring = Some(ChunkRing::starting_at(offset, end_epoch, serving_epoch));
        self.ring_number += 1;
    }

    /// Fails every cursor, now and later: the partition is no more.
    pub(in crate::fetcher) fn close(&mut self, error: FetchError) -> Vec<CursorWaiter> {
        self.closed = Some(error);
        self.drop_ring();
        self.completed_fetches.clear();
        self.read_results.clear();
        let mut wake = self.wake_cursors_at_end().wake;
        for read in self.pending_reads.drain(..) {
            wake.extend(read.waiters);
        }
        wake
    }

    pub(in crate::fetcher) fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Fails the reads that are pending now; later ones are tried again.
    pub(in crate::fetcher) fn fail_reads(
        &mut self,
        error: &FetchError,
        now: Instant,
    ) -> Vec<CursorWaiter> {
        self.drop_ring();
        let mut wake = self.wake_cursors_at_end().wake;
        for read in std::mem::take(&mut self.pending_reads) {
            let (error, waiters) = (Some(error.clone()), read.waiters.len());
            self.add_result(read.id, NEVER_VALIDATED, error, waiters, now);
            wake.extend(read.waiters);
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
        self.read_results
            .retain(|result| now < result.since + READ_RESULT_TTL);
    }

    /// Evicts the chunk cached under `seq`, unless a cursor is about to take it.
    pub(in crate::fetcher) fn evict(&mut self, seq: u64, now: Instant) -> Option<Vec<Arc<C>>> {
        let Some(index) = self
            .completed_fetches
            .iter()
            .position(|fetch| fetch.seq == seq)
        else {
            return Some(
                self.ring
                    .as_mut()
                    .map_or_else(Vec::new, |ring| ring.evict_through(seq)),
            );
        };
        let fetch = &self.completed_fetches[index];
        let expected = now < fetch.since + EVICTION_GRACE
            && self
                .read_results
                .iter()
                .any(|result| result.id == fetch.read);
        (!expected).then(|| vec![self.completed_fetches.swap_remove(index).chunk])
    }
}
