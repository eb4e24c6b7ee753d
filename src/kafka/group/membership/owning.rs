//! What a member owns, from the group's word to the reader's: positions are looked up, and
//! partitions are given back or lost.

use tokio::time::Instant;

use super::super::error::ConsumerError;
use super::{Action, Membership, Phase};
use crate::TopicPartition;

impl Membership {
    pub(super) fn positioned(
        &mut self,
        ownership: u64,
        result: Result<Vec<TopicPartition>, Option<ConsumerError>>,
        now: Instant,
    ) {
        match result {
            _ if ownership != self.ownership => {}
            Ok(partitions) => {
                for tp in partitions {
                    if self.positioning.remove(&tp) && self.owned.contains(&tp) {
                        self.delivered.insert(tp);
                    }
                }
            }
            Err(Some(error)) => self.close(Some(error)),
            Err(None) => {
                // Partitions without a position would silently never be read: start over.
                self.lose_all();
                self.generation = -1;
                self.retry(now);
            }
        }
    }

    pub(super) fn released(&mut self, revocation: u64, now: Instant) {
        let Phase::Revoking { partitions, .. } = &mut self.phase else {
            return;
        };
        if revocation != self.revocation {
            return;
        }
        for tp in std::mem::take(partitions) {
            self.delivered.remove(&tp);
        }
        self.ready_to_join(now);
    }

    pub(super) fn revocation_overdue(&mut self, now: Instant) {
        if let Phase::Revoking { partitions, .. } = &mut self.phase {
            let partitions = std::mem::take(partitions);
            tracing::warn!(group = %self.config.group_id, member = %self.id, count = partitions.len(),
                "a consumer did not let go of its partitions in time");
            self.lose(partitions);
            self.ready_to_join(now);
        }
    }

    /// Before JoinGroup: the eager protocol gives everything up first.
    pub(super) fn prepare_join(&mut self, now: Instant) {
        if self.is_cooperative() {
            self.ready_to_join(now);
        } else if self.delivered.is_empty() {
            self.disown();
            self.ready_to_join(now);
        } else {
            self.disown();
            self.revoke(self.delivered.to_vec(), now);
        }
    }

    pub(super) fn revoke(&mut self, partitions: Vec<TopicPartition>, now: Instant) {
        self.revocation += 1;
        self.actions
            .push(Action::Revoke(self.revocation, partitions.clone()));
        self.phase = Phase::Revoking {
            until: now + self.config.revocation_timeout,
            partitions,
        };
    }

    /// Looks up where to start in what is owned and new to the reader.
    pub(super) fn position_rest(&mut self) {
        let mut new = self.owned.without(&self.delivered);
        new.retain(|tp| !self.positioning.contains(tp));
        if !new.is_empty() {
            for tp in &new {
                self.positioning.insert(tp.clone());
            }
            self.actions.push(Action::Position(self.ownership, new));
        }
    }

    pub(super) fn disown(&mut self) {
        self.owned.clear();
        self.positioning.clear();
        self.ownership += 1;
    }

    pub(super) fn lose(&mut self, partitions: Vec<TopicPartition>) {
        let held: Vec<_> = partitions
            .into_iter()
            .filter(|tp| self.delivered.remove(tp))
            .collect();
        if !held.is_empty() {
            self.actions.push(Action::Lose(held));
        }
    }

    pub(super) fn lose_all(&mut self) {
        self.disown();
        self.lose(self.delivered.to_vec());
    }
}
