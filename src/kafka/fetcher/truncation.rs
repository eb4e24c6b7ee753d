//! Whether the leader's log still holds the record before a position (KIP-320).
//!
//! A leader that was elected uncleanly may lack records that were read. Its log then ends,
//! for the leader epoch of the position, before the position.

use std::time::Duration;

use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{BrokerId as NodeId, OffsetForLeaderEpochRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::FetchPosition;
use crate::metadata::LeaderAndEpoch;
use crate::{Cluster, ConnectionPurpose, RequestError, TopicPartition};

/// What the leader's log says of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PositionValidation {
    /// It holds the record before it, or cannot tell.
    Valid,
    /// It ends before it.
    Truncated(FetchPosition),
    /// The broker answered with this error code.
    Error(i16),
}

/// Compares `position` with the log of `leader`.
pub(super) async fn validate_position(
    cluster: &Cluster,
    leader: LeaderAndEpoch,
    tp: &TopicPartition,
    position: FetchPosition,
    timeout: Duration,
) -> Result<PositionValidation, RequestError> {
    let end = end_of_epoch(cluster, leader, tp, position.leader_epoch, timeout).await?;
    Ok(match end {
        EndOfEpoch::Unknown => PositionValidation::Valid,
        EndOfEpoch::Error(code) => PositionValidation::Error(code),
        EndOfEpoch::At(end) => compare(position.offset, end.leader_epoch, end.offset),
    })
}

/// What the leader's log says of a leader epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndOfEpoch {
    /// The last epoch up to that one ends there.
    At(FetchPosition),
    /// It has no record of such epochs, or the broker answers no consumers.
    Unknown,
    /// The broker answered with this error code.
    Error(i16),
}

/// Asks `leader` where `epoch` ends in its log.
pub(super) async fn end_of_epoch(
    cluster: &Cluster,
    leader: LeaderAndEpoch,
    tp: &TopicPartition,
    epoch: i32,
    timeout: Duration,
) -> Result<EndOfEpoch, RequestError> {
    let build = |_version| {
        let partition = OffsetForLeaderPartition::default()
            .with_partition(tp.partition)
            .with_current_leader_epoch(leader.epoch)
            .with_leader_epoch(epoch);
        OffsetForLeaderEpochRequest::default()
            .with_replica_id(NodeId(-1))
            .with_topics(vec![
                OffsetForLeaderTopic::default()
                    .with_topic(TopicName(StrBytes::from_string(tp.topic.to_string())))
                    .with_partitions(vec![partition]),
            ])
    };
    let connection = cluster
        .connection(leader.broker, ConnectionPurpose::Control)
        .await?;
    match connection.version::<OffsetForLeaderEpochRequest>() {
        // Before version 3 only brokers may ask.
        Ok(3..) => {}
        Ok(_) | Err(RequestError::UnsupportedVersion { .. }) => return Ok(EndOfEpoch::Unknown),
        Err(error) => return Err(error),
    }
    let (_, response) = connection.call(build, timeout).await?;
    let mut partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
    let found = partitions.find(|partition| partition.partition == tp.partition);
    Ok(match found {
        None => EndOfEpoch::Unknown,
        Some(end) if end.error_code != 0 => EndOfEpoch::Error(end.error_code),
        Some(end) if end.end_offset < 0 => EndOfEpoch::Unknown,
        Some(end) => EndOfEpoch::At(FetchPosition {
            offset: end.end_offset,
            leader_epoch: end.leader_epoch,
        }),
    })
}

/// `end_offset` is where `leader_epoch`, the last one up to that of the position, ends in
/// the leader's log.
fn compare(offset: i64, leader_epoch: i32, end_offset: i64) -> PositionValidation {
    if leader_epoch >= 0 && end_offset < offset {
        PositionValidation::Truncated(FetchPosition {
            offset: end_offset,
            leader_epoch,
        })
    } else {
        PositionValidation::Valid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_ends_before_the_position_was_truncated() {
        assert_eq!(compare(10, 3, 10), PositionValidation::Valid);
        assert_eq!(compare(10, 3, 11), PositionValidation::Valid);
        assert_eq!(
            compare(10, 3, 9),
            PositionValidation::Truncated(FetchPosition {
                offset: 9,
                leader_epoch: 3
            })
        );
        assert_eq!(compare(10, -1, 5), PositionValidation::Valid);
    }
}
