//! The settings of the program as it is started, from a file to what acts.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::support::program::Program;
use crate::support::secrets;

/// A config file in a directory of its own.
struct ConfigFile {
    directory: TempDir,
}

impl ConfigFile {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("application.conf"), text).unwrap();
        Self { directory }
    }

    fn path(&self) -> String {
        let path: PathBuf = self.directory.path().join("application.conf");
        path.display().to_string()
    }
}

/// The name of the node that the log of a start tells.
async fn server_id(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let arguments = [&["--dev"], arguments].concat();
    let (_program, log) = Program::start_logged(&arguments, variables);
    let line = log.first_with("server_id=").await;
    let (_, rest) = line.split_once("server_id=").unwrap();
    rest.split_whitespace()
        .next()
        .unwrap()
        .trim_matches('"')
        .to_owned()
}

#[tokio::test]
async fn a_flag_wins_over_a_variable_that_over_the_file_and_that_over_the_default() {
    let file = ConfigFile::new("kafka.ws.proxy.server.server-id = of-file\n");
    let path = file.path();
    let by_flag = ["--config", &path];
    let variable = ("WSPROXY_SERVER_ID", "of-variable");
    assert_eq!(server_id(&[], &[]).await, "node-1");
    assert_eq!(server_id(&by_flag, &[]).await, "of-file");
    assert_eq!(
        server_id(&[], &[("WSPROXY_CONFIG", &path)]).await,
        "of-file"
    );
    assert_eq!(server_id(&by_flag, &[variable]).await, "of-variable");
    let all = [&by_flag[..], &["--server-id", "of-flag"]].concat();
    assert_eq!(server_id(&all, &[variable]).await, "of-flag");
}

/// Exit code, standard output and standard error of a run that ends by itself.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kafka-websocket-proxy"))
        .env_clear()
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = |bytes| {
        let text = String::from_utf8(bytes).unwrap();
        secrets::assert_none_in(&text);
        text
    };
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn check_config_prints_what_holds_with_its_sources_and_no_secret() {
    let file = ConfigFile::new(
        "kafka.ws.proxy {\n server.server-id = a\n kafka-client.bootstrap-hosts = \"a:1\"\n\
         kafka-client.properties { \"ssl.key.password\" = hunter2, linger.ms = 3 }\n}\n",
    );
    let path = file.path();
    let arguments = ["check-config", "--config", &path, "--port", "81"];
    let (code, printed, said) = run(&arguments, &[("WSPROXY_LOG_LEVEL", "warn")]);
    assert_eq!(code, Some(0), "{said}");
    let begin = "kafka.ws.proxy.";
    for line in [
        format!("{begin}server.server-id = a # {path}:2"),
        format!("{begin}server.port = 81 # --port"),
        format!("{begin}log.level = warn # variable WSPROXY_LOG_LEVEL"),
        format!("{begin}log.format = text # default"),
        format!("{begin}kafka-client.properties.linger.ms = 3 # {path}:4"),
        format!("{begin}kafka-client.properties.batch.size = 16384 # default"),
        format!("{begin}kafka-client.properties.ssl.key.password = \"***\" # {path}:4"),
    ] {
        assert!(
            printed.lines().any(|printed| printed == line),
            "{line}: {printed}"
        );
    }
    assert!(
        said.starts_with("warning: ") && said.contains("ssl.key.password"),
        "{said}"
    );
    assert!(!said.contains("hunter2") && !printed.contains("hunter2"));
    // What it prints is a configuration itself.
    let printed = ConfigFile::new(&printed.replace("\"***\"", "x"));
    let again = ["check-config", "--config", &printed.path()];
    assert_eq!(run(&again, &[]).0, Some(0));
}

#[test]
fn check_config_reports_every_fault() {
    let file = ConfigFile::new("kafka.ws.proxy.server {\n port = x\n prot = 1\n}\n");
    let path = file.path();
    let arguments = ["check-config", "--config", &path, "--shutdown-grace", "5"];
    let (code, printed, said) = run(&arguments, &[]);
    assert_eq!(code, Some(78), "{said}");
    for part in [
        format!("server.port (from {path}:2): \"x\" is not accepted"),
        format!("server.prot (from {path}:3): no such key"),
        "server.shutdown-grace (from --shutdown-grace)".to_owned(),
        "no brokers".to_owned(),
    ] {
        assert!(said.contains(&part), "{part}: {said}");
    }
    assert_eq!(said.lines().count(), 4, "{said}");
    let default = "kafka.ws.proxy.server.server-id = \"node-1\" # default";
    assert!(printed.contains(default), "{printed}");
}

