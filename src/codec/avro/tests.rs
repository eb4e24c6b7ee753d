//! Our messages, as another implementation of Avro writes and reads them.

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{AvroResult, Schema};
use bytes::BytesMut;
use proptest::prelude::*;

use super::framing::AvroFraming;
use super::inbound::{self, string_content};
use super::outbound::AvroRecordWriter;
use super::wrapper_schema::WrapperSchema;
use super::{ack, commit};
use crate::codec::inbound::InboundRecord;
use crate::codec::outbound::{OutboundRecord, RecordEncoder};
use crate::codec::socket_error::{EchoedId, SocketErrorCode};

pub(super) type OwnedHeaders = Vec<(String, Option<Vec<u8>>)>;

/// A record of `/socket/in`, as a test has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnedRecord {
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Option<OwnedHeaders>,
    pub(super) message_id: Option<String>,
}

impl OwnedRecord {
    /// The fields of `AvroProducerRecord`.
    pub(super) fn fields(&self) -> Vec<(String, Value)> {
        let field = |name: &str, value| (name.to_owned(), value);
        vec![
            field("key", optional(self.key.clone().map(Value::Bytes))),
            field(
                "value",
                Value::Bytes(self.value.clone().unwrap_or_default()),
            ),
            field("headers", headers_value(self.headers.as_ref())),
            field(
                "messageId",
                optional(self.message_id.clone().map(Value::String)),
            ),
            field("tombstone", Value::Boolean(self.value.is_none())),
        ]
    }

    pub(super) fn assert_is(&self, read: &InboundRecord<'_>) {
        assert_eq!(read.key, self.key.as_deref());
        assert_eq!(read.value, self.value.as_deref());
        let id = read.message_id.map(string_content);
        assert_eq!(id, self.message_id.as_deref());
        let headers = read.headers.iter().map(|header| {
            let value = header.value.map(<[u8]>::to_vec);
            (header.key.to_owned(), value)
        });
        let expected = self.headers.clone().unwrap_or_default();
        assert_eq!(headers.collect::<Vec<_>>(), expected);
        assert_eq!((read.partition, read.timestamp), (None, None));
    }
}

fn optional(value: Option<Value>) -> Value {
    match value {
        Some(value) => Value::Union(1, Box::new(value)),
        None => Value::Union(0, Box::new(Value::Null)),
    }
}

fn headers_value(headers: Option<&OwnedHeaders>) -> Value {
    let header = |(key, value): &(String, Option<Vec<u8>>)| {
        Value::Record(vec![
            ("key".to_owned(), Value::String(key.clone())),
            (
                "value".to_owned(),
                optional(value.clone().map(Value::Bytes)),
            ),
        ])
    };
    optional(headers.map(|headers| Value::Array(headers.iter().map(header).collect())))
}

/// What that implementation writes.
pub(super) fn written(schema: &Schema, value: Value) -> Vec<u8> {
    let writer = GenericDatumWriter::builder(schema).build();
    let written = writer.and_then(|writer| writer.write_value_to_vec(value));
    written.expect("a datum of its schema")
}

/// What it reads, to the end of the datum.
pub(super) fn read(schema: &Schema, datum: &mut &[u8]) -> AvroResult<Value> {
    GenericDatumReader::builder(schema)
        .build()?
        .read_value(datum)
}

pub(super) fn schema(of: WrapperSchema) -> Schema {
    Schema::parse_str(of.text()).expect("a schema")
}

/// The schema of the first so many fields.
fn shortened(of: WrapperSchema, fields: usize) -> Schema {
    let mut schema: serde_json::Value = serde_json::from_str(of.text()).expect("JSON");
    let all = schema["fields"].as_array_mut().expect("a record");
    all.truncate(fields);
    Schema::parse(&schema).expect("a schema")
}

fn any_record() -> impl Strategy<Value = OwnedRecord> {
    let headers = prop::option::of(prop::collection::vec(
        any::<(String, Option<Vec<u8>>)>(),
        0..4,
    ));
    let ids = any::<Option<String>>();
    (
        any::<Option<Vec<u8>>>(),
        any::<Option<Vec<u8>>>(),
        headers,
        ids,
    )
        .prop_map(|(key, value, headers, message_id)| OwnedRecord {
            key,
            value,
            headers,
            message_id,
        })
}

fn code_of(datum: &[u8]) -> (SocketErrorCode, String) {
    let read = inbound::read(datum);
    let rejection = read.expect_err("no record");
    (rejection.code, rejection.message.into_owned())
}

#[test]
fn a_datum_may_end_before_any_of_the_added_fields() {
    let record = OwnedRecord {
        key: Some(b"k".to_vec()),
        value: Some(b"v".to_vec()),
        headers: Some(vec![("h".to_owned(), None)]),
        message_id: Some("m".to_owned()),
    };
    for fields in 2..=5 {
        let schema = shortened(WrapperSchema::ProducerRecord, fields);
        let values = record.fields().into_iter().take(fields).collect();
        let datum = written(&schema, Value::Record(values));
        let read = inbound::read(&datum).expect("a record");
        assert_eq!(read.headers.len(), usize::from(fields > 2));
        assert_eq!(read.message_id.is_some(), fields > 3);
        assert_eq!((read.key, read.value), (Some(&b"k"[..]), Some(&b"v"[..])));
    }
    for datum in [&b""[..], b"\x00", b"\x02\x02k"] {
        assert_eq!(code_of(datum).0, SocketErrorCode::InvalidRecord);
    }
}

