//! Our consumers in groups through every error of a coordinator, against the in-memory broker.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use kafka_client::config::{AssignorName, ClientConfig, ConsumerConfig};
use kafka_client::consumer::{ConsumerEvent, Subscription};
use kafka_client::fetcher::FetchPosition;
use kafka_client::group::{CommitError, ConsumerError, OffsetResetStrategy};
use kafka_client::record::NewRecord;
use kafka_client::{BrokerId, IsolationLevel, TopicPartition};
use memory_broker::{ApiKey, BrokerConfig, FaultAction, FaultRule, KafkaRelease, MemoryBroker};
use runtime::wake::WakeSignal;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::raw_client::barrier;
use crate::support::reader::{Process, Reader, Seen, subscription, until_assigned};
use crate::support::{PATIENCE, until};

/// Short intervals, so that nothing has to be waited for, and no limit that a busy machine
/// could reach.
pub(crate) fn quick() -> ConsumerConfig {
    ConsumerConfig {
        session_timeout: Duration::from_secs(600),
        heartbeat_interval: Duration::from_millis(50),
        max_poll_interval: Duration::from_secs(600),
        fetch_max_wait: Duration::from_millis(100),
        ..ConsumerConfig::default()
    }
}

pub(crate) struct GroupFixture {
    pub(crate) broker: MemoryBroker,
    pub(crate) process: Process,
}

/// What a commit takes in a cluster that replicates it.
const REPLICATION_DELAY: Duration = Duration::from_millis(7);

impl GroupFixture {
    pub(crate) async fn new(nodes: usize) -> Self {
        Self::with(nodes, KafkaRelease::V4, quick()).await
    }

    pub(crate) async fn with(
        nodes: usize,
        release: KafkaRelease,
        consumer: ConsumerConfig,
    ) -> Self {
        let config = BrokerConfig {
            nodes,
            versions: release.versions(),
            offset_commit_delay: REPLICATION_DELAY,
            ..BrokerConfig::default()
        };
        let broker = MemoryBroker::start(config).await.unwrap();
        let process = Process::new(&broker.bootstrap(), consumer);
        Self { broker, process }
    }

    pub(crate) async fn produce(&self, tp: &TopicPartition, count: usize) {
        Self::produce_by(&self.process, tp, count).await;
    }

    pub(crate) async fn produce_by(process: &Process, tp: &TopicPartition, count: usize) {
        let client = &process.client;
        let topic = client.cluster().metadata().topic(&tp.topic).await.unwrap();
        for n in 0..count {
            let value = format!("v{n}");
            let record = NewRecord {
                key: None,
                value: Some(value.as_bytes()),
                headers: &[],
                timestamp: 1,
            };
            let sent = client
                .producer()
                .send(&topic, Some(tp.partition), &record)
                .await;
            timeout(PATIENCE, sent.unwrap()).await.unwrap().unwrap();
        }
    }

    /// A topic of that many partitions with 5 records each.
    pub(crate) async fn topic(&self, name: &str, partitions: i32) -> Vec<TopicPartition> {
        assert!(self.broker.create_topic(name, partitions));
        let all: Vec<_> = (0..partitions)
            .map(|p| TopicPartition::new(name, p))
            .collect();
        for tp in &all {
            self.produce(tp, 5).await;
        }
        all
    }

    /// Cuts a log of two nodes off at `offset`, as an unclean election does; then another
    /// producer writes `count` records: the first one's sequence was truncated too.
    pub(crate) async fn truncate(&self, tp: &TopicPartition, offset: i64, count: usize) {
        self.broker.truncate(tp, offset);
        let (leader, _) = self.broker.leader(tp).unwrap();
        let other = BrokerId(3 - leader.unwrap().0);
        self.broker.move_leader(tp, other);
        let fresh = Process::new(&self.broker.bootstrap(), quick());
        Self::produce_by(&fresh, tp, count).await;
    }

    pub(crate) async fn committed(&self, group: &str, tp: &TopicPartition, offset: i64) {
        self.until("committed", || {
            self.broker.committed(group, tp) == Some(offset)
        })
        .await;
    }

    pub(crate) async fn until(&self, what: &str, enough: impl FnMut() -> bool) {
        until(what, enough).await;
    }

