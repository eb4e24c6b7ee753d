//! The TLS handshake of one connection, before there is any HTTP.
//!
//! ```text
//! first byte ─┬─ 0x16 ─▶ handshake ─┬─▶ HttpStream
//!             └─ other ─▶ 400       └─▶ alert, end
//! └──────── server.limits.handshake-timeout ────────┘
//! ```
//!
//! What is kept of a client before its handshake is over is a message of it: at most 64 KiB, by
//! rustls.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rustls::{CertificateError, Error, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info};

use super::head_check;
use crate::http_error::HttpError;
use crate::http_stream::HttpStream;

/// The first byte of a handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 0x16;
/// How long a client that speaks plain text may go on, so that it reads the answer: a connection
/// that is closed with unread bytes is reset.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// The connection after its handshake; `None`: there is none, and its client has been told why.
pub(super) async fn handshake(
    tcp: TcpStream,
    peer: SocketAddr,
    config: Arc<ServerConfig>,
    timeout_after: Duration,
) -> Option<HttpStream> {
    match timeout(timeout_after, begin(tcp, peer, config)).await {
        Ok(stream) => stream,
        Err(_) => {
            debug!(%peer, "the TLS handshake takes too long (server.limits.handshake-timeout)");
            None
        }
    }
}

async fn begin(tcp: TcpStream, peer: SocketAddr, config: Arc<ServerConfig>) -> Option<HttpStream> {
    let mut first = [0];
    match tcp.peek(&mut first).await {
        Ok(1) if first == [HANDSHAKE] => {}
        Ok(1) => {
            info!(
                %peer,
                "a client speaks plain text to the TLS port: https:// and wss:// reach it"
            );
            refuse_plain_text(tcp).await;
            return None;
        }
        _ => return None,
    }
    match TlsAcceptor::from(config).accept(tcp).await {
        Ok(stream) => Some(HttpStream::Right(Box::new(stream))),
        Err(error) => {
            log_failure(peer, &error);
            None
        }
    }
}

/// What a client's certificate is refused for concerns an operator; the rest comes from whoever
/// looks for open ports, too.
fn log_failure(peer: SocketAddr, error: &io::Error) {
    let inner = error.get_ref();
    let of_tls = inner.and_then(|error| error.downcast_ref::<Error>());
    match of_tls {
        Some(Error::NoCertificatesPresented) => info!(
            %peer,
            "a client without a certificate is refused (server.ssl.client-ca-location)"
        ),
        Some(Error::InvalidCertificate(fault)) => info!(
            %peer,
            reason = reason_of(fault),
            "a client's certificate is refused (server.ssl.client-ca-location)"
        ),
        _ => debug!(%peer, %error, "the TLS handshake failed"),
    }
}

fn reason_of(fault: &CertificateError) -> String {
    match fault {
        CertificateError::UnknownIssuer => "none of the authorities vouches for it".to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not for clients (extended key usage clientAuth)".to_owned()
        }
        other => format!("{other:?}"),
    }
}

/// Answers as to a request, which it most likely is.
async fn refuse_plain_text(mut tcp: TcpStream) {
    let message = "this port speaks TLS: https:// and wss:// reach it";
    let body = HttpError::new(StatusCode::BAD_REQUEST, message)
        .into_response()
        .into_body();
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n{}content-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        head_check::security_lines(),
        body.len()
    );
    if tcp.write_all(answer.as_bytes()).await.is_err() || tcp.shutdown().await.is_err() {
        return;
    }
    let discarded = async {
        let mut scratch = [0; 1024];
        while tcp.read(&mut scratch).await.is_ok_and(|read| read > 0) {}
    };
    let _ = timeout(DISCARD_TIMEOUT, discarded).await;
}
