//! When to ping an idle socket and when to give it up.
//!
//! ```text
//! heard ──ping-interval──▶ ping ──ping-interval──▶ gone
//!   ▲─── any byte from the client ───┘
//! ```
//!
//! Pure: the socket's task feeds it times and does what it says. It is not asked while the
//! socket cannot be heard: while we do not read from it, or a frame is stuck in it.

use std::time::Duration;

use tokio::time::Instant;

/// One socket's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keepalive {
    interval: Duration,
    heard: Instant,
    pinged: bool,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing.
    Nothing,
    /// A ping.
    Ping,
    /// The client has been silent for two intervals.
    Gone,
}

impl Keepalive {
    /// Starts with the client just heard.
    pub(crate) fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            heard: now,
            pinged: false,
        }
    }

    /// Bytes came from the client, or it is not to blame for its silence.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.pinged = false;
    }

    /// When to ask [`due`](Self::due) next.
    pub(crate) fn next(&self) -> Instant {
        match self.pinged {
            false => self.heard + self.interval,
            true => self.heard + self.interval * 2,
        }
    }

    /// What is due at `now`.
    pub(crate) fn due(&mut self, now: Instant) -> Due {
        if now < self.next() {
            return Due::Nothing;
        }
        if self.pinged {
            return Due::Gone;
        }
        self.pinged = true;
        // A ping that went out late still gets a whole interval to be answered.
        self.heard = self.heard.max(now - self.interval);
        Due::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_secs(20);

    #[test]
    fn an_idle_socket_is_pinged_and_given_up_after_two_silent_intervals() {
        let start = Instant::now();
        let mut clock = Keepalive::new(TICK, start);
        assert_eq!(clock.due(start + TICK / 2), Due::Nothing);
        assert_eq!(clock.next(), start + TICK);
        assert_eq!(clock.due(start + TICK), Due::Ping);
        assert_eq!(clock.due(start + TICK), Due::Nothing);
        assert_eq!(clock.next(), start + TICK * 2);
        assert_eq!(clock.due(start + TICK * 2), Due::Gone);
    }

    #[test]
    fn any_sign_of_life_starts_over() {
        let start = Instant::now();
        let mut clock = Keepalive::new(TICK, start);
        assert_eq!(clock.due(start + TICK), Due::Ping);
        clock.heard(start + TICK + TICK / 2);
        assert_eq!(clock.due(start + TICK * 2), Due::Nothing);
        assert_eq!(clock.due(start + TICK * 5 / 2), Due::Ping);
    }

    #[test]
    fn a_late_ping_still_gets_its_interval() {
        let start = Instant::now();
        let mut clock = Keepalive::new(TICK, start);
        assert_eq!(clock.due(start + TICK * 10), Due::Ping);
        assert_eq!(clock.due(start + TICK * 10), Due::Nothing);
        assert_eq!(clock.due(start + TICK * 11), Due::Gone);
    }
}
