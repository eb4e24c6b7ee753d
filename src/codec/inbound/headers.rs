//! `"headers"`: text, bytes in base64, or null, each under a name.

use super::field::{
    FORMAT, FieldResult, KEY, SeenFields, VALUE, duplicate_field, format_by_name, invalid_format,
    invalid_record, refuse_near_miss,
};
use crate::codec::format::{EncodedValue, Format};
use crate::codec::json::{JsonScanner, JsonType, RawJson};
use kafka_client::record::NewHeader;

/// A header as Kafka's bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct EncodedHeader<'f> {
    key: EncodedValue<'f>,
    value: Option<EncodedValue<'f>>,
}

/// Reads the array, which the scanner has seen to be JSON.
pub(super) fn encode<'f>(
    raw: RawJson<'f>,
    scratch: &mut Vec<u8>,
    headers: &mut Vec<EncodedHeader<'f>>,
) -> FieldResult {
    let mut scanner = JsonScanner::new(raw.text());
    scanner.begin_array().expect(SCANNED);
    let mut first = true;
    while scanner.next_element(first).expect(SCANNED) {
        first = false;
        headers.push(EncodedHeader::read(&mut scanner, scratch)?);
    }
    Ok(())
}

/// The headers, given the buffer they were made in. Without headers it allocates nothing.
pub(super) fn borrow<'b>(headers: &[EncodedHeader<'b>], scratch: &'b [u8]) -> Vec<NewHeader<'b>> {
    let borrow = |header: &EncodedHeader<'b>| NewHeader {
        key: std::str::from_utf8(header.key.bytes(scratch))
            .expect("a slice of a UTF-8 frame between two quotes, or unescaped to UTF-8"),
        value: header.value.map(|value| value.bytes(scratch)),
    };
    headers.iter().map(borrow).collect()
}

impl<'f> EncodedHeader<'f> {
    fn read(scanner: &mut JsonScanner<'f>, scratch: &mut Vec<u8>) -> FieldResult<Self> {
        if scanner.peek() != Some(b'{') {
            return Err(invalid_record("a header is an object"));
        }
        scanner.begin_object().expect(SCANNED);
        let mut seen = SeenFields::default();
        let (mut key, mut value, mut format) = (None, None, None);
        let mut first = true;
        while let Some(name) = scanner.next_name(first).expect(SCANNED) {
            first = false;
            let raw = scanner.value().expect(SCANNED);
            let (field, place) = match &*name.name() {
                b"key" => (KEY, &mut key),
                b"value" => (VALUE, &mut value),
                b"format" => (FORMAT, &mut format),
                unknown => {
                    refuse_near_miss(unknown, HEADER_FIELDS)?;
                    continue;
                }
            };
            if !seen.mark(field) {
                return Err(duplicate_field("headers"));
            }
            *place = Some(raw).filter(|raw| raw.json_type() != JsonType::Null);
        }
        let key = key
            .filter(|key| key.json_type() == JsonType::String)
            .ok_or_else(|| invalid_record("a header's \"key\" must be a string"))?;
        if !seen.has(VALUE) {
            return Err(invalid_record("a header has no \"value\""));
        }
        let format = match format {
            Some(raw) => format_by_name(raw, "header")?,
            None => Format::String,
        };
        if !matches!(format, Format::String | Format::ByteArray) {
            return Err(invalid_format("a header's format is string or bytearray"));
        }
        if value.is_some_and(|value| value.json_type() != JsonType::String) {
            return Err(invalid_record(
                "a header's \"value\" must be a string or null",
            ));
        }
        let rejected = |error| invalid_format(format!("header: {error}"));
        Ok(EncodedHeader {
            key: Format::String.encode(key, scratch).map_err(rejected)?,
            value: match value {
                Some(value) => Some(format.encode(value, scratch).map_err(rejected)?),
                None => None,
            },
        })
    }
}

const HEADER_FIELDS: &[&str] = &["key", "value", "format"];

const SCANNED: &str = "the record was scanned before its headers are read";
