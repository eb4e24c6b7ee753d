//! The reads that readers ask for, and what came of them.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::error::FetchError;
use super::super::ring::{OffsetRange, Place, Ring};
use super::{
    ANSWER_LIFE, Answer, Feed, News, Outcome, PATIENCE, Read, SHELF_LIFE, Shelved, Spec, Tail,
    UNCHECKED, Waiter, What,
};

impl<C: OffsetRange> Feed<C> {
    /// Notes who leads. On a rise, positions are compared with its log before use.
    pub(in crate::fetcher) fn leader_is(&mut self, epoch: i32) {
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
    pub(in crate::fetcher) fn wants_poll(&self) -> bool {
        self.ring.is_some() && self.tail != Tail::In && !self.polling && !self.at_end.is_empty()
    }

    pub(in crate::fetcher) fn start_poll(&mut self) -> Option<Spec> {
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
    pub(in crate::fetcher) fn wants_read(&self) -> bool {
        self.reads
            .iter()
            .any(|read| !read.in_flight && (read.ahead || !read.waiters.is_empty()))
    }

    /// The read that was asked for first; those that nobody waits for come last.
    pub(in crate::fetcher) fn start_read(&mut self) -> Option<Spec> {
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
    pub(in crate::fetcher) fn is_awaited(&self, what: What) -> bool {
        match what {
            What::Poll(_) => true,
            What::Read(id) | What::Ahead(id) => self
                .reads
                .iter()
                .any(|read| read.id == id && !read.waiters.is_empty()),
        }
    }

    /// Leader epoch of the position that a read starts from; −1 when unknown.
    pub(in crate::fetcher) fn epoch_of(&self, spec: Spec) -> i32 {
        match spec.what {
            What::Poll(_) => self.ring.as_ref().map_or(-1, Ring::end_epoch),
            What::Read(id) | What::Ahead(id) => self
                .reads
                .iter()
                .find(|read| read.id == id)
                .map_or(-1, |read| read.epoch),
        }
    }

    pub(in crate::fetcher) fn finish(
        &mut self,
        spec: Spec,
        outcome: Outcome<C>,
        now: Instant,
    ) -> News {
        if let Outcome::Failed(FetchError::Truncated { .. }) = outcome {
            // Some of these may be of the log that is no more.
            self.shelf.clear();
        }
        match spec.what {
            What::Poll(ring) => self.finish_poll(ring, outcome),
            What::Read(id) | What::Ahead(id) => self.finish_read(id, outcome, now),
        }
    }

    pub(super) fn finish_poll(&mut self, ring: u64, outcome: Outcome<C>) -> News {
        self.polling = false;
        if self.ring.is_none() || ring != self.ring_number {
            return News::none();
        }
        match outcome {
            Outcome::Again => News::none(),
            Outcome::AtEnd { end, under } => {
                self.ring_checked |= under >= self.leader_epoch;
                self.saw_end(end);
                News::none()
            }
            Outcome::Chunk { chunk, end } => {
                self.ring_checked |= chunk.serving_epoch() >= self.leader_epoch;
                self.saw_end(end);
                self.extend(chunk)
            }
            Outcome::NoRoom {
                next,
                epoch,
                end,
                under,
            } => {
                self.ring_checked |= under >= self.leader_epoch;
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

    pub(super) fn finish_read(&mut self, id: u64, outcome: Outcome<C>, now: Instant) -> News {
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
                let under = chunk.serving_epoch();
                if self.ring.is_none() && chunk.next_offset() >= end {
                    self.start_ring(chunk.next_offset(), chunk.last_epoch(), under);
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
                    self.start_ring(read.offset, read.epoch, under);
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

    pub(super) fn put_on_shelf(&mut self, read: u64, chunk: Arc<C>, since: Instant) -> u64 {
        let seq = self.new_seq();
        self.shelf.push(Shelved {
            seq,
            read,
            chunk,
            since,
        });
        seq
    }

    /// Puts the ring to `offset`, a position that is good in the log of the leader `under`.
    pub(super) fn start_ring(&mut self, offset: i64, epoch: i32, under: i32) {
        if !self.ring_checked {
            // Nobody learns by it any more what its end would have told all: each asks.
            self.same_since = self.leader_epoch;
        }
        self.ring = Some(Ring::at(offset, epoch));
        self.ring_number += 1;
        // Without an epoch there is nothing to compare.
        self.ring_checked = under >= self.leader_epoch || epoch < 0;
    }

    /// Tells everybody, now and later, that this partition is no more.
    pub(in crate::fetcher) fn close(&mut self, error: FetchError) -> Vec<Waiter> {
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

    pub(in crate::fetcher) fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Fails what is asked now; later questions are asked again.
    pub(in crate::fetcher) fn fail_reads(
        &mut self,
        error: &FetchError,
        now: Instant,
    ) -> Vec<Waiter> {
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
    pub(in crate::fetcher) fn idle_since(&self) -> Option<Instant> {
        (self.readers == 0).then_some(self.idle_since)
    }

    /// Lets go of chunks that were shelved long ago, and of answers nobody came for.
    pub(in crate::fetcher) fn tidy(&mut self, now: Instant) {
        self.shelf
            .retain(|shelved| now < shelved.since + SHELF_LIFE);
        self.answers
            .retain(|answer| now < answer.since + ANSWER_LIFE);
    }

    /// Gives up the chunk kept under `seq`, unless a reader is about to take it.
    pub(in crate::fetcher) fn evict(&mut self, seq: u64, now: Instant) -> Option<Vec<Arc<C>>> {
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
}
