//! The producer against the in-memory broker, with all that can go wrong between them.
//!
//! The log is read from the broker's memory, so what is checked is what is there.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use kafka_client::config::{ClientConfig, CompressionType, ProducerConfig};
use kafka_client::metadata::{ClusterSnapshot, TopicMetadata};
use kafka_client::record::{DecodeOptions, NewRecord, decode};
use kafka_client::{
    BrokerId, Cluster, DeliveryFuture, Principal, ProduceError, Producer, RecordMetadata,
    TopicPartition,
};
use memory_broker::{ApiKey, BrokerConfig, FaultAction, FaultRule, KafkaRelease, MemoryBroker};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::raw_client::barrier;
use crate::support::{PATIENCE, until};

const UNKNOWN_TOPIC: i16 = 3;
const NOT_LEADER: i16 = 6;
const REQUEST_TIMED_OUT: i16 = 7;
const MESSAGE_TOO_LARGE: i16 = 10;
const NOT_ENOUGH_REPLICAS: i16 = 19;
const NOT_ENOUGH_REPLICAS_AFTER_APPEND: i16 = 20;
const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
const CLUSTER_AUTHORIZATION_FAILED: i16 = 31;
const OUT_OF_ORDER: i16 = 45;
const INVALID_PRODUCER_EPOCH: i16 = 47;
const UNKNOWN_PRODUCER_ID: i16 = 59;
const INVALID_RECORD: i16 = 87;

/// How long a record waits where a test needs its batch to expire, and others to be delivered on
/// however busy a machine.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Ends the test if this never ends.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(PATIENCE, what).await;
    ended.expect("it hangs")
}

fn client() -> ClientConfig {
    ClientConfig {
        retry_backoff: Duration::from_millis(5),
        retry_backoff_max: Duration::from_millis(50),
        reconnect_backoff: Duration::from_millis(5),
        reconnect_backoff_max: Duration::from_millis(50),
        ..ClientConfig::default()
    }
}

struct ProducerTest {
    broker: MemoryBroker,
    cluster: Cluster,
    producer: Producer,
    topic: Arc<TopicMetadata>,
}

impl ProducerTest {
    async fn new(partitions: i32) -> Self {
        Self::with(
            BrokerConfig::default(),
            client(),
            ProducerConfig::default(),
            partitions,
        )
        .await
    }

    async fn with(
        broker: BrokerConfig,
        mut client: ClientConfig,
        producer: ProducerConfig,
        partitions: i32,
    ) -> Self {
        let broker = MemoryBroker::start(broker).await.unwrap();
        assert!(broker.create_topic("t", partitions));
        client.bootstrap_servers = broker.bootstrap().split(',').map(str::to_owned).collect();
        let cluster = Cluster::new(
            client,
            Principal::Proxy,
            TaskTracker::new(),
            CancellationToken::new(),
        );
        let producer = Producer::new(cluster.clone(), producer);
        let topic = soon(cluster.metadata().topic("t")).await.unwrap();
        Self {
            broker,
            cluster,
            producer,
            topic,
        }
    }

    fn fault(&self, action: FaultAction) {
        self.broker
            .faults()
            .add(FaultRule::on(ApiKey::Produce, action));
    }

    async fn send(&self, partition: i32, value: &str) -> DeliveryFuture {
        let record = NewRecord {
            key: None,
            value: Some(value.as_bytes()),
            headers: &[],
            timestamp: 1_700_000_000_000,
        };
        let sent = self.producer.send(&self.topic, Some(partition), &record);
        soon(sent).await.unwrap()
    }

    /// Sends `0`, `1`, … to partition 0, each as its own batch if requests are quick.
    async fn send_all(&self, count: usize) -> Vec<DeliveryFuture> {
        let mut deliveries = Vec::new();
        for n in 0..count {
            deliveries.push(self.send(0, &n.to_string()).await);
            tokio::task::yield_now().await;
        }
        deliveries
    }

    fn log(&self, partition: i32) -> Vec<String> {
        let tp = TopicPartition::new("t", partition);
        let want = DecodeOptions::from_offset(0);
        let decoded = decode(self.broker.batches(&tp), &want).unwrap();
        let value = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
        decoded.records().map(|r| value(r.value)).collect()
    }

    /// What was acknowledged is at its offset; what certainly failed is nowhere; everything
    /// is in order, and at most once.
    async fn check(
        &self,
        deliveries: Vec<DeliveryFuture>,
    ) -> Vec<Result<RecordMetadata, ProduceError>> {
        let log = self.log(0);
        let mut results = Vec::new();
        for (n, delivery) in deliveries.into_iter().enumerate() {
            let result = soon(delivery).await;
            let at = log.iter().position(|value| *value == n.to_string());
            match &result {
                Ok(metadata) if metadata.offset >= 0 => {
                    assert_eq!(at, Some(metadata.offset as usize), "{n}")
                }
                Ok(_) => assert!(at.is_some(), "{n}"),
                Err(error) if error.outcome_unknown() => {}
                Err(error) => assert_eq!(at, None, "{n}: {error}"),
            }
            results.push(result);
        }
        let numbers: Vec<usize> = log.iter().map(|value| value.parse().unwrap()).collect();
        assert!(
            numbers.is_sorted_by(|a, b| a < b),
            "in order, once: {numbers:?}"
        );
        results
    }

