//! Every API in every version that any release serves: asked, answered, and refused in a
//! form that can be encoded, and read back by a client.

mod bounds;
mod fuzz;
mod offset_delete;
mod transactions;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, StrBytes};
use uuid::Uuid;

use kafka_client::net;
use kafka_client::protocol::versions::Api as _;

use super::super::batch::tests::{PLAIN, batch_of};
use super::super::config::BrokerConfig;
use super::super::context::{ClusterContext, RequestContext};
use super::super::versions::KafkaRelease;
use super::{answer, error_response};

fn context() -> RequestContext {
    context_with(config())
}

fn config() -> BrokerConfig {
    BrokerConfig {
        versions: KafkaRelease::V4.versions(),
        // No clock ends it here.
        initial_rebalance_delay: Duration::ZERO,
        ..BrokerConfig::default()
    }
}

fn context_with(config: BrokerConfig) -> RequestContext {
    let address = SocketAddr::from(([127, 0, 0, 1], 9092));
    RequestContext {
        shared: ClusterContext::new(config, &[address]),
        node: 1,
        client_id: StrBytes::from_static_str("test"),
        host: address,
    }
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn topic() -> TopicName {
    TopicName(text("t"))
}

/// A request as a client of that version would make it. `id`: of topic `t`.
fn request(api: ApiKey, version: i16, id: Uuid) -> RequestKind {
    let by_id = match api {
        ApiKey::Produce | ApiKey::Fetch => version >= 13,
        ApiKey::OffsetCommit | ApiKey::OffsetFetch => version >= 10,
        _ => false,
    };
    let (name, id) = if by_id {
        (TopicName::default(), id)
    } else {
        (topic(), Uuid::nil())
    };
    let of_group = group_request(api, version, name.clone(), id);
    let of_topic = || topic_request(api, version);
    of_group
        .or_else(of_topic)
        .unwrap_or_else(|| record_request(api, version, name, id))
}

/// A request that is about records, transactions or the cluster.
fn record_request(api: ApiKey, version: i16, name: TopicName, id: Uuid) -> RequestKind {
    match api {
        ApiKey::Metadata => MetadataRequest::default()
            .with_topics(Some(vec![
                MetadataRequestTopic::default().with_name(Some(topic())),
                MetadataRequestTopic::default().with_name(Some(TopicName(text("none such/")))),
            ]))
            .into(),
        ApiKey::Produce => ProduceRequest::default()
            .with_acks(-1)
            .with_topic_data(vec![
                TopicProduceData::default()
                    .with_name(name)
                    .with_topic_id(id)
                    .with_partition_data(vec![
                        PartitionProduceData::default().with_records(Some(batch_of(2, 5, PLAIN))),
                        PartitionProduceData::default().with_index(7),
                    ]),
            ])
            .into(),
        ApiKey::Fetch => FetchRequest::default()
            .with_max_bytes(1000)
            .with_session_epoch(if version >= 7 { 0 } else { -1 })
            .with_topics(vec![
                FetchTopic::default()
                    .with_topic(name)
                    .with_topic_id(id)
                    .with_partitions(vec![
                        FetchPartition::default().with_partition_max_bytes(1000),
                        FetchPartition::default().with_partition(7),
                    ]),
            ])
            .into(),
        ApiKey::ListOffsets => ListOffsetsRequest::default()
            .with_topics(vec![
                ListOffsetsTopic::default()
                    .with_name(name)
                    .with_partitions(vec![
                        ListOffsetsPartition::default().with_timestamp(-1),
                        ListOffsetsPartition::default().with_partition_index(7),
                    ]),
            ])
            .into(),
        ApiKey::OffsetForLeaderEpoch => OffsetForLeaderEpochRequest::default()
            .with_topics(vec![
                OffsetForLeaderTopic::default()
                    .with_topic(name)
                    .with_partitions(vec![OffsetForLeaderPartition::default()]),
            ])
            .into(),
        ApiKey::AddPartitionsToTxn if version >= 4 => AddPartitionsToTxnRequest::default()
            .with_transactions(vec![AddPartitionsToTxnTransaction::default().with_topics(
                vec![
                        AddPartitionsToTxnTopic::default()
                            .with_name(name)
                            .with_partitions(vec![0]),
                    ],
            )])
            .into(),
        ApiKey::AddPartitionsToTxn => AddPartitionsToTxnRequest::default()
            .with_v3_and_below_topics(vec![
                AddPartitionsToTxnTopic::default()
                    .with_name(name)
                    .with_partitions(vec![0]),
            ])
            .into(),
        ApiKey::InitProducerId => InitProducerIdRequest::default()
            .with_transactional_id(None)
            .into(),
        ApiKey::ApiVersions => ApiVersionsRequest::default().into(),
        ApiKey::DescribeCluster => DescribeClusterRequest::default().into(),
        ApiKey::AddOffsetsToTxn => AddOffsetsToTxnRequest::default().into(),
        ApiKey::EndTxn => EndTxnRequest::default().into(),
        ApiKey::DescribeTransactions => DescribeTransactionsRequest::default()
            .with_transactional_ids(vec![TransactionalId(text("id"))])
            .into(),
        ApiKey::ListTransactions => ListTransactionsRequest::default().into(),
        other => panic!("no request of {other:?}"),
    }
}

/// A request about group `g`.
fn group_request(api: ApiKey, version: i16, name: TopicName, id: Uuid) -> Option<RequestKind> {
    let group = || GroupId(text("g"));
    Some(match api {
        ApiKey::FindCoordinator if version >= 4 => FindCoordinatorRequest::default()
            .with_coordinator_keys(vec![text("g"), text("h")])
            .into(),
        ApiKey::FindCoordinator => FindCoordinatorRequest::default().with_key(text("g")).into(),
        ApiKey::JoinGroup => JoinGroupRequest::default()
            .with_group_id(group())
            .with_session_timeout_ms(10_000)
            .with_rebalance_timeout_ms(if version >= 1 { 10_000 } else { -1 })
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![
                JoinGroupRequestProtocol::default().with_name(text("range")),
            ])
            .into(),
        ApiKey::SyncGroup => SyncGroupRequest::default()
            .with_group_id(group())
            .with_protocol_type((version >= 5).then(|| text("consumer")))
            .with_protocol_name((version >= 5).then(|| text("range")))
            .into(),
        ApiKey::Heartbeat => HeartbeatRequest::default().with_group_id(group()).into(),
        ApiKey::LeaveGroup if version >= 3 => LeaveGroupRequest::default()
            .with_group_id(group())
            .with_members(vec![MemberIdentity::default()])
            .into(),
        ApiKey::LeaveGroup => LeaveGroupRequest::default().with_group_id(group()).into(),
        ApiKey::OffsetCommit => OffsetCommitRequest::default()
            .with_group_id(group())
            .with_topics(vec![
                OffsetCommitRequestTopic::default()
                    .with_name(name)
                    .with_topic_id(id)
                    .with_partitions(vec![
                        OffsetCommitRequestPartition::default().with_committed_offset(5),
                    ]),
            ])
            .into(),
        ApiKey::OffsetFetch if version >= 8 => OffsetFetchRequest::default()
            .with_groups(vec![
                OffsetFetchRequestGroup::default()
                    .with_group_id(group())
                    .with_topics(Some(vec![
                        OffsetFetchRequestTopics::default()
                            .with_name(name)
                            .with_topic_id(id)
                            .with_partition_indexes(vec![0, 1]),
                    ])),
            ])
            .into(),
        ApiKey::OffsetFetch => OffsetFetchRequest::default()
            .with_group_id(group())
            .with_topics(Some(vec![
                OffsetFetchRequestTopic::default()
                    .with_name(name)
                    .with_partition_indexes(vec![0, 1]),
            ]))
            .into(),
        ApiKey::DescribeGroups => DescribeGroupsRequest::default()
            .with_groups(vec![group()])
            .into(),
        ApiKey::DeleteGroups => DeleteGroupsRequest::default()
            .with_groups_names(vec![group()])
            .into(),
        ApiKey::OffsetDelete => OffsetDeleteRequest::default()
            .with_group_id(group())
            .with_topics(vec![
                offset_delete_request::OffsetDeleteRequestTopic::default()
                    .with_name(name)
                    .with_partitions(vec![Default::default()]),
            ])
            .into(),
        ApiKey::TxnOffsetCommit => TxnOffsetCommitRequest::default()
            .with_group_id(group())
            .with_topics(vec![
                TxnOffsetCommitRequestTopic::default()
                    .with_name(name)
                    .with_partitions(vec![TxnOffsetCommitRequestPartition::default()]),
            ])
            .into(),
        ApiKey::ListGroups => ListGroupsRequest::default().into(),
        _ => return None,
    })
}

