//! `range`: each topic's partitions in consecutive runs, as Java's `RangeAssignor`.
//!
//! ```text
//! t: 0 1 2 3 4 5 6     a: 0 1 2    b: 3 4    c: 5 6
//! ```
//!
//! The first members, by group instance id and then by member id, get the runs that are one
//! longer. When the rack strategy is used for any topic (KIP-881), members first get partitions
//! with a replica in their rack, up to their quota:
//!
//! - co-partitioned topics (the same members, the same number of partitions) together: each
//!   partition of all of them goes to one member, so that records joined by key stay together;
//! - another topic, if the rack strategy is used for it, on its own;
//!
//! and then the remaining partitions in runs.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::group_member::{GroupMember, PartitionsPerTopic};
use super::java_hash::{JavaHash, JavaSet, java_cmp, java_map_order};
use super::rack_info::{RackInfo, RackSet};
use crate::TopicPartition;

/// What each of `members` gets, in their order.
pub(super) fn assign(
    members: &[GroupMember],
    partitions: &PartitionsPerTopic,
) -> Vec<Vec<TopicPartition>> {
    let map_order = java_map_order(members.iter().map(|m| &*m.member_id));
    let subscribed: Vec<HashSet<&str>> = members
        .iter()
        .map(|m| m.subscription.topics.iter().map(|topic| &**topic).collect())
        .collect();
    let mut topics: Vec<TopicAssignmentState> = topics_in_order(members, &map_order, partitions)
        .into_iter()
        .map(|topic| {
            let mut of_topic = map_order.clone();
            of_topic.retain(|&m| subscribed[m].contains(topic));
            TopicAssignmentState::new(topic, &partitions[topic], members, of_topic)
        })
        .collect();
    let mut assignment = RangeAssignment {
        members,
        lists: vec![Vec::new(); members.len()],
    };
    let use_racks = topics.iter().any(|topic| topic.racks.use_rack_strategy());
    if use_racks {
        assign_with_rack_matching(&mut topics, &mut assignment);
    }
    for topic in &mut topics {
        topic.assign_ranges(false, &mut assignment);
    }
    if use_racks {
        assignment.lists.iter_mut().for_each(|list| list.sort());
    }
    assignment.lists
}

/// Static members first, by group instance id; then the others by member id.
fn compare_members(a: &GroupMember, b: &GroupMember) -> Ordering {
    match (&a.group_instance_id, &b.group_instance_id) {
        (Some(a), Some(b)) => java_cmp(a, b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => java_cmp(&a.member_id, &b.member_id),
    }
}

/// The subscribed topics that exist, in the order of Java's tables: from the members' table
/// into a set of topics, from that into a table of the topics that exist.
fn topics_in_order<'a>(
    members: &'a [GroupMember],
    map_order: &[usize],
    partitions: &PartitionsPerTopic,
) -> Vec<&'a str> {
    let mut subscribed: JavaSet<&str> = JavaSet::new();
    for &m in map_order {
        for topic in &members[m].subscription.topics {
            subscribed.insert(topic.java_hash(), topic);
        }
    }
    let mut existing: JavaSet<&str> = JavaSet::new();
    for topic in subscribed.iter() {
        if partitions
            .get(*topic)
            .is_some_and(|racks| !racks.is_empty())
        {
            existing.insert(topic.java_hash(), topic);
        }
    }
    existing.iter().copied().collect()
}

