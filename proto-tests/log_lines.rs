//! The log as an operator reads it, and that nobody waits for its reader.

use std::os::unix::net::UnixDatagram;

use memory_broker::{ApiKey, BrokerConfig, FaultAction, FaultRule, MemoryBroker};
use serde_json::Value;
use tokio::time::timeout;

use crate::support::PATIENCE;
use crate::support::kafka::{Kafka, unique};
use crate::support::program::Program;
use crate::support::ws_client::WsClient;

const UNKNOWN_MEMBER_ID: i16 = 25;

async fn broker() -> MemoryBroker {
    let broker = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
    broker.create_topic("t", 1);
    broker
}

#[tokio::test]
async fn a_stuck_reader_of_the_log_stops_neither_the_service_nor_its_end() {
    let (program, _stuck) = Program::start_with_stuck_reader(&["--dev"]);
    // Each leaves a line of some 150 bytes: a pipe holds 64 KiB of them.
    for _ in 0..1_000 {
        assert_eq!(program.get("/socket/in").await.0, 426);
    }
    let answer = program.get("/healthcheck").await;
    assert_eq!(answer.0, 200);
    program.signal("TERM");
    assert_eq!(program.ended().code(), Some(0));
}

#[tokio::test]
async fn a_kind_of_line_comes_once_in_a_while_however_often_it_is_provoked() {
    let broker = broker().await;
    let bootstrap = broker.bootstrap();
    let (program, log) = Program::start_logged(&["--bootstrap-hosts", &bootstrap], &[]);
    for _ in 0..20 {
        program.refused("/socket/in?topic=missing").await;
    }
    program.signal("TERM");
    log.first_with("stopped").await;
    let refused = log.with("socket refused");
    // One in five seconds, on a machine that may take some.
    assert!(refused.len() < 10, "{refused:#?}");
    assert!(refused[0].contains("peer=127.0.0.1:"), "{refused:#?}");
    assert!(refused[0].contains("status=400"), "{refused:#?}");
}

