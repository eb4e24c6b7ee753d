//! Queues that follow what is known of the cluster.

use std::time::Duration;

use kafka_protocol::messages::metadata_response::MetadataResponseTopic;

use super::super::delivery::Placed;
use super::super::partitioner::partition_for_key;
use super::*;
use crate::fake::{metadata_response, topic_metadata};

const A: BrokerId = BrokerId(1);
const B: BrokerId = BrokerId(2);
const LINGER: Duration = Duration::ZERO;
const DELIVERY: Duration = Duration::from_secs(120);
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(1);

struct Bench {
    batches: Accumulator,
    known: Arc<ClusterSnapshot>,
    now: Instant,
    effects: Effects,
    deliveries: Vec<DeliveryFuture>,
}

impl Bench {
    /// Knows `t` with these partitions: leader and epoch of each.
    fn new(partitions: &[(i32, i32)]) -> Self {
        let sizes = Sizes {
            batch: 1 << 14,
            request: 1 << 20,
        };
        Self::with(sizes, partitions)
    }

    fn with(sizes: Sizes, partitions: &[(i32, i32)]) -> Self {
        let limits = Limits {
            linger: LINGER,
            delivery: DELIVERY,
            in_flight: 5,
            retry: (RETRY, RETRY_MAX),
        };
        let mut bench = Self {
            batches: Accumulator::new(limits, sizes),
            known: Arc::default(),
            now: Instant::now(),
            effects: Effects::default(),
            deliveries: Vec::new(),
        };
        let identity = Identity { id: 7, epoch: 0 };
        bench
            .batches
            .identify(identity, bench.now, &mut bench.effects);
        bench.learn(vec![topic_metadata("t", 5, partitions)]);
        bench
    }

    /// An answer of the cluster arrives.
    fn learn(&mut self, topics: Vec<MetadataResponseTopic>) {
        let address = "127.0.0.1:9092".parse().unwrap();
        let answer = metadata_response(&[(1, address), (2, address)], topics);
        self.known = Arc::new(self.known.merge_with(&answer).0);
        self.follow();
    }

    fn follow(&mut self) {
        self.batches
            .follow(&self.known, self.now, &mut self.effects);
    }

    fn handle(&self) -> Arc<TopicMetadata> {
        Arc::clone(self.known.topic("t").unwrap())
    }

    fn send(
        &mut self,
        topic: &Arc<TopicMetadata>,
        partition: Option<i32>,
        key: Option<&[u8]>,
    ) -> Result<(), ProduceError> {
        self.write(topic, partition, key, &[])
    }

    fn write(
        &mut self,
        topic: &Arc<TopicMetadata>,
        partition: Option<i32>,
        key: Option<&[u8]>,
        value: &[u8],
    ) -> Result<(), ProduceError> {
        let record = NewRecord {
            key,
            value: Some(value),
            headers: &[],
            timestamp: 0,
        };
        let effects = &mut self.effects;
        let delivery = self
            .batches
            .append(topic, partition, &record, 10, effects)?;
        self.deliveries.push(delivery);
        Ok(())
    }

    fn drain(&mut self, broker: BrokerId) -> Vec<Outgoing> {
        self.batches.drain(broker, self.now, &mut self.effects)
    }

    /// One request to the broker, which takes everything.
    fn write_out(&mut self, broker: BrokerId) -> Vec<Identity> {
        let mut identities = Vec::new();
        let mut landed = Vec::new();
        for out in self.drain(broker) {
            identities.push(out.sent.identity);
            landed.push(Landed {
                line: out.line,
                id: out.sent.id,
                body: out.sent.payload,
                landing: Landing::Appended(Placed::new(0, -1)),
                by_id: true,
            });
        }
        self.batches.land(landed, self.now, &mut self.effects);
        identities
    }

    /// The partitions that a request to the broker would write to.
    fn drained(&mut self, broker: BrokerId) -> Vec<i32> {
        let out = self.drain(broker);
        out.iter().map(|out| out.partition.partition).collect()
    }
}

#[test]
fn the_first_record_of_a_partition_goes_to_its_newest_leader() {
    let mut bench = Bench::new(&[(1, 1), (1, 1)]);
    let handle = bench.handle();
    bench.send(&handle, Some(0), None).unwrap();
    bench.learn(vec![topic_metadata("t", 5, &[(1, 1), (2, 2)])]);
    bench.send(&handle, Some(1), None).unwrap();
    assert_eq!(bench.drained(A), [0]);
    assert_eq!(bench.drained(B), [1]);
}

