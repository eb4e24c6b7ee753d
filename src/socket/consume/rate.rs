//! How many records a socket may be sent now (`rate`): a token bucket.
//!
//! Pure: the time is passed in. A tenth of a second's records may go at once, so that a high
//! rate does not mean a timer per record.

use std::time::Duration;

use tokio::time::Instant;

/// A limit of records per second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateLimiter {
    per_second: u32,
    burst: f64,
    tokens: f64,
    refilled_at: Instant,
}

impl RateLimiter {
    /// At most `per_second` records in any second, plus the burst.
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        let burst = (f64::from(per_second) / 10.0).max(1.0);
        Self {
            per_second,
            burst,
            tokens: burst,
            refilled_at: now,
        }
    }

    /// How many records may be sent now.
    pub(crate) fn available(&mut self, now: Instant) -> usize {
        let passed = now
            .saturating_duration_since(self.refilled_at)
            .as_secs_f64();
        self.tokens = (self.tokens + passed * f64::from(self.per_second)).min(self.burst);
        self.refilled_at = now;
        self.tokens as usize
    }

    /// `records` were sent.
    pub(crate) fn consume(&mut self, records: usize) {
        self.tokens -= records as f64;
    }

    /// When the next record may be sent.
    pub(crate) fn next_permit_at(&self) -> Instant {
        let missing = (1.0 - self.tokens).max(0.0);
        self.refilled_at + Duration::from_secs_f64(missing / f64::from(self.per_second).max(1e-3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lets_through_what_the_rate_says() {
        let start = Instant::now();
        let mut rate = RateLimiter::new(100, start);
        let mut sent = 0;
        let mut now = start;
        while now < start + Duration::from_secs(10) {
            let n = rate.available(now);
            rate.consume(n);
            sent += n;
            now = rate.next_permit_at().max(now + Duration::from_micros(1));
        }
        assert!((1000..=1012).contains(&sent), "{sent}");
    }

    #[test]
    fn one_per_second_waits_a_second() {
        let start = Instant::now();
        let mut rate = RateLimiter::new(1, start);
        assert_eq!(rate.available(start), 1);
        rate.consume(1);
        assert_eq!(rate.available(start), 0);
        assert_eq!(rate.next_permit_at(), start + Duration::from_secs(1));
    }
}
