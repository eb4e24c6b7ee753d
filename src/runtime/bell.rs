//! Wakes one task, from wherever something happens that concerns it.
//!
//! ```text
//! records ─┐
//! group  ──┼── ring() ──▶ Bell ──▶ heard() ──▶ the task looks around
//! registry ┘   at most one wake-up until it is heard
//! ```
//!
//! Like a `Notify` with a single listener, but without a lock and without a list: a
//! thousand sockets are rung for each record.
//!
//! # Invariants
//! - Whoever rings after leaving word is heard: once it is, what was left is seen.
//! - One task listens at a time.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// See the module.
#[derive(Debug, Default)]
pub struct Bell {
    rung: AtomicBool,
    waker: AtomicWaker,
}

impl Bell {
    /// Wakes the listener, now or when it listens next.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Whether it was rung since it was last heard; from now on it is heard.
    pub fn take(&self) -> bool {
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::AcqRel)
    }

    /// Until it is rung. Cancel-safe.
    pub async fn heard(&self) {
        poll_fn(|cx| self.poll_heard(cx)).await;
    }

    fn poll_heard(&self, cx: &Context<'_>) -> Poll<()> {
        if self.take() {
            return Poll::Ready(());
        }
        self.waker.register(cx.waker());
        // It may have been rung before anybody was there to be woken.
        match self.take() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn it_is_heard_once_however_often_it_was_rung() {
        let bell = Bell::default();
        assert!(bell.heard().now_or_never().is_none());
        bell.ring();
        bell.ring();
        assert!(bell.heard().now_or_never().is_some());
        assert!(bell.heard().now_or_never().is_none());
    }

    #[test]
    fn a_listener_that_gave_up_misses_nothing() {
        let bell = Bell::default();
        {
            let mut heard = Box::pin(bell.heard());
            assert!(heard.as_mut().now_or_never().is_none());
            bell.ring();
        }
        assert!(bell.take());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whatever_was_left_before_ringing_is_seen() {
        const LETTERS: usize = 100_000;
        let bell = Arc::new(Bell::default());
        let left = Arc::new(AtomicUsize::new(0));
        let ringer = tokio::spawn({
            let (bell, left) = (Arc::clone(&bell), Arc::clone(&left));
            async move {
                for _ in 0..LETTERS {
                    left.fetch_add(1, Ordering::Relaxed);
                    bell.ring();
                }
            }
        });
        while left.load(Ordering::Relaxed) < LETTERS {
            bell.heard().await;
        }
        ringer.await.unwrap();
    }
}