/// A request that changes topic `t` or tells of its settings.
fn topic_request(api: ApiKey, version: i16) -> Option<RequestKind> {
    let name = topic();
    Some(match api {
        ApiKey::CreateTopics => CreateTopicsRequest::default()
            .with_topics(vec![
                CreatableTopic::default()
                    .with_name(TopicName(text("other")))
                    .with_num_partitions(1)
                    .with_replication_factor(1),
            ])
            .into(),
        ApiKey::DeleteTopics if version >= 6 => DeleteTopicsRequest::default()
            .with_topics(vec![
                delete_topics_request::DeleteTopicState::default().with_name(Some(topic())),
            ])
            .into(),
        ApiKey::DeleteTopics => DeleteTopicsRequest::default()
            .with_topic_names(vec![topic()])
            .into(),
        ApiKey::DeleteRecords => DeleteRecordsRequest::default()
            .with_topics(vec![
                delete_records_request::DeleteRecordsTopic::default()
                    .with_name(name)
                    .with_partitions(vec![
                        delete_records_request::DeleteRecordsPartition::default().with_offset(-1),
                    ]),
            ])
            .into(),
        ApiKey::CreatePartitions => CreatePartitionsRequest::default()
            .with_topics(vec![
                create_partitions_request::CreatePartitionsTopic::default()
                    .with_name(name)
                    .with_count(3)
                    .with_assignments(None),
            ])
            .into(),
        ApiKey::DescribeConfigs => DescribeConfigsRequest::default()
            .with_resources(vec![
                describe_configs_request::DescribeConfigsResource::default()
                    .with_resource_type(2)
                    .with_resource_name(text("t"))
                    .with_configuration_keys(None),
            ])
            .into(),
        _ => return None,
    })
}

