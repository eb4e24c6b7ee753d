use super::*;
use crate::TopicPartition;
use crate::fetcher::FetchPosition;
use crate::fetcher::ring::tests::{TestChunk, span};

fn served_by(first: i64, next: i64, last_epoch: i32, serving_epoch: i32) -> Arc<TestChunk> {
    Arc::new(TestChunk {
        first,
        next,
        last_epoch,
        serving_epoch,
        empty: false,
    })
}

fn notify(wake: Vec<CursorWaiter>) {
    for waiter in wake {
        waiter.wake.notify();
    }
}

/// A fetch state with a clock that stands still.
struct Harness {
    state: PartitionFetchState<TestChunk>,
    now: Instant,
}

struct TestCursor {
    state: CursorState,
    wake: Arc<WakeSignal>,
}

impl Harness {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            state: PartitionFetchState::new(now),
            now,
        }
    }

    fn cursor(&mut self, offset: i64, epoch: i32) -> TestCursor {
        TestCursor {
            state: self.state.add_cursor(offset, epoch),
            wake: Arc::new(WakeSignal::default()),
        }
    }

    fn next(&mut self, cursor: &mut TestCursor) -> NextChunk<TestChunk> {
        self.state.next_chunk(&mut cursor.state, &cursor.wake).0
    }

    fn waits(&mut self, cursor: &mut TestCursor) -> bool {
        matches!(self.next(cursor), NextChunk::Wait)
    }

    fn gets(&mut self, cursor: &mut TestCursor, first: i64, next: i64) {
        match self.next(cursor) {
            NextChunk::Ready(chunk) => assert_eq!((chunk.first, chunk.next), (first, next)),
            other => panic!("expected {first}..{next}, got {other:?}"),
        }
    }

    fn answer(&mut self, spec: ReadSpec, outcome: ReadOutcome<TestChunk>) {
        notify(self.state.finish(spec, outcome, self.now).wake);
    }

    /// Starts a ring at `offset` with the tail in it.
    fn tail_at(&mut self, cursor: &mut TestCursor, offset: i64) {
        assert!(self.waits(cursor));
        let spec = self.state.start_read().unwrap();
        let serving_epoch = self.state.leader_epoch;
        self.answer(
            spec,
            ReadOutcome::AtEnd {
                readable_end: offset,
                serving_epoch,
            },
        );
        assert!(self.waits(cursor));
        assert!(self.state.request_tail());
        self.state.tail_joined();
    }

    /// What a poll reads.
    fn poll(&mut self, chunk: Arc<TestChunk>) -> FetchStateUpdate {
        let poll = self.state.start_ring_poll().unwrap();
        let end = chunk.next;
        self.state.finish(
            poll,
            ReadOutcome::Chunk {
                chunk,
                readable_end: end,
            },
            self.now,
        )
    }

    fn push(&mut self, chunk: Arc<TestChunk>) -> FetchStateUpdate {
        let (ring, _) = self.state.tail_target().unwrap();
        let end = chunk.next;
        self.state.tail_append(ring, chunk, end)
    }
}

#[test]
fn cursors_at_one_offset_share_one_read() {
    let mut harness = Harness::new();
    let mut a = harness.cursor(0, -1);
    let mut b = harness.cursor(0, -1);
    assert!(harness.waits(&mut a) && harness.waits(&mut b));
    let spec = harness.state.start_read().unwrap();
    assert_eq!(harness.state.start_read(), None);
    let chunk = span(0, 10);
    harness.answer(
        spec,
        ReadOutcome::Chunk {
            chunk,
            readable_end: 100,
        },
    );
    assert!(a.wake.take() && b.wake.take());
    harness.gets(&mut a, 0, 10);
    harness.gets(&mut b, 0, 10);
}

#[test]
fn one_chunk_is_read_ahead_and_no_more() {
    let mut harness = Harness::new();
    let mut a = harness.cursor(0, -1);
    assert!(harness.waits(&mut a));
    let spec = harness.state.start_read().unwrap();
    harness.answer(
        spec,
        ReadOutcome::Chunk {
            chunk: span(0, 10),
            readable_end: 100,
        },
    );
    harness.gets(&mut a, 0, 10);
    let ahead = harness.state.start_read().unwrap();
    assert!(matches!(ahead.kind, ReadKind::ReadAhead(_)));
    assert_eq!(ahead.offset, 10);
    assert!(!harness.state.is_awaited(ahead.kind));
    assert!(harness.waits(&mut a), "joins the read that is in flight");
    assert!(harness.state.is_awaited(ahead.kind));
    assert_eq!(harness.state.start_read(), None);
    harness.answer(
        ahead,
        ReadOutcome::Chunk {
            chunk: span(10, 20),
            readable_end: 20,
        },
    );
    assert!(a.wake.take());
    harness.gets(&mut a, 10, 20);
    assert_eq!(harness.state.start_read(), None, "20 is the end");
}

