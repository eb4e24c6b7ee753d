//! Commits that are slow or fail: what they hold up, and what they do not.

use kafka_client::consumer::{ConsumerEvent, FetchPosition};
use memory_broker::{ApiKey, FaultAction, FaultRule, KafkaRelease};
use tokio_util::sync::CancellationToken;

use crate::group_faults::{GroupFixture, next, quick};
use crate::support::reader::subscription;
use crate::support::until;

fn at(offset: i64) -> FetchPosition {
    FetchPosition {
        offset,
        leader_epoch: 0,
    }
}

#[tokio::test]
async fn slow_commits_come_less_often_and_carry_the_newest_offset() {
    let fixture = GroupFixture::new(1).await;
    let tp = &fixture.topic("t", 1).await[0];
    let mut consumer = fixture.process.consumer(subscription("g", &["t"]));
    while !matches!(next(&mut consumer).await, ConsumerEvent::Records(_)) {}
    let before = fixture.broker.requests(ApiKey::OffsetCommit);
    let replicated = CancellationToken::new();
    let slow = FaultAction::Hold(replicated.clone());
    let faults = fixture.broker.faults();
    faults.add(FaultRule::on(ApiKey::OffsetCommit, slow));
    // As in five commit intervals while the first commit is on its way.
    for offset in 1..=5 {
        consumer.store_offset(tp, at(offset));
        consumer.request_commit();
        until("the first commit is sent", || faults.left() == 0).await;
    }
    replicated.cancel();
    consumer.commit().await.unwrap();
    assert_eq!(fixture.broker.committed("g", tp), Some(5));
    let commits = fixture.broker.requests(ApiKey::OffsetCommit) - before;
    assert_eq!(commits, 2);
    consumer.close().await;
}

#[tokio::test]
async fn an_offset_of_a_topic_that_is_gone_does_not_fail_the_commit_of_others() {
    for release in [KafkaRelease::V2_1, KafkaRelease::V2_8, KafkaRelease::V4] {
        let fixture = GroupFixture::with(1, release, quick()).await;
        let kept = fixture.topic("kept", 1).await.remove(0);
        let gone = fixture.topic("gone", 1).await.remove(0);
        let mut consumer = fixture
            .process
            .consumer(subscription("g", &["gone", "kept"]));
        let mut seen = 0;
        while seen < 2 {
            if let ConsumerEvent::Records(_) = next(&mut consumer).await {
                seen += 1;
            }
        }
        assert!(fixture.broker.delete_topic("gone"));
        consumer.store_offset(&gone, at(5));
        consumer.store_offset(&kept, at(5));
        // In one request, if they are sent at all.
        let all = consumer.commit();
        let kept = async || fixture.committed("g", &kept, 5).await;
        let (all, ()) = tokio::join!(all, kept());
        assert!(all.is_err(), "{release:?}");
        assert_eq!(fixture.broker.committed("g", &gone), None);
        consumer.close().await;
    }
}
