//! Connections for requests that park on the broker: JoinGroup and SyncGroup.
//!
//! A JoinGroup that is alone is parked for `group.initial.rebalance.delay.ms` (3 s by default),
//! one of a group with members elsewhere for minutes, and what it waits for may be a JoinGroup of
//! the same group from this very process. So each has a connection of its own, and the bounds on
//! their number count groups, not members:
//!
//! ```text
//! acquire(group) ─▶ group admitted? ──yes────────────────▶ idle or new connection
//!                          │ no                                  ▲
//!                          ▼                                     │
//!                     room for a group? ──yes── admit all of its waiting members
//!                          │ no                                  │
//!                          └─▶ wait in JoinQueue after others ───┘
//! ```
//!
//! A broker that answers at once needs few connections, one that parks needs as many as are
//! parked: 3,000 groups that are parked for 3 s each have joined within 15 s if 600 of them may
//! be parked at once. So a group counts as
//!
//! - *joining* for `PARKED_AFTER`: at most `JOINING_MAX` are, which spaces out new connections;
//! - *parked* from then on: at most `PARKED_MAX` are, with those that are joining;
//! - *held up* after `HELD_UP_AFTER`, by members in other processes: only `GROUPS_MAX` counts
//!   these, so that they do not hold up others.
//!
//! # Invariants
//! - All waiting members of a group are admitted together; a member whose group is
//!   admitted never waits. Two members can not deadlock each other at the bound.
//! - Groups are admitted in the order in which their first member arrived.
//! - No group waits for one that has been parked for long, up to `GROUPS_MAX`.
//! - A connection whose request was not answered is never given to another member.
//! - At most `OPENING_MAX` connections are being opened, and idle ones are closed after
//!   `MAX_IDLE`.

use std::collections::{HashMap, VecDeque};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime::mutex::lock;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use super::dialer::Dialer;
use super::reconnect_backoff::ReconnectBackoff;
use crate::config::ClientConfig;
use crate::error::{BrokerAddress, RequestError};
use crate::metrics;
use crate::net::connection::Connection;
use crate::topic::BrokerId;

/// Groups that may be joining, per broker.
const JOINING_MAX: usize = 32;
/// A group that has not joined after so long is parked.
const PARKED_AFTER: Duration = Duration::from_millis(50);
/// Groups that may be joining or parked, per broker.
const PARKED_MAX: usize = 1024;
/// A group that has not joined after so long waits for members in other processes.
const HELD_UP_AFTER: Duration = Duration::from_secs(10);
/// Groups that may be admitted, per broker, whatever they wait for.
const GROUPS_MAX: usize = 4096;
/// How often it is checked whether waiting groups may be admitted, besides when one has joined.
const ADMISSION_INTERVAL: Duration = Duration::from_millis(10);
/// Connections that may be opened at a time, per broker.
const OPENING_MAX: usize = 32;
/// How long an unused connection is kept for the next join.
const MAX_IDLE: Duration = Duration::from_secs(5);

/// A connection that one member alone uses, for JoinGroup and SyncGroup, until this is dropped.
#[derive(Debug)]
pub(crate) struct JoinConnection {
    connection: Connection,
    permit: JoinPermit,
}

impl Deref for JoinConnection {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for JoinConnection {
    fn drop(&mut self) {
        if self.connection.in_flight() > 0 {
            // Its request may stay parked for minutes; nothing can be sent after it.
            self.connection
                .close("the member that joined over it went away");
        } else if !self.connection.is_closed() {
            let mut idle = lock(&self.permit.limiter.idle);
            idle.retain(|connection| !connection.is_closed());
            if idle.len() < PARKED_MAX {
                // The last one in is the first one out: those that are not needed any more
                // become too old.
                idle.push(self.connection.clone());
            }
        }
        // Dropping the permit admits the next group.
    }
}

/// The join limiters of all brokers.
#[derive(Debug)]
pub(super) struct JoinLimiters {
    dialer: Arc<Dialer>,
    limiters: Mutex<HashMap<BrokerId, Arc<JoinLimiter>>>,
}

impl JoinLimiters {
    pub(super) fn new(dialer: Arc<Dialer>) -> Self {
        Self {
            dialer,
            limiters: Mutex::default(),
        }
    }

