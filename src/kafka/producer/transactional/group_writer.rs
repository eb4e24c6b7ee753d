//! Writes the records of one transaction: a request per leader, one batch per partition at a time.
//!
//! ```text
//! TransactionGroup ─ due ─▶ by leader ─▶ Produce ─▶ answers ─▶ complete
//!        ▲                                                        │
//!        └──────────────── the next batches, or again ────────────┘
//! ```
//!
//! # Invariants
//! - A leader that hangs is left once another one is named; what is sent again has its sequence.
//! - Producers share a few connections: none of them is closed here.
//! - Cancel-safe, in the sense that requests may have had their effect.

use std::collections::{BTreeMap, HashSet};
use std::pin::pin;
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TransactionalId};
use kafka_protocol::protocol::StrBytes;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use super::super::batch_records::{BatchRecords, COMPRESSION};
use super::super::partition_queue::{BatchResult, QueuedRecords};
use super::super::produce_request::{self, LeaderHint, RequestBatch};
use super::super::topic_lookup::look_up;
use super::abort_cause::AbortCause;
use super::coordinator_calls::connection_of;
use super::transaction_group::TransactionGroup;
use super::transaction_manager::{InitializedProducer, TransactionManager, TransactionProtocol};
use crate::cluster::Cluster;
use crate::config::CompressionType;
use crate::error::RequestError;
use crate::metadata::{ClusterSnapshot, OVERDUE_AFTER};
use crate::net::pool::ConnectionPurpose;
use crate::topic::{BrokerId, TopicPartition};

/// The newest version of Produce for partitions that were added by AddPartitionsToTxn.
const PRODUCE_V1_MAX: i16 = 11;

/// What writes the transactions of one producer.
#[derive(Debug)]
pub(super) struct GroupWriter {
    cluster: Cluster,
    transactional_id: TransactionalId,
    purpose: ConnectionPurpose,
    compression: CompressionType,
    /// Bytes of a batch, but for one that holds a single larger record.
    batch_size_max: usize,
}

/// A batch that was taken from the group.
struct TakenBatch {
    index: usize,
    partition: TopicPartition,
    topic_id: Uuid,
    sequence: i32,
    records: BatchRecords,
}

/// A request that has ended.
struct EndedProduce {
    batches: Vec<RequestBatch<usize>>,
    result: Result<(i16, ProduceResponse), RequestError>,
}

impl GroupWriter {
    pub(super) fn new(
        cluster: Cluster,
        transactional_id: &str,
        compression: CompressionType,
        batch_size_max: usize,
    ) -> Self {
        Self {
            cluster,
            purpose: ConnectionPurpose::TransactionalProduce(connection_of(transactional_id)),
            transactional_id: TransactionalId(StrBytes::from_string(transactional_id.to_owned())),
            compression,
            batch_size_max,
        }
    }

