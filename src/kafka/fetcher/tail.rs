//! The tails: one long poll per broker and isolation level for all cursors near the end.
//!
//! ```text
//! add() ─▶ partitions ─▶ fetch session ─▶ long poll ─▶ decode once ─▶ tail cache ─▶ cursors
//!              ▲                              │
//!              └──────── what changed ◀───────┘
//!
//! A partition whose part of a response is an error is removed; its own task finds the cause.
//! ```
//!
//! A leader that was deposed and does not know it answers as before, without an error and
//! without new records; one that hangs does not answer. So the metadata moves partitions too:
//! as soon as it names another leader or a newer epoch, whatever has updated it (a refresh, or a
//! hint of KIP-951 in anybody's response), they are removed, also in the middle of a long poll.
//!
//! # Invariants
//! - One request is in flight; the fetch session (KIP-227) names only what changed.
//! - Between two requests only partitions that changed are looked at: added, removed, or with
//!   another offset to fetch. All of them are looked at when the metadata changes, when the
//!   session starts anew, and every five seconds, for those that nobody uses any more.
//! - No partition waits for a response of a broker that is not its leader by what the metadata
//!   says. What such a response brings is dropped.
//! - It never waits for a cursor or for memory: what the tail cache has no room for is skipped,
//!   and fetched again by the cursors that need it.
//! - Locks are taken in one order: tails, a tail's partitions, a partition's fetch state.

mod partitions;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::FetchRequest;
use runtime::long_work::block_in_place;
use runtime::mutex::lock;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use self::partitions::{TailPartitions, TailTarget, TailTargets};
use super::FetcherShared;
use super::fetch_session::FetchSessionResult;
use super::request::{self, FetchParams, FetchPartitionData};
use super::shared_partition::{DECODING, SharedPartition};
use crate::metadata::{ClusterSnapshot, OVERDUE_AFTER};
use crate::{BrokerId, ConnectionPurpose, IsolationLevel, Metadata, RequestError};

/// All tails of a fetcher.
#[derive(Debug, Default)]
pub(super) struct TailFetchers {
    tails: Mutex<HashMap<(BrokerId, IsolationLevel), Arc<TailPartitions>>>,
}

impl TailFetchers {
    /// Has the tail at `broker` fetch `partition`, from the next request on. Not to be
    /// called under the lock of its fetch state.
    pub(super) fn add(
        shared: &Arc<FetcherShared>,
        broker: BrokerId,
        partition: &Arc<SharedPartition>,
        leader_epoch: i32,
    ) {
        let key = (broker, partition.isolation);
        let mut tails = lock(&shared.tails.tails);
        let tail = tails.entry(key).or_insert_with(|| {
            let tail = Arc::new(TailPartitions::default());
            let most = request::clamp_to_i32(shared.budget.tail.limit() / 4);
            let max_bytes = most.min(shared.config.fetch_max_bytes).max(1);
            let partition_max_bytes = shared.config.max_partition_fetch_bytes.min(max_bytes);
            let fetcher = TailFetcher {
                shared: Arc::downgrade(shared),
                key,
                targets: TailTargets::new(broker, Arc::clone(&tail), partition_max_bytes),
                tail: Arc::clone(&tail),
                max_bytes,
                metadata_changed: shared.cluster.metadata().subscribe(),
            };
            let stop = shared.cluster.stop().clone();
            shared.cluster.tasks().spawn(async move {
                stop.run_until_cancelled(fetcher.run()).await;
            });
            tail
        });
        tail.add(partition, leader_epoch);
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
    targets: TailTargets,
    /// Bytes of records in one response.
    max_bytes: i32,
    metadata_changed: watch::Receiver<Arc<ClusterSnapshot>>,
}

impl TailFetcher {
    async fn run(mut self) {
        while let Some(shared) = self.shared.upgrade() {
            let metadata = shared.cluster.metadata();
            self.check_leaders(metadata);
            self.targets.update(metadata, Instant::now());
            if self.targets.is_empty() {
                drop(shared);
                if self.wait_for_partition().await {
                    continue;
                }
                return;
            }
            let moved = Arc::clone(&self.tail).all_moved(
                self.key.0,
                metadata,
                self.metadata_changed.clone(),
                self.targets.newest(),
            );
            let overdue = shared.config.fetch_max_wait + OVERDUE_AFTER;
            let polled = self.poll(&shared);
            let polled = request::await_requesting_metadata(metadata, overdue, polled);
            let polled = tokio::select! {
                polled = polled => Some(polled),
                () = moved => None,
            };
            match polled {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::debug!(broker = %self.key.0, %error, "the tail was interrupted");
                    self.targets.session.handle_error();
                    match error {
                        RequestError::ResponseTooLarge { .. } => self.tail.bar_all(),
                        _ => self.tail.remove_all(),
                    }
                }
                None => self.targets.session.handle_error(),
            }
        }
    }

