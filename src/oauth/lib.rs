//! Where the bearer tokens of OAUTHBEARER come from (KIP-255, KIP-768, KIP-1139, KIP-1258).
//!
//! ```text
//! authentication ─▶ RefreshingTokenProvider ─ good ─▶ the token
//!                       │ one fetch for all who ask; again before the token expires
//!                       ▼
//!                   TokenSource ─┬▶ TokenEndpoint    a request to an OAuth 2.0 provider
//!                                ├▶ a file           that something else renews
//!                                └▶ UnsecuredToken   what nobody has signed
//! ```
//!
//! # Invariants
//! - One fetch is under way at most, and after a failure none begins before a growing wait is over.
//! - A fetch ends in time, whatever the endpoint does.
//! - No secret is in an error, a log or what `Debug` shows; what an endpoint says is cut, and cleared
//!   of the secret.

mod answer;
mod endpoint;
#[cfg(test)]
mod fake;
mod lifetime;
mod provider;
mod refresh;
mod source;
mod state;
mod token;
mod unsecured;
mod url;

pub use self::endpoint::{Grant, GrantProperties, TokenEndpoint};
pub use self::provider::{RefreshingTokenProvider, TokenRefresh};
pub use self::refresh::RefreshWindow;
pub use self::source::TokenSource;
pub use self::unsecured::UnsecuredToken;
pub use self::url::TokenUrl;

/// `sasl.oauthbearer.token.endpoint.url`
const ENDPOINT_URL: &str = "sasl.oauthbearer.token.endpoint.url";
/// `sasl.oauthbearer.assertion.file`
const ASSERTION_FILE: &str = "sasl.oauthbearer.assertion.file";
