//! Consumer groups of ours when things happen at the worst moment, against the in-memory
//! broker.

use std::time::Duration;

use kafka_websocket_proxy::broker::{Action, ApiKey, Rule};
use kafka_websocket_proxy::kafka::consumer::{Consumer, Event};
use kafka_websocket_proxy::kafka::fetch::Position;
use tokio::time::timeout;

use crate::group_faults::{Rig, next};
use crate::support::reader::subscription;

fn at(offset: i64) -> Position {
    Position {
        offset,
        leader_epoch: 0,
    }
}

/// Reads until there are records.
async fn started(consumer: &mut Consumer) {
    while !matches!(next(consumer).await, Event::Records(_)) {}
}

#[tokio::test]
async fn a_coordinator_that_is_sought_while_joining_holds_up_no_sync() {
    let rig = Rig::new(1).await;
    let all = rig.topic("t", 1).await;
    let mut consumer = rig.process.consumer(subscription("g", &["t"]));
    started(&mut consumer).await;
    let faults = rig.broker.faults();
    // JoinGroup is answered while FindCoordinator is not.
    let delay = |ms| Action::Delay(Duration::from_millis(ms));
    faults.add(Rule::on(ApiKey::JoinGroup, delay(150)));
    faults.add(Rule::on(ApiKey::FindCoordinator, delay(500)));
    faults.add(Rule::on(ApiKey::OffsetCommit, Action::Error(16)));
    faults.add(Rule::on(ApiKey::Heartbeat, Action::Error(27)));
    rig.until("it joins", || faults.left() == 2).await;
    consumer.store(&all[0], at(3));
    consumer.request_commit();
    rig.until("it seeks", || faults.left() == 0).await;
    let committed = timeout(Duration::from_secs(5), consumer.commit()).await;
    assert_eq!(committed, Ok(Ok(())));
    assert_eq!(rig.broker.group("g").unwrap().state, "Stable");
}
