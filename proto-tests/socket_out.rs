//! `/socket/out`: consuming through a WebSocket.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kafka_client::TopicPartition;
use kafka_client::config::CompressionType;
use kafka_client::record::{NewRecord, RecordBatchBuilder};
use memory_broker::ApiKey;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::PATIENCE;
use crate::support::proxy::Proxy;
use crate::support::ws_client::WsClient;

/// Produces `values` to `t` through a socket of its own.
async fn produce(proxy: &Proxy, values: impl IntoIterator<Item = String>) {
    let mut socket = proxy.connect("/socket/in?topic=t").await;
    let records: Vec<_> = values
        .into_iter()
        .map(|value| json!({"value": {"value": value}}))
        .collect();
    let answers = socket.ask(Value::Array(records).to_string()).await;
    assert!(
        answers
            .as_array()
            .unwrap()
            .iter()
            .all(|a| a["offset"].is_i64())
    );
    socket.close().await;
}

fn numbered(n: usize) -> impl Iterator<Item = String> {
    (0..n).map(|i| format!("v{i}"))
}

fn values(records: &[Value]) -> Vec<&str> {
    let value = |record: &'_ Value| record["value"]["value"].as_str().is_some();
    assert!(records.iter().all(value), "{records:?}");
    records
        .iter()
        .map(|r| r["value"]["value"].as_str().unwrap())
        .collect()
}

async fn commit(socket: &mut WsClient, record: &Value) {
    let id = record["wsProxyMessageId"].as_str().unwrap();
    socket
        .send(json!({"wsProxyMessageId": id}).to_string())
        .await;
}

#[tokio::test]
async fn records_arrive_with_all_their_fields() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut producer = proxy
        .connect("/socket/in?topic=t&keyType=string&valType=json")
        .await;
    let record = json!({
        "headers": [{"key": "h", "value": "1"}],
        "key": {"value": "k"},
        "value": {"value": {"a": [1, 2.50]}},
        "timestamp": 1_554_402_266_846_i64,
    });
    producer.ask(record.to_string()).await;
    producer.ask(r#"{"value":null}"#).await;
    let mut socket = proxy
        .connect("/socket/out?topic=t&clientId=a&valType=json")
        .await;
    assert_eq!(
        socket.next().await,
        json!({
            "wsProxyMessageId": "t-0-0-1554402266846",
            "topic": "t", "partition": 0, "offset": 0, "timestamp": 1_554_402_266_846_i64,
            "headers": [{"key": "h", "value": "1"}],
            "key": {"value": "k", "format": "string"},
            "value": {"value": {"a": [1, 2.50]}, "format": "json"},
        })
    );
    let tombstone = socket.next().await;
    assert_eq!(tombstone["value"], json!({"value": null}));
    assert!(tombstone.get("key").is_none() && tombstone.get("headers").is_none());
    proxy.stopped().await;
}

#[tokio::test]
async fn a_record_that_is_not_of_its_format_is_delivered_as_bytes_and_the_others_follow() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    produce(&proxy, ["abcd", "not four", "efgh"].map(str::to_owned)).await;
    let mut socket = proxy
        .connect("/socket/out?topic=t&clientId=a&valType=int")
        .await;
    let records = socket.records(3).await;
    assert_eq!(records[0]["value"]["value"], 0x6162_6364);
    assert_eq!(records[1]["value"]["format"], "bytearray");
    assert!(records[1]["value"]["error"].is_string());
    assert_eq!(records[2]["value"]["format"], "int");
    proxy.stopped().await;
}

#[tokio::test]
async fn one_produced_record_reaches_every_waiting_socket() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut sockets = Vec::new();
    for i in 0..50 {
        sockets.push(
            proxy
                .connect(&format!("/socket/out?topic=t&clientId=c{i}"))
                .await,
        );
    }
    produce(&proxy, numbered(10)).await;
    for socket in &mut sockets {
        let expected: Vec<_> = numbered(10).collect();
        assert_eq!(values(&socket.records(10).await), expected);
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn a_client_that_reconnects_resumes_behind_what_it_was_sent() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    produce(&proxy, numbered(10)).await;
    let path = "/socket/out?topic=t&clientId=a";
    let mut socket = proxy.connect(path).await;
    assert_eq!(socket.records(10).await[9]["offset"], 9);
    socket.close().await;
    produce(&proxy, ["next".to_owned()]).await;
    let mut socket = proxy.connect(path).await;
    assert_eq!(socket.next().await["offset"], 10);
    proxy.stopped().await;
}

