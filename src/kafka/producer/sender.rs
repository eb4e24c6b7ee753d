//! The task that sends to one broker.
//!
//! ```text
//! drained batches ─▶ build, stamp ─▶ connection (one, ordered) ─▶ broker
//!                                        └─ responses, oldest first ─▶ complete
//! ```
//!
//! # Invariants
//! - Requests are sent, and responses taken, in one order.
//! - Nothing goes over a new connection before every in-flight request of the old one has
//!   ended.
//! - Between two failed attempts to connect there is a wait: the cluster's
//!   `reconnect.backoff.ms`.
//! - Batches go to the cluster whose metadata the accumulator follows, and to no other.
//! - A broker that hangs keeps no batch whose partition has another leader: while a response is
//!   overdue the metadata is asked who leads, and the connection is given up once it names
//!   another broker. What may have been appended is sent there under its old sequence.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::ProducerShared;
use super::accumulator::{BatchHandle, CompletedBatch, DrainedBatch};
use super::batch_records::{BatchRecords, COMPRESSION};
use super::error::ProduceError;
use super::partition_queue::{BatchResult, QueuedRecords};
use super::produce_request::{self, LeaderHint};
use crate::config::CompressionType;
use crate::error::RequestError;
use crate::metadata::{ClusterSnapshot, OVERDUE_AFTER};
use crate::net::connection::{Connection, ResponseFuture};
use crate::net::pool::ConnectionPurpose;
use crate::topic::BrokerId;

/// Sends what is ready for `broker`, whenever `wake` says that there is something.
pub(super) async fn run(shared: Arc<ProducerShared>, broker: BrokerId, wake: Arc<Notify>) {
    let stop = shared.cluster.stop().clone();
    let mut snapshots = shared.cluster.metadata().subscribe();
    let mut sender = BrokerSender {
        shared,
        broker,
        connection: None,
        connecting: None,
        in_flight: VecDeque::new(),
        ask_metadata_at: None,
    };
    loop {
        sender.send_ready_batches().await;
        sender.connect_if_needed();
        let is_overdue = sender.ask_metadata_at.is_some();
        let overdue = overdue(sender.overdue_at(), is_overdue, &mut snapshots);
        let BrokerSender {
            in_flight,
            connecting,
            ..
        } = &mut sender;
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            response = next_response(in_flight) => sender.handle_response(response),
            connected = connected(connecting) => sender.handle_connected(connected),
            () = wake.notified() => {}
            () = overdue => sender.handle_overdue(),
        }
    }
}

/// Java's `Sender`, for one broker.
struct BrokerSender {
    shared: Arc<ProducerShared>,
    broker: BrokerId,
    connection: Option<Connection>,
    connecting: Option<Connecting>,
    /// Oldest first.
    in_flight: VecDeque<InFlightProduce>,
    /// While the oldest response is overdue: when to ask the metadata again.
    ask_metadata_at: Option<Instant>,
}

type InFlightBatch = produce_request::RequestBatch<BatchHandle>;
type Connecting = Pin<Box<dyn Future<Output = Result<Connection, RequestError>> + Send>>;

/// A request that is not answered.
struct InFlightProduce {
    reply: ResponseFuture<ProduceRequest>,
    version: i16,
    batches: Vec<InFlightBatch>,
    sent_at: Instant,
}

impl BrokerSender {
    /// Sends as many requests as may be in flight.
    async fn send_ready_batches(&mut self) {
        while self.in_flight.len() < self.shared.config.max_in_flight.max(1) {
            let Some(connection) = self.connection.clone().filter(|c| !c.is_closed()) else {
                self.connection = None;
                return;
            };
            let now = Instant::now();
            match self.drain_for(&connection, now) {
                Some(drained) if drained.is_empty() => return,
                Some(drained) => self.send_request(&connection, drained).await,
                // The accumulator has followed the metadata to the connection's cluster.
                None if self.shared.update_metadata() => {}
                None => {
                    self.connection = None;
                    return;
                }
            }
        }
    }

