//! What every connection of every node holds on to.
//!
//! # Invariants
//! - The lock is never held over an await: whoever has to wait registers under the lock
//!   and waits outside.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use kafka_protocol::protocol::StrBytes;

use super::config::BrokerConfig;
use super::counters::Counters;
use super::faults::Faults;
use super::sessions::Sessions;
use super::state::State;

/// The cluster: shared by its nodes, their connections and the tests' controls.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Arc<BrokerConfig>,
    pub(super) counters: Counters,
    pub(super) faults: Faults,
    inner: Mutex<Inner>,
}

/// What the lock guards.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) state: State,
    sessions: Vec<Sessions>,
}

/// Who sent a request, and to which node.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) shared: Arc<Shared>,
    pub(super) node: i32,
    pub(super) client_id: StrBytes,
    #[allow(dead_code, reason = "for DescribeGroups")]
    pub(super) host: SocketAddr,
}

impl Shared {
    /// A cluster without topics whose nodes are at those addresses.
    pub(super) fn new(config: BrokerConfig, addresses: &[SocketAddr]) -> Arc<Self> {
        let config = Arc::new(config);
        let seed = wall_clock().as_nanos() as u64;
        let sessions = addresses
            .iter()
            .map(|_| {
                Sessions::new(
                    config.fetch_session_slots,
                    config.fetch_session_min_idle,
                    seed as u32,
                )
            })
            .collect();
        Arc::new(Self {
            inner: Mutex::new(Inner {
                state: State::new(Arc::clone(&config), addresses, seed),
                sessions,
            }),
            config,
            counters: Counters::default(),
            faults: Faults::default(),
        })
    }

    /// The data, for as long as the guard lives.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The fetch sessions of one node.
    pub(super) fn sessions(&mut self, node: i32) -> &mut Sessions {
        &mut self.sessions[node as usize - 1]
    }

    /// A node comes back: it knows its logs and groups, but no fetch session.
    pub(super) fn restart(&mut self, node: i32) {
        self.sessions(node).clear();
        self.state.set_online(node, true);
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
