//! What is known of the provider, and when it is asked. Pure: time is passed in.
//!
//! ```text
//! nothing known ─ fetch ─▶ known ── interval, or an unknown kid ──▶ fetch ─┬─▶ known
//!        ▲          │ fails: again after a second                          │ fails: the same
//!        └──────────┘                                                      └─▶ known as before
//! ```
//!
//! # Decisions
//! - A key that a fetch has not brought is not asked for again within ten seconds of one that was
//!   made for such a key. Regular fetches do not count: a key that came right after one is found.
//! - While the provider fails it is asked every second, but a failure counts towards the limit once
//!   per interval: the limit is about how long keys may go unchecked.
//! - At the limit the keys are forgotten, not only the sockets closed: their clients would come back
//!   with the same tokens.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::algorithm::JwsAlgorithm;
use crate::discovery::ProviderMetadata;
use crate::error::{JwtFault, VerifyError};
use crate::key_set::{KeyMatch, KeySet, ProviderKey};

/// How long an unknown key is not asked for after one was.
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(10);
/// How long after a failure the provider is asked again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What is to be done with a token.
#[derive(Debug)]
pub(crate) enum KeyStep {
    /// Any of these keys may have signed it.
    Try(Vec<Arc<ProviderKey>>),
    /// The fetch that is due, or under way, may bring the key.
    Wait,
    /// Nothing.
    Refuse(VerifyError),
}

/// What a token says of its signature and who made it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SignerHint<'a> {
    pub(crate) issuer: Option<&'a str>,
    pub(crate) key_id: Option<&'a str>,
    pub(crate) algorithm: JwsAlgorithm,
}

/// What a fetch has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FetchEffect {
    /// The provider answers, which it did not before.
    pub(crate) is_back: bool,
    /// The reason is another one than before.
    pub(crate) is_new_failure: bool,
    /// There are keys that verify nothing any more.
    pub(crate) has_withdrawn: bool,
    /// That is because it could not be asked for so long.
    pub(crate) limit_reached: bool,
}

#[derive(Debug)]
pub(crate) struct ProviderState {
    interval: Duration,
    /// `None`: there is none.
    errors_limit: Option<u32>,
    /// `None`: the provider has never answered.
    issuer: Option<String>,
    keys: KeySet,
    is_fetching: bool,
    /// When the next fetch begins.
    due: Instant,
    /// The last fetch's, if it failed.
    failure: Option<Arc<str>>,
    /// From when on a failure counts.
    counts_from: Instant,
    /// Those that counted, in a row.
    errors: u32,
    unknown_key_at: Option<Instant>,
}

impl ProviderState {
    /// Nothing is known; a fetch is due at once.
    pub(crate) fn new(interval: Duration, errors_limit: Option<u32>, now: Instant) -> Self {
        Self {
            interval,
            errors_limit,
            issuer: None,
            keys: KeySet::default(),
            is_fetching: false,
            due: now,
            failure: None,
            counts_from: now + interval,
            errors: 0,
            unknown_key_at: None,
        }
    }

    /// What to do with a token.
    pub(crate) fn step(&mut self, hint: SignerHint<'_>, now: Instant) -> KeyStep {
        let unavailable = |reason: &Arc<str>| {
            let reason = Arc::clone(reason);
            KeyStep::Refuse(VerifyError::Unavailable { reason })
        };
        match (&self.issuer, &self.failure) {
            (None, None) => return KeyStep::Wait,
            (None, Some(reason)) => return unavailable(reason),
            (Some(issuer), _) if hint.issuer != Some(issuer.as_str()) => {
                return KeyStep::Refuse(JwtFault::Issuer.into());
            }
            (Some(_), _) => {}
        }
        match self.keys.find(hint.key_id, hint.algorithm) {
            KeyMatch::Keys(keys) => KeyStep::Try(keys),
            KeyMatch::Fault(fault) => KeyStep::Refuse(fault.into()),
            KeyMatch::Unknown => match self.failure.clone() {
                Some(reason) => unavailable(&reason),
                None if self.is_fetching || self.ask_for_key(now) => KeyStep::Wait,
                None => KeyStep::Refuse(match hint.key_id {
                    Some(_) => JwtFault::UnknownKey.into(),
                    None => JwtFault::NoKeyId.into(),
                }),
            },
        }
    }

    /// Notes that a key has not signed what says so: the provider may have got a new one under an old
    /// name. Whether a fetch is due.
    pub(crate) fn suspect_keys(&mut self, now: Instant) -> bool {
        self.failure.is_none() && !self.is_fetching && self.ask_for_key(now)
    }

    /// Makes a fetch due, unless there was one for such a reason a short while ago.
    fn ask_for_key(&mut self, now: Instant) -> bool {
        let allowed = self
            .unknown_key_at
            .is_none_or(|at| now >= at + UNKNOWN_KEY_INTERVAL);
        if allowed {
            self.unknown_key_at = Some(now);
            self.due = now;
        }
        allowed || self.due <= now
    }

    /// When the next fetch begins.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// A fetch begins.
    pub(crate) fn begin_fetch(&mut self) {
        self.is_fetching = true;
    }

    /// A fetch has ended.
    pub(crate) fn end_fetch(
        &mut self,
        fetched: Result<ProviderMetadata, Arc<str>>,
        now: Instant,
    ) -> FetchEffect {
        self.is_fetching = false;
        match fetched {
            Ok(metadata) => self.succeed(metadata, now),
            Err(reason) => self.fail(reason, now),
        }
    }

    fn succeed(&mut self, metadata: ProviderMetadata, now: Instant) -> FetchEffect {
        self.due = now + self.interval;
        self.counts_from = self.due;
        self.errors = 0;
        let is_another = self
            .issuer
            .as_ref()
            .is_some_and(|issuer| *issuer != metadata.issuer);
        self.issuer = Some(metadata.issuer);
        // What another issuer has signed is not good any more, even with the same keys.
        let has_withdrawn = is_another && self.keys.clear();
        FetchEffect {
            is_back: self.failure.take().is_some(),
            has_withdrawn: self.keys.replace(metadata.keys) || has_withdrawn,
            ..FetchEffect::default()
        }
    }

    fn fail(&mut self, reason: Arc<str>, now: Instant) -> FetchEffect {
        self.due = now + RETRY_INTERVAL;
        let is_new_failure = self.failure.as_ref() != Some(&reason);
        self.failure = Some(reason);
        if now >= self.counts_from {
            self.errors = self.errors.saturating_add(1);
            self.counts_from = now + self.interval;
        }
        let limit_reached = self.errors_limit.is_some_and(|limit| self.errors >= limit);
        let has_withdrawn = limit_reached && self.keys.clear();
        FetchEffect {
            is_new_failure,
            has_withdrawn,
            limit_reached: has_withdrawn,
            ..FetchEffect::default()
        }
    }

    /// How many keys the provider has.
    pub(crate) fn keys_len(&self) -> usize {
        self.keys.len()
    }
}

#[cfg(test)]
mod tests;
