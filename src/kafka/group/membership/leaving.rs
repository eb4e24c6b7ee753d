//! How a member leaves its group: under its member id, once the broker has given one, and in
//! bounded time.
//!
//! # Invariants
//! - LeaveGroup is never sent without a member id: one that names a static member by its group
//!   instance id alone removes whoever has that id by then, which may be its successor.
//! - A member whose consumer fails leaves as well, but for one that was fenced. One whose positions
//!   cannot be found goes on until its consumer, which is told, is closed: its last offsets are
//!   committed before it leaves.

use std::time::Duration;

use tokio::time::Instant;

use super::super::error::{GroupError, GroupErrorAction};
use super::{MemberState, Membership, MembershipAction};

/// How long leaving may take.
pub(super) const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between attempts to leave.
const LEAVE_BACKOFF: Duration = Duration::from_millis(100);

impl Membership {
    pub(super) fn start_leaving(&mut self, now: Instant) {
        if self.is_leaving() {
            return;
        }
        let rebalance_in_flight = matches!(
            self.state,
            MemberState::PreparingRebalance | MemberState::CompletingRebalance
        );
        if !rebalance_in_flight {
            self.cancel_rebalance();
        }
        self.state = MemberState::Leaving {
            rebalance_in_flight,
            may_overtake_join: rebalance_in_flight,
            sent: false,
            deadline: now + LEAVE_TIMEOUT,
            retry_at: None,
        };
    }

    /// Leaves, or closes if the group knows nothing of this member.
    pub(super) fn leave_after_failure(&mut self, now: Instant) {
        if self.member_id.is_empty() {
            return self.close();
        }
        let rebalance_in_flight = matches!(
            self.state,
            MemberState::PreparingRebalance | MemberState::CompletingRebalance
        );
        self.cancel_rebalance();
        self.clear_owned();
        self.handed_over.clear();
        self.state = MemberState::Leaving {
            rebalance_in_flight: false,
            may_overtake_join: rebalance_in_flight,
            sent: false,
            deadline: now + LEAVE_TIMEOUT,
            retry_at: None,
        };
    }

    pub(super) fn poll_leave(&mut self, now: Instant) {
        let unidentified = self.member_id.is_empty();
        let coordinator_known = self.coordinator().is_some();
        let MemberState::Leaving {
            rebalance_in_flight,
            sent,
            deadline,
            retry_at,
            ..
        } = &mut self.state
        else {
            return;
        };
        if *deadline <= now || (unidentified && !*rebalance_in_flight) {
            self.close();
            return;
        }
        // The response to the first JoinGroup brings the member id: until then LeaveGroup cannot
        // be sent.
        if unidentified || !coordinator_known {
            return;
        }
        if retry_at.is_some_and(|at| at <= now) {
            *retry_at = None;
            *sent = false;
        }
        if !*sent && retry_at.is_none() {
            *sent = true;
            self.actions.push(MembershipAction::LeaveGroup);
        }
    }

    pub(super) fn on_leave_group(&mut self, result: Result<(), GroupError>, now: Instant) {
        let action = result.err().map(|error| error.action());
        let MemberState::Leaving {
            may_overtake_join,
            sent,
            retry_at,
            ..
        } = &mut self.state
        else {
            return;
        };
        match action {
            Some(GroupErrorAction::FindCoordinator | GroupErrorAction::Retry) => {
                *sent = false;
                *retry_at = Some(now + LEAVE_BACKOFF);
                if action == Some(GroupErrorAction::FindCoordinator) {
                    self.coordinator.mark_unknown(now);
                }
            }
            Some(GroupErrorAction::ResetMemberId) if *may_overtake_join => {
                *may_overtake_join = false;
                *sent = false;
                *retry_at = Some(now + LEAVE_BACKOFF);
            }
            _ => self.close(),
        }
    }
}
