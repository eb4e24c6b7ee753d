//! Groups with the partitions that they write to.

use std::sync::Arc;
use std::time::Duration;

use super::super::frame_delivery::{FrameDelivery, FramePromise};
use super::super::test_frames::{frame_of, topic};
use super::*;
use crate::backoff::ExponentialBackoff;
use crate::config::CompressionType;
use crate::metadata::TopicMetadata;

const RETRY: BatchResult = BatchResult::Retry {
    maybe_appended: true,
};

struct TestGroup {
    group: TransactionGroup,
    deliveries: Vec<Vec<FrameDelivery>>,
    now: Instant,
    /// The batch that was taken last.
    taken: Option<RecordBatch>,
}

impl TestGroup {
    /// Of frames with these records: partition and value.
    fn new(frames: &[&[(i32, &str)]]) -> Self {
        let now = Instant::now();
        let topic: Arc<TopicMetadata> = topic("t", 3);
        let mut deliveries = Vec::new();
        let frames = frames.iter().map(|records| {
            let records: Vec<_> = records.iter().map(|(p, v)| (Some(*p), *v)).collect();
            let frame = frame_of(&topic, &records);
            let promise = FramePromise::new(frame.len());
            deliveries.push(promise.deliveries().collect());
            QueuedFrame {
                frame,
                promise,
                sent_at: now,
            }
        });
        let frames = frames.collect();
        let backoff = |ms| {
            let first = Duration::from_millis(ms);
            ExponentialBackoff::new(first, first)
        };
        let backoff = WriteBackoff {
            failure: backoff(100),
            concurrent: backoff(10),
        };
        let partition_of = |record: &FrameRecord, _: Option<&[u8]>| record.partition.unwrap();
        Self {
            group: TransactionGroup::new(frames, partition_of, |_| 7, &backoff),
            deliveries,
            now,
            taken: None,
        }
    }

    /// Takes the next batch of a partition; returns how many records it has.
    fn take(&mut self, index: usize) -> u32 {
        let batch = self.group.take_batch(index, 1 << 20);
        let batch = batch.build(CompressionType::None);
        let count = batch.count();
        self.taken = Some(batch);
        count
    }

    fn complete(&mut self, index: usize, result: BatchResult) -> Option<AbortCause> {
        let batch = self.taken.take().unwrap();
        self.group.complete(index, batch, result, self.now)
    }

    fn appended(&mut self, index: usize, base_offset: i64) {
        let info = LogAppendInfo::new(base_offset, -1);
        assert_eq!(self.complete(index, BatchResult::Appended(info)), None);
    }

    fn result(&self, frame: usize, record: usize) -> Option<Result<RecordMetadata, ProduceError>> {
        self.deliveries[frame][record].try_result()
    }
}

fn written(partition: i32, offset: i64) -> Option<Result<RecordMetadata, ProduceError>> {
    Some(Ok(RecordMetadata {
        partition,
        offset,
        timestamp: 1_000,
    }))
}

fn fault(frame: usize, record: usize, error: ProduceError) -> RecordFault {
    RecordFault {
        place: RecordPlace { frame, record },
        error,
    }
}

#[test]
fn records_of_all_frames_share_a_batch_per_partition_and_have_their_offsets_once_committed() {
    let mut test = TestGroup::new(&[&[(0, "a"), (1, "b")], &[(1, "c"), (0, "d")]]);
    assert_eq!(test.group.due(test.now), [0, 1]);
    assert_eq!(test.take(0), 2);
    assert_eq!(test.group.due(test.now), [1]);
    test.appended(0, 40);
    assert!(!test.group.is_written());
    test.take(1);
    test.appended(1, 50);
    assert!(test.group.is_written());
    let sequences: Vec<_> = test.group.sequences().map(|(_, next)| next).collect();
    assert_eq!(sequences, [9, 9]);
    assert_eq!(test.result(0, 0), None);
    test.group.set_committing();
    let (group, deliveries) = (test.group, test.deliveries);
    group.committed();
    assert_eq!(deliveries[0][0].try_result(), written(0, 40));
    assert_eq!(deliveries[0][1].try_result(), written(1, 50));
    assert_eq!(deliveries[1][0].try_result(), written(1, 51));
    assert_eq!(deliveries[1][1].try_result(), written(0, 41));
}

#[test]
fn a_batch_that_is_sent_again_has_its_sequence_and_waits() {
    let mut test = TestGroup::new(&[&[(0, "a"), (0, "b")]]);
    test.take(0);
    assert_eq!(test.complete(0, RETRY), None);
    assert_eq!(
        (test.group.sequence(0), test.group.due(test.now).len()),
        (7, 0)
    );
    test.now = test.group.next_due(test.now).unwrap();
    assert_eq!(test.take(0), 2);
    let batch = test.taken.take().unwrap();
    // The markers of the transaction before are written sooner than a broker recovers.
    test.group.postpone(0, batch, test.now);
    let due = test.group.next_due(test.now).unwrap();
    assert!(due <= test.now + Duration::from_millis(20));
    test.now = due;
    test.take(0);
    test.appended(0, 0);
    assert_eq!(test.group.sequence(0), 9);
}

