//! Requests that any broker can answer: Metadata, FindCoordinator, InitProducerId.
//!
//! # Which cluster
//! Known brokers are of the cluster that the metadata describes: `current_cluster` sees to that.
//! A bootstrap address is asked only if none of them answers. When another cluster answers there,
//! it depends:
//! - The address has led to the known cluster before, or is that of one of its brokers: the
//!   cluster was replaced, unless another address still leads to it, which is asked first. The
//!   successor's metadata is taken, and nothing of the old one is kept. (Java's client takes it
//!   as well, at once, but keeps producer ids and offsets.)
//! - The address has never led to the known cluster: it is taken for a mistake in
//!   `bootstrap.servers`. It is not used, said as WARN once, and the next address is asked; the
//!   metadata does not go back and forth between two clusters, and an outage of one does not
//!   send its records to another.
//!
//! So it has to be known which addresses lead to the cluster while it is there. Those that were not
//! needed to find it are asked once in the background: see [`AnyBroker::learn_bootstrap_clusters`].
//!
//! Nothing but Metadata is asked of a bootstrap address that is not of the known cluster.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kafka_protocol::messages::{MetadataRequest, MetadataResponse};
use runtime::mutex::lock;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::config::ClientConfig;
use crate::error::{BrokerAddress, RequestError};
use crate::hedged::first_success;
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
/// How long a bootstrap address may take, with the connection, before another one is asked too.
const ASK_NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(500);
/// How long other addresses may take to say that the known cluster is still there, once one names
/// another cluster.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(3);

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

