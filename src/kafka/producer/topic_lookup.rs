//! What the cluster says of a topic that the metadata does not list, or not with that partition.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::error::ProduceError;
use crate::metadata::{Metadata, MetadataError, TopicMetadata};
use crate::topic::TopicPartition;

/// Requests a topic's metadata until there is a response: why the topic cannot be written to,
/// or `None` if it exists.
pub(super) async fn look_up(
    metadata: Metadata,
    topic: Arc<str>,
) -> (Arc<str>, Option<ProduceError>) {
    let error = loop {
        match metadata.topic(&topic).await {
            Ok(_) => break None,
            Err(MetadataError::UnknownTopic { topic } | MetadataError::Invalid { topic }) => {
                break Some(ProduceError::UnknownTopic { topic });
            }
            Err(MetadataError::NotAuthorized { topic }) => {
                let what = format!("topic {topic}").into();
                break Some(ProduceError::NotAuthorized { what });
            }
            // It has waited for as long as a request may take.
            Err(MetadataError::Unavailable { .. }) => {}
        }
    };
    (topic, error)
}

/// Learns whether the topic has a partition that the metadata of before `asked_at` does not have:
/// it may have been added since.
///
/// # Errors
/// [`InvalidPartition`](ProduceError::InvalidPartition),
/// [`UnknownTopic`](ProduceError::UnknownTopic), [`NotAuthorized`](ProduceError::NotAuthorized),
/// [`TimedOut`](ProduceError::TimedOut) after `patience`.
pub(super) async fn confirm_partition(
    metadata: &Metadata,
    topic: &TopicMetadata,
    partition: i32,
    asked_at: Instant,
    patience: Duration,
) -> Result<(), ProduceError> {
    let names = [Arc::clone(&topic.name)];
    let ask = async {
        loop {
            let found = metadata
                .topics_refreshed_after(&names, asked_at)
                .await
                .remove(0);
            return Err(match found {
                Ok(topic) => {
                    let partitions = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
                    if (0..partitions).contains(&partition) {
                        return Ok(());
                    }
                    ProduceError::InvalidPartition {
                        topic: Arc::clone(&topic.name),
                        partition,
                        partitions,
                    }
                }
                Err(MetadataError::Unavailable { .. }) => continue,
                Err(MetadataError::NotAuthorized { topic }) => ProduceError::NotAuthorized {
                    what: format!("topic {topic}").into(),
                },
                Err(MetadataError::UnknownTopic { topic } | MetadataError::Invalid { topic }) => {
                    ProduceError::UnknownTopic { topic }
                }
            });
        }
    };
    let answered = timeout(patience, ask).await;
    answered.unwrap_or_else(|_| {
        let partition = TopicPartition::new(Arc::clone(&topic.name), partition);
        Err(ProduceError::TimedOut { partition })
    })
}
