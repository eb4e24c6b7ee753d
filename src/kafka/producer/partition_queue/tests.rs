//! The rules, one by one; in `simulation` all together against a broker's sequence check.

mod simulation;

use super::*;
use crate::producer::delivery::{DeliveryFuture, LogAppendInfo, RecordMetadata};
use crate::producer::producer_id::{ProducerIdAndEpoch, increment_sequence};

/// Record numbers instead of bytes.
#[derive(Clone, Debug, PartialEq)]
struct NumberedRecords(Vec<u32>);

impl QueuedRecords for NumberedRecords {
    fn count(&self) -> u32 {
        self.0.len() as u32
    }

    fn size(&self) -> usize {
        self.0.len()
    }

    fn retain(&self, wanted: &dyn Fn(u32) -> bool) -> Option<Self> {
        let kept: Vec<u32> = (0u32..)
            .zip(&self.0)
            .filter(|(i, _)| wanted(*i))
            .map(|(_, &r)| r)
            .collect();
        (!kept.is_empty()).then_some(Self(kept))
    }
}

const ONE: BrokerId = BrokerId(1);
const TWO: BrokerId = BrokerId(2);
const FIRST_ID: ProducerIdAndEpoch = ProducerIdAndEpoch { id: 7, epoch: 0 };
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);
const MAYBE_APPENDED: BatchResult = BatchResult::Retry {
    maybe_appended: true,
};
const NOT_APPENDED: BatchResult = BatchResult::Retry {
    maybe_appended: false,
};

struct TestQueue {
    queue: PartitionQueue<NumberedRecords>,
    new_producer_id: Option<ProducerIdAndEpoch>,
    now: Instant,
    finished: Vec<FinishedBatch>,
    /// How many records were appended: the number of the next one.
    records: u32,
    /// How requests name the topic.
    naming: TopicNaming,
}

fn config() -> QueueConfig {
    QueueConfig {
        linger: Duration::ZERO,
        delivery_timeout: DELIVERY_TIMEOUT,
        max_in_flight: 5,
        retry_backoff: Duration::from_millis(100),
        retry_backoff_max: Duration::from_secs(1),
    }
}

impl TestQueue {
    fn new() -> Self {
        Self::with(config())
    }

    fn with(config: QueueConfig) -> Self {
        let mut queue = PartitionQueue::new(TopicPartition::new("t", 0), config);
        queue.set_leader(Some(LeaderAndEpoch {
            broker: ONE,
            epoch: 1,
        }));
        Self {
            queue,
            new_producer_id: Some(FIRST_ID),
            now: Instant::now(),
            finished: Vec::new(),
            records: 0,
            naming: TopicNaming::ByName,
        }
    }

    /// A queue whose leader has confirmed a first batch of ten records.
    fn confirmed() -> Self {
        let mut test = Self::new();
        test.batch(10);
        let sent = test.take();
        test.complete(sent, appended(0));
        assert_eq!(test.results(), [Ok(0)]);
        test
    }

    fn batch(&mut self, count: u32) -> Vec<DeliveryFuture> {
        let result = ProduceResult::new(0);
        let records = (self.records..self.records + count).collect();
        self.records += count;
        self.queue
            .push_batch(NumberedRecords(records), result.clone(), self.now);
        self.queue.record_appended(count as usize, false);
        (0..count)
            .map(|i| DeliveryFuture::new(result.clone(), i, 0))
            .collect()
    }

    fn try_take(&mut self, broker: BrokerId) -> Option<SendableBatch<NumberedRecords>> {
        let ready = self.queue.is_ready(self.new_producer_id, self.now);
        let sent =
            self.queue
                .next_batch(broker, self.new_producer_id, self.now, &mut self.finished);
        if self.queue.leader() == Some(broker) && sent.is_some() {
            assert!(ready, "taken, but not said to be ready");
        }
        sent
    }

    fn take(&mut self) -> SendableBatch<NumberedRecords> {
        self.try_take(ONE).expect("a batch is ready")
    }

    /// Takes as many batches as may be in flight.
    fn take_all(&mut self) -> Vec<SendableBatch<NumberedRecords>> {
        std::iter::from_fn(|| self.try_take(ONE)).collect()
    }

    fn complete(&mut self, sent: SendableBatch<NumberedRecords>, result: BatchResult) {
        let SendableBatch { id, records, .. } = sent;
        let finished = &mut self.finished;
        self.queue
            .complete(id, records, result, self.naming, self.now, finished);
    }

    fn advance(&mut self, time: Duration) {
        self.now += time;
        self.queue.expire(self.now, &mut self.finished);
    }

    fn set_leader(&mut self, broker: BrokerId, epoch: i32) {
        self.queue
            .set_leader(Some(LeaderAndEpoch { broker, epoch }));
    }

