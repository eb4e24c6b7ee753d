//! The connections of one principal to one cluster: by broker, and by what blocks.
//!
//! A broker serves a connection's requests one at a time: a long-poll fetch or a parked
//! JoinGroup holds up everything that is queued after it. So each purpose has a connection of its
//! own.
//!
//! ```text
//!             ┌ Control        Metadata, ListOffsets, …
//!             ├ Produce        one ordered stream
//!  broker 1 ──┼ Tail(i)        long-poll fetches, one session
//!             ├ CatchUp(k)     fetches that do not wait
//!             ├ Heartbeat      Heartbeat and nothing else
//!             ├ Coordinator    OffsetFetch
//!             ├ Commit(k)      OffsetCommit, a few at a time: `commit_limiter`
//!             ├ LeaveGroup     LeaveGroup
//!             ├ Admin          what operators ask about groups, and change of them
//!             ├ TransactionalProduce(k)    Produce of transactions
//!             ├ TransactionCoordinator(k)  InitProducerId, AddPartitionsToTxn, EndTxn
//!             └ join           JoinGroup and SyncGroup, one per member: `join_limiter`
//! ```
//!
//! OffsetCommit, LeaveGroup, JoinGroup and SyncGroup are answered when the followers of
//! `__consumer_offsets` have them, which takes `offsets.commit.timeout.ms` when one of them is
//! away. What is answered at once never shares a connection with them.
//!
//! # Invariants
//! - Heartbeats wait for other heartbeats only.
//! - Every connection to a broker leads to the cluster of the metadata: see `current_cluster`.
//! - A purpose has at most one live connection per broker, and at most one attempt to open it.
//! - An attempt goes on when its callers are cancelled.

mod commit_limiter;
mod dialer;
mod join_limiter;
mod reconnect_backoff;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use runtime::mutex::lock;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::commit_limiter::CommitLimiters;
pub(crate) use self::commit_limiter::CommitPermit;
use self::dialer::Dialer;
pub(crate) use self::join_limiter::JoinConnection;
use self::join_limiter::JoinLimiters;
use self::reconnect_backoff::ReconnectBackoff;
use super::connection::Connection;
use super::current_cluster::CurrentCluster;
use crate::IsolationLevel;
use crate::config::ClientConfig;
use crate::error::{AuthenticationFault, BrokerAddress, RequestError};
use crate::topic::BrokerId;

/// What a connection is for: requests that may wait for each other share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionPurpose {
    /// Requests that are answered at once: Metadata, FindCoordinator, ListOffsets, topics.
    Control,
    /// Produce requests of the idempotent producer: one ordered stream.
    Produce,
    /// Long-poll fetches in one fetch session.
    Tail(IsolationLevel),
    /// Fetches that return at once, over one of several connections.
    CatchUp(u8),
    /// Heartbeats of all group members that this broker coordinates, which are answered at once.
    Heartbeat,
    /// Other requests to a coordinator that are answered at once: OffsetFetch.
    Coordinator,
    /// Offset commits, which wait for replication, over one of several connections.
    Commit(u8),
    /// LeaveGroup, which waits for replication.
    LeaveGroup,
    /// Requests about whole groups for operators: large answers, and changes that wait for
    /// replication.
    Admin,
    /// Produce requests of transactional producers, which share a few connections: one request
    /// holds the records of one of them, and waits for replication.
    TransactionalProduce(u8),
    /// What transactional producers ask of their coordinators, which waits for replication, over
    /// one of several connections.
    TransactionCoordinator(u8),
}

impl ConnectionPurpose {
    /// As it is called in metrics.
    fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Produce => "produce",
            Self::Tail(_) => "tail",
            Self::CatchUp(_) => "catch_up",
            Self::Heartbeat => "heartbeat",
            Self::Coordinator => "coordinator",
            Self::Commit(_) => "commit",
            Self::LeaveGroup => "leave_group",
            Self::Admin => "admin",
            Self::TransactionalProduce(_) => "transactional_produce",
            Self::TransactionCoordinator(_) => "transaction_coordinator",
        }
    }
}

/// The connections of one principal to the brokers of one cluster, and what limits them.
#[derive(Debug)]
pub(crate) struct Pool {
    dialer: Arc<Dialer>,
    slots: Mutex<HashMap<(BrokerId, ConnectionPurpose), Arc<PoolSlot>>>,
    join_limiters: JoinLimiters,
    commit_limiters: CommitLimiters,
}

impl Pool {
    pub(crate) fn new(
        config: Arc<ClientConfig>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let dialer = Arc::new(Dialer::new(config, tasks, stop));
        Self {
            join_limiters: JoinLimiters::new(Arc::clone(&dialer)),
            commit_limiters: CommitLimiters::default(),
            dialer,
            slots: Mutex::default(),
        }
    }

    /// Connections that are open now.
    pub(crate) fn open_connections(&self) -> usize {
        self.dialer.open_connections()
    }

    /// The cluster that its connections lead to.
    pub(crate) fn cluster(&self) -> &CurrentCluster {
        &self.dialer.cluster
    }

