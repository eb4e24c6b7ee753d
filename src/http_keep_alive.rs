//! How long a connection may wait for a request: hyper has one time-out for the head of a
//! request, and for the wait between two of them.
//!
//! ```text
//! accepted ─▶ head of the first request ─▶ answer ─▶ idle ─▶ head of the next one ─▶ answer ─▶ …
//!             └──── header-timeout ────┘             └ IDLE_TIMEOUT ┘
//!                                                        └ header-timeout after its first byte ┘
//! ```
//!
//! hyper arms its timer when it begins to wait for a head. [`KeepAliveTimer`] hands it a sleep
//! that lasts longer for every head but the first, until [`KeepAliveStream`] has received a
//! byte. (A part of a head that came in one read with the request before it is not seen, and
//! counts as idle.)
//!
//! [`KeepAliveStream`] also notes what hyper lets pass in a head and others might read
//! differently, see [`HeadProgress`]; gives up a client that takes nothing of its answers, on which
//! hyper has no time-out; and completes the answers that hyper writes by itself, see `refusal`.

mod head_scanner;
mod refusal;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use http::StatusCode;
use hyper::rt::{Sleep, Timer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use head_scanner::HeadScanner;
pub(crate) use head_scanner::LAST_HEAD_FIELDS;
use refusal::Refusal;

/// How long a connection may be idle between two requests, and how long a client may take nothing
/// of an answer.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// A client that is still sending a head that is too long may lose the answer if its connection
/// is closed with unread bytes: so much is read, for so long, and dropped.
const DISCARDED_BYTES_MAX: usize = 1 << 20;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a head may be, how long it may take, and what is said of one that cannot be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLimits {
    pub(crate) bytes_max: usize,
    pub(crate) timeout: Duration,
    /// JSON.
    pub(crate) refusal_body: fn(StatusCode) -> String,
    /// The lines of headers that every answer has.
    pub(crate) refusal_headers: fn() -> String,
}

/// The first bytes of a TLS connection: a handshake record of version 3.x (RFC 8446, section 5.1).
const TLS_START: [u8; 2] = [0x16, 3];

/// What has been received of a connection's heads.
#[derive(Debug, Default)]
pub(crate) struct HeadProgress {
    /// Whether bytes have arrived since the wait for the present head began.
    received: AtomicBool,
    bare_line_feed: AtomicBool,
    too_long: AtomicBool,
    tls: AtomicBool,
}

impl HeadProgress {
    /// Whether a line of a head ended with a line feed alone (RFC 9112, section 2.2): what one
    /// server takes for the end of a line may be a part of a value to the one in front of it.
    pub(crate) fn has_bare_line_feed(&self) -> bool {
        self.bare_line_feed.load(Ordering::Relaxed)
    }

    /// Whether a head was longer than one may be: hyper takes one that has come in a single read.
    pub(crate) fn is_too_long(&self) -> bool {
        self.too_long.load(Ordering::Relaxed)
    }

    /// Whether the client has begun with a handshake of TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls.load(Ordering::Relaxed)
    }
}

/// The stream of one connection, the timer for hyper's `header_read_timeout` on it, and what both
/// have seen.
pub(crate) fn keep_alive<T>(
    stream: T,
    limits: HeadLimits,
) -> (KeepAliveStream<T>, KeepAliveTimer, Arc<HeadProgress>) {
    let progress = Arc::new(HeadProgress::default());
    let timer = KeepAliveTimer {
        progress: Arc::clone(&progress),
        has_had_head: AtomicBool::new(false),
        timeout: limits.timeout,
    };
    let stream = KeepAliveStream {
        stream,
        scanner: HeadScanner::default(),
        limits,
        progress: Arc::clone(&progress),
        has_begun: false,
        refusal: Bytes::new(),
        write_timeout: None,
        discarding: None,
    };
    (stream, timer, progress)
}

