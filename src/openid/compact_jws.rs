//! A token as it is sent: the compact serialization of a JWS (RFC 7515, section 7.1).
//!
//! ```text
//! base64url(header) . base64url(claims) . base64url(signature)
//! └──────── what is signed ───────────┘
//! ```

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secret::SecretBytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use crate::algorithm::JwsAlgorithm;
use crate::error::JwtFault;

/// More is no token: the whole head of a request has no more than 32 KiB by default.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// A token whose signature was not looked at.
#[derive(Debug)]
pub(crate) struct CompactJws<'a> {
    pub(crate) algorithm: JwsAlgorithm,
    pub(crate) key_id: Option<String>,
    pub(crate) payload: SecretBytes,
    pub(crate) signed: SignedText<'a>,
}

/// What is signed, and how.
pub(crate) struct SignedText<'a> {
    pub(crate) text: &'a [u8],
    pub(crate) signature: Vec<u8>,
}

impl std::fmt::Debug for SignedText<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// What counts of a header. A key that it brings along (`jwk`, `jku`, `x5c`, `x5u`) does not.
#[derive(Deserialize)]
struct JoseHeader {
    alg: String,
    kid: Option<String>,
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

/// Whatever it is: null, too.
fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

impl<'a> CompactJws<'a> {
    /// Takes a token apart.
    pub(crate) fn parse(token: &'a str) -> Result<Self, JwtFault> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(JwtFault::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtFault::NotCompact)?;
        let (header, payload) = signed.split_once('.').ok_or(JwtFault::NotCompact)?;
        // A dot more, as a JWE has, is no base64.
        let [header, payload, signature] =
            [header, payload, signature].map(|part| URL_SAFE_NO_PAD.decode(part));
        let payload = payload.map(SecretBytes::new);
        let decoded = (header, payload, signature);
        let (Ok(header), Ok(payload), Ok(signature)) = decoded else {
            return Err(JwtFault::NotCompact);
        };
        let header: JoseHeader = serde_json::from_slice(&header).map_err(|_| JwtFault::Header)?;
        if header.crit {
            return Err(JwtFault::Critical);
        }
        let algorithm = JwsAlgorithm::of_name(&header.alg).ok_or(JwtFault::Algorithm)?;
        Ok(Self {
            algorithm,
            key_id: header.kid,
            payload,
            signed: SignedText {
                text: signed.as_bytes(),
                signature,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str) -> String {
        let header = URL_SAFE_NO_PAD.encode(header);
        format!("{header}.e30.c2ln")
    }

    fn fault(token: &str) -> JwtFault {
        CompactJws::parse(token).expect_err(token)
    }

    #[test]
    fn a_token_has_three_parts_of_strict_base64url() {
        let text = token(r#"{"alg":"ES256","kid":"k","typ":"JWT","jwk":{},"x5c":[]}"#);
        let jws = CompactJws::parse(&text).expect("a token");
        assert_eq!(jws.algorithm, JwsAlgorithm::Es256);
        assert_eq!(jws.key_id.as_deref(), Some("k"));
        assert_eq!(jws.payload.reveal(), b"{}");
        assert_eq!(jws.signed.text, &text.as_bytes()[..text.len() - 5]);
        assert_eq!(jws.signed.signature, b"sig");
        let header = token(r#"{"alg":"ES256"}"#);
        for text in [
            "",
            ".",
            "a",
            "e30.e30",
            &format!("{header}.c2ln"),
            &format!("{header}.c2ln.c2ln"),
            &format!("{header}="),
            &format!("{header}\n"),
            &format!(" {header}"),
            &header.replace("e30", "e31"),
            &header.replace("e30", "e3+"),
            &header.replace("c2ln", "c2/n"),
        ] {
            assert_eq!(fault(text), JwtFault::NotCompact, "{text}");
        }
    }

    #[test]
    fn a_token_has_a_bound() {
        let long = format!("{}{}", token(r#"{"alg":"ES256"}"#), "A".repeat(16 << 10));
        assert_eq!(fault(&long), JwtFault::TooLong);
        assert_eq!(
            fault(&".".repeat(16 << 10)),
            JwtFault::NotCompact,
            "that long"
        );
    }

    #[test]
    fn a_header_says_an_algorithm_with_a_public_key_and_nothing_critical() {
        for (header, expected) in [
            ("", JwtFault::Header),
            ("null", JwtFault::Header),
            ("[]", JwtFault::Header),
            ("{}", JwtFault::Header),
            (r#"{"alg":1}"#, JwtFault::Header),
            (r#"{"alg":null}"#, JwtFault::Header),
            (r#"{"alg":"ES256","kid":1}"#, JwtFault::Header),
            (r#"{"alg":"ES256","alg":"ES256"}"#, JwtFault::Header),
            (r#"{"alg":"ES256","alg":"none"}"#, JwtFault::Header),
            (r#"{"alg":"ES256"} {}"#, JwtFault::Header),
            (
                r#"{"alg":"ES256","crit":["b64"],"b64":false}"#,
                JwtFault::Critical,
            ),
            (r#"{"alg":"ES256","crit":["exp"]}"#, JwtFault::Critical),
            (r#"{"alg":"ES256","crit":[]}"#, JwtFault::Critical),
            (r#"{"alg":"ES256","crit":null}"#, JwtFault::Critical),
        ] {
            assert_eq!(fault(&token(header)), expected, "{header}");
        }
        for algorithm in [
            "none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512", "es256", "ES256 ",
            "ES512", "ES256K", "EDDSA", "Ed448", "RSA-OAEP", "dir",
        ] {
            let header = format!(r#"{{"alg":"{algorithm}"}}"#);
            assert_eq!(fault(&token(&header)), JwtFault::Algorithm, "{algorithm}");
        }
    }
}
