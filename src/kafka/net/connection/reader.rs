//! The task that reads responses and completes the oldest in-flight request with each.
//!
//! It also watches the deadlines of in-flight requests, and closes an idle connection.

use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::in_flight::InFlightRequest;
use super::{ConnectionState, FIRST_CORRELATION_ID, IN_FLIGHT_MAX};
use crate::metrics::CountedConnection;
use crate::net::frame::{self, FrameReader, FrameTooLarge};
use crate::net::transport::describe;

/// Reads until the connection ends. `announced` are the requests that the writer is about
/// to write; the connection counts as open until `counted` is dropped.
pub(super) async fn run<R: AsyncRead + Unpin>(
    state: Arc<ConnectionState>,
    mut responses: FrameReader<R>,
    announced: mpsc::Receiver<InFlightRequest>,
    max_idle: Duration,
    counted: (Arc<()>, CountedConnection),
) {
    // Even a panic ends the whole connection.
    let _end = state.closed.clone().drop_guard();
    let _counted = counted;
    let mut reader = ResponseReader {
        state,
        announced,
        in_flight: VecDeque::new(),
        max_idle,
        last_active: Instant::now(),
    };
    match reader.read_until_closed(&mut responses).await {
        DisconnectCause::AlreadyClosed => {}
        DisconnectCause::Lost(cause) => reader.state.disconnect(&cause),
        DisconnectCause::Unused(cause) => reader.state.close(cause),
    }
    reader.fail_in_flight().await;
}

/// Why a connection ends.
enum DisconnectCause {
    /// The writer or a caller ended it, or it was stopped.
    AlreadyClosed,
    Lost(String),
    Unused(&'static str),
}

struct ResponseReader {
    state: Arc<ConnectionState>,
    announced: mpsc::Receiver<InFlightRequest>,
    /// Oldest first: in the order of their responses.
    in_flight: VecDeque<InFlightRequest>,
    max_idle: Duration,
    last_active: Instant,
}

impl ResponseReader {
    async fn read_until_closed<R: AsyncRead + Unpin>(
        &mut self,
        responses: &mut FrameReader<R>,
    ) -> DisconnectCause {
        let mut writer_is_alive = true;
        // Moved only to an earlier time; when it fires, what is due is looked up.
        let mut timer = pin!(sleep_until(self.last_active + self.max_idle));
        loop {
            if !writer_is_alive && self.in_flight.is_empty() {
                return DisconnectCause::Unused("nobody uses it any more");
            }
            tokio::select! {
                biased;
                () = self.state.closed.cancelled() => return DisconnectCause::AlreadyClosed,
                next = self.announced.recv(), if writer_is_alive && self.in_flight.len() < IN_FLIGHT_MAX => match next {
                    Some(request) => {
                        if request.deadline < timer.deadline() {
                            timer.as_mut().reset(request.deadline);
                        }
                        self.add_in_flight(request);
                    }
                    None => writer_is_alive = false,
                },
                frame = responses.next() => {
                    let completed = match frame {
                        Ok(frame) => self.complete_oldest(frame),
                        Err(error) => Err(self.reading_failed(&error, responses).await),
                    };
                    if let Err(cause) = completed {
                        return DisconnectCause::Lost(cause);
                    }
                }
                () = &mut timer => match self.timer_fired(Instant::now()) {
                    Ok(next) => timer.as_mut().reset(next),
                    Err(end) => return end,
                },
            }
        }
    }

    fn add_in_flight(&mut self, request: InFlightRequest) {
        self.last_active = Instant::now();
        self.in_flight.push_back(request);
    }

