//! OffsetCommit: one at a time per member, with a permit of the group, after the backoff of
//! failures.

use futures_util::future::FutureExt;
use kafka_protocol::error::ResponseError;
use tokio::time::Instant;

use super::{ConsumerCoordinator, GroupResponse};
use crate::BrokerId;
use crate::backoff::ExponentialBackoff;
use crate::config::ClientConfig;
use crate::group::coordinator_handle::GroupCommitPermit;
use crate::group::error::{ConsumerError, GroupError};
use crate::group::member_channel::BackgroundEvent;
use crate::group::membership::{Generation, MembershipAction, MembershipEvent};
use crate::group::partition_assignment::PartitionAssignment;
use crate::group::requests::ConsumerGroupMetadata;
use crate::group::topic_identity::OffsetToCommit;

/// When the next OffsetCommit may be sent.
#[derive(Debug)]
pub(super) struct CommitSchedule {
    /// Waiting for its permit, or sent.
    in_flight: bool,
    backoff: ExponentialBackoff,
    not_before: Instant,
}

impl CommitSchedule {
    pub(super) fn new(config: &ClientConfig) -> Self {
        Self {
            in_flight: false,
            backoff: ExponentialBackoff::new(config.retry_backoff, config.retry_backoff_max),
            not_before: Instant::now(),
        }
    }
}

impl ConsumerCoordinator {
    /// When there is something to commit next.
    pub(super) fn commit_deadline(&self) -> Option<Instant> {
        (!self.commits.in_flight
            && self.member.can_commit()
            && self.channel.state().commits.is_sendable())
        .then_some(self.commits.not_before)
    }

    /// Waits for the permit to commit, if a commit may be sent now.
    pub(super) fn request_commit_permit(&mut self, now: Instant) {
        if self.commits.in_flight || self.commits.not_before > now || !self.member.can_commit() {
            return;
        }
        let Some(broker) = self.member.coordinator() else {
            return;
        };
        self.commits.in_flight = true;
        let permit = self.handle.clone().commit_permit(broker);
        self.requests
            .push(permit.map(GroupResponse::CommitPermit).boxed());
    }

    /// Sends what has been added until now.
    pub(super) fn commit(&mut self, permit: GroupCommitPermit) {
        let member = &self.member;
        let offsets = match member.coordinator() {
            // The coordinator may be another broker by now, which has permits of its own.
            Some(broker) if broker == permit.broker.broker() && member.can_commit() => {
                let mut state = self.channel.state();
                let owned = |assignment: &_| member.is_handed_over(assignment);
                Some((broker, state.commits.start_request(owned)))
            }
            _ => None,
        };
        let Some((broker, offsets)) = offsets.filter(|(_, offsets)| !offsets.is_empty()) else {
            self.commits.in_flight = false;
            return;
        };
        let topic_ids = &self.topic_ids;
        let offsets = offsets.into_iter();
        let offsets = offsets.map(|(assignment, next)| OffsetToCommit {
            topic_id: topic_ids.get(&assignment).copied().unwrap_or_default(),
            assignment,
            next,
        });
        let offsets = offsets.collect();
        let (handle, metadata) = (self.handle.clone(), ConsumerGroupMetadata::of(&self.member));
        let commit = async move {
            let result = handle.commit_offsets(permit, &metadata, offsets).await;
            if let Err(error) = &result {
                handle.check_coordinator(broker, error);
            }
            GroupResponse::OffsetCommit(metadata.into_generation(), result)
        };
        self.requests.push(commit.boxed());
    }

    /// The commit is sent to the new coordinator when this member knows it too.
    pub(super) fn on_no_commit_permit(&mut self, broker: BrokerId) -> Vec<MembershipAction> {
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
        result: Result<Vec<(PartitionAssignment, i16)>, GroupError>,
    ) -> Vec<MembershipAction> {
        self.commits.in_flight = false;
        let now = Instant::now();
        let outcome = self.channel.state().commits.complete_request(result);
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
