//! What the proxy tells of itself: which metrics there are, and how they are written.
//!
//! ```text
//! sockets, topics ─ Counter, Gauge ─┐
//! kafka_client::metrics ────────────┼─ read when asked ─▶ MetricsSnapshot ─┬▶ text ─▶ /metrics
//! /proc/self ───────────────────────┘                                      └▶ otlp ─▶ metrics_reporter
//! ```
//!
//! # Invariants
//! - `table` names every metric, with its unit, its labels and what it means; the README has that
//!   table, and what is not in it cannot be told.
//! - Counting is a relaxed atomic per turn of a socket, batch or request, through handles that whoever
//!   counts holds: no locks, no look-ups, no allocation.
//! - The number of series is bounded: a label has few values, or, if it is a topic,
//!   `server.limits.metrics-topics-max`.

pub(crate) mod otlp;
pub(crate) mod process;
pub(crate) mod snapshot;
pub(crate) mod sockets;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod topics;
