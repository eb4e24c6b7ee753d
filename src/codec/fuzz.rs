//! Messages of clients, whole and damaged, and what records become on their way out and back.

use bytes::BytesMut;
use fuzzing::{FuzzInput, fuzz, within};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::command;
use super::commit::{self, CommitOrCommand, WsProxyMessageId};
use super::format::{Format, RecordFormats};
use super::inbound::{InboundRecord, ProduceMessage};
use super::outbound::{OutboundRecord, RecordEncoder, RecordWriter};
use super::socket_error::SocketErrorCode;

const STRINGS: RecordFormats = RecordFormats {
    key: None,
    value: Format::String,
};

#[test]
fn fuzz_records() {
    fuzz("records", |input| {
        let records: Vec<_> = (0..input.below(4)).map(|_| any_record(input)).collect();
        let message = match records.len() {
            1 if input.one_in(2) => spaced(input, &records[0]),
            _ => spaced(input, &Value::Array(records)),
        };
        check_message(&message);
        check_message(&damaged(input, message));
    });
}

/// A message is read as serde_json reads it, or refused as it says.
fn check_message(text: &str) {
    let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
    let values = serde_json::from_str::<Value>(text).ok();
    let values = values.map(|value| match value {
        Value::Array(values) => values,
        value => vec![value],
    });
    let mut scratch = Vec::new();
    within(16 * text.len() + 4096, "a message", || {
        let mut message = ProduceMessage::new(STRINGS, text.as_bytes(), &mut scratch);
        let mut count = 0;
        while let Some(next) = message.next_record("t") {
            match (next, &values) {
                (Ok(record), Some(values)) => check_record(&record, &values[count], text),
                (Ok(_), None) => assert!(is_json, "{text}"),
                (Err(rejection), _) => {
                    assert!(!rejection.message.is_empty());
                    let invalid = rejection.code == SocketErrorCode::InvalidJson;
                    assert_eq!(invalid, !is_json, "{text}");
                }
            }
            count += 1;
        }
        assert_eq!(count, message.len(), "{text}");
        if message.command().is_some() {
            assert_eq!(count, 0, "{text}");
        } else if let Some(values) = values {
            assert_eq!(count, values.len(), "{text}");
        }
    });
}

fn check_record(record: &InboundRecord<'_>, value: &Value, text: &str) {
    for (bytes, field) in [(record.key, &value["key"]), (record.value, &value["value"])] {
        let format = field["format"].as_str().unwrap_or("string");
        match (&field["value"], bytes) {
            (Value::Null, None) => {}
            (Value::String(content), Some(bytes)) if format.eq_ignore_ascii_case("string") => {
                assert_eq!(bytes, content.as_bytes(), "{text}");
            }
            (content @ Value::Number(_), Some(bytes)) if format.eq_ignore_ascii_case("int") => {
                let int = integer(content).map(|number| number as i32);
                assert_eq!(
                    Some(bytes),
                    int.map(i32::to_be_bytes).as_ref().map(|b| &b[..]),
                    "{text}"
                );
            }
            (content, bytes) => assert_eq!(bytes.is_none(), content.is_null(), "{text}"),
        }
    }
    assert_eq!(
        record.partition.map(i64::from),
        integer(&value["partition"]),
        "{text}"
    );
    assert_eq!(record.timestamp, integer(&value["timestamp"]), "{text}");
    let id = record
        .message_id
        .map(|id| serde_json::from_slice::<Value>(id).expect("JSON"));
    assert_eq!(id.unwrap_or_default(), value["messageId"], "{text}");
    let headers = value["headers"].as_array().map_or(0, Vec::len);
    assert_eq!(record.headers.len(), headers, "{text}");
}

/// A number that was taken for an integer. serde_json reads the integer `-0` as a float, which
/// alone can keep its sign; no other float is one.
fn integer(value: &Value) -> Option<i64> {
    let is_minus_zero = |float: f64| float == 0.0 && float.is_sign_negative();
    let minus_zero = value.as_f64().is_some_and(is_minus_zero).then_some(0);
    value.as_i64().or(minus_zero)
}

fn any_record(input: &mut FuzzInput) -> Value {
    let field = |input: &mut FuzzInput| match input.below(6) {
        0 => Value::Null,
        1 => json!({ "value": null }),
        2 => json!({ "value": input.integer() as i32, "format": "int" }),
        3 => {
            json!({ "value": input.text(6), "format": *input.pick(&["json", "long", "avro", "x"]) })
        }
        _ => json!({ "value": input.text(12), "format": *input.pick(&["string", "STRING"]) }),
    };
    let mut record = json!({ "value": field(input) });
    for name in [
        "key",
        "messageId",
        "partition",
        "timestamp",
        "headers",
        "other",
    ] {
        if input.one_in(3) {
            record[name] = match name {
                "key" => field(input),
                "messageId" => json!(input.text(6)),
                "headers" => json!([{ "key": input.text(3), "value": input.text(3) }]),
                _ => json!(input.integer()),
            };
        }
    }
    record
}

/// The text of a value, with white space and escapes that it need not have.
fn spaced(input: &mut FuzzInput, value: &Value) -> String {
    let compact = match input.one_in(2) {
        true => serde_json::to_string(value),
        false => serde_json::to_string_pretty(value),
    };
    let text = compact.expect("a value");
    match input.one_in(3) {
        // Within names, too.
        true => text.replace('e', "\\u0065").replace("null", "null "),
        false => text,
    }
    .replace("tru\\u0065", "true")
}

