//! What somebody meets who starts it for the first time.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::support::clients::{self, Terminal};
use crate::support::program::Program;
use crate::support::proxy::Proxy;
use crate::support::until;
use crate::support::ws_client::WsClient;

/// A running `--dev`, with what it has printed.
struct DevProgram {
    child: Child,
    printed: String,
}

impl DevProgram {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kafka-websocket-proxy"))
            .args(["--dev", "--port", "0", "--dev-broker-port", "0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut printed = String::new();
        while !printed.contains("Ctrl-C") {
            assert!(lines.read_line(&mut printed).unwrap() > 0, "{printed}");
        }
        Self { child, printed }
    }

    /// The lines to paste.
    fn commands(&self) -> Vec<String> {
        let indented = self.printed.lines().filter_map(|l| l.strip_prefix("  "));
        indented.map(str::to_owned).collect()
    }
}

impl Drop for DevProgram {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_that_dev_prints_does_what_it_says() {
    let program = DevProgram::start();
    let commands = program.commands();
    let starting = |with: &str| {
        let found = commands.iter().filter(|line| line.starts_with(with));
        found.cloned().collect::<Vec<_>>()
    };
    let folder = tempfile::tempdir().unwrap();
    let (mut readers, mut writers) = (Vec::new(), Vec::new());
    for line in [starting("wscat"), starting("websocat"), starting("kcat")].concat() {
        let terminal = Terminal::start(&line, folder.path());
        if line.starts_with("wscat") {
            // It takes no line before, and the topic, which kcat does not wait for, is there then.
            terminal.shows("Connected").await;
        }
        match line.contains("/socket/in") {
            true => writers.push((line, terminal)),
            false => readers.push((line, terminal)),
        }
    }
    assert_eq!((readers.len(), writers.len()), (3, 2));
    let record = starting("{").remove(0);
    let parsed: Value = serde_json::from_str(&record).unwrap();
    let value = parsed["value"]["value"].as_str().unwrap();
    for (offset, (_, writer)) in writers.iter_mut().enumerate() {
        writer.enter(&record);
        writer.shows(&format!(r#""offset":{offset},"#)).await;
    }
    let piped = clients::output(&starting("echo").remove(0));
    assert!(piped.status.success());
    for (line, reader) in &readers {
        let last = match line.starts_with("kcat") {
            true => value,
            false => r#""offset":2,"#,
        };
        until(line, || reader.shown(value) == 3).await;
        reader.shows(last).await;
    }
}

#[test]
fn what_is_printed_says_which_version_it_is_and_how_to_stop_it() {
    let program = DevProgram::start();
    let printed = &program.printed;
    assert!(printed.contains(env!("CARGO_PKG_VERSION")), "{printed}");
    let first = printed.lines().next().unwrap();
    assert!(first.starts_with("Open http://127.0.0.1:"), "{first}");
    for part in ["in memory", "gone on exit", "Ctrl-C", "/ready"] {
        assert!(printed.contains(part), "{part} is not in: {printed}");
    }
}

#[tokio::test]
async fn the_page_is_there_with_dev_unless_it_is_turned_off_and_the_log_says_where() {
    for (args, is_there) in [
        (&["--dev"][..], true),
        (&["--dev", "--console-enabled", "false"], false),
    ] {
        let (program, log) = Program::start_logged(args, &[]);
        let (status, _) = program.get("/").await;
        assert_eq!(status, if is_there { 200 } else { 404 }, "{args:?}");
        let line = log.first_with("listening").await;
        let url = format!("console=\"http://{}/\"", program.address());
        assert_eq!(line.contains(&url), is_there, "{line}");
    }
}

#[tokio::test]
async fn dev_is_for_programs_and_pages_of_this_host() {
    let (program, log) = Program::start_logged(&["--dev"], &[]);
    let address = program.address();
    let socket = "/socket/in?topic=t";
    for (name, value) in [
        ("Host", "evil.example"),
        ("Host", "evil.example:8078"),
        ("Origin", "https://evil.example"),
    ] {
        let refused = WsClient::connect_with(&address, socket, Some((name, value))).await;
        let refused = refused.err().expect(value);
        assert_eq!(refused.status, 403, "{value}");
        assert!(refused.message().contains(name), "{}", refused.message());
        let logged = log.first_with(&format!("this {name}")).await;
        assert!(logged.contains("socket refused"), "{logged}");
        assert!(logged.contains("status=403"), "{logged}");
        // A browser is told by a close frame.
        let path = format!("{socket}&errors=close");
        let mut closed = WsClient::connect_with(&address, &path, Some((name, value)))
            .await
            .unwrap();
        assert_eq!(closed.closed().await.0, 4403, "{value}");
    }
    for (name, value) in [
        ("Host", "localhost:1234"),
        ("Host", "[::1]"),
        ("Origin", "http://localhost:3000"),
        ("Origin", "http://127.0.0.1"),
        ("Origin", "null"),
    ] {
        let accepted = WsClient::connect_with(&address, socket, Some((name, value))).await;
        assert!(accepted.is_ok(), "{value}");
    }
}

#[tokio::test]
async fn dev_is_for_others_too_when_they_are_named() {
    let (program, _log) =
        Program::start_logged(&["--dev", "--websocket-allowed-origins", "*"], &[]);
    for header in [("Host", "dev.example"), ("Origin", "https://dev.example")] {
        let path = "/socket/in?topic=t";
        let accepted = WsClient::connect_with(&program.address(), path, Some(header)).await;
        assert!(accepted.is_ok(), "{header:?}");
    }
}

#[tokio::test]
async fn an_unknown_path_is_answered_with_those_that_there_are() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let refused = proxy.open("/socket?topic=t").await.err().unwrap();
    assert_eq!(refused.status, 404);
    let message = refused.message();
    let (_, paths) = message.split_once("there are ").expect(&message);
    let paths: Vec<_> = paths.split(", ").collect();
    assert!(paths.len() >= 5, "{message}");
    for path in paths {
        let answer = proxy.open(&format!("{path}?topic=t&clientId=a")).await;
        assert!(
            answer.err().is_none_or(|refused| refused.status != 404),
            "{path}"
        );
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn a_port_that_is_no_brokers_is_called_what_it_is() {
    // An alert of TLS 1.2: unexpected_message, fatal.
    let tls = &[0x15, 3, 3, 0, 2, 2, 10][..];
    for (said, names) in [
        (tls, "speaks TLS; set security.protocol"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks HTTP"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "speaks SSH"),
        (b"220 mail.example ESMTP\r\n", "answers in text"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answering = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.write_all(said).await;
            }
        });
        let (_program, log) = Program::start_logged(&["--bootstrap-hosts", &address], &[]);
        log.first_with(names).await;
        answering.abort();
    }
}

#[tokio::test]
async fn a_client_that_speaks_tls_to_a_port_without_it_is_in_the_log() {
    let (program, log) = Program::start_logged(&["--dev"], &[]);
    let mut client = TcpStream::connect(program.address()).await.unwrap();
    // The beginning of a ClientHello.
    client
        .write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3])
        .await
        .unwrap();
    let line = log.first_with("speaks TLS").await;
    assert!(line.contains("ws://"), "{line}");
}

#[tokio::test]
async fn our_own_port_among_the_brokers_is_called_what_it_is() {
    let other = Proxy::start().await;
    let (_program, log) = Program::start_logged(&["--bootstrap-hosts", &other.address], &[]);
    log.first_with("speaks HTTP").await;
    other.stopped().await;
}
