//! `cooperative-sticky`: balanced, moving as little as possible, as Java's
//! `CooperativeStickyAssignor`.
//!
//! ```text
//! claims: who owns what, newest generation wins
//!    │
//!    ├─ all want the same topics ─▶ constrained ─┐
//!    └─ else ─────────────────────▶ general ─────┴─▶ withhold what changes owner ─▶ assignment
//! ```
//!
//! A partition that moves is left out of the first round: its owner sees that it is gone,
//! lets go and rejoins, and the next round gives it to the new owner (KIP-429).
//!
//! When racks matter (KIP-881), a member keeps only what has a replica in its rack, and of
//! what is free it is first offered such. Balance comes before racks.
//!
//! A claim to a partition that does not exist is dropped; Java's arithmetic goes wrong on it.

mod constrained;
mod general;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::assign::{GroupMember, Partitions};
use super::java::{JavaHash, java_cmp, walk};
use super::racks::Racks;
use crate::TopicPartition;

/// What each of `members` gets, in their order.
pub(super) fn assign(members: &[GroupMember], partitions: &Partitions) -> Vec<Vec<TopicPartition>> {
    if members.is_empty() {
        return Vec::new();
    }
    let layout = Layout::new(members, partitions);
    let claims = Claims::new(members, &layout);
    let racks = layout.racks(members, partitions);
    let racks = racks.matter().then_some(&racks);
    let mut assignment = if claims.same_topics {
        let (mut assignment, moving) = constrained::assign(&layout, &claims, racks);
        for (partition, to) in moving {
            assignment[to].retain(|kept| *kept != partition);
        }
        assignment
    } else {
        general::assign(members, &layout, &claims, racks)
    };
    if !claims.same_topics {
        withhold_moving(members, &layout, &mut assignment);
    }
    let names = |list: Vec<Id>| list.into_iter().map(|id| layout.name(id)).collect();
    assignment.into_iter().map(names).collect()
}

/// A partition as a number: ordered as (topic, partition).
type Id = usize;
/// A member, by its place in the list of members.
type Who = usize;

/// All existing partitions, numbered.
struct Layout {
    topics: Vec<LaidTopic>,
    total: usize,
}

struct LaidTopic {
    name: Arc<str>,
    hash: i32,
    first: Id,
    count: usize,
}

impl Layout {
    /// Numbers the partitions of the topics that anyone wants.
    fn new(members: &[GroupMember], partitions: &Partitions) -> Self {
        let wanted = members.iter().flat_map(|m| &m.subscription.topics);
        let wanted: HashSet<&str> = wanted.map(|topic| &**topic).collect();
        let mut total = 0;
        let mut topics = Vec::new();
        for (name, partitions) in partitions {
            if partitions.is_empty() || !wanted.contains(&**name) {
                continue;
            }
            topics.push(LaidTopic {
                name: Arc::clone(name),
                hash: name.java_hash(),
                first: total,
                count: partitions.len(),
            });
            total += partitions.len();
        }
        Self { topics, total }
    }

    /// Of all members and all these partitions.
    fn racks(&self, members: &[GroupMember], partitions: &Partitions) -> Racks {
        Racks::new(
            members.iter().map(|m| m.subscription.rack.as_deref()),
            self.topics
                .iter()
                .flat_map(|topic| &partitions[&topic.name]),
        )
    }

    fn topic(&self, name: &str) -> Option<usize> {
        self.topics.binary_search_by(|t| (*t.name).cmp(name)).ok()
    }

    fn topic_of(&self, id: Id) -> usize {
        self.topics.partition_point(|t| t.first <= id) - 1
    }

    fn id(&self, tp: &TopicPartition) -> Option<Id> {
        let topic = &self.topics[self.topic(&tp.topic)?];
        let partition = usize::try_from(tp.partition).ok()?;
        (partition < topic.count).then_some(topic.first + partition)
    }

    fn partition_of(&self, id: Id) -> usize {
        id - self.topics[self.topic_of(id)].first
    }

    fn name(&self, id: Id) -> TopicPartition {
        let topic = &self.topics[self.topic_of(id)];
        TopicPartition::new(Arc::clone(&topic.name), (id - topic.first) as i32)
    }

