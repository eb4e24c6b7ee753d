//! Compressed messages (`permessage-deflate`, RFC 7692): negotiated, read and written.

use std::fs;

use serde_json::{Value, json};

use crate::support::clients::Terminal;
use crate::support::deflate_client::{DeflateClient, RSV1, TEXT, deflated};
use crate::support::proxy::Proxy;

/// What browsers offer.
const OFFER: &str = "permessage-deflate; client_max_window_bits";
const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

async fn with_deflate(proxy: &Proxy, path: &str) -> DeflateClient {
    let client = DeflateClient::connect(&proxy.address, path, &[OFFER]).await;
    assert_eq!(client.extensions.as_deref(), Some(ANSWER), "{path}");
    client
}

async fn without(proxy: &Proxy, path: &str) -> DeflateClient {
    let client = DeflateClient::connect(&proxy.address, path, &[]).await;
    assert_eq!(client.extensions, None, "{path}");
    client
}

fn record(value: &str) -> String {
    json!({"value": {"value": value}}).to_string()
}

fn value_of(message: &str) -> String {
    let message: Value = serde_json::from_str(message).unwrap();
    message["value"]["value"]
        .as_str()
        .expect("a text")
        .to_owned()
}

/// Texts that recur, and one that does not: short, long, and longer than what is inflated and
/// compressed at once.
fn values() -> Vec<String> {
    let mut random = 1_u64;
    let mut digit = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        char::from_u32(0x4E00 + (random >> 52) as u32).unwrap()
    };
    let noise: String = (0..1000).map(|_| digit()).collect();
    vec![
        "short".to_owned(),
        "recurs ".repeat(100),
        noise,
        "recurs ".repeat(100_000),
        String::new(),
        "recurs ".repeat(2000),
    ]
}

#[tokio::test]
async fn what_is_written_compressed_is_read_by_those_who_want_it_so_and_by_others() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut producer = with_deflate(&proxy, "/socket/in?topic=t").await;
    for value in values() {
        producer.send(&record(&value)).await;
        let (ack, is_compressed) = producer.next().await;
        assert!(ack.contains("\"offset\""), "{ack}");
        assert!(!is_compressed, "an ack is short");
    }
    let mut texts = Vec::new();
    for (group, deflate) in [("a", true), ("b", false), ("c", true)] {
        let path = format!("/socket/out?topic=t&clientId={group}&valType=string");
        let mut consumer = match deflate {
            true => with_deflate(&proxy, &path).await,
            false => without(&proxy, &path).await,
        };
        let mut of_socket = Vec::new();
        for value in values() {
            let (text, is_compressed) = consumer.next().await;
            let expected = deflate && text.len() >= 256 && value.contains("recurs");
            assert_eq!(is_compressed, expected, "{} bytes", text.len());
            assert_eq!(value_of(&text), value);
            of_socket.push(text);
        }
        texts.push(of_socket);
    }
    assert!(texts.windows(2).all(|pair| pair[0] == pair[1]));
    proxy.stopped().await;
}

#[tokio::test]
async fn arrays_of_records_and_of_acks_are_compressed_as_a_whole() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut producer = with_deflate(&proxy, "/socket/in?topic=t").await;
    let records: Vec<Value> = (0..50)
        .map(|n| json!({"value": {"value": format!("a value, the {n}th")}}))
        .collect();
    producer.send(&json!(records).to_string()).await;
    let (acks, is_compressed) = producer.next().await;
    assert!(is_compressed, "{acks}");
    let acks: Vec<Value> = serde_json::from_str(&acks).unwrap();
    assert_eq!(acks.len(), 50);
    let path = "/socket/out?topic=t&clientId=a&batchSize=50";
    let mut consumer = with_deflate(&proxy, path).await;
    let (mut count, mut compressed) = (0, 0);
    while count < 50 {
        let (array, is_compressed) = consumer.next().await;
        let array: Vec<Value> = serde_json::from_str(&array).unwrap();
        count += array.len();
        compressed += usize::from(is_compressed);
    }
    assert!(compressed > 0);
    proxy.stopped().await;
}

#[tokio::test]
async fn fragments_of_a_compressed_message_have_pings_between_them() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut producer = with_deflate(&proxy, "/socket/in?topic=t").await;
    let value = "recurs ".repeat(100);
    let payload = deflated(record(&value).as_bytes());
    let (first, last) = payload.split_at(10);
    producer.send_frame(0x01 | RSV1, first).await;
    producer.send_frame(0x89, b"ping").await;
    producer.send_frame(0x00, b"").await;
    producer.send_frame(0x80, last).await;
    let pong = producer.next_frame().await.unwrap();
    assert_eq!((pong.first, &pong.payload[..]), (0x8A, &b"ping"[..]));
    assert!(producer.next().await.0.contains("\"offset\""));
    // A message that is not compressed is one as ever.
    producer.send_frame(TEXT, record("plain").as_bytes()).await;
    assert!(producer.next().await.0.contains("\"offset\""));
    let mut consumer = without(&proxy, "/socket/out?topic=t&clientId=a").await;
    assert_eq!(value_of(&consumer.next().await.0), value);
    assert_eq!(value_of(&consumer.next().await.0), "plain");
    proxy.stopped().await;
}

