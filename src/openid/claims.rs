//! What a token says of itself (RFC 7519, section 4).

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use graviola::hashing::{Hash, HashContext, Sha256};
use secret::Secret;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::error::JwtFault;

/// By how much the provider's clock and ours may differ.
pub const CLOCK_LEEWAY: Duration = Duration::from_secs(30);

/// Claims that are about one token, or the login that it is from: those of RFC 7519, of OpenID
/// Connect Core, and of Keycloak, Entra and Cognito.
const OF_ONE_TOKEN: [&str; 18] = [
    "exp",
    "iat",
    "nbf",
    "jti",
    "auth_time",
    "nonce",
    "at_hash",
    "c_hash",
    "s_hash",
    "sid",
    "session_state",
    "updated_at",
    "aio",
    "rh",
    "uti",
    "xms_ftd",
    "origin_jti",
    "event_id",
];

/// The claims that count.
#[derive(Debug, Default)]
pub(crate) struct TokenClaims {
    pub(crate) issuer: Option<String>,
    pub(crate) subject: Option<String>,
    audience: Vec<String>,
    expires_at: Option<SystemTime>,
    not_before: Option<SystemTime>,
    /// Those that were asked for and are texts, in that order.
    pub(crate) wanted: Vec<Option<Secret>>,
    /// A digest of all claims but those of [`OF_ONE_TOKEN`].
    pub(crate) identity: [u8; 32],
}

impl TokenClaims {
    /// Reads the claims; of the others, texts by the names of `wanted`, which are taken literally.
    pub(crate) fn parse(payload: &[u8], wanted: &[String]) -> Result<Self, JwtFault> {
        let mut json = serde_json::Deserializer::from_slice(payload);
        let claims = ClaimsSeed { wanted }.deserialize(&mut json);
        let claims = claims.and_then(|claims| json.end().map(|()| claims));
        claims.map_err(|_| JwtFault::Claims)
    }

    /// When the token expires, if it is good at `now`, for that audience.
    pub(crate) fn check(&self, audience: &str, now: SystemTime) -> Result<SystemTime, JwtFault> {
        let expires_at = self.expires_at.ok_or(JwtFault::NoExpiry)?;
        // Far ahead is later than any time that can be told.
        let end = expires_at.checked_add(CLOCK_LEEWAY);
        if end.is_some_and(|end| now >= end) {
            return Err(JwtFault::Expired);
        }
        let latest = now + CLOCK_LEEWAY;
        if self.not_before.is_some_and(|begin| latest < begin) {
            return Err(JwtFault::NotYetValid);
        }
        match self.audience.iter().any(|named| named == audience) {
            true => Ok(expires_at),
            false => Err(JwtFault::Audience),
        }
    }
}

struct ClaimsSeed<'a> {
    wanted: &'a [String],
}

impl<'de> DeserializeSeed<'de> for ClaimsSeed<'_> {
    type Value = TokenClaims;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<TokenClaims, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ClaimsSeed<'_> {
    type Value = TokenClaims;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("claims")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<TokenClaims, A::Error> {
        let mut claims = TokenClaims::default();
        claims.wanted.resize(self.wanted.len(), None);
        let mut members_by_name = BTreeMap::new();
        while let Some(name) = members.next_key::<String>()? {
            let value: &RawValue = members.next_value()?;
            match name.as_str() {
                "iss" => claims.issuer = read(value)?,
                "aud" => claims.audience = read::<Audience, _>(value)?.0,
                "exp" => claims.expires_at = read::<NumericDate, _>(value)?.0,
                "nbf" => claims.not_before = read::<NumericDate, _>(value)?.0,
                "sub" => {
                    let subject: Option<String> = read(value)?;
                    self.keep(&mut claims, &name, subject.clone());
                    claims.subject = subject;
                }
                name if self.wanted.iter().any(|wanted| wanted == name) => {
                    let text = read::<MaybeText, _>(value)?.0;
                    self.keep(&mut claims, name, text);
                }
                _ => {}
            }
            if members_by_name.insert(name, value.get()).is_some() {
                return Err(A::Error::custom("a claim stands there twice"));
            }
        }
        claims.identity = digest(&members_by_name);
        Ok(claims)
    }
}

