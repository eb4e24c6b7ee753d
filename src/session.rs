//! Who is connected: the sockets of this process, and those of all nodes with the places of groups.
//!
//! ```text
//! upgrade ─ acquire_group_permit ┬▶ Sessions ─▶ SessionNode (pure) ◀─ clock: tick
//!         └ acquire_producer_… ──┤     │ Write            ▲ records, acknowledgements
//! admin ─ open_sockets, evict ───┘     └───▶ StateLog ────┴──▶ session topic ◀─▶ other nodes
//!                                            one task: topic, reader, writer
//! ```
//!
//! The topic is compacted and has one partition; its order decides. What is written to it stands
//! in [`record`], what it means in [`state`], and what a node does about it in [`node`].
//!
//! # Who may wait for whom
//! - A socket that is to be opened waits for its claim's place in the log: one round trip to the
//!   brokers, or until another node's client was pinged. After [`CLAIM_TIMEOUT`] it is answered
//!   503, and at once while the log is known not to answer. While the log is loaded it waits as
//!   long. While its group is full it waits a moment for a place to be freed at another node.
//! - A producing socket waits so if its client has a limit, or may be connected once. Any other
//!   waits for nothing: the log reads of it when it has been open for a while. A transactional one
//!   waits for a round trip, for a second at most.
//! - A socket that is open, or closes, waits for nothing here: a release is written when it can
//!   be.
//! - Who has a socket of another node closed waits until its node has released it, for some seconds
//!   at most.
//! - The log has connections, a producer and a fetcher of its own: no client's records hold it
//!   up.
//! - The clock waits for nothing: claims end in time whatever the brokers do.
//! - Queues are bounded by the sockets that are open, and by the nodes that there are.

mod admission;
mod node;
mod open_sockets;
mod place_claim;
mod place_id;
mod record;
pub(crate) mod registry;
mod shared;
pub(crate) mod socket_authentication;
mod state;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime::mutex::lock;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

pub(crate) use self::admission::AdmissionError;
use self::node::{
    CLAIM_TIMEOUT, ClaimOutcome, ClaimRefusal, NodeSettings, PROBE_TIMEOUT, SessionNode,
};
pub(crate) use self::open_sockets::{EvictionError, OpenSocket, SocketSelector};
pub(crate) use self::place_claim::InstanceSharing;
use self::place_claim::{PlaceClaim, SocketRole};
use self::registry::{SocketHandle, SocketSignal};
use self::shared::{PlacedSocket, PlacedSockets, SessionsShared};
use crate::config::Config;
use crate::state_log::{self, LogTrouble, StateLog, StateTopicKind};

/// How long a stop waits for the releases to be written.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a transactional socket waits for its turn in the log: a round trip, and not long.
const FENCE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a client that finds its group full waits for a place to be freed: one that was freed at
/// another node just now is read of a round trip later.
const FREED_TIMEOUT: Duration = Duration::from_millis(250);
/// The session topic. One that is not as it should be is a nuisance: nobody is kept out for it.
const SESSION_TOPIC: StateTopicKind = StateTopicKind {
    noun: "session topic",
    replication_key: "session-handler.session-state-replication-factor",
    is_strict: false,
};

/// The sessions, as this node takes part in them. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Sessions {
    shared: Arc<SessionsShared>,
}

/// Whose a producing socket is, and beside which others it may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProducerIdentity<'c> {
    /// `clientId`; who has none is a client of its own.
    pub(crate) client_id: Option<&'c str>,
    /// `instanceId`
    pub(crate) instance_id: Option<&'c str>,
    /// The Kafka user; none: it has no credentials of its own.
    pub(crate) principal: Option<&'c Arc<str>>,
    /// Beside which others of its instance.
    pub(crate) sharing: InstanceSharing,
    /// How many sockets the client may have; 0: any number.
    pub(crate) max_connections: u32,
}

/// An open socket's place: one of those that a group may have, or that of a producing socket;
/// released when dropped.
#[derive(Debug)]
pub(crate) struct PlacePermit {
    sessions: Sessions,
    number: u64,
    handle: Arc<SocketHandle>,
}

