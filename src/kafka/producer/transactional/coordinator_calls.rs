//! What a transactional producer asks of its coordinator: InitProducerId, AddPartitionsToTxn and
//! EndTxn.
//!
//! ```text
//! init, add_partitions, end ─▶ known coordinator? ─▶ connection ─▶ answer
//!        ▲                          │ no                             │
//!        │                    FindCoordinator                        │
//!        └───── wait ◀── moved, loading, concurrent, not answered ◀──┘
//! ```
//!
//! # Invariants
//! - A call is repeated until there is an answer that means something; the caller says how long it
//!   waits for that. Between two attempts there is a wait.
//! - A coordinator that hangs is left once another broker is named.
//! - Cancel-safe, in the sense that a call that is dropped may have had its effect.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, EndTxnRequest, FindCoordinatorRequest,
    InitProducerIdRequest, ProducerId, TopicName, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::sleep;

use super::super::error::ProduceError;
use super::super::producer_id::ProducerIdAndEpoch;
use super::super::topic_lookup::look_up;
use super::coordinator_error::CoordinatorError;
use super::error::TransactionError;
use super::transaction_manager::{InitializedProducer, TransactionProtocol};
use crate::backoff::ExponentialBackoff;
use crate::cluster::Cluster;
use crate::metadata::OVERDUE_AFTER;
use crate::net::connection::Connection;
use crate::net::pool::ConnectionPurpose;
use crate::protocol::versions::Api;
use crate::topic::{BrokerId, TopicPartition};

/// Of FindCoordinator: a transactional id's coordinator.
const KEY_TYPE_TRANSACTION: i8 = 1;
/// FindCoordinator is answered at once: a broker that takes longer hangs, and another is asked.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the markers of the transaction before may take, as Java's client takes it.
pub(super) const CONCURRENT_BACKOFF: Duration = Duration::from_millis(20);
/// How many connections to one broker transactional producers share, of each kind.
const CONNECTIONS: u64 = 4;
/// The first version of InitProducerId that raises the epoch of a producer that names itself.
const INIT_BUMPS_EPOCH: i16 = 3;
/// The first version of EndTxn that raises the epoch (KIP-890).
const END_TXN_BUMPS_EPOCH: i16 = 5;
/// The level of `transaction.version` that has it.
const TRANSACTION_VERSION_2: i16 = 2;

/// Which of the connections to a broker the producer of an id uses.
pub(super) fn connection_of(transactional_id: &str) -> u8 {
    let mut hasher = DefaultHasher::new();
    transactional_id.hash(&mut hasher);
    (hasher.finish() % CONNECTIONS) as u8
}

/// The coordinator of one transactional id.
#[derive(Debug)]
pub(super) struct CoordinatorCalls {
    cluster: Cluster,
    transactional_id: Arc<str>,
    transaction_timeout: Duration,
    purpose: ConnectionPurpose,
    coordinator: Option<BrokerId>,
    backoff: ExponentialBackoff,
    concurrent_backoff: ExponentialBackoff,
    /// Why the last attempt failed.
    last_failure: Option<Arc<str>>,
}

/// How an EndTxn ended.
#[derive(Debug)]
pub(super) enum EndedTxn {
    /// As was asked for; with the producer id and epoch of the next transaction from version 5 on.
    Done(Option<ProducerIdAndEpoch>),
    /// Not so: no transaction is open, or it can only be aborted.
    Refused,
    /// A newer epoch is known. `maybe_done`: an attempt before may have had its effect.
    Fenced { maybe_done: bool },
    /// Nothing more can be done under the id.
    Failed {
        error: TransactionError,
        maybe_done: bool,
    },
}

/// How an AddPartitionsToTxn ended.
#[derive(Debug)]
pub(super) enum AddedPartitions {
    Added,
    /// These topics cannot be written to.
    Faulty(Vec<(Arc<str>, ProduceError)>),
    /// The transaction has to be aborted, for that reason.
    Aborts(Arc<str>),
    Failed(TransactionError),
}

struct CoordinatorAnswer<R> {
    version: i16,
    connection: Connection,
    response: R,
}

