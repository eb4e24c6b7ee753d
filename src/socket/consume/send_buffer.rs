//! Bytes of our own on their way to a client, and what is delivered when they are out.
//!
//! Control frames, answers and arrays of records go through here; single records do not:
//! they are written from the chunk they are encoded in.

use std::collections::VecDeque;
use std::io;

use bytes::BytesMut;

use super::super::stream::WebSocketStream;
use super::frame_cache::RecordFrame;
use kafka_client::TopicPartition;
use kafka_client::consumer::FetchPosition;

/// Whole frames, oldest first; the first may be partly written.
#[derive(Debug, Default)]
pub(super) struct SendBuffer {
    buffer: BytesMut,
    /// Bytes that went through the buffer so far.
    added: u64,
    /// Records in it, by the byte behind their frame.
    records: VecDeque<(u64, DeliveredRecords)>,
}

/// Records of one partition that a frame carries.
#[derive(Clone, Debug)]
pub(super) struct DeliveredRecords {
    /// Their partition.
    pub(super) tp: TopicPartition,
    /// In order; the last one says how far the partition is delivered.
    pub(super) frames: Vec<RecordFrame>,
    /// How far it is passed, when nothing to deliver lies in between.
    pub(super) end: Option<FetchPosition>,
}

impl SendBuffer {
    /// Appends frames.
    pub(super) fn write(&mut self, frames: impl FnOnce(&mut BytesMut)) {
        let before = self.buffer.len();
        frames(&mut self.buffer);
        self.added += (self.buffer.len() - before) as u64;
    }

    /// Says that the frames so far carry these records.
    pub(super) fn carries(&mut self, delivered: DeliveredRecords) {
        self.records.push_back((self.added, delivered));
    }

    /// Hands bytes to the kernel; whether all of them went.
    pub(super) fn flush(&mut self, socket: &WebSocketStream) -> io::Result<bool> {
        let all = socket.flush(&mut self.buffer)?;
        if all && self.buffer.capacity() > KEEP_MAX {
            self.buffer = BytesMut::new();
        }
        Ok(all)
    }

    /// The next records that are wholly with the kernel.
    pub(super) fn delivered(&mut self) -> Option<DeliveredRecords> {
        let sent = self.added - self.buffer.len() as u64;
        match self.records.front() {
            Some((end, _)) if *end <= sent => self.records.pop_front().map(|(_, records)| records),
            _ => None,
        }
    }

    /// Nothing that is on its way of these partitions counts any more.
    pub(super) fn forget(&mut self, partitions: &[TopicPartition]) {
        self.records
            .retain(|(_, records)| !partitions.contains(&records.tp));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Gives the buffer's memory back while there is nothing in it.
    pub(super) fn shrink(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// What is left, behind `rest`.
    pub(super) fn into_bytes(self, rest: &[u8]) -> BytesMut {
        if rest.is_empty() {
            return self.buffer;
        }
        let mut bytes = BytesMut::from(rest);
        bytes.extend_from_slice(&self.buffer);
        bytes
    }
}

/// A buffer that grew beyond this is not kept.
const KEEP_MAX: usize = 4 << 10;
