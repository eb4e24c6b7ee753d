//! What every connection of every node shares.
//!
//! # Invariants
//! - The lock is never held over an await: a request that waits is registered under the
//!   lock and waits outside.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;
use runtime::mutex::lock;
use tokio::sync::Notify;

use super::cluster_state::ClusterState;
use super::config::BrokerConfig;
#[cfg(any(test, feature = "faults"))]
use super::counters::BrokerCounters;
#[cfg(any(test, feature = "faults"))]
use super::faults::FaultRules;
use super::fetch_sessions::FetchSessionCache;
use super::group::{ClassicGroup, GroupLimits};
use super::group_coordinator::GroupCoordinator;
use super::request_reader::RequestMemory;
use super::response_memory::ResponseMemory;
use super::transaction::EndProtocol;
use super::transaction_coordinator::TransactionCoordinator;

/// The cluster: shared by its nodes, their connections and the tests' controls.
#[derive(Debug)]
pub(super) struct ClusterContext {
    pub(super) config: Arc<BrokerConfig>,
    #[cfg(any(test, feature = "faults"))]
    pub(super) counters: BrokerCounters,
    #[cfg(any(test, feature = "faults"))]
    pub(super) faults: FaultRules,
    /// Notified when a group or a transaction has an earlier deadline than the expiration task
    /// waits for.
    pub(super) deadline_moved: Notify,
    /// What large requests take.
    pub(super) request_memory: RequestMemory,
    /// What answers take that are being written.
    pub(super) response_memory: ResponseMemory,
    cluster: Mutex<ClusterData>,
}

/// The data under the lock.
#[derive(Debug)]
pub(super) struct ClusterData {
    pub(super) state: ClusterState,
    pub(super) groups: GroupCoordinator,
    pub(super) transactions: TransactionCoordinator,
    sessions: Vec<FetchSessionCache>,
}

/// The client that sent a request, and the node that handles it.
#[derive(Clone, Debug)]
pub(super) struct RequestContext {
    pub(super) shared: Arc<ClusterContext>,
    pub(super) node: i32,
    pub(super) client_id: StrBytes,
    pub(super) host: SocketAddr,
}

impl RequestContext {
    /// Whether this node coordinates that group.
    pub(super) fn check_coordinator(
        &self,
        cluster: &ClusterData,
        group: &str,
    ) -> Result<(), ResponseError> {
        // Kafka's log of offsets takes no longer ones.
        if group.is_empty() || group.len() > GROUP_ID_MAX {
            return Err(ResponseError::InvalidGroupId);
        }
        match cluster.state.coordinator(group) {
            Some(node) if node.id == self.node => Ok(()),
            _ => Err(ResponseError::NotCoordinator),
        }
    }

    /// Whether this node coordinates the transactions of that id.
    pub(super) fn check_transaction_coordinator(
        &self,
        cluster: &ClusterData,
        transactional_id: &str,
    ) -> Result<(), ResponseError> {
        if transactional_id.is_empty() || transactional_id.len() > TRANSACTIONAL_ID_MAX {
            return Err(ResponseError::InvalidRequest);
        }
        match cluster.state.coordinator(transactional_id) {
            Some(node) if node.id == self.node => Ok(()),
            _ => Err(ResponseError::NotCoordinator),
        }
    }

    /// Changes transactions, writes the markers that are due, and wakes the expiration task when
    /// a deadline came nearer.
    pub(super) fn with_transactions<T>(
        &self,
        cluster: &mut ClusterData,
        now: Instant,
        change: impl FnOnce(&mut TransactionCoordinator, &mut ClusterState) -> T,
    ) -> T {
        let before = cluster.transactions.next_deadline();
        let result = change(&mut cluster.transactions, &mut cluster.state);
        let next = cluster.tick_transactions(now);
        if next.is_some_and(|next| before.is_none_or(|before| next < before)) {
            self.shared.deadline_moved.notify_one();
        }
        result
    }

    /// Changes a group, and wakes the expiration task when its deadline came nearer.
    pub(super) fn with_group<T>(
        &self,
        cluster: &mut ClusterData,
        group: &str,
        change: impl FnOnce(&mut ClassicGroup) -> T,
    ) -> Result<T, ResponseError> {
        let (result, next_deadline) = cluster
            .groups
            .with(group, change)
            .ok_or(ResponseError::UnknownMemberId)?;
        if next_deadline {
            self.shared.deadline_moved.notify_one();
        }
        Ok(result)
    }
}

