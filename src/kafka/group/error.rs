//! Why a consumer ends, and why offsets were not committed.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;

use crate::TopicPartition;
use crate::error::RequestError;

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
    Refused {
        /// The group.
        group: Arc<str>,
        /// The broker's error.
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
    Refused {
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

/// Why a request of a member came to nothing.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The broker answered with an error.
    Code(ResponseError),
    /// There was no usable answer.
    Request(RequestError),
    /// The answer makes no sense.
    Malformed,
}

impl Failure {
    /// `None` for success.
    pub(crate) fn of(code: i16) -> Option<Self> {
        match code {
            0 => None,
            code => Some(
                ResponseError::try_from_code(code)
                    .map_or(Self::Code(ResponseError::UnknownServerError), Self::Code),
            ),
        }
    }

    /// What it means for the consumer whoever meets it.
    pub(crate) fn verdict(&self) -> Verdict {
        use ResponseError as E;
        match self {
            Self::Request(RequestError::Stopped) => Verdict::Stopped,
            Self::Request(error) if error.is_retriable() => Verdict::FindCoordinator,
            Self::Request(_) => Verdict::Refused,
            Self::Malformed => Verdict::Retry,
            Self::Code(code) => match code {
                E::NotCoordinator | E::CoordinatorNotAvailable => Verdict::FindCoordinator,
                E::RebalanceInProgress => Verdict::Rejoin,
                E::UnknownMemberId => Verdict::UnknownMember,
                E::IllegalGeneration => Verdict::OldGeneration,
                E::FencedInstanceId => Verdict::Fenced,
                E::GroupAuthorizationFailed => Verdict::NotAuthorized,
                E::InconsistentGroupProtocol
                | E::InvalidSessionTimeout
                | E::InvalidGroupId
                | E::GroupMaxSizeReached
                | E::UnsupportedVersion
                | E::UnsupportedForMessageFormat
                | E::ClusterAuthorizationFailed => Verdict::Refused,
                _ => Verdict::Retry,
            },
        }
    }

    pub(crate) fn text(&self) -> Arc<str> {
        match self {
            Self::Code(code) => code.to_string().into(),
            Self::Request(error) => error.to_string().into(),
            Self::Malformed => "malformed answer".into(),
        }
    }
}

/// What follows from a [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The same again, after a while.
    Retry,
    /// The coordinator is somewhere else, or away.
    FindCoordinator,
    /// The group is rebalancing.
    Rejoin,
    /// The group does not know this member: everything it owned is lost.
    UnknownMember,
    /// The group has gone on without this member: everything it owned is lost.
    OldGeneration,
    /// The end: another consumer has this instance id.
    Fenced,
    /// The end: not allowed.
    NotAuthorized,
    /// The end: no repetition will help.
    Refused,
    /// The end: the client stops.
    Stopped,
}