    /// Removes partitions that this broker no longer leads, if the metadata has changed.
    fn check_leaders(&mut self, metadata: &Metadata) {
        if self.metadata_changed.has_changed().unwrap_or(false) {
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
            if self.tail.is_empty() {
                tails.remove(&self.key);
                return false;
            }
        }
    }

    async fn poll(&mut self, shared: &Arc<FetcherShared>) -> Result<(), RequestError> {
        let (broker, isolation) = self.key;
        let connection = shared
            .cluster
            .connection(broker, ConnectionPurpose::Tail(isolation))
            .await?;
        let session = &mut self.targets.session;
        let version = request::version(&connection, session.has_all_topic_ids())?;
        let data = session.next_request(request::naming(version));
        let config = &shared.config;
        let params = FetchParams {
            max_wait_ms: i32::try_from(config.fetch_max_wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: config.fetch_min_bytes,
            max_bytes: self.max_bytes,
            isolation,
        };
        let fetch: FetchRequest = request::build(version, params, &data);
        let time = shared.cluster.config().request_timeout + config.fetch_max_wait;
        let reply = connection.send(version, &fetch, time).await?;
        self.targets.mark_fetched(&data.to_send);
        let response = reply.await?;
        let (error, session_id) = (response.error_code, response.session_id);
        let session = &mut self.targets.session;
        if session.handle_response(error, session_id) == FetchSessionResult::Restart {
            tracing::debug!(%broker, error, "the fetch session is gone: starting another");
            self.pause_after(error).await;
            return Ok(());
        }
        let metadata = shared.cluster.metadata();
        let name = |id: &Uuid| session.topic_name(id);
        let by_partition = request::parse_response(version, isolation, response, name, metadata);
        let bytes: usize = by_partition.values().map(|f| f.records.len()).sum();
        let complete_all = || {
            for (tp, fetched) in by_partition {
                if let Some(target) = self.targets.get(&tp) {
                    self.complete(shared, target, fetched);
                }
            }
        };
        // All of a response, or nothing: a tail has one at a time.
        match DECODING.is_long(bytes) {
            true => block_in_place(complete_all),
            false => complete_all(),
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
            if fetched.error == ResponseError::UnknownTopicOrPartition.code() {
                // It was fetched before it was added here.
                let metadata = shared.cluster.metadata();
                metadata.doubt_topic(&partition.tp, partition.topic());
            }
            self.tail.remove(&target.entry);
            return;
        }
        if fetched.records.is_empty() || !self.tail.contains(&target.entry) {
            return;
        }
        // Whatever becomes of these records, they are not fetched again as they were.
        self.tail.changes.add(&partition.tp);
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

/// How long a tail without partitions stays.
const EMPTY_TAIL_TTL: Duration = Duration::from_secs(10);
/// The least time between two requests that a broker refused as a whole.
const REFUSED_REQUEST_PAUSE: Duration = Duration::from_millis(100);
