//! The opening handshake (RFC 6455, section 4.2), as functions over headers.

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, PAD};
use headers::{Header, HeaderMapExt, SecWebsocketAccept, SecWebsocketKey};
use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};

/// The only version there is; it goes into `Sec-WebSocket-Version` of a refusal.
pub const VERSION: &str = "13";

/// Why a request is no opening handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// An ordinary request: answered by 426.
    #[error(
        "this is a WebSocket endpoint: the request needs Connection: Upgrade and Upgrade: websocket"
    )]
    NotAnUpgrade,
    /// Another version: answered by 426 with `Sec-WebSocket-Version: 13`.
    #[error("Sec-WebSocket-Version must be 13")]
    UnsupportedVersion,
    /// No key, several, or one that is not 16 bytes in base64: answered by 400.
    #[error("Sec-WebSocket-Key must be 16 bytes in base64")]
    InvalidKey,
}

/// Checks a GET request's headers; gives the headers of the 101 response.
///
/// # Errors
/// [`HandshakeError`] says which header is missing or wrong.
pub fn accept(request: &HeaderMap) -> Result<HeaderMap, HandshakeError> {
    if !has_token(request, &CONNECTION, "upgrade") || !has_token(request, &UPGRADE, "websocket") {
        return Err(HandshakeError::NotAnUpgrade);
    }
    let version = single(request, &SEC_WEBSOCKET_VERSION);
    if version.is_none_or(|version| version != VERSION) {
        return Err(HandshakeError::UnsupportedVersion);
    }
    let key = single(request, &SEC_WEBSOCKET_KEY).ok_or(HandshakeError::InvalidKey)?;
    match NONCE.decode(key) {
        Ok(nonce) if nonce.len() == 16 => {}
        _ => return Err(HandshakeError::InvalidKey),
    }
    // The proof is of the key as it came.
    let key = SecWebsocketKey::decode(&mut [key].into_iter());
    let key = key.map_err(|_| HandshakeError::InvalidKey)?;
    let mut response = HeaderMap::new();
    response.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.insert(UPGRADE, HeaderValue::from_static("websocket"));
    response.typed_insert(SecWebsocketAccept::from(key));
    Ok(response)
}

/// The last character before the padding has four bits that no byte needs; any value of them
/// is accepted, as in the example of section 1.3.
const NONCE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    PAD.with_decode_allow_trailing_bits(true),
);

/// Whether a comma list, which may stand in several headers, has that word in any case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case(token))
}

/// The value of a header that must occur exactly once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fuzzing::{FuzzInput, fuzz, within};

    /// `Sec-WebSocket-Accept` of the response.
    fn accepted(request: &HeaderMap) -> Result<String, HandshakeError> {
        let response = accept(request)?;
        assert_eq!(response[CONNECTION], "Upgrade");
        assert_eq!(response[UPGRADE], "websocket");
        let proof = response["sec-websocket-accept"].to_str();
        Ok(proof.expect("base64").to_owned())
    }

    fn headers(changes: &[(&'static str, Option<&'static str>)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        for (name, value) in changes {
            match value {
                Some(value) => headers.insert(*name, HeaderValue::from_static(value)),
                None => headers.remove(*name),
            };
        }
        headers
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        assert_eq!(
            accepted(&headers(&[])).as_deref(),
            Ok("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
    }

    #[test]
    fn a_key_whose_last_character_has_spare_bits_is_accepted() {
        // The example of section 1.3: `C` has four bits that no byte needs, and one is set.
        let key = headers(&[("sec-websocket-key", Some("AQIDBAUGBwgJCgsMDQ4PEC=="))]);
        assert_eq!(
            accepted(&key).as_deref(),
            Ok("OfS0wDaT5NoxF2gqm7Zj2YtetzM=")
        );
    }

    #[test]
    fn tokens_match_in_any_case_and_anywhere_in_the_list() {
        let mut headers = headers(&[
            ("upgrade", Some("h2c , WebSocket")),
            ("connection", Some("close")),
        ]);
        headers.append("connection", HeaderValue::from_static("x,UPGRADE"));
        assert!(accept(&headers).is_ok());
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        use HandshakeError::*;
        for (name, value, error) in [
            ("connection", None, NotAnUpgrade),
            ("connection", Some("keep-alive"), NotAnUpgrade),
            ("upgrade", None, NotAnUpgrade),
            ("upgrade", Some("websockets"), NotAnUpgrade),
            ("sec-websocket-version", None, UnsupportedVersion),
            ("sec-websocket-version", Some("8"), UnsupportedVersion),
            ("sec-websocket-version", Some("13, 8"), UnsupportedVersion),
            ("sec-websocket-key", None, InvalidKey),
            ("sec-websocket-key", Some(""), InvalidKey),
            (
                "sec-websocket-key",
                Some("dGhlIHNhbXBsZSBub25j"),
                InvalidKey,
            ),
            (
                "sec-websocket-key",
                Some("not base64 at all, is it"),
                InvalidKey,
            ),
        ] {
            assert_eq!(
                accepted(&headers(&[(name, value)])),
                Err(error),
                "{name}: {value:?}"
            );
        }
        let mut twice = headers(&[]);
        twice.append(
            "sec-websocket-key",
            HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="),
        );
        assert_eq!(accepted(&twice), Err(InvalidKey));
    }

    /// The headers of a valid handshake, some of them damaged, missing, repeated or in the company
    /// of others.
    fn almost_a_handshake(input: &mut FuzzInput) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let key = base64::engine::general_purpose::STANDARD.encode(input.number_bytes());
        let connection = *input.pick(&["Upgrade", "keep-alive, Upgrade", "x,upgrade ,"]);
        let upgrade = *input.pick(&["websocket", "h2c , WebSocket", "WEBSOCKET"]);
        for (name, value) in [
            ("connection", connection),
            ("upgrade", upgrade),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", &key),
            ("sec-websocket-protocol", "chat"),
        ] {
            let mut value = value.as_bytes().to_vec();
            for _ in 0..input.below(2) + usize::from(!input.one_in(20)) {
                if input.one_in(12) {
                    input.damage(&mut value);
                }
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.append(name, value);
                }
            }
        }
        headers
    }

    #[test]
    fn fuzz_handshakes() {
        fuzz("handshakes", |input| {
            let request = almost_a_handshake(input);
            let texts = |name: &str| -> Vec<Option<&str>> {
                let all = request.get_all(name);
                all.iter().map(|value| value.to_str().ok()).collect()
            };
            let lists = |name: &str, word: &str| {
                let texts = texts(name);
                let mut words = texts.iter().flatten().flat_map(|text| text.split(','));
                words.any(|listed| listed.trim().eq_ignore_ascii_case(word))
            };
            let key = texts("sec-websocket-key");
            let is_key = |key: &str| {
                key.len() == 24
                    && key.ends_with("==")
                    && key
                        .bytes()
                        .take(22)
                        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
            };
            let valid = if !lists("connection", "upgrade") || !lists("upgrade", "websocket") {
                Err(HandshakeError::NotAnUpgrade)
            } else if texts("sec-websocket-version") != [Some("13")] {
                Err(HandshakeError::UnsupportedVersion)
            } else if key.len() != 1 || !key[0].is_some_and(is_key) {
                Err(HandshakeError::InvalidKey)
            } else {
                Ok(28)
            };
            let accepted = within(16 << 10, "a handshake", || accepted(&request));
            assert_eq!(accepted.map(|proof| proof.len()), valid, "{request:?}");
        });
    }
}
