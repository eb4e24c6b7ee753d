//! Fetch requests and answers, over the differences of their versions.
//!
//! Versions below 13 name topics, later ones carry ids; sessions exist from 7, leader
//! epochs from 9.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::fetch_response::{NodeEndpoint, PartitionData};
use kafka_protocol::messages::{BrokerId as NodeId, FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::session::{Naming, Plan, Wanted};
use crate::metadata::{BrokerNode, LeaderAndEpoch};
use crate::record::AbortedTransaction;
use crate::{BrokerId, Connection, IsolationLevel, Metadata, RequestError, TopicPartition};

/// What holds for a whole request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) max_wait_ms: i32,
    pub(super) min_bytes: i32,
    pub(super) max_bytes: i32,
    pub(super) isolation: IsolationLevel,
}

/// What an answer holds for one partition.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) error: i16,
    /// End of what may be read under the isolation that was asked for.
    pub(super) end: i64,
    pub(super) records: Bytes,
    pub(super) aborted: Option<Vec<AbortedTransaction>>,
    /// Where our log and the leader's part (KIP-595).
    pub(super) diverging: Option<(i32, i64)>,
    /// Bytes of records in the whole answer.
    pub(super) together: usize,
}

/// The version to speak: ids only if all topics have one.
pub(super) fn version(connection: &Connection, ids: bool) -> Result<i16, RequestError> {
    let newest = connection.version::<FetchRequest>()?;
    Ok(if ids { newest } else { newest.min(12) })
}

pub(super) fn naming(version: i16) -> Naming {
    match version {
        ..7 => Naming::Sessionless,
        7..13 => Naming::Names,
        13.. => Naming::Ids,
    }
}

pub(super) fn build(version: i16, terms: Terms, plan: &Plan) -> FetchRequest {
    let mut request = FetchRequest::default()
        .with_replica_id(NodeId(-1))
        .with_max_wait_ms(terms.max_wait_ms)
        .with_min_bytes(terms.min_bytes)
        .with_max_bytes(terms.max_bytes)
        .with_isolation_level(match terms.isolation {
            IsolationLevel::ReadUncommitted => 0,
            IsolationLevel::ReadCommitted => 1,
        })
        .with_session_id(plan.session_id)
        .with_session_epoch(plan.session_epoch);
    let mut places = HashMap::new();
    for wanted in &plan.fetch {
        let place = *places.entry(&wanted.tp.topic).or_insert_with(|| {
            let (topic, id) = topic(version, &wanted.tp.topic, wanted.topic_id);
            let topic = FetchTopic::default().with_topic(topic).with_topic_id(id);
            request.topics.push(topic);
            request.topics.len() - 1
        });
        request.topics[place].partitions.push(partition(wanted));
    }
    let mut places = HashMap::new();
    for (tp, id) in &plan.forget {
        let place = *places.entry((&tp.topic, id)).or_insert_with(|| {
            let (topic, id) = topic(version, &tp.topic, *id);
            let topic = ForgottenTopic::default()
                .with_topic(topic)
                .with_topic_id(id);
            request.forgotten_topics_data.push(topic);
            request.forgotten_topics_data.len() - 1
        });
        let forgotten = &mut request.forgotten_topics_data[place];
        forgotten.partitions.push(tp.partition);
    }
    request
}

fn topic(version: i16, name: &str, id: Uuid) -> (TopicName, Uuid) {
    match naming(version) {
        Naming::Ids => (TopicName::default(), id),
        _ => (
            TopicName(StrBytes::from_string(name.to_owned())),
            Uuid::nil(),
        ),
    }
}

fn partition(wanted: &Wanted) -> FetchPartition {
    // `last_fetched_epoch` stays −1: it is the followers' way to find where logs part.
    // Consumers ask OffsetForLeaderEpoch.
    FetchPartition::default()
        .with_partition(wanted.tp.partition)
        .with_current_leader_epoch(wanted.leader_epoch)
        .with_fetch_offset(wanted.offset)
        .with_partition_max_bytes(wanted.max_bytes)
}

/// Takes an answer apart. `names` are the topics it may speak of. New leaders that it
/// names are passed on (KIP-951).
pub(super) fn take(
    version: i16,
    isolation: IsolationLevel,
    response: FetchResponse,
    names: &HashMap<Uuid, Arc<str>>,
    metadata: &Metadata,
) -> HashMap<TopicPartition, Fetched> {
    let together = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions)
        .map(|partition| partition.records.as_ref().map_or(0, Bytes::len))
        .sum();
    let mut answers = HashMap::new();
    for topic in response.responses {
        let name: Arc<str> = match naming(version) {
            Naming::Ids => match names.get(&topic.topic_id) {
                Some(name) => Arc::clone(name),
                None => continue,
            },
            _ => topic.topic.as_str().into(),
        };
        for partition in topic.partitions {
            let tp = TopicPartition::new(Arc::clone(&name), partition.partition_index);
            if partition.current_leader.leader_epoch >= 0 {
                hint(&tp, &partition, &response.node_endpoints, metadata);
            }
            answers.insert(tp, fetched(partition, isolation, together));
        }
    }
    answers
}

fn fetched(partition: PartitionData, isolation: IsolationLevel, together: usize) -> Fetched {
    let diverging = partition.diverging_epoch;
    let committed = isolation == IsolationLevel::ReadCommitted;
    Fetched {
        error: partition.error_code,
        end: match isolation {
            IsolationLevel::ReadCommitted if partition.last_stable_offset >= 0 => {
                partition.last_stable_offset
            }
            _ => partition.high_watermark,
        },
        records: partition.records.unwrap_or_default(),
        aborted: committed.then(|| {
            let aborted = partition.aborted_transactions.unwrap_or_default();
            let aborted = aborted.into_iter().map(|transaction| AbortedTransaction {
                producer_id: transaction.producer_id.0,
                first_offset: transaction.first_offset,
            });
            aborted.collect()
        }),
        diverging: (diverging.end_offset >= 0).then_some((diverging.epoch, diverging.end_offset)),
        together,
    }
}

fn hint(
    tp: &TopicPartition,
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
    metadata.update_partition_leadership(tp, leader, endpoint);
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::Encodable;

    use super::*;

    fn want(topic: &str, partition: i32) -> Wanted {
        Wanted {
            tp: TopicPartition::new(topic, partition),
            topic_id: Uuid::from_u128(1),
            offset: 5,
            leader_epoch: 2,
            max_bytes: 100,
        }
    }

    #[test]
    fn every_version_can_carry_what_it_is_given() {
        for version in 4..=18 {
            let plan = Plan {
                session_id: 1,
                session_epoch: 2,
                fetch: vec![want("a", 0), want("b", 0), want("a", 1)],
                forget: match naming(version) {
                    Naming::Sessionless => Vec::new(),
                    _ => vec![(TopicPartition::new("c", 0), Uuid::from_u128(9))],
                },
            };
            let terms = Terms {
                max_wait_ms: 1,
                min_bytes: 1,
                max_bytes: 1,
                isolation: IsolationLevel::ReadCommitted,
            };
            let request = build(version, terms, &plan);
            assert_eq!(request.topics.len(), 2);
            assert_eq!(request.topics[0].partitions.len(), 2);
            let mut bytes = bytes::BytesMut::new();
            request.encode(&mut bytes, version).unwrap();
        }
    }
}
