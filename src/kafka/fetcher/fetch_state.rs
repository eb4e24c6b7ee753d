//! One partition as its cursors share it: who waits for what, and what was fetched.
//!
//! ```text
//!  cursor ── next_chunk() ──▶ tail cache? ────────▶ chunk
//!                             completed fetch? ───▶ chunk (and the next one is prefetched)
//!                             at the end ─────────▶ waits for the tail
//!                             else ───────────────▶ waits for a fetch, one for all cursors
//!                                                   at that offset
//!
//!  a fetch reaches the end ─▶ the tail cache starts there ─▶ handover fetches extend it
//!                                                         ─▶ the tail extends it from then on
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
//! - A position is served without validation only if its leader epoch or its validated epoch is
//!   current, or if the tail cache covers it, whose end is validated for all.
//! - Sans-I/O: the clock is passed in; what is to be done outside is returned.
//!
//! # Truncation (KIP-320)
//! After an unclean election a new leader's log may lack records that were fetched from a former
//! one. A *leader epoch* is that of a record: of the leader that appended it. A *serving epoch*
//! is that of the leader whose Fetch response brought a chunk. A position's *validated epoch* is
//! that of the latest leader whose log is known to hold the record before it: the leader that it
//! was fetched from, or one that answered OffsetForLeaderEpoch for it. When the leader epoch of
//! the partition rises, a position *may be truncated* until it is validated by the new leader.
//! The tail cache is validated at its end, for all positions before it; those that were fetched
//! from the leader before are compared with its *former end*. `highest_valid` is the highest
//! offset that a leader accepted: a cursor up to there waits for the end, one beyond it asks the
//! broker, which may answer OFFSET_OUT_OF_RANGE.

mod end;
mod fetches;
#[cfg(test)]
mod tests;
mod wait;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::FetchError;
use super::tail_cache::{OffsetRange, TailCache, TailCacheLookup};
use runtime::wake::WakeSignal;

/// What is known, fetched and asked for of one partition at one isolation level.
#[derive(Debug)]
pub(super) struct PartitionFetchState<C> {
    tail_cache: Option<TailCache<C>>,
    /// Counts the tail caches: what was fetched for one does not go into another.
    tail_cache_number: u64,
    /// Whether the tail cache has served or was waited for since the tail last asked.
    tail_cache_used: bool,
    /// When the tail last saw that it was.
    tail_cache_used_at: Instant,
    tail: TailState,
    /// The tail may not fetch the partition before a request of its own has fetched from there on.
    tail_barred_at: Option<i64>,
    handover_fetch_in_flight: bool,
    completed_fetches: Vec<CompletedFetch<C>>,
    pending_fetches: Vec<PendingFetch>,
    fetch_results: Vec<FetchResult>,
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
    /// The cursors' offsets, all together.
    position_sum: i128,
    idle_since: Instant,
    last_id: u64,
    last_seq: u64,
}

/// How far the readers of one partition are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionReading {
    /// The topic that it is one of.
    pub topic: Arc<str>,
    /// How many cursors read it.
    pub cursors: usize,
    /// How many offsets they are behind the high watermark (or the last stable offset, by
    /// isolation level), all together: Java's `records-lag`.
    pub lag: u64,
    /// Chunks in its tail cache.
    pub tail_chunks: usize,
}

/// Whether the tail fetches the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TailState {
    NotFetched,
    /// To be fetched; no request of the tail has named the partition yet.
    Requested,
    Fetched,
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
    /// Whether the last chunk came from the tail cache.
    pub(super) served_by_tail: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CursorWait {
    None,
    AtEnd { end_wakeups: u64 },
    Fetch { id: u64 },
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
    /// There is nothing yet; its wake signal is notified when there may be.
    Wait,
}

/// A chunk that a fetch brought, until the cursors that asked for it have taken it.
#[derive(Debug)]
struct CompletedFetch<C> {
    seq: u64,
    fetch: u64,
    chunk: Arc<C>,
    since: Instant,
}

/// A fetch that cursors asked for and that is not answered: queued, or in flight.
#[derive(Debug)]
struct PendingFetch {
    id: u64,
    offset: i64,
    leader_epoch: i32,
    validated_epoch: i32,
    waiters: Vec<CursorWaiter>,
    ahead: bool,
    in_flight: bool,
}

