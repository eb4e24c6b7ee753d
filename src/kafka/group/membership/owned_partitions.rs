//! What a member owns, from the assignment to the consumer: positions are looked up, and
//! partitions are revoked or lost.

use tokio::time::Instant;

use super::super::error::PositionError;
use super::{MemberState, Membership, MembershipAction, NO_GENERATION};
use crate::TopicPartition;

impl Membership {
    pub(super) fn on_positions_initialized(
        &mut self,
        ownership_version: u64,
        result: Result<Vec<TopicPartition>, PositionError>,
        now: Instant,
    ) {
        match result {
            _ if ownership_version != self.ownership_version => {}
            Ok(partitions) => {
                for tp in partitions {
                    if self.initializing.remove(&tp) && self.owned.contains(&tp) {
                        self.handed_over.insert(tp);
                    }
                }
            }
            Err(PositionError::Fatal(error)) => self.fail(error),
            Err(PositionError::RejoinNeeded) => {
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
        for tp in std::mem::take(partitions) {
            self.handed_over.remove(&tp);
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

    pub(super) fn start_revocation(&mut self, partitions: Vec<TopicPartition>, now: Instant) {
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
        let mut new = self.owned.without(&self.handed_over);
        new.retain(|tp| !self.initializing.contains(tp));
        if !new.is_empty() {
            for tp in &new {
                self.initializing.insert(tp.clone());
            }
            let epoch = self.ownership_version;
            self.actions
                .push(MembershipAction::InitializePositions(epoch, new));
        }
    }

    pub(super) fn clear_owned(&mut self) {
        self.owned.clear();
        self.initializing.clear();
        self.ownership_version += 1;
    }

    pub(super) fn lose(&mut self, partitions: Vec<TopicPartition>) {
        let lost: Vec<_> = partitions
            .into_iter()
            .filter(|tp| self.handed_over.remove(tp))
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