fn served() -> impl Iterator<Item = (ApiKey, i16)> {
    let versions = KafkaRelease::V4.versions();
    let keys: Vec<_> = versions.iter().collect();
    keys.into_iter().flat_map(|(key, _, max)| {
        let api = ApiKey::try_from(key).unwrap();
        (api.valid_versions().min..=max).map(move |version| (api, version))
    })
}

fn reads_back(api: ApiKey, version: i16, response: &ResponseKind) {
    let mut bytes = BytesMut::new();
    let encoded = response.encode(&mut bytes, version);
    encoded.unwrap_or_else(|error| panic!("{api:?} v{version}: {error:#}\n{response:?}"));
    let mut bytes = bytes.freeze();
    ResponseKind::decode(api, &mut bytes, version).unwrap();
    assert!(bytes.is_empty(), "{api:?} v{version}: {} left", bytes.len());
}

fn body_of(request: &RequestKind, version: i16) -> Bytes {
    let by_hand = match request {
        RequestKind::OffsetCommit(commit) => commit.encode_by_hand(version),
        RequestKind::OffsetFetch(fetch) => fetch.encode_by_hand(version),
        _ => None,
    };
    let by_codec = || {
        let mut body = BytesMut::new();
        let encoded = request.encode(&mut body, version);
        encoded.map(|()| body.freeze()).map_err(|e| e.to_string())
    };
    let body = by_hand.unwrap_or_else(by_codec);
    body.unwrap_or_else(|error| panic!("v{version}: {error}\n{request:?}"))
}

