//! `/socket/out`: records to frames, commits to the group. One task per socket.
//!
//! ```text
//! group ─▶ Consumer ─▶ ConsumerRecords ─▶ OutgoingChunk ─▶ kernel ─▶ client
//!             ▲                                │ taken by the kernel
//!             ├─── store_offset ◀──────────────┘ autoCommit=true, committed once a second
//!             └─── store_offset ◀── UnackedRecords ◀── {"wsProxyMessageId"} ◀── client
//! ```
//!
//! # Invariants
//! - With `autoCommit=true`, stored is the offset of what the kernel has taken whole;
//!   otherwise of what the client has committed.
//! - Records are taken from the consumer only when those before them are with the kernel:
//!   a slow client holds back its own reading and nothing else.
//! - A client that takes nothing for half a second holds no chunk, and one with a `rate` holds
//!   none for longer than ten; one that takes nothing
//!   for `max.poll.interval.ms` is closed.
//! - A frame that was begun is finished, whatever happens to its partition.

mod arrays;
mod chunk;
mod delivery;
mod frame_cache;
mod offset_tracker;
mod rate;
mod single_frames;
mod unacked;

use std::pin::Pin;
use std::sync::Arc;

use tokio::task::yield_now;
use tokio::time::{Duration, Instant, Sleep, sleep_until, timeout};
use tracing::{debug, warn};

use super::close::CloseReason;
use super::params::{ConsumeParams, group_instance_id};
use super::session::SocketSession;
use super::stream::WebSocketStream;
use crate::app::App;
use crate::app::registry::{ConnectionSlot, GroupSlot, SocketSignal};
use crate::codec::RecordFormats;
use crate::codec::ack;
use crate::codec::commit::CommitRejection;
use arrays::ArraySink;
use chunk::OutgoingChunk;
use delivery::SendProgress;
use kafka_client::consumer::{Consumer, ConsumerEvent, Subscription};
use offset_tracker::OffsetTracker;
use rate::RateLimiter;
use unacked::UnackedRecords;
use websocket::frame::{self, CloseCode, CloseFrame};

/// How long the last commit may delay the close frame.
const LAST_COMMIT_MAX: Duration = Duration::from_secs(5);
/// How long a client may take nothing before its chunk is released.
const RELEASE_CHUNK_AFTER: Duration = Duration::from_millis(500);
/// How long a client may take for one chunk.
const CHUNK_HELD_MAX: Duration = Duration::from_secs(10);
/// Chunks sent, and events handled, before the client's messages, the timer and other tasks
/// get a turn.
const STEPS_PER_TURN: usize = 4;
/// What an empty send buffer keeps of its memory.
const SEND_BUFFER_KEEP_MAX: usize = 4 << 10;

/// One consuming client.
pub(super) struct ConsumingSocket {
    session: SocketSession,
    consumer: Consumer,
    formats: RecordFormats,
    chunk: Option<OutgoingChunk>,
    sink: RecordSink,
    rate: Option<RateLimiter>,
    offsets: OffsetTracker,
    /// Whether the registry waits to hear from this client.
    probed: bool,
    group_slot: GroupSlot,
    /// Released when the socket ends.
    _connection_slot: ConnectionSlot,
}

/// The ways of sending records.
#[derive(Debug)]
enum RecordSink {
    /// One record per frame; see `single_frames`.
    SingleFrames,
    /// `batchSize` records per frame.
    Arrays(ArraySink),
}

