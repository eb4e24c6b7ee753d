//! The transactional producer: all records of a frame are written, or none (KIP-98, KIP-890).
//!
//! ```text
//! send(frame) ─▶ FrameQueue ─▶ TransactionGroup ─▶ GroupWriter ─▶ leaders     Produce
//!     │              ▲               │   │
//!     │              └── aborted ────┘   └─────▶ CoordinatorCalls ─▶ coordinator
//!     ▼                                          InitProducerId, AddPartitionsToTxn, EndTxn
//! FrameDelivery ◀─────── committed
//! ```
//!
//! One task per producer does one transaction after another: what was sent while one was under way
//! forms the next one.
//!
//! # Invariants
//! - Every delivery resolves: with what is true of the frame, at the latest when
//!   `delivery.timeout.ms` has passed since it was sent and, if its commit was asked for by then,
//!   once more since that. Only a commit whose own answer is lost so long is
//!   [`UnknownOutcome`](super::ProduceError::UnknownOutcome).
//! - All records of a frame have the same fate, and frames are committed in the order sent.
//! - A frame that cannot be written takes no other one with it: those that shared its transaction
//!   are written again, in the next one.
//! - A transaction is ended by us at half of its timeout, lest the coordinator does: up to
//!   `transaction.version` 1 that cannot be told from being fenced.
//! - Producers have no connections of their own: they share the cluster's.

mod abort_cause;
mod config;
mod coordinator_calls;
mod coordinator_error;
mod error;
mod frame;
mod frame_delivery;
mod frame_queue;
mod group_writer;
mod open_frames;
mod partition_writes;
#[cfg(test)]
mod test_frames;
mod transaction_group;
mod transaction_loop;
mod transaction_manager;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use self::coordinator_calls::CoordinatorCalls;
use self::open_frames::{OpenFrames, ProducerEnding};
use self::transaction_loop::TransactionLoop;
use crate::cluster::Cluster;
use crate::config::ProducerConfig;

pub use self::config::TransactionalConfig;
pub use self::error::TransactionError;
pub use self::frame::TransactionFrame;
pub use self::frame_delivery::FrameDelivery;

/// How long [`TransactionalProducer::open`] takes at most.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// One producer of one `transactional.id`. Clones share it. When the last one is dropped, what is
/// not committed is aborted, in the background, unless it is being closed.
#[derive(Clone, Debug)]
pub struct TransactionalProducer {
    owner: Arc<ProducerOwner>,
}

#[derive(Debug)]
struct ProducerOwner {
    frames: Arc<OpenFrames>,
    transactional_id: Arc<str>,
}

impl Drop for ProducerOwner {
    fn drop(&mut self) {
        self.frames.abandon();
    }
}

impl TransactionalProducer {
    /// Finds the coordinator and calls InitProducerId, which fences every older producer of the id
    /// and aborts what it left open. Takes `delivery.timeout.ms`, or 30 s, at most. Cancel-safe.
    ///
    /// # Errors
    /// [`NotAuthorized`](TransactionError::NotAuthorized),
    /// [`Unsupported`](TransactionError::Unsupported), [`Refused`](TransactionError::Refused),
    /// [`TimedOut`](TransactionError::TimedOut), [`Unavailable`](TransactionError::Unavailable),
    /// [`Stopped`](TransactionError::Stopped).
    pub async fn open(
        cluster: Cluster,
        config: &ProducerConfig,
        transactional: TransactionalConfig,
    ) -> Result<Self, TransactionError> {
        let cluster = cluster.with_requests(&config.requests);
        let transactional_id = Arc::clone(&transactional.transactional_id);
        let mut calls = CoordinatorCalls::new(
            cluster.clone(),
            Arc::clone(&transactional_id),
            transactional.transaction_timeout,
        );
        let stop = cluster.stop().clone();
        let opened = timeout(config.delivery_timeout.min(OPEN_TIMEOUT), calls.init(None));
        let Some(opened) = stop.run_until_cancelled(opened).await else {
            return Err(TransactionError::Stopped { transactional_id });
        };
        let Ok(initialized) = opened else {
            return Err(match calls.last_failure().cloned() {
                Some(reason) => TransactionError::Unavailable {
                    transactional_id,
                    reason,
                },
                None => TransactionError::TimedOut { transactional_id },
            });
        };
        let initialized = initialized?;
        tracing::debug!(%transactional_id, ?initialized, "transactional producer");
        let frames = Arc::new(OpenFrames::new(config.delivery_timeout));
        let transactions = TransactionLoop::new(
            cluster.clone(),
            Arc::clone(&frames),
            calls,
            config,
            transactional,
            initialized,
        );
        cluster.tasks().spawn(transactions.run());
        let owner = Arc::new(ProducerOwner {
            frames,
            transactional_id,
        });
        Ok(Self { owner })
    }

    /// The id that it was opened for.
    pub fn transactional_id(&self) -> &Arc<str> {
        &self.owner.transactional_id
    }

    /// Queues a frame, whose records are written in one transaction, or not at all. Never waits:
    /// whoever sends bounds what is not resolved. Returns the futures of the records, in order.
    pub fn send(&self, frame: TransactionFrame) -> impl Iterator<Item = FrameDelivery> + use<> {
        self.owner.frames.send(frame)
    }

    /// Resolves when the producer can write no more: it is fenced, not authorized any more, or the
    /// cluster is stopped. Cancel-safe.
    pub async fn failed(&self) -> TransactionError {
        self.owner.frames.failed().await
    }

    /// Commits what was sent, and ends the producer for all clones; also when nobody waits for it
    /// any more.
    pub async fn close(self) {
        self.owner.frames.end(ProducerEnding::Commit);
        self.owner.frames.ended().await;
    }

    /// Aborts what is not committed, and ends the producer for all clones. What is being committed
    /// just then has its result first.
    pub async fn abort(self) {
        self.owner.frames.end(ProducerEnding::Abort);
        self.owner.frames.ended().await;
    }
}