    /// Writes all records of the group.
    ///
    /// # Errors
    /// Why the transaction has to be aborted.
    pub(super) async fn write(
        &self,
        group: &mut TransactionGroup,
        manager: &mut TransactionManager,
    ) -> Result<(), AbortCause> {
        let metadata = self.cluster.metadata();
        let producer = manager.current();
        let mut snapshots = metadata.subscribe();
        let mut in_flight = FuturesUnordered::new();
        let mut looked_up = HashSet::new();
        let mut lookups = FuturesUnordered::new();
        let mut cause: Option<AbortCause> = None;
        loop {
            let now = Instant::now();
            if group.is_written() && cause.is_none() {
                return Ok(());
            }
            match cause.take() {
                // Up to transaction.version 1 a request that comes after the abort may open
                // another transaction, which nobody ends.
                Some(abort)
                    if in_flight.is_empty() || producer.protocol == TransactionProtocol::V2 =>
                {
                    return Err(abort);
                }
                Some(abort) => cause = Some(abort),
                None => {
                    let snapshot = Arc::clone(&snapshots.borrow_and_update());
                    let (by_leader, leaderless) = by_leader(group, &snapshot, now);
                    for index in leaderless {
                        group.wait_for_leader(index, now);
                        let topic = &group.partition(index).topic;
                        if snapshot.topic(topic).is_some() {
                            metadata.request_update_for_topic(topic);
                        } else if looked_up.insert(Arc::clone(topic)) {
                            lookups.push(look_up(metadata.clone(), Arc::clone(topic)));
                        }
                    }
                    for (leader, indexes) in by_leader {
                        let taken = self.take(group, &snapshot, &indexes);
                        manager.request_sent();
                        in_flight.push(self.send(leader, taken, producer));
                    }
                }
            }
            let next_due = group.next_due(now).filter(|_| cause.is_none());
            tokio::select! {
                Some(ended) = in_flight.next(), if !in_flight.is_empty() => {
                    let now = Instant::now();
                    if let Some(abort) = self.handle(ended, group, manager, now) {
                        cause = Some(match cause.take() {
                            Some(before) => before.and(abort),
                            None => abort,
                        });
                    }
                }
                Some((topic, error)) = lookups.next(), if !lookups.is_empty() => {
                    looked_up.remove(&topic);
                    cause = cause.or(error.map(|error| group.topic_faults(&topic, &error)));
                }
                () = sleep_until(next_due.unwrap_or(now)), if next_due.is_some() => {}
                // It cannot be closed while the writer has the cluster.
                _ = snapshots.changed() => {}
            }
        }
    }

    fn take(
        &self,
        group: &mut TransactionGroup,
        snapshot: &ClusterSnapshot,
        indexes: &[usize],
    ) -> Vec<TakenBatch> {
        let take = |&index: &usize| {
            let partition = group.partition(index).clone();
            let topic = snapshot.topic(&partition.topic);
            TakenBatch {
                index,
                topic_id: topic.map_or(Uuid::nil(), |topic| topic.id),
                sequence: group.sequence(index),
                records: group.take_batch(index, self.batch_size_max),
                partition,
            }
        };
        indexes.iter().map(take).collect()
    }

    async fn send(
        &self,
        leader: BrokerId,
        taken: Vec<TakenBatch>,
        producer: InitializedProducer,
    ) -> EndedProduce {
        let build = |taken: TakenBatch| {
            let id = producer.producer_id;
            let mut batch = taken.records.build(self.compression);
            batch.set_transactional(true);
            batch.set_producer_state(id.id, id.epoch, taken.sequence);
            RequestBatch {
                handle: taken.index,
                partition: taken.partition,
                topic_id: taken.topic_id,
                batch,
                is_retry: false,
            }
        };
        let bytes = match self.compression {
            CompressionType::None => 0,
            _ => taken.iter().map(|taken| taken.records.size()).sum(),
        };
        let build_all = || taken.into_iter().map(build).collect();
        let batches: Vec<_> = COMPRESSION.run(bytes, build_all).await;
        let result = self.exchange(leader, &batches, producer.protocol).await;
        EndedProduce { batches, result }
    }

    async fn exchange(
        &self,
        leader: BrokerId,
        batches: &[RequestBatch<usize>],
        protocol: TransactionProtocol,
    ) -> Result<(i16, ProduceResponse), RequestError> {
        let connection = self.cluster.connection(leader, self.purpose).await?;
        let newest = connection.version::<ProduceRequest>()?;
        let newest = match protocol {
            TransactionProtocol::V1 => newest.min(PRODUCE_V1_MAX),
            TransactionProtocol::V2 => newest,
        };
        let version = produce_request::version_for(batches, newest);
        let request_timeout = self.cluster.config().request_timeout;
        let request = produce_request::request(batches, version, request_timeout)
            .with_transactional_id(Some(self.transactional_id.clone()));
        let response_timeout = produce_request::response_timeout(request_timeout);
        let sent_at = Instant::now();
        let sent = connection.send(version, &request, response_timeout).await;
        let mut reply = pin!(sent?);
        let metadata = self.cluster.metadata();
        let mut snapshots = metadata.subscribe();
        let mut is_overdue = false;
        loop {
            tokio::select! {
                response = &mut reply => return Ok((version, response?)),
                () = sleep(OVERDUE_AFTER) => {
                    is_overdue = true;
                    metadata.request_update();
                }
                _ = snapshots.changed(), if is_overdue => {}
            }
            let snapshot = metadata.snapshot();
            let has_moved = |b: &RequestBatch<_>| snapshot.has_other_leader(&b.partition, leader);
            if batches.iter().any(has_moved) {
                return Err(RequestError::TimedOut {
                    broker: connection.broker().clone(),
                    api: "Produce",
                    after: sent_at.elapsed(),
                    sent: true,
                });
            }
        }
    }

