//! Record batches: the bytes inside Produce and Fetch.
//!
//! ```text
//! NewRecord ──▶ writer::RecordBatchBuilder ──▶ Batch ──▶ Produce
//!                      │ compression │
//! Record ◀── Decoded ◀── reader::decode ◀────────── Fetch
//! ```
//!
//! We write magic 2 (KIP-98) only and read 0, 1 and 2. Brokers store what producers
//! sent, so what is read here was made by anyone: every length and count is checked
//! against the bytes that are there before it is used.
//!
//! # Invariants
//! - Nothing is allocated by the size that a length or count field claims.
//! - A [`Record`] borrows from the fetched or decompressed buffer.
//! - Control records and aborted records never leave this module.

mod aborted;
pub mod compression;
pub mod error;
pub mod header;
mod old;
pub mod reader;
mod records;
#[cfg(test)]
mod tests;
mod varint;
mod wire;
pub mod writer;

pub use aborted::AbortedTransaction;
pub use error::RecordError;
pub use header::{BatchAttributes, BatchHeader};
pub use reader::{DecodeOptions, DecodedBatch, DecodedRecords, decode};
pub use records::{HeaderIter, Headers, Record, Records};
pub use writer::{NewHeader, NewRecord, RecordBatch, RecordBatchBuilder, batch_size_of};
