//! Requests that any broker can answer: Metadata, FindCoordinator, InitProducerId.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

use crate::config::ClientConfig;
use crate::error::{BrokerAddress, RequestError};
use crate::metadata::{BrokerNode, Metadata};
use crate::net::pool::{ConnectionPurpose, Pool};
use crate::protocol::versions::Api;
use crate::topic::BrokerId;

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
}

impl AnyBroker {
    pub(super) fn new(config: Arc<ClientConfig>, metadata: Metadata, pool: Arc<Pool>) -> Self {
        Self {
            config,
            metadata,
            pool,
            next_broker: AtomicUsize::new(0),
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
        let mut error = None;
        let mut others = known.iter();
        let mut attempts = FuturesUnordered::new();
        loop {
            if attempts.is_empty() {
                let Some(broker) = others.next() else { break };
                attempts.push(self.call_broker(broker, &build, timeout));
            }
            tokio::select! {
                Some(result) = attempts.next() => match result {
                    Err(failed) if failed.is_retriable() => error = Some(failed),
                    result => return result,
                },
                () = sleep(ASK_NEXT_AFTER) => {
                    let next = others.next();
                    attempts.extend(next.map(|next| self.call_broker(next, &build, timeout)));
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
    pub(super) async fn call_bootstrap<A: Api>(
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
        for (at, address) in self.config.bootstrap_servers.iter().enumerate() {
            // As Java numbers them: -1, -2, …
            let id = BrokerId(-1 - i32::try_from(at).unwrap_or(i32::MAX - 1));
            let broker = BrokerAddress {
                id,
                address: address.as_str().into(),
            };
            let result = self.call_broker(&broker, &build, timeout).await;
            // The broker at that address is reached by its own id from now on.
            self.pool.release(id, ConnectionPurpose::Control);
            match result {
                Err(failed) if failed.is_retriable() => error = failed,
                result => return result,
            }
        }
        Err(error)
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
        let connection = self
            .pool
            .connection(broker, ConnectionPurpose::Control)
            .await?;
        connection.call(build, timeout).await
    }
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
