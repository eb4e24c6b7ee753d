//! The future of one record's delivery, and the result that the futures of a batch share.
//!
//! ```text
//! batch ──▶ ProduceResult ◀── DeliveryFuture(index 0)   One result per batch, shared by the
//!                ▲ ◀───────── DeliveryFuture(index 1)   futures of its records: a record
//!                │                                      costs an Arc clone.
//!         DeliveryPromise: which of the result's records a batch holds. A batch that is
//!                          split leaves two promises for parts of one result.
//! ```
//!
//! # Invariants
//! - A future resolves once; what it resolved to does not change.
//! - Every future resolves: a promise is completed, at the latest when it is dropped (as
//!   [`ProduceError::Stopped`], which the queue never lets happen to a batch that was
//!   sent).

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use super::error::ProduceError;
use super::result_wakers::{ResultWakers, WakerSlot};

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

/// One record's delivery. Dropping it does not take the record back.
#[derive(Debug)]
pub struct DeliveryFuture {
    result: Arc<ProduceResult>,
    /// Of the record in the batch that it was appended to.
    index: u32,
    timestamp: i64,
    waker: Option<WakerSlot>,
}

impl DeliveryFuture {
    #[inline]
    pub(super) fn new(result: Arc<ProduceResult>, index: u32, timestamp: i64) -> Self {
        Self {
            result,
            index,
            timestamp,
            waker: None,
        }
    }

    /// The result, if there is one already. Does not lock.
    #[inline]
    pub fn try_result(&self) -> Option<Result<RecordMetadata, ProduceError>> {
        let (result, position) = self.result.of_record(self.index)?;
        let appended = match result {
            Ok(appended) => appended,
            Err(error) => return Some(Err(error.clone())),
        };
        Some(Ok(RecordMetadata {
            partition: self.result.partition,
            offset: match appended.base_offset {
                unknown @ ..0 => unknown,
                base => base + i64::from(position),
            },
            timestamp: match appended.log_append_time {
                ..0 => self.timestamp,
                time => time,
            },
        }))
    }
}

impl Future for DeliveryFuture {
    type Output = Result<RecordMetadata, ProduceError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(result) = self.try_result() {
            return Poll::Ready(result);
        }
        let slot = self.result.wakers.register(self.waker, cx.waker());
        self.waker = Some(slot);
        // A result that came before the waker was registered has not woken it.
        match self.try_result() {
            Some(result) => Poll::Ready(result),
            None => Poll::Pending,
        }
    }
}

/// The result of a batch as it was appended to, which may have been split since.
#[derive(Debug)]
pub(super) struct ProduceResult {
    partition: i32,
    /// Set when all records share it.
    batch: ResultCell,
    /// One per record, once the batch was split; base offsets are the records' own.
    records: OnceLock<Box<[ResultCell]>>,
    wakers: ResultWakers,
}

type ResultCell = OnceLock<Result<LogAppendInfo, ProduceError>>;

/// Where and when the broker appended a batch (Java's class of this name).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogAppendInfo {
    /// Offset of the first record, -1 if unknown.
    pub(super) base_offset: i64,
    /// The broker's clock, -1 if the records keep their own time.
    pub(super) log_append_time: i64,
}

impl LogAppendInfo {
    pub(super) fn new(base_offset: i64, log_append_time: i64) -> Self {
        Self {
            base_offset,
            log_append_time,
        }
    }
}

impl ProduceResult {
    pub(super) fn new(partition: i32) -> Arc<Self> {
        Arc::new(Self {
            partition,
            batch: OnceLock::new(),
            records: OnceLock::new(),
            wakers: ResultWakers::default(),
        })
    }

