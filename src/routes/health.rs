//! `GET /healthcheck`: whether the process lives; `GET /ready`: whether it should get work.

use http::{Response, StatusCode};
use serde::Serialize;

use crate::app::App;
use crate::http_error::json_response;

#[derive(Serialize)]
struct HealthResponse {
    response: &'static str,
}

#[derive(Serialize)]
struct ReadinessResponse {
    ready: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
}

/// 200 as long as the process answers at all.
pub(super) fn healthcheck() -> Response<String> {
    let health = HealthResponse {
        response: "I'm healthy",
    };
    json_response(StatusCode::OK, &health)
}

/// 200, or 503 and why.
pub(super) fn ready(app: App) -> Response<String> {
    let reasons = app.reasons_not_ready();
    let ready = reasons.is_empty();
    let status = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    json_response(status, &ReadinessResponse { ready, reasons })
}
