//! The transactional producer against the in-memory broker, with all that can go wrong between
//! them.
//!
//! The log is read from the broker's memory, by its markers: what is checked is what a reader of
//! committed data gets.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use kafka_client::config::{ClientConfig, ProducerConfig};
use kafka_client::metadata::TopicMetadata;
use kafka_client::producer::{
    FrameDelivery, TransactionError, TransactionFrame, TransactionalConfig, TransactionalProducer,
};
use kafka_client::record::header::BatchHeader;
use kafka_client::record::{DecodeOptions, NewRecord, decode};
use kafka_client::{BrokerId, Cluster, Principal, ProduceError, RecordMetadata, TopicPartition};
use memory_broker::{ApiKey, BrokerConfig, FaultAction, FaultRule, KafkaRelease, MemoryBroker};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::{PATIENCE, until};

const NOT_LEADER: i16 = 6;
const COORDINATOR_LOADS: i16 = 14;
const COORDINATOR_NOT_AVAILABLE: i16 = 15;
const NOT_COORDINATOR: i16 = 16;
const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
const OUT_OF_ORDER: i16 = 45;
const INVALID_PRODUCER_EPOCH: i16 = 47;
const INVALID_TXN_STATE: i16 = 48;
const CONCURRENT_TRANSACTIONS: i16 = 51;
const ID_AUTHORIZATION_FAILED: i16 = 53;

/// How long a commit is asked for where a test needs its answer to be lost, and others to be written
/// however busy a machine.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Ends the test if this never ends.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(PATIENCE, what).await;
    ended.expect("it hangs")
}

type Delivered = Result<RecordMetadata, ProduceError>;

struct TransactionTest {
    broker: MemoryBroker,
    cluster: Cluster,
    config: ProducerConfig,
    topic: Arc<TopicMetadata>,
}

impl TransactionTest {
    async fn new() -> Self {
        Self::with(BrokerConfig::default(), ProducerConfig::default()).await
    }

    async fn with(broker: BrokerConfig, config: ProducerConfig) -> Self {
        let broker = MemoryBroker::start(broker).await.unwrap();
        assert!(broker.create_topic("t", 3));
        let client = ClientConfig {
            bootstrap_servers: broker.bootstrap().split(',').map(str::to_owned).collect(),
            retry_backoff: Duration::from_millis(5),
            retry_backoff_max: Duration::from_millis(50),
            reconnect_backoff: Duration::from_millis(5),
            reconnect_backoff_max: Duration::from_millis(50),
            ..ClientConfig::default()
        };
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let cluster = Cluster::new(client, Principal::Proxy, tasks, stop);
        let topic = soon(cluster.metadata().topic("t")).await.unwrap();
        Self {
            broker,
            cluster,
            config,
            topic,
        }
    }

    async fn try_open(&self) -> Result<TransactionalProducer, TransactionError> {
        self.try_open_for(Duration::from_secs(15)).await
    }

    async fn try_open_for(
        &self,
        transaction_timeout: Duration,
    ) -> Result<TransactionalProducer, TransactionError> {
        let transactional = TransactionalConfig {
            transactional_id: "id".into(),
            transaction_timeout,
        };
        let cluster = self.cluster.clone();
        soon(TransactionalProducer::open(
            cluster,
            &self.config,
            transactional,
        ))
        .await
    }

    async fn open(&self) -> TransactionalProducer {
        self.try_open().await.unwrap()
    }

    async fn open_for(&self, transaction_timeout: Duration) -> TransactionalProducer {
        self.try_open_for(transaction_timeout).await.unwrap()
    }

    fn fault(&self, api: ApiKey, action: FaultAction) {
        self.broker.faults().add(FaultRule::on(api, action));
    }

    /// A frame of those records.
    fn frame(&self, records: &[(i32, &str)]) -> TransactionFrame {
        let mut frame = TransactionFrame::default();
        for (partition, value) in records {
            let record = NewRecord {
                key: None,
                value: Some(value.as_bytes()),
                headers: &[],
                timestamp: 1_700_000_000_000,
            };
            frame.push(&self.topic, Some(*partition), &record);
        }
        frame
    }

