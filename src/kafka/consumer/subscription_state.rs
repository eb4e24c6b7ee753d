//! The partitions that a consumer owns: what it reads of each, and what it has stored.

use super::TopicPartition;
use crate::TopicIdentity;
use crate::fetcher::{Cursor, FetchPosition};
use crate::group::{InitialPosition, PartitionAssignment};

/// The owned partitions, in the order in which they take turns.
#[derive(Debug, Default)]
pub(super) struct SubscriptionState {
    partitions: Vec<TopicPartitionState>,
    /// Index of the partition whose turn it is.
    turn: usize,
}

/// One owned partition.
#[derive(Debug)]
pub(super) struct TopicPartitionState {
    pub(super) assignment: PartitionAssignment,
    /// The topic that the position is in.
    topic: TopicIdentity,
    pub(super) fetching: FetchingState,
    /// No offset below was delivered under this assignment.
    first_offset: i64,
    /// Since a truncation or a reset: the offset after the last one that was delivered and is
    /// still in the log. Records of before may be processed late.
    delivered_end: Option<i64>,
    /// Processed up to there, and not yet queued for commit.
    pub(super) stored: Option<FetchPosition>,
}

/// Whether a partition is read.
#[derive(Debug)]
pub(super) enum FetchingState {
    Fetching(Cursor),
    /// The position was out of range; the reset policy is asked for another.
    AwaitingReset,
    /// The group wants it back; it is owned until it is released.
    Revoked,
    /// The consumer has ended.
    Closed,
}

impl SubscriptionState {
    /// The partitions that are read.
    pub(super) fn assignment(&self) -> impl Iterator<Item = &TopicPartition> {
        let assigned = self.partitions.iter().filter(|state| !state.is_revoked());
        assigned.map(|state| &state.assignment.tp)
    }

    /// The partition, if it is owned under that assignment.
    pub(super) fn get_assigned(
        &mut self,
        assignment: &PartitionAssignment,
    ) -> Option<&mut TopicPartitionState> {
        let state = self.get_mut(&assignment.tp)?;
        (state.assignment == *assignment).then_some(state)
    }

    pub(super) fn get_mut(&mut self, tp: &TopicPartition) -> Option<&mut TopicPartitionState> {
        // Most often it is the one that was read last.
        let last = self.turn.wrapping_sub(1);
        let index = match self.partitions.get(last) {
            Some(state) if state.assignment.tp == *tp => last,
            _ => {
                let mut partitions = self.partitions.iter();
                partitions.position(|state| state.assignment.tp == *tp)?
            }
        };
        self.partitions.get_mut(index)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut TopicPartitionState> {
        self.partitions.iter_mut()
    }

    /// Owns a partition from `position` on, whatever was known of it.
    pub(super) fn assign(&mut self, initial: InitialPosition, cursor: Cursor) {
        let InitialPosition {
            assignment,
            position,
            topic,
        } = initial;
        self.remove(|state| state.assignment.tp == assignment.tp);
        self.partitions.push(TopicPartitionState {
            assignment: PartitionAssignment {
                // The topic name that its records share: comparing is quick then.
                tp: cursor.tp().clone(),
                number: assignment.number,
            },
            topic,
            fetching: FetchingState::Fetching(cursor),
            first_offset: position.offset,
            delivered_end: None,
            stored: None,
        });
    }

    pub(super) fn remove(&mut self, which: impl Fn(&TopicPartitionState) -> bool) {
        self.partitions.retain(|state| !which(state));
    }

    pub(super) fn len(&self) -> usize {
        self.partitions.len()
    }

    /// The partition that is `step` turns away, with its index.
    pub(super) fn in_turn(&mut self, step: usize) -> (usize, &mut TopicPartitionState) {
        let index = (self.turn + step) % self.partitions.len();
        (index, &mut self.partitions[index])
    }

    /// The partition at `index` has had its turn.
    pub(super) fn took_turn(&mut self, index: usize) {
        self.turn = index + 1;
    }
}

impl TopicPartitionState {
    pub(super) fn is_revoked(&self) -> bool {
        matches!(self.fetching, FetchingState::Revoked)
    }

    /// Records up to `end` are delivered.
    pub(super) fn delivered(&mut self, end: i64) {
        if let Some(delivered_end) = &mut self.delivered_end {
            *delivered_end = end;
        }
    }

    /// Whether records before that offset were delivered under this assignment, and are not
    /// known to be gone from the log.
    pub(super) fn may_store(&self, offset: i64) -> bool {
        self.first_offset <= offset && self.delivered_end.is_none_or(|end| offset <= end)
    }

    pub(super) fn awaits_reset(&self) -> bool {
        matches!(self.fetching, FetchingState::AwaitingReset)
    }

    /// Whether what is read belongs to another topic of that name than the position.
    pub(super) fn is_of_another_topic(&self) -> bool {
        let FetchingState::Fetching(cursor) = &self.fetching else {
            return false;
        };
        cursor.topic().differs_from(self.topic)
    }

    pub(super) fn cursor_mut(&mut self) -> Option<&mut Cursor> {
        match &mut self.fetching {
            FetchingState::Fetching(cursor) => Some(cursor),
            FetchingState::AwaitingReset | FetchingState::Revoked | FetchingState::Closed => None,
        }
    }

    /// Reads on at `position`, which is stored for commit at once.
    pub(super) fn complete_reset(&mut self, position: FetchPosition, cursor: Cursor) {
        self.fetching = FetchingState::Fetching(cursor);
        self.first_offset = position.offset;
        self.delivered_end = Some(position.offset);
        self.stored = Some(position);
    }

    /// Stops reading until the reset policy has given a position.
    pub(super) fn await_reset(&mut self) {
        self.fetching = FetchingState::AwaitingReset;
        self.first_offset = i64::MAX;
        self.stored = None;
    }

    /// Goes back to `position`, after which the log was truncated.
    pub(super) fn truncate_to(&mut self, position: FetchPosition) {
        self.stored = self
            .stored
            .filter(|stored| stored.offset <= position.offset);
        self.first_offset = self.first_offset.min(position.offset);
        let before = self.delivered_end.unwrap_or(i64::MAX);
        self.delivered_end = Some(before.min(position.offset));
        if let Some(cursor) = self.cursor_mut() {
            cursor.seek(position);
        }
    }

    /// Stops reading for good.
    pub(super) fn close(&mut self) {
        if !self.is_revoked() {
            self.fetching = FetchingState::Closed;
        }
    }
}
