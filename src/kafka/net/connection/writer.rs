//! The task that writes requests in the order they were queued.
//!
//! Each request's waiter is handed to the reader before its first byte is written, so
//! that no answer can come before its waiter.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::{self, Permit};
use tokio::time::{Instant, sleep_until};

use super::slot::{Outgoing, Waiting};
use super::{Link, QUEUE};
use crate::net::frame;

/// Small requests that are queued together are written together, up to this size.
const GATHERED: usize = 64 << 10;

pub(super) async fn run<W: AsyncWrite + Unpin>(
    link: Arc<Link>,
    sink: W,
    queue: mpsc::Receiver<Outgoing>,
    waiting: mpsc::Sender<Waiting>,
) {
    // Even a panic ends the whole connection.
    let _end = link.dead.clone().drop_guard();
    let mut writer = Writer {
        link,
        sink,
        queue,
        backlog: VecDeque::new(),
        next_correlation_id: 1,
    };
    writer.write_until_the_end(&waiting).await;
    // The reader may still have answers to wait for; without callers it ends then.
    drop(waiting);
    if writer.link.dead.is_cancelled() {
        writer.refuse_all().await;
    } else {
        writer.link.dead.cancelled().await;
    }
    let _ = writer.sink.shutdown().await;
}

struct Writer<W> {
    link: Arc<Link>,
    sink: W,
    queue: mpsc::Receiver<Outgoing>,
    /// Taken from the queue, so that their deadlines can be watched.
    backlog: VecDeque<Outgoing>,
    next_correlation_id: i32,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Returns when the connection is dead, or nobody is left to send anything.
    async fn write_until_the_end(&mut self, waiting: &mpsc::Sender<Waiting>) {
        let mut open = true;
        while open || !self.backlog.is_empty() {
            let throttled = self.link.throttled_until();
            let idle = self.backlog.is_empty();
            let wake = self.wake_at(throttled);
            tokio::select! {
                biased;
                () = self.link.dead.cancelled() => return,
                next = self.queue.recv(), if open && self.backlog.len() < QUEUE => match next {
                    Some(request) => self.backlog.push_back(request),
                    None => open = false,
                },
                place = waiting.reserve(), if !idle && throttled.is_none() => match place {
                    Ok(place) => {
                        if !self.write_some(place, waiting).await {
                            return;
                        }
                    }
                    // The reader is gone, and with it the connection.
                    Err(_) => return,
                },
                () = sleep_until(wake), if !idle => self.expire(Instant::now()),
            }
        }
    }

    /// When to look again although nothing has come.
    fn wake_at(&self, throttled: Option<Instant>) -> Instant {
        let deadlines = self.backlog.iter().map(|request| request.deadline);
        deadlines
            .chain(throttled)
            .min()
            .unwrap_or_else(Instant::now)
    }

    /// Writes the oldest request, and those behind it that are small; false when the
    /// connection died of it.
    async fn write_some(
        &mut self,
        place: Permit<'_, Waiting>,
        waiting: &mpsc::Sender<Waiting>,
    ) -> bool {
        let Some(request) = self.next_in_time() else {
            return true;
        };
        let mut bytes = self.promise(request, place);
        while let Some(next) = self.backlog.front() {
            if bytes.len() + next.frame.len() > GATHERED {
                break;
            }
            let Ok(place) = waiting.try_reserve() else {
                break;
            };
            let Some(request) = self.next_in_time() else {
                break;
            };
            bytes.unsplit(self.promise(request, place));
        }
        tokio::select! {
            biased;
            () = self.link.dead.cancelled() => false,
            written = write(&mut self.sink, &bytes) => match written {
                Ok(()) => true,
                Err(error) => {
                    self.link.lose(&format!("writing failed: {error}"));
                    false
                }
            },
        }
    }

    /// The oldest request whose time is not up; those before it are told.
    fn next_in_time(&mut self) -> Option<Outgoing> {
        let now = Instant::now();
        while let Some(request) = self.backlog.pop_front() {
            if request.deadline > now {
                return Some(request);
            }
            let error = request.slot.timed_out(false);
            request.slot.fail(error);
        }
        None
    }

    /// Numbers a request and lets the reader expect its answer.
    fn promise(&mut self, request: Outgoing, place: Permit<'_, Waiting>) -> BytesMut {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = self.next_correlation_id.wrapping_add(1) & i32::MAX;
        let mut frame = request.frame;
        frame::set_correlation_id(&mut frame, correlation_id);
        place.send(Waiting {
            correlation_id,
            deadline: request.deadline,
            slot: request.slot,
        });
        frame
    }

    /// Tells the callers whose time passed before their request could be written.
    fn expire(&mut self, now: Instant) {
        if !self.backlog.iter().any(|request| request.deadline <= now) {
            return;
        }
        for request in std::mem::take(&mut self.backlog) {
            if request.deadline <= now {
                let error = request.slot.timed_out(false);
                request.slot.fail(error);
            } else {
                self.backlog.push_back(request);
            }
        }
    }

    /// Tells every caller that nothing of its request was written.
    async fn refuse_all(&mut self) {
        self.queue.close();
        for request in self.backlog.drain(..) {
            request.slot.fail(self.link.lost(false));
        }
        while let Some(request) = self.queue.recv().await {
            request.slot.fail(self.link.lost(false));
        }
    }
}

async fn write(sink: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    sink.write_all(bytes).await?;
    sink.flush().await
}
