//! Why a consumer ends, and why offsets were not committed.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;

use crate::TopicPartition;
use crate::error::RequestError;
use crate::fetcher::FetchError;

/// Why a consumer has ended. Brokers that are away end no consumer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsumerError {
    /// Another consumer has taken this one's `group.instance.id`.
    #[error("another consumer of group {group} has taken over the instance id {instance}")]
    Fenced {
        /// The group.
        group: Arc<str>,
        /// The `group.instance.id`.
        instance: Arc<str>,
    },
    /// The principal may not use the group.
    #[error("not authorized to use group {group}")]
    GroupNotAuthorized {
        /// The group.
        group: Arc<str>,
    },
    /// The principal may not read the topic.
    #[error("not authorized to read topic {topic}")]
    TopicNotAuthorized {
        /// The topic.
        topic: Arc<str>,
    },
    /// The topic was deleted, or deleted and made again.
    #[error("topic {topic} does not exist any more")]
    UnknownTopic {
        /// The topic.
        topic: Arc<str>,
    },
    /// Nothing to start from, and no reset policy (`auto.offset.reset=none`).
    #[error("{tp}: group {group} has no usable committed offset, and no reset policy is set")]
    NoCommittedOffset {
        /// The group.
        group: Arc<str>,
        /// The partition.
        tp: TopicPartition,
    },
    /// The broker refuses this member for good.
    #[error("group {group} refuses the consumer: {reason}")]
    Rejected {
        /// The group.
        group: Arc<str>,
        /// The broker's reason, and what can be done.
        reason: Arc<str>,
    },
    /// The brokers cannot be used as a member needs it.
    #[error("group {group}: {reason}")]
    Failed {
        /// The group.
        group: Arc<str>,
        /// What is wrong.
        reason: Arc<str>,
    },
    /// There is no position from which a partition can be read.
    #[error("{reason}")]
    NoPosition {
        /// The partition.
        tp: TopicPartition,
        /// Why, with the partition's name.
        reason: Arc<str>,
    },
    /// The records of a partition cannot be read.
    #[error("{tp}: records at offset {offset} cannot be read: {reason}")]
    Corrupt {
        /// The partition.
        tp: TopicPartition,
        /// Where reading stopped.
        offset: i64,
        /// What is wrong with them.
        reason: Arc<str>,
    },
    /// The client is stopping.
    #[error("the Kafka client is stopping")]
    Stopped,
}

impl From<FetchError> for ConsumerError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::NotAuthorized { topic } => Self::TopicNotAuthorized { topic },
            FetchError::UnknownTopic { topic } => Self::UnknownTopic { topic },
            FetchError::Corrupt { tp, offset, reason } => Self::Corrupt {
                tp,
                offset,
                reason: reason.into(),
            },
            FetchError::OutOfRange { ref tp, .. }
            | FetchError::Truncated { ref tp, .. }
            | FetchError::ClusterReplaced { ref tp }
            | FetchError::Unavailable { ref tp, .. } => Self::NoPosition {
                tp: tp.clone(),
                reason: error.to_string().into(),
            },
            FetchError::Stopped => Self::Stopped,
        }
    }
}

/// Why offsets were not committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A partition went to another member before its offset was committed.
    #[error("{tp} was lost to the group before its offset was committed")]
    Lost {
        /// One of those partitions.
        tp: TopicPartition,
    },
    /// The principal may not commit.
    #[error("not authorized to commit {tp}")]
    NotAuthorized {
        /// One of the partitions.
        tp: TopicPartition,
    },
    /// The broker refuses the offset for good.
    #[error("the commit of {tp} was refused: {reason}")]
    Rejected {
        /// One of the partitions.
        tp: TopicPartition,
        /// The broker's error.
        reason: Arc<str>,
    },
    /// Not done in time. It is still being tried.
    #[error("the commit is not confirmed yet")]
    TimedOut,
    /// The consumer has ended.
    #[error("the consumer has ended")]
    Closed,
}

/// Why partitions have no position from which to read.
#[derive(Debug)]
pub(crate) enum PositionError {
    /// The consumer ends.
    Fatal(ConsumerError),
    /// The offsets could not be fetched in a number of attempts, or the coordinator does not
    /// count this member in: it loses its partitions, and joins again under its member id.
    RejoinNeeded,
}

