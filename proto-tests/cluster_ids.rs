//! A cluster that is replaced by another one at the same address (`docker compose down -v && up`):
//! nothing that the old one issued is used in the new one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kafka_client::client::Client;
use kafka_client::config::{ClientConfig, ProducerConfig};
use kafka_client::metadata::TopicMetadata;
use kafka_client::record::{DecodeOptions, NewRecord, decode};
use kafka_client::{
    BrokerId, Cluster, DeliveryFuture, Principal, ProduceError, RecordMetadata, TopicPartition,
};
use memory_broker::{ApiKey, BrokerConfig, FaultAction, FaultRule, KafkaRelease, MemoryBroker};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::group_faults::{GroupFixture, quick};
use crate::support::kafka::Kafka;
use crate::support::reader::{Process, subscription};
use crate::support::relay::{Direction, Mode, Relay};
use crate::support::{PATIENCE, until};

/// Without cluster ids in DescribeCluster and without topic ids; without topic ids in requests;
/// with all of them.
const RELEASES: [KafkaRelease; 3] = [KafkaRelease::V2_1, KafkaRelease::V2_8, KafkaRelease::V4];

async fn start(release: KafkaRelease, cluster_id: &str, port: u16) -> MemoryBroker {
    let config = BrokerConfig {
        versions: release.versions(),
        cluster_id: cluster_id.to_owned(),
        port,
        ..BrokerConfig::default()
    };
    MemoryBroker::start(config).await.unwrap()
}

fn port_of(broker: &MemoryBroker) -> u16 {
    let address: SocketAddr = broker.bootstrap().parse().unwrap();
    address.port()
}

/// A process that gives up nothing during a test, and is quick.
fn process(bootstrap: &str) -> Client {
    let config = ClientConfig {
        bootstrap_servers: bootstrap.split(',').map(str::to_owned).collect(),
        retry_backoff: Duration::from_millis(5),
        retry_backoff_max: Duration::from_millis(50),
        reconnect_backoff: Duration::from_millis(5),
        reconnect_backoff_max: Duration::from_millis(50),
        ..ClientConfig::default()
    };
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let cluster = Cluster::new(config, Principal::Proxy, tasks, stop);
    Client::new(cluster, ProducerConfig::default(), quick())
}

async fn topic(client: &Client) -> Arc<TopicMetadata> {
    let described = client.cluster().metadata().topic("t");
    timeout(PATIENCE, described).await.unwrap().unwrap()
}

async fn send(client: &Client, topic: &Arc<TopicMetadata>, value: &str) -> DeliveryFuture {
    let record = NewRecord {
        key: None,
        value: Some(value.as_bytes()),
        headers: &[],
        timestamp: 1,
    };
    let sent = client.producer().send(topic, Some(0), &record);
    timeout(PATIENCE, sent).await.unwrap().unwrap()
}

async fn settled(delivery: DeliveryFuture) -> Result<RecordMetadata, ProduceError> {
    timeout(PATIENCE, delivery).await.expect("a result")
}

/// The values of the log, and the producer id and epoch of each.
fn log(broker: &MemoryBroker) -> Vec<(String, i64, i16)> {
    let batches = broker.batches(&TopicPartition::new("t", 0));
    let decoded = decode(batches.clone(), &DecodeOptions::from_offset(0)).unwrap();
    let values = decoded
        .records()
        .map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap());
    // Each record has a batch of its own: length at 8, producer id at 43, epoch at 51.
    let mut headers = Vec::new();
    let mut rest = &batches[..];
    while rest.len() > 61 {
        let length = u32::from_be_bytes(rest[8..12].try_into().unwrap()) as usize;
        let id = i64::from_be_bytes(rest[43..51].try_into().unwrap());
        let epoch = i16::from_be_bytes(rest[51..53].try_into().unwrap());
        headers.push((id, epoch));
        rest = &rest[12 + length..];
    }
    values
        .zip(headers)
        .map(|(value, (id, epoch))| (value, id, epoch))
        .collect()
}

