//! What is known of a cluster, and how a Metadata response changes it. Pure.
//!
//! # Invariants
//! - A partition's leader never goes back to an older leader epoch, whichever broker answered,
//!   unless the topic was deleted and recreated.
//! - A topic that was recreated has another `TopicIdentity`. Brokers before 2.8 give no ids:
//!   there it is one that was forgotten and is described again, or whose partition has another
//!   leader in the same epoch. A description that takes back what was known (a lower leader epoch,
//!   fewer partitions) is of another topic or older: `TopicsOfInterest` decides.
//! - What a response does not mention stays as it is, unless the response is of another cluster:
//!   then nothing that was known stays.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::MetadataResponse;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use uuid::Uuid;

use super::authorized_operations::AuthorizedOperations;
use crate::topic::{BrokerId, TopicIdentity, TopicPartition};

/// A cluster at one moment (Java's `MetadataSnapshot`).
#[derive(Clone, Debug, Default)]
pub struct ClusterSnapshot {
    /// The brokers that are alive, as far as the last one asked knew.
    pub brokers: Vec<BrokerNode>,
    /// The broker that decides about topics.
    pub controller: Option<BrokerId>,
    /// The id that the cluster gave itself.
    pub(crate) cluster_id: Option<Arc<str>>,
    /// The topics in use.
    pub(crate) topics: HashMap<Arc<str>, Arc<TopicMetadata>>,
    /// The incarnation that a topic was given last.
    last_incarnation: u64,
}

/// One broker (Java's `Node`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerNode {
    /// The `node.id` of the broker.
    pub id: BrokerId,
    /// Its advertised name or address.
    pub host: Arc<str>,
    /// Its advertised port.
    pub port: u16,
    /// `broker.rack`
    pub rack: Option<Arc<str>>,
}

/// One topic.
#[derive(Debug)]
pub struct TopicMetadata {
    /// The name, unique in the cluster.
    pub name: Arc<str>,
    /// Its id; nil from brokers before 2.8. A topic that was deleted and recreated has
    /// another.
    pub id: Uuid,
    /// Tells it from others of its name whose ids are unknown.
    incarnation: u64,
    /// By partition number.
    pub partitions: Vec<PartitionMetadata>,
    /// What the principal may do with it, where the brokers are asked.
    pub authorized_operations: AuthorizedOperations,
    /// Whether somebody read it since the last update.
    pub(super) used: Arc<AtomicBool>,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// The leader; `None` while an election is under way.
    pub leader_id: Option<BrokerId>,
    /// Rises with every election; -1 when unknown.
    pub(crate) leader_epoch: i32,
    /// The replicas, alive or not; empty when unknown.
    pub(crate) replica_ids: Arc<[BrokerId]>,
}

/// Who leads a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderAndEpoch {
    /// The leader.
    pub broker: BrokerId,
    /// The leader epoch: rises with every election; -1 when unknown.
    pub epoch: i32,
}

/// The error that a response gives for a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TopicError {
    Unknown,
    NotAuthorized,
    InvalidName,
    /// Takes back what was known, without an id: older, or of another topic of that name.
    Contradictory,
    /// Says nothing about the topic: ask again.
    Retriable,
}

/// Whether a response describes a topic, or with which error it does not.
pub(crate) type TopicResult = (Arc<str>, Result<(), TopicError>);

impl ClusterSnapshot {
    /// The broker with that id.
    pub(crate) fn broker(&self, id: BrokerId) -> Option<&BrokerNode> {
        self.brokers.iter().find(|broker| broker.id == id)
    }

    /// The topic, if it is known.
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicMetadata>> {
        self.topics.get(name)
    }

    /// Whether both are known, and are different clusters.
    pub(crate) fn is_other_cluster_than(&self, before: &Self) -> bool {
        are_different(before.cluster_id.as_deref(), self.cluster_id.as_deref())
    }

