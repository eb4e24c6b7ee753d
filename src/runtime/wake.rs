//! Wakes one task, from wherever something happens that concerns it.
//!
//! ```text
//! records ─┐
//! group  ──┼── notify() ──▶ WakeSignal ──▶ notified() ──▶ the task checks its sources
//! registry ┘    at most one wake-up until `notified` returns
//! ```
//!
//! Like a `tokio::sync::Notify` with a single waiter, but without a lock and without a list:
//! a thousand sockets are notified for each record.
//!
//! # Invariants
//! - No notification is lost: what was published before [`WakeSignal::notify`] is visible once
//!   [`WakeSignal::notified`] returns.
//! - One task waits at a time.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// Wakes its one waiting task; notifications before that task runs are merged into one.
#[derive(Debug, Default)]
pub struct WakeSignal {
    pending: AtomicBool,
    waker: AtomicWaker,
}

impl WakeSignal {
    /// Wakes the waiting task, now or when it next waits.
    #[inline]
    pub fn notify(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Takes the pending notification, if there is one.
    #[inline]
    pub fn take(&self) -> bool {
        self.pending.load(Ordering::Relaxed) && self.pending.swap(false, Ordering::AcqRel)
    }

    /// Waits for a notification and takes it. Cancel-safe.
    #[inline]
    pub async fn notified(&self) {
        poll_fn(|cx| self.poll_notified(cx)).await;
    }

    #[inline]
    fn poll_notified(&self, cx: &Context<'_>) -> Poll<()> {
        if self.take() {
            return Poll::Ready(());
        }
        self.waker.register(cx.waker());
        // A notification between `take` and `register` found no waker to wake.
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
    fn many_notifications_wake_the_task_once() {
        let signal = WakeSignal::default();
        assert!(signal.notified().now_or_never().is_none());
        signal.notify();
        signal.notify();
        assert!(signal.notified().now_or_never().is_some());
        assert!(signal.notified().now_or_never().is_none());
    }

    #[test]
    fn a_cancelled_wait_loses_no_notification() {
        let signal = WakeSignal::default();
        {
            let mut notified = Box::pin(signal.notified());
            assert!(notified.as_mut().now_or_never().is_none());
            signal.notify();
        }
        assert!(signal.take());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_published_before_notify_is_visible_after_notified() {
        const WRITES: usize = 100_000;
        let signal = Arc::new(WakeSignal::default());
        let published = Arc::new(AtomicUsize::new(0));
        let writer = tokio::spawn({
            let (signal, published) = (Arc::clone(&signal), Arc::clone(&published));
            async move {
                for _ in 0..WRITES {
                    published.fetch_add(1, Ordering::Relaxed);
                    signal.notify();
                }
            }
        });
        while published.load(Ordering::Relaxed) < WRITES {
            signal.notified().await;
        }
        writer.await.unwrap();
    }
}
