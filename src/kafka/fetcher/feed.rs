//! One partition as its readers share it: who waits for what, and what there is to give.
//!
//! ```text
//!  reader ── next() ──▶ ring? ─────▶ chunk
//!                       shelf? ────▶ chunk (and the one after it is read ahead)
//!                       at the end ▶ waits for the tail
//!                       else ──────▶ waits for a read, one for all who stand there
//!
//!  a read reaches the end ─▶ the ring starts there ─▶ polls extend it ─▶ the tail does
//! ```
//!
//! The hand-over needs no agreement between the two sources: a reader is only an offset,
//! and each chunk says what offsets it covers. Whoever has the offset serves it.
//!
//! # Invariants
//! - A reader gets each offset once: it moves to `next` of what it was given, and is
//!   only given chunks that cover where it stands.
//! - A reader that was told to wait is in exactly one list, and is woken when that list
//!   is answered. It is entered under the same lock under which it was found wanting.
//! - Only a position whose epoch is current, or that came out of the log of a leader
//!   without a truncation since, is served without a check (KIP-320).
//! - Pure: the clock is passed in; what is to be done outside is returned.

mod end;
mod reads;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::FetchError;
use super::ring::{OffsetRange, Place, Ring};
use runtime::wake::WakeSignal;

/// See the module.
#[derive(Debug)]
pub(super) struct Feed<C> {
    ring: Option<Ring<C>>,
    /// Counts the rings: what was read for one is not for another.
    ring_number: u64,
    /// Whether the ring's end was compared with the log of the present leader.
    ring_checked: bool,
    /// Whether the ring has served or was waited for since the tail last asked.
    ring_used: bool,
    /// When the tail last saw that it was.
    ring_used_at: Instant,
    tail: Tail,
    polling: bool,
    shelf: Vec<Shelved<C>>,
    reads: Vec<Read>,
    answers: Vec<Answer>,
    at_end: Vec<Waiter>,
    /// Counts how often those at the end were woken.
    round: u64,
    /// End of what may be read, as last told by a leader.
    end: i64,
    /// The highest offset that a leader accepted.
    valid: i64,
    leader_epoch: i32,
    /// Since the leader of this epoch nothing was truncated that we had seen.
    same_since: i32,
    closed: Option<FetchError>,
    readers: usize,
    idle_since: Instant,
    last_id: u64,
    last_seq: u64,
}

/// The partition's part in the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    Out,
    /// Asked to join; no request has named it yet.
    Wanted,
    In,
}

/// A cursor's part in a feed.
#[derive(Debug)]
pub(super) struct Reader {
    id: u64,
    pub(super) offset: i64,
    /// LeaderAndEpoch epoch of the record before `offset`, −1 when unknown.
    pub(super) epoch: i32,
    /// Epoch of the leader from whose log the position came.
    checked: i32,
    waits: Waits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    No,
    AtEnd { round: u64 },
    Read { id: u64 },
}

/// One to wake.
#[derive(Debug)]
pub(super) struct Waiter {
    reader: u64,
    pub(super) wake: Arc<WakeSignal>,
}

/// What a reader is told.
#[derive(Debug)]
pub(super) enum Next<C> {
    Chunk(Arc<C>),
    Failed(FetchError),
    Wait,
}

#[derive(Debug)]
struct Shelved<C> {
    seq: u64,
    read: u64,
    chunk: Arc<C>,
    since: Instant,
}

/// A read that was asked for and is not answered.
#[derive(Debug)]
struct Read {
    id: u64,
    offset: i64,
    epoch: i32,
    checked: i32,
    waiters: Vec<Waiter>,
    ahead: bool,
    in_flight: bool,
}

/// An answered read that some readers have not come back to.
#[derive(Debug)]
struct Answer {
    id: u64,
    checked: i32,
    error: Option<FetchError>,
    unclaimed: usize,
    since: Instant,
}

/// A read to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) what: What,
    pub(super) offset: i64,
    /// The epoch of the position, if it has to be compared with the leader's log first.
    pub(super) check: Option<i32>,
}

/// Which read it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// At the end of the ring of this number, until the tail takes over.
    Poll(u64),
    /// For readers that wait.
    Read(u64),
    /// Nobody waits for it yet.
    Ahead(u64),
}