    async fn flush_and_check(
        &self,
        deliveries: Vec<DeliveryFuture>,
    ) -> Vec<Result<RecordMetadata, ProduceError>> {
        soon(self.producer.flush()).await;
        self.check(deliveries).await
    }

    /// All of these, and nothing else, are in the log; the fault was met, and the memory
    /// is free again.
    async fn all_acknowledged(&self, deliveries: Vec<DeliveryFuture>) {
        let count = deliveries.len();
        for result in self.flush_and_check(deliveries).await {
            assert!(result.is_ok(), "{result:?}");
        }
        assert_eq!(self.log(0).len(), count);
        assert_eq!(self.broker.faults().left(), 0, "the fault was met");
        let all = ProducerConfig::default().buffer_memory;
        assert_eq!(self.producer.memory_available(), all);
    }
}

#[tokio::test]
async fn records_are_acknowledged_with_partition_offset_and_time() {
    let test = ProducerTest::new(3).await;
    for partition in [2, 0] {
        for offset in 0..3 {
            let delivery = test.send(partition, "x").await;
            let expected = RecordMetadata {
                partition,
                offset,
                timestamp: 1_700_000_000_000,
            };
            assert_eq!(soon(delivery).await, Ok(expected));
        }
    }
}

#[tokio::test]
async fn log_append_time_is_reported_where_the_topic_takes_it() {
    let broker = BrokerConfig {
        log_append_time: true,
        ..BrokerConfig::default()
    };
    let test = ProducerTest::with(broker, client(), ProducerConfig::default(), 1).await;
    let metadata = soon(test.send(0, "x").await).await.unwrap();
    assert!(metadata.timestamp > 1_700_000_000_000, "{metadata:?}");
}

#[tokio::test]
async fn duplicates_keep_their_own_time() {
    let config = ProducerConfig {
        linger: Duration::from_secs(60),
        ..ProducerConfig::default()
    };
    let test = ProducerTest::with(BrokerConfig::default(), client(), config, 1).await;
    test.fault(FaultAction::CloseAfter);
    let mut deliveries = Vec::new();
    for timestamp in [3_000, 1_000, 2_000] {
        let record = NewRecord {
            key: None,
            value: None,
            headers: &[],
            timestamp,
        };
        let sent = test.producer.send(&test.topic, Some(0), &record);
        deliveries.push(soon(sent).await.unwrap());
    }
    soon(test.producer.flush()).await;
    assert_eq!(test.broker.requests(ApiKey::Produce), 2, "sent again");
    let mut times = Vec::new();
    for delivery in deliveries {
        times.push(soon(delivery).await.unwrap().timestamp);
    }
    assert_eq!(times, [3_000, 1_000, 2_000]);
}

#[tokio::test]
async fn every_release_and_codec_takes_what_we_write() {
    let codecs = [
        CompressionType::None,
        CompressionType::Gzip,
        CompressionType::Snappy,
        CompressionType::Lz4,
        CompressionType::Zstd,
    ];
    for release in [
        KafkaRelease::V2_1,
        KafkaRelease::V2_8,
        KafkaRelease::V3_9,
        KafkaRelease::V4,
    ] {
        for compression in codecs {
            let broker = BrokerConfig {
                versions: release.versions(),
                ..BrokerConfig::default()
            };
            let producer = ProducerConfig {
                compression,
                ..ProducerConfig::default()
            };
            let test = ProducerTest::with(broker, client(), producer, 1).await;
            let deliveries = test.send_all(200).await;
            test.all_acknowledged(deliveries).await;
        }
    }
}

#[tokio::test]
async fn whatever_fault_a_request_meets_its_records_are_written_once_and_in_order() {
    let faults = [
        FaultAction::CloseBefore,
        FaultAction::CloseAfter,
        FaultAction::Truncated(6),
        FaultAction::WrongCorrelationId,
        FaultAction::Error(NOT_LEADER),
        FaultAction::ErrorAfter(NOT_LEADER),
        FaultAction::Error(REQUEST_TIMED_OUT),
        FaultAction::ErrorAfter(REQUEST_TIMED_OUT),
        FaultAction::Error(NOT_ENOUGH_REPLICAS),
        FaultAction::ErrorAfter(NOT_ENOUGH_REPLICAS_AFTER_APPEND),
        FaultAction::Error(OUT_OF_ORDER),
        FaultAction::Error(UNKNOWN_PRODUCER_ID),
        FaultAction::Error(INVALID_PRODUCER_EPOCH),
        FaultAction::Error(MESSAGE_TOO_LARGE),
        FaultAction::Error(2), // CORRUPT_MESSAGE
        FaultAction::Error(-1),
        FaultAction::ErrorAfter(-1),
        FaultAction::Delay(Duration::from_millis(30)),
        FaultAction::Throttle(30),
    ];
    for fault in faults {
        for skip in [0, 1, 3] {
            let test = ProducerTest::new(1).await;
            let rule = FaultRule::on(ApiKey::Produce, fault.clone()).after(skip);
            test.broker.faults().add(rule);
            println!("{fault:?} after {skip}");
            let mut deliveries = Vec::new();
            let mut n = 0;
            while n < 40 || test.broker.faults().left() > 0 {
                // A single record cannot be split: have several in the first batch.
                for _ in 0..4 {
                    deliveries.push(test.send(0, &n.to_string()).await);
                    n += 1;
                }
                tokio::task::yield_now().await;
                assert!(n < 100_000, "the fault is met");
            }
            test.all_acknowledged(deliveries).await;
        }
    }
}

