//! Whether the leader's log still holds what a position came from (KIP-320).
//!
//! A leader that was elected uncleanly may have lost records that were read. Its log then
//! ends, for the epoch of the position, before the position.

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
pub(super) enum Verdict {
    /// It holds it, or cannot tell.
    Same,
    /// It ends before it.
    Truncated(FetchPosition),
    /// This error code instead of an answer.
    Refused(i16),
}

/// Compares `position` with the log of `leader`.
pub(super) async fn check(
    cluster: &Cluster,
    leader: LeaderAndEpoch,
    tp: &TopicPartition,
    position: FetchPosition,
    timeout: Duration,
) -> Result<Verdict, RequestError> {
    let build = |_version| {
        let partition = OffsetForLeaderPartition::default()
            .with_partition(tp.partition)
            .with_current_leader_epoch(leader.epoch)
            .with_leader_epoch(position.leader_epoch);
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
        Ok(_) | Err(RequestError::Unsupported { .. }) => return Ok(Verdict::Same),
        Err(error) => return Err(error),
    }
    let (_, response) = connection.call(build, timeout).await?;
    let answer = response
        .topics
        .iter()
        .flat_map(|topic| &topic.partitions)
        .find(|partition| partition.partition == tp.partition);
    Ok(match answer {
        None => Verdict::Same,
        Some(answer) if answer.error_code != 0 => Verdict::Refused(answer.error_code),
        Some(answer) => judge(position.offset, answer.leader_epoch, answer.end_offset),
    })
}

/// `end_offset` is where `leader_epoch`, the last one up to that of the position, ends in
/// the leader's log; −1 when it has no record of epochs.
fn judge(offset: i64, leader_epoch: i32, end_offset: i64) -> Verdict {
    if end_offset >= 0 && leader_epoch >= 0 && end_offset < offset {
        Verdict::Truncated(FetchPosition {
            offset: end_offset,
            leader_epoch,
        })
    } else {
        Verdict::Same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_ends_before_the_position_was_truncated() {
        assert_eq!(judge(10, 3, 10), Verdict::Same);
        assert_eq!(judge(10, 3, 11), Verdict::Same);
        assert_eq!(
            judge(10, 3, 9),
            Verdict::Truncated(FetchPosition {
                offset: 9,
                leader_epoch: 3
            })
        );
        assert_eq!(judge(10, -1, -1), Verdict::Same);
    }
}
