//! Figures of the whole program: WebSockets on one side, a real broker on the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::cpu::{Cpu, resident_kib};
use crate::load::{
    Endpoint, SocketStream, binary_frame, consume_all, open, produce_all, text_frame,
};
use crate::{Bench, LATENCY_RECORDS, VALUE, percentile};

/// One socket produces JSON with 1,000 records in flight.
pub(crate) async fn produce(bench: &Bench) {
    let mut frame = Vec::new();
    let message = format!(r#"{{"value":{{"value":"{VALUE}"}}}}"#);
    text_frame(&mut frame, message.as_bytes());
    produce_frames(bench, "socket_produce", "", frame).await;
}

/// The same records in Avro.
pub(crate) async fn produce_avro(bench: &Bench) {
    let mut frame = Vec::new();
    // No key, the value, no headers, no message id, no tombstone.
    let length = [0xc8, 0x01];
    let datum = [&[0], &length[..], VALUE.as_bytes(), &[0, 0, 0]].concat();
    binary_frame(&mut frame, &datum);
    produce_frames(bench, "socket_produce_avro", "&socketPayload=avro", frame).await;
}

async fn produce_frames(bench: &Bench, name: &str, query: &str, one: Vec<u8>) {
    const RECORDS: usize = 400_000;
    let topic = bench.topic(name, 1).await;
    let (stream, frames) = open(bench.port(), &format!("/socket/in?topic={topic}{query}"))
        .await
        .expect("the proxy accepts");
    let cpu = Cpu::of(bench.pid());
    let started = Instant::now();
    produce_all(stream, frames, &one, RECORDS).await;
    let took = started.elapsed();
    let cpu = Cpu::of(bench.pid()) - cpu;
    bench.print(
        name,
        &[
            ("records", RECORDS as f64),
            ("records_per_s", RECORDS as f64 / took.as_secs_f64()),
            ("proxy_cpu_us_per_record", cpu.total_us() / RECORDS as f64),
            ("goal_us", 8.0),
        ],
    );
}

/// One socket reads a long log from its start, as JSON.
pub(crate) async fn consume(bench: &Bench) {
    consume_frames(bench, "socket_consume", "").await;
}

/// The same in Avro.
pub(crate) async fn consume_avro(bench: &Bench) {
    consume_frames(bench, "socket_consume_avro", "&socketPayload=avro").await;
}

async fn consume_frames(bench: &Bench, name: &str, query: &str) {
    const RECORDS: usize = 2_000_000;
    let topic = bench.topic(name, 1).await;
    bench.fill(&topic, RECORDS);
    let target = format!("/socket/out?topic={topic}&clientId={topic}&autoCommit=true{query}");
    let cpu = Cpu::of(bench.pid());
    let started = Instant::now();
    let (stream, frames) = open(bench.port(), &target)
        .await
        .expect("the proxy accepts");
    let took = consume_all(stream, frames, RECORDS).await.elapsed();
    let cpu = Cpu::of(bench.pid()) - cpu;
    bench.print(
        name,
        &[
            ("records", RECORDS as f64),
            ("records_per_s", RECORDS as f64 / took.as_secs_f64()),
            (
                "first_record_ms",
                (started.elapsed() - took).as_secs_f64() * 1e3,
            ),
            ("proxy_cpu_us_per_record", cpu.total_us() / RECORDS as f64),
            ("goal_us", 3.0),
        ],
    );
}

/// Open loop, 1,000 records a second, socket in to socket out. Microseconds.
pub(crate) async fn latency(bench: &Bench, round: usize) -> Vec<f64> {
    let topic = bench.topic(&format!("socket-latency-{round}"), 1).await;
    let (mut from, mut frames) = open(
        bench.port(),
        &format!("/socket/out?topic={topic}&clientId={topic}&offsetResetStrategy=earliest"),
    )
    .await
    .expect("the proxy accepts");
    let (into, mut answers) = open(bench.port(), &format!("/socket/in?topic={topic}"))
        .await
        .expect("the proxy accepts");
    let (mut answers_read, mut into) = into.into_split();
    let epoch = Instant::now();
    let total = LATENCY_RECORDS;
    let reader = tokio::spawn(async move {
        let mut latencies = Vec::with_capacity(total);
        let mut buffer = vec![0; 64 << 10];
        while latencies.len() < total {
            let n = from.read(&mut buffer).await.expect("open");
            assert!(n > 0, "the proxy closed the socket");
            let now = epoch.elapsed().as_nanos() as u64;
            frames.feed(&buffer[..n], |message| {
                latencies.push((now - stamp_in(message)) as f64 / 1e3);
            });
        }
        latencies
    });
    let drain = tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        let mut answered = 0;
        while answered < total {
            let n = answers_read.read(&mut buffer).await.expect("open");
            assert!(n > 0, "the proxy closed the socket");
            answers.feed(&buffer[..n], |_| answered += 1);
        }
    });
    let mut frame = Vec::new();
    for i in 0..total as u64 {
        // Sent when it is due, and measured from when it was due: no coordinated omission.
        let due = Duration::from_millis(i);
        tokio::time::sleep_until((epoch + due).into()).await;
        let stamp = format!("{:020}", due.as_nanos());
        let message = format!(r#"{{"value":{{"value":"{stamp}{}"}}}}"#, &VALUE[20..]);
        frame.clear();
        text_frame(&mut frame, message.as_bytes());
        into.write_all(&frame).await.expect("open");
    }
    drain.await.expect("answers arrive");
    // The first second warms up.
    reader.await.expect("records arrive").split_off(1_000)
}

