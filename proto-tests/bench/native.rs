//! Figures of the Kafka layer alone, beside librdkafka (kcat) in the same run.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_client::config::{ClientConfig, ConsumerConfig, ProducerConfig};
use kafka_client::fetcher::{FetchBudget, FetchPosition, Fetcher};
use kafka_client::record::NewRecord;
use kafka_client::{Cluster, IsolationLevel, Principal, Producer, TopicPartition, admin};
use runtime::wake::WakeSignal;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cpu::Cpu;
use crate::{Bench, LATENCY_RECORDS, VALUE};

const RECORDS: usize = 2_000_000;

fn cluster(bootstrap: &str) -> Cluster {
    let config = ClientConfig {
        bootstrap_servers: bootstrap.split(',').map(str::to_owned).collect(),
        ..ClientConfig::default()
    };
    Cluster::new(
        config,
        Principal::Proxy,
        TaskTracker::new(),
        CancellationToken::new(),
    )
}

pub(crate) async fn create_topic(bootstrap: &str, name: &str, partitions: i32) {
    let cluster = cluster(bootstrap);
    admin::create_topic(&cluster, name, partitions, 1)
        .await
        .expect("the broker creates it");
    let deadline = Instant::now() + Duration::from_secs(30);
    while !cluster.metadata().topic(name).await.is_ok_and(|topic| {
        topic.partitions.len() == partitions as usize
            && topic.partitions.iter().all(|p| p.leader_id.is_some())
    }) {
        assert!(Instant::now() < deadline, "no leader for {name}");
        cluster.metadata().refresh().await.ok();
    }
    cluster.stop().cancel();
}

fn record(value: &[u8]) -> NewRecord<'_> {
    NewRecord {
        key: None,
        value: Some(value),
        headers: &[],
        timestamp: 1_700_000_000_000,
    }
}

/// Idempotent, acks=all, one partition.
pub(crate) async fn produce(bench: &Bench) {
    let theirs = bench.topic("native-produce-kcat", 1).await;
    let kcat_started = Instant::now();
    let kcat = bench.fill(&theirs, RECORDS) / RECORDS as f64;
    let kcat_took = kcat_started.elapsed();

    let ours = bench.topic("native-produce", 1).await;
    let cluster = cluster(bench.bootstrap());
    // As librdkafka batches by default: up to 1 MB.
    let config = ProducerConfig {
        batch_size: 1_000_000,
        linger: Duration::from_millis(5),
        ..ProducerConfig::default()
    };
    let producer = Producer::new(cluster.clone(), config);
    let topic = cluster.metadata().topic(&ours).await.expect("it exists");
    let cpu = Cpu::own();
    let started = Instant::now();
    let mut deliveries = VecDeque::new();
    for _ in 0..RECORDS {
        let delivery = producer
            .send(&topic, Some(0), &record(VALUE.as_bytes()))
            .await;
        deliveries.push_back(delivery.expect("it is taken"));
        if deliveries.len() == 100_000 {
            deliveries
                .pop_front()
                .expect("not empty")
                .await
                .expect("acknowledged");
        }
    }
    for delivery in deliveries {
        delivery.await.expect("acknowledged");
    }
    let took = started.elapsed();
    let cpu = (Cpu::own() - cpu).total_us() / RECORDS as f64;
    cluster.stop().cancel();
    print(bench, "native_produce", (took, cpu), (kcat_took, kcat));
}

