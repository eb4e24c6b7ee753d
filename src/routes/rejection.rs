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
        return HttpError::new(StatusCode::NOT_FOUND, "there is nothing at this path");
    }
    tracing::warn!(?rejection, "request rejected without a reason of ours");
    HttpError::bad_request("the request could not be understood")
}
