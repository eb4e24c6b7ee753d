//! What is known of the cluster: its brokers, and who leads which partition.
//!
//! ```text
//! topic() ── is missing ─▶ ┌─────────────────────┐ begin_update()     ┌─────────────────┐
//! request_update() ──────▶ │ topics of interest, │ ─────────────────▶ │ MetadataUpdater │
//!                          │ update requested?   │ complete_update(), │ of the cluster  │
//!                          └──────────┬──────────┘ ◀───────────────── └─────────────────┘
//!                                     ▼            fail_update()
//!   current_leader(), snapshot() ◀─ ClusterSnapshot (watched)
//! ```
//!
//! # Invariants
//! - One Metadata request at a time; whoever requests an update while one is in flight
//!   shares the next.
//! - Only topics in use are asked for, and no request creates one.
//! - "Unknown topic" is an answer only when two responses agree on it whose requests were
//!   sent after the call.

mod snapshot;
mod topics;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kafka_protocol::messages::MetadataResponse;
use runtime::mutex::lock;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use self::snapshot::TopicError;
pub use self::snapshot::{
    BrokerNode, ClusterSnapshot, LeaderAndEpoch, PartitionMetadata, TopicMetadata,
};
use self::topics::TopicsOfInterest;
use super::topic::TopicPartition;

/// Why there is no metadata of a topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// The cluster has no such topic.
    #[error("topic {topic} does not exist")]
    UnknownTopic {
        /// Its name.
        topic: Arc<str>,
    },
    /// The cluster does not let us see it.
    #[error("not authorized for topic {topic}")]
    NotAuthorized {
        /// Its name.
        topic: Arc<str>,
    },
    /// No topic can have that name.
    #[error("{topic:?} is not a valid topic name")]
    Invalid {
        /// The name.
        topic: Arc<str>,
    },
    /// No broker answered in time.
    #[error("no broker answers: {reason}")]
    Unavailable {
        /// What the last attempt met.
        reason: Arc<str>,
    },
}

/// A handle to what is known of the cluster. Clones share it.
#[derive(Clone, Debug)]
pub struct Metadata {
    shared: Arc<MetadataShared>,
}

#[derive(Debug)]
struct MetadataShared {
    snapshot: watch::Sender<Arc<ClusterSnapshot>>,
    topics: Mutex<TopicsOfInterest>,
    /// An update was requested.
    requested: Notify,
    progress: watch::Sender<UpdateProgress>,
    /// Whether the cluster answered the last request, and why not.
    health: Mutex<Result<(), Arc<str>>>,
    /// How long [`Metadata::topic`] waits for an update.
    max_wait: Duration,
}

/// The latest updates that are over.
#[derive(Clone, Copy, Debug, Default)]
struct UpdateProgress {
    succeeded: u64,
    failed: u64,
}

impl Metadata {
    /// Knows nothing yet. [`topic`](Self::topic) waits at most `max_wait` for an update.
    pub(crate) fn new(max_wait: Duration) -> Self {
        Self {
            shared: Arc::new(MetadataShared {
                snapshot: watch::Sender::default(),
                topics: Mutex::default(),
                requested: Notify::new(),
                progress: watch::Sender::default(),
                health: Mutex::new(Err("no broker has answered yet".into())),
                max_wait,
            }),
        }
    }

    /// What is known now.
    pub fn snapshot(&self) -> Arc<ClusterSnapshot> {
        Arc::clone(&self.shared.snapshot.borrow())
    }

