//! Transactions: InitProducerId, AddPartitionsToTxn, EndTxn, and what lists and describes them.
//!
//! ```text
//! InitProducerId ─▶ AddPartitionsToTxn ─▶ Produce … ─▶ EndTxn ─▶ answer ─▶ markers in the logs
//!                   (or by Produce 12+)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use kafka_client::record::header::BatchHeader;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, DescribeTransactionsRequest,
    DescribeTransactionsResponse, EndTxnRequest, EndTxnResponse, InitProducerIdRequest,
    InitProducerIdResponse, ListTransactionsRequest, ListTransactionsResponse, ProducerId,
    TopicName, TransactionalId, list_transactions_response,
};

use super::super::batch::AppendError;
use super::super::cluster_state::ClusterState;
use super::super::config::END_TXN_BUMPS_EPOCH;
use super::super::context::{ClusterData, RequestContext, now_ms};
use super::super::transaction::{
    EndProtocol, PartitionOfId, ProducerEpoch, TransactionMetadata, TransactionPhase,
    TransactionResult,
};
use super::super::wire::{millis, text};

/// A producer id: a new one for an idempotent producer, that of its transactional id for another.
pub(super) fn init_producer_id(
    context: &RequestContext,
    version: i16,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let initialized = match &request.transactional_id {
        Some(id) => init_transactional(context, id, &request),
        None => {
            let id = context.shared.lock().state.new_producer_id();
            Ok(ProducerEpoch { id, epoch: 0 })
        }
    };
    match initialized {
        Ok(producer) => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch),
        Err(error) => InitProducerIdResponse::default()
            .with_error_code(fenced_before(error, version, 4).code())
            .with_producer_epoch(-1),
    }
}

fn init_transactional(
    context: &RequestContext,
    id: &str,
    request: &InitProducerIdRequest,
) -> Result<ProducerEpoch, ResponseError> {
    let timeout = millis(request.transaction_timeout_ms);
    let now = Instant::now();
    let mut cluster = context.shared.lock();
    context.check_transaction_coordinator(&cluster, id)?;
    if timeout.is_zero() || timeout > TRANSACTION_TIMEOUT_MAX {
        return Err(ResponseError::InvalidTransactionTimeout);
    }
    let expected = match (*request.producer_id, request.producer_epoch) {
        (-1, -1) => None,
        (id @ 0.., epoch @ 0..) => Some(ProducerEpoch { id, epoch }),
        _ => return Err(ResponseError::InvalidRequest),
    };
    context.with_transactions(&mut cluster, now, |transactions, state| {
        let new_id = || state.new_producer_id();
        transactions.init(id, expected, timeout, now, new_id)
    })
}

/// Adds partitions to transactions, or, for another broker, says whether they are in them.
pub(super) fn add_partitions(
    context: &RequestContext,
    version: i16,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    if version < 4 {
        let id = request.v3_and_below_transactional_id;
        let producer = ProducerEpoch {
            id: *request.v3_and_below_producer_id,
            epoch: request.v3_and_below_producer_epoch,
        };
        let topics = request.v3_and_below_topics;
        let results = add_to_one(context, version, &id, producer, topics, false);
        return AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results);
    }
    let results = request.transactions.into_iter().map(|txn| {
        let producer = ProducerEpoch {
            id: *txn.producer_id,
            epoch: txn.producer_epoch,
        };
        let id = txn.transactional_id;
        let results = add_to_one(context, version, &id, producer, txn.topics, txn.verify_only);
        AddPartitionsToTxnResult::default()
            .with_transactional_id(id)
            .with_topic_results(results)
    });
    AddPartitionsToTxnResponse::default().with_results_by_transaction(results.collect())
}

