//! Connections for requests that park on the broker: JoinGroup and SyncGroup.
//!
//! A parked JoinGroup may wait for minutes, and what it waits for may be a JoinGroup of
//! the same group from this very process. So each has a connection of its own, and the
//! bound on their number counts groups, not members:
//!
//! ```text
//! acquire(group) ─▶ group admitted? ──yes────────────────▶ idle or new connection
//!                          │ no                                  ▲
//!                          ▼                                     │
//!                     room for a group? ──yes── admit all of its waiting members
//!                          │ no                                  │
//!                          └─▶ wait in JoinQueue behind others ──┘
//! ```
//!
//! # Invariants
//! - All waiting members of a group are admitted together; a member whose group is
//!   admitted never waits. Two members can not deadlock each other at the bound.
//! - Groups are admitted in the order in which their first member arrived.
//! - A queue that is stalled (every admitted group is parked, perhaps waiting for members in
//!   other processes) is admitted slowly, beyond the bound.
//! - A connection whose request was not answered is never given to another member.

use std::collections::{HashMap, VecDeque};
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime::mutex::lock;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::dialer::Dialer;
use super::reconnect_backoff::ReconnectBackoff;
use crate::config::ClientConfig;
use crate::error::{BrokerAddress, RequestError};
use crate::net::connection::Connection;
use crate::topic::BrokerId;

