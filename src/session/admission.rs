//! Why a socket is given no place.

use super::place_claim::{PlaceClaim, SocketRole};
use super::state::{FullGroup, PlaceLimit};
use crate::state_log::LogTrouble;

/// Why a group, or a producing client, has no place for a socket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AdmissionError {
    /// The client id is taken, by a socket that answers.
    #[error("parameter clientId: {client_id:?} is already connected in group {group:?}")]
    DuplicateClientId {
        /// The client id.
        client_id: String,
        /// The group.
        group: String,
    },
    /// The instance is taken, by a socket that answers.
    #[error("parameter instanceId: {instance_id:?} of client {client_id:?} is already connected")]
    DuplicateInstance {
        /// The client id.
        client_id: String,
        /// The instance.
        instance_id: String,
    },
    /// The group has a socket for each partition.
    #[error(
        "parameter groupId: group {group:?} has {sockets} sockets for {partitions} partitions; \
         allowed: at most one socket per partition"
    )]
    GroupFull {
        /// The group.
        group: String,
        /// How many sockets it has.
        sockets: usize,
        /// How many it may have.
        partitions: usize,
    },
    /// The client, or the group, has as many sockets as it may.
    #[error(
        "parameter {parameter}: {id:?} has {sockets} sockets over all nodes; allowed: {max} \
         (max-connections of {limits})"
    )]
    TooManyConnections {
        /// Which parameter names it.
        parameter: &'static str,
        /// The client id, or the group.
        id: String,
        /// How many sockets it has.
        sockets: usize,
        /// How many it may have.
        max: usize,
        /// The settings that say so.
        limits: &'static str,
    },
    /// What there may be one of is taken, and the node that has its socket does not answer.
    #[error(
        "parameter {parameter}: {id:?} is connected in {of} at another node, \
         which does not say whether the client is alive"
    )]
    HolderSilent {
        /// Which parameter names it.
        parameter: &'static str,
        /// The client id, or the instance.
        id: String,
        /// The group, or the client.
        of: String,
    },
    /// It cannot be decided now.
    #[error("the places of the {of} are not known now: {reason}")]
    Unavailable {
        /// What they are places of: a group, or a client.
        of: &'static str,
        /// What is wrong, without names of brokers.
        reason: String,
        /// For operators.
        detail: String,
    },
}

impl AdmissionError {
    pub(super) fn duplicate(claim: &PlaceClaim) -> Self {
        let client_id = client_id(claim);
        match &claim.role {
            SocketRole::Member { group_id, .. } => Self::DuplicateClientId {
                client_id,
                group: group_id.to_string(),
            },
            SocketRole::Producer { instance_id, .. } => Self::DuplicateInstance {
                client_id,
                instance_id: instance_id.as_deref().unwrap_or_default().to_owned(),
            },
        }
    }

    pub(super) fn full(claim: &PlaceClaim, FullGroup { sockets, limit }: FullGroup) -> Self {
        match (&claim.role, limit) {
            (SocketRole::Member { group_id, .. }, PlaceLimit::Partitions(partitions)) => {
                Self::GroupFull {
                    group: group_id.to_string(),
                    sockets,
                    partitions,
                }
            }
            (SocketRole::Member { group_id, .. }, PlaceLimit::Connections(max)) => {
                Self::TooManyConnections {
                    parameter: "groupId",
                    id: group_id.to_string(),
                    sockets,
                    max,
                    limits: "consumer.limits",
                }
            }
            (
                SocketRole::Producer { .. },
                PlaceLimit::Connections(max) | PlaceLimit::Partitions(max),
            ) => Self::TooManyConnections {
                parameter: "clientId",
                id: client_id(claim),
                sockets,
                max,
                limits: "producer.limits",
            },
        }
    }

    pub(super) fn holder_silent(claim: &PlaceClaim) -> Self {
        match &claim.role {
            SocketRole::Member { group_id, .. } => Self::HolderSilent {
                parameter: "clientId",
                id: client_id(claim),
                of: format!("group {group_id:?}"),
            },
            SocketRole::Producer { instance_id, .. } => Self::HolderSilent {
                parameter: "instanceId",
                id: instance_id.as_deref().unwrap_or_default().to_owned(),
                of: format!("client {:?}", client_id(claim)),
            },
        }
    }

    pub(super) fn unavailable(
        claim: &PlaceClaim,
        topic: &str,
        LogTrouble { what, detail }: LogTrouble,
    ) -> Self {
        Self::Unavailable {
            of: match claim.role {
                SocketRole::Member { .. } => "group",
                SocketRole::Producer { .. } => "client",
            },
            reason: format!("session topic {topic}: {what}"),
            detail,
        }
    }
}

fn client_id(claim: &PlaceClaim) -> String {
    claim
        .client_id()
        .map(ToString::to_string)
        .unwrap_or_default()
}
