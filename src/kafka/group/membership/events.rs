//! The events that drive a membership, and the actions that follow from them.

use std::sync::Arc;
use std::time::Duration;

use super::super::assignor::GroupMember;
use super::super::error::{ConsumerError, GroupError, PositionError};
use super::super::partition_assignment::PartitionAssignment;
use crate::config::AssignorName;
use crate::{BrokerId, TopicPartition};

/// How a member takes part in its group, as Java's `GroupRebalanceConfig`.
#[derive(Debug)]
pub(crate) struct GroupRebalanceConfig {
    pub(crate) group_id: Arc<str>,
    pub(crate) group_instance_id: Option<Arc<str>>,
    pub(crate) topics: Vec<Arc<str>>,
    pub(crate) rack: Option<String>,
    pub(crate) assignors: Vec<AssignorName>,
    pub(crate) session_timeout: Duration,
    /// How long the coordinator waits for members to rejoin.
    pub(crate) rebalance_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    /// How long a consumer may take to release revoked partitions.
    pub(crate) revocation_timeout: Duration,
    /// Before the first repetition of a request that failed.
    pub(crate) retry_backoff: Duration,
    /// Before a later repetition, at most.
    pub(crate) retry_backoff_max: Duration,
}

/// What a JoinGroup response says.
#[derive(Clone, Debug)]
pub(crate) enum JoinGroupResult {
    /// JoinGroup is to be repeated with this member id (KIP-394).
    MemberIdRequired(String),
    /// The rebalance is complete: all members have joined.
    Joined {
        member_id: String,
        generation: i32,
        protocol: String,
        /// If this member is the leader.
        leader_input: Option<LeaderInput>,
    },
}

/// The members that the leader is to assign partitions to.
#[derive(Clone, Debug)]
pub(crate) struct LeaderInput {
    pub(crate) members: Vec<GroupMember>,
    /// A static leader has rejoined: the broker has the assignment already (KIP-814).
    pub(crate) skip_assignment: bool,
}

/// As whom a request was sent, as Java's `Generation`. A member that joins again under another
/// id may come into a generation of the same number: what its former self asked says nothing
/// of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Generation {
    pub(crate) generation_id: i32,
    pub(crate) member_id: String,
}

/// What happened to a membership.
#[derive(Debug)]
pub(crate) enum MembershipEvent {
    FindCoordinatorResponse(Result<BrokerId, GroupError>),
    /// There is a connection to that broker for JoinGroup, or none could be opened.
    JoinConnectionReady(BrokerId, Result<(), GroupError>),
    JoinGroupResponse(Result<JoinGroupResult, GroupError>),
    SyncGroupResponse(Result<Vec<TopicPartition>, GroupError>),
    /// The response to a heartbeat of that generation.
    HeartbeatResponse(Generation, Result<(), GroupError>),
    /// A commit of that generation failed with an error that concerns the membership.
    CommitFailed(Generation, GroupError),
    /// The consumer is handed these, with the position of each.
    PositionsInitialized(Vec<PartitionAssignment>),
    /// These have no position, or cannot be given another.
    PositionsFailed(Vec<PartitionAssignment>, PositionError),
    /// The consumer has released the partitions of that revocation, and their offsets are
    /// committed.
    RevocationComplete(u64),
    /// Another member in this process joins or has left.
    LocalMembersChanged,
    /// The partitions of the topics that this leader assigned have changed.
    TopicsChanged,
    /// Another cluster took the place of the one whose group this is: it knows neither the member
    /// nor its generation.
    ClusterReplaced,
    /// The consumer was closed.
    LeaveRequested,
    LeaveGroupResponse(Result<(), GroupError>),
}

/// What the task of a membership has to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum MembershipAction {
    FindCoordinator,
    /// Wait in line for a connection for JoinGroup, then expect
    /// [`MembershipEvent::JoinConnectionReady`].
    AcquireJoinConnection,
    /// Over the connection that is ready.
    JoinGroup,
    /// With an assignment, if this member is the leader.
    SyncGroup,
    Heartbeat,
    /// Cancel JoinGroup, SyncGroup, or the wait for a connection.
    CancelRebalance,
    /// Look up the position of each, until it is known or the assignment has ended.
    InitializePositions(Vec<PartitionAssignment>),
    /// Have the consumer release these, then expect
    /// [`MembershipEvent::RevocationComplete`] with that id.
    Revoke(u64, Vec<PartitionAssignment>),
    /// Tell the consumer that these are lost.
    Lose(Vec<PartitionAssignment>),
    /// Tell the consumer that it ends. Its member goes on until it has left.
    FailConsumer(ConsumerError),
    LeaveGroup,
    /// The membership has ended.
    Close,
}
