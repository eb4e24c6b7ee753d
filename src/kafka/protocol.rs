//! Kafka's messages: their schemas, and which versions are sent.

pub mod error_codes;
pub mod schema;
pub mod topics_by_id;
pub mod versions;
