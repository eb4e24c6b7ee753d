//! `/socket/out`: records to frames, commits to the group. One task per socket.
//!
//! ```text
//! group ─▶ Consumer ─▶ slice ─▶ OutgoingChunk ─▶ kernel ─▶ client
//!             ▲                    │ taken by the kernel
//!             ├─── store ◀─────────┘ autoCommit=true, committed once a second
//!             └─── store ◀── UnackedRecords ◀── {"wsProxyMessageId"} ◀── client (autoCommit=false)
//! ```
//!
//! # Invariants
//! - With `autoCommit=true`, stored is what the kernel has taken whole; otherwise what the
//!   client has committed.
//! - Records are taken from the consumer only when those before them are with the kernel:
//!   a slow client holds back its own reading and nothing else.
//! - A client that takes nothing for half a second holds no chunk; one that takes nothing
//!   for `max.poll.interval.ms` is closed.
//! - A frame that was begun is finished, whatever happens to its partition.

mod delivery;
mod frame_cache;
mod offset_tracker;
mod rate;
mod send_buffer;
mod unacked;

use std::pin::Pin;
use std::sync::Arc;

use tokio::task::yield_now;
use tokio::time::{Duration, Instant, Sleep, sleep_until, timeout};
use tracing::{debug, warn};

use super::close::CloseReason;
use super::keepalive::{Keepalive, KeepaliveAction};
use super::params::{ConsumeParams, group_instance_id};
use super::stream::{ReadStatus, WebSocketStream};
use crate::app::App;
use crate::app::registry::{ConnectionSlot, GroupSlot, SocketSignal};
use crate::codec::RecordFormats;
use crate::codec::ack;
use crate::codec::commit::CommitRejection;
use delivery::{ArrayBuilder, OutgoingChunk};
use kafka_client::TopicPartition;
use kafka_client::consumer::{Consumer, ConsumerEvent, Subscription};
use offset_tracker::OffsetTracker;
use rate::RateLimiter;
use send_buffer::SendBuffer;
use unacked::UnackedRecords;
use websocket::frame::{self, CloseCode, CloseFrame, WebSocketMessage};

/// How long the commit at the end may hold up the goodbye.
const LAST_COMMIT_MAX: Duration = Duration::from_secs(5);
/// How long a client may take nothing before its chunk is let go.
const LET_GO_AFTER: Duration = Duration::from_millis(500);
/// How long a client may take for one chunk.
const CHUNK_HELD_MAX: Duration = Duration::from_secs(10);
/// Bytes of frames that a client with a `rate` keeps ahead, in a copy.
const AHEAD_BYTES: usize = 64 << 10;
/// Array frames are gathered up to this many bytes before a write.
const GATHER_BYTES: usize = 64 << 10;
/// Slices delivered, and news heeded, before the rest of the socket and other tasks get a
/// turn.
const STEPS_PER_TURN: usize = 4;

/// One consuming client.
pub(super) struct ConsumingSocket {
    app: App,
    socket: WebSocketStream,
    consumer: Consumer,
    formats: RecordFormats,
    current: Option<OutgoingChunk>,
    out: SendBuffer,
    batch: Option<ArrayBuilder>,
    rate: Option<RateLimiter>,
    offsets: OffsetTracker,
    /// Since when the kernel takes nothing.
    blocked: Option<Instant>,
    keepalive: Keepalive,
    /// Somebody wants to know whether our client lives.
    probed: bool,
    group_slot: GroupSlot,
    /// Released when the socket ends.
    _connection_slot: ConnectionSlot,
}

/// How far delivering got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SendProgress {
    /// Everything is sent: more records can be taken.
    Drained,
    /// The turn is over; there may be more to send.
    TurnOver,
    /// The socket's send buffer in the kernel is full.
    Blocked,
    /// The rate allows nothing more until then.
    RateLimited(Instant),
}

impl ConsumingSocket {
    /// Joins the group.
    pub(super) fn new(
        app: App,
        socket: WebSocketStream,
        params: ConsumeParams,
        (connection_slot, group_slot): (ConnectionSlot, GroupSlot),
    ) -> Self {
        let now = Instant::now();
        let settings = &app.config.server.websocket;
        let subscription = Subscription {
            group: params.group_id.as_str().into(),
            topics: params.topics.iter().map(|t| t.as_str().into()).collect(),
            instance_id: Some(group_instance_id(&params.client_id).into()),
            client_id: params.client_id.as_str().into(),
            reset: params.offset_reset_strategy,
            isolation: params.isolation_level,
        };
        let batch = params
            .batch_size
            .map(|size| ArrayBuilder::new(size, settings.send_buffer, now));
        let commits =
            (!params.auto_commit).then(|| UnackedRecords::new(app.config.commits.max_stack_size));
        Self {
            consumer: Consumer::join(&app.client, subscription, group_slot.handle().wake.clone()),
            socket,
            formats: params.formats,
            current: None,
            out: SendBuffer::default(),
            batch,
            rate: params.rate.map(|rate| RateLimiter::new(rate, now)),
            offsets: OffsetTracker::new(commits),
            blocked: None,
            keepalive: Keepalive::new(settings.ping_interval, now),
            probed: false,
            group_slot,
            _connection_slot: connection_slot,
            app,
        }
    }

