//! SASL on a connection: SaslHandshake, then SaslAuthenticate until the mechanism has nothing more
//! to say; and again before the session's lifetime ends (KIP-368).
//!
//! # Invariants
//! - Until it has succeeded, and while it is done again, no other request is written.
//! - After a refusal one attempt at a time is made, with growing waits: a password that is wrong is
//!   not tried on every connection.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::StrBytes;
use runtime::mutex::lock;
use tokio::sync::{self, MutexGuard};
use tokio::time::{Instant, sleep_until};

use super::connection::AuthenticationChannel;
use crate::backoff::{ExponentialBackoff, random_unit};
use crate::error::{AuthenticationFault, RequestError};
use crate::metrics::ConnectionMetrics;
use crate::protocol::versions::Api;
use crate::sasl::{SaslConfig, SaslError};

/// `UNSUPPORTED_SASL_MECHANISM`
const UNSUPPORTED_MECHANISM: i16 = 33;
/// `ILLEGAL_SASL_STATE`: of a listener without SASL.
const ILLEGAL_STATE: i16 = 34;
/// `SASL_AUTHENTICATION_FAILED`
const AUTHENTICATION_FAILED: i16 = 58;
/// The longest wait between attempts after refusals.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// An exchange of more rounds is none of a mechanism that we speak.
const ROUNDS_MAX: usize = 8;

/// Authenticates; returns how long the broker takes the session for good, if it ends it at all.
pub(crate) async fn authenticate(
    connection: &AuthenticationChannel,
    sasl: &SaslConfig,
    timeout: Duration,
) -> Result<Option<Duration>, RequestError> {
    let mechanism = sasl.mechanism();
    let failed = |fault| RequestError::AuthenticationFailed {
        broker: connection.broker().clone(),
        fault,
    };
    let exchange_failed = |error: SaslError| failed(fault_of(mechanism, error));
    let client = sasl.client(connection.broker().host()).await;
    let mut client = client.map_err(exchange_failed)?;

    let handshake =
        SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism));
    let response = connection
        .call(SaslHandshakeRequest::LATEST_VERSION, &handshake, timeout)
        .await?;
    match response.error_code {
        0 => {}
        UNSUPPORTED_MECHANISM => {
            let enabled: Vec<&str> = response.mechanisms.iter().map(|m| &**m).collect();
            return Err(failed(AuthenticationFault::MechanismNotEnabled {
                mechanism,
                enabled: enabled.join(", ").into(),
            }));
        }
        ILLEGAL_STATE => return Err(failed(AuthenticationFault::SaslNotEnabled)),
        code => return Err(failed(refused_with(mechanism, code, None))),
    }

    let version = connection.version::<SaslAuthenticateRequest>()?;
    let mut say = Some(client.initial_response());
    for _ in 0..ROUNDS_MAX {
        let Some(said) = say else {
            break;
        };
        let request = SaslAuthenticateRequest::default()
            .with_auth_bytes(Bytes::copy_from_slice(said.reveal()));
        let response = connection.call(version, &request, timeout).await?;
        if response.error_code != 0 {
            let message = client.refusal().or(response.error_message.as_deref());
            let fault = refused_with(mechanism, response.error_code, message);
            if matches!(fault, AuthenticationFault::CredentialsRefused { .. }) {
                sasl.refused(&client);
            }
            return Err(failed(fault));
        }
        say = match client.respond(&response.auth_bytes).await {
            Ok(say) => say,
            Err(error) => {
                if matches!(error, SaslError::Refused(_)) {
                    sasl.refused(&client);
                }
                return Err(exchange_failed(error));
            }
        };
        if say.is_none() {
            let lifetime = u64::try_from(response.session_lifetime_ms).unwrap_or(0);
            return Ok((lifetime > 0).then(|| Duration::from_millis(lifetime)));
        }
    }
    let message = "the exchange does not end".into();
    Err(failed(AuthenticationFault::ExchangeFailed {
        mechanism,
        message,
    }))
}

fn fault_of(mechanism: &'static str, error: SaslError) -> AuthenticationFault {
    let message = error.to_string().into();
    match error {
        SaslError::NoToken(fault) => AuthenticationFault::NoToken(fault),
        SaslError::NoTicket(fault) => AuthenticationFault::NoTicket(fault),
        SaslError::Refused(_) => AuthenticationFault::CredentialsRefused { mechanism, message },
        SaslError::UnexpectedChallenge { .. } => {
            AuthenticationFault::ExchangeFailed { mechanism, message }
        }
    }
}

fn refused_with(mechanism: &'static str, code: i16, message: Option<&str>) -> AuthenticationFault {
    let message = match message {
        Some(message) if !message.is_empty() => message.into(),
        _ => format!("error {code}").into(),
    };
    match code {
        AUTHENTICATION_FAILED => AuthenticationFault::CredentialsRefused { mechanism, message },
        ILLEGAL_STATE => AuthenticationFault::SaslNotEnabled,
        _ => AuthenticationFault::ExchangeFailed { mechanism, message },
    }
}

