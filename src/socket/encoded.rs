//! A chunk's records as frames, made once for every socket that wants the same types.
//!
//! ```text
//! Chunk ─ derived[types] ──▶ Encoded { bytes: frame frame frame …, marks: end, offset, … }
//!                               ▲            ▲
//!                            socket A     socket B      each writes slices of it
//! ```

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::codec::RecordFormats;
use crate::codec::outbound::{OutboundRecord, RecordWriter};
use kafka_client::TopicPartition;
use kafka_client::consumer::{Chunk, FetchPosition};
use websocket::frame::{self, Opcode};

/// Frames, one behind the other, and where each of them ends.
#[derive(Debug)]
pub(super) struct Encoded {
    /// Whose records they are.
    pub(super) tp: TopicPartition,
    /// Whole text frames.
    pub(super) bytes: Bytes,
    /// One per frame.
    pub(super) marks: Vec<Mark>,
}

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Where in the bytes it ends.
    pub(super) end: u32,
    /// Of the batch that the record came in; -1 when unknown.
    pub(super) epoch: i32,
    /// The record's.
    pub(super) offset: i64,
    /// The record's.
    pub(super) timestamp: i64,
}

impl Mark {
    /// The position behind the record.
    pub(super) fn next(&self) -> FetchPosition {
        FetchPosition {
            offset: self.offset + 1,
            leader_epoch: self.epoch,
        }
    }
}

impl Encoded {
    /// The chunk's frames; made now if nobody has asked for these types before.
    pub(super) fn of(chunk: &Chunk, types: RecordFormats) -> Arc<Self> {
        chunk.derived.get_or_insert_with(key(types), || {
            let encoded = Self::make(chunk, types);
            let size = encoded.bytes.len() + size_of_val(encoded.marks.as_slice());
            (Arc::new(encoded), size)
        })
    }

    fn make(chunk: &Chunk, types: RecordFormats) -> Self {
        let writer = RecordWriter::new(&chunk.tp.topic, chunk.tp.partition, types);
        let mut out = BytesMut::new();
        let mut marks = Vec::new();
        for record in chunk.records() {
            let (offset, timestamp) = (record.offset, record.timestamp);
            let begun = frame::begin_frame(&mut out);
            writer.write(&mut out, OutboundRecord::from(record));
            frame::end_frame(&mut out, begun, Opcode::Text);
            marks.push(Mark {
                end: u32::try_from(out.len()).expect("a chunk is far below 4 GiB as JSON"),
                epoch: chunk.leader_epoch_before(offset + 1),
                offset,
                timestamp,
            });
        }
        Self {
            tp: chunk.tp.clone(),
            bytes: out.freeze(),
            marks,
        }
    }

    /// Where frame `index` begins.
    pub(super) fn begin(&self, index: usize) -> usize {
        match index.checked_sub(1) {
            None => 0,
            Some(before) => self.marks[before].end as usize,
        }
    }

    /// The frame's payload: the record as JSON.
    pub(super) fn payload(&self, index: usize) -> &[u8] {
        let bytes = &self.bytes[self.begin(index)..self.marks[index].end as usize];
        let header = match bytes[1] {
            127 => 10,
            126 => 4,
            _ => 2,
        };
        &bytes[header..]
    }

    /// The first frame whose record is not before `offset`.
    pub(super) fn index_of(&self, offset: i64) -> usize {
        self.marks.partition_point(|mark| mark.offset < offset)
    }

    /// A copy of the bytes from `at` to the end of the frame before `end`, with its marks
    /// from frame `next` on.
    pub(super) fn copy(&self, at: usize, next: usize, end: usize) -> Self {
        let bytes = Bytes::copy_from_slice(&self.bytes[at..self.begin(end)]);
        let marks = self.marks[next..end].iter().map(|mark| Mark {
            end: mark.end - at as u32,
            ..*mark
        });
        Self {
            tp: self.tp.clone(),
            bytes,
            marks: marks.collect(),
        }
    }
}

/// The types as a key of what is derived from a chunk.
fn key(types: RecordFormats) -> u64 {
    let key = types.key.map_or(0, |format| format as u64 + 1);
    key << 8 | types.value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(texts: &[&str]) -> Encoded {
        let mut out = BytesMut::new();
        let mut marks = Vec::new();
        for (i, text) in texts.iter().enumerate() {
            frame::write_text(&mut out, text.as_bytes());
            marks.push(Mark {
                end: out.len() as u32,
                epoch: 0,
                offset: i as i64 * 10,
                timestamp: 0,
            });
        }
        Encoded {
            tp: TopicPartition::new("t", 0),
            bytes: out.freeze(),
            marks,
        }
    }

    #[test]
    fn payloads_are_found_behind_headers_of_every_size() {
        let (long, longer) = ("x".repeat(1000), "y".repeat(70_000));
        let encoded = encoded(&["a", &long, &longer]);
        assert_eq!(encoded.payload(0), b"a");
        assert_eq!(encoded.payload(1), long.as_bytes());
        assert_eq!(encoded.payload(2), longer.as_bytes());
        assert_eq!(encoded.index_of(1), 1);
        assert_eq!(encoded.index_of(21), 3);
    }

    #[test]
    fn a_copy_has_the_rest_of_a_frame_and_those_behind_it() {
        let encoded = encoded(&["aaaa", "bbbb", "cccc"]);
        let copy = encoded.copy(8, 1, 2);
        assert_eq!(&copy.bytes[..], b"bbbb");
        assert_eq!(copy.marks.len(), 1);
        assert_eq!(copy.marks[0].end, 4);
        assert_eq!(copy.marks[0].next().offset, 11);
        let none = encoded.copy(6, 1, 1);
        assert!(none.bytes.is_empty() && none.marks.is_empty());
    }
}
