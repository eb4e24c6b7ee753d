//! The records that one socket is in the middle of sending.
//!
//! ```text
//! slice ─▶ OutgoingChunk: encoded chunk, frame to send next, byte to send next
//!            │ one by one: written straight from the chunk
//!            └ batchSize: copied into ArrayBuilder ─ n records, or 20 ms ─▶ one array frame
//! ```
//!
//! # Invariants
//! - A chunk is held while the client takes its frames, and let go when it stops: then at
//!   most the rest of one frame is kept, in a copy.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use tokio::time::{Duration, Instant};

use super::frame_cache::{EncodedFrames, RecordFrame};
use super::send_buffer::{DeliveredRecords, SendBuffer};
use crate::codec::RecordFormats;
use kafka_client::TopicPartition;
use kafka_client::consumer::{Chunk, ConsumerRecords, FetchPosition};
use websocket::frame;

/// How long after its first record an array is sent that is not full.
pub(super) const BATCH_WAIT_MAX: Duration = Duration::from_millis(20);

/// A slice, as far as it is sent.
#[derive(Debug)]
pub(super) struct OutgoingChunk {
    pub(super) encoded: Arc<EncodedFrames>,
    /// The next frame to complete.
    pub(super) next: usize,
    /// The next byte to send.
    pub(super) at: usize,
    /// Where the partition is when all is sent; `None` for a part of a slice.
    pub(super) end: Option<FetchPosition>,
    pub(super) since: Instant,
    /// Whether its partition is still ours: what is delivered counts.
    pub(super) is_ours: bool,
    /// Whether the first frame is the rest of one.
    torn: bool,
    /// Keeps what is encoded counted in the fetch memory.
    _chunk: Option<Arc<Chunk>>,
}

impl OutgoingChunk {
    /// Starts on a slice.
    pub(super) fn new(slice: ConsumerRecords, formats: RecordFormats, now: Instant) -> Self {
        let encoded = EncodedFrames::of(&slice.chunk, formats);
        let next = encoded.index_at_or_after(slice.from_offset);
        Self {
            next,
            at: encoded.start_of(next),
            end: Some(FetchPosition {
                offset: slice.chunk.next_offset,
                leader_epoch: slice.chunk.last_epoch,
            }),
            since: now,
            is_ours: true,
            torn: false,
            encoded,
            _chunk: Some(slice.chunk),
        }
    }

    /// The partition.
    pub(super) fn tp(&self) -> &TopicPartition {
        &self.encoded.tp
    }

    /// Whether all of it is sent.
    pub(super) fn is_done(&self) -> bool {
        self.next == self.encoded.frames.len()
    }

    /// Whether a frame is partly sent.
    pub(super) fn is_inside_a_frame(&self) -> bool {
        self.at != self.encoded.start_of(self.next) || (self.torn && self.next == 0)
    }

    /// How many frames are not completely sent.
    pub(super) fn left(&self) -> usize {
        self.encoded.frames.len() - self.next
    }

    /// What is to be sent to complete the next `frames` frames.
    pub(super) fn bytes(&self, frames: usize) -> &[u8] {
        &self.encoded.bytes[self.at..self.encoded.start_of(self.next + frames)]
    }

