//! The program as it is started: flags, faults, signals.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Output, Stdio};

use memory_broker::{ApiKey, BrokerConfig, FaultAction, FaultRule, MemoryBroker};
use tokio_util::sync::CancellationToken;

use crate::support::program::exit_status;
use crate::support::ws_client::WsClient;
use crate::support::{secrets, until};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kafka-websocket-proxy"));
    command.env_clear();
    command
}

fn refused(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    ended_by_itself(program().args(arguments).envs(variables.iter().copied()))
}

/// The exit code and standard error of a start that should fail.
fn ended_by_itself(command: &mut Command) -> (Option<i32>, String) {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = exit_status(&mut child);
    let Output { stderr, .. } = child.wait_with_output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    secrets::assert_none_in(&said);
    (status.code(), said)
}

/// EX_CONFIG of sysexits(3).
const EX_CONFIG: Option<i32> = Some(78);
/// EX_UNAVAILABLE of sysexits(3).
const EX_UNAVAILABLE: Option<i32> = Some(69);

/// The one line that ends the start.
fn line_of(arguments: &[&str]) -> String {
    let (code, text) = refused(arguments, &[]);
    assert_eq!(code, EX_CONFIG, "{arguments:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
    text
}

/// A running program, ended with the test.
struct RunningProgram {
    child: Child,
    address: String,
}

impl RunningProgram {
    fn start(arguments: &[&str]) -> Self {
        let mut child = program()
            .args([
                "--bind-interface",
                "127.0.0.1",
                "--port",
                "0",
                "--dev-broker-port",
                "0",
            ])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = log.next().expect("it ended early").unwrap();
            if let Some((_, rest)) = line.split_once("listening address=") {
                break rest.split_whitespace().next().unwrap().to_owned();
            }
        };
        // It must not stop for want of a reader.
        std::thread::spawn(move || log.for_each(drop));
        Self { child, address }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// The exit code, once it has ended.
    fn ended(&mut self) -> Option<i32> {
        exit_status(&mut self.child).code()
    }
}

impl Drop for RunningProgram {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn without_brokers_one_line_names_the_two_flags() {
    let (code, text) = refused(&[], &[]);
    assert_eq!(code, EX_CONFIG);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(
        text.contains("--dev") && text.contains("--bootstrap-hosts"),
        "{text}"
    );
}

#[test]
fn every_bad_setting_is_one_line_with_key_source_and_accepted_values() {
    let variables = [
        ("WSPROXY_PORT", "eighty"),
        ("WSPROXY_KAFKA_SASL_JAAS_CFG", "password=\"hunter2\""),
    ];
    let arguments = [
        "--bootstrap-hosts",
        "nowhere",
        "-D",
        "kafka-client.properties.acks=1",
        "-D",
        "kafka.ws.proxy.server.prot=1",
    ];
    let (code, text) = refused(&arguments, &variables);
    assert_eq!(code, EX_CONFIG);
    assert_eq!(text.lines().count(), 5, "{text}");
    for part in [
        "server.port (from variable WSPROXY_PORT): \"eighty\"",
        "bootstrap-hosts (from --bootstrap-hosts)",
        "acks (from -D",
        "did you mean kafka.ws.proxy.server.port?",
        "sasl.jaas.config (from variable WSPROXY_KAFKA_SASL_JAAS_CFG): security.protocol is not set",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(
        !text.contains("hunter2") && !text.contains("panicked"),
        "{text}"
    );
}

#[test]
fn a_port_in_use_is_one_line_and_leaves_a_restart_to_the_supervisor() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, text) = refused(
        &["--dev", "--bind-interface", "127.0.0.1", "--port", &port],
        &[],
    );
    assert_eq!(code, EX_UNAVAILABLE);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains(&port) && text.contains("--port"), "{text}");
}

#[test]
fn a_broker_port_in_use_is_one_line_that_names_its_flag() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, text) = refused(&["--dev", "--port", "0", "--dev-broker-port", &port], &[]);
    assert_eq!(code, EX_UNAVAILABLE, "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    let named = "kafka.ws.proxy.dev.broker-port (from --dev-broker-port): cannot listen on";
    assert!(text.contains(named), "{text}");
}

#[test]
fn a_bare_number_is_no_duration_of_a_flag() {
    let text = line_of(&["--dev", "--shutdown-grace", "20"]);
    assert!(
        text.contains("a duration with its unit, such as 20s or 20ms"),
        "{text}"
    );
}

