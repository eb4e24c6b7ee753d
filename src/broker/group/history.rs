//! What became of a group's members, for tests and figures; not part of the product.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;

use super::ClassicGroupMember;
use super::observer::{DepartureCause, GroupObserver};

/// A group's past as its coordinator saw it, the oldest first. Nothing of it is dropped.
#[derive(Clone, Debug, Default)]
pub struct GroupHistory {
    /// What each leader's SyncGroup gave to whom.
    pub assignments: Vec<GenerationAssignment>,
    /// The members that are no longer in the group.
    pub departures: Vec<MemberDeparture>,
    /// When each present member was last heard of: its newest Heartbeat, or its assignment.
    heartbeats: HashMap<StrBytes, Instant>,
    heartbeat_gap_max: Duration,
}

/// The assignment of one generation.
#[derive(Clone, Debug)]
pub struct GenerationAssignment {
    /// When the leader's SyncGroup was handled.
    pub at: Instant,
    /// The generation, which rises with every rebalance.
    pub generation: i32,
    /// Every member of it.
    pub members: Vec<MemberAssignment>,
}

/// What one member was assigned.
#[derive(Clone, Debug)]
pub struct MemberAssignment {
    /// The id that the coordinator gave it.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// The bytes that its leader sent: a `ConsumerProtocolAssignment` behind its version.
    pub assignment: Bytes,
}

/// The end of a membership.
#[derive(Clone, Debug)]
pub struct MemberDeparture {
    /// When it was removed.
    pub at: Instant,
    /// The id that the coordinator gave it.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// Why it was removed.
    pub cause: DepartureCause,
}

impl GroupHistory {
    /// The longest time between two heartbeats of a member, between its assignment and the
    /// first, or from the last until `now`. Rebalances do not count: a parked join is a
    /// sign of life.
    pub fn heartbeat_gap_max(&self, now: Instant) -> Duration {
        let since = |last_heartbeat: &Instant| now.saturating_duration_since(*last_heartbeat);
        let open = self.heartbeats.values().map(since);
        open.fold(self.heartbeat_gap_max, Duration::max)
    }
}

impl GroupObserver for GroupHistory {
    fn on_assignment(&mut self, generation: i32, members: &[ClassicGroupMember], now: Instant) {
        self.heartbeats = members.iter().map(|m| (m.id.clone(), now)).collect();
        let members = members.iter().map(|member| MemberAssignment {
            member_id: member.id.to_string(),
            instance_id: member.instance_id.as_deref().map(str::to_owned),
            assignment: member.assignment.clone(),
        });
        self.assignments.push(GenerationAssignment {
            at: now,
            generation,
            members: members.collect(),
        });
    }

    fn on_heartbeat(&mut self, member_id: &StrBytes, now: Instant) {
        if let Some(last_heartbeat) = self.heartbeats.insert(member_id.clone(), now) {
            let gap = now.saturating_duration_since(last_heartbeat);
            self.heartbeat_gap_max = self.heartbeat_gap_max.max(gap);
        }
    }

    fn on_rejoin(&mut self, member_id: &StrBytes) {
        self.heartbeats.remove(member_id);
    }

    fn on_replacement(&mut self, old_id: &StrBytes, new_id: &StrBytes, now: Instant) {
        self.heartbeats.remove(old_id);
        self.heartbeats.insert(new_id.clone(), now);
    }

    fn on_departure(&mut self, member: &ClassicGroupMember, cause: DepartureCause, now: Instant) {
        if let Some(last_heartbeat) = self.heartbeats.remove(&member.id) {
            let gap = now.saturating_duration_since(last_heartbeat);
            if cause == DepartureCause::SessionExpired {
                self.heartbeat_gap_max = self.heartbeat_gap_max.max(gap);
            }
        }
        self.departures.push(MemberDeparture {
            at: now,
            member_id: member.id.to_string(),
            instance_id: member.instance_id.as_deref().map(str::to_owned),
            cause,
        });
    }
}
