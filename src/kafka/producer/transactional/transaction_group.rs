//! The frames of the transaction under way, and where their records go.
//!
//! ```text
//! frames ─▶ by partition: PartitionWrites ─▶ batches ─▶ the log
//!   │                                           │
//!   └──── promises ◀── committed: offsets ◀─────┘
//!             ▲
//!             └─────── aborted: the faulty frames; the others go back to the queue
//! ```
//!
//! Pure, as [`PartitionWrites`] is.

use std::collections::HashMap;

use tokio::time::Instant;

use super::super::batch_records::BatchRecords;
use super::super::delivery::{LogAppendInfo, RecordMetadata};
use super::super::error::ProduceError;
use super::super::partition_queue::BatchResult;
use super::abort_cause::{AbortCause, RecordFault, RecordPlace};
use super::frame::FrameRecord;
use super::frame_queue::QueuedFrame;
use super::partition_writes::{PartitionWrites, WriteBackoff, WriteProgress};
use crate::record::RecordBatch;
use crate::topic::TopicPartition;

/// The frames of one transaction.
#[derive(Debug)]
pub(super) struct TransactionGroup {
    frames: Vec<QueuedFrame>,
    partitions: Vec<PartitionWrites>,
    /// By frame and record: where it is in the log.
    written: Vec<Vec<Option<RecordMetadata>>>,
}

impl TransactionGroup {
    /// `partition_of` is asked for every record's partition, given its key, and `sequence_of` for
    /// the first sequence of each partition.
    pub(super) fn new(
        frames: Vec<QueuedFrame>,
        mut partition_of: impl FnMut(&FrameRecord, Option<&[u8]>) -> i32,
        sequence_of: impl Fn(&TopicPartition) -> i32,
        backoff: &WriteBackoff,
    ) -> Self {
        let mut partitions: Vec<PartitionWrites> = Vec::new();
        let mut indexes: HashMap<TopicPartition, usize> = HashMap::new();
        for (frame, queued) in frames.iter().enumerate() {
            for (record, described) in queued.frame.records().iter().enumerate() {
                let partition = partition_of(described, queued.frame.key(record));
                let partition = TopicPartition::new(described.topic.name.clone(), partition);
                let index = *indexes.entry(partition.clone()).or_insert_with(|| {
                    let sequence = sequence_of(&partition);
                    let writes = PartitionWrites::new(partition, sequence, backoff.clone());
                    partitions.push(writes);
                    partitions.len() - 1
                });
                partitions[index].push(RecordPlace { frame, record });
            }
        }
        let written = frames
            .iter()
            .map(|queued| vec![None; queued.frame.len()])
            .collect();
        Self {
            frames,
            partitions,
            written,
        }
    }