#[test]
fn a_misspelt_variable_is_named_whatever_else_is_wrong() {
    let variables = [("WSPROXY_BOOTSTRAP_HOSTS", "kafka:9092")];
    for (arguments, error) in [
        (&[][..], "no brokers"),
        (&["--prot", "1"], "did you mean --port?"),
        (&["--dev", "--port", "x"], "server.port (from --port)"),
    ] {
        let (code, text) = refused(arguments, &variables);
        assert_eq!(code, EX_CONFIG, "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(
            text.contains("did you mean WSPROXY_KAFKA_BOOTSTRAP_HOSTS?"),
            "{text}"
        );
        assert!(text.contains(error), "{text}");
    }
}

#[test]
fn no_secret_comes_back_in_an_error() {
    for arguments in [
        &["--bootstrap-hosts", "user:hunter2@kafka:9092"][..],
        &["--dev", "-D", "hunter2"],
        &[
            "--dev",
            "-D",
            "kafka-client.properties.sasl.jaas.config",
            "hunter2",
        ],
        &[
            "--dev",
            "-D",
            "kafka-client.properties.ssl.key.password hunter2",
        ],
        &["--dev", "--ssl-keystore-password", "hunter2"],
        &["--dev", "--ssl-keystore-pasword=hunter2"],
        &["--dev", "--basic-auth-password", "x", "hunter2"],
    ] {
        let (code, text) = refused(arguments, &[]);
        assert_eq!(code, EX_CONFIG, "{text}");
        assert!(!text.contains("hunter2"), "{arguments:?}: {text}");
    }
}

#[test]
fn tokens_cannot_be_presented_to_brokers_where_there_are_none_or_nobody_takes_them() {
    let presents = ["--openid-connect-kafka-oauthbearer", "true"];
    let asks = [
        "--openid-connect-enabled",
        "true",
        "--openid-connect-well-known-url",
        "https://idp.example/x",
        "--openid-connect-audience",
        "proxy",
    ];
    let claims = [
        "--openid-connect-custom-jwt-jwt-kafka-username-key",
        "user",
        "--openid-connect-custom-jwt-jwt-kafka-password-key",
        "pass",
    ];
    let brokers = ["--bootstrap-hosts", "kafka:9092"];
    for (arguments, other) in [
        (
            [&brokers[..], &presents].concat(),
            "server.openid-connect.enabled",
        ),
        (
            [&brokers[..], &presents, &asks].concat(),
            "security.protocol (from its default) is without SASL",
        ),
        (
            [&["--dev"][..], &presents, &asks].concat(),
            "--dev brings its own broker, which has no SASL",
        ),
        (
            [&brokers[..], &presents, &asks, &claims].concat(),
            "server.openid-connect.custom-jwt.jwt-kafka-username-key",
        ),
    ] {
        let (code, text) = refused(&arguments, &[]);
        assert_eq!(code, EX_CONFIG, "{text}");
        let key =
            "server.openid-connect.kafka-oauthbearer (from --openid-connect-kafka-oauthbearer): ";
        assert!(text.contains(key) && text.contains(other), "{text}");
    }
}

#[test]
fn a_word_that_is_no_log_level_is_refused() {
    for level in ["verbose", ""] {
        let text = line_of(&["--dev", "--log-level", level]);
        for part in [
            "log.level",
            "--log-level",
            "error, warn, info, debug, trace",
        ] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
    }
}

#[test]
fn a_duration_beyond_a_year_is_refused() {
    let text = line_of(&["--dev", "--shutdown-grace", "213503982334600 days"]);
    assert!(text.contains("at most 365 days"), "{text}");
}

