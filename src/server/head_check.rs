//! What hyper lets pass in the head of a request and this server refuses, since a server in front
//! may read it differently; and the headers of every answer.

use std::fmt::Write;

use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, HOST, HeaderName,
    HeaderValue, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, TRANSFER_ENCODING, UPGRADE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Request, Response, StatusCode, Version};

use crate::http_error::HttpError;
use crate::http_keep_alive::{HeadProgress, LAST_HEAD_FIELDS};

/// Why the head is refused, if it is.
pub(super) fn head_error<B>(request: &Request<B>, progress: &HeadProgress) -> Option<HttpError> {
    let headers = request.headers();
    let hosts = headers.get_all(HOST).iter().count();
    if progress.is_too_long() {
        return Some(HttpError::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "the head of the request is too long (server.limits.header-bytes-max)",
        ));
    }
    let message = if progress.has_bare_line_feed() {
        "the lines of a request must end with CR LF"
    } else if hosts > 1 {
        "there must be one header Host, not several"
    } else if hosts == 0 && request.version() >= Version::HTTP_11 {
        "header Host is missing"
    } else if headers.contains_key(UPGRADE) && has_body(headers) {
        "a request for an upgrade must have no body"
    } else {
        return None;
    };
    Some(HttpError::bad_request(message))
}

fn has_body(headers: &HeaderMap) -> bool {
    let is_empty = |length: &HeaderValue| length == "0";
    headers.contains_key(TRANSFER_ENCODING) || !headers.get_all(CONTENT_LENGTH).iter().all(is_empty)
}

/// What is said of a head that hyper refuses.
pub(super) fn unreadable(status: StatusCode) -> String {
    let message = match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            "the head of the request has too many fields, or is too long \
             (server.limits.header-bytes-max)"
        }
        _ => "this is no request of HTTP/1.1 (RFC 9112)",
    };
    HttpError::new(status, message).into_response().into_body()
}

/// Whether no other head may follow this one on its connection.
pub(super) fn is_last<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let mut fields = LAST_HEAD_FIELDS.iter();
    fields.any(|name| headers.contains_key(name))
}

/// What every answer has, unless it says otherwise itself: a browser takes it for nothing but what
/// it says that it is, shows it in no frame, runs nothing of it, and keeps nothing.
const SECURITY_HEADERS: [(HeaderName, &str); 4] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    ),
    (CACHE_CONTROL, "no-store"),
];

/// A year, as browsers have it for those that mean it (RFC 6797).
const STRICT_TRANSPORT: &str = "max-age=31536000";

/// The lines of [`SECURITY_HEADERS`], for answers that are written as text.
pub(super) fn security_lines() -> String {
    let mut lines = String::new();
    for (name, value) in &SECURITY_HEADERS {
        let _ = write!(lines, "{name}: {value}\r\n");
    }
    lines
}

/// Adds what every answer has. `tls_only`: a browser is never to ask this host without TLS again,
/// at any port, so that is only said where there is no other port.
pub(super) fn complete<B>(response: &mut Response<B>, is_last: bool, tls_only: bool) {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    if tls_only {
        let value = HeaderValue::from_static(STRICT_TRANSPORT);
        headers.insert(STRICT_TRANSPORT_SECURITY, value);
    }
    if is_last {
        headers.append(CONNECTION, HeaderValue::from_static("close"));
    }
}