/// Texts come from the frame decoder, which has seen to it that they are UTF-8.
fn damaged(input: &mut FuzzInput, text: String) -> String {
    let mut bytes = text.into_bytes();
    input.damage(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn fuzz_commits() {
    fuzz("commits", |input| {
        let topic: String = (0..1 + input.below(9))
            .map(|_| *input.pick(&['a', 'Z', '0', '-', '.', '_']))
            .collect();
        let (partition, offset) = (
            input.number() as i32 & i32::MAX,
            input.number() as i64 & i64::MAX,
        );
        let timestamp = input.integer().max(-1);
        let id = format!("{topic}-{partition}-{offset}-{timestamp}");
        let text = spaced(input, &json!({ "x": [1], "wsProxyMessageId": id }));
        let Ok(CommitOrCommand::Commit(commit)) = commit::parse(text.as_bytes()) else {
            panic!("a commit: {text}");
        };
        let expected = WsProxyMessageId {
            topic: topic.into(),
            partition,
            offset,
            timestamp,
        };
        assert_eq!(commit.id, expected);
        let text = damaged(input, text);
        let parsed = within(8 * text.len() + 1024, "a commit", || {
            commit::parse(text.as_bytes())
        });
        match (parsed, serde_json::from_str::<Value>(&text)) {
            (Ok(CommitOrCommand::Command(_)), Ok(value)) => {
                assert!(value["command"].is_string(), "{text}");
            }
            (Ok(CommitOrCommand::Commit(commit)), Ok(value)) => {
                let id = commit.id;
                let written = format!(
                    "{}-{}-{}-{}",
                    id.topic, id.partition, id.offset, id.timestamp
                );
                assert_eq!(value["wsProxyMessageId"], written, "{text}");
            }
            (Ok(_), Err(_)) => assert!(serde_json::from_str::<IgnoredAny>(&text).is_ok(), "{text}"),
            (Err(rejection), _) => assert_eq!(
                rejection.code == SocketErrorCode::InvalidJson,
                serde_json::from_str::<IgnoredAny>(&text).is_err(),
                "{text}"
            ),
        }
    });
}

/// A command is read as serde_json reads it, and its answer is JSON.
#[test]
fn fuzz_commands() {
    fuzz("commands", |input| {
        let mut object = json!({ "command": input.text(200) });
        for name in ["token", "value", "other"] {
            if input.one_in(3) {
                object[name] = json!(input.text(6));
            }
        }
        let text = spaced(input, &object);
        let command = command::parse(text.as_bytes()).expect("a command");
        assert_eq!(
            *command.name(),
            *object["command"].as_str().unwrap().as_bytes()
        );
        let token = command.secret("token");
        assert_eq!(
            token.as_ref().map(|token| token.reveal()),
            object["token"].as_str()
        );
        assert_eq!(command.has("value"), object.get("value").is_some());
        let text = damaged(input, text);
        let parsed = within(8 * text.len() + 1024, "a command", || {
            command::parse(text.as_bytes())
        });
        let Some(command) = parsed else { return };
        assert!(serde_json::from_str::<IgnoredAny>(&text).is_ok(), "{text}");
        let mut out = BytesMut::new();
        command.write_error(&mut out, SocketErrorCode::UnknownCommand, "why");
        assert!(serde_json::from_slice::<IgnoredAny>(&out).is_ok(), "{text}");
        assert!(out.len() < 1024, "{text}");
    });
}

/// A record that is consumed and produced again is the same.
#[test]
fn fuzz_there_and_back() {
    const FORMATS: [Format; 6] = [
        Format::String,
        Format::Json,
        Format::ByteArray,
        Format::Short,
        Format::Int,
        Format::Long,
    ];
    fuzz("there_and_back", |input| {
        let formats = RecordFormats {
            key: input.one_in(2).then(|| *input.pick(&FORMATS)),
            value: *input.pick(&FORMATS),
        };
        let bytes = |input: &mut FuzzInput| match input.below(5) {
            0 => None,
            1 => Some(input.text(20).into_bytes()),
            2 => Some(
                json!([input.text(5), input.integer()])
                    .to_string()
                    .into_bytes(),
            ),
            3 => Some(input.number().to_be_bytes()[..*input.pick(&[2, 4, 8])].to_vec()),
            _ => {
                let len = input.up_to_bits(6);
                Some(input.bytes(len))
            }
        };
        let (key, value) = (bytes(input), bytes(input));
        let headers: Vec<_> = (0..input.below(3))
            .map(|_| (input.text(5), bytes(input)))
            .collect();
        let timestamp = input.integer().max(0);
        let mut out = BytesMut::new();
        RecordWriter::new("t", 0, formats).write(
            &mut out,
            OutboundRecord {
                offset: 7,
                timestamp,
                key: key.as_deref(),
                value: value.as_deref(),
                headers: headers
                    .iter()
                    .map(|(key, value)| (key.as_bytes(), value.as_deref())),
            },
        );
        let text = std::str::from_utf8(&out).expect("UTF-8");
        serde_json::from_str::<Value>(text).expect(text);
        let mut scratch = Vec::new();
        let mut message = ProduceMessage::new(STRINGS, &out, &mut scratch);
        let record = message.next_record("t").expect(text).expect(text);
        // JSON may lose the white space around it.
        assert_eq!(
            record.key.map(<[u8]>::trim_ascii),
            key.as_deref().map(<[u8]>::trim_ascii),
            "{text}"
        );
        assert_eq!(
            record.value.map(<[u8]>::trim_ascii),
            value.as_deref().map(<[u8]>::trim_ascii),
            "{text}"
        );
        assert_eq!(record.timestamp, Some(timestamp));
        let read: Vec<_> = record
            .headers
            .iter()
            .map(|header| (header.key, header.value))
            .collect();
        let written: Vec<_> = headers
            .iter()
            .map(|(key, value)| (&**key, value.as_deref()))
            .collect();
        assert_eq!(read, written, "{text}");
    });
}
