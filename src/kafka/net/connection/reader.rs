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
use tokio::time::{Instant, sleep_until};

use super::in_flight::InFlightRequest;
use super::{ConnectionState, IN_FLIGHT_MAX};
use crate::net::frame::{self, FrameReader, FrameTooLarge};

/// Reads until the connection ends. `announced` are the requests that the writer is about
/// to write; the connection counts as open until `counted` is dropped.
pub(super) async fn run<R: AsyncRead + Unpin>(
    state: Arc<ConnectionState>,
    mut responses: FrameReader<R>,
    announced: mpsc::Receiver<InFlightRequest>,
    max_idle: Duration,
    counted: Arc<()>,
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
                    if let Err(cause) = self.complete_oldest(frame) {
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
    fn complete_oldest(&mut self, frame: io::Result<Option<Bytes>>) -> Result<(), String> {
        let frame = match frame {
            Ok(frame) => frame.ok_or("the broker closed it")?,
            Err(error) => {
                let cause = format!("reading failed: {error}");
                let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
                if let Some(&too_large) = inner {
                    self.fail_oldest_as_too_large(too_large, &cause);
                }
                return Err(cause);
            }
        };
        self.last_active = Instant::now();
        let id = frame::correlation_id(&frame).ok_or("an answer without correlation id")?;
        self.find_oldest();
        match self.in_flight.front() {
            Some(oldest) if oldest.correlation_id == id => {}
            Some(oldest) => {
                let due = oldest.correlation_id;
                return Err(format!(
                    "an answer with correlation id {id} where {due} was due"
                ));
            }
            None => return Err(format!("an answer with correlation id {id} to no request")),
        }
        let request = self.in_flight.pop_front().expect("it was just looked at");
        match request.handler.complete(frame) {
            Ok(throttle) => {
                self.state.throttle(throttle);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
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

    /// Fails the request whose response is due: it alone is known to get none.
    fn fail_oldest_as_too_large(&mut self, response: FrameTooLarge, cause: &str) {
        self.find_oldest();
        if let Some(request) = self.in_flight.pop_front() {
            let error = request.handler.too_large_error(response);
            // First, so that nobody gets this connection from the pool after it has failed a
            // request.
            self.state.disconnect(cause);
            request.handler.fail(error);
        }
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
            return Ok(next);
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
