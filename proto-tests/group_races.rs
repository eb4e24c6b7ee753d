//! Races of our consumers in groups with rebalances, commits and resets, against the in-memory
//! broker.

use std::time::Duration;

use kafka_client::config::{AssignorName, ConsumerConfig};
use kafka_client::consumer::{Consumer, ConsumerEvent, PartitionRevocation, Subscription};
use kafka_client::fetcher::FetchPosition;
use kafka_client::group::OffsetResetStrategy;
use memory_broker::{ApiKey, FaultAction, FaultRule, KafkaRelease};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::group_faults::{GroupFixture, next, quick};
use crate::support::PATIENCE;
use crate::support::reader::{Reader, subscription, until_assigned};

fn at(offset: i64) -> FetchPosition {
    FetchPosition {
        offset,
        leader_epoch: 0,
    }
}

/// Reads until there are records.
async fn started(consumer: &mut Consumer) {
    while !matches!(next(consumer).await, ConsumerEvent::Records(_)) {}
}

/// Reads until partitions are revoked.
async fn revoked(consumer: &mut Consumer) -> PartitionRevocation {
    loop {
        if let ConsumerEvent::Revoked(revocation) = next(consumer).await {
            return revocation;
        }
    }
}

fn with_reset(reset: OffsetResetStrategy) -> Subscription {
    Subscription {
        reset,
        ..subscription("g", &["t"])
    }
}

#[tokio::test]
async fn a_coordinator_lookup_while_joining_delays_no_sync() {
    let fixture = GroupFixture::new(1).await;
    let all = fixture.topic("t", 1).await;
    let mut consumer = fixture.process.consumer(subscription("g", &["t"]));
    started(&mut consumer).await;
    let faults = fixture.broker.faults();
    // JoinGroup is answered while FindCoordinator is not.
    let (joined, found) = (CancellationToken::new(), CancellationToken::new());
    let join = FaultAction::Hold(joined.clone());
    faults.add(FaultRule::on(ApiKey::JoinGroup, join));
    let find = FaultAction::Hold(found.clone());
    faults.add(FaultRule::on(ApiKey::FindCoordinator, find));
    faults.add(FaultRule::on(ApiKey::OffsetCommit, FaultAction::Error(16)));
    faults.add(FaultRule::on(ApiKey::Heartbeat, FaultAction::Error(27)));
    fixture.until("it joins", || faults.left() == 2).await;
    consumer.store_offset(&all[0], at(3));
    consumer.request_commit();
    fixture.until("it seeks", || faults.left() == 0).await;
    let synced = fixture.broker.requests(ApiKey::SyncGroup);
    joined.cancel();
    fixture
        .until("it syncs", || {
            fixture.broker.requests(ApiKey::SyncGroup) > synced
        })
        .await;
    found.cancel();
    let committed = timeout(PATIENCE, consumer.commit()).await;
    assert_eq!(committed, Ok(Ok(())));
    assert_eq!(fixture.broker.group("g").unwrap().state, "Stable");
}

#[tokio::test]
async fn records_written_while_a_partition_moves_are_read_from_where_the_group_began() {
    for assignor in [AssignorName::CooperativeSticky, AssignorName::Range] {
        let config = ConsumerConfig {
            assignors: vec![assignor],
            ..quick()
        };
        let fixture = GroupFixture::with(1, KafkaRelease::V4, config).await;
        let all = fixture.topic("t", 2).await;
        // At the end of both, where no records come: there is nothing to acknowledge.
        let mut a = fixture
            .process
            .consumer(with_reset(OffsetResetStrategy::Latest));
        while !matches!(next(&mut a).await, ConsumerEvent::Assigned(_)) {}
        let mut b = fixture
            .process
            .reader(with_reset(OffsetResetStrategy::Latest));
        let revocation = revoked(&mut a).await;
        for tp in &all {
            fixture.produce(tp, 5).await;
        }
        a.release(revocation);
        let mut a = Reader::start(a);
        until_assigned("shared", &mut [&mut a, &mut b], 2, 1).await;
        for tp in &all {
            fixture.produce(tp, 1).await;
        }
        for reader in [a, b] {
            let mut reader = reader;
            let seen = reader.until("all of it", |seen| seen.count() > 0).await;
            let first = seen.values.values().next().unwrap()[0].0;
            assert_eq!(first, 5, "{assignor:?}");
        }
    }
}

