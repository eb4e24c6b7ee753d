//! The response to a request that no route has taken.

use std::convert::Infallible;

use http::StatusCode;
use http::header::{ALLOW, HeaderValue};
use warp::reject::MethodNotAllowed;
use warp::reply::Response;
use warp::{Rejection, Reply};

use crate::http_error::HttpError;

/// Turns warp's rejections into responses; our own errors are none of them.
pub(crate) async fn respond_to_rejection(rejection: Rejection) -> Result<Response, Infallible> {
    Ok(http_error(&rejection).into_response().into_response())
}

fn http_error(rejection: &Rejection) -> HttpError {
    if rejection.find::<MethodNotAllowed>().is_some() {
        let allowed = HeaderValue::from_static("GET, HEAD");
        return HttpError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "this path answers GET and HEAD requests only",
        )
        .with_header(ALLOW, allowed);
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

/// Every path that is answered.
const PATHS: &[&str] = &[
    "/socket/in",
    "/socket/out",
    "/healthcheck",
    "/ready",
    "/kafka/cluster/info",
    "/schemas/avro/producer/record",
    "/schemas/avro/producer/result",
    "/schemas/avro/consumer/record",
    "/schemas/avro/consumer/commit",
    "/schemas/avro/producer/commit",
];
