//! `/socket/in`: frames to records, acknowledgements to answers. One task per socket.
//!
//! ```text
//! client ─▶ read ─▶ frame ─▶ codec::inbound ─▶ Producer::try_send ─▶ PendingAcks (in order)
//!   ▲       └ paused while answers, or the producer's memory, are full ┘      │
//!   └───────────────────────── one write for all that settled ◀───────────────┘
//! ```
//!
//! # Invariants
//! - Records are parsed where they were read, and copied once: into their batch.
//! - Whatever has to wait (the producer's memory, a full queue, a client that does not
//!   read its answers) stops the reading of this socket, and nothing else.
//! - Every record that was taken is answered before our close frame, within five seconds
//!   after a client's close, within the grace when the server stops.

mod pending_acks;

use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tracing::debug;

use super::close::CloseReason;
use super::keepalive::{Keepalive, KeepaliveAction};
use super::stream::{ReadStatus, WebSocketStream};
use crate::app::App;
use crate::app::registry::ConnectionSlot;
use crate::codec::RecordFormats;
use crate::codec::inbound::{InboundRecord, ProduceFrame};
use kafka_client::metadata::TopicMetadata;
use kafka_client::producer::Producer;
use kafka_client::record::NewRecord;
use pending_acks::{AckState, FramePosition, PendingAcks, error_code};
use websocket::frame::{self, CloseCode, CloseFrame, WebSocketMessage};

/// How long the answers still due may take after a client's close.
const FLUSH_MAX: Duration = Duration::from_secs(5);
/// Bytes of unanswered records, in send buffers.
const UNANSWERED_BUFFERS: usize = 16;

/// One producing client.
pub(super) struct ProducingSocket {
    app: App,
    socket: WebSocketStream,
    producer: Producer,
    topic: Arc<TopicMetadata>,
    formats: RecordFormats,
    answers: PendingAcks,
    /// Frames on their way to the client.
    out: BytesMut,
    out_max: usize,
    scratch: Vec<u8>,
    keepalive: Keepalive,
    /// When the client last took something of `out`, or `out` was empty.
    took: Instant,
    /// Given back when the socket ends.
    _connection_slot: ConnectionSlot,
}

impl ProducingSocket {
    pub(super) fn new(
        app: App,
        socket: WebSocketStream,
        formats: RecordFormats,
        topic: Arc<TopicMetadata>,
        connection_slot: ConnectionSlot,
    ) -> Self {
        let settings = &app.config.server.websocket;
        let out_max = settings.send_buffer;
        let keepalive = Keepalive::new(settings.ping_interval, Instant::now());
        Self {
            answers: PendingAcks::new(
                topic.name.clone(),
                out_max.saturating_mul(UNANSWERED_BUFFERS),
            ),
            producer: app.client.producer().clone(),
            app,
            socket,
            topic,
            formats,
            out: BytesMut::new(),
            out_max,
            scratch: Vec::new(),
            keepalive,
            took: Instant::now(),
            _connection_slot: connection_slot,
        }
    }

    /// Serves the socket to its end.
    pub(super) async fn run(mut self) {
        let end = match self.serve().await {
            Ok(end) | Err(end) => end,
        };
        debug!(?end, topic = %self.topic.name, "producing socket ends");
        let settle_max = match &end {
            CloseReason::PeerClosed(_) | CloseReason::Fail(_) => FLUSH_MAX,
            // The server cuts what is left when the grace is over.
            CloseReason::ServerStopping => self.app.config.server.shutdown_grace,
            CloseReason::ConnectionLost | CloseReason::PingTimeout | CloseReason::SlowClient => {
                Duration::ZERO
            }
        };
        if !settle_max.is_zero() {
            let settled = timeout(settle_max, self.settle()).await;
            if let Ok(Err(_)) = settled {
                return;
            }
        }
        // In a box of its own: a socket that lives does not make room for its end.
        Box::pin(end.close(self.socket, self.out)).await;
    }

    async fn serve(&mut self) -> Result<CloseReason, CloseReason> {
        let app = self.app.clone();
        let stopping = app.draining.cancelled();
        tokio::pin!(stopping);
        let timer = sleep_until(self.keepalive.next_check_at());
        tokio::pin!(timer);
        loop {
            self.read().await?;
            self.answer()?;
            let reading = self.may_read();
            let answering = self.out.len() < self.out_max && !self.answers.is_empty();
            let writing = !self.out.is_empty();
            if writing && self.slow_at() < timer.deadline() {
                timer.as_mut().reset(self.slow_at());
            }
            tokio::select! {
                biased;
                () = &mut stopping => return Ok(CloseReason::ServerStopping),
                () = self.answers.ready(), if answering => {}
                ready = self.socket.writable(), if writing => ready?,
                ready = self.socket.readable(), if reading => {
                    ready?;
                    self.fill()?;
                }
                () = &mut timer => {
                    let next = self.tick(reading)?;
                    timer.as_mut().reset(next);
                }
            }
        }
    }

