//! Figures of many consumer groups: how long joining takes, and how punctual heartbeats are.

use std::time::{Duration, Instant};

use memory_broker::{
    ApiKey, BrokerConfig, DepartureCause, FaultAction, FaultRule, GroupHistory, MemoryBroker,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Interval, interval, timeout};

use crate::load::{Frames, open, text_frame};
use crate::processes::{KafkaProcess, ProxyProcess};
use crate::{Bench, VALUE, native, percentile};

/// How long joins are waited for.
const JOINS_TIMEOUT: Duration = Duration::from_secs(900);

/// Groups of one member each that all join at once, with the brokers' default delay for the
/// first rebalance of a group. A group is taken to be assigned when its member gets a record.
pub(crate) async fn joins(bench: &Bench) {
    const GROUPS: usize = 3_000;
    let kafka = KafkaProcess::start(&[]);
    let topic = format!("joins-{}", std::process::id());
    native::create_topic(kafka.bootstrap(), &topic, 1).await;
    let proxy = ProxyProcess::start(bench.binary(), kafka.bootstrap());
    produce_one(&proxy, &topic).await;

    let started = Instant::now();
    let (assigned, mut joined) = mpsc::channel(GROUPS);
    let mut members = JoinSet::new();
    for n in 0..GROUPS {
        let target = format!("/socket/out?topic={topic}&clientId={topic}-{n}");
        let (port, assigned) = (proxy.port(), assigned.clone());
        members.spawn(async move {
            let (stream, frames) = open(port, &target).await.expect("accepted");
            let reader = first_record(stream, frames).await;
            let _ = assigned.send(started.elapsed().as_secs_f64()).await;
            drop(assigned);
            reader.read_to_the_end().await;
        });
    }
    drop(assigned);
    let mut times = Vec::new();
    let mut connections_max = 0;
    let all = async {
        let mut sample = interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                time = joined.recv() => match time {
                    Some(time) => times.push(time),
                    None => return,
                },
                _ = sample.tick() => {
                    connections_max = connections_max.max(proxy.broker_connections());
                }
            }
        }
    };
    let _ = timeout(JOINS_TIMEOUT, all).await;
    let took = started.elapsed();
    let assigned = times.len();
    // Those that have not joined have taken at least this long.
    times.resize(GROUPS, took.as_secs_f64());
    bench.print(
        "joins",
        &[
            ("groups", GROUPS as f64),
            ("assigned", assigned as f64),
            ("seconds", took.as_secs_f64()),
            ("goal_seconds", 15.0),
            ("group_median_s", percentile(&mut times, 50.0)),
            ("group_worst_s", percentile(&mut times, 100.0)),
            ("broker_connections_max", connections_max as f64),
        ],
    );
}

