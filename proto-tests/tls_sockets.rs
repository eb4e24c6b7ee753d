//! Sockets over TLS: records both ways, and what counts as delivered.

use std::io::{ErrorKind, Read};
use std::process::Command;
use std::time::{Duration, Instant};

use kafka_client::TopicPartition;
use rustls::ClientConnection;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::block_in_place;
use tokio::time::timeout;

use crate::support::kafka::root;
use crate::support::program::Program;
use crate::support::proxy::Proxy;
use crate::support::tls::{client_of, golden, server_tls, tls_flags};
use crate::support::ws_client::WsClient;
use crate::support::{PATIENCE, until};

async fn proxy() -> Proxy {
    let proxy = Proxy::with(|config| config.server.tls = Some(server_tls(false))).await;
    proxy.topic("t", 1);
    proxy
}

#[tokio::test]
async fn records_of_any_size_go_both_ways_by_each_version_of_tls() {
    let proxy = proxy().await;
    let versions = [
        &[&rustls::version::TLS12][..],
        &[&rustls::version::TLS13][..],
    ];
    for (number, version) in versions.into_iter().enumerate() {
        let config = client_of(version, None);
        let open = async |path: &str| {
            let opened = WsClient::connect_tls(&proxy.tls_address, path, &config).await;
            opened.expect("it is let in")
        };
        let mut producer = open("/socket/in?topic=t").await;
        let path = format!("/socket/out?topic=t&clientId=c{number}");
        let mut consumer = open(&path).await;
        // Within one record of TLS, of its size, and over many.
        for (n, len) in [0, 1, 5_000, 16_380, 16_384, 40_000, 900_000]
            .into_iter()
            .enumerate()
        {
            let value = "x".repeat(len);
            let record = json!({"value": {"value": value}}).to_string();
            assert_eq!(producer.ask(record).await["offset"], number * 7 + n);
        }
        let lengths: Vec<_> = consumer
            .records(7 * (number + 1))
            .await
            .iter()
            .map(|record| record["value"]["value"].as_str().unwrap().len())
            .collect();
        assert!(lengths.ends_with(&[0, 1, 5_000, 16_380, 16_384, 40_000, 900_000]));
        producer.close().await;
        consumer.close().await;
    }
    proxy.stopped().await;
}

