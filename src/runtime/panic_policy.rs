//! What a panic ends: the socket it happened in, or, outside of sockets, the process.
//!
//! A task of the core (a connection to a broker, the producer) that is gone would leave
//! everything waiting for it; a process that is gone is restarted.
//!
//! ```text
//! contain_panics(socket task) ─ poll ─▶ thread is marked ─▶ panic hook, marked: log, unwind
//! any other task ─────────────────────▶ no mark ──────────▶ panic hook: log, end the process
//! ```

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

thread_local! {
    static IS_CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// sysexits(3): the exit code after a panic of a core task.
const EX_SOFTWARE: i32 = 70;

/// Marks a task whose panic ends the task alone, not the process.
pub fn contain_panics<F: Future>(task: F) -> impl Future<Output = F::Output> {
    ContainedTask {
        task: Box::pin(task),
    }
}

/// Makes a panic outside of contained tasks end the process. For `main` only.
pub fn install_hook() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        default(panic);
        match IS_CONTAINED.get() {
            true => tracing::error!("a connection's task panicked; the connection is closed"),
            false => {
                tracing::error!("a task of the core panicked; the process ends");
                std::process::exit(EX_SOFTWARE);
            }
        }
    }));
}

struct ContainedTask<F> {
    task: Pin<Box<F>>,
}

impl<F: Future> Future for ContainedTask<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _mark = ContainmentMark::set();
        self.task.as_mut().poll(cx)
    }
}

/// Marks the thread until it is dropped, by an unwinding panic too.
struct ContainmentMark;

impl ContainmentMark {
    fn set() -> Self {
        IS_CONTAINED.set(true);
        Self
    }
}

impl Drop for ContainmentMark {
    fn drop(&mut self) {
        IS_CONTAINED.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_thread_is_marked_only_while_the_task_runs() {
        let marked = contain_panics(async {
            let before = IS_CONTAINED.get();
            tokio::task::yield_now().await;
            before && IS_CONTAINED.get()
        });
        assert!(marked.await);
        assert!(!IS_CONTAINED.get());
    }

    #[tokio::test]
    async fn the_mark_is_removed_when_the_task_panics() {
        let task = tokio::spawn(contain_panics(async { panic!("as a test") }));
        assert!(task.await.is_err());
        assert!(!IS_CONTAINED.get());
    }
}