/// How a [`PendingFetch`] ended, for the cursors that waited for it and have not come back.
#[derive(Debug)]
struct FetchResult {
    id: u64,
    validated_epoch: i32,
    error: Option<FetchError>,
    unclaimed: usize,
    since: Instant,
}

/// What the partition's task is to fetch: a position, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FetchSpec {
    pub(super) kind: FetchKind,
    pub(super) offset: i64,
    /// The leader epoch of the position, if it has to be validated against the leader's log
    /// first.
    pub(super) validate_epoch: Option<i32>,
}

/// What a fetch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FetchKind {
    /// A fetch without wait that extends the tail cache of this number, every
    /// `HANDOVER_FETCH_INTERVAL`, until the tail fetches the partition: a partition that is added
    /// to a fetch session waits out the long poll that is in flight.
    Handover(u64),
    /// For cursors that wait.
    Requested(u64),
    /// For cursors that will need it next; none waits yet.
    Prefetch(u64),
}

/// What came of a [`FetchSpec`], for the cursors.
#[derive(Debug)]
pub(super) enum FetchOutcome<C> {
    Chunk {
        chunk: Arc<C>,
        readable_end: i64,
    },
    AtEnd {
        readable_end: i64,
        serving_epoch: i32,
    },
    /// The budget has no room for what a handover fetch brought up to `next_offset`.
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
    /// The tail, if it fetches the partition, is to go on at another offset, or no more.
    pub(super) tail_target_changed: bool,
    pub(super) wake: Vec<CursorWaiter>,
}

