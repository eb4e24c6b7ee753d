//! The native Kafka client: everything between the proxy and the brokers.
//!
//! ```text
//! client ─┬▶ producer ─────────────┐           ┌▶ metadata   brokers, topics, leaders
//!         └▶ consumer ─┬▶ fetcher ─┼▶ cluster ─┼▶ net        connections, frames
//!                      └▶ group ───┘           └▶ protocol   versions and schemas
//! ```
//!
//! Produce and Fetch carry the batches of [`record`]. Nothing here knows of WebSockets, JSON
//! or HTTP.

pub mod admin;
pub mod backoff;
pub mod client;
mod cluster;
pub mod config;
pub mod consumer;
mod error;
#[cfg(test)]
#[allow(dead_code)] // the scripts of all tests
mod fake;
pub mod fetcher;
pub mod group;
mod hedged;
mod isolation_level;
pub mod metadata;
pub mod metrics;
pub mod net;
mod principal;
pub mod principal_clients;
pub mod producer;
pub mod protocol;
pub mod record;
pub mod sasl;
pub mod security;
mod topic;

pub use cluster::Cluster;
pub use error::{AuthenticationFault, RequestError};
pub use isolation_level::IsolationLevel;
pub use metadata::Metadata;
pub use net::connection::{Connection, ResponseFuture};
pub use net::pool::ConnectionPurpose;
pub use principal::Principal;
pub use producer::{DeliveryFuture, ProduceError, Producer, RecordMetadata};
pub(crate) use topic::TopicIdentity;
pub use topic::{BrokerId, TopicPartition};
