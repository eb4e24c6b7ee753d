//! What every connection of every node holds on to.
//!
//! # Invariants
//! - The lock is never held over an await: whoever has to wait registers under the lock
//!   and waits outside.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;
use tokio::sync::Notify;

use super::config::BrokerConfig;
use super::counters::BrokerCounters;
use super::faults::FaultRules;
use super::group::GroupLimits;
use super::groups::GroupCoordinator;
use super::requests::RequestMemory;
use super::sessions::FetchSessionCache;
use super::state::ClusterState;

/// The cluster: shared by its nodes, their connections and the tests' controls.
#[derive(Debug)]
pub(super) struct ClusterContext {
    pub(super) config: Arc<BrokerConfig>,
    pub(super) counters: BrokerCounters,
    pub(super) faults: FaultRules,
    /// Rung when a group has an earlier deadline than the clock knows.
    pub(super) alarm: Notify,
    /// For large requests.
    pub(super) room: RequestMemory,
    inner: Mutex<ClusterData>,
}

/// What the lock guards.
#[derive(Debug)]
pub(super) struct ClusterData {
    pub(super) state: ClusterState,
    pub(super) groups: GroupCoordinator,
    sessions: Vec<FetchSessionCache>,
}

/// Who sent a request, and to which node.
#[derive(Clone, Debug)]
pub(super) struct RequestContext {
    pub(super) shared: Arc<ClusterContext>,
    pub(super) node: i32,
    pub(super) client_id: StrBytes,
    pub(super) host: SocketAddr,
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
        Arc::new(Self {
            alarm: Notify::new(),
            room: RequestMemory::new(config.requests_memory),
            inner: Mutex::new(ClusterData {
                groups: GroupCoordinator::new(limits, config.groups_max, config.groups_memory),
                state: ClusterState::new(Arc::clone(&config), addresses, seed),
                sessions,
            }),
            config,
            counters: BrokerCounters::default(),
            faults: FaultRules::default(),
        })
    }

    /// Lets groups do what time demands, for ever.
    pub(super) async fn keep_time(self: Arc<Self>) {
        loop {
            let next = self.lock().groups.tick(Instant::now());
            let rung = self.alarm.notified();
            match next {
                Some(next) => {
                    tokio::select! {
                        () = rung => {}
                        () = tokio::time::sleep_until(next.into()) => {}
                    }
                }
                None => rung.await,
            }
        }
    }

    /// The data, for as long as the guard lives.
    pub(super) fn lock(&self) -> MutexGuard<'_, ClusterData> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClusterData {
    /// The fetch sessions of one node.
    pub(super) fn sessions(&mut self, node: i32) -> &mut FetchSessionCache {
        &mut self.sessions[node as usize - 1]
    }

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

    /// Deletes a topic, and what groups committed for it.
    pub(super) fn delete_topic(&mut self, name: &str) -> Result<(), ResponseError> {
        self.state.delete_topic(name)?;
        self.groups.forget_topic(name);
        Ok(())
    }

    /// Each group's coordinator.
    fn coordinated(&self) -> Vec<(String, Option<i32>)> {
        let coordinator = |name: &str| self.state.coordinator(name).map(|node| node.id);
        self.groups
            .iter()
            .map(|(name, _)| (name.to_owned(), coordinator(name)))
            .collect()
    }

    /// Sends away whoever waits at a coordinator that is none any more.
    fn unload(&mut self, had: Vec<(String, Option<i32>)>) {
        for (name, before) in had {
            if self.state.coordinator(&name).map(|node| node.id) != before {
                self.groups
                    .with(&name, |group| group.unload(Instant::now()));
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

/// A copy, to be kept for longer than a request: a part of one keeps all its bytes alive.
pub(super) fn kept(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
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
