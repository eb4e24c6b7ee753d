//! The log: lines on standard error, which never hold up whoever logs.
//!
//! ```text
//! tracing event ─▶ LogFormat ─┬ RepeatLimit: has this kind been seen within 5 s? ─ yes ─▶ counted
//!                             └ LineQueue, of 1 MiB ─ full ─▶ counted
//!                                   └─▶ a thread of its own ─▶ standard error
//! ```
//!
//! # Invariants
//! - Logging waits for no reader: standard error is written by one thread that nothing else waits
//!   for, except [`Log::flush`] at the end of the process, for a second at most.
//! - What is left out is counted, and the next line that is not left out carries the count:
//!   `repeated` for lines of the same kind, `dropped_lines` for a full queue.
//!
//! A kind of line is the place in the code that it comes from. Lines at `debug` and `trace`, of the
//! start, and about one socket each (`SOCKET_LINES`) come whole.

mod event_format;
mod line_queue;
mod repeat_limit;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat};
use event_format::CountingFormat;
pub(crate) use event_format::SOCKET_LINES;
use line_queue::{LineQueue, LineWriter};
use repeat_limit::RepeatLimit;

/// How long the end of the process may wait for the last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// How long after a line others of its kind are only counted.
const REPEAT_INTERVAL: Duration = Duration::from_secs(5);

/// The log that events go to.
static INSTALLED: OnceLock<Arc<LineQueue>> = OnceLock::new();

/// Lines that were dropped so far because nobody read them.
pub(crate) fn dropped_lines() -> u64 {
    INSTALLED.get().map_or(0, |queue| queue.dropped_lines())
}

/// The process's log. Clones share it.
#[derive(Clone, Debug)]
pub struct Log(Arc<LineQueue>);

/// Whether a kind of line comes at most once in five seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// It does; the next one carries the count.
    Limited,
    /// Every line comes: one person looks at it.
    All,
}

impl Log {
    /// Starts the thread that writes to standard error.
    pub fn start() -> Self {
        Self(LineQueue::start(std::io::stderr()))
    }

    /// Makes tracing's events lines of this log, for the rest of the process.
    pub fn install(&self, config: &LogConfig, repeats: Repeats) {
        let limit = match repeats {
            Repeats::Limited => Some(RepeatLimit::new(REPEAT_INTERVAL)),
            Repeats::All => None,
        };
        let queue = Arc::clone(&self.0);
        let _ = INSTALLED.set(Arc::clone(&queue));
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(LineWriter(Arc::clone(&queue)))
            .with_ansi(false)
            .log_internal_errors(false);
        let subscriber = tracing_subscriber::registry().with(config.level.clone());
        match config.format {
            LogFormat::Text => {
                let format = CountingFormat::text(limit, queue);
                subscriber.with(lines.event_format(format)).init();
            }
            LogFormat::Json => {
                let format = CountingFormat::json(limit, queue);
                let lines = lines.fmt_fields(JsonFields::new());
                subscriber.with(lines.event_format(format)).init();
            }
        }
    }

    /// Writes a line as it is, before there is a configuration to log by.
    pub fn print(&self, line: &str) {
        self.0.push(format!("{line}\n").as_bytes());
    }

    /// Waits until all lines are written, for a second at most: their reader may be stuck.
    pub fn flush(&self) {
        self.0.flush(FLUSH_TIMEOUT);
    }
}
