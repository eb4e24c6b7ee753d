//! How many records a socket may be sent now: as its `rate` says, and the quota of its group.
//!
//! Pure: the time is passed in. A tenth of a second's records may go at once, so that a high
//! rate does not mean a timer per record.

use std::time::Duration;

use tokio::time::Instant;

use crate::quotas::DeliveryQuota;

/// Both, of which the smaller counts.
#[derive(Debug)]
pub(super) struct DeliveryRate {
    rate: Option<RateLimiter>,
    quota: Option<Box<DeliveryQuota>>,
}

impl DeliveryRate {
    pub(super) fn new(rate: Option<u32>, quota: Option<DeliveryQuota>, now: Instant) -> Self {
        Self {
            rate: rate.map(|rate| RateLimiter::new(rate, now)),
            quota: quota.map(Box::new),
        }
    }

    /// How many records may be sent now. To be asked when there is one.
    pub(super) fn available(&mut self, now: Instant) -> usize {
        let by_rate = self
            .rate
            .as_mut()
            .map_or(usize::MAX, |rate| rate.available(now));
        match &mut self.quota {
            Some(quota) if by_rate > 0 => quota.available(now).min(by_rate),
            _ => by_rate,
        }
    }

    /// `records` were sent.
    pub(super) fn consume(&mut self, records: usize) {
        if let Some(rate) = &mut self.rate {
            rate.consume(records);
        }
        if let Some(quota) = &mut self.quota {
            quota.consume(records);
        }
    }

    /// When the next record may be sent.
    pub(super) fn next_permit_at(&self) -> Instant {
        let by_rate = self.rate.as_ref().map(RateLimiter::next_permit_at);
        let by_quota = self.quota.as_ref().map(|quota| quota.next_permit_at());
        by_rate.max(by_quota).unwrap_or_else(Instant::now)
    }

    /// There is nothing to send now.
    pub(super) fn give_back(&mut self) {
        if let Some(quota) = &mut self.quota {
            quota.give_back();
        }
    }
}

/// A limit of records per second.
#[derive(Clone, Copy, Debug)]
struct RateLimiter {
    per_second: u32,
    burst: f64,
    tokens: f64,
    refilled_at: Instant,
}

impl RateLimiter {
    /// At most `per_second` records in any second, plus the burst.
    fn new(per_second: u32, now: Instant) -> Self {
        let burst = (f64::from(per_second) / 10.0).max(1.0);
        Self {
            per_second,
            burst,
            tokens: burst,
            refilled_at: now,
        }
    }

    /// How many records may be sent now.
    fn available(&mut self, now: Instant) -> usize {
        let passed = now
            .saturating_duration_since(self.refilled_at)
            .as_secs_f64();
        self.tokens = (self.tokens + passed * f64::from(self.per_second)).min(self.burst);
        self.refilled_at = now;
        self.tokens as usize
    }

    /// `records` were sent.
    fn consume(&mut self, records: usize) {
        self.tokens -= records as f64;
    }

    /// When the next record may be sent.
    fn next_permit_at(&self) -> Instant {
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
