use super::*;
use crate::TopicPartition;
use crate::fetcher::FetchPosition;
use crate::fetcher::ring::tests::{Span, span};

fn under(first: i64, next: i64, epoch: i32, under: i32) -> Arc<Span> {
    Arc::new(Span {
        first,
        next,
        epoch,
        under,
        empty: false,
    })
}

fn notify(wake: Vec<Waiter>) {
    for waiter in wake {
        waiter.wake.notify();
    }
}

/// A feed with a clock that stands still and cursors that do as told.
struct Stage {
    feed: Feed<Span>,
    now: Instant,
}

struct Actor {
    reader: Reader,
    wake: Arc<WakeSignal>,
}

impl Stage {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            feed: Feed::new(now),
            now,
        }
    }

    fn actor(&mut self, offset: i64, epoch: i32) -> Actor {
        Actor {
            reader: self.feed.enter(offset, epoch),
            wake: Arc::new(WakeSignal::default()),
        }
    }

    fn next(&mut self, actor: &mut Actor) -> Next<Span> {
        self.feed.next(&mut actor.reader, &actor.wake).0
    }

    fn waits(&mut self, actor: &mut Actor) -> bool {
        matches!(self.next(actor), Next::Wait)
    }

    fn gets(&mut self, actor: &mut Actor, first: i64, next: i64) {
        match self.next(actor) {
            Next::Chunk(chunk) => assert_eq!((chunk.first, chunk.next), (first, next)),
            other => panic!("expected {first}..{next}, got {other:?}"),
        }
    }

    fn answer(&mut self, spec: Spec, outcome: Outcome<Span>) {
        notify(self.feed.finish(spec, outcome, self.now).wake);
    }

    /// Starts a ring at `offset` with the tail in it.
    fn tail_at(&mut self, actor: &mut Actor, offset: i64) {
        assert!(self.waits(actor));
        let spec = self.feed.start_read().unwrap();
        let under = self.feed.leader_epoch;
        self.answer(spec, Outcome::AtEnd { end: offset, under });
        assert!(self.waits(actor));
        assert!(self.feed.want_tail());
        self.feed.tail_joined();
    }

    /// What a poll reads.
    fn poll(&mut self, chunk: Arc<Span>) -> News {
        let poll = self.feed.start_poll().unwrap();
        let end = chunk.next;
        self.feed
            .finish(poll, Outcome::Chunk { chunk, end }, self.now)
    }

    fn push(&mut self, chunk: Arc<Span>) -> News {
        let (ring, _) = self.feed.tail_wants().unwrap();
        let end = chunk.next;
        self.feed.tail_push(ring, chunk, end)
    }
}

#[test]
fn readers_at_one_place_share_one_read() {
    let mut stage = Stage::new();
    let mut a = stage.actor(0, -1);
    let mut b = stage.actor(0, -1);
    assert!(stage.waits(&mut a) && stage.waits(&mut b));
    let spec = stage.feed.start_read().unwrap();
    assert_eq!(stage.feed.start_read(), None);
    let chunk = span(0, 10);
    stage.answer(spec, Outcome::Chunk { chunk, end: 100 });
    assert!(a.wake.take() && b.wake.take());
    stage.gets(&mut a, 0, 10);
    stage.gets(&mut b, 0, 10);
}

#[test]
fn one_chunk_is_read_ahead_and_no_more() {
    let mut stage = Stage::new();
    let mut a = stage.actor(0, -1);
    assert!(stage.waits(&mut a));
    let spec = stage.feed.start_read().unwrap();
    stage.answer(
        spec,
        Outcome::Chunk {
            chunk: span(0, 10),
            end: 100,
        },
    );
    stage.gets(&mut a, 0, 10);
    let ahead = stage.feed.start_read().unwrap();
    assert!(matches!(ahead.what, What::Ahead(_)));
    assert_eq!(ahead.offset, 10);
    assert!(!stage.feed.is_awaited(ahead.what));
    assert!(stage.waits(&mut a), "joins the read that is under way");
    assert!(stage.feed.is_awaited(ahead.what));
    assert_eq!(stage.feed.start_read(), None);
    stage.answer(
        ahead,
        Outcome::Chunk {
            chunk: span(10, 20),
            end: 20,
        },
    );
    assert!(a.wake.take());
    stage.gets(&mut a, 10, 20);
    assert_eq!(stage.feed.start_read(), None, "20 is the end");
}

