//! Figures, as JSON lines. Nothing is asserted about speed: compare ratios within one run.
//!
//! `scripts/bench` builds what is measured and calls this with the names of the figures.

#[allow(
    dead_code,
    clippy::unwrap_used,
    reason = "the tests of the page use all of it"
)]
#[path = "../support/chromium.rs"]
mod chromium;
mod churn;
mod console;
mod cpu;
mod groups;
mod handshakes;
mod hostile;
mod hung_broker;
mod limits;
mod load;
mod native;
mod nginx;
mod openid;
mod opens;
mod processes;
#[path = "../support/random.rs"]
mod random;
mod sockets;
mod start;
mod tls;
mod tls_client;
mod transactions;

use std::cell::OnceCell;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use load::Endpoint;
use processes::{KafkaProcess, ProxyProcess};

/// How long what must happen may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// 100 bytes.
pub(crate) const VALUE: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdefghijklmnopqrstuvwxyzAB";

/// What the figures share: a broker and a proxy, both processes of their own, on the same
/// cores as the load. Each is started for the first figure that needs it.
pub(crate) struct Bench {
    kafka: OnceCell<KafkaProcess>,
    proxy: OnceCell<ProxyProcess>,
    binary: PathBuf,
    label: String,
}

impl Bench {
    fn new(binary: PathBuf, label: String) -> Bench {
        Bench {
            kafka: OnceCell::new(),
            proxy: OnceCell::new(),
            binary,
            label,
        }
    }

    fn proxy(&self) -> &ProxyProcess {
        let start = || ProxyProcess::start(&self.binary, self.bootstrap());
        self.proxy.get_or_init(start)
    }

    pub(crate) fn port(&self) -> u16 {
        self.proxy().port()
    }

    /// Where sockets without TLS are opened.
    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint {
            port: self.port(),
            tls: None,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.proxy().pid()
    }

    pub(crate) fn bootstrap(&self) -> &str {
        self.kafka
            // Figures of what groups do once they have joined.
            .get_or_init(|| KafkaProcess::start(&["group.initial.rebalance.delay.ms=0"]))
            .bootstrap()
    }

    /// The program that is measured.
    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    /// Creates a topic of its own for one figure.
    pub(crate) async fn topic(&self, stem: &str, partitions: i32) -> String {
        let name = format!("{stem}-{}", std::process::id());
        native::create_topic(self.bootstrap(), &name, partitions).await;
        name
    }

    /// Writes `records` 100-byte values with kcat; processor time of kcat in microseconds.
    pub(crate) fn fill(&self, topic: &str, records: usize) -> f64 {
        fill(self.bootstrap(), topic, records)
    }

    /// Runs kcat to its end; its processor time in microseconds.
    pub(crate) fn kcat(&self, args: &[&str]) -> f64 {
        kcat(self.bootstrap(), args)
    }