/// Encoded, checked and decoded, so that what a version does not know is lost on the way.
fn sent(api: ApiKey, version: i16, id: Uuid) -> RequestKind {
    let mut bytes = BytesMut::new();
    let header_version = api.request_header_version(version);
    let request = request(api, version, id);
    let encoded = RequestHeader::default().encode(&mut bytes, header_version);
    encoded.unwrap_or_else(|error| panic!("{api:?} v{version}: {error:#}"));
    bytes.extend_from_slice(&body_of(&request, version));
    let sent = net::decode_request(api, version, &mut bytes.freeze());
    sent.unwrap_or_else(|error| panic!("{api:?} v{version}: {error}"))
        .1
}

#[tokio::test]
async fn every_version_of_every_api_is_answered() {
    for (api, version) in served() {
        let context = context();
        let id = {
            let mut cluster = context.shared.lock();
            cluster.state.create_topic("t", Some(2), None).unwrap().id
        };
        let answered = answer(&context, version, sent(api, version, id)).await;
        let answered = answered.unwrap_or_else(|| panic!("{api:?} v{version} is not answered"));
        reads_back(api, version, &answered);
    }
}

#[tokio::test]
async fn every_version_of_every_api_can_be_refused() {
    for (api, version) in served() {
        let context = context();
        let request = sent(api, version, Uuid::from_u128(1));
        let refused = error_response(&context, version, request, 15);
        let refused = refused.unwrap_or_else(|| panic!("{api:?} v{version} is not refused"));
        reads_back(api, version, &refused);
        let said = format!("{refused:?}");
        assert!(
            said.contains("error_code: 15"),
            "{api:?} v{version}: {said}"
        );
    }
}

#[tokio::test]
async fn the_answers_of_fetch_and_produce_agree() {
    let context = context();
    let id = {
        let mut cluster = context.shared.lock();
        cluster.state.create_topic("t", Some(1), None).unwrap().id
    };
    for version in 4..=18 {
        let produced = answer(&context, 9, sent(ApiKey::Produce, 9, id)).await;
        let Some(ResponseKind::Produce(produced)) = produced else {
            panic!("not produced");
        };
        let offset = produced.responses[0].partition_responses[0].base_offset;
        assert_eq!(offset, i64::from(version - 4) * 2);
        let fetched = answer(&context, version, sent(ApiKey::Fetch, version, id)).await;
        let Some(ResponseKind::Fetch(fetched)) = fetched else {
            panic!("not fetched");
        };
        let partition = &fetched.responses[0].partitions[0];
        assert_eq!(partition.error_code, 0, "v{version}");
        assert_eq!(partition.high_watermark, offset + 2);
        assert!(partition.records.as_ref().is_some_and(|r| !r.is_empty()));
        assert_eq!(fetched.session_id != 0, version >= 7);
    }
}

#[tokio::test(start_paused = true)]
async fn a_committed_offset_can_be_fetched_once_it_is_replicated() {
    const DELAY: Duration = Duration::from_secs(3600);
    let config = BrokerConfig {
        offset_commit_delay: DELAY,
        ..BrokerConfig::default()
    };
    let context = context_with(config);
    let id = {
        let mut cluster = context.shared.lock();
        cluster.state.create_topic("t", Some(2), None).unwrap().id
    };
    let fetched = async || {
        let answer = answer(&context, 7, sent(ApiKey::OffsetFetch, 7, id)).await;
        let Some(ResponseKind::OffsetFetch(response)) = answer else {
            panic!("not fetched");
        };
        response.topics[0].partitions[0].committed_offset
    };
    let commit = || answer(&context, 7, sent(ApiKey::OffsetCommit, 7, id));
    let mut first = Box::pin(commit());
    let waits = tokio::time::timeout(DELAY / 2, &mut first).await;
    assert!(waits.is_err(), "it is answered too early");
    assert_eq!(fetched().await, -1);
    first.await;
    assert_eq!(fetched().await, 5);
    // Not for a topic that takes the place of the one that it was for.
    let mut late = Box::pin(commit());
    let waits = tokio::time::timeout(DELAY / 2, &mut late).await;
    assert!(waits.is_err());
    {
        let mut cluster = context.shared.lock();
        cluster.delete_topic("t").unwrap();
        cluster.state.create_topic("t", Some(2), None).unwrap();
    }
    late.await;
    assert_eq!(fetched().await, -1);
}
