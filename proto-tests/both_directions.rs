//! What we write, Apache Kafka's client and librdkafka read byte for byte, and the other way.

use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::support::kafka::{Kafka, unique};
use crate::support::program::Program;
use crate::support::until_asked;
use crate::support::ws_client::WsClient;

struct ProxiedTopic {
    kafka: Arc<Kafka>,
    proxy: Program,
    topic: String,
}

/// A proxy in front of the shared cluster, and a topic of the test's own.
fn proxied_topic(version: &str, args: &[&str]) -> ProxiedTopic {
    block_in_place(|| {
        let kafka = Kafka::shared(version, 1);
        let topic = unique("both");
        kafka.create_topic(&topic, 1, 1);
        let proxy = Program::for_cluster(kafka.bootstrap(), args);
        ProxiedTopic {
            kafka,
            proxy,
            topic,
        }
    })
}

impl ProxiedTopic {
    async fn producer(&self, query: &str) -> WsClient {
        let path = format!("/socket/in?topic={}{query}", self.topic);
        self.proxy.connect(&path).await
    }

    async fn consumer(&self, query: &str) -> WsClient {
        let client = unique("c");
        let path = format!("/socket/out?topic={}&clientId={client}{query}", self.topic);
        self.proxy.connect(&path).await
    }

    /// Lines of `Records.java dump`, split at tabs.
    fn dump(&self, count: usize) -> Vec<Vec<String>> {
        let out = self.java("dump", &[&count.to_string()]);
        out.lines()
            .map(|l| l.split('\t').map(str::to_owned).collect())
            .collect()
    }

    fn java(&self, what: &str, args: &[&str]) -> String {
        let all = [&[what, &self.topic], args].concat();
        block_in_place(|| self.kafka.java("Records.java", &all))
    }

