//! `/socket/out`: records to frames, commits to the group. One task per socket.
//!
//! ```text
//! group ─▶ Consumer ─▶ slice ─▶ Current ─▶ kernel ─▶ client
//!             ▲                    │ taken by the kernel
//!             ├─── store ◀─────────┘ autoCommit=true, committed once a second
//!             └─── store ◀── Commits ◀── {"wsProxyMessageId"} ◀── client (autoCommit=false)
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

use std::pin::Pin;
use std::sync::Arc;

use tokio::task::yield_now;
use tokio::time::{Duration, Instant, Sleep, sleep_until, timeout};
use tracing::{debug, warn};

use super::close::End;
use super::commits::Commits;
use super::delivery::{Batch, Current};
use super::keepalive::{Due, Keepalive};
use super::ledger::Ledger;
use super::outgoing::Outgoing;
use super::params::{OutParams, instance_id};
use super::rate::Rate;
use super::ws::{Fill, WebSocket};
use crate::app::App;
use crate::app::registry::{Order, Place, Seat};
use crate::codec::RecordFormats;
use crate::codec::ack;
use crate::codec::commit::CommitRejection;
use kafka_client::TopicPartition;
use kafka_client::consumer::{Consumer, ConsumerEvent, Subscription};
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
pub(super) struct Outbound {
    app: App,
    socket: WebSocket,
    consumer: Consumer,
    types: RecordFormats,
    current: Option<Current>,
    out: Outgoing,
    batch: Option<Batch>,
    rate: Option<Rate>,
    ledger: Ledger,
    /// Since when the kernel takes nothing.
    blocked: Option<Instant>,
    keepalive: Keepalive,
    /// Somebody wants to know whether our client lives.
    probed: bool,
    seat: Seat,
    /// Given back when the socket ends.
    _place: Place,
}

/// What delivering came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// Everything is sent: more records are welcome.
    Open,
    /// The turn is over; there may be more.
    More,
    /// The kernel takes nothing more.
    Blocked,
    /// The rate allows nothing more until then.
    Limited(Instant),
}

