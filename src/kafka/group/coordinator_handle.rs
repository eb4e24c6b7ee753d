//! A member's access to its group's coordinator, and what members of one group share in this
//! process.
//!
//! ```text
//! ConsumerGroups ─▶ LocalGroup (one per group) ◀─ CoordinatorHandle (one per member)
//!       │                 │ commit permits, announced membership changes
//!       └─▶ CoordinatorLookup
//! ```
//!
//! # Invariants
//! - A request that waits at a broker ends as soon as any member of its group learns that another
//!   broker is the coordinator: a broker that hangs keeps nothing that has moved. Nobody need tell:
//!   while a request waits for long, the coordinator is looked up again.
//! - Another broker is taken for the coordinator when the former one has said that it is not, or the
//!   new one that it is. Any broker answers FindCoordinator, by metadata that may lag: what it
//!   names would cost parked joins their place in the rebalance, and their place in line.

mod commits;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::OffsetFetchRequest;
use runtime::mutex::lock;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

pub(super) use self::commits::{CommitResult, PreparedCommit};
use super::coordinator_lookup::{CoordinatorLookup, LOOKUP_TIMEOUT};
use super::error::{GroupError, GroupErrorAction};
use super::last_group_start::LastGroupStart;
use super::requests::{self, CommittedPosition};
use crate::error::RequestError;
use crate::fetcher::Fetcher;
use crate::net::pool::JoinConnection;
use crate::protocol::versions::Api;
use crate::{BrokerId, Cluster, ConnectionPurpose, IsolationLevel, TopicPartition};

/// OffsetCommit requests of one group that may be in flight or next in line for the broker: a
/// group of many members takes no more turns than others.
const COMMITS_PER_GROUP: usize = 4;

/// How long a request may wait before the coordinator is looked up again, and then again.
const LOOK_UP_AGAIN_AFTER: Duration = Duration::from_secs(5);

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
                coordinator: watch::Sender::new(None),
                refuted: tokio::sync::Mutex::default(),
                commits: Arc::new(Semaphore::new(COMMITS_PER_GROUP)),
                changes: AtomicUsize::new(0),
                changed: Notify::new(),
                start: tokio::sync::Mutex::default(),
                group_id: Arc::clone(group_id),
                groups: Arc::clone(self),
            });
            groups.insert(Arc::clone(group_id), Arc::downgrade(&group));
            group
        });
        CoordinatorHandle {
            cluster: cluster.clone(),
            fetcher: fetcher.clone(),
            group_id: Arc::clone(&group.group_id),
            group,
        }
    }
}

/// One group's members in this process.
#[derive(Debug)]
struct LocalGroup {
    /// The coordinator that was found last; none since it has said that it is not.
    coordinator: watch::Sender<Option<BrokerId>>,
    /// The last broker that was named and has not confirmed it; locked while one is asked.
    refuted: tokio::sync::Mutex<Option<RefutedCoordinator>>,
    /// Bounds the commits that are in flight or next in line for the broker.
    commits: Arc<Semaphore>,
    /// Counts the members that joined or left: the others need not wait for their next
    /// heartbeat to learn of the rebalance.
    changes: AtomicUsize,
    changed: Notify,
    /// Where the group begins, as it was decided last; locked while that is being decided.
    start: tokio::sync::Mutex<Option<LastGroupStart>>,
    group_id: Arc<str>,
    groups: Arc<ConsumerGroups>,
}

/// A broker that was named as the coordinator, and when and why it has not confirmed it.
#[derive(Debug)]
struct RefutedCoordinator {
    broker: BrokerId,
    at: Instant,
    error: GroupError,
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
    group: Arc<LocalGroup>,
}

impl CoordinatorHandle {
    /// The coordinator of the group, looked up if it is not known.
    pub(super) async fn coordinator(&self) -> Result<BrokerId, GroupError> {
        let lookup = &self.group.groups.lookup;
        let found = lookup.find(&self.cluster, &self.group_id).await?;
        if self.is_other_than_known(found) {
            self.confirm(found).await?;
        }
        self.group.coordinator.send_if_modified(|coordinator| {
            let moved = *coordinator != Some(found);
            *coordinator = Some(found);
            moved
        });
        Ok(found)
    }

    fn is_other_than_known(&self, found: BrokerId) -> bool {
        self.group
            .coordinator
            .borrow()
            .is_some_and(|known| known != found)
    }

    /// Asks a broker that was named as the coordinator, where another one was before, whether it
    /// is. One member asks for all of the group.
    async fn confirm(&self, found: BrokerId) -> Result<(), GroupError> {
        let since = Instant::now();
        let mut refuted = self.group.refuted.lock().await;
        if !self.is_other_than_known(found) {
            return Ok(());
        }
        if let Some(last) = &*refuted
            && last.broker == found
            && last.at >= since
        {
            return Err(last.error.clone());
        }
        let build = |version| requests::offset_fetch(version, &self.group_id, &[], false);
        let after = self.cluster.config().request_timeout.min(LOOKUP_TIMEOUT);
        let purpose = ConnectionPurpose::Coordinator;
        let call = self
            .cluster
            .call::<OffsetFetchRequest>(found, purpose, build, after);
        let asked = async {
            let (_, response) = call.await.map_err(GroupError::Request)?;
            requests::committed_offsets(response, &[]).map(|_| ())
        };
        let Ok(result) = timeout(after, asked).await else {
            return self.refute(&mut refuted, found, not_available());
        };
        match result {
            Err(error) if error.action() == GroupErrorAction::FindCoordinator => {
                self.refute(&mut refuted, found, error)
            }
            // Any other answer, as that it is loading the group, is the coordinator's.
            _ => Ok(()),
        }
    }