    /// The results of the batches that finished since, whose futures are resolved.
    fn results(&mut self) -> Vec<Result<i64, ProduceError>> {
        let finished = std::mem::take(&mut self.finished);
        finished
            .into_iter()
            .map(|finished| {
                if let Some(promise) = finished.promise {
                    promise.complete(finished.result.clone());
                }
                finished.result.map(|appended| appended.base_offset)
            })
            .collect()
    }
}

fn appended(offset: i64) -> BatchResult {
    BatchResult::Appended(LogAppendInfo::new(offset, -1))
}

fn rejected() -> ProduceError {
    ProduceError::Rejected {
        code: 87,
        message: "no".into(),
    }
}

fn timed_out() -> ProduceError {
    ProduceError::TimedOut {
        partition: TopicPartition::new("t", 0),
    }
}

/// The epoch and the first sequence of each batch.
fn sequences(sent: &[SendableBatch<NumberedRecords>]) -> Vec<(i16, i32)> {
    sent.iter()
        .map(|s| (s.producer_id.epoch, s.base_sequence))
        .collect()
}

fn offset(delivery: &DeliveryFuture) -> Option<Result<i64, ProduceError>> {
    Some(
        delivery
            .try_result()?
            .map(|RecordMetadata { offset, .. }| offset),
    )
}

#[test]
fn one_request_until_the_leader_has_acknowledged_and_then_five() {
    let mut test = TestQueue::new();
    for _ in 0..9 {
        test.batch(10);
    }
    let first = test.take_all();
    assert_eq!(sequences(&first), [(0, 0)]);
    test.complete(first.into_iter().next().unwrap(), appended(0));
    let next = test.take_all();
    assert_eq!(
        sequences(&next),
        [(0, 10), (0, 20), (0, 30), (0, 40), (0, 50)]
    );
}

#[test]
fn a_leader_that_was_silent_for_long_is_sent_one_request_again() {
    let mut test = TestQueue::confirmed();
    test.advance(Duration::from_secs(61));
    test.batch(1);
    test.batch(1);
    assert_eq!(test.take_all().len(), 1);
}

#[test]
fn without_leader_or_producer_id_nothing_is_sent() {
    let mut test = TestQueue::new();
    test.batch(1);
    test.new_producer_id = None;
    assert!(test.queue.needs_producer_id(None));
    assert!(test.try_take(ONE).is_none());
    test.new_producer_id = Some(FIRST_ID);
    test.queue.set_leader(None);
    assert!(test.try_take(ONE).is_none());
    test.set_leader(TWO, 1);
    assert!(test.try_take(ONE).is_none());
    assert!(test.try_take(TWO).is_some());
}

#[test]
fn an_open_batch_lingers_unless_it_is_full_flushed_or_followed() {
    let linger = Duration::from_millis(5);
    let lingering = || TestQueue::with(QueueConfig { linger, ..config() });
    let mut test = lingering();
    test.batch(1);
    assert!(test.try_take(ONE).is_none());
    assert_eq!(test.queue.wake_at(test.now), Some(test.now + linger));
    test.advance(linger);
    assert!(test.try_take(ONE).is_some());

    let mut test = lingering();
    test.batch(1);
    test.queue.record_appended(1, true);
    assert!(test.try_take(ONE).is_some());

    let mut test = lingering();
    test.batch(1);
    assert_eq!(test.queue.flush().count(), 1);
    assert!(test.try_take(ONE).is_some());

    let mut test = lingering();
    test.batch(1);
    test.batch(1);
    assert!(test.try_take(ONE).is_some());
    assert!(test.try_take(ONE).is_none());
}

#[test]
fn records_gather_until_the_batch_is_taken() {
    let mut test = TestQueue::new();
    test.batch(1);
    assert!(test.queue.open_batch().is_some());
    let sent = test.take();
    assert!(test.queue.open_batch().is_none());
    test.complete(sent, NOT_APPENDED);
    assert!(test.queue.open_batch().is_none(), "it keeps its sequences");
}

#[test]
fn an_early_response_is_parked_until_the_batches_before_it_are_done() {
    let mut test = TestQueue::confirmed();
    let first = test.batch(10);
    let second = test.batch(10);
    let mut sent = test.take_all().into_iter();
    let (one, two) = (sent.next().unwrap(), sent.next().unwrap());
    test.complete(one, MAYBE_APPENDED);
    test.complete(two, appended(20));
    assert_eq!(test.results(), []);
    test.now += Duration::from_secs(1);
    let again = test.take();
    assert_eq!((again.base_sequence, again.is_retry), (10, true));
    test.complete(again, appended(10));
    assert_eq!(test.results(), [Ok(10), Ok(20)]);
    assert_eq!(offset(&first[1]), Some(Ok(11)));
    assert_eq!(offset(&second[0]), Some(Ok(20)));
}

