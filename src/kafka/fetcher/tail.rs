//! The tails: one long poll per broker and isolation level for all cursors near the end.
//!
//! ```text
//! add() ─▶ partitions ─▶ fetch session ─▶ long poll ─▶ decode once ─▶ tail cache ─▶ cursors
//!              ▲                              │
//!              └───────── next offsets ◀──────┘
//!
//! A partition whose part of a response is an error is removed; its own task finds the cause.
//! ```
//!
//! A leader that was deposed and does not know it answers as before, without an error and
//! without new records; one that hangs does not answer. So the metadata moves partitions too:
//! as soon as it names another leader or a newer epoch, however it was told (a refresh, or a
//! hint of KIP-951 in anybody's response), they are removed, also in the middle of a long poll.
//!
//! # Invariants
//! - One request is in flight; the fetch session (KIP-227) names only what changed.
//! - No partition waits for a response of a broker that is not its leader by what the metadata
//!   says. What such a response brings is dropped.
//! - It never waits for a cursor or for memory: what the tail cache has no room for is skipped,
//!   and fetched again by the cursors that need it.
//! - Locks are taken in one order: tails, a tail's partitions, a partition's fetch state.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::FetchRequest;
use runtime::mutex::lock;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::FetcherShared;
use super::fetch_session::{FetchSessionHandler, FetchSessionResult, FetchTarget};
use super::request::{self, FetchParams, FetchPartitionData};
use super::shared_partition::SharedPartition;
use crate::metadata::{ClusterSnapshot, LeaderAndEpoch};
use crate::{BrokerId, ConnectionPurpose, IsolationLevel, Metadata, RequestError, TopicPartition};

/// All tails of a fetcher.
#[derive(Debug, Default)]
pub(super) struct TailFetchers {
    tails: Mutex<HashMap<(BrokerId, IsolationLevel), Arc<TailPartitions>>>,
}

/// The partitions that one tail fetches.
#[derive(Debug, Default)]
struct TailPartitions {
    partitions: Mutex<HashMap<TopicPartition, TailPartition>>,
    added: Notify,
    /// Whether one was added since the leaders of all were compared with the metadata.
    has_unchecked: AtomicBool,
}

/// A partition that a tail fetches, as led in one epoch.
#[derive(Clone, Debug)]
struct TailPartition {
    partition: Arc<SharedPartition>,
    topic_id: Uuid,
    leader_epoch: i32,
}

/// What the next request asks of a partition.
#[derive(Clone, Debug)]
struct TailTarget {
    entry: TailPartition,
    tail_cache_number: u64,
    fetch_offset: i64,
}

impl TailFetchers {
    /// Has the tail at `broker` fetch `partition`, from the next request on. Not to be
    /// called under the lock of its fetch state.
    pub(super) fn add(
        shared: &Arc<FetcherShared>,
        broker: BrokerId,
        partition: &Arc<SharedPartition>,
        topic_id: Uuid,
        leader_epoch: i32,
    ) {
        let key = (broker, partition.isolation);
        let entry = TailPartition {
            partition: Arc::clone(partition),
            topic_id,
            leader_epoch,
        };
        let mut tails = lock(&shared.tails.tails);
        let tail = tails.entry(key).or_insert_with(|| {
            let tail = Arc::new(TailPartitions::default());
            let fetcher = TailFetcher {
                shared: Arc::downgrade(shared),
                key,
                tail: Arc::clone(&tail),
                session: FetchSessionHandler::new(),
                metadata_changed: shared.cluster.metadata().subscribe(),
            };
            let stop = shared.cluster.stop().clone();
            shared.cluster.tasks().spawn(async move {
                stop.run_until_cancelled(fetcher.run()).await;
            });
            tail
        });
        lock(&tail.partitions).insert(partition.tp.clone(), entry);
        tail.has_unchecked.store(true, Ordering::Release);
        tail.added.notify_one();
    }

    /// How many tails are at work.
    pub(super) fn count(&self) -> usize {
        lock(&self.tails).len()
    }
}

/// The task of one tail.
struct TailFetcher {
    shared: Weak<FetcherShared>,
    key: (BrokerId, IsolationLevel),
    tail: Arc<TailPartitions>,
    session: FetchSessionHandler,
    metadata_changed: watch::Receiver<Arc<ClusterSnapshot>>,
}

