//! The ways of sending records: each record a message of its own, or arrays of them.
//!
//! ```text
//! OutgoingChunk ─ send ─┬ single frames: written from the chunk ─▶ delivered at once
//!                       └ arrays: copied into the write buffer ──▶ delivered when it is written
//! ```

use std::io;

use tokio::time::Instant;

use super::arrays::ArraySink;
use super::chunk::OutgoingChunk;
use super::delivery_listener::DeliveryListener;
use super::single_frames::{SentRecords, SingleFrameSink};
use crate::socket::session::SocketSession;
use crate::socket::write_buffer::WriteBuffer;
use kafka_client::consumer::TopicPartition;

/// How one socket sends its records.
#[derive(Debug)]
pub(super) enum RecordSink {
    /// One record per message.
    SingleFrames(SingleFrameSink),
    /// `batchSize` records per message.
    Arrays(ArraySink),
}

impl RecordSink {
    /// `batch_size` is the parameter; an array is not much longer than `bytes_max`.
    pub(super) fn new(batch_size: Option<u32>, bytes_max: usize, now: Instant) -> Self {
        match batch_size {
            None => Self::SingleFrames(SingleFrameSink::default()),
            Some(size) => Self::Arrays(ArraySink::new(size, bytes_max, now)),
        }
    }

    /// Sends records of the chunk, of which `permits` may be begun; at least one of them, or
    /// the rest of the one under way.
    pub(super) fn send(
        &mut self,
        chunk: &mut OutgoingChunk,
        permits: usize,
        session: &mut SocketSession,
        listener: &mut impl DeliveryListener,
        now: Instant,
    ) -> io::Result<SentRecords> {
        match self {
            Self::SingleFrames(frames) => frames.send(chunk, permits, session, listener),
            Self::Arrays(arrays) => Ok(SentRecords {
                begun: arrays.send(chunk, permits, &mut session.out, now),
                blocked: false,
            }),
        }
    }

    /// Reports what was delivered by writing what was encrypted, and then the session's buffer.
    pub(super) fn take_delivered(
        &mut self,
        session: &SocketSession,
        listener: &mut impl DeliveryListener,
    ) {
        match self {
            Self::SingleFrames(frames) => frames.take_delivered(listener),
            Self::Arrays(arrays) => arrays.take_delivered(session.out_written(), listener),
        }
    }

    /// When [`finish_due`](Self::finish_due) has something to finish.
    pub(super) fn due_at(&self) -> Option<Instant> {
        match self {
            Self::SingleFrames(_) => None,
            Self::Arrays(arrays) => arrays.due_at(),
        }
    }

    /// Appends to `out` what waits for further records and has waited long enough; whether
    /// there was any.
    pub(super) fn finish_due(&mut self, out: &mut WriteBuffer, now: Instant) -> bool {
        match self {
            Self::SingleFrames(_) => false,
            Self::Arrays(arrays) => arrays.finish_due_array(out, now),
        }
    }

    /// All of the chunk went through [`send`](Self::send). The offsets after its last record
    /// may hold none that is to be delivered (control records, aborted transactions): the
    /// position advances past them.
    pub(super) fn finish_chunk(
        &mut self,
        chunk: &OutgoingChunk,
        out: &WriteBuffer,
        listener: &mut impl DeliveryListener,
    ) {
        let Some(end) = chunk.end() else {
            return;
        };
        match self {
            Self::SingleFrames(_) => listener.advance_to(chunk.tp(), end),
            Self::Arrays(arrays) => arrays.advance_to(chunk.tp(), end, out),
        }
    }

    /// Partitions are about to be revoked: appends to `out` what waits for further records.
    pub(super) fn prepare_revoke(&mut self, out: &mut WriteBuffer) {
        if let Self::Arrays(arrays) = self {
            arrays.finish_array(out);
        }
    }

    /// These partitions are revoked: what of them is not written is not reported.
    pub(super) fn revoke(&mut self, partitions: &[TopicPartition]) {
        match self {
            Self::SingleFrames(frames) => frames.remove_partitions(partitions),
            Self::Arrays(arrays) => arrays.remove_partitions(partitions),
        }
    }

    /// Frees memory that is not in use.
    pub(super) fn shrink(&mut self) {
        if let Self::Arrays(arrays) = self {
            arrays.shrink();
        }
    }
}