#[tokio::test]
async fn a_producer_that_knew_another_cluster_takes_no_other_producers_place() {
    for release in RELEASES {
        let old = start(release, "old", 0).await;
        assert!(old.create_topic("t", 1));
        let ours = process(&old.bootstrap());
        let topic_before = topic(&ours).await;
        for n in 0..3 {
            let delivery = send(&ours, &topic_before, &format!("old {n}")).await;
            settled(delivery).await.unwrap();
        }
        let producer_id = log(&old)[0].1;
        let port = port_of(&old);
        old.stop().await;

        let new = start(release, "new", port).await;
        assert!(new.create_topic("t", 1));
        let others = process(&new.bootstrap());
        let others_topic = topic(&others).await;
        for n in 0..5 {
            let delivery = send(&others, &others_topic, &format!("other {n}")).await;
            settled(delivery).await.unwrap();
        }
        assert_eq!(log(&new)[0].1, producer_id, "issued again");

        // Under the old id it would be the next in turn there: a duplicate.
        let sent = settled(send(&ours, &topic_before, "ours").await).await;
        let sent = sent.unwrap_or_else(|error| panic!("{release:?}: {error}"));
        let after = settled(send(&others, &others_topic, "other 5").await)
            .await
            .unwrap();
        let log = log(&new);
        let at = |offset: i64| &log[usize::try_from(offset).unwrap()];
        assert_eq!(at(sent.offset).0, "ours", "{release:?}: {log:?}");
        assert_eq!(at(after.offset).0, "other 5", "{release:?}: {log:?}");
        for (value, id, epoch) in &log {
            assert_eq!(value != "ours", *id == producer_id, "{release:?}: {log:?}");
            assert_eq!(*epoch, 0, "{release:?}: {log:?}");
        }
    }
}

#[tokio::test]
async fn what_the_old_cluster_may_have_taken_has_an_unknown_outcome_and_nothing_else() {
    for release in RELEASES {
        let old = start(release, "old", 0).await;
        assert!(old.create_topic("t", 1));
        let ours = process(&old.bootstrap());
        let topic = topic(&ours).await;
        settled(send(&ours, &topic, "old").await).await.unwrap();
        let silence = FaultRule::on(ApiKey::Produce, FaultAction::SilenceAfter);
        old.faults().add(silence.always());
        let in_flight = send(&ours, &topic, "in flight").await;
        until("it is written", || log(&old).len() == 2).await;
        let port = port_of(&old);
        old.stop().await;
        let queued = send(&ours, &topic, "queued").await;

        let new = start(release, "new", port).await;
        assert!(new.create_topic("t", 1));
        let unknown = settled(in_flight).await.unwrap_err();
        assert!(unknown.outcome_unknown(), "{release:?}: {unknown}");
        let queued = settled(queued).await.unwrap();
        assert_eq!(queued.offset, 0, "{release:?}");
        let log: Vec<_> = log(&new).into_iter().map(|(value, ..)| value).collect();
        assert_eq!(log, ["queued"], "{release:?}");
    }
}

#[tokio::test]
async fn a_group_reads_a_cluster_that_replaced_another_from_its_reset_policy() {
    for release in RELEASES {
        let old = start(release, "old", 0).await;
        let tp = TopicPartition::new("t", 0);
        assert!(old.create_topic("t", 1));
        let ours = Process::new(&old.bootstrap(), quick());
        GroupFixture::produce_by(&ours, &tp, 5).await;
        let mut reader = ours.reader(subscription("g", &["t"]));
        reader
            .until("the old records", |seen| seen.count() == 5)
            .await;
        until("committed", || old.committed("g", &tp) == Some(5)).await;
        let port = port_of(&old);
        old.stop().await;

        let new = start(release, "new", port).await;
        assert!(new.create_topic("t", 1));
        // More than there were: an old offset would be in range.
        let others = Process::new(&new.bootstrap(), quick());
        GroupFixture::produce_by(&others, &tp, 8).await;
        let seen = reader.until("the new records", |seen| {
            seen.closed.is_some() || seen.count() >= 5 + 8
        });
        let seen = seen.await;
        assert_eq!(seen.closed, None, "{release:?}");
        let offsets: Vec<i64> = seen.values[&tp].iter().map(|(offset, _)| *offset).collect();
        assert_eq!(
            offsets,
            [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6, 7],
            "{release:?}"
        );
        until("committed anew", || new.committed("g", &tp) == Some(8)).await;
        reader.close().await;
        assert_eq!(new.committed("g", &tp), Some(8), "{release:?}");
    }
}

#[tokio::test]
async fn a_bootstrap_address_of_another_cluster_is_not_used_when_the_known_one_is_away() {
    let known = start(KafkaRelease::V4, "known", 0).await;
    let stray = start(KafkaRelease::V4, "stray", 0).await;
    for broker in [&known, &stray] {
        assert!(broker.create_topic("t", 1));
    }
    let bootstrap = format!("{},{}", known.bootstrap(), stray.bootstrap());
    let ours = process(&bootstrap);
    let topic = topic(&ours).await;
    settled(send(&ours, &topic, "before").await).await.unwrap();
    let port = port_of(&known);
    known.stop().await;
    let waits = send(&ours, &topic, "waits").await;
    until("the other address is asked", || {
        stray.requests(ApiKey::Metadata) >= 3
    })
    .await;
    let known = start(KafkaRelease::V4, "known", port).await;
    assert!(known.create_topic("t", 1));
    settled(waits).await.unwrap();
    assert_eq!(log(&known).len(), 1);
    assert_eq!(log(&stray), []);
    assert_eq!(stray.requests(ApiKey::Produce), 0);
    assert_eq!(stray.requests(ApiKey::InitProducerId), 0);
}

