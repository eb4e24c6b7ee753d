//! The open sockets of all nodes, as operators list and close them.
//!
//! A socket of this node is closed at once, whatever the log does. That of another is asked for in
//! the log, and waited for until its node has released it.

use std::sync::Arc;
use std::time::Duration;

use runtime::mutex::lock;
use tokio::time::{Instant, timeout_at};

use super::Sessions;
use super::node::SessionNode;
use super::place_claim::{PlaceClaim, SocketRole};
use super::place_id::PlaceId;
use crate::state_log::LogTrouble;

/// How long a socket may take to close: its last acks and commits, and a round trip each way.
const EVICTION_TIMEOUT: Duration = Duration::from_secs(10);

/// An open socket, of whatever node.
#[derive(Clone, Debug)]
pub(crate) struct OpenSocket {
    /// The server id of its node.
    pub(crate) node: Arc<str>,
    claim: Arc<PlaceClaim>,
}

/// Which sockets are meant, of all users and nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SocketSelector {
    /// The consuming one of a client in a group.
    Member {
        /// The group.
        group_id: String,
        /// The client.
        client_id: String,
    },
    /// The producing ones of a client.
    Producer {
        /// The client.
        client_id: String,
        /// Of that instance alone.
        instance_id: Option<String>,
    },
}

/// Why sockets are not known to be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EvictionError {
    /// No node has one.
    #[error("no such socket is open on any node")]
    NotFound,
    /// Their nodes were asked.
    #[error("not closed in time at {nodes}; a node that does not answer may have died")]
    Unanswered {
        /// The server ids of these nodes.
        nodes: String,
    },
    /// Their nodes cannot be asked, or are not known.
    #[error("the sockets of other nodes cannot be reached now: {reason}")]
    Unavailable {
        /// What is wrong, without names of brokers.
        reason: String,
        /// For operators.
        detail: String,
    },
}

impl OpenSocket {
    fn of((node, id, claim): (Arc<str>, PlaceId, &Arc<PlaceClaim>)) -> (PlaceId, Self) {
        let claim = Arc::clone(claim);
        (id, Self { node, claim })
    }

    /// `in` or `out`
    pub(crate) fn endpoint(&self) -> &'static str {
        match self.claim.role {
            SocketRole::Member { .. } => "out",
            SocketRole::Producer { .. } => "in",
        }
    }

    /// `clientId`
    pub(crate) fn client_id(&self) -> Option<&str> {
        self.claim.client_id().map(|id| &**id)
    }

    /// The group of a consuming one.
    pub(crate) fn group_id(&self) -> Option<&str> {
        match &self.claim.role {
            SocketRole::Member { group_id, .. } => Some(group_id),
            SocketRole::Producer { .. } => None,
        }
    }

    /// `instanceId` of a producing one.
    pub(crate) fn instance_id(&self) -> Option<&str> {
        match &self.claim.role {
            SocketRole::Member { .. } => None,
            SocketRole::Producer { instance_id, .. } => instance_id.as_deref(),
        }
    }

    /// What it reads, or writes to.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &str> {
        self.claim.topics.iter().map(|(topic, _)| &**topic)
    }

    /// When it was opened, in milliseconds of the epoch.
    pub(crate) fn since(&self) -> u64 {
        self.claim.since
    }

    /// The Kafka user whose it is.
    pub(crate) fn principal(&self) -> Option<&str> {
        self.claim.principal.as_deref()
    }
}

impl SocketSelector {
    fn selects(&self, claim: &PlaceClaim) -> bool {
        match (self, &claim.role) {
            (
                Self::Member {
                    group_id,
                    client_id,
                },
                SocketRole::Member {
                    group_id: group,
                    client_id: client,
                },
            ) => **group == **group_id && **client == **client_id,
            (
                Self::Producer {
                    client_id,
                    instance_id,
                },
                SocketRole::Producer {
                    client_id: client,
                    instance_id: instance,
                    ..
                },
            ) => {
                let same_instance =
                    instance_id.is_none() || instance.as_deref() == instance_id.as_deref();
                client.as_deref() == Some(client_id) && same_instance
            }
            _ => false,
        }
    }
}

/// Sockets that were asked to close.
struct AskedSockets {
    sessions: Sessions,
    sockets: Vec<(PlaceId, OpenSocket)>,
}

