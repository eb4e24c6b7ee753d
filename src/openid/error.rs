//! Why a token lets nobody in.

use std::sync::Arc;

/// What is wrong with a token. Shows nothing of it; the characters are those that `error_description`
/// may have (RFC 6750, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtFault {
    /// It is too long.
    #[error("the token is longer than 16 KiB")]
    TooLong,
    /// It is no compact JWS.
    #[error(
        "the token is not what a signed JWT is: three parts of base64url with dots between them"
    )]
    NotCompact,
    /// The first part is no header.
    #[error("the token's header is no JSON object with an alg, or has a member twice")]
    Header,
    /// `crit` (RFC 7515, section 4.1.11).
    #[error("the token's header has a crit, and none is understood here")]
    Critical,
    /// `alg`
    #[error(
        "the token's alg is none of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA"
    )]
    Algorithm,
    /// The second part is no set of claims.
    #[error("the token's claims are no JSON object, are of the wrong type, or stand there twice")]
    Claims,
    /// `exp` is missing.
    #[error("the token has no exp")]
    NoExpiry,
    /// `exp`
    #[error("the token has expired")]
    Expired,
    /// `nbf`
    #[error("the token is not valid yet (nbf)")]
    NotYetValid,
    /// `aud`
    #[error("the token is for another audience (aud)")]
    Audience,
    /// `iss`
    #[error("the token is of another issuer (iss)")]
    Issuer,
    /// `kid`
    #[error("the token is signed with a key that the provider does not have (kid)")]
    UnknownKey,
    /// There is no `kid`.
    #[error("the token says no kid, and not exactly one key of the provider fits its alg")]
    NoKeyId,
    /// The key is for something else.
    #[error(
        "the token's alg is not that of the key that it names, or the key is not for signatures"
    )]
    UnfitKey,
    /// The key cannot be used.
    #[error(
        "the token is signed with a key that cannot be used here, such as one of RSA below 2048 bits"
    )]
    UnusableKey,
    /// The signature is not of that key and that text.
    #[error("the token's signature is wrong")]
    Signature,
}

/// Why a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It never will be, or not before the provider has changed.
    #[error(transparent)]
    Invalid(#[from] JwtFault),
    /// The provider cannot be asked, and no key of it that is known fits.
    #[error("the OpenID provider cannot be asked: {reason}")]
    Unavailable {
        /// For operators.
        reason: Arc<str>,
    },
}
