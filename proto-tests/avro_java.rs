//! Apache Avro's generic library for Java, with the schemas that the endpoints serve, and Apache
//! Kafka between what it writes and what it reads.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::task::block_in_place;
use tokio_tungstenite::tungstenite::Message;

use crate::support::avro::java;
use crate::support::kafka::{Kafka, unique};
use crate::support::program::Program;
use crate::support::ws_client::WsClient;

/// The binary frames that come, one a line, in base64.
async fn frames(socket: &mut WsClient, count: usize) -> String {
    let mut lines = String::new();
    for _ in 0..count {
        match socket.next_message().await {
            Some(Message::Binary(datum)) => lines += &(STANDARD.encode(datum) + "\n"),
            other => panic!("a binary frame was expected: {other:?}"),
        }
    }
    lines
}

fn values(lines: &[String]) -> Vec<Value> {
    let values = lines.iter().map(|line| serde_json::from_str(line).unwrap());
    values.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn javas_generic_library_writes_and_reads_our_messages_through_apache_kafka() {
    let (kafka, topic) = block_in_place(|| {
        let kafka = Kafka::shared("4.4", 1);
        let topic = unique("avro");
        kafka.create_topic(&topic, 1, 1);
        (kafka, topic)
    });
    let proxy = Program::for_cluster(kafka.bootstrap(), &[]);
    let schema = async |path: &str| proxy.get(&format!("/schemas/avro/{path}")).await.1;
    // Bytes are Latin-1 in Avro's JSON encoding.
    let records = [
        json!({"key": {"bytes": "k\u{ff}"}, "value": "v\u{0}\u{80}", "messageId": {"string": "m"},
            "headers": {"array": [
                {"key": "h", "value": {"bytes": "\u{fe}"}}, {"key": "null", "value": null}]},
            "tombstone": false}),
        json!({"key": null, "value": "", "headers": null, "messageId": null, "tombstone": false}),
        json!({"key": {"bytes": ""}, "value": "", "headers": {"array": []}, "messageId": null,
            "tombstone": true}),
    ];
    let lines: String = records.iter().map(|record| format!("{record}\n")).collect();
    let producer_record = schema("producer/record").await;
    let datums = block_in_place(|| java("encode", &producer_record, &lines));

    let path = format!("topic={topic}&socketPayload=avro");
    let mut into = proxy.connect(&format!("/socket/in?{path}")).await;
    for datum in &datums {
        let datum = STANDARD.decode(datum).unwrap();
        into.send_message(Message::binary(datum)).await;
    }
    let answered = frames(&mut into, 3).await;
    let client = unique("c");
    let out = format!("/socket/out?{path}&clientId={client}&autoCommit=false");
    let mut from = proxy.connect(&out).await;
    let delivered = frames(&mut from, 3).await;

    let result = schema("producer/result").await;
    let answers = values(&block_in_place(|| java("decode", &result, &answered)));
    let consumer_record = schema("consumer/record").await;
    let read = values(&block_in_place(|| {
        java("decode", &consumer_record, &delivered)
    }));
    for (offset, ((sent, answer), read)) in records.iter().zip(&answers).zip(&read).enumerate() {
        assert_eq!(answer["topic"], topic);
        assert_eq!(
            (&answer["partition"], &answer["offset"]),
            (&json!(0), &json!(offset))
        );
        assert_eq!(answer["messageId"], sent["messageId"]);
        let timestamp = &answer["timestamp"];
        let id = format!("{topic}-0-{offset}-{timestamp}");
        assert_eq!(read["wsProxyMessageId"], id);
        assert_eq!(
            (&read["offset"], &read["timestamp"]),
            (&json!(offset), timestamp)
        );
        for field in ["key", "value", "tombstone"] {
            assert_eq!(read[field], sent[field], "{field}");
        }
        // Kafka knows no difference between no headers and none.
        let has_some = sent["headers"]["array"] != json!([]);
        assert_eq!(
            read["headers"],
            if has_some {
                &sent["headers"]
            } else {
                &Value::Null
            }
            .clone()
        );
    }

    let commit = schema("consumer/commit").await;
    let line = json!({ "wsProxyMessageId": read[1]["wsProxyMessageId"] }).to_string();
    let datum = block_in_place(|| java("encode", &commit, &line)).remove(0);
    from.send_message(Message::binary(STANDARD.decode(datum).unwrap()))
        .await;
    from.close().await;
    let mut again = proxy.connect(&out).await;
    let rest = frames(&mut again, 1).await;
    let rest = values(&block_in_place(|| java("decode", &consumer_record, &rest)));
    assert_eq!(rest[0]["offset"], 2);
}