/// When to authenticate again: Java's client does at 85 to 95 % of the lifetime, so that not all
/// connections do at once.
pub(crate) fn renew_at(authenticated_at: Instant, lifetime: Duration) -> Instant {
    authenticated_at + lifetime.mul_f64(0.85 + 0.1 * random_unit())
}

/// Authenticates again whenever it is due, until the connection ends, or ends it.
pub(crate) async fn keep_authenticated(
    connection: AuthenticationChannel,
    sasl: &SaslConfig,
    timeout: Duration,
    attempts: &AuthenticationAttempts,
) {
    while connection.renewal_is_due().await {
        let result = authenticate(&connection, sasl, timeout).await;
        let result = result.map_err(|error| renewal_error(sasl.mechanism(), error));
        attempts.note(&result);
        match result {
            Ok(lifetime) => {
                attempts.metrics.reauthentications.increment();
                tracing::debug!(broker = %connection.broker(), "authenticated again");
                let now = Instant::now();
                connection
                    .authenticated(lifetime.map(|lifetime| renew_at(now, lifetime)))
                    .await;
            }
            Err(error) => {
                match sasl.missing() {
                    // A user's token, which is for its owner to renew.
                    Some(_) => {
                        tracing::debug!(%error, "the connection is not authenticated any more")
                    }
                    None => tracing::warn!(%error, "the connection is not authenticated any more"),
                }
                connection.disconnect(&error.to_string());
            }
        }
    }
}

/// A listener that has taken credentials has SASL: it refuses a renewal as one without SASL does when
/// the one before is less than a second old, as when the session ended with a token that was about to
/// expire.
fn renewal_error(mechanism: &'static str, error: RequestError) -> RequestError {
    match error {
        RequestError::AuthenticationFailed {
            broker,
            fault: AuthenticationFault::SaslNotEnabled,
        } => {
            let message = "the session cannot be renewed within a second".into();
            let fault = AuthenticationFault::ExchangeFailed { mechanism, message };
            RequestError::AuthenticationFailed { broker, fault }
        }
        error => error,
    }
}

/// How authentication goes, over all connections of one principal.
#[derive(Debug)]
pub(crate) struct AuthenticationAttempts {
    /// Held by the one attempt that is made while they are refused.
    turn: sync::Mutex<()>,
    refusals: Mutex<Refusals>,
    last_fault: sync::watch::Sender<Option<AuthenticationFault>>,
    metrics: Arc<ConnectionMetrics>,
}

#[derive(Debug)]
struct Refusals {
    backoff: ExponentialBackoff,
    not_before: Option<Instant>,
}

impl AuthenticationAttempts {
    /// `first` is the first wait after a refusal.
    pub(crate) fn new(first: Duration, metrics: Arc<ConnectionMetrics>) -> Self {
        Self {
            turn: sync::Mutex::new(()),
            refusals: Mutex::new(Refusals {
                backoff: ExponentialBackoff::new(first, BACKOFF_MAX),
                not_before: None,
            }),
            last_fault: sync::watch::Sender::new(None),
            metrics,
        }
    }

    /// Waits until an attempt may be made; while the last one was refused, what is returned is
    /// held until the next one has ended.
    pub(crate) async fn permit(&self) -> Option<MutexGuard<'_, ()>> {
        self.not_before()?;
        let turn = self.turn.lock().await;
        // Somebody may have succeeded, or failed, in between.
        sleep_until(self.not_before()?).await;
        Some(turn)
    }

    fn not_before(&self) -> Option<Instant> {
        lock(&self.refusals).not_before
    }

    /// Notes how an attempt has ended.
    pub(crate) fn note<T>(&self, result: &Result<T, RequestError>) {
        let fault = match result {
            Ok(_) => None,
            Err(RequestError::AuthenticationFailed { fault, .. }) => Some(fault.clone()),
            // The network's fault, which says nothing of the credentials.
            Err(_) => return,
        };
        let counted = match &fault {
            None => &self.metrics.authentications,
            Some(_) => &self.metrics.authentication_failures,
        };
        counted.increment();
        let mut refusals = lock(&self.refusals);
        match &fault {
            None => {
                refusals.backoff.succeeded();
                refusals.not_before = None;
            }
            Some(_) => {
                refusals.not_before = Some(Instant::now() + refusals.backoff.after_failure())
            }
        }
        drop(refusals);
        self.last_fault.send_if_modified(|last| {
            let differs = *last != fault;
            *last = fault;
            differs
        });
    }

    /// Why the last attempt was refused, if it was, and each change of it.
    pub(crate) fn last_fault(&self) -> sync::watch::Receiver<Option<AuthenticationFault>> {
        self.last_fault.subscribe()
    }
}

#[cfg(test)]
mod tests;
