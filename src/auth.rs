//! Which Kafka user a request is for: the credentials in its headers or sub-protocols.
//!
//! ```text
//! X-Kafka-Auth: base64(user:password)                          first
//! Authorization: Basic base64(user:password)                   then, unless it is the proxy's
//! Sec-WebSocket-Protocol: kafka-auth.<base64url(user:password)>,
//!                         kafka-websocket-proxy                then: a page can set no headers
//! ```
//!
//! # Invariants
//! - Credentials that are there and cannot be read are an error, never left out: the request would
//!   be served as the proxy itself, which may be allowed more.
//! - No error says anything of what was sent but where it stood.

use std::fmt;

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine, alphabet};
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderValue};
use kafka_client::sasl::Credentials;
use secret::Secret;

/// The sub-protocol that is spoken. It says nothing, but a page whose offer is not taken up closes
/// the connection, and one with credentials in it must not be repeated.
pub(crate) const SUB_PROTOCOL: &str = "kafka-websocket-proxy";
/// What the sub-protocol with credentials begins with.
const CREDENTIALS_PREFIX: &[u8] = b"kafka-auth.";

/// Where credentials stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CredentialsPlace {
    XKafkaAuth,
    AuthorizationBasic,
    SubProtocol,
}

impl fmt::Display for CredentialsPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::XKafkaAuth => "header X-Kafka-Auth",
            Self::AuthorizationBasic => "header Authorization: Basic",
            Self::SubProtocol => "sub-protocol kafka-auth",
        })
    }
}

/// What a client authenticates with at the brokers, and where it says so.
#[derive(Clone, Debug)]
pub(crate) struct KafkaCredentials {
    pub(crate) credentials: Credentials,
    pub(crate) place: CredentialsPlace,
}

/// Why credentials are of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CredentialsError {
    /// They are not what they should be.
    #[error("{place}: it must be the base64 of user:password, once")]
    Unreadable {
        /// Where they stand.
        place: CredentialsPlace,
    },
    /// There is no sub-protocol that could be answered with.
    #[error("sub-protocol kafka-auth: offer {SUB_PROTOCOL} beside it, which the answer names")]
    NothingToAnswer,
}

/// The credentials that come first of those that the request has, if it has any.
///
/// # Errors
/// [`CredentialsError`] about those that come first.
pub(crate) fn kafka_credentials(
    headers: &HeaderMap,
) -> Result<Option<KafkaCredentials>, CredentialsError> {
    let offered = || sub_protocols(headers).filter_map(|p| p.strip_prefix(CREDENTIALS_PREFIX));
    if offered().next().is_some() && !offers_sub_protocol(headers) {
        return Err(CredentialsError::NothingToAnswer);
    }
    let basic = |value: &HeaderValue| basic_credentials(value).is_some();
    let place = if headers.contains_key(X_KAFKA_AUTH) {
        CredentialsPlace::XKafkaAuth
    } else if headers.get_all(AUTHORIZATION).iter().any(basic) {
        CredentialsPlace::AuthorizationBasic
    } else if offered().next().is_some() {
        CredentialsPlace::SubProtocol
    } else {
        return Ok(None);
    };
    let read = match place {
        CredentialsPlace::XKafkaAuth => {
            let values = headers.get_all(X_KAFKA_AUTH).iter();
            only(values.map(HeaderValue::as_bytes)).and_then(decode_standard)
        }
        CredentialsPlace::AuthorizationBasic => {
            let values = headers.get_all(AUTHORIZATION).iter();
            only(values.filter_map(basic_credentials)).and_then(decode_standard)
        }
        CredentialsPlace::SubProtocol => only(offered()).and_then(|text| decode(&URL_SAFE, text)),
    };
    let credentials = read.ok_or(CredentialsError::Unreadable { place })?;
    Ok(Some(KafkaCredentials { credentials, place }))
}

/// Whether the client offers the sub-protocol that is answered with.
pub(crate) fn offers_sub_protocol(headers: &HeaderMap) -> bool {
    sub_protocols(headers).any(|offered| offered == SUB_PROTOCOL.as_bytes())
}

const X_KAFKA_AUTH: &str = "x-kafka-auth";

/// What is behind the scheme, if that is Basic.
fn basic_credentials(value: &HeaderValue) -> Option<&[u8]> {
    let value = value.as_bytes();
    let end = value.iter().position(u8::is_ascii_whitespace);
    let (scheme, rest) = value.split_at(end.unwrap_or(value.len()));
    scheme
        .eq_ignore_ascii_case(b"basic")
        .then_some(rest.trim_ascii())
}

/// Bytes: a header that is no text may have credentials all the same.
fn sub_protocols(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lists = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let offered = lists.flat_map(|list| list.as_bytes().split(|byte| *byte == b','));
    offered.map(<[u8]>::trim_ascii)
}

