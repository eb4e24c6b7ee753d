//! What a socket says of itself in the session topic.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A socket, and what it claims: to be a member of its group, or nothing but to be listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PlaceClaim {
    #[serde(flatten)]
    pub(super) role: SocketRole,
    /// The Kafka user whose socket it is; none: it has no credentials of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) principal: Option<Arc<str>>,
    /// The topics that it reads or writes, with their partition counts.
    pub(super) topics: Arc<[(Arc<str>, usize)]>,
    /// When it was opened, in milliseconds of the epoch, by its node's clock; 0 if nobody said it.
    #[serde(default)]
    pub(super) since: u64,
}

/// What a socket is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "endpoint")]
pub(super) enum SocketRole {
    /// `/socket/out`: a member of a group.
    #[serde(rename = "out", rename_all = "camelCase")]
    Member {
        group_id: Arc<str>,
        client_id: Arc<str>,
    },
    /// `/socket/in`.
    #[serde(rename = "in", rename_all = "camelCase")]
    Producer {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client_id: Option<Arc<str>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance_id: Option<Arc<str>>,
    },
}

/// Which one of a group a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlaceMember {
    pub(super) group: Arc<str>,
    /// The same client id of another user is another client: one user must not have another's
    /// socket pinged or closed, nor learn that there is one.
    pub(super) client: Arc<str>,
}

impl PlaceClaim {
    /// That of a socket that is opened now.
    pub(super) fn new(
        role: SocketRole,
        principal: Option<&Arc<str>>,
        topics: &[(Arc<str>, usize)],
    ) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = since.map_or(0, |since| since.as_millis());
        Self {
            role,
            principal: principal.cloned(),
            topics: topics.into(),
            since: u64::try_from(since).unwrap_or(u64::MAX),
        }
    }

    /// Of which group it is to be a member, if of any.
    pub(super) fn group_member(&self) -> Option<PlaceMember> {
        let SocketRole::Member {
            group_id,
            client_id,
        } = &self.role
        else {
            return None;
        };
        let client = match &self.principal {
            None => Arc::clone(client_id),
            // Neither of them has control characters.
            Some(principal) => format!("{principal}\0{client_id}").into(),
        };
        let group = Arc::clone(group_id);
        Some(PlaceMember { group, client })
    }

    /// The client id, if it has one.
    pub(super) fn client_id(&self) -> Option<&Arc<str>> {
        match &self.role {
            SocketRole::Member { client_id, .. } => Some(client_id),
            SocketRole::Producer { client_id, .. } => client_id.as_ref(),
        }
    }
}
