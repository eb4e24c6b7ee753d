//! A WebSocket front for Apache Kafka that speaks the broker protocol itself.
//!
//! # The map
//!
//! ```text
//! main            timeline: flags, log, config, listen, run, exit code
//! cli, config     flag → variable → default; one table of keys
//! server          accepts, routes, drains
//! http, socket    the endpoints: status and refusals; /socket/in and /socket/out
//! app             what the endpoints share: Kafka clients, who is connected, stopping
//! codec           JSON messages, typed values ⇄ bytes
//! broker          the in-memory broker of --dev and of the tests
//! kafka           the client layer: connections, metadata, records, produce, fetch, groups
//! bell            wakes one task
//! guard, refusal  what a panic ends; what HTTP says no with
//! secret, alloc   strings that never print; the static binary's allocator
//! ```
//!
//! A module uses only what stands below it; `proto-tests/layers.rs` reads the sources and
//! holds the order.
//!
//! # Two ways through
//!
//! ```text
//! in:   frame ─▶ codec ─▶ kafka::produce (budget, partitioner, batch, lane) ─▶ broker
//!         ordered answers ◀──────────────── tickets ◀──────────────────────────┘
//!
//! out:  broker ─▶ kafka::fetch (tail or catch-up) ─▶ chunk, decoded once ─▶ ring
//!         socket ◀─ frames, encoded once per format ◀─ cursor of each socket ◀─┘
//!           └─ what the kernel took ─▶ kafka::consumer ─▶ kafka::group commits
//! ```

#[cfg(target_os = "linux")]
pub mod alloc;
pub mod app;
pub mod bell;
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
