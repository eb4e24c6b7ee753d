//! How a member joins: JoinGroup, then SyncGroup, then the new assignment.

use tokio::time::Instant;

use super::super::error::GroupError;
use super::{JoinConnectionState, JoinGroupResult, MemberState, Membership, MembershipAction};
use crate::{BrokerId, TopicPartition};

impl Membership {
    /// When the next step towards JoinGroup is due: none while this member waits in line.
    pub(super) fn join_deadline(&self, join_at: Instant) -> Option<Instant> {
        let broker = self.coordinator()?;
        (self.join_connection != JoinConnectionState::Requested(broker)).then_some(join_at)
    }

    pub(super) fn poll_join(&mut self, now: Instant) {
        let Some(broker) = self.coordinator() else {
            return;
        };
        if let JoinConnectionState::Requested(other) | JoinConnectionState::Ready(other) =
            self.join_connection
            && other != broker
        {
            self.cancel_rebalance();
        }
        if !matches!(self.state, MemberState::Unjoined { join_at } if join_at <= now) {
            return;
        }
        match self.join_connection {
            JoinConnectionState::None => {
                self.join_connection = JoinConnectionState::Requested(broker);
                self.actions.push(MembershipAction::AcquireJoinConnection);
            }
            JoinConnectionState::Requested(_) => {}
            JoinConnectionState::Ready(_) => {
                self.join_connection = JoinConnectionState::None;
                self.state = MemberState::PreparingRebalance;
                self.rejoin_needed = false;
                self.actions.push(MembershipAction::JoinGroup);
            }
        }
    }

    pub(super) fn on_join_connection_ready(
        &mut self,
        broker: BrokerId,
        result: Result<(), GroupError>,
        now: Instant,
    ) {
        if self.join_connection != JoinConnectionState::Requested(broker) {
            return;
        }
        match result {
            // Also while the coordinator is looked up: most often it is found to be the same.
            Ok(()) => self.join_connection = JoinConnectionState::Ready(broker),
            Err(error) => {
                self.join_connection = JoinConnectionState::None;
                self.on_membership_error(&error, now);
            }
        }
    }

    /// Gives up JoinGroup or SyncGroup, or the place in line for it.
    pub(super) fn cancel_rebalance(&mut self) {
        let in_flight = matches!(
            self.state,
            MemberState::PreparingRebalance
                | MemberState::CompletingRebalance
                | MemberState::Leaving { .. }
        );
        if in_flight || self.join_connection != JoinConnectionState::None {
            self.join_connection = JoinConnectionState::None;
            self.actions.push(MembershipAction::CancelRebalance);
        }
    }

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
                leader_input,
            }) => {
                let offered = &self.config.assignors;
                let Some(chosen) = offered.iter().find(|a| a.as_str() == protocol) else {
                    let reason =
                        format!("it chose the protocol {protocol:?}, which was not offered");
                    self.member_id = member_id;
                    self.fail_and_leave(self.refused(reason.into()), now);
                    return;
                };
                self.assignor = Some(*chosen);
                self.member_id = member_id;
                self.generation = generation;
                self.leader_input = leader_input;
                self.heartbeat.start_session(now);
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
        let owned = &self.owned;
        self.initializing
            .retain(|assignment| owned.contains(&assignment.tp));
        let any_revoked = !before.without(&self.owned).is_empty();
        let revoked = self.handed_over.iter();
        let revoked = revoked.filter(|assignment| !self.owned.contains(&assignment.tp));
        let to_revoke: Vec<_> = revoked.cloned().collect();
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