/// The first pass, when the rack strategy is used for any of the topics.
fn assign_with_rack_matching(
    topics: &mut [TopicAssignmentState<'_>],
    assignment: &mut RangeAssignment<'_>,
) {
    let mut co_partitioned: BTreeMap<(Vec<usize>, usize), Vec<usize>> = BTreeMap::new();
    for (index, topic) in topics.iter().enumerate() {
        if topic.racks.any_member_has_rack() {
            let key = (topic.members.clone(), topic.partition_count);
            co_partitioned.entry(key).or_default().push(index);
        }
    }
    for ((members, partition_count), indexes) in co_partitioned {
        if let [index] = *indexes {
            if topics[index].racks.use_rack_strategy() {
                topics[index].assign_ranges(true, assignment);
            }
        } else {
            // Even if the rack strategy is used for none of these: Java asks once, for all topics.
            assign_co_partitioned(topics, &indexes, members.len(), partition_count, assignment);
        }
    }
}

/// Assigns each partition, of all topics at `indexes` at once, to the first member whose rack
/// mismatches none of them and whose quota leaves room for it.
fn assign_co_partitioned(
    topics: &mut [TopicAssignmentState<'_>],
    indexes: &[usize],
    members: usize,
    partition_count: usize,
    assignment: &mut RangeAssignment<'_>,
) {
    for partition in 0..partition_count {
        let fits = |rank: &usize| {
            indexes.iter().all(|&index| {
                let topic = &topics[index];
                topic.max_assignable(*rank) > 0 && !topic.racks.racks_mismatch(*rank, partition)
            })
        };
        if let Some(rank) = (0..members).find(fits) {
            for &index in indexes {
                topics[index].assign(rank, &[partition], assignment);
            }
        }
    }
}

struct RangeAssignment<'a> {
    members: &'a [GroupMember],
    lists: Vec<Vec<TopicPartition>>,
}

/// One topic while its partitions are assigned. A member's rank is its index in `members`.
struct TopicAssignmentState<'a> {
    topic: &'a str,
    partition_count: usize,
    /// The subscribed members, in the order in which they are served.
    members: Vec<usize>,
    /// Of these members, by rank, and of the partitions.
    racks: RackInfo,
    unassigned: BTreeSet<usize>,
    /// How many partitions each member has, by rank.
    assigned: Vec<usize>,
    partitions_per_member: usize,
    /// How many members still get one more than that.
    members_with_extra_partition: usize,
}

impl<'a> TopicAssignmentState<'a> {
    fn new(
        topic: &'a str,
        partitions: &[RackSet],
        members: &[GroupMember],
        mut subscribed: Vec<usize>,
    ) -> Self {
        subscribed.sort_by(|&a, &b| compare_members(&members[a], &members[b]));
        let rack = |&m: &usize| members[m].subscription.rack.as_deref();
        Self {
            topic,
            partition_count: partitions.len(),
            racks: RackInfo::new(subscribed.iter().map(rack), partitions.iter()),
            unassigned: (0..partitions.len()).collect(),
            assigned: vec![0; subscribed.len()],
            partitions_per_member: partitions.len() / subscribed.len(),
            members_with_extra_partition: partitions.len() % subscribed.len(),
            members: subscribed,
        }
    }

    /// How many more partitions the member may get.
    fn max_assignable(&self, rank: usize) -> usize {
        let quota = self.partitions_per_member + usize::from(self.members_with_extra_partition > 0);
        quota.saturating_sub(self.assigned[rank])
    }

    /// Fills each member's quota with unassigned partitions; with `match_racks`, only with
    /// those that its rack does not mismatch.
    fn assign_ranges(&mut self, match_racks: bool, assignment: &mut RangeAssignment<'_>) {
        for rank in 0..self.members.len() {
            let unassigned = self.unassigned.iter().copied();
            let fitting = unassigned
                .filter(|&partition| !match_racks || !self.racks.racks_mismatch(rank, partition));
            let run: Vec<usize> = fitting.take(self.max_assignable(rank)).collect();
            self.assign(rank, &run, assignment);
        }
    }

    fn assign(&mut self, rank: usize, run: &[usize], assignment: &mut RangeAssignment<'_>) {
        if run.is_empty() {
            return;
        }
        self.assigned[rank] += run.len();
        if self.assigned[rank] > self.partitions_per_member {
            self.members_with_extra_partition -= 1;
        }
        let member = self.members[rank];
        let name = assignment.members[member].topic(self.topic);
        for partition in run {
            self.unassigned.remove(partition);
            let tp = TopicPartition::new(name.clone(), *partition as i32);
            assignment.lists[member].push(tp);
        }
    }
}
