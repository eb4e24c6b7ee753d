//! Kerberos for Kafka clients (RFC 4120, RFC 4121): what `sasl.mechanism=GSSAPI` authenticates
//! with.
//!
//! ```text
//! authentication ─▶ KeytabLogin ─ good ─▶ the ticket for that broker ─▶ gss: a context, and what
//!                       │                                               is wrapped in it
//!                       │ one question at a time for all who ask; again before a ticket expires
//!                       ▼
//!                   exchanges ─▶ kdc: requests and answers ─▶ messages: ASN.1
//!                       │   └──▶ kdc_client: TCP                  └─▶ crypto: AES
//!                       ├──▶ keytab: the keys, read anew at each login
//!                       └──▶ krb5_conf: realms, and where their KDCs are
//! ```
//!
//! # Invariants
//! - A question is under way once at most, and after a failure none before a growing wait is over.
//! - A question ends in time, whatever a KDC does, and its answer is bounded.
//! - No key and no ticket is in an error, a log or what `Debug` shows; keys are wiped.

mod context;
mod crypto;
mod exchanges;
#[cfg(test)]
mod fake;
mod fault;
mod gss;
mod kdc;
mod kdc_client;
mod keytab;
mod krb5_conf;
mod krb5_files;
mod login;
mod messages;
mod principal;
mod random;
mod state;
mod ticket;

pub use self::krb5_conf::Krb5Conf;
pub use self::krb5_files::read_krb5_conf;
pub use self::login::{KeytabLogin, LoginSettings};
pub use self::state::TicketRenewal;
