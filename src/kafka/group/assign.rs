//! What the leader of a group decides: which member gets which partitions.
//!
//! ```text
//! members' subscriptions, racks ┐
//!                               ├─▶ assign ─▶ one list per member ─▶ SyncGroup
//! topics' partitions, racks ────┘
//! ```
//!
//! # Invariants
//! - Every partition of a topic that a member wants goes to exactly one member, or, under
//!   `cooperative-sticky`, to none while its former owner has yet to let it go.
//! - For the same group Java's assignors of the same name decide the same, down to the order.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::protocol::MemberSubscription;
use super::racks::RackSet;
use super::{assign_range, assign_sticky};
use crate::TopicPartition;
use crate::config::AssignorName;

/// Each known topic's partitions: where the replicas of each are.
pub(crate) type Partitions = BTreeMap<Arc<str>, Vec<RackSet>>;

/// A member as the leader sees it.
#[derive(Clone, Debug)]
pub(crate) struct GroupMember {
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) subscription: MemberSubscription,
}

impl GroupMember {
    /// This member's own copy of a name it subscribes to.
    pub(super) fn topic(&self, name: &str) -> Arc<str> {
        let topics = &self.subscription.topics;
        let own = topics.iter().find(|topic| &***topic == name);
        own.map_or_else(|| Arc::from(name), Arc::clone)
    }
}

impl AssignorName {
    /// What the protocol calls it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            AssignorName::Range => "range",
            AssignorName::CooperativeSticky => "cooperative-sticky",
        }
    }

    /// Whether members keep what they own while they rejoin.
    pub(crate) fn is_cooperative(self) -> bool {
        self == AssignorName::CooperativeSticky
    }
}

/// What each of `members` gets, in their order.
pub(crate) fn assign(
    assignor: AssignorName,
    members: &[GroupMember],
    partitions: &Partitions,
) -> Vec<Vec<TopicPartition>> {
    match assignor {
        AssignorName::Range => assign_range::assign(members, partitions),
        AssignorName::CooperativeSticky => assign_sticky::assign(members, partitions),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = include_str!("../../../proto-tests/golden/assignors.txt");

    struct Round {
        partitions: Partitions,
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

    fn golden() -> Vec<Round> {
        let mut rounds: Vec<Round> = Vec::new();
        for line in GOLDEN.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            if words[0] == "round" {
                rounds.push(Round {
                    partitions: Partitions::new(),
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
                id: words[1].to_owned(),
                instance: (words[2] != "-").then(|| words[2].to_owned()),
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

    /// Whether the members would get something else if they did not say where they are.
    fn turns_on_racks(assignor: AssignorName, round: &Round) -> bool {
        let mut members = round.members.clone();
        for member in &mut members {
            member.subscription.rack = None;
        }
        let with = assign(assignor, &round.members, &round.partitions);
        with != assign(assignor, &members, &round.partitions)
    }

    #[test]
    fn range_decides_as_java_does() {
        let mut by_rack = 0;
        for (number, round) in golden().into_iter().enumerate() {
            let ours = assign(AssignorName::Range, &round.members, &round.partitions);
            assert_eq!(ours, round.range, "round {number}");
            by_rack += usize::from(turns_on_racks(AssignorName::Range, &round));
        }
        assert!(by_rack > 30, "racks are covered: {by_rack}");
    }

    #[test]
    fn cooperative_sticky_decides_as_java_does() {
        let sticky = AssignorName::CooperativeSticky;
        // Members that all want the same, and others: there is an algorithm for each.
        let (mut rounds, mut by_rack) = ([0, 0], [0, 0]);
        for (number, round) in golden().into_iter().enumerate() {
            let ours = assign(sticky, &round.members, &round.partitions);
            assert_eq!(ours, round.cooperative, "round {number}");
            let mut topics = round.members.iter().map(|m| &m.subscription.topics);
            let first = topics.next().unwrap();
            let general = usize::from(topics.any(|topics| topics != first));
            rounds[general] += 1;
            by_rack[general] += usize::from(turns_on_racks(sticky, &round));
        }
        assert!(rounds[0] > 50 && rounds[1] > 50, "{rounds:?}");
        assert!(by_rack[0] > 15 && by_rack[1] > 15, "{by_rack:?}");
    }
}