#[test]
fn the_first_record_of_a_topic_goes_to_its_newest_leader() {
    let mut bench = Bench::new(&[(1, 1)]);
    let old = bench.handle();
    bench.learn(vec![topic_metadata("t", 6, &[(2, 0)])]);
    bench.send(&old, Some(0), None).unwrap();
    assert!(bench.drained(A).is_empty());
    let out = bench.drain(B);
    assert_eq!(out[0].topic_id, Uuid::from_u128(6));
}

#[test]
fn a_topic_that_grew_takes_all_its_partitions_through_an_old_handle() {
    let mut bench = Bench::new(&[(1, 1); 3]);
    let handle = bench.handle();
    bench.send(&handle, Some(0), None).unwrap();
    let refused = bench.send(&handle, Some(4), None);
    assert!(matches!(
        refused,
        Err(ProduceError::InvalidPartition { partitions: 3, .. })
    ));
    bench.learn(vec![topic_metadata("t", 5, &[(1, 1); 6])]);
    bench.send(&handle, Some(4), None).unwrap();
    let mut seen = [false; 6];
    for key in 0..100u32 {
        let key = key.to_be_bytes();
        bench.send(&handle, None, Some(&key)).unwrap();
        let line = &bench.batches.topics[0].lines[partition_for_key(&key, 6) as usize];
        assert!(line.is_some(), "as if the topic always had six");
        seen[partition_for_key(&key, 6) as usize] = true;
    }
    assert_eq!(seen, [true; 6]);
}

#[test]
fn a_topic_made_again_with_fewer_partitions_refuses_the_others() {
    let mut bench = Bench::new(&[(1, 1); 3]);
    let old = bench.handle();
    bench.send(&old, Some(2), None).unwrap();
    bench.learn(vec![topic_metadata("t", 6, &[(1, 0)])]);
    let refused = bench.send(&old, Some(1), None);
    assert!(matches!(
        refused,
        Err(ProduceError::InvalidPartition { partitions: 1, .. })
    ));
}

#[test]
fn what_is_followed_does_not_count_as_holding_a_topic() {
    let mut bench = Bench::new(&[(1, 1)]);
    let handle = bench.handle();
    bench.send(&handle, Some(0), None).unwrap();
    drop(handle);
    let topic = bench.known.topic("t").unwrap();
    assert_eq!(Arc::strong_count(topic), 1);
}

#[test]
fn while_a_partition_has_no_leader_it_is_asked_for_with_growing_pauses() {
    let mut bench = Bench::new(&[(-1, 1)]);
    let handle = bench.handle();
    let start = bench.now;
    bench.send(&handle, Some(0), None).unwrap();
    assert_eq!(std::mem::take(&mut bench.effects.leaderless), ["t".into()]);
    // More records and the same answer again are no reasons to ask.
    bench.send(&handle, Some(0), None).unwrap();
    bench.learn(vec![topic_metadata("t", 5, &[(-1, 1)])]);
    assert!(bench.effects.leaderless.is_empty());

    let mut pauses = Vec::new();
    while bench.now < start + DELIVERY / 2 {
        let next = bench.batches.tick(bench.now, &mut bench.effects).unwrap();
        pauses.push(next - bench.now);
        bench.now = next;
        bench.batches.tick(bench.now, &mut bench.effects);
        assert_eq!(std::mem::take(&mut bench.effects.leaderless), ["t".into()]);
    }
    assert!(pauses[0] < RETRY * 2, "{pauses:?}");
    assert!(pauses.iter().all(|&pause| pause < RETRY_MAX * 2));
    assert!(pauses.len() < 100, "{}", pauses.len());

    bench.learn(vec![topic_metadata("t", 5, &[(1, 2)])]);
    assert_eq!(bench.drained(A), [0]);
    bench.now += RETRY_MAX * 2;
    bench.batches.tick(bench.now, &mut bench.effects);
    assert!(bench.effects.leaderless.is_empty());
}

