//! When the next attempt to connect may start.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::config::ClientConfig;
use crate::lock::lock;

/// Spaces attempts to reach one broker in one lane.
#[derive(Debug)]
pub(super) struct Pace {
    /// A connection that lived so long clears the record.
    long: Duration,
    history: Mutex<History>,
}

#[derive(Debug)]
struct History {
    backoff: Backoff,
    not_before: Option<Instant>,
    opened: Option<Instant>,
}

impl Pace {
    pub(super) fn new(config: &ClientConfig) -> Self {
        Self {
            long: config.reconnect_backoff_max,
            history: Mutex::new(History {
                backoff: Backoff::new(config.reconnect_backoff, config.reconnect_backoff_max),
                not_before: None,
                opened: None,
            }),
        }
    }

    /// When an attempt that is wanted now may start. A connection that died young counts
    /// as a failed attempt: some brokers accept, and then think better of it.
    pub(super) fn earliest(&self, now: Instant) -> Instant {
        let mut history = lock(&self.history);
        if let Some(opened) = history.opened.take() {
            if now >= opened + self.long {
                history.backoff.succeeded();
                history.not_before = None;
            } else {
                history.not_before = Some(now + history.backoff.after_failure());
            }
        }
        history.not_before.map_or(now, |earliest| earliest.max(now))
    }

    /// An attempt succeeded.
    pub(super) fn opened(&self, now: Instant) {
        lock(&self.history).opened = Some(now);
    }

    /// An attempt succeeded, and how long the connection lives says nothing.
    pub(super) fn succeeded(&self) {
        let mut history = lock(&self.history);
        history.backoff.succeeded();
        history.not_before = None;
    }

    /// An attempt failed.
    pub(super) fn failed(&self, now: Instant) {
        let mut history = lock(&self.history);
        history.not_before = Some(now + history.backoff.after_failure());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace() -> Pace {
        Pace::new(&ClientConfig::default())
    }

    #[test]
    fn the_first_attempt_and_the_one_after_a_long_life_start_at_once() {
        let (pace, now) = (pace(), Instant::now());
        assert_eq!(pace.earliest(now), now);
        pace.failed(now);
        pace.opened(now);
        assert_eq!(pace.earliest(now + SECOND), now + SECOND);
    }

    #[test]
    fn failures_and_short_lives_wait_longer_and_longer() {
        let (pace, now) = (pace(), Instant::now());
        pace.failed(now);
        let first = pace.earliest(now) - now;
        pace.opened(now);
        let second = pace.earliest(now) - now;
        pace.failed(now);
        let third = pace.earliest(now) - now;
        assert!(
            first < second && second < third,
            "{first:?} {second:?} {third:?}"
        );
    }
}
