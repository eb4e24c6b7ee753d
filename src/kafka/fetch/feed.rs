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

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::error::FetchError;
use super::ring::{Extent, Place, Ring};

/// See the module.
#[derive(Debug)]
pub(super) struct Feed<C> {
    ring: Option<Ring<C>>,
    /// Counts the rings: what was read for one is not for another.
    ring_number: u64,
    /// Whether the ring's end was compared with the log of the present leader.
    ring_checked: bool,
    /// When the ring last served or was waited for.
    ring_used: Instant,
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
    /// Leader epoch of the record before `offset`, −1 when unknown.
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
    pub(super) wake: Arc<Notify>,
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

impl<C: Extent> Feed<C> {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            ring: None,
            ring_number: 0,
            ring_checked: true,
            ring_used: now,
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

    // ---- readers

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
    pub(super) fn next(
        &mut self,
        reader: &mut Reader,
        wake: &Arc<Notify>,
        now: Instant,
    ) -> (Next<C>, bool) {
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
                    self.ring_used = now;
                    chunk
                }
                Some(Place::AtEnd) => {
                    return (Next::Wait, work | self.wait_at_end(reader, wake, now));
                }
                Some(Place::Ahead) if reader.offset <= self.valid => {
                    if self.tail == Tail::Out && !self.polling && self.at_end.is_empty() {
                        // Nobody has extended this ring for a while.
                        self.start_ring(reader.offset, reader.epoch);
                    }
                    return (Next::Wait, work | self.wait_at_end(reader, wake, now));
                }
                _ => match self.take_from_shelf(reader.offset) {
                    Some((chunk, ahead)) => {
                        work |= ahead;
                        chunk
                    }
                    None => break,
                },
            };
            reader.offset = chunk.next();
            reader.epoch = chunk.epoch();
            reader.checked = reader.checked.max(chunk.read_under());
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

