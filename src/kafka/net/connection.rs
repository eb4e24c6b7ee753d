//! One connection to one broker.
//!
//! A broker answers a connection's requests in the order sent, one at a time, so a
//! connection is two tasks around a bounded queue of waiting callers:
//!
//! ```text
//! send() ─▶ queue ─▶ writer ─▶ socket ─▶ broker
//!                      │ waiting callers, oldest first
//! ResponseFuture ◀────────────reader ◀─ socket ◀────┘
//! ```
//!
//! # Invariants
//! - A request is written whole or the connection is dead.
//! - A caller that goes away leaves its place in the queue: the answer is read and
//!   dropped, and nobody else is given it.
//! - An answer that is late, malformed or not the one that is due ends the connection.
//! - When either half ends, every waiting caller is told, and none is admitted again.
//!   Reconnecting is the pool's work.
//! - Nothing is written before a throttle that the broker asked for has passed (KIP-219).

mod reader;
mod slot;
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

use self::slot::{Outgoing, Slot, TypedSlot};
use super::frame::{self, FrameReader};
use crate::error::{BrokerAddress, RequestError};
use crate::protocol::versions::{Api, NodeApiVersions};

/// Requests that may wait to be written. Beyond it callers wait.
const QUEUE: usize = 64;
/// Requests that may be written and not answered. Beyond it the queue waits.
const IN_FLIGHT: usize = 64;

/// A live connection. Clones share it; when the last one is gone and everything is
/// answered, it closes.
#[derive(Clone, Debug)]
pub struct Connection {
    queue: mpsc::Sender<Outgoing>,
    link: Arc<Link>,
}

/// What a connection is made of, once both ends have agreed on versions.
pub(crate) struct Parts<R, W> {
    pub(crate) broker: BrokerAddress,
    pub(crate) client_id: StrBytes,
    pub(crate) versions: NodeApiVersions,
    pub(crate) responses: FrameReader<R>,
    pub(crate) requests: W,
    /// Closed after this long without a request.
    pub(crate) idle: Duration,
    /// Dropped when the connection is closed.
    pub(crate) open_connections: Arc<()>,
    /// Told when it was lost, rather than closed for want of use.
    pub(crate) lost: Arc<Notify>,
}

impl Connection {
    /// Starts the two tasks. They end with the connection, or with `stop`.
    pub(crate) fn start<R, W>(
        parts: Parts<R, W>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let link = Arc::new(Link {
            broker: parts.broker,
            client_id: parts.client_id,
            versions: parts.versions,
            born: Instant::now(),
            throttled_until_ms: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
            dead: stop.child_token(),
            lost: parts.lost,
            cause: OnceLock::new(),
        });
        let (queue, queued) = mpsc::channel(QUEUE);
        let (waiting, waiters) = mpsc::channel(IN_FLIGHT);
        tasks.spawn(writer::run(
            Arc::clone(&link),
            parts.requests,
            queued,
            waiting,
        ));
        tasks.spawn(reader::run(
            Arc::clone(&link),
            parts.responses,
            reader::Inbox {
                waiters,
                idle: parts.idle,
                open_connections: parts.open_connections,
            },
        ));
        Self { queue, link }
    }

    /// The newest version of `A` that both ends of this connection speak.
    ///
    /// # Errors
    /// [`RequestError::Unsupported`] if there is none.
    pub fn version<A: Api>(&self) -> Result<i16, RequestError> {
        self.versions::<A>().map(|versions| *versions.end())
    }

    /// All versions of `A` that both ends of this connection speak.
    ///
    /// # Errors
    /// [`RequestError::Unsupported`] if there is none.
    pub fn versions<A: Api>(&self) -> Result<RangeInclusive<i16>, RequestError> {
        self.link
            .versions
            .usable_versions::<A>()
            .ok_or_else(|| RequestError::Unsupported {
                broker: self.link.broker.clone(),
                api: A::NAME,
                min: A::OLDEST_VERSION,
                max: A::LATEST_VERSION,
            })
    }

