//! The futures of a frame's records, and the promise that they share.
//!
//! # Invariants
//! - All records of a frame have their results at one time; what they are does not change.
//! - Every future resolves: a promise that is dropped resolves them, as
//!   [`Stopped`](ProduceError::Stopped), or, once the commit was asked for, as
//!   [`UnknownOutcome`](ProduceError::UnknownOutcome).

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use super::super::delivery::RecordMetadata;
use super::super::error::ProduceError;
use super::super::result_wakers::{ResultWakers, WakerSlot};
use crate::topic::TopicPartition;

/// What became of one record of a frame: it is committed, or it is not. Dropping it does not take
/// the record back.
#[derive(Debug)]
pub struct FrameDelivery {
    result: Arc<FrameResult>,
    record: usize,
    waker: Option<WakerSlot>,
}

/// The results of a frame's records.
#[derive(Debug, Default)]
struct FrameResult {
    records: OnceLock<Box<[RecordResult]>>,
    wakers: ResultWakers,
}

type RecordResult = Result<RecordMetadata, ProduceError>;

/// The other end of the futures of one frame.
#[derive(Debug)]
pub(super) struct FramePromise {
    result: Arc<FrameResult>,
    count: usize,
    /// Where the records are, once the commit was asked for.
    committing: Option<Vec<TopicPartition>>,
}

impl FrameDelivery {
    /// The result, if there is one already. Does not lock.
    pub fn try_result(&self) -> Option<Result<RecordMetadata, ProduceError>> {
        Some(self.result.records.get()?[self.record].clone())
    }
}

impl Future for FrameDelivery {
    type Output = Result<RecordMetadata, ProduceError>;

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

impl FramePromise {
    /// Of a frame of so many records.
    pub(super) fn new(count: usize) -> Self {
        Self {
            result: Arc::default(),
            count,
            committing: None,
        }
    }

    /// The futures, in the order of the records.
    pub(super) fn deliveries(&self) -> impl Iterator<Item = FrameDelivery> + use<> {
        let result = Arc::clone(&self.result);
        (0..self.count).map(move |record| FrameDelivery {
            result: Arc::clone(&result),
            record,
            waker: None,
        })
    }

    /// The frame's commit is about to be asked for, or, with `None`, is known not to have happened.
    pub(super) fn set_committing(&mut self, partitions: Option<Vec<TopicPartition>>) {
        self.committing = partitions;
    }

    /// The frame is committed.
    pub(super) fn commit(self, records: Vec<RecordMetadata>) {
        self.resolve(records.into_iter().map(Ok).collect());
    }

    /// Nothing of the frame is committed: some records for reasons of their own, all others for
    /// that of the frame.
    pub(super) fn fail(self, faults: &[(usize, ProduceError)], of_frame: &ProduceError) {
        let fault_of = |record| faults.iter().find(|(faulty, _)| *faulty == record);
        let error_of = |record| fault_of(record).map_or(of_frame, |(_, error)| error);
        self.resolve((0..self.count).map(|r| Err(error_of(r).clone())).collect());
    }

    /// Whether the commit happened is not known.
    pub(super) fn lose(self, reason: &str) {
        let lost = self.lost(reason);
        self.resolve(lost);
    }

    fn lost(&self, reason: &str) -> Vec<RecordResult> {
        let partitions = self.committing.iter().flatten();
        let unknown = |partition: &TopicPartition| {
            Err(ProduceError::UnknownOutcome {
                partition: partition.clone(),
                reason: reason.into(),
            })
        };
        partitions.map(unknown).collect()
    }

    fn resolve(&self, records: Vec<RecordResult>) {
        if self.result.records.set(records.into()).is_ok() {
            self.result.wakers.wake_all();
        }
    }
}

impl Drop for FramePromise {
    fn drop(&mut self) {
        if self.result.records.get().is_some() {
            return;
        }
        self.resolve(match self.committing {
            Some(_) => self.lost("the producer was stopped before the answer to its commit"),
            None => vec![Err(ProduceError::Stopped); self.count],
        });
    }
}