impl Outbound {
    /// Joins the group.
    pub(super) fn new(
        app: App,
        socket: WebSocket,
        params: OutParams,
        (place, seat): (Place, Seat),
    ) -> Self {
        let now = Instant::now();
        let settings = &app.config.server.websocket;
        let subscription = Subscription {
            group: params.group_id.as_str().into(),
            topics: params.topics.iter().map(|t| t.as_str().into()).collect(),
            instance_id: Some(instance_id(&params.client_id).into()),
            client_id: params.client_id.as_str().into(),
            reset: params.reset,
            isolation: params.isolation,
        };
        let batch = params
            .batch_size
            .map(|size| Batch::new(size, settings.send_buffer, now));
        let commits =
            (!params.auto_commit).then(|| Commits::new(app.config.commits.max_stack_size));
        Self {
            consumer: Consumer::join(&app.client, subscription, seat.call().wake.clone()),
            socket,
            types: params.types,
            current: None,
            out: Outgoing::default(),
            batch,
            rate: params.rate.map(|rate| Rate::new(rate, now)),
            ledger: Ledger::new(commits),
            blocked: None,
            keepalive: Keepalive::new(settings.ping_interval, now),
            probed: false,
            seat,
            _place: place,
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
        self.seat.leaving();
        let rest = self.current.as_ref().map_or(&[][..], Current::rest);
        let out = self.out.into_bytes(rest);
        drop(self.current);
        let (consumer, socket) = (self.consumer, self.socket);
        // The group gets the partitions back while the client is told. In a box of its own,
        // so that a socket that lives does not make room for its end.
        let goodbye = async { tokio::join!(consumer.close(), end.close(socket, out)) };
        Box::pin(goodbye).await;
    }

    async fn serve(&mut self) -> Result<End, End> {
        let call = Arc::clone(self.seat.call());
        let send_buffer = self.app.config.server.websocket.send_buffer;
        let timer = sleep_until(self.keepalive.next());
        tokio::pin!(timer);
        loop {
            while let Some(order) = call.order() {
                self.obey(order)?;
            }
            self.read()?;
            let flow = self.go_on()?;
            self.set(timer.as_mut(), flow);
            if flow == Flow::More {
                // Others get a turn, and so do our client's messages and the timer: with
                // several things to heed, one is picked at random.
                call.wake.notify();
                yield_now().await;
            }
            tokio::select! {
                // Records, news of the group, orders: the next round finds them.
                () = call.wake.notified() => {}
                ready = self.socket.writable(), if flow == Flow::Blocked => ready?,
                ready = self.socket.readable(), if self.out.len() < send_buffer => {
                    ready?;
                    self.fill()?;
                }
                () = &mut timer => self.tick()?,
            }
        }
    }

    fn obey(&mut self, order: Order) -> Result<(), End> {
        match order {
            Order::Stop => Err(End::Stopping),
            Order::Leave => Err(End::Fault(CloseFrame::new(
                CloseCode::POLICY_VIOLATION,
                "evicted: the client id connected again, and this client did not answer",
            ))),
            Order::Probe => {
                self.probed = true;
                self.out.write(|frames| frame::write_ping(frames, b""));
                Ok(())
            }
        }
    }

    /// Delivers what is here, and takes more while there is more, for one turn. Afterwards,
    /// but for [`Flow::More`], the wake signal is notified when there is more to take or to do.
    fn go_on(&mut self) -> Result<Flow, End> {
        for _ in 0..STEPS_PER_TURN {
            let now = Instant::now();
            let flow = self.deliver(now)?;
            self.blocked = match flow {
                Flow::Blocked => self.blocked.or(Some(now)),
                _ => None,
            };
            let event = match flow {
                Flow::Open | Flow::More => self.consumer.try_next(),
                // Only what is no record while records cannot be taken.
                Flow::Blocked | Flow::Limited(_) => self.consumer.try_next_except_records(),
            };
            match event {
                None => return Ok(flow),
                Some(event) => self.heed(event, now)?,
            }
        }
        Ok(Flow::More)
    }

    fn heed(&mut self, event: ConsumerEvent, now: Instant) -> Result<(), End> {
        match event {
            ConsumerEvent::Records(slice) => {
                self.current = Some(Current::new(slice, self.types, now));
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
    fn deliver(&mut self, now: Instant) -> Result<Flow, End> {
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
                    return Ok(Flow::Blocked);
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
                let next = self.rate.map_or(now, |rate| rate.next());
                self.let_go(AHEAD_BYTES);
                if let Flow::Blocked = self.send_batch_if_due(now)? {
                    return Ok(Flow::Blocked);
                }
                return Ok(Flow::Limited(next));
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
                        rate.spend(allowed - left);
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
                        rate.spend((done.len() + begun_now).saturating_sub(unpaid));
                    }
                    debug_assert_eq!(begun, done.start);
                    if current.is_ours {
                        let marks = &current.encoded.marks[done];
                        self.ledger
                            .delivered(&mut self.consumer, current.tp(), marks, now);
                    }
                    if taken < wanted {
                        return Ok(Flow::Blocked);
                    }
                }
            }
        }
    }

    /// Whether a frame that is written from its chunk is partly sent.
    fn is_inside_a_frame(&self) -> bool {
        self.current
            .as_ref()
            .is_some_and(Current::is_inside_a_frame)
    }

