//! The committed offsets of groups: OffsetCommit and OffsetFetch.

use std::collections::HashSet;
use std::time::Instant;

use kafka_client::protocol::topics_by_id::BY_ID_VERSION;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::super::context::{ClusterData, RequestContext};
use super::super::group::{ClassicGroup, OffsetAndMetadata, size_of_offset};
use super::super::wire::owned;

/// Stores offsets, if the member and its generation are current: they can be fetched, and the
/// request is answered, once they are replicated.
pub(super) async fn offset_commit(
    context: &RequestContext,
    version: i16,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let group = request.group_id.clone();
    let (response, appended) = append_offsets(context, version, request);
    let delay = context.shared.config.offset_commit_delay;
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let mut cluster = context.shared.lock();
    for AppendedOffset {
        topic,
        topic_id,
        partition,
        committed,
    } in appended
    {
        // Not of a topic that was deleted meanwhile, nor in a group that is gone.
        if cluster.state.name_of(topic_id).is_some() {
            let key = (owned(&topic), partition);
            let _ = context.with_group(&mut cluster, &group, |group| group.commit(key, committed));
        }
    }
    response
}

/// An offset that is in the log of the group's coordinator, and not replicated yet.
struct AppendedOffset {
    topic: TopicName,
    topic_id: Uuid,
    partition: i32,
    committed: OffsetAndMetadata,
}

fn append_offsets(
    context: &RequestContext,
    version: i16,
    request: OffsetCommitRequest,
) -> (OffsetCommitResponse, Vec<AppendedOffset>) {
    let mut cluster = context.shared.lock();
    let allowed = check_commit(context, &mut cluster, &request);
    let group = &request.group_id;
    let mut appended = Vec::new();
    let topics = request.topics.into_iter().map(|topic| {
        let name = name_of(&cluster, version, &topic.name, topic.topic_id);
        let partitions = topic.partitions.into_iter().map(|wanted| {
            let index = wanted.partition_index;
            let result = allowed.and_then(|()| {
                let name = name.as_ref().ok_or(ResponseError::UnknownTopicId)?;
                let exists = cluster.state.partition(name, index).is_some();
                let topic = cluster.state.topic(name).filter(|_| exists);
                let topic_id = topic.ok_or(ResponseError::UnknownTopicOrPartition)?.id;
                let committed = append(context, &mut cluster, group, name, wanted)?;
                appended.push(AppendedOffset {
                    topic: name.clone(),
                    topic_id,
                    partition: index,
                    committed,
                });
                Ok(())
            });
            OffsetCommitResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(result.err().map_or(0, |error: ResponseError| error.code()))
        });
        let partitions = partitions.collect();
        OffsetCommitResponseTopic::default()
            .with_partitions(partitions)
            .with_topic_id(topic.topic_id)
            .with_name(topic.name)
    });
    let topics = topics.collect();
    (
        OffsetCommitResponse::default().with_topics(topics),
        appended,
    )
}

/// Which topic is meant: from version 10 on it is named by its id. `None` if no topic has it.
fn name_of(
    cluster: &ClusterData,
    version: i16,
    name: &TopicName,
    topic_id: Uuid,
) -> Option<TopicName> {
    if version < BY_ID_VERSION {
        return Some(name.clone());
    }
    let name = cluster.state.name_of(topic_id)?;
    Some(TopicName(owned(name)))
}

fn check_commit(
    context: &RequestContext,
    cluster: &mut ClusterData,
    request: &OffsetCommitRequest,
) -> Result<(), ResponseError> {
    let now = Instant::now();
    let generation = request.generation_id_or_member_epoch;
    context.check_coordinator(cluster, &request.group_id)?;
    if cluster.groups.get(&request.group_id).is_none() {
        if generation >= 0 {
            return Err(ResponseError::IllegalGeneration);
        }
        cluster.groups.create(&request.group_id, now)?;
    }
    context.with_group(cluster, &request.group_id, |group| {
        let instance = request.group_instance_id.as_ref();
        group.check_commit(&request.member_id, instance, generation, now)
    })?
}

fn append(
    context: &RequestContext,
    cluster: &mut ClusterData,
    group: &str,
    topic: &TopicName,
    wanted: OffsetCommitRequestPartition,
) -> Result<OffsetAndMetadata, ResponseError> {
    let metadata = wanted.committed_metadata.unwrap_or_default();
    if metadata.len() > METADATA_MAX {
        return Err(ResponseError::OffsetMetadataTooLarge);
    }
    let mut committed = OffsetAndMetadata {
        number: 0,
        offset: wanted.committed_offset,
        leader_epoch: wanted.committed_leader_epoch,
        metadata: owned(&metadata),
    };
    if !cluster
        .groups
        .make_room(group, size_of_offset(topic.len(), &committed))
    {
        return Err(ResponseError::InvalidCommitOffsetSize);
    }
    committed.number = context.with_group(cluster, group, ClassicGroup::append_commit)?;
    Ok(committed)
}

