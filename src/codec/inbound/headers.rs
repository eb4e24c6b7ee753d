//! `"headers"`: text, bytes in base64, or null, each under a name.

use super::fields::{Fault, Seen, bad_format, bad_shape, named_format};
use super::list::List;
use crate::codec::format::{Encoded, Format};
use crate::codec::json::{Kind, Raw, Scanner};
use crate::kafka::record::NewHeader;

/// A record's headers as Kafka's bytes.
#[derive(Debug, Default)]
pub(super) struct EncodedHeaders<'f>(List<EncodedHeader<'f>>);

#[derive(Clone, Copy, Debug)]
struct EncodedHeader<'f> {
    key: Encoded<'f>,
    value: Option<Encoded<'f>>,
}

impl<'f> EncodedHeaders<'f> {
    /// Reads the array, which the scanner has seen to be JSON.
    pub(super) fn read(raw: Raw<'f>, scratch: &mut Vec<u8>) -> Result<Self, Fault> {
        let mut scanner = Scanner::new(raw.text());
        let mut list = List::default();
        scanner.begin_array().expect(SCANNED);
        let mut first = true;
        while scanner.next_element(first).expect(SCANNED) {
            first = false;
            list.push(EncodedHeader::read(&mut scanner, scratch)?);
        }
        Ok(EncodedHeaders(list))
    }

    /// The headers, given the buffer they were made in.
    pub(super) fn borrow<'b>(self, scratch: &'b [u8]) -> List<NewHeader<'b>>
    where
        'f: 'b,
    {
        let mut list = List::default();
        for header in self.0.as_slice() {
            list.push(NewHeader {
                key: std::str::from_utf8(header.key.bytes(scratch))
                    .expect("a slice of a UTF-8 frame between two quotes, or unescaped to UTF-8"),
                value: header.value.map(|value| value.bytes(scratch)),
            });
        }
        list
    }
}

impl<'f> EncodedHeader<'f> {
    fn read(scanner: &mut Scanner<'f>, scratch: &mut Vec<u8>) -> Result<Self, Fault> {
        const NAMES: &[&str] = &["key", "value", "format"];
        if scanner.peek() != Some(b'{') {
            return Err(bad_shape("a header is an object"));
        }
        scanner.begin_object().expect(SCANNED);
        let mut seen = Seen::default();
        let mut fields = [None; NAMES.len()];
        let mut first = true;
        while let Some(name) = scanner.next_name(first).expect(SCANNED) {
            first = false;
            let raw = scanner.value().expect(SCANNED);
            if let Some(field) = NAMES.iter().position(|field| name.is_string(field)) {
                seen.once(field, NAMES)?;
                fields[field] = Some(raw).filter(|raw| raw.kind() != Kind::Null);
            }
        }
        let [key, value, format] = fields;
        let key = key
            .filter(|key| key.kind() == Kind::String)
            .ok_or_else(|| bad_shape("a header's \"key\" must be a string"))?;
        if !seen.has(1) {
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