    fn send(
        &self,
        producer: &TransactionalProducer,
        records: &[(i32, &str)],
    ) -> Vec<FrameDelivery> {
        producer.send(self.frame(records)).collect()
    }

    /// What a reader of committed data gets of a partition; `None` while it would have to wait.
    fn committed(&self, partition: i32) -> Option<Vec<String>> {
        let tp = TopicPartition::new("t", partition);
        let log = self.broker.batches(&tp);
        let mut open: HashMap<i64, Vec<(i64, String)>> = HashMap::new();
        let mut committed = Vec::new();
        let mut at = 0;
        while let Ok(header) = BatchHeader::parse(&log[at..]) {
            let batch = log.slice(at..at + header.size());
            at += header.size();
            if header.attributes.is_control_batch() {
                let written = open.remove(&header.producer_id).unwrap_or_default();
                // Length, attributes, two deltas and the key's length are one byte each; the key is
                // its version and 1 for a commit.
                if batch[69] == 1 {
                    committed.extend(written);
                }
                continue;
            }
            let decoded = decode(batch, &DecodeOptions::from_offset(header.base_offset)).unwrap();
            let values = decoded.records().map(|record| {
                let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                (record.offset, value)
            });
            let values = values.collect::<Vec<_>>();
            open.entry(header.producer_id).or_default().extend(values);
        }
        committed.sort();
        let values = committed.into_iter().map(|(_, value)| value);
        open.is_empty().then(|| values.collect())
    }

    /// Waits until no transaction is open, and checks what is committed in partition 0.
    async fn check(&self, expected: &[&str]) {
        until("no transaction is open", || self.committed(0).is_some()).await;
        assert_eq!(self.committed(0).unwrap(), expected);
    }
}

async fn all(deliveries: Vec<FrameDelivery>) -> Vec<Delivered> {
    soon(join_all(deliveries)).await
}

async fn all_written(deliveries: Vec<FrameDelivery>) {
    for delivered in all(deliveries).await {
        delivered.unwrap();
    }
}

/// Every protocol of transactions: KIP-890, before it, and before KIP-360.
fn protocols() -> Vec<BrokerConfig> {
    let release = |release: KafkaRelease, transaction_version| BrokerConfig {
        versions: release.versions(),
        transaction_version,
        transaction_marker_delay: Duration::from_millis(3),
        nodes: 3,
        ..BrokerConfig::default()
    };
    vec![
        release(KafkaRelease::V4, 2),
        release(KafkaRelease::V4, 1),
        release(KafkaRelease::V3_9, 1),
        release(KafkaRelease::V2_8, 1),
        release(KafkaRelease::V2_1, 1),
    ]
}

#[tokio::test]
async fn frames_are_committed_whole_in_order_and_many_at_once() {
    for broker in protocols() {
        let test = TransactionTest::with(broker, ProducerConfig::default()).await;
        let producer = test.open().await;
        let mut deliveries = Vec::new();
        let values: Vec<String> = (0..300).map(|n| format!("{n:03}")).collect();
        for value in &values {
            deliveries.extend(test.send(&producer, &[(0, value), (1, value), (2, value)]));
            // So that there are several transactions.
            tokio::task::yield_now().await;
        }
        let mut offset = -1;
        for delivered in all(deliveries).await {
            let metadata = delivered.unwrap();
            if metadata.partition == 0 {
                assert!(metadata.offset > offset);
                offset = metadata.offset;
            }
        }
        let ends = test.broker.requests(ApiKey::EndTxn);
        assert!(ends < 100, "{ends} transactions");
        for partition in 0..3 {
            until("no transaction is open", || {
                test.committed(partition).is_some()
            })
            .await;
            assert_eq!(test.committed(partition).unwrap(), values);
        }
        // The next transaction after a pause.
        all_written(test.send(&producer, &[(0, "later")])).await;
        soon(producer.close()).await;
    }
}

