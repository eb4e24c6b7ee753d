//! The types a key or a value can have, and their bytes in Kafka.
//!
//! ```text
//!  JSON in the frame ── Format::encode ─▶ bytes, as Java's serializer of that name
//!  JSON in the frame ◀─ Format::write ─── bytes, or Misfit when they are not that type
//! ```

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::{
    STANDARD, STANDARD_PAD_INDIFFERENT, URL_SAFE_PAD_INDIFFERENT,
};
use bytes::{BufMut, BytesMut};

use super::json::{self, Content, Kind, LoneSurrogate, Raw};

/// The type of a key or a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
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

/// The types that a socket's parameters declare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Types {
    /// `keyType`. Without one a produced key must name its format, and a consumed one is
    /// a string where it can be.
    pub key: Option<Format>,
    /// `valType`.
    pub value: Format,
}

/// No format has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown format {0:?}: one of json, string, avro, protobuf, bytearray, int, short, long, \
     float, double"
)]
pub struct UnknownFormat(pub String);

/// A value is not what its format asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// JSON of another kind.
    #[error("{0} takes {expected}", expected = .0.json())]
    Kind(Format),
    /// Characters, padding or length.
    #[error("{0} takes base64, and this is not")]
    Base64(Format),
    /// Half a character.
    #[error("string: {LoneSurrogate}")]
    Surrogate,
    /// A number that the type cannot hold.
    #[error("out of the range of {0}")]
    Range(Format),
    /// Bytes of another number.
    #[error("{0} has {expected} bytes, and these are {1}", expected = .0.size())]
    Length(Format, usize),
    /// Bytes that are no text.
    #[error("not UTF-8")]
    Utf8,
    /// Bytes that are no JSON text.
    #[error("{0}")]
    Json(json::Malformed),
}

/// A value's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoded<'a> {
    /// They stand in the frame as they are.
    Borrowed(&'a [u8]),
    /// They were appended to the buffer.
    Appended {
        /// Where they begin.
        from: usize,
        /// Where they end.
        to: usize,
    },
}

impl<'a> Encoded<'a> {
    /// The bytes, given the buffer.
    pub fn bytes<'b>(self, buffer: &'b [u8]) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            Encoded::Borrowed(bytes) => bytes,
            Encoded::Appended { from, to } => &buffer[from..to],
        }
    }
}

