//! What our leaders decide: as Java's, as long as that ends.
//!
//! Under `cooperative-sticky` a member that has to give partitions up joins again, and the
//! group is assigned once more. When racks matter, no member keeps a partition that is far
//! from it, not even one that is far from all; who gets those differs from round to round,
//! and some groups of Java's go round for ever:
//!
//! ```text
//! round 1: 0 to m1, 1 given up by m2      round 2: 1 to m1, 0 given up by m1      round 3 = 1
//! ```
//!
//! So the rounds that would follow are played through. If they do not end, racks are left
//! alone in this round. The next one is judged anew: sooner or later one is reached from
//! which Java's way ends, or nothing moves any more.

use super::assign::{GroupMember, Partitions, assign};
use crate::TopicPartition;
use crate::config::AssignorName;

/// ConsumerGroups that come to rest do so in fewer rounds than this.
const ROUNDS_MAX: usize = 8;

/// What each of `members` gets, in their order.
pub(crate) fn assign_settling(
    assignor: AssignorName,
    members: &[GroupMember],
    partitions: &Partitions,
) -> Vec<Vec<TopicPartition>> {
    let dealt = assign(assignor, members, partitions);
    let racks = members.iter().any(|m| m.subscription.rack.is_some());
    if !racks || !assignor.is_cooperative() || ends(assignor, members, partitions, &dealt) {
        return dealt;
    }
    tracing::debug!("following racks would never end: assigning without them");
    let mut members = members.to_vec();
    members.iter_mut().for_each(|m| m.subscription.rack = None);
    assign(assignor, &members, partitions)
}

/// Whether the rounds that follow come to an end, if everyone does as it is told.
fn ends(
    assignor: AssignorName,
    members: &[GroupMember],
    partitions: &Partitions,
    dealt: &[Vec<TopicPartition>],
) -> bool {
    let mut members = members.to_vec();
    let mut dealt = dealt.to_vec();
    for _ in 0..ROUNDS_MAX {
        if !accept(&mut members, dealt) {
            return true;
        }
        dealt = assign(assignor, &members, partitions);
    }
    false
}