#[test]
fn a_laggard_meets_the_tail() {
    let mut stage = Stage::new();
    let mut quick = stage.actor(50, -1);
    stage.tail_at(&mut quick, 50);
    let mut slow = stage.actor(40, -1);
    assert!(stage.waits(&mut slow));
    let spec = stage.feed.start_read().unwrap();
    notify(stage.push(span(50, 60)).wake);
    assert!(quick.wake.take() && !slow.wake.take());
    // The read overlaps what the ring holds by now.
    stage.answer(
        spec,
        Outcome::Chunk {
            chunk: span(40, 55),
            end: 60,
        },
    );
    assert!(slow.wake.take());
    stage.gets(&mut slow, 40, 55);
    stage.gets(&mut slow, 50, 60);
    assert_eq!(slow.reader.offset, 60);
    assert!(stage.waits(&mut slow));
    assert!(stage.feed.start_read().is_none(), "it waits for the tail");
}

#[test]
fn a_reader_that_the_ring_left_behind_reads_on_its_own() {
    let mut stage = Stage::new();
    let mut a = stage.actor(50, -1);
    stage.tail_at(&mut a, 50);
    let first = stage.push(span(50, 60)).kept.unwrap();
    stage.push(span(60, 70));
    stage.feed.evict(first, stage.now).unwrap();
    assert!(stage.waits(&mut a));
    assert_eq!(stage.feed.start_read().unwrap().offset, 50);
}

#[test]
fn what_the_ring_has_no_room_for_is_read_by_those_who_want_it() {
    let mut stage = Stage::new();
    let mut a = stage.actor(50, -1);
    stage.tail_at(&mut a, 50);
    let (ring, offset) = stage.feed.tail_wants().unwrap();
    assert_eq!(offset, 50);
    notify(stage.feed.tail_skip(ring, 50, 60, 0).wake);
    assert!(a.wake.take());
    assert!(stage.waits(&mut a));
    assert_eq!(stage.feed.start_read().unwrap().offset, 50);
    assert_eq!(stage.feed.tail_wants(), Some((ring, 60)));
}

#[test]
fn until_the_tail_reads_a_partition_polls_extend_its_ring() {
    let mut stage = Stage::new();
    let mut a = stage.actor(5, -1);
    assert!(stage.waits(&mut a));
    let spec = stage.feed.start_read().unwrap();
    stage.answer(spec, Outcome::AtEnd { end: 5, under: 0 });
    assert!(!stage.feed.wants_poll(), "nobody waits yet");
    assert!(stage.waits(&mut a));
    assert!(stage.feed.wants_poll());
    let poll = stage.feed.start_poll().unwrap();
    assert!(!stage.feed.wants_poll(), "one at a time");
    assert!(stage.feed.want_tail());
    stage.feed.tail_joined();
    // The tail is quicker than the poll.
    notify(stage.push(span(5, 6)).wake);
    stage.answer(
        poll,
        Outcome::Chunk {
            chunk: span(5, 6),
            end: 6,
        },
    );
    stage.gets(&mut a, 5, 6);
    assert!(stage.waits(&mut a));
    assert!(!stage.feed.wants_poll());
}

#[test]
fn a_read_for_a_ring_that_is_no_more_is_not_taken() {
    let mut stage = Stage::new();
    let mut a = stage.actor(50, -1);
    stage.tail_at(&mut a, 50);
    let (old, _) = stage.feed.tail_wants().unwrap();
    stage.feed.drop_ring();
    stage.feed.start_ring(45, -1, -1);
    assert!(stage.feed.want_tail());
    assert!(stage.feed.tail_push(old, span(40, 60), 60).kept.is_none());
    let poll = stage.feed.start_poll().unwrap();
    stage.feed.start_ring(44, -1, -1);
    let chunk = span(44, 60);
    let news = stage
        .feed
        .finish(poll, Outcome::Chunk { chunk, end: 60 }, stage.now);
    assert!(news.kept.is_none());
}

