//! Tokens of an OpenID provider: what it takes to open a socket with one, and to keep it open.
//!
//! The proxy has its embedded broker; the one beside it asks for no token.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::{SignatureScheme, crypto::CryptoProvider};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use crate::Bench;
use crate::cpu::Cpu;
use crate::load::open_with;
use crate::processes::ProxyProcess;

const TARGET: &str = "/socket/in?topic=t";
/// Rounds that count, after one that does not.
const ROUNDS: usize = 3;
/// Sockets of one round.
const OPENS: usize = 2_000;
/// How many are opened at once.
const CLIENTS: usize = 8;
/// How long a token is good, in seconds.
const LIFETIME: u64 = 300;

/// How tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenAlgorithm {
    Rs256,
    Es256,
}

impl TokenAlgorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }
}

/// Sockets opened one after another by a few clients, with tokens of either kind and with none; they
/// take turns.
pub(crate) async fn openid(bench: &Bench) {
    let provider = BenchProvider::start().await;
    let (with, without) = (provider.proxy(bench), start(bench, &[]));
    let [rsa, ec] = [TokenAlgorithm::Rs256, TokenAlgorithm::Es256].map(|a| provider.header(a));
    provider.until_asked(&with).await;
    let cases = [(&without, ""), (&with, &*rsa), (&with, &*ec)];
    let mut costs = [OpeningCost::default(); 3];
    for round in 0..=ROUNDS {
        for ((proxy, header), cost) in cases.into_iter().zip(&mut costs) {
            let one = open_all(proxy, header).await;
            if round > 0 {
                cost.seconds += one.seconds;
                cost.cpu_us += one.cpu_us;
            }
        }
    }
    let opens = (ROUNDS * OPENS) as f64;
    let per_s = costs.map(|cost| opens / cost.seconds);
    let cpu_us = costs.map(|cost| cost.cpu_us / opens);
    bench.print(
        "openid",
        &[
            ("opens", opens),
            ("per_s_without", per_s[0]),
            ("per_s_rs256", per_s[1]),
            ("per_s_es256", per_s[2]),
            ("ratio_rs256", per_s[1] / per_s[0]),
            ("ratio_es256", per_s[2] / per_s[0]),
            ("proxy_cpu_us_without", cpu_us[0]),
            ("proxy_cpu_us_rs256", cpu_us[1]),
            ("proxy_cpu_us_es256", cpu_us[2]),
        ],
    );
}

/// Sockets that do nothing while their tokens are good, and are pinged by nobody.
pub(crate) async fn idle(bench: &Bench) {
    const SOCKETS: usize = 10_000;
    const SECONDS: u64 = 20;
    let provider = BenchProvider::start().await;
    let mut percents = Vec::new();
    for has_token in [false, true] {
        let header = match has_token {
            true => provider.header(TokenAlgorithm::Es256),
            false => String::new(),
        };
        let proxy = match has_token {
            true => provider.proxy(bench),
            false => start(bench, &[]),
        };
        if has_token {
            provider.until_asked(&proxy).await;
        }
        let mut sockets = Vec::new();
        for _ in 0..SOCKETS {
            let socket = open_with(proxy.port(), TARGET, &header).await;
            sockets.push(socket.expect("it is let in"));
        }
        let cpu = Cpu::of(proxy.pid());
        sleep(Duration::from_secs(SECONDS)).await;
        let cpu = Cpu::of(proxy.pid()) - cpu;
        percents.push(cpu.total_us() / (SECONDS * 1_000_000) as f64 * 100.0);
    }
    bench.print(
        "openid_idle",
        &[
            ("sockets", SOCKETS as f64),
            ("token_seconds", LIFETIME as f64),
            ("cpu_percent_of_one_core_without", percents[0]),
            ("cpu_percent_of_one_core", percents[1]),
        ],
    );
}

/// What some sockets took.
#[derive(Clone, Copy, Default)]
struct OpeningCost {
    seconds: f64,
    cpu_us: f64,
}

