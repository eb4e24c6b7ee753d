//! Opening one connection: every address that the name resolves to, until one answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

use super::Shared;
use crate::error::{Peer, RequestError};
use crate::net::api_versions;
use crate::net::connection::{Connection, Parts};
use crate::net::frame::FrameReader;
use crate::net::transport;
use crate::topic::BrokerId;

/// Where a broker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) id: BrokerId,
    /// `host:port`; an IPv6 address in brackets.
    pub(crate) address: Arc<str>,
}

impl Endpoint {
    pub(crate) fn peer(&self) -> Peer {
        Peer {
            id: self.id,
            address: Arc::clone(&self.address),
        }
    }
}

/// Resolves the name anew and tries its addresses in turn.
pub(super) async fn open(
    shared: &Shared,
    endpoint: &Endpoint,
    idle: Duration,
) -> Result<Connection, RequestError> {
    let unreachable = |reason: String| RequestError::Unreachable {
        peer: endpoint.peer(),
        reason: reason.into(),
    };
    let patience = shared.config.connect_timeout;
    let addresses: Vec<SocketAddr> = match timeout(patience, lookup_host(&*endpoint.address)).await
    {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => return Err(unreachable(format!("its name does not resolve: {error}"))),
        Err(_) => return Err(unreachable("its name was not resolved in time".to_owned())),
    };
    let mut reason = "its name resolves to no address".to_owned();
    for address in addresses {
        // Two waits of `patience`: for the network and for the broker behind it.
        reason = match timeout(patience, transport::connect(address)).await {
            Ok(Ok((reader, mut requests))) => {
                let mut responses = FrameReader::new(reader, shared.config.frame_limit);
                let negotiated =
                    api_versions::negotiate(&mut responses, &mut requests, &shared.client_id);
                match timeout(patience, negotiated).await {
                    Ok(Ok(versions)) => {
                        let parts = Parts {
                            peer: endpoint.peer(),
                            client_id: shared.client_id.clone(),
                            versions,
                            responses,
                            requests,
                            idle,
                            census: Arc::clone(&shared.census),
                            lost: Arc::clone(&shared.lost),
                        };
                        tracing::debug!(broker = %endpoint.peer(), %address, "connected");
                        return Ok(Connection::start(parts, &shared.tasks, &shared.stop));
                    }
                    Ok(Err(error)) => format!("{address}: {error}"),
                    Err(_) => format!("{address} said nothing for {patience:?}"),
                }
            }
            Ok(Err(error)) => format!("{address}: {error}"),
            Err(_) => format!("{address} did not accept within {patience:?}"),
        };
    }
    Err(unreachable(reason))
}
