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

mod admission;
#[cfg(any(test, feature = "faults"))]
mod history;
mod member;
mod observer;
mod offsets;
mod rebalance;
mod size;
mod subscription;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;
use tokio::sync::oneshot;

#[cfg(any(test, feature = "faults"))]
pub use history::{GenerationAssignment, GroupHistory, MemberAssignment, MemberDeparture};
pub(super) use member::{
    ClassicGroupMember, JoinRequest, JoinResult, JoinResultMember, SyncRequest, SyncResult,
};
#[cfg(any(test, feature = "faults"))]
pub use observer::DepartureCause;
pub(super) use offsets::OffsetAndMetadata;
pub(super) use size::size_of_offset;

#[cfg(any(test, feature = "faults"))]
use history::GroupHistory as MemberObserver;
use observer::GroupObserver;
#[cfg(not(any(test, feature = "faults")))]
use observer::{DepartureCause, NoObserver as MemberObserver};

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
    /// Commits so far.
    commits: u64,
    pub(super) last_used: Instant,
    /// When the coordinator is scheduled to look at this group.
    pub(super) scheduled: Option<Instant>,
    /// Learns what becomes of the members.
    observer: MemberObserver,
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
            commits: 0,
            last_used: now,
            scheduled: None,
            observer: Default::default(),
        }
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
        self.observer.on_heartbeat(member_id, now);
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
        self.remove(at, DepartureCause::Left, now);
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
            self.remove(at, DepartureCause::SessionExpired, now);
            self.rebalance_after_removal(now);
        }
        if !self.unsynced.is_empty() && self.sync_deadline <= now {
            for id in std::mem::take(&mut self.unsynced) {
                if let Some(at) = self.members.iter().position(|member| member.id == id) {
                    self.remove(at, DepartureCause::RebalanceTimedOut, now);
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

    fn remove(&mut self, at: usize, cause: DepartureCause, now: Instant) {
        self.observer.on_departure(&self.members[at], cause, now);
        let mut gone = self.members.remove(at);
        gone.fail_parked(ResponseError::UnknownMemberId);
        self.unsynced.remove(&gone.id);
        if self.leader.as_ref() == Some(&gone.id) {
            self.leader = self.members.first().map(|member| member.id.clone());
        }
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

    /// Removes a member as if its session had expired; false if there is none of that id.
    pub(super) fn expire(&mut self, member_id: &str, now: Instant) -> bool {
        let Some(at) = self.members.iter().position(|m| *m.id == *member_id) else {
            return false;
        };
        self.remove(at, DepartureCause::SessionExpired, now);
        self.rebalance_after_removal(now);
        true
    }

    /// The generation of the last completed rebalance.
    pub(super) fn generation(&self) -> i32 {
        self.generation
    }

    /// What became of its members.
    pub(super) fn history(&self) -> &GroupHistory {
        &self.observer
    }
}

/// The channel of a parked join.
type JoinResponder = oneshot::Sender<JoinResult>;
/// The channel of a parked sync.
type SyncResponder = oneshot::Sender<Result<SyncResult, ResponseError>>;
