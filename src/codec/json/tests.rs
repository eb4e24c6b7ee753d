//! What is JSON, and strings there and back; serde_json is the judge.

use super::*;
use bytes::BytesMut;
use proptest::prelude::*;
use serde::de::IgnoredAny;

fn content(text: &str) -> Result<String, LoneSurrogate> {
    let raw = JsonScanner::new(text.as_bytes()).value().expect("JSON");
    let mut buffer = Vec::new();
    let bytes = match raw.string_content(&mut buffer)? {
        StringContent::Borrowed(bytes) => bytes.to_vec(),
        StringContent::Appended => buffer,
    };
    Ok(String::from_utf8(bytes).expect("UTF-8"))
}

fn written(text: &str) -> String {
    let mut out = BytesMut::new();
    write_string(&mut out, text.as_bytes());
    String::from_utf8(out.to_vec()).expect("UTF-8")
}

#[test]
fn what_is_json_and_what_is_not() {
    for text in [
        "null",
        " true ",
        "false",
        "0",
        "-0",
        "-0.0",
        "12.50e+3",
        "1E-9",
        "\"\"",
        "[]",
        "{}",
        "[ ]",
        "{ }",
        "[1,[2,[]],{}]",
        r#"{"a":{"b":[null]},"":0}"#,
        "\t\r\n 1",
        r#""\"\\\/\b\f\n\r\t\u00e9\ud800""#,
        "\"\u{7f}\u{2028}é😀\"",
    ] {
        assert_eq!(validate(text.as_bytes()), Ok(()), "{text}");
    }
    for text in [
        "",
        " ",
        "nul",
        "nulll",
        "True",
        "01",
        "-",
        "+1",
        ".5",
        "1.",
        "1e",
        "1e+",
        "0x1",
        "1 2",
        "NaN",
        "Infinity",
        "\"",
        "\"\n\"",
        r#""\x""#,
        r#""\u12g4""#,
        r#""\u123"#,
        "'a'",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[",
        "]",
        "{",
        "}",
        "[}",
        "{]",
        "{1:2}",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        r#"{,"a":1}"#,
        r#"{"a":1 "b":2}"#,
        r#"{"a" 1}"#,
        "\u{feff}1",
        "// 1",
        "[1]]",
        "{}{}",
    ] {
        assert!(validate(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn nesting_ends_at_its_limit_and_never_recurses() {
    let nested = |depth| [vec![b'['; depth], vec![b']'; depth]].concat();
    assert_eq!(validate(&nested(DEPTH_MAX)), Ok(()));
    assert_eq!(
        validate(&nested(DEPTH_MAX + 1)),
        Err(JsonError {
            at: DEPTH_MAX,
            expected: "less nesting"
        })
    );
    assert!(validate(&vec![b'['; 1 << 20]).is_err());
    let mixed = [r#"{"a":["#.repeat(500), "]}".repeat(500)].concat();
    assert_eq!(validate(mixed.as_bytes()), Ok(()));
    let crossed = mixed.replacen("]}", "}]", 1);
    assert!(validate(crossed.as_bytes()).is_err());
}

#[test]
fn strings_are_unescaped() {
    assert_eq!(content(r#""plain é""#).as_deref(), Ok("plain é"));
    assert_eq!(
        content(r#""\"\\\/\b\f\n\r\t\u00E9\u0000 x""#).as_deref(),
        Ok("\"\\/\u{8}\u{c}\n\r\té\0 x")
    );
    assert_eq!(content(r#""\ud83D\uDe00!""#).as_deref(), Ok("😀!"));
    assert_eq!(
        content(r#""\uffff\ud7ff\ue000""#).as_deref(),
        Ok("\u{ffff}\u{d7ff}\u{e000}")
    );
    for lone in [
        r#""\ud83d""#,
        r#""\ude00""#,
        r#""\ud83d\ud83d""#,
        r#""\ud83dx""#,
        r#""\ud83d\n""#,
        r#""\ud83d\u0041""#,
        r#""\ude00\ud83d""#,
        r#""\ud83d\ue000""#,
        r#""\ud83d\udbff""#,
    ] {
        assert_eq!(content(lone), Err(LoneSurrogate), "{lone}");
    }
}

#[test]
fn every_special_byte_is_found_at_every_place() {
    for special in (0..=0x1Fu8).chain([b'"', b'\\']) {
        for at in 0..20 {
            let mut text = [b' '; 20];
            text[at] = special;
            assert_eq!(plain_prefix(&text), at, "{special:#x}");
        }
    }
    let plain: Vec<u8> = (0x20..=0xFF).filter(|b| !b"\"\\".contains(b)).collect();
    assert_eq!(plain_prefix(&plain), plain.len());
}

#[test]
fn only_what_must_be_is_escaped() {
    assert_eq!(written("a/é\u{7f}\u{2028}😀"), "\"a/é\u{7f}\u{2028}😀\"");
    assert_eq!(
        written("\"\\\n\r\t\u{8}\u{c}\u{0}\u{1f}"),
        r#""\"\\\n\r\t\b\f\u0000\u001f""#
    );
}

/// Texts that are JSON, or nearly.
fn nearly_json() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"\\u00e9\"",
        "1",
        "-1.5e3",
        "null",
        "true",
        " ",
        "\"",
        "\\",
        "0",
        "e",
        "{}",
        "[]",
        "\"k\":",
        "é",
        "\u{1}",
    ]);
    prop_oneof![
        prop::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat()),
        any::<String>(),
        any::<String>().prop_map(|text| serde_json::json!({ "x": [text] }).to_string()),
    ]
}

proptest! {
    #[test]
    fn the_scanner_takes_what_serde_json_takes(text in nearly_json()) {
        prop_assert_eq!(
            validate(text.as_bytes()).is_ok(),
            serde_json::from_str::<IgnoredAny>(&text).is_ok()
        );
    }

    #[test]
    fn a_written_string_reads_back(text: String) {
        let json = written(&text);
        prop_assert_eq!(&serde_json::from_str::<String>(&json).expect("JSON"), &text);
        prop_assert_eq!(content(&json), Ok(text));
    }

    #[test]
    fn unescaping_agrees_with_serde_json(pieces in prop::collection::vec(
        prop_oneof![
            any::<u16>().prop_map(|unit| format!("\\u{unit:04x}")),
            (0xD7F0u16..0xE010).prop_map(|unit| format!("\\u{unit:04X}")),
            prop::sample::select(vec!["\\n", "a", "é", "\\\\", "\\/"]).prop_map(String::from),
        ], 0..6))
    {
        let json = format!("\"{}\"", pieces.concat());
        prop_assert_eq!(content(&json).ok(), serde_json::from_str::<String>(&json).ok());
    }
}