#[tokio::test]
async fn a_group_that_begins_at_the_end_resumes_where_it_began() {
    let fixture = GroupFixture::new(1).await;
    let all = fixture.topic("t", 1).await;
    let mut consumer = fixture
        .process
        .consumer(with_reset(OffsetResetStrategy::Latest));
    while !matches!(next(&mut consumer).await, ConsumerEvent::Assigned(_)) {}
    consumer.close().await;
    fixture.produce(&all[0], 1).await;
    let mut again = fixture
        .process
        .reader(with_reset(OffsetResetStrategy::Latest));
    let seen = again.until("what came", |seen| seen.count() > 0).await;
    assert_eq!(seen.values[&all[0]][0].0, 5);
}

#[tokio::test]
async fn a_reset_replaces_the_offset_out_of_range() {
    for (reset, now) in [
        (OffsetResetStrategy::Earliest, 3),
        (OffsetResetStrategy::Latest, 5),
    ] {
        let fixture = GroupFixture::new(1).await;
        let all = fixture.topic("t", 1).await;
        let mut consumer = fixture.process.consumer(subscription("g", &["t"]));
        started(&mut consumer).await;
        consumer.store_offset(&all[0], at(1));
        consumer.close().await;
        fixture.broker.delete_before(&all[0], 3);
        let mut consumer = fixture.process.consumer(with_reset(reset));
        let reading = async {
            loop {
                consumer.next().await;
            }
        };
        tokio::select! {
            () = reading => {}
            () = fixture.committed("g", &all[0], now) => {}
        }
    }
}

