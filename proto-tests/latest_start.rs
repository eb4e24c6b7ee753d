//! `offsetResetStrategy=latest`: where a group begins is decided before its socket's 101.

use kafka_client::config::CompressionType;
use kafka_client::record::{NewRecord, RecordBatchBuilder};
use kafka_client::{BrokerId, TopicPartition};
use memory_broker::{ApiKey, BrokerConfig, FaultAction, FaultRule};
use serde_json::{Value, json};
use tokio::task::block_in_place;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::kafka::{Kafka, unique};
use crate::support::program::Program;
use crate::support::proxy::Proxy;
use crate::support::ws_client::WsClient;
use crate::support::{PATIENCE, until};

const LATEST: &str = "/socket/out?topic=t&groupId=g&offsetResetStrategy=latest";

/// Appends a record to a partition of `t`.
fn append(proxy: &Proxy, partition: i32, value: &str) {
    let mut builder = RecordBatchBuilder::new(100);
    builder.append(&NewRecord {
        key: None,
        value: Some(value.as_bytes()),
        headers: &[],
        timestamp: 7,
    });
    let mut batch = builder.build(CompressionType::None);
    batch.set_producer_state(-1, -1, -1);
    let tp = TopicPartition::new("t", partition);
    assert!(proxy.broker.append(&tp, &batch.bytes()).is_some());
}

/// The next so many records' values.
async fn values(socket: &mut WsClient, n: usize) -> Vec<String> {
    let value = |record: &Value| record["value"]["value"].as_str().unwrap().to_owned();
    socket.records(n).await.iter().map(value).collect()
}

fn committed(proxy: &Proxy, partition: i32) -> Option<i64> {
    let tp = TopicPartition::new("t", partition);
    proxy.broker.committed("g", &tp)
}

/// Joins are handled when the token is cancelled.
fn hold_joins(proxy: &Proxy) -> CancellationToken {
    let joins = CancellationToken::new();
    let hold = FaultAction::HoldBefore(joins.clone());
    proxy
        .broker
        .faults()
        .add(FaultRule::on(ApiKey::JoinGroup, hold).always());
    joins
}

#[tokio::test]
async fn what_is_written_right_after_the_101_is_delivered() {
    for auto_commit in [true, false] {
        let proxy = Proxy::start().await;
        proxy.topic("t", 2);
        append(&proxy, 0, "before");
        let joins = hold_joins(&proxy);
        let path = format!("{LATEST}&clientId=a&autoCommit={auto_commit}");
        let mut socket = proxy.connect(&path).await;
        for partition in [0, 1] {
            append(&proxy, partition, "after");
        }
        joins.cancel();
        assert_eq!(values(&mut socket, 2).await, ["after", "after"]);
        proxy.stopped().await;
    }
}

#[tokio::test]
async fn a_client_that_comes_back_before_it_has_joined_gets_what_was_written_meanwhile() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    append(&proxy, 0, "before");
    let joins = hold_joins(&proxy);
    let path = format!("{LATEST}&clientId=a&autoCommit=false");
    let first = proxy.connect(&path).await;
    append(&proxy, 0, "between");
    drop(first);
    joins.cancel();
    let mut second = proxy.connect(&path).await;
    append(&proxy, 0, "after");
    assert_eq!(values(&mut second, 2).await, ["between", "after"]);
    proxy.stopped().await;
}

#[tokio::test]
async fn a_partition_that_is_added_while_the_group_runs_is_read_from_its_start() {
    let proxy = Proxy::with(|config| {
        config.client.metadata_max_age = std::time::Duration::from_millis(100);
    })
    .await;
    proxy.topic("t", 1);
    append(&proxy, 0, "before");
    let mut socket = proxy.connect(&format!("{LATEST}&clientId=a")).await;
    append(&proxy, 0, "first");
    assert_eq!(values(&mut socket, 1).await, ["first"]);
    // Written before the group knows of the partition.
    let joins = hold_joins(&proxy);
    assert!(proxy.broker.add_partitions("t", 2));
    append(&proxy, 1, "born");
    append(&proxy, 1, "grown");
    joins.cancel();
    assert_eq!(values(&mut socket, 2).await, ["born", "grown"]);
    proxy.stopped().await;
}