/// The committed offsets of one group or, from version 8 on, of several, each once.
pub(super) fn offset_fetch(
    context: &RequestContext,
    version: i16,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    let cluster = context.shared.lock();
    if version >= 8 {
        let mut seen = HashSet::new();
        let groups = request.groups.into_iter();
        let groups = groups
            .filter(|group| seen.insert(group.group_id.clone()))
            .map(|group| fetch_group(context, &cluster, version, group));
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    let checked = context.check_coordinator(&cluster, &request.group_id);
    let error = checked.err().map_or(0, |error| error.code());
    let wanted = request.topics.map(|topics| {
        let wanted = topics.into_iter();
        wanted.map(|t| (t.name, t.partition_indexes)).collect()
    });
    let topics = positions(&cluster, &request.group_id, wanted).into_iter();
    let topics = topics.map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(index, committed)| {
            let response = OffsetFetchResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(error)
                .with_committed_offset(committed.offset)
                .with_metadata(Some(committed.metadata));
            if version >= 5 {
                response.with_committed_leader_epoch(committed.leader_epoch)
            } else {
                response
            }
        });
        OffsetFetchResponseTopic::default()
            .with_partitions(partitions.collect())
            .with_name(name)
    });
    let response = OffsetFetchResponse::default().with_topics(topics.collect());
    if version >= 2 {
        response.with_error_code(error)
    } else {
        response
    }
}

fn fetch_group(
    context: &RequestContext,
    cluster: &ClusterData,
    version: i16,
    wanted: OffsetFetchRequestGroup,
) -> OffsetFetchResponseGroup {
    let response = OffsetFetchResponseGroup::default();
    if let Err(error) = context.check_coordinator(cluster, &wanted.group_id) {
        return response
            .with_group_id(wanted.group_id)
            .with_error_code(error.code());
    }
    let mut unknown = Vec::new();
    let topics = wanted.topics.map(|topics| {
        let wanted = topics.into_iter().filter_map(|topic| {
            let name = name_of(cluster, version, &topic.name, topic.topic_id);
            if name.is_none() {
                unknown.push(unknown_topic(topic.topic_id, &topic.partition_indexes));
            }
            Some((name?, topic.partition_indexes))
        });
        wanted.collect()
    });
    let topics = positions(cluster, &wanted.group_id, topics).into_iter();
    let topics = topics.map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(index, committed)| {
            OffsetFetchResponsePartitions::default()
                .with_partition_index(index)
                .with_committed_offset(committed.offset)
                .with_committed_leader_epoch(committed.leader_epoch)
                .with_metadata(Some(committed.metadata))
        });
        let topic = cluster.state.topic(&name);
        OffsetFetchResponseTopics::default()
            .with_partitions(partitions.collect())
            .with_topic_id(topic.map_or_else(Uuid::nil, |topic| topic.id))
            .with_name(name)
    });
    let topics = topics.chain(unknown).collect();
    response.with_group_id(wanted.group_id).with_topics(topics)
}

fn unknown_topic(topic_id: Uuid, indexes: &[i32]) -> OffsetFetchResponseTopics {
    let partitions = indexes.iter().map(|index| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(*index)
            .with_committed_offset(-1)
            .with_committed_leader_epoch(-1)
            .with_metadata(Some(StrBytes::new()))
            .with_error_code(ResponseError::UnknownTopicId.code())
    });
    OffsetFetchResponseTopics::default()
        .with_topic_id(topic_id)
        .with_partitions(partitions.collect())
}

type OffsetsByTopic = Vec<(TopicName, Vec<(i32, OffsetAndMetadata)>)>;

/// What was committed for those partitions, -1 where nothing was; for all when none are
/// named.
fn positions(
    cluster: &ClusterData,
    group: &str,
    wanted: Option<Vec<(TopicName, Vec<i32>)>>,
) -> OffsetsByTopic {
    let group = cluster.groups.get(group);
    let committed = |topic: &TopicName, index: i32| {
        let key = (topic.0.clone(), index);
        let found = group.and_then(|group| group.offsets.get(&key));
        found.cloned().unwrap_or(OffsetAndMetadata {
            number: 0,
            offset: -1,
            leader_epoch: -1,
            metadata: StrBytes::new(),
        })
    };
    if let Some(wanted) = wanted {
        let positions = wanted.into_iter().map(|(topic, indexes)| {
            let indexes = indexes.into_iter();
            let positions = indexes.map(|index| (index, committed(&topic, index)));
            let positions = positions.collect();
            (topic, positions)
        });
        return positions.collect();
    }
    let mut all: OffsetsByTopic = Vec::new();
    let offsets = group.iter().flat_map(|group| &group.offsets);
    for ((topic, index), committed) in offsets {
        match all.last_mut() {
            Some((last, positions)) if last.0 == *topic => {
                positions.push((*index, committed.clone()));
            }
            _ => all.push((TopicName(topic.clone()), vec![(*index, committed.clone())])),
        }
    }
    all
}

/// `offset.metadata.max.bytes`
const METADATA_MAX: usize = 4096;
