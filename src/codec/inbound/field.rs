//! What the objects in a record have in common: their errors, the formats they name, and the
//! check that no field occurs twice.

use std::borrow::Cow;

use crate::codec::format::{Format, UnknownFormat};
use crate::codec::json::{JsonType, RawJson};
use crate::codec::socket_error::SocketErrorCode;
use crate::near_miss;

/// Why a field, and with it its record, is rejected.
#[derive(Debug)]
pub(super) struct FieldError {
    pub(super) code: SocketErrorCode,
    pub(super) message: Cow<'static, str>,
}

/// Errors are rare: boxed, they do not make the results without one larger.
pub(super) type FieldResult<T = ()> = Result<T, Box<FieldError>>;

/// JSON that is no record.
#[cold]
pub(super) fn invalid_record(message: impl Into<Cow<'static, str>>) -> Box<FieldError> {
    Box::new(FieldError {
        code: SocketErrorCode::InvalidRecord,
        message: message.into(),
    })
}

/// An unknown format, or a value that is not of its format.
#[cold]
pub(super) fn invalid_format(message: impl Into<Cow<'static, str>>) -> Box<FieldError> {
    Box::new(FieldError {
        code: SocketErrorCode::InvalidFormat,
        message: message.into(),
    })
}

/// The format that `raw`, a field's `format`, names.
pub(super) fn format_by_name(raw: RawJson<'_>, field: &str) -> FieldResult<Format> {
    if raw.json_type() != JsonType::String {
        return Err(invalid_record(format!(
            "the format of the {field} must be a string"
        )));
    }
    let name = raw.name();
    Format::from_name(&name).ok_or_else(|| {
        let unknown = UnknownFormat::new(&String::from_utf8_lossy(&name));
        invalid_format(format!("{field}: {unknown}"))
    })
}

/// Refuses a field that is none of those known if it was probably meant as one of them.
#[cold]
pub(super) fn refuse_near_miss(unknown: &[u8], known: &[&str]) -> FieldResult {
    near_miss::find_field(unknown, known).map_or(Ok(()), |known| {
        let unknown = String::from_utf8_lossy(unknown);
        Err(invalid_record(format!(
            "there is no field \"{unknown}\"; did you mean \"{known}\"?"
        )))
    })
}

/// A field that occurs twice: which of the two was meant cannot be known.
pub(super) fn duplicate_field(field: &str) -> Box<FieldError> {
    invalid_record(format!("a field occurs twice: \"{field}\", or one in it"))
}

/// For clients that send what is no record: one that every socket takes.
pub(super) const EXAMPLE: &str = r#"a record is {"value":{"value":"hello","format":"string"}}"#;

/// The fields of an object that have occurred, by bit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SeenFields(u8);

impl SeenFields {
    /// Marks a field; false when it was marked before.
    pub(super) fn mark(&mut self, field: u8) -> bool {
        let first = !self.has(field);
        self.0 |= field;
        first
    }

    /// Whether it has occurred.
    pub(super) fn has(self, field: u8) -> bool {
        self.0 & field != 0
    }
}

/// Bits of [`SeenFields`].
pub(super) const VALUE: u8 = 1;
pub(super) const KEY: u8 = 1 << 1;
pub(super) const FORMAT: u8 = 1 << 2;
