//! The cheapest possible WebSocket client, so that the load takes little from the 2 cores.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Opens a WebSocket; `target` is path and query.
pub(crate) async fn open(port: u16, target: &str) -> io::Result<(TcpStream, Frames)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
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
    Ok((stream, Frames::default()))
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
