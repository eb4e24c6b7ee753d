//! Connections to brokers: bytes, frames, one connection, all connections of a principal.

mod api_versions;
mod authentication;
pub(crate) mod cluster_check;
pub(crate) mod connection;
pub(crate) mod current_cluster;
pub(crate) mod frame;
mod last_answer;
pub(crate) mod pool;
pub(crate) mod transport;

pub use frame::decode_request;
