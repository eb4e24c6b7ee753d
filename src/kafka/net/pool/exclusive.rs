//! Connections for requests that park on the broker: JoinGroup and SyncGroup.
//!
//! A parked JoinGroup may wait for minutes, and what it waits for may be a JoinGroup of
//! the same group from this very process. So each has a connection of its own, and the
//! bound on their number counts groups, not members:
//!
//! ```text
//! check_out(group) ─▶ group admitted? ──yes──────────────▶ idle or new connection
//!                          │ no                                  ▲
//!                          ▼                                     │
//!                     room for a group? ──yes── admit all of its waiting members
//!                          │ no                                  │
//!                          └─▶ wait in line, behind other groups ┘
//! ```
//!
//! # Invariants
//! - All waiting members of a group are admitted together; a member whose group is
//!   admitted never waits. Two members can not deadlock each other at the bound.
//! - Groups are admitted in the order in which their first member came.
//! - A line that does not move (every admitted group is parked, perhaps waiting for
//!   members that are not ours) is let through slowly beyond the bound.
//! - A connection whose request was not answered is never given to another.

use std::collections::{HashMap, VecDeque};
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::dial::{self, Endpoint};
use super::pace::Pace;
use crate::config::ClientConfig;
use crate::error::RequestError;
use crate::lock::lock;
use crate::net::connection::Connection;
use crate::topic::BrokerId;

/// Groups of one broker that join at a time.
const GROUPS: usize = 6;
/// And when they are all parked.
const GROUPS_MAX: usize = 64;
/// A line that has not moved for so long lets one more group through.
const STALLED: Duration = Duration::from_millis(200);
/// How long an unused connection is kept for the next join.
const IDLE: Duration = Duration::from_secs(20);

/// A connection that nobody else uses until this is dropped.
#[derive(Debug)]
pub struct Exclusive {
    connection: Connection,
    seat: Seat,
}

impl Deref for Exclusive {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        if self.connection.in_flight() > 0 {
            // Its request may stay parked for minutes; nothing can be sent behind it.
            self.connection.close("its exclusive user went away");
        } else if !self.connection.is_closed() {
            let mut idle = lock(&self.seat.lobby.idle);
            idle.retain(|connection| !connection.is_closed());
            if idle.len() < GROUPS {
                idle.push(self.connection.clone());
            }
        }
        // Dropping the seat lets the next group in.
    }
}

/// All brokers' lobbies.
#[derive(Debug)]
pub(super) struct Exclusives {
    shared: Arc<Shared>,
    lobbies: Mutex<HashMap<BrokerId, Arc<Lobby>>>,
}

impl Exclusives {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            lobbies: Mutex::default(),
        }
    }

    pub(super) async fn check_out(
        &self,
        endpoint: &Endpoint,
        group: &str,
    ) -> Result<Exclusive, RequestError> {
        let lobby = Arc::clone(
            lock(&self.lobbies)
                .entry(endpoint.id)
                .or_insert_with(|| Arc::new(Lobby::new(&self.shared.config))),
        );
        let seat = tokio::select! {
            () = self.shared.stop.cancelled() => return Err(RequestError::Stopped),
            seat = lobby.enter(group) => seat,
        };
        let connection = match lobby.take_idle(endpoint) {
            Some(connection) => connection,
            None => self.open(&seat.lobby.pace, endpoint).await?,
        };
        Ok(Exclusive { connection, seat })
    }

    async fn open(&self, pace: &Pace, endpoint: &Endpoint) -> Result<Connection, RequestError> {
        let attempt = async {
            sleep_until(pace.earliest(Instant::now())).await;
            dial::open(&self.shared, endpoint, IDLE).await
        };
        let result = tokio::select! {
            () = self.shared.stop.cancelled() => return Err(RequestError::Stopped),
            result = attempt => result,
        };
        match &result {
            Ok(_) => pace.succeeded(),
            Err(_) => pace.failed(Instant::now()),
        }
        result
    }
}

/// One broker's line of groups, and its connections that nobody uses now.
#[derive(Debug)]
struct Lobby {
    line: Mutex<Line>,
    idle: Mutex<Vec<Connection>>,
    pace: Pace,
}

impl Lobby {
    fn new(config: &ClientConfig) -> Self {
        Self {
            line: Mutex::default(),
            idle: Mutex::default(),
            pace: Pace::new(config),
        }
    }

    /// Waits until `group` is admitted. Cancel-safe.
    async fn enter(self: &Arc<Self>, group: &str) -> Seat {
        let group: Arc<str> = group.into();
        let seat = Seat {
            lobby: Arc::clone(self),
            group: Arc::clone(&group),
        };
        let waiting = lock(&self.line).enter(group, Instant::now());
        let Some(mut admitted) = waiting else {
            return seat;
        };
        // From here on the seat is given back by its `Drop`, whether or not it was
        // admitted in the meantime.
        loop {
            let check = lock(&self.line).moved + STALLED;
            tokio::select! {
                _ = &mut admitted => return seat,
                () = sleep_until(check) => lock(&self.line).nudge(Instant::now()),
            }
        }
    }

    fn take_idle(&self, endpoint: &Endpoint) -> Option<Connection> {
        let mut idle = lock(&self.idle);
        idle.retain(|connection| {
            !connection.is_closed() && connection.peer().address == endpoint.address
        });
        idle.pop()
    }
}

/// One member's right to be there.
#[derive(Debug)]
struct Seat {
    lobby: Arc<Lobby>,
    group: Arc<str>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.lobby.line).leave(&self.group, Instant::now());
    }
}