#[tokio::test]
async fn a_refused_topic_fails_its_batch_and_nothing_else() {
    let test = ProducerTest::new(1).await;
    test.all_acknowledged(test.send_all(1).await).await;
    test.fault(FaultAction::Error(TOPIC_AUTHORIZATION_FAILED));
    let refused = soon(test.send(0, "refused").await).await;
    let what = "topic t".into();
    assert_eq!(refused, Err(ProduceError::NotAuthorized { what }));
    let metadata = soon(test.send(0, "1").await).await.unwrap();
    assert_eq!((metadata.offset, test.log(0).len()), (1, 2));
}

#[tokio::test]
async fn a_principal_without_idempotent_write_is_refused_and_may_get_it_later() {
    let test = ProducerTest::new(1).await;
    let refusal = FaultAction::Error(CLUSTER_AUTHORIZATION_FAILED);
    let rule = FaultRule::on(ApiKey::InitProducerId, refusal);
    test.broker.faults().add(rule);
    let what = "the cluster".into();
    let refused = soon(test.send(0, "refused").await).await;
    assert_eq!(refused, Err(ProduceError::NotAuthorized { what }));
    assert!(soon(test.send(0, "0").await).await.is_ok());
}

#[tokio::test]
async fn producer_ids_are_asked_for_until_there_is_one() {
    let test = ProducerTest::new(1).await;
    for action in [
        FaultAction::Error(15), // COORDINATOR_NOT_AVAILABLE
        FaultAction::CloseBefore,
        FaultAction::CloseAfter,
    ] {
        let rule = FaultRule::on(ApiKey::InitProducerId, action);
        test.broker.faults().add(rule);
    }
    test.all_acknowledged(test.send_all(3).await).await;
}

#[tokio::test]
async fn a_record_over_a_limit_fails_alone() {
    let broker = BrokerConfig {
        message_max_bytes: 2_000,
        ..BrokerConfig::default()
    };
    let config = ProducerConfig {
        max_request_size: 100_000,
        linger: Duration::from_secs(60),
        ..ProducerConfig::default()
    };
    let test = ProducerTest::with(broker, client(), config, 1).await;
    let big = "x".repeat(100_000);
    let record = NewRecord {
        key: None,
        value: Some(big.as_bytes()),
        headers: &[],
        timestamp: 0,
    };
    let refused = soon(test.producer.send(&test.topic, Some(0), &record)).await;
    assert!(
        matches!(
            &refused,
            Err(ProduceError::TooLarge { size, limit: Some(100_000) }) if *size > 100_000
        ),
        "{refused:?}"
    );

    // Over the broker's limit, among others in one batch.
    let mut deliveries = test.send_all(100).await;
    let big = test.send(0, &"x".repeat(3_000)).await;
    for n in 100..200 {
        deliveries.push(test.send(0, &n.to_string()).await);
    }
    soon(test.producer.flush()).await;
    let refused = soon(big).await;
    assert!(
        matches!(&refused, Err(ProduceError::TooLarge { size, limit: None }) if *size > 3_000),
        "{refused:?}"
    );
    test.all_acknowledged(deliveries).await;
}

#[tokio::test]
async fn a_batch_with_an_invalid_record_is_split_until_it_is_found() {
    let config = ProducerConfig {
        linger: Duration::from_secs(60),
        ..ProducerConfig::default()
    };
    let test = ProducerTest::with(BrokerConfig::default(), client(), config, 1).await;
    let deliveries = test.send_all(64).await;
    // It refuses the whole, the first half and the first quarter, and then nothing more.
    let rule = FaultRule::on(ApiKey::Produce, FaultAction::Error(INVALID_RECORD)).times(3);
    test.broker.faults().add(rule);
    test.all_acknowledged(deliveries).await;
    // A single record cannot be split.
    let bad = test.send(0, "64").await;
    test.fault(FaultAction::Error(INVALID_RECORD));
    soon(test.producer.flush()).await;
    let refused = soon(bad).await;
    assert!(matches!(
        refused,
        Err(ProduceError::Rejected {
            code: INVALID_RECORD,
            ..
        })
    ));
}

