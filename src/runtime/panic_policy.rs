//! What a panic ends: the socket or the computation it happened in, or, outside of those, the
//! process.
//!
//! A task of the core (a connection to a broker, the producer) that is gone would leave
//! everything waiting for it; a process that is gone is restarted.
//!
//! ```text
//! contain_panics(socket task) ─ poll ─▶ thread is marked ─▶ panic hook, marked: log, unwind
//! catch_panic(computation) ─── call ──▶ thread is marked ─▶ the same; the caller gets an error
//! any other task ─────────────────────▶ no mark ──────────▶ panic hook: log, end the process
//! ```

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

thread_local! {
    static CONTAINMENT: Cell<Containment> = const { Cell::new(Containment::None) };
}

/// What a panic of this thread ends now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Containment {
    /// The process.
    None,
    /// The task of a connection.
    Task,
    /// The call of [`catch_panic`].
    Computation,
}

/// What a panic said that said nothing readable.
const WITHOUT_MESSAGE: &str = "a panic without a message";

/// sysexits(3): the exit code after a panic of a core task.
const EX_SOFTWARE: i32 = 70;

/// Marks a task whose panic ends the task alone, not the process.
pub fn contain_panics<F: Future>(task: F) -> impl Future<Output = F::Output> {
    ContainedTask {
        task: Box::pin(task),
    }
}

/// What `compute` returns, or, when it panics, what the panic said: it ends neither the task
/// nor the process. For code that works on bytes which anyone may have made, and that leaves
/// nothing half done which is used afterwards.
///
/// # Errors
/// The panic's message.
pub fn catch_panic<T>(compute: impl FnOnce() -> T) -> Result<T, String> {
    let _mark = ContainmentMark::set(Containment::Computation);
    catch_unwind(AssertUnwindSafe(compute)).map_err(|panic| {
        let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        message
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| WITHOUT_MESSAGE.to_owned())
    })
}

/// Makes a panic outside of contained tasks end the process, when `flush_log` has returned. Every
/// panic is a line of the log. For `main` only.
pub fn install_hook(flush_log: impl Fn() + Send + Sync + 'static) {
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.payload_as_str().unwrap_or(WITHOUT_MESSAGE);
        let at = panic.location().map(tracing::field::display);
        let backtrace = Backtrace::capture();
        let captured = backtrace.status() == BacktraceStatus::Captured;
        let backtrace = captured.then(|| tracing::field::display(&backtrace));
        match CONTAINMENT.get() {
            Containment::Task => {
                tracing::error!(
                    said,
                    at,
                    backtrace,
                    "a connection's task panicked; the connection is closed"
                );
            }
            Containment::Computation => {
                tracing::error!(
                    said,
                    at,
                    backtrace,
                    "a computation panicked; what it worked on is given up"
                );
            }
            Containment::None => {
                tracing::error!(
                    said,
                    at,
                    backtrace,
                    "a task of the core panicked; the process ends"
                );
                flush_log();
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
        let _mark = ContainmentMark::set(Containment::Task);
        self.task.as_mut().poll(cx)
    }
}

/// Marks the thread until it is dropped, by an unwinding panic too.
struct ContainmentMark {
    before: Containment,
}

impl ContainmentMark {
    fn set(containment: Containment) -> Self {
        Self {
            before: CONTAINMENT.replace(containment),
        }
    }
}

impl Drop for ContainmentMark {
    fn drop(&mut self) {
        CONTAINMENT.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_thread_is_marked_only_while_the_task_runs() {
        let marked = contain_panics(async {
            let before = CONTAINMENT.get();
            tokio::task::yield_now().await;
            (before, CONTAINMENT.get())
        });
        assert_eq!(marked.await, (Containment::Task, Containment::Task));
        assert_eq!(CONTAINMENT.get(), Containment::None);
    }

    #[tokio::test]
    async fn the_mark_is_removed_when_the_task_panics() {
        let task = tokio::spawn(contain_panics(async { panic!("as a test") }));
        assert!(task.await.is_err());
        assert_eq!(CONTAINMENT.get(), Containment::None);
    }

    #[test]
    fn a_computation_that_panics_is_an_error_with_its_message() {
        assert_eq!(catch_panic(|| 1), Ok(1));
        let caught = catch_panic(|| panic!("as a {}", "test"));
        assert_eq!(caught, Err::<(), _>("as a test".to_owned()));
        assert_eq!(CONTAINMENT.get(), Containment::None);
    }

    #[tokio::test]
    async fn a_computation_within_a_task_leaves_the_task_marked() {
        let marked = contain_panics(async {
            assert!(catch_panic(|| panic!("as a test")).is_err());
            CONTAINMENT.get()
        });
        assert_eq!(marked.await, Containment::Task);
    }
}
