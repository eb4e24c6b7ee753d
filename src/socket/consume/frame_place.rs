//! The place in a frame whose client stopped taking it: not its bytes, but what they are read
//! again with.
//!
//! ```text
//! offset, bytes sent ─▶ Cursor ─▶ chunk ─▶ segment ─▶ the same frame, from the next byte on
//! ```
//!
//! Many clients may stop in the middle of a record of many megabytes. The record is read apart
//! from the group: the partition may be assigned to somebody else by then.
//!
//! # Invariants
//! - What is sent after the place continues what was sent before: a record is encoded to the same
//!   bytes again, and one that is not the same by its offset, timestamp and length is not sent.

use std::sync::Arc;

use tracing::warn;

use super::encoded_frames::{RecordFrame, SegmentStart};
use super::frame_encoding::FrameEncoding;
use super::segment_cache::{HeldSegment, SegmentCache};
use crate::socket::close::CloseReason;
use kafka_client::consumer::{Chunk, Consumer, Cursor, FetchPosition, TopicPartition};
use runtime::wake::WakeSignal;

/// A frame that was partly sent.
#[derive(Debug)]
pub(super) struct FramePlace {
    tp: TopicPartition,
    frame: RecordFrame,
    len: usize,
    /// How many of its bytes are sent.
    pub(super) sent: usize,
    pub(super) encoding: FrameEncoding,
    /// While it is read again.
    cursor: Option<Cursor>,
    chunk: Option<Arc<Chunk>>,
}

/// The frame, read again.
pub(super) struct FoundFrame {
    pub(super) chunk: Arc<Chunk>,
    pub(super) segment: HeldSegment,
    /// Of the frame in the segment.
    pub(super) index: usize,
}

/// The record of a frame that was partly sent is not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameLost;

impl From<FrameLost> for CloseReason {
    fn from(_: FrameLost) -> Self {
        CloseReason::FrameLost
    }
}

impl FramePlace {
    /// After `sent` bytes of a frame of `len`.
    pub(super) fn new(
        tp: TopicPartition,
        frame: RecordFrame,
        len: usize,
        sent: usize,
        encoding: FrameEncoding,
    ) -> Self {
        Self {
            tp,
            frame,
            len,
            sent,
            encoding,
            cursor: None,
            chunk: None,
        }
    }

    /// The frame, once it is here; else the consumer's signal, `wake`, is notified.
    pub(super) fn reread(
        &mut self,
        consumer: &Consumer,
        wake: &Arc<WakeSignal>,
    ) -> Result<Option<FoundFrame>, FrameLost> {
        let chunk = match &self.chunk {
            Some(chunk) => Arc::clone(chunk),
            None => {
                let Some(chunk) = self.fetch(consumer)? else {
                    return Ok(None);
                };
                self.cursor = None;
                Arc::clone(self.chunk.insert(chunk))
            }
        };
        let start = SegmentStart::at(self.frame.offset);
        let segments = chunk.derived::<SegmentCache>();
        let Some(segment) = segments.segment(&chunk, self.encoding, start, wake) else {
            return Ok(None);
        };
        let index = segment.index_at_or_after(self.frame.offset);
        let is_same = segment.frames.get(index).is_some_and(|found| {
            let same = (found.offset, found.timestamp) == (self.frame.offset, self.frame.timestamp);
            same && found.end - segment.start_of(index) == self.len
        });
        match is_same {
            true => Ok(Some(FoundFrame {
                chunk,
                segment,
                index,
            })),
            false => Err(self.lost(&"it is another one")),
        }
    }

    fn fetch(&mut self, consumer: &Consumer) -> Result<Option<Arc<Chunk>>, FrameLost> {
        let cursor = self.cursor.get_or_insert_with(|| {
            let position = FetchPosition {
                offset: self.frame.offset,
                leader_epoch: -1,
            };
            consumer.cursor(self.tp.clone(), position)
        });
        match cursor.try_next() {
            Ok(records) => Ok(records.map(|records| records.chunk)),
            Err(error) => Err(self.lost(&error)),
        }
    }

    fn lost(&self, reason: &dyn std::fmt::Display) -> FrameLost {
        let offset = self.frame.offset;
        warn!(tp = %self.tp, offset, %reason, "a record that was partly sent cannot be read again");
        FrameLost
    }
}
