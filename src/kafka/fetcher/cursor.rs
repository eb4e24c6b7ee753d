//! One reader's place in one partition.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::FetchPosition;
use super::chunk::ConsumerRecords;
use super::error::FetchError;
use super::feed::{Next, Reader};
use super::partition::Partition;
use crate::TopicPartition;
use crate::lock::lock;
use runtime::wake::WakeSignal;

/// Reads one partition from a position on. See [`Fetcher::cursor`](super::Fetcher::cursor).
///
/// Holds no records: what it was given belongs to whoever asked. Dropping it unsubscribes.
pub struct Cursor {
    partition: Arc<Partition>,
    reader: Reader,
    wake: Arc<WakeSignal>,
}

impl Cursor {
    pub(super) fn new(partition: Arc<Partition>, reader: Reader, wake: Arc<WakeSignal>) -> Self {
        Self {
            partition,
            reader,
            wake,
        }
    }

    /// What comes next, if it is here. `None`: the `wake` of this cursor is notified when
    /// it is worth asking again; no news is lost in between. The position moves behind
    /// what is returned.
    ///
    /// # Errors
    /// See [`FetchError`]. The cursor stays where it is; asking again tries again.
    pub fn try_next(&mut self) -> Result<Option<ConsumerRecords>, FetchError> {
        let from_offset = self.reader.offset;
        let (next, work) = lock(&self.partition.feed).next(&mut self.reader, &self.wake);
        if work {
            self.partition.work.notify_one();
        }
        match next {
            // Of an overlapping chunk, or behind skipped ones, only what is new.
            Next::Chunk(chunk) => Ok(Some(ConsumerRecords { from_offset, chunk })),
            Next::Wait => Ok(None),
            Next::Failed(error) => Err(error),
        }
    }

    /// Where the next record will be read.
    pub fn position(&self) -> FetchPosition {
        FetchPosition {
            offset: self.reader.offset,
            leader_epoch: self.reader.epoch,
        }
    }

    /// Goes on at `position`.
    pub fn seek(&mut self, position: FetchPosition) {
        let FetchPosition {
            offset,
            leader_epoch,
        } = position;
        lock(&self.partition.feed).seek(&mut self.reader, offset, leader_epoch);
    }

    /// The partition.
    pub fn tp(&self) -> &TopicPartition {
        &self.partition.tp
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        lock(&self.partition.feed).leave(&mut self.reader, Instant::now());
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
    use super::super::feed::Waiter;
    use super::*;

    #[test]
    fn a_cursor_that_waits_takes_little() {
        assert!(size_of::<Cursor>() + size_of::<Waiter>() <= 128);
    }
}
