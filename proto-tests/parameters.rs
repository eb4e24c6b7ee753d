//! The parameters of both endpoints, as they act through a socket, where no other file shows it.

use kafka_client::TopicPartition;
use kafka_client::config::CompressionType;
use kafka_client::record::{NewRecord, RecordBatchBuilder};
use memory_broker::{ApiKey, FaultAction, FaultRule};
use serde_json::{Value, json};

use crate::support::proxy::Proxy;
use crate::support::until;

const RECORD: &str = r#"{"value":{"value":"x"}}"#;

#[tokio::test]
async fn a_value_that_is_not_allowed_is_refused_with_what_is_and_a_near_miss_with_what_was_meant() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    for (query, parts) in [
        ("in?topic=a%20b", &["topic"][..]),
        ("in?topic=t&keyType=xml", &["keyType", "json, string"]),
        ("in?topic=t&clientId=", &["clientId"]),
        ("in?topic=t&instanceId=", &["instanceId"]),
        (
            "in?topic=t&transactional=maybe",
            &["transactional", "true, false"],
        ),
        ("in?topic=t&errors=later", &["errors", "http, close"]),
        ("in?topic=t&topic=t", &["topic", "twice"]),
        ("in?topic=t&valtype=json", &["valtype", "valType"]),
        ("out?topic=t", &["clientId"]),
        ("out?topic=t&clientId=a&groupId=", &["groupId"]),
        (
            "out?topic=t&clientId=a&valType=xml",
            &["valType", "protobuf"],
        ),
        (
            "out?topic=t&clientId=a&socketPayload=xml",
            &["socketPayload", "json, avro"],
        ),
        (
            "out?topic=t&clientId=a&offsetResetStrategy=middle",
            &["offsetResetStrategy", "earliest, latest, none"],
        ),
        (
            "out?topic=t&clientId=a&isolationLevel=none",
            &["isolationLevel", "read_uncommitted, read_committed"],
        ),
        (
            "out?topic=t&clientId=a&rate=-1",
            &["rate", "a whole number"],
        ),
        (
            "out?topic=t&clientId=a&batchSize=x",
            &["batchSize", "a whole number"],
        ),
        (
            "out?topic=t&clientId=a&autoCommit=yes",
            &["autoCommit", "true, false"],
        ),
        ("out?topic=t&clientId=a&groupID=g", &["groupID", "groupId"]),
    ] {
        let refused = proxy.open(&format!("/socket/{query}")).await;
        let refused = refused.err().expect(query);
        assert_eq!(refused.status, 400, "{query}");
        let message = refused.message();
        for part in parts {
            assert!(message.contains(part), "{query}: {part}: {message}");
        }
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn what_is_not_known_is_ignored_and_what_is_optional_is_taken() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    for query in [
        "topic=t&utm_source=x",
        "topic=t&clientId=sensor&instanceId=1",
        "topic=t&transactional=false&socketPayload=JSON&errors=http",
    ] {
        let mut socket = proxy.connect(&format!("/socket/in?{query}")).await;
        assert!(socket.ask(RECORD).await["offset"].is_i64(), "{query}");
    }
    let path = "/socket/out?topic=t&clientId=a&utm_source=x&rate=0&batchSize=0&autoCommit=FALSE";
    let mut socket = proxy.connect(path).await;
    assert_eq!(socket.next().await["offset"], 0);
    proxy.stopped().await;
}

