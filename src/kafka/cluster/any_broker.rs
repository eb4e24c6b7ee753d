//! Requests that any broker can answer: Metadata, FindCoordinator, InitProducerId.
//!
//! # Which cluster
//! Known brokers are of the cluster that the metadata describes: `current_cluster` sees to that.
//! A bootstrap address is asked only if none of them answers. When another cluster answers there,
//! it depends:
//! - The address has led to the known cluster before, or is that of one of its brokers: the
//!   cluster was replaced. Its successor's metadata is taken, and nothing of the old one is kept.
//!   (Java's client takes it as well, but keeps producer ids and offsets.)
//! - The address has never led to the known cluster: it is taken for a mistake in
//!   `bootstrap.servers`. It is not used, said as WARN once, and the next address is asked; the
//!   metadata does not go back and forth between two clusters, and an outage of one does not
//!   send its records to another.
//!
//! Nothing but Metadata is asked of a bootstrap address that is not of the known cluster.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse};
use runtime::mutex::lock;
use tokio::time::sleep;

use crate::config::ClientConfig;
use crate::error::{BrokerAddress, RequestError};
use crate::metadata::{BrokerNode, Metadata};
use crate::net::cluster_check;
use crate::net::connection::Connection;
use crate::net::pool::{ConnectionPurpose, Pool};
use crate::protocol::versions::Api;
use crate::topic::BrokerId;

/// `REBOOTSTRAP_REQUIRED` (KIP-1102).
const REBOOTSTRAP_REQUIRED: i16 = 129;

/// How long a broker may take for what any broker can answer before another one is asked too.
const ASK_NEXT_AFTER: Duration = Duration::from_secs(1);

/// The brokers of a cluster, where it does not matter which of them answers.
#[derive(Debug)]
pub(super) struct AnyBroker {
    config: Arc<ClientConfig>,
    metadata: Metadata,
    pool: Arc<Pool>,
    /// Counts up, so that brokers take turns.
    next_broker: AtomicUsize,
    /// The cluster that each bootstrap address has led to last.
    bootstrap_clusters: Mutex<HashMap<Arc<str>, BootstrapCluster>>,
}

/// What a bootstrap address has led to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum BootstrapCluster {
    /// The cluster of the metadata at that time.
    Known(Arc<str>),
    /// Another one, which was not taken.
    Ignored(Arc<str>),
}

impl AnyBroker {
    pub(super) fn new(config: Arc<ClientConfig>, metadata: Metadata, pool: Arc<Pool>) -> Self {
        Self {
            config,
            metadata,
            pool,
            next_broker: AtomicUsize::new(0),
            bootstrap_clusters: Mutex::default(),
        }
    }

    /// Sends a request to whichever broker answers, on its control connection: known brokers
    /// first, the bootstrap addresses when none of them can be reached. A broker that hangs
    /// does not hold it up: the next one is asked as well after a second, and the first
    /// answer counts.
    ///
    /// # Errors
    /// That of the last broker that was tried.
    pub(super) async fn call<A: Api>(
        &self,
        build: impl Fn(i16) -> A,
        timeout: Duration,
    ) -> Result<(i16, A::Response), RequestError> {
        if let Some(result) = self.call_known(&build, timeout).await {
            return result;
        }
        let mut error = no_address();
        for (id, address) in self.bootstrap_addresses() {
            let broker = BrokerAddress { id, address };
            let called = async {
                let connection = self.control_connection(&broker).await?;
                let verified = cluster_check::verify(&connection, timeout).await;
                verified.map_err(|reason| unreachable(&broker, &reason))?;
                connection.call(&build, timeout).await
            };
            let result = called.await;
            // The broker at that address is reached by its own id from now on.
            self.pool.release(id, ConnectionPurpose::Control);
            match result {
                Err(failed) if failed.is_retriable() => error = failed,
                result => return result,
            }
        }
        Err(error)
    }

    /// The metadata of the known cluster, or of its successor, as any broker knows it.
    pub(super) async fn metadata(
        &self,
        build: impl Fn(i16) -> MetadataRequest,
        timeout: Duration,
    ) -> Result<MetadataResponse, RequestError> {
        if let Some(result) = self.call_known(&build, timeout).await {
            let (_, response) = result?;
            if response.error_code == REBOOTSTRAP_REQUIRED {
                tracing::info!("the cluster asks its clients to bootstrap again");
            } else if !self.metadata.snapshot().is_of_other_cluster(&response) {
                return Ok(response);
            } else {
                // Something between here and the broker leads one connection to two clusters.
                self.pool.cluster().end_connections();
            }
        }
        let mut error = no_address();
        let snapshot = self.metadata.snapshot();
        let known = snapshot.brokers.iter().map(|node| address_of(node).address);
        let mut addresses = self.bootstrap_addresses();
        for (address, id) in known.zip((i32::MIN..).map(BrokerId)) {
            // Another cluster may answer there, and nobody at the bootstrap addresses.
            if !addresses.iter().any(|(_, other)| *other == address) {
                addresses.push((id, address));
            }
        }
        for (id, address) in addresses {
            let broker = BrokerAddress { id, address };
            let called = async {
                let connection = self.control_connection(&broker).await?;
                connection.call(&build, timeout).await
            };
            let result = called.await;
            // The broker at that address is reached by its own id from now on.
            self.pool.release(id, ConnectionPurpose::Control);
            match result {
                Ok((_, response)) => match self.check_cluster(&broker.address, &response) {
                    Ok(()) => return Ok(response),
                    Err(reason) => error = unreachable(&broker, &reason),
                },
                Err(failed) if failed.is_retriable() => error = failed,
                Err(failed) => return Err(failed),
            }
        }
        Err(error)
    }

