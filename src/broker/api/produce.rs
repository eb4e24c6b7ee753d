//! Produce: batches into the logs, those of transactions once their coordinator knows of them.

use std::collections::BTreeSet;

use kafka_client::record::header::BatchHeader;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{BrokerId, ProduceRequest, ProduceResponse};

use super::super::batch::{self, AppendError};
use super::super::cluster_state::ClusterState;
use super::super::context::{ClusterData, RequestContext, now_ms};
use super::super::producer_state::SequenceCheck;
use super::super::wire::text;
use super::transactions;

/// Appends one batch to each partition. None with `acks` 0, which is never answered.
pub(super) fn produce(
    context: &RequestContext,
    version: i16,
    request: ProduceRequest,
) -> Option<ProduceResponse> {
    let acks = request.acks;
    let producing = ProduceContext {
        version,
        acks,
        transactional_id: request.transactional_id.as_deref().map(|id| &**id),
    };
    let mut hints = BTreeSet::new();
    let responses = request
        .topic_data
        .into_iter()
        .map(|topic| produce_topic(context, &producing, topic, &mut hints))
        .collect();
    let response = ProduceResponse::default().with_responses(responses);
    (acks != 0).then(|| response.with_node_endpoints(endpoints(context, &hints)))
}

fn produce_topic(
    context: &RequestContext,
    producing: &ProduceContext<'_>,
    topic: TopicProduceData,
    hints: &mut BTreeSet<i32>,
) -> TopicProduceResponse {
    let &ProduceContext { version, acks, .. } = producing;
    let name = if version >= 13 {
        let cluster = context.shared.lock();
        cluster.state.name_of(topic.topic_id).map(str::to_owned)
    } else {
        Some(topic.name.to_string())
    };
    let partitions = topic.partition_data.into_iter().map(|data| {
        let index = data.index;
        let result = match &name {
            None => Err(ResponseError::UnknownTopicId.into()),
            Some(_) if !matches!(acks, -1..=1) => Err(ResponseError::InvalidRequiredAcks.into()),
            Some(name) => append(context, producing, name, data),
        };
        let response = PartitionProduceResponse::default().with_index(index);
        match result {
            Ok(appended) => response
                .with_base_offset(appended.base_offset)
                .with_log_append_time_ms(appended.append_time)
                .with_log_start_offset(appended.log_start),
            Err(refused) => {
                let response = response
                    .with_error_code(refused.error.code())
                    .with_base_offset(-1);
                let response = if refused.message.is_empty() {
                    response
                } else {
                    response.with_error_message(Some(text(refused.message)))
                };
                if version < 10 || refused.error != ResponseError::NotLeaderOrFollower {
                    return response;
                }
                let cluster = context.shared.lock();
                let topic = name.as_deref().unwrap_or_default();
                response.with_current_leader(leader_hint(&cluster.state, topic, index, hints))
            }
        }
    });
    let response = TopicProduceResponse::default().with_partition_responses(partitions.collect());
    if version >= 13 {
        response.with_topic_id(topic.topic_id)
    } else {
        response.with_name(topic.name)
    }
}

/// What counts for every batch of a request.
struct ProduceContext<'a> {
    version: i16,
    acks: i16,
    transactional_id: Option<&'a str>,
}

struct AppendInfo {
    base_offset: i64,
    append_time: i64,
    log_start: i64,
}

fn append(
    context: &RequestContext,
    producing: &ProduceContext<'_>,
    topic: &str,
    data: PartitionProduceData,
) -> Result<AppendInfo, AppendError> {
    let records = data.records.unwrap_or_default();
    let (max_bytes, log_append_time) = {
        let mut cluster = context.shared.lock();
        cluster.state.led_by(context.node, topic, data.index)?;
        let topic = cluster.state.topic(topic);
        let topic = topic.ok_or(ResponseError::UnknownTopicOrPartition)?;
        (topic.max_message_bytes, topic.log_append_time)
    };
    // Outside the lock: this reads every record.
    let header = batch::check(&records, max_bytes)?;

    let mut cluster = context.shared.lock();
    check_transaction(context, producing, &mut cluster, topic, data.index, &header)?;
    let partition = cluster.state.led_by(context.node, topic, data.index)?;
    let log_start = partition.log.start();
    if let SequenceCheck::Duplicate(earlier) = partition.log.producers.check(&header)? {
        return Ok(AppendInfo {
            base_offset: earlier.base_offset,
            // As Kafka does: the largest timestamp, whoever set it.
            append_time: match earlier.append_time {
                ..0 => header.max_timestamp,
                time => time,
            },
            log_start,
        });
    }
    if !partition.log.admits(&header) {
        return Err(AppendError::new(
            ResponseError::InvalidTxnState,
            "too many transactions are open",
        ));
    }
    let append_time = log_append_time.then(now_ms);
    let appended = cluster
        .state
        .append(topic, data.index, &records, &header, append_time);
    Ok(AppendInfo {
        base_offset: appended.ok_or(ResponseError::UnknownTopicOrPartition)?,
        append_time: append_time.unwrap_or(-1),
        log_start,
    })
}

/// Whether a batch may be part of the producer's transaction. As of version 12 the partition is
/// added to it (KIP-890).
fn check_transaction(
    context: &RequestContext,
    producing: &ProduceContext<'_>,
    cluster: &mut ClusterData,
    topic: &str,
    index: i32,
    header: &BatchHeader,
) -> Result<(), AppendError> {
    let log = &cluster.state.led_by(context.node, topic, index)?.log;
    let is_transactional = header.attributes.is_transactional();
    if log.has_ongoing(header) {
        return match is_transactional {
            true => Ok(()),
            false => Err(AppendError::new(
                ResponseError::InvalidTxnState,
                "the producer has an open transaction",
            )),
        };
    }
    if !is_transactional {
        return Ok(());
    }
    let id = producing
        .transactional_id
        .ok_or(ResponseError::TransactionalIdAuthorizationFailed)?;
    let partition = (topic, index);
    transactions::check_produced(context, cluster, id, producing.version, partition, header)
}

/// Where a partition's leader is now (KIP-951); its endpoint is to be told as well.
fn leader_hint(
    state: &ClusterState,
    topic: &str,
    index: i32,
    hints: &mut BTreeSet<i32>,
) -> LeaderIdAndEpoch {
    match state.partition(topic, index) {
        Some(partition) => {
            hints.extend(partition.leader);
            LeaderIdAndEpoch::default()
                .with_leader_id(BrokerId(partition.leader.unwrap_or(-1)))
                .with_leader_epoch(partition.epoch)
        }
        None => LeaderIdAndEpoch::default(),
    }
}

fn endpoints(context: &RequestContext, ids: &BTreeSet<i32>) -> Vec<NodeEndpoint> {
    let cluster = context.shared.lock();
    let nodes = ids.iter().filter_map(|&id| cluster.state.node(id));
    nodes
        .map(|node| {
            NodeEndpoint::default()
                .with_node_id(BrokerId(node.id))
                .with_host(text(node.address.ip()))
                .with_port(node.address.port().into())
        })
        .collect()
}

impl From<ResponseError> for AppendError {
    fn from(error: ResponseError) -> Self {
        Self::new(error, "")
    }
}
