//! `range`: each topic's partitions in consecutive runs, as Java's `RangeAssignor`.
//!
//! ```text
//! t: 0 1 2 3 4 5 6     a: 0 1 2    b: 3 4    c: 5 6
//! ```
//!
//! The first members, by instance id and then by member id, get the runs that are one
//! longer. Racks are not looked at: our metadata has no replicas.

use std::cmp::Ordering;

use super::assign::{GroupMember, Partitions};
use super::java::{JavaHash, JavaSet, java_cmp, walk};
use crate::kafka::TopicPartition;

/// What each of `members` gets, in their order.
pub(crate) fn assign(members: &[GroupMember], partitions: &Partitions) -> Vec<Vec<TopicPartition>> {
    let mut assignment = vec![Vec::new(); members.len()];
    let walked = walk(members.iter().map(|m| &*m.id));
    for topic in topics_in_order(members, &walked, partitions) {
        let count = partitions[topic];
        let mut subscribed = walked.clone();
        subscribed.retain(|&m| members[m].subscription.topics.iter().any(|t| &**t == topic));
        subscribed.sort_by(|&a, &b| order(&members[a], &members[b]));
        let share = count / subscribed.len();
        let longer = count % subscribed.len();
        let mut next = 0;
        for (rank, &member) in subscribed.iter().enumerate() {
            let run = share + usize::from(rank < longer);
            let name = members[member].topic(topic);
            assignment[member]
                .extend((next..next + run).map(|p| TopicPartition::new(name.clone(), p as i32)));
            next += run;
        }
    }
    assignment
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
        if partitions.get(*topic).is_some_and(|count| *count > 0) {
            known.insert(topic.java_hash(), topic);
        }
    }
    known.iter().copied().collect()
}
