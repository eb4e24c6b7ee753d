//! What the coordinator reports of a group's members. Nothing comes of it by default, and in the
//! product; tests keep a history.

use std::time::Instant;

use kafka_protocol::protocol::StrBytes;

use super::ClassicGroupMember;

/// Learns what becomes of a group's members.
pub(super) trait GroupObserver {
    /// The leader's SyncGroup gave every member of that generation its assignment.
    fn on_assignment(&mut self, _generation: i32, _members: &[ClassicGroupMember], _now: Instant) {}

    /// A member's Heartbeat was handled.
    fn on_heartbeat(&mut self, _member_id: &StrBytes, _now: Instant) {}

    /// A member joins again: until it is assigned anew it owes no heartbeat.
    fn on_rejoin(&mut self, _member_id: &StrBytes) {}

    /// A static member restarted: it has its assignment under another id.
    fn on_replacement(&mut self, _old_id: &StrBytes, _new_id: &StrBytes, _now: Instant) {}

    /// A member is removed.
    fn on_departure(
        &mut self,
        _member: &ClassicGroupMember,
        _cause: DepartureCause,
        _now: Instant,
    ) {
    }
}

/// The product's.
#[cfg(not(any(test, feature = "faults")))]
#[derive(Debug, Default)]
pub(super) struct NoObserver;

#[cfg(not(any(test, feature = "faults")))]
impl GroupObserver for NoObserver {}

/// Why a member is no longer in its group.
#[cfg_attr(
    not(any(test, feature = "faults")),
    expect(unreachable_pub, reason = "only tests can ask for it")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DepartureCause {
    /// It sent LeaveGroup, or somebody did for it.
    Left,
    /// Nothing was heard of it for its session timeout.
    SessionExpired,
    /// It did not join, or not sync, within the rebalance timeout.
    RebalanceTimedOut,
}
