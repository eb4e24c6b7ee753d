//! Sockets that write in transactions while brokers and proxies are killed: a reader of committed data
//! (Java's) gets each message whole or not at all, and each that was acknowledged, once and in order.
//!
//! ```text
//! clients ─▶ either proxy ─▶ three brokers ─▶ Java's consumer, read_committed ─▶ checks
//!               ▲ kill -9, SIGTERM    ▲ kill -9: leaders and coordinators move
//! ```

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::BufRead;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, block_in_place};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::support::kafka::{Kafka, unique};
use crate::support::program::Program;
use crate::support::random::{XorShift, from_environment};
use crate::support::until;

const CLIENTS: usize = 6;
const PARTITIONS: usize = 3;
/// Messages of a client that are under way.
const UNANSWERED_MAX: usize = 16;
/// After every event each client has so many messages committed before the next.
const MESSAGES_BETWEEN: u64 = 20;

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
enum MessageOutcome {
    /// Where its records are.
    Committed(Vec<(i64, i64)>),
    /// The proxy says that it is not written.
    Aborted,
    /// The connection ended, or the outcome is unknown to the proxy.
    Unknown,
}

/// Where the proxies listen, and how far the clients are.
struct TransactionScene {
    path: String,
    addresses: Mutex<[String; 2]>,
    committed: [AtomicU64; CLIENTS],
    is_over: AtomicBool,
}

impl TransactionScene {
    fn committed(&self) -> [u64; CLIENTS] {
        self.committed
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed))
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Until each client has written some more.
    async fn progress(&self) {
        let before = self.committed();
        let goes_on = || {
            let now = self.committed();
            now.iter()
                .zip(before)
                .all(|(now, before)| *now >= before + MESSAGES_BETWEEN)
        };
        until("every client writes", goes_on).await;
    }
}

fn partition_of(message: usize, index: usize) -> usize {
    (message + index) % PARTITIONS
}

fn records_of(message: usize) -> usize {
    1 + message % 4
}

fn text_of(client: usize, message: usize) -> String {
    let records = records_of(message);
    let record = |index| {
        let value = format!("{client} {message} {index}");
        json!({"partition": partition_of(message, index), "value": {"value": value}})
    };
    match records {
        1 => record(0).to_string(),
        _ => Value::Array((0..records).map(record).collect()).to_string(),
    }
}

fn outcome_of(answer: &Value) -> MessageOutcome {
    let answers = match answer {
        Value::Array(answers) => answers.as_slice(),
        single => std::slice::from_ref(single),
    };
    let places = answers
        .iter()
        .map(|answer| Some((answer["partition"].as_i64()?, answer["offset"].as_i64()?)));
    if let Some(places) = places.collect() {
        return MessageOutcome::Committed(places);
    }
    let is_unknown = |answer: &Value| answer["error"]["code"] == "unknown_outcome";
    assert!(
        answers.iter().all(|answer| answer["error"].is_object()),
        "all or none: {answer}"
    );
    match answers.iter().any(is_unknown) {
        true => MessageOutcome::Unknown,
        false => MessageOutcome::Aborted,
    }
}

async fn open(address: &str, path: &str) -> Option<WebSocketStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.ok()?;
    let request = format!("ws://{address}{path}")
        .into_client_request()
        .unwrap();
    Some(client_async(request, stream).await.ok()?.0)
}