    /// Whether the response is of another cluster.
    pub(crate) fn is_of_other_cluster(&self, response: &MetadataResponse) -> bool {
        let id = response.cluster_id.as_ref().map(|id| id.as_str());
        are_different(self.cluster_id.as_deref(), id)
    }

    /// This topic of that name is another one than it was, of whose id nothing is known.
    pub(super) fn renew_incarnation(&mut self, name: &str) {
        let Some(topic) = self.topics.get_mut(name) else {
            return;
        };
        self.last_incarnation += 1;
        *topic = Arc::new(TopicMetadata {
            name: Arc::clone(&topic.name),
            id: topic.id,
            incarnation: self.last_incarnation,
            partitions: topic.partitions.clone(),
            authorized_operations: topic.authorized_operations,
            used: Arc::clone(&topic.used),
        });
    }

    /// Whether a partition is known to be led by another broker than that.
    pub(crate) fn has_other_leader(&self, tp: &TopicPartition, than: BrokerId) -> bool {
        let leader = self
            .topic(&tp.topic)
            .and_then(|topic| topic.leader(tp.partition));
        leader.is_some_and(|leader| leader.broker != than)
    }

    /// This snapshot with a response merged into it, and what it says of each topic. A response
    /// of another cluster replaces everything: no broker, topic or leader of the former one is
    /// one of the new one.
    /// Topics stay when the response has an error for them: whoever calls decides when to
    /// forget.
    pub(crate) fn merge_with(&self, response: &MetadataResponse) -> (Self, Vec<TopicResult>) {
        let mut next = match self.is_of_other_cluster(response) {
            true => Self {
                last_incarnation: self.last_incarnation,
                ..Self::default()
            },
            false => self.clone(),
        };
        let brokers: Vec<BrokerNode> = response.brokers.iter().filter_map(broker_node).collect();
        // A broker that has just started knows no brokers and no topics.
        let is_empty = brokers.is_empty();
        if !is_empty {
            next.brokers = brokers;
            next.controller = known(response.controller_id.0);
        }
        if let Some(id) = &response.cluster_id {
            next.cluster_id = Some(id.as_str().into());
        }
        let mut results = Vec::with_capacity(response.topics.len());
        for topic in &response.topics {
            let Some(name) = &topic.name else { continue };
            let old = next.topics.get(name.as_str()).cloned();
            let old = old.as_ref();
            let name: Arc<str> =
                old.map_or_else(|| name.as_str().into(), |old| Arc::clone(&old.name));
            let result = match topic_error(topic.error_code) {
                Some(TopicError::Unknown) if is_empty => Err(TopicError::Retriable),
                Some(error) => Err(error),
                None => {
                    let (merged, agrees) = merge_topic(old, &name, topic, next.last_incarnation);
                    next.last_incarnation = next.last_incarnation.max(merged.incarnation);
                    // The same handle shows those who hold it that nothing changed.
                    if !old.is_some_and(|old| old.is_same_as(&merged)) {
                        next.topics.insert(Arc::clone(&name), Arc::new(merged));
                    }
                    agrees.then_some(()).ok_or(TopicError::Contradictory)
                }
            };
            results.push((name, result));
        }
        (next, results)
    }

    /// Whether all that the response describes is known already. Costs what the topics of the
    /// response cost, however many are known.
    pub(super) fn is_confirmed_by(&self, response: &MetadataResponse) -> bool {
        let is_known = |topic: &MetadataResponseTopic| {
            let old = topic
                .name
                .as_ref()
                .and_then(|name| self.topics.get(name.as_str()));
            topic_error(topic.error_code).is_none()
                && old.is_some_and(|old| {
                    let (merged, agrees) = merge_topic(Some(old), &old.name, topic, u64::MAX - 1);
                    agrees && old.is_same_as(&merged)
                })
        };
        self.is_cluster_of(response) && response.topics.iter().all(is_known)
    }

