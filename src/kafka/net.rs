//! Connections to brokers: bytes, frames, one connection, all connections of a principal.

mod api_versions;
pub mod connection;
pub(crate) mod frame;
pub mod pool;
mod transport;

pub use frame::decode_request;
