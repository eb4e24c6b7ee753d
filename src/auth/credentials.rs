//! User and password as requests carry them (RFC 7617), in a header or in an offered sub-protocol.

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine, alphabet};
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderValue};
use kafka_client::sasl::Credentials;
use secret::Secret;

/// The sub-protocol that is spoken. It says nothing, but a page whose offer is not taken up closes
/// the connection, and one with credentials in it must not be repeated.
pub(crate) const SUB_PROTOCOL: &str = "kafka-websocket-proxy";
/// What a sub-protocol begins with that stands for `Authorization: Basic`.
pub(super) const BASIC_PREFIX: &[u8] = b"basic.";
/// For `Authorization: Bearer`.
const BEARER_PREFIX: &[u8] = b"bearer.";
/// For `X-Kafka-Auth`.
pub(super) const KAFKA_AUTH_PREFIX: &[u8] = b"kafka-auth.";
/// What each sub-protocol with credentials begins with, whoever's they are, and its name.
const SECRET_PREFIXES: [(&[u8], &str); 3] = [
    (BEARER_PREFIX, "bearer"),
    (BASIC_PREFIX, "basic"),
    (KAFKA_AUTH_PREFIX, "kafka-auth"),
];

/// What was sent: `None`, it cannot be read, or is there more than once.
pub(super) type Sent = Option<Credentials>;

/// What counts as `Authorization: Basic`: the header, and only where there is no `Authorization` at all
/// the sub-protocol. `None`: neither is there.
pub(super) fn basic(headers: &HeaderMap) -> Option<Sent> {
    match headers.contains_key(AUTHORIZATION) {
        true => of_authorization(headers),
        false => offered(headers, BASIC_PREFIX),
    }
}

/// What counts as `Authorization: Bearer`: the header, or else the sub-protocol. `None`: neither is
/// there; `Some(None)`: it is no text, or is there more than once.
pub(super) fn bearer(headers: &HeaderMap) -> Option<Option<&str>> {
    let values = headers.get_all(AUTHORIZATION).iter();
    let sent = only_text(values.filter_map(|value| behind_scheme(value, b"bearer")));
    sent.or_else(|| {
        let offers = sub_protocols(headers);
        only_text(offers.filter_map(|offered| offered.strip_prefix(BEARER_PREFIX)))
    })
}

fn only_text<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<Option<&'a str>> {
    let text = std::str::from_utf8(values.next()?).ok();
    let is_only = values.next().is_none();
    Some(text.filter(|_| is_only))
}

/// What stands in `Authorization: Basic`; `None`: there is no such header.
pub(super) fn of_authorization(headers: &HeaderMap) -> Option<Sent> {
    let values = headers.get_all(AUTHORIZATION).iter();
    let basic = values.filter_map(|value| behind_scheme(value, b"basic"));
    of_values(basic, &STANDARD)
}

/// What stands in a header as bare base64; `None`: there is no such header.
pub(super) fn of_header(headers: &HeaderMap, name: &str) -> Option<Sent> {
    let values = headers.get_all(name).iter();
    of_values(values.map(HeaderValue::as_bytes), &STANDARD)
}

/// What stands behind that prefix in an offered sub-protocol; `None`: none is offered.
pub(super) fn offered(headers: &HeaderMap, prefix: &[u8]) -> Option<Sent> {
    let offers = sub_protocols(headers).filter_map(|offered| offered.strip_prefix(prefix));
    of_values(offers, &URL_SAFE)
}

/// Whether the client offers the sub-protocol that is answered with.
pub(crate) fn offers_sub_protocol(headers: &HeaderMap) -> bool {
    sub_protocols(headers).any(|offered| offered == SUB_PROTOCOL.as_bytes())
}

/// The sub-protocol with credentials that is offered without one that could be answered with.
pub(super) fn offered_alone(headers: &HeaderMap) -> Option<&'static str> {
    let name_of = |offered: &[u8]| {
        let mut secret = SECRET_PREFIXES.iter();
        secret.find_map(|(prefix, name)| offered.starts_with(prefix).then_some(*name))
    };
    let first = sub_protocols(headers).find_map(name_of)?;
    (!offers_sub_protocol(headers)).then_some(first)
}

fn of_values<'a>(
    mut values: impl Iterator<Item = &'a [u8]>,
    base64: &GeneralPurpose,
) -> Option<Sent> {
    let value = values.next()?;
    let is_only = values.next().is_none();
    Some(decode(base64, value).filter(|_| is_only))
}

/// What is behind the scheme, if it is that one.
fn behind_scheme<'a>(value: &'a HeaderValue, scheme: &[u8]) -> Option<&'a [u8]> {
    let value = value.as_bytes();
    let end = value.iter().position(u8::is_ascii_whitespace);
    let (named, rest) = value.split_at(end.unwrap_or(value.len()));
    named
        .eq_ignore_ascii_case(scheme)
        .then_some(rest.trim_ascii())
}

/// Bytes: a header that is no text may have credentials all the same.
fn sub_protocols(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lists = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let offered = lists.flat_map(|list| list.as_bytes().split(|byte| *byte == b','));
    offered.map(<[u8]>::trim_ascii)
}

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
pub(super) const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
pub(super) const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

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
