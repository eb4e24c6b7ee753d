//! What a socket says of itself in the session topic, and with which others it is counted.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::place_id::PlaceId;

/// A socket, and what it claims: to be one of those that its group may have.
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
    /// So many sockets its group had at most when it was opened (`max-connections`); 0: any number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) max_connections: u32,
    /// It was written before, or could not be written when the socket was opened.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) is_late: bool,
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
        #[serde(default, skip_serializing_if = "InstanceSharing::is_any")]
        sharing: InstanceSharing,
    },
}

/// Beside which others of its instance a producing socket may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum InstanceSharing {
    /// Any.
    #[default]
    Any,
    /// None: it is refused while one is connected that answers.
    Exclusive,
    /// None: it is transactional, and closes the one that came before it.
    Fencing,
}

impl InstanceSharing {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_any(&self) -> bool {
        *self == Self::Any
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(is: &bool) -> bool {
    !*is
}

/// Sockets that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum PlaceGroup {
    /// The members of a consumer group, whoever they belong to, as in Kafka.
    Consumers(Arc<str>),
    /// The producing sockets of one user's client.
    Producers(Arc<str>),
}

/// Which one of its group a socket is. Each has one place; who comes later waits for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum MemberKey {
    /// The client of a consumer group. The same client id of another user is another client: one
    /// user must not have another's socket pinged or closed, nor learn that there is one.
    Client(Arc<str>),
    /// The instance of a producing client.
    Instance(Option<Arc<str>>),
    /// Whatever that socket is called.
    Socket(PlaceId),
}

/// A socket as it is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlaceMember {
    pub(super) group: PlaceGroup,
    pub(super) key: MemberKey,
}

impl PlaceClaim {
    /// That of a socket that is opened now.
    pub(super) fn new(
        role: SocketRole,
        principal: Option<&Arc<str>>,
        topics: &[(Arc<str>, usize)],
        max_connections: u32,
    ) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = since.map_or(0, |since| since.as_millis());
        Self {
            role,
            principal: principal.cloned(),
            topics: topics.into(),
            since: u64::try_from(since).unwrap_or(u64::MAX),
            max_connections,
            is_late: false,
        }
    }

    /// As which one it is counted when its place is `id`; `None` for a producing socket without a
    /// client id, which is a client of its own.
    pub(super) fn member(&self, id: PlaceId) -> Option<PlaceMember> {
        self.sole_member().or_else(|| {
            let SocketRole::Producer { client_id, .. } = &self.role else {
                return None;
            };
            Some(PlaceMember {
                group: PlaceGroup::Producers(self.of_user(client_id.as_ref()?)),
                key: MemberKey::Socket(id),
            })
        })
    }

    /// The same of a socket that there may be one of only, whatever its place.
    pub(super) fn sole_member(&self) -> Option<PlaceMember> {
        match &self.role {
            SocketRole::Member {
                group_id,
                client_id,
            } => Some(PlaceMember {
                group: PlaceGroup::Consumers(Arc::clone(group_id)),
                key: MemberKey::Client(self.of_user(client_id)),
            }),
            SocketRole::Producer {
                sharing: InstanceSharing::Any,
                ..
            } => None,
            SocketRole::Producer {
                client_id,
                instance_id,
                ..
            } => Some(PlaceMember {
                group: PlaceGroup::Producers(self.of_user(client_id.as_ref()?)),
                key: MemberKey::Instance(instance_id.clone()),
            }),
        }
    }

    /// Whether it takes the place of the socket that came before it.
    pub(super) fn is_fencing(&self) -> bool {
        let SocketRole::Producer { sharing, .. } = self.role else {
            return false;
        };
        sharing == InstanceSharing::Fencing
    }

    /// The client id, if it has one.
    pub(super) fn client_id(&self) -> Option<&Arc<str>> {
        match &self.role {
            SocketRole::Member { client_id, .. } => Some(client_id),
            SocketRole::Producer { client_id, .. } => client_id.as_ref(),
        }
    }

    fn of_user(&self, client_id: &Arc<str>) -> Arc<str> {
        match &self.principal {
            None => Arc::clone(client_id),
            // Neither of them has control characters.
            Some(principal) => format!("{principal}\0{client_id}").into(),
        }
    }
}
