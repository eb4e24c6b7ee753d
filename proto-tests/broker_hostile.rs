//! What a client of the in-memory broker cannot do to it, or to other clients.

use std::collections::BTreeSet;

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{StrBytes, encode_request_header_into_buffer};
use memory_broker::{BrokerConfig, KafkaRelease, MemoryBroker};

use crate::support::raw_client::{BrokerReply, RawClient, barrier};

async fn broker() -> MemoryBroker {
    let broker = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
    assert!(broker.create_topic("t", 1));
    broker
}

fn topic() -> MetadataRequestTopic {
    let name = TopicName(StrBytes::from_static_str("t"));
    MetadataRequestTopic::default().with_name(Some(name))
}

fn metadata() -> MetadataRequest {
    MetadataRequest::default().with_topics(Some(vec![topic()]))
}

/// A frame with a header that is as it should be.
fn frame(api: ApiKey, version: i16, body: &[u8]) -> BytesMut {
    let header = RequestHeader::default()
        .with_request_api_key(api as i16)
        .with_request_api_version(version)
        .with_correlation_id(1);
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    encode_request_header_into_buffer(&mut frame, &header).unwrap();
    frame.extend_from_slice(body);
    let length = frame.len() as u32 - 4;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// Of each API a version with compact lengths, and how many bytes stand before its first
/// count: of an array, or where there is none of a string or of the tagged fields.
const FIRST_COUNTS: [(ApiKey, i16, usize); 28] = [
    (ApiKey::Produce, 9, 7),
    (ApiKey::Fetch, 12, 25),
    (ApiKey::ListOffsets, 6, 5),
    (ApiKey::Metadata, 9, 0),
    (ApiKey::OffsetCommit, 8, 7),
    (ApiKey::OffsetFetch, 8, 0),
    (ApiKey::FindCoordinator, 4, 1),
    (ApiKey::JoinGroup, 6, 12),
    (ApiKey::Heartbeat, 4, 0),
    (ApiKey::LeaveGroup, 4, 1),
    (ApiKey::SyncGroup, 4, 7),
    (ApiKey::DescribeGroups, 5, 0),
    (ApiKey::ListGroups, 4, 0),
    (ApiKey::ApiVersions, 3, 0),
    (ApiKey::CreateTopics, 5, 0),
    (ApiKey::DeleteTopics, 4, 0),
    (ApiKey::DeleteRecords, 2, 0),
    (ApiKey::InitProducerId, 2, 0),
    (ApiKey::AddPartitionsToTxn, 4, 0),
    (ApiKey::EndTxn, 3, 0),
    (ApiKey::DescribeTransactions, 0, 0),
    (ApiKey::ListTransactions, 0, 0),
    (ApiKey::OffsetForLeaderEpoch, 4, 4),
    (ApiKey::DescribeConfigs, 4, 0),
    (ApiKey::CreatePartitions, 2, 0),
    (ApiKey::DeleteGroups, 2, 0),
    // It has only long ones: of its string, which is cut off.
    (ApiKey::OffsetDelete, 0, 2),
    (ApiKey::DescribeCluster, 0, 1),
];

/// Without the check of requests the first of these ends the process.
#[tokio::test]
async fn an_absurd_count_in_any_api_closes_that_connection_only() {
    let broker = broker().await;
    let mut other = RawClient::to(&broker, 1).await;
    let parked = FetchRequest::default()
        .with_max_wait_ms(600_000)
        .with_min_bytes(1)
        .with_session_epoch(-1)
        .with_topics(vec![
            fetch_request::FetchTopic::default()
                .with_topic(TopicName(StrBytes::from_static_str("t")))
                .with_partitions(vec![Default::default()]),
        ]);
    let mut waiting = RawClient::to(&broker, 1).await;
    waiting.send(11, &parked).await;
    let mut tried = BTreeSet::new();
    for (api, version, at) in FIRST_COUNTS {
        for absurd in [&b"\xff\xff\xff\xff\x0f"[..], b"\xff\xff\xff\xff\x07"] {
            // An empty string, or a part of a number.
            let mut body = vec![1; at];
            body.extend_from_slice(absurd);
            body.extend_from_slice(&[1; 64]);
            let mut hostile = RawClient::to(&broker, 1).await;
            hostile.send_raw(&frame(api, version, &body)).await;
            assert_eq!(hostile.receive().await, BrokerReply::Closed(0), "{api:?}");
            let answer = other.call(9, &metadata()).await;
            assert_eq!(answer.topics[0].error_code, 0, "{api:?}");
        }
        tried.insert(api as i16);
    }
    let served = KafkaRelease::V4.versions();
    let served: BTreeSet<i16> = served.iter().map(|(key, ..)| key).collect();
    assert_eq!(tried, served);
    assert!(broker.delete_topic("t"));
    let woken = waiting.response::<FetchRequest>(11).await;
    assert_eq!(woken.responses[0].partitions[0].error_code, 3);
}

#[tokio::test]
async fn an_absurd_length_or_header_closes_that_connection_only() {
    let broker = broker().await;
    let mut other = RawClient::to(&broker, 1).await;
    let mut tags = BytesMut::from(&b"\0\0\0\x10\0\x12\0\x03\0\0\0\x01\xff\xff"[..]);
    tags.put_slice(b"\xff\xff\xff\xff\x0f\0");
    for hostile in [
        &b"\x7f\xff\xff\xff"[..],
        b"\xff\xff\xff\xff",
        b"\0\0\0\0",
        // A client id of 32767 bytes, and one of -2.
        b"\0\0\0\x0a\0\x12\0\0\0\0\0\x01\x7f\xff",
        b"\0\0\0\x0a\0\x12\0\0\0\0\0\x01\xff\xfe",
        &tags,
    ] {
        let mut client = RawClient::to(&broker, 1).await;
        client.send_raw(hostile).await;
        assert_eq!(client.receive().await, BrokerReply::Closed(0));
        other.call(9, &metadata()).await;
    }
}

#[tokio::test]
async fn a_large_request_that_stalls_holds_up_other_large_ones_only_while_it_is_there() {
    let config = BrokerConfig {
        requests_memory: 2 << 20,
        ..BrokerConfig::default()
    };
    let broker = MemoryBroker::start(config).await.unwrap();
    let mut stalling = RawClient::to(&broker, 1).await;
    let large = vec![0; 2 << 20];
    stalling
        .send_raw(&frame(ApiKey::Produce, 9, &large)[..100])
        .await;
    let mut other = RawClient::to(&broker, 1).await;
    other.call(9, &metadata()).await;
    let records = produce_request::PartitionProduceData::default().with_records(Some(large.into()));
    let topic = produce_request::TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_static_str("t")))
        .with_partition_data(vec![records]);
    let produce = ProduceRequest::default()
        .with_acks(-1)
        .with_topic_data(vec![topic]);
    let mut waiting = RawClient::to(&broker, 1).await;
    // Sent whole only once somebody reads it.
    tokio::join!(waiting.send(9, &produce), async {
        barrier(&broker).await;
        assert_eq!(broker.requests(ApiKey::Produce), 0);
        drop(stalling);
    });
    let refused = waiting.response::<ProduceRequest>(9).await;
    let code = refused.responses[0].partition_responses[0].error_code;
    assert_ne!(code, 0, "that was no batch");
    other.call(9, &metadata()).await;
}