/// A short text frame, masked with zeros.
fn frame(text: &str) -> Vec<u8> {
    let len = u8::try_from(text.len()).unwrap();
    assert!(len < 126);
    let mut frame = vec![0x81, 0x80 | len, 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

const RECORD: &str = r#"{"value":{"value":"x"}}"#;

#[tokio::test]
async fn new_keys_are_taken_and_answered() {
    let proxy = proxy().await;
    let socket = proxy.connect_tls("/socket/in?topic=t").await;
    let mut stream = socket.into_tls();
    for offset in 0..3 {
        // The next answer comes under the server's new keys.
        stream.get_mut().1.refresh_traffic_keys().unwrap();
        stream.write_all(&frame(RECORD)).await.unwrap();
        let mut answer = [0; 2];
        timeout(PATIENCE, stream.read_exact(&mut answer))
            .await
            .unwrap()
            .unwrap();
        let mut text = vec![0; usize::from(answer[1])];
        stream.read_exact(&mut text).await.unwrap();
        let answer: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(answer["offset"], offset);
    }
    drop(stream);
    proxy.stopped().await;
}

#[tokio::test]
async fn a_client_that_ends_tls_and_not_the_connection_gets_its_answers_and_an_end() {
    let proxy = proxy().await;
    for path in ["/socket/in?topic=t", "/socket/out?topic=t&clientId=a"] {
        let mut stream = proxy.connect_tls(path).await.into_tls();
        if path.contains("in") {
            stream.write_all(&frame(RECORD)).await.unwrap();
        }
        stream.get_mut().1.send_close_notify();
        stream.flush().await.unwrap();
        let mut rest = Vec::new();
        // rustls has an end without the alert for an error.
        timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .expect("an end")
            .unwrap();
        let text = String::from_utf8_lossy(&rest);
        assert_eq!(text.contains("\"offset\":0"), path.contains("in"), "{text}");
        assert!(rest.ends_with(&[0x88, 0]), "a close frame: {rest:?}");
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn what_is_no_tls_any_more_ends_the_socket() {
    let proxy = proxy().await;
    let socket = proxy.connect_tls("/socket/in?topic=t").await;
    let (mut tcp, _) = socket.into_tls().into_inner();
    tcp.write_all(&frame(RECORD)).await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, tcp.read_to_end(&mut rest))
        .await
        .expect("an end");
    until("nothing of it is left", || {
        proxy.app.held_resources().sockets == 0
    })
    .await;
    proxy.stopped().await;
}

/// More than the kernel takes for a client that reads nothing.
const RECORDS: usize = 16_000;
const RECORD_BYTES: usize = 1_000;

async fn fill(proxy: &Proxy) {
    let mut producer = proxy.connect("/socket/in?topic=t").await;
    let record = json!({"value": {"value": "x".repeat(RECORD_BYTES)}});
    let frame = Value::Array(vec![record; 800]).to_string();
    for _ in 0..RECORDS / 800 {
        let answers = producer.ask(frame.as_str()).await;
        assert_eq!(answers.as_array().unwrap().len(), 800);
    }
    producer.close().await;
}

/// What a client has decrypted, of which nothing more is sent than the kernel has.
struct StalledClient {
    tcp: TcpStream,
    tls: ClientConnection,
    received: Vec<u8>,
}

impl StalledClient {
    /// Reads what is there.
    fn read(&mut self) {
        let mut encrypted = vec![0; 1 << 20];
        loop {
            let read = match self.tcp.try_read(&mut encrypted) {
                Ok(read) => read,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    return;
                }
            };
            let mut rest = &encrypted[..read];
            while !rest.is_empty() {
                self.tls.read_tls(&mut rest).unwrap();
                self.tls.process_new_packets().unwrap();
                let mut part = vec![0; 64 << 10];
                while let Ok(len) = self.tls.reader().read(&mut part) {
                    self.received.extend_from_slice(&part[..len]);
                }
            }
        }
    }

    /// The records that have come whole.
    fn records(&self) -> usize {
        let (mut rest, mut records) = (&self.received[..], 0);
        while let [first, len, ..] = rest {
            let (head, len) = match (*len, rest) {
                (126, [_, _, a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
                (126 | 127, _) => break,
                (len, _) => (2, usize::from(len)),
            };
            let Some(payload) = rest.get(head..head + len) else {
                break;
            };
            if *first == 0x81 {
                let value: Value = serde_json::from_slice(payload).unwrap();
                records += value.as_array().map_or(1, Vec::len);
            }
            rest = &rest[head + len..];
        }
        records
    }
}

/// One thread serves and reads: while it reads, nothing more is written.
#[tokio::test]
async fn what_is_committed_for_a_client_that_stopped_reading_is_with_the_kernel() {
    let proxy = proxy().await;
    fill(&proxy).await;
    for (group, more) in [("single", ""), ("arrays", "&batchSize=7")] {
        let path = format!("/socket/out?topic=t&clientId=a&groupId={group}{more}");
        let (tcp, tls) = proxy.connect_tls(&path).await.into_tls().into_inner();
        let mut client = StalledClient {
            tcp,
            tls,
            received: Vec::new(),
        };
        let tp = TopicPartition::new("t", 0);
        let committed = || proxy.broker.committed(group, &tp).unwrap_or_default() as usize;
        until("something is committed", || committed() > 0).await;
        // By a clock that moves only while nobody here has anything to do: then nothing more is
        // taken, and what was is committed.
        tokio::time::pause();
        tokio::time::sleep(Duration::from_secs(5)).await;
        tokio::time::resume();
        let committed = committed();
        assert!(committed < RECORDS, "the kernel takes all");
        let deadline = Instant::now() + PATIENCE / 4;
        while client.records() < committed {
            assert!(
                Instant::now() < deadline,
                "{} of {committed}",
                client.records()
            );
            // The kernel moves on what it has.
            std::thread::sleep(Duration::from_millis(5));
            client.read();
        }
        drop(client);
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn a_client_that_reads_again_gets_every_record_once() {
    let proxy = proxy().await;
    fill(&proxy).await;
    let mut consumer = proxy.connect_tls("/socket/out?topic=t&clientId=a").await;
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(20)).await;
    tokio::time::resume();
    for offset in 0..RECORDS {
        assert_eq!(consumer.next().await["offset"], offset);
    }
    consumer.close().await;
    proxy.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn javas_own_client_produces_and_consumes_by_wss() {
    let flags = tls_flags("server.p12");
    let mut arguments: Vec<_> = flags.iter().map(String::as_str).collect();
    arguments.extend(["--ssl-keystore-password", "storepass", "--dev"]);
    let program = Program::start(&arguments);
    let address = program.address();
    let out = block_in_place(|| {
        Command::new("java")
            .args(["-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .arg(root().join("proto-tests/java/WebSockets.java"))
            .arg(golden("trust.p12"))
            .arg(format!("wss://{address}"))
            .output()
            .expect("java is needed")
    });
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    let printed = String::from_utf8(out.stdout).unwrap();
    let lines: Vec<Value> = printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["offset"], 0, "{printed}");
    assert_eq!(lines[1]["value"]["value"], "from Java", "{printed}");
}
