//! The connections of one principal to one cluster: by broker, and by what blocks.
//!
//! A broker serves a connection's requests one at a time: a long-poll fetch or a parked
//! JoinGroup holds up everything behind it. So each kind of waiting has its own lane.
//!
//! ```text
//!             ┌ Control        Metadata, ListOffsets, …
//!             ├ Produce        one ordered stream
//!  broker 1 ──┼ Tail(i)        long-poll fetches, one session
//!             ├ CatchUp(k)     fetches that do not wait
//!             ├ Coordinator(k) heartbeats and commits of the groups that hash to k
//!             └ exclusive      JoinGroup and SyncGroup: see `exclusive`
//! ```
//!
//! # Invariants
//! - A lane has at most one live connection, and at most one attempt to open it.
//! - An attempt goes on when those who wait for it go away.

mod dial;
mod exclusive;
mod pace;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use kafka_protocol::protocol::StrBytes;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::dial::Endpoint;
pub use self::exclusive::Exclusive;
use self::exclusive::Exclusives;
use self::pace::Pace;
use super::connection::Connection;
use crate::config::ClientConfig;
use crate::error::RequestError;
use crate::lock::lock;
use crate::topic::BrokerId;

/// What a fetch may see of transactions (`isolation.level`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isolation {
    /// Everything up to the high watermark.
    #[default]
    ReadUncommitted,
    /// Nothing of open or aborted transactions.
    ReadCommitted,
}

/// One of a broker's connections, by what its requests wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Short questions: Metadata, FindCoordinator, ListOffsets, administration.
    Control,
    /// The idempotent producer, whose order matters.
    Produce,
    /// Long-poll fetches in one fetch session.
    Tail(Isolation),
    /// Fetches that return at once, by `k`.
    CatchUp(u8),
    /// Heartbeats and offset commits of the group members that were given this one of
    /// [`COORDINATOR_LANES`].
    Coordinator(u8),
}

/// How many [`Lane::Coordinator`] a broker has: at most 40 connections carry 1,000 groups
/// over three brokers.
pub const COORDINATOR_LANES: u8 = 2;

#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    lanes: Mutex<HashMap<(BrokerId, Lane), Arc<LaneSlot>>>,
    exclusives: Exclusives,
}

/// What opening a connection takes.
#[derive(Debug)]
struct Shared {
    config: Arc<ClientConfig>,
    client_id: StrBytes,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// A clone lives in every open connection.
    census: Arc<()>,
    /// A connection was lost that somebody may still want.
    lost: Arc<Notify>,
}

impl Pool {
    pub(crate) fn new(
        config: Arc<ClientConfig>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let shared = Arc::new(Shared {
            client_id: StrBytes::from_string(config.client_id.clone()),
            config,
            tasks,
            stop,
            census: Arc::new(()),
            lost: Arc::new(Notify::new()),
        });
        Self {
            exclusives: Exclusives::new(Arc::clone(&shared)),
            shared,
            lanes: Mutex::default(),
        }
    }

    /// Connections that are open now.
    pub(crate) fn connections(&self) -> usize {
        Arc::strong_count(&self.shared.census) - 1
    }

    /// Completes when a broker's connection was lost since the last time.
    pub(crate) async fn lost(&self) {
        self.shared.lost.notified().await;
    }

    /// The live connection of that lane, if it has one. Opens nothing.
    pub(crate) fn live(&self, broker: BrokerId, lane: Lane) -> Option<Connection> {
        let slot = lock(&self.lanes).get(&(broker, lane)).cloned()?;
        let state = slot.state.borrow();
        match &*state {
            State::Open(connection) if !connection.is_closed() => Some(connection.clone()),
            _ => None,
        }
    }

    /// The live connection of that lane; opens one if there is none, or if the broker
    /// has moved. One attempt, after the backoff that earlier failures left.
    pub(crate) async fn connection(
        &self,
        endpoint: &Endpoint,
        lane: Lane,
    ) -> Result<Connection, RequestError> {
        let slot = Arc::clone(
            lock(&self.lanes)
                .entry((endpoint.id, lane))
                .or_insert_with(|| Arc::new(LaneSlot::new(&self.shared.config))),
        );
        let mut state = slot.state.subscribe();
        if slot.begin(endpoint) {
            let (slot, shared, endpoint) = (
                Arc::clone(&slot),
                Arc::clone(&self.shared),
                endpoint.clone(),
            );
            self.shared
                .tasks
                .spawn(async move { slot.open(&shared, &endpoint).await });
        }
        let settled = state
            .wait_for(|state| !matches!(state, State::Opening))
            .await
            .map_err(|_| RequestError::Stopped)?;
        match &*settled {
            State::Open(connection) => Ok(connection.clone()),
            State::Failed(error) => Err(error.clone()),
            State::Closed | State::Opening => Err(RequestError::Stopped),
        }
    }

    /// See [`Exclusive`].
    pub(crate) async fn exclusive(
        &self,
        endpoint: &Endpoint,
        group: &str,
    ) -> Result<Exclusive, RequestError> {
        self.exclusives.check_out(endpoint, group).await
    }

    /// Lets go of a lane: its connection closes when its last user is done.
    pub(crate) fn release(&self, broker: BrokerId, lane: Lane) {
        lock(&self.lanes).remove(&(broker, lane));
    }
}

/// One lane: its connection and its history.
#[derive(Debug)]
struct LaneSlot {
    state: watch::Sender<State>,
    pace: Pace,
}

#[derive(Debug)]
enum State {
    Closed,
    Opening,
    Open(Connection),
    Failed(RequestError),
}

impl LaneSlot {
    fn new(config: &ClientConfig) -> Self {
        Self {
            state: watch::Sender::new(State::Closed),
            pace: Pace::new(config),
        }
    }

    /// Whether the caller has to run [`LaneSlot::open`].
    fn begin(&self, endpoint: &Endpoint) -> bool {
        self.state.send_if_modified(|state| match state {
            State::Opening => false,
            State::Open(connection)
                if !connection.is_closed() && connection.peer().address == endpoint.address =>
            {
                false
            }
            _ => {
                *state = State::Opening;
                true
            }
        })
    }

    async fn open(&self, shared: &Shared, endpoint: &Endpoint) {
        let mut verdict = Verdict {
            slot: self,
            state: State::Failed(RequestError::Stopped),
        };
        let attempt = async {
            sleep_until(self.pace.earliest(Instant::now())).await;
            dial::open(shared, endpoint, shared.config.connections_max_idle).await
        };
        let result = tokio::select! {
            () = shared.stop.cancelled() => return,
            result = attempt => result,
        };
        verdict.state = match result {
            Ok(connection) => {
                self.pace.opened(Instant::now());
                State::Open(connection)
            }
            Err(error) => {
                self.pace.failed(Instant::now());
                tracing::debug!(%error, "connecting failed");
                State::Failed(error)
            }
        };
    }
}

/// Publishes how an attempt ended, even if it panicked: nobody waits for ever.
struct Verdict<'a> {
    slot: &'a LaneSlot,
    state: State,
}

impl Drop for Verdict<'_> {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Closed);
        self.slot.state.send_replace(state);
    }
}
