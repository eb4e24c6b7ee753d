//! `/socket/in`: producing through a WebSocket.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::proxy::Proxy;

fn record(value: &str) -> String {
    json!({"value": {"value": value}}).to_string()
}

#[tokio::test]
async fn a_record_is_acknowledged_with_its_place() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut socket = proxy.connect("/socket/in?topic=t").await;
    for offset in 0..3 {
        let answer = socket.ask(record("x")).await;
        assert_eq!(answer["topic"], "t");
        assert_eq!(answer["partition"], 0);
        assert_eq!(answer["offset"], offset);
        assert!(answer["timestamp"].as_i64().unwrap() > 1_700_000_000_000);
        assert!(answer.get("messageId").is_none());
    }
    socket.close().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn answers_come_in_the_order_of_the_records_with_errors_in_their_place() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 3);
    let mut socket = proxy.connect("/socket/in?topic=t&valType=int").await;
    for i in 0..500 {
        let value = if i % 7 == 0 { json!("no") } else { json!(i) };
        let record = json!({
            "key": {"value": format!("k{}", i % 5), "format": "string"},
            "value": {"value": value},
            "messageId": format!("m{i}"),
        });
        socket.send(record.to_string()).await;
    }
    for i in 0..500 {
        let answer = socket.next().await;
        assert_eq!(answer["messageId"], format!("m{i}"), "{answer}");
        match i % 7 {
            0 => assert_eq!(answer["error"]["code"], "invalid_format", "{answer}"),
            _ => assert!(answer["offset"].is_i64(), "{answer}"),
        }
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn an_array_is_answered_by_an_array() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut socket = proxy.connect("/socket/in?topic=t").await;
    let frame = json!([
        {"value": {"value": "a"}, "messageId": "1"},
        {"value": 7, "messageId": "2"},
        {"value": null, "messageId": "3"},
    ]);
    socket.send(frame.to_string()).await;
    socket.send("[]").await;
    socket.send(record("b")).await;
    let answer = socket.next().await;
    let ids: Vec<_> = answer
        .as_array()
        .unwrap()
        .iter()
        .map(|a| &a["messageId"])
        .collect();
    assert_eq!(ids, ["1", "2", "3"]);
    assert_eq!(answer[1]["error"]["code"], "invalid_record");
    assert_eq!(answer[2]["offset"], 1);
    assert_eq!(socket.next().await, json!([]));
    assert_eq!(socket.next().await["offset"], 2);
    proxy.stopped().await;
}

#[tokio::test]
async fn an_array_longer_than_the_queue_is_answered_whole() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut socket = proxy.connect("/socket/in?topic=t").await;
    let records: Vec<Value> = (0..15_000)
        .map(|_| json!({"value": {"value": "v"}}))
        .collect();
    let answer = socket.ask(Value::Array(records).to_string()).await;
    let answers = answer.as_array().unwrap();
    assert_eq!(answers.len(), 15_000);
    assert_eq!(answers[14_999]["offset"], 14_999);
    proxy.stopped().await;
}

#[tokio::test]
async fn a_clean_close_is_answered_after_everything_that_was_sent_before_it() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut socket = proxy.connect("/socket/in?topic=t").await;
    for _ in 0..200 {
        socket.send(record("x")).await;
    }
    socket.send_message(Message::Close(None)).await;
    for offset in 0..200 {
        assert_eq!(socket.next().await["offset"], offset);
    }
    assert_eq!(socket.closed().await.0, 1005);
    proxy.stopped().await;
}

#[tokio::test]
async fn a_record_for_a_partition_that_is_not_there_is_refused_alone() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 2);
    let mut socket = proxy.connect("/socket/in?topic=t").await;
    let wrong = json!({"value": {"value": "x"}, "partition": 2}).to_string();
    assert_eq!(socket.ask(wrong).await["error"]["code"], "invalid_record");
    let right = json!({"value": {"value": "x"}, "partition": 1}).to_string();
    assert_eq!(socket.ask(right).await["partition"], 1);
    proxy.stopped().await;
}

#[tokio::test]
async fn a_record_over_the_broker_limit_is_too_large_and_harms_no_other() {
    let proxy = Proxy::with(|config| {
        config.producer.max_request_size = 1000;
    })
    .await;
    proxy.topic("t", 1);
    let mut socket = proxy.connect("/socket/in?topic=t").await;
    socket.send(record("a")).await;
    socket.send(record(&"x".repeat(2000))).await;
    socket.send(record("b")).await;
    assert_eq!(socket.next().await["offset"], 0);
    assert_eq!(socket.next().await["error"]["code"], "too_large");
    assert_eq!(socket.next().await["offset"], 1);
    proxy.stopped().await;
}

#[tokio::test]
async fn a_producer_out_of_memory_delays_and_loses_nothing() {
    let proxy = Proxy::with(|config| {
        config.producer.buffer_memory = 100_000;
    })
    .await;
    proxy.topic("t", 1);
    let mut socket = proxy.connect("/socket/in?topic=t").await;
    let value = "x".repeat(10_000);
    for _ in 0..100 {
        socket.send(record(&value)).await;
    }
    for offset in 0..100 {
        assert_eq!(socket.next().await["offset"], offset);
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn a_stop_answers_what_was_taken_and_closes_with_1012() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut socket = proxy.connect("/socket/in?topic=t").await;
    assert_eq!(socket.ask(record("x")).await["offset"], 0);
    proxy.stop();
    assert_eq!(socket.closed().await.0, 1012);
    proxy.stopped().await;
}