    /// Sends an array whose wait is over; also one that nothing more will come to.
    fn send_batch_if_due(&mut self, now: Instant) -> Result<Flow, End> {
        let Some(batch) = &mut self.batch else {
            return Ok(Flow::Open);
        };
        if batch.is_full() || batch.due().is_some_and(|due| due <= now) {
            batch.send(&mut self.out);
            let all = self.out.flush(&self.socket)?;
            self.note_sent(now);
            if !all {
                return Ok(Flow::Blocked);
            }
        }
        Ok(Flow::Open)
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
                self.ledger
                    .passed(&mut self.consumer, current.tp(), end, now);
            }
            (None, _) => {}
        }
    }

    /// Notes what of our own buffer the kernel has taken.
    fn note_sent(&mut self, now: Instant) {
        while let Some(delivered) = self.out.delivered() {
            self.ledger
                .delivered(&mut self.consumer, &delivered.tp, &delivered.marks, now);
            if let Some(end) = delivered.end {
                self.ledger
                    .passed(&mut self.consumer, &delivered.tp, end, now);
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
    fn drop_partitions(&mut self, partitions: &[TopicPartition], now: Instant) -> Result<(), End> {
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
        self.ledger.forget(partitions);
        Ok(())
    }

    fn fill(&mut self) -> Result<(), End> {
        match self.socket.fill()? {
            Fill::Some => {
                self.keepalive.heard(Instant::now());
                Ok(())
            }
            Fill::Empty => Ok(()),
            Fill::End => Err(End::Lost),
        }
    }

    /// Takes the messages that have been read.
    fn read(&mut self) -> Result<(), End> {
        while self.out.len() < self.app.config.server.websocket.send_buffer {
            let message = self.socket.message()?;
            // A goodbye is no sign of life: its client may be the one that comes again.
            let alive = !matches!(message, None | Some(WebSocketMessage::Close(_)));
            if alive && std::mem::take(&mut self.probed) {
                self.seat.call().alive.notify_waiters();
            }
            match message {
                None => return Ok(()),
                Some(WebSocketMessage::Text(text)) => self.commit(text.as_bytes()),
                Some(WebSocketMessage::Binary(_)) => {
                    let reason = "binary frames need socketPayload=avro";
                    return Err(End::Fault(CloseFrame::new(
                        CloseCode::UNSUPPORTED_DATA,
                        reason,
                    )));
                }
                Some(WebSocketMessage::Ping(payload)) => {
                    self.out.write(|frames| frame::write_pong(frames, &payload));
                }
                Some(WebSocketMessage::Pong(_)) => {}
                Some(WebSocketMessage::Close(close)) => return Err(End::Peer(close)),
            }
        }
        Ok(())
    }

    /// A client commits.
    fn commit(&mut self, text: &[u8]) {
        let Err(rejection) = self.ledger.commit(&mut self.consumer, text) else {
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
    fn tick(&mut self) -> Result<(), End> {
        let now = Instant::now();
        self.ledger.tick(&mut self.consumer, now);
        if let Some(since) = self.blocked {
            let limit = self.app.client.consumer_config().max_poll_interval;
            if now >= since + limit {
                return Err(End::Slow);
            }
            let held = self.current.as_ref().map(|current| current.since);
            if now >= since + LET_GO_AFTER || held.is_some_and(|at| now >= at + CHUNK_HELD_MAX) {
                self.let_go(0);
            }
            // A ping would stand behind what the client does not read.
            self.keepalive.heard(now);
        }
        match self.keepalive.due(now) {
            Due::Nothing => {}
            Due::Gone => return Err(End::Silent),
            Due::Ping => {
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
    fn set(&self, timer: Pin<&mut Sleep>, flow: Flow) {
        let mut next = self.keepalive.next();
        let mut sooner = |at: Option<Instant>| next = at.map_or(next, |at| next.min(at));
        sooner(self.ledger.due());
        let batch = self.batch.as_ref().and_then(Batch::due);
        match flow {
            Flow::Open | Flow::More => sooner(batch),
            Flow::Limited(until) => {
                sooner(batch);
                sooner(Some(until));
            }
            // An array that is due goes when the kernel takes bytes again.
            Flow::Blocked => {
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
