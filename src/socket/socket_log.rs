//! Two lines of the log for each socket: that it opened, and that it closed, with what it did. The
//! metrics count the same.
//!
//! Their target is `kafka_websocket_proxy::sockets`, so that `log.level` can leave them out:
//! `info,kafka_websocket_proxy::sockets=warn`.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::{info, warn};

use super::close::CloseReason;
use super::peer::ClientAddress;
use crate::log::SOCKET_LINES;
use crate::metrics::sockets::{NO_CLOSE_FRAME, SocketMetrics};
use kafka_client::Principal;
use kafka_client::consumer::TopicPartition;

/// Who a socket is for.
#[derive(Clone, Debug)]
pub(super) struct SocketIdentity {
    /// `/socket/in` or `/socket/out`.
    pub(super) endpoint: &'static str,
    /// `clientId`
    pub(super) client_id: Option<Arc<str>>,
    /// The consumer group.
    pub(super) group: Option<Arc<str>>,
    /// Where it connected from.
    pub(super) peer: Option<ClientAddress>,
    /// As whom it talks to the cluster.
    pub(super) principal: Principal,
}

/// Writes an open socket's lines.
#[derive(Debug)]
pub(super) struct SocketLog {
    identity: SocketIdentity,
    metrics: Arc<SocketMetrics>,
    opened_at: Instant,
    is_closed: bool,
}

macro_rules! socket_line {
    ($identity:expr, $($rest:tt)+) => {{
        let SocketIdentity { endpoint, client_id, group, peer, principal } = $identity;
        let peer = peer.map(tracing::field::display);
        info!(
            target: SOCKET_LINES,
            endpoint,
            client = client_id.as_deref(),
            group = group.as_deref(),
            peer,
            %principal,
            $($rest)+
        );
    }};
}

impl SocketLog {
    /// The socket is open.
    pub(super) fn open(identity: SocketIdentity, metrics: Arc<SocketMetrics>) -> Self {
        metrics.endpoint(identity.endpoint).socket_opened();
        socket_line!(&identity, "socket opened");
        Self {
            identity,
            metrics,
            opened_at: Instant::now(),
            is_closed: false,
        }
    }

    /// The socket is closed, after that many records.
    pub(super) fn close(mut self, reason: &CloseReason, records: u64) {
        self.is_closed = true;
        let endpoint = self.metrics.endpoint(self.identity.endpoint);
        endpoint.socket_closed(reason.code());
        let seconds = self.opened_at.elapsed().as_secs_f64();
        socket_line!(&self.identity, %reason, records, seconds, "socket closed");
    }

    /// Where the socket counts.
    pub(super) fn metrics(&self) -> &Arc<SocketMetrics> {
        &self.metrics
    }

    /// The group took these partitions from the socket, without asking.
    pub(super) fn partitions_lost(&self, partitions: &[TopicPartition]) {
        let SocketIdentity {
            client_id,
            group,
            peer,
            ..
        } = &self.identity;
        let named: Vec<_> = partitions
            .iter()
            .take(LOST_NAMED_MAX)
            .map(ToString::to_string)
            .collect();
        warn!(
            group = group.as_deref(),
            client = client_id.as_deref(),
            peer = peer.map(tracing::field::display),
            count = partitions.len(),
            partitions = named.join(","),
            "partitions were lost to the group: their records may be delivered twice"
        );
    }
}

/// So many of the partitions that were lost are named.
const LOST_NAMED_MAX: usize = 10;

impl Drop for SocketLog {
    fn drop(&mut self) {
        if !self.is_closed {
            let endpoint = self.metrics.endpoint(self.identity.endpoint);
            endpoint.socket_closed(NO_CLOSE_FRAME);
            let seconds = self.opened_at.elapsed().as_secs_f64();
            socket_line!(
                &self.identity,
                reason = "its task was ended",
                seconds,
                "socket closed"
            );
        }
    }
}