    /// The errors of a response that describes no topic, if none of its topics is known: whoever
    /// asks for names that do not exist costs what these names cost.
    pub(super) fn errors_of_unknown(
        &self,
        response: &MetadataResponse,
    ) -> Option<Vec<TopicResult>> {
        if !self.is_cluster_of(response) {
            return None;
        }
        let error = |topic: &MetadataResponseTopic| {
            let name = topic.name.as_ref()?.as_str();
            let error = topic_error(topic.error_code)?;
            (!self.topics.contains_key(name)).then(|| (name.into(), Err(error)))
        };
        response.topics.iter().map(error).collect()
    }

    /// Whether the response is of the known cluster, with the brokers that are known. The
    /// controller does not count: with KRaft each response names another broker as that.
    fn is_cluster_of(&self, response: &MetadataResponse) -> bool {
        !self.brokers.is_empty()
            && self.has_brokers_of(response)
            && response.cluster_id.as_deref() == self.cluster_id.as_deref()
    }

    /// Whether the response lists the brokers that are known, in whatever order.
    pub(super) fn has_brokers_of(&self, response: &MetadataResponse) -> bool {
        let mut listed: Vec<_> = response.brokers.iter().filter_map(broker_node).collect();
        let mut known = self.brokers.clone();
        for brokers in [&mut listed, &mut known] {
            brokers.sort_by_key(|broker| broker.id.0);
        }
        listed == known
    }

    /// Whether it differs from what was known before.
    pub(super) fn differs_from(&self, before: &Self) -> bool {
        let same_topic = |(name, topic): (&Arc<str>, &Arc<TopicMetadata>)| {
            before
                .topics
                .get(name)
                .is_some_and(|before| Arc::ptr_eq(before, topic))
        };
        self.brokers != before.brokers
            || self.controller != before.controller
            || self.cluster_id != before.cluster_id
            || self.topics.len() != before.topics.len()
            || !self.topics.iter().all(same_topic)
    }

    /// This snapshot with a newer leader of one partition, if it is newer (KIP-951), and of the
    /// same topic.
    pub(super) fn with_leader(
        &self,
        topic: &str,
        topic_id: Uuid,
        partition: i32,
        leader: LeaderAndEpoch,
        endpoint: Option<BrokerNode>,
    ) -> Option<Self> {
        let old = self.topics.get(topic)?;
        if !old.id.is_nil() && !topic_id.is_nil() && old.id != topic_id {
            return None; // of another topic of that name
        }
        let at = usize::try_from(partition).ok()?;
        if leader.broker.0 < 0 || leader.epoch <= old.partitions.get(at)?.leader_epoch {
            return None;
        }
        let mut partitions = old.partitions.clone();
        partitions[at].leader_id = Some(leader.broker);
        partitions[at].leader_epoch = leader.epoch;
        let mut next = self.clone();
        next.topics.insert(
            Arc::clone(&old.name),
            Arc::new(TopicMetadata {
                name: Arc::clone(&old.name),
                id: old.id,
                incarnation: old.incarnation,
                partitions,
                authorized_operations: old.authorized_operations,
                used: Arc::clone(&old.used),
            }),
        );
        if let Some(endpoint) = endpoint {
            match next
                .brokers
                .iter_mut()
                .find(|known| known.id == endpoint.id)
            {
                Some(known) => *known = endpoint,
                None => next.brokers.push(endpoint),
            }
        }
        Some(next)
    }
}

impl TopicMetadata {
    /// The leader of a partition, if it has one.
    pub fn leader(&self, partition: i32) -> Option<LeaderAndEpoch> {
        let partition = self.partitions.get(usize::try_from(partition).ok()?)?;
        Some(LeaderAndEpoch {
            broker: partition.leader_id?,
            epoch: partition.leader_epoch,
        })
    }

    /// Which topic of that name it is.
    pub(crate) fn identity(&self) -> TopicIdentity {
        TopicIdentity {
            id: self.id,
            incarnation: self.incarnation,
        }
    }