    /// Serves the socket to its end.
    pub(super) async fn run(mut self) {
        let end = match self.serve().await {
            Ok(end) | Err(end) => end,
        };
        debug!(?end, "consuming socket ends");
        // Committed before the client is told: it may be back at once, under the same id.
        let committed = timeout(LAST_COMMIT_MAX, self.consumer.commit());
        if !matches!(Box::pin(committed).await, Ok(Ok(()))) {
            debug!("the last commit failed; what it was about comes again");
        }
        self.group_slot.release();
        let rest = self.current.as_ref().map_or(&[][..], OutgoingChunk::rest);
        let out = self.out.into_bytes(rest);
        drop(self.current);
        let (consumer, socket) = (self.consumer, self.socket);
        // The group gets the partitions back while the client is told. In a box of its own,
        // so that a socket that lives does not make room for its end.
        let goodbye = async { tokio::join!(consumer.close(), end.close(socket, out)) };
        Box::pin(goodbye).await;
    }

    async fn serve(&mut self) -> Result<CloseReason, CloseReason> {
        let handle = Arc::clone(self.group_slot.handle());
        let send_buffer = self.app.config.server.websocket.send_buffer;
        let timer = sleep_until(self.keepalive.next_check_at());
        tokio::pin!(timer);
        loop {
            while let Some(signal) = handle.take_signal() {
                self.handle_signal(signal)?;
            }
            self.read()?;
            let flow = self.go_on()?;
            self.set(timer.as_mut(), flow);
            if flow == SendProgress::TurnOver {
                // Others get a turn, and so do our client's messages and the timer: with
                // several things to heed, one is picked at random.
                handle.wake.notify();
                yield_now().await;
            }
            tokio::select! {
                // Records, news of the group, signals: the next round finds them.
                () = handle.wake.notified() => {}
                ready = self.socket.writable(), if flow == SendProgress::Blocked => ready?,
                ready = self.socket.readable(), if self.out.len() < send_buffer => {
                    ready?;
                    self.fill()?;
                }
                () = &mut timer => self.tick()?,
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
                self.out.write(|frames| frame::write_ping(frames, b""));
                Ok(())
            }
        }
    }

    /// Delivers what is here, and takes more while there is more, for one turn. Afterwards,
    /// but for [`SendProgress::TurnOver`], the wake signal is notified when there is more to take or to do.
    fn go_on(&mut self) -> Result<SendProgress, CloseReason> {
        for _ in 0..STEPS_PER_TURN {
            let now = Instant::now();
            let flow = self.deliver(now)?;
            self.blocked = match flow {
                SendProgress::Blocked => self.blocked.or(Some(now)),
                _ => None,
            };
            let event = match flow {
                SendProgress::Drained | SendProgress::TurnOver => self.consumer.try_next(),
                // Only what is no record while records cannot be taken.
                SendProgress::Blocked | SendProgress::RateLimited(_) => {
                    self.consumer.try_next_except_records()
                }
            };
            match event {
                None => return Ok(flow),
                Some(event) => self.heed(event, now)?,
            }
        }
        Ok(SendProgress::TurnOver)
    }