#[tokio::test]
async fn healthcheck_asks_the_instance_that_the_same_settings_start() {
    let program = Program::start(&["--dev"]);
    let (_, port) = program
        .address()
        .rsplit_once(':')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let file = ConfigFile::new(&format!("kafka.ws.proxy.server.port = {port}\n"));
    let path = file.path();
    let ask = |arguments: &[&str], variables: &[(&str, &str)]| {
        let (code, printed, said) = run(&[&["healthcheck"], arguments].concat(), variables);
        assert_eq!(printed, "");
        (code, said)
    };
    for (arguments, variables) in [
        (&["--port", &*port][..], &[][..]),
        (&["--config", &path], &[]),
        (&[], &[("WSPROXY_PORT", &*port)]),
        (&["--port", &*port, "--bind-interface", "127.0.0.1"], &[]),
    ] {
        let expected = (Some(0), String::new());
        assert_eq!(ask(arguments, variables), expected, "{arguments:?}");
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed_port = closed.local_addr().unwrap().port().to_string();
    drop(closed);
    for arguments in [&["--port", &*closed_port][..], &["--port", "x"]] {
        let (code, said) = ask(arguments, &[]);
        assert_eq!(code, Some(1), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn reference_config_prints_the_file_of_all_keys() {
    let (code, printed, _) = run(&["reference-config"], &[]);
    assert_eq!(code, Some(0));
    assert_eq!(printed, include_str!("../config/reference.conf"));
}

#[tokio::test]
async fn a_bootstrap_host_without_an_address_is_named_and_stops_nothing() {
    let arguments = [
        "--bootstrap-hosts",
        "127.0.0.1:1,no-such-host.invalid:9092",
        "--broker-resolution-retries",
        "0",
    ];
    let (program, log) = Program::start_logged(&arguments, &[]);
    let line = log.first_with("a bootstrap host does not resolve").await;
    assert!(line.contains("no-such-host.invalid:9092"), "{line}");
    assert_eq!(log.with("a bootstrap host does not resolve").len(), 1);
    assert_eq!(program.get("/healthcheck").await.0, 200);
}

#[test]
fn a_configuration_of_the_original_loads() {
    let file = format!(
        "{}/proto-tests/golden/original/application.conf",
        env!("CARGO_MANIFEST_DIR")
    );
    let arguments = ["check-config", "--config", &file];
    let (code, printed, said) = run(&arguments, &[]);
    assert_eq!(code, Some(0), "{said}");
    let ignored =
        "application.conf: akka, pekko, logback are ignored: only kafka.ws.proxy is read here";
    assert_eq!(said.matches(ignored).count(), 1, "{said}");
    let request_timeout = "producer.kafka-client-properties.request.timeout.ms = 20000 # ";
    assert!(printed.contains(request_timeout), "{printed}");
    for line in said.lines() {
        assert!(
            line.starts_with("warning: ") && line.contains("ignored: "),
            "{line}"
        );
    }

    let (code, printed, said) = run(
        &arguments,
        &[
            ("WSPROXY_PORT", "81"),
            ("WSPROXY_OPENID_ENABLED", "true"),
            ("WSPROXY_KAFKA_SECURITY_PROTOCOL", "SASL_SSL"),
            ("WSPROXY_KAFKA_SASL_JAAS_CFG", "hunter2"),
        ],
    );
    assert_eq!(code, Some(78), "{said}");
    assert!(printed.contains("kafka.ws.proxy.server.port = 81 # variable WSPROXY_PORT"));
    for (refused, why) in [
        (
            "openid-connect.well-known-url",
            "openid-connect.enabled needs it",
        ),
        ("sasl.jaas.config", "*** is not accepted"),
    ] {
        let named = said
            .lines()
            .any(|line| line.contains(refused) && line.contains(why));
        assert!(named, "{refused}: {said}");
    }
    assert!(!said.contains("hunter2") && !printed.contains("hunter2"));
}
