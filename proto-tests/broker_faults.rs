//! What tests can make the in-memory broker and the relay do, seen from a bare socket.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_client::config::CompressionType;
use kafka_client::record::{BatchHeader, NewRecord, RecordBatchBuilder};
use kafka_client::{BrokerId, TopicPartition};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, StrBytes};
use memory_broker::{BrokerConfig, FaultAction, FaultRule, KafkaRelease, MemoryBroker};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::support::raw_client::{BrokerReply, RawClient, barrier};
use crate::support::relay::{Direction, Mode, Relay};
use crate::support::until;

fn name() -> TopicName {
    TopicName(StrBytes::from_static_str("t"))
}

fn metadata() -> MetadataRequest {
    let topic = MetadataRequestTopic::default().with_name(Some(name()));
    MetadataRequest::default()
        .with_topics(Some(vec![topic]))
        .with_allow_auto_topic_creation(false)
}

fn batch(records: usize, producer: (i64, i16, i32)) -> Bytes {
    let mut builder = RecordBatchBuilder::new(1 << 20);
    for n in 0..records {
        builder.append(&NewRecord {
            key: None,
            value: Some(b"value"),
            headers: &[],
            timestamp: 1_000 + n as i64,
        });
    }
    let mut batch = builder.build(CompressionType::None);
    batch.set_producer_state(producer.0, producer.1, producer.2);
    batch.bytes()
}

fn produce(batch: Bytes) -> ProduceRequest {
    ProduceRequest::default()
        .with_acks(-1)
        .with_topic_data(vec![
            TopicProduceData::default()
                .with_name(name())
                .with_partition_data(vec![
                    PartitionProduceData::default().with_records(Some(batch)),
                ]),
        ])
}

fn fetch(offset: i64, max_wait_ms: i32) -> FetchRequest {
    FetchRequest::default()
        .with_max_wait_ms(max_wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![
            FetchTopic::default()
                .with_topic(name())
                .with_partitions(vec![
                    FetchPartition::default()
                        .with_fetch_offset(offset)
                        .with_partition_max_bytes(1 << 20),
                ]),
        ])
}

fn join(member_id: StrBytes) -> JoinGroupRequest {
    JoinGroupRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str("g")))
        .with_session_timeout_ms(600_000)
        .with_rebalance_timeout_ms(600_000)
        .with_member_id(member_id)
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![
            JoinGroupRequestProtocol::default().with_name(StrBytes::from_static_str("range")),
        ])
}

fn tp() -> TopicPartition {
    TopicPartition::new("t", 0)
}

async fn broker(nodes: usize) -> MemoryBroker {
    let broker = MemoryBroker::start(BrokerConfig {
        nodes,
        ..BrokerConfig::default()
    })
    .await
    .unwrap();
    assert!(broker.create_topic("t", 1));
    broker
}

