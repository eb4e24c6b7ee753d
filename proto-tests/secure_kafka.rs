//! TLS and SASL towards a real Apache Kafka: every protocol and mechanism, both ways, and what is
//! said when a broker, or we, refuse.

mod kerberos;
mod oauthbearer;
mod renewals;
mod token_users;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::block_in_place;
use tokio_rustls::TlsAcceptor;

use crate::support::http_listener::https_config;
use crate::support::kafka::{Kafka, SecureListeners, root, unique};
use crate::support::program::{LogLines, Program};
use crate::support::until_asked;

/// How a proxy connects: where to, and which properties it has.
pub(crate) struct ProxyProperties {
    bootstrap: String,
    properties: Vec<String>,
    variables: Vec<(&'static str, String)>,
}

impl ProxyProperties {
    fn new<const N: usize>(bootstrap: &str, properties: [&str; N]) -> Self {
        Self {
            bootstrap: bootstrap.to_owned(),
            properties: properties.map(str::to_owned).to_vec(),
            variables: Vec::new(),
        }
    }

    fn and(mut self, name: &str, value: &str) -> Self {
        self.properties.push(format!("{name}={value}"));
        self
    }

    fn with_variable(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    /// With a certificate of its own.
    fn with_key(self, store: &str) -> Self {
        let connecting = self.and("ssl.keystore.location", store);
        connecting.and("ssl.keystore.password", "storepass")
    }

    /// As alice, with that password.
    pub(crate) fn authenticated_by(self, mechanism: &str, password: &str) -> Self {
        self.authenticated_as("alice", mechanism, password)
    }

    pub(crate) fn authenticated_as(self, user: &str, mechanism: &str, password: &str) -> Self {
        let module = match mechanism {
            "PLAIN" => "plain.PlainLoginModule",
            _ => "scram.ScramLoginModule",
        };
        let jaas = format!(
            "org.apache.kafka.common.security.{module} required \
             username=\"{user}\" password=\"{password}\";"
        );
        self.and("sasl.mechanism", mechanism)
            .and("sasl.jaas.config", &jaas)
    }

    pub(crate) fn start(&self) -> (Program, LogLines) {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&self, more: &[&str]) -> (Program, LogLines) {
        self.start_in(&unique("sessions"), more)
    }

    /// With that session topic.
    pub(crate) fn start_in(&self, session_topic: &str, more: &[&str]) -> (Program, LogLines) {
        let defines = self.properties.iter();
        let defines = defines.map(|property| format!("kafka-client.properties.{property}"));
        let mut args = vec!["--bootstrap-hosts".to_owned(), self.bootstrap.clone()];
        args.push("--session-handler-session-state-topic-name".to_owned());
        args.push(session_topic.to_owned());
        for define in defines {
            args.extend(["-D".to_owned(), define]);
        }
        let args = args.iter().map(String::as_str).chain(more.iter().copied());
        let variables = self.variables.iter();
        let variables: Vec<_> = variables
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        Program::start_logged(&args.collect::<Vec<_>>(), &variables)
    }
}

fn ssl(at: &SecureListeners) -> ProxyProperties {
    ProxyProperties::new(&at.ssl, ["security.protocol=SSL"])
}

fn sasl_ssl(at: &SecureListeners) -> ProxyProperties {
    ProxyProperties::new(&at.sasl_ssl, ["security.protocol=SASL_SSL"])
}

pub(crate) fn sasl_plaintext(at: &SecureListeners) -> ProxyProperties {
    ProxyProperties::new(&at.sasl_plaintext, ["security.protocol=SASL_PLAINTEXT"])
}

fn trusting(connecting: ProxyProperties, at: &SecureListeners, store: &str) -> ProxyProperties {
    let connecting = connecting.and("ssl.truststore.location", &at.store(store));
    connecting.and("ssl.truststore.password", "storepass")
}

pub(crate) fn cluster() -> (Arc<Kafka>, SecureListeners) {
    let kafka = block_in_place(Kafka::shared_secure);
    let at = kafka.secure().clone();
    (kafka, at)
}

async fn produces_and_consumes(connecting: &ProxyProperties, topic: &str) {
    let (proxy, _log) = connecting.start();
    proxy.ready().await;
    let mut producer = proxy.connect(&format!("/socket/in?topic={topic}")).await;
    let value = unique("v");
    let record = json!({"value": {"value": value, "format": "string"}});
    let ack = producer.ask(record.to_string()).await;
    assert!(ack["offset"].is_u64(), "{ack}");
    let client = unique("c");
    let path = format!("/socket/out?topic={topic}&clientId={client}");
    let mut consumer = proxy.connect(&path).await;
    let mut record = Value::Null;
    while record["value"]["value"] != json!(value) {
        record = consumer.next().await;
    }
    assert_eq!(record["offset"], ack["offset"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_go_both_ways_under_every_protocol_mechanism_and_store() {
    let (kafka, at) = cluster();
    let topic = unique("secure");
    block_in_place(|| kafka.create_topic(&topic, 1, 1));
    let pem = std::fs::read_to_string(at.store("ca.pem")).unwrap();
    let in_one_line = pem.replace('\n', " ");
    for connecting in [
        sasl_plaintext(&at).authenticated_by("PLAIN", "alice-secret"),
        sasl_plaintext(&at).authenticated_by("SCRAM-SHA-256", "alice-secret"),
        trusting(sasl_ssl(&at), &at, "trust.p12").authenticated_by("SCRAM-SHA-512", "alice-secret"),
        trusting(sasl_ssl(&at), &at, "trust.jks").authenticated_by("PLAIN", "alice-secret"),
        trusting(ssl(&at), &at, "ca.pem").with_key(&at.store("client.p12")),
        ssl(&at)
            .and("ssl.truststore.certificates", &in_one_line)
            .and("ssl.enabled.protocols", "TLSv1.2")
            .with_key(&at.store("client.jks")),
    ] {
        produces_and_consumes(&connecting, &topic).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_said_with_the_property_to_look_at() {
    let (kafka, at) = cluster();
    let expired = listener_with(https_config("expired")).await;
    let folder = tempfile::tempdir().unwrap();
    let (self_signed, config) = self_signed(folder.path());
    let self_signed_broker = listener_with(config).await;
    let elsewhere = forwarded(&at.ssl).await;
    for (connecting, said) in [
        (
            sasl_plaintext(&at).authenticated_by("PLAIN", "wrong-secret"),
            "the credentials for PLAIN are refused: Authentication failed: Invalid username or password",
        ),
        (
            sasl_plaintext(&at).authenticated_by("SCRAM-SHA-256", "wrong-secret"),
            "the credentials for SCRAM-SHA-256 are refused",
        ),
        (
            sasl_plaintext(&at).authenticated_as("mallory", "PLAIN", "alice-secret"),
            "the credentials for PLAIN are refused",
        ),
        (
            sasl_plaintext(&at).authenticated_as("mallory", "SCRAM-SHA-512", "alice-secret"),
            "the credentials for SCRAM-SHA-512 are refused",
        ),
        (
            ProxyProperties::new(kafka.bootstrap(), ["security.protocol=SASL_PLAINTEXT"])
                .authenticated_by("PLAIN", "alice-secret"),
            "its listener has no SASL (security.protocol)",
        ),
        (
            ProxyProperties::new(&at.sasl_plaintext, []),
            "the broker closed it at its first request (does it expect SASL?)",
        ),
        (
            ssl(&at),
            "its certificate is signed by nobody that is trusted (ssl.truststore.location)",
        ),
        (
            ssl(&at).and("ssl.truststore.location", &golden("ca.pem")),
            "its certificate is signed by nobody that is trusted (ssl.truststore.location)",
        ),
        (
            ProxyProperties::new(&expired, ["security.protocol=SSL"])
                .and("ssl.truststore.location", &golden("expired.pem")),
            "its certificate has expired, unless the clock of this machine is wrong",
        ),
        (
            ProxyProperties::new(&self_signed_broker, ["security.protocol=SSL"])
                .and("ssl.truststore.location", &at.store("ca.pem")),
            "its certificate is signed by nobody that is trusted (ssl.truststore.location)",
        ),
        // Trusted, it is taken: what listens there is no broker.
        (
            ProxyProperties::new(&self_signed_broker, ["security.protocol=SSL"]).and(
                "ssl.truststore.location",
                &self_signed.display().to_string(),
            ),
            "it closed the connection before its first answer",
        ),
        (
            trusting(
                ProxyProperties::new(&elsewhere, ["security.protocol=SSL"]),
                &at,
                "ca.pem",
            ),
            "(ssl.endpoint.identification.algorithm)",
        ),
        (
            trusting(ssl(&at), &at, "ca.pem"),
            "it refuses our certificate, or that there is none: BadCertificate (ssl.keystore.location)",
        ),
        (
            trusting(ssl(&at), &at, "ca.pem").with_key(&at.store("strange.p12")),
            "it refuses our certificate, or that there is none: CertificateUnknown (ssl.keystore.location)",
        ),
        (
            trusting(ssl(&at), &at, "ca.pem").with_key(&at.store("expired.p12")),
            "it refuses our certificate, or that there is none: CertificateUnknown (ssl.keystore.location)",
        ),
        (
            ProxyProperties::new(&at.ssl, []),
            "this port speaks TLS; set security.protocol",
        ),
        (
            ProxyProperties::new(kafka.bootstrap(), ["security.protocol=SSL"]),
            "it closed the connection in the TLS handshake, as a plain-text port does (security.protocol)",
        ),
    ] {
        is_refused(&connecting, said).await;
    }
}

/// The log and `/ready` say so.
async fn is_refused(connecting: &ProxyProperties, said: &str) {
    let detailed = ["-D", "server.expose-broker-addresses=true"];
    let (proxy, log) = connecting.start_with(&detailed);
    log.first_with(said).await;
    // The proxy and its sessions have connections of their own: either may be refused first.
    let refused = said.contains("credentials") || said.contains("no SASL");
    until_asked(said, async || {
        let (status, reasons) = proxy.get("/ready").await;
        let says_so = reasons.contains("do not accept the proxy's credentials");
        status == 503 && says_so == refused && reasons.contains(said)
    })
    .await;
}

/// The path of a file of `golden/tls`.
fn golden(name: &str) -> String {
    let path = root().join("proto-tests/golden/tls").join(name);
    path.display().to_string()
}

/// A certificate for 127.0.0.1 that is signed by itself, as `openssl req -x509` makes it, and its key.
fn self_signed(folder: &Path) -> (PathBuf, Arc<ServerConfig>) {
    let [file, key] = ["certificate", "key"].map(|name| folder.join(name));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-nodes",
            "-days",
            "30",
            "-subj",
            "/CN=broker",
        ])
        .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&file)
        .output()
        .expect("openssl is needed");
    assert!(made.status.success(), "{made:?}");
    let chain = vec![CertificateDer::from_pem_file(&file).unwrap()];
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let provider = Arc::new(rustls_graviola::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(chain, key);
    (file, Arc::new(config.unwrap()))
}

/// The address of a listener that speaks TLS so.
async fn listener_with(config: Arc<ServerConfig>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let acceptor = TlsAcceptor::from(config);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(client).await {
                let _ = stream.shutdown().await;
                // To the client's end: what is dropped with something unread is reset.
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
        }
    });
    address
}

/// An address of 127.0.0.2 behind which the broker is.
async fn forwarded(broker: &str) -> String {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let broker = broker.to_owned();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut broker = TcpStream::connect(&broker).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut broker).await });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_must_have_the_brokers_name_unless_that_is_turned_off() {
    let (_kafka, at) = cluster();
    // The certificate is for localhost and 127.0.0.1.
    let elsewhere = forwarded(&at.sasl_ssl).await;
    let connecting = || {
        let connecting = ProxyProperties::new(&elsewhere, ["security.protocol=SASL_SSL"]);
        trusting(connecting, &at, "ca.pem").authenticated_by("PLAIN", "alice-secret")
    };
    let (_proxy, log) = connecting().start();
    log.first_with("(ssl.endpoint.identification.algorithm)")
        .await;
    let (proxy, _log) = connecting()
        .and("ssl.endpoint.identification.algorithm", "")
        .start();
    proxy.ready().await;
}
