//! Work that would hold up the other tasks of its worker thread: a message of a megabyte, a batch
//! to decompress.
//!
//! ```text
//! task ─▶ run ─┬ short ─────────────────▶ work ────────────────┬▶ the task goes on
//!              └ waits for its turn ─▶ block_in_place(work) ───┘
//!                                        └─ the worker's other tasks go on elsewhere meanwhile
//! ```
//!
//! # Invariants
//! - Of one kind of long work as much runs at a time as there are processors: it shares them with
//!   the workers, and takes no more threads. Short work neither waits nor makes others wait.
//! - Long work waits only for long work of its kind, and begins in the order in which it was asked for. A
//!   task has one piece of work at a time, so each waits for at most one of every other task.

use std::sync::LazyLock;
use std::thread::available_parallelism;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task;

/// A kind of work.
#[derive(Debug)]
pub struct LongWork {
    bytes_min: usize,
    permits: LazyLock<Semaphore>,
}

/// Work whose turn it is.
#[derive(Debug)]
pub struct BegunWork<'a> {
    /// `None` for short work.
    permit: Option<SemaphorePermit<'a>>,
}

/// While it is held, no long work of the kind runs.
#[derive(Debug)]
pub struct PausedWork<'a> {
    _permits: SemaphorePermit<'a>,
}

impl LongWork {
    /// A kind of work that is long from so many bytes on.
    pub const fn from_bytes(bytes_min: usize) -> Self {
        Self {
            bytes_min,
            permits: LazyLock::new(|| Semaphore::new(limit() as usize)),
        }
    }

    /// Whether work on so many bytes is long.
    #[inline]
    pub const fn is_long(&self, bytes: usize) -> bool {
        bytes >= self.bytes_min
    }

    /// Does `work`, which is on so many bytes, when its turn has come. Dropped before, it does
    /// nothing.
    pub async fn run<T>(&self, bytes: usize, work: impl FnOnce() -> T) -> T {
        if !self.is_long(bytes) {
            return work();
        }
        let _permit = self.permits(1).await;
        block_in_place(work)
    }

    /// Begins work on so many bytes, if it is short or its turn is now. For work that can be left
    /// undone.
    pub fn try_begin(&self, bytes: usize) -> Option<BegunWork<'_>> {
        let permit = match self.is_long(bytes) {
            true => Some(self.permits.try_acquire().ok()?),
            false => None,
        };
        Some(BegunWork { permit })
    }

    /// Waits until what was asked for before is done. Tests find out by it what is long work of
    /// the kind.
    pub async fn pause(&self) -> PausedWork<'_> {
        PausedWork {
            _permits: self.permits(limit()).await,
        }
    }

    async fn permits(&self, count: u32) -> SemaphorePermit<'_> {
        let permits = self.permits.acquire_many(count).await;
        permits.expect("the semaphore is never closed")
    }
}

impl BegunWork<'_> {
    /// Does the work.
    pub fn run<T>(self, work: impl FnOnce() -> T) -> T {
        match self.permit {
            None => work(),
            Some(_permit) => block_in_place(work),
        }
    }
}

/// Does `work` while the other tasks of this worker thread go on elsewhere. Where there is no other
/// thread, they wait. For work that is bounded by something else than a [`LongWork`].
pub fn block_in_place<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => task::block_in_place(work),
        _ => work(),
    }
}

/// How much runs at a time.
fn limit() -> u32 {
    available_parallelism().map_or(1, |processors| processors.get().min(LIMIT_MAX) as u32)
}

const LIMIT_MAX: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};
    use std::time::Duration;

    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;

    const LONG: usize = 100;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn the_other_tasks_of_its_worker_go_on_meanwhile() {
        static WORK: LongWork = LongWork::from_bytes(LONG);
        let (other_ran, waiting) = mpsc::channel();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let work = tokio::spawn(WORK.run(LONG, move || {
            begun.send(()).expect("the other task waits");
            waiting.recv_timeout(Duration::from_secs(30))
        }));
        let other = tokio::spawn(async move {
            begins.await.expect("the work begins");
            other_ran.send(()).expect("the work goes on");
        });
        other.await.expect("the other task");
        work.await.expect("the work").expect("it was told so");
    }

    #[tokio::test]
    async fn work_begins_in_the_order_in_which_it_was_asked_for() {
        let work = LongWork::from_bytes(LONG);
        let begun = Mutex::new(Vec::new());
        let _all_but_one = work.permits(limit() - 1).await;
        let last = work.permits(1).await;
        let note = |n| {
            let begun = &begun;
            move || begun.lock().expect("nothing panics").push(n)
        };
        let mut asked: Vec<_> = (0..100)
            .map(|n| Box::pin(work.run(LONG, note(n))))
            .collect();
        for asked in &mut asked {
            assert!(asked.now_or_never().is_none(), "there is none left");
        }
        drop(asked.remove(7));
        drop(last);
        join_all(asked.into_iter().rev()).await;
        let expected: Vec<_> = (0..100).filter(|n| *n != 7).collect();
        assert_eq!(*begun.lock().expect("nothing panics"), expected);
    }

    #[tokio::test]
    async fn no_more_runs_at_a_time_than_there_are_processors() {
        let work = LongWork::from_bytes(LONG);
        let mut held = Vec::new();
        for _ in 0..limit() {
            held.push(work.permits(1).now_or_never().expect("there is one"));
        }
        assert!(work.run(LONG, || ()).now_or_never().is_none());
        held.pop();
        assert!(work.run(LONG, || ()).now_or_never().is_some());
    }

    #[tokio::test]
    async fn what_can_be_left_undone_is_begun_only_when_its_turn_is_now() {
        let work = LongWork::from_bytes(LONG);
        let all = work.permits(limit()).await;
        assert!(work.try_begin(LONG).is_none());
        assert!(work.try_begin(LONG - 1).is_some(), "short work");
        drop(all);
        let begun = work.try_begin(LONG).expect("its turn");
        assert_eq!(begun.run(|| 7), 7);
        assert!(work.permits(limit()).now_or_never().is_some(), "it is done");
    }

    #[tokio::test]
    async fn short_work_does_not_wait() {
        let work = LongWork::from_bytes(LONG);
        let _paused = work.pause().await;
        assert!(work.run(LONG, || ()).now_or_never().is_none());
        assert!(work.run(LONG - 1, || ()).now_or_never().is_some());
    }
}
