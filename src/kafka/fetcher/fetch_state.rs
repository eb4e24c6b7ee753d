//! One partition as its cursors share it: who waits for what, and what was fetched.
//!
//! ```text
//!  cursor ── next_chunk() ──▶ ring? ──────────────▶ chunk
//!                             completed fetch? ───▶ chunk (and the next one is read ahead)
//!                             at the end ─────────▶ waits for the tail
//!                             else ───────────────▶ waits for a read, one for all cursors
//!                                                   at that offset
//!
//!  a read reaches the end ─▶ the ring starts there ─▶ ring polls extend it
//!                                                  ─▶ the tail extends it from then on
//! ```
//!
//! The hand-over between catch-up and tail needs no agreement: a cursor is only an offset,
//! and each chunk says what offsets it covers. Whichever holds the offset serves it.
//!
//! # Invariants
//! - A cursor gets each offset once: it moves to `next_offset` of the chunk that it was
//!   given, and is only given chunks that cover its offset.
//! - A cursor that was told to wait is in exactly one list, and is woken when that list
//!   is served. It is entered under the same lock under which nothing was found for it.
//! - Positions, chunks and the ring carry the epoch of the leader whose log they came from or
//!   were compared with. A position is served without validation only if its leader epoch or
//!   that one is current, or if the ring covers it, whose end is validated for all (KIP-320).
//!   Nothing else knows of a doubt: with the ring none is forgotten.
//! - Pure: the clock is passed in; what is to be done outside is returned.

mod end;
mod reads;
#[cfg(test)]
mod tests;
mod wait;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::FetchError;
use super::ring::{ChunkRing, OffsetRange, RingLookup};
use runtime::wake::WakeSignal;

/// What is known, fetched and asked for of one partition at one isolation level.
#[derive(Debug)]
pub(super) struct PartitionFetchState<C> {
    ring: Option<ChunkRing<C>>,
    /// Counts the rings: what was read for one ring does not go into another.
    ring_number: u64,
    /// Whether the ring has served or was waited for since the tail last asked.
    ring_used: bool,
    /// When the tail last saw that it was.
    ring_used_at: Instant,
    tail: TailMembership,
    ring_poll_in_flight: bool,
    completed_fetches: Vec<CompletedFetch<C>>,
    pending_reads: Vec<PendingRead>,
    read_results: Vec<ReadResult>,
    waiting_at_end: Vec<CursorWaiter>,
    /// Counts how often the cursors at the end were woken.
    end_wakeups: u64,
    /// High watermark or last stable offset, by isolation level, as a leader last said.
    readable_end: i64,
    /// The highest offset that a leader accepted.
    highest_valid: i64,
    leader_epoch: i32,
    closed: Option<FetchError>,
    cursors: usize,
    idle_since: Instant,
    last_id: u64,
    last_seq: u64,
}

/// Whether the tail reads the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TailMembership {
    Out,
    /// Asked to join; no request has named the partition yet.
    Requested,
    Joined,
}

/// What the fetch state keeps per cursor; the cursor owns it.
#[derive(Debug)]
pub(super) struct CursorState {
    id: u64,
    pub(super) offset: i64,
    /// Leader epoch of the record before `offset`, −1 when unknown.
    pub(super) leader_epoch: i32,
    /// Epoch of the leader whose log the position came from or was validated against.
    validated_epoch: i32,
    wait: CursorWait,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CursorWait {
    None,
    AtEnd { end_wakeups: u64 },
    Read { id: u64 },
}

/// A cursor to wake.
#[derive(Debug)]
pub(super) struct CursorWaiter {
    cursor: u64,
    pub(super) wake: Arc<WakeSignal>,
}

/// What a cursor that asks for more gets.
#[derive(Debug)]
pub(super) enum NextChunk<C> {
    Ready(Arc<C>),
    Failed(FetchError),
    /// Its wake signal is entered.
    Wait,
}

/// A chunk that a read brought, until the cursors that asked for it have taken it.
#[derive(Debug)]
struct CompletedFetch<C> {
    seq: u64,
    read: u64,
    chunk: Arc<C>,
    since: Instant,
}

/// A read that was asked for and is not answered.
#[derive(Debug)]
struct PendingRead {
    id: u64,
    offset: i64,
    leader_epoch: i32,
    validated_epoch: i32,
    waiters: Vec<CursorWaiter>,
    ahead: bool,
    in_flight: bool,
}

/// How a read ended, for the cursors that waited for it and have not come back.
#[derive(Debug)]
struct ReadResult {
    id: u64,
    validated_epoch: i32,
    error: Option<FetchError>,
    unclaimed: usize,
    since: Instant,
}

/// A read to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReadSpec {
    pub(super) kind: ReadKind,
    pub(super) offset: i64,
    /// The leader epoch of the position, if it has to be validated against the leader's log
    /// first.
    pub(super) validate_epoch: Option<i32>,
}

