//! The chunk of records that one socket is sending.
//!
//! ```text
//! PartitionRecords ─▶ OutgoingChunk: encoded frames, the next to complete, the next byte to send
//!                        │ single frames: written from here
//!                        └ batchSize: copied into an array
//! ```
//!
//! # Invariants
//! - A chunk is held while the client takes its frames, and released when it stops: then at
//!   most the rest of one frame, or a few frames ahead, are kept in a copy.

use std::ops::Range;
use std::sync::Arc;

use tokio::time::Instant;

use super::encoded_frames::EncodedFrames;
use crate::codec::RecordFormats;
use kafka_client::consumer::{Chunk, FetchPosition, PartitionRecords, TopicPartition};

/// Records of one partition, as far as they are sent.
#[derive(Debug)]
pub(super) struct OutgoingChunk {
    pub(super) encoded: Arc<EncodedFrames>,
    /// The next frame to complete.
    next: usize,
    /// The next byte to send.
    at: usize,
    /// The partition's position when all is sent; `None` once the chunk is released.
    end: Option<FetchPosition>,
    /// When sending began.
    pub(super) since: Instant,
    /// Whether its partition is still assigned to the socket: only then is what is delivered
    /// committed.
    pub(super) is_assigned: bool,
    /// Whether the first frame lacks its beginning, which was sent before it was copied.
    starts_inside_frame: bool,
    /// Keeps what is encoded counted in the fetch memory.
    _chunk: Option<Arc<Chunk>>,
}

impl OutgoingChunk {
    /// Nothing of these records is sent yet.
    pub(super) fn new(records: PartitionRecords, formats: RecordFormats, now: Instant) -> Self {
        let encoded = EncodedFrames::of(&records.chunk, formats);
        let next = encoded.index_at_or_after(records.from_offset);
        Self {
            next,
            at: encoded.start_of(next),
            end: Some(FetchPosition {
                offset: records.chunk.next_offset,
                leader_epoch: records.chunk.last_epoch,
            }),
            since: now,
            is_assigned: true,
            starts_inside_frame: false,
            encoded,
            _chunk: Some(records.chunk),
        }
    }

    /// The partition.
    pub(super) fn tp(&self) -> &TopicPartition {
        &self.encoded.tp
    }

    /// Whether all of it is sent.
    pub(super) fn is_sent(&self) -> bool {
        self.next == self.encoded.frames.len()
    }

    /// Whether a frame is partly sent.
    pub(super) fn is_inside_frame(&self) -> bool {
        self.at != self.encoded.start_of(self.next) || (self.starts_inside_frame && self.next == 0)
    }

    /// Whether the chunk itself is held, not only a copy of some frames.
    pub(super) fn is_held(&self) -> bool {
        self.end.is_some()
    }

    /// The partition's position when all is sent; `None` once the chunk is released.
    pub(super) fn end(&self) -> Option<FetchPosition> {
        self.end
    }

    /// How many frames are begun, completely sent or not.
    pub(super) fn begun(&self) -> usize {
        self.next + usize::from(self.is_inside_frame())
    }

    /// What is to be sent to complete the frames before frame `end`; to the last one, if
    /// there are less.
    pub(super) fn bytes_before(&self, end: usize) -> &[u8] {
        let end = end.min(self.encoded.frames.len());
        &self.encoded.bytes[self.at..self.encoded.start_of(end)]
    }

    /// `bytes` were sent: the frames that completed.
    pub(super) fn sent(&mut self, bytes: usize) -> Range<usize> {
        self.at += bytes;
        let from = self.next;
        let left = &self.encoded.frames[from..];
        // Mostly all of it goes at once.
        let done = match left.last() {
            Some(last) if last.end as usize <= self.at => left.len(),
            _ => left.partition_point(|frame| frame.end as usize <= self.at),
        };
        self.next += done;
        from..self.next
    }

    /// The payload of the next frame, which is with that taken as sent; its index.
    pub(super) fn take_frame(&mut self) -> usize {
        let index = self.next;
        self.next += 1;
        self.at = self.encoded.start_of(self.next);
        index
    }

    /// Releases the chunk: keeps a copy of the rest of the frame under way, if any, and of
    /// further frames while they are within `bytes_max`. The position to read on from later;
    /// `None` when the chunk is not held.
    pub(super) fn release(&mut self, bytes_max: usize) -> Option<FetchPosition> {
        let end = self.end.take()?;
        let frames = &self.encoded.frames;
        let mut keep = self.begun();
        while keep < frames.len() && frames[keep].end as usize - self.at <= bytes_max {
            keep += 1;
        }
        let position = match frames.get(keep) {
            None => end,
            Some(_) if keep == 0 => self.before_first(),
            Some(_) => frames[keep - 1].next_position(),
        };
        self.keep_before(keep);
        Some(position)
    }

