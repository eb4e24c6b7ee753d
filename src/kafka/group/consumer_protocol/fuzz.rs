//! Subscriptions and assignments of whatever members there are.

use fuzzing::{FuzzInput, fuzz, within};
use kafka_protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use kafka_protocol::protocol::Decodable;

use super::*;

#[test]
fn fuzz_group_metadata() {
    fuzz("group_metadata", |input| {
        let subscription = any_subscription(input);
        let written = encode_subscription(&subscription);
        check_subscription(&subscription, &written);
        let partitions = any_partitions(input);
        let assignment = encode_assignment(&partitions);
        check_assignment(&partitions, &assignment);
        for bytes in [written, assignment] {
            let mut bytes = bytes.to_vec();
            input.damage(&mut bytes);
            // A string of one character is two bytes, a partition of a topic 4.
            let bytes_max = 16 * bytes.len() + 1024;
            let read = within(bytes_max, "a subscription", || decode_subscription(&bytes));
            if let Ok(subscription) = read {
                let again = encode_subscription(&subscription);
                decode_subscription(&again).unwrap();
            }
            let read = within(bytes_max, "an assignment", || decode_assignment(&bytes));
            if let Ok(partitions) = read {
                decode_assignment(&encode_assignment(&partitions)).unwrap();
            }
        }
    });
}

/// It is read as it was written, by us and by a decoder that is not ours.
fn check_subscription(subscription: &MemberSubscription, written: &Bytes) {
    let mut expected = subscription.clone();
    expected.topics.sort();
    expected.owned.sort();
    assert_eq!(decode_subscription(written).as_ref(), Ok(&expected));
    let mut body = written.slice(2..);
    let theirs = ConsumerProtocolSubscription::decode(&mut body, NEWEST).unwrap();
    assert!(body.is_empty());
    let topics: Vec<&str> = theirs.topics.iter().map(|topic| &**topic).collect();
    assert_eq!(
        topics,
        expected
            .topics
            .iter()
            .map(|topic| &**topic)
            .collect::<Vec<_>>()
    );
    assert_eq!(theirs.user_data.as_deref(), expected.user_data.as_deref());
    assert_eq!(theirs.generation_id, expected.generation);
    assert_eq!(theirs.rack_id.as_deref(), expected.rack.as_deref());
    let owned = theirs.owned_partitions.iter();
    let owned = owned.flat_map(|of| of.partitions.iter().map(|p| (of.topic.to_string(), *p)));
    assert_eq!(owned.collect::<Vec<_>>(), pairs(&expected.owned));
}

fn check_assignment(partitions: &[TopicPartition], written: &Bytes) {
    let read = decode_assignment(written).unwrap();
    let mut body = written.slice(2..);
    let theirs = ConsumerProtocolAssignment::decode(&mut body, NEWEST).unwrap();
    assert!(body.is_empty());
    let theirs = theirs.assigned_partitions.iter();
    let theirs = theirs.flat_map(|of| of.partitions.iter().map(|p| (of.topic.to_string(), *p)));
    assert_eq!(theirs.collect::<Vec<_>>(), pairs(&read));
    // By topic, and otherwise as they were.
    let sorted = |partitions: &[TopicPartition]| {
        let mut sorted = pairs(partitions);
        sorted.sort();
        sorted
    };
    assert_eq!(sorted(&read), sorted(partitions));
}

fn pairs(partitions: &[TopicPartition]) -> Vec<(String, i32)> {
    let pair = |partition: &TopicPartition| (partition.topic.to_string(), partition.partition);
    partitions.iter().map(pair).collect()
}

fn any_subscription(input: &mut FuzzInput) -> MemberSubscription {
    let len = input.up_to_bits(7);
    MemberSubscription {
        topics: (0..input.below(5)).map(|_| input.text(8).into()).collect(),
        user_data: input.one_in(2).then(|| input.bytes(len)),
        owned: any_partitions(input),
        generation: input.integer() as i32,
        rack: (input.one_in(2)).then(|| format!("r{}", input.text(8))),
    }
}

fn any_partitions(input: &mut FuzzInput) -> Vec<TopicPartition> {
    let topics: Vec<Arc<str>> = (0..3).map(|_| input.text(4).into()).collect();
    let any = |input: &mut FuzzInput| TopicPartition {
        topic: Arc::clone(input.pick(&topics)),
        partition: input.integer() as i32,
    };
    (0..input.below(8)).map(|_| any(input)).collect()
}
