//! The answer that says one error code in every place where its API has one; for
//! the APIs where the request alone tells which places those are.

use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::describe_transactions_response::TransactionState;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponseTopic,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::*;

/// Refuses a request. None for what is never answered.
pub(super) fn error_response(
    request: RequestKind,
    version: i16,
    code: i16,
) -> Option<ResponseKind> {
    Some(match request {
        RequestKind::ApiVersions(_) => ApiVersionsResponse::default().with_error_code(code).into(),
        RequestKind::DescribeCluster(_) => DescribeClusterResponse::default()
            .with_error_code(code)
            .into(),
        RequestKind::Produce(r) if r.acks == 0 => return None,
        RequestKind::Produce(r) => produce(r, code).into(),
        RequestKind::ListOffsets(r) => list_offsets(r, code).into(),
        RequestKind::OffsetForLeaderEpoch(r) => offset_for_leader_epoch(r, code).into(),
        RequestKind::DeleteRecords(r) => delete_records(r, code).into(),
        RequestKind::InitProducerId(_) => InitProducerIdResponse::default()
            .with_error_code(code)
            .with_producer_id(ProducerId(-1))
            .into(),
        RequestKind::FindCoordinator(r) => find_coordinator(r, version, code).into(),
        RequestKind::JoinGroup(r) => JoinGroupResponse::default()
            .with_error_code(code)
            .with_generation_id(-1)
            // Null only from version 7 on.
            .with_protocol_name((version < 7).then(Default::default))
            .with_member_id(r.member_id)
            .into(),
        RequestKind::SyncGroup(_) => SyncGroupResponse::default().with_error_code(code).into(),
        RequestKind::Heartbeat(_) => HeartbeatResponse::default().with_error_code(code).into(),
        RequestKind::LeaveGroup(r) => leave_group(r, code).into(),
        RequestKind::OffsetCommit(r) => offset_commit(r, code).into(),
        RequestKind::OffsetFetch(r) => offset_fetch(r, version, code).into(),
        RequestKind::DescribeGroups(r) => describe_groups(r, code).into(),
        RequestKind::ListGroups(_) => ListGroupsResponse::default().with_error_code(code).into(),
        RequestKind::DeleteGroups(r) => delete_groups(r, code).into(),
        RequestKind::OffsetDelete(_) => {
            OffsetDeleteResponse::default().with_error_code(code).into()
        }
        RequestKind::CreateTopics(r) => create_topics(r, code).into(),
        RequestKind::DeleteTopics(r) => delete_topics(r, version, code).into(),
        RequestKind::CreatePartitions(r) => create_partitions(r, code).into(),
        RequestKind::DescribeConfigs(r) => describe_configs(r, code).into(),
        RequestKind::AddPartitionsToTxn(r) => add_partitions_to_txn(r, version, code).into(),
        RequestKind::AddOffsetsToTxn(_) => AddOffsetsToTxnResponse::default()
            .with_error_code(code)
            .into(),
        RequestKind::DescribeTransactions(r) => describe_transactions(r, code).into(),
        RequestKind::ListTransactions(_) => ListTransactionsResponse::default()
            .with_error_code(code)
            .into(),
        RequestKind::EndTxn(_) => EndTxnResponse::default().with_error_code(code).into(),
        RequestKind::TxnOffsetCommit(r) => txn_offset_commit(r, code).into(),
        _ => return None,
    })
}

