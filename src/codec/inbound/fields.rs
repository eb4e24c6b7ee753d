//! One record's fields: first as slices of the frame, then as Kafka's bytes.

use std::borrow::Cow;

use super::InboundRecord;
use super::headers::EncodedHeaders;
use crate::codec::answer::Code;
use crate::codec::format::{Encoded, Format, Types};
use crate::codec::json::{Content, Kind, LoneSurrogate, Malformed, Raw, Scanner};

/// Why a record is refused.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) code: Code,
    pub(super) message: Cow<'static, str>,
}

/// JSON of the wrong shape.
pub(super) fn bad_shape(message: impl Into<Cow<'static, str>>) -> Fault {
    Fault {
        code: Code::InvalidRecord,
        message: message.into(),
    }
}

/// An unknown format, or a value that does not fit.
pub(super) fn bad_format(message: impl Into<Cow<'static, str>>) -> Fault {
    Fault {
        code: Code::InvalidFormat,
        message: message.into(),
    }
}

/// What a record says. `None`: not said, or said to be null.
#[derive(Debug, Default)]
pub(super) struct Fields<'f> {
    pub(super) message_id: Option<Raw<'f>>,
    headers: Option<Raw<'f>>,
    key: Typed<'f>,
    value: Typed<'f>,
    partition: Option<i32>,
    timestamp: Option<i64>,
}

impl<'f> Fields<'f> {
    /// Reads one record to its end. Whatever is wrong with its shape, reading goes on:
    /// the messageId may come later. The first fault is the one that is told.
    pub(super) fn read(
        &mut self,
        scanner: &mut Scanner<'f>,
    ) -> Result<Result<(), Fault>, Malformed> {
        if scanner.peek() != Some(b'{') {
            scanner.value()?;
            return Ok(Err(bad_shape("a record is an object")));
        }
        scanner.begin_object()?;
        let mut seen = Seen::default();
        let mut outcome = Ok(());
        let mut first = true;
        while let Some(name) = scanner.next_name(first)? {
            first = false;
            let Some(field) = FIELDS.iter().position(|field| name.is_string(field)) else {
                scanner.value()?;
                continue;
            };
            outcome = outcome.and(seen.once(field, FIELDS));
            let read = match field {
                KEY => self.key.read(scanner, "key")?,
                VALUE => self.value.read(scanner, "value")?,
                _ => self.take(field, scanner.value()?),
            };
            outcome = outcome.and(read);
        }
        if !seen.has(VALUE) {
            outcome = outcome.and(Err(bad_shape("the record has no \"value\"")));
        }
        Ok(outcome)
    }

    fn take(&mut self, field: usize, raw: Raw<'f>) -> Result<(), Fault> {
        if raw.kind() == Kind::Null {
            return Ok(());
        }
        match field {
            MESSAGE_ID => match raw.kind() {
                Kind::String => self.message_id = self.message_id.or(Some(raw)),
                _ => return Err(bad_shape("\"messageId\" must be a string")),
            },
            HEADERS => match raw.kind() {
                Kind::Array => self.headers = Some(raw),
                _ => return Err(bad_shape("\"headers\" must be an array")),
            },
            PARTITION => {
                let partition = natural(raw).and_then(|number| number.try_into().ok());
                self.partition = Some(partition.ok_or_else(|| {
                    bad_shape("\"partition\" must be an integer from 0 to 2147483647")
                })?);
            }
            TIMESTAMP => {
                self.timestamp = Some(natural(raw).ok_or_else(|| {
                    bad_shape("\"timestamp\" must be milliseconds, an integer from 0 on")
                })?);
            }
            _ => {}
        }
        Ok(())
    }

    /// Makes Kafka's bytes; those that are not slices of the frame go into `scratch`.
    pub(super) fn encode(
        &self,
        types: Types,
        scratch: &mut Vec<u8>,
    ) -> Result<EncodedFields<'f>, Fault> {
        Ok(EncodedFields {
            key: self.key.encode("key", types.key, scratch)?,
            value: self.value.encode("value", Some(types.value), scratch)?,
            headers: match self.headers {
                Some(headers) => EncodedHeaders::read(headers, scratch)?,
                None => EncodedHeaders::default(),
            },
        })
    }
}

/// The fields whose bytes are made, not just sliced.
#[derive(Debug)]
pub(super) struct EncodedFields<'f> {
    key: Option<Encoded<'f>>,
    value: Option<Encoded<'f>>,
    headers: EncodedHeaders<'f>,
}

