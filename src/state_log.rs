//! A log that the nodes of a deployment share: a compacted topic of one partition, which is read
//! from its beginning and followed, and written.
//!
//! ```text
//! topic ─▶ read from its start to its end ─▶ follow: read, write, take acknowledgements
//!   ▲                                          │ the log is lost, cut, or another one
//!   └────────────── again, with backoff ◀──────┘
//! ```
//!
//! One task. It owns the reading position and what was sent; what records mean, and which are
//! written, is the [`LoggedState`]'s.

mod topic;
mod trouble;

use std::convert::Infallible;
use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, StreamExt};
use kafka_client::client::Client;
use kafka_client::config::{ConsumerConfig, ProducerConfig};
use kafka_client::fetcher::{Cursor, FetchError, OffsetSpec};
use kafka_client::metadata::TopicMetadata;
use kafka_client::record::{NewHeader, NewRecord, Record};
use kafka_client::{
    Cluster, IsolationLevel, Principal, ProduceError, RecordMetadata, TopicPartition,
};
use runtime::wake::WakeSignal;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use self::topic::StateTopic;
pub(crate) use self::topic::StateTopicKind;
pub(crate) use self::trouble::LogTrouble;
use crate::config::{Config, StateTopicConfig};

/// The pause before a write for which there was no memory is tried again.
const WRITE_PAUSE: Duration = Duration::from_millis(50);
/// The pause between tries once `topic-init-retries` are used up: brokers that were away for long
/// are not asked as often.
const SLOW_RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// Bytes of the log that wait to be written, at most.
const WRITE_MEMORY: usize = 4 << 20;
/// Bytes of the log that were read and not applied, at most.
const READ_MEMORY: usize = 8 << 20;

/// What this node knows from a log, and has to write to it. Nothing here waits.
pub(crate) trait LoggedState: Send + Sync + 'static {
    /// What is written.
    type NewEntry: Send;
    /// What is read.
    type Entry;
    /// Why a record is not understood.
    type DecodeError: fmt::Display;

    fn encode(entry: &Self::NewEntry) -> EncodedEntry;

    /// # Errors
    /// What is not understood; it is skipped.
    fn decode(record: &Record<'_>) -> Result<Self::Entry, Self::DecodeError>;

    /// The log is read from that offset on: what was known of it, and was to be written, is void.
    fn begin_load(self: &Arc<Self>, start: i64);

    /// It is read to where it ended.
    fn loaded(self: &Arc<Self>);

    /// These were read, by their offsets; `None`: not understood. What comes next will have
    /// `next_offset` or more.
    fn read(self: &Arc<Self>, entries: Vec<(i64, Option<Self::Entry>)>, next_offset: i64);

    /// Takes the next entry that is to be written.
    fn take_write(&self) -> Option<Self::NewEntry>;

    /// It could not be written yet: it is the next again.
    fn put_back(&self, entry: Self::NewEntry);

    /// It was written, or was not.
    fn answered(
        self: &Arc<Self>,
        entry: Self::NewEntry,
        result: Result<RecordMetadata, ProduceError>,
    );

    /// What is wrong with the log now, if anything is.
    fn set_trouble(&self, trouble: Option<LogTrouble>);

    /// Notified when there is something to write.
    fn work(&self) -> &Notify;
}

/// An entry as bytes.
#[derive(Debug)]
pub(crate) struct EncodedEntry {
    pub(crate) key: String,
    /// `None`: a tombstone.
    pub(crate) value: Option<String>,
    /// Name and value of a header.
    pub(crate) header: Option<(&'static str, Vec<u8>)>,
}

/// Reads and writes a log.
pub(crate) struct StateLog<S: LoggedState> {
    state: Arc<S>,
    client: Client,
    kind: StateTopicKind,
    config: StateTopicConfig,
    topic: StateTopic,
    stop: CancellationToken,
    /// Whether it was said that a record is not understood.
    warned_of_record: bool,
    /// Whether the last write that was answered failed.
    is_write_failing: bool,
}

/// An entry that was sent, and what becomes of it.
struct LogWriteResult<E> {
    entry: E,
    result: Result<RecordMetadata, ProduceError>,
}

/// In the order they were sent in.
type LogWritesInFlight<E> = FuturesOrdered<BoxFuture<'static, LogWriteResult<E>>>;

impl<S: LoggedState> StateLog<S> {
    /// Works until it is cancelled, by `stop`.
    pub(crate) fn new(
        state: Arc<S>,
        client: Client,
        kind: StateTopicKind,
        config: StateTopicConfig,
        stop: CancellationToken,
    ) -> Self {
        let topic = StateTopic::new(client.cluster().clone(), kind, config.clone());
        Self {
            state,
            client,
            kind,
            config,
            topic,
            stop,
            warned_of_record: false,
            is_write_failing: false,
        }
    }

