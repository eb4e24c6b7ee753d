//! One token for all connections of a principal, renewed before it expires.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kafka_client::backoff::{ExponentialBackoff, random_unit};
use kafka_client::sasl::{BearerToken, TokenFault, TokenProvider};
use runtime::mutex::lock;
use tokio::sync::{self, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::refresh::RefreshWindow;
use crate::source::TokenSource;
use crate::state::{TokenState, TokenStep};

/// When a token is renewed, and how long one waits after a failure.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenRefresh {
    /// `sasl.login.refresh.*`
    pub window: RefreshWindow,
    /// `sasl.login.retry.backoff.ms`
    pub backoff: Duration,
    /// `sasl.login.retry.backoff.max.ms`
    pub backoff_max: Duration,
}

/// One token for all who ask, from one source.
#[derive(Debug)]
pub struct RefreshingTokenProvider {
    source: TokenSource,
    extensions: Arc<[(String, String)]>,
    /// Held by the one fetch that is under way.
    turn: sync::Mutex<()>,
    state: Mutex<TokenState>,
    /// Sent to when the state has changed.
    changed: watch::Sender<()>,
}

impl RefreshingTokenProvider {
    /// Fetches when it is first asked. `extensions` are those of SASL (KIP-342).
    pub fn new(
        source: TokenSource,
        extensions: Vec<(String, String)>,
        refresh: TokenRefresh,
    ) -> Self {
        let backoff = ExponentialBackoff::new(refresh.backoff, refresh.backoff_max);
        Self {
            source,
            extensions: extensions.into(),
            turn: sync::Mutex::new(()),
            state: Mutex::new(TokenState::new(refresh.window, backoff)),
            changed: watch::Sender::new(()),
        }
    }

    async fn get(&self) -> Result<BearerToken, TokenFault> {
        if let Some(answer) = self.answer() {
            return answer;
        }
        let _turn = self.turn.lock().await;
        // Somebody may have fetched one, or failed to, in between.
        match self.answer() {
            Some(answer) => answer,
            None => self.fetch().await,
        }
    }

    /// What can be said without a fetch.
    fn answer(&self) -> Option<Result<BearerToken, TokenFault>> {
        match lock(&self.state).step(Instant::now()) {
            TokenStep::Use(token) => Some(Ok(token)),
            TokenStep::Fail(fault) => Some(Err(fault)),
            TokenStep::Fetch => None,
        }
    }

    /// To be called with the turn held.
    async fn fetch(&self) -> Result<BearerToken, TokenFault> {
        let fetched = self.source.fetch(&self.extensions).await;
        let now = Instant::now();
        let answer = {
            let mut state = lock(&self.state);
            match fetched {
                Ok(fetched) => {
                    debug!(lifetime = ?fetched.lifetime, "there is a new token");
                    let token = fetched.token.clone();
                    state.fetched(fetched, now, random_unit());
                    Ok(token)
                }
                Err(fault) => {
                    let is_new = state.failed(fault.clone(), now);
                    // Without a token, whoever wants to authenticate says so.
                    if let (true, Some(left)) = (is_new, state.left(now)) {
                        let seconds = left.as_secs();
                        warn!(%fault, seconds, "the token cannot be renewed; it is good for that long");
                    }
                    Err(fault)
                }
            }
        };
        self.changed.send_replace(());
        answer
    }

    async fn renew_for_ever(&self) {
        let mut changes = self.changed.subscribe();
        loop {
            let due = lock(&self.state).refresh_at();
            let is_due = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The sender lives as long as we do.
                _ = changes.changed() => continue,
                () = is_due => {}
            }
            let _turn = self.turn.lock().await;
            // Somebody may have renewed it in between.
            let is_still_due = lock(&self.state)
                .refresh_at()
                .is_some_and(|at| at <= Instant::now());
            if is_still_due {
                // The state has how it went.
                let _ = self.fetch().await;
            }
        }
    }
}

impl TokenProvider for RefreshingTokenProvider {
    fn token(&self) -> BoxFuture<'_, Result<BearerToken, TokenFault>> {
        self.get().boxed()
    }

    fn keep_fresh(&self) -> BoxFuture<'_, ()> {
        self.renew_for_ever().boxed()
    }

    fn refused(&self, token: &BearerToken) {
        lock(&self.state).refused(token);
        self.changed.send_replace(());
    }

    fn extensions(&self) -> Arc<[(String, String)]> {
        Arc::clone(&self.extensions)
    }
}

#[cfg(test)]
mod tests;
