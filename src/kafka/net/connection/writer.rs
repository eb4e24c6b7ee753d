//! The task that writes requests in the order they were queued.
//!
//! Each request is announced to the reader before its first byte is written, so that no
//! response can come before its request is known to be in flight.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::{self, Permit};
use tokio::time::{Instant, sleep_until};

use super::authentication_channel::{AuthenticationEvent, WriterChannel, next_event};
use super::in_flight::{InFlightRequest, QueuedRequest};
use super::{ConnectionState, FIRST_CORRELATION_ID, QUEUED_MAX};
use crate::net::frame;

/// Small requests that are queued together are written together, up to this size.
const GATHERED_MAX: usize = 64 << 10;

pub(super) async fn run<W: AsyncWrite + Unpin>(
    state: Arc<ConnectionState>,
    sink: W,
    queue: mpsc::Receiver<QueuedRequest>,
    announce: mpsc::Sender<InFlightRequest>,
    channel: Option<WriterChannel>,
) {
    // Even a panic ends the whole connection.
    let _end = state.closed.clone().drop_guard();
    let mut writer = RequestWriter {
        state,
        sink,
        queue,
        queued: VecDeque::new(),
        next_correlation_id: FIRST_CORRELATION_ID,
        channel,
        latest_deadline: Instant::now(),
    };
    writer.write_until_closed(&announce).await;
    // The reader may still wait for responses; it ends after the last one.
    drop(announce);
    if writer.state.closed.is_cancelled() {
        writer.fail_unsent().await;
    } else {
        writer.state.closed.cancelled().await;
    }
    let _ = writer.sink.shutdown().await;
}

struct RequestWriter<W> {
    state: Arc<ConnectionState>,
    sink: W,
    queue: mpsc::Receiver<QueuedRequest>,
    /// Taken from the queue, so that their deadlines can be watched.
    queued: VecDeque<QueuedRequest>,
    next_correlation_id: i32,
    /// Of a connection that is authenticated by SASL.
    channel: Option<WriterChannel>,
    /// That of all requests that were written.
    latest_deadline: Instant,
}

impl<W: AsyncWrite + Unpin> RequestWriter<W> {
    /// Returns when the connection has ended, or nobody is left to send anything.
    async fn write_until_closed(&mut self, announce: &mpsc::Sender<InFlightRequest>) {
        let mut callers_are_alive = true;
        while callers_are_alive || !self.queued.is_empty() {
            let throttled = self.state.throttled_until();
            let is_idle = self.queued.is_empty();
            let may_write = !is_idle && throttled.is_none() && self.is_authenticated();
            let wake_at = self.next_deadline(throttled);
            tokio::select! {
                biased;
                () = self.state.closed.cancelled() => return,
                event = next_event(&mut self.channel) => match event {
                    Some(event) => {
                        if !self.follow_event(event, announce).await {
                            return;
                        }
                    }
                    // Nobody will authenticate it again.
                    None => self.channel = None,
                },
                next = self.queue.recv(), if callers_are_alive && self.queued.len() < QUEUED_MAX => match next {
                    Some(request) => self.queued.push_back(request),
                    None => callers_are_alive = false,
                },
                permit = announce.reserve(), if may_write => match permit {
                    Ok(permit) => {
                        if !self.write_queued(permit, announce).await {
                            return;
                        }
                    }
                    // The reader is gone, and with it the connection.
                    Err(_) => return,
                },
                () = sleep_until(wake_at), if !is_idle => self.expire_queued(Instant::now()),
            }
        }
    }

    /// Whether requests may be written. If it is time to authenticate again, that begins.
    fn is_authenticated(&mut self) -> bool {
        let channel = self.channel.as_mut();
        channel.is_none_or(|channel| channel.may_write(Instant::now()))
    }

