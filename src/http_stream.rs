//! A client's connection while it speaks HTTP.

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

/// TCP, or TLS over it, after its handshake.
pub(crate) type HttpStream = Either<TcpStream, Box<TlsStream<TcpStream>>>;