#[tokio::test]
async fn a_partition_that_does_not_exist_is_refused_at_once() {
    let test = ProducerTest::new(2).await;
    let record = NewRecord {
        key: None,
        value: None,
        headers: &[],
        timestamp: 0,
    };
    for partition in [-1, 2] {
        let sent = test.producer.send(&test.topic, Some(partition), &record);
        assert!(matches!(
            soon(sent).await,
            Err(ProduceError::InvalidPartition { partitions: 2, .. })
        ));
    }
    let all = ProducerConfig::default().buffer_memory;
    assert_eq!(test.producer.memory_available(), all);
}

#[tokio::test]
async fn keys_go_where_java_puts_them_and_records_without_keys_spread() {
    let config = ProducerConfig {
        batch_size: 400,
        ..ProducerConfig::default()
    };
    let test = ProducerTest::with(BrokerConfig::default(), client(), config, 3).await;
    let record = |key: Option<&'static [u8]>| NewRecord {
        key,
        value: Some(b"a value of some bytes"),
        headers: &[],
        timestamp: 0,
    };
    // murmur2("foobar") is -790332482, of "abc" 479470107.
    for (key, partition) in [
        (&b"foobar"[..], (-790_332_482i32 & i32::MAX) % 3),
        (b"abc", 479_470_107 % 3),
    ] {
        let record = record(Some(key));
        let sent = test.producer.send(&test.topic, None, &record);
        assert_eq!(
            soon(soon(sent).await.unwrap()).await.unwrap().partition,
            partition
        );
    }
    let mut seen = [0; 3];
    for _ in 0..600 {
        let record = record(None);
        let sent = test.producer.send(&test.topic, None, &record);
        seen[soon(soon(sent).await.unwrap()).await.unwrap().partition as usize] += 1;
    }
    assert!(seen.iter().all(|&n| n > 60), "{seen:?}");
}

#[tokio::test]
async fn lingering_records_share_a_request_and_flush_ends_the_wait() {
    let config = ProducerConfig {
        linger: Duration::from_secs(600),
        ..ProducerConfig::default()
    };
    let test = ProducerTest::with(BrokerConfig::default(), client(), config, 1).await;
    let deliveries = test.send_all(500).await;
    assert_eq!(test.broker.requests(ApiKey::Produce), 0);
    test.all_acknowledged(deliveries).await;
    assert_eq!(test.broker.requests(ApiKey::Produce), 1);
}

#[tokio::test]
async fn linger_ends_by_itself() {
    let config = ProducerConfig {
        linger: Duration::from_millis(20),
        ..ProducerConfig::default()
    };
    let test = ProducerTest::with(BrokerConfig::default(), client(), config, 1).await;
    // Without letting anything else go on, so that all are in the batch when it is sent.
    let record = NewRecord {
        key: None,
        value: Some(b"x"),
        headers: &[],
        timestamp: 0,
    };
    let send = |_| test.producer.try_send(&test.topic, Some(0), &record);
    let deliveries: Vec<_> = (0..100).map(send).collect();
    for delivery in deliveries {
        soon(delivery.unwrap().unwrap()).await.unwrap();
    }
    assert_eq!(test.broker.requests(ApiKey::Produce), 1);
}

#[tokio::test]
async fn exhausted_memory_makes_callers_wait_and_is_freed() {
    let config = ProducerConfig {
        buffer_memory: 2_000,
        ..ProducerConfig::default()
    };
    let test = ProducerTest::with(BrokerConfig::default(), client(), config, 5).await;
    let answer = CancellationToken::new();
    test.fault(FaultAction::Hold(answer.clone()));
    let record = NewRecord {
        key: None,
        value: Some(&[b'x'; 400]),
        headers: &[],
        timestamp: 0,
    };
    let mut deliveries = Vec::new();
    let refused = loop {
        // A partition that holds nothing may hold whatever is free.
        let partition = Some(deliveries.len() as i32);
        match test.producer.try_send(&test.topic, partition, &record) {
            Ok(Some(delivery)) => deliveries.push(delivery),
            other => break other,
        }
    };
    assert!(matches!(refused, Ok(None)), "{refused:?}");
    assert_eq!(deliveries.len(), 4);
    let mut waiting = pin!(test.producer.send(&test.topic, Some(4), &record));
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("there was room"),
        () = barrier(&test.broker) => answer.cancel(),
    }
    let waited = soon(waiting).await;
    assert!(
        deliveries[0].try_result().is_some(),
        "it waited for an answer"
    );
    soon(waited.unwrap()).await.unwrap();
    soon(test.producer.flush()).await;
    assert_eq!(test.producer.memory_available(), 2_000);
}

