//! The frames that wait for a transaction, in the order sent.
//!
//! ```text
//! push ─▶ [ frame ][ frame ][ frame ] ─▶ next_group ─▶ a transaction ─▶ committed
//!           ▲        expire: delivery.timeout.ms              │
//!           └───────────────── requeue ◀── aborted ───────────┘
//! ```
//!
//! Pure: time is passed in.
//!
//! # Invariants
//! - Frames are taken in the order sent; those of a transaction that was aborted go before all
//!   others.
//! - A frame is never split, and a group has one frame at least.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::super::error::ProduceError;
use super::frame::TransactionFrame;
use super::frame_delivery::FramePromise;
use crate::topic::TopicPartition;

/// A frame that is not committed yet.
#[derive(Debug)]
pub(super) struct QueuedFrame {
    pub(super) frame: TransactionFrame,
    pub(super) promise: FramePromise,
    pub(super) sent_at: Instant,
}

/// How much one transaction takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TransactionLimits {
    pub(super) frames: usize,
    pub(super) bytes: usize,
}

/// The frames that wait.
#[derive(Debug)]
pub(super) struct FrameQueue {
    frames: VecDeque<QueuedFrame>,
    delivery_timeout: Duration,
}

impl FrameQueue {
    /// Frames wait for `delivery_timeout`.
    pub(super) fn new(delivery_timeout: Duration) -> Self {
        Self {
            frames: VecDeque::new(),
            delivery_timeout,
        }
    }

    /// Adds a frame behind all others.
    pub(super) fn push(&mut self, frame: QueuedFrame) {
        self.frames.push_back(frame);
    }

    /// Puts the frames of an aborted transaction back before all others.
    pub(super) fn requeue(&mut self, frames: impl DoubleEndedIterator<Item = QueuedFrame>) {
        for frame in frames.rev() {
            self.frames.push_front(frame);
        }
    }

    /// The frames of the next transaction; none if none wait.
    pub(super) fn next_group(&mut self, limits: TransactionLimits) -> Vec<QueuedFrame> {
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.frames.front() {
            bytes += next.frame.size();
            if !group.is_empty() && (group.len() >= limits.frames || bytes > limits.bytes) {
                break;
            }
            group.extend(self.frames.pop_front());
        }
        group
    }

    /// When the first frame has waited for its delivery timeout.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        Some(self.frames.front()?.sent_at + self.delivery_timeout)
    }

    /// Fails the frames that have waited for their delivery timeout: they are not written, and
    /// never will be.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.next_deadline().is_some_and(|deadline| deadline <= now) {
            let Some(expired) = self.frames.pop_front() else {
                return;
            };
            let records = expired.frame.records().iter();
            let faults: Vec<_> = records
                .map(|record| {
                    let topic = record.topic.name.clone();
                    let partition = TopicPartition::new(topic, record.partition.unwrap_or(0));
                    ProduceError::TimedOut { partition }
                })
                .enumerate()
                .collect();
            expired.promise.fail(&faults, &ProduceError::Stopped);
        }
    }

    /// Fails all of them.
    pub(super) fn fail_all(&mut self, error: &ProduceError) {
        for frame in self.frames.drain(..) {
            frame.promise.fail(&[], error);
        }
    }
}

#[cfg(test)]
mod tests;
