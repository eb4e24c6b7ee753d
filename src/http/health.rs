//! Whether the process lives, and whether it should get work.

use http::{Response, StatusCode};
use serde::Serialize;

use crate::app::App;
use crate::refusal::json;

#[derive(Serialize)]
struct Health {
    response: &'static str,
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
}

/// 200 as long as the process answers at all.
pub(super) fn healthcheck() -> Response<String> {
    let health = Health {
        response: "I'm healthy",
    };
    json(StatusCode::OK, &health)
}

/// 200, or 503 and why.
pub(super) fn ready(app: App) -> Response<String> {
    let reasons = app.not_ready();
    let ready = reasons.is_empty();
    let status = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    json(status, &Readiness { ready, reasons })
}
