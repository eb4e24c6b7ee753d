//! The records of the session topic, as bytes and back.
//!
//! ```text
//! key                      value
//! node/<incarnation>       lease | null: the node has left
//! expired/<incarnation>    expired
//! place/<incarnation>/<n>  place | refused | null: the place is released
//! evict/<incarnation>/<n>  evict | null: nobody asks for that any more
//! ```
//!
//! A node is an incarnation: a random number of each start, and of each time that its places were
//! taken from it. A key belongs to one incarnation, so that compaction never drops what one node
//! wrote for what another did. That a node was found dead has a key of its own, so that a node
//! which was cut off for long still reads it, whatever it has written since.
//!
//! # Invariants
//! - A record that is not understood, of a later version perhaps, is an error of its own and
//!   changes nothing.
//! - Sizes are bounded: keys to [`KEY_BYTES_MAX`], values to [`VALUE_BYTES_MAX`].

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::place_claim::PlaceClaim;
use super::place_id::{NodeIncarnation, PlaceId};
use crate::config::SessionConfig;

/// The version of the values that are written. Readers skip all others.
const VERSION: u32 = 1;
/// The longest key that is read, bytes.
const KEY_BYTES_MAX: usize = 128;
/// The longest value that is read, bytes: a place names the topics of one request, whose head is
/// bounded.
const VALUE_BYTES_MAX: usize = 1 << 20;

/// A node's promise to say within `duration` that it lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeLease {
    pub(super) server_id: Arc<str>,
    /// Counts the renewals of the incarnation, from 1; for whoever looks at the topic.
    pub(super) sequence: u64,
    duration_ms: u64,
}

impl NodeLease {
    pub(super) fn new(server_id: Arc<str>, sequence: u64, duration: Duration) -> Self {
        Self {
            server_id,
            sequence,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// For how long it holds from when it is read; bounded, whatever the record says.
    pub(super) fn duration(&self) -> Duration {
        Duration::from_millis(self.duration_ms).clamp(LEASE_MIN, LEASE_MAX)
    }
}

/// What a lease lasts, at least and at most.
const LEASE_MIN: Duration = Duration::from_millis(300);
const LEASE_MAX: Duration = *SessionConfig::LEASE_DURATIONS.end();

/// A record of the session topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SessionRecord {
    /// The node lives.
    Lease {
        node: NodeIncarnation,
        lease: NodeLease,
    },
    /// The node was not heard of for its lease: its places are free. If it lives, it takes a new
    /// incarnation.
    Expired {
        node: NodeIncarnation,
        /// Who says so, and clears up.
        by: NodeIncarnation,
    },
    /// The node has no places any more, and is forgotten.
    Left { node: NodeIncarnation },
    /// A socket claims a place.
    Place { id: PlaceId, claim: Arc<PlaceClaim> },
    /// The node that has the client's socket refuses the claim: its client is alive.
    Refused { id: PlaceId },
    /// The place is free, or was never had.
    Released { id: PlaceId },
    /// The node that has the socket of that place is to close it. The place is free when that node
    /// releases it.
    EvictionRequested { id: PlaceId },
    /// Nobody waits for that any more.
    EvictionEnded { id: PlaceId },
}

/// Why a record is skipped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SessionRecordError {
    #[error("its key is not known")]
    UnknownKey,
    #[error("its value is of version {version}, and this program knows version {VERSION}")]
    UnknownVersion { version: u64 },
    #[error("its value is not understood: {reason}")]
    Malformed { reason: String },
}

#[derive(Serialize, Deserialize)]
struct VersionedValue {
    version: u32,
    #[serde(flatten)]
    value: RecordValue,
}