    /// Takes the batches of a request back; returns why the transaction has to be aborted, if so.
    fn handle(
        &self,
        ended: EndedProduce,
        group: &mut TransactionGroup,
        manager: &mut TransactionManager,
        now: Instant,
    ) -> Option<AbortCause> {
        let EndedProduce { batches, result } = ended;
        let (version, response) = match result {
            Ok(answered) => answered,
            Err(error) => return self.handle_failure(batches, &error, group, manager, now),
        };
        if is_refused_as_concurrent(&response) {
            manager.request_had_no_effect();
            for batch in batches {
                group.postpone(batch.handle, batch.batch, now);
            }
            return None;
        }
        let metadata = self.cluster.metadata();
        let results = produce_request::batch_results(&batches, version, &response);
        let mut cause: Option<AbortCause> = None;
        for (batch, (result, hint)) in batches.into_iter().zip(results) {
            let LeaderHint { is_stale, current } = hint;
            let partition = &batch.partition;
            if !matches!(result, BatchResult::Appended(_)) {
                tracing::debug!(%partition, ?result, "batch of a transaction not appended");
            }
            if let Some((leader, endpoint)) = current {
                metadata.update_partition_leadership(partition, batch.topic_id, leader, endpoint);
            }
            if is_stale {
                metadata.request_update_for_topic(&partition.topic);
            }
            let abort = group.complete(batch.handle, batch.batch, result, now);
            cause = match (cause, abort) {
                (Some(before), Some(abort)) => Some(before.and(abort)),
                (before, abort) => before.or(abort),
            };
        }
        cause
    }

    /// A request failed as a whole.
    fn handle_failure(
        &self,
        batches: Vec<RequestBatch<usize>>,
        error: &RequestError,
        group: &mut TransactionGroup,
        manager: &mut TransactionManager,
        now: Instant,
    ) -> Option<AbortCause> {
        tracing::debug!(%error, "produce request of a transaction failed");
        let maybe_appended = error.maybe_sent();
        if !maybe_appended {
            manager.request_had_no_effect();
        }
        for batch in batches {
            // The broker may be down, and others lead its partitions by now.
            let topic = &batch.partition.topic;
            self.cluster.metadata().request_update_for_topic(topic);
            let retry = BatchResult::Retry { maybe_appended };
            group.complete(batch.handle, batch.batch, retry, now);
        }
        None
    }
}

/// The partitions that are due, by leader, and those that have none.
fn by_leader(
    group: &TransactionGroup,
    snapshot: &ClusterSnapshot,
    now: Instant,
) -> (BTreeMap<BrokerId, Vec<usize>>, Vec<usize>) {
    let mut by_leader: BTreeMap<BrokerId, Vec<usize>> = BTreeMap::new();
    let mut leaderless = Vec::new();
    for index in group.due(now) {
        let TopicPartition { topic, partition } = group.partition(index);
        match snapshot.topic(topic).and_then(|t| t.leader(*partition)) {
            Some(leader) => by_leader.entry(leader.broker).or_default().push(index),
            None => leaderless.push(index),
        }
    }
    (by_leader, leaderless)
}

/// No partition was added: the transaction before is being ended.
fn is_refused_as_concurrent(response: &ProduceResponse) -> bool {
    let concurrent = ResponseError::ConcurrentTransactions.code();
    let topics = response.responses.iter();
    topics
        .flat_map(|topic| &topic.partition_responses)
        .all(|partition| partition.error_code == concurrent)
}
