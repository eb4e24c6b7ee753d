//! The native Kafka client: everything between us and the brokers.
//!
//! Nothing here knows of WebSockets, JSON or HTTP.

pub mod config;
pub mod record;
pub mod topic;

pub use topic::{BrokerId, TopicPartition};
