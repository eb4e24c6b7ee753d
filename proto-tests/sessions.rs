//! Two proxies on one broker: the places of a group are those of both together.

use std::time::Duration;

use futures_util::future::join_all;
use kafka_client::TopicPartition;
use kafka_websocket_proxy::config::Config;
use memory_broker::{ApiKey, BrokerConfig, FaultAction, FaultRule, MemoryBroker};
use tokio_util::sync::CancellationToken;

use crate::support::program::Program;
use crate::support::proxy::{Proxy, readiness};
use crate::support::ws_client::{WsClient, let_in};
use crate::support::{until, until_asked};

const SESSION_TOPIC: &str = "_wsproxy.session.state";
/// TOPIC_AUTHORIZATION_FAILED
const NOT_AUTHORIZED: i16 = 29;

fn out(group: &str, client: &str) -> String {
    format!("/socket/out?topic=t&groupId={group}&clientId={client}")
}

async fn until_ready_says(address: &str, part: &str) {
    let says = async || readiness(address).await.1.contains(part);
    until_asked(part, says).await;
}

#[tokio::test]
async fn of_two_nodes_that_race_for_the_last_place_exactly_one_wins() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let second = proxy.second(|_| {}).await;
    for round in 0..20 {
        let group = format!("g{round}");
        let (path_a, path_b) = (out(&group, "a"), out(&group, "b"));
        let (a, b) = tokio::join!(proxy.open(&path_a), second.open(&path_b));
        let refused = match (a, b) {
            (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused,
            (Ok(_), Ok(_)) => panic!("both have the place of {group}"),
            (Err(a), Err(b)) => panic!("nobody has the place of {group}: {a:?} {b:?}"),
        };
        assert_eq!(refused.status, 400);
        let message = refused.message();
        assert!(message.contains("parameter groupId"), "{message}");
    }
    second.stopped().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn a_place_that_is_freed_at_one_node_is_had_at_another_at_once() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let second = proxy.second(|_| {}).await;
    // What is freed is read of a while later.
    let delay = FaultAction::Delay(Duration::from_millis(50));
    let rule = FaultRule::on(ApiKey::Fetch, delay).always();
    proxy.broker.faults().add(rule);
    for _ in 0..5 {
        let here = proxy.connect(&out("g", "a")).await;
        let full = second.open(&out("g", "b")).await.err().unwrap();
        assert_eq!(full.status, 400);
        here.close().await;
        let there = second.connect(&out("g", "b")).await;
        there.close().await;
    }
    second.stopped().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn a_socket_of_a_single_node_waits_for_one_produce_request_and_no_fetch() {
    let proxy = Proxy::with(|config| {
        // No lease is renewed meanwhile.
        config.sessions.lease_duration = Duration::from_secs(600);
    })
    .await;
    proxy.topic("t", 1);
    proxy.ready().await;
    let released = CancellationToken::new();
    let held = FaultAction::Hold(released.clone());
    let held = FaultRule::on(ApiKey::Fetch, held).always();
    proxy.broker.faults().add(held);
    let mut sockets = Vec::new();
    for n in 0..5 {
        let before = proxy.broker.requests(ApiKey::Produce);
        sockets.push(proxy.connect(&out(&format!("g{n}"), "a")).await);
        let after = proxy.broker.requests(ApiKey::Produce);
        assert_eq!(after - before, 1, "socket {n}");
    }
    // Nor do those that come at once.
    let opening = (5..55).map(async |n| proxy.connect(&out(&format!("g{n}"), "a")).await);
    sockets.extend(join_all(opening).await);
    released.cancel();
    proxy.stopped().await;
}

#[tokio::test]
async fn a_client_id_is_refused_on_another_node_while_its_client_answers() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 2);
    let second = proxy.second(|_| {}).await;
    let mut first = proxy.connect(&out("g", "a")).await;
    let reading = tokio::spawn(async move { first.next_message().await });
    let refused = second.open(&out("g", "a")).await.err().unwrap();
    assert_eq!(refused.status, 400);
    let message = refused.message();
    assert!(message.contains("parameter clientId"), "{message}");
    assert!(!reading.is_finished());
    // In another group it is another client.
    second.connect(&out("h", "a")).await.close().await;
    second.stopped().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn a_client_whose_network_died_gets_in_at_another_node() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let second = proxy.second(|_| {}).await;
    // Nobody reads from it, so no ping is answered.
    let mut silent = proxy.connect(&out("g", "a")).await;
    let again = second.connect(&out("g", "a")).await;
    let (code, reason) = silent.closed().await;
    assert_eq!(code, 1008, "{reason}");
    assert!(reason.contains("evicted"), "{reason}");
    let full = proxy.open(&out("g", "b")).await.err().unwrap();
    assert_eq!(full.status, 400);
    again.close().await;
    second.stopped().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn the_places_of_a_node_that_stops_are_free_at_the_others() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    // Longer than a test waits for anything: it leaves, and is not found dead.
    let lease = Duration::from_secs(3600);
    let second = proxy
        .second(|config| config.sessions.lease_duration = lease)
        .await;
    let mut sockets = Vec::new();
    for n in 0..20 {
        sockets.push(second.connect(&out(&format!("g{n}"), "a")).await);
    }
    let full = proxy.open(&out("g7", "b")).await.err().unwrap();
    assert_eq!(full.status, 400);
    let reading: Vec<_> = sockets
        .into_iter()
        .map(|mut socket| tokio::spawn(async move { socket.closed().await }))
        .collect();
    second.stopped().await;
    for closed in reading {
        assert_eq!(closed.await.unwrap().0, 1012);
    }
    for n in 0..20 {
        let path = out(&format!("g{n}"), "b");
        let_in(async || proxy.open(&path).await).await;
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn a_topic_that_cannot_be_written_stops_no_open_socket_and_new_ones_are_told() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut reader = proxy.connect(&out("g", "a")).await;
    let leaving = proxy.connect(&out("left", "a")).await;
    until_ready_says(&proxy.address, "200 OK").await;
    let rule = FaultRule::on(ApiKey::Produce, FaultAction::Error(NOT_AUTHORIZED)).always();
    proxy.broker.faults().add(rule);
    // Closing waits for nothing.
    leaving.close().await;
    until_ready_says(
        &proxy.address,
        "session topic _wsproxy.session.state: it cannot be written",
    )
    .await;
    let refused = proxy.open(&out("h", "a")).await.err().unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains_key("retry-after"));
    let message = refused.message();
    assert!(message.contains(SESSION_TOPIC), "{message}");

    proxy.broker.faults().clear();
    let mut writer = proxy.connect("/socket/in?topic=t").await;
    let ack = writer.ask(r#"{"value":{"value":"x"}}"#).await;
    assert_eq!(ack["offset"], 0, "{ack}");
    assert_eq!(reader.next().await["value"]["value"], "x");
    until_ready_says(&proxy.address, "200 OK").await;
    // What was released meanwhile was written after all.
    let second = proxy.second(|_| {}).await;
    let_in(async || second.open(&out("left", "b")).await).await;
    second.stopped().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn a_session_topic_that_is_lost_is_created_again_and_the_places_are_claimed_anew() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut socket = proxy.connect(&out("g", "a")).await;
    let reading = tokio::spawn(async move { socket.next_message().await });
    assert!(proxy.broker.delete_topic(SESSION_TOPIC));
    until_ready_says(&proxy.address, "503").await;
    until_ready_says(&proxy.address, "200 OK").await;
    let second = proxy.second(|_| {}).await;
    until_ready_says(&second.address, "200 OK").await;
    let refused = second.open(&out("g", "b")).await.err().unwrap();
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(!reading.is_finished());
    second.stopped().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn two_nodes_under_one_server_id_are_told_of_and_keep_their_sockets() {
    let proxy = Proxy::with(|config| config.sessions.lease_duration = Duration::from_secs(1)).await;
    proxy.topic("t", 1);
    let mut socket = proxy.connect(&out("g", "a")).await;
    let reading = tokio::spawn(async move { socket.next_message().await });
    let second = proxy
        .second(|config| {
            config.server.server_id = "node-1".to_owned();
            config.sessions.lease_duration = Duration::from_secs(1);
        })
        .await;
    let known_by_all = "another node has the same server.server-id";
    until_ready_says(&second.address, known_by_all).await;
    until_ready_says(&proxy.address, known_by_all).await;
    eventually_full(&second.address, &out("g", "b")).await;
    assert!(!reading.is_finished());
    second.stopped().await;
    until_ready_says(&proxy.address, "200 OK").await;
    proxy.stopped().await;
}

/// The place is claimed again by its node.
async fn eventually_full(address: &str, path: &str) {
    until_asked("full", async || {
        match WsClient::connect(address, path).await {
            Ok(socket) => {
                socket.close().await;
                false
            }
            Err(refused) => refused.status == 400,
        }
    })
    .await;
}

#[tokio::test]
async fn no_client_may_use_the_session_topic_whatever_it_is_called() {
    let proxy = Proxy::with(|config| config.sessions.topic.name = "who-is-here".to_owned()).await;
    proxy.topic("t", 1);
    proxy.connect(&out("g", "a")).await.close().await;
    let tp = TopicPartition::new("who-is-here", 0);
    until("it is created", || proxy.broker.leader(&tp).is_some()).await;
    for path in [
        "/socket/in?topic=who-is-here",
        "/socket/out?topic=t,who-is-here&clientId=a",
    ] {
        let refused = proxy.open(path).await.err().unwrap();
        assert_eq!(refused.status, 403, "{path}");
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn of_a_session_topic_with_more_partitions_the_first_is_used() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    proxy.topic("wide", 3);
    let wide = |config: &mut Config| config.sessions.topic.name = "wide".to_owned();
    let second = proxy.second(wide).await;
    let third = proxy
        .second(|config| {
            wide(config);
            config.server.server_id = "node-3".to_owned();
        })
        .await;
    let mut socket = second.connect(&out("g", "a")).await;
    let reading = tokio::spawn(async move { socket.next_message().await });
    let refused = third.open(&out("g", "b")).await.err().unwrap();
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(!reading.is_finished());
    third.stopped().await;
    second.stopped().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn a_session_topic_that_was_there_and_is_not_compacted_is_told_of_once_with_the_way_out() {
    let broker = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
    assert!(broker.create_topic("theirs", 1));
    let bootstrap = broker.bootstrap();
    let start = |topic: &str| {
        let topic = ["--session-handler-session-state-topic-name", topic];
        let brokers = ["--bootstrap-hosts", &bootstrap];
        Program::start_logged(&[brokers, topic].concat(), &[])
    };
    let warning = "the session topic is not compacted";
    let (program, log) = start("theirs");
    let line = log.first_with(warning).await;
    for part in ["topic=\"theirs\"", "cleanup.policy=[compact,delete]"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    program.ready().await;
    assert_eq!(log.with(warning).len(), 1);
    drop(program);
    // One that the proxy has created is found by the next start, too.
    for _ in 0..2 {
        let (program, log) = start("ours");
        program.ready().await;
        assert_eq!(log.with(warning), Vec::<String>::new());
    }
}

#[tokio::test]
async fn before_the_brokers_are_there_a_consuming_socket_is_told_to_come_again() {
    let proxy = Proxy::start().await;
    assert!(proxy.broker.stop_node(kafka_client::BrokerId(1)).await);
    let second = proxy.second(|_| {}).await;
    let (status, body) = readiness(&second.address).await;
    assert_eq!(status, 503);
    assert!(body.contains("the session state is not loaded"), "{body}");
    let refused = second.open(&out("g", "a")).await.err().unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains_key("retry-after"));
    let started = proxy.broker.start_node(kafka_client::BrokerId(1)).await;
    started.unwrap();
    proxy.topic("t", 1);
    let_in(async || second.open(&out("g", "a")).await).await;
    second.stopped().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn a_session_topic_that_was_just_created_is_waited_for() {
    /// UNKNOWN_TOPIC_OR_PARTITION
    const UNKNOWN: i16 = 3;
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    until_ready_says(&proxy.address, "200 OK").await;
    let unknown = FaultRule::on(ApiKey::Metadata, FaultAction::Error(UNKNOWN)).always();
    proxy.broker.faults().add(unknown);
    let second = proxy
        .second(|config| {
            config.sessions.topic.name = "sessions-of-others".to_owned();
            // No second try.
            config.sessions.topic.init_retry_interval = Duration::from_secs(3600);
        })
        .await;
    let tp = TopicPartition::new("sessions-of-others", 0);
    until("it is created", || proxy.broker.offsets(&tp).is_some()).await;
    let asked = proxy.broker.requests(ApiKey::Metadata);
    until("it was looked for twice", || {
        proxy.broker.requests(ApiKey::Metadata) > asked + 1
    })
    .await;
    proxy.broker.faults().clear();
    until_ready_says(&second.address, "200 OK").await;
    second.stopped().await;
    proxy.stopped().await;
}