/// From the start of a long log.
pub(crate) async fn consume(bench: &Bench) {
    let topic = bench.topic("native-consume", 1).await;
    bench.fill(&topic, RECORDS);
    let kcat_started = Instant::now();
    let count = RECORDS.to_string();
    let kcat = bench.kcat(&[
        "-C",
        "-t",
        &topic,
        "-p",
        "0",
        "-o",
        "beginning",
        "-c",
        &count,
        "-D",
        "",
    ]);
    let (kcat, kcat_took) = (kcat / RECORDS as f64, kcat_started.elapsed());

    let cluster = cluster(bench.bootstrap());
    let fetcher = fetcher(&cluster);
    let cpu = Cpu::own();
    let started = Instant::now();
    let mut bytes = 0;
    read(&fetcher, &topic, RECORDS, |value| bytes += value.len()).await;
    let took = started.elapsed();
    let cpu = (Cpu::own() - cpu).total_us() / RECORDS as f64;
    assert_eq!(bytes, RECORDS * VALUE.len());
    cluster.stop().cancel();
    print(bench, "native_consume", (took, cpu), (kcat_took, kcat));
}

/// Ours beside librdkafka's: how long it took, and CPU microseconds per record.
fn print(bench: &Bench, name: &str, ours: (Duration, f64), theirs: (Duration, f64)) {
    let per_s = |took: Duration| RECORDS as f64 / took.as_secs_f64();
    bench.print(
        name,
        &[
            ("records_per_s", per_s(ours.0)),
            ("cpu_us_per_record", ours.1),
            ("librdkafka_records_per_s", per_s(theirs.0)),
            ("librdkafka_cpu_us_per_record", theirs.1),
            ("ratio", ours.1 / theirs.1),
            ("goal_ratio", 1.5),
        ],
    );
}

fn fetcher(cluster: &Cluster) -> Fetcher {
    let config = ConsumerConfig::default();
    let budget = FetchBudget::new(config.fetch_memory);
    Fetcher::new(cluster.clone(), config, budget)
}

async fn read(fetcher: &Fetcher, topic: &str, records: usize, mut each: impl FnMut(&[u8])) {
    let wake = Arc::new(WakeSignal::default());
    let start = FetchPosition {
        offset: 0,
        leader_epoch: -1,
    };
    let partition = TopicPartition::new(topic, 0);
    let mut cursor = fetcher.cursor(
        partition,
        start,
        IsolationLevel::ReadUncommitted,
        Arc::clone(&wake),
    );
    let mut read = 0;
    while read < records {
        match cursor.try_next().expect("a healthy partition") {
            Some(slice) => {
                for record in slice.records() {
                    each(record.value.unwrap_or_default());
                    read += 1;
                }
            }
            None => wake.notified().await,
        }
    }
}

/// Open loop, 1,000 records a second, our producer to our consumer. Microseconds.
pub(crate) async fn latency(bench: &Bench, round: usize) -> Vec<f64> {
    let name = bench.topic(&format!("native-latency-{round}"), 1).await;
    let cluster = cluster(bench.bootstrap());
    let producer = Producer::new(cluster.clone(), ProducerConfig::default());
    let fetcher = fetcher(&cluster);
    let topic = cluster.metadata().topic(&name).await.expect("it exists");
    let epoch = Instant::now();
    let total = LATENCY_RECORDS;
    let reader = tokio::spawn(async move {
        let mut latencies = Vec::with_capacity(total);
        read(&fetcher, &name, total, |value| {
            let digits = std::str::from_utf8(&value[..20]).expect("digits");
            let due: u64 = digits.parse().expect("digits");
            latencies.push((epoch.elapsed().as_nanos() as u64 - due) as f64 / 1e3);
        })
        .await;
        latencies
    });
    let mut deliveries = VecDeque::new();
    for i in 0..total as u64 {
        let due = Duration::from_millis(i);
        tokio::time::sleep_until((epoch + due).into()).await;
        let value = format!("{:020}{}", due.as_nanos(), &VALUE[20..]);
        let delivery = producer
            .send(&topic, Some(0), &record(value.as_bytes()))
            .await;
        deliveries.push_back(delivery.expect("it is taken"));
    }
    for delivery in deliveries {
        delivery.await.expect("acknowledged");
    }
    let latencies = reader.await.expect("records arrive").split_off(1_000);
    cluster.stop().cancel();
    latencies
}
