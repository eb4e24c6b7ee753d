//! The session topic, read and written.
//!
//! ```text
//! topic ─▶ read from its start to its end ─▶ follow: read, write, take acknowledgements
//!   ▲                                          │ the log is lost, cut, or another one
//!   └────────────── again, with backoff ◀──────┘
//! ```
//!
//! One task. It owns the reading position and what was sent; all decisions are the node's.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, StreamExt};
use kafka_client::client::Client;
use kafka_client::fetcher::{Cursor, FetchError, OffsetSpec};
use kafka_client::metadata::TopicMetadata;
use kafka_client::record::NewRecord;
use kafka_client::{IsolationLevel, ProduceError, RecordMetadata, TopicPartition};
use runtime::mutex::lock;
use runtime::wake::WakeSignal;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::node::LogTrouble;
use super::record::SessionRecord;
use super::shared::SessionsShared;
use super::topic::SessionStateTopic;
use crate::config::StateTopicConfig;

/// The pause before a write for which there was no memory is tried again.
const WRITE_PAUSE: Duration = Duration::from_millis(50);
/// The pause between tries once `topic-init-retries` are used up: brokers that were away for long
/// are not asked as often.
const SLOW_RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Reads and writes the session topic.
pub(super) struct SessionLog {
    shared: Arc<SessionsShared>,
    client: Client,
    config: StateTopicConfig,
    topic: SessionStateTopic,
    /// Whether it was said that a record is not understood.
    warned_of_record: bool,
    /// Whether the last write that was answered failed.
    is_write_failing: bool,
}

/// A record that was sent, and what becomes of it.
struct LogWriteResult {
    record: SessionRecord,
    result: Result<RecordMetadata, ProduceError>,
}

/// In the order they were sent in.
type LogWritesInFlight = FuturesOrdered<BoxFuture<'static, LogWriteResult>>;

impl SessionLog {
    pub(super) fn new(
        shared: Arc<SessionsShared>,
        client: Client,
        config: StateTopicConfig,
    ) -> Self {
        let topic = SessionStateTopic::new(client.cluster().clone(), config.clone());
        Self {
            shared,
            client,
            config,
            topic,
            warned_of_record: false,
            is_write_failing: false,
        }
    }

