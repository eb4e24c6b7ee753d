//! The records of the topic of dynamic limits, as bytes and back.
//!
//! ```text
//! key                   value                                       header "change"
//! consumer/<groupId>    limits | null: the entry is deleted         <kind>/<node>/<number>
//! producer/<clientId>   the same                                    the same
//! ```
//!
//! The header says on what condition the record is written (a new entry: that there is none), and
//! by whom. Without one, and so for what other programs write, there is no condition.
//!
//! # Invariants
//! - A record that is not understood, of a later version perhaps, is an error of its own and
//!   changes nothing.
//! - Sizes are bounded: ids to [`ID_CHARS_MAX`], values to [`VALUE_BYTES_MAX`].

use serde::{Deserialize, Serialize};

use crate::config::{BATCH_SIZE_MAX, ClientLimit, LimitedClients};
use crate::quotas::LimitedId;

/// The version of the values that are written. Readers skip all others.
const VERSION: u32 = 1;
/// The longest id, characters: longer than any that a socket may have.
pub(super) const ID_CHARS_MAX: usize = 256;
/// The longest value that is read, bytes.
const VALUE_BYTES_MAX: usize = 4 << 10;
/// The name of the header.
pub(super) const CHANGE_HEADER: &str = "change";

/// A record of the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LimitRecord {
    pub(super) id: LimitedId,
    /// `None`: a tombstone.
    pub(super) entry: Option<ClientLimit>,
    pub(super) change: Option<ChangeId>,
}

/// Which change a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChangeId {
    pub(super) kind: ChangeKind,
    /// A random number of the process that asked for it.
    pub(super) node: u64,
    /// Of all that it has asked for.
    pub(super) number: u64,
}

/// On what condition a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChangeKind {
    /// There is no entry.
    Create,
    /// There is one, to be replaced or deleted.
    Change,
    /// None.
    Set,
    /// None: it is what was before another one, whose condition did not hold.
    Restore,
}

/// Why a record is skipped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LimitRecordError {
    #[error("its key is not known")]
    UnknownKey,
    #[error("its value is of version {version}, and this program knows version {VERSION}")]
    UnknownVersion { version: u64 },
    #[error("its header {CHANGE_HEADER} is not understood")]
    UnknownChange,
    #[error("its value is not understood: {reason}")]
    Malformed { reason: String },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct LimitValue {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    messages_per_second: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_connections: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    batch_size: Option<u32>,
}

/// To tell a value of a later version, which may have any shape, from garbage.
#[derive(Deserialize)]
struct LimitValueVersion {
    version: u64,
}

impl LimitRecord {
    /// Its key, and its value or `None` for a tombstone.
    pub(super) fn encode(&self) -> (String, Option<String>) {
        let LimitedId { clients, id } = &self.id;
        let value = self.entry.map(|entry| {
            let value = LimitValue {
                version: VERSION,
                messages_per_second: entry.messages_per_second,
                max_connections: entry.max_connections,
                batch_size: entry.batch_size,
            };
            serde_json::to_string(&value).expect("numbers always serialize")
        });
        (format!("{}{id}", prefix(*clients)), value)
    }

    /// Reads a record back.
    ///
    /// # Errors
    /// What is not understood about it. It is to be skipped.
    pub(super) fn decode(
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        change: Option<&[u8]>,
    ) -> Result<Self, LimitRecordError> {
        let id = key
            .and_then(decode_key)
            .ok_or(LimitRecordError::UnknownKey)?;
        let entry = value.map(|value| decode_value(id.clients, value));
        let change = change.map(|header| {
            let change = std::str::from_utf8(header).ok().and_then(ChangeId::parse);
            change.ok_or(LimitRecordError::UnknownChange)
        });
        Ok(Self {
            id,
            entry: entry.transpose()?,
            change: change.transpose()?,
        })
    }
}

impl ChangeId {
    /// The value of the header.
    pub(super) fn encode(self) -> Vec<u8> {
        let Self { kind, node, number } = self;
        format!("{}/{node:016x}/{number}", kind.name()).into_bytes()
    }

    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once('/')?;
        let (node, number) = rest.split_once('/')?;
        Some(Self {
            kind: ChangeKind::ALL.into_iter().find(|k| k.name() == kind)?,
            node: u64::from_str_radix(node, 16).ok()?,
            number: number.parse().ok()?,
        })
    }
}

impl ChangeKind {
    const ALL: [Self; 4] = [Self::Create, Self::Change, Self::Set, Self::Restore];

    fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Change => "change",
            Self::Set => "set",
            Self::Restore => "restore",
        }
    }
}

fn prefix(clients: LimitedClients) -> &'static str {
    match clients {
        LimitedClients::Producers => "producer/",
        LimitedClients::Groups => "consumer/",
    }
}