    /// The partition is revoked: keeps nothing but the rest of the frame under way, and its
    /// record is not committed.
    pub(super) fn revoke(&mut self) {
        self.end = None;
        self.is_assigned = false;
        self.keep_before(self.begun());
    }

    /// Keeps a copy of what is to be sent before frame `end`.
    fn keep_before(&mut self, end: usize) {
        self.starts_inside_frame = self.is_inside_frame();
        self.encoded = Arc::new(self.encoded.copy_range(self.at, self.next, end));
        self.next = 0;
        self.at = 0;
        self._chunk = None;
    }

    /// The rest of the frame under way; empty between frames.
    pub(super) fn rest_of_frame(&self) -> &[u8] {
        match self.is_inside_frame() {
            true => self.bytes_before(self.next + 1),
            false => &[],
        }
    }

    fn before_first(&self) -> FetchPosition {
        FetchPosition {
            offset: self.encoded.frames[0].offset,
            leader_epoch: -1,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::BytesMut;
    use websocket::frame;

    use super::*;
    use crate::socket::consume::encoded_frames::RecordFrame;

    /// A chunk of records from offset 10 on, with these payloads.
    pub(in crate::socket::consume) fn chunk(payloads: &[&str]) -> OutgoingChunk {
        let mut out = BytesMut::new();
        let mut frames = Vec::new();
        for (i, payload) in payloads.iter().enumerate() {
            frame::write_text(&mut out, payload.as_bytes());
            frames.push(RecordFrame {
                end: out.len() as u32,
                leader_epoch: 1,
                offset: i as i64 + 10,
                timestamp: 0,
            });
        }
        let encoded = EncodedFrames {
            tp: TopicPartition::new("t", 0),
            bytes: out.freeze(),
            frames,
        };
        OutgoingChunk {
            encoded: Arc::new(encoded),
            next: 0,
            at: 0,
            end: Some(FetchPosition {
                offset: 20,
                leader_epoch: 1,
            }),
            since: Instant::now(),
            is_assigned: true,
            starts_inside_frame: false,
            _chunk: None,
        }
    }

    #[test]
    fn frames_count_as_sent_when_their_last_byte_is() {
        let mut chunk = chunk(&["aaaa", "bbbb", "cccc"]);
        assert_eq!(chunk.sent(5), 0..0);
        assert!(chunk.is_inside_frame());
        assert_eq!(chunk.begun(), 1);
        assert_eq!(chunk.rest_of_frame(), b"a");
        assert_eq!(chunk.sent(8), 0..2);
        assert_eq!(chunk.begun(), 3);
        assert_eq!(chunk.bytes_before(3).len(), 5);
        assert_eq!(chunk.sent(5), 2..3);
        assert!(chunk.is_sent());
    }

    #[test]
    fn a_released_chunk_keeps_the_rest_of_one_frame_and_has_a_position_to_read_on_from() {
        let mut inside = chunk(&["aaaa", "bbbb", "cccc"]);
        inside.sent(8);
        let position = inside.release(0).unwrap();
        assert_eq!(position.offset, 12);
        assert_eq!(inside.bytes_before(1), b"bbbb");
        inside.sent(1);
        inside.revoke();
        assert!(inside.is_inside_frame());
        assert_eq!(inside.rest_of_frame(), b"bbb");
        assert_eq!(inside.sent(3), 0..1);
        assert!(inside.is_sent());
        assert_eq!(inside.release(0), None, "there is nothing to release");

        let mut between = chunk(&["aaaa", "bbbb"]);
        assert_eq!(between.release(0).unwrap().offset, 10);
        assert!(between.is_sent());

        let mut last = chunk(&["aaaa", "bbbb"]);
        last.sent(8);
        assert_eq!(last.release(0).unwrap().offset, 20);
    }

    #[test]
    fn a_released_chunk_can_keep_some_frames_ahead() {
        let mut chunk = chunk(&["aaaa", "bbbb", "cccc"]);
        assert_eq!(chunk.release(13).unwrap().offset, 12);
        assert_eq!(chunk.bytes_before(usize::MAX).len(), 12);
        assert_eq!(chunk.encoded.frames.len(), 2);
    }
}
