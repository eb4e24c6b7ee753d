//! The transactional producer against Apache Kafka; librdkafka (kcat) reads what is committed.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kafka_client::config::{ClientConfig, CompressionType, ProducerConfig};
use kafka_client::metadata::TopicMetadata;
use kafka_client::producer::{
    FrameDelivery, TransactionError, TransactionFrame, TransactionalConfig, TransactionalProducer,
};
use kafka_client::record::{NewHeader, NewRecord};
use kafka_client::{Cluster, Principal, ProduceError};
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::PATIENCE;
use crate::support::kafka::{Kafka, unique};

async fn within<T>(what: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(PATIENCE, what).await;
    result.expect("within the limit")
}

async fn kafka(version: &str, brokers: u8, settings: &'static [&'static str]) -> Arc<Kafka> {
    let version = version.to_owned();
    let start = move || match settings {
        [] => Kafka::shared(&version, brokers),
        _ => Arc::new(Kafka::start(&version, brokers, settings)),
    };
    tokio::task::spawn_blocking(start).await.unwrap()
}

fn cluster(kafka: &Kafka) -> Cluster {
    let client = ClientConfig {
        bootstrap_servers: kafka.bootstrap().split(',').map(str::to_owned).collect(),
        ..ClientConfig::default()
    };
    let tasks = TaskTracker::new();
    Cluster::new(client, Principal::Proxy, tasks, CancellationToken::new())
}

async fn open(cluster: &Cluster, id: &str) -> TransactionalProducer {
    let config = ProducerConfig {
        compression: CompressionType::Lz4,
        ..ProducerConfig::default()
    };
    let transactional = TransactionalConfig {
        transactional_id: id.into(),
        transaction_timeout: Duration::from_secs(15),
    };
    let opened = TransactionalProducer::open(cluster.clone(), &config, transactional);
    within(opened).await.unwrap()
}

/// One record in each of three partitions.
fn frame(topic: &Arc<TopicMetadata>, value: &str) -> TransactionFrame {
    let mut frame = TransactionFrame::default();
    for partition in 0..3 {
        let record = NewRecord {
            key: Some(b"k"),
            value: Some(value.as_bytes()),
            headers: &[NewHeader {
                key: "h",
                value: None,
            }],
            timestamp: 1_700_000_000_000,
        };
        frame.push(topic, Some(partition), &record);
    }
    frame
}

async fn all_written(deliveries: impl IntoIterator<Item = FrameDelivery>) {
    for delivery in deliveries {
        within(delivery).await.unwrap();
    }
}

/// What readers of committed data get of a partition. It has an end only if no transaction is
/// open in it.
fn committed(kafka: &Kafka, topic: &str, partition: &str) -> Vec<String> {
    let options = [
        "-C",
        "-t",
        topic,
        "-p",
        partition,
        "-o",
        "beginning",
        "-e",
        "-X",
        "isolation.level=read_committed",
        "-f",
        "%s\n",
    ];
    let text = String::from_utf8(kafka.kcat(&options, b"")).unwrap();
    text.lines().map(str::to_owned).collect()
}

