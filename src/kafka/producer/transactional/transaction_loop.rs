//! The task of a transactional producer: one transaction after another.
//!
//! ```text
//! next frames ─▶ admit ─▶ AddPartitionsToTxn ─▶ write ─▶ EndTxn(commit) ─▶ resolve ─┐
//!      ▲                                          │           │                     │
//!      │                                          ▼           ▼                     │
//!      ├──── InitProducerId ◀─ EndTxn(abort) ◀─ aborted    not committed            │
//!      └────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! # Invariants
//! - A commit that was asked for is asked for until its outcome is known: nothing follows before.
//! - Nothing is resolved as not written that may still be committed.
//! - Frames that wait expire meanwhile.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::super::error::ProduceError;
use super::super::partitioner::{StickyPartitioner, partition_for_key};
use super::super::topic_lookup::confirm_partition;
use super::abort_cause::AbortCause;
use super::config::TransactionalConfig;
use super::coordinator_calls::{
    AddedPartitions, CONCURRENT_BACKOFF, CoordinatorCalls, EndedTxn, not_authorized,
};
use super::error::TransactionError;
use super::frame::FrameRecord;
use super::frame_queue::{QueuedFrame, TransactionLimits};
use super::group_writer::GroupWriter;
use super::open_frames::{NextTransaction, OpenFrames, ProducerEnd};
use super::partition_writes::WriteBackoff;
use super::transaction_group::{TransactionGroup, fail_frame};
use super::transaction_manager::{InitializedProducer, TransactionManager, TransactionProtocol};
use crate::backoff::ExponentialBackoff;
use crate::cluster::Cluster;
use crate::config::ProducerConfig;
use crate::metadata::ClusterSnapshot;

/// Frames of one transaction at most: what is written twice if one of them is faulty.
const FRAMES_MAX: usize = 1_000;

/// One producer's transactions.
pub(super) struct TransactionLoop {
    frames: Arc<OpenFrames>,
    calls: CoordinatorCalls,
    writer: GroupWriter,
    manager: TransactionManager,
    transactional: TransactionalConfig,
    cluster: Cluster,
    delivery_timeout: Duration,
    record_size_max: usize,
    /// Less than the largest ones after a transaction that lasted too long.
    limits: TransactionLimits,
    limits_max: TransactionLimits,
    /// Between transactions that are aborted in a row.
    backoff: ExponentialBackoff,
    /// Changes the partition of records without key from transaction to transaction.
    count: u64,
}

/// Why a transaction is not committed.
enum Uncommitted {
    /// For that reason; there may be something to abort.
    Aborts(AbortCause),
    Fails(TransactionError),
}

impl TransactionLoop {
    pub(super) fn new(
        cluster: Cluster,
        frames: Arc<OpenFrames>,
        calls: CoordinatorCalls,
        config: &ProducerConfig,
        transactional: TransactionalConfig,
        initialized: InitializedProducer,
    ) -> Self {
        let (first, max) = {
            let client = cluster.config();
            (client.retry_backoff, client.retry_backoff_max)
        };
        let limits = TransactionLimits {
            frames: FRAMES_MAX,
            bytes: config.max_request_size,
        };
        let id = &transactional.transactional_id;
        let size_max = config.max_request_size;
        Self {
            frames,
            calls,
            writer: GroupWriter::new(cluster.clone(), id, config.compression, size_max),
            manager: TransactionManager::new(initialized),
            transactional,
            cluster,
            delivery_timeout: config.delivery_timeout,
            record_size_max: size_max,
            limits,
            limits_max: limits,
            backoff: ExponentialBackoff::new(first, max),
            count: 0,
        }
    }

