//! Requests from the call to the response, without their type.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::ConnectionState;
use crate::error::{RequestError, ResponseHead};
use crate::net::frame::{self, FrameTooLarge};
use crate::protocol::versions::Api;

/// A request that is encoded and not written yet.
#[derive(Debug)]
pub(super) struct QueuedRequest {
    /// Complete but for its correlation id.
    pub(super) frame: BytesMut,
    pub(super) deadline: Instant,
    pub(super) handler: Box<dyn RequestCompletionHandler>,
}

/// A request that was written, or is being written.
#[derive(Debug)]
pub(super) struct InFlightRequest {
    pub(super) correlation_id: i32,
    pub(super) deadline: Instant,
    pub(super) handler: Box<dyn RequestCompletionHandler>,
}

/// Gives one caller the outcome of its request (Java's class of this name).
pub(super) trait RequestCompletionHandler: Send + std::fmt::Debug {
    /// Decodes a response (with its header) for the caller, and returns the throttle time
    /// that came with it. The caller is given an error too.
    fn complete(self: Box<Self>, frame: Bytes) -> Result<Duration, RequestError>;

    /// Tells the caller that there will be no response.
    fn fail(self: Box<Self>, error: RequestError);

    /// The error of a request whose time is up.
    fn timeout_error(&self, sent: bool) -> RequestError;

    /// How much of a response that is larger than the limit is of use.
    fn head_len_max(&self) -> usize;

    /// The error of a request whose response is larger than the limit, and begins like that.
    fn too_large_error(&self, response: FrameTooLarge, head: Bytes) -> RequestError;
}

/// Of a Fetch response, what comes before the first batch: the aborted transactions, at worst.
const FETCH_HEAD_MAX: usize = 1 << 20;

/// Sends the decoded response to the [`ResponseFuture`](super::ResponseFuture).
#[derive(Debug)]
pub(super) struct ResponseSender<A: Api> {
    state: Arc<ConnectionState>,
    version: i16,
    timeout: Duration,
    /// Taken when the request is over.
    sender: Option<oneshot::Sender<Result<A::Response, RequestError>>>,
}

impl<A: Api> ResponseSender<A> {
    pub(super) fn new(
        state: Arc<ConnectionState>,
        version: i16,
        timeout: Duration,
        sender: oneshot::Sender<Result<A::Response, RequestError>>,
    ) -> Self {
        state.in_flight.fetch_add(1, Ordering::AcqRel);
        Self {
            state,
            version,
            timeout,
            sender: Some(sender),
        }
    }

    fn send(&mut self, result: Result<A::Response, RequestError>) {
        if let Some(sender) = self.sender.take() {
            // First, so that a caller that has its response finds it no longer in flight.
            self.state.in_flight.fetch_sub(1, Ordering::AcqRel);
            // The caller may have gone away.
            let _ = sender.send(result);
        }
    }

    fn decode(&self, mut frame: Bytes) -> Result<A::Response, RequestError> {
        frame::decode::<A>(&mut frame, self.version).map_err(|reason| RequestError::Malformed {
            broker: self.state.broker.clone(),
            api: A::NAME,
            reason: format!("version {}: {reason}", self.version).into(),
        })
    }
}

impl<A: Api> RequestCompletionHandler for ResponseSender<A> {
    fn complete(mut self: Box<Self>, frame: Bytes) -> Result<Duration, RequestError> {
        match self.decode(frame) {
            Ok(response) => {
                self.state.metrics.answered::<A>(&response);
                let throttle = A::throttle_time(&response);
                self.send(Ok(response));
                Ok(throttle)
            }
            Err(error) => {
                self.state.metrics.failed::<A>(&error);
                self.send(Err(error.clone()));
                Err(error)
            }
        }
    }

    fn fail(mut self: Box<Self>, error: RequestError) {
        self.state.metrics.failed::<A>(&error);
        self.send(Err(error));
    }

    fn head_len_max(&self) -> usize {
        match A::KEY == ApiKey::Fetch as i16 {
            true => FETCH_HEAD_MAX,
            false => 0,
        }
    }

    fn too_large_error(&self, response: FrameTooLarge, head: Bytes) -> RequestError {
        RequestError::ResponseTooLarge {
            broker: self.state.broker.clone(),
            api: A::NAME,
            size: response.size,
            limit: response.limit,
            head: ResponseHead(head),
        }
    }

    fn timeout_error(&self, sent: bool) -> RequestError {
        RequestError::TimedOut {
            broker: self.state.broker.clone(),
            api: A::NAME,
            after: self.timeout,
            sent,
        }
    }
}

impl<A: Api> Drop for ResponseSender<A> {
    fn drop(&mut self) {
        if self.sender.is_some() {
            self.state.in_flight.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
