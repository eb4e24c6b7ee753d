//! The client side of TLS, and what the servers present to it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_graviola::kx;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::processes::root;

/// The path of a file of the tests' TLS servers.
fn golden(name: &str) -> PathBuf {
    root().join("proto-tests/golden/tls-server").join(name)
}

/// The certificate of the servers (ECDSA, P-256) and its key, in one file.
pub(crate) fn server_pem() -> String {
    golden("server.pem").display().to_string()
}

/// The flags of a proxy that speaks nothing but TLS to its clients.
pub(crate) fn server_flags() -> Vec<String> {
    let location = server_pem();
    let flags = [
        ("--ssl-ssl-only", "true"),
        ("--ssl-port", "0"),
        ("--ssl-bind-interface", "127.0.0.1"),
        ("--ssl-keystore-location", &location),
    ];
    let flags = flags.into_iter().flat_map(|(flag, value)| [flag, value]);
    flags.map(str::to_owned).collect()
}

/// A client that trusts the servers, exchanges keys by `group` and resumes no session: each
/// handshake is a full one.
pub(crate) fn client(
    version: &'static SupportedProtocolVersion,
    group: &'static dyn SupportedKxGroup,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(golden("ca.pem")).expect("a certificate");
    roots.add(authority).expect("an authority");
    let provider = CryptoProvider {
        // TLS 1.2 has P-256 for the certificate, too.
        kx_groups: vec![group, &kx::P256],
        ..rustls_graviola::default_provider()
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .expect("the provider has the version");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// A connection after its handshake.
pub(crate) async fn connect(
    port: u16,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::clone(config))
        .connect(name, tcp)
        .await
}
