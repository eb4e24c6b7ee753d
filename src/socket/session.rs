//! What both kinds of sockets have in common: the connection, the frames to write, the
//! messages that do not concern the endpoint, the registry's signals, the timer for clients
//! that are silent or take nothing, and the closing handshake.
//!
//! ```text
//! client ─▶ read_available ─▶ next_text ─┬ text ──▶ endpoint ── frames ─┐
//!                                        ├ ping ──▶ pong ───────────────┤
//!                                        └ close ─▶ CloseReason         ▼
//! client ◀────────────────────────────────────────── flush ◀──── WriteBuffer
//! registry ─ SocketSignal ─▶ CloseReason, or a ping
//! ```
//!
//! # Invariants
//! - No message is taken while the write buffer is full: a client that does not read cannot
//!   make it grow. What was read is taken as soon as there is room again.
//! - The client is pinged and timed out only while it is read from and a ping can reach it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::FutureExt;
use secret::Secret;
use tokio::time::{Duration, Instant, Sleep, timeout_at};

use super::close::CloseReason;
use super::compression;
use super::keepalive::{Keepalive, KeepaliveAction};
use super::stream::{ReadStatus, WebSocketStream};
use super::turn::{self, STEPS_PER_TURN, TaskTurn};
use super::write_buffer::WriteBuffer;
use crate::config::Config;
use crate::session::registry::{SocketHandle, SocketSignal};
use crate::session::socket_authentication::RenewalError;
use websocket::frame::{
    self, CloseCode, CloseFrame, CompressedMessage, Utf8Bytes, WebSocketMessage,
};

/// How long a close frame may take to be sent.
pub(super) const CLOSE_SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// A message that is no control frame.
#[derive(Debug)]
pub(super) enum DataMessage {
    /// Text.
    Text(Utf8Bytes),
    /// Bytes.
    Binary(Bytes),
}

/// Why a socket with Avro is closed whose client sends text that is no command.
pub(super) fn text_is_no_command() -> CloseReason {
    CloseReason::Fail(CloseFrame::new(
        CloseCode::UNSUPPORTED_DATA,
        "with socketPayload=avro messages are binary, and text is a command",
    ))
}

/// One client's connection.
#[derive(Debug)]
pub(super) struct SocketSession {
    stream: WebSocketStream,
    /// Wakes the socket's task, and brings it signals.
    handle: Arc<SocketHandle>,
    /// Whether the registry waits to hear from this client.
    probed: bool,
    /// Pings and pongs since they were asked for.
    control_frames: u32,
    /// Of inflating messages: how long they are, reading them does not show.
    inflating: TaskTurn,
    /// Frames to be written.
    pub(super) out: WriteBuffer,
    /// From this many bytes on `out` is full.
    out_max: usize,
    /// Since when the kernel takes nothing of what there is to write.
    blocked_since: Option<Instant>,
    /// How long that may last.
    blocked_max: Duration,
    keepalive: Keepalive,
    /// Until when the client may be here, if that ends.
    expires_at: Option<Instant>,
    /// When the client was read from last: the messages that are here came before.
    read_at: Instant,
}

impl SocketSession {
    /// A session that keeps at most `out_keep_max` bytes for an empty write buffer.
    pub(super) fn new(
        stream: WebSocketStream,
        handle: Arc<SocketHandle>,
        config: &Config,
        out_keep_max: usize,
    ) -> Self {
        let settings = &config.server.websocket;
        let deflate = stream.limits().deflate;
        let expires_at = handle.authentication().map(|by| by.expires_at);
        Self {
            stream,
            handle,
            expires_at,
            probed: false,
            control_frames: 0,
            inflating: TaskTurn::default(),
            out: WriteBuffer::new(out_keep_max, deflate),
            out_max: settings.send_buffer,
            blocked_since: None,
            blocked_max: config.consumer.max_poll_interval,
            keepalive: Keepalive::new(settings.ping_interval, Instant::now()),
            read_at: Instant::now(),
        }
    }

    /// Wakes the socket's task, and brings it signals.
    pub(super) fn handle(&self) -> &Arc<SocketHandle> {
        &self.handle
    }

