//! The in-memory broker of `--dev` and of the tests.
//!
//! A cluster of one or more simulated nodes in this process. Each has its own TCP
//! listener; all share one state. It speaks enough of Kafka's protocol for this client,
//! librdkafka, rskafka and the Java client to produce, consume, list and join groups.
//! Nothing is written to disk.
//!
//! ```text
//!  clients ──TCP──▶ node 1 ── connections ─┐            ┌─ topics, logs, producers
//!          ──TCP──▶ node 2 ── connections ─┼─ api ── lock ─ fetch sessions
//!          ──TCP──▶ node 3 ── connections ─┘            └─ groups, offsets, transactions
//!                                  ▲
//!                     faults ──────┘   scripted by tests
//! ```
//!
//! # Limits
//! - Record batches take at most [`BrokerConfig::memory`] bytes (256 MiB by
//!   default) over all partitions; then the oldest are dropped and the start of their
//!   log moves up. Partitions, groups and what they keep, sessions, producers, and large
//!   requests and answers under way are bounded too.
//! - No replication: every replica has every record at once, and acknowledged is what
//!   every node knows. A node that stops only hands over its partitions.
//! - Transactions write records and no offsets of groups (`sendOffsetsToTransaction`), and have
//!   no second phase (KIP-939).
//! - No authentication, no TLS, no ACLs, no quotas, no consumer group protocol of KIP-848.
//!
//! # Invariants
//! - A connection has one request handled at a time.
//! - A scripted fault applies exactly as often as its rule says, to the requests it names.

mod api;
mod batch;
mod cluster_state;
mod config;
mod connection;
mod connection_end;
mod context;
#[cfg(any(test, feature = "faults"))]
mod controls;
#[cfg(any(test, feature = "faults"))]
mod counters;
#[cfg(any(test, feature = "faults"))]
mod error_responses;
#[cfg(any(test, feature = "faults"))]
mod faults;
mod fetch_sessions;
mod group;
mod group_coordinator;
mod listener;
mod log;
mod producer_state;
mod request_reader;
mod response_memory;
mod transaction;
mod transaction_coordinator;
mod versions;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use runtime::mutex::lock;
use tokio_util::task::AbortOnDropHandle;

pub use config::BrokerConfig;
#[cfg(any(test, feature = "faults"))]
pub use controls::GroupDescription;
#[cfg(any(test, feature = "faults"))]
pub use faults::{FaultAction, FaultRule, FaultRules};
#[cfg(any(test, feature = "faults"))]
pub use group::{
    DepartureCause, GenerationAssignment, GroupHistory, MemberAssignment, MemberDeparture,
};
#[cfg(any(test, feature = "faults"))]
pub use kafka_protocol::messages::ApiKey;
pub use versions::{AdvertisedVersions, KafkaRelease};

use context::ClusterContext;
use listener::NodeListener;

/// A running in-memory cluster. Dropping it stops it.
#[derive(Debug)]
pub struct MemoryBroker {
    #[cfg(any(test, feature = "faults"))]
    shared: Arc<ClusterContext>,
    addresses: BTreeMap<i32, SocketAddr>,
    running: Mutex<BTreeMap<i32, NodeListener>>,
    clock: AbortOnDropHandle<()>,
}

impl MemoryBroker {
    /// Starts every node and returns when all of them listen.
    ///
    /// # Errors
    /// The system's, when a node's address cannot be listened on; `InvalidInput` when the nodes
    /// need ports beyond the last one.
    pub async fn start(config: BrokerConfig) -> io::Result<Self> {
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for n in 0..config.nodes.max(1) {
            let port = match config.port {
                0 => 0,
                first => u16::try_from(n)
                    .ok()
                    .and_then(|n| first.checked_add(n))
                    .ok_or(io::ErrorKind::InvalidInput)?,
            };
            let listener = listener::listen(SocketAddr::new(config.host, port)).await?;
            addresses.push(listener.local_addr()?);
            listeners.push(listener);
        }
        let shared = ClusterContext::new(config, &addresses);
        let running = (1..)
            .zip(listeners)
            .map(|(id, listener)| (id, NodeListener::start(Arc::clone(&shared), id, listener)))
            .collect();
        let clock = tokio::spawn(Arc::clone(&shared).expire_deadlines());
        Ok(Self {
            clock: AbortOnDropHandle::new(clock),
            #[cfg(any(test, feature = "faults"))]
            shared,
            addresses: (1..).zip(addresses).collect(),
            running: Mutex::new(running),
        })
    }

    /// `host:port` of every node, separated by commas.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<_> = self.addresses.values().map(SocketAddr::to_string).collect();
        addresses.join(",")
    }

    /// Stops every node: connections are cut.
    pub async fn stop(self) {
        self.clock.abort();
        let running = std::mem::take(&mut *self.running());
        for node in running.into_values() {
            node.stop().await;
        }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, BTreeMap<i32, NodeListener>> {
        lock(&self.running)
    }
}
