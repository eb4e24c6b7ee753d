//! The task of one partition: finds the leader, does the fetches that its cursors ask for, and
//! repairs what fails.
//!
//! ```text
//!     ┌──────────────── work ──────────────────┐
//!     ▼                                        │
//!  leader? ─▶ position valid? ─▶ fetch ─▶ fetch state ─▶ cursors
//!     ▲                            │
//!     └── back off, look it up ◀───┴ error code, connection lost, unreadable bytes
//! ```
//!
//! # Invariants
//! - A fetch is abandoned as soon as the metadata names another leader than the one that it was
//!   sent to: a broker that hangs holds up nothing that has moved.
//! - Nothing is sent during the backoff after a failure, except when the leader changes
//!   meanwhile.
//! - An error reaches cursors only when waiting cannot repair it.
//! - A partition whose response is too large to be received concerns no other: whoever shared a
//!   request with it is fetched by a request of its own until that succeeds, and not by the tail.
//!   Alone it is too large because of one batch, which is reported as unreadable.
//! - When no cursor has read here for a while, the partition is forgotten.

mod leader;
mod partition_fetch;

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use kafka_protocol::error::ResponseError;
use runtime::mutex::lock;
use tokio::time::{Instant, sleep_until};

use self::partition_fetch::{PartitionFetch, PartitionFetchResult};
use super::FetcherShared;
use super::budget::BudgetPermit;
use super::chunk::Chunk;
use super::error::{FetchError, RetryReason};
use super::fetch_state::{FetchKind, FetchOutcome, FetchSpec};
use super::shared_partition::{DecodedFetch, SharedPartition};
use super::tail::TailFetchers;
use crate::backoff::ExponentialBackoff;
use crate::metadata::LeaderAndEpoch;

/// Serves `partition` until no cursor reads it or the cluster stops.
pub(super) async fn run(shared: Arc<FetcherShared>, partition: Arc<SharedPartition>) {
    let stop = shared.cluster.stop().clone();
    let config = shared.cluster.config();
    let fetcher = PartitionFetcher {
        backoff: ExponentialBackoff::new(config.retry_backoff, config.retry_backoff_max),
        partition: Arc::clone(&partition),
        shared: Arc::clone(&shared),
        leader: None,
        was_served: false,
        unknown_since: None,
        unreadable_attempt: None,
        logged_unreadable: -1,
        exclusive_request: false,
        paused_until: None,
        next_handover_fetch: Instant::now(),
        next_maintenance: Instant::now() + MAINTENANCE_INTERVAL,
        failed_leader: None,
        fetches: FuturesUnordered::new(),
    };
    if stop.run_until_cancelled(fetcher.run()).await.is_none() {
        partition.close(FetchError::Stopped);
    }
}

struct PartitionFetcher {
    shared: Arc<FetcherShared>,
    partition: Arc<SharedPartition>,
    backoff: ExponentialBackoff,
    leader: Option<LeaderAndEpoch>,
    /// Whether a leader had the partition: one that denies to know it then has lost it.
    was_served: bool,
    /// Since when the cluster does not know the topic.
    unknown_since: Option<Instant>,
    /// An offset whose bytes could not be read, and how often in a row.
    unreadable_attempt: Option<(i64, u32)>,
    /// The highest offset that was logged as unreadable.
    logged_unreadable: i64,
    /// Whether the next fetch has a request of its own.
    exclusive_request: bool,
    paused_until: Option<Instant>,
    next_handover_fetch: Instant,
    /// When to look whether the task is needed.
    next_maintenance: Instant,
    /// The leader that failed last: any other one ends the pause.
    failed_leader: Option<LeaderAndEpoch>,
    fetches: FuturesUnordered<BoxedFetch>,
}

type BoxedFetch = std::pin::Pin<Box<dyn Future<Output = (FetchSpec, PartitionFetchResult)> + Send>>;

/// Whether the leader is looked up again after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaderAfterFailure {
    Keep,
    LookUp,
}

impl PartitionFetcher {
    async fn run(mut self) {
        let mut metadata_changed = self.shared.cluster.metadata().subscribe();
        loop {
            self.drop_stale_leader();
            if self.paused_until.is_none() && self.has_work() {
                if self.leader.is_none() {
                    self.find_leader().await;
                }
                self.start_fetches();
            }
            let until = self.next_wakeup();
            tokio::select! {
                Some((spec, result)) = self.fetches.next(), if !self.fetches.is_empty() => {
                    self.complete(spec, result);
                }
                () = self.partition.work.notified() => {}
                _ = metadata_changed.changed(), if self.paused_until.is_some() => {
                    self.resume_on_new_leader();
                }
                () = sleep_until(until) => {
                    if self.maintain(Instant::now()) {
                        return;
                    }
                }
            }
            if lock(&self.partition.fetch_state).is_closed() {
                return;
            }
        }
    }

    fn has_work(&self) -> bool {
        let fetch_state = lock(&self.partition.fetch_state);
        fetch_state.wants_handover_fetch()
            || (self.fetches.len() < FETCHES_IN_FLIGHT_MAX && fetch_state.wants_fetch())
    }

