//! Where the logs of partitions end: Metadata for their leaders, ListOffsets at those.
//!
//! The topics do not become part of the metadata that is kept up to date: somebody looked once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    BrokerId as NodeId, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse,
    TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::{BrokerId, TopicPartition};

/// Where the log of a partition ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEndOffset {
    /// The offset of the next record that will be written.
    At(i64),
    /// No broker that knows has said it.
    Unknown,
    /// There is no such partition.
    NoPartition,
}

/// The ends of some logs.
#[derive(Clone, Debug, Default)]
pub struct LogEndOffsets {
    /// By topic, those that there are; and the partitions that it has.
    topics: HashMap<Arc<str>, TopicEnds>,
}

#[derive(Clone, Debug, Default)]
struct TopicEnds {
    /// The leader of each partition, while there is one.
    leaders: BTreeMap<i32, Option<BrokerId>>,
    ends: HashMap<i32, i64>,
}

impl LogEndOffsets {
    /// Whether there is such a topic.
    pub fn has_topic(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// The end of a partition.
    pub fn get(&self, tp: &TopicPartition) -> LogEndOffset {
        let topic = self.topics.get(&tp.topic);
        match topic.filter(|topic| topic.leaders.contains_key(&tp.partition)) {
            None => LogEndOffset::NoPartition,
            Some(topic) => topic
                .ends
                .get(&tp.partition)
                .map_or(LogEndOffset::Unknown, |end| LogEndOffset::At(*end)),
        }
    }

    /// Takes in what brokers say of topics; whether that is all.
    pub(super) fn learn_leaders(&mut self, response: MetadataResponse) -> bool {
        let mut is_all = true;
        for topic in response.topics {
            let gone = [
                ResponseError::UnknownTopicOrPartition,
                ResponseError::InvalidTopicException,
                // It is as good as not there for whoever may not see it.
                ResponseError::TopicAuthorizationFailed,
            ];
            let (code, Some(name)) = (topic.error_code, topic.name) else {
                continue;
            };
            if code != 0 {
                is_all &= gone.iter().any(|gone| gone.code() == code);
                continue;
            }
            let known = self.topics.entry(name.as_str().into()).or_default();
            for partition in topic.partitions {
                let leader = BrokerId(partition.leader_id.0);
                let leader = Some(leader).filter(|leader| leader.0 >= 0);
                known.leaders.insert(partition.partition_index, leader);
            }
        }
        is_all
    }

    /// Those of these partitions that there are and whose end is not known, by leader.
    pub(super) fn missing<'a>(
        &self,
        partitions: &'a [TopicPartition],
    ) -> BTreeMap<Option<BrokerId>, Vec<&'a TopicPartition>> {
        let mut missing: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for tp in partitions {
            if self.get(tp) == LogEndOffset::Unknown {
                let topic = self.topics.get(&tp.topic);
                let leader = topic.and_then(|topic| *topic.leaders.get(&tp.partition)?);
                missing.entry(leader).or_default().push(tp);
            }
        }
        missing
    }

    /// Takes in the ends that a leader says; others stay missing.
    pub(super) fn learn_ends(&mut self, response: &ListOffsetsResponse) {
        for topic in &response.topics {
            let Some(known) = self.topics.get_mut(topic.name.as_str()) else {
                continue;
            };
            let ends = topic.partitions.iter().filter(|p| p.error_code == 0);
            known
                .ends
                .extend(ends.map(|p| (p.partition_index, p.offset)));
        }
    }
}

/// Metadata of these topics.
pub(super) fn leaders_request(topics: &[Arc<str>]) -> MetadataRequest {
    let topics = topics.iter().map(|name| {
        let name = TopicName(StrBytes::from_string(name.to_string()));
        MetadataRequestTopic::default().with_name(Some(name))
    });
    MetadataRequest::default()
        .with_topics(Some(topics.collect()))
        .with_allow_auto_topic_creation(false)
}

/// ListOffsets of the ends of these partitions' logs, with what transactions have not committed.
pub(super) fn ends_request(partitions: &[&TopicPartition]) -> ListOffsetsRequest {
    let mut topics: BTreeMap<&str, Vec<ListOffsetsPartition>> = BTreeMap::new();
    for tp in partitions {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(tp.partition)
            .with_timestamp(LATEST_TIMESTAMP);
        topics.entry(&tp.topic).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(name, partitions)| {
        ListOffsetsTopic::default()
            .with_name(TopicName(StrBytes::from_string(name.to_owned())))
            .with_partitions(partitions)
    });
    ListOffsetsRequest::default()
        .with_replica_id(NodeId(-1))
        .with_topics(topics.collect())
}

const LATEST_TIMESTAMP: i64 = -1;

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages::list_offsets_response::{
        ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
    };
    use kafka_protocol::messages::metadata_response::{
        MetadataResponsePartition, MetadataResponseTopic,
    };
    use kafka_protocol::protocol::Encodable;

    use super::*;

    fn name(name: &'static str) -> TopicName {
        TopicName(StrBytes::from_static_str(name))
    }

    fn leaders(topic: &'static str, leaders: &[i32]) -> MetadataResponse {
        let partitions = (0..).zip(leaders).map(|(index, leader)| {
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(NodeId(*leader))
        });
        let topic = MetadataResponseTopic::default()
            .with_name(Some(name(topic)))
            .with_partitions(partitions.collect());
        MetadataResponse::default().with_topics(vec![topic])
    }

    #[test]
    fn a_partition_without_a_leader_is_there_and_its_end_unknown() {
        let mut ends = LogEndOffsets::default();
        assert!(ends.learn_leaders(leaders("t", &[1, -1])));
        let tps = [0, 1, 2].map(|n| TopicPartition::new("t", n));
        let missing = ends.missing(&tps);
        assert_eq!(missing[&Some(BrokerId(1))], [&tps[0]]);
        assert_eq!(missing[&None], [&tps[1]]);
        let partition = ListOffsetsPartitionResponse::default().with_offset(7);
        let topic = ListOffsetsTopicResponse::default()
            .with_name(name("t"))
            .with_partitions(vec![partition]);
        ends.learn_ends(&ListOffsetsResponse::default().with_topics(vec![topic]));
        let found = tps.each_ref().map(|tp| ends.get(tp));
        assert_eq!(
            found,
            [
                LogEndOffset::At(7),
                LogEndOffset::Unknown,
                LogEndOffset::NoPartition
            ]
        );
    }

    #[test]
    fn a_topic_that_is_gone_is_known_not_to_be_there_and_another_error_is_not_all() {
        let mut ends = LogEndOffsets::default();
        let mut response = leaders("t", &[]);
        response.topics[0].error_code = ResponseError::UnknownTopicOrPartition.code();
        assert!(ends.learn_leaders(response.clone()));
        assert!(!ends.has_topic("t"));
        response.topics[0].error_code = ResponseError::LeaderNotAvailable.code();
        assert!(!ends.learn_leaders(response));
    }

    #[test]
    fn every_version_can_carry_the_requests() {
        let tp = TopicPartition::new("t", 0);
        let mut bytes = BytesMut::new();
        for version in 1..=10 {
            ends_request(&[&tp]).encode(&mut bytes, version).unwrap();
        }
        for version in 4..=13 {
            leaders_request(&["t".into()])
                .encode(&mut bytes, version)
                .unwrap();
        }
    }
}
