//! Sessions over several nodes: real processes in front of three real brokers.
//!
//! Each test has a session topic of its own, so that tests share a cluster.

use std::time::Instant;

use kafka_client::config::ClientConfig;
use kafka_client::{Cluster, Principal, admin};
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::http::ask;
use crate::support::kafka::{Kafka, unique};
use crate::support::program::{LogLines, Program};
use crate::support::until_asked;
use crate::support::ws_client::{self, WsClient};

/// A deployment: a topic of one partition, and the session topic of its nodes.
struct Deployment {
    bootstrap: String,
    topic: String,
    sessions: String,
    lease: &'static str,
}

impl Deployment {
    fn new(kafka: &Kafka, lease: &'static str) -> Self {
        let topic = unique("sessions");
        kafka.create_topic(&topic, 1, 3);
        Self {
            bootstrap: kafka.bootstrap().to_owned(),
            sessions: format!("_{topic}.state"),
            topic,
            lease,
        }
    }

    async fn node(&self, server_id: &str) -> Program {
        self.node_with(server_id, &[]).await.0
    }

    /// With more arguments.
    async fn node_with(&self, server_id: &str, args: &[&str]) -> (Program, LogLines) {
        let own = [
            "--bootstrap-hosts",
            &self.bootstrap,
            "--server-id",
            server_id,
            "--session-handler-session-state-topic-name",
            &self.sessions,
            "--session-handler-lease-duration",
            self.lease,
        ];
        let (node, log) = Program::start_logged(&[&own, args].concat(), &[]);
        node.ready().await;
        (node, log)
    }

    fn path(&self, group: &str, client: &str) -> String {
        let Self { topic, .. } = self;
        format!("/socket/out?topic={topic}&groupId={topic}-{group}&clientId={client}")
    }
}

