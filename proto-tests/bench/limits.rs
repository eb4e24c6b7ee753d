//! What limits of records per second cost where they are never reached, beside none.

use crate::cpu::Cpu;
use crate::groups::record_frame;
use crate::load::{consume_all, open, produce_all};
use crate::processes::{KafkaProcess, ProxyProcess};
use crate::{Bench, fill, native};

/// Rounds that count, after one that does not.
const ROUNDS: usize = 4;
/// Records of one round.
const PRODUCED: usize = 250_000;
const CONSUMED: usize = 1_000_000;
/// Records per second: more than there are.
const LIMIT: &str = "50000000";

struct LimitedProxy {
    proxy: ProxyProcess,
    produced: f64,
    consumed: f64,
}

impl LimitedProxy {
    fn start(bench: &Bench, kafka: &KafkaProcess, is_limited: bool) -> Self {
        let topic = format!("sessions-{is_limited}");
        let mut flags = vec!["--session-handler-session-state-topic-name", &topic];
        if is_limited {
            for key in [
                "--producer-limits-default-messages-per-second",
                "--consumer-limits-default-messages-per-second",
            ] {
                flags.extend([key, LIMIT]);
            }
        }
        let flags: Vec<_> = flags.into_iter().map(str::to_owned).collect();
        Self {
            proxy: ProxyProcess::start_with(bench.binary(), kafka.bootstrap(), &flags),
            produced: 0.0,
            consumed: 0.0,
        }
    }
}

/// One socket that produces, and one that reads a long log: processor time of the proxy per record.
/// The proxies take turns at one broker.
pub(crate) async fn limits(bench: &Bench) {
    let kafka = KafkaProcess::start(&["group.initial.rebalance.delay.ms=0"]);
    native::create_topic(kafka.bootstrap(), "limits-in", 1).await;
    native::create_topic(kafka.bootstrap(), "limits-out", 1).await;
    fill(kafka.bootstrap(), "limits-out", CONSUMED);
    let mut proxies =
        [false, true].map(|is_limited| LimitedProxy::start(bench, &kafka, is_limited));
    for round in 0..=ROUNDS {
        for (number, side) in proxies.iter_mut().enumerate() {
            let (port, pid) = (side.proxy.port(), side.proxy.pid());
            let cpu = Cpu::of(pid);
            let (stream, frames) = open(port, "/socket/in?topic=limits-in&clientId=c")
                .await
                .expect("the proxy accepts");
            produce_all(stream, frames, &record_frame(), PRODUCED).await;
            let produced = (Cpu::of(pid) - cpu).total_us();
            let target = format!("/socket/out?topic=limits-out&clientId=limits-{number}-{round}");
            let cpu = Cpu::of(pid);
            let (stream, frames) = open(port, &target).await.expect("the proxy accepts");
            consume_all(stream, frames, CONSUMED).await;
            let consumed = (Cpu::of(pid) - cpu).total_us();
            if round > 0 {
                side.produced += produced / (PRODUCED * ROUNDS) as f64;
                side.consumed += consumed / (CONSUMED * ROUNDS) as f64;
            }
        }
    }
    let [plain, limited] = proxies;
    bench.print(
        "limits",
        &[
            ("produced_us", plain.produced),
            ("produced_limited_us", limited.produced),
            ("produced_ratio", limited.produced / plain.produced),
            ("consumed_us", plain.consumed),
            ("consumed_limited_us", limited.consumed),
            ("consumed_ratio", limited.consumed / plain.consumed),
        ],
    );
}