/// The members take what they are dealt; true if any has to give something up for it.
fn accept(members: &mut [GroupMember], dealt: Vec<Vec<TopicPartition>>) -> bool {
    let mut gives_up = false;
    for (member, mut list) in members.iter_mut().zip(dealt) {
        let subscription = &mut member.subscription;
        list.sort();
        let kept = |tp| list.binary_search(tp).is_ok();
        gives_up |= !subscription.owned.iter().all(kept);
        subscription.owned = list;
        // All of one generation, newer than any.
        subscription.generation = i32::MAX;
    }
    gives_up
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::protocol::MemberSubscription;
    use super::super::racks::RackSet;
    use super::*;

    /// How many rounds it takes until nobody has to give anything up; `None`: too many.
    fn rounds(
        members: &mut [GroupMember],
        decide: impl Fn(&[GroupMember]) -> Vec<Vec<TopicPartition>>,
    ) -> Option<usize> {
        (1..50).find(|_| {
            let dealt = decide(members);
            !accept(members, dealt)
        })
    }

    #[test]
    fn a_group_that_would_go_round_for_ever_comes_to_rest() {
        let racks = |words: &str| -> Vec<RackSet> {
            let set = |word: &str| (word != "-").then(|| word.into()).into_iter().collect();
            words.split(' ').map(set).collect()
        };
        let partitions = Partitions::from([
            ("t0".into(), racks("2 -")),
            ("t1".into(), racks("2 - 1 1 1")),
            ("t2".into(), racks("- - - - - -")),
            ("t3".into(), racks("1 - 1")),
        ]);
        let member = |id: &str, topics: &str, rack: &str| GroupMember {
            id: id.to_owned(),
            instance: None,
            subscription: MemberSubscription {
                topics: topics.split(' ').map(Arc::from).collect(),
                generation: -1,
                rack: (rack != "-").then(|| rack.to_owned()),
                ..MemberSubscription::default()
            },
        };
        let mut members = vec![
            member("m0", "t0 t1 t3", "-"),
            member("m1", "t1 t2", "3"),
            member("m2", "t0 t1 t3", "1"),
        ];
        let sticky = AssignorName::CooperativeSticky;
        let java = |members: &[GroupMember]| assign(sticky, members, &partitions);
        let ours = |members: &[GroupMember]| assign_settling(sticky, members, &partitions);
        assert_eq!(rounds(&mut members, java), Some(1));
        members.push(member("m3", "t1 t2 t3 t4", "3"));
        assert_eq!(rounds(&mut members.clone(), java), None);
        assert_eq!(rounds(&mut members, ours), Some(2));
        let owned: usize = members.iter().map(|m| m.subscription.owned.len()).sum();
        assert_eq!(owned, 16);
    }

    type Drawn = (usize, (u8, Vec<(usize, i32)>, i32, u8));

    fn groups() -> impl Strategy<Value = (Partitions, Vec<GroupMember>)> {
        let topics = proptest::collection::vec(proptest::collection::vec(0u8..8, 0..8), 1..5);
        let members = proptest::collection::vec(
            (
                1u8..31,
                proptest::collection::vec((0usize..5, 0i32..9), 0..8),
                -1i32..4,
                0u8..5,
            ),
            1..8,
        );
        (topics, members).prop_map(|(topics, members)| {
            let name = |t: usize| Arc::<str>::from(format!("t{t}"));
            let rack = |r: u8| r.to_string();
            let racks = |bits: &u8| -> RackSet {
                let held = (0..3).filter(|r| bits >> r & 1 == 1);
                held.map(|r| rack(r).into()).collect()
            };
            let partitions = topics
                .iter()
                .enumerate()
                .map(|(t, partitions)| (name(t), partitions.iter().map(racks).collect()))
                .collect();
            let member = |(number, (wanted, owned, generation, at)): Drawn| GroupMember {
                id: format!("m{number}"),
                instance: None,
                subscription: MemberSubscription {
                    topics: (0..5).filter(|t| wanted >> t & 1 == 1).map(name).collect(),
                    user_data: None,
                    // Java gives a topic back to who claims it, even if it no longer wants it.
                    owned: owned
                        .into_iter()
                        .filter(|(t, _)| wanted >> t & 1 == 1)
                        .map(|(t, p)| TopicPartition::new(name(t), p))
                        .collect(),
                    generation,
                    rack: (at < 4).then(|| rack(at)),
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
        fn any_claims_end_in_each_partition_once((partitions, members) in groups()) {
            for assignor in [AssignorName::Range, AssignorName::CooperativeSticky] {
                let mut members = members.clone();
                let wanted = |topic: &str, members: &[GroupMember]| {
                    members.iter().any(|m| m.subscription.topics.iter().any(|t| &**t == topic))
                };
                let owed: usize = partitions.iter().filter(|(t, _)| wanted(t, &members)).map(|(_, p)| p.len()).sum();
                // Each round takes its claims from the one before it, as cooperative members
                // do, who join again until none of them has to give anything up.
                let mut given = 0;
                let mut settled = false;
                for generation in 5..25 {
                    let result = assign_settling(assignor, &members, &partitions);
                    let mut owner = HashMap::new();
                    for (who, list) in result.iter().enumerate() {
                        for tp in list {
                            prop_assert!(owner.insert(tp.clone(), who).is_none(), "{tp} twice");
                            prop_assert!(members[who].subscription.topics.contains(&tp.topic));
                            prop_assert!((tp.partition as usize) < partitions[&tp.topic].len());
                        }
                    }
                    given = owner.len();
                    settled = true;
                    for (member, list) in members.iter_mut().zip(result) {
                        let owned = &mut member.subscription.owned;
                        settled &= owned.iter().all(|tp| list.contains(tp));
                        *owned = list;
                        member.subscription.generation = generation;
                    }
                    if settled {
                        break;
                    }
                }
                prop_assert!(settled, "it goes on and on");
                prop_assert_eq!(given, owed);
            }
        }
    }
}
