//! SIGTERM while two hundred sockets produce and consume: nothing that was accepted is lost, and
//! every answer that was due arrives.
//!
//! ```text
//! 100 producing sockets ─▶ program ─▶ 20 partitions ─▶ program ─▶ 5 groups of 20 sockets
//!        ▲ answers          SIGTERM: 1012, exit 0                    records, commits
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kafka_client::TopicPartition;
use memory_broker::{BrokerConfig, MemoryBroker};
use serde_json::{Value, json};
use tokio::task::{JoinSet, block_in_place};
use tokio_tungstenite::tungstenite::Message;

use crate::support::kafka::{Kafka, kcat, unique};
use crate::support::program::Program;
use crate::support::tls::tls_flags;
use crate::support::until;
use crate::support::ws_client::WsClient;

const PRODUCERS: usize = 100;
const PARTITIONS: usize = 20;
const GROUPS: usize = 5;
/// Records that a client sends before it reads their answers.
const BURST: usize = 20;

/// What a client was sent: values and offsets, by partition.
type Received = BTreeMap<usize, Vec<usize>>;

/// How many clients have been sent something.
#[derive(Clone, Default)]
struct BusyClients(Arc<AtomicUsize>);

/// Produces until the server closes; gives how many of its records were answered.
async fn produce(mut socket: WsClient, client: usize, busy: BusyClients) -> (usize, usize) {
    let mut answered = 0;
    let mut sent = 0;
    loop {
        let burst = (sent..sent + BURST).map(|n| {
            let value = json!({"value": format!("{client}-{n}")});
            let record = json!({"value": value, "messageId": n.to_string(), "partition": client % PARTITIONS});
            Message::text(record.to_string())
        });
        sent += BURST;
        // The server may have closed: what it sent before is read all the same.
        let _ = socket.send_all(burst).await;
        while answered < sent {
            match socket
                .next_message()
                .await
                .expect("a close frame is the end")
            {
                Message::Text(text) => {
                    let answer: Value = serde_json::from_str(&text).unwrap();
                    assert!(answer["offset"].is_i64(), "{answer}");
                    assert_eq!(answer["messageId"], answered.to_string());
                    answered += 1;
                    if answered == 1 {
                        busy.0.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Message::Close(Some(close)) => {
                    assert_eq!(u16::from(close.code), 1012, "{}", close.reason);
                    return (client, answered);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Consumes until the server closes.
async fn consume(mut socket: WsClient, group: usize, busy: BusyClients) -> (usize, Received) {
    let mut received = Received::new();
    loop {
        match socket
            .next_message()
            .await
            .expect("a close frame is the end")
        {
            Message::Text(text) => {
                let record: Value = serde_json::from_str(&text).unwrap();
                let number = |field: &str| record[field].as_u64().unwrap() as usize;
                if received.is_empty() {
                    busy.0.fetch_add(1, Ordering::Relaxed);
                }
                let offsets = received.entry(number("partition")).or_default();
                offsets.push(number("offset"));
            }
            Message::Close(Some(close)) => {
                assert_eq!(u16::from(close.code), 1012, "{}", close.reason);
                return (group, received);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// `committed` gives what a group has committed of a topic, by partition.
async fn drain(
    bootstrap: &str,
    flags: &[&str],
    topic: &str,
    committed: impl Fn(&str) -> BTreeMap<usize, usize>,
) {
    let arguments = [&["--bootstrap-hosts", bootstrap], flags].concat();
    let (program, log) = block_in_place(|| Program::start_logged(&arguments, &[]));
    let (busy, group) = (BusyClients::default(), |g| format!("{topic}-g{g}"));
    let (mut producing, mut consuming) = (JoinSet::new(), JoinSet::new());
    // Before the groups' rebalances keep the machine busy.
    let mut producers = Vec::new();
    for _ in 0..PRODUCERS {
        let path = format!("/socket/in?topic={topic}");
        producers.push(program.connect(&path).await);
    }
    for g in 0..GROUPS {
        for client in 0..PARTITIONS {
            let path = format!(
                "/socket/out?topic={topic}&groupId={}&clientId={client}",
                group(g)
            );
            let socket = program.connect(&path).await;
            consuming.spawn(consume(socket, g, busy.clone()));
        }
    }
    for (client, socket) in producers.into_iter().enumerate() {
        producing.spawn(produce(socket, client, busy.clone()));
    }
    until("all are busy", || {
        busy.0.load(Ordering::Relaxed) == PRODUCERS + GROUPS * PARTITIONS
    })
    .await;
    program.signal("TERM");
    let answered: BTreeMap<usize, usize> = producing.join_all().await.into_iter().collect();
    let mut received = vec![Received::new(); GROUPS];
    for (group, records) in consuming.join_all().await {
        for (partition, offsets) in records {
            received[group]
                .entry(partition)
                .or_default()
                .extend(offsets);
        }
    }
    let status = block_in_place(|| program.ended());
    assert!(status.success(), "{status}");
    assert!(log.with("the grace is over").is_empty());

    // What is in the log was answered, and what was answered is in the log, once.
    let log = ["-C", "-t", topic, "-o", "beginning", "-e", "-f", "%s\\n"];
    let log = String::from_utf8(block_in_place(|| kcat(bootstrap, &log, b""))).unwrap();
    let mut written = BTreeMap::<usize, usize>::new();
    for value in log.lines() {
        let (client, n) = value.split_once('-').expect("one of ours");
        let count = written.entry(client.parse().unwrap()).or_default();
        assert_eq!(n, count.to_string(), "client {client}: in order, and once");
        *count += 1;
    }
    assert_eq!(written, answered);

    for (g, mut partitions) in received.into_iter().enumerate() {
        let committed = block_in_place(|| committed(&group(g)));
        for (partition, offsets) in &mut partitions {
            offsets.sort_unstable();
            offsets.dedup();
            let end = offsets.len();
            assert_eq!(
                offsets.last(),
                Some(&(end - 1)),
                "group {g}: none is skipped"
            );
            let committed = committed.get(partition).copied().unwrap_or(0);
            // A commit that a busy broker does not confirm in time only has records delivered again.
            assert!(committed <= end, "group {g}: {committed} of {end}");
        }
    }
}

async fn drain_in_front_of_memory(flags: &[&str]) {
    let broker = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
    assert!(broker.create_topic("t", PARTITIONS as i32));
    let committed = |group: &str| {
        let of = |partition| {
            let tp = TopicPartition::new("t", partition as i32);
            Some((partition, broker.committed(group, &tp)? as usize))
        };
        (0..PARTITIONS).filter_map(of).collect()
    };
    drain(&broker.bootstrap(), flags, "t", committed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_loses_nothing_of_two_hundred_busy_sockets() {
    drain_in_front_of_memory(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_loses_nothing_of_two_hundred_busy_sockets_that_speak_tls() {
    let flags = tls_flags("server.pem");
    drain_in_front_of_memory(&flags.each_ref().map(String::as_str)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_front_of_real_kafka_loses_nothing_of_two_hundred_busy_sockets() {
    let kafka = block_in_place(|| Kafka::shared("4.4", 1));
    let topic = unique("drain");
    block_in_place(|| kafka.create_topic(&topic, PARTITIONS as i32, 1));
    let committed = |group: &str| {
        let out = kafka.java("Groups.java", &["offsets", group, &topic]);
        let pair = |line: &str| {
            let (partition, offset) = line.split_once(' ').unwrap();
            (partition.parse().unwrap(), offset.parse().unwrap())
        };
        out.lines().map(pair).collect()
    };
    drain(kafka.bootstrap(), &[], &topic, committed).await;
}