/// What came of a read.
#[derive(Debug)]
pub(super) enum Outcome<C> {
    Chunk {
        chunk: Arc<C>,
        end: i64,
    },
    AtEnd {
        end: i64,
        under: i32,
    },
    /// There is no room to keep what a poll read, up to `next`.
    NoRoom {
        next: i64,
        epoch: i32,
        end: i64,
        under: i32,
    },
    Failed(FetchError),
    /// Not tried, or to be tried again.
    Again,
}

/// What follows from new data.
#[derive(Debug)]
pub(super) struct News {
    /// The chunk is kept under this number.
    pub(super) kept: Option<u64>,
    pub(super) wake: Vec<Waiter>,
}

impl<C: OffsetRange> Feed<C> {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            ring: None,
            ring_number: 0,
            ring_checked: true,
            ring_used: false,
            ring_used_at: now,
            tail: Tail::Out,
            polling: false,
            shelf: Vec::new(),
            reads: Vec::new(),
            answers: Vec::new(),
            at_end: Vec::new(),
            round: 0,
            end: -1,
            valid: -1,
            leader_epoch: -1,
            same_since: -1,
            closed: None,
            readers: 0,
            idle_since: now,
            last_id: 0,
            last_seq: 0,
        }
    }

    pub(super) fn enter(&mut self, offset: i64, epoch: i32) -> Reader {
        self.readers += 1;
        Reader {
            id: self.new_id(),
            offset,
            epoch,
            checked: UNCHECKED,
            waits: Waits::No,
        }
    }

    pub(super) fn seek(&mut self, reader: &mut Reader, offset: i64, epoch: i32) {
        self.stop_waiting(reader);
        // A place within what was delivered here is as good as where it stood.
        if offset > reader.offset || epoch > reader.epoch {
            reader.checked = UNCHECKED;
        }
        reader.offset = offset;
        reader.epoch = epoch;
    }

    pub(super) fn leave(&mut self, reader: &mut Reader, now: Instant) {
        self.stop_waiting(reader);
        self.readers -= 1;
        self.idle_since = now;
    }

    /// What there is for `reader`; if it must wait, `wake` is entered. The flag says that
    /// the partition's task has something to do.
    pub(super) fn next(&mut self, reader: &mut Reader, wake: &Arc<WakeSignal>) -> (Next<C>, bool) {
        if let Some(error) = &self.closed {
            return (Next::Failed(error.clone()), false);
        }
        if let Waits::Read { id } = reader.waits {
            if self.reads.iter().any(|read| read.id == id) {
                return (Next::Wait, false);
            }
            reader.waits = Waits::No;
            if let Some((checked, error)) = self.claim(id) {
                reader.checked = reader.checked.max(checked);
                if let Some(error) = error {
                    return (Next::Failed(error), false);
                }
            }
        }
        let mut work = false;
        while !self.must_check(reader) {
            let chunk = match self.ring.as_ref().map(|ring| ring.find(reader.offset)) {
                Some(Place::Found(chunk)) => {
                    self.ring_used = true;
                    chunk
                }
                Some(Place::AtEnd) => {
                    return (Next::Wait, work | self.wait_at_end(reader, wake));
                }
                Some(Place::Ahead) if reader.offset <= self.valid => {
                    if self.tail == Tail::Out && !self.polling && self.at_end.is_empty() {
                        // Nobody has extended this ring for a while.
                        let known = self.ring_checked || reader.epoch >= self.leader_epoch;
                        let under = if known {
                            self.leader_epoch
                        } else {
                            reader.checked
                        };
                        self.start_ring(reader.offset, reader.epoch, under);
                    }
                    return (Next::Wait, work | self.wait_at_end(reader, wake));
                }
                _ => match self.take_from_shelf(reader.offset) {
                    Some((chunk, ahead)) => {
                        work |= ahead;
                        chunk
                    }
                    None => break,
                },
            };
            reader.offset = chunk.next_offset();
            reader.epoch = chunk.last_epoch();
            reader.checked = reader.checked.max(chunk.serving_epoch());
            if !chunk.is_empty() {
                self.stop_waiting(reader);
                return (Next::Chunk(chunk), work);
            }
        }
        (Next::Wait, work | self.wait_for_read(reader, wake))
    }

    fn must_check(&self, reader: &Reader) -> bool {
        reader.epoch >= 0 && reader.epoch < self.leader_epoch && reader.checked < self.same_since
    }

    fn wait_at_end(&mut self, reader: &mut Reader, wake: &Arc<WakeSignal>) -> bool {
        self.ring_used = true;
        let here = Waits::AtEnd { round: self.round };
        if reader.waits != here {
            reader.waits = here;
            self.at_end.push(Waiter {
                reader: reader.id,
                wake: wake.clone(),
            });
        }
        self.tail != Tail::In
    }

    fn wait_for_read(&mut self, reader: &mut Reader, wake: &Arc<WakeSignal>) -> bool {
        self.stop_waiting(reader);
        let at = (reader.offset, reader.epoch, reader.checked);
        let index = self
            .reads
            .iter()
            .position(|read| (read.offset, read.epoch, read.checked) == at);
        let index = index.unwrap_or_else(|| {
            let id = self.new_id();
            self.reads.push(Read {
                id,
                offset: reader.offset,
                epoch: reader.epoch,
                checked: reader.checked,
                waiters: Vec::new(),
                ahead: false,
                in_flight: false,
            });
            self.reads.len() - 1
        });
        let read = &mut self.reads[index];
        reader.waits = Waits::Read { id: read.id };
        read.waiters.push(Waiter {
            reader: reader.id,
            wake: wake.clone(),
        });
        !read.in_flight
    }

    fn stop_waiting(&mut self, reader: &mut Reader) {
        let gone = |waiters: &mut Vec<Waiter>| {
            if let Some(index) = waiters.iter().position(|waiter| waiter.reader == reader.id) {
                waiters.swap_remove(index);
            }
        };
        match reader.waits {
            Waits::No => {}
            Waits::AtEnd { round } if round == self.round => gone(&mut self.at_end),
            Waits::AtEnd { .. } => {}
            Waits::Read { id } => match self.reads.iter_mut().find(|read| read.id == id) {
                Some(read) => gone(&mut read.waiters),
                None => {
                    self.claim(id);
                }
            },
        }
        reader.waits = Waits::No;
    }

    fn claim(&mut self, id: u64) -> Option<(i32, Option<FetchError>)> {
        let index = self.answers.iter().position(|answer| answer.id == id)?;
        let answer = &mut self.answers[index];
        answer.unclaimed -= 1;
        if answer.unclaimed > 0 {
            return Some((answer.checked, answer.error.clone()));
        }
        let answer = self.answers.swap_remove(index);
        Some((answer.checked, answer.error))
    }

    /// The shelved chunk that covers `offset`, and whether the one after it is now
    /// to be read ahead.
    fn take_from_shelf(&mut self, offset: i64) -> Option<(Arc<C>, bool)> {
        let index = self
            .shelf
            .iter()
            .position(|shelved| covers(&*shelved.chunk, offset))?;
        let chunk = if self.readers == 1 {
            self.shelf.swap_remove(index).chunk
        } else {
            self.shelf[index].chunk.clone()
        };
        let ahead = self.read_ahead(&chunk);
        Some((chunk, ahead))
    }

    fn read_ahead(&mut self, chunk: &C) -> bool {
        let offset = chunk.next_offset();
        let in_ring = self
            .ring
            .as_ref()
            .is_some_and(|ring| !matches!(ring.find(offset), Place::Behind));
        if offset >= self.end
            || in_ring
            || self.reads.iter().any(|read| read.offset == offset)
            || self
                .shelf
                .iter()
                .any(|shelved| covers(&*shelved.chunk, offset))
        {
            return false;
        }
        let id = self.new_id();
        self.reads.push(Read {
            id,
            offset,
            epoch: chunk.last_epoch(),
            checked: chunk.serving_epoch(),
            waiters: Vec::new(),
            ahead: true,
            in_flight: false,
        });
        true
    }

    fn saw_end(&mut self, end: i64) {
        self.end = end;
        self.valid = self.valid.max(end);
    }

    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn new_seq(&mut self) -> u64 {
        self.last_seq += 1;
        self.last_seq
    }
}

impl News {
    fn none() -> Self {
        Self {
            kept: None,
            wake: Vec::new(),
        }
    }
}

fn covers(chunk: &impl OffsetRange, offset: i64) -> bool {
    chunk.first_offset() <= offset && offset < chunk.next_offset()
}

/// Below every leader epoch, the unknown one (−1) too.
const UNCHECKED: i32 = -2;
/// How long a shelved chunk waits for the readers that asked for it, when others want
/// its room.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a shelved chunk waits for readers in general.
const SHELF_LIFE: Duration = Duration::from_secs(5);
/// How long an answer waits for readers that were told to come for it.
const ANSWER_LIFE: Duration = Duration::from_secs(60);
/// How long the tail reads for nobody.
pub(super) const TAIL_IDLE: Duration = Duration::from_secs(10);