#[test]
fn what_is_no_record_is_rejected_by_place_and_with_the_message_id_that_it_has() {
    // No key, an empty value, no headers, messageId "m".
    let start = b"\x00\x00\x00\x02\x02m";
    for (end, message) in [
        (
            &b"\x02"[..],
            "no AvroProducerRecord: a boolean is neither 0 nor 1 at byte 6",
        ),
        (
            b"\x00x",
            "no AvroProducerRecord: the record has ended, and bytes follow at byte 7",
        ),
    ] {
        let datum = [start, end].concat();
        let read = inbound::read(&datum);
        let rejection = read.expect_err("no record");
        assert_eq!(rejection.message, message);
        assert_eq!(rejection.message_id.map(string_content), Some("m"));
    }
    let (code, message) = code_of(b"\x00\x02v\x00\x00\x01");
    assert_eq!(code, SocketErrorCode::InvalidRecord);
    assert_eq!(message, "a tombstone has an empty value");
}

#[test]
fn a_header_count_that_its_bytes_cannot_hold_reserves_nothing_for_it() {
    // 2^60 headers are claimed.
    let datum = b"\x00\x00\x02\x80\x80\x80\x80\x80\x80\x80\x80\x20";
    let read = || inbound::read(datum);
    let rejected = fuzzing::within(4096, "a datum", || read().is_err());
    assert!(rejected);
}

#[test]
fn a_commit_is_one_string_and_nothing_after_it() {
    let read = commit::read(b"\x0et-0-5-7").expect("a commit");
    assert_eq!((read.id.offset, read.id.timestamp), (5, 7));
    assert_eq!(read.echoed_id, EchoedId::PlainWsProxyMessageId("t-0-5-7"));
    for (datum, code) in [
        (&b""[..], SocketErrorCode::InvalidRecord),
        (b"\x0et-0-5-7x", SocketErrorCode::InvalidRecord),
        (b"\x02\xff", SocketErrorCode::InvalidRecord),
        (b"\x02x", SocketErrorCode::UnknownMessageId),
    ] {
        assert_eq!(commit::read(datum).expect_err("none").code, code);
    }
}

proptest! {
    #[test]
    fn records_that_another_implementation_writes_are_read(record in any_record()) {
        let schema = schema(WrapperSchema::ProducerRecord);
        let datum = written(&schema, Value::Record(record.fields()));
        record.assert_is(&inbound::read(&datum).expect("a record"));
    }

    #[test]
    fn acks_are_read_by_another_implementation(
        topic: String, partition: i32, offset: i64, timestamp: i64, message_id: Option<String>,
    ) {
        let encoded = message_id.as_ref().map(|id| {
            written(&Schema::String, Value::String(id.clone()))
        });
        let mut out = BytesMut::new();
        let place = (partition, offset, timestamp);
        ack::write_ack(&mut out, AvroFraming::Plain, &topic, place, encoded.as_deref());
        let schema = schema(WrapperSchema::ProducerResult);
        let mut rest = &out[..];
        let found = read(&schema, &mut rest).expect("a datum");
        prop_assert!(rest.is_empty());
        prop_assert_eq!(found, Value::Record(vec![
            ("topic".to_owned(), Value::String(topic)),
            ("partition".to_owned(), Value::Int(partition)),
            ("offset".to_owned(), Value::Long(offset)),
            ("timestamp".to_owned(), Value::Long(timestamp)),
            ("messageId".to_owned(), optional(message_id.map(Value::String))),
        ]));
    }

    #[test]
    fn records_that_we_write_are_read_by_another_implementation(
        record in any_record(), partition in 0..i32::MAX, offset in 0..i64::MAX,
        timestamp in -1..i64::MAX, id in any::<u32>(), topic in "[a-zA-Z0-9._-]{1,249}",
    ) {
        let headers = record.headers.clone().filter(|headers| !headers.is_empty());
        let listed = headers.clone().unwrap_or_default();
        let borrowed: Vec<_> = listed.iter().map(|(k, v)| (k.as_bytes(), v.as_deref())).collect();
        let fetched = OutboundRecord {
            offset,
            timestamp,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: borrowed.iter().copied(),
        };
        let mut out = BytesMut::from("before");
        let writer = AvroRecordWriter::new(&topic, partition, AvroFraming::Confluent(id));
        writer.write(&mut out, fetched);
        let (framing, mut datum) = out["before".len()..].split_at(5);
        prop_assert_eq!(framing[0], 0);
        prop_assert_eq!(&framing[1..], id.to_be_bytes());
        let schema = schema(WrapperSchema::ConsumerRecord);
        let found = read(&schema, &mut datum).expect("a datum");
        prop_assert!(datum.is_empty());
        let message_id = format!("{topic}-{partition}-{offset}-{timestamp}");
        prop_assert_eq!(found, Value::Record(vec![
            ("wsProxyMessageId".to_owned(), Value::String(message_id)),
            ("topic".to_owned(), Value::String(topic)),
            ("partition".to_owned(), Value::Int(partition)),
            ("offset".to_owned(), Value::Long(offset)),
            ("timestamp".to_owned(), Value::Long(timestamp)),
            ("key".to_owned(), optional(record.key.clone().map(Value::Bytes))),
            ("value".to_owned(), Value::Bytes(record.value.clone().unwrap_or_default())),
            ("headers".to_owned(), headers_value(headers.as_ref())),
            ("tombstone".to_owned(), Value::Boolean(record.value.is_none())),
        ]));
    }
}