fn decode_key(key: &[u8]) -> Option<LimitedId> {
    let key = std::str::from_utf8(key).ok()?;
    let all = [LimitedClients::Producers, LimitedClients::Groups];
    let (clients, id) = all
        .into_iter()
        .find_map(|clients| Some((clients, key.strip_prefix(prefix(clients))?)))?;
    let is_legal = !id.is_empty() && id.chars().count() <= ID_CHARS_MAX;
    is_legal.then(|| LimitedId {
        clients,
        id: id.into(),
    })
}

fn decode_value(clients: LimitedClients, value: &[u8]) -> Result<ClientLimit, LimitRecordError> {
    let malformed = |reason: String| LimitRecordError::Malformed { reason };
    if value.len() > VALUE_BYTES_MAX {
        return Err(malformed(format!("{} bytes", value.len())));
    }
    let LimitValueVersion { version } =
        serde_json::from_slice(value).map_err(|error| malformed(error.to_string()))?;
    if version != u64::from(VERSION) {
        return Err(LimitRecordError::UnknownVersion { version });
    }
    let value: LimitValue =
        serde_json::from_slice(value).map_err(|error| malformed(error.to_string()))?;
    let batch_size = value
        .batch_size
        .filter(|_| clients == LimitedClients::Groups);
    if batch_size.is_some_and(|size| size > BATCH_SIZE_MAX) {
        return Err(malformed(format!("batch-size is over {BATCH_SIZE_MAX}")));
    }
    Ok(ClientLimit {
        messages_per_second: value.messages_per_second,
        max_connections: value.max_connections,
        batch_size,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records() -> impl Strategy<Value = LimitRecord> {
        let clients = prop::bool::ANY;
        let number = || prop::option::of(any::<u32>());
        let size = prop::option::of(0..=BATCH_SIZE_MAX);
        let entry = prop::option::of((number(), number(), size));
        let kind = prop::sample::select(&ChangeKind::ALL[..]);
        let change = prop::option::of((kind, any::<u64>(), any::<u64>()));
        (clients, "\\PC{1,256}", entry, change).prop_map(|(is_group, id, entry, change)| {
            let clients = match is_group {
                true => LimitedClients::Groups,
                false => LimitedClients::Producers,
            };
            LimitRecord {
                id: LimitedId {
                    clients,
                    id: id.into(),
                },
                entry: entry.map(|(messages_per_second, max_connections, size)| ClientLimit {
                    messages_per_second,
                    max_connections,
                    batch_size: size.filter(|_| is_group),
                }),
                change: change.map(|(kind, node, number)| ChangeId { kind, node, number }),
            }
        })
    }

    proptest! {
        #[test]
        fn records_are_read_as_they_were_written(record in records()) {
            let (key, value) = record.encode();
            let header = record.change.map(ChangeId::encode);
            let value = value.as_deref().map(str::as_bytes);
            let read = LimitRecord::decode(Some(key.as_bytes()), value, header.as_deref());
            prop_assert_eq!(read, Ok(record));
        }

        #[test]
        fn no_bytes_are_too_much_for_it(
            key in prop::option::of(prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                "(consumer|producer)/.{0,300}".prop_map(String::into_bytes),
            ]),
            value in prop::option::of(prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                "\\{\"version\":1,\"(messages-per-second|batch-size|x)\":[-0-9\\[{]{1,12}\\}"
                    .prop_map(String::into_bytes),
            ]),
            header in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
        ) {
            let (key, value, header) = (key.as_deref(), value.as_deref(), header.as_deref());
            let _ = LimitRecord::decode(key, value, header);
        }
    }

    #[test]
    fn what_is_not_understood_says_why() {
        let key = Some(&b"consumer/g"[..]);
        let error = |key, value: &str, header: Option<&[u8]>| {
            let read = LimitRecord::decode(key, Some(value.as_bytes()), header);
            read.unwrap_err().to_string()
        };
        let fine = r#"{"version":1,"messages-per-second":5,"later":true}"#;
        assert!(LimitRecord::decode(key, Some(fine.as_bytes()), None).is_ok());
        for unknown in [
            None,
            Some(&b"group/g"[..]),
            Some(b"consumer/"),
            Some(b"\xff"),
        ] {
            assert_eq!(error(unknown, fine, None), "its key is not known");
        }
        let later = error(key, r#"{"version":2,"messages-per-second":"many"}"#, None);
        assert!(later.starts_with("its value is of version 2"), "{later}");
        for garbage in ["", "5", "{}", r#"{"version":1,"messages-per-second":-1}"#] {
            let error = error(key, garbage, None);
            assert!(
                error.starts_with("its value is not understood"),
                "{garbage}: {error}"
            );
        }
        let size = error(key, r#"{"version":1,"batch-size":1000001}"#, None);
        assert!(size.ends_with("batch-size is over 1000000"), "{size}");
        for header in [
            &b""[..],
            b"create",
            b"create/1",
            b"steal/1/2",
            b"create/x/2",
        ] {
            let error = error(key, fine, Some(header));
            assert_eq!(error, "its header change is not understood");
        }
    }
}
