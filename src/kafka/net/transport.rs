//! The byte stream under a connection (Java's `TransportLayer`): TCP, or TLS over it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::error::host_of;

/// Opens a byte stream to one address of `host`, the `host:port` that its certificate must have.
/// `tls`: the settings of TLS; none for plain text.
pub(crate) async fn connect(
    address: SocketAddr,
    host: &str,
    tls: Option<&Arc<rustls::ClientConfig>>,
) -> io::Result<(TransportReader, TransportWriter)> {
    let stream = TcpStream::connect(address).await?;
    // Requests are written whole; waiting for more to fill a segment only adds latency.
    stream.set_nodelay(true)?;
    let Some(tls) = tls else {
        let (reader, writer) = stream.into_split();
        return Ok((TransportReader::Left(reader), TransportWriter::Left(writer)));
    };
    let stream = TlsConnector::from(Arc::clone(tls))
        .connect(server_name(host)?, stream)
        .await
        .map_err(handshake_error)?;
    let (reader, writer) = split(stream);
    Ok((
        TransportReader::Right(reader),
        TransportWriter::Right(writer),
    ))
}

/// The name that the certificate of `host:port` must have.
fn server_name(address: &str) -> io::Result<ServerName<'static>> {
    let name = host_of(address);
    ServerName::try_from(name.to_owned()).map_err(|error| {
        let fault = format!("{name:?} cannot be the name in a certificate: {error}");
        io::Error::new(io::ErrorKind::InvalidInput, fault)
    })
}

/// In words that say what to change.
fn handshake_error(error: io::Error) -> io::Error {
    let kind = error.kind();
    let fault = match rustls_error(&error) {
        Some(rustls::Error::InvalidMessage(_)) => {
            "it does not speak TLS (security.protocol)".to_owned()
        }
        Some(error) => tls_fault(error),
        None if kind == io::ErrorKind::UnexpectedEof => {
            "it closed the connection in the TLS handshake, as a plain-text port does \
             (security.protocol)"
                .to_owned()
        }
        None => format!("the TLS handshake failed: {error}"),
    };
    io::Error::new(kind, fault)
}

/// An error of a connection that stands, in words that say what to change. Under TLS 1.3 a client's
/// certificate is refused only after the handshake.
pub(crate) fn describe(error: &io::Error) -> String {
    let text = match rustls_error(error) {
        Some(error) => return tls_fault(error),
        None => error.to_string(),
    };
    match text.starts_with(END_WITHOUT_ALERT) {
        true => "the broker closed it".to_owned(),
        false => text,
    }
}

/// How rustls begins what it says of an end without `close_notify`; an address of its manual follows.
const END_WITHOUT_ALERT: &str = "peer closed connection without sending TLS close_notify";

fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// What TLS says, in words that say what to change.
pub fn tls_fault(error: &rustls::Error) -> String {
    use rustls::AlertDescription as Alert;
    use rustls::{CertificateError, Error};
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its certificate is signed by nobody that is trusted (ssl.truststore.location)"
                .to_owned()
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!("{error} (ssl.endpoint.identification.algorithm)"),
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "its certificate has expired, unless the clock of this machine is wrong".to_owned(),
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => {
            "its certificate is not valid yet, unless the clock of this machine is wrong".to_owned()
        }
        Error::AlertReceived(
            alert @ (Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA),
        ) => format!(
            "it refuses our certificate, or that there is none: {alert:?} (ssl.keystore.location)"
        ),
        Error::AlertReceived(alert @ (Alert::ProtocolVersion | Alert::HandshakeFailure)) => {
            format!(
                "it shares no version or cipher suite of TLS with us: {alert:?} (ssl.enabled.protocols, ssl.cipher.suites)"
            )
        }
        other => format!("TLS: {other}"),
    }
}

/// The half that responses come from: of TCP, or of TLS over it.
pub(crate) type TransportReader = Either<OwnedReadHalf, ReadHalf<TlsStream<TcpStream>>>;

/// The half that requests go to: of TCP, or of TLS over it.
pub(crate) type TransportWriter = Either<OwnedWriteHalf, WriteHalf<TlsStream<TcpStream>>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_in_the_certificate_is_the_host_that_is_connected_to() {
        for (host, name) in [
            ("kafka-1.example:9093", "kafka-1.example"),
            ("kafka.example.:9093", "kafka.example"),
            ("10.0.0.1:9093", "10.0.0.1"),
            ("[::1]:9093", "::1"),
        ] {
            assert_eq!(server_name(host).expect(host).to_str(), name);
        }
        assert!(server_name("a b:1").is_err());
    }
}