#[test]
fn a_lagging_cursor_catches_up_with_the_tail() {
    let mut harness = Harness::new();
    let mut quick = harness.cursor(50, -1);
    harness.tail_at(&mut quick, 50);
    let mut slow = harness.cursor(40, -1);
    assert!(harness.waits(&mut slow));
    let spec = harness.state.start_read().unwrap();
    notify(harness.push(span(50, 60)).wake);
    assert!(quick.wake.take() && !slow.wake.take());
    // The read overlaps what the ring holds by now.
    harness.answer(
        spec,
        ReadOutcome::Chunk {
            chunk: span(40, 55),
            readable_end: 60,
        },
    );
    assert!(slow.wake.take());
    harness.gets(&mut slow, 40, 55);
    harness.gets(&mut slow, 50, 60);
    assert_eq!(slow.state.offset, 60);
    assert!(harness.waits(&mut slow));
    assert!(
        harness.state.start_read().is_none(),
        "it waits for the tail"
    );
}

#[test]
fn a_cursor_whose_chunk_was_evicted_from_the_ring_reads_on_its_own() {
    let mut harness = Harness::new();
    let mut a = harness.cursor(50, -1);
    harness.tail_at(&mut a, 50);
    let first = harness.push(span(50, 60)).cached.unwrap();
    harness.push(span(60, 70));
    harness.state.evict(first, harness.now).unwrap();
    assert!(harness.waits(&mut a));
    assert_eq!(harness.state.start_read().unwrap().offset, 50);
}

#[test]
fn what_the_ring_has_no_room_for_is_read_by_the_cursors_that_need_it() {
    let mut harness = Harness::new();
    let mut a = harness.cursor(50, -1);
    harness.tail_at(&mut a, 50);
    let (ring, offset) = harness.state.tail_target().unwrap();
    assert_eq!(offset, 50);
    notify(harness.state.tail_skip(ring, 50, 60, 0).wake);
    assert!(a.wake.take());
    assert!(harness.waits(&mut a));
    assert_eq!(harness.state.start_read().unwrap().offset, 50);
    assert_eq!(harness.state.tail_target(), Some((ring, 60)));
}

#[test]
fn until_the_tail_reads_a_partition_ring_polls_extend_its_ring() {
    let mut harness = Harness::new();
    let mut a = harness.cursor(5, -1);
    assert!(harness.waits(&mut a));
    let spec = harness.state.start_read().unwrap();
    harness.answer(
        spec,
        ReadOutcome::AtEnd {
            readable_end: 5,
            serving_epoch: 0,
        },
    );
    assert!(!harness.state.wants_ring_poll(), "no cursor waits yet");
    assert!(harness.waits(&mut a));
    assert!(harness.state.wants_ring_poll());
    let poll = harness.state.start_ring_poll().unwrap();
    assert!(!harness.state.wants_ring_poll(), "one at a time");
    assert!(harness.state.request_tail());
    harness.state.tail_joined();
    // The tail answers before the ring poll.
    notify(harness.push(span(5, 6)).wake);
    harness.answer(
        poll,
        ReadOutcome::Chunk {
            chunk: span(5, 6),
            readable_end: 6,
        },
    );
    harness.gets(&mut a, 5, 6);
    assert!(harness.waits(&mut a));
    assert!(!harness.state.wants_ring_poll());
}

#[test]
fn a_read_for_a_ring_that_was_replaced_is_not_appended() {
    let mut harness = Harness::new();
    let mut a = harness.cursor(50, -1);
    harness.tail_at(&mut a, 50);
    let (old, _) = harness.state.tail_target().unwrap();
    harness.state.drop_ring();
    harness.state.start_ring(45, -1, -1);
    assert!(harness.state.request_tail());
    assert!(
        harness
            .state
            .tail_append(old, span(40, 60), 60)
            .cached
            .is_none()
    );
    let poll = harness.state.start_ring_poll().unwrap();
    harness.state.start_ring(44, -1, -1);
    let chunk = span(44, 60);
    let update = harness.state.finish(
        poll,
        ReadOutcome::Chunk {
            chunk,
            readable_end: 60,
        },
        harness.now,
    );
    assert!(update.cached.is_none());
}

