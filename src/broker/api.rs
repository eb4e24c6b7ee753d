//! Requests in, responses out: one module per family of APIs.
//!
//! Each is a plain function from a request to a response over the shared state; the few
//! that wait (a fetch at the end of the log, a join) wait outside the lock.

mod commits;
mod fetch;
mod groups;
mod metadata;
mod offset_delete;
mod offsets;
mod produce;
#[cfg(test)]
mod tests;
mod topics;
mod transactions;

use kafka_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::messages::{ApiVersionsResponse, RequestKind, ResponseKind};
use kafka_protocol::protocol::StrBytes;

use super::config::BrokerConfig;
use super::context::RequestContext;
#[cfg(any(test, feature = "faults"))]
use super::error_responses;

/// Answers one request. None: no answer is due, or none is possible.
pub(super) async fn answer(
    context: &RequestContext,
    version: i16,
    request: RequestKind,
) -> Option<ResponseKind> {
    Some(match request {
        RequestKind::ApiVersions(_) => versions(&context.shared.config, version, 0).into(),
        RequestKind::Metadata(r) => metadata::metadata(context, version, r).into(),
        RequestKind::DescribeCluster(_) => metadata::describe_cluster(context, version).into(),
        RequestKind::FindCoordinator(r) => metadata::find_coordinator(context, version, r).into(),
        RequestKind::Produce(r) => return produce::produce(context, version, r).map(Into::into),
        RequestKind::InitProducerId(r) => {
            transactions::init_producer_id(context, version, r).into()
        }
        RequestKind::AddPartitionsToTxn(r) => {
            transactions::add_partitions(context, version, r).into()
        }
        RequestKind::EndTxn(r) => transactions::end_txn(context, version, r).into(),
        RequestKind::DescribeTransactions(r) => transactions::describe(context, r).into(),
        RequestKind::ListTransactions(r) => transactions::list(context, &r).into(),
        RequestKind::Fetch(r) => fetch::fetch(context, version, r).await.into(),
        RequestKind::ListOffsets(r) => offsets::list_offsets(context, version, r).into(),
        RequestKind::OffsetForLeaderEpoch(r) => offsets::offset_for_leader_epoch(context, r).into(),
        RequestKind::DeleteRecords(r) => offsets::delete_records(context, r).into(),
        RequestKind::JoinGroup(r) => groups::join_group(context, version, r).await.into(),
        RequestKind::SyncGroup(r) => groups::sync_group(context, version, r).await.into(),
        RequestKind::Heartbeat(r) => groups::heartbeat(context, r).into(),
        RequestKind::LeaveGroup(r) => groups::leave_group(context, version, r).into(),
        RequestKind::ListGroups(r) => groups::list_groups(context, version, &r).into(),
        RequestKind::DescribeGroups(r) => groups::describe_groups(context, version, r).into(),
        RequestKind::DeleteGroups(r) => groups::delete_groups(context, r).into(),
        RequestKind::OffsetCommit(r) => commits::offset_commit(context, version, r).await.into(),
        RequestKind::OffsetFetch(r) => commits::offset_fetch(context, version, r).into(),
        RequestKind::OffsetDelete(r) => offset_delete::offset_delete(context, r).into(),
        RequestKind::CreateTopics(r) => topics::create_topics(context, version, r).into(),
        RequestKind::DeleteTopics(r) => topics::delete_topics(context, version, r).into(),
        RequestKind::CreatePartitions(r) => topics::create_partitions(context, r).into(),
        RequestKind::DescribeConfigs(r) => topics::describe_configs(context, r).into(),
        _ => return None,
    })
}

/// Answers a request with an error code, in every place where its API has one, and does
/// nothing else. None: no answer is due.
#[cfg(any(test, feature = "faults"))]
pub(super) fn error_response(
    context: &RequestContext,
    version: i16,
    request: RequestKind,
    code: i16,
) -> Option<ResponseKind> {
    match request {
        RequestKind::Metadata(r) => {
            Some(metadata::error_response(context, version, r, code).into())
        }
        RequestKind::Fetch(r) => Some(fetch::error_response(context, version, r, code).into()),
        request => error_responses::error_response(request, version, code),
    }
}

/// The table of served versions, and the features (KIP-584) in a response that has room for them.
pub(super) fn versions(
    config: &BrokerConfig,
    version: i16,
    error_code: i16,
) -> ApiVersionsResponse {
    let keys = config.versions.iter().map(|(key, min, max)| {
        ApiVersion::default()
            .with_api_key(key)
            .with_min_version(min)
            .with_max_version(max)
    });
    let response = ApiVersionsResponse::default()
        .with_error_code(error_code)
        .with_api_keys(keys.collect());
    let Some(level) = config.finalized_transaction_version() else {
        return response;
    };
    if version < FEATURES_VERSION {
        return response;
    }
    let name = || StrBytes::from_static_str("transaction.version");
    let supported = SupportedFeatureKey::default()
        .with_name(name())
        .with_min_version(1)
        .with_max_version(2);
    let finalized = FinalizedFeatureKey::default()
        .with_name(name())
        .with_min_version_level(level)
        .with_max_version_level(level);
    response
        .with_supported_features(vec![supported])
        .with_finalized_features_epoch(1)
        .with_finalized_features(vec![finalized])
}

/// The first version of ApiVersions with features.
const FEATURES_VERSION: i16 = 3;
