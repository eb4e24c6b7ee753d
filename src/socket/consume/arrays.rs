//! The sink with `batchSize`: records are copied into arrays, one array per frame.
//!
//! ```text
//! OutgoingChunk ─ copied ─▶ array ─ batchSize records, or 20 ms ─▶ frame in the write buffer
//!                             │                                           │ written
//!                             └ records of the array ─▶ of the frame ─────┴─▶ delivered
//! ```

use std::collections::VecDeque;

use bytes::{BufMut, BytesMut};
use tokio::time::{Duration, Instant};

use super::chunk::OutgoingChunk;
use super::delivery_listener::DeliveryListener;
use super::encoded_frames::RecordFrame;
use crate::socket::write_buffer::WriteBuffer;
use kafka_client::consumer::{FetchPosition, TopicPartition};
use websocket::frame::Opcode;

/// How long after its first record an array is sent that is not full.
const ARRAY_WAIT_MAX: Duration = Duration::from_millis(20);
/// Frames are gathered up to this many bytes before a write.
const GATHER_BYTES: usize = 64 << 10;
/// A payload buffer that grew beyond this is not kept.
const PAYLOAD_KEEP_MAX: usize = 64 << 10;

/// The arrays of one socket.
#[derive(Debug)]
pub(super) struct ArraySink {
    size: usize,
    bytes_max: usize,
    /// The array under way, without its end.
    payload: BytesMut,
    /// How many records are in it.
    len: usize,
    /// Which records they are.
    records: Vec<ArrayRecords>,
    /// When the first of them came.
    since: Instant,
    /// The records of the frames in the write buffer, by the byte after their frame.
    sending: VecDeque<(u64, ArrayRecords)>,
}

/// Records of one partition that a frame carries.
#[derive(Clone, Debug)]
struct ArrayRecords {
    tp: TopicPartition,
    /// In order; the last one tells how far the partition is delivered.
    frames: Vec<RecordFrame>,
    /// How far the partition is delivered where nothing after them is to be.
    end: Option<FetchPosition>,
}

impl ArraySink {
    /// Arrays of at most `size` records, and not many more than `bytes_max` bytes.
    pub(super) fn new(size: u32, bytes_max: usize, now: Instant) -> Self {
        Self {
            size: size as usize,
            bytes_max,
            payload: BytesMut::new(),
            len: 0,
            records: Vec::new(),
            since: now,
            sending: VecDeque::new(),
        }
    }

    /// Takes records of the chunk, at most `permits`; the arrays that become full are
    /// appended to `out`. How many records it took.
    pub(super) fn send(
        &mut self,
        chunk: &mut OutgoingChunk,
        permits: usize,
        out: &mut WriteBuffer,
        now: Instant,
    ) -> usize {
        let mut left = permits;
        while left > 0 && chunk.has_frame() && out.len() < GATHER_BYTES {
            left -= self.gather(chunk, left, now);
            if self.is_full() {
                self.finish_array(out);
            }
        }
        permits - left
    }

    fn gather(&mut self, chunk: &mut OutgoingChunk, permits: usize, now: Instant) -> usize {
        let mut taken = 0;
        while taken < permits
            && !self.is_full()
            && let Some((frame, payload)) = chunk.take_frame()
        {
            if self.len == 0 {
                self.since = now;
            }
            self.payload.put_u8(if self.len == 0 { b'[' } else { b',' });
            self.payload.put_slice(payload);
            self.note_record(chunk.tp(), frame);
            self.len += 1;
            taken += 1;
        }
        taken
    }

    /// Whether the array is to be sent without waiting.
    fn is_full(&self) -> bool {
        self.len >= self.size || self.payload.len() >= self.bytes_max
    }

    /// When the array is to be sent at the latest; `None` while it is empty.
    pub(super) fn due_at(&self) -> Option<Instant> {
        (self.len > 0).then(|| self.since + ARRAY_WAIT_MAX)
    }

    /// Appends the array to `out` if it has waited long enough; whether it did.
    pub(super) fn finish_due_array(&mut self, out: &mut WriteBuffer, now: Instant) -> bool {
        let due = self.is_full() || self.due_at().is_some_and(|due| due <= now);
        if due {
            self.finish_array(out);
        }
        due
    }

