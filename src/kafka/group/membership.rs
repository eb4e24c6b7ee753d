//! One member's membership in a group, decided purely: events in, actions out. Java's
//! `AbstractCoordinator` without its I/O.
//!
//! ```text
//!                 ┌──────────── lost, refused, backoff ────────────────┐
//!                 ▼                                                    │
//!  Unjoined ─▶ PreparingRebalance ─▶ CompletingRebalance ─▶ Stable ────┤
//!     ▲ in line    JoinGroup          SyncGroup               │ rebalance, or the assignment
//!     │                                                       ▼ revokes partitions
//!     └──────────────────────────────────────────────────── Revoking
//!                                any ─▶ Leaving ─▶ Closed
//! ```
//!
//! Beside it runs the lookup of the coordinator, and heartbeats are sent whenever the broker
//! counts this member in, also while positions are looked up, the consumer releases
//! partitions, the coordinator is looked up because another request has failed, or this member
//! waits in line for a connection for JoinGroup: only a JoinGroup that is sent keeps it alive.
//!
//! # Invariants
//! - Under the eager protocol nothing is owned while a JoinGroup is in flight; under the
//!   cooperative one only what the last assignment named.
//! - A partition is given up only after the consumer has released it or the revocation timed
//!   out; partitions that the group took away are reported lost at once.
//! - Nothing is delivered after the time at which the broker may have ended the session:
//!   `session.timeout.ms` after the last answered request was sent. Another member may own the
//!   partitions then.
//! - A response to a request of an older generation changes nothing, and neither does one about
//!   an assignment of a partition that has ended: each assignment has a number.
//! - A membership is in one cluster: when another takes its place, all is lost, and the member
//!   joins anew.
//! - Every wait has an end: see [`Membership::deadline`].

mod coordinator_state;
mod errors;
mod events;
mod heartbeat_timer;
mod leaving;
mod owned_partitions;
mod rebalance;

use std::time::Duration;

use tokio::time::Instant;

use self::coordinator_state::CoordinatorState;
pub(crate) use self::events::{
    Generation, GroupRebalanceConfig, JoinGroupResult, LeaderInput, MembershipAction,
    MembershipEvent,
};
use self::heartbeat_timer::HeartbeatTimer;
use super::consumer_protocol::MemberSubscription;
use super::error::{GroupError, GroupErrorAction};
use super::partition_assignment::{AssignmentSet, PartitionAssignment};
use super::partition_set::PartitionSet;
use crate::BrokerId;
use crate::backoff::ExponentialBackoff;
use crate::config::AssignorName;

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
        partitions: Vec<PartitionAssignment>,
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

/// Of a member that is in no generation, as Java's `Generation.NO_GENERATION`.
const NO_GENERATION: i32 = -1;
/// When another member in this process joins or leaves, the broker has its request after this
/// long: a heartbeat then learns of the rebalance.
const LOCAL_CHANGE_DELAY: Duration = Duration::from_millis(30);

/// Whether there is a connection for JoinGroup, to which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JoinConnectionState {
    None,
    Requested(BrokerId),
    Ready(BrokerId),
}

/// One member's state in its group, and what it owns.
#[derive(Debug)]
pub(crate) struct Membership {
    config: GroupRebalanceConfig,
    state: MemberState,
    join_connection: JoinConnectionState,
    coordinator: CoordinatorState,
    /// Empty until the broker has given one.
    member_id: String,
    generation: i32,
    /// The assignor of the last generation.
    assignor: Option<AssignorName>,
    leader_input: Option<LeaderInput>,
    /// The partitions of the last assignment.
    owned: PartitionSet,
    /// The partitions that the consumer was handed, with their positions, and has not released.
    handed_over: AssignmentSet,
    /// The partitions whose positions are being looked up.
    initializing: AssignmentSet,
    /// The number of the last assignment of a partition.
    last_assignment: u64,
    /// Counts revocations.
    revocation: u64,
    rejoin_needed: bool,
    heartbeat: HeartbeatTimer,
    rejoin_backoff: ExponentialBackoff,
    actions: Vec<MembershipAction>,
}

