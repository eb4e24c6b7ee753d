//! Sockets that come and go at random leave nothing behind: no session, member, cursor, task or
//! memory.
//!
//! `CHURN_SEED=n` repeats what a run did (how tasks take turns differs), and `CHURN_OPENS=n` has
//! more sockets opened: four thousand take about a minute. The counts before and after are printed.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kafka_websocket_proxy::app::HeldResources;
use memory_broker::BrokerConfig;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::Message;

use crate::support::PATIENCE;
use crate::support::proxy::Proxy;
use crate::support::random::{XorShift, from_environment, random_seed};
use crate::support::ws_client::{UpgradeRefused, WsClient};

/// How many are open at a time.
const CLIENTS: usize = 300;
/// How many are opened in all.
const OPENS: u64 = 900;
/// Consumer groups of several clients.
const SHARED_GROUPS: usize = 12;
/// The longest that a client stays.
const STAY_MAX: Duration = Duration::from_secs(2);
/// The longest that one stays for its first records.
const PATIENT_STAY: Duration = Duration::from_secs(5);

/// What is there on behalf of sockets.
#[derive(Debug, PartialEq)]
struct Remains {
    held: HeldResources,
    /// Members of groups, at the broker.
    members: usize,
    /// Connections to the broker.
    connections: usize,
    /// Tasks of proxy and broker.
    tasks: usize,
}

impl Remains {
    fn of(proxy: &Proxy) -> Self {
        let groups = (0..SHARED_GROUPS).map(|n| format!("shared-{n}"));
        let groups = groups.chain((0..CLIENTS).map(|n| format!("own-{n}")));
        let groups = groups.filter_map(|name| proxy.broker.group(&name));
        Self {
            held: proxy.app.held_resources(),
            members: groups.map(|group| group.members.len()).sum(),
            connections: proxy.broker.connections(),
            tasks: Handle::current().metrics().num_alive_tasks(),
        }
    }

    /// Connections without requests are closed after a while; the one of the metadata has some.
    fn is_nothing(&self) -> bool {
        self.held == HeldResources::default() && self.members == 0 && self.connections <= 1
    }
}

