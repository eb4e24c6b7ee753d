//! A client of schema registries that speak Confluent's REST API: ids of schemas, and schemas of
//! ids.
//!
//! ```text
//! register, look_up, schema ─▶ LookupCache ─ known ────────────────────────▶ answer
//!                                  │ one request for all who ask the same
//!                                  ▼
//!                              RegistryRequests ─▶ the URL that answered last
//!                                  └─ it fails ──▶ the next one, at most once around
//! ```
//!
//! It knows nothing of what its schemas are for.
//!
//! # Invariants
//! - What is known is asked for once; the cache is bounded. What failed is not asked for again for
//!   a second.
//! - Every request ends in time, whatever the registry does.
//! - A secret is in no error and no log, nor in what `Debug` shows.

mod cache;
mod client;
mod config;
mod error;
mod requests;

pub use client::SchemaRegistryClient;
pub use config::{CredentialsSource, RegistryUrl, SchemaRegistryConfig, UserInfo};
pub use error::SchemaRegistryError;
