//! TLS of both sides: key and trust stores, certificates, and what is checked of a peer.
//!
//! ```text
//! file or inline PEM ─▶ store ─┬─ pem      certificates and keys as text
//!                              ├─ pkcs12   RFC 7292
//!                              └─ jks      Java's own format
//!                                 │
//!                                 ▼
//! client ◀── certificates and a key ──▶ server
//!     └──────────── provider ──────────────┘
//! ```
//!
//! A store is recognised by its content: the type that a setting declares is not asked.
//!
//! # Invariants
//! - No C: the cryptography is that of graviola, whose processor is asked for before its first use.
//! - No secret is in an error, nor in what `Debug` shows.
//! - What cannot be had is an error, never a weaker connection.

mod certificate;
mod client;
mod error;
mod jks;
mod pem;
mod pkcs12;
mod private_key;
mod protocol;
mod provider;
mod server;
mod server_verifier;
mod store;

pub use client::{ClientTlsConfig, TrustSource, trusting_anybody, trusting_nobody};
pub use error::{ClientTlsError, ServerTlsError, StoreFault, StorePlace, TlsError};
pub use protocol::{CipherSuites, ProtocolVersions};
pub use server::{ServerTls, ServerTlsConfig};
pub use store::{KeyStoreSource, StoreFile};
