//! The thorough algorithm, for members with different subscriptions (Java's
//! `GeneralAssignmentBuilder`).
//!
//! 1. Each member keeps what it owns and still subscribes to.
//! 2. Each unassigned partition goes to the subscribed member with the fewest partitions.
//!    With the rack strategy, partitions are first offered to members whose rack does not
//!    mismatch, and a member does not keep what its rack mismatches.
//! 3. Partitions move from members with more to members with fewer while that helps,
//!    unassigned ones first; if the balance score is no better in the end, the moves are undone.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::super::group_member::GroupMember;
use super::super::java_hash::JavaSet;
use super::super::rack_info::RackInfo;
use super::{MemberIndex, OwnedPartitions, PartitionIndex, PartitionNumber, owned_generation};

/// What each member gets, including partitions that another member has to revoke first.
pub(super) fn assign(
    members: &[GroupMember],
    index: &PartitionIndex,
    owned: &OwnedPartitions,
    racks: Option<&RackInfo>,
) -> Vec<Vec<PartitionNumber>> {
    let mut builder = GeneralAssignmentBuilder::new(members, index, owned);
    let revocation_required = builder.drop_unassignable(racks);
    let previous = previous_assignment(members, index, owned);
    builder.balance(&previous, revocation_required, racks);
    builder.assignment
}

/// Owners of an older generation than the newest: a partition is preferably moved back to them.
fn previous_assignment(
    members: &[GroupMember],
    index: &PartitionIndex,
    owned: &OwnedPartitions,
) -> HashMap<PartitionNumber, (MemberIndex, i32)> {
    let mut previous: HashMap<PartitionNumber, (MemberIndex, i32)> = HashMap::new();
    for &member in &owned.map_order {
        let generation = match owned_generation(&members[member]) {
            Some(generation) if generation < owned.max_generation => generation,
            None if owned.max_generation > -1 => -1,
            _ => continue,
        };
        let owned = members[member].subscription.owned.iter();
        for id in owned.filter_map(|tp| index.id(tp)) {
            let known = previous.entry(id).or_insert((member, generation));
            if generation > known.1 {
                *known = (member, generation);
            }
        }
    }
    previous
}

struct GeneralAssignmentBuilder<'a> {
    index: &'a PartitionIndex,
    rank: &'a [usize],
    /// Subscriptions, both ways; topics by their place in the index.
    members_per_topic: Vec<Vec<MemberIndex>>,
    topics_per_member: Vec<HashSet<usize>>,
    assignment: Vec<Vec<PartitionNumber>>,
    current_owner: Vec<Option<MemberIndex>>,
    /// Members that can participate in reassignment, those with the fewest partitions first.
    sorted_members: BTreeSet<(usize, usize, MemberIndex)>,
    /// Every partition, those of the topics with the fewest members first.
    sorted_partitions: Vec<PartitionNumber>,
    movements: PartitionMovements,
}

impl<'a> GeneralAssignmentBuilder<'a> {
    fn new(members: &[GroupMember], index: &'a PartitionIndex, owned: &'a OwnedPartitions) -> Self {
        let mut members_per_topic = vec![Vec::new(); index.topics.len()];
        let mut topics_per_member = vec![HashSet::new(); members.len()];
        for &member in &owned.map_order {
            let topics = members[member].subscription.topics.iter();
            for topic in topics.filter_map(|topic| index.topic(topic)) {
                if topics_per_member[member].insert(topic) {
                    members_per_topic[topic].push(member);
                }
            }
        }
        let mut owner = vec![None; index.total];
        for (member, owned) in owned.by_member.iter().enumerate() {
            for &id in owned {
                owner[id] = Some(member);
            }
        }
        let mut topics: Vec<usize> = (0..index.topics.len()).collect();
        topics.sort_by_key(|&topic| members_per_topic[topic].len());
        let ids = |topic: usize| {
            let topic = &index.topics[topic];
            topic.first..topic.first + topic.count
        };
        Self {
            index,
            rank: &owned.rank,
            sorted_partitions: topics.into_iter().flat_map(ids).collect(),
            members_per_topic,
            topics_per_member,
            assignment: owned.by_member.clone(),
            current_owner: owner,
            sorted_members: BTreeSet::new(),
            movements: PartitionMovements::default(),
        }
    }

