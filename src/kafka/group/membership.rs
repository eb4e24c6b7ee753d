//! One member's membership in a group, decided purely: events in, actions out. Java's
//! `AbstractCoordinator` without its I/O.
//!
//! ```text
//!                 ┌──────────── lost, refused, backoff ────────────────┐
//!                 ▼                                                    │
//!  Unjoined ─▶ PreparingRebalance ─▶ CompletingRebalance ─▶ Stable ────┤
//!                 ▲        JoinGroup          SyncGroup       │ rebalance, or the assignment
//!                 │                                           ▼ revokes partitions
//!                 └──────────────────────────────────────── Revoking
//!                                any ─▶ Leaving ─▶ Closed
//! ```
//!
//! Beside it runs the lookup of the coordinator, and heartbeats are sent whenever the broker
//! counts this member in, also while positions are looked up or the consumer releases
//! partitions.
//!
//! # Invariants
//! - Under the eager protocol nothing is owned while a JoinGroup is in flight; under the
//!   cooperative one only what the last assignment named.
//! - A partition is given up only after the consumer has released it or the revocation timed
//!   out; partitions that the group took away are reported lost at once.
//! - A response to a request of an older generation changes nothing.
//! - Every wait has an end: see [`Membership::deadline`].

mod events;
mod leaving;
mod owned_partitions;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use self::events::{
    GroupRebalanceConfig, JoinGroupResult, LeaderElection, MembershipAction, MembershipEnd,
    MembershipEvent,
};
use super::consumer_protocol::MemberSubscription;
use super::error::{ConsumerError, GroupError, GroupErrorAction};
use super::partition_set::PartitionSet;
use crate::backoff::ExponentialBackoff;
use crate::config::AssignorName;
use crate::{BrokerId, TopicPartition};

/// As Java's `MemberState`, with its waits.
#[derive(Clone, Debug, PartialEq, Eq)]
enum MemberState {
    /// JoinGroup is sent at that time.
    Unjoined {
        join_at: Instant,
    },
    /// JoinGroup is in flight.
    PreparingRebalance,
    /// SyncGroup is in flight.
    CompletingRebalance,
    Stable,
    /// The consumer is releasing partitions; JoinGroup follows.
    Revoking {
        deadline: Instant,
        partitions: Vec<TopicPartition>,
    },
    Leaving {
        /// Whether a JoinGroup or SyncGroup is still in flight.
        rebalance_in_flight: bool,
        /// UNKNOWN_MEMBER_ID is expected once: LeaveGroup may overtake the JoinGroup before
        /// it, which went over another connection.
        may_overtake_join: bool,
        sent: bool,
        deadline: Instant,
        /// LeaveGroup is repeated then.
        retry_at: Option<Instant>,
    },
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CoordinatorState {
    Unknown { lookup_at: Instant },
    LookingUp,
    Known(BrokerId),
}

/// Of a member that is in no generation, as Java's `Generation.NO_GENERATION`.
const NO_GENERATION: i32 = -1;
/// When another member in this process joins or leaves, the broker has its request after this
/// long: a heartbeat then learns of the rebalance.
const LOCAL_CHANGE_DELAY: Duration = Duration::from_millis(30);

/// One member's state in its group, and what it owns.
#[derive(Debug)]
pub(crate) struct Membership {
    config: GroupRebalanceConfig,
    state: MemberState,
    coordinator: CoordinatorState,
    /// Empty until the broker has given one.
    member_id: String,
    generation: i32,
    /// The assignor of the last generation.
    assignor: Option<AssignorName>,
    election: Option<LeaderElection>,
    /// The partitions of the last assignment.
    owned: PartitionSet,
    /// The partitions that the consumer was given and has not released.
    delivered: PartitionSet,
    /// The partitions whose positions are being looked up.
    initializing: PartitionSet,
    /// Counts losses, so that positions that were looked up before a loss are not used after it.
    ownership_epoch: u64,
    /// Counts revocations.
    revocation: u64,
    rejoin_needed: bool,
    next_heartbeat: Instant,
    heartbeat_in_flight: bool,
    rejoin_backoff: ExponentialBackoff,
    lookup_backoff: ExponentialBackoff,
    actions: Vec<MembershipAction>,
}

impl Membership {
    pub(crate) fn new(config: GroupRebalanceConfig, now: Instant) -> Self {
        let backoff = ExponentialBackoff::new(config.retry_backoff, config.retry_backoff_max);
        Self {
            config,
            state: MemberState::Unjoined { join_at: now },
            coordinator: CoordinatorState::Unknown { lookup_at: now },
            member_id: String::new(),
            generation: NO_GENERATION,
            assignor: None,
            election: None,
            owned: PartitionSet::default(),
            delivered: PartitionSet::default(),
            initializing: PartitionSet::default(),
            ownership_epoch: 0,
            revocation: 0,
            rejoin_needed: false,
            next_heartbeat: now,
            heartbeat_in_flight: false,
            lookup_backoff: backoff.clone(),
            rejoin_backoff: backoff,
            actions: Vec::new(),
        }
    }