    fn fail_all(&mut self, error: &FetchError) {
        self.partition.fail_fetches(error);
        self.leader = None;
        // Cursors that ask again at once must not make the task ask at once.
        self.paused_until = Some(Instant::now() + self.backoff.after_failure());
    }

    fn start_fetches(&mut self) {
        let Some(leader) = self.leader else { return };
        let now = Instant::now();
        let mut fetch_state = lock(&self.partition.fetch_state);
        let mut specs = Vec::new();
        let mut add_to_tail = false;
        if fetch_state.wants_handover_fetch() {
            add_to_tail = fetch_state.request_tail();
            if now >= self.next_handover_fetch {
                specs.extend(fetch_state.start_handover_fetch());
                self.next_handover_fetch = now + HANDOVER_FETCH_INTERVAL;
            }
        }
        while self.fetches.len() + specs.len() < FETCHES_IN_FLIGHT_MAX {
            match fetch_state.start_fetch() {
                Some(spec) => specs.push(spec),
                None => break,
            }
        }
        drop(fetch_state);
        if add_to_tail {
            self.add_to_tail(leader);
        }
        for spec in specs {
            let exclusive = self.exclusive_request && !matches!(spec.kind, FetchKind::Prefetch(_));
            let fetch = PartitionFetch {
                shared: Arc::clone(&self.shared),
                partition: Arc::clone(&self.partition),
                leader,
                topic_id: self.partition.topic().id,
                exclusive,
                report_unreadable: self.is_given_up(spec.offset),
            };
            self.fetches.push(Box::pin(async move {
                let result = tokio::select! {
                    result = fetch.run(spec) => result,
                    () = fetch.leader_replaced() => PartitionFetchResult::LeaderReplaced,
                };
                (spec, result)
            }));
        }
    }

    fn add_to_tail(&self, leader: LeaderAndEpoch) {
        TailFetchers::add(&self.shared, leader.broker, &self.partition, leader.epoch);
    }

    fn complete(&mut self, spec: FetchSpec, result: PartitionFetchResult) {
        let outcome = match result {
            PartitionFetchResult::NotSent | PartitionFetchResult::LeaderReplaced => {
                FetchOutcome::Retry
            }
            PartitionFetchResult::SharedResponseTooLarge => {
                // Alone it fails for itself only.
                self.exclusive_request = true;
                FetchOutcome::Retry
            }
            PartitionFetchResult::Failed(error @ FetchError::NotAuthorized { .. }) => {
                self.finish(spec, FetchOutcome::Retry, None);
                return self.fail_all(&error);
            }
            PartitionFetchResult::Failed(error) => FetchOutcome::Failed(error),
            PartitionFetchResult::Retry(reason) => {
                if self.was_served && reason.is_code(ResponseError::UnknownTopicOrPartition) {
                    let metadata = self.shared.cluster.metadata();
                    metadata.doubt_topic(&self.partition.tp, self.partition.topic());
                }
                self.pause(&reason, LeaderAfterFailure::LookUp);
                FetchOutcome::Retry
            }
            PartitionFetchResult::Fetched {
                decoded,
                permit,
                readable_end,
            } => return self.complete_fetch(spec, decoded, permit, readable_end),
            PartitionFetchResult::Empty {
                readable_end,
                serving_epoch,
            } => return self.complete_empty_fetch(spec, readable_end, serving_epoch),
            PartitionFetchResult::Unreadable(reason) => {
                return self.handle_unreadable(spec, reason);
            }
        };
        self.finish(spec, outcome, None);
    }

    fn complete_fetch(
        &mut self,
        spec: FetchSpec,
        decoded: DecodedFetch,
        permit: Option<BudgetPermit>,
        readable_end: i64,
    ) {
        self.succeeded();
        self.log_unreadable(&decoded);
        let (next_offset, last_epoch) = (decoded.next_offset(), decoded.last_epoch());
        let serving_epoch = decoded.serving_epoch();
        let chunk = match (spec.kind, permit) {
            (FetchKind::Handover(_), _) => self.shared.tail_chunk(&self.partition, decoded),
            (_, Some(permit)) => Some(self.partition.chunk(decoded, permit)),
            (_, None) => None,
        };
        match chunk {
            Some(chunk) => {
                let chunk = Arc::new(chunk);
                if let FetchKind::Handover(_) = spec.kind {
                    // There may be more.
                    self.next_handover_fetch = Instant::now();
                }
                let outcome = FetchOutcome::Chunk {
                    chunk: Arc::clone(&chunk),
                    readable_end,
                };
                self.finish(spec, outcome, Some(&chunk));
            }
            None => self.finish(
                spec,
                FetchOutcome::NoRoom {
                    next_offset,
                    last_epoch,
                    readable_end,
                    serving_epoch,
                },
                None,
            ),
        }
    }

