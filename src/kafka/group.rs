//! Consumer groups: who reads which partitions, and how far they have read.
//!
//! ```text
//! Consumer ⇄ MemberChannel ⇄ ConsumerCoordinator ─decides─▶ Membership (pure)
//!                          │ leads ────────▶ assign (pure): range, cooperative-sticky
//!                          │ commits ──────▶ Commits (pure)
//!                          ├─▶ Coordinators   one question for many groups
//!                          └─▶ Cluster
//! ```
//!
//! This is the classic protocol (JoinGroup, SyncGroup, Heartbeat), as a member of which a
//! consumer of ours stands beside Java's and librdkafka's; any of them may lead.

pub(crate) mod assign;
mod assign_range;
mod assign_settling;
mod assign_sticky;
mod commit;
mod consumer_coordinator;
mod coordinator;
mod error;
mod java;
mod led;
mod member_channel;
mod membership;
mod offsets;
mod partitions;
mod protocol;
mod racks;
mod requests;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use runtime::mutex::lock;
use tokio::sync::{Notify, Semaphore};

pub(crate) use self::consumer_coordinator::ConsumerCoordinator;
use self::coordinator::Coordinators;
pub use self::error::{CommitError, ConsumerError};
use self::error::{Failure, Verdict};
pub(crate) use self::member_channel::{BackgroundEvent, MemberChannel};
pub(crate) use self::membership::{GroupRebalanceConfig, Membership};
pub use self::offsets::OffsetResetStrategy;
use super::{BrokerId, Cluster, ConnectionPurpose};
use crate::fetcher::Fetcher;
use crate::net::pool::COORDINATOR_CONNECTIONS;
use crate::protocol::versions::Api;

/// A coordinator's lanes.
const LANES: usize = COORDINATOR_CONNECTIONS as usize;
/// Commits of one group that may be under way in a lane: the broker has the next one when
/// it is through with one, and other groups' heartbeats never wait for many.
const COMMITS: usize = 2;

/// What the members of one principal's groups share in this process.
#[derive(Debug, Default)]
pub(crate) struct ConsumerGroups {
    coordinators: Arc<Coordinators>,
    gates: Mutex<HashMap<Arc<str>, Weak<Gate>>>,
}

impl ConsumerGroups {
    /// A place for one more member of a group.
    pub(crate) fn coordinator_handle(
        self: &Arc<Self>,
        cluster: &Cluster,
        fetcher: &Fetcher,
        group: &Arc<str>,
    ) -> CoordinatorHandle {
        let mut gates = lock(&self.gates);
        let gate = gates.get(group).and_then(Weak::upgrade).unwrap_or_else(|| {
            let gate = Arc::new(Gate {
                turns: std::array::from_fn(|_| Arc::new(Semaphore::new(COMMITS))),
                seats: AtomicUsize::new(first_lane(group)),
                stirs: AtomicUsize::new(0),
                stir: Notify::new(),
                group: Arc::clone(group),
                groups: Arc::clone(self),
            });
            gates.insert(Arc::clone(group), Arc::downgrade(&gate));
            gate
        });
        let handle = gate.seats.fetch_add(1, Ordering::Relaxed);
        CoordinatorHandle {
            cluster: cluster.clone(),
            fetcher: fetcher.clone(),
            group: Arc::clone(&gate.group),
            lane: handle % LANES,
            gate,
        }
    }
}

/// ConsumerGroups of one member each use all lanes as well.
fn first_lane(group: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    group.hash(&mut hasher);
    (hasher.finish() % COORDINATOR_CONNECTIONS as u64) as usize
}

/// One group in this process.
#[derive(Debug)]
struct Gate {
    /// Let a few commits through at a time, by lane.
    turns: [Arc<Semaphore>; LANES],
    /// Numbers the members, to spread them over the lanes.
    seats: AtomicUsize,
    /// Tells that a member joins or has left: the others need not wait for their next
    /// heartbeat to learn of the rebalance.
    stirs: AtomicUsize,
    stir: Notify,
    group: Arc<str>,
    groups: Arc<ConsumerGroups>,
}

impl Gate {
    /// Lets the other members know. Returns how often that has happened.
    fn stir(&self) -> usize {
        let stirs = self.stirs.fetch_add(1, Ordering::AcqRel) + 1;
        self.stir.notify_waiters();
        stirs
    }

    fn stirred(&self) -> usize {
        self.stirs.load(Ordering::Acquire)
    }

    /// Waits until it has happened more than `known` times. Cancel-safe.
    async fn stirred_since(&self, known: usize) -> usize {
        loop {
            // Registered before the look: what happens after it is not missed.
            let news = self.stir.notified();
            let stirs = self.stirred();
            if stirs != known {
                return stirs;
            }
            news.await;
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let mut gates = lock(&self.groups.gates);
        // Unless another has taken its place already.
        if gates
            .get(&self.group)
            .is_some_and(|gate| gate.strong_count() == 0)
        {
            gates.remove(&self.group);
            self.groups.coordinators.drop_group(&self.group);
        }
    }
}

/// One member's access to its group.
#[derive(Clone, Debug)]
pub(crate) struct CoordinatorHandle {
    cluster: Cluster,
    fetcher: Fetcher,
    group: Arc<str>,
    /// The coordinator's lane for all that this member sends: it stays in order.
    lane: usize,
    gate: Arc<Gate>,
}

impl CoordinatorHandle {
    async fn coordinator(&self) -> Result<BrokerId, Failure> {
        let coordinators = &self.gate.groups.coordinators;
        coordinators.find(&self.cluster, &self.group).await
    }

    /// A failure may mean that the coordinator is somewhere else.
    fn heed(&self, broker: BrokerId, failure: &Failure) {
        if failure.verdict() == Verdict::FindCoordinator {
            self.gate.groups.coordinators.forget(&self.group, broker);
        }
    }

    /// Lets this member's commits through.
    fn turn(&self) -> Arc<Semaphore> {
        Arc::clone(&self.gate.turns[self.lane])
    }

    /// Sends a request that the coordinator answers at once.
    async fn call<A: Api>(
        &self,
        broker: BrokerId,
        build: impl FnOnce(i16) -> A,
        timeout: Duration,
    ) -> Result<A::Response, Failure> {
        let lane = ConnectionPurpose::Coordinator(self.lane as u8);
        let result = self.cluster.call(broker, lane, build, timeout).await;
        let (_, answer) = result.map_err(Failure::Request)?;
        Ok(answer)
    }
}