fn produced(response: &ProduceResponse) -> (i16, i64) {
    let partition = &response.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

fn fetched(response: &FetchResponse) -> (i16, usize) {
    let partition = &response.responses[0].partitions[0];
    let records = partition.records.as_ref().map_or(0, Bytes::len);
    (partition.error_code, records)
}

#[tokio::test]
async fn versions_are_told_in_version_zero_when_the_request_is_too_new() {
    let config = BrokerConfig {
        versions: KafkaRelease::V2_1.versions(),
        ..BrokerConfig::default()
    };
    let broker = MemoryBroker::start(config).await.unwrap();
    let mut client = RawClient::to(&broker, 1).await;
    client.send(3, &ApiVersionsRequest::default()).await;
    let BrokerReply::Response(1, mut body) = client.receive().await else {
        panic!("no response");
    };
    let response = ApiVersionsResponse::decode(&mut body, 0).unwrap();
    assert_eq!(response.error_code, 35);
    let fetch = response.api_keys.iter().find(|key| key.api_key == 1);
    assert_eq!(fetch.unwrap().max_version, 10);
    // any other API of an unknown version ends the connection
    client.send(13, &MetadataRequest::default()).await;
    assert_eq!(client.receive().await, BrokerReply::Closed(0));
}

#[tokio::test]
async fn a_request_waits_for_the_one_before_it_on_its_connection_only() {
    let broker = broker(1).await;
    let mut parked = RawClient::to(&broker, 1).await;
    parked.send(11, &fetch(0, 60_000)).await;
    parked.send(9, &metadata()).await;
    barrier(&broker).await;
    assert_eq!(parked.received_so_far().await, None);
    let mut other = RawClient::to(&broker, 1).await;
    other.call(9, &metadata()).await;
    let response = other.call(9, &produce(batch(1, (-1, -1, -1)))).await;
    assert_eq!(produced(&response), (0, 0));
    let woken = parked.receive().await;
    assert!(matches!(woken, BrokerReply::Response(1, _)), "{woken:?}");
    let next = parked.receive().await;
    assert!(matches!(next, BrokerReply::Response(2, _)), "{next:?}");
}

#[tokio::test]
async fn two_members_deadlock_on_one_connection_and_not_on_two() {
    let broker = broker(1).await;
    let mut first = RawClient::to(&broker, 1).await;
    let leader = first.call(3, &join(StrBytes::new())).await;
    assert_eq!((leader.error_code, leader.generation_id), (0, 1));
    let mut second = RawClient::to(&broker, 1).await;
    second.send(3, &join(StrBytes::new())).await;
    second.send(3, &join(leader.member_id.clone())).await;
    let members = || broker.group("g").unwrap().members.len();
    until("the second has joined", || members() == 2).await;
    barrier(&broker).await;
    assert_eq!(second.received_so_far().await, None);
    let rejoined = first.call(3, &join(leader.member_id)).await;
    assert_eq!((rejoined.generation_id, rejoined.members.len()), (2, 2));
    assert!(matches!(
        second.receive().await,
        BrokerReply::Response(1, _)
    ));
}

#[tokio::test]
async fn a_repeated_batch_is_answered_with_its_first_offset() {
    let broker = broker(1).await;
    let mut client = RawClient::to(&broker, 1).await;
    let request = InitProducerIdRequest::default().with_transactional_id(None);
    let id = client.call(4, &request).await;
    let producer = |sequence| (id.producer_id.0, id.producer_epoch, sequence);
    let mut answers = Vec::new();
    for (records, sequence) in [(3, 0), (2, 3), (3, 0), (1, 9), (1, 5)] {
        let request = produce(batch(records, producer(sequence)));
        answers.push(produced(&client.call(9, &request).await));
    }
    assert_eq!(answers, [(0, 0), (0, 3), (0, 0), (45, -1), (0, 5)]);
    assert_eq!(broker.offsets(&tp()), Some((0, 6)));
}

#[tokio::test]
async fn faults_do_what_they_say_as_often_as_they_say() {
    let broker = broker(1).await;
    let faults = broker.faults();
    let plain = || produce(batch(1, (-1, -1, -1)));
    let mut client = RawClient::to(&broker, 1).await;

    faults.add(FaultRule::on(ApiKey::Produce, FaultAction::Error(6)).times(2));
    client.call(9, &metadata()).await;
    assert_eq!(produced(&client.call(9, &plain()).await), (6, -1));
    assert_eq!(produced(&client.call(9, &plain()).await), (6, -1));
    assert_eq!(produced(&client.call(9, &plain()).await), (0, 0));

    faults.add(FaultRule::on(ApiKey::Produce, FaultAction::ErrorAfter(7)));
    assert_eq!(produced(&client.call(9, &plain()).await), (7, -1));
    assert_eq!(broker.offsets(&tp()), Some((0, 2)));

    faults.add(FaultRule::on(ApiKey::Produce, FaultAction::Throttle(50)));
    assert_eq!(client.call(9, &plain()).await.throttle_time_ms, 50);

    faults.add(FaultRule::on(
        ApiKey::Produce,
        FaultAction::WrongCorrelationId,
    ));
    client.send(9, &plain()).await;
    let BrokerReply::Response(wrong, _) = client.receive().await else {
        panic!("no answer");
    };
    assert_ne!(wrong, client.correlation_id);

    let garbage = Bytes::from_static(&[0, 0, 0, 5, 1, 2, 3, 4, 5]);
    faults.add(FaultRule::on(
        ApiKey::Produce,
        FaultAction::Garbage(garbage),
    ));
    client.send(9, &plain()).await;
    let garbled = BrokerReply::Response(0x0102_0304, Bytes::from_static(&[5]));
    assert_eq!(client.receive().await, garbled);
    assert_eq!(broker.offsets(&tp()), Some((0, 4)));

    let delay = Duration::from_millis(100);
    faults.add(FaultRule::on(ApiKey::Produce, FaultAction::Delay(delay)));
    let sent = Instant::now();
    assert_eq!(produced(&client.call(9, &plain()).await), (0, 4));
    assert!(sent.elapsed() >= delay);

    let release = CancellationToken::new();
    faults.add(FaultRule::on(
        ApiKey::Produce,
        FaultAction::Hold(release.clone()),
    ));
    client.send(9, &plain()).await;
    until("it is handled", || broker.offsets(&tp()) == Some((0, 6))).await;
    barrier(&broker).await;
    assert_eq!(client.received_so_far().await, None);
    release.cancel();
    assert_eq!(
        produced(&client.response::<ProduceRequest>(9).await),
        (0, 5)
    );

    faults.add(FaultRule::on(ApiKey::Produce, FaultAction::Truncated(10)));
    client.send(9, &plain()).await;
    assert_eq!(client.receive().await, BrokerReply::Closed(10));

    let mut end = 7;
    for (action, reply, appended) in [
        (FaultAction::CloseBefore, Some(BrokerReply::Closed(0)), 0),
        (FaultAction::CloseAfter, Some(BrokerReply::Closed(0)), 1),
        (FaultAction::Silence, None, 0),
        (FaultAction::SilenceAfter, None, 1),
    ] {
        let mut client = RawClient::to(&broker, 1).await;
        faults.add(FaultRule::on(ApiKey::Produce, action));
        client.send(9, &plain()).await;
        until("the fault is met", || faults.left() == 0).await;
        barrier(&broker).await;
        assert_eq!(client.received_so_far().await, reply);
        end += appended;
        assert_eq!(broker.offsets(&tp()), Some((0, end)));
    }
    assert_eq!(faults.left(), 0);
}

#[tokio::test]
async fn leaders_move_and_the_old_one_says_so() {
    let broker = broker(3).await;
    let (old, epoch) = broker.leader(&tp()).unwrap();
    let old = old.unwrap();
    let new = BrokerId(old.0 % 3 + 1);
    let mut client = RawClient::to(&broker, old.0).await;
    client.call(9, &produce(batch(1, (-1, -1, -1)))).await;
    // a long poll learns of it at once
    client.send(12, &fetch(1, 60_000)).await;
    assert!(broker.move_leader(&tp(), new));
    let response = client.response::<FetchRequest>(12).await;
    assert_eq!(fetched(&response).0, 6);
    let hint = &response.responses[0].partitions[0].current_leader;
    assert_eq!((hint.leader_id.0, hint.leader_epoch), (new.0, epoch + 1));
    let response = client.call(10, &produce(batch(1, (-1, -1, -1)))).await;
    assert_eq!(produced(&response).0, 6);
    assert_eq!(response.node_endpoints[0].node_id.0, new.0);
    let mut client = RawClient::to(&broker, new.0).await;
    let response = client.call(9, &produce(batch(1, (-1, -1, -1)))).await;
    assert_eq!(produced(&response), (0, 1));
}

#[tokio::test]
async fn a_stopped_node_comes_back_at_its_address_with_its_records() {
    let broker = broker(2).await;
    let node = broker.leader(&tp()).unwrap().0.unwrap();
    let mut client = RawClient::to(&broker, node.0).await;
    client.call(9, &produce(batch(2, (-1, -1, -1)))).await;
    client.send(11, &fetch(2, 60_000)).await;
    assert!(broker.stop_node(node).await);
    // perhaps after an answer that says that the leader moved
    while !matches!(client.receive().await, BrokerReply::Closed(_)) {}
    let address = broker.address(node).unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    assert_ne!(broker.leader(&tp()).unwrap().0, Some(node));

    broker.start_node(node).await.unwrap();
    assert!(broker.move_leader(&tp(), node));
    let mut client = RawClient::to(&broker, node.0).await;
    let response = client.call(11, &fetch(0, 0)).await;
    assert!(fetched(&response).1 > 0);
    assert_eq!(broker.requests(ApiKey::Produce), 1);
}

#[tokio::test]
async fn memory_is_bounded_by_dropping_the_oldest_records() {
    let config = BrokerConfig {
        memory: 100_000,
        ..BrokerConfig::default()
    };
    let broker = MemoryBroker::start(config).await.unwrap();
    assert!(broker.create_topic("t", 1));
    let mut client = RawClient::to(&broker, 1).await;
    for _ in 0..50 {
        client.call(9, &produce(batch(1_000, (-1, -1, -1)))).await;
        assert!(broker.memory_used() <= 100_000);
    }
    let (start, end) = broker.offsets(&tp()).unwrap();
    assert_eq!(end, 50_000);
    assert!(start > 40_000 && start < end);
    let response = client.call(11, &fetch(0, 1_000)).await;
    assert_eq!(fetched(&response), (1, 0));
    let response = client.call(11, &fetch(start, 1_000)).await;
    assert!(fetched(&response).1 > 0);
}

#[tokio::test]
async fn an_aborted_transaction_is_named_to_who_reads_committed_records() {
    let broker = broker(1).await;
    let mut bytes = batch(2, (7, 0, 0)).to_vec();
    let mut header = BatchHeader::parse(&bytes).unwrap();
    header.attributes = header.attributes.with_transactional(true);
    header.write(&mut bytes);
    assert_eq!(broker.append(&tp(), &bytes), Some(0));
    let mut client = RawClient::to(&broker, 1).await;
    client.call(9, &produce(batch(1, (-1, -1, -1)))).await;
    let committed = |offset| fetch(offset, 0).with_isolation_level(1);
    let response = client.call(11, &committed(0)).await;
    assert_eq!(fetched(&response), (0, 0));
    assert_eq!(response.responses[0].partitions[0].last_stable_offset, 0);
    broker.end_transaction(&tp(), 7, 0, false);
    let response = client.call(11, &committed(0)).await;
    let partition = &response.responses[0].partitions[0];
    assert!(fetched(&response).1 > 0);
    assert_eq!(
        (partition.last_stable_offset, partition.high_watermark),
        (4, 4)
    );
    let aborted = &partition.aborted_transactions.as_ref().unwrap()[0];
    assert_eq!((aborted.producer_id.0, aborted.first_offset), (7, 0));
}

#[tokio::test]
async fn the_relay_cuts_within_a_frame_in_either_direction() {
    let broker = broker(1).await;
    let address = broker.address(BrokerId(1)).unwrap();
    let relay = Relay::start(address).await;
    let mut client = RawClient::connect(relay.address()).await;
    client.call(9, &metadata()).await;

    relay.cut_after(Direction::Down, 10);
    client.send(9, &metadata()).await;
    assert_eq!(client.receive().await, BrokerReply::Closed(10));

    let mut client = RawClient::connect(relay.address()).await;
    let before = broker.requests(ApiKey::Metadata);
    relay.cut_after(Direction::Up, 10);
    client.send(9, &metadata()).await;
    assert_eq!(client.receive().await, BrokerReply::Closed(0));
    assert_eq!(broker.requests(ApiKey::Metadata), before);
}

#[tokio::test]
async fn the_relay_goes_silent_slow_half_closed_or_away_and_comes_back() {
    let broker = broker(1).await;
    let address = broker.address(BrokerId(1)).unwrap();
    let relay = Relay::start(address).await;
    broker.advertise(BrokerId(1), relay.address());
    let mut client = RawClient::connect(relay.address()).await;
    let response = client.call(9, &metadata()).await;
    assert_eq!(response.brokers[0].port, i32::from(relay.address().port()));

    relay.set(Mode::Silent);
    client.send(9, &metadata()).await;
    barrier(&broker).await;
    assert_eq!(client.received_so_far().await, None);
    relay.set(Mode::Pass);
    client.response::<MetadataRequest>(9).await;

    let passed = || [Direction::Up, Direction::Down].map(|way| relay.passed(way));
    let before = passed();
    relay.set(Mode::Slow(200));
    let sent = Instant::now();
    client.call(9, &metadata()).await;
    let took = sent.elapsed();
    // Twenty bytes each way in a tenth of a second; the last ones need not wait.
    let waits: u64 = (0..2)
        .map(|way| (passed()[way] - before[way] - 1) / 20)
        .sum();
    assert!(waits > 0 && took >= Duration::from_millis(100 * waits));
    relay.set(Mode::Pass);

    let mut client = RawClient::connect(relay.address()).await;
    client.call(9, &metadata()).await;
    relay.half_close(Direction::Down);
    assert_eq!(client.receive().await, BrokerReply::Closed(0));
    let requests = broker.requests(ApiKey::Metadata);
    client.send(9, &metadata()).await;
    until("the other direction still works", || {
        broker.requests(ApiKey::Metadata) > requests
    })
    .await;

    let mut client = RawClient::connect(relay.address()).await;
    client.call(9, &metadata()).await;
    relay.set(Mode::Refuse);
    assert_eq!(client.receive().await, BrokerReply::Closed(0));
    let mut refused = RawClient::connect(relay.address()).await;
    assert_eq!(refused.receive().await, BrokerReply::Closed(0));
    relay.set(Mode::Pass);
    let mut client = RawClient::connect(relay.address()).await;
    client.call(9, &metadata()).await;
}