impl Format {
    /// The name in parameters and records.
    pub fn name(self) -> &'static str {
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
    pub fn named(name: &[u8]) -> Option<Format> {
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
                return Format::named(&name.to_ascii_lowercase());
            }
            _ => return None,
        })
    }

    /// The bytes in Kafka of a JSON value. What is not a slice of the value's text is
    /// appended to `buffer`. `null` is a value like any other here: a tombstone is the
    /// caller's matter.
    pub fn encode<'a>(self, value: Raw<'a>, buffer: &mut Vec<u8>) -> Result<Encoded<'a>, Misfit> {
        let from = buffer.len();
        match self {
            Format::Json => return Ok(Encoded::Borrowed(value.text())),
            Format::String => {
                self.expect(value, Kind::String)?;
                let content = value
                    .content(buffer)
                    .map_err(|LoneSurrogate| Misfit::Surrogate)?;
                if let Content::Borrowed(text) = content {
                    return Ok(Encoded::Borrowed(text));
                }
            }
            Format::Avro | Format::Protobuf | Format::ByteArray => {
                self.decode_base64(value, buffer)?;
            }
            Format::Int => buffer.extend_from_slice(&self.integer::<i32>(value)?.to_be_bytes()),
            Format::Short => buffer.extend_from_slice(&self.integer::<i16>(value)?.to_be_bytes()),
            Format::Long => buffer.extend_from_slice(&self.integer::<i64>(value)?.to_be_bytes()),
            Format::Float => {
                let number = match self.not_finite(value)? {
                    Some(NotFinite::Nan) => f32::NAN,
                    Some(NotFinite::Infinity) => f32::INFINITY,
                    Some(NotFinite::MinusInfinity) => f32::NEG_INFINITY,
                    // Straight from the decimal digits: by way of a double it would be
                    // rounded twice.
                    None => self.number(value, f32::is_finite)?,
                };
                buffer.extend_from_slice(&number.to_be_bytes());
            }
            Format::Double => {
                let number = match self.not_finite(value)? {
                    Some(NotFinite::Nan) => f64::NAN,
                    Some(NotFinite::Infinity) => f64::INFINITY,
                    Some(NotFinite::MinusInfinity) => f64::NEG_INFINITY,
                    None => self.number(value, f64::is_finite)?,
                };
                buffer.extend_from_slice(&number.to_be_bytes());
            }
        }
        Ok(Encoded::Appended {
            from,
            to: buffer.len(),
        })
    }

    /// Writes a key's or value's bytes as JSON; writes nothing when they do not fit.
    pub fn write(self, bytes: &[u8], out: &mut BytesMut) -> Result<(), Misfit> {
        match self {
            Format::Json => {
                std::str::from_utf8(bytes).map_err(|_| Misfit::Utf8)?;
                json::check(bytes).map_err(Misfit::Json)?;
                out.extend_from_slice(bytes);
            }
            Format::String => {
                std::str::from_utf8(bytes).map_err(|_| Misfit::Utf8)?;
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

    fn expect(self, value: Raw<'_>, kind: Kind) -> Result<(), Misfit> {
        match value.kind() == kind {
            true => Ok(()),
            false => Err(Misfit::Kind(self)),
        }
    }

    /// Unpadded and URL-safe text counts too; a mixture of alphabets does not.
    fn decode_base64(self, value: Raw<'_>, buffer: &mut Vec<u8>) -> Result<(), Misfit> {
        self.expect(value, Kind::String)?;
        // Escapes are possible: some encoders write `\/`.
        let mut unescaped = Vec::new();
        let text = match value.content(&mut unescaped) {
            Ok(Content::Borrowed(text)) => text,
            Ok(Content::Appended) => &unescaped[..],
            Err(LoneSurrogate) => return Err(Misfit::Base64(self)),
        };
        let from = buffer.len();
        buffer.resize(from + base64::decoded_len_estimate(text.len()), 0);
        let room = &mut buffer[from..];
        let len = STANDARD_PAD_INDIFFERENT
            .decode_slice(text, room)
            .or_else(|_| URL_SAFE_PAD_INDIFFERENT.decode_slice(text, room))
            .map_err(|_| Misfit::Base64(self));
        buffer.truncate(from + *len.as_ref().unwrap_or(&0));
        len.map(|_| ())
    }

    fn integer<T: FromStr>(self, value: Raw<'_>) -> Result<T, Misfit> {
        let text = self.digits(value)?;
        if text.contains(['.', 'e', 'E']) {
            return Err(Misfit::Kind(self));
        }
        text.parse().map_err(|_| Misfit::Range(self))
    }

    fn number<T: FromStr + Copy>(
        self,
        value: Raw<'_>,
        is_finite: fn(T) -> bool,
    ) -> Result<T, Misfit> {
        let number = self.digits(value)?.parse().ok();
        number
            .filter(|number| is_finite(*number))
            .ok_or(Misfit::Range(self))
    }

    /// The text of a number.
    fn digits<'a>(self, value: Raw<'a>) -> Result<&'a str, Misfit> {
        self.expect(value, Kind::Number)?;
        std::str::from_utf8(value.text()).map_err(|_| Misfit::Kind(self))
    }

    /// The numbers that JSON has no literal for travel as strings.
    fn not_finite(self, value: Raw<'_>) -> Result<Option<NotFinite>, Misfit> {
        if value.kind() != Kind::String {
            return Ok(None);
        }
        match &*value.name() {
            b"NaN" => Ok(Some(NotFinite::Nan)),
            b"Infinity" => Ok(Some(NotFinite::Infinity)),
            b"-Infinity" => Ok(Some(NotFinite::MinusInfinity)),
            _ => Err(Misfit::Kind(self)),
        }
    }

    fn array<const N: usize>(self, bytes: &[u8]) -> Result<[u8; N], Misfit> {
        bytes
            .try_into()
            .map_err(|_| Misfit::Length(self, bytes.len()))
    }

    /// What JSON it takes, for messages.
    fn json(self) -> &'static str {
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

    /// How many bytes it has where that is fixed, for messages.
    fn size(self) -> usize {
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
        Format::named(name.as_bytes()).ok_or_else(|| UnknownFormat::new(name))
    }
}

impl UnknownFormat {
    /// Keeps of the name what is worth repeating to its author.
    pub fn new(name: &str) -> UnknownFormat {
        UnknownFormat(name.chars().take(UNKNOWN_CHARS_MAX).collect())
    }
}