    /// Takes the signals that the registry has sent.
    pub(super) fn handle_signals(&mut self) -> Result<(), CloseReason> {
        while let Some(signal) = self.handle.take_signal() {
            match signal {
                SocketSignal::Stop => {
                    let reconnect_after = self.handle.reconnect_after();
                    return Err(CloseReason::ServerStopping { reconnect_after });
                }
                SocketSignal::CloseByAdmin => {
                    return Err(CloseReason::Fail(CloseFrame::new(
                        CloseCode::POLICY_VIOLATION,
                        "closed by an administrator",
                    )));
                }
                SocketSignal::Fence => return Err(CloseReason::fenced()),
                SocketSignal::Evict => {
                    return Err(CloseReason::Fail(CloseFrame::new(
                        CloseCode::POLICY_VIOLATION,
                        "evicted: the client id connected again, and this client did not answer",
                    )));
                }
                SocketSignal::Supersede => {
                    return Err(CloseReason::Fail(CloseFrame::new(
                        CloseCode::POLICY_VIOLATION,
                        "the client id is connected at another node: this one was cut off from it",
                    )));
                }
                SocketSignal::RefuseCredentials => {
                    return Err(CloseReason::Fail(CloseFrame::new(
                        CloseCode::POLICY_VIOLATION,
                        "the brokers do not accept this socket's Kafka credentials any more",
                    )));
                }
                SocketSignal::ExpireAuthentication => {
                    // A renewed token may have been signed with another key.
                    if self.is_authentication_withdrawn() {
                        return Err(CloseReason::AuthenticationExpired);
                    }
                }
                SocketSignal::LosePlace => {
                    return Err(CloseReason::Fail(CloseFrame::new(
                        CloseCode::TRY_AGAIN_LATER,
                        "others have its place: this node was cut off from theirs",
                    )));
                }
                SocketSignal::Probe => {
                    self.probed = true;
                    self.ping();
                }
            }
        }
        Ok(())
    }

    /// How many pings and pongs have been handled since the last call: no message, but work. A
    /// turn of them ([`STEPS_PER_TURN`]) ends [`next_data`](Self::next_data): there may be more.
    pub(super) fn take_control_frames(&mut self) -> u32 {
        std::mem::take(&mut self.control_frames)
    }

    /// From how many bytes on the write buffer is full.
    pub(super) fn out_max(&self) -> usize {
        self.out_max
    }

    /// Goes on with another token of the same client; when that expires.
    pub(super) async fn renew_authentication(
        &mut self,
        token: &Secret,
    ) -> Result<SystemTime, RenewalError> {
        let old = self.handle.authentication();
        let old = old.ok_or(RenewalError::NotByToken)?;
        let (new, expires_at) = old.renewed_by(token.reveal()).await?;
        self.expires_at = Some(new.expires_at);
        self.handle.authenticate(new);
        Ok(expires_at)
    }

    /// Whether the write buffer has room for the reply to a message.
    pub(super) fn has_room(&self) -> bool {
        self.out.len() < self.out_max
    }

    /// Until there is something to read. One task may wait at a time.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }

    /// Until the kernel takes bytes again. One task may wait at a time.
    pub(super) async fn writable(&self) -> io::Result<()> {
        self.stream.writable().await
    }

    /// Reads what there is, once; how many steps of the task's turn that and its frames take.
    pub(super) fn read_available(&mut self) -> Result<u32, CloseReason> {
        match self.stream.fill_buffer()? {
            ReadStatus::Data(bytes) => {
                self.read_at = Instant::now();
                self.keepalive.record_activity(self.read_at);
                Ok(turn::steps_of_read(bytes))
            }
            ReadStatus::WouldBlock => Ok(turn::steps_of_read(0)),
            ReadStatus::Eof => Err(CloseReason::HalfClosed),
        }
    }

    /// When the client was read from last: the messages that are here came before.
    pub(super) fn read_at(&self) -> Instant {
        self.read_at
    }

    /// The next text message of what has been read; as [`next_data`](Self::next_data).
    pub(super) async fn next_text(&mut self) -> Result<Option<Utf8Bytes>, CloseReason> {
        match self.next_data().await? {
            None => Ok(None),
            Some(DataMessage::Text(text)) => Ok(Some(text)),
            Some(DataMessage::Binary(_)) => Err(CloseReason::Fail(CloseFrame::new(
                CloseCode::UNSUPPORTED_DATA,
                "binary messages are for socketPayload=avro",
            ))),
        }
    }

