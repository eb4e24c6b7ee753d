//! The task of one member: it carries out what [`Membership`] decides, as Java's
//! `ConsumerCoordinator`.
//!
//! ```text
//! MemberChannel ─▶ ┌──────────────────────────┐ ─▶ JoinGroup, SyncGroup   connection of its own
//!                  │ ConsumerCoordinator::run │ ─▶ everything else        connections by purpose
//! MemberChannel ◀─ └──────────────────────────┘ ◀─ timers, metadata
//! ```
//!
//! # Invariants
//! - Heartbeats depend on nothing that the consumer does, and wait for no other request: not for
//!   commits, joins or look-ups.
//! - A partition is handed to the consumer as soon as its position is found, whatever the
//!   others' leaders do.
//! - At most one commit of a member is in flight, and a few of a group in this process.
//! - Whatever ends the task, the consumer is told.

mod commits;
mod positions;
mod rebalance;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::FuturesUnordered;
use kafka_protocol::messages::{HeartbeatRequest, LeaveGroupRequest};
use tokio::time::Instant;

use self::commits::CommitSchedule;
use self::rebalance::RebalanceResponse;
use super::assignment_snapshot::AssignmentWatch;
use super::coordinator_handle::{CommitResult, CoordinatorHandle, PreparedCommit};
use super::error::{ConsumerError, GroupError, PositionError};
use super::last_group_start::DecidedStart;
use super::member_channel::{BackgroundEvent, ClusterChanges, MemberChannel};
use super::membership::{Generation, Membership, MembershipAction, MembershipEvent};
use super::partition_assignment::PartitionAssignment;
use super::positions::{
    CommittedOffset, OffsetFetchBatch, OffsetResetStrategy, PositionInitializer, PositionResets,
};
use super::requests::{self, ConsumerGroupMetadata};
use crate::fetcher::FetchPosition;
use crate::metrics::CountedMember;
use crate::net::pool::JoinConnection;
use crate::{BrokerId, ConnectionPurpose, IsolationLevel, TopicIdentity};

/// How long the last commit may hold up leaving.
const LAST_COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// The response to a request other than JoinGroup and SyncGroup.
enum GroupResponse {
    FindCoordinator(Result<BrokerId, GroupError>),
    /// To the heartbeat of that generation.
    Heartbeat(Generation, Result<(), GroupError>),
    /// To OffsetFetch.
    OffsetFetch(OffsetFetchBatch, Result<Vec<CommittedOffset>, GroupError>),
    /// A position by the reset strategy; `None` if the lookup was cancelled.
    PositionReset(
        PartitionAssignment,
        Option<Result<FetchPosition, PositionError>>,
    ),
    /// A commit may be sent now, or that broker is not the coordinator any more.
    CommitPrepared(Result<PreparedCommit, BrokerId>),
    /// To the commit of that generation.
    OffsetCommit(Generation, Result<CommitResult, GroupError>),
    LeaveGroup(Result<(), GroupError>),
}

/// One member's task: its membership and its requests in flight.
pub(crate) struct ConsumerCoordinator {
    handle: CoordinatorHandle,
    positions: PositionInitializer,
    member: Membership,
    channel: Arc<MemberChannel>,
    /// The JoinGroup or SyncGroup in flight, or the wait for its connection.
    rebalance: Option<BoxFuture<'static, RebalanceResponse>>,
    requests: FuturesUnordered<BoxFuture<'static, GroupResponse>>,
    /// The connection for the next JoinGroup or SyncGroup, and to which broker.
    join_connection: Option<(BrokerId, JoinConnection)>,
    /// If this member is the leader.
    assignment: Option<AssignmentWatch>,
    /// The membership changes announced in this process that this member has handled.
    announced_changes: usize,
    commits: CommitSchedule,
    resets: PositionResets,
    /// Of what is assigned, since its committed offset was fetched: positions and offsets to
    /// commit belong to these topics, not to others of the same name.
    topics: BTreeMap<PartitionAssignment, TopicIdentity>,
    /// Of the cluster that its assignments are of. What is found before this member learns of a
    /// change is of the former one.
    cluster_changes: ClusterChanges,
    /// The member's assignments whose lookups and topics were dropped when they ended.
    dropped_assignments: u64,
    /// When a member whose consumer was closed leaves at the latest.
    leave_by: Option<Instant>,
}

impl ConsumerCoordinator {
    pub(crate) fn new(
        handle: CoordinatorHandle,
        member: Membership,
        reset: OffsetResetStrategy,
        isolation: IsolationLevel,
        start: Option<Arc<DecidedStart>>,
        channel: Arc<MemberChannel>,
    ) -> Self {
        Self {
            positions: PositionInitializer::new(handle.clone(), reset, isolation, start),
            member,
            channel,
            rebalance: None,
            requests: FuturesUnordered::new(),
            join_connection: None,
            assignment: None,
            announced_changes: handle.announced_changes(),
            commits: CommitSchedule::new(handle.cluster.config()),
            resets: PositionResets::default(),
            topics: BTreeMap::new(),
            cluster_changes: 0,
            dropped_assignments: 0,
            leave_by: None,
            handle,
        }
    }