fn only<T>(mut values: impl Iterator<Item = T>) -> Option<T> {
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

fn decode_standard(text: &[u8]) -> Option<Credentials> {
    decode(&STANDARD, text)
}

/// `user:password`; the password may have colons. Control characters are none of either
/// (RFC 7617), and mean something else to SASL.
fn decode(base64: &GeneralPurpose, text: &[u8]) -> Option<Credentials> {
    // Wiped with the rest of what is secret.
    let decoded = Secret::new(String::from_utf8(base64.decode(text).ok()?).ok()?);
    let decoded = decoded.reveal();
    let (username, password) = decoded.split_once(':')?;
    let legal = !username.is_empty() && !decoded.contains(char::is_control);
    legal.then(|| Credentials {
        username: username.to_owned(),
        password: Secret::new(password),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Headers<'a> = &'a [(&'static str, &'a str)];

    fn found(pairs: Headers<'_>) -> Result<Option<(String, String, CredentialsPlace)>, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let found = kafka_credentials(&headers).map_err(|error| error.to_string())?;
        Ok(found.map(|KafkaCredentials { credentials, place }| {
            let password = credentials.password.reveal().to_owned();
            (credentials.username, password, place)
        }))
    }

    fn base64(text: &str) -> String {
        STANDARD.encode(text)
    }

    #[test]
    fn credentials_stand_in_either_header_or_in_a_sub_protocol() {
        let alice = base64("alice:pa:ss wörd");
        let offered = format!(
            "x, kafka-auth.{}, kafka-websocket-proxy",
            URL_SAFE.encode("b:~~~")
        );
        for (headers, expected) in [
            (
                ("x-kafka-auth", alice.as_str()),
                ("alice", "pa:ss wörd", CredentialsPlace::XKafkaAuth),
            ),
            (
                ("authorization", &format!("bAsIc  {alice}")),
                ("alice", "pa:ss wörd", CredentialsPlace::AuthorizationBasic),
            ),
            (
                ("authorization", &format!("Basic\t{alice}")),
                ("alice", "pa:ss wörd", CredentialsPlace::AuthorizationBasic),
            ),
            (
                ("sec-websocket-protocol", offered.trim_end_matches('=')),
                ("b", "~~~", CredentialsPlace::SubProtocol),
            ),
        ] {
            let (user, password, place) = expected;
            let expected = Some((user.to_owned(), password.to_owned(), place));
            assert_eq!(found(&[headers]), Ok(expected));
        }
        for headers in [
            &[][..],
            &[("authorization", "Bearer abc")],
            &[(
                "sec-websocket-protocol",
                "kafka-websocket-proxy, kafka-authx",
            )],
        ] {
            assert_eq!(found(headers), Ok(None));
        }
    }

    #[test]
    fn the_more_special_place_comes_first() {
        let (a, b) = (base64("a:1"), format!("Basic {}", base64("b:2")));
        let c = format!(
            "kafka-websocket-proxy, kafka-auth.{}",
            URL_SAFE.encode("c:3")
        );
        let all = [
            ("sec-websocket-protocol", c.as_str()),
            ("authorization", b.as_str()),
            ("x-kafka-auth", a.as_str()),
        ];
        for (headers, user) in [(&all[..], "a"), (&all[..2], "b"), (&all[..1], "c")] {
            let (found, ..) = found(headers).unwrap().unwrap();
            assert_eq!(found, user);
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_its_place_without_a_word_of_it() {
        let [no_colon, no_user, control] = ["secret", ":secret", "a:sec\0ret"].map(base64);
        let binary = STANDARD.encode([0xff, b':', 0xfe]);
        for text in ["se?cret", &no_colon, &no_user, &control, &binary, ""] {
            let error = found(&[("x-kafka-auth", text)]).unwrap_err();
            let expected = "header X-Kafka-Auth: it must be the base64 of user:password, once";
            assert_eq!(error, expected, "{text}");
            let basic = format!("Basic {text}");
            let error = found(&[("authorization", basic.trim())]).unwrap_err();
            assert!(
                error.starts_with("header Authorization: Basic: it must"),
                "{error}"
            );
        }
        let twice = base64("a:1");
        let twice = ("x-kafka-auth", twice.as_str());
        assert!(found(&[twice, twice]).is_err());
        // One that comes first is not passed over for one that can be read.
        let good = format!("Basic {}", base64("a:1"));
        assert!(found(&[("x-kafka-auth", "?"), ("authorization", &good)]).is_err());
        for text in ["?", "ö"] {
            let offered = format!("kafka-websocket-proxy, kafka-auth.{text}");
            let error = found(&[("sec-websocket-protocol", &offered)]).unwrap_err();
            assert!(
                error.starts_with("sub-protocol kafka-auth: it must"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_sub_protocol_with_credentials_needs_one_to_be_answered_with() {
        let offered = format!("kafka-auth.{}", URL_SAFE.encode("a:1"));
        let error = found(&[("sec-websocket-protocol", &offered)]).unwrap_err();
        assert!(
            error.contains("offer kafka-websocket-proxy beside it"),
            "{error}"
        );
    }
}
