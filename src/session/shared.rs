//! What the sockets, the log and the clock of the sessions share: the node, under one lock.
//!
//! Nothing is waited for under the lock: what the node wants done is a signal, a message, or a
//! record in the outbox.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use kafka_client::record::Record;
use kafka_client::{ProduceError, RecordMetadata};
use runtime::mutex::lock;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::node::{ClaimOutcome, NodeEffect, PROBE_TIMEOUT, PlaceLoss, SessionNode};
use super::record::{SessionRecord, SessionRecordError};
use super::registry::{SocketHandle, SocketSignal};
use crate::state_log::{EncodedEntry, LogTrouble, LoggedState};

/// What all parts share.
#[derive(Debug)]
pub(super) struct SessionsShared {
    pub(super) state: Mutex<PlacedSockets>,
    /// Whether claims may be begun.
    pub(super) status: watch::Sender<LogStatus>,
    /// There is something to write.
    pub(super) work: Notify,
    /// A write was answered.
    pub(super) answered: Notify,
    /// A place was freed, on whichever node.
    pub(super) freed: Notify,
    pub(super) topic: Arc<str>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// The node, and the sockets that have its places.
#[derive(Debug)]
pub(super) struct PlacedSockets {
    pub(super) node: SessionNode,
    /// By the number of their place.
    pub(super) sockets: HashMap<u64, PlacedSocket>,
    /// To be written, in order.
    pub(super) outbox: VecDeque<SessionRecord>,
}

/// A socket that has a place, or claims one.
#[derive(Debug)]
pub(super) struct PlacedSocket {
    pub(super) handle: Arc<SocketHandle>,
    /// Who waits for the decision.
    pub(super) decided: Option<oneshot::Sender<ClaimOutcome>>,
}

impl PlacedSocket {
    /// Nobody waits for a decision.
    pub(super) fn new(handle: &Arc<SocketHandle>) -> Self {
        Self {
            handle: Arc::clone(handle),
            decided: None,
        }
    }
}

/// How far the log is.
#[derive(Clone, Debug, Default)]
pub(super) struct LogStatus {
    /// Whether the node has a lease, and knows the others.
    pub(super) is_member: bool,
    pub(super) trouble: Option<LogTrouble>,
}

impl SessionsShared {
    /// Lets the node work, and carries out what it wants.
    pub(super) fn with_node<T>(self: &Arc<Self>, work: impl FnOnce(&mut SessionNode) -> T) -> T {
        let mut state = lock(&self.state);
        let result = work(&mut state.node);
        state.carry_out(self);
        result
    }

    /// Releases a place, or gives a claim up.
    pub(super) fn release(self: &Arc<Self>, number: u64, handle: &SocketHandle) {
        self.with_node(|node| node.release(number, Instant::now()));
        if lock(&self.state).sockets.remove(&number).is_some() {
            handle.released.notify_waiters();
            self.freed.notify_waiters();
        }
    }

    /// Has the node do what is due, until it is cancelled.
    pub(super) async fn run_clock(self: Arc<Self>) {
        loop {
            let now = Instant::now();
            self.with_node(|node| node.tick(now));
            let next = lock(&self.state).node.next_tick_at(now);
            sleep_until(next).await;
        }
    }

    /// Pings a client for another node's claim. The clock ends the wait for its answer, too.
    async fn probe(self: Arc<Self>, number: u64, handle: Arc<SocketHandle>) {
        let alive = handle.client_alive.notified();
        tokio::pin!(alive);
        alive.as_mut().enable();
        handle.send_signal(SocketSignal::Probe);
        if timeout(PROBE_TIMEOUT, alive).await.is_ok() {
            self.with_node(|node| node.client_answered(number, Instant::now()));
        }
    }
}

impl LoggedState for SessionsShared {
    type NewEntry = SessionRecord;
    type Entry = SessionRecord;
    type DecodeError = SessionRecordError;