#[test]
fn an_error_reaches_the_cursors_at_that_offset_and_no_other() {
    let mut harness = Harness::new();
    let mut a = harness.cursor(7, -1);
    let mut b = harness.cursor(7, -1);
    let mut other = harness.cursor(8, -1);
    assert!(harness.waits(&mut a) && harness.waits(&mut b) && harness.waits(&mut other));
    let spec = harness.state.start_read().unwrap();
    harness.answer(spec, ReadOutcome::Failed(FetchError::Stopped));
    assert!(!other.wake.take());
    for cursor in [&mut a, &mut b] {
        assert!(cursor.wake.take());
        assert!(matches!(
            harness.next(cursor),
            NextChunk::Failed(FetchError::Stopped)
        ));
    }
    assert!(harness.state.read_results.is_empty());
    assert!(harness.waits(&mut a), "the next attempt is read again");
}

#[test]
fn cursors_that_are_removed_or_seek_leave_no_waiter_behind() {
    let mut harness = Harness::new();
    let mut a = harness.cursor(7, -1);
    let mut b = harness.cursor(7, -1);
    assert!(harness.waits(&mut a) && harness.waits(&mut b));
    harness.state.remove_cursor(&mut a.state, harness.now);
    let spec = harness.state.start_read().unwrap();
    harness.answer(
        spec,
        ReadOutcome::AtEnd {
            readable_end: 7,
            serving_epoch: 0,
        },
    );
    harness.state.seek(&mut b.state, 3, -1);
    assert!(harness.state.read_results.is_empty());
    assert!(harness.waits(&mut b));
    harness.state.remove_cursor(&mut b.state, harness.now);
    assert_eq!(harness.state.start_read(), None);
    assert_eq!(harness.state.idle_since(), Some(harness.now));
    let mut c = harness.cursor(7, -1);
    assert!(harness.waits(&mut c));
    assert_eq!(harness.state.waiting_at_end.len(), 1);
    harness.state.remove_cursor(&mut c.state, harness.now);
    assert!(harness.state.waiting_at_end.is_empty());
}

#[test]
fn a_position_of_an_older_epoch_is_validated_before_it_is_served() {
    let mut harness = Harness::new();
    harness.state.set_leader_epoch(5);
    let mut fresh = harness.cursor(50, 5);
    harness.tail_at(&mut fresh, 50);
    harness.push(served_by(50, 60, 5, 5));
    let mut old = harness.cursor(52, 3);
    assert!(harness.waits(&mut old), "although the ring holds it");
    let spec = harness.state.start_read().unwrap();
    assert_eq!(spec.validate_epoch, Some(3));
    let chunk = served_by(52, 60, 5, 5);
    harness.answer(
        spec,
        ReadOutcome::Chunk {
            chunk,
            readable_end: 60,
        },
    );
    harness.gets(&mut old, 50, 60);
}

#[test]
fn after_a_leader_change_the_end_of_the_ring_is_validated_for_all() {
    let mut harness = Harness::new();
    harness.state.set_leader_epoch(5);
    let mut a = harness.cursor(50, 5);
    harness.tail_at(&mut a, 50);
    notify(harness.push(served_by(50, 60, 5, 5)).wake);
    harness.gets(&mut a, 50, 60);
    assert!(harness.waits(&mut a));
    assert!(harness.state.tail_left());
    harness.state.set_leader_epoch(6);
    assert!(!harness.state.request_tail(), "not before it is validated");
    let poll = harness.state.start_ring_poll().unwrap();
    assert_eq!(poll.validate_epoch, Some(5));
    harness.answer(
        poll,
        ReadOutcome::AtEnd {
            readable_end: 60,
            serving_epoch: 6,
        },
    );
    assert!(harness.state.request_tail());
    // A cursor that lagged meanwhile reads the same log, of which nothing was truncated.
    notify(harness.push(served_by(60, 61, 6, 6)).wake);
    harness.gets(&mut a, 60, 61);
}

