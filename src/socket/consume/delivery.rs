//! Sends what a consuming socket has taken from its consumer, until something holds it up.
//!
//! ```text
//! send buffer ─ flushed ─▶ chunk ─ rate ─▶ sink: single frames, or arrays
//!      │                     │                          │
//!   Blocked               Drained          RateLimited ─┴─ Blocked
//! ```

use tokio::time::Instant;

use super::single_frames::send_frames;
use super::{CHUNK_HELD_MAX, ConsumingSocket, OutgoingChunk, RecordSink};
use crate::socket::close::CloseReason;
use kafka_client::TopicPartition;

/// Bytes of frames that a socket with a `rate` keeps ahead, in a copy, of a chunk that it held
/// for long.
const AHEAD_BYTES: usize = 64 << 10;

/// How far sending got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendProgress {
    /// Everything is sent: more records can be taken.
    Drained,
    /// The turn is over; there may be more to send.
    TurnOver,
    /// The socket's send buffer in the kernel is full.
    Blocked,
    /// The rate allows nothing more until then.
    RateLimited(Instant),
}

impl ConsumingSocket {
    /// Sends until all is sent, or something holds it up.
    pub(super) fn deliver(&mut self, now: Instant) -> Result<SendProgress, CloseReason> {
        loop {
            if !self.is_inside_frame() && !self.flush(now)? {
                return Ok(SendProgress::Blocked);
            }
            let Some(chunk) = &mut self.chunk else {
                return self.send_due_array(now);
            };
            if chunk.is_sent() {
                self.finish_chunk(now);
                continue;
            }
            let permits = match &mut self.rate {
                Some(rate) => rate.available(now),
                None => usize::MAX,
            };
            if permits == 0 && !chunk.is_inside_frame() {
                return self.wait_for_rate(now);
            }
            let begun = match &mut self.sink {
                RecordSink::SingleFrames => {
                    let sent = send_frames(chunk, permits, &mut self.session)?;
                    if chunk.is_assigned {
                        let frames = &chunk.encoded.frames[sent.completed];
                        let consumer = &mut self.consumer;
                        self.offsets.delivered(consumer, chunk.tp(), frames, now);
                    }
                    if sent.blocked {
                        self.spend_permits(sent.begun);
                        return Ok(SendProgress::Blocked);
                    }
                    sent.begun
                }
                RecordSink::Arrays(arrays) => {
                    arrays.send(chunk, permits, &mut self.session.out, now)
                }
            };
            self.spend_permits(begun);
        }
    }

    fn spend_permits(&mut self, records: usize) {
        if let Some(rate) = &mut self.rate {
            rate.consume(records);
        }
    }

    /// Whether a frame is partly sent from its chunk: nothing else may be sent before its
    /// rest.
    fn is_inside_frame(&self) -> bool {
        self.chunk
            .as_ref()
            .is_some_and(OutgoingChunk::is_inside_frame)
    }

    /// Writes the send buffer; whether all of it went.
    fn flush(&mut self, now: Instant) -> Result<bool, CloseReason> {
        let all = self.session.flush()?;
        if let RecordSink::Arrays(arrays) = &mut self.sink {
            while let Some(delivered) = arrays.next_delivered(&self.session.out) {
                let (consumer, tp) = (&mut self.consumer, &delivered.tp);
                self.offsets.delivered(consumer, tp, &delivered.frames, now);
                if let Some(end) = delivered.end {
                    self.offsets.advanced_to(consumer, tp, end, now);
                }
            }
        }
        Ok(all)
    }

    /// Sends an array that has waited long enough.
    fn send_due_array(&mut self, now: Instant) -> Result<SendProgress, CloseReason> {
        if let RecordSink::Arrays(arrays) = &mut self.sink
            && arrays.finish_due_array(&mut self.session.out, now)
            && !self.flush(now)?
        {
            return Ok(SendProgress::Blocked);
        }
        Ok(SendProgress::Drained)
    }

    /// The rate allows no record now. The chunk stays, unless for long or where others wait for
    /// its memory: what is released is fetched again.
    fn wait_for_rate(&mut self, now: Instant) -> Result<SendProgress, CloseReason> {
        let next = self.rate.map_or(now, |rate| rate.next_permit_at());
        let held_since = self.chunk.as_ref().map(|chunk| chunk.since);
        let is_held_long = held_since.is_some_and(|since| now >= since + CHUNK_HELD_MAX);
        if is_held_long || self.consumer.is_memory_awaited() {
            self.release_chunk(AHEAD_BYTES);
        }
        match self.send_due_array(now)? {
            SendProgress::Blocked => Ok(SendProgress::Blocked),
            _ => Ok(SendProgress::RateLimited(next)),
        }
    }

    /// The chunk is sent, or copied into arrays.
    fn finish_chunk(&mut self, now: Instant) {
        let Some(chunk) = self.chunk.take() else {
            return;
        };
        // The offsets behind its last record may hold none that is to be delivered (control
        // records, aborted transactions): the position advances past them.
        let Some(end) = chunk.end() else {
            return;
        };
        match &mut self.sink {
            RecordSink::Arrays(arrays) => arrays.advanced_to(chunk.tp(), end, &self.session.out),
            RecordSink::SingleFrames => {
                let consumer = &mut self.consumer;
                self.offsets.advanced_to(consumer, chunk.tp(), end, now);
            }
        }
    }

    /// Releases the chunk under way, but for the frame that was begun and `bytes_max`; what
    /// is not kept is read again later.
    pub(super) fn release_chunk(&mut self, bytes_max: usize) {
        let Some(chunk) = &mut self.chunk else {
            return;
        };
        if let Some(position) = chunk.release(bytes_max) {
            let tp = chunk.tp().clone();
            self.consumer.seek(&tp, position);
        }
    }

    /// These partitions are revoked: nothing more of them is sent, but for the frames that
    /// were begun, and what of them is not yet written is not committed: it is delivered
    /// again, to the member that they are assigned to next.
    pub(super) fn revoke_partitions(
        &mut self,
        partitions: &[TopicPartition],
        now: Instant,
    ) -> Result<(), CloseReason> {
        if let RecordSink::Arrays(arrays) = &mut self.sink {
            arrays.finish_array(&mut self.session.out);
        }
        if !self.is_inside_frame() {
            self.flush(now)?;
        }
        if let RecordSink::Arrays(arrays) = &mut self.sink {
            arrays.remove_partitions(partitions);
        }
        if let Some(chunk) = &mut self.chunk
            && partitions.contains(chunk.tp())
        {
            chunk.revoke();
        }
        self.offsets.remove_partitions(partitions);
        Ok(())
    }
}