/// Groups that may join at a time, per broker.
const GROUPS: usize = 6;
/// As many at most when the queue is stalled.
const GROUPS_MAX: usize = 64;
/// A queue in which nothing has moved for so long is stalled: one more group is admitted.
const STALL_TIMEOUT: Duration = Duration::from_millis(200);
/// How long an unused connection is kept for the next join.
const MAX_IDLE: Duration = Duration::from_secs(20);

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
            // Its request may stay parked for minutes; nothing can be sent behind it.
            self.connection
                .close("the member that joined over it went away");
        } else if !self.connection.is_closed() {
            let mut idle = lock(&self.permit.limiter.idle);
            idle.retain(|connection| !connection.is_closed());
            if idle.len() < GROUPS {
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
        let permit = tokio::select! {
            () = self.dialer.stop.cancelled() => return Err(RequestError::Stopped),
            permit = limiter.acquire(group) => permit,
        };
        let connection = match limiter.take_idle(broker) {
            Some(connection) => connection,
            None => self.open(&permit.limiter.backoff, broker).await?,
        };
        Ok(JoinConnection { connection, permit })
    }

    async fn open(
        &self,
        backoff: &ReconnectBackoff,
        broker: &BrokerAddress,
    ) -> Result<Connection, RequestError> {
        let attempt = async {
            sleep_until(backoff.next_attempt(Instant::now())).await;
            self.dialer.open(broker, MAX_IDLE).await
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
    idle: Mutex<Vec<Connection>>,
    backoff: ReconnectBackoff,
}

impl JoinLimiter {
    fn new(config: &ClientConfig) -> Self {
        Self {
            queue: Mutex::default(),
            idle: Mutex::default(),
            backoff: ReconnectBackoff::new(config),
        }
    }

    /// Waits until `group` is admitted. Cancel-safe.
    async fn acquire(self: &Arc<Self>, group: &str) -> JoinPermit {
        let group: Arc<str> = group.into();
        let permit = JoinPermit {
            limiter: Arc::clone(self),
            group: Arc::clone(&group),
        };
        let waiting = lock(&self.queue).enter(group, Instant::now());
        let Some(mut admitted) = waiting else {
            return permit;
        };
        // From here on the permit is given back by its `Drop`, whether or not it was
        // admitted in the meantime.
        loop {
            let stalled_at = lock(&self.queue).last_progress + STALL_TIMEOUT;
            tokio::select! {
                _ = &mut admitted => return permit,
                () = sleep_until(stalled_at) => {
                    lock(&self.queue).admit_if_stalled(Instant::now());
                }
            }
        }
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
#[derive(Debug)]
struct JoinQueue {
    /// Members of each admitted group.
    admitted: HashMap<Arc<str>, usize>,
    waiting: VecDeque<(Arc<str>, Vec<oneshot::Sender<()>>)>,
    /// When a group was last admitted or left.
    last_progress: Instant,
}

impl Default for JoinQueue {
    fn default() -> Self {
        Self {
            admitted: HashMap::new(),
            waiting: VecDeque::new(),
            last_progress: Instant::now(),
        }
    }
}

impl JoinQueue {
    /// Admits a member at once (`None`), or returns what to wait for.
    fn enter(&mut self, group: Arc<str>, now: Instant) -> Option<oneshot::Receiver<()>> {
        if let Some(members) = self.admitted.get_mut(&group) {
            *members += 1;
            return None;
        }
        if self.admitted.len() < GROUPS && self.waiting.is_empty() {
            self.admitted.insert(group, 1);
            self.last_progress = now;
            return None;
        }
        if self.waiting.is_empty() {
            // An empty queue cannot stall: the time counts from its first group.
            self.last_progress = now;
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
        if let Some(members) = self.admitted.get_mut(group) {
            *members -= 1;
            if *members == 0 {
                self.admitted.remove(group);
                self.last_progress = now;
            }
        } else {
            // Its receiver was dropped together with its permit.
            for (waiting, members) in &mut self.waiting {
                if **waiting == *group {
                    members.retain(|admit| !admit.is_closed());
                }
            }
            self.waiting.retain(|(_, members)| !members.is_empty());
        }
        while self.admitted.len() < GROUPS && self.admit_next(now) {}
    }

    /// Admits one more group if the queue is stalled.
    fn admit_if_stalled(&mut self, now: Instant) {
        if now >= self.last_progress + STALL_TIMEOUT {
            // Also at the upper bound: the next check is due after as long.
            self.last_progress = now;
            if self.admitted.len() < GROUPS_MAX {
                self.admit_next(now);
            }
        }
    }

    fn admit_next(&mut self, now: Instant) -> bool {
        let Some((group, members)) = self.waiting.pop_front() else {
            return false;
        };
        self.last_progress = now;
        // Each member counts, even one that is cancelled now: dropping its permit uncounts it.
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

    fn enter(queue: &mut JoinQueue, group: &str, now: Instant) -> Option<oneshot::Receiver<()>> {
        queue.enter(group.into(), now)
    }

    fn is_admitted(waiting: &mut Option<oneshot::Receiver<()>>) -> bool {
        waiting
            .as_mut()
            .is_none_or(|admitted| admitted.try_recv().is_ok())
    }

    /// A queue with as many admitted groups as may be: `0`, `1`, …
    fn full(now: Instant) -> JoinQueue {
        let mut queue = JoinQueue::default();
        for group in 0..GROUPS {
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
        assert_eq!(queue.admitted.len(), GROUPS - 1);
    }

    #[test]
    fn a_stalled_queue_admits_groups_slowly() {
        let mut now = Instant::now();
        let mut queue = full(now);
        let mut waiting: Vec<_> = (0..1000)
            .map(|i| enter(&mut queue, &format!("w{i}"), now))
            .collect();
        queue.admit_if_stalled(now + STALL_TIMEOUT / 2);
        assert!(!is_admitted(&mut waiting[0]));
        for admitted in &mut waiting[..GROUPS_MAX - GROUPS] {
            now += STALL_TIMEOUT;
            queue.admit_if_stalled(now);
            // However many ask.
            queue.admit_if_stalled(now);
            assert!(is_admitted(admitted));
        }
        now += STALL_TIMEOUT;
        queue.admit_if_stalled(now);
        assert_eq!(queue.admitted.len(), GROUPS_MAX);
        // A queue that moves is not stalled: the extra places are not filled again.
        queue.leave("0", now);
        queue.admit_if_stalled(now);
        assert_eq!(queue.admitted.len(), GROUPS_MAX - 1);
    }
}
