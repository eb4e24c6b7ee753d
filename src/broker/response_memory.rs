//! The bytes of answers that are being written: what bounds the answers to fetches.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of answers under way, over all connections.
#[derive(Debug, Default)]
pub(super) struct ResponseMemory(AtomicUsize);

impl ResponseMemory {
    /// Counts bytes of an answer until the guard is dropped.
    pub(super) fn take(&self, bytes: usize) -> ResponseBytesInFlight<'_> {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        ResponseBytesInFlight(self, bytes)
    }

    /// How many there are now.
    pub(super) fn taken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// An answer that is being written.
#[derive(Debug)]
pub(super) struct ResponseBytesInFlight<'a>(&'a ResponseMemory, usize);

impl Drop for ResponseBytesInFlight<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}
