//! What the leader of a group decides: which member gets which partitions, as Java's
//! `ConsumerPartitionAssignor`s.
//!
//! ```text
//! members' subscriptions, racks ┐
//!                               ├─▶ assign ─▶ one list per member ─▶ SyncGroup
//! topics' partitions, racks ────┘
//! ```
//!
//! # Invariants
//! - Every partition of a topic that a member subscribes to goes to exactly one member, or, under
//!   `cooperative-sticky`, to none while its former owner has yet to revoke it.
//! - For the same group Java's assignors of the same name decide the same, down to the order.

mod convergence;
#[cfg(test)]
mod fuzz;
mod group_member;
mod java_hash;
mod rack_info;
mod range;
mod sticky;

pub(super) use self::convergence::assign_convergent;
pub(super) use self::group_member::{GroupMember, PartitionsPerTopic};
pub(super) use self::rack_info::RackSet;
use crate::TopicPartition;
use crate::config::AssignorName;

impl AssignorName {
    /// Its protocol name in JoinGroup.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            AssignorName::Range => "range",
            AssignorName::CooperativeSticky => "cooperative-sticky",
        }
    }

    /// Whether members keep what they own while they rejoin (KIP-429).
    pub(crate) fn is_cooperative(self) -> bool {
        self == AssignorName::CooperativeSticky
    }
}

/// What each of `members` gets, in their order.
fn assign(
    assignor: AssignorName,
    members: &[GroupMember],
    partitions: &PartitionsPerTopic,
) -> Vec<Vec<TopicPartition>> {
    match assignor {
        AssignorName::Range => range::assign(members, partitions),
        AssignorName::CooperativeSticky => sticky::assign(members, partitions),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::group::consumer_protocol::MemberSubscription;

    const GOLDEN: &str = include_str!("../../../proto-tests/golden/assignors.txt");

    struct GoldenCase {
        partitions: PartitionsPerTopic,
        members: Vec<GroupMember>,
        range: Vec<Vec<TopicPartition>>,
        cooperative: Vec<Vec<TopicPartition>>,
    }

    fn list(text: &str) -> Vec<TopicPartition> {
        let topic = |run: &str| {
            let (topic, partitions) = run.split_once(':').unwrap();
            let name: Arc<str> = topic.into();
            let partition = |p: &str| TopicPartition::new(name.clone(), p.parse::<i32>().unwrap());
            partitions.split(',').map(partition).collect::<Vec<_>>()
        };
        if text == "-" {
            return Vec::new();
        }
        text.split(';').flat_map(topic).collect()
    }

    fn rack_set(state: &str) -> RackSet {
        let state = state.chars().filter(|letter| *letter != '-');
        state.map(|letter| letter.to_string().into()).collect()
    }

    fn golden() -> Vec<GoldenCase> {
        let mut rounds: Vec<GoldenCase> = Vec::new();
        for line in GOLDEN.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            if words[0] == "round" {
                rounds.push(GoldenCase {
                    partitions: PartitionsPerTopic::new(),
                    members: vec![],
                    range: vec![],
                    cooperative: vec![],
                });
                continue;
            }
            let round = rounds.last_mut().unwrap();
            if words[0] == "topic" {
                let count: usize = words[2].parse().unwrap();
                let none = vec![RackSet::new(); count];
                let racks = words
                    .get(3)
                    .map_or(none, |racks| racks.split(',').map(rack_set).collect());
                assert_eq!(racks.len(), count);
                round.partitions.insert(words[1].into(), racks);
                continue;
            }
            let number = |text: &str| (text != "-").then(|| text.parse::<i32>().unwrap());
            let mut topics: Vec<Arc<str>> = words[5].split(',').map(Arc::from).collect();
            topics.sort();
            round.members.push(GroupMember {
                member_id: words[1].to_owned(),
                group_instance_id: (words[2] != "-").then(|| words[2].to_owned()),
                subscription: MemberSubscription {
                    topics,
                    user_data: number(words[4]).map(|g| g.to_be_bytes().to_vec()),
                    owned: list(words[6]),
                    generation: number(words[3]).unwrap_or(-1),
                    rack: words
                        .get(9)
                        .filter(|rack| **rack != "-")
                        .map(|rack| (*rack).to_owned()),
                },
            });
            round.range.push(list(words[7]));
            round.cooperative.push(list(words[8]));
        }
        rounds
    }

    /// Whether the members would get something else if their subscriptions named no rack.
    fn depends_on_racks(assignor: AssignorName, round: &GoldenCase) -> bool {
        let mut members = round.members.clone();
        for member in &mut members {
            member.subscription.rack = None;
        }
        let with = assign(assignor, &round.members, &round.partitions);
        with != assign(assignor, &members, &round.partitions)
    }

    #[test]
    fn range_assigns_as_java_does() {
        let mut by_rack = 0;
        for (number, round) in golden().into_iter().enumerate() {
            let ours = assign(AssignorName::Range, &round.members, &round.partitions);
            assert_eq!(ours, round.range, "round {number}");
            by_rack += usize::from(depends_on_racks(AssignorName::Range, &round));
        }
        assert!(by_rack > 30, "racks are covered: {by_rack}");
    }

    #[test]
    fn cooperative_sticky_assigns_as_java_does() {
        let sticky = AssignorName::CooperativeSticky;
        // Members with equal subscriptions, and others: there is an algorithm for each.
        let (mut rounds, mut by_rack) = ([0, 0], [0, 0]);
        for (number, round) in golden().into_iter().enumerate() {
            let ours = assign(sticky, &round.members, &round.partitions);
            assert_eq!(ours, round.cooperative, "round {number}");
            let mut topics = round.members.iter().map(|m| &m.subscription.topics);
            let first = topics.next().unwrap();
            let general = usize::from(topics.any(|topics| topics != first));
            rounds[general] += 1;
            by_rack[general] += usize::from(depends_on_racks(sticky, &round));
        }
        assert!(rounds[0] > 50 && rounds[1] > 50, "{rounds:?}");
        assert!(by_rack[0] > 15 && by_rack[1] > 15, "{by_rack:?}");
    }
}
