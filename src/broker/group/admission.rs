//! How a JoinGroup request is admitted: as whose, and whether it makes the group rebalance.

use std::time::Instant;

use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;

use super::observer::GroupObserver;
use super::{
    ClassicGroup, ClassicGroupMember, ClassicGroupState, JoinRequest, JoinResult, JoinResultMember,
};

impl ClassicGroup {
    /// A member joins or rejoins.
    pub(crate) fn join(&mut self, join: JoinRequest, now: Instant) {
        self.last_used = now;
        match self.admission(&join) {
            Err(error) => join.fail(error),
            Ok(JoinAdmission::Returning(at)) => self.replace_static(at, join, now),
            Ok(JoinAdmission::New) => {
                let id = self.new_member_id(&join);
                if join.instance_id.is_none() && join.requires_member_id {
                    self.pending.insert(id.clone(), now + join.session);
                    join.require_id(id);
                } else {
                    self.add(id, join, now);
                }
            }
            Ok(JoinAdmission::Named) => {
                let id = join.member_id.clone();
                self.pending.remove(&id);
                self.add(id, join, now);
            }
            Ok(JoinAdmission::Known(at)) => self.rejoin(at, join, now),
        }
    }

    fn admission(&self, join: &JoinRequest) -> Result<JoinAdmission, ResponseError> {
        if join.session < self.limits.session_min || join.session > self.limits.session_max {
            return Err(ResponseError::InvalidSessionTimeout);
        }
        if !self.supports(join) {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        if !join.member_id.is_empty() {
            if self.pending.contains_key(&join.member_id) {
                return Ok(JoinAdmission::Named);
            }
            let found = self.find(&join.member_id, join.instance_id.as_ref());
            return found.map(JoinAdmission::Known);
        }
        if let Some(at) = self.static_member(join.instance_id.as_ref()) {
            return Ok(JoinAdmission::Returning(at));
        }
        if self.members.len() + self.pending.len() >= self.limits.members_max {
            return Err(ResponseError::GroupMaxSizeReached);
        }
        Ok(JoinAdmission::New)
    }

    fn supports(&self, join: &JoinRequest) -> bool {
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return false;
        }
        if self.members.is_empty() {
            return true;
        }
        let others = |member: &&ClassicGroupMember| member.id != join.member_id;
        self.protocol_type.as_ref() == Some(&join.protocol_type)
            && join.protocols.iter().any(|(name, _)| {
                let others = self.members.iter().filter(others);
                others
                    .into_iter()
                    .all(|member| member.metadata(name).is_some())
            })
    }

    fn new_member_id(&mut self, join: &JoinRequest) -> StrBytes {
        self.ids += 1;
        let name = join.instance_id.as_ref().unwrap_or(&join.client_id);
        StrBytes::from_string(format!("{}-{:x}-{}", &**name, join.nonce, self.ids))
    }

    fn rejoin(&mut self, at: usize, join: JoinRequest, now: Instant) {
        let is_leader = self.leader.as_ref() == Some(&join.member_id);
        let same = self.members[at].protocols == join.protocols;
        match self.state {
            ClassicGroupState::Empty => join.fail(ResponseError::UnknownMemberId),
            ClassicGroupState::CompletingRebalance if same => {
                self.repeat_join_result(at, join, now)
            }
            ClassicGroupState::Stable if same && !is_leader => {
                self.repeat_join_result(at, join, now)
            }
            _ => {
                self.observer.on_rejoin(&join.member_id);
                self.members[at].rejoin(join, now);
                self.prepare_rebalance(now);
            }
        }
    }

    fn repeat_join_result(&mut self, at: usize, join: JoinRequest, now: Instant) {
        let is_leader = self.leader.as_ref() == Some(&join.member_id);
        self.members[at].reset_session(now);
        let _ = join.reply.send(self.joined(at, is_leader));
    }

    fn add(&mut self, id: StrBytes, join: JoinRequest, now: Instant) {
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        if let ClassicGroupState::PreparingRebalance {
            initial: Some(initial),
            ..
        } = &mut self.state
        {
            initial.members_joined = true;
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.members.push(ClassicGroupMember::new(id, join, now));
        self.prepare_rebalance(now);
    }

    /// A static member restarted: it takes its own place under a new id.
    fn replace_static(&mut self, at: usize, join: JoinRequest, now: Instant) {
        let id = self.new_member_id(&join);
        let can_skip_assignment = join.can_skip_assignment;
        let old = std::mem::replace(
            &mut self.members[at],
            ClassicGroupMember::new(id.clone(), join, now),
        );
        self.members[at].assignment = old.assignment.clone();
        self.observer.on_replacement(&old.id, &id, now);
        let was_leader = self.leader.as_ref() == Some(&old.id);
        if was_leader {
            self.leader = Some(id.clone());
        }
        if self.unsynced.remove(&old.id) {
            self.unsynced.insert(id);
        }
        let old_id = old.into_fenced();
        if self.state != ClassicGroupState::Stable || self.vote() != self.protocol {
            self.prepare_rebalance(now);
            return;
        }
        // Nothing changes for the others. An older client must not take itself for the
        // leader, or it would assign anew: it is told its own old id as the leader's.
        let mut joined = self.joined(at, was_leader && can_skip_assignment);
        if was_leader {
            joined.skip_assignment = can_skip_assignment;
            if !can_skip_assignment {
                joined.leader = old_id;
            }
        }
        self.members[at].answer_join(joined);
    }

    /// What a join of that member is answered with.
    pub(super) fn joined(&self, at: usize, with_members: bool) -> JoinResult {
        let members = self.members.iter().filter(|_| with_members);
        let protocol = self.protocol.clone().unwrap_or_default();
        JoinResult {
            error: None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: self.members[at].id.clone(),
            skip_assignment: false,
            members: members
                .map(|member| JoinResultMember {
                    id: member.id.clone(),
                    instance_id: member.instance_id.clone(),
                    metadata: member.metadata(&protocol).unwrap_or_default(),
                })
                .collect(),
            protocol: Some(protocol),
        }
    }
}

/// Whose JoinGroup request it is.
enum JoinAdmission {
    /// A new member without an id.
    New,
    /// A pending member that comes with the id it was given (KIP-394).
    Named,
    /// A static member without its id: it restarted.
    Returning(usize),
    /// A member that joins again.
    Known(usize),
}
