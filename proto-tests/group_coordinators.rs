//! Which broker a group's members take for its coordinator, and how they leave it, against the
//! in-memory broker.

use kafka_client::BrokerId;
use memory_broker::{ApiKey, FaultAction, FaultRule};
use tokio_util::sync::CancellationToken;

use crate::group_faults::GroupFixture;
use crate::support::reader::{Reader, subscription, until_assigned};

#[tokio::test]
async fn a_join_stays_parked_when_another_broker_is_named_that_is_not_the_coordinator() {
    let fixture = GroupFixture::new(2).await;
    fixture.topic("t", 1).await;
    let (broker, faults) = (&fixture.broker, fixture.broker.faults());
    broker.move_coordinator("g", BrokerId(1));
    let (joins, asked) = (CancellationToken::new(), CancellationToken::new());
    let parked = FaultAction::HoldBefore(joins.clone());
    faults.add(FaultRule::on(ApiKey::JoinGroup, parked).at(1));
    let mut member = subscription("g", &["t"]);
    member.instance_id = Some("i".into());
    let mut reader = fixture.process.reader(member);
    fixture.until("it is parked", || faults.left() == 0).await;
    // It is asked whether it is the coordinator when it is so no more.
    let held = FaultAction::HoldBefore(asked.clone());
    faults.add(FaultRule::on(ApiKey::OffsetFetch, held).at(2));
    broker.move_coordinator("g", BrokerId(2));
    fixture.until("it is asked", || faults.left() == 0).await;
    broker.move_coordinator("g", BrokerId(1));
    asked.cancel();
    joins.cancel();
    reader.until("read", |seen| seen.count() == 5).await;
    assert_eq!(broker.requests(ApiKey::JoinGroup), 1);
    reader.close().await;
}

#[tokio::test]
async fn a_member_that_fails_leaves_its_partitions_to_the_others_at_once() {
    for instances in [false, true] {
        let fixture = GroupFixture::new(1).await;
        fixture.topic("t", 2).await;
        let reader = |instance: &str| {
            let mut member = subscription("g", &["t"]);
            member.instance_id = instances.then(|| instance.into());
            fixture.process.reader(member)
        };
        let (mut a, mut b) = (reader("a"), reader("b"));
        until_assigned("two", &mut [&mut a, &mut b], 2, 1).await;
        // Not authorized; whose heartbeat it is, does not matter.
        let refused = FaultRule::on(ApiKey::Heartbeat, FaultAction::Error(30));
        fixture.broker.faults().add(refused);
        fixture
            .until("one fails", || {
                let closed = |reader: &Reader| reader.seen.borrow().closed.is_some();
                closed(&a) || closed(&b)
            })
            .await;
        let mut other = if a.seen.borrow().closed.is_some() {
            b
        } else {
            a
        };
        // Long before the session of the one that has failed ends.
        other.until("alone", |seen| seen.owned.len() == 2).await;
        other.close().await;
    }
}