fn read<'de, T: Deserialize<'de>, E: Error>(value: &'de RawValue) -> Result<T, E> {
    serde_json::from_str(value.get()).map_err(E::custom)
}

/// Of the same members whatever their order; the lengths keep one name or value from being taken for
/// two.
fn digest(members: &BTreeMap<String, &str>) -> [u8; 32] {
    let mut hash = Sha256::new();
    let of_its_owner = |(name, _): &(&String, &&str)| !OF_ONE_TOKEN.contains(&name.as_str());
    for (name, value) in members.iter().filter(of_its_owner) {
        for text in [name.as_str(), value] {
            hash.update(&text.len().to_be_bytes());
            hash.update(text.as_bytes());
        }
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    digest
}

impl ClaimsSeed<'_> {
    /// Two names may be the same.
    fn keep(&self, claims: &mut TokenClaims, name: &str, text: Option<String>) {
        let text = text.map(Secret::new);
        for (wanted, kept) in self.wanted.iter().zip(&mut claims.wanted) {
            if wanted == name {
                kept.clone_from(&text);
            }
        }
    }
}

/// A text or a list of texts.
struct Audience(Vec<String>);

impl<'de> Deserialize<'de> for Audience {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum OneOrMore {
            One(String),
            More(Vec<String>),
        }
        Ok(Self(match OneOrMore::deserialize(deserializer)? {
            OneOrMore::One(audience) => vec![audience],
            OneOrMore::More(audiences) => audiences,
        }))
    }
}

/// Seconds since 1970, which may have a fraction. `None`: so far ahead that no time can be told.
struct NumericDate(Option<SystemTime>);

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        let error = || D::Error::custom("no time");
        if !seconds.is_finite() || seconds < 0.0 {
            return Err(error());
        }
        // Some 30,000 years: what is later is as good as that.
        let since = Duration::from_secs_f64(seconds.min(1e12));
        Ok(Self(UNIX_EPOCH.checked_add(since)))
    }
}

/// A text, or nothing that counts.
struct MaybeText(Option<String>);

