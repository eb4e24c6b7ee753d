//! Queues that follow the metadata; in `partition_memory`, what they may hold.

mod partition_memory;

use std::time::Duration;

use kafka_protocol::messages::metadata_response::MetadataResponseTopic;

use super::super::delivery::LogAppendInfo;
use super::super::partitioner::partition_for_key;
use super::*;
use crate::fake::{metadata_response, topic_metadata};

const A: BrokerId = BrokerId(1);
const B: BrokerId = BrokerId(2);
const BUFFER_MEMORY: usize = 1 << 20;
const LINGER: Duration = Duration::ZERO;
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);
const RETRY_BACKOFF: Duration = Duration::from_millis(100);
const RETRY_BACKOFF_MAX: Duration = Duration::from_secs(1);

struct TestAccumulator {
    accumulator: RecordAccumulator,
    metadata: Arc<ClusterSnapshot>,
    now: Instant,
    effects: AccumulatorEffects,
    deliveries: Vec<DeliveryFuture>,
}

impl TestAccumulator {
    /// With a topic `t` of these partitions: leader and leader epoch of each.
    fn new(partitions: &[(i32, i32)]) -> Self {
        Self::with_linger(LINGER, partitions)
    }

    fn with_linger(linger: Duration, partitions: &[(i32, i32)]) -> Self {
        let limits = SizeLimits {
            batch_size: 1 << 14,
            max_request_size: 1 << 20,
            buffer_memory: BUFFER_MEMORY,
        };
        Self::with(limits, linger, partitions)
    }

    fn with(limits: SizeLimits, linger: Duration, partitions: &[(i32, i32)]) -> Self {
        let config = QueueConfig {
            linger,
            delivery_timeout: DELIVERY_TIMEOUT,
            max_in_flight: 5,
            retry_backoff: RETRY_BACKOFF,
            retry_backoff_max: RETRY_BACKOFF_MAX,
        };
        let mut test = Self {
            accumulator: RecordAccumulator::new(config, limits),
            metadata: Arc::default(),
            now: Instant::now(),
            effects: AccumulatorEffects::default(),
            deliveries: Vec::new(),
        };
        let producer_id = ProducerIdAndEpoch { id: 7, epoch: 0 };
        test.accumulator
            .set_producer_id(producer_id, None, test.now, &mut test.effects);
        test.learn(vec![topic_metadata("t", 5, partitions)]);
        test
    }

    /// A metadata response arrives.
    fn learn(&mut self, topics: Vec<MetadataResponseTopic>) {
        self.learn_of(None, topics);
    }

    /// A metadata response of that cluster arrives.
    fn learn_of(&mut self, cluster: Option<&'static str>, topics: Vec<MetadataResponseTopic>) {
        let address = "127.0.0.1:9092".parse().unwrap();
        let response = metadata_response(&[(1, address), (2, address)], topics)
            .with_cluster_id(cluster.map(Into::into));
        self.metadata = Arc::new(self.metadata.merge_with(&response).0);
        self.update_metadata();
    }

    fn update_metadata(&mut self) {
        self.accumulator
            .update_metadata(&self.metadata, self.now, &mut self.effects);
    }

    fn handle(&self) -> Arc<TopicMetadata> {
        Arc::clone(self.metadata.topic("t").unwrap())
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
        let memory = RecordMemory {
            taken: 10,
            free: BUFFER_MEMORY,
            turn: None,
            since: None,
        };
        let (now, effects) = (self.now, &mut self.effects);
        let appended = self
            .accumulator
            .append(topic, partition, &record, memory, || now, effects);
        match appended {
            Ok(delivery) => self.deliveries.push(delivery),
            Err(RecordAppendError::Refused(error)) => return Err(error),
            Err(RecordAppendError::PartitionMemoryExhausted(_)) => panic!("there is memory"),
        }
        Ok(())
    }

    fn drain(&mut self, broker: BrokerId) -> Vec<DrainedBatch> {
        self.accumulator.drain(broker, self.now, &mut self.effects)
    }

