//! What a consuming socket tells its group of what was delivered.
//!
//! ```text
//! autoCommit=true:   delivered ─▶ stored ─▶ committed once a second
//! autoCommit=false:  delivered ─▶ Commits; the client's commit ─▶ stored ─▶ committed
//! ```

use tokio::time::{Duration, Instant};

use super::commits::Commits;
use super::encoded::Mark;
use crate::codec::ack::{EchoedId, SocketErrorCode};
use crate::codec::commit::{self, CommitRejection};
use kafka_client::TopicPartition;
use kafka_client::consumer::Consumer;
use kafka_client::consumer::FetchPosition;

/// How often stored offsets are committed.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    /// With `autoCommit=false`.
    commits: Option<Commits>,
    /// When what is stored is to be committed.
    commit_at: Option<Instant>,
}

impl Ledger {
    /// `commits` with `autoCommit=false`.
    pub(super) fn new(commits: Option<Commits>) -> Self {
        Self {
            commits,
            commit_at: None,
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.commit_at
    }

    /// Commits what is due.
    pub(super) fn tick(&mut self, consumer: &mut Consumer, now: Instant) {
        if self.commit_at.is_some_and(|at| at <= now) {
            self.commit_at = None;
            consumer.request_commit();
        }
    }

    /// The kernel has these records of `tp`, in order.
    pub(super) fn delivered(
        &mut self,
        consumer: &mut Consumer,
        tp: &TopicPartition,
        marks: &[Mark],
        now: Instant,
    ) {
        match (&mut self.commits, marks.last()) {
            (Some(commits), _) => commits.delivered(tp, marks, now),
            (None, Some(last)) => self.store(consumer, tp, last.next(), now),
            (None, None) => {}
        }
    }

    /// Everything of `tp` before `end` is delivered, or is not to be.
    pub(super) fn passed(
        &mut self,
        consumer: &mut Consumer,
        tp: &TopicPartition,
        end: FetchPosition,
        now: Instant,
    ) {
        if self.commits.is_none() {
            self.store(consumer, tp, end, now);
        }
    }

    /// A client's frame: `text` is to be a commit.
    pub(super) fn commit<'a>(
        &mut self,
        consumer: &mut Consumer,
        text: &'a [u8],
    ) -> Result<(), CommitRejection<'a>> {
        let refused = match (&mut self.commits, commit::parse(text)) {
            (None, Ok(commit::CommitFrame { echoed_id, .. })) => auto_commit(echoed_id),
            (None, Err(rejection)) if rejection.code == SocketErrorCode::UnknownMessageId => {
                auto_commit(rejection.echoed_id)
            }
            (_, Err(rejection)) => rejection,
            (Some(commits), Ok(commit)) => {
                let id = &commit.id;
                let known = commits.commit(&id.topic, id.partition, id.offset, id.timestamp);
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
        Err(refused)
    }

    /// These are not ours any more.
    pub(super) fn forget(&mut self, partitions: &[TopicPartition]) {
        if let Some(commits) = &mut self.commits {
            commits.forget(partitions);
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
        self.commit_at.get_or_insert(now + COMMIT_INTERVAL);
    }
}

fn auto_commit(echoed_id: EchoedId<'_>) -> CommitRejection<'_> {
    CommitRejection {
        code: SocketErrorCode::AutoCommitEnabled,
        message: "this socket commits by itself (autoCommit=true)".into(),
        echoed_id,
    }
}
