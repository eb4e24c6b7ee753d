//! `cooperative-sticky`: balanced, moving as little as possible, as Java's
//! `CooperativeStickyAssignor`.
//!
//! ```text
//! owned partitions: of two owners the newer generation counts
//!    │
//!    ├─ all subscriptions equal ─▶ constrained ─┐
//!    └─ else ────────────────────▶ general ─────┴─▶ withhold what changes owner ─▶ assignment
//! ```
//!
//! A partition that changes owner is left out of the first round: its owner sees that it is no
//! longer assigned, revokes it and rejoins, and the next round assigns it to the new owner
//! (KIP-429).
//!
//! With the rack strategy (KIP-881), a member keeps only partitions with a replica in its rack,
//! and such are first offered to it of the unassigned ones. Balance comes before racks.
//!
//! An owned partition that does not exist is ignored; Java's arithmetic goes wrong on it. A member
//! without topics (its pattern matches none) gets nothing; Java takes its subscription for equal to
//! that of the next one if it is the first.

mod constrained;
mod general;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::group_member::{GroupMember, PartitionsPerTopic};
use super::java_hash::{JavaHash, java_cmp, java_map_order};
use super::rack_info::RackInfo;
use crate::TopicPartition;

/// What each of `members` gets, in their order.
pub(super) fn assign(
    members: &[GroupMember],
    partitions: &PartitionsPerTopic,
) -> Vec<Vec<TopicPartition>> {
    if members.is_empty() {
        return Vec::new();
    }
    let index = PartitionIndex::new(members, partitions);
    let owned = OwnedPartitions::new(members, &index);
    let racks = index.racks(members, partitions);
    let racks = racks.use_rack_strategy().then_some(&racks);
    let mut assignment = if owned.all_subscriptions_equal {
        let (mut assignment, transferring) = constrained::assign(&index, &owned, racks);
        for (partition, to) in transferring {
            assignment[to].retain(|kept| *kept != partition);
        }
        assignment
    } else {
        general::assign(members, &index, &owned, racks)
    };
    if !owned.all_subscriptions_equal {
        withhold_transferring(members, &index, &mut assignment);
    }
    let names = |list: Vec<PartitionNumber>| list.into_iter().map(|id| index.name(id)).collect();
    assignment.into_iter().map(names).collect()
}

/// A partition as a number: ordered as (topic, partition).
type PartitionNumber = usize;
/// A member, by its index in the list of members.
type MemberIndex = usize;

/// All existing partitions, numbered.
struct PartitionIndex {
    topics: Vec<IndexedTopic>,
    total: usize,
}

struct IndexedTopic {
    name: Arc<str>,
    hash: i32,
    first: PartitionNumber,
    count: usize,
}

impl PartitionIndex {
    /// Numbers the partitions of the topics that any member subscribes to.
    fn new(members: &[GroupMember], partitions: &PartitionsPerTopic) -> Self {
        let subscribed = members.iter().flat_map(|m| &m.subscription.topics);
        let subscribed: HashSet<&str> = subscribed.map(|topic| &**topic).collect();
        let mut total = 0;
        let mut topics = Vec::new();
        for (name, partitions) in partitions {
            if partitions.is_empty() || !subscribed.contains(&**name) {
                continue;
            }
            topics.push(IndexedTopic {
                name: Arc::clone(name),
                hash: name.java_hash(),
                first: total,
                count: partitions.len(),
            });
            total += partitions.len();
        }
        Self { topics, total }
    }

    /// The racks of all members and of all these partitions.
    fn racks(&self, members: &[GroupMember], partitions: &PartitionsPerTopic) -> RackInfo {
        RackInfo::new(
            members.iter().map(|m| m.subscription.rack.as_deref()),
            self.topics
                .iter()
                .flat_map(|topic| &partitions[&topic.name]),
        )
    }

    fn topic(&self, name: &str) -> Option<usize> {
        self.topics.binary_search_by(|t| (*t.name).cmp(name)).ok()
    }

    fn topic_of(&self, id: PartitionNumber) -> usize {
        self.topics.partition_point(|t| t.first <= id) - 1
    }

    fn id(&self, tp: &TopicPartition) -> Option<PartitionNumber> {
        let topic = &self.topics[self.topic(&tp.topic)?];
        let partition = usize::try_from(tp.partition).ok()?;
        (partition < topic.count).then_some(topic.first + partition)
    }

    fn partition_of(&self, id: PartitionNumber) -> usize {
        id - self.topics[self.topic_of(id)].first
    }

    fn name(&self, id: PartitionNumber) -> TopicPartition {
        let topic = &self.topics[self.topic_of(id)];
        TopicPartition::new(Arc::clone(&topic.name), (id - topic.first) as i32)
    }

    /// `hashCode` of Java's `TopicPartition`.
    fn java_hash(&self, id: PartitionNumber) -> i32 {
        let topic = &self.topics[self.topic_of(id)];
        let partition = (id - topic.first) as i32;
        partition
            .wrapping_add(31)
            .wrapping_mul(31)
            .wrapping_add(topic.hash)
    }
}

