//! When to ping an idle client, and when to give it up.
//!
//! ```text
//! active ──ping-interval──▶ ping ──ping-interval──▶ timed out
//!   ▲─── any byte from the client ───┘
//! ```
//!
//! Pure: the socket's task passes the time in and acts on the result. The silence of a client
//! that we do not read from, or that a ping cannot reach while it does not read, counts
//! as activity.

use std::time::Duration;

use tokio::time::Instant;

/// The keepalive state of one socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keepalive {
    interval: Duration,
    last_activity: Instant,
    ping_sent: bool,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeepaliveAction {
    /// Nothing.
    None,
    /// Send a ping.
    Ping,
    /// Close: the client has been silent for two intervals.
    TimedOut,
}

impl Keepalive {
    /// Starts with the client active.
    pub(crate) fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            last_activity: now,
            ping_sent: false,
        }
    }

    /// Bytes came from the client, or its silence does not count.
    pub(crate) fn record_activity(&mut self, now: Instant) {
        self.last_activity = now;
        self.ping_sent = false;
    }

    /// When to call [`check`](Self::check) next.
    pub(crate) fn next_check_at(&self) -> Instant {
        match self.ping_sent {
            false => self.last_activity + self.interval,
            true => self.last_activity + self.interval * 2,
        }
    }

    /// What is to be done at `now`.
    pub(crate) fn check(&mut self, now: Instant) -> KeepaliveAction {
        if now < self.next_check_at() {
            return KeepaliveAction::None;
        }
        if self.ping_sent {
            return KeepaliveAction::TimedOut;
        }
        self.ping_sent = true;
        // A ping that went out late still gets a whole interval to be answered.
        self.last_activity = self.last_activity.max(now - self.interval);
        KeepaliveAction::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_secs(20);

    #[test]
    fn an_idle_client_is_pinged_and_times_out_after_two_intervals() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(TICK, start);
        assert_eq!(keepalive.check(start + TICK / 2), KeepaliveAction::None);
        assert_eq!(keepalive.next_check_at(), start + TICK);
        assert_eq!(keepalive.check(start + TICK), KeepaliveAction::Ping);
        assert_eq!(keepalive.check(start + TICK), KeepaliveAction::None);
        assert_eq!(keepalive.next_check_at(), start + TICK * 2);
        assert_eq!(keepalive.check(start + TICK * 2), KeepaliveAction::TimedOut);
    }

    #[test]
    fn any_activity_starts_over() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(TICK, start);
        assert_eq!(keepalive.check(start + TICK), KeepaliveAction::Ping);
        keepalive.record_activity(start + TICK + TICK / 2);
        assert_eq!(keepalive.check(start + TICK * 2), KeepaliveAction::None);
        assert_eq!(keepalive.check(start + TICK * 5 / 2), KeepaliveAction::Ping);
    }

    #[test]
    fn a_late_ping_still_gets_its_interval() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(TICK, start);
        assert_eq!(keepalive.check(start + TICK * 10), KeepaliveAction::Ping);
        assert_eq!(keepalive.check(start + TICK * 10), KeepaliveAction::None);
        assert_eq!(
            keepalive.check(start + TICK * 11),
            KeepaliveAction::TimedOut
        );
    }
}