    pub(crate) async fn run(mut self) {
        let mut failures = 0;
        loop {
            let trouble = match self.load_and_follow(&mut failures).await {
                Ok(never) => match never {},
                Err(trouble) => trouble,
            };
            if self.stop.is_cancelled() {
                return;
            }
            failures += 1;
            let retries = self.config.init_retries;
            if failures == 1 || failures == retries {
                let LogTrouble { what, detail } = &trouble;
                let (topic, noun) = (&self.config.name, self.kind.noun);
                warn!(topic, detail, "the {noun} is not available: {what}");
            }
            self.state.set_trouble(Some(trouble));
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
        self.state.set_trouble(None);
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
        self.state.begin_load(start.offset);
        let mut cursor = fetcher.cursor(tp.clone(), start, isolation, Arc::clone(wake));
        loop {
            self.read(&mut cursor)?;
            if cursor.position().offset >= end {
                break;
            }
            wake.notified().await;
        }
        self.state.loaded();
        let (topic, records) = (&self.config.name, end - start.offset);
        debug!(topic, records, elapsed = ?begun.elapsed(), "the {} is loaded", self.kind.noun);
        Ok(cursor)
    }

    async fn follow(
        &mut self,
        topic: &Arc<TopicMetadata>,
        cursor: &mut Cursor,
        wake: &WakeSignal,
    ) -> Result<Infallible, LogTrouble> {
        let mut sent = LogWritesInFlight::new();
        let state = Arc::clone(&self.state);
        loop {
            self.read(cursor)?;
            let wrote_all = self.write(topic, &mut sent);
            tokio::select! {
                () = wake.notified() => {}
                () = state.work().notified() => {}
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
            let entries: Vec<_> = records
                .records()
                .map(|record| (record.offset, self.understood(&record)))
                .collect();
            self.state.read(entries, records.chunk.next_offset);
        }
    }

    /// A record that is not understood is skipped; the first one is told of.
    fn understood(&mut self, record: &Record<'_>) -> Option<S::Entry> {
        S::decode(record)
            .inspect_err(|error| {
                if !std::mem::replace(&mut self.warned_of_record, true) {
                    let (topic, noun, offset) = (&self.config.name, self.kind.noun, record.offset);
                    warn!(topic, offset, %error, "a record of the {noun} is skipped, as will be others like it");
                }
            })
            .ok()
    }

    /// Sends what is to be written; whether there was memory for all of it.
    fn write(&self, topic: &Arc<TopicMetadata>, sent: &mut LogWritesInFlight<S::NewEntry>) -> bool {
        while let Some(entry) = self.state.take_write() {
            let EncodedEntry { key, value, header } = S::encode(&entry);
            let header = header.as_ref().map(|(key, value)| NewHeader {
                key,
                value: Some(value),
            });
            let new = NewRecord {
                key: Some(key.as_bytes()),
                value: value.as_deref().map(str::as_bytes),
                headers: header.as_slice(),
                timestamp: now_millis(),
            };
            let delivery = match self.client.producer().try_send(topic, Some(0), &new) {
                Ok(Some(delivery)) => delivery.boxed(),
                Ok(None) => {
                    self.state.put_back(entry);
                    return false;
                }
                Err(error) => ready(Err(error)).boxed(),
            };
            let sending = delivery.map(|result| LogWriteResult { entry, result });
            sent.push_back(sending.boxed());
        }
        true
    }

    fn answered(&mut self, answered: LogWriteResult<S::NewEntry>) {
        let LogWriteResult { entry, result } = answered;
        let was_failing = std::mem::replace(&mut self.is_write_failing, result.is_err());
        if let (Err(error), false) = (&result, was_failing) {
            let (topic, noun) = (&self.config.name, self.kind.noun);
            warn!(topic, %error, "the {noun} cannot be written");
        }
        self.state.answered(entry, result);
    }
}

/// Connections, a producer and a fetcher of a log's own. A request that a broker does not answer
/// for `patience` is to be sent to another one; what is not written in `delivery_timeout` was not.
pub(crate) fn client(
    config: &Config,
    (patience, delivery_timeout): (Duration, Duration),
    tasks: TaskTracker,
    stop: CancellationToken,
) -> Client {
    let mut client = config.client.clone();
    client.metrics = client.metrics.without_records();
    client.request_timeout = client.request_timeout.min(patience);
    let producer = ProducerConfig {
        delivery_timeout,
        buffer_memory: WRITE_MEMORY,
        ..ProducerConfig::default()
    };
    let consumer = ConsumerConfig {
        fetch_memory: READ_MEMORY,
        ..ConsumerConfig::default()
    };
    let cluster = Cluster::new(client, Principal::Proxy, tasks, stop);
    Client::new(cluster, producer, consumer)
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
