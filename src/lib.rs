//! A WebSocket front for Apache Kafka that speaks the broker protocol itself.
//!
//! # The map
//!
//! ```text
//! main            timeline: flags, log, config, listen, run, exit code
//! cli, config     flag → variable → default; one table of keys
//! server, cors    accepts, checks origins, drains
//! routes, socket  the endpoints: plain HTTP; /socket/in and /socket/out
//! app             what the endpoints share: Kafka clients, the open sockets, stopping
//! codec           JSON messages, typed values ⇄ bytes
//! http_error      a refused request as a response
//! secret          texts that never print
//! ```
//!
//! A module uses only what stands below it; `proto-tests/layers.rs` reads the sources and
//! holds the order. Below them all stand crates of their own, whose walls Cargo holds:
//!
//! ```text
//! src/broker      the in-memory broker of --dev and of the tests
//! src/kafka       the client layer: connections, metadata, records, producer, fetcher, groups
//! src/websocket   RFC 6455: the opening handshake and frames, without I/O
//! src/runtime     waking one task, and what a panic ends
//! src/alloc       the static binary's allocator, the only unsafe code
//! ```
//!
//! # Two ways through
//!
//! ```text
//! in:   frame ─▶ codec ─▶ kafka_client::producer (memory, partitioner, batch, sender) ─▶ broker
//!         ordered answers ◀─────────── delivery futures ◀──────────────────────┘
//!
//! out:  broker ─▶ kafka_client::fetcher (tail or catch-up) ─▶ chunk, decoded once ─▶ ring
//!         socket ◀─ frames, encoded once per format ◀─ cursor of each socket ◀─┘
//!           └─ what the kernel took ─▶ kafka_client::consumer ─▶ its group commits
//! ```

pub mod app;
pub mod cli;
mod codec;
pub mod config;
mod cors;
mod http_error;
mod http_keep_alive;
mod routes;
mod secret;
pub mod server;
mod socket;
