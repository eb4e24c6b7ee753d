//! What a leader saw of the topics that it assigned, and whether it has become out of date.
//!
//! ```text
//! members' topics ─▶ look ─▶ Led ─▶ partitions ─▶ assign
//!                             └──── is_outdated? ◀── ClusterSnapshot, whenever it changes
//! ```
//!
//! Racks are looked at when any member has one. A broker that is away is in no rack, as for
//! Java's leaders; but the group rebalances only for what is there: not because a broker
//! is restarted, unless its racks were missed when the group was assigned.

use std::sync::Arc;

use uuid::Uuid;

use super::CoordinatorHandle;
use super::assign::Partitions;
use super::error::Failure;
use super::membership::Lead;
use super::racks::RackSet;
use crate::metadata::{ClusterSnapshot, MetadataError, PartitionMetadata, TopicMetadata};

/// See the module.
#[derive(Debug)]
pub(super) struct Led {
    topics: Vec<(Arc<str>, Option<Seen>)>,
    /// Whether any member has a rack.
    racks: bool,
}

/// What was seen of a topic that exists.
#[derive(Debug)]
struct Seen {
    id: Uuid,
    partitions: Vec<RackSet>,
}

impl Led {
    /// Asks for what is not known yet of the topics that any member wants.
    pub(super) async fn look(handle: &CoordinatorHandle, lead: &Lead) -> Result<Self, Failure> {
        let subscriptions = lead.members.iter().map(|member| &member.subscription);
        let mut names: Vec<&Arc<str>> = subscriptions.clone().flat_map(|s| &s.topics).collect();
        names.sort_unstable();
        names.dedup();
        let mut topics = Vec::with_capacity(names.len());
        // Mostly they are known already, so one after the other takes no time.
        for name in names {
            let topic = match handle.cluster.metadata().topic(name).await {
                Ok(topic) => Some(topic),
                Err(MetadataError::Unavailable { reason }) => {
                    tracing::debug!(%reason, topic = %name, "a leader cannot assign yet");
                    return Err(Failure::Malformed);
                }
                Err(_) => None,
            };
            topics.push((Arc::clone(name), topic));
        }
        let racks = subscriptions.clone().any(|s| s.rack.is_some());
        let snapshot = handle.cluster.metadata().snapshot();
        Ok(Self::new(topics, racks, &snapshot))
    }

    fn new(
        topics: Vec<(Arc<str>, Option<Arc<TopicMetadata>>)>,
        racks: bool,
        snapshot: &ClusterSnapshot,
    ) -> Self {
        let racks_of = |partition: &PartitionMetadata| match racks {
            true => racks_of(partition, snapshot),
            false => RackSet::new(),
        };
        let seen = |topic: Arc<TopicMetadata>| Seen {
            id: topic.id,
            partitions: topic.partitions.iter().map(racks_of).collect(),
        };
        let topics = topics.into_iter();
        Self {
            topics: topics
                .map(|(name, topic)| (name, topic.map(seen)))
                .collect(),
            racks,
        }
    }

    /// The topics that any member wants, whether they exist or not.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.topics.iter().map(|(name, _)| name)
    }

    /// What there is to assign.
    pub(super) fn partitions(&self) -> Partitions {
        let existing = |(name, seen): &(Arc<str>, Option<Seen>)| {
            let seen = seen.as_ref()?;
            Some((Arc::clone(name), seen.partitions.clone()))
        };
        self.topics.iter().filter_map(existing).collect()
    }

    /// Whether the group should be assigned anew.
    pub(super) fn is_outdated(&self, now: &ClusterSnapshot) -> bool {
        self.topics.iter().any(|(name, seen)| {
            let topic = now.topic(name);
            topic.is_some_and(|topic| {
                !seen
                    .as_ref()
                    .is_some_and(|seen| self.holds(seen, topic, now))
            })
        })
    }

    fn holds(&self, seen: &Seen, topic: &TopicMetadata, now: &ClusterSnapshot) -> bool {
        let same_racks = |(partition, seen): (&PartitionMetadata, &RackSet)| {
            let away = |id| now.broker(id).is_none();
            partition.replica_ids.iter().any(|id| away(*id)) || racks_of(partition, now) == *seen
        };
        seen.id == topic.id
            && seen.partitions.len() == topic.partitions.len()
            && (!self.racks
                || topic
                    .partitions
                    .iter()
                    .zip(&seen.partitions)
                    .all(same_racks))
    }
}

