//! One consumer group as its coordinator sees it (the classic protocol).
//!
//! ```text
//!        first join                   all rejoined, or time is up
//! Empty ───────────▶ PreparingRebalance ──────────────▶ CompletingRebalance
//!   ▲                   ▲    ▲    ▲                         │         │ the leader
//!   │ last member gone  │    │    └── a member joins, ──────┘         │ syncs
//!   └───────────────────┘    │        leaves or rejoins               ▼
//!                            └───────────────────────────────────── Stable
//! ```
//!
//! The machine does no I/O and reads no clock: every call takes `now`, answers go into
//! the callers' channels at once or later, and [`ClassicGroup::next_deadline`] says when
//! [`ClassicGroup::tick`] has something to do.
//!
//! # Invariants
//! - The generation rises by one each time that PreparingRebalance ends.
//! - A parked join or sync is answered exactly once: when its state ends, when its member
//!   is removed or fenced, or when another request of that member takes its place.
//! - A member with a parked request does not expire.

#[cfg(any(test, feature = "faults"))]
mod history;
mod member;
mod offsets;
mod rebalance;
mod size;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;
use tokio::sync::oneshot;

#[cfg(any(test, feature = "faults"))]
pub use history::{
    DepartureCause, GenerationAssignment, GroupHistory, MemberAssignment, MemberDeparture,
};
pub(super) use member::{
    ClassicGroupMember, JoinRequest, JoinResult, JoinResultMember, SyncRequest, SyncResult,
};
pub(super) use offsets::OffsetAndMetadata;
pub(super) use size::size_of_offset;

/// The coordinator's settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupLimits {
    pub(super) initial_delay: Duration,
    pub(super) session_min: Duration,
    pub(super) session_max: Duration,
    pub(super) members_max: usize,
}

