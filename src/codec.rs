//! Text messages, and what they are in Kafka.
//!
//! ```text
//!  message ─▶ inbound ─▶ key, value, headers as Kafka's bytes ─▶ producer
//!  RecordMetadata ─▶ ack ─▶ message
//!
//!  fetched record ─▶ outbound ─▶ message
//!  message ─▶ commit ─▶ the record up to which to commit
//!
//!  message, on either socket ─▶ command ─▶ message
//!
//!  what cannot be done, in either direction ─▶ socket_error ─▶ message
//! ```
//!
//! `avro` has the same messages in Avro's binary encoding.
//!
//! `format` turns one typed value into bytes and back; `json` is the scanner and the
//! writer of strings under all of them.
//!
//! # Invariants
//! - No document is built: a message is scanned, and what is kept of it are slices of it.
//! - JSON values pass through as the text they came as, both ways.
//! - Every record can be written out. One that is not of its format goes out as bytes
//!   with an error beside it.

pub(crate) mod ack;
pub(crate) mod avro;
pub(crate) mod command;
pub(crate) mod commit;
pub(crate) mod format;
#[cfg(test)]
mod fuzz;
pub(crate) mod inbound;
pub(crate) mod json;
pub(crate) mod outbound;
pub(crate) mod socket_error;

pub(crate) use format::{Format, RecordFormats};

use avro::framing::AvroFraming;

/// What the frames of a consuming socket are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum FrameFormat {
    /// Text frames, with keys and values in these formats.
    Json(RecordFormats),
    /// Binary frames.
    Avro(AvroFraming),
}
