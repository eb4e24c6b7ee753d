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
use super::single_frames::{self, SentRecords};
use crate::socket::session::SocketSession;
use crate::socket::write_buffer::WriteBuffer;
use kafka_client::consumer::TopicPartition;

/// How one socket sends its records.
#[derive(Debug)]
pub(super) enum RecordSink {
    /// One record per message.
    SingleFrames,
    /// `batchSize` records per message.
    Arrays(ArraySink),
}

impl RecordSink {
    /// `batch_size` is the parameter; an array is not much longer than `bytes_max`.
    pub(super) fn new(batch_size: Option<u32>, bytes_max: usize, now: Instant) -> Self {
        match batch_size {
            None => Self::SingleFrames,
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
            Self::SingleFrames => single_frames::send(chunk, permits, session, listener),
            Self::Arrays(arrays) => Ok(SentRecords {
                begun: arrays.send(chunk, permits, &mut session.out, now),
                blocked: false,
            }),
        }
    }

    /// Reports what was delivered by writing `out`.
    pub(super) fn take_delivered(
        &mut self,
        out: &WriteBuffer,
        listener: &mut impl DeliveryListener,
    ) {
        if let Self::Arrays(arrays) = self {
            arrays.take_delivered(out, listener);
        }
    }

    /// When [`finish_due`](Self::finish_due) has something to finish.
    pub(super) fn due_at(&self) -> Option<Instant> {
        match self {
            Self::SingleFrames => None,
            Self::Arrays(arrays) => arrays.due_at(),
        }
    }

    /// Appends to `out` what waits for further records and has waited long enough; whether
    /// there was any.
    pub(super) fn finish_due(&mut self, out: &mut WriteBuffer, now: Instant) -> bool {
        match self {
            Self::SingleFrames => false,
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
            Self::SingleFrames => listener.advance_to(chunk.tp(), end),
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
        if let Self::Arrays(arrays) = self {
            arrays.remove_partitions(partitions);
        }
    }

    /// Frees memory that is not in use.
    pub(super) fn shrink(&mut self) {
        if let Self::Arrays(arrays) = self {
            arrays.shrink();
        }
    }
}