#[test]
fn nothing_is_sent_that_would_push_an_unresolved_batch_out_of_the_last_five() {
    let mut test = TestQueue::confirmed();
    for _ in 0..9 {
        test.batch(10);
    }
    // The first may have been appended, the others were: a broker recognises five.
    for (nth, sent) in (1..).zip(test.take_all()) {
        let result = if nth == 1 {
            MAYBE_APPENDED
        } else {
            appended(nth * 10)
        };
        test.complete(sent, result);
    }
    test.now += Duration::from_secs(1);
    let again = test.take_all();
    assert_eq!(sequences(&again), [(0, 10)]);
    for sent in again {
        test.complete(sent, appended(10));
    }
    assert_eq!(test.take_all().len(), 4, "all that are left");
}

#[test]
fn an_unanswered_batch_that_is_out_of_order_may_have_been_appended_and_forgotten() {
    let mut test = TestQueue::confirmed();
    test.batch(10);
    let sent = test.take();
    test.complete(sent, MAYBE_APPENDED);
    test.now += Duration::from_secs(1);
    let sent = test.take();
    test.complete(sent, BatchResult::OutOfOrder);
    assert!(matches!(&test.results()[..], [Err(e)] if e.outcome_unknown()));
    test.now += Duration::from_secs(1);
    test.batch(1);
    assert_eq!(sequences(&test.take_all()), [(1, 0)]);
}

#[test]
fn a_lost_connection_repeats_the_same_sequences_in_order() {
    let mut test = TestQueue::confirmed();
    for _ in 0..3 {
        test.batch(10);
    }
    for sent in test.take_all() {
        assert!(test.try_take(ONE).is_none());
        test.complete(sent, MAYBE_APPENDED);
    }
    assert!(test.try_take(ONE).is_none(), "backs off");
    test.now += Duration::from_secs(1);
    let again = test.take_all();
    assert_eq!(
        sequences(&again),
        [(0, 10)],
        "alone until the first success"
    );
    test.complete(again.into_iter().next().unwrap(), appended(-1));
    assert_eq!(sequences(&test.take_all()), [(0, 20), (0, 30)]);
    assert_eq!(test.results(), [Ok(-1)]);
}

#[test]
fn nothing_goes_to_a_new_leader_until_nothing_is_in_flight_to_the_old_one() {
    let mut test = TestQueue::confirmed();
    for _ in 0..7 {
        test.batch(10);
    }
    let in_flight = test.take_all();
    assert_eq!(in_flight.len(), 5);
    test.set_leader(TWO, 2);
    for sent in in_flight {
        assert!(test.try_take(TWO).is_none());
        assert!(test.try_take(ONE).is_none());
        test.complete(sent, MAYBE_APPENDED);
    }
    test.now += Duration::from_secs(1);
    let moved = test.try_take(TWO).unwrap();
    assert_eq!(sequences(std::slice::from_ref(&moved)), [(0, 10)]);
    assert!(test.try_take(TWO).is_none(), "one until the first success");
    test.complete(moved, appended(10));
    let rest: Vec<_> = std::iter::from_fn(|| test.try_take(TWO)).collect();
    assert_eq!(
        sequences(&rest),
        [(0, 20), (0, 30), (0, 40), (0, 50), (0, 60)]
    );
}

#[test]
fn what_the_old_leader_acknowledges_confirms_nothing_of_the_new_one() {
    let mut test = TestQueue::confirmed();
    for _ in 0..7 {
        test.batch(10);
    }
    let in_flight = test.take_all();
    test.set_leader(TWO, 2);
    for (sent, offset) in in_flight.into_iter().zip([10, 20, 30, 40, 50]) {
        assert!(test.try_take(TWO).is_none());
        test.complete(sent, appended(offset));
    }
    assert!(test.try_take(TWO).is_some());
    assert!(test.try_take(TWO).is_none(), "one until the first success");
}

#[test]
fn a_new_leader_need_not_wait_for_the_backoff() {
    let mut test = TestQueue::confirmed();
    test.batch(1);
    let sent = test.take();
    test.complete(sent, MAYBE_APPENDED);
    assert!(test.try_take(ONE).is_none());
    test.set_leader(TWO, 2);
    assert!(test.try_take(TWO).is_some());
}

