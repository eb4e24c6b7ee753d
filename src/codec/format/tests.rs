//! The table of formats, row by row and both ways.

use super::*;
use crate::codec::json::JsonScanner;
use proptest::prelude::*;

fn encode(format: Format, json: &str) -> Result<Vec<u8>, FormatError> {
    let raw = JsonScanner::new(json.as_bytes()).value().expect("JSON");
    let mut buffer = b"earlier".to_vec();
    let result = format.encode(raw, &mut buffer);
    assert!(buffer.starts_with(b"earlier"));
    Ok(result?.bytes(&buffer).to_vec())
}

fn write(format: Format, bytes: &[u8]) -> Result<String, FormatError> {
    let mut out = BytesMut::new();
    let result = format.decode_to_json(bytes, &mut out);
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
    assert!(matches!(
        write(Format::Json, b""),
        Err(FormatError::InvalidJson(_))
    ));
    assert!(matches!(
        write(Format::Json, b"{'a':1}"),
        Err(FormatError::InvalidJson(_))
    ));
    assert!(matches!(
        write(Format::Json, b"1 2"),
        Err(FormatError::InvalidJson(_))
    ));
    assert_eq!(write(Format::Json, b"\"\xff\""), Err(FormatError::NotUtf8));
    assert!(matches!(
        write(Format::Json, b"\xef\xbb\xbf1"),
        Err(FormatError::InvalidJson(_))
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
        Err(FormatError::LoneSurrogate)
    );
    for other in ["1", "true", "{}", "[]", "null"] {
        assert_eq!(
            encode(Format::String, other),
            Err(FormatError::WrongType(Format::String))
        );
    }
    assert_eq!(
        write(Format::String, "a\"é\n".as_bytes()),
        Ok(r#""a\"é\n""#.into())
    );
    assert_eq!(write(Format::String, b"a\xff"), Err(FormatError::NotUtf8));
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
        // Bits that no byte is made of are not looked at, as Java does it.
        assert_eq!(encode(format, r#""AB==""#), Ok(vec![0]));
        assert_eq!(encode(format, r#""_-""#), Ok(vec![0xff]));
        for text in [
            r#""a""#,
            r#""+_+_""#,
            r#""AAAA====""#,
            r#""A A A A""#,
            r#""é""#,
            r#""AAAA\n""#,
            r#""\ud800""#,
        ] {
            assert_eq!(
                encode(format, text),
                Err(FormatError::Base64(format)),
                "{text}"
            );
        }
        assert_eq!(encode(format, "5"), Err(FormatError::WrongType(format)));
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
            assert_eq!(bytes.len(), format.fixed_size());
            assert_eq!(write(format, &bytes).as_deref(), Ok(text));
        }
        for text in [below, above, "100000000000000000000000000"] {
            assert_eq!(
                encode(format, text),
                Err(FormatError::OutOfRange(format)),
                "{text}"
            );
        }
        for text in ["1.0", "1e2", "1E2", "\"1\"", "true", "null", "[1]"] {
            assert_eq!(
                encode(format, text),
                Err(FormatError::WrongType(format)),
                "{text}"
            );
        }
        for len in [0, 1, 3, 5, 7, 9] {
            assert_eq!(
                write(format, &vec![0; len]),
                Err(FormatError::WrongLength(format, len))
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
        assert_eq!(
            encode(format, text),
            Err(FormatError::OutOfRange(format)),
            "{text}"
        );
    }
    for format in [Format::Float, Format::Double] {
        for text in ["\"1\"", "\"nan\"", "\"+Infinity\"", "\"\"", "null", "true"] {
            assert_eq!(
                encode(format, text),
                Err(FormatError::WrongType(format)),
                "{text}"
            );
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
            prop_assert!(json::validate(text.as_bytes()).is_ok(), "{}", text);
        }
    }
}
