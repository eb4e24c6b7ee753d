//! A segment of a chunk's records as frames.
//!
//! ```text
//! Chunk │ record record … │ record record … │ one large record │ …
//!            ▼ encode           ▼                  ▼
//!        EncodedFrames      EncodedFrames      EncodedFrames { bytes: frame frame …, frames: end, offset, … }
//! ```
//!
//! # Invariants
//! - A segment has at most as many bytes of frames as its encoding says, or one larger frame.
//! - Encoding a record again gives the same bytes.
//! - A frame is compressed once, for all sockets that read the segment.

use std::ops::Range;

use bytes::BytesMut;

use super::frame_encoding::FrameEncoding;
use super::segment_buffer::SegmentBuffer;
use crate::codec::FrameFormat;
use crate::codec::avro::outbound::AvroRecordWriter;
use crate::codec::outbound::{OutboundRecord, RecordEncoder, RecordWriter};
use kafka_client::consumer::{Chunk, DerivedPermit, FetchPosition, Records, RecordsMark};
use websocket::frame::{self, Opcode};

/// Frames, one after the other, and where each of them ends.
#[derive(Debug)]
pub(super) struct EncodedFrames {
    /// Whole frames.
    pub(super) bytes: SegmentBuffer,
    /// One per frame.
    pub(super) frames: Vec<RecordFrame>,
    /// The first offset that it covers.
    pub(super) first_offset: i64,
    /// Where the next segment of the chunk begins; `None` after the last.
    pub(super) next: Option<SegmentStart>,
    /// Bytes of the keys and values of all its records, counted from where those before its first
    /// frame are.
    record_bytes: u32,
    /// Bytes of its frames before they were compressed.
    pub(super) plain_bytes: usize,
    /// Counts it in the fetch memory; a small copy is not counted.
    _permit: Option<DerivedPermit>,
}

/// Where in a chunk a segment begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentStart {
    /// Of the first record that may be in it.
    pub(super) offset: i64,
    /// Where that record stands, when it is known.
    mark: Option<RecordsMark>,
}

/// One frame, and the record in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordFrame {
    /// Where in the bytes it ends.
    pub(super) end: usize,
    /// Of the batch that the record came in; -1 when unknown.
    pub(super) leader_epoch: i32,
    /// The record's offset.
    pub(super) offset: i64,
    /// The record's timestamp.
    pub(super) timestamp: i64,
    /// Bytes of the keys and values of the segment's records before it; wraps around.
    pub(super) record_bytes_before: u32,
}

impl RecordFrame {
    /// The position after the record.
    pub(super) fn next_position(&self) -> FetchPosition {
        FetchPosition {
            offset: self.offset + 1,
            leader_epoch: self.leader_epoch,
        }
    }
}

impl SegmentStart {
    /// At the first record that is not before `offset`.
    pub(super) fn at(offset: i64) -> Self {
        Self { offset, mark: None }
    }
}

/// A segment that is to be encoded.
pub(super) struct SegmentEncoder<'a> {
    chunk: &'a Chunk,
    start: SegmentStart,
    /// It ends before this offset: what follows is encoded already.
    end: i64,
    encoding: FrameEncoding,
    writer: SegmentWriter<'a>,
}

/// Writes the records of a segment: what depends on their format is decided once for all.
enum SegmentWriter<'a> {
    Json(RecordWriter),
    Avro(AvroRecordWriter<'a>),
}

impl<'a> SegmentEncoder<'a> {
    /// From `start` on, of records before `end`.
    pub(super) fn new(
        chunk: &'a Chunk,
        encoding: FrameEncoding,
        start: SegmentStart,
        end: i64,
    ) -> Self {
        let tp = &chunk.tp;
        Self {
            chunk,
            start,
            end,
            encoding,
            writer: match encoding.format {
                FrameFormat::Json(formats) => {
                    SegmentWriter::Json(RecordWriter::new(&tp.topic, tp.partition, formats))
                }
                FrameFormat::Avro(framing) => {
                    SegmentWriter::Avro(AvroRecordWriter::new(&tp.topic, tp.partition, framing))
                }
            },
        }
    }

    /// About how many bytes its frames get, before they are compressed.
    pub(super) fn estimated_bytes(&self) -> usize {
        let all = self.estimated_chunk_bytes();
        let first = self.records().next().map_or(0, |record| {
            let record = OutboundRecord::from(record);
            match &self.writer {
                SegmentWriter::Json(writer) => writer.estimated_size(&record),
                SegmentWriter::Avro(writer) => writer.estimated_size(&record),
            }
        });
        all.min(self.encoding.segment_bytes_max().max(first))
    }

    /// About how many frames have so many bytes.
    fn estimated_frames(&self, bytes: usize) -> usize {
        let count = self.chunk.decoded.count() + self.chunk.decoded.unreadable.len();
        let fit = count.saturating_mul(bytes) / self.estimated_chunk_bytes().max(1);
        fit.min(count) + 1
    }