#[test]
fn a_topic_that_vanished_is_asked_for_whenever_records_come() {
    let mut bench = Bench::new(&[(1, 1), (1, 1)]);
    let handle = bench.handle();
    bench.send(&handle, Some(0), None).unwrap();
    bench.known = Arc::default();
    bench.follow();
    let missing = || HashSet::from(["t".into()]);
    assert_eq!(bench.batches.take_missing(), missing());
    assert!(bench.drained(A).is_empty());
    assert!(!bench.batches.has_ready(A), "worth no connection");
    // It is gone; then more records come, also for a partition that never had any.
    for partition in [0, 1] {
        let gone = ProduceError::UnknownTopic { topic: "t".into() };
        let effects = &mut bench.effects;
        bench.batches.fail_topic("t", &gone, bench.now, effects);
        let settled = std::mem::take(&mut bench.effects.settled);
        assert_eq!(settled.len(), 1);
        assert_eq!(settled[0].result, Err(gone));
        assert!(bench.batches.take_missing().is_empty());
        bench.effects.direct = false;
        bench.send(&handle, Some(partition), None).unwrap();
        assert_eq!(bench.batches.take_missing(), missing());
        assert!(bench.effects.direct);
        assert!(bench.drained(A).is_empty());
    }
    // It was not gone after all.
    bench.learn(vec![topic_metadata("t", 5, &[(1, 1), (2, 1)])]);
    assert_eq!(bench.drained(B), [1]);
}

#[test]
fn a_leader_that_left_and_came_back_is_not_sent_a_partition_twice_in_one_request() {
    // A record of 60 bytes fills a batch, one of 1,000 a request.
    let sizes = Sizes {
        batch: 100,
        request: 1_000,
    };
    let mut bench = Bench::with(sizes, &[(1, 1)]);
    let handle = bench.handle();
    bench.write(&handle, Some(0), None, &[0; 1_000]).unwrap();
    for _ in 0..3 {
        bench.write(&handle, Some(0), None, &[0; 60]).unwrap();
    }
    bench.learn(vec![topic_metadata("t", 5, &[(2, 2)])]);
    bench.learn(vec![topic_metadata("t", 5, &[(1, 3)])]);
    bench.write_out(A);
    for _ in 0..3 {
        assert_eq!(bench.drained(A), [0]);
    }
    assert!(bench.drained(A).is_empty());
}

#[test]
fn of_topics_that_are_gone_nothing_is_kept() {
    let mut bench = Bench::new(&[(1, 1)]);
    let handle = bench.handle();
    for n in 0..100 {
        let name = format!("topic {n}");
        bench.learn(vec![topic_metadata(&name, 100 + n, &[(1, 1), (1, 1)])]);
        let other = Arc::clone(bench.known.topic(&name).unwrap());
        bench.send(&other, Some(1), None).unwrap();
        bench.send(&handle, Some(0), None).unwrap();
        let fresh = Identity {
            id: 100 + n as i64,
            epoch: 0,
        };
        bench.batches.identify(fresh, bench.now, &mut bench.effects);
        assert_eq!(bench.write_out(A).len(), 2);
        // One more goes out, and is answered after the topic has vanished.
        bench.send(&other, Some(1), None).unwrap();
        let out = bench.drain(A).pop().unwrap();
        let mut without = ClusterSnapshot::clone(&bench.known);
        without.topics.remove(&*name);
        bench.known = Arc::new(without);
        bench.follow();
        assert_eq!(bench.batches.topics.len(), 2, "a request is out");
        let landed = Landed {
            line: out.line,
            id: out.sent.id,
            body: out.sent.payload,
            landing: Landing::Retry { unsure: false },
            by_id: true,
        };
        bench
            .batches
            .land(vec![landed], bench.now, &mut bench.effects);
        let gone = ProduceError::UnknownTopic {
            topic: name.as_str().into(),
        };
        bench
            .batches
            .fail_topic(&name, &gone, bench.now, &mut bench.effects);
        let batches = &bench.batches;
        assert_eq!((batches.topics.len(), batches.names.len()), (1, 1));
        assert_eq!(batches.lines.len(), 2);
        assert!(batches.timers.len() <= 1);
    }
    // What stayed is still there.
    bench.send(&handle, Some(0), None).unwrap();
    assert_eq!(bench.drained(A), [0]);
}

#[test]
fn a_queue_made_anew_does_not_count_under_the_same_producer_id() {
    let mut bench = Bench::new(&[(1, 1)]);
    let handle = bench.handle();
    bench.send(&handle, Some(0), None).unwrap();
    assert_eq!(bench.write_out(A), [Identity { id: 7, epoch: 0 }]);
    // Out of sight, and there again: the same topic, with the same log.
    bench.known = Arc::default();
    bench.follow();
    bench.learn(vec![topic_metadata("t", 5, &[(1, 1)])]);
    bench.send(&handle, Some(0), None).unwrap();
    assert!(bench.drain(A).is_empty());
    assert!(bench.batches.lacks_identity());
    let fresh = Identity { id: 8, epoch: 0 };
    bench.batches.identify(fresh, bench.now, &mut bench.effects);
    assert_eq!(bench.write_out(A), [fresh]);
}
