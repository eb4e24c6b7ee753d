//! `socketPayload=avro`: what a client reads and writes with a generic Avro library, given the
//! schemas that the endpoints serve.

use apache_avro::Schema;
use apache_avro::types::Value;
use kafka_client::TopicPartition;
use kafka_client::config::CompressionType;
use kafka_client::record::{NewRecord, RecordBatchBuilder};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::avro::{
    AvroClient, bytes, datum, field, header, optional, producer_record, text, value,
};
use crate::support::proxy::Proxy;

#[tokio::test]
async fn records_pass_with_all_that_they_have() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let avro = AvroClient::plain(&proxy).await;
    let mut into = proxy.connect("/socket/in?topic=t&socketPayload=avro").await;
    let mut from = proxy
        .connect("/socket/out?topic=t&clientId=c&socketPayload=avro")
        .await;
    let headers = vec![
        header("text", Some(b"v")),
        header("binary", Some(b"\xff\x00")),
        header("empty", Some(b"")),
        header("null", None),
    ];
    for (offset, (key, value, headers)) in [
        (Some(&b"\xff\x00"[..]), Some(&b"\x00\xfe"[..]), headers),
        (None, Some(b""), Vec::new()),
        (Some(b""), None, Vec::new()),
        (Some(b"k"), Some(&[7; 70_000]), Vec::new()),
    ]
    .into_iter()
    .enumerate()
    {
        let message_id = format!("m-{offset}");
        let record = producer_record(key, value, headers.clone(), Some(&message_id));
        into.send_message(avro.message(&avro.producer_record, record))
            .await;
        let result = avro.read(&avro.producer_result, into.next_message().await);
        assert_eq!(text(&result, "topic"), "t");
        assert_eq!(field(&result, "partition"), Value::Int(0));
        assert_eq!(field(&result, "offset"), Value::Long(offset as i64));
        assert_eq!(
            field(&result, "messageId"),
            optional(Some(Value::String(message_id)))
        );
        let Value::Long(timestamp) = field(&result, "timestamp") else {
            panic!("{result:?}");
        };

        let read = avro.read(&avro.consumer_record, from.next_message().await);
        let id = format!("t-0-{offset}-{timestamp}");
        assert_eq!(text(&read, "wsProxyMessageId"), id);
        assert_eq!(text(&read, "topic"), "t");
        assert_eq!(field(&read, "partition"), Value::Int(0));
        assert_eq!(field(&read, "offset"), Value::Long(offset as i64));
        assert_eq!(field(&read, "timestamp"), Value::Long(timestamp));
        assert_eq!(field(&read, "key"), optional(key.map(bytes)));
        assert_eq!(field(&read, "value"), bytes(value.unwrap_or_default()));
        assert_eq!(field(&read, "tombstone"), Value::Boolean(value.is_none()));
        let headers = (!headers.is_empty()).then_some(Value::Array(headers));
        assert_eq!(field(&read, "headers"), optional(headers));
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn avro_and_json_sockets_of_one_topic_see_the_same_records() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let avro = AvroClient::plain(&proxy).await;
    let mut binary = proxy
        .connect("/socket/out?topic=t&clientId=b&socketPayload=avro")
        .await;
    let mut json = proxy.connect("/socket/out?topic=t&clientId=j").await;
    let mut into = proxy
        .connect("/socket/in?topic=t&socketPayload=avro&keyType=long&valType=json")
        .await;
    let mut json_into = proxy.connect("/socket/in?topic=t").await;
    // Its client has serialized key and value: keyType and valType change nothing.
    let record = producer_record(Some(b"k"), Some(b"not JSON"), Vec::new(), None);
    into.send_message(avro.message(&avro.producer_record, record))
        .await;
    let result = avro.read(&avro.producer_result, into.next_message().await);
    assert_eq!(field(&result, "messageId"), optional(None));
    let answer = json_into.ask(r#"{"value":{"value":"text"}}"#).await;
    assert_eq!(answer["offset"], 1);

    let records = json.records(2).await;
    assert_eq!(records[0]["key"]["value"], "k");
    assert_eq!(records[0]["value"]["value"], "not JSON");
    assert_eq!(records[1]["value"]["value"], "text");
    for value in [&b"not JSON"[..], b"text"] {
        let read = avro.read(&avro.consumer_record, binary.next_message().await);
        assert_eq!(field(&read, "value"), bytes(value));
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn clients_with_the_originals_schemas_go_on_working() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let original = |name: &str| {
        let file = format!("proto-tests/golden/schemas/{name}.avsc");
        let text = std::fs::read_to_string(crate::support::kafka::root().join(file)).unwrap();
        Schema::parse_str(&text).unwrap()
    };
    let mut into = proxy.connect("/socket/in?topic=t&socketPayload=avro").await;
    let mut from = proxy
        .connect("/socket/out?topic=t&clientId=c&socketPayload=avro")
        .await;
    let record = Value::Record(vec![
        ("key".to_owned(), optional(Some(bytes(b"k")))),
        ("value".to_owned(), bytes(b"v")),
    ]);
    let message = datum(&original("AvroProducerRecord"), record);
    into.send_message(Message::binary(message)).await;
    // What follows the fields that it knows, a client does not read.
    let read = |name: &str, message: Option<Message>| {
        let Some(Message::Binary(datum)) = message else {
            panic!("{message:?}");
        };
        value(&original(name), &mut &datum[..])
    };
    let result = read("AvroProducerResult", into.next_message().await);
    assert_eq!(field(&result, "offset"), Value::Long(0));
    let record = read("AvroConsumerRecord", from.next_message().await);
    assert_eq!(field(&record, "key"), optional(Some(bytes(b"k"))));
    assert_eq!(field(&record, "value"), bytes(b"v"));
    proxy.stopped().await;
}

#[tokio::test]
async fn what_is_no_record_is_answered_by_text_in_its_place_and_the_socket_stays_open() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let avro = AvroClient::plain(&proxy).await;
    let mut into = proxy.connect("/socket/in?topic=t&socketPayload=avro").await;
    let good = avro.message(
        &avro.producer_record,
        producer_record(None, Some(b"v"), Vec::new(), Some("good")),
    );
    let Message::Binary(datum) = good.clone() else {
        panic!("{good:?}");
    };
    let trailing = [&datum[..], b"x"].concat();
    for message in [
        good.clone(),
        Message::binary(trailing),
        Message::binary(datum[..2].to_vec()),
        Message::binary(Vec::new()),
        good,
    ] {
        into.send_message(message).await;
    }
    for offset in [0, 1] {
        let result = avro.read(&avro.producer_result, into.next_message().await);
        assert_eq!(field(&result, "offset"), Value::Long(offset));
        if offset > 0 {
            break;
        }
        for id in [json!("good"), json!(null), json!(null)] {
            let answer = into.next().await;
            assert_eq!(answer["error"]["code"], "invalid_record", "{answer}");
            assert_eq!(answer["messageId"], id, "{answer}");
        }
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn frames_of_the_other_kind_close_with_1003() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    for path in ["/socket/in?topic=t", "/socket/out?topic=t&clientId=c"] {
        let mut avro = proxy.connect(&format!("{path}&socketPayload=avro")).await;
        avro.send("{}").await;
        assert_eq!(avro.closed().await.0, 1003, "{path}");
        let mut json = proxy.connect(path).await;
        json.send_message(Message::binary(vec![0])).await;
        assert_eq!(json.closed().await.0, 1003, "{path}");
    }
    let query = "/socket/out?topic=t&clientId=c&socketPayload=avro&batchSize=10";
    let refused = proxy.open(query).await.err().unwrap();
    assert_eq!(refused.status, 400);
    assert!(refused.message().contains("batchSize"), "{refused:?}");
    proxy.stopped().await;
}

#[tokio::test]
async fn commits_in_avro_commit_and_what_commits_nothing_is_answered_by_text() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let avro = AvroClient::plain(&proxy).await;
    let mut into = proxy.connect("/socket/in?topic=t").await;
    for value in ["a", "b", "c"] {
        into.ask(json!({ "value": { "value": value } }).to_string())
            .await;
    }
    let path = "/socket/out?topic=t&clientId=c&socketPayload=avro";
    let mut from = proxy.connect(&format!("{path}&autoCommit=false")).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let read = avro.read(&avro.consumer_record, from.next_message().await);
        ids.push(text(&read, "wsProxyMessageId"));
    }
    from.send_message(avro.commit(&ids[1])).await;
    for (message, code, echoed) in [
        (avro.commit(&ids[0]), "unknown_message_id", json!(ids[0])),
        (
            avro.commit("no \"id\""),
            "unknown_message_id",
            json!("no \"id\""),
        ),
        (Message::binary(vec![9]), "invalid_record", json!(null)),
    ] {
        from.send_message(message).await;
        let answer = from.next().await;
        assert_eq!(answer["error"]["code"], code, "{answer}");
        assert_eq!(answer["wsProxyMessageId"], echoed, "{answer}");
    }
    from.close().await;

    let mut from = proxy.connect(path).await;
    let read = avro.read(&avro.consumer_record, from.next_message().await);
    assert_eq!(text(&read, "wsProxyMessageId"), ids[2]);
    from.send_message(avro.commit(&ids[2])).await;
    let answer = from.next().await;
    assert_eq!(answer["error"]["code"], "auto_commit_enabled", "{answer}");
    assert_eq!(answer["wsProxyMessageId"], ids[2], "{answer}");
    proxy.stopped().await;
}

