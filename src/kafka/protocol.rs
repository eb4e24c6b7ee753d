//! Kafka's messages: which versions are spoken, and whether a message is what it says.

pub(crate) mod schema;
pub mod versions;