impl TailFetcher {
    async fn run(mut self) {
        while let Some(shared) = self.shared.upgrade() {
            self.check_leaders(shared.cluster.metadata());
            let targets = self.next_targets();
            if targets.is_empty() {
                drop(shared);
                if self.wait_for_partition().await {
                    continue;
                }
                return;
            }
            let moved = Arc::clone(&self.tail).all_moved(
                self.key.0,
                shared.cluster.metadata(),
                self.metadata_changed.clone(),
                &targets,
            );
            let overdue = shared.config.fetch_max_wait + request::OVERDUE_AFTER;
            let polled = self.poll(&shared, &targets);
            let polled =
                request::await_requesting_metadata(shared.cluster.metadata(), overdue, polled);
            let polled = tokio::select! {
                polled = polled => Some(polled),
                () = moved => None,
            };
            match polled {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::debug!(broker = %self.key.0, %error, "the tail was interrupted");
                    self.session.handle_error();
                    self.tail.remove_all();
                }
                None => self.session.handle_error(),
            }
        }
    }

    /// Removes partitions that this broker no longer leads, if any may have come to be.
    fn check_leaders(&mut self, metadata: &Metadata) {
        let added = self.tail.has_unchecked.swap(false, Ordering::AcqRel);
        if added || self.metadata_changed.has_changed().unwrap_or(false) {
            self.metadata_changed.mark_unchanged();
            self.tail.remove_moved(self.key.0, metadata);
        }
    }

    /// Waits for a partition. `false`: none was added for long, and this tail is removed.
    async fn wait_for_partition(&self) -> bool {
        loop {
            if timeout(EMPTY_TAIL_TTL, self.tail.added.notified())
                .await
                .is_ok()
            {
                return true;
            }
            let Some(shared) = self.shared.upgrade() else {
                return false;
            };
            let mut tails = lock(&shared.tails.tails);
            if lock(&self.tail.partitions).is_empty() {
                tails.remove(&self.key);
                return false;
            }
        }
    }

    /// What is to be fetched now; partitions that no longer want the tail are removed.
    fn next_targets(&self) -> Vec<TailTarget> {
        let now = Instant::now();
        let mut targets = Vec::new();
        lock(&self.tail.partitions).retain(|_, entry| {
            let mut fetch_state = lock(&entry.partition.fetch_state);
            if fetch_state.tail_is_idle(now) {
                fetch_state.drop_tail_cache();
            }
            let position = fetch_state.tail_target();
            if let Some((tail_cache_number, fetch_offset)) = position {
                targets.push(TailTarget {
                    entry: entry.clone(),
                    tail_cache_number,
                    fetch_offset,
                });
            }
            position.is_some()
        });
        targets
    }

    async fn poll(
        &mut self,
        shared: &Arc<FetcherShared>,
        targets: &[TailTarget],
    ) -> Result<(), RequestError> {
        let (broker, isolation) = self.key;
        let connection = shared
            .cluster
            .connection(broker, ConnectionPurpose::Tail(isolation))
            .await?;
        let ids = targets.iter().all(|target| !target.entry.topic_id.is_nil());
        let version = request::version(&connection, ids)?;
        let config = &shared.config;
        let most = shared.budget.tail.limit() / 4;
        let max_bytes = request::clamp_to_i32(most)
            .min(config.fetch_max_bytes)
            .max(1);
        let fetch_targets = targets.iter().map(|target| FetchTarget {
            tp: target.entry.partition.tp.clone(),
            topic_id: target.entry.topic_id,
            fetch_offset: target.fetch_offset,
            current_leader_epoch: target.entry.leader_epoch,
            max_bytes: config.max_partition_fetch_bytes.min(max_bytes),
        });
        let data = self
            .session
            .next_request(fetch_targets.collect(), request::naming(version));
        let params = FetchParams {
            max_wait_ms: i32::try_from(config.fetch_max_wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: config.fetch_min_bytes,
            max_bytes,
            isolation,
        };
        let fetch: FetchRequest = request::build(version, params, &data);
        let time = shared.cluster.config().request_timeout + config.fetch_max_wait;
        let reply = connection.send(version, &fetch, time).await?;
        self.tail.mark_fetched(targets);
        let response = reply.await?;
        let (error, session_id) = (response.error_code, response.session_id);
        if self.session.handle_response(error, session_id) == FetchSessionResult::Restart {
            tracing::debug!(%broker, error, "the fetch session is gone: starting another");
            self.pause_after(error).await;
            return Ok(());
        }
        let names: HashMap<Uuid, Arc<str>> = targets
            .iter()
            .map(|target| {
                let topic = &target.entry.partition.tp.topic;
                (target.entry.topic_id, Arc::clone(topic))
            })
            .collect();
        let metadata = shared.cluster.metadata();
        let mut by_partition =
            request::parse_response(version, isolation, response, &names, metadata);
        for target in targets {
            if let Some(fetched) = by_partition.remove(&target.entry.partition.tp) {
                self.complete(shared, target, fetched);
            }
        }
        Ok(())
    }

    /// An error that is not about the session may come again at once.
    async fn pause_after(&self, error: i16) {
        let about_session = [
            ResponseError::FetchSessionIdNotFound,
            ResponseError::InvalidFetchSessionEpoch,
            ResponseError::FetchSessionTopicIdError,
        ];
        if !about_session.iter().any(|known| known.code() == error) {
            tokio::time::sleep(REFUSED_REQUEST_PAUSE).await;
        }
    }

    fn complete(
        &self,
        shared: &Arc<FetcherShared>,
        target: &TailTarget,
        fetched: FetchPartitionData,
    ) {
        let partition = &target.entry.partition;
        if fetched.error != 0 || fetched.diverging_epoch.is_some() {
            tracing::debug!(
                partition = %partition.tp,
                error = fetched.error,
                "removed from the tail"
            );
            self.tail.remove(&target.entry);
            return;
        }
        if fetched.records.is_empty() || !self.tail.contains(&target.entry) {
            return;
        }
        let readable_end = fetched.readable_end;
        let wire = fetched.records.len();
        let decoded = partition.decode(
            fetched,
            target.fetch_offset,
            target.entry.leader_epoch,
            shared.tail_decode_limits(),
        );
        let decoded = match decoded {
            Ok(decoded) => decoded,
            Err(reason) => {
                tracing::debug!(partition = %partition.tp, wire, %reason, "removed from the tail");
                self.tail.remove(&target.entry);
                return;
            }
        };
        let (number, first) = (target.tail_cache_number, target.fetch_offset);
        let next = decoded.next_offset();
        let last_epoch = decoded.last_epoch();
        if !lock(&partition.fetch_state).tail_accepts(number, first, next) {
            return;
        }
        match shared.tail_chunk(partition, decoded) {
            Some(chunk) => {
                let chunk = Arc::new(chunk);
                let update = lock(&partition.fetch_state).tail_append(
                    number,
                    Arc::clone(&chunk),
                    readable_end,
                );
                partition.publish(update, Some(&chunk));
            }
            None => {
                let epochs = (last_epoch, target.entry.leader_epoch);
                let update = lock(&partition.fetch_state).tail_skip(number, first, next, epochs);
                partition.publish(update, None);
            }
        }
    }
}

