//! What became of a record.
//!
//! ```text
//! batch ──▶ ProduceResult ◀── DeliveryFuture(index 0)   One result per batch, shared by the
//!                ▲ ◀───────── DeliveryFuture(index 1)   futures of its records: a record
//!                │                                      costs an Arc clone.
//!              Owner: which of the result's records a batch holds. A batch that is split
//!                     leaves two owners of parts of one result.
//! ```
//!
//! # Invariants
//! - A future resolves once; what it resolved to does not change.
//! - Every future resolves: owners settle what they own, at the latest when dropped
//!   (as [`ProduceError::Stopped`], which the queue never lets happen to a batch that
//!   was sent).

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use super::error::ProduceError;

/// Where a record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordMetadata {
    /// The partition.
    pub partition: i32,
    /// The offset; -1 when the broker only remembers that it has the record.
    pub offset: i64,
    /// The record's timestamp, or the broker's if the topic takes that, in ms since 1970.
    pub timestamp: i64,
}

/// One record's outcome, as a future. Dropping it does not take the record back.
#[derive(Debug)]
pub struct DeliveryFuture {
    outcome: Arc<ProduceResult>,
    index: u32,
    timestamp: i64,
    place: Option<Place>,
}

impl DeliveryFuture {
    pub(super) fn new(outcome: Arc<ProduceResult>, index: u32, timestamp: i64) -> Self {
        Self {
            outcome,
            index,
            timestamp,
            place: None,
        }
    }

    /// The outcome, if there is one already. Does not lock.
    pub fn poll_now(&self) -> Option<Result<RecordMetadata, ProduceError>> {
        let placed = match self.outcome.of(self.index)? {
            Ok(placed) => placed,
            Err(error) => return Some(Err(error.clone())),
        };
        Some(Ok(RecordMetadata {
            partition: self.outcome.partition,
            offset: match placed.offset {
                unknown @ ..0 => unknown,
                first => first + i64::from(placed.place_of(self.index)),
            },
            timestamp: match placed.log_append_time {
                ..0 => self.timestamp,
                time => time,
            },
        }))
    }
}

impl Future for DeliveryFuture {
    type Output = Result<RecordMetadata, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(result) = self.poll_now() {
            return Poll::Ready(result);
        }
        let place = self.outcome.register(self.place, cx.waker());
        self.place = Some(place);
        // What settled before the waker was there did not wake it.
        match self.poll_now() {
            Some(result) => Poll::Ready(result),
            None => Poll::Pending,
        }
    }
}

/// What became of a batch's records.
#[derive(Debug)]
pub(super) struct ProduceResult {
    partition: i32,
    /// Set when all records share it.
    whole: Fate,
    /// Set, one by one, once the batch was divided.
    each: OnceLock<Box<[Fate]>>,
    waiting: Mutex<Waiting>,
}

type Fate = OnceLock<Result<Placed, ProduceError>>;

/// Where the broker put a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// Offset of the first record, -1 if unknown.
    pub(super) offset: i64,
    /// The broker's clock, -1 if the records keep their own time.
    pub(super) log_append_time: i64,
    /// A record's own place needs nothing added.
    single: bool,
}

impl Placed {
    pub(super) fn new(offset: i64, log_append_time: i64) -> Self {
        Self {
            offset,
            log_append_time,
            single: false,
        }
    }

    fn place_of(&self, index: u32) -> u32 {
        if self.single { 0 } else { index }
    }
}

#[derive(Debug, Default)]
struct Waiting {
    /// Counts how often `wakers` was emptied.
    round: u32,
    wakers: Vec<Waker>,
}

/// Where a future left its waker, so that polling again replaces it.
#[derive(Clone, Copy, Debug)]
struct Place {
    round: u32,
    at: u32,
}

impl ProduceResult {
    pub(super) fn new(partition: i32) -> Arc<Self> {
        Arc::new(Self {
            partition,
            whole: OnceLock::new(),
            each: OnceLock::new(),
            waiting: Mutex::default(),
        })
    }

