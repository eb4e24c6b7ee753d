//! A WebSocket client that compresses (`permessage-deflate`), with nothing between a test and the
//! frames.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;
use super::tls::TestStream;

/// An open socket.
pub(crate) struct DeflateClient {
    stream: TestStream,
    received: Vec<u8>,
    /// `Sec-WebSocket-Extensions` of the response.
    pub(crate) extensions: Option<String>,
}

/// A frame from the server.
#[derive(Debug)]
pub(crate) struct ServerFrame {
    /// With FIN and RSV1.
    pub(crate) first: u8,
    /// As it came.
    pub(crate) payload: Vec<u8>,
}

/// The bit of a frame's first byte that says that its message is compressed.
pub(crate) const RSV1: u8 = 0x40;
/// The first byte of a whole text.
pub(crate) const TEXT: u8 = 0x81;

impl DeflateClient {
    /// Opens `path`, with these headers of extensions.
    pub(crate) async fn connect(address: &str, path: &str, offers: &[&str]) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self::connect_by(TestStream::Left(stream), address, path, offers).await
    }

    /// Over a connection that stands.
    pub(crate) async fn connect_by(
        mut stream: TestStream,
        address: &str,
        path: &str,
        offers: &[&str],
    ) -> Self {
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        for offer in offers {
            request += &format!("Sec-WebSocket-Extensions: {offer}\r\n");
        }
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.write_all(b"\r\n").await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = timeout(PATIENCE, stream.read_u8()).await.unwrap();
            head.push(byte.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let named = head.lines().filter_map(|line| line.split_once(": "));
        let mut named =
            named.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-extensions"));
        let extensions = named.next().map(|(_, value)| value.to_owned());
        assert!(named.next().is_none(), "{head}");
        Self {
            stream,
            received: Vec::new(),
            extensions,
        }
    }

    /// Sends a frame with that first byte.
    pub(crate) async fn send_frame(&mut self, first: u8, payload: &[u8]) {
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..=125 => frame.push(0x80 | len as u8),
            len @ 126..=0xFFFF => {
                frame.push(0x80 | 126);
                frame.extend((len as u16).to_be_bytes());
            }
            len => {
                frame.push(0x80 | 127);
                frame.extend((len as u64).to_be_bytes());
            }
        }
        let key = [0x37, 0xfa, 0x21, 0x3d];
        frame.extend(key);
        frame.extend(payload.iter().zip(key.iter().cycle()).map(|(a, b)| a ^ b));
        // The server may have ended the connection.
        let _ = self.stream.write_all(&frame).await;
    }

    /// Sends a text, compressed.
    pub(crate) async fn send(&mut self, text: &str) {
        self.send_frame(TEXT | RSV1, &deflated(text.as_bytes()))
            .await;
    }

    /// The next frame that is no ping; `None` when the connection has ended.
    pub(crate) async fn next_frame(&mut self) -> Option<ServerFrame> {
        let next = async {
            loop {
                match self.take_frame() {
                    Some(frame) if frame.first == 0x89 => {}
                    Some(frame) => return Some(frame),
                    None if self.stream.read_buf(&mut self.received).await.unwrap() == 0 => {
                        return None;
                    }
                    None => {}
                }
            }
        };
        timeout(PATIENCE, next).await.expect("nothing came")
    }

    /// The next text, and whether it came compressed.
    pub(crate) async fn next(&mut self) -> (String, bool) {
        let frame = self.next_frame().await.expect("a message");
        assert_eq!(frame.first & !RSV1, TEXT, "{frame:02x?}");
        let is_compressed = frame.first & RSV1 != 0;
        let bytes = match is_compressed {
            true => inflated(&frame.payload),
            false => frame.payload,
        };
        (String::from_utf8(bytes).unwrap(), is_compressed)
    }

    /// The code and the reason of the close frame, which is the next.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        let frame = self.next_frame().await.expect("a close frame");
        assert_eq!(frame.first, 0x88, "{frame:02x?}");
        let (code, reason) = frame.payload.split_first_chunk().expect("a code");
        let reason = String::from_utf8(reason.to_vec()).unwrap();
        (u16::from_be_bytes(*code), reason)
    }

    fn take_frame(&mut self) -> Option<ServerFrame> {
        let [first, len, rest @ ..] = &self.received[..] else {
            return None;
        };
        assert!(*len < 128, "a server masks nothing");
        let (len, rest) = match len {
            127 => {
                let (len, rest) = rest.split_first_chunk()?;
                (u64::from_be_bytes(*len) as usize, rest)
            }
            126 => {
                let (len, rest) = rest.split_first_chunk()?;
                (usize::from(u16::from_be_bytes(*len)), rest)
            }
            len => (usize::from(*len), rest),
        };
        let payload = rest.get(..len)?.to_vec();
        let (first, header) = (*first, self.received.len() - rest.len());
        self.received.drain(..header + len);
        Some(ServerFrame { first, payload })
    }
}

/// A message as RFC 7692 has it on the wire.
pub(crate) fn deflated(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() * 2 + 100);
    let mut deflate = Compress::new(Compression::best(), false);
    let flushed = deflate.compress_vec(message, &mut out, FlushCompress::Sync);
    flushed.unwrap();
    out.strip_suffix(b"\x00\x00\xff\xff").unwrap().to_vec()
}

/// What becomes of a payload without any context.
pub(crate) fn inflated(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 << 20);
    let payload = [payload, b"\x00\x00\xff\xff"].concat();
    let mut inflate = Decompress::new(false);
    let inflated = inflate.decompress_vec(&payload, &mut out, FlushDecompress::None);
    inflated.unwrap();
    assert_eq!(inflate.total_in(), payload.len() as u64);
    out
}