    /// Is notified of every change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<ClusterSnapshot>> {
        self.shared.snapshot.subscribe()
    }

    /// A topic; asks the cluster if it is not known, for as long as a request may take.
    ///
    /// # Errors
    /// See [`MetadataError`].
    pub async fn topic(&self, name: &str) -> Result<Arc<TopicMetadata>, MetadataError> {
        if let Some(topic) = self.shared.snapshot.borrow().topic(name) {
            topic.mark_used();
            return Ok(Arc::clone(topic));
        }
        let deadline = Instant::now() + self.shared.max_wait;
        let name: Arc<str> = name.into();
        let waiter = TopicWaiter::new(self, &name);
        let mut unknown = 0;
        loop {
            let update = self.request_update();
            if timeout_at(deadline, self.succeeded(update)).await.is_err() {
                let reason = match self.ready() {
                    Ok(()) => "no leader yet".into(),
                    Err(reason) => reason.into(),
                };
                return Err(MetadataError::Unavailable { reason });
            }
            if let Some(topic) = self.shared.snapshot.borrow().topic(&name) {
                topic.mark_used();
                return Ok(Arc::clone(topic));
            }
            let topic = || Arc::clone(&name);
            match waiter.error_since(update) {
                Some(TopicError::NotAuthorized) => {
                    return Err(MetadataError::NotAuthorized { topic: topic() });
                }
                Some(TopicError::InvalidName) => {
                    return Err(MetadataError::Invalid { topic: topic() });
                }
                Some(TopicError::Unknown) => {
                    unknown += 1;
                    if unknown == 2 {
                        return Err(MetadataError::UnknownTopic { topic: topic() });
                    }
                }
                Some(TopicError::Retriable) | None => {}
            }
        }
    }

    /// Who leads a partition, as far as is known.
    pub fn current_leader(&self, tp: &TopicPartition) -> Option<LeaderAndEpoch> {
        let snapshot = self.shared.snapshot.borrow();
        let topic = snapshot.topic(&tp.topic)?;
        topic.mark_used();
        topic.leader(tp.partition)
    }

    /// What is known of this topic has proved wrong or is missing: requests an update at
    /// once, together with everybody else who does.
    pub fn request_update_for_topic(&self, topic: &str) {
        lock(&self.shared.topics).request_update_for(topic);
        self.shared.requested.notify_one();
    }

    /// Waits for the response to a request that is sent after this call.
    ///
    /// # Errors
    /// [`MetadataError::Unavailable`] if no broker answered it.
    pub async fn refresh(&self) -> Result<(), MetadataError> {
        let update = self.request_update();
        let mut progress = self.shared.progress.subscribe();
        let over = progress
            .wait_for(|progress| progress.succeeded.max(progress.failed) >= update)
            .await
            .map(|progress| progress.succeeded >= update);
        match (over, self.ready()) {
            (Ok(true), _) | (_, Ok(())) => Ok(()),
            (_, Err(reason)) => Err(MetadataError::Unavailable {
                reason: reason.into(),
            }),
        }
    }

    /// A leader that came with the response to a Produce or Fetch request (KIP-951): taken
    /// if its epoch is newer than what is known. `endpoint` is where it listens, if the
    /// broker said so.
    pub(crate) fn update_partition_leadership(
        &self,
        tp: &TopicPartition,
        leader: LeaderAndEpoch,
        endpoint: Option<BrokerNode>,
    ) {
        self.shared.snapshot.send_if_modified(|snapshot| {
            let next = snapshot.with_leader(&tp.topic, tp.partition, leader, endpoint);
            match next {
                Some(next) => {
                    *snapshot = Arc::new(next);
                    true
                }
                None => false,
            }
        });
    }

    /// Whether the cluster answers.
    ///
    /// # Errors
    /// Why it does not, as text for operators.
    pub fn ready(&self) -> Result<(), String> {
        lock(&self.shared.health)
            .clone()
            .map_err(|reason| reason.to_string())
    }

    /// Requests an update, and returns the number of the one that will answer: one that
    /// has not begun.
    pub(crate) fn request_update(&self) -> u64 {
        let update = lock(&self.shared.topics).request_update();
        self.shared.requested.notify_one();
        update
    }

    async fn succeeded(&self, update: u64) {
        let mut progress = self.shared.progress.subscribe();
        // It cannot be closed while we hold its sender.
        let _ = progress
            .wait_for(|progress| progress.succeeded >= update)
            .await;
    }
}

/// For the cluster's updater.
impl Metadata {
    /// Completes when an update was requested since the last one began.
    pub(crate) async fn update_requested(&self) {
        loop {
            let requested = self.shared.requested.notified();
            if lock(&self.shared.topics).is_update_requested() {
                return;
            }
            requested.await;
        }
    }

    /// Begins an update, which answers everybody who requested one until now: its number,
    /// and the topics to ask for.
    pub(crate) fn begin_update(&self) -> (u64, Vec<Arc<str>>) {
        lock(&self.shared.topics).begin_update()
    }

    /// Takes what a broker answered.
    pub(crate) fn complete_update(&self, update: u64, response: &MetadataResponse) {
        let shared = &self.shared;
        let mut brokers = 0;
        shared.snapshot.send_if_modified(|snapshot| {
            let (mut next, results) = snapshot.merge_with(response);
            let mut topics = lock(&shared.topics);
            topics.note_results(&results, &mut next, update);
            topics.expire(snapshot, &mut next, Instant::now());
            brokers = next.brokers.len();
            let has_changed = next.differs_from(snapshot);
            if has_changed {
                *snapshot = Arc::new(next);
            }
            has_changed
        });
        *lock(&shared.health) = if brokers > 0 {
            Ok(())
        } else {
            Err("the cluster has no brokers yet".into())
        };
        shared
            .progress
            .send_modify(|progress| progress.succeeded = update);
    }

    /// Notes that no broker answered, and requests the update again.
    pub(crate) fn fail_update(&self, update: u64, reason: &str) {
        *lock(&self.shared.health) = Err(reason.into());
        lock(&self.shared.topics).request_update();
        self.shared
            .progress
            .send_modify(|progress| progress.failed = update);
    }
}

/// Keeps a topic among those that are asked for while somebody waits for it.
struct TopicWaiter<'a> {
    metadata: &'a Metadata,
    topic: &'a Arc<str>,
}

impl<'a> TopicWaiter<'a> {
    fn new(metadata: &'a Metadata, topic: &'a Arc<str>) -> Self {
        lock(&metadata.shared.topics).add_waiter(topic);
        Self { metadata, topic }
    }

    /// What the response of that update or of a later one said against the topic.
    fn error_since(&self, update: u64) -> Option<TopicError> {
        lock(&self.metadata.shared.topics).error_since(self.topic, update)
    }
}

impl Drop for TopicWaiter<'_> {
    fn drop(&mut self) {
        lock(&self.metadata.shared.topics).remove_waiter(self.topic);
    }
}