    pub(crate) fn print(&self, name: &str, figures: &[(&str, f64)]) {
        let mut line = format!(r#"{{"bench":"{name}","build":"{}""#, self.label);
        for (key, value) in figures {
            line += &format!(r#","{key}":{}"#, (value * 1e3).round() / 1e3);
        }
        println!("{line}}}");
    }

    /// Says what of a figure was not measured, and why.
    pub(crate) fn print_skipped(&self, name: &str, what: &str, why: &str) {
        let label = &self.label;
        println!(r#"{{"bench":"{name}","build":"{label}","{what}":"skipped: {why}"}}"#);
    }
}

/// Writes `records` 100-byte values with kcat; processor time of kcat in microseconds.
pub(crate) fn fill(bootstrap: &str, topic: &str, records: usize) -> f64 {
    let mut lines = tempfile::NamedTempFile::new().expect("a temporary file");
    let line = format!("{VALUE}\n");
    let block = line.repeat(1_000);
    for _ in 0..records / 1_000 {
        lines.write_all(block.as_bytes()).expect("disk space");
    }
    lines.flush().expect("disk space");
    let path = lines.path().to_str().expect("a plain path");
    let args = [
        "-P",
        "-t",
        topic,
        "-p",
        "0",
        "-X",
        "enable.idempotence=true",
        "-X",
        "acks=all",
        "-l",
        path,
    ];
    kcat(bootstrap, &args)
}

/// Runs kcat to its end; its processor time in microseconds.
fn kcat(bootstrap: &str, args: &[&str]) -> f64 {
    let before = cpu::Cpu::ended_children();
    let status = Command::new("kcat")
        .args(["-q", "-b", bootstrap])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .expect("kcat runs: scripts/bench installs it");
    assert!(status.success(), "kcat {args:?}: {status}");
    (cpu::Cpu::ended_children() - before).total_us()
}

/// The value below which `p` percent of the samples lie.
pub(crate) fn percentile(samples: &mut [f64], p: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[((samples.len() - 1) as f64 * p / 100.0).round() as usize]
}

/// Rounds of the latency figure that count, after one that does not.
const LATENCY_ROUNDS: usize = 3;
/// Records of one round, 1,000 a second; those of the first second do not count.
pub(crate) const LATENCY_RECORDS: usize = 6_000;

const ALL: &[&str] = &[
    "native_produce",
    "native_consume",
    "socket_produce",
    "socket_consume",
    "socket_produce_avro",
    "socket_consume_avro",
    "latency",
    "fanout",
    "idle",
    "tls",
    "idle_tls",
    "handshakes",
    "start",
    "opens",
    "opens_kafka",
    "joins",
    "heartbeats",
    "hung_follower",
    "hung_leader",
    "parsers",
    "hostile",
    "churn",
    "console",
    "limits",
    "transactions",
    "openid",
    "openid_idle",
];

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut proxy = None;
    let mut label = "release".to_owned();
    let mut wanted = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--proxy" => proxy = Some(args.next().expect("--proxy PATH").into()),
            "--label" => label = args.next().expect("--label NAME"),
            "--bench" => {} // cargo bench adds it
            name => match ALL.iter().find(|known| **known == name) {
                Some(known) => wanted.push(*known),
                None => {
                    eprintln!("unknown figure {name}; known: {}", ALL.join(" "));
                    std::process::exit(2);
                }
            },
        }
    }
    if wanted.is_empty() {
        wanted = ALL.to_vec();
    }
    // Cargo's own of this profile is not taken: it was built for tests and figures.
    let Some(proxy) = proxy else {
        eprintln!("--proxy PATH is missing: scripts/bench builds and names the program to measure");
        std::process::exit(2);
    };
    let bench = Bench::new(proxy, label);
    for name in wanted {
        match name {
            "native_produce" => native::produce(&bench).await,
            "native_consume" => native::consume(&bench).await,
            "socket_produce" => sockets::produce(&bench).await,
            "socket_consume" => sockets::consume(&bench).await,
            "socket_produce_avro" => sockets::produce_avro(&bench).await,
            "socket_consume_avro" => sockets::consume_avro(&bench).await,
            "latency" => {
                // They take turns, and nothing counts until the broker is warm: the first
                // would include the warm-up.
                let (mut socket, mut native) = (Vec::new(), Vec::new());
                for round in 0..=LATENCY_ROUNDS {
                    let (sockets, natives) = (
                        sockets::latency(&bench, round).await,
                        native::latency(&bench, round).await,
                    );
                    if round > 0 {
                        socket.extend(sockets);
                        native.extend(natives);
                    }
                }
                sockets::compare_latency(&bench, socket, native);
            }
            "fanout" => sockets::fanout(&bench).await,
            "idle" => sockets::idle(&bench).await,
            "tls" => tls::tls(&bench).await,
            "idle_tls" => tls::idle(&bench).await,
            "handshakes" => handshakes::handshakes(&bench).await,
            "start" => start::start(&bench).await,
            "opens" => opens::opens(&bench).await,
            "opens_kafka" => opens::opens_kafka(&bench).await,
            "joins" => groups::joins(&bench).await,
            "heartbeats" => groups::heartbeats(&bench).await,
            "hung_follower" => hung_broker::hung_follower(&bench).await,
            "hung_leader" => hung_broker::hung_leader(&bench).await,
            "parsers" => hostile::parsers(&bench).await,
            "hostile" => hostile::hostile(&bench).await,
            "churn" => churn::churn(&bench).await,
            "console" => console::console(&bench).await,
            "limits" => limits::limits(&bench).await,
            "transactions" => transactions::transactions(&bench).await,
            "openid" => openid::openid(&bench).await,
            "openid_idle" => openid::idle(&bench).await,
            _ => unreachable!("names come from ALL"),
        }
    }
}