    /// No records: the end, or nothing of this partition fitted into the response.
    fn complete_empty_fetch(&mut self, spec: FetchSpec, readable_end: i64, serving_epoch: i32) {
        if spec.offset < readable_end {
            // Other partitions in the request had used up its bytes, perhaps for a batch
            // larger than `max.partition.fetch.bytes`.
            let was_exclusive = std::mem::replace(&mut self.exclusive_request, true);
            if was_exclusive {
                let reason = RetryReason::Other("nothing at that offset".into());
                self.pause(&reason, LeaderAfterFailure::LookUp);
            }
            return self.finish(spec, FetchOutcome::Retry, None);
        }
        self.succeeded();
        let outcome = FetchOutcome::AtEnd {
            readable_end,
            serving_epoch,
        };
        self.finish(spec, outcome, None);
    }

    fn finish(&self, spec: FetchSpec, outcome: FetchOutcome<Chunk>, chunk: Option<&Arc<Chunk>>) {
        let update = lock(&self.partition.fetch_state).finish(spec, outcome, Instant::now());
        self.partition.publish(update, chunk);
    }

    /// Bytes that cannot be read may have been damaged on the way: they are fetched again a
    /// few times, before they are reported as unreadable.
    fn handle_unreadable(&mut self, spec: FetchSpec, reason: String) {
        let attempts = match self.unreadable_attempt {
            Some((offset, attempts)) if offset == spec.offset => attempts + 1,
            _ => 1,
        };
        self.unreadable_attempt = Some((spec.offset, attempts));
        let outcome = if attempts < UNREADABLE_ATTEMPTS_MAX {
            self.exclusive_request = true;
            self.pause(&RetryReason::Other(reason.into()), LeaderAfterFailure::Keep);
            FetchOutcome::Retry
        } else {
            self.unreadable_attempt = None;
            FetchOutcome::Failed(FetchError::Corrupt {
                tp: self.partition.tp.clone(),
                offset: spec.offset,
                reason,
            })
        };
        self.finish(spec, outcome, None);
    }

    /// Whether what is at `offset` was fetched often enough to report it as unreadable.
    fn is_given_up(&self, offset: i64) -> bool {
        self.unreadable_attempt
            .is_some_and(|(at, attempts)| at == offset && attempts + 1 >= UNREADABLE_ATTEMPTS_MAX)
    }

    /// Logs and counts what is reported as unreadable, once, however often it is fetched.
    fn log_unreadable(&mut self, decoded: &DecodedFetch) {
        for unreadable in decoded.unreadable() {
            if self.logged_unreadable >= unreadable.last_offset {
                continue;
            }
            self.logged_unreadable = unreadable.last_offset;
            self.shared.metrics().unreadable.increment();
            tracing::warn!(
                partition = %self.partition.tp,
                from_offset = unreadable.from_offset,
                offset = unreadable.last_offset,
                reason = %unreadable.reason,
                "records cannot be read; an error is delivered in their place"
            );
        }
    }

    fn succeeded(&mut self) {
        self.was_served = true;
        self.backoff.succeeded();
        self.unreadable_attempt = None;
        self.exclusive_request = false;
    }

    /// Starts no fetch until the backoff ends.
    fn pause(&mut self, reason: &RetryReason, leader: LeaderAfterFailure) {
        let tp = &self.partition.tp;
        if leader == LeaderAfterFailure::LookUp {
            // Even if it is the same leader: it may lead another topic of that name.
            self.failed_leader = self.leader.take().or(self.failed_leader);
            self.shared
                .cluster
                .metadata()
                .request_update_for_topic(&tp.topic);
        }
        let now = Instant::now();
        // Several fetches that were in flight fail for one reason.
        if self.paused_until.is_none_or(|until| until <= now) {
            let backoff = self.backoff.after_failure();
            tracing::debug!(partition = %tp, %reason, ?backoff, "fetching pauses");
            self.paused_until = Some(now + backoff);
        }
    }

    /// When to go on although nothing happens.
    fn next_wakeup(&self) -> Instant {
        let next = match self.paused_until {
            Some(until) => until,
            None if lock(&self.partition.fetch_state).wants_handover_fetch() => {
                self.next_handover_fetch
            }
            None => self.next_maintenance,
        };
        next.min(self.next_maintenance)
    }

    /// Ends a pause that is over and drops what expired. `true`: this task is no longer needed.
    fn maintain(&mut self, now: Instant) -> bool {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        if now < self.next_maintenance {
            return false;
        }
        self.next_maintenance = now + MAINTENANCE_INTERVAL;
        lock(&self.partition.fetch_state).drop_expired(now);
        self.partition.drop_expired_batches(now);
        self.shared.forget_if_idle(&self.partition, now)
    }
}

/// Fetches of one partition that may be in flight at once.
const FETCHES_IN_FLIGHT_MAX: usize = 4;
/// From one handover fetch to the next, until the tail fetches the partition.
const HANDOVER_FETCH_INTERVAL: Duration = Duration::from_millis(20);
/// Attempts at an offset whose bytes cannot be read.
const UNREADABLE_ATTEMPTS_MAX: u32 = 4;
/// How often a task without work looks whether it is needed.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(5);