/// Waits until the socket is let in; how long that took.
async fn let_in(node: &Program, path: &str) -> (WsClient, f64) {
    let begun = Instant::now();
    let socket = ws_client::let_in(async || WsClient::connect(&node.address(), path).await).await;
    (socket, begun.elapsed().as_secs_f64())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_that_race_for_the_last_place_exactly_one_wins() {
    let kafka = block_in_place(|| Kafka::shared("4.4", 3));
    let deployment = block_in_place(|| Deployment::new(&kafka, "15s"));
    let a = deployment.node("a").await;
    let b = deployment.node("b").await;
    for round in 0..20 {
        let group = format!("g{round}");
        let (path_a, path_b) = (deployment.path(&group, "a"), deployment.path(&group, "b"));
        let (address_a, address_b) = (a.address(), b.address());
        let (at_a, at_b) = tokio::join!(
            WsClient::connect(&address_a, &path_a),
            WsClient::connect(&address_b, &path_b)
        );
        let winners = [at_a.is_ok(), at_b.is_ok()];
        assert_ne!(winners[0], winners[1], "{group}");
        let refused = at_a.err().or(at_b.err()).unwrap();
        assert_eq!(refused.status, 400, "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_network_died_is_let_in_at_another_process() {
    let kafka = block_in_place(|| Kafka::shared("4.4", 3));
    let deployment = block_in_place(|| Deployment::new(&kafka, "15s"));
    let a = deployment.node("a").await;
    let b = deployment.node("b").await;
    let path = deployment.path("g", "client");
    // Nobody reads from it, so no ping is answered.
    let mut silent = a.connect(&path).await;
    let begun = Instant::now();
    let mut again = b.connect(&path).await;
    println!("let in after {:.3} s", begun.elapsed().as_secs_f64());
    let (code, reason) = silent.closed().await;
    assert_eq!(code, 1008, "{reason}");
    // While its client answers, nobody takes its place.
    let reading = tokio::spawn(async move { again.next_message().await });
    let refused = a.refused(&path).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(!reading.is_finished());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_of_a_killed_process_get_in_at_another_when_its_lease_is_over() {
    let kafka = block_in_place(|| Kafka::shared("4.4", 3));
    let deployment = block_in_place(|| Deployment::new(&kafka, "3s"));
    let a = deployment.node("a").await;
    let b = deployment.node("b").await;
    let mut sockets = Vec::new();
    for n in 0..10 {
        let path = deployment.path(&format!("g{n}"), "client");
        sockets.push(a.connect(&path).await);
    }
    let refused = b.refused(&deployment.path("g0", "other")).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    a.signal("KILL");
    for mut socket in sockets {
        assert!(socket.next_message().await.is_none());
    }
    let mut open = Vec::new();
    for n in 0..10 {
        // The client itself, and another in its place.
        let client = if n % 2 == 0 { "client" } else { "other" };
        let path = deployment.path(&format!("g{n}"), client);
        let (socket, seconds) = let_in(&b, &path).await;
        println!("group {n}: let in after {seconds:.3} s");
        open.push(socket);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_starts_again_under_its_server_id_frees_what_it_left() {
    let kafka = block_in_place(|| Kafka::shared("4.4", 3));
    // Its lease would last beyond this test.
    let deployment = block_in_place(|| Deployment::new(&kafka, "10 minutes"));
    let a = deployment.node("a").await;
    let b = deployment.node("b").await;
    let _socket = a.connect(&deployment.path("g", "client")).await;
    a.signal("KILL");
    let refused = b.refused(&deployment.path("g", "other")).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    let again = deployment.node("a").await;
    let (_socket, seconds) = let_in(&b, &deployment.path("g", "other")).await;
    println!("let in after {seconds:.3} s");
    let refused = again.refused(&deployment.path("g", "client")).await;
    assert_eq!(refused.status, 400, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_survive_the_death_and_restart_of_each_broker() {
    let kafka = block_in_place(|| Kafka::start("4.4", 3, &["replica.lag.time.max.ms=5000"]));
    let deployment = block_in_place(|| Deployment::new(&kafka, "15s"));
    let a = deployment.node("a").await;
    let b = deployment.node("b").await;
    let mut held = a.connect(&deployment.path("held", "client")).await;
    let reading = tokio::spawn(async move { held.next_message().await });
    for broker in 1..=3 {
        block_in_place(|| kafka.kill(broker));
        // Another one leads the session topic, if this one did.
        let (socket, seconds) = let_in(&b, &deployment.path(&format!("g{broker}"), "a")).await;
        println!("broker {broker} is dead: let in after {seconds:.3} s");
        socket.close().await;
        block_in_place(|| kafka.start_broker(broker));
        until_asked("both are ready", async || {
            a.get("/ready").await.0 == 200 && b.get("/ready").await.0 == 200
        })
        .await;
        let refused = b.refused(&deployment.path("held", "other")).await;
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(!reading.is_finished(), "an open socket was closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_topic_is_created_as_configured_with_as_many_replicas_as_there_are_brokers() {
    let kafka = block_in_place(|| Kafka::shared("4.4", 1));
    let bootstrap = kafka.bootstrap();
    let start = |topic: &str| {
        let brokers = ["--bootstrap-hosts", bootstrap];
        let topic = ["--session-handler-session-state-topic-name", topic];
        let retention = ["--session-handler-session-state-retention", "7 days"];
        block_in_place(|| Program::start_logged(&[brokers, topic, retention].concat(), &[]))
    };
    let ours = unique("created");
    let (program, log) = start(&ours);
    program.ready().await;
    let fewer = log.first_with("there are fewer brokers").await;
    assert!(
        fewer.contains(&ours) && fewer.contains("replication=1"),
        "{fewer}"
    );
    let config = ClientConfig {
        bootstrap_servers: vec![bootstrap.to_owned()],
        ..ClientConfig::default()
    };
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let cluster = Cluster::new(config, Principal::Proxy, tasks, stop);
    let setting = async |name| {
        let setting = admin::topic_setting(&cluster, &ours, name).await;
        setting.unwrap().expect(name)
    };
    assert_eq!(setting("cleanup.policy").await, "compact,delete");
    assert_eq!(setting("retention.ms").await, "604800000");
    assert_eq!(setting("min.compaction.lag.ms").await, "600000");
    drop(program);
    // Nothing is wrong with it when it is found.
    let (program, log) = start(&ours);
    program.ready().await;
    assert_eq!(log.with("not compacted"), Vec::<String>::new());
    drop(program);
    let theirs = unique("theirs");
    block_in_place(|| kafka.create_topic(&theirs, 1, 1));
    let (_program, log) = start(&theirs);
    log.first_with("the session topic is not compacted").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_connections_instances_and_evictions_hold_over_processes() {
    let kafka = block_in_place(|| Kafka::shared("4.4", 3));
    let deployment = block_in_place(|| Deployment::new(&kafka, "3s"));
    let args = [
        "--admin-enabled",
        "--admin-port",
        "0",
        "--producer-sessions-enabled",
        "--producer-limits-default-max-connections-per-client",
        "2",
    ];
    let (a, _) = deployment.node_with("a", &args).await;
    let (b, log) = deployment.node_with("b", &args).await;
    let admin = log.admin_address().await;
    let topic = &deployment.topic;
    let path = |instance| format!("/socket/in?topic={topic}&clientId=c&instanceId={instance}");
    let mut first = a.connect(&path("1")).await;
    let answering = tokio::spawn(async move { first.closed().await });
    let _second = b.connect(&path("2")).await;
    for node in [&a, &b] {
        let refused = node.refused(&path("3")).await;
        assert_eq!(refused.status, 429, "{refused:?}");
        assert!(refused.message().contains("max-connections"), "{refused:?}");
    }
    // Its client answers.
    let refused = b.refused(&path("1")).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    let evicted = ask(&admin, "DELETE", "/admin/sessions/producer/c/1", &[]).await;
    assert_eq!(evicted.status, 200, "{}", evicted.body);
    let (code, reason) = answering.await.unwrap();
    assert_eq!((code, &*reason), (1008, "closed by an administrator"));
    let evicted = ask(&admin, "DELETE", "/admin/sessions/producer/c/1", &[]).await;
    assert_eq!(evicted.status, 404, "{}", evicted.body);
    let _third = a.connect(&path("3")).await;
    // SIGKILL: its place is free when its lease is over.
    drop(a);
    let open = async || WsClient::connect(&b.address(), &path("4")).await;
    let mut let_in = None;
    until_asked("the place is free", async || {
        match open().await {
            Ok(socket) => let_in = Some(socket),
            Err(refused) => assert!([429, 503].contains(&refused.status), "{refused:?}"),
        }
        let_in.is_some()
    })
    .await;
}
