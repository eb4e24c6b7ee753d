//! Sends what a consuming socket has taken from its consumer, until something holds it up.
//!
//! ```text
//! write buffer ─ flushed ─▶ chunk ─▶ segment ─ rate ─▶ RecordSink: single frames, or arrays
//!      │                      │          │          │        │
//!   Blocked                AllSent  AwaitingFrames  RateLimited  Blocked
//! ```

use tokio::time::Instant;

use super::segment_buffer::SEGMENT_BYTES;
use super::{CHUNK_HELD_MAX, ConsumingSocket, OutgoingChunk};
use crate::socket::close::CloseReason;
use kafka_client::consumer::TopicPartition;

/// Bytes of frames that a socket with a `rate` keeps ahead, in a copy, of a chunk that it held
/// for long.
const AHEAD_BYTES: usize = 64 << 10;

/// How far sending got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendProgress {
    /// Everything is sent: more records can be taken.
    AllSent,
    /// The turn is over; there may be more to send.
    TurnOver,
    /// The kernel takes nothing more: its send buffer (`SO_SNDBUF`) is full.
    Blocked,
    /// The next frames wait for memory, or are being encoded; the wake signal is notified.
    AwaitingFrames,
    /// The rate allows nothing more until then.
    RateLimited(Instant),
}

impl ConsumingSocket {
    /// Sends until all is sent, or something holds it up; no further segment when those of this
    /// turn have half of [`SEGMENT_BYTES`] together, which `turn_bytes` counts.
    pub(super) fn deliver(
        &mut self,
        now: Instant,
        turn_bytes: &mut usize,
    ) -> Result<SendProgress, CloseReason> {
        loop {
            if !self.flush(now)? {
                return Ok(SendProgress::Blocked);
            }
            let Some(chunk) = &mut self.chunk else {
                return self.send_due(now);
            };
            let wake = &self.session.handle().wake;
            let is_here = match chunk.awaits_reread() {
                // While the client takes nothing, its record is not read again.
                true if !self.session.is_writable() => return Ok(SendProgress::Blocked),
                true => chunk.reread_frame(&self.consumer, wake)?,
                false if chunk.has_frame() || chunk.is_sent() => true,
                false if *turn_bytes >= SEGMENT_BYTES / 2 => return Ok(SendProgress::TurnOver),
                false => {
                    let is_here = chunk.load_segment(wake);
                    *turn_bytes += chunk.segment_bytes();
                    is_here
                }
            };
            if !is_here {
                self.session.end_blocked();
                return self.wait_for_frames(now);
            }
            let mut listener = self.offsets.listener(&mut self.consumer, now);
            if chunk.is_sent() {
                self.sink
                    .finish_chunk(chunk, &self.session.out, &mut listener);
                self.chunk = None;
                self.rate.give_back();
                continue;
            }
            if !chunk.has_frame() {
                continue;
            }
            let permits = self.rate.available(now);
            if permits == 0 && !chunk.is_inside_frame() {
                return self.wait_for_rate(now);
            }
            let session = &mut self.session;
            let first = chunk.next_frame();
            let sent = self
                .sink
                .send(chunk, permits, session, &mut listener, now)?;
            let frames = first..chunk.next_frame();
            if !frames.is_empty() {
                let bytes = chunk.record_bytes(frames.clone());
                self.topics.count(&chunk.tp().topic, frames.len(), bytes);
            }
            self.rate.consume(sent.begun);
            if sent.blocked {
                return Ok(SendProgress::Blocked);
            }
        }
    }

    /// Writes what is encrypted, and then the write buffer, unless a frame is partly sent from the
    /// chunk: nothing may be sent before its rest. `false` when something was not taken, or may
    /// not be with the kernel.
    fn flush(&mut self, now: Instant) -> Result<bool, CloseReason> {
        if !self.session.flush_encrypted()? {
            return Ok(false);
        }
        let chunk = self.chunk.as_ref();
        let all = chunk.is_some_and(OutgoingChunk::is_inside_frame) || self.session.flush()?;
        let mut listener = self.offsets.listener(&mut self.consumer, now);
        self.sink.take_delivered(&self.session, &mut listener);
        Ok(all)
    }

    /// The chunk's next frames are not to be had now. In the middle of a frame, nothing else may
    /// be sent.
    fn wait_for_frames(&mut self, now: Instant) -> Result<SendProgress, CloseReason> {
        if self
            .chunk
            .as_ref()
            .is_some_and(OutgoingChunk::is_inside_frame)
        {
            return Ok(SendProgress::AwaitingFrames);
        }
        match self.send_due(now)? {
            SendProgress::Blocked => Ok(SendProgress::Blocked),
            _ => Ok(SendProgress::AwaitingFrames),
        }
    }

    /// Sends what has waited long enough for further records.
    fn send_due(&mut self, now: Instant) -> Result<SendProgress, CloseReason> {
        match self.sink.finish_due(&mut self.session.out, now) && !self.flush(now)? {
            true => Ok(SendProgress::Blocked),
            false => Ok(SendProgress::AllSent),
        }
    }

    /// The rate allows no record now. The chunk stays, unless for long or where others wait for
    /// its memory: what is released is fetched again.
    fn wait_for_rate(&mut self, now: Instant) -> Result<SendProgress, CloseReason> {
        let next = self.rate.next_permit_at();
        let held_since = self.chunk.as_ref().map(|chunk| chunk.since);
        let is_held_long = held_since.is_some_and(|since| now >= since + CHUNK_HELD_MAX);
        if is_held_long || self.memory_awaited_since().is_some() {
            self.release_chunk(AHEAD_BYTES);
        }
        match self.send_due(now)? {
            SendProgress::Blocked => Ok(SendProgress::Blocked),
            _ => Ok(SendProgress::RateLimited(next)),
        }
    }

    /// Since when others wait for memory that the chunk under way takes.
    pub(super) fn memory_awaited_since(&self) -> Option<Instant> {
        let chunk = self.chunk.as_ref().filter(|chunk| chunk.is_held())?;
        let segments = chunk.memory_awaited_since();
        let chunks = self.consumer.memory_awaited_since();
        [segments, chunks].into_iter().flatten().min()
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
        self.sink.prepare_revoke(&mut self.session.out);
        self.flush(now)?;
        self.sink.revoke(partitions);
        if let Some(chunk) = &mut self.chunk
            && partitions.contains(chunk.tp())
        {
            chunk.revoke();
        }
        self.offsets.remove_partitions(partitions);
        Ok(())
    }
}
