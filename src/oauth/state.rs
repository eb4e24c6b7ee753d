//! What is known of the token, and what is to be done about it. Pure: time is passed in.
//!
//! ```text
//! nothing ─ fetch ─▶ good ── refresh_at ──▶ good, being renewed ── expires_at ─▶ nothing
//!    ▲ │ fails: not before a wait is over             │ fails: the same
//!    └─┘                                              └─▶ good as before
//! ```

use std::time::Duration;

use kafka_client::backoff::ExponentialBackoff;
use kafka_client::sasl::{BearerToken, TokenFault};
use tokio::time::Instant;

use crate::refresh::RefreshWindow;

/// A token as it was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FetchedToken {
    pub(crate) token: BearerToken,
    /// From the fetch on.
    pub(crate) lifetime: Duration,
}

/// What whoever needs a token has to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TokenStep {
    Use(BearerToken),
    Fetch,
    /// It is too early for another attempt.
    Fail(TokenFault),
}

#[derive(Debug)]
pub(crate) struct TokenState {
    window: RefreshWindow,
    current: Option<CurrentToken>,
    /// The last fetch's, if it failed.
    failure: Option<FetchFailure>,
    backoff: ExponentialBackoff,
}

#[derive(Debug)]
struct CurrentToken {
    token: BearerToken,
    refresh_at: Instant,
    expires_at: Instant,
}

#[derive(Debug)]
struct FetchFailure {
    fault: TokenFault,
    not_before: Instant,
}

impl TokenState {
    pub(crate) fn new(window: RefreshWindow, backoff: ExponentialBackoff) -> Self {
        Self {
            window,
            current: None,
            failure: None,
            backoff,
        }
    }

    /// What is to be done by someone who authenticates now.
    pub(crate) fn step(&self, now: Instant) -> TokenStep {
        match (&self.current, &self.failure) {
            (Some(current), _) if now < current.expires_at => TokenStep::Use(current.token.clone()),
            (_, Some(failure)) if now < failure.not_before => {
                TokenStep::Fail(failure.fault.clone())
            }
            _ => TokenStep::Fetch,
        }
    }

    /// When the token is to be renewed; `None` while there is none: then whoever needs one fetches
    /// it.
    pub(crate) fn refresh_at(&self) -> Option<Instant> {
        let due = self.current.as_ref()?.refresh_at;
        let not_before = self.failure.as_ref().map(|failure| failure.not_before);
        Some(not_before.map_or(due, |not_before| due.max(not_before)))
    }

    /// Notes a token; `unit` is random, in `0.0..1.0`.
    pub(crate) fn fetched(&mut self, fetched: FetchedToken, now: Instant, unit: f64) {
        self.failure = None;
        self.backoff.succeeded();
        self.current = Some(CurrentToken {
            token: fetched.token,
            refresh_at: now + self.window.refresh_after(fetched.lifetime, unit),
            expires_at: now + fetched.lifetime,
        });
    }

    /// Notes a failure; returns whether it is another one than before.
    pub(crate) fn failed(&mut self, fault: TokenFault, now: Instant) -> bool {
        let failure = FetchFailure {
            not_before: now + self.backoff.after_failure(),
            fault,
        };
        let before = self.failure.replace(failure);
        before.map(|before| before.fault) != self.failure.as_ref().map(|new| new.fault.clone())
    }

    /// How long the token is still good, if there is one.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        let current = self.current.as_ref()?;
        current.expires_at.checked_duration_since(now)
    }

    /// Forgets a token that a broker has refused.
    pub(crate) fn refused(&mut self, token: &BearerToken) {
        self.current.take_if(|current| current.token == *token);
    }
}

#[cfg(test)]
mod tests {
    use secret::Secret;

    use super::*;

    const WAIT: Duration = Duration::from_secs(1);

    fn state() -> TokenState {
        let backoff = ExponentialBackoff::new(WAIT, 10 * WAIT);
        TokenState::new(RefreshWindow::default(), backoff)
    }

    fn token(text: &str) -> BearerToken {
        BearerToken {
            token: Secret::new(text),
            extensions: [].into(),
        }
    }

    fn fetched(text: &str, seconds: u64) -> FetchedToken {
        FetchedToken {
            token: token(text),
            lifetime: Duration::from_secs(seconds),
        }
    }

    fn fault(text: &str) -> TokenFault {
        TokenFault {
            message: text.into(),
            property: "x",
        }
    }

    #[test]
    fn a_token_is_used_until_it_expires_and_renewed_before() {
        let (mut state, start) = (state(), Instant::now());
        assert_eq!(state.step(start), TokenStep::Fetch);
        assert_eq!(state.refresh_at(), None);
        state.fetched(fetched("a", 100), start, 0.0);
        let last = start + Duration::from_secs(99);
        assert_eq!(state.step(last), TokenStep::Use(token("a")));
        assert_eq!(state.refresh_at(), Some(start + Duration::from_secs(80)));
        assert_eq!(state.step(last + WAIT), TokenStep::Fetch);
    }

    #[test]
    fn a_failed_renewal_is_tried_again_after_a_wait_while_the_token_is_used() {
        let (mut state, start) = (state(), Instant::now());
        state.fetched(fetched("a", 100), start, 0.0);
        let at = start + Duration::from_secs(80);
        assert!(state.failed(fault("down"), at));
        assert_eq!(state.step(at), TokenStep::Use(token("a")));
        assert!(state.refresh_at() > Some(at));
        assert!(!state.failed(fault("down"), at + 2 * WAIT));
        assert_eq!(state.left(at), Some(Duration::from_secs(20)));
        // When it has expired, the wait still holds.
        let end = start + Duration::from_secs(100);
        assert!(state.failed(fault("refused"), end));
        assert_eq!(state.step(end), TokenStep::Fail(fault("refused")));
        assert_eq!(state.step(end + 10 * WAIT), TokenStep::Fetch);
        state.fetched(fetched("b", 100), end, 0.0);
        assert_eq!(state.step(end), TokenStep::Use(token("b")));
    }

    #[test]
    fn a_token_that_was_refused_is_not_used_again() {
        let (mut state, start) = (state(), Instant::now());
        state.fetched(fetched("a", 100), start, 0.0);
        state.refused(&token("older"));
        assert_eq!(state.step(start), TokenStep::Use(token("a")));
        state.refused(&token("a"));
        assert_eq!(state.step(start), TokenStep::Fetch);
    }
}