impl AskedSockets {
    /// Waits until all are closed; the nodes that have not done it in time. A socket of this node
    /// closes in any case.
    async fn closed(&self) -> Vec<Arc<str>> {
        let deadline = Instant::now() + EVICTION_TIMEOUT;
        loop {
            let freed = self.sessions.shared.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.nodes_of(|_, _| true).is_empty() {
                return Vec::new();
            }
            if timeout_at(deadline, freed).await.is_err() {
                return self.nodes_of(|node, id| !node.is_own(id));
            }
        }
    }

    /// The nodes of those that are open still.
    fn nodes_of(&self, of: impl Fn(&SessionNode, PlaceId) -> bool) -> Vec<Arc<str>> {
        let node = &lock(&self.sessions.shared.state).node;
        let open = self.sockets.iter();
        let open = open.filter(|(id, _)| node.is_had(*id) && of(node, *id));
        let mut nodes: Vec<_> = open.map(|(_, socket)| Arc::clone(&socket.node)).collect();
        nodes.dedup();
        nodes
    }
}

impl Drop for AskedSockets {
    fn drop(&mut self) {
        self.sessions.shared.with_node(|node| {
            let now = Instant::now();
            for (id, _) in &self.sockets {
                node.end_eviction(*id, now);
            }
        });
    }
}

impl Sessions {
    /// The open sockets of all nodes: those of this one as they are, those of others as they have
    /// said of late.
    ///
    /// # Errors
    /// [`EvictionError::Unavailable`] while those of the others are not known.
    pub(crate) fn open_sockets(&self) -> Result<Vec<OpenSocket>, EvictionError> {
        let state = lock(&self.shared.state);
        if !state.node.is_member() {
            drop(state);
            return Err(self.not_known());
        }
        let sockets = state.node.sockets().map(OpenSocket::of);
        Ok(sockets.map(|(_, socket)| socket).collect())
    }

    /// Closes the sockets that are meant, and waits until they are; which those were.
    ///
    /// # Errors
    /// No such socket is known, or a node has not closed its own.
    pub(crate) async fn evict(
        &self,
        selector: &SocketSelector,
    ) -> Result<Vec<OpenSocket>, EvictionError> {
        let (asked, trouble) = self.begin_eviction(selector);
        if asked.sockets.is_empty() && trouble.is_none() {
            return Err(match lock(&self.shared.state).node.is_member() {
                true => EvictionError::NotFound,
                false => self.not_known(),
            });
        }
        let silent = asked.closed().await;
        if !silent.is_empty() {
            let nodes = silent.join(", ");
            return Err(EvictionError::Unanswered { nodes });
        }
        match trouble {
            Some(trouble) => Err(self.unreachable(trouble)),
            None => {
                let closed = asked.sockets.iter();
                Ok(closed.map(|(_, socket)| socket.clone()).collect())
            }
        }
    }

    /// Those that are asked to close, and why others cannot be.
    fn begin_eviction(&self, selector: &SocketSelector) -> (AskedSockets, Option<LogTrouble>) {
        let (sockets, trouble) = self.shared.with_node(|node| {
            let open = node.sockets();
            let meant: Vec<_> = open
                .filter(|(_, _, claim)| selector.selects(claim))
                .map(OpenSocket::of)
                .collect();
            let (mut asked, mut trouble) = (Vec::new(), None);
            for (id, socket) in meant {
                match node.evict(id, Instant::now()) {
                    Ok(()) => asked.push((id, socket)),
                    Err(error) => trouble = Some(error),
                }
            }
            (asked, trouble)
        });
        let sessions = self.clone();
        (AskedSockets { sessions, sockets }, trouble)
    }

    fn not_known(&self) -> EvictionError {
        let trouble = self.shared.status.borrow().trouble.clone();
        let unknown = || LogTrouble::new("it is not loaded yet", "the brokers have not answered");
        self.unreachable(trouble.unwrap_or_else(unknown))
    }

    fn unreachable(&self, LogTrouble { what, detail }: LogTrouble) -> EvictionError {
        let topic = &self.shared.topic;
        EvictionError::Unavailable {
            reason: format!("session topic {topic}: {what}"),
            detail,
        }
    }
}
