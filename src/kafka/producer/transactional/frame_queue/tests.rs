use super::super::frame_delivery::FrameDelivery;
use super::super::test_frames::{frame_of, topic};
use super::*;

const TIMEOUT: Duration = Duration::from_secs(10);

fn queued(value: &str, sent_at: Instant) -> (QueuedFrame, Vec<FrameDelivery>) {
    let frame = frame_of(&topic("t", 4), &[(Some(3), value)]);
    let promise = FramePromise::new(frame.len());
    let deliveries = promise.deliveries().collect();
    let frame = QueuedFrame {
        frame,
        promise,
        sent_at,
    };
    (frame, deliveries)
}

fn times(group: &[QueuedFrame]) -> Vec<Instant> {
    group.iter().map(|frame| frame.sent_at).collect()
}

#[test]
fn a_group_has_the_oldest_frames_up_to_a_limit_and_one_at_least() {
    let now = Instant::now();
    let mut queue = FrameQueue::new(TIMEOUT);
    let sent: Vec<_> = (0..5).map(|n| now + Duration::from_secs(n)).collect();
    for &at in &sent {
        queue.push(queued("value", at).0);
    }
    let size = queued("value", now).0.frame.size();
    let limits = |frames, bytes| TransactionLimits { frames, bytes };
    let first = queue.next_group(limits(2, usize::MAX));
    assert_eq!(times(&first), sent[..2]);
    let second = queue.next_group(limits(9, 1));
    assert_eq!(times(&second), sent[2..3]);
    // Before all others, in their order.
    queue.requeue(first.into_iter().chain(second));
    let most = queue.next_group(limits(9, 4 * size));
    assert_eq!(times(&most), sent[..4]);
}

#[test]
fn a_frame_that_waits_too_long_is_certainly_not_written() {
    let now = Instant::now();
    let mut queue = FrameQueue::new(TIMEOUT);
    let (old, old_deliveries) = queued("old", now);
    let (new, new_deliveries) = queued("new", now + Duration::from_secs(1));
    queue.push(old);
    queue.push(new);
    assert_eq!(queue.next_deadline(), Some(now + TIMEOUT));
    queue.expire(now + TIMEOUT);
    let partition = TopicPartition::new("t", 3);
    let timed_out = Some(Err(ProduceError::TimedOut { partition }));
    assert_eq!(old_deliveries[0].try_result(), timed_out);
    assert_eq!(new_deliveries[0].try_result(), None);
    queue.fail_all(&ProduceError::BufferExhausted);
    let failed = Some(Err(ProduceError::BufferExhausted));
    assert_eq!(new_deliveries[0].try_result(), failed);
}
