//! Fetch: sessions, long polls, and what may be read of a partition.
//!
//! ```text
//! open session ─▶ read ─▶ enough? ─yes─▶ close session ─▶ answer
//!                  ▲        │ no: wait for an append to any of the partitions,
//!                  └────────┘     at most max_wait
//! ```

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint,
    PartitionData,
};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, ProducerId, TopicName};
use tokio::sync::Notify;

use super::super::cluster_state::PartitionState;
use super::super::context::{ClusterData, RequestContext};
use super::super::fetch_sessions::{FetchPartitionRequest, FetchSessionRequest};
use super::super::wire::{millis, owned, text};

/// Reads, waiting for records if there are too few.
pub(super) async fn fetch(
    context: &RequestContext,
    version: i16,
    request: FetchRequest,
) -> FetchResponse {
    let limits = FetchLimits {
        version,
        min_bytes: usize::try_from(request.min_bytes).unwrap_or(0),
        max_bytes: usize::try_from(request.max_bytes).unwrap_or(0),
        committed: request.isolation_level == 1,
    };
    let until = Instant::now() + millis(request.max_wait_ms);
    let session_id = request.session_id;
    let opened = {
        let mut cluster = context.shared.lock();
        let sessions = cluster.sessions(context.node);
        sessions.open(session_request(version, request), Instant::now())
    };
    let fetch_context = match opened {
        Ok(fetch_context) => fetch_context,
        Err(error) => {
            let response = FetchResponse::default().with_error_code(error.code());
            let keep = error == ResponseError::InvalidFetchSessionEpoch;
            return response.with_session_id(if keep { session_id } else { 0 });
        }
    };
    let results = read_until(context, &limits, &fetch_context.wanted, until).await;
    let mut cluster = context.shared.lock();
    let sessions = cluster.sessions(context.node);
    let (session_id, changes) = sessions.close(fetch_context, results, Instant::now());
    let endpoints = endpoints(&cluster, &changes);
    let response = FetchResponse::default()
        .with_responses(by_topic(version, changes))
        .with_node_endpoints(endpoints);
    if version >= 7 {
        response.with_session_id(session_id)
    } else {
        response
    }
}

#[cfg(any(test, feature = "faults"))]
/// Answers `code` for the session if it is about that, else of every partition that the
/// request or its session wants.
pub(super) fn error_response(
    context: &RequestContext,
    version: i16,
    request: FetchRequest,
    code: i16,
) -> FetchResponse {
    let of_session = [
        ResponseError::FetchSessionIdNotFound,
        ResponseError::InvalidFetchSessionEpoch,
        ResponseError::FetchSessionTopicIdError,
    ];
    if of_session.iter().any(|error| error.code() == code) {
        return FetchResponse::default().with_error_code(code);
    }
    let mut cluster = context.shared.lock();
    let sessions = cluster.sessions(context.node);
    let now = Instant::now();
    let fetch_context = match sessions.open(session_request(version, request), now) {
        Ok(fetch_context) => fetch_context,
        Err(error) => return FetchResponse::default().with_error_code(error.code()),
    };
    let failed = |wanted: &FetchPartitionRequest| {
        PartitionData::default()
            .with_partition_index(wanted.partition)
            .with_error_code(code)
            .with_high_watermark(-1)
            .with_last_stable_offset(-1)
            .with_log_start_offset(-1)
            .with_records(Some(Bytes::new()))
    };
    let results = fetch_context.wanted.iter().map(failed).collect();
    let (session_id, changes) = sessions.close(fetch_context, results, now);
    FetchResponse::default()
        .with_session_id(session_id)
        .with_responses(by_topic(version, changes))
}

struct FetchLimits {
    version: i16,
    min_bytes: usize,
    max_bytes: usize,
    committed: bool,
}

async fn read_until(
    context: &RequestContext,
    limits: &FetchLimits,
    wanted: &[FetchPartitionRequest],
    until: Instant,
) -> Vec<PartitionData> {
    let waiter = Arc::new(Notify::new());
    loop {
        let results = {
            let mut cluster = context.shared.lock();
            let (results, enough) = read(&mut cluster, context, limits, wanted);
            if enough || wanted.is_empty() || Instant::now() >= until {
                return results;
            }
            for wanted in wanted {
                if let Some(partition) = partition_mut(&mut cluster, limits.version, wanted) {
                    partition.wait(&waiter);
                }
            }
            results
        };
        drop(results);
        let timeout = tokio::time::sleep_until(until.into());
        tokio::select! {
            () = waiter.notified() => {}
            () = timeout => {}
        }
    }
}

