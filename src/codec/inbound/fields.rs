//! One record's fields: first as slices of the frame, then as Kafka's bytes.

use std::borrow::Cow;

use super::headers::{self, EncodedHeader};
use crate::codec::answer::Code;
use crate::codec::format::{Encoded, Format, Types, UnknownFormat};
use crate::codec::json::{Kind, Malformed, Raw, Scanner};

/// Why a record is refused.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) code: Code,
    pub(super) message: Cow<'static, str>,
}

/// A fault is rare: a pointer to it keeps the results that have none small.
pub(super) type Outcome<T = ()> = Result<T, Box<Fault>>;

/// JSON of the wrong shape.
#[cold]
pub(super) fn bad_shape(message: impl Into<Cow<'static, str>>) -> Box<Fault> {
    Box::new(Fault {
        code: Code::InvalidRecord,
        message: message.into(),
    })
}

/// An unknown format, or a value that does not fit.
#[cold]
pub(super) fn bad_format(message: impl Into<Cow<'static, str>>) -> Box<Fault> {
    Box::new(Fault {
        code: Code::InvalidFormat,
        message: message.into(),
    })
}

/// What a record says. `None`: not said, or said to be null.
#[derive(Debug, Default)]
pub(super) struct Fields<'f> {
    pub(super) message_id: Option<Raw<'f>>,
    pub(super) partition: Option<i32>,
    pub(super) timestamp: Option<i64>,
    headers: Option<Raw<'f>>,
    key: Typed<'f>,
    value: Typed<'f>,
    seen: Seen,
    /// The first thing found wrong with the shape; the messageId may come after it.
    fault: Option<Box<Fault>>,
}

impl<'f> Fields<'f> {
    /// Reads one record to its end, whatever is wrong with its shape.
    pub(super) fn read(&mut self, scanner: &mut Scanner<'f>) -> Result<(), Malformed> {
        if scanner.peek() != Some(b'{') {
            scanner.value()?;
            self.blame(Err(bad_shape("a record is an object")));
            return Ok(());
        }
        scanner.begin_object()?;
        let mut first = true;
        while let Some(name) = scanner.next_name(first)? {
            first = false;
            let read = match &*name.name() {
                b"value" => {
                    self.once(VALUE, "value");
                    self.value.read(scanner, "value")?
                }
                b"key" => {
                    self.once(KEY, "key");
                    self.key.read(scanner, "key")?
                }
                b"messageId" => {
                    self.once(MESSAGE_ID, "messageId");
                    self.take_message_id(scanner.value()?)
                }
                b"headers" => {
                    self.once(HEADERS, "headers");
                    self.take_headers(scanner.value()?)
                }
                b"partition" => {
                    self.once(PARTITION, "partition");
                    self.take_partition(scanner.value()?)
                }
                b"timestamp" => {
                    self.once(TIMESTAMP, "timestamp");
                    self.take_timestamp(scanner.value()?)
                }
                _ => {
                    scanner.value()?;
                    continue;
                }
            };
            self.blame(read);
        }
        if !self.seen.has(VALUE) {
            self.blame(Err(bad_shape("the record has no \"value\"")));
        }
        Ok(())
    }

    fn take_message_id(&mut self, raw: Raw<'f>) -> Outcome {
        match raw.kind() {
            Kind::Null => {}
            Kind::String => self.message_id = self.message_id.or(Some(raw)),
            _ => return Err(bad_shape("\"messageId\" must be a string")),
        }
        Ok(())
    }

    fn take_headers(&mut self, raw: Raw<'f>) -> Outcome {
        match raw.kind() {
            Kind::Null => {}
            Kind::Array => self.headers = Some(raw),
            _ => return Err(bad_shape("\"headers\" must be an array")),
        }
        Ok(())
    }

    fn take_partition(&mut self, raw: Raw<'f>) -> Outcome {
        if raw.kind() != Kind::Null {
            let partition = natural(raw).and_then(|number| number.try_into().ok());
            self.partition = Some(partition.ok_or_else(|| {
                bad_shape("\"partition\" must be an integer from 0 to 2147483647")
            })?);
        }
        Ok(())
    }

