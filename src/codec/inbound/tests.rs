//! What a producer may send, and how what it may not send is rejected.

use proptest::prelude::*;

use super::*;
use crate::codec::format::Format;

/// One record or its rejection, owned.
#[derive(Debug, PartialEq)]
enum ReadRecord {
    Record {
        key: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
        headers: Vec<(String, Option<Vec<u8>>)>,
        partition: Option<i32>,
        timestamp: Option<i64>,
        id: Option<String>,
    },
    Rejected(SocketErrorCode, Option<String>),
}

const STRINGS: RecordFormats = RecordFormats {
    key: Some(Format::String),
    value: Format::String,
};

const NO_KEY_TYPE: RecordFormats = RecordFormats {
    key: None,
    value: Format::String,
};

fn read(formats: RecordFormats, frame: &str) -> (bool, Vec<ReadRecord>) {
    let mut scratch = b"left from the frame before".to_vec();
    let mut frame = ProduceMessage::new(formats, frame.as_bytes(), &mut scratch);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let mut records = Vec::new();
    while let Some(next) = frame.next_record("t") {
        records.push(match next {
            Ok(record) => ReadRecord::Record {
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: record
                    .headers
                    .iter()
                    .map(|header| (header.key.into(), header.value.map(<[u8]>::to_vec)))
                    .collect(),
                partition: record.partition,
                timestamp: record.timestamp,
                id: record.message_id.map(text),
            },
            Err(rejection) => {
                assert!(!rejection.message.is_empty());
                ReadRecord::Rejected(rejection.code, rejection.message_id.map(text))
            }
        });
    }
    assert!(frame.next_record("t").is_none());
    assert_eq!(frame.len(), records.len());
    (frame.is_array(), records)
}

fn one(formats: RecordFormats, frame: &str) -> ReadRecord {
    let (is_array, mut records) = read(formats, frame);
    assert!(!is_array);
    assert_eq!(records.len(), 1);
    records.remove(0)
}

fn record(key: Option<&[u8]>, value: Option<&[u8]>) -> ReadRecord {
    ReadRecord::Record {
        key: key.map(<[u8]>::to_vec),
        value: value.map(<[u8]>::to_vec),
        headers: vec![],
        partition: None,
        timestamp: None,
        id: None,
    }
}

fn rejection_message(formats: RecordFormats, frame: &str) -> String {
    let mut scratch = Vec::new();
    let mut records = ProduceMessage::new(formats, frame.as_bytes(), &mut scratch);
    let rejected = records.next_record("t").expect("one").expect_err(frame);
    rejected.message.into_owned()
}

#[track_caller]
fn is_rejected(frame: &str, code: SocketErrorCode) {
    assert_eq!(
        one(STRINGS, frame),
        ReadRecord::Rejected(code, None),
        "{frame}"
    );
}

#[test]
fn a_record_has_all_that_it_says() {
    let frame = r#" {"timestamp":1554402266846, "partition" : 2,"messageId":"a\u00e9",
        "value":{"format":"int","value":-1},"key":{"value":"k\n"},"unknown":[{"value":1}],
        "headers":[{"key":"h","value":"v"},{"value":"aGk","key":"b\t","format":"bytearray"},
        {"key":"","value":null}] } "#;
    assert_eq!(
        one(STRINGS, frame),
        ReadRecord::Record {
            key: Some(b"k\n".to_vec()),
            value: Some(vec![0xff; 4]),
            headers: vec![
                ("h".into(), Some(b"v".to_vec())),
                ("b\t".into(), Some(b"hi".to_vec())),
                (String::new(), None),
            ],
            partition: Some(2),
            timestamp: Some(1554402266846),
            id: Some(r#""a\u00e9""#.into()),
        }
    );
}

#[test]
fn a_format_in_the_record_overrides_the_parameter() {
    let long = RecordFormats {
        key: Some(Format::Long),
        value: Format::Json,
    };
    let frame = r#"{"key":{"value":1},"value":{"value":{ "a":1 }}}"#;
    assert_eq!(
        one(long, frame),
        record(Some(&[0, 0, 0, 0, 0, 0, 0, 1]), Some(b"{ \"a\":1 }"))
    );
    let frame =
        r#"{"key":{"value":1,"format":"Short"},"value":{"value":"AA==","format":"byte_array"}}"#;
    assert_eq!(one(long, frame), record(Some(&[0, 1]), Some(&[0])));
}

