//! Full TLS handshakes: processor time of the proxy for each, beside nginx's.
//!
//! Both have the same certificate (ECDSA, P-256) and the same client; they take turns.

use std::sync::Arc;
use std::time::Instant;

use rustls::ClientConfig;
use rustls_graviola::kx;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::cpu::Cpu;
use crate::nginx::NginxProcess;
use crate::processes::ProxyProcess;
use crate::{Bench, tls_client};

/// Rounds that count, after one that does not.
const ROUNDS: usize = 4;
/// Handshakes of one round.
const HANDSHAKES: usize = 1_200;
/// How many are under way at once.
const CLIENTS: usize = 8;

/// What some handshakes took.
#[derive(Clone, Copy, Default)]
struct Cost {
    server_us: f64,
    client_us: f64,
    seconds: f64,
}

impl Cost {
    fn add(&mut self, other: Cost) {
        self.server_us += other.server_us;
        self.client_us += other.client_us;
        self.seconds += other.seconds;
    }

    fn server_us_each(self) -> f64 {
        self.server_us / (ROUNDS * HANDSHAKES) as f64
    }
}

pub(crate) async fn handshakes(bench: &Bench) {
    let proxy = ProxyProcess::start_dev(bench.binary(), &tls_client::server_flags());
    let nginx = NginxProcess::start();
    let (tls12, tls13) = (&rustls::version::TLS12, &rustls::version::TLS13);
    for (name, client) in [
        ("handshakes_tls13", tls_client::client(tls13, &kx::X25519)),
        ("handshakes_tls12", tls_client::client(tls12, &kx::X25519)),
    ] {
        let (mut ours, mut theirs) = (Cost::default(), Cost::default());
        for round in 0..=ROUNDS {
            let our = handshake_all(proxy.port(), proxy.pid(), &client).await;
            let their = match &nginx {
                Some(nginx) => handshake_all(nginx.port(), nginx.pid(), &client).await,
                None => Cost::default(),
            };
            if round > 0 {
                ours.add(our);
                theirs.add(their);
            }
        }
        let mut figures = figures_of(ours).to_vec();
        if nginx.is_some() {
            figures.extend([
                ("nginx_cpu_us_per_handshake", theirs.server_us_each()),
                ("nginx_per_s_of_a_core", 1e6 / theirs.server_us_each()),
                ("ratio", ours.server_us / theirs.server_us),
            ]);
        }
        bench.print(name, &figures);
        if nginx.is_none() {
            bench.print_skipped(name, "nginx", "nginx not installed");
        }
    }
    // What browsers ask for by now, and nginx has with OpenSSL 3.5 and newer.
    let client = tls_client::client(tls13, kx::X25519MLKEM768);
    let mut ours = Cost::default();
    for round in 0..=ROUNDS {
        let our = handshake_all(proxy.port(), proxy.pid(), &client).await;
        if round > 0 {
            ours.add(our);
        }
    }
    bench.print("handshakes_tls13_x25519mlkem768", &figures_of(ours));
}

fn figures_of(ours: Cost) -> [(&'static str, f64); 5] {
    let handshakes = (ROUNDS * HANDSHAKES) as f64;
    [
        ("handshakes", handshakes),
        ("per_s_with_client_on_other_core", handshakes / ours.seconds),
        ("client_cpu_us_per_handshake", ours.client_us / handshakes),
        ("proxy_cpu_us_per_handshake", ours.server_us_each()),
        ("proxy_per_s_of_a_core", 1e6 / ours.server_us_each()),
    ]
}

/// Connections of one round, each of which is ended as soon as it stands.
async fn handshake_all(port: u16, pid: u32, config: &Arc<ClientConfig>) -> Cost {
    let (server, client, started) = (Cpu::of(pid), Cpu::own(), Instant::now());
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let config = Arc::clone(config);
        clients.spawn(async move {
            for _ in 0..HANDSHAKES / CLIENTS {
                let stream = tls_client::connect(port, &config).await;
                let mut stream = stream.expect("it is let in");
                stream.shutdown().await.expect("open");
                // By then the server has read the last of the client's messages.
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("it asks");
    }
    Cost {
        server_us: (Cpu::of(pid) - server).total_us(),
        client_us: (Cpu::own() - client).total_us(),
        seconds: started.elapsed().as_secs_f64(),
    }
}
