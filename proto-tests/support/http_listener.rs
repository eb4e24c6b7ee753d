//! What the HTTP servers of the tests listen with: TCP, or TLS over it.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::kafka::root;

/// A connection of a client, without TLS or with it.
pub(crate) type HttpClientStream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Listens on a free port, which it returns, and serves each connection in a task of its own.
pub(crate) async fn listen<F>(
    tls: Option<Arc<ServerConfig>>,
    serve: impl Fn(HttpClientStream) -> F + Clone + Send + 'static,
) -> (u16, AbortHandle)
where
    F: Future<Output = Option<()>> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = tls.map(TlsAcceptor::from);
    let accepting = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (tls, serve) = (tls.clone(), serve.clone());
            tokio::spawn(async move {
                let stream = match tls {
                    None => Either::Left(stream),
                    Some(tls) => Either::Right(Box::new(tls.accept(stream).await.ok()?)),
                };
                serve(stream).await
            });
        }
    });
    (port, accepting.abort_handle())
}

/// With a certificate of `golden/tls` for `localhost`: `server` is by the authority in `ca.pem`.
pub(crate) fn https_config(name: &str) -> Arc<ServerConfig> {
    let file = root().join("proto-tests/golden/tls").join(name);
    let certificate = CertificateDer::from_pem_file(file.with_extension("pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(file.with_extension("key")).unwrap();
    let provider = Arc::new(rustls_graviola::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    Arc::new(config)
}
