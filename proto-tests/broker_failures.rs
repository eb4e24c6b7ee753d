//! Brokers are killed while records flow and group members come and go: nothing that was
//! acknowledged is lost, repeated or out of order, and nothing committed is read again.
//!
//! ```text
//! 4 × /socket/in ─▶ proxy ─▶ 3 brokers, killed in turn ─▶ proxy ─▶ 2..4 × /socket/out, one group
//!      │ answers                  │ the log, read by librdkafka           │ deliveries
//!      └──────────────▶ compared ◀┴────── committed offsets, by Java ──────┘
//! ```

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::kafka::{Kafka, unique};
use crate::support::program::Program;
use crate::support::{PATIENCE, until};

const PARTITIONS: usize = 6;
const PRODUCERS: usize = 4;
const RECORDS_EACH: usize = 50_000;
const RECORDS: usize = PRODUCERS * RECORDS_EACH;
const IN_FLIGHT: usize = 1_000;
const KEYS_EACH: usize = 50;
const COMMIT_EVERY: usize = 100;

/// What was answered to one record.
#[derive(Clone, Copy)]
struct Ack {
    partition: usize,
    offset: i64,
}

/// One record as a consuming socket got it.
struct Delivery {
    /// The proxy sent it after this: after the test had begun to open the socket, and had sent
    /// every record that came through it before.
    after: Instant,
    partition: usize,
    offset: i64,
}

/// What the consuming sockets got, and when the producing ones had sent it.
#[derive(Default)]
struct Deliveries {
    all: Mutex<Vec<Delivery>>,
    /// By producer and sequence.
    sent: [Mutex<Vec<Instant>>; PRODUCERS],
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_records_survive_the_death_of_each_broker_once_and_in_order() {
    let kafka = block_in_place(|| Kafka::start("4.4", 3, &["replica.lag.time.max.ms=5000"]));
    let topic = unique("survives");
    block_in_place(|| kafka.create_topic(&topic, PARTITIONS as i32, 3));
    let proxy = Program::for_cluster(kafka.bootstrap(), &[]);
    let group = unique("group");

    let committed = Committed::watch(&kafka, &group);
    let deliveries = Arc::new(Deliveries::default());
    let join = |name: &str| {
        let url = format!(
            "ws://{}/socket/out?topic={topic}&groupId={group}&clientId={name}&autoCommit=false",
            proxy.address()
        );
        CommittingSocket::open(url, Arc::clone(&deliveries))
    };
    let mut consumers = vec![join("c0").await, join("c1").await];

    let acked = Arc::new(AtomicUsize::new(0));
    let (allow, allowed) = watch::channel(0);
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|id| {
            let url = format!(
                "ws://{}/socket/in?topic={topic}&keyType=string",
                proxy.address()
            );
            let sent = Arc::clone(&deliveries);
            tokio::spawn(produce(id, url, allowed.clone(), sent, Arc::clone(&acked)))
        })
        .collect();

    // Each broker dies with a full pipeline, and returns after much has gone on without it.
    for broker in 1..=3_u8 {
        let quarter = usize::from(broker - 1) * RECORDS / 4;
        allow.send_replace((quarter + RECORDS / 4) / PRODUCERS);
        reaches(&acked, quarter + RECORDS / 20).await;
        block_in_place(|| kafka.kill(broker));
        consumers.push(join(&format!("joins-{broker}")).await);
        reaches(&acked, quarter + RECORDS / 5).await;
        // One leaves in order, one just vanishes.
        let leaving = consumers.remove(0);
        if broker == 2 {
            leaving.vanish().await;
        } else {
            leaving.leave().await;
        }
        block_in_place(|| kafka.start_broker(broker));
    }
    allow.send_replace(RECORDS_EACH);
    let mut acks = Vec::new();
    for producer in producers {
        acks.push(producer.await.unwrap());
    }

    let log = block_in_place(|| read_log(&kafka, &topic));
    each_acknowledged_record_is_in_the_log_once(&acks, &log);
    each_key_is_in_the_order_of_its_acknowledgements(&acks, &log);
    let ends: Vec<i64> = log.iter().map(|records| records.len() as i64).collect();
    the_group_reads_everything(&deliveries, &ends).await;
    for consumer in consumers {
        consumer.leave().await;
    }
    nothing_committed_is_read_again(&deliveries, &committed.stop());
}

