//! Nodes, leaders, coordinators: Metadata, DescribeCluster, FindCoordinator.

use std::collections::HashSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, DescribeClusterResponse, FindCoordinatorRequest, FindCoordinatorResponse,
    MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::super::cluster_state::{ClusterState, PartitionState, TopicState};
use super::super::context::RequestContext;
use super::super::wire::text;

/// Brokers, and the topics that were asked for, created if allowed.
pub(super) fn metadata(
    context: &RequestContext,
    version: i16,
    request: MetadataRequest,
) -> MetadataResponse {
    let create = request.allow_auto_topic_creation && context.shared.config.auto_create_topics;
    let mut cluster = context.shared.lock();
    let state = &mut cluster.state;
    let mut seen = HashSet::new();
    let topics = match request.topics {
        Some(topics) if version > 0 || !topics.is_empty() => topics
            .into_iter()
            // As often as it is asked for, the answer could be of any size.
            .filter(|topic| seen.insert((topic.name.clone(), topic.topic_id)))
            .map(|topic| wanted_topic(state, version, topic, create))
            .collect(),
        _ => state
            .topics()
            .map(|(name, topic)| describe(version, name, topic, state))
            .collect(),
    };
    let brokers = state.online().map(|node| {
        MetadataResponseBroker::default()
            .with_node_id(BrokerId(node.id))
            .with_host(text(node.address.ip()))
            .with_port(node.address.port().into())
    });
    MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(text(&state.config.cluster_id)))
        .with_controller_id(BrokerId(state.controller()))
        .with_topics(topics)
}

#[cfg(any(test, feature = "faults"))]
/// The brokers as they are, and an error for every topic.
pub(super) fn error_response(
    context: &RequestContext,
    version: i16,
    request: MetadataRequest,
    code: i16,
) -> MetadataResponse {
    let request = request.with_allow_auto_topic_creation(false);
    let mut response = metadata(context, version, request);
    for topic in &mut response.topics {
        topic.error_code = code;
        topic.partitions.clear();
    }
    if version >= 13 {
        response.error_code = code;
    }
    response
}

fn wanted_topic(
    state: &mut ClusterState,
    version: i16,
    wanted: MetadataRequestTopic,
    create: bool,
) -> MetadataResponseTopic {
    let failed = |error: ResponseError| {
        // Before version 12 a name has to be there.
        let no_name = (version < 12).then(TopicName::default);
        let response = MetadataResponseTopic::default()
            .with_error_code(error.code())
            .with_name(wanted.name.clone().or(no_name));
        if version >= 10 {
            response.with_topic_id(wanted.topic_id)
        } else {
            response
        }
    };
    let name = match &wanted.name {
        Some(name) => name.to_string(),
        None => match state.name_of(wanted.topic_id) {
            Some(name) => name.to_owned(),
            None => return failed(ResponseError::UnknownTopicId),
        },
    };
    if state.topic(&name).is_none() {
        if !create {
            return failed(ResponseError::UnknownTopicOrPartition);
        }
        if let Err(error) = state.create_topic(&name, None, None) {
            return failed(error);
        }
    }
    match state.topic(&name) {
        Some(topic) => describe(version, &name, topic, state),
        None => failed(ResponseError::UnknownTopicOrPartition),
    }
}

fn describe(
    version: i16,
    name: &str,
    topic: &TopicState,
    state: &ClusterState,
) -> MetadataResponseTopic {
    let partitions = (0..).zip(&topic.partitions);
    let response = MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(name))))
        .with_partitions(
            partitions
                .map(|(index, partition)| describe_partition(version, index, partition, state))
                .collect(),
        );
    if version >= 10 {
        response.with_topic_id(topic.id)
    } else {
        response
    }
}

fn describe_partition(
    version: i16,
    index: i32,
    partition: &PartitionState,
    state: &ClusterState,
) -> MetadataResponsePartition {
    let (online, offline): (Vec<i32>, Vec<i32>) = partition
        .replicas
        .iter()
        .partition(|&&id| state.node(id).is_some());
    let ids = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect();
    let error = match partition.leader {
        Some(_) => 0,
        None => ResponseError::LeaderNotAvailable.code(),
    };
    let response = MetadataResponsePartition::default()
        .with_error_code(error)
        .with_partition_index(index)
        .with_leader_id(BrokerId(partition.leader.unwrap_or(-1)))
        .with_replica_nodes(ids(&partition.replicas))
        .with_isr_nodes(ids(&online))
        .with_offline_replicas(ids(&offline));
    if version >= 7 {
        response.with_leader_epoch(partition.epoch)
    } else {
        response
    }
}

/// The nodes and the controller.
pub(super) fn describe_cluster(context: &RequestContext, version: i16) -> DescribeClusterResponse {
    let cluster = context.shared.lock();
    let brokers = cluster.state.online().map(|node| {
        DescribeClusterBroker::default()
            .with_broker_id(BrokerId(node.id))
            .with_host(text(node.address.ip()))
            .with_port(node.address.port().into())
    });
    let response = DescribeClusterResponse::default()
        .with_cluster_id(text(&cluster.state.config.cluster_id))
        .with_controller_id(BrokerId(cluster.state.controller()))
        .with_brokers(brokers.collect());
    if version >= 1 {
        response.with_endpoint_type(1)
    } else {
        response
    }
}

/// The node that coordinates each group or transaction.
pub(super) fn find_coordinator(
    context: &RequestContext,
    version: i16,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let cluster = context.shared.lock();
    let find = |key: StrBytes| {
        let known = matches!(request.key_type, 0 | 1);
        let node = known.then(|| cluster.state.coordinator(&key)).flatten();
        match node {
            Some(node) => Coordinator::default()
                .with_key(key)
                .with_node_id(BrokerId(node.id))
                .with_host(text(node.address.ip()))
                .with_port(node.address.port().into()),
            None => Coordinator::default()
                .with_key(key)
                .with_node_id(BrokerId(-1))
                .with_port(-1)
                .with_error_code(if known {
                    ResponseError::CoordinatorNotAvailable.code()
                } else {
                    ResponseError::InvalidRequest.code()
                }),
        }
    };
    if version >= 4 {
        let coordinators = request.coordinator_keys.into_iter().map(find).collect();
        return FindCoordinatorResponse::default().with_coordinators(coordinators);
    }
    let found = find(request.key);
    FindCoordinatorResponse::default()
        .with_error_code(found.error_code)
        .with_node_id(found.node_id)
        .with_host(found.host)
        .with_port(found.port)
}