    /// Waits until `group` is admitted, then takes an idle connection or opens one.
    pub(super) async fn acquire(
        &self,
        broker: &BrokerAddress,
        group: &str,
    ) -> Result<JoinConnection, RequestError> {
        let limiter = Arc::clone(
            lock(&self.limiters)
                .entry(broker.id)
                .or_insert_with(|| Arc::new(JoinLimiter::new(&self.dialer.config))),
        );
        let (permit, admitted) = limiter.enter(group);
        if let Some(admitted) = admitted {
            self.admit_while_any_waits(&limiter);
            tokio::select! {
                () = self.dialer.stop.cancelled() => return Err(RequestError::Stopped),
                admitted = admitted => admitted.map_err(|_| RequestError::Stopped)?,
            }
        }
        let connection = match limiter.take_idle(broker) {
            Some(connection) => connection,
            None => self.open(&limiter, broker).await?,
        };
        Ok(JoinConnection { connection, permit })
    }

    /// Has a task admit groups as those before them become parked, if none does already.
    fn admit_while_any_waits(&self, limiter: &Arc<JoinLimiter>) {
        if limiter.is_admitting.swap(true, Ordering::AcqRel) {
            return;
        }
        let (limiter, stop) = (Arc::clone(limiter), self.dialer.stop.clone());
        self.dialer.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(ADMISSION_INTERVAL) => {}
                }
                let mut queue = lock(&limiter.queue);
                queue.admit(Instant::now());
                if queue.waiting.is_empty() {
                    // Under the lock: who enters from here on starts the next task.
                    limiter.is_admitting.store(false, Ordering::Release);
                    return;
                }
            }
        });
    }

    async fn open(
        &self,
        limiter: &JoinLimiter,
        broker: &BrokerAddress,
    ) -> Result<Connection, RequestError> {
        let backoff = &limiter.backoff;
        let attempt = async {
            let _opening = limiter.opening.acquire().await;
            if let Some(connection) = limiter.take_idle(broker) {
                return Ok(connection);
            }
            sleep_until(backoff.next_attempt(Instant::now())).await;
            self.dialer.open(broker, MAX_IDLE, metrics::JOIN).await
        };
        let result = tokio::select! {
            () = self.dialer.stop.cancelled() => return Err(RequestError::Stopped),
            result = attempt => result,
        };
        match &result {
            Ok(_) => backoff.succeeded(),
            Err(_) => backoff.failed(Instant::now()),
        }
        result
    }
}

/// Bounds the groups that join at one broker at a time, and keeps idle connections for them.
#[derive(Debug)]
struct JoinLimiter {
    queue: Mutex<JoinQueue>,
    /// Whether a task admits waiting groups.
    is_admitting: AtomicBool,
    idle: Mutex<Vec<Connection>>,
    opening: Semaphore,
    backoff: ReconnectBackoff,
}

impl JoinLimiter {
    fn new(config: &ClientConfig) -> Self {
        Self {
            queue: Mutex::default(),
            is_admitting: AtomicBool::new(false),
            idle: Mutex::default(),
            opening: Semaphore::new(OPENING_MAX),
            backoff: ReconnectBackoff::new(config),
        }
    }

    /// Puts a member in line. From here on its permit is given back by its `Drop`, whether or not
    /// it was admitted in the meantime.
    fn enter(self: &Arc<Self>, group: &str) -> (JoinPermit, Option<oneshot::Receiver<()>>) {
        let group: Arc<str> = group.into();
        let permit = JoinPermit {
            limiter: Arc::clone(self),
            group: Arc::clone(&group),
        };
        let admitted = lock(&self.queue).enter(group, Instant::now());
        (permit, admitted)
    }

    fn take_idle(&self, broker: &BrokerAddress) -> Option<Connection> {
        let mut idle = lock(&self.idle);
        idle.retain(|connection| {
            !connection.is_closed() && connection.broker().address == broker.address
        });
        idle.pop()
    }
}

/// One member's permit to join; it waits in the queue until it is admitted.
#[derive(Debug)]
struct JoinPermit {
    limiter: Arc<JoinLimiter>,
    group: Arc<str>,
}

impl Drop for JoinPermit {
    fn drop(&mut self) {
        lock(&self.limiter.queue).leave(&self.group, Instant::now());
    }
}

