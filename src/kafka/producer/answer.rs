//! Produce requests and what their answers say of each batch.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::delivery::Placed;
use super::error::ProduceError;
use super::queue::Landing;
use crate::metadata::{BrokerNode, LeaderAndEpoch};
use crate::record::RecordBatch;
use crate::topic::{BrokerId, TopicPartition};

/// A stamped batch and where it goes.
#[derive(Debug)]
pub(super) struct Addressed {
    pub(super) partition: TopicPartition,
    pub(super) topic_id: Uuid,
    pub(super) batch: RecordBatch,
    /// Was in a request before.
    pub(super) again: bool,
}

/// What an answer says of one batch, beyond the batch itself.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// What is known of the partition's leader is out of date.
    pub(super) stale: bool,
    /// Who leads it, according to the broker (KIP-951), and where that one listens.
    pub(super) leader: Option<(LeaderAndEpoch, Option<BrokerNode>)>,
}

/// Version 13 names topics by id only.
const BY_ID: i16 = 13;

/// Whether requests of that version name topics by id.
pub(super) fn is_by_id(version: i16) -> bool {
    version >= BY_ID
}

/// The newest version up to `version` that can carry these batches.
pub(super) fn version_for(batches: &[Addressed], version: i16) -> i16 {
    if batches.iter().any(|batch| batch.topic_id.is_nil()) {
        version.min(BY_ID - 1)
    } else {
        version
    }
}

/// One request with all batches, no partition twice.
pub(super) fn request(batches: &[Addressed], version: i16, timeout: Duration) -> ProduceRequest {
    let mut topics: Vec<TopicProduceData> = Vec::new();
    let mut known: HashMap<&Arc<str>, usize> = HashMap::new();
    for batch in batches {
        let at = *known.entry(&batch.partition.topic).or_insert_with(|| {
            topics.push(if is_by_id(version) {
                TopicProduceData::default().with_topic_id(batch.topic_id)
            } else {
                let name = StrBytes::from_string(batch.partition.topic.to_string());
                TopicProduceData::default().with_name(TopicName(name))
            });
            topics.len() - 1
        });
        topics[at].partition_data.push(
            PartitionProduceData::default()
                .with_index(batch.partition.partition)
                .with_records(Some(batch.batch.bytes())),
        );
    }
    ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX))
        .with_topic_data(topics)
}

/// What became of each batch, in their order.
pub(super) fn landings(
    batches: &[Addressed],
    version: i16,
    response: &ProduceResponse,
) -> Vec<(Landing, Hints)> {
    let mut told: HashMap<(&str, Uuid, i32), &PartitionProduceResponse> = HashMap::new();
    for topic in &response.responses {
        for partition in &topic.partition_responses {
            let key = if is_by_id(version) {
                ("", topic.topic_id, partition.index)
            } else {
                (topic.name.as_str(), Uuid::nil(), partition.index)
            };
            told.insert(key, partition);
        }
    }
    let of = |batch: &Addressed| {
        let TopicPartition { topic, partition } = &batch.partition;
        let key = if is_by_id(version) {
            ("", batch.topic_id, *partition)
        } else {
            (&**topic, Uuid::nil(), *partition)
        };
        match told.get(&key) {
            Some(told) => (landing(batch, told), hints(told, response)),
            // An answer that leaves a batch out says nothing of it.
            None => (Landing::Retry { unsure: true }, Hints::default()),
        }
    };
    batches.iter().map(of).collect()
}

fn landing(batch: &Addressed, told: &PartitionProduceResponse) -> Landing {
    use ResponseError as E;

    let topic = &batch.partition.topic;
    let code = told.error_code;
    let placed = Placed::new(told.base_offset, append_time(batch, told));
    let error = match code {
        0 => return Landing::Appended(placed),
        _ => E::try_from_code(code),
    };
    let message: Arc<str> = match (&told.error_message, error) {
        (Some(message), _) if !message.is_empty() => message.as_str().into(),
        (_, Some(error)) => error.to_string().into(),
        (_, None) => "an unknown error".into(),
    };
    match error {
        Some(E::DuplicateSequenceNumber) => Landing::Appended(placed),
        Some(E::OutOfOrderSequenceNumber | E::UnknownProducerId) => Landing::Absent,
        Some(E::InvalidProducerEpoch | E::ProducerFenced | E::InvalidProducerIdMapping) => {
            Landing::Fenced
        }
        // Refused before the append.
        Some(
            E::NotEnoughReplicas
            | E::ThrottlingQuotaExceeded
            | E::UnknownTopicId
            | E::InconsistentTopicId
            | E::FencedLeaderEpoch
            | E::UnknownLeaderEpoch,
        ) => Landing::Retry { unsure: false },
        Some(E::MessageTooLarge | E::RecordListTooLarge) => Landing::TooLarge,
        Some(E::InvalidRecord | E::InvalidTimestamp) => Landing::BadRecords {
            named: told
                .record_errors
                .iter()
                .filter_map(|error| {
                    let why = match &error.batch_index_error_message {
                        Some(why) => why.as_str().into(),
                        None => message.clone(),
                    };
                    Some((u32::try_from(error.batch_index).ok()?, why))
                })
                .collect(),
            code,
            message,
        },
        Some(E::CorruptMessage) => Landing::Corrupt { code, message },
        Some(E::TopicAuthorizationFailed) => Landing::Refused(ProduceError::NotAuthorized {
            what: format!("topic {topic}").into(),
        }),
        Some(E::ClusterAuthorizationFailed) => Landing::Refused(ProduceError::NotAuthorized {
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
            | E::InvalidTxnState,
        ) => Landing::Refused(ProduceError::Rejected { code, message }),
        // All others may also come after the append: a leader that is deposed while the
        // followers fetch says NOT_LEADER_OR_FOLLOWER of a batch that survives.
        Some(error) if error.is_retriable() => Landing::Retry { unsure: true },
        Some(_) | None => Landing::Unclear { message },
    }
}

/// The broker's clock; -1 if the records keep their own time. Of a batch that it has
/// already a broker tells the largest timestamp, whoever set it: where records keep their
/// own, that is not the time of all of them.
fn append_time(batch: &Addressed, told: &PartitionProduceResponse) -> i64 {
    match told.log_append_time_ms {
        time if batch.again && time == batch.batch.max_timestamp() => -1,
        time => time,
    }
}

fn hints(told: &PartitionProduceResponse, response: &ProduceResponse) -> Hints {
    use ResponseError as E;

    let stale = matches!(
        E::try_from_code(told.error_code),
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
    let current = &told.current_leader;
    let leader = (stale && current.leader_id.0 >= 0 && current.leader_epoch >= 0).then(|| {
        let broker = BrokerId(current.leader_id.0);
        let epoch = current.leader_epoch;
        let endpoint = response
            .node_endpoints
            .iter()
            .find(|node| node.node_id == current.leader_id);
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
    Hints { stale, leader }
}
