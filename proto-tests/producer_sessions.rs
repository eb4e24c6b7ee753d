//! Two proxies on one broker: the producing sockets of a client are those of both together.

use kafka_websocket_proxy::config::{ClientLimit, Config};
use memory_broker::{ApiKey, FaultAction, FaultRule};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::program::Program;
use crate::support::proxy::{Proxy, readiness};
use crate::support::until_asked;
use crate::support::ws_client::{UpgradeRefused, WsClient};

const SESSION_TOPIC: &str = "_wsproxy.session.state";
/// TOPIC_AUTHORIZATION_FAILED
const NOT_AUTHORIZED: i16 = 29;

fn of_client(client: &str) -> String {
    format!("/socket/in?topic=t&clientId={client}")
}

fn of_instance(client: &str, instance: &str) -> String {
    format!("{}&instanceId={instance}", of_client(client))
}

/// By default one socket for each client; two for `two`, and any number for `many`.
fn limited(config: &mut Config) {
    let limits = &mut config.producer_limits;
    limits.default_max_connections = 1;
    for (client, max_connections) in [("two", 2), ("many", 0)] {
        let limit = ClientLimit {
            max_connections: Some(max_connections),
            ..ClientLimit::default()
        };
        limits.specific.insert(client.to_owned(), limit);
    }
}

fn assert_over_limit(refused: &UpgradeRefused, client: &str, max: usize) {
    assert_eq!(refused.status, 429, "{refused:?}");
    assert!(refused.headers.contains_key("retry-after"));
    let message = refused.message();
    for part in [
        format!("parameter clientId: {client:?}"),
        format!("allowed: {max} (max-connections of producer.limits)"),
    ] {
        assert!(message.contains(&part), "{message}");
    }
}

/// Opens it as soon as the other sockets of its client have been released.
async fn let_in(address: &str, path: &str) -> WsClient {
    let mut socket = None;
    until_asked("a socket is let in", async || {
        match WsClient::connect(address, path).await {
            Ok(opened) => socket = Some(opened),
            Err(refused) => assert!([429, 503].contains(&refused.status), "{refused:?}"),
        }
        socket.is_some()
    })
    .await;
    socket.unwrap()
}