async fn open_all(proxy: &ProxyProcess, header: &str) -> OpeningCost {
    let (cpu, started) = (Cpu::of(proxy.pid()), Instant::now());
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (port, header) = (proxy.port(), header.to_owned());
        clients.spawn(async move {
            for _ in 0..OPENS / CLIENTS {
                let socket = open_with(port, TARGET, &header).await;
                drop(socket.expect("it is let in"));
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("it asks");
    }
    OpeningCost {
        seconds: started.elapsed().as_secs_f64(),
        cpu_us: (Cpu::of(proxy.pid()) - cpu).total_us(),
    }
}

/// With the embedded broker; a socket that is silent for long is not taken for dead.
fn start(bench: &Bench, flags: &[String]) -> ProxyProcess {
    let patient = ["--websocket-ping-interval", "10m"].map(str::to_owned);
    ProxyProcess::start_dev(bench.binary(), &[&patient[..], flags].concat())
}

/// A provider in this process, with a key for each algorithm.
struct BenchProvider {
    issuer: String,
    folder: TempDir,
    serving: AbortHandle,
}

impl Drop for BenchProvider {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl BenchProvider {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let keys =
            [TokenAlgorithm::Rs256, TokenAlgorithm::Es256].map(|a| make_key(folder.path(), a));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let issuer = format!("http://{address}");
        let about = format!(r#"{{"issuer":"{issuer}","jwks_uri":"{issuer}/keys"}}"#);
        let keys = format!(r#"{{"keys":[{}]}}"#, keys.join(","));
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = answer(stream, &about, &keys).await;
            }
        });
        Self {
            issuer,
            folder,
            serving: serving.abort_handle(),
        }
    }

    /// One that asks for its tokens.
    fn proxy(&self, bench: &Bench) -> ProxyProcess {
        let url = format!("{}/.well-known/openid-configuration", self.issuer);
        let flags = [
            "--openid-connect-enabled",
            "true",
            "--openid-connect-well-known-url",
            &url,
            "--openid-connect-audience",
            "proxy",
        ];
        start(bench, &flags.map(str::to_owned))
    }

    /// The proxy has its keys when a socket is let in.
    async fn until_asked(&self, proxy: &ProxyProcess) {
        let header = self.header(TokenAlgorithm::Es256);
        while open_with(proxy.port(), TARGET, &header).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The line of a header with a token of so many seconds.
    fn header(&self, algorithm: TokenAlgorithm) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.expect("after 1970").as_secs();
        let name = algorithm.name();
        let header = format!(r#"{{"alg":"{name}","kid":"{name}","typ":"JWT"}}"#);
        let claims = format!(
            r#"{{"iss":"{}","aud":"proxy","sub":"alice","exp":{}}}"#,
            self.issuer,
            now + LIFETIME
        );
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
        let text = format!("{header}.{claims}");
        let signature = sign(&key_file(self.folder.path(), algorithm), algorithm, &text);
        let signature = URL_SAFE_NO_PAD.encode(signature);
        format!("Authorization: Bearer {text}.{signature}\r\n")
    }
}

async fn answer(mut stream: TcpStream, about: &str, keys: &str) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let body = match head.starts_with(b"GET /keys") {
        true => keys,
        false => about,
    };
    let length = body.len();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await
}

fn key_file(folder: &Path, algorithm: TokenAlgorithm) -> std::path::PathBuf {
    folder.join(algorithm.name())
}

/// Makes a key; its public half as a provider publishes it.
fn make_key(folder: &Path, algorithm: TokenAlgorithm) -> String {
    let file = key_file(folder, algorithm);
    let file = file.to_str().expect("a plain path");
    let (kind, option) = match algorithm {
        TokenAlgorithm::Rs256 => ("RSA", "rsa_keygen_bits:2048"),
        TokenAlgorithm::Es256 => ("EC", "ec_paramgen_curve:P-256"),
    };
    openssl(&[
        "genpkey",
        "-algorithm",
        kind,
        "-pkeyopt",
        option,
        "-out",
        file,
    ]);
    let der = openssl(&["pkey", "-in", file, "-pubout", "-outform", "DER"]);
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let members = match algorithm {
        // The number stands before that of the exponent, which is 65537.
        TokenAlgorithm::Rs256 => {
            let end = der.len() - 5;
            let modulus = encode(&der[end - 256..end]);
            format!(r#""kty":"RSA","n":"{modulus}","e":"AQAB""#)
        }
        TokenAlgorithm::Es256 => {
            let (x, y) = der[der.len() - 64..].split_at(32);
            let [x, y] = [x, y].map(encode);
            format!(r#""kty":"EC","crv":"P-256","x":"{x}","y":"{y}""#)
        }
    };
    let name = algorithm.name();
    format!(r#"{{"kid":"{name}","alg":"{name}",{members}}}"#)
}

fn openssl(arguments: &[&str]) -> Vec<u8> {
    let out = Command::new("openssl").args(arguments).output();
    let out = out.expect("openssl is needed");
    assert!(out.status.success(), "openssl {arguments:?}");
    out.stdout
}

fn sign(file: &Path, algorithm: TokenAlgorithm, text: &str) -> Vec<u8> {
    let pem = fs::read(file).expect("it was made");
    let key = PrivateKeyDer::from_pem_slice(&pem).expect("a key");
    let provider: CryptoProvider = rustls_graviola::default_provider();
    let key = provider.key_provider.load_private_key(key).expect("a key");
    let scheme = match algorithm {
        TokenAlgorithm::Rs256 => SignatureScheme::RSA_PKCS1_SHA256,
        TokenAlgorithm::Es256 => SignatureScheme::ECDSA_NISTP256_SHA256,
    };
    let signer = key.choose_scheme(&[scheme]).expect("it signs so");
    let signature = signer.sign(text.as_bytes()).expect("random");
    match algorithm {
        TokenAlgorithm::Rs256 => signature,
        TokenAlgorithm::Es256 => numbers_of(&signature),
    }
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