    pub(crate) fn config(&self) -> &GroupRebalanceConfig {
        &self.config
    }

    pub(crate) fn member_id(&self) -> &str {
        &self.member_id
    }

    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    pub(crate) fn assignor(&self) -> Option<AssignorName> {
        self.assignor
    }

    pub(crate) fn coordinator(&self) -> Option<BrokerId> {
        match self.coordinator {
            CoordinatorState::Known(broker) => Some(broker),
            _ => None,
        }
    }

    /// What this member is given as the leader of the generation; taken once.
    pub(crate) fn take_election(&mut self) -> Option<LeaderElection> {
        self.election.take()
    }

    /// Whether a commit may be sent now: the broker counts this member in, and no assignment of
    /// a new generation is outstanding.
    pub(crate) fn can_commit(&self) -> bool {
        let member = self.generation >= 0 && self.coordinator().is_some();
        match self.state {
            MemberState::Stable | MemberState::Revoking { .. } => member,
            MemberState::PreparingRebalance => member && !self.delivered.is_empty(),
            _ => false,
        }
    }

    /// Whether this member may still commit offsets of `tp`.
    pub(crate) fn can_commit_partition(&self, tp: &TopicPartition) -> bool {
        self.delivered.contains(tp)
    }

    /// Counts the losses of all partitions.
    pub(crate) fn ownership_epoch(&self) -> u64 {
        self.ownership_epoch
    }

    /// Whether the position of `tp`, looked up under that ownership epoch, is still needed.
    pub(crate) fn is_initializing(&self, ownership_epoch: u64, tp: &TopicPartition) -> bool {
        ownership_epoch == self.ownership_epoch
            && self.initializing.contains(tp)
            && self.owned.contains(tp)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state == MemberState::Closed
    }

    pub(crate) fn is_leaving(&self) -> bool {
        matches!(
            self.state,
            MemberState::Leaving { .. } | MemberState::Closed
        )
    }

    /// What JoinGroup offers for that assignor.
    pub(crate) fn subscription(&self, assignor: AssignorName) -> MemberSubscription {
        MemberSubscription {
            topics: self.config.topics.clone(),
            user_data: assignor
                .is_cooperative()
                .then(|| self.generation.to_be_bytes().to_vec()),
            owned: self.owned.to_vec(),
            generation: self.generation,
            rack: self.config.rack.clone(),
        }
    }

