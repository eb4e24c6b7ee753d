//! Sockets that write in transactions: each message as a whole, or not at all.

use kafka_websocket_proxy::config::Config;
use memory_broker::{ApiKey, FaultAction, FaultRule};
use serde_json::{Value, json};

use crate::support::kafka;
use crate::support::proxy::Proxy;
use crate::support::until;
use crate::support::ws_client::WsClient;

const SOCKET: &str = "/socket/in?topic=t&clientId=pay&transactional=true";

fn exactly_once(config: &mut Config) {
    config.transactions.enabled = true;
}

async fn proxy() -> Proxy {
    let proxy = Proxy::with(exactly_once).await;
    proxy.topic("t", 3);
    proxy
}

fn record(value: &str) -> Value {
    json!({"value": {"value": value}, "partition": 0, "messageId": value})
}

fn is_ack(answer: &Value, id: &str) {
    assert!(answer["offset"].is_i64(), "{answer}");
    assert_eq!(answer["messageId"], id, "{answer}");
}

fn is_error(answer: &Value, code: &str, id: &str) {
    assert_eq!(answer["error"]["code"], code, "{answer}");
    assert_eq!(answer["messageId"], id, "{answer}");
}

/// What librdkafka reads of that which is committed, in the order of the log.
async fn committed(proxy: &Proxy) -> Vec<String> {
    let bootstrap = proxy.broker.bootstrap();
    let read = move || {
        let options = [
            "-C",
            "-t",
            "t",
            "-p",
            "0",
            "-o",
            "beginning",
            "-e",
            "-X",
            "isolation.level=read_committed",
            "-f",
            "%s\n",
        ];
        String::from_utf8(kafka::kcat(&bootstrap, &options, b"")).unwrap()
    };
    let text = tokio::task::spawn_blocking(read).await.unwrap();
    text.lines().map(str::to_owned).collect()
}

async fn next(socket: &mut WsClient) -> Value {
    socket.next().await
}