    /// All partitions that it writes to.
    pub(super) fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.partitions.iter().map(PartitionWrites::partition)
    }

    /// The next sequence of each partition.
    pub(super) fn sequences(&self) -> impl Iterator<Item = (&TopicPartition, i32)> {
        let writes = self.partitions.iter();
        writes.map(|writes| (writes.partition(), writes.sequence()))
    }

    pub(super) fn partition(&self, index: usize) -> &TopicPartition {
        self.partitions[index].partition()
    }

    /// Of the next batch of that partition.
    pub(super) fn sequence(&self, index: usize) -> i32 {
        self.partitions[index].sequence()
    }

    /// When the first of its frames was sent.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.frames.iter().map(|queued| queued.sent_at).min()
    }

    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// All records are in the log.
    pub(super) fn is_written(&self) -> bool {
        self.partitions.iter().all(PartitionWrites::is_written)
    }

    /// The partitions from which a batch may be sent now.
    pub(super) fn due(&self, now: Instant) -> Vec<usize> {
        let is_due = |writes: &PartitionWrites| writes.due_at(now).is_some_and(|at| at <= now);
        let due = self.partitions.iter().enumerate();
        due.filter(|(_, writes)| is_due(writes))
            .map(|(index, _)| index)
            .collect()
    }

    /// When a batch may be sent that may not be now.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let waits = |writes: &PartitionWrites| writes.due_at(now).filter(|&at| at > now);
        self.partitions.iter().filter_map(waits).min()
    }

    /// The partition has no leader now.
    pub(super) fn wait_for_leader(&mut self, index: usize, now: Instant) {
        self.partitions[index].wait_for_leader(now);
    }

    /// The next batch of a partition that is due; in flight until [`complete`](Self::complete)
    /// takes it back.
    pub(super) fn take_batch(&mut self, index: usize, size_max: usize) -> BatchRecords {
        let frames = &self.frames;
        let size_of = |place: RecordPlace| frames[place.frame].frame.records()[place.record].size;
        self.partitions[index].take_batch(size_max, size_of, |builder, place| {
            frames[place.frame].frame.append_to(builder, place.record);
        })
    }

    /// Takes a batch back from a request; returns why the transaction cannot be committed, if so.
    pub(super) fn complete(
        &mut self,
        index: usize,
        batch: RecordBatch,
        result: BatchResult,
        now: Instant,
    ) -> Option<AbortCause> {
        match self.partitions[index].complete(batch, result, now) {
            WriteProgress::Appended { places, at } => {
                self.note_appended(index, &places, at);
                None
            }
            WriteProgress::Continues => None,
            WriteProgress::Aborts(cause) => Some(cause),
        }
    }

    /// Takes a batch back that was refused because the transaction before is being ended.
    pub(super) fn postpone(&mut self, index: usize, batch: RecordBatch, now: Instant) {
        self.partitions[index].postpone(batch, now);
    }

    fn note_appended(&mut self, index: usize, places: &[RecordPlace], at: LogAppendInfo) {
        let partition = self.partitions[index].partition().partition;
        for (place, position) in places.iter().zip(0i64..) {
            let timestamp = self.frames[place.frame].frame.timestamp(place.record);
            self.written[place.frame][place.record] = Some(RecordMetadata {
                partition,
                offset: match at.base_offset {
                    unknown @ ..0 => unknown,
                    base => base + position,
                },
                timestamp: match at.log_append_time {
                    ..0 => timestamp,
                    time => time,
                },
            });
        }
    }

    /// All records of a topic are faulty, for the same reason.
    pub(super) fn topic_faults(&self, topic: &str, error: &ProduceError) -> AbortCause {
        let of_topic = |writes: &&PartitionWrites| *writes.partition().topic == *topic;
        let writes = self.partitions.iter().filter(of_topic);
        let places = writes.flat_map(|writes| writes.records().iter().copied());
        let fault = |place| RecordFault {
            place,
            error: error.clone(),
        };
        AbortCause::Faults(places.map(fault).collect())
    }

    /// The commit is about to be asked for.
    pub(super) fn set_committing(&mut self) {
        let mut by_frame: Vec<Vec<Option<TopicPartition>>> = self
            .frames
            .iter()
            .map(|queued| vec![None; queued.frame.len()])
            .collect();
        for writes in &self.partitions {
            for place in writes.records() {
                by_frame[place.frame][place.record] = Some(writes.partition().clone());
            }
        }
        for (queued, partitions) in self.frames.iter_mut().zip(by_frame) {
            let partitions = partitions.into_iter().flatten().collect();
            queued.promise.set_committing(Some(partitions));
        }
    }

    /// Every frame is committed.
    pub(super) fn committed(self) {
        for (queued, written) in self.frames.into_iter().zip(self.written) {
            queued
                .promise
                .commit(written.into_iter().flatten().collect());
        }
    }

    /// Whether the frames are committed is not known.
    pub(super) fn lost(self, reason: &str) {
        for queued in self.frames {
            queued.promise.lose(reason);
        }
    }

    /// No frame is committed, and none will be.
    pub(super) fn failed(self, error: &ProduceError) {
        for queued in self.frames {
            queued.promise.fail(&[], error);
        }
    }

    /// No frame is committed: the faulty ones fail, the others are returned.
    pub(super) fn aborted(self, faults: &[RecordFault]) -> Vec<QueuedFrame> {
        let mut others = Vec::new();
        for (frame, mut queued) in self.frames.into_iter().enumerate() {
            let own: Vec<_> = faults
                .iter()
                .filter(|fault| fault.place.frame == frame)
                .map(|fault| (fault.place.record, fault.error.clone()))
                .collect();
            if own.is_empty() {
                queued.promise.set_committing(None);
                others.push(queued);
            } else {
                fail_frame(queued, &own);
            }
        }
        others
    }
}

/// Fails a frame for the sake of some of its records.
pub(super) fn fail_frame(queued: QueuedFrame, faults: &[(usize, ProduceError)]) {
    let reason = "another record of the frame could not be written".into();
    queued
        .promise
        .fail(faults, &ProduceError::Aborted { reason });
}

#[cfg(test)]
mod tests;
