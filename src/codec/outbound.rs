//! Frames of `/socket/out`: one fetched record as JSON.
//!
//! ```text
//! {"wsProxyMessageId":"t-0-7-1554402266846","topic":"t","partition":0,"offset":7,
//!  └────── id_prefix ─────┘                └────── topic_partition ────────┘
//!  "timestamp":1554402266846,"headers":[…],"key":{…},"value":{"value":"v","format":"string"}}
//! ```
//!
//! What all records of a partition have in common is made once, with the writer.
//!
//! # Invariants
//! - Every record is written, whatever its bytes are. Those that are not what their
//!   declared format says go out in base64 with an error beside them.
//! - What is written is valid JSON.
//!
//! # Decisions
//! - In a header's name, which Kafka has as text, what is not UTF-8 is replaced by U+FFFD.

use bytes::{BufMut, BytesMut};

use super::format::{Format, FormatError, RecordFormats, write_base64, write_integer};
use super::json::{self, EscapingWriter};
use super::socket_error::{self, SocketErrorCode};
use kafka_client::record::{Headers, Record, UnreadableRecords};

/// A fetched record, as far as it is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutboundRecord<'a, H> {
    /// The offset in its partition.
    pub(crate) offset: i64,
    /// Milliseconds since 1970; -1 when it has none.
    pub(crate) timestamp: i64,
    /// The key's bytes, if there is a key.
    pub(crate) key: Option<&'a [u8]>,
    /// The value's bytes; `None` is a tombstone.
    pub(crate) value: Option<&'a [u8]>,
    /// The headers, in order: name and value.
    pub(crate) headers: H,
}

impl<'a> From<Record<'a>> for OutboundRecord<'a, Headers<'a>> {
    fn from(record: Record<'a>) -> Self {
        OutboundRecord {
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key,
            value: record.value,
            headers: record.headers,
        }
    }
}

/// Writes the records of one partition, in one kind of frames.
pub(crate) trait RecordEncoder {
    /// Whether records are text; what [`write_unreadable`](Self::write_unreadable) writes always is.
    const IS_TEXT: bool;

    /// Appends one record.
    fn write<'a, H>(&self, out: &mut BytesMut, record: OutboundRecord<'a, H>)
    where
        H: IntoIterator<Item = (&'a [u8], Option<&'a [u8]>), IntoIter: ExactSizeIterator>;

    /// Appends an object that stands in the place of records that cannot be delivered.
    fn write_unreadable(&self, out: &mut BytesMut, records: &UnreadableRecords);

    /// About how long a record gets: enough for most, so that the buffer grows once.
    fn estimated_size<H>(&self, record: &OutboundRecord<'_, H>) -> usize;

    /// About how long `records` get whose keys, values and headers have `bytes` together.
    fn estimated_total(&self, records: usize, bytes: usize) -> usize;
}

/// Writes the records of one partition for sockets with the same formats.
#[derive(Clone, Debug)]
pub(crate) struct RecordWriter {
    formats: RecordFormats,
    /// Up to the offset in the id.
    id_prefix: BytesMut,
    /// Between the id's timestamp and the offset.
    topic_partition: BytesMut,
}

/// What a record has beside its key, its value and what all of its partition have.
const REST_ESTIMATE: usize = 200;
const OFFSET_FIELD: &[u8] = b",\"offset\":";

impl RecordWriter {
    /// A writer for a partition.
    pub(crate) fn new(topic: &str, partition: i32, formats: RecordFormats) -> RecordWriter {
        let mut id_prefix = BytesMut::new();
        id_prefix.put_slice(b"{\"wsProxyMessageId\":\"");
        json::write_escaped(&mut id_prefix, topic.as_bytes());
        id_prefix.put_u8(b'-');
        write_integer(&mut id_prefix, partition);
        id_prefix.put_u8(b'-');
        let mut topic_partition = BytesMut::new();
        topic_partition.put_slice(b"\",\"topic\":");
        json::write_string(&mut topic_partition, topic.as_bytes());
        topic_partition.put_slice(b",\"partition\":");
        write_integer(&mut topic_partition, partition);
        topic_partition.put_slice(OFFSET_FIELD);
        RecordWriter {
            formats,
            id_prefix,
            topic_partition,
        }
    }
}

impl RecordEncoder for RecordWriter {
    const IS_TEXT: bool = true;

