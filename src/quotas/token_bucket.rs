//! Records per second of one client: a token bucket, in which a turn is reserved. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// What the bucket holds when it is full, in time.
const BURST: Duration = Duration::from_secs(1);

/// A bucket that holds the records of one second.
#[derive(Debug)]
pub(super) struct TokenBucket {
    per_second: u32,
    /// When it is full again, if nothing more is reserved.
    full_at: Instant,
}

impl TokenBucket {
    /// A full bucket, into which so many tokens come per second (1 or more).
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self {
            per_second,
            full_at: now,
        }
    }

    /// Reserves the tokens of so many records, behind all that are reserved already: when these
    /// records may be taken. More than the bucket holds may be taken when it is full.
    pub(super) fn reserve(&mut self, records: usize, now: Instant) -> Instant {
        let cost = self.cost(records);
        let begin = self.full_at.max(now);
        self.full_at = begin + cost;
        let wait = (begin - now + cost.min(BURST)).saturating_sub(BURST);
        now + wait
    }

    /// Takes back what was reserved and is not used.
    pub(super) fn give_back(&mut self, records: usize) {
        let cost = self.cost(records);
        self.full_at = self.full_at.checked_sub(cost).unwrap_or(self.full_at);
    }

    pub(super) fn full_at(&self) -> Instant {
        self.full_at
    }

    fn cost(&self, records: usize) -> Duration {
        let nanos = records as u64 * 1_000_000_000 / u64::from(self.per_second.max(1));
        Duration::from_nanos(nanos)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_bucket_lets_a_seconds_records_through_and_then_one_at_a_time() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(4, start);
        for _ in 0..4 {
            assert_eq!(bucket.reserve(1, start), start);
        }
        for n in 1..5 {
            let at = start + Duration::from_millis(250 * n);
            assert_eq!(bucket.reserve(1, start), at);
        }
        let later = start + Duration::from_secs(60);
        assert_eq!(
            bucket.reserve(4, later),
            later,
            "it holds no more than four"
        );
        assert_eq!(bucket.reserve(4, later), later + Duration::from_secs(1));
    }

    #[test]
    fn more_than_it_holds_is_taken_when_it_is_full_and_paid_for_by_what_comes_next() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10, start);
        assert_eq!(bucket.reserve(100, start), start);
        assert_eq!(
            bucket.reserve(1, start),
            start + Duration::from_millis(9_100)
        );
        bucket.give_back(100);
        assert_eq!(bucket.reserve(9, start), start);
    }

    proptest! {
        #[test]
        fn in_no_time_is_more_taken_than_a_burst_and_what_the_rate_allows(
            per_second in 1_u32..500,
            steps in prop::collection::vec((0_u64..400, 1_usize..50), 1..200),
        ) {
            let start = Instant::now();
            let mut bucket = TokenBucket::new(per_second, start);
            let (mut now, mut taken) = (start, Vec::new());
            for (wait, records) in steps {
                now += Duration::from_millis(wait);
                let records = records.min(per_second as usize);
                taken.push((bucket.reserve(records, now), records));
            }
            taken.sort();
            for first in 0..taken.len() {
                let mut records = 0;
                for (at, more) in &taken[first..] {
                    records += more;
                    let seconds = (*at - taken[first].0).as_secs_f64();
                    let allowed = f64::from(per_second) * (1.0 + seconds) + 1.0;
                    prop_assert!(records as f64 <= allowed, "{records} in {seconds}");
                }
            }
        }
    }
}