/// Who is admitted, who waits, in which order. Pure.
#[derive(Debug)]
struct Line {
    /// Members of each admitted group.
    admitted: HashMap<Arc<str>, usize>,
    waiting: VecDeque<(Arc<str>, Vec<oneshot::Sender<()>>)>,
    /// When a group last came in or went.
    moved: Instant,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            admitted: HashMap::new(),
            waiting: VecDeque::new(),
            moved: Instant::now(),
        }
    }
}

impl Line {
    /// Admits a member at once, or says what to wait for.
    fn enter(&mut self, group: Arc<str>, now: Instant) -> Option<oneshot::Receiver<()>> {
        if let Some(members) = self.admitted.get_mut(&group) {
            *members += 1;
            return None;
        }
        if self.admitted.len() < GROUPS && self.waiting.is_empty() {
            self.admitted.insert(group, 1);
            self.moved = now;
            return None;
        }
        if self.waiting.is_empty() {
            // The time of a line starts when there is one.
            self.moved = now;
        }
        let (admit, admitted) = oneshot::channel();
        match self
            .waiting
            .iter_mut()
            .find(|(waiting, _)| *waiting == group)
        {
            Some((_, members)) => members.push(admit),
            None => self.waiting.push_back((group, vec![admit])),
        }
        Some(admitted)
    }

    /// A member is done, or gave up waiting.
    fn leave(&mut self, group: &str, now: Instant) {
        if let Some(members) = self.admitted.get_mut(group) {
            *members -= 1;
            if *members == 0 {
                self.admitted.remove(group);
                self.moved = now;
            }
        } else {
            // It dropped its receiver with its seat.
            for (waiting, members) in &mut self.waiting {
                if **waiting == *group {
                    members.retain(|admit| !admit.is_closed());
                }
            }
            self.waiting.retain(|(_, members)| !members.is_empty());
        }
        while self.admitted.len() < GROUPS && self.admit_next(now) {}
    }

    /// Lets one more group through if the line stands still.
    fn nudge(&mut self, now: Instant) {
        if now >= self.moved + STALLED {
            // Also when it is full: it is looked at again after as long.
            self.moved = now;
            if self.admitted.len() < GROUPS_MAX {
                self.admit_next(now);
            }
        }
    }

    fn admit_next(&mut self, now: Instant) -> bool {
        let Some((group, members)) = self.waiting.pop_front() else {
            return false;
        };
        self.moved = now;
        // Each member counts, even one that is going away: it leaves by its seat.
        self.admitted.insert(group, members.len());
        for admit in members {
            let _ = admit.send(());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(line: &mut Line, group: &str, now: Instant) -> Option<oneshot::Receiver<()>> {
        line.enter(group.into(), now)
    }

    fn is_admitted(waiting: &mut Option<oneshot::Receiver<()>>) -> bool {
        waiting
            .as_mut()
            .is_none_or(|admitted| admitted.try_recv().is_ok())
    }

    /// A line with as many groups inside as may be: `0`, `1`, …
    fn full(now: Instant) -> Line {
        let mut line = Line::default();
        for group in 0..GROUPS {
            assert!(enter(&mut line, &group.to_string(), now).is_none());
        }
        line
    }

    #[test]
    fn members_of_an_admitted_group_never_wait() {
        let now = Instant::now();
        let mut line = full(now);
        for _ in 0..100 {
            assert!(enter(&mut line, "0", now).is_none());
        }
        // It leaves with its last member.
        for _ in 0..100 {
            line.leave("0", now);
        }
        let mut next = enter(&mut line, "next", now);
        assert!(!is_admitted(&mut next));
        line.leave("0", now);
        assert!(is_admitted(&mut next));
    }

    #[test]
    fn waiting_members_of_a_group_are_admitted_together_and_groups_in_order() {
        let now = Instant::now();
        let mut line = full(now);
        let mut a1 = enter(&mut line, "a", now);
        let mut b = enter(&mut line, "b", now);
        let mut a2 = enter(&mut line, "a", now);
        line.leave("0", now);
        assert!(is_admitted(&mut a1) && is_admitted(&mut a2) && !is_admitted(&mut b));
        line.leave("a", now);
        assert!(!is_admitted(&mut b));
        line.leave("a", now);
        assert!(is_admitted(&mut b));
    }

    #[test]
    fn who_gives_up_waiting_makes_place() {
        let now = Instant::now();
        let mut line = full(now);
        drop(enter(&mut line, "a", now));
        line.leave("a", now);
        let mut b = enter(&mut line, "b", now);
        line.leave("0", now);
        assert!(is_admitted(&mut b));
        assert!(line.waiting.is_empty());
        // And who gave up just as it was admitted leaves as everybody does.
        drop(enter(&mut line, "c", now));
        line.leave("1", now);
        line.leave("c", now);
        assert_eq!(line.admitted.len(), GROUPS - 1);
    }

    #[test]
    fn a_line_that_stands_still_lets_groups_through_slowly() {
        let mut now = Instant::now();
        let mut line = full(now);
        let mut waiting: Vec<_> = (0..1000)
            .map(|i| enter(&mut line, &format!("w{i}"), now))
            .collect();
        line.nudge(now + STALLED / 2);
        assert!(!is_admitted(&mut waiting[0]));
        for admitted in &mut waiting[..GROUPS_MAX - GROUPS] {
            now += STALLED;
            line.nudge(now);
            // However many ask.
            line.nudge(now);
            assert!(is_admitted(admitted));
        }
        now += STALLED;
        line.nudge(now);
        assert_eq!(line.admitted.len(), GROUPS_MAX);
        // One that moves needs no help: the extra places are not filled again.
        line.leave("0", now);
        line.nudge(now);
        assert_eq!(line.admitted.len(), GROUPS_MAX - 1);
    }
}