/// The 20 digits with which the value of a delivered message starts.
fn stamp_in(message: &[u8]) -> u64 {
    let marker = br#""value":{"value":""#;
    let at = message
        .windows(marker.len())
        .position(|w| w == marker)
        .expect("a delivered record")
        + marker.len();
    std::str::from_utf8(&message[at..at + 20])
        .ok()
        .and_then(|digits| digits.parse().ok())
        .expect("a stamped value")
}

/// Consuming sockets on one topic, a group each, that count what they are sent.
pub(crate) struct ConsumingSockets {
    delivered: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
    readers: JoinSet<()>,
}

impl ConsumingSockets {
    pub(crate) async fn open(at: &Endpoint, topic: &str, sockets: usize) -> ConsumingSockets {
        let delivered = Arc::new(AtomicU64::new(0));
        let bytes = Arc::new(AtomicU64::new(0));
        let mut readers = JoinSet::new();
        for i in 0..sockets {
            let target = format!("/socket/out?topic={topic}&clientId={topic}-{i}");
            let (mut stream, mut frames) = at.open(&target).await.expect("accepted");
            let (delivered, bytes) = (Arc::clone(&delivered), Arc::clone(&bytes));
            readers.spawn(async move {
                let mut buffer = [0; 2048];
                while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                    bytes.fetch_add(n as u64, Ordering::Relaxed);
                    frames.feed(&buffer[..n], |_| {
                        delivered.fetch_add(1, Ordering::Relaxed);
                    });
                }
            });
        }
        ConsumingSockets {
            delivered,
            bytes,
            readers,
        }
    }

    /// Produces one record and waits until it has reached all: then all have joined.
    /// Returns the producing socket and the frame it sent.
    pub(crate) async fn until_all_have_joined(
        &self,
        at: &Endpoint,
        topic: &str,
    ) -> (SocketStream, Vec<u8>) {
        let target = format!("/socket/in?topic={topic}");
        let (mut into, _) = at.open(&target).await.expect("accepted");
        let mut frame = Vec::new();
        let message = format!(r#"{{"value":{{"value":"{VALUE}"}}}}"#);
        text_frame(&mut frame, message.as_bytes());
        into.write_all(&frame).await.expect("open");
        into.flush().await.expect("open");
        until(&self.delivered, self.readers.len() as u64).await;
        (into, frame)
    }
}

/// Sockets on one topic, 100 records a second, against a bare loop of `send`.
pub(crate) async fn fanout(bench: &Bench) {
    const SOCKETS: usize = 1_000;
    const RECORDS: usize = 1_000;
    let topic = bench.topic("fanout", 1).await;
    let started = Instant::now();
    let at = bench.endpoint();
    let consumers = ConsumingSockets::open(&at, &topic, SOCKETS).await;
    let opened = started.elapsed();
    let (mut into, frame) = consumers.until_all_have_joined(&at, &topic).await;
    let joined = started.elapsed();

    let cpu = Cpu::of(bench.pid());
    paced(RECORDS, async || {
        into.write_all(&frame).await.expect("open")
    })
    .await;
    until(&consumers.delivered, (SOCKETS * (RECORDS + 1)) as u64).await;
    let cpu = Cpu::of(bench.pid()) - cpu;
    let frame_len =
        consumers.bytes.load(Ordering::Relaxed) / consumers.delivered.load(Ordering::Relaxed);
    drop(consumers);
    let deliveries = (SOCKETS * RECORDS) as f64;
    let bare = bare_send(SOCKETS, RECORDS, frame_len as usize).await / deliveries;
    let total = cpu.total_us() / deliveries;
    bench.print(
        "fanout",
        &[
            ("sockets", SOCKETS as f64),
            ("open_s", opened.as_secs_f64()),
            ("all_joined_s", joined.as_secs_f64()),
            ("proxy_user_us_per_delivery", cpu.user_us / deliveries),
            ("goal_user_us", 2.0),
            ("proxy_total_us_per_delivery", total),
            ("bare_send_us_per_delivery", bare),
            ("ratio", total / bare),
            ("goal_ratio", 1.3),
        ],
    );
}