/// To tell a value of a later version, which may have any shape, from garbage.
#[derive(Deserialize)]
struct ValueVersion {
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
enum RecordValue {
    Lease(NodeLease),
    Expired { by: String },
    Place(Arc<PlaceClaim>),
    Refused,
    Evict,
}

enum RecordKey {
    Node(NodeIncarnation),
    Expired(NodeIncarnation),
    Place(PlaceId),
    Eviction(PlaceId),
}

impl SessionRecord {
    /// Its key, and its value or `None` for a tombstone.
    pub(super) fn encode(&self) -> (String, Option<String>) {
        let value = match self {
            Self::Lease { lease, .. } => Some(RecordValue::Lease(lease.clone())),
            Self::Expired { by, .. } => Some(RecordValue::Expired { by: by.to_string() }),
            Self::Place { claim, .. } => Some(RecordValue::Place(Arc::clone(claim))),
            Self::Refused { .. } => Some(RecordValue::Refused),
            Self::EvictionRequested { .. } => Some(RecordValue::Evict),
            Self::Left { .. } | Self::Released { .. } | Self::EvictionEnded { .. } => None,
        };
        let value = value.map(|value| {
            let value = VersionedValue {
                version: VERSION,
                value,
            };
            serde_json::to_string(&value).expect("texts and numbers always serialize")
        });
        let key = match self {
            Self::Lease { node, .. } | Self::Left { node } => format!("node/{node}"),
            Self::Expired { node, .. } => format!("expired/{node}"),
            Self::Place { id, .. } | Self::Refused { id } | Self::Released { id } => {
                format!("place/{}/{}", id.node, id.number)
            }
            Self::EvictionRequested { id } | Self::EvictionEnded { id } => {
                format!("evict/{}/{}", id.node, id.number)
            }
        };
        (key, value)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// What is not understood about it. It is to be skipped.
    pub(super) fn decode(
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<Self, SessionRecordError> {
        let key = key
            .and_then(RecordKey::parse)
            .ok_or(SessionRecordError::UnknownKey)?;
        let value = value.map(decode_value).transpose()?;
        let misplaced = || SessionRecordError::Malformed {
            reason: "it does not belong to its key".to_owned(),
        };
        Ok(match (key, value) {
            (RecordKey::Node(node), None) => Self::Left { node },
            (RecordKey::Node(node), Some(RecordValue::Lease(lease))) => Self::Lease { node, lease },
            (RecordKey::Expired(node), Some(RecordValue::Expired { by })) => Self::Expired {
                node,
                by: NodeIncarnation::parse(&by).ok_or_else(misplaced)?,
            },
            (RecordKey::Place(id), None) => Self::Released { id },
            (RecordKey::Place(id), Some(RecordValue::Place(claim))) => Self::Place { id, claim },
            (RecordKey::Place(id), Some(RecordValue::Refused)) => Self::Refused { id },
            (RecordKey::Eviction(id), Some(RecordValue::Evict)) => Self::EvictionRequested { id },
            (RecordKey::Eviction(id), None) => Self::EvictionEnded { id },
            _ => return Err(misplaced()),
        })
    }
}

fn decode_value(value: &[u8]) -> Result<RecordValue, SessionRecordError> {
    let malformed = |reason: String| SessionRecordError::Malformed { reason };
    if value.len() > VALUE_BYTES_MAX {
        return Err(malformed(format!("{} bytes", value.len())));
    }
    let ValueVersion { version } =
        serde_json::from_slice(value).map_err(|error| malformed(error.to_string()))?;
    if version != u64::from(VERSION) {
        return Err(SessionRecordError::UnknownVersion { version });
    }
    let value: VersionedValue =
        serde_json::from_slice(value).map_err(|error| malformed(error.to_string()))?;
    Ok(value.value)
}

impl RecordKey {
    fn parse(key: &[u8]) -> Option<Self> {
        if key.len() > KEY_BYTES_MAX {
            return None;
        }
        let key = str::from_utf8(key).ok()?;
        if let Some(node) = key.strip_prefix("node/") {
            return Some(Self::Node(NodeIncarnation::parse(node)?));
        }
        if let Some(node) = key.strip_prefix("expired/") {
            return Some(Self::Expired(NodeIncarnation::parse(node)?));
        }
        let (kind, place) = key.split_once('/')?;
        let (node, number) = place.split_once('/')?;
        let id = PlaceId {
            node: NodeIncarnation::parse(node)?,
            number: number.parse().ok()?,
        };
        match kind {
            "place" => Some(Self::Place(id)),
            "evict" => Some(Self::Eviction(id)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::place_claim::{InstanceSharing, SocketRole};

    const NODE: NodeIncarnation = NodeIncarnation(0xa1);
    const ID: PlaceId = PlaceId {
        node: NODE,
        number: 7,
    };

    fn claim() -> PlaceClaim {
        PlaceClaim {
            role: SocketRole::Member {
                group_id: "g".into(),
                client_id: "a \"b\"".into(),
            },
            principal: None,
            topics: [("t".into(), 3)].into(),
            since: 1_764_000_000_000,
            max_connections: 0,
            is_late: false,
        }
    }

    fn producer_claim(client_id: Option<&str>, instance_id: Option<&str>) -> PlaceClaim {
        PlaceClaim {
            role: SocketRole::Producer {
                client_id: client_id.map(Arc::from),
                instance_id: instance_id.map(Arc::from),
                sharing: InstanceSharing::Any,
            },
            ..claim()
        }
    }

    fn fencing_claim() -> PlaceClaim {
        PlaceClaim {
            role: SocketRole::Producer {
                client_id: Some("p".into()),
                instance_id: Some("1".into()),
                sharing: InstanceSharing::Fencing,
            },
            max_connections: 2,
            is_late: true,
            ..claim()
        }
    }

    #[test]
    fn every_record_is_read_as_it_was_written() {
        let lease = NodeLease::new("node-1".into(), 9, Duration::from_secs(15));
        let by = NodeIncarnation(u64::MAX);
        for record in [
            SessionRecord::Lease { node: NODE, lease },
            SessionRecord::Expired { node: NODE, by },
            SessionRecord::Left { node: NODE },
            SessionRecord::Place {
                id: ID,
                claim: claim().into(),
            },
            SessionRecord::Place {
                id: ID,
                claim: producer_claim(Some("p"), Some("1")).into(),
            },
            SessionRecord::Place {
                id: ID,
                claim: fencing_claim().into(),
            },
            SessionRecord::Refused { id: ID },
            SessionRecord::Released { id: ID },
            SessionRecord::EvictionRequested { id: ID },
            SessionRecord::EvictionEnded { id: ID },
        ] {
            let (key, value) = record.encode();
            let value = value.as_deref().map(str::as_bytes);
            assert_eq!(
                SessionRecord::decode(Some(key.as_bytes()), value),
                Ok(record)
            );
        }
    }

    #[test]
    fn a_place_is_json_that_other_programs_read() {
        let encoded = |claim: PlaceClaim| {
            let claim = claim.into();
            SessionRecord::Place { id: ID, claim }.encode()
        };
        let (key, value) = encoded(claim());
        assert_eq!(key, "place/00000000000000a1/7");
        assert_eq!(
            value.unwrap(),
            r#"{"version":1,"type":"place","endpoint":"out","groupId":"g","clientId":"a \"b\"","topics":[["t",3]],"since":1764000000000}"#
        );
        assert_eq!(
            encoded(producer_claim(None, None)).1.unwrap(),
            r#"{"version":1,"type":"place","endpoint":"in","topics":[["t",3]],"since":1764000000000}"#
        );
        assert_eq!(
            encoded(fencing_claim()).1.unwrap(),
            r#"{"version":1,"type":"place","endpoint":"in","clientId":"p","instanceId":"1","sharing":"fencing","topics":[["t",3]],"since":1764000000000,"maxConnections":2,"isLate":true}"#
        );
    }

    #[test]
    fn a_users_place_names_the_user_and_is_another_clients() {
        let claim = |principal: Option<&str>| PlaceClaim {
            principal: principal.map(Arc::from),
            ..claim()
        };
        let client = |claim: &PlaceClaim| claim.member(ID).unwrap().key;
        let alice = claim(Some("alice"));
        let record = SessionRecord::Place {
            id: ID,
            claim: alice.clone().into(),
        };
        let (key, value) = record.encode();
        let value = value.unwrap();
        assert!(value.contains(r#""principal":"alice","topics""#), "{value}");
        let read = SessionRecord::decode(Some(key.as_bytes()), Some(value.as_bytes()));
        assert_eq!(read, Ok(record));
        assert_ne!(client(&alice), client(&claim(Some("bob"))));
        assert_ne!(client(&alice), client(&claim(None)));
        let like_alice = PlaceClaim {
            role: SocketRole::Member {
                group_id: "g".into(),
                client_id: format!("alice{}", claim(None).client_id().unwrap()).into(),
            },
            ..claim(None)
        };
        assert_ne!(client(&alice), client(&like_alice));
    }

    #[test]
    fn what_a_later_version_adds_is_told_from_what_is_damaged() {
        let decode = |key: &str, value: &str| {
            SessionRecord::decode(Some(key.as_bytes()), Some(value.as_bytes())).unwrap_err()
        };
        let (node, place) = ("node/00000000000000a1", "place/00000000000000a1/7");
        assert_eq!(
            decode(node, r#"{"version":2,"type":"lease","v":{}}"#),
            SessionRecordError::UnknownVersion { version: 2 }
        );
        assert_eq!(decode("limits/x", "{}"), SessionRecordError::UnknownKey);
        assert_eq!(decode("place/1/7", "{}"), SessionRecordError::UnknownKey);
        for (key, value) in [
            (node, "garbage"),
            (node, r#"{"version":1,"type":"refused"}"#),
            (
                place,
                r#"{"version":1,"type":"place","endpoint":"sideways"}"#,
            ),
        ] {
            let error = decode(key, value);
            assert!(
                matches!(error, SessionRecordError::Malformed { .. }),
                "{value}"
            );
        }
        assert_eq!(
            SessionRecord::decode(None, None),
            Err(SessionRecordError::UnknownKey)
        );
    }

    /// Written before there was `since`.
    #[test]
    fn a_place_of_an_older_version_is_read() {
        let value = br#"{"version":1,"type":"place","endpoint":"out","groupId":"g","clientId":"a","topics":[["t",3]]}"#;
        let decoded = SessionRecord::decode(Some(b"place/00000000000000a1/7"), Some(value));
        let Ok(SessionRecord::Place { claim, .. }) = decoded else {
            panic!("{decoded:?}");
        };
        assert_eq!(
            (claim.since, claim.client_id().unwrap().clone()),
            (0, "a".into())
        );
    }

    #[test]
    fn a_field_that_is_not_known_is_ignored() {
        let value = br#"{"version":1,"type":"refused","why":"later"}"#;
        let decoded = SessionRecord::decode(Some(b"place/00000000000000a1/7"), Some(value));
        assert_eq!(decoded, Ok(SessionRecord::Refused { id: ID }));
    }
}