impl TailPartitions {
    /// A request names these from now on.
    fn mark_fetched(&self, targets: &[TailTarget]) {
        let partitions = lock(&self.partitions);
        for TailTarget { entry, .. } in targets {
            if partitions
                .get(&entry.partition.tp)
                .is_some_and(|now| now.is(entry))
            {
                lock(&entry.partition.fetch_state).mark_tail_fetched();
            }
        }
    }

    fn contains(&self, entry: &TailPartition) -> bool {
        lock(&self.partitions)
            .get(&entry.partition.tp)
            .is_some_and(|now| now.is(entry))
    }

    fn remove(&self, entry: &TailPartition) {
        let mut partitions = lock(&self.partitions);
        let tp = &entry.partition.tp;
        match partitions.get(tp) {
            Some(now) if now.is(entry) => {
                partitions.remove(tp);
            }
            // Another partition of that name was added since: the topic was recreated.
            Some(now) if !Arc::ptr_eq(&now.partition, &entry.partition) => {}
            // It was removed, and may be fetched elsewhere or under another epoch by now.
            _ => return,
        }
        drop(partitions);
        entry.tail_removed();
    }

    fn remove_all(&self) {
        let partitions: Vec<TailPartition> =
            lock(&self.partitions).drain().map(|(_, m)| m).collect();
        for entry in partitions {
            entry.tail_removed();
        }
    }

    /// Removes those that `broker` no longer leads, or in another epoch, as the metadata says.
    fn remove_moved(&self, broker: BrokerId, metadata: &Metadata) {
        let mut moved = Vec::new();
        lock(&self.partitions).retain(|tp, entry| {
            let leader = metadata.current_leader(tp);
            let stays = leader.is_none_or(|leader| !entry.is_superseded(broker, leader));
            if !stays {
                moved.push(entry.clone());
            }
            stays
        });
        for entry in moved {
            tracing::debug!(partition = %entry.partition.tp, %broker, "removed from a former leader's tail");
            entry.tail_removed();
        }
    }

