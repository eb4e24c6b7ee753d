//! The subscriptions and assignments that members of a group exchange through the broker, as
//! bytes.
//!
//! ```text
//! member ── subscription ──▶ JoinGroup ──▶ leader: assigns
//! member ◀── assignment  ◀── SyncGroup ◀── leader
//! ```
//!
//! The broker does not decode them; Java's `ConsumerProtocol` defines the bytes. Each
//! version only adds fields at the end, so a newer one is read as the newest known.
//!
//! # Invariants
//! - A count is checked against the bytes that remain before anything is allocated for it.
//! - What is written equals Java's bytes for the same content.

#[cfg(test)]
mod fuzz;

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::TopicPartition;

/// `protocol_type` of groups of consumers.
pub(crate) const PROTOCOL_TYPE: &str = "consumer";

const NEWEST: i16 = 3;

/// The topics that a member subscribes to and the partitions that it owns, as Java's
/// `ConsumerPartitionAssignor.Subscription`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemberSubscription {
    pub(crate) topics: Vec<Arc<str>>,
    /// The assignor's own: `cooperative-sticky` keeps the generation here.
    pub(crate) user_data: Option<Vec<u8>>,
    /// Version 1 and newer.
    pub(crate) owned: Vec<TopicPartition>,
    /// Version 2 and newer: of which generation `owned` is; -1 of none.
    pub(crate) generation: i32,
    /// Version 3 and newer.
    pub(crate) rack: Option<String>,
}

/// Bytes that are no subscription or assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what} of a group member")]
pub(crate) struct MalformedConsumerProtocol {
    what: &'static str,
}

/// The newest version's bytes of `subscription`.
pub(crate) fn encode_subscription(subscription: &MemberSubscription) -> Bytes {
    encode_subscription_as(NEWEST, subscription)
}

fn encode_subscription_as(version: i16, subscription: &MemberSubscription) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    out.put_i16(version);
    let mut topics: Vec<&str> = subscription.topics.iter().map(|t| &**t).collect();
    topics.sort_unstable();
    put_count(&mut out, topics.len());
    for topic in topics {
        put_string(&mut out, topic);
    }
    put_bytes(&mut out, subscription.user_data.as_deref());
    if version >= 1 {
        let mut owned = subscription.owned.clone();
        owned.sort_unstable();
        put_partitions(&mut out, &owned);
    }
    if version >= 2 {
        out.put_i32(subscription.generation);
    }
    if version >= 3 {
        match &subscription.rack {
            Some(rack) => put_string(&mut out, rack),
            None => out.put_i16(-1),
        }
    }
    out.freeze()
}

/// Reads any version's subscription.
pub(crate) fn decode_subscription(
    bytes: &[u8],
) -> Result<MemberSubscription, MalformedConsumerProtocol> {
    let malformed = MalformedConsumerProtocol {
        what: "subscription",
    };
    read_subscription(&mut ConsumerProtocolReader(bytes)).ok_or(malformed)
}

fn read_subscription(reader: &mut ConsumerProtocolReader<'_>) -> Option<MemberSubscription> {
    let version = reader.i16().filter(|version| *version >= 0)?;
    let count = reader.count(2)?;
    let mut topics = Vec::with_capacity(count);
    for _ in 0..count {
        topics.push(Arc::from(reader.string()??));
    }
    let user_data = reader.bytes()?.map(<[u8]>::to_vec);
    let owned = if version >= 1 {
        reader.partitions()?
    } else {
        Vec::new()
    };
    let generation = if version >= 2 { reader.i32()? } else { -1 };
    let rack = if version >= 3 { reader.string()? } else { None };
    Some(MemberSubscription {
        topics,
        user_data,
        owned,
        generation,
        rack: rack.filter(|rack| !rack.is_empty()).map(str::to_owned),
    })
}

/// The newest version's bytes of an assignment.
pub(crate) fn encode_assignment(partitions: &[TopicPartition]) -> Bytes {
    encode_assignment_as(NEWEST, partitions, None)
}

fn encode_assignment_as(
    version: i16,
    partitions: &[TopicPartition],
    user_data: Option<&[u8]>,
) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    out.put_i16(version);
    put_partitions(&mut out, partitions);
    put_bytes(&mut out, user_data);
    out.freeze()
}

/// Reads any version's assignment, in the order written.
pub(crate) fn decode_assignment(
    bytes: &[u8],
) -> Result<Vec<TopicPartition>, MalformedConsumerProtocol> {
    let malformed = MalformedConsumerProtocol { what: "assignment" };
    let mut reader = ConsumerProtocolReader(bytes);
    reader
        .i16()
        .filter(|version| *version >= 0)
        .and_then(|_| reader.partitions())
        .ok_or(malformed)
}

/// Partitions by topic: topics in order of their first mention, partitions in order.
fn put_partitions(out: &mut BytesMut, partitions: &[TopicPartition]) {
    let mut topics: Vec<(&Arc<str>, Vec<i32>)> = Vec::new();
    for tp in partitions {
        // Runs of one topic are the rule, so the search starts at the end.
        match topics.iter_mut().rev().find(|(name, _)| **name == tp.topic) {
            Some((_, list)) => list.push(tp.partition),
            None => topics.push((&tp.topic, vec![tp.partition])),
        }
    }
    put_count(out, topics.len());
    for (topic, list) in topics {
        put_string(out, topic);
        put_count(out, list.len());
        for partition in list {
            out.put_i32(partition);
        }
    }
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_i32(i32::try_from(count).expect("a member has fewer than 2^31 topics and partitions"));
}