#[test]
fn an_error_reaches_those_who_stand_there_and_nobody_else() {
    let mut stage = Stage::new();
    let mut a = stage.actor(7, -1);
    let mut b = stage.actor(7, -1);
    let mut other = stage.actor(8, -1);
    assert!(stage.waits(&mut a) && stage.waits(&mut b) && stage.waits(&mut other));
    let spec = stage.feed.start_read().unwrap();
    stage.answer(spec, Outcome::Failed(FetchError::Stopped));
    assert!(!other.wake.take());
    for actor in [&mut a, &mut b] {
        assert!(actor.wake.take());
        assert!(matches!(
            stage.next(actor),
            Next::Failed(FetchError::Stopped)
        ));
    }
    assert!(stage.feed.answers.is_empty());
    assert!(stage.waits(&mut a), "asked again, it is read again");
}

#[test]
fn those_who_leave_or_seek_leave_nothing_behind() {
    let mut stage = Stage::new();
    let mut a = stage.actor(7, -1);
    let mut b = stage.actor(7, -1);
    assert!(stage.waits(&mut a) && stage.waits(&mut b));
    stage.feed.leave(&mut a.reader, stage.now);
    let spec = stage.feed.start_read().unwrap();
    stage.answer(spec, Outcome::AtEnd { end: 7, under: 0 });
    stage.feed.seek(&mut b.reader, 3, -1);
    assert!(stage.feed.answers.is_empty());
    assert!(stage.waits(&mut b));
    stage.feed.leave(&mut b.reader, stage.now);
    assert_eq!(stage.feed.start_read(), None);
    assert_eq!(stage.feed.idle_since(), Some(stage.now));
    let mut c = stage.actor(7, -1);
    assert!(stage.waits(&mut c));
    assert_eq!(stage.feed.at_end.len(), 1);
    stage.feed.leave(&mut c.reader, stage.now);
    assert!(stage.feed.at_end.is_empty());
}

#[test]
fn a_position_of_an_older_epoch_is_checked_before_it_is_served() {
    let mut stage = Stage::new();
    stage.feed.leader_is(5);
    let mut fresh = stage.actor(50, 5);
    stage.tail_at(&mut fresh, 50);
    stage.push(under(50, 60, 5, 5));
    let mut old = stage.actor(52, 3);
    assert!(stage.waits(&mut old), "although the ring has it");
    let spec = stage.feed.start_read().unwrap();
    assert_eq!(spec.check, Some(3));
    let chunk = under(52, 60, 5, 5);
    stage.answer(spec, Outcome::Chunk { chunk, end: 60 });
    stage.gets(&mut old, 50, 60);
}

#[test]
fn after_a_leader_change_the_end_of_the_ring_is_checked_for_all() {
    let mut stage = Stage::new();
    stage.feed.leader_is(5);
    let mut a = stage.actor(50, 5);
    stage.tail_at(&mut a, 50);
    notify(stage.push(under(50, 60, 5, 5)).wake);
    stage.gets(&mut a, 50, 60);
    assert!(stage.waits(&mut a));
    assert!(stage.feed.tail_left());
    stage.feed.leader_is(6);
    assert!(!stage.feed.want_tail(), "not before it is checked");
    let poll = stage.feed.start_poll().unwrap();
    assert_eq!(poll.check, Some(5));
    stage.answer(poll, Outcome::AtEnd { end: 60, under: 6 });
    assert!(stage.feed.want_tail());
    // One who lagged meanwhile stands in the same, unbroken log.
    notify(stage.push(under(60, 61, 6, 6)).wake);
    stage.gets(&mut a, 60, 61);
}

#[test]
fn an_answer_of_the_leader_before_checks_nothing() {
    let end = 60;
    let outcomes: [fn() -> Outcome<Span>; 3] = [
        || Outcome::AtEnd { end: 60, under: 5 },
        || Outcome::Chunk {
            chunk: under(60, 61, 5, 5),
            end: 61,
        },
        || Outcome::NoRoom {
            next: 61,
            epoch: 5,
            end: 61,
            under: 5,
        },
    ];
    for outcome in outcomes {
        let mut stage = Stage::new();
        stage.feed.leader_is(5);
        let mut a = stage.actor(50, 5);
        stage.tail_at(&mut a, 50);
        notify(stage.push(under(50, end, 5, 5)).wake);
        stage.gets(&mut a, 50, end);
        assert!(stage.waits(&mut a));
        stage.feed.tail_left();
        let poll = stage.feed.start_poll().unwrap();
        assert_eq!(poll.check, None, "of the leader that it was read from");
        stage.feed.leader_is(6);
        stage.answer(poll, outcome());
        assert!(!stage.feed.want_tail(), "not before it is checked");
        let _ = stage.next(&mut a);
        assert_eq!(stage.feed.start_poll().unwrap().check, Some(5));
    }
}