    /// Completes when a broker's connection was lost since the last call.
    pub(crate) async fn connection_lost(&self) {
        self.dialer.connection_lost().await;
    }

    /// Why authentication was refused last, if it was, and each change of it.
    pub(crate) fn authentication_fault(&self) -> watch::Receiver<Option<AuthenticationFault>> {
        self.dialer.authentication_fault()
    }

    /// When any broker answered last, on any connection.
    pub(crate) fn last_answer(&self) -> Instant {
        self.dialer.last_answer()
    }

    /// The live connection for that purpose, if there is one. Opens nothing.
    pub(crate) fn live(&self, broker: BrokerId, purpose: ConnectionPurpose) -> Option<Connection> {
        let slot = lock(&self.slots).get(&(broker, purpose)).cloned()?;
        let state = slot.state.borrow();
        match &*state {
            SlotState::Open(connection) if !connection.is_closed() => Some(connection.clone()),
            _ => None,
        }
    }

    /// The live connection for that purpose; opens one if there is none, or if the broker's
    /// address has changed. One attempt, after the backoff that earlier failures left.
    pub(crate) async fn connection(
        &self,
        broker: &BrokerAddress,
        purpose: ConnectionPurpose,
    ) -> Result<Connection, RequestError> {
        let slot = Arc::clone(
            lock(&self.slots)
                .entry((broker.id, purpose))
                .or_insert_with(|| Arc::new(PoolSlot::new(&self.dialer.config))),
        );
        let mut state = slot.state.subscribe();
        if slot.try_start_opening(broker) {
            let (slot, dialer, broker) =
                (Arc::clone(&slot), Arc::clone(&self.dialer), broker.clone());
            self.dialer
                .tasks
                .spawn(async move { slot.open(&dialer, &broker, purpose).await });
        }
        let opened = state
            .wait_for(|state| !matches!(state, SlotState::Opening))
            .await
            .map_err(|_| RequestError::Stopped)?;
        match &*opened {
            SlotState::Open(connection) => Ok(connection.clone()),
            SlotState::Failed(error) => Err(error.clone()),
            SlotState::Closed | SlotState::Opening => Err(RequestError::Stopped),
        }
    }

    /// A connection for a member's JoinGroup and SyncGroup; waits while too many groups join.
    pub(crate) async fn join_connection(
        &self,
        broker: &BrokerAddress,
        group: &str,
    ) -> Result<JoinConnection, RequestError> {
        self.join_limiters.acquire(broker, group).await
    }

    /// Waits until one more OffsetCommit may be sent to that broker. Cancel-safe.
    pub(crate) async fn commit_permit(&self, broker: BrokerId) -> CommitPermit {
        self.commit_limiters.acquire(broker).await
    }

    /// Gives up a connection: it closes when its last user is done.
    pub(crate) fn release(&self, broker: BrokerId, purpose: ConnectionPurpose) {
        lock(&self.slots).remove(&(broker, purpose));
    }
}

/// The connection to one broker for one purpose, and the backoff until the next attempt.
#[derive(Debug)]
struct PoolSlot {
    state: watch::Sender<SlotState>,
    backoff: ReconnectBackoff,
}

#[derive(Debug)]
enum SlotState {
    Closed,
    Opening,
    Open(Connection),
    Failed(RequestError),
}

impl PoolSlot {
    fn new(config: &ClientConfig) -> Self {
        Self {
            state: watch::Sender::new(SlotState::Closed),
            backoff: ReconnectBackoff::new(config),
        }
    }

    /// Whether the caller has to run [`PoolSlot::open`].
    fn try_start_opening(&self, broker: &BrokerAddress) -> bool {
        self.state.send_if_modified(|state| match state {
            SlotState::Opening => false,
            SlotState::Open(connection)
                if !connection.is_closed() && connection.broker().address == broker.address =>
            {
                false
            }
            _ => {
                *state = SlotState::Opening;
                true
            }
        })
    }

    async fn open(&self, dialer: &Dialer, broker: &BrokerAddress, purpose: ConnectionPurpose) {
        let mut publish = PublishOnDrop {
            slot: self,
            state: SlotState::Failed(RequestError::Stopped),
        };
        let attempt = async {
            sleep_until(self.backoff.next_attempt(Instant::now())).await;
            dialer
                .open(broker, dialer.config.connections_max_idle, purpose.name())
                .await
        };
        let result = tokio::select! {
            () = dialer.stop.cancelled() => return,
            result = attempt => result,
        };
        publish.state = match result {
            Ok(connection) => {
                self.backoff.opened(Instant::now());
                SlotState::Open(connection)
            }
            Err(error) => {
                self.backoff.failed(Instant::now());
                tracing::debug!(%error, "connecting failed");
                SlotState::Failed(error)
            }
        };
    }
}

/// Publishes how an attempt ended, even if it panicked: no caller waits for ever.
struct PublishOnDrop<'a> {
    slot: &'a PoolSlot,
    state: SlotState,
}

impl Drop for PublishOnDrop<'_> {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut self.state, SlotState::Closed);
        self.slot.state.send_replace(state);
    }
}
