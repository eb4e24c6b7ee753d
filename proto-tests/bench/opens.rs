//! Figures of opening: how long sockets with a group each take that are opened at once, and what
//! that asks of the brokers.

use std::time::{Duration, Instant};

use memory_broker::{ApiKey, BrokerConfig, MemoryBroker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::cpu::Cpu;
use crate::groups::{first_record, produce_one};
use crate::load::open;
use crate::processes::ProxyProcess;
use crate::{Bench, percentile};

const SOCKETS: usize = 1_000;

/// Against the in-memory broker, on a thread of its own, which counts what it is asked.
pub(crate) async fn opens(bench: &Bench) {
    let thread = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a thread");
    let config = BrokerConfig {
        initial_rebalance_delay: Duration::ZERO,
        ..BrokerConfig::default()
    };
    let broker = thread.spawn(MemoryBroker::start(config)).await;
    let broker = broker.expect("it runs").expect("a free port");
    broker.create_topic("opens", 1);
    let proxy = ProxyProcess::start(bench.binary(), &broker.bootstrap());
    until_ready(&proxy).await;

    let counted = [ApiKey::Produce, ApiKey::Fetch, ApiKey::Metadata];
    let before = counted.map(|api| broker.requests(api));
    let opening = open_at_once(&proxy, "opens").await;
    let after = counted.map(|api| broker.requests(api));
    let each = |n: usize| (after[n] - before[n]) as f64 / SOCKETS as f64;
    let mut figures = opening.join(&proxy, "opens").await;
    figures.extend([
        ("produce_requests_per_open", each(0)),
        ("fetch_requests_per_open", each(1)),
        ("metadata_requests_per_open", each(2)),
    ]);
    bench.print("opens", &figures);
    drop(proxy);
    let _ = thread.spawn(broker.stop()).await;
    thread.shutdown_background();
}

/// The same against a real broker.
pub(crate) async fn opens_kafka(bench: &Bench) {
    let topic = bench.topic("opens", 1).await;
    let proxy = ProxyProcess::start(bench.binary(), bench.bootstrap());
    until_ready(&proxy).await;
    let figures = open_at_once(&proxy, &topic).await.join(&proxy, &topic);
    bench.print("opens_kafka", &figures.await);
}

/// Sockets that stand.
struct Opening {
    started: Instant,
    cpu: Cpu,
    /// Until each had its answer, in seconds.
    times: Vec<f64>,
    readers: JoinSet<()>,
    refused: usize,
}

async fn open_at_once(proxy: &ProxyProcess, topic: &str) -> Opening {
    let cpu = Cpu::of(proxy.pid());
    let started = Instant::now();
    let mut opening = JoinSet::new();
    for n in 0..SOCKETS {
        let target = format!("/socket/out?topic={topic}&clientId={topic}-{n}");
        let port = proxy.port();
        opening.spawn(async move {
            let opened = open(port, &target).await;
            (opened, started.elapsed().as_secs_f64())
        });
    }
    let (mut times, mut readers, mut refused) = (Vec::new(), JoinSet::new(), 0);
    while let Some(opened) = opening.join_next().await {
        match opened.expect("it asks") {
            (Ok((stream, frames)), time) => {
                times.push(time);
                readers.spawn(async move {
                    first_record(stream, frames).await;
                });
            }
            (Err(error), _) => {
                eprintln!("refused: {error}");
                refused += 1;
            }
        }
    }
    Opening {
        started,
        cpu: Cpu::of(proxy.pid()) - cpu,
        times,
        readers,
        refused,
    }
}

impl Opening {
    /// Waits until all have joined their groups: until they have a record. What is to be printed.
    async fn join(mut self, proxy: &ProxyProcess, topic: &str) -> Vec<(&'static str, f64)> {
        produce_one(proxy, topic).await;
        while self.readers.join_next().await.is_some() {}
        vec![
            ("sockets", SOCKETS as f64),
            ("refused", self.refused as f64),
            ("median_s", percentile(&mut self.times, 50.0)),
            ("all_stand_s", percentile(&mut self.times, 100.0)),
            ("goal_s", 5.0),
            ("all_joined_s", self.started.elapsed().as_secs_f64()),
            (
                "proxy_cpu_ms_per_open",
                self.cpu.total_us() / 1e3 / SOCKETS as f64,
            ),
        ]
    }
}

/// Waits until `/ready` says so.
pub(crate) async fn until_ready(proxy: &ProxyProcess) {
    loop {
        let stream = TcpStream::connect(("127.0.0.1", proxy.port())).await;
        let mut stream = stream.expect("it listens");
        let request = b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.expect("open");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer");
        if answer.starts_with(b"HTTP/1.1 200") {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
}
