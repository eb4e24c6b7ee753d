//! Limits of single clients that change while the proxy runs, the same on all nodes: the entries of
//! a compacted topic.
//!
//! ```text
//! admin server ─ change ─▶ LimitEntries ─▶ StateLog ─▶ topic ─▶ StateLog of every node
//!       ▲                       ▲  │                                   │
//!       └─ it was read back ────┘  └──▶ ClientQuotas ─▶ open sockets   │
//!                               └──────────── records ◀────────────────┘
//! ```
//!
//! What is written to the topic stands in [`record`], and what it means in [`entries`].
//!
//! # Who may wait for whom
//! - A change waits until it is read back: one round trip to the brokers. After [`CHANGE_TIMEOUT`]
//!   it is answered 503, and at once while the log is known not to answer.
//! - Changes of all entries take turns.
//! - Neither sockets nor the start wait for anything here: until the topic is loaded the limits of
//!   the settings hold, and while it cannot be read those that were known.

mod entries;
mod record;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kafka_client::record::Record;
use kafka_client::{ProduceError, RecordMetadata};
use runtime::mutex::lock;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::entries::EntryChange;
use self::entries::{ChangeRefusal, ChangeResult, ENTRIES_MAX, LimitEntries};
use self::record::{CHANGE_HEADER, ChangeId, ID_CHARS_MAX, LimitRecord, LimitRecordError};
use crate::config::{ClientLimit, Config};
use crate::quotas::{ClientQuotas, LimitedId};
use crate::state_log::{self, EncodedEntry, LogTrouble, LoggedState, StateLog, StateTopicKind};

/// How long a change may take.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a broker may take for a request before another one is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a record may take to be written.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(4);

/// The topic. One that is not as it should be loses entries, or their order.
const LIMITS_TOPIC: StateTopicKind = StateTopicKind {
    noun: "topic of dynamic limits",
    replication_key: "dynamic-config-handler.topic-replication-factor",
    is_strict: true,
};

/// The dynamic entries, as this node takes part in them. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct DynamicLimits(Arc<DynamicLimitsShared>);

#[derive(Debug)]
struct DynamicLimitsShared {
    entries: Mutex<LimitEntries>,
    status: watch::Sender<LimitsLogStatus>,
    /// There is something to write.
    work: Notify,
    /// Held by who changes all entries.
    clear_turn: tokio::sync::Mutex<()>,
    quotas: ClientQuotas,
    topic: Arc<str>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// How far the log is.
#[derive(Clone, Debug, Default)]
struct LimitsLogStatus {
    is_loaded: bool,
    trouble: Option<LogTrouble>,
}

/// Why an entry is not changed, or nobody knows which there are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DynamicLimitsError {
    /// There is one.
    #[error("there is a dynamic entry already; PUT changes it")]
    Exists,
    /// There is none.
    #[error("there is no dynamic entry")]
    Missing,
    /// There are as many as there may be.
    #[error("there are {ENTRIES_MAX} dynamic entries, and allowed are as many")]
    TooMany,
    /// The id is none of a client.
    #[error("an id has 1 to {ID_CHARS_MAX} characters, none of them a control character")]
    IllegalId,
    /// It cannot be done now.
    #[error("{reason}")]
    Unavailable {
        /// What is wrong, without names of brokers.
        reason: String,
        /// For operators.
        detail: String,
    },
}

