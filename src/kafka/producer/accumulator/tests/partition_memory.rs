//! Who may hold how much of `buffer.memory`.

use futures_util::FutureExt;

use super::*;

/// What a record of these tests takes.
const RECORD: usize = 1_000;

impl TestAccumulator {
    /// Bytes that are held by all partitions.
    fn held(&self) -> usize {
        let slots = self.accumulator.slots.iter();
        slots.map(|slot| slot.queue.memory()).sum()
    }

    fn append(
        &mut self,
        partition: Option<i32>,
        turn: Option<&PartitionMemoryTurn>,
        since: Option<Instant>,
    ) -> Result<(), Arc<PartitionMemoryWaiters>> {
        let record = NewRecord {
            key: None,
            value: Some(&[0; RECORD / 2]),
            headers: &[],
            timestamp: 0,
        };
        let memory = RecordMemory {
            taken: RECORD,
            free: BUFFER_MEMORY - self.held() - RECORD,
            turn,
            since,
        };
        let handle = self.handle();
        let (now, effects) = (self.now, &mut self.effects);
        let appended =
            self.accumulator
                .append(&handle, partition, &record, memory, || now, effects);
        match appended {
            Ok(delivery) => self.deliveries.push(delivery),
            Err(RecordAppendError::PartitionMemoryExhausted(waiters)) => return Err(waiters),
            Err(RecordAppendError::Refused(error)) => panic!("{error}"),
        }
        Ok(())
    }

    /// Appends to the partition while its share allows it.
    fn fill(&mut self, partition: i32) -> Arc<PartitionMemoryWaiters> {
        loop {
            if let Err(waiters) = self.append(Some(partition), None, None) {
                return waiters;
            }
        }
    }

    /// One request to the broker, which appends everything; resolves the futures.
    fn deliver(&mut self, broker: BrokerId) {
        self.append_to_log(broker);
        for finished in std::mem::take(&mut self.effects.finished) {
            finished.promise.unwrap().complete(finished.result);
        }
    }

    /// Carries out what is to be done for those that wait; for how many partitions they do.
    fn notify(&mut self) -> usize {
        let to_wake = std::mem::take(&mut self.effects.memory_waiters_to_wake);
        to_wake.iter().for_each(|waiters| waiters.notify_freed());
        to_wake.len()
    }
}

#[test]
fn a_partition_that_does_not_drain_leaves_four_fifths_to_the_others() {
    let mut test = TestAccumulator::new(&[(1, 1), (2, 1)]);
    test.fill(0);
    let held = test.held();
    assert!(
        held <= BUFFER_MEMORY / 5 && held > BUFFER_MEMORY / 6,
        "{held}"
    );
    for _ in 0..100 {
        test.append(Some(1), None, None).unwrap();
    }
}

#[test]
fn stalled_partitions_hold_half_of_the_memory_together() {
    let partitions = [(-1, 1); 40];
    let mut test = TestAccumulator::new(&partitions);
    for partition in 0..40 {
        test.fill(partition);
    }
    let held = test.held();
    // Each may hold one record beyond that, so that it is found out when it has a leader.
    assert!(held <= BUFFER_MEMORY / 2 + 40 * RECORD, "{held}");
    // Of what was held before they stalled the same is true, and it counts no more once they
    // can be written to.
    test.learn(vec![topic_metadata("t", 5, &[(1, 2); 40])]);
    assert_eq!(test.accumulator.stalled_memory, 0);
    test.learn(vec![topic_metadata("t", 5, &[(-1, 3); 40])]);
    assert_eq!(test.accumulator.stalled_memory, held);
}

#[test]
fn a_partition_that_is_left_empty_takes_a_record_whatever_others_hold() {
    let mut test = TestAccumulator::new(&[(-1, 1); 8]);
    for partition in 0..7 {
        test.fill(partition);
    }
    test.append(Some(7), None, None).unwrap();
    test.fill(7);
}

/// The turn of the caller that waits there, if it has come.
fn turn(waiting: impl Future<Output = PartitionMemoryTurn>) -> Option<PartitionMemoryTurn> {
    waiting.now_or_never()
}