    /// About how many bytes all of the chunk gets.
    fn estimated_chunk_bytes(&self) -> usize {
        let decoded = &self.chunk.decoded;
        let (count, bytes) = (decoded.count(), decoded.bytes);
        let records = match &self.writer {
            SegmentWriter::Json(writer) => writer.estimated_total(count, bytes),
            SegmentWriter::Avro(writer) => writer.estimated_total(count, bytes),
        };
        records + decoded.unreadable.len() * UNREADABLE_ESTIMATE
    }

    fn records(&self) -> Records<'a> {
        match self.start.mark {
            Some(mark) => self.chunk.records_at(mark),
            None => self.chunk.records_from(self.start.offset),
        }
    }

    /// Encodes it, of about so many bytes. `permit` is for what that takes.
    pub(super) fn encode(self, bytes: usize, permit: DerivedPermit) -> EncodedFrames {
        match &self.writer {
            SegmentWriter::Json(writer) => self.encode_by(writer, bytes, permit),
            SegmentWriter::Avro(writer) => self.encode_by(writer, bytes, permit),
        }
    }

    fn encode_by<W: RecordEncoder>(
        &self,
        writer: &W,
        bytes: usize,
        mut permit: DerivedPermit,
    ) -> EncodedFrames {
        let mut frames: Vec<RecordFrame> = Vec::with_capacity(self.estimated_frames(bytes));
        let mut record_bytes = 0;
        let (bytes, (next, plain_bytes)) = SegmentBuffer::written(bytes, |out| {
            self.write_frames(writer, out, &mut frames, &mut record_bytes)
        });
        frames.shrink_to_fit();
        permit.resize(bytes.capacity() + size_of_val(frames.as_slice()));
        EncodedFrames {
            bytes,
            frames,
            first_offset: self.start.offset,
            next,
            record_bytes,
            plain_bytes,
            _permit: Some(permit),
        }
    }

    /// Writes the frames, and returns where the next segment begins, and how many bytes the frames
    /// had before they were compressed.
    fn write_frames<W: RecordEncoder>(
        &self,
        writer: &W,
        out: &mut BytesMut,
        frames: &mut Vec<RecordFrame>,
        record_bytes: &mut u32,
    ) -> (Option<SegmentStart>, usize) {
        let is_before = |last: i64| last < self.start.offset;
        let unreadable = &self.chunk.decoded.unreadable;
        let passed = unreadable.partition_point(|range| is_before(range.last_offset));
        let mut unreadable = unreadable[passed..].iter().peekable();
        let mut records = self.records();
        let mut mark = records.mark();
        let mut record = records.next();
        let bytes_max = self.encoding.segment_bytes_max();
        let mut plain_bytes = 0;
        loop {
            // What cannot be delivered is reported in its place.
            let before = |offset: i64| record.is_none_or(|record| offset < record.offset);
            let range = unreadable.peek().filter(|range| before(range.last_offset));
            let (offset, timestamp, estimate) = match (range, record) {
                (Some(range), _) => (range.last_offset, NO_TIMESTAMP, UNREADABLE_ESTIMATE),
                (None, Some(record)) => {
                    let size = writer.estimated_size(&OutboundRecord::from(record));
                    (record.offset, record.timestamp, size)
                }
                (None, None) => return (None, plain_bytes),
            };
            let start = out.len();
            let is_full = |bytes: usize| bytes > bytes_max && start > 0;
            let follows = Some(SegmentStart {
                offset,
                mark: Some(mark),
            });
            if offset >= self.end || is_full(plain_bytes + estimate) {
                return (follows, plain_bytes);
            }
            frame::begin_frame(out);
            match (range, record) {
                (Some(range), _) => writer.write_unreadable(out, range),
                (None, Some(record)) => writer.write(out, record.into()),
                (None, None) => {}
            }
            let opcode = match W::IS_TEXT || range.is_some() {
                true => Opcode::Text,
                false => Opcode::Binary,
            };
            let plain = out.len() - start;
            frame::end_message(out, start, opcode, self.encoding.deflate);
            let frame_bytes = match self.encoding.deflate {
                None => out.len() - start,
                Some(_) => plain,
            };
            if is_full(plain_bytes + frame_bytes) {
                out.truncate(start);
                return (follows, plain_bytes);
            }
            plain_bytes += frame_bytes;
            frames.push(RecordFrame {
                end: out.len(),
                leader_epoch: self.chunk.leader_epoch_before(offset + 1),
                offset,
                timestamp,
                record_bytes_before: *record_bytes,
            });
            if let (None, Some(record)) = (range, record) {
                let len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
                let bytes = len(record.key) + len(record.value);
                *record_bytes = record_bytes.wrapping_add(bytes as u32);
            }
            if range.is_some() {
                unreadable.next();
            } else {
                mark = records.mark();
                record = records.next();
            }
        }
    }
}

