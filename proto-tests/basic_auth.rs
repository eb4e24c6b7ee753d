//! `server.basic-auth.*`: who may connect, on every path, by header and by sub-protocol.

use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use kafka_websocket_proxy::config::Config;
use secret::Secret;

use crate::support::http::ask;
use crate::support::program::{LogLines, Program};
use crate::support::proxy::Proxy;
use crate::support::until_asked;

const PAIR: &str = "edge:s3cret wörd";
const RECORD: &str = r#"{"value":{"value":"x"}}"#;
const OFFERED: &str = "sec-websocket-protocol";

fn asking(config: &mut Config) {
    let basic_auth = &mut config.server.basic_auth;
    basic_auth.enabled = Some(true);
    basic_auth.realm = Some("edge".to_owned());
    basic_auth.username = Some(Secret::new("edge"));
    basic_auth.password = Some(Secret::new("s3cret wörd"));
}

fn header(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

fn sub_protocols(pair: &str) -> String {
    let encoded = URL_SAFE_NO_PAD.encode(pair);
    format!("basic.{encoded}, kafka-websocket-proxy")
}

#[tokio::test]
async fn every_path_asks_for_user_and_password_whether_or_not_there_is_anything_at_it() {
    let proxy = Proxy::with(asking).await;
    let authorized = format!("Authorization: {}", header(PAIR));
    for (path, status) in [
        ("/healthcheck", 200),
        ("/ready", 200),
        ("/metrics", 200),
        ("/kafka/cluster/info", 200),
        ("/schemas/avro/producer/record", 200),
        ("/nothing", 404),
    ] {
        let refused = ask(&proxy.address, "GET", path, &[]).await;
        assert_eq!(refused.status, 401, "{path}");
        let challenge = refused.header("www-authenticate");
        assert_eq!(challenge, Some("Basic realm=\"edge\""), "{path}");
        assert!(refused.message().contains("Authorization: Basic"));
        let wrong = format!("Authorization: {}", header("edge:s3cret"));
        let refused = ask(&proxy.address, "GET", path, &[&wrong]).await;
        assert_eq!(
            (refused.status, &*refused.message()),
            (401, "user or password is wrong")
        );
        until_asked("served", async || {
            ask(&proxy.address, "GET", path, &[&authorized])
                .await
                .status
                == status
        })
        .await;
    }
    // A preflight cannot have credentials, and a page is to read why it was refused.
    let origin = "Origin: https://app.example.org";
    let preflight = [origin, "Access-Control-Request-Method: GET"];
    let answer = ask(&proxy.address, "OPTIONS", "/kafka/cluster/info", &preflight).await;
    assert_eq!(answer.status, 204);
    let answer = ask(&proxy.address, "OPTIONS", "/socket/in", &[]).await;
    assert_eq!(answer.status, 204);
    let refused = ask(&proxy.address, "GET", "/kafka/cluster/info", &[origin]).await;
    assert_eq!(refused.header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn health_is_free_of_it_where_the_settings_say_so() {
    let proxy = Proxy::with(|config| {
        asking(config);
        config.server.secure_health_check_endpoint = false;
    })
    .await;
    proxy.ready().await;
    for (path, status) in [
        ("/healthcheck", 200),
        ("/ready", 200),
        ("/metrics", 200),
        ("/kafka/cluster/info", 401),
        ("/socket/in?topic=t", 401),
    ] {
        let answer = ask(&proxy.address, "GET", path, &[]).await;
        assert_eq!(answer.status, status, "{path}");
    }
}

#[tokio::test]
async fn a_socket_opens_with_user_and_password_in_a_header_or_in_a_sub_protocol() {
    let proxy = Proxy::with(asking).await;
    proxy.topic("t", 1);
    let path = "/socket/in?topic=t";
    for (name, value) in [
        ("authorization", header(PAIR)),
        (OFFERED, sub_protocols(PAIR)),
    ] {
        let mut socket = proxy.open_with(path, (name, &value)).await.expect(name);
        assert_eq!(socket.ask(RECORD).await["topic"], "t");
    }
    let nothing_beside_it = format!("basic.{}", URL_SAFE_NO_PAD.encode(PAIR));
    for (name, value, status) in [
        ("authorization", header("edge:x"), 401),
        ("authorization", "Bearer abc".to_owned(), 401),
        (OFFERED, sub_protocols("x:s3cret wörd"), 401),
        (OFFERED, nothing_beside_it, 400),
        (OFFERED, "bearer.a.b.c".to_owned(), 401),
        // That is Kafka's, and says nothing of the proxy's.
        ("x-kafka-auth", STANDARD.encode(PAIR), 401),
    ] {
        let refused = proxy.open_with(path, (name, &value)).await.err();
        let refused = refused.expect("it is refused");
        assert_eq!(refused.status, status, "{name} {value}");
    }
    assert_eq!(proxy.open(path).await.err().expect("refused").status, 401);
    // A browser cannot read a refused upgrade.
    let path = "/socket/in?topic=t&errors=close";
    let wrong = sub_protocols("edge:x");
    let mut refused = proxy.open_with(path, (OFFERED, &wrong)).await.unwrap();
    let (code, reason) = refused.closed().await;
    assert_eq!((code, &*reason), (4401, "user or password is wrong"));
}

#[tokio::test]
async fn what_is_the_proxys_never_reaches_kafka() {
    // The embedded broker has no SASL: credentials for it would be refused with 400.
    let proxy = Proxy::with(asking).await;
    proxy.topic("t", 1);
    let path = "/socket/in?topic=t";
    assert!(
        proxy
            .open_with(path, ("authorization", &header(PAIR)))
            .await
            .is_ok()
    );
    let kafka_auth = URL_SAFE_NO_PAD.encode("alice:x");
    let both = format!("{}, kafka-auth.{kafka_auth}", sub_protocols(PAIR));
    let refused = proxy.open_with(path, (OFFERED, &both)).await.err().unwrap();
    assert_eq!(refused.status, 400, "{refused:?}");
    let open = Proxy::start().await;
    open.topic("t", 1);
    let as_kafkas = sub_protocols(PAIR);
    let refused = open
        .open_with(path, (OFFERED, &as_kafkas))
        .await
        .err()
        .unwrap();
    assert!(
        refused.message().starts_with("sub-protocol basic: "),
        "{refused:?}"
    );
}

#[tokio::test]
async fn the_program_asks_keeps_the_secret_to_itself_and_its_healthcheck_knows_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "s3cret wörd\n").unwrap();
    let password = format!("@{}", file.display());
    let settings = [
        "--basic-auth-enabled",
        "--basic-auth-username",
        "edge",
        "--basic-auth-password",
        &password,
    ];
    let arguments = [&["--dev", "--log-level", "trace"][..], &settings].concat();
    let (program, log) = Program::start_logged(&arguments, &[]);
    let address = program.address();
    assert_eq!(ask(&address, "GET", "/healthcheck", &[]).await.status, 401);
    let authorized = format!("Authorization: {}", header(PAIR));
    let answer = ask(&address, "GET", "/healthcheck", &[&authorized]).await;
    assert_eq!(answer.status, 200);
    let port = address.rsplit_once(':').unwrap().1;
    let arguments = [&["--port", port], &settings[..], &["healthcheck"]].concat();
    let asked = std::process::Command::new(env!("CARGO_BIN_EXE_kafka-websocket-proxy"))
        .args(&arguments)
        .output()
        .unwrap();
    assert!(asked.status.success(), "{asked:?}");
    for secret in ["s3cret", &STANDARD.encode(PAIR)] {
        assert_eq!(log.with(secret), Vec::<String>::new());
    }
}

#[tokio::test]
async fn the_start_says_for_whom_the_server_is_and_warns_where_that_is_everybody_on_other_hosts() {
    let asking = "--basic-auth-enabled --basic-auth-username edge --basic-auth-password x";
    for (interface, settings, clients, warnings) in [
        ("127.0.0.1", "", "\"anybody\"", 0),
        ("0.0.0.0", "", "\"anybody\"", 1),
        ("0.0.0.0", asking, "\"those with credentials\"", 0),
    ] {
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_kafka-websocket-proxy"))
            .args(["--dev", "--port", "0", "--dev-broker-port", "0"])
            .args(["--bind-interface", interface])
            .args(settings.split_whitespace())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = LogLines::following(program.stderr.take().unwrap());
        let listening = log.first_with("listening address=").await;
        let (_, address) = listening.split_once("address=").unwrap();
        let address = address.split(' ').next().unwrap();
        let address = address.replace("0.0.0.0", "127.0.0.1");
        // What was logged before this is there with it.
        ask(&address, "GET", "/socket/in", &[]).await;
        log.first_with("socket refused").await;
        program.kill().unwrap();
        program.wait().unwrap();
        let expected = format!("clients={clients}");
        assert!(listening.contains(&expected), "{listening}");
        let warned = log.with("clients are not authenticated");
        assert_eq!(warned.len(), warnings, "{interface} {settings}: {warned:?}");
    }
}
