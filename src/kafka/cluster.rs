//! One cluster, as one principal sees it: its metadata and the connections to its brokers.
//!
//! ```text
//! produce, fetch, group ─▶ Cluster ─┬▶ Metadata   who leads what, who listens where
//!                                   └▶ Pool       connections to each broker, by purpose
//! ```
//!
//! It can be used from the start, also while no broker is reachable: callers wait with
//! backoff, and [`Metadata::last_update_error`] says what is missing.

mod any_broker;
mod metadata_updater;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::any_broker::{AnyBroker, address_of};
use self::metadata_updater::MetadataUpdater;
use super::backoff::BACKOFF_MIN;
use super::config::{ClientConfig, RequestOverrides};
use super::error::{AuthenticationFault, BrokerAddress, RequestError};
use super::metadata::Metadata;
use super::principal::Principal;
use super::topic::BrokerId;
use crate::net::connection::Connection;
use crate::net::pool::{CommitPermit, ConnectionPurpose, JoinConnection, Pool};
use crate::protocol::versions::Api;
use crate::sasl::UserSasl;
use crate::security::UsersUnsupported;

/// A handle to one cluster as one principal. Clones share everything.
#[derive(Clone, Debug)]
pub struct Cluster {
    shared: Arc<ClusterShared>,
    /// What requests by this handle are configured with.
    config: Arc<ClientConfig>,
}

#[derive(Debug)]
struct ClusterShared {
    config: Arc<ClientConfig>,
    principal: Principal,
    /// What the proxy itself sees of the cluster, if it is a user's here.
    seen_by_proxy: Option<Metadata>,
    tasks: TaskTracker,
    stop: CancellationToken,
    metadata: Metadata,
    pool: Arc<Pool>,
    any_broker: Arc<AnyBroker>,
}

impl Cluster {
    /// Returns at once; connects and asks for metadata in the background until `stop`.
    pub fn new(
        config: ClientConfig,
        principal: Principal,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self::start(config, principal, None, tasks, stop)
    }

    /// The same cluster as a user sees it, over connections of the user's own.
    ///
    /// # Errors
    /// [`UsersUnsupported`]
    pub(crate) fn for_user(
        &self,
        name: &str,
        sasl: UserSasl,
        stop: CancellationToken,
    ) -> Result<Self, UsersUnsupported> {
        let own = &self.shared;
        let config = ClientConfig {
            security: own.config.security.for_user(sasl)?,
            ..ClientConfig::clone(&own.config)
        };
        let principal = Principal::User(name.into());
        let seen_by_proxy = Some(own.metadata.clone());
        let tasks = own.tasks.clone();
        Ok(Self::start(config, principal, seen_by_proxy, tasks, stop))
    }

    fn start(
        mut config: ClientConfig,
        principal: Principal,
        seen_by_proxy: Option<Metadata>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        config.retry_backoff = config.retry_backoff.max(BACKOFF_MIN);
        config.reconnect_backoff = config.reconnect_backoff.max(BACKOFF_MIN);
        let config = Arc::new(config);
        let metadata = Metadata::new(config.request_timeout);
        let pool = Arc::new(Pool::new(Arc::clone(&config), tasks.clone(), stop.clone()));
        let any_broker = Arc::new(AnyBroker::new(
            Arc::clone(&config),
            metadata.clone(),
            Arc::clone(&pool),
        ));
        let updater = MetadataUpdater::new(
            Arc::clone(&config),
            metadata.clone(),
            Arc::clone(&any_broker),
            principal.clone(),
        );
        let stopped = stop.clone().cancelled_owned();
        tasks.spawn(async move {
            tokio::select! {
                // First: a request that ends with the client is no failure.
                biased;
                () = stopped => {}
                () = updater.run() => {}
            }
        });
        let sasl = config.security.sasl.as_ref();
        if let Some(renewing) = sasl.and_then(|sasl| sasl.renewal()) {
            tasks.spawn(stop.clone().run_until_cancelled_owned(renewing));
        }
        // A user has few connections, and often not for long: no more than are needed.
        let learn_after = match principal {
            Principal::Proxy => Duration::ZERO,
            Principal::User(_) => config.metadata_max_age,
        };
        let learn = Arc::clone(&any_broker).learn_bootstrap_clusters();
        let learn = async move {
            sleep(learn_after).await;
            learn.await;
        };
        tasks.spawn(stop.clone().run_until_cancelled_owned(learn));
        Self {
            config: Arc::clone(&config),
            shared: Arc::new(ClusterShared {
                config,
                principal,
                seen_by_proxy,
                tasks,
                stop,
                metadata,
                pool,
                any_broker,
            }),
        }
    }

