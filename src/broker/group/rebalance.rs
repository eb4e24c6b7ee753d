//! How a rebalance begins, and how it ends: with the leader's SyncGroup.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;

use super::observer::{DepartureCause, GroupObserver};
use super::{
    ClassicGroup, ClassicGroupMember, ClassicGroupState, InitialRebalanceDelay, SyncRequest,
    SyncResult,
};

impl ClassicGroup {
    pub(super) fn prepare_rebalance(&mut self, now: Instant) {
        match self.state {
            ClassicGroupState::PreparingRebalance { .. } => {}
            ClassicGroupState::Empty => {
                let delay = self.limits.initial_delay;
                self.state = ClassicGroupState::PreparingRebalance {
                    deadline: now + delay,
                    initial: Some(InitialRebalanceDelay {
                        left: self.rebalance_timeout().saturating_sub(delay),
                        members_joined: false,
                    }),
                };
                if delay.is_zero() {
                    self.complete_rebalance(now);
                }
                return;
            }
            ClassicGroupState::CompletingRebalance | ClassicGroupState::Stable => {
                for member in &mut self.members {
                    if let Some(reply) = member.take_sync() {
                        member.reset_session(now);
                        let _ = reply.send(Err(ResponseError::RebalanceInProgress));
                    }
                }
                self.unsynced.clear();
                self.state = ClassicGroupState::PreparingRebalance {
                    deadline: now + self.rebalance_timeout(),
                    initial: None,
                };
            }
        }
        self.try_complete_rebalance(now);
    }

    pub(super) fn try_complete_rebalance(&mut self, now: Instant) {
        if matches!(
            self.state,
            ClassicGroupState::PreparingRebalance { initial: None, .. }
        ) && self.pending.is_empty()
            && self.members.iter().all(ClassicGroupMember::is_joining)
        {
            self.complete_rebalance(now);
        }
    }

    pub(super) fn complete_rebalance(&mut self, now: Instant) {
        for at in (0..self.members.len()).rev() {
            let member = &self.members[at];
            if !member.is_joining() && member.instance_id.is_none() {
                self.remove(at, DepartureCause::RebalanceTimedOut, now);
            }
        }
        if !self.members.is_empty() && !self.members.iter().any(ClassicGroupMember::is_joining) {
            // Static members only, and all of them away: wait on until they expire.
            self.state = ClassicGroupState::PreparingRebalance {
                deadline: now + self.rebalance_timeout(),
                initial: None,
            };
            return;
        }
        self.generation += 1;
        if self.members.is_empty() {
            self.state = ClassicGroupState::Empty;
            self.protocol = None;
            self.leader = None;
            return;
        }
        let joined = |member: &&ClassicGroupMember| member.is_joining();
        let is_leader = |member: &ClassicGroupMember| Some(&member.id) == self.leader.as_ref();
        if !self.members.iter().filter(joined).any(is_leader) {
            let first = self.members.iter().find(joined);
            self.leader = first.map(|member| member.id.clone());
        }
        self.protocol = self.vote();
        self.state = ClassicGroupState::CompletingRebalance;
        self.sync_deadline = now + self.rebalance_timeout();
        self.unsynced = self.members.iter().map(|m| m.id.clone()).collect();
        for at in 0..self.members.len() {
            let is_leader = self.leader.as_ref() == Some(&self.members[at].id);
            let joined = self.joined(at, is_leader);
            self.members[at].reset_session(now);
            self.members[at].answer_join(joined);
        }
    }

    pub(super) fn rebalance_after_removal(&mut self, now: Instant) {
        match self.state {
            ClassicGroupState::Stable | ClassicGroupState::CompletingRebalance => {
                self.prepare_rebalance(now)
            }
            ClassicGroupState::PreparingRebalance { .. } => self.try_complete_rebalance(now),
            ClassicGroupState::Empty => {}
        }
    }

    /// A member asks for its assignment; the leader brings everyone's.
    pub(crate) fn sync(&mut self, sync: SyncRequest, now: Instant) {
        self.last_used = now;
        let at = match self.check_sync(&sync) {
            Ok(at) => at,
            Err(error) => return sync.fail(error),
        };
        self.members[at].reset_session(now);
        self.unsynced.remove(&sync.member_id);
        match self.state {
            ClassicGroupState::Empty => sync.fail(ResponseError::UnknownMemberId),
            ClassicGroupState::PreparingRebalance { .. } => {
                sync.fail(ResponseError::RebalanceInProgress)
            }
            ClassicGroupState::Stable => {
                let assignment = self.members[at].assignment.clone();
                let _ = sync.reply.send(self.synced(assignment));
            }
            ClassicGroupState::CompletingRebalance => {
                self.members[at].park_sync(sync.reply);
                if self.leader.as_ref() == Some(&sync.member_id) {
                    self.assign(sync.assignments, now);
                }
            }
        }
    }

    fn check_sync(&self, sync: &SyncRequest) -> Result<usize, ResponseError> {
        let at = self.find(&sync.member_id, sync.instance_id.as_ref())?;
        if sync.generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        let other = |given: &Option<StrBytes>, ours: &Option<StrBytes>| {
            given.is_some() && given.as_ref() != ours.as_ref()
        };
        if other(&sync.protocol_type, &self.protocol_type) || other(&sync.protocol, &self.protocol)
        {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        Ok(at)
    }

    fn assign(&mut self, assignments: Vec<(StrBytes, Bytes)>, now: Instant) {
        let mut by_member: HashMap<_, _> = assignments.into_iter().collect();
        self.state = ClassicGroupState::Stable;
        for at in 0..self.members.len() {
            let assignment = by_member.remove(&self.members[at].id).unwrap_or_default();
            self.members[at].assignment = assignment.clone();
            if let Some(reply) = self.members[at].take_sync() {
                self.members[at].reset_session(now);
                let _ = reply.send(self.synced(assignment));
            }
        }
        self.observer
            .on_assignment(self.generation, &self.members, now);
    }

    fn synced(&self, assignment: Bytes) -> Result<SyncResult, ResponseError> {
        Ok(SyncResult {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment,
        })
    }

    /// The protocol that all know and most prefer.
    pub(super) fn vote(&self) -> Option<StrBytes> {
        let known = |name: &StrBytes| self.members.iter().all(|m| m.metadata(name).is_some());
        let mut votes: Vec<(&StrBytes, usize)> = Vec::new();
        for member in &self.members {
            let mut names = member.protocols.iter().map(|(name, _)| name);
            let Some(choice) = names.find(|name| known(name)) else {
                continue;
            };
            match votes.iter_mut().find(|(name, _)| *name == choice) {
                Some((_, count)) => *count += 1,
                None => votes.push((choice, 1)),
            }
        }
        let most = votes.iter().map(|&(_, count)| count).max()?;
        let winner = votes.iter().find(|&&(_, count)| count == most);
        winner.map(|&(name, _)| name.clone())
    }

    pub(super) fn rebalance_timeout(&self) -> Duration {
        let timeouts = self.members.iter().map(|member| member.rebalance);
        timeouts.max().unwrap_or_default()
    }
}