    fn write<'a, H>(&self, out: &mut BytesMut, record: OutboundRecord<'a, H>)
    where
        H: IntoIterator<Item = (&'a [u8], Option<&'a [u8]>), IntoIter: ExactSizeIterator>,
    {
        let mut offset = itoa::Buffer::new();
        let offset = offset.format(record.offset).as_bytes();
        let mut timestamp = itoa::Buffer::new();
        let timestamp = timestamp.format(record.timestamp).as_bytes();
        out.reserve(self.estimated_size(&record));
        out.put_slice(&self.id_prefix);
        out.put_slice(offset);
        out.put_u8(b'-');
        out.put_slice(timestamp);
        out.put_slice(&self.topic_partition);
        out.put_slice(offset);
        out.put_slice(b",\"timestamp\":");
        out.put_slice(timestamp);
        write_headers(out, record.headers);
        if let Some(key) = record.key {
            out.put_slice(b",\"key\":");
            match self.formats.key {
                Some(format) => write_with_format(out, format, key),
                None => write_key_without_format(out, key),
            }
        }
        out.put_slice(b",\"value\":");
        match record.value {
            Some(value) => write_with_format(out, self.formats.value, value),
            None => out.put_slice(b"{\"value\":null}"),
        }
        out.put_u8(b'}');
    }

    fn write_unreadable(&self, out: &mut BytesMut, records: &UnreadableRecords) {
        socket_error::begin_error(out, SocketErrorCode::Unreadable, &records.reason);
        out.put_u8(b',');
        out.put_slice(&self.id_prefix[b"{".len()..]);
        write_integer(out, records.last_offset);
        out.put_slice(b"--1"); // no timestamp
        let end = self.topic_partition.len() - OFFSET_FIELD.len();
        out.put_slice(&self.topic_partition[..end]);
        out.put_slice(b",\"fromOffset\":");
        write_integer(out, records.from_offset);
        out.put_slice(OFFSET_FIELD);
        write_integer(out, records.last_offset);
        out.put_u8(b'}');
    }

    fn estimated_size<H>(&self, record: &OutboundRecord<'_, H>) -> usize {
        let grown = |bytes: Option<&[u8]>| bytes.map_or(0, |bytes| bytes.len() * 4 / 3);
        self.id_prefix.len()
            + self.topic_partition.len()
            + grown(record.key)
            + grown(record.value)
            + REST_ESTIMATE
    }

    fn estimated_total(&self, records: usize, bytes: usize) -> usize {
        let each = self.id_prefix.len() + self.topic_partition.len() + REST_ESTIMATE;
        bytes / 3 * 4 + records * each
    }
}

fn write_with_format(out: &mut BytesMut, format: Format, bytes: &[u8]) {
    out.put_slice(b"{\"value\":");
    match format.decode_to_json(bytes, out) {
        Ok(()) => {
            out.put_slice(b",\"format\":\"");
            out.put_slice(format.name().as_bytes());
            out.put_slice(b"\"}");
        }
        Err(error) => write_undecodable(out, bytes, format, error),
    }
}

/// A key without a declared format: text where it can be.
fn write_key_without_format(out: &mut BytesMut, bytes: &[u8]) {
    let format = match std::str::from_utf8(bytes) {
        Ok(_) => Format::String,
        Err(_) => Format::ByteArray,
    };
    write_with_format(out, format, bytes);
}

/// What is not of the declared format is delivered as bytes.
#[cold]
fn write_undecodable(out: &mut BytesMut, bytes: &[u8], format: Format, error: FormatError) {
    use std::fmt::Write;
    write_base64(out, bytes);
    out.put_slice(b",\"format\":\"bytearray\",\"error\":\"");
    write!(EscapingWriter(out), "not {format}: {error}")
        .expect("a buffer in memory takes everything");
    out.put_slice(b"\"}");
}