impl ClusterContext {
    /// A cluster without topics whose nodes are at those addresses.
    pub(super) fn new(config: BrokerConfig, addresses: &[SocketAddr]) -> Arc<Self> {
        let config = Arc::new(config);
        let seed = wall_clock().as_nanos() as u64;
        let sessions = addresses
            .iter()
            .map(|_| {
                FetchSessionCache::new(
                    config.fetch_session_slots,
                    config.fetch_session_partitions_max,
                    config.fetch_session_min_idle,
                    seed as u32,
                )
            })
            .collect();
        let limits = GroupLimits {
            initial_delay: config.initial_rebalance_delay,
            session_min: config.session_timeout_min,
            session_max: config.session_timeout_max,
            members_max: config.group_members_max,
        };
        let protocol = match config.finalized_transaction_version() {
            Some(2..) => EndProtocol::BumpsEpoch,
            _ => EndProtocol::KeepsEpoch,
        };
        let transactions = TransactionCoordinator::new(
            protocol,
            config.transaction_marker_delay,
            config.transactions_memory,
        );
        Arc::new(Self {
            deadline_moved: Notify::new(),
            request_memory: RequestMemory::new(config.requests_memory),
            cluster: Mutex::new(ClusterData {
                groups: GroupCoordinator::new(limits, config.groups_max, config.groups_memory),
                state: ClusterState::new(Arc::clone(&config), addresses, seed),
                transactions,
                sessions,
            }),
            config,
            response_memory: ResponseMemory::default(),
            #[cfg(any(test, feature = "faults"))]
            counters: BrokerCounters::default(),
            #[cfg(any(test, feature = "faults"))]
            faults: FaultRules::default(),
        })
    }

    /// Lets groups and transactions do what time demands, until it is dropped.
    pub(super) async fn expire_deadlines(self: Arc<Self>) {
        loop {
            let next = self.lock().tick(Instant::now());
            let moved = self.deadline_moved.notified();
            match next {
                Some(next) => {
                    tokio::select! {
                        () = moved => {}
                        () = tokio::time::sleep_until(next.into()) => {}
                    }
                }
                None => moved.await,
            }
        }
    }

    /// The data, for as long as the guard lives.
    pub(super) fn lock(&self) -> MutexGuard<'_, ClusterData> {
        lock(&self.cluster)
    }
}

impl ClusterData {
    /// The fetch sessions of one node.
    pub(super) fn sessions(&mut self, node: i32) -> &mut FetchSessionCache {
        &mut self.sessions[node as usize - 1]
    }

    /// Handles every deadline that has passed; returns the next one.
    fn tick(&mut self, now: Instant) -> Option<Instant> {
        let of_groups = self.groups.tick(now);
        let of_transactions = self.tick_transactions(now);
        of_groups.into_iter().chain(of_transactions).min()
    }

    /// Ends the transactions that time ends, and writes the markers that are due; returns the next
    /// deadline.
    fn tick_transactions(&mut self, now: Instant) -> Option<Instant> {
        for ended in self.transactions.tick(now) {
            for (topic, partition) in ended.partitions {
                // Not in a topic that was deleted meanwhile.
                if let Some(name) = self.state.name_of(topic).map(str::to_owned) {
                    let (producer, result) = (ended.producer, ended.result);
                    self.state
                        .end_transaction(&name, partition, producer, result, now_ms());
                }
            }
        }
        self.transactions.next_deadline()
    }

    /// Deletes a topic, and what groups committed for it.
    pub(super) fn delete_topic(&mut self, name: &str) -> Result<(), ResponseError> {
        self.state.delete_topic(name)?;
        self.groups.forget_topic(name);
        Ok(())
    }
}

// What tests do and see.
#[cfg(any(test, feature = "faults"))]
impl ClusterData {
    /// A node goes: its partitions and groups move to others.
    pub(super) fn take_offline(&mut self, node: i32) {
        let had = self.coordinated();
        self.state.set_online(node, false);
        self.unload(had);
    }

    /// Has `node` coordinate that group or transaction, while it is online.
    pub(super) fn move_coordinator(&mut self, key: &str, node: i32) {
        let had = self.coordinated();
        self.state.move_coordinator(key, node);
        self.unload(had);
    }

    /// Each group's coordinator.
    fn coordinated(&self) -> Vec<(String, Option<i32>)> {
        let coordinator = |name: &str| self.state.coordinator(name).map(|node| node.id);
        self.groups
            .iter()
            .map(|(name, _)| (name.to_owned(), coordinator(name)))
            .collect()
    }

    /// Fails parked requests at a node that no longer coordinates their group.
    fn unload(&mut self, had: Vec<(String, Option<i32>)>) {
        for (name, before) in had {
            if self.state.coordinator(&name).map(|node| node.id) != before {
                self.groups
                    .with(&name, |group| group.resign(Instant::now()));
            }
        }
    }

    /// A node comes back: it knows its logs and groups, but no fetch session.
    pub(super) fn restart(&mut self, node: i32) {
        let had = self.coordinated();
        self.sessions(node).clear();
        self.state.set_online(node, true);
        self.unload(had);
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    i64::try_from(wall_clock().as_millis()).unwrap_or(i64::MAX)
}

fn wall_clock() -> std::time::Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// The longest name of a group, in bytes.
const GROUP_ID_MAX: usize = i16::MAX as usize;
/// The longest transactional id, in bytes.
const TRANSACTIONAL_ID_MAX: usize = i16::MAX as usize;
