//! Every format at its extremes, as a key and as a value: the bytes that we write are those of
//! Apache Kafka's serializers, and what we show of such bytes is what these make them of.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::kafka::java_fed;
use crate::support::proxy::Proxy;
use crate::support::ws_client::WsClient;
use memory_broker::BrokerConfig;

const MIB: usize = 1 << 20;

/// A value in JSON, and the literal that Java is given for it; for bytes, these.
struct FormatCase {
    format: &'static str,
    json: String,
    java: Vec<u8>,
}

fn number(format: &'static str, literals: &[&str]) -> Vec<FormatCase> {
    let case = |literal: &&str| FormatCase {
        format,
        json: (*literal).to_owned(),
        java: literal.trim_matches('"').into(),
    };
    literals.iter().map(case).collect()
}

fn text(json: impl Into<String>) -> FormatCase {
    let json = json.into();
    let text: String = serde_json::from_str(&json).expect("a string");
    FormatCase {
        format: "string",
        json,
        java: text.into(),
    }
}

fn bytes(format: &'static str, bytes: Vec<u8>) -> FormatCase {
    FormatCase {
        format,
        json: json!(STANDARD.encode(&bytes)).to_string(),
        java: bytes,
    }
}

fn numbers() -> Vec<FormatCase> {
    const NOT_FINITE: [&str; 3] = [r#""NaN""#, r#""Infinity""#, r#""-Infinity""#];
    let numbers = [
        number("short", &["0", "-0", "1", "-1", "256", "-32768", "32767"]),
        number("int", &["0", "-1", "65536", "-2147483648", "2147483647"]),
        number(
            "long",
            &[
                "0",
                "-1",
                "9007199254740993",
                "-9223372036854775808",
                "9223372036854775807",
            ],
        ),
        number("float", &NOT_FINITE),
        number("double", &NOT_FINITE),
        number(
            "float",
            &[
                "0",
                "-0",
                "-0.0",
                "0.1",
                "1e0",
                "16777217",
                "16777219",
                "1.4e-45",
                "-1.4e-45",
                "1.1754942e-38",
                "1.17549435E-38",
                "3.4028235e38",
                "-3.4028235e38",
                // Rounds to the largest, to the even neighbour, and to nothing.
                "3.40282356779733e38",
                "1.00000005960464477540",
                "1e-46",
            ],
        ),
        number(
            "double",
            &[
                "0",
                "-0.0",
                "0.1",
                "9007199254740993",
                "5e-324",
                "-4.9E-324",
                "2.225073858507201e-308",
                "2.2250738585072014e-308",
                "1.7976931348623157e308",
                "-1.7976931348623157e308",
                "2.4703282292062328e-324",
                "1e-400",
            ],
        ),
    ];
    numbers.into_iter().flatten().collect()
}

fn cases() -> Vec<FormatCase> {
    let mut cases = numbers();
    for json in [
        r#""""#,
        r#""a""#,
        r#""\u0000""#,
        r#""\"\\\/\b\f\n\r\t""#,
        r#""grüße 漢字""#,
        r#""🎈""#,
        r#""\ud83c\udf88""#,
        r#""\uD800\uDC00\udbff\udfff""#,
        r#""\uffff\ufeff""#,
        "\"\u{7f}\u{85}\u{2028}e\u{301}\"",
    ] {
        cases.push(text(json));
    }
    cases.push(text(json!("x".repeat(MIB)).to_string()));
    cases.push(text(json!("🎈".repeat(MIB / 4)).to_string()));
    for json in [
        "true",
        "0.10",
        "1E400",
        "[]",
        r#"{"a" : [1,  2.50, "\u00e9\ud83c\udf88"]}"#,
    ] {
        cases.push(FormatCase {
            format: "json",
            json: json.to_owned(),
            java: json.into(),
        });
    }
    let long = format!(r#"["{}"]"#, "y".repeat(MIB));
    cases.push(FormatCase {
        format: "json",
        java: long.clone().into(),
        json: long,
    });
    for format in ["bytearray", "byte_array", "avro", "protobuf"] {
        cases.push(bytes(format, Vec::new()));
        cases.push(bytes(format, (0..=255).collect()));
    }
    cases.push(bytes("bytearray", vec![0xff; MIB]));
    // Unpadded, and of the alphabet for URLs.
    for json in [r#""-_8""#, r#""+/8""#, r#""-_8=""#] {
        cases.push(FormatCase {
            format: "bytearray",
            json: json.to_owned(),
            java: vec![0xfb, 0xff],
        });
    }
    cases
}

/// What Java's serializers make of these literals.
fn serialized<'a>(literals: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<Vec<u8>> {
    let lines =
        literals.map(|(format, literal)| format!("{format} {}\n", STANDARD.encode(literal)));
    let input: String = lines.collect();
    let output = java_fed("Serialize.java", &input);
    let decode = |line: &str| STANDARD.decode(line).expect("base64");
    output.lines().map(decode).collect()
}

async fn proxy_for_large_values() -> Proxy {
    let brokers = BrokerConfig {
        message_max_bytes: 8 * MIB,
        request_max_bytes: 16 * MIB,
        initial_rebalance_delay: Duration::ZERO,
        ..BrokerConfig::default()
    };
    let proxy = Proxy::with_broker(brokers, |config| {
        config.server.websocket.max_message_size = 8 * MIB;
        config.producer.max_request_size = 8 * MIB;
    })
    .await;
    proxy.topic("t", 1);
    proxy
}

/// The next record, its key's and its value's text in JSON.
async fn next_texts(socket: &mut WsClient) -> [String; 2] {
    let Some(Message::Text(record)) = socket.next_message().await else {
        panic!("a record was expected");
    };
    let record: BTreeMap<&str, &RawValue> = serde_json::from_str(&record).expect("an object");
    ["key", "value"].map(|part| {
        let part = record[part].get();
        let fields: BTreeMap<&str, &RawValue> = serde_json::from_str(part).expect("an object");
        assert!(!fields.contains_key("error"), "{part}");
        fields["value"].get().to_owned()
    })
}

fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

#[tokio::test]
async fn what_we_write_in_each_format_is_what_javas_serializers_write() {
    let proxy = proxy_for_large_values().await;
    let cases = cases();
    let expected = serialized(cases.iter().map(|case| (case.format, &*case.java)));
    assert_eq!(expected.len(), cases.len());
    let path = "/socket/out?topic=t&clientId=a&keyType=bytearray&valType=bytearray";
    let mut reader = proxy.connect(path).await;
    for (case, expected) in cases.iter().zip(&expected) {
        let FormatCase { format, json, .. } = case;
        let path = format!("/socket/in?topic=t&keyType={format}&valType={format}");
        let mut producer = proxy.connect(&path).await;
        let record = format!(r#"{{"key":{{"value":{json}}},"value":{{"value":{json}}}}}"#);
        let answer = producer.ask(record).await;
        assert!(
            answer["offset"].is_i64(),
            "{format} {}: {answer}",
            shown(json)
        );
        for got in next_texts(&mut reader).await {
            let got: String = serde_json::from_str(&got).expect("a string");
            let got = STANDARD.decode(got).expect("base64");
            assert!(got == *expected, "{format} {}: {got:?}", shown(json));
        }
        producer.close().await;
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn what_we_show_of_javas_bytes_is_what_its_serializers_make_these_bytes_of() {
    let proxy = proxy_for_large_values().await;
    let cases = cases();
    let bytes = serialized(cases.iter().map(|case| (case.format, &*case.java)));
    let path = "/socket/in?topic=t&keyType=bytearray&valType=bytearray";
    let mut producer = proxy.connect(path).await;
    let mut shown_as = Vec::new();
    for (offset, (case, bytes)) in cases.iter().zip(&bytes).enumerate() {
        let part = json!({"value": STANDARD.encode(bytes)});
        let record = json!({"key": part, "value": part}).to_string();
        assert_eq!(producer.ask(record).await["offset"], offset);
        // One group reads all, each record in its format.
        let format = case.format;
        let path = format!("/socket/out?topic=t&clientId=a&keyType={format}&valType={format}");
        let mut reader = proxy.connect(&path).await;
        let [key, value] = next_texts(&mut reader).await;
        assert_eq!(key, value, "{format}");
        shown_as.push(value);
        reader.close().await;
    }
    let literals: Vec<Vec<u8>> = cases
        .iter()
        .zip(&shown_as)
        .map(|(case, json)| literal(case.format, json))
        .collect();
    let formats = cases.iter().map(|case| case.format);
    let again = serialized(formats.zip(literals.iter().map(Vec::as_slice)));
    for ((case, json), (expected, got)) in cases.iter().zip(&shown_as).zip(bytes.iter().zip(&again))
    {
        assert!(got == expected, "{} {}", case.format, shown(json));
    }
    proxy.stopped().await;
}

/// The literal that Java is given for what we show.
fn literal(format: &str, json: &str) -> Vec<u8> {
    match serde_json::from_str(json) {
        Ok(Value::String(text)) if format == "string" => text.into(),
        Ok(Value::String(text)) if ["float", "double"].contains(&format) => text.into(),
        Ok(Value::String(text)) if format != "json" => STANDARD.decode(text).expect("base64"),
        _ => json.into(),
    }
}