impl<'de> Deserialize<'de> for MaybeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum TextOrElse {
            Text(String),
            Else(IgnoredAny),
        }
        Ok(Self(match TextOrElse::deserialize(deserializer)? {
            TextOrElse::Text(text) => Some(text),
            TextOrElse::Else(IgnoredAny) => None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn check(claims: &str, now: u64) -> Result<u64, JwtFault> {
        let claims = TokenClaims::parse(claims.as_bytes(), &[])?;
        let expires_at = claims.check("proxy", at(now))?;
        Ok(expires_at.duration_since(UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn a_token_is_good_from_nbf_to_exp_with_half_a_minute_of_leeway() {
        let claims = r#"{"aud":"proxy","exp":1000,"nbf":500,"iat":9999}"#;
        for (now, expected) in [
            (469, Err(JwtFault::NotYetValid)),
            (470, Ok(1000)),
            (1029, Ok(1000)),
            (1030, Err(JwtFault::Expired)),
        ] {
            assert_eq!(check(claims, now), expected, "{now}");
        }
        assert_eq!(check(r#"{"aud":"proxy","exp":1000.5}"#, 1030), Ok(1000));
        assert_eq!(
            check(r#"{"aud":"proxy","exp":1e300}"#, 1030),
            Ok(1_000_000_000_000)
        );
        assert_eq!(
            check(r#"{"aud":"proxy"}"#, 0),
            Err(JwtFault::NoExpiry),
            "it would never end"
        );
    }

    #[test]
    fn the_audience_is_a_text_or_stands_in_a_list() {
        for (aud, good) in [
            (r#""proxy""#, true),
            (r#"["account","proxy"]"#, true),
            (r#""Proxy""#, false),
            (r#""proxy ""#, false),
            (r#"["prox","y"]"#, false),
            ("[]", false),
        ] {
            let claims = format!(r#"{{"exp":1000,"aud":{aud}}}"#);
            let expected = match good {
                true => Ok(1000),
                false => Err(JwtFault::Audience),
            };
            assert_eq!(check(&claims, 0), expected, "{aud}");
        }
        assert_eq!(check(r#"{"exp":1000}"#, 0), Err(JwtFault::Audience));
    }

    #[test]
    fn claims_of_another_type_or_that_stand_there_twice_are_refused() {
        for claims in [
            "",
            "[]",
            "{",
            r#"{"exp":1000,"aud":"proxy"}x"#,
            r#"{"exp":"1000","aud":"proxy"}"#,
            r#"{"exp":null,"aud":"proxy"}"#,
            r#"{"exp":-1,"aud":"proxy"}"#,
            r#"{"exp":[1000],"aud":"proxy"}"#,
            r#"{"exp":1000,"aud":{"proxy":1}}"#,
            r#"{"exp":1000,"aud":null}"#,
            r#"{"exp":1000,"aud":["proxy",1]}"#,
            r#"{"exp":1000,"nbf":"0","aud":"proxy"}"#,
            r#"{"exp":1000,"iss":1,"aud":"proxy"}"#,
            r#"{"exp":1000,"sub":1,"aud":"proxy"}"#,
            r#"{"exp":1000,"exp":9000,"aud":"proxy"}"#,
            r#"{"exp":1000,"\u0065xp":9000,"aud":"proxy"}"#,
            r#"{"exp":1000,"aud":"proxy","aud":"x"}"#,
            r#"{"exp":1000,"aud":"proxy","x":1,"x":1}"#,
            "{\"exp\":1000,\"aud\":\"proxy\",\"x\":\"\u{1}\"}",
        ] {
            assert_eq!(check(claims, 0), Err(JwtFault::Claims), "{claims}");
        }
        // However deep something is: it is passed over without recursion, or has a bound.
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        let deep = format!(r#"{{"exp":1000,"aud":"proxy","x":{deep}}}"#);
        assert_eq!(check(&deep, 0), Ok(1000));
        let wanted = TokenClaims::parse(deep.as_bytes(), &["x".to_owned()]);
        assert_eq!(wanted.unwrap_err(), JwtFault::Claims);
    }

    #[test]
    fn tokens_that_differ_in_nothing_but_themselves_have_one_identity() {
        let identity = |claims: &str| {
            let claims = TokenClaims::parse(claims.as_bytes(), &[]);
            claims.unwrap().identity
        };
        let first = identity(r#"{"iss":"i","sub":"me","exp":1,"jti":"a","scope":"x y"}"#);
        for same in [
            r#"{"scope":"x y","sub":"me","iss":"i"}"#,
            r#"{"iss":"i","sub":"me","exp":9,"iat":5,"nonce":"b","scope" : "x y"}"#,
        ] {
            assert_eq!(identity(same), first, "{same}");
        }
        for other in [
            r#"{"iss":"i","sub":"me"}"#,
            r#"{"iss":"i","sub":"me","scope":"x"}"#,
            r#"{"iss":"i","sub":"me","scope":"x y","azp":"app"}"#,
            r#"{"iss":"i","sub":"you","scope":"x y"}"#,
            r#"{"iss":"j","sub":"me","scope":"x y"}"#,
            r#"{"iss":"i","sub":"me","scope":["x y"]}"#,
        ] {
            assert_ne!(identity(other), first, "{other}");
        }
    }

    #[test]
    fn claims_that_are_asked_for_are_taken_literally_and_only_if_they_are_texts() {
        let payload = br#"{"a.b":"secret","a":{"b":"no"},"n":1,"l":["x"],"sub":"me","e":""}"#;
        let names = ["a.b", "n", "l", "sub", "e", "none"].map(str::to_owned);
        let claims = TokenClaims::parse(payload, &names).unwrap();
        let found: Vec<_> = claims
            .wanted
            .iter()
            .map(|c| c.as_ref().map(Secret::reveal))
            .collect();
        let expected = [Some("secret"), None, None, Some("me"), Some(""), None];
        assert_eq!(found, expected);
        assert_eq!(claims.subject.as_deref(), Some("me"));
        assert!(!format!("{claims:?}").contains("secret"));
    }
}
