//! `GET /kafka/cluster/info`: the brokers of the cluster, as its metadata has them at the time of
//! the request.

use std::time::Duration;

use http::{Response, StatusCode};
use serde::Serialize;
use tokio::time::timeout;

use crate::app::App;
use crate::http_error::{HttpError, json_response};

/// How long the metadata may take to be refreshed.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct BrokerInfo<'a> {
    id: i32,
    host: &'a str,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    rack: Option<&'a str>,
}

/// `[{"id","host","port","rack"?}]`, or 503 when no broker answers in time.
pub(super) async fn cluster_info(app: App) -> Response<String> {
    let metadata = app.cluster().metadata();
    let reason = match timeout(REFRESH_TIMEOUT, metadata.refresh()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(match metadata.last_update_error() {
            Some(reason) => reason.to_string(),
            None => format!("no broker answered within {} s", REFRESH_TIMEOUT.as_secs()),
        }),
    };
    if let Some(reason) = reason {
        tracing::debug!(reason, "the brokers of the cluster are not known");
        return HttpError::brokers_unavailable("no broker can be reached", reason)
            .exposing_brokers(app.exposes_brokers())
            .into_response();
    }
    let snapshot = metadata.snapshot();
    let mut brokers: Vec<_> = snapshot
        .brokers
        .iter()
        .map(|broker| BrokerInfo {
            id: broker.id.0,
            host: &broker.host,
            port: broker.port,
            rack: broker.rack.as_deref(),
        })
        .collect();
    brokers.sort_by_key(|broker| broker.id);
    json_response(StatusCode::OK, &brokers)
}
