//! A reader's position in one partition.

use std::fmt;
use std::sync::Arc;

use runtime::mutex::lock;
use tokio::time::Instant;

use super::FetchPosition;
use super::chunk::PartitionRecords;
use super::error::FetchError;
use super::fetch_state::{CursorState, NextChunk};
use super::shared_partition::SharedPartition;
use crate::{TopicIdentity, TopicPartition};
use runtime::wake::WakeSignal;

/// Reads one partition from a position on. See [`Fetcher::cursor`](super::Fetcher::cursor).
///
/// Holds no records: what it returned belongs to the caller. Dropping it unsubscribes.
pub struct Cursor {
    partition: Arc<SharedPartition>,
    state: CursorState,
    wake: Arc<WakeSignal>,
}

impl Cursor {
    pub(super) fn new(
        partition: Arc<SharedPartition>,
        state: CursorState,
        wake: Arc<WakeSignal>,
    ) -> Self {
        Self {
            partition,
            state,
            wake,
        }
    }

    /// The next records, if they are here. `None`: the `wake` of this cursor is notified when
    /// it is worth asking again; no notification is lost in between. The position moves to
    /// after what is returned.
    ///
    /// # Errors
    /// A [`FetchError`] that the cursor's owner has to decide on: the position is not in the log,
    /// the topic is gone or may not be read, or the client has stopped. The cursor stays where it
    /// is; asking again tries again.
    pub fn try_next(&mut self) -> Result<Option<PartitionRecords>, FetchError> {
        let from_offset = self.state.offset;
        let (next, work) =
            lock(&self.partition.fetch_state).next_chunk(&mut self.state, &self.wake);
        if work {
            self.partition.work.notify_one();
        }
        match next {
            // Of a chunk that begins before the position, only what is new.
            NextChunk::Ready(chunk) => {
                let metrics = &self.partition.metrics;
                match self.state.served_by_tail {
                    true => metrics.tail_chunks.increment(),
                    false => metrics.catch_up_chunks.increment(),
                }
                Ok(Some(PartitionRecords { from_offset, chunk }))
            }
            NextChunk::Wait => Ok(None),
            NextChunk::Failed(error) => Err(error),
        }
    }

    /// Where the next record will be read.
    #[inline]
    pub fn position(&self) -> FetchPosition {
        FetchPosition {
            offset: self.state.offset,
            leader_epoch: self.state.leader_epoch,
        }
    }

    /// Reads on at `position`.
    pub fn seek(&mut self, position: FetchPosition) {
        lock(&self.partition.fetch_state).seek(
            &mut self.state,
            position.offset,
            position.leader_epoch,
        );
    }

    /// Which topic's records it returns, as far as it is known.
    pub(crate) fn topic(&self) -> TopicIdentity {
        self.partition.topic()
    }

    /// The partition.
    #[inline]
    pub fn tp(&self) -> &TopicPartition {
        &self.partition.tp
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        lock(&self.partition.fetch_state).remove_cursor(&mut self.state, Instant::now());
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor")
            .field("partition", &self.partition.tp)
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fetch_state::CursorWaiter;
    use super::*;

    #[test]
    fn a_waiting_cursor_takes_at_most_128_bytes() {
        assert!(size_of::<Cursor>() + size_of::<CursorWaiter>() <= 128);
    }
}
