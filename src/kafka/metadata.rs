//! What is known of the cluster: its brokers, and who leads which partition.
//!
//! ```text
//! topic() ─ is missing ────▶ ┌─────────────────────┐ begin_update()     ┌─────────────────┐
//! topics_refreshed_after() ▶ │ topics of interest, │ ─────────────────▶ │ MetadataUpdater │
//! request_update() ────────▶ │ update requested?   │ complete_update(), │ of the cluster  │
//!                            └──────────┬──────────┘ ◀───────────────── └─────────────────┘
//!                                       ▼            fail_update()
//!    current_leader(), snapshot() ◀─ ClusterSnapshot (watched)
//! ```
//!
//! # Invariants
//! - One Metadata request at a time; whoever requests an update while one is in flight
//!   shares the next.
//! - Only topics in use are asked for, and no request creates one.
//! - "Unknown topic" is an answer only when two responses agree on it whose requests were
//!   sent after the call.
//! - What is known is of one cluster: see `ClusterSnapshot::merge_with`, and `any_broker` about
//!   which cluster that is.
//! - What is known has an age: [`Metadata::topics_refreshed_after`] answers only by responses to
//!   requests that were sent after the time that it is given. A caller that accepts or rejects
//!   what somebody wants of a topic gives it the time at which that was wanted.
//!
//! # Who may wait for whom
//! - A topic lookup waits for the request in flight, if there is one, and for its own: a partial
//!   update about all its topics, shared with every other lookup that began in between. It does
//!   not wait for the topics in use: a partial update names only those that are looked up.
//! - Partial updates are limited in their rate: `PARTIAL_UPDATE_INTERVAL` and
//!   `PARTIAL_UPDATE_BURST`. A full update begins at most once in `retry.backoff.ms`, however
//!   many request it. A lookup that a response leaves open (no leader yet, or a retriable error)
//!   requests another update with backoff.
//! - A lookup ends after `request.timeout.ms`, or earlier if the caller says so.

mod authorized_operations;
mod snapshot;
mod topics;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kafka_protocol::messages::MetadataResponse;
use runtime::mutex::lock;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use uuid::Uuid;

pub use self::authorized_operations::{AclOperation, AuthorizedOperations};
use self::snapshot::TopicError;
pub use self::snapshot::{
    BrokerNode, ClusterSnapshot, LeaderAndEpoch, PartitionMetadata, TopicMetadata,
};
pub(crate) use self::topics::MetadataUpdate;
use self::topics::TopicsOfInterest;
use super::backoff::ExponentialBackoff;
use super::topic::{TopicIdentity, TopicPartition};

/// From one partial update to the next, on average.
pub(crate) const PARTIAL_UPDATE_INTERVAL: Duration = Duration::from_micros(500);
/// So many partial updates may follow each other at once: callers that come one by one wait for
/// the broker alone.
pub(crate) const PARTIAL_UPDATE_BURST: u32 = 200;

/// How long a partition's leader may take for an answer, beyond the wait that the request allows
/// it, before the cluster is asked whether it still leads the partition, and then again.
pub(crate) const OVERDUE_AFTER: Duration = Duration::from_secs(2);

/// The first and the longest wait before a topic that has no leader, or a retriable error, is
/// looked up again.
const TOPIC_RETRY_BACKOFF: Duration = Duration::from_millis(10);
const TOPIC_RETRY_BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Why there is no metadata of a topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// The cluster has no such topic.
    #[error("topic {topic} does not exist")]
    UnknownTopic {
        /// The name that was asked for.
        topic: Arc<str>,
    },
    /// The cluster does not let us see it.
    #[error("not authorized for topic {topic}")]
    NotAuthorized {
        /// The name that was asked for.
        topic: Arc<str>,
    },
    /// No topic can have that name.
    #[error("{topic:?} is not a valid topic name")]
    Invalid {
        /// The name.
        topic: Arc<str>,
    },
    /// No broker answered in time, or none that could describe the topic.
    #[error("topic metadata unavailable: {reason}")]
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
    /// Why the last update failed, if it did.
    last_update_error: Mutex<Option<Arc<str>>>,
    /// The same, once the cluster has answered.
    outage: watch::Sender<Option<Arc<str>>>,
    /// Counts the clusters that took another one's place.
    cluster_changes: watch::Sender<u64>,
    cluster_observers: Mutex<ClusterObservers>,
    /// How long [`Metadata::topic`] and [`Metadata::topics_refreshed_after`] wait for updates.
    max_wait: Duration,
}

