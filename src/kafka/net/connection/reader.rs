//! The task that reads responses and gives each to the caller whose turn it is.
//!
//! It also keeps the time: of the answers that are due, and of idleness.

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

use super::slot::Waiting;
use super::{IN_FLIGHT, Link};
use crate::net::frame::{self, FrameReader};

/// What the reader is given besides the stream.
pub(super) struct Inbox {
    pub(super) waiters: mpsc::Receiver<Waiting>,
    pub(super) idle: Duration,
    pub(super) open_connections: Arc<()>,
}

pub(super) async fn run<R: AsyncRead + Unpin>(
    link: Arc<Link>,
    mut responses: FrameReader<R>,
    inbox: Inbox,
) {
    // Even a panic ends the whole connection.
    let _end = link.dead.clone().drop_guard();
    let _counted = inbox.open_connections;
    let mut reader = Reader {
        link,
        waiters: inbox.waiters,
        due: VecDeque::new(),
        idle: inbox.idle,
        active: Instant::now(),
    };
    match reader.read_until_the_end(&mut responses).await {
        End::Elsewhere => {}
        End::Lost(cause) => reader.link.lose(&cause),
        End::Unused(cause) => reader.link.die(cause),
    }
    reader.fail_all().await;
}

/// Why a connection ends.
enum End {
    /// The writer or a caller ended it, or it was stopped.
    Elsewhere,
    Lost(String),
    Unused(&'static str),
}

struct Reader {
    link: Arc<Link>,
    waiters: mpsc::Receiver<Waiting>,
    /// Those whose answer is to come, oldest first.
    due: VecDeque<Waiting>,
    idle: Duration,
    active: Instant,
}

impl Reader {
    async fn read_until_the_end<R: AsyncRead + Unpin>(
        &mut self,
        responses: &mut FrameReader<R>,
    ) -> End {
        let mut open = true;
        // Moved only to an earlier time; when it rings, who rang it is looked up.
        let mut alarm = pin!(sleep_until(self.active + self.idle));
        loop {
            if !open && self.due.is_empty() {
                return End::Unused("nobody uses it any more");
            }
            tokio::select! {
                biased;
                () = self.link.dead.cancelled() => return End::Elsewhere,
                next = self.waiters.recv(), if open && self.due.len() < IN_FLIGHT => match next {
                    Some(waiting) => {
                        if waiting.deadline < alarm.deadline() {
                            alarm.as_mut().reset(waiting.deadline);
                        }
                        self.expect(waiting);
                    }
                    None => open = false,
                },
                frame = responses.next() => {
                    if let Err(cause) = self.received(frame) {
                        return End::Lost(cause);
                    }
                }
                () = &mut alarm => match self.alarmed(Instant::now()) {
                    Ok(next) => alarm.as_mut().reset(next),
                    Err(end) => return end,
                },
            }
        }
    }

    fn expect(&mut self, waiting: Waiting) {
        self.active = Instant::now();
        self.due.push_back(waiting);
    }

    /// Gives a frame to the oldest waiter.
    fn received(&mut self, frame: io::Result<Option<Bytes>>) -> Result<(), String> {
        let frame = frame
            .map_err(|error| format!("reading failed: {error}"))?
            .ok_or("the broker closed it")?;
        self.active = Instant::now();
        let id = frame::correlation_id(&frame).ok_or("an answer without correlation id")?;
        // The writer announces a request before it writes it, so it is here by now.
        if self.due.is_empty()
            && let Ok(waiting) = self.waiters.try_recv()
        {
            self.due.push_back(waiting);
        }
        match self.due.front() {
            Some(oldest) if oldest.correlation_id == id => {}
            Some(oldest) => {
                let due = oldest.correlation_id;
                return Err(format!(
                    "an answer with correlation id {id} where {due} was due"
                ));
            }
            None => return Err(format!("an answer with correlation id {id} to no request")),
        }
        let waiting = self.due.pop_front().expect("it was just looked at");
        match waiting.slot.answer(frame) {
            Ok(throttle) => {
                self.link.throttle(throttle);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// When the next alarm is, unless this one ends the connection.
    fn alarmed(&mut self, now: Instant) -> Result<Instant, End> {
        if let Some(late) = self.due.iter().position(|waiting| waiting.deadline <= now) {
            let waiting = self.due.remove(late).expect("its position was just found");
            let error = waiting.slot.timed_out(true);
            let cause = error.to_string();
            // First, so that nobody is given this connection after an error that says
            // it is of no use.
            self.link.lose(&cause);
            waiting.slot.fail(error);
            return Err(End::Lost(cause));
        }
        if let Some(next) = self.due.iter().map(|waiting| waiting.deadline).min() {
            return Ok(next);
        }
        if self.link.busy.load(Ordering::Acquire) > 0 {
            return Ok(now + self.idle);
        }
        let idle_at = self.active + self.idle;
        if idle_at > now {
            return Ok(idle_at);
        }
        Err(End::Unused("it was idle"))
    }

    /// Tells every caller whose request was, or may have been, written.
    async fn fail_all(&mut self) {
        self.waiters.close();
        for waiting in self.due.drain(..) {
            waiting.slot.fail(self.link.lost(true));
        }
        while let Some(waiting) = self.waiters.recv().await {
            waiting.slot.fail(self.link.lost(true));
        }
    }
}
