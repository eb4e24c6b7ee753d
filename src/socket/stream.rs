//! One upgraded connection: messages in and bytes out, over its transport.
//!
//! Nothing of hyper stays after the upgrade: a socket that sleeps owns its file descriptor,
//! the decoder's state and no buffer. Reading and writing never wait here; the socket's task
//! waits for readiness and calls again.
//!
//! # Invariants
//! - The read buffer is freed whenever the stream is drained and no frame is under way.
//! - Messages share the read buffer: they are dropped before the next read.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::task::yield_now;
use tokio::time::{Duration, timeout};

pub(crate) use super::transport::ReadStatus;
use super::transport::SocketTransport;
use crate::http_stream::HttpStream;
use websocket::deflate::PermessageDeflate;
use websocket::frame::{self, CloseFrame, FrameDecoder, ProtocolViolation, WebSocketMessage};

const READ_BYTES_MIN: usize = 4 << 10;
const READ_BYTES_MAX: usize = 64 << 10;

/// An upgraded connection.
#[derive(Debug)]
pub(crate) struct WebSocketStream {
    transport: SocketTransport,
    decoder: FrameDecoder,
    limits: MessageLimits,
    read_buffer: BytesMut,
    /// How much to make room for in a read.
    read_size: usize,
}

/// What the messages of a connection may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageLimits {
    /// Of a message from the client, whether or not it comes compressed.
    pub(crate) bytes_max: usize,
    /// How messages are compressed, if that was negotiated.
    pub(crate) deflate: Option<PermessageDeflate>,
}

#[cfg(test)]
impl MessageLimits {
    /// Of messages that are not compressed.
    pub(crate) fn plain(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            deflate: None,
        }
    }
}

impl WebSocketStream {
    /// Takes over an upgraded connection; `read_ahead` is what was read after the request.
    pub(crate) fn new(stream: HttpStream, read_ahead: Bytes, limits: MessageLimits) -> Self {
        let decoder = FrameDecoder::new(limits.bytes_max);
        let mut read_buffer = BytesMut::from(read_ahead);
        Self {
            transport: SocketTransport::new(stream, &mut read_buffer),
            decoder: match limits.deflate {
                None => decoder,
                Some(_) => decoder.taking_compressed(),
            },
            limits,
            read_buffer,
            read_size: READ_BYTES_MIN,
        }
    }

    /// What messages may be.
    pub(crate) fn limits(&self) -> MessageLimits {
        self.limits
    }

    /// The next message of what has been read.
    pub(crate) fn next_message(&mut self) -> Result<Option<WebSocketMessage>, ProtocolViolation> {
        self.decoder.decode(&mut self.read_buffer)
    }

    /// Reads what is there, once.
    pub(crate) fn fill_buffer(&mut self) -> io::Result<ReadStatus> {
        let room = self
            .decoder
            .payload_missing()
            .clamp(self.read_size, READ_BYTES_MAX);
        let status = self.transport.read(&mut self.read_buffer, room)?;
        match status {
            ReadStatus::Data(read) if read >= self.read_size => {
                self.read_size = (self.read_size * 2).min(READ_BYTES_MAX);
            }
            ReadStatus::WouldBlock if self.read_buffer.is_empty() => {
                self.read_buffer = BytesMut::new();
            }
            _ => {}
        }
        Ok(status)
    }