    /// `hashCode` of Java's `TopicPartition`.
    fn java_hash(&self, id: Id) -> i32 {
        let topic = &self.topics[self.topic_of(id)];
        let partition = (id - topic.first) as i32;
        partition
            .wrapping_add(31)
            .wrapping_mul(31)
            .wrapping_add(topic.hash)
    }
}

/// Who claims to own what, settled: of two claims the newer generation's counts, of two in
/// one generation neither.
struct Claims {
    /// Members in the order of Java's table.
    order: Vec<Who>,
    /// Members by the order of their ids: the place of each.
    rank: Vec<usize>,
    owned: Vec<Vec<Id>>,
    /// Claimed by several in one generation.
    disputed: HashSet<Id>,
    /// All members want the same topics.
    same_topics: bool,
    newest: i32,
}

impl Claims {
    fn new(members: &[GroupMember], layout: &Layout) -> Self {
        let order = walk(members.iter().map(|m| &*m.id));
        let mut by_id: Vec<Who> = (0..members.len()).collect();
        by_id.sort_by(|&a, &b| java_cmp(&members[a].id, &members[b].id));
        let mut rank = vec![0; members.len()];
        for (place, who) in by_id.into_iter().enumerate() {
            rank[who] = place;
        }
        let mut claims = Self {
            order,
            rank,
            owned: vec![Vec::new(); members.len()],
            disputed: HashSet::new(),
            same_topics: true,
            newest: -1,
        };
        claims.settle(members, layout);
        claims
    }

    fn settle(&mut self, members: &[GroupMember], layout: &Layout) {
        let mut topics: HashSet<&str> = HashSet::new();
        let mut owner: HashMap<Id, Who> = HashMap::new();
        for who in self.order.clone() {
            let subscription = &members[who].subscription;
            let wanted = &subscription.topics;
            if topics.is_empty() {
                topics.extend(wanted.iter().map(|t| &**t));
            } else if wanted.len() != topics.len() || !wanted.iter().all(|t| topics.contains(&**t))
            {
                self.same_topics = false;
            }
            let generation = generation(&members[who]).unwrap_or(-1);
            self.newest = self.newest.max(generation);
            for id in subscription.owned.iter().filter_map(|tp| layout.id(tp)) {
                let Some(&other) = owner.get(&id) else {
                    self.owned[who].push(id);
                    owner.insert(id, who);
                    continue;
                };
                // Java compares with the field of the subscription alone here.
                let others = members[other].subscription.generation.max(-1);
                if generation < others {
                    continue;
                }
                if generation == others {
                    self.disputed.insert(id);
                } else {
                    self.owned[who].push(id);
                }
                self.owned[other].retain(|kept| *kept != id);
                owner.insert(id, who);
            }
        }
    }
}

/// Of which generation a member's claims are: from the subscription, before its version 2
/// from the assignor's own data, whose unreadable bytes mean none.
fn generation(member: &GroupMember) -> Option<i32> {
    let subscription = &member.subscription;
    if subscription.generation >= 0 {
        return Some(subscription.generation);
    }
    let data = subscription.user_data.as_ref()?;
    let bytes = data.first_chunk::<4>();
    Some(bytes.map_or(-1, |bytes| i32::from_be_bytes(*bytes)))
}

/// Takes back what one member would get while another still reports to own it.
fn withhold_moving(members: &[GroupMember], layout: &Layout, assignment: &mut [Vec<Id>]) {
    let mut revoked = HashSet::new();
    let mut owned = Vec::with_capacity(members.len());
    for (member, assigned) in members.iter().zip(&*assignment) {
        let assigned: HashSet<Id> = assigned.iter().copied().collect();
        let claimed = member.subscription.owned.iter();
        let claimed: HashSet<Id> = claimed.filter_map(|tp| layout.id(tp)).collect();
        revoked.extend(claimed.difference(&assigned).copied());
        owned.push(claimed);
    }
    for (assigned, owned) in assignment.iter_mut().zip(&owned) {
        assigned.retain(|id| owned.contains(id) || !revoked.contains(id));
    }
}
