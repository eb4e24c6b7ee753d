//! One record's fields: first as slices of the frame, then as Kafka's bytes.

use super::field::{
    FORMAT, FieldError, FieldResult, KEY, SeenFields, VALUE, duplicate_field, format_by_name,
    invalid_format, invalid_record, refuse_near_miss,
};
use super::headers::{self, EncodedHeader};
use crate::codec::command::COMMAND_FIELD;
use crate::codec::format::{EncodedValue, Format, FormatError, RecordFormats};
use crate::codec::json::{JsonError, JsonScanner, JsonType, RawJson};

/// A record's fields. `None`: absent, or null.
#[derive(Debug, Default)]
pub(super) struct RecordFields<'f> {
    pub(super) message_id: Option<RawJson<'f>>,
    pub(super) partition: Option<i32>,
    pub(super) timestamp: Option<i64>,
    headers: Option<RawJson<'f>>,
    key: TypedField<'f>,
    value: TypedField<'f>,
    seen: SeenFields,
    /// The first field that is invalid; the messageId may come after it.
    first_error: Option<Box<FieldError>>,
}

impl<'f> RecordFields<'f> {
    /// Reads one record for `topic` to its end, whatever is invalid in it.
    pub(super) fn read(
        &mut self,
        scanner: &mut JsonScanner<'f>,
        topic: &str,
    ) -> Result<(), JsonError> {
        if scanner.peek() != Some(b'{') {
            scanner.value()?;
            self.note_error(Err(invalid_record("a record is an object")));
            return Ok(());
        }
        scanner.begin_object()?;
        let mut first = true;
        while let Some(name) = scanner.next_name(first)? {
            first = false;
            let read = match &*name.name() {
                b"value" => {
                    self.mark_seen(VALUE, "value");
                    self.value.read(scanner, "value")?
                }
                b"key" => {
                    self.mark_seen(KEY, "key");
                    self.key.read(scanner, "key")?
                }
                b"messageId" => {
                    self.mark_seen(MESSAGE_ID, "messageId");
                    self.take_message_id(scanner.value()?)
                }
                b"headers" => {
                    self.mark_seen(HEADERS, "headers");
                    self.take_headers(scanner.value()?)
                }
                b"partition" => {
                    self.mark_seen(PARTITION, "partition");
                    self.take_partition(scanner.value()?)
                }
                b"timestamp" => {
                    self.mark_seen(TIMESTAMP, "timestamp");
                    self.take_timestamp(scanner.value()?)
                }
                b"topic" => {
                    self.mark_seen(TOPIC, "topic");
                    check_topic(scanner.value()?, topic)
                }
                unknown => self.take_unknown(unknown, scanner.value()?),
            };
            self.note_error(read);
        }
        if !self.seen.has(VALUE) {
            let missing = match self.seen.has(COMMAND) {
                false => "the record has no \"value\"",
                true => "a command stands alone, not in an array",
            };
            self.note_error(Err(invalid_record(missing)));
        }
        Ok(())
    }

    #[cold]
    fn take_unknown(&mut self, name: &[u8], value: RawJson<'f>) -> FieldResult {
        if *name == *COMMAND_FIELD.as_bytes() && value.json_type() == JsonType::String {
            self.seen.mark(COMMAND);
        }
        refuse_near_miss(name, RECORD_FIELDS)
    }

    /// Whether what was read is a command.
    pub(super) fn is_command(&self) -> bool {
        self.seen.has(COMMAND) && !self.seen.has(VALUE)
    }

    /// Whether what was read has nothing of a record.
    pub(super) fn is_no_record(&self) -> bool {
        !self.seen.has(VALUE)
    }

    fn take_message_id(&mut self, raw: RawJson<'f>) -> FieldResult {
        match raw.json_type() {
            JsonType::Null => {}
            JsonType::String => self.message_id = self.message_id.or(Some(raw)),
            _ => return Err(invalid_record("\"messageId\" must be a string")),
        }
        Ok(())
    }

    fn take_headers(&mut self, raw: RawJson<'f>) -> FieldResult {
        match raw.json_type() {
            JsonType::Null => {}
            JsonType::Array => self.headers = Some(raw),
            _ => return Err(invalid_record("\"headers\" must be an array")),
        }
        Ok(())
    }

    fn take_partition(&mut self, raw: RawJson<'f>) -> FieldResult {
        if raw.json_type() != JsonType::Null {
            let partition = non_negative_integer(raw).and_then(|number| number.try_into().ok());
            self.partition = Some(partition.ok_or_else(|| {
                invalid_record("\"partition\" must be an integer from 0 to 2147483647")
            })?);
        }
        Ok(())
    }

    fn take_timestamp(&mut self, raw: RawJson<'f>) -> FieldResult {
        if raw.json_type() != JsonType::Null {
            self.timestamp = Some(non_negative_integer(raw).ok_or_else(|| {
                invalid_record("\"timestamp\" must be milliseconds, an integer from 0 on")
            })?);
        }
        Ok(())
    }

    fn mark_seen(&mut self, field: u8, name: &'static str) {
        if !self.seen.mark(field) {
            self.note_error(Err(duplicate_field(name)));
        }
    }