#[tokio::test]
async fn a_partition_that_does_not_drain_leaves_memory_to_the_others() {
    const WRITERS: usize = 8;
    const RECORDS: usize = 50;
    let buffer_memory = 64 << 10;
    let broker = BrokerConfig {
        nodes: 2,
        default_replication: 1,
        ..BrokerConfig::default()
    };
    let client = ClientConfig {
        request_timeout: Duration::from_millis(500),
        ..client()
    };
    let config = ProducerConfig {
        buffer_memory,
        ..ProducerConfig::default()
    };
    let test = ProducerTest::with(broker, client, config, 2).await;
    let leader = |partition| {
        let leader = test.broker.leader(&TopicPartition::new("t", partition));
        leader.unwrap().0.unwrap()
    };
    assert_ne!(leader(0), leader(1));
    let silence = FaultRule::on(ApiKey::Produce, FaultAction::Silence).always();
    test.broker.faults().add(silence.at(leader(0).0));
    // Together they write several times what the memory holds.
    let write = |writer: usize| {
        let test = &test;
        async move {
            let mut deliveries = Vec::new();
            for n in 0..RECORDS {
                let value = format!("{writer} {n:03} {}", "x".repeat(1_000));
                deliveries.push(test.send(0, &value).await);
            }
            deliveries
        }
    };
    let writers = join_all((0..WRITERS).map(write));
    let others_are_served = async {
        for _ in 0..200 {
            let delivery = test.send(1, &"y".repeat(1_000)).await;
            assert!(soon(delivery).await.is_ok());
        }
        test.broker.faults().clear();
    };
    let (deliveries, ()) = join(writers, others_are_served).await;
    for delivery in deliveries.into_iter().flatten() {
        assert!(soon(delivery).await.is_ok());
    }
    // Those that waited wrote in their order.
    let log = test.log(0);
    assert_eq!(log.len(), WRITERS * RECORDS);
    for writer in 0..WRITERS {
        let prefix = format!("{writer} ");
        let own: Vec<_> = log.iter().filter(|v| v.starts_with(&prefix)).collect();
        assert!(own.len() == RECORDS && own.is_sorted());
    }
    assert_eq!(test.producer.memory_available(), buffer_memory);
}

#[tokio::test]
async fn a_caller_that_gives_up_waiting_for_its_share_holds_up_no_other() {
    let test = {
        let config = ProducerConfig {
            buffer_memory: 10_000,
            ..ProducerConfig::default()
        };
        ProducerTest::with(BrokerConfig::default(), client(), config, 1).await
    };
    let answer = CancellationToken::new();
    test.fault(FaultAction::Hold(answer.clone()));
    let value = "x".repeat(1_000);
    let record = NewRecord {
        key: None,
        value: Some(value.as_bytes()),
        headers: &[],
        timestamp: 0,
    };
    let fill = || test.producer.try_send(&test.topic, Some(0), &record);
    while fill().unwrap().is_some() {}
    let mut given_up = Box::pin(test.send(0, &value));
    let mut waiting = Box::pin(join_all((0..20).map(|_| test.send(0, &value))));
    tokio::select! {
        biased;
        _ = &mut given_up => panic!("there was room"),
        _ = &mut waiting => panic!("there was room"),
        () = barrier(&test.broker) => {}
    }
    drop(given_up);
    answer.cancel();
    for delivery in soon(waiting).await {
        assert!(soon(delivery).await.is_ok());
    }
}

#[tokio::test]
async fn a_silent_broker_leaves_the_outcome_unknown_and_the_order_intact() {
    let cases = [false, true].map(|handled| async move {
        let client = ClientConfig {
            request_timeout: Duration::from_millis(100),
            ..client()
        };
        let config = ProducerConfig {
            delivery_timeout: DELIVERY_TIMEOUT,
            ..ProducerConfig::default()
        };
        let test = ProducerTest::with(BrokerConfig::default(), client, config, 1).await;
        let mut deliveries = test.send_all(5).await;
        soon(test.producer.flush()).await;
        // Silent for longer than the delivery timeout.
        let silence = match handled {
            true => FaultAction::SilenceAfter,
            false => FaultAction::Silence,
        };
        let rule = FaultRule::on(ApiKey::Produce, silence).always();
        test.broker.faults().add(rule);
        let lost = test.send(0, "5").await;
        let result = soon(lost).await;
        assert!(
            matches!(&result, Err(e) if e.outcome_unknown()),
            "{result:?}"
        );
        test.broker.faults().clear();
        for n in 6..12 {
            deliveries.push(test.send(0, &n.to_string()).await);
        }
        soon(test.producer.flush()).await;
        for delivery in deliveries {
            assert!(soon(delivery).await.is_ok());
        }
        let log = test.log(0);
        let expected: Vec<_> = (0..12)
            .filter(|n| *n != 5 || handled)
            .map(|n| n.to_string())
            .collect();
        assert_eq!(log, expected);
    });
    join_all(cases).await;
}

#[tokio::test]
async fn a_request_that_is_not_answered_in_time_is_sent_again_as_it_was() {
    let client = ClientConfig {
        request_timeout: Duration::from_millis(500),
        ..client()
    };
    for silence in [FaultAction::Silence, FaultAction::SilenceAfter] {
        let config = ProducerConfig::default();
        let test = ProducerTest::with(BrokerConfig::default(), client.clone(), config, 1).await;
        test.fault(silence);
        test.all_acknowledged(test.send_all(100).await).await;
    }
}