    fn heed(&mut self, event: ConsumerEvent, now: Instant) -> Result<(), CloseReason> {
        match event {
            ConsumerEvent::Records(slice) => {
                self.current = Some(OutgoingChunk::new(slice, self.formats, now));
            }
            ConsumerEvent::Assigned(partitions) => debug!(?partitions, "assigned"),
            ConsumerEvent::Revoked(revocation) => {
                self.drop_partitions(revocation.partitions(), now)?;
                self.consumer.release(revocation);
            }
            ConsumerEvent::Lost(partitions) => {
                warn!(?partitions, "partitions were lost to the group");
                self.drop_partitions(&partitions, now)?;
            }
            ConsumerEvent::Closed(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Sends until all is sent, or something holds it up.
    fn deliver(&mut self, now: Instant) -> Result<SendProgress, CloseReason> {
        loop {
            let inside = self.is_inside_a_frame();
            if !inside {
                let before = self.out.len();
                let all = self.out.flush(&self.socket)?;
                if self.out.len() < before {
                    self.blocked = None;
                }
                self.note_sent(now);
                if !all {
                    return Ok(SendProgress::Blocked);
                }
            }
            let Some(current) = &mut self.current else {
                return self.send_batch_if_due(now);
            };
            if current.is_done() {
                self.finish(now);
                continue;
            }
            let allowed = match &mut self.rate {
                // A frame that was begun has been paid for.
                Some(rate) => rate.available(now) + usize::from(inside),
                None => usize::MAX,
            };
            if allowed == 0 {
                let next = self.rate.map_or(now, |rate| rate.next_permit_at());
                self.let_go(AHEAD_BYTES);
                if let SendProgress::Blocked = self.send_batch_if_due(now)? {
                    return Ok(SendProgress::Blocked);
                }
                return Ok(SendProgress::RateLimited(next));
            }
            match &mut self.batch {
                Some(batch) => {
                    let mut left = allowed;
                    while left > 0 && !current.is_done() && self.out.len() < GATHER_BYTES {
                        left -= batch.gather(current, left, now);
                        if batch.is_full() {
                            batch.send(&mut self.out);
                        }
                    }
                    if let Some(rate) = &mut self.rate {
                        rate.consume(allowed - left);
                    }
                }
                None => {
                    let frames = match inside && !self.out.is_empty() {
                        true => 1,
                        false => current.left().min(allowed),
                    };
                    let bytes = current.bytes(frames);
                    let wanted = bytes.len();
                    let taken = self.socket.write(bytes)?;
                    if taken > 0 {
                        self.blocked = None;
                    }
                    let begun = current.next;
                    let done = current.sent(taken);
                    if let Some(rate) = &mut self.rate {
                        let unpaid = usize::from(inside);
                        let begun_now = usize::from(current.is_inside_a_frame());
                        rate.consume((done.len() + begun_now).saturating_sub(unpaid));
                    }
                    debug_assert_eq!(begun, done.start);
                    if current.is_ours {
                        let frames = &current.encoded.frames[done];
                        self.offsets
                            .delivered(&mut self.consumer, current.tp(), frames, now);
                    }
                    if taken < wanted {
                        return Ok(SendProgress::Blocked);
                    }
                }
            }
        }
    }

    /// Whether a frame that is written from its chunk is partly sent.
    fn is_inside_a_frame(&self) -> bool {
        self.current
            .as_ref()
            .is_some_and(OutgoingChunk::is_inside_a_frame)
    }

    /// Sends an array whose wait is over; also one that nothing more will come to.
    fn send_batch_if_due(&mut self, now: Instant) -> Result<SendProgress, CloseReason> {
        let Some(batch) = &mut self.batch else {
            return Ok(SendProgress::Drained);
        };
        if batch.is_full() || batch.due().is_some_and(|due| due <= now) {
            batch.send(&mut self.out);
            let all = self.out.flush(&self.socket)?;
            self.note_sent(now);
            if !all {
                return Ok(SendProgress::Blocked);
            }
        }
        Ok(SendProgress::Drained)
    }

    /// The current slice is sent, or gathered.
    fn finish(&mut self, now: Instant) {
        let Some(current) = self.current.take() else {
            return;
        };
        // Behind the last record there may be what nobody is sent: go past it.
        match (current.end, &mut self.batch) {
            (Some(end), Some(batch)) => batch.passed(current.tp(), end, &mut self.out),
            (Some(end), None) => {
                self.offsets
                    .advanced_to(&mut self.consumer, current.tp(), end, now);
            }
            (None, _) => {}
        }
    }

    /// Notes what of our own buffer the kernel has taken.
    fn note_sent(&mut self, now: Instant) {
        while let Some(delivered) = self.out.delivered() {
            self.offsets
                .delivered(&mut self.consumer, &delivered.tp, &delivered.frames, now);
            if let Some(end) = delivered.end {
                self.offsets
                    .advanced_to(&mut self.consumer, &delivered.tp, end, now);
            }
        }
    }

    /// Lets go of the chunk under way, but for the frame that was begun and `bytes_max`.
    fn let_go(&mut self, bytes_max: usize) {
        let Some(current) = &mut self.current else {
            return;
        };
        if let Some(position) = current.let_go(bytes_max) {
            let tp = current.tp().clone();
            self.consumer.seek(&tp, position);
        }
    }

    /// Nothing more of these is delivered, but for the frames that were begun; those of
    /// them that are still here come again elsewhere, and count no more.
    fn drop_partitions(
        &mut self,
        partitions: &[TopicPartition],
        now: Instant,
    ) -> Result<(), CloseReason> {
        if let Some(batch) = &mut self.batch {
            batch.send(&mut self.out);
        }
        if !self.is_inside_a_frame() {
            self.out.flush(&self.socket)?;
            self.note_sent(now);
        }
        self.out.forget(partitions);
        if let Some(current) = &mut self.current
            && partitions.contains(current.tp())
        {
            current.cut();
        }
        self.offsets.remove_partitions(partitions);
        Ok(())
    }

    fn fill(&mut self) -> Result<(), CloseReason> {
        match self.socket.fill_buffer()? {
            ReadStatus::Data => {
                self.keepalive.record_activity(Instant::now());
                Ok(())
            }
            ReadStatus::WouldBlock => Ok(()),
            ReadStatus::Eof => Err(CloseReason::ConnectionLost),
        }
    }

    /// Takes the messages that have been read.
    fn read(&mut self) -> Result<(), CloseReason> {
        while self.out.len() < self.app.config.server.websocket.send_buffer {
            let message = self.socket.next_message()?;
            // A goodbye is no sign of life: its client may be the one that comes again.
            let alive = !matches!(message, None | Some(WebSocketMessage::Close(_)));
            if alive && std::mem::take(&mut self.probed) {
                self.group_slot.handle().client_alive.notify_waiters();
            }
            match message {
                None => return Ok(()),
                Some(WebSocketMessage::Text(text)) => self.commit(text.as_bytes()),
                Some(WebSocketMessage::Binary(_)) => {
                    let reason = "binary frames need socketPayload=avro";
                    return Err(CloseReason::Fail(CloseFrame::new(
                        CloseCode::UNSUPPORTED_DATA,
                        reason,
                    )));
                }
                Some(WebSocketMessage::Ping(payload)) => {
                    self.out.write(|frames| frame::write_pong(frames, &payload));
                }
                Some(WebSocketMessage::Pong(_)) => {}
                Some(WebSocketMessage::Close(close)) => return Err(CloseReason::PeerClosed(close)),
            }
        }
        Ok(())
    }

    /// A client commits.
    fn commit(&mut self, text: &[u8]) {
        let Err(rejection) = self.offsets.handle_commit(&mut self.consumer, text) else {
            return;
        };
        let CommitRejection {
            code,
            message,
            echoed_id,
        } = rejection;
        self.out.write(|frames| {
            let mark = frame::begin_frame(frames);
            ack::write_error(frames, code, message, echoed_id);
            frame::end_frame(frames, mark, frame::Opcode::Text);
        });
    }

    /// The timer has rung: does what is due.
    fn tick(&mut self) -> Result<(), CloseReason> {
        let now = Instant::now();
        self.offsets.commit_if_due(&mut self.consumer, now);
        if let Some(since) = self.blocked {
            let limit = self.app.client.consumer_config().max_poll_interval;
            if now >= since + limit {
                return Err(CloseReason::SlowClient);
            }
            let held = self.current.as_ref().map(|current| current.since);
            if now >= since + LET_GO_AFTER || held.is_some_and(|at| now >= at + CHUNK_HELD_MAX) {
                self.let_go(0);
            }
            // A ping would stand behind what the client does not read.
            self.keepalive.record_activity(now);
        }
        match self.keepalive.check(now) {
            KeepaliveAction::None => {}
            KeepaliveAction::TimedOut => return Err(CloseReason::PingTimeout),
            KeepaliveAction::Ping => {
                self.out.write(|frames| frame::write_ping(frames, b""));
                self.out.shrink();
            }
        }
        if self.current.is_none() {
            self.out.shrink();
            if let Some(batch) = &mut self.batch {
                batch.shrink();
            }
        }
        Ok(())
    }

    /// Sets the timer to what is due next. It is not moved back: ringing early is harmless,
    /// and moving it for every record is not cheap.
    fn set(&self, timer: Pin<&mut Sleep>, flow: SendProgress) {
        let mut next = self.keepalive.next_check_at();
        let mut sooner = |at: Option<Instant>| next = at.map_or(next, |at| next.min(at));
        sooner(self.offsets.next_commit_at());
        let batch = self.batch.as_ref().and_then(ArrayBuilder::due);
        match flow {
            SendProgress::Drained | SendProgress::TurnOver => sooner(batch),
            SendProgress::RateLimited(until) => {
                sooner(batch);
                sooner(Some(until));
            }
            // An array that is due goes when the kernel takes bytes again.
            SendProgress::Blocked => {
                let since = self.blocked;
                let holds = self
                    .current
                    .as_ref()
                    .is_some_and(|current| current.end.is_some());
                let limit = self.app.client.consumer_config().max_poll_interval;
                sooner(since.filter(|_| holds).map(|since| since + LET_GO_AFTER));
                sooner(since.map(|since| since + limit));
            }
        }
        if next < timer.deadline() || timer.is_elapsed() {
            timer.reset(next);
        }
    }
}