/// Which member owns which partitions by the subscriptions: of two owners the one of the newer
/// generation, of two in one generation neither.
struct OwnedPartitions {
    /// Members in the iteration order of Java's table.
    map_order: Vec<MemberIndex>,
    /// Each member's place in the order of member ids.
    rank: Vec<usize>,
    by_member: Vec<Vec<PartitionNumber>>,
    /// Owned by several members of one generation.
    with_multiple_owners: HashSet<PartitionNumber>,
    all_subscriptions_equal: bool,
    max_generation: i32,
}

impl OwnedPartitions {
    fn new(members: &[GroupMember], index: &PartitionIndex) -> Self {
        let map_order = java_map_order(members.iter().map(|m| &*m.member_id));
        let mut by_id: Vec<MemberIndex> = (0..members.len()).collect();
        by_id.sort_by(|&a, &b| java_cmp(&members[a].member_id, &members[b].member_id));
        let mut rank = vec![0; members.len()];
        for (place, member) in by_id.into_iter().enumerate() {
            rank[member] = place;
        }
        let mut owned = Self {
            map_order,
            rank,
            by_member: vec![Vec::new(); members.len()],
            with_multiple_owners: HashSet::new(),
            all_subscriptions_equal: true,
            max_generation: -1,
        };
        owned.resolve(members, index);
        owned
    }

    fn resolve(&mut self, members: &[GroupMember], index: &PartitionIndex) {
        let mut topics: Option<HashSet<&str>> = None;
        let mut owner: HashMap<PartitionNumber, MemberIndex> = HashMap::new();
        for member in self.map_order.clone() {
            let subscription = &members[member].subscription;
            let subscribed = subscription.topics.iter().map(|t| &**t).collect();
            match &topics {
                None => topics = Some(subscribed),
                Some(first) => self.all_subscriptions_equal &= *first == subscribed,
            }
            let generation = owned_generation(&members[member]).unwrap_or(-1);
            self.max_generation = self.max_generation.max(generation);
            for id in subscription.owned.iter().filter_map(|tp| index.id(tp)) {
                let Some(&other) = owner.get(&id) else {
                    self.by_member[member].push(id);
                    owner.insert(id, member);
                    continue;
                };
                // Java compares with the field of the subscription alone here.
                let others = members[other].subscription.generation.max(-1);
                if generation < others {
                    continue;
                }
                if generation == others {
                    self.with_multiple_owners.insert(id);
                } else {
                    self.by_member[member].push(id);
                }
                self.by_member[other].retain(|kept| *kept != id);
                owner.insert(id, member);
            }
        }
    }
}

/// Of which generation a member's owned partitions are: from the subscription; before its
/// version 2 from the assignor's user data, whose unreadable bytes mean none.
fn owned_generation(member: &GroupMember) -> Option<i32> {
    let subscription = &member.subscription;
    if subscription.generation >= 0 {
        return Some(subscription.generation);
    }
    let data = subscription.user_data.as_ref()?;
    let bytes = data.first_chunk::<4>();
    Some(bytes.map_or(-1, |bytes| i32::from_be_bytes(*bytes)))
}

/// Withholds what one member would get while another still reports to own it.
fn withhold_transferring(
    members: &[GroupMember],
    index: &PartitionIndex,
    assignment: &mut [Vec<PartitionNumber>],
) {
    let mut revoked = HashSet::new();
    let mut owned_by_member = Vec::with_capacity(members.len());
    for (member, assigned) in members.iter().zip(&*assignment) {
        let assigned: HashSet<PartitionNumber> = assigned.iter().copied().collect();
        let owned = member.subscription.owned.iter();
        let owned: HashSet<PartitionNumber> = owned.filter_map(|tp| index.id(tp)).collect();
        revoked.extend(owned.difference(&assigned).copied());
        owned_by_member.push(owned);
    }
    for (assigned, owned) in assignment.iter_mut().zip(&owned_by_member) {
        assigned.retain(|id| owned.contains(id) || !revoked.contains(id));
    }
}

#[cfg(test)]
mod tests {
    use super::super::rack_info::RackSet;
    use super::*;
    use crate::group::consumer_protocol::MemberSubscription;

    fn member(id: &str, topics: &[&str]) -> GroupMember {
        GroupMember {
            member_id: id.to_owned(),
            group_instance_id: None,
            subscription: MemberSubscription {
                topics: topics.iter().map(|topic| Arc::from(*topic)).collect(),
                user_data: None,
                owned: Vec::new(),
                generation: 1,
                rack: None,
            },
        }
    }

    #[test]
    fn a_member_without_topics_gets_nothing() {
        let members = [member("m0", &[]), member("m1", &["a"])];
        let partitions = [("a".into(), vec![RackSet::new(); 6])].into();
        let lists = assign(&members, &partitions);
        assert_eq!((lists[0].len(), lists[1].len()), (0, 6), "{lists:?}");
    }
}
