//! The question to a broker which cluster it belongs to: DescribeCluster, or Metadata before 2.8.
//!
//! It is the first request on a connection: see `current_cluster`.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::{DescribeClusterRequest, MetadataRequest};

use super::connection::Connection;
use crate::error::RequestError;

/// Asks the broker at the other end for its cluster's id; returns why it is not the expected one.
pub(crate) async fn verify(connection: &Connection, timeout: Duration) -> Result<(), String> {
    let Some(expected) = connection.cluster_id() else {
        return Ok(());
    };
    let named = cluster_id(connection, timeout).await;
    match named.map_err(|error| error.to_string())? {
        Some(named) if *named != **expected => Err(format!(
            "it belongs to another cluster ({named}, where {expected} is expected)"
        )),
        _ => Ok(()),
    }
}

async fn cluster_id(
    connection: &Connection,
    timeout: Duration,
) -> Result<Option<Arc<str>>, RequestError> {
    if connection.version::<DescribeClusterRequest>().is_ok() {
        let build = |_version| DescribeClusterRequest::default();
        let (_, response) = connection.call(build, timeout).await?;
        if response.error_code == 0 {
            return Ok(Some(response.cluster_id.as_str().into()));
        }
    }
    let build = |_version| {
        let request = MetadataRequest::default().with_topics(Some(Vec::new()));
        request.with_allow_auto_topic_creation(false)
    };
    let (_, response) = connection.call(build, timeout).await?;
    Ok(response.cluster_id.map(|id| id.as_str().into()))
}
