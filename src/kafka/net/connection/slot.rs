//! A caller's place in the order of a connection's requests, without its type.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Link;
use crate::error::RequestError;
use crate::net::frame;
use crate::protocol::versions::Api;

/// A request that is encoded and not written.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Complete but for its correlation id.
    pub(super) frame: BytesMut,
    pub(super) deadline: Instant,
    pub(super) slot: Box<dyn Slot>,
}

/// A request that was written, or is being written.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) correlation_id: i32,
    pub(super) deadline: Instant,
    pub(super) slot: Box<dyn Slot>,
}

/// Tells one caller how its request went.
pub(super) trait Slot: Send + std::fmt::Debug {
    /// Decodes a response (with its header) for the caller, and says how long the
    /// broker wants silence. An error has been told to the caller too.
    fn answer(self: Box<Self>, frame: Bytes) -> Result<Duration, RequestError>;

    /// Tells the caller that there will be no answer.
    fn fail(self: Box<Self>, error: RequestError);

    /// What the caller is told when its time is up.
    fn timed_out(&self, sent: bool) -> RequestError;
}

#[derive(Debug)]
pub(super) struct TypedSlot<A: Api> {
    link: Arc<Link>,
    version: i16,
    timeout: Duration,
    /// Taken only by what consumes the slot.
    answer: Option<oneshot::Sender<Result<A::Response, RequestError>>>,
}

impl<A: Api> TypedSlot<A> {
    pub(super) fn new(
        link: Arc<Link>,
        version: i16,
        timeout: Duration,
        answer: oneshot::Sender<Result<A::Response, RequestError>>,
    ) -> Self {
        link.busy.fetch_add(1, Ordering::AcqRel);
        Self {
            link,
            version,
            timeout,
            answer: Some(answer),
        }
    }

    fn tell(&mut self, result: Result<A::Response, RequestError>) {
        if let Some(answer) = self.answer.take() {
            // Before the caller can look: a connection whose every request is answered
            // is not busy.
            self.link.busy.fetch_sub(1, Ordering::AcqRel);
            // A caller that went away does not mind.
            let _ = answer.send(result);
        }
    }

    fn decode(&self, mut frame: Bytes) -> Result<A::Response, RequestError> {
        frame::decode::<A>(&mut frame, self.version).map_err(|reason| RequestError::Malformed {
            broker: self.link.broker.clone(),
            api: A::NAME,
            reason: format!("version {}: {reason}", self.version).into(),
        })
    }
}

impl<A: Api> Slot for TypedSlot<A> {
    fn answer(mut self: Box<Self>, frame: Bytes) -> Result<Duration, RequestError> {
        match self.decode(frame) {
            Ok(response) => {
                let throttle = A::throttle_time(&response);
                self.tell(Ok(response));
                Ok(throttle)
            }
            Err(error) => {
                self.tell(Err(error.clone()));
                Err(error)
            }
        }
    }

    fn fail(mut self: Box<Self>, error: RequestError) {
        self.tell(Err(error));
    }

    fn timed_out(&self, sent: bool) -> RequestError {
        RequestError::TimedOut {
            broker: self.link.broker.clone(),
            api: A::NAME,
            after: self.timeout,
            sent,
        }
    }
}

impl<A: Api> Drop for TypedSlot<A> {
    fn drop(&mut self) {
        if self.answer.is_some() {
            self.link.busy.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
