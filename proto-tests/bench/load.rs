//! The cheapest possible WebSocket client, so that the load takes little from the 2 cores.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::tls_client;

/// Opens a WebSocket; `target` is path and query.
pub(crate) async fn open(port: u16, target: &str) -> io::Result<(TcpStream, Frames)> {
    let stream = open_with(port, target, "").await?;
    Ok((stream, Frames::default()))
}

/// With more lines of headers, each with its end.
pub(crate) async fn open_with(port: u16, target: &str, headers: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    upgrade(&mut stream, target, headers).await?;
    Ok(stream)
}

/// Where sockets are opened: by TLS, if there is a configuration for it.
pub(crate) struct Endpoint {
    pub(crate) port: u16,
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// What a socket of an [`Endpoint`] is read from and written to.
pub(crate) type SocketStream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

impl Endpoint {
    /// Opens a WebSocket; `target` is path and query.
    pub(crate) async fn open(&self, target: &str) -> io::Result<(SocketStream, Frames)> {
        let Some(tls) = &self.tls else {
            let (stream, frames) = open(self.port, target).await?;
            return Ok((Either::Left(stream), frames));
        };
        let mut stream = tls_client::connect(self.port, tls).await?;
        upgrade(&mut stream, target, "").await?;
        Ok((Either::Right(Box::new(stream)), Frames::default()))
    }
}

async fn upgrade(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    target: &str,
    headers: &str,
) -> io::Result<()> {
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    if !head.starts_with(b"HTTP/1.1 101") {
        return Err(io::Error::other(
            String::from_utf8_lossy(&head).into_owned(),
        ));
    }
    Ok(())
}

/// Sends a frame so many times, 1,000 in flight, until all are acknowledged.
pub(crate) async fn produce_all(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    mut frames: Frames,
    one: &[u8],
    records: usize,
) {
    const WINDOW: usize = 1_000;
    let many = one.repeat(WINDOW);
    let (mut sent, mut answered, mut errors) = (0, 0, 0);
    let mut buffer = vec![0; 256 << 10];
    while answered < records {
        let credit = (WINDOW - (sent - answered)).min(records - sent);
        if credit > 0 {
            stream
                .write_all(&many[..credit * one.len()])
                .await
                .expect("open");
            stream.flush().await.expect("open");
            sent += credit;
        }
        let n = stream.read(&mut buffer).await.expect("open");
        assert!(n > 0, "the proxy closed the socket");
        frames.feed(&buffer[..n], |answer| {
            answered += 1;
            errors += usize::from(answer.starts_with(br#"{"error"#));
        });
    }
    assert_eq!(errors, 0, "every record is acknowledged");
}

/// Reads so many records; when the first one came.
pub(crate) async fn consume_all(
    mut stream: impl AsyncRead + Unpin,
    mut frames: Frames,
    records: usize,
) -> Instant {
    let mut buffer = vec![0; 1 << 20];
    let mut read = 0;
    let mut first = None;
    while read < records {
        let n = stream.read(&mut buffer).await.expect("open");
        assert!(n > 0, "the proxy closed the socket");
        first.get_or_insert_with(Instant::now);
        frames.feed(&buffer[..n], |_| read += 1);
    }
    first.expect("records came")
}

/// Appends a text frame, masked with zeros.
pub(crate) fn text_frame(into: &mut Vec<u8>, text: &[u8]) {
    frame(into, 0x81, text);
}

/// Appends a binary frame, masked with zeros.
pub(crate) fn binary_frame(into: &mut Vec<u8>, bytes: &[u8]) {
    frame(into, 0x82, bytes);
}

fn frame(into: &mut Vec<u8>, first: u8, payload: &[u8]) {
    into.push(first);
    match payload.len() {
        n if n < 126 => into.push(0x80 | n as u8),
        n => {
            into.push(0x80 | 126);
            into.extend_from_slice(&u16::try_from(n).expect("small frames").to_be_bytes());
        }
    }
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(payload);
}

/// Splits what a server sent into frames; keeps an incomplete one for the next read.
#[derive(Default)]
pub(crate) struct Frames {
    rest: Vec<u8>,
}

impl Frames {
    /// Calls `each` with the payload of every text or binary frame now complete.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        if self.rest.is_empty() {
            let used = Self::split(bytes, &mut each);
            self.rest.extend_from_slice(&bytes[used..]);
        } else {
            self.rest.extend_from_slice(bytes);
            let used = Self::split(&self.rest, &mut each);
            self.rest.drain(..used);
        }
    }

    fn split(bytes: &[u8], each: &mut impl FnMut(&[u8])) -> usize {
        let mut at = 0;
        while let Some((header, len)) = Self::header(&bytes[at..]) {
            if bytes.len() - at < header + len {
                break;
            }
            if matches!(bytes[at] & 0x0f, 1 | 2) {
                each(&bytes[at + header..at + header + len]);
            }
            at += header + len;
        }
        at
    }

    fn header(bytes: &[u8]) -> Option<(usize, usize)> {
        let short = usize::from(*bytes.get(1)? & 0x7f);
        match short {
            126 => {
                let len = bytes.get(2..4)?;
                Some((4, usize::from(u16::from_be_bytes(len.try_into().ok()?))))
            }
            127 => {
                let len = bytes.get(2..10)?;
                Some((10, u64::from_be_bytes(len.try_into().ok()?) as usize))
            }
            n => Some((2, n)),
        }
    }
}
