//! A real OpenID provider: NAV's mock-oauth2-server, a process of its own that gives tokens to whoever
//! asks (`scripts/kafka jars openid`).

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use kafka_websocket_proxy::config::Config;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::kafka::jars_of;
use super::openid_provider::AUDIENCE;
use super::{PATIENCE, until_asked};

const ISSUER: &str = "edge";

/// What it signs with: each has keys of its own, under one `kid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SigningAlgorithm {
    Rs256,
    Es256,
}

/// The provider. It ends with its owner.
pub(crate) struct OAuth2Server {
    port: HeldPort,
    /// How long its tokens are good, in seconds.
    lifetime: u64,
    running: Option<Child>,
}

impl OAuth2Server {
    pub(crate) async fn start(algorithm: SigningAlgorithm, lifetime: u64) -> Self {
        let mut server = Self {
            port: HeldPort::find(),
            lifetime,
            running: None,
        };
        server.run(algorithm).await;
        server
    }

    /// Ends it; what it is asked is not answered any more.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Runs it anew, at the same address.
    pub(crate) async fn run(&mut self, algorithm: SigningAlgorithm) {
        self.stop();
        let algorithm = match algorithm {
            SigningAlgorithm::Rs256 => "RS256",
            SigningAlgorithm::Es256 => "ES256",
        };
        let claims = |aud: Value| json!({"sub": "alice", "aud": aud});
        let mapping =
            |scope, aud| json!({"requestParam": "scope", "match": scope, "claims": claims(aud)});
        let config = json!({
            "interactiveLogin": false,
            "tokenProvider": {"keyProvider": {"algorithm": algorithm}},
            "tokenCallbacks": [{
                "issuerId": ISSUER,
                "tokenExpiry": self.lifetime,
                "requestMappings": [
                    mapping("edge", json!(["account", AUDIENCE])),
                    mapping("elsewhere", json!("account")),
                ],
            }],
        });
        let child = Command::new("java")
            .args([
                "-Xmx128m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-cp",
            ])
            .arg(format!("{}/*", jars_of("openid").display()))
            .arg("no.nav.security.mock.oauth2.StandaloneMockOAuth2ServerKt")
            .env("SERVER_HOSTNAME", "localhost")
            .env("SERVER_PORT", self.port.number.to_string())
            .env("JSON_CONFIG", config.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.running = Some(child.expect("Java, which scripts/kafka need installs"));
        let address = self.address();
        until_asked("the provider answers", async || {
            TcpStream::connect(&address).await.is_ok()
        })
        .await;
    }

    fn address(&self) -> String {
        format!("localhost:{}", self.port.number)
    }

    /// A token of alice for the proxy, by its token endpoint.
    pub(crate) async fn token(&self) -> String {
        self.token_for("edge").await
    }

    /// With that scope, which decides about its audience.
    pub(crate) async fn token_for(&self, scope: &str) -> String {
        let form =
            format!("grant_type=client_credentials&client_id=c&client_secret=s&scope={scope}");
        let length = form.len();
        let head = format!(
            "POST /{ISSUER}/token HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n",
            self.address()
        );
        let address = self.address();
        let asking = ask(&address, head + &form);
        let answer = timeout(PATIENCE, asking).await.expect("in time");
        let answer: Value = serde_json::from_slice(&answer.unwrap()).expect("JSON");
        answer["access_token"].as_str().expect("a token").to_owned()
    }

    /// Has a server ask for its tokens.
    pub(crate) fn asked_by(&self, config: &mut Config) {
        let url = format!(
            "http://{}/{ISSUER}/.well-known/openid-configuration",
            self.address()
        );
        let openid = &mut config.server.openid_connect;
        openid.enabled = Some(true);
        openid.well_known_url = Some(openid::WellKnownUrl::parse(&url).expect("a URL"));
        openid.audience = Some(AUDIENCE.to_owned());
        openid.tls = Some(::tls::trusting_nobody());
    }
}

impl Drop for OAuth2Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sends a request; the body of its answer, behind which the server leaves the connection open.
async fn ask(address: &str, request: String) -> std::io::Result<Vec<u8>> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    stream.write_all(request.as_bytes()).await?;
    let (mut line, mut length) = (String::new(), 0);
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).await?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// A port that nobody takes while nobody listens there: below those that connections get, and held by
/// a folder, as `scripts/kafka` does it.
struct HeldPort {
    number: u16,
    folder: PathBuf,
}

impl HeldPort {
    fn find() -> Self {
        let first = 20_000 + u16::try_from(std::process::id() % 12_000).expect("small");
        let mut numbers = (first..32_000).chain(20_000..first);
        let free = numbers.find_map(|number| {
            let folder = PathBuf::from(format!("/tmp/kafka-port-{number}"));
            std::fs::create_dir(&folder).ok()?;
            match TcpListener::bind(("127.0.0.1", number)) {
                Ok(_) => Some(Self { number, folder }),
                Err(_) => {
                    let _ = std::fs::remove_dir(folder);
                    None
                }
            }
        });
        free.expect("a free port")
    }
}

impl Drop for HeldPort {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.folder);
    }
}
