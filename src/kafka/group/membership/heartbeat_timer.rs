//! When a member sends its next heartbeat, as Java's `Heartbeat`.

use std::time::Duration;

use tokio::time::Instant;

/// At most one heartbeat is in flight; the interval counts from the response.
#[derive(Debug)]
pub(super) struct HeartbeatTimer {
    interval: Duration,
    next: Instant,
    in_flight: bool,
}

impl HeartbeatTimer {
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            next: now,
            in_flight: false,
        }
    }

    /// When the next one is due; `None` while one is in flight.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.in_flight).then_some(self.next)
    }

    pub(super) fn sent(&mut self) {
        self.in_flight = true;
    }

    pub(super) fn answered(&mut self, now: Instant) {
        self.in_flight = false;
        self.restart(now);
    }

    /// The next one is due a whole interval from now.
    pub(super) fn restart(&mut self, now: Instant) {
        self.next = now + self.interval;
    }

    /// The next one is due at `at`, if not before.
    pub(super) fn advance_to(&mut self, at: Instant) {
        self.next = self.next.min(at);
    }
}