    fn encode(entry: &SessionRecord) -> EncodedEntry {
        let (key, value) = entry.encode();
        let header = None;
        EncodedEntry { key, value, header }
    }

    fn decode(record: &Record<'_>) -> Result<SessionRecord, SessionRecordError> {
        SessionRecord::decode(record.key, record.value)
    }

    fn begin_load(self: &Arc<Self>, start: i64) {
        let mut state = lock(&self.state);
        state.outbox.clear();
        state.node.begin_load(start);
    }

    fn loaded(self: &Arc<Self>) {
        self.with_node(|node| node.loaded(Instant::now()));
    }

    fn read(self: &Arc<Self>, entries: Vec<(i64, Option<SessionRecord>)>, next_offset: i64) {
        let now = Instant::now();
        self.with_node(|node| {
            for (offset, record) in entries {
                node.read(offset, record, now);
            }
            node.read_up_to(next_offset);
        });
    }

    fn take_write(&self) -> Option<SessionRecord> {
        lock(&self.state).outbox.pop_front()
    }

    fn put_back(&self, entry: SessionRecord) {
        lock(&self.state).outbox.push_front(entry);
    }

    fn answered(
        self: &Arc<Self>,
        entry: SessionRecord,
        result: Result<RecordMetadata, ProduceError>,
    ) {
        let now = Instant::now();
        self.with_node(|node| match result {
            Ok(metadata) => node.acked(entry, metadata.offset, now),
            Err(error) => node.failed(entry, &error.to_string(), now),
        });
        self.answered.notify_waiters();
    }

    fn set_trouble(&self, trouble: Option<LogTrouble>) {
        let status = &self.status;
        status.send_modify(|status| status.trouble = trouble);
    }

    fn work(&self) -> &Notify {
        &self.work
    }
}

impl PlacedSockets {
    /// Carries out what the node wants. Nothing here waits.
    pub(super) fn carry_out(&mut self, shared: &Arc<SessionsShared>) {
        let effects = self.node.take_effects();
        for effect in effects {
            match effect {
                NodeEffect::Write(record) => self.outbox.push_back(record),
                NodeEffect::Decided { number, outcome } => {
                    let socket = self.sockets.get_mut(&number);
                    if let Some(decided) = socket.and_then(|socket| socket.decided.take()) {
                        let _ = decided.send(outcome);
                    }
                }
                NodeEffect::Probe(number) => {
                    if let Some(socket) = self.sockets.get(&number) {
                        let handle = Arc::clone(&socket.handle);
                        shared.tasks.spawn(Arc::clone(shared).probe(number, handle));
                    }
                }
                NodeEffect::Evict(number) => self.signal(number, SocketSignal::Evict),
                NodeEffect::Close(number) => self.signal(number, SocketSignal::CloseByAdmin),
                NodeEffect::Lost { number, loss } => {
                    let signal = match loss {
                        PlaceLoss::Superseded => SocketSignal::Supersede,
                        PlaceLoss::Full => SocketSignal::LosePlace,
                        PlaceLoss::Fenced => SocketSignal::Fence,
                    };
                    self.signal(number, signal);
                }
                NodeEffect::PlaceFreed => shared.freed.notify_waiters(),
                NodeEffect::DuplicateServerId => warn!(
                    "another node that runs has the same server.server-id: \
                     each takes the other's places when it starts"
                ),
                NodeEffect::Rejoined => warn!(
                    "this node could not renew its lease in time, and others found it dead: \
                     its sockets claim their places again"
                ),
            }
        }
        if !self.outbox.is_empty() {
            shared.work.notify_one();
        }
        let is_member = self.node.is_member();
        shared.status.send_if_modified(|status| {
            let changed = status.is_member != is_member;
            status.is_member = is_member;
            changed
        });
    }

    fn signal(&self, number: u64, signal: SocketSignal) {
        if let Some(socket) = self.sockets.get(&number) {
            socket.handle.send_signal(signal);
        }
    }
}
