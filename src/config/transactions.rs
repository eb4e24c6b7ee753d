//! `producer.exactly-once-enabled` and what belongs to it.

use std::time::Duration;

use super::value::{self, ParsedValue};

/// How clients may write in transactions.
#[derive(Clone, Debug)]
pub struct TransactionsConfig {
    /// Whether they may: `producer.exactly-once-enabled`.
    pub enabled: bool,
    /// What every transactional id begins with: `server.transactional-id-prefix`.
    pub id_prefix: String,
    /// After which time the brokers abort a transaction that is neither committed nor aborted:
    /// `transaction.timeout.ms`.
    pub timeout: Duration,
}

impl Default for TransactionsConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            id_prefix: "wsproxy-".to_owned(),
            // Java's is a minute, for which a client that vanished would hold up readers.
            timeout: Duration::from_secs(15),
        }
    }
}

/// Reads `server.transactional-id-prefix`.
pub(super) fn id_prefix(text: &str) -> ParsedValue<String> {
    let legal = (1..=ID_PREFIX_MAX).contains(&text.chars().count())
        && !text.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER);
    match legal {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "1 to {ID_PREFIX_MAX} characters, none of them a control character"
        )),
    }
}

/// Reads `transaction.timeout.ms`.
pub(super) fn timeout(text: &str) -> ParsedValue<Duration> {
    let millis = value::number(text, TIMEOUT_MS_MIN..=i32::MAX.into());
    millis.map(Duration::from_millis)
}

/// Characters of a prefix.
const ID_PREFIX_MAX: usize = 100;
/// A transaction must have the time to be committed. The most is left to the brokers
/// (`transaction.max.timeout.ms`).
const TIMEOUT_MS_MIN: i64 = 1_000;
