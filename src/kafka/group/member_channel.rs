//! The channel between a consumer and the task of its membership, `ConsumerCoordinator`.
//!
//! ```text
//! Consumer ── offsets, released, reset, leave ──▶ MemberChannel ──▶ ConsumerCoordinator
//! Consumer ◀── assigned, revoke, lost, closed ─── MemberChannel ◀── ConsumerCoordinator
//! ```
//!
//! Each side only leaves a message and wakes the other; neither waits. What can pile up is
//! bounded by the partitions of one member: at most one revocation is outstanding, and each
//! partition is assigned, reset and lost by turns.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use runtime::mutex::lock;
use tokio::sync::Notify;

use super::error::{CommitError, ConsumerError};
use super::partition_assignment::PartitionAssignment;
use super::pending_commits::PendingCommits;
use crate::TopicIdentity;
use crate::fetcher::FetchPosition;
use runtime::wake::WakeSignal;

/// Where a consumer begins to read a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InitialPosition {
    pub(crate) assignment: PartitionAssignment,
    pub(crate) position: FetchPosition,
    /// The topic that the position is in.
    pub(crate) topic: TopicIdentity,
}

/// After how many changes of the cluster a position was found: see
/// [`Fetcher::cursor_since`](crate::fetcher::Fetcher::cursor_since).
pub(crate) type ClusterChanges = u64;

/// From the coordinator's task to the consumer, as Java's `BackgroundEvent`.
#[derive(Debug)]
pub(crate) enum BackgroundEvent {
    /// New partitions, with the position from which to read each, as they are found.
    Assigned(ClusterChanges, Vec<InitialPosition>),
    /// The position of a partition was reset by `auto.offset.reset`.
    PositionReset(ClusterChanges, PartitionAssignment, FetchPosition),
    /// Partitions to release; the release names the revocation's number.
    Revoke(u64, Vec<PartitionAssignment>),
    /// Partitions that the group has taken away.
    Lost(Vec<PartitionAssignment>),
    /// The consumer ends; what follows is of no interest. The membership has ended, or ends
    /// with the consumer.
    Closed(ConsumerError),
}

/// One consumer's channel to the task of its membership.
#[derive(Debug)]
pub(crate) struct MemberChannel {
    state: Mutex<MemberChannelState>,
    /// Whether there are events: the consumer looks for them whenever it wakes.
    has_events: AtomicBool,
    /// Wakes the coordinator's task.
    pub(crate) coordinator_wake: Notify,
    /// Wakes the consumer; its cursors use the same.
    pub(crate) consumer_wake: Arc<WakeSignal>,
}

/// What each side has left for the other.
#[derive(Debug, Default)]
pub(crate) struct MemberChannelState {
    events: VecDeque<BackgroundEvent>,
    pub(crate) commits: PendingCommits,
    /// The last revocation whose partitions the consumer has released, and these.
    pub(crate) released_revocation: Option<(u64, Vec<PartitionAssignment>)>,
    /// Partitions whose position is out of range.
    pub(crate) reset_partitions: Vec<PartitionAssignment>,
    pub(crate) leave_requested: bool,
    /// The coordinator's task has ended.
    pub(crate) closed: bool,
}

impl MemberChannelState {
    /// Whether an event that the consumer has not received yet says that it is lost.
    pub(crate) fn has_unread_loss_of(&self, assignment: &PartitionAssignment) -> bool {
        let lost = |event: &BackgroundEvent| matches!(event, BackgroundEvent::Lost(list) if list.contains(assignment));
        self.events.iter().any(lost)
    }
}

impl MemberChannel {
    pub(crate) fn new(consumer_wake: Arc<WakeSignal>) -> Self {
        Self {
            state: Mutex::default(),
            has_events: AtomicBool::new(false),
            coordinator_wake: Notify::new(),
            consumer_wake,
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, MemberChannelState> {
        lock(&self.state)
    }

    /// Sends an event to the consumer.
    pub(crate) fn send(&self, event: BackgroundEvent) {
        self.post(&mut self.state(), event);
        self.consumer_wake.notify();
    }

    /// The oldest event that the consumer has not received.
    pub(crate) fn try_recv(&self) -> Option<BackgroundEvent> {
        if !self.has_events.load(Ordering::Acquire) {
            return None;
        }
        let mut state = self.state();
        let event = state.events.pop_front();
        self.has_events
            .store(!state.events.is_empty(), Ordering::Release);
        event
    }

    /// Ends the channel with the task, also with one that panicked.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.commits.close(&CommitError::Closed);
        if !state.leave_requested
            && !matches!(state.events.back(), Some(BackgroundEvent::Closed(_)))
        {
            self.post(&mut state, BackgroundEvent::Closed(ConsumerError::Stopped));
        }
        drop(state);
        self.consumer_wake.notify();
    }

    fn post(&self, state: &mut MemberChannelState, event: BackgroundEvent) {
        match (state.events.back_mut(), event) {
            // Positions that are found one after another are received together.
            (
                Some(BackgroundEvent::Assigned(before, unread)),
                BackgroundEvent::Assigned(changes, more),
            ) if *before == changes => unread.extend(more),
            (_, event) => state.events.push_back(event),
        }
        self.has_events.store(true, Ordering::Release);
    }
}