    /// Does what whoever authenticates asks for; false when that ended the connection.
    async fn follow_event(
        &mut self,
        event: AuthenticationEvent,
        announce: &mpsc::Sender<InFlightRequest>,
    ) -> bool {
        match event {
            AuthenticationEvent::Authenticated(renew_at) => {
                if let Some(channel) = &mut self.channel {
                    channel.is_authenticated = true;
                    channel.renew_at = renew_at;
                }
                true
            }
            AuthenticationEvent::Request(mut request, timeout) => {
                let Ok(permit) = announce.reserve().await else {
                    return false;
                };
                // The broker answers it after all those before it.
                request.deadline = self.latest_deadline.max(Instant::now()) + timeout;
                let bytes = self.put_in_flight(request, permit);
                self.write(&bytes).await
            }
        }
    }

    /// When the first deadline of a queued request passes, or the throttle ends.
    fn next_deadline(&self, throttled: Option<Instant>) -> Instant {
        let deadlines = self.queued.iter().map(|request| request.deadline);
        deadlines
            .chain(throttled)
            .min()
            .unwrap_or_else(Instant::now)
    }

    /// Writes the oldest request, and those after it that are small; false when that
    /// ended the connection.
    async fn write_queued(
        &mut self,
        permit: Permit<'_, InFlightRequest>,
        announce: &mpsc::Sender<InFlightRequest>,
    ) -> bool {
        let Some(request) = self.next_unexpired() else {
            return true;
        };
        let mut bytes = self.put_in_flight(request, permit);
        while let Some(next) = self.queued.front() {
            if bytes.len() + next.frame.len() > GATHERED_MAX {
                break;
            }
            let Ok(permit) = announce.try_reserve() else {
                break;
            };
            let Some(request) = self.next_unexpired() else {
                break;
            };
            bytes.unsplit(self.put_in_flight(request, permit));
        }
        self.write(&bytes).await
    }

    /// False when that ended the connection.
    async fn write(&mut self, bytes: &[u8]) -> bool {
        tokio::select! {
            biased;
            () = self.state.closed.cancelled() => false,
            written = write(&mut self.sink, bytes) => match written {
                Ok(()) => true,
                Err(error) => {
                    self.state.disconnect(&format!("writing failed: {error}"));
                    false
                }
            },
        }
    }

    /// The oldest request whose time is not up; those before it are failed.
    fn next_unexpired(&mut self) -> Option<QueuedRequest> {
        let now = Instant::now();
        while let Some(request) = self.queued.pop_front() {
            if request.deadline > now {
                return Some(request);
            }
            let error = request.handler.timeout_error(false);
            request.handler.fail(error);
        }
        None
    }

    /// Numbers a request and announces it to the reader.
    fn put_in_flight(
        &mut self,
        request: QueuedRequest,
        permit: Permit<'_, InFlightRequest>,
    ) -> BytesMut {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = self.next_correlation_id.wrapping_add(1) & i32::MAX;
        self.latest_deadline = self.latest_deadline.max(request.deadline);
        let mut frame = request.frame;
        frame::set_correlation_id(&mut frame, correlation_id);
        permit.send(InFlightRequest {
            correlation_id,
            deadline: request.deadline,
            handler: request.handler,
        });
        frame
    }

    /// Fails the requests whose time passed before they could be written.
    fn expire_queued(&mut self, now: Instant) {
        if !self.queued.iter().any(|request| request.deadline <= now) {
            return;
        }
        for request in std::mem::take(&mut self.queued) {
            if request.deadline <= now {
                let error = request.handler.timeout_error(false);
                request.handler.fail(error);
            } else {
                self.queued.push_back(request);
            }
        }
    }

    /// Gives an error to every caller of whose request nothing was written.
    async fn fail_unsent(&mut self) {
        self.queue.close();
        for request in self.queued.drain(..) {
            request.handler.fail(self.state.disconnected_error(false));
        }
        while let Some(request) = self.queue.recv().await {
            request.handler.fail(self.state.disconnected_error(false));
        }
    }
}

async fn write(sink: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    sink.write_all(bytes).await?;
    sink.flush().await
}
