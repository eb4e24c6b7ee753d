//! Verifies bearer tokens: JSON Web Tokens (RFC 7519) that an OpenID Connect provider has signed
//! (RFC 7515, RFC 7518), with the keys that it publishes (RFC 7517, OpenID Connect Discovery 1.0).
//!
//! ```text
//! token ─▶ CompactJws ─▶ TokenClaims ─▶ ProviderState ─▶ PublicKey ─▶ VerifiedToken
//!          form, alg     exp, nbf, aud   iss; which key    signature
//!                                           │ no key fits: waits for a fetch
//!                                           ▼
//! provider ◀─ Discovery ◀──────────── the task of OpenIdProvider
//!             well-known URL, keys      at the start, every interval, for an unknown kid, every
//!                                       second while it fails
//! ```
//!
//! # Invariants
//! - What can be refused without the provider is refused without asking it.
//! - A token says which key it was signed with, never what the key is, and no key verifies by an
//!   algorithm of another kind.
//! - One fetch is under way at most; it ends in time, and so does the wait for it. What the provider
//!   answers is bounded.
//! - No error and no log holds a token, or a part of one.
//!
//! # Decisions
//! - The signatures are verified by graviola, which TLS brings anyway. What a JWT library adds to
//!   that is a parser and checks of claims after the signature; ours come before it, and say what is
//!   wrong.

mod algorithm;
mod claims;
mod compact_jws;
mod discovery;
mod error;
mod json_web_key;
mod key_set;
mod provider;
mod provider_state;
mod public_key;
mod rsa_der;
#[cfg(test)]
mod signer;
mod well_known_url;

pub use self::claims::CLOCK_LEEWAY;
pub use self::error::{JwtFault, VerifyError};
pub use self::key_set::ProviderKey;
pub use self::provider::{OpenIdConfig, OpenIdProvider, VerifiedToken};
pub use self::well_known_url::WellKnownUrl;