#[test]
fn a_ring_that_was_not_checked_leaves_its_doubts_to_the_next() {
    let mut stage = Stage::new();
    stage.feed.leader_is(5);
    let mut a = stage.actor(50, 5);
    stage.tail_at(&mut a, 50);
    notify(stage.push(under(50, 60, 5, 5)).wake);
    stage.gets(&mut a, 50, 60);
    let mut b = stage.actor(50, 5);
    stage.gets(&mut b, 50, 60);
    assert!(stage.waits(&mut a));
    stage.feed.tail_left();
    stage.feed.leader_is(6);
    // The new leader's log is shorter: for one who asks there, its end is before the ring.
    let mut c = stage.actor(40, 6);
    assert!(stage.waits(&mut c));
    let spec = stage.feed.start_read().unwrap();
    stage.answer(spec, Outcome::AtEnd { end: 40, under: 6 });
    assert!(stage.waits(&mut c));
    // And grows past where the others stand.
    notify(stage.poll(under(40, 70, 6, 6)).wake);
    stage.gets(&mut c, 40, 70);
    assert!(stage.waits(&mut b), "another record may be there now");
    let spec = stage.feed.start_read().unwrap();
    assert_eq!((spec.offset, spec.check), (60, Some(5)));
}

#[test]
fn a_ring_that_has_not_moved_yet_is_checked_as_well() {
    let mut stage = Stage::new();
    stage.feed.leader_is(5);
    let mut a = stage.actor(50, 5);
    stage.tail_at(&mut a, 50);
    stage.feed.tail_left();
    assert!(stage.waits(&mut a));
    stage.feed.leader_is(6);
    assert_eq!(stage.feed.start_poll().unwrap().check, Some(5));
}

#[test]
fn truncation_is_told_to_each_by_its_own_position() {
    let mut stage = Stage::new();
    stage.feed.leader_is(5);
    let mut a = stage.actor(50, 5);
    stage.tail_at(&mut a, 50);
    notify(stage.push(under(50, 60, 5, 5)).wake);
    stage.gets(&mut a, 50, 60);
    assert!(stage.waits(&mut a));
    stage.feed.tail_left();
    stage.feed.leader_is(6);
    let poll = stage.feed.start_poll().unwrap();
    let error = FetchError::Truncated {
        tp: TopicPartition::new("t", 0),
        offset: 60,
        to: FetchPosition {
            offset: 55,
            leader_epoch: 5,
        },
    };
    stage.answer(poll, Outcome::Failed(error.clone()));
    assert!(a.wake.take());
    assert!(stage.waits(&mut a));
    let spec = stage.feed.start_read().unwrap();
    assert_eq!((spec.offset, spec.check), (60, Some(5)));
    stage.answer(spec, Outcome::Failed(error.clone()));
    assert!(matches!(stage.next(&mut a), Next::Failed(e) if e == error));
}

#[test]
fn a_place_beyond_the_end_is_asked_about_before_it_waits() {
    let mut stage = Stage::new();
    let mut a = stage.actor(50, -1);
    stage.tail_at(&mut a, 50);
    let mut ahead = stage.actor(70, -1);
    assert!(stage.waits(&mut ahead));
    let spec = stage.feed.start_read().unwrap();
    assert_eq!(spec.offset, 70);
    stage.answer(spec, Outcome::AtEnd { end: 50, under: -1 });
    assert!(ahead.wake.take());
    assert!(stage.waits(&mut ahead));
    assert_eq!(stage.feed.start_read(), None);
    assert_eq!(stage.feed.at_end.len(), 2);
}

