//! The metadata that a leader has assigned by, and whether it is outdated: Java's
//! `ConsumerCoordinator.assignmentSnapshot`.
//!
//! ```text
//! members' topics ─▶ take ─▶ AssignmentSnapshot ─▶ partitions_per_topic ─▶ assign
//!                             └──── is_outdated? ◀── ClusterSnapshot, whenever it changes
//! ```
//!
//! Racks are taken when any member has one. A broker that is down is in no rack, as for
//! Java's leaders; but the group rebalances only for brokers that are there: not because a broker
//! is restarted, unless its rack was missing when the group was assigned.

use std::sync::Arc;

use tokio::sync::watch;

use super::assignor::{PartitionsPerTopic, RackSet};
use super::error::GroupError;
use super::membership::LeaderInput;
use crate::metadata::{ClusterSnapshot, Metadata, MetadataError, PartitionMetadata, TopicMetadata};
use crate::{Cluster, TopicIdentity, TopicPartition};

/// The topics of a group and their partitions at the time of the assignment.
#[derive(Debug)]
pub(super) struct AssignmentSnapshot {
    topics: Vec<SubscribedTopic>,
    /// Whether any member has a rack.
    any_member_has_rack: bool,
}

/// A topic that members subscribe to.
#[derive(Debug)]
struct SubscribedTopic {
    name: Arc<str>,
    /// Whether the leader's principal may not see it, so that the proxy itself looks at it.
    is_unseen: bool,
    /// If it exists.
    assigned: Option<AssignedTopic>,
}

/// A topic that exists.
#[derive(Debug)]
struct AssignedTopic {
    identity: TopicIdentity,
    partitions: Vec<RackSet>,
}

impl AssignmentSnapshot {
    /// Takes the metadata of all topics of the group; requests what is not known yet.
    pub(super) async fn take(
        cluster: &Cluster,
        leader_input: &LeaderInput,
    ) -> Result<Self, GroupError> {
        let subscriptions = leader_input
            .members
            .iter()
            .map(|member| &member.subscription);
        let mut names: Vec<&Arc<str>> = subscriptions.clone().flat_map(|s| &s.topics).collect();
        names.sort_unstable();
        names.dedup();
        let names: Vec<Arc<str>> = names.into_iter().cloned().collect();
        let mut known = cluster.metadata().topics(&names).await;
        let unseen = describe_unseen(cluster, &names, &mut known).await;
        let mut topics = Vec::with_capacity(names.len());
        for (name, topic) in names.into_iter().zip(known) {
            let topic = match topic {
                Ok(topic) => Some(topic),
                Err(MetadataError::Unavailable { reason }) => {
                    tracing::debug!(%reason, topic = %name, "a leader cannot assign yet");
                    return Err(GroupError::MetadataUnavailable(reason));
                }
                Err(_) => None,
            };
            topics.push((name, topic));
        }
        let any_member_has_rack = subscriptions.clone().any(|s| s.rack.is_some());
        let snapshot = cluster.metadata().snapshot();
        let mut taken = Self::new(topics, any_member_has_rack, &snapshot);
        for topic in unseen {
            taken.topics[topic].is_unseen = true;
        }
        Ok(taken)
    }

    fn new(
        topics: Vec<(Arc<str>, Option<Arc<TopicMetadata>>)>,
        any_member_has_rack: bool,
        snapshot: &ClusterSnapshot,
    ) -> Self {
        let racks_of = |partition: &PartitionMetadata| match any_member_has_rack {
            true => racks_of(partition, snapshot),
            false => RackSet::new(),
        };
        let assigned = |topic: Arc<TopicMetadata>| AssignedTopic {
            identity: topic.identity(),
            partitions: topic.partitions.iter().map(racks_of).collect(),
        };
        let topics = topics.into_iter();
        Self {
            topics: topics
                .map(|(name, topic)| SubscribedTopic {
                    name,
                    is_unseen: false,
                    assigned: topic.map(assigned),
                })
                .collect(),
            any_member_has_rack,
        }
    }

    /// The partitions to assign.
    pub(super) fn partitions_per_topic(&self) -> PartitionsPerTopic {
        let existing = |topic: &SubscribedTopic| {
            let assigned = topic.assigned.as_ref()?;
            Some((Arc::clone(&topic.name), assigned.partitions.clone()))
        };
        self.topics.iter().filter_map(existing).collect()
    }

    /// Whether the group has to be assigned anew, by what the leader's principal sees, or by what
    /// the proxy itself sees of the topics that it does not.
    fn is_outdated(&self, now: &ClusterSnapshot, of_unseen: bool) -> bool {
        let mut looked_at = self.topics.iter().filter(|t| t.is_unseen == of_unseen);
        looked_at.any(|SubscribedTopic { name, assigned, .. }| {
            let topic = now.topic(name);
            topic.is_some_and(|topic| {
                !assigned
                    .as_ref()
                    .is_some_and(|assigned| self.is_current(assigned, topic, now))
            })
        })
    }

    fn is_current(
        &self,
        assigned: &AssignedTopic,
        topic: &TopicMetadata,
        now: &ClusterSnapshot,
    ) -> bool {
        let same_racks = |(partition, racks): (&PartitionMetadata, &RackSet)| {
            let is_down = |id| now.broker(id).is_none();
            partition.replica_ids.iter().any(|id| is_down(*id))
                || racks_of(partition, now) == *racks
        };
        !assigned.identity.differs_from(topic.identity())
            && assigned.partitions.len() == topic.partitions.len()
            && (!self.any_member_has_rack
                || topic
                    .partitions
                    .iter()
                    .zip(&assigned.partitions)
                    .all(same_racks))
    }
}