    /// The next data message of what has been read, while there is room for replies. Answers
    /// pings on the way, for one turn of the task at most.
    pub(super) async fn next_data(&mut self) -> Result<Option<DataMessage>, CloseReason> {
        while self.has_room() && self.control_frames < STEPS_PER_TURN {
            let Some(message) = self.stream.next_message()? else {
                return Ok(None);
            };
            // A close frame does not count: the client may be the one that connects again.
            let is_close = matches!(message, WebSocketMessage::Close(_));
            if !is_close && std::mem::take(&mut self.probed) {
                self.handle.client_alive.notify_waiters();
            }
            let message = match message {
                // Boxed: the task of an open socket has no room for what not every one needs.
                WebSocketMessage::Compressed(message) => Box::pin(self.inflate(message)).await?,
                message => message,
            };
            match message {
                WebSocketMessage::Text(text) => return Ok(Some(DataMessage::Text(text))),
                WebSocketMessage::Binary(bytes) => return Ok(Some(DataMessage::Binary(bytes))),
                WebSocketMessage::Ping(payload) => {
                    self.control_frames += 1;
                    self.out
                        .append(|frames| frame::write_pong(frames, &payload));
                }
                WebSocketMessage::Pong(_) => self.control_frames += 1,
                // What was inflated is not compressed.
                WebSocketMessage::Compressed(_) => {}
                WebSocketMessage::Close(close) => return Err(CloseReason::PeerClosed(close)),
            }
        }
        Ok(None)
    }

    /// Inflates a message, in turns with other tasks: a read may bring many that are long.
    async fn inflate(
        &mut self,
        message: CompressedMessage,
    ) -> Result<WebSocketMessage, CloseReason> {
        let compressed_len = message.compressed_len();
        let inflated = compression::inflate(message, self.stream.limits().bytes_max).await?;
        let inflated_len = match &inflated {
            WebSocketMessage::Text(text) => text.as_bytes().len(),
            WebSocketMessage::Binary(bytes) => bytes.len(),
            _ => 0,
        };
        let bytes = compression::inflating_bytes(compressed_len, inflated_len);
        self.inflating.spend(turn::steps_of_read(bytes)).await;
        Ok(inflated)
    }