#[tokio::test]
async fn a_record_that_the_broker_refuses_aborts_its_own_frame_alone() {
    for broker in protocols() {
        let broker = BrokerConfig {
            message_max_bytes: 1_000,
            ..broker
        };
        let test = TransactionTest::with(broker, ProducerConfig::default()).await;
        let producer = test.open().await;
        let large = "x".repeat(2_000);
        let mut before = test.send(&producer, &[(0, "a"), (1, "b")]);
        let faulty = test.send(&producer, &[(1, "c"), (0, &large), (0, "d")]);
        let after: Vec<String> = (0..50).map(|n| format!("{n:02}")).collect();
        for value in &after {
            before.extend(test.send(&producer, &[(0, value)]));
        }
        let faulty = all(faulty).await;
        assert!(matches!(faulty[0], Err(ProduceError::Aborted { .. })));
        assert!(
            matches!(faulty[1], Err(ProduceError::TooLarge { limit: None, .. })),
            "{faulty:?}"
        );
        assert!(matches!(faulty[2], Err(ProduceError::Aborted { .. })));
        all_written(before).await;
        let mut expected = vec!["a"];
        expected.extend(after.iter().map(String::as_str));
        test.check(&expected).await;
        assert_eq!(test.committed(1).unwrap(), ["b"]);
    }
}

#[tokio::test]
async fn a_partition_is_refused_only_if_the_cluster_confirms_that_it_is_missing() {
    let test = TransactionTest::new().await;
    let producer = test.open().await;
    let missing = all(test.send(&producer, &[(0, "a"), (3, "b")])).await;
    assert!(matches!(missing[0], Err(ProduceError::Aborted { .. })));
    assert!(matches!(
        missing[1],
        Err(ProduceError::InvalidPartition {
            partition: 3,
            partitions: 3,
            ..
        })
    ));
    assert!(test.broker.add_partitions("t", 4));
    all_written(test.send(&producer, &[(0, "c"), (3, "d")])).await;
    test.check(&["c"]).await;
    assert_eq!(test.committed(3).unwrap(), ["d"]);
}

#[tokio::test]
async fn a_newer_producer_fences_the_older_one() {
    for broker in protocols() {
        let test = TransactionTest::with(broker, ProducerConfig::default()).await;
        let older = test.open().await;
        all_written(test.send(&older, &[(0, "a")])).await;
        let newer = test.open().await;
        let fenced = all(test.send(&older, &[(0, "b"), (1, "b")])).await;
        for delivered in fenced {
            assert!(
                matches!(delivered, Err(ProduceError::Fenced { .. })),
                "{delivered:?}"
            );
        }
        let failed = soon(older.failed()).await;
        assert!(matches!(failed, TransactionError::Fenced { .. }));
        let late = test.send(&older, &[(0, "c")]);
        let late = late[0].try_result();
        assert!(matches!(late, Some(Err(ProduceError::Fenced { .. }))));
        all_written(test.send(&newer, &[(0, "d")])).await;
        test.check(&["a", "d"]).await;
        soon(older.close()).await;
    }
}

#[tokio::test]
async fn a_transaction_that_is_open_when_a_newer_producer_comes_is_aborted() {
    for broker in protocols() {
        let test = TransactionTest::with(broker, ProducerConfig::default()).await;
        let older = test.open().await;
        let release = CancellationToken::new();
        test.fault(ApiKey::Produce, FaultAction::Hold(release.clone()));
        let requests = test.broker.requests(ApiKey::Produce);
        let mut sent = test.send(&older, &[(0, "a"), (1, "b")]);
        until("it is sent", || {
            test.broker.requests(ApiKey::Produce) > requests
        })
        .await;
        let newer = test.open().await;
        // It waits behind the one that is open.
        sent.extend(test.send(&older, &[(0, "c")]));
        release.cancel();
        for delivered in all(sent).await {
            assert!(
                matches!(delivered, Err(ProduceError::Fenced { .. })),
                "{delivered:?}"
            );
        }
        all_written(test.send(&newer, &[(0, "d")])).await;
        test.check(&["d"]).await;
    }
}