/// Sets how long the client is asked to wait.
pub(super) fn throttle(response: &mut ResponseKind, ms: i32) {
    let field = match response {
        ResponseKind::ApiVersions(r) => &mut r.throttle_time_ms,
        ResponseKind::Metadata(r) => &mut r.throttle_time_ms,
        ResponseKind::Produce(r) => &mut r.throttle_time_ms,
        ResponseKind::Fetch(r) => &mut r.throttle_time_ms,
        ResponseKind::ListOffsets(r) => &mut r.throttle_time_ms,
        ResponseKind::OffsetForLeaderEpoch(r) => &mut r.throttle_time_ms,
        ResponseKind::InitProducerId(r) => &mut r.throttle_time_ms,
        ResponseKind::FindCoordinator(r) => &mut r.throttle_time_ms,
        ResponseKind::JoinGroup(r) => &mut r.throttle_time_ms,
        ResponseKind::SyncGroup(r) => &mut r.throttle_time_ms,
        ResponseKind::Heartbeat(r) => &mut r.throttle_time_ms,
        ResponseKind::LeaveGroup(r) => &mut r.throttle_time_ms,
        ResponseKind::OffsetCommit(r) => &mut r.throttle_time_ms,
        ResponseKind::OffsetFetch(r) => &mut r.throttle_time_ms,
        ResponseKind::CreateTopics(r) => &mut r.throttle_time_ms,
        ResponseKind::DeleteTopics(r) => &mut r.throttle_time_ms,
        ResponseKind::AddPartitionsToTxn(r) => &mut r.throttle_time_ms,
        ResponseKind::EndTxn(r) => &mut r.throttle_time_ms,
        _ => return,
    };
    *field = ms;
}

fn produce(request: ProduceRequest, code: i16) -> ProduceResponse {
    let topics = request.topic_data.into_iter().map(|topic| {
        let partitions = topic.partition_data.iter().map(|partition| {
            PartitionProduceResponse::default()
                .with_index(partition.index)
                .with_error_code(code)
                .with_base_offset(-1)
        });
        TopicProduceResponse::default()
            .with_partition_responses(partitions.collect())
            .with_name(topic.name)
            .with_topic_id(topic.topic_id)
    });
    ProduceResponse::default().with_responses(topics.collect())
}

fn list_offsets(request: ListOffsetsRequest, code: i16) -> ListOffsetsResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            ListOffsetsPartitionResponse::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code)
        });
        ListOffsetsTopicResponse::default()
            .with_partitions(partitions.collect())
            .with_name(topic.name)
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

fn offset_for_leader_epoch(
    request: OffsetForLeaderEpochRequest,
    code: i16,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            EpochEndOffset::default()
                .with_partition(partition.partition)
                .with_error_code(code)
        });
        OffsetForLeaderTopicResult::default()
            .with_partitions(partitions.collect())
            .with_topic(topic.topic)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

fn delete_records(request: DeleteRecordsRequest, code: i16) -> DeleteRecordsResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            DeleteRecordsPartitionResult::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code)
        });
        DeleteRecordsTopicResult::default()
            .with_partitions(partitions.collect())
            .with_name(topic.name)
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

fn find_coordinator(
    request: FindCoordinatorRequest,
    version: i16,
    code: i16,
) -> FindCoordinatorResponse {
    if version < 4 {
        return FindCoordinatorResponse::default()
            .with_error_code(code)
            .with_node_id(BrokerId(-1))
            .with_port(-1);
    }
    let coordinators = request.coordinator_keys.into_iter().map(|key| {
        Coordinator::default()
            .with_key(key)
            .with_node_id(BrokerId(-1))
            .with_port(-1)
            .with_error_code(code)
    });
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}

fn leave_group(request: LeaveGroupRequest, code: i16) -> LeaveGroupResponse {
    let members = request.members.into_iter().map(|member| {
        MemberResponse::default()
            .with_member_id(member.member_id)
            .with_group_instance_id(member.group_instance_id)
            .with_error_code(code)
    });
    LeaveGroupResponse::default()
        .with_error_code(code)
        .with_members(members.collect())
}

fn offset_commit(request: OffsetCommitRequest, code: i16) -> OffsetCommitResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code)
        });
        OffsetCommitResponseTopic::default()
            .with_partitions(partitions.collect())
            .with_topic_id(topic.topic_id)
            .with_name(topic.name)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

fn offset_fetch(request: OffsetFetchRequest, version: i16, code: i16) -> OffsetFetchResponse {
    if version >= 8 {
        let groups = request.groups.into_iter().map(|group| {
            OffsetFetchResponseGroup::default()
                .with_group_id(group.group_id)
                .with_error_code(code)
        });
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    let topics = request.topics.unwrap_or_default().into_iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|&index| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(index)
                .with_committed_offset(-1)
                .with_metadata(Some(Default::default()))
                .with_error_code(code)
        });
        OffsetFetchResponseTopic::default()
            .with_partitions(partitions.collect())
            .with_name(topic.name)
    });
    let response = OffsetFetchResponse::default().with_topics(topics.collect());
    if version >= 2 {
        response.with_error_code(code)
    } else {
        response
    }
}