/// Has the proxy itself look at the topics that the leader's principal may not see; which these are.
/// The members who subscribe to them may, and get them assigned: a leader that is a process of the
/// user's own, as Java's is, would leave them out.
async fn describe_unseen(
    cluster: &Cluster,
    names: &[Arc<str>],
    known: &mut [Result<Arc<TopicMetadata>, MetadataError>],
) -> Vec<usize> {
    let Some(metadata) = cluster.seen_by_proxy() else {
        return Vec::new();
    };
    let is_unseen = |at: &usize| matches!(known[*at], Err(MetadataError::NotAuthorized { .. }));
    let unseen: Vec<usize> = (0..names.len()).filter(is_unseen).collect();
    let names: Vec<_> = unseen.iter().map(|at| Arc::clone(&names[*at])).collect();
    let described = metadata.topics(&names).await;
    for (at, described) in unseen.iter().zip(described) {
        known[*at] = described;
    }
    unseen
}

/// A leader's assignment snapshot, and the changes of the cluster's metadata since.
#[derive(Debug)]
pub(super) struct AssignmentWatch {
    snapshot: AssignmentSnapshot,
    changes: watch::Receiver<Arc<ClusterSnapshot>>,
    /// As the proxy itself sees it, if there are topics that the leader's principal does not.
    unseen_changes: Option<watch::Receiver<Arc<ClusterSnapshot>>>,
}

impl AssignmentWatch {
    pub(super) fn new(snapshot: AssignmentSnapshot, cluster: &Cluster) -> Self {
        let any_unseen = snapshot.topics.iter().any(|topic| topic.is_unseen);
        let by_proxy = cluster.seen_by_proxy().filter(|_| any_unseen);
        Self {
            snapshot,
            changes: cluster.metadata().subscribe(),
            unseen_changes: by_proxy.map(Metadata::subscribe),
        }
    }

    /// Waits until the metadata changes; for ever when nothing refreshes it any more. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        let unseen = async {
            match &mut self.unseen_changes {
                Some(changes) => changes.changed().await,
                None => std::future::pending().await,
            }
        };
        let changed = tokio::select! {
            changed = self.changes.changed() => changed,
            changed = unseen => changed,
        };
        if changed.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the group has to be assigned anew, by the metadata of now.
    pub(super) fn is_outdated(&mut self) -> bool {
        let now = Arc::clone(&self.changes.borrow_and_update());
        let unseen = self.unseen_changes.as_mut();
        let unseen = unseen.map(|changes| Arc::clone(&changes.borrow_and_update()));
        self.snapshot.is_outdated(&now, false)
            || unseen.is_some_and(|now| self.snapshot.is_outdated(&now, true))
    }

    /// Keeps the refresh of topics going that this leader does not read itself.
    pub(super) fn keep_refreshed(&self, cluster: &Cluster) {
        for topic in &self.snapshot.topics {
            let tp = TopicPartition::new(Arc::clone(&topic.name), 0);
            let by_proxy = cluster.seen_by_proxy().filter(|_| topic.is_unseen);
            by_proxy.unwrap_or(cluster.metadata()).current_leader(&tp);
        }
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

    fn assigned(racks: bool, snapshot: &ClusterSnapshot) -> AssignmentSnapshot {
        let known = snapshot.topic("t").map(Arc::clone);
        AssignmentSnapshot::new(vec![("t".into(), known)], racks, snapshot)
    }

    const BROKERS: [(i32, &str); 3] = [(1, "a"), (2, "b"), (3, "")];

    #[test]
    fn a_partition_is_in_its_replicas_racks_as_far_as_they_are_known() {
        let snapshot = cluster(&BROKERS, &[&[2, 1], &[2, 2, 9], &[3], &[]]);
        let racks = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
        let expected: [RackSet; 4] = [racks(&["a", "b"]), racks(&["b"]), racks(&[]), racks(&[])];
        assert_eq!(
            assigned(true, &snapshot).partitions_per_topic()["t"],
            expected
        );
        assert_eq!(
            assigned(false, &snapshot).partitions_per_topic()["t"],
            vec![RackSet::new(); 4]
        );
    }

    #[test]
    fn a_replica_that_moves_to_another_rack_outdates_it_for_groups_with_racks_only() {
        let before = cluster(&BROKERS, &[&[1], &[2]]);
        let after = cluster(&BROKERS, &[&[1], &[1]]);
        assert!(assigned(true, &before).is_outdated(&after, false));
        assert!(!assigned(false, &before).is_outdated(&after, false));
        assert!(!assigned(true, &before).is_outdated(&before, false));
        let longer = cluster(&BROKERS, &[&[1], &[2], &[3]]);
        assert!(assigned(false, &before).is_outdated(&longer, false));
    }

    #[test]
    fn a_broker_that_is_restarted_is_no_reason_to_rebalance() {
        let partitions: [&[i32]; 2] = [&[1, 2], &[2]];
        let whole = cluster(&BROKERS, &partitions);
        let without_2 = cluster(&[(1, "a")], &partitions);
        assert!(!assigned(true, &whole).is_outdated(&without_2, false));
        assert!(assigned(true, &without_2).is_outdated(&whole, false));
    }

    #[test]
    fn a_topic_that_is_created_outdates_it_and_one_that_is_deleted_does_not() {
        let without = ClusterSnapshot::default();
        let with = cluster(&BROKERS, &[&[1]]);
        assert!(assigned(false, &without).is_outdated(&with, false));
        assert!(!assigned(false, &with).is_outdated(&without, false));
        assert!(assigned(false, &without).partitions_per_topic().is_empty());
    }
}