/// One client: it writes until all is over, and comes back at the other node whenever its connection
/// ends, which it sometimes ends itself. What became of its messages, in order.
async fn write(client: usize, scene: Arc<TransactionScene>) -> Vec<MessageOutcome> {
    let mut random = XorShift::new(client as u64 + 1);
    let mut outcomes: Vec<MessageOutcome> = Vec::new();
    let path = format!("{}&clientId=c-{client}", scene.path);
    let mut node = client % 2;
    loop {
        node = 1 - node;
        let address = scene.addresses.lock().unwrap()[node].clone();
        let Some(mut socket) = open(&address, &path).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let mut left = 50 + random.below(200);
        let mut unanswered: VecDeque<usize> = VecDeque::new();
        loop {
            let is_over = scene.is_over();
            if is_over && unanswered.is_empty() {
                let _ = socket.close(None).await;
                return outcomes;
            }
            if left > 0 && !is_over && unanswered.len() < UNANSWERED_MAX {
                left -= 1;
                let message = outcomes.len();
                outcomes.push(MessageOutcome::Unknown);
                unanswered.push_back(message);
                if socket
                    .send(Message::text(text_of(client, message)))
                    .await
                    .is_err()
                {
                    break;
                }
                continue;
            }
            if left == 0 {
                match random.below(2) {
                    // Nothing says good-bye.
                    0 => break,
                    _ => {
                        let _ = socket.close(None).await;
                        left = usize::MAX;
                    }
                }
            }
            let Some(Ok(received)) = socket.next().await else {
                break;
            };
            if let Message::Text(text) = received {
                let message = unanswered.pop_front().expect("an answer to a message");
                outcomes[message] = outcome_of(&serde_json::from_str(&text).unwrap());
                if matches!(outcomes[message], MessageOutcome::Committed(_)) {
                    scene.committed[client].fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

fn start_proxy(kafka: &Kafka, server_id: &str) -> Program {
    let args = ["--producer-exactly-once-enabled", "--server-id", server_id];
    Program::for_cluster(kafka.bootstrap(), &args)
}

/// What a reader of committed data has in the end: partition, offset and value of each record.
fn check(outcomes: &[Vec<MessageOutcome>], read: &[(usize, i64, String)]) -> u64 {
    let mut found: HashMap<(usize, usize), BTreeMap<usize, (usize, i64)>> = HashMap::new();
    let mut newest: HashMap<(usize, usize), usize> = HashMap::new();
    for (partition, offset, value) in read {
        let mut parts = value.split(' ').map(|part| part.parse::<usize>().unwrap());
        let [client, message, index] = [(); 3].map(|()| parts.next().unwrap());
        let place = (*partition, *offset);
        let twice = found
            .entry((client, message))
            .or_default()
            .insert(index, place);
        assert_eq!(twice, None, "{value:?} is at {place:?}, too");
        assert_eq!(*partition, partition_of(message, index), "{value:?}");
        let newest = newest.entry((client, *partition)).or_insert(message);
        assert!(*newest <= message, "{value:?} stands behind {newest}");
        *newest = message;
    }
    let mut committed = 0;
    for (client, outcomes) in outcomes.iter().enumerate() {
        for (message, outcome) in outcomes.iter().enumerate() {
            let records = found.remove(&(client, message)).unwrap_or_default();
            let what = format!("client {client}, message {message}, {outcome:?}: {records:?}");
            match outcome {
                MessageOutcome::Committed(places) => {
                    committed += 1;
                    assert_eq!(places.len(), records_of(message), "{what}");
                    for (index, place) in places.iter().enumerate() {
                        let there = records.get(&index).copied();
                        let there = there.map(|(partition, offset)| (partition as i64, offset));
                        assert_eq!(there, Some(*place), "{what}");
                    }
                }
                MessageOutcome::Aborted => assert!(records.is_empty(), "{what}"),
                MessageOutcome::Unknown => {
                    let is_whole = records.len() == records_of(message);
                    assert!(records.is_empty() || is_whole, "{what}");
                }
            }
        }
    }
    assert!(found.is_empty(), "nobody wrote {found:?}");
    committed
}

/// Until so much time has passed, and each kind of event has been.
async fn is_exactly_once(length: Duration) {
    let kafka = block_in_place(|| Kafka::start("4.4", 3, &[]));
    let topic = unique("transactional");
    block_in_place(|| kafka.create_topic(&topic, PARTITIONS as i32, 3));
    let mut proxies = ["a", "b"].map(|server_id| Some(start_proxy(&kafka, server_id)));
    let mut reader = kafka.java_command("TransactionalReader.java", &[&topic]);
    let mut reader = reader
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let printed = reader.stdout.take().unwrap();
    let printed = std::thread::spawn(move || {
        let lines = std::io::BufReader::new(printed).lines();
        lines.map_while(Result::ok).collect::<Vec<_>>()
    });
    let scene = Arc::new(TransactionScene {
        path: format!("/socket/in?topic={topic}&transactional=true"),
        addresses: Mutex::new(
            proxies
                .each_ref()
                .map(|proxy| proxy.as_ref().unwrap().address()),
        ),
        committed: Default::default(),
        is_over: AtomicBool::new(false),
    });
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let scene = Arc::clone(&scene);
        clients.spawn(async move { (client, write(client, scene).await) });
    }
    let begin = Instant::now();
    let mut random = XorShift::new(7);
    let mut events = 0;
    while events < 4 || begin.elapsed() < length {
        scene.progress().await;
        match events % 4 {
            0 | 2 => {
                let broker = 1 + random.below(3) as u8;
                block_in_place(|| kafka.kill(broker));
                scene.progress().await;
                block_in_place(|| kafka.start_broker(broker));
            }
            kind => {
                let node = random.below(2);
                let proxy = proxies[node].take().unwrap();
                if kind == 1 {
                    proxy.signal("TERM");
                    block_in_place(|| proxy.ended());
                } else {
                    // SIGKILL.
                    drop(proxy);
                }
                let proxy = block_in_place(|| start_proxy(&kafka, ["a", "b"][node]));
                scene.addresses.lock().unwrap()[node] = proxy.address();
                proxies[node] = Some(proxy);
            }
        }
        events += 1;
    }
    scene.progress().await;
    scene.is_over.store(true, Ordering::Relaxed);
    let mut outcomes = vec![Vec::new(); CLIENTS];
    while let Some(ended) = clients.join_next().await {
        let (client, written) = ended.unwrap();
        outcomes[client] = written;
    }
    drop(reader.stdin.take());
    let lines = block_in_place(|| printed.join().unwrap());
    assert_eq!(
        lines.last().map(String::as_str),
        Some("end"),
        "the reader has failed"
    );
    assert!(reader.wait().unwrap().success());
    let read: Vec<_> = lines[..lines.len() - 1]
        .iter()
        .map(|line| {
            let mut parts = line.splitn(3, ' ');
            let mut next = || parts.next().unwrap();
            (
                next().parse().unwrap(),
                next().parse().unwrap(),
                next().to_owned(),
            )
        })
        .collect();
    let committed = check(&outcomes, &read);
    let messages: usize = outcomes.iter().map(Vec::len).sum();
    println!(
        "{events} events in {:.0?}: {messages} messages, {committed} acknowledged, {} records read",
        begin.elapsed(),
        read.len()
    );
}

/// A few kills, or as many as `scripts/transactions` has time for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_is_whole_or_absent_while_brokers_and_proxies_are_killed() {
    let seconds = from_environment("TRANSACTIONS_SECONDS").unwrap_or(0);
    is_exactly_once(Duration::from_secs(seconds)).await;
}