    pub(crate) fn members(&self, group: &str) -> usize {
        self.broker
            .group(group)
            .map_or(0, |group| group.members.len())
    }
}

pub(crate) async fn next(consumer: &mut kafka_client::consumer::Consumer) -> ConsumerEvent {
    timeout(PATIENCE, consumer.next()).await.expect("an event")
}

async fn closed(fixture: &GroupFixture, subscription: Subscription) -> ConsumerError {
    let mut consumer = fixture.process.consumer(subscription);
    loop {
        if let ConsumerEvent::Closed(error) = next(&mut consumer).await {
            return error;
        }
    }
}

#[tokio::test]
async fn every_release_can_be_joined_read_and_committed_to() {
    for release in [
        KafkaRelease::V2_1,
        KafkaRelease::V2_8,
        KafkaRelease::V3_9,
        KafkaRelease::V4,
    ] {
        for instance in [None, Some("i")] {
            let fixture = GroupFixture::with(1, release, quick()).await;
            let all = fixture.topic("t", 2).await;
            let mut subscription = subscription("g", &["t"]);
            subscription.instance_id = instance.map(Into::into);
            let mut reader = fixture.process.reader(subscription);
            reader.until("all of it", |seen| seen.count() == 10).await;
            reader.close().await;
            for tp in &all {
                assert_eq!(fixture.broker.committed("g", tp), Some(5), "{release:?}");
            }
            assert_eq!(fixture.members("g"), 0, "{release:?}: it has left");
        }
    }
}

