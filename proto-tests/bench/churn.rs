//! What sockets that come and go at random leave behind.
//!
//! The proxy runs in this process, on threads of its own: what it holds is not seen from outside.
//! `CHURN_OPENS=n` has so many sockets opened; four thousand take about a minute.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kafka_websocket_proxy::app::{App, HeldResources};
use kafka_websocket_proxy::config::Config;
use kafka_websocket_proxy::server;
use memory_broker::{BrokerConfig, MemoryBroker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::Bench;
use crate::cpu::resident_kib;
use crate::groups::record_frame;
use crate::load::{Frames, open, text_frame};
use crate::random::{XorShift, from_environment, random_seed};

/// How many are open at a time.
const CLIENTS: usize = 300;
/// How many are opened in all.
const OPENS: u64 = 4_000;
/// How many are opened before anything is counted.
const WARM_UP: u64 = 1_000;
/// Consumer groups of several clients.
const SHARED_GROUPS: usize = 12;
/// The longest that a client stays.
const STAY_MAX: Duration = Duration::from_secs(6);
/// Those of a proxy without sockets: for the metadata, and for what is read of the session topic.
const IDLE_CONNECTIONS: usize = 2;
/// How long what is left may take to be gone.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);

/// 300 sockets that come and go, with commits, and what there is of them before and after.
pub(crate) async fn churn(bench: &Bench) {
    let mut threads = Builder::new_multi_thread();
    let threads = threads.worker_threads(2).enable_all().build();
    let threads = threads.expect("threads");
    let subject = threads.spawn(ChurnSubject::start()).await.expect("it runs");
    let random = XorShift::new(from_environment("CHURN_SEED").unwrap_or_else(random_seed));
    run(&subject, &random, WARM_UP).await;
    let before = subject.settled(threads.handle()).await;

    let started = Instant::now();
    let opens = from_environment("CHURN_OPENS").unwrap_or(OPENS);
    let mut busiest = subject.remains(threads.handle());
    let mut run = Box::pin(run(&subject, &random, opens));
    let counts = loop {
        tokio::select! {
            counts = &mut run => break counts,
            () = sleep(Duration::from_millis(500)) => {}
        }
        let remains = subject.remains(threads.handle());
        if remains.tasks > busiest.tasks {
            busiest = remains;
        }
    };
    drop(run);
    let took = started.elapsed();
    let after = subject.settled(threads.handle()).await;
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed) as f64;
    let mut figures = vec![
        ("seconds", took.as_secs_f64()),
        ("opened", count(&counts.opened)),
        ("refused", count(&counts.refused)),
        ("delivered", count(&counts.delivered)),
        ("committed", count(&counts.committed)),
    ];
    for (names, remains) in [(BEFORE, before), (BUSIEST, busiest), (AFTER, after)] {
        figures.extend(names.into_iter().zip(remains.counts()));
    }
    bench.print("churn", &figures);
    let _ = threads.spawn(subject.stop()).await;
    threads.shutdown_background();
}

const BEFORE: [&str; 6] = [
    "before_sessions",
    "before_members",
    "before_positions",
    "before_tasks",
    "before_resident_kib",
    "before_broker_kib",
];
const BUSIEST: [&str; 6] = [
    "busy_sessions",
    "busy_members",
    "busy_positions",
    "busy_tasks",
    "busy_resident_kib",
    "busy_broker_kib",
];
const AFTER: [&str; 6] = [
    "after_sessions",
    "after_members",
    "after_positions",
    "after_tasks",
    "after_resident_kib",
    "after_broker_kib",
];

/// The proxy and its broker.
struct ChurnSubject {
    broker: MemoryBroker,
    app: App,
    port: u16,
    stop: CancellationToken,
}

/// What is there on behalf of sockets.
struct HeldForSockets {
    held: HeldResources,
    /// Members of groups, at the broker.
    members: usize,
    /// Tasks of proxy and broker.
    tasks: usize,
    /// Of this process: proxy, broker and clients.
    resident_kib: f64,
    /// Records and groups that the broker keeps, which sockets leave behind as they should.
    broker_kib: f64,
}

impl HeldForSockets {
    fn counts(&self) -> [f64; 6] {
        [
            self.held.placed_sockets as f64,
            self.members as f64,
            self.held.cursors as f64,
            self.tasks as f64,
            self.resident_kib,
            self.broker_kib,
        ]
    }
}

impl ChurnSubject {
    async fn start() -> Self {
        let broker = MemoryBroker::start(BrokerConfig {
            initial_rebalance_delay: Duration::from_millis(20),
            ..BrokerConfig::default()
        });
        let broker = broker.await.expect("a free port");
        broker.create_topic("narrow", 2);
        broker.create_topic("wide", 30);
        let mut config = Config::default();
        config.client.bootstrap_servers = vec![broker.bootstrap()];
        config.consumer.heartbeat_interval = Duration::from_millis(200);
        config.client.connections_max_idle = Duration::from_secs(2);
        let grace = config.server.shutdown_grace;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let (app, stop) = (App::new(config), CancellationToken::new());
        tokio::spawn(server::run(listener, app.clone(), stop.clone(), grace));
        Self {
            broker,
            app,
            port,
            stop,
        }
    }

