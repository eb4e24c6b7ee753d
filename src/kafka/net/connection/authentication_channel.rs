//! The way of requests that authenticate: past all others, which wait meanwhile.
//!
//! ```text
//! not authenticated ── authenticated(until) ─▶ authenticated
//!        ▲                                          │ a request is to be written, and it is time
//!        └──────────────── renewal is due ◀─────────┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::in_flight::{QueuedRequest, ResponseSender};
use super::{ConnectionState, ResponseFuture};
use crate::error::{BrokerAddress, RequestError};
use crate::net::frame;
use crate::protocol::versions::Api;

/// The end of whoever authenticates. Does not keep the connection open.
#[derive(Debug)]
pub(crate) struct AuthenticationChannel {
    state: Arc<ConnectionState>,
    events: mpsc::Sender<AuthenticationEvent>,
    renewal: Arc<Notify>,
}

/// The writer's end.
#[derive(Debug)]
pub(super) struct WriterChannel {
    pub(super) events: mpsc::Receiver<AuthenticationEvent>,
    /// Notified when it is time to authenticate again.
    pub(super) renewal: Arc<Notify>,
    /// Whether other requests may be written.
    pub(super) is_authenticated: bool,
    pub(super) renew_at: Option<Instant>,
}

#[derive(Debug)]
pub(super) enum AuthenticationEvent {
    /// To be written at once, and answered within that time from when everything before it is.
    Request(QueuedRequest, Duration),
    /// Other requests may be written, until it is time to authenticate again.
    Authenticated(Option<Instant>),
}

pub(super) fn channel(state: Arc<ConnectionState>) -> (AuthenticationChannel, WriterChannel) {
    // One request at a time, and what follows its response.
    let (sender, events) = mpsc::channel(2);
    let renewal = Arc::new(Notify::new());
    let channel = AuthenticationChannel {
        state,
        events: sender,
        renewal: Arc::clone(&renewal),
    };
    let writer = WriterChannel {
        events,
        renewal,
        is_authenticated: false,
        renew_at: None,
    };
    (channel, writer)
}

impl AuthenticationChannel {
    /// The broker at the other end.
    pub(crate) fn broker(&self) -> &BrokerAddress {
        &self.state.broker
    }

    /// As [`Connection::version`](super::Connection::version).
    pub(crate) fn version<A: Api>(&self) -> Result<i16, RequestError> {
        self.state.version::<A>()
    }

    /// Sends a request that is part of authenticating. `timeout` runs from when all requests
    /// before it are answered, or at the latest when they would have been given up.
    pub(crate) async fn call<A: Api>(
        &self,
        version: i16,
        request: &A,
        timeout: Duration,
    ) -> Result<A::Response, RequestError> {
        let frame = frame::encode(&self.state.client_id, version, request)?;
        let (sender, receiver) = oneshot::channel();
        let handler = ResponseSender::<A>::new(Arc::clone(&self.state), version, timeout, sender);
        let queued = QueuedRequest {
            frame,
            deadline: Instant::now() + timeout,
            handler: Box::new(handler),
        };
        let event = AuthenticationEvent::Request(queued, timeout);
        if let Err(mpsc::error::SendError(AuthenticationEvent::Request(queued, _))) =
            self.events.send(event).await
        {
            queued.handler.fail(self.state.disconnected_error(false));
        }
        let response: ResponseFuture<A> = ResponseFuture {
            receiver,
            state: Arc::clone(&self.state),
        };
        response.await
    }

    /// Lets other requests be written, until it is time to authenticate again.
    pub(crate) async fn authenticated(&self, renew_at: Option<Instant>) {
        let event = AuthenticationEvent::Authenticated(renew_at);
        // If it fails, the connection has ended.
        let _ = self.events.send(event).await;
    }

    /// Completes when it is time to authenticate again: true; or the connection has ended: false.
    pub(crate) async fn renewal_is_due(&self) -> bool {
        tokio::select! {
            () = self.state.closed.cancelled() => false,
            () = self.renewal.notified() => true,
        }
    }

    /// Ends the connection.
    pub(crate) fn disconnect(&self, reason: &str) {
        self.state.disconnect(reason);
    }
}

impl WriterChannel {
    /// Whether a request may be written. If it is time to authenticate again, it may not, and
    /// that begins.
    pub(super) fn may_write(&mut self, now: Instant) -> bool {
        if self.is_authenticated && self.renew_at.is_some_and(|at| at <= now) {
            self.is_authenticated = false;
            self.renewal.notify_one();
        }
        self.is_authenticated
    }
}

/// What happens next on the channel; never, if there is none.
pub(super) async fn next_event(channel: &mut Option<WriterChannel>) -> Option<AuthenticationEvent> {
    match channel {
        Some(channel) => channel.events.recv().await,
        None => std::future::pending().await,
    }
}
