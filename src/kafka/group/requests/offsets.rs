//! OffsetCommit and OffsetFetch.

use std::collections::HashMap;

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{
    GroupId, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
    TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{ConsumerGroupMetadata, text};
use crate::TopicPartition;
use crate::fetcher::FetchPosition;
use crate::group::error::GroupError;
use crate::group::partition_assignment::PartitionAssignment;
use crate::group::topic_identity::OffsetToCommit;

/// OffsetCommit of a member; `offsets` by topic.
pub(crate) fn offset_commit(
    version: i16,
    metadata: &ConsumerGroupMetadata,
    offsets: &[OffsetToCommit],
) -> OffsetCommitRequest {
    let mut topics: Vec<OffsetCommitRequestTopic> = Vec::new();
    for OffsetToCommit {
        assignment: PartitionAssignment { tp, .. },
        next,
        topic,
        ..
    } in offsets
    {
        let epoch = if version >= 6 { next.leader_epoch } else { -1 };
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(tp.partition)
            .with_committed_offset(next.offset)
            .with_committed_leader_epoch(epoch)
            .with_committed_metadata(Some(StrBytes::from_static_str("")));
        match topics.last_mut() {
            Some(topic) if *topic.name.0 == *tp.topic => topic.partitions.push(partition),
            _ => topics.push(
                OffsetCommitRequestTopic::default()
                    .with_name(TopicName(text(&tp.topic)))
                    .with_topic_id(topic.id)
                    .with_partitions(vec![partition]),
            ),
        }
    }
    OffsetCommitRequest::default()
        .with_group_id(metadata.group_id())
        .with_generation_id_or_member_epoch(metadata.generation)
        .with_member_id(text(&metadata.member_id))
        .with_group_instance_id(metadata.group_instance_id(version >= 7))
        .with_topics(topics)
}

/// The error code of each partition that was to be committed and is in the response.
pub(crate) fn commit_error_codes(
    response: &OffsetCommitResponse,
    offsets: &[OffsetToCommit],
) -> Vec<(PartitionAssignment, i16)> {
    let mut codes = Vec::with_capacity(offsets.len());
    for topic in &response.topics {
        for partition in &topic.partitions {
            let requested = offsets.iter().find(|offset| {
                let tp = &offset.assignment.tp;
                // In version 10 topics have an id, before that a name.
                let is_topic = match topic.topic_id.is_nil() {
                    true => *tp.topic == *topic.name.0,
                    false => offset.topic.id == topic.topic_id,
                };
                is_topic && tp.partition == partition.partition_index
            });
            let code = partition.error_code;
            codes.extend(requested.map(|offset| (offset.assignment.clone(), code)));
        }
    }
    codes
}

/// OffsetFetch of one group; `partitions` sorted, each with its topic's id.
pub(crate) fn offset_fetch(
    version: i16,
    group_id: &str,
    partitions: &[(TopicPartition, Uuid)],
    stable: bool,
) -> OffsetFetchRequest {
    let mut topics: Vec<(&str, Uuid, Vec<i32>)> = Vec::new();
    for (tp, id) in partitions {
        match topics.last_mut() {
            Some((topic, _, list)) if **topic == *tp.topic => list.push(tp.partition),
            _ => topics.push((&tp.topic, *id, vec![tp.partition])),
        }
    }
    let request = OffsetFetchRequest::default().with_require_stable(stable && version >= 7);
    if version >= 8 {
        let topic = |(name, id, list): (&str, Uuid, Vec<i32>)| {
            OffsetFetchRequestTopics::default()
                .with_name(TopicName(text(name)))
                .with_topic_id(id)
                .with_partition_indexes(list)
        };
        let topics = topics.into_iter().map(topic).collect();
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text(group_id)))
            .with_topics(Some(topics));
        return request.with_groups(vec![group]);
    }
    let topic = |(name, _, list): (&str, Uuid, Vec<i32>)| {
        OffsetFetchRequestTopic::default()
            .with_name(TopicName(text(name)))
            .with_partition_indexes(list)
    };
    request
        .with_group_id(GroupId(text(group_id)))
        .with_topics(Some(topics.into_iter().map(topic).collect()))
}

/// A partition, and its committed offset with the leader epoch (Java's `OffsetAndMetadata`);
/// `None` if nothing is committed.
pub(crate) type CommittedPosition = (TopicPartition, Result<Option<FetchPosition>, GroupError>);

/// What the OffsetFetch response says of each of `partitions`; one that it leaves out has failed.
pub(crate) fn committed_offsets(
    response: OffsetFetchResponse,
    partitions: &[(TopicPartition, Uuid)],
) -> Result<Vec<CommittedPosition>, GroupError> {
    let mut code = response.error_code;
    // By name, or by id where the version has it; the first counts.
    let mut listed: HashMap<(String, Uuid, i32), (i64, i32, i16)> = HashMap::new();
    for topic in response.topics {
        let name = topic.name.0.to_string();
        for p in topic.partitions {
            let key = (name.clone(), Uuid::nil(), p.partition_index);
            let value = (p.committed_offset, p.committed_leader_epoch, p.error_code);
            listed.entry(key).or_insert(value);
        }
    }
    if let Some(group) = response.groups.into_iter().next() {
        code = group.error_code;
        for topic in group.topics {
            let name = match topic.topic_id.is_nil() {
                true => topic.name.0.to_string(),
                false => String::new(),
            };
            for p in topic.partitions {
                let key = (name.clone(), topic.topic_id, p.partition_index);
                let value = (p.committed_offset, p.committed_leader_epoch, p.error_code);
                listed.entry(key).or_insert(value);
            }
        }
    }
    if let Some(error) = GroupError::from_code(code) {
        return Err(error);
    }
    let find = |tp: &TopicPartition, topic_id: Uuid| {
        let by_name = (tp.topic.to_string(), Uuid::nil(), tp.partition);
        let by_id = (String::new(), topic_id, tp.partition);
        match listed.get(&by_name).or_else(|| listed.get(&by_id)) {
            None => Err(GroupError::MalformedResponse),
            Some(&(offset, leader_epoch, code)) => match GroupError::from_code(code) {
                Some(error) => Err(error),
                None if offset < 0 => Ok(None),
                None => Ok(Some(FetchPosition {
                    offset,
                    leader_epoch,
                })),
            },
        }
    };
    let found = partitions.iter();
    let found = found.map(|(tp, topic_id)| (tp.clone(), find(tp, *topic_id)));
    Ok(found.collect())
}
