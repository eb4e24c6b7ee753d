//! The brokers of the cluster, asked for at the time of the request.

use std::time::Duration;

use http::{Response, StatusCode};
use serde::Serialize;
use tokio::time::timeout;

use crate::app::App;
use crate::refusal::{Refusal, json};

/// How long the cluster may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Broker<'a> {
    id: i32,
    host: &'a str,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    rack: Option<&'a str>,
}

/// `[{"id","host","port","rack"?}]`, or 503 when no broker answers in time.
pub(super) async fn info(app: App) -> Response<String> {
    let metadata = app.cluster().metadata();
    let reason = match timeout(ANSWER_MAX, metadata.refresh()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(match metadata.ready() {
            Ok(()) => format!("no broker answered within {} s", ANSWER_MAX.as_secs()),
            Err(reason) => reason,
        }),
    };
    if let Some(reason) = reason {
        return Refusal::unavailable(reason).into_response();
    }
    let snapshot = metadata.snapshot();
    let mut brokers: Vec<_> = snapshot
        .brokers
        .iter()
        .map(|broker| Broker {
            id: broker.id.0,
            host: &broker.host,
            port: broker.port,
            rack: broker.rack.as_deref(),
        })
        .collect();
    brokers.sort_by_key(|broker| broker.id);
    json(StatusCode::OK, &brokers)
}