impl ConsumingSocket {
    /// Joins the group.
    pub(super) fn new(
        app: App,
        stream: WebSocketStream,
        params: ConsumeParams,
        (connection_slot, group_slot): (ConnectionSlot, GroupSlot),
    ) -> Self {
        let now = Instant::now();
        let subscription = Subscription {
            group: params.group_id.as_str().into(),
            topics: params.topics.iter().map(|t| t.as_str().into()).collect(),
            instance_id: Some(group_instance_id(&params.client_id).into()),
            client_id: params.client_id.as_str().into(),
            reset: params.offset_reset_strategy,
            isolation: params.isolation_level,
        };
        let bytes_max = app.config.server.websocket.send_buffer;
        let sink = match params.batch_size {
            None => RecordSink::SingleFrames,
            Some(size) => RecordSink::Arrays(ArraySink::new(size, bytes_max, now)),
        };
        let unacked =
            (!params.auto_commit).then(|| UnackedRecords::new(app.config.commits.max_stack_size));
        Self {
            consumer: Consumer::join(&app.client, subscription, group_slot.handle().wake.clone()),
            session: SocketSession::new(stream, &app.config, SEND_BUFFER_KEEP_MAX),
            formats: params.formats,
            chunk: None,
            sink,
            rate: params.rate.map(|rate| RateLimiter::new(rate, now)),
            offsets: OffsetTracker::new(unacked),
            probed: false,
            group_slot,
            _connection_slot: connection_slot,
        }
    }

    /// Serves the socket to its end.
    pub(super) async fn run(mut self) {
        let reason = match self.serve().await {
            Ok(reason) | Err(reason) => reason,
        };
        debug!(?reason, "consuming socket ends");
        // Committed before the close frame: the client may be back at once, under the same
        // id.
        let committed = timeout(LAST_COMMIT_MAX, self.consumer.commit());
        if !matches!(Box::pin(committed).await, Ok(Ok(()))) {
            debug!("the last commit failed; its records are delivered again");
        }
        self.group_slot.release();
        if let Some(chunk) = &self.chunk {
            self.session.out.prepend(chunk.rest_of_frame());
        }
        drop(self.chunk);
        let (consumer, session) = (self.consumer, self.session);
        // The group gets the partitions back while the client is closed. Boxed: the task of
        // an open socket has no room for what only its end needs.
        let closing = async { tokio::join!(consumer.close(), session.close(reason)) };
        Box::pin(closing).await;
    }

    async fn serve(&mut self) -> Result<CloseReason, CloseReason> {
        let handle = Arc::clone(self.group_slot.handle());
        let timer = sleep_until(self.session.next_keepalive_at());
        tokio::pin!(timer);
        loop {
            while let Some(signal) = handle.take_signal() {
                self.handle_signal(signal)?;
            }
            self.handle_messages()?;
            let progress = self.take_turn()?;
            self.set_timer(timer.as_mut(), progress);
            if progress == SendProgress::TurnOver {
                // Other tasks get a turn, and so do the client's messages and the timer:
                // select! picks at random among what is ready.
                handle.wake.notify();
                yield_now().await;
            }
            tokio::select! {
                // Records, events of the group, signals: the next round finds them.
                () = handle.wake.notified() => {}
                ready = self.session.writable(), if progress == SendProgress::Blocked => ready?,
                ready = self.session.readable(), if self.session.has_room() => {
                    ready?;
                    self.session.read_available()?;
                }
                () = &mut timer => self.on_timer()?,
            }
        }
    }

    fn handle_signal(&mut self, signal: SocketSignal) -> Result<(), CloseReason> {
        match signal {
            SocketSignal::Stop => Err(CloseReason::ServerStopping),
            SocketSignal::Evict => Err(CloseReason::Fail(CloseFrame::new(
                CloseCode::POLICY_VIOLATION,
                "evicted: the client id connected again, and this client did not answer",
            ))),
            SocketSignal::Probe => {
                self.probed = true;
                self.session.ping();
                Ok(())
            }
        }
    }

    /// Takes the messages that have been read.
    fn handle_messages(&mut self) -> Result<(), CloseReason> {
        loop {
            let text = self.session.next_text();
            // A close frame does not count: the client may be the one that connects again.
            if self.session.take_message_received() && std::mem::take(&mut self.probed) {
                self.group_slot.handle().client_alive.notify_waiters();
            }
            match text? {
                None => return Ok(()),
                Some(text) => self.commit(text.as_bytes()),
            }
        }
    }

