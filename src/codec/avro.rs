//! Avro's wrapper messages, which are binary frames: the alternative to `json`'s.
//!
//! ```text
//! /socket/in    AvroProducerRecord ─▶ inbound ─▶ producer
//!               AvroProducerResult ◀─ ack ◀──────┘
//!
//! /socket/out   fetched record ─▶ outbound ─▶ AvroConsumerRecord
//!               AvroCommit ─▶ commit ─▶ the record up to which to commit
//! ```
//!
//! `wire` has Avro's encoding, `framing` what stands in front of a datum; `writer_schema` reads
//! datums of other schemas than ours.
//!
//! # Invariants
//! - What is kept of a datum are slices of it.

pub(crate) mod ack;
pub(crate) mod commit;
pub(crate) mod framing;
#[cfg(test)]
mod fuzz;
pub(crate) mod inbound;
pub(crate) mod outbound;
#[cfg(test)]
mod tests;
mod wire;
pub(crate) mod wrapper_schema;
pub(crate) mod writer_schema;
