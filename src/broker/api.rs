//! Requests in, responses out: one module per family of APIs.
//!
//! Each is a plain function from a request to a response over the shared state; the few
//! that wait (a fetch at the end of the log, a join) wait outside the lock.

mod commits;
mod fetch;
mod groups;
mod metadata;
mod offsets;
mod produce;
#[cfg(test)]
mod tests;
mod topics;

use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiVersionsResponse, RequestKind, ResponseKind};

use super::refusal;
use super::shared::RequestContext;
use super::versions::AdvertisedVersions;

/// Answers one request. None: no answer is due, or none is possible.
pub(super) async fn answer(
    caller: &RequestContext,
    version: i16,
    request: RequestKind,
) -> Option<ResponseKind> {
    Some(match request {
        RequestKind::ApiVersions(_) => versions(&caller.shared.config.versions, 0).into(),
        RequestKind::Metadata(r) => metadata::metadata(caller, version, r).into(),
        RequestKind::DescribeCluster(_) => metadata::describe_cluster(caller, version).into(),
        RequestKind::FindCoordinator(r) => metadata::find_coordinator(caller, version, r).into(),
        RequestKind::Produce(r) => return produce::produce(caller, version, r).map(Into::into),
        RequestKind::InitProducerId(r) => produce::init_producer_id(caller, r).into(),
        RequestKind::Fetch(r) => fetch::fetch(caller, version, r).await.into(),
        RequestKind::ListOffsets(r) => offsets::list_offsets(caller, version, r).into(),
        RequestKind::OffsetForLeaderEpoch(r) => offsets::offset_for_leader_epoch(caller, r).into(),
        RequestKind::DeleteRecords(r) => offsets::delete_records(caller, r).into(),
        RequestKind::JoinGroup(r) => groups::join_group(caller, version, r).await.into(),
        RequestKind::SyncGroup(r) => groups::sync_group(caller, version, r).await.into(),
        RequestKind::Heartbeat(r) => groups::heartbeat(caller, r).into(),
        RequestKind::LeaveGroup(r) => groups::leave_group(caller, version, r).into(),
        RequestKind::ListGroups(r) => groups::list_groups(caller, version, &r).into(),
        RequestKind::DescribeGroups(r) => groups::describe_groups(caller, version, r).into(),
        RequestKind::DeleteGroups(r) => groups::delete_groups(caller, r).into(),
        RequestKind::OffsetCommit(r) => commits::offset_commit(caller, r).into(),
        RequestKind::OffsetFetch(r) => commits::offset_fetch(caller, version, r).into(),
        RequestKind::CreateTopics(r) => topics::create_topics(caller, version, r).into(),
        RequestKind::DeleteTopics(r) => topics::delete_topics(caller, version, r).into(),
        RequestKind::CreatePartitions(r) => topics::create_partitions(caller, r).into(),
        RequestKind::DescribeConfigs(r) => topics::describe_configs(caller, r).into(),
        _ => return None,
    })
}

/// Answers a request with an error code, in every place where its API has room for one,
/// and does nothing else. None: no answer is due.
pub(super) fn refuse(
    caller: &RequestContext,
    version: i16,
    request: RequestKind,
    code: i16,
) -> Option<ResponseKind> {
    match request {
        RequestKind::Metadata(r) => Some(metadata::refuse(caller, version, r, code).into()),
        RequestKind::Fetch(r) => Some(fetch::refuse(caller, version, r, code).into()),
        request => refusal::refuse(request, version, code),
    }
}

/// The table of served versions.
pub(super) fn versions(versions: &AdvertisedVersions, error_code: i16) -> ApiVersionsResponse {
    let keys = versions.iter().map(|(key, min, max)| {
        ApiVersion::default()
            .with_api_key(key)
            .with_min_version(min)
            .with_max_version(max)
    });
    ApiVersionsResponse::default()
        .with_error_code(error_code)
        .with_api_keys(keys.collect())
}