impl DynamicLimits {
    /// Begins to follow the topic, if limits change at all.
    pub(crate) fn start(config: &Config, quotas: &ClientQuotas) -> Option<Self> {
        let mut settings = config.dynamic_limits.topic.clone();
        if !config.dynamic_limits.enabled {
            return None;
        }
        if config.dev {
            // The embedded broker is one, which is no reason to warn.
            settings.replication_factor = 1;
        }
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let random = RandomState::new().hash_one(std::process::id());
        let shared = Arc::new(DynamicLimitsShared {
            entries: Mutex::new(LimitEntries::new(random)),
            status: watch::Sender::default(),
            work: Notify::new(),
            clear_turn: tokio::sync::Mutex::default(),
            quotas: quotas.clone(),
            topic: settings.name.as_str().into(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        });
        let timeouts = (PATIENCE, DELIVERY_TIMEOUT);
        let client = state_log::client(config, timeouts, tasks.clone(), stop.clone());
        let state = Arc::clone(&shared);
        let log = StateLog::new(state, client, LIMITS_TOPIC, settings, stop.clone());
        tasks.spawn(stop.run_until_cancelled_owned(log.run()));
        Some(Self(shared))
    }

    /// All entries.
    ///
    /// # Errors
    /// [`DynamicLimitsError::Unavailable`] when they were not loaded in some seconds.
    pub(crate) async fn all(&self) -> Result<BTreeMap<LimitedId, ClientLimit>, DynamicLimitsError> {
        self.with_entries(BTreeMap::clone).await
    }

    /// One entry, if there is one.
    ///
    /// # Errors
    /// As of [`all`](Self::all).
    pub(crate) async fn entry(
        &self,
        id: &LimitedId,
    ) -> Result<Option<ClientLimit>, DynamicLimitsError> {
        self.with_entries(|entries| entries.get(id).copied()).await
    }

    /// Changes an entry: when this returns, this node has read of it, and the others are about to.
    ///
    /// # Errors
    /// [`DynamicLimitsError::Unavailable`] after some seconds; if it was not known that the log
    /// does not answer, the change may take effect all the same.
    pub(crate) async fn change(
        &self,
        id: LimitedId,
        change: EntryChange,
    ) -> Result<(), DynamicLimitsError> {
        let chars = id.id.chars();
        if !(1..=ID_CHARS_MAX).contains(&chars.clone().count())
            || chars.clone().any(char::is_control)
        {
            return Err(DynamicLimitsError::IllegalId);
        }
        let by = Instant::now() + CHANGE_TIMEOUT;
        self.until_writable(by).await?;
        let begun = lock(&self.0.entries).begin(id, change);
        let decided = begun.map_err(|refusal| self.refused(refusal))?;
        self.0.work.notify_one();
        self.decided(decided, by).await
    }

    /// Forgets all entries.
    ///
    /// # Errors
    /// As of [`change`](Self::change): some may be forgotten then.
    pub(crate) async fn clear(&self) -> Result<(), DynamicLimitsError> {
        let by = Instant::now() + CHANGE_TIMEOUT;
        let turn = timeout_at(by, self.0.clear_turn.lock()).await;
        let _turn = turn.map_err(|_| self.late())?;
        self.until_writable(by).await?;
        let begun: Vec<_> = {
            let mut entries = lock(&self.0.entries);
            let ids: Vec<_> = entries.in_force().into_iter().flatten().collect();
            let ids: Vec<_> = ids.into_iter().map(|(id, _)| id.clone()).collect();
            let begun = ids
                .into_iter()
                .map(|id| entries.begin(id, EntryChange::Forget));
            begun.collect()
        };
        self.0.work.notify_one();
        for decided in begun {
            let decided = decided.map_err(|refusal| self.refused(refusal))?;
            self.decided(decided, by).await?;
        }
        Ok(())
    }

    /// Stops to follow the topic.
    pub(crate) async fn stop(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    async fn with_entries<T>(
        &self,
        read: impl Fn(&BTreeMap<LimitedId, ClientLimit>) -> T,
    ) -> Result<T, DynamicLimitsError> {
        let known = || lock(&self.0.entries).in_force().map(&read);
        if let Some(known) = known() {
            return Ok(known);
        }
        self.until_writable(Instant::now() + CHANGE_TIMEOUT).await?;
        known().ok_or_else(|| self.late())
    }

    /// Waits until the log is loaded, and nothing is known to be wrong with it.
    async fn until_writable(&self, by: Instant) -> Result<(), DynamicLimitsError> {
        let mut status = self.0.status.subscribe();
        let settled = status.wait_for(|status| status.is_loaded || status.trouble.is_some());
        match timeout_at(by, settled).await {
            Ok(Ok(status)) => match &status.trouble {
                None => Ok(()),
                Some(trouble) => Err(self.unavailable(trouble.clone())),
            },
            Ok(Err(_)) | Err(_) => Err(self.unavailable(LogTrouble {
                what: "it is not loaded yet",
                detail: "the brokers have not answered in time".to_owned(),
            })),
        }
    }

    async fn decided(
        &self,
        decided: oneshot::Receiver<ChangeResult>,
        by: Instant,
    ) -> Result<(), DynamicLimitsError> {
        match timeout_at(by, decided).await {
            Ok(Ok(result)) => result.map_err(|refusal| self.refused(refusal)),
            Ok(Err(_)) | Err(_) => Err(self.late()),
        }
    }

    fn refused(&self, refusal: ChangeRefusal) -> DynamicLimitsError {
        match refusal {
            ChangeRefusal::Exists => DynamicLimitsError::Exists,
            ChangeRefusal::Missing => DynamicLimitsError::Missing,
            ChangeRefusal::TooMany => DynamicLimitsError::TooMany,
            ChangeRefusal::NotWritten(detail) => self.unavailable(LogTrouble {
                what: "it cannot be written",
                detail,
            }),
        }
    }

    fn late(&self) -> DynamicLimitsError {
        self.unavailable(LogTrouble {
            what: "it did not answer in time; whether the change takes effect is not known",
            detail: "the change was not read back".to_owned(),
        })
    }

    fn unavailable(&self, trouble: LogTrouble) -> DynamicLimitsError {
        let LogTrouble { what, detail } = trouble;
        let topic = &self.0.topic;
        DynamicLimitsError::Unavailable {
            reason: format!("topic {topic}: {what}"),
            detail: format!("topic {topic}: {what} ({detail})"),
        }
    }
}

impl DynamicLimitsShared {
    /// Lets the entries change. The quotas follow, before anybody reads of it, and then whoever waits
    /// is told.
    fn with_entries(&self, change: impl FnOnce(&mut LimitEntries)) {
        let mut entries = lock(&self.entries);
        change(&mut entries);
        let changed = entries.take_changed();
        if !changed.is_empty() {
            let changed = changed.iter().map(|(id, entry)| (id, *entry));
            self.quotas.set_dynamic(changed);
        }
        for (asked, result) in entries.take_decided() {
            let _ = asked.send(result);
        }
        if entries.has_writes() {
            self.work.notify_one();
        }
    }
}

impl LoggedState for DynamicLimitsShared {
    type NewEntry = LimitRecord;
    type Entry = LimitRecord;
    type DecodeError = LimitRecordError;

    fn encode(entry: &LimitRecord) -> EncodedEntry {
        let (key, value) = entry.encode();
        let change = entry.change.map(ChangeId::encode);
        let header = change.map(|change| (CHANGE_HEADER, change));
        EncodedEntry { key, value, header }
    }

    fn decode(record: &Record<'_>) -> Result<LimitRecord, LimitRecordError> {
        let mut headers = record.headers.into_iter();
        let change = headers.find(|(name, _)| *name == CHANGE_HEADER.as_bytes());
        LimitRecord::decode(
            record.key,
            record.value,
            change.and_then(|(_, value)| value),
        )
    }

    fn begin_load(self: &Arc<Self>, _: i64) {
        self.status.send_modify(|status| status.is_loaded = false);
        self.with_entries(LimitEntries::begin_load);
    }

    fn loaded(self: &Arc<Self>) {
        self.with_entries(LimitEntries::loaded);
        self.status.send_modify(|status| status.is_loaded = true);
    }

    fn read(self: &Arc<Self>, entries: Vec<(i64, Option<LimitRecord>)>, _: i64) {
        self.with_entries(|known| {
            let understood = entries.into_iter().filter_map(|(_, record)| record);
            understood.for_each(|record| known.read(record));
        });
    }

    fn take_write(&self) -> Option<LimitRecord> {
        lock(&self.entries).take_write()
    }

    fn put_back(&self, entry: LimitRecord) {
        lock(&self.entries).put_back(entry);
    }

    fn answered(
        self: &Arc<Self>,
        entry: LimitRecord,
        result: Result<RecordMetadata, ProduceError>,
    ) {
        if let Err(error) = result {
            self.with_entries(|entries| entries.failed(&entry, &error.to_string()));
        }
    }

    fn set_trouble(&self, trouble: Option<LogTrouble>) {
        self.status.send_modify(|status| status.trouble = trouble);
    }

    fn work(&self) -> &Notify {
        &self.work
    }
}