#[test]
fn unescaped_parts_of_one_record_do_not_mix() {
    let frame = r#"{"key":{"value":"\u0041"},"value":{"value":"\u0042"},
        "headers":[{"key":"\u0043","value":"\u0044"},{"key":"e","value":"\u0045"}]}"#;
    let ReadRecord::Record {
        key,
        value,
        headers,
        ..
    } = one(STRINGS, frame)
    else {
        panic!("rejected");
    };
    assert_eq!((key, value), (Some(b"A".to_vec()), Some(b"B".to_vec())));
    assert_eq!(
        headers,
        [
            ("C".into(), Some(b"D".to_vec())),
            ("e".into(), Some(b"E".to_vec()))
        ]
    );
}

#[test]
fn a_null_value_is_a_tombstone_in_every_format() {
    for format in [
        "json",
        "string",
        "avro",
        "protobuf",
        "bytearray",
        "int",
        "short",
        "long",
        "float",
        "double",
    ] {
        let formats = RecordFormats {
            key: None,
            value: format.parse().expect(format),
        };
        let explicit = format!(r#"{{"value":{{"value":null,"format":"{format}"}}}}"#);
        for frame in [
            r#"{"value":null}"#,
            r#"{"value":{"value":null}}"#,
            &explicit,
        ] {
            assert_eq!(one(formats, frame), record(None, None), "{frame}");
        }
    }
}

#[test]
fn null_keys_and_null_optional_fields_are_as_if_absent() {
    for frame in [
        r#"{"value":{"value":"v"}}"#,
        r#"{"key":null,"value":{"value":"v"}}"#,
        r#"{"key":{"value":null},"value":{"value":"v"}}"#,
        r#"{"key":{"value":null,"format":"int"},"value":{"value":"v","format":null}}"#,
        r#"{"value":{"value":"v"},"messageId":null,"partition":null,"timestamp":null,"headers":null}"#,
        r#"{"value":{"value":"v"},"headers":[]}"#,
    ] {
        assert_eq!(one(NO_KEY_TYPE, frame), record(None, Some(b"v")), "{frame}");
    }
}

#[test]
fn a_missing_value_is_an_error_outside_and_inside() {
    is_rejected("{}", SocketErrorCode::InvalidRecord);
    is_rejected(r#"{"key":{"value":"k"}}"#, SocketErrorCode::InvalidRecord);
    is_rejected(r#"{"value":{}}"#, SocketErrorCode::InvalidRecord);
    is_rejected(
        r#"{"value":{"format":"string"}}"#,
        SocketErrorCode::InvalidRecord,
    );
    is_rejected(
        r#"{"key":{},"value":{"value":"v"}}"#,
        SocketErrorCode::InvalidRecord,
    );
}

#[test]
fn a_key_without_any_type_is_a_string_as_a_value_is() {
    let frame = r#"{"key":{"value":"k"},"value":{"value":"v"}}"#;
    assert_eq!(one(NO_KEY_TYPE, frame), record(Some(b"k"), Some(b"v")));
    let frame = r#"{"key":{"value":1,"format":"short"},"value":{"value":"v"}}"#;
    assert_eq!(one(NO_KEY_TYPE, frame), record(Some(&[0, 1]), Some(b"v")));
    let frame = r#"{"key":{"value":1},"value":{"value":"v"},"messageId":"7"}"#;
    let rejected = ReadRecord::Rejected(SocketErrorCode::InvalidFormat, Some("\"7\"".into()));
    assert_eq!(one(NO_KEY_TYPE, frame), rejected);
}

#[test]
fn a_field_that_is_a_near_miss_of_a_known_one_is_rejected_by_name() {
    for (frame, name, known) in [
        (
            r#"{"value":{"value":"v"},"partiton":1}"#,
            "partiton",
            "partition",
        ),
        (r#"{"valeu":{"value":"v"}}"#, "valeu", "value"),
        (r#"{"Value":{"value":"v"}}"#, "Value", "value"),
        (
            r#"{"KEY":{"value":"k"},"value":{"value":"v"}}"#,
            "KEY",
            "key",
        ),
        (
            r#"{"value":{"value":"v"},"messageID":"a"}"#,
            "messageID",
            "messageId",
        ),
        (
            r#"{"value":{"value":"v"},"time\u0053tamp":1}"#,
            "timeStamp",
            "timestamp",
        ),
        (
            r#"{"value":{"value":"v"},"header":[]}"#,
            "header",
            "headers",
        ),
        (r#"{"value":{"value":"v"},"Topic":"t"}"#, "Topic", "topic"),
        (
            r#"{"value":{"value":"v","fromat":"int"}}"#,
            "fromat",
            "format",
        ),
        (r#"{"value":{"vallue":"v"}}"#, "vallue", "value"),
        (
            r#"{"value":{"value":"v"},"headers":[{"Key":"k","value":"v"}]}"#,
            "Key",
            "key",
        ),
    ] {
        is_rejected(frame, SocketErrorCode::InvalidRecord);
        let expected = format!("there is no field \"{name}\"; did you mean \"{known}\"?");
        let message = rejection_message(STRINGS, frame);
        assert!(message.starts_with(&expected), "{message}");
    }
    // Three letters are often one letter off each other; and the rest of what an answer has.
    let others = r#"{"keys":1,"kye":1,"offset":1,"wsProxyMessageId":"t-0-1-2",
        "value":{"value":"a","error":"e"}}"#;
    assert_eq!(one(STRINGS, others), record(None, Some(b"a")));
}

#[test]
fn a_topic_other_than_the_sockets_is_rejected() {
    for topic in ["\"u\"", "\"T\"", "\"\"", "1", "[\"t\"]"] {
        let frame = format!(r#"{{"topic":{topic},"value":{{"value":"v"}}}}"#);
        is_rejected(&frame, SocketErrorCode::InvalidRecord);
        let message = rejection_message(STRINGS, &frame);
        assert!(message.contains("\"topic\""), "{message}");
    }
    for topic in ["\"t\"", "\"\\u0074\"", "null"] {
        let frame = format!(r#"{{"topic":{topic},"value":{{"value":"v"}}}}"#);
        assert_eq!(one(STRINGS, &frame), record(None, Some(b"v")), "{topic}");
    }
}

#[test]
fn a_value_of_another_type_is_told_which_formats_take_it() {
    for (format, value, formats) in [
        (Format::String, "1", "send one, or format long or json"),
        (Format::String, "1.5", "send one, or format double or json"),
        (Format::String, "-1e400", "send one, or format json"),
        (Format::String, "true", "send one, or format json"),
        (Format::String, "{}", "send one, or format json"),
        (Format::String, "[1]", "send one, or format json"),
        (Format::Int, "\"1\"", "send one, or format string or json"),
        (Format::Int, "1.5", "send one, or format double or json"),
        (
            Format::Int,
            "2147483648",
            "send another, or format long or json",
        ),
        (
            Format::Double,
            "\"x\"",
            "send one, or format string or json",
        ),
        (
            Format::Float,
            "1e39",
            "send another, or format double or json",
        ),
        (Format::Double, "1e400", "send another, or format json"),
        (Format::Avro, "1", "send one, or format long or json"),
    ] {
        let formats_given = RecordFormats {
            key: None,
            value: format,
        };
        let frame = format!(r#"{{"value":{{"value":{value}}}}}"#);
        let message = rejection_message(formats_given, &frame);
        assert!(message.ends_with(&format!(": {formats}")), "{message}");
    }
}

#[test]
fn what_is_no_record_is_answered_with_one_that_every_socket_takes() {
    for frame in ["hello", "\"hello\"", "5", "{}", r#"{"text":"hello"}"#] {
        let message = rejection_message(STRINGS, frame);
        let (_, example) = message.rsplit_once("a record is ").expect(frame);
        for value in [Format::String, Format::Long] {
            let formats = RecordFormats { key: None, value };
            assert_eq!(one(formats, example), record(None, Some(b"hello")));
        }
    }
}

#[test]
fn what_is_not_json_is_rejected_as_a_whole() {
    for frame in [
        "",
        " ",
        "hello",
        "{",
        r#"{"value":{"value":"v"}"#,
        r#"{"value":{"value":"v"}}x"#,
        r#"{"value":{"value":"v"},}"#,
        r#"[{"value":{"value":"v"}},"#,
        r#"[{"value":{"value":"v"}},{"value":{"value":"v"}]"#,
        "[1,]",
        "[1]x",
        "[] []",
        r#"{"value":{"value":01}}"#,
        r#"{"messageId":"a","value":nil}"#,
    ] {
        is_rejected(frame, SocketErrorCode::InvalidJson);
    }
}

#[test]
fn json_of_another_shape_is_rejected() {
    for frame in [
        "5",
        "null",
        "\"text\"",
        "true",
        r#"{"value":"v"}"#,
        r#"{"value":5}"#,
        r#"{"value":["v"]}"#,
        r#"{"value":true}"#,
        r#"{"key":"k","value":{"value":"v"}}"#,
        r#"{"value":{"value":"v","format":5}}"#,
        r#"{"value":{"value":"v"},"messageId":5}"#,
        r#"{"value":{"value":"v"},"messageId":["a"]}"#,
        r#"{"value":{"value":"v"},"partition":-1}"#,
        r#"{"value":{"value":"v"},"partition":2147483648}"#,
        r#"{"value":{"value":"v"},"partition":1.0}"#,
        r#"{"value":{"value":"v"},"partition":1e1}"#,
        r#"{"value":{"value":"v"},"partition":"1"}"#,
        r#"{"value":{"value":"v"},"timestamp":-1}"#,
        r#"{"value":{"value":"v"},"timestamp":9223372036854775808}"#,
        r#"{"value":{"value":"v"},"timestamp":"now"}"#,
        r#"{"value":{"value":"v"},"headers":{}}"#,
        r#"{"value":{"value":"v"},"headers":[1]}"#,
        r#"{"value":{"value":"v"},"headers":[{"key":"k"}]}"#,
        r#"{"value":{"value":"v"},"headers":[{"value":"v"}]}"#,
        r#"{"value":{"value":"v"},"headers":[{"key":null,"value":"v"}]}"#,
        r#"{"value":{"value":"v"},"headers":[{"key":5,"value":"v"}]}"#,
        r#"{"value":{"value":"v"},"headers":[{"key":"k","value":5}]}"#,
        r#"{"value":{"value":"v"},"headers":[{"key":"k","value":"v","format":7}]}"#,
    ] {
        is_rejected(frame, SocketErrorCode::InvalidRecord);
    }
}

#[test]
fn minus_zero_is_an_integer_and_with_a_fraction_it_is_not() {
    let frame = r#"{"value":{"value":-0,"format":"int"},"partition":-0,"timestamp":-0}"#;
    let ReadRecord::Record {
        value,
        partition,
        timestamp,
        ..
    } = one(STRINGS, frame)
    else {
        panic!("{frame}");
    };
    assert_eq!(value, Some(vec![0; 4]));
    assert_eq!((partition, timestamp), (Some(0), Some(0)));
    let invalid_format = r#"{"value":{"value":-0.0,"format":"int"}}"#;
    is_rejected(invalid_format, SocketErrorCode::InvalidFormat);
    for frame in [
        r#"{"value":{"value":"v"},"partition":-0.0}"#,
        r#"{"value":{"value":"v"},"timestamp":-0e0}"#,
    ] {
        is_rejected(frame, SocketErrorCode::InvalidRecord);
    }
}

#[test]
fn a_known_field_that_occurs_twice_is_rejected() {
    for frame in [
        r#"{"value":{"value":"a"},"value":{"value":"b"}}"#,
        r#"{"value":{"value":"a"},"v\u0061lue":{"value":"b"}}"#,
        r#"{"value":{"value":"a","value":"b"}}"#,
        r#"{"value":{"value":"a","format":"int","format":"string"}}"#,
        r#"{"value":{"value":"a"},"partition":0,"partition":1}"#,
        r#"{"value":{"value":"a"},"headers":[{"key":"a","key":"b","value":""}]}"#,
    ] {
        is_rejected(frame, SocketErrorCode::InvalidRecord);
    }
    let unknown = r#"{"x":1,"x":2,"value":{"value":"a","y":1,"y":1}}"#;
    assert_eq!(one(STRINGS, unknown), record(None, Some(b"a")));
}

#[test]
fn formats_that_do_not_exist_or_do_not_fit_are_refused() {
    for frame in [
        r#"{"value":{"value":"v","format":"yaml"}}"#,
        r#"{"value":{"value":null,"format":"yaml"}}"#,
        r#"{"value":{"value":"v","format":"\ud800"}}"#,
        r#"{"key":{"value":null,"format":"yaml"},"value":{"value":"v"}}"#,
        r#"{"value":{"value":5}}"#,
        r#"{"value":{"value":"\ud83d"}}"#,
        r#"{"value":{"value":"5","format":"int"}}"#,
        r#"{"value":{"value":2147483648,"format":"int"}}"#,
        r#"{"value":{"value":1.5,"format":"long"}}"#,
        r#"{"value":{"value":1e39,"format":"float"}}"#,
        r#"{"value":{"value":"*","format":"avro"}}"#,
        r#"{"value":{"value":"v"},"headers":[{"key":"k","value":"*","format":"bytearray"}]}"#,
        r#"{"value":{"value":"v"},"headers":[{"key":"k","value":"v","format":"int"}]}"#,
        r#"{"value":{"value":"v"},"headers":[{"key":"k","value":"\ud800"}]}"#,
        r#"{"value":{"value":"v"},"headers":[{"key":"\ud800","value":"v"}]}"#,
    ] {
        is_rejected(frame, SocketErrorCode::InvalidFormat);
    }
}

#[test]
fn the_message_id_is_echoed_whatever_is_wrong_and_wherever_it_stands() {
    for (frame, code) in [
        (
            r#"{"messageId":"a","value":5}"#,
            SocketErrorCode::InvalidRecord,
        ),
        (
            r#"{"value":5,"partition":-1,"messageId":"a"}"#,
            SocketErrorCode::InvalidRecord,
        ),
        (
            r#"{"value":{"value":5},"messageId":"a"}"#,
            SocketErrorCode::InvalidFormat,
        ),
        (r#"{"messageId":"a"}"#, SocketErrorCode::InvalidRecord),
        (
            r#"{"messageId":"a","value":null,"messageId":"b"}"#,
            SocketErrorCode::InvalidRecord,
        ),
    ] {
        let rejected = ReadRecord::Rejected(code, Some("\"a\"".into()));
        assert_eq!(one(STRINGS, frame), rejected, "{frame}");
    }
}

#[test]
fn a_bad_element_spoils_nothing_but_itself() {
    let frame = r#"[{"value":{"value":"a"}}, 5, {"value":{"value":1},"messageId":"x"}, [],
        {"value":{"value":"\u0062"}}]"#;
    assert_eq!(
        read(STRINGS, frame),
        (
            true,
            vec![
                record(None, Some(b"a")),
                ReadRecord::Rejected(SocketErrorCode::InvalidRecord, None),
                ReadRecord::Rejected(SocketErrorCode::InvalidFormat, Some("\"x\"".into())),
                ReadRecord::Rejected(SocketErrorCode::InvalidRecord, None),
                record(None, Some(b"b")),
            ]
        )
    );
}

#[test]
fn an_empty_array_is_an_array_of_nothing() {
    assert_eq!(read(STRINGS, " [ ] "), (true, vec![]));
}

#[test]
fn what_can_be_borrowed_from_the_frame_is() {
    let frame = r#"{"key":{"value":"k"},"value":{"value":{"a":[1]},"format":"json"}}"#;
    let mut scratch = Vec::new();
    let mut records = ProduceMessage::new(STRINGS, frame.as_bytes(), &mut scratch);
    let record = records.next_record("t").expect("one").expect("good");
    let range = frame.as_bytes().as_ptr_range();
    assert!(range.contains(&record.value.expect("a value").as_ptr()));
    assert!(range.contains(&record.key.expect("a key").as_ptr()));
    assert_eq!(scratch.capacity(), 0, "nothing had to be made");
}

#[test]
fn the_scratch_buffer_holds_one_record_at_a_time() {
    let frame = format!(
        "[{}null]",
        r#"{"value":{"value":"\n0123456789"}},"#.repeat(1000)
    );
    let mut scratch = Vec::new();
    let mut records = ProduceMessage::new(STRINGS, frame.as_bytes(), &mut scratch);
    while records.next_record("t").is_some() {}
    assert!(scratch.capacity() < 100, "{}", scratch.capacity());
}

proptest! {
    #[test]
    fn garbage_never_panics(pieces in prop::collection::vec(prop::sample::select(vec![
        "{", "}", "[", "]", ",", ":", "\"value\"", "\"key\"", "\"format\"", "\"messageId\"",
        "\"headers\"", "\"partition\"", "{\"value\":\"v\"}", "null", "1", "-1", "\"\\ud800\"",
        "\"int\"", "é", "\"", "{\"value\":{\"value\":\"v\"}", "\"headers\":[{\"key\":",
    ]), 0..14)) {
        let frame = pieces.concat();
        let (_, records) = read(STRINGS, &frame);
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&frame).is_ok();
        let rejected = records == [ReadRecord::Rejected(SocketErrorCode::InvalidJson, None)];
        prop_assert_eq!(rejected, !is_json, "{}", frame);
    }

    #[test]
    fn what_a_client_serialises_arrives(
        key: Option<String>,
        value: Option<String>,
        id: Option<String>,
        partition in prop::option::of(0..=i32::MAX),
        headers: Vec<(String, Option<String>)>,
    ) {
        let frame = serde_json::json!({
            "key": key.as_ref().map(|key| serde_json::json!({ "value": key })),
            "value": { "value": value },
            "messageId": id,
            "partition": partition,
            "headers": headers.iter().map(|(key, value)|
                serde_json::json!({ "key": key, "value": value })).collect::<Vec<_>>(),
        }).to_string();
        let bytes = |text: &Option<String>| text.as_ref().map(|text| text.clone().into_bytes());
        prop_assert_eq!(one(STRINGS, &frame), ReadRecord::Record {
            key: bytes(&key),
            value: bytes(&value),
            headers: headers.iter().map(|(key, value)| (key.clone(), bytes(value))).collect(),
            partition,
            timestamp: None,
            id: id.map(|id| serde_json::to_string(&id).expect("a string")),
        });
    }
}

#[test]
fn long_records_are_known_as_such_before_they_are_read() {
    let record = |bytes: usize| format!("{{{}}}", " ".repeat(bytes - 2));
    let (short, long) = (record(LONG_RECORD_BYTES - 3), record(LONG_RECORD_BYTES));
    let array = format!("[{long},{short}, {short},{long},{long},{short}]");
    for (message, expected) in [
        (short.clone(), vec![false]),
        (long.clone(), vec![true]),
        (array, vec![true, false, false, true, true, false]),
        (format!("[{short},{short}]"), vec![false, false]),
    ] {
        let mut scratch = Vec::new();
        let mut records = ProduceMessage::new(STRINGS, message.as_bytes(), &mut scratch);
        let mut found = Vec::new();
        loop {
            let is_long = records.next_is_long();
            if records.next_record("t").is_none() {
                break;
            }
            found.push(is_long);
        }
        assert_eq!(found, expected);
    }
}

fn command(frame: &str) -> Option<(String, usize)> {
    let mut scratch = Vec::new();
    let mut message = ProduceMessage::new(STRINGS, frame.as_bytes(), &mut scratch);
    if message.next_record("t").is_some() {
        return None;
    }
    let command = message.command()?;
    let name = String::from_utf8(command.name().into_owned()).expect("UTF-8");
    Some((name, message.len()))
}

#[test]
fn an_object_with_a_command_and_no_value_is_no_record() {
    for frame in [
        r#"{"command":"x"}"#,
        r#"{"token":"a","comm\u0061nd":"x"}"#,
        // What would be wrong in a record is nothing to it.
        r#"{"key":5,"topic":"elsewhere","values":1,"command":"x"}"#,
    ] {
        assert_eq!(command(frame), Some(("x".to_owned(), 0)), "{frame}");
    }
    let record = r#"{"command":"x","value":{"value":"v"}}"#;
    assert_eq!(one(STRINGS, record), self::record(None, Some(b"v")));
    for frame in [
        r#"{"command":"x","value":5}"#,
        r#"{"command":5}"#,
        r#"[{"command":"x"}]"#,
        r#"{"command":"x"}5"#,
    ] {
        assert_eq!(command(frame), None, "{frame}");
    }
    is_rejected(r#"{"command":5}"#, SocketErrorCode::InvalidRecord);
    is_rejected(
        r#"{"command":"x","value":5}"#,
        SocketErrorCode::InvalidRecord,
    );
}

#[test]
fn a_command_in_an_array_is_rejected_in_its_place() {
    let (_, records) = read(STRINGS, r#"[{"command":"x"},{"value":{"value":"v"}}]"#);
    let rejected = ReadRecord::Rejected(SocketErrorCode::InvalidRecord, None);
    assert_eq!(records, [rejected, record(None, Some(b"v"))]);
    let message = rejection_message(STRINGS, r#"[{"command":"x"}]"#);
    assert_eq!(message, "a command stands alone, not in an array");
}
