//! When any broker of a cluster answered last: as long as one does, nobody needs to ask whether
//! one would.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The time of the last response on any connection of a pool.
#[derive(Debug)]
pub(crate) struct LastAnswer {
    created_at: Instant,
    /// Milliseconds after `created_at`; 0 before there was any.
    at_ms: AtomicU64,
}

impl LastAnswer {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            created_at: now,
            at_ms: AtomicU64::new(0),
        }
    }

    /// A broker has answered.
    pub(crate) fn note(&self, now: Instant) {
        let ms = now.duration_since(self.created_at).as_millis() as u64;
        // Mostly it is the same: reading it does not take the cache line from others.
        if self.at_ms.load(Ordering::Relaxed) < ms {
            self.at_ms.store(ms, Ordering::Relaxed);
        }
    }

    /// When that was last; before the first time, when this was created.
    pub(crate) fn at(&self) -> Instant {
        self.created_at + Duration::from_millis(self.at_ms.load(Ordering::Relaxed))
    }
}