    fn remains(&self, threads: &Handle) -> HeldForSockets {
        let groups = (0..SHARED_GROUPS).map(|n| format!("shared-{n}"));
        let groups = groups.chain((0..CLIENTS).map(|n| format!("own-{n}")));
        let groups = groups.filter_map(|name| self.broker.group(&name));
        HeldForSockets {
            held: self.app.held_resources(),
            members: groups.map(|group| group.members.len()).sum(),
            tasks: threads.metrics().num_alive_tasks(),
            resident_kib: resident_kib(std::process::id()),
            broker_kib: self.broker.memory_used() as f64 / 1024.0,
        }
    }

    /// What is left once the last clients are gone, and connections that are idle.
    async fn settled(&self, threads: &Handle) -> HeldForSockets {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        loop {
            let remains = self.remains(threads);
            let is_nothing = remains.held == HeldResources::default() && remains.members == 0;
            let is_idle = is_nothing && self.broker.connections() <= IDLE_CONNECTIONS;
            if is_idle || Instant::now() > deadline {
                return remains;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.broker.stop().await;
    }
}

/// What became of the sockets.
#[derive(Debug, Default)]
struct ChurnTotals {
    left: AtomicUsize,
    opened: AtomicUsize,
    refused: AtomicUsize,
    delivered: AtomicUsize,
    committed: AtomicUsize,
}

/// Has clients come and go until so many were opened.
async fn run(subject: &ChurnSubject, random: &XorShift, opens: u64) -> Arc<ChurnTotals> {
    let counts = Arc::new(ChurnTotals {
        left: AtomicUsize::new(opens as usize),
        ..ChurnTotals::default()
    });
    let mut clients = JoinSet::new();
    let mut seeds = random.clone();
    for number in 0..CLIENTS {
        let client = RandomClient {
            number,
            port: subject.port,
            random: XorShift::new(seeds.below(usize::MAX >> 33) as u64),
            counts: Arc::clone(&counts),
        };
        clients.spawn(client.run());
    }
    clients.join_all().await;
    counts
}

/// One socket after the other.
struct RandomClient {
    number: usize,
    port: u16,
    random: XorShift,
    counts: Arc<ChurnTotals>,
}

impl RandomClient {
    async fn run(mut self) {
        let order = Ordering::Relaxed;
        let one_less = |left: usize| left.checked_sub(1);
        while self
            .counts
            .left
            .fetch_update(order, order, one_less)
            .is_ok()
        {
            let produces = self.random.below(3) == 0;
            let target = match produces {
                true => format!("/socket/in?topic={}", self.random.pick(&["wide", "narrow"])),
                false => self.consuming_target(),
            };
            // A client's last socket may not be over for the server, which refuses it then.
            let Ok((mut stream, frames)) = open(self.port, &target).await else {
                self.counts.refused.fetch_add(1, order);
                continue;
            };
            self.counts.opened.fetch_add(1, order);
            if produces {
                let records = record_frame().repeat(self.random.below(30));
                let _ = stream.write_all(&records).await;
            }
            let stay = self.random.between(Duration::ZERO, STAY_MAX);
            let _ = timeout(stay, self.read(&mut stream, frames)).await;
            if self.random.below(2) == 0 {
                // 1000, masked with zeros.
                let close = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];
                let _ = stream.write_all(&close).await;
            }
        }
    }

    fn consuming_target(&mut self) -> String {
        let id = self.number;
        let (topic, group) = match self.random.below(2) {
            0 => ("narrow", format!("own-{id}")),
            _ => ("wide", format!("shared-{}", id % SHARED_GROUPS)),
        };
        let auto_commit = self.random.pick(&["true", "false"]);
        let more = self.random.pick(&["", "&rate=50"]);
        format!(
            "/socket/out?topic={topic}&groupId={group}&clientId=c{id}&autoCommit={auto_commit}{more}"
        )
    }

    /// Reads as long as something comes, and commits now and then.
    async fn read(&mut self, stream: &mut TcpStream, mut frames: Frames) {
        let (mut buffer, mut commits) = (vec![0; 16 << 10], Vec::new());
        while let Ok(n @ 1..) = stream.read(&mut buffer).await {
            frames.feed(&buffer[..n], |message| {
                let Some(id) = message_id(message) else {
                    return;
                };
                self.counts.delivered.fetch_add(1, Ordering::Relaxed);
                if self.random.below(10) == 0 {
                    self.counts.committed.fetch_add(1, Ordering::Relaxed);
                    let commit = format!(r#"{{"wsProxyMessageId":"{id}"}}"#);
                    text_frame(&mut commits, commit.as_bytes());
                }
            });
            if stream.write_all(&commits).await.is_err() {
                return;
            }
            commits.clear();
        }
    }
}

/// The id of a delivered record.
fn message_id(message: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(message).ok()?;
    let (_, rest) = text.split_once(r#""wsProxyMessageId":""#)?;
    rest.split('"').next()
}
