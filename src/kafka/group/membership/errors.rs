//! What a member does about the errors of its requests.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::error::{ConsumerError, GroupError, GroupErrorAction};
use super::{Generation, MemberState, Membership, MembershipAction, NO_GENERATION};

impl Membership {
    /// The error of a heartbeat or a commit of that generation.
    pub(super) fn on_generation_error(
        &mut self,
        generation: &Generation,
        error: &GroupError,
        now: Instant,
    ) {
        match error.action() {
            GroupErrorAction::FindCoordinator => self.coordinator.mark_unknown(now),
            _ if !self.is_current(generation) || self.is_leaving() => {}
            GroupErrorAction::Rejoin if self.state == MemberState::Stable => {
                self.rejoin_needed = true;
            }
            // The response to JoinGroup decides.
            _ if self.state == MemberState::PreparingRebalance => {}
            GroupErrorAction::Rejoin | GroupErrorAction::Retry => {}
            _ => self.on_membership_error(error, now),
        }
    }

    /// An error that concerns the membership itself.
    pub(super) fn on_membership_error(&mut self, error: &GroupError, now: Instant) {
        use GroupErrorAction as Action;
        tracing::debug!(group = %self.config.group_id, member = %self.member_id, ?error, "membership");
        match error.action() {
            Action::Retry => self.schedule_rejoin(now),
            Action::FindCoordinator => {
                self.coordinator.mark_unknown(now);
                self.schedule_rejoin(now);
            }
            Action::Rejoin if self.is_cooperative() => self.schedule_rejoin(now),
            Action::Rejoin => {
                self.lose_all();
                self.schedule_rejoin(now);
            }
            Action::ResetMemberId => {
                self.member_id.clear();
                self.reset_generation(now);
            }
            Action::ResetGeneration => self.reset_generation(now),
            Action::FailFenced => {
                let instance = self
                    .config
                    .group_instance_id
                    .clone()
                    .unwrap_or_else(|| "".into());
                let group = Arc::clone(&self.config.group_id);
                // Its place in the group is the other consumer's.
                self.fail_and_close(ConsumerError::Fenced { group, instance });
            }
            Action::FailNotAuthorized => {
                let group = Arc::clone(&self.config.group_id);
                self.fail_and_leave(ConsumerError::GroupNotAuthorized { group }, now);
            }
            Action::Fail => {
                let group = Arc::clone(&self.config.group_id);
                self.fail_and_leave(error.clone().into_consumer_error(group), now);
            }
            Action::Stop => self.fail_and_close(ConsumerError::Stopped),
        }
    }

    /// Ends the consumer, and leaves the group if the broker has given a member id: the others need
    /// not wait for the session to end.
    pub(super) fn fail_and_leave(&mut self, error: ConsumerError, now: Instant) {
        self.actions.push(MembershipAction::FailConsumer(error));
        self.leave_after_failure(now);
    }

    /// Ends the consumer of a member that has no place in its group any more, or cannot leave it.
    fn fail_and_close(&mut self, error: ConsumerError) {
        self.actions.push(MembershipAction::FailConsumer(error));
        self.close();
    }

    pub(super) fn refused(&self, reason: Arc<str>) -> ConsumerError {
        let group = Arc::clone(&self.config.group_id);
        ConsumerError::Rejected { group, reason }
    }

    pub(super) fn reset_generation(&mut self, now: Instant) {
        self.generation = NO_GENERATION;
        self.lose_all();
        self.schedule_rejoin(now);
    }
}
