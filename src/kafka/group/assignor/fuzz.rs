//! Groups of members that say whatever they like: a leader assigns for all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fuzzing::{FuzzInput, fuzz};

use super::*;
use crate::group::consumer_protocol::{
    MemberSubscription, decode_subscription, encode_subscription,
};

/// Rebalances after which a group at rest has what it should.
const ROUNDS_MAX: usize = 100;

#[test]
fn fuzz_assignors() {
    fuzz("assignors", |input| {
        let topics: Vec<Arc<str>> = (0..1 + input.below(6)).map(|_| any_topic(input)).collect();
        let partitions = any_partitions(input, &topics);
        let mut members = any_members(input, &topics);
        let ranges = assign_convergent(AssignorName::Range, &members, &partitions);
        check(&members, &partitions, &ranges);
        assert_eq!(assigned(&ranges), subscribed(&members, &partitions));

        let sticky = AssignorName::CooperativeSticky;
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "the group never comes to rest");
            let lists = assign_convergent(sticky, &members, &partitions);
            check(&members, &partitions, &lists);
            check_withheld(&members, &partitions, &lists);
            if !apply(&mut members, &lists) {
                assert_eq!(assigned(&lists), subscribed(&members, &partitions));
                break;
            }
        }
    });
}

/// Each list is of partitions that exist, of topics that its member subscribes to, and none is in
/// two of them.
fn check(members: &[GroupMember], partitions: &PartitionsPerTopic, lists: &[Vec<TopicPartition>]) {
    assert_eq!(lists.len(), members.len());
    let all = assigned(lists);
    assert_eq!(all.len(), lists.iter().map(Vec::len).sum(), "{lists:?}");
    for (member, list) in members.iter().zip(lists) {
        for tp in list {
            assert!(member.subscription.topics.contains(&tp.topic), "{tp}");
            let count = partitions.get(&tp.topic).map_or(0, Vec::len);
            assert!((0..count as i32).contains(&tp.partition), "{tp}");
        }
    }
}

/// What nobody gets is owned, or said to be.
fn check_withheld(
    members: &[GroupMember],
    partitions: &PartitionsPerTopic,
    lists: &[Vec<TopicPartition>],
) {
    let owned: BTreeSet<_> = members
        .iter()
        .flat_map(|member| &member.subscription.owned)
        .collect();
    let all = assigned(lists);
    for tp in subscribed(members, partitions) {
        assert!(all.contains(&tp) || owned.contains(&tp), "{tp}");
    }
}

/// The members own what they were assigned; whether any had to give something up for it.
fn apply(members: &mut [GroupMember], lists: &[Vec<TopicPartition>]) -> bool {
    let mut revokes = false;
    for (member, list) in members.iter_mut().zip(lists) {
        let subscription = &mut member.subscription;
        revokes |= subscription.owned.iter().any(|tp| !list.contains(tp));
        subscription.owned = list.clone();
        subscription.generation = 7;
        subscription.user_data = None;
    }
    revokes
}

fn assigned(lists: &[Vec<TopicPartition>]) -> BTreeSet<TopicPartition> {
    lists.iter().flatten().cloned().collect()
}

/// The partitions of all topics that any member subscribes to.
fn subscribed(
    members: &[GroupMember],
    partitions: &PartitionsPerTopic,
) -> BTreeSet<TopicPartition> {
    let topics: BTreeSet<_> = members
        .iter()
        .flat_map(|member| &member.subscription.topics)
        .collect();
    let of = |topic: &Arc<str>| {
        let count = partitions.get(topic).map_or(0, Vec::len) as i32;
        let topic = Arc::clone(topic);
        (0..count).map(move |partition| TopicPartition::new(Arc::clone(&topic), partition))
    };
    topics.into_iter().flat_map(of).collect()
}

fn any_topic(input: &mut FuzzInput) -> Arc<str> {
    match input.below(3) {
        0 => input.text(6).into(),
        // Java hashes of these collide.
        1 => Arc::from(*input.pick(&["Aa", "BB", "AaAa", "BBBB", "AaBB"])),
        _ => Arc::from(format!("t{}", input.below(9))),
    }
}

/// Not of all topics.
fn any_partitions(input: &mut FuzzInput, topics: &[Arc<str>]) -> PartitionsPerTopic {
    let racks = input.one_in(2);
    let mut known = BTreeMap::new();
    for topic in topics {
        if input.one_in(8) {
            continue;
        }
        let count = match input.one_in(20) {
            true => input.below(120),
            false => input.below(9),
        };
        let any = |input: &mut FuzzInput| match racks {
            true => (0..input.below(4))
                .map(|_| any_rack(input).into())
                .collect(),
            false => RackSet::new(),
        };
        known.insert(Arc::clone(topic), (0..count).map(|_| any(input)).collect());
    }
    known
}

fn any_rack(input: &mut FuzzInput) -> String {
    format!("r{}", input.below(4))
}

fn any_members(input: &mut FuzzInput, topics: &[Arc<str>]) -> Vec<GroupMember> {
    let count = match input.one_in(20) {
        true => 1 + input.below(40),
        false => 1 + input.below(6),
    };
    let alike = input.one_in(2).then(|| any_topics(input, topics));
    let mut members = Vec::new();
    for number in 0..count {
        let mut subscription = any_subscription(input, topics);
        if let Some(topics) = &alike {
            subscription.topics.clone_from(topics);
        }
        members.push(GroupMember {
            member_id: match input.below(4) {
                0 => (*input.pick(&["Aa", "BB", ""])).to_owned(),
                1 => input.text(4),
                _ => format!("m{number}"),
            },
            group_instance_id: input.one_in(3).then(|| format!("i{}", input.below(9))),
            subscription,
        });
    }
    members
}

/// As it is read from another member's bytes, damaged now and then.
fn any_subscription(input: &mut FuzzInput, topics: &[Arc<str>]) -> MemberSubscription {
    let subscription = MemberSubscription {
        topics: any_topics(input, topics),
        user_data: input
            .one_in(3)
            .then(|| (input.integer() as i32).to_be_bytes().to_vec()),
        owned: any_owned(input, topics),
        generation: match input.one_in(4) {
            true => input.integer() as i32,
            false => input.below(4) as i32 - 1,
        },
        rack: input.one_in(2).then(|| any_rack(input)),
    };
    let mut bytes = encode_subscription(&subscription).to_vec();
    if input.one_in(8) {
        input.damage(&mut bytes);
    }
    decode_subscription(&bytes).unwrap_or(subscription)
}

/// Some of them, some twice, and some that nobody knows.
fn any_topics(input: &mut FuzzInput, topics: &[Arc<str>]) -> Vec<Arc<str>> {
    let any = |input: &mut FuzzInput| match input.one_in(10) {
        true => any_topic(input),
        false => Arc::clone(input.pick(topics)),
    };
    (0..input.below(7)).map(|_| any(input)).collect()
}

/// Some that others own too, and some that do not exist.
fn any_owned(input: &mut FuzzInput, topics: &[Arc<str>]) -> Vec<TopicPartition> {
    let any = |input: &mut FuzzInput| {
        let topic = match input.one_in(10) {
            true => any_topic(input),
            false => Arc::clone(input.pick(topics)),
        };
        let partition = match input.one_in(10) {
            true => input.integer() as i32,
            false => input.below(9) as i32,
        };
        TopicPartition::new(topic, partition)
    };
    (0..input.up_to_bits(5)).map(|_| any(input)).collect()
}