    /// One request to the broker, which appends everything.
    fn append_to_log(&mut self, broker: BrokerId) -> Vec<ProducerIdAndEpoch> {
        let mut producer_ids = Vec::new();
        let mut completed = Vec::new();
        for drained in self.drain(broker) {
            producer_ids.push(drained.batch.producer_id);
            completed.push(CompletedBatch {
                handle: drained.handle,
                records: drained.batch.records,
                result: BatchResult::Appended(LogAppendInfo::new(0, -1)),
                naming: TopicNaming::ById,
            });
        }
        self.accumulator
            .complete(completed, self.now, &mut self.effects);
        producer_ids
    }

    /// How many records one request to the broker holds.
    fn drained_records(&mut self, broker: BrokerId) -> u32 {
        let drained = self.drain(broker);
        drained
            .iter()
            .map(|batch| batch.batch.records.count())
            .sum()
    }

    /// Where the records without key went, which are all in one partition.
    fn sticky_partition(&self) -> i32 {
        let slots = &self.accumulator.slots;
        assert_eq!(slots.len(), 1);
        slots[0].queue.partition().partition
    }

    /// The partitions that a request to the broker would write to.
    fn drain_partitions(&mut self, broker: BrokerId) -> Vec<i32> {
        let drained = self.drain(broker);
        drained
            .iter()
            .map(|batch| batch.partition.partition)
            .collect()
    }
}

#[test]
fn the_first_record_of_a_partition_goes_to_its_newest_leader() {
    let mut test = TestAccumulator::new(&[(1, 1), (1, 1)]);
    let handle = test.handle();
    test.send(&handle, Some(0), None).unwrap();
    test.learn(vec![topic_metadata("t", 5, &[(1, 1), (2, 2)])]);
    test.send(&handle, Some(1), None).unwrap();
    assert_eq!(test.drain_partitions(A), [0]);
    assert_eq!(test.drain_partitions(B), [1]);
}

#[test]
fn the_first_record_of_a_topic_goes_to_its_newest_leader() {
    let mut test = TestAccumulator::new(&[(1, 1)]);
    let old = test.handle();
    test.learn(vec![topic_metadata("t", 6, &[(2, 0)])]);
    test.send(&old, Some(0), None).unwrap();
    assert!(test.drain_partitions(A).is_empty());
    let drained = test.drain(B);
    assert_eq!(drained[0].topic_id, Uuid::from_u128(6));
}

#[test]
fn a_topic_that_got_partitions_takes_all_of_them_through_an_old_handle() {
    let mut test = TestAccumulator::new(&[(1, 1); 3]);
    let handle = test.handle();
    test.send(&handle, Some(0), None).unwrap();
    let refused = test.send(&handle, Some(4), None);
    assert!(matches!(
        refused,
        Err(ProduceError::InvalidPartition { partitions: 3, .. })
    ));
    test.learn(vec![topic_metadata("t", 5, &[(1, 1); 6])]);
    test.send(&handle, Some(4), None).unwrap();
    let mut seen = [false; 6];
    for key in 0..100u32 {
        let key = key.to_be_bytes();
        test.send(&handle, None, Some(&key)).unwrap();
        let slot = &test.accumulator.topics[0].slots[partition_for_key(&key, 6) as usize];
        assert!(slot.is_some(), "as if the topic always had six");
        seen[partition_for_key(&key, 6) as usize] = true;
    }
    assert_eq!(seen, [true; 6]);
}

#[test]
fn a_topic_recreated_with_fewer_partitions_refuses_the_others() {
    let mut test = TestAccumulator::new(&[(1, 1); 3]);
    let old = test.handle();
    test.send(&old, Some(2), None).unwrap();
    test.learn(vec![topic_metadata("t", 6, &[(1, 0)])]);
    let refused = test.send(&old, Some(1), None);
    assert!(matches!(
        refused,
        Err(ProduceError::InvalidPartition { partitions: 1, .. })
    ));
}

#[test]
fn the_metadata_that_is_followed_does_not_count_as_holding_a_topic() {
    let mut test = TestAccumulator::new(&[(1, 1)]);
    let handle = test.handle();
    test.send(&handle, Some(0), None).unwrap();
    drop(handle);
    let topic = test.metadata.topic("t").unwrap();
    assert_eq!(Arc::strong_count(topic), 1);
}