/// Sends `RECORDS_EACH` records, as far as it is allowed; every one must be acknowledged.
async fn produce(
    id: usize,
    url: String,
    mut allowed: watch::Receiver<usize>,
    deliveries: Arc<Deliveries>,
    acked: Arc<AtomicUsize>,
) -> Vec<Ack> {
    let (socket, _) = connect_async(url).await.unwrap();
    let (mut sink, mut stream) = socket.split();
    let mut acks = Vec::with_capacity(RECORDS_EACH);
    let mut sent = 0;
    while acks.len() < RECORDS_EACH {
        let may = (*allowed.borrow_and_update()).min(acks.len() + IN_FLIGHT);
        while sent < may {
            let key = sent % KEYS_EACH;
            let text = format!(
                r#"{{"key":{{"value":"{id}-{key}"}},"value":{{"value":"{id} {sent}"}},"messageId":"{sent}"}}"#
            );
            deliveries.sent[id].lock().unwrap().push(Instant::now());
            sink.feed(Message::text(text)).await.unwrap();
            sent += 1;
        }
        sink.flush().await.unwrap();
        let message = tokio::select! {
            message = stream.next() => message.unwrap().unwrap(),
            _ = allowed.changed() => continue,
        };
        let Message::Text(text) = message else {
            continue;
        };
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["messageId"], acks.len().to_string(), "{answer}");
        assert!(answer.get("error").is_none(), "{answer}");
        acks.push(Ack {
            partition: answer["partition"].as_u64().unwrap() as usize,
            offset: answer["offset"].as_i64().unwrap(),
        });
        acked.fetch_add(1, Ordering::Relaxed);
    }
    acks
}

async fn reaches(acked: &AtomicUsize, wanted: usize) {
    let what = format!("{wanted} are acknowledged");
    until(&what, || acked.load(Ordering::Relaxed) >= wanted).await;
}

