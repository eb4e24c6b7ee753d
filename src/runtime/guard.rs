//! What a panic ends: the socket it happened in, or, outside of sockets, the process.
//!
//! A task of the core (a connection to a broker, the producer) that is gone would leave
//! everything waiting for it; a process that is gone is restarted.
//!
//! ```text
//! contained(socket task) ─ poll ─▶ thread is marked ─▶ panic hook sees the mark: log, unwind
//! any other task ────────────────▶ no mark ──────────▶ panic hook: log, end the process
//! ```

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Exit code after a panic of the core: EX_SOFTWARE.
const SOFTWARE: i32 = 70;

/// Marks a task whose panic must not end the process.
pub fn contained<F: Future>(task: F) -> impl Future<Output = F::Output> {
    Contained {
        task: Box::pin(task),
    }
}

/// Makes a panic outside of contained tasks end the process. For `main` only.
pub fn install() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        default(panic);
        match CONTAINED.get() {
            true => tracing::error!("a connection's task panicked; the connection is closed"),
            false => {
                tracing::error!("a task of the core panicked; the process ends");
                std::process::exit(SOFTWARE);
            }
        }
    }));
}

struct Contained<F> {
    task: Pin<Box<F>>,
}

impl<F: Future> Future for Contained<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _mark = Mark::set();
        self.task.as_mut().poll(cx)
    }
}

struct Mark;

impl Mark {
    fn set() -> Self {
        CONTAINED.set(true);
        Self
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        CONTAINED.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_mark_stands_only_while_the_task_runs() {
        let seen = contained(async {
            let before = CONTAINED.get();
            tokio::task::yield_now().await;
            before && CONTAINED.get()
        });
        assert!(seen.await);
        assert!(!CONTAINED.get());
    }

    #[tokio::test]
    async fn the_mark_goes_when_the_task_panics() {
        let task = tokio::spawn(contained(async { panic!("as a test") }));
        assert!(task.await.is_err());
        assert!(!CONTAINED.get());
    }
}
