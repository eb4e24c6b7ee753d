//! The bytes under a socket: TCP, or TLS over it. Neither reading nor writing waits.
//!
//! ```text
//! bytes ─ encrypted, a record at a time ─▶ rustls ─ write_encrypted ─▶ kernel
//!           └ only when the record before has gone, so one record may be on its way
//! kernel ─ a read ─▶ rustls ─ decrypted, all of it ─▶ the read buffer
//! ```
//!
//! # Invariants
//! - What was encrypted goes before anything else, whatever becomes of the socket's own buffers.
//! - Nothing that was decrypted stays behind: the connection below is readable, or there is nothing.

use std::future::poll_fn;
use std::io::{self, BufRead, IoSlice, Write};

use bytes::BytesMut;
use rustls::ServerConnection;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::http_stream::HttpStream;

/// What is encrypted at once (RFC 8446, section 5.1).
const TLS_RECORD_BYTES: usize = 16 << 10;

/// What became of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadStatus {
    /// So many bytes came; there may be more.
    Data(usize),
    /// Nothing is there for now.
    WouldBlock,
    /// The peer sends nothing more.
    Eof,
}

/// A connection that speaks nothing but WebSocket any more.
#[derive(Debug)]
pub(super) enum SocketTransport {
    Plain(TcpStream),
    Tls(Box<TlsTransport>),
}

/// A TLS connection after its handshake.
#[derive(Debug)]
pub(super) struct TlsTransport {
    tcp: TcpStream,
    tls: ServerConnection,
    /// Bytes that were encrypted and have not all gone.
    in_flight: usize,
    /// Encrypted bytes that have gone.
    gone: u64,
    /// The peer's `close_notify` has come.
    has_ended: bool,
    /// Nothing can be written any more.
    is_broken: bool,
}

impl SocketTransport {
    /// Takes over a connection on which HTTP has ended; what of it was decrypted and not read goes
    /// behind what `read_ahead` has.
    pub(super) fn new(stream: HttpStream, read_ahead: &mut BytesMut) -> Self {
        match stream {
            HttpStream::Left(tcp) => Self::Plain(tcp),
            HttpStream::Right(stream) => {
                let (tcp, tls) = stream.into_inner();
                let mut transport = TlsTransport {
                    tcp,
                    tls,
                    in_flight: 0,
                    gone: 0,
                    has_ended: false,
                    is_broken: false,
                };
                transport.take_decrypted(read_ahead);
                Self::Tls(Box::new(transport))
            }
        }
    }

    /// Reads what is there, once, about `room` bytes, behind what `buffer` has.
    pub(super) fn read(&mut self, buffer: &mut BytesMut, room: usize) -> io::Result<ReadStatus> {
        match self {
            Self::Plain(tcp) => {
                buffer.reserve(room);
                read_some(tcp, buffer)
            }
            Self::Tls(tls) => tls.read(buffer, room),
        }
    }

    /// Reads and drops what is there, once, without a look at it.
    pub(super) fn discard(&self, scratch: &mut [u8]) -> io::Result<ReadStatus> {
        status_of(self.tcp().try_read(scratch))
    }

