//! What TLS costs: towards the sockets, towards the brokers, and on both sides, beside none.

use std::time::Duration;

use rustls_graviola::kx;
use tokio::time::sleep;

use crate::cpu::{Cpu, resident_kib};
use crate::groups::record_frame;
use crate::load::{Endpoint, consume_all, produce_all};
use crate::processes::{KafkaProcess, ProxyProcess};
use crate::sockets::ConsumingSockets;
use crate::{Bench, fill, native, tls_client};

/// Rounds that count, after one that does not.
const ROUNDS: usize = 4;
/// Records of one round.
const PRODUCED: usize = 250_000;
const CONSUMED: usize = 1_000_000;

/// A proxy that speaks TLS on none, one or both of its sides.
struct Side {
    proxy: ProxyProcess,
    at: Endpoint,
    produced: f64,
    consumed: f64,
}

impl Side {
    fn start(bench: &Bench, kafka: &KafkaProcess, sockets: bool, brokers: bool) -> Self {
        // Each is a deployment of its own.
        let number = u8::from(sockets) + 2 * u8::from(brokers);
        let mut flags = vec![
            "--session-handler-session-state-topic-name".to_owned(),
            format!("sessions-{number}"),
        ];
        if sockets {
            flags.extend(tls_client::server_flags());
        }
        let bootstrap = if brokers {
            flags.extend(kafka.ssl_flags());
            kafka.ssl_bootstrap()
        } else {
            kafka.bootstrap()
        };
        let proxy = ProxyProcess::start_with(bench.binary(), bootstrap, &flags);
        let at = Endpoint {
            port: proxy.port(),
            tls: sockets.then(|| tls_client::client(&rustls::version::TLS13, &kx::X25519)),
        };
        Self {
            proxy,
            at,
            produced: 0.0,
            consumed: 0.0,
        }
    }

    /// Processor time of the proxy for the records of one round, in microseconds.
    async fn produce(&self, topic: &str) -> f64 {
        let target = format!("/socket/in?topic={topic}");
        let (stream, frames) = self.at.open(&target).await.expect("the proxy accepts");
        let cpu = Cpu::of(self.proxy.pid());
        produce_all(stream, frames, &record_frame(), PRODUCED).await;
        (Cpu::of(self.proxy.pid()) - cpu).total_us()
    }

    /// As [`produce`](Self::produce), of records read.
    async fn consume(&self, topic: &str, group: &str) -> f64 {
        let target = format!(
            "/socket/out?topic={topic}&clientId={group}&autoCommit=true&offsetResetStrategy=earliest"
        );
        let cpu = Cpu::of(self.proxy.pid());
        let (stream, frames) = self.at.open(&target).await.expect("the proxy accepts");
        consume_all(stream, frames, CONSUMED).await;
        (Cpu::of(self.proxy.pid()) - cpu).total_us()
    }
}

/// One socket that produces, and one that reads a long log: processor time of the proxy per
/// record. The proxies take turns at one broker.
pub(crate) async fn tls(bench: &Bench) {
    let kafka = KafkaProcess::start_secure(&["group.initial.rebalance.delay.ms=0"]);
    native::create_topic(kafka.bootstrap(), "tls-in", 1).await;
    native::create_topic(kafka.bootstrap(), "tls-out", 1).await;
    fill(kafka.bootstrap(), "tls-out", CONSUMED);
    let sides = [(false, false), (true, false), (false, true), (true, true)];
    let mut sides = sides.map(|(sockets, brokers)| Side::start(bench, &kafka, sockets, brokers));
    for round in 0..=ROUNDS {
        for (number, side) in sides.iter_mut().enumerate() {
            let produced = side.produce("tls-in").await;
            let group = format!("group-{number}-{round}");
            let consumed = side.consume("tls-out", &group).await;
            if round > 0 {
                side.produced += produced;
                side.consumed += consumed;
            }
        }
    }
    let print = |name, records: usize, cost: fn(&Side) -> f64| {
        let records = (records * ROUNDS) as f64;
        let [plain, sockets, brokers, both] = sides.each_ref().map(|side| cost(side) / records);
        bench.print(
            name,
            &[
                ("records", records),
                ("plain_us_per_record", plain),
                ("sockets_tls_us_per_record", sockets),
                ("brokers_tls_us_per_record", brokers),
                ("both_tls_us_per_record", both),
                ("sockets_ratio", sockets / plain),
                ("brokers_ratio", brokers / plain),
                ("both_ratio", both / plain),
            ],
        );
    };
    print("tls_produce", PRODUCED, |side| side.produced);
    print("tls_consume", CONSUMED, |side| side.consumed);
}

/// Resident memory of open consuming sockets that have nothing to read, by TLS and without.
pub(crate) async fn idle(bench: &Bench) {
    const SOCKETS: usize = 2_000;
    let mut each = [0.0; 2];
    for (tls, kib) in [false, true].into_iter().zip(&mut each) {
        let topic = bench.topic(&format!("idle-tls-{tls}"), 1).await;
        let mut flags = vec![
            "--session-handler-session-state-topic-name".to_owned(),
            format!("sessions-of-{topic}"),
        ];
        if tls {
            flags.extend(tls_client::server_flags());
        }
        let proxy = ProxyProcess::start_with(bench.binary(), bench.bootstrap(), &flags);
        let at = Endpoint {
            port: proxy.port(),
            tls: tls.then(|| tls_client::client(&rustls::version::TLS13, &kx::X25519)),
        };
        let before = resident_kib(proxy.pid());
        let consumers = ConsumingSockets::open(&at, &topic, SOCKETS).await;
        consumers.until_all_have_joined(&at, &topic).await;
        // The first heartbeats, pings and commits.
        sleep(Duration::from_secs(10)).await;
        *kib = (resident_kib(proxy.pid()) - before) / SOCKETS as f64;
    }
    let [plain, tls] = each;
    bench.print(
        "idle_tls",
        &[
            ("sockets", SOCKETS as f64),
            ("plain_resident_kib_per_socket", plain),
            ("tls_resident_kib_per_socket", tls),
            ("tls_more_kib", tls - plain),
        ],
    );
}
