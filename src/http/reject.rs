//! What a request that no route took is told.

use std::convert::Infallible;

use http::StatusCode;
use http::header::{ALLOW, HeaderValue};
use warp::reject::MethodNotAllowed;
use warp::reply::Response;
use warp::{Rejection, Reply};

use crate::refusal::Refusal;

/// Turns warp's rejections into refusals; there are no others.
pub async fn recover(rejection: Rejection) -> Result<Response, Infallible> {
    Ok(refusal(&rejection).into_response().into_response())
}

fn refusal(rejection: &Rejection) -> Refusal {
    if rejection.find::<MethodNotAllowed>().is_some() {
        let allowed = HeaderValue::from_static("GET, HEAD");
        return Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "this path answers GET and HEAD requests only",
        )
        .with(ALLOW, allowed);
    }
    if rejection.is_not_found() {
        return Refusal::new(StatusCode::NOT_FOUND, "there is nothing at this path");
    }
    tracing::warn!(?rejection, "request rejected without a reason of ours");
    Refusal::bad_request("the request could not be understood")
}