#[tokio::test]
async fn the_producer_may_have_a_request_timeout_of_its_own() {
    let client = ClientConfig {
        request_timeout: PATIENCE * 2,
        ..client()
    };
    let mut config = ProducerConfig::default();
    config.requests.request_timeout = Some(Duration::from_millis(500));
    let test = ProducerTest::with(BrokerConfig::default(), client, config, 1).await;
    test.fault(FaultAction::Silence);
    test.all_acknowledged(test.send_all(10).await).await;
}

#[tokio::test]
async fn a_request_that_hangs_is_left_when_another_broker_leads_the_partition() {
    // Whatever comes, comes before the request times out.
    let client = ClientConfig {
        request_timeout: PATIENCE * 2,
        ..client()
    };
    for silence in [FaultAction::Silence, FaultAction::SilenceAfter] {
        let broker = BrokerConfig {
            nodes: 2,
            ..BrokerConfig::default()
        };
        let config = ProducerConfig {
            delivery_timeout: PATIENCE * 4,
            ..ProducerConfig::default()
        };
        let test = ProducerTest::with(broker, client.clone(), config, 1).await;
        let partition = TopicPartition::new("t", 0);
        test.broker.move_leader(&partition, BrokerId(1));
        test.all_acknowledged(test.send_all(1).await).await;
        let hangs = FaultRule::on(ApiKey::Produce, silence).at(1);
        test.broker.faults().add(hangs);
        let sent = [test.send(0, "1").await, test.send(0, "2").await];
        until("it hangs", || test.broker.faults().left() == 0).await;
        assert!(test.broker.move_leader(&partition, BrokerId(2)));
        for delivery in sent {
            soon(delivery).await.unwrap();
        }
        assert_eq!(test.log(0), ["0", "1", "2"]);
    }
}

#[tokio::test]
async fn a_broker_that_uses_all_its_time_is_waited_for() {
    // The broker may use all of it, and the way back takes time, too.
    let time = Duration::from_millis(500);
    let client = ClientConfig {
        request_timeout: time,
        ..client()
    };
    let config = ProducerConfig::default();
    let test = ProducerTest::with(BrokerConfig::default(), client, config, 1).await;
    test.fault(FaultAction::Silence);
    let sent = Instant::now();
    assert!(soon(test.send(0, "0").await).await.is_ok());
    let again = test.broker.requests(ApiKey::Produce);
    assert!(again > 1 && sent.elapsed() > time * 3 / 2);
}

#[tokio::test]
async fn without_a_broker_records_wait_and_then_certainly_fail() {
    let config = ProducerConfig {
        delivery_timeout: DELIVERY_TIMEOUT,
        ..ProducerConfig::default()
    };
    let test = ProducerTest::with(BrokerConfig::default(), client(), config, 1).await;
    test.all_acknowledged(test.send_all(1).await).await;
    assert!(test.broker.stop_node(BrokerId(1)).await);
    let partition = TopicPartition::new("t", 0);
    let late = soon(test.send(0, "late").await).await;
    assert_eq!(late, Err(ProduceError::TimedOut { partition }));
    test.broker.start_node(BrokerId(1)).await.unwrap();
    assert!(soon(test.send(0, "1").await).await.is_ok());
    assert_eq!(test.log(0), ["0", "1"]);
}

#[tokio::test]
async fn a_partition_without_a_leader_is_written_to_as_soon_as_it_has_one() {
    let broker = BrokerConfig {
        nodes: 2,
        default_replication: 1,
        ..BrokerConfig::default()
    };
    let test = ProducerTest::with(broker, client(), ProducerConfig::default(), 1).await;
    let tp = TopicPartition::new("t", 0);
    let (leader, _) = test.broker.leader(&tp).unwrap();
    let leader = leader.unwrap();
    assert!(test.broker.stop_node(leader).await);
    let mut news = test.cluster.metadata().subscribe();
    test.cluster.metadata().request_update_for_topic("t");
    let leaderless = news.wait_for(|known| known.topic("t").unwrap().leader(0).is_none());
    soon(leaderless).await.unwrap();
    let waiting = test.send(0, "0").await;
    // The outage lasts: whatever asked for metadata at its start has been answered.
    for _ in 0..2 {
        soon(test.cluster.metadata().refresh()).await.unwrap();
    }
    test.broker.start_node(leader).await.unwrap();
    assert!(soon(waiting).await.is_ok());
}