    /// Handles a client's commit.
    fn commit(&mut self, text: &[u8]) {
        let Err(rejection) = self.offsets.handle_commit(&mut self.consumer, text) else {
            return;
        };
        let CommitRejection {
            code,
            message,
            echoed_id,
        } = rejection;
        self.session.out.append(|frames| {
            let start = frame::begin_frame(frames);
            ack::write_error(frames, code, message, echoed_id);
            frame::end_frame(frames, start, frame::Opcode::Text);
        });
    }

    /// Sends what is here, and takes more while there is more, for one turn. Unless it
    /// returns [`SendProgress::TurnOver`], the wake signal is notified when there is more.
    fn take_turn(&mut self) -> Result<SendProgress, CloseReason> {
        for _ in 0..STEPS_PER_TURN {
            let now = Instant::now();
            let progress = self.deliver(now)?;
            let event = match progress {
                SendProgress::Drained | SendProgress::TurnOver => self.consumer.try_next(),
                // Records could not be taken.
                SendProgress::Blocked | SendProgress::RateLimited(_) => {
                    self.consumer.try_next_except_records()
                }
            };
            match event {
                None => return Ok(progress),
                Some(event) => self.handle_event(event, now)?,
            }
        }
        Ok(SendProgress::TurnOver)
    }

    fn handle_event(&mut self, event: ConsumerEvent, now: Instant) -> Result<(), CloseReason> {
        match event {
            ConsumerEvent::Records(records) => {
                self.chunk = Some(OutgoingChunk::new(records, self.formats, now));
            }
            ConsumerEvent::Assigned(partitions) => debug!(?partitions, "assigned"),
            ConsumerEvent::Revoked(revocation) => {
                self.revoke_partitions(revocation.partitions(), now)?;
                self.consumer.release(revocation);
            }
            ConsumerEvent::Lost(partitions) => {
                warn!(?partitions, "partitions were lost to the group");
                self.revoke_partitions(&partitions, now)?;
            }
            ConsumerEvent::Closed(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Commits, closes a client that takes nothing, pings an idle one, frees memory.
    fn on_timer(&mut self) -> Result<(), CloseReason> {
        let now = Instant::now();
        self.offsets.commit_if_due(&mut self.consumer, now);
        let blocked_since = self.session.blocked_since();
        if let Some(since) = blocked_since {
            let deadline = self.session.write_deadline();
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Err(CloseReason::SlowClient);
            }
            let held_since = self.chunk.as_ref().map(|chunk| chunk.since);
            if now >= since + RELEASE_CHUNK_AFTER
                || held_since.is_some_and(|since| now >= since + CHUNK_HELD_MAX)
            {
                self.release_chunk(0);
            }
        }
        // A ping would stand behind what the client does not read.
        let reachable = blocked_since.is_none();
        self.session.check_keepalive(now, reachable)?;
        if self.chunk.is_none() {
            self.session.out.shrink();
            if let RecordSink::Arrays(arrays) = &mut self.sink {
                arrays.shrink();
            }
        }
        Ok(())
    }

    /// Sets the timer to what is due next. It is not moved back: firing early is harmless,
    /// and moving it for every record is not cheap.
    fn set_timer(&self, timer: Pin<&mut Sleep>, progress: SendProgress) {
        let mut next = self.session.next_keepalive_at();
        let mut sooner = |at: Option<Instant>| next = at.map_or(next, |at| next.min(at));
        sooner(self.offsets.next_commit_at());
        let array_due_at = match &self.sink {
            RecordSink::Arrays(arrays) => arrays.due_at(),
            RecordSink::SingleFrames => None,
        };
        match progress {
            SendProgress::Drained | SendProgress::TurnOver => sooner(array_due_at),
            SendProgress::RateLimited(until) => {
                sooner(array_due_at);
                sooner(Some(until));
            }
            // An array that is due is sent when the kernel takes bytes again.
            SendProgress::Blocked => {
                let holds_chunk = self.chunk.as_ref().is_some_and(OutgoingChunk::is_held);
                let since = self.session.blocked_since().filter(|_| holds_chunk);
                sooner(since.map(|since| since + RELEASE_CHUNK_AFTER));
                sooner(self.session.write_deadline());
            }
        }
        if next < timer.deadline() || timer.is_elapsed() {
            timer.reset(next);
        }
    }
}