    fn refute(
        &self,
        refuted: &mut Option<RefutedCoordinator>,
        broker: BrokerId,
        error: GroupError,
    ) -> Result<(), GroupError> {
        tracing::debug!(group = %self.group_id, %broker, ?error, "not confirmed as the coordinator");
        self.group
            .groups
            .lookup
            .mark_unknown(&self.group_id, broker);
        *refuted = Some(RefutedCoordinator {
            broker,
            at: Instant::now(),
            error: error.clone(),
        });
        Err(error)
    }

    /// Forgets the coordinator if `error` means that it may be another broker by now.
    pub(super) fn check_coordinator(&self, broker: BrokerId, error: &GroupError) {
        if error.action() == GroupErrorAction::FindCoordinator {
            let lookup = &self.group.groups.lookup;
            lookup.mark_unknown(&self.group_id, broker);
        }
        if let GroupError::Code(ResponseError::NotCoordinator) = error {
            let forget = |known: &mut Option<BrokerId>| known.take_if(|id| *id == broker).is_some();
            self.group.coordinator.send_if_modified(forget);
        }
    }

    /// Completes when another broker than that is known as the coordinator. Cancel-safe.
    async fn moved_from(&self, broker: BrokerId) {
        let mut coordinator = self.group.coordinator.subscribe();
        let moved = |found: &Option<BrokerId>| found.is_some_and(|found| found != broker);
        if coordinator.wait_for(moved).await.is_err() {
            std::future::pending().await
        }
    }

    /// Where the group begins, as it was decided last in this process; waits while that is being
    /// decided. Cancel-safe.
    pub(super) async fn last_start(&self) -> tokio::sync::MutexGuard<'_, Option<LastGroupStart>> {
        self.group.start.lock().await
    }

    /// One attempt to fetch the committed offsets of these partitions, each with its topic's id.
    pub(super) async fn fetch_committed(
        &self,
        partitions: &[(TopicPartition, Uuid)],
        isolation: IsolationLevel,
    ) -> Result<Vec<CommittedPosition>, GroupError> {
        let coordinator = self.coordinator().await?;
        let require_stable = isolation == IsolationLevel::ReadCommitted;
        let build =
            |version| requests::offset_fetch(version, &self.group_id, partitions, require_stable);
        let timeout = self.cluster.config().request_timeout;
        let result = self
            .call::<OffsetFetchRequest>(coordinator, ConnectionPurpose::Coordinator, build, timeout)
            .await;
        let result = result.and_then(|response| requests::committed_offsets(response, partitions));
        let result = result.and_then(|committed| {
            // Before version 2, an error of the whole group is given for each partition.
            let of_group = committed.iter().find_map(|(_, offset)| match offset {
                Err(error) if error.action() != GroupErrorAction::Retry => Some(error.clone()),
                _ => None,
            });
            of_group.map_or(Ok(committed), Err)
        });
        if let Err(error) = &result {
            self.check_coordinator(coordinator, error);
        }
        for (tp, offset) in result.iter().flatten() {
            if let Err(GroupError::Code(ResponseError::UnknownTopicId)) = offset {
                // Recreated, or not known to the coordinator yet.
                let metadata = self.cluster.metadata();
                metadata.request_update_for_topic(&tp.topic);
            }
        }
        result
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

    /// In which version a request of that kind would be sent now.
    pub(super) async fn version<A: Api>(
        &self,
        broker: BrokerId,
        purpose: ConnectionPurpose,
    ) -> Result<i16, GroupError> {
        let connection = self.cluster.connection(broker, purpose);
        let version = async { Ok((0, connection.await?.version::<A>()?)) };
        self.unless_moved(broker, version).await
    }

    /// Sends a request over the connection for that purpose; gives up, as if the broker had said
    /// that it is not the coordinator, when another one is.
    pub(super) async fn call<A: Api>(
        &self,
        broker: BrokerId,
        purpose: ConnectionPurpose,
        build: impl FnOnce(i16) -> A,
        timeout: Duration,
    ) -> Result<A::Response, GroupError> {
        let call = self.cluster.call(broker, purpose, build, timeout);
        self.unless_moved(broker, call).await
    }

    /// A connection for JoinGroup and SyncGroup, unless another broker is the coordinator before
    /// there is one: a broker that hangs takes long to open one. Cancel-safe.
    pub(super) async fn join_connection(
        &self,
        broker: BrokerId,
    ) -> Result<JoinConnection, GroupError> {
        let opened = async {
            let opened = self.cluster.join_connection(broker, &self.group_id).await;
            opened.map(|connection| (0, connection))
        };
        self.unless_moved(broker, opened).await
    }

    /// The response to `call` to that broker, unless another one is the coordinator before it
    /// comes. Cancel-safe if `call` is.
    pub(super) async fn unless_moved<T>(
        &self,
        broker: BrokerId,
        call: impl Future<Output = Result<(i16, T), RequestError>>,
    ) -> Result<T, GroupError> {
        tokio::select! {
            biased;
            result = call => result.map(|(_, response)| response).map_err(GroupError::Request),
            () = self.moved_from(broker) => Err(GroupError::Code(ResponseError::NotCoordinator)),
            never = self.keep_looking_up(broker) => match never {},
        }
    }

    /// Looks the coordinator up from time to time while a request waits at `broker`.
    async fn keep_looking_up(&self, broker: BrokerId) -> Infallible {
        loop {
            sleep(LOOK_UP_AGAIN_AFTER).await;
            let lookup = &self.group.groups.lookup;
            lookup.mark_unknown(&self.group_id, broker);
            // The next one comes after a failure as well.
            let _ = self.coordinator().await;
        }
    }
}

fn not_available() -> GroupError {
    GroupError::Code(ResponseError::CoordinatorNotAvailable)
}