/// What can be read now, and whether it is enough (`min.bytes`) to answer.
fn read(
    cluster: &mut ClusterData,
    context: &RequestContext,
    limits: &FetchLimits,
    wanted: &[FetchPartitionRequest],
) -> (Vec<PartitionData>, bool) {
    // Answers to clients that do not read are bounded together: the more bytes are being
    // written, the less each new answer holds.
    let under_way = context.shared.response_memory.taken();
    let mut bytes_left = FETCH_MAX.min(ANSWERS_MAX.saturating_sub(under_way));
    bytes_left = bytes_left.min(limits.max_bytes);
    let mut first = true;
    let mut size = 0;
    let mut special = false;
    let mut results = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        let mut result = match checked(cluster, context.node, limits.version, wanted) {
            Ok(partition) => {
                let partial = context.shared.config.partial_batches;
                read_partition(partition, wanted, limits, bytes_left, first, partial)
            }
            Err(error) => {
                special = true;
                failed(cluster, error, limits.version, wanted)
            }
        };
        result.partition_index = wanted.partition;
        special |= result.diverging_epoch.end_offset >= 0;
        let read = result.records.as_ref().map_or(0, Bytes::len);
        if read > 0 {
            first = false;
        }
        size += read;
        bytes_left = bytes_left.saturating_sub(read);
        results.push(result);
    }
    (results, special || size >= limits.min_bytes)
}

fn partition_mut<'a>(
    cluster: &'a mut ClusterData,
    version: i16,
    wanted: &FetchPartitionRequest,
) -> Option<&'a mut PartitionState> {
    let name = name_of(cluster, version, wanted)?;
    cluster.state.partition_mut(&name, wanted.partition)
}

fn name_of(cluster: &ClusterData, version: i16, wanted: &FetchPartitionRequest) -> Option<String> {
    if version >= 13 {
        cluster.state.name_of(wanted.topic_id).map(str::to_owned)
    } else {
        Some(wanted.topic.to_string())
    }
}

fn checked<'a>(
    cluster: &'a mut ClusterData,
    node: i32,
    version: i16,
    wanted: &FetchPartitionRequest,
) -> Result<&'a PartitionState, ResponseError> {
    let name = name_of(cluster, version, wanted).ok_or(ResponseError::UnknownTopicId)?;
    let partition = cluster.state.led_by(node, &name, wanted.partition)?;
    partition.check_leader_epoch(wanted.leader_epoch)?;
    if wanted.offset < partition.log.start() || wanted.offset > partition.log.end() {
        // An older epoch's tail is told as such, so that the client can find its way back.
        let diverged = wanted.last_epoch >= 0
            && wanted.offset >= partition.log.start()
            && divergence(partition, wanted).is_some();
        if !diverged {
            return Err(ResponseError::OffsetOutOfRange);
        }
    }
    Ok(partition)
}

/// Where the client's log and this one part (KIP-595), if they do.
fn divergence(
    partition: &PartitionState,
    wanted: &FetchPartitionRequest,
) -> Option<EpochEndOffset> {
    let (epoch, end) = partition
        .log
        .end_of_epoch(wanted.last_epoch)
        .unwrap_or((-1, -1));
    (epoch < wanted.last_epoch || end < wanted.offset).then(|| {
        EpochEndOffset::default()
            .with_epoch(epoch)
            .with_end_offset(end)
    })
}

fn read_partition(
    partition: &PartitionState,
    wanted: &FetchPartitionRequest,
    limits: &FetchLimits,
    bytes_left: usize,
    at_least_one: bool,
    partial: bool,
) -> PartitionData {
    let log = &partition.log;
    let result = PartitionData::default()
        .with_high_watermark(log.end())
        .with_last_stable_offset(log.last_stable())
        .with_log_start_offset(log.start());
    if wanted.last_epoch >= 0
        && let Some(diverging) = divergence(partition, wanted)
    {
        return result
            .with_diverging_epoch(diverging)
            .with_records(Some(Bytes::new()));
    }
    let until = if limits.committed {
        log.last_stable()
    } else {
        log.end()
    };
    let max_bytes = usize::try_from(wanted.max_bytes)
        .unwrap_or(0)
        .min(bytes_left);
    let records = log.read(wanted.offset, until, max_bytes, at_least_one, partial);
    let aborted = limits.committed.then(|| {
        let aborted = log.aborted(wanted.offset, until).into_iter();
        aborted
            .map(|txn| {
                AbortedTransaction::default()
                    .with_producer_id(ProducerId(txn.producer_id))
                    .with_first_offset(txn.first)
            })
            .collect()
    });
    result
        .with_aborted_transactions(aborted)
        .with_records(Some(records))
}

