//! The program itself: its size, how soon it listens, and what it takes then.

use std::time::Instant;

use crate::cpu::{anonymous_kib, resident_kib};
use crate::opens::until_ready;
use crate::processes::ProxyProcess;
use crate::{Bench, percentile};

const STARTS: usize = 21;

/// From exec to the line that says where it listens, with the embedded broker.
pub(crate) async fn start(bench: &Bench) {
    let size = std::fs::metadata(bench.binary())
        .expect("the program")
        .len();
    let (mut times, mut resident, mut anonymous) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let started = Instant::now();
        let proxy = ProxyProcess::start_dev(bench.binary(), &[]);
        times.push(started.elapsed().as_secs_f64() * 1e3);
        until_ready(&proxy).await;
        resident.push(resident_kib(proxy.pid()));
        anonymous.push(anonymous_kib(proxy.pid()));
    }
    bench.print(
        "start",
        &[
            ("size_mb", size as f64 / 1e6),
            ("starts", STARTS as f64),
            ("median_ms", percentile(&mut times, 50.0)),
            ("slowest_ms", percentile(&mut times, 100.0)),
            ("resident_kib", percentile(&mut resident, 50.0)),
            ("of_it_anonymous_kib", percentile(&mut anonymous, 50.0)),
        ],
    );
}