    /// Until the member has left, has failed, or the client stops.
    pub(crate) async fn run(&mut self) {
        let close_channel = CloseChannelOnDrop(Arc::clone(&self.channel));
        let stop = self.handle.cluster.stop().clone();
        let channel = Arc::clone(&self.channel);
        let mut cluster_changes = self.handle.cluster.metadata().cluster_changes();
        self.cluster_changes = self.handle.fetcher.cluster_changes();
        let metrics = Arc::clone(&self.handle.cluster.config().metrics.groups);
        let mut counted = CountedMember::new(metrics, self.member.state_index());
        let actions = self.member.poll(Instant::now());
        self.perform(actions);
        while !self.member.is_closed() {
            let deadline = self.deadline();
            let actions = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                // Before any response of the new cluster.
                Ok(()) = cluster_changes.changed() => self.on_cluster_replaced(),
                response = next_of(&mut self.rebalance) => self.on_rebalance_response(response),
                Some(response) = self.requests.next() => self.on_response(response),
                () = channel.coordinator_wake.notified() => Vec::new(),
                changes = self.handle.changed_since(self.announced_changes) => {
                    self.announced_changes = changes;
                    self.member
                        .handle(MembershipEvent::LocalMembersChanged, Instant::now())
                }
                () = metadata_changed(&mut self.assignment) => self.check_topics(),
                () = until(deadline) => self.member.poll(Instant::now()),
            };
            self.perform(actions);
            self.read_channel();
            self.drop_ended_assignments();
            counted.is_in(self.member.state_index());
        }
        drop(close_channel);
    }

    fn on_cluster_replaced(&mut self) -> Vec<MembershipAction> {
        self.cluster_changes = self.handle.fetcher.cluster_changes();
        self.positions.forget_start();
        let event = MembershipEvent::ClusterReplaced;
        self.member.handle(event, Instant::now())
    }

    fn deadline(&self) -> Option<Instant> {
        let leave = self.leave_by.filter(|_| !self.member.is_leaving());
        [self.member.deadline(), self.commit_deadline(), leave]
            .into_iter()
            .flatten()
            .min()
    }

    fn handle_event(&mut self, event: MembershipEvent) {
        let actions = self.member.handle(event, Instant::now());
        self.perform(actions);
    }

    /// Handles what the consumer has left in the channel, and commits what can be committed now.
    fn read_channel(&mut self) {
        let now = Instant::now();
        let channel = Arc::clone(&self.channel);
        let mut guard = channel.state();
        let state = &mut *guard;
        let to_reset = std::mem::take(&mut state.reset_partitions);
        let commits_idle = state.commits.is_idle();
        // Only the commits of what is released: commits of what stays may go on for ever.
        let commits = &state.commits;
        let settled = |(_, released): &mut (_, Vec<_>)| commits.is_settled(released);
        let released = state.released_revocation.take_if(settled);
        if state.leave_requested && self.leave_by.is_none() {
            self.leave_by = Some(now + LAST_COMMIT_TIMEOUT);
        }
        let due_at = state.commits.due_at(now);
        let is_due = due_at.is_some_and(|at| at <= now) && !self.commits.is_in_flight();
        let due_topics = is_due.then(|| state.commits.due_topics(now));
        drop(guard);

        if !self.member.is_leaving() {
            for assignment in to_reset {
                let actions = self.reset_position(assignment);
                self.perform(actions);
            }
        }
        if let Some((revocation, _)) = released {
            self.handle_event(MembershipEvent::RevocationComplete(revocation));
        }
        // The last commit comes before leaving, if it can be made.
        if self
            .leave_by
            .is_some_and(|by| commits_idle || by <= now || self.member.generation() < 0)
        {
            self.handle_event(MembershipEvent::LeaveRequested);
        }
        if let Some(topics) = due_topics {
            self.prepare_commit(topics, now);
        }
    }

    fn perform(&mut self, actions: Vec<MembershipAction>) {
        use MembershipAction as Action;
        for action in actions {
            tracing::trace!(group = %self.handle.group_id, member = %self.member.member_id(), ?action);
            match action {
                Action::FindCoordinator => self.find_coordinator(),
                Action::AcquireJoinConnection => self.acquire_join_connection(),
                Action::JoinGroup => self.join_group(),
                Action::SyncGroup => self.sync_group(),
                Action::Heartbeat => self.heartbeat(),
                Action::CancelRebalance => {
                    self.rebalance = None;
                    self.join_connection = None;
                }
                Action::InitializePositions(assignments) => {
                    self.initialize_positions(assignments);
                }
                Action::Revoke(revocation, partitions) => {
                    let event = BackgroundEvent::Revoke(revocation, partitions);
                    self.channel.send(event);
                }
                Action::Lose(partitions) => {
                    tracing::debug!(group = %self.handle.group_id, ?partitions, "partitions were lost");
                    // After the event the consumer stores no offsets of these.
                    self.channel.send(BackgroundEvent::Lost(partitions));
                    self.drop_lost_commits();
                }
                Action::LeaveGroup => self.leave_group(),
                Action::Close => {}
                Action::FailConsumer(error) => {
                    let group = &self.handle.group_id;
                    if let ConsumerError::Rejected { .. } | ConsumerError::Failed { .. } = error {
                        tracing::warn!(%group, %error, "the consumer ends");
                    } else {
                        tracing::debug!(%group, %error, "the consumer ends");
                    }
                    self.channel.send(BackgroundEvent::Closed(error));
                }
            }
        }
    }

    /// Lets the group's other members in this process know that this one joins or has left.
    fn announce_change(&mut self) {
        self.announced_changes = self.handle.announce_change();
    }

    fn find_coordinator(&mut self) {
        let handle = self.handle.clone();
        let find = async move { GroupResponse::FindCoordinator(handle.coordinator().await) };
        self.requests.push(find.boxed());
    }

    fn heartbeat(&mut self) {
        let Some(broker) = self.member.heartbeat_coordinator() else {
            return;
        };
        if let Some(assignment) = &self.assignment {
            assignment.keep_refreshed(&self.handle.cluster);
        }
        let (handle, metadata) = (self.handle.clone(), ConsumerGroupMetadata::of(&self.member));
        // Early enough to look up the coordinator and to repeat the heartbeat there.
        let timeout = self.member.config().session_timeout / 3;
        let heartbeat = async move {
            let build = |version| requests::heartbeat(version, &metadata);
            let result = handle
                .call::<HeartbeatRequest>(broker, ConnectionPurpose::Heartbeat, build, timeout)
                .await;
            let result = result.and_then(|response| {
                GroupError::from_code(response.error_code).map_or(Ok(()), Err)
            });
            if let Err(error) = &result {
                handle.check_coordinator(broker, error);
            }
            GroupResponse::Heartbeat(metadata.into_generation(), result)
        };
        self.requests.push(heartbeat.boxed());
    }

    fn leave_group(&mut self) {
        let Some(broker) = self.member.coordinator() else {
            return;
        };
        let (handle, metadata) = (self.handle.clone(), ConsumerGroupMetadata::of(&self.member));
        let timeout = handle.cluster.config().request_timeout;
        let leave = async move {
            let build = |version| requests::leave_group(version, &metadata);
            let result = handle
                .call::<LeaveGroupRequest>(broker, ConnectionPurpose::LeaveGroup, build, timeout)
                .await;
            let result = result.and_then(|response| requests::leave_group_result(&response));
            if let Err(error) = &result {
                handle.check_coordinator(broker, error);
            }
            GroupResponse::LeaveGroup(result)
        };
        self.requests.push(leave.boxed());
    }

    fn on_response(&mut self, response: GroupResponse) -> Vec<MembershipAction> {
        let event = match response {
            GroupResponse::FindCoordinator(result) => {
                MembershipEvent::FindCoordinatorResponse(result)
            }
            GroupResponse::Heartbeat(generation, result) => {
                MembershipEvent::HeartbeatResponse(generation, result)
            }
            GroupResponse::OffsetFetch(batch, result) => {
                return self.on_offset_fetch_response(batch, result);
            }
            GroupResponse::PositionReset(assignment, found) => {
                return self.on_position_reset(assignment, found);
            }
            GroupResponse::CommitPrepared(Ok(prepared)) => {
                self.commit(prepared);
                return Vec::new();
            }
            GroupResponse::CommitPrepared(Err(broker)) => {
                return self.on_coordinator_moved(broker);
            }
            GroupResponse::OffsetCommit(generation, result) => {
                return self.on_commit_response(generation, result);
            }
            GroupResponse::LeaveGroup(result) => {
                if result.is_ok() {
                    self.announce_change();
                }
                MembershipEvent::LeaveGroupResponse(result)
            }
        };
        self.member.handle(event, Instant::now())
    }

    /// As the leader: whether the group's topics have changed since they were assigned.
    fn check_topics(&mut self) -> Vec<MembershipAction> {
        let Some(assignment) = &mut self.assignment else {
            return Vec::new();
        };
        if !assignment.is_outdated() {
            return Vec::new();
        }
        self.assignment = None;
        tracing::debug!(group = %self.handle.group_id, "the group's topics have changed");
        self.member
            .handle(MembershipEvent::TopicsChanged, Instant::now())
    }
}

/// Tells the consumer that its task has ended, even after a panic.
struct CloseChannelOnDrop(Arc<MemberChannel>);

impl Drop for CloseChannelOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

async fn next_of<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn metadata_changed(assignment: &mut Option<AssignmentWatch>) {
    match assignment {
        Some(assignment) => assignment.changed().await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
