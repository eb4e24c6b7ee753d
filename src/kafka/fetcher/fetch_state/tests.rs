mod random_events;
mod validation;

use super::*;
use crate::TopicPartition;
use crate::fetcher::FetchPosition;
use crate::fetcher::tail_cache::tests::{TestChunk, span};

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
struct FetchStateHarness {
    state: PartitionFetchState<TestChunk>,
    now: Instant,
}

struct TestCursor {
    state: CursorState,
    wake: Arc<WakeSignal>,
}

impl FetchStateHarness {
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

    fn answer(&mut self, spec: FetchSpec, outcome: FetchOutcome<TestChunk>) {
        notify(self.state.finish(spec, outcome, self.now).wake);
    }

    /// Starts a tail cache at `offset` with the tail in it.
    fn tail_at(&mut self, cursor: &mut TestCursor, offset: i64) {
        assert!(self.waits(cursor));
        let spec = self.state.start_fetch().unwrap();
        let serving_epoch = self.state.leader_epoch;
        self.answer(
            spec,
            FetchOutcome::AtEnd {
                readable_end: offset,
                serving_epoch,
            },
        );
        assert!(self.waits(cursor));
        assert!(self.state.request_tail());
        self.state.mark_tail_fetched();
    }

    /// What a handover fetch brings.
    fn handover(&mut self, chunk: Arc<TestChunk>) -> FetchStateUpdate {
        let handover = self.state.start_handover_fetch().unwrap();
        let end = chunk.next;
        self.state.finish(
            handover,
            FetchOutcome::Chunk {
                chunk,
                readable_end: end,
            },
            self.now,
        )
    }

    fn push(&mut self, chunk: Arc<TestChunk>) -> FetchStateUpdate {
        let (tail_cache, _) = self.state.tail_target().unwrap();
        let end = chunk.next;
        self.state.tail_append(tail_cache, chunk, end)
    }
}

#[test]
fn cursors_at_one_offset_share_one_fetch() {
    let mut harness = FetchStateHarness::new();
    let mut a = harness.cursor(0, -1);
    let mut b = harness.cursor(0, -1);
    assert!(harness.waits(&mut a) && harness.waits(&mut b));
    let spec = harness.state.start_fetch().unwrap();
    assert_eq!(harness.state.start_fetch(), None);
    let chunk = span(0, 10);
    harness.answer(
        spec,
        FetchOutcome::Chunk {
            chunk,
            readable_end: 100,
        },
    );
    assert!(a.wake.take() && b.wake.take());
    harness.gets(&mut a, 0, 10);
    harness.gets(&mut b, 0, 10);
}

#[test]
fn one_chunk_is_prefetched_and_no_more() {
    let mut harness = FetchStateHarness::new();
    let mut a = harness.cursor(0, -1);
    assert!(harness.waits(&mut a));
    let spec = harness.state.start_fetch().unwrap();
    harness.answer(
        spec,
        FetchOutcome::Chunk {
            chunk: span(0, 10),
            readable_end: 100,
        },
    );
    harness.gets(&mut a, 0, 10);
    let ahead = harness.state.start_fetch().unwrap();
    assert!(matches!(ahead.kind, FetchKind::Prefetch(_)));
    assert_eq!(ahead.offset, 10);
    assert!(!harness.state.is_awaited(ahead.kind));
    assert!(harness.waits(&mut a), "joins the read that is in flight");
    assert!(harness.state.is_awaited(ahead.kind));
    assert_eq!(harness.state.start_fetch(), None);
    harness.answer(
        ahead,
        FetchOutcome::Chunk {
            chunk: span(10, 20),
            readable_end: 20,
        },
    );
    assert!(a.wake.take());
    harness.gets(&mut a, 10, 20);
    assert_eq!(harness.state.start_fetch(), None, "20 is the end");
}

