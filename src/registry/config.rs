//! Where the registry is, and who we are to it.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;

/// The registry's settings.
#[derive(Clone, Debug)]
pub struct SchemaRegistryConfig {
    /// Where it answers, in the order in which they are tried; empty: there is none.
    pub urls: Vec<RegistryUrl>,
    /// Whether our own schemas are registered; otherwise they have to be there.
    pub auto_register_schemas: bool,
    /// Where the credentials come from.
    pub credentials_source: CredentialsSource,
    /// Credentials for all URLs, of [`CredentialsSource::UserInfo`].
    pub user_info: Option<UserInfo>,
    /// How long one URL may take to answer.
    pub request_timeout: Duration,
}

impl Default for SchemaRegistryConfig {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            auto_register_schemas: true,
            credentials_source: CredentialsSource::UserInfo,
            user_info: None,
            request_timeout: Duration::from_secs(5),
        }
    }
}

impl SchemaRegistryConfig {
    /// The header `Authorization` for that URL.
    pub(crate) fn authorization(&self, url: &RegistryUrl) -> Option<HeaderValue> {
        let common = match self.credentials_source {
            CredentialsSource::UserInfo => self.user_info.as_ref(),
            CredentialsSource::Url => None,
        };
        common.or(url.user_info.as_ref()).map(UserInfo::basic)
    }
}

/// `basic.auth.credentials.source`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialsSource {
    /// The setting `user.info`; where that is not given, the URL.
    UserInfo,
    /// The URL.
    Url,
}

/// User and password, which show as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct UserInfo(String);

impl UserInfo {
    /// Reads `user:password`; `None` when it is not that.
    pub fn parse(text: &str) -> Option<Self> {
        let (user, _) = text.split_once(':')?;
        (!user.is_empty()).then(|| Self(text.to_owned()))
    }

    fn basic(&self) -> HeaderValue {
        let text = format!("Basic {}", STANDARD.encode(&self.0));
        let mut value = HeaderValue::try_from(text).expect("base64 is ASCII");
        value.set_sensitive(true);
        value
    }
}

impl fmt::Debug for UserInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a registry answers. Shows without the credentials that it may have.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryUrl {
    scheme: Scheme,
    authority: Authority,
    /// Without a slash at its end.
    path: String,
    user_info: Option<UserInfo>,
}

impl RegistryUrl {
    /// Reads `http[s]://[user:password@]host[:port][/path]`.
    ///
    /// # Errors
    /// What is wrong, in words that show nothing of the text: it may have a password.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let uri: Uri = text.parse().map_err(|_| "it is no URL")?;
        let parts = uri.into_parts();
        let scheme = match parts.scheme {
            Some(scheme) if [Scheme::HTTP, Scheme::HTTPS].contains(&scheme) => scheme,
            _ => return Err("it begins with http:// or https://"),
        };
        let authority = parts.authority.ok_or("it has no host")?;
        let path = parts.path_and_query.ok_or("it has no host")?;
        if path.query().is_some() {
            return Err("it has no query");
        }
        let (user_info, host) = match authority.as_str().rsplit_once('@') {
            Some((user_info, host)) => {
                let decoded = percent_decode_str(user_info).decode_utf8();
                let decoded = decoded.map_err(|_| "its user or password is not UTF-8")?;
                let user_info = UserInfo::parse(&decoded);
                (
                    Some(user_info.ok_or("a user has a password, as in user:password@host")?),
                    host,
                )
            }
            None => (None, authority.as_str()),
        };
        let authority: Authority = host.parse().map_err(|_| "it has no host")?;
        if authority.host().is_empty() {
            return Err("it has no host");
        }
        Ok(Self {
            scheme,
            authority,
            path: path.path().trim_end_matches('/').to_owned(),
            user_info,
        })
    }

    /// Whether it is reached by TLS.
    pub(crate) fn is_https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// The address of a resource of the registry; `path` begins with a slash.
    pub(crate) fn join(&self, path: &str) -> Uri {
        let uri = Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}{path}", self.path));
        uri.build().expect("its parts are those of a URL")
    }
}

impl fmt::Display for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)
    }
}

impl fmt::Debug for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_scheme_a_host_and_maybe_credentials_and_a_path() {
        for (text, shown, joined) in [
            ("http://r:8081", "http://r:8081", "http://r:8081/schemas"),
            ("https://r/", "https://r", "https://r/schemas"),
            (
                "http://u:s%40e@r:1/api/v1/",
                "http://r:1/api/v1",
                "http://r:1/api/v1/schemas",
            ),
            ("http://[::1]:1", "http://[::1]:1", "http://[::1]:1/schemas"),
        ] {
            let url = RegistryUrl::parse(text).expect(text);
            assert_eq!(format!("{url} {url:?}"), format!("{shown} {shown}"));
            assert_eq!(url.join("/schemas").to_string(), joined);
        }
        for text in [
            "",
            "r:8081",
            "/x",
            "ftp://r",
            "http://",
            "http:///x",
            "http://u@r",
            "http://r?a=b",
            "http://:s@r",
        ] {
            assert!(RegistryUrl::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn credentials_come_from_where_the_source_says_and_never_show() {
        let url = RegistryUrl::parse("http://u:s%3Ax@r").expect("a URL");
        let plain = RegistryUrl::parse("http://r").expect("a URL");
        let mut config = SchemaRegistryConfig::default();
        let of = |config: &SchemaRegistryConfig, url: &RegistryUrl| {
            let header = config.authorization(url)?;
            let text = header.to_str().expect("ASCII").strip_prefix("Basic ");
            let decoded = STANDARD.decode(text.expect("Basic")).expect("base64");
            Some(String::from_utf8(decoded).expect("UTF-8"))
        };
        assert_eq!(of(&config, &plain), None);
        assert_eq!(of(&config, &url).as_deref(), Some("u:s:x"));
        config.user_info = UserInfo::parse("me:hunter2");
        assert_eq!(of(&config, &url).as_deref(), Some("me:hunter2"));
        assert_eq!(of(&config, &plain).as_deref(), Some("me:hunter2"));
        config.urls = vec![url.clone()];
        let shown = format!("{config:?} {:?}", config.authorization(&url));
        assert!(
            !shown.contains("hunter2") && !shown.contains("s:x"),
            "{shown}"
        );
        config.credentials_source = CredentialsSource::Url;
        assert_eq!(of(&config, &url).as_deref(), Some("u:s:x"));
        assert_eq!(of(&config, &plain), None);
    }
}
