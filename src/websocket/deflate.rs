//! `permessage-deflate` (RFC 7692): messages that are compressed, each by itself.
//!
//! ```text
//! Sec-WebSocket-Extensions: an offer, another one ─▶ negotiate ─▶ PermessageDeflate, the answer
//!
//! message ─▶ Compressor ─▶ payload of a frame with RSV1     shorter than the message, or there is none
//! payloads of a message whose first frame has RSV1 ─▶ inflate ─▶ message     within the limit
//! ```
//!
//! Always negotiated is `server_no_context_takeover`: a message that is compressed by itself is one
//! for all clients. And `client_no_context_takeover`, which a server may demand (section 7.1.1.2):
//! otherwise each client that ever sent a compressed message would take a window of 32 KiB.
//!
//! # Invariants
//! - A connection owns no memory for compression. What compresses and inflates is taken from a few
//!   that are kept, for one message.
//! - Compressing a message again gives the same bytes.
//! - Inflating takes no more memory than the limit of a message, however much would come of it.

mod compressor;
mod inflater;
mod offer;
mod spare;

use http::header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_EXTENSIONS};

pub(crate) use compressor::Compressor;
pub(crate) use inflater::{InflateError, compressed_bytes_max, inflate};

/// The parameters of a connection that compresses messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PermessageDeflate {
    /// Of the window that we compress with; the client has no larger one. 9 to 15.
    window_bits: u8,
}

/// What a message is worth compressing from: the frame header, the block header and the codes that
/// every message begins with again eat up what a shorter one could save.
pub(crate) const COMPRESSED_BYTES_MIN: usize = 256;

impl PermessageDeflate {
    /// Takes the first offer of a request's headers that can be served, and gives the value of
    /// `Sec-WebSocket-Extensions` that answers it. `None`: there is none, and no such header is to
    /// be sent; messages are as they are then.
    pub fn negotiate(request: &HeaderMap) -> Option<(Self, HeaderValue)> {
        let headers = request.get_all(SEC_WEBSOCKET_EXTENSIONS).iter();
        let texts = headers.filter_map(|value| value.to_str().ok());
        let offer = texts.flat_map(offer::acceptable).next()?;
        let answer = format!(
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover{}",
            match offer.server_max_window_bits {
                Some(bits) => format!("; server_max_window_bits={bits}"),
                None => String::new(),
            }
        );
        let deflate = Self {
            window_bits: offer
                .server_max_window_bits
                .unwrap_or(offer::WINDOW_BITS_MAX),
        };
        Some((deflate, HeaderValue::try_from(answer).ok()?))
    }

    /// What compresses one message after another.
    pub(crate) fn compressor(self) -> Compressor {
        Compressor::with_window(self.window_bits)
    }
}

#[cfg(test)]
mod tests;
