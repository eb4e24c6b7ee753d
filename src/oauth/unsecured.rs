//! Tokens that nobody has signed, as Java's client makes them where no endpoint is set
//! (`OAuthBearerUnsecuredLoginCallbackHandler`). Brokers take them for tests only.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secret::Secret;
use serde_json::{Map, Value};

use crate::token::TokenAnswer;

/// What is claimed, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct UnsecuredToken {
    claims: Map<String, Value>,
    lifetime: Duration,
}

const STRING_CLAIM: &str = "unsecuredLoginStringClaim_";
const NUMBER_CLAIM: &str = "unsecuredLoginNumberClaim_";
const LIST_CLAIM: &str = "unsecuredLoginListClaim_";
const LIFETIME: &str = "unsecuredLoginLifetimeSeconds";
const PRINCIPAL_CLAIM_NAME: &str = "unsecuredLoginPrincipalClaimName";
const LIFETIME_DEFAULT: Duration = Duration::from_secs(3600);

impl UnsecuredToken {
    /// Reads the options of a JAAS line: names and values.
    ///
    /// # Errors
    /// The option that is wrong, or missing.
    pub fn of_options<'a>(
        options: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, String> {
        let mut claims = Map::new();
        let mut lifetime = LIFETIME_DEFAULT;
        let mut principal = "sub";
        for (option, text) in options {
            if option == PRINCIPAL_CLAIM_NAME {
                principal = text;
            } else if option == LIFETIME {
                let seconds = text.trim().parse().ok().filter(|seconds| *seconds > 0);
                let seconds = seconds.ok_or(format!("{option} is a number of seconds"))?;
                lifetime = Duration::from_secs(seconds);
            } else if let Some((name, value)) = claim(option, text)? {
                if ["iat", "exp"].contains(&name) {
                    return Err(format!("{option} is not to be set: it says itself when"));
                }
                claims.insert(name.to_owned(), value);
            }
        }
        match claims.get(principal) {
            Some(Value::String(name)) if !name.is_empty() => Ok(Self { claims, lifetime }),
            _ => Err(format!("it names nobody: set {STRING_CLAIM}{principal}")),
        }
    }

    /// A token from `now` on.
    pub(crate) fn issue(&self, now: SystemTime) -> TokenAnswer {
        let seconds = |at: SystemTime| {
            let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
            since.as_millis() as f64 / 1000.0
        };
        let mut claims = self.claims.clone();
        claims.insert("iat".to_owned(), seconds(now).into());
        claims.insert("exp".to_owned(), seconds(now + self.lifetime).into());
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        let payload = URL_SAFE_NO_PAD.encode(Value::Object(claims).to_string());
        TokenAnswer {
            token: Secret::new(format!("{header}.{payload}.")),
            lifetime: self.lifetime,
        }
    }
}

/// The claim that an option sets, if it does.
fn claim<'a>(option: &'a str, text: &str) -> Result<Option<(&'a str, Value)>, String> {
    Ok(if let Some(name) = option.strip_prefix(STRING_CLAIM) {
        Some((name, text.into()))
    } else if let Some(name) = option.strip_prefix(NUMBER_CLAIM) {
        let number: Option<f64> = text.trim().parse().ok();
        let number = number.filter(|number| number.is_finite());
        let number = number.ok_or(format!("{option} is a number"))?;
        Some((name, number.into()))
    } else {
        let list = option.strip_prefix(LIST_CLAIM);
        list.map(|name| (name, list_of(text)))
    })
}

/// `|a|b`: its first character stands between the items.
fn list_of(text: &str) -> Value {
    let mut chars = text.chars();
    match chars.next() {
        Some(separator) if !chars.as_str().is_empty() => {
            chars.as_str().split(separator).collect::<Vec<_>>().into()
        }
        _ => Value::Array(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(options: &[(&str, &str)]) -> Result<UnsecuredToken, String> {
        UnsecuredToken::of_options(options.iter().copied())
    }

    #[test]
    fn claims_are_texts_numbers_and_lists_with_a_time_of_issue_and_of_expiry() {
        let token = of(&[
            ("unsecuredLoginStringClaim_name", "al\"ice"),
            ("unsecuredLoginPrincipalClaimName", "name"),
            ("unsecuredLoginNumberClaim_level", "3"),
            ("unsecuredLoginListClaim_scope", "|a|b c|"),
            ("unsecuredLoginListClaim_none", "|"),
            ("unsecuredLoginLifetimeSeconds", "10"),
            ("unsecuredLoginScopeClaimName", "scope"),
            ("unsecuredLoginExtension_traceId", "1"),
        ]);
        let answer = token
            .expect("a token")
            .issue(UNIX_EPOCH + Duration::from_millis(1500));
        assert_eq!(answer.lifetime.as_secs(), 10);
        let parts: Vec<&str> = answer.token.reveal().split('.').collect();
        let json = |part: &str| -> Value {
            let bytes = URL_SAFE_NO_PAD.decode(part).expect("base64");
            serde_json::from_slice(&bytes).expect("JSON")
        };
        assert_eq!(json(parts[0]), json!({"alg": "none"}));
        let claims = json!({
            "name": "al\"ice", "level": 3.0, "scope": ["a", "b c", ""], "none": [],
            "iat": 1.5, "exp": 11.5,
        });
        assert_eq!(json(parts[1]), claims);
        assert_eq!(parts[2..], [""]);
    }

    #[test]
    fn an_option_that_is_wrong_is_named() {
        let sub = ("unsecuredLoginStringClaim_sub", "alice");
        for (options, fault) in [
            (vec![], "unsecuredLoginStringClaim_sub"),
            (
                vec![("unsecuredLoginStringClaim_sub", "")],
                "it names nobody",
            ),
            (
                vec![sub, ("unsecuredLoginPrincipalClaimName", "user")],
                "unsecuredLoginStringClaim_user",
            ),
            (
                vec![sub, ("unsecuredLoginNumberClaim_a", "x")],
                "unsecuredLoginNumberClaim_a",
            ),
            (
                vec![sub, ("unsecuredLoginLifetimeSeconds", "0")],
                "a number of seconds",
            ),
            (
                vec![sub, ("unsecuredLoginNumberClaim_exp", "1")],
                "is not to be set",
            ),
        ] {
            let said = of(&options).expect_err(fault);
            assert!(said.contains(fault), "{said}");
        }
    }
}
