//! The segments of a chunk that are encoded, shared by all sockets with the same encoding of frames.
//!
//! ```text
//! Chunk ─ derived ─▶ SegmentCache ─ encoding ─▶ EncodedFrames, EncodedFrames, …  the newest ones
//!                                                ▲        ▲
//!                                             socket A  socket B     each writes slices of it
//! ```
//!
//! # Invariants
//! - Memory for a segment is acquired before it is encoded. When there is none, the oldest
//!   segment that no socket writes from is dropped, whatever its encoding; when there is no such
//!   one, the socket waits until another lets go of its segment. A socket that waits holds none.
//! - A segment is encoded once, however many sockets ask for it at the same time: the others
//!   wait. No lock is held meanwhile.
//! - A segment begins where another ends, or where a socket begins to read; it ends where one
//!   is known that follows. So sockets that began at different places share what they get to.

#[cfg(test)]
mod tests;

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex};

use runtime::long_work::block_in_place;
use runtime::mutex::lock;
use runtime::wake::WakeSignal;
use tokio::time::Instant;

use super::encoded_frames::{EncodedFrames, SegmentEncoder, SegmentStart};
use super::frame_encoding::FrameEncoding;
use kafka_client::consumer::{Chunk, DerivedPermit};

/// The segments of one chunk.
#[derive(Debug, Default)]
pub(super) struct SegmentCache {
    state: Mutex<SegmentCacheState>,
    /// Whether a socket waits.
    awaited: AtomicBool,
}

#[derive(Debug, Default)]
struct SegmentCacheState {
    encodings: Vec<EncodingSegments>,
    /// Sockets that wait for memory, or for a segment that another encodes.
    waiting: Vec<Arc<WakeSignal>>,
    /// Since when one of them waits for memory.
    memory_awaited_since: Option<Instant>,
}

/// The segments of one chunk in the same encoding, oldest first.
#[derive(Debug)]
struct EncodingSegments {
    encoding: FrameEncoding,
    segments: Vec<Arc<EncodedFrames>>,
    /// Whether one is being encoded.
    is_encoding: bool,
}

/// A segment that a socket writes from. When it is dropped, those who wait are woken.
#[derive(Debug)]
pub(super) struct HeldSegment {
    encoded: Arc<EncodedFrames>,
    /// Dropped after them.
    _wakes_waiting: WakesWaiting,
}

/// Wakes, when dropped, the sockets that wait for a segment of the cache.
#[derive(Debug)]
struct WakesWaiting(Option<Arc<SegmentCache>>);

impl Drop for WakesWaiting {
    fn drop(&mut self) {
        if let Some(cache) = &self.0 {
            cache.wake_waiting();
        }
    }
}

impl SegmentCache {
    /// The segment that covers `start`. `None`: `wake` is notified when it is worth asking
    /// again.
    pub(super) fn segment(
        self: &Arc<Self>,
        chunk: &Chunk,
        encoding: FrameEncoding,
        start: SegmentStart,
        wake: &Arc<WakeSignal>,
    ) -> Option<HeldSegment> {
        let (encoder, bytes, permit) = {
            let mut state = lock(&self.state);
            let known = state.of(encoding);
            let covering = known.segments.iter().find(|s| s.covers(start.offset));
            if let Some(found) = covering {
                return Some(self.hold(Arc::clone(found)));
            }
            if known.is_encoding {
                self.wait(&mut state, wake);
                return None;
            }
            let following = known.segments.iter().map(|s| s.first_offset);
            let end = following.filter(|first| *first > start.offset).min();
            let encoder = SegmentEncoder::new(chunk, encoding, start, end.unwrap_or(i64::MAX));
            let bytes = encoder.estimated_bytes();
            let needed = encoding.encoding_bytes(bytes);
            let permit = self.acquire(&mut state, chunk, needed, wake)?;
            state.of(encoding).is_encoding = true;
            (encoder, bytes, permit)
        };
        let mut guard = EncodingGuard {
            cache: self,
            encoding,
            encoded: None,
        };
        // One large record is encoded while other tasks of the worker thread go on elsewhere. How
        // many are encoded at a time, their memory bounds.
        let encoded = match bytes > encoding.segment_bytes_max() {
            true => block_in_place(|| encoder.encode(bytes, permit)),
            false => encoder.encode(bytes, permit),
        };
        let encoded = Arc::new(encoded);
        guard.encoded = Some(Arc::clone(&encoded));
        drop(guard);
        Some(self.hold(encoded))
    }