/// All partitions are added, or none.
fn add_to_one(
    context: &RequestContext,
    version: i16,
    id: &str,
    producer: ProducerEpoch,
    topics: Vec<AddPartitionsToTxnTopic>,
    verify_only: bool,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let now = Instant::now();
    let mut cluster = context.shared.lock();
    let found: Vec<Vec<Option<PartitionOfId>>> = topics
        .iter()
        .map(|topic| {
            let indexes = topic.partitions.iter();
            indexes
                .map(|&index| partition_of_id(&cluster.state, &topic.name, index))
                .collect()
        })
        .collect();
    let all_known = found.iter().flatten().all(Option::is_some);
    let mut result = context.check_transaction_coordinator(&cluster, id);
    if result.is_ok() && all_known && !verify_only {
        let partitions: BTreeSet<_> = found.iter().flatten().flatten().copied().collect();
        result = context.with_transactions(&mut cluster, now, |transactions, _| {
            transactions.add(id, producer, &partitions, now)
        });
    }
    let code_of = |partition: &Option<PartitionOfId>| {
        let result = match partition {
            _ if result.is_err() => result,
            None => Err(ResponseError::UnknownTopicOrPartition),
            Some(partition) if verify_only => match cluster.transactions.get(id) {
                Some(transaction) => transaction.verify(producer, partition),
                None => Err(ResponseError::InvalidProducerIdMapping),
            },
            Some(_) if all_known => Ok(()),
            Some(_) => Err(ResponseError::OperationNotAttempted),
        };
        match result {
            Err(ResponseError::TransactionAbortable) if version < 5 => {
                ResponseError::InvalidTxnState.code()
            }
            Err(error) => fenced_before(error, version, 2).code(),
            Ok(()) => 0,
        }
    };
    let results = topics.into_iter().zip(&found).map(|(topic, found)| {
        let partitions = topic.partitions.iter().zip(found).map(|(&index, found)| {
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(index)
                .with_partition_error_code(code_of(found))
        });
        AddPartitionsToTxnTopicResult::default()
            .with_results_by_partition(partitions.collect())
            .with_name(topic.name)
    });
    results.collect()
}

fn partition_of_id(state: &ClusterState, topic: &str, index: i32) -> Option<PartitionOfId> {
    state.partition(topic, index)?;
    Some((state.topic(topic)?.id, index))
}

/// Whether a batch that begins a transaction in a partition is part of one; adds the partition to
/// it for producers that leave that to the broker.
pub(super) fn check_produced(
    context: &RequestContext,
    cluster: &mut ClusterData,
    id: &str,
    version: i16,
    (topic, index): (&str, i32),
    header: &BatchHeader,
) -> Result<(), AppendError> {
    let partition = partition_of_id(&cluster.state, topic, index)
        .ok_or(ResponseError::UnknownTopicOrPartition)?;
    let producer = ProducerEpoch {
        id: header.producer_id,
        epoch: header.producer_epoch,
    };
    let now = Instant::now();
    let adds = version >= PRODUCE_ADDS_PARTITIONS;
    let checked = if adds {
        let partitions = BTreeSet::from([partition]);
        context.with_transactions(cluster, now, |transactions, _| {
            transactions.add(id, producer, &partitions, now)
        })
    } else {
        match cluster.transactions.get(id) {
            Some(transaction) => transaction.verify(producer, &partition),
            None => Err(ResponseError::InvalidProducerIdMapping),
        }
    };
    let refuse = |error, message| Err(AppendError::new(error, message));
    match checked {
        Ok(()) => Ok(()),
        Err(ResponseError::ProducerFenced) => refuse(
            ResponseError::InvalidProducerEpoch,
            "the transactional id has a newer producer",
        ),
        Err(ResponseError::TransactionAbortable) => refuse(
            ResponseError::InvalidTxnState,
            "the partition was not added to the transaction",
        ),
        // Older producers know it as an answer of the coordinator only.
        Err(ResponseError::ConcurrentTransactions) if !adds => refuse(
            ResponseError::NotEnoughReplicas,
            "the transaction before this one is being ended",
        ),
        Err(error) => Err(error.into()),
    }
}

/// Commits or aborts a transaction.
pub(super) fn end_txn(
    context: &RequestContext,
    version: i16,
    request: EndTxnRequest,
) -> EndTxnResponse {
    let id = &*request.transactional_id;
    let producer = ProducerEpoch {
        id: *request.producer_id,
        epoch: request.producer_epoch,
    };
    let result = match request.committed {
        true => TransactionResult::Commit,
        false => TransactionResult::Abort,
    };
    let protocol = match version {
        END_TXN_BUMPS_EPOCH.. => EndProtocol::BumpsEpoch,
        _ => EndProtocol::KeepsEpoch,
    };
    let now = Instant::now();
    let mut cluster = context.shared.lock();
    let ended = context
        .check_transaction_coordinator(&cluster, id)
        .and_then(|()| {
            context.with_transactions(&mut cluster, now, |transactions, state| {
                transactions.with(id, now, |transaction| {
                    let new_id = || state.new_producer_id();
                    transaction.end(producer, result, protocol, now, new_id)
                })
            })
        });
    match ended {
        Ok(next) if version >= END_TXN_BUMPS_EPOCH => EndTxnResponse::default()
            .with_producer_id(ProducerId(next.id))
            .with_producer_epoch(next.epoch),
        Ok(_) => EndTxnResponse::default(),
        Err(error) => {
            EndTxnResponse::default().with_error_code(fenced_before(error, version, 2).code())
        }
    }
}