#[tokio::test]
async fn without_auto_commit_what_was_not_committed_is_delivered_again() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    produce(&proxy, numbered(10)).await;
    let path = "/socket/out?topic=t&clientId=a&autoCommit=false";
    let mut socket = proxy.connect(path).await;
    let records = socket.records(10).await;
    commit(&mut socket, &records[6]).await;
    socket.close().await;
    let mut socket = proxy.connect(path).await;
    assert_eq!(socket.next().await["offset"], 7);
    proxy.stopped().await;
}

#[tokio::test]
async fn frames_that_are_no_known_commit_are_answered_and_close_nothing() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    produce(&proxy, numbered(5)).await;
    let mut socket = proxy
        .connect("/socket/out?topic=t&clientId=a&autoCommit=false")
        .await;
    let records = socket.records(5).await;
    for (frame, code) in [
        ("{", "invalid_json"),
        ("{}", "invalid_record"),
        (r#"{"wsProxyMessageId":"t-0-9-1"}"#, "unknown_message_id"),
        (r#"{"wsProxyMessageId":"no-id"}"#, "unknown_message_id"),
    ] {
        let answer = socket.ask(frame).await;
        assert_eq!(answer["error"]["code"], code, "{frame}: {answer}");
    }
    commit(&mut socket, &records[4]).await;
    let id = records[2]["wsProxyMessageId"].as_str().unwrap();
    let below = socket
        .ask(json!({"wsProxyMessageId": id}).to_string())
        .await;
    assert_eq!(below["error"]["code"], "unknown_message_id");
    assert_eq!(below["wsProxyMessageId"], id);

    let mut auto = proxy.connect("/socket/out?topic=t&clientId=b").await;
    let record = auto.records(5).await.remove(0);
    commit(&mut auto, &record).await;
    assert_eq!(auto.next().await["error"]["code"], "auto_commit_enabled");
    let other = auto.ask(r#"{"wsProxyMessageId":"no-id"}"#).await;
    assert_eq!(other["error"]["code"], "auto_commit_enabled");
    proxy.stopped().await;
}

#[tokio::test]
async fn batches_are_arrays_of_at_most_their_size_and_are_sent_soon() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    produce(&proxy, numbered(25)).await;
    let mut socket = proxy
        .connect("/socket/out?topic=t&clientId=a&batchSize=10")
        .await;
    let mut sizes = Vec::new();
    let mut all = Vec::new();
    while all.len() < 25 {
        let batch = socket.next().await;
        let batch = batch.as_array().expect("an array").clone();
        sizes.push(batch.len());
        all.extend(batch);
    }
    assert!(sizes.iter().all(|&n| (1..=10).contains(&n)), "{sizes:?}");
    assert_eq!(values(&all), numbered(25).collect::<Vec<_>>());
    produce(&proxy, ["one".to_owned()]).await;
    assert_eq!(socket.next().await.as_array().unwrap().len(), 1);
    proxy.stopped().await;
}

#[tokio::test]
async fn control_records_at_the_end_of_a_log_are_committed_past() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let tp = TopicPartition::new("t", 0);
    let mut records = RecordBatchBuilder::new(100);
    for value in ["v0", "v1", "v2"] {
        records.append(&NewRecord {
            key: None,
            value: Some(value.as_bytes()),
            headers: &[],
            timestamp: 0,
        });
    }
    let mut records = records.build(CompressionType::None);
    records.set_transactional(true);
    records.set_producer_state(7, 0, 0);
    proxy.broker.append(&tp, &records.bytes()).unwrap();
    proxy.broker.end_transaction(&tp, 7, 0, true);
    for (client, batch) in [("a", ""), ("b", "&batchSize=2"), ("c", "&batchSize=3")] {
        let path = format!("/socket/out?topic=t&clientId={client}&groupId={client}{batch}");
        let mut socket = proxy.connect(&path).await;
        let mut read = 0;
        while read < 3 {
            read += match socket.next().await {
                Value::Array(batch) => batch.len(),
                _ => 1,
            };
        }
        socket.close().await;
        // The marker of the transaction's end lies at offset 3; what is committed at the
        // close is committed when the close is answered.
        assert_eq!(proxy.broker.committed(client, &tp), Some(4), "{client}");
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn records_that_cannot_be_read_are_told_in_their_place_and_committed_like_others() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let tp = TopicPartition::new("t", 0);
    let mut batch = RecordBatchBuilder::new(100);
    for value in ["v0", "v1", "v2"] {
        batch.append(&NewRecord {
            key: None,
            value: Some(value.as_bytes()),
            headers: &[],
            timestamp: 0,
        });
    }
    let mut batch = batch.build(CompressionType::None);
    batch.set_producer_state(-1, -1, -1);
    proxy.broker.append(&tp, &batch.bytes()).unwrap();
    let mut damaged = batch.bytes().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    proxy.broker.append(&tp, &damaged).unwrap();
    produce(&proxy, ["last".to_owned()]).await;
    for (client, batch) in [("a", ""), ("b", "&batchSize=2")] {
        let path = format!("/socket/out?topic=t&clientId={client}&autoCommit=false{batch}");
        let mut socket = proxy.connect(&path).await;
        let records = socket.records(5).await;
        let unreadable = &records[3];
        assert_eq!(unreadable["error"]["code"], "unreadable", "{unreadable}");
        assert!(
            unreadable["error"]["message"]
                .as_str()
                .unwrap()
                .contains("damaged")
        );
        assert_eq!(unreadable["wsProxyMessageId"], "t-0-5--1");
        assert_eq!(
            (&unreadable["topic"], &unreadable["partition"]),
            (&json!("t"), &json!(0))
        );
        assert_eq!(
            (&unreadable["fromOffset"], &unreadable["offset"]),
            (&json!(3), &json!(5))
        );
        assert_eq!(records[4]["offset"], 6);
        commit(&mut socket, unreadable).await;
        socket.close().await;
        let group = format!("{client}-group");
        assert_eq!(proxy.broker.committed(&group, &tp), Some(6));
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn a_record_over_the_limit_is_reported_in_its_place() {
    let proxy = Proxy::with(|config| config.consumer.record_bytes_max = 10_000).await;
    proxy.topic("t", 1);
    produce(&proxy, ["a".to_owned(), "x".repeat(20_000), "b".to_owned()]).await;
    let mut socket = proxy.connect("/socket/out?topic=t&clientId=a").await;
    let records = socket.records(3).await;
    assert_eq!(records[0]["value"]["value"], "a");
    assert_eq!(records[1]["error"]["code"], "unreadable", "{}", records[1]);
    assert_eq!(
        (&records[1]["fromOffset"], &records[1]["offset"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(records[2]["value"]["value"], "b");
    proxy.stopped().await;
}

#[tokio::test]
async fn a_socket_that_waits_for_its_rate_fetches_nothing_again() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    for _ in 0..6 {
        produce(&proxy, [(); 4].map(|()| "x".repeat(100_000))).await;
    }
    proxy.ready().await;
    let before = proxy.broker.requests(ApiKey::Fetch);
    let mut socket = proxy
        .connect("/socket/out?topic=t&clientId=a&rate=24")
        .await;
    for offset in 0..24 {
        assert_eq!(socket.next().await["offset"], offset);
    }
    let fetches = proxy.broker.requests(ApiKey::Fetch) - before;
    // The session topic is polled twice a second.
    assert!(fetches < 14, "{fetches} for 2.4 MB");
    proxy.stopped().await;
}

#[tokio::test]
async fn a_rate_spreads_the_records() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    produce(&proxy, numbered(50)).await;
    for path in [
        "/socket/out?topic=t&clientId=a&rate=20",
        "/socket/out?topic=t&clientId=b&rate=20&batchSize=3",
    ] {
        let begin = Instant::now();
        let mut socket = proxy.connect(path).await;
        let records = socket.records(30).await;
        let took = begin.elapsed();
        assert_eq!(values(&records)[..30], numbered(30).collect::<Vec<_>>()[..]);
        assert!(took > Duration::from_millis(1200), "{took:?}");
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn the_sockets_of_a_group_share_the_partitions_and_take_over_from_each_other() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 4);
    let path = |client: &str| format!("/socket/out?topic=t&groupId=g&clientId={client}");
    let mut first = proxy.connect(&path("a")).await;
    let mut second = proxy.connect(&path("b")).await;
    // Until both have partitions, records to all partitions reach both.
    let mut producer = proxy.connect("/socket/in?topic=t").await;
    let mut seen = (BTreeSet::new(), BTreeSet::new());
    let deadline = Instant::now() + PATIENCE;
    while seen.0.is_empty() || seen.1.is_empty() {
        let left = Instant::now() < deadline;
        assert!(left, "one member never got a partition: {seen:?}");
        for partition in 0..4 {
            let record = json!({"value": {"value": "x"}, "partition": partition});
            producer.ask(record.to_string()).await;
        }
        for _ in 0..4 {
            tokio::select! {
                record = first.next() => seen.0.insert(record["partition"].as_i64().unwrap()),
                record = second.next() => seen.1.insert(record["partition"].as_i64().unwrap()),
            };
        }
    }
    second.close().await;
    for partition in 0..4 {
        let record = json!({"value": {"value": "y"}, "partition": partition});
        producer.ask(record.to_string()).await;
    }
    let mut taken_over = BTreeSet::new();
    while taken_over.len() < 4 {
        let record = first.next().await;
        if record["value"]["value"] == "y" {
            taken_over.insert(record["partition"].as_i64().unwrap());
        }
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn a_client_that_pauses_holds_no_memory_and_gets_everything_once_it_reads_again() {
    // Whoever lags has room for a record, and no second one has.
    let proxy = Proxy::with(|config| config.consumer.fetch_memory = 120 << 10).await;
    proxy.topic("t", 1);
    let big = "x".repeat(50_000);
    let n = 300;
    for chunk in 0..n / 10 {
        let name = |i: usize| format!("{}-{big}", chunk * 10 + i);
        produce(&proxy, (0..10).map(name)).await;
    }
    let mut paused = proxy.connect("/socket/out?topic=t&clientId=paused").await;
    assert_eq!(paused.next().await["offset"], 0);
    // Another one gets that room: the paused one has let go of its chunk.
    let mut other = proxy.connect("/socket/out?topic=t&clientId=other").await;
    assert_eq!(other.records(n).await.len(), n, "it is not held up");
    for offset in 1..n {
        let record = paused.next().await;
        assert_eq!(record["offset"], offset);
        let value = record["value"]["value"].as_str().unwrap();
        assert!(value.starts_with(&format!("{offset}-")) && value.len() > big.len());
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn without_a_committed_offset_and_with_strategy_none_the_socket_is_closed() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let path = "/socket/out?topic=t&clientId=a&offsetResetStrategy=none";
    let mut socket = proxy.connect(path).await;
    let (code, reason) = socket.closed().await;
    assert_eq!(code, 1008);
    assert!(reason.contains("offset"), "{reason}");
    proxy.stopped().await;
}

#[tokio::test]
async fn latest_starts_at_the_end_of_the_log() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    produce(&proxy, numbered(3)).await;
    let path = "/socket/out?topic=t&clientId=a&offsetResetStrategy=latest";
    let mut socket = proxy.connect(path).await;
    let mut producer = proxy.connect("/socket/in?topic=t").await;
    // It has joined when it gets something.
    let producing = async {
        loop {
            producer.ask(r#"{"value":{"value":"new"}}"#).await;
        }
    };
    let record = tokio::select! {
        record = socket.next() => record,
        () = producing => unreachable!(),
    };
    assert_eq!(record["value"]["value"], "new");
    proxy.stopped().await;
}

#[tokio::test]
async fn binary_frames_close_with_1003() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    for path in ["/socket/out?topic=t&clientId=a", "/socket/in?topic=t"] {
        let mut socket = proxy.connect(path).await;
        socket.send_message(Message::binary(vec![1, 2, 3])).await;
        assert_eq!(socket.closed().await.0, 1003, "{path}");
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn a_stop_commits_and_closes_with_1012() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    produce(&proxy, numbered(5)).await;
    let mut socket = proxy.connect("/socket/out?topic=t&clientId=a").await;
    socket.records(5).await;
    proxy.stop();
    assert_eq!(socket.closed().await.0, 1012);
    drop(socket);
    proxy.stopped().await;
}
