//! Whose web pages may use this server (`server.websocket.allowed-origins`).

use super::value::{self, ParsedValue};

/// A set of allowed `Origin` values (RFC 6454).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// Every page of the web.
    #[default]
    Any,
    /// These only.
    Only(Vec<String>),
}

impl AllowedOrigins {
    /// Reads `*`, or a comma list of `scheme://host[:port]`.
    pub fn parse(text: &str) -> ParsedValue<Self> {
        let accepted = "* or a comma list of scheme://host[:port]";
        let list = value::list(text);
        if list.iter().any(|origin| origin == "*" || origin == "any") {
            return Ok(AllowedOrigins::Any);
        }
        let sound = |origin: &String| {
            origin.split_once("://").is_some_and(|(scheme, host)| {
                !scheme.is_empty() && !host.is_empty() && !host.contains(['/', ' ', '*'])
            })
        };
        if list.is_empty() || !list.iter().all(sound) {
            return Err(accepted.to_owned());
        }
        Ok(AllowedOrigins::Only(
            list.iter().map(|o| o.to_ascii_lowercase()).collect(),
        ))
    }

    /// Whether pages of that origin may use this server.
    pub fn contains(&self, origin: &str) -> bool {
        match self {
            AllowedOrigins::Any => true,
            AllowedOrigins::Only(list) => list.iter().any(|o| o.eq_ignore_ascii_case(origin)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_origins_are_allowed() {
        let some = AllowedOrigins::parse("https://a.example, http://localhost:3000").unwrap();
        assert!(some.contains("https://A.example"));
        assert!(some.contains("http://localhost:3000"));
        assert!(!some.contains("https://a.example.evil.org"));
        assert!(!some.contains("http://a.example"));
        assert!(!some.contains("null"));
        assert!(AllowedOrigins::parse("*").unwrap().contains("null"));
    }

    #[test]
    fn an_origin_is_a_scheme_and_a_host() {
        for text in [
            "",
            "a.example",
            "https://",
            "https://a.example/path",
            "https://*.a",
        ] {
            assert!(AllowedOrigins::parse(text).is_err(), "{text}");
        }
    }
}
