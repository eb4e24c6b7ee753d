//! When a member sends its next heartbeat, and how long its session lasts, as Java's `Heartbeat`.

use std::time::Duration;

use tokio::time::Instant;

/// At most one heartbeat is in flight; the interval counts from the response.
///
/// The session is the broker's: it ends `session.timeout.ms` after the last request of this
/// member that the broker has handled. When that was is not known here, but not before the
/// request was sent.
#[derive(Debug)]
pub(super) struct HeartbeatTimer {
    interval: Duration,
    session_timeout: Duration,
    next: Instant,
    /// When the heartbeat in flight was sent.
    sent_at: Option<Instant>,
    /// The broker knew this member then, or later.
    confirmed_at: Instant,
}

impl HeartbeatTimer {
    pub(super) fn new(interval: Duration, session_timeout: Duration, now: Instant) -> Self {
        Self {
            interval,
            session_timeout,
            next: now,
            sent_at: None,
            confirmed_at: now,
        }
    }

    /// When the next one is due; `None` while one is in flight.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.sent_at.is_none().then_some(self.next)
    }

    pub(super) fn sent(&mut self, now: Instant) {
        self.sent_at = Some(now);
    }

    /// There was a response to the one in flight, or none will come. Returns when it was sent.
    pub(super) fn answered(&mut self, now: Instant) -> Option<Instant> {
        self.next = now + self.interval;
        self.sent_at.take()
    }

    /// A request that was sent at `sent_at` has shown that the broker counts this member in.
    pub(super) fn confirm_session(&mut self, sent_at: Instant) {
        self.confirmed_at = self.confirmed_at.max(sent_at);
    }

    /// The broker starts a session when it answers JoinGroup, and SyncGroup follows at once; the
    /// next heartbeat is due a whole interval from now.
    pub(super) fn start_session(&mut self, now: Instant) {
        self.confirmed_at = now;
        self.next = now + self.interval;
    }

    /// When the broker ends the session at the earliest.
    pub(super) fn session_ends_at(&self) -> Instant {
        self.confirmed_at + self.session_timeout
    }

    /// The next one is due at `at`, if not before.
    pub(super) fn advance_to(&mut self, at: Instant) {
        self.next = self.next.min(at);
    }
}