#[test]
fn a_ring_beyond_the_end_of_the_log_moves_back() {
    let mut stage = Stage::new();
    let mut ahead = stage.actor(70, -1);
    stage.tail_at(&mut ahead, 70);
    let mut a = stage.actor(50, -1);
    assert!(stage.waits(&mut a));
    let spec = stage.feed.start_read().unwrap();
    stage.answer(spec, Outcome::AtEnd { end: 50, under: -1 });
    assert!(stage.waits(&mut a));
    assert_eq!(stage.feed.start_read(), None, "it does not read in circles");
    assert_eq!(stage.feed.tail_wants().map(|(_, offset)| offset), Some(50));
}

#[test]
fn chunks_with_nothing_to_deliver_move_readers_on() {
    let mut stage = Stage::new();
    let mut a = stage.actor(50, -1);
    stage.tail_at(&mut a, 50);
    let filtered = Arc::new(Span {
        first: 50,
        next: 60,
        epoch: 1,
        under: 0,
        empty: true,
    });
    notify(stage.push(filtered).wake);
    assert!(a.wake.take());
    assert!(stage.waits(&mut a));
    assert_eq!((a.reader.offset, a.reader.epoch), (60, 1));
}

#[test]
fn a_chunk_that_was_asked_for_is_not_given_up_at_once() {
    let mut stage = Stage::new();
    let mut a = stage.actor(0, -1);
    let mut b = stage.actor(0, -1);
    assert!(stage.waits(&mut a) && stage.waits(&mut b));
    let spec = stage.feed.start_read().unwrap();
    let news = stage.feed.finish(
        spec,
        Outcome::Chunk {
            chunk: span(0, 10),
            end: 10,
        },
        stage.now,
    );
    let seq = news.kept.unwrap();
    stage.gets(&mut a, 0, 10);
    assert!(stage.feed.evict(seq, stage.now).is_none());
    let later = stage.now + PATIENCE;
    assert_eq!(stage.feed.evict(seq, later).unwrap().len(), 1);
    assert!(stage.waits(&mut b), "it is read again");
    assert_eq!(stage.feed.start_read().unwrap().offset, 0);
}

#[test]
fn a_partition_that_is_no_more_says_so_to_all() {
    let mut stage = Stage::new();
    let mut a = stage.actor(50, -1);
    stage.tail_at(&mut a, 50);
    let mut b = stage.actor(0, -1);
    assert!(stage.waits(&mut b));
    notify(stage.feed.close(FetchError::Stopped));
    for actor in [&mut a, &mut b] {
        assert!(actor.wake.take());
        assert!(matches!(stage.next(actor), Next::Failed(_)));
    }
}

/// Everything at once, in random order: whatever happens, each cursor sees each offset
/// once, in order, and never hangs as long as it comes back when woken.
#[test]
fn every_cursor_sees_every_offset_once_whatever_the_order_of_events() {
    for seed in 1..=400 {
        Chaos::new(seed).run();
    }
}

