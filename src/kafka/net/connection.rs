//! One connection to one broker.
//!
//! A broker answers a connection's requests in the order sent, one at a time, so a
//! connection is two tasks around a bounded queue of in-flight requests:
//!
//! ```text
//! send() ─▶ queued requests ─▶ writer ─▶ socket ─▶ broker
//!                                │ in-flight requests, oldest first
//! ResponseFuture ◀───────────── reader ◀─ socket ◀────┘
//! ```
//!
//! # Invariants
//! - A request is written whole or the connection is dead.
//! - A caller that goes away leaves its request in flight: the response is read and
//!   dropped, and nobody else is given it.
//! - A response that is late, malformed or out of order ends the connection.
//! - When either half ends, every caller is given an error, and no request is accepted
//!   again. Reconnecting is the pool's work.
//! - Nothing is written before a throttle that the broker asked for has passed (KIP-219).

mod authentication_channel;
mod in_flight;
mod reader;
mod writer;

use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use kafka_protocol::protocol::StrBytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::authentication_channel::AuthenticationChannel;
use self::in_flight::{QueuedRequest, RequestCompletionHandler as _, ResponseSender};
use super::current_cluster::ConnectionCluster;
use super::frame::{self, FrameReader};
use super::last_answer::LastAnswer;
use crate::error::{BrokerAddress, RequestError};
use crate::metrics::{CountedConnection, RequestMetrics};
use crate::protocol::versions::{Api, NodeApiVersions};

/// Requests that may wait to be written. Beyond it callers wait.
const QUEUED_MAX: usize = 64;
/// Requests that may be written and not answered. Beyond it the queue waits.
const IN_FLIGHT_MAX: usize = 64;
/// That of ApiVersions is 0.
const FIRST_CORRELATION_ID: i32 = 1;

/// A live connection. Clones share it; when the last one is gone and no request is in
/// flight, it closes.
#[derive(Clone, Debug)]
pub struct Connection {
    queue: mpsc::Sender<QueuedRequest>,
    state: Arc<ConnectionState>,
}

/// What a connection is made of, once both ends have agreed on versions.
pub(crate) struct ConnectionParts<R, W> {
    pub(crate) broker: BrokerAddress,
    /// The cluster that the broker is expected to belong to.
    pub(crate) cluster: ConnectionCluster,
    pub(crate) client_id: StrBytes,
    pub(crate) versions: NodeApiVersions,
    pub(crate) responses: FrameReader<R>,
    pub(crate) requests: W,
    /// Closed after this long without a request (`connections.max.idle.ms`).
    pub(crate) max_idle: Duration,
    /// Dropped when the connection is closed.
    pub(crate) open_connections: (Arc<()>, CountedConnection),
    pub(crate) requests_metrics: Arc<RequestMetrics>,
    /// Notified when it was lost, rather than closed because nobody used it.
    pub(crate) lost: Arc<Notify>,
    /// When any broker answered last.
    pub(crate) last_answer: Arc<LastAnswer>,
}

impl Connection {
    /// Starts the two tasks. They end with the connection, with its cluster, or with `stop`.
    /// With `authenticates`, no request is written before the channel that is returned has said so.
    pub(crate) fn start<R, W>(
        parts: ConnectionParts<R, W>,
        authenticates: bool,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> (Self, Option<AuthenticationChannel>)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let state = Arc::new(ConnectionState {
            broker: parts.broker,
            client_id: parts.client_id,
            versions: parts.versions,
            authenticates,
            opened_at: Instant::now(),
            throttled_until_ms: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            closed: parts.cluster.ended.child_token(),
            stop: stop.clone(),
            cluster_id: parts.cluster.id,
            lost: parts.lost,
            last_answer: parts.last_answer,
            metrics: parts.requests_metrics,
            cause: OnceLock::new(),
        });
        let (queue, queued) = mpsc::channel(QUEUED_MAX);
        let (announce, in_flight) = mpsc::channel(IN_FLIGHT_MAX);
        let (channel, writer_channel) = authenticates
            .then(|| authentication_channel::channel(Arc::clone(&state)))
            .unzip();
        tasks.spawn(writer::run(
            Arc::clone(&state),
            parts.requests,
            queued,
            announce,
            writer_channel,
        ));
        tasks.spawn(reader::run(
            Arc::clone(&state),
            parts.responses,
            in_flight,
            parts.max_idle,
            parts.open_connections,
        ));
        (Self { queue, state }, channel)
    }

