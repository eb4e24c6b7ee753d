//! The native Kafka client: everything between us and the brokers.
//!
//! Nothing here knows of WebSockets, JSON or HTTP.

pub mod admin;
pub mod backoff;
pub mod client;
pub mod cluster;
pub mod config;
pub mod connection;
pub mod consumer;
pub mod error;
#[cfg(test)]
#[allow(dead_code)] // the scripts of all tests
mod fake;
pub mod fetch;
pub(crate) mod frame;
pub mod group;
mod handshake;
mod lock;
pub mod metadata;
pub mod pool;
pub mod principal;
pub mod produce;
pub mod record;
mod shape;
pub mod topic;
mod transport;
pub mod versions;

pub use cluster::Cluster;
pub use connection::{Connection, Reply};
pub use error::RequestError;
pub use metadata::Metadata;
pub use pool::{Isolation, Lane};
pub use principal::Principal;
pub use produce::{Ack, ProduceError, Producer, Ticket};
pub use topic::{BrokerId, TopicPartition};