/// Called when another cluster takes the place of the known one.
#[derive(Default)]
struct ClusterObservers(Vec<Box<dyn Fn() + Send + Sync>>);

impl fmt::Debug for ClusterObservers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} observers", self.0.len())
    }
}

/// The latest updates that are over.
#[derive(Clone, Copy, Debug, Default)]
struct UpdateProgress {
    succeeded: u64,
    failed: u64,
}

impl Metadata {
    /// Knows nothing yet. A topic lookup waits at most `max_wait` for updates.
    pub(crate) fn new(max_wait: Duration) -> Self {
        Self {
            shared: Arc::new(MetadataShared {
                snapshot: watch::Sender::default(),
                topics: Mutex::default(),
                requested: Notify::new(),
                progress: watch::Sender::default(),
                last_update_error: Mutex::new(Some("no broker has answered yet".into())),
                outage: watch::Sender::default(),
                cluster_changes: watch::Sender::new(0),
                cluster_observers: Mutex::default(),
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

    /// Changes when another cluster takes the place of the known one, before there is any
    /// connection to the new one.
    pub(crate) fn cluster_changes(&self) -> watch::Receiver<u64> {
        self.shared.cluster_changes.subscribe()
    }

    /// Has `observer` called when another cluster takes the place of the known one: before the
    /// snapshot changes, and before there is any connection to the new one.
    pub(crate) fn observe_cluster(&self, observer: impl Fn() + Send + Sync + 'static) {
        lock(&self.shared.cluster_observers)
            .0
            .push(Box::new(observer));
    }

    /// A topic. Returns at once if it is known; else waits until the cluster has described it, for
    /// `request.timeout.ms` at most.
    ///
    /// # Errors
    /// Any [`MetadataError`]: the cluster does not have the topic or does not show it, or no
    /// response has settled that in time ([`Unavailable`](MetadataError::Unavailable)).
    pub async fn topic(&self, name: &str) -> Result<Arc<TopicMetadata>, MetadataError> {
        if let Some(topic) = self.known_topic(name, None) {
            return Ok(topic);
        }
        let mut found = self.find_topics(&[name.into()], None).await;
        found.remove(0)
    }

    /// Topics, in the order of `names`. Waits for one update about all that are not known, for
    /// `request.timeout.ms` at most.
    pub(crate) async fn topics(
        &self,
        names: &[Arc<str>],
    ) -> Vec<Result<Arc<TopicMetadata>, MetadataError>> {
        self.find_topics(names, None).await
    }

    /// Topics, each as described by the response to a request that was sent after `asked_at`, in
    /// the order of `names`: nothing is accepted or rejected by what was known before the request.
    /// Waits for one update about all of them, for `request.timeout.ms` at most.
    pub async fn topics_refreshed_after(
        &self,
        names: &[Arc<str>],
        asked_at: Instant,
    ) -> Vec<Result<Arc<TopicMetadata>, MetadataError>> {
        self.find_topics(names, Some(asked_at)).await
    }

    /// A topic that was just created: the brokers learn of it one after the other, so that it is
    /// asked for until one knows it, for `request.timeout.ms` at most.
    ///
    /// # Errors
    /// Any but that it is unknown.
    pub async fn created_topic(
        &self,
        name: &Arc<str>,
    ) -> Result<Arc<TopicMetadata>, MetadataError> {
        let mut search = TopicSearch::new(self, name);
        search.unknown_needed = u32::MAX;
        let mut found = self.complete(vec![search], Some(Instant::now())).await;
        found.remove(0)
    }

    /// The topic, if it is known, and was described by a request sent after that time.
    fn known_topic(&self, name: &str, asked_at: Option<Instant>) -> Option<Arc<TopicMetadata>> {
        // In this order: a response is noted for the topic before the snapshot shows it, and
        // the snapshot cannot be read in between.
        let is_current = |asked_at| lock(&self.shared.topics).is_refreshed_after(name, asked_at);
        if !asked_at.is_none_or(is_current) {
            return None;
        }
        let snapshot = self.shared.snapshot.borrow();
        let topic = snapshot.topic(name)?;
        topic.mark_used();
        Some(Arc::clone(topic))
    }

    /// Topics, each as the first response describes it whose request was sent after `asked_at`:
    /// what that leaves open is [`Unavailable`](MetadataError::Unavailable), and a topic that it
    /// does not know is unknown, though the next response may know it. Waits for `within` at most.
    pub(crate) async fn topics_in_next_response(
        &self,
        names: &[Arc<str>],
        asked_at: Instant,
        within: Duration,
    ) -> Vec<Result<Arc<TopicMetadata>, MetadataError>> {
        let mut searches: Vec<_> = names.iter().map(|n| TopicSearch::new(self, n)).collect();
        for search in &mut searches {
            search.unknown_needed = 1;
            search.update(Some(asked_at), None);
        }
        if let Some(update) = self.request_pending(&searches)
            && timeout(within, self.succeeded(update)).await.is_ok()
        {
            for search in &mut searches {
                search.update(Some(asked_at), Some(update));
            }
        }
        let results = searches.into_iter().map(TopicSearch::into_result);
        results.collect()
    }

    async fn find_topics(
        &self,
        names: &[Arc<str>],
        asked_at: Option<Instant>,
    ) -> Vec<Result<Arc<TopicMetadata>, MetadataError>> {
        let searches = names.iter().map(|n| TopicSearch::new(self, n));
        self.complete(searches.collect(), asked_at).await
    }

    async fn complete(
        &self,
        mut searches: Vec<TopicSearch<'_>>,
        asked_at: Option<Instant>,
    ) -> Vec<Result<Arc<TopicMetadata>, MetadataError>> {
        let deadline = Instant::now() + self.shared.max_wait;
        let mut answered_by = None;
        let mut backoff = ExponentialBackoff::new(TOPIC_RETRY_BACKOFF, TOPIC_RETRY_BACKOFF_MAX);
        loop {
            for search in &mut searches {
                search.update(asked_at, answered_by);
            }
            if searches.iter().any(TopicSearch::must_ask_again_later) {
                let at = Instant::now() + backoff.after_failure();
                sleep_until(at.min(deadline)).await;
                if at >= deadline {
                    break;
                }
            }
            let Some(update) = self.request_pending(&searches) else {
                break;
            };
            if timeout_at(deadline, self.succeeded(update)).await.is_err() {
                break;
            }
            answered_by = Some(update);
        }
        let results = searches.into_iter().map(TopicSearch::into_result);
        results.collect()
    }

    /// Requests an update about the topics that have no result yet; its number.
    fn request_pending(&self, searches: &[TopicSearch<'_>]) -> Option<u64> {
        let pending = searches.iter().filter(|search| search.result.is_none());
        let mut pending = pending.map(|search| search.topic).peekable();
        pending.peek()?;
        let update = lock(&self.shared.topics).request_topics(pending);
        self.shared.requested.notify_one();
        Some(update)
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

    /// A broker that had this partition denies to know it: its topic may have been deleted, and
    /// another one may have its name by now. Where topics have no ids, the next response decides.
    /// `identity` is the topic that it had.
    pub(crate) fn doubt_topic(&self, tp: &TopicPartition, identity: TopicIdentity) {
        if !identity.id.is_nil() || self.is_replaced(&tp.topic, identity) {
            return;
        }
        lock(&self.shared.topics).doubt(&tp.topic, Instant::now());
        self.shared.requested.notify_one();
    }

    /// Whether the topic of that name is known to be another one by now.
    pub(crate) fn is_replaced(&self, topic: &str, identity: TopicIdentity) -> bool {
        let snapshot = self.shared.snapshot.borrow();
        let now = snapshot.topic(topic).map(|topic| topic.identity());
        now.is_some_and(|now| now.differs_from(identity))
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
        match (over, self.last_update_error()) {
            (Ok(true), _) | (_, None) => Ok(()),
            (_, Some(reason)) => Err(MetadataError::Unavailable { reason }),
        }
    }

    /// A leader that came with the response to a Produce or Fetch request (KIP-951): taken
    /// if its epoch is newer than what is known of the topic with that id (nil: whichever has that
    /// name). `endpoint` is where it listens, if the
    /// broker said so.
    pub(crate) fn update_partition_leadership(
        &self,
        tp: &TopicPartition,
        topic_id: Uuid,
        leader: LeaderAndEpoch,
        endpoint: Option<BrokerNode>,
    ) {
        self.shared.snapshot.send_if_modified(|snapshot| {
            let next = snapshot.with_leader(&tp.topic, topic_id, tp.partition, leader, endpoint);
            match next {
                Some(next) => {
                    *snapshot = Arc::new(next);
                    true
                }
                None => false,
            }
        });
    }

    /// Why the last update failed, or found no brokers, as text for operators; before the first
    /// one, that there was none. `None`: the cluster answers.
    pub fn last_update_error(&self) -> Option<Arc<str>> {
        lock(&self.shared.last_update_error).clone()
    }

    /// Completes, with the reason for operators, as soon as the cluster is known not to answer. One
    /// that has never answered may be about to start, and is waited for.
    pub async fn outage(&self) -> Arc<str> {
        let mut outage = self.shared.outage.subscribe();
        loop {
            if let Some(reason) = outage.borrow_and_update().clone() {
                return reason;
            }
            // It cannot be closed while we hold its sender.
            let _ = outage.changed().await;
        }
    }

    fn set_last_update_error(&self, error: Option<Arc<str>>) {
        let has_answered = self.shared.progress.borrow().succeeded > 0;
        self.shared.outage.send_if_modified(|outage| {
            let before = std::mem::replace(outage, error.clone().filter(|_| has_answered));
            before.is_some() != outage.is_some()
        });
        *lock(&self.shared.last_update_error) = error;
    }

    /// Requests an update, and returns the number of the one that will answer: one that
    /// has not begun.
    pub(crate) fn request_update(&self) -> u64 {
        let update = lock(&self.shared.topics).request_update();
        self.shared.requested.notify_one();
        update
    }

    /// Completes once the cluster has answered an update. Cancel-safe.
    pub(crate) async fn answered(&self) {
        self.succeeded(1).await;
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
    /// Completes when an update was requested since the last one began: about topics that
    /// somebody waits for, or, from `full_from` on, a full one.
    pub(crate) async fn update_requested(&self, full_from: Instant) {
        loop {
            let requested = self.shared.requested.notified();
            let full_is_requested = {
                let topics = lock(&self.shared.topics);
                if topics.are_topics_requested() {
                    return;
                }
                topics.is_full_update_requested()
            };
            if full_is_requested && Instant::now() >= full_from {
                return;
            }
            tokio::select! {
                () = requested => {}
                () = sleep_until(full_from), if full_is_requested => {}
            }
        }
    }

    /// Begins an update, which answers everybody who requested one until now, but for those
    /// who wait for a full one that is not allowed yet.
    pub(crate) fn begin_update(&self, may_be_full: bool) -> MetadataUpdate {
        lock(&self.shared.topics).begin_update(may_be_full, Instant::now())
    }

    /// Begins an update that asks for nothing but an answer, unless something is requested.
    pub(crate) fn begin_probe(&self, may_be_full: bool) -> MetadataUpdate {
        lock(&self.shared.topics).begin_probe(may_be_full, Instant::now())
    }

    /// Notes that no broker answers the update that is under way, which goes on; whether the
    /// cluster has answered before.
    pub(crate) fn suspect_outage(&self, reason: &str) -> bool {
        self.set_last_update_error(Some(reason.into()));
        self.shared.outage.borrow().is_some()
    }

    /// Takes what a broker answered.
    pub(crate) fn complete_update(&self, update: &MetadataUpdate, response: &MetadataResponse) {
        let shared = &self.shared;
        if update.is_probe() && !self.snapshot().is_of_other_cluster(response) {
            // With KRaft each response names another broker as the controller: nobody is told of
            // that every two seconds.
            if !self.snapshot().has_brokers_of(response) {
                lock(&shared.topics).request_update();
            }
            return self.note_answered(update, None);
        }
        if !update.is_full
            && self.snapshot().is_confirmed_by(response)
            && !lock(&shared.topics).are_doubted(&update.topics)
        {
            lock(&shared.topics).note_confirmed(response, update);
            return self.note_answered(update, None);
        }
        if !update.is_full
            && let Some(errors) = self.snapshot().errors_of_unknown(response)
        {
            // It removes nothing from a snapshot that does not know them.
            let mut unknown_to = ClusterSnapshot::default();
            lock(&shared.topics).note_results(&errors, &mut unknown_to, update);
            return self.note_answered(update, None);
        }
        let mut brokers = 0;
        let mut is_other_cluster = false;
        if self.snapshot().is_of_other_cluster(response) {
            // Nothing is taken for a change of a topic that is one of the cluster.
            for observer in &lock(&shared.cluster_observers).0 {
                observer();
            }
        }
        shared.snapshot.send_if_modified(|snapshot| {
            let (mut next, results) = snapshot.merge_with(response);
            let mut topics = lock(&shared.topics);
            topics.note_results(&results, &mut next, update);
            topics.expire(snapshot, &mut next, Instant::now());
            brokers = next.brokers.len();
            if next.is_other_cluster_than(snapshot) {
                is_other_cluster = true;
                let (old, new) = (snapshot.cluster_id.as_deref(), next.cluster_id.as_deref());
                tracing::warn!(
                    old,
                    new,
                    "another cluster answers at the brokers' addresses: what the old one issued \
                     is dropped"
                );
                // The response may have been about some topics only.
                topics.request_update();
            }
            let has_changed = next.differs_from(snapshot);
            if has_changed {
                *snapshot = Arc::new(next);
            }
            has_changed
        });
        if is_other_cluster {
            shared.cluster_changes.send_modify(|changes| *changes += 1);
        }
        let without_brokers = (brokers == 0).then(|| "the cluster has no brokers yet".into());
        self.note_answered(update, without_brokers);
    }

    /// A broker has answered the update, and said nothing that is of use if there is an `error`.
    fn note_answered(&self, update: &MetadataUpdate, error: Option<Arc<str>>) {
        self.set_last_update_error(error);
        self.shared
            .progress
            .send_modify(|progress| progress.succeeded = update.number);
    }

    /// Notes that no broker answered, and requests a full update: whatever was asked for, the
    /// cluster may have changed.
    pub(crate) fn fail_update(&self, update: &MetadataUpdate, reason: &str) {
        self.set_last_update_error(Some(reason.into()));
        lock(&self.shared.topics).request_update();
        self.shared
            .progress
            .send_modify(|progress| progress.failed = update.number);
    }
}

/// The lookup of one topic, which stays among the topics of interest meanwhile.
struct TopicSearch<'a> {
    metadata: &'a Metadata,
    topic: &'a Arc<str>,
    /// How many responses in a row did not know it.
    unknown: u32,
    /// How many have to, until it is unknown.
    unknown_needed: u32,
    /// The last response neither described it nor settled that there is none.
    unsettled: bool,
    result: Option<Result<Arc<TopicMetadata>, MetadataError>>,
}

impl<'a> TopicSearch<'a> {
    fn new(metadata: &'a Metadata, topic: &'a Arc<str>) -> Self {
        lock(&metadata.shared.topics).add_waiter(topic);
        Self {
            metadata,
            topic,
            unknown: 0,
            unknown_needed: 2,
            unsettled: false,
            result: None,
        }
    }

    /// Looks whether the topic was described after that time, and else which error that update's
    /// response had for it.
    fn update(&mut self, asked_at: Option<Instant>, answered_by: Option<u64>) {
        if self.result.is_some() {
            return;
        }
        if let Some(topic) = self.metadata.known_topic(self.topic, asked_at) {
            self.result = Some(Ok(topic));
            return;
        }
        let Some(update) = answered_by else { return };
        self.unsettled = false;
        let error = lock(&self.metadata.shared.topics).error_since(self.topic, update);
        let topic = Arc::clone(self.topic);
        let error = match error {
            Some(TopicError::NotAuthorized) => MetadataError::NotAuthorized { topic },
            Some(TopicError::InvalidName) => MetadataError::Invalid { topic },
            Some(TopicError::Unknown) => {
                self.unknown += 1;
                if self.unknown < self.unknown_needed {
                    // At once only once: another broker may know it already.
                    self.unsettled = self.unknown > 1;
                    return;
                }
                MetadataError::UnknownTopic { topic }
            }
            Some(TopicError::Retriable | TopicError::Contradictory) | None => {
                self.unsettled = true;
                return;
            }
        };
        self.result = Some(Err(error));
    }

    fn must_ask_again_later(&self) -> bool {
        self.unsettled && self.result.is_none()
    }

    fn into_result(mut self) -> Result<Arc<TopicMetadata>, MetadataError> {
        self.result.take().unwrap_or_else(|| {
            let error = self.metadata.last_update_error();
            let reason = error.unwrap_or_else(|| "no leader yet".into());
            Err(MetadataError::Unavailable { reason })
        })
    }
}

impl Drop for TopicSearch<'_> {
    fn drop(&mut self) {
        lock(&self.metadata.shared.topics).remove_waiter(self.topic);
    }
}

#[cfg(test)]
mod tests;