    fn put(&self, codec: &str, lines: &str) {
        block_in_place(|| {
            let mut command = self
                .kafka
                .java_command("Records.java", &["put", &self.topic, codec]);
            let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
            child
                .stdin
                .take()
                .unwrap()
                .write_all(lines.as_bytes())
                .unwrap();
            assert!(child.wait().unwrap().success());
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_part_of_a_record_reaches_javas_client_unchanged() {
    let proxied = proxied_topic("4.4", &[]);
    let mut socket = proxied.producer("").await;
    let answer = socket
        .ask(
            r#"{"key":{"value":"k1","format":"string"},"value":{"value":"grüße 🎈","format":"string"},
                "headers":[{"key":"h","value":"1"},{"key":"h","value":"2"},{"key":"n","value":null},
                           {"key":"b","value":"/w==","format":"bytearray"}],
                "timestamp":1700000000123,"messageId":"m"}"#,
        )
        .await;
    assert_eq!(
        answer,
        json!({"topic": proxied.topic, "partition": 0, "offset": 0, "timestamp": 1_700_000_000_123_i64, "messageId": "m"})
    );
    let others = [
        r#"{"key":{"value":"k1","format":"string"},"value":null}"#,
        r#"{"key":null,"value":{"value":null}}"#,
        r#"{"value":{"value": { "a" : [1,  2] } ,"format":"json"}}"#,
    ];
    for (offset, record) in (1..).zip(others) {
        let answer = socket.ask(record).await;
        assert_eq!(answer["offset"], offset, "{answer}");
    }
    let lines = proxied.dump(4);
    assert_eq!(
        lines[0],
        [
            "0",
            "0",
            "1700000000123",
            "azE=",
            "Z3LDvMOfZSDwn46I",
            "h",
            "MQ==",
            "h",
            "Mg==",
            "n",
            "-",
            "b",
            "/w=="
        ]
    );
    assert_eq!(lines[1][3..], ["azE=", "-"]);
    assert_eq!(lines[2][3..], ["-", "-"]);
    // The text of a JSON value passes through as it was written.
    assert_eq!(lines[3][3..], ["-", "eyAiYSIgOiBbMSwgIDJdIH0="]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_is_what_javas_deserializer_of_that_name_expects() {
    for (format, literals) in FORMATS {
        let proxied = proxied_topic("4.4", &[]);
        let mut socket = proxied.producer(&format!("&valType={format}")).await;
        for literal in *literals {
            let answer = socket
                .ask(format!(r#"{{"value":{{"value":{literal}}}}}"#))
                .await;
            assert!(
                answer.get("error").is_none(),
                "{format} {literal}: {answer}"
            );
        }
        let read = proxied.java("read", &[&literals.len().to_string(), format]);
        for (line, literal) in read.lines().zip(*literals) {
            let wanted = literal.trim_matches('"');
            match *format {
                "float" => assert_eq!(
                    line.parse::<f32>().unwrap().to_bits(),
                    wanted.parse::<f32>().unwrap().to_bits()
                ),
                "double" => assert_eq!(
                    line.parse::<f64>().unwrap().to_bits(),
                    wanted.parse::<f64>().unwrap().to_bits()
                ),
                _ => assert_eq!(line, wanted),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_that_javas_serializers_write_comes_out_as_json() {
    for (format, literals) in FORMATS {
        let proxied = proxied_topic("4.4", &[]);
        let values: Vec<&str> = literals.iter().map(|l| l.trim_matches('"')).collect();
        proxied.java("write", &[&[*format], &values[..]].concat());
        let mut socket = proxied.consumer(&format!("&valType={format}")).await;
        for literal in *literals {
            let message = socket.next().await;
            assert_eq!(message["value"]["format"], *format);
            let wanted: Value = serde_json::from_str(literal).unwrap();
            match (&message["value"]["value"], *format) {
                (got, "float") if got.is_number() => {
                    assert_eq!(
                        got.as_f64().unwrap() as f32,
                        wanted.as_f64().unwrap() as f32
                    );
                }
                (got, "double") if got.is_number() => assert_eq!(got.as_f64(), wanted.as_f64()),
                (got, _) => assert_eq!(*got, wanted),
            }
        }
    }
}

const FORMATS: &[(&str, &[&str])] = &[
    ("string", &[r#""""#, r#""text""#, r#""grüße""#]),
    ("short", &["0", "-32768", "32767"]),
    ("int", &["0", "-2147483648", "2147483647"]),
    (
        "long",
        &["0", "-9223372036854775808", "9223372036854775807"],
    ),
    (
        "float",
        &[
            "0.1",
            "-3.4028235e38",
            "1e-45",
            r#""NaN""#,
            r#""-Infinity""#,
        ],
    ),
    (
        "double",
        &["0.1", "1.7976931348623157e308", "5e-324", r#""Infinity""#],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn librdkafka_reads_every_codec_that_we_write() {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let setting = format!("producer.kafka-client-properties.compression.type={codec}");
        let proxied = proxied_topic("4.4", &["-D", &setting]);
        let mut socket = proxied.producer("").await;
        let records: Vec<Value> = (0..500)
            .map(|i| json!({"value": {"value": format!("{i} {}", "compressible ".repeat(20))}}))
            .collect();
        let answers = socket.ask(Value::from(records).to_string()).await;
        assert_eq!(answers.as_array().unwrap().len(), 500);
        let args = [
            "-C",
            "-t",
            &proxied.topic,
            "-o",
            "beginning",
            "-e",
            "-f",
            "%s\n",
        ];
        let read = block_in_place(|| proxied.kafka.kcat(&args, b""));
        let read = String::from_utf8(read).unwrap();
        for (i, line) in read.lines().enumerate() {
            assert_eq!(line, format!("{i} {}", "compressible ".repeat(20)));
        }
        assert_eq!(read.lines().count(), 500, "{codec}");
        if codec != "none" {
            let size = block_in_place(|| log_bytes(&proxied));
            assert!(size < 50_000, "{codec}: {size} bytes in the log");
        }
    }
}

/// What the topic takes on the broker's disk.
fn log_bytes(proxied: &ProxiedTopic) -> u64 {
    let out = proxied.kafka.java("Topics.java", &["size", &proxied.topic]);
    out.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_codec_and_part_that_javas_client_writes_comes_out_unchanged() {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let proxied = proxied_topic("4.4", &[]);
        let mut lines = String::new();
        for i in 0..300 {
            lines += &format!(
                "0\t{}\tazE=\tYQ==\th\tMQ==\th\t-\n",
                1_700_000_000_000_i64 + i
            );
        }
        lines += "0\t1700000001000\t-\t-\n0\t1700000001001\t/w==\t/w==\n";
        proxied.put(codec, &lines);
        let mut socket = proxied.consumer("").await;
        for i in 0..300 {
            assert_eq!(
                socket.next().await,
                json!({
                    "wsProxyMessageId": format!("{}-0-{i}-{}", proxied.topic, 1_700_000_000_000_i64 + i),
                    "topic": proxied.topic, "partition": 0, "offset": i,
                    "timestamp": 1_700_000_000_000_i64 + i,
                    "headers": [{"key": "h", "value": "1"}, {"key": "h", "value": null}],
                    "key": {"value": "k1", "format": "string"},
                    "value": {"value": "a", "format": "string"}
                })
            );
        }
        let tombstone = socket.next().await;
        assert_eq!(tombstone["value"], json!({"value": null}));
        assert!(tombstone.get("key").is_none() && tombstone.get("headers").is_none());
        let poison = socket.next().await;
        assert_eq!(
            poison["key"],
            json!({"value": "/w==", "format": "bytearray"})
        );
        assert_eq!(poison["value"]["value"], "/w==");
        assert_eq!(poison["value"]["format"], "bytearray");
        assert!(poison["value"]["error"].is_string(), "{poison}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_supported_version_produces_consumes_commits_and_resumes() {
    for version in ["4.4", "3.9", "2.8"] {
        let proxied = proxied_topic(version, &[]);
        let group = unique("resumes");
        let mut producer = proxied.producer("").await;
        for i in 0..5 {
            let answer = producer
                .ask(format!(r#"{{"value":{{"value":"v{i}"}}}}"#))
                .await;
            assert_eq!(answer["offset"], i, "{version}: {answer}");
        }
        let query = format!("&groupId={group}&autoCommit=false");
        let mut first = proxied.consumer(&query).await;
        let mut messages = Vec::new();
        for i in 0..5 {
            let message = first.next().await;
            assert_eq!(message["value"]["value"], format!("v{i}"), "{version}");
            messages.push(message);
        }
        let id = &messages[2]["wsProxyMessageId"];
        first
            .send(json!({"wsProxyMessageId": id}).to_string())
            .await;
        // Closing waits for the commit.
        first.close().await;
        let mut second = proxied.consumer(&query).await;
        assert_eq!(second.next().await["offset"], 3, "{version}");
        second.close().await;

        let query = format!("&groupId={}&autoCommit=true", unique("auto"));
        let mut first = proxied.consumer(&query).await;
        for _ in 0..5 {
            first.next().await;
        }
        first.close().await;
        let mut second = proxied.consumer(&query).await;
        let answer = producer.ask(r#"{"value":{"value":"after"}}"#).await;
        assert_eq!(second.next().await["offset"], answer["offset"], "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_starts_before_its_brokers_serves_and_connects_when_they_come() {
    let kafka = block_in_place(|| Kafka::start("4.4", 1, &[]));
    let topic = unique("late");
    block_in_place(|| {
        kafka.create_topic(&topic, 1, 1);
        kafka.stop_broker(1);
    });
    let expose = ["--expose-broker-addresses", "true"];
    let proxy = Program::for_cluster(kafka.bootstrap(), &expose);
    // As soon as it has tried, it names the broker.
    let names_it = async || {
        let (status, body) = proxy.get("/ready").await;
        assert_eq!(status, 503, "{body}");
        body.contains(kafka.bootstrap())
    };
    until_asked("the broker is named", names_it).await;
    assert_eq!(proxy.get("/healthcheck").await.0, 200);
    let path = format!("/socket/in?topic={topic}");
    let refused = proxy.refused(&path).await;
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains_key("retry-after"));
    block_in_place(|| kafka.start_broker(1));
    proxy.ready().await;
    let answer = proxy
        .connect(&path)
        .await
        .ask(r#"{"value":{"value":"x"}}"#)
        .await;
    assert_eq!(answer["offset"], 0, "{answer}");
}
