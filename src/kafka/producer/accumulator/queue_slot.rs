//! A partition's queue, and how it stands in the ready lists and among the timers.

use std::sync::Arc;

use tokio::time::Instant;
use uuid::Uuid;

use super::super::batch_records::BatchRecords;
use super::super::partition_queue::{PartitionQueue, QueueConfig};
use super::partition_memory::PartitionMemoryWaiters;
use crate::backoff::ExponentialBackoff;
use crate::topic::BrokerId;

/// A queue among those of all partitions.
#[derive(Debug)]
pub(super) struct QueueSlot {
    pub(super) queue: PartitionQueue<BatchRecords>,
    pub(super) topic_id: Uuid,
    /// The broker in whose ready list the queue is.
    pub(super) listed_for: Option<BrokerId>,
    /// The one entry in that list which counts.
    pub(super) entry: u64,
    pub(super) timer: Option<Instant>,
    /// Nothing was appended for the availability timeout (KIP-794): records without key go to
    /// other partitions.
    pub(super) is_stalled: bool,
    /// What it counts for in the memory of all stalled partitions.
    pub(super) stalled_memory: usize,
    /// The callers that wait until the partition may hold more of `buffer.memory`.
    pub(super) memory_waiters: Option<Arc<PartitionMemoryWaiters>>,
    /// While the partition has no leader: when to request metadata again.
    pub(super) ask_leader_at: Option<Instant>,
    pub(super) ask_leader_backoff: ExponentialBackoff,
    /// Bytes that the next batch may need, judged by the last one.
    pub(super) expected_size: usize,
}

/// What the first batch of a queue may need, in bytes.
const FIRST_BATCH_SIZE: usize = 512;

impl QueueSlot {
    pub(super) fn new(
        queue: PartitionQueue<BatchRecords>,
        topic_id: Uuid,
        config: QueueConfig,
    ) -> Self {
        Self {
            queue,
            topic_id,
            listed_for: None,
            entry: 0,
            timer: None,
            is_stalled: false,
            stalled_memory: 0,
            memory_waiters: None,
            ask_leader_at: None,
            ask_leader_backoff: config.backoff(),
            expected_size: FIRST_BATCH_SIZE,
        }
    }

    /// Whether that entry of the broker's ready list counts. A partition's leader may change,
    /// and change back before the entry that was made for it the first time has had its
    /// turn: draining both would put a partition into one request twice.
    pub(super) fn is_listed(&self, broker: BrokerId, entry: u64) -> bool {
        self.listed_for == Some(broker) && self.entry == entry
    }

    /// How many batches are queued; `None` if the partition has no leader, or is stalled.
    pub(super) fn available_queue_size(&self) -> Option<usize> {
        let leader = self.queue.leader().filter(|_| !self.is_stalled);
        leader.map(|_| self.queue.queued())
    }

    /// Notes the size of a batch that is sent for the first time: the next one may need as
    /// much and an eighth more.
    pub(super) fn note_batch_size(&mut self, size: usize, batch_size_max: usize) {
        let expected = size + size / 8;
        let largest = batch_size_max.max(FIRST_BATCH_SIZE);
        self.expected_size = expected.clamp(FIRST_BATCH_SIZE, largest);
    }
}