    fn take_timestamp(&mut self, raw: Raw<'f>) -> Outcome {
        if raw.kind() != Kind::Null {
            self.timestamp = Some(natural(raw).ok_or_else(|| {
                bad_shape("\"timestamp\" must be milliseconds, an integer from 0 on")
            })?);
        }
        Ok(())
    }

    fn once(&mut self, field: u8, name: &'static str) {
        if !self.seen.first(field) {
            self.blame(Err(twice(name)));
        }
    }

    #[inline]
    fn blame(&mut self, outcome: Outcome) {
        if let Err(fault) = outcome {
            self.fault.get_or_insert(fault);
        }
    }

    /// Makes Kafka's bytes; those that are not slices of the frame go into `scratch`.
    pub(super) fn encode(
        &mut self,
        types: Types,
        scratch: &mut Vec<u8>,
        headers: &mut Vec<EncodedHeader<'f>>,
    ) -> Outcome<EncodedFields<'f>> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        if let Some(raw) = self.headers {
            headers::encode(raw, scratch, headers)?;
        }
        Ok(EncodedFields {
            key: self.key.encode("key", types.key, scratch)?,
            value: self.value.encode("value", Some(types.value), scratch)?,
        })
    }
}

/// Key and value as bytes; without one they are null.
#[derive(Debug)]
pub(super) struct EncodedFields<'f> {
    pub(super) key: Option<Encoded<'f>>,
    pub(super) value: Option<Encoded<'f>>,
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
    ) -> Result<Outcome, Malformed> {
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
            let once = match &*name.name() {
                b"value" => {
                    self.value = not_null;
                    seen.first(VALUE)
                }
                b"format" => {
                    self.format = not_null;
                    seen.first(FORMAT)
                }
                _ => true,
            };
            if !once && outcome.is_ok() {
                outcome = Err(twice(whose));
            }
        }
        if !seen.has(VALUE) && outcome.is_ok() {
            outcome = Err(bad_shape(format!("\"{whose}\" has no \"value\"")));
        }
        Ok(outcome)
    }

    fn encode(
        &self,
        whose: &'static str,
        declared: Option<Format>,
        scratch: &mut Vec<u8>,
    ) -> Outcome<Option<Encoded<'f>>> {
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
pub(super) fn named_format(raw: Raw<'_>, whose: &str) -> Outcome<Format> {
    if raw.kind() != Kind::String {
        return Err(bad_shape(format!(
            "the format of the {whose} must be a string"
        )));
    }
    let name = raw.name();
    Format::named(&name).ok_or_else(|| {
        let unknown = UnknownFormat::new(&String::from_utf8_lossy(&name));
        bad_format(format!("{whose}: {unknown}"))
    })
}

/// An integer from 0 on, written as one.
fn natural(raw: Raw<'_>) -> Option<i64> {
    if raw.kind() != Kind::Number {
        return None;
    }
    let number: i64 = std::str::from_utf8(raw.text()).ok()?.parse().ok()?;
    (number >= 0).then_some(number)
}

/// A field that occurs twice: which of the two counts cannot be known.
pub(super) fn twice(whose: &str) -> Box<Fault> {
    bad_shape(format!("a field occurs twice: \"{whose}\", or one in it"))
}

/// Which fields of an object have occurred, by bit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen(u8);

impl Seen {
    /// Marks a field; false when it was marked before.
    pub(super) fn first(&mut self, field: u8) -> bool {
        let first = !self.has(field);
        self.0 |= field;
        first
    }

    /// Whether it has occurred.
    pub(super) fn has(self, field: u8) -> bool {
        self.0 & field != 0
    }
}

pub(super) const VALUE: u8 = 1;
pub(super) const KEY: u8 = 1 << 1;
pub(super) const FORMAT: u8 = 1 << 2;
const MESSAGE_ID: u8 = 1 << 3;
const HEADERS: u8 = 1 << 4;
const PARTITION: u8 = 1 << 5;
const TIMESTAMP: u8 = 1 << 6;