impl CoordinatorCalls {
    pub(super) fn new(
        cluster: Cluster,
        transactional_id: Arc<str>,
        transaction_timeout: Duration,
    ) -> Self {
        let config = cluster.config();
        let (first, max) = (config.retry_backoff, config.retry_backoff_max);
        Self {
            purpose: ConnectionPurpose::TransactionCoordinator(connection_of(&transactional_id)),
            coordinator: None,
            backoff: ExponentialBackoff::new(first, max),
            concurrent_backoff: ExponentialBackoff::new(CONCURRENT_BACKOFF.min(first), max),
            last_failure: None,
            transactional_id,
            transaction_timeout,
            cluster,
        }
    }

    /// Why the last attempt failed, if it did.
    pub(super) fn last_failure(&self) -> Option<&Arc<str>> {
        self.last_failure.as_ref()
    }

    /// Takes over from every other producer of the id, or, with the producer id and epoch of this
    /// one, goes on under the next epoch.
    ///
    /// # Errors
    /// What no other attempt would change.
    pub(super) async fn init(
        &mut self,
        current: Option<ProducerIdAndEpoch>,
    ) -> Result<InitializedProducer, TransactionError> {
        loop {
            match self.try_init(current).await {
                Ok(initialized) => {
                    self.succeeded();
                    return Ok(initialized);
                }
                Err(error) => self.wait_to_repeat(error).await?,
            }
        }
    }

    async fn try_init(
        &mut self,
        current: Option<ProducerIdAndEpoch>,
    ) -> Result<InitializedProducer, CoordinatorError> {
        let id = self.id();
        let timeout = self.transaction_timeout.as_millis();
        let build = |version| {
            let request = InitProducerIdRequest::default()
                .with_transactional_id(Some(id.clone()))
                .with_transaction_timeout_ms(i32::try_from(timeout).unwrap_or(i32::MAX));
            match current.filter(|_| version >= INIT_BUMPS_EPOCH) {
                Some(current) => request
                    .with_producer_id(ProducerId(current.id))
                    .with_producer_epoch(current.epoch),
                None => request,
            }
        };
        let answer = self.call::<InitProducerIdRequest>(i16::MAX, build).await?;
        if let Some(error) = CoordinatorError::of_code(answer.response.error_code) {
            return Err(error);
        }
        let bumps = |newest: i16| newest >= END_TXN_BUMPS_EPOCH;
        let level = answer.connection.transaction_version();
        let is_v2 = level >= TRANSACTION_VERSION_2
            && answer
                .connection
                .version::<EndTxnRequest>()
                .is_ok_and(bumps);
        Ok(InitializedProducer {
            producer_id: ProducerIdAndEpoch {
                id: *answer.response.producer_id,
                epoch: answer.response.producer_epoch,
            },
            protocol: match is_v2 {
                true => TransactionProtocol::V2,
                false => TransactionProtocol::V1,
            },
            can_bump_epoch: answer.version >= INIT_BUMPS_EPOCH,
        })
    }

    /// Adds partitions to the transaction, for producers that do not leave that to Produce.
    /// `maybe_open` becomes true once the coordinator may have a transaction open.
    pub(super) async fn add_partitions(
        &mut self,
        producer: ProducerIdAndEpoch,
        partitions: &[TopicPartition],
        maybe_open: &mut bool,
    ) -> AddedPartitions {
        let mut topics: BTreeMap<&Arc<str>, Vec<i32>> = BTreeMap::new();
        for TopicPartition { topic, partition } in partitions {
            topics.entry(topic).or_default().push(*partition);
        }
        let topics: Vec<_> = topics
            .into_iter()
            .map(|(topic, partitions)| {
                AddPartitionsToTxnTopic::default()
                    .with_name(TopicName(text(topic)))
                    .with_partitions(partitions)
            })
            .collect();
        let id = self.id();
        let build = |_version| {
            AddPartitionsToTxnRequest::default()
                .with_v3_and_below_transactional_id(id.clone())
                .with_v3_and_below_producer_id(ProducerId(producer.id))
                .with_v3_and_below_producer_epoch(producer.epoch)
                .with_v3_and_below_topics(topics.clone())
        };
        loop {
            let called = self
                .call::<AddPartitionsToTxnRequest>(i16::MAX, build)
                .await;
            let error = match called {
                Ok(answer) => {
                    let (faulty, error) = self.refused_partitions(&answer.response).await;
                    *maybe_open |= !matches!(error, Some(CoordinatorError::Concurrent));
                    if !faulty.is_empty() {
                        return AddedPartitions::Faulty(faulty);
                    }
                    match error {
                        None => {
                            self.succeeded();
                            return AddedPartitions::Added;
                        }
                        Some(error) => error,
                    }
                }
                Err(error) => {
                    *maybe_open |= error.maybe_done();
                    error
                }
            };
            match error {
                CoordinatorError::Fenced => {
                    return AddedPartitions::Aborts("the coordinator knows a newer epoch".into());
                }
                CoordinatorError::InvalidState => {
                    return AddedPartitions::Aborts("the transaction is in another state".into());
                }
                CoordinatorError::Abortable(reason) => return AddedPartitions::Aborts(reason),
                error => {
                    if let Err(error) = self.wait_to_repeat(error).await {
                        return AddedPartitions::Failed(error);
                    }
                }
            }
        }
    }

