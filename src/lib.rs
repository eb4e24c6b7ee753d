//! A WebSocket front for Apache Kafka that speaks the broker protocol itself.
//!
//! # The map
//!
//! ```text
//! main            timeline: flags, log, config, listen, run, exit code
//! cli, config     flag → variable → file → default; one table of keys
//! first_steps     what --dev prints: a page to open, commands to paste
//! server, cors    accepts connections, checks origins, authenticates, routes, stops in order
//! metrics_reporter sends the metrics to a topic, for OpenTelemetry's collector
//! routes, socket  the endpoints: plain HTTP; /socket/in and /socket/out
//! app             what the endpoints share: Kafka clients, the sessions, stopping
//! dynamic_limits  limits that change while the proxy runs, the same on all nodes
//! quotas          how many records a client may write and a group read in a second
//! session         who is connected: the sockets of this node, groups' places over all nodes
//! auth            whether a client may connect, and which Kafka user its request is for
//! state_log       a compacted topic that the nodes of a deployment share
//! topic_access    which topics clients may read and write
//! healthcheck     asks a running instance whether it lives
//! avro_schemas    which schemas Avro messages are written with; asks the schema registry
//! broker_resolution which bootstrap hosts have no address
//! log             lines on standard error, which hold up nobody
//! metrics         every metric's name, unit, labels and help; what is counted of sockets
//! codec           JSON and Avro messages, typed values ⇄ bytes
//! http_error      a request that is not served, as a response
//! http_keep_alive how long a connection may wait for a request
//! http_stream     a client's connection: TCP, or TLS over it
//! descriptors     how many connections there may be
//! near_miss       names that were meant as another one
//! user_token      the token of a client, as the brokers are shown it
//! ```
//!
//! A module uses only modules of lower rows, which `proto-tests/layers.rs` checks. All of them
//! may use the crates in `src/`, which depend on each other only as far as their manifests say:
//!
//! ```text
//! src/broker      the in-memory broker of --dev and of the tests
//! src/kafka       the client layer: connections, metadata, records, producer, fetcher, groups
//! src/websocket   RFC 6455 and 7692: the opening handshake, frames, compression, without I/O
//! src/registry    the client of Confluent's schema registry
//! src/kerberos    tickets for brokers: keytabs, KDCs, contexts of the GSS-API
//! src/oauth       where bearer tokens for brokers come from
//! src/openid      whether the bearer token of a client is good
//! src/https       small requests over HTTP and HTTPS
//! src/tls         key and trust stores, and what TLS checks of a peer
//! src/secret      texts and bytes that never print
//! src/runtime     waking a task; which panics end the process, which only their task
//! src/alloc       the static binary's allocator, the only unsafe code
//! ```
//!
//! # Two ways through
//!
//! ```text
//! in:   frame ─▶ codec ─▶ kafka_client::producer (memory, partitioner, batch, sender) ─▶ broker
//!         pending acks, in order ◀─────────── delivery futures ◀───────────────────────────┘
//!
//! out:  broker ─▶ kafka_client::fetcher (tail or catch-up) ─▶ chunk, decoded once
//!         socket ◀─ frames, encoded once per format ◀─ cursor of each socket ◀─┘
//!           └─ what the kernel took ─▶ kafka_client::consumer ─▶ its group's commits
//! ```
//!
//! # Glossary
//!
//! The other words are those of Kafka's Java client, the KIPs, RFC 6455 and tokio.
//!
//! - **Socket**: a WebSocket connection from its upgrade on. A *producing socket* is one on
//!   `/socket/in`, a *consuming socket* one on `/socket/out`.
//! - **Connection permit, group permit**: one of the sockets that the process, or a consumer group
//!   over all nodes, may have; held by a socket until it closes.
//! - **Place**: a group permit as the session topic has it, written there as a claim.
//!   **Incarnation**: one life of a node under its server id.
//! - **Cursor**: the position of one reader in one partition, and what it reads on with.
//! - **Tail**: one fetch that waits at a broker on behalf of all cursors near the end of its
//!   partitions. **Catch-up**: a fetch for the cursors that lag more.
//! - **Chunk**: what one fetch brought of a partition, decoded once for all cursors that read
//!   there. **Tail cache**: the newest chunks of a partition.
//! - **Handover fetch**: a fetch without wait, every 20 ms on a catch-up connection, that extends
//!   the tail cache of a partition until the tail fetches it: a partition that is added to a fetch
//!   session waits out the long poll in flight.
//! - **Pending acks**: the acknowledgements that a producing socket still owes its client, in the
//!   order of the records.

pub mod app;
mod auth;
mod avro_schemas;
pub mod broker_resolution;
pub mod cli;
mod codec;
pub mod config;
mod cors;
pub mod descriptors;
mod dynamic_limits;
pub mod first_steps;
pub mod healthcheck;
mod http_error;
mod http_keep_alive;
mod http_stream;
pub mod log;
mod metrics;
mod metrics_reporter;
mod near_miss;
mod quotas;
mod routes;
pub mod server;
mod session;
mod socket;
mod state_log;
mod topic_access;
mod user_token;
