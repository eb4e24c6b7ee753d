//! A member's access to its group's coordinator, and what members of one group share in this
//! process.
//!
//! ```text
//! ConsumerGroups ─▶ LocalGroup (one per group) ◀─ CoordinatorHandle (one per member)
//!       │                 │ commit permits, announced membership changes
//!       └─▶ CoordinatorLookup
//! ```

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use runtime::mutex::lock;
use tokio::sync::{Notify, Semaphore};

use super::coordinator_lookup::CoordinatorLookup;
use super::error::{GroupError, GroupErrorAction};
use crate::fetcher::Fetcher;
use crate::net::pool::COORDINATOR_CONNECTIONS;
use crate::protocol::versions::Api;
use crate::{BrokerId, Cluster, ConnectionPurpose};

const CONNECTIONS: usize = COORDINATOR_CONNECTIONS as usize;
/// OffsetCommit requests of one group that may be in flight on a connection: the broker has the
/// next one when it has answered one, and other groups' heartbeats never wait for many.
const COMMITS_IN_FLIGHT: usize = 2;

/// The consumer groups of one principal that have members in this process.
#[derive(Debug, Default)]
pub(crate) struct ConsumerGroups {
    lookup: Arc<CoordinatorLookup>,
    groups: Mutex<HashMap<Arc<str>, Weak<LocalGroup>>>,
}

impl ConsumerGroups {
    /// The handle of one more member of a group.
    pub(crate) fn coordinator_handle(
        self: &Arc<Self>,
        cluster: &Cluster,
        fetcher: &Fetcher,
        group_id: &Arc<str>,
    ) -> CoordinatorHandle {
        let mut groups = lock(&self.groups);
        let known = groups.get(group_id).and_then(Weak::upgrade);
        let group = known.unwrap_or_else(|| {
            let group = Arc::new(LocalGroup {
                commit_permits: std::array::from_fn(|_| {
                    Arc::new(Semaphore::new(COMMITS_IN_FLIGHT))
                }),
                members: AtomicUsize::new(first_connection(group_id)),
                changes: AtomicUsize::new(0),
                changed: Notify::new(),
                group_id: Arc::clone(group_id),
                groups: Arc::clone(self),
            });
            groups.insert(Arc::clone(group_id), Arc::downgrade(&group));
            group
        });
        let member = group.members.fetch_add(1, Ordering::Relaxed);
        CoordinatorHandle {
            cluster: cluster.clone(),
            fetcher: fetcher.clone(),
            group_id: Arc::clone(&group.group_id),
            connection: member % CONNECTIONS,
            group,
        }
    }
}

/// Groups of one member each use all connections as well.
fn first_connection(group_id: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    group_id.hash(&mut hasher);
    (hasher.finish() % COORDINATOR_CONNECTIONS as u64) as usize
}

/// One group's members in this process.
#[derive(Debug)]
struct LocalGroup {
    /// Bound the commits in flight, by connection.
    commit_permits: [Arc<Semaphore>; CONNECTIONS],
    /// Numbers the members, to spread them over the connections.
    members: AtomicUsize,
    /// Counts the members that joined or left: the others need not wait for their next
    /// heartbeat to learn of the rebalance.
    changes: AtomicUsize,
    changed: Notify,
    group_id: Arc<str>,
    groups: Arc<ConsumerGroups>,
}

impl Drop for LocalGroup {
    fn drop(&mut self) {
        let mut groups = lock(&self.groups.groups);
        // Unless the group has a new entry already.
        if groups
            .get(&self.group_id)
            .is_some_and(|group| group.strong_count() == 0)
        {
            groups.remove(&self.group_id);
            self.groups.lookup.drop_group(&self.group_id);
        }
    }
}

/// One member's access to its group's coordinator.
#[derive(Clone, Debug)]
pub(crate) struct CoordinatorHandle {
    pub(super) cluster: Cluster,
    pub(super) fetcher: Fetcher,
    pub(super) group_id: Arc<str>,
    /// The coordinator connection for all requests of this member: they stay in order.
    connection: usize,
    group: Arc<LocalGroup>,
}

impl CoordinatorHandle {
    /// The coordinator of the group, looked up if it is not known.
    pub(super) async fn coordinator(&self) -> Result<BrokerId, GroupError> {
        let lookup = &self.group.groups.lookup;
        lookup.find(&self.cluster, &self.group_id).await
    }

    /// Forgets the coordinator if `error` means that it may be another broker by now.
    pub(super) fn check_coordinator(&self, broker: BrokerId, error: &GroupError) {
        if error.action() == GroupErrorAction::FindCoordinator {
            let lookup = &self.group.groups.lookup;
            lookup.mark_unknown(&self.group_id, broker);
        }
    }

    /// The permits that bound commits in flight on this member's connection.
    pub(super) fn commit_permits(&self) -> Arc<Semaphore> {
        Arc::clone(&self.group.commit_permits[self.connection])
    }

    /// Tells the group's other members in this process that this one joins or has left.
    /// Returns the number of such changes.
    pub(super) fn announce_change(&self) -> usize {
        let changes = self.group.changes.fetch_add(1, Ordering::AcqRel) + 1;
        self.group.changed.notify_waiters();
        changes
    }

    /// How many changes were announced in this process.
    pub(super) fn announced_changes(&self) -> usize {
        self.group.changes.load(Ordering::Acquire)
    }

    /// Waits until more than `known` changes were announced. Cancel-safe.
    pub(super) async fn changed_since(&self, known: usize) -> usize {
        loop {
            // Registered before the check: a change after the check is not missed.
            let changed = self.group.changed.notified();
            let changes = self.announced_changes();
            if changes != known {
                return changes;
            }
            changed.await;
        }
    }

    /// Sends a request that the coordinator answers at once.
    pub(super) async fn call<A: Api>(
        &self,
        broker: BrokerId,
        build: impl FnOnce(i16) -> A,
        timeout: Duration,
    ) -> Result<A::Response, GroupError> {
        let purpose = ConnectionPurpose::Coordinator(self.connection as u8);
        let result = self.cluster.call(broker, purpose, build, timeout).await;
        let (_, response) = result.map_err(GroupError::Request)?;
        Ok(response)
    }
}