#[test]
fn a_batch_that_was_never_sent_times_out_as_not_appended_and_leaves_no_gap() {
    let mut test = TestQueue::confirmed();
    test.queue.set_leader(None);
    test.batch(5);
    assert_eq!(
        test.queue.wake_at(test.now),
        Some(test.now + DELIVERY_TIMEOUT)
    );
    test.advance(DELIVERY_TIMEOUT);
    assert_eq!(test.results(), [Err(timed_out())]);
    test.set_leader(ONE, 2);
    test.batch(1);
    assert_eq!(sequences(&test.take_all()), [(0, 10)]);
}

#[test]
fn a_batch_whose_every_attempt_certainly_failed_times_out_as_not_appended() {
    let mut test = TestQueue::confirmed();
    test.batch(5);
    let sent = test.take();
    test.complete(sent, NOT_APPENDED);
    test.advance(DELIVERY_TIMEOUT);
    assert_eq!(test.results(), [Err(timed_out())]);
    test.batch(1);
    assert_eq!(sequences(&test.take_all()), [(1, 0)]);
}

#[test]
fn an_unanswered_batch_times_out_as_unknown_and_the_next_bumps_the_epoch() {
    let mut test = TestQueue::confirmed();
    let deliveries = test.batch(5);
    let sent = test.take();
    test.complete(sent, MAYBE_APPENDED);
    test.advance(DELIVERY_TIMEOUT);
    assert!(matches!(&test.results()[..], [Err(e)] if e.outcome_unknown()));
    assert!(matches!(deliveries[4].try_result(), Some(Err(e)) if e.outcome_unknown()));
    test.batch(1);
    assert_eq!(sequences(&test.take_all()), [(1, 0)]);
}

#[test]
fn a_request_in_flight_at_the_timeout_is_unknown_but_its_success_closes_the_gap() {
    let mut test = TestQueue::confirmed();
    let deliveries = test.batch(5);
    let sent = test.take();
    test.advance(DELIVERY_TIMEOUT);
    assert!(matches!(&test.results()[..], [Err(e)] if e.outcome_unknown()));
    test.complete(sent, appended(10));
    test.results();
    assert!(matches!(deliveries[0].try_result(), Some(Err(e)) if e.outcome_unknown()));
    test.batch(1);
    assert_eq!(sequences(&test.take_all()), [(0, 15)]);
}

#[test]
fn what_is_queued_after_an_unanswered_request_expires_in_time() {
    let mut test = TestQueue::new();
    let unanswered = test.batch(5);
    let queued = test.batch(5);
    let sent = test.take();
    test.advance(DELIVERY_TIMEOUT);
    test.results();
    assert!(matches!(unanswered[0].try_result(), Some(Err(e)) if e.outcome_unknown()));
    assert_eq!(offset(&queued[0]), Some(Err(timed_out())));
    // Nothing is resolved twice, and the response still counts for the sequences.
    assert_eq!(test.queue.wake_at(test.now), None);
    test.complete(sent, appended(0));
    test.results();
    assert!(test.queue.is_empty());
    test.batch(1);
    assert_eq!(sequences(&test.take_all()), [(0, 5)]);
}

#[test]
fn what_is_retried_after_an_unanswered_request_expires_in_time() {
    let mut test = TestQueue::confirmed();
    test.batch(5);
    let retried = test.batch(5);
    let mut sent = test.take_all().into_iter();
    let (one, two) = (sent.next().unwrap(), sent.next().unwrap());
    test.complete(two, MAYBE_APPENDED);
    test.advance(DELIVERY_TIMEOUT);
    test.results();
    assert!(matches!(retried[0].try_result(), Some(Err(e)) if e.outcome_unknown()));
    test.complete(one, MAYBE_APPENDED);
    test.results();
    assert!(test.queue.is_empty());
}

#[test]
fn a_parked_batch_has_its_result_when_the_delivery_timeout_ends() {
    let mut test = TestQueue::confirmed();
    let first = test.batch(10);
    let second = test.batch(10);
    let mut sent = test.take_all().into_iter();
    let (_unanswered, two) = (sent.next().unwrap(), sent.next().unwrap());
    test.complete(two, appended(20));
    test.advance(DELIVERY_TIMEOUT);
    test.results();
    assert!(matches!(first[0].try_result(), Some(Err(e)) if e.outcome_unknown()));
    assert_eq!(offset(&second[0]), Some(Ok(20)));
}

#[test]
fn after_an_unknown_batch_the_next_one_that_was_sent_is_sent_again_first() {
    // The first batch was appended after all: the second is a duplicate or new, and
    // nothing changes.
    let mut test = TestQueue::confirmed();
    test.batch(5);
    test.now += Duration::from_secs(50);
    test.batch(5);
    for sent in test.take_all() {
        test.complete(sent, MAYBE_APPENDED);
    }
    test.advance(Duration::from_secs(70));
    assert!(matches!(&test.results()[..], [Err(e)] if e.outcome_unknown()));
    test.batch(5);
    let again = test.take_all();
    assert_eq!(sequences(&again), [(0, 15)], "alone, as it was");
    test.complete(again.into_iter().next().unwrap(), appended(15));
    assert_eq!(test.results(), [Ok(15)]);
    assert_eq!(sequences(&test.take_all()), [(0, 20)]);
}