/// Faults that happen once and leave no trace in the end.
fn passing_faults() -> Vec<(ApiKey, FaultAction)> {
    let codes: &[(ApiKey, &[i16])] = &[
        (ApiKey::FindCoordinator, &[15, 14, -1]),
        (ApiKey::JoinGroup, &[14, 15, 16, 25, 27, -1]),
        (ApiKey::SyncGroup, &[14, 15, 16, 22, 25, 27, -1]),
        (ApiKey::Heartbeat, &[14, 15, 16, 22, 25, 27, -1]),
        (ApiKey::OffsetFetch, &[14, 15, 16, 88, 22, 25, -1]),
        (ApiKey::OffsetCommit, &[3, 7, 14, 15, 16, 22, 25, 27, -1]),
    ];
    let mut faults = Vec::new();
    for (api, codes) in codes {
        faults.extend(codes.iter().map(|code| (*api, FaultAction::Error(*code))));
        for action in [
            FaultAction::CloseBefore,
            FaultAction::CloseAfter,
            FaultAction::Truncated(9),
            FaultAction::WrongCorrelationId,
            FaultAction::Delay(Duration::from_millis(150)),
            FaultAction::Throttle(50),
        ] {
            faults.push((*api, action));
        }
    }
    faults
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_once_everything_is_read_and_committed() {
    // Side by side: after some of them the coordinator waits for a member that it alone still
    // knows, until its session ends. Sessions are long enough for members that live.
    let cases = passing_faults()
        .into_iter()
        .map(|(api, action)| fails_once(api, action));
    let mut cases = stream::iter(cases).buffer_unordered(16);
    while cases.next().await.is_some() {}
}

async fn fails_once(api: ApiKey, action: FaultAction) {
    let config = ConsumerConfig {
        session_timeout: Duration::from_secs(10),
        ..quick()
    };
    let fixture = GroupFixture::with(1, KafkaRelease::V4, config).await;
    let all = fixture.topic("t", 2).await;
    let what = format!("{api:?} {action:?}");
    fixture.broker.faults().add(FaultRule::on(api, action));
    let mut reader = fixture.process.reader(subscription("g", &["t"]));
    let read = |seen: &Seen| seen.values.len() == 2 && seen.count() >= 10;
    reader.until(&what, read).await;
    fixture
        .until(&what, || fixture.broker.faults().left() == 0)
        .await;
    for tp in &all {
        fixture
            .until(&what, || fixture.broker.committed("g", tp) == Some(5))
            .await;
    }
    let seen = reader.until(&what, |seen| seen.owned.len() == 2).await;
    assert_eq!(seen.closed, None, "{what}");
    reader.close().await;
    fixture.until(&what, || fixture.members("g") == 0).await;
}

#[tokio::test]
async fn a_fatal_error_code_ends_the_consumer_with_its_reason() {
    let cases: &[(ApiKey, i16, &str)] = &[
        (ApiKey::FindCoordinator, 30, "not authorized to use group"),
        (ApiKey::JoinGroup, 30, "not authorized to use group"),
        (
            ApiKey::JoinGroup,
            23,
            "refuses the consumer: it has members",
        ),
        (ApiKey::JoinGroup, 24, "use another group id"),
        (ApiKey::JoinGroup, 26, "session.timeout.ms is not within"),
        (ApiKey::JoinGroup, 81, "it is full"),
        (ApiKey::JoinGroup, 82, "taken over"),
        (ApiKey::SyncGroup, 82, "taken over"),
        (ApiKey::Heartbeat, 82, "taken over"),
        (ApiKey::OffsetFetch, 30, "not authorized to use group"),
    ];
    for (api, code, text) in cases {
        let fixture = GroupFixture::new(1).await;
        fixture.topic("t", 1).await;
        fixture
            .broker
            .faults()
            .add(FaultRule::on(*api, FaultAction::Error(*code)));
        let error = closed(&fixture, subscription("g", &["t"])).await;
        assert!(error.to_string().contains(text), "{api:?} {code}: {error}");
    }
}

#[tokio::test]
async fn a_fenced_member_is_closed_by_its_commit() {
    let fixture = GroupFixture::new(1).await;
    fixture.topic("t", 1).await;
    let mut reader = fixture.process.reader(subscription("g", &["t"]));
    let fenced = FaultRule::on(ApiKey::OffsetCommit, FaultAction::Error(82));
    fixture.broker.faults().add(fenced);
    let seen = reader.until("fenced", |seen| seen.closed.is_some()).await;
    assert!(matches!(seen.closed, Some(ConsumerError::Fenced { .. })));
}

#[tokio::test]
async fn an_unauthorized_commit_fails_alone() {
    let fixture = GroupFixture::new(1).await;
    let all = fixture.topic("t", 1).await;
    let mut consumer = fixture.process.consumer(subscription("g", &["t"]));
    while !matches!(next(&mut consumer).await, ConsumerEvent::Records(_)) {}
    let at = |offset| FetchPosition {
        offset,
        leader_epoch: 0,
    };
    fixture
        .broker
        .faults()
        .add(FaultRule::on(ApiKey::OffsetCommit, FaultAction::Error(29)));
    consumer.store_offset(&all[0], at(3));
    let refused = consumer.commit().await;
    assert!(
        matches!(refused, Err(CommitError::NotAuthorized { .. })),
        "{refused:?}"
    );
    consumer.store_offset(&all[0], at(4));
    assert_eq!(consumer.commit().await, Ok(()));
    assert_eq!(fixture.broker.committed("g", &all[0]), Some(4));
    assert_eq!(consumer.commit().await, Ok(()), "nothing to commit");
    consumer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_survives_a_move_of_its_coordinator() {
    let fixture = GroupFixture::new(3).await;
    let all = fixture.topic("t", 4).await;
    let mut a = fixture.process.reader(subscription("g", &["t"]));
    let mut b = fixture.process.reader(subscription("g", &["t"]));
    until_assigned("two", &mut [&mut a, &mut b], 4, 2).await;
    for node in [2, 3, 1] {
        fixture.broker.move_coordinator("g", BrokerId(node));
        for tp in &all {
            fixture.produce(tp, 5).await;
        }
        for tp in &all {
            let end = fixture.broker.offsets(tp).unwrap().1;
            fixture.committed("g", tp, end).await;
        }
    }
    let coordinator = fixture.broker.coordinator("g").unwrap();
    fixture.broker.stop_node(coordinator).await;
    for tp in &all {
        fixture.produce(tp, 5).await;
    }
    for tp in &all {
        let end = fixture.broker.offsets(tp).unwrap().1;
        fixture.committed("g", tp, end).await;
    }
    until_assigned("still two", &mut [&mut a, &mut b], 4, 2).await;
    a.close().await;
    b.until("alone", |seen| seen.owned.len() == 4).await;
    b.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_are_replicated_slowly_delay_no_heartbeat() {
    const MEMBERS: usize = 40;
    let config = ConsumerConfig {
        session_timeout: Duration::from_secs(10),
        ..quick()
    };
    let fixture = GroupFixture::with(1, KafkaRelease::V4, config).await;
    let all = fixture.topic("t", 1).await;
    let answer = CancellationToken::new();
    let slow = FaultAction::Hold(answer.clone());
    fixture
        .broker
        .faults()
        .add(FaultRule::on(ApiKey::OffsetCommit, slow).times(MEMBERS));
    let group = |n: usize| format!("g{n}");
    let mut readers: Vec<Reader> = (0..MEMBERS)
        .map(|n| fixture.process.reader(subscription(&group(n), &["t"])))
        .collect();
    for reader in &mut readers {
        reader.until("read", |seen| seen.count() == 5).await;
    }
    fixture
        .until("commits are held", || {
            fixture.broker.faults().left() < MEMBERS
        })
        .await;
    // Were one heartbeat to wait behind a commit, then no more would be answered.
    let before = fixture.broker.requests(ApiKey::Heartbeat);
    let enough = before + 20 * MEMBERS as u64;
    fixture
        .until("heartbeats", || {
            fixture.broker.requests(ApiKey::Heartbeat) >= enough
        })
        .await;
    // Nor do the positions of another member.
    let mut other = fixture.process.reader(subscription("other", &["t"]));
    other.until("read", |seen| seen.count() == 5).await;
    answer.cancel();
    for (n, reader) in readers.into_iter().enumerate() {
        fixture.committed(&group(n), &all[0], 5).await;
        assert_eq!(reader.close().await.lost, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_waits_no_longer_at_a_broker_that_is_not_the_coordinator_any_more() {
    let fixture = GroupFixture::new(2).await;
    let all = fixture.topic("t", 1).await;
    fixture.broker.move_coordinator("g", BrokerId(1));
    let unanswered = FaultRule::on(ApiKey::OffsetCommit, FaultAction::Silence);
    fixture.broker.faults().add(unanswered.at(1));
    let mut reader = fixture.process.reader(subscription("g", &["t"]));
    reader.until("read", |seen| seen.count() == 5).await;
    fixture
        .until("the commit is sent", || fixture.broker.faults().left() == 0)
        .await;
    fixture.broker.move_coordinator("g", BrokerId(2));
    // By the heartbeat, long before the request times out.
    fixture.committed("g", &all[0], 5).await;
    reader.close().await;
}

#[tokio::test]
async fn a_join_waits_no_longer_at_a_broker_that_is_not_the_coordinator_any_more() {
    let fixture = GroupFixture::new(2).await;
    fixture.topic("t", 1).await;
    // Neither a heartbeat nor the end of its time tells that the coordinator has moved.
    let client = ClientConfig {
        request_timeout: PATIENCE * 2,
        ..ClientConfig::default()
    };
    let consumer = ConsumerConfig {
        heartbeat_interval: PATIENCE * 2,
        ..quick()
    };
    let process = Process::with(&fixture.broker.bootstrap(), client, consumer);
    for api in [ApiKey::JoinGroup, ApiKey::SyncGroup] {
        let group = format!("{api:?}");
        fixture.broker.move_coordinator(&group, BrokerId(1));
        let unanswered = FaultRule::on(api, FaultAction::Silence);
        fixture.broker.faults().add(unanswered.at(1));
        let mut reader = process.reader(subscription(&group, &["t"]));
        let sent = || fixture.broker.faults().left() == 0;
        fixture.until("it is sent", sent).await;
        fixture.broker.move_coordinator(&group, BrokerId(2));
        reader.until("read", |seen| seen.count() == 5).await;
        reader.close().await;
    }
}

#[tokio::test]
async fn a_join_waits_no_longer_for_a_connection_to_a_broker_that_is_not_the_coordinator_any_more()
{
    let fixture = GroupFixture::new(2).await;
    let all = fixture.topic("t", 1).await;
    fixture.broker.move_leader(&all[0], BrokerId(2));
    fixture.broker.move_coordinator("g", BrokerId(1));
    // As a broker that was stopped: it takes connections, and says nothing on them.
    let hangs = FaultRule::on(ApiKey::ApiVersions, FaultAction::Silence);
    fixture.broker.faults().add(hangs.at(1).always());
    let client = ClientConfig {
        connect_timeout: PATIENCE * 2,
        ..ClientConfig::default()
    };
    let bootstrap = fixture.broker.bootstrap();
    let (_, second) = bootstrap.split_once(',').unwrap();
    let process = Process::with(second, client, quick());
    let asked = || fixture.broker.requests(ApiKey::FindCoordinator);
    let before = asked();
    let mut reader = process.reader(subscription("g", &["t"]));
    fixture
        .until("the coordinator is found", || asked() > before)
        .await;
    fixture.broker.move_coordinator("g", BrokerId(2));
    reader.until("read", |seen| seen.count() == 5).await;
    reader.close().await;
}

#[tokio::test]
async fn an_unanswered_join_blocks_no_other_group() {
    let fixture = GroupFixture::new(1).await;
    fixture.topic("t", 1).await;
    fixture
        .broker
        .faults()
        .add(FaultRule::on(ApiKey::JoinGroup, FaultAction::Silence));
    let stuck = fixture.process.reader(subscription("stuck", &["t"]));
    let stuck_asked = || fixture.broker.faults().left() == 0;
    fixture.until("the join is sent", stuck_asked).await;
    for n in 0..10 {
        let mut reader = fixture
            .process
            .reader(subscription(&format!("g{n}"), &["t"]));
        reader.until("free", |seen| seen.count() == 5).await;
        reader.close().await;
    }
    assert_eq!(stuck.seen.borrow().assigned, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_joins_hold_up_no_other_group() {
    // As many as `group.initial.rebalance.delay.ms` parks at once.
    const GROUPS: usize = 200;
    const MANY: usize = 100_000;
    let fixture = GroupFixture::new(1).await;
    fixture.topic("t", 1).await;
    let answer = CancellationToken::new();
    let parked = FaultAction::Hold(answer.clone());
    fixture
        .broker
        .faults()
        .add(FaultRule::on(ApiKey::JoinGroup, parked).times(MANY));
    let mut readers: Vec<Reader> = (0..GROUPS)
        .map(|n| {
            fixture
                .process
                .reader(subscription(&format!("g{n}"), &["t"]))
        })
        .collect();
    fixture
        .until("all are parked", || {
            fixture.broker.faults().left() <= MANY - GROUPS
        })
        .await;
    answer.cancel();
    for reader in &mut readers {
        reader.until("read", |seen| seen.count() == 5).await;
    }
    // Their connections are closed when they are not needed any more.
    fixture
        .until("few connections", || fixture.broker.connections() < 40)
        .await;
}

#[tokio::test]
async fn the_commit_of_a_topic_that_the_coordinator_does_not_know_is_given_up() {
    let fixture = GroupFixture::new(1).await;
    let all = fixture.topic("t", 1).await;
    let mut consumer = fixture.process.consumer(subscription("g", &["t"]));
    while !matches!(next(&mut consumer).await, ConsumerEvent::Records(_)) {}
    let unknown = FaultRule::on(ApiKey::OffsetCommit, FaultAction::Error(3));
    fixture.broker.faults().add(unknown.always());
    let position = FetchPosition {
        offset: 3,
        leader_epoch: 0,
    };
    consumer.store_offset(&all[0], position);
    let refused = consumer.commit().await;
    assert!(
        matches!(refused, Err(CommitError::Rejected { .. })),
        "{refused:?}"
    );
    // The next one is tried again.
    fixture.broker.faults().clear();
    consumer.store_offset(&all[0], position);
    assert_eq!(consumer.commit().await, Ok(()));
    assert_eq!(fixture.broker.committed("g", &all[0]), Some(3));
    consumer.close().await;
}

#[tokio::test]
async fn what_is_stored_at_a_revocation_is_committed_before_the_next_owner_reads_on() {
    for assignor in [AssignorName::CooperativeSticky, AssignorName::Range] {
        let config = ConsumerConfig {
            assignors: vec![assignor],
            ..quick()
        };
        let fixture = GroupFixture::with(1, KafkaRelease::V4, config).await;
        fixture.topic("t", 2).await;
        let mut a = fixture.process.consumer(subscription("g", &["t"]));
        let mut read = BTreeSet::new();
        while read.len() < 2 {
            if let ConsumerEvent::Records(slice) = next(&mut a).await {
                let tp = slice.chunk.tp.clone();
                // Processed as far as offset 3; nothing has been committed.
                a.store_offset(
                    &tp,
                    FetchPosition {
                        offset: 3,
                        leader_epoch: 0,
                    },
                );
                read.insert(tp);
            }
        }
        let b = fixture.process.reader(subscription("g", &["t"]));
        let revocation = loop {
            if let ConsumerEvent::Revoked(revocation) = next(&mut a).await {
                break revocation;
            }
        };
        // The partition stays with its owner until the slow commit is answered.
        let answer = CancellationToken::new();
        let slow = FaultAction::Hold(answer.clone());
        fixture
            .broker
            .faults()
            .add(FaultRule::on(ApiKey::OffsetCommit, slow));
        a.release(revocation);
        let mut a = Reader::start(a);
        let mut b = b;
        fixture
            .until("the request is held", || {
                fixture.broker.faults().left() == 0
            })
            .await;
        assert_eq!(b.owned().len(), 0, "{assignor:?}");
        answer.cancel();
        until_assigned("shared", &mut [&mut a, &mut b], 2, 1).await;
        let seen = b.until("the rest", |seen| seen.count() == 2).await;
        let first = seen.values.values().next().unwrap()[0].0;
        assert_eq!(first, 3, "{assignor:?}");
        assert_eq!(a.seen.borrow().lost, 0);
    }
}

#[tokio::test]
async fn a_consumer_that_does_not_release_its_partitions_loses_them_in_bounded_time() {
    let config = ConsumerConfig {
        // Also the rebalance timeout, within which the members that live must rejoin.
        max_poll_interval: Duration::from_secs(5),
        ..quick()
    };
    let fixture = GroupFixture::with(1, KafkaRelease::V4, config).await;
    let all = fixture.topic("t", 2).await;
    let mut a = fixture.process.consumer(subscription("g", &["t"]));
    while !matches!(next(&mut a).await, ConsumerEvent::Records(_)) {}
    let mut b = fixture.process.reader(subscription("g", &["t"]));
    let revocation = loop {
        if let ConsumerEvent::Revoked(revocation) = next(&mut a).await {
            break revocation;
        }
    };
    let revoked = revocation.partitions().to_vec();
    assert_eq!(revoked.len(), 1);
    a.store_offset(
        &revoked[0],
        FetchPosition {
            offset: 5,
            leader_epoch: 0,
        },
    );
    let lost = loop {
        match next(&mut a).await {
            ConsumerEvent::Lost(lost) => break lost,
            ConsumerEvent::Records(slice) => assert_ne!(slice.chunk.tp, revoked[0]),
            _ => {}
        }
    };
    assert_eq!(lost, revoked);
    b.until("taken over", |seen| seen.count() == 5).await;
    // Too late: another member owns the partition and commits its offsets.
    a.release(revocation);
    assert_eq!(a.commit().await, Ok(()));
    fixture.committed("g", &revoked[0], 5).await;
    drop(all);
}

#[tokio::test]
async fn a_consumer_that_is_closed_while_it_joins_leaves_no_member_behind() {
    for instance in [None, Some("i")] {
        // Before, between and after the two steps of joining, and in SyncGroup.
        let moments = [
            (ApiKey::FindCoordinator, 0),
            (ApiKey::JoinGroup, 0),
            (ApiKey::JoinGroup, 1),
            (ApiKey::SyncGroup, 0),
            (ApiKey::OffsetFetch, 0),
        ];
        for (api, after) in moments {
            let fixture = GroupFixture::new(1).await;
            fixture.topic("t", 1).await;
            let answer = CancellationToken::new();
            let slow = FaultAction::Hold(answer.clone());
            fixture
                .broker
                .faults()
                .add(FaultRule::on(api, slow).after(after));
            let mut subscription = subscription("g", &["t"]);
            subscription.instance_id = instance.map(Into::into);
            let consumer = fixture.process.consumer(subscription);
            if !(api == ApiKey::JoinGroup && after == 1 && instance.is_some()) {
                fixture
                    .until("the request is held", || {
                        fixture.broker.faults().left() == 0
                    })
                    .await;
            }
            let closing = tokio::spawn(consumer.close());
            barrier(&fixture.broker).await;
            answer.cancel();
            let what = format!("{api:?} {after} {instance:?}");
            timeout(PATIENCE, closing).await.expect(&what).unwrap();
            fixture.until(&what, || fixture.members("g") == 0).await;
        }
    }
}

#[tokio::test]
async fn dropping_a_consumer_leaves_the_group_and_commits_what_was_stored() {
    let fixture = GroupFixture::new(1).await;
    let all = fixture.topic("t", 1).await;
    let mut consumer = fixture.process.consumer(subscription("g", &["t"]));
    while !matches!(next(&mut consumer).await, ConsumerEvent::Records(_)) {}
    consumer.store_offset(
        &all[0],
        FetchPosition {
            offset: 2,
            leader_epoch: 0,
        },
    );
    drop(consumer);
    fixture.committed("g", &all[0], 2).await;
    fixture.until("left", || fixture.members("g") == 0).await;
}

#[tokio::test]
async fn only_what_was_stored_is_committed() {
    let fixture = GroupFixture::new(1).await;
    let all = fixture.topic("t", 1).await;
    let mut consumer = fixture.process.consumer(subscription("g", &["t"]));
    while !matches!(next(&mut consumer).await, ConsumerEvent::Records(_)) {}
    consumer.request_commit();
    assert_eq!(consumer.commit().await, Ok(()));
    consumer.close().await;
    assert_eq!(fixture.broker.committed("g", &all[0]), None);
}

#[tokio::test]
async fn commits_made_while_one_is_in_flight_become_one() {
    let fixture = GroupFixture::new(1).await;
    let all = fixture.topic("t", 1).await;
    let mut consumer = fixture.process.consumer(subscription("g", &["t"]));
    while !matches!(next(&mut consumer).await, ConsumerEvent::Records(_)) {}
    let answer = CancellationToken::new();
    let slow = FaultAction::Hold(answer.clone());
    fixture
        .broker
        .faults()
        .add(FaultRule::on(ApiKey::OffsetCommit, slow).times(100));
    for offset in 1..=5 {
        consumer.store_offset(
            &all[0],
            FetchPosition {
                offset,
                leader_epoch: 0,
            },
        );
        consumer.request_commit();
        fixture
            .until("the first is in flight", || {
                fixture.broker.faults().left() < 100
            })
            .await;
        barrier(&fixture.broker).await;
    }
    answer.cancel();
    assert_eq!(consumer.commit().await, Ok(()));
    assert_eq!(fixture.broker.committed("g", &all[0]), Some(5));
    let sent = 100 - fixture.broker.faults().left();
    assert!(sent <= 2, "{sent} commits");
}

#[tokio::test]
async fn the_reset_strategy_applies_without_a_committed_offset() {
    let fixture = GroupFixture::new(1).await;
    let all = fixture.topic("t", 1).await;
    let with = |group: &str, reset| {
        let mut subscription = subscription(group, &["t"]);
        subscription.reset = reset;
        subscription
    };
    let error = closed(&fixture, with("none", OffsetResetStrategy::None)).await;
    assert!(
        matches!(error, ConsumerError::NoCommittedOffset { .. }),
        "{error}"
    );
    let mut latest = fixture
        .process
        .reader(with("latest", OffsetResetStrategy::Latest));
    latest.until("assigned", |seen| seen.assigned == 1).await;
    fixture.produce(&all[0], 1).await;
    let seen = latest.until("the new one", |seen| seen.count() > 0).await;
    assert_eq!(seen.values[&all[0]][0].0, 5);
    latest.close().await;
    let mut resumed = fixture
        .process
        .reader(with("latest", OffsetResetStrategy::None));
    resumed.until("assigned", |seen| seen.assigned == 1).await;
    assert_eq!(resumed.close().await.count(), 0, "it was committed");
}

#[tokio::test]
async fn a_committed_offset_out_of_range_is_reset_by_the_strategy() {
    for reset in [
        OffsetResetStrategy::Earliest,
        OffsetResetStrategy::Latest,
        OffsetResetStrategy::None,
    ] {
        let fixture = GroupFixture::new(1).await;
        let all = fixture.topic("t", 1).await;
        let mut consumer = fixture.process.consumer(subscription("g", &["t"]));
        while !matches!(next(&mut consumer).await, ConsumerEvent::Records(_)) {}
        consumer.store_offset(
            &all[0],
            FetchPosition {
                offset: 1,
                leader_epoch: 0,
            },
        );
        consumer.close().await;
        fixture.broker.delete_before(&all[0], 3);
        let mut subscription = subscription("g", &["t"]);
        subscription.reset = reset;
        if reset == OffsetResetStrategy::None {
            let error = closed(&fixture, subscription).await;
            assert!(
                matches!(error, ConsumerError::NoCommittedOffset { .. }),
                "{error}"
            );
            continue;
        }
        let mut reader = fixture.process.reader(subscription);
        reader.until("assigned", |seen| seen.assigned == 1).await;
        if reset == OffsetResetStrategy::Latest {
            // It is at the end when it is given what is written now.
            let writing = async {
                while reader.seen.borrow().count() == 0 {
                    fixture.produce(&all[0], 1).await;
                }
            };
            timeout(PATIENCE, writing).await.expect("it reads on");
        }
        let seen = reader.until("records", |seen| seen.count() > 0).await;
        let first = seen.values[&all[0]][0].0;
        assert!(
            if reset == OffsetResetStrategy::Earliest {
                first == 3
            } else {
                first >= 5
            },
            "{first}"
        );
    }
}

#[tokio::test]
async fn a_truncated_log_is_read_on_from_the_truncation() {
    let fixture = GroupFixture::new(2).await;
    assert!(fixture.broker.create_topic("t", 1));
    let tp = TopicPartition::new("t", 0);
    fixture.produce(&tp, 5).await;
    let mut reader = fixture.process.reader(subscription("g", &["t"]));
    reader.until("all", |seen| seen.count() == 5).await;
    fixture.truncate(&tp, 2, 4).await;
    let seen = reader
        .until("what came after the truncation", |seen| seen.count() >= 9)
        .await;
    let offsets: Vec<i64> = seen.values[&tp].iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, [0, 1, 2, 3, 4, 2, 3, 4, 5]);
    assert_eq!(seen.closed, None);
}

#[tokio::test]
async fn a_deleted_topic_ends_its_consumers() {
    let fixture = GroupFixture::new(1).await;
    fixture.topic("t", 1).await;
    let mut reader = fixture.process.reader(subscription("g", &["t"]));
    reader.until("all", |seen| seen.count() == 5).await;
    assert!(fixture.broker.delete_topic("t"));
    let seen = reader.until("closed", |seen| seen.closed.is_some()).await;
    assert!(
        matches!(seen.closed, Some(ConsumerError::UnknownTopic { .. })),
        "{:?}",
        seen.closed
    );
}

#[tokio::test]
async fn partitions_take_turns() {
    let fixture = GroupFixture::new(1).await;
    let all = fixture.topic("t", 3).await;
    let mut consumer = fixture.process.consumer(subscription("g", &["t"]));
    let mut order = Vec::new();
    while order.len() < 3 {
        if let ConsumerEvent::Records(slice) = next(&mut consumer).await {
            order.push(slice.chunk.tp.clone());
            // All three have something before the second is asked for: cursors of our own
            // share the reads of the consumer's.
            for tp in &all {
                fetched(&fixture, tp).await;
            }
        }
    }
    let distinct: BTreeSet<_> = order.iter().collect();
    assert_eq!(distinct.len(), all.len(), "{order:?}");
}

/// Waits until the start of a partition has been read from the broker.
async fn fetched(fixture: &GroupFixture, tp: &TopicPartition) {
    let client = &fixture.process.client;
    let start = FetchPosition {
        offset: 0,
        leader_epoch: -1,
    };
    let wake = Arc::new(WakeSignal::default());
    let isolation = IsolationLevel::ReadUncommitted;
    let mut cursor = client
        .fetcher()
        .cursor(tp.clone(), start, isolation, Arc::clone(&wake));
    while cursor.try_next().unwrap().is_none() {
        timeout(PATIENCE, wake.notified()).await.expect("records");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_members_of_one_group_in_one_process_join_together() {
    let fixture = GroupFixture::new(1).await;
    assert!(fixture.broker.create_topic("t", 40));
    let mut readers: Vec<Reader> = (0..40)
        .map(|_| fixture.process.reader(subscription("g", &["t"])))
        .collect();
    let mut all: Vec<&mut Reader> = readers.iter_mut().collect();
    until_assigned("forty", &mut all, 40, 1).await;
    for reader in readers {
        reader.close().await;
    }
    assert_eq!(fixture.members("g"), 0);
}