#[test]
fn while_a_partition_has_no_leader_metadata_is_requested_with_backoff() {
    let mut test = TestAccumulator::new(&[(-1, 1)]);
    let handle = test.handle();
    let start = test.now;
    test.send(&handle, Some(0), None).unwrap();
    assert_eq!(
        std::mem::take(&mut test.effects.leaderless_topics),
        ["t".into()]
    );
    // More records and the same metadata again are no reasons for a request.
    test.send(&handle, Some(0), None).unwrap();
    test.learn(vec![topic_metadata("t", 5, &[(-1, 1)])]);
    assert!(test.effects.leaderless_topics.is_empty());

    let mut pauses = Vec::new();
    while test.now < start + DELIVERY_TIMEOUT / 2 {
        let next = test.accumulator.tick(test.now, &mut test.effects).unwrap();
        pauses.push(next - test.now);
        test.now = next;
        test.accumulator.tick(test.now, &mut test.effects);
        assert_eq!(
            std::mem::take(&mut test.effects.leaderless_topics),
            ["t".into()]
        );
    }
    assert!(pauses[0] < RETRY_BACKOFF * 2, "{pauses:?}");
    assert!(pauses.iter().all(|&pause| pause < RETRY_BACKOFF_MAX * 2));
    assert!(pauses.len() < 100, "{}", pauses.len());

    test.learn(vec![topic_metadata("t", 5, &[(1, 2)])]);
    assert_eq!(test.drain_partitions(A), [0]);
    test.now += RETRY_BACKOFF_MAX * 2;
    test.accumulator.tick(test.now, &mut test.effects);
    assert!(test.effects.leaderless_topics.is_empty());
}

#[test]
fn records_without_key_leave_a_partition_that_loses_its_leader() {
    let mut test = TestAccumulator::new(&[(1, 1), (2, 1)]);
    let handle = test.handle();
    test.send(&handle, None, None).unwrap();
    let (other, topic) = match test.sticky_partition() {
        0 => (B, [(-1, 2), (2, 1)]),
        _ => (A, [(1, 1), (-1, 2)]),
    };
    test.learn(vec![topic_metadata("t", 5, &topic)]);
    for _ in 0..20 {
        test.send(&handle, None, None).unwrap();
    }
    assert_eq!(test.drained_records(other), 20);
}

#[test]
fn records_without_key_leave_a_partition_that_makes_no_progress() {
    let mut test = TestAccumulator::new(&[(1, 1), (2, 1)]);
    let handle = test.handle();
    test.send(&handle, None, None).unwrap();
    let (stalled, other) = match test.sticky_partition() {
        0 => (A, B),
        _ => (B, A),
    };
    let unanswered = test.drain(stalled).pop().unwrap();
    // The timer is set for the moment at which the partition counts as stalled.
    let next = test.accumulator.tick(test.now, &mut test.effects).unwrap();
    assert!(next < test.now + DELIVERY_TIMEOUT);
    test.now = next;
    test.accumulator.tick(test.now, &mut test.effects);
    for _ in 0..20 {
        test.send(&handle, None, None).unwrap();
    }
    assert_eq!(test.drained_records(other), 20);

    // It goes on after all, and the other one stalls.
    let completed = CompletedBatch {
        handle: unanswered.handle,
        records: unanswered.batch.records,
        result: BatchResult::Appended(LogAppendInfo::new(0, -1)),
        naming: TopicNaming::ById,
    };
    test.accumulator
        .complete(vec![completed], test.now, &mut test.effects);
    test.now += DELIVERY_TIMEOUT / 2;
    test.accumulator.tick(test.now, &mut test.effects);
    for _ in 0..20 {
        test.send(&handle, None, None).unwrap();
    }
    assert_eq!(test.drained_records(stalled), 20);
}

