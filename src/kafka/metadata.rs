//! What is known of the cluster: its brokers, and who leads which partition.
//!
//! ```text
//! topic() ──wants──▶ ┌──────────────┐ one request ┌────────┐
//! request_update() ▶ │   refresher  │ at a time   │ broker │
//! metadata.max.age ▶ └──────┬───────┘ ──────────▶ └────────┘
//!                           ▼
//! current_leader() ◀─ ClusterSnapshot (watched)
//! ```
//!
//! # Invariants
//! - One request at a time; whoever needs news while one is under way shares the next.
//! - Only topics in use are asked for, and no question creates one.
//! - "Unknown topic" is an answer only when two questions that were asked after the call
//!   agree on it.

mod refresher;
mod snapshot;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

pub(crate) use self::refresher::run;
use self::snapshot::Fault;
pub use self::snapshot::{
    BrokerNode, ClusterSnapshot, LeaderAndEpoch, PartitionMetadata, TopicMetadata,
};
use super::lock::lock;
use super::topic::TopicPartition;

/// Why a topic is not to be had.
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
    /// Nobody answered in time.
    #[error("no broker answers: {reason}")]
    Unavailable {
        /// What the last attempt met.
        reason: Arc<str>,
    },
}

/// A handle to what is known of the cluster. Clones share it.
#[derive(Clone, Debug)]
pub struct Metadata {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    snapshot: watch::Sender<Arc<ClusterSnapshot>>,
    wanted: Mutex<Wanted>,
    wake: Notify,
    progress: watch::Sender<Progress>,
    health: Mutex<Result<(), Arc<str>>>,
    patience: Duration,
}

/// What the next question is about.
#[derive(Debug, Default)]
struct Wanted {
    topics: HashMap<Arc<str>, Interest>,
    /// Somebody needs an answer to a question that is yet to be asked.
    asked: bool,
    /// Questions so far.
    rounds: u64,
}

/// Who cares about a topic, and what the last answer said against it.
#[derive(Debug)]
struct Interest {
    waiting: usize,
    last_used: Instant,
    /// Answers in a row, and the round of the last, that said so.
    fault: Option<(Fault, u64, u32)>,
}

/// Which rounds are over.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    succeeded: u64,
    failed: u64,
}

impl Metadata {
    /// Knows nothing yet. Waits for news last at most `patience`.
    pub(crate) fn new(patience: Duration) -> Self {
        let nobody = "no broker has answered yet".into();
        Self {
            inner: Arc::new(Inner {
                snapshot: watch::Sender::default(),
                wanted: Mutex::default(),
                wake: Notify::new(),
                progress: watch::Sender::default(),
                health: Mutex::new(Err(nobody)),
                patience,
            }),
        }
    }

    /// What is known now.
    pub fn snapshot(&self) -> Arc<ClusterSnapshot> {
        Arc::clone(&self.inner.snapshot.borrow())
    }

