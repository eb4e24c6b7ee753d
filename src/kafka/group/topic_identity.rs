//! Whether offsets are committed for the topic that they belong to.
//!
//! ```text
//! stored offset ─▶ its assignment ─▶ its topic ─┐ the same, described after the question? ─▶ commit
//!                        metadata of the name ──┘ another one, or none ────────────────────▶ refuse
//!                                                 no description ──────────────────────────▶ hold
//! ```
//!
//! A topic that was deleted and created again has the same name: an offset of the former one,
//! committed for the new one, would skip the new one's records. From version 10 on (Kafka 4.1)
//! OffsetCommit names topics by id, and the broker refuses an id that is gone. Before that it
//! names them by name, and the cluster is asked before each commit and after it; one Metadata
//! request serves all members that commit at the same time.
//!
//! Brokers before 2.8 give topics no id. What tells topics of one name apart there, see
//! `metadata::topics`; besides, no offset is committed beyond the end of its log. A topic is taken
//! for the former one if its deletion was seen in no response, its partitions have the leaders of
//! the former one in epoch 0, and its log is as long.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use tokio::time::Instant;

use super::partition_assignment::PartitionAssignment;
use crate::TopicIdentity;
use crate::fetcher::FetchPosition;
use crate::metadata::{Metadata, MetadataError, TopicMetadata};

/// How long a commit waits for the description of its topics.
const DESCRIPTION_TIMEOUT: Duration = Duration::from_secs(2);

/// An offset to commit, as Java's `TopicIdPartition` and `OffsetAndMetadata`.
#[derive(Clone, Debug)]
pub(crate) struct OffsetToCommit {
    pub(crate) assignment: PartitionAssignment,
    /// Everything before is processed.
    pub(crate) next: FetchPosition,
    /// The topic whose records were processed.
    pub(crate) topic: TopicIdentity,
    /// Whether an earlier offset of this assignment was sent by name, and may have been committed
    /// for another topic.
    pub(crate) is_unconfirmed: bool,
}

/// The topics of a commit, as the cluster describes them.
#[derive(Debug)]
pub(crate) struct DescribedTopics(HashMap<Arc<str>, Result<Arc<TopicMetadata>, MetadataError>>);

impl DescribedTopics {
    /// Asks the cluster which topics have these names now.
    pub(crate) async fn ask(metadata: &Metadata, names: Vec<Arc<str>>) -> Self {
        let asked_at = Instant::now();
        let topics = metadata.topics_in_next_response(&names, asked_at, DESCRIPTION_TIMEOUT);
        let topics = topics.await;
        Self(names.into_iter().zip(topics).collect())
    }

    /// Whether the cluster was asked about that topic.
    pub(crate) fn contains(&self, topic: &str) -> bool {
        self.0.contains_key(topic)
    }

    /// Whether an offset may be committed by name.
    ///
    /// # Errors
    /// `InconsistentTopicId`: it is not for the topic that has the name now.
    /// `UnknownTopicOrPartition`: no topic has it. `LeaderNotAvailable`: it is not known which.
    pub(crate) fn check(&self, offset: &OffsetToCommit) -> Result<(), ResponseError> {
        match self.0.get(&offset.assignment.tp.topic) {
            Some(Ok(topic)) if topic.identity().differs_from(offset.topic) => {
                Err(ResponseError::InconsistentTopicId)
            }
            Some(Err(MetadataError::UnknownTopic { .. } | MetadataError::Invalid { .. })) => {
                Err(ResponseError::UnknownTopicOrPartition)
            }
            Some(Err(MetadataError::Unavailable { .. })) | None => {
                Err(ResponseError::LeaderNotAvailable)
            }
            // The coordinator says whether this principal may commit.
            Some(Ok(_) | Err(MetadataError::NotAuthorized { .. })) => Ok(()),
        }
    }

    /// Whether its id is given, so that no other evidence is needed.
    pub(crate) fn has_id(&self, topic: &str) -> bool {
        let topic = self.0.get(topic);
        topic.is_some_and(|topic| topic.as_ref().is_ok_and(|topic| !topic.id.is_nil()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TopicPartition;
    use crate::fake::{metadata_response, topic_metadata};
    use crate::metadata::ClusterSnapshot;

    fn described(name: &'static str, id: u128) -> Arc<TopicMetadata> {
        let response = metadata_response(&[], vec![topic_metadata(name, id, &[(1, 1)])]);
        let (snapshot, _) = ClusterSnapshot::default().merge_with(&response);
        Arc::clone(snapshot.topic(name).unwrap())
    }

    #[test]
    fn an_offset_is_committed_only_for_the_topic_that_it_belongs_to() {
        let topic: Arc<str> = "t".into();
        let unknown = MetadataError::UnknownTopic {
            topic: Arc::clone(&topic),
        };
        let unauthorized = MetadataError::NotAuthorized {
            topic: Arc::clone(&topic),
        };
        let reason: Arc<str> = "away".into();
        let topics = [
            ("same", Ok(described("same", 1))),
            ("recreated", Ok(described("recreated", 2))),
            ("no-id", Ok(described("no-id", 0))),
            ("gone", Err(unknown)),
            ("hidden", Err(unauthorized)),
            ("in-doubt", Err(MetadataError::Unavailable { reason })),
        ];
        let topics = topics.map(|(name, topic)| (name.into(), topic));
        let topics = DescribedTopics(topics.into_iter().collect());
        let check = |topic: &str| {
            topics.check(&OffsetToCommit {
                assignment: PartitionAssignment {
                    tp: TopicPartition::new(topic, 0),
                    number: 1,
                },
                next: FetchPosition {
                    offset: 5,
                    leader_epoch: 0,
                },
                topic: described("same", 1).identity(),
                is_unconfirmed: false,
            })
        };
        assert_eq!(check("same"), Ok(()));
        assert_eq!(check("recreated"), Err(ResponseError::InconsistentTopicId));
        assert_eq!(check("no-id"), Ok(()));
        assert_eq!(check("gone"), Err(ResponseError::UnknownTopicOrPartition));
        assert_eq!(check("hidden"), Ok(()));
        assert_eq!(check("in-doubt"), Err(ResponseError::LeaderNotAvailable));
        assert_eq!(check("not-asked"), Err(ResponseError::LeaderNotAvailable));
    }
}
