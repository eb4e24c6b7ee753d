//! What clients cost that mean harm: the largest input of each parser, by the byte, and two
//! thousand connections of each kind.

use std::time::{Duration, Instant};

use memory_broker::{BrokerConfig, MemoryBroker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Bench;
use crate::cpu::{Cpu, resident_kib};
use crate::load::open;
use crate::processes::ProxyProcess;

/// Connections of each kind.
const CONNECTIONS: usize = 2_000;
/// What a message may have.
const MESSAGE_BYTES: usize = 1 << 20;
/// Less than `server.limits.header-bytes-max`.
const HEAD_BYTES: usize = 30 << 10;

async fn broker() -> MemoryBroker {
    let broker = MemoryBroker::start(BrokerConfig::default()).await;
    let broker = broker.expect("a free port");
    broker.create_topic("t", 1);
    broker
}

/// A frame with this first byte, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = announced(first, payload.len());
    frame.extend_from_slice(payload);
    frame
}

/// The header of a frame that announces so many bytes.
fn announced(first: u8, len: usize) -> Vec<u8> {
    let mut frame = vec![first];
    match len {
        0..126 => frame.push(0x80 | len as u8),
        126..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame
}

/// `[element,element,…]` of so many bytes.
fn array(bytes: usize, element: &str) -> Vec<u8> {
    let count = (bytes - 2) / (element.len() + 1);
    format!("[{}]", vec![element; count].join(",")).into_bytes()
}

/// The cost of the largest input of each parser, in microseconds of the proxy per byte, and, in a
/// row before, of an eighth of it: a byte costs the same in both where the cost is linear.
pub(crate) async fn parsers(bench: &Bench) {
    let broker = broker().await;
    let proxy = ProxyProcess::start(bench.binary(), &broker.bootstrap());
    for (row, part) in [("parsers_eighth", 8), ("parsers", 1)] {
        let mut figures = costs_of_heads(&proxy, part).await;
        figures.extend(costs_of_messages(&proxy, part).await);
        bench.print(row, &figures);
    }
}

async fn costs_of_heads(proxy: &ProxyProcess, part: usize) -> Vec<(&'static str, f64)> {
    let names = |count| {
        let names: Vec<_> = (0..count).map(|i| format!("absent-{i}")).collect();
        names.join(",")
    };
    let mut figures = Vec::new();
    for (name, head) in [
        (
            "query",
            head("/socket/in?", &"a&".repeat(HEAD_BYTES / 2 / part), ""),
        ),
        (
            "topics_1000",
            head("/socket/out?clientId=a&topic=", &names(1_000 / part), ""),
        ),
        (
            "topics_too_many",
            head("/socket/out?clientId=a&topic=", &names(2_000 / part), ""),
        ),
        (
            "fields",
            head("/socket/in", "", &"a:b\r\n".repeat(90 / part)),
        ),
        (
            "long_field",
            head(
                "/socket/in",
                "",
                &format!("a:{}\r\n", "b".repeat(HEAD_BYTES / part)),
            ),
        ),
    ] {
        figures.push((name, cost_of_head(proxy, head.as_bytes()).await));
    }
    figures
}

async fn costs_of_messages(proxy: &ProxyProcess, part: usize) -> Vec<(&'static str, f64)> {
    let mut figures = Vec::new();
    let bytes = MESSAGE_BYTES / part;
    let headers = vec![r#"{"key":"a","value":"b"}"#; 40_000 / part].join(",");
    let nested = "[],".repeat(300_000 / part) + "[]";
    for (name, message) in [
        ("array_of_empty_records", array(bytes, "{}")),
        (
            "array_of_records",
            array(bytes, r#"{"value":{"value":"x"}}"#),
        ),
        ("array_of_message_ids", array(bytes, r#"{"messageId":"x"}"#)),
        (
            "array_of_unknown_fields",
            array(bytes, r#"{"a":1,"a":1,"a":1,"a":1,"a":1}"#),
        ),
        (
            "record_headers",
            format!(r#"{{"value":{{"value":"x"}},"headers":[{headers}]}}"#).into_bytes(),
        ),
        (
            "json_value",
            format!(r#"{{"value":{{"value":[{nested}],"format":"json"}}}}"#).into_bytes(),
        ),
        ("not_json", array(bytes, "{]")),
    ] {
        assert!(message.len() <= MESSAGE_BYTES, "{name}: {}", message.len());
        figures.push((name, cost_of_message(proxy, &message).await));
    }
    figures
}

fn head(path: &str, query: &str, fields: &str) -> String {
    format!(
        "GET {path}{query} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
    )
}

async fn cost_of_head(proxy: &ProxyProcess, head: &[u8]) -> f64 {
    const TIMES: usize = 200;
    let before = Cpu::of(proxy.pid());
    for _ in 0..TIMES {
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port()))
            .await
            .expect("accepted");
        stream.write_all(head).await.expect("open");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer");
        assert!(answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    }
    (Cpu::of(proxy.pid()) - before).total_us() / (TIMES * head.len()) as f64
}

async fn cost_of_message(proxy: &ProxyProcess, message: &[u8]) -> f64 {
    // So that the ticks of the kernel's accounts do not count.
    let times = 5 * MESSAGE_BYTES / message.len();
    let (mut stream, _) = open(proxy.port(), "/socket/in?topic=t")
        .await
        .expect("accepted");
    let mut bytes = Vec::new();
    for _ in 0..times {
        bytes.extend(frame(0x81, message));
    }
    // The answers end with that to this frame.
    bytes.extend(frame(0x81, b"[]"));
    let before = Cpu::of(proxy.pid());
    let (mut reading, mut writing) = stream.split();
    let write = async { writing.write_all(&bytes).await.expect("open") };
    let read = async {
        let mut buffer = vec![0; 1 << 20];
        let mut end = [0; 4];
        while end != [0x81, 2, b'[', b']'] {
            let n = reading.read(&mut buffer).await.expect("answers");
            assert!(n > 0, "the socket was closed");
            for byte in &buffer[n.saturating_sub(4)..n] {
                end.rotate_left(1);
                end[3] = *byte;
            }
        }
    };
    tokio::join!(write, read);
    (Cpu::of(proxy.pid()) - before).total_us() / (times * message.len()) as f64
}

/// A kind of clients: whether each has a socket, and what it sends on it.
struct HostileKind {
    name: &'static str,
    target: Option<&'static str>,
    bytes: Vec<u8>,
    half_closes: bool,
}

/// Processor time and memory of the proxy per connection of each kind, and how long a health check
/// takes while they are there.
pub(crate) async fn hostile(bench: &Bench) {
    const PRODUCE: Option<&str> = Some("/socket/in?topic=t");
    let sends = |name, target, bytes| HostileKind {
        name,
        target,
        bytes,
        half_closes: false,
    };
    let ended = HostileKind {
        half_closes: true,
        ..sends("hostile_half_closed", PRODUCE, Vec::new())
    };
    let large = "GET / HTTP/1.1\r\nHost: a\r\nX: ".to_owned() + &"x".repeat(HEAD_BYTES);
    for kind in [
        sends("hostile_silent", None, Vec::new()),
        sends(
            "hostile_slow_head",
            None,
            b"GET / HTTP/1.1\r\nHost".to_vec(),
        ),
        sends("hostile_large_head", None, large.into_bytes()),
        sends("hostile_idle_socket", PRODUCE, Vec::new()),
        sends(
            "hostile_unread_arrays",
            PRODUCE,
            frame(
                0x81,
                format!("[{}]", vec!["{}"; 10_000].join(",")).as_bytes(),
            )
            .repeat(2),
        ),
        sends("hostile_fragment", PRODUCE, frame(0x01, &[b'x'; 60_000])),
        sends(
            "hostile_announced",
            PRODUCE,
            [announced(0x81, MESSAGE_BYTES), vec![b'x'; 60_000]].concat(),
        ),
        sends(
            "hostile_pings",
            PRODUCE,
            [0x89, 0x80, 0, 0, 0, 0].repeat(10_000),
        ),
        sends(
            "hostile_close_unanswered",
            PRODUCE,
            vec![0x88, 0x80, 0, 0, 0, 0],
        ),
        ended,
    ] {
        measure(bench, kind).await;
    }
}

/// Waits until the proxy has taken what it takes: it uses no processor time for 200 ms.
async fn at_rest(pid: u32) {
    let (mut before, mut at_rest) = (Cpu::of(pid), 0);
    while at_rest < 10 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = Cpu::of(pid);
        let used = (now - before).total_us();
        at_rest = if used == 0.0 { at_rest + 1 } else { 0 };
        before = now;
    }
}

async fn measure(bench: &Bench, kind: HostileKind) {
    let broker = broker().await;
    let proxy = ProxyProcess::start(bench.binary(), &broker.bootstrap());
    drop(
        open(proxy.port(), "/socket/in?topic=t")
            .await
            .expect("accepted"),
    );
    let (cpu, resident) = (Cpu::of(proxy.pid()), resident_kib(proxy.pid()));
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = match kind.target {
            Some(target) => open(proxy.port(), target).await.expect("accepted").0,
            None => TcpStream::connect(("127.0.0.1", proxy.port()))
                .await
                .expect("accepted"),
        };
        // The rest does not fit: the proxy has stopped reading.
        let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(&kind.bytes)).await;
        if kind.half_closes {
            stream.shutdown().await.expect("open");
        }
        streams.push(stream);
    }
    at_rest(proxy.pid()).await;
    let cpu = Cpu::of(proxy.pid()) - cpu;
    let resident = resident_kib(proxy.pid()) - resident;
    let started = Instant::now();
    let mut neighbour = TcpStream::connect(("127.0.0.1", proxy.port()))
        .await
        .expect("accepted");
    let request = b"GET /healthcheck HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    neighbour.write_all(request).await.expect("open");
    let mut answer = Vec::new();
    neighbour.read_to_end(&mut answer).await.expect("an answer");
    bench.print(
        kind.name,
        &[
            ("connections", CONNECTIONS as f64),
            ("cpu_us_per_connection", cpu.total_us() / CONNECTIONS as f64),
            ("resident_kib_per_connection", resident / CONNECTIONS as f64),
            ("healthcheck_ms", started.elapsed().as_secs_f64() * 1e3),
        ],
    );
}