impl Membership {
    pub(crate) fn new(config: GroupRebalanceConfig, now: Instant) -> Self {
        let backoff = ExponentialBackoff::new(config.retry_backoff, config.retry_backoff_max);
        Self {
            heartbeat: HeartbeatTimer::new(config.heartbeat_interval, config.session_timeout, now),
            config,
            state: MemberState::Unjoined { join_at: now },
            join_connection: JoinConnectionState::None,
            coordinator: CoordinatorState::new(backoff.clone(), now),
            member_id: String::new(),
            generation: NO_GENERATION,
            assignor: None,
            leader_input: None,
            owned: PartitionSet::default(),
            handed_over: AssignmentSet::default(),
            initializing: AssignmentSet::default(),
            last_assignment: 0,
            revocation: 0,
            rejoin_needed: false,
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

    /// Whether that is what this member is now, and no former self of it.
    fn is_current(&self, of: &Generation) -> bool {
        of.generation_id == self.generation && of.member_id == self.member_id
    }

    pub(crate) fn assignor(&self) -> Option<AssignorName> {
        self.assignor
    }

    pub(crate) fn coordinator(&self) -> Option<BrokerId> {
        self.coordinator.broker()
    }

    /// Where heartbeats go; the last coordinator while it is looked up for another reason.
    pub(crate) fn heartbeat_coordinator(&self) -> Option<BrokerId> {
        self.coordinator.heartbeat_broker()
    }

    /// The leader's input, if this member is the leader of the generation; taken once.
    pub(crate) fn take_leader_input(&mut self) -> Option<LeaderInput> {
        self.leader_input.take()
    }

    /// Whether a commit may be sent now: the broker counts this member in, and no assignment of
    /// a new generation is outstanding.
    pub(crate) fn can_commit(&self) -> bool {
        let member = self.generation >= 0 && self.coordinator().is_some();
        match self.state {
            MemberState::Stable | MemberState::Revoking { .. } => member,
            // Of the generation that still counts, also while this member waits in line.
            MemberState::Unjoined { .. } | MemberState::PreparingRebalance => {
                member && !self.handed_over.is_empty()
            }
            _ => false,
        }
    }

    /// Changes whenever an assignment has ended.
    pub(crate) fn ended_assignments(&self) -> u64 {
        self.handed_over.removals() + self.initializing.removals()
    }

    /// Whether the consumer has that assignment: it is read, and its offsets may be committed.
    pub(crate) fn is_handed_over(&self, assignment: &PartitionAssignment) -> bool {
        self.handed_over.contains(assignment)
    }

    /// Whether the initial position of that assignment is still needed.
    pub(crate) fn is_initializing(&self, assignment: &PartitionAssignment) -> bool {
        self.initializing.contains(assignment)
    }

    /// Which of the [`MEMBER_STATES`](crate::metrics::MEMBER_STATES) it is in.
    pub(crate) fn state_index(&self) -> usize {
        match self.state {
            MemberState::Unjoined { .. } => 0,
            MemberState::PreparingRebalance => 1,
            MemberState::CompletingRebalance => 2,
            MemberState::Stable => 3,
            MemberState::Revoking { .. } => 4,
            MemberState::Leaving { .. } => 5,
            MemberState::Closed => 6,
        }
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
            MemberState::Unjoined { join_at } => self.join_deadline(*join_at),
            MemberState::Revoking { deadline, .. } => Some(*deadline),
            MemberState::Leaving {
                deadline, retry_at, ..
            } => {
                let retry_at = retry_at.filter(|_| self.coordinator().is_some());
                Some(retry_at.map_or(*deadline, |at| at.min(*deadline)))
            }
            MemberState::PreparingRebalance
            | MemberState::CompletingRebalance
            | MemberState::Stable
            | MemberState::Closed => None,
        };
        let lookup = self.coordinator.lookup_at().filter(|_| !self.is_closed());
        let session = self.session_deadline();
        [state, lookup, self.heartbeat_deadline(), session]
            .into_iter()
            .flatten()
            .min()
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
        if self.coordinator.start_lookup(now) {
            self.actions.push(MembershipAction::FindCoordinator);
        }
        if self.session_deadline().is_some_and(|at| at <= now) {
            self.on_session_timeout(now);
        }
        match &self.state {
            MemberState::Stable if self.rejoin_needed => self.prepare_join(now),
            MemberState::Revoking { deadline, .. } if *deadline <= now => {
                self.on_revocation_timeout(now);
            }
            MemberState::Leaving { .. } => self.poll_leave(now),
            _ => {}
        }
        self.poll_join(now);
        if self.heartbeat_deadline().is_some_and(|at| at <= now) {
            self.heartbeat.sent(now);
            self.actions.push(MembershipAction::Heartbeat);
        }
        std::mem::take(&mut self.actions)
    }

    fn heartbeat_deadline(&self) -> Option<Instant> {
        let can_send = self.needs_heartbeats() && self.heartbeat_coordinator().is_some();
        self.heartbeat.deadline().filter(|_| can_send)
    }

    /// When the broker may have ended the session.
    fn session_deadline(&self) -> Option<Instant> {
        self.needs_heartbeats()
            .then(|| self.heartbeat.session_ends_at())
    }

    /// Not while the broker does not count this member in, and not while JoinGroup is in flight,
    /// which keeps a member alive by itself.
    fn needs_heartbeats(&self) -> bool {
        self.state != MemberState::PreparingRebalance && !self.is_leaving() && self.generation >= 0
    }

    fn apply(&mut self, event: MembershipEvent, now: Instant) {
        use MembershipEvent as Event;
        match event {
            Event::FindCoordinatorResponse(result) => self.on_find_coordinator(result, now),
            Event::JoinConnectionReady(broker, result) => {
                self.on_join_connection_ready(broker, result, now);
            }
            Event::JoinGroupResponse(result) => self.on_join_group(result, now),
            Event::SyncGroupResponse(result) => self.on_sync_group(result, now),
            Event::HeartbeatResponse(generation, result) => {
                self.on_heartbeat_response(generation, result, now);
            }
            Event::CommitFailed(generation, error) => {
                self.on_generation_error(&generation, &error, now);
            }
            Event::PositionsInitialized(assignments) => {
                self.on_positions_initialized(assignments);
            }
            Event::PositionsFailed(assignments, error) => {
                self.on_positions_failed(&assignments, error, now);
            }
            Event::RevocationComplete(revocation) => self.on_revocation_complete(revocation, now),
            Event::LocalMembersChanged => {
                if self.state == MemberState::Stable {
                    self.heartbeat.advance_to(now + LOCAL_CHANGE_DELAY);
                }
            }
            Event::TopicsChanged => self.rejoin_needed |= self.generation >= 0,
            Event::ClusterReplaced => self.on_cluster_replaced(now),
            Event::LeaveRequested => self.start_leaving(now),
            Event::LeaveGroupResponse(result) => self.on_leave_group(result, now),
        }
    }

    fn on_heartbeat_response(
        &mut self,
        generation: Generation,
        result: Result<(), GroupError>,
        now: Instant,
    ) {
        let action = result.as_ref().err().map(GroupError::action);
        let sent_at = self.heartbeat.answered(now);
        if let (None | Some(GroupErrorAction::Rejoin), Some(sent_at)) = (action, sent_at)
            && self.is_current(&generation)
        {
            self.heartbeat.confirm_session(sent_at);
        }
        let Err(error) = result else {
            return;
        };
        if action == Some(GroupErrorAction::FindCoordinator) {
            self.coordinator.heartbeat_failed(now);
            // Soon after the coordinator is found: the session goes on meanwhile.
            self.heartbeat.advance_to(now + self.config.retry_backoff);
        }
        self.on_generation_error(&generation, &error, now);
    }

    /// No request of this member was answered for as long as its session lasts.
    fn on_session_timeout(&mut self, now: Instant) {
        tracing::warn!(group = %self.config.group_id, member = %self.member_id,
            "the coordinator has not answered for session.timeout.ms: this member's partitions are lost");
        if self.state == MemberState::CompletingRebalance {
            self.cancel_rebalance();
        }
        self.reset_generation(now);
    }

    /// Begins as a new member does. There is nothing to leave any more.
    fn on_cluster_replaced(&mut self, now: Instant) {
        if self.is_leaving() {
            return self.close();
        }
        self.cancel_rebalance();
        self.coordinator.mark_unknown(now);
        self.member_id.clear();
        self.assignor = None;
        self.leader_input = None;
        self.reset_generation(now);
    }

    fn on_find_coordinator(&mut self, result: Result<BrokerId, GroupError>, now: Instant) {
        use GroupErrorAction as Action;
        let error = match result {
            Ok(broker) => return self.coordinator.found(broker),
            Err(error) => error,
        };
        match error.action() {
            Action::FailNotAuthorized | Action::Fail | Action::Stop | Action::FailFenced => {
                self.on_membership_error(&error, now);
            }
            _ => self.coordinator.lookup_failed(now),
        }
    }

    fn is_cooperative(&self) -> bool {
        self.assignor.is_some_and(AssignorName::is_cooperative)
    }

    fn close(&mut self) {
        self.cancel_rebalance();
        self.clear_owned();
        self.handed_over.clear();
        self.state = MemberState::Closed;
        self.actions.push(MembershipAction::Close);
    }
}

#[cfg(test)]
mod tests;