fn put_string(out: &mut BytesMut, text: &str) {
    let len = i16::try_from(text.len()).expect("names in a cluster are at most 32767 bytes");
    out.put_i16(len);
    out.put_slice(text.as_bytes());
}

fn put_bytes(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_count(out, bytes.len());
            out.put_slice(bytes);
        }
        None => out.put_i32(-1),
    }
}

struct ConsumerProtocolReader<'a>(&'a [u8]);

impl<'a> ConsumerProtocolReader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    fn i16(&mut self) -> Option<i16> {
        let bytes = self.take(2)?.try_into().ok()?;
        Some(i16::from_be_bytes(bytes))
    }

    fn i32(&mut self) -> Option<i32> {
        let bytes = self.take(4)?.try_into().ok()?;
        Some(i32::from_be_bytes(bytes))
    }

    /// A count of items that take at least `item` bytes each.
    fn count(&mut self, item: usize) -> Option<usize> {
        let count = usize::try_from(self.i32()?).ok()?;
        (count <= self.0.len() / item).then_some(count)
    }

    fn string(&mut self) -> Option<Option<&'a str>> {
        let len = self.i16()?;
        if len < 0 {
            return Some(None);
        }
        let bytes = self.take(usize::try_from(len).ok()?)?;
        std::str::from_utf8(bytes).ok().map(Some)
    }

    fn bytes(&mut self) -> Option<Option<&'a [u8]>> {
        let len = self.i32()?;
        if len < 0 {
            return Some(None);
        }
        self.take(usize::try_from(len).ok()?).map(Some)
    }

    fn partitions(&mut self) -> Option<Vec<TopicPartition>> {
        let topics = self.count(6)?;
        let mut partitions = Vec::new();
        for _ in 0..topics {
            let topic: Arc<str> = Arc::from(self.string()??);
            let count = self.count(4)?;
            partitions.reserve(count);
            for _ in 0..count {
                partitions.push(TopicPartition::new(Arc::clone(&topic), self.i32()?));
            }
        }
        Some(partitions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = include_str!("../../../proto-tests/golden/consumer-protocol.txt");

    fn golden(kind: &str, version: i16, fields: &str) -> Vec<u8> {
        let start = format!("{kind} {version} {fields} ");
        let line = GOLDEN.lines().find_map(|line| line.strip_prefix(&start));
        let hex = line.expect("golden line").as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        hex.chunks(2).map(|pair| byte(pair).unwrap()).collect()
    }

    fn partitions() -> Vec<TopicPartition> {
        [("b", 2), ("a", 1), ("b", 0)]
            .map(|(t, p)| TopicPartition::new(t, p))
            .to_vec()
    }

    fn subscription() -> MemberSubscription {
        MemberSubscription {
            topics: vec!["b".into(), "a".into()],
            user_data: Some(vec![0, 0, 0, 7]),
            owned: partitions(),
            generation: 7,
            rack: Some("rack-1".to_owned()),
        }
    }

    #[test]
    fn subscriptions_are_javas_bytes_in_every_version() {
        let none = MemberSubscription {
            topics: vec!["t".into()],
            generation: -1,
            ..MemberSubscription::default()
        };
        for version in 0..=3 {
            let bytes = encode_subscription_as(version, &subscription());
            assert_eq!(bytes, golden("subscription", version, "full"));
            let bytes = encode_subscription_as(version, &none);
            assert_eq!(bytes, golden("subscription", version, "none"));
            assert_eq!(decode_subscription(&bytes), Ok(none.clone()));
        }
    }

    #[test]
    fn a_subscription_is_read_as_far_as_its_version_goes() {
        let read = |version| decode_subscription(&golden("subscription", version, "full")).unwrap();
        let mut expected = subscription();
        expected.topics.sort();
        expected.owned.sort();
        assert_eq!(read(3), expected);
        expected.rack = None;
        assert_eq!(read(2), expected);
        expected.generation = -1;
        assert_eq!(read(1), expected);
        expected.owned.clear();
        assert_eq!(read(0), expected);
    }

    #[test]
    fn a_newer_version_is_read_as_the_newest_known() {
        let mut bytes = golden("subscription", 3, "full");
        bytes[1] = 9;
        bytes.extend([1, 2, 3]);
        assert_eq!(decode_subscription(&bytes).unwrap().generation, 7);
    }

    #[test]
    fn assignments_are_javas_bytes_in_every_version() {
        for version in 0..=3 {
            let bytes = encode_assignment_as(version, &partitions(), Some(&[1, 2]));
            assert_eq!(bytes, golden("assignment", version, "full"));
            let read = decode_assignment(&bytes).unwrap();
            let expected = [("b", 2), ("b", 0), ("a", 1)].map(|(t, p)| TopicPartition::new(t, p));
            assert_eq!(read, expected);
            let bytes = encode_assignment_as(version, &[], None);
            assert_eq!(bytes, golden("assignment", version, "none"));
            assert_eq!(decode_assignment(&bytes), Ok(vec![]));
        }
    }

    #[test]
    fn truncated_bytes_are_an_error_and_counts_are_checked() {
        let bytes = golden("subscription", 3, "full");
        for end in 0..bytes.len() {
            assert!(decode_subscription(&bytes[..end]).is_err(), "{end}");
        }
        let bytes = golden("assignment", 0, "full");
        for end in 0..bytes.len() - 6 {
            assert!(decode_assignment(&bytes[..end]).is_err(), "{end}");
        }
        assert!(decode_assignment(&[0, 3, 0x7f, 0xff, 0xff, 0xff, 0, 0]).is_err());
        assert!(decode_assignment(&[0, 3, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(decode_assignment(&[]).is_err());
    }
}