    /// Takes from each member what it no longer subscribes to or its rack mismatches; true if
    /// there was any.
    fn drop_unassignable(&mut self, racks: Option<&RackInfo>) -> bool {
        let mut dropped = false;
        for (member, assigned) in self.assignment.iter_mut().enumerate() {
            let before = assigned.len();
            assigned.retain(|&id| {
                let mismatch = racks.is_some_and(|racks| racks.racks_mismatch(member, id));
                !mismatch && self.topics_per_member[member].contains(&self.index.topic_of(id))
            });
            dropped |= assigned.len() < before;
        }
        dropped
    }

    fn balance(
        &mut self,
        previous: &HashMap<PartitionNumber, (MemberIndex, i32)>,
        revocation_required: bool,
        racks: Option<&RackInfo>,
    ) {
        self.sorted_members = (0..self.assignment.len())
            .map(|member| self.load(member))
            .collect();
        let initializing = self.assignment.iter().all(Vec::is_empty);
        let kept: HashSet<PartitionNumber> = self.assignment.iter().flatten().copied().collect();
        let mut unassigned: Vec<PartitionNumber> = self.sorted_partitions.clone();
        unassigned.retain(|id| !kept.contains(id));
        let mut remaining = unassigned.clone();
        if let Some(racks) = racks {
            remaining.retain(|&id| {
                !self.assign_partition(id, |member| !racks.racks_mismatch(member, id))
            });
        }
        for id in remaining {
            self.assign_partition(id, |_| true);
        }

        let movable = |builder: &Self, id: &PartitionNumber| {
            builder.members_per_topic[builder.index.topic_of(*id)].len() >= 2
        };
        unassigned.retain(|id| movable(self, id));
        let mut all = std::mem::take(&mut self.sorted_partitions);
        all.retain(|id| movable(self, id));
        for member in 0..self.assignment.len() {
            if !self.can_participate_in_reassignment(member) {
                self.sorted_members.remove(&self.load(member));
            }
        }

        let before = self.assignment.clone();
        let score_before = self.balance_score();
        if !revocation_required {
            self.perform_reassignments(&unassigned, previous);
        }
        let moved = self.perform_reassignments(&all, previous);
        if !initializing && moved && self.balance_score() >= score_before {
            self.assignment = before;
        }
    }

    fn load(&self, member: MemberIndex) -> (usize, usize, MemberIndex) {
        (self.assignment[member].len(), self.rank[member], member)
    }

    /// Assigns to the member with the fewest partitions that subscribes to it and `fits`; false if
    /// there is none.
    fn assign_partition(
        &mut self,
        id: PartitionNumber,
        fits: impl Fn(MemberIndex) -> bool,
    ) -> bool {
        let topic = self.index.topic_of(id);
        let mut candidates = self.sorted_members.iter().map(|(_, _, member)| *member);
        let least_loaded = candidates
            .find(|&member| self.topics_per_member[member].contains(&topic) && fits(member));
        let Some(member) = least_loaded else {
            return false;
        };
        self.sorted_members.remove(&self.load(member));
        self.assignment[member].push(id);
        self.current_owner[id] = Some(member);
        self.sorted_members.insert(self.load(member));
        true
    }

    /// How many partitions a member could have at most: all of its topics.
    fn max_assignment_size(&self, member: MemberIndex) -> usize {
        let topics = self.topics_per_member[member].iter();
        topics.map(|&topic| self.index.topics[topic].count).sum()
    }

    fn can_participate_in_reassignment(&self, member: MemberIndex) -> bool {
        let assigned = &self.assignment[member];
        let contested =
            |id: &PartitionNumber| self.members_per_topic[self.index.topic_of(*id)].len() >= 2;
        assigned.len() < self.max_assignment_size(member) || assigned.iter().any(contested)
    }

    /// The sum of all pairs' differences in load, among members that participate.
    fn balance_score(&self) -> usize {
        let loads: Vec<usize> = self
            .sorted_members
            .iter()
            .map(|(_, _, member)| self.assignment[*member].len())
            .collect();
        let pairs = loads.iter().enumerate();
        pairs
            .map(|(i, a)| loads[i + 1..].iter().map(|b| a.abs_diff(*b)).sum::<usize>())
            .sum()
    }

