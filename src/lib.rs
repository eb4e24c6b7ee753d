//! A WebSocket front for Apache Kafka that speaks the broker protocol itself.
//!
//! Layers, each of which may use only what stands to its right:
//!
//! ```text
//! main → server → http, socket → codec → kafka
//!                                broker (the in-memory broker, stands alone)
//! ```

pub mod broker;
pub mod codec;
pub mod kafka;
pub mod socket;
