//! Clients that stop reading: closed with 1013 after `max.poll.interval.ms`, and the partitions of
//! consuming ones taken over.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use kafka_client::TopicPartition;
use kafka_client::config::AssignorName;
use kafka_client::config::CompressionType;
use kafka_client::record::{NewRecord, RecordBatchBuilder};
use memory_broker::{ApiKey, FaultAction, FaultRule};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::support::program::Program;
use crate::support::proxy::Proxy;
use crate::support::ws_client::WsClient;
use crate::support::{PATIENCE, until};

/// How long a close frame may take to be sent.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// More than what the kernel takes for a client that reads nothing.
const RECORDS: usize = 80;
const RECORD_BYTES: usize = 100_000;

/// Fills a partition of `t`.
async fn fill(producer: &mut WsClient, partition: usize) {
    let record = json!({
        "partition": partition,
        "value": {"value": "x".repeat(RECORD_BYTES)},
    });
    // Together within the largest message.
    let frame = json!([
        record, record, record, record, record, record, record, record
    ]);
    let each = frame.as_array().unwrap().len();
    let frame = frame.to_string();
    for _ in 0..RECORDS / each {
        let acks = producer.ask(frame.as_str()).await;
        let acks = acks.as_array().unwrap();
        assert!(acks.iter().all(|ack| ack["offset"].is_i64()));
    }
}

fn partition_and_offset(record: &Value) -> (i64, i64) {
    let field = |name: &str| record[name].as_i64().unwrap();
    (field("partition"), field("offset"))
}