#[tokio::test]
async fn a_commit_that_is_fenced_after_a_lost_answer_has_an_unknown_outcome() {
    for broker in protocols() {
        let test = TransactionTest::with(broker, ProducerConfig::default()).await;
        let producer = test.open().await;
        test.fault(ApiKey::EndTxn, FaultAction::CloseAfter);
        test.fault(ApiKey::EndTxn, FaultAction::Error(INVALID_PRODUCER_EPOCH));
        let sent = all(test.send(&producer, &[(0, "a")])).await;
        assert!(
            matches!(sent[0], Err(ProduceError::UnknownOutcome { .. })),
            "{sent:?}"
        );
        let failed = soon(producer.failed()).await;
        assert!(matches!(failed, TransactionError::Fenced { .. }));
        test.check(&["a"]).await;
    }
}

#[tokio::test]
async fn a_transaction_that_lasts_too_long_is_aborted_by_us_and_written_again() {
    for broker in protocols() {
        let test = TransactionTest::with(broker, ProducerConfig::default()).await;
        let producer = test.open_for(Duration::from_millis(600)).await;
        all_written(test.send(&producer, &[(0, "a")])).await;
        test.fault(
            ApiKey::Produce,
            FaultAction::Delay(Duration::from_millis(900)),
        );
        let mut sent = test.send(&producer, &[(0, "b")]);
        sent.extend(test.send(&producer, &[(0, "c"), (1, "d")]));
        all_written(sent).await;
        test.check(&["a", "b", "c"]).await;
        assert_eq!(test.broker.faults().left(), 0);
    }
}

/// Whatever goes wrong on the way is the producer's to deal with.
#[tokio::test]
async fn retriable_errors_are_invisible_and_nothing_is_written_twice() {
    use ApiKey::{AddPartitionsToTxn, EndTxn, FindCoordinator, InitProducerId, Produce};

    for broker in protocols() {
        let test = TransactionTest::with(broker, ProducerConfig::default()).await;
        let retriable = [
            NOT_COORDINATOR,
            COORDINATOR_NOT_AVAILABLE,
            COORDINATOR_LOADS,
        ];
        for code in retriable.into_iter().chain([CONCURRENT_TRANSACTIONS]) {
            test.fault(InitProducerId, FaultAction::Error(code));
        }
        test.fault(
            FindCoordinator,
            FaultAction::Error(COORDINATOR_NOT_AVAILABLE),
        );
        test.fault(InitProducerId, FaultAction::CloseAfter);
        let producer = test.open().await;
        let mut expected = Vec::new();
        let mut faults = Vec::new();
        for api in [AddPartitionsToTxn, EndTxn] {
            for code in retriable.into_iter().chain([CONCURRENT_TRANSACTIONS]) {
                faults.push((api, FaultAction::Error(code)));
            }
            faults.push((api, FaultAction::CloseBefore));
            faults.push((api, FaultAction::CloseAfter));
            faults.push((api, FaultAction::ErrorAfter(NOT_COORDINATOR)));
        }
        for code in [
            NOT_LEADER,
            OUT_OF_ORDER,
            INVALID_PRODUCER_EPOCH,
            INVALID_TXN_STATE,
        ] {
            faults.push((Produce, FaultAction::Error(code)));
        }
        faults.push((Produce, FaultAction::CloseBefore));
        faults.push((Produce, FaultAction::CloseAfter));
        faults.push((Produce, FaultAction::ErrorAfter(NOT_LEADER)));
        for (n, (api, action)) in faults.into_iter().enumerate() {
            test.broker.faults().clear();
            test.fault(api, action.clone());
            let value = format!("{n:02}");
            for delivered in all(test.send(&producer, &[(0, &value), (1, &value)])).await {
                assert!(delivered.is_ok(), "{api:?} {action:?}: {delivered:?}");
            }
            expected.push(value);
        }
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        test.check(&expected).await;
        assert_eq!(test.committed(1).unwrap(), expected);
    }
}