/// A group: its members, its generation and its offsets.
#[derive(Debug)]
pub(super) struct ClassicGroup {
    limits: GroupLimits,
    state: ClassicGroupState,
    generation: i32,
    protocol_type: Option<StrBytes>,
    protocol: Option<StrBytes>,
    leader: Option<StrBytes>,
    /// In the order of joining.
    members: Vec<ClassicGroupMember>,
    /// Ids that were handed out and not yet used, with their expiry (KIP-394).
    pending: HashMap<StrBytes, Instant>,
    /// Who has to sync, and until when.
    unsynced: HashSet<StrBytes>,
    sync_deadline: Instant,
    ids: u64,
    pub(super) offsets: BTreeMap<(StrBytes, i32), OffsetAndMetadata>,
    /// Bytes of the offsets.
    committed: usize,
    pub(super) last_used: Instant,
    /// When the coordinator is scheduled to look at this group.
    pub(super) scheduled: Option<Instant>,
    #[cfg(any(test, feature = "faults"))]
    history: GroupHistory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClassicGroupState {
    Empty,
    PreparingRebalance {
        deadline: Instant,
        /// The first rebalance of an empty group waits for more members, at most so long.
        initial: Option<InitialRebalanceDelay>,
    },
    CompletingRebalance,
    Stable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct InitialRebalanceDelay {
    left: Duration,
    members_joined: bool,
}

impl ClassicGroup {
    /// A group without members.
    pub(super) fn new(limits: GroupLimits, now: Instant) -> Self {
        Self {
            limits,
            state: ClassicGroupState::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: Vec::new(),
            pending: HashMap::new(),
            unsynced: HashSet::new(),
            sync_deadline: now,
            ids: 0,
            offsets: BTreeMap::new(),
            committed: 0,
            last_used: now,
            scheduled: None,
            #[cfg(any(test, feature = "faults"))]
            history: GroupHistory::default(),
        }
    }

    /// A member joins or rejoins.
    pub(super) fn join(&mut self, join: JoinRequest, now: Instant) {
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
            Ok(JoinAdmission::ClassicGroupMember(at)) => self.rejoin(at, join, now),
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
            return found.map(JoinAdmission::ClassicGroupMember);
        }
        if let Some(at) = self.static_member(join.instance_id.as_ref()) {
            return Ok(JoinAdmission::Returning(at));
        }
        if self.members.len() + self.pending.len() >= self.limits.members_max {
            return Err(ResponseError::GroupMaxSizeReached);
        }
        Ok(JoinAdmission::New)
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
                #[cfg(any(test, feature = "faults"))]
                self.history.joining(&join.member_id);
                self.members[at].rejoin(join, now);
                self.prepare_rebalance(now);
            }
        }
    }

    /// A member asks for its assignment; the leader brings everyone's.
    pub(super) fn sync(&mut self, sync: SyncRequest, now: Instant) {
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
        #[cfg(any(test, feature = "faults"))]
        self.history.assigned(self.generation, &self.members, now);
    }

    /// A member is alive; learns whether it has to rejoin.
    pub(super) fn heartbeat(
        &mut self,
        member_id: &StrBytes,
        instance_id: Option<&StrBytes>,
        generation: i32,
        now: Instant,
    ) -> Result<(), ResponseError> {
        self.last_used = now;
        let at = self.find(member_id, instance_id)?;
        if generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        self.members[at].reset_session(now);
        #[cfg(any(test, feature = "faults"))]
        self.history.heartbeat(member_id, now);
        match self.state {
            ClassicGroupState::Empty => Err(ResponseError::UnknownMemberId),
            ClassicGroupState::PreparingRebalance { .. } => Err(ResponseError::RebalanceInProgress),
            ClassicGroupState::CompletingRebalance | ClassicGroupState::Stable => Ok(()),
        }
    }

    /// A member leaves; a static one may be named by its instance alone.
    pub(super) fn leave(
        &mut self,
        member_id: &StrBytes,
        instance_id: Option<&StrBytes>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        self.last_used = now;
        if self.pending.remove(member_id).is_some() {
            self.try_complete_rebalance(now);
            return Ok(());
        }
        let at = match instance_id {
            Some(_) if member_id.is_empty() => self
                .static_member(instance_id)
                .ok_or(ResponseError::UnknownMemberId)?,
            _ => self.find(member_id, instance_id)?,
        };
        #[cfg(any(test, feature = "faults"))]
        self.note_departure(at, DepartureCause::Left, now);
        self.remove(at);
        self.rebalance_after_removal(now);
        Ok(())
    }

    /// Whether a commit is to be accepted, from a member or (generation -1, no member id)
    /// from outside of the group protocol.
    pub(super) fn check_commit(
        &mut self,
        member_id: &StrBytes,
        instance_id: Option<&StrBytes>,
        generation: i32,
        now: Instant,
    ) -> Result<(), ResponseError> {
        self.last_used = now;
        if generation < 0 && self.members.is_empty() {
            return Ok(());
        }
        let at = self.find(member_id, instance_id)?;
        if generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        self.members[at].reset_session(now);
        match self.state {
            ClassicGroupState::Empty => Err(ResponseError::UnknownMemberId),
            ClassicGroupState::CompletingRebalance => Err(ResponseError::RebalanceInProgress),
            ClassicGroupState::PreparingRebalance { .. } | ClassicGroupState::Stable => Ok(()),
        }
    }

    /// Handles deadlines that have passed.
    pub(super) fn tick(&mut self, now: Instant) {
        let pending = self.pending.len();
        self.pending.retain(|_, expiry| *expiry > now);
        if self.pending.len() != pending {
            self.try_complete_rebalance(now);
        }
        while let Some(at) = self.members.iter().position(|member| member.expired(now)) {
            #[cfg(any(test, feature = "faults"))]
            self.note_departure(at, DepartureCause::SessionExpired, now);
            self.remove(at);
            self.rebalance_after_removal(now);
        }
        if !self.unsynced.is_empty() && self.sync_deadline <= now {
            for id in std::mem::take(&mut self.unsynced) {
                if let Some(at) = self.members.iter().position(|member| member.id == id) {
                    #[cfg(any(test, feature = "faults"))]
                    self.note_departure(at, DepartureCause::RebalanceTimedOut, now);
                    self.remove(at);
                }
            }
            self.rebalance_after_removal(now);
        }
        if let ClassicGroupState::PreparingRebalance { deadline, initial } = self.state
            && deadline <= now
        {
            match initial {
                Some(InitialRebalanceDelay {
                    left,
                    members_joined: true,
                }) if !left.is_zero() => {
                    let delay = self.limits.initial_delay.min(left);
                    self.state = ClassicGroupState::PreparingRebalance {
                        deadline: now + delay,
                        initial: Some(InitialRebalanceDelay {
                            left: left - delay,
                            members_joined: false,
                        }),
                    };
                }
                _ => self.complete_rebalance(now),
            }
        }
    }

    /// When [`tick`](Self::tick) will have something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let state = match self.state {
            ClassicGroupState::PreparingRebalance { deadline, .. } => Some(deadline),
            _ => None,
        };
        let sync = (!self.unsynced.is_empty()).then_some(self.sync_deadline);
        let members = self.members.iter().filter_map(ClassicGroupMember::deadline);
        let pending = self.pending.values().copied();
        members.chain(pending).chain(state).chain(sync).min()
    }

    /// It has no members and has handed out no member ids.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty()
    }

    /// As ListGroups names the state.
    pub(super) fn state(&self) -> &'static str {
        match self.state {
            ClassicGroupState::Empty => "Empty",
            ClassicGroupState::PreparingRebalance { .. } => "PreparingRebalance",
            ClassicGroupState::CompletingRebalance => "CompletingRebalance",
            ClassicGroupState::Stable => "Stable",
        }
    }

    /// `consumer`, or what else its members are.
    pub(super) fn protocol_type(&self) -> StrBytes {
        self.protocol_type.clone().unwrap_or_default()
    }

    /// The assignor of this generation.
    pub(super) fn protocol(&self) -> StrBytes {
        self.protocol.clone().unwrap_or_default()
    }

    /// The members in the order of joining.
    pub(super) fn members(&self) -> &[ClassicGroupMember] {
        &self.members
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

    fn static_member(&self, instance_id: Option<&StrBytes>) -> Option<usize> {
        let instance_id = instance_id?;
        let is = |member: &ClassicGroupMember| member.instance_id.as_ref() == Some(instance_id);
        self.members.iter().position(is)
    }

    /// The member of that id, which the instance has to agree with (KIP-345).
    fn find(
        &self,
        member_id: &StrBytes,
        instance_id: Option<&StrBytes>,
    ) -> Result<usize, ResponseError> {
        if instance_id.is_some() {
            let at = self
                .static_member(instance_id)
                .ok_or(ResponseError::UnknownMemberId)?;
            return if self.members[at].id == *member_id {
                Ok(at)
            } else {
                Err(ResponseError::FencedInstanceId)
            };
        }
        let is = |member: &ClassicGroupMember| member.id == *member_id;
        let at = self.members.iter().position(is);
        at.ok_or(ResponseError::UnknownMemberId)
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
        #[cfg(any(test, feature = "faults"))]
        self.history.replaced(&old.id, id.clone(), now);
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

    fn repeat_join_result(&mut self, at: usize, join: JoinRequest, now: Instant) {
        let is_leader = self.leader.as_ref() == Some(&join.member_id);
        self.members[at].reset_session(now);
        let _ = join.reply.send(self.joined(at, is_leader));
    }

    fn remove(&mut self, at: usize) {
        let mut gone = self.members.remove(at);
        gone.fail_parked(ResponseError::UnknownMemberId);
        self.unsynced.remove(&gone.id);
        if self.leader.as_ref() == Some(&gone.id) {
            self.leader = self.members.first().map(|member| member.id.clone());
        }
    }

    fn joined(&self, at: usize, with_members: bool) -> JoinResult {
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

    fn synced(&self, assignment: Bytes) -> Result<SyncResult, ResponseError> {
        Ok(SyncResult {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment,
        })
    }
}

// What tests do and see.
#[cfg(any(test, feature = "faults"))]
impl ClassicGroup {
    /// Another node takes over: parked requests fail with `NOT_COORDINATOR`.
    pub(super) fn resign(&mut self, now: Instant) {
        for member in &mut self.members {
            member.fail_parked(ResponseError::NotCoordinator);
            member.reset_session(now);
        }
        if matches!(self.state, ClassicGroupState::PreparingRebalance { .. }) {
            self.state = ClassicGroupState::PreparingRebalance {
                deadline: now + self.rebalance_timeout(),
                initial: None,
            };
        }
    }

    /// The generation of the last completed rebalance.
    pub(super) fn generation(&self) -> i32 {
        self.generation
    }

    /// What became of its members.
    pub(super) fn history(&self) -> &GroupHistory {
        &self.history
    }

    fn note_departure(&mut self, at: usize, cause: DepartureCause, now: Instant) {
        self.history.departed(&self.members[at], cause, now);
    }
}

/// As what a JoinGroup request is admitted.
enum JoinAdmission {
    /// A new member without an id.
    New,
    /// A pending member that comes with the id it was given (KIP-394).
    Named,
    /// A static member without its id: it restarted.
    Returning(usize),
    /// A member.
    ClassicGroupMember(usize),
}

/// The channel of a parked join.
type JoinResponder = oneshot::Sender<JoinResult>;
/// The channel of a parked sync.
type SyncResponder = oneshot::Sender<Result<SyncResult, ResponseError>>;
