//! `GET /metrics`: what the proxy counts, for Prometheus and whatever reads its format.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};

use crate::app::App;
use crate::http_error::HttpError;
use crate::metrics::text::TextFormat;

/// All metrics, in the format that `accept` prefers.
pub(super) async fn metrics(app: App, accept: Option<String>) -> Response<String> {
    let format = TextFormat::accepted(accept.as_deref().unwrap_or_default());
    let Ok(text) = app.read_metrics(move |read| format.write(read)).await else {
        let message = "the metrics could not be read (see the log)";
        return HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, message).into_response();
    };
    let mut response = Response::new(text);
    let content_type = HeaderValue::from_static(format.content_type());
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
