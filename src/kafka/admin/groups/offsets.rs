//! OffsetFetch of all that a group has committed, OffsetCommit without a member, and OffsetDelete.
//!
//! Topics are named by name, in versions that do so: an operator means the topic that has the name
//! now.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{
    GroupId, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
    OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::error::GroupAttemptError;
use crate::TopicPartition;
use crate::protocol::topics_by_id::BY_ID_VERSION;

/// The newest version of OffsetFetch and OffsetCommit that names topics by name.
pub(super) const BY_NAME_VERSION_MAX: i16 = BY_ID_VERSION - 1;

/// What a group has committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOffset {
    /// The partition.
    pub tp: TopicPartition,
    /// The offset of the next record that is to be read.
    pub offset: i64,
    /// What the one who committed added to it.
    pub metadata: Box<str>,
}

/// OffsetFetch of all partitions.
pub(super) fn fetch_request(version: i16, group: &str) -> OffsetFetchRequest {
    if version >= 8 {
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(group_id(group))
            .with_topics(None);
        return OffsetFetchRequest::default().with_groups(vec![group]);
    }
    OffsetFetchRequest::default()
        .with_group_id(group_id(group))
        .with_topics(None)
}

/// What the group has committed, by topic and partition.
pub(super) fn fetched(
    response: OffsetFetchResponse,
    group: &Arc<str>,
) -> Result<Vec<GroupOffset>, GroupAttemptError> {
    let (mut code, mut offsets) = (response.error_code, Vec::new());
    let mut add = |topic: &Arc<str>, partition, code, offset: i64, metadata: Option<StrBytes>| {
        if let Some(error) = GroupAttemptError::from_code(code, group) {
            return Err(error);
        }
        // Below 0: nothing is committed.
        if offset >= 0 {
            offsets.push(GroupOffset {
                tp: TopicPartition::new(Arc::clone(topic), partition),
                offset,
                metadata: metadata.unwrap_or_default().as_str().into(),
            });
        }
        Ok(())
    };
    for topic in response.topics {
        let name = topic.name.as_str().into();
        for p in topic.partitions {
            let (partition, code) = (p.partition_index, p.error_code);
            add(&name, partition, code, p.committed_offset, p.metadata)?;
        }
    }
    for of_group in response.groups {
        code = of_group.error_code;
        for topic in of_group.topics {
            let name = topic.name.as_str().into();
            for p in topic.partitions {
                let (partition, code) = (p.partition_index, p.error_code);
                add(&name, partition, code, p.committed_offset, p.metadata)?;
            }
        }
    }
    if let Some(error) = GroupAttemptError::from_code(code, group) {
        return Err(error);
    }
    offsets.sort_unstable_by(|a, b| a.tp.cmp(&b.tp));
    Ok(offsets)
}

/// OffsetCommit from outside of the group protocol, which brokers take while the group has no
/// members.
pub(super) fn commit_request(group: &str, offsets: &[GroupOffset]) -> OffsetCommitRequest {
    let partition = |offset: &GroupOffset| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(offset.tp.partition)
            .with_committed_offset(offset.offset)
            .with_committed_metadata(Some(text(&offset.metadata)))
    };
    let topics = by_topic(offsets.iter().map(|offset| (&offset.tp, offset)));
    let topics = topics.into_iter().map(|(name, offsets)| {
        OffsetCommitRequestTopic::default()
            .with_name(TopicName(text(name)))
            .with_partitions(offsets.into_iter().map(partition).collect())
    });
    OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id_or_member_epoch(NO_GENERATION)
        .with_topics(topics.collect())
}

/// The error code of each partition.
pub(super) fn commit_codes(response: OffsetCommitResponse) -> Vec<(TopicPartition, i16)> {
    let topics = response.topics.into_iter().flat_map(|topic| {
        let name: Arc<str> = topic.name.as_str().into();
        topic.partitions.into_iter().map(move |p| {
            let tp = TopicPartition::new(Arc::clone(&name), p.partition_index);
            (tp, p.error_code)
        })
    });
    topics.collect()
}

