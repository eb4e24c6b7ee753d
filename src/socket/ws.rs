//! One upgraded connection: frames over the bare TCP stream.
//!
//! Nothing of hyper stays after the upgrade: a socket that sleeps owns its file descriptor,
//! the decoder's few words and no buffer. Reading and writing never wait here; the socket's
//! task waits for readiness and calls again.
//!
//! # Invariants
//! - The read buffer is given back whenever the stream is empty and no frame is under way.
//! - Messages share the read buffer: they are done with before the next read.

use std::future::poll_fn;
use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

use websocket::frame::{self, CloseFrame, FrameDecoder, ProtocolViolation, WebSocketMessage};

const READ_BYTES_MIN: usize = 4 << 10;
const READ_BYTES_MAX: usize = 64 << 10;

/// A WebSocket.
#[derive(Debug)]
pub(crate) struct WebSocket {
    stream: TcpStream,
    decoder: FrameDecoder,
    input: BytesMut,
    read_bytes: usize,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Bytes, and maybe more of them.
    Some,
    /// The stream is empty for now.
    Empty,
    /// The peer will send nothing more.
    End,
}

impl WebSocket {
    /// Takes over an upgraded connection; `early` is what was read behind the request.
    pub(crate) fn new(stream: TcpStream, early: Bytes, message_bytes_max: usize) -> Self {
        Self {
            stream,
            decoder: FrameDecoder::new(message_bytes_max),
            input: BytesMut::from(early),
            read_bytes: READ_BYTES_MIN,
        }
    }

    /// The next message of what has been read.
    pub(crate) fn message(&mut self) -> Result<Option<WebSocketMessage>, ProtocolViolation> {
        self.decoder.decode(&mut self.input)
    }

    /// Reads what is there, once.
    pub(crate) fn fill(&mut self) -> io::Result<Fill> {
        let room = self
            .decoder
            .payload_missing()
            .clamp(self.read_bytes, READ_BYTES_MAX);
        self.input.reserve(room);
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => Ok(Fill::End),
            Ok(read) => {
                if read >= self.read_bytes {
                    self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
                }
                Ok(Fill::Some)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if self.input.is_empty() {
                    self.input = BytesMut::new();
                }
                Ok(Fill::Empty)
            }
            Err(error) => Err(error),
        }
    }

    /// Hands bytes to the kernel: how many it took, 0 when it is full.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.stream.try_write(bytes) {
            Ok(taken) => Ok(taken),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Hands the front of `out` to the kernel; whether all of it went.
    pub(crate) fn flush(&self, out: &mut BytesMut) -> io::Result<bool> {
        while !out.is_empty() {
            match self.write(out)? {
                0 => return Ok(false),
                taken => out.advance(taken),
            }
        }
        Ok(true)
    }

    /// Until the stream can be read, or has ended. One task may wait at a time.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.stream.poll_read_ready(cx)).await
    }

    /// Until the kernel takes bytes again. One task may wait at a time.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        poll_fn(|cx| self.stream.poll_write_ready(cx)).await
    }

    /// Says goodbye: what is left of `out`, the close frame, and then waits for the peer to
    /// close, since unread bytes at the end of a connection destroy what is on its way.
    ///
    /// Takes at most `send_max` for the frame and two seconds for the peer; a frame that
    /// does not get out in time ends the connection with a reset.
    pub(crate) async fn close(mut self, mut out: BytesMut, close: &CloseFrame, send_max: Duration) {
        frame::write_close(&mut out, close.code, &close.reason);
        let sent = timeout(send_max, self.send_all(&mut out)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return self.reset();
        }
        // The peer sees the end of the stream once it has read our frame.
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let _ = timeout(PEER_CLOSES_MAX, self.read_to_end()).await;
    }

    /// Ends the connection at once; the peer sees a reset.
    pub(crate) fn reset(self) {
        let _ = self.stream.set_zero_linger();
    }

    async fn send_all(&self, out: &mut BytesMut) -> io::Result<()> {
        while !self.flush(out)? {
            self.writable().await?;
        }
        Ok(())
    }

    async fn read_to_end(&mut self) -> io::Result<()> {
        self.input = BytesMut::new();
        loop {
            self.readable().await?;
            if drain(&self.stream)? == Fill::End {
                return Ok(());
            }
        }
    }
}

/// How long a peer may take to close after our close frame.
const PEER_CLOSES_MAX: Duration = Duration::from_secs(2);

/// Reads and drops what is there.
fn drain(stream: &TcpStream) -> io::Result<Fill> {
    let mut scratch = [0; 4096];
    loop {
        match stream.try_read(&mut scratch) {
            Ok(0) => return Ok(Fill::End),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Fill::Empty),
            Err(error) => return Err(error),
        }
    }
}
