//! The rules, one by one, and then all together against a broker's sequence check.

use super::*;
use crate::producer::delivery::{DeliveryFuture, RecordMetadata};

/// Record numbers instead of bytes.
#[derive(Clone, Debug, PartialEq)]
struct Records(Vec<u32>);

impl Payload for Records {
    fn count(&self) -> u32 {
        self.0.len() as u32
    }

    fn size(&self) -> usize {
        self.0.len()
    }

    fn keep(&self, wanted: &dyn Fn(u32) -> bool) -> Option<Self> {
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
const FRESH: Identity = Identity { id: 7, epoch: 0 };
const DELIVERY: Duration = Duration::from_secs(120);
const UNSURE: Landing = Landing::Retry { unsure: true };
const SURE: Landing = Landing::Retry { unsure: false };

struct Bench {
    queue: Queue<Records>,
    fresh: Option<Identity>,
    now: Instant,
    settled: Vec<Settled>,
    records: u32,
    /// Whether requests name the topic by its id.
    by_id: bool,
}

fn limits() -> Limits {
    Limits {
        linger: Duration::ZERO,
        delivery: DELIVERY,
        in_flight: 5,
        retry: (Duration::from_millis(100), Duration::from_secs(1)),
    }
}

impl Bench {
    fn new() -> Self {
        Self::with(limits())
    }

    fn with(limits: Limits) -> Self {
        let mut queue = Queue::new(TopicPartition::new("t", 0), limits);
        queue.set_leader(Some(LeaderAndEpoch {
            broker: ONE,
            epoch: 1,
        }));
        Self {
            queue,
            fresh: Some(FRESH),
            now: Instant::now(),
            settled: Vec::new(),
            records: 0,
            by_id: false,
        }
    }

    /// A queue whose leader has confirmed a first batch of ten records.
    fn confirmed() -> Self {
        let mut bench = Self::new();
        bench.batch(10);
        let sent = bench.take();
        bench.land(sent, appended(0));
        assert_eq!(bench.results(), [Ok(0)]);
        bench
    }

    fn batch(&mut self, count: u32) -> Vec<DeliveryFuture> {
        let outcome = ProduceResult::new(0);
        let records = (self.records..self.records + count).collect();
        self.records += count;
        self.queue.push(Records(records), outcome.clone(), self.now);
        self.queue.wrote(count as usize, false);
        (0..count)
            .map(|i| DeliveryFuture::new(outcome.clone(), i, 0))
            .collect()
    }

    fn try_take(&mut self, broker: BrokerId) -> Option<Sent<Records>> {
        let ready = self.queue.is_ready(self.fresh, self.now);
        let sent = self
            .queue
            .take(broker, self.fresh, self.now, &mut self.settled);
        if self.queue.leader() == Some(broker) && sent.is_some() {
            assert!(ready, "taken, but not announced");
        }
        sent
    }

    fn take(&mut self) -> Sent<Records> {
        self.try_take(ONE).expect("a batch is ready")
    }

    /// Takes as much as may be out.
    fn take_all(&mut self) -> Vec<Sent<Records>> {
        std::iter::from_fn(|| self.try_take(ONE)).collect()
    }

    fn land(&mut self, sent: Sent<Records>, landing: Landing) {
        let Sent { id, payload, .. } = sent;
        let settled = &mut self.settled;
        self.queue
            .landed(id, payload, landing, self.by_id, self.now, settled);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.queue.expire(self.now, &mut self.settled);
    }

    fn lead(&mut self, broker: BrokerId, epoch: i32) {
        self.queue
            .set_leader(Some(LeaderAndEpoch { broker, epoch }));
    }

    /// What was settled since, and tells the deliveries.
    fn results(&mut self) -> Vec<Result<i64, ProduceError>> {
        let settled = std::mem::take(&mut self.settled);
        settled
            .into_iter()
            .map(|settled| {
                if let Some(owner) = settled.owner {
                    owner.settle(settled.result.clone());
                }
                settled.result.map(|placed| placed.offset)
            })
            .collect()
    }
}

fn appended(offset: i64) -> Landing {
    Landing::Appended(Placed::new(offset, -1))
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

/// (epoch, sequence) of what was taken.
fn places(sent: &[Sent<Records>]) -> Vec<(i16, i32)> {
    sent.iter()
        .map(|s| (s.identity.epoch, s.sequence))
        .collect()
}

fn offset(delivery: &DeliveryFuture) -> Option<Result<i64, ProduceError>> {
    Some(
        delivery
            .poll_now()?
            .map(|RecordMetadata { offset, .. }| offset),
    )
}

#[test]
fn one_request_until_the_leader_has_acknowledged_and_then_five() {
    let mut bench = Bench::new();
    for _ in 0..9 {
        bench.batch(10);
    }
    let first = bench.take_all();
    assert_eq!(places(&first), [(0, 0)]);
    bench.land(first.into_iter().next().unwrap(), appended(0));
    let next = bench.take_all();
    assert_eq!(places(&next), [(0, 10), (0, 20), (0, 30), (0, 40), (0, 50)]);
}

#[test]
fn a_leader_that_was_silent_for_long_is_sent_one_request_again() {
    let mut bench = Bench::confirmed();
    bench.pass(Duration::from_secs(61));
    bench.batch(1);
    bench.batch(1);
    assert_eq!(bench.take_all().len(), 1);
}

#[test]
fn without_leader_or_producer_id_nothing_is_sent() {
    let mut bench = Bench::new();
    bench.batch(1);
    bench.fresh = None;
    assert!(bench.queue.lacks_identity(None));
    assert!(bench.try_take(ONE).is_none());
    bench.fresh = Some(FRESH);
    bench.queue.set_leader(None);
    assert!(bench.try_take(ONE).is_none());
    bench.lead(TWO, 1);
    assert!(bench.try_take(ONE).is_none());
    assert!(bench.try_take(TWO).is_some());
}

#[test]
fn an_open_batch_lingers_unless_it_is_full_flushed_or_followed() {
    let linger = Duration::from_millis(5);
    let lingering = || Bench::with(Limits { linger, ..limits() });
    let mut bench = lingering();
    bench.batch(1);
    assert!(bench.try_take(ONE).is_none());
    assert_eq!(bench.queue.wake_at(bench.now), Some(bench.now + linger));
    bench.pass(linger);
    assert!(bench.try_take(ONE).is_some());

    let mut bench = lingering();
    bench.batch(1);
    bench.queue.wrote(1, true);
    assert!(bench.try_take(ONE).is_some());

    let mut bench = lingering();
    bench.batch(1);
    assert_eq!(bench.queue.flush().count(), 1);
    assert!(bench.try_take(ONE).is_some());

    let mut bench = lingering();
    bench.batch(1);
    bench.batch(1);
    assert!(bench.try_take(ONE).is_some());
    assert!(bench.try_take(ONE).is_none());
}

#[test]
fn records_gather_until_the_batch_is_taken() {
    let mut bench = Bench::new();
    bench.batch(1);
    assert!(bench.queue.open().is_some());
    let sent = bench.take();
    assert!(bench.queue.open().is_none());
    bench.land(sent, SURE);
    assert!(bench.queue.open().is_none(), "its sequences are counted");
}

#[test]
fn an_early_answer_is_parked_until_those_before_it_are_decided() {
    let mut bench = Bench::confirmed();
    let first = bench.batch(10);
    let second = bench.batch(10);
    let mut sent = bench.take_all().into_iter();
    let (one, two) = (sent.next().unwrap(), sent.next().unwrap());
    bench.land(one, UNSURE);
    bench.land(two, appended(20));
    assert_eq!(bench.results(), []);
    bench.now += Duration::from_secs(1);
    let again = bench.take();
    assert_eq!((again.sequence, again.again), (10, true));
    bench.land(again, appended(10));
    assert_eq!(bench.results(), [Ok(10), Ok(20)]);
    assert_eq!(offset(&first[1]), Some(Ok(11)));
    assert_eq!(offset(&second[0]), Some(Ok(20)));
}

#[test]
fn nothing_is_sent_that_would_push_an_undecided_batch_out_of_the_brokers_memory() {
    let mut bench = Bench::confirmed();
    for _ in 0..9 {
        bench.batch(10);
    }
    // The first may have been appended, the others were: a broker knows five.
    for (nth, sent) in (1..).zip(bench.take_all()) {
        let landing = if nth == 1 { UNSURE } else { appended(nth * 10) };
        bench.land(sent, landing);
    }
    bench.now += Duration::from_secs(1);
    let again = bench.take_all();
    assert_eq!(places(&again), [(0, 10)]);
    for sent in again {
        bench.land(sent, appended(10));
    }
    assert_eq!(bench.take_all().len(), 4, "all that are left");
}

#[test]
fn an_unanswered_batch_that_is_out_of_order_may_be_there_and_forgotten() {
    let mut bench = Bench::confirmed();
    bench.batch(10);
    let sent = bench.take();
    bench.land(sent, UNSURE);
    bench.now += Duration::from_secs(1);
    let sent = bench.take();
    bench.land(sent, Landing::Absent);
    assert!(matches!(&bench.results()[..], [Err(e)] if e.outcome_unknown()));
    bench.now += Duration::from_secs(1);
    bench.batch(1);
    assert_eq!(places(&bench.take_all()), [(1, 0)]);
}

#[test]
fn a_lost_connection_repeats_the_same_sequences_in_order() {
    let mut bench = Bench::confirmed();
    for _ in 0..3 {
        bench.batch(10);
    }
    for sent in bench.take_all() {
        assert!(bench.try_take(ONE).is_none());
        bench.land(sent, UNSURE);
    }
    assert!(bench.try_take(ONE).is_none(), "backs off");
    bench.now += Duration::from_secs(1);
    let again = bench.take_all();
    assert_eq!(places(&again), [(0, 10)], "alone until the first success");
    bench.land(again.into_iter().next().unwrap(), appended(-1));
    assert_eq!(places(&bench.take_all()), [(0, 20), (0, 30)]);
    assert_eq!(bench.results(), [Ok(-1)]);
}

#[test]
fn nothing_goes_to_a_new_leader_until_the_old_one_is_drained() {
    let mut bench = Bench::confirmed();
    for _ in 0..7 {
        bench.batch(10);
    }
    let out = bench.take_all();
    assert_eq!(out.len(), 5);
    bench.lead(TWO, 2);
    for sent in out {
        assert!(bench.try_take(TWO).is_none());
        assert!(bench.try_take(ONE).is_none());
        bench.land(sent, UNSURE);
    }
    bench.now += Duration::from_secs(1);
    let moved = bench.try_take(TWO).unwrap();
    assert_eq!(places(std::slice::from_ref(&moved)), [(0, 10)]);
    assert!(bench.try_take(TWO).is_none(), "one until the first success");
    bench.land(moved, appended(10));
    let rest: Vec<_> = std::iter::from_fn(|| bench.try_take(TWO)).collect();
    assert_eq!(places(&rest), [(0, 20), (0, 30), (0, 40), (0, 50), (0, 60)]);
}

#[test]
fn what_the_old_leader_acknowledges_confirms_nothing_of_the_new_one() {
    let mut bench = Bench::confirmed();
    for _ in 0..7 {
        bench.batch(10);
    }
    let out = bench.take_all();
    bench.lead(TWO, 2);
    for (sent, offset) in out.into_iter().zip([10, 20, 30, 40, 50]) {
        assert!(bench.try_take(TWO).is_none());
        bench.land(sent, appended(offset));
    }
    assert!(bench.try_take(TWO).is_some());
    assert!(bench.try_take(TWO).is_none(), "one until the first success");
}

#[test]
fn a_new_leader_need_not_wait_for_the_backoff() {
    let mut bench = Bench::confirmed();
    bench.batch(1);
    let sent = bench.take();
    bench.land(sent, UNSURE);
    assert!(bench.try_take(ONE).is_none());
    bench.lead(TWO, 2);
    assert!(bench.try_take(TWO).is_some());
}

#[test]
fn a_batch_that_was_never_sent_times_out_for_sure_and_leaves_no_gap() {
    let mut bench = Bench::confirmed();
    bench.queue.set_leader(None);
    bench.batch(5);
    assert_eq!(bench.queue.wake_at(bench.now), Some(bench.now + DELIVERY));
    bench.pass(DELIVERY);
    assert_eq!(bench.results(), [Err(timed_out())]);
    bench.lead(ONE, 2);
    bench.batch(1);
    assert_eq!(places(&bench.take_all()), [(0, 10)]);
}

#[test]
fn a_batch_whose_every_attempt_surely_failed_times_out_for_sure() {
    let mut bench = Bench::confirmed();
    bench.batch(5);
    let sent = bench.take();
    bench.land(sent, SURE);
    bench.pass(DELIVERY);
    assert_eq!(bench.results(), [Err(timed_out())]);
    bench.batch(1);
    assert_eq!(places(&bench.take_all()), [(1, 0)]);
}

#[test]
fn an_unanswered_batch_times_out_as_unknown_and_the_next_starts_an_epoch() {
    let mut bench = Bench::confirmed();
    let deliveries = bench.batch(5);
    let sent = bench.take();
    bench.land(sent, UNSURE);
    bench.pass(DELIVERY);
    assert!(matches!(&bench.results()[..], [Err(e)] if e.outcome_unknown()));
    assert!(matches!(deliveries[4].poll_now(), Some(Err(e)) if e.outcome_unknown()));
    bench.batch(1);
    assert_eq!(places(&bench.take_all()), [(1, 0)]);
}

#[test]
fn a_request_still_out_at_the_timeout_is_unknown_but_its_success_closes_the_gap() {
    let mut bench = Bench::confirmed();
    let deliveries = bench.batch(5);
    let sent = bench.take();
    bench.pass(DELIVERY);
    assert!(matches!(&bench.results()[..], [Err(e)] if e.outcome_unknown()));
    bench.land(sent, appended(10));
    bench.results();
    assert!(matches!(deliveries[0].poll_now(), Some(Err(e)) if e.outcome_unknown()));
    bench.batch(1);
    assert_eq!(places(&bench.take_all()), [(0, 15)]);
}

#[test]
fn after_an_unknown_batch_the_next_one_sent_is_asked_for_first() {
    // Lost batch 1 was written after all: 2 is a duplicate or new, and nothing changes.
    let mut bench = Bench::confirmed();
    bench.batch(5);
    bench.now += Duration::from_secs(50);
    bench.batch(5);
    for sent in bench.take_all() {
        bench.land(sent, UNSURE);
    }
    bench.pass(Duration::from_secs(70));
    assert!(matches!(&bench.results()[..], [Err(e)] if e.outcome_unknown()));
    bench.batch(5);
    let again = bench.take_all();
    assert_eq!(places(&again), [(0, 15)], "alone, as it was");
    bench.land(again.into_iter().next().unwrap(), appended(15));
    assert_eq!(bench.results(), [Ok(15)]);
    assert_eq!(places(&bench.take_all()), [(0, 20)]);
}

#[test]
fn after_an_unknown_batch_what_was_never_sent_goes_on_under_a_new_epoch() {
    let mut bench = Bench::confirmed();
    bench.batch(5);
    bench.now += Duration::from_secs(50);
    bench.batch(5);
    let mut out = bench.take_all().into_iter();
    bench.batch(5);
    bench.land(out.next().unwrap(), UNSURE);
    // This one was refused: it is known not to be there.
    bench.land(out.next().unwrap(), Landing::Absent);
    bench.pass(Duration::from_secs(70));
    assert!(matches!(&bench.results()[..], [Err(e)] if e.outcome_unknown()));
    let renumbered = bench.take();
    assert_eq!(places(std::slice::from_ref(&renumbered)), [(1, 0)]);
    bench.land(renumbered, appended(15));
    assert_eq!(places(&bench.take_all()), [(1, 5)]);
    assert_eq!(bench.results(), [Ok(15)]);
}

#[test]
fn a_refused_batch_makes_those_behind_it_start_an_epoch_when_all_are_back() {
    let mut bench = Bench::confirmed();
    for _ in 0..3 {
        bench.batch(10);
    }
    let mut out = bench.take_all().into_iter();
    bench.land(out.next().unwrap(), Landing::Refused(rejected()));
    assert_eq!(bench.results(), [Err(rejected())]);
    assert!(bench.try_take(ONE).is_none());
    bench.land(out.next().unwrap(), Landing::Absent);
    assert!(bench.try_take(ONE).is_none());
    // Lost, but it cannot have been appended behind the gap.
    bench.land(out.next().unwrap(), UNSURE);
    bench.now += Duration::from_secs(1);
    let next = bench.take();
    assert_eq!(places(std::slice::from_ref(&next)), [(1, 0)]);
    bench.land(next, appended(10));
    assert_eq!(places(&bench.take_all()), [(1, 10)]);
}

#[test]
fn a_refusal_after_an_unanswered_attempt_is_unknown() {
    let mut bench = Bench::confirmed();
    bench.batch(1);
    let sent = bench.take();
    bench.land(sent, UNSURE);
    bench.now += Duration::from_secs(1);
    let sent = bench.take();
    bench.land(sent, Landing::Refused(rejected()));
    assert!(matches!(&bench.results()[..], [Err(e)] if e.outcome_unknown()));
}

#[test]
fn a_refusal_behind_an_undecided_batch_waits_and_disturbs_no_sequence() {
    let mut bench = Bench::confirmed();
    for _ in 0..3 {
        bench.batch(10);
    }
    let mut out = bench.take_all().into_iter();
    bench.land(out.next().unwrap(), UNSURE);
    bench.land(out.next().unwrap(), Landing::Refused(rejected()));
    bench.land(out.next().unwrap(), Landing::Absent);
    assert_eq!(bench.results(), []);
    bench.now += Duration::from_secs(1);
    let first = bench.take();
    assert_eq!(places(std::slice::from_ref(&first)), [(0, 10)]);
    bench.land(first, appended(10));
    assert_eq!(bench.results(), [Ok(10), Err(rejected())]);
    assert_eq!(places(&bench.take_all()), [(1, 0)]);
}

#[test]
fn a_lost_producer_state_starts_an_epoch() {
    let mut bench = Bench::confirmed();
    bench.batch(10);
    let sent = bench.take();
    bench.land(sent, Landing::Absent);
    assert_eq!(places(&bench.take_all()), [(1, 0)]);
}

#[test]
fn out_of_order_behind_an_undecided_batch_only_waits() {
    let mut bench = Bench::confirmed();
    bench.batch(10);
    bench.batch(10);
    let mut out = bench.take_all().into_iter();
    bench.land(out.next().unwrap(), SURE);
    bench.land(out.next().unwrap(), Landing::Absent);
    bench.now += Duration::from_secs(1);
    let again = bench.take();
    assert_eq!(places(std::slice::from_ref(&again)), [(0, 10)]);
    bench.land(again, appended(10));
    assert_eq!(places(&bench.take_all()), [(0, 20)]);
}

#[test]
fn endless_out_of_order_answers_are_not_answered_at_once() {
    let mut bench = Bench::confirmed();
    bench.batch(10);
    let sent = bench.take();
    bench.land(sent, Landing::Absent);
    let sent = bench.take();
    bench.land(sent, Landing::Absent);
    assert!(bench.try_take(ONE).is_none());
}

#[test]
fn epochs_that_run_out_take_a_new_producer_id() {
    let mut bench = Bench::confirmed();
    bench.queue.identity = Some(Identity {
        epoch: i16::MAX,
        ..FRESH
    });
    bench.batch(10);
    let sent = bench.take();
    bench.land(sent, Landing::Absent);
    assert!(bench.try_take(ONE).is_none());
    assert!(
        bench.queue.lacks_identity(bench.fresh),
        "the old one is used up"
    );
    bench.fresh = Some(Identity { id: 8, epoch: 0 });
    assert!(!bench.queue.lacks_identity(bench.fresh));
    let sent = bench.take();
    assert_eq!((sent.identity, sent.sequence), (bench.fresh.unwrap(), 0));
}

#[test]
fn sequences_run_on_from_zero_after_the_largest() {
    let mut bench = Bench::confirmed();
    bench.queue.next = i32::MAX - 4;
    bench.batch(10);
    bench.batch(10);
    assert_eq!(places(&bench.take_all()), [(0, i32::MAX - 4), (0, 5)]);
}

#[test]
fn a_fenced_producer_takes_a_new_id_and_resends() {
    let mut bench = Bench::confirmed();
    bench.batch(10);
    let sent = bench.take();
    bench.land(sent, Landing::Fenced);
    bench.now += Duration::from_secs(1);
    assert!(bench.queue.lacks_identity(bench.fresh));
    bench.fresh = Some(Identity { id: 9, epoch: 0 });
    let sent = bench.take();
    assert_eq!((sent.identity.id, sent.sequence), (9, 0));
}

#[test]
fn a_fenced_batch_with_an_unanswered_attempt_is_unknown() {
    let mut bench = Bench::confirmed();
    bench.batch(10);
    let sent = bench.take();
    bench.land(sent, UNSURE);
    bench.now += Duration::from_secs(1);
    let sent = bench.take();
    bench.land(sent, Landing::Fenced);
    assert!(matches!(&bench.results()[..], [Err(e)] if e.outcome_unknown()));
}

#[test]
fn a_batch_too_large_is_halved_and_nothing_overtakes_the_halves() {
    let mut bench = Bench::confirmed();
    let deliveries = bench.batch(5);
    bench.batch(5);
    let mut out = bench.take_all().into_iter();
    bench.land(out.next().unwrap(), Landing::TooLarge);
    assert!(bench.try_take(ONE).is_none());
    bench.land(out.next().unwrap(), Landing::Absent);

    let first = bench.take();
    assert_eq!(first.payload, Records(vec![10, 11]));
    assert_eq!(places(std::slice::from_ref(&first)), [(1, 0)]);
    bench.land(first, appended(100));
    let rest = bench.take_all();
    assert_eq!(rest[0].payload, Records(vec![12, 13, 14]));
    assert_eq!(places(&rest), [(1, 2), (1, 5)]);
    let mut costs = 0;
    for (sent, offset) in rest.into_iter().zip([200, 300]) {
        bench.land(sent, appended(offset));
    }
    costs += bench.settled.iter().map(|s| s.cost).sum::<usize>();
    assert_eq!(costs, 10, "the budget gets back what was taken");
    assert_eq!(bench.results(), [Ok(100), Ok(200), Ok(300)]);
    assert_eq!(offset(&deliveries[1]), Some(Ok(101)));
    assert_eq!(offset(&deliveries[4]), Some(Ok(202)));
}

#[test]
fn a_single_record_too_large_fails_alone() {
    let mut bench = Bench::confirmed();
    let deliveries = bench.batch(2);
    let sent = bench.take();
    bench.land(sent, Landing::TooLarge);
    let sent = bench.take();
    bench.land(sent, Landing::TooLarge);
    let sent = bench.take();
    bench.land(sent, appended(10));
    bench.results();
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
fn named_bad_records_fail_and_the_others_are_written() {
    let mut bench = Bench::confirmed();
    let deliveries = bench.batch(5);
    let sent = bench.take();
    let named = vec![(3, "three".into()), (1, "one".into()), (99, "none".into())];
    let bad = Landing::BadRecords {
        named,
        code: 87,
        message: "all".into(),
    };
    bench.land(sent, bad);
    let failed = |index: usize| match deliveries[index].poll_now() {
        Some(Err(ProduceError::Rejected { message, .. })) => message,
        other => panic!("{other:?}"),
    };
    assert_eq!((&*failed(1), &*failed(3)), ("one", "three"));
    let sent = bench.take();
    assert_eq!(sent.payload, Records(vec![10, 12, 14]));
    assert_eq!(sent.identity.epoch, 1);
    bench.land(sent, appended(50));
    assert_eq!(bench.results(), [Ok(50)]);
    let offsets: Vec<_> = [0, 2, 4].map(|i| offset(&deliveries[i])).into();
    assert_eq!(offsets, [Some(Ok(50)), Some(Ok(51)), Some(Ok(52))]);
}

#[test]
fn unnamed_bad_records_are_found_by_halving() {
    let mut bench = Bench::confirmed();
    let deliveries = bench.batch(8);
    let mut offset_next = 10;
    while let Some(sent) = bench.try_take(ONE) {
        if sent.payload.0.contains(&15) {
            let landing = Landing::BadRecords {
                named: vec![],
                code: 87,
                message: "null key".into(),
            };
            bench.land(sent, landing);
        } else {
            let count = i64::from(sent.payload.count());
            bench.land(sent, appended(offset_next));
            offset_next += count;
        }
        bench.results();
    }
    for (i, delivery) in deliveries.iter().enumerate() {
        assert_eq!(delivery.poll_now().unwrap().is_err(), i == 5, "{i}");
    }
    assert_eq!(offset_next, 17);
}

#[test]
fn a_damaged_batch_is_sent_again_before_its_records_are_suspected() {
    let mut bench = Bench::confirmed();
    bench.batch(1);
    let corrupt = || Landing::Corrupt {
        code: 2,
        message: "crc".into(),
    };
    let sent = bench.take();
    bench.land(sent, corrupt());
    bench.now += Duration::from_secs(1);
    let sent = bench.take();
    assert_eq!(sent.sequence, 10);
    bench.land(sent, corrupt());
    assert!(matches!(
        &bench.results()[..],
        [Err(ProduceError::Rejected { code: 2, .. })]
    ));
}

#[test]
fn a_broker_that_keeps_failing_without_reason_leaves_the_outcome_unknown() {
    let mut bench = Bench::confirmed();
    bench.batch(1);
    for _ in 0..4 {
        let sent = bench.take();
        let message = "?".into();
        bench.land(sent, Landing::Unclear { message });
        bench.now += Duration::from_secs(2);
    }
    assert!(matches!(&bench.results()[..], [Err(e)] if e.outcome_unknown()));
}

#[test]
fn a_recreated_topic_starts_over() {
    for (landing, by_id) in [(SURE, false), (SURE, true), (UNSURE, true)] {
        let mut bench = Bench::confirmed();
        bench.by_id = by_id;
        bench.batch(10);
        let sent = bench.take();
        bench.queue.recreated(&mut bench.settled);
        bench.land(sent, landing);
        bench.now += Duration::from_secs(1);
        assert_eq!(places(&bench.take_all()), [(1, 0)]);
        assert_eq!(bench.results(), []);
    }
}

#[test]
fn what_was_sent_by_name_to_a_recreated_topic_is_unknown_and_not_sent_again() {
    // Learnt before the answer is missed, or afterwards.
    for before in [true, false] {
        let mut bench = Bench::confirmed();
        bench.batch(10);
        let sent = bench.take();
        bench.batch(10);
        if before {
            bench.queue.recreated(&mut bench.settled);
            bench.land(sent, UNSURE);
        } else {
            bench.land(sent, UNSURE);
            bench.queue.recreated(&mut bench.settled);
        }
        let results = bench.results();
        assert!(matches!(&results[..], [Err(e)] if e.outcome_unknown()));
        bench.now += Duration::from_secs(1);
        let next = bench.take();
        assert_eq!(next.payload.0[0], 20);
        assert_eq!(places(&[next]), [(1, 0)]);
    }
}

#[test]
fn what_was_sent_by_id_is_not_in_a_topic_made_again() {
    let mut bench = Bench::confirmed();
    bench.by_id = true;
    bench.batch(10);
    let sent = bench.take();
    bench.land(sent, UNSURE);
    bench.queue.recreated(&mut bench.settled);
    assert_eq!(bench.results(), []);
    bench.now += Duration::from_secs(1);
    let again = bench.take();
    assert_eq!(again.payload.0[0], 10);
    bench.land(again, appended(0));
    assert_eq!(bench.results(), [Ok(0)]);
}

#[test]
fn an_attempt_by_name_at_the_new_topic_is_repeated_as_ever() {
    let mut bench = Bench::confirmed();
    bench.batch(10);
    let sent = bench.take();
    bench.queue.recreated(&mut bench.settled);
    bench.land(sent, SURE);
    bench.now += Duration::from_secs(1);
    let sent = bench.take();
    bench.land(sent, UNSURE);
    bench.now += Duration::from_secs(1);
    assert_eq!(places(&bench.take_all()), [(1, 0)]);
    assert_eq!(bench.results(), []);
}

#[test]
fn a_deleted_topic_fails_what_waits_and_what_was_sent_stays_unknown() {
    let mut bench = Bench::confirmed();
    bench.batch(10);
    bench.batch(10);
    let sent = bench.take();
    bench.land(sent, UNSURE);
    let gone = ProduceError::UnknownTopic { topic: "t".into() };
    bench.queue.fail(&gone, &mut bench.settled);
    let results = bench.results();
    assert!(matches!(&results[0], Err(e) if e.outcome_unknown()));
    assert_eq!(results[1..], [Err(gone)]);
}

#[test]
fn stopping_tells_sent_from_unsent() {
    let mut bench = Bench::confirmed();
    let sent = bench.batch(1);
    let _out = bench.take();
    let unsent = bench.batch(1);
    bench.queue.stop(&mut bench.settled);
    bench.results();
    assert!(matches!(sent[0].poll_now(), Some(Err(e)) if e.outcome_unknown()));
    assert_eq!(unsent[0].poll_now(), Some(Err(ProduceError::Stopped)));
    assert!(bench.queue.is_empty());
}

#[test]
fn time_alone_never_spins() {
    // Whatever happened, the next wake-up lies in the future or something is ready.
    let mut bench = Bench::confirmed();
    bench.batch(1);
    let sent = bench.take();
    bench.land(sent, UNSURE);
    for _ in 0..1000 {
        let Some(at) = bench.queue.wake_at(bench.now) else {
            return;
        };
        assert!(at > bench.now);
        bench.now = at;
        bench.queue.expire(bench.now, &mut bench.settled);
    }
    panic!("still waking up");
}

/// A partition's log with Kafka's check of producer epochs and sequences.
#[derive(Default)]
struct Log {
    records: Vec<u32>,
    producer: Option<(Identity, i32)>,
    recent: VecDeque<(i32, u32, i64)>,
}

impl Log {
    fn append(&mut self, sent: &Sent<Records>) -> Landing {
        let count = sent.payload.count();
        if let Some((known, next)) = self.producer
            && known.id == sent.identity.id
        {
            if sent.identity.epoch < known.epoch {
                return Landing::Fenced;
            }
            if sent.identity.epoch == known.epoch {
                let same = |&&(s, c, _): &&(i32, u32, i64)| s == sent.sequence && c == count;
                if let Some(&(_, _, offset)) = self.recent.iter().find(same) {
                    return appended(offset);
                }
                if sent.sequence != next {
                    return Landing::Absent;
                }
            } else if sent.sequence != 0 {
                return Landing::Absent;
            } else {
                self.recent.clear();
            }
        }
        let offset = self.records.len() as i64;
        self.records.extend(&sent.payload.0);
        self.producer = Some((sent.identity, advance(sent.sequence, count)));
        self.recent.push_back((sent.sequence, count, offset));
        if self.recent.len() > 5 {
            self.recent.pop_front();
        }
        appended(offset)
    }
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

#[test]
fn whatever_fails_acknowledged_records_are_there_once_and_in_order() {
    let mut seen = [0u32; 3];
    for seed in 1..=3000 {
        for (total, one) in seen.iter_mut().zip(storm(seed)) {
            *total += one;
        }
    }
    let [acknowledged, refused, unknown] = seen;
    println!("{acknowledged} acknowledged, {refused} refused, {unknown} unknown");
    assert!(acknowledged > 50_000 && refused > 5_000 && unknown > 1_000);
}

/// One partition, one connection at a time, and a broker in a bad mood.
fn storm(seed: u64) -> [u32; 3] {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    // Every other broker does what it is asked, but often cannot say so.
    let tongue_tied = seed.is_multiple_of(2);
    let moods = 10 + seed % 50;
    let mut bench = Bench::new();
    // Some topics are deleted and created again, which the producer learns later. Requests
    // by name reach whichever is there; by id, only the one that they were meant for.
    let recreated = seed.is_multiple_of(7);
    bench.by_id = seed.is_multiple_of(14);
    let mut log = Log::default();
    let mut deleted: Vec<Log> = Vec::new();
    let mut learnt = 0;
    let mut deliveries = Vec::new();
    // Requests on their way to the broker, and answers on their way back.
    let mut requests: VecDeque<(usize, Sent<Records>)> = VecDeque::new();
    let mut answers: VecDeque<(Sent<Records>, Landing)> = VecDeque::new();
    let mut leader = ONE;
    let mut epoch = 1;

    let mut steps = 0;
    loop {
        let calm = steps > 300;
        steps += 1;
        assert!(steps < 5_000, "does not come to rest, seed {seed}");
        if calm && bench.queue.is_empty() {
            break;
        }
        match dice.roll(if calm { 60 } else { 100 }) {
            0..20 if !calm => deliveries.extend(bench.batch(1 + dice.roll(6) as u32)),
            0..35 => {
                if let Some(sent) = bench.try_take(leader) {
                    requests.push_back((learnt, sent));
                }
            }
            35..50 => {
                if let Some((topic, sent)) = requests.pop_front() {
                    if bench.by_id && topic != deleted.len() {
                        answers.push_back((sent, SURE)); // UNKNOWN_TOPIC_ID
                        continue;
                    }
                    let mood = if calm { 99 } else { dice.roll(moods) };
                    let landing = match mood {
                        0..5 if tongue_tied => match log.append(&sent) {
                            Landing::Appended(_) => UNSURE,
                            refused => refused,
                        },
                        _ if tongue_tied => log.append(&sent),
                        0 => SURE,
                        1 => Landing::Refused(rejected()),
                        2 => Landing::Absent,
                        // The fault comes after the append, or before it.
                        3 | 4 => {
                            log.append(&sent);
                            UNSURE
                        }
                        5 => UNSURE,
                        6 => Landing::Unclear {
                            message: "?".into(),
                        },
                        7 => Landing::Corrupt {
                            code: 2,
                            message: "crc".into(),
                        },
                        _ if sent.payload.count() > 4 => Landing::TooLarge,
                        _ => match sent.payload.0.iter().position(|r| r % 13 == 5) {
                            Some(bad) => Landing::BadRecords {
                                named: match dice.roll(2) {
                                    0 => vec![(bad as u32, "bad".into())],
                                    _ => vec![],
                                },
                                code: 87,
                                message: "bad".into(),
                            },
                            None => log.append(&sent),
                        },
                    };
                    // A refused sequence must not be reported as such if it is in the log.
                    let landing = match landing {
                        Landing::Absent => log.append(&sent),
                        other => other,
                    };
                    answers.push_back((sent, landing));
                }
            }
            50..58 => {
                if let Some((sent, landing)) = answers.pop_front() {
                    bench.land(sent, landing);
                }
            }
            58..60 => bench.pass(Duration::from_millis(dice.roll(1500))),
            60..75 => {}
            // The connection breaks: some requests arrive, no more answers do.
            75..80 => {
                let arrived = dice.roll(requests.len() as u64 + 1) as usize;
                for (topic, sent) in requests.iter().take(arrived) {
                    if bench.by_id && *topic != deleted.len() {
                        continue;
                    }
                    if sent.payload.count() <= 4 && sent.payload.0.iter().all(|r| r % 13 != 5) {
                        log.append(sent);
                    }
                }
                for (sent, _) in answers.drain(..) {
                    bench.land(sent, UNSURE);
                }
                for (_, sent) in requests.drain(..) {
                    bench.land(sent, UNSURE);
                }
            }
            80..82 => {
                leader = if leader == ONE { TWO } else { ONE };
                epoch += 1;
                bench.lead(leader, epoch);
            }
            82..84 => bench.pass(Duration::from_secs(dice.roll(80))),
            84 if recreated => deleted.push(std::mem::take(&mut log)),
            _ => {}
        }
        if learnt < deleted.len() && (calm || dice.roll(20) == 0) {
            learnt = deleted.len();
            bench.queue.recreated(&mut bench.settled);
        }
        bench.results();
        if bench.queue.lacks_identity(bench.fresh) {
            let id = bench.fresh.map_or(1, |fresh| fresh.id + 1);
            bench.fresh = Some(Identity { id, epoch: 0 });
        }
    }

    for log in deleted.iter().chain([&log]) {
        let mut records = log.records.clone();
        // A new log takes any first sequence: where topics are named, it may be that of a
        // request that was not the first one on its way.
        if recreated && !bench.by_id {
            records.sort_unstable();
        }
        assert!(
            records.is_sorted_by(|a, b| a < b),
            "twice or out of order, seed {seed}: {:?}",
            log.records
        );
    }
    let mut counts = [0; 3];
    for (record, delivery) in (0u32..).zip(&deliveries) {
        let is_there = log.records.contains(&record);
        let was_at = |offset: i64| {
            let at = |log: &Log| log.records.get(offset as usize) == Some(&record);
            at(&log) || deleted.iter().any(at)
        };
        match delivery.poll_now() {
            None => panic!("record {record} was never decided, seed {seed}"),
            Some(Ok(ack)) => {
                counts[0] += 1;
                assert!(was_at(ack.offset), "record {record}, seed {seed}");
            }
            Some(Err(error)) if error.outcome_unknown() => counts[2] += 1,
            Some(Err(error)) => {
                counts[1] += 1;
                assert!(!is_there, "record {record}: {error}, seed {seed}");
            }
        }
    }
    counts
}