/// Groups that commit once a second at a coordinator that takes 50 ms for each commit: how
/// late their heartbeats come, as the broker sees it.
pub(crate) async fn heartbeats(bench: &Bench) {
    const GROUPS: usize = 600;
    const COMMIT_TAKES: Duration = Duration::from_millis(50);
    const LENGTH: Duration = Duration::from_secs(60);
    let broker = MemoryBroker::start(BrokerConfig::default()).await;
    let broker = broker.expect("a free port");
    broker.create_topic("heartbeats", 1);
    let proxy = ProxyProcess::start(bench.binary(), &broker.bootstrap());
    produce_one(&proxy, "heartbeats").await;
    let group = |n: usize| format!("heartbeats-{n}-group");

    let mut joining = JoinSet::new();
    for n in 0..GROUPS {
        let target = format!("/socket/out?topic=heartbeats&clientId=heartbeats-{n}");
        let port = proxy.port();
        joining.spawn(async move {
            let (stream, frames) = open(port, &target).await.expect("accepted");
            first_record(stream, frames).await
        });
    }
    let mut readers = JoinSet::new();
    while let Some(reader) = joining.join_next().await {
        readers.spawn(reader.expect("it gets the record").read_to_the_end());
    }
    let slow = FaultAction::Delay(COMMIT_TAKES);
    let slow = FaultRule::on(ApiKey::OffsetCommit, slow).always();
    broker.faults().add(slow);
    let commits = broker.requests(ApiKey::OffsetCommit);
    let mut connections_max = 0;
    // Something to commit for everybody, every second.
    let mut tick = interval(Duration::from_millis(500));
    let (mut into, _) = open(proxy.port(), "/socket/in?topic=heartbeats")
        .await
        .expect("accepted");
    let frame = record_frame();
    let started = Instant::now();
    while started.elapsed() < LENGTH {
        tick.tick().await;
        into.write_all(&frame).await.expect("open");
        connections_max = connections_max.max(broker.connections());
    }
    let commits = broker.requests(ApiKey::OffsetCommit) - commits;
    let now = Instant::now();
    let histories: Vec<GroupHistory> = (0..GROUPS)
        .filter_map(|n| broker.group_history(&group(n)))
        .collect();
    let gap = |history: &GroupHistory| history.heartbeat_gap_max(now).as_secs_f64();
    let mut gaps: Vec<f64> = histories.iter().map(gap).collect();
    let departures = histories.iter().flat_map(|history| &history.departures);
    let lost = departures.filter(|gone| gone.cause == DepartureCause::SessionExpired);
    bench.print(
        "heartbeats",
        &[
            ("groups", GROUPS as f64),
            ("commit_takes_ms", COMMIT_TAKES.as_secs_f64() * 1e3),
            ("commits_per_s", commits as f64 / LENGTH.as_secs_f64()),
            ("gap_median_s", percentile(&mut gaps, 50.0)),
            ("gap_worst_s", percentile(&mut gaps, 100.0)),
            ("heartbeat_interval_s", 3.0),
            ("members_lost", lost.count() as f64),
            ("goal_members_lost", 0.0),
            ("broker_connections_max", connections_max as f64),
        ],
    );
    readers.abort_all();
    drop(proxy);
    broker.stop().await;
}

/// Reads until a record has come.
pub(crate) async fn first_record(stream: TcpStream, mut frames: Frames) -> PatientReader {
    let mut reader = PatientReader::new(stream);
    let mut records = 0;
    while records == 0 {
        let bytes = reader.read().await.expect("the proxy keeps the socket");
        frames.feed(bytes, |_| records += 1);
    }
    reader
}

/// Reads, and shows the proxy now and then that it lives: whoever answers no ping for two
/// ping intervals (of 20 s) is taken to be gone.
pub(crate) struct PatientReader {
    stream: TcpStream,
    buffer: [u8; 2048],
    pongs: Interval,
}

impl PatientReader {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: [0; 2048],
            pongs: interval(Duration::from_secs(10)),
        }
    }

    async fn read_to_the_end(mut self) {
        while self.read().await.is_some() {}
    }

    /// The next bytes; `None` at the end.
    pub(crate) async fn read(&mut self) -> Option<&[u8]> {
        loop {
            tokio::select! {
                read = self.stream.read(&mut self.buffer) => match read {
                    Ok(n @ 1..) => return Some(&self.buffer[..n]),
                    _ => return None,
                },
                _ = self.pongs.tick() => {
                    // An unsolicited pong without payload, masked with zeros.
                    self.stream.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await.ok()?;
                }
            }
        }
    }
}

/// Writes one record and waits for its acknowledgement.
pub(crate) async fn produce_one(proxy: &ProxyProcess, topic: &str) {
    let target = format!("/socket/in?topic={topic}");
    let (mut stream, frames) = open(proxy.port(), &target).await.expect("accepted");
    stream.write_all(&record_frame()).await.expect("open");
    first_record(stream, frames).await;
}

pub(crate) fn record_frame() -> Vec<u8> {
    let mut frame = Vec::new();
    let message = format!(r#"{{"value":{{"value":"{VALUE}"}}}}"#);
    text_frame(&mut frame, message.as_bytes());
    frame
}