#[test]
fn after_an_unknown_batch_what_was_never_sent_goes_on_under_a_new_epoch() {
    let mut test = TestQueue::confirmed();
    test.batch(5);
    test.now += Duration::from_secs(50);
    test.batch(5);
    let mut in_flight = test.take_all().into_iter();
    test.batch(5);
    test.complete(in_flight.next().unwrap(), MAYBE_APPENDED);
    // This one was refused: it was certainly not appended.
    test.complete(in_flight.next().unwrap(), BatchResult::OutOfOrder);
    test.advance(Duration::from_secs(70));
    assert!(matches!(&test.results()[..], [Err(e)] if e.outcome_unknown()));
    let renumbered = test.take();
    assert_eq!(sequences(std::slice::from_ref(&renumbered)), [(1, 0)]);
    test.complete(renumbered, appended(15));
    assert_eq!(sequences(&test.take_all()), [(1, 5)]);
    assert_eq!(test.results(), [Ok(15)]);
}

#[test]
fn a_refused_batch_bumps_the_epoch_once_none_is_in_flight() {
    let mut test = TestQueue::confirmed();
    for _ in 0..3 {
        test.batch(10);
    }
    let mut in_flight = test.take_all().into_iter();
    test.complete(in_flight.next().unwrap(), BatchResult::Fatal(rejected()));
    assert_eq!(test.results(), [Err(rejected())]);
    assert!(test.try_take(ONE).is_none());
    test.complete(in_flight.next().unwrap(), BatchResult::OutOfOrder);
    assert!(test.try_take(ONE).is_none());
    // Not answered, but it cannot have been appended after the gap.
    test.complete(in_flight.next().unwrap(), MAYBE_APPENDED);
    test.now += Duration::from_secs(1);
    let next = test.take();
    assert_eq!(sequences(std::slice::from_ref(&next)), [(1, 0)]);
    test.complete(next, appended(10));
    assert_eq!(sequences(&test.take_all()), [(1, 10)]);
}

#[test]
fn a_refusal_after_an_unanswered_attempt_is_unknown() {
    let mut test = TestQueue::confirmed();
    test.batch(1);
    let sent = test.take();
    test.complete(sent, MAYBE_APPENDED);
    test.now += Duration::from_secs(1);
    let sent = test.take();
    test.complete(sent, BatchResult::Fatal(rejected()));
    assert!(matches!(&test.results()[..], [Err(e)] if e.outcome_unknown()));
}

#[test]
fn a_refusal_after_an_unresolved_batch_waits_and_disturbs_no_sequence() {
    let mut test = TestQueue::confirmed();
    for _ in 0..3 {
        test.batch(10);
    }
    let mut in_flight = test.take_all().into_iter();
    test.complete(in_flight.next().unwrap(), MAYBE_APPENDED);
    test.complete(in_flight.next().unwrap(), BatchResult::Fatal(rejected()));
    test.complete(in_flight.next().unwrap(), BatchResult::OutOfOrder);
    assert_eq!(test.results(), []);
    test.now += Duration::from_secs(1);
    let first = test.take();
    assert_eq!(sequences(std::slice::from_ref(&first)), [(0, 10)]);
    test.complete(first, appended(10));
    assert_eq!(test.results(), [Ok(10), Err(rejected())]);
    assert_eq!(sequences(&test.take_all()), [(1, 0)]);
}

#[test]
fn a_lost_producer_state_bumps_the_epoch() {
    let mut test = TestQueue::confirmed();
    test.batch(10);
    let sent = test.take();
    test.complete(sent, BatchResult::OutOfOrder);
    assert_eq!(sequences(&test.take_all()), [(1, 0)]);
}

#[test]
fn out_of_order_after_an_unresolved_batch_only_waits() {
    let mut test = TestQueue::confirmed();
    test.batch(10);
    test.batch(10);
    let mut in_flight = test.take_all().into_iter();
    test.complete(in_flight.next().unwrap(), NOT_APPENDED);
    test.complete(in_flight.next().unwrap(), BatchResult::OutOfOrder);
    test.now += Duration::from_secs(1);
    let again = test.take();
    assert_eq!(sequences(std::slice::from_ref(&again)), [(0, 10)]);
    test.complete(again, appended(10));
    assert_eq!(sequences(&test.take_all()), [(0, 20)]);
}