#[tokio::test]
async fn without_a_group_id_the_group_is_the_clients_own_and_with_one_it_is_that() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    for (query, group) in [("clientId=a", "a-group"), ("clientId=a&groupId=g", "g")] {
        let path = format!("/socket/out?topic=t&{query}");
        let _socket = proxy.connect(&path).await;
        let has_member = || {
            proxy
                .broker
                .group(group)
                .is_some_and(|g| g.members.len() == 1)
        };
        until(group, has_member).await;
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn only_read_committed_waits_for_a_transaction_and_leaves_out_what_it_aborts() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let tp = TopicPartition::new("t", 0);
    let mut builder = RecordBatchBuilder::new(100);
    builder.append(&NewRecord {
        key: None,
        value: Some(b"aborted"),
        headers: &[],
        timestamp: 0,
    });
    let mut batch = builder.build(CompressionType::None);
    batch.set_transactional(true);
    batch.set_producer_state(7, 0, 0);
    assert_eq!(proxy.broker.append(&tp, &batch.bytes()), Some(0));
    let path = |level: &str| format!("/socket/out?topic=t&clientId={level}&isolationLevel={level}");
    let mut committed = proxy.connect(&path("read_committed")).await;
    let mut all = proxy.connect(&path("read_uncommitted")).await;
    let mut by_default = proxy.connect("/socket/out?topic=t&clientId=default").await;
    for socket in [&mut all, &mut by_default] {
        assert_eq!(socket.next().await["value"]["value"], "aborted");
    }
    proxy.broker.end_transaction(&tp, 7, 0, false);
    let mut writer = proxy.connect("/socket/in?topic=t").await;
    assert_eq!(writer.ask(RECORD).await["offset"], 2);
    for socket in [&mut committed, &mut all, &mut by_default] {
        let record = socket.next().await;
        assert_eq!(record["offset"], 2, "{record}");
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn a_topic_or_a_group_that_kafka_does_not_allow_is_403_before_the_upgrade() {
    const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
    const GROUP_AUTHORIZATION_FAILED: i16 = 30;
    let latest = "/socket/out?topic=t&clientId=a&groupId=g&offsetResetStrategy=latest";
    for (api, error, path, part) in [
        (
            ApiKey::Metadata,
            TOPIC_AUTHORIZATION_FAILED,
            "/socket/in?topic=t",
            "topic t",
        ),
        (
            ApiKey::Metadata,
            TOPIC_AUTHORIZATION_FAILED,
            "/socket/out?topic=t&clientId=a",
            "topic t",
        ),
        (
            ApiKey::OffsetFetch,
            GROUP_AUTHORIZATION_FAILED,
            latest,
            "group g",
        ),
    ] {
        let proxy = Proxy::start().await;
        proxy.topic("t", 1);
        proxy.ready().await;
        let refusal = FaultRule::on(api, FaultAction::Error(error));
        proxy.broker.faults().add(refusal.always());
        let refused = proxy.open(path).await.err().expect(path);
        assert_eq!(refused.status, 403, "{path}: {}", refused.body);
        let message = refused.message();
        assert!(message.contains(part), "{path}: {message}");
        proxy.broker.faults().clear();
        proxy.stopped().await;
    }
}

#[tokio::test]
async fn a_topic_that_is_deleted_closes_its_readers_with_1008_and_its_name() {
    let proxy = Proxy::start().await;
    proxy.topic("gone", 1);
    let mut reader = proxy.connect("/socket/out?topic=gone&clientId=a").await;
    let mut writer = proxy.connect("/socket/in?topic=gone").await;
    assert_eq!(writer.ask(RECORD).await["offset"], 0);
    assert_eq!(reader.next().await["offset"], 0);
    assert!(proxy.broker.delete_topic("gone"));
    let (code, reason) = reader.closed().await;
    assert_eq!(code, 1008, "{reason}");
    assert!(reason.contains("gone"), "{reason}");
    proxy.stopped().await;
}

#[tokio::test]
async fn every_spelling_of_nothing_is_a_tombstone_or_no_key_and_headers_travel_as_they_are() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut writer = proxy.connect("/socket/in?topic=t").await;
    let mut reader = proxy.connect("/socket/out?topic=t&clientId=a").await;
    let headers = json!([
        {"key": "text", "value": "v"},
        {"key": "null", "value": null},
        {"key": "bytes", "value": "/w==", "format": "bytearray"},
    ]);
    for (record, key, value) in [
        (json!({"value": null}), None, json!({"value": null})),
        (
            json!({"key": null, "value": {"value": null, "format": "int"}}),
            None,
            json!({"value": null}),
        ),
        (
            json!({"key": {"value": null}, "value": {"value": "v"}}),
            None,
            json!({"value": "v", "format": "string"}),
        ),
        (
            json!({"key": {"value": "k"}, "value": {"value": "v"}, "headers": headers}),
            Some(json!({"value": "k", "format": "string"})),
            json!({"value": "v", "format": "string"}),
        ),
    ] {
        assert!(writer.ask(record.to_string()).await["offset"].is_i64());
        let read = reader.next().await;
        assert_eq!(read.get("key"), key.as_ref(), "{record}: {read}");
        assert_eq!(read["value"], value, "{record}");
        assert_eq!(read.get("headers"), record.get("headers"), "{record}");
    }
    let empty: Value = writer.ask("[]").await;
    assert_eq!(empty, json!([]));
    proxy.stopped().await;
}
