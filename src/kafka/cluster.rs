//! One cluster, as one principal sees it: its metadata and the connections to its brokers.
//!
//! ```text
//! produce, fetch, group ─▶ Cluster ─┬▶ Metadata   who leads what, who listens where
//!                                   └▶ Pool       connections to each broker, by purpose
//! ```
//!
//! It can be used from the start, also while no broker is reachable: callers wait with
//! backoff, and [`Metadata::ready`] says what is missing.

mod metadata_updater;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::backoff::BACKOFF_MIN;
use super::config::ClientConfig;
use super::error::{BrokerAddress, RequestError};
use super::metadata::{BrokerNode, Metadata};
use super::principal::Principal;
use super::topic::BrokerId;
use crate::net::connection::Connection;
use crate::net::pool::{CommitPermit, ConnectionPurpose, JoinConnection, Pool};
use crate::protocol::versions::Api;

/// How long a broker may take for what any broker can answer before another one is asked too.
const ASK_NEXT_AFTER: Duration = Duration::from_secs(1);

/// A handle to one cluster as one principal. Clones share everything.
#[derive(Clone, Debug)]
pub struct Cluster {
    shared: Arc<ClusterShared>,
}

#[derive(Debug)]
struct ClusterShared {
    config: Arc<ClientConfig>,
    principal: Principal,
    tasks: TaskTracker,
    stop: CancellationToken,
    metadata: Metadata,
    pool: Pool,
    /// Counts up, so that brokers take turns when any will do.
    next_broker: AtomicUsize,
}

impl Cluster {
    /// Returns at once; connects and asks for metadata in the background until `stop`.
    pub fn new(
        mut config: ClientConfig,
        principal: Principal,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        config.retry_backoff = config.retry_backoff.max(BACKOFF_MIN);
        config.reconnect_backoff = config.reconnect_backoff.max(BACKOFF_MIN);
        let config = Arc::new(config);
        let cluster = Self {
            shared: Arc::new(ClusterShared {
                metadata: Metadata::new(config.request_timeout),
                pool: Pool::new(Arc::clone(&config), tasks.clone(), stop.clone()),
                config,
                principal,
                tasks: tasks.clone(),
                stop,
                next_broker: AtomicUsize::new(0),
            }),
        };
        tasks.spawn(metadata_updater::run(cluster.clone()));
        cluster
    }

    /// Its settings.
    pub(crate) fn config(&self) -> &ClientConfig {
        &self.shared.config
    }

    /// Who its connections run as.
    pub fn principal(&self) -> &Principal {
        &self.shared.principal
    }

    /// What is known of it.
    pub fn metadata(&self) -> &Metadata {
        &self.shared.metadata
    }

    /// Owns every task that works for it.
    pub fn tasks(&self) -> &TaskTracker {
        &self.shared.tasks
    }

    /// Stops every task that works for it.
    pub fn stop(&self) -> &CancellationToken {
        &self.shared.stop
    }

    /// Connections that are open now, for all purposes.
    pub fn connections(&self) -> usize {
        self.shared.pool.open_connections()
    }

    /// The live connection for that purpose; opened when there is none, in one attempt after
    /// the backoff that earlier failures left: calling in a loop does not spin.
    ///
    /// # Errors
    /// [`RequestError::Unreachable`] and [`RequestError::Stopped`].
    pub async fn connection(
        &self,
        broker: BrokerId,
        purpose: ConnectionPurpose,
    ) -> Result<Connection, RequestError> {
        let endpoint = self.endpoint(broker).await?;
        self.open(&endpoint, purpose).await
    }