#[tokio::test]
async fn a_partition_first_written_to_after_it_moved_is_written_to() {
    let broker = BrokerConfig {
        nodes: 2,
        ..BrokerConfig::default()
    };
    let test = ProducerTest::with(broker, client(), ProducerConfig::default(), 2).await;
    assert!(soon(test.send(0, "0").await).await.is_ok());
    let moved = TopicPartition::new("t", 1);
    let (leader, _) = test.broker.leader(&moved).unwrap();
    let next = BrokerId(3 - leader.unwrap().0);
    assert!(test.broker.move_leader(&moved, next));
    let mut news = test.cluster.metadata().subscribe();
    test.cluster.metadata().request_update_for_topic("t");
    let elsewhere = |known: &Arc<ClusterSnapshot>| {
        let leader = known.topic("t").unwrap().leader(1);
        leader.is_some_and(|leader| leader.broker == next)
    };
    soon(news.wait_for(elsewhere)).await.unwrap();
    // `test.topic` still names the old leader.
    let before = test.broker.requests(ApiKey::Produce);
    assert!(soon(test.send(1, "1").await).await.is_ok());
    assert_eq!(test.broker.requests(ApiKey::Produce), before + 1);
}

#[tokio::test]
async fn an_old_handle_reaches_partitions_that_were_added() {
    let test = ProducerTest::new(3).await;
    assert!(soon(test.send(0, "0").await).await.is_ok());
    assert!(test.broker.delete_topic("t"));
    assert!(test.broker.create_topic("t", 6));
    let mut news = test.cluster.metadata().subscribe();
    test.cluster.metadata().request_update_for_topic("t");
    let grown = |known: &Arc<ClusterSnapshot>| known.topic("t").unwrap().partitions.len() == 6;
    soon(news.wait_for(grown)).await.unwrap();
    // Whether or not the producer's own tasks have seen it yet.
    assert!(soon(test.send(4, "4").await).await.is_ok());
    assert_eq!(test.log(4), ["4"]);
}

#[tokio::test]
async fn a_deleted_topic_is_reported_and_a_new_one_of_that_name_is_written_to() {
    let test = ProducerTest::new(2).await;
    test.all_acknowledged(test.send_all(10).await).await;
    assert!(test.broker.delete_topic("t"));
    // The record by which it is noticed, later ones, and a partition that was never written
    // to.
    for partition in [0, 0, 1, 0] {
        let topic = "t".into();
        let gone = soon(test.send(partition, "gone").await).await;
        assert_eq!(gone, Err(ProduceError::UnknownTopic { topic }));
    }
    assert!(test.broker.create_topic("t", 1));
    let topic = soon(test.cluster.metadata().topic("t")).await.unwrap();
    assert_ne!(topic.id, test.topic.id);
    let record = NewRecord {
        key: None,
        value: Some(b"new"),
        headers: &[],
        timestamp: 0,
    };
    let sent = soon(test.producer.send(&topic, Some(0), &record)).await;
    assert_eq!(soon(sent.unwrap()).await.unwrap().offset, 0);
    assert_eq!(test.log(0), ["new"]);
}

#[tokio::test]
async fn a_topic_that_was_only_missing_from_the_metadata_is_written_to() {
    let test = ProducerTest::new(1).await;
    assert!(soon(test.send(0, "0").await).await.is_ok());
    // Two metadata responses agree that there is no such topic.
    let unknown = FaultRule::on(ApiKey::Metadata, FaultAction::Error(UNKNOWN_TOPIC)).times(2);
    test.broker.faults().add(unknown);
    let mut news = test.cluster.metadata().subscribe();
    test.cluster.metadata().request_update_for_topic("t");
    let vanished = news.wait_for(|known| known.topic("t").is_none());
    drop(soon(vanished).await.unwrap());
    // The producer's own tasks see it as well.
    tokio::task::yield_now().await;
    let metadata = soon(test.send(0, "1").await).await.unwrap();
    assert_eq!(metadata.offset, 1);
    assert_eq!(test.log(0), ["0", "1"]);
}

#[tokio::test]
async fn a_topic_recreated_unnoticed_is_written_to() {
    let test = ProducerTest::new(1).await;
    test.all_acknowledged(test.send_all(10).await).await;
    assert!(test.broker.delete_topic("t"));
    assert!(test.broker.create_topic("t", 1));
    test.all_acknowledged(test.send_all(10).await).await;
}

#[tokio::test]
async fn a_log_that_lost_the_producers_records_is_written_to() {
    let test = ProducerTest::new(1).await;
    for n in 0..10 {
        assert!(soon(test.send(0, &n.to_string()).await).await.is_ok());
    }
    let tp = TopicPartition::new("t", 0);
    test.broker.truncate(&tp, 5);
    let mut expected: Vec<String> = (0..5).map(|n| n.to_string()).collect();
    for n in 10..20 {
        assert!(soon(test.send(0, &n.to_string()).await).await.is_ok());
        expected.push(n.to_string());
    }
    assert_eq!(test.log(0), expected);
}