    /// Whether what comes now could be answered.
    fn may_read(&self) -> bool {
        self.answers.has_room() && self.out.len() < self.out_max
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
    async fn read(&mut self) -> Result<(), CloseReason> {
        while self.may_read() {
            match self.socket.next_message()? {
                None => return Ok(()),
                Some(WebSocketMessage::Text(text)) => self.take(text.as_bytes()).await?,
                Some(WebSocketMessage::Binary(_)) => {
                    let reason = "binary frames need socketPayload=avro";
                    return Err(CloseReason::Fail(CloseFrame::new(
                        CloseCode::UNSUPPORTED_DATA,
                        reason,
                    )));
                }
                Some(WebSocketMessage::Ping(payload)) => frame::write_pong(&mut self.out, &payload),
                Some(WebSocketMessage::Pong(_)) => {}
                Some(WebSocketMessage::Close(close)) => return Err(CloseReason::PeerClosed(close)),
            }
        }
        Ok(())
    }

    /// Sends the records of one frame.
    async fn take(&mut self, payload: &[u8]) -> Result<(), CloseReason> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut frame = ProduceFrame::new(self.formats, payload, &mut scratch);
        if frame.is_array() && frame.is_empty() {
            // In its place, which is after everything that is owed.
            self.settle().await?;
            frame::write_text(&mut self.out, b"[]");
        }
        let now = timestamp();
        let (len, is_array) = (frame.len(), frame.is_array());
        let mut index = 0;
        while let Some(record) = frame.next_record() {
            let position = match is_array {
                false => FramePosition::Single,
                true => FramePosition::ArrayElement {
                    first: index == 0,
                    last: index + 1 == len,
                },
            };
            index += 1;
            let (outcome, message_id, size) = match record {
                Ok(record) => {
                    let size = size(&record);
                    let outcome = self.send(&record, now).await?;
                    (outcome, record.message_id, size)
                }
                Err(rejection) => {
                    let refused = (rejection.code, rejection.message.into_owned());
                    (
                        AckState::Rejected(Box::new(refused)),
                        rejection.message_id,
                        0,
                    )
                }
            };
            self.answers.push(outcome, position, message_id, size);
            while !self.answers.has_room() {
                self.progress().await?;
            }
        }
        self.scratch = scratch;
        Ok(())
    }

    /// Gives a record to the producer. Waits while its memory is spent, and goes on
    /// answering meanwhile.
    async fn send(
        &mut self,
        record: &InboundRecord<'_>,
        now: i64,
    ) -> Result<AckState, CloseReason> {
        let new = NewRecord {
            key: record.key,
            value: record.value,
            headers: &record.headers,
            timestamp: record.timestamp.unwrap_or(now),
        };
        let sent = match self.producer.try_send(&self.topic, record.partition, &new) {
            Ok(Some(delivery)) => return Ok(AckState::Sent(delivery)),
            Ok(None) => {
                let (producer, topic) = (self.producer.clone(), self.topic.clone());
                let sending = producer.send(&topic, record.partition, &new);
                tokio::pin!(sending);
                loop {
                    let owed = !self.answers.is_empty() || !self.out.is_empty();
                    tokio::select! {
                        sent = &mut sending => break sent,
                        progress = self.progress(), if owed => progress?,
                    }
                }
            }
            Err(error) => Err(error),
        };
        Ok(match sent {
            Ok(delivery) => AckState::Sent(delivery),
            Err(error) => AckState::Rejected(Box::new((error_code(&error), error.to_string()))),
        })
    }

    /// Waits for something to answer, or for the client to take answers; answers.
    async fn progress(&mut self) -> Result<(), CloseReason> {
        let answering = self.out.len() < self.out_max && !self.answers.is_empty();
        let writing = !self.out.is_empty();
        let slow = self.slow_at();
        tokio::select! {
            () = self.answers.ready(), if answering => {}
            ready = self.socket.writable(), if writing => ready?,
            () = sleep_until(slow), if writing => return Err(CloseReason::SlowClient),
        }
        self.answer()
    }

    /// PendingAcks everything that is owed.
    async fn settle(&mut self) -> Result<(), CloseReason> {
        self.answer()?;
        while !self.answers.is_empty() || !self.out.is_empty() {
            self.progress().await?;
        }
        Ok(())
    }

    /// Writes what can be answered now.
    fn answer(&mut self) -> Result<(), CloseReason> {
        loop {
            self.answers.write_ready(&mut self.out, self.out_max);
            let before = self.out.len();
            let all = self.socket.flush(&mut self.out)?;
            if all || self.out.len() < before {
                self.took = Instant::now();
            }
            if !all || before < self.out_max {
                return Ok(());
            }
        }
    }

    /// The timer has rung: pings, gives up, or cleans up. Says when to ring next.
    fn tick(&mut self, reading: bool) -> Result<Instant, CloseReason> {
        let now = Instant::now();
        if !self.out.is_empty() && now >= self.slow_at() {
            return Err(CloseReason::SlowClient);
        }
        if !reading || !self.out.is_empty() {
            // Its silence is ours: we do not listen, or cannot ask.
            self.keepalive.record_activity(now);
        }
        match self.keepalive.check(now) {
            KeepaliveAction::None => {}
            KeepaliveAction::TimedOut => return Err(CloseReason::PingTimeout),
            KeepaliveAction::Ping => {
                frame::write_ping(&mut self.out, b"");
                self.socket.flush(&mut self.out)?;
            }
        }
        self.answers.shrink();
        if self.out.is_empty() {
            self.out = BytesMut::new();
            self.scratch = Vec::new();
        }
        Ok(self.keepalive.next_check_at())
    }

    /// When a client that takes nothing has had long enough.
    fn slow_at(&self) -> Instant {
        self.took + self.app.client.consumer_config().max_poll_interval
    }
}

fn size(record: &InboundRecord<'_>) -> usize {
    record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)
}

fn timestamp() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

impl From<io::Error> for CloseReason {
    fn from(_: io::Error) -> Self {
        CloseReason::ConnectionLost
    }
}
