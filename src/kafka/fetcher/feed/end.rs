//! The end of a partition: the ring, and the tail that extends it.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::ring::OffsetRange;
use super::{Feed, News, TAIL_IDLE, Tail};

impl<C: OffsetRange> Feed<C> {
    /// Where the tail has to read, if it is to read here, and for which ring.
    pub(in crate::fetcher) fn tail_wants(&self) -> Option<(u64, i64)> {
        match self.tail {
            Tail::Out => None,
            Tail::Wanted | Tail::In => {
                let ring = self.ring.as_ref()?;
                Some((self.ring_number, ring.end()))
            }
        }
    }

    /// Asks for the tail. `false`: there is no ring to extend, or it is asked already.
    pub(in crate::fetcher) fn want_tail(&mut self) -> bool {
        let wants = self.ring.is_some() && self.ring_checked && self.tail == Tail::Out;
        if wants {
            self.tail = Tail::Wanted;
        }
        wants
    }

    /// A request of the tail names this partition from now on.
    pub(in crate::fetcher) fn tail_joined(&mut self) {
        if self.tail == Tail::Wanted {
            self.tail = Tail::In;
        }
    }

    /// The tail reads here no more. Says whether somebody waits for it.
    pub(in crate::fetcher) fn tail_left(&mut self) -> bool {
        self.tail = Tail::Out;
        if self.at_end.is_empty() {
            self.drop_ring();
        }
        !self.at_end.is_empty()
    }

    /// Whether what the tail read for that ring continues it.
    pub(in crate::fetcher) fn tail_accepts(&self, ring: u64, first: i64, next: i64) -> bool {
        self.tail != Tail::Out
            && ring == self.ring_number
            && self
                .ring
                .as_ref()
                .is_some_and(|ring| ring.accepts(first, next))
    }

    pub(in crate::fetcher) fn tail_push(&mut self, ring: u64, chunk: Arc<C>, end: i64) -> News {
        if !self.tail_accepts(ring, chunk.first_offset(), chunk.next_offset()) {
            return News::none();
        }
        self.saw_end(end);
        self.extend(chunk)
    }

    /// There is no room for what the tail read up to `next`.
    pub(in crate::fetcher) fn tail_skip(
        &mut self,
        ring: u64,
        first: i64,
        next: i64,
        epoch: i32,
    ) -> News {
        if !self.tail_accepts(ring, first, next) {
            return News::none();
        }
        self.skip(next, epoch)
    }

    /// Whether the tail reads here although nobody has looked at it for long. For the tail
    /// to ask every now and then, so that readers need not look at the clock.
    pub(in crate::fetcher) fn tail_is_idle(&mut self, now: Instant) -> bool {
        if std::mem::take(&mut self.ring_used) || !self.at_end.is_empty() {
            self.ring_used_at = now;
        }
        now >= self.ring_used_at + TAIL_IDLE
    }

    pub(in crate::fetcher) fn drop_ring(&mut self) {
        self.ring = None;
        self.ring_checked = true;
        self.tail = Tail::Out;
    }

    pub(super) fn skip(&mut self, next: i64, epoch: i32) -> News {
        if let Some(ring) = &mut self.ring {
            ring.skip(next, epoch);
        }
        self.valid = self.valid.max(next);
        self.wake_at_end()
    }

    pub(super) fn extend(&mut self, chunk: Arc<C>) -> News {
        let seq = self.new_seq();
        let next = chunk.next_offset();
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

    pub(super) fn wake_at_end(&mut self) -> News {
        self.round += 1;
        News {
            kept: None,
            wake: std::mem::take(&mut self.at_end),
        }
    }
}
