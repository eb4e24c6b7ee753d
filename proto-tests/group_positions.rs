//! One position per partition: what has none yet holds up no other, against the in-memory broker.

use std::sync::Arc;

use kafka_client::consumer::{Consumer, ConsumerEvent};
use kafka_client::fetcher::FetchPosition;
use kafka_client::{BrokerId, IsolationLevel, TopicPartition};
use memory_broker::{ApiKey, BrokerConfig, FaultAction, FaultRule, MemoryBroker};
use runtime::wake::WakeSignal;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::group_faults::{GroupFixture, next, quick};
use crate::support::PATIENCE;
use crate::support::reader::{Process, subscription};

/// Two nodes and a topic with a partition on each, with 5 records each; the first partition's
/// leader coordinates the group `g`.
struct TwoLeaders {
    fixture: GroupFixture,
    here: TopicPartition,
    /// On that node alone.
    there: TopicPartition,
    other: BrokerId,
}

impl TwoLeaders {
    async fn new() -> Self {
        let config = BrokerConfig {
            nodes: 2,
            default_replication: 1,
            ..BrokerConfig::default()
        };
        let broker = MemoryBroker::start(config).await.unwrap();
        let process = Process::new(&broker.bootstrap(), quick());
        let fixture = GroupFixture { broker, process };
        let all = fixture.topic("t", 2).await;
        let leader = |tp| fixture.broker.leader(tp).unwrap().0.unwrap();
        let (first, other) = (leader(&all[0]), leader(&all[1]));
        assert_ne!(first, other);
        fixture.broker.move_coordinator("g", first);
        let [here, there] = all.try_into().unwrap();
        Self {
            fixture,
            here,
            there,
            other,
        }
    }

    /// A reader of the group by a process that has asked nothing yet.
    async fn reads_here_and_later_there(&self, appears: impl AsyncFnOnce()) {
        let fresh = Process::new(&self.fixture.broker.bootstrap(), quick());
        let mut reader = fresh.reader(subscription("g", &["t"]));
        let here = reader.until("what has a leader", |seen| seen.count() == 5);
        assert!(here.await.values.contains_key(&self.here));
        self.fixture.committed("g", &self.here, 5).await;
        appears().await;
        let seen = reader.until("all of it", |seen| seen.count() == 10).await;
        assert_eq!(seen.values[&self.there].len(), 5);
        assert_eq!((seen.lost, seen.closed), (0, None));
        self.fixture.committed("g", &self.there, 5).await;
    }
}

#[tokio::test]
async fn a_partition_without_a_leader_holds_up_no_other_and_is_read_when_it_has_one() {
    let leaders = TwoLeaders::new().await;
    let broker = &leaders.fixture.broker;
    assert!(broker.stop_node(leaders.other).await);
    assert_eq!(broker.leader(&leaders.there).unwrap().0, None);
    let appears = async || broker.start_node(leaders.other).await.unwrap();
    leaders.reads_here_and_later_there(appears).await;
}

#[tokio::test]
async fn a_partition_whose_leader_cannot_be_reached_holds_up_no_other() {
    let leaders = TwoLeaders::new().await;
    let broker = &leaders.fixture.broker;
    let address = broker.address(leaders.other).unwrap();
    // Nobody listens there any more.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    broker.advertise(leaders.other, listener.local_addr().unwrap());
    drop(listener);
    let appears = async || broker.advertise(leaders.other, address);
    leaders.reads_here_and_later_there(appears).await;
}

#[tokio::test]
async fn a_partition_whose_leader_hangs_holds_up_no_other() {
    let leaders = TwoLeaders::new().await;
    let answers = CancellationToken::new();
    let hang = FaultAction::HoldBefore(answers.clone());
    let faults = leaders.fixture.broker.faults();
    let lookup = FaultRule::on(ApiKey::ListOffsets, hang).at(leaders.other.0);
    faults.add(lookup.always());
    let appears = async || {
        faults.clear();
        answers.cancel();
    };
    leaders.reads_here_and_later_there(appears).await;
}

#[tokio::test]
async fn a_position_that_is_reset_waits_for_no_other() {
    let leaders = TwoLeaders::new().await;
    let fixture = &leaders.fixture;
    let all = [&leaders.here, &leaders.there];
    let mut consumer = fixture.process.consumer(subscription("g", &["t"]));
    while !is_assigned(&consumer, &all) {
        let event = next(&mut consumer).await;
        assert!(!matches!(event, ConsumerEvent::Closed(_)), "{event:?}");
    }
    for tp in all {
        consumer.store_offset(tp, AT_1);
    }
    consumer.close().await;
    for tp in all {
        assert_eq!(fixture.broker.committed("g", tp), Some(1));
        fixture.broker.delete_before(tp, 3);
    }
    // One that has read nothing yet.
    let fresh = Process::new(&fixture.broker.bootstrap(), quick());
    let mut consumer = fresh.consumer(subscription("g", &["t"]));
    while !is_assigned(&consumer, &all) {
        let _assigned = next(&mut consumer).await;
    }
    // Both are found to be out of range before the consumer looks again: it asks for both
    // positions at once.
    assert!(consumer.try_next().is_none());
    for tp in all {
        out_of_range(&fresh, tp).await;
    }
    let answers = CancellationToken::new();
    let hang = FaultAction::HoldBefore(answers.clone());
    let lookup = FaultRule::on(ApiKey::ListOffsets, hang).at(leaders.other.0);
    fixture.broker.faults().add(lookup);

    let first_of = |tp: &TopicPartition| fixture.broker.offsets(tp).unwrap().0;
    for (at, tp) in all.into_iter().enumerate() {
        if at == 1 {
            fixture
                .until("its leader hangs", || fixture.broker.faults().left() == 0)
                .await;
            answers.cancel();
        }
        loop {
            if let ConsumerEvent::Records(records) = next(&mut consumer).await {
                assert_eq!(records.chunk.tp, *tp);
                assert_eq!(records.from_offset, first_of(tp));
                break;
            }
        }
    }
}

const AT_1: FetchPosition = FetchPosition {
    offset: 1,
    leader_epoch: 0,
};

fn is_assigned(consumer: &Consumer, all: &[&TopicPartition]) -> bool {
    let assigned: Vec<_> = consumer.assignment().collect();
    all.iter().all(|tp| assigned.contains(tp))
}

/// Waits until reading at offset 1 has failed; a consumer's cursors share the read.
async fn out_of_range(process: &Process, tp: &TopicPartition) {
    let wake = Arc::new(WakeSignal::default());
    let fetcher = process.client.fetcher();
    let isolation = IsolationLevel::ReadUncommitted;
    let mut cursor = fetcher.cursor(tp.clone(), AT_1, isolation, Arc::clone(&wake));
    while cursor.try_next().is_ok() {
        timeout(PATIENCE, wake.notified()).await.expect("an error");
    }
}
