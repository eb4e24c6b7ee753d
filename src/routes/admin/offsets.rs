//! What a group has committed: told, forgotten, and set.

use std::sync::Arc;

use http::StatusCode;
use kafka_client::TopicPartition;
use kafka_client::admin::groups::{GroupAdminError, GroupOffset, LogEndOffset, LogEndOffsets};
use serde::Serialize;
use warp::Reply;
use warp::reply::Response;

use super::alteration;
use crate::app::App;
use crate::http_error::{HttpError, json_response};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedOffset<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    metadata: &'a str,
    /// Null where there is no such partition any more, or nobody says where its log ends.
    log_end_offset: Option<i64>,
    lag: Option<i64>,
}

/// The offsets of a group, and how far they are from the ends of the logs.
pub(super) async fn list(app: &App, group: &str) -> Result<Response, HttpError> {
    // That there is nothing committed says not that there is no such group.
    let group: Arc<str> = group.into();
    app.group_admin.describe_group(&group).await?;
    respond_with_offsets(app, &group).await
}

async fn respond_with_offsets(app: &App, group: &Arc<str>) -> Result<Response, HttpError> {
    let offsets = app.group_admin.committed_offsets(group).await?;
    let partitions: Vec<_> = offsets.iter().map(|offset| offset.tp.clone()).collect();
    let ends = app.group_admin.log_ends(&partitions).await?;
    let listed: Vec<_> = offsets.iter().map(|o| listed(o, &ends)).collect();
    Ok(json_response(StatusCode::OK, &listed).into_response())
}

fn listed<'a>(committed: &'a GroupOffset, ends: &LogEndOffsets) -> ListedOffset<'a> {
    let log_end_offset = match ends.get(&committed.tp) {
        LogEndOffset::At(end) => Some(end),
        LogEndOffset::Unknown | LogEndOffset::NoPartition => None,
    };
    ListedOffset {
        topic: &committed.tp.topic,
        partition: committed.tp.partition,
        offset: committed.offset,
        metadata: &committed.metadata,
        log_end_offset,
        // A log that was cut may end before what was committed.
        lag: log_end_offset.map(|end| (end - committed.offset).max(0)),
    }
}

/// Forgets all of them.
pub(super) async fn delete(app: &App, group: &str) -> Result<Response, HttpError> {
    let group: Arc<str> = group.into();
    check_has_no_members(app, &group).await?;
    let offsets = app.group_admin.committed_offsets(&group).await?;
    app.group_admin.delete_offsets(&group, &offsets).await?;
    tracing::info!(%group, offsets = offsets.len(), "an administrator has deleted the offsets of a group");
    respond_with_offsets(app, &group).await
}

/// Sets those of a topic.
pub(super) async fn alter(
    app: &App,
    group: &str,
    topic: &str,
    body: &[u8],
) -> Result<Response, HttpError> {
    let group: Arc<str> = group.into();
    let topic: Arc<str> = topic.into();
    let new = alteration::parse(body, &topic)?;
    check_has_no_members(app, &group).await?;
    let mut partitions: Vec<_> = new.iter().map(|offset| offset.tp.clone()).collect();
    if partitions.is_empty() {
        // Whether there is such a topic is asked all the same.
        partitions.push(TopicPartition::new(Arc::clone(&topic), 0));
    }
    let ends = app.group_admin.log_ends(&partitions).await?;
    if !ends.has_topic(&topic) {
        let message = format!("topic {topic:?} does not exist");
        return Err(HttpError::new(StatusCode::NOT_FOUND, message));
    }
    alteration::check(&new, &ends)?;
    app.group_admin.alter_offsets(&group, &new).await?;
    tracing::info!(%group, %topic, offsets = new.len(), "an administrator has set offsets of a group");
    respond_with_offsets(app, &group).await
}

async fn check_has_no_members(app: &App, group: &Arc<str>) -> Result<(), HttpError> {
    let described = app.group_admin.describe_group(group).await?;
    if !described.members.is_empty() {
        let group = Arc::clone(group);
        return Err(GroupAdminError::NotEmpty { group }.into());
    }
    Ok(())
}
