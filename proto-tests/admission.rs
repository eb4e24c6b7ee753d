//! What a socket is admitted or refused by: the cluster as it is, not as it was.

use std::time::Duration;

use kafka_client::BrokerId;
use memory_broker::{ApiKey, FaultAction, FaultRule};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::proxy::Proxy;
use crate::support::until;

fn record_for(partition: i32) -> String {
    json!({"value": {"value": "x"}, "partition": partition}).to_string()
}

#[tokio::test]
async fn a_socket_on_seventy_unseen_topics_asks_for_all_of_them_at_once() {
    let proxy = Proxy::start().await;
    let names: Vec<String> = (0..70).map(|i| format!("t{i}")).collect();
    for name in &names {
        proxy.topic(name, 1);
    }
    proxy.ready().await;
    let before = proxy.broker.requests(ApiKey::Metadata);
    let path = format!("/socket/out?clientId=a&topic={}", names.join(","));
    let _socket = proxy.connect(&path).await;
    let asked = proxy.broker.requests(ApiKey::Metadata) - before;
    assert!(asked <= 5, "{asked} requests");
    proxy.stopped().await;
}

#[tokio::test]
async fn a_socket_on_many_topics_is_refused_for_the_one_that_does_not_exist() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    proxy.topic("u", 1);
    let path = "/socket/out?clientId=a&topic=t,absent,u";
    let refused = proxy.open(path).await.err().unwrap();
    assert_eq!(refused.status, 400);
    assert!(
        refused.message().contains("topic absent"),
        "{}",
        refused.message()
    );
    proxy.stopped().await;
}

#[tokio::test]
async fn sockets_on_many_unseen_topics_are_refused_together_while_no_broker_answers() {
    let proxy = Proxy::start().await;
    assert!(proxy.broker.stop_node(BrokerId(1)).await);
    let refused = proxy.open("/socket/out?clientId=a&topic=t,u,v,w").await;
    let refused = refused.err().unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains_key("retry-after"));
    proxy.stopped().await;
}

#[tokio::test]
async fn a_partition_that_was_just_added_is_written_to() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut socket = proxy.connect("/socket/in?topic=t").await;
    assert_eq!(socket.ask(record_for(0)).await["offset"], 0);
    assert!(proxy.broker.add_partitions("t", 3));
    let ack = socket.ask(record_for(2)).await;
    assert_eq!(ack["partition"], 2, "{ack}");
    // What does not exist is refused all the same, and holds up no later record.
    socket.send(record_for(3)).await;
    socket.send(record_for(1)).await;
    let error = socket.next().await;
    assert_eq!(error["error"]["code"], "invalid_record", "{error}");
    assert_eq!(socket.next().await["partition"], 1);
    proxy.stopped().await;
}

#[tokio::test]
async fn many_records_for_a_partition_that_does_not_exist_share_a_question() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut socket = proxy.connect("/socket/in?topic=t").await;
    let before = proxy.broker.requests(ApiKey::Metadata);
    let records: Vec<_> = (0..500)
        .map(|_| json!({"value": {"value": "x"}, "partition": 1}))
        .collect();
    let answers = socket.ask(json!(records).to_string()).await;
    for answer in answers.as_array().unwrap() {
        assert_eq!(answer["error"]["code"], "invalid_record", "{answer}");
    }
    let asked = proxy.broker.requests(ApiKey::Metadata) - before;
    assert!(asked <= 20, "{asked} requests");
    proxy.stopped().await;
}

#[tokio::test]
async fn a_group_may_use_a_partition_that_was_just_added() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let path = |client: &str| format!("/socket/out?topic=t&groupId=g&clientId={client}");
    let _a = proxy.connect(&path("a")).await;
    assert!(proxy.broker.add_partitions("t", 2));
    let _b = proxy.connect(&path("b")).await;
    assert_eq!(proxy.open(&path("c")).await.err().unwrap().status, 400);
    proxy.stopped().await;
}

#[tokio::test]
async fn a_topic_that_was_just_deleted_is_refused() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let socket = proxy.connect("/socket/in?topic=t").await;
    socket.close().await;
    assert!(proxy.broker.delete_topic("t"));
    for path in ["/socket/in?topic=t", "/socket/out?topic=t&clientId=a"] {
        let refused = proxy.open(path).await.err().expect(path);
        assert_eq!(refused.status, 400, "{path}");
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn a_place_in_a_group_is_claimed_while_the_brokers_are_asked_about_a_known_topic() {
    let proxy = Proxy::with(|config| {
        // No lease is renewed meanwhile.
        config.sessions.lease_duration = Duration::from_secs(600);
    })
    .await;
    proxy.topic("t", 1);
    proxy.connect("/socket/in?topic=t").await.close().await;
    proxy.ready().await;
    let answered = CancellationToken::new();
    let held = FaultRule::on(ApiKey::Metadata, FaultAction::Hold(answered.clone()));
    proxy.broker.faults().add(held.always());
    let claimed = async {
        let before = proxy.broker.requests(ApiKey::Produce);
        until("the claim", || {
            proxy.broker.requests(ApiKey::Produce) > before
        })
        .await;
        answered.cancel();
    };
    let path = "/socket/out?topic=t&clientId=a";
    let (socket, ()) = tokio::join!(proxy.connect(path), claimed);
    socket.close().await;
    proxy.stopped().await;
}