/// A stream that notes when bytes arrive, and looks at the heads among them.
#[derive(Debug)]
pub(crate) struct KeepAliveStream<T> {
    stream: T,
    scanner: HeadScanner,
    limits: HeadLimits,
    progress: Arc<HeadProgress>,
    /// Whether anything has been received.
    has_begun: bool,
    /// What is still to be written in the place of an answer of hyper's own.
    refusal: Bytes,
    /// Set while the client takes nothing.
    write_timeout: Option<Pin<Box<tokio::time::Sleep>>>,
    discarding: Option<DiscardedBytes>,
}

/// What is read and dropped while a connection closes.
#[derive(Debug)]
struct DiscardedBytes {
    count: usize,
    until: Pin<Box<tokio::time::Sleep>>,
}

impl<T> KeepAliveStream<T> {
    /// The stream itself, when HTTP has ended on it.
    pub(crate) fn into_inner(self) -> T {
        self.stream
    }
}

impl<T: AsyncRead + Unpin> KeepAliveStream<T> {
    /// Reads until the client ends its side too, but not for ever.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let discarding = self.discarding.get_or_insert_with(|| DiscardedBytes {
            count: 0,
            until: Box::pin(tokio::time::sleep(DISCARD_TIMEOUT)),
        });
        while discarding.count < DISCARDED_BYTES_MAX {
            if discarding.until.as_mut().poll(cx).is_ready() {
                break;
            }
            let mut scratch = [0; 4096];
            let mut scratch = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut scratch)) {
                Ok(()) if !scratch.filled().is_empty() => {
                    discarding.count += scratch.filled().len()
                }
                _ => break,
            }
        }
        Poll::Ready(())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for KeepAliveStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let received = &buf.filled()[before..];
        if !received.is_empty() {
            self.progress.received.store(true, Ordering::Relaxed);
            if !std::mem::replace(&mut self.has_begun, true) && received.starts_with(&TLS_START) {
                self.progress.tls.store(true, Ordering::Relaxed);
            }
            self.scanner.scan(received);
            if self.scanner.longest() >= self.limits.bytes_max {
                self.progress.too_long.store(true, Ordering::Relaxed);
            }
            if self.scanner.has_bare_line_feed() {
                self.progress.bare_line_feed.store(true, Ordering::Relaxed);
            }
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> KeepAliveStream<T> {
    /// Writes, unless the client takes nothing for too long.
    fn poll_write_some(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(cx, bytes) {
            self.write_timeout = None;
            return Poll::Ready(written);
        }
        let timeout = self
            .write_timeout
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(IDLE_TIMEOUT)));
        ready!(timeout.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Writes what stands in the place of an answer of hyper's own.
    fn poll_write_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.refusal.is_empty() {
            let refusal = self.refusal.clone();
            let written = ready!(self.poll_write_some(cx, &refusal))?;
            self.refusal.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

/// Not vectored: an answer of hyper's own is recognised in one piece.
impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for KeepAliveStream<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Refusal::at_end_of(buf) {
            None => self.poll_write_some(cx, buf),
            Some(refusal) if refusal.at > 0 => self.poll_write_some(cx, &buf[..refusal.at]),
            Some(refusal) => {
                let body = (self.limits.refusal_body)(refusal.status);
                let headers = (self.limits.refusal_headers)();
                self.refusal = refusal.completed(&headers, &body).into();
                Poll::Ready(Ok(buf.len()))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_refusal(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_refusal(cx))?;
        if self.discarding.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            if !self.progress.is_too_long() {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_discard(cx).map(Ok)
    }
}

/// The timer of one connection. hyper uses it for nothing but the head of a request.
#[derive(Debug)]
pub(crate) struct KeepAliveTimer {
    progress: Arc<HeadProgress>,
    has_had_head: AtomicBool,
    timeout: Duration,
}

impl Timer for KeepAliveTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    /// hyper begins to wait for a head, which should be there by `deadline`.
    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.progress.received.store(false, Ordering::Relaxed);
        let is_idle = self.has_had_head.swap(true, Ordering::Relaxed);
        let deadline = match is_idle {
            true => self.now() + IDLE_TIMEOUT,
            false => deadline,
        };
        Box::pin(HeadSleep {
            sleep: Box::pin(tokio::time::sleep_until(deadline.into())),
            is_idle,
            progress: Arc::clone(&self.progress),
            timeout: self.timeout,
        })
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into()
    }
}

/// Ends when the connection has waited long enough for a head.
struct HeadSleep {
    sleep: Pin<Box<tokio::time::Sleep>>,
    /// Whether nothing of the head had arrived when it was last polled.
    is_idle: bool,
    progress: Arc<HeadProgress>,
    timeout: Duration,
}

impl Sleep for HeadSleep {}

impl Future for HeadSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_idle && self.progress.received.load(Ordering::Relaxed) {
            self.is_idle = false;
            let deadline = tokio::time::Instant::now() + self.timeout;
            self.sleep.as_mut().reset(deadline);
        }
        self.sleep.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::Response;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{Instant, sleep};

    use super::*;

    const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    /// A client, and a server that answers `hi` to whatever it asks.
    fn connect() -> DuplexStream {
        let (client, server) = duplex(4096);
        let limits = HeadLimits {
            bytes_max: 8 << 10,
            timeout: HEAD_TIMEOUT,
            refusal_body: |status| format!("{{{}}}", status.as_u16()),
            refusal_headers: || "x-content-type-options: nosniff\r\n".to_owned(),
        };
        let (stream, timer, _) = keep_alive(server, limits);
        let service = service_fn(async |_| Ok::<_, Infallible>(Response::new("hi".to_owned())));
        let connection = http1::Builder::new()
            .timer(timer)
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
        client
    }

    async fn ask(client: &mut DuplexStream) {
        client.write_all(REQUEST).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"hi") {
            assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0, "closed");
        }
    }

    /// How long it takes until the server closes.
    async fn closed_after(client: &mut DuplexStream) -> Duration {
        let begin = Instant::now();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
        begin.elapsed()
    }

    /// Sleeps are as long as asked for, and a millisecond, which is the timer's grain.
    fn assert_is(elapsed: Duration, expected: Duration) {
        let grain = Duration::from_millis(2);
        assert!(
            elapsed >= expected && elapsed < expected + grain,
            "{elapsed:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_lives_75_seconds_after_each_answer() {
        let mut client = connect();
        for _ in 0..3 {
            ask(&mut client).await;
            sleep(Duration::from_secs(74)).await;
        }
        ask(&mut client).await;
        assert_is(closed_after(&mut client).await, Duration::from_secs(75));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_head_is_due_within_10_seconds_of_the_connection() {
        let mut client = connect();
        assert_is(closed_after(&mut client).await, HEAD_TIMEOUT);

        let mut client = connect();
        sleep(Duration::from_secs(9)).await;
        client.write_all(&REQUEST[..5]).await.unwrap();
        assert_is(closed_after(&mut client).await, Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_head_is_due_within_10_seconds_of_its_first_byte() {
        let mut client = connect();
        ask(&mut client).await;
        sleep(Duration::from_secs(60)).await;
        client.write_all(&REQUEST[..5]).await.unwrap();
        sleep(Duration::from_secs(9)).await;
        client.write_all(&REQUEST[5..9]).await.unwrap();
        assert_is(closed_after(&mut client).await, Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_of_its_answers_for_75_seconds_is_closed() {
        let mut client = connect();
        let begin = Instant::now();
        let flood = async { while client.write_all(REQUEST).await.is_ok() {} };
        flood.await;
        assert_is(begin.elapsed(), IDLE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn what_hyper_refuses_by_itself_has_a_body() {
        let mut client = connect();
        ask(&mut client).await;
        client.write_all(b"no request\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert!(
            answer.contains("x-content-type-options: nosniff"),
            "{answer}"
        );
        assert!(answer.ends_with("\r\n\r\n{400}"), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_comes_in_parts_is_answered() {
        let mut client = connect();
        ask(&mut client).await;
        sleep(Duration::from_secs(74)).await;
        client.write_all(&REQUEST[..5]).await.unwrap();
        sleep(Duration::from_secs(9)).await;
        client.write_all(&REQUEST[5..]).await.unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
}