    #[inline]
    fn note_error(&mut self, result: FieldResult) {
        if let Err(error) = result {
            self.first_error.get_or_insert(error);
        }
    }

    /// Makes Kafka's bytes; those that are not slices of the frame go into `scratch`.
    pub(super) fn encode(
        &mut self,
        formats: RecordFormats,
        scratch: &mut Vec<u8>,
        headers: &mut Vec<EncodedHeader<'f>>,
    ) -> FieldResult<EncodedFields<'f>> {
        if let Some(error) = self.first_error.take() {
            return Err(error);
        }
        if let Some(raw) = self.headers {
            headers::encode(raw, scratch, headers)?;
        }
        Ok(EncodedFields {
            key: self.key.encode("key", formats.key, scratch)?,
            value: self.value.encode("value", Some(formats.value), scratch)?,
        })
    }
}

/// Key and value as bytes; without one they are null.
#[derive(Debug)]
pub(super) struct EncodedFields<'f> {
    pub(super) key: Option<EncodedValue<'f>>,
    pub(super) value: Option<EncodedValue<'f>>,
}

/// `{"value":…,"format":…}`.
#[derive(Debug, Default)]
struct TypedField<'f> {
    value: Option<RawJson<'f>>,
    format: Option<RawJson<'f>>,
}

impl<'f> TypedField<'f> {
    /// Reads the object; `null` in its place is one with the value null.
    fn read(
        &mut self,
        scanner: &mut JsonScanner<'f>,
        field: &'static str,
    ) -> Result<FieldResult, JsonError> {
        if scanner.peek() != Some(b'{') {
            return Ok(match scanner.value()?.json_type() {
                JsonType::Null => Ok(()),
                _ => Err(invalid_record(format!(
                    "\"{field}\" must be an object with a \"value\", or null, \
                     such as \"{field}\":{{\"value\":\"hello\",\"format\":\"string\"}}"
                ))),
            });
        }
        scanner.begin_object()?;
        let mut seen = SeenFields::default();
        let mut result = Ok(());
        let mut first = true;
        while let Some(name) = scanner.next_name(first)? {
            first = false;
            let raw = scanner.value()?;
            let not_null = Some(raw).filter(|raw| raw.json_type() != JsonType::Null);
            let once = match &*name.name() {
                b"value" => {
                    self.value = not_null;
                    seen.mark(VALUE)
                }
                b"format" => {
                    self.format = not_null;
                    seen.mark(FORMAT)
                }
                unknown => {
                    result = result.and_then(|()| refuse_near_miss(unknown, TYPED_FIELDS));
                    continue;
                }
            };
            if !once && result.is_ok() {
                result = Err(duplicate_field(field));
            }
        }
        if !seen.has(VALUE) && result.is_ok() {
            result = Err(invalid_record(format!("\"{field}\" has no \"value\"")));
        }
        Ok(result)
    }

    fn encode(
        &self,
        field: &'static str,
        declared: Option<Format>,
        scratch: &mut Vec<u8>,
    ) -> FieldResult<Option<EncodedValue<'f>>> {
        let format = match self.format {
            Some(raw) => format_by_name(raw, field)?,
            None => declared.unwrap_or(Format::String),
        };
        let Some(value) = self.value else {
            return Ok(None);
        };
        match format.encode(value, scratch) {
            Ok(encoded) => Ok(Some(encoded)),
            Err(error) => Err(not_of_format(field, error, value)),
        }
    }
}

/// A record that was read from a topic names it; sent to another one it is probably misdirected.
fn check_topic(raw: RawJson<'_>, topic: &str) -> FieldResult {
    match raw.json_type() {
        JsonType::Null => Ok(()),
        JsonType::String if *raw.name() == *topic.as_bytes() => Ok(()),
        _ => Err(invalid_record(format!(
            "\"topic\" is not the socket's, which is {topic}: leave it out, or open a socket for it"
        ))),
    }
}

/// A value that its format does not take, and what would be taken.
#[cold]
fn not_of_format(field: &str, error: FormatError, value: RawJson<'_>) -> Box<FieldError> {
    let way_out = match error {
        FormatError::WrongType(_) => ": send one, or format ",
        FormatError::OutOfRange(_) => ": send another, or format ",
        _ => return invalid_format(format!("{field}: {error}")),
    };
    let formats = Format::that_take(value);
    invalid_format(format!("{field}: {error}{way_out}{formats}"))
}

/// An integer from 0 on, written as one.
fn non_negative_integer(raw: RawJson<'_>) -> Option<i64> {
    if raw.json_type() != JsonType::Number {
        return None;
    }
    let number: i64 = std::str::from_utf8(raw.text()).ok()?.parse().ok()?;
    (number >= 0).then_some(number)
}

const RECORD_FIELDS: &[&str] = &[
    "value",
    "key",
    "messageId",
    "headers",
    "partition",
    "timestamp",
    "topic",
];
const TYPED_FIELDS: &[&str] = &["value", "format"];

/// `format` is no field of a record itself.
const COMMAND: u8 = FORMAT;
const MESSAGE_ID: u8 = 1 << 3;
const HEADERS: u8 = 1 << 4;
const PARTITION: u8 = 1 << 5;
const TIMESTAMP: u8 = 1 << 6;
const TOPIC: u8 = 1 << 7;
