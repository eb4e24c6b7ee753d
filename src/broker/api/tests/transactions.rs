//! Transactions as clients with and without KIP-890 have them.

use kafka_client::record::header::{self, BatchHeader};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_response::PartitionData;

use super::*;

/// What a client without KIP-890 sends.
const V1: ClientVersions = ClientVersions {
    produce: 11,
    end_txn: 4,
};
/// What one with it sends.
const V2: ClientVersions = ClientVersions {
    produce: 12,
    end_txn: 5,
};

#[derive(Clone, Copy)]
struct ClientVersions {
    produce: i16,
    end_txn: i16,
}

/// A broker with topic `t`, of one partition.
fn broker() -> RequestContext {
    let context = context();
    let mut cluster = context.shared.lock();
    cluster.state.create_topic("t", Some(1), None).unwrap();
    drop(cluster);
    context
}

fn id() -> TransactionalId {
    TransactionalId(text("id"))
}

async fn init(context: &RequestContext) -> (i16, ProducerId, i16) {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(id()))
        .with_transaction_timeout_ms(15_000);
    match answer(context, 5, request.into()).await {
        Some(ResponseKind::InitProducerId(r)) => (r.error_code, r.producer_id, r.producer_epoch),
        other => panic!("{other:?}"),
    }
}

async fn add(context: &RequestContext, producer: (ProducerId, i16)) -> i16 {
    let topic = AddPartitionsToTxnTopic::default()
        .with_name(topic())
        .with_partitions(vec![0]);
    let request = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(id())
        .with_v3_and_below_producer_id(producer.0)
        .with_v3_and_below_producer_epoch(producer.1)
        .with_v3_and_below_topics(vec![topic]);
    match answer(context, 3, request.into()).await {
        Some(ResponseKind::AddPartitionsToTxn(r)) => {
            r.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
        }
        other => panic!("{other:?}"),
    }
}

/// Writes two records from that sequence on.
async fn produce(
    context: &RequestContext,
    versions: ClientVersions,
    (producer, epoch): (ProducerId, i16),
    sequence: i32,
    transactional: bool,
) -> i16 {
    let mut batch = batch_of(2, 5, (*producer, epoch, sequence)).to_vec();
    let mut header = BatchHeader::parse(&batch).unwrap();
    header.attributes = header.attributes.with_transactional(transactional);
    header.write(&mut batch);
    header::write_crc(&mut batch);
    let partition = PartitionProduceData::default().with_records(Some(batch.into()));
    let topic = TopicProduceData::default()
        .with_name(topic())
        .with_partition_data(vec![partition]);
    let request = ProduceRequest::default()
        .with_transactional_id(transactional.then(id))
        .with_acks(-1)
        .with_topic_data(vec![topic]);
    match answer(context, versions.produce, request.into()).await {
        Some(ResponseKind::Produce(r)) => r.responses[0].partition_responses[0].error_code,
        other => panic!("{other:?}"),
    }
}

async fn end(
    context: &RequestContext,
    versions: ClientVersions,
    (producer, epoch): (ProducerId, i16),
    commit: bool,
) -> EndTxnResponse {
    let request = EndTxnRequest::default()
        .with_transactional_id(id())
        .with_producer_id(producer)
        .with_producer_epoch(epoch)
        .with_committed(commit);
    match answer(context, versions.end_txn, request.into()).await {
        Some(ResponseKind::EndTxn(response)) => response,
        other => panic!("{other:?}"),
    }
}

/// What a reader of committed data gets of the whole partition.
async fn committed(context: &RequestContext) -> PartitionData {
    let ResponseKind::Fetch(mut fetched) = ({
        let mut request = sent(ApiKey::Fetch, 4, Uuid::nil());
        if let RequestKind::Fetch(request) = &mut request {
            request.isolation_level = 1;
            request.topics[0].partitions.truncate(1);
            request.topics[0].partitions[0].partition_max_bytes = 1 << 20;
            request.max_bytes = 1 << 20;
        }
        answer(context, 4, request).await.unwrap()
    }) else {
        panic!("not fetched");
    };
    fetched.responses.remove(0).partitions.remove(0)
}

/// Base offset, producer epoch, and whether it is a marker, of each batch.
fn batches(data: &PartitionData) -> Vec<(i64, i16, bool)> {
    let mut bytes = &data.records.as_ref().unwrap()[..];
    let mut batches = Vec::new();
    while let Ok(header) = BatchHeader::parse(bytes) {
        let is_marker = header.attributes.is_control_batch();
        batches.push((header.base_offset, header.producer_epoch, is_marker));
        bytes = &bytes[header.size()..];
    }
    batches
}

fn code(error: ResponseError) -> i16 {
    error.code()
}

