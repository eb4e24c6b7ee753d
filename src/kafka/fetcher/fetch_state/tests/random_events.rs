use super::*;

/// All events in random order: whatever happens, each cursor sees each offset once, in
/// order, and never hangs as long as it asks again when woken.
#[test]
fn every_cursor_sees_every_offset_once_whatever_the_order_of_events() {
    for seed in 1..=400 {
        RandomEvents::new(seed).run();
    }
}

struct RandomEvents {
    harness: FetchStateHarness,
    random: u64,
    log_end: i64,
    cursors: Vec<(TestCursor, i64)>,
    fetches: Vec<FetchSpec>,
    /// A long handover of the tail: the tail cache and the offset that it was sent with.
    tail: Option<(u64, i64)>,
    cached_seqs: Vec<u64>,
}

impl RandomEvents {
    fn new(seed: u64) -> Self {
        Self {
            harness: FetchStateHarness::new(),
            random: seed,
            log_end: 30,
            cursors: Vec::new(),
            fetches: Vec::new(),
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
                2 if self.below(20) == 0 => self.remove_tail(),
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
        let state = &mut self.harness.state;
        state.request_tail();
        if state.wants_handover_fetch() {
            self.fetches.extend(state.start_handover_fetch());
        }
        if self.fetches.len() < 4 {
            self.fetches.extend(state.start_fetch());
        }
    }

    fn finish(&mut self) {
        if self.fetches.is_empty() {
            return;
        }
        let index = self.below(self.fetches.len() as u64) as usize;
        let spec = self.fetches.swap_remove(index);
        let end = self.log_end;
        let outcome = if self.below(8) == 0 {
            FetchOutcome::Retry
        } else if spec.offset == end {
            FetchOutcome::AtEnd {
                readable_end: end,
                serving_epoch: 0,
            }
        } else {
            let next = (spec.offset + 1 + self.below(9) as i64).min(end);
            let empty = self.below(6) == 0;
            let chunk = self.chunk(spec.offset, next, empty);
            FetchOutcome::Chunk {
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
                self.harness.state.mark_tail_fetched();
            }
        }
    }

    fn answer_tail(&mut self, may_skip: bool) {
        let Some((tail_cache, first)) = self.tail.take() else {
            return;
        };
        if first == self.log_end {
            return;
        }
        let next = (first + 1 + self.below(9) as i64).min(self.log_end);
        let update = if may_skip && self.below(5) == 0 {
            self.harness
                .state
                .tail_skip(tail_cache, first, next, (0, 0))
        } else {
            let chunk = self.chunk(first, next, false);
            self.harness
                .state
                .tail_append(tail_cache, chunk, self.log_end)
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

    fn remove_tail(&mut self) {
        self.harness.state.tail_removed();
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