    /// Waits until every record has its result.
    pub(super) async fn completed(&self) {
        let mut slot = None;
        std::future::poll_fn(|cx| {
            if self.is_complete() {
                return Poll::Ready(());
            }
            slot = Some(self.wakers.register(slot, cx.waker()));
            if self.is_complete() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    fn is_complete(&self) -> bool {
        self.batch.get().is_some()
            || self
                .records
                .get()
                .is_some_and(|records| records.iter().all(|one| one.get().is_some()))
    }

    /// The result that holds for a record, and the record's position counted from the base
    /// offset.
    #[inline]
    fn of_record(&self, index: u32) -> Option<(&Result<LogAppendInfo, ProduceError>, u32)> {
        match self.batch.get() {
            Some(result) => Some((result, index)),
            None => Some((self.records.get()?.get(index as usize)?.get()?, 0)),
        }
    }
}

/// The other end of the delivery futures of the records that a batch holds, in the
/// batch's order.
#[derive(Debug)]
pub(super) struct DeliveryPromise {
    result: Arc<ProduceResult>,
    records: PromisedRecords,
}

/// Which records of a [`ProduceResult`] a batch holds.
#[derive(Debug)]
enum PromisedRecords {
    /// The batch was never split.
    All,
    /// Those with these indexes.
    Of(Box<[u32]>),
}

impl DeliveryPromise {
    pub(super) fn new(result: Arc<ProduceResult>) -> Self {
        Self {
            result,
            records: PromisedRecords::All,
        }
    }

    pub(super) fn result(&self) -> &Arc<ProduceResult> {
        &self.result
    }

    /// Resolves all futures. Those that were resolved before keep their result.
    pub(super) fn complete(&self, result: Result<LogAppendInfo, ProduceError>) {
        match &self.records {
            PromisedRecords::All => {
                let _ = self.result.batch.set(result);
            }
            PromisedRecords::Of(indexes) => {
                let records = self.result.records.get().expect("set by the split");
                for (&index, position) in indexes.iter().zip(0i64..) {
                    let own = result.clone().map(|appended| LogAppendInfo {
                        base_offset: match appended.base_offset {
                            unknown @ ..0 => unknown,
                            base => base + position,
                        },
                        ..appended
                    });
                    let _ = records[index as usize].set(own);
                }
            }
        }
        self.result.wakers.wake_all();
    }

    /// Splits the promise of a batch of `count` records: those for which `first` holds, by
    /// their position in the batch, and the others.
    pub(super) fn split(mut self, count: u32, first: impl Fn(u32) -> bool) -> (Self, Self) {
        self.result
            .records
            .get_or_init(|| (0..count).map(|_| OnceLock::new()).collect());
        // What is left of this promise holds no records.
        let nothing = PromisedRecords::Of(Box::default());
        let indexes = match std::mem::replace(&mut self.records, nothing) {
            PromisedRecords::All => (0..count).collect(),
            PromisedRecords::Of(indexes) => indexes,
        };
        let pick = |wanted: bool| Self {
            result: self.result.clone(),
            records: PromisedRecords::Of(
                (0u32..)
                    .zip(indexes.iter())
                    .filter(|(position, _)| first(*position) == wanted)
                    .map(|(_, &index)| index)
                    .collect(),
            ),
        };
        (pick(true), pick(false))
    }
}

impl Drop for DeliveryPromise {
    fn drop(&mut self) {
        let is_open = match &self.records {
            PromisedRecords::All => self.result.batch.get().is_none(),
            PromisedRecords::Of(indexes) => self.result.records.get().is_some_and(|records| {
                indexes
                    .iter()
                    .any(|&index| records[index as usize].get().is_none())
            }),
        };
        if is_open {
            self.complete(Err(ProduceError::Stopped));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct WakeCounter(AtomicUsize);

    impl Wake for WakeCounter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn futures<const N: usize>(promise: &DeliveryPromise) -> [DeliveryFuture; N] {
        std::array::from_fn(|i| {
            DeliveryFuture::new(promise.result.clone(), i as u32, 1_000 + i as i64)
        })
    }

    fn appended(base_offset: i64, log_append_time: i64) -> Result<LogAppendInfo, ProduceError> {
        Ok(LogAppendInfo::new(base_offset, log_append_time))
    }

    fn delivered(offset: i64, timestamp: i64) -> Option<Result<RecordMetadata, ProduceError>> {
        Some(Ok(RecordMetadata {
            partition: 3,
            offset,
            timestamp,
        }))
    }

    #[test]
    fn records_of_a_batch_have_consecutive_offsets_and_their_own_time() {
        let promise = DeliveryPromise::new(ProduceResult::new(3));
        let futures = futures::<2>(&promise);
        assert_eq!(futures[0].try_result(), None);
        promise.complete(appended(70, -1));
        assert_eq!(futures[0].try_result(), delivered(70, 1_000));
        assert_eq!(futures[1].try_result(), delivered(71, 1_001));
    }

    #[test]
    fn log_append_time_wins_and_an_unknown_offset_stays_unknown() {
        let promise = DeliveryPromise::new(ProduceResult::new(3));
        let futures = futures::<2>(&promise);
        promise.complete(appended(-1, 5));
        assert_eq!(futures[1].try_result(), delivered(-1, 5));
    }

    #[test]
    fn parts_of_a_split_batch_resolve_on_their_own() {
        let promise = DeliveryPromise::new(ProduceResult::new(3));
        let futures = futures::<5>(&promise);
        let (bad, good) = promise.split(5, |i| i == 1 || i == 3);
        let (head, tail) = good.split(3, |i| i < 2);
        bad.complete(Err(ProduceError::Stopped));
        head.complete(appended(10, -1));
        assert_eq!(futures[0].try_result(), delivered(10, 1_000));
        assert_eq!(futures[1].try_result(), Some(Err(ProduceError::Stopped)));
        assert_eq!(futures[2].try_result(), delivered(11, 1_002));
        assert_eq!(futures[4].try_result(), None);
        assert!(!tail.result.is_complete());
        tail.complete(appended(30, 9));
        assert_eq!(futures[4].try_result(), delivered(30, 9));
        assert!(tail.result.is_complete());
    }

    #[test]
    fn the_first_result_of_a_future_stays() {
        let promise = DeliveryPromise::new(ProduceResult::new(3));
        let futures = futures::<1>(&promise);
        promise.complete(Err(ProduceError::Stopped));
        promise.complete(appended(1, -1));
        assert_eq!(futures[0].try_result(), Some(Err(ProduceError::Stopped)));
    }

    #[test]
    fn a_promise_that_is_dropped_resolves_its_futures() {
        let promise = DeliveryPromise::new(ProduceResult::new(3));
        let futures = futures::<1>(&promise);
        drop(promise);
        assert_eq!(futures[0].try_result(), Some(Err(ProduceError::Stopped)));
    }

    #[test]
    fn polling_again_leaves_one_waker_and_a_partial_result_loses_none() {
        let promise = DeliveryPromise::new(ProduceResult::new(3));
        let mut futures = futures::<2>(&promise);
        let counter = Arc::new(WakeCounter::default());
        let waker = Waker::from(counter.clone());
        let mut cx = Context::from_waker(&waker);
        for _ in 0..100 {
            for future in &mut futures {
                assert!(Pin::new(future).poll(&mut cx).is_pending());
            }
        }
        assert_eq!(promise.result.wakers.len(), 2);

        let (first, second) = promise.split(2, |i| i == 0);
        first.complete(appended(1, -1));
        assert_eq!(counter.0.load(Ordering::Relaxed), 2);
        assert!(Pin::new(&mut futures[0]).poll(&mut cx).is_ready());
        assert!(Pin::new(&mut futures[1]).poll(&mut cx).is_pending());
        second.complete(appended(1, -1));
        assert_eq!(counter.0.load(Ordering::Relaxed), 3);
        assert!(Pin::new(&mut futures[1]).poll(&mut cx).is_ready());
    }
}