    /// The batches for one request on that connection; `None` if the accumulator is at another
    /// cluster than the connection: producer ids and sequences are of the accumulator's.
    fn drain_for(&self, connection: &Connection, now: Instant) -> Option<Vec<DrainedBatch>> {
        self.shared.with_accumulator(|accumulator, effects| {
            let is_same = accumulator.cluster_id() == connection.cluster_id();
            is_same.then(|| accumulator.drain(self.broker, now, effects))
        })
    }

    async fn send_request(&mut self, connection: &Connection, drained: Vec<DrainedBatch>) {
        let compression = self.shared.config.compression;
        let build = |drained: DrainedBatch| {
            let sendable = drained.batch;
            let id = sendable.producer_id;
            let mut batch = sendable.records.build(compression);
            batch.set_producer_state(id.id, id.epoch, sendable.base_sequence);
            InFlightBatch {
                handle: drained.handle,
                partition: drained.partition,
                topic_id: drained.topic_id,
                batch,
                is_retry: sendable.is_retry,
            }
        };
        let bytes = match compression {
            CompressionType::None => 0,
            _ => drained.iter().map(|d| d.batch.records.size()).sum(),
        };
        let build_all = || drained.into_iter().map(build).collect();
        let batches: Vec<InFlightBatch> = COMPRESSION.run(bytes, build_all).await;
        let request_timeout = self.shared.cluster.config().request_timeout;
        let version = match connection.version::<ProduceRequest>() {
            Ok(newest) => produce_request::version_for(&batches, newest),
            Err(error) => return self.handle_failure(batches, 0, &error),
        };
        let request = produce_request::request(&batches, version, request_timeout);
        let response_timeout = produce_request::response_timeout(request_timeout);
        match connection.send(version, &request, response_timeout).await {
            Ok(reply) => self.in_flight.push_back(InFlightProduce {
                reply,
                version,
                batches,
                sent_at: Instant::now(),
            }),
            Err(error) => self.handle_failure(batches, version, &error),
        }
    }

    /// Begins to open a connection if one is missed; not while requests are in flight on the
    /// last one.
    fn connect_if_needed(&mut self) {
        let is_idle = self.connection.is_none() && self.in_flight.is_empty();
        if !is_idle || !self.shared.has_ready(self.broker) {
            self.connecting = None;
        } else if self.connecting.is_none() {
            let cluster = self.shared.cluster.clone();
            let broker = self.broker;
            self.connecting = Some(Box::pin(async move {
                cluster.connection(broker, ConnectionPurpose::Produce).await
            }));
        }
    }

    fn handle_connected(&mut self, connected: Result<Connection, RequestError>) {
        self.connecting = None;
        match connected {
            Ok(connection) => self.connection = Some(connection),
            // The cluster refreshes its metadata, and lets the next attempt wait.
            Err(error) => {
                tracing::debug!(broker = %self.broker, %error, "cannot produce");
            }
        }
    }

    /// When the metadata is to be asked because the oldest response does not come.
    fn overdue_at(&self) -> Option<Instant> {
        let sent_at = self.in_flight.front()?.sent_at;
        Some(self.ask_metadata_at.unwrap_or(sent_at + OVERDUE_AFTER))
    }

    /// The oldest response is overdue; or was, and the metadata has changed.
    fn handle_overdue(&mut self) {
        let now = Instant::now();
        let metadata = self.shared.cluster.metadata();
        let snapshot = metadata.snapshot();
        let has_moved =
            |batch: &InFlightBatch| snapshot.has_other_leader(&batch.partition, self.broker);
        let mut batches = self.in_flight.iter().flat_map(|request| &request.batches);
        if batches.any(has_moved)
            && let Some(connection) = self.connection.take()
        {
            connection.close("it does not answer, and another broker leads its partitions");
        }
        if self.overdue_at().is_some_and(|at| at <= now) {
            self.ask_metadata_at = Some(now + OVERDUE_AFTER);
            metadata.request_update();
        }
    }