impl From<ConsumerError> for PositionError {
    fn from(error: ConsumerError) -> Self {
        Self::Fatal(error)
    }
}

/// Why a member's request has failed.
#[derive(Clone, Debug)]
pub(crate) enum GroupError {
    /// The broker answered with an error code.
    Code(ResponseError),
    /// There was no response, or none could be decoded.
    Request(RequestError),
    /// The response is inconsistent.
    MalformedResponse,
    /// No broker describes the topics that a leader is to assign.
    MetadataUnavailable(Arc<str>),
}

impl GroupError {
    /// `None` for success.
    pub(crate) fn from_code(code: i16) -> Option<Self> {
        match code {
            0 => None,
            code => Some(
                ResponseError::try_from_code(code)
                    .map_or(Self::Code(ResponseError::UnknownServerError), Self::Code),
            ),
        }
    }

    /// What the member does about it, whichever request has failed.
    pub(crate) fn action(&self) -> GroupErrorAction {
        use GroupErrorAction as Action;
        use ResponseError as E;
        match self {
            Self::Request(RequestError::Stopped) => Action::Stop,
            Self::Request(error) if error.is_retriable() => Action::FindCoordinator,
            Self::Request(_) => Action::Fail,
            Self::MalformedResponse | Self::MetadataUnavailable(_) => Action::Retry,
            Self::Code(code) => match code {
                E::NotCoordinator | E::CoordinatorNotAvailable => Action::FindCoordinator,
                E::RebalanceInProgress => Action::Rejoin,
                E::UnknownMemberId => Action::ResetMemberId,
                E::IllegalGeneration => Action::ResetGeneration,
                E::FencedInstanceId => Action::FailFenced,
                E::GroupAuthorizationFailed => Action::FailNotAuthorized,
                E::InconsistentGroupProtocol
                | E::InvalidSessionTimeout
                | E::InvalidGroupId
                | E::GroupMaxSizeReached
                | E::UnsupportedVersion
                | E::UnsupportedForMessageFormat
                | E::ClusterAuthorizationFailed => Action::Fail,
                _ => Action::Retry,
            },
        }
    }

    /// Why the consumer ends when no repetition helps: the broker has refused it, or our own
    /// request has failed.
    pub(crate) fn into_consumer_error(self, group: Arc<str>) -> ConsumerError {
        let reason = self.message();
        match self {
            Self::Code(_) => ConsumerError::Rejected { group, reason },
            Self::Request(_) | Self::MalformedResponse | Self::MetadataUnavailable(_) => {
                ConsumerError::Failed { group, reason }
            }
        }
    }

    /// For errors and logs: a short text, with what can be done if the broker's code does not
    /// say it.
    pub(crate) fn message(&self) -> Arc<str> {
        use ResponseError as E;
        match self {
            // Also of a share group or streams group.
            Self::Code(E::InconsistentGroupProtocol) => {
                "it has members of another kind, or other assignors; use another group id".into()
            }
            Self::Code(E::GroupMaxSizeReached) => {
                "it is full (group.max.size of the brokers); use another group id".into()
            }
            Self::Code(E::InvalidSessionTimeout) => {
                "session.timeout.ms is not within the brokers' group.min/max.session.timeout.ms"
                    .into()
            }
            Self::Code(E::InvalidGroupId) => {
                "the broker does not allow its name; use another group id".into()
            }
            Self::Code(E::InconsistentTopicId) => "the topic was deleted and created again".into(),
            Self::Code(code) => code.to_string().into(),
            Self::Request(error) => error.to_string().into(),
            Self::MalformedResponse => "malformed answer".into(),
            Self::MetadataUnavailable(reason) => Arc::clone(reason),
        }
    }
}

/// What a member does about a [`GroupError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupErrorAction {
    /// Repeats the request after the backoff.
    Retry,
    /// Looks up the coordinator: it is another broker, or cannot be reached.
    FindCoordinator,
    /// Rejoins: the group is rebalancing.
    Rejoin,
    /// Joins as a new member: the group does not know this one. All its partitions are lost.
    ResetMemberId,
    /// Rejoins under its member id: the group has a newer generation. All its partitions are lost.
    ResetGeneration,
    /// Ends: another consumer has this group instance id.
    FailFenced,
    /// Ends: the principal is not authorized.
    FailNotAuthorized,
    /// Ends: no repetition will help.
    Fail,
    /// Ends: the client stops.
    Stop,
}