#[tokio::test]
async fn a_client_that_commits_all_the_time_releases_partitions_in_time() {
    // The revocation timeout is longer than this test.
    assert!(quick().max_poll_interval > PATIENCE);
    let fixture = GroupFixture::new(1).await;
    let all = fixture.topic("t", 2).await;
    let mut a = fixture.process.consumer(subscription("g", &["t"]));
    started(&mut a).await;
    let mut b = fixture.process.reader(subscription("g", &["t"]));
    let revocation = revoked(&mut a).await;
    let gone = revocation.partitions().to_vec();
    let kept = all.iter().find(|tp| !gone.contains(tp)).unwrap();
    let slow = FaultAction::Delay(Duration::from_millis(20));
    fixture
        .broker
        .faults()
        .add(FaultRule::on(ApiKey::OffsetCommit, slow).always());
    a.store_offset(kept, at(1));
    a.request_commit();
    a.release(revocation);
    // At the response to each commit the next one is pending.
    let committing = async {
        for n in 0.. {
            a.store_offset(kept, at(1 + n % 5));
            a.request_commit();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        () = committing => {}
        seen = b.until("reassigned", |seen| seen.owned.len() == 1) => {
            assert_eq!(seen.owned.iter().collect::<Vec<_>>(), [&gone[0]]);
        }
    }
}

/// The group removes its member, which learns of it by its next heartbeat.
fn expire_only_member(fixture: &GroupFixture) {
    let members = fixture.broker.group("g").unwrap().members;
    assert_eq!(members.len(), 1);
    assert!(fixture.broker.expire_member("g", &members[0]));
}

#[tokio::test]
async fn what_was_stored_before_a_loss_is_not_committed_after_it() {
    let fixture = GroupFixture::with(1, KafkaRelease::V4, quick()).await;
    let all = fixture.topic("t", 1).await;
    let mut consumer = fixture.process.consumer(subscription("g", &["t"]));
    started(&mut consumer).await;
    consumer.store_offset(&all[0], at(3));
    // The group removes the member and assigns the partition to it again at once; the consumer
    // has received neither event yet.
    let asked = fixture.broker.requests(ApiKey::OffsetFetch);
    expire_only_member(&fixture);
    fixture
        .until("reassigned", || {
            fixture.broker.requests(ApiKey::OffsetFetch) > asked
        })
        .await;
    let heartbeats = fixture.broker.requests(ApiKey::Heartbeat);
    fixture
        .until("positions are initialized", || {
            fixture.broker.requests(ApiKey::Heartbeat) > heartbeats + 1
        })
        .await;
    assert!(!consumer.commit_offset(&all[0], at(2)), "it is lost");
    consumer.store_offset(&all[0], at(3));
    assert_eq!(consumer.commit().await, Ok(()));
    assert_eq!(fixture.broker.committed("g", &all[0]), None);
    assert!(matches!(next(&mut consumer).await, ConsumerEvent::Lost(_)));
    assert!(!consumer.commit_offset(&all[0], at(2)), "it is not owned");
    assert!(matches!(
        next(&mut consumer).await,
        ConsumerEvent::Assigned(_)
    ));
    consumer.store_offset(&all[0], at(1));
    assert_eq!(consumer.commit().await, Ok(()));
    assert_eq!(fixture.broker.committed("g", &all[0]), Some(1));
}

#[tokio::test]
async fn an_acknowledgement_from_before_a_loss_does_not_move_the_committed_offset_back() {
    let fixture = GroupFixture::with(1, KafkaRelease::V4, quick()).await;
    let all = fixture.topic("t", 1).await;
    let mut consumer = fixture.process.consumer(subscription("g", &["t"]));
    started(&mut consumer).await;
    consumer.store_offset(&all[0], at(4));
    assert_eq!(consumer.commit().await, Ok(()));
    expire_only_member(&fixture);
    while !matches!(next(&mut consumer).await, ConsumerEvent::Assigned(_)) {}
    consumer.store_offset(&all[0], at(2));
    assert_eq!(consumer.commit().await, Ok(()));
    assert_eq!(fixture.broker.committed("g", &all[0]), Some(4));
    consumer.store_offset(&all[0], at(5));
    assert_eq!(consumer.commit().await, Ok(()));
    assert_eq!(fixture.broker.committed("g", &all[0]), Some(5));
}

#[tokio::test]
async fn records_after_a_truncation_are_acknowledged_below_where_reading_began() {
    let fixture = GroupFixture::new(2).await;
    let all = fixture.topic("t", 1).await;
    let mut consumer = fixture.process.consumer(subscription("g", &["t"]));
    started(&mut consumer).await;
    consumer.store_offset(&all[0], at(5));
    consumer.close().await;
    let mut consumer = fixture.process.consumer(subscription("g", &["t"]));
    while !matches!(next(&mut consumer).await, ConsumerEvent::Assigned(_)) {}
    fixture.truncate(&all[0], 2, 2).await;
    started(&mut consumer).await;
    consumer.store_offset(&all[0], at(3));
    assert_eq!(consumer.commit().await, Ok(()));
    assert_eq!(fixture.broker.committed("g", &all[0]), Some(3));
}

#[tokio::test]
async fn what_a_truncation_took_away_is_not_acknowledged_any_more() {
    let fixture = GroupFixture::new(2).await;
    let all = fixture.topic("t", 1).await;
    let mut consumer = fixture.process.consumer(subscription("g", &["t"]));
    started(&mut consumer).await;
    fixture.truncate(&all[0], 2, 1).await;
    started(&mut consumer).await;
    // Of the record at 4, which was delivered before the truncation.
    consumer.store_offset(&all[0], at(5));
    assert!(!consumer.commit_offset(&all[0], at(5)));
    assert_eq!(consumer.commit().await, Ok(()));
    assert_eq!(fixture.broker.committed("g", &all[0]), None);
    assert!(consumer.commit_offset(&all[0], at(3)));
    assert_eq!(consumer.commit().await, Ok(()));
    assert_eq!(fixture.broker.committed("g", &all[0]), Some(3));
}

#[tokio::test]
async fn a_slow_commit_delays_no_other_members() {
    let fixture = GroupFixture::new(1).await;
    fixture.topic("t", 2).await;
    let mut slow = fixture.process.consumer(subscription("g", &["t"]));
    let mut quick = fixture.process.consumer(subscription("g", &["t"]));
    let (mut a, mut b) = (None, None);
    // Each has released all but one partition.
    while a.is_none() || b.is_none() || a == b {
        for (consumer, owned) in [(&mut slow, &mut a), (&mut quick, &mut b)] {
            while let Some(event) = consumer.try_next() {
                if let ConsumerEvent::Revoked(revocation) = event {
                    consumer.release(revocation);
                }
            }
            let all: Vec<_> = consumer.assignment().cloned().collect();
            *owned = (all.len() == 1).then(|| all[0].clone());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let answer = CancellationToken::new();
    let hold = FaultAction::Hold(answer.clone());
    fixture
        .broker
        .faults()
        .add(FaultRule::on(ApiKey::OffsetCommit, hold));
    slow.store_offset(&a.unwrap(), at(3));
    slow.request_commit();
    fixture
        .until("the commit is held", || fixture.broker.faults().left() == 0)
        .await;
    quick.store_offset(&b.unwrap(), at(3));
    let committed = timeout(PATIENCE, quick.commit()).await;
    assert_eq!(committed, Ok(Ok(())));
    answer.cancel();
}
