//! A ticket, and the key that goes with it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use secret::SecretBytes;

use crate::crypto::{EncryptionType, KerberosKey};
use crate::principal::KerberosPrincipal;

/// A ticket as a KDC gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IssuedTicket {
    pub(crate) client: KerberosPrincipal,
    /// Whom it is for.
    pub(crate) server: KerberosPrincipal,
    /// As it is sent on: what it says is for the server alone.
    pub(crate) encoded: SecretBytes,
    pub(crate) session_key: KerberosKey,
    pub(crate) ends_at: SystemTime,
}

/// A ticket that was just given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewTicket {
    pub(crate) ticket: Arc<IssuedTicket>,
    /// From now on.
    pub(crate) lifetime: Duration,
}

impl NewTicket {
    pub(crate) fn new(ticket: IssuedTicket, now: SystemTime) -> Self {
        let lifetime = ticket.ends_at.duration_since(now).unwrap_or_default();
        Self {
            ticket: Arc::new(ticket),
            lifetime,
        }
    }
}

/// What is asked for, and how the answer is known.
#[derive(Clone, Debug)]
pub(crate) struct TicketRequest<'a> {
    pub(crate) server: &'a KerberosPrincipal,
    /// The types of encryption that may be used.
    pub(crate) kinds: &'a [EncryptionType],
    /// Random: the answer has it, encrypted.
    pub(crate) nonce: u32,
}