#[test]
fn what_is_not_utf_8_is_refused_and_named() {
    let bytes = OsStr::from_bytes(b"\xff");
    let run = |command: &mut Command| {
        let (code, text) = ended_by_itself(command);
        assert_eq!(code, EX_CONFIG, "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    };
    let text = run(program().arg("--dev").arg(bytes));
    assert!(
        text.contains("argument 2") && text.contains("UTF-8"),
        "{text}"
    );
    let text = run(program().arg("--server-id").arg(bytes));
    assert!(text.contains("--server-id"), "{text}");
    let text = run(program().arg("--dev").env("WSPROXY_SERVER_ID", bytes));
    assert!(text.contains("variable WSPROXY_SERVER_ID"), "{text}");
}

#[test]
fn misused_flags_are_one_line_with_the_way_out() {
    for (arguments, parts) in [
        (&["--dev", "--prot", "1"][..], &["--prot", "--port"][..]),
        (&["--dev", "--port"], &["--port"]),
        (
            &["--dev", "--port", "1", "--port", "2"],
            &["--port", "multiple"],
        ),
        (&["--dev=x"], &["--dev"]),
        (&["--dev", "-x"], &["-x"]),
        (&["--dev", "serve"], &["serve"]),
    ] {
        let text = line_of(arguments);
        for part in parts.iter().chain(&["see --help"]) {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
    }
}

#[test]
fn a_negative_value_reaches_the_key_that_refuses_it() {
    let text = line_of(&["--dev", "--shutdown-grace", "-5s"]);
    assert!(text.contains("(from --shutdown-grace): \"-5s\""), "{text}");
    assert!(text.contains("a duration such as"), "{text}");
}

#[test]
fn an_address_that_cannot_be_had_names_the_key_and_where_it_came_from() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let loopback = ["--dev", "--bind-interface", "127.0.0.1"];
    let (code, text) = refused(&loopback, &[("WSPROXY_PORT", &port)]);
    assert_eq!(code, EX_UNAVAILABLE, "{text}");
    let named = "kafka.ws.proxy.server.port (from variable WSPROXY_PORT)";
    assert!(text.contains(named), "{text}");

    let elsewhere = ["--dev", "--port", "0", "--bind-interface", "192.0.2.1"];
    let (code, text) = refused(&elsewhere, &[]);
    assert_eq!(code, EX_UNAVAILABLE, "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    let named = "kafka.ws.proxy.server.bind-interface (from --bind-interface)";
    assert!(text.contains(named), "{text}");
}

#[test]
fn help_lists_the_flags_with_their_variables_and_defaults() {
    let output = program().arg("--help").output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "--dev",
        "--bootstrap-hosts",
        "WSPROXY_PORT",
        "[default: 8078]",
        "-D <KEY=VALUE>",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[tokio::test]
async fn dev_serves_both_directions_makes_topics_and_stops_cleanly_on_sigterm() {
    let mut running = RunningProgram::start(&["--dev"]);
    let mut out = WsClient::connect(&running.address, "/socket/out?topic=t&clientId=a")
        .await
        .unwrap();
    let mut producer = WsClient::connect(&running.address, "/socket/in?topic=t")
        .await
        .unwrap();
    assert_eq!(
        producer.ask(r#"{"value":{"value":"x"}}"#).await["offset"],
        0
    );
    assert_eq!(out.next().await["value"]["value"], "x");
    running.signal("-TERM");
    assert_eq!(out.closed().await.0, 1012);
    assert_eq!(producer.closed().await.0, 1012);
    drop((out, producer));
    assert_eq!(running.ended(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_what_the_first_one_waits_for() {
    let broker = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
    assert!(broker.create_topic("t", 1));
    let bootstrap = broker.bootstrap();
    let arguments = [
        "--shutdown-grace",
        "1 hour",
        "--bootstrap-hosts",
        &bootstrap,
    ];
    let mut running = RunningProgram::start(&arguments);
    let mut socket = WsClient::connect(&running.address, "/socket/in?topic=t")
        .await
        .unwrap();
    // A record whose acknowledgement does not come.
    let never = FaultAction::Hold(CancellationToken::new());
    broker
        .faults()
        .add(FaultRule::on(ApiKey::Produce, never).always());
    socket.send(r#"{"value":{"value":"x"}}"#).await;
    until("it is under way", || broker.requests(ApiKey::Produce) > 0).await;
    running.signal("-TERM");
    running.signal("-INT");
    let ended = tokio::task::spawn_blocking(move || running.ended());
    assert_eq!(ended.await.unwrap(), Some(1));
    drop(socket);
}

#[tokio::test]
async fn brokers_that_are_absent_at_the_start_do_not_keep_the_program_from_serving() {
    let mut running = RunningProgram::start(&["--bootstrap-hosts", "127.0.0.1:1"]);
    let refused = WsClient::connect(&running.address, "/socket/in?topic=t").await;
    assert_eq!(refused.err().unwrap().status, 503);
    running.signal("-INT");
    assert_eq!(running.ended(), Some(0));
}

#[test]
fn faults_of_the_start_are_json_where_the_log_is() {
    let json = [("WSPROXY_LOG_FORMAT", "json"), ("WSPROXY_PORTT", "1")];
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let interface = ["--dev", "--bind-interface", "127.0.0.1", "--port"];
    for (port, code, said) in [
        ("x", EX_CONFIG, "is not accepted"),
        ("1 --prot 2", EX_CONFIG, "did you mean --port?"),
        (&*port, EX_UNAVAILABLE, "cannot listen on"),
    ] {
        let (ended, text) = refused(
            &[&interface[..], &port.split(' ').collect::<Vec<_>>()].concat(),
            &json,
        );
        assert_eq!(ended, code, "{text}");
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect(line))
            .collect();
        let levels: Vec<_> = lines.iter().map(|line| &line["level"]).collect();
        assert_eq!(levels, ["WARN", "ERROR"], "{text}");
        let message = lines[1]["fields"]["message"].as_str().unwrap();
        assert!(message.contains(said), "{text}");
    }
}