/// What a read is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadKind {
    /// Extends the ring of this number, until the tail takes over.
    RingPoll(u64),
    /// For cursors that wait.
    Requested(u64),
    /// For cursors that will need it next; none waits yet.
    ReadAhead(u64),
}

/// What came of a read.
#[derive(Debug)]
pub(super) enum ReadOutcome<C> {
    Chunk {
        chunk: Arc<C>,
        readable_end: i64,
    },
    AtEnd {
        readable_end: i64,
        serving_epoch: i32,
    },
    /// The budget has no room for what a ring poll read up to `next_offset`.
    NoRoom {
        next_offset: i64,
        last_epoch: i32,
        readable_end: i64,
        serving_epoch: i32,
    },
    Failed(FetchError),
    /// Not sent, or to be sent again.
    Retry,
}

/// What follows from new data.
#[derive(Debug)]
pub(super) struct FetchStateUpdate {
    /// The chunk is cached under this number.
    pub(super) cached: Option<u64>,
    pub(super) wake: Vec<CursorWaiter>,
}

impl<C: OffsetRange> PartitionFetchState<C> {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            ring: None,
            ring_number: 0,
            ring_used: false,
            ring_used_at: now,
            tail: TailMembership::Out,
            ring_poll_in_flight: false,
            completed_fetches: Vec::new(),
            pending_reads: Vec::new(),
            read_results: Vec::new(),
            waiting_at_end: Vec::new(),
            end_wakeups: 0,
            readable_end: -1,
            highest_valid: -1,
            leader_epoch: -1,
            closed: None,
            cursors: 0,
            idle_since: now,
            last_id: 0,
            last_seq: 0,
        }
    }

    pub(super) fn add_cursor(&mut self, offset: i64, leader_epoch: i32) -> CursorState {
        self.cursors += 1;
        CursorState {
            id: self.next_id(),
            offset,
            leader_epoch,
            validated_epoch: NEVER_VALIDATED,
            wait: CursorWait::None,
        }
    }

    pub(super) fn seek(&mut self, cursor: &mut CursorState, offset: i64, leader_epoch: i32) {
        self.stop_waiting(cursor);
        // A position within what was delivered here is as valid as the cursor's own.
        if offset > cursor.offset || leader_epoch > cursor.leader_epoch {
            cursor.validated_epoch = NEVER_VALIDATED;
        }
        cursor.offset = offset;
        cursor.leader_epoch = leader_epoch;
    }

    pub(super) fn remove_cursor(&mut self, cursor: &mut CursorState, now: Instant) {
        self.stop_waiting(cursor);
        self.cursors -= 1;
        self.idle_since = now;
    }

    /// The next chunk for `cursor`; if it must wait, `wake` is entered. The flag says that
    /// the partition's task has something to do.
    pub(super) fn next_chunk(
        &mut self,
        cursor: &mut CursorState,
        wake: &Arc<WakeSignal>,
    ) -> (NextChunk<C>, bool) {
        if let Some(error) = &self.closed {
            return (NextChunk::Failed(error.clone()), false);
        }
        if let CursorWait::Read { id } = cursor.wait {
            if self.pending_reads.iter().any(|read| read.id == id) {
                return (NextChunk::Wait, false);
            }
            cursor.wait = CursorWait::None;
            if let Some((validated_epoch, error)) = self.claim_result(id) {
                cursor.validated_epoch = cursor.validated_epoch.max(validated_epoch);
                if let Some(error) = error {
                    return (NextChunk::Failed(error), false);
                }
            }
        }
        let mut work = false;
        while !self.needs_validation(cursor) {
            let chunk = match self.ring.as_ref().map(|ring| ring.lookup(cursor.offset)) {
                Some(RingLookup::Found(chunk)) => {
                    self.ring_used = true;
                    chunk
                }
                Some(RingLookup::AtEnd) => {
                    return (NextChunk::Wait, work | self.wait_at_end(cursor, wake));
                }
                Some(RingLookup::PastEnd) if cursor.offset <= self.highest_valid => {
                    if self.nothing_extends_ring() {
                        // It needs no validation, so it is valid in the current leader's log.
                        self.start_ring(cursor.offset, cursor.leader_epoch, self.leader_epoch);
                    }
                    return (NextChunk::Wait, work | self.wait_at_end(cursor, wake));
                }
                _ => match self.take_completed(cursor.offset) {
                    Some((chunk, ahead)) => {
                        work |= ahead;
                        chunk
                    }
                    None => break,
                },
            };
            cursor.offset = chunk.next_offset();
            cursor.leader_epoch = chunk.last_epoch();
            // Not the latest of both: this position is another one.
            cursor.validated_epoch = chunk.serving_epoch();
            if !chunk.is_empty() {
                self.stop_waiting(cursor);
                return (NextChunk::Ready(chunk), work);
            }
        }
        (NextChunk::Wait, work | self.wait_for_read(cursor, wake))
    }

    /// KIP-320: after a change of leader the record before the position may be gone.
    fn needs_validation(&self, cursor: &CursorState) -> bool {
        let (offset, validated_epoch) = (cursor.offset, cursor.validated_epoch);
        let covered = |ring: &ChunkRing<C>| ring.covers(offset, validated_epoch, self.leader_epoch);
        self.is_in_doubt(cursor.leader_epoch, validated_epoch)
            && !self.ring.as_ref().is_some_and(covered)
    }

    /// Whether a position may lie behind a truncation, as far as it tells by itself.
    fn is_in_doubt(&self, leader_epoch: i32, validated_epoch: i32) -> bool {
        (0..self.leader_epoch).contains(&leader_epoch) && validated_epoch < self.leader_epoch
    }

    /// Whether the ring's end stands in the current leader's log.
    fn ring_is_valid(&self) -> bool {
        self.ring
            .as_ref()
            .is_some_and(|ring| ring.is_valid_in(self.leader_epoch))
    }

    /// Whether the ring has stopped short of the log's end: neither the tail nor a ring poll
    /// reads on there, and no cursor waits for one.
    fn nothing_extends_ring(&self) -> bool {
        self.tail == TailMembership::Out
            && !self.ring_poll_in_flight
            && self.waiting_at_end.is_empty()
    }

    /// The completed fetch that covers `offset`, and whether the chunk after it is now to be
    /// read ahead.
    fn take_completed(&mut self, offset: i64) -> Option<(Arc<C>, bool)> {
        let index = self
            .completed_fetches
            .iter()
            .position(|fetch| covers(&*fetch.chunk, offset))?;
        let chunk = if self.cursors == 1 {
            self.completed_fetches.swap_remove(index).chunk
        } else {
            self.completed_fetches[index].chunk.clone()
        };
        let ahead = self.read_ahead(&chunk);
        Some((chunk, ahead))
    }

    fn read_ahead(&mut self, chunk: &C) -> bool {
        let offset = chunk.next_offset();
        let in_ring = self
            .ring
            .as_ref()
            .is_some_and(|ring| !matches!(ring.lookup(offset), RingLookup::BeforeStart));
        if offset >= self.readable_end
            || in_ring
            || self.pending_reads.iter().any(|read| read.offset == offset)
            || self
                .completed_fetches
                .iter()
                .any(|fetch| covers(&*fetch.chunk, offset))
        {
            return false;
        }
        let id = self.next_id();
        self.pending_reads.push(PendingRead {
            id,
            offset,
            leader_epoch: chunk.last_epoch(),
            validated_epoch: chunk.serving_epoch(),
            waiters: Vec::new(),
            ahead: true,
            in_flight: false,
        });
        true
    }

    fn update_readable_end(&mut self, readable_end: i64) {
        self.readable_end = readable_end;
        self.highest_valid = self.highest_valid.max(readable_end);
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn next_seq(&mut self) -> u64 {
        self.last_seq += 1;
        self.last_seq
    }
}

impl FetchStateUpdate {
    fn none() -> Self {
        Self {
            cached: None,
            wake: Vec::new(),
        }
    }
}

fn covers(chunk: &impl OffsetRange, offset: i64) -> bool {
    chunk.first_offset() <= offset && offset < chunk.next_offset()
}

/// Below every leader epoch, the unknown one (−1) too.
const NEVER_VALIDATED: i32 = -2;
/// How long a completed fetch waits for the cursors that asked for it, when others need its
/// room.
const EVICTION_GRACE: Duration = Duration::from_millis(500);
/// How long a completed fetch waits for cursors in general.
const COMPLETED_FETCH_TTL: Duration = Duration::from_secs(5);
/// How long a result waits for cursors that were woken to claim it.
const READ_RESULT_TTL: Duration = Duration::from_secs(60);
/// How long the tail reads a partition that no cursor reads.
pub(super) const TAIL_IDLE_MAX: Duration = Duration::from_secs(10);