#[tokio::test]
async fn a_client_that_stops_reading_finds_1013_when_it_reads_again_and_others_take_over() {
    const LIMIT: Duration = Duration::from_millis(1500);
    let proxy = Proxy::with(|config| {
        config.consumer.max_poll_interval = LIMIT;
        config.consumer.heartbeat_interval = Duration::from_millis(50);
        // It gives each its half in one rebalance.
        config.consumer.assignors = vec![AssignorName::Range];
    })
    .await;
    proxy.topic("t", 2);
    let path = |client: &str| format!("/socket/out?topic=t&groupId=g&clientId={client}");
    let mut stalled = proxy.connect(&path("stalled")).await;
    let mut other = proxy.connect(&path("other")).await;
    let members = || match proxy.broker.group("g") {
        Some(group) if group.state == "Stable" => group.members.len(),
        _ => 0,
    };
    until("both are members", || members() == 2).await;
    // Nothing is there that could keep either busy before: the limit is the rebalance timeout,
    // too, and on a busy machine it may take several rebalances until both are members.
    let begin = Instant::now();
    let mut producer = proxy.connect("/socket/in?topic=t").await;
    let filling = async {
        for partition in 0..2 {
            fill(&mut producer, partition).await;
        }
    };
    // The other one is given its half, and the rest only when the stalled one is closed.
    let taking_over = async {
        let mut taken_over = BTreeMap::new();
        while taken_over.len() < 2 {
            let (partition, offset) = partition_and_offset(&other.next().await);
            taken_over.entry(partition).or_insert(offset);
        }
        assert!(begin.elapsed() >= LIMIT, "{:?}", begin.elapsed());
        taken_over
    };
    // The stalled one reads one record, and again while the close frame may still be sent.
    let mut got = BTreeMap::new();
    let reading_again = async {
        let (partition, offset) = partition_and_offset(&stalled.next().await);
        got.insert(partition, offset);
        until("the stalled one is closed", || {
            proxy.broker.group("g").unwrap().members.len() == 1
        })
        .await;
        loop {
            match stalled.next_message().await.expect("a close frame") {
                Message::Text(text) => {
                    let (partition, offset) =
                        partition_and_offset(&serde_json::from_str(&text).unwrap());
                    got.insert(partition, offset);
                }
                Message::Close(close) => break close.expect("with a code"),
                other => panic!("{other:?}"),
            }
        }
    };
    let (taken_over, close, ()) = tokio::join!(taking_over, reading_again, filling);
    assert_eq!(u16::from(close.code), 1013, "{}", close.reason);
    for (partition, first) in taken_over {
        // Nothing is skipped between what the one got and what the other goes on with.
        let last = got.get(&partition).copied().unwrap_or(-1);
        assert!(first <= last + 1, "partition {partition}: {last}, {first}");
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn a_client_that_never_reads_again_is_reset_when_its_close_frame_cannot_be_sent() {
    const LIMIT: Duration = Duration::from_millis(500);
    let setting = format!(
        "consumer.kafka-client-properties.max.poll.interval.ms={}",
        LIMIT.as_millis()
    );
    let proxy = Program::start(&["--dev", "-D", &setting]);
    let mut producer = proxy.connect("/socket/in?topic=t").await;
    fill(&mut producer, 0).await;
    let begin = Instant::now();
    let stalled = proxy.connect("/socket/out?topic=t&clientId=a").await;
    let mut stalled = stalled.into_tcp();
    // A reset shows without reading.
    let reset = timeout(PATIENCE, stalled.ready(Interest::ERROR)).await;
    reset.expect("it is never reset").unwrap();
    let after = begin.elapsed();
    let ended = stalled.read_to_end(&mut Vec::new()).await;
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(after >= LIMIT + SEND_TIMEOUT, "{after:?}");
    // Its client id is free.
    let mut again = proxy.connect("/socket/out?topic=t&clientId=a").await;
    assert_eq!(again.next().await["topic"], "t");
}

#[tokio::test]
async fn a_producing_client_that_reads_no_answers_finds_1013_when_it_reads_again() {
    const LIMIT: Duration = Duration::from_secs(10);
    let proxy = Proxy::with(|config| config.consumer.max_poll_interval = LIMIT).await;
    proxy.topic("t", 1);
    let mut stream = proxy.connect("/socket/in?topic=t").await.into_tcp();
    let record = json!({"value": {"value": "x"}, "messageId": "m".repeat(500)}).to_string();
    // A text frame, masked with zeros.
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend_from_slice(&u16::try_from(record.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(record.as_bytes());
    // By a clock that moves only while nobody here has anything to do: then nothing more is taken.
    tokio::time::pause();
    let (mut sent, mut pauses) = (0, 0);
    while pauses < 20 {
        match stream.try_write(&frame[sent % frame.len()..]) {
            Ok(bytes) => (sent, pauses) = (sent + bytes, 0),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                pauses += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    // While the close frame may still be sent.
    tokio::time::sleep(LIMIT + SEND_TIMEOUT / 2).await;
    tokio::time::resume();
    let (mut answers, mut close) = (0, None);
    while close.is_none() {
        let (opcode, payload) = timeout(PATIENCE, next_frame(&mut stream)).await.unwrap();
        match opcode {
            0x81 => {
                let answer: Value = serde_json::from_slice(&payload).unwrap();
                assert_eq!(answer["offset"], answers, "{answer}");
                answers += 1;
            }
            0x88 => close = Some(u16::from_be_bytes([payload[0], payload[1]])),
            0x89 => {}
            other => panic!("{other:x}"),
        }
    }
    assert_eq!(close, Some(1013));
    assert!(answers > 0 && answers < sent / frame.len());
    proxy.stopped().await;
}

/// The first byte of the next frame, and its payload.
async fn next_frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut header = [0; 2];
    stream.read_exact(&mut header).await.unwrap();
    let len = match header[1] {
        126 => usize::from(stream.read_u16().await.unwrap()),
        len => usize::from(len),
    };
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).await.unwrap();
    (header[0], payload)
}

/// More than the kernel takes for a client that does not read.
const LARGE_BYTES: usize = 20 << 20;
const LARGE_PATH: &str = "/socket/out?topic=large&groupId=g&clientId=a";

/// A topic with one large record.
fn large_record(proxy: &Proxy) -> TopicPartition {
    proxy.topic("large", 1);
    let tp = TopicPartition::new("large", 0);
    let mut builder = RecordBatchBuilder::new(LARGE_BYTES);
    builder.append(&NewRecord {
        key: None,
        value: Some(&vec![b'x'; LARGE_BYTES]),
        headers: &[],
        timestamp: 7,
    });
    let mut batch = builder.build(CompressionType::None);
    batch.set_producer_state(-1, -1, -1);
    assert_eq!(proxy.broker.append(&tp, &batch.bytes()), Some(0));
    tp
}

/// A client that has read the beginning of the frame with the large record; the payload so far,
/// and how long it is to become.
async fn begun_reading(proxy: &Proxy) -> (TcpStream, Vec<u8>, usize) {
    let mut stream = proxy.connect(LARGE_PATH).await.into_tcp();
    let mut header = [0; 10];
    let begun = timeout(PATIENCE, stream.read_exact(&mut header)).await;
    begun.expect("the record").unwrap();
    assert_eq!(header[..2], [0x81, 127], "a long text frame");
    let len = u64::from_be_bytes(header[2..].try_into().unwrap()) as usize;
    let mut payload = vec![0; 100_000];
    stream.read_exact(&mut payload).await.unwrap();
    (stream, payload, len)
}

/// Reads on until the payload is that long.
async fn read_to(stream: &mut TcpStream, payload: &mut Vec<u8>, len: usize) -> io::Result<()> {
    let from = payload.len();
    payload.resize(len, 0);
    let read = stream.read_exact(&mut payload[from..]);
    timeout(PATIENCE, read).await.expect("the rest").map(|_| ())
}

fn check_large(payload: &[u8]) {
    let record: Value = serde_json::from_slice(payload).unwrap();
    assert_eq!(record["offset"], 0);
    let value = record["value"]["value"].as_str().unwrap();
    assert!(value.len() == LARGE_BYTES && value.bytes().all(|byte| byte == b'x'));
}

#[tokio::test]
async fn a_client_that_pauses_within_a_large_record_gets_all_of_it_and_what_follows() {
    let proxy = Proxy::start().await;
    large_record(&proxy);
    let (mut stream, mut payload, len) = begun_reading(&proxy).await;
    let mut producer = proxy.connect("/socket/in?topic=large").await;
    producer.ask(r#"{"value":{"value":"next"}}"#).await;
    for part in 1..4 {
        tokio::time::sleep(Duration::from_millis(800)).await;
        let to = len * part / 4;
        read_to(&mut stream, &mut payload, to).await.unwrap();
    }
    read_to(&mut stream, &mut payload, len).await.unwrap();
    check_large(&payload);
    let mut header = [0; 4];
    stream.read_exact(&mut header).await.unwrap();
    assert_eq!(header[..2], [0x81, 126]);
    let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let mut next = vec![0; len];
    stream.read_exact(&mut next).await.unwrap();
    let next: Value = serde_json::from_slice(&next).unwrap();
    assert_eq!(
        (&next["offset"], &next["value"]["value"]),
        (&json!(1), &json!("next"))
    );
    proxy.stopped().await;
}

#[tokio::test]
async fn a_client_that_is_evicted_within_a_large_record_gets_the_rest_of_it_before_the_close() {
    let proxy = Proxy::start().await;
    large_record(&proxy);
    let (mut stream, mut payload, len) = begun_reading(&proxy).await;
    // It does not answer the ping.
    let _second = proxy.connect(LARGE_PATH).await;
    read_to(&mut stream, &mut payload, len).await.unwrap();
    check_large(&payload);
    let (mut ping, mut close) = ([0; 2], [0; 4]);
    stream.read_exact(&mut ping).await.unwrap();
    assert_eq!(ping, [0x89, 0]);
    stream.read_exact(&mut close).await.unwrap();
    assert_eq!(
        (close[0], u16::from_be_bytes([close[2], close[3]])),
        (0x88, 1008)
    );
    proxy.stopped().await;
}

#[tokio::test]
async fn of_a_large_record_that_a_client_stopped_reading_no_copy_is_kept() {
    let proxy = Proxy::start().await;
    let tp = large_record(&proxy);
    let (mut stream, mut payload, len) = begun_reading(&proxy).await;
    let hold = FaultAction::HoldBefore(CancellationToken::new());
    proxy
        .broker
        .faults()
        .add(FaultRule::on(ApiKey::JoinGroup, hold).always());
    let _second = proxy.connect(LARGE_PATH).await;
    // So that nobody has the record any more, the rest of it cannot come.
    proxy.broker.delete_before(&tp, 1);
    let rest = read_to(&mut stream, &mut payload, len).await;
    assert!(rest.is_err(), "the connection is reset");
    proxy.broker.faults().clear();
    proxy.stopped().await;
}