async fn frames_are_written_whole_or_not_at_all(version: &str) {
    let kafka = kafka(version, 1, &["message.max.bytes=20000"]).await;
    let topic_name = unique("transactions");
    kafka.create_topic(&topic_name, 3, 1);
    let cluster = cluster(&kafka);
    let topic = within(cluster.metadata().topic(&topic_name)).await.unwrap();
    let producer = open(&cluster, &topic_name).await;
    let large: String = (0..9_000u32)
        .map(|n| format!("{:08x}", n.wrapping_mul(2_654_435_761)))
        .collect();
    let mut expected = Vec::new();
    for round in 0..20 {
        let mut deliveries = Vec::new();
        let mut faulty = Vec::new();
        for n in 0..20 {
            let value = format!("{round}-{n}");
            if n == 7 && round % 5 == 0 {
                let mut frame = frame(&topic, &value);
                let record = NewRecord {
                    key: None,
                    value: Some(large.as_bytes()),
                    headers: &[],
                    timestamp: 1_700_000_000_000,
                };
                frame.push(&topic, Some(1), &record);
                faulty.extend(producer.send(frame));
                continue;
            }
            deliveries.extend(producer.send(frame(&topic, &value)));
            expected.push(value);
        }
        all_written(deliveries).await;
        for (delivery, n) in faulty.into_iter().zip(0..) {
            match (n, within(delivery).await) {
                (3, Err(ProduceError::TooLarge { limit: None, .. })) => {}
                (0..3, Err(ProduceError::Aborted { .. })) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    // What is open when a newer producer comes is aborted, and the older one is fenced.
    let newer = open(&cluster, &topic_name).await;
    for delivery in producer.send(frame(&topic, "fenced")) {
        let delivered = within(delivery).await;
        assert!(
            matches!(delivered, Err(ProduceError::Fenced { .. })),
            "{delivered:?}"
        );
    }
    let failed = within(producer.failed()).await;
    assert!(
        matches!(failed, TransactionError::Fenced { .. }),
        "{failed}"
    );
    let last = newer.send(frame(&topic, "last"));
    within(newer.close()).await;
    all_written(last).await;
    expected.push("last".to_owned());
    if version != "2.8" {
        kafka.java("OpenTransactions.java", &[]);
    }
    for partition in ["0", "1", "2"] {
        assert_eq!(committed(&kafka, &topic_name, partition), expected);
    }
    cluster.stop().cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_are_written_whole_or_not_at_all_to_kafka_4_4() {
    frames_are_written_whole_or_not_at_all("4.4").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_are_written_whole_or_not_at_all_to_kafka_3_9() {
    frames_are_written_whole_or_not_at_all("3.9").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_are_written_whole_or_not_at_all_to_kafka_2_8() {
    frames_are_written_whole_or_not_at_all("2.8").await;
}

/// Leaders and coordinators die and come back while frames are written.
async fn frames_survive_the_death_of_each_broker(version: &str) {
    const EACH: usize = 1_000;
    const IN_FLIGHT: usize = 100;

    let kafka = kafka(version, 3, &["replica.lag.time.max.ms=5000"]).await;
    let topic_name = unique("transactions");
    kafka.create_topic(&topic_name, 3, 3);
    let cluster = cluster(&kafka);
    let topic = within(cluster.metadata().topic(&topic_name)).await.unwrap();
    let ids: Vec<String> = (0..3).map(|n| format!("{topic_name}-{n}")).collect();
    let mut producers = Vec::new();
    for id in &ids {
        producers.push(open(&cluster, id).await);
    }
    let mut pending = VecDeque::new();
    for round in 0..=3u8 {
        for n in 0..EACH {
            if n == EACH / 10 && round > 0 {
                block_in_place(|| kafka.kill(round));
            }
            for (producer, id) in producers.iter().zip(0..) {
                let value = format!("{id} {:05}", usize::from(round) * EACH + n);
                pending.extend(producer.send(frame(&topic, &value)));
            }
            while pending.len() > 9 * IN_FLIGHT {
                let oldest = pending.pop_front().unwrap();
                within(oldest).await.unwrap();
            }
        }
        if round > 0 {
            block_in_place(|| kafka.start_broker(round));
        }
    }
    all_written(pending).await;
    for producer in producers {
        within(producer.close()).await;
    }
    block_in_place(|| kafka.java("OpenTransactions.java", &[]));
    for partition in ["0", "1", "2"] {
        let values = block_in_place(|| committed(&kafka, &topic_name, partition));
        assert_eq!(values.len(), 3 * 4 * EACH);
        for id in 0..3 {
            let own: Vec<&String> = values
                .iter()
                .filter(|value| value.starts_with(&format!("{id} ")))
                .collect();
            assert!(own.is_sorted() && own.len() == 4 * EACH, "{own:?}");
        }
    }
    cluster.stop().cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_survive_the_death_of_each_broker_of_kafka_4_4() {
    frames_survive_the_death_of_each_broker("4.4").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_survive_the_death_of_each_broker_of_kafka_3_9() {
    frames_survive_the_death_of_each_broker("3.9").await;
}