#[tokio::test]
async fn leaders_and_coordinators_that_move_are_followed() {
    for broker in protocols() {
        let test = TransactionTest::with(broker, ProducerConfig::default()).await;
        let producer = test.open().await;
        let mut deliveries = Vec::new();
        let values: Vec<String> = (0..60).map(|n| format!("{n:02}")).collect();
        for (value, n) in values.iter().zip(0..) {
            deliveries.extend(test.send(&producer, &[(0, value)]));
            let node = BrokerId(n % 3 + 1);
            match n % 2 {
                0 => drop(test.broker.move_leader(&TopicPartition::new("t", 0), node)),
                _ => test.broker.move_coordinator("id", node),
            }
            if n % 10 == 0 {
                all_written(std::mem::take(&mut deliveries)).await;
            }
        }
        all_written(deliveries).await;
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        test.check(&values).await;
    }
}

#[tokio::test]
async fn a_commit_whose_answers_are_lost_has_an_unknown_outcome_and_the_next_frames_follow_it() {
    soon(join_all(protocols().into_iter().map(lose_commit))).await;
}

async fn lose_commit(broker: BrokerConfig) {
    let config = ProducerConfig {
        delivery_timeout: DELIVERY_TIMEOUT,
        ..ProducerConfig::default()
    };
    let test = TransactionTest::with(broker, config).await;
    let producer = test.open().await;
    all_written(test.send(&producer, &[(0, "a")])).await;
    let ends = test.broker.requests(ApiKey::EndTxn);
    let lost = FaultRule::on(ApiKey::EndTxn, FaultAction::CloseAfter);
    test.broker.faults().add(lost.always());
    let unknown = test.send(&producer, &[(0, "b"), (1, "b")]);
    let ends_now = || test.broker.requests(ApiKey::EndTxn);
    until("the commit is asked for", || ends_now() > ends).await;
    let waiting = test.send(&producer, &[(0, "c")]);
    for (delivered, partition) in all(unknown).await.iter().zip(0..) {
        let Err(ProduceError::UnknownOutcome { partition: tp, .. }) = delivered else {
            panic!("{delivered:?}");
        };
        assert_eq!(*tp, TopicPartition::new("t", partition));
    }
    // Of what waits behind it, it is certain that it is not written.
    let waiting = all(waiting).await;
    assert!(matches!(waiting[0], Err(ProduceError::TimedOut { .. })));
    test.broker.faults().clear();
    all_written(test.send(&producer, &[(0, "d")])).await;
    test.check(&["a", "b", "d"]).await;
}

#[tokio::test]
async fn epochs_that_are_used_up_are_followed_by_another_producer_id() {
    for broker in protocols() {
        let test = TransactionTest::with(broker, ProducerConfig::default()).await;
        soon(test.open().await.close()).await;
        assert!(test.broker.set_producer_epoch("id", i16::MAX - 4));
        let mut values = Vec::new();
        for n in 0..4 {
            // Before KIP-890 only InitProducerId raises the epoch.
            let producer = test.open().await;
            for m in 0..4 {
                let value = format!("{n}{m}");
                all_written(test.send(&producer, &[(0, &value)])).await;
                values.push(value);
            }
        }
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        test.check(&values).await;
    }
}

