//! `permessage-deflate` on sockets: what is negotiated, and what is long of it.
//!
//! ```text
//! from the client: CompressedMessage ─▶ inflate ─┬ up to 64 KiB ─▶ at once
//!                                                └ more ─▶ waits for its turn, then all of it
//! to the client:   acks, arrays ─▶ write_message ─┬ up to 64 KiB ─▶ compressed at once
//!                                                 └ more ─▶ compressed, or plain where all
//!                                                           processors compress such ones
//!                  records ─▶ the segments of their chunk, compressed for all who read it
//! ```

use bytes::BytesMut;
use http::HeaderMap;
use http::header::SEC_WEBSOCKET_EXTENSIONS;

use super::stream::MessageLimits;
use crate::config::WebSocketConfig;
use runtime::long_work::LongWork;
use websocket::deflate::PermessageDeflate;
use websocket::frame::{
    self, CloseCode, CompressedMessage, Opcode, ProtocolViolation, WebSocketMessage,
};

/// What is inflated or compressed without holding up the other tasks of the worker.
const AT_ONCE_BYTES_MAX: usize = 64 << 10;

/// Inflating long messages, of all sockets.
static LONG_INFLATIONS: LongWork = LongWork::from_bytes(AT_ONCE_BYTES_MAX + 1);
/// Compressing long messages that are for one socket only.
static LONG_COMPRESSIONS: LongWork = LongWork::from_bytes(AT_ONCE_BYTES_MAX + 1);

/// What the messages of a socket may be, with compression where the request offers it and it is
/// switched on: then the response says so.
pub(super) fn negotiate(
    config: &WebSocketConfig,
    request: &HeaderMap,
    response: &mut HeaderMap,
) -> MessageLimits {
    let offered = config
        .compression
        .then(|| PermessageDeflate::negotiate(request));
    let (deflate, answer) = offered.flatten().unzip();
    if let Some(answer) = answer {
        response.insert(SEC_WEBSOCKET_EXTENSIONS, answer);
    }
    MessageLimits {
        bytes_max: config.max_message_size,
        deflate,
    }
}

/// About how many bytes inflate in the time that one byte takes which none comes of: of a client that
/// sends empty blocks, or blocks with codes of their own.
const EMPTY_BLOCKS: usize = 4;

/// What inflating a message takes, as bytes that come of it.
pub(super) fn inflating_bytes(compressed_len: usize, inflated_len: usize) -> usize {
    inflated_len.max(compressed_len.saturating_mul(EMPTY_BLOCKS))
}

/// The message, of at most `bytes_max`. A short one is inflated at once. How long it is shows only
/// then, so that of a long one the beginning is inflated twice.
pub(super) async fn inflate(
    message: CompressedMessage,
    bytes_max: usize,
) -> Result<WebSocketMessage, ProtocolViolation> {
    let at_once = bytes_max.min(AT_ONCE_BYTES_MAX);
    let known = inflating_bytes(message.compressed_len(), 0);
    if !LONG_INFLATIONS.is_long(known) {
        match message.inflate(at_once) {
            Err(long) if long.code == CloseCode::MESSAGE_TOO_BIG && at_once < bytes_max => {}
            inflated => return inflated,
        }
    }
    let inflate = || message.inflate(bytes_max);
    LONG_INFLATIONS.run(bytes_max.max(known), inflate).await
}

/// Writes a message that is for one socket only.
pub(super) fn write_message(
    out: &mut BytesMut,
    opcode: Opcode,
    payload: &[u8],
    deflate: Option<PermessageDeflate>,
) {
    let write = |deflate| frame::write_message(out, opcode, payload, deflate);
    compress_if_possible(payload.len(), deflate, write);
}

/// Ends the frame of a message that is for one socket only.
pub(super) fn end_message(
    out: &mut BytesMut,
    start: usize,
    opcode: Opcode,
    deflate: Option<PermessageDeflate>,
) {
    let bytes = out.len() - start;
    let end = |deflate| frame::end_message(out, start, opcode, deflate);
    compress_if_possible(bytes, deflate, end);
}

/// Lets `write` compress so many bytes, unless that is long and the processors have enough of it.
fn compress_if_possible(
    bytes: usize,
    deflate: Option<PermessageDeflate>,
    write: impl FnOnce(Option<PermessageDeflate>),
) {
    match deflate.and_then(|_| LONG_COMPRESSIONS.try_begin(bytes)) {
        None => write(None),
        Some(work) => work.run(|| write(deflate)),
    }
}