#[tokio::test]
async fn sockets_that_come_together_decide_once_and_those_that_come_later_commit_nothing() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 20);
    append(&proxy, 3, "before");
    let joins = hold_joins(&proxy);
    let commits = || proxy.broker.requests(ApiKey::OffsetCommit);
    let connect = async |client: usize| {
        let path = format!("{LATEST}&clientId={client}");
        proxy.connect(&path).await
    };
    let mut sockets = futures_util::future::join_all((0..10).map(connect)).await;
    assert_eq!(commits(), 1);
    assert!(proxy.broker.requests(ApiKey::OffsetFetch) <= 4);
    assert_eq!(
        (committed(&proxy, 3), committed(&proxy, 4)),
        (Some(1), Some(0))
    );
    let looked_up = proxy.broker.requests(ApiKey::ListOffsets);
    let late = proxy.connect(&format!("{LATEST}&clientId=late")).await;
    assert_eq!(commits(), 1);
    assert_eq!(proxy.broker.requests(ApiKey::ListOffsets), looked_up);
    sockets.push(late);
    joins.cancel();
    proxy.stopped().await;
}

#[tokio::test]
async fn a_group_with_members_that_have_committed_nothing_is_entered_at_the_end() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    append(&proxy, 0, "before");
    // As a broker answers whose group has members.
    let unknown_member = FaultRule::on(ApiKey::OffsetCommit, FaultAction::Error(25));
    proxy.broker.faults().add(unknown_member);
    let joins = hold_joins(&proxy);
    let mut socket = proxy.connect(&format!("{LATEST}&clientId=a")).await;
    assert_eq!(committed(&proxy, 0), None);
    append(&proxy, 0, "after");
    joins.cancel();
    assert_eq!(values(&mut socket, 1).await, ["after"]);
    proxy.stopped().await;
}

#[tokio::test]
async fn without_an_answer_of_the_brokers_the_client_is_asked_to_come_again() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let loading = FaultRule::on(ApiKey::OffsetFetch, FaultAction::Error(14));
    proxy.broker.faults().add(loading.always());
    let path = format!("{LATEST}&clientId=a");
    let refused = proxy.open(&path).await.err().unwrap();
    assert_eq!(refused.status, 503);
    assert!(
        refused.message().contains("latest"),
        "{}",
        refused.message()
    );
    // A group that begins at the start of the log has nothing to decide.
    proxy.connect("/socket/out?topic=t&clientId=b").await;
    proxy.broker.faults().clear();
    proxy.connect(&path).await;
    proxy.stopped().await;
}

#[tokio::test]
async fn what_passes_is_tried_again_before_the_101() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    append(&proxy, 0, "before");
    let joins = hold_joins(&proxy);
    // Not the coordinator, not the leader, loading.
    for (api, code) in [
        (ApiKey::OffsetFetch, 16),
        (ApiKey::ListOffsets, 6),
        (ApiKey::OffsetCommit, 14),
    ] {
        let fault = FaultRule::on(api, FaultAction::Error(code));
        proxy.broker.faults().add(fault.times(2));
    }
    let mut socket = proxy.connect(&format!("{LATEST}&clientId=a")).await;
    assert_eq!(committed(&proxy, 0), Some(1));
    append(&proxy, 0, "after");
    joins.cancel();
    assert_eq!(values(&mut socket, 1).await, ["after"]);
    proxy.stopped().await;
}

/// Two nodes that lead a partition of `t` each, with a record; the other one is stopped. The first
/// coordinates the group.
async fn with_a_leaderless_partition() -> (Proxy, BrokerId) {
    let broker = BrokerConfig {
        nodes: 2,
        default_replication: 1,
        ..BrokerConfig::default()
    };
    let proxy = Proxy::with_broker(broker, |_| {}).await;
    // The session topic is not to wait for the broker that is stopped.
    proxy.ready().await;
    proxy.topic("t", 2);
    let leader = |partition| {
        let tp = TopicPartition::new("t", partition);
        proxy.broker.leader(&tp).unwrap().0.unwrap()
    };
    let (first, other) = (leader(0), leader(1));
    assert_ne!(first, other);
    proxy.broker.move_coordinator("g", first);
    for partition in [0, 1] {
        append(&proxy, partition, "before");
    }
    assert!(proxy.broker.stop_node(other).await);
    (proxy, other)
}

