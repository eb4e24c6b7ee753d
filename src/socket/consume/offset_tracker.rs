//! Which offsets a consuming socket commits, and when.
//!
//! ```text
//! autoCommit=true:   delivered ─▶ stored ─▶ committed once a second
//! autoCommit=false:  delivered ─▶ UncommittedRecords; the client's commit ─▶ stored ─▶ committed
//! ```

use tokio::time::{Duration, Instant};

use super::delivery_listener::DeliveryListener;
use super::encoded_frames::RecordFrame;
use super::uncommitted::UncommittedRecords;
use crate::codec::commit::{self, CommitRejection};
use crate::codec::socket_error::{EchoedId, SocketErrorCode};
use kafka_client::consumer::{Consumer, FetchPosition, TopicPartition};

/// How often stored offsets are committed.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// What of one socket's deliveries is to be committed.
#[derive(Debug)]
pub(super) struct OffsetTracker {
    /// With `autoCommit=false`.
    uncommitted: Option<UncommittedRecords>,
    /// When what is stored is to be committed.
    next_commit_at: Option<Instant>,
    records_delivered: u64,
}

impl OffsetTracker {
    /// `uncommitted` with `autoCommit=false`.
    pub(super) fn new(uncommitted: Option<UncommittedRecords>) -> Self {
        Self {
            uncommitted,
            next_commit_at: None,
            records_delivered: 0,
        }
    }

    /// Records that the kernel has taken whole.
    pub(super) fn records_delivered(&self) -> u64 {
        self.records_delivered
    }

    /// When to call [`commit_if_due`](Self::commit_if_due).
    pub(super) fn next_commit_at(&self) -> Option<Instant> {
        self.next_commit_at
    }

    /// Commits what is stored, if it is time to.
    pub(super) fn commit_if_due(&mut self, consumer: &mut Consumer, now: Instant) {
        if self.next_commit_at.is_some_and(|at| at <= now) {
            self.next_commit_at = None;
            consumer.request_commit();
        }
    }

    /// What the sink reports to.
    pub(super) fn listener<'a>(
        &'a mut self,
        consumer: &'a mut Consumer,
        now: Instant,
    ) -> DeliveredOffsets<'a> {
        DeliveredOffsets {
            tracker: self,
            consumer,
            now,
        }
    }

    /// Handles a client's text message, which is to be a commit.
    pub(super) fn handle_commit<'a>(
        &mut self,
        consumer: &mut Consumer,
        text: &'a [u8],
    ) -> Result<(), CommitRejection<'a>> {
        let rejection = match (&mut self.uncommitted, commit::parse(text)) {
            (None, Ok(commit::CommitMessage { echoed_id, .. })) => auto_commit_enabled(echoed_id),
            (None, Err(rejection)) if rejection.code == SocketErrorCode::UnknownMessageId => {
                auto_commit_enabled(rejection.echoed_id)
            }
            (_, Err(rejection)) => rejection,
            (Some(uncommitted), Ok(commit)) => {
                let id = &commit.id;
                let known = uncommitted.commit(&id.topic, id.partition, id.offset, id.timestamp);
                if let Some((tp, position)) = known {
                    consumer.store_offset(&tp, position);
                    consumer.request_commit();
                    return Ok(());
                }
                CommitRejection {
                    code: SocketErrorCode::UnknownMessageId,
                    message: "not delivered here, or committed already".into(),
                    echoed_id: commit.echoed_id,
                }
            }
        };
        Err(rejection)
    }

    /// These partitions are not assigned to the socket any more.
    pub(super) fn remove_partitions(&mut self, partitions: &[TopicPartition]) {
        if let Some(uncommitted) = &mut self.uncommitted {
            uncommitted.remove_partitions(partitions);
        }
    }
}

/// Notes what was delivered at `now`.
pub(super) struct DeliveredOffsets<'a> {
    tracker: &'a mut OffsetTracker,
    consumer: &'a mut Consumer,
    now: Instant,
}

impl DeliveredOffsets<'_> {
    fn store(&mut self, tp: &TopicPartition, next: FetchPosition) {
        self.consumer.store_offset(tp, next);
        let next_commit_at = &mut self.tracker.next_commit_at;
        next_commit_at.get_or_insert(self.now + COMMIT_INTERVAL);
    }
}

impl DeliveryListener for DeliveredOffsets<'_> {
    fn delivered(&mut self, tp: &TopicPartition, frames: &[RecordFrame]) {
        self.tracker.records_delivered += frames.len() as u64;
        match (&mut self.tracker.uncommitted, frames.last()) {
            (Some(uncommitted), _) => uncommitted.delivered(tp, frames),
            (None, Some(last)) => self.store(tp, last.next_position()),
            (None, None) => {}
        }
    }

    fn advance_to(&mut self, tp: &TopicPartition, end: FetchPosition) {
        if self.tracker.uncommitted.is_none() {
            self.store(tp, end);
        }
    }
}

fn auto_commit_enabled(echoed_id: EchoedId<'_>) -> CommitRejection<'_> {
    CommitRejection {
        code: SocketErrorCode::AutoCommitEnabled,
        message: "this socket commits by itself (autoCommit=true)".into(),
        echoed_id,
    }
}