#[test]
fn repeated_out_of_order_responses_are_backed_off_from() {
    let mut test = TestQueue::confirmed();
    test.batch(10);
    let sent = test.take();
    test.complete(sent, BatchResult::OutOfOrder);
    let sent = test.take();
    test.complete(sent, BatchResult::OutOfOrder);
    assert!(test.try_take(ONE).is_none());
}

#[test]
fn exhausted_epochs_take_a_new_producer_id() {
    let mut test = TestQueue::confirmed();
    let last_epoch = ProducerIdAndEpoch {
        epoch: i16::MAX,
        ..FIRST_ID
    };
    test.queue.sequencer.set_next(last_epoch, 10);
    test.batch(10);
    let sent = test.take();
    test.complete(sent, BatchResult::OutOfOrder);
    assert!(test.try_take(ONE).is_none());
    assert!(
        test.queue.needs_producer_id(test.new_producer_id),
        "the old one is exhausted"
    );
    test.new_producer_id = Some(ProducerIdAndEpoch { id: 8, epoch: 0 });
    assert!(!test.queue.needs_producer_id(test.new_producer_id));
    let sent = test.take();
    assert_eq!(
        (sent.producer_id, sent.base_sequence),
        (test.new_producer_id.unwrap(), 0)
    );
}

#[test]
fn sequences_run_on_from_zero_after_the_largest() {
    let mut test = TestQueue::confirmed();
    test.queue.sequencer.set_next(FIRST_ID, i32::MAX - 4);
    test.batch(10);
    test.batch(10);
    assert_eq!(sequences(&test.take_all()), [(0, i32::MAX - 4), (0, 5)]);
}

#[test]
fn a_fenced_producer_takes_a_new_id_and_resends() {
    let mut test = TestQueue::confirmed();
    test.batch(10);
    let sent = test.take();
    test.complete(sent, BatchResult::Fenced);
    test.now += Duration::from_secs(1);
    assert!(test.queue.needs_producer_id(test.new_producer_id));
    test.new_producer_id = Some(ProducerIdAndEpoch { id: 9, epoch: 0 });
    let sent = test.take();
    assert_eq!((sent.producer_id.id, sent.base_sequence), (9, 0));
}

#[test]
fn a_fenced_batch_with_an_unanswered_attempt_is_unknown() {
    let mut test = TestQueue::confirmed();
    test.batch(10);
    let sent = test.take();
    test.complete(sent, MAYBE_APPENDED);
    test.now += Duration::from_secs(1);
    let sent = test.take();
    test.complete(sent, BatchResult::Fenced);
    assert!(matches!(&test.results()[..], [Err(e)] if e.outcome_unknown()));
}

#[test]
fn a_batch_too_large_is_split_and_nothing_overtakes_the_halves() {
    let mut test = TestQueue::confirmed();
    let deliveries = test.batch(5);
    test.batch(5);
    let mut in_flight = test.take_all().into_iter();
    test.complete(in_flight.next().unwrap(), BatchResult::TooLarge);
    assert!(test.try_take(ONE).is_none());
    test.complete(in_flight.next().unwrap(), BatchResult::OutOfOrder);

    let first = test.take();
    assert_eq!(first.records, NumberedRecords(vec![10, 11]));
    assert_eq!(sequences(std::slice::from_ref(&first)), [(1, 0)]);
    test.complete(first, appended(100));
    let rest = test.take_all();
    assert_eq!(rest[0].records, NumberedRecords(vec![12, 13, 14]));
    assert_eq!(sequences(&rest), [(1, 2), (1, 5)]);
    for (sent, offset) in rest.into_iter().zip([200, 300]) {
        test.complete(sent, appended(offset));
    }
    let memory = test.finished.iter().map(|s| s.memory).sum::<usize>();
    assert_eq!(memory, 10, "what was allocated is freed");
    assert_eq!(test.results(), [Ok(100), Ok(200), Ok(300)]);
    assert_eq!(offset(&deliveries[1]), Some(Ok(101)));
    assert_eq!(offset(&deliveries[4]), Some(Ok(202)));
}

#[test]
fn a_single_record_too_large_fails_alone() {
    let mut test = TestQueue::confirmed();
    let deliveries = test.batch(2);
    let sent = test.take();
    test.complete(sent, BatchResult::TooLarge);
    let sent = test.take();
    test.complete(sent, BatchResult::TooLarge);
    let sent = test.take();
    test.complete(sent, appended(10));
    test.results();
    assert!(matches!(
        offset(&deliveries[0]),
        Some(Err(ProduceError::TooLarge {
            size: 1,
            limit: None
        }))
    ));
    assert_eq!(offset(&deliveries[1]), Some(Ok(10)));
}

