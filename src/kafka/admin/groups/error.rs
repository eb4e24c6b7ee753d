//! Why a request about a group did not succeed, and which of its failures are worth another try.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;

use crate::group::GroupError;
use crate::{RequestError, TopicPartition};

/// Why a request about consumer groups did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupAdminError {
    /// There is no such group, or it is none of consumers.
    #[error("there is no consumer group {group:?}")]
    NotFound {
        /// The group's id.
        group: Arc<str>,
    },
    /// It has members, and they have its offsets.
    #[error("consumer group {group:?} has members")]
    NotEmpty {
        /// The group's id.
        group: Arc<str>,
    },
    /// The principal may not do that.
    #[error("the brokers do not allow it: {reason}")]
    NotAuthorized {
        /// The broker's error, which says what of.
        reason: Arc<str>,
    },
    /// A single offset is refused; no other one was changed.
    #[error("the offset of {tp} is refused: {reason}")]
    OffsetRefused {
        /// The partition that it is for.
        tp: TopicPartition,
        /// The broker's error.
        reason: Arc<str>,
    },
    /// The broker refuses it for good.
    #[error("group {group:?}: {reason}")]
    Rejected {
        /// The group's id.
        group: Arc<str>,
        /// The broker's error.
        reason: Arc<str>,
    },
    /// There was no answer in time.
    #[error("the brokers do not answer: {reason}")]
    Unavailable {
        /// What the last try came to. It may name brokers.
        reason: Arc<str>,
    },
}

/// Why one try did not succeed.
#[derive(Debug)]
pub(super) enum GroupAttemptError {
    /// Another one may, at the coordinator of then.
    Retriable(Arc<str>),
    /// None will.
    Final(GroupAdminError),
}

impl GroupAttemptError {
    /// What an error code about a group means; `None` for 0.
    pub(super) fn from_code(code: i16, group: &Arc<str>) -> Option<Self> {
        use ResponseError as E;
        if code == 0 {
            return None;
        }
        let code = E::try_from_code(code).unwrap_or(E::UnknownServerError);
        let group = || Arc::clone(group);
        let reason = || code.to_string().into();
        Some(Self::Final(match code {
            // A name that no group can have is that of none.
            E::GroupIdNotFound | E::InvalidGroupId => GroupAdminError::NotFound { group: group() },
            // What brokers say of a commit without a member while there are members.
            E::NonEmptyGroup
            | E::GroupSubscribedToTopic
            | E::UnknownMemberId
            | E::IllegalGeneration
            | E::FencedMemberEpoch
            | E::StaleMemberEpoch
            | E::RebalanceInProgress => GroupAdminError::NotEmpty { group: group() },
            E::GroupAuthorizationFailed
            | E::TopicAuthorizationFailed
            | E::ClusterAuthorizationFailed => GroupAdminError::NotAuthorized { reason: reason() },
            code if code.is_retriable() || code == E::UnknownServerError => {
                return Some(Self::Retriable(reason()));
            }
            _ => GroupAdminError::Rejected {
                group: group(),
                reason: reason(),
            },
        }))
    }
}

impl From<RequestError> for GroupAttemptError {
    fn from(error: RequestError) -> Self {
        let reason = error.to_string().into();
        match error.is_retriable() {
            true => Self::Retriable(reason),
            false => Self::Final(GroupAdminError::Unavailable { reason }),
        }
    }
}

/// Of a look-up of the group's coordinator.
pub(super) fn lookup_error(error: GroupError, group: &Arc<str>) -> GroupAttemptError {
    match error {
        GroupError::Request(error) => error.into(),
        GroupError::Code(code) => GroupAttemptError::from_code(code.code(), group)
            .unwrap_or_else(|| GroupAttemptError::Retriable("no coordinator".into())),
        error => GroupAttemptError::Retriable(error.message()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(code: ResponseError) -> GroupAttemptError {
        GroupAttemptError::from_code(code.code(), &"g".into()).unwrap()
    }

    #[test]
    fn a_coordinator_that_moves_or_loads_is_asked_again() {
        for code in [
            ResponseError::NotCoordinator,
            ResponseError::CoordinatorNotAvailable,
            ResponseError::CoordinatorLoadInProgress,
        ] {
            let meaning = meaning(code);
            assert!(
                matches!(meaning, GroupAttemptError::Retriable(_)),
                "{code}: {meaning:?}"
            );
        }
    }

    #[test]
    fn whatever_brokers_call_it_a_group_with_members_is_not_empty() {
        for code in [
            ResponseError::NonEmptyGroup,
            ResponseError::GroupSubscribedToTopic,
            ResponseError::UnknownMemberId,
            ResponseError::RebalanceInProgress,
        ] {
            let GroupAttemptError::Final(error) = meaning(code) else {
                panic!("{code}");
            };
            assert_eq!(error, GroupAdminError::NotEmpty { group: "g".into() });
        }
    }

    #[test]
    fn success_is_no_error() {
        assert!(GroupAttemptError::from_code(0, &"g".into()).is_none());
    }
}