#[tokio::test]
async fn a_message_is_answered_when_it_is_committed_and_no_sooner() {
    let proxy = proxy().await;
    let mut reader = proxy
        .connect("/socket/out?topic=t&clientId=r&isolationLevel=read_committed")
        .await;
    let mut socket = proxy.connect(SOCKET).await;
    is_ack(&socket.ask(record("a").to_string()).await, "a");
    let answers = socket
        .ask(json!([record("b"), record("c")]).to_string())
        .await;
    is_ack(&answers[0], "b");
    is_ack(&answers[1], "c");
    let mut seen = Vec::new();
    for record in reader.records(3).await {
        seen.push(record["value"]["value"].as_str().unwrap().to_owned());
    }
    assert_eq!(seen, ["a", "b", "c"]);
    // What is written and not committed is not answered.
    let faults = proxy.broker.faults();
    faults.add(FaultRule::on(ApiKey::EndTxn, FaultAction::Silence).always());
    socket.send(record("d").to_string()).await;
    until("d is written", || proxy.broker.requests(ApiKey::EndTxn) > 2).await;
    assert_eq!(committed(&proxy).await, ["a", "b", "c"]);
    faults.clear();
    reader.close().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn a_fault_aborts_its_message_and_no_other() {
    let proxy = proxy().await;
    let mut socket = proxy.connect(SOCKET).await;
    let bad_format = json!({"value": {"value": "x", "format": "int"}, "messageId": "x"});
    let mut no_partition = record("y");
    no_partition["partition"] = json!(7);
    let messages = [
        record("a"),
        json!([record("b"), bad_format, record("c")]),
        record("d"),
        json!([record("e"), no_partition]),
        json!({"command": "x"}),
        json!([]),
        record("f"),
    ];
    for message in &messages {
        socket.send(message.to_string()).await;
    }
    socket.send("{no json").await;
    is_ack(&next(&mut socket).await, "a");
    let answers = next(&mut socket).await;
    is_error(&answers[0], "aborted", "b");
    is_error(&answers[1], "invalid_format", "x");
    is_error(&answers[2], "aborted", "c");
    is_ack(&next(&mut socket).await, "d");
    let answers = next(&mut socket).await;
    is_error(&answers[0], "aborted", "e");
    is_error(&answers[1], "invalid_record", "y");
    assert_eq!(next(&mut socket).await["error"]["code"], "unknown_command");
    assert_eq!(next(&mut socket).await, json!([]));
    is_ack(&next(&mut socket).await, "f");
    assert_eq!(next(&mut socket).await["error"]["code"], "invalid_json");
    assert_eq!(committed(&proxy).await, ["a", "d", "f"]);
    socket.close().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn a_clean_close_commits_what_was_sent_and_a_lost_connection_aborts_it() {
    let proxy = proxy().await;
    let messages = |name: &str| -> Vec<String> {
        let message = |n| record(&format!("{name}{n}")).to_string();
        (0..50).map(message).collect()
    };
    let mut socket = proxy.connect(SOCKET).await;
    for message in messages("closed") {
        socket.send(message).await;
    }
    socket.close().await;
    assert_eq!(committed(&proxy).await.len(), 50);

    let faults = proxy.broker.faults();
    faults.add(FaultRule::on(ApiKey::Produce, FaultAction::Silence));
    let before = proxy.broker.requests(ApiKey::Produce);
    let mut socket = proxy.connect(SOCKET).await;
    for message in messages("lost") {
        socket.send(message).await;
    }
    until("a record is on its way", || {
        proxy.broker.requests(ApiKey::Produce) > before
    })
    .await;
    drop(socket.into_tcp());
    // Whoever comes next finds nothing of it.
    let mut socket = proxy.connect(SOCKET).await;
    is_ack(&socket.ask(record("after").to_string()).await, "after");
    let seen = committed(&proxy).await;
    assert_eq!(seen.len(), 51, "{seen:?}");
    assert_eq!(seen.last().unwrap(), "after");
    socket.close().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn a_client_that_comes_back_fences_what_is_left_of_its_former_socket() {
    let proxy = proxy().await;
    let second = proxy.second(exactly_once).await;
    for node in ["its own", "another"] {
        let mut former = proxy.connect(SOCKET).await;
        is_ack(&former.ask(record("a").to_string()).await, "a");
        let mut other = proxy.connect(&format!("{SOCKET}&instanceId=2")).await;
        let mut newer = match node {
            "its own" => proxy.connect(SOCKET).await,
            _ => second.connect(SOCKET).await,
        };
        // It is closed although it is idle.
        assert_eq!(former.closed().await, (1008, "fenced".to_owned()), "{node}");
        is_ack(&newer.ask(record("b").to_string()).await, "b");
        is_ack(&other.ask(record("c").to_string()).await, "c");
        newer.close().await;
        other.close().await;
    }
    second.stopped().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn a_principal_that_may_not_use_the_transactional_id_is_refused_with_403() {
    let proxy = proxy().await;
    let not_authorized = FaultRule::on(ApiKey::InitProducerId, FaultAction::Error(53));
    proxy.broker.faults().add(not_authorized);
    let refused = proxy.open(SOCKET).await.err().unwrap();
    assert_eq!(refused.status, 403);
    let message = refused.message();
    assert!(message.contains("wsproxy-pay"), "{message}");
    let mut socket = proxy.connect(SOCKET).await;
    is_ack(&socket.ask(record("a").to_string()).await, "a");
    socket.close().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn who_cannot_have_transactions_is_refused_with_what_would_help() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let refused = proxy.open(SOCKET).await.err().unwrap();
    assert_eq!(refused.status, 400);
    let message = refused.message();
    assert!(
        message.contains("producer.exactly-once-enabled"),
        "{message}"
    );
    let second = proxy.second(exactly_once).await;
    for (path, part) in [
        ("/socket/in?topic=t&transactional=true", "clientId"),
        (
            "/socket/out?topic=t&clientId=c&transactional=true",
            "isolationLevel=read_committed",
        ),
        (
            "/socket/in?topic=t&clientId=c&transactional=1",
            "true, false",
        ),
    ] {
        let refused = second.open(path).await.err().unwrap();
        assert_eq!(refused.status, 400, "{path}");
        assert!(refused.message().contains(part), "{}", refused.message());
    }
    second.stopped().await;
    proxy.stopped().await;
}