#[tokio::test]
async fn commits_come_compressed() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut producer = with_deflate(&proxy, "/socket/in?topic=t").await;
    producer.send(&record("a")).await;
    producer.next().await;
    let path = "/socket/out?topic=t&clientId=a&autoCommit=false";
    let mut consumer = with_deflate(&proxy, path).await;
    let (text, _) = consumer.next().await;
    let id = serde_json::from_str::<Value>(&text).unwrap()["wsProxyMessageId"].clone();
    consumer
        .send(&json!({"wsProxyMessageId": id}).to_string())
        .await;
    consumer
        .send(&json!({"wsProxyMessageId": "x"}).to_string())
        .await;
    assert!(consumer.next().await.0.contains("unknown_message_id"));
    proxy.stopped().await;
}

#[tokio::test]
async fn a_message_that_inflates_to_more_than_the_limit_is_too_big() {
    let proxy = Proxy::with(|config| config.server.websocket.max_message_size = 100_000).await;
    proxy.topic("t", 1);
    let at_limit = record(&"a".repeat(100_000 - record("").len()));
    for (message, is_taken) in [
        (at_limit.clone(), true),
        (at_limit + " ", false),
        (record(&"a".repeat(64 << 20)), false),
    ] {
        for path in ["/socket/in?topic=t", "/socket/out?topic=t&clientId=a"] {
            let mut client = with_deflate(&proxy, path).await;
            client.send(&message).await;
            if is_taken {
                let (answer, _) = client.next().await;
                let expected = ["\"offset\"", "\"error\""];
                assert!(
                    expected.iter().any(|part| answer.contains(part)),
                    "{answer}"
                );
                break;
            }
            let (code, reason) = client.closed().await;
            assert_eq!(code, 1009);
            let expected = "the message is over 100000 bytes (server.websocket.max-message-size)";
            assert_eq!(reason, expected);
        }
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn what_is_not_as_the_rfc_has_it_closes_the_socket() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let hello = deflated(b"Hello");
    let mut plain = without(&proxy, "/socket/in?topic=t").await;
    plain.send_frame(TEXT | RSV1, &hello).await;
    let (code, reason) = plain.closed().await;
    assert_eq!((code, &*reason), (1002, "a reserved bit is set"));
    for (frames, code) in [
        (vec![(0x89 | RSV1, &b""[..])], 1002),
        (
            vec![(0x01 | RSV1, &hello[..2]), (0x80 | RSV1, &hello[2..])],
            1002,
        ),
        (vec![(TEXT | 0x20, &hello)], 1002),
        (vec![(TEXT | RSV1, b"Hello")], 1007),
        (vec![(TEXT | RSV1, &hello[..3])], 1007),
        // A stored block with half a character.
        (vec![(TEXT | RSV1, b"\x00\x01\x00\xfe\xff\xce\x00")], 1007),
        (vec![(0x82 | RSV1, &hello)], 1003),
    ] {
        let mut client = with_deflate(&proxy, "/socket/in?topic=t").await;
        for (first, payload) in &frames {
            client.send_frame(*first, payload).await;
        }
        assert_eq!(client.closed().await.0, code, "{frames:02x?}");
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn what_is_offered_decides_and_the_first_that_can_be_served() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let path = "/socket/in?topic=t";
    for (offers, expected) in [
        (&["permessage-deflate; server_max_window_bits=8"][..], None),
        (&["permessage-deflate; unknown"], None),
        (&["x-webkit-deflate-frame"], None),
        (
            &[
                "x-other",
                "permessage-deflate; server_max_window_bits=8, permessage-deflate; \
                 server_max_window_bits=\"10\"",
            ],
            Some("; server_max_window_bits=10"),
        ),
    ] {
        let client = DeflateClient::connect(&proxy.address, path, offers).await;
        let expected = expected.map(|rest| format!("{ANSWER}{rest}"));
        assert_eq!(client.extensions, expected, "{offers:?}");
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn sockets_with_different_windows_read_the_same_records() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut producer = with_deflate(&proxy, "/socket/in?topic=t").await;
    let value: String = (0..3000).map(|n| format!("value {} ", n % 700)).collect();
    producer.send(&record(&value)).await;
    producer.next().await;
    for bits in [9, 12, 15] {
        let offer = format!("permessage-deflate; server_max_window_bits={bits}");
        let path = format!("/socket/out?topic=t&clientId=c{bits}");
        let mut consumer = DeflateClient::connect(&proxy.address, &path, &[&offer]).await;
        let (text, is_compressed) = consumer.next().await;
        assert!(is_compressed);
        assert_eq!(value_of(&text), value);
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn compression_that_is_switched_off_is_not_negotiated() {
    let proxy = Proxy::with(|config| config.server.websocket.compression = false).await;
    proxy.topic("t", 1);
    let path = "/socket/in?topic=t";
    let mut producer = DeflateClient::connect(&proxy.address, path, &[OFFER]).await;
    assert_eq!(producer.extensions, None);
    producer.send(&record("a")).await;
    assert_eq!(producer.closed().await.0, 1002);
    proxy.stopped().await;
}

/// Writes a record, an array and a short record, all compressed, then reads them, and prints what
/// was negotiated, how long the values are, and how many bytes the connections carried.
const NODE: &str = r#"
const WebSocket = require('ws');
const options = { perMessageDeflate: { threshold: 0 } };
const open = path => new WebSocket(`ws://${process.argv[2]}${path}`, options);
const value = text => ({ value: { value: text } });
const producer = open('/socket/in?topic=t');
let answers = 0;
producer.on('open', () => {
  console.log('negotiated', producer.extensions);
  producer.send(JSON.stringify(value('recurs '.repeat(10000))));
  producer.send(JSON.stringify([...Array(40).keys()].map(n => value(`the ${n}th`))));
  producer.send(JSON.stringify(value('short')));
});
producer.on('message', data => {
  console.log('acks', [JSON.parse(data)].flat().filter(ack => 'offset' in ack).length);
  if (++answers < 3) return;
  console.log('sent', producer._socket.bytesWritten);
  producer.close();
  let lengths = 0, records = 0;
  const consumer = open('/socket/out?topic=t&clientId=c');
  consumer.on('message', data => {
    lengths += JSON.parse(data).value.value.length;
    if (++records < 42) return;
    console.log('read', records, lengths, 'received', consumer._socket.bytesRead);
    consumer.close(1000);
  });
  consumer.on('close', code => console.log('closed', code));
});
"#;

/// The same in Python.
const PYTHON: &str = r#"
import asyncio, json, sys, websockets
from websockets.client import ClientProtocol

sent = received = 0
plain_receive, plain_send = ClientProtocol.receive_data, ClientProtocol.data_to_send

def receive(self, data):
    global received
    received += len(data)
    plain_receive(self, data)

def send(self):
    global sent
    data = plain_send(self)
    sent += sum(map(len, data))
    return data

ClientProtocol.receive_data, ClientProtocol.data_to_send = receive, send
value = lambda text: {"value": {"value": text}}

async def main():
    address = f"ws://{sys.argv[1]}"
    async with websockets.connect(f"{address}/socket/in?topic=t") as producer:
        print("negotiated", [e.name for e in producer.protocol.extensions])
        await producer.send(json.dumps(value("recurs " * 10000)))
        await producer.send(json.dumps([value(f"the {n}th") for n in range(40)]))
        await producer.send(json.dumps(value("short")))
        for _ in range(3):
            acks = json.loads(await producer.recv())
            acks = acks if isinstance(acks, list) else [acks]
            print("acks", sum("offset" in ack for ack in acks))
    print("sent", sent)
    lengths, before = 0, received
    async with websockets.connect(f"{address}/socket/out?topic=t&clientId=c") as consumer:
        for _ in range(42):
            lengths += len(json.loads(await consumer.recv())["value"]["value"])
        print("read 42", lengths, "received", received - before)
    print("closed", consumer.close_code)

asyncio.run(main())
"#;

#[tokio::test]
async fn the_libraries_of_node_and_python_compress_both_ways() {
    for (file, text, command) in [("c.cjs", NODE, "node"), ("c.py", PYTHON, "python3 -u")] {
        let proxy = Proxy::start().await;
        proxy.topic("t", 1);
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(file), text).unwrap();
        let packages = crate::support::clients::folder().join("node_modules");
        let line = format!(
            "NODE_PATH={} {command} {file} {}",
            packages.display(),
            proxy.address
        );
        let program = Terminal::start(&line, folder.path());
        for shown in [
            "negotiated",
            "acks 1",
            "acks 40",
            "sent",
            "read 42",
            "closed 1000",
        ] {
            let line = program.shows(shown).await;
            match shown {
                "negotiated" => assert!(line.contains("permessage-deflate"), "{file}: {line}"),
                "sent" => assert!(last_number(&line) < total() / 4, "{file}: {line}"),
                "read 42" => {
                    assert!(line.contains(&total().to_string()), "{file}: {line}");
                    assert!(last_number(&line) < total() / 4, "{file}: {line}");
                }
                _ => {}
            }
        }
        assert_eq!(program.ended().code(), Some(0), "{file}");
        proxy.stopped().await;
    }
}

fn last_number(line: &str) -> usize {
    let number = line.split_whitespace().next_back();
    number.and_then(|n| n.parse().ok()).expect("a number")
}

/// How long all values of [`NODE`] are together.
fn total() -> usize {
    let in_array = (0..40).map(|n| format!("the {n}th").len());
    70_000 + in_array.sum::<usize>() + "short".len()
}