    /// Since when a socket waits for memory that those who hold segments take.
    pub(super) fn memory_awaited_since(&self) -> Option<Instant> {
        match self.awaited.load(Ordering::Relaxed) {
            true => lock(&self.state).memory_awaited_since,
            false => None,
        }
    }

    fn hold(self: &Arc<Self>, encoded: Arc<EncodedFrames>) -> HeldSegment {
        HeldSegment {
            encoded,
            _wakes_waiting: WakesWaiting(Some(Arc::clone(self))),
        }
    }

    /// Acquires memory, at the cost of segments that nobody writes from.
    fn acquire(
        &self,
        state: &mut SegmentCacheState,
        chunk: &Chunk,
        bytes: usize,
        wake: &Arc<WakeSignal>,
    ) -> Option<DerivedPermit> {
        loop {
            if let Some(permit) = chunk.try_acquire_derived(bytes) {
                return Some(permit);
            }
            if state.drop_oldest_unused() {
                continue;
            }
            state.memory_awaited_since.get_or_insert_with(Instant::now);
            self.wait(state, wake);
            // One may have been let go before its holder could see that somebody waits.
            fence(Ordering::SeqCst);
            if !state.drop_oldest_unused() {
                return None;
            }
        }
    }

    fn wait(&self, state: &mut SegmentCacheState, wake: &Arc<WakeSignal>) {
        if !state.waiting.iter().any(|known| Arc::ptr_eq(known, wake)) {
            state.waiting.push(Arc::clone(wake));
        }
        self.awaited.store(true, Ordering::SeqCst);
    }

    fn wake_waiting(&self) {
        fence(Ordering::SeqCst);
        if !self.awaited.load(Ordering::SeqCst) {
            return;
        }
        let waiting = {
            let mut state = lock(&self.state);
            self.awaited.store(false, Ordering::SeqCst);
            state.memory_awaited_since = None;
            std::mem::take(&mut state.waiting)
        };
        waiting.iter().for_each(|wake| wake.notify());
    }
}

impl SegmentCacheState {
    fn of(&mut self, encoding: FrameEncoding) -> &mut EncodingSegments {
        let known = self.encodings.iter().position(|e| e.encoding == encoding);
        let index = known.unwrap_or_else(|| {
            self.encodings.push(EncodingSegments {
                encoding,
                segments: Vec::new(),
                is_encoding: false,
            });
            self.encodings.len() - 1
        });
        &mut self.encodings[index]
    }

    fn drop_oldest_unused(&mut self) -> bool {
        for known in &mut self.encodings {
            let is_unused = |segment: &Arc<EncodedFrames>| Arc::strong_count(segment) == 1;
            if let Some(index) = known.segments.iter().position(is_unused) {
                known.segments.remove(index);
                return true;
            }
        }
        false
    }
}

/// Ends the encoding of a segment, be it by a panic.
struct EncodingGuard<'a> {
    cache: &'a SegmentCache,
    encoding: FrameEncoding,
    encoded: Option<Arc<EncodedFrames>>,
}

impl Drop for EncodingGuard<'_> {
    fn drop(&mut self) {
        {
            let mut state = lock(&self.cache.state);
            let known = state.of(self.encoding);
            known.is_encoding = false;
            if known.segments.len() == self.encoding.segments_max() {
                known.segments.remove(0);
            }
            known.segments.extend(self.encoded.take());
        }
        self.cache.wake_waiting();
    }
}

impl HeldSegment {
    /// Frames that no other socket shares.
    pub(super) fn own(frames: EncodedFrames) -> Self {
        Self {
            encoded: Arc::new(frames),
            _wakes_waiting: WakesWaiting(None),
        }
    }
}

impl Deref for HeldSegment {
    type Target = EncodedFrames;

    fn deref(&self) -> &EncodedFrames {
        &self.encoded
    }
}
