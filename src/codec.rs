//! What travels over the sockets, as text, and what it is in Kafka.
//!
//! ```text
//!  frame ─▶ inbound ─▶ key, value, headers as Kafka's bytes ─▶ producer
//!  acknowledgement, refusal ─▶ answer ─▶ frame
//!
//!  fetched record ─▶ outbound ─▶ frame
//!  frame ─▶ commit ─▶ which record is done with
//! ```
//!
//! `format` turns one typed value into bytes and back; `json` is the scanner and the
//! writer of strings under all of them.
//!
//! # Invariants
//! - No document is built: a frame is scanned, and what is kept of it are slices of it.
//! - JSON values pass through as the text they came as, both ways.
//! - Every record can be written out. One that is not what its type says goes out as
//!   bytes with an error beside it.

pub mod answer;
pub mod commit;
pub mod format;
pub mod inbound;
pub mod json;
pub mod outbound;

pub use answer::Code;
pub use format::{Format, Types};
