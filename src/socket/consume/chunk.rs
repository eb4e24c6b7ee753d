//! The chunk of records that one socket is sending.
//!
//! ```text
//! PartitionRecords ─▶ OutgoingChunk ─ one segment after the other ─▶ the next frame, the next byte
//!                                                                       │ single frames: written from here
//!                                                                       └ batchSize: copied into an array
//! ```
//!
//! # Invariants
//! - Of a chunk, a socket holds at most one segment of frames.
//! - A chunk is held while the client takes its frames, and released when it stops: then a few
//!   frames ahead, or the rest of one frame, are kept in a copy; of a frame with a long rest
//!   only its place is kept, and the record is read again when the client goes on.

use std::ops::Range;
use std::sync::Arc;

use tokio::time::Instant;

use super::encoded_frames::{RecordFrame, SegmentStart};
use super::frame_encoding::FrameEncoding;
use super::frame_place::{FrameLost, FramePlace};
use super::segment_cache::{HeldSegment, SegmentCache};
use kafka_client::consumer::{Chunk, Consumer, FetchPosition, PartitionRecords, TopicPartition};
use runtime::wake::WakeSignal;

/// Records of one partition, as far as they are sent.
#[derive(Debug)]
pub(super) struct OutgoingChunk {
    tp: TopicPartition,
    /// The frames under way.
    segment: Option<HeldSegment>,
    /// Where the segment after them begins; `None` after the last.
    next_segment: Option<SegmentStart>,
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
    /// What the segments are encoded from, until the chunk is released.
    source: Option<ChunkSource>,
    /// The frame under way, when it is to be read again.
    place: Option<FramePlace>,
    /// How many frames of the segment are to be sent.
    frames_max: usize,
}

/// Of the rest of a frame, at most so much is kept in a copy.
const COPY_BYTES_MAX: usize = 64 << 10;

/// A chunk and its segments.
#[derive(Debug)]
struct ChunkSource {
    segments: Arc<SegmentCache>,
    chunk: Arc<Chunk>,
    encoding: FrameEncoding,
}

impl OutgoingChunk {
    /// Nothing of these records is sent yet.
    pub(super) fn new(records: PartitionRecords, encoding: FrameEncoding, now: Instant) -> Self {
        let chunk = records.chunk;
        Self {
            tp: chunk.tp.clone(),
            segment: None,
            next_segment: Some(SegmentStart::at(records.from_offset)),
            next: 0,
            at: 0,
            end: Some(FetchPosition {
                offset: chunk.next_offset,
                leader_epoch: chunk.last_epoch,
            }),
            since: now,
            is_assigned: true,
            starts_inside_frame: false,
            source: Some(ChunkSource {
                segments: chunk.derived(),
                chunk,
                encoding,
            }),
            place: None,
            frames_max: usize::MAX,
        }
    }

    /// The partition.
    pub(super) fn tp(&self) -> &TopicPartition {
        &self.tp
    }

    /// The frames of the segment under way.
    pub(super) fn frames(&self) -> &[RecordFrame] {
        self.segment.as_ref().map_or(&[], |segment| {
            &segment.frames[..segment.frames.len().min(self.frames_max)]
        })
    }

    /// Whether there is a frame to send, of the segment under way.
    pub(super) fn has_frame(&self) -> bool {
        self.next < self.frames().len()
    }

    /// Whether all of it is sent.
    pub(super) fn is_sent(&self) -> bool {
        !self.has_frame() && self.next_segment.is_none() && self.place.is_none()
    }

    /// Whether the frame under way is to be read again before its rest can be sent.
    pub(super) fn awaits_reread(&self) -> bool {
        self.place.is_some()
    }

    /// Reads the frame under way again. `Ok(false)`: it is not here yet, and the signal of the
    /// consumer, which is `wake`, is notified when it is worth asking again.
    ///
    /// # Errors
    /// [`FrameLost`]: its record is not there any more.
    pub(super) fn reread_frame(
        &mut self,
        consumer: &Consumer,
        wake: &Arc<WakeSignal>,
    ) -> Result<bool, FrameLost> {
        let Some(place) = &mut self.place else {
            return Ok(true);
        };
        let Some(found) = place.reread(consumer, wake)? else {
            return Ok(false);
        };
        self.next = found.index;
        self.at = found.segment.start_of(found.index) + place.sent;
        self.frames_max = found.index + 1;
        self.source = Some(ChunkSource {
            segments: found.chunk.derived(),
            chunk: found.chunk,
            encoding: place.encoding,
        });
        self.segment = Some(found.segment);
        self.starts_inside_frame = false;
        self.since = Instant::now();
        self.place = None;
        Ok(true)
    }

    /// Takes the next segment, which others may have encoded, once the frames of the last are
    /// sent. `false`: it is not to be had now, and `wake` is notified when it is worth asking
    /// again; meanwhile nothing is held but the chunk.
    pub(super) fn load_segment(&mut self, wake: &Arc<WakeSignal>) -> bool {
        let (Some(source), Some(start)) = (&self.source, self.next_segment) else {
            return true;
        };
        self.segment = None;
        self.next = 0;
        self.at = 0;
        let ChunkSource {
            segments,
            chunk,
            encoding,
        } = source;
        let Some(segment) = segments.segment(chunk, *encoding, start, wake) else {
            return false;
        };
        self.next = segment.index_at_or_after(start.offset);
        self.at = segment.start_of(self.next);
        self.next_segment = segment.next;
        self.segment = Some(segment);
        true
    }