/// Opens a consuming socket, again while it is answered 503: the session topic may have no leader.
async fn let_in(url: &str) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
    let attempts = async {
        loop {
            match connect_async(url).await {
                Ok((socket, _)) => return socket,
                Err(Error::Http(refusal)) if refusal.status() == 503 => {}
                Err(error) => panic!("{url}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, attempts).await.expect("never let in")
}

/// A consuming socket of the group.
struct CommittingSocket {
    close: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl CommittingSocket {
    async fn open(url: String, deliveries: Arc<Deliveries>) -> CommittingSocket {
        let mut after = Instant::now();
        let socket = let_in(&url).await;
        let (close, mut closing) = watch::channel(false);
        let task = tokio::spawn(async move {
            let (mut sink, mut stream) = socket.split();
            let mut uncommitted: HashMap<usize, String> = HashMap::new();
            let mut read = 0;
            loop {
                tokio::select! {
                    message = stream.next() => match message {
                        Some(Ok(Message::Text(text))) => {
                            // A commit that comes after its partition has moved on is refused.
                            let added = deliveries.add(&mut after, &text);
                            let Some((partition, id)) = added else { continue };
                            uncommitted.insert(partition, id);
                            read += 1;
                            if read % COMMIT_EVERY == 0 {
                                commit(&mut sink, &mut uncommitted).await;
                            }
                        }
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => return,
                    },
                    _ = closing.changed() => {
                        commit(&mut sink, &mut uncommitted).await;
                        let _ = sink.send(Message::Close(None)).await;
                    }
                }
            }
        });
        CommittingSocket { close, task }
    }

    /// Closes the socket and takes what is still on its way.
    async fn leave(self) {
        self.close.send_replace(true);
        let ended = timeout(PATIENCE, self.task).await;
        ended.expect("the server answers the close").unwrap();
    }

    async fn vanish(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

type Sink = SplitSink<WebSocketStream<MaybeTlsStream<TcpStream>>, Message>;

async fn commit(sink: &mut Sink, uncommitted: &mut HashMap<usize, String>) {
    for (_, id) in uncommitted.drain() {
        let text = json!({"wsProxyMessageId": id}).to_string();
        // A socket that is closing takes no more.
        let _ = sink.send(Message::text(text)).await;
    }
}

impl Deliveries {
    /// The partition and id of a delivered record; `None` for the answer to a commit.
    fn add(&self, after: &mut Instant, text: &str) -> Option<(usize, String)> {
        let message: Value = serde_json::from_str(text).unwrap();
        if let Some(error) = message.get("error") {
            assert_eq!(error["code"], "unknown_message_id", "{message}");
            return None;
        }
        let partition = message["partition"].as_u64().unwrap() as usize;
        let value = message["value"]["value"].as_str().unwrap();
        let (producer, sequence) = value.split_once(' ').unwrap();
        let sent = &self.sent[producer.parse::<usize>().unwrap()];
        let sent = sent.lock().unwrap()[sequence.parse::<usize>().unwrap()];
        *after = sent.max(*after);
        self.all.lock().unwrap().push(Delivery {
            after: *after,
            partition,
            offset: message["offset"].as_i64().unwrap(),
        });
        let id = message["wsProxyMessageId"].as_str().unwrap();
        Some((partition, id.to_owned()))
    }
}

/// `(producer, sequence)` by partition and offset, as librdkafka reads it.
fn read_log(kafka: &Kafka, topic: &str) -> Vec<Vec<(usize, usize)>> {
    let args = [
        "-C",
        "-t",
        topic,
        "-o",
        "beginning",
        "-e",
        "-f",
        "%p %o %s\n",
    ];
    let text = String::from_utf8(kafka.kcat(&args, b"")).unwrap();
    let mut log = vec![Vec::new(); PARTITIONS];
    for line in text.lines() {
        let mut numbers = line.split(' ').map(|n| n.parse::<usize>().unwrap());
        let mut next = || numbers.next().unwrap();
        let (partition, offset, record) = (next(), next(), (next(), next()));
        assert_eq!(offset, log[partition].len(), "offsets have no gaps");
        log[partition].push(record);
    }
    log
}

fn each_acknowledged_record_is_in_the_log_once(acks: &[Vec<Ack>], log: &[Vec<(usize, usize)>]) {
    let mut seen = HashMap::new();
    for record in log.iter().flatten() {
        *seen.entry(*record).or_insert(0) += 1;
    }
    assert!(
        seen.values().all(|times| *times == 1),
        "a record is in the log twice"
    );
    assert_eq!(seen.len(), RECORDS);
    for (id, acks) in acks.iter().enumerate() {
        for (sequence, ack) in acks.iter().enumerate() {
            if ack.offset >= 0 {
                assert_eq!(log[ack.partition][ack.offset as usize], (id, sequence));
            }
        }
    }
}

fn each_key_is_in_the_order_of_its_acknowledgements(
    acks: &[Vec<Ack>],
    log: &[Vec<(usize, usize)>],
) {
    assert_eq!(acks.len(), PRODUCERS);
    let mut last = HashMap::new();
    for (partition, records) in log.iter().enumerate() {
        for (id, sequence) in records {
            // Answers came in the order sent, so a key's acknowledgements are its sequences.
            let key = (*id, sequence % KEYS_EACH);
            if let Some((before, on)) = last.insert(key, (*sequence, partition)) {
                assert!(before < *sequence, "key {key:?}: {sequence} after {before}");
                assert_eq!(on, partition, "key {key:?} is on two partitions");
            }
        }
    }
}

async fn the_group_reads_everything(deliveries: &Deliveries, ends: &[i64]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let missing: usize = {
            let read = deliveries.all.lock().unwrap();
            let mut seen: Vec<Vec<bool>> = ends.iter().map(|n| vec![false; *n as usize]).collect();
            for delivery in read.iter() {
                seen[delivery.partition][delivery.offset as usize] = true;
            }
            seen.iter().flatten().filter(|seen| !**seen).count()
        };
        if missing == 0 {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{missing} records were never delivered"
        );
        // A look goes through everything that was read: not after each delivery.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The group's committed offsets over time, as Java's admin client sees them.
struct Committed {
    child: std::process::Child,
    seen: Arc<Mutex<Vec<(Instant, usize, i64)>>>,
}

impl Committed {
    fn watch(kafka: &Kafka, group: &str) -> Committed {
        let mut command = kafka.java_command("Committed.java", &[group]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let into = Arc::clone(&seen);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((partition, offset)) = line.split_once(' ') {
                    let entry = (
                        Instant::now(),
                        partition.parse().unwrap(),
                        offset.parse().unwrap(),
                    );
                    into.lock().unwrap().push(entry);
                }
            }
        });
        Committed { child, seen }
    }

    fn stop(mut self) -> Vec<(Instant, usize, i64)> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// A record may come twice, but not if the proxy sent it again after it was seen committed.
fn nothing_committed_is_read_again(deliveries: &Deliveries, committed: &[(Instant, usize, i64)]) {
    assert!(!committed.is_empty(), "the group committed");
    let mut seen = HashMap::new();
    let mut repeated = 0;
    for delivery in deliveries.all.lock().unwrap().iter() {
        let times = seen
            .entry((delivery.partition, delivery.offset))
            .or_insert(0);
        *times += 1;
        if *times == 1 {
            continue;
        }
        repeated += 1;
        let before = committed
            .iter()
            .filter(|(at, partition, _)| *partition == delivery.partition && *at < delivery.after)
            .map(|(.., offset)| *offset)
            .max();
        assert!(
            before.is_none_or(|committed| committed <= delivery.offset),
            "{}@{} came again after {before:?} was committed",
            delivery.partition,
            delivery.offset
        );
    }
    println!(
        "{repeated} uncommitted records of {} were delivered twice",
        seen.len()
    );
}
