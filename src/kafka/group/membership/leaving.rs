//! How a member leaves its group: under its name, once the broker has named it, and in
//! bounded time.

use std::time::Duration;

use tokio::time::Instant;

use super::super::error::{Failure, Verdict};
use super::{Action, Membership, Phase};

/// How long leaving may take.
pub(super) const LEAVE_LIMIT: Duration = Duration::from_secs(5);
/// Between attempts to leave.
const LEAVE_AGAIN: Duration = Duration::from_millis(100);

impl Membership {
    pub(super) fn leave(&mut self, now: Instant) {
        if self.is_leaving() {
            return;
        }
        let asked = matches!(self.phase, Phase::Joining | Phase::Syncing);
        self.phase = Phase::Leaving {
            asked,
            early: asked,
            sent: false,
            until: now + LEAVE_LIMIT,
            again: None,
        };
    }

    pub(super) fn advance_leave(&mut self, now: Instant) {
        let nameless = self.id.is_empty() && self.config.group_instance_id.is_none();
        let known = self.coordinator().is_some();
        let Phase::Leaving {
            asked,
            sent,
            until,
            again,
            ..
        } = &mut self.phase
        else {
            return;
        };
        if *until <= now || (nameless && !*asked) {
            self.close(None);
            return;
        }
        // The answer to the first JoinGroup names us; nothing else can be waited for.
        if nameless || !known {
            return;
        }
        if again.is_some_and(|at| at <= now) {
            *again = None;
            *sent = false;
        }
        if !*sent && again.is_none() {
            *sent = true;
            self.actions.push(Action::Leave);
        }
    }

    pub(super) fn left(&mut self, result: Result<(), Failure>, now: Instant) {
        let verdict = result.err().map(|failure| failure.verdict());
        let Phase::Leaving {
            early, sent, again, ..
        } = &mut self.phase
        else {
            return;
        };
        match verdict {
            Some(Verdict::FindCoordinator | Verdict::Retry) => {
                *sent = false;
                *again = Some(now + LEAVE_AGAIN);
                if verdict == Some(Verdict::FindCoordinator) {
                    self.find_coordinator(now);
                }
            }
            Some(Verdict::UnknownMember) if *early => {
                *early = false;
                *sent = false;
                *again = Some(now + LEAVE_AGAIN);
            }
            _ => self.close(None),
        }
    }
}
