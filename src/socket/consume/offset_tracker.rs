//! Which offsets a consuming socket commits, and when.
//!
//! ```text
//! autoCommit=true:   delivered ─▶ stored ─▶ committed once a second
//! autoCommit=false:  delivered ─▶ UnackedRecords; the client's commit ─▶ stored ─▶ committed
//! ```

use tokio::time::{Duration, Instant};

use super::frame_cache::RecordFrame;
use super::unacked::UnackedRecords;
use crate::codec::ack::{EchoedId, SocketErrorCode};
use crate::codec::commit::{self, CommitRejection};
use kafka_client::TopicPartition;
use kafka_client::consumer::{Consumer, FetchPosition};

/// How often stored offsets are committed.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// What of one socket's deliveries is to be committed.
#[derive(Debug)]
pub(super) struct OffsetTracker {
    /// With `autoCommit=false`.
    unacked: Option<UnackedRecords>,
    /// When what is stored is to be committed.
    next_commit_at: Option<Instant>,
}

impl OffsetTracker {
    /// `unacked` with `autoCommit=false`.
    pub(super) fn new(unacked: Option<UnackedRecords>) -> Self {
        Self {
            unacked,
            next_commit_at: None,
        }
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

    /// These records of `tp` were sent, in order.
    pub(super) fn delivered(
        &mut self,
        consumer: &mut Consumer,
        tp: &TopicPartition,
        frames: &[RecordFrame],
        now: Instant,
    ) {
        match (&mut self.unacked, frames.last()) {
            (Some(unacked), _) => unacked.delivered(tp, frames),
            (None, Some(last)) => self.store(consumer, tp, last.next_position(), now),
            (None, None) => {}
        }
    }

    /// Everything of `tp` before `end` is delivered, or is not to be delivered.
    pub(super) fn advanced_to(
        &mut self,
        consumer: &mut Consumer,
        tp: &TopicPartition,
        end: FetchPosition,
        now: Instant,
    ) {
        if self.unacked.is_none() {
            self.store(consumer, tp, end, now);
        }
    }

    /// Handles a client's text frame, which is to be a commit.
    pub(super) fn handle_commit<'a>(
        &mut self,
        consumer: &mut Consumer,
        text: &'a [u8],
    ) -> Result<(), CommitRejection<'a>> {
        let rejection = match (&mut self.unacked, commit::parse(text)) {
            (None, Ok(commit::CommitFrame { echoed_id, .. })) => auto_commit_enabled(echoed_id),
            (None, Err(rejection)) if rejection.code == SocketErrorCode::UnknownMessageId => {
                auto_commit_enabled(rejection.echoed_id)
            }
            (_, Err(rejection)) => rejection,
            (Some(unacked), Ok(commit)) => {
                let id = &commit.id;
                let acked = unacked.ack(&id.topic, id.partition, id.offset, id.timestamp);
                if let Some((tp, position)) = acked {
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
        if let Some(unacked) = &mut self.unacked {
            unacked.remove_partitions(partitions);
        }
    }

    fn store(
        &mut self,
        consumer: &mut Consumer,
        tp: &TopicPartition,
        next: FetchPosition,
        now: Instant,
    ) {
        consumer.store_offset(tp, next);
        self.next_commit_at.get_or_insert(now + COMMIT_INTERVAL);
    }
}

fn auto_commit_enabled(echoed_id: EchoedId<'_>) -> CommitRejection<'_> {
    CommitRejection {
        code: SocketErrorCode::AutoCommitEnabled,
        message: "this socket commits by itself (autoCommit=true)".into(),
        echoed_id,
    }
}