    /// Completes the oldest in-flight request with a frame.
    fn complete_oldest(&mut self, frame: Option<Bytes>) -> Result<(), String> {
        let Some(frame) = frame else {
            return Err(self.closed_by_broker().to_owned());
        };
        self.last_active = Instant::now();
        self.state.last_answer.note(self.last_active);
        match self.take_oldest(&frame)?.handler.complete(frame) {
            Ok(throttle) => {
                self.state.throttle(throttle);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// A listener with SASL ends a connection whose first request does not authenticate it.
    fn closed_by_broker(&mut self) -> &'static str {
        self.find_oldest();
        let oldest = self.in_flight.front().map(|oldest| oldest.correlation_id);
        match oldest {
            Some(FIRST_CORRELATION_ID) if !self.state.authenticates => {
                "the broker closed it at its first request (does it expect SASL?)"
            }
            _ => "the broker closed it",
        }
    }

    /// The request that this response, or its beginning, belongs to.
    fn take_oldest(&mut self, frame: &[u8]) -> Result<InFlightRequest, String> {
        let id = frame::correlation_id(frame).ok_or("an answer without correlation id")?;
        self.find_oldest();
        match self.in_flight.pop_front() {
            Some(oldest) if oldest.correlation_id == id => Ok(oldest),
            Some(oldest) => {
                let due = oldest.correlation_id;
                self.in_flight.push_front(oldest);
                Err(format!(
                    "an answer with correlation id {id} where {due} was due"
                ))
            }
            None => Err(format!("an answer with correlation id {id} to no request")),
        }
    }

    /// The writer announces a request before it writes it: when something of its response is here
    /// it has been announced.
    fn find_oldest(&mut self) {
        if self.in_flight.is_empty()
            && let Ok(request) = self.announced.try_recv()
        {
            self.in_flight.push_back(request);
        }
    }

    /// Why the connection ends. A request whose response is too large is failed for that reason:
    /// it alone is known to get none.
    async fn reading_failed<R: AsyncRead + Unpin>(
        &mut self,
        error: &io::Error,
        responses: &mut FrameReader<R>,
    ) -> String {
        let cause = format!("reading failed: {}", describe(error));
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        let Some(&too_large) = inner else {
            return cause;
        };
        let (request, head) = match self.read_head(too_large, responses).await {
            Ok(Some(read)) => read,
            Ok(None) => return cause,
            Err(cause) => return cause,
        };
        let error = request.handler.too_large_error(too_large, head);
        // First, so that nobody gets this connection from the pool after it has failed a
        // request.
        self.state.disconnect(&cause);
        request.handler.fail(error);
        cause
    }

    /// The request whose response is too large, and how that begins, as far as is of use.
    async fn read_head<R: AsyncRead + Unpin>(
        &mut self,
        response: FrameTooLarge,
        responses: &mut FrameReader<R>,
    ) -> Result<Option<(InFlightRequest, Bytes)>, String> {
        self.find_oldest();
        let length = match self.in_flight.front() {
            Some(oldest) => oldest.handler.head_len_max().min(response.limit),
            None => return Ok(None),
        };
        if length == 0 {
            let oldest = self.in_flight.pop_front();
            return Ok(oldest.map(|oldest| (oldest, Bytes::new())));
        }
        let deadlines = self.in_flight.iter().map(|request| request.deadline);
        let deadline = deadlines.min().unwrap_or_else(Instant::now);
        let head = tokio::select! {
            biased;
            () = self.state.closed.cancelled() => return Ok(None),
            head = timeout_at(deadline, responses.head(length)) => match head {
                Ok(Ok(head)) => head,
                Ok(Err(error)) => return Err(format!("reading failed: {error}")),
                Err(_) => return Err("a response does not come in time".to_owned()),
            },
        };
        let request = self.take_oldest(&head)?;
        Ok(Some((request, head)))
    }

    /// When the timer is due next, unless the connection ends now.
    fn timer_fired(&mut self, now: Instant) -> Result<Instant, DisconnectCause> {
        if let Some(late) = self
            .in_flight
            .iter()
            .position(|request| request.deadline <= now)
        {
            let request = self
                .in_flight
                .remove(late)
                .expect("its position was just found");
            let error = request.handler.timeout_error(true);
            let cause = error.to_string();
            // First, so that nobody gets this connection from the pool after it has failed a
            // request.
            self.state.disconnect(&cause);
            request.handler.fail(error);
            return Err(DisconnectCause::Lost(cause));
        }
        if let Some(next) = self.in_flight.iter().map(|request| request.deadline).min() {
            // The deadline of a JoinGroup is minutes away, and the connection may be idle before.
            return Ok(next.min(now + self.max_idle));
        }
        if self.state.in_flight.load(Ordering::Acquire) > 0 {
            return Ok(now + self.max_idle);
        }
        let idle_at = self.last_active + self.max_idle;
        if idle_at > now {
            return Ok(idle_at);
        }
        Err(DisconnectCause::Unused("it was idle"))
    }

    /// Gives an error to every caller whose request was, or may have been, written.
    async fn fail_in_flight(&mut self) {
        self.announced.close();
        for request in self.in_flight.drain(..) {
            request.handler.fail(self.state.disconnected_error(true));
        }
        while let Some(request) = self.announced.recv().await {
            request.handler.fail(self.state.disconnected_error(true));
        }
    }
}