    /// Queues a request behind those of earlier calls, and returns when it is queued.
    /// The time for the answer runs from the call.
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
        let frame = frame::encode(&self.link.client_id, version, request)?;
        let deadline = Instant::now() + timeout;
        let (answer, answered) = oneshot::channel();
        let slot = TypedSlot::<A>::new(Arc::clone(&self.link), version, timeout, answer);
        match tokio::time::timeout_at(deadline, self.queue.reserve()).await {
            Ok(Ok(place)) => place.send(Outgoing {
                frame,
                deadline,
                slot: Box::new(slot),
            }),
            Ok(Err(_closed)) => return Err(self.link.lost(false)),
            Err(_elapsed) => return Err(slot.timed_out(false)),
        }
        Ok(ResponseFuture {
            answered,
            link: Arc::clone(&self.link),
        })
    }

    /// Sends a request in the newest common version and awaits its answer.
    ///
    /// # Errors
    /// Any [`RequestError`].
    pub async fn call<A: Api>(
        &self,
        build: impl FnOnce(i16) -> A,
        timeout: Duration,
    ) -> Result<(i16, A::Response), RequestError> {
        let version = self.version::<A>()?;
        let response = self.send(version, &build(version), timeout).await?.await?;
        Ok((version, response))
    }

    /// Whose connection this is.
    pub fn broker(&self) -> &BrokerAddress {
        &self.link.broker
    }

    /// Completes when the connection is dead.
    pub async fn closed(&self) {
        self.link.dead.cancelled().await;
    }

    /// Whether the connection is dead.
    pub fn is_closed(&self) -> bool {
        self.link.dead.is_cancelled()
    }

    /// Requests that were accepted and are not answered yet.
    pub fn in_flight(&self) -> usize {
        self.link.busy.load(Ordering::Acquire)
    }

    /// Ends the connection now; callers that wait are told `reason`.
    pub fn close(&self, reason: &str) {
        self.link.die(reason);
    }
}

/// The answer to come: `Future<Output = Result<A::Response, RequestError>>`.
///
/// Dropping it does not take the request back.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture<A: Api> {
    answered: oneshot::Receiver<Result<A::Response, RequestError>>,
    link: Arc<Link>,
}

impl<A: Api> Future for ResponseFuture<A> {
    type Output = Result<A::Response, RequestError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(Pin::new(&mut self.answered).poll(cx)) {
            Ok(answer) => answer,
            // A task of the connection ended without a word: it panicked.
            Err(_) => Err(self.link.lost(true)),
        })
    }
}

/// What both tasks and all callers share.
#[derive(Debug)]
struct Link {
    broker: BrokerAddress,
    client_id: StrBytes,
    versions: NodeApiVersions,
    born: Instant,
    /// Milliseconds after `born`.
    throttled_until_ms: AtomicU64,
    /// Slots that are alive.
    busy: AtomicUsize,
    dead: CancellationToken,
    /// Why it is dead; none if it was stopped.
    cause: OnceLock<Arc<str>>,
    lost: Arc<Notify>,
}

impl Link {
    /// Ends the connection, which somebody may still want.
    fn lose(&self, cause: &str) {
        self.die(cause);
        self.lost.notify_one();
    }

    /// Ends the connection. The first cause is the one that is told.
    fn die(&self, cause: &str) {
        if self.cause.set(cause.into()).is_ok() {
            tracing::debug!(broker = %self.broker, cause, "connection ended");
        }
        self.dead.cancel();
    }

    /// What a caller is told whose request the connection took with it.
    fn lost(&self, sent: bool) -> RequestError {
        match self.cause.get() {
            Some(reason) => RequestError::Disconnected {
                broker: self.broker.clone(),
                sent,
                reason: Arc::clone(reason),
            },
            None if self.dead.is_cancelled() && sent => RequestError::Stopped,
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
        let until = (self.born.elapsed() + pause).as_millis();
        let until = u64::try_from(until).unwrap_or(u64::MAX);
        self.throttled_until_ms.fetch_max(until, Ordering::AcqRel);
    }

    /// Until when nothing may be written, if that is still to come.
    fn throttled_until(&self) -> Option<Instant> {
        let ms = self.throttled_until_ms.load(Ordering::Acquire);
        // One more millisecond: `throttle` rounded down.
        let until = self.born + Duration::from_millis(ms + 1);
        (ms > 0 && Instant::now() < until).then_some(until)
    }
}

#[cfg(test)]
mod tests;
