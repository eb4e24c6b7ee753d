//! How an exchange can fail.

use super::credentials::{TicketFault, TokenFault};

/// Why an exchange cannot go on. Shows no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SaslError {
    /// There is nothing to authenticate with.
    #[error("there is no token: {0}")]
    NoToken(TokenFault),
    /// The same, of Kerberos.
    #[error("there is no ticket: {0}")]
    NoTicket(TicketFault),
    /// The broker's message is none of the mechanism's, or not that of this exchange.
    #[error("the broker's answer is none of {mechanism}: {reason}")]
    UnexpectedChallenge {
        mechanism: &'static str,
        reason: &'static str,
    },
    /// The broker refuses, in the words of the mechanism.
    #[error("{0}")]
    Refused(String),
}
