//! When the next attempt to connect may start (`reconnect.backoff.ms`, `reconnect.backoff.max.ms`).

use std::sync::Mutex;
use std::time::Duration;

use runtime::mutex::lock;
use tokio::time::Instant;

use crate::backoff::ExponentialBackoff;
use crate::config::ClientConfig;

/// Spaces the attempts to connect to one broker for one purpose.
#[derive(Debug)]
pub(super) struct ReconnectBackoff {
    /// A connection that stayed open for so long resets the backoff.
    stable_after: Duration,
    history: Mutex<AttemptHistory>,
}

#[derive(Debug)]
struct AttemptHistory {
    backoff: ExponentialBackoff,
    not_before: Option<Instant>,
    opened: Option<Instant>,
}

impl ReconnectBackoff {
    pub(super) fn new(config: &ClientConfig) -> Self {
        Self {
            stable_after: config.reconnect_backoff_max,
            history: Mutex::new(AttemptHistory {
                backoff: ExponentialBackoff::new(
                    config.reconnect_backoff,
                    config.reconnect_backoff_max,
                ),
                not_before: None,
                opened: None,
            }),
        }
    }

    /// When an attempt that is wanted now may start. A connection that was lost soon after it
    /// was opened counts as a failed attempt: some brokers accept a connection, then close it.
    pub(super) fn next_attempt(&self, now: Instant) -> Instant {
        let mut history = lock(&self.history);
        if let Some(opened) = history.opened.take() {
            if now >= opened + self.stable_after {
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

    /// An attempt succeeded, and how soon the connection is closed does not matter.
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

    fn backoff() -> ReconnectBackoff {
        ReconnectBackoff::new(&ClientConfig::default())
    }

    #[test]
    fn the_first_attempt_and_one_after_a_stable_connection_start_at_once() {
        let (backoff, now) = (backoff(), Instant::now());
        assert_eq!(backoff.next_attempt(now), now);
        backoff.failed(now);
        backoff.opened(now);
        assert_eq!(backoff.next_attempt(now + SECOND), now + SECOND);
    }

    #[test]
    fn failures_and_short_lived_connections_back_off_further() {
        let (backoff, now) = (backoff(), Instant::now());
        backoff.failed(now);
        let first = backoff.next_attempt(now) - now;
        backoff.opened(now);
        let second = backoff.next_attempt(now) - now;
        backoff.failed(now);
        let third = backoff.next_attempt(now) - now;
        assert!(
            first < second && second < third,
            "{first:?} {second:?} {third:?}"
        );
    }
}