#[test]
fn a_response_of_the_former_leader_validates_nothing() {
    let end = 60;
    let outcomes: [fn() -> ReadOutcome<TestChunk>; 3] = [
        || ReadOutcome::AtEnd {
            readable_end: 60,
            serving_epoch: 5,
        },
        || ReadOutcome::Chunk {
            chunk: served_by(60, 61, 5, 5),
            readable_end: 61,
        },
        || ReadOutcome::NoRoom {
            next_offset: 61,
            last_epoch: 5,
            readable_end: 61,
            serving_epoch: 5,
        },
    ];
    for outcome in outcomes {
        let mut harness = Harness::new();
        harness.state.set_leader_epoch(5);
        let mut a = harness.cursor(50, 5);
        harness.tail_at(&mut a, 50);
        notify(harness.push(served_by(50, end, 5, 5)).wake);
        harness.gets(&mut a, 50, end);
        assert!(harness.waits(&mut a));
        harness.state.tail_left();
        let poll = harness.state.start_ring_poll().unwrap();
        assert_eq!(
            poll.validate_epoch, None,
            "the epoch of the leader that it was read from"
        );
        harness.state.set_leader_epoch(6);
        harness.answer(poll, outcome());
        assert!(!harness.state.request_tail(), "not before it is validated");
        let _ = harness.next(&mut a);
        assert_eq!(
            harness.state.start_ring_poll().unwrap().validate_epoch,
            Some(5)
        );
    }
}

#[test]
fn a_ring_that_was_replaced_before_its_validation_leaves_each_cursor_to_validate() {
    let mut harness = Harness::new();
    harness.state.set_leader_epoch(5);
    let mut a = harness.cursor(50, 5);
    harness.tail_at(&mut a, 50);
    notify(harness.push(served_by(50, 60, 5, 5)).wake);
    harness.gets(&mut a, 50, 60);
    let mut b = harness.cursor(50, 5);
    harness.gets(&mut b, 50, 60);
    assert!(harness.waits(&mut a));
    harness.state.tail_left();
    harness.state.set_leader_epoch(6);
    // The new leader's log is shorter: for a cursor that reads there, it ends before the ring.
    let mut c = harness.cursor(40, 6);
    assert!(harness.waits(&mut c));
    let spec = harness.state.start_read().unwrap();
    harness.answer(
        spec,
        ReadOutcome::AtEnd {
            readable_end: 40,
            serving_epoch: 6,
        },
    );
    assert!(harness.waits(&mut c));
    // And grows past the offset of the others.
    notify(harness.poll(served_by(40, 70, 6, 6)).wake);
    harness.gets(&mut c, 40, 70);
    assert!(harness.waits(&mut b), "another record may be there now");
    let spec = harness.state.start_read().unwrap();
    assert_eq!((spec.offset, spec.validate_epoch), (60, Some(5)));
}

#[test]
fn a_ring_without_chunks_is_validated_as_well() {
    let mut harness = Harness::new();
    harness.state.set_leader_epoch(5);
    let mut a = harness.cursor(50, 5);
    harness.tail_at(&mut a, 50);
    harness.state.tail_left();
    assert!(harness.waits(&mut a));
    harness.state.set_leader_epoch(6);
    assert_eq!(
        harness.state.start_ring_poll().unwrap().validate_epoch,
        Some(5)
    );
}

#[test]
fn truncation_is_reported_to_each_cursor_for_its_own_position() {
    let mut harness = Harness::new();
    harness.state.set_leader_epoch(5);
    let mut a = harness.cursor(50, 5);
    harness.tail_at(&mut a, 50);
    notify(harness.push(served_by(50, 60, 5, 5)).wake);
    harness.gets(&mut a, 50, 60);
    assert!(harness.waits(&mut a));
    harness.state.tail_left();
    harness.state.set_leader_epoch(6);
    let poll = harness.state.start_ring_poll().unwrap();
    let error = FetchError::Truncated {
        tp: TopicPartition::new("t", 0),
        offset: 60,
        to: FetchPosition {
            offset: 55,
            leader_epoch: 5,
        },
    };
    harness.answer(poll, ReadOutcome::Failed(error.clone()));
    assert!(a.wake.take());
    assert!(harness.waits(&mut a));
    let spec = harness.state.start_read().unwrap();
    assert_eq!((spec.offset, spec.validate_epoch), (60, Some(5)));
    harness.answer(spec, ReadOutcome::Failed(error.clone()));
    assert!(matches!(harness.next(&mut a), NextChunk::Failed(e) if e == error));
}