fn write_headers<'a>(
    out: &mut BytesMut,
    headers: impl IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
) {
    let mut headers = headers.into_iter().peekable();
    if headers.peek().is_none() {
        return;
    }
    let mut separator: &[u8] = b",\"headers\":[{\"key\":";
    for (key, value) in headers {
        out.put_slice(separator);
        separator = b"},{\"key\":";
        json::write_string(out, String::from_utf8_lossy(key).as_bytes());
        out.put_slice(b",\"value\":");
        match value {
            None => out.put_slice(b"null"),
            Some(text) if std::str::from_utf8(text).is_ok() => json::write_string(out, text),
            Some(bytes) => {
                write_base64(out, bytes);
                out.put_slice(b",\"format\":\"bytearray\"");
            }
        }
    }
    out.put_slice(b"}]");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::commit::WsProxyMessageId;
    use proptest::prelude::*;

    type Header<'a> = (&'a [u8], Option<&'a [u8]>);

    fn written(
        (key_type, value_type): (Option<Format>, Format),
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> String {
        let formats = RecordFormats {
            key: key_type,
            value: value_type,
        };
        let mut out = BytesMut::from("before");
        RecordWriter::new("foo-bar", 3, formats).write(
            &mut out,
            OutboundRecord {
                offset: 42,
                timestamp: 1554402266846,
                key,
                value,
                headers: headers.iter().copied(),
            },
        );
        let text = String::from_utf8(out.to_vec()).expect("UTF-8");
        let text = text.strip_prefix("before").expect("appended");
        assert_eq!(json::validate(text.as_bytes()), Ok(()), "{text}");
        text.to_string()
    }

    const META: &str = r#"{"wsProxyMessageId":"foo-bar-3-42-1554402266846","topic":"foo-bar","partition":3,"offset":42,"timestamp":1554402266846"#;

    /// What follows the part that all have.
    fn rest(
        types: (Option<Format>, Format),
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> String {
        let text = written(types, key, value, headers);
        text.strip_prefix(META).expect(META).to_string()
    }

    #[test]
    fn fields_stand_in_the_documented_order() {
        assert_eq!(
            rest(
                (Some(Format::Long), Format::String),
                Some(&[0, 0, 0, 0, 0, 0, 0, 9]),
                Some(b"bar"),
                &[(b"h", Some(b"v")), (b"h", Some(b""))],
            ),
            r#","headers":[{"key":"h","value":"v"},{"key":"h","value":""}],"key":{"value":9,"format":"long"},"value":{"value":"bar","format":"string"}}"#
        );
    }

    #[test]
    fn absent_key_and_no_headers_have_no_fields() {
        assert_eq!(
            rest((Some(Format::Int), Format::String), None, Some(b""), &[]),
            r#","value":{"value":"","format":"string"}}"#
        );
    }

    #[test]
    fn a_tombstone_has_no_format_and_the_json_null_has_one() {
        for format in [Format::Json, Format::String, Format::Int, Format::Avro] {
            assert_eq!(
                rest((None, format), None, None, &[]),
                r#","value":{"value":null}}"#
            );
        }
        assert_eq!(
            rest((None, Format::Json), None, Some(b"null"), &[]),
            r#","value":{"value":null,"format":"json"}}"#
        );
    }

    #[test]
    fn a_key_without_a_declared_format_names_its_own() {
        assert_eq!(
            rest(
                (None, Format::Short),
                Some("é".as_bytes()),
                Some(&[0, 1]),
                &[]
            ),
            r#","key":{"value":"é","format":"string"},"value":{"value":1,"format":"short"}}"#
        );
        assert_eq!(
            rest((None, Format::Short), Some(b"\xff"), Some(&[0, 1]), &[]),
            r#","key":{"value":"/w==","format":"bytearray"},"value":{"value":1,"format":"short"}}"#
        );
    }

    #[test]
    fn a_value_that_is_not_of_its_format_is_delivered_with_an_error() {
        let text = rest(
            (Some(Format::Json), Format::Int),
            Some(b"{"),
            Some(b"abc"),
            &[],
        );
        assert_eq!(
            text,
            r#","key":{"value":"ew==","format":"bytearray","error":"not json: a comma or the object's end expected at byte 1"},"value":{"value":"YWJj","format":"bytearray","error":"not int: int has 4 bytes, and these are 3"}}"#
        );
        for (format, bytes) in [
            (Format::Json, &b""[..]),
            (Format::Json, b"\xff"),
            (Format::String, b"\xff\xfe"),
            (Format::Double, b"1234567"),
        ] {
            let text = rest((None, format), None, Some(bytes), &[]);
            assert!(text.contains(r#""format":"bytearray","error":""#), "{text}");
        }
    }

    #[test]
    fn json_text_passes_unchanged() {
        let json = "\n{ \"a\" :\t[1.0e0, \"\\u00e9\"]}\r\n";
        assert_eq!(
            rest((None, Format::Json), None, Some(json.as_bytes()), &[]),
            format!(r#","value":{{"value":{json},"format":"json"}}}}"#)
        );
    }

    #[test]
    fn header_values_are_text_bytes_or_null() {
        assert_eq!(
            rest(
                (None, Format::String),
                None,
                None,
                &[
                    (b"a\"", Some(b"\n")),
                    (b"b", Some(b"\xff")),
                    (b"c\xff", None)
                ],
            ),
            concat!(
                r#","headers":[{"key":"a\"","value":"\n"},{"key":"b","value":"/w==","format":"bytearray"},"#,
                r#"{"key":"c"#,
                "\u{fffd}",
                r#"","value":null}],"value":{"value":null}}"#
            )
        );
    }

    #[test]
    fn records_without_a_timestamp_have_an_id_that_is_read_back() {
        let mut out = BytesMut::new();
        let formats = RecordFormats {
            key: None,
            value: Format::String,
        };
        let record = OutboundRecord {
            offset: 0,
            timestamp: -1,
            key: None,
            value: None,
            headers: [],
        };
        RecordWriter::new("t", 0, formats).write(&mut out, record);
        let json: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        let id = WsProxyMessageId::parse(json["wsProxyMessageId"].as_str().expect("text"));
        assert_eq!(id.map(|id| id.timestamp), Some(-1));
    }

    proptest! {
        #[test]
        fn every_record_is_written_as_json(
            key: Option<Vec<u8>>,
            value: Option<Vec<u8>>,
            headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
            key_type in prop::sample::select(vec![
                None, Some(Format::String), Some(Format::Json), Some(Format::Float),
            ]),
            value_type in prop::sample::select(vec![
                Format::String, Format::Json, Format::Avro, Format::Int, Format::Short,
                Format::Long, Format::Double,
            ]),
        ) {
            let headers: Vec<Header<'_>> =
                headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
            written((key_type, value_type), key.as_deref(), value.as_deref(), &headers);
        }
    }
}
