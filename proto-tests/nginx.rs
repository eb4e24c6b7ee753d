//! nginx in front of the proxy, with the block of README.md.

use std::process::{Child, Command, Stdio};

use serde_json::json;
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};

use crate::readme::blocks;
use crate::support::deflate_client::DeflateClient;
use crate::support::program::{Program, exit_status};
use crate::support::tls::{self, TestStream, golden};
use crate::support::until_asked;
use crate::support::ws_client::{UpgradeRefused, WsClient};

const README: &str = include_str!("../README.md");

/// Whom clients come from, so that the proxy can tell them from nginx.
const CLIENT: &str = "127.0.0.2:0";

/// A running nginx. It ends with its owner.
struct Nginx {
    child: Child,
    address: String,
    _folder: TempDir,
    /// Bound and not listening: the port is nobody else's.
    _port: TcpSocket,
}

impl Nginx {
    /// With the README's block, but for ports and files.
    async fn start(proxy: &str) -> Self {
        let port = TcpSocket::new_v4().unwrap();
        port.set_reuseport(true).unwrap();
        port.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = port.local_addr().unwrap().to_string();
        let mut blocks = blocks(README, "text").into_iter();
        let block = blocks.find(|block| block.contains("proxy_pass"));
        let mut block = block.expect("a block for nginx").to_owned();
        let certificate = golden("server.pem").display().to_string();
        for (written, here) in [
            ("listen 443 ssl", format!("listen {address} ssl reuseport")),
            ("/etc/ssl/proxy.pem", certificate),
            ("127.0.0.1:8078", proxy.to_owned()),
        ] {
            assert!(block.contains(written), "{written}");
            block = block.replace(written, &here);
        }
        let folder = tempfile::tempdir().unwrap();
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {kind};\n"))
            .concat();
        let configuration = format!(
            "daemon off;\nworker_processes 1;\npid nginx.pid;\nerror_log stderr;\nevents {{}}\n\
             http {{\naccess_log off;\n{paths}{block}}}\n"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, configuration).unwrap();
        let child = Command::new("/usr/sbin/nginx")
            .args(["-e", "stderr", "-p"])
            .arg(folder.path())
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .expect("nginx, which scripts/clients need installs");
        let mut nginx = Self {
            child,
            address,
            _folder: folder,
            _port: port,
        };
        until_asked("nginx listens", async || {
            let ended = nginx.child.try_wait().unwrap();
            assert_eq!(ended, None, "nginx ended");
            TcpStream::connect(&nginx.address).await.is_ok()
        })
        .await;
        nginx
    }

    /// A connection of the client's.
    async fn connection(&self) -> TestStream {
        let tcp = TcpSocket::new_v4().unwrap();
        tcp.bind(CLIENT.parse().unwrap()).unwrap();
        let tcp = tcp.connect(self.address.parse().unwrap()).await.unwrap();
        let stream = tls::handshake(tcp, &tls::client(None)).await.unwrap();
        TestStream::Right(Box::new(stream))
    }

    async fn open(&self, path: &str) -> Result<WsClient, UpgradeRefused> {
        // Whoever claims to be another client is not believed.
        let forged = Some(("x-forwarded-for", "192.0.2.1"));
        WsClient::upgrade(self.connection().await, &self.address, path, forged).await
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it, if it is not killed.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-s", "TERM", &pid]).status();
        exit_status(&mut self.child);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_as_the_readme_has_it_passes_everything_on_and_names_the_client() {
    let options = "--bind-interface 127.0.0.1 --trusted-proxies 127.0.0.1";
    assert!(README.contains(options));
    let args = ["--dev", "--trusted-proxies", "127.0.0.1"];
    let allowed = ["--websocket-allowed-origins", "*"];
    let (proxy, log) = Program::start_logged(&[&args[..], &allowed].concat(), &[]);
    let nginx = Nginx::start(&proxy.address()).await;

    let mut producer = nginx.open("/socket/in?topic=t&clientId=p").await.unwrap();
    let path = "/socket/out?topic=t&clientId=c";
    let mut consumer = nginx.open(path).await.unwrap();
    for n in 0..10 {
        let value = "recurs ".repeat(100 * n);
        let record = json!({"value": {"value": value}}).to_string();
        assert_eq!(producer.ask(record).await["offset"], n);
        assert_eq!(consumer.next().await["value"]["value"], value);
    }
    for endpoint in ["/socket/in", "/socket/out"] {
        let line = log
            .first_with(&format!("socket opened endpoint=\"{endpoint}\""))
            .await;
        assert!(line.contains("peer=127.0.0.2"), "{line}");
    }

    let offer = ["permessage-deflate; client_max_window_bits"];
    let stream = nginx.connection().await;
    let mut compressing = DeflateClient::connect_by(
        stream,
        &nginx.address,
        "/socket/out?topic=t&clientId=d",
        &offer,
    )
    .await;
    assert!(compressing.extensions.is_some());
    let mut compressed = 0;
    for n in 0..10 {
        let (record, is_compressed) = compressing.next().await;
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        assert_eq!(record["value"]["value"], "recurs ".repeat(100 * n));
        compressed += usize::from(is_compressed);
    }
    assert_eq!(compressed, 9, "all but the short one");

    let refused = nginx.open("/socket/in").await.err().unwrap();
    assert_eq!(refused.status, 400);
    assert!(refused.message().contains("topic"), "{refused:?}");
    let line = log.first_with("socket refused").await;
    assert!(line.contains("peer=127.0.0.2"), "{line}");

    proxy.signal("TERM");
    assert_eq!(producer.closed().await.0, 1012);
    assert_eq!(consumer.closed().await.0, 1012);
    assert_eq!(compressing.closed().await.0, 1012);
}