    /// Runs until the producer is to end, or cannot go on, or the cluster is stopped.
    pub(super) async fn run(mut self) {
        let frames = Arc::clone(&self.frames);
        let transactional_id = Arc::clone(&self.transactional.transactional_id);
        // Should it panic.
        let mut end = EndOnDrop {
            frames: &frames,
            end: ProducerEnd::Failed(TransactionError::Stopped {
                transactional_id: Arc::clone(&transactional_id),
            }),
        };
        let stop = self.cluster.stop().clone();
        let Some(ended) = stop.run_until_cancelled(self.run_transactions()).await else {
            return;
        };
        end.end = match ended {
            Ok(()) => ProducerEnd::Closed,
            Err(error) => {
                let principal = self.cluster.principal();
                match error {
                    // Its client has come back.
                    TransactionError::Fenced { .. } => {
                        tracing::debug!(%principal, %error, "the transactional producer ends");
                    }
                    _ => tracing::warn!(%principal, %error, "the transactional producer ends"),
                }
                ProducerEnd::Failed(error)
            }
        };
    }

    async fn run_transactions(&mut self) -> Result<(), TransactionError> {
        loop {
            let frames = match self.frames.next(self.limits).await {
                NextTransaction::Frames(frames) => frames,
                NextTransaction::None => return Ok(()),
            };
            let frames = self.admit(frames).await;
            if frames.is_empty() {
                continue;
            }
            if !self.run_transaction(frames).await? {
                return Ok(());
            }
        }
    }

    /// Does one transaction; returns whether another one may follow.
    async fn run_transaction(
        &mut self,
        frames: Vec<QueuedFrame>,
    ) -> Result<bool, TransactionError> {
        let mut group = self.group(frames);
        let written = self.write(&mut group).await;
        let wait = match written {
            Ok(()) => {
                if self.commit(group).await? {
                    self.backoff.succeeded();
                    self.limits.frames = (2 * self.limits.frames).min(self.limits_max.frames);
                    return Ok(true);
                }
                self.backoff.after_failure()
            }
            Err(Uncommitted::Aborts(cause)) => {
                let is_own_fault = matches!(cause, AbortCause::Faults(_) | AbortCause::Closed);
                self.resolve_aborted(group, cause)?;
                match is_own_fault {
                    true => Duration::ZERO,
                    false => self.backoff.after_failure(),
                }
            }
            Err(Uncommitted::Fails(error)) => {
                group.failed(&error.of_record());
                return Err(error);
            }
        };
        let frames = Arc::clone(&self.frames);
        let give_up = self.give_up();
        let recovered = async {
            self.recover().await?;
            sleep(wait).await;
            Ok(true)
        };
        let recovered = async {
            tokio::select! {
                recovered = recovered => recovered,
                () = give_up => Ok(false),
            }
        };
        frames.expire_during(recovered).await
    }

    /// Fails the frames that cannot be written as they are, and returns the others.
    async fn admit(&self, frames: Vec<QueuedFrame>) -> Vec<QueuedFrame> {
        let mut admitted = Vec::with_capacity(frames.len());
        for queued in frames {
            let mut faults = Vec::new();
            for (index, record) in queued.frame.records().iter().enumerate() {
                let fault = tokio::select! {
                    fault = self.fault_of(record, queued.sent_at) => fault,
                    // The frame fails anyway.
                    () = self.frames.aborting() => None,
                };
                faults.extend(fault.map(|error| (index, error)));
            }
            match faults.is_empty() {
                true => admitted.push(queued),
                false => fail_frame(queued, &faults),
            }
        }
        admitted
    }

    /// Why a record cannot be written, as far as that is known before.
    async fn fault_of(&self, record: &FrameRecord, sent_at: Instant) -> Option<ProduceError> {
        if record.size > self.record_size_max {
            return Some(ProduceError::TooLarge {
                size: record.size,
                limit: Some(self.record_size_max),
            });
        }
        let count = partition_count(record, &self.cluster.metadata().snapshot());
        let partition = record.partition.unwrap_or(0);
        if (0..count).contains(&partition) {
            return None;
        }
        let deadline = sent_at + self.delivery_timeout;
        let patience = deadline.saturating_duration_since(Instant::now());
        let metadata = self.cluster.metadata();
        let confirmed = confirm_partition(metadata, &record.topic, partition, sent_at, patience);
        confirmed.await.err()
    }