struct Chaos {
    stage: Stage,
    random: u64,
    log_end: i64,
    actors: Vec<(Actor, i64)>,
    reads: Vec<Spec>,
    /// A long poll of the tail: ring and offset it was sent with.
    tail: Option<(u64, i64)>,
    kept: Vec<u64>,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        Self {
            stage: Stage::new(),
            random: seed,
            log_end: 30,
            actors: Vec::new(),
            reads: Vec::new(),
            tail: None,
            kept: Vec::new(),
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.random >> 33) % n
    }

    fn run(mut self) {
        for start in [0, 0, 10, 30, 30] {
            let actor = self.stage.actor(start, -1);
            actor.wake.notify();
            self.actors.push((actor, start));
        }
        for _ in 0..2000 {
            match self.below(14) {
                0 if self.log_end < 300 => self.log_end += 1 + self.below(5) as i64,
                1 => self.evict(),
                2 if self.below(20) == 0 => self.eject(),
                3 if self.below(20) == 0 => self.reseek(),
                4..6 => self.start(),
                6..8 => self.finish(),
                8 => self.plan_tail(),
                9 => self.answer_tail(true),
                _ => self.consume(),
            }
        }
        // Nothing new; what is under way comes to rest.
        for _ in 0..20_000 {
            self.start();
            self.finish();
            self.plan_tail();
            self.answer_tail(false);
            self.consume();
            if self.actors.iter().all(|(_, seen)| *seen == self.log_end) {
                return;
            }
        }
        let seen: Vec<i64> = self.actors.iter().map(|(_, seen)| *seen).collect();
        panic!(
            "stuck at {seen:?} of {}: {:#?}",
            self.log_end, self.stage.feed
        );
    }

    fn start(&mut self) {
        let feed = &mut self.stage.feed;
        feed.want_tail();
        if feed.wants_poll() {
            self.reads.extend(feed.start_poll());
        }
        if self.reads.len() < 4 {
            self.reads.extend(feed.start_read());
        }
    }

    fn finish(&mut self) {
        if self.reads.is_empty() {
            return;
        }
        let index = self.below(self.reads.len() as u64) as usize;
        let spec = self.reads.swap_remove(index);
        let end = self.log_end;
        let outcome = if self.below(8) == 0 {
            Outcome::Again
        } else if spec.offset == end {
            Outcome::AtEnd { end, under: 0 }
        } else {
            let next = (spec.offset + 1 + self.below(9) as i64).min(end);
            let empty = self.below(6) == 0;
            let chunk = self.chunk(spec.offset, next, empty);
            Outcome::Chunk { chunk, end }
        };
        let news = self.stage.feed.finish(spec, outcome, self.stage.now);
        self.take(news);
    }

    /// Whether a chunk is empty is a property of the log: those from a multiple of 5.
    fn chunk(&self, first: i64, next: i64, empty: bool) -> Arc<Span> {
        Arc::new(Span {
            first,
            next,
            epoch: 0,
            under: 0,
            empty,
        })
    }

    fn plan_tail(&mut self) {
        if self.tail.is_none() {
            self.tail = self.stage.feed.tail_wants();
            if self.tail.is_some() {
                self.stage.feed.tail_joined();
            }
        }
    }

    fn answer_tail(&mut self, may_skip: bool) {
        let Some((ring, first)) = self.tail.take() else {
            return;
        };
        if first == self.log_end {
            return;
        }
        let next = (first + 1 + self.below(9) as i64).min(self.log_end);
        let news = if may_skip && self.below(5) == 0 {
            self.stage.feed.tail_skip(ring, first, next, 0)
        } else {
            let chunk = self.chunk(first, next, false);
            self.stage.feed.tail_push(ring, chunk, self.log_end)
        };
        self.take(news);
    }

    fn take(&mut self, news: News) {
        self.kept.extend(news.kept);
        notify(news.wake);
    }

    fn evict(&mut self) {
        if !self.kept.is_empty() {
            let seq = self.kept.remove(0);
            if self.stage.feed.evict(seq, self.stage.now).is_none() {
                self.kept.push(seq);
            }
        }
    }

    fn eject(&mut self) {
        self.stage.feed.tail_left();
        self.tail = None;
    }

    fn reseek(&mut self) {
        let index = self.below(self.actors.len() as u64) as usize;
        let (actor, seen) = &mut self.actors[index];
        self.stage.feed.seek(&mut actor.reader, *seen, -1);
        actor.wake.notify();
    }

    fn consume(&mut self) {
        let index = self.below(self.actors.len() as u64) as usize;
        let (actor, seen) = &mut self.actors[index];
        if !actor.wake.take() {
            return;
        }
        let from = actor.reader.offset;
        assert_eq!(from, *seen);
        match self.stage.feed.next(&mut actor.reader, &actor.wake).0 {
            Next::Chunk(chunk) => {
                assert!(chunk.next > from && actor.reader.offset == chunk.next);
                actor.wake.notify();
            }
            Next::Wait => {}
            Next::Failed(error) => panic!("{error}"),
        }
        *seen = actor.reader.offset;
    }
}

#[test]
fn the_tail_does_not_read_for_ever_for_nobody() {
    let mut stage = Stage::new();
    let mut a = stage.actor(50, -1);
    stage.tail_at(&mut a, 50);
    let mut now = stage.now + TAIL_IDLE;
    assert!(!stage.feed.tail_is_idle(now), "somebody waits for it");
    notify(stage.push(span(50, 60)).wake);
    now += TAIL_IDLE / 2;
    assert!(!stage.feed.tail_is_idle(now), "somebody did not long ago");
    stage.gets(&mut a, 50, 60);
    now += TAIL_IDLE / 2;
    assert!(!stage.feed.tail_is_idle(now), "somebody was served");
    now += TAIL_IDLE;
    assert!(stage.feed.tail_is_idle(now));
}
