//! Events as lines, with the counts of those that were left out.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use runtime::mutex::lock;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::line_queue::LineQueue;
use super::repeat_limit::RepeatLimit;

/// The target of lines about one socket each: all of them come.
pub(crate) const SOCKET_LINES: &str = "kafka_websocket_proxy::sockets";
/// The target of what `main` says once.
const START_LINES: &str = "kafka_websocket_proxy";

/// Formats events as `inner` does, adds the counts, and leaves out what must not come.
#[derive(Debug)]
pub(super) struct CountingFormat<F> {
    inner: F,
    limit: Option<Mutex<RepeatLimit<Identifier>>>,
    queue: Arc<LineQueue>,
    /// Adds a count to a line that ends with its line feed.
    add_count: fn(&mut String, &str, u64),
}

impl CountingFormat<Format<Full>> {
    /// Lines for people.
    pub(super) fn text(limit: Option<RepeatLimit<Identifier>>, queue: Arc<LineQueue>) -> Self {
        Self::new(Format::default(), limit, queue, |line, name, count| {
            line.truncate(line.trim_end().len());
            line.push_str(&format!(" {name}={count}\n"));
        })
    }
}

impl CountingFormat<Format<Json>> {
    /// A JSON object a line.
    pub(super) fn json(limit: Option<RepeatLimit<Identifier>>, queue: Arc<LineQueue>) -> Self {
        Self::new(
            Format::default().json(),
            limit,
            queue,
            |line, name, count| {
                line.truncate(line.trim_end().len().saturating_sub(1));
                line.push_str(&format!(",\"{name}\":{count}}}\n"));
            },
        )
    }
}

impl<F> CountingFormat<F> {
    fn new(
        inner: F,
        limit: Option<RepeatLimit<Identifier>>,
        queue: Arc<LineQueue>,
        add_count: fn(&mut String, &str, u64),
    ) -> Self {
        Self {
            inner,
            limit: limit.map(Mutex::new),
            queue,
            add_count,
        }
    }

    /// How many lines of this kind, and how many lines at all, this one must report; `None`: it
    /// does not come.
    fn admit(&self, metadata: &Metadata<'_>) -> Option<[(&'static str, u64); 2]> {
        let repeated = match &self.limit {
            Some(limit) if is_limited(metadata) => {
                lock(limit).admit(metadata.callsite(), Instant::now())?
            }
            _ => 0,
        };
        let dropped = self.queue.admit(1 + repeated)?;
        Some([("repeated", repeated), ("dropped_lines", dropped)])
    }
}

fn is_limited(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO && ![SOCKET_LINES, START_LINES].contains(&metadata.target())
}

impl<S, N, F> FormatEvent<S, N> for CountingFormat<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(counts) = self.admit(event.metadata()) else {
            return Ok(());
        };
        let mut line = String::new();
        let formatted = self
            .inner
            .format_event(context, Writer::new(&mut line), event);
        formatted?;
        for (name, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            (self.add_count)(&mut line, name, count);
        }
        writer.write_str(&line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_a_field_at_the_end_of_the_line() {
        let queue = Arc::<LineQueue>::default();
        let text = CountingFormat::text(None, Arc::clone(&queue));
        let mut line = "WARN a: b c=d\n".to_owned();
        (text.add_count)(&mut line, "repeated", 7);
        (text.add_count)(&mut line, "dropped_lines", 1);
        assert_eq!(line, "WARN a: b c=d repeated=7 dropped_lines=1\n");

        let json = CountingFormat::json(None, queue);
        let mut line =
            "{\"level\":\"WARN\",\"fields\":{\"message\":\"}\"},\"target\":\"a\"}\n".to_owned();
        (json.add_count)(&mut line, "repeated", 7);
        (json.add_count)(&mut line, "dropped_lines", 1);
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["repeated"], 7);
        assert_eq!(read["dropped_lines"], 1);
        assert_eq!(read["fields"]["message"], "}");
    }
}
