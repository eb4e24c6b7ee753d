//! Bounds the offset commits that are in flight at each broker.
//!
//! A broker answers a commit when the followers have it, and a connection's requests one at a
//! time: the number of connections decides how many commits are replicated at once. So they are
//! spread over as many connections as are needed: one while commits come one after another, all of
//! them when a follower is slow.
//!
//! ```text
//! acquire(broker) ─▶ room? ──yes─▶ the first idle connection ─────▶ OffsetCommit
//!                      │ no                                             │
//!                      └─▶ wait in order of arrival ◀── permit dropped ─┘
//! ```
//!
//! A commit waits here, not in the broker behind another one of its connection: until it is sent,
//! its member gathers offsets, of which only the newest of a partition is sent, and what was found
//! out about their topics is still new when the broker takes it. That costs a round trip between
//! two commits of a connection, where replication takes milliseconds.
//!
//! So when commits slow down, each carries more and comes less often.
//!
//! # Invariants
//! - Permits are given in the order in which they were asked for. A group asks for a few at a
//!   time (`COMMITS_PER_GROUP`), so each has its turn.
//! - A connection carries one commit at a time.
//! - Nothing but commits waits for commits, and these only when every connection has one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use runtime::mutex::lock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ConnectionPurpose;
use crate::topic::BrokerId;

/// Connections for commits, per broker.
const CONNECTIONS: usize = 16;

/// The commit limiters of all brokers.
#[derive(Debug, Default)]
pub(super) struct CommitLimiters {
    limiters: Mutex<HashMap<BrokerId, Arc<CommitLimiter>>>,
}

impl CommitLimiters {
    /// Waits until one more commit may be sent to `broker`. Cancel-safe.
    pub(super) async fn acquire(&self, broker: BrokerId) -> CommitPermit {
        let limiter = Arc::clone(lock(&self.limiters).entry(broker).or_default());
        limiter.acquire(broker).await
    }
}

/// The commits in flight at one broker.
#[derive(Debug)]
struct CommitLimiter {
    permits: Arc<Semaphore>,
    /// Which connections carry one.
    busy: Mutex<[bool; CONNECTIONS]>,
}

impl Default for CommitLimiter {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
            busy: Mutex::default(),
        }
    }
}

impl CommitLimiter {
    async fn acquire(self: Arc<Self>, broker: BrokerId) -> CommitPermit {
        // Tokio's semaphore is fair.
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let connection = {
            let mut busy = lock(&self.busy);
            let idle = busy.iter().position(|busy| !busy);
            let idle = idle.expect("there is a permit for each connection");
            busy[idle] = true;
            idle
        };
        CommitPermit {
            limiter: self,
            broker,
            connection,
            _permit: permit,
        }
    }
}

/// One OffsetCommit may be in flight, until this is dropped.
#[derive(Debug)]
pub(crate) struct CommitPermit {
    limiter: Arc<CommitLimiter>,
    broker: BrokerId,
    connection: usize,
    /// Released after `drop` has made room on the connection.
    _permit: OwnedSemaphorePermit,
}

impl CommitPermit {
    /// The broker to which the commit may be sent.
    pub(crate) fn broker(&self) -> BrokerId {
        self.broker
    }

    /// Over which connection.
    pub(crate) fn purpose(&self) -> ConnectionPurpose {
        ConnectionPurpose::Commit(self.connection as u8)
    }
}

impl Drop for CommitPermit {
    fn drop(&mut self) {
        lock(&self.limiter.busy)[self.connection] = false;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use futures_util::future::FutureExt;

    use super::*;

    const BROKER: BrokerId = BrokerId(1);

    fn acquire_now(limiters: &CommitLimiters) -> Option<CommitPermit> {
        limiters.acquire(BROKER).now_or_never()
    }

    #[test]
    fn commits_that_come_one_after_another_use_one_connection() {
        let limiters = CommitLimiters::default();
        for _ in 0..100 {
            let permit = acquire_now(&limiters).unwrap();
            assert_eq!(permit.purpose(), ConnectionPurpose::Commit(0));
            assert_eq!(permit.broker(), BROKER);
        }
    }

    #[test]
    fn slow_commits_spread_over_all_connections_and_then_wait() {
        let limiters = CommitLimiters::default();
        let permits: Vec<_> = std::iter::from_fn(|| acquire_now(&limiters)).collect();
        let connections = permits.iter().map(CommitPermit::purpose);
        let connections: HashSet<_> = connections.collect();
        assert_eq!(permits.len(), CONNECTIONS);
        assert_eq!(connections.len(), CONNECTIONS, "one on each");
        let other = limiters.acquire(BrokerId(2)).now_or_never();
        assert!(other.is_some(), "another broker has its own");
    }

    #[test]
    fn permits_are_given_in_the_order_in_which_they_were_asked_for() {
        let limiters = CommitLimiters::default();
        let mut permits: Vec<_> = std::iter::from_fn(|| acquire_now(&limiters)).collect();
        let mut first = Box::pin(limiters.acquire(BROKER));
        let mut second = Box::pin(limiters.acquire(BROKER));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        let freed = permits.remove(7).purpose();
        assert!(second.as_mut().now_or_never().is_none());
        let permit = first.as_mut().now_or_never().expect("its turn");
        assert_eq!(permit.purpose(), freed);
        drop(permit);
        assert!(second.as_mut().now_or_never().is_some());
    }
}
