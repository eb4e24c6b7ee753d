//! Whether offsets are committed for the topic that they belong to.
//!
//! ```text
//! stored offset ─▶ its assignment ─▶ topic id ─┐ same id, described after the question? ─▶ commit
//!                        metadata of the name ─┘ another id, or no such topic ──────────▶ refuse
//!                                                no description ────────────────────────▶ retry
//! ```
//!
//! A topic that was deleted and created again has the same name: an offset of the former one,
//! committed for the new one, would skip the new one's records. From version 10 on (Kafka 4.1)
//! OffsetCommit names topics by id, and the broker refuses an id that is gone. Before that it
//! names them by name, and the cluster is asked right before each commit; one Metadata request
//! serves all members that commit at the same time. Brokers before 2.8 give topics no id: they
//! are not asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::error::GroupError;
use super::partition_assignment::PartitionAssignment;
use crate::fetcher::FetchPosition;
use crate::metadata::{Metadata, MetadataError, TopicMetadata};

/// How long a commit waits for the description of its topics, while others of its group and
/// broker wait for their turn.
const DESCRIPTION_TIMEOUT: Duration = Duration::from_secs(2);

/// An offset to commit, as Java's `TopicIdPartition` and `OffsetAndMetadata`.
#[derive(Clone, Debug)]
pub(crate) struct OffsetToCommit {
    pub(crate) assignment: PartitionAssignment,
    /// Everything before is processed.
    pub(crate) next: FetchPosition,
    /// Of the topic whose records were processed; nil if it is unknown.
    pub(crate) topic_id: Uuid,
}

/// Offsets, after their topics were looked at.
#[derive(Debug, Default)]
pub(crate) struct IdentifiedOffsets {
    /// To be committed by name.
    pub(crate) current: Vec<OffsetToCommit>,
    /// Not to be committed, with the error code for each.
    pub(crate) rejected: Vec<(PartitionAssignment, i16)>,
}

/// Asks the cluster which topics have these names now.
pub(crate) async fn identify(
    metadata: &Metadata,
    offsets: Vec<OffsetToCommit>,
) -> Result<IdentifiedOffsets, GroupError> {
    let asked_at = Instant::now();
    let with_id = offsets.iter().filter(|offset| !offset.topic_id.is_nil());
    let mut names: Vec<_> = with_id
        .map(|offset| Arc::clone(&offset.assignment.tp.topic))
        .collect();
    names.dedup();
    if names.is_empty() {
        return Ok(IdentifiedOffsets {
            current: offsets,
            rejected: Vec::new(),
        });
    }
    let described = metadata.topics_refreshed_after(&names, asked_at);
    let Ok(topics) = timeout(DESCRIPTION_TIMEOUT, described).await else {
        let reason = "the topics to commit for are not described in time";
        return Err(GroupError::MetadataUnavailable(reason.into()));
    };
    let topics = names.into_iter().zip(topics).collect();
    compare(offsets, &topics)
}

type DescribedTopics = HashMap<Arc<str>, Result<Arc<TopicMetadata>, MetadataError>>;

fn compare(
    offsets: Vec<OffsetToCommit>,
    topics: &DescribedTopics,
) -> Result<IdentifiedOffsets, GroupError> {
    let mut identified = IdentifiedOffsets::default();
    for offset in offsets {
        let error = match topics.get(&offset.assignment.tp.topic) {
            Some(Ok(topic)) if !topic.id.is_nil() && topic.id != offset.topic_id => {
                ResponseError::InconsistentTopicId
            }
            Some(Err(MetadataError::UnknownTopic { .. } | MetadataError::Invalid { .. })) => {
                ResponseError::UnknownTopicOrPartition
            }
            Some(Err(MetadataError::Unavailable { reason })) => {
                return Err(GroupError::MetadataUnavailable(Arc::clone(reason)));
            }
            // The coordinator says whether this principal may commit.
            Some(Ok(_) | Err(MetadataError::NotAuthorized { .. })) | None => {
                identified.current.push(offset);
                continue;
            }
        };
        let rejected = (offset.assignment, error.code());
        identified.rejected.push(rejected);
    }
    Ok(identified)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TopicPartition;
    use crate::fake::{metadata_response, topic_metadata};
    use crate::metadata::ClusterSnapshot;

    fn offset(topic: &str, id: u128) -> OffsetToCommit {
        OffsetToCommit {
            assignment: PartitionAssignment {
                tp: TopicPartition::new(topic, 0),
                number: 1,
            },
            next: FetchPosition {
                offset: 5,
                leader_epoch: 0,
            },
            topic_id: Uuid::from_u128(id),
        }
    }

    fn described(
        name: &'static str,
        id: u128,
    ) -> (Arc<str>, Result<Arc<TopicMetadata>, MetadataError>) {
        let response = metadata_response(&[], vec![topic_metadata(name, id, &[(1, 1)])]);
        let (snapshot, _) = ClusterSnapshot::default().merge_with(&response);
        let topic = Arc::clone(snapshot.topic(name).unwrap());
        (name.into(), Ok(topic))
    }

    #[test]
    fn an_offset_is_committed_only_for_the_topic_that_it_belongs_to() {
        let unknown = MetadataError::UnknownTopic {
            topic: "gone".into(),
        };
        let topics = [
            described("same", 1),
            described("recreated", 2),
            described("no-id", 0),
            ("gone".into(), Err(unknown)),
        ];
        let topics = topics.into_iter().collect();
        let offsets = [("same", 1), ("recreated", 1), ("no-id", 1), ("gone", 1)];
        let offsets = offsets.map(|(topic, id)| offset(topic, id)).into();
        let identified = compare(offsets, &topics).unwrap();
        let current = identified.current.iter();
        let current: Vec<_> = current.map(|of| &*of.assignment.tp.topic).collect();
        assert_eq!(current, ["same", "no-id"]);
        let rejected = identified.rejected.iter();
        let rejected: Vec<_> = rejected.map(|(of, code)| (&*of.tp.topic, *code)).collect();
        assert_eq!(rejected, [("recreated", 103), ("gone", 3)]);
    }

    #[test]
    fn nothing_is_committed_while_no_broker_describes_the_topics() {
        let reason: Arc<str> = "away".into();
        let unavailable = MetadataError::Unavailable { reason };
        let topics = [described("same", 1), ("t".into(), Err(unavailable))];
        let offsets = vec![offset("same", 1), offset("t", 1)];
        let error = compare(offsets, &topics.into_iter().collect()).unwrap_err();
        assert!(
            matches!(error, GroupError::MetadataUnavailable(_)),
            "{error:?}"
        );
    }
}
