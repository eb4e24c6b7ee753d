//! OffsetDelete: forgets committed offsets of topics that no member of the group subscribes to.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::super::context::{ClusterData, RequestContext};

/// Answers for each partition, unless the group as a whole does not allow it.
pub(super) fn offset_delete(
    context: &RequestContext,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let mut cluster = context.shared.lock();
    let group = request.group_id;
    let allowed = context
        .check_coordinator(&cluster, &group)
        .and_then(|()| check_group(&cluster, &group));
    if let Err(error) = allowed {
        return OffsetDeleteResponse::default().with_error_code(error.code());
    }
    let topics = request.topics.into_iter().map(|topic| {
        let is_subscribed = cluster
            .groups
            .get(&group)
            .is_some_and(|group| group.is_subscribed_to(&topic.name));
        let partitions = topic.partitions.into_iter().map(|partition| {
            let index = partition.partition_index;
            let error = if cluster.state.partition(&topic.name, index).is_none() {
                ResponseError::UnknownTopicOrPartition.code()
            } else if is_subscribed {
                ResponseError::GroupSubscribedToTopic.code()
            } else {
                let _ = context.with_group(&mut cluster, &group, |group| {
                    group.forget_offset(&topic.name, index);
                });
                0
            };
            OffsetDeleteResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(error)
        });
        let partitions = partitions.collect();
        OffsetDeleteResponseTopic::default()
            .with_partitions(partitions)
            .with_name(topic.name)
    });
    let topics = topics.collect();
    OffsetDeleteResponse::default().with_topics(topics)
}

/// A group of other members than consumers says of none of its topics that it is done with it.
fn check_group(cluster: &ClusterData, group: &str) -> Result<(), ResponseError> {
    let group = cluster.groups.get(group);
    let group = group.ok_or(ResponseError::GroupIdNotFound)?;
    match group.members().is_empty() || &*group.protocol_type() == "consumer" {
        true => Ok(()),
        false => Err(ResponseError::NonEmptyGroup),
    }
}
