//! The in-memory broker as clients see it that share no code with it: rskafka, Java's and
//! librdkafka (through kcat).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kafka_client::TopicPartition;
use kafka_client::config::CompressionType;
use kafka_client::record::{NewRecord, RecordBatchBuilder};
use memory_broker::{BrokerConfig, KafkaRelease, MemoryBroker};
use rskafka::chrono::{TimeZone, Utc};
use rskafka::client::partition::{Compression, OffsetAt, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::Record;

use crate::support::PATIENCE;
use crate::support::kafka::{java, kcat};

async fn rskafka(broker: &MemoryBroker) -> Client {
    let bootstrap = broker.bootstrap().split(',').map(str::to_owned).collect();
    ClientBuilder::new(bootstrap).build().await.unwrap()
}

/// kcat blocks, so it runs on a thread of its own.
async fn run_kcat(broker: &MemoryBroker, args: &[&str], input: &[u8]) -> String {
    let bootstrap = broker.bootstrap();
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    let input = input.to_vec();
    let run = tokio::task::spawn_blocking(move || {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        kcat(&bootstrap, &args, &input)
    });
    let out = tokio::time::timeout(PATIENCE, run).await;
    String::from_utf8(out.expect("kcat ends").unwrap()).unwrap()
}

fn record(n: i64) -> Record {
    Record {
        key: Some(format!("key {n}").into_bytes()),
        value: (n % 3 != 0).then(|| format!("value {n}").into_bytes()),
        headers: BTreeMap::from([("n".to_owned(), n.to_string().into_bytes())]),
        timestamp: Utc.timestamp_millis_opt(1_000 + n).unwrap(),
    }
}

#[tokio::test]
async fn rskafka_creates_a_topic_and_reads_what_it_wrote() {
    for nodes in [1, 3] {
        let broker = MemoryBroker::start(BrokerConfig {
            nodes,
            ..BrokerConfig::default()
        })
        .await
        .unwrap();
        let client = rskafka(&broker).await;
        let controller = client.controller_client().unwrap();
        controller.create_topic("t", 3, 1, 5_000).await.unwrap();
        let topics = client.list_topics().await.unwrap();
        assert_eq!(topics.len(), 1);
        assert_eq!(topics[0].partitions.len(), 3);
        for index in 0..3 {
            let partition = client
                .partition_client("t", index, UnknownTopicHandling::Retry)
                .await
                .unwrap();
            let sent: Vec<_> = (0..100).map(record).collect();
            for (n, codec) in [Compression::NoCompression, Compression::NoCompression]
                .into_iter()
                .enumerate()
            {
                let offsets = partition.produce(sent.clone(), codec).await.unwrap();
                let first = n as i64 * 100;
                assert_eq!(offsets, (first..first + 100).collect::<Vec<_>>());
            }
            let mut read = Vec::new();
            while read.len() < 200 {
                let from = read.len() as i64;
                let (records, end) = partition
                    .fetch_records(from, 1..1_000_000, 1_000)
                    .await
                    .unwrap();
                assert_eq!(end, 200);
                read.extend(records);
            }
            for (offset, read) in (0..).zip(&read) {
                assert_eq!((read.offset, &read.record), (offset, &record(offset % 100)));
            }
            let at = partition.get_offset(OffsetAt::Latest).await.unwrap();
            assert_eq!(at, 200);
            let time = Utc.timestamp_millis_opt(1_050).unwrap();
            let at = partition.get_offset(OffsetAt::Timestamp(time)).await;
            assert_eq!(at.unwrap(), 50);
            partition.delete_records(150, 5_000).await.unwrap();
            let at = partition.get_offset(OffsetAt::Earliest).await.unwrap();
            assert_eq!(at, 150);
        }
        controller.delete_topic("t", 5_000).await.unwrap();
        assert!(client.list_topics().await.unwrap().is_empty());
        broker.stop().await;
    }
}

#[tokio::test]
async fn librdkafka_produces_lists_and_consumes_whatever_the_release() {
    for release in [
        KafkaRelease::V2_1,
        KafkaRelease::V2_8,
        KafkaRelease::V3_9,
        KafkaRelease::V4,
    ] {
        let broker = MemoryBroker::start(BrokerConfig {
            nodes: 2,
            versions: release.versions(),
            default_partitions: 3,
            ..BrokerConfig::default()
        })
        .await
        .unwrap();
        let input: String = (0..500).map(|n| format!("k{n}:v{n}\n")).collect();
        let idempotent = ["-P", "-t", "t", "-K:", "-X", "enable.idempotence=true"];
        run_kcat(&broker, &idempotent, input.as_bytes()).await;
        for codec in ["gzip", "snappy", "lz4", "zstd"] {
            let line = format!("{codec}:{codec}{codec}{codec}{codec}{codec}\n");
            let args = ["-P", "-t", "t", "-K:", "-z", codec];
            run_kcat(&broker, &args, line.as_bytes()).await;
        }
        let listed = run_kcat(&broker, &["-L"], b"").await;
        assert!(listed.contains("topic \"t\" with 3 partitions"), "{listed}");
        let args = ["-C", "-t", "t", "-e", "-o", "beginning", "-K:"];
        let read = run_kcat(&broker, &args, b"").await;
        let mut read: Vec<&str> = read.lines().collect();
        let mut sent: Vec<&str> = input.lines().collect();
        let coded = ["gzip", "snappy", "lz4", "zstd"].map(|c| format!("{c}:{}", c.repeat(5)));
        sent.extend(coded.iter().map(String::as_str));
        read.sort_unstable();
        sent.sort_unstable();
        assert_eq!(read, sent, "{release:?}");
        broker.stop().await;
    }
}

#[tokio::test]
async fn a_librdkafka_group_consumes_commits_and_resumes() {
    for release in [
        KafkaRelease::V2_1,
        KafkaRelease::V2_8,
        KafkaRelease::V3_9,
        KafkaRelease::V4,
    ] {
        let broker = MemoryBroker::start(BrokerConfig {
            nodes: 2,
            versions: release.versions(),
            default_partitions: 3,
            ..BrokerConfig::default()
        })
        .await
        .unwrap();
        for batch in [0..300, 300..500] {
            let count = batch.len().to_string();
            let input: String = batch.map(|n| format!("v{n}\n")).collect();
            run_kcat(&broker, &["-P", "-t", "t"], input.as_bytes()).await;
            let earliest = "auto.offset.reset=earliest";
            let args = ["-c", &count, "-X", earliest, "-G", "g", "t"];
            let read = run_kcat(&broker, &args, b"").await;
            let mut read: Vec<&str> = read.lines().collect();
            let mut sent: Vec<&str> = input.lines().collect();
            read.sort_unstable();
            sent.sort_unstable();
            assert_eq!(read, sent, "{release:?}");
        }
        let group = broker.group("g").unwrap();
        assert_eq!((group.state, group.members.len()), ("Empty", 0));
        let partitions = (0..3).map(|p| TopicPartition::new("t", p));
        let committed = partitions.map(|tp| broker.committed("g", &tp).unwrap_or(0));
        assert_eq!(committed.sum::<i64>(), 500);
        broker.stop().await;
    }
}

/// Runs a program of Java's client, which says at its end that all is as it should be.
async fn run_to_its_end(broker: &MemoryBroker, program: &'static str, release: KafkaRelease) {
    let bootstrap = broker.bootstrap();
    let run = tokio::task::spawn_blocking(move || java(&bootstrap, program, &[]));
    let out = tokio::time::timeout(PATIENCE, run).await;
    let out = out.expect("the program ends").unwrap();
    assert!(out.ends_with("done\n"), "{release:?}: {out}");
}

#[tokio::test]
async fn the_java_client_administers_produces_and_shares_a_topic_in_a_group() {
    for release in [KafkaRelease::V3_9, KafkaRelease::V4] {
        let broker = MemoryBroker::start(BrokerConfig {
            nodes: 2,
            versions: release.versions(),
            ..BrokerConfig::default()
        })
        .await
        .unwrap();
        run_to_its_end(&broker, "Everything.java", release).await;
        broker.stop().await;
    }
}

#[tokio::test]
async fn java_s_transactions_commit_abort_and_are_fenced_whatever_the_version() {
    for (release, transaction_version) in [
        (KafkaRelease::V3_9, 0),
        (KafkaRelease::V4, 1),
        (KafkaRelease::V4, 2),
    ] {
        let broker = MemoryBroker::start(BrokerConfig {
            nodes: 2,
            versions: release.versions(),
            transaction_version,
            // The next transaction is to find the last one not quite ended.
            transaction_marker_delay: Duration::from_millis(20),
            ..BrokerConfig::default()
        })
        .await
        .unwrap();
        run_to_its_end(&broker, "Transactions.java", release).await;
        broker.stop().await;
    }
}

/// Of a producer that has not ended its transaction.
fn transactional_batch(producer_id: i64) -> Bytes {
    let mut records = RecordBatchBuilder::new(100);
    records.append(&NewRecord {
        key: None,
        value: Some(b"not committed"),
        headers: &[],
        timestamp: 0,
    });
    let mut records = records.build(CompressionType::None);
    records.set_transactional(true);
    records.set_producer_state(producer_id, 0, 0);
    records.bytes()
}

#[tokio::test]
async fn librdkafka_writes_a_transaction_and_reads_what_is_committed() {
    for release in [KafkaRelease::V2_1, KafkaRelease::V2_8, KafkaRelease::V4] {
        let broker = MemoryBroker::start(BrokerConfig {
            nodes: 2,
            versions: release.versions(),
            ..BrokerConfig::default()
        })
        .await
        .unwrap();
        for id in ["one", "one", "two"] {
            let id = format!("transactional.id={id}");
            run_kcat(&broker, &["-P", "-t", "t", "-X", &id], b"first\nlast\n").await;
        }
        assert_eq!(broker.transaction_state("one"), Some("CompleteCommit"));
        let tp = TopicPartition::new("t", 0);
        assert_eq!(broker.append(&tp, &transactional_batch(7)), Some(9));
        broker.end_transaction(&tp, 7, 0, false);
        broker.append(&tp, &transactional_batch(8));
        let args = ["-C", "-t", "t", "-e", "-o", "beginning", "-f", "%o %s\n"];
        let read = run_kcat(&broker, &args, b"").await;
        let lines: Vec<&str> = read.lines().collect();
        let written = [
            "0 first", "1 last", "3 first", "4 last", "6 first", "7 last",
        ];
        assert_eq!(lines, written, "{release:?}");
        broker.stop().await;
    }
}
