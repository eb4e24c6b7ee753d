//! A broker that hangs under many groups: who falls silent, for how long, and who is lost.

use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use crate::groups::{PatientReader, record_frame};
use crate::load::open;
use crate::processes::{KafkaProcess, ProxyProcess};
use crate::{Bench, percentile};

const BROKERS: u8 = 3;
const GROUPS: usize = 1_000;
const HANGS_FOR: Duration = Duration::from_secs(30);
/// How long joins are waited for.
const JOINS_MAX: Duration = Duration::from_secs(300);
/// From one record of a topic to the next.
const RECORD_INTERVAL: Duration = Duration::from_millis(200);
/// How soon the cluster fences a broker that hangs.
const SETTINGS: &[&str] = &[
    "broker.session.timeout.ms=3000",
    "broker.heartbeat.interval.ms=500",
    // One broker is the coordinator of all groups, and two follow it.
    "offsets.topic.num.partitions=1",
];

/// A follower of `__consumer_offsets` hangs; commits take until it has left the ISR.
pub(crate) async fn hung_follower(bench: &Bench) {
    measure(bench, "hung_follower", |leader| leader % BROKERS + 1).await;
}

/// The leader of `__consumer_offsets`, which leads a third of the topics, too, hangs.
pub(crate) async fn hung_leader(bench: &Bench) {
    measure(bench, "hung_leader", |leader| leader).await;
}

async fn measure(bench: &Bench, name: &str, hung: impl FnOnce(u8) -> u8) {
    let kafka = KafkaProcess::start_cluster(BROKERS, SETTINGS);
    let topics: Vec<String> = (1..=BROKERS).map(|n| format!("hung-{n}")).collect();
    for topic in &topics {
        kafka.create_topic(topic, BROKERS);
    }
    let proxy = ProxyProcess::start(bench.binary(), kafka.bootstrap());
    let sockets: Vec<Arc<Silence>> = (0..GROUPS).map(|_| Arc::default()).collect();
    let mut tasks = JoinSet::new();
    for topic in &topics {
        tasks.spawn(produce(proxy.port(), topic.clone()));
    }
    for (n, silence) in sockets.iter().enumerate() {
        let topic = &topics[n % topics.len()];
        let target = format!("/socket/out?topic={topic}&clientId=hung-{n}");
        tasks.spawn(consume(proxy.port(), target, Arc::clone(silence)));
    }
    let kcat: Vec<Arc<Silence>> = topics.iter().map(|_| Arc::default()).collect();
    for (topic, silence) in topics.iter().zip(&kcat) {
        tasks.spawn(consume_with_kcat(
            kafka.bootstrap().to_owned(),
            topic.clone(),
            Arc::clone(silence),
        ));
    }
    let deadline = Instant::now() + JOINS_MAX;
    while !sockets.iter().all(|silence| silence.records() > 5) {
        assert!(Instant::now() < deadline, "not every group gets records");
        sleep(Duration::from_millis(100)).await;
    }
    sleep(Duration::from_secs(5)).await;

    let coordinator = kafka.leader("__consumer_offsets");
    let hung = hung(coordinator);
    let leaders: Vec<u8> = topics.iter().map(|topic| kafka.leader(topic)).collect();
    let expired_before = kafka.expired_members(hung);
    for silence in sockets.iter().chain(&kcat) {
        silence.restart();
    }
    kafka.pause(hung);
    sleep(HANGS_FOR).await;
    let lost = kafka.expired_members(hung) - expired_before;
    let longest = |of: &[Arc<Silence>], wanted: &dyn Fn(u8) -> bool| {
        let of = of.iter().enumerate();
        let of = of.filter(|(n, _)| wanted(leaders[n % leaders.len()]));
        let mut times: Vec<f64> = of.map(|(_, silence)| silence.longest()).collect();
        times.push(0.0);
        percentile(&mut times, 100.0)
    };
    let of_others = |leader| leader != hung;
    let of_hung = |leader| leader == hung;
    let figures = [
        ("groups", GROUPS as f64),
        ("hangs_s", HANGS_FOR.as_secs_f64()),
        ("members_lost", lost as f64),
        ("goal_members_lost", 0.0),
        ("silent_worst_s", longest(&sockets, &of_others)),
        ("kcat_silent_worst_s", longest(&kcat, &of_others)),
        ("silent_worst_of_hung_leader_s", longest(&sockets, &of_hung)),
        (
            "kcat_silent_worst_of_hung_leader_s",
            longest(&kcat, &of_hung),
        ),
        ("goal_silent_s", 5.0),
    ];
    for silence in sockets.iter().chain(&kcat) {
        silence.restart();
    }
    kafka.resume(hung);
    sleep(HANGS_FOR).await;
    let all = |_| true;
    let lost_after = kafka.expired_members(hung) - expired_before - lost;
    let after = [
        ("members_lost_after", lost_after as f64),
        ("silent_worst_after_s", longest(&sockets, &all)),
    ];
    bench.print(name, &[&figures[..], &after[..]].concat());
    tasks.abort_all();
}

/// The longest time without a record.
#[derive(Default)]
struct Silence {
    records: AtomicU64,
    state: Mutex<(Option<Instant>, Duration)>,
}

impl Silence {
    fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    fn record(&self) {
        self.records.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.lock().expect("not poisoned");
        let now = Instant::now();
        let since = state.0.replace(now).map(|since| now - since);
        state.1 = state.1.max(since.unwrap_or_default());
    }

    fn restart(&self) {
        let mut state = self.state.lock().expect("not poisoned");
        *state = (Some(Instant::now()), Duration::ZERO);
    }

    /// In seconds, with the one that lasts.
    fn longest(&self) -> f64 {
        let state = self.state.lock().expect("not poisoned");
        let lasting = state.0.map(|since| since.elapsed()).unwrap_or_default();
        state.1.max(lasting).as_secs_f64()
    }
}

/// A record every [`RECORD_INTERVAL`], whatever becomes of those before it.
async fn produce(port: u16, topic: String) {
    let target = format!("/socket/in?topic={topic}");
    let (stream, _) = open(port, &target).await.expect("accepted");
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let acknowledgements = async {
        while read.fill_buf().await.is_ok_and(|bytes| !bytes.is_empty()) {
            let read_now = read.buffer().len();
            read.consume(read_now);
        }
    };
    let records = async {
        let mut tick = interval(RECORD_INTERVAL);
        let frame = record_frame();
        loop {
            tick.tick().await;
            write.write_all(&frame).await.expect("open");
        }
    };
    tokio::select! {
        () = acknowledgements => panic!("the proxy closed a producing socket"),
        () = records => {}
    }
}

async fn consume(port: u16, target: String, silence: Arc<Silence>) {
    let (stream, mut frames) = open(port, &target).await.expect("accepted");
    let mut reader = PatientReader::new(stream);
    while let Some(bytes) = reader.read().await {
        frames.feed(bytes, |_| silence.record());
    }
    eprintln!("{target}: closed");
}

/// What librdkafka's consumer sees of the same topic.
async fn consume_with_kcat(bootstrap: String, topic: String, silence: Arc<Silence>) {
    let mut child = Command::new("kcat")
        .args([
            "-q", "-u", "-b", &bootstrap, "-C", "-t", &topic, "-o", "end",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("kcat runs: scripts/bench installs it");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    while let Ok(Some(_)) = lines.next_line().await {
        silence.record();
    }
}
