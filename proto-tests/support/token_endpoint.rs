//! The token endpoint of an OAuth 2.0 provider, with faults. Its tokens are signed with the key of
//! `golden/tls/server.key`, which `scripts/kafka start --secure` has brokers trust.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ServerConfig, SignatureScheme};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::task::AbortHandle;

use super::http_listener::{self, HttpClientStream, https_config};
use super::kafka::root;

/// Who may have tokens.
pub(crate) const CLIENT_ID: &str = "the-client";
pub(crate) const CLIENT_SECRET: &str = "client-secret-7";
/// What brokers want to see in a token.
const AUDIENCE: &str = "kafka";
pub(super) const ISSUER: &str = "https://issuer.test";

/// What it does instead of answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProviderFault {
    /// Answers with a page.
    NoJson,
    /// Answers with JSON that has no token.
    NoToken,
    /// Gives tokens for somebody else's brokers.
    OtherAudience,
}

/// What it answers.
#[derive(Debug)]
struct TokenEndpointState {
    lifetime: Duration,
    fault: Option<ProviderFault>,
    given: usize,
}

/// An endpoint in this process, with tokens for alice.
pub(crate) struct FakeProvider {
    address: String,
    state: Arc<Mutex<TokenEndpointState>>,
    serving: AbortHandle,
}

impl Drop for FakeProvider {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl FakeProvider {
    /// Over plain TCP, with tokens that are good for so long.
    pub(crate) async fn start(lifetime: Duration) -> Self {
        Self::start_with(lifetime, None).await
    }

    /// Over TLS, with a certificate for `localhost` by the authority in `golden/tls/ca.pem`.
    pub(crate) async fn start_tls(lifetime: Duration) -> Self {
        Self::start_with(lifetime, Some(https_config("server"))).await
    }

    async fn start_with(lifetime: Duration, tls: Option<Arc<ServerConfig>>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let state = Arc::new(Mutex::new(TokenEndpointState {
            lifetime,
            fault: None,
            given: 0,
        }));
        let shared = Arc::clone(&state);
        let serve = move |stream| serve(stream, Arc::clone(&shared));
        let (port, serving) = http_listener::listen(tls, serve).await;
        Self {
            address: format!("{scheme}://localhost:{port}/oauth2/token"),
            state,
            serving,
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.address
    }

    pub(crate) fn set_fault(&self, fault: Option<ProviderFault>) {
        self.state.lock().unwrap().fault = fault;
    }

    /// How many tokens it has given.
    pub(crate) fn given(&self) -> usize {
        self.state.lock().unwrap().given
    }
}

/// A token for alice that is good for so long, for these brokers.
pub(crate) fn token(lifetime: Duration, audience: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let claims = json!({
        "sub": "alice", "aud": audience, "iss": ISSUER,
        "iat": now.as_secs(), "exp": (now + lifetime).as_secs(),
    });
    let header = json!({"alg": "ES256", "kid": "test", "typ": "JWT"});
    signed_token(&header, &claims, "server")
}

/// A token, by ES256 with that key of `golden/tls`.
pub(crate) fn signed_token(header: &Value, claims: &Value, key: &str) -> String {
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let key = root().join("proto-tests/golden/tls").join(key);
    let key = PrivateKeyDer::from_pem_file(key.with_extension("key")).unwrap();
    let provider = rustls_graviola::default_provider();
    let key = provider.key_provider.load_private_key(key).unwrap();
    let signer = key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]);
    let signature = signer.unwrap().sign(signed.as_bytes()).unwrap();
    format!(
        "{signed}.{}",
        URL_SAFE_NO_PAD.encode(numbers_of(&signature))
    )
}

pub(crate) fn good_token(lifetime: Duration) -> String {
    token(lifetime, AUDIENCE)
}

/// Both numbers of a signature, which is DER in TLS, in 32 bytes each, as a JWT has them.
fn numbers_of(der: &[u8]) -> Vec<u8> {
    let mut rest = &der[2..];
    let mut numbers = Vec::new();
    for _ in 0..2 {
        let (number, after) = rest[2..].split_at(usize::from(rest[1]));
        let number = &number[number.len().saturating_sub(32)..];
        numbers.resize(numbers.len() + 32 - number.len(), 0);
        numbers.extend(number);
        rest = after;
    }
    numbers
}

async fn serve(stream: HttpClientStream, state: Arc<Mutex<TokenEndpointState>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        stream.read_line(&mut head).await.ok().filter(|n| *n > 0)?;
    }
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
    };
    let mut body = vec![0; header("content-length")?.parse().ok()?];
    stream.read_exact(&mut body).await.ok()?;
    let credentials = STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}"));
    let is_known = header("authorization") == Some(&format!("Basic {credentials}"));
    let (status, body) = {
        let mut state = state.lock().unwrap();
        let seconds = state.lifetime.as_secs();
        let answer = |token: String| json!({"access_token": token, "expires_in": seconds});
        match state.fault {
            _ if !is_known || !body.starts_with(b"grant_type=client_credentials") => {
                let refusal = json!({
                    "error": "invalid_client",
                    "error_description": "Client authentication failed",
                });
                (401, refusal.to_string())
            }
            Some(ProviderFault::NoJson) => (200, "<html>".to_owned()),
            Some(ProviderFault::NoToken) => (200, "{}".to_owned()),
            Some(ProviderFault::OtherAudience) => {
                (200, answer(token(state.lifetime, "others")).to_string())
            }
            None => {
                state.given += 1;
                (200, answer(good_token(state.lifetime)).to_string())
            }
        }
    };
    let length = body.len();
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await.ok()?;
    stream.flush().await.ok()
}
