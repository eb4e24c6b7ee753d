//! What the clones of a producer and its task share: the frames that wait, how the producer is to
//! end, and whether it has.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime::mutex::lock;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::super::error::ProduceError;
use super::error::TransactionError;
use super::frame::TransactionFrame;
use super::frame_delivery::{FrameDelivery, FramePromise};
use super::frame_queue::{FrameQueue, QueuedFrame, TransactionLimits};

/// The frames that are not committed, and what becomes of the producer.
#[derive(Debug)]
pub(super) struct OpenFrames {
    queue: Mutex<FramesOrEnd>,
    /// Notified when a frame was added.
    added: Notify,
    ending: watch::Sender<ProducerEnding>,
    ended: watch::Sender<ProducerEnd>,
}

#[derive(Debug)]
struct FramesOrEnd {
    frames: FrameQueue,
    /// Why no frame is taken any more.
    closed: Option<ProduceError>,
}

/// How the producer is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProducerEnding {
    /// It is not.
    Open,
    /// After what was sent is committed.
    Commit,
    /// At once: what is not committed is aborted.
    Abort,
}

/// How the producer has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ProducerEnd {
    Running,
    /// As its owner asked for.
    Closed,
    Failed(TransactionError),
}

/// What the producer's task does next.
#[derive(Debug)]
pub(super) enum NextTransaction {
    Frames(Vec<QueuedFrame>),
    None,
}

impl OpenFrames {
    pub(super) fn new(delivery_timeout: Duration) -> Self {
        Self {
            queue: Mutex::new(FramesOrEnd {
                frames: FrameQueue::new(delivery_timeout),
                closed: None,
            }),
            added: Notify::new(),
            ending: watch::Sender::new(ProducerEnding::Open),
            ended: watch::Sender::new(ProducerEnd::Running),
        }
    }

    /// Adds a frame, or fails it at once if none is taken any more.
    pub(super) fn send(
        &self,
        frame: TransactionFrame,
    ) -> impl Iterator<Item = FrameDelivery> + use<> {
        let promise = FramePromise::new(frame.len());
        let deliveries = promise.deliveries();
        let mut queue = lock(&self.queue);
        match &queue.closed {
            Some(error) => promise.fail(&[], error),
            None if frame.is_empty() => {}
            None => queue.frames.push(QueuedFrame {
                frame,
                promise,
                sent_at: Instant::now(),
            }),
        }
        drop(queue);
        self.added.notify_one();
        deliveries
    }

    /// Has the producer end. What is to be aborted is so at once, as far as it is not in a
    /// transaction yet.
    pub(super) fn end(&self, ending: ProducerEnding) {
        let mut queue = lock(&self.queue);
        let closed = queue.closed.get_or_insert_with(closed).clone();
        if ending == ProducerEnding::Abort {
            queue.frames.fail_all(&closed);
        }
        drop(queue);
        self.ending.send_if_modified(|current| {
            let is_new = *current != ProducerEnding::Abort && *current != ending;
            *current = if is_new { ending } else { *current };
            is_new
        });
    }

    /// Has the producer of which nobody is left end, unless it is ending already.
    pub(super) fn abandon(&self) {
        if *self.ending.borrow() == ProducerEnding::Open {
            self.end(ProducerEnding::Abort);
        }
    }

    /// The frames of the next transaction, once there are any; none if the producer is to end.
    pub(super) async fn next(&self, limits: TransactionLimits) -> NextTransaction {
        let mut ending = self.ending.subscribe();
        loop {
            let frames = lock(&self.queue).frames.next_group(limits);
            let is_open = *ending.borrow_and_update() == ProducerEnding::Open;
            if !frames.is_empty() {
                return NextTransaction::Frames(frames);
            }
            if !is_open {
                return NextTransaction::None;
            }
            tokio::select! {
                () = self.added.notified() => {}
                // It cannot be closed: it is this one's.
                _ = ending.changed() => {}
            }
        }
    }

    /// Puts frames back before all others; fails them if they are to be aborted.
    pub(super) fn requeue(&self, frames: Vec<QueuedFrame>) {
        let mut queue = lock(&self.queue);
        queue.frames.requeue(frames.into_iter());
        if *self.ending.borrow() == ProducerEnding::Abort {
            queue.frames.fail_all(&closed());
        }
        queue.frames.expire(Instant::now());
    }

    /// Lets frames that wait expire while something else is done.
    pub(super) async fn expire_during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            let deadline = lock(&self.queue).frames.next_deadline();
            tokio::select! {
                result = &mut work => return result,
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    lock(&self.queue).frames.expire(Instant::now());
                }
                () = self.added.notified() => {}
            }
        }
    }

    /// Completes when what is not committed is to be aborted.
    pub(super) async fn aborting(&self) {
        let mut ending = self.ending.subscribe();
        let is_abort = |ending: &ProducerEnding| *ending == ProducerEnding::Abort;
        // It cannot be closed: it is this one's.
        let _ = ending.wait_for(is_abort).await;
    }

    /// Completes when the producer is to end, in either way.
    pub(super) async fn closing(&self) {
        let mut ending = self.ending.subscribe();
        let is_ending = |ending: &ProducerEnding| *ending != ProducerEnding::Open;
        let _ = ending.wait_for(is_ending).await;
    }

    /// The producer has ended: what still waits fails.
    pub(super) fn set_ended(&self, end: ProducerEnd) {
        let error = match &end {
            ProducerEnd::Failed(error) => error.of_record(),
            ProducerEnd::Running | ProducerEnd::Closed => closed(),
        };
        let mut queue = lock(&self.queue);
        queue.frames.fail_all(&error);
        queue.closed = Some(error);
        drop(queue);
        self.ended.send_if_modified(|current| {
            let is_first = *current == ProducerEnd::Running;
            *current = if is_first { end } else { current.clone() };
            is_first
        });
    }

    /// Waits until the producer has ended.
    pub(super) async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        let _ = ended.wait_for(|end| *end != ProducerEnd::Running).await;
    }

    /// Waits until the producer has failed.
    pub(super) async fn failed(&self) -> TransactionError {
        let mut ended = self.ended.subscribe();
        let is_failed = |end: &ProducerEnd| matches!(end, ProducerEnd::Failed(_));
        let ended = ended.wait_for(is_failed).await;
        let error = ended.ok().and_then(|end| match &*end {
            ProducerEnd::Failed(error) => Some(error.clone()),
            ProducerEnd::Running | ProducerEnd::Closed => None,
        });
        match error {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }
}

fn closed() -> ProduceError {
    ProduceError::Aborted {
        reason: Arc::from("the producer was closed"),
    }
}
