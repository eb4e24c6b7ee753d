//! Opening one connection: every address that the name resolves to, until one answers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::protocol::StrBytes;
use tokio::net::lookup_host;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::ClientConfig;
use crate::error::{AuthenticationFault, BrokerAddress, RequestError};
use crate::metrics::CountedConnection;
use crate::net::api_versions;
use crate::net::authentication::{self, AuthenticationAttempts, keep_authenticated, renew_at};
use crate::net::cluster_check;
use crate::net::connection::{AuthenticationChannel, Connection, ConnectionParts};
use crate::net::current_cluster::CurrentCluster;
use crate::net::frame::FrameReader;
use crate::net::last_answer::LastAnswer;
use crate::net::transport::{self, describe};
use crate::sasl::SaslConfig;

/// Opens the connections of one pool, and counts them.
#[derive(Debug)]
pub(super) struct Dialer {
    pub(super) config: Arc<ClientConfig>,
    client_id: StrBytes,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    pub(super) cluster: CurrentCluster,
    /// A clone lives in every open connection.
    open_connections: Arc<()>,
    /// Notified when a connection was lost, rather than closed because it was idle.
    lost: Arc<Notify>,
    last_answer: Arc<LastAnswer>,
    attempts: Arc<AuthenticationAttempts>,
}

/// Why an address is of no use.
enum ConnectError {
    /// Another address may be.
    Unreachable(String),
    /// Another address would say the same.
    Refused(RequestError),
}

impl Dialer {
    pub(super) fn new(
        config: Arc<ClientConfig>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self {
            client_id: StrBytes::from_string(config.client_id.clone()),
            attempts: Arc::new(AuthenticationAttempts::new(
                config.reconnect_backoff,
                Arc::clone(&config.metrics.connections),
            )),
            config,
            tasks,
            cluster: CurrentCluster::new(&stop),
            stop,
            open_connections: Arc::new(()),
            lost: Arc::new(Notify::new()),
            last_answer: Arc::new(LastAnswer::new(Instant::now())),
        }
    }

    /// Connections that are open now.
    pub(super) fn open_connections(&self) -> usize {
        Arc::strong_count(&self.open_connections) - 1
    }

    /// Completes when a connection was lost since the last call.
    pub(super) async fn connection_lost(&self) {
        self.lost.notified().await;
    }

    /// When any broker answered last, on any connection.
    pub(super) fn last_answer(&self) -> Instant {
        self.last_answer.at()
    }

    /// Why authentication was refused last, if it was, and each change of it.
    pub(super) fn authentication_fault(&self) -> watch::Receiver<Option<AuthenticationFault>> {
        self.attempts.last_fault()
    }

    /// Resolves the name anew and tries its addresses in turn. The connection is counted as one
    /// for `purpose`.
    pub(super) async fn open(
        &self,
        broker: &BrokerAddress,
        max_idle: Duration,
        purpose: &'static str,
    ) -> Result<Connection, RequestError> {
        let unreachable = |reason: String| RequestError::Unreachable {
            broker: broker.clone(),
            reason: reason.into(),
        };
        let _turn = self.attempts.permit().await;
        let sasl = self.config.security.sasl.as_ref();
        if let Some(missing) = sasl.and_then(|sasl| sasl.missing()) {
            // Whatever was said would be refused.
            return Err(RequestError::AuthenticationFailed {
                broker: broker.clone(),
                fault: AuthenticationFault::NoToken(missing),
            });
        }
        let connect_timeout = self.config.connect_timeout;
        let addresses: Vec<SocketAddr> =
            match timeout(connect_timeout, lookup_host(&*broker.address)).await {
                Ok(Ok(addresses)) => addresses.collect(),
                Ok(Err(error)) => {
                    return Err(unreachable(format!("its name does not resolve: {error}")));
                }
                Err(_) => return Err(unreachable("its name was not resolved in time".to_owned())),
            };
        let mut reason = "its name resolves to no address".to_owned();
        for address in addresses {
            match self.connect(broker, address, (max_idle, purpose)).await {
                Ok(connection) => return Ok(connection),
                Err(ConnectError::Unreachable(error)) => reason = error,
                Err(ConnectError::Refused(error)) => return Err(error),
            }
        }
        Err(unreachable(reason))
    }