    /// Writes what is encrypted, then the buffer; whether all of it went.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        let before = (self.out.len(), self.stream.encrypted_gone());
        let all = self.out.flush(&mut self.stream)?;
        let after = (self.out.len(), self.stream.encrypted_gone());
        self.note_written(all, after != before);
        Ok(all)
    }

    /// Writes what is encrypted, and nothing else; whether all of it went.
    pub(super) fn flush_encrypted(&mut self) -> io::Result<bool> {
        if !self.stream.has_encrypted() {
            return Ok(true);
        }
        let before = self.stream.encrypted_gone();
        let all = self.stream.flush_encrypted()?;
        let some = self.stream.encrypted_gone() > before;
        self.note_written(all && self.out.is_empty(), some);
        Ok(all)
    }

    /// Whether there is something to write.
    pub(super) fn has_unsent(&self) -> bool {
        !self.out.is_empty() || self.stream.has_encrypted()
    }

    /// Of the bytes that were taken last, those that the kernel may not have.
    pub(super) fn in_flight(&self) -> usize {
        self.stream.in_flight()
    }

    /// How many bytes of the buffer the kernel has, of those that were ever appended. For what is
    /// written by way of the buffer alone.
    pub(super) fn out_written(&self) -> u64 {
        self.out.written() - self.stream.in_flight() as u64
    }

    /// Writes the buffer, or drops it when nothing can be written any more; whether it is
    /// empty. What such a client sent before it went can still be read.
    pub(super) fn flush_or_drop(&mut self) -> bool {
        self.flush().unwrap_or_else(|_| {
            self.out.clear();
            self.blocked_since = None;
            true
        })
    }

    /// Writes bytes that are not in the write buffer, which must be empty or to be written after
    /// them; how many were taken. Those of them that are [`in_flight`](Self::in_flight) the kernel
    /// may not have.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let before = self.stream.encrypted_gone();
        let taken = self.stream.write(bytes)?;
        let some = taken > 0 || self.stream.encrypted_gone() > before;
        self.note_written(taken == bytes.len() && !self.stream.has_encrypted(), some);
        Ok(taken)
    }

    /// Whether the kernel would take bytes now.
    pub(super) fn is_writable(&self) -> bool {
        self.stream.writable().now_or_never().is_some()
    }

    /// The client takes bytes again; there are none for it yet.
    pub(super) fn end_blocked(&mut self) {
        self.blocked_since = None;
    }

    fn note_written(&mut self, all: bool, some: bool) {
        if all {
            self.blocked_since = None;
        } else if some || self.blocked_since.is_none() {
            self.blocked_since = Some(Instant::now());
        }
    }

    /// Since when the kernel takes nothing of what there is to write.
    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since
    }

    /// When a client that takes nothing is closed; `None` while there is nothing to write.
    fn write_deadline(&self) -> Option<Instant> {
        let since = match self.blocked_since {
            None if !self.has_unsent() => return None,
            since => since.unwrap_or_else(Instant::now),
        };
        Some(since + self.blocked_max)
    }

    /// Until the kernel takes bytes again, which a client that takes nothing ends with
    /// [`CloseReason::SlowClient`]. Pends while there is nothing to write.
    pub(super) async fn writable_by_deadline(&self) -> Result<(), CloseReason> {
        let Some(deadline) = self.write_deadline() else {
            return std::future::pending().await;
        };
        match timeout_at(deadline, self.writable()).await {
            Ok(ready) => Ok(ready?),
            Err(_) => Err(CloseReason::SlowClient),
        }
    }

    /// When to call [`check`](Self::check).
    pub(super) fn next_check_at(&self) -> Instant {
        let ends = [self.write_deadline(), self.expires_at];
        let ends = ends.into_iter().flatten();
        ends.fold(self.keepalive.next_check_at(), Instant::min)
    }

    fn is_authentication_withdrawn(&self) -> bool {
        let by = self.handle.authentication();
        by.is_some_and(|by| by.key.is_withdrawn())
    }

    /// Closes a client whose token has expired, or that takes nothing, pings one that was silent for the ping interval and
    /// gives it up after two, frees memory. The silence of a client does not count while it is
    /// not read from (`reading`), or while a ping would wait for what it does not take.
    pub(super) fn check(&mut self, now: Instant, reading: bool) -> Result<(), CloseReason> {
        if self.expires_at.is_some_and(|end| now >= end) {
            return Err(CloseReason::AuthenticationExpired);
        }
        let deadline = self.write_deadline();
        if deadline.is_some_and(|deadline| now >= deadline) {
            return Err(CloseReason::SlowClient);
        }
        if !reading || deadline.is_some() {
            self.keepalive.record_activity(now);
        }
        match self.keepalive.check(now) {
            KeepaliveAction::None => {}
            KeepaliveAction::TimedOut => return Err(CloseReason::PingTimeout),
            KeepaliveAction::Ping => self.ping(),
        }
        self.out.shrink();
        Ok(())
    }

    /// Writes a ping.
    pub(super) fn ping(&mut self) {
        self.out.append(|frames| frame::write_ping(frames, b""));
    }

    /// Ends the session: sends what is left, then the close frame, and waits for the client
    /// to close.
    pub(super) async fn close(self, reason: &CloseReason) {
        match reason.close_frame() {
            Some(close) => {
                let out = self.out.into_bytes();
                self.stream.close(out, &close, CLOSE_SEND_TIMEOUT).await;
            }
            // A client that answers no ping reads no close frame, and one that waits for the rest
            // of a message must see that it does not come.
            None if matches!(reason, CloseReason::PingTimeout | CloseReason::FrameLost) => {
                self.stream.reset();
            }
            None => {}
        }
    }
}

/// Sets a socket's timer to what is due next. It is not moved back: firing early is harmless,
/// and moving it for every record is not cheap.
pub(super) fn set_timer(timer: Pin<&mut Sleep>, next: Instant) {
    if next < timer.deadline() || timer.is_elapsed() {
        timer.reset(next);
    }
}
