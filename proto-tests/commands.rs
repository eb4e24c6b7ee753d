//! Commands, `{"command":"…"}`, on both sockets: where their answers stand, and what is none.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::avro::{AvroClient, field, producer_record};
use crate::support::proxy::Proxy;

const RECORD: &str = r#"{"value":{"value":"x"}}"#;
const UNKNOWN: &str = r#"{"command":"no such \u0063ommand\n","token":"a"}"#;

fn assert_unknown(answer: &Value) {
    assert_eq!(answer["command"], "no such command\n", "{answer}");
    assert_eq!(answer["error"]["code"], "unknown_command", "{answer}");
    let message = answer["error"]["message"].as_str();
    assert!(message.is_some_and(|message| !message.is_empty()));
    assert_eq!(answer.as_object().unwrap().len(), 2, "{answer}");
}

#[tokio::test]
async fn a_writers_command_is_answered_in_the_order_of_the_answers() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut socket = proxy.connect("/socket/in?topic=t").await;
    let array = r#"[{"value":null},{"command":"x","messageId":"m"},{"value":null}]"#;
    let with_value = r#"{"command":"x","value":{"value":"x"}}"#;
    for message in [RECORD, UNKNOWN, array, UNKNOWN, with_value, "[]", UNKNOWN] {
        socket.send(message).await;
    }
    assert_eq!(socket.next().await["offset"], 0);
    assert_unknown(&socket.next().await);
    let answers = socket.next().await;
    assert_eq!(answers[0]["offset"], 1, "{answers}");
    assert_eq!(answers[1]["error"]["code"], "invalid_record", "{answers}");
    assert_eq!(answers[1]["messageId"], "m", "{answers}");
    assert_eq!(answers[2]["offset"], 2, "{answers}");
    assert_unknown(&socket.next().await);
    assert_eq!(socket.next().await["offset"], 3);
    assert_eq!(socket.next().await, json!([]));
    assert_unknown(&socket.next().await);
    proxy.stopped().await;
}

#[tokio::test]
async fn a_readers_command_is_answered_between_its_records() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut producer = proxy.connect("/socket/in?topic=t").await;
    for query in ["", "&autoCommit=false", "&batchSize=3"] {
        // A client, and so a group, of its own.
        let client = query.len();
        let path = format!("/socket/out?topic=t&clientId={client}{query}");
        let mut socket = proxy.connect(&path).await;
        // A command, whatever else there is.
        socket
            .send(r#"{"wsProxyMessageId":"t-0-0-0","command":"x","value":1}"#)
            .await;
        producer.ask(RECORD).await;
        socket.send(UNKNOWN).await;
        let (mut records, mut answers) = (0, 0);
        while records < 1 || answers < 2 {
            match socket.next().await {
                Value::Array(batch) => records += batch.len(),
                message if message["command"] == "x" => {
                    assert_eq!(message["error"]["code"], "unknown_command", "{message}");
                    answers += 1;
                }
                message if message.get("command").is_some() => {
                    assert_unknown(&message);
                    answers += 1;
                }
                record => {
                    assert_eq!(record["topic"], "t", "{record}");
                    records += 1;
                }
            }
        }
        socket.close().await;
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn with_avro_commands_are_text_and_no_other_text_is_taken() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let avro = AvroClient::plain(&proxy).await;
    let into = "/socket/in?topic=t&socketPayload=avro";
    let from = "/socket/out?topic=t&clientId=c&socketPayload=avro";
    let mut producer = proxy.connect(into).await;
    let record = producer_record(None, Some(b"v"), Vec::new(), None);
    for offset in [0, 1] {
        let record = avro.message(&avro.producer_record, record.clone());
        producer.send_message(record).await;
        producer.send(UNKNOWN).await;
        let result = avro.read(&avro.producer_result, producer.next_message().await);
        let expected = apache_avro::types::Value::Long(offset);
        assert_eq!(field(&result, "offset"), expected);
        assert_unknown(&producer.next().await);
    }
    let mut consumer = proxy.connect(from).await;
    consumer.send(UNKNOWN).await;
    let (mut records, mut answers) = (0, 0);
    while records < 2 || answers < 1 {
        match consumer.next_message().await {
            Some(Message::Text(text)) => {
                assert_unknown(&serde_json::from_str(&text).unwrap());
                answers += 1;
            }
            Some(Message::Binary(_)) => records += 1,
            other => panic!("{other:?}"),
        }
    }
    consumer.close().await;
    for (path, text) in [
        (into, r#"{"command":"x","value":null}"#),
        (into, r#"{"command":5}"#),
        (into, r#"[{"command":"x"}]"#),
        (into, "x"),
        (from, r#"{"wsProxyMessageId":"t-0-0-0"}"#),
        (from, "[]"),
    ] {
        let mut socket = proxy.connect(path).await;
        socket.send(text).await;
        let (code, reason) = socket.closed().await;
        assert_eq!(code, 1003, "{path} {text}");
        assert!(reason.contains("text is a command"), "{reason}");
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn authenticate_is_refused_where_the_server_takes_no_tokens() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    for path in ["/socket/in?topic=t", "/socket/out?topic=t&clientId=c"] {
        let mut socket = proxy.connect(path).await;
        for fields in [
            "",
            r#","token":5"#,
            r#","token":null"#,
            r#","token":"e30.e30.x""#,
        ] {
            let answer = socket
                .ask(format!(r#"{{"command":"authenticate"{fields}}}"#))
                .await;
            assert_eq!(answer["command"], "authenticate", "{answer}");
            assert_eq!(answer["error"]["code"], "not_authorized", "{answer}");
            assert!(!answer.to_string().contains("e30"), "{answer}");
        }
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn the_answer_to_a_long_command_is_short() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    for path in ["/socket/in?topic=t", "/socket/out?topic=t&clientId=c"] {
        let mut socket = proxy.connect(path).await;
        let long = "é".repeat(100_000);
        let answer = socket
            .ask(json!({ "command": long, "token": long }).to_string())
            .await;
        let name = answer["command"].as_str().unwrap();
        assert!(name.starts_with("ééé") && name.len() < 200, "{name}");
        assert_eq!(answer["error"]["code"], "unknown_command", "{answer}");
    }
    proxy.stopped().await;
}
