//! One key as a provider publishes it (RFC 7517, RFC 7518, RFC 8037).

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use crate::algorithm::JwsAlgorithm;
use crate::public_key::PublicKey;

/// What counts of a key. Equal ones are the same key, for the same purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct JsonWebKey {
    kty: String,
    pub(crate) kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl JsonWebKey {
    /// What it verifies with; `None`: it cannot be used here.
    pub(crate) fn public_key(&self) -> Option<PublicKey> {
        let number = |member: &Option<String>| LENIENT.decode(member.as_deref()?).ok();
        match self.kty.as_str() {
            "RSA" => PublicKey::rsa(&number(&self.n)?, &number(&self.e)?),
            "EC" => PublicKey::elliptic(self.crv.as_deref()?, &number(&self.x)?, &number(&self.y)?),
            "OKP" => PublicKey::edwards(self.crv.as_deref()?, &number(&self.x)?),
            _ => None,
        }
    }

    /// Whether the provider says that it is for signatures by that algorithm.
    pub(crate) fn allows(&self, algorithm: JwsAlgorithm) -> bool {
        self.is_for_signatures()
            && self
                .alg
                .as_deref()
                .is_none_or(|alg| alg == algorithm.name())
    }

    fn is_for_signatures(&self) -> bool {
        let verifies = |operations: &Vec<String>| operations.iter().any(|op| op == "verify");
        self.purpose
            .as_deref()
            .is_none_or(|purpose| purpose == "sig")
            && self.key_ops.as_ref().is_none_or(verifies)
    }
}

/// A set of keys (RFC 7517, section 5): what of it cannot be read is left out, as it demands.
pub(crate) fn read_key_set(text: &[u8]) -> Result<Vec<JsonWebKey>, &'static str> {
    #[derive(Deserialize)]
    struct KeySetDocument {
        keys: Vec<serde_json::Value>,
    }
    let document: KeySetDocument =
        serde_json::from_slice(text).map_err(|_| "no JSON object with keys")?;
    if document.keys.len() > KEYS_MAX {
        return Err("too many keys");
    }
    let keys = document.keys.into_iter().map(serde_json::from_value);
    Ok(keys.filter_map(Result::ok).collect())
}

/// So many keys a provider may have.
const KEYS_MAX: usize = 500;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<JsonWebKey> {
        read_key_set(text.as_bytes()).expect(text)
    }

    #[test]
    fn what_cannot_be_read_of_a_set_is_left_out() {
        let text = r#"{"keys":[{"kty":"OKP","kid":"a","x5c":[1]},1,{"kty":2},{"kid":"b"},{"kty":"oct","k":"AA"}],"x":1}"#;
        let found = keys(text);
        let kids: Vec<_> = found.iter().map(|key| key.kid.as_deref()).collect();
        assert_eq!(kids, [Some("a"), Some("b"), None]);
        assert!(found.iter().all(|key| key.public_key().is_none()));
        assert_eq!(keys(r#"{"keys":[]}"#), []);
        for text in ["", "[]", "{}", r#"{"keys":{}}"#, "<html>"] {
            assert!(read_key_set(text.as_bytes()).is_err(), "{text}");
        }
        let many = format!(r#"{{"keys":[{}1]}}"#, "1,".repeat(KEYS_MAX));
        assert_eq!(read_key_set(many.as_bytes()), Err("too many keys"));
    }

    #[test]
    fn a_key_may_say_what_it_is_for() {
        let allows = |members: &str| {
            let text = format!(r#"{{"keys":[{{"kty":"RSA"{members}}}]}}"#);
            keys(&text)[0].allows(JwsAlgorithm::Rs256)
        };
        for (members, expected) in [
            ("", true),
            (r#","alg":"RS256","use":"sig","key_ops":["verify"]"#, true),
            (r#","use":null"#, true),
            (r#","use":"enc""#, false),
            (r#","use":"x""#, false),
            (r#","alg":"RS512""#, false),
            (r#","alg":"RSA-OAEP""#, false),
            (r#","alg":"rs256""#, false),
            (r#","key_ops":["sign"]"#, false),
            (r#","key_ops":[]"#, false),
        ] {
            assert_eq!(allows(members), expected, "{members}");
        }
    }

    #[test]
    fn keys_that_are_none_cannot_be_used() {
        let short = "A".repeat(171);
        for members in [
            r#""kty":"RSA","n":"AQAB""#.to_owned(),
            format!(r#""kty":"RSA","n":"{short}","e":"AQAB""#),
            r#""kty":"RSA","n":"","e":"""#.to_owned(),
            r#""kty":"EC","crv":"P-256","x":"AA","y":"AA""#.to_owned(),
            r#""kty":"EC","crv":"P-521","x":"AA","y":"AA""#.to_owned(),
            r#""kty":"EC","crv":"P-256","x":"AA""#.to_owned(),
            r#""kty":"OKP","crv":"Ed25519","x":"AA""#.to_owned(),
            r#""kty":"OKP","crv":"X25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#
                .to_owned(),
            r#""kty":"oct","k":"AA""#.to_owned(),
        ] {
            let found = keys(&format!(r#"{{"keys":[{{{members}}}]}}"#));
            assert!(found[0].public_key().is_none(), "{members}");
        }
    }
}