#[tokio::test]
async fn stopping_resolves_every_delivery_future() {
    let test = ProducerTest::new(1).await;
    test.fault(FaultAction::Silence);
    let in_flight = test.send(0, "in flight").await;
    let broker = &test.broker;
    soon(async {
        while broker.faults().left() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let queued = test.send(0, "queued").await;
    test.cluster.stop().cancel();
    let result = soon(in_flight).await;
    assert!(
        matches!(&result, Err(e) if e.outcome_unknown()),
        "{result:?}"
    );
    assert_eq!(soon(queued).await, Err(ProduceError::Stopped));
    let record = NewRecord {
        key: None,
        value: None,
        headers: &[],
        timestamp: 0,
    };
    let late = soon(test.producer.send(&test.topic, None, &record)).await;
    assert!(matches!(late, Err(ProduceError::Stopped)));
    soon(test.producer.flush()).await;
    test.cluster.tasks().close();
    soon(test.cluster.tasks().wait()).await;
}

/// Three nodes whose leaders move, whose connections break and which go and come back,
/// while four callers send to three partitions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_records_are_there_once_and_in_order_whatever_breaks() {
    let broker = BrokerConfig {
        nodes: 3,
        ..BrokerConfig::default()
    };
    let client = ClientConfig {
        request_timeout: Duration::from_millis(300),
        ..client()
    };
    let config = ProducerConfig {
        batch_size: 300,
        ..ProducerConfig::default()
    };
    let test = Arc::new(ProducerTest::with(broker, client, config, 3).await);
    let over = CancellationToken::new();
    let sent = Arc::new(AtomicUsize::new(0));
    let faults = inject_faults(Arc::clone(&test), Arc::clone(&sent), over.clone());
    let faults = tokio::spawn(faults);
    let callers: Vec<_> = (0..4)
        .map(|caller| send_until_over(Arc::clone(&test), caller, Arc::clone(&sent), over.clone()))
        .map(tokio::spawn)
        .collect();
    // The faults end by themselves; then the callers do.
    soon(faults).await.unwrap();
    let mut count = 0;
    let mut acknowledged: [Vec<(i64, String)>; 3] = Default::default();
    for caller in callers {
        for (value, metadata) in soon(caller).await.unwrap() {
            acknowledged[metadata.partition as usize].push((metadata.offset, value));
            count += 1;
        }
    }
    for (partition, acknowledged) in (0..3).zip(&acknowledged) {
        let log = test.log(partition);
        assert_eq!(log.len(), acknowledged.len(), "partition {partition}");
        for (offset, value) in acknowledged {
            match offset {
                -1 => assert!(log.contains(value)),
                offset => assert_eq!(&log[*offset as usize], value),
            }
        }
        for caller in 0..4 {
            let mine = log.iter().filter_map(|value| {
                let (who, n) = value.split_once(' ')?;
                (who == caller.to_string()).then(|| n.parse::<u32>().unwrap())
            });
            assert!(mine.is_sorted_by(|a, b| a < b), "order of caller {caller}");
        }
    }
    println!("{count} acknowledged");
    assert!(count >= 1_000);
}

async fn send_until_over(
    test: Arc<ProducerTest>,
    caller: u32,
    sent: Arc<AtomicUsize>,
    over: CancellationToken,
) -> Vec<(String, RecordMetadata)> {
    let mut deliveries = Vec::new();
    let mut n = 0;
    while !over.is_cancelled() {
        let value = format!("{caller} {n}");
        let delivery = test.send(n % 3, &value).await;
        deliveries.push((value, delivery));
        sent.fetch_add(1, Ordering::Relaxed);
        n += 1;
        if n % 20 == 0 {
            // The pace of the load.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let mut acknowledged = Vec::new();
    for (value, delivery) in deliveries {
        acknowledged.push((value, soon(delivery).await.unwrap()));
    }
    acknowledged
}

async fn inject_faults(test: Arc<ProducerTest>, sent: Arc<AtomicUsize>, over: CancellationToken) {
    let actions = [
        FaultAction::CloseBefore,
        FaultAction::CloseAfter,
        FaultAction::ErrorAfter(NOT_LEADER),
        FaultAction::Error(NOT_LEADER),
        FaultAction::ErrorAfter(REQUEST_TIMED_OUT),
        FaultAction::Error(NOT_ENOUGH_REPLICAS),
        FaultAction::SilenceAfter,
        FaultAction::Truncated(10),
        FaultAction::Silence,
    ];
    let mut round = 0;
    // At least so long that the callers have sent something.
    while round < 60 || sent.load(Ordering::Relaxed) < 1_000 {
        let node = BrokerId((round % 3) as i32 + 1);
        match round % 6 {
            0 => {
                assert!(test.broker.stop_node(node).await);
                // How long an outage lasts.
                tokio::time::sleep(Duration::from_millis(30)).await;
                test.broker.start_node(node).await.unwrap();
            }
            1 | 3 => {
                let tp = TopicPartition::new("t", (round / 2 % 3) as i32);
                test.broker.move_leader(&tp, node);
            }
            _ => test.fault(actions[round % actions.len()].clone()),
        }
        // How quickly one fault follows the other.
        tokio::time::sleep(Duration::from_millis(20)).await;
        round += 1;
    }
    test.broker.faults().clear();
    over.cancel();
}