    /// Waits until every record has its outcome.
    pub(super) async fn settled(&self) {
        let mut place = None;
        std::future::poll_fn(|cx| {
            if self.is_settled() {
                return Poll::Ready(());
            }
            place = Some(self.register(place, cx.waker()));
            if self.is_settled() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    fn is_settled(&self) -> bool {
        self.whole.get().is_some()
            || self
                .each
                .get()
                .is_some_and(|each| each.iter().all(|one| one.get().is_some()))
    }

    fn of(&self, index: u32) -> Option<&Result<Placed, ProduceError>> {
        match self.whole.get() {
            None => self.each.get()?.get(index as usize)?.get(),
            whole => whole,
        }
    }

    fn register(&self, place: Option<Place>, waker: &Waker) -> Place {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let round = waiting.round;
        match place {
            Some(place) if place.round == round => {
                waiting.wakers[place.at as usize].clone_from(waker);
                place
            }
            _ => {
                waiting.wakers.push(waker.clone());
                Place {
                    round,
                    at: waiting.wakers.len() as u32 - 1,
                }
            }
        }
    }

    fn wake(&self) {
        let wakers = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.round = waiting.round.wrapping_add(1);
            std::mem::take(&mut waiting.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// The records of an outcome that a batch holds, in the batch's order.
#[derive(Debug)]
pub(super) struct Owner {
    outcome: Arc<ProduceResult>,
    /// `None`: all of them.
    indexes: Option<Box<[u32]>>,
}

impl Owner {
    pub(super) fn new(outcome: Arc<ProduceResult>) -> Self {
        Self {
            outcome,
            indexes: None,
        }
    }

    pub(super) fn outcome(&self) -> &Arc<ProduceResult> {
        &self.outcome
    }

    /// Resolves all futures. Those that were told before keep what they were told.
    pub(super) fn settle(&self, result: Result<Placed, ProduceError>) {
        match &self.indexes {
            None => {
                let _ = self.outcome.whole.set(result);
            }
            Some(indexes) => {
                let each = self.outcome.each.get().expect("set when divided");
                for (&index, nth) in indexes.iter().zip(0i64..) {
                    let own = result.clone().map(|placed| Placed {
                        offset: match placed.offset {
                            unknown @ ..0 => unknown,
                            first => first + nth,
                        },
                        single: true,
                        ..placed
                    });
                    let _ = each[index as usize].set(own);
                }
            }
        }
        self.outcome.wake();
    }

    /// Divides a batch of `count` records: those for which `first` holds, by their
    /// position, and the others.
    pub(super) fn divide(mut self, count: u32, first: impl Fn(u32) -> bool) -> (Self, Self) {
        self.outcome
            .each
            .get_or_init(|| (0..count).map(|_| OnceLock::new()).collect());
        let all = self
            .indexes
            .take()
            .unwrap_or_else(|| (0..count).collect::<Box<[u32]>>());
        let pick = |wanted: bool| Self {
            outcome: self.outcome.clone(),
            indexes: Some(
                (0u32..)
                    .zip(all.iter())
                    .filter(|(position, _)| first(*position) == wanted)
                    .map(|(_, &index)| index)
                    .collect(),
            ),
        };
        let parts = (pick(true), pick(false));
        // What is left of this owner owns nothing.
        self.indexes = Some(Box::default());
        parts
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let open = match &self.indexes {
            None => self.outcome.whole.get().is_none(),
            Some(indexes) => self.outcome.each.get().is_some_and(|each| {
                indexes
                    .iter()
                    .any(|&index| each[index as usize].get().is_none())
            }),
        };
        if open {
            self.settle(Err(ProduceError::Stopped));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn deliveries<const N: usize>(owner: &Owner) -> [DeliveryFuture; N] {
        std::array::from_fn(|i| {
            DeliveryFuture::new(owner.outcome.clone(), i as u32, 1_000 + i as i64)
        })
    }

    fn ack(offset: i64, timestamp: i64) -> Option<Result<RecordMetadata, ProduceError>> {
        Some(Ok(RecordMetadata {
            partition: 3,
            offset,
            timestamp,
        }))
    }

    #[test]
    fn records_of_a_batch_have_consecutive_offsets_and_their_own_time() {
        let owner = Owner::new(ProduceResult::new(3));
        let deliveries = deliveries::<2>(&owner);
        assert_eq!(deliveries[0].poll_now(), None);
        owner.settle(Ok(Placed::new(70, -1)));
        assert_eq!(deliveries[0].poll_now(), ack(70, 1_000));
        assert_eq!(deliveries[1].poll_now(), ack(71, 1_001));
    }

    #[test]
    fn the_brokers_time_wins_and_an_unknown_offset_stays_unknown() {
        let owner = Owner::new(ProduceResult::new(3));
        let deliveries = deliveries::<2>(&owner);
        owner.settle(Ok(Placed::new(-1, 5)));
        assert_eq!(deliveries[1].poll_now(), ack(-1, 5));
    }

    #[test]
    fn parts_of_a_divided_batch_resolve_on_their_own() {
        let owner = Owner::new(ProduceResult::new(3));
        let deliveries = deliveries::<5>(&owner);
        let (bad, good) = owner.divide(5, |i| i == 1 || i == 3);
        let (head, tail) = good.divide(3, |i| i < 2);
        bad.settle(Err(ProduceError::Stopped));
        head.settle(Ok(Placed::new(10, -1)));
        assert_eq!(deliveries[0].poll_now(), ack(10, 1_000));
        assert_eq!(deliveries[1].poll_now(), Some(Err(ProduceError::Stopped)));
        assert_eq!(deliveries[2].poll_now(), ack(11, 1_002));
        assert_eq!(deliveries[4].poll_now(), None);
        assert!(!tail.outcome.is_settled());
        tail.settle(Ok(Placed::new(30, 9)));
        assert_eq!(deliveries[4].poll_now(), ack(30, 9));
        assert!(tail.outcome.is_settled());
    }

    #[test]
    fn what_a_ticket_was_told_first_stays() {
        let owner = Owner::new(ProduceResult::new(3));
        let deliveries = deliveries::<1>(&owner);
        owner.settle(Err(ProduceError::Stopped));
        owner.settle(Ok(Placed::new(1, -1)));
        assert_eq!(deliveries[0].poll_now(), Some(Err(ProduceError::Stopped)));
    }

    #[test]
    fn an_owner_that_vanishes_tells_its_tickets() {
        let owner = Owner::new(ProduceResult::new(3));
        let deliveries = deliveries::<1>(&owner);
        drop(owner);
        assert_eq!(deliveries[0].poll_now(), Some(Err(ProduceError::Stopped)));
    }

    #[test]
    fn polling_again_leaves_one_waker_and_a_partial_result_loses_none() {
        let owner = Owner::new(ProduceResult::new(3));
        let mut deliveries = deliveries::<2>(&owner);
        let counter = Arc::new(Counter::default());
        let waker = Waker::from(counter.clone());
        let mut cx = Context::from_waker(&waker);
        for _ in 0..100 {
            for delivery in &mut deliveries {
                assert!(Pin::new(delivery).poll(&mut cx).is_pending());
            }
        }
        assert_eq!(owner.outcome.waiting.lock().unwrap().wakers.len(), 2);

        let (first, second) = owner.divide(2, |i| i == 0);
        first.settle(Ok(Placed::new(1, -1)));
        assert_eq!(counter.0.load(Ordering::Relaxed), 2);
        assert!(Pin::new(&mut deliveries[0]).poll(&mut cx).is_ready());
        assert!(Pin::new(&mut deliveries[1]).poll(&mut cx).is_pending());
        second.settle(Ok(Placed::new(1, -1)));
        assert_eq!(counter.0.load(Ordering::Relaxed), 3);
        assert!(Pin::new(&mut deliveries[1]).poll(&mut cx).is_ready());
    }
}