    /// Writes; how many bytes were taken, 0 when the kernel's send buffer (`SO_SNDBUF`) is full.
    /// What was taken goes without being given again, but may not have gone yet: see
    /// [`in_flight`](Self::in_flight).
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => unless_full(tcp.try_write(bytes)),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    /// Writes what was encrypted; whether all of it has gone.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        match self {
            Self::Plain(_) => Ok(true),
            Self::Tls(tls) => tls.write_encrypted(),
        }
    }

    /// Whether something is encrypted that has not gone, and can go.
    pub(super) fn has_encrypted(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => !tls.is_broken && tls.tls.wants_write(),
        }
    }

    /// How many of the bytes that were taken last may not have gone.
    pub(super) fn in_flight(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Tls(tls) => tls.in_flight,
        }
    }

    /// Encrypted bytes that have gone.
    pub(super) fn encrypted_gone(&self) -> u64 {
        match self {
            Self::Plain(_) => 0,
            Self::Tls(tls) => tls.gone,
        }
    }

    /// Until [`read`](Self::read) has something, or an end.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tls(tls) if tls.has_ended => Ok(()),
            _ => self.discardable().await,
        }
    }

    /// Until [`discard`](Self::discard) has something, or an end.
    pub(super) async fn discardable(&self) -> io::Result<()> {
        poll_fn(|cx| self.tcp().poll_read_ready(cx)).await
    }

    /// Until the kernel takes bytes.
    pub(super) async fn writable(&self) -> io::Result<()> {
        poll_fn(|cx| self.tcp().poll_write_ready(cx)).await
    }

    /// Ends our side, in TLS with its alert.
    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        if let Self::Tls(tls) = self {
            tls.tls.send_close_notify();
        }
        while !self.flush()? {
            self.writable().await?;
        }
        match self {
            Self::Plain(tcp) => tcp.shutdown().await,
            Self::Tls(tls) => tls.tcp.shutdown().await,
        }
    }

    /// The connection below.
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => &tls.tcp,
        }
    }
}

impl TlsTransport {
    fn read(&mut self, buffer: &mut BytesMut, room: usize) -> io::Result<ReadStatus> {
        if self.has_ended {
            return Ok(ReadStatus::Eof);
        }
        // rustls reads four KiB at a time, which would be a system call each.
        let mut encrypted = BytesMut::with_capacity(room);
        // An end without the alert is one too: what is not whole, the frames know.
        let status = read_some(&self.tcp, &mut encrypted)?;
        let mut rest = &encrypted[..];
        while !rest.is_empty() && !self.has_ended {
            self.tls.read_tls(&mut rest)?;
            if let Err(error) = self.tls.process_new_packets() {
                // The alert that says why.
                let _ = self.write_encrypted();
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            self.take_decrypted(buffer);
        }
        Ok(status)
    }

    fn take_decrypted(&mut self, buffer: &mut BytesMut) {
        let mut reader = self.tls.reader();
        while let Ok(decrypted) = reader.fill_buf() {
            let len = decrypted.len();
            if len == 0 {
                self.has_ended = true;
                return;
            }
            buffer.extend_from_slice(decrypted);
            reader.consume(len);
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        while self.write_encrypted()? && taken < bytes.len() {
            let record = &bytes[taken..bytes.len().min(taken + TLS_RECORD_BYTES)];
            self.in_flight = self.tls.writer().write(record)?;
            taken += self.in_flight;
        }
        Ok(taken)
    }

    fn write_encrypted(&mut self) -> io::Result<bool> {
        if self.is_broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        while self.tls.wants_write() {
            match unless_full(self.tls.write_tls(&mut TryWrite(&self.tcp))) {
                Ok(0) => return Ok(false),
                Ok(written) => self.gone += written as u64,
                Err(error) => {
                    self.is_broken = true;
                    return Err(error);
                }
            }
        }
        self.in_flight = 0;
        Ok(true)
    }
}

fn read_some(tcp: &TcpStream, buffer: &mut BytesMut) -> io::Result<ReadStatus> {
    status_of(tcp.try_read_buf(buffer))
}

fn status_of(read: io::Result<usize>) -> io::Result<ReadStatus> {
    match read {
        Ok(0) => Ok(ReadStatus::Eof),
        Ok(read) => Ok(ReadStatus::Data(read)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(ReadStatus::WouldBlock),
        Err(error) => Err(error),
    }
}

fn unless_full(written: io::Result<usize>) -> io::Result<usize> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}

/// A TCP connection as rustls has it: what would wait is an error.
struct TryWrite<'a>(&'a TcpStream);

impl Write for TryWrite<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
