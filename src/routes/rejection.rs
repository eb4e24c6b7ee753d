//! The response to a request that no route has taken, and to OPTIONS.

use std::convert::Infallible;

use http::StatusCode;
use http::header::{ALLOW, HeaderValue};
use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reject::MethodNotAllowed;
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

use crate::http_error::{ALLOWED_METHODS, HttpError};

/// Turns warp's rejections into responses; our own errors are none of them.
pub(crate) async fn respond_to_rejection(rejection: Rejection) -> Result<Response, Infallible> {
    Ok(http_error(&rejection).into_response().into_response())
}

fn http_error(rejection: &Rejection) -> HttpError {
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
            PATHS.join(", ")
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

/// Answers OPTIONS where anything is answered, and for the server as a whole, which is `*`
/// (RFC 9110, section 9.3.7). Preflights do not get here.
pub(crate) fn options_route() -> BoxedFilter<(Response,)> {
    let path = warp::path::full().and_then(async |path: FullPath| {
        let path = path.as_str();
        let path = path.strip_suffix('/').unwrap_or(path);
        let is_known = path == "*" || PATHS.contains(&path);
        is_known.then_some(()).ok_or_else(warp::reject)
    });
    let allowed = || {
        let allowed = HeaderValue::from_static(ALLOWED_METHODS);
        let reply = warp::reply::with_status(warp::reply(), StatusCode::NO_CONTENT);
        warp::reply::with_header(reply, ALLOW, allowed).into_response()
    };
    path.untuple_one().and(warp::options()).map(allowed).boxed()
}

/// Every path that is answered.
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
