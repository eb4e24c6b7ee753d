//! What transactions cost: messages per second, and processor time per record, beside plain ones.

use std::time::Instant;

use crate::cpu::Cpu;
use crate::groups::record_frame;
use crate::load::{open, produce_all};
use crate::processes::{KafkaProcess, ProxyProcess};
use crate::{Bench, native};

/// Rounds that count, after one that does not.
const ROUNDS: usize = 3;
/// Messages of one record, of one round; 1,000 are in flight.
const MESSAGES: usize = 200_000;

#[derive(Default)]
struct ProduceFigures {
    cpu_us: f64,
    seconds: f64,
}

/// One socket that produces messages of one record, each in a transaction or not, in turns at one
/// broker.
pub(crate) async fn transactions(bench: &Bench) {
    let kafka = KafkaProcess::start(&[]);
    native::create_topic(kafka.bootstrap(), "transactions", 1).await;
    let flags = [
        "--producer-exactly-once-enabled".to_owned(),
        "true".to_owned(),
    ];
    let proxy = ProxyProcess::start_with(bench.binary(), kafka.bootstrap(), &flags);
    let mut figures = [ProduceFigures::default(), ProduceFigures::default()];
    for round in 0..=ROUNDS {
        for (figures, transactional) in figures.iter_mut().zip([false, true]) {
            let query = format!("topic=transactions&clientId=c&transactional={transactional}");
            let opened = open(proxy.port(), &format!("/socket/in?{query}")).await;
            let (stream, frames) = opened.expect("the proxy accepts");
            let (cpu, started) = (Cpu::of(proxy.pid()), Instant::now());
            produce_all(stream, frames, &record_frame(), MESSAGES).await;
            if round > 0 {
                figures.seconds += started.elapsed().as_secs_f64();
                figures.cpu_us += (Cpu::of(proxy.pid()) - cpu).total_us();
            }
        }
    }
    let messages = (MESSAGES * ROUNDS) as f64;
    let [plain, transactional] = figures;
    bench.print(
        "transactions",
        &[
            ("plain_messages_per_s", messages / plain.seconds),
            (
                "transactional_messages_per_s",
                messages / transactional.seconds,
            ),
            ("plain_cpu_us_per_record", plain.cpu_us / messages),
            (
                "transactional_cpu_us_per_record",
                transactional.cpu_us / messages,
            ),
            ("cpu_ratio", transactional.cpu_us / plain.cpu_us),
        ],
    );
}
