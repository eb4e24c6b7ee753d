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
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use super::commit::Commits;
use super::error::{CommitError, ConsumerError};
use crate::TopicPartition;
use crate::fetcher::Position;
use crate::lock::lock;
use runtime::bell::Bell;

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
#[derive(Debug)]
pub(crate) struct Mailbox {
    letters: Mutex<Letters>,
    /// Whether there are notices: the reader looks for them whenever it wakes.
    noticed: AtomicBool,
    /// Wakes the task.
    pub(crate) to_task: Notify,
    /// Wakes the reader; its cursors use the same.
    pub(crate) to_reader: Arc<Bell>,
}

#[derive(Debug, Default)]
pub(crate) struct Letters {
    notices: VecDeque<Notice>,
    pub(crate) commits: Commits,
    /// The last revocation that the reader is through with, and its partitions.
    pub(crate) released: Option<(u64, Vec<TopicPartition>)>,
    /// Partitions whose position is no more.
    pub(crate) reset: Vec<TopicPartition>,
    pub(crate) leave: bool,
    /// The task is through.
    pub(crate) ended: bool,
}

impl Letters {
    /// What the reader holds of `tp` was lost, which it has not heard yet.
    pub(crate) fn tell_of_loss(&self, tp: &TopicPartition) -> bool {
        let lost = |notice: &Notice| matches!(notice, Notice::Lost(list) if list.contains(tp));
        self.notices.iter().any(lost)
    }
}

impl Mailbox {
    pub(crate) fn new(to_reader: Arc<Bell>) -> Self {
        Self {
            letters: Mutex::default(),
            noticed: AtomicBool::new(false),
            to_task: Notify::new(),
            to_reader,
        }
    }

    pub(crate) fn letters(&self) -> MutexGuard<'_, Letters> {
        lock(&self.letters)
    }

    /// From the task to the reader.
    pub(crate) fn notify(&self, notice: Notice) {
        self.post(&mut self.letters(), notice);
        self.to_reader.ring();
    }

    /// The oldest notice that the reader has not seen.
    pub(crate) fn notice(&self) -> Option<Notice> {
        if !self.noticed.load(Ordering::Acquire) {
            return None;
        }
        let mut letters = self.letters();
        let notice = letters.notices.pop_front();
        self.noticed
            .store(!letters.notices.is_empty(), Ordering::Release);
        notice
    }

    /// The last word of the task, also of one that panicked.
    pub(crate) fn end(&self) {
        let mut letters = self.letters();
        letters.ended = true;
        letters.commits.close(&CommitError::Closed);
        if !letters.leave && !matches!(letters.notices.back(), Some(Notice::Closed(_))) {
            self.post(&mut letters, Notice::Closed(ConsumerError::Stopped));
        }
        drop(letters);
        self.to_reader.ring();
    }

    fn post(&self, letters: &mut Letters, notice: Notice) {
        letters.notices.push_back(notice);
        self.noticed.store(true, Ordering::Release);
    }
}
