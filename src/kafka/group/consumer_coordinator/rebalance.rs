//! JoinGroup and SyncGroup, over a connection that no other member uses; the assignment, if this
//! member is the leader.

use std::time::Duration;

use futures_util::future::FutureExt;
use kafka_protocol::messages::{JoinGroupRequest, SyncGroupRequest};
use tokio::time::Instant;

use super::ConsumerCoordinator;
use crate::config::AssignorName;
use crate::group::assignment_snapshot::{AssignmentSnapshot, AssignmentWatch};
use crate::group::assignor::assign_convergent;
use crate::group::coordinator_handle::CoordinatorHandle;
use crate::group::error::GroupError;
use crate::group::membership::{JoinGroupResult, LeaderInput, MembershipAction, MembershipEvent};
use crate::group::requests::{self, ConsumerGroupMetadata};
use crate::net::pool::JoinConnection;
use crate::{BrokerId, TopicPartition};

/// JoinGroup is answered this much after the rebalance timeout at the latest.
const JOIN_GROUP_GRACE: Duration = Duration::from_secs(5);

/// How a step of a rebalance has ended: the broker that it went to, and the result.
pub(super) enum RebalanceResponse {
    /// The wait for a connection for JoinGroup.
    JoinConnection(BrokerId, Result<JoinConnection, GroupError>),
    JoinGroup(
        BrokerId,
        Result<JoinGroupResult, GroupError>,
        JoinConnection,
    ),
    SyncGroup(
        BrokerId,
        Result<Vec<TopicPartition>, GroupError>,
        Option<AssignmentSnapshot>,
    ),
}

impl ConsumerCoordinator {
    /// Waits in line for a connection, unless there is one of the step before.
    pub(super) fn acquire_join_connection(&mut self) {
        let Some(broker) = self.member.coordinator() else {
            return;
        };
        let kept = self
            .join_connection
            .take()
            .filter(|(id, connection)| *id == broker && !connection.is_closed());
        let handle = self.handle.clone();
        let acquire = async move {
            let connection = match kept {
                Some((_, connection)) => Ok(connection),
                None => handle.join_connection(broker).await,
            };
            RebalanceResponse::JoinConnection(broker, connection)
        };
        self.rebalance = Some(acquire.boxed());
    }

    pub(super) fn join_group(&mut self) {
        let (broker, connection) = self
            .join_connection
            .take()
            .expect("a member that joins has a connection");
        self.assignment = None;
        let config = self.member.config();
        let timeout = config.rebalance_timeout + JOIN_GROUP_GRACE;
        // A JoinGroup without either only brings the member id, and starts no rebalance.
        if !self.member.member_id().is_empty() || config.group_instance_id.is_some() {
            self.announce_change();
        }
        let request = requests::join_group(&self.member);
        let handle = self.handle.clone();
        let join = join_group(handle, broker, connection, request, timeout);
        self.rebalance = Some(join.boxed());
    }

    /// Goes to the broker that answered JoinGroup, over the same connection: the coordinator may
    /// be marked unknown by now, for the error of another request, but only this broker
    /// collects the generation's assignment.
    pub(super) fn sync_group(&mut self) {
        let (broker, connection) = self
            .join_connection
            .take()
            .expect("a joined member has a connection");
        let assignor = self
            .member
            .assignor()
            .expect("a joined member has an assignor");
        let leader_input = self.member.take_leader_input();
        let metadata = ConsumerGroupMetadata::of(&self.member);
        let handle = self.handle.clone();
        let sync = sync_group(handle, broker, connection, metadata, assignor, leader_input);
        self.rebalance = Some(sync.boxed());
    }

    pub(super) fn on_rebalance_response(
        &mut self,
        response: RebalanceResponse,
    ) -> Vec<MembershipAction> {
        self.rebalance = None;
        let event = match response {
            RebalanceResponse::JoinConnection(broker, result) => {
                if let Err(error) = &result {
                    self.handle.check_coordinator(broker, error);
                }
                let result = result.map(|connection| {
                    self.join_connection = Some((broker, connection));
                });
                MembershipEvent::JoinConnectionReady(broker, result)
            }
            RebalanceResponse::JoinGroup(broker, result, connection) => {
                match &result {
                    Ok(_) => self.join_connection = Some((broker, connection)),
                    Err(error) => self.handle.check_coordinator(broker, error),
                }
                MembershipEvent::JoinGroupResponse(result)
            }
            RebalanceResponse::SyncGroup(broker, result, snapshot) => {
                if let Err(error) = &result {
                    self.handle.check_coordinator(broker, error);
                }
                self.assignment = snapshot
                    .filter(|_| result.is_ok())
                    .map(|snapshot| AssignmentWatch::new(snapshot, &self.handle.cluster));
                MembershipEvent::SyncGroupResponse(result)
            }
        };
        let mut actions = self.member.handle(event, Instant::now());
        // What changed between the assignment and the subscription to changes.
        actions.extend(self.check_topics());
        actions
    }
}

async fn join_group(
    handle: CoordinatorHandle,
    broker: BrokerId,
    connection: JoinConnection,
    mut request: JoinGroupRequest,
    timeout: Duration,
) -> RebalanceResponse {
    let build = |version| {
        if version < 5 {
            request.group_instance_id = None;
        }
        request
    };
    let call = connection.call::<JoinGroupRequest>(build, timeout);
    let result = handle.unless_moved(broker, call).await;
    let result = result.and_then(requests::join_group_result);
    RebalanceResponse::JoinGroup(broker, result, connection)
}

async fn sync_group(
    handle: CoordinatorHandle,
    broker: BrokerId,
    connection: JoinConnection,
    metadata: ConsumerGroupMetadata,
    assignor: AssignorName,
    leader_input: Option<LeaderInput>,
) -> RebalanceResponse {
    let mut snapshot = None;
    let mut assignments = Vec::new();
    if let Some(leader_input) = leader_input {
        let taken = match AssignmentSnapshot::take(&handle.cluster, &leader_input).await {
            Ok(taken) => taken,
            Err(error) => return RebalanceResponse::SyncGroup(broker, Err(error), None),
        };
        if !leader_input.skip_assignment {
            let partitions = taken.partitions_per_topic();
            let lists = assign_convergent(assignor, &leader_input.members, &partitions);
            let members = leader_input.members.into_iter().map(|m| m.member_id);
            assignments = members.zip(lists).collect();
        }
        snapshot = Some(taken);
    }
    let connection = if connection.is_closed() {
        handle.join_connection(broker).await
    } else {
        Ok(connection)
    };
    let connection = match connection {
        Ok(connection) => connection,
        Err(error) => {
            return RebalanceResponse::SyncGroup(broker, Err(error), None);
        }
    };
    let build = |version| requests::sync_group(version, &metadata, assignor.as_str(), &assignments);
    let timeout = handle.cluster.config().request_timeout;
    let call = connection.call::<SyncGroupRequest>(build, timeout);
    let result = handle.unless_moved(broker, call).await;
    let result = result.and_then(|response| requests::sync_group_assignment(&response));
    RebalanceResponse::SyncGroup(broker, result, snapshot)
}
