//! A browser's handshake with the TLS server, by Chromium without a window.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::block_in_place;

use crate::support::program::Program;
use crate::support::tls::{golden, tls_flags};

/// Chromium, with a profile of its own.
fn chromium(profile: &Path) -> Command {
    let program = std::env::var("CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
    let mut command = Command::new(program);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// The flag that has Chromium trust whoever has the server's key.
fn trusting() -> String {
    let make = "openssl x509 -in \"$0\" -pubkey -noout | openssl pkey -pubin -outform der |
                openssl dgst -sha256 -binary";
    let made = Command::new("sh")
        .args(["-c", make])
        .arg(golden("server.pem"))
        .output()
        .unwrap();
    assert_eq!(made.stdout.len(), 32, "{made:?}");
    let hash = STANDARD.encode(made.stdout);
    format!("--ignore-certificate-errors-spki-list={hash}")
}

/// An open page. It is closed with its owner.
struct Page {
    child: Child,
    _folder: TempDir,
}

impl Page {
    fn open(body: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("page.html");
        std::fs::write(&file, body).unwrap();
        let child = chromium(folder.path())
            .args([&trusting(), "--remote-debugging-port=0"])
            .arg(format!("file://{}", file.display()))
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("Chromium, which scripts/clients need installs");
        Self {
            child,
            _folder: folder,
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // With the processes that it has started.
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill")
            .args(["-s", "KILL", "--", &group])
            .status();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_is_served_by_https_if_it_trusts_the_server() {
    let flags = tls_flags("server.pem");
    let arguments: Vec<_> = flags.iter().map(String::as_str).collect();
    let program = Program::start(&[&arguments[..], &["--dev"]].concat());
    let url = format!("https://{}/healthcheck", program.address());
    let shown = |more: &[String]| {
        let profile = tempfile::tempdir().unwrap();
        let mut command = chromium(profile.path());
        let out = command.args(more).args(["--dump-dom", &url]).output();
        String::from_utf8(
            out.expect("Chromium, which scripts/clients need installs")
                .stdout,
        )
        .unwrap()
    };
    let (trusted, untrusted) = block_in_place(|| (shown(&[trusting()]), shown(&[])));
    assert!(trusted.contains("I'm healthy"), "{trusted}");
    assert!(!untrusted.contains("I'm healthy"), "{untrusted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_produces_by_wss_and_reads_its_answer() {
    let flags = tls_flags("server.pem");
    let arguments: Vec<_> = flags.iter().map(String::as_str).collect();
    let program = Program::start(&[&arguments[..], &["--dev"]].concat());
    let mut consumer = program.connect("/socket/out?topic=t&clientId=c").await;
    // What it is answered it produces, too.
    let page = r#"<!doctype html><script>
        const socket = new WebSocket("wss://ADDRESS/socket/in?topic=t");
        const produce = (value) => socket.send(JSON.stringify({ value: { value } }));
        socket.onopen = () => produce("from a page");
        socket.onmessage = ({ data }) => {
          socket.onmessage = null;
          produce(data);
        };
        </script>"#;
    let _page = Page::open(&page.replace("ADDRESS", &program.address()));
    assert_eq!(consumer.next().await["value"]["value"], "from a page");
    let record = consumer.next().await;
    let answer: Value = serde_json::from_str(record["value"]["value"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&answer["topic"], &answer["offset"]),
        (&"t".into(), &0.into())
    );
}