    fn group(&mut self, frames: Vec<QueuedFrame>) -> TransactionGroup {
        self.count = self.count.wrapping_add(1);
        let seed = self.count;
        let snapshot = self.cluster.metadata().snapshot();
        let mut sticky: HashMap<Arc<str>, i32> = HashMap::new();
        let partition_of = |record: &FrameRecord, key: Option<&[u8]>| {
            let count = partition_count(record, &snapshot).max(1);
            match (record.partition, key) {
                (Some(partition), _) => partition,
                (None, Some(key)) => partition_for_key(key, count),
                (None, None) => {
                    let topic = snapshot.topic(&record.topic.name).unwrap_or(&record.topic);
                    let queue_size = |partition| topic.leader(partition).map(|_| 0);
                    let choose = || StickyPartitioner::new(seed).partition(count, queue_size);
                    let name = Arc::clone(&record.topic.name);
                    *sticky.entry(name).or_insert_with(choose)
                }
            }
        };
        let manager = &self.manager;
        let config = self.cluster.config();
        let (first, max) = (config.retry_backoff, config.retry_backoff_max);
        let backoff = WriteBackoff {
            failure: ExponentialBackoff::new(first, max),
            concurrent: ExponentialBackoff::new(CONCURRENT_BACKOFF.min(first), max),
        };
        TransactionGroup::new(frames, partition_of, |p| manager.sequence_of(p), &backoff)
    }

    /// Writes all records of the group, as long as the transaction may last.
    async fn write(&mut self, group: &mut TransactionGroup) -> Result<(), Uncommitted> {
        let now = Instant::now();
        let expires = group.oldest().map(|oldest| oldest + self.delivery_timeout);
        let too_old = now + self.transactional.transaction_timeout / 2;
        let frames = Arc::clone(&self.frames);
        let write = async {
            if self.manager.current().protocol == TransactionProtocol::V1 {
                self.add_partitions(group).await?;
            }
            let written = self.writer.write(group, &mut self.manager).await;
            written.map_err(Uncommitted::Aborts)
        };
        let write = async {
            tokio::select! {
                written = write => written,
                () = frames.aborting() => Err(Uncommitted::Aborts(AbortCause::Closed)),
                () = sleep_until(too_old) => Err(Uncommitted::Aborts(AbortCause::TooLong)),
                () = sleep_until(expires.unwrap_or(too_old)) => {
                    Err(Uncommitted::Aborts(AbortCause::again("frames have expired")))
                }
            }
        };
        frames.expire_during(write).await
    }

    async fn add_partitions(&mut self, group: &TransactionGroup) -> Result<(), Uncommitted> {
        let partitions: Vec<_> = group.partitions().cloned().collect();
        let producer = self.manager.current().producer_id;
        self.manager.request_sent();
        let mut maybe_open = false;
        let calls = &mut self.calls;
        let added = calls.add_partitions(producer, &partitions, &mut maybe_open);
        let added = added.await;
        if !maybe_open {
            self.manager.request_had_no_effect();
        }
        Err(match added {
            AddedPartitions::Added => return Ok(()),
            AddedPartitions::Faulty(topics) => {
                let causes = topics.iter();
                let causes = causes.map(|(topic, error)| group.topic_faults(topic, error));
                let cause = causes.reduce(AbortCause::and);
                Uncommitted::Aborts(cause.unwrap_or_else(|| AbortCause::again("no topic")))
            }
            AddedPartitions::Aborts(reason) => Uncommitted::Aborts(AbortCause::Again { reason }),
            AddedPartitions::Failed(error) => Uncommitted::Fails(error),
        })
    }

