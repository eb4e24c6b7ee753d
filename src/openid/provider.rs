//! The provider: verifies tokens with its keys, and keeps those fresh.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use runtime::mutex::lock;
use secret::Secret;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::claims::TokenClaims;
use crate::compact_jws::{CompactJws, SignedText};
use crate::discovery::{Discovery, FETCH_TIMEOUT};
use crate::error::{JwtFault, VerifyError};
use crate::key_set::ProviderKey;
use crate::provider_state::{FetchEffect, KeyStep, ProviderState, SignerHint};
use crate::well_known_url::WellKnownUrl;

/// How long a token waits for keys: for a fetch that was under way when it came, and one of its own.
const KEY_WAIT_MAX: Duration = FETCH_TIMEOUT.saturating_mul(2);

/// The provider's settings.
#[derive(Clone, Debug)]
pub struct OpenIdConfig {
    /// Where it describes itself.
    pub well_known_url: WellKnownUrl,
    /// What tokens must be for.
    pub audience: String,
    /// How often its keys are fetched again.
    pub revalidation_interval: Duration,
    /// How many of these fetches may fail in a row before its keys are not trusted any more; `None`:
    /// any number.
    pub revalidation_errors_limit: Option<u32>,
    /// The names of claims that [`VerifiedToken::claims`] has.
    pub claims: Vec<String>,
    /// What it is reached with by https. That of the `tls` crate has asked the processor for what
    /// graviola needs.
    pub tls: Arc<rustls::ClientConfig>,
}

/// A token that is good.
#[derive(Clone, Debug)]
pub struct VerifiedToken {
    /// `sub`
    pub subject: Option<String>,
    /// The token itself.
    pub token: Secret,
    /// A digest of its claims but of those that are about this token rather than about whose it is
    /// and what for, such as its times.
    pub identity: [u8; 32],
    /// `exp`; until [`CLOCK_LEEWAY`](crate::CLOCK_LEEWAY) after it the token is good.
    pub expires_at: SystemTime,
    /// What it was verified with.
    pub key: Arc<ProviderKey>,
    /// The claims of [`OpenIdConfig::claims`], in that order, where they are texts.
    pub claims: Vec<Option<Secret>>,
}

/// A provider. Cloning is cheap.
#[derive(Clone)]
pub struct OpenIdProvider(Arc<ProviderShared>);

struct ProviderShared {
    audience: String,
    claims: Vec<String>,
    state: Mutex<ProviderState>,
    /// Notified when a fetch has become due.
    is_due: Notify,
    /// How many fetches have ended.
    fetches: watch::Sender<u64>,
}

impl fmt::Debug for OpenIdProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenIdProvider").finish_non_exhaustive()
    }
}

impl OpenIdProvider {
    /// Begins to fetch the keys. `on_withdrawal` is called when there are keys that are
    /// [withdrawn](ProviderKey::is_withdrawn). The tasks belong to `tasks`, and end with `stop`. To
    /// be called inside a runtime.
    pub fn start(
        config: OpenIdConfig,
        on_withdrawal: impl Fn() + Send + 'static,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let (interval, limit) = (
            config.revalidation_interval,
            config.revalidation_errors_limit,
        );
        let shared = Arc::new(ProviderShared {
            audience: config.audience,
            claims: config.claims,
            state: Mutex::new(ProviderState::new(interval, limit, Instant::now())),
            is_due: Notify::new(),
            fetches: watch::Sender::new(0),
        });
        let url = config.well_known_url;
        let discovery = Discovery::new(url, &config.tls, tasks.clone(), stop.clone());
        let keeping = Arc::clone(&shared).keep_keys(discovery, on_withdrawal);
        tasks.spawn(async move { stop.run_until_cancelled(keeping).await });
        Self(shared)
    }

    /// Verifies a token. Cancel-safe.
    ///
    /// # Errors
    /// What is wrong with it, or that nobody can say whether it is good.
    pub async fn verify(&self, token: &str) -> Result<VerifiedToken, VerifyError> {
        let shared = &*self.0;
        let jws = CompactJws::parse(token)?;
        let claims = TokenClaims::parse(jws.payload.reveal(), &shared.claims)?;
        let expires_at = claims.check(&shared.audience, SystemTime::now())?;
        let hint = SignerHint {
            issuer: claims.issuer.as_deref(),
            key_id: jws.key_id.as_deref(),
            algorithm: jws.algorithm,
        };
        let signer = shared.signer(hint, &jws.signed).await;
        let key = signer.inspect_err(|error| shared.suspect_keys(error))?;
        Ok(VerifiedToken {
            subject: claims.subject,
            token: Secret::new(token),
            identity: claims.identity,
            expires_at,
            key,
            claims: claims.wanted,
        })
    }
}

