//! Produce requests, and what their responses say of each batch.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::delivery::LogAppendInfo;
use super::error::ProduceError;
use super::partition_queue::{BatchResult, TopicNaming};
use crate::metadata::{BrokerNode, LeaderAndEpoch};
use crate::record::RecordBatch;
use crate::topic::{BrokerId, TopicPartition};

/// A batch in a request: stamped with producer id, epoch and sequence. `handle` says where it
/// belongs.
#[derive(Debug)]
pub(super) struct RequestBatch<H> {
    pub(super) handle: H,
    pub(super) partition: TopicPartition,
    pub(super) topic_id: Uuid,
    pub(super) batch: RecordBatch,
    /// It was in a request before.
    pub(super) is_retry: bool,
}

/// What a response says of a partition's leader.
#[derive(Debug, Default)]
pub(super) struct LeaderHint {
    /// The metadata is out of date.
    pub(super) is_stale: bool,
    /// Who leads the partition, according to the broker (KIP-951), and where that one
    /// listens.
    pub(super) current: Option<(LeaderAndEpoch, Option<BrokerNode>)>,
}

/// A response may take that much longer than `request.timeout.ms`, which the broker may spend
/// waiting for the in-sync replicas: or else it could never answer REQUEST_TIMED_OUT, and the
/// connection would be lost, with all that is in flight on it. Not longer than twice the
/// timeout, however.
const RESPONSE_MARGIN: Duration = Duration::from_secs(5);

/// How long the response to a request may take.
pub(super) fn response_timeout(request_timeout: Duration) -> Duration {
    request_timeout + RESPONSE_MARGIN.min(request_timeout)
}

/// The first version that names topics by id, and only so.
const TOPIC_ID_VERSION: i16 = 13;

/// How requests of that version name topics.
pub(super) fn topic_naming(version: i16) -> TopicNaming {
    match version {
        ..TOPIC_ID_VERSION => TopicNaming::ByName,
        _ => TopicNaming::ById,
    }
}

/// The newest version up to `newest` that can carry these batches.
pub(super) fn version_for<H>(batches: &[RequestBatch<H>], newest: i16) -> i16 {
    if batches.iter().any(|batch| batch.topic_id.is_nil()) {
        newest.min(TOPIC_ID_VERSION - 1)
    } else {
        newest
    }
}

/// One request with all batches, no partition twice.
pub(super) fn request<H>(
    batches: &[RequestBatch<H>],
    version: i16,
    request_timeout: Duration,
) -> ProduceRequest {
    let mut topics: Vec<TopicProduceData> = Vec::new();
    let mut indexes: HashMap<&Arc<str>, usize> = HashMap::new();
    for batch in batches {
        let index = *indexes.entry(&batch.partition.topic).or_insert_with(|| {
            topics.push(match topic_naming(version) {
                TopicNaming::ById => TopicProduceData::default().with_topic_id(batch.topic_id),
                TopicNaming::ByName => {
                    let name = StrBytes::from_string(batch.partition.topic.to_string());
                    TopicProduceData::default().with_name(TopicName(name))
                }
            });
            topics.len() - 1
        });
        topics[index].partition_data.push(
            PartitionProduceData::default()
                .with_index(batch.partition.partition)
                .with_records(Some(batch.batch.bytes())),
        );
    }
    let timeout_ms = i32::try_from(request_timeout.as_millis()).unwrap_or(i32::MAX);
    ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(timeout_ms)
        .with_topic_data(topics)
}

/// The result of each batch, in their order.
pub(super) fn batch_results<H>(
    batches: &[RequestBatch<H>],
    version: i16,
    response: &ProduceResponse,
) -> Vec<(BatchResult, LeaderHint)> {
    let naming = topic_naming(version);
    let mut responses: HashMap<(&str, Uuid, i32), &PartitionProduceResponse> = HashMap::new();
    for topic in &response.responses {
        for partition in &topic.partition_responses {
            let key = match naming {
                TopicNaming::ById => ("", topic.topic_id, partition.index),
                TopicNaming::ByName => (topic.name.as_str(), Uuid::nil(), partition.index),
            };
            responses.insert(key, partition);
        }
    }
    let result_of = |batch: &RequestBatch<H>| {
        let TopicPartition { topic, partition } = &batch.partition;
        let key = match naming {
            TopicNaming::ById => ("", batch.topic_id, *partition),
            TopicNaming::ByName => (&**topic, Uuid::nil(), *partition),
        };
        match responses.get(&key) {
            Some(partition) => (
                batch_result(batch, partition),
                leader_hint(partition, response),
            ),
            // A response that leaves a batch out says nothing of it.
            None => {
                let maybe_appended = true;
                (BatchResult::Retry { maybe_appended }, LeaderHint::default())
            }
        }
    };
    batches.iter().map(result_of).collect()
}

