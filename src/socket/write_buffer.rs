//! Frames that are to be written, oldest first: what has not reached the kernel's send buffer
//! (`SO_SNDBUF`) yet.
//!
//! Control frames, acks and arrays of records go through here; single records do not: they
//! are written from the chunk that they are encoded in.

use std::io;

use bytes::BytesMut;

use super::compression;
use super::stream::WebSocketStream;
use websocket::deflate::PermessageDeflate;
use websocket::frame::{self, Opcode};

/// Whole frames; the first may be partly written.
#[derive(Debug)]
pub(super) struct WriteBuffer {
    buffer: BytesMut,
    /// Bytes that were ever appended.
    appended: u64,
    /// What is allocated beyond this is freed as soon as the buffer is empty.
    keep_max: usize,
    /// How messages are compressed, if that was negotiated.
    deflate: Option<PermessageDeflate>,
}

impl WriteBuffer {
    /// An empty buffer, which keeps at most `keep_max` bytes of memory when it has become
    /// empty; whole messages are compressed by `deflate`.
    pub(super) fn new(keep_max: usize, deflate: Option<PermessageDeflate>) -> Self {
        Self {
            buffer: BytesMut::new(),
            appended: 0,
            keep_max,
            deflate,
        }
    }

    /// How messages are compressed, if that was negotiated.
    pub(super) fn deflate(&self) -> Option<PermessageDeflate> {
        self.deflate
    }

    /// Appends what `frames` writes, as it is.
    pub(super) fn append(&mut self, frames: impl FnOnce(&mut BytesMut)) {
        let before = self.buffer.len();
        frames(&mut self.buffer);
        self.appended += (self.buffer.len() - before) as u64;
    }

    /// Appends one text message, of what `payload` writes.
    pub(super) fn append_text(&mut self, payload: impl FnOnce(&mut BytesMut)) {
        let deflate = self.deflate;
        self.append(|frames| {
            let start = frame::begin_frame(frames);
            payload(frames);
            compression::end_message(frames, start, Opcode::Text, deflate);
        });
    }

    /// Appends one message that is there already.
    pub(super) fn append_message(&mut self, opcode: Opcode, payload: &[u8]) {
        let deflate = self.deflate;
        self.append(|frames| compression::write_message(frames, opcode, payload, deflate));
    }

    /// How many bytes were ever appended.
    pub(super) fn appended(&self) -> u64 {
        self.appended
    }

    /// How many of them the stream has taken.
    pub(super) fn written(&self) -> u64 {
        self.appended - self.buffer.len() as u64
    }

    /// Writes to the stream; whether all of it went.
    pub(super) fn flush(&mut self, stream: &mut WebSocketStream) -> io::Result<bool> {
        let all = stream.flush(&mut self.buffer)?;
        if all && self.buffer.capacity() > self.keep_max {
            self.buffer = BytesMut::new();
        }
        Ok(all)
    }

    /// Drops what is not written.
    pub(super) fn clear(&mut self) {
        self.buffer = BytesMut::new();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Frees the buffer's memory if it is empty.
    pub(super) fn shrink(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// What is not written.
    pub(super) fn into_bytes(self) -> BytesMut {
        self.buffer
    }

    /// Puts the rest of a partly sent frame before everything else.
    pub(super) fn prepend(&mut self, rest: &[u8]) {
        if !rest.is_empty() {
            let mut bytes = BytesMut::from(rest);
            bytes.extend_from_slice(&self.buffer);
            self.buffer = bytes;
        }
    }
}