#[test]
fn a_missing_topic_is_looked_up_whenever_records_are_appended() {
    let mut test = TestAccumulator::new(&[(1, 1), (1, 1)]);
    let handle = test.handle();
    test.send(&handle, Some(0), None).unwrap();
    test.metadata = Arc::default();
    test.update_metadata();
    let missing = || HashSet::from(["t".into()]);
    assert_eq!(test.accumulator.take_missing_topics(), missing());
    assert!(test.drain_partitions(A).is_empty());
    assert!(!test.accumulator.has_ready(A), "worth no connection");
    // It is deleted; then more records are appended, also for a partition that never had any.
    for partition in [0, 1] {
        let gone = ProduceError::UnknownTopic { topic: "t".into() };
        let effects = &mut test.effects;
        test.accumulator.fail_topic("t", &gone, test.now, effects);
        let finished = std::mem::take(&mut test.effects.finished);
        assert_eq!(finished.len(), 1);
        assert_eq!(finished[0].result, Err(gone));
        assert!(test.accumulator.take_missing_topics().is_empty());
        test.effects.wake_maintenance = false;
        test.send(&handle, Some(partition), None).unwrap();
        assert_eq!(test.accumulator.take_missing_topics(), missing());
        assert!(test.effects.wake_maintenance);
        assert!(test.drain_partitions(A).is_empty());
    }
    // It was not deleted after all.
    test.learn(vec![topic_metadata("t", 5, &[(1, 1), (2, 1)])]);
    assert_eq!(test.drain_partitions(B), [1]);
}

#[test]
fn a_leader_that_left_and_came_back_is_not_sent_a_partition_twice_in_one_request() {
    // A record of 60 bytes fills a batch, one of 1,000 a request.
    let limits = SizeLimits {
        batch_size: 100,
        max_request_size: 1_000,
        buffer_memory: BUFFER_MEMORY,
    };
    let mut test = TestAccumulator::with(limits, LINGER, &[(1, 1)]);
    let handle = test.handle();
    test.write(&handle, Some(0), None, &[0; 1_000]).unwrap();
    for _ in 0..3 {
        test.write(&handle, Some(0), None, &[0; 60]).unwrap();
    }
    test.learn(vec![topic_metadata("t", 5, &[(2, 2)])]);
    test.learn(vec![topic_metadata("t", 5, &[(1, 3)])]);
    test.append_to_log(A);
    for _ in 0..3 {
        assert_eq!(test.drain_partitions(A), [0]);
    }
    assert!(test.drain_partitions(A).is_empty());
}

#[test]
fn of_deleted_topics_nothing_is_kept() {
    let mut test = TestAccumulator::new(&[(1, 1)]);
    let handle = test.handle();
    for n in 0..100 {
        let name = format!("topic {n}");
        test.learn(vec![topic_metadata(&name, 100 + n, &[(1, 1), (1, 1)])]);
        let other = Arc::clone(test.metadata.topic(&name).unwrap());
        test.send(&other, Some(1), None).unwrap();
        test.send(&handle, Some(0), None).unwrap();
        let new_producer_id = ProducerIdAndEpoch {
            id: 100 + n as i64,
            epoch: 0,
        };
        test.accumulator
            .set_producer_id(new_producer_id, None, test.now, &mut test.effects);
        assert_eq!(test.append_to_log(A).len(), 2);
        // One more is in flight when the topic vanishes.
        test.send(&other, Some(1), None).unwrap();
        let in_flight = test.drain(A).pop().unwrap();
        let mut without = ClusterSnapshot::clone(&test.metadata);
        without.topics.remove(&*name);
        test.metadata = Arc::new(without);
        test.update_metadata();
        assert_eq!(test.accumulator.topics.len(), 2, "a batch is in flight");
        let completed = CompletedBatch {
            handle: in_flight.handle,
            records: in_flight.batch.records,
            result: BatchResult::Retry {
                maybe_appended: false,
            },
            naming: TopicNaming::ById,
        };
        test.accumulator
            .complete(vec![completed], test.now, &mut test.effects);
        let gone = ProduceError::UnknownTopic {
            topic: name.as_str().into(),
        };
        test.accumulator
            .fail_topic(&name, &gone, test.now, &mut test.effects);
        let accumulator = &test.accumulator;
        assert_eq!(
            (accumulator.topics.len(), accumulator.topic_indexes.len()),
            (1, 1)
        );
        assert_eq!(accumulator.slots.len(), 2);
        assert!(accumulator.timers.len() <= 1);
    }
    // What stayed is still there.
    test.send(&handle, Some(0), None).unwrap();
    assert_eq!(test.drain_partitions(A), [0]);
}

