//! Avro's wrapper messages, which are binary frames: the alternative to `json`'s.
//!
//! ```text
//! /socket/in    AvroProducerRecord ─▶ …  ─▶ AvroProducerResult
//! /socket/out   AvroCommit ─▶ …           … ─▶ AvroConsumerRecord
//! ```

pub(crate) mod wrapper_schema;