impl Sessions {
    /// Begins to take part: reads the log in the background, and writes a lease.
    pub(crate) fn start(config: &Config) -> Self {
        let sessions = Self::new(config);
        let shared = &sessions.shared;
        let (tasks, stop) = (&shared.tasks, &shared.stop);
        let lease = config.sessions.lease_duration;
        // A renewal that waits for a broker that does not answer is to be sent to the next leader
        // while the lease still holds.
        let patience = (lease / 3).max(Duration::from_millis(500));
        let timeouts = (patience, lease * 2 / 3);
        let client = state_log::client(config, timeouts, tasks.clone(), stop.clone());
        let mut settings = config.sessions.topic.clone();
        if config.dev {
            // The embedded broker is one, which is no reason to warn.
            settings.replication_factor = 1;
        }
        let (state, stopped) = (Arc::clone(shared), stop.clone());
        let log = StateLog::new(state, client, SESSION_TOPIC, settings, stopped);
        tasks.spawn(stop.clone().run_until_cancelled_owned(log.run()));
        let clock = Arc::clone(shared).run_clock();
        tasks.spawn(stop.clone().run_until_cancelled_owned(clock));
        sessions
    }

    /// Takes no part yet.
    fn new(config: &Config) -> Self {
        let settings = NodeSettings {
            server_id: config.server.server_id.as_str().into(),
            lease_duration: config.sessions.lease_duration,
            retention: config.sessions.topic.retention,
        };
        let random = RandomState::new().hash_one(std::process::id());
        let state = PlacedSockets {
            node: SessionNode::new(settings, random, Instant::now()),
            sockets: HashMap::new(),
            outbox: VecDeque::new(),
        };
        Self {
            shared: Arc::new(SessionsShared {
                state: Mutex::new(state),
                status: watch::Sender::default(),
                work: Notify::new(),
                answered: Notify::new(),
                freed: Notify::new(),
                topic: config.sessions.topic.name.as_str().into(),
                tasks: TaskTracker::new(),
                stop: CancellationToken::new(),
            }),
        }
    }

    /// Takes a permit of `group` for the socket of `handle`, which is of that Kafka user's client,
    /// or of one without credentials. `topics` are the client's, with their partition counts;
    /// `max_connections` sets another limit than these, or none (0).
    ///
    /// The places are those of the group, whoever its sockets belong to, as in Kafka.
    ///
    /// # Errors
    /// The client is connected and was asked, the group is full, or it is
    /// [not known](AdmissionError::Unavailable) after some seconds at most.
    pub(crate) async fn acquire_group_permit(
        &self,
        group: &str,
        (principal, client_id): (Option<&Arc<str>>, &str),
        (topics, max_connections): (&[(Arc<str>, usize)], u32),
        handle: &Arc<SocketHandle>,
    ) -> Result<PlacePermit, AdmissionError> {
        let role = SocketRole::Member {
            group_id: group.into(),
            client_id: client_id.into(),
        };
        let claim = PlaceClaim::new(role, principal, topics, max_connections);
        self.acquire(&claim.into(), handle).await
    }

    /// Takes a place for the producing socket of `handle`. One that may be beside any others is
    /// written some time later, and one that is transactional and has no limit is opened whatever
    /// the log does: neither is refused.
    ///
    /// # Errors
    /// The client has as many sockets as it may, or its instance is connected; both may be
    /// [not known](AdmissionError::Unavailable).
    pub(crate) async fn acquire_producer_permit(
        &self,
        producer: ProducerIdentity<'_>,
        topic: (Arc<str>, usize),
        handle: &Arc<SocketHandle>,
    ) -> Result<PlacePermit, AdmissionError> {
        let ProducerIdentity {
            client_id,
            instance_id,
            principal,
            sharing,
            max_connections,
        } = producer;
        let role = SocketRole::Producer {
            client_id: client_id.map(Arc::from),
            instance_id: instance_id.map(Arc::from),
            sharing,
        };
        let is_limited = max_connections > 0 && client_id.is_some();
        let claim = PlaceClaim::new(role, principal, &[topic], max_connections);
        let claim = Arc::new(claim);
        match sharing {
            InstanceSharing::Any if !is_limited => Ok(self.list(claim, handle)),
            InstanceSharing::Fencing if !is_limited => Ok(self.fence(claim, handle).await),
            _ => self.acquire(&claim, handle).await,
        }
    }