/// A relay that leads to the broker.
async fn relay_to(broker: &MemoryBroker) -> Relay {
    Relay::start(broker.bootstrap().parse().unwrap()).await
}

#[tokio::test]
async fn a_successor_is_found_at_a_bootstrap_address_that_was_not_needed_before() {
    let old = start(KafkaRelease::V4, "old", 0).await;
    assert!(old.create_topic("t", 1));
    let second = relay_to(&old).await;
    let ours = process(&format!("{},{}", old.bootstrap(), second.address()));
    let topic = topic(&ours).await;
    settled(send(&ours, &topic, "old").await).await.unwrap();
    until("the second address is asked", || {
        second.passed(Direction::Down) > 0
    })
    .await;
    // Nobody comes back to the first one.
    old.stop().await;
    let new = start(KafkaRelease::V4, "new", 0).await;
    assert!(new.create_topic("t", 1));
    second.lead_to(new.bootstrap().parse().unwrap());
    settled(send(&ours, &topic, "new").await).await.unwrap();
    let log: Vec<_> = log(&new).into_iter().map(|(value, ..)| value).collect();
    assert_eq!(log, ["new"]);
}

#[tokio::test]
async fn a_cluster_that_still_answers_at_one_address_is_not_left_for_one_at_another() {
    let known = start(KafkaRelease::V4, "known", 0).await;
    let stray = start(KafkaRelease::V4, "stray", 0).await;
    for broker in [&known, &stray] {
        assert!(broker.create_topic("t", 1));
    }
    let advertised = relay_to(&known).await;
    known.advertise(BrokerId(1), advertised.address());
    let (first, second) = (relay_to(&known).await, relay_to(&known).await);
    let ours = process(&format!("{},{}", first.address(), second.address()));
    let topic = topic(&ours).await;
    settled(send(&ours, &topic, "before").await).await.unwrap();
    until("the second address is asked", || {
        second.passed(Direction::Down) > 0
    })
    .await;
    // The broker cannot be reached where it is advertised; another has the first address by now.
    first.lead_to(stray.bootstrap().parse().unwrap());
    first.cut();
    advertised.set(Mode::Refuse);
    let waits = send(&ours, &topic, "waits").await;
    until("the first address is asked", || {
        stray.requests(ApiKey::Metadata) >= 3
    })
    .await;
    advertised.set(Mode::Pass);
    settled(waits).await.unwrap();
    assert_eq!(log(&known).len(), 2);
    assert_eq!(log(&stray), []);
}

#[tokio::test]
async fn records_for_a_real_cluster_that_was_replaced_are_where_they_are_said_to_be() {
    let relay = Relay::start(SocketAddr::from(([127, 0, 0, 1], 1))).await;
    let advertised = format!("advertised.listeners=PLAINTEXT://{}", relay.address());
    let start = || {
        let advertised = advertised.clone();
        tokio::task::spawn_blocking(move || Kafka::start("4.4.0", 1, &[&advertised]))
    };
    // A restarted controller hands out ids in blocks: two clusters of the same age give the same.
    let old = start().await.unwrap();
    relay.lead_to(old.bootstrap().parse().unwrap());
    create_topic(&relay).await;
    let tp = TopicPartition::new("t", 0);
    let ours = Process::new(&relay.address().to_string(), quick());
    GroupFixture::produce_by(&ours, &tp, 5).await;
    let mut reader = ours.reader(subscription("g", &["t"]));
    reader
        .until("the old records", |seen| seen.count() == 5)
        .await;
    relay.set(Mode::Refuse);
    drop(old);

    let new = start().await.unwrap();
    relay.lead_to(new.bootstrap().parse().unwrap());
    // For the others first.
    let others_relay = Relay::start(relay.address()).await;
    relay.set(Mode::Pass);
    create_topic(&relay).await;
    let others = Process::new(&others_relay.address().to_string(), quick());
    GroupFixture::produce_by(&others, &tp, 8).await;
    let client = &ours.client;
    let topic = topic(client).await;
    let sent = settled(send(client, &topic, "ours").await).await.unwrap();
    let seen = reader.until("the new records", |seen| {
        seen.closed.is_some() || seen.count() >= 5 + 9
    });
    let seen = seen.await;
    assert_eq!(seen.closed, None);
    let new_records = &seen.values[&tp][5..];
    let offsets: Vec<i64> = new_records.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(
        new_records.contains(&(sent.offset, "ours".to_owned())),
        "{sent:?}: {seen:?}"
    );
    reader.close().await;
}

/// By the admin client, through the relay.
async fn create_topic(relay: &Relay) {
    let bootstrap = relay.address().to_string();
    let create =
        move || crate::support::kafka::java(&bootstrap, "Topics.java", &["create", "t", "1", "1"]);
    tokio::task::spawn_blocking(create).await.unwrap();
}