#[test]
fn named_invalid_records_fail_and_the_others_are_written() {
    let mut test = TestQueue::confirmed();
    let deliveries = test.batch(5);
    let sent = test.take();
    let errors = vec![(3, "three".into()), (1, "one".into()), (99, "none".into())];
    let bad = BatchResult::InvalidRecords {
        errors,
        code: 87,
        message: "all".into(),
    };
    test.complete(sent, bad);
    assert_eq!(test.results().len(), 2, "each has a result of its own");
    let failed = |index: usize| match deliveries[index].try_result() {
        Some(Err(ProduceError::Rejected { message, .. })) => message,
        other => panic!("{other:?}"),
    };
    assert_eq!((&*failed(1), &*failed(3)), ("one", "three"));
    let sent = test.take();
    assert_eq!(sent.records, NumberedRecords(vec![10, 12, 14]));
    assert_eq!(sent.producer_id.epoch, 1);
    test.complete(sent, appended(50));
    assert_eq!(test.results(), [Ok(50)]);
    let offsets: Vec<_> = [0, 2, 4].map(|i| offset(&deliveries[i])).into();
    assert_eq!(offsets, [Some(Ok(50)), Some(Ok(51)), Some(Ok(52))]);
}

#[test]
fn unnamed_invalid_records_are_found_by_splitting() {
    let mut test = TestQueue::confirmed();
    let deliveries = test.batch(8);
    let mut offset_next = 10;
    while let Some(sent) = test.try_take(ONE) {
        if sent.records.0.contains(&15) {
            let result = BatchResult::InvalidRecords {
                errors: vec![],
                code: 87,
                message: "null key".into(),
            };
            test.complete(sent, result);
        } else {
            let count = i64::from(sent.records.count());
            test.complete(sent, appended(offset_next));
            offset_next += count;
        }
        test.results();
    }
    for (i, delivery) in deliveries.iter().enumerate() {
        assert_eq!(delivery.try_result().unwrap().is_err(), i == 5, "{i}");
    }
    assert_eq!(offset_next, 17);
}

#[test]
fn a_corrupt_batch_is_sent_again_before_its_records_are_suspected() {
    let mut test = TestQueue::confirmed();
    test.batch(1);
    let corrupt = || BatchResult::Corrupt {
        code: 2,
        message: "crc".into(),
    };
    let sent = test.take();
    test.complete(sent, corrupt());
    test.now += Duration::from_secs(1);
    let sent = test.take();
    assert_eq!(sent.base_sequence, 10);
    test.complete(sent, corrupt());
    assert!(matches!(
        &test.results()[..],
        [Err(ProduceError::Rejected { code: 2, .. })]
    ));
}

#[test]
fn a_batch_that_keeps_failing_with_an_unknown_error_has_an_unknown_outcome() {
    let mut test = TestQueue::confirmed();
    test.batch(1);
    for _ in 0..4 {
        let sent = test.take();
        let message = "?".into();
        test.complete(sent, BatchResult::UnknownError { message });
        test.now += Duration::from_secs(2);
    }
    assert!(matches!(&test.results()[..], [Err(e)] if e.outcome_unknown()));
}

#[test]
fn a_recreated_topic_starts_over() {
    for (result, naming) in [
        (NOT_APPENDED, TopicNaming::ByName),
        (NOT_APPENDED, TopicNaming::ById),
        (MAYBE_APPENDED, TopicNaming::ById),
    ] {
        let mut test = TestQueue::confirmed();
        test.naming = naming;
        test.batch(10);
        let sent = test.take();
        test.queue.topic_recreated(&mut test.finished);
        test.complete(sent, result);
        test.now += Duration::from_secs(1);
        assert_eq!(sequences(&test.take_all()), [(1, 0)]);
        assert_eq!(test.results(), []);
    }
}

#[test]
fn what_was_sent_by_name_to_a_recreated_topic_is_unknown_and_not_sent_again() {
    // Learnt before the request fails, or afterwards.
    for before in [true, false] {
        let mut test = TestQueue::confirmed();
        test.batch(10);
        let sent = test.take();
        test.batch(10);
        if before {
            test.queue.topic_recreated(&mut test.finished);
            test.complete(sent, MAYBE_APPENDED);
        } else {
            test.complete(sent, MAYBE_APPENDED);
            test.queue.topic_recreated(&mut test.finished);
        }
        let results = test.results();
        assert!(matches!(&results[..], [Err(e)] if e.outcome_unknown()));
        test.now += Duration::from_secs(1);
        let next = test.take();
        assert_eq!(next.records.0[0], 20);
        assert_eq!(sequences(&[next]), [(1, 0)]);
    }
}