#[tokio::test]
async fn a_partition_without_a_leader_is_read_from_where_it_ended_at_the_101() {
    let (proxy, other) = with_a_leaderless_partition().await;
    let joins = hold_joins(&proxy);
    let path = format!("{LATEST}&clientId=a&autoCommit=false");
    let mut socket = proxy.connect(&path).await;
    assert_eq!(committed(&proxy, 0), Some(1));
    // Before anybody looks where the log ends.
    proxy.broker.start_node(other).await.unwrap();
    for partition in [0, 1] {
        append(&proxy, partition, "after");
    }
    joins.cancel();
    assert_eq!(values(&mut socket, 2).await, ["after", "after"]);
    until("it is committed", || committed(&proxy, 1) == Some(1)).await;
    proxy.stopped().await;
}

#[tokio::test]
async fn what_comes_after_the_101_of_one_socket_is_not_skipped_for_the_next() {
    let (proxy, other) = with_a_leaderless_partition().await;
    let joins = hold_joins(&proxy);
    let mut first = proxy.connect(&format!("{LATEST}&clientId=a")).await;
    proxy.broker.start_node(other).await.unwrap();
    append(&proxy, 1, "between");
    let _second = proxy.connect(&format!("{LATEST}&clientId=b")).await;
    assert_eq!(committed(&proxy, 1), Some(1));
    drop(_second);
    joins.cancel();
    assert_eq!(values(&mut first, 1).await, ["between"]);
    proxy.stopped().await;
}

#[tokio::test]
async fn a_topic_that_is_created_again_while_the_start_is_decided_is_the_one_that_is_read() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    append(&proxy, 0, "of another topic");
    let joins = hold_joins(&proxy);
    let answer = CancellationToken::new();
    let held = FaultAction::HoldBefore(answer.clone());
    let faults = proxy.broker.faults();
    faults.add_first(FaultRule::on(ApiKey::OffsetFetch, held));
    let before = proxy.broker.requests(ApiKey::OffsetFetch);
    let recreate = async {
        let asked = || proxy.broker.requests(ApiKey::OffsetFetch) > before;
        until("it is asked by the former id", asked).await;
        assert!(proxy.broker.delete_topic("t"));
        proxy.topic("t", 1);
        append(&proxy, 0, "before");
        answer.cancel();
    };
    let path = format!("{LATEST}&clientId=a");
    let (mut socket, ()) = tokio::join!(proxy.connect(&path), recreate);
    assert_eq!(committed(&proxy, 0), Some(1));
    append(&proxy, 0, "after");
    joins.cancel();
    assert_eq!(values(&mut socket, 1).await, ["after"]);
    proxy.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn real_brokers_deliver_what_is_written_right_after_the_101() {
    let (kafka, topic, proxy) = block_in_place(|| {
        let kafka = Kafka::shared("4.4", 1);
        let topic = unique("latest");
        kafka.create_topic(&topic, 3, 1);
        let proxy = Program::for_cluster(kafka.bootstrap(), &[]);
        (kafka, topic, proxy)
    });
    let mut producer = proxy.connect(&format!("/socket/in?topic={topic}")).await;
    for group in 0..5 {
        let record = |name: &str, partition: i32| {
            let value = json!({"value": format!("{name}-{group}")});
            json!({"partition": partition, "value": value})
        };
        let before: Vec<_> = (0..3).map(|p| record("before", p)).collect();
        producer.ask(json!(before).to_string()).await;
        let path = format!(
            "/socket/out?topic={topic}&clientId=c{group}&groupId={topic}-{group}\
             &offsetResetStrategy=latest"
        );
        let mut socket = proxy.connect(&path).await;
        let after: Vec<_> = (0..3).map(|p| record("after", p)).collect();
        producer.ask(json!(after).to_string()).await;
        let got = timeout(PATIENCE, values(&mut socket, 3)).await.unwrap();
        assert_eq!(got, vec![format!("after-{group}"); 3]);
        socket.close().await;
    }
    drop(kafka);
}