    /// Writes to the kernel's send buffer (`SO_SNDBUF`), in TLS by way of a record that is
    /// encrypted: how many bytes were taken, 0 when it is full.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.transport.write(bytes)
    }

    /// Writes `out` from its front, and takes off it what was taken; whether the kernel has all of
    /// it.
    pub(crate) fn flush(&mut self, out: &mut BytesMut) -> io::Result<bool> {
        while !out.is_empty() {
            match self.write(out)? {
                0 => return Ok(false),
                taken => out.advance(taken),
            }
        }
        self.transport.flush()
    }

    /// Writes what was taken and is encrypted; whether the kernel has all of it.
    pub(crate) fn flush_encrypted(&mut self) -> io::Result<bool> {
        self.transport.flush()
    }

    /// Whether something that was taken is encrypted, and the kernel does not have all of it.
    pub(crate) fn has_encrypted(&self) -> bool {
        self.transport.has_encrypted()
    }

    /// Of the bytes that were taken last, those that the kernel may not have.
    pub(crate) fn in_flight(&self) -> usize {
        self.transport.in_flight()
    }

    /// Encrypted bytes that the kernel has taken.
    pub(crate) fn encrypted_gone(&self) -> u64 {
        self.transport.encrypted_gone()
    }

    /// Until the stream can be read, or has ended. One task may wait at a time.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.transport.readable().await
    }

    /// Until the kernel takes bytes again. One task may wait at a time.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.transport.writable().await
    }

    /// The closing handshake (RFC 6455, section 7.1.1): sends what is left of `out` and the
    /// close frame, then waits for the peer to close, since a TCP connection that is closed
    /// with unread bytes is reset, and the peer may lose what it has not read.
    ///
    /// Takes at most `send_max` for the frame and two seconds for the peer; a frame that
    /// does not get out in time ends the connection with a reset.
    pub(crate) async fn close(mut self, mut out: BytesMut, close: &CloseFrame, send_max: Duration) {
        frame::write_close(&mut out, close.code, &close.reason);
        let sent = timeout(send_max, self.write_all(&mut out)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return self.reset();
        }
        // The peer sees the end of the stream once it has read our frame.
        if self.transport.shutdown().await.is_err() {
            return;
        }
        let _ = timeout(PEER_CLOSES_TIMEOUT, self.discard_to_eof()).await;
    }

    /// Ends the connection at once; the peer sees a reset.
    pub(crate) fn reset(self) {
        let _ = self.transport.tcp().set_zero_linger();
    }

    async fn write_all(&mut self, out: &mut BytesMut) -> io::Result<()> {
        while !self.flush(out)? {
            self.writable().await?;
        }
        Ok(())
    }

    async fn discard_to_eof(&mut self) -> io::Result<()> {
        self.read_buffer = BytesMut::new();
        loop {
            self.transport.discardable().await?;
            match discard(&self.transport)? {
                ReadStatus::Eof => return Ok(()),
                ReadStatus::WouldBlock => {}
                // A peer that goes on sending must not keep other tasks from their turn.
                ReadStatus::Data(_) => yield_now().await,
            }
        }
    }
}

/// How long a peer may take to close after our close frame.
const PEER_CLOSES_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads of one [`discard`].
const DISCARDS_PER_TURN: usize = 16;

/// Reads and drops what is there, up to 64 KiB.
fn discard(transport: &SocketTransport) -> io::Result<ReadStatus> {
    let (mut scratch, mut discarded) = ([0; 4096], 0);
    for _ in 0..DISCARDS_PER_TURN {
        match transport.discard(&mut scratch)? {
            ReadStatus::Data(read) => discarded += read,
            status => return Ok(status),
        }
    }
    Ok(ReadStatus::Data(discarded))
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn what_a_peer_goes_on_sending_is_dropped_a_piece_at_a_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap());
        let (peer, accepted) = tokio::join!(peer, listener.accept());
        let (peer, stream) = (peer.unwrap(), accepted.unwrap().0);
        peer.writable().await.unwrap();
        let mut sent = 0;
        while let Ok(n) = peer.try_write(&[0; 4096]) {
            sent += n;
        }
        let turn = DISCARDS_PER_TURN * 4096;
        assert!(sent > 2 * turn, "{sent} bytes fit the kernel's buffers");
        stream.readable().await.unwrap();
        let stream = SocketTransport::Plain(stream);
        for _ in 0..2 {
            match discard(&stream).unwrap() {
                ReadStatus::Data(discarded) => assert!(discarded <= turn, "{discarded}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