#[test]
fn a_queue_made_anew_does_not_reuse_sequences_of_the_same_producer_id() {
    let mut test = TestAccumulator::new(&[(1, 1)]);
    let handle = test.handle();
    test.send(&handle, Some(0), None).unwrap();
    assert_eq!(
        test.append_to_log(A),
        [ProducerIdAndEpoch { id: 7, epoch: 0 }]
    );
    // Missing from the metadata, and back: the same topic, with the same log.
    test.metadata = Arc::default();
    test.update_metadata();
    test.learn(vec![topic_metadata("t", 5, &[(1, 1)])]);
    test.send(&handle, Some(0), None).unwrap();
    assert!(test.drain(A).is_empty());
    assert!(test.accumulator.needs_producer_id());
    let new_producer_id = ProducerIdAndEpoch { id: 8, epoch: 0 };
    test.accumulator
        .set_producer_id(new_producer_id, None, test.now, &mut test.effects);
    assert_eq!(test.append_to_log(A), [new_producer_id]);
}

impl TestAccumulator {
    fn complete(&mut self, drained: DrainedBatch, result: BatchResult) {
        let completed = CompletedBatch {
            handle: drained.handle,
            records: drained.batch.records,
            result,
            naming: TopicNaming::ById,
        };
        self.accumulator
            .complete(vec![completed], self.now, &mut self.effects);
    }

    fn give_producer_id(&mut self, id: i64, cluster: &str) {
        let new = ProducerIdAndEpoch { id, epoch: 0 };
        self.accumulator
            .set_producer_id(new, Some(&cluster.into()), self.now, &mut self.effects);
    }

    /// The errors of the batches that have ended since the last call.
    fn errors(&mut self) -> Vec<Option<ProduceError>> {
        let finished = std::mem::take(&mut self.effects.finished);
        let resolved = finished.into_iter().filter(|batch| batch.promise.is_some());
        resolved.map(|batch| batch.result.err()).collect()
    }
}

#[test]
fn nothing_that_a_cluster_issued_is_used_in_the_one_that_replaces_it() {
    // With topic ids, and as before 2.8.
    for (old_id, new_id) in [(5, 6), (0, 0)] {
        let mut test = TestAccumulator::new(&[]);
        test.learn_of(
            Some("old"),
            vec![topic_metadata("t", old_id, &[(1, 9), (1, 9)])],
        );
        let handle = test.handle();
        for partition in [0, 1] {
            test.send(&handle, Some(partition), None).unwrap();
        }
        assert_eq!(test.append_to_log(A).len(), 2);
        test.errors();
        // One is in flight, and one may have been appended.
        test.send(&handle, Some(0), None).unwrap();
        let in_flight = test.drain(A).pop().unwrap();
        assert_eq!(in_flight.batch.base_sequence, 1);
        test.send(&handle, Some(1), None).unwrap();
        let unresolved = test.drain(A).pop().unwrap();
        let maybe_appended = true;
        test.complete(unresolved, BatchResult::Retry { maybe_appended });
        // And these were never sent.
        for partition in [0, 1] {
            test.send(&handle, Some(partition), None).unwrap();
        }
        test.learn_of(
            Some("new"),
            vec![topic_metadata("t", new_id, &[(1, 0), (1, 0)])],
        );
        let errors = test.errors();
        assert_eq!(errors.len(), 2);
        for error in errors {
            assert!(
                matches!(error, Some(ProduceError::UnknownOutcome { .. })),
                "{error:?}"
            );
        }
        // An answer of the old cluster changes nothing any more.
        test.complete(in_flight, BatchResult::Appended(LogAppendInfo::new(7, -1)));
        assert_eq!(test.errors(), []);
        test.now += RETRY_BACKOFF_MAX * 2;
        assert!(test.drain(A).is_empty());
        assert!(test.accumulator.needs_producer_id());
        test.give_producer_id(8, "old");
        assert!(test.accumulator.needs_producer_id());
        // The new cluster issues the same id: it says nothing of the old one's sequences.
        test.give_producer_id(7, "new");
        let drained = test.drain(A);
        assert_eq!(drained.len(), 2);
        for drained in drained {
            let batch = &drained.batch;
            assert_eq!(batch.producer_id, ProducerIdAndEpoch { id: 7, epoch: 0 });
            assert_eq!(batch.base_sequence, 0);
            test.complete(drained, BatchResult::Appended(LogAppendInfo::new(0, -1)));
        }
        assert_eq!(test.errors(), [None, None]);
    }
}