/// The transactions of some ids.
pub(super) fn describe(
    context: &RequestContext,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let now = Instant::now();
    let cluster = context.shared.lock();
    let mut seen = BTreeSet::new();
    let ids = request.transactional_ids.into_iter();
    let states = ids.filter(|id| seen.insert(id.clone())).map(|id| {
        let found = context
            .check_transaction_coordinator(&cluster, &id)
            .and_then(|()| {
                let known = cluster.transactions.get(&id);
                known.ok_or(ResponseError::TransactionalIdNotFound)
            });
        let state = match found {
            Ok(transaction) => described(&cluster.state, transaction, now),
            Err(error) => TransactionState::default().with_error_code(error.code()),
        };
        state.with_transactional_id(id)
    });
    DescribeTransactionsResponse::default().with_transaction_states(states.collect())
}

fn described(
    state: &ClusterState,
    transaction: &TransactionMetadata,
    now: Instant,
) -> TransactionState {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for &(topic, index) in transaction.partitions() {
        if let Some(name) = state.name_of(topic) {
            topics.entry(name).or_default().push(index);
        }
    }
    let topics = topics.into_iter().map(|(name, partitions)| {
        TopicData::default()
            .with_topic(TopicName(text(name)))
            .with_partitions(partitions)
    });
    let started = transaction
        .age(now)
        .map_or(-1, |age| now_ms() - as_millis(age));
    let producer = transaction.producer();
    TransactionState::default()
        .with_transaction_state(text(transaction.phase().name()))
        .with_transaction_timeout_ms(as_millis(transaction.timeout()) as i32)
        .with_transaction_start_time_ms(started)
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
        .with_topics(topics.collect())
}

/// The transactional ids that this node coordinates, as far as the filters let them through.
pub(super) fn list(
    context: &RequestContext,
    request: &ListTransactionsRequest,
) -> ListTransactionsResponse {
    let now = Instant::now();
    let cluster = context.shared.lock();
    let is_known = |name: &str| {
        TransactionPhase::ALL
            .iter()
            .any(|phase| phase.name() == name)
    };
    let unknown = request.state_filters.iter().filter(|name| !is_known(name));
    let unknown: Vec<_> = unknown.cloned().collect();
    let fits = |transaction: &TransactionMetadata| {
        let states = &request.state_filters;
        let ids = &request.producer_id_filters;
        let name = transaction.phase().name();
        let lasts = transaction.age(now).map_or(-1, as_millis);
        (states.is_empty() || states.iter().any(|state| **state == *name))
            && (ids.is_empty() || ids.contains(&ProducerId(transaction.producer().id)))
            && (request.duration_filter < 0 || lasts > request.duration_filter)
    };
    let here = |id: &str| context.check_transaction_coordinator(&cluster, id).is_ok();
    let listed = cluster.transactions.iter();
    let listed = listed
        .filter(|(id, transaction)| here(id) && fits(transaction))
        .map(|(id, transaction)| {
            list_transactions_response::TransactionState::default()
                .with_transactional_id(TransactionalId(text(id)))
                .with_producer_id(ProducerId(transaction.producer().id))
                .with_transaction_state(text(transaction.phase().name()))
        });
    ListTransactionsResponse::default()
        .with_transaction_states(listed.collect())
        .with_unknown_state_filters(unknown)
}

/// PRODUCER_FENCED, for clients that know only its older name.
fn fenced_before(error: ResponseError, version: i16, since: i16) -> ResponseError {
    match error {
        ResponseError::ProducerFenced if version < since => ResponseError::InvalidProducerEpoch,
        error => error,
    }
}

fn as_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The first version of Produce that adds a partition to the transaction (KIP-890).
const PRODUCE_ADDS_PARTITIONS: i16 = 12;
/// `transaction.max.timeout.ms`
const TRANSACTION_TIMEOUT_MAX: Duration = Duration::from_secs(15 * 60);