impl<C: OffsetRange> PartitionFetchState<C> {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            tail_cache: None,
            tail_cache_number: 0,
            tail_cache_used: false,
            tail_cache_used_at: now,
            tail: TailState::NotFetched,
            tail_barred_at: None,
            handover_fetch_in_flight: false,
            completed_fetches: Vec::new(),
            pending_fetches: Vec::new(),
            fetch_results: Vec::new(),
            waiting_at_end: Vec::new(),
            end_wakeups: 0,
            readable_end: -1,
            highest_valid: -1,
            leader_epoch: -1,
            closed: None,
            cursors: 0,
            position_sum: 0,
            idle_since: now,
            last_id: 0,
            last_seq: 0,
        }
    }

    pub(super) fn cursors(&self) -> usize {
        self.cursors
    }

    /// How far its readers are; its topic is left to the caller. Before a leader has said where
    /// the log ends there is no lag to tell.
    pub(super) fn reading(&self) -> PartitionReading {
        let end = i128::from(self.readable_end.max(0));
        let lag = end * self.cursors as i128 - self.position_sum;
        PartitionReading {
            topic: Arc::default(),
            cursors: self.cursors,
            lag: u64::try_from(lag).unwrap_or(0),
            tail_chunks: self.tail_cache.as_ref().map_or(0, TailCache::len),
        }
    }

    pub(super) fn add_cursor(&mut self, offset: i64, leader_epoch: i32) -> CursorState {
        self.cursors += 1;
        self.position_sum += i128::from(offset);
        CursorState {
            id: self.next_id(),
            offset,
            leader_epoch,
            validated_epoch: NEVER_VALIDATED,
            wait: CursorWait::None,
            served_by_tail: false,
        }
    }

    pub(super) fn seek(&mut self, cursor: &mut CursorState, offset: i64, leader_epoch: i32) {
        self.stop_waiting(cursor);
        // A position within what was delivered here is as valid as the cursor's own.
        if offset > cursor.offset || leader_epoch > cursor.leader_epoch {
            cursor.validated_epoch = NEVER_VALIDATED;
        }
        self.move_cursor(cursor, offset);
        cursor.leader_epoch = leader_epoch;
    }

    fn move_cursor(&mut self, cursor: &mut CursorState, offset: i64) {
        self.position_sum += i128::from(offset) - i128::from(cursor.offset);
        cursor.offset = offset;
    }

    pub(super) fn remove_cursor(&mut self, cursor: &mut CursorState, now: Instant) {
        self.stop_waiting(cursor);
        self.cursors -= 1;
        self.position_sum -= i128::from(cursor.offset);
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
        if let CursorWait::Fetch { id } = cursor.wait {
            if self.pending_fetches.iter().any(|fetch| fetch.id == id) {
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
            let chunk = match self
                .tail_cache
                .as_ref()
                .map(|tail_cache| tail_cache.lookup(cursor.offset))
            {
                Some(TailCacheLookup::Found(chunk)) => {
                    self.tail_cache_used = true;
                    cursor.served_by_tail = true;
                    chunk
                }
                Some(TailCacheLookup::AtEnd) => {
                    return (NextChunk::Wait, work | self.wait_at_end(cursor, wake));
                }
                Some(TailCacheLookup::PastEnd) if cursor.offset <= self.highest_valid => {
                    if self.nothing_extends_tail_cache() {
                        // It needs no validation, so it is valid in the current leader's log.
                        self.start_tail_cache(
                            cursor.offset,
                            cursor.leader_epoch,
                            self.leader_epoch,
                        );
                    }
                    return (NextChunk::Wait, work | self.wait_at_end(cursor, wake));
                }
                _ => match self.take_completed(cursor.offset) {
                    Some((chunk, ahead)) => {
                        work |= ahead;
                        cursor.served_by_tail = false;
                        chunk
                    }
                    None => break,
                },
            };
            self.move_cursor(cursor, chunk.next_offset());
            cursor.leader_epoch = chunk.last_epoch();
            // Not the latest of both: this position is another one.
            cursor.validated_epoch = chunk.serving_epoch();
            if !chunk.is_empty() {
                self.stop_waiting(cursor);
                return (NextChunk::Ready(chunk), work);
            }
        }
        (NextChunk::Wait, work | self.wait_for_fetch(cursor, wake))
    }

    /// KIP-320: after a change of leader the record before the position may be gone.
    fn needs_validation(&self, cursor: &CursorState) -> bool {
        let (offset, validated_epoch) = (cursor.offset, cursor.validated_epoch);
        let covered = |tail_cache: &TailCache<C>| {
            tail_cache.covers(offset, validated_epoch, self.leader_epoch)
        };
        self.may_be_truncated(cursor.leader_epoch, validated_epoch)
            && !self.tail_cache.as_ref().is_some_and(covered)
    }

    /// Whether the record before a position may be truncated, judged by the position alone.
    fn may_be_truncated(&self, leader_epoch: i32, validated_epoch: i32) -> bool {
        (0..self.leader_epoch).contains(&leader_epoch) && validated_epoch < self.leader_epoch
    }

    /// Whether the tail cache's end is known to be in the current leader's log.
    fn tail_cache_is_valid(&self) -> bool {
        self.tail_cache
            .as_ref()
            .is_some_and(|tail_cache| tail_cache.is_valid_in(self.leader_epoch))
    }

    /// Whether the tail cache has stopped short of the log's end: neither the tail nor a handover
    /// fetch goes on there, and no cursor waits for one.
    fn nothing_extends_tail_cache(&self) -> bool {
        self.tail == TailState::NotFetched
            && !self.handover_fetch_in_flight
            && self.waiting_at_end.is_empty()
    }

    /// The completed fetch that covers `offset`, and whether the chunk after it is now to be
    /// prefetched.
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
        let ahead = self.prefetch(&chunk);
        Some((chunk, ahead))
    }

    fn prefetch(&mut self, chunk: &C) -> bool {
        let offset = chunk.next_offset();
        let in_tail_cache = self.tail_cache.as_ref().is_some_and(|tail_cache| {
            !matches!(tail_cache.lookup(offset), TailCacheLookup::BeforeStart)
        });
        if offset >= self.readable_end
            || in_tail_cache
            || self
                .pending_fetches
                .iter()
                .any(|fetch| fetch.offset == offset)
            || self
                .completed_fetches
                .iter()
                .any(|fetch| covers(&*fetch.chunk, offset))
        {
            return false;
        }
        let id = self.next_id();
        self.pending_fetches.push(PendingFetch {
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

    pub(super) fn next_seq(&mut self) -> u64 {
        self.last_seq += 1;
        self.last_seq
    }
}

impl FetchStateUpdate {
    fn none() -> Self {
        Self {
            cached: None,
            tail_target_changed: false,
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
const FETCH_RESULT_TTL: Duration = Duration::from_secs(60);
/// How long the tail fetches a partition that no cursor reads.
pub(super) const TAIL_MAX_IDLE: Duration = Duration::from_secs(10);
