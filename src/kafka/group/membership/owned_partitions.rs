//! What a member owns, from the assignment to the consumer: positions are looked up, and
//! partitions are revoked or lost.

use tokio::time::Instant;

use super::super::error::PositionError;
use super::super::partition_assignment::PartitionAssignment;
use super::{MemberState, Membership, MembershipAction, NO_GENERATION};

impl Membership {
    pub(super) fn on_positions_initialized(&mut self, assignments: Vec<PartitionAssignment>) {
        for assignment in assignments {
            if self.initializing.remove(&assignment) {
                self.handed_over.insert(assignment);
            }
        }
    }

    /// Ignored when none of these assignments goes on.
    pub(super) fn on_positions_failed(
        &mut self,
        assignments: &[PartitionAssignment],
        error: PositionError,
        now: Instant,
    ) {
        let goes_on = |assignment: &PartitionAssignment| {
            self.is_initializing(assignment) || self.is_handed_over(assignment)
        };
        if !assignments.iter().any(goes_on) {
            return;
        }
        match error {
            PositionError::Fatal(error) => {
                self.actions.push(MembershipAction::FailConsumer(error));
            }
            PositionError::RejoinNeeded => {
                // Partitions without a position would silently never be read: start over.
                self.lose_all();
                self.generation = NO_GENERATION;
                self.schedule_rejoin(now);
            }
        }
    }

    pub(super) fn on_revocation_complete(&mut self, revocation: u64, now: Instant) {
        let MemberState::Revoking { partitions, .. } = &mut self.state else {
            return;
        };
        if revocation != self.revocation {
            return;
        }
        for assignment in std::mem::take(partitions) {
            self.handed_over.remove(&assignment);
        }
        self.schedule_join(now);
    }

    pub(super) fn on_revocation_timeout(&mut self, now: Instant) {
        if let MemberState::Revoking { partitions, .. } = &mut self.state {
            let partitions = std::mem::take(partitions);
            tracing::warn!(group = %self.config.group_id, member = %self.member_id, count = partitions.len(),
                "a consumer did not release its revoked partitions in time");
            self.lose(partitions);
            self.schedule_join(now);
        }
    }

    /// Before JoinGroup: the eager protocol revokes everything first. Java's `onJoinPrepare`.
    pub(super) fn prepare_join(&mut self, now: Instant) {
        if self.is_cooperative() {
            self.schedule_join(now);
        } else if self.handed_over.is_empty() {
            self.clear_owned();
            self.schedule_join(now);
        } else {
            self.clear_owned();
            self.start_revocation(self.handed_over.to_vec(), now);
        }
    }

    pub(super) fn start_revocation(&mut self, partitions: Vec<PartitionAssignment>, now: Instant) {
        self.revocation += 1;
        self.actions.push(MembershipAction::Revoke(
            self.revocation,
            partitions.clone(),
        ));
        self.state = MemberState::Revoking {
            deadline: now + self.config.revocation_timeout,
            partitions,
        };
    }

    /// Looks up positions of what is owned and neither handed over nor being looked up.
    pub(super) fn initialize_positions(&mut self) {
        let mut new = self.owned.to_vec();
        new.retain(|tp| self.handed_over.get(tp).is_none() && self.initializing.get(tp).is_none());
        let mut assignments = Vec::with_capacity(new.len());
        for tp in new {
            self.last_assignment += 1;
            let number = self.last_assignment;
            let assignment = PartitionAssignment { tp, number };
            self.initializing.insert(assignment.clone());
            assignments.push(assignment);
        }
        if !assignments.is_empty() {
            self.actions
                .push(MembershipAction::InitializePositions(assignments));
        }
    }

    pub(super) fn clear_owned(&mut self) {
        self.owned.clear();
        self.initializing.clear();
    }

    pub(super) fn lose(&mut self, assignments: Vec<PartitionAssignment>) {
        let lost: Vec<_> = assignments
            .into_iter()
            .filter(|assignment| self.handed_over.remove(assignment))
            .collect();
        if !lost.is_empty() {
            self.actions.push(MembershipAction::Lose(lost));
        }
    }

    pub(super) fn lose_all(&mut self) {
        self.clear_owned();
        self.lose(self.handed_over.to_vec());
    }
}
