//! `"headers"`: text, bytes in base64, or null, each under a name.

use super::fields::{
    FORMAT, KEY, Outcome, Seen, VALUE, bad_format, bad_shape, named_format, twice,
};
use crate::codec::format::{Encoded, Format};
use crate::codec::json::{Kind, Raw, Scanner};
use kafka_client::record::NewHeader;

/// A header as Kafka's bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct EncodedHeader<'f> {
    key: Encoded<'f>,
    value: Option<Encoded<'f>>,
}

/// Reads the array, which the scanner has seen to be JSON.
pub(super) fn encode<'f>(
    raw: Raw<'f>,
    scratch: &mut Vec<u8>,
    headers: &mut Vec<EncodedHeader<'f>>,
) -> Outcome {
    let mut scanner = Scanner::new(raw.text());
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
    fn read(scanner: &mut Scanner<'f>, scratch: &mut Vec<u8>) -> Outcome<Self> {
        if scanner.peek() != Some(b'{') {
            return Err(bad_shape("a header is an object"));
        }
        scanner.begin_object().expect(SCANNED);
        let mut seen = Seen::default();
        let (mut key, mut value, mut format) = (None, None, None);
        let mut first = true;
        while let Some(name) = scanner.next_name(first).expect(SCANNED) {
            first = false;
            let raw = scanner.value().expect(SCANNED);
            let (field, place) = match &*name.name() {
                b"key" => (KEY, &mut key),
                b"value" => (VALUE, &mut value),
                b"format" => (FORMAT, &mut format),
                _ => continue,
            };
            if !seen.first(field) {
                return Err(twice("headers"));
            }
            *place = Some(raw).filter(|raw| raw.kind() != Kind::Null);
        }
        let key = key
            .filter(|key| key.kind() == Kind::String)
            .ok_or_else(|| bad_shape("a header's \"key\" must be a string"))?;
        if !seen.has(VALUE) {
            return Err(bad_shape("a header has no \"value\""));
        }
        let format = match format {
            Some(raw) => named_format(raw, "header")?,
            None => Format::String,
        };
        if !matches!(format, Format::String | Format::ByteArray) {
            return Err(bad_format("a header's format is string or bytearray"));
        }
        if value.is_some_and(|value| value.kind() != Kind::String) {
            return Err(bad_shape("a header's \"value\" must be a string or null"));
        }
        let misfit = |misfit| bad_format(format!("header: {misfit}"));
        Ok(EncodedHeader {
            key: Format::String.encode(key, scratch).map_err(misfit)?,
            value: match value {
                Some(value) => Some(format.encode(value, scratch).map_err(misfit)?),
                None => None,
            },
        })
    }
}

const SCANNED: &str = "the record was scanned before its headers are read";