    /// Whether a frame is partly sent.
    pub(super) fn is_inside_frame(&self) -> bool {
        self.at != self.start_of(self.next) || (self.starts_inside_frame && self.next == 0)
    }

    /// Whether the chunk itself is held, not only a copy of some frames.
    pub(super) fn is_held(&self) -> bool {
        self.end.is_some() || self.source.is_some()
    }

    /// Since when another socket waits for memory of this chunk's segments.
    pub(super) fn memory_awaited_since(&self) -> Option<Instant> {
        let source = self.source.as_ref()?;
        source.segments.memory_awaited_since()
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
        match &self.segment {
            Some(segment) => {
                let end = end.min(self.frames().len());
                &segment.bytes[self.at..segment.start_of(end)]
            }
            None => &[],
        }
    }

    /// Bytes of the segment under way: of its frames before they were compressed.
    pub(super) fn segment_bytes(&self) -> usize {
        let segment = self.segment.as_ref();
        segment.map_or(0, |segment| segment.plain_bytes)
    }

    /// `bytes` were sent: the frames that completed.
    pub(super) fn sent(&mut self, bytes: usize) -> Range<usize> {
        self.at += bytes;
        let from = self.next;
        let left = &self.frames()[from..];
        // Mostly all of it goes at once.
        let done = match left.last() {
            Some(last) if last.end <= self.at => left.len(),
            _ => left.partition_point(|frame| frame.end <= self.at),
        };
        self.next += done;
        from..self.next
    }

    /// Bytes of the keys and values of the records of these frames.
    pub(super) fn record_bytes(&self, frames: Range<usize>) -> u64 {
        let segment = self.segment.as_ref();
        segment.map_or(0, |segment| segment.record_bytes(frames))
    }

    /// The next frame to complete.
    pub(super) fn next_frame(&self) -> usize {
        self.next
    }

    /// Where in the bytes of the segment the next byte to send is.
    pub(super) fn sent_to(&self) -> usize {
        self.at
    }

    /// The next frame and its payload, which is with that taken as sent.
    pub(super) fn take_frame(&mut self) -> Option<(RecordFrame, &[u8])> {
        let segment = self.segment.as_ref()?;
        let frame = *self.frames().get(self.next)?;
        let payload = segment.payload(self.next);
        self.next += 1;
        self.at = frame.end;
        Some((frame, payload))
    }

    /// Releases the chunk: keeps the rest of the frame under way, if any, and of
    /// further frames while they are within `bytes_max`. The position to read on from later;
    /// `None` when there is none to go back to.
    pub(super) fn release(&mut self, bytes_max: usize) -> Option<FetchPosition> {
        let Some(end) = self.end.take() else {
            if self.source.is_some() {
                // A frame that was read again.
                self.keep_before(self.begun());
            }
            return None;
        };
        let frames = self.frames();
        let mut keep = self.begun();
        while keep < frames.len() && frames[keep].end - self.at <= bytes_max {
            keep += 1;
        }
        let following = frames.get(keep).map(|frame| frame.offset);
        let following = following.or(self.next_segment.map(|start| start.offset));
        let position = match (following, keep.checked_sub(1)) {
            (None, _) => end,
            (Some(_), Some(last_kept)) => frames[last_kept].next_position(),
            (Some(offset), None) => FetchPosition {
                offset,
                leader_epoch: -1,
            },
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

    /// Keeps what is to be sent before frame `end`: a copy, or of one frame with a long rest its
    /// place.
    fn keep_before(&mut self, end: usize) {
        self.starts_inside_frame = self.is_inside_frame();
        let segment = self.segment.take();
        if let (Some(segment), Some(source)) = (&segment, &self.source)
            && self.starts_inside_frame
            && segment.start_of(end) - self.at > COPY_BYTES_MAX
        {
            let frame_at = segment.start_of(self.next);
            let (tp, frame) = (self.tp.clone(), segment.frames[self.next]);
            let len = frame.end - frame_at;
            let place = FramePlace::new(tp, frame, len, self.at - frame_at, source.encoding);
            self.place = Some(place);
        }
        let kept = segment.filter(|_| self.place.is_none());
        let kept = kept.map(|segment| segment.copy_range(self.at, self.next, end));
        self.segment = kept.map(HeldSegment::own);
        self.frames_max = usize::MAX;
        self.next_segment = None;
        self.next = 0;
        self.at = 0;
        self.source = None;
    }

    /// The rest of the frame under way; empty between frames.
    pub(super) fn rest_of_frame(&self) -> &[u8] {
        match self.is_inside_frame() {
            true => self.bytes_before(self.next + 1),
            false => &[],
        }
    }

    fn start_of(&self, index: usize) -> usize {
        self.segment
            .as_ref()
            .map_or(0, |segment| segment.start_of(index))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::socket::consume::encoded_frames::tests::encoded;

    /// A chunk of records from offset 10 on, with these payloads.
    pub(in crate::socket::consume) fn chunk(payloads: &[&str]) -> OutgoingChunk {
        OutgoingChunk {
            tp: TopicPartition::new("t", 0),
            segment: Some(HeldSegment::own(encoded(payloads, |i| i + 10))),
            next_segment: None,
            next: 0,
            at: 0,
            end: Some(FetchPosition {
                offset: 20,
                leader_epoch: 1,
            }),
            since: Instant::now(),
            is_assigned: true,
            starts_inside_frame: false,
            source: None,
            place: None,
            frames_max: usize::MAX,
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
        assert_eq!(chunk.frames().len(), 2);
    }
}