#[test]
fn a_cursor_beyond_the_end_reads_before_it_waits() {
    let mut harness = Harness::new();
    let mut a = harness.cursor(50, -1);
    harness.tail_at(&mut a, 50);
    let mut ahead = harness.cursor(70, -1);
    assert!(harness.waits(&mut ahead));
    let spec = harness.state.start_read().unwrap();
    assert_eq!(spec.offset, 70);
    harness.answer(
        spec,
        ReadOutcome::AtEnd {
            readable_end: 50,
            serving_epoch: -1,
        },
    );
    assert!(ahead.wake.take());
    assert!(harness.waits(&mut ahead));
    assert_eq!(harness.state.start_read(), None);
    assert_eq!(harness.state.waiting_at_end.len(), 2);
}

#[test]
fn a_ring_beyond_the_end_of_the_log_moves_back() {
    let mut harness = Harness::new();
    let mut ahead = harness.cursor(70, -1);
    harness.tail_at(&mut ahead, 70);
    let mut a = harness.cursor(50, -1);
    assert!(harness.waits(&mut a));
    let spec = harness.state.start_read().unwrap();
    harness.answer(
        spec,
        ReadOutcome::AtEnd {
            readable_end: 50,
            serving_epoch: -1,
        },
    );
    assert!(harness.waits(&mut a));
    assert_eq!(
        harness.state.start_read(),
        None,
        "it does not read the same offset again and again"
    );
    assert_eq!(
        harness.state.tail_target().map(|(_, offset)| offset),
        Some(50)
    );
}

#[test]
fn chunks_without_records_move_cursors_on() {
    let mut harness = Harness::new();
    let mut a = harness.cursor(50, -1);
    harness.tail_at(&mut a, 50);
    let filtered = Arc::new(TestChunk {
        first: 50,
        next: 60,
        last_epoch: 1,
        serving_epoch: 0,
        empty: true,
    });
    notify(harness.push(filtered).wake);
    assert!(a.wake.take());
    assert!(harness.waits(&mut a));
    assert_eq!((a.state.offset, a.state.leader_epoch), (60, 1));
}

#[test]
fn a_chunk_that_was_asked_for_is_not_evicted_at_once() {
    let mut harness = Harness::new();
    let mut a = harness.cursor(0, -1);
    let mut b = harness.cursor(0, -1);
    assert!(harness.waits(&mut a) && harness.waits(&mut b));
    let spec = harness.state.start_read().unwrap();
    let update = harness.state.finish(
        spec,
        ReadOutcome::Chunk {
            chunk: span(0, 10),
            readable_end: 10,
        },
        harness.now,
    );
    let seq = update.cached.unwrap();
    harness.gets(&mut a, 0, 10);
    assert!(harness.state.evict(seq, harness.now).is_none());
    let later = harness.now + EVICTION_GRACE;
    assert_eq!(harness.state.evict(seq, later).unwrap().len(), 1);
    assert!(harness.waits(&mut b), "it is read again");
    assert_eq!(harness.state.start_read().unwrap().offset, 0);
}

#[test]
fn closing_fails_every_cursor() {
    let mut harness = Harness::new();
    let mut a = harness.cursor(50, -1);
    harness.tail_at(&mut a, 50);
    let mut b = harness.cursor(0, -1);
    assert!(harness.waits(&mut b));
    notify(harness.state.close(FetchError::Stopped));
    for cursor in [&mut a, &mut b] {
        assert!(cursor.wake.take());
        assert!(matches!(harness.next(cursor), NextChunk::Failed(_)));
    }
}

/// All events in random order: whatever happens, each cursor sees each offset once, in
/// order, and never hangs as long as it asks again when woken.
#[test]
fn every_cursor_sees_every_offset_once_whatever_the_order_of_events() {
    for seed in 1..=400 {
        RandomEvents::new(seed).run();
    }
}

struct RandomEvents {
    harness: Harness,
    random: u64,
    log_end: i64,
    cursors: Vec<(TestCursor, i64)>,
    reads: Vec<ReadSpec>,
    /// A long poll of the tail: the ring and the offset that it was sent with.
    tail: Option<(u64, i64)>,
    cached_seqs: Vec<u64>,
}