    fn handle_response(&mut self, response: Result<ProduceResponse, RequestError>) {
        self.ask_metadata_at = None;
        let Some(request) = self.in_flight.pop_front() else {
            return;
        };
        let response = match response {
            Ok(response) => response,
            Err(error) => {
                if let Some(connection) = self.connection.take() {
                    // Later responses on it are of no use, and a new connection may work.
                    connection.close("a produce request failed");
                }
                return self.handle_failure(request.batches, request.version, &error);
            }
        };
        let results = produce_request::batch_results(&request.batches, request.version, &response);
        let metadata = self.shared.cluster.metadata();
        let naming = produce_request::topic_naming(request.version);
        let mut completed = Vec::with_capacity(results.len());
        let mut stale_topics: Vec<Arc<str>> = Vec::new();
        for (batch, (result, hint)) in request.batches.into_iter().zip(results) {
            let LeaderHint { is_stale, current } = hint;
            let partition = batch.partition;
            if let BatchResult::Fatal(error @ ProduceError::NotAuthorized { .. }) = &result {
                let principal = self.shared.cluster.principal();
                tracing::warn!(%principal, %error, "records are refused");
            } else if !matches!(result, BatchResult::Appended(_)) {
                tracing::debug!(%partition, broker = %self.broker, ?result, "batch not appended");
            }
            if let Some((leader, endpoint)) = current {
                metadata.update_partition_leadership(&partition, batch.topic_id, leader, endpoint);
            }
            if is_stale && !stale_topics.contains(&partition.topic) {
                stale_topics.push(partition.topic);
            }
            completed.push(CompletedBatch {
                handle: batch.handle,
                records: BatchRecords::Built(batch.batch),
                result,
                naming,
            });
        }
        self.complete(completed);
        for topic in stale_topics {
            metadata.request_update_for_topic(&topic);
        }
    }

    /// A request failed as a whole.
    fn handle_failure(&mut self, batches: Vec<InFlightBatch>, version: i16, error: &RequestError) {
        tracing::debug!(broker = %self.broker, %error, "produce request failed");
        let maybe_appended = error.maybe_sent();
        // The broker may be down, and others lead its partitions by now.
        let metadata = self.shared.cluster.metadata();
        if let Some(first) = batches.first() {
            metadata.request_update_for_topic(&first.partition.topic);
        }
        let naming = produce_request::topic_naming(version);
        let completed = batches.into_iter().map(|batch| CompletedBatch {
            handle: batch.handle,
            records: BatchRecords::Built(batch.batch),
            result: BatchResult::Retry { maybe_appended },
            naming,
        });
        self.complete(completed.collect());
    }

    fn complete(&self, batches: Vec<CompletedBatch>) {
        let now = Instant::now();
        self.shared
            .with_accumulator(|accumulator, effects| accumulator.complete(batches, now, effects));
    }
}

/// The response to the oldest request; cancel-safe.
async fn next_response(
    in_flight: &mut VecDeque<InFlightProduce>,
) -> Result<ProduceResponse, RequestError> {
    match in_flight.front_mut() {
        Some(request) => (&mut request.reply).await,
        None => std::future::pending().await,
    }
}

/// Completes when the oldest response becomes overdue; while it is, also when the metadata
/// changes. Cancel-safe.
async fn overdue(
    at: Option<Instant>,
    is_overdue: bool,
    snapshots: &mut watch::Receiver<Arc<ClusterSnapshot>>,
) {
    let Some(at) = at else {
        return std::future::pending().await;
    };
    tokio::select! {
        () = sleep_until(at) => {}
        // It cannot be closed while the sender has the cluster.
        _ = snapshots.changed(), if is_overdue => {}
    }
}

async fn connected(connecting: &mut Option<Connecting>) -> Result<Connection, RequestError> {
    match connecting {
        Some(connecting) => connecting.await,
        None => std::future::pending().await,
    }
}
