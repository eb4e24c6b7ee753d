//! `server.openid-connect.well-known-url`

use std::fmt;
use std::net::IpAddr;

use http::Uri;
use http::uri::Scheme;

/// Where a provider describes itself, or where its keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WellKnownUrl(Uri);

impl WellKnownUrl {
    /// Reads `http[s]://host[:port]/path[?query]`.
    ///
    /// # Errors
    /// What is wrong, in words that show nothing of the text: it may have a password.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let uri: Uri = text.parse().map_err(|_| "it is no URL")?;
        match uri.scheme() {
            Some(scheme) if [Scheme::HTTP, Scheme::HTTPS].contains(scheme) => {}
            _ => return Err("it begins with https:// or http://"),
        }
        match uri.authority() {
            Some(authority) if authority.as_str().contains('@') => Err("it has no user"),
            Some(authority) if !authority.host().is_empty() => Ok(Self(uri)),
            _ => Err("it has no host"),
        }
    }

    /// Whether it is reached by TLS.
    pub fn is_https(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }

    /// Whether its host is this one.
    pub fn is_loopback(&self) -> bool {
        let host = self.0.host().unwrap_or_default();
        let address: Result<IpAddr, _> = host.trim_matches(['[', ']']).parse();
        host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback())
    }

    pub(crate) fn uri(&self) -> &Uri {
        &self.0
    }
}

impl fmt::Display for WellKnownUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_one_of_http_without_a_user() {
        for (text, is_https, is_loopback) in [
            ("https://idp/.well-known/openid-configuration", true, false),
            ("http://127.0.0.1:1/x?p=1", false, true),
            ("http://[::1]:1/x", false, true),
            ("https://LocalHost/x", true, true),
            ("http://localhost.example/x", false, false),
            ("http://10.0.0.1", false, false),
        ] {
            let url = WellKnownUrl::parse(text).expect(text);
            assert_eq!((url.is_https(), url.is_loopback()), (is_https, is_loopback));
        }
        for text in [
            "",
            "idp",
            "/x",
            "ftp://idp/",
            "file:///etc/passwd",
            "https://",
            "https://u:p@idp/",
            "https://idp/a b",
        ] {
            assert!(WellKnownUrl::parse(text).is_err(), "{text}");
        }
    }
}