    /// When [`Membership::poll`] is due if no event comes before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let state = match &self.state {
            MemberState::Unjoined { join_at } => self.coordinator().map(|_| *join_at),
            MemberState::Revoking { deadline, .. } => Some(*deadline),
            MemberState::Leaving {
                deadline, retry_at, ..
            } => Some(retry_at.map_or(*deadline, |at| at.min(*deadline))),
            MemberState::PreparingRebalance
            | MemberState::CompletingRebalance
            | MemberState::Stable
            | MemberState::Closed => None,
        };
        let lookup = match self.coordinator {
            CoordinatorState::Unknown { lookup_at } if !self.is_closed() => Some(lookup_at),
            _ => None,
        };
        let heartbeat = self.should_heartbeat().then_some(self.next_heartbeat);
        [state, lookup, heartbeat].into_iter().flatten().min()
    }

    /// Applies an event, and returns what follows.
    pub(crate) fn handle(&mut self, event: MembershipEvent, now: Instant) -> Vec<MembershipAction> {
        if !self.is_closed() {
            self.apply(event, now);
        }
        self.poll(now)
    }

    /// Returns what is due.
    pub(crate) fn poll(&mut self, now: Instant) -> Vec<MembershipAction> {
        if self.is_closed() {
            return std::mem::take(&mut self.actions);
        }
        if matches!(self.coordinator, CoordinatorState::Unknown { lookup_at } if lookup_at <= now) {
            self.coordinator = CoordinatorState::LookingUp;
            self.actions.push(MembershipAction::FindCoordinator);
        }
        match &self.state {
            MemberState::Stable if self.rejoin_needed => self.prepare_join(now),
            MemberState::Revoking { deadline, .. } if *deadline <= now => {
                self.on_revocation_timeout(now);
            }
            MemberState::Leaving { .. } => self.poll_leave(now),
            _ => {}
        }
        if self.coordinator().is_some()
            && matches!(self.state, MemberState::Unjoined { join_at } if join_at <= now)
        {
            self.state = MemberState::PreparingRebalance;
            self.rejoin_needed = false;
            self.actions.push(MembershipAction::JoinGroup);
        }
        if self.should_heartbeat() && self.next_heartbeat <= now {
            self.heartbeat_in_flight = true;
            self.actions.push(MembershipAction::Heartbeat);
        }
        std::mem::take(&mut self.actions)
    }

    /// A parked JoinGroup keeps a member alive by itself.
    fn should_heartbeat(&self) -> bool {
        let counted_in = self.state != MemberState::PreparingRebalance
            && !self.is_leaving()
            && self.generation >= 0;
        counted_in && !self.heartbeat_in_flight && self.coordinator().is_some()
    }

    fn apply(&mut self, event: MembershipEvent, now: Instant) {
        use MembershipEvent as Event;
        match event {
            Event::FindCoordinatorResponse(result) => self.on_find_coordinator(result, now),
            Event::JoinGroupResponse(result) => self.on_join_group(result, now),
            Event::SyncGroupResponse(result) => self.on_sync_group(result, now),
            Event::HeartbeatResponse(generation, result) => {
                self.heartbeat_in_flight = false;
                self.next_heartbeat = now + self.config.heartbeat_interval;
                if let Err(error) = result {
                    self.on_generation_error(generation, &error, now);
                }
            }
            Event::CommitFailed(generation, error) => {
                self.on_generation_error(generation, &error, now);
            }
            Event::PositionsInitialized(ownership_epoch, result) => {
                self.on_positions_initialized(ownership_epoch, result, now);
            }
            Event::RevocationComplete(revocation) => self.on_revocation_complete(revocation, now),
            Event::LocalMembersChanged => {
                if self.state == MemberState::Stable {
                    self.next_heartbeat = self.next_heartbeat.min(now + LOCAL_CHANGE_DELAY);
                }
            }
            Event::TopicsChanged => self.rejoin_needed |= self.generation >= 0,
            Event::LeaveRequested => self.start_leaving(now),
            Event::LeaveGroupResponse(result) => self.on_leave_group(result, now),
        }
    }

    fn on_find_coordinator(&mut self, result: Result<BrokerId, GroupError>, now: Instant) {
        use GroupErrorAction as Action;
        let error = match result {
            Ok(broker) => {
                self.lookup_backoff.succeeded();
                self.coordinator = CoordinatorState::Known(broker);
                return;
            }
            Err(error) => error,
        };
        match error.action() {
            Action::FailNotAuthorized | Action::Fail | Action::Stop | Action::FailFenced => {
                self.on_membership_error(&error, now);
            }
            _ => {
                let lookup_at = now + self.lookup_backoff.after_failure();
                self.coordinator = CoordinatorState::Unknown { lookup_at };
            }
        }
    }

    fn on_join_group(&mut self, result: Result<JoinGroupResult, GroupError>, now: Instant) {
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
                self.next_heartbeat = now + self.config.heartbeat_interval;
                self.state = MemberState::CompletingRebalance;
                self.actions.push(MembershipAction::SyncGroup);
            }
            Err(error) => self.on_membership_error(&error, now),
        }
    }

    fn on_sync_group(&mut self, result: Result<Vec<TopicPartition>, GroupError>, now: Instant) {
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

    /// The error of a heartbeat or a commit of that generation.
    fn on_generation_error(&mut self, generation: i32, error: &GroupError, now: Instant) {
        match error.action() {
            GroupErrorAction::FindCoordinator => self.mark_coordinator_unknown(now),
            _ if generation != self.generation || self.is_leaving() => {}
            GroupErrorAction::Rejoin if self.state == MemberState::Stable => {
                self.rejoin_needed = true;
            }
            // The response to JoinGroup decides.
            _ if self.state == MemberState::PreparingRebalance => {}
            GroupErrorAction::Rejoin | GroupErrorAction::Retry => {}
            _ => self.on_membership_error(error, now),
        }
    }

    fn schedule_join(&mut self, now: Instant) {
        self.state = MemberState::Unjoined { join_at: now };
    }

    fn is_cooperative(&self) -> bool {
        self.assignor.is_some_and(AssignorName::is_cooperative)
    }

    /// An error that concerns the membership itself.
    fn on_membership_error(&mut self, error: &GroupError, now: Instant) {
        use GroupErrorAction as Action;
        tracing::debug!(group = %self.config.group_id, member = %self.member_id, ?error, "membership");
        match error.action() {
            Action::Retry => self.schedule_rejoin(now),
            Action::FindCoordinator => {
                self.mark_coordinator_unknown(now);
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
            Action::Fail => self.fail(self.refused(error.message())),
            Action::Stop => self.fail(ConsumerError::Stopped),
        }
    }

    fn fail(&mut self, error: ConsumerError) {
        self.close(MembershipEnd::Failed(error));
    }

    fn refused(&self, reason: Arc<str>) -> ConsumerError {
        let group = Arc::clone(&self.config.group_id);
        ConsumerError::Refused { group, reason }
    }

    fn reset_generation(&mut self, now: Instant) {
        self.generation = NO_GENERATION;
        self.lose_all();
        self.schedule_rejoin(now);
    }

    /// JoinGroup again; the first time at once, then after a growing backoff.
    fn schedule_rejoin(&mut self, now: Instant) {
        let first = self.rejoin_backoff.failures() == 0;
        let backoff = self.rejoin_backoff.after_failure();
        let join_at = if first { now } else { now + backoff };
        self.state = MemberState::Unjoined { join_at };
    }

    fn mark_coordinator_unknown(&mut self, now: Instant) {
        if self.coordinator().is_some() {
            self.coordinator = CoordinatorState::Unknown { lookup_at: now };
        }
    }

    fn close(&mut self, end: MembershipEnd) {
        if matches!(
            self.state,
            MemberState::PreparingRebalance
                | MemberState::CompletingRebalance
                | MemberState::Leaving { .. }
        ) {
            self.actions.push(MembershipAction::CancelRebalance);
        }
        self.clear_owned();
        self.delivered.clear();
        self.state = MemberState::Closed;
        self.actions.push(MembershipAction::Close(end));
    }
}

#[cfg(test)]
mod tests;