#[tokio::test]
async fn what_is_written_is_read_once_it_is_committed_and_never_when_it_is_aborted() {
    // The epoch of the next transaction, and its first sequence.
    for (versions, epoch, sequence) in [(V1, 0, 2), (V2, 1, 0)] {
        let context = broker();
        let (error, producer, first) = init(&context).await;
        assert_eq!((error, first), (0, 0));
        let begin = async |epoch| match versions.end_txn {
            5.. => 0,
            _ => add(&context, (producer, epoch)).await,
        };
        assert_eq!(begin(0).await, 0);
        let written = produce(&context, versions, (producer, 0), 0, true).await;
        assert_eq!(written, 0);
        let open = committed(&context).await;
        assert_eq!((open.last_stable_offset, open.high_watermark), (0, 2));
        assert_eq!(batches(&open), []);
        let ended = end(&context, versions, (producer, 0), true).await;
        assert_eq!(ended.error_code, 0);
        let next = match versions.end_txn {
            5.. => (producer, epoch),
            _ => (ProducerId(-1), -1),
        };
        assert_eq!((ended.producer_id, ended.producer_epoch), next);

        assert_eq!(begin(epoch).await, 0);
        let by = (producer, epoch);
        assert_eq!(produce(&context, versions, by, sequence, true).await, 0);
        assert_eq!(end(&context, versions, by, false).await.error_code, 0);
        let read = committed(&context).await;
        assert_eq!(read.last_stable_offset, 6);
        let written = [(0, 0, false), (2, epoch, true), (3, epoch, false)];
        assert_eq!(batches(&read)[..3], written);
        assert_eq!(batches(&read)[3], (5, 2 * epoch, true));
        let aborted = read.aborted_transactions.unwrap();
        assert_eq!(aborted.len(), 1);
        let named = (aborted[0].producer_id, aborted[0].first_offset);
        assert_eq!(named, (producer, 3));
    }
}

#[tokio::test]
async fn what_is_sent_under_the_epoch_before_opens_no_transaction() {
    let context = broker();
    let (_, producer, epoch) = init(&context).await;
    produce(&context, V2, (producer, epoch), 0, true).await;
    let ended = end(&context, V2, (producer, epoch), true).await;
    assert_eq!(ended.error_code, 0);
    let late = produce(&context, V2, (producer, epoch), 2, true).await;
    assert_eq!(late, code(ResponseError::InvalidProducerEpoch));
    assert_eq!(committed(&context).await.last_stable_offset, 3);
}

#[tokio::test]
async fn a_partition_that_was_not_added_is_refused_before_version_2() {
    let context = broker();
    let (_, producer, epoch) = init(&context).await;
    let by = (producer, epoch);
    let refused = produce(&context, V1, by, 0, true).await;
    assert_eq!(refused, code(ResponseError::InvalidTxnState));
    assert_eq!(add(&context, by).await, 0);
    assert_eq!(produce(&context, V1, by, 0, true).await, 0);
    // Nor may the producer write past its own transaction.
    let plain = produce(&context, V1, by, 2, false).await;
    assert_eq!(plain, code(ResponseError::InvalidTxnState));
}

#[tokio::test]
async fn a_second_producer_of_the_id_fences_the_first_and_aborts_what_it_wrote() {
    let context = broker();
    let (_, producer, epoch) = init(&context).await;
    produce(&context, V2, (producer, epoch), 0, true).await;
    let concurrent = code(ResponseError::ConcurrentTransactions);
    assert_eq!(init(&context).await.0, concurrent);
    assert_eq!(init(&context).await, (0, producer, 2));
    let ended = end(&context, V2, (producer, epoch), true).await;
    assert_eq!(ended.error_code, code(ResponseError::ProducerFenced));
    let read = committed(&context).await;
    assert_eq!(
        read.aborted_transactions.map(|aborted| aborted.len()),
        Some(1)
    );
}

#[tokio::test]
async fn only_a_coordinator_of_the_id_ends_and_lists_its_transactions() {
    let mut context = broker();
    let (_, producer, epoch) = init(&context).await;
    produce(&context, V2, (producer, epoch), 0, true).await;
    let list = async |context: &RequestContext| {
        let listed = answer(context, 1, ListTransactionsRequest::default().into()).await;
        match listed {
            Some(ResponseKind::ListTransactions(r)) => r.transaction_states,
            other => panic!("{other:?}"),
        }
    };
    let listed = list(&context).await;
    assert_eq!(
        (
            &*listed[0].transactional_id.0,
            &*listed[0].transaction_state
        ),
        ("id", "Ongoing")
    );
    let described = answer(
        &context,
        0,
        sent(ApiKey::DescribeTransactions, 0, Uuid::nil()),
    )
    .await;
    let Some(ResponseKind::DescribeTransactions(described)) = described else {
        panic!("not described");
    };
    let state = &described.transaction_states[0];
    assert_eq!(
        (state.producer_id, state.transaction_timeout_ms),
        (producer, 15_000)
    );
    assert_eq!(
        (&*state.topics[0].topic.0, &state.topics[0].partitions[..]),
        ("t", &[0][..])
    );
    assert!(state.transaction_start_time_ms > 0);
    context.node = 2;
    assert!(list(&context).await.is_empty());
    let ended = end(&context, V2, (producer, epoch), true).await;
    assert_eq!(ended.error_code, code(ResponseError::NotCoordinator));
}

#[tokio::test]
async fn the_feature_is_finalized_as_configured_where_the_release_has_it() {
    for (release, level, finalized) in [
        (KafkaRelease::V4, 2, Some(2)),
        (KafkaRelease::V4, 1, Some(1)),
        (KafkaRelease::V3_9, 2, None),
    ] {
        let context = context_with(BrokerConfig {
            versions: release.versions(),
            transaction_version: level,
            ..BrokerConfig::default()
        });
        let found = answer(&context, 3, sent(ApiKey::ApiVersions, 3, Uuid::nil())).await;
        let Some(ResponseKind::ApiVersions(found)) = found else {
            panic!("not answered");
        };
        let features = found.finalized_features.iter();
        let levels: Vec<_> = features.map(|feature| feature.max_version_level).collect();
        assert_eq!(levels, Vec::from_iter(finalized));
    }
}