#[test]
fn what_was_sent_by_id_is_not_in_a_recreated_topic() {
    let mut test = TestQueue::confirmed();
    test.naming = TopicNaming::ById;
    test.batch(10);
    let sent = test.take();
    test.complete(sent, MAYBE_APPENDED);
    test.queue.topic_recreated(&mut test.finished);
    assert_eq!(test.results(), []);
    test.now += Duration::from_secs(1);
    let again = test.take();
    assert_eq!(again.records.0[0], 10);
    test.complete(again, appended(0));
    assert_eq!(test.results(), [Ok(0)]);
}

#[test]
fn what_the_old_topic_still_acknowledges_says_nothing_of_a_recreated_one() {
    let mut test = TestQueue::confirmed();
    test.naming = TopicNaming::ById;
    for _ in 0..5 {
        test.batch(10);
    }
    let mut in_flight = test.take_all().into_iter();
    test.queue.topic_recreated(&mut test.finished);
    for offset in [10, 20] {
        test.complete(in_flight.next().unwrap(), appended(offset));
    }
    assert_eq!(test.results(), [Ok(10), Ok(20)]);
    test.batch(10);
    assert!(test.take_all().is_empty(), "the rest is on its way");
    for sent in in_flight {
        test.complete(sent, NOT_APPENDED);
    }
    test.advance(Duration::from_secs(5));
    let first = test.take();
    assert_eq!(sequences(std::slice::from_ref(&first)), [(1, 0)]);
    test.complete(first, appended(0));
    assert_eq!(
        sequences(&test.take_all()),
        [(1, 10), (1, 20), (1, 30)],
        "in their order"
    );
}

#[test]
fn what_the_old_topic_acknowledged_out_of_turn_says_nothing_of_a_recreated_one() {
    let mut test = TestQueue::confirmed();
    test.naming = TopicNaming::ById;
    for _ in 0..5 {
        test.batch(10);
    }
    let mut in_flight = test.take_all().into_iter();
    let first = in_flight.next().unwrap();
    for offset in [20, 30] {
        test.complete(in_flight.next().unwrap(), appended(offset));
    }
    test.queue.topic_recreated(&mut test.finished);
    test.complete(first, appended(10));
    assert_eq!(test.results(), [Ok(10), Ok(20), Ok(30)]);
    for sent in in_flight {
        test.complete(sent, NOT_APPENDED);
    }
    test.advance(Duration::from_secs(5));
    assert_eq!(sequences(&test.take_all()[..1]), [(1, 0)]);
}

#[test]
fn an_attempt_by_name_at_the_new_topic_is_retried_as_usual() {
    let mut test = TestQueue::confirmed();
    test.batch(10);
    let sent = test.take();
    test.queue.topic_recreated(&mut test.finished);
    test.complete(sent, NOT_APPENDED);
    test.now += Duration::from_secs(1);
    let sent = test.take();
    test.complete(sent, MAYBE_APPENDED);
    test.now += Duration::from_secs(1);
    assert_eq!(sequences(&test.take_all()), [(1, 0)]);
    assert_eq!(test.results(), []);
}

#[test]
fn a_deleted_topic_fails_queued_batches_and_those_that_were_sent_are_unknown() {
    let mut test = TestQueue::confirmed();
    test.batch(10);
    test.batch(10);
    let sent = test.take();
    test.complete(sent, MAYBE_APPENDED);
    let gone = ProduceError::UnknownTopic { topic: "t".into() };
    test.queue.fail_queued(&gone, &mut test.finished);
    let results = test.results();
    assert!(matches!(&results[0], Err(e) if e.outcome_unknown()));
    assert_eq!(results[1..], [Err(gone)]);
}

#[test]
fn stopping_tells_batches_that_were_sent_from_those_that_were_not() {
    let mut test = TestQueue::confirmed();
    let sent = test.batch(1);
    let _in_flight = test.take();
    let unsent = test.batch(1);
    test.queue.stop(&mut test.finished);
    test.results();
    assert!(matches!(sent[0].try_result(), Some(Err(e)) if e.outcome_unknown()));
    assert_eq!(unsent[0].try_result(), Some(Err(ProduceError::Stopped)));
    assert!(test.queue.is_empty());
}

#[test]
fn wake_ups_by_time_lie_in_the_future() {
    let mut test = TestQueue::confirmed();
    test.batch(1);
    let sent = test.take();
    test.complete(sent, MAYBE_APPENDED);
    for _ in 0..1000 {
        let Some(at) = test.queue.wake_at(test.now) else {
            return;
        };
        assert!(at > test.now);
        test.now = at;
        test.queue.expire(test.now, &mut test.finished);
    }
    panic!("still waking up");
}
