//! The producer against Apache Kafka; librdkafka (kcat) reads what we wrote.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kafka_client::config::{ClientConfig, CompressionType, ProducerConfig};
use kafka_client::metadata::TopicMetadata;
use kafka_client::producer::partitioner;
use kafka_client::record::{NewHeader, NewRecord};
use kafka_client::{Cluster, DeliveryFuture, Principal, ProduceError, Producer};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::PATIENCE;
use crate::support::kafka::{Kafka, unique};

struct TopicProducer {
    cluster: Cluster,
    producer: Producer,
    topic: Arc<TopicMetadata>,
}

impl TopicProducer {
    async fn new(kafka: &Kafka, topic: &str, config: ProducerConfig) -> Self {
        let client = ClientConfig {
            bootstrap_servers: kafka.bootstrap().split(',').map(str::to_owned).collect(),
            ..ClientConfig::default()
        };
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let cluster = Cluster::new(client, Principal::Proxy, tasks, stop);
        let producer = Producer::new(cluster.clone(), config);
        let topic = cluster.metadata().topic(topic).await.unwrap();
        Self {
            cluster,
            producer,
            topic,
        }
    }

    async fn send(&self, record: &NewRecord<'_>) -> DeliveryFuture {
        let sent = self.producer.send(&self.topic, None, record).await;
        sent.unwrap()
    }
}

impl Drop for TopicProducer {
    fn drop(&mut self) {
        self.cluster.stop().cancel();
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(PATIENCE, what).await;
    result.expect("within the limit")
}

/// What kcat reads: partition, offset, time, key, headers, value; one record a line.
fn read(kafka: &Kafka, topic: &str, partition: &str) -> Vec<[String; 6]> {
    let format = "%p|%o|%T|%k|%h|%s\n";
    let options = [
        "-C",
        "-t",
        topic,
        "-p",
        partition,
        "-o",
        "beginning",
        "-e",
        "-Z",
        "-f",
        format,
    ];
    let text = String::from_utf8(kafka.kcat(&options, b"")).unwrap();
    let record = |line: &str| {
        let fields: Vec<String> = line.split('|').map(str::to_owned).collect();
        fields.try_into().unwrap()
    };
    text.lines().map(record).collect()
}

const CODECS: [CompressionType; 5] = [
    CompressionType::None,
    CompressionType::Gzip,
    CompressionType::Snappy,
    CompressionType::Lz4,
    CompressionType::Zstd,
];

/// Keys, headers, tombstones, times, partitions and offsets, in each codec.
async fn librdkafka_reads_what_we_write(version: &str) {
    let kafka = tokio::task::spawn_blocking({
        let version = version.to_owned();
        move || Kafka::shared(&version, 1)
    });
    let kafka = kafka.await.unwrap();
    for compression in CODECS {
        let topic = unique("produce");
        kafka.create_topic(&topic, 3, 1);
        let config = ProducerConfig {
            compression,
            ..ProducerConfig::default()
        };
        let client = within(TopicProducer::new(&kafka, &topic, config)).await;
        // Retention goes by the records' time: an old one would be deleted meanwhile.
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let started = started.as_millis() as i64;
        let mut expected = Vec::new();
        for n in 0..2_000i64 {
            let key = format!("key {}", n % 50);
            let value = format!("value {n}");
            let header = format!("{n}");
            let headers = [NewHeader {
                key: "n",
                value: Some(header.as_bytes()),
            }];
            let record = NewRecord {
                key: (n % 5 != 0).then_some(key.as_bytes()),
                value: (n % 7 != 0).then_some(value.as_bytes()),
                headers: if n % 3 == 0 { &headers } else { &[] },
                timestamp: started + n,
            };
            let delivery = client.send(&record).await;
            let partition = record.key.map(|key| partitioner::partition_for_key(key, 3));
            let text = [
                (started + n).to_string(),
                if n % 5 == 0 { "NULL".to_owned() } else { key },
                if n % 3 == 0 {
                    format!("n={n}")
                } else {
                    String::new()
                },
                if n % 7 == 0 { "NULL".to_owned() } else { value },
            ];
            expected.push((delivery, partition, text));
        }
        let mut by_offset = HashMap::new();
        for (delivery, partition, text) in expected {
            let metadata = within(delivery).await.unwrap();
            assert!(partition.is_none_or(|p| p == metadata.partition));
            assert_eq!(metadata.timestamp.to_string(), text[0]);
            by_offset.insert(
                (metadata.partition.to_string(), metadata.offset.to_string()),
                text,
            );
        }
        let read = |partition| read(&kafka, &topic, partition);
        let seen: Vec<_> = ["0", "1", "2"].into_iter().flat_map(read).collect();
        assert_eq!(seen.len(), 2_000, "{compression:?}");
        for [partition, offset, time, key, headers, value] in seen {
            let text = &by_offset[&(partition, offset)];
            assert_eq!(*text, [time, key, headers, value], "{compression:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn librdkafka_reads_what_we_write_to_kafka_4_4() {
    librdkafka_reads_what_we_write("4.4").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn librdkafka_reads_what_we_write_to_kafka_3_9() {
    librdkafka_reads_what_we_write("3.9").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn librdkafka_reads_what_we_write_to_kafka_2_8() {
    librdkafka_reads_what_we_write("2.8").await;
}

/// A broker's own limits: what it refuses fails alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_refuses_a_record_and_appends_the_others_of_its_batch() {
    let start = || {
        Kafka::start(
            "4.4",
            1,
            &["message.max.bytes=5000", "log.cleanup.policy=compact"],
        )
    };
    let kafka = tokio::task::spawn_blocking(start).await.unwrap();
    let topic = unique("refuse");
    kafka.create_topic(&topic, 1, 1);
    let config = ProducerConfig {
        linger: Duration::from_secs(60),
        batch_size: 1 << 20,
        ..ProducerConfig::default()
    };
    let client = within(TopicProducer::new(&kafka, &topic, config)).await;
    let big = vec![b'x'; 6_000];
    let mut deliveries = Vec::new();
    for n in 0..300u32 {
        let key = n.to_be_bytes();
        let record = NewRecord {
            // A compacted topic takes no record without a key.
            key: (n != 77 && n != 200).then_some(&key[..]),
            value: Some(if n == 150 {
                &big
            } else {
                b"some value of a usual size"
            }),
            headers: &[],
            timestamp: 1_700_000_000_000,
        };
        deliveries.push(client.send(&record).await);
    }
    within(client.producer.flush()).await;
    let mut offset = 0;
    for (n, delivery) in deliveries.into_iter().enumerate() {
        match (n, within(delivery).await) {
            (77 | 200, Err(ProduceError::Rejected { code: 87, .. })) => {}
            (150, Err(ProduceError::TooLarge { limit: None, .. })) => {}
            (_, Ok(metadata)) => {
                assert_eq!(metadata.offset, offset, "{n}");
                offset += 1;
            }
            (n, other) => panic!("{n}: {other:?}"),
        }
    }
    assert_eq!(offset, 297);
}