#[tokio::test]
async fn closing_commits_what_was_sent_and_aborting_or_dropping_does_not() {
    for broker in protocols() {
        let test = TransactionTest::with(broker, ProducerConfig::default()).await;
        let producer = test.open().await;
        let sent = test.send(&producer, &[(0, "a")]);
        soon(producer.close()).await;
        assert!(sent[0].try_result().unwrap().is_ok());
        // Also when nobody waits for it.
        let producer = test.open().await;
        let release = CancellationToken::new();
        test.fault(ApiKey::Produce, FaultAction::Hold(release.clone()));
        let sent = test.send(&producer, &[(0, "b")]);
        let mut close = Box::pin(producer.close());
        assert!(close.as_mut().now_or_never().is_none());
        drop(close);
        release.cancel();
        all_written(sent).await;
        for ends in ["aborted", "dropped"] {
            let producer = test.open().await;
            let release = CancellationToken::new();
            test.fault(ApiKey::Produce, FaultAction::Hold(release.clone()));
            let requests = test.broker.requests(ApiKey::Produce);
            let sent = test.send(&producer, &[(0, ends)]);
            until("it is sent", || {
                test.broker.requests(ApiKey::Produce) > requests
            })
            .await;
            let waiting = test.send(&producer, &[(0, "waits")]);
            let clone = producer.clone();
            drop(producer);
            match ends {
                "aborted" => {
                    let abort = tokio::spawn(clone.abort());
                    let sent = all(sent.into_iter().chain(waiting).collect()).await;
                    release.cancel();
                    soon(abort).await.unwrap();
                    assert!(
                        sent.iter()
                            .all(|d| matches!(d, Err(ProduceError::Aborted { .. })))
                    );
                }
                _ => {
                    drop(clone);
                    let sent = all(sent.into_iter().chain(waiting).collect()).await;
                    release.cancel();
                    assert!(
                        sent.iter()
                            .all(|d| matches!(d, Err(ProduceError::Aborted { .. })))
                    );
                }
            }
            until("it is aborted", || {
                test.broker.transaction_state("id") != Some("Ongoing")
            })
            .await;
        }
        test.check(&["a", "b"]).await;
    }
}

#[tokio::test]
async fn a_topic_that_may_not_be_written_to_fails_its_frames_alone() {
    for broker in protocols() {
        let test = TransactionTest::with(broker, ProducerConfig::default()).await;
        let producer = test.open().await;
        let refusal = FaultAction::Error(TOPIC_AUTHORIZATION_FAILED);
        let api = match test.broker.requests(ApiKey::AddPartitionsToTxn) {
            0 => ApiKey::Produce,
            _ => ApiKey::AddPartitionsToTxn,
        };
        test.fault(api, refusal);
        let refused = all(test.send(&producer, &[(0, "a")])).await;
        assert!(
            matches!(refused[0], Err(ProduceError::NotAuthorized { .. })),
            "{refused:?}"
        );
        all_written(test.send(&producer, &[(0, "b")])).await;
        test.check(&["b"]).await;
    }
}

#[tokio::test]
async fn who_may_not_use_the_id_gets_no_producer() {
    let test = TransactionTest::new().await;
    let refusal = FaultAction::Error(ID_AUTHORIZATION_FAILED);
    test.fault(ApiKey::InitProducerId, refusal);
    let refused = test.try_open().await.unwrap_err();
    assert!(matches!(refused, TransactionError::NotAuthorized { .. }));
    assert!(refused.to_string().contains("transactional id id"));
}

#[tokio::test]
async fn a_thousand_producers_share_a_few_connections() {
    let test = TransactionTest::new().await;
    let open = |n: usize| {
        let transactional = TransactionalConfig {
            transactional_id: format!("id-{n}").into(),
            transaction_timeout: Duration::from_secs(60),
        };
        TransactionalProducer::open(test.cluster.clone(), &test.config, transactional)
    };
    let producers = soon(join_all((0..1_000).map(open))).await;
    let mut deliveries = Vec::new();
    for producer in &producers {
        deliveries.extend(test.send(producer.as_ref().unwrap(), &[(0, "a"), (1, "b")]));
    }
    all_written(deliveries).await;
    let connections = test.cluster.connections();
    assert!(connections < 12, "{connections} connections");
}