    /// The newest version of `A` that both ends of this connection speak.
    ///
    /// # Errors
    /// [`RequestError::UnsupportedVersion`] if there is none.
    pub(crate) fn version<A: Api>(&self) -> Result<i16, RequestError> {
        self.state.version::<A>()
    }

    /// All versions of `A` that both ends of this connection speak.
    ///
    /// # Errors
    /// [`RequestError::UnsupportedVersion`] if there is none.
    pub fn versions<A: Api>(&self) -> Result<RangeInclusive<i16>, RequestError> {
        self.state.usable_versions::<A>()
    }

    /// Queues a request after those of earlier calls, and returns when it is queued.
    /// The timeout runs from the call until the response.
    ///
    /// Cancel-safe: when dropped before it returned, nothing was or will be written.
    ///
    /// # Errors
    /// None of them after anything was written: `maybe_sent` is false.
    pub async fn send<A: Api>(
        &self,
        version: i16,
        request: &A,
        timeout: Duration,
    ) -> Result<ResponseFuture<A>, RequestError> {
        let frame = frame::encode(&self.state.client_id, version, request)?;
        let deadline = Instant::now() + timeout;
        let (sender, receiver) = oneshot::channel();
        let handler = ResponseSender::<A>::new(Arc::clone(&self.state), version, timeout, sender);
        match tokio::time::timeout_at(deadline, self.queue.reserve()).await {
            Ok(Ok(permit)) => permit.send(QueuedRequest {
                frame,
                deadline,
                handler: Box::new(handler),
            }),
            Ok(Err(_closed)) => return Err(self.state.disconnected_error(false)),
            Err(_elapsed) => return Err(handler.timeout_error(false)),
        }
        Ok(ResponseFuture {
            receiver,
            state: Arc::clone(&self.state),
        })
    }

    /// Sends a request in the newest common version and awaits its response, for `timeout`.
    ///
    /// # Errors
    /// Any [`RequestError`]; [`TimedOut`](RequestError::TimedOut) after `timeout`.
    pub(crate) async fn call<A: Api>(
        &self,
        build: impl FnOnce(i16) -> A,
        timeout: Duration,
    ) -> Result<(i16, A::Response), RequestError> {
        let version = self.version::<A>()?;
        let response = self.send(version, &build(version), timeout).await?.await?;
        Ok((version, response))
    }

    /// The level of `transaction.version` that its cluster has finalized, see
    /// [`NodeApiVersions::transaction_version`].
    pub(crate) fn transaction_version(&self) -> i16 {
        self.state.versions.transaction_version()
    }

    /// The broker at the other end.
    pub(crate) fn broker(&self) -> &BrokerAddress {
        &self.state.broker
    }

    /// The id of the cluster that the broker belongs to, if it has named one.
    pub(crate) fn cluster_id(&self) -> Option<&Arc<str>> {
        self.state.cluster_id.as_ref()
    }

    /// Completes when the connection has ended.
    #[cfg(test)]
    pub(crate) async fn closed(&self) {
        self.state.closed.cancelled().await;
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.state.closed.is_cancelled()
    }

    /// Requests that are queued or in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.state.in_flight.load(Ordering::Acquire)
    }

    /// Ends the connection now; callers that wait are given `reason`.
    pub(crate) fn close(&self, reason: &str) {
        self.state.close(reason);
    }
}

