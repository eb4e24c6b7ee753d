//! Refusals as HTTP: a status and a JSON body `{"message": "…"}`.
//!
//! The one place that turns "no" into a response, for plain requests and for WebSocket
//! upgrades alike.

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde::Serialize;

/// Why a request is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({status})")]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// For people: what is wrong, and what would be right.
    pub message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
struct Body<'a> {
    message: &'a str,
}

impl Refusal {
    /// A refusal with that status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            headers: Vec::new(),
        }
    }

    /// 400: the request can never succeed as it is.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 403
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// 403 for a page that is none of those allowed.
    pub fn foreign_origin() -> Self {
        Self::forbidden("this Origin may not use this server")
    }

    /// 503: later may be better, and when.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message).retry_after()
    }

    /// Adds `Retry-After`.
    pub fn retry_after(self) -> Self {
        self.with(RETRY_AFTER, HeaderValue::from_static("5"))
    }

    /// Adds a header.
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The response.
    pub fn into_response(self) -> Response<String> {
        let body = Body {
            message: &self.message,
        };
        let mut response = json(self.status, &body);
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

/// A JSON answer.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response<String> {
    let text = serde_json::to_string(body).expect("texts and numbers always serialize");
    let mut response = Response::new(text);
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_json_with_a_message() {
        let response = Refusal::unavailable("no \"broker\"").into_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(response.headers()[RETRY_AFTER], "5");
        assert_eq!(response.body(), r#"{"message":"no \"broker\""}"#);
    }
}