    /// `bytes` were sent: the frames that completed.
    pub(super) fn sent(&mut self, bytes: usize) -> std::ops::Range<usize> {
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

    /// Lets go of the chunk: keeps the rest of the frame under way, if any, and further
    /// frames while they are within `bytes_max`. Says where to read on later; `None` when
    /// it holds no chunk.
    pub(super) fn let_go(&mut self, bytes_max: usize) -> Option<FetchPosition> {
        let end = self.end.take()?;
        let frames = &self.encoded.frames;
        let mut keep = self.next + usize::from(self.is_inside_a_frame());
        while keep < frames.len() && frames[keep].end as usize - self.at <= bytes_max {
            keep += 1;
        }
        let position = match frames.get(keep) {
            None => end,
            Some(_) if keep == 0 => self.before_first(),
            Some(_) => frames[keep - 1].next_position(),
        };
        self.keep(keep);
        Some(position)
    }

    /// The partition is gone: keeps nothing but the rest of the frame under way, which
    /// counts no more.
    pub(super) fn cut(&mut self) {
        self.end = None;
        self.is_ours = false;
        self.keep(self.next + usize::from(self.is_inside_a_frame()));
    }

    /// Keeps a copy of what is to be sent before frame `end`.
    fn keep(&mut self, end: usize) {
        self.torn = self.is_inside_a_frame();
        self.encoded = Arc::new(self.encoded.copy_range(self.at, self.next, end));
        self.next = 0;
        self.at = 0;
        self._chunk = None;
    }

    /// The rest of the frame under way.
    pub(super) fn rest(&self) -> &[u8] {
        match self.is_inside_a_frame() {
            true => self.bytes(1),
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

/// Records gathered for one array.
#[derive(Debug)]
pub(super) struct ArrayBuilder {
    size: usize,
    bytes_max: usize,
    payload: BytesMut,
    records: usize,
    carried: Vec<DeliveredRecords>,
    /// When the first record came.
    since: Instant,
}

impl ArrayBuilder {
    /// Arrays of at most `size` records, and not many more than `bytes_max` bytes.
    pub(super) fn new(size: u32, bytes_max: usize, now: Instant) -> Self {
        Self {
            size: size as usize,
            bytes_max,
            payload: BytesMut::new(),
            records: 0,
            carried: Vec::new(),
            since: now,
        }
    }

    /// Takes up to `allowed` records of `current`; says how many.
    pub(super) fn gather(
        &mut self,
        current: &mut OutgoingChunk,
        allowed: usize,
        now: Instant,
    ) -> usize {
        let mut taken = 0;
        while taken < allowed && !current.is_done() && !self.is_full() {
            let index = current.next;
            if self.records == 0 {
                self.since = now;
            }
            self.payload
                .put_u8(if self.records == 0 { b'[' } else { b',' });
            self.payload.put_slice(current.encoded.payload(index));
            self.carry(current.tp(), current.encoded.frames[index]);
            self.records += 1;
            current.next += 1;
            current.at = current.encoded.start_of(current.next);
            taken += 1;
        }
        taken
    }

    /// Whether it is to be sent without waiting.
    pub(super) fn is_full(&self) -> bool {
        self.records >= self.size || self.payload.len() >= self.bytes_max
    }

    /// When it is to be sent at the latest; `None` while it is empty.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.records > 0).then(|| self.since + BATCH_WAIT_MAX)
    }

    /// Makes a frame of it.
    pub(super) fn send(&mut self, out: &mut SendBuffer) {
        if self.records == 0 {
            return;
        }
        self.payload.put_u8(b']');
        out.write(|frames| frame::write_text(frames, &self.payload));
        for delivered in self.carried.drain(..) {
            out.carries(delivered);
        }
        self.records = 0;
        self.payload.clear();
        if self.payload.capacity() > BATCH_KEEP_MAX {
            self.payload = BytesMut::new();
        }
    }

    /// Gives memory back while it is empty.
    pub(super) fn shrink(&mut self) {
        if self.records == 0 {
            self.payload = BytesMut::new();
            self.carried = Vec::new();
        }
    }

    fn carry(&mut self, tp: &TopicPartition, frame: RecordFrame) {
        match self.carried.last_mut() {
            Some(last) if last.tp == *tp => {
                last.frames.push(frame);
                last.end = None;
            }
            _ => self.carried.push(DeliveredRecords {
                tp: tp.clone(),
                frames: vec![frame],
                end: None,
            }),
        }
    }

    /// Behind what it has of `tp` there is nothing to deliver before `end`.
    pub(super) fn passed(&mut self, tp: &TopicPartition, end: FetchPosition, out: &mut SendBuffer) {
        match self.carried.iter_mut().rev().find(|known| known.tp == *tp) {
            Some(known) => known.end = Some(end),
            // What there was of it is on its way already.
            None => out.carries(DeliveredRecords {
                tp: tp.clone(),
                frames: Vec::new(),
                end: Some(end),
            }),
        }
    }
}

/// A payload buffer that grew beyond this is not kept.
const BATCH_KEEP_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn current(texts: &[&str]) -> OutgoingChunk {
        let mut out = BytesMut::new();
        let mut frames = Vec::new();
        for (i, text) in texts.iter().enumerate() {
            frame::write_text(&mut out, text.as_bytes());
            frames.push(RecordFrame {
                end: out.len() as u32,
                leader_epoch: 1,
                offset: i as i64 + 10,
                timestamp: 0,
            });
        }
        let encoded = EncodedFrames {
            tp: TopicPartition::new("t", 0),
            bytes: Bytes::from(out),
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
            is_ours: true,
            torn: false,
            _chunk: None,
        }
    }

    #[test]
    fn frames_count_as_sent_when_their_last_byte_is() {
        let mut current = current(&["aaaa", "bbbb", "cccc"]);
        assert_eq!(current.sent(5), 0..0);
        assert!(current.is_inside_a_frame());
        assert_eq!(current.rest(), b"a");
        assert_eq!(current.sent(8), 0..2);
        assert_eq!(current.bytes(1).len(), 5);
        assert_eq!(current.sent(5), 2..3);
        assert!(current.is_done());
    }

    #[test]
    fn letting_go_keeps_the_rest_of_one_frame_and_says_where_to_read_on() {
        let mut inside = current(&["aaaa", "bbbb", "cccc"]);
        inside.sent(8);
        let position = inside.let_go(0).unwrap();
        assert_eq!(position.offset, 12);
        assert_eq!(inside.bytes(1), b"bbbb");
        inside.sent(1);
        inside.cut();
        assert!(inside.is_inside_a_frame());
        assert_eq!(inside.rest(), b"bbb");
        assert_eq!(inside.sent(3), 0..1);
        assert!(inside.is_done());
        assert_eq!(inside.let_go(0), None, "there is nothing to let go");

        let mut between = current(&["aaaa", "bbbb"]);
        assert_eq!(between.let_go(0).unwrap().offset, 10);
        assert!(between.is_done());

        let mut last = current(&["aaaa", "bbbb"]);
        last.sent(8);
        assert_eq!(last.let_go(0).unwrap().offset, 20);
    }

    #[test]
    fn letting_go_can_keep_some_frames_ahead() {
        let mut current = current(&["aaaa", "bbbb", "cccc"]);
        assert_eq!(current.let_go(13).unwrap().offset, 12);
        assert_eq!(current.left(), 2);
    }

    #[test]
    fn an_array_is_due_when_full_or_after_its_wait() {
        let now = Instant::now();
        let mut out = SendBuffer::default();
        let mut batch = ArrayBuilder::new(2, 1 << 20, now);
        assert_eq!(batch.due(), None);
        let mut current = current(&["1", "2", "3"]);
        assert_eq!(batch.gather(&mut current, 10, now), 2);
        assert!(batch.is_full());
        batch.send(&mut out);
        assert_eq!(&out.into_bytes(b"")[2..], b"[1,2]");
        assert_eq!(batch.gather(&mut current, 10, now), 1);
        assert!(!batch.is_full());
        assert_eq!(batch.due(), Some(now + BATCH_WAIT_MAX));
    }
}
