//! Where a log begins and ends, by time or by epoch: ListOffsets, OffsetForLeaderEpoch,
//! and DeleteRecords, which moves the beginning.

use std::collections::HashSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, ListOffsetsRequest, ListOffsetsResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};

use super::super::context::{ClusterData, RequestContext};
use super::super::log::TimestampAndOffset;

/// Offsets of the first, the last, the latest, or the first record at a time. As in Kafka
/// a partition must not be asked for twice.
pub(super) fn list_offsets(
    context: &RequestContext,
    version: i16,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let committed = request.isolation_level == 1;
    let mut unpack = UNPACKED_MAX;
    let mut seen = HashSet::new();
    let mut cluster = context.shared.lock();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let response = ListOffsetsPartitionResponse::default()
                .with_partition_index(wanted.partition_index);
            let found = if seen.insert((topic.name.clone(), wanted.partition_index)) {
                let node = context.node;
                find(
                    &mut cluster,
                    node,
                    &topic.name,
                    wanted,
                    committed,
                    &mut unpack,
                )
            } else {
                Err(ResponseError::InvalidRequest)
            };
            match found {
                Ok(Some(found)) => {
                    let response = response
                        .with_offset(found.offset)
                        .with_timestamp(found.timestamp);
                    if version >= 4 {
                        response.with_leader_epoch(found.epoch)
                    } else {
                        response
                    }
                }
                Ok(None) => response,
                Err(error) => response.with_error_code(error.code()),
            }
        });
        ListOffsetsTopicResponse::default()
            .with_partitions(partitions.collect())
            .with_name(topic.name)
    });
    let topics = topics.collect();
    ListOffsetsResponse::default().with_topics(topics)
}

fn find(
    cluster: &mut ClusterData,
    node: i32,
    topic: &str,
    wanted: &ListOffsetsPartition,
    committed: bool,
    unpack: &mut usize,
) -> Result<Option<TimestampAndOffset>, ResponseError> {
    let partition = cluster.state.led_by(node, topic, wanted.partition_index)?;
    partition.check_leader_epoch(wanted.current_leader_epoch)?;
    let log = &partition.log;
    let end = if committed {
        log.last_stable()
    } else {
        log.end()
    };
    let at = |offset: i64, epoch| TimestampAndOffset {
        offset,
        timestamp: -1,
        epoch,
    };
    Ok(match wanted.timestamp {
        LATEST => Some(at(end, partition.epoch)),
        EARLIEST | EARLIEST_LOCAL => Some(at(log.start(), log.epoch_at(log.start()))),
        MAX_TIMESTAMP => log.latest_time(unpack),
        LATEST_TIERED => None,
        time if time >= 0 => log.at_time(time, end, unpack),
        _ => return Err(ResponseError::UnsupportedVersion),
    })
}

/// Where leader epochs ended.
pub(super) fn offset_for_leader_epoch(
    context: &RequestContext,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let mut cluster = context.shared.lock();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let response = EpochEndOffset::default().with_partition(wanted.partition);
            match end_of_epoch(&mut cluster, context.node, &topic.topic, wanted) {
                Ok((epoch, end)) => response.with_leader_epoch(epoch).with_end_offset(end),
                Err(error) => response.with_error_code(error.code()),
            }
        });
        OffsetForLeaderTopicResult::default()
            .with_partitions(partitions.collect())
            .with_topic(topic.topic)
    });
    let topics = topics.collect();
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}

fn end_of_epoch(
    cluster: &mut ClusterData,
    node: i32,
    topic: &str,
    wanted: &OffsetForLeaderPartition,
) -> Result<(i32, i64), ResponseError> {
    let partition = cluster.state.led_by(node, topic, wanted.partition)?;
    partition.check_leader_epoch(wanted.current_leader_epoch)?;
    Ok(partition
        .log
        .end_of_epoch(wanted.leader_epoch)
        .unwrap_or((-1, -1)))
}

/// Drops records below an offset; -1 means all.
pub(super) fn delete_records(
    context: &RequestContext,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let mut cluster = context.shared.lock();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let response = DeleteRecordsPartitionResult::default()
                .with_partition_index(wanted.partition_index)
                .with_low_watermark(-1);
            let index = wanted.partition_index;
            match delete_before(
                &mut cluster,
                context.node,
                &topic.name,
                index,
                wanted.offset,
            ) {
                Ok(start) => response.with_low_watermark(start),
                Err(error) => response.with_error_code(error.code()),
            }
        });
        DeleteRecordsTopicResult::default()
            .with_partitions(partitions.collect())
            .with_name(topic.name)
    });
    let topics = topics.collect();
    DeleteRecordsResponse::default().with_topics(topics)
}

fn delete_before(
    cluster: &mut ClusterData,
    node: i32,
    topic: &str,
    index: i32,
    offset: i64,
) -> Result<i64, ResponseError> {
    let end = cluster.state.led_by(node, topic, index)?.log.end();
    let offset = if offset == -1 { end } else { offset };
    if !(0..=end).contains(&offset) {
        return Err(ResponseError::OffsetOutOfRange);
    }
    let start = cluster.state.change_log(topic, index, |partition, _| {
        partition.log.delete_before(offset);
        partition.log.start()
    });
    start.ok_or(ResponseError::UnknownTopicOrPartition)
}

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
/// Bytes that are decompressed for one request; then a record is found by its batch.
const UNPACKED_MAX: usize = 256 << 20;