    /// Commits what was written. Returns whether it is; if not, it is to be aborted.
    async fn commit(&mut self, mut group: TransactionGroup) -> Result<bool, TransactionError> {
        group.set_committing();
        let mut sequences = Vec::new();
        sequences.extend(group.sequences().map(|(tp, next)| (tp.clone(), next)));
        let deadline = Instant::now() + self.delivery_timeout;
        let frames = Arc::clone(&self.frames);
        let give_up = self.give_up();
        let producer = self.manager.current();
        let mut group = Some(group);
        let outcome = async {
            let mut give_up = pin!(give_up);
            let mut end = pin!(self.calls.end(producer, true));
            loop {
                tokio::select! {
                    outcome = &mut end => return Some(outcome),
                    () = sleep_until(deadline), if group.is_some() => {
                        if let Some(group) = group.take() {
                            group.lost("no answer to the commit within the delivery timeout");
                        }
                    }
                    () = &mut give_up, if group.is_none() => return None,
                }
            }
        };
        let outcome = frames.expire_during(outcome).await;
        let transactional_id = Arc::clone(&self.transactional.transactional_id);
        let (error, maybe_done) = match outcome {
            Some(EndedTxn::Done(next)) => {
                let sequences = sequences.iter().map(|(partition, next)| (partition, *next));
                self.manager.committed(next, sequences);
                if let Some(group) = group {
                    group.committed();
                }
                return Ok(true);
            }
            Some(EndedTxn::Refused) => {
                if let Some(group) = group {
                    self.frames.requeue(group.aborted(&[]));
                }
                return Ok(false);
            }
            Some(EndedTxn::Fenced { maybe_done }) => {
                (TransactionError::Fenced { transactional_id }, maybe_done)
            }
            Some(EndedTxn::Failed { error, maybe_done }) => (error, maybe_done),
            None => (TransactionError::Stopped { transactional_id }, true),
        };
        match group {
            Some(group) if maybe_done => group.lost(&error.to_string()),
            Some(group) => group.failed(&error.of_record()),
            None => {}
        }
        Err(error)
    }

    /// Resolves the frames that are at fault, and puts the others back.
    fn resolve_aborted(
        &mut self,
        group: TransactionGroup,
        cause: AbortCause,
    ) -> Result<(), TransactionError> {
        let transactional_id = &self.transactional.transactional_id;
        tracing::debug!(%transactional_id, ?cause, "transaction aborted");
        match cause {
            AbortCause::Faults(faults) => self.frames.requeue(group.aborted(&faults)),
            AbortCause::Again { .. } | AbortCause::Closed => {
                self.frames.requeue(group.aborted(&[]));
            }
            AbortCause::TooLong => {
                self.limits.frames = (group.len() / 2).max(1);
                self.frames.requeue(group.aborted(&[]));
            }
            AbortCause::NotAuthorized => {
                let error = not_authorized(transactional_id);
                group.failed(&error.of_record());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Aborts the transaction that may be open, and makes ready for the next one.
    async fn recover(&mut self) -> Result<(), TransactionError> {
        if !self.manager.is_maybe_open() {
            return Ok(());
        }
        let current = self.manager.current();
        let transactional_id = Arc::clone(&self.transactional.transactional_id);
        let needs_init = match self.calls.end(current, false).await {
            EndedTxn::Done(next) => self.manager.aborted(next),
            EndedTxn::Refused => true,
            // By a newer producer; or by the coordinator, for the transaction's age. A newer
            // producer's epoch is not raised for this one.
            EndedTxn::Fenced { .. } if current.can_bump_epoch => true,
            EndedTxn::Fenced { .. } => {
                return Err(TransactionError::Fenced { transactional_id });
            }
            EndedTxn::Failed { error, .. } => return Err(error),
        };
        if needs_init {
            let own = current.can_bump_epoch.then_some(current.producer_id);
            let initialized = self.calls.init(own).await?;
            self.manager.initialized(initialized);
        }
        Ok(())
    }

    /// Completes when the producer is to end, and its coordinator has had its time: it ends by
    /// itself what is open.
    fn give_up(&self) -> impl Future<Output = ()> + use<> {
        let frames = Arc::clone(&self.frames);
        let transaction_timeout = self.transactional.transaction_timeout;
        let patience = transaction_timeout.max(self.delivery_timeout);
        async move {
            frames.closing().await;
            if timeout(patience, frames.aborting()).await.is_ok() {
                sleep(transaction_timeout).await;
            }
        }
    }
}

/// How many partitions the record's topic has, as far as is known.
fn partition_count(record: &FrameRecord, snapshot: &ClusterSnapshot) -> i32 {
    let topic = snapshot.topic(&record.topic.name).unwrap_or(&record.topic);
    i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX)
}

/// Says how the producer has ended, also if its task is dropped.
struct EndOnDrop<'a> {
    frames: &'a OpenFrames,
    end: ProducerEnd,
}

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        let closed = std::mem::replace(&mut self.end, ProducerEnd::Closed);
        self.frames.set_ended(closed);
    }
}