    fn perform_reassignments(
        &mut self,
        ids: &[PartitionNumber],
        previous: &HashMap<PartitionNumber, (MemberIndex, i32)>,
    ) -> bool {
        let mut any = false;
        loop {
            let mut moved = false;
            for &id in ids {
                if self.is_balanced() {
                    break;
                }
                let Some(owner) = self.current_owner[id] else {
                    continue;
                };
                let load = self.assignment[owner].len();
                let lighter = |member: MemberIndex| load > self.assignment[member].len() + 1;
                let topic = self.index.topic_of(id);
                let subscribes =
                    |member: MemberIndex| self.topics_per_member[member].contains(&topic);
                let back_to = previous.get(&id).map(|(member, _)| *member);
                // Java does not ask whether it still subscribes.
                let back_to = back_to.filter(|&member| lighter(member) && subscribes(member));
                if let Some(member) = back_to {
                    self.reassign_partition(id, member);
                    moved = true;
                    continue;
                }
                if self.members_per_topic[topic]
                    .iter()
                    .any(|&member| lighter(member))
                {
                    let mut lightest = self.sorted_members.iter().map(|(_, _, member)| *member);
                    let member = lightest.find(|&member| subscribes(member));
                    self.reassign_partition(id, member.expect("the owner subscribes to the topic"));
                    moved = true;
                }
            }
            if !moved {
                return any;
            }
            any = true;
        }
    }

    fn is_balanced(&self) -> bool {
        let (Some(first), Some(last)) = (self.sorted_members.first(), self.sorted_members.last())
        else {
            return true;
        };
        if first.0 + 1 >= last.0 {
            return true;
        }
        self.sorted_members.iter().all(|&(load, _, member)| {
            load == self.max_assignment_size(member)
                || !self.topics_per_member[member]
                    .iter()
                    .any(|&topic| self.could_take_from(topic, member, load))
        })
    }

    /// Whether moving a partition of `topic` to `member` would improve the balance.
    fn could_take_from(&self, topic: usize, member: MemberIndex, load: usize) -> bool {
        let topic = &self.index.topics[topic];
        let owners = self.current_owner[topic.first..topic.first + topic.count]
            .iter()
            .flatten();
        owners
            .filter(|owner| **owner != member)
            .any(|&owner| load + 1 < self.assignment[owner].len())
    }

    fn reassign_partition(&mut self, id: PartitionNumber, to: MemberIndex) {
        let from = self.current_owner[id].expect("only owned partitions move");
        let topic = self.index.topic_of(id);
        let id = self.movements.actual_partition_to_move(topic, id, from, to);
        let from = self.current_owner[id].expect("a partition that moved has an owner");
        self.sorted_members.remove(&self.load(from));
        self.sorted_members.remove(&self.load(to));
        self.movements
            .move_partition(topic, id, self.index.java_hash(id), from, to);
        self.assignment[from].retain(|kept| *kept != id);
        self.assignment[to].push(id);
        self.current_owner[id] = Some(to);
        self.sorted_members.insert(self.load(to));
        self.sorted_members.insert(self.load(from));
    }
}

/// Which partitions moved between which members, so that two members do not swap partitions of
/// one topic.
#[derive(Default)]
struct PartitionMovements {
    by_topic: HashMap<(usize, MemberIndex, MemberIndex), JavaSet<PartitionNumber>>,
    by_partition: HashMap<PartitionNumber, (MemberIndex, MemberIndex)>,
}

impl PartitionMovements {
    /// The partition to move instead of `id`: one of the topic that moved the other way before.
    fn actual_partition_to_move(
        &self,
        topic: usize,
        id: PartitionNumber,
        from: MemberIndex,
        to: MemberIndex,
    ) -> PartitionNumber {
        let from = self
            .by_partition
            .get(&id)
            .map_or(from, |(source, _)| *source);
        let back = self.by_topic.get(&(topic, to, from));
        back.and_then(|ids| ids.iter().next())
            .copied()
            .unwrap_or(id)
    }

    fn move_partition(
        &mut self,
        topic: usize,
        id: PartitionNumber,
        hash: i32,
        from: MemberIndex,
        to: MemberIndex,
    ) {
        let mut source = from;
        if let Some((first, last)) = self.by_partition.remove(&id) {
            if let Some(ids) = self.by_topic.get_mut(&(topic, first, last)) {
                ids.remove(hash, &id);
                if ids.is_empty() {
                    self.by_topic.remove(&(topic, first, last));
                }
            }
            if first == to {
                return;
            }
            source = first;
        }
        self.by_partition.insert(id, (source, to));
        let ids = self.by_topic.entry((topic, source, to));
        ids.or_insert_with(JavaSet::new).insert(hash, id);
    }
}