impl<'f> EncodedFields<'f> {
    /// The record, given the buffer they were made in.
    pub(super) fn borrow<'b>(self, fields: &Fields<'f>, scratch: &'b [u8]) -> InboundRecord<'b>
    where
        'f: 'b,
    {
        InboundRecord {
            key: self.key.map(|key| key.bytes(scratch)),
            value: self.value.map(|value| value.bytes(scratch)),
            timestamp: fields.timestamp,
            partition: fields.partition,
            message_id: fields.message_id.map(Raw::text),
            headers: self.headers.borrow(scratch),
        }
    }
}

/// `{"value":…,"format":…}`.
#[derive(Debug, Default)]
struct Typed<'f> {
    value: Option<Raw<'f>>,
    format: Option<Raw<'f>>,
}

impl<'f> Typed<'f> {
    /// Reads the object; `null` in its place is one with the value null.
    fn read(
        &mut self,
        scanner: &mut Scanner<'f>,
        whose: &'static str,
    ) -> Result<Result<(), Fault>, Malformed> {
        if scanner.peek() != Some(b'{') {
            return Ok(match scanner.value()?.kind() {
                Kind::Null => Ok(()),
                _ => Err(bad_shape(format!(
                    "\"{whose}\" must be an object with a \"value\", or null"
                ))),
            });
        }
        scanner.begin_object()?;
        let mut seen = Seen::default();
        let mut outcome = Ok(());
        let mut first = true;
        while let Some(name) = scanner.next_name(first)? {
            first = false;
            let raw = scanner.value()?;
            let not_null = Some(raw).filter(|raw| raw.kind() != Kind::Null);
            match name {
                _ if name.is_string("value") => {
                    outcome = outcome.and(seen.once(0, &["value"]));
                    self.value = not_null;
                }
                _ if name.is_string("format") => {
                    outcome = outcome.and(seen.once(1, &["", "format"]));
                    self.format = not_null;
                }
                _ => {}
            }
        }
        if !seen.has(0) {
            let missing = bad_shape(format!("\"{whose}\" has no \"value\""));
            outcome = outcome.and(Err(missing));
        }
        Ok(outcome)
    }

    fn encode(
        &self,
        whose: &'static str,
        declared: Option<Format>,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<Encoded<'f>>, Fault> {
        let format = match self.format {
            Some(raw) => Some(named_format(raw, whose)?),
            None => declared,
        };
        let Some(value) = self.value else {
            return Ok(None);
        };
        let Some(format) = format else {
            return Err(bad_format(format!(
                "the {whose} has no format: name one in \"{whose}\", or in the parameter keyType"
            )));
        };
        match format.encode(value, scratch) {
            Ok(encoded) => Ok(Some(encoded)),
            Err(misfit) => Err(bad_format(format!("{whose}: {misfit}"))),
        }
    }
}

/// The format that a record names.
pub(super) fn named_format(raw: Raw<'_>, whose: &str) -> Result<Format, Fault> {
    if raw.kind() != Kind::String {
        return Err(bad_shape(format!(
            "the format of the {whose} must be a string"
        )));
    }
    let mut unescaped = Vec::new();
    let name = match raw.content(&mut unescaped) {
        Ok(Content::Borrowed(name)) => name,
        Ok(Content::Appended) => &unescaped,
        Err(LoneSurrogate) => raw.text(),
    };
    String::from_utf8_lossy(name)
        .parse()
        .map_err(|unknown| bad_format(format!("{whose}: {unknown}")))
}

/// An integer from 0 on, written as one.
fn natural(raw: Raw<'_>) -> Option<i64> {
    if raw.kind() != Kind::Number {
        return None;
    }
    let number: i64 = std::str::from_utf8(raw.text()).ok()?.parse().ok()?;
    (number >= 0).then_some(number)
}

const VALUE: usize = 0;
const KEY: usize = 1;
const MESSAGE_ID: usize = 2;
const HEADERS: usize = 3;
const PARTITION: usize = 4;
const TIMESTAMP: usize = 5;

/// The names of the fields, each at its number.
const FIELDS: &[&str] = &[
    "value",
    "key",
    "messageId",
    "headers",
    "partition",
    "timestamp",
];

/// Which fields of an object have occurred.
#[derive(Debug, Default)]
pub(super) struct Seen(u8);

impl Seen {
    /// Marks a field; an error when it was marked before.
    pub(super) fn once(&mut self, field: usize, names: &[&str]) -> Result<(), Fault> {
        if self.has(field) {
            return Err(bad_shape(format!("\"{}\" occurs twice", names[field])));
        }
        self.0 |= 1 << field;
        Ok(())
    }

    /// Whether it occurred.
    pub(super) fn has(&self, field: usize) -> bool {
        self.0 >> field & 1 == 1
    }
}
