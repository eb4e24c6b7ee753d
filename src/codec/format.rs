//! The formats a key or a value can have: JSON in the message, bytes in Kafka.
//!
//! ```text
//!  JSON in the message ── Format::encode ─────────▶ bytes, as Java's serializer of that name
//!  JSON in the message ◀─ Format::decode_to_json ── bytes, or FormatError when they are not that type
//! ```

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use bytes::{BufMut, BytesMut};

use super::json::{self, JsonType, LoneSurrogate, RawJson, StringContent};

/// As lenient as Java's decoder: with or without padding, whatever the last bits are.
const LENIENT_CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const LENIENT: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT_CONFIG);
const LENIENT_URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT_CONFIG);

/// The format of a key or a value: its type in JSON and its bytes in Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Format {
    /// UTF-8 JSON text, passed through as it is.
    Json,
    /// UTF-8.
    String,
    /// Bytes; base64 in JSON.
    Avro,
    /// Bytes; base64 in JSON.
    Protobuf,
    /// Bytes; base64 in JSON.
    ByteArray,
    /// 4 bytes, big-endian two's complement.
    Int,
    /// 2 bytes, big-endian two's complement.
    Short,
    /// 8 bytes, big-endian two's complement.
    Long,
    /// 4 bytes, IEEE 754, big-endian.
    Float,
    /// 8 bytes, IEEE 754, big-endian.
    Double,
}

/// The formats that a socket's parameters declare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RecordFormats {
    /// `keyType`. Without one a produced key is a string, and a consumed one is so where it can
    /// be.
    pub(crate) key: Option<Format>,
    /// `valType`.
    pub(crate) value: Format,
}

/// No format has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown format {0:?}: one of json, string, avro, protobuf, bytearray, int, short, long, \
     float, double"
)]
pub(crate) struct UnknownFormat(pub(crate) String);

/// A value is not of its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    /// JSON of another type.
    #[error("{0} takes {expected}", expected = .0.expected_json())]
    WrongType(Format),
    /// Characters, padding or length.
    #[error("{0} takes base64, and this is not")]
    Base64(Format),
    /// Half a character.
    #[error("string: {LoneSurrogate}")]
    LoneSurrogate,
    /// A number that the type cannot hold.
    #[error("out of the range of {0}")]
    OutOfRange(Format),
    /// Bytes of another number.
    #[error("{0} has {expected} bytes, and these are {1}", expected = .0.fixed_size())]
    WrongLength(Format, usize),
    /// Bytes that are no text.
    #[error("not UTF-8")]
    NotUtf8,
    /// Bytes that are no JSON text.
    #[error("{0}")]
    InvalidJson(json::JsonError),
}

/// A value's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EncodedValue<'a> {
    /// They stand in the message as they are.
    Borrowed(&'a [u8]),
    /// They were appended to the buffer.
    Appended {
        /// Where they begin.
        from: usize,
        /// Where they end.
        to: usize,
    },
}

impl<'a> EncodedValue<'a> {
    /// The bytes, given the buffer.
    pub(crate) fn bytes<'b>(self, buffer: &'b [u8]) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            EncodedValue::Borrowed(bytes) => bytes,
            EncodedValue::Appended { from, to } => &buffer[from..to],
        }
    }
}

