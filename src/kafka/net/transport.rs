//! The byte stream under a connection (Java's `TransportLayer`). Plain TCP today; TLS will
//! be a second variant.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, ToSocketAddrs};

/// Opens a byte stream to one address.
pub(crate) async fn connect(
    address: impl ToSocketAddrs,
) -> io::Result<(TransportReader, TransportWriter)> {
    let stream = TcpStream::connect(address).await?;
    // Requests are written whole; waiting for more to fill a segment only adds latency.
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    Ok((
        TransportReader::Plain(reader),
        TransportWriter::Plain(writer),
    ))
}

/// The half that responses come from.
#[derive(Debug)]
pub(crate) enum TransportReader {
    Plain(OwnedReadHalf),
}

/// The half that requests go to.
#[derive(Debug)]
pub(crate) enum TransportWriter {
    Plain(OwnedWriteHalf),
}

impl AsyncRead for TransportReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(half) => Pin::new(half).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for TransportWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(half) => Pin::new(half).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(half) => Pin::new(half).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(half) => Pin::new(half).poll_shutdown(cx),
        }
    }
}