impl RandomEvents {
    fn new(seed: u64) -> Self {
        Self {
            harness: Harness::new(),
            random: seed,
            log_end: 30,
            cursors: Vec::new(),
            reads: Vec::new(),
            tail: None,
            cached_seqs: Vec::new(),
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
            let cursor = self.harness.cursor(start, -1);
            cursor.wake.notify();
            self.cursors.push((cursor, start));
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
        // No new events; what is in flight ends.
        for _ in 0..20_000 {
            self.start();
            self.finish();
            self.plan_tail();
            self.answer_tail(false);
            self.consume();
            if self.cursors.iter().all(|(_, seen)| *seen == self.log_end) {
                return;
            }
        }
        let seen: Vec<i64> = self.cursors.iter().map(|(_, seen)| *seen).collect();
        panic!(
            "stuck at {seen:?} of {}: {:#?}",
            self.log_end, self.harness.state
        );
    }

    fn start(&mut self) {
        let feed = &mut self.harness.state;
        feed.request_tail();
        if feed.wants_ring_poll() {
            self.reads.extend(feed.start_ring_poll());
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
            ReadOutcome::Retry
        } else if spec.offset == end {
            ReadOutcome::AtEnd {
                readable_end: end,
                serving_epoch: 0,
            }
        } else {
            let next = (spec.offset + 1 + self.below(9) as i64).min(end);
            let empty = self.below(6) == 0;
            let chunk = self.chunk(spec.offset, next, empty);
            ReadOutcome::Chunk {
                chunk,
                readable_end: end,
            }
        };
        let update = self.harness.state.finish(spec, outcome, self.harness.now);
        self.take(update);
    }

    /// Whether a chunk is empty is a property of the log: those from a multiple of 5.
    fn chunk(&self, first: i64, next: i64, empty: bool) -> Arc<TestChunk> {
        Arc::new(TestChunk {
            first,
            next,
            last_epoch: 0,
            serving_epoch: 0,
            empty,
        })
    }

    fn plan_tail(&mut self) {
        if self.tail.is_none() {
            self.tail = self.harness.state.tail_target();
            if self.tail.is_some() {
                self.harness.state.tail_joined();
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
        let update = if may_skip && self.below(5) == 0 {
            self.harness.state.tail_skip(ring, first, next, 0)
        } else {
            let chunk = self.chunk(first, next, false);
            self.harness.state.tail_append(ring, chunk, self.log_end)
        };
        self.take(update);
    }

    fn take(&mut self, update: FetchStateUpdate) {
        self.cached_seqs.extend(update.cached);
        notify(update.wake);
    }

    fn evict(&mut self) {
        if !self.cached_seqs.is_empty() {
            let seq = self.cached_seqs.remove(0);
            if self.harness.state.evict(seq, self.harness.now).is_none() {
                self.cached_seqs.push(seq);
            }
        }
    }

    fn eject(&mut self) {
        self.harness.state.tail_left();
        self.tail = None;
    }

    fn reseek(&mut self) {
        let index = self.below(self.cursors.len() as u64) as usize;
        let (cursor, seen) = &mut self.cursors[index];
        self.harness.state.seek(&mut cursor.state, *seen, -1);
        cursor.wake.notify();
    }

    fn consume(&mut self) {
        let index = self.below(self.cursors.len() as u64) as usize;
        let (cursor, seen) = &mut self.cursors[index];
        if !cursor.wake.take() {
            return;
        }
        let from = cursor.state.offset;
        assert_eq!(from, *seen);
        match self
            .harness
            .state
            .next_chunk(&mut cursor.state, &cursor.wake)
            .0
        {
            NextChunk::Ready(chunk) => {
                assert!(chunk.next > from && cursor.state.offset == chunk.next);
                cursor.wake.notify();
            }
            NextChunk::Wait => {}
            NextChunk::Failed(error) => panic!("{error}"),
        }
        *seen = cursor.state.offset;
    }
}

#[test]
fn the_tail_does_not_read_for_ever_without_cursors() {
    let mut harness = Harness::new();
    let mut a = harness.cursor(50, -1);
    harness.tail_at(&mut a, 50);
    let mut now = harness.now + TAIL_IDLE_MAX;
    assert!(!harness.state.tail_is_idle(now), "a cursor waits for it");
    notify(harness.push(span(50, 60)).wake);
    now += TAIL_IDLE_MAX / 2;
    assert!(
        !harness.state.tail_is_idle(now),
        "a cursor did not long ago"
    );
    harness.gets(&mut a, 50, 60);
    now += TAIL_IDLE_MAX / 2;
    assert!(!harness.state.tail_is_idle(now), "a cursor was served");
    now += TAIL_IDLE_MAX;
    assert!(harness.state.tail_is_idle(now));
}