impl EncodedFrames {
    /// Where frame `index` starts.
    pub(super) fn start_of(&self, index: usize) -> usize {
        match index.checked_sub(1) {
            None => 0,
            Some(before) => self.frames[before].end,
        }
    }

    /// The frame's payload.
    pub(super) fn payload(&self, index: usize) -> &[u8] {
        let bytes = &self.bytes[self.start_of(index)..self.frames[index].end];
        let header = match bytes[1] {
            127 => 10,
            126 => 4,
            _ => 2,
        };
        &bytes[header..]
    }

    /// The first frame whose record is not before `offset`.
    pub(super) fn index_at_or_after(&self, offset: i64) -> usize {
        self.frames.partition_point(|frame| frame.offset < offset)
    }

    /// Whether a record at `offset`, or the first one after it, is in it or comes after it.
    pub(super) fn covers(&self, offset: i64) -> bool {
        let is_before_next = self.next.is_none_or(|next| offset < next.offset);
        self.first_offset <= offset && is_before_next
    }

    /// A copy of the bytes from `at` to the end of the frame before `end`, with
    /// the frames from `next` on.
    pub(super) fn copy_range(&self, at: usize, next: usize, end: usize) -> Self {
        let bytes = SegmentBuffer::copied(&self.bytes[at..self.start_of(end)]);
        let frames = self.frames[next..end].iter().map(|frame| RecordFrame {
            end: frame.end - at,
            ..*frame
        });
        Self {
            bytes,
            frames: frames.collect(),
            first_offset: self.first_offset,
            next: None,
            record_bytes: self.record_bytes_before(end),
            plain_bytes: 0,
            _permit: None,
        }
    }

    /// Bytes of the keys and values of the records of these frames.
    pub(super) fn record_bytes(&self, frames: Range<usize>) -> u64 {
        let end = self.record_bytes_before(frames.end);
        let bytes = end.wrapping_sub(self.record_bytes_before(frames.start));
        u64::from(bytes)
    }

    fn record_bytes_before(&self, index: usize) -> u32 {
        let frame = self.frames.get(index);
        frame.map_or(self.record_bytes, |frame| frame.record_bytes_before)
    }
}

/// The timestamp in the id of what has none.
const NO_TIMESTAMP: i64 = -1;
/// About how long the notice of unreadable records gets.
const UNREADABLE_ESTIMATE: usize = 500;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Frames with these payloads, of records at these offsets.
    pub(in crate::socket::consume) fn encoded(
        texts: &[&str],
        offset: impl Fn(i64) -> i64,
    ) -> EncodedFrames {
        let mut out = BytesMut::new();
        let mut frames = Vec::new();
        for (i, text) in texts.iter().enumerate() {
            frame::write_text(&mut out, text.as_bytes());
            frames.push(RecordFrame {
                end: out.len(),
                leader_epoch: 1,
                offset: offset(i as i64),
                timestamp: 0,
                record_bytes_before: 10 * i as u32,
            });
        }
        EncodedFrames {
            bytes: SegmentBuffer::copied(&out),
            frames,
            first_offset: offset(0),
            next: None,
            record_bytes: 10 * texts.len() as u32,
            plain_bytes: out.len(),
            _permit: None,
        }
    }

    #[test]
    fn payloads_are_found_after_headers_of_every_size() {
        let (long, longer) = ("x".repeat(1000), "y".repeat(70_000));
        let encoded = encoded(&["a", &long, &longer], |i| i * 10);
        assert_eq!(encoded.payload(0), b"a");
        assert_eq!(encoded.payload(1), long.as_bytes());
        assert_eq!(encoded.payload(2), longer.as_bytes());
        assert_eq!(encoded.index_at_or_after(1), 1);
        assert_eq!(encoded.index_at_or_after(21), 3);
    }

    #[test]
    fn a_copy_has_the_rest_of_a_frame_and_those_after_it() {
        let encoded = encoded(&["aaaa", "bbbb", "cccc"], |i| i * 10);
        let copy = encoded.copy_range(8, 1, 2);
        assert_eq!(&copy.bytes[..], b"bbbb");
        assert_eq!(copy.frames.len(), 1);
        assert_eq!(copy.frames[0].end, 4);
        assert_eq!(copy.frames[0].next_position().offset, 11);
        assert_eq!(copy.record_bytes(0..1), 10);
        assert_eq!(encoded.record_bytes(1..3), 20);
        assert_eq!(encoded.record_bytes(1..1), 0);
        let none = encoded.copy_range(6, 1, 1);
        assert!(none.bytes.is_empty() && none.frames.is_empty());
    }
}