    fn wait_at_end(&mut self, reader: &mut Reader, wake: &Arc<Notify>, now: Instant) -> bool {
        self.ring_used = now;
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

    fn wait_for_read(&mut self, reader: &mut Reader, wake: &Arc<Notify>) -> bool {
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
        let offset = chunk.next();
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
            epoch: chunk.epoch(),
            checked: chunk.read_under(),
            waiters: Vec::new(),
            ahead: true,
            in_flight: false,
        });
        true
    }

    // ---- the partition's task

    /// Notes who leads. On a rise, positions are compared with its log before use.
    pub(super) fn leader_is(&mut self, epoch: i32) {
        if epoch <= self.leader_epoch {
            return;
        }
        self.leader_epoch = epoch;
        match &self.ring {
            // One answer for all who read from the ring.
            Some(ring) if ring.end_epoch() >= 0 => self.ring_checked = false,
            // Each by its own position.
            _ => self.same_since = epoch,
        }
    }

    /// Whether the ring is to be extended by a poll now.
    pub(super) fn wants_poll(&self) -> bool {
        self.ring.is_some() && self.tail != Tail::In && !self.polling && !self.at_end.is_empty()
    }

    pub(super) fn start_poll(&mut self) -> Option<Spec> {
        let ring = self.ring.as_ref()?;
        self.polling = true;
        let epoch = ring.end_epoch();
        let check = !self.ring_checked && epoch >= 0 && epoch < self.leader_epoch;
        Some(Spec {
            what: What::Poll(self.ring_number),
            offset: ring.end(),
            check: check.then_some(epoch),
        })
    }

    /// Whether a read waits to be started.
    pub(super) fn wants_read(&self) -> bool {
        self.reads
            .iter()
            .any(|read| !read.in_flight && (read.ahead || !read.waiters.is_empty()))
    }

    /// The read that was asked for first; those that nobody waits for come last.
    pub(super) fn start_read(&mut self) -> Option<Spec> {
        self.reads
            .retain(|read| read.in_flight || read.ahead || !read.waiters.is_empty());
        let queued =
            |ahead: bool| move |read: &Read| !read.in_flight && (ahead || !read.waiters.is_empty());
        let index = self
            .reads
            .iter()
            .position(queued(false))
            .or_else(|| self.reads.iter().position(queued(true)))?;
        let (leader_epoch, same_since, ring_checked) =
            (self.leader_epoch, self.same_since, self.ring_checked);
        let read = &mut self.reads[index];
        read.in_flight = true;
        let doubtful = read.checked < same_since || (!ring_checked && read.checked < leader_epoch);
        let check = read.epoch >= 0 && read.epoch < leader_epoch && doubtful;
        Some(Spec {
            what: if read.waiters.is_empty() {
                What::Ahead(read.id)
            } else {
                What::Read(read.id)
            },
            offset: read.offset,
            check: check.then_some(read.epoch),
        })
    }

    /// Whether a reader waits for this read by now.
    pub(super) fn is_awaited(&self, what: What) -> bool {
        match what {
            What::Poll(_) => true,
            What::Read(id) | What::Ahead(id) => self
                .reads
                .iter()
                .any(|read| read.id == id && !read.waiters.is_empty()),
        }
    }

    /// Leader epoch of the position that a read starts from; −1 when unknown.
    pub(super) fn epoch_of(&self, spec: Spec) -> i32 {
        match spec.what {
            What::Poll(_) => self.ring.as_ref().map_or(-1, Ring::end_epoch),
            What::Read(id) | What::Ahead(id) => self
                .reads
                .iter()
                .find(|read| read.id == id)
                .map_or(-1, |read| read.epoch),
        }
    }

    pub(super) fn finish(&mut self, spec: Spec, outcome: Outcome<C>, now: Instant) -> News {
        if let Outcome::Failed(FetchError::Truncated { .. }) = outcome {
            // Some of these may be of the log that is no more.
            self.shelf.clear();
        }
        match spec.what {
            What::Poll(ring) => self.finish_poll(ring, outcome),
            What::Read(id) | What::Ahead(id) => self.finish_read(id, outcome, now),
        }
    }

    fn finish_poll(&mut self, ring: u64, outcome: Outcome<C>) -> News {
        self.polling = false;
        if self.ring.is_none() || ring != self.ring_number {
            return News::none();
        }
        match outcome {
            Outcome::Again => News::none(),
            Outcome::AtEnd { end, .. } => {
                self.ring_checked = true;
                self.saw_end(end);
                News::none()
            }
            Outcome::Chunk { chunk, end } => {
                self.ring_checked = true;
                self.saw_end(end);
                self.extend(chunk)
            }
            Outcome::NoRoom { next, epoch, end } => {
                self.ring_checked = true;
                self.saw_end(end);
                self.skip(next, epoch)
            }
            // Each of those at the end learns it for its own position, by its own read.
            Outcome::Failed(_) => {
                self.drop_ring();
                self.same_since = self.leader_epoch;
                self.valid = -1;
                self.wake_at_end()
            }
        }
    }

    fn finish_read(&mut self, id: u64, outcome: Outcome<C>, now: Instant) -> News {
        let Some(index) = self.reads.iter().position(|read| read.id == id) else {
            return News::none();
        };
        if let Outcome::Again = outcome {
            self.reads[index].in_flight = false;
            // Ahead of time is worth one try only.
            if self.reads[index].waiters.is_empty() {
                self.reads.swap_remove(index);
            }
            return News::none();
        }
        let read = self.reads.remove(index);
        let mut kept = None;
        let (checked, error) = match outcome {
            Outcome::Chunk { chunk, end } => {
                self.saw_end(end);
                let under = chunk.read_under();
                if self.ring.is_none() && chunk.next() >= end {
                    self.start_ring(chunk.next(), chunk.epoch());
                }
                kept = Some(self.put_on_shelf(id, chunk, now));
                (under, None)
            }
            Outcome::AtEnd { end, under } => {
                self.saw_end(end);
                self.valid = self.valid.max(read.offset);
                // A ring that begins beyond the end of the log waits for the wrong
                // offset: this one is the end.
                let reached = match &self.ring {
                    Some(ring) => matches!(ring.find(read.offset), Place::Behind),
                    None => true,
                };
                if reached {
                    self.start_ring(read.offset, read.epoch);
                }
                (under, None)
            }
            Outcome::Failed(error) => (UNCHECKED, Some(error)),
            // A read acquires its room first.
            Outcome::NoRoom { .. } | Outcome::Again => return News::none(),
        };
        if !read.waiters.is_empty() {
            self.answers.push(Answer {
                id,
                checked,
                error,
                unclaimed: read.waiters.len(),
                since: now,
            });
        }
        News {
            kept,
            wake: read.waiters,
        }
    }

    fn put_on_shelf(&mut self, read: u64, chunk: Arc<C>, since: Instant) -> u64 {
        let seq = self.new_seq();
        self.shelf.push(Shelved {
            seq,
            read,
            chunk,
            since,
        });
        seq
    }

    fn start_ring(&mut self, offset: i64, epoch: i32) {
        self.ring = Some(Ring::at(offset, epoch));
        self.ring_number += 1;
        self.ring_checked = true;
    }

    /// Tells everybody, now and later, that this partition is no more.
    pub(super) fn close(&mut self, error: FetchError) -> Vec<Waiter> {
        self.closed = Some(error);
        self.drop_ring();
        self.shelf.clear();
        self.answers.clear();
        let mut wake = self.wake_at_end().wake;
        for read in self.reads.drain(..) {
            wake.extend(read.waiters);
        }
        wake
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Fails what is asked now; later questions are asked again.
    pub(super) fn fail_reads(&mut self, error: &FetchError, now: Instant) -> Vec<Waiter> {
        self.drop_ring();
        let mut wake = self.wake_at_end().wake;
        for read in std::mem::take(&mut self.reads) {
            if !read.waiters.is_empty() {
                self.answers.push(Answer {
                    id: read.id,
                    checked: UNCHECKED,
                    error: Some(error.clone()),
                    unclaimed: read.waiters.len(),
                    since: now,
                });
            }
            wake.extend(read.waiters);
        }
        wake
    }

    /// Since when nobody reads here.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.readers == 0).then_some(self.idle_since)
    }

    /// Lets go of chunks that were shelved long ago, and of answers nobody came for.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.shelf
            .retain(|shelved| now < shelved.since + SHELF_LIFE);
        self.answers
            .retain(|answer| now < answer.since + ANSWER_LIFE);
    }

    /// Gives up the chunk kept under `seq`, unless a reader is about to take it.
    pub(super) fn give_up(&mut self, seq: u64, now: Instant) -> Option<Vec<Arc<C>>> {
        let Some(index) = self.shelf.iter().position(|shelved| shelved.seq == seq) else {
            return Some(
                self.ring
                    .as_mut()
                    .map_or_else(Vec::new, |ring| ring.evict(seq)),
            );
        };
        let shelved = &self.shelf[index];
        let expected = now < shelved.since + PATIENCE
            && self.answers.iter().any(|answer| answer.id == shelved.read);
        (!expected).then(|| vec![self.shelf.swap_remove(index).chunk])
    }

    // ---- the tail

    /// Where the tail has to read, if it is to read here, and for which ring.
    pub(super) fn tail_wants(&self) -> Option<(u64, i64)> {
        match self.tail {
            Tail::Out => None,
            Tail::Wanted | Tail::In => {
                let ring = self.ring.as_ref()?;
                Some((self.ring_number, ring.end()))
            }
        }
    }

    /// Asks for the tail. `false`: there is no ring to extend, or it is asked already.
    pub(super) fn want_tail(&mut self) -> bool {
        let wants = self.ring.is_some() && self.ring_checked && self.tail == Tail::Out;
        if wants {
            self.tail = Tail::Wanted;
        }
        wants
    }

    /// A request of the tail names this partition from now on.
    pub(super) fn tail_joined(&mut self) {
        if self.tail == Tail::Wanted {
            self.tail = Tail::In;
        }
    }

    /// The tail reads here no more. Says whether somebody waits for it.
    pub(super) fn tail_left(&mut self) -> bool {
        self.tail = Tail::Out;
        if self.at_end.is_empty() {
            self.drop_ring();
        }
        !self.at_end.is_empty()
    }

    /// Whether what the tail read for that ring continues it.
    pub(super) fn tail_accepts(&self, ring: u64, first: i64, next: i64) -> bool {
        self.tail != Tail::Out
            && ring == self.ring_number
            && self
                .ring
                .as_ref()
                .is_some_and(|ring| ring.accepts(first, next))
    }

    pub(super) fn tail_push(&mut self, ring: u64, chunk: Arc<C>, end: i64) -> News {
        if !self.tail_accepts(ring, chunk.first(), chunk.next()) {
            return News::none();
        }
        self.saw_end(end);
        self.extend(chunk)
    }

    /// There is no room for what the tail read up to `next`.
    pub(super) fn tail_skip(&mut self, ring: u64, first: i64, next: i64, epoch: i32) -> News {
        if !self.tail_accepts(ring, first, next) {
            return News::none();
        }
        self.skip(next, epoch)
    }

    /// Whether the tail reads here although nobody has looked at it for long.
    pub(super) fn tail_is_idle(&self, now: Instant) -> bool {
        self.at_end.is_empty() && now >= self.ring_used + TAIL_IDLE
    }

    pub(super) fn drop_ring(&mut self) {
        self.ring = None;
        self.ring_checked = true;
        self.tail = Tail::Out;
    }

    fn skip(&mut self, next: i64, epoch: i32) -> News {
        if let Some(ring) = &mut self.ring {
            ring.skip(next, epoch);
        }
        self.valid = self.valid.max(next);
        self.wake_at_end()
    }

    fn extend(&mut self, chunk: Arc<C>) -> News {
        let seq = self.new_seq();
        let next = chunk.next();
        let pushed = self.ring.as_mut().is_some_and(|ring| ring.push(seq, chunk));
        if !pushed {
            return News::none();
        }
        self.valid = self.valid.max(next);
        News {
            kept: Some(seq),
            ..self.wake_at_end()
        }
    }

    fn wake_at_end(&mut self) -> News {
        self.round += 1;
        News {
            kept: None,
            wake: std::mem::take(&mut self.at_end),
        }
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

fn covers(chunk: &impl Extent, offset: i64) -> bool {
    chunk.first() <= offset && offset < chunk.next()
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

#[cfg(test)]
mod tests;