    /// The topics that cannot be written to, and the first error that is not about a topic.
    async fn refused_partitions(
        &self,
        response: &AddPartitionsToTxnResponse,
    ) -> (Vec<(Arc<str>, ProduceError)>, Option<CoordinatorError>) {
        let mut faulty: Vec<(Arc<str>, ProduceError)> = Vec::new();
        let mut first = None;
        let topics = response.results_by_topic_v3_and_below.iter();
        let results = topics.flat_map(|topic| {
            let partitions = topic.results_by_partition.iter();
            partitions.map(|partition| (&**topic.name, partition.partition_error_code))
        });
        let results: Vec<(&str, i16)> = results.collect();
        for (topic, code) in results {
            let fault = match ResponseError::try_from_code(code) {
                // It says nothing of this partition.
                Some(ResponseError::OperationNotAttempted) => continue,
                Some(ResponseError::TopicAuthorizationFailed) => {
                    let what = format!("topic {topic}").into();
                    Some(ProduceError::NotAuthorized { what })
                }
                Some(ResponseError::UnknownTopicOrPartition) => self.missing(topic).await,
                _ => None,
            };
            match fault {
                Some(fault) if faulty.iter().all(|(other, _)| **other != *topic) => {
                    faulty.push((topic.into(), fault));
                }
                Some(_) => {}
                None => first = first.or(CoordinatorError::of_code(code)),
            }
        }
        (faulty, first)
    }

    /// Why a topic that a broker does not know cannot be written to; `None` if another does.
    async fn missing(&self, topic: &str) -> Option<ProduceError> {
        let metadata = self.cluster.metadata();
        metadata.request_update_for_topic(topic);
        match metadata.snapshot().topic(topic) {
            Some(_) => None,
            None => look_up(metadata.clone(), topic.into()).await.1,
        }
    }

    /// Commits or aborts the transaction of that producer.
    pub(super) async fn end(&mut self, producer: InitializedProducer, committed: bool) -> EndedTxn {
        let id = self.id();
        let version_max = match producer.protocol {
            TransactionProtocol::V1 => END_TXN_BUMPS_EPOCH - 1,
            TransactionProtocol::V2 => END_TXN_BUMPS_EPOCH,
        };
        let build = |_version| {
            EndTxnRequest::default()
                .with_transactional_id(id.clone())
                .with_producer_id(ProducerId(producer.producer_id.id))
                .with_producer_epoch(producer.producer_id.epoch)
                .with_committed(committed)
        };
        let mut maybe_done = false;
        loop {
            let error = match self.call::<EndTxnRequest>(version_max, build).await {
                Ok(answer) => match CoordinatorError::of_code(answer.response.error_code) {
                    None => {
                        self.succeeded();
                        let next = ProducerIdAndEpoch {
                            id: *answer.response.producer_id,
                            epoch: answer.response.producer_epoch,
                        };
                        return EndedTxn::Done((next.id >= 0).then_some(next));
                    }
                    Some(error) => error,
                },
                Err(error) => error,
            };
            match error {
                CoordinatorError::Fenced => return EndedTxn::Fenced { maybe_done },
                CoordinatorError::InvalidState | CoordinatorError::Abortable(_) => {
                    return EndedTxn::Refused;
                }
                error => {
                    maybe_done |= error.maybe_done();
                    if let Err(error) = self.wait_to_repeat(error).await {
                        return EndedTxn::Failed { error, maybe_done };
                    }
                }
            }
        }
    }