/// The response to come: `Future<Output = Result<A::Response, RequestError>>`.
///
/// Dropping it does not take the request back.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture<A: Api> {
    receiver: oneshot::Receiver<Result<A::Response, RequestError>>,
    state: Arc<ConnectionState>,
}

impl<A: Api> Future for ResponseFuture<A> {
    type Output = Result<A::Response, RequestError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(Pin::new(&mut self.receiver).poll(cx)) {
            Ok(result) => result,
            // A task of the connection dropped the sender: it panicked.
            Err(_) => Err(self.state.disconnected_error(true)),
        })
    }
}

/// What both tasks and all callers share.
#[derive(Debug)]
struct ConnectionState {
    broker: BrokerAddress,
    client_id: StrBytes,
    versions: NodeApiVersions,
    /// Whether it is authenticated by SASL.
    authenticates: bool,
    opened_at: Instant,
    /// Milliseconds after `opened_at`.
    throttled_until_ms: AtomicU64,
    /// Requests that are queued or in flight.
    in_flight: AtomicUsize,
    closed: CancellationToken,
    /// Everything ends.
    stop: CancellationToken,
    cluster_id: Option<Arc<str>>,
    /// Why it has ended; none if it was stopped, or another cluster took the place of its own.
    cause: OnceLock<Arc<str>>,
    lost: Arc<Notify>,
    last_answer: Arc<LastAnswer>,
    metrics: Arc<RequestMetrics>,
}

impl ConnectionState {
    fn version<A: Api>(&self) -> Result<i16, RequestError> {
        self.usable_versions::<A>().map(|versions| *versions.end())
    }

    fn usable_versions<A: Api>(&self) -> Result<RangeInclusive<i16>, RequestError> {
        self.versions
            .usable_versions::<A>()
            .ok_or_else(|| RequestError::UnsupportedVersion {
                broker: self.broker.clone(),
                api: A::NAME,
                min: A::OLDEST_VERSION,
                max: A::LATEST_VERSION,
            })
    }

    /// Ends a connection that may still be in use.
    fn disconnect(&self, cause: &str) {
        self.close(cause);
        self.lost.notify_one();
    }

    /// Ends the connection. The first cause is the one that callers are given.
    fn close(&self, cause: &str) {
        if self.cause.set(cause.into()).is_ok() {
            tracing::debug!(broker = %self.broker, cause, "connection ended");
        }
        self.closed.cancel();
    }

    /// The error for a caller whose request ended with the connection.
    fn disconnected_error(&self, sent: bool) -> RequestError {
        match self.cause.get() {
            Some(reason) => RequestError::Disconnected {
                broker: self.broker.clone(),
                sent,
                reason: Arc::clone(reason),
            },
            None if self.stop.is_cancelled() && sent => RequestError::Stopped,
            None if self.closed.is_cancelled() && !self.stop.is_cancelled() => {
                RequestError::Disconnected {
                    broker: self.broker.clone(),
                    sent,
                    reason: "another cluster took the place of its own".into(),
                }
            }
            None => RequestError::Disconnected {
                broker: self.broker.clone(),
                sent,
                reason: "the client closed it".into(),
            },
        }
    }

    fn throttle(&self, pause: Duration) {
        if pause.is_zero() {
            return;
        }
        tracing::debug!(broker = %self.broker, ?pause, "throttled");
        let until = (self.opened_at.elapsed() + pause).as_millis();
        let until = u64::try_from(until).unwrap_or(u64::MAX);
        self.throttled_until_ms.fetch_max(until, Ordering::AcqRel);
    }

    /// Until when nothing may be written, if that is still to come.
    fn throttled_until(&self) -> Option<Instant> {
        let ms = self.throttled_until_ms.load(Ordering::Acquire);
        // One more millisecond: `throttle` rounded down.
        let until = self.opened_at + Duration::from_millis(ms + 1);
        (ms > 0 && Instant::now() < until).then_some(until)
    }
}

#[cfg(test)]
mod tests;
