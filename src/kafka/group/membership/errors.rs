//! What a member does about the errors of its requests.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::error::{ConsumerError, GroupError, GroupErrorAction};
use super::{Generation, MemberState, Membership, MembershipEnd, NO_GENERATION};

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
                self.fail(ConsumerError::Fenced { group, instance });
            }
            Action::FailNotAuthorized => {
                let group = Arc::clone(&self.config.group_id);
                self.fail(ConsumerError::GroupNotAuthorized { group });
            }
            Action::Fail => {
                let group = Arc::clone(&self.config.group_id);
                self.fail(error.clone().into_consumer_error(group));
            }
            Action::Stop => self.fail(ConsumerError::Stopped),
        }
    }

    pub(super) fn fail(&mut self, error: ConsumerError) {
        self.close(MembershipEnd::Failed(error));
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
