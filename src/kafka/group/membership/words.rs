//! What a member is told, and what it wants done.

use std::sync::Arc;
use std::time::Duration;

use super::super::assign::GroupMember;
use super::super::error::{ConsumerError, Failure};
use crate::config::AssignorName;
use crate::{BrokerId, TopicPartition};

/// What a member is, and how patient, as Java's `GroupRebalanceConfig`.
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

/// What a broker made of a JoinGroup.
#[derive(Clone, Debug)]
pub(crate) enum Joined {
    /// It wants to be asked again with this id (KIP-394).
    IdRequired(String),
    /// All members are there.
    Member {
        id: String,
        generation: i32,
        protocol: String,
        /// The leader's: everyone, and whether to assign (KIP-814).
        lead: Option<Lead>,
    },
}

/// What the leader has to know to assign.
#[derive(Clone, Debug)]
pub(crate) struct Lead {
    pub(crate) members: Vec<GroupMember>,
    /// A static leader is back: the broker has the assignment already.
    pub(crate) skip: bool,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    Coordinator(Result<BrokerId, Failure>),
    Joined(Result<Joined, Failure>),
    Synced(Result<Vec<TopicPartition>, Failure>),
    /// The answer to a heartbeat of that generation.
    Heard(i32, Result<(), Failure>),
    /// A commit of that generation was refused, for a reason that is not its offsets'.
    CommitRefused(i32, Failure),
    /// Positions of these partitions reached the reader, or there are none to be had.
    Positioned(u64, Result<Vec<TopicPartition>, Option<ConsumerError>>),
    /// The reader has let go of what revocation `0` named, and it is committed.
    Released(u64),
    /// Another member, in this process, has joined or left.
    Stirred,
    /// The partitions of the topics that this leader assigned have changed.
    TopicsChanged,
    /// The socket has closed.
    Leave,
    /// The answer to LeaveGroup.
    Left(Result<(), Failure>),
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    FindCoordinator,
    Join,
    /// With who is to be assigned to, if this member leads.
    Sync,
    Heartbeat,
    /// Give up waiting for JoinGroup or SyncGroup.
    Abandon,
    /// Find out where to start in these.
    Position(u64, Vec<TopicPartition>),
    /// Tell the reader to let go of these, then expect [`Event::Released`].
    Revoke(u64, Vec<TopicPartition>),
    /// Tell the reader that these are gone.
    Lose(Vec<TopicPartition>),
    Leave,
    /// The end, for the reader to know if there is a reason.
    Close(Option<ConsumerError>),
}
