//! The positions of what is assigned: OffsetFetch for those that are assigned together, then a
//! lookup of its own for each partition that needs the reset strategy.

use std::time::Duration;

use futures_util::future::FutureExt;
use tokio::time::{Instant, sleep};

use super::{ConsumerCoordinator, GroupResponse};
use crate::fetcher::FetchPosition;
use crate::group::error::{GroupError, PositionError};
use crate::group::member_channel::{BackgroundEvent, InitialPosition};
use crate::group::membership::{MembershipAction, MembershipEvent};
use crate::group::partition_assignment::PartitionAssignment;
use crate::group::positions::{CommittedOffset, OffsetFetchBatch};

impl ConsumerCoordinator {
    pub(super) fn initialize_positions(&mut self, assignments: Vec<PartitionAssignment>) {
        // A topic that has to be asked for holds up no other.
        let snapshot = self.handle.cluster.metadata().snapshot();
        let is_known = |of: &PartitionAssignment| snapshot.topic(&of.tp.topic).is_some();
        let (known, unknown): (Vec<_>, Vec<_>) = assignments.into_iter().partition(is_known);
        let by_topic = unknown.chunk_by(|a, b| a.tp.topic == b.tp.topic);
        let batches: Vec<_> = by_topic.map(<[_]>::to_vec).chain([known]).collect();
        for batch in batches {
            let batch = OffsetFetchBatch::new(batch, self.handle.cluster.config());
            self.fetch_committed(batch, Duration::ZERO);
        }
    }

    /// Sends OffsetFetch after that time.
    fn fetch_committed(&mut self, mut batch: OffsetFetchBatch, delay: Duration) {
        let member = &self.member;
        batch.assignments.retain(|of| member.is_initializing(of));
        if batch.assignments.is_empty() {
            return;
        }
        let positions = self.positions.clone();
        let fetch = async move {
            if !delay.is_zero() {
                sleep(delay).await;
            }
            let result = positions.fetch_committed(&batch.assignments).await;
            GroupResponse::OffsetFetch(batch, result)
        };
        self.requests.push(fetch.boxed());
    }

    pub(super) fn on_offset_fetch_response(
        &mut self,
        batch: OffsetFetchBatch,
        result: Result<Vec<CommittedOffset>, GroupError>,
    ) -> Vec<MembershipAction> {
        let outcome = batch.complete(&self.handle.group_id, result);
        if let Some((batch, delay)) = outcome.retry {
            self.fetch_committed(batch, delay);
        }
        let mut actions = self.hand_over(outcome.committed);
        for (assignment, topic) in outcome.uncommitted {
            if !self.member.is_initializing(&assignment) {
                continue;
            }
            self.topics.insert(assignment.clone(), topic);
            let decided = self.positions.decided_start(&assignment.tp, topic);
            actions.extend(match decided {
                Some(position) => self.start_at(assignment, position),
                None => self.reset_position(assignment),
            });
        }
        if let Some((assignments, error)) = outcome.failed {
            actions.extend(self.positions_failed(assignments, error));
        }
        actions
    }

    /// Looks up where the reset strategy starts, for an initial position or one that replaces
    /// an offset out of range.
    pub(super) fn reset_position(
        &mut self,
        assignment: PartitionAssignment,
    ) -> Vec<MembershipAction> {
        if !self.needs_position(&assignment) {
            return Vec::new();
        }
        let topic = self.topics.get(&assignment).copied();
        let initial_of = topic.filter(|_| self.member.is_initializing(&assignment));
        let spec = match self.positions.reset_spec(&assignment.tp, initial_of) {
            Ok(spec) => spec,
            Err(error) => return self.positions_failed(vec![assignment], error),
        };
        let cancelled = self.resets.start(assignment.clone());
        let position = self.positions.clone();
        let lookup = async move {
            let position = position.list_offset(assignment.tp.clone(), spec);
            let found = cancelled.run_until_cancelled(position).await;
            GroupResponse::PositionReset(assignment, found)
        };
        self.requests.push(lookup.boxed());
        Vec::new()
    }

    /// Without a result the lookup was cancelled.
    pub(super) fn on_position_reset(
        &mut self,
        assignment: PartitionAssignment,
        found: Option<Result<FetchPosition, PositionError>>,
    ) -> Vec<MembershipAction> {
        let Some(found) = found else {
            return Vec::new();
        };
        self.resets.finish(&assignment);
        let position = match found {
            Ok(position) => position,
            Err(error) => return self.positions_failed(vec![assignment], error),
        };
        if self.member.is_handed_over(&assignment) {
            let changes = self.cluster_changes;
            let event = BackgroundEvent::PositionReset(changes, assignment, position);
            self.channel.send(event);
            return Vec::new();
        }
        self.start_at(assignment, position)
    }

    /// Hands over an initial position that is not a committed offset.
    fn start_at(
        &mut self,
        assignment: PartitionAssignment,
        position: FetchPosition,
    ) -> Vec<MembershipAction> {
        if self.positions.commits_initial_reset() && self.member.is_initializing(&assignment) {
            // Before the consumer is handed it: whatever it stores is newer.
            let mut state = self.channel.state();
            state.commits.add(assignment.clone(), position);
        }
        let topic = self.topics.get(&assignment).copied();
        self.hand_over(vec![InitialPosition {
            assignment,
            position,
            topic: topic.unwrap_or_default(),
        }])
    }

    /// Cancels the lookups, and forgets the topics, whose assignment has ended.
    pub(super) fn drop_ended_assignments(&mut self) {
        let member = &self.member;
        let ended = member.ended_assignments();
        if std::mem::replace(&mut self.dropped_assignments, ended) == ended {
            return;
        }
        let needed = |of: &_| member.is_initializing(of) || member.is_handed_over(of);
        self.resets.cancel_unless(needed);
        self.topics.retain(|assignment, _| needed(assignment));
        self.commits.retain(needed);
    }

    fn needs_position(&self, assignment: &PartitionAssignment) -> bool {
        self.member.is_initializing(assignment) || self.member.is_handed_over(assignment)
    }

    /// Hands over what is still assigned.
    fn hand_over(&mut self, mut found: Vec<InitialPosition>) -> Vec<MembershipAction> {
        let member = &self.member;
        found.retain(|initial| member.is_initializing(&initial.assignment));
        if found.is_empty() {
            return Vec::new();
        }
        for initial in &found {
            let assignment = initial.assignment.clone();
            self.topics.insert(assignment, initial.topic);
        }
        let assignments = found.iter().map(|initial| initial.assignment.clone());
        let event = MembershipEvent::PositionsInitialized(assignments.collect());
        let actions = self.member.handle(event, Instant::now());
        let event = BackgroundEvent::Assigned(self.cluster_changes, found);
        self.channel.send(event);
        actions
    }

    fn positions_failed(
        &mut self,
        assignments: Vec<PartitionAssignment>,
        error: PositionError,
    ) -> Vec<MembershipAction> {
        let event = MembershipEvent::PositionsFailed(assignments, error);
        self.member.handle(event, Instant::now())
    }
}
