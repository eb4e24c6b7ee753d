//! A thousand sockets, and one that does not read, against a real broker.

use serde_json::json;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::timeout;

use crate::support::kafka::{Kafka, unique};
use crate::support::program::Program;
use crate::support::ws_client::WsClient;
use crate::support::{PATIENCE, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_groups_join_over_few_connections_and_receive_one_record() {
    const SOCKETS: usize = 1_000;
    let kafka = block_in_place(|| Kafka::start("4.4", 1, &[]));
    let topic = unique("thousand");
    block_in_place(|| kafka.create_topic(&topic, 1, 1));
    let proxy = Program::for_cluster(kafka.bootstrap(), &[]);
    proxy.ready().await;

    let mut opening = JoinSet::new();
    for i in 0..SOCKETS {
        let path = format!("/socket/out?topic={topic}&clientId=c{i}&groupId={topic}-{i}");
        let address = proxy.address();
        opening.spawn(async move { WsClient::connect(&address, &path).await.unwrap() });
    }
    let sockets = opening.join_all().await;
    let mut producer = proxy.connect(&format!("/socket/in?topic={topic}")).await;
    producer.ask(r#"{"value":{"value":"to all"}}"#).await;
    let mut receiving = JoinSet::new();
    for mut socket in sockets {
        receiving.spawn(async move {
            // Who receives a record has joined before.
            assert_eq!(socket.next().await["value"]["value"], "to all");
            socket
        });
    }
    let open = receiving.join_all().await;
    assert_eq!(open.len(), SOCKETS);
    // They go on answering pings.
    let mut listening = JoinSet::new();
    for mut socket in open {
        listening.spawn(async move { socket.next_message().await });
    }
    // Connections on which joins were parked are closed when no more join.
    until("few connections", || {
        broker_connections(&proxy, kafka.bootstrap()) <= 40
    })
    .await;

    // They are groups of their own, as Kafka sees them.
    let prefix = format!("{topic}-");
    let stable = block_in_place(|| kafka.java("Groups.java", &["stable", &prefix]));
    assert_eq!(stable.trim(), SOCKETS.to_string());
    assert!(listening.try_join_next().is_none(), "all are open");
}

/// Established connections of the proxy to the broker's port.
fn broker_connections(proxy: &Program, bootstrap: &str) -> usize {
    let port: u16 = bootstrap.rsplit_once(':').unwrap().1.parse().unwrap();
    let remote = format!(":{port:04X}");
    let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", proxy.pid())).unwrap();
    let inodes: Vec<String> = table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let established = fields[3] == "01" && fields[2].ends_with(&remote);
            established.then(|| format!("socket:[{}]", fields[9]))
        })
        .collect();
    // The table is the network namespace's: keep what is this process's.
    std::fs::read_dir(format!("/proc/{}/fd", proxy.pid()))
        .unwrap()
        .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
        .filter(|link| {
            inodes
                .iter()
                .any(|inode| link.as_os_str() == inode.as_str())
        })
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_reading_holds_up_nobody_and_little_memory() {
    const RECORDS: usize = 200_000;
    let kafka = block_in_place(|| Kafka::shared("4.4", 1));
    let topic = unique("stalled");
    block_in_place(|| kafka.create_topic(&topic, 1, 1));
    let proxy = Program::for_cluster(kafka.bootstrap(), &[]);
    let out = async |client: &str| {
        let path = format!("/socket/out?topic={topic}&clientId={client}");
        proxy.connect(&path).await
    };
    let mut stalled = Vec::new();
    for i in 0..20 {
        stalled.push(out(&format!("stalled-{i}")).await);
    }
    let mut reader = out("reader").await;
    let before = proxy.resident_kib();

    // 200 MB: more than every buffer on the way of 20 sockets would hold.
    let mut producer = proxy.connect(&format!("/socket/in?topic={topic}")).await;
    let filler = "x".repeat(1_000);
    let batch: Vec<_> = (0..1_000)
        .map(|_| json!({"value": {"value": filler}}))
        .collect();
    let batch = serde_json::to_string(&batch).unwrap();
    let producing = tokio::spawn(async move {
        for _ in 0..RECORDS / 1_000 {
            let answers = producer.ask(batch.as_str()).await;
            assert!(
                answers
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|a| a["offset"].is_number())
            );
        }
    });
    let mut most = before;
    for i in 0..RECORDS {
        assert!(reader.next_message().await.is_some_and(|m| m.is_text()));
        if i % 10_000 == 0 {
            most = most.max(proxy.resident_kib());
        }
    }
    timeout(PATIENCE, producing)
        .await
        .expect("the answers are due")
        .unwrap();
    println!("resident memory: {before} KiB before, {most} KiB at most with 20 stalled sockets");
    // The fetch memory (64 MiB) and the producer's (32 MiB), each once, whoever stalls.
    assert!(most < before + (64 + 32 + 64) * 1024, "{most} KiB");

    // Who stalled loses nothing.
    let mut slow = stalled.pop().unwrap();
    for offset in 0..1_000 {
        assert_eq!(slow.next().await["offset"], offset);
    }
}
