//! A file of the page: embedded in the program, and answered so that a browser asks each time and
//! is sent it once.

use std::io::Write;
use std::sync::OnceLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    HOST, HeaderValue, IF_NONE_MATCH, VARY,
};
use http::uri::Authority;
use http::{HeaderMap, Response, StatusCode};
use sha1::{Digest, Sha1};

/// One file.
#[derive(Debug)]
pub(super) struct PageFile {
    content_type: HeaderValue,
    plain: Representation,
    /// Compressed when somebody asks for it first; `None` where that saves nothing.
    gzipped: OnceLock<Option<Representation>>,
}

/// What is sent, and the strong validator of just these bytes (RFC 9110, section 8.8.3).
#[derive(Debug)]
struct Representation {
    body: Bytes,
    etag: HeaderValue,
}

impl PageFile {
    /// A file of that name, which says what it is.
    pub(super) fn new(name: &str, content: &'static [u8]) -> Self {
        Self {
            content_type: HeaderValue::from_static(content_type(name)),
            plain: Representation::new(Bytes::from_static(content)),
            gzipped: OnceLock::new(),
        }
    }

    /// The answer to a request with these headers: the file, or 304 for who has it.
    pub(super) fn response(&self, request: &HeaderMap) -> Response<Bytes> {
        let gzipped = accepts_gzip(request).then(|| self.gzipped()).flatten();
        let sent = gzipped.unwrap_or(&self.plain);
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        headers.insert(ETAG, sent.etag.clone());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        headers.insert(CONTENT_SECURITY_POLICY, content_security_policy(request));
        if has_current(request, &sent.etag) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        headers.insert(CONTENT_TYPE, self.content_type.clone());
        if gzipped.is_some() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        *response.body_mut() = sent.body.clone();
        response
    }

    fn gzipped(&self) -> Option<&Representation> {
        let gzipped = self.gzipped.get_or_init(|| {
            let gzipped = gzip(&self.plain.body);
            (gzipped.len() < self.plain.body.len()).then(|| Representation::new(gzipped.into()))
        });
        gzipped.as_ref()
    }
}

impl Representation {
    fn new(body: Bytes) -> Self {
        let mut etag = String::from("\"");
        for byte in &Sha1::digest(&body)[..10] {
            etag.push_str(&format!("{byte:02x}"));
        }
        etag.push('"');
        let etag = HeaderValue::try_from(etag).expect("hexadecimal digits in quotes");
        Self { body, etag }
    }
}

/// What a file is, by the end of its name.
fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml; charset=utf-8",
        _ => "application/octet-stream",
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let written = encoder.write_all(content).and_then(|()| encoder.finish());
    written.expect("memory takes everything")
}

/// Whether the client has what would be sent (RFC 9110, section 13.1.2).
fn has_current(request: &HeaderMap, etag: &HeaderValue) -> bool {
    let lists = request.get_all(IF_NONE_MATCH).iter();
    let lists = lists.filter_map(|list| list.to_str().ok());
    let mut known = lists.flat_map(|list| list.split(',')).map(str::trim);
    known.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag)
}

/// Whether gzip is among the codings that the client accepts (RFC 9110, section 12.5.3).
fn accepts_gzip(request: &HeaderMap) -> bool {
    let lists = request.get_all(ACCEPT_ENCODING).iter();
    let lists = lists.filter_map(|list| list.to_str().ok());
    let mut by_any = false;
    for coding in lists.flat_map(|list| list.split(',')) {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().to_ascii_lowercase();
        let refused = weight.strip_prefix("q=").and_then(|q| q.parse().ok()) == Some(0.0);
        match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => return !refused,
            "*" => by_any = !refused,
            _ => {}
        }
    }
    by_any
}

/// The page runs and shows nothing that is not its own, and talks to nobody but this server. That
/// `'self'` is also the same host by `ws:` and `wss:` is said by CSP level 3, which not every browser
/// in use follows, so that these are named.
fn content_security_policy(request: &HeaderMap) -> HeaderValue {
    let sockets = match request.get(HOST).and_then(nameable_host) {
        Some(host) => format!(" ws://{host} wss://{host}"),
        None => String::new(),
    };
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self'{sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("letters, digits and punctuation")
}

