//! The console under load, in a headless Chromium: what its main thread is kept from, and what it
//! keeps in memory.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval};

use crate::chromium::{Chromium, ChromiumPage};
use crate::load::{Frames, open, text_frame};
use crate::processes::ProxyProcess;
use crate::{Bench, VALUE};

/// Records of a frame.
const FRAME_RECORDS: u64 = 100;
/// 10,000 records a second.
const PACE: Duration = Duration::from_millis(10);
const PACED_RECORDS: u64 = 200_000;
/// As fast as they are acknowledged.
const MORE_RECORDS: u64 = 1_000_000;

/// A page that reads 10,000 records a second for 20 s, and then a million.
pub(crate) async fn console(bench: &Bench) {
    let proxy = ProxyProcess::start_dev(bench.binary(), &[]);
    let browser = Chromium::start(&[]).await;
    let url = format!("http://127.0.0.1:{}/#topic=console", proxy.port());
    let page = browser.open(&url).await;
    page.until("document.querySelector('#read-state').dataset.state === 'open'")
        .await;
    let heap_before = page.heap_bytes().await;
    let producing = open(proxy.port(), "/socket/in?topic=console").await;
    let mut producer = FrameProducer::over(producing.expect("the proxy serves"));

    page.observe_long_tasks().await;
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let paced = measure(&page, PACED_RECORDS, async || {
        pace.tick().await;
        producer.produce().await
    });
    let seconds = paced.await;
    let longest = page.longest_task_ms().await;
    let heap = page.heap_bytes().await;
    let figures = [
        ("records", PACED_RECORDS as f64),
        ("records_per_s", PACED_RECORDS as f64 / seconds),
        ("left_out", counted(&page, "leftOut").await),
        ("longest_task_ms", longest),
        ("heap_mib_before", mib(heap_before)),
        ("heap_mib", mib(heap)),
    ];
    bench.print("console_paced", &figures);

    let all = PACED_RECORDS + MORE_RECORDS;
    let seconds = measure(&page, all, async || producer.produce().await).await;
    let figures = [
        ("records", MORE_RECORDS as f64),
        ("records_per_s", MORE_RECORDS as f64 / seconds),
        ("left_out", counted(&page, "leftOut").await),
        ("longest_task_ms", page.longest_task_ms().await),
        ("heap_mib", mib(page.heap_bytes().await)),
    ];
    bench.print("console_million", &figures);
}

/// Produces until there are so many records, and waits until the page has seen all of them; the
/// seconds that this took.
async fn measure(
    page: &ChromiumPage,
    records: u64,
    mut produce: impl AsyncFnMut() -> io::Result<u64>,
) -> f64 {
    let started = Instant::now();
    while produce().await.expect("the proxy takes it") < records {}
    let all = format!(
        "(({{ received, leftOut, waiting }}) => Number(received) + Number(leftOut) === {records} \
         && waiting === '0')(document.querySelector('#counts').dataset)"
    );
    page.until(&all).await;
    started.elapsed().as_secs_f64()
}

/// What the page counts under that name.
async fn counted(page: &ChromiumPage, name: &str) -> f64 {
    let count = format!("Number(document.querySelector('#counts').dataset.{name})");
    page.evaluate(&count).await.as_f64().expect("a number")
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Sends frames of a hundred records, one after the other.
struct FrameProducer {
    stream: TcpStream,
    frames: Frames,
    frame: Vec<u8>,
    produced: u64,
}

impl FrameProducer {
    fn over((stream, frames): (TcpStream, Frames)) -> Self {
        let record = format!(r#"{{"value":{{"value":"{VALUE}"}}}}"#);
        let records = vec![record; FRAME_RECORDS as usize].join(",");
        let mut frame = Vec::new();
        text_frame(&mut frame, format!("[{records}]").as_bytes());
        Self {
            stream,
            frames,
            frame,
            produced: 0,
        }
    }

    /// Sends one, and waits for its answer; how many records there are so far.
    async fn produce(&mut self) -> io::Result<u64> {
        self.stream.write_all(&self.frame).await?;
        let (mut answered, mut buffer) = (false, vec![0; 64 << 10]);
        while !answered {
            let read = self.stream.read(&mut buffer).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.frames.feed(&buffer[..read], |_| answered = true);
        }
        self.produced += FRAME_RECORDS;
        Ok(self.produced)
    }
}
