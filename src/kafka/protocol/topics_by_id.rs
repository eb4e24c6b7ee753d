//! Version 10 of OffsetCommit and OffsetFetch, which kafka-protocol cannot encode.
//!
//! ```text
//! version 9    … topics [ name, partitions, tagged fields ] …
//! version 10   … topics [ id,   partitions, tagged fields ] …
//! ```
//!
//! Version 10 names topics by their id (KIP-848, Kafka 4.1) and is otherwise version 9: what is
//! the same is left to kafka-protocol. Its types have the field for the id.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{
    ApiKey, GroupId, OffsetCommitRequest, OffsetFetchRequest, RequestKind,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use uuid::Uuid;

use super::schema::skip_tagged_fields;

/// The first version that names topics by id.
pub const BY_ID_VERSION: i16 = 10;
/// The last version that kafka-protocol can encode.
const BY_NAME_VERSION: i16 = 9;

/// The body of an OffsetCommit; `None` in a version that names topics by name.
pub(super) fn encode_offset_commit(
    request: &OffsetCommitRequest,
    version: i16,
) -> Option<Result<Bytes, String>> {
    (version == BY_ID_VERSION).then(|| {
        let mut body = BytesMut::new();
        let without_topics = request.clone().with_topics(Vec::new());
        encode_until_topics(&without_topics, &mut body)?;
        put_count(request.topics.len(), &mut body);
        for topic in &request.topics {
            let nameless = topic.clone().with_name(Default::default());
            encode_topic(topic.topic_id, &nameless, &mut body)?;
        }
        body.put_u8(NO_TAGGED_FIELDS);
        Ok(body.freeze())
    })
}

/// The body of an OffsetFetch; `None` in a version that names topics by name.
pub(super) fn encode_offset_fetch(
    request: &OffsetFetchRequest,
    version: i16,
) -> Option<Result<Bytes, String>> {
    (version == BY_ID_VERSION).then(|| {
        let mut body = BytesMut::new();
        put_count(request.groups.len(), &mut body);
        for group in &request.groups {
            let without_topics = group.clone().with_topics(Some(Vec::new()));
            encode_until_topics(&without_topics, &mut body)?;
            match &group.topics {
                None => body.put_u8(NULL),
                Some(topics) => {
                    put_count(topics.len(), &mut body);
                    for topic in topics {
                        let nameless = topic.clone().with_name(Default::default());
                        encode_topic(topic.topic_id, &nameless, &mut body)?;
                    }
                }
            }
            body.put_u8(NO_TAGGED_FIELDS);
        }
        body.put_u8(request.require_stable.into());
        body.put_u8(NO_TAGGED_FIELDS);
        Ok(body.freeze())
    })
}

/// What precedes the topics, which come last and are none.
fn encode_until_topics(message: &impl Encodable, body: &mut BytesMut) -> Result<(), String> {
    let encoded = message.encode(body, BY_NAME_VERSION);
    encoded.map_err(|error| error.to_string())?;
    // The count of the topics, and that of tagged fields.
    body.truncate(body.len() - 2);
    Ok(())
}

/// A topic without a name: an empty one takes one byte, which the id replaces.
fn encode_topic(id: Uuid, nameless: &impl Encodable, body: &mut BytesMut) -> Result<(), String> {
    let mut topic = BytesMut::new();
    let encoded = nameless.encode(&mut topic, BY_NAME_VERSION);
    encoded.map_err(|error| error.to_string())?;
    body.extend_from_slice(id.as_bytes());
    body.extend_from_slice(&topic[1..]);
    Ok(())
}

/// A request of version 10, once it has been seen to be all there; `None` if it is of another
/// API or version.
pub(crate) fn decode_request(
    api: ApiKey,
    version: i16,
    body: &mut Bytes,
) -> Option<Result<RequestKind, String>> {
    match (api, version) {
        (ApiKey::OffsetCommit, BY_ID_VERSION) => Some(decode_offset_commit(body).map(Into::into)),
        (ApiKey::OffsetFetch, BY_ID_VERSION) => Some(decode_offset_fetch(body).map(Into::into)),
        _ => None,
    }
}

fn decode_offset_commit(body: &mut Bytes) -> Result<OffsetCommitRequest, String> {
    let group_id = GroupId(get_string(body)?);
    let generation = body.try_get_i32().map_err(|_| TOO_SHORT)?;
    let member_id = get_string(body)?;
    let instance_id = get_nullable_string(body)?;
    let mut topics = Vec::new();
    for _ in 0..get_count(body)?.unwrap_or(0) {
        let id = get_uuid(body)?;
        let mut partitions = Vec::new();
        for _ in 0..get_count(body)?.unwrap_or(0) {
            let partition = OffsetCommitRequestPartition::decode(body, BY_NAME_VERSION);
            partitions.push(partition.map_err(|error| error.to_string())?);
        }
        skip_tags(body)?;
        let topic = OffsetCommitRequestTopic::default().with_topic_id(id);
        topics.push(topic.with_partitions(partitions));
    }
    skip_tags(body)?;
    Ok(OffsetCommitRequest::default()
        .with_group_id(group_id)
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(member_id)
        .with_group_instance_id(instance_id)
        .with_topics(topics))
}

fn decode_offset_fetch(body: &mut Bytes) -> Result<OffsetFetchRequest, String> {
    let mut groups = Vec::new();
    for _ in 0..get_count(body)?.unwrap_or(0) {
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(get_string(body)?))
            .with_member_id(get_nullable_string(body)?)
            .with_member_epoch(body.try_get_i32().map_err(|_| TOO_SHORT)?);
        let mut topics = None;
        if let Some(count) = get_count(body)? {
            let mut named = Vec::new();
            for _ in 0..count {
                named.push(decode_fetched_topic(body)?);
            }
            topics = Some(named);
        }
        skip_tags(body)?;
        groups.push(group.with_topics(topics));
    }
    let require_stable = body.try_get_u8().map_err(|_| TOO_SHORT)? != 0;
    skip_tags(body)?;
    Ok(OffsetFetchRequest::default()
        .with_groups(groups)
        .with_require_stable(require_stable))
}

