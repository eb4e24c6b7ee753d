//! OffsetCommit: one at a time per member, with a permit of the group, after the backoff of
//! failures.
//!
//! When commits slow down, the interval between them widens by itself: the next one of a member is
//! sent when the one before is answered and it has a permit, and carries the newest offset that
//! each partition has then. A member that stores offsets every second under commits of 5 s sends
//! one in 5 s, or fewer where permits are scarce.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::FutureExt;
use kafka_protocol::error::ResponseError;
use tokio::time::Instant;

use super::{ConsumerCoordinator, GroupResponse};
use crate::BrokerId;
use crate::backoff::ExponentialBackoff;
use crate::config::ClientConfig;
use crate::group::coordinator_handle::{CommitResult, PreparedCommit};
use crate::group::error::{ConsumerError, GroupError};
use crate::group::member_channel::BackgroundEvent;
use crate::group::membership::{Generation, MembershipAction, MembershipEvent};
use crate::group::partition_assignment::PartitionAssignment;
use crate::group::requests::ConsumerGroupMetadata;
use crate::group::topic_identity::OffsetToCommit;

/// When the next OffsetCommit may be sent.
#[derive(Debug)]
pub(super) struct CommitSchedule {
    /// Being prepared, or sent.
    in_flight: bool,
    /// Since when, or when it was that the last time.
    due_since: Instant,
    first_backoff: ExponentialBackoff,
    backoff: ExponentialBackoff,
    not_before: Instant,
    /// What was sent, and is not known to be committed for its topic, nor not to be committed.
    unconfirmed: BTreeSet<PartitionAssignment>,
}

impl CommitSchedule {
    pub(super) fn new(config: &ClientConfig) -> Self {
        let backoff = ExponentialBackoff::new(config.retry_backoff, config.retry_backoff_max);
        Self {
            in_flight: false,
            due_since: Instant::now(),
            first_backoff: backoff.clone(),
            backoff,
            not_before: Instant::now(),
            unconfirmed: BTreeSet::new(),
        }
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight
    }

    /// Forgets assignments that are not `needed`.
    pub(super) fn retain(&mut self, needed: impl Fn(&PartitionAssignment) -> bool) {
        self.unconfirmed.retain(needed);
    }
}

impl ConsumerCoordinator {
    /// When there is something to commit next.
    pub(super) fn commit_deadline(&self) -> Option<Instant> {
        if self.commits.in_flight || !self.member.can_commit() {
            return None;
        }
        let due_at = self.channel.state().commits.due_at(Instant::now());
        due_at.map(|at| at.max(self.commits.not_before))
    }

    /// Prepares a commit for offsets of these topics, if one may be sent now.
    pub(super) fn prepare_commit(&mut self, topics: Vec<Arc<str>>, now: Instant) {
        if self.commits.in_flight || self.commits.not_before > now || !self.member.can_commit() {
            return;
        }
        let Some(broker) = self.member.coordinator() else {
            return;
        };
        self.commits.in_flight = true;
        self.commits.due_since = now;
        let prepared = self.handle.clone().prepare_commit(broker, topics);
        self.requests
            .push(prepared.map(GroupResponse::CommitPrepared).boxed());
    }

    /// Sends what has been added until now.
    pub(super) fn commit(&mut self, prepared: PreparedCommit) {
        let member = &self.member;
        let offsets = match member.coordinator() {
            // The coordinator may be another broker by now, which has permits of its own.
            Some(broker) if broker == prepared.broker() && member.can_commit() => {
                let mut state = self.channel.state();
                let owned = |assignment: &_| member.is_handed_over(assignment);
                let allowed = |topic: &str| prepared.allows(topic);
                let now = Instant::now();
                Some((broker, state.commits.start_request(now, owned, allowed)))
            }
            _ => None,
        };
        let Some((broker, offsets)) = offsets.filter(|(_, offsets)| !offsets.is_empty()) else {
            self.commits.in_flight = false;
            return;
        };
        let mut sent = Vec::with_capacity(offsets.len());
        for (assignment, next) in offsets {
            let topic = self.topics.get(&assignment).copied().unwrap_or_default();
            sent.push(OffsetToCommit {
                topic: self.handle.current_topic(&assignment.tp.topic, topic),
                is_unconfirmed: !self.commits.unconfirmed.insert(assignment.clone()),
                assignment,
                next,
            });
        }
        let (handle, metadata) = (self.handle.clone(), ConsumerGroupMetadata::of(&self.member));
        let commit = async move {
            let result = handle.commit_offsets(prepared, &metadata, sent).await;
            if let Err(error) = &result {
                handle.check_coordinator(broker, error);
            }
            GroupResponse::OffsetCommit(metadata.into_generation(), result)
        };
        self.requests.push(commit.boxed());
    }

    /// The commit is sent to the new coordinator when this member knows it too.
    pub(super) fn on_coordinator_moved(&mut self, broker: BrokerId) -> Vec<MembershipAction> {
        self.commits.in_flight = false;
        if self.member.coordinator() != Some(broker) {
            return Vec::new();
        }
        let moved = GroupError::Code(ResponseError::NotCoordinator);
        let now = ConsumerGroupMetadata::of(&self.member).into_generation();
        let event = MembershipEvent::CommitFailed(now, moved);
        self.member.handle(event, Instant::now())
    }

    pub(super) fn on_commit_response(
        &mut self,
        generation: Generation,
        result: Result<CommitResult, GroupError>,
    ) -> Vec<MembershipAction> {
        self.commits.in_flight = false;
        let now = Instant::now();
        if result.is_ok() {
            let metrics = &self.handle.cluster.config().metrics.groups;
            metrics.committed(now.saturating_duration_since(self.commits.due_since));
        }
        let result = result.map(|CommitResult { codes, unconfirmed }| {
            for (assignment, _) in &codes {
                self.commits.unconfirmed.remove(assignment);
            }
            self.commits.unconfirmed.extend(unconfirmed);
            codes
        });
        let backoff = &self.commits.first_backoff;
        let mut state = self.channel.state();
        let outcome = state.commits.complete_request(result, now, backoff);
        drop(state);
        if outcome.retry {
            self.commits.not_before = now + self.commits.backoff.after_failure();
        } else {
            self.commits.backoff.succeeded();
        }
        for error in &outcome.failed {
            tracing::warn!(group = %self.handle.group_id, %error, "an offset is not committed");
        }
        let mut recreated = outcome.recreated.into_iter();
        if let Some(assignment) = recreated.find(|of| self.member.is_handed_over(of)) {
            // Whatever is read of that name belongs to another topic. The consumer ends, and
            // leaves its group.
            let topic = assignment.tp.topic;
            let error = ConsumerError::UnknownTopic { topic };
            self.channel.send(BackgroundEvent::Closed(error));
        }
        let Some(error) = outcome.error else {
            return Vec::new();
        };
        tracing::debug!(group = %self.handle.group_id, ?error, "a commit failed");
        if let Some(broker) = self.member.coordinator() {
            self.handle.check_coordinator(broker, &error);
        }
        self.member
            .handle(MembershipEvent::CommitFailed(generation, error), now)
    }

    /// This member may no longer commit offsets of what the group took away.
    pub(super) fn drop_lost_commits(&self) {
        let member = &self.member;
        let mut state = self.channel.state();
        let owned = |assignment: &_| member.is_handed_over(assignment);
        state.commits.retain_owned(owned);
    }
}