fn describe_groups(request: DescribeGroupsRequest, code: i16) -> DescribeGroupsResponse {
    let groups = request.groups.into_iter().map(|id| {
        DescribedGroup::default()
            .with_group_id(id)
            .with_error_code(code)
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

fn delete_groups(request: DeleteGroupsRequest, code: i16) -> DeleteGroupsResponse {
    let results = request.groups_names.into_iter().map(|id| {
        DeletableGroupResult::default()
            .with_group_id(id)
            .with_error_code(code)
    });
    DeleteGroupsResponse::default().with_results(results.collect())
}

fn create_topics(request: CreateTopicsRequest, code: i16) -> CreateTopicsResponse {
    let topics = request.topics.into_iter().map(|topic| {
        CreatableTopicResult::default()
            .with_name(topic.name)
            .with_error_code(code)
    });
    CreateTopicsResponse::default().with_topics(topics.collect())
}

fn delete_topics(request: DeleteTopicsRequest, version: i16, code: i16) -> DeleteTopicsResponse {
    let result = |name| {
        DeletableTopicResult::default()
            .with_name(name)
            .with_error_code(code)
    };
    let responses = if version >= 6 {
        let topics = request.topics.into_iter();
        topics
            .map(|topic| result(topic.name).with_topic_id(topic.topic_id))
            .collect()
    } else {
        let names = request.topic_names.into_iter();
        names.map(|name| result(Some(name))).collect()
    };
    DeleteTopicsResponse::default().with_responses(responses)
}

fn create_partitions(request: CreatePartitionsRequest, code: i16) -> CreatePartitionsResponse {
    let results = request.topics.into_iter().map(|topic| {
        CreatePartitionsTopicResult::default()
            .with_name(topic.name)
            .with_error_code(code)
    });
    CreatePartitionsResponse::default().with_results(results.collect())
}

fn describe_configs(request: DescribeConfigsRequest, code: i16) -> DescribeConfigsResponse {
    let results = request.resources.into_iter().map(|resource| {
        DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
            .with_error_code(code)
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn add_partitions_to_txn(
    request: AddPartitionsToTxnRequest,
    version: i16,
    code: i16,
) -> AddPartitionsToTxnResponse {
    let results = |topics: Vec<add_partitions_to_txn_request::AddPartitionsToTxnTopic>| {
        let topics = topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|&index| {
                AddPartitionsToTxnPartitionResult::default()
                    .with_partition_index(index)
                    .with_partition_error_code(code)
            });
            AddPartitionsToTxnTopicResult::default()
                .with_results_by_partition(partitions.collect())
                .with_name(topic.name)
        });
        topics.collect()
    };
    if version < 4 {
        return AddPartitionsToTxnResponse::default()
            .with_results_by_topic_v3_and_below(results(request.v3_and_below_topics));
    }
    let transactions = request.transactions.into_iter().map(|txn| {
        AddPartitionsToTxnResult::default()
            .with_transactional_id(txn.transactional_id)
            .with_topic_results(results(txn.topics))
    });
    AddPartitionsToTxnResponse::default()
        .with_error_code(code)
        .with_results_by_transaction(transactions.collect())
}

fn describe_transactions(
    request: DescribeTransactionsRequest,
    code: i16,
) -> DescribeTransactionsResponse {
    let states = request.transactional_ids.into_iter().map(|id| {
        TransactionState::default()
            .with_transactional_id(id)
            .with_error_code(code)
    });
    DescribeTransactionsResponse::default().with_transaction_states(states.collect())
}

fn txn_offset_commit(request: TxnOffsetCommitRequest, code: i16) -> TxnOffsetCommitResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code)
        });
        TxnOffsetCommitResponseTopic::default()
            .with_partitions(partitions.collect())
            .with_name(topic.name)
    });
    TxnOffsetCommitResponse::default().with_topics(topics.collect())
}