#[test]
fn a_lagging_cursor_catches_up_with_the_tail() {
    let mut harness = FetchStateHarness::new();
    let mut quick = harness.cursor(50, -1);
    harness.tail_at(&mut quick, 50);
    let mut slow = harness.cursor(40, -1);
    assert!(harness.waits(&mut slow));
    let spec = harness.state.start_fetch().unwrap();
    notify(harness.push(span(50, 60)).wake);
    assert!(quick.wake.take() && !slow.wake.take());
    // The read overlaps what the tail cache holds by now.
    harness.answer(
        spec,
        FetchOutcome::Chunk {
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
        harness.state.start_fetch().is_none(),
        "it waits for the tail"
    );
}

#[test]
fn a_cursor_whose_chunk_was_evicted_from_the_tail_cache_is_fetched_again() {
    let mut harness = FetchStateHarness::new();
    let mut a = harness.cursor(50, -1);
    harness.tail_at(&mut a, 50);
    let first = harness.push(span(50, 60)).cached.unwrap();
    harness.push(span(60, 70));
    harness.state.evict(first, harness.now).unwrap();
    assert!(harness.waits(&mut a));
    assert_eq!(harness.state.start_fetch().unwrap().offset, 50);
}

#[test]
fn what_the_tail_cache_has_no_room_for_is_fetched_by_the_cursors_that_need_it() {
    let mut harness = FetchStateHarness::new();
    let mut a = harness.cursor(50, -1);
    harness.tail_at(&mut a, 50);
    let (tail_cache, offset) = harness.state.tail_target().unwrap();
    assert_eq!(offset, 50);
    notify(harness.state.tail_skip(tail_cache, 50, 60, (0, 0)).wake);
    assert!(a.wake.take());
    assert!(harness.waits(&mut a));
    assert_eq!(harness.state.start_fetch().unwrap().offset, 50);
    assert_eq!(harness.state.tail_target(), Some((tail_cache, 60)));
}

#[test]
fn until_the_tail_fetches_a_partition_handover_fetches_extend_its_tail_cache() {
    let mut harness = FetchStateHarness::new();
    let mut a = harness.cursor(5, -1);
    assert!(harness.waits(&mut a));
    let spec = harness.state.start_fetch().unwrap();
    harness.answer(
        spec,
        FetchOutcome::AtEnd {
            readable_end: 5,
            serving_epoch: 0,
        },
    );
    assert!(!harness.state.wants_handover_fetch(), "no cursor waits yet");
    assert!(harness.waits(&mut a));
    assert!(harness.state.wants_handover_fetch());
    let handover = harness.state.start_handover_fetch().unwrap();
    assert!(!harness.state.wants_handover_fetch(), "one at a time");
    assert!(harness.state.request_tail());
    harness.state.mark_tail_fetched();
    // The tail answers before the handover fetch.
    notify(harness.push(span(5, 6)).wake);
    harness.answer(
        handover,
        FetchOutcome::Chunk {
            chunk: span(5, 6),
            readable_end: 6,
        },
    );
    harness.gets(&mut a, 5, 6);
    assert!(harness.waits(&mut a));
    assert!(!harness.state.wants_handover_fetch());
}

#[test]
fn a_fetch_for_a_tail_cache_that_was_replaced_is_not_appended() {
    let mut harness = FetchStateHarness::new();
    let mut a = harness.cursor(50, -1);
    harness.tail_at(&mut a, 50);
    let (old, _) = harness.state.tail_target().unwrap();
    harness.state.drop_tail_cache();
    harness.state.start_tail_cache(45, -1, -1);
    assert!(harness.state.request_tail());
    assert!(
        harness
            .state
            .tail_append(old, span(40, 60), 60)
            .cached
            .is_none()
    );
    let handover = harness.state.start_handover_fetch().unwrap();
    harness.state.start_tail_cache(44, -1, -1);
    let chunk = span(44, 60);
    let update = harness.state.finish(
        handover,
        FetchOutcome::Chunk {
            chunk,
            readable_end: 60,
        },
        harness.now,
    );
    assert!(update.cached.is_none());
}

#[test]
fn an_error_reaches_the_cursors_at_that_offset_and_no_other() {
    let mut harness = FetchStateHarness::new();
    let mut a = harness.cursor(7, -1);
    let mut b = harness.cursor(7, -1);
    let mut other = harness.cursor(8, -1);
    assert!(harness.waits(&mut a) && harness.waits(&mut b) && harness.waits(&mut other));
    let spec = harness.state.start_fetch().unwrap();
    harness.answer(spec, FetchOutcome::Failed(FetchError::Stopped));
    assert!(!other.wake.take());
    for cursor in [&mut a, &mut b] {
        assert!(cursor.wake.take());
        assert!(matches!(
            harness.next(cursor),
            NextChunk::Failed(FetchError::Stopped)
        ));
    }
    assert!(harness.state.fetch_results.is_empty());
    assert!(harness.waits(&mut a), "the next attempt is read again");
}

#[test]
fn cursors_that_are_removed_or_seek_leave_no_waiter() {
    let mut harness = FetchStateHarness::new();
    let mut a = harness.cursor(7, -1);
    let mut b = harness.cursor(7, -1);
    assert!(harness.waits(&mut a) && harness.waits(&mut b));
    harness.state.remove_cursor(&mut a.state, harness.now);
    let spec = harness.state.start_fetch().unwrap();
    harness.answer(
        spec,
        FetchOutcome::AtEnd {
            readable_end: 7,
            serving_epoch: 0,
        },
    );
    harness.state.seek(&mut b.state, 3, -1);
    assert!(harness.state.fetch_results.is_empty());
    assert!(harness.waits(&mut b));
    harness.state.remove_cursor(&mut b.state, harness.now);
    assert_eq!(harness.state.start_fetch(), None);
    assert_eq!(harness.state.idle_since(), Some(harness.now));
    let mut c = harness.cursor(7, -1);
    assert!(harness.waits(&mut c));
    assert_eq!(harness.state.waiting_at_end.len(), 1);
    harness.state.remove_cursor(&mut c.state, harness.now);
    assert!(harness.state.waiting_at_end.is_empty());
}

#[test]
fn a_cursor_beyond_the_end_reads_before_it_waits() {
    let mut harness = FetchStateHarness::new();
    let mut a = harness.cursor(50, -1);
    harness.tail_at(&mut a, 50);
    let mut ahead = harness.cursor(70, -1);
    assert!(harness.waits(&mut ahead));
    let spec = harness.state.start_fetch().unwrap();
    assert_eq!(spec.offset, 70);
    harness.answer(
        spec,
        FetchOutcome::AtEnd {
            readable_end: 50,
            serving_epoch: -1,
        },
    );
    assert!(ahead.wake.take());
    assert!(harness.waits(&mut ahead));
    assert_eq!(harness.state.start_fetch(), None);
    assert_eq!(harness.state.waiting_at_end.len(), 2);
}

#[test]
fn a_tail_cache_beyond_the_end_of_the_log_moves_back() {
    let mut harness = FetchStateHarness::new();
    let mut ahead = harness.cursor(70, -1);
    harness.tail_at(&mut ahead, 70);
    let mut a = harness.cursor(50, -1);
    assert!(harness.waits(&mut a));
    let spec = harness.state.start_fetch().unwrap();
    harness.answer(
        spec,
        FetchOutcome::AtEnd {
            readable_end: 50,
            serving_epoch: -1,
        },
    );
    assert!(harness.waits(&mut a));
    assert_eq!(
        harness.state.start_fetch(),
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
    let mut harness = FetchStateHarness::new();
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
    let mut harness = FetchStateHarness::new();
    let mut a = harness.cursor(0, -1);
    let mut b = harness.cursor(0, -1);
    assert!(harness.waits(&mut a) && harness.waits(&mut b));
    let spec = harness.state.start_fetch().unwrap();
    let update = harness.state.finish(
        spec,
        FetchOutcome::Chunk {
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
    assert_eq!(harness.state.start_fetch().unwrap().offset, 0);
}

#[test]
fn closing_fails_every_cursor() {
    let mut harness = FetchStateHarness::new();
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

#[test]
fn the_tail_does_not_fetch_for_ever_without_cursors() {
    let mut harness = FetchStateHarness::new();
    let mut a = harness.cursor(50, -1);
    harness.tail_at(&mut a, 50);
    let mut now = harness.now + TAIL_MAX_IDLE;
    assert!(!harness.state.tail_is_idle(now), "a cursor waits for it");
    notify(harness.push(span(50, 60)).wake);
    now += TAIL_MAX_IDLE / 2;
    assert!(
        !harness.state.tail_is_idle(now),
        "a cursor did not long ago"
    );
    harness.gets(&mut a, 50, 60);
    now += TAIL_MAX_IDLE / 2;
    assert!(!harness.state.tail_is_idle(now), "a cursor was served");
    now += TAIL_MAX_IDLE;
    assert!(harness.state.tail_is_idle(now));
}
