//! Fetch requests and responses, over the differences of their versions.
//!
//! Versions below 13 name topics, later ones carry topic ids (KIP-516); fetch sessions exist
//! from 7 (KIP-227), leader epochs from 9 (KIP-320).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::fetch_response::{NodeEndpoint, PartitionData};
use kafka_protocol::messages::{BrokerId as NodeId, FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::time::timeout;
use uuid::Uuid;

use super::FetchPosition;
use super::fetch_session::{FetchNaming, FetchRequestData, FetchTarget};
use crate::metadata::{BrokerNode, LeaderAndEpoch};
use crate::record::AbortedTransaction;
use crate::{BrokerId, Connection, IsolationLevel, Metadata, RequestError, TopicPartition};

/// What holds for a whole request.
#[derive(Clone, Copy, Debug)]
pub(super) struct FetchParams {
    pub(super) max_wait_ms: i32,
    pub(super) min_bytes: i32,
    pub(super) max_bytes: i32,
    pub(super) isolation: IsolationLevel,
}

/// What a response holds for one partition.
#[derive(Clone, Debug)]
pub(super) struct FetchPartitionData {
    pub(super) error: i16,
    /// High watermark or last stable offset, by the isolation level that was asked for.
    pub(super) readable_end: i64,
    pub(super) records: Bytes,
    /// Only at `read_committed`.
    pub(super) aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// Where the leader's log diverges from the position (KIP-595).
    pub(super) diverging_epoch: Option<FetchPosition>,
    /// Bytes of records in the whole response.
    pub(super) response_bytes: usize,
    /// If this is the beginning of a response that was too large: bytes of the largest batch that
    /// could have been received in it.
    pub(super) batch_bytes_max: Option<usize>,
}

/// The version to speak: topic ids only if all topics have one.
pub(super) fn version(connection: &Connection, ids: bool) -> Result<i16, RequestError> {
    let newest = connection.version::<FetchRequest>()?;
    Ok(if ids { newest } else { newest.min(12) })
}

pub(super) fn naming(version: i16) -> FetchNaming {
    match version {
        ..7 => FetchNaming::Sessionless,
        7..13 => FetchNaming::TopicNames,
        13.. => FetchNaming::TopicIds,
    }
}

pub(super) fn build(version: i16, params: FetchParams, data: &FetchRequestData) -> FetchRequest {
    let mut request = FetchRequest::default()
        .with_replica_id(NodeId(-1))
        .with_max_wait_ms(params.max_wait_ms)
        .with_min_bytes(params.min_bytes)
        .with_max_bytes(params.max_bytes)
        .with_isolation_level(match params.isolation {
            IsolationLevel::ReadUncommitted => 0,
            IsolationLevel::ReadCommitted => 1,
        })
        .with_session_id(data.session_id)
        .with_session_epoch(data.session_epoch);
    let mut indices = HashMap::new();
    for target in &data.to_send {
        let index = *indices.entry(&target.tp.topic).or_insert_with(|| {
            let (topic, id) = topic(version, &target.tp.topic, target.topic_id);
            let topic = FetchTopic::default().with_topic(topic).with_topic_id(id);
            request.topics.push(topic);
            request.topics.len() - 1
        });
        request.topics[index]
            .partitions
            .push(fetch_partition(target));
    }
    let mut indices = HashMap::new();
    for (tp, id) in &data.to_forget {
        let index = *indices.entry((&tp.topic, id)).or_insert_with(|| {
            let (topic, id) = topic(version, &tp.topic, *id);
            let topic = ForgottenTopic::default()
                .with_topic(topic)
                .with_topic_id(id);
            request.forgotten_topics_data.push(topic);
            request.forgotten_topics_data.len() - 1
        });
        let forgotten = &mut request.forgotten_topics_data[index];
        forgotten.partitions.push(tp.partition);
    }
    request
}

/// Awaits a broker's response, and requests new metadata whenever another `overdue` has passed
/// without one: a broker that hangs is soon not the leader any more, and only others say so.
pub(super) async fn await_requesting_metadata<T>(
    metadata: &Metadata,
    overdue: Duration,
    answer: impl Future<Output = T>,
) -> T {
    let mut answer = std::pin::pin!(answer);
    loop {
        match timeout(overdue, &mut answer).await {
            Ok(answer) => return answer,
            Err(_) => {
                metadata.request_update();
            }
        }
    }
}

/// A byte count as the protocol's type.
pub(super) fn clamp_to_i32(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

fn topic(version: i16, name: &str, id: Uuid) -> (TopicName, Uuid) {
    match naming(version) {
        FetchNaming::TopicIds => (TopicName::default(), id),
        _ => (
            TopicName(StrBytes::from_string(name.to_owned())),
            Uuid::nil(),
        ),
    }
}

fn fetch_partition(target: &FetchTarget) -> FetchPartition {
    // `last_fetched_epoch` stays −1: it is the followers' way to find where logs diverge.
    // Consumers ask OffsetForLeaderEpoch.
    FetchPartition::default()
        .with_partition(target.tp.partition)
        .with_current_leader_epoch(target.current_leader_epoch)
        .with_fetch_offset(target.fetch_offset)
        .with_partition_max_bytes(target.max_bytes)
}

/// A response by partition. `name` knows the topics that were asked for, by id. New leaders
/// that it names are passed on to the metadata (KIP-951).
pub(super) fn parse_response(
    version: i16,
    isolation: IsolationLevel,
    response: FetchResponse,
    name: impl Fn(&Uuid) -> Option<Arc<str>>,
    metadata: &Metadata,
) -> HashMap<TopicPartition, FetchPartitionData> {
    let response_bytes = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions)
        .map(|partition| partition.records.as_ref().map_or(0, Bytes::len))
        .sum();
    let mut by_partition = HashMap::new();
    for topic in response.responses {
        let topic_name: Arc<str> = match naming(version) {
            FetchNaming::TopicIds => match name(&topic.topic_id) {
                Some(name) => name,
                None => continue,
            },
            _ => topic.topic.as_str().into(),
        };
        for partition in topic.partitions {
            let tp = TopicPartition::new(Arc::clone(&topic_name), partition.partition_index);
            if partition.current_leader.leader_epoch >= 0 {
                let endpoints = &response.node_endpoints;
                offer_leader(&tp, topic.topic_id, &partition, endpoints, metadata);
            }
            by_partition.insert(tp, partition_data(partition, isolation, response_bytes));
        }
    }
    by_partition
}

fn partition_data(
    partition: PartitionData,
    isolation: IsolationLevel,
    response_bytes: usize,
) -> FetchPartitionData {
    let diverging = partition.diverging_epoch;
    let committed = isolation == IsolationLevel::ReadCommitted;
    FetchPartitionData {
        error: partition.error_code,
        readable_end: match isolation {
            IsolationLevel::ReadCommitted if partition.last_stable_offset >= 0 => {
                partition.last_stable_offset
            }
            _ => partition.high_watermark,
        },
        records: partition.records.unwrap_or_default(),
        aborted_transactions: committed.then(|| {
            let aborted = partition.aborted_transactions.unwrap_or_default();
            let aborted = aborted.into_iter().map(|transaction| AbortedTransaction {
                producer_id: transaction.producer_id.0,
                first_offset: transaction.first_offset,
            });
            aborted.collect()
        }),
        diverging_epoch: (diverging.end_offset >= 0).then_some(FetchPosition {
            offset: diverging.end_offset,
            leader_epoch: diverging.epoch,
        }),
        response_bytes,
        batch_bytes_max: None,
    }
}

fn offer_leader(
    tp: &TopicPartition,
    topic_id: Uuid,
    partition: &PartitionData,
    endpoints: &[NodeEndpoint],
    metadata: &Metadata,
) {
    let leader = LeaderAndEpoch {
        broker: BrokerId(partition.current_leader.leader_id.0),
        epoch: partition.current_leader.leader_epoch,
    };
    let endpoint = endpoints
        .iter()
        .find(|endpoint| endpoint.node_id.0 == leader.broker.0)
        .and_then(|endpoint| {
            Some(BrokerNode {
                id: leader.broker,
                host: endpoint.host.as_str().into(),
                port: u16::try_from(endpoint.port).ok()?,
                rack: endpoint.rack.as_ref().map(|rack| rack.as_str().into()),
            })
        });
    metadata.update_partition_leadership(tp, topic_id, leader, endpoint);
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::Encodable;

    use super::*;

    fn target(topic: &str, partition: i32) -> FetchTarget {
        FetchTarget {
            tp: TopicPartition::new(topic, partition),
            topic_id: Uuid::from_u128(1),
            fetch_offset: 5,
            current_leader_epoch: 2,
            max_bytes: 100,
        }
    }

    #[test]
    fn every_version_can_carry_what_it_is_given() {
        for version in 4..=18 {
            let data = FetchRequestData {
                session_id: 1,
                session_epoch: 2,
                to_send: vec![target("a", 0), target("b", 0), target("a", 1)],
                to_forget: match naming(version) {
                    FetchNaming::Sessionless => Vec::new(),
                    _ => vec![(TopicPartition::new("c", 0), Uuid::from_u128(9))],
                },
            };
            let params = FetchParams {
                max_wait_ms: 1,
                min_bytes: 1,
                max_bytes: 1,
                isolation: IsolationLevel::ReadCommitted,
            };
            let request = build(version, params, &data);
            assert_eq!(request.topics.len(), 2);
            assert_eq!(request.topics[0].partitions.len(), 2);
            let mut bytes = bytes::BytesMut::new();
            request.encode(&mut bytes, version).unwrap();
        }
    }
}
