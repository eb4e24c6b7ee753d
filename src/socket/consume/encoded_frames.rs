//! A chunk's records as frames, encoded once for all sockets with the same formats.
//!
//! ```text
//! Chunk ─ derived[formats] ─▶ EncodedFrames { bytes: frame frame frame …, frames: end, offset, … }
//!                                  ▲            ▲
//!                               socket A     socket B      each writes slices of it
//! ```

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::codec::RecordFormats;
use crate::codec::outbound::{OutboundRecord, RecordWriter};
use kafka_client::consumer::{Chunk, FetchPosition, TopicPartition};
use websocket::frame::{self, Opcode};

/// Frames, one after the other, and where each of them ends.
#[derive(Debug)]
pub(super) struct EncodedFrames {
    /// The records' partition.
    pub(super) tp: TopicPartition,
    /// Whole text frames.
    pub(super) bytes: Bytes,
    /// One per frame.
    pub(super) frames: Vec<RecordFrame>,
}

/// One frame, and the record in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordFrame {
    /// Where in the bytes it ends.
    pub(super) end: u32,
    /// Of the batch that the record came in; -1 when unknown.
    pub(super) leader_epoch: i32,
    /// The record's offset.
    pub(super) offset: i64,
    /// The record's timestamp.
    pub(super) timestamp: i64,
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

impl EncodedFrames {
    /// The chunk's frames in these formats; encoded by the first socket that asks for them.
    pub(super) fn of(chunk: &Chunk, formats: RecordFormats) -> Arc<Self> {
        chunk.derived.get_or_insert_with(key(formats), || {
            let encoded = Self::encode(chunk, formats);
            let size = encoded.bytes.len() + size_of_val(encoded.frames.as_slice());
            (Arc::new(encoded), size)
        })
    }

    fn encode(chunk: &Chunk, formats: RecordFormats) -> Self {
        let writer = RecordWriter::new(&chunk.tp.topic, chunk.tp.partition, formats);
        let mut encoder = FrameEncoder {
            chunk,
            bytes: BytesMut::new(),
            frames: Vec::new(),
        };
        let mut unreadable = chunk.decoded.unreadable.iter().peekable();
        let mut records = chunk.records().peekable();
        loop {
            let record = records.peek().map(|record| record.offset);
            // What cannot be delivered is reported in its place.
            if let Some(range) =
                unreadable.next_if(|range| record.is_none_or(|record| range.last_offset < record))
            {
                encoder.add(range.last_offset, NO_TIMESTAMP, |out| {
                    writer.write_unreadable(out, range);
                });
                continue;
            }
            let Some(record) = records.next() else { break };
            encoder.add(record.offset, record.timestamp, |out| {
                writer.write(out, OutboundRecord::from(record));
            });
        }
        Self {
            tp: chunk.tp.clone(),
            bytes: encoder.bytes.freeze(),
            frames: encoder.frames,
        }
    }

    /// Where frame `index` starts.
    pub(super) fn start_of(&self, index: usize) -> usize {
        match index.checked_sub(1) {
            None => 0,
            Some(before) => self.frames[before].end as usize,
        }
    }

    /// The frame's payload: the record as JSON.
    pub(super) fn payload(&self, index: usize) -> &[u8] {
        let bytes = &self.bytes[self.start_of(index)..self.frames[index].end as usize];
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

    /// A copy of the bytes from `at` to the end of the frame before `end`, with
    /// the frames from `next` on.
    pub(super) fn copy_range(&self, at: usize, next: usize, end: usize) -> Self {
        let bytes = Bytes::copy_from_slice(&self.bytes[at..self.start_of(end)]);
        let frames = self.frames[next..end].iter().map(|frame| RecordFrame {
            end: frame.end - at as u32,
            ..*frame
        });
        Self {
            tp: self.tp.clone(),
            bytes,
            frames: frames.collect(),
        }
    }
}

/// The frames of a chunk, as far as they are encoded.
struct FrameEncoder<'a> {
    chunk: &'a Chunk,
    bytes: BytesMut,
    frames: Vec<RecordFrame>,
}

impl FrameEncoder<'_> {
    /// Adds a frame of what `write` writes, for the record at `offset`.
    #[inline]
    fn add(&mut self, offset: i64, timestamp: i64, write: impl FnOnce(&mut BytesMut)) {
        let start = frame::begin_frame(&mut self.bytes);
        write(&mut self.bytes);
        frame::end_frame(&mut self.bytes, start, Opcode::Text);
        self.frames.push(RecordFrame {
            end: u32::try_from(self.bytes.len()).expect("a chunk is far below 4 GiB as JSON"),
            leader_epoch: self.chunk.leader_epoch_before(offset + 1),
            offset,
            timestamp,
        });
    }
}

/// The timestamp in the id of what has none.
const NO_TIMESTAMP: i64 = -1;

/// The formats as a key of what is derived from a chunk.
fn key(formats: RecordFormats) -> u64 {
    let key = formats.key.map_or(0, |format| format as u64 + 1);
    key << 8 | formats.value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(texts: &[&str]) -> EncodedFrames {
        let mut out = BytesMut::new();
        let mut frames = Vec::new();
        for (i, text) in texts.iter().enumerate() {
            frame::write_text(&mut out, text.as_bytes());
            frames.push(RecordFrame {
                end: out.len() as u32,
                leader_epoch: 0,
                offset: i as i64 * 10,
                timestamp: 0,
            });
        }
        EncodedFrames {
            tp: TopicPartition::new("t", 0),
            bytes: out.freeze(),
            frames,
        }
    }

    #[test]
    fn payloads_are_found_after_headers_of_every_size() {
        let (long, longer) = ("x".repeat(1000), "y".repeat(70_000));
        let encoded = encoded(&["a", &long, &longer]);
        assert_eq!(encoded.payload(0), b"a");
        assert_eq!(encoded.payload(1), long.as_bytes());
        assert_eq!(encoded.payload(2), longer.as_bytes());
        assert_eq!(encoded.index_at_or_after(1), 1);
        assert_eq!(encoded.index_at_or_after(21), 3);
    }

    #[test]
    fn a_copy_has_the_rest_of_a_frame_and_those_after_it() {
        let encoded = encoded(&["aaaa", "bbbb", "cccc"]);
        let copy = encoded.copy_range(8, 1, 2);
        assert_eq!(&copy.bytes[..], b"bbbb");
        assert_eq!(copy.frames.len(), 1);
        assert_eq!(copy.frames[0].end, 4);
        assert_eq!(copy.frames[0].next_position().offset, 11);
        let none = encoded.copy_range(6, 1, 1);
        assert!(none.bytes.is_empty() && none.frames.is_empty());
    }
}
