//! Lines that wait for standard error, and the thread that writes them.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use runtime::mutex::lock;
use tracing_subscriber::fmt::MakeWriter;

/// From this many waiting bytes on, lines are dropped.
const BYTES_MAX: usize = 1 << 20;
/// The pause before standard error is tried again when somebody has made it non-blocking.
const WOULD_BLOCK_PAUSE: Duration = Duration::from_millis(20);

/// A bounded queue of lines.
#[derive(Debug, Default)]
pub(super) struct LineQueue {
    state: Mutex<LineQueueState>,
    /// Notified when there are lines, and when those that there were are written.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LineQueueState {
    /// Whole lines.
    waiting: Vec<u8>,
    /// Whether lines are being written.
    writing: bool,
    /// Lines that were dropped and not reported yet.
    dropped: u64,
    /// All that ever were.
    dropped_ever: u64,
}

impl LineQueue {
    /// Starts the thread that writes to `output`. It ends with the process: a write may never
    /// return.
    pub(super) fn start(output: impl Write + Send + 'static) -> Arc<Self> {
        let queue = Arc::new(Self::default());
        let writer = Arc::clone(&queue);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.write_to(output))
            .expect("a process without threads can do nothing else");
        queue
    }

    /// Whether there is room for a line, which stands for `lines`: how many before it were
    /// dropped, which it must report. `None`: it is dropped as well.
    pub(super) fn admit(&self, lines: u64) -> Option<u64> {
        let mut state = lock(&self.state);
        if state.waiting.len() < BYTES_MAX {
            return Some(std::mem::take(&mut state.dropped));
        }
        state.dropped += lines;
        state.dropped_ever += lines;
        None
    }

    /// Lines that were dropped so far.
    pub(super) fn dropped_lines(&self) -> u64 {
        lock(&self.state).dropped_ever
    }

    /// Adds a line that was admitted, with its line feed.
    pub(super) fn push(&self, line: &[u8]) {
        lock(&self.state).waiting.extend_from_slice(line);
        self.changed.notify_all();
    }

    /// Waits until every line is written, for that long at most.
    pub(super) fn flush(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut state = lock(&self.state);
        while state.writing || !state.waiting.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    fn write_to(&self, mut output: impl Write) {
        let mut lines = Vec::new();
        loop {
            let mut state = lock(&self.state);
            state.writing = false;
            self.changed.notify_all();
            while state.waiting.is_empty() {
                let woken = self.changed.wait(state);
                state = woken.unwrap_or_else(|poisoned| poisoned.into_inner());
            }
            lines.clear();
            std::mem::swap(&mut lines, &mut state.waiting);
            state.writing = true;
            drop(state);
            write_whole(&mut output, &lines);
        }
    }
}

/// Writes all there is. A reader that is gone misses it.
fn write_whole(output: &mut impl Write, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match output.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(WOULD_BLOCK_PAUSE);
            }
            Err(_) => return,
        }
    }
}

/// Puts lines into a queue, as whom tracing writes to.
#[derive(Clone, Debug)]
pub(super) struct LineWriter(pub(super) Arc<LineQueue>);

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // A line that does not come is empty: it wakes nobody.
        if !line.is_empty() {
            self.0.push(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = LineWriter;

    fn make_writer(&'a self) -> LineWriter {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Standard error whose reader takes something only when the test says so.
    struct StuckOutput {
        reader: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for StuckOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.reader.recv().map_err(io::Error::other)?;
            self.written.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn stuck() -> (Arc<LineQueue>, Sender<()>, Receiver<Vec<u8>>) {
        let ((take, reader), (written, output)) = (channel(), channel());
        (
            LineQueue::start(StuckOutput { reader, written }),
            take,
            output,
        )
    }

    #[test]
    fn lines_wait_for_a_stuck_reader_within_bounds_and_the_rest_is_counted() {
        let (queue, take, output) = stuck();
        let line = [b'x'; 1 << 10];
        let lines_max = 2 * BYTES_MAX / line.len() + 1;
        let (mut pushed, mut dropped) = (0, 0);
        while dropped < 3 {
            match queue.admit(1) {
                Some(before) => {
                    assert_eq!(before, 0);
                    queue.push(&line);
                    pushed += 1;
                }
                None => dropped += 1,
            }
            assert!(pushed <= lines_max, "without a bound");
        }
        take.send(()).unwrap();
        take.send(()).unwrap();
        let mut written = 0;
        while written < pushed * line.len() {
            written += output.recv().unwrap().len();
        }
        assert_eq!(queue.admit(1), Some(3), "the next line reports the loss");
        assert_eq!(queue.admit(1), Some(0), "once");
        assert_eq!(queue.dropped_lines(), 3, "and the metrics for ever");
    }

    #[test]
    fn a_flush_ends_when_all_is_written() {
        let (queue, take, output) = stuck();
        queue.push(b"last words\n");
        take.send(()).unwrap();
        queue.flush(Duration::MAX / 4);
        assert_eq!(output.try_recv().unwrap(), b"last words\n");
    }

    #[test]
    fn a_flush_gives_a_stuck_reader_up() {
        let (queue, _take, _output) = stuck();
        queue.push(b"x\n");
        queue.flush(Duration::from_millis(1));
    }
}