    /// Removes partitions that move while a request is in flight. Completes when none of those
    /// that it names is left.
    async fn all_moved(
        self: Arc<Self>,
        broker: BrokerId,
        metadata: &Metadata,
        mut changed: watch::Receiver<Arc<ClusterSnapshot>>,
        targets: &[TailTarget],
    ) {
        loop {
            if changed.changed().await.is_err() {
                return std::future::pending().await;
            }
            self.remove_moved(broker, metadata);
            if !targets.iter().any(|target| self.contains(&target.entry)) {
                return;
            }
        }
    }
}

impl TailPartition {
    /// Whether both are one: a partition may be removed and added again.
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.partition, &other.partition) && self.leader_epoch == other.leader_epoch
    }

    fn is_superseded(&self, broker: BrokerId, leader: LeaderAndEpoch) -> bool {
        leader.broker != broker || leader.epoch > self.leader_epoch
    }

    fn tail_removed(&self) {
        if lock(&self.partition.fetch_state).tail_removed() {
            self.partition.work.notify_one();
        }
    }
}

/// How long a tail without partitions stays.
const EMPTY_TAIL_TTL: Duration = Duration::from_secs(10);
/// The least time between two requests that a broker refused as a whole.
const REFUSED_REQUEST_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::metadata_response::{
        MetadataResponsePartition, MetadataResponseTopic,
    };
    use kafka_protocol::messages::{BrokerId as NodeId, MetadataResponse, TopicName};
    use kafka_protocol::protocol::StrBytes;

    use super::*;

    #[test]
    fn removing_a_partition_keeps_a_newer_one_of_the_same_name() {
        let tp = TopicPartition::new("t", 0);
        let entry = || TailPartition {
            partition: SharedPartition::new(tp.clone(), IsolationLevel::ReadUncommitted),
            topic_id: Uuid::nil(),
            leader_epoch: 0,
        };
        let (old, new) = (entry(), entry());
        let tail = TailPartitions::default();
        lock(&tail.partitions).insert(tp.clone(), new.clone());
        tail.remove(&old);
        assert!(lock(&tail.partitions).contains_key(&tp));
        tail.remove(&new);
        assert!(lock(&tail.partitions).is_empty());
    }

    /// What `broker` leads in `epoch`, as a metadata response says it.
    fn led_by(broker: i32, epoch: i32) -> MetadataResponse {
        let partition = MetadataResponsePartition::default()
            .with_leader_id(NodeId(broker))
            .with_leader_epoch(epoch);
        let topic = MetadataResponseTopic::default()
            .with_name(Some(TopicName(StrBytes::from_static_str("t"))))
            .with_partitions(vec![partition]);
        MetadataResponse::default().with_topics(vec![topic])
    }

    #[test]
    fn a_partition_is_removed_from_a_leader_that_the_metadata_no_longer_names() {
        let metadata = Metadata::new(Duration::from_secs(1));
        let tp = TopicPartition::new("t", 0);
        let state = SharedPartition::new(tp.clone(), IsolationLevel::ReadUncommitted);
        let tail = TailPartitions::default();
        let add = |leader_epoch| {
            let entry = TailPartition {
                partition: Arc::clone(&state),
                topic_id: Uuid::nil(),
                leader_epoch,
            };
            lock(&tail.partitions).insert(tp.clone(), entry);
        };
        let stays_with = |broker, epoch| {
            let update = metadata.begin_update(true);
            metadata.complete_update(&update, &led_by(broker, epoch));
            tail.remove_moved(BrokerId(1), &metadata);
            !lock(&tail.partitions).is_empty()
        };
        add(3);
        assert!(stays_with(1, 3));
        assert!(!stays_with(1, 4), "another epoch of the same broker");
        add(4);
        assert!(!stays_with(2, 5), "deposed");
    }

    #[test]
    fn a_late_removal_keeps_the_partition_that_was_added_since() {
        let tp = TopicPartition::new("t", 0);
        let partition = SharedPartition::new(tp.clone(), IsolationLevel::ReadUncommitted);
        let entry = |leader_epoch| TailPartition {
            partition: Arc::clone(&partition),
            topic_id: Uuid::nil(),
            leader_epoch,
        };
        let tail = TailPartitions::default();
        lock(&tail.partitions).insert(tp.clone(), entry(5));
        tail.remove(&entry(4));
        assert!(tail.contains(&entry(5)));
    }
}