impl Format {
    /// The name in parameters and records.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::String => "string",
            Format::Avro => "avro",
            Format::Protobuf => "protobuf",
            Format::ByteArray => "bytearray",
            Format::Int => "int",
            Format::Short => "short",
            Format::Long => "long",
            Format::Float => "float",
            Format::Double => "double",
        }
    }

    /// The format of that name, in any case.
    pub(crate) fn from_name(name: &[u8]) -> Option<Format> {
        Some(match name {
            b"json" => Format::Json,
            b"string" => Format::String,
            b"avro" => Format::Avro,
            b"protobuf" => Format::Protobuf,
            b"bytearray" | b"byte_array" => Format::ByteArray,
            b"int" => Format::Int,
            b"short" => Format::Short,
            b"long" => Format::Long,
            b"float" => Format::Float,
            b"double" => Format::Double,
            _ if name.iter().any(u8::is_ascii_uppercase) => {
                return Format::from_name(&name.to_ascii_lowercase());
            }
            _ => return None,
        })
    }

    /// The bytes in Kafka of a JSON value. What is not a slice of the value's text is
    /// appended to `buffer`. `null` is a value like any other here: a tombstone is up to
    /// the caller.
    pub(crate) fn encode<'a>(
        self,
        value: RawJson<'a>,
        buffer: &mut Vec<u8>,
    ) -> Result<EncodedValue<'a>, FormatError> {
        let from = buffer.len();
        match self {
            Format::Json => return Ok(EncodedValue::Borrowed(value.text())),
            Format::String => {
                self.expect_type(value, JsonType::String)?;
                let content = value
                    .string_content(buffer)
                    .map_err(|LoneSurrogate| FormatError::LoneSurrogate)?;
                if let StringContent::Borrowed(text) = content {
                    return Ok(EncodedValue::Borrowed(text));
                }
            }
            Format::Avro | Format::Protobuf | Format::ByteArray => {
                self.decode_base64(value, buffer)?;
            }
            Format::Int => buffer.extend_from_slice(&self.integer::<i32>(value)?.to_be_bytes()),
            Format::Short => buffer.extend_from_slice(&self.integer::<i16>(value)?.to_be_bytes()),
            Format::Long => buffer.extend_from_slice(&self.integer::<i64>(value)?.to_be_bytes()),
            Format::Float => {
                let number = match self.non_finite(value)? {
                    Some(NonFinite::Nan) => f32::NAN,
                    Some(NonFinite::Infinity) => f32::INFINITY,
                    Some(NonFinite::MinusInfinity) => f32::NEG_INFINITY,
                    // Straight from the decimal digits: by way of a double it would be
                    // rounded twice.
                    None => self.number(value, f32::is_finite)?,
                };
                buffer.extend_from_slice(&number.to_be_bytes());
            }
            Format::Double => {
                let number = match self.non_finite(value)? {
                    Some(NonFinite::Nan) => f64::NAN,
                    Some(NonFinite::Infinity) => f64::INFINITY,
                    Some(NonFinite::MinusInfinity) => f64::NEG_INFINITY,
                    None => self.number(value, f64::is_finite)?,
                };
                buffer.extend_from_slice(&number.to_be_bytes());
            }
        }
        Ok(EncodedValue::Appended {
            from,
            to: buffer.len(),
        })
    }

    /// Writes a key's or value's bytes as JSON; writes nothing when they do not fit.
    pub(crate) fn decode_to_json(
        self,
        bytes: &[u8],
        out: &mut BytesMut,
    ) -> Result<(), FormatError> {
        match self {
            Format::Json => {
                std::str::from_utf8(bytes).map_err(|_| FormatError::NotUtf8)?;
                json::validate(bytes).map_err(FormatError::InvalidJson)?;
                out.extend_from_slice(bytes);
            }
            Format::String => {
                std::str::from_utf8(bytes).map_err(|_| FormatError::NotUtf8)?;
                json::write_string(out, bytes);
            }
            Format::Avro | Format::Protobuf | Format::ByteArray => write_base64(out, bytes),
            Format::Int => write_integer(out, i32::from_be_bytes(self.array(bytes)?)),
            Format::Short => write_integer(out, i16::from_be_bytes(self.array(bytes)?)),
            Format::Long => write_integer(out, i64::from_be_bytes(self.array(bytes)?)),
            Format::Float => {
                let number = f32::from_be_bytes(self.array(bytes)?);
                write_number(out, number, number.into());
            }
            Format::Double => {
                let number = f64::from_be_bytes(self.array(bytes)?);
                write_number(out, number, number);
            }
        }
        Ok(())
    }

    fn expect_type(self, value: RawJson<'_>, expected: JsonType) -> Result<(), FormatError> {
        match value.json_type() == expected {
            true => Ok(()),
            false => Err(FormatError::WrongType(self)),
        }
    }

    /// Unpadded and URL-safe text counts too; a mixture of alphabets does not.
    fn decode_base64(self, value: RawJson<'_>, buffer: &mut Vec<u8>) -> Result<(), FormatError> {
        self.expect_type(value, JsonType::String)?;
        // Escapes are possible: some encoders write `\/`.
        let mut unescaped = Vec::new();
        let text = match value.string_content(&mut unescaped) {
            Ok(StringContent::Borrowed(text)) => text,
            Ok(StringContent::Appended) => &unescaped[..],
            Err(LoneSurrogate) => return Err(FormatError::Base64(self)),
        };
        let from = buffer.len();
        buffer.resize(from + base64::decoded_len_estimate(text.len()), 0);
        let room = &mut buffer[from..];
        let len = LENIENT
            .decode_slice(text, room)
            .or_else(|_| LENIENT_URL_SAFE.decode_slice(text, room))
            .map_err(|_| FormatError::Base64(self));
        buffer.truncate(from + *len.as_ref().unwrap_or(&0));
        len.map(|_| ())
    }

    fn integer<T: FromStr>(self, value: RawJson<'_>) -> Result<T, FormatError> {
        let text = self.number_text(value)?;
        if text.contains(['.', 'e', 'E']) {
            return Err(FormatError::WrongType(self));
        }
        text.parse().map_err(|_| FormatError::OutOfRange(self))
    }

    fn number<T: FromStr + Copy>(
        self,
        value: RawJson<'_>,
        is_finite: fn(T) -> bool,
    ) -> Result<T, FormatError> {
        let number = self.number_text(value)?.parse().ok();
        number
            .filter(|number| is_finite(*number))
            .ok_or(FormatError::OutOfRange(self))
    }

    /// The text of a number.
    fn number_text<'a>(self, value: RawJson<'a>) -> Result<&'a str, FormatError> {
        self.expect_type(value, JsonType::Number)?;
        std::str::from_utf8(value.text()).map_err(|_| FormatError::WrongType(self))
    }

    /// The numbers that JSON has no literal for travel as strings.
    fn non_finite(self, value: RawJson<'_>) -> Result<Option<NonFinite>, FormatError> {
        if value.json_type() != JsonType::String {
            return Ok(None);
        }
        match &*value.name() {
            b"NaN" => Ok(Some(NonFinite::Nan)),
            b"Infinity" => Ok(Some(NonFinite::Infinity)),
            b"-Infinity" => Ok(Some(NonFinite::MinusInfinity)),
            _ => Err(FormatError::WrongType(self)),
        }
    }

    fn array<const N: usize>(self, bytes: &[u8]) -> Result<[u8; N], FormatError> {
        bytes
            .try_into()
            .map_err(|_| FormatError::WrongLength(self, bytes.len()))
    }

    /// What JSON it takes, for messages.
    fn expected_json(self) -> &'static str {
        match self {
            Format::Json => "any JSON value",
            Format::String => "a string",
            Format::Avro | Format::Protobuf | Format::ByteArray => "a string of base64",
            Format::Int | Format::Short | Format::Long => {
                "an integer without fraction and exponent"
            }
            Format::Float | Format::Double => {
                "a number, or one of the strings NaN, Infinity and -Infinity"
            }
        }
    }

    /// The formats that take such a JSON value, for messages.
    pub(crate) fn that_take(value: RawJson<'_>) -> &'static str {
        let is_long = || Format::Long.integer::<i64>(value).is_ok();
        let is_double = || Format::Double.number(value, f64::is_finite).is_ok();
        match value.json_type() {
            JsonType::String => "string or json",
            JsonType::Number if is_long() => "long or json",
            JsonType::Number if is_double() => "double or json",
            _ => "json",
        }
    }

    /// How many bytes it has where that is fixed, for messages.
    fn fixed_size(self) -> usize {
        match self {
            Format::Short => 2,
            Format::Int | Format::Float => 4,
            _ => 8,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names count in any case; `byte_array` is `bytearray`.
impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Format, UnknownFormat> {
        Format::from_name(name.as_bytes()).ok_or_else(|| UnknownFormat::new(name))
    }
}

impl UnknownFormat {
    /// Cuts the name to what an error message repeats of it.
    pub(crate) fn new(name: &str) -> UnknownFormat {
        UnknownFormat(name.chars().take(UNKNOWN_CHARS_MAX).collect())
    }
}

/// How much of an unknown name an error message repeats.
const UNKNOWN_CHARS_MAX: usize = 40;

/// Writes bytes as a JSON string of padded standard base64.
pub(crate) fn write_base64(out: &mut BytesMut, bytes: &[u8]) {
    // Four characters for every three bytes begun.
    let encoded = bytes.len().div_ceil(3) * 4;
    out.reserve(encoded + 2);
    out.put_u8(b'"');
    let from = out.len();
    out.put_bytes(0, encoded);
    STANDARD
        .encode_slice(bytes, &mut out[from..])
        .expect("the room is as long as padded base64 is");
    out.put_u8(b'"');
}

/// Writes an integer in decimal.
pub(crate) fn write_integer(out: &mut BytesMut, number: impl itoa::Integer) {
    out.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes the shortest text that reads back as the same number of the same width.
fn write_number<T: serde::Serialize>(out: &mut BytesMut, number: T, wide: f64) {
    let non_finite = match wide {
        _ if wide.is_nan() => NonFinite::Nan,
        f64::INFINITY => NonFinite::Infinity,
        f64::NEG_INFINITY => NonFinite::MinusInfinity,
        _ => {
            return serde_json::to_writer(out.writer(), &number)
                .expect("a finite number is written to memory");
        }
    };
    json::write_string(out, non_finite.name().as_bytes());
}

#[derive(Clone, Copy)]
enum NonFinite {
    Nan,
    Infinity,
    MinusInfinity,
}

impl NonFinite {
    fn name(self) -> &'static str {
        match self {
            NonFinite::Nan => "NaN",
            NonFinite::Infinity => "Infinity",
            NonFinite::MinusInfinity => "-Infinity",
        }
    }
}