    /// Appends the array to `out`, if there is one.
    pub(super) fn finish_array(&mut self, out: &mut WriteBuffer) {
        if self.len == 0 {
            return;
        }
        self.payload.put_u8(b']');
        out.append_message(Opcode::Text, &self.payload);
        let end = out.appended();
        let records = self.records.drain(..);
        self.sending.extend(records.map(|records| (end, records)));
        self.len = 0;
        self.payload.clear();
        if self.payload.capacity() > PAYLOAD_KEEP_MAX {
            self.payload = BytesMut::new();
        }
    }

    /// Reports the records whose frame is within the first `written` bytes that were appended.
    pub(super) fn take_delivered(&mut self, written: u64, listener: &mut impl DeliveryListener) {
        while let Some((end, _)) = self.sending.front()
            && *end <= written
            && let Some((_, records)) = self.sending.pop_front()
        {
            listener.delivered(&records.tp, &records.frames);
            if let Some(end) = records.end {
                listener.advance_to(&records.tp, end);
            }
        }
    }

    /// After what was taken of `tp` nothing is to be delivered before `end`.
    pub(super) fn advance_to(
        &mut self,
        tp: &TopicPartition,
        end: FetchPosition,
        out: &WriteBuffer,
    ) {
        match self.records.iter_mut().rev().find(|known| known.tp == *tp) {
            Some(known) => known.end = Some(end),
            // What was taken of it is in the write buffer, or delivered.
            None => {
                let records = ArrayRecords {
                    tp: tp.clone(),
                    frames: Vec::new(),
                    end: Some(end),
                };
                self.sending.push_back((out.appended(), records));
            }
        }
    }

    /// What is in the write buffer of these partitions is not reported as delivered.
    pub(super) fn remove_partitions(&mut self, partitions: &[TopicPartition]) {
        self.sending
            .retain(|(_, records)| !partitions.contains(&records.tp));
    }

    /// Frees memory while the array is empty.
    pub(super) fn shrink(&mut self) {
        if self.len == 0 {
            self.payload = BytesMut::new();
            self.records = Vec::new();
        }
    }

    fn note_record(&mut self, tp: &TopicPartition, frame: RecordFrame) {
        match self.records.last_mut() {
            Some(last) if last.tp == *tp => {
                last.frames.push(frame);
                last.end = None;
            }
            _ => self.records.push(ArrayRecords {
                tp: tp.clone(),
                frames: vec![frame],
                end: None,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::consume::chunk::tests::chunk;

    #[derive(Default)]
    struct RecordedDeliveries(Vec<i64>);

    impl DeliveryListener for RecordedDeliveries {
        fn delivered(&mut self, _: &TopicPartition, frames: &[RecordFrame]) {
            self.0.extend(frames.iter().map(|frame| frame.offset));
        }

        fn advance_to(&mut self, _: &TopicPartition, end: FetchPosition) {
            self.0.push(end.offset);
        }
    }

    #[test]
    fn an_array_is_sent_when_full_or_after_its_wait() {
        let now = Instant::now();
        let mut out = WriteBuffer::new(0, None);
        let mut sink = ArraySink::new(2, 1 << 20, now);
        assert_eq!(sink.due_at(), None);
        let mut chunk = chunk(&["1", "2", "3"]);
        assert_eq!(sink.send(&mut chunk, 10, &mut out, now), 3);
        assert_eq!(out.appended(), 7, "the array that is full");
        assert_eq!(sink.due_at(), Some(now + ARRAY_WAIT_MAX));
        assert!(!sink.finish_due_array(&mut out, now));
        assert!(sink.finish_due_array(&mut out, now + ARRAY_WAIT_MAX));
        assert_eq!(&out.into_bytes()[..], b"\x81\x05[1,2]\x81\x03[3]");
    }

    #[test]
    fn records_are_delivered_when_their_array_is_written() {
        let now = Instant::now();
        let mut out = WriteBuffer::new(0, None);
        let mut sink = ArraySink::new(2, 1 << 20, now);
        let mut chunk = chunk(&["1", "2", "3"]);
        assert_eq!(sink.send(&mut chunk, 2, &mut out, now), 2);
        let mut listener = RecordedDeliveries::default();
        sink.take_delivered(out.written(), &mut listener);
        assert!(listener.0.is_empty());
        assert_eq!(sink.sending.front().map(|(end, _)| *end), Some(7));
        sink.remove_partitions(&[TopicPartition::new("t", 0)]);
        assert!(sink.sending.is_empty(), "revoked before it was written");
    }
}