    /// Works until it is cancelled.
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        loop {
            let trouble = match self.load_and_follow(&mut failures).await {
                Ok(never) => match never {},
                Err(trouble) => trouble,
            };
            if self.shared.stop.is_cancelled() {
                return;
            }
            failures += 1;
            let retries = self.config.init_retries;
            if failures == 1 || failures == retries {
                let LogTrouble { what, detail } = &trouble;
                let topic = &self.config.name;
                warn!(topic, detail, "the session topic is not available: {what}");
            }
            self.set_trouble(Some(trouble));
            let interval = self.config.init_retry_interval;
            sleep(match failures < retries {
                true => interval,
                false => interval.max(SLOW_RETRY_INTERVAL),
            })
            .await;
        }
    }

    async fn load_and_follow(&mut self, failures: &mut u32) -> Result<Infallible, LogTrouble> {
        let init = timeout(self.config.init_timeout, self.topic.find_or_create());
        let topic = init
            .await
            .unwrap_or_else(|_| Err(LogTrouble::new("it is not there in time", "no answer")))?;
        let wake = Arc::new(WakeSignal::default());
        let mut cursor = self.load(&wake).await?;
        *failures = 0;
        self.set_trouble(None);
        self.follow(&topic, &mut cursor, &wake).await
    }

    /// Reads what there is.
    async fn load(&mut self, wake: &Arc<WakeSignal>) -> Result<Cursor, LogTrouble> {
        let begun = Instant::now();
        let tp = TopicPartition::new(self.config.name.as_str(), 0);
        let isolation = IsolationLevel::ReadUncommitted;
        let fetcher = self.client.fetcher().clone();
        let offset = async |spec| {
            let found = fetcher.list_offset(&tp, spec, isolation).await;
            found.map_err(|error| LogTrouble::new("it cannot be read", error.to_string()))
        };
        let start = offset(OffsetSpec::Earliest).await?;
        let end = offset(OffsetSpec::Latest).await?.offset;
        {
            let mut state = lock(&self.shared.state);
            state.outbox.clear();
            state.node.begin_load(start.offset);
        }
        let mut cursor = fetcher.cursor(tp.clone(), start, isolation, Arc::clone(wake));
        loop {
            self.read(&mut cursor)?;
            if self.shared.with_node(|node| node.next_offset()) >= end {
                break;
            }
            wake.notified().await;
        }
        self.shared.with_node(|node| node.loaded(Instant::now()));
        debug!(records = end - start.offset, elapsed = ?begun.elapsed(), "the sessions are loaded");
        Ok(cursor)
    }

    async fn follow(
        &mut self,
        topic: &Arc<TopicMetadata>,
        cursor: &mut Cursor,
        wake: &WakeSignal,
    ) -> Result<Infallible, LogTrouble> {
        let mut sent = LogWritesInFlight::new();
        loop {
            self.read(cursor)?;
            let wrote_all = self.write(topic, &mut sent);
            tokio::select! {
                () = wake.notified() => {}
                () = self.shared.work.notified() => {}
                Some(answered) = sent.next(), if !sent.is_empty() => {
                    self.answered(answered);
                    while let Some(Some(answered)) = sent.next().now_or_never() {
                        self.answered(answered);
                    }
                }
                () = sleep(WRITE_PAUSE), if !wrote_all => {}
            }
        }
    }

    /// Reads what is here.
    fn read(&mut self, cursor: &mut Cursor) -> Result<(), LogTrouble> {
        loop {
            let records = match cursor.try_next() {
                Ok(Some(records)) => records,
                Ok(None) => return Ok(()),
                Err(error) => return Err(read_trouble(&error)),
            };
            let now = Instant::now();
            let decoded: Vec<_> = records
                .records()
                .map(|record| {
                    let decoded = SessionRecord::decode(record.key, record.value);
                    (record.offset, self.understood(record.offset, decoded))
                })
                .collect();
            self.shared.with_node(|node| {
                for (offset, record) in decoded {
                    node.read(offset, record, now);
                }
                node.read_up_to(records.chunk.next_offset);
            });
        }
    }

    /// A record that is not understood is skipped; the first one is told of.
    fn understood<E: std::fmt::Display>(
        &mut self,
        offset: i64,
        decoded: Result<SessionRecord, E>,
    ) -> Option<SessionRecord> {
        decoded
            .inspect_err(|error| {
                if !std::mem::replace(&mut self.warned_of_record, true) {
                    let topic = &self.config.name;
                    warn!(topic, offset, %error, "a record of the session topic is skipped, as will be others like it");
                }
            })
            .ok()
    }

    /// Sends what is to be written; whether there was memory for all of it.
    fn write(&self, topic: &Arc<TopicMetadata>, sent: &mut LogWritesInFlight) -> bool {
        let mut state = lock(&self.shared.state);
        while let Some(record) = state.outbox.pop_front() {
            let (key, value) = record.encode();
            let new = NewRecord {
                key: Some(key.as_bytes()),
                value: value.as_deref().map(str::as_bytes),
                headers: &[],
                timestamp: now_millis(),
            };
            let delivery = match self.client.producer().try_send(topic, Some(0), &new) {
                Ok(Some(delivery)) => delivery.boxed(),
                Ok(None) => {
                    state.outbox.push_front(record);
                    return false;
                }
                Err(error) => ready(Err(error)).boxed(),
            };
            let sending = delivery.map(|result| LogWriteResult { record, result });
            sent.push_back(sending.boxed());
        }
        true
    }

    fn answered(&mut self, answered: LogWriteResult) {
        let now = Instant::now();
        let LogWriteResult { record, result } = answered;
        let was_failing = std::mem::replace(&mut self.is_write_failing, result.is_err());
        if let (Err(error), false) = (&result, was_failing) {
            let topic = &self.config.name;
            warn!(topic, %error, "the session topic cannot be written");
        }
        self.shared.with_node(|node| match result {
            Ok(metadata) => node.acked(record, metadata.offset, now),
            Err(error) => node.failed(record, &error.to_string(), now),
        });
        self.shared.answered.notify_waiters();
    }

    fn set_trouble(&self, trouble: Option<LogTrouble>) {
        let status = &self.shared.status;
        status.send_modify(|status| status.trouble = trouble);
    }
}

fn read_trouble(error: &FetchError) -> LogTrouble {
    let what = match error {
        FetchError::OutOfRange { .. } | FetchError::Truncated { .. } => "it was cut",
        FetchError::UnknownTopic { .. } => "it was deleted",
        FetchError::ClusterReplaced { .. } => "it is that of another cluster",
        FetchError::NotAuthorized { .. }
        | FetchError::Corrupt { .. }
        | FetchError::Unavailable { .. }
        | FetchError::Stopped => "it cannot be read",
    };
    LogTrouble::new(what, error.to_string())
}

/// For whoever looks at the topic: nothing is decided by it.
fn now_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}