/// How much of an unknown name is repeated to its author.
const UNKNOWN_CHARS_MAX: usize = 40;

/// Writes bytes as a JSON string of padded standard base64.
pub fn write_base64(out: &mut BytesMut, bytes: &[u8]) {
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
pub fn write_integer(out: &mut BytesMut, number: impl itoa::Integer) {
    out.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes the shortest text that reads back as the same number of the same width.
fn write_number<T: serde::Serialize>(out: &mut BytesMut, number: T, wide: f64) {
    let not_finite = match wide {
        _ if wide.is_nan() => NotFinite::Nan,
        f64::INFINITY => NotFinite::Infinity,
        f64::NEG_INFINITY => NotFinite::MinusInfinity,
        _ => {
            return serde_json::to_writer(out.writer(), &number)
                .expect("a finite number is written to memory");
        }
    };
    json::write_string(out, not_finite.name().as_bytes());
}

#[derive(Clone, Copy)]
enum NotFinite {
    Nan,
    Infinity,
    MinusInfinity,
}

impl NotFinite {
    fn name(self) -> &'static str {
        match self {
            NotFinite::Nan => "NaN",
            NotFinite::Infinity => "Infinity",
            NotFinite::MinusInfinity => "-Infinity",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::json::Scanner;
    use proptest::prelude::*;

    fn encode(format: Format, json: &str) -> Result<Vec<u8>, Misfit> {
        let raw = Scanner::new(json.as_bytes()).value().expect("JSON");
        let mut buffer = b"earlier".to_vec();
        let result = format.encode(raw, &mut buffer);
        assert!(buffer.starts_with(b"earlier"));
        Ok(result?.bytes(&buffer).to_vec())
    }

    fn write(format: Format, bytes: &[u8]) -> Result<String, Misfit> {
        let mut out = BytesMut::new();
        let result = format.write(bytes, &mut out);
        if result.is_err() {
            assert!(out.is_empty(), "nothing of what does not fit");
        }
        result.map(|()| String::from_utf8(out.to_vec()).expect("UTF-8"))
    }

    #[test]
    fn names_are_read_in_any_case() {
        for name in [
            "json",
            "string",
            "avro",
            "protobuf",
            "bytearray",
            "int",
            "short",
            "long",
            "float",
            "double",
        ] {
            let format: Format = name.parse().expect(name);
            assert_eq!(format.name(), name);
            assert_eq!(name.to_uppercase().parse(), Ok(format));
        }
        assert_eq!("byte_array".parse(), Ok(Format::ByteArray));
        for name in ["", "text", "int ", "byte-array"] {
            assert_eq!(name.parse::<Format>(), Err(UnknownFormat(name.into())));
        }
        let error = "yaml".parse::<Format>().unwrap_err().to_string();
        assert!(
            error.contains("\"yaml\"") && error.contains("bytearray"),
            "{error}"
        );
    }

    #[test]
    fn json_text_passes_unchanged_both_ways() {
        for text in [
            "{\n  \"b\" : 1.0000000000000000000001e+5, \"a\":[ ] }",
            "\"\\u00e9\\/\"",
            "1e999",
            "true",
            "null",
            "\"\\ud800\"",
        ] {
            assert_eq!(encode(Format::Json, text), Ok(text.into()));
            assert_eq!(write(Format::Json, text.as_bytes()), Ok(text.into()));
        }
        assert_eq!(write(Format::Json, b"\n [1]\r\n"), Ok("\n [1]\r\n".into()));
        assert!(matches!(write(Format::Json, b""), Err(Misfit::Json(_))));
        assert!(matches!(
            write(Format::Json, b"{'a':1}"),
            Err(Misfit::Json(_))
        ));
        assert!(matches!(write(Format::Json, b"1 2"), Err(Misfit::Json(_))));
        assert_eq!(write(Format::Json, b"\"\xff\""), Err(Misfit::Utf8));
        assert!(matches!(
            write(Format::Json, b"\xef\xbb\xbf1"),
            Err(Misfit::Json(_))
        ));
    }

    #[test]
    fn strings_are_their_utf8() {
        assert_eq!(encode(Format::String, r#""""#), Ok(vec![]));
        assert_eq!(
            encode(Format::String, r#""é\n\ud83d\ude00""#),
            Ok("é\n😀".into())
        );
        assert_eq!(
            encode(Format::String, r#""\ud83d""#),
            Err(Misfit::Surrogate)
        );
        for other in ["1", "true", "{}", "[]", "null"] {
            assert_eq!(
                encode(Format::String, other),
                Err(Misfit::Kind(Format::String))
            );
        }
        assert_eq!(
            write(Format::String, "a\"é\n".as_bytes()),
            Ok(r#""a\"é\n""#.into())
        );
        assert_eq!(write(Format::String, b"a\xff"), Err(Misfit::Utf8));
    }

    #[test]
    fn bytes_travel_as_base64() {
        for format in [Format::Avro, Format::Protobuf, Format::ByteArray] {
            for text in [
                r#""+/+/AA==""#,
                r#""+/+/AA""#,
                r#""-_-_AA==""#,
                r#""-_-_AA""#,
                r#""+\/+\/AA==""#,
                r#""\u002b/+/AA""#,
            ] {
                assert_eq!(
                    encode(format, text),
                    Ok(vec![0xfb, 0xff, 0xbf, 0]),
                    "{text}"
                );
            }
            assert_eq!(encode(format, r#""""#), Ok(vec![]));
            for text in [
                r#""a""#,
                r#""+_+_""#,
                r#""AAAA====""#,
                r#""A A A A""#,
                r#""é""#,
                r#""AAAA\n""#,
                r#""AB""#,
                r#""\ud800""#,
            ] {
                assert_eq!(encode(format, text), Err(Misfit::Base64(format)), "{text}");
            }
            assert_eq!(encode(format, "5"), Err(Misfit::Kind(format)));
            assert_eq!(
                write(format, &[0xfb, 0xff, 0xbf, 0]),
                Ok(r#""+/+/AA==""#.into())
            );
            assert_eq!(write(format, b""), Ok(r#""""#.into()));
        }
    }

    #[test]
    fn integers_are_big_endian_and_exact() {
        assert_eq!(encode(Format::Short, "-2"), Ok(vec![0xff, 0xfe]));
        assert_eq!(encode(Format::Int, "16909060"), Ok(vec![1, 2, 3, 4]));
        assert_eq!(encode(Format::Long, "-1"), Ok(vec![0xff; 8]));
        assert_eq!(encode(Format::Int, "-0"), Ok(vec![0; 4]));
        for (format, least, most, below, above) in [
            (Format::Short, "-32768", "32767", "-32769", "32768"),
            (
                Format::Int,
                "-2147483648",
                "2147483647",
                "-2147483649",
                "2147483648",
            ),
            (
                Format::Long,
                "-9223372036854775808",
                "9223372036854775807",
                "-9223372036854775809",
                "9223372036854775808",
            ),
        ] {
            for text in [least, most, "0"] {
                let bytes = encode(format, text).expect(text);
                assert_eq!(bytes.len(), format.size());
                assert_eq!(write(format, &bytes).as_deref(), Ok(text));
            }
            for text in [below, above, "100000000000000000000000000"] {
                assert_eq!(encode(format, text), Err(Misfit::Range(format)), "{text}");
            }
            for text in ["1.0", "1e2", "1E2", "\"1\"", "true", "null", "[1]"] {
                assert_eq!(encode(format, text), Err(Misfit::Kind(format)), "{text}");
            }
            for len in [0, 1, 3, 5, 7, 9] {
                assert_eq!(
                    write(format, &vec![0; len]),
                    Err(Misfit::Length(format, len))
                );
            }
        }
    }

    #[test]
    fn floating_numbers_are_rounded_once_and_to_the_nearest() {
        assert_eq!(encode(Format::Float, "1"), Ok(vec![0x3f, 0x80, 0, 0]));
        assert_eq!(
            encode(Format::Double, "1.5e0"),
            Ok(vec![0x3f, 0xf8, 0, 0, 0, 0, 0, 0])
        );
        assert_eq!(encode(Format::Float, "-0.0"), Ok(vec![0x80, 0, 0, 0]));
        assert_eq!(
            encode(Format::Double, "-0"),
            Ok(vec![0x80, 0, 0, 0, 0, 0, 0, 0])
        );
        // Just over the middle between 1 and the next float: by way of a double it would
        // be the middle itself, and go down to 1.
        assert_eq!(
            encode(Format::Float, "1.0000000596046447753906250000001"),
            Ok(vec![0x3f, 0x80, 0, 1])
        );
        assert_eq!(encode(Format::Float, "1e-50"), Ok(vec![0; 4]));
        assert_eq!(
            encode(Format::Float, "3.4028235e38"),
            Ok(f32::MAX.to_be_bytes().to_vec())
        );
        for (format, text) in [
            (Format::Float, "3.5e38"),
            (Format::Float, "-1e39"),
            (Format::Double, "1e309"),
            (Format::Double, "-1e999999999999"),
        ] {
            assert_eq!(encode(format, text), Err(Misfit::Range(format)), "{text}");
        }
        for format in [Format::Float, Format::Double] {
            for text in ["\"1\"", "\"nan\"", "\"+Infinity\"", "\"\"", "null", "true"] {
                assert_eq!(encode(format, text), Err(Misfit::Kind(format)), "{text}");
            }
        }
    }

    #[test]
    fn numbers_without_a_literal_travel_as_strings_in_javas_bits() {
        for (text, float, double) in [
            ("\"NaN\"", 0x7fc00000u32, 0x7ff8000000000000u64),
            ("\"Infinity\"", 0x7f800000, 0x7ff0000000000000),
            ("\"-Infinity\"", 0xff800000, 0xfff0000000000000),
        ] {
            assert_eq!(
                encode(Format::Float, text),
                Ok(float.to_be_bytes().to_vec())
            );
            assert_eq!(
                encode(Format::Double, text),
                Ok(double.to_be_bytes().to_vec())
            );
            assert_eq!(
                write(Format::Float, &float.to_be_bytes()).as_deref(),
                Ok(text)
            );
            assert_eq!(
                write(Format::Double, &double.to_be_bytes()).as_deref(),
                Ok(text)
            );
        }
        assert_eq!(
            write(Format::Float, &[0xff, 0xff, 0xff, 0xff]).as_deref(),
            Ok("\"NaN\"")
        );
    }

    #[test]
    fn floats_are_written_as_short_as_reads_back() {
        for (number, text) in [
            (0.1f32, "0.1"),
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (16777216.0, "16777216.0"),
        ] {
            assert_eq!(
                write(Format::Float, &number.to_be_bytes()).as_deref(),
                Ok(text)
            );
            let wide: f64 = text.parse().expect("a number");
            assert_eq!(
                write(Format::Double, &wide.to_be_bytes()).as_deref(),
                Ok(text)
            );
        }
        for number in [f64::MAX, f64::MIN_POSITIVE, 5e-324, 1e300] {
            let text = write(Format::Double, &number.to_be_bytes()).expect("finite");
            assert!(text.len() < 25, "{text}");
            assert_eq!(text.parse(), Ok(number));
        }
    }

    proptest! {
        #[test]
        fn floats_read_back_to_the_same_bits(bits: u32) {
            let number = f32::from_bits(bits);
            prop_assume!(!number.is_nan());
            let text = write(Format::Float, &bits.to_be_bytes()).expect("four bytes");
            prop_assert_eq!(encode(Format::Float, &text), Ok(bits.to_be_bytes().to_vec()));
        }

        #[test]
        fn doubles_read_back_to_the_same_bits(bits: u64) {
            let number = f64::from_bits(bits);
            prop_assume!(!number.is_nan());
            let text = write(Format::Double, &bits.to_be_bytes()).expect("eight bytes");
            prop_assert_eq!(encode(Format::Double, &text), Ok(bits.to_be_bytes().to_vec()));
        }

        #[test]
        fn bytes_and_integers_read_back(bytes in prop::collection::vec(any::<u8>(), 0..40), long: i64) {
            let text = write(Format::ByteArray, &bytes).expect("any bytes");
            prop_assert_eq!(encode(Format::ByteArray, &text), Ok(bytes));
            let text = write(Format::Long, &long.to_be_bytes()).expect("eight bytes");
            prop_assert_eq!(&text, &long.to_string());
            prop_assert_eq!(encode(Format::Long, &text), Ok(long.to_be_bytes().to_vec()));
        }

        #[test]
        fn any_bytes_are_refused_or_written_as_json(
            bytes in prop::collection::vec(any::<u8>(), 0..12),
            format in prop::sample::select(vec![
                Format::Json, Format::String, Format::Avro, Format::Int, Format::Short,
                Format::Long, Format::Float, Format::Double,
            ]),
        ) {
            if let Ok(text) = write(format, &bytes) {
                prop_assert!(json::check(text.as_bytes()).is_ok(), "{}", text);
            }
        }
    }
}