fn batch_result<H>(batch: &RequestBatch<H>, response: &PartitionProduceResponse) -> BatchResult {
    use ResponseError as E;

    let topic = &batch.partition.topic;
    let code = response.error_code;
    let append_info = LogAppendInfo::new(response.base_offset, log_append_time(batch, response));
    let error = match code {
        0 => return BatchResult::Appended(append_info),
        _ => E::try_from_code(code),
    };
    let message: Arc<str> = match (&response.error_message, error) {
        (Some(message), _) if !message.is_empty() => message.as_str().into(),
        (_, Some(error)) => error.to_string().into(),
        (_, None) => "an unknown error".into(),
    };
    match error {
        Some(E::DuplicateSequenceNumber) => BatchResult::Appended(append_info),
        Some(E::OutOfOrderSequenceNumber | E::UnknownProducerId) => BatchResult::OutOfOrder,
        Some(E::InvalidProducerEpoch | E::ProducerFenced | E::InvalidProducerIdMapping) => {
            BatchResult::Fenced
        }
        // Refused before the append.
        Some(
            E::NotEnoughReplicas
            | E::ThrottlingQuotaExceeded
            | E::UnknownTopicId
            | E::InconsistentTopicId
            | E::FencedLeaderEpoch
            | E::UnknownLeaderEpoch
            | E::ConcurrentTransactions,
        ) => BatchResult::Retry {
            maybe_appended: false,
        },
        Some(E::MessageTooLarge | E::RecordListTooLarge) => BatchResult::TooLarge,
        Some(E::InvalidRecord | E::InvalidTimestamp) => BatchResult::InvalidRecords {
            errors: record_errors(response, &message),
            code,
            message,
        },
        Some(E::CorruptMessage) => BatchResult::Corrupt { code, message },
        Some(E::TopicAuthorizationFailed) => BatchResult::Fatal(ProduceError::NotAuthorized {
            what: format!("topic {topic}").into(),
        }),
        Some(E::ClusterAuthorizationFailed) => BatchResult::Fatal(ProduceError::NotAuthorized {
            what: "the cluster".into(),
        }),
        Some(
            E::InvalidTopicException
            | E::InvalidRequiredAcks
            | E::InvalidRequest
            | E::UnsupportedVersion
            | E::UnsupportedForMessageFormat
            | E::UnsupportedCompressionType
            | E::PolicyViolation
            | E::InvalidConfig
            | E::InvalidPartitions
            | E::SecurityDisabled
            | E::TransactionalIdAuthorizationFailed
            | E::InvalidTxnState
            | E::TransactionAbortable,
        ) => BatchResult::Fatal(ProduceError::Rejected { code, message }),
        // All others may also come after the append: a leader that loses its leadership
        // while the followers fetch says NOT_LEADER_OR_FOLLOWER of a batch that survives.
        Some(error) if error.is_retriable() => BatchResult::Retry {
            maybe_appended: true,
        },
        Some(_) | None => BatchResult::UnknownError { message },
    }
}

/// The records that the broker names as invalid, by position, and why.
fn record_errors(response: &PartitionProduceResponse, message: &Arc<str>) -> Vec<(u32, Arc<str>)> {
    let errors = response.record_errors.iter();
    let named = errors.filter_map(|error| {
        let why = match &error.batch_index_error_message {
            Some(why) => why.as_str().into(),
            None => message.clone(),
        };
        Some((u32::try_from(error.batch_index).ok()?, why))
    });
    named.collect()
}

/// The broker's clock; -1 if the records keep their own time. Of a duplicate a broker tells
/// the batch's largest timestamp, whoever set it: where records keep their own, that is not
/// the time of all of them.
fn log_append_time<H>(batch: &RequestBatch<H>, response: &PartitionProduceResponse) -> i64 {
    match response.log_append_time_ms {
        time if batch.is_retry && time == batch.batch.max_timestamp() => -1,
        time => time,
    }
}

fn leader_hint(partition: &PartitionProduceResponse, response: &ProduceResponse) -> LeaderHint {
    use ResponseError as E;

    let is_stale = matches!(
        E::try_from_code(partition.error_code),
        Some(
            E::NotLeaderOrFollower
                | E::LeaderNotAvailable
                | E::ReplicaNotAvailable
                | E::UnknownTopicOrPartition
                | E::UnknownTopicId
                | E::InconsistentTopicId
                | E::FencedLeaderEpoch
                | E::UnknownLeaderEpoch
                | E::KafkaStorageError
        )
    );
    let leader = &partition.current_leader;
    let is_named = leader.leader_id.0 >= 0 && leader.leader_epoch >= 0;
    let current = (is_stale && is_named).then(|| {
        let broker = BrokerId(leader.leader_id.0);
        let epoch = leader.leader_epoch;
        let endpoint = response
            .node_endpoints
            .iter()
            .find(|node| node.node_id == leader.leader_id);
        let endpoint = endpoint.and_then(|node| {
            Some(BrokerNode {
                id: broker,
                host: node.host.as_str().into(),
                port: u16::try_from(node.port).ok()?,
                rack: node.rack.as_ref().map(|rack| rack.as_str().into()),
            })
        });
        (LeaderAndEpoch { broker, epoch }, endpoint)
    });
    LeaderHint { is_stale, current }
}
