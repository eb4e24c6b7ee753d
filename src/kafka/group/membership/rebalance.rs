//! How a member joins: JoinGroup, then SyncGroup, then the new assignment.

use tokio::time::Instant;

use super::super::error::GroupError;
use super::{JoinGroupResult, MemberState, Membership, MembershipAction};
use crate::TopicPartition;

impl Membership {
    pub(super) fn on_join_group(
        &mut self,
        result: Result<JoinGroupResult, GroupError>,
        now: Instant,
    ) {
        use JoinGroupResult::{Joined, MemberIdRequired};
        if let MemberState::Leaving {
            rebalance_in_flight,
            ..
        } = &mut self.state
        {
            *rebalance_in_flight = false;
            if let Ok(MemberIdRequired(member_id) | Joined { member_id, .. }) = result {
                self.member_id = member_id;
            }
            return;
        }
        if self.state != MemberState::PreparingRebalance {
            return;
        }
        match result {
            Ok(MemberIdRequired(member_id)) => {
                self.member_id = member_id;
                self.schedule_join(now);
            }
            Ok(Joined {
                member_id,
                generation,
                protocol,
                election,
            }) => {
                let offered = &self.config.assignors;
                let Some(chosen) = offered.iter().find(|a| a.as_str() == protocol) else {
                    let reason =
                        format!("it chose the protocol {protocol:?}, which was not offered");
                    self.fail(self.refused(reason.into()));
                    return;
                };
                self.assignor = Some(*chosen);
                self.member_id = member_id;
                self.generation = generation;
                self.election = election;
                self.heartbeat.restart(now);
                self.state = MemberState::CompletingRebalance;
                self.actions.push(MembershipAction::SyncGroup);
            }
            Err(error) => self.on_membership_error(&error, now),
        }
    }

    pub(super) fn on_sync_group(
        &mut self,
        result: Result<Vec<TopicPartition>, GroupError>,
        now: Instant,
    ) {
        if let MemberState::Leaving {
            rebalance_in_flight,
            ..
        } = &mut self.state
        {
            *rebalance_in_flight = false;
            return;
        }
        if self.state != MemberState::CompletingRebalance {
            return;
        }
        let assigned = match result {
            Ok(assigned) => assigned,
            Err(error) => return self.on_membership_error(&error, now),
        };
        self.rejoin_backoff.succeeded();
        self.state = MemberState::Stable;
        let topics = &self.config.topics;
        let subscribed = |tp: &TopicPartition| topics.contains(&tp.topic);
        let before = std::mem::take(&mut self.owned);
        self.owned = assigned.into_iter().filter(subscribed).collect();
        self.initializing.retain(|tp| self.owned.contains(tp));
        let any_revoked = !before.without(&self.owned).is_empty();
        let to_revoke = self.delivered.without(&self.owned);
        if self.is_cooperative() {
            self.rejoin_needed |= any_revoked;
            if !to_revoke.is_empty() {
                self.start_revocation(to_revoke, now);
            }
        } else if !to_revoke.is_empty() {
            // The group went from cooperative to eager: others may be reading them already.
            self.lose(to_revoke);
        }
        self.initialize_positions();
    }

    pub(super) fn schedule_join(&mut self, now: Instant) {
        self.state = MemberState::Unjoined { join_at: now };
    }

    /// JoinGroup again; the first time at once, then after a growing backoff.
    pub(super) fn schedule_rejoin(&mut self, now: Instant) {
        let first = self.rejoin_backoff.failures() == 0;
        let backoff = self.rejoin_backoff.after_failure();
        let join_at = if first { now } else { now + backoff };
        self.state = MemberState::Unjoined { join_at };
    }
}
