//! A bad minute: everything goes wrong that may go wrong, to several dozen sockets at once, and
//! in the end every promise was kept.
//!
//! ```text
//! seed ─▶ schedule ─▶ driver ─▶ brokers (in memory), proxy, clients ─▶ history ─▶ oracle
//! ```
//!
//! The seed is printed at the start and with every failure. `CHAOS_SEED=n` repeats a
//! schedule (how threads take turns differs from run to run), and `CHAOS_SECONDS=n` lengthens
//! it. `RUST_LOG=proto=info` shows what happens when.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod clients;
mod driver;
mod history;
mod oracle;
mod recorder;
mod scene;
mod schedule;
mod summary;
#[allow(dead_code)] // it serves the behaviour tests, too
#[path = "../support/mod.rs"]
mod support;

use std::io::Write;
use std::time::Duration;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use scene::ChaosScene;
use schedule::ChaosSchedule;
use support::random::{from_environment, random_seed};

/// How long faults go on.
const LENGTH: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_promise_is_kept_through_a_minute_of_faults() {
    let level = std::env::var("RUST_LOG").unwrap_or_else(|_| "error".to_owned());
    let _ = tracing_subscriber::registry()
        .with(level.parse::<Targets>().unwrap())
        .with(tracing_subscriber::fmt::layer().with_test_writer())
        .try_init();
    let scene = ChaosScene::new();
    let seed = from_environment("CHAOS_SEED").unwrap_or_else(random_seed);
    let length = from_environment("CHAOS_SECONDS").map_or(LENGTH, Duration::from_secs);
    // Past the capture of the test harness: the seed is wanted also if the machine dies.
    let _ = writeln!(std::io::stderr(), "CHAOS_SEED={seed}");
    let schedule = ChaosSchedule::generate(seed, length, &scene);
    let (history, caught_up) = driver::run(&schedule, &scene).await;
    println!("{}", summary::summary(&history, caught_up));
    let violations = oracle::check(&history);
    for violation in &violations {
        println!("{violation:?}");
    }
    assert!(
        violations.is_empty(),
        "{} violations with CHAOS_SEED={seed}",
        violations.len()
    );
    assert!(!history.deliveries.is_empty(), "nothing was sent at all");
}