/// The host and port, if they are such as a policy can name, and nothing else: no address of IPv6,
/// and nothing that would end the directive.
fn nameable_host(host: &HeaderValue) -> Option<&str> {
    let host = host.to_str().ok()?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
    let is_host = host.parse::<Authority>().is_ok() && host.chars().all(is_plain);
    is_host.then_some(host)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    const CONTENT: &[u8] = &[b'a'; 1_000];

    fn answer(file: &PageFile, headers: &[(&'static str, &str)]) -> Response<Bytes> {
        let mut request = HeaderMap::new();
        for (name, value) in headers {
            request.append(*name, value.parse().unwrap());
        }
        file.response(&request)
    }

    #[test]
    fn a_file_is_gzipped_for_who_accepts_that_where_it_saves_something() {
        let file = PageFile::new("a.js", CONTENT);
        for (accepted, is_gzipped) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("*", true),
            ("br, *;q=0.1", true),
            ("gzip;q=0", false),
            ("gzip;q=0, *", false),
            ("*;q=0.0", false),
            ("br", false),
            ("", false),
        ] {
            let answer = answer(&file, &[("accept-encoding", accepted)]);
            let encoding = answer.headers().get(CONTENT_ENCODING);
            assert_eq!(encoding.is_some(), is_gzipped, "{accepted}");
            let mut content = Vec::new();
            match is_gzipped {
                true => GzDecoder::new(&answer.body()[..])
                    .read_to_end(&mut content)
                    .unwrap(),
                false => answer.body().as_ref().read_to_end(&mut content).unwrap(),
            };
            assert_eq!(content, CONTENT, "{accepted}");
            assert_eq!(answer.headers()[VARY], "accept-encoding");
        }
        let tiny = PageFile::new("a.js", b"a");
        let answer = answer(&tiny, &[("accept-encoding", "gzip")]);
        assert_eq!(answer.headers().get(CONTENT_ENCODING), None);
    }

    #[test]
    fn who_has_the_bytes_is_not_sent_them_again() {
        let file = PageFile::new("a.css", CONTENT);
        let etag = |headers: &[_]| answer(&file, headers).headers()[ETAG].clone();
        let gzip = ("accept-encoding", "gzip");
        let (plain, gzipped) = (etag(&[]), etag(&[gzip]));
        let [plain, gzipped] = [&plain, &gzipped].map(|etag| etag.to_str().unwrap());
        assert_ne!(plain, gzipped, "other bytes, another validator");
        let other = PageFile::new("a.css", b"b");
        assert_ne!(answer(&other, &[]).headers()[ETAG], plain);
        let (list, weak) = (format!("\"x\", {plain}"), format!("W/{plain}"));
        for (known, more, status) in [
            (plain, None, 304),
            (&list, None, 304),
            (&weak, None, 304),
            ("*", None, 304),
            (gzipped, Some(gzip), 304),
            (plain, Some(gzip), 200),
            (gzipped, None, 200),
            ("\"x\"", None, 200),
        ] {
            let headers: Vec<_> = more.into_iter().chain([("if-none-match", known)]).collect();
            let answer = answer(&file, &headers);
            assert_eq!(answer.status(), status, "{known}");
            assert_eq!(answer.body().is_empty(), status == 304);
            assert!(answer.headers().contains_key(ETAG));
            assert_eq!(answer.headers()[CACHE_CONTROL], "no-cache");
        }
    }

    #[test]
    fn the_policy_names_the_sockets_of_the_host_and_nothing_that_is_no_host() {
        let file = PageFile::new("index.html", CONTENT);
        let connect = |host: &str| {
            let answer = answer(&file, &[("host", host)]);
            let policy = answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'; script-src 'self';"));
            assert!(policy.ends_with("form-action 'none'; frame-ancestors 'none'"));
            let connect = policy
                .split("; ")
                .find(|part| part.starts_with("connect-src"));
            connect.unwrap().to_owned()
        };
        assert_eq!(
            connect("proxy.example:8078"),
            "connect-src 'self' ws://proxy.example:8078 wss://proxy.example:8078"
        );
        for host in [
            "[::1]:8078",
            "a; script-src *",
            "a https://evil.example",
            "a,b",
            "*",
            "u@a",
            "a:b:c",
            "",
        ] {
            assert_eq!(connect(host), "connect-src 'self'", "{host}");
        }
    }

    #[test]
    fn a_file_is_what_its_name_says() {
        for (name, content_type) in [
            ("index.html", "text/html; charset=utf-8"),
            ("a.css", "text/css; charset=utf-8"),
            ("a.js", "text/javascript; charset=utf-8"),
            ("a.svg", "image/svg+xml; charset=utf-8"),
        ] {
            let answer = answer(&PageFile::new(name, CONTENT), &[]);
            assert_eq!(answer.headers()[CONTENT_TYPE], content_type);
        }
    }
}