    /// Tells of every change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<ClusterSnapshot>> {
        self.inner.snapshot.subscribe()
    }

    /// A topic; asks the cluster if it is not known, for as long as a request may take.
    ///
    /// # Errors
    /// See [`MetadataError`].
    pub async fn topic(&self, name: &str) -> Result<Arc<TopicMetadata>, MetadataError> {
        if let Some(topic) = self.inner.snapshot.borrow().topic(name) {
            topic.touch();
            return Ok(Arc::clone(topic));
        }
        let deadline = Instant::now() + self.inner.patience;
        let name: Arc<str> = name.into();
        let interest = Interested::new(self, &name);
        let mut unknown = 0;
        loop {
            let round = self.request_update();
            if timeout_at(deadline, self.succeeded(round)).await.is_err() {
                let reason = match self.ready() {
                    Ok(()) => "no leader yet".into(),
                    Err(reason) => reason.into(),
                };
                return Err(MetadataError::Unavailable { reason });
            }
            if let Some(topic) = self.inner.snapshot.borrow().topic(&name) {
                topic.touch();
                return Ok(Arc::clone(topic));
            }
            let topic = || Arc::clone(&name);
            match interest.fault(round) {
                Some(Fault::NotAuthorized) => {
                    return Err(MetadataError::NotAuthorized { topic: topic() });
                }
                Some(Fault::Invalid) => return Err(MetadataError::Invalid { topic: topic() }),
                Some(Fault::Unknown) => {
                    unknown += 1;
                    if unknown == 2 {
                        return Err(MetadataError::UnknownTopic { topic: topic() });
                    }
                }
                Some(Fault::Passing) | None => {}
            }
        }
    }

    /// Who leads a partition, as far as is known.
    pub fn current_leader(&self, tp: &TopicPartition) -> Option<LeaderAndEpoch> {
        let snapshot = self.inner.snapshot.borrow();
        let topic = snapshot.topic(&tp.topic)?;
        topic.touch();
        topic.leader(tp.partition)
    }

    /// What is known of this topic has proved wrong or is missing: asks at once, together
    /// with everybody else who does.
    pub fn request_update_for_topic(&self, topic: &str) {
        let mut wanted = lock(&self.inner.wanted);
        match wanted.topics.get_mut(topic) {
            Some(interest) => interest.last_used = Instant::now(),
            None => {
                wanted.topics.insert(topic.into(), Interest::new());
            }
        }
        wanted.asked = true;
        drop(wanted);
        self.inner.wake.notify_one();
    }

    /// Waits for the answer to a question that is asked after this call.
    ///
    /// # Errors
    /// [`MetadataError::Unavailable`] if no broker answered it.
    pub async fn refresh(&self) -> Result<(), MetadataError> {
        let round = self.request_update();
        let mut progress = self.inner.progress.subscribe();
        let over = progress
            .wait_for(|progress| progress.succeeded.max(progress.failed) >= round)
            .await
            .map(|progress| progress.succeeded >= round);
        match (over, self.ready()) {
            (Ok(true), _) | (_, Ok(())) => Ok(()),
            (_, Err(reason)) => Err(MetadataError::Unavailable {
                reason: reason.into(),
            }),
        }
    }

    /// A leader that a broker named in passing (KIP-951): taken if its epoch is newer than
    /// what is known. `endpoint` is where it listens, if the broker said so.
    pub fn update_partition_leadership(
        &self,
        tp: &TopicPartition,
        leader: LeaderAndEpoch,
        endpoint: Option<BrokerNode>,
    ) {
        self.inner.snapshot.send_if_modified(|snapshot| {
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
    /// Why not, for people.
    pub fn ready(&self) -> Result<(), String> {
        lock(&self.inner.health)
            .clone()
            .map_err(|reason| reason.to_string())
    }

    /// Requests an update soon, and returns the number of the one that will answer.
    pub(crate) fn request_update(&self) -> u64 {
        let mut wanted = lock(&self.inner.wanted);
        wanted.asked = true;
        let round = wanted.rounds + 1;
        drop(wanted);
        self.inner.wake.notify_one();
        round
    }

    async fn succeeded(&self, round: u64) {
        let mut progress = self.inner.progress.subscribe();
        // It cannot be closed while we hold its sender.
        let _ = progress
            .wait_for(|progress| progress.succeeded >= round)
            .await;
    }
}

impl Interest {
    fn new() -> Self {
        Self {
            waiting: 0,
            last_used: Instant::now(),
            fault: None,
        }
    }
}

/// Keeps a topic wanted while somebody waits for it.
struct Interested<'a> {
    metadata: &'a Metadata,
    topic: &'a Arc<str>,
}

impl<'a> Interested<'a> {
    fn new(metadata: &'a Metadata, topic: &'a Arc<str>) -> Self {
        lock(&metadata.inner.wanted)
            .topics
            .entry(Arc::clone(topic))
            .or_insert_with(Interest::new)
            .waiting += 1;
        Self { metadata, topic }
    }

    /// What an answer of that round or a later one said against the topic.
    fn fault(&self, round: u64) -> Option<Fault> {
        let wanted = lock(&self.metadata.inner.wanted);
        let (fault, at, _) = wanted.topics.get(self.topic)?.fault?;
        (at >= round).then_some(fault)
    }
}

impl Drop for Interested<'_> {
    fn drop(&mut self) {
        if let Some(interest) = lock(&self.metadata.inner.wanted).topics.get_mut(self.topic) {
            interest.waiting -= 1;
            interest.last_used = Instant::now();
        }
    }
}
