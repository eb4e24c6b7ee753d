//! `range`: each topic's partitions in consecutive runs, as Java's `RangeAssignor`.
//!
//! ```text
//! t: 0 1 2 3 4 5 6     a: 0 1 2    b: 3 4    c: 5 6
//! ```
//!
//! The first members, by instance id and then by member id, get the runs that are one
//! longer. When racks matter for any topic (KIP-881), members first get what has a replica
//! in their rack, up to their share:
//!
//! - topics of the same members and the same number of partitions, together: each partition
//!   of all of them goes to one member, so that what is joined by key stays with one;
//! - another topic, if racks matter for it, on its own;
//!
//! and then the rest in runs.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::assign::{GroupMember, Partitions};
use super::java::{JavaHash, JavaSet, java_cmp, walk};
use super::racks::{RackSet, Racks};
use crate::TopicPartition;

/// What each of `members` gets, in their order.
pub(crate) fn assign(members: &[GroupMember], partitions: &Partitions) -> Vec<Vec<TopicPartition>> {
    let walked = walk(members.iter().map(|m| &*m.id));
    let mut topics: Vec<Sharing> = topics_in_order(members, &walked, partitions)
        .into_iter()
        .map(|topic| Sharing::new(topic, &partitions[topic], members, &walked))
        .collect();
    let mut assignment = Assignment {
        members,
        lists: vec![Vec::new(); members.len()],
    };
    let by_rack = topics.iter().any(|topic| topic.racks.matter());
    if by_rack {
        give_near(&mut topics, &mut assignment);
    }
    for topic in &mut topics {
        topic.give_runs(false, &mut assignment);
    }
    if by_rack {
        assignment.lists.iter_mut().for_each(|list| list.sort());
    }
    assignment.lists
}

/// Static members first, by instance id; then the others by member id.
fn order(a: &GroupMember, b: &GroupMember) -> Ordering {
    match (&a.instance, &b.instance) {
        (Some(a), Some(b)) => java_cmp(a, b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => java_cmp(&a.id, &b.id),
    }
}

/// The subscribed topics that exist, in the order of Java's tables: from the members' table
/// into a set of topics, from that into a table of the topics that exist.
fn topics_in_order<'a>(
    members: &'a [GroupMember],
    walked: &[usize],
    partitions: &Partitions,
) -> Vec<&'a str> {
    let mut wanted: JavaSet<&str> = JavaSet::new();
    for &m in walked {
        for topic in &members[m].subscription.topics {
            wanted.insert(topic.java_hash(), topic);
        }
    }
    let mut known: JavaSet<&str> = JavaSet::new();
    for topic in wanted.iter() {
        if partitions
            .get(*topic)
            .is_some_and(|racks| !racks.is_empty())
        {
            known.insert(topic.java_hash(), topic);
        }
    }
    known.iter().copied().collect()
}

/// The first round, when racks matter for any of the topics.
fn give_near(topics: &mut [Sharing<'_>], assignment: &mut Assignment<'_>) {
    let mut alike: BTreeMap<(Vec<usize>, usize), Vec<usize>> = BTreeMap::new();
    for (place, topic) in topics.iter().enumerate() {
        if topic.racks.are_told() {
            let key = (topic.members.clone(), topic.count);
            alike.entry(key).or_default().push(place);
        }
    }
    for ((members, count), places) in alike {
        if let [place] = *places {
            if topics[place].racks.matter() {
                topics[place].give_runs(true, assignment);
            }
        } else {
            // Even if racks matter for none of these: Java asks once, for all topics.
            give_together(topics, &places, members.len(), count, assignment);
        }
    }
}

/// Gives each partition, of all topics at `places` at once, to the first member that is near
/// all of it and has room for it.
fn give_together(
    topics: &mut [Sharing<'_>],
    places: &[usize],
    members: usize,
    count: usize,
    assignment: &mut Assignment<'_>,
) {
    for partition in 0..count {
        let fits = |rank: &usize| {
            places.iter().all(|&place| {
                let topic = &topics[place];
                topic.room(*rank) > 0 && !topic.racks.far(*rank, partition)
            })
        };
        if let Some(rank) = (0..members).find(fits) {
            for &place in places {
                topics[place].give(rank, &[partition], assignment);
            }
        }
    }
}

struct Assignment<'a> {
    members: &'a [GroupMember],
    lists: Vec<Vec<TopicPartition>>,
}

/// One topic while it is shared out.
struct Sharing<'a> {
    topic: &'a str,
    count: usize,
    /// Who wants it, the first in rank first.
    members: Vec<usize>,
    /// Of these members, by rank, and of the partitions.
    racks: Racks,
    left: BTreeSet<usize>,
    /// How many each member has, by rank.
    has: Vec<usize>,
    /// What each gets, and how many get one more that have not yet.
    share: usize,
    longer: usize,
}

impl<'a> Sharing<'a> {
    fn new(
        topic: &'a str,
        partitions: &[RackSet],
        members: &[GroupMember],
        walked: &[usize],
    ) -> Self {
        let mut subscribed = walked.to_vec();
        subscribed.retain(|&m| members[m].subscription.topics.iter().any(|t| &**t == topic));
        subscribed.sort_by(|&a, &b| order(&members[a], &members[b]));
        let rack = |&m: &usize| members[m].subscription.rack.as_deref();
        Self {
            topic,
            count: partitions.len(),
            racks: Racks::new(subscribed.iter().map(rack), partitions.iter()),
            left: (0..partitions.len()).collect(),
            has: vec![0; subscribed.len()],
            share: partitions.len() / subscribed.len(),
            longer: partitions.len() % subscribed.len(),
            members: subscribed,
        }
    }

    /// How many more the member may get.
    fn room(&self, rank: usize) -> usize {
        let most = self.share + usize::from(self.longer > 0);
        most.saturating_sub(self.has[rank])
    }

    /// Fills each member up with what is left, or with what of it is not far from it.
    fn give_runs(&mut self, not_far: bool, assignment: &mut Assignment<'_>) {
        for rank in 0..self.members.len() {
            let left = self.left.iter().copied();
            let fitting = left.filter(|&partition| !not_far || !self.racks.far(rank, partition));
            let run: Vec<usize> = fitting.take(self.room(rank)).collect();
            self.give(rank, &run, assignment);
        }
    }

    fn give(&mut self, rank: usize, run: &[usize], assignment: &mut Assignment<'_>) {
        if run.is_empty() {
            return;
        }
        self.has[rank] += run.len();
        if self.has[rank] > self.share {
            self.longer -= 1;
        }
        let member = self.members[rank];
        let name = assignment.members[member].topic(self.topic);
        for partition in run {
            self.left.remove(partition);
            let tp = TopicPartition::new(name.clone(), *partition as i32);
            assignment.lists[member].push(tp);
        }
    }
}