    /// One attempt, in the newest common version up to `version_max`.
    async fn call<A: Api>(
        &mut self,
        version_max: i16,
        build: impl Fn(i16) -> A,
    ) -> Result<CoordinatorAnswer<A::Response>, CoordinatorError> {
        let of_request = |error| CoordinatorError::of_request(&error);
        let broker = match self.coordinator {
            Some(broker) => broker,
            None => self.find().await?,
        };
        self.coordinator = Some(broker);
        let connected = self.cluster.connection(broker, self.purpose).await;
        let connection = connected.map_err(of_request)?;
        let newest = connection.version::<A>().map_err(of_request)?;
        let version = newest.min(version_max);
        let timeout = self.cluster.config().request_timeout;
        let sent = connection.send(version, &build(version), timeout).await;
        let mut reply = pin!(sent.map_err(of_request)?);
        loop {
            let look_again = async {
                sleep(OVERDUE_AFTER).await;
                self.find().await
            };
            tokio::select! {
                response = &mut reply => return Ok(CoordinatorAnswer {
                    version,
                    response: response.map_err(of_request)?,
                    connection,
                }),
                found = look_again => {
                    if let Ok(other) = found && other != broker {
                        self.coordinator = Some(other);
                        let reason = "it does not answer, and another broker coordinates";
                        return Err(CoordinatorError::MaybeDone(reason.into()));
                    }
                }
            }
        }
    }

    async fn find(&self) -> Result<BrokerId, CoordinatorError> {
        let key = text(&self.transactional_id);
        let build = |version| {
            let request = FindCoordinatorRequest::default().with_key_type(KEY_TYPE_TRANSACTION);
            match version {
                4.. => request.with_coordinator_keys(vec![key.clone()]),
                _ => request.with_key(key.clone()),
            }
        };
        let timeout = self.cluster.config().request_timeout.min(LOOKUP_TIMEOUT);
        let found = self.cluster.call_any(build, timeout).await;
        let (_, response) = found.map_err(|error| CoordinatorError::of_request(&error))?;
        let (code, node) = match response.coordinators.first() {
            Some(coordinator) => (coordinator.error_code, coordinator.node_id),
            None => (response.error_code, response.node_id),
        };
        match CoordinatorError::of_code(code) {
            None => Ok(BrokerId(*node)),
            Some(error) => Err(error),
        }
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// If another attempt would not change anything.
    async fn wait_to_repeat(&mut self, error: CoordinatorError) -> Result<(), TransactionError> {
        let transactional_id = Arc::clone(&self.transactional_id);
        tracing::debug!(%transactional_id, ?error, "asking the coordinator again");
        let reason = match error {
            CoordinatorError::Concurrent => {
                self.last_failure = Some("the transaction before is being ended".into());
                sleep(self.concurrent_backoff.after_failure()).await;
                return Ok(());
            }
            CoordinatorError::Fenced => return Err(TransactionError::Fenced { transactional_id }),
            CoordinatorError::NotAuthorized => {
                return Err(not_authorized(&transactional_id));
            }
            CoordinatorError::Unsupported(reason) => {
                return Err(TransactionError::Unsupported {
                    transactional_id,
                    reason,
                });
            }
            CoordinatorError::Refused(reason) => {
                return Err(TransactionError::Refused {
                    transactional_id,
                    reason,
                });
            }
            CoordinatorError::Moved => {
                self.coordinator = None;
                "the coordinator has moved".into()
            }
            CoordinatorError::Unreachable(reason) => {
                self.coordinator = None;
                reason
            }
            CoordinatorError::MaybeDone(reason) => reason,
            CoordinatorError::Loading => "the coordinator loads its transactions".into(),
            CoordinatorError::InvalidState => "the transaction is in another state".into(),
            CoordinatorError::Abortable(reason) => reason,
        };
        self.last_failure = Some(reason);
        sleep(self.backoff.after_failure()).await;
        Ok(())
    }

    fn succeeded(&mut self) {
        self.backoff.succeeded();
        self.concurrent_backoff.succeeded();
        self.last_failure = None;
    }

    fn id(&self) -> TransactionalId {
        TransactionalId(text(&self.transactional_id))
    }
}

/// The principal may not use the id.
pub(super) fn not_authorized(transactional_id: &Arc<str>) -> TransactionError {
    TransactionError::NotAuthorized {
        transactional_id: Arc::clone(transactional_id),
        what: format!("transactional id {transactional_id}").into(),
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