    /// Sends a request on that connection in the newest common version, which `build` is given.
    /// Sends it again if a connection was lost before anything of it was written.
    ///
    /// # Errors
    /// Any [`RequestError`].
    pub async fn call<A: Api>(
        &self,
        broker: BrokerId,
        purpose: ConnectionPurpose,
        build: impl FnOnce(i16) -> A,
        timeout: Duration,
    ) -> Result<(i16, A::Response), RequestError> {
        let deadline = Instant::now() + timeout;
        let mut connection = self.connection(broker, purpose).await?;
        let version = connection.version::<A>()?;
        let request = build(version);
        loop {
            let sent = connection.send(version, &request, timeout).await;
            let result = match sent {
                Ok(reply) => reply.await,
                Err(error) => Err(error),
            };
            match result {
                Ok(response) => return Ok((version, response)),
                // It was closed, idle perhaps, between two requests.
                Err(error @ RequestError::Disconnected { sent: false, .. })
                    if Instant::now() < deadline =>
                {
                    connection = self.connection(broker, purpose).await?;
                    // The broker may have been upgraded in between.
                    if connection.version::<A>()? != version {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a request to whichever broker answers, on its control connection: known brokers
    /// first, the bootstrap addresses when none of them can be reached. A broker that hangs
    /// does not hold it up: the next one is asked as well after a second, and the first
    /// answer counts.
    ///
    /// # Errors
    /// That of the last broker that was tried.
    pub(crate) async fn call_any<A: Api>(
        &self,
        build: impl Fn(i16) -> A,
        timeout: Duration,
    ) -> Result<(i16, A::Response), RequestError> {
        let snapshot = self.metadata().snapshot();
        let mut known: Vec<BrokerAddress> = snapshot.brokers.iter().map(endpoint).collect();
        if !known.is_empty() {
            let first = self.shared.next_broker.fetch_add(1, Ordering::Relaxed) % known.len();
            known.rotate_left(first);
            // Those that are connected before those that may have to time out first.
            known.sort_by_key(|endpoint| {
                self.shared
                    .pool
                    .live(endpoint.id, ConnectionPurpose::Control)
                    .is_none()
            });
        }
        let mut error = None;
        let mut others = known.iter();
        let mut attempts = FuturesUnordered::new();
        loop {
            if attempts.is_empty() {
                let Some(endpoint) = others.next() else { break };
                attempts.push(self.call_endpoint(endpoint, &build, timeout));
            }
            tokio::select! {
                Some(result) = attempts.next() => match result {
                    Err(failed) if failed.is_retriable() => error = Some(failed),
                    result => return result,
                },
                () = sleep(ASK_NEXT_AFTER) => {
                    let next = others.next();
                    attempts.extend(next.map(|next| self.call_endpoint(next, &build, timeout)));
                }
            }
        }
        drop(attempts);
        if let Some(error) = error {
            tracing::debug!(%error, "no known broker answers: bootstrapping again");
        }
        self.call_bootstrap(build, timeout).await
    }

    /// Sends a request to the first of the bootstrap addresses that answers it.
    async fn call_bootstrap<A: Api>(
        &self,
        build: impl Fn(i16) -> A,
        timeout: Duration,
    ) -> Result<(i16, A::Response), RequestError> {
        let mut error = RequestError::Unreachable {
            broker: BrokerAddress {
                id: BrokerId(-1),
                address: "bootstrap.servers".into(),
            },
            reason: "it names no broker".into(),
        };
        for (at, address) in self.shared.config.bootstrap_servers.iter().enumerate() {
            // As Java numbers them: -1, -2, …
            let id = BrokerId(-1 - i32::try_from(at).unwrap_or(i32::MAX - 1));
            let endpoint = BrokerAddress {
                id,
                address: address.as_str().into(),
            };
            let result = self.call_endpoint(&endpoint, &build, timeout).await;
            // The broker behind it is reached by its own id from now on.
            self.shared.pool.release(id, ConnectionPurpose::Control);
            match result {
                Err(failed) if failed.is_retriable() => error = failed,
                result => return result,
            }
        }
        Err(error)
    }

    /// Completes when a broker's connection was lost since the last time.
    async fn connection_lost(&self) {
        self.shared.pool.connection_lost().await;
    }

    /// A connection that nobody else uses until it is dropped, for JoinGroup and
    /// SyncGroup, which park on the broker. Their number is bounded by groups: members of
    /// one group never wait for each other here.
    ///
    /// # Errors
    /// [`RequestError::Unreachable`] and [`RequestError::Stopped`].
    pub(crate) async fn join_connection(
        &self,
        broker: BrokerId,
        group: &str,
    ) -> Result<JoinConnection, RequestError> {
        let endpoint = self.endpoint(broker).await?;
        let result = self.shared.pool.join_connection(&endpoint, group).await;
        self.request_update_if_unreachable(result)
    }

    /// Waits until one more OffsetCommit may be sent to that broker. Cancel-safe.
    pub(crate) async fn commit_permit(&self, broker: BrokerId) -> CommitPermit {
        self.shared.pool.commit_permit(broker).await
    }

    async fn call_endpoint<A: Api>(
        &self,
        endpoint: &BrokerAddress,
        build: impl Fn(i16) -> A,
        timeout: Duration,
    ) -> Result<(i16, A::Response), RequestError> {
        let connection = self
            .shared
            .pool
            .connection(endpoint, ConnectionPurpose::Control)
            .await?;
        connection.call(build, timeout).await
    }

    async fn open(
        &self,
        endpoint: &BrokerAddress,
        purpose: ConnectionPurpose,
    ) -> Result<Connection, RequestError> {
        let result = self.shared.pool.connection(endpoint, purpose).await;
        self.request_update_if_unreachable(result)
    }

    /// Requests new metadata after a failure to connect: the broker may have moved, or be
    /// gone.
    fn request_update_if_unreachable<T>(
        &self,
        result: Result<T, RequestError>,
    ) -> Result<T, RequestError> {
        if matches!(result, Err(RequestError::Unreachable { .. })) {
            self.metadata().request_update();
        }
        result
    }

    /// Where a broker listens. One that the cluster does not list (any more) is an error
    /// after a wait, as one that does not answer is: who tries again does not spin.
    async fn endpoint(&self, broker: BrokerId) -> Result<BrokerAddress, RequestError> {
        if let Some(known) = self.metadata().snapshot().broker(broker) {
            return Ok(endpoint(known));
        }
        self.metadata().request_update();
        sleep(self.config().reconnect_backoff).await;
        Err(RequestError::Unreachable {
            broker: BrokerAddress {
                id: broker,
                address: "address unknown".into(),
            },
            reason: "the cluster does not list it".into(),
        })
    }
}

fn endpoint(broker: &BrokerNode) -> BrokerAddress {
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

#[cfg(test)]
mod tests;
