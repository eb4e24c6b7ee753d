//! Offers of a client (RFC 7692, section 7.1, in the grammar of RFC 6455, section 9.1).
//!
//! ```text
//! x-other, permessage-deflate; server_max_window_bits=10, permessage-deflate; client_max_window_bits
//! └ unknown ┘└──────────────── an offer ────────────────┘ └──────── another, if that fails ────────┘
//! ```

/// What of an offer matters to a server that takes no context over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DeflateOffer {
    /// The largest window that the client can inflate.
    pub(super) server_max_window_bits: Option<u8>,
}

/// The offers in a header that can be served, the client's favourite first. What is not as it has
/// to be declines its offer and no other (section 5.1).
pub(super) fn acceptable(header: &str) -> impl Iterator<Item = DeflateOffer> {
    split(header, ',').filter_map(|extension| {
        let mut parts = split(extension, ';');
        match parts.next()?.trim() {
            "permessage-deflate" => parse_parameters(parts),
            _ => None,
        }
    })
}

fn parse_parameters<'a>(parameters: impl Iterator<Item = &'a str>) -> Option<DeflateOffer> {
    let mut seen = Vec::new();
    let mut offer = DeflateOffer::default();
    for parameter in parameters {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name.trim(), Some(unquoted(value.trim())?)),
            None => (parameter.trim(), None),
        };
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
        match (name, value) {
            ("server_no_context_takeover" | "client_no_context_takeover", None)
            | ("client_max_window_bits", None) => {}
            // The client's windows are as large as it likes: we inflate with the largest.
            ("client_max_window_bits", Some(value)) => {
                window_bits(&value)?;
            }
            ("server_max_window_bits", Some(value)) => {
                // There is no deflate with a window of 256 bytes but by leaving matches out: zlib
                // takes the double silently, which the client could not inflate.
                let bits = window_bits(&value).filter(|bits| *bits > WINDOW_BITS_MIN)?;
                offer.server_max_window_bits = Some(bits);
            }
            _ => return None,
        }
    }
    Some(offer)
}

/// A decimal number from 8 to 15, without leading zeros (section 7.1.2).
fn window_bits(value: &str) -> Option<u8> {
    let bits = value.parse().ok()?;
    let is_valid = (WINDOW_BITS_MIN..=WINDOW_BITS_MAX).contains(&bits);
    (is_valid && value == bits.to_string()).then_some(bits)
}

/// The smallest window that the RFC knows.
const WINDOW_BITS_MIN: u8 = 8;
/// The largest, and the one that counts where none is named.
pub(super) const WINDOW_BITS_MAX: u8 = 15;

/// A token, or what a quoted string quotes, which has to be one.
fn unquoted(value: &str) -> Option<String> {
    let mut token = String::with_capacity(value.len());
    match value.strip_prefix('"') {
        None => token.push_str(value),
        Some(quoted) => {
            let mut characters = quoted.strip_suffix('"')?.chars();
            while let Some(character) = characters.next() {
                token.push(match character {
                    '\\' => characters.next()?,
                    other => other,
                });
            }
        }
    }
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (!token.is_empty() && token.bytes().all(is_token)).then_some(token)
}

/// Splits at a separator that is not within a quoted string.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |character| {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => return character == separator && !quoted,
        }
        false
    })
}
