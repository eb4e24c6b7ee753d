//! Our consumers in groups, against real brokers.

use std::collections::BTreeMap;

use kafka_client::TopicPartition;
use kafka_client::config::{AssignorName, ConsumerConfig};
use kafka_client::consumer::{ConsumerEvent, FetchPosition};
use kafka_client::group::ConsumerError;
use tokio::time::timeout;

use crate::support::kafka::{Kafka, unique};
use crate::support::reader::{Process, subscription, until_assigned};
use crate::support::{PATIENCE, until};

fn patient() -> ConsumerConfig {
    ConsumerConfig::default()
}

/// Writes `count` numbered values, keyed, to all partitions.
fn produce(kafka: &Kafka, topic: &str, from: usize, count: usize) {
    let lines: String = (from..from + count)
        .map(|n| format!("k{n}:v{n}\n"))
        .collect();
    kafka.kcat(&["-P", "-t", topic, "-K", ":"], lines.as_bytes());
}

fn committed(kafka: &Kafka, group: &str, topic: &str) -> BTreeMap<i32, i64> {
    let out = kafka.java("Groups.java", &["offsets", group, topic]);
    let pair = |line: &str| {
        let (partition, offset) = line.split_once(' ').unwrap();
        (partition.parse().unwrap(), offset.parse().unwrap())
    };
    out.lines().map(pair).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_starts_at_the_beginning_and_resumes_at_its_committed_offset() {
    let kafka = Kafka::shared("4.4", 1);
    let (topic, group) = (unique("resume"), unique("group"));
    kafka.create_topic(&topic, 3, 1);
    produce(&kafka, &topic, 0, 300);
    let process = Process::new(kafka.bootstrap(), patient());
    let mut reader = process.reader(subscription(&group, &[&topic]));
    reader.until("all of it", |seen| seen.count() == 300).await;
    reader.close().await;
    let offsets = committed(&kafka, &group, &topic);
    assert_eq!(offsets.values().sum::<i64>(), 300, "{offsets:?}");

    produce(&kafka, &topic, 300, 30);
    let mut reader = process.reader(subscription(&group, &[&topic]));
    let seen = reader.until("the rest", |seen| seen.count() >= 30).await;
    assert_eq!(seen.count(), 30, "nothing twice");
    reader.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go_and_every_partition_is_owned_once() {
    let kafka = Kafka::shared("4.4", 1);
    let (topic, group) = (unique("share"), unique("group"));
    kafka.create_topic(&topic, 6, 1);
    produce(&kafka, &topic, 0, 600);
    let process = Process::new(kafka.bootstrap(), patient());
    let mut a = process.reader(subscription(&group, &[&topic]));
    a.until("all alone", |seen| {
        seen.owned.len() == 6 && seen.count() == 600
    })
    .await;
    let mut b = process.reader(subscription(&group, &[&topic]));
    until_assigned("two", &mut [&mut a, &mut b], 6, 3).await;
    let mut c = process.reader(subscription(&group, &[&topic]));
    until_assigned("three", &mut [&mut a, &mut b, &mut c], 6, 2).await;
    assert_eq!(a.seen.borrow().lost + b.seen.borrow().lost, 0);
    produce(&kafka, &topic, 600, 600);
    until("all have come", || {
        let counts = [&a, &b, &c].map(|reader| reader.seen.borrow().count());
        counts.iter().sum::<usize>() >= 1200
    })
    .await;
    b.close().await;
    until_assigned("two again", &mut [&mut a, &mut c], 6, 3).await;
    let a = a.close().await;
    c.until("the last", |seen| seen.owned.len() == 6).await;
    assert_eq!(
        a.assigned,
        1 + usize::from(a.assigned > 1),
        "a kept most of what it had"
    );
    c.close().await;
    let offsets = committed(&kafka, &group, &topic);
    assert_eq!(offsets.values().sum::<i64>(), 1200, "{offsets:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eager_group_shares_its_partitions_too() {
    let kafka = Kafka::shared("4.4", 1);
    let (topic, group) = (unique("eager"), unique("group"));
    kafka.create_topic(&topic, 5, 1);
    produce(&kafka, &topic, 0, 100);
    let config = ConsumerConfig {
        assignors: vec![AssignorName::Range],
        ..patient()
    };
    let process = Process::new(kafka.bootstrap(), config);
    let mut a = process.reader(subscription(&group, &[&topic]));
    a.until("all alone", |seen| {
        seen.owned.len() == 5 && seen.count() == 100
    })
    .await;
    let mut b = process.reader(subscription(&group, &[&topic]));
    until_assigned("two", &mut [&mut a, &mut b], 5, 2).await;
    a.close().await;
    let seen = b.until("b alone", |seen| seen.owned.len() == 5).await;
    assert_eq!(seen.count(), 0, "what a committed is not delivered again");
    b.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_consumer_with_the_same_instance_fences_the_first() {
    let kafka = Kafka::shared("4.4", 1);
    let (topic, group) = (unique("fence"), unique("group"));
    kafka.create_topic(&topic, 2, 1);
    let process = Process::new(kafka.bootstrap(), patient());
    let subscription = || {
        let mut subscription = subscription(&group, &[&topic]);
        subscription.instance_id = Some("i-1".into());
        subscription
    };
    let mut a = process.reader(subscription());
    a.until("owner", |seen| seen.owned.len() == 2).await;
    let mut b = process.reader(subscription());
    b.until("the new owner", |seen| seen.owned.len() == 2).await;
    let seen = a.until("fenced", |seen| seen.closed.is_some()).await;
    assert!(
        matches!(seen.closed, Some(ConsumerError::Fenced { .. })),
        "{seen:?}"
    );
    b.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_grows_is_assigned_again() {
    let kafka = Kafka::shared("4.4", 1);
    let (topic, group) = (unique("grow"), unique("group"));
    kafka.create_topic(&topic, 2, 1);
    let process = Process::new(kafka.bootstrap(), patient());
    let mut a = process.reader(subscription(&group, &[&topic]));
    let mut b = process.reader(subscription(&group, &[&topic]));
    until_assigned("two", &mut [&mut a, &mut b], 2, 1).await;
    kafka.java("Topics.java", &["grow", &topic, "6"]);
    produce(&kafka, &topic, 0, 60);
    let client = &process.client;
    client.cluster().metadata().refresh().await.unwrap();
    until_assigned("more for both", &mut [&mut a, &mut b], 6, 3).await;
    until("all have come", || {
        a.seen.borrow().count() + b.seen.borrow().count() >= 60
    })
    .await;
    let (a, b) = (a.close().await, b.close().await);
    assert_eq!((a.lost, b.lost), (0, 0));
    let offsets = committed(&kafka, &group, &topic);
    assert_eq!(offsets.values().sum::<i64>(), 60, "{offsets:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_created_again_is_read_whole() {
    for version in ["4.4", "3.9"] {
        let kafka = Kafka::shared(version, 1);
        let (topic, group) = (unique("recreated"), unique("group"));
        kafka.create_topic(&topic, 1, 1);
        produce(&kafka, &topic, 0, 5);
        let process = Process::new(kafka.bootstrap(), patient());
        let mut consumer = process.consumer(subscription(&group, &[&topic]));
        let tp = TopicPartition::new(&*topic, 0);
        let mut next = 0;
        while next < 5 {
            let event = timeout(PATIENCE, consumer.next()).await.unwrap();
            if let ConsumerEvent::Records(records) = event {
                next = records.chunk.next_offset;
            }
        }
        // Between delivery and commit.
        consumer.store_offset(&tp, at(next));
        kafka.java("Topics.java", &["delete", &topic]);
        kafka.create_topic(&topic, 1, 1);
        produce(&kafka, &topic, 0, 9);
        let committed_late = consumer.commit().await;
        assert!(committed_late.is_err(), "{version}: {committed_late:?}");
        consumer.close().await;
        let offsets = committed(&kafka, &group, &topic);
        assert!(!offsets.contains_key(&0), "{version}: {offsets:?}");

        let fresh = Process::new(kafka.bootstrap(), patient());
        let mut reader = fresh.reader(subscription(&group, &[&topic]));
        let seen = reader.until("all of it", |seen| seen.count() >= 9).await;
        let offsets: Vec<_> = seen.values[&tp].iter().map(|(offset, _)| *offset).collect();
        assert_eq!(offsets, (0..9).collect::<Vec<_>>(), "{version}");
        reader.close().await;
    }
}

fn at(offset: i64) -> FetchPosition {
    FetchPosition {
        offset,
        leader_epoch: 0,
    }
}
