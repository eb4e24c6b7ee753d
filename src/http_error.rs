//! Errors as HTTP responses: a status and a JSON body `{"message": "…"}`.
//!
//! The one place that turns a refused request into a response, for plain requests and for
//! WebSocket upgrades alike.

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde::Serialize;

/// What every path answers.
pub(crate) const ALLOWED_METHODS: &str = "GET, HEAD, OPTIONS";

/// Why a request is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({status})")]
pub(crate) struct HttpError {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// For people: what is wrong, and what would be right.
    pub(crate) message: String,
    /// For operators: what names brokers.
    pub(crate) detail: Option<String>,
    /// For the log, in the place of all that.
    logged: Option<&'static str>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    message: &'a str,
}

impl HttpError {
    /// An error with that status.
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            detail: None,
            logged: None,
            headers: Vec::new(),
        }
    }

    /// 400: the request can never succeed as it is.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 403: the client lacks permission.
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// 403 for a page whose origin is none of those allowed.
    pub(crate) fn disallowed_origin() -> Self {
        Self::forbidden("this Origin may not use this server (server.websocket.allowed-origins)")
    }

    /// 403 for a request for a host that is none of those allowed.
    pub(crate) fn disallowed_host() -> Self {
        Self::forbidden(
            "this Host is not loopback, and a server with --dev is for this host only, unless \
             --bind-interface or --websocket-allowed-origins says otherwise",
        )
    }

    /// 503: the same request may succeed later; `Retry-After` says when.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message).with_retry_after()
    }

    /// 503 because of the brokers. The message names none of them; the detail, for operators, does.
    pub(crate) fn brokers_unavailable(
        message: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            detail: Some(detail.into()),
            ..Self::unavailable(message)
        }
    }

    /// What operators are told of it.
    pub(crate) fn reason(&self) -> &str {
        let detail = self.detail.as_deref();
        self.logged.or(detail).unwrap_or(&self.message)
    }

    /// With that for the log, where the reason is for the client only.
    pub(crate) fn logged_as(mut self, reason: &'static str) -> Self {
        self.logged = Some(reason);
        self
    }

    /// With the detail as its message, where clients may know which brokers there are.
    pub(crate) fn exposing_brokers(mut self, expose: bool) -> Self {
        if let Some(detail) = self.detail.take_if(|_| expose) {
            self.message = detail;
        }
        self
    }

    /// Adds `Retry-After`.
    pub(crate) fn with_retry_after(self) -> Self {
        self.with_header(RETRY_AFTER, HeaderValue::from_static("5"))
    }

    /// Adds a header.
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The response.
    pub(crate) fn into_response(self) -> Response<String> {
        let body = ErrorBody {
            message: &self.message,
        };
        let mut response = json_response(self.status, &body);
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

/// A response with a JSON body.
pub(crate) fn json_response(status: StatusCode, body: &impl Serialize) -> Response<String> {
    let text = serde_json::to_string(body).expect("texts and numbers always serialize");
    let mut response = Response::new(text);
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_json_with_a_message() {
        let response = HttpError::unavailable("no \"broker\"").into_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(response.headers()[RETRY_AFTER], "5");
        assert_eq!(response.body(), r#"{"message":"no \"broker\""}"#);
    }

    #[test]
    fn brokers_are_named_to_operators_and_to_clients_that_may_know() {
        let error = HttpError::brokers_unavailable("no broker answers", "kafka-1:9092 is away");
        let message = |expose| error.clone().exposing_brokers(expose).message;
        assert_eq!(error.reason(), "kafka-1:9092 is away");
        assert_eq!(message(true), "kafka-1:9092 is away");
        assert_eq!(message(false), "no broker answers");
    }
}