fn decode_fetched_topic(body: &mut Bytes) -> Result<OffsetFetchRequestTopics, String> {
    let id = get_uuid(body)?;
    let mut indexes = Vec::new();
    for _ in 0..get_count(body)?.unwrap_or(0) {
        indexes.push(body.try_get_i32().map_err(|_| TOO_SHORT)?);
    }
    skip_tags(body)?;
    Ok(OffsetFetchRequestTopics::default()
        .with_topic_id(id)
        .with_partition_indexes(indexes))
}

fn skip_tags(body: &mut Bytes) -> Result<(), String> {
    skip_tagged_fields(body).map_err(|error| error.to_string())
}

fn get_uuid(body: &mut Bytes) -> Result<Uuid, String> {
    let id = body.try_get_u128().map_err(|_| TOO_SHORT)?;
    Ok(Uuid::from_u128(id))
}

fn get_string(body: &mut Bytes) -> Result<StrBytes, String> {
    get_nullable_string(body)?.ok_or_else(|| "null where there is none".to_owned())
}

fn get_nullable_string(body: &mut Bytes) -> Result<Option<StrBytes>, String> {
    let Some(length) = get_count(body)? else {
        return Ok(None);
    };
    if body.len() < length {
        return Err(TOO_SHORT.to_owned());
    }
    let text = StrBytes::from_utf8(body.split_to(length));
    text.map(Some).map_err(|error| error.to_string())
}

/// A compact length; `None` for null.
fn get_count(body: &mut Bytes) -> Result<Option<usize>, String> {
    let mut value: u64 = 0;
    for shift in (0..35).step_by(7) {
        let byte = body.try_get_u8().map_err(|_| TOO_SHORT)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            let count = usize::try_from(value).map_err(|error| error.to_string())?;
            return Ok(count.checked_sub(1));
        }
    }
    Err("a length of more than five bytes".to_owned())
}

/// A compact length that is not null.
fn put_count(count: usize, body: &mut BytesMut) {
    let mut rest = count + 1;
    while rest >= 0x80 {
        body.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    body.put_u8(rest as u8);
}

const NULL: u8 = 0;
const NO_TAGGED_FIELDS: u8 = 0;
const TOO_SHORT: &str = "it is too short";

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::TopicName;

    use super::*;

    fn text(text: &str) -> StrBytes {
        StrBytes::from_string(text.to_owned())
    }

    fn commit(topics: usize) -> OffsetCommitRequest {
        let topic = |n: usize| {
            let partition = OffsetCommitRequestPartition::default()
                .with_partition_index(3)
                .with_committed_offset(1 << 40)
                .with_committed_leader_epoch(7);
            OffsetCommitRequestTopic::default()
                .with_topic_id(Uuid::from_u128(n as u128 + 1))
                .with_partitions(vec![partition; n % 3])
        };
        OffsetCommitRequest::default()
            .with_group_id(GroupId(text("group")))
            .with_generation_id_or_member_epoch(9)
            .with_member_id(text("member"))
            .with_group_instance_id((topics > 1).then(|| text("instance")))
            .with_topics((0..topics).map(topic).collect())
    }

    fn fetch(topics: Option<usize>) -> OffsetFetchRequest {
        let topic = |n: usize| {
            OffsetFetchRequestTopics::default()
                .with_topic_id(Uuid::from_u128(n as u128 + 1))
                .with_partition_indexes((0..n as i32 % 4).collect())
        };
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text("group")))
            .with_topics(topics.map(|count| (0..count).map(topic).collect()));
        OffsetFetchRequest::default()
            .with_groups(vec![group])
            .with_require_stable(true)
    }

    /// Also with more topics than a length of one byte counts.
    #[test]
    fn what_is_encoded_reads_back() {
        let version = BY_ID_VERSION;
        for topics in [0, 1, 2, 200] {
            let request = commit(topics);
            let body = encode_offset_commit(&request, version).unwrap().unwrap();
            let decoded = decode_request(ApiKey::OffsetCommit, version, &mut body.clone());
            assert_eq!(decoded.unwrap(), Ok(request.into()));
        }
        for topics in [None, Some(0), Some(1), Some(200)] {
            let request = fetch(topics);
            let body = encode_offset_fetch(&request, version).unwrap().unwrap();
            let decoded = decode_request(ApiKey::OffsetFetch, version, &mut body.clone());
            assert_eq!(decoded.unwrap(), Ok(request.into()));
        }
    }

    #[test]
    fn other_versions_and_requests_are_left_to_kafka_protocol() {
        let named = OffsetCommitRequestTopic::default().with_name(TopicName(text("t")));
        let request = OffsetCommitRequest::default().with_topics(vec![named]);
        assert!(encode_offset_commit(&request, 9).is_none());
        assert!(encode_offset_fetch(&fetch(None), 9).is_none());
        assert!(decode_request(ApiKey::OffsetCommit, 9, &mut Bytes::new()).is_none());
        assert!(decode_request(ApiKey::Heartbeat, 10, &mut Bytes::new()).is_none());
    }

    #[test]
    fn a_body_that_ends_early_is_an_error() {
        let body = encode_offset_commit(&commit(2), BY_ID_VERSION);
        let body = body.unwrap().unwrap();
        for length in 0..body.len() {
            let decoded = decode_offset_commit(&mut body.slice(..length));
            assert!(decoded.is_err(), "{length} of {}", body.len());
        }
    }
}
