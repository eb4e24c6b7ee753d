//! What the leader of a group decides: which member gets which partitions.
//!
//! ```text
//! members' subscriptions ┐
//!                        ├─▶ assign ─▶ one list per member ─▶ SyncGroup
//! topics' partitions ────┘
//! ```
//!
//! # Invariants
//! - Every partition of a topic that a member wants goes to exactly one member, or, under
//!   `cooperative-sticky`, to none while its former owner has yet to let it go.
//! - For the same group Java's assignors of the same name decide the same, down to the order.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::protocol::MemberSubscription;
use super::{assign_range, assign_sticky};
use crate::kafka::TopicPartition;
use crate::kafka::config::AssignorName;

/// How many partitions each known topic has.
pub(crate) type Partitions = BTreeMap<Arc<str>, usize>;

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
    use std::collections::HashMap;

    use proptest::prelude::*;

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
                round
                    .partitions
                    .insert(words[1].into(), words[2].parse().unwrap());
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
                    rack: None,
                },
            });
            round.range.push(list(words[7]));
            round.cooperative.push(list(words[8]));
        }
        rounds
    }

    #[test]
    fn range_decides_as_java_does() {
        for (number, round) in golden().into_iter().enumerate() {
            let ours = assign(AssignorName::Range, &round.members, &round.partitions);
            assert_eq!(ours, round.range, "round {number}");
        }
    }

    #[test]
    fn cooperative_sticky_decides_as_java_does() {
        let mut general = 0;
        for (number, round) in golden().into_iter().enumerate() {
            let first = &round.members[0].subscription.topics;
            general += usize::from(
                round
                    .members
                    .iter()
                    .any(|m| m.subscription.topics != *first),
            );
            let ours = assign(
                AssignorName::CooperativeSticky,
                &round.members,
                &round.partitions,
            );
            assert_eq!(ours, round.cooperative, "round {number}");
        }
        assert!(general > 50, "both algorithms are covered: {general}");
    }

    type Drawn = (usize, (u8, Vec<(usize, i32)>, i32));

    fn groups() -> impl Strategy<Value = (Partitions, Vec<GroupMember>)> {
        let topics = proptest::collection::vec(0usize..8, 1..5);
        let members = proptest::collection::vec(
            (
                1u8..31,
                proptest::collection::vec((0usize..5, 0i32..9), 0..8),
                -1i32..4,
            ),
            1..8,
        );
        (topics, members).prop_map(|(topics, members)| {
            let name = |t: usize| Arc::<str>::from(format!("t{t}"));
            let partitions = topics
                .iter()
                .enumerate()
                .map(|(t, n)| (name(t), *n))
                .collect();
            let member = |(number, (wanted, owned, generation)): Drawn| GroupMember {
                id: format!("m{number}"),
                instance: None,
                subscription: MemberSubscription {
                    topics: (0..5).filter(|t| wanted >> t & 1 == 1).map(name).collect(),
                    user_data: None,
                    owned: owned
                        .into_iter()
                        .map(|(t, p)| TopicPartition::new(name(t), p))
                        .collect(),
                    generation,
                    rack: None,
                },
            };
            (
                partitions,
                members.into_iter().enumerate().map(member).collect(),
            )
        })
    }

    proptest! {
        #[test]
        fn any_claims_end_in_each_partition_once((partitions, mut members) in groups()) {
            for assignor in [AssignorName::Range, AssignorName::CooperativeSticky] {
                let wanted = |topic: &str, members: &[GroupMember]| {
                    members.iter().any(|m| m.subscription.topics.iter().any(|t| &**t == topic))
                };
                let owed: usize = partitions.iter().filter(|(t, _)| wanted(t, &members)).map(|(_, n)| n).sum();
                // Each round takes its claims from the one before it, as cooperative members do.
                let mut given = 0;
                for generation in 5..9 {
                    let result = assign(assignor, &members, &partitions);
                    let mut owner = HashMap::new();
                    for (who, list) in result.iter().enumerate() {
                        for tp in list {
                            prop_assert!(owner.insert(tp.clone(), who).is_none(), "{tp} twice");
                            prop_assert!(members[who].subscription.topics.contains(&tp.topic));
                            prop_assert!((tp.partition as usize) < partitions[&tp.topic]);
                        }
                    }
                    given = owner.len();
                    for (member, list) in members.iter_mut().zip(result) {
                        member.subscription.owned = list;
                        member.subscription.generation = generation;
                    }
                }
                prop_assert_eq!(given, owed);
            }
        }
    }
}