    /// Waits of `connect_timeout` each: for the network and TLS, for the broker, for each step of
    /// authentication, and for the id of its cluster, unless it is a bootstrap address (its broker
    /// id is negative).
    async fn connect(
        &self,
        broker: &BrokerAddress,
        address: SocketAddr,
        (max_idle, purpose): (Duration, &'static str),
    ) -> Result<Connection, ConnectError> {
        let unreachable = |reason| ConnectError::Unreachable(format!("{address}{reason}"));
        let failed = |error: &io::Error| unreachable(format!(": {}", describe(error)));
        let connect_timeout = self.config.connect_timeout;
        let seconds = connect_timeout.as_secs_f64();
        let security = &self.config.security;
        let cluster = self.cluster.current();
        let connecting = transport::connect(address, &broker.address, security.tls.as_ref());
        let (reader, mut requests) = match timeout(connect_timeout, connecting).await {
            Ok(Ok(halves)) => halves,
            Ok(Err(error)) => return Err(failed(&error)),
            Err(_) => return Err(unreachable(format!(" did not accept within {seconds} s"))),
        };
        let mut responses = FrameReader::new(reader, self.config.receive_message_max_bytes);
        let negotiated = api_versions::negotiate(&mut responses, &mut requests, &self.client_id);
        let versions = match timeout(connect_timeout, negotiated).await {
            Ok(Ok(versions)) => versions,
            Ok(Err(error)) => return Err(failed(&error)),
            Err(_) => return Err(unreachable(format!(" said nothing for {seconds} s"))),
        };
        let parts = ConnectionParts {
            broker: broker.clone(),
            cluster,
            client_id: self.client_id.clone(),
            versions,
            responses,
            requests,
            max_idle,
            open_connections: (
                Arc::clone(&self.open_connections),
                CountedConnection::new(&self.config.metrics.connections, purpose),
            ),
            requests_metrics: Arc::clone(&self.config.metrics.requests),
            lost: Arc::clone(&self.lost),
            last_answer: Arc::clone(&self.last_answer),
        };
        let authenticates = security.sasl.is_some();
        let (connection, channel) =
            Connection::start(parts, authenticates, &self.tasks, &self.stop);
        if let (Some(sasl), Some(channel)) = (&security.sasl, channel)
            && let Err(error) = self.authenticate(channel, sasl).await
        {
            connection.close("it was not authenticated");
            return Err(match error {
                RequestError::AuthenticationFailed { .. } => ConnectError::Refused(error),
                error => unreachable(format!(": {error}")),
            });
        }
        if broker.id.0 >= 0
            && let Err(error) = cluster_check::verify(&connection, connect_timeout).await
        {
            connection.close("its cluster was not confirmed");
            return Err(unreachable(format!(": {error}")));
        }
        tracing::debug!(broker = %broker.clone(), %address, "connected");
        Ok(connection)
    }

    /// Authenticates a connection that has just begun, and whenever the broker wants it again.
    async fn authenticate(
        &self,
        channel: AuthenticationChannel,
        sasl: &Arc<SaslConfig>,
    ) -> Result<(), RequestError> {
        let timeout = self.config.connect_timeout;
        let result = authentication::authenticate(&channel, sasl, timeout).await;
        self.attempts.note(&result);
        let renew_at = result?.map(|lifetime| renew_at(Instant::now(), lifetime));
        channel.authenticated(renew_at).await;
        if renew_at.is_some() {
            let (sasl, attempts) = (Arc::clone(sasl), Arc::clone(&self.attempts));
            let timeout = self.config.request_timeout;
            self.tasks.spawn(async move {
                keep_authenticated(channel, &sasl, timeout, &attempts).await;
            });
        }
        Ok(())
    }
}