/// Waits until nothing is left, and no more tasks than `tasks_max`.
async fn settled(proxy: &Proxy, tasks_max: usize) -> Remains {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let remains = Remains::of(proxy);
        if remains.is_nothing() && remains.tasks <= tasks_max {
            return remains;
        }
        assert!(Instant::now() < deadline, "something is left: {remains:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What became of the sockets.
#[derive(Clone, Debug, Default)]
struct ChurnCounts {
    opened: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    acknowledged: Arc<AtomicUsize>,
    delivered: Arc<AtomicUsize>,
    committed: Arc<AtomicUsize>,
}

impl ChurnCounts {
    /// Whether there was some of everything that is to be.
    fn are_all(&self) -> bool {
        let counters = [&self.acknowledged, &self.delivered, &self.committed];
        counters
            .iter()
            .all(|counter| counter.load(Ordering::Relaxed) > 0)
    }
}

fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// One after the other, until so many were opened by all.
struct ChurningClient {
    number: usize,
    address: String,
    random: XorShift,
    counts: ChurnCounts,
}

impl ChurningClient {
    async fn run(mut self, opens_left: Arc<AtomicUsize>) {
        let one_less = |left: usize| left.checked_sub(1);
        let order = Ordering::Relaxed;
        while opens_left.fetch_update(order, order, one_less).is_ok() || !self.counts.are_all() {
            let produces = self.random.below(3) == 0;
            let path = match produces {
                true => format!("/socket/in?topic={}", self.random.pick(&["wide", "narrow"])),
                false => self.consuming_path(),
            };
            match WsClient::connect(&self.address, &path).await {
                Ok(socket) if produces => self.produce(socket).await,
                Ok(socket) => self.consume(socket).await,
                // Its last socket may not be over for the server, or the machine too busy for the
                // brokers to answer in time.
                Err(UpgradeRefused { status, body, .. })
                    if status == 503 || body.contains("already connected") =>
                {
                    count(&self.counts.refused);
                }
                Err(refused) => panic!("{path}: {refused:?}"),
            }
        }
    }

    fn consuming_path(&mut self) -> String {
        let (topic, group) = match self.random.below(2) {
            0 => ("narrow", format!("own-{}", self.number)),
            _ => ("wide", format!("shared-{}", self.number % SHARED_GROUPS)),
        };
        let auto_commit = self.random.pick(&["true", "false"]);
        let more = self.random.pick(&["", "&batchSize=10", "&rate=50"]);
        let id = self.number;
        format!(
            "/socket/out?topic={topic}&groupId={group}&clientId=c{id}&autoCommit={auto_commit}{more}"
        )
    }

    /// When it goes.
    fn leaves_at(&mut self) -> Instant {
        Instant::now() + self.random.between(Duration::ZERO, STAY_MAX)
    }

    async fn produce(&mut self, mut socket: WsClient) {
        count(&self.counts.opened);
        let (mut due, leaves_at) = (0, self.leaves_at());
        for _ in 0..self.random.below(30) {
            let record = json!({"value": {"value": "x".repeat(self.random.below(300))}});
            socket.send(record.to_string()).await;
            due += 1;
            if self.random.below(3) == 0 && timeout_at(leaves_at, socket.next()).await.is_ok() {
                count(&self.counts.acknowledged);
                due -= 1;
            }
        }
        while due > 0 && timeout_at(leaves_at, socket.next()).await.is_ok() {
            count(&self.counts.acknowledged);
            due -= 1;
        }
        self.leave(socket).await;
    }

    async fn consume(&mut self, mut socket: WsClient) {
        count(&self.counts.opened);
        let mut leaves_at = self.leaves_at();
        if self.random.below(4) == 0 {
            leaves_at = Instant::now() + PATIENT_STAY;
        }
        while let Ok(message) = timeout_at(leaves_at, socket.next()).await {
            let records = match message {
                Value::Array(records) => records,
                record => vec![record],
            };
            leaves_at = leaves_at.min(Instant::now() + STAY_MAX);
            for record in records {
                if record["error"].is_object() {
                    // Committed by itself, or lost meanwhile.
                    continue;
                }
                count(&self.counts.delivered);
                if self.random.below(10) == 0 {
                    let commit = json!({"wsProxyMessageId": record["wsProxyMessageId"]});
                    socket.send(commit.to_string()).await;
                    count(&self.counts.committed);
                }
            }
        }
        self.leave(socket).await;
    }

    /// In order, with a close frame and no patience, in the midst of a frame, or without a word.
    async fn leave(&mut self, socket: WsClient) {
        match self.random.below(4) {
            0 => socket.close().await,
            1 => socket.abandon_with_a_close_frame().await,
            2 => {
                let half = [0x81, 0xFE, 0x01];
                let _ = socket.into_tcp().write_all(&half).await;
            }
            _ => drop(socket),
        }
    }
}

/// Has clients come and go, as the seed says.
async fn churn(proxy: &Proxy, seed: u64, opens: u64) -> ChurnCounts {
    let counts = ChurnCounts::default();
    let opens_left = Arc::new(AtomicUsize::new(opens as usize));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let client = ChurningClient {
            number,
            address: proxy.address.clone(),
            random: XorShift::new(seed.wrapping_add(number as u64)),
            counts: counts.clone(),
        };
        clients.spawn(client.run(Arc::clone(&opens_left)));
    }
    clients.join_all().await;
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_sockets_that_come_and_go_leave_nothing_behind() {
    let seed = from_environment("CHURN_SEED").unwrap_or_else(random_seed);
    let opens = from_environment("CHURN_OPENS").unwrap_or(OPENS);
    let mut out = std::io::stderr();
    let _ = writeln!(out, "CHURN_SEED={seed}");
    let brokers = BrokerConfig {
        initial_rebalance_delay: Duration::from_millis(20),
        ..BrokerConfig::default()
    };
    let proxy = Proxy::with_broker(brokers, |config| {
        // Members learn soon that others have come or gone, within their short lives.
        config.consumer.heartbeat_interval = Duration::from_millis(200);
        config.client.connections_max_idle = Duration::from_secs(2);
    })
    .await;
    proxy.topic("narrow", 2);
    proxy.topic("wide", 30);
    // What serves all sockets is there from the first ones on.
    let mut producer = proxy.connect("/socket/in?topic=narrow").await;
    let record = json!({"value": {"value": "x"}});
    producer
        .send_message(Message::text(json!(vec![record; 200]).to_string()))
        .await;
    producer.next().await;
    producer.close().await;
    churn(&proxy, seed, 30).await;
    let before = settled(&proxy, usize::MAX).await;

    let counts = churn(&proxy, seed.wrapping_add(CLIENTS as u64), opens).await;
    let busiest = Remains::of(&proxy);
    let after = settled(&proxy, before.tasks).await;
    let _ = writeln!(
        out,
        "{counts:?}\nbefore: {before:?}\nat the end: {busiest:?}\nafter: {after:?}"
    );
    proxy.stopped().await;
}
