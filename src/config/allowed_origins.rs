//! The web pages that may use this server (`server.websocket.allowed-origins`), by the origin
//! that their browser sends (RFC 6454).

use super::allowed_hosts::is_loopback;
use super::value::{self, ParsedValue};

/// A set of allowed `Origin` values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// Every page of the web.
    #[default]
    Any,
    /// These only.
    Only(Vec<WebOrigin>),
}

impl AllowedOrigins {
    /// The pages of this host, and those without an origin.
    pub(super) fn loopback() -> Self {
        AllowedOrigins::Only(vec![WebOrigin::Loopback, WebOrigin::Opaque])
    }

    /// Reads `*`, or a comma list of `scheme://host[:port]`, `loopback` and `null`.
    pub fn parse(text: &str) -> ParsedValue<Self> {
        let list = value::list(text);
        if list.iter().any(|origin| origin == "*" || origin == "any") {
            return Ok(AllowedOrigins::Any);
        }
        let origins: Option<Vec<_>> = list.iter().map(|text| WebOrigin::parse(text)).collect();
        match origins {
            Some(origins) if !origins.is_empty() => Ok(AllowedOrigins::Only(origins)),
            _ => Err("* or a comma list of scheme://host[:port], loopback and null".to_owned()),
        }
    }

    /// Whether pages of the origin in that header may use this server.
    pub fn contains(&self, origin: &str) -> bool {
        match self {
            AllowedOrigins::Any => true,
            AllowedOrigins::Only(list) => {
                let is_page = |origin: &WebOrigin| *origin != WebOrigin::Loopback;
                let origin = WebOrigin::parse(origin).filter(is_page);
                origin.is_some_and(|origin| list.iter().any(|listed| listed.covers(&origin)))
            }
        }
    }
}

/// One origin, as it is compared: scheme and host in lower case, the default port left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebOrigin {
    /// `null`: of a sandboxed page, a file, a redirect from elsewhere.
    Opaque,
    /// Every origin whose host is loopback; only in lists.
    Loopback,
    /// `scheme://host[:port]`.
    Tuple {
        /// The scheme.
        scheme: String,
        /// A name or an address; one of IPv6 in brackets.
        host: String,
        /// `None`: the default port of the scheme.
        port: Option<u16>,
    },
}

impl WebOrigin {
    /// Whether a page of that origin is meant by this entry of a list.
    fn covers(&self, page: &WebOrigin) -> bool {
        match (self, page) {
            (WebOrigin::Loopback, WebOrigin::Tuple { host, .. }) => is_loopback(host),
            _ => self == page,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        match &*text {
            "null" => return Some(WebOrigin::Opaque),
            "loopback" => return Some(WebOrigin::Loopback),
            _ => {}
        }
        let (scheme, authority) = text.split_once("://")?;
        let (host, port) = value::split_port(authority);
        let port = port.map(str::parse).transpose().ok()?;
        let is_host = !host.is_empty() && !host.contains(['/', ' ', '*', '@', '?', '#']);
        let is_address = host.starts_with('[') && host.ends_with(']');
        if scheme.is_empty() || !is_host || host.contains(':') && !is_address {
            return None;
        }
        Some(WebOrigin::Tuple {
            port: port.filter(|port| Some(*port) != default_port(scheme)),
            scheme: scheme.to_owned(),
            host: host.to_owned(),
        })
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
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
    fn loopback_is_every_page_of_this_host_whatever_its_port() {
        for allowed in [
            AllowedOrigins::loopback(),
            AllowedOrigins::parse("loopback, null").unwrap(),
        ] {
            for origin in [
                "http://localhost:3000",
                "https://localhost",
                "http://127.0.0.1:8078",
                "http://[::1]:5173",
                "null",
            ] {
                assert!(allowed.contains(origin), "{origin}");
            }
            for origin in [
                "loopback",
                "http://evil.example",
                "http://localhost.evil.example",
                "http://10.0.0.1",
            ] {
                assert!(!allowed.contains(origin), "{origin}");
            }
        }
    }

    #[test]
    fn default_ports_are_dropped_on_both_sides() {
        for (listed, sent) in [
            ("https://a.example:443", "https://a.example"),
            ("https://a.example", "https://a.example:443"),
            ("http://a.example:80", "http://a.example"),
            ("HTTPS://A.Example:443", "https://a.example"),
            ("http://[::1]:80", "http://[::1]"),
        ] {
            let allowed = AllowedOrigins::parse(listed).unwrap();
            assert!(allowed.contains(sent), "{listed}, {sent}");
        }
        for (listed, sent) in [
            ("https://a.example:80", "https://a.example"),
            ("http://a.example:443", "https://a.example"),
            ("http://[::1]:80", "http://[::1]:8080"),
        ] {
            let allowed = AllowedOrigins::parse(listed).unwrap();
            assert!(!allowed.contains(sent), "{listed}, {sent}");
        }
    }

    #[test]
    fn null_is_allowed_where_it_is_listed() {
        let allowed = AllowedOrigins::parse("https://a.example, null").unwrap();
        assert!(allowed.contains("null"));
        assert!(allowed.contains("https://a.example"));
        assert!(!allowed.contains("https://b.example"));
    }

    #[test]
    fn an_origin_is_a_scheme_and_a_host() {
        for text in [
            "",
            "a.example",
            "https://",
            "https://:443",
            "https://a.example/path",
            "https://*.a",
            "https://a.example:http",
            "https://a.example:99999",
            "http://::1",
        ] {
            assert!(AllowedOrigins::parse(text).is_err(), "{text}");
        }
    }
}