/// OffsetDelete of these partitions.
pub(super) fn delete_request(group: &str, offsets: &[GroupOffset]) -> OffsetDeleteRequest {
    let topics = by_topic(offsets.iter().map(|o| (&o.tp, o.tp.partition)));
    let topics = topics.into_iter().map(|(name, partitions)| {
        let partitions = partitions
            .into_iter()
            .map(|index| OffsetDeleteRequestPartition::default().with_partition_index(index));
        OffsetDeleteRequestTopic::default()
            .with_name(TopicName(text(name)))
            .with_partitions(partitions.collect())
    });
    OffsetDeleteRequest::default()
        .with_group_id(group_id(group))
        .with_topics(topics.collect())
}

/// The error codes of the group and of all partitions, those first that decide.
pub(super) fn delete_codes(response: &OffsetDeleteResponse) -> Vec<i16> {
    let topics = response.topics.iter();
    let partitions = topics.flat_map(|topic| topic.partitions.iter().map(|p| p.error_code));
    [response.error_code]
        .into_iter()
        .chain(partitions)
        .collect()
}

fn by_topic<'a, T>(
    partitions: impl Iterator<Item = (&'a TopicPartition, T)>,
) -> BTreeMap<&'a str, Vec<T>> {
    let mut topics: BTreeMap<&str, Vec<T>> = BTreeMap::new();
    for (tp, of_partition) in partitions {
        topics.entry(&tp.topic).or_default().push(of_partition);
    }
    topics
}

fn group_id(group: &str) -> GroupId {
    GroupId(text(group))
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Of a commit that comes from no member.
const NO_GENERATION: i32 = -1;

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages::offset_fetch_response::{
        OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
    };
    use kafka_protocol::protocol::Encodable;

    use super::*;

    fn offset(topic: &str, partition: i32) -> GroupOffset {
        GroupOffset {
            tp: TopicPartition::new(topic, partition),
            offset: 5,
            metadata: "m".into(),
        }
    }

    #[test]
    fn every_version_by_name_can_carry_the_requests() {
        let offsets = [offset("a", 0), offset("b", 1), offset("a", 2)];
        for version in 2..=BY_NAME_VERSION_MAX {
            let mut bytes = BytesMut::new();
            commit_request("g", &offsets)
                .encode(&mut bytes, version)
                .unwrap();
            fetch_request(version, "g")
                .encode(&mut bytes, version)
                .unwrap();
        }
        let request = commit_request("g", &offsets);
        let counts: Vec<_> = request.topics.iter().map(|t| t.partitions.len()).collect();
        assert_eq!(counts, [2, 1]);
        let mut bytes = BytesMut::new();
        delete_request("g", &offsets).encode(&mut bytes, 0).unwrap();
    }

    #[test]
    fn partitions_without_an_offset_are_left_out_and_the_others_sorted() {
        let partition = |index, offset| {
            OffsetFetchResponsePartitions::default()
                .with_partition_index(index)
                .with_committed_offset(offset)
                .with_metadata(Some(text("m")))
        };
        let topic = OffsetFetchResponseTopics::default()
            .with_name(TopicName(text("a")))
            .with_partitions(vec![partition(2, 5), partition(1, -1), partition(0, 5)]);
        let group = OffsetFetchResponseGroup::default().with_topics(vec![topic]);
        let response = OffsetFetchResponse::default().with_groups(vec![group]);
        let fetched = fetched(response, &"g".into()).unwrap();
        assert_eq!(fetched, [offset("a", 0), offset("a", 2)]);
    }

    #[test]
    fn an_error_of_the_group_is_no_empty_list() {
        let group = OffsetFetchResponseGroup::default().with_error_code(16);
        let response = OffsetFetchResponse::default().with_groups(vec![group]);
        let fetched = fetched(response, &"g".into());
        assert!(matches!(fetched, Err(GroupAttemptError::Retriable(_))));
    }
}
