//! Record batches: the bytes inside Produce and Fetch.
//!
//! ```text
//! NewRecord ──▶ RecordBatchBuilder ──▶ RecordBatch ──▶ Produce
//!                      │ compression │
//! Record ◀── DecodedRecords ◀──── decode() ◀────────── Fetch
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
mod batch_builder;
mod compression;
mod decoder;
mod default_record;
mod error;
pub mod header;
mod legacy_record;
mod partial_batch;
mod partial_wrapper;
mod records;
#[cfg(test)]
mod tests;
mod varint;

pub use aborted::AbortedTransaction;
pub(crate) use batch_builder::batch_size_of;
pub use batch_builder::{NewHeader, NewRecord, RecordBatch, RecordBatchBuilder};
pub(crate) use decoder::decode_parts;
pub use decoder::{CutRecords, DecodeOptions, DecodedRecords, decode};
pub use error::RecordError;
pub use header::{BatchAttributes, BatchHeader};
pub(crate) use partial_batch::PartialBatch;
pub use records::{
    DecodedBatch, HeaderIter, Headers, Record, Records, RecordsMark, UnreadableRecords,
};