    /// Whether the topic may have been created just now: no election has raised a leader epoch,
    /// and there is no id to tell.
    pub(super) fn may_be_new(&self) -> bool {
        self.id.is_nil() && self.partitions.iter().all(|p| p.leader_epoch == 0)
    }

    fn is_same_as(&self, other: &Self) -> bool {
        self.identity() == other.identity()
            && self.partitions == other.partitions
            && self.authorized_operations == other.authorized_operations
    }

    pub(super) fn mark_used(&self) {
        // Mostly it is set already: reading it does not take the cache line from others.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }
}

/// Whether both are the ids of clusters, and differ.
fn are_different(before: Option<&str>, now: Option<&str>) -> bool {
    matches!((before, now), (Some(before), Some(now)) if before != now)
}

fn known(id: i32) -> Option<BrokerId> {
    (id >= 0).then_some(BrokerId(id))
}

fn broker_node(
    broker: &kafka_protocol::messages::metadata_response::MetadataResponseBroker,
) -> Option<BrokerNode> {
    Some(BrokerNode {
        id: known(broker.node_id.0)?,
        host: broker.host.as_str().into(),
        port: u16::try_from(broker.port).ok()?,
        rack: broker.rack.as_ref().map(|rack| rack.as_str().into()),
    })
}

fn topic_error(code: i16) -> Option<TopicError> {
    let error = ResponseError::try_from_code(code)?;
    Some(match error {
        ResponseError::UnknownTopicOrPartition => TopicError::Unknown,
        ResponseError::TopicAuthorizationFailed => TopicError::NotAuthorized,
        ResponseError::InvalidTopicException => TopicError::InvalidName,
        _ => TopicError::Retriable,
    })
}

/// What a response says of a topic, merged into what was known, and whether they agree.
fn merge_topic(
    old: Option<&Arc<TopicMetadata>>,
    name: &Arc<str>,
    response: &MetadataResponseTopic,
    last_incarnation: u64,
) -> (TopicMetadata, bool) {
    // Indexes beyond the count are ignored; missing ones are partitions without a leader.
    let unknown = PartitionMetadata {
        leader_id: None,
        leader_epoch: -1,
        replica_ids: Arc::default(),
    };
    let mut partitions = vec![unknown; response.partitions.len()];
    for partition in &response.partitions {
        let at = usize::try_from(partition.partition_index).ok();
        if let Some(slot) = at.and_then(|at| partitions.get_mut(at)) {
            *slot = PartitionMetadata {
                leader_id: known(partition.leader_id.0),
                leader_epoch: partition.leader_epoch,
                replica_ids: partition
                    .replica_nodes
                    .iter()
                    .map(|id| BrokerId(id.0))
                    .collect(),
            };
        }
    }
    let authorized_operations = AuthorizedOperations::new(response.topic_authorized_operations);
    let Some(old) = old else {
        let topic = TopicMetadata {
            name: Arc::clone(name),
            id: response.topic_id,
            incarnation: last_incarnation + 1,
            partitions,
            authorized_operations,
            used: Arc::new(AtomicBool::new(true)),
        };
        return (topic, true);
    };
    let ids_are_known = !old.id.is_nil() && !response.topic_id.is_nil();
    let mut pairs = partitions.iter().zip(&old.partitions);
    let recreated = match ids_are_known {
        true => old.id != response.topic_id,
        false => pairs.any(|(new, old)| new.contradicts_leader_of(old)),
    };
    let mut agrees = true;
    if !recreated {
        for (new, old) in partitions.iter_mut().zip(&old.partitions) {
            if new.leader_epoch >= 0 && new.leader_epoch < old.leader_epoch {
                new.clone_from(old);
                agrees = ids_are_known;
            }
        }
        // Partitions are added, never taken away.
        if partitions.len() < old.partitions.len() {
            partitions.extend_from_slice(&old.partitions[partitions.len()..]);
            agrees = ids_are_known;
        }
    }
    let topic = TopicMetadata {
        name: Arc::clone(name),
        id: if response.topic_id.is_nil() {
            old.id
        } else {
            response.topic_id
        },
        incarnation: match recreated {
            true => last_incarnation + 1,
            false => old.incarnation,
        },
        partitions,
        authorized_operations,
        used: Arc::clone(&old.used),
    };
    (topic, agrees)
}

impl PartitionMetadata {
    /// Whether another broker led the partition in the same epoch: each epoch has one leader.
    fn contradicts_leader_of(&self, other: &Self) -> bool {
        let same_epoch = self.leader_epoch >= 0 && self.leader_epoch == other.leader_epoch;
        let leaders = self.leader_id.zip(other.leader_id);
        same_epoch && leaders.is_some_and(|(a, b)| a != b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{metadata_response, topic_error, topic_metadata};

    const ADDRESS: &str = "127.0.0.1:9092";

    fn merged(before: &ClusterSnapshot, topics: Vec<MetadataResponseTopic>) -> ClusterSnapshot {
        let brokers = [(1, ADDRESS.parse().unwrap()), (2, ADDRESS.parse().unwrap())];
        before.merge_with(&metadata_response(&brokers, topics)).0
    }

    fn leaders(snapshot: &ClusterSnapshot) -> Vec<(i32, i32)> {
        let partitions = &snapshot.topic("t").unwrap().partitions;
        let leader = |p: &PartitionMetadata| (p.leader_id.map_or(-1, |id| id.0), p.leader_epoch);
        partitions.iter().map(leader).collect()
    }

    #[test]
    fn a_response_confirms_what_is_known_only_if_nothing_in_it_is_new() {
        let brokers: Vec<_> = (1..3)
            .map(|id| (id, ([127, 0, 0, 1], 9092).into()))
            .collect();
        let about = |topic| metadata_response(&brokers, vec![topic]);
        let response = |leader, epoch| about(topic_metadata("t", 5, &[(leader, epoch)]));
        let (known, _) = ClusterSnapshot::default().merge_with(&response(1, 5));
        assert!(!ClusterSnapshot::default().is_confirmed_by(&response(1, 5)));
        assert!(known.is_confirmed_by(&response(1, 5)));
        // A broker that lags behind says nothing new.
        assert!(known.is_confirmed_by(&response(2, 4)));
        assert!(!known.is_confirmed_by(&response(2, 6)));
        let unknown = topic_metadata("t", 0, &[]).with_error_code(3);
        assert!(!known.is_confirmed_by(&about(unknown)));
        assert!(!known.is_confirmed_by(&about(topic_metadata("u", 0, &[(1, 0)]))));
        // With KRaft any broker is the controller, and each has an order of its own.
        let mut another_broker = response(1, 5).with_controller_id(2.into());
        another_broker.brokers.reverse();
        assert!(known.is_confirmed_by(&another_broker));
        let mut fewer_brokers = response(1, 5);
        fewer_brokers.brokers.pop();
        assert!(!known.is_confirmed_by(&fewer_brokers));
    }

    #[test]
    fn errors_of_topics_that_are_not_known_change_nothing() {
        let brokers = [(1, ([127, 0, 0, 1], 9092).into())];
        let about = |topics| metadata_response(&brokers, topics);
        let t = topic_metadata("t", 5, &[(1, 0)]);
        let (known, _) = ClusterSnapshot::default().merge_with(&about(vec![t.clone()]));
        let errors = |topics| known.errors_of_unknown(&about(topics));
        let (u, v) = (topic_error("u", 3), topic_error("v", 29));
        let expected = vec![
            ("u".into(), Err(TopicError::Unknown)),
            ("v".into(), Err(TopicError::NotAuthorized)),
        ];
        assert_eq!(errors(vec![u.clone(), v]), Some(expected));
        assert_eq!(errors(vec![u.clone(), t]), None);
        assert_eq!(errors(vec![topic_error("t", 3)]), None);
        let nothing = ClusterSnapshot::default();
        assert_eq!(nothing.errors_of_unknown(&about(vec![u])), None);
    }

    #[test]
    fn a_newer_epoch_moves_the_leader_and_an_older_one_does_not() {
        let one = merged(
            &ClusterSnapshot::default(),
            vec![topic_metadata("t", 5, &[(1, 3), (2, 3)])],
        );
        let two = merged(&one, vec![topic_metadata("t", 5, &[(2, 4), (1, 2)])]);
        assert_eq!(leaders(&two), [(2, 4), (2, 3)]);
    }

    #[test]
    fn the_same_epoch_may_lose_its_leader() {
        let one = merged(
            &ClusterSnapshot::default(),
            vec![topic_metadata("t", 5, &[(1, 3)])],
        );
        let two = merged(&one, vec![topic_metadata("t", 5, &[(-1, 3)])]);
        assert_eq!(leaders(&two), [(-1, 3)]);
        assert_eq!(two.topic("t").unwrap().leader(0), None);
    }

    #[test]
    fn replicas_go_with_the_leader_epoch() {
        let held = |epoch, by: i32| {
            let mut topic = topic_metadata("t", 5, &[(1, epoch)]);
            topic.partitions[0].replica_nodes = vec![1.into(), by.into()];
            vec![topic]
        };
        let by = |snapshot: &ClusterSnapshot| {
            snapshot.topic("t").unwrap().partitions[0].replica_ids[1].0
        };
        let one = merged(&ClusterSnapshot::default(), held(3, 2));
        assert_eq!(by(&one), 2);
        let moved = merged(&one, held(3, 7));
        assert_eq!(by(&moved), 7);
        assert!(moved.differs_from(&one));
        assert_eq!(by(&merged(&moved, held(2, 2))), 7);
        let leader = LeaderAndEpoch {
            broker: BrokerId(2),
            epoch: 4,
        };
        assert_eq!(
            by(&moved
                .with_leader("t", Uuid::nil(), 0, leader, None)
                .unwrap()),
            7
        );
    }

    #[test]
    fn a_topic_that_was_recreated_starts_over() {
        let one = merged(
            &ClusterSnapshot::default(),
            vec![topic_metadata("t", 5, &[(1, 30), (1, 30)])],
        );
        let two = merged(&one, vec![topic_metadata("t", 6, &[(2, 0)])]);
        assert_eq!(leaders(&two), [(2, 0)]);
        assert_eq!(two.topic("t").unwrap().id, Uuid::from_u128(6));
    }

    /// What becomes of a topic without id that had two partitions of that leader and epoch.
    fn without_id(before: (i32, i32), now: &[(i32, i32)]) -> (bool, Result<(), TopicError>) {
        let one = ClusterSnapshot::default();
        let one = merged(&one, vec![topic_metadata("t", 0, &[before; 2])]);
        let response = metadata_response(&[], vec![topic_metadata("t", 0, now)]);
        let (two, results) = one.merge_with(&response);
        let [one, two] = [one, two].map(|of| of.topic("t").unwrap().identity());
        (two.differs_from(one), results[0].1)
    }

    #[test]
    fn a_topic_without_id_is_another_one_when_one_epoch_has_two_leaders() {
        assert_eq!(without_id((1, 3), &[(1, 3), (2, 4)]), (false, Ok(())));
        assert_eq!(without_id((1, 3), &[(-1, 3), (-1, 3)]), (false, Ok(())));
        assert_eq!(without_id((1, 0), &[(1, 0), (2, 0)]), (true, Ok(())));
        // Without epochs nothing is known.
        assert_eq!(without_id((1, -1), &[(2, -1), (2, -1)]), (false, Ok(())));
    }

    #[test]
    fn a_description_without_id_that_takes_back_what_was_known_is_not_taken() {
        let contradiction = (false, Err(TopicError::Contradictory));
        assert_eq!(without_id((1, 3), &[(1, 3), (1, 2)]), contradiction);
        assert_eq!(without_id((1, 3), &[(1, 3)]), contradiction);
    }

    #[test]
    fn a_topic_that_is_forgotten_and_described_again_without_id_is_another_one() {
        let topic = || vec![topic_metadata("t", 0, &[(1, 0)])];
        let one = merged(&ClusterSnapshot::default(), topic());
        let mut forgotten = one.clone();
        forgotten.topics.clear();
        let two = merged(&forgotten, topic());
        let [one, two] = [one, two].map(|of| of.topic("t").unwrap().identity());
        assert!(two.differs_from(one));
    }

    #[test]
    fn leaders_without_epoch_are_taken_as_they_come() {
        let one = merged(
            &ClusterSnapshot::default(),
            vec![topic_metadata("t", 0, &[(1, -1)])],
        );
        let two = merged(&one, vec![topic_metadata("t", 0, &[(2, -1)])]);
        assert_eq!(leaders(&two), [(2, -1)]);
    }

    #[test]
    fn a_broker_that_is_behind_takes_no_partition_away() {
        let one = merged(
            &ClusterSnapshot::default(),
            vec![topic_metadata("t", 5, &[(1, 1), (2, 1)])],
        );
        let two = merged(&one, vec![topic_metadata("t", 5, &[(1, 1)])]);
        assert_eq!(leaders(&two), [(1, 1), (2, 1)]);
    }

    #[test]
    fn what_a_response_does_not_mention_stays() {
        let one = merged(
            &ClusterSnapshot::default(),
            vec![topic_metadata("t", 5, &[(1, 1)])],
        );
        let (two, results) = one.merge_with(&MetadataResponse::default());
        assert_eq!(leaders(&two), [(1, 1)]);
        assert_eq!(two.brokers.len(), 2);
        assert!(results.is_empty());
        assert!(!two.differs_from(&one));
    }

    #[test]
    fn a_topic_that_did_not_change_is_the_same_handle() {
        let one = merged(
            &ClusterSnapshot::default(),
            vec![topic_metadata("t", 5, &[(1, 1)])],
        );
        let two = merged(&one, vec![topic_metadata("t", 5, &[(1, 1)])]);
        assert!(Arc::ptr_eq(
            one.topic("t").unwrap(),
            two.topic("t").unwrap()
        ));
        assert!(!two.differs_from(&one));
        let three = merged(&two, vec![topic_metadata("t", 5, &[(1, 2)])]);
        assert!(three.differs_from(&two));
    }

    #[test]
    fn errors_are_reported_and_change_nothing() {
        let one = merged(
            &ClusterSnapshot::default(),
            vec![topic_metadata("t", 5, &[(1, 1)])],
        );
        for (code, error) in [
            (3, TopicError::Unknown),
            (29, TopicError::NotAuthorized),
            (17, TopicError::InvalidName),
            (5, TopicError::Retriable),
            (-1, TopicError::Retriable),
        ] {
            let brokers = [(1, ADDRESS.parse().unwrap()), (2, ADDRESS.parse().unwrap())];
            let response = metadata_response(&brokers, vec![topic_error("t", code)]);
            let (two, results) = one.merge_with(&response);
            assert_eq!(results, [("t".into(), Err(error))]);
            assert!(!two.differs_from(&one));
        }
    }

    #[test]
    fn a_broker_that_knows_no_brokers_does_not_say_that_a_topic_is_unknown() {
        let one = merged(
            &ClusterSnapshot::default(),
            vec![topic_metadata("t", 5, &[(1, 1)])],
        );
        let empty = metadata_response(&[], vec![topic_error("t", 3)]);
        let (two, results) = one.merge_with(&empty);
        assert_eq!(results, [("t".into(), Err(TopicError::Retriable))]);
        assert!(!two.differs_from(&one));
    }

    fn of_cluster(id: &'static str, topics: Vec<MetadataResponseTopic>) -> MetadataResponse {
        let brokers = [(1, ADDRESS.parse().unwrap())];
        let id = kafka_protocol::protocol::StrBytes::from_static_str(id);
        metadata_response(&brokers, topics).with_cluster_id(Some(id))
    }

    #[test]
    fn nothing_of_a_cluster_is_known_of_the_one_that_replaces_it() {
        let topics = vec![
            topic_metadata("t", 0, &[(2, 9), (2, 9)]),
            topic_metadata("u", 0, &[(2, 9)]),
        ];
        let brokers = [(1, ADDRESS.parse().unwrap()), (2, ADDRESS.parse().unwrap())];
        let old = metadata_response(&brokers, topics).with_cluster_id(Some("old".into()));
        let (one, _) = ClusterSnapshot::default().merge_with(&old);
        let new = of_cluster("new", vec![topic_metadata("t", 0, &[(1, 0)])]);
        let (two, _) = one.merge_with(&new);
        assert!(two.is_other_cluster_than(&one));
        assert_eq!(leaders(&two), [(1, 0)]);
        assert!(two.topic("u").is_none());
        assert!(two.broker(BrokerId(2)).is_none());
        // One whose id is not known yet is no other cluster.
        assert!(!two.is_other_cluster_than(&ClusterSnapshot::default()));
        let without_id = two.merge_with(&metadata_response(&[], Vec::new())).0;
        assert_eq!(without_id.cluster_id.as_deref(), Some("new"));
    }

    #[test]
    fn a_leader_of_another_topic_of_that_name_is_not_taken() {
        let one = merged(
            &ClusterSnapshot::default(),
            vec![topic_metadata("t", 5, &[(1, 3)])],
        );
        let leader = LeaderAndEpoch {
            broker: BrokerId(2),
            epoch: 4,
        };
        let of = |id| one.with_leader("t", Uuid::from_u128(id), 0, leader, None);
        assert!(of(6).is_none());
        assert!(of(5).is_some());
    }

    #[test]
    fn partition_numbers_that_cannot_be_are_left_out() {
        let mut hostile = topic_metadata("t", 5, &[(1, 1), (2, 1), (1, 1)]);
        hostile.partitions[0].partition_index = i32::MAX;
        hostile.partitions[2].partition_index = -1;
        let snapshot = merged(&ClusterSnapshot::default(), vec![hostile]);
        assert_eq!(leaders(&snapshot), [(-1, -1), (2, 1), (-1, -1)]);
    }

    #[test]
    fn a_leader_is_taken_only_with_a_newer_epoch() {
        let one = merged(
            &ClusterSnapshot::default(),
            vec![topic_metadata("t", 5, &[(1, 3)])],
        );
        let leader = |broker, epoch| LeaderAndEpoch {
            broker: BrokerId(broker),
            epoch,
        };
        assert!(
            one.with_leader("t", Uuid::nil(), 0, leader(2, 3), None)
                .is_none()
        );
        assert!(
            one.with_leader("t", Uuid::nil(), 0, leader(-1, 4), None)
                .is_none()
        );
        assert!(
            one.with_leader("t", Uuid::nil(), 1, leader(2, 4), None)
                .is_none()
        );
        assert!(
            one.with_leader("u", Uuid::nil(), 0, leader(2, 4), None)
                .is_none()
        );
        let there = BrokerNode {
            id: BrokerId(3),
            host: "new".into(),
            port: 1,
            rack: None,
        };
        let two = one.with_leader("t", Uuid::nil(), 0, leader(3, 4), Some(there.clone()));
        let two = two.unwrap();
        assert_eq!(leaders(&two), [(3, 4)]);
        assert_eq!(two.broker(BrokerId(3)), Some(&there));
    }
}