    /// Sends a request to whichever known broker answers; `None` if none of them can be reached.
    async fn call_known<A: Api>(
        &self,
        build: &impl Fn(i16) -> A,
        timeout: Duration,
    ) -> Option<Result<(i16, A::Response), RequestError>> {
        let snapshot = self.metadata.snapshot();
        let mut known: Vec<BrokerAddress> = snapshot.brokers.iter().map(address_of).collect();
        if !known.is_empty() {
            let first = self.next_broker.fetch_add(1, Ordering::Relaxed) % known.len();
            known.rotate_left(first);
            // Those that are connected before those that may have to time out first.
            known.sort_by_key(|broker| {
                self.pool
                    .live(broker.id, ConnectionPurpose::Control)
                    .is_none()
            });
        }
        let mut others = known.iter();
        let mut attempts = FuturesUnordered::new();
        loop {
            if attempts.is_empty() {
                attempts.push(self.call_broker(others.next()?, build, timeout));
            }
            tokio::select! {
                Some(result) = attempts.next() => match result {
                    Err(error) if error.is_retriable() => {
                        tracing::debug!(%error, "a known broker does not answer");
                    }
                    result => return Some(result),
                },
                () = sleep(ASK_NEXT_AFTER) => {
                    let next = others.next();
                    attempts.extend(next.map(|next| self.call_broker(next, build, timeout)));
                }
            }
        }
    }

    /// The bootstrap addresses, numbered as Java does: -1, -2, …
    fn bootstrap_addresses(&self) -> Vec<(BrokerId, Arc<str>)> {
        let servers = self.config.bootstrap_servers.iter();
        let ids = (1..i32::MAX).map(|at| BrokerId(-at));
        ids.zip(servers.map(|address| address.as_str().into()))
            .collect()
    }

    /// Whether the metadata that an address gave may be taken: it is of the known cluster, or the
    /// address has led to that before. Returns why not.
    fn check_cluster(
        &self,
        address: &Arc<str>,
        response: &MetadataResponse,
    ) -> Result<(), Arc<str>> {
        let Some(named) = &response.cluster_id else {
            return Ok(());
        };
        let named: Arc<str> = named.as_str().into();
        let mut clusters = lock(&self.bootstrap_clusters);
        let snapshot = self.metadata.snapshot();
        let leads_there = match (&snapshot.cluster_id, clusters.get(address)) {
            (None, _) => true,
            (Some(known), _) if *known == named => true,
            (Some(known), Some(BootstrapCluster::Known(before))) if known == before => true,
            _ => {
                let mut brokers = snapshot.brokers.iter();
                brokers.any(|node| address_of(node).address == *address)
            }
        };
        if leads_there {
            clusters.insert(Arc::clone(address), BootstrapCluster::Known(named));
            return Ok(());
        }
        let known = snapshot.cluster_id.as_deref().unwrap_or_default();
        let ignored = BootstrapCluster::Ignored(Arc::clone(&named));
        let before = clusters.insert(Arc::clone(address), ignored.clone());
        if before != Some(ignored) {
            tracing::warn!(
                %address,
                cluster = %named,
                expected = known,
                "an address of bootstrap.servers leads to another cluster: it is not used"
            );
        }
        Err(format!("it leads to another cluster ({named}, where {known} is expected)").into())
    }

    /// Lets the connections lead to the cluster of the metadata, and ends those that do not.
    pub(super) fn follow_cluster(&self) {
        let snapshot = self.metadata.snapshot();
        self.pool.cluster().follow(snapshot.cluster_id.as_ref());
    }

    /// Completes when a broker's connection was lost since the last time.
    pub(super) async fn connection_lost(&self) {
        self.pool.connection_lost().await;
    }

    async fn call_broker<A: Api>(
        &self,
        broker: &BrokerAddress,
        build: impl Fn(i16) -> A,
        timeout: Duration,
    ) -> Result<(i16, A::Response), RequestError> {
        let connection = self.control_connection(broker).await?;
        connection.call(build, timeout).await
    }

    async fn control_connection(&self, broker: &BrokerAddress) -> Result<Connection, RequestError> {
        self.pool
            .connection(broker, ConnectionPurpose::Control)
            .await
    }
}

fn unreachable(broker: &BrokerAddress, reason: &str) -> RequestError {
    RequestError::Unreachable {
        broker: broker.clone(),
        reason: reason.into(),
    }
}

fn no_address() -> RequestError {
    let broker = BrokerAddress {
        id: BrokerId(-1),
        address: "bootstrap.servers".into(),
    };
    unreachable(&broker, "it names no broker")
}

/// Where a broker listens, as the metadata says.
pub(super) fn address_of(broker: &BrokerNode) -> BrokerAddress {
    let BrokerNode { id, host, port, .. } = broker;
    let address = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    BrokerAddress {
        id: *id,
        address: address.into(),
    }
}