fn racks_of(partition: &PartitionMetadata, snapshot: &ClusterSnapshot) -> RackSet {
    let brokers = partition
        .replica_ids
        .iter()
        .filter_map(|id| snapshot.broker(*id));
    brokers.filter_map(|broker| broker.rack.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{metadata_response, topic_metadata};

    /// Brokers with their racks; the replicas of t's partitions.
    fn cluster(brokers: &[(i32, &'static str)], partitions: &[&[i32]]) -> ClusterSnapshot {
        let leaders = vec![(-1, -1); partitions.len()];
        let mut t = topic_metadata("t", 5, &leaders);
        for (partition, replicas) in t.partitions.iter_mut().zip(partitions) {
            partition.replica_nodes = replicas.iter().map(|id| (*id).into()).collect();
        }
        let address = "127.0.0.1:9092".parse().unwrap();
        let addresses: Vec<_> = brokers.iter().map(|(id, _)| (*id, address)).collect();
        let mut answer = metadata_response(&addresses, vec![t]);
        for (broker, (_, rack)) in answer.brokers.iter_mut().zip(brokers) {
            broker.rack = Some(*rack).filter(|rack| !rack.is_empty()).map(Into::into);
        }
        ClusterSnapshot::default().merge_with(&answer).0
    }

    fn led(racks: bool, snapshot: &ClusterSnapshot) -> Led {
        let known = snapshot.topic("t").map(Arc::clone);
        Led::new(vec![("t".into(), known)], racks, snapshot)
    }

    const BROKERS: [(i32, &str); 3] = [(1, "a"), (2, "b"), (3, "")];

    #[test]
    fn a_partition_is_in_its_replicas_racks_as_far_as_they_are_known() {
        let snapshot = cluster(&BROKERS, &[&[2, 1], &[2, 2, 9], &[3], &[]]);
        let racks = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
        let expected: [RackSet; 4] = [racks(&["a", "b"]), racks(&["b"]), racks(&[]), racks(&[])];
        assert_eq!(led(true, &snapshot).partitions()["t"], expected);
        assert_eq!(
            led(false, &snapshot).partitions()["t"],
            vec![RackSet::new(); 4]
        );
    }

    #[test]
    fn a_replica_that_moves_to_another_rack_matters_to_groups_with_racks_only() {
        let before = cluster(&BROKERS, &[&[1], &[2]]);
        let after = cluster(&BROKERS, &[&[1], &[1]]);
        assert!(led(true, &before).is_outdated(&after));
        assert!(!led(false, &before).is_outdated(&after));
        assert!(!led(true, &before).is_outdated(&before));
        let longer = cluster(&BROKERS, &[&[1], &[2], &[3]]);
        assert!(led(false, &before).is_outdated(&longer));
    }

    #[test]
    fn a_broker_that_is_restarted_is_no_reason_to_rebalance() {
        let partitions: [&[i32]; 2] = [&[1, 2], &[2]];
        let whole = cluster(&BROKERS, &partitions);
        let without_2 = cluster(&[(1, "a")], &partitions);
        assert!(!led(true, &whole).is_outdated(&without_2));
        assert!(led(true, &without_2).is_outdated(&whole));
    }

    #[test]
    fn a_topic_that_is_made_matters_and_one_that_is_gone_does_not() {
        let without = ClusterSnapshot::default();
        let with = cluster(&BROKERS, &[&[1]]);
        assert!(led(false, &without).is_outdated(&with));
        assert!(!led(false, &with).is_outdated(&without));
        assert!(led(false, &without).partitions().is_empty());
    }
}
