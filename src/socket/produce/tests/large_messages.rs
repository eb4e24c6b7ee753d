//! Messages that take longer than other tasks of their worker should wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::yield_now;

use super::*;
use crate::avro_schemas::AvroSchemas;

/// What a message may have by default.
const MESSAGE_BYTES: usize = 1 << 20;

/// A message about as long as may be: `part` over and over, between these.
fn filled(before: &str, part: &str, after: &str) -> String {
    let room = MESSAGE_BYTES - before.len() - after.len();
    [before, &part.repeat(room / part.len()), after].concat()
}

/// What takes longest to read, by what it has much of.
fn costly_messages() -> Vec<(&'static str, String)> {
    let json =
        |part: &str, end: &str| filled(r#"{"value":{"format":"json","value":["#, part, end) + "]}}";
    let text = |part| filled(r#"{"value":{"value":""#, part, r#""}}"#);
    let bytes = |part, end| {
        let before = r#"{"value":{"format":"bytearray","value":""#;
        filled(before, part, end) + r#""}}"#
    };
    let number = |format: &str| {
        let before = format!(r#"{{"value":{{"format":"{format}","value":1"#);
        filled(&before, "7", "}}")
    };
    let deep = "[".repeat(1_000) + &"]".repeat(1_000) + ",";
    let header = r#"{"key":"","value":""},"#;
    vec![
        ("text", text("x")),
        ("text of é", text("é")),
        ("text of \\n", text("\\n")),
        ("text of \\u0041", text("\\u0041")),
        ("text of surrogate pairs", text("\\ud83d\\ude00")),
        ("text that ends in half a pair", text("\\n") + "\\ud83d"),
        ("text with an escape that is none", text("\\n") + "\\x"),
        ("base64", bytes("AAAA", "")),
        ("base64 of \\/", bytes("\\/", "")),
        ("base64 that ends in a dot", bytes("AAAA", ".")),
        ("digits of a double", number("double")),
        ("digits of a long", number("long")),
        ("nested arrays", json(&deep, "1")),
        ("empty arrays", json("[],", "1")),
        ("empty objects", json("{},", "1")),
        ("numbers", json("1,", "1")),
        (
            "fields",
            filled(
                r#"{"value":{"value":{"#,
                r#""":0,"#,
                r#""":0},"format":"json"}}"#,
            ),
        ),
        (
            "white space",
            filled(r#"{"value":{"value":1,"#, " ", r#""format":"int"}}"#),
        ),
        (
            "unknown fields",
            filled("{", r#""a":0,"#, r#""value":null}"#),
        ),
        (
            "unknown fields as long as known ones",
            filled("{", r#""valxx":0,"#, r#""value":null}"#),
        ),
        (
            "near misses",
            filled("{", r#""valuf":0,"#, r#""value":null}"#),
        ),
        (
            "headers",
            filled(
                r#"{"value":null,"headers":["#,
                header,
                r#"{"key":"","value":""}]}"#,
            ),
        ),
        (
            "messageId",
            filled(r#"{"value":null,"messageId":""#, "x", r#""}"#),
        ),
        ("an array of one record", format!("[{}]", text("\\n"))),
        ("no JSON after all", text("x") + "}"),
    ]
}

#[tokio::test]
async fn long_records_wait_for_each_other_and_short_ones_for_nothing() {
    let broker = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
    let (mut socket, _client) = socket(&broker, Vec::new()).await;
    let mut paused = LONG_RECORDS.pause().await;
    let record = |bytes: usize| {
        let (before, after) = (r#"{"value":{"value":""#, r#""}}"#);
        let value = "x".repeat(bytes - before.len() - after.len());
        [before, &value, after].concat()
    };
    let (short, long) = (record(LONG_RECORD_BYTES - 1), record(LONG_RECORD_BYTES));
    let taken = socket.produce(STRINGS, short.as_bytes()).now_or_never();
    taken.expect("a short one waits").unwrap();
    let small = record(30);
    for message in [
        long.clone(),
        format!("[{long}]"),
        format!("[{small},{long}]"),
        // What it has is known when it is read.
        format!(
            "[{}]",
            [small.as_str()].repeat(LONG_RECORD_BYTES / 30).join(",")
        ),
    ] {
        let taken = socket.produce(STRINGS, message.as_bytes()).now_or_never();
        assert!(taken.is_none(), "a long one does not wait");
        assert_eq!(socket.records, 1);
    }
    // Checked, and then read: each waits for its turn.
    let message = format!("[{small},{long},{small},{long}]");
    let mut taken = Box::pin(socket.produce(STRINGS, message.as_bytes()));
    let mut waits = 0;
    let all = loop {
        if let Some(all) = (&mut taken).now_or_never() {
            break all;
        }
        waits += 1;
        // Asked for after what the message waits for, and before what it waits for next.
        let mut pause = Box::pin(LONG_RECORDS.pause());
        assert!((&mut pause).now_or_never().is_none());
        drop(paused);
        tokio::select! {
            biased;
            all = &mut taken => break all,
            next = pause => paused = next,
        }
    };
    all.unwrap();
    drop(taken);
    assert!(waits >= 3, "{waits}");
    assert_eq!(socket.records, 5);
    broker.stop().await;
}

#[tokio::test]
async fn long_datums_wait_as_long_records_do() {
    let broker = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
    let (mut socket, _client) = socket(&broker, Vec::new()).await;
    socket.format = MessageFormat::Avro(AvroMessages::new(
        AvroFraming::Plain,
        AvroSchemas::default(),
    ));
    let _paused = LONG_RECORDS.pause().await;
    // No key, and a value whose length has three bytes.
    let datum = |value: usize| {
        let length = [
            value << 1 & 0x7F | 0x80,
            value >> 6 & 0x7F | 0x80,
            value >> 13,
        ];
        let mut datum = vec![0];
        datum.extend(length.map(|byte| byte as u8));
        datum.resize(datum.len() + value, b'x');
        datum
    };
    let taken = socket
        .produce_binary(&datum(LONG_RECORD_BYTES - 5))
        .now_or_never();
    taken.expect("a short one waits").unwrap();
    let taken = socket
        .produce_binary(&datum(LONG_RECORD_BYTES))
        .now_or_never();
    assert!(taken.is_none(), "a long one does not wait");
    broker.stop().await;
}

/// Prints, too, how long a task waits at most for its turn while one of these messages is read, on a
/// worker that both share. Of several times the least: what else runs here makes it longer. The
/// figures are those of `cargo test --release --lib -- --nocapture the_costliest_messages`.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_costliest_messages_are_one_record_each_with_other_tasks_beside_them() {
    const TIMES: u64 = 3;
    let broker = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
    let (mut socket, _client) = socket(&broker, Vec::new()).await;
    for (name, message) in costly_messages() {
        let (mut longest, mut whole) = (Duration::MAX, Duration::MAX);
        let before = socket.records;
        for _ in 0..TIMES {
            let done = Arc::new(AtomicBool::new(false));
            let is_done = Arc::clone(&done);
            let waits = tokio::spawn(async move {
                let mut longest = Duration::ZERO;
                while !is_done.load(Ordering::Relaxed) {
                    let from = Instant::now();
                    yield_now().await;
                    longest = longest.max(from.elapsed());
                }
                longest
            });
            let message = message.clone();
            let produced = tokio::spawn(async move {
                yield_now().await;
                let from = Instant::now();
                socket.produce(STRINGS, message.as_bytes()).await.unwrap();
                socket.acks =
                    PendingAcks::new("t".into(), metrics(), AvroFraming::Plain, usize::MAX);
                done.store(true, Ordering::Relaxed);
                (socket, from.elapsed())
            });
            let took;
            (socket, took) = produced.await.unwrap();
            longest = longest.min(waits.await.unwrap());
            whole = whole.min(took);
        }
        assert_eq!(socket.records - before, TIMES, "{name}");
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        eprintln!(
            "{name:40} turn {:7.3} ms, whole {:7.3} ms",
            ms(longest),
            ms(whole)
        );
    }
    broker.stop().await;
}