    /// A handle to the same cluster and its connections, whose requests have settings of their
    /// own. They override those of all clients, not those of this handle.
    pub(crate) fn with_requests(&self, requests: &RequestOverrides) -> Self {
        let mut config = ClientConfig::clone(&self.shared.config);
        config.request_timeout = requests.request_timeout.unwrap_or(config.request_timeout);
        let backoff = requests.retry_backoff.unwrap_or(config.retry_backoff);
        config.retry_backoff = backoff.max(BACKOFF_MIN);
        let backoff_max = requests.retry_backoff_max;
        config.retry_backoff_max = backoff_max.unwrap_or(config.retry_backoff_max);
        Self {
            shared: Arc::clone(&self.shared),
            config: Arc::new(config),
        }
    }

    /// What the requests and the connections are configured with.
    pub(crate) fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// Why brokers refused its credentials last, if they did, and each change of it.
    pub fn authentication_fault(&self) -> watch::Receiver<Option<AuthenticationFault>> {
        self.shared.pool.authentication_fault()
    }

    /// Who its connections run as.
    pub fn principal(&self) -> &Principal {
        &self.shared.principal
    }

    /// What is known of it.
    pub fn metadata(&self) -> &Metadata {
        &self.shared.metadata
    }

    /// What the proxy itself sees of it, if it is a user's here. For what the user's groups need
    /// that others are in, and nothing that the user is told.
    pub(crate) fn seen_by_proxy(&self) -> Option<&Metadata> {
        self.shared.seen_by_proxy.as_ref()
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
        let broker = self.address(broker).await?;
        let result = self.shared.pool.connection(&broker, purpose).await;
        self.request_update_if_unreachable(result)
    }

    /// Sends a request on that connection in the newest common version, which `build` is given.
    /// Sends it again if a connection was lost before anything of it was written. `timeout` is
    /// that of all attempts together, each from when it is queued to its response; connecting is not
    /// part of it.
    ///
    /// # Errors
    /// Any [`RequestError`]; [`TimedOut`](RequestError::TimedOut) after `timeout`.
    pub async fn call<A: Api>(
        &self,
        broker: BrokerId,
        purpose: ConnectionPurpose,
        build: impl FnOnce(i16) -> A,
        timeout: Duration,
    ) -> Result<(i16, A::Response), RequestError> {
        let mut left = timeout;
        let mut connection = self.connection(broker, purpose).await?;
        let version = connection.version::<A>()?;
        let request = build(version);
        loop {
            let began_at = Instant::now();
            let sent = connection.send(version, &request, left).await;
            let result = match sent {
                Ok(reply) => reply.await,
                Err(error) => Err(error),
            };
            match result {
                Ok(response) => return Ok((version, response)),
                // It was closed, idle perhaps, between two requests.
                Err(error @ RequestError::Disconnected { sent: false, .. })
                    if began_at.elapsed() < left =>
                {
                    left = left.saturating_sub(began_at.elapsed());
                    let cluster_id = connection.cluster_id().cloned();
                    connection = self.connection(broker, purpose).await?;
                    // What was asked of one cluster means something else to another.
                    if connection.cluster_id() != cluster_id.as_ref() {
                        return Err(error);
                    }
                    // The broker may have been upgraded in between.
                    if connection.version::<A>()? != version {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a request to whichever broker answers first, see [`AnyBroker::call`].
    ///
    /// # Errors
    /// That of the last broker that was tried.
    pub(crate) async fn call_any<A: Api>(
        &self,
        build: impl Fn(i16) -> A,
        timeout: Duration,
    ) -> Result<(i16, A::Response), RequestError> {
        self.shared.any_broker.call(build, timeout).await
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
        let broker = self.address(broker).await?;
        let result = self.shared.pool.join_connection(&broker, group).await;
        self.request_update_if_unreachable(result)
    }

    /// Waits until one more OffsetCommit may be sent to that broker. Cancel-safe.
    pub(crate) async fn commit_permit(&self, broker: BrokerId) -> CommitPermit {
        self.shared.pool.commit_permit(broker).await
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
    async fn address(&self, broker: BrokerId) -> Result<BrokerAddress, RequestError> {
        if let Some(known) = self.metadata().snapshot().broker(broker) {
            return Ok(address_of(known));
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

#[cfg(test)]
mod tests;