#[test]
fn a_batch_that_is_too_large_is_halved_until_the_record_at_fault_is_found() {
    let mut test = TestGroup::new(&[&[(0, "a")], &[(0, "b")], &[(0, "c")], &[(0, "d")]]);
    assert_eq!(test.take(0), 4);
    assert_eq!(test.complete(0, BatchResult::TooLarge), None);
    assert_eq!(test.take(0), 2);
    test.appended(0, 0);
    assert_eq!(test.take(0), 2);
    assert_eq!(test.complete(0, BatchResult::TooLarge), None);
    assert_eq!(test.take(0), 1);
    let size = test.taken.as_ref().unwrap().uncompressed_size();
    let cause = test.complete(0, BatchResult::TooLarge);
    let error = ProduceError::TooLarge { size, limit: None };
    assert_eq!(cause, Some(AbortCause::Faults(vec![fault(2, 0, error)])));
}

#[test]
fn a_refusal_after_an_attempt_that_was_not_answered_names_no_record() {
    let mut test = TestGroup::new(&[&[(0, "a")]]);
    test.take(0);
    test.complete(0, RETRY);
    test.now = test.group.next_due(test.now).unwrap();
    test.take(0);
    let cause = test.complete(0, BatchResult::TooLarge);
    assert!(matches!(cause, Some(AbortCause::Again { .. })), "{cause:?}");
}

#[test]
fn invalid_records_are_those_that_the_broker_names() {
    let mut test = TestGroup::new(&[&[(0, "a"), (0, "b")], &[(0, "c")]]);
    test.take(0);
    let named = BatchResult::InvalidRecords {
        errors: vec![(1, "no key".into()), (99, "not there".into())],
        code: 87,
        message: "invalid".into(),
    };
    let message = "no key".into();
    let error = ProduceError::Rejected { code: 87, message };
    let cause = AbortCause::Faults(vec![fault(0, 1, error.clone())]);
    assert_eq!(test.complete(0, named), Some(cause));
    let (group, deliveries) = (test.group, test.deliveries);
    let others = group.aborted(&[fault(0, 1, error.clone())]);
    let first = deliveries[0][0].try_result();
    assert!(matches!(first, Some(Err(ProduceError::Aborted { .. }))));
    assert_eq!(deliveries[0][1].try_result(), Some(Err(error)));
    // The other frame is to be written again.
    assert_eq!((others.len(), deliveries[1][0].try_result()), (1, None));
}

#[test]
fn what_would_need_a_new_epoch_aborts_the_transaction_and_no_frame_is_at_fault() {
    let state = |code| {
        let message = "state".into();
        BatchResult::Fatal(ProduceError::Rejected { code, message })
    };
    for result in [
        BatchResult::OutOfOrder,
        BatchResult::Fenced,
        state(48),
        state(120),
    ] {
        let mut test = TestGroup::new(&[&[(0, "a")]]);
        test.take(0);
        let cause = test.complete(0, result);
        assert!(matches!(cause, Some(AbortCause::Again { .. })), "{cause:?}");
    }
    let mut test = TestGroup::new(&[&[(0, "a")]]);
    test.take(0);
    let cause = test.complete(0, state(53));
    assert_eq!(cause, Some(AbortCause::NotAuthorized));
}

#[test]
fn a_topic_that_cannot_be_written_to_is_the_fault_of_all_its_records() {
    let mut test = TestGroup::new(&[&[(0, "a"), (1, "b")]]);
    let what = Arc::<str>::from("topic t");
    let error = ProduceError::NotAuthorized { what };
    test.take(1);
    let cause = test.complete(1, BatchResult::Fatal(error.clone()));
    assert_eq!(
        cause,
        Some(AbortCause::Faults(vec![fault(0, 1, error.clone())]))
    );
    let faults = vec![fault(0, 0, error.clone()), fault(0, 1, error.clone())];
    let cause = test.group.topic_faults("t", &error);
    assert_eq!(cause, AbortCause::Faults(faults));
}

#[test]
fn a_group_that_is_dropped_resolves_its_frames_as_what_is_known_of_them() {
    let test = TestGroup::new(&[&[(0, "a"), (2, "b")]]);
    drop(test.group);
    let stopped = Some(Err(ProduceError::Stopped));
    assert_eq!(test.deliveries[0][0].try_result(), stopped);

    let mut test = TestGroup::new(&[&[(0, "a"), (2, "b")]]);
    test.group.set_committing();
    drop(test.group);
    let second = test.deliveries[0][1].try_result();
    let Some(Err(ProduceError::UnknownOutcome { partition, .. })) = second else {
        panic!("{second:?}");
    };
    assert_eq!(partition, TopicPartition::new("t", 2));
}