/// Which groups are admitted and which wait, in which order. Pure.
#[derive(Debug, Default)]
struct JoinQueue {
    admitted: HashMap<Arc<str>, AdmittedGroup>,
    waiting: VecDeque<(Arc<str>, Vec<oneshot::Sender<()>>)>,
}

#[derive(Debug)]
struct AdmittedGroup {
    members: usize,
    since: Instant,
}

impl JoinQueue {
    /// Admits a member at once (`None`), or returns what to wait for.
    fn enter(&mut self, group: Arc<str>, now: Instant) -> Option<oneshot::Receiver<()>> {
        if let Some(admitted) = self.admitted.get_mut(&group) {
            admitted.members += 1;
            return None;
        }
        if self.waiting.is_empty() && self.room(now) > 0 {
            let admitted = AdmittedGroup {
                members: 1,
                since: now,
            };
            self.admitted.insert(group, admitted);
            return None;
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

    /// A member has finished joining, or was cancelled while it waited.
    fn leave(&mut self, group: &str, now: Instant) {
        if let Some(admitted) = self.admitted.get_mut(group) {
            admitted.members -= 1;
            if admitted.members > 0 {
                return;
            }
            self.admitted.remove(group);
        } else {
            // Its receiver was dropped together with its permit.
            for (waiting, members) in &mut self.waiting {
                if **waiting == *group {
                    members.retain(|admit| !admit.is_closed());
                }
            }
            self.waiting.retain(|(_, members)| !members.is_empty());
        }
        self.admit(now);
    }

    /// Admits as many waiting groups as there is room for.
    fn admit(&mut self, now: Instant) {
        if self.waiting.is_empty() {
            return;
        }
        for _ in 0..self.room(now) {
            let Some((group, members)) = self.waiting.pop_front() else {
                return;
            };
            // Each member counts, even one that is cancelled now: dropping its permit uncounts
            // it.
            let admitted = AdmittedGroup {
                members: members.len(),
                since: now,
            };
            self.admitted.insert(group, admitted);
            for admit in members {
                let _ = admit.send(());
            }
        }
    }

    /// How many more groups may be admitted now.
    fn room(&self, now: Instant) -> usize {
        let (mut joining, mut parked) = (0, 0);
        for group in self.admitted.values() {
            let age = now.saturating_duration_since(group.since);
            joining += usize::from(age < PARKED_AFTER);
            parked += usize::from(age < HELD_UP_AFTER);
        }
        (JOINING_MAX.saturating_sub(joining))
            .min(PARKED_MAX.saturating_sub(parked))
            .min(GROUPS_MAX.saturating_sub(self.admitted.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT_REBALANCE_DELAY: Duration = Duration::from_secs(3);

    fn enter(queue: &mut JoinQueue, group: &str, now: Instant) -> Option<oneshot::Receiver<()>> {
        queue.enter(group.into(), now)
    }

    fn is_admitted(waiting: &mut Option<oneshot::Receiver<()>>) -> bool {
        waiting
            .as_mut()
            .is_none_or(|admitted| admitted.try_recv().is_ok())
    }

    /// A queue with as many joining groups as may be: `0`, `1`, …
    fn full(now: Instant) -> JoinQueue {
        let mut queue = JoinQueue::default();
        for group in 0..JOINING_MAX {
            assert!(enter(&mut queue, &group.to_string(), now).is_none());
        }
        queue
    }

    #[test]
    fn members_of_an_admitted_group_never_wait() {
        let now = Instant::now();
        let mut queue = full(now);
        for _ in 0..100 {
            assert!(enter(&mut queue, "0", now).is_none());
        }
        // It leaves with its last member.
        for _ in 0..100 {
            queue.leave("0", now);
        }
        let mut next = enter(&mut queue, "next", now);
        assert!(!is_admitted(&mut next));
        queue.leave("0", now);
        assert!(is_admitted(&mut next));
    }

    #[test]
    fn waiting_members_of_a_group_are_admitted_together_and_groups_in_order() {
        let now = Instant::now();
        let mut queue = full(now);
        let mut a1 = enter(&mut queue, "a", now);
        let mut b = enter(&mut queue, "b", now);
        let mut a2 = enter(&mut queue, "a", now);
        queue.leave("0", now);
        assert!(is_admitted(&mut a1) && is_admitted(&mut a2) && !is_admitted(&mut b));
        queue.leave("a", now);
        assert!(!is_admitted(&mut b));
        queue.leave("a", now);
        assert!(is_admitted(&mut b));
    }

    #[test]
    fn a_cancelled_member_frees_its_place() {
        let now = Instant::now();
        let mut queue = full(now);
        drop(enter(&mut queue, "a", now));
        queue.leave("a", now);
        let mut b = enter(&mut queue, "b", now);
        queue.leave("0", now);
        assert!(is_admitted(&mut b));
        assert!(queue.waiting.is_empty());
        // A member that is cancelled just as it is admitted leaves as any other.
        drop(enter(&mut queue, "c", now));
        queue.leave("1", now);
        queue.leave("c", now);
        assert_eq!(queue.admitted.len(), JOINING_MAX - 1);
    }

    /// Joins groups that are parked for `delay` each: how long it takes, and how many are
    /// admitted at once at most.
    fn join_all(groups: usize, delay: Duration) -> (Duration, usize) {
        let start = Instant::now();
        let mut queue = JoinQueue::default();
        let mut waiting: Vec<_> = (0..groups)
            .map(|n| (n.to_string(), enter(&mut queue, &n.to_string(), start)))
            .collect();
        let mut parked: VecDeque<(Instant, String)> = VecDeque::new();
        let (mut now, mut admitted_max) = (start, 0);
        loop {
            while parked.front().is_some_and(|(until, _)| *until <= now) {
                let (_, group) = parked.pop_front().unwrap();
                queue.leave(&group, now);
            }
            queue.admit(now);
            admitted_max = admitted_max.max(queue.admitted.len());
            waiting.retain_mut(|(group, admitted)| {
                let is_admitted = is_admitted(admitted);
                if is_admitted {
                    parked.push_back((now + delay, std::mem::take(group)));
                }
                !is_admitted
            });
            if waiting.is_empty() && parked.is_empty() {
                return (now - start, admitted_max);
            }
            now += ADMISSION_INTERVAL;
        }
    }

    #[test]
    fn three_thousand_groups_join_within_15_s_under_the_default_rebalance_delay() {
        let (took, admitted_max) = join_all(3000, DEFAULT_REBALANCE_DELAY);
        assert!(took < Duration::from_secs(12), "{took:?}");
        assert!(admitted_max <= PARKED_MAX, "{admitted_max}");
    }

    #[test]
    fn joins_that_are_answered_at_once_need_few_connections() {
        let (took, admitted_max) = join_all(1000, Duration::from_millis(2));
        assert!(took < Duration::from_secs(1), "{took:?}");
        assert!(admitted_max <= JOINING_MAX, "{admitted_max}");
    }

    #[test]
    fn groups_that_are_held_up_by_foreign_members_do_not_hold_up_others() {
        let mut now = Instant::now();
        let mut queue = JoinQueue::default();
        let mut held_up = 0;
        while held_up < PARKED_MAX {
            while held_up < PARKED_MAX && enter(&mut queue, &format!("h{held_up}"), now).is_none() {
                held_up += 1;
            }
            queue.leave(&format!("h{held_up}"), now);
            now += PARKED_AFTER;
        }
        let mut next = enter(&mut queue, "next", now);
        assert!(!is_admitted(&mut next), "as many as may be parked");
        queue.admit(now + HELD_UP_AFTER);
        assert!(is_admitted(&mut next));
    }

    #[test]
    fn the_number_of_groups_is_bounded_whatever_they_wait_for() {
        let mut now = Instant::now();
        let mut queue = JoinQueue::default();
        let mut waiting: Vec<_> = (0..GROUPS_MAX + 10)
            .map(|n| enter(&mut queue, &n.to_string(), now))
            .collect();
        for _ in 0..100 {
            for _ in 0..GROUPS_MAX / 50 {
                queue.admit(now);
                now += PARKED_AFTER;
            }
            now += HELD_UP_AFTER;
        }
        assert_eq!(queue.admitted.len(), GROUPS_MAX);
        let admitted = waiting.iter_mut().map(is_admitted).filter(|a| *a).count();
        assert_eq!(admitted, GROUPS_MAX);
        queue.leave("0", now);
        assert_eq!(queue.admitted.len(), GROUPS_MAX);
    }
}