fn failed(
    cluster: &ClusterData,
    error: ResponseError,
    version: i16,
    wanted: &FetchPartitionRequest,
) -> PartitionData {
    let result = PartitionData::default()
        .with_error_code(error.code())
        .with_high_watermark(-1)
        .with_last_stable_offset(-1)
        .with_log_start_offset(-1)
        .with_records(Some(Bytes::new()));
    let moved = matches!(
        error,
        ResponseError::NotLeaderOrFollower | ResponseError::FencedLeaderEpoch
    );
    let name = name_of(cluster, version, wanted);
    let partition = name.and_then(|name| cluster.state.partition(&name, wanted.partition));
    match partition {
        Some(partition) if moved && version >= 12 => result.with_current_leader(
            LeaderIdAndEpoch::default()
                .with_leader_id(BrokerId(partition.leader.unwrap_or(-1)))
                .with_leader_epoch(partition.epoch),
        ),
        _ => result,
    }
}

/// Addresses of the leaders that the answer names (KIP-951).
fn endpoints(
    cluster: &ClusterData,
    changes: &[(FetchPartitionRequest, PartitionData)],
) -> Vec<NodeEndpoint> {
    let ids: BTreeSet<i32> = changes
        .iter()
        .map(|(_, result)| *result.current_leader.leader_id)
        .collect();
    let nodes = ids.into_iter().filter_map(|id| cluster.state.node(id));
    nodes
        .map(|node| {
            NodeEndpoint::default()
                .with_node_id(BrokerId(node.id))
                .with_host(text(node.address.ip()))
                .with_port(node.address.port().into())
        })
        .collect()
}

/// Consecutive partitions of one topic share its entry.
fn by_topic(
    version: i16,
    changes: Vec<(FetchPartitionRequest, PartitionData)>,
) -> Vec<FetchableTopicResponse> {
    let mut topics: Vec<(FetchPartitionRequest, FetchableTopicResponse)> = Vec::new();
    for (wanted, result) in changes {
        match topics.last_mut() {
            Some((last, topic))
                if last.topic == wanted.topic && last.topic_id == wanted.topic_id =>
            {
                topic.partitions.push(result);
            }
            _ => {
                let topic = FetchableTopicResponse::default().with_partitions(vec![result]);
                let topic = if version >= 13 {
                    topic.with_topic_id(wanted.topic_id)
                } else {
                    topic.with_topic(TopicName(wanted.topic.clone()))
                };
                topics.push((wanted, topic));
            }
        }
    }
    topics.into_iter().map(|(_, topic)| topic).collect()
}

fn session_request(version: i16, request: FetchRequest) -> FetchSessionRequest {
    // Before version 7 there are no sessions.
    let (session_id, epoch) = if version >= 7 {
        (request.session_id, request.session_epoch)
    } else {
        (0, -1)
    };
    FetchSessionRequest {
        session_id,
        epoch,
        with_ids: version >= 13,
        wanted: each_once(request.topics.into_iter().flat_map(wanted)),
        forgotten: request
            .forgotten_topics_data
            .into_iter()
            .flat_map(forgotten)
            .collect(),
    }
}

fn wanted(topic: FetchTopic) -> impl Iterator<Item = FetchPartitionRequest> {
    let FetchTopic {
        topic,
        topic_id,
        partitions,
        ..
    } = topic;
    let topic = owned(&topic);
    partitions
        .into_iter()
        .map(move |p: FetchPartition| FetchPartitionRequest {
            topic: topic.clone(),
            topic_id,
            partition: p.partition,
            offset: p.fetch_offset,
            leader_epoch: p.current_leader_epoch,
            last_epoch: p.last_fetched_epoch,
            max_bytes: p.partition_max_bytes,
        })
}

fn each_once(wanted: impl Iterator<Item = FetchPartitionRequest>) -> Vec<FetchPartitionRequest> {
    let mut seen = HashSet::new();
    wanted
        .filter(|w| seen.insert((w.topic.clone(), w.topic_id, w.partition)))
        .collect()
}

fn forgotten(topic: ForgottenTopic) -> impl Iterator<Item = FetchPartitionRequest> {
    let ForgottenTopic {
        topic,
        topic_id,
        partitions,
        ..
    } = topic;
    let topic = owned(&topic);
    partitions
        .into_iter()
        .map(move |partition| FetchPartitionRequest {
            topic: topic.clone(),
            topic_id,
            partition,
            offset: 0,
            leader_epoch: -1,
            last_epoch: -1,
            max_bytes: 0,
        })
}

/// `fetch.max.bytes`: what one answer holds at most, whatever was asked for.
const FETCH_MAX: usize = 55 << 20;
/// What all answers that are being written hold at most, but for one batch each.
pub(super) const ANSWERS_MAX: usize = 256 << 20;
