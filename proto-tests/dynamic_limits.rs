//! Limits that change while the proxy runs (`dynamic-config-handler.*`), at the admin server.

use std::collections::BTreeSet;
use std::time::Duration;

use kafka_client::{BrokerId, TopicPartition};
use kafka_websocket_proxy::config::{ClientLimit, Config};
use memory_broker::{BrokerConfig, MemoryBroker};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::http::{HttpAnswer, ask, send};
use crate::support::program::{LogLines, Program};
use crate::support::proxy::{Proxy, SecondNode};
use crate::support::ws_client::WsClient;
use crate::support::{until, until_asked};

const CONFIG: &str = "/admin/client/config";
const PRODUCER: &str = "/admin/client/config/producer/c";
const GROUP: &str = "/admin/client/config/consumer/g";

fn dynamic(config: &mut Config) {
    config.server.admin.enabled = true;
    config.dynamic_limits.enabled = true;
}

async fn two_nodes() -> (Proxy, SecondNode) {
    let proxy = Proxy::with(dynamic).await;
    proxy.topic("t", 1);
    let second = proxy.second(dynamic).await;
    (proxy, second)
}

fn entry(answer: &HttpAnswer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

/// Changes an entry; what is answered.
async fn change(admin: &str, method: &str, path: &str, body: Value) -> Value {
    entry(&send(admin, method, path, &[], &body.to_string()).await)
}

/// Waits until a node answers that.
async fn until_known(admin: &str, path: &str, expected: Option<&Value>) {
    until_asked("the change is known", async || {
        let answer = ask(admin, "GET", path, &[]).await;
        match expected {
            Some(expected) => answer.status == 200 && entry(&answer) == *expected,
            None => answer.status == 404,
        }
    })
    .await;
}

fn record(value: &str) -> String {
    json!({"value": {"value": value}}).to_string()
}

fn records(count: usize) -> String {
    json!(vec![json!({"value": {"value": "v"}}); count]).to_string()
}

async fn offset(socket: &mut WsClient) -> u64 {
    socket.next().await["offset"].as_u64().expect("an ack")
}

#[tokio::test]
async fn a_limit_that_one_node_is_given_holds_for_open_producing_sockets_of_another() {
    let (proxy, second) = two_nodes().await;
    let mut limited = second.connect("/socket/in?topic=t&clientId=c").await;
    let mut other = second.connect("/socket/in?topic=t&clientId=d").await;
    assert_eq!(limited.ask(record("v")).await["offset"], 0);

    let slow = json!({"producer-id": "c", "messages-per-second": 1});
    let admin = &proxy.admin_address;
    assert_eq!(change(admin, "POST", PRODUCER, slow.clone()).await, slow);
    until_known(&second.admin_address, PRODUCER, Some(&slow)).await;
    // Its turn is in a quarter of an hour.
    limited.ask(records(1_000)).await;
    limited.send(record("late")).await;
    assert_eq!(other.ask(record("v")).await["offset"], 1_001);
    let fast = json!({"producer-id": "c", "messages-per-second": 1_000_000});
    assert_eq!(change(admin, "PUT", PRODUCER, fast.clone()).await, fast);
    assert_eq!(offset(&mut limited).await, 1_002);

    change(admin, "PUT", PRODUCER, slow.clone()).await;
    until_known(&second.admin_address, PRODUCER, Some(&slow)).await;
    limited.ask(records(1_000)).await;
    limited.send(record("late")).await;
    assert_eq!(other.ask(record("v")).await["offset"], 2_003);
    assert_eq!(entry(&ask(admin, "DELETE", PRODUCER, &[]).await), slow);
    assert_eq!(offset(&mut limited).await, 2_004, "without a limit");
    second.stopped().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn a_limit_that_one_node_is_given_holds_for_open_consuming_sockets_of_another() {
    let (proxy, second) = two_nodes().await;
    let mut producer = proxy.connect("/socket/in?topic=t").await;
    let mut reader = second
        .connect("/socket/out?topic=t&groupId=g&clientId=c")
        .await;
    producer.ask(records(100)).await;
    reader.records(100).await;

    let slow = json!({"group-id": "g", "messages-per-second": 10});
    let admin = &proxy.admin_address;
    change(admin, "POST", GROUP, slow.clone()).await;
    until_known(&second.admin_address, GROUP, Some(&slow)).await;
    let begin = Instant::now();
    producer.ask(records(10_000)).await;
    reader.records(30).await;
    let took = begin.elapsed();
    assert!(
        took >= Duration::from_millis(1_900),
        "{took:?} for 30 records"
    );
    // The others would take a quarter of an hour.
    let fast = json!({"group-id": "g", "messages-per-second": 0});
    change(admin, "PUT", GROUP, fast).await;
    reader.records(9_970).await;
    second.stopped().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn entries_survive_restarts_and_are_forgotten_one_by_one_or_all() {
    let (proxy, second) = two_nodes().await;
    let admin = &proxy.admin_address;
    for id in ["a", "b", "c"] {
        let path = format!("{CONFIG}/consumer/{id}");
        change(admin, "POST", &path, json!({"max-connections": 5})).await;
    }
    let odd = format!("{CONFIG}/producer/a%2Fb%20%C3%BC");
    let limits = json!({"messages-per-second": 7, "max-connections": 8});
    let made = json!({"producer-id": "a/b ü", "max-connections": 8, "messages-per-second": 7});
    assert_eq!(change(admin, "POST", &odd, limits).await, made);
    ask(admin, "DELETE", &format!("{CONFIG}/consumer/b"), &[]).await;
    second.stopped().await;
    let second = proxy.second(dynamic).await;
    let admin = &second.admin_address;
    let listed = entry(&ask(admin, "GET", CONFIG, &[]).await);
    let of = |id: &str| json!({"group-id": id, "max-connections": 5});
    assert_eq!(listed["consumers"]["dynamic"], json!([of("a"), of("c")]));
    assert_eq!(listed["producers"]["dynamic"], json!([made]));
    assert_eq!(entry(&ask(admin, "GET", &odd, &[]).await), made);

    let listed = entry(&ask(admin, "DELETE", CONFIG, &[]).await);
    for clients in ["consumers", "producers"] {
        assert_eq!(listed[clients]["dynamic"], json!([]));
        assert_eq!(listed[clients]["static"].as_array().unwrap().len(), 1);
    }
    until_known(&proxy.admin_address, &odd, None).await;
    second.stopped().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn the_entries_of_the_settings_are_listed_behind_the_defaults_and_stand_in_for_dynamic_ones()
{
    let limits = |config: &mut Config| {
        dynamic(config);
        config.consumer_limits.default_messages_per_second = 3;
        config.producer_limits.default_max_connections = 4;
        let limit = ClientLimit {
            messages_per_second: Some(9),
            ..Default::default()
        };
        config
            .consumer_limits
            .specific
            .insert("g".to_owned(), limit);
    };
    let proxy = Proxy::with(limits).await;
    let admin = &proxy.admin_address;
    let fixed = json!({"group-id": "g", "messages-per-second": 9});
    let expected = json!({
        "consumers": {
            "static": [
                {"group-id": "__DEFAULT__", "max-connections": 0, "messages-per-second": 3,
                 "batch-size": 0},
                fixed
            ],
            "dynamic": []
        },
        "producers": {
            "static": [
                {"producer-id": "__DEFAULT__", "max-connections": 4, "messages-per-second": 0}
            ],
            "dynamic": []
        }
    });
    assert_eq!(entry(&ask(admin, "GET", CONFIG, &[]).await), expected);
    assert_eq!(entry(&ask(admin, "GET", GROUP, &[]).await), fixed);
    let default = format!("{CONFIG}/producer/__DEFAULT__");
    let answer = ask(admin, "GET", &default, &[]).await;
    assert_eq!(entry(&answer), expected["producers"]["static"][0]);
    // There is no dynamic one.
    for method in ["PUT", "DELETE"] {
        let answer = send(admin, method, GROUP, &[], "{}").await;
        assert_eq!(answer.status, 404, "{method}");
    }
    let dynamic = json!({"group-id": "g", "batch-size": 2});
    assert_eq!(change(admin, "POST", GROUP, dynamic.clone()).await, dynamic);
    assert_eq!(entry(&ask(admin, "GET", GROUP, &[]).await), dynamic);
    ask(admin, "DELETE", GROUP, &[]).await;
    assert_eq!(entry(&ask(admin, "GET", GROUP, &[]).await), fixed);
    proxy.stopped().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_change_is_said_and_changes_nothing() {
    let proxy = Proxy::with(dynamic).await;
    let admin = &proxy.admin_address;
    change(admin, "POST", PRODUCER, json!({"messages-per-second": 5})).await;
    let long = format!("{CONFIG}/producer/{}", "x".repeat(257));
    let other = format!("{CONFIG}/producer/d");
    let default = format!("{CONFIG}/producer/__DEFAULT__");
    for (method, path, body, status, said) in [
        ("GET", other.as_str(), "", 404, "producer-id \"d\""),
        ("POST", PRODUCER, "{}", 409, "PUT changes it"),
        ("PUT", &other, "{}", 404, "there is no dynamic entry"),
        ("DELETE", &other, "", 404, "there is no dynamic entry"),
        (
            "PUT",
            PRODUCER,
            r#"{"producer-id":"d"}"#,
            400,
            "is not that of the path, \"c\"",
        ),
        ("PUT", PRODUCER, "{", 400, "the body must be a JSON object"),
        (
            "PUT",
            PRODUCER,
            r#"{"batch-size":1}"#,
            400,
            "\"batch-size\" is not known",
        ),
        (
            "PUT",
            PRODUCER,
            r#"{"max-connections":-1}"#,
            400,
            "0 (no limit) to 4294967295",
        ),
        ("POST", &long, "{}", 400, "1 to 256 characters"),
        (
            "POST",
            &default,
            "{}",
            400,
            "which only the settings change",
        ),
        (
            "PATCH",
            PRODUCER,
            "{}",
            405,
            "GET, HEAD, POST, PUT, DELETE, OPTIONS",
        ),
        ("PUT", CONFIG, "{}", 405, "GET, HEAD, DELETE, OPTIONS"),
    ] {
        let answer = send(admin, method, path, &[], body).await;
        assert_eq!(
            answer.status, status,
            "{method} {path} {body}: {}",
            answer.body
        );
        assert!(answer.message().contains(said), "{}", answer.message());
    }
    let body = " ".repeat((4 << 20) + 1);
    assert_eq!(send(admin, "PUT", PRODUCER, &[], &body).await.status, 413);
    let unchanged = json!({"producer-id": "c", "messages-per-second": 5});
    assert_eq!(entry(&ask(admin, "GET", PRODUCER, &[]).await), unchanged);
    proxy.stopped().await;
}

#[tokio::test]
async fn where_limits_do_not_change_they_are_shown_and_a_change_is_refused() {
    let proxy = Proxy::with(|config| config.server.admin.enabled = true).await;
    let admin = &proxy.admin_address;
    let listed = entry(&ask(admin, "GET", CONFIG, &[]).await);
    assert_eq!(listed["producers"]["dynamic"], json!([]));
    assert_eq!(ask(admin, "GET", GROUP, &[]).await.status, 404);
    for (method, path) in [
        ("POST", GROUP),
        ("PUT", GROUP),
        ("DELETE", GROUP),
        ("DELETE", CONFIG),
    ] {
        let answer = send(admin, method, path, &[], "{}").await;
        assert_eq!(answer.status, 412, "{method} {path}");
        assert!(answer.message().contains("dynamic-config-handler.enabled"));
    }
    proxy.ready().await;
    let tp = TopicPartition::new("_wsproxy.dynamic.configs", 0);
    assert!(
        proxy.broker.leader(&tp).is_none(),
        "there is no topic for it"
    );
    proxy.stopped().await;
}

#[tokio::test]
async fn of_two_nodes_that_are_asked_for_the_same_entry_at_once_one_makes_it() {
    let (proxy, second) = two_nodes().await;
    for path in (0..20).map(|n| format!("{CONFIG}/consumer/g{n}")) {
        let bodies = [1, 2].map(|n| json!({"messages-per-second": n}).to_string());
        let (one, other) = tokio::join!(
            send(&proxy.admin_address, "POST", &path, &[], &bodies[0]),
            send(&second.admin_address, "POST", &path, &[], &bodies[1]),
        );
        assert_eq!(
            BTreeSet::from([one.status, other.status]),
            BTreeSet::from([200, 409])
        );
        let made = if one.status == 200 { one } else { other };
        let made = entry(&made);
        until_known(&proxy.admin_address, &path, Some(&made)).await;
        until_known(&second.admin_address, &path, Some(&made)).await;
    }
    second.stopped().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn a_batch_size_counts_for_the_sockets_that_open_then() {
    let proxy = Proxy::with(dynamic).await;
    proxy.topic("t", 2);
    proxy.produce(1, 3).await;
    change(
        &proxy.admin_address,
        "POST",
        GROUP,
        json!({"batch-size": 3}),
    )
    .await;
    let path = "/socket/out?topic=t&groupId=g&clientId=a";
    let frame = proxy.connect(path).await.next().await;
    assert!(frame.is_array(), "{frame}");
    proxy.stopped().await;
}

#[tokio::test]
async fn no_client_may_use_the_topic_of_the_entries_whatever_it_is_called() {
    let proxy = Proxy::with(|config| {
        dynamic(config);
        config.dynamic_limits.topic.name = "limits".to_owned();
    })
    .await;
    change(&proxy.admin_address, "POST", GROUP, json!({})).await;
    assert!(
        proxy
            .broker
            .leader(&TopicPartition::new("limits", 0))
            .is_some()
    );
    for path in [
        "/socket/in?topic=limits",
        "/socket/out?topic=limits&clientId=a",
    ] {
        let refused = proxy.open(path).await.err().unwrap();
        assert_eq!(refused.status, 403, "{path}");
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn pages_may_read_the_limits_and_change_none() {
    let proxy = Proxy::with(dynamic).await;
    let admin = &proxy.admin_address;
    let page = ["Origin: https://app.example.org"];
    let answer = ask(admin, "GET", CONFIG, &page).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    let asked = [page[0], "Access-Control-Request-Method: PUT"];
    let preflight = ask(admin, "OPTIONS", GROUP, &asked).await;
    let allowed = preflight.header("access-control-allow-methods");
    assert_eq!(allowed, Some("GET, HEAD, OPTIONS"));
    // A browser sends some requests without such a question.
    for (method, path) in [("POST", GROUP), ("PUT", GROUP), ("DELETE", CONFIG)] {
        let answer = send(admin, method, path, &page, "{}").await;
        assert_eq!(answer.status, 403, "{method}");
        assert!(answer.message().contains("pages may read here"));
    }
    assert_eq!(ask(admin, "GET", GROUP, &[]).await.status, 404);
    proxy.stopped().await;
}

#[tokio::test]
async fn while_the_topic_cannot_be_written_the_entries_hold_and_a_change_is_answered_503() {
    let proxy = Proxy::with(dynamic).await;
    let admin = &proxy.admin_address;
    let made = change(admin, "POST", PRODUCER, json!({"messages-per-second": 5})).await;
    proxy.broker.stop_node(BrokerId(1)).await;
    let answer = send(admin, "PUT", PRODUCER, &[], "{}").await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    assert!(
        answer
            .message()
            .contains("topic _wsproxy.dynamic.configs: ")
    );
    assert_eq!(entry(&ask(admin, "GET", PRODUCER, &[]).await), made);
    proxy.broker.start_node(BrokerId(1)).await.unwrap();
    until_asked("it can be written", async || {
        send(admin, "PUT", PRODUCER, &[], "{}").await.status == 200
    })
    .await;
    proxy.stopped().await;
}

/// A program that keeps its entries in that topic, with its log and where its admin server is.
async fn program(broker: &MemoryBroker, topic: &str) -> (Program, LogLines, String) {
    let bootstrap = broker.bootstrap();
    let arguments = [
        "--bootstrap-hosts",
        &bootstrap,
        "--admin-enabled",
        "true",
        "--admin-port",
        "0",
        "--dynamic-config-handler-enabled",
        "true",
        "--dynamic-config-handler-topic-name",
        topic,
        "--server-id",
        topic,
    ];
    let (program, log) = Program::start_logged(&arguments, &[]);
    program.ready().await;
    let admin = log.admin_address().await;
    (program, log, admin)
}

#[tokio::test]
async fn a_topic_that_would_lose_entries_or_their_order_is_refused_and_the_settings_hold() {
    let broker = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
    assert!(broker.create_topic("plain", 1) && broker.create_topic("wide", 2));
    for (topic, why) in [
        ("plain", "it is not compacted"),
        ("wide", "it has more than one partition"),
    ] {
        let (program, log, admin) = program(&broker, topic).await;
        let line = log
            .first_with("the topic of dynamic limits is not available")
            .await;
        assert!(line.contains(why), "{line}");
        let answer = send(&admin, "POST", GROUP, &[], "{}").await;
        assert_eq!(answer.status, 503);
        assert!(answer.message().contains(why), "{}", answer.message());
        assert_eq!(ask(&admin, "GET", CONFIG, &[]).await.status, 503);
        drop(program);
    }
}

#[tokio::test]
async fn records_that_are_not_understood_are_skipped_with_one_warning() {
    let broker = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
    let (first, _, admin) = program(&broker, "limits").await;
    let made = change(&admin, "POST", GROUP, json!({"messages-per-second": 5})).await;
    drop(first);
    // To another deployment it is a topic like others.
    let (other, _, _) = program(&broker, "other").await;
    let mut garbage = other.connect("/socket/in?topic=limits").await;
    let later = r#"{"version":2,"messages-per-second":6}"#;
    for (key, value) in [("consumer/g", later), ("consumer/h", "garbage"), ("x", "y")] {
        let record = json!({"key": {"value": key}, "value": {"value": value}});
        garbage.ask(record.to_string()).await;
    }
    let last = json!({"key": {"value": "producer/c"}, "value": {"value": r#"{"version":1}"#}});
    garbage.ask(last.to_string()).await;
    let (_program, log, admin) = program(&broker, "limits").await;
    until_known(&admin, PRODUCER, Some(&json!({"producer-id": "c"}))).await;
    until_known(&admin, GROUP, Some(&made)).await;
    let warnings = log.with("a record of the topic of dynamic limits is skipped");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("version 2"), "{}", warnings[0]);
}

#[tokio::test]
async fn a_topic_that_is_lost_is_created_again_and_its_entries_with_it_are_gone() {
    let proxy = Proxy::with(dynamic).await;
    let admin = &proxy.admin_address;
    change(admin, "POST", GROUP, json!({})).await;
    assert!(proxy.broker.delete_topic("_wsproxy.dynamic.configs"));
    let tp = TopicPartition::new("_wsproxy.dynamic.configs", 0);
    until("it is created", || proxy.broker.leader(&tp).is_some()).await;
    until_known(admin, GROUP, None).await;
    until_asked("it can be written", async || {
        send(admin, "POST", GROUP, &[], "{}").await.status == 200
    })
    .await;
    proxy.stopped().await;
}