/// Whether the metadata that an address gave may be taken.
#[derive(Debug)]
enum AddressCheck {
    /// It is of the known cluster, or none is known.
    Known,
    /// Of another one, but the address has led to the known cluster before.
    MayBeSuccessor,
    /// It is not: the reason.
    Stray(Arc<str>),
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
        let ask = async |broker: BrokerAddress| {
            let _release = self.release_later(&broker);
            let connection = self.control_connection(&broker).await?;
            let verified = cluster_check::verify(&connection, timeout).await;
            verified.map_err(|reason| unreachable(&broker, &reason))?;
            connection.call(&build, timeout).await
        };
        let addresses = self.bootstrap_addresses();
        first_success(addresses, ASK_NEXT_ADDRESS_AFTER, ask, is_final)
            .await
            .unwrap_or_else(|| Err(no_address()))
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
        self.bootstrap_metadata(build, timeout).await
    }

    /// The metadata as a bootstrap address gives it, or the address of a broker that was known.
    async fn bootstrap_metadata(
        &self,
        build: impl Fn(i16) -> MetadataRequest,
        timeout: Duration,
    ) -> Result<MetadataResponse, RequestError> {
        let snapshot = self.metadata.snapshot();
        let known = snapshot.brokers.iter().map(|node| address_of(node).address);
        let mut addresses = self.bootstrap_addresses();
        for (address, id) in known.zip((i32::MIN..).map(BrokerId)) {
            // Another cluster may answer there, and nobody at the bootstrap addresses.
            if !addresses.iter().any(|other| other.address == address) {
                addresses.push(BrokerAddress { id, address });
            }
        }
        let successors = Mutex::new(Vec::new());
        let named = Notify::new();
        let ask = async |broker: BrokerAddress| {
            let _release = self.release_later(&broker);
            let connection = self.control_connection(&broker).await?;
            let (_, response) = connection.call(&build, timeout).await?;
            let reason = match self.check_cluster(&broker.address, &response) {
                AddressCheck::Known => return Ok(response),
                AddressCheck::MayBeSuccessor => {
                    lock(&successors).push((Arc::clone(&broker.address), response));
                    named.notify_one();
                    "it leads to another cluster".into()
                }
                AddressCheck::Stray(reason) => reason,
            };
            Err(unreachable(&broker, &reason))
        };
        let confirmation = async {
            named.notified().await;
            sleep(CONFIRMATION_TIMEOUT).await;
        };
        let result = tokio::select! {
            result = first_success(addresses, ASK_NEXT_ADDRESS_AFTER, ask, is_final) => result,
            () = confirmation => None,
        };
        if let Some(Ok(response)) = result {
            return Ok(response);
        }
        let successors = std::mem::take(&mut *lock(&successors));
        match successors.into_iter().next() {
            Some((address, response)) => {
                self.note_cluster(&address, &response);
                Ok(response)
            }
            None => result.unwrap_or_else(|| Err(no_address())),
        }
    }

    /// Notes which cluster each bootstrap address leads to, as long as one is not known. Those of
    /// the known cluster are followed to its successor later, and a mistake is said at once.
    pub(super) async fn learn_bootstrap_clusters(self: Arc<Self>) {
        let mut snapshots = self.metadata.subscribe();
        let known = snapshots.wait_for(|snapshot| snapshot.cluster_id.is_some());
        if known.await.is_err() {
            return;
        }
        loop {
            let mut unknown = self.bootstrap_addresses();
            unknown.retain(|broker| !lock(&self.bootstrap_clusters).contains_key(&broker.address));
            if unknown.is_empty() {
                return;
            }
            for broker in unknown {
                if let Err(error) = self.learn_cluster(&broker).await {
                    tracing::debug!(%error, "a bootstrap address does not answer");
                }
            }
            sleep(self.config.metadata_max_age).await;
        }
    }

    async fn learn_cluster(&self, broker: &BrokerAddress) -> Result<(), RequestError> {
        let _release = self.release_later(broker);
        let connection = self.control_connection(broker).await?;
        let build = |_version| {
            let request = MetadataRequest::default().with_topics(Some(Vec::new()));
            request.with_allow_auto_topic_creation(false)
        };
        let timeout = self.config.request_timeout;
        let (_, response) = connection.call(build, timeout).await?;
        // It warns of a mistake; a successor is for the metadata to find.
        self.check_cluster(&broker.address, &response);
        Ok(())
    }

    /// Gives up the connection to a bootstrap address in the end: the broker there is reached by its
    /// own id from then on.
    fn release_later(&self, broker: &BrokerAddress) -> ReleaseOnDrop<'_> {
        ReleaseOnDrop(&self.pool, broker.id)
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
        let ask = async |broker: BrokerAddress| {
            let result = self.call_broker(&broker, build, timeout).await;
            result.inspect_err(|error| tracing::debug!(%error, "a known broker does not answer"))
        };
        match first_success(known, ASK_NEXT_AFTER, ask, is_final).await? {
            Err(error) if !is_final(&error) => None,
            result => Some(result),
        }
    }

    /// The bootstrap addresses, numbered as Java does: -1, -2, …
    fn bootstrap_addresses(&self) -> Vec<BrokerAddress> {
        let servers = self.config.bootstrap_servers.iter();
        let ids = (1..i32::MAX).map(|at| BrokerId(-at));
        ids.zip(servers)
            .map(|(id, address)| BrokerAddress {
                id,
                address: address.as_str().into(),
            })
            .collect()
    }

    /// Compares the cluster that an address leads to with the known one.
    fn check_cluster(&self, address: &Arc<str>, response: &MetadataResponse) -> AddressCheck {
        let Some(named) = &response.cluster_id else {
            return AddressCheck::Known;
        };
        let named: Arc<str> = named.as_str().into();
        let mut clusters = lock(&self.bootstrap_clusters);
        let snapshot = self.metadata.snapshot();
        let Some(known) = snapshot
            .cluster_id
            .as_ref()
            .filter(|known| **known != named)
        else {
            clusters.insert(Arc::clone(address), BootstrapCluster::Known(named));
            return AddressCheck::Known;
        };
        let led_there = match clusters.get(address) {
            Some(BootstrapCluster::Known(before)) => before == known,
            _ => false,
        };
        let mut brokers = snapshot.brokers.iter();
        if led_there || brokers.any(|node| address_of(node).address == *address) {
            return AddressCheck::MayBeSuccessor;
        }
        let ignored = BootstrapCluster::Ignored(Arc::clone(&named));
        let before = clusters.insert(Arc::clone(address), ignored.clone());
        if before != Some(ignored) {
            tracing::warn!(
                %address,
                cluster = %named,
                expected = %known,
                "an address of bootstrap.servers leads to another cluster: it is not used"
            );
        }
        let reason =
            format!("it leads to another cluster ({named}, where {known} is expected)").into();
        AddressCheck::Stray(reason)
    }

    /// The cluster that the address leads to is the known one from now on.
    fn note_cluster(&self, address: &Arc<str>, response: &MetadataResponse) {
        if let Some(named) = &response.cluster_id {
            let known = BootstrapCluster::Known(named.as_str().into());
            lock(&self.bootstrap_clusters).insert(Arc::clone(address), known);
        }
    }

    /// Lets the connections lead to the cluster of the metadata, and ends those that do not.
    pub(super) fn follow_cluster(&self) {
        let snapshot = self.metadata.snapshot();
        self.pool.cluster().follow(snapshot.cluster_id.as_ref());
    }

    /// Completes when no broker has answered anything for so long, and none since that time.
    pub(super) async fn silence(&self, since: Instant, lasting: Duration) {
        loop {
            let due = self.pool.last_answer().max(since) + lasting;
            if Instant::now() >= due {
                return;
            }
            sleep_until(due).await;
        }
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

struct ReleaseOnDrop<'a>(&'a Pool, BrokerId);

impl Drop for ReleaseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.release(self.1, ConnectionPurpose::Control);
    }
}

/// Whether no other broker need be asked.
fn is_final(error: &RequestError) -> bool {
    !error.is_retriable()
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
