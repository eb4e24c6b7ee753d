//! Growing, jittered waits between attempts.
//!
//! ```text
//! first ─▶ ×2 ─▶ ×2 ─▶ … ─▶ max     each ± 20 %, so that clients do not come in waves
//! ```
//!
//! No clock is read and nothing sleeps here; the jitter is drawn from the process's random keys.

use std::time::Duration;

/// How long to wait before the next attempt, never nothing: a state machine whose next step is
/// due "now" whenever it is asked would never come to an end. The caller sleeps.
#[derive(Clone, Debug)]
pub struct ExponentialBackoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

/// Waits are this much shorter or longer than their nominal length.
const JITTER: f64 = 0.2;
/// The shortest wait, also with `retry.backoff.ms=0`; it grows as any other.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(1);

impl ExponentialBackoff {
    /// Starts at `first`, or a millisecond if that is less, and doubles up to `max`.
    pub fn new(first: Duration, max: Duration) -> Self {
        let first = first.max(BACKOFF_MIN);
        Self {
            first,
            max: max.max(first),
            failures: 0,
        }
    }

    /// Notes one more failure and says how long to wait after it.
    pub fn after_failure(&mut self) -> Duration {
        self.after_failure_with(random_unit())
    }

    /// Forgets the failures: the next wait is the first again.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// The failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// `unit` is the random part, in `0.0..1.0`.
    fn after_failure_with(&mut self, unit: f64) -> Duration {
        let doublings = self.failures.min(30);
        self.failures = self.failures.saturating_add(1);
        let nominal = self
            .first
            .saturating_mul(1 << doublings)
            .min(self.max)
            .as_secs_f64();
        Duration::from_secs_f64(nominal * (1.0 - JITTER + 2.0 * JITTER * unit))
    }
}

/// A number in `0.0..1.0`, from the standard library's per-process random keys: good
/// enough to spread attempts.
pub fn random_unit() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let bits = RandomState::new().hash_one(0u8) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(50);
    const MAX: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_maximum() {
        let mut backoff = ExponentialBackoff::new(FIRST, MAX);
        let waits: Vec<u128> = (0..7)
            .map(|_| backoff.after_failure_with(0.5).as_millis())
            .collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn a_backoff_of_zero_still_waits_and_grows() {
        let mut backoff = ExponentialBackoff::new(Duration::ZERO, MAX);
        let waits: Vec<u128> = (0..12)
            .map(|_| backoff.after_failure_with(0.5).as_millis())
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1000]);
        let mut backoff = ExponentialBackoff::new(Duration::ZERO, Duration::ZERO);
        assert!((0..100).all(|_| !backoff.after_failure().is_zero()));
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        let mut low = ExponentialBackoff::new(FIRST, MAX);
        let mut high = ExponentialBackoff::new(FIRST, MAX);
        assert_eq!(low.after_failure_with(0.0).as_millis(), 40);
        assert_eq!(high.after_failure_with(1.0).as_millis(), 60);
        for _ in 0..1000 {
            let wait = ExponentialBackoff::new(FIRST, MAX).after_failure();
            assert!(wait >= FIRST.mul_f64(0.79) && wait <= FIRST.mul_f64(1.21));
        }
    }

    #[test]
    fn success_starts_over() {
        let mut backoff = ExponentialBackoff::new(FIRST, MAX);
        backoff.after_failure();
        backoff.after_failure();
        assert_eq!(backoff.failures(), 2);
        backoff.succeeded();
        assert_eq!(backoff.after_failure_with(0.5), FIRST);
    }

    #[test]
    fn many_failures_do_not_overflow() {
        let mut backoff = ExponentialBackoff::new(FIRST, Duration::from_secs(3600));
        for _ in 0..10_000 {
            assert!(backoff.after_failure() <= Duration::from_secs(4320));
        }
    }
}