impl ProviderShared {
    /// The key that has signed the text.
    async fn signer(
        &self,
        hint: SignerHint<'_>,
        signed: &SignedText<'_>,
    ) -> Result<Arc<ProviderKey>, VerifyError> {
        let keys = self.keys_for(hint).await?;
        let mut keys = keys.into_iter();
        let signer = keys.find(|key| key.verifies(hint.algorithm, signed));
        signer.ok_or_else(|| JwtFault::Signature.into())
    }

    /// Has the keys fetched again, soon, where another one may be called now as one that is known.
    fn suspect_keys(&self, error: &VerifyError) {
        use JwtFault::{Signature, UnfitKey, UnusableKey};
        if let VerifyError::Invalid(Signature | UnfitKey | UnusableKey) = error
            && lock(&self.state).suspect_keys(Instant::now())
        {
            self.is_due.notify_one();
        }
    }

    /// The keys that may have signed a token, after a fetch if none that is known does.
    async fn keys_for(&self, hint: SignerHint<'_>) -> Result<Vec<Arc<ProviderKey>>, VerifyError> {
        let deadline = Instant::now() + KEY_WAIT_MAX;
        let mut fetches = self.fetches.subscribe();
        loop {
            fetches.mark_unchanged();
            let step = lock(&self.state).step(hint, Instant::now());
            match step {
                KeyStep::Try(keys) => return Ok(keys),
                KeyStep::Refuse(error) => return Err(error),
                KeyStep::Wait => self.is_due.notify_one(),
            }
            if timeout_at(deadline, fetches.changed()).await.is_err() {
                let reason = "its keys do not come in time".into();
                return Err(VerifyError::Unavailable { reason });
            }
        }
    }

    async fn keep_keys(self: Arc<Self>, discovery: Discovery, on_withdrawal: impl Fn()) {
        loop {
            let due = lock(&self.state).due();
            tokio::select! {
                () = sleep_until(due) => {}
                // It may be due earlier now.
                () = self.is_due.notified() => continue,
            }
            lock(&self.state).begin_fetch();
            let fetched = discovery.fetch().await;
            let failure = fetched.as_ref().err().cloned();
            let (effect, keys) = {
                let mut state = lock(&self.state);
                let effect = state.end_fetch(fetched, Instant::now());
                (effect, state.keys_len())
            };
            log_fetch(failure.as_deref(), &effect, keys);
            self.fetches.send_modify(|count| *count += 1);
            if effect.has_withdrawn {
                on_withdrawal();
            }
        }
    }
}

fn log_fetch(failure: Option<&str>, effect: &FetchEffect, keys: usize) {
    match failure {
        Some(reason) if effect.is_new_failure => {
            warn!(reason, "the OpenID provider cannot be asked");
        }
        Some(reason) => debug!(reason, "the OpenID provider cannot be asked"),
        None if effect.is_back => info!(keys, "the OpenID provider answers again"),
        None => debug!(keys, "the OpenID provider has answered"),
    }
    if effect.limit_reached {
        warn!(
            "its keys are not trusted any more: it could not be asked too often in a row \
             (server.openid-connect.revalidation-errors-limit)"
        );
    } else if effect.has_withdrawn {
        info!(
            "the OpenID provider has withdrawn keys: tokens that they signed are not good any more"
        );
    }
}

#[cfg(test)]
mod tests;