#[tokio::test]
async fn the_first_line_says_what_runs_where_for_whom_and_within_which_limits() {
    let broker = broker().await;
    let (_program, log) = Program::start_logged(
        &[
            "--bootstrap-hosts",
            &broker.bootstrap(),
            "--log-format",
            "json",
        ],
        &[("WSPROXY_PORTT", "1")],
    );
    let warning = log.first_with("WSPROXY_PORTT").await;
    let warning: Value = serde_json::from_str(&warning).unwrap();
    assert_eq!(warning["level"], "WARN");
    let first: Value = serde_json::from_str(&log.with("")[0]).unwrap();
    let fields = &first["fields"];
    assert_eq!(fields["message"], "listening");
    assert_eq!(fields["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(fields["brokers"], broker.bootstrap());
    assert_eq!(fields["message_bytes_max"], 1 << 20);
    assert_eq!(fields["clients"], "anybody");
    assert!(
        log.with("anybody who reaches").is_empty(),
        "a loopback address"
    );
}

#[tokio::test]
async fn a_socket_leaves_a_line_when_it_opens_and_one_when_it_closes() {
    let (program, log) = Program::start_logged(&["--dev"], &[]);
    let mut producer = program.connect("/socket/in?topic=t&clientId=p").await;
    for _ in 0..3 {
        producer.ask(r#"{"value":{"value":"x"}}"#).await;
    }
    let mut consumer = program
        .connect("/socket/out?topic=t&clientId=c&groupId=g")
        .await;
    consumer.records(3).await;
    producer.close().await;
    consumer.close().await;
    let opened = log
        .first_with("socket opened endpoint=\"/socket/out\"")
        .await;
    for part in [
        "client=\"c\"",
        "group=\"g\"",
        "peer=127.0.0.1:",
        "principal=the proxy",
    ] {
        assert!(opened.contains(part), "{opened}");
    }
    for endpoint in ["/socket/in", "/socket/out"] {
        let part = format!("socket closed endpoint=\"{endpoint}\"");
        let closed = log.first_with(&part).await;
        for part in ["reason=the client closed", "records=3", "seconds="] {
            assert!(closed.contains(part), "{closed}");
        }
    }
}

#[tokio::test]
async fn the_lines_of_sockets_can_be_left_out() {
    let level = "info,kafka_websocket_proxy::sockets=warn";
    let (program, log) = Program::start_logged(&["--dev", "--log-level", level], &[]);
    program.connect("/socket/in?topic=t").await.close().await;
    program.signal("TERM");
    log.first_with("stopped").await;
    assert!(log.with("socket opened").is_empty());
    assert!(log.with("socket closed").is_empty());
}

#[tokio::test]
async fn partitions_that_are_lost_name_their_group_client_and_peer() {
    let broker = broker().await;
    let bootstrap = broker.bootstrap();
    let (program, log) = Program::start_logged(&["--bootstrap-hosts", &bootstrap], &[]);
    let mut producer = program.connect("/socket/in?topic=t").await;
    producer.ask(r#"{"value":{"value":"x"}}"#).await;
    let mut consumer = program
        .connect("/socket/out?topic=t&clientId=c&groupId=g")
        .await;
    consumer.records(1).await;
    let unknown = FaultAction::Error(UNKNOWN_MEMBER_ID);
    broker
        .faults()
        .add(FaultRule::on(ApiKey::Heartbeat, unknown));
    let line = log.first_with("partitions were lost").await;
    for part in [
        "group=\"g\"",
        "client=\"c\"",
        "peer=127.0.0.1:",
        "partitions=\"t-0\"",
    ] {
        assert!(line.contains(part), "{line}");
    }
}

#[tokio::test]
async fn the_end_of_an_outage_says_how_long_it_was() {
    let broker = broker().await;
    let bootstrap = broker.bootstrap();
    let (program, log) = Program::start_logged(&["--bootstrap-hosts", &bootstrap], &[]);
    program.ready().await;
    let node = kafka_client::BrokerId(1);
    assert!(broker.stop_node(node).await);
    // Whatever asks for something notices.
    assert_eq!(program.refused("/socket/in?topic=t").await.status, 503);
    log.first_with("the cluster does not answer; retrying")
        .await;
    broker.start_node(node).await.unwrap();
    let line = log.first_with("the cluster answers again").await;
    let (_, seconds) = line.split_once("seconds=").unwrap();
    assert!(seconds.parse::<f64>().unwrap() > 0.0, "{line}");
}

#[tokio::test]
async fn records_that_time_out_are_counted_per_topic() {
    let broker = broker().await;
    broker.create_topic("u", 1);
    let (program, log) = Program::start_logged(
        &[
            "--bootstrap-hosts",
            &broker.bootstrap(),
            "-D",
            "kafka-client.properties.request.timeout.ms=500",
            "--producer-delivery-timeout-ms",
            "1000",
        ],
        &[],
    );
    let mut sockets = Vec::new();
    for topic in ["t", "u"] {
        let path = format!("/socket/in?topic={topic}");
        sockets.push(program.connect(&path).await);
    }
    broker
        .faults()
        .add(FaultRule::on(ApiKey::Produce, FaultAction::Silence).always());
    for socket in &mut sockets {
        for _ in 0..3 {
            socket.send(r#"{"value":{"value":"x"}}"#).await;
        }
    }
    for socket in &mut sockets {
        for answer in socket.records(3).await {
            assert!(answer["error"].is_object(), "{answer}");
        }
    }
    let mut counted = 0;
    let all = async {
        while counted < 6 {
            let lines = log.with("records were not written within delivery.timeout.ms");
            let count = |line: &String| -> u64 {
                let (_, rest) = line.split_once("records=").unwrap();
                rest.split(' ').next().unwrap().parse().unwrap()
            };
            counted = lines.iter().map(count).sum();
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, all)
        .await
        .expect("they were not all counted");
    assert_eq!(counted, 6);
    assert!(!log.with("t: ").is_empty() && !log.with("u: ").is_empty());
}

#[tokio::test]
async fn a_hangup_ends_nothing() {
    let (program, log) = Program::start_logged(&["--dev"], &[]);
    let mut socket = program.connect("/socket/in?topic=t").await;
    program.signal("HUP");
    log.first_with("SIGHUP").await;
    let answer = socket.ask(r#"{"value":{"value":"x"}}"#).await;
    assert_eq!(answer["offset"], 0);
}

#[tokio::test]
async fn a_reverse_proxy_that_is_trusted_names_the_client() {
    let (program, log) = Program::start_logged(&["--dev", "--trusted-proxies", "127.0.0.0/8"], &[]);
    let header = ("x-forwarded-for", "192.0.2.9, 198.51.100.7");
    let path = "/socket/in?topic=t";
    let address = program.address();
    let client = WsClient::connect_with(&address, path, Some(header)).await;
    assert!(client.is_ok());
    let line = log.first_with("socket opened").await;
    assert!(line.contains("peer=198.51.100.7 via 127.0.0.1:"), "{line}");
}

#[test]
fn the_service_manager_learns_that_the_program_is_ready_and_that_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let (program, _log) = Program::start_logged(&["--dev"], &variables);
    let next = || {
        let mut buffer = [0; 64];
        let len = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    };
    assert_eq!(next(), "READY=1\n");
    program.signal("TERM");
    assert_eq!(next(), "STOPPING=1\n");
    assert_eq!(program.ended().code(), Some(0));
}

#[tokio::test]
async fn an_ordinary_first_use_of_a_cluster_warns_of_nothing() {
    let kafka = Kafka::start("4.4", 1, &[]);
    let topic = unique("cold");
    kafka.create_topic(&topic, 1, 1);
    let args = ["--bootstrap-hosts", kafka.bootstrap()];
    let replicas = ["--session-handler-session-state-replication-factor", "1"];
    let (program, log) = Program::start_logged(&[args, replicas].concat(), &[]);
    let mut producer = program.connect(&format!("/socket/in?topic={topic}")).await;
    let mut consumer = program
        .connect(&format!("/socket/out?topic={topic}&clientId=c"))
        .await;
    producer.ask(r#"{"value":{"value":"x"}}"#).await;
    consumer.records(1).await;
    consumer.close().await;
    log.first_with("socket closed").await;
    let alarming = [log.with(" WARN "), log.with(" ERROR ")].concat();
    assert!(alarming.is_empty(), "{alarming:#?}");
}
