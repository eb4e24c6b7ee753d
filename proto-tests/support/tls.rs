//! TLS towards the proxy: what `proto-tests/golden/tls-server` has for both sides.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tls::{ServerTls, ServerTlsConfig, StoreFile};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::PATIENCE;
use super::kafka::root;

/// The path of one of the files.
pub(crate) fn golden(name: &str) -> PathBuf {
    root().join("proto-tests/golden/tls-server").join(name)
}

/// What a server presents, and whether it demands certificates of clients.
pub(crate) fn server_tls(demands_certificates: bool) -> Arc<ServerTls> {
    let settings = ServerTlsConfig {
        key_store: StoreFile {
            location: golden("server.pem"),
            password: None,
        },
        client_ca: demands_certificates.then(|| golden("ca.pem")),
    };
    Arc::new(ServerTls::new(settings).unwrap())
}

/// The flags of a program that speaks nothing but TLS, beside those of [`super::program`].
pub(crate) fn tls_flags(key_store: &str) -> [String; 8] {
    let location = golden(key_store).to_str().unwrap().to_owned();
    [
        "--ssl-ssl-only",
        "true",
        "--ssl-port",
        "0",
        "--ssl-bind-interface",
        "127.0.0.1",
        "--ssl-keystore-location",
        &location,
    ]
    .map(str::to_owned)
}

/// A client that trusts the server; with the key and the certificate of a file, if it has one.
pub(crate) fn client(certificate: Option<&str>) -> Arc<ClientConfig> {
    client_of(rustls::ALL_VERSIONS, certificate)
}

/// As [`client`], of these versions.
pub(crate) fn client_of(
    versions: &[&'static SupportedProtocolVersion],
    certificate: Option<&str>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(golden("ca.pem")).unwrap())
        .unwrap();
    let provider = Arc::new(rustls_graviola::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match certificate {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let chain = vec![CertificateDer::from_pem_file(golden(name)).unwrap()];
            let key = PrivateKeyDer::from_pem_file(golden(name)).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    })
}

/// A connection after its handshake; under TLS 1.3 the server may refuse it afterwards.
pub(crate) async fn connect(
    address: &str,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    handshake(TcpStream::connect(address).await?, config).await
}

/// As [`connect`], over a connection that stands.
pub(crate) async fn handshake(
    tcp: TcpStream,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").unwrap();
    let connecting = TlsConnector::from(Arc::clone(config)).connect(name, tcp);
    timeout(PATIENCE, connecting).await.expect("no handshake")
}

/// A client's connection, without TLS or with it.
pub(crate) type TestStream = Either<TcpStream, Box<TlsStream<TcpStream>>>;
