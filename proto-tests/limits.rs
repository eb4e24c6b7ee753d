//! What a client may write and a group may read in a second (`producer.limits.*`,
//! `consumer.limits.*`).

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use crate::support::program::Program;
use crate::support::proxy::Proxy;
use crate::support::ws_client::WsClient;

fn record(value: &str) -> String {
    json!({"value": {"value": value}}).to_string()
}

fn array(records: usize) -> String {
    let records: Vec<_> = (0..records)
        .map(|_| json!({"value": {"value": "v"}}))
        .collect();
    json!(records).to_string()
}

/// Sends so many records one by one without waiting for acks; the offsets.
async fn produce(mut socket: WsClient, records: usize) -> Vec<u64> {
    for _ in 0..records {
        socket.send(record("v")).await;
    }
    let mut offsets = Vec::new();
    for _ in 0..records {
        offsets.push(socket.next().await["offset"].as_u64().expect("an ack"));
    }
    offsets
}

#[tokio::test]
async fn the_sockets_of_a_client_share_what_it_may_write_in_a_second_and_nothing_is_lost() {
    let proxy = Proxy::with(|config| {
        config.producer_limits.default_messages_per_second = 10;
    })
    .await;
    proxy.topic("t", 1);
    let begin = Instant::now();
    let path = "/socket/in?topic=t&clientId=a";
    let sockets = [proxy.connect(path).await, proxy.connect(path).await];
    let offsets = join_all(sockets.map(|socket| produce(socket, 15))).await;
    let took = begin.elapsed();
    assert!(took >= Duration::from_secs(2), "{took:?} for 30 records");
    let offsets: BTreeSet<_> = offsets.into_iter().flatten().collect();
    assert_eq!(offsets, (0..30).collect());
    proxy.stopped().await;
}

#[tokio::test]
async fn a_client_beyond_its_limit_keeps_no_other_waiting_nor_a_stop() {
    let proxy = Proxy::with(|config| {
        config.producer_limits.default_messages_per_second = 1;
    })
    .await;
    proxy.topic("t", 1);
    let path = |client: &str| format!("/socket/in?topic=t&clientId={client}");
    let mut over = proxy.connect(&path("a")).await;
    let acks = over.ask(array(1_000)).await;
    assert_eq!(
        acks.as_array().map(Vec::len),
        Some(1_000),
        "an array is taken whole"
    );
    // Its turn is in a quarter of an hour.
    over.send(record("late")).await;
    let mut other = proxy.connect(&path("b")).await;
    assert_eq!(other.ask(record("v")).await["offset"], 1_000);
    proxy.stop();
    let (code, _) = over.closed().await;
    assert_eq!(code, 1012, "without an ack: it was not taken");
    drop(other);
    proxy.stopped().await;
}

#[tokio::test]
async fn the_sockets_of_a_group_share_what_it_may_read_in_a_second_and_rate_is_less_where_it_is() {
    let proxy = Proxy::with(|config| {
        config.consumer_limits.default_messages_per_second = 10;
    })
    .await;
    proxy.topic("t", 2);
    let mut producer = proxy.connect("/socket/in?topic=t").await;
    for n in 0..30 {
        let record = json!({"value": {"value": "v"}, "partition": n % 2});
        producer.ask(record.to_string()).await;
    }
    let begin = Instant::now();
    let path = |client: &str| format!("/socket/out?topic=t&groupId=g&clientId={client}");
    let mut first = proxy.connect(&path("a")).await;
    let mut second = proxy.connect(&path("b")).await;
    let mut places = BTreeSet::new();
    while places.len() < 30 {
        let record = tokio::select! {
            record = first.next() => record,
            record = second.next() => record,
        };
        places.insert((record["partition"].as_u64(), record["offset"].as_u64()));
    }
    let took = begin.elapsed();
    assert!(took >= Duration::from_secs(2), "{took:?} for 30 records");

    let begin = Instant::now();
    let path = "/socket/out?topic=t&groupId=h&clientId=a&rate=5";
    let mut slow = proxy.connect(path).await;
    slow.records(11).await;
    let took = begin.elapsed();
    assert!(
        took >= Duration::from_millis(1_900),
        "{took:?} for 11 records"
    );
    proxy.stopped().await;
}

/// What one frame is: an array, or a record.
async fn frame(program: &Program, group: &str, more: &str) -> Value {
    let path = format!("/socket/out?topic=t&clientId=c&groupId={group}{more}");
    program.connect(&path).await.next().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_entry_of_a_client_comes_before_the_defaults_field_by_field() {
    let program = Program::start(&[
        "--dev",
        "--consumer-limits-default-batch-size",
        "3",
        "-D",
        "producer.limits.client-specific-limits=[{producer-id = \"slow, really\", messages-per-second = 1}]",
        "-D",
        "consumer.limits.client-specific-limits=[{group-id = single, batch-size = 0}, {group-id = g, messages-per-second = 1000}]",
    ]);
    let mut producer = program.connect("/socket/in?topic=t&clientId=fast").await;
    let acks = producer.ask(array(100)).await;
    assert_eq!(acks[99]["offset"], 99);
    assert_eq!(producer.ask(record("v")).await["offset"], 100, "at once");
    let slow = "/socket/in?topic=t&clientId=slow,%20really";
    let begin = Instant::now();
    let slow = program.connect(slow).await;
    assert_eq!(produce(slow, 3).await, [101, 102, 103]);
    let took = begin.elapsed();
    assert!(took >= Duration::from_secs(2), "{took:?} for 3 records");
    assert!(frame(&program, "g", "").await.is_array());
    assert!(frame(&program, "other", "").await.is_array());
    assert!(frame(&program, "single", "").await.is_object());
    assert!(frame(&program, "h", "&batchSize=0").await.is_object());
}

#[tokio::test]
async fn commands_do_not_count_as_records() {
    let proxy = Proxy::with(|config| {
        config.producer_limits.default_messages_per_second = 1;
    })
    .await;
    proxy.topic("t", 1);
    let mut socket = proxy.connect("/socket/in?topic=t&clientId=a").await;
    // Each of them would wait for the one before it: for an hour in all.
    for _ in 0..3_600 {
        let answer = socket.ask(r#"{"command":"x"}"#).await;
        assert_eq!(answer["error"]["code"], "unknown_command");
    }
    assert_eq!(socket.ask(record("v")).await["offset"], 0);
    proxy.stopped().await;
}
