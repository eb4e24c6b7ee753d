//! What somebody meets who starts it for the first time.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::support::program::Program;
use crate::support::proxy::Proxy;
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

/// The words that a shell makes of a line.
fn words(line: &str) -> Vec<String> {
    let script = format!("set -- {line}\nprintf '%s\\n' \"$@\"");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{line}");
    let words = String::from_utf8(output.stdout).unwrap();
    words.lines().map(str::to_owned).collect()
}

fn kcat_is_installed() -> bool {
    let installed = Command::new("kcat").arg("-V").output().is_ok();
    if !installed {
        eprintln!("kcat is not installed: its commands are not run");
    }
    installed
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_that_dev_prints_does_what_it_says() {
    let program = DevProgram::start();
    let commands = program.commands();
    let record = commands.iter().find(|line| line.starts_with('{')).unwrap();
    let (mut readers, mut producers) = (Vec::new(), Vec::new());
    for line in &commands {
        let words = match line.as_str() {
            line if line.starts_with(['{', 'e', 'k']) => continue,
            line => words(line),
        };
        let url = match &words[..] {
            [program, flag, url] if program == "wscat" && flag == "-c" => url,
            [program, url] if program == "websocat" => url,
            other => panic!("{other:?}"),
        };
        let (address, _) = url.strip_prefix("ws://").unwrap().split_once('/').unwrap();
        let path = url.split_once(address).unwrap().1;
        let socket = WsClient::connect(address, path).await.unwrap();
        match path.starts_with("/socket/out") {
            true => readers.push(socket),
            false => producers.push(socket),
        }
    }
    assert_eq!((readers.len(), producers.len()), (2, 2));
    for (offset, producer) in producers.iter_mut().enumerate() {
        assert_eq!(producer.ask(record).await["offset"], offset);
    }
    let record: Value = serde_json::from_str(record).unwrap();
    for reader in &mut readers {
        for _ in 0..2 {
            assert_eq!(
                reader.next().await["value"]["value"],
                record["value"]["value"]
            );
        }
    }
    if !kcat_is_installed() {
        return;
    }
    let produce = commands
        .iter()
        .find(|line| line.starts_with("echo hello | kcat"));
    let produced = Command::new("sh").args(["-c", produce.unwrap()]).status();
    assert!(produced.unwrap().success());
    for reader in &mut readers {
        assert_eq!(reader.next().await["value"]["value"], "hello");
    }
    // Ended where the topic does: it would wait for more, and keep what it has for a pipe.
    let consume = commands.iter().find(|line| line.starts_with("kcat"));
    let consumed = Command::new("sh")
        .args(["-c", &format!("{} -e", consume.unwrap())])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let consumed = String::from_utf8(consumed.stdout).unwrap();
    assert_eq!(consumed, "hello\nhello\nhello\n");
}

#[test]
fn what_is_printed_says_which_version_it_is_and_how_to_stop_it() {
    let program = DevProgram::start();
    let printed = &program.printed;
    assert!(printed.contains(env!("CARGO_PKG_VERSION")), "{printed}");
    for part in ["in memory", "gone on exit", "Ctrl-C", "/ready"] {
        assert!(printed.contains(part), "{part} is not in: {printed}");
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
