//! `/socket/in`: producing through a WebSocket.

use kafka_client::TopicPartition;
use memory_broker::{ApiKey, BrokerConfig, FaultAction, FaultRule};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, until};

fn record(value: &str) -> String {
    json!({"value": {"value": value}}).to_string()
}

#[tokio::test]
async fn a_record_is_acked_with_its_partition_and_offset() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut socket = proxy.connect("/socket/in?topic=t").await;
    for offset in 0..3 {
        let ack = socket.ask(record("x")).await;
        assert_eq!(ack["topic"], "t");
        assert_eq!(ack["partition"], 0);
        assert_eq!(ack["offset"], offset);
        assert!(ack["timestamp"].as_i64().unwrap() > 1_700_000_000_000);
        assert!(ack.get("messageId").is_none());
    }
    socket.close().await;
    proxy.stopped().await;
}

#[tokio::test]
async fn acks_come_in_the_order_of_the_records_with_errors_in_their_place() {
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
        let ack = socket.next().await;
        assert_eq!(ack["messageId"], format!("m{i}"), "{ack}");
        match i % 7 {
            0 => assert_eq!(ack["error"]["code"], "invalid_format", "{ack}"),
            _ => assert!(ack["offset"].is_i64(), "{ack}"),
        }
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn an_array_is_acked_by_an_array() {
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
    let ack = socket.next().await;
    let ids: Vec<_> = ack
        .as_array()
        .unwrap()
        .iter()
        .map(|a| &a["messageId"])
        .collect();
    assert_eq!(ids, ["1", "2", "3"]);
    assert_eq!(ack[1]["error"]["code"], "invalid_record");
    assert_eq!(ack[2]["offset"], 1);
    assert_eq!(socket.next().await, json!([]));
    assert_eq!(socket.next().await["offset"], 2);
    proxy.stopped().await;
}

#[tokio::test]
async fn an_array_longer_than_the_queue_is_acked_whole() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut socket = proxy.connect("/socket/in?topic=t").await;
    let records: Vec<Value> = (0..15_000)
        .map(|_| json!({"value": {"value": "v"}}))
        .collect();
    let ack = socket.ask(Value::Array(records).to_string()).await;
    let acks = ack.as_array().unwrap();
    assert_eq!(acks.len(), 15_000);
    assert_eq!(acks[14_999]["offset"], 14_999);
    proxy.stopped().await;
}

#[tokio::test]
async fn a_close_frame_is_answered_after_everything_that_was_sent_before_it() {
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
async fn a_record_for_a_partition_that_does_not_exist_is_rejected_alone() {
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
async fn a_record_over_the_broker_limit_is_rejected_as_too_large_and_no_other_is() {
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
async fn sockets_that_write_to_a_dead_partition_hold_up_no_other() {
    const RECORDS: usize = 20;
    let broker = BrokerConfig {
        nodes: 2,
        default_replication: 1,
        ..BrokerConfig::default()
    };
    let proxy = Proxy::with_broker(broker, |config| {
        config.producer.buffer_memory = 100_000;
    })
    .await;
    proxy.topic("t", 2);
    let value = "x".repeat(2_000);
    let to = |partition: i32| {
        let record = json!({"value": {"value": &value}, "partition": partition});
        record.to_string()
    };
    let mut other = proxy.connect("/socket/in?topic=t").await;
    let mut sockets = Vec::new();
    for _ in 0..8 {
        sockets.push(proxy.connect("/socket/in?topic=t").await);
    }
    let (dead, _) = proxy.broker.leader(&TopicPartition::new("t", 0)).unwrap();
    let dead = dead.unwrap();
    assert!(proxy.broker.stop_node(dead).await);
    for socket in &mut sockets {
        for _ in 0..RECORDS {
            socket.send(to(0)).await;
        }
    }
    for offset in 0..500 {
        assert_eq!(other.ask(to(1)).await["offset"], offset);
    }
    proxy.broker.start_node(dead).await.unwrap();
    let mut offsets = Vec::new();
    for socket in &mut sockets {
        for ack in socket.records(RECORDS).await {
            offsets.push(ack["offset"].as_u64().unwrap() as usize);
        }
    }
    offsets.sort_unstable();
    assert!(offsets.into_iter().eq(0..8 * RECORDS));
    proxy.stopped().await;
}

#[tokio::test]
async fn a_stop_acks_what_was_taken_and_closes_with_1012() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut socket = proxy.connect("/socket/in?topic=t").await;
    assert_eq!(socket.ask(record("x")).await["offset"], 0);
    proxy.stop();
    assert_eq!(socket.closed().await.0, 1012);
    proxy.stopped().await;
}

/// A text frame as clients send it, masked with zeros.
fn masked_text(text: &str) -> Vec<u8> {
    let len = u8::try_from(text.len()).unwrap();
    assert!(len < 126);
    let mut frame = vec![0x81, 0x80 | len, 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

#[tokio::test]
async fn an_end_of_the_stream_is_answered_as_a_close_frame_is() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut tcp = proxy.connect("/socket/in?topic=t").await.into_tcp();
    // Held until the client has ended its side: only then are there answers.
    let hold = CancellationToken::new();
    let produce = FaultRule::on(ApiKey::Produce, FaultAction::Hold(hold.clone()));
    proxy.broker.faults().add(produce);
    let mut frames = masked_text(&record("x")).repeat(200);
    // What is not complete was not sent.
    frames.extend_from_slice(&masked_text(&record("y"))[..9]);
    tcp.write_all(&frames).await.unwrap();
    tcp.shutdown().await.unwrap();
    until("the records are sent", || proxy.broker.faults().left() == 0).await;
    hold.cancel();
    let mut answers = Vec::new();
    let read = timeout(PATIENCE, tcp.read_to_end(&mut answers));
    read.await.unwrap().unwrap();
    assert!(answers.ends_with(&[0x88, 0]), "a close frame");
    let text = String::from_utf8_lossy(&answers);
    assert_eq!(text.matches(r#""offset":"#).count(), 200);
    assert!(text.contains(r#""offset":199,"#), "{text}");
    proxy.stopped().await;
}

#[tokio::test]
async fn what_a_client_sent_before_it_vanished_is_produced() {
    // So small that reading pauses until the first records are acked, to nobody.
    let proxy = Proxy::with(|config| config.server.websocket.send_buffer = 1024).await;
    proxy.topic("t", 1);
    let mut tcp = proxy.connect("/socket/in?topic=t").await.into_tcp();
    let hold = CancellationToken::new();
    let produce = FaultRule::on(ApiKey::Produce, FaultAction::Hold(hold.clone()));
    proxy.broker.faults().add(produce);
    let frames = masked_text(&record("x")).repeat(800);
    tcp.write_all(&frames).await.unwrap();
    until("the records are sent", || proxy.broker.faults().left() == 0).await;
    drop(tcp);
    hold.cancel();
    let t = TopicPartition::new("t", 0);
    until("all are written", || {
        proxy.broker.offsets(&t).unwrap().1 == 800
    })
    .await;
    proxy.stopped().await;
}
