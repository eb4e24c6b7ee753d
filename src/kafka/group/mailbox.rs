//! What a consumer's reader and its membership task tell each other.
//!
//! ```text
//! reader ── offsets, released, reset, leave ──▶ Letters ──▶ task
//! reader ◀── assigned, revoke, lost, closed ─── Letters ◀── task
//! ```
//!
//! Both only leave word and wake the other; neither waits for it. What can pile up is
//! bounded by the partitions of one member: the task says nothing new before the reader
//! has answered a revocation.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use super::commit::Commits;
use super::error::ConsumerError;
use crate::kafka::TopicPartition;
use crate::kafka::fetch::Position;
use crate::kafka::lock::lock;

/// From the task to the reader.
#[derive(Debug)]
pub(crate) enum Notice {
    /// Read these, from there.
    Assigned(Vec<(TopicPartition, Position)>),
    /// Go on there.
    Moved(TopicPartition, Position),
    /// Let go of these, and say so with the number.
    Revoke(u64, Vec<TopicPartition>),
    /// These are gone.
    Lost(Vec<TopicPartition>),
    /// The end.
    Closed(ConsumerError),
}

/// One consumer's letters.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    letters: Mutex<Letters>,
    /// Wakes the task.
    pub(crate) to_task: Notify,
    /// Wakes the reader; its cursors use the same.
    pub(crate) to_reader: Arc<Notify>,
}

#[derive(Debug, Default)]
pub(crate) struct Letters {
    pub(crate) notices: VecDeque<Notice>,
    pub(crate) commits: Commits,
    /// The last revocation that the reader is through with.
    pub(crate) released: Option<u64>,
    /// Partitions whose position is no more.
    pub(crate) reset: Vec<TopicPartition>,
    pub(crate) leave: bool,
    /// The task is through.
    pub(crate) ended: bool,
}

impl Mailbox {
    pub(crate) fn letters(&self) -> MutexGuard<'_, Letters> {
        lock(&self.letters)
    }

    /// From the task to the reader.
    pub(crate) fn notify(&self, notice: Notice) {
        self.letters().notices.push_back(notice);
        self.to_reader.notify_one();
    }
}
