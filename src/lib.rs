//! A WebSocket front for Apache Kafka that speaks the broker protocol itself.
//!
//! Layers, each of which may use only what stands to its right:
//!
//! ```text
//! main → server → http, socket → codec → kafka
//!                                broker (the in-memory broker, stands alone)
//! ```

#[cfg(target_os = "linux")]
pub mod alloc;
pub mod app;
pub mod broker;
pub mod cli;
pub mod codec;
pub mod config;
pub mod guard;
pub mod http;
pub mod kafka;
pub mod refusal;
pub mod secret;
pub mod server;
pub mod socket;