#[tokio::test]
async fn records_that_cannot_be_read_are_told_by_text_in_their_place() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let avro = AvroClient::plain(&proxy).await;
    let tp = TopicPartition::new("t", 0);
    let mut batch = RecordBatchBuilder::new(100);
    batch.append(&NewRecord {
        key: None,
        value: Some(b"v"),
        headers: &[],
        timestamp: 0,
    });
    let mut batch = batch.build(CompressionType::None);
    batch.set_producer_state(-1, -1, -1);
    let whole = batch.bytes().to_vec();
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for bytes in [&whole, &damaged, &whole] {
        proxy.broker.append(&tp, bytes).unwrap();
    }
    let path = "/socket/out?topic=t&clientId=c&socketPayload=avro";
    let mut from = proxy.connect(path).await;
    let first = avro.read(&avro.consumer_record, from.next_message().await);
    assert_eq!(field(&first, "offset"), Value::Long(0));
    let unreadable = from.next().await;
    assert_eq!(unreadable["error"]["code"], "unreadable", "{unreadable}");
    assert_eq!(unreadable["wsProxyMessageId"], "t-0-1--1", "{unreadable}");
    assert_eq!(
        (&unreadable["fromOffset"], &unreadable["offset"]),
        (&json!(1), &json!(1))
    );
    let last = avro.read(&avro.consumer_record, from.next_message().await);
    assert_eq!(field(&last, "offset"), Value::Long(2));
    proxy.stopped().await;
}
