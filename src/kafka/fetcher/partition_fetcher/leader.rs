//! Where the partition is led, as the metadata says.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use runtime::mutex::lock;
use tokio::time::{Instant, timeout_at};

use super::super::error::{FetchError, RetryReason};
use super::{LeaderAfterFailure, PartitionFetcher};
use crate::metadata::{LeaderAndEpoch, MetadataError};

impl PartitionFetcher {
    /// Drops the leader when the metadata names another one by now, or is about another topic of
    /// that name, which the same broker may lead in the same epoch.
    pub(super) fn drop_stale_leader(&mut self) {
        let metadata = self.shared.cluster.metadata();
        let (tp, topic) = (&self.partition.tp, self.partition.topic());
        if self.leader.is_some()
            && (self.known_leader() != self.leader || metadata.is_replaced(&tp.topic, topic))
        {
            self.leader = None;
        }
    }

    /// Ends a pause when the metadata names another leader than the one that failed.
    pub(super) fn resume_on_new_leader(&mut self) {
        let leader = self.known_leader();
        if leader.is_some() && leader != self.failed_leader {
            self.paused_until = None;
        }
    }

    fn known_leader(&self) -> Option<LeaderAndEpoch> {
        self.shared
            .cluster
            .metadata()
            .current_leader(&self.partition.tp)
    }

    pub(super) async fn find_leader(&mut self) {
        let metadata = self.shared.cluster.metadata();
        let tp = &self.partition.tp;
        // Cursors come and go meanwhile; those that are left are served afterwards.
        let deadline = Instant::now() + FIND_LEADER_TIMEOUT;
        let found = timeout_at(deadline, metadata.topic(&tp.topic)).await;
        let topic = match found {
            Ok(Ok(topic)) => topic,
            Ok(Err(MetadataError::UnknownTopic { .. } | MetadataError::Invalid { .. })) => {
                return self.topic_is_unknown();
            }
            Ok(Err(MetadataError::NotAuthorized { topic })) => {
                return self.fail_all(&FetchError::NotAuthorized { topic });
            }
            Ok(Err(error)) => {
                let reason = RetryReason::Other(error.to_string().into());
                return self.pause(&reason, LeaderAfterFailure::Keep);
            }
            Err(_) => {
                let reason = RetryReason::Other("no metadata".into());
                return self.pause(&reason, LeaderAfterFailure::Keep);
            }
        };
        let first = self.partition.topic.get_or_init(|| topic.identity());
        if topic.identity().differs_from(*first) {
            return self.topic_is_gone();
        }
        if tp.partition as usize >= topic.partitions.len() {
            return self.topic_is_unknown();
        }
        self.unknown_since = None;
        match topic.leader(tp.partition) {
            Some(leader) => {
                self.leader = Some(leader);
                lock(&self.partition.fetch_state).set_leader_epoch(leader.epoch);
            }
            None => self.pause(
                &ResponseError::LeaderNotAvailable.into(),
                LeaderAfterFailure::LookUp,
            ),
        }
    }

    /// A broker that has just started may not know the topic yet.
    fn topic_is_unknown(&mut self) {
        let since = *self.unknown_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= TOPIC_UNKNOWN_TIMEOUT {
            self.topic_is_gone();
        } else {
            self.pause(
                &ResponseError::UnknownTopicOrPartition.into(),
                LeaderAfterFailure::LookUp,
            );
        }
    }

    fn topic_is_gone(&mut self) {
        self.shared.forget(&self.partition);
        let topic = Arc::clone(&self.partition.tp.topic);
        tracing::info!(%topic, "the topic is gone");
        self.partition.close(FetchError::UnknownTopic { topic });
    }
}

/// How long the task waits for metadata before it does other work.
const FIND_LEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a topic must be unknown to be gone: brokers that start know few topics.
const TOPIC_UNKNOWN_TIMEOUT: Duration = Duration::from_secs(3);
