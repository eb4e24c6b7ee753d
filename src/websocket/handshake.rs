//! The opening handshake (RFC 6455, section 4.2), as functions over headers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{CONNECTION, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use sha1::{Digest, Sha1};

/// The only version there is; it goes into `Sec-WebSocket-Version` of a refusal.
pub const VERSION: &str = "13";

/// Why a request is no WebSocket handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// An ordinary request: answered by 426.
    #[error(
        "this is a WebSocket endpoint: the request needs Connection: Upgrade and Upgrade: websocket"
    )]
    NoUpgrade,
    /// Another version: answered by 426 with `Sec-WebSocket-Version: 13`.
    #[error("Sec-WebSocket-Version must be 13")]
    Version,
    /// No key, several, or one that is not 16 bytes in base64: answered by 400.
    #[error("Sec-WebSocket-Key must be 16 bytes in base64")]
    Key,
}

/// Checks a GET request's headers; gives the value of `Sec-WebSocket-Accept` to answer.
pub fn accept(headers: &HeaderMap) -> Result<String, HandshakeError> {
    if !has_token(headers, &CONNECTION, "upgrade") || !has_token(headers, &UPGRADE, "websocket") {
        return Err(HandshakeError::NoUpgrade);
    }
    if single(headers, &SEC_WEBSOCKET_VERSION) != Some(VERSION) {
        return Err(HandshakeError::Version);
    }
    let key = single(headers, &SEC_WEBSOCKET_KEY).ok_or(HandshakeError::Key)?;
    match STANDARD.decode(key) {
        Ok(nonce) if nonce.len() == 16 => Ok(accept_key(key)),
        _ => Err(HandshakeError::Key),
    }
}

/// The proof that the server has read the client's key.
pub fn accept_key(key: &str) -> String {
    let mut sha1 = Sha1::new();
    sha1.update(key.as_bytes());
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(sha1.finalize())
}

/// Whether a comma list, which may stand in several headers, has that word in any case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case(token))
}

/// The value of a header that must stand exactly once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().map(str::trim),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

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
            accept(&headers(&[])).as_deref(),
            Ok("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
    }

    #[test]
    fn tokens_count_in_any_case_and_in_any_place_of_the_list() {
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
            ("connection", None, NoUpgrade),
            ("connection", Some("keep-alive"), NoUpgrade),
            ("upgrade", None, NoUpgrade),
            ("upgrade", Some("websockets"), NoUpgrade),
            ("sec-websocket-version", None, Version),
            ("sec-websocket-version", Some("8"), Version),
            ("sec-websocket-version", Some("13, 8"), Version),
            ("sec-websocket-key", None, Key),
            ("sec-websocket-key", Some(""), Key),
            ("sec-websocket-key", Some("dGhlIHNhbXBsZSBub25j"), Key),
            ("sec-websocket-key", Some("not base64 at all, is it"), Key),
        ] {
            assert_eq!(
                accept(&headers(&[(name, value)])),
                Err(error),
                "{name}: {value:?}"
            );
        }
        let mut twice = headers(&[]);
        twice.append(
            "sec-websocket-key",
            HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="),
        );
        assert_eq!(accept(&twice), Err(Key));
    }
}