async fn paced(count: usize, mut each: impl AsyncFnMut()) {
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    for _ in 0..count {
        tick.tick().await;
        each().await;
    }
}

async fn until(counter: &AtomicU64, wanted: u64) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while counter.load(Ordering::Relaxed) < wanted {
        let so_far = counter.load(Ordering::Relaxed);
        assert!(Instant::now() < deadline, "{so_far} of {wanted} deliveries");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Microseconds that one thread spends on sending `records` times to each of `sockets`.
async fn bare_send(sockets: usize, records: usize, len: usize) -> f64 {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .expect("a port");
    let address = listener.local_addr().expect("bound");
    let received = Arc::new(AtomicU64::new(0));
    let mut senders = Vec::new();
    let mut readers = Vec::new();
    for _ in 0..sockets {
        let mut client = tokio::net::TcpStream::connect(address)
            .await
            .expect("connects");
        let (server, _) = listener.accept().await.expect("accepts");
        server.set_nodelay(true).expect("a TCP socket");
        senders.push(server.into_std().expect("a socket"));
        let received = Arc::clone(&received);
        readers.push(tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok(n @ 1..) = client.read(&mut buffer).await {
                received.fetch_add(n as u64, Ordering::Relaxed);
            }
        }));
    }
    let frame = vec![b'x'; len];
    let sender = tokio::task::spawn_blocking(move || {
        use std::io::Write;
        let before = Cpu::thread();
        let started = Instant::now();
        for round in 0..records as u32 {
            let due = started + Duration::from_millis(10) * round;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            for mut socket in &senders {
                socket.write_all(&frame).expect("open");
            }
        }
        (Cpu::thread() - before, senders)
    });
    let (cpu, senders) = sender.await.expect("sends");
    until(&received, (sockets * records * len) as u64).await;
    drop(senders);
    for reader in readers {
        reader.abort();
    }
    cpu.total_us()
}

/// Resident memory of open consuming sockets that have nothing to read.
pub(crate) async fn idle(bench: &Bench) {
    const SOCKETS: usize = 5_000;
    let topic = bench.topic("idle", 1).await;
    let before = resident_kib(bench.pid());
    let started = Instant::now();
    let at = bench.endpoint();
    let consumers = ConsumingSockets::open(&at, &topic, SOCKETS).await;
    consumers.until_all_have_joined(&at, &topic).await;
    let joined = started.elapsed();
    let cpu = Cpu::of(bench.pid());
    // Twenty seconds of heartbeats, pings and commits: what being idle costs.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let cpu = Cpu::of(bench.pid()) - cpu;
    let after = resident_kib(bench.pid());
    bench.print(
        "idle",
        &[
            ("sockets", SOCKETS as f64),
            ("all_joined_s", joined.as_secs_f64()),
            ("resident_kib_per_socket", (after - before) / SOCKETS as f64),
            ("goal_kib", 16.0),
            ("cpu_percent_of_one_core", cpu.total_us() / 20e6 * 100.0),
        ],
    );
}

/// Prints two latency distributions of one run beside each other.
pub(crate) fn compare_latency(bench: &Bench, mut socket: Vec<f64>, mut native: Vec<f64>) {
    let (p50, p99) = (percentile(&mut socket, 50.0), percentile(&mut socket, 99.0));
    let (n50, n99) = (percentile(&mut native, 50.0), percentile(&mut native, 99.0));
    bench.print(
        "latency",
        &[
            ("socket_p50_ms", p50 / 1e3),
            ("socket_p99_ms", p99 / 1e3),
            ("native_p50_ms", n50 / 1e3),
            ("native_p99_ms", n99 / 1e3),
            ("p50_ratio", p50 / n50),
            ("p99_ratio", p99 / n99),
            ("goal_ratio", 1.5),
        ],
    );
}