    /// Why no socket can be given a place; empty when all is well. `detailed`: with what names
    /// brokers.
    pub(crate) fn reasons_not_ready(&self, detailed: bool) -> Vec<String> {
        let mut reasons = Vec::new();
        let status = self.shared.status.borrow().clone();
        let topic = &self.shared.topic;
        let (trouble, duplicate) = {
            let state = lock(&self.shared.state);
            let trouble = state.node.trouble(Instant::now());
            (trouble, state.node.has_duplicate_server_id())
        };
        let with_detail = |LogTrouble { what, detail }: LogTrouble| match detailed {
            true => format!("{what}: {detail}"),
            false => what.to_owned(),
        };
        if let Some(trouble) = trouble.or_else(|| status.trouble.clone()) {
            let trouble = with_detail(trouble);
            reasons.push(format!("session topic {topic}: {trouble}"));
        }
        if !status.is_member {
            reasons.push("the session state is not loaded".to_owned());
        }
        if duplicate {
            reasons.push("another node has the same server.server-id".to_owned());
        }
        reasons
    }

    /// Leaves: what is released is written, if the log answers within some seconds. Then all that
    /// works here stops.
    pub(crate) async fn leave(&self) {
        self.shared.with_node(|node| node.leave(Instant::now()));
        let written = async {
            loop {
                let answered = self.shared.answered.notified();
                if self.has_written_all() {
                    return;
                }
                answered.await;
            }
        };
        if timeout(LEAVE_TIMEOUT, written).await.is_err() {
            info!("the sessions of this node could not be released; its lease ends them");
        }
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Sockets of this node that have a place, or claim one.
    pub(crate) fn placed_sockets(&self) -> usize {
        lock(&self.shared.state).sockets.len()
    }

    fn has_written_all(&self) -> bool {
        lock(&self.shared.state).node.has_written_all()
    }

    async fn acquire(
        &self,
        claim: &Arc<PlaceClaim>,
        handle: &Arc<SocketHandle>,
    ) -> Result<PlacePermit, AdmissionError> {
        let error = |outcome| self.admission_error(claim, outcome);
        let now = Instant::now();
        let (load_by, freed_by) = (now + CLAIM_TIMEOUT, now + FREED_TIMEOUT);
        loop {
            let freed = self.shared.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let refusal = match self.begin_claim(claim, handle) {
                Ok((permit, decided)) => {
                    let outcome = decided.await.unwrap_or(ClaimOutcome::Undecided);
                    return match outcome {
                        ClaimOutcome::Granted => Ok(permit),
                        refused => Err(error(refused)),
                    };
                }
                Err(refusal) => refusal,
            };
            match refusal {
                ClaimRefusal::NotLoaded => {
                    let known = self.until_member(load_by).await;
                    known.map_err(|trouble| self.unavailable(claim, trouble))?;
                }
                ClaimRefusal::HeldHere(holder) => {
                    if self.answers(holder).await {
                        return Err(error(ClaimOutcome::Duplicate));
                    }
                }
                ClaimRefusal::Full { full, may_be_freed } => {
                    if !may_be_freed || timeout_at(freed_by, freed).await.is_err() {
                        return Err(error(ClaimOutcome::Full(full)));
                    }
                }
                ClaimRefusal::Trouble(trouble) => return Err(self.unavailable(claim, trouble)),
            }
        }
    }

    /// Has every node list a socket, some time later.
    fn list(&self, claim: Arc<PlaceClaim>, handle: &Arc<SocketHandle>) -> PlacePermit {
        let mut state = lock(&self.shared.state);
        let number = state.node.list(claim, Instant::now());
        state.sockets.insert(number, PlacedSocket::new(handle));
        drop(state);
        self.permit(number, handle)
    }

    /// Opens a transactional socket, with a moment for the log to say that it is the youngest of
    /// its instance.
    async fn fence(&self, claim: Arc<PlaceClaim>, handle: &Arc<SocketHandle>) -> PlacePermit {
        let (decided, decision) = oneshot::channel();
        let (number, is_written) = {
            let mut state = lock(&self.shared.state);
            let (number, is_written) = state.node.claim_fencing(claim, Instant::now());
            let mut socket = PlacedSocket::new(handle);
            socket.decided = Some(decided).filter(|_| is_written);
            state.sockets.insert(number, socket);
            state.carry_out(&self.shared);
            (number, is_written)
        };
        let permit = self.permit(number, handle);
        if is_written {
            let _ = timeout(FENCE_TIMEOUT, decision).await;
        }
        permit
    }

    fn begin_claim(
        &self,
        claim: &Arc<PlaceClaim>,
        handle: &Arc<SocketHandle>,
    ) -> Result<(PlacePermit, oneshot::Receiver<ClaimOutcome>), ClaimRefusal> {
        let (decided, decision) = oneshot::channel();
        let number = {
            let mut state = lock(&self.shared.state);
            let number = state.node.claim(Arc::clone(claim), Instant::now())?;
            let mut socket = PlacedSocket::new(handle);
            socket.decided = Some(decided);
            state.sockets.insert(number, socket);
            state.carry_out(&self.shared);
            number
        };
        Ok((self.permit(number, handle), decision))
    }

    fn permit(&self, number: u64, handle: &Arc<SocketHandle>) -> PlacePermit {
        PlacePermit {
            sessions: self.clone(),
            number,
            handle: Arc::clone(handle),
        }
    }

    /// Waits until claims may be begun.
    async fn until_member(&self, by: Instant) -> Result<(), LogTrouble> {
        let mut status = self.shared.status.subscribe();
        let settled = status.wait_for(|status| status.is_member || status.trouble.is_some());
        let trouble = match timeout_at(by, settled).await {
            Ok(Ok(status)) if status.is_member => return Ok(()),
            Ok(Ok(status)) => status.trouble.clone(),
            _ => None,
        };
        Err(trouble.unwrap_or_else(|| LogTrouble {
            what: "it is not loaded yet",
            detail: "the brokers have not answered in time".to_owned(),
        }))
    }

    /// Whether the client of that socket of this node answers; if not, the socket is evicted.
    async fn answers(&self, holder: u64) -> bool {
        let handle = {
            let state = lock(&self.shared.state);
            match state.sockets.get(&holder) {
                Some(socket) => Arc::clone(&socket.handle),
                None => return false,
            }
        };
        let (alive, released) = (handle.client_alive.notified(), handle.released.notified());
        tokio::pin!(alive, released);
        alive.as_mut().enable();
        released.as_mut().enable();
        // It may have been released before we listened.
        if !lock(&self.shared.state).sockets.contains_key(&holder) {
            return false;
        }
        handle.send_signal(SocketSignal::Probe);
        tokio::select! {
            biased;
            () = released => false,
            () = alive => true,
            () = sleep(PROBE_TIMEOUT) => {
                handle.send_signal(SocketSignal::Evict);
                self.shared.release(holder, &handle);
                false
            }
        }
    }

    fn unavailable(&self, claim: &PlaceClaim, trouble: LogTrouble) -> AdmissionError {
        AdmissionError::unavailable(claim, &self.shared.topic, trouble)
    }

    fn admission_error(&self, claim: &PlaceClaim, outcome: ClaimOutcome) -> AdmissionError {
        let not_read =
            || LogTrouble::new("it did not answer in time", "the claim was not read back");
        match outcome {
            ClaimOutcome::Duplicate => AdmissionError::duplicate(claim),
            ClaimOutcome::Full(full) => AdmissionError::full(claim, full),
            ClaimOutcome::HolderSilent => AdmissionError::holder_silent(claim),
            ClaimOutcome::Granted | ClaimOutcome::Undecided => self.unavailable(claim, not_read()),
        }
    }
}

impl PlacePermit {
    /// Frees the place before the socket has ended: its client may connect again, and another may
    /// have the place.
    pub(crate) fn release(&self) {
        self.sessions.shared.release(self.number, &self.handle);
    }
}

impl Drop for PlacePermit {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests;