#[test]
fn callers_that_wait_for_a_share_are_queued_and_none_is_passed_over() {
    let mut test = TestAccumulator::new(&[(1, 1), (1, 1)]);
    let waiters = test.fill(0);
    let first = turn(Arc::clone(&waiters).wait(None)).unwrap();
    let mut second = std::pin::pin!(Arc::clone(&waiters).wait(None));
    assert!(second.as_mut().now_or_never().is_none());
    assert!(test.append(Some(0), Some(&first), None).is_err());
    let mut again = std::pin::pin!(Arc::clone(&waiters).wait(Some(first)));
    assert!(again.as_mut().now_or_never().is_none());
    // There is room again, but what the first one needs is left for it.
    test.deliver(A);
    let held = test.held();
    assert!(test.notify() > 0);
    let first = again.as_mut().now_or_never().unwrap();
    while test.append(Some(0), None, None).is_ok() {}
    assert!(test.held() > held);
    test.append(Some(0), Some(&first), None).unwrap();
    assert!(test.append(Some(0), None, None).is_err());
    drop(first);
    let second = second.as_mut().now_or_never().unwrap();
    test.append(Some(1), None, None).unwrap();
    drop((second, waiters));
    // Nobody waits any more.
    test.deliver(A);
    test.effects.memory_waiters_to_wake.clear();
    test.deliver(A);
    assert_eq!(test.notify(), 0);
}

#[test]
fn a_caller_that_goes_away_gives_its_turn_to_the_next() {
    let mut test = TestAccumulator::new(&[(1, 1)]);
    let waiters = test.fill(0);
    let first = turn(Arc::clone(&waiters).wait(None)).unwrap();
    assert!(test.append(Some(0), Some(&first), None).is_err());
    let mut second = Box::pin(Arc::clone(&waiters).wait(None));
    let mut third = Box::pin(Arc::clone(&waiters).wait(None));
    assert!(second.as_mut().now_or_never().is_none());
    assert!(third.as_mut().now_or_never().is_none());
    drop(second);
    // The first one waits for what is freed when it goes away.
    drop(Arc::clone(&waiters).wait(Some(first)));
    assert!(third.as_mut().now_or_never().is_some());
}

#[test]
fn whatever_empties_a_partition_notifies_those_that_wait_for_its_share() {
    let gone = ProduceError::UnknownTopic { topic: "t".into() };
    for end in 0..3 {
        let mut test = TestAccumulator::new(&[(-1, 1)]);
        let _waiting = test.fill(0);
        test.notify();
        let (accumulator, effects) = (&mut test.accumulator, &mut test.effects);
        match end {
            0 => accumulator.fail_topic("t", &gone, test.now, effects),
            1 => accumulator.stop(effects),
            _ => {
                let late = test.now + DELIVERY_TIMEOUT * 2;
                accumulator.tick(late, effects);
            }
        }
        assert!(test.notify() > 0, "{end}");
        assert_eq!(test.held(), 0, "{end}");
    }
}

#[test]
fn records_without_key_go_elsewhere_when_a_share_is_used_up() {
    let mut test = TestAccumulator::new(&[(1, 1), (1, 1)]);
    for partition in [0, 1] {
        test.append(Some(partition), None, None).unwrap();
    }
    let _waiting = test.fill(0);
    for _ in 0..100 {
        test.append(None, None, None).unwrap();
    }
}

#[test]
fn a_share_that_is_used_up_ends_the_linger() {
    let mut test = TestAccumulator::with_linger(DELIVERY_TIMEOUT / 2, &[(1, 1)]);
    test.accumulator.limits.batch_size = BUFFER_MEMORY;
    let _waiting = test.fill(0);
    assert_eq!(test.drain_partitions(A), [0]);
}

#[test]
fn what_waited_for_its_share_expires_in_time() {
    let mut test = TestAccumulator::new(&[(-1, 1)]);
    let since = test.now;
    test.now += DELIVERY_TIMEOUT;
    test.append(Some(0), None, Some(since)).unwrap();
    test.accumulator.tick(test.now, &mut test.effects);
    let finished = test.effects.finished.pop().unwrap();
    assert!(matches!(
        finished.result,
        Err(ProduceError::TimedOut { .. })
    ));
}
