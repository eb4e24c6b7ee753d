//! Kafka's messages: their schemas, and which versions are sent.

pub mod schema;
pub mod versions;
