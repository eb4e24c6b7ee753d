//! `sasl.oauthbearer.token.endpoint.url`

use std::path::PathBuf;

use http::Uri;
use http::uri::Scheme;
use percent_encoding::percent_decode_str;

/// Where tokens are had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenUrl {
    /// `http:` and `https:`: a token endpoint.
    Endpoint(Uri),
    /// `file:`: a file with nothing but a token.
    File(PathBuf),
}

impl TokenUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong, in words that show nothing of the text: it may have a password.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(path) = text.strip_prefix("file:") {
            // file:/path and file:///path, as Java reads them.
            let path = path.strip_prefix("//").unwrap_or(path);
            if !path.starts_with('/') {
                return Err("a file's URL has a path from the root, as in file:///path");
            }
            let path = percent_decode_str(path).decode_utf8();
            let path = path.map_err(|_| "its path is not UTF-8")?;
            return Ok(Self::File(PathBuf::from(&*path)));
        }
        let uri: Uri = text.parse().map_err(|_| "it is no URL")?;
        match uri.scheme() {
            Some(scheme) if [Scheme::HTTP, Scheme::HTTPS].contains(scheme) => {}
            _ => return Err("it begins with https://, http:// or file:///"),
        }
        match uri.authority() {
            Some(authority) if authority.as_str().contains('@') => {
                Err("it has no user; the client's id and secret are settings of their own")
            }
            Some(authority) if !authority.host().is_empty() => Ok(Self::Endpoint(uri)),
            _ => Err("it has no host"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_that_of_an_endpoint_or_of_a_file() {
        for text in [
            "https://idp/oauth/token?a=b",
            "http://127.0.0.1:1/",
            "https://idp",
        ] {
            let endpoint = TokenUrl::Endpoint(text.parse().expect(text));
            assert_eq!(TokenUrl::parse(text), Ok(endpoint), "{text}");
        }
        for (text, path) in [
            ("file:///run/secrets/token", "/run/secrets/token"),
            ("file:/run/a%20b", "/run/a b"),
        ] {
            assert_eq!(TokenUrl::parse(text), Ok(TokenUrl::File(path.into())));
        }
        for text in [
            "",
            "idp",
            "ftp://idp/",
            "https://",
            "https://u:p@idp/",
            "file:token",
        ] {
            assert!(TokenUrl::parse(text).is_err(), "{text}");
        }
    }
}
