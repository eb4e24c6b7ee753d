//! The response to a request that no route has taken, and to OPTIONS.

use std::sync::Arc;

use futures_util::future::ready;
use http::StatusCode;
use http::header::{ALLOW, HeaderValue};
use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reject::MethodNotAllowed;
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

use super::console;
use crate::config::ServerConfig;
use crate::http_error::{ALLOWED_METHODS, HttpError};

/// Every path that is answered.
#[derive(Clone, Debug)]
pub(crate) struct AnsweredPaths(Arc<[&'static str]>);

impl AnsweredPaths {
    /// With these settings.
    pub(crate) fn new(server: &ServerConfig) -> Self {
        let console = server.console_enabled.then_some(console::PATHS);
        let console = console.into_iter().flatten();
        Self(console.chain(PATHS.iter().copied()).collect())
    }

    /// Turns warp's rejections into responses; our own errors are none of them.
    pub(crate) fn respond_to_rejection(&self, rejection: &Rejection) -> Response {
        http_error(rejection, self).into_response().into_response()
    }

    /// Answers OPTIONS where anything is answered, and for the server as a whole, which is `*`
    /// (RFC 9110, section 9.3.7). Preflights do not get here.
    pub(crate) fn options_route(&self) -> BoxedFilter<(Response,)> {
        let paths = self.clone();
        let path = warp::path::full().and_then(move |path: FullPath| {
            let path = path.as_str();
            let without_slash = path.strip_suffix('/').unwrap_or(path);
            let is_known = path == "*" || [path, without_slash].iter().any(|p| paths.0.contains(p));
            ready(is_known.then_some(()).ok_or_else(warp::reject))
        });
        let allowed = || {
            let allowed = HeaderValue::from_static(ALLOWED_METHODS);
            let reply = warp::reply::with_status(warp::reply(), StatusCode::NO_CONTENT);
            warp::reply::with_header(reply, ALLOW, allowed).into_response()
        };
        path.untuple_one().and(warp::options()).map(allowed).boxed()
    }
}

fn http_error(rejection: &Rejection, paths: &AnsweredPaths) -> HttpError {
    if rejection.find::<MethodNotAllowed>().is_some() {
        return HttpError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "this path answers GET and HEAD requests only",
        )
        .with_header(ALLOW, HeaderValue::from_static(ALLOWED_METHODS));
    }
    if rejection.is_not_found() {
        let message = format!(
            "there is nothing at this path; there are {}",
            paths.0.join(", ")
        );
        return HttpError::new(StatusCode::NOT_FOUND, message);
    }
    // It has no text for people.
    tracing::debug!(?rejection, "request rejected");
    tracing::warn!(
        "a request was rejected for a reason that is not ours; log.level=debug shows it"
    );
    HttpError::bad_request("the request could not be understood")
}

/// What is answered whatever the settings.
const PATHS: &[&str] = &[
    "/socket/in",
    "/socket/out",
    "/healthcheck",
    "/ready",
    "/metrics",
    "/kafka/cluster/info",
    "/schemas/avro/producer/record",
    "/schemas/avro/producer/result",
    "/schemas/avro/consumer/record",
    "/schemas/avro/consumer/commit",
    "/schemas/avro/producer/commit",
];
