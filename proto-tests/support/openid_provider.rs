//! An OpenID Connect provider in this process: what it says of itself, its keys, and tokens. It has the
//! keys of two certificates of `golden/tls`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kafka_websocket_proxy::config::Config;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::task::AbortHandle;

use super::http_listener::{self, HttpClientStream, https_config};
use super::kafka::root;
use super::token_endpoint::{ISSUER, signed_token};

/// What its tokens are for.
pub(crate) const AUDIENCE: &str = "proxy";

/// A key: the name of its certificate, and its `kid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProviderKeyName(&'static str, &'static str);

pub(crate) const FIRST_KEY: ProviderKeyName = ProviderKeyName("server", "openid-server");
pub(crate) const SECOND_KEY: ProviderKeyName = ProviderKeyName("expired", "openid-expired");
/// The one that brokers know, too: see [`FakeOpenIdProvider::start_for_brokers`].
pub(crate) const BROKERS_KEY: ProviderKeyName = ProviderKeyName("server", "test");

/// What it answers.
#[derive(Debug)]
struct OpenIdAnswers {
    status: u16,
    /// Whom it says to be, if not what it is asked as.
    issuer: Option<String>,
    keys: Vec<ProviderKeyName>,
    asked: usize,
}

/// A provider.
pub(crate) struct FakeOpenIdProvider {
    url: String,
    issuer: String,
    answers: Arc<Mutex<OpenIdAnswers>>,
    serving: AbortHandle,
}

impl Drop for FakeOpenIdProvider {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl FakeOpenIdProvider {
    /// Over plain TCP, with the first key.
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// With the name and the key of whom the brokers of `scripts/kafka start --secure` trust.
    pub(crate) async fn start_for_brokers() -> Self {
        let mut provider = Self::start().await;
        provider.issuer = ISSUER.to_owned();
        let mut answers = provider.answers.lock().unwrap();
        (answers.issuer, answers.keys) = (Some(ISSUER.to_owned()), vec![BROKERS_KEY]);
        drop(answers);
        provider
    }

    /// Over TLS, with a certificate for `localhost` by the authority in `golden/tls/ca.pem`.
    pub(crate) async fn start_tls() -> Self {
        Self::start_with(Some(https_config("server"))).await
    }

    async fn start_with(tls: Option<Arc<ServerConfig>>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let answers = Arc::new(Mutex::new(OpenIdAnswers {
            status: 200,
            issuer: None,
            keys: vec![FIRST_KEY],
            asked: 0,
        }));
        let shared = Arc::clone(&answers);
        let serve = move |stream| serve(stream, scheme, Arc::clone(&shared));
        let (port, serving) = http_listener::listen(tls, serve).await;
        let issuer = format!("{scheme}://localhost:{port}");
        Self {
            url: format!("{issuer}/.well-known/openid-configuration"),
            issuer,
            answers,
            serving,
        }
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    pub(crate) fn publish(&self, keys: &[ProviderKeyName]) {
        self.answers.lock().unwrap().keys = keys.to_vec();
    }

    pub(crate) fn answer_with(&self, status: u16) {
        self.answers.lock().unwrap().status = status;
    }

    /// How often it was asked for its keys.
    pub(crate) fn asked(&self) -> usize {
        self.answers.lock().unwrap().asked
    }

    /// A token of alice that is good for an hour.
    pub(crate) fn token(&self, key: ProviderKeyName) -> String {
        self.token_with(key, json!({}))
    }

    /// With these claims as well, or in the place of others.
    pub(crate) fn token_with(&self, key: ProviderKeyName, claims: Value) -> String {
        let mut all = json!({
            "iss": self.issuer, "aud": ["account", AUDIENCE], "sub": "alice", "exp": seconds() + 3600,
        });
        let Value::Object(claims) = claims else {
            panic!("claims are an object");
        };
        all.as_object_mut().expect("an object").extend(claims);
        let header = json!({"alg": "ES256", "kid": key.kid(), "typ": "JWT"});
        signed_token(&header, &all, key.0)
    }

    /// Has a server ask for its tokens.
    pub(crate) fn asked_by(&self, config: &mut Config) {
        let openid = &mut config.server.openid_connect;
        openid.enabled = Some(true);
        openid.realm = Some("edge".to_owned());
        openid.well_known_url = Some(openid::WellKnownUrl::parse(&self.url()).expect("a URL"));
        openid.audience = Some(AUDIENCE.to_owned());
        openid.tls = Some(::tls::trusting_nobody());
    }
}

/// Now, as a token has it.
pub(crate) fn seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs()
}

impl ProviderKeyName {
    fn kid(self) -> &'static str {
        self.1
    }

    fn jwk(self) -> Value {
        let file = root().join("proto-tests/golden/tls").join(self.0);
        let certificate = CertificateDer::from_pem_file(file.with_extension("pem")).unwrap();
        // A bit string of a point that is not compressed.
        let begin = certificate.windows(4).position(|at| at == [3, 0x42, 0, 4]);
        let point = &certificate[begin.expect("a key of P-256") + 4..][..64];
        let [x, y] = [&point[..32], &point[32..]].map(|number| URL_SAFE_NO_PAD.encode(number));
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.kid(), "x": x, "y": y})
    }
}

async fn serve(
    stream: HttpClientStream,
    scheme: &str,
    answers: Arc<Mutex<OpenIdAnswers>>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        stream.read_line(&mut head).await.ok().filter(|n| *n > 0)?;
    }
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let host = lines.find_map(|(name, host)| name.eq_ignore_ascii_case("host").then_some(host))?;
    let (status, body) = {
        let mut answers = answers.lock().unwrap();
        let body = match head.starts_with("GET /keys ") {
            true => {
                answers.asked += 1;
                let keys: Vec<_> = answers.keys.iter().map(|key| key.jwk()).collect();
                json!({ "keys": keys })
            }
            false => {
                let here = format!("{scheme}://{host}");
                let issuer = answers.issuer.as_ref().unwrap_or(&here);
                json!({"issuer": issuer, "jwks_uri": format!("{here}/keys")})
            }
        };
        (answers.status, body.to_string())
    };
    let length = body.len();
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await.ok()?;
    stream.flush().await.ok()
}