#[tokio::test]
async fn a_client_has_as_many_sockets_over_all_nodes_as_its_limit_says() {
    let proxy = Proxy::with(limited).await;
    proxy.topic("t", 1);
    let second = proxy.second(limited).await;
    let one = proxy.connect(&of_client("one")).await;
    assert_over_limit(
        &second.open(&of_client("one")).await.err().unwrap(),
        "one",
        1,
    );
    assert_over_limit(
        &proxy.open(&of_client("one")).await.err().unwrap(),
        "one",
        1,
    );
    let mut here = proxy.connect(&of_client("two")).await;
    let _there = second.connect(&of_client("two")).await;
    assert_over_limit(
        &proxy.open(&of_client("two")).await.err().unwrap(),
        "two",
        2,
    );
    let mut others = Vec::new();
    for n in 0..5 {
        others.push(proxy.connect(&of_client("many")).await);
        others.push(second.connect("/socket/in?topic=t").await);
        others.push(second.connect(&of_client(&format!("c{n}"))).await);
    }
    // What is open works, and its end makes room at the other node.
    let ack = here.ask(r#"{"value":{"value":"x"}}"#).await;
    assert_eq!(ack["offset"], 0);
    one.close().await;
    let_in(&second.address, &of_client("one"))
        .await
        .close()
        .await;
    drop(others);
    second.stopped().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn of_two_nodes_that_race_for_a_clients_last_socket_exactly_one_wins() {
    let proxy = Proxy::with(limited).await;
    proxy.topic("t", 1);
    let second = proxy.second(limited).await;
    for round in 0..20 {
        let path = of_client(&format!("c{round}"));
        match tokio::join!(proxy.open(&path), second.open(&path)) {
            (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => {
                assert_eq!(refused.status, 429, "{refused:?}");
            }
            (Ok(_), Ok(_)) => panic!("both have the place of {path}"),
            (Err(a), Err(b)) => panic!("nobody has the place of {path}: {a:?} {b:?}"),
        }
    }
    second.stopped().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn a_limit_that_is_lowered_closes_nothing_and_admits_nobody() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(proxy.connect(&of_client("one")).await);
    }
    let second = proxy.second(limited).await;
    until_asked("those without a limit are counted", async || {
        match second.open(&of_client("one")).await {
            Ok(socket) => {
                socket.close().await;
                false
            }
            Err(refused) => refused.status == 429 && refused.message().contains("has 3 sockets"),
        }
    })
    .await;
    for socket in &mut open {
        assert!(socket.ask(r#"{"value":{"value":"x"}}"#).await["offset"].is_number());
    }
    second.stopped().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn a_group_with_a_limit_has_so_many_sockets_and_never_more_than_partitions() {
    let proxy = Proxy::with(|config| config.consumer_limits.default_max_connections = 2).await;
    proxy.topic("t", 3);
    proxy.topic("u", 1);
    let path = |topic: &str, group: &str, client: &str| {
        format!("/socket/out?topic={topic}&groupId={group}&clientId={client}")
    };
    let _a = proxy.connect(&path("t", "g", "a")).await;
    let _b = proxy.connect(&path("t", "g", "b")).await;
    let refused = proxy.open(&path("t", "g", "c")).await.err().unwrap();
    assert_eq!(refused.status, 429);
    let message = refused.message();
    assert!(
        message.contains("parameter groupId: \"g\" has 2 sockets"),
        "{message}"
    );
    assert!(
        message.contains("max-connections of consumer.limits"),
        "{message}"
    );
    let _c = proxy.connect(&path("u", "h", "a")).await;
    let refused = proxy.open(&path("u", "h", "b")).await.err().unwrap();
    assert_eq!(refused.status, 400, "{refused:?}");
    proxy.stopped().await;
}

#[tokio::test]
async fn while_the_log_cannot_be_written_only_clients_with_a_limit_are_told_to_come_again() {
    let proxy = Proxy::with(limited).await;
    proxy.topic("t", 1);
    proxy.ready().await;
    let rule = FaultRule::on(ApiKey::Produce, FaultAction::Error(NOT_AUTHORIZED)).always();
    proxy.broker.faults().add(rule);
    let refused = proxy.open(&of_client("one")).await.err().unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains_key("retry-after"));
    let message = refused.message();
    assert!(message.contains("the places of the client"), "{message}");
    assert!(message.contains(SESSION_TOPIC), "{message}");
    let _many = proxy.connect(&of_client("many")).await;
    let _nameless = proxy.connect("/socket/in?topic=t").await;
    proxy.broker.faults().clear();
    let_in(&proxy.address, &of_client("one"))
        .await
        .close()
        .await;
    proxy.stopped().await;
}

/// What the killed process had is gone with its lease.
#[tokio::test]
async fn the_limited_sockets_of_a_killed_node_make_room_when_its_lease_is_over() {
    let proxy = Proxy::with(limited).await;
    proxy.topic("t", 1);
    let arguments = [
        "--server-id=killed",
        "--session-handler-lease-duration=3s",
        "--producer-limits-default-max-connections-per-client=1",
    ];
    let killed = Program::for_cluster(&proxy.broker.bootstrap(), &arguments);
    killed.ready().await;
    let _socket = killed.connect(&of_client("one")).await;
    assert_over_limit(
        &proxy.open(&of_client("one")).await.err().unwrap(),
        "one",
        1,
    );
    killed.signal("KILL");
    let_in(&proxy.address, &of_client("one"))
        .await
        .close()
        .await;
    proxy.stopped().await;
}

#[tokio::test]
async fn a_session_topic_that_is_lost_has_the_limited_sockets_again() {
    let proxy = Proxy::with(limited).await;
    proxy.topic("t", 1);
    let mut socket = proxy.connect(&of_client("one")).await;
    proxy.ready().await;
    assert!(proxy.broker.delete_topic(SESSION_TOPIC));
    until_asked("it is lost", async || {
        readiness(&proxy.address).await.0 == 503
    })
    .await;
    proxy.ready().await;
    let second = proxy.second(limited).await;
    assert_over_limit(
        &second.open(&of_client("one")).await.err().unwrap(),
        "one",
        1,
    );
    assert_eq!(socket.ask(r#"{"value":{"value":"x"}}"#).await["offset"], 0);
    second.stopped().await;
    proxy.stopped().await;
}

fn with_sessions(config: &mut Config) {
    config.producer_sessions = true;
}

#[tokio::test]
async fn with_sessions_a_producing_client_has_to_name_itself_and_its_instance() {
    let proxy = Proxy::with(with_sessions).await;
    proxy.topic("t", 1);
    for (path, missing) in [
        ("/socket/in?topic=t".to_owned(), "clientId"),
        (of_client("p"), "instanceId"),
        ("/socket/in?topic=t&instanceId=1".to_owned(), "clientId"),
    ] {
        let refused = proxy.open(&path).await.err().unwrap();
        assert_eq!(refused.status, 400, "{path}");
        let message = refused.message();
        assert!(
            message.contains(&format!("parameter {missing} is missing")),
            "{message}"
        );
    }
    proxy.connect(&of_instance("p", "1")).await.close().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn with_sessions_an_instance_is_connected_once_over_all_nodes_while_its_client_answers() {
    let proxy = Proxy::with(with_sessions).await;
    proxy.topic("t", 1);
    let second = proxy.second(with_sessions).await;
    let mut first = proxy.connect(&of_instance("p", "1")).await;
    let reading = tokio::spawn(async move { first.next_message().await });
    for (node, address) in [("same", &proxy.address), ("other", &second.address)] {
        let refused = WsClient::connect(address, &of_instance("p", "1"))
            .await
            .err()
            .unwrap();
        assert_eq!(refused.status, 400, "{node}");
        let message = refused.message();
        let expected = "parameter instanceId: \"1\" of client \"p\" is already connected";
        assert!(message.contains(expected), "{message}");
    }
    assert!(!reading.is_finished());
    second.connect(&of_instance("p", "2")).await.close().await;
    second.connect(&of_instance("q", "1")).await.close().await;
    second.stopped().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn with_sessions_an_instance_whose_network_died_gets_in_at_another_node() {
    let proxy = Proxy::with(with_sessions).await;
    proxy.topic("t", 1);
    let second = proxy.second(with_sessions).await;
    // Nobody reads from it, so no ping is answered.
    let mut silent = proxy.connect(&of_instance("p", "1")).await;
    let mut again = second.connect(&of_instance("p", "1")).await;
    let (code, reason) = silent.closed().await;
    assert_eq!(code, 1008, "{reason}");
    assert!(reason.contains("evicted"), "{reason}");
    let ack = again
        .ask(json!({"value": {"value": "x"}}).to_string())
        .await;
    assert_eq!(ack["offset"], 0);
    second.stopped().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn a_socket_without_a_limit_is_open_before_the_log_answers() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    proxy.ready().await;
    let released = CancellationToken::new();
    let held = FaultAction::Hold(released.clone());
    let held = FaultRule::on(ApiKey::Produce, held).always();
    proxy.broker.faults().add(held);
    for path in [of_client("p"), of_instance("p", "1")] {
        proxy.connect(&path).await.close().await;
    }
    released.cancel();
    proxy.stopped().await;
}

#[tokio::test]
async fn an_idle_transactional_socket_is_closed_when_its_client_comes_to_another_node() {
    let transactions = |config: &mut Config| config.transactions.enabled = true;
    let proxy = Proxy::with(transactions).await;
    proxy.topic("t", 1);
    proxy.ready().await;
    let second = proxy.second(transactions).await;
    let path = |instance: &str| format!("{}&transactional=true", of_instance("p", instance));
    let mut first = proxy.connect(&path("1")).await;
    let mut other = proxy.connect(&path("2")).await;
    let mut again = second.connect(&path("1")).await;
    assert_eq!(first.closed().await, (1008, "fenced".to_owned()));
    for socket in [&mut other, &mut again] {
        let ack = socket.ask(r#"{"value":{"value":"x"}}"#).await;
        assert!(ack["offset"].is_number(), "{ack}");
    }
    second.stopped().await;
    proxy.stopped().await;
}
