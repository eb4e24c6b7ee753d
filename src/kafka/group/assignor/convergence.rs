//! What our leaders assign: the same as Java's, as long as the group's rebalances converge.
//!
//! Under `cooperative-sticky` a member that has to revoke partitions rejoins, and the
//! group is assigned once more. With the rack strategy no member keeps a partition that its
//! rack mismatches, not even one that all members' racks mismatch; who gets those differs from
//! round to round, and some groups with a Java leader rebalance for ever:
//!
//! ```text
//! round 1: 0 to m1, 1 revoked from m2      round 2: 1 to m1, 0 revoked from m1      round 3 = 1
//! ```
//!
//! So the rounds that would follow are simulated. If they do not converge, racks are ignored
//! in this round. The next one is simulated anew: sooner or later a round is reached from
//! which Java's assignment converges, or nothing moves any more.

use super::assign;
use super::group_member::{GroupMember, PartitionsPerTopic};
use crate::TopicPartition;
use crate::config::AssignorName;

/// Groups that converge do so in fewer rounds than this.
const ROUNDS_MAX: usize = 8;

/// What each of `members` gets, in their order.
pub(crate) fn assign_convergent(
    assignor: AssignorName,
    members: &[GroupMember],
    partitions: &PartitionsPerTopic,
) -> Vec<Vec<TopicPartition>> {
    let assignment = assign(assignor, members, partitions);
    let racks = members.iter().any(|m| m.subscription.rack.is_some());
    if !racks || !assignor.is_cooperative() || converges(assignor, members, partitions, &assignment)
    {
        return assignment;
    }
    tracing::debug!("a rack-aware assignment would not converge: assigning without racks");
    let mut members = members.to_vec();
    members.iter_mut().for_each(|m| m.subscription.rack = None);
    assign(assignor, &members, partitions)
}

/// Whether the rounds that follow come to an end, if every member applies its assignment.
fn converges(
    assignor: AssignorName,
    members: &[GroupMember],
    partitions: &PartitionsPerTopic,
    assignment: &[Vec<TopicPartition>],
) -> bool {
    let mut members = members.to_vec();
    let mut assignment = assignment.to_vec();
    for _ in 0..ROUNDS_MAX {
        if !apply(&mut members, assignment) {
            return true;
        }
        assignment = assign(assignor, &members, partitions);
    }
    false
}

/// The members apply their assignment; true if any has to revoke partitions for it.
fn apply(members: &mut [GroupMember], assignment: Vec<Vec<TopicPartition>>) -> bool {
    let mut revokes = false;
    for (member, mut list) in members.iter_mut().zip(assignment) {
        let subscription = &mut member.subscription;
        list.sort();
        let kept = |tp| list.binary_search(tp).is_ok();
        revokes |= !subscription.owned.iter().all(kept);
        subscription.owned = list;
        // All of one generation, newer than any.
        subscription.generation = i32::MAX;
    }
    revokes
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::rack_info::RackSet;
    use super::*;
    use crate::group::consumer_protocol::MemberSubscription;

    /// How many rounds it takes until no member has to revoke anything; `None`: too many.
    fn rounds(
        members: &mut [GroupMember],
        decide: impl Fn(&[GroupMember]) -> Vec<Vec<TopicPartition>>,
    ) -> Option<usize> {
        (1..50).find(|_| {
            let assignment = decide(members);
            !apply(members, assignment)
        })
    }

    #[test]
    fn a_group_that_would_rebalance_for_ever_converges() {
        let racks = |words: &str| -> Vec<RackSet> {
            let set = |word: &str| (word != "-").then(|| word.into()).into_iter().collect();
            words.split(' ').map(set).collect()
        };
        let partitions = PartitionsPerTopic::from([
            ("t0".into(), racks("2 -")),
            ("t1".into(), racks("2 - 1 1 1")),
            ("t2".into(), racks("- - - - - -")),
            ("t3".into(), racks("1 - 1")),
        ]);
        let member = |id: &str, topics: &str, rack: &str| GroupMember {
            member_id: id.to_owned(),
            group_instance_id: None,
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
        let ours = |members: &[GroupMember]| assign_convergent(sticky, members, &partitions);
        assert_eq!(rounds(&mut members, java), Some(1));
        members.push(member("m3", "t1 t2 t3 t4", "3"));
        assert_eq!(rounds(&mut members.clone(), java), None);
        assert_eq!(rounds(&mut members, ours), Some(2));
        let owned: usize = members.iter().map(|m| m.subscription.owned.len()).sum();
        assert_eq!(owned, 16);
    }

    type DrawnMember = (usize, (u8, Vec<(usize, i32)>, i32, u8));

    fn groups() -> impl Strategy<Value = (PartitionsPerTopic, Vec<GroupMember>)> {
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
            let member = |(number, (subscribed, owned, generation, at)): DrawnMember| GroupMember {
                member_id: format!("m{number}"),
                group_instance_id: None,
                subscription: MemberSubscription {
                    topics: (0..5)
                        .filter(|t| subscribed >> t & 1 == 1)
                        .map(name)
                        .collect(),
                    user_data: None,
                    // Java assigns an owned topic to its owner, even if that no longer subscribes to it.
                    owned: owned
                        .into_iter()
                        .filter(|(t, _)| subscribed >> t & 1 == 1)
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
        fn any_owned_partitions_converge_to_each_partition_once((partitions, members) in groups()) {
            for assignor in [AssignorName::Range, AssignorName::CooperativeSticky] {
                let mut members = members.clone();
                let subscribed = |topic: &str, members: &[GroupMember]| {
                    members.iter().any(|m| m.subscription.topics.iter().any(|t| &**t == topic))
                };
                let expected: usize = partitions.iter().filter(|(t, _)| subscribed(t, &members)).map(|(_, p)| p.len()).sum();
                // In each round members own what the one before assigned, as cooperative members
                // do, which rejoin until none of them has to revoke anything.
                let mut assigned = 0;
                let mut converged = false;
                for generation in 5..25 {
                    let result = assign_convergent(assignor, &members, &partitions);
                    let mut owner = HashMap::new();
                    for (who, list) in result.iter().enumerate() {
                        for tp in list {
                            prop_assert!(owner.insert(tp.clone(), who).is_none(), "{tp} twice");
                            prop_assert!(members[who].subscription.topics.contains(&tp.topic));
                            prop_assert!((tp.partition as usize) < partitions[&tp.topic].len());
                        }
                    }
                    assigned = owner.len();
                    converged = true;
                    for (member, list) in members.iter_mut().zip(result) {
                        let owned = &mut member.subscription.owned;
                        converged &= owned.iter().all(|tp| list.contains(tp));
                        *owned = list;
                        member.subscription.generation = generation;
                    }
                    if converged {
                        break;
                    }
                }
                prop_assert!(converged, "it rebalances for ever");
                prop_assert_eq!(assigned, expected);
            }
        }
    }
}
