//! The topic of a log: found, or created as configured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kafka_client::Cluster;
use kafka_client::admin::{self, AdminError};
use kafka_client::metadata::{MetadataError, TopicMetadata};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::trouble::LogTrouble;
use crate::config::StateTopicConfig;

/// How long what is written stays as it is: a node that reads the log while it is compacted sees
/// the same as those that read before it.
const COMPACTION_LAG: Duration = Duration::from_secs(600);
/// From when on a part of the log is compacted, so that a start reads little.
const SEGMENT_AGE: Duration = Duration::from_secs(3_600);

/// What a topic is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StateTopicKind {
    /// What messages call it.
    pub(crate) noun: &'static str,
    /// The key of its replication factor.
    pub(crate) replication_key: &'static str,
    /// Whether one is refused that has more than one partition, or is not compacted. Otherwise it
    /// is used as it is, with a warning.
    pub(crate) is_strict: bool,
}

/// Finds the topic, or creates it.
#[derive(Debug)]
pub(super) struct StateTopic {
    cluster: Cluster,
    kind: StateTopicKind,
    config: StateTopicConfig,
    warned_of_partitions: AtomicBool,
    /// Whether it was asked how an existing topic is cleaned up.
    checked_cleanup: AtomicBool,
}

impl StateTopic {
    pub(super) fn new(cluster: Cluster, kind: StateTopicKind, config: StateTopicConfig) -> Self {
        Self {
            cluster,
            kind,
            config,
            warned_of_partitions: AtomicBool::new(false),
            checked_cleanup: AtomicBool::new(false),
        }
    }

    /// The topic, as it is now.
    pub(super) async fn find_or_create(&self) -> Result<Arc<TopicMetadata>, LogTrouble> {
        let found = match self.find().await {
            Err(MetadataError::UnknownTopic { .. }) => {
                self.create().await?;
                let name = self.config.name.as_str().into();
                self.cluster.metadata().created_topic(&name).await
            }
            Ok(topic) => {
                self.check_partitions(topic.partitions.len())?;
                self.check_cleanup().await?;
                Ok(topic)
            }
            Err(error) => Err(error),
        };
        found.map_err(|error| {
            let what = match &error {
                MetadataError::NotAuthorized { .. } => "it may not be described",
                MetadataError::Invalid { .. } => "that is no name of a topic",
                MetadataError::UnknownTopic { .. } => "it does not exist",
                MetadataError::Unavailable { .. } => "no broker describes it",
            };
            LogTrouble::new(what, error.to_string())
        })
    }

    async fn find(&self) -> Result<Arc<TopicMetadata>, MetadataError> {
        let names = [Arc::from(self.config.name.as_str())];
        let metadata = self.cluster.metadata();
        let mut found = metadata
            .topics_refreshed_after(&names, Instant::now())
            .await;
        found.remove(0)
    }

    /// Tells once when a topic that was there before has more than one partition.
    fn check_partitions(&self, partitions: usize) -> Result<(), LogTrouble> {
        if partitions > 1 && self.kind.is_strict {
            let detail = format!("it has {partitions}, and their records no common order");
            return Err(LogTrouble::new("it has more than one partition", detail));
        }
        if partitions > 1 && !self.warned_of_partitions.swap(true, Ordering::Relaxed) {
            let (topic, noun) = (&self.config.name, self.kind.noun);
            warn!(
                topic,
                partitions, "the {noun} has more than one partition: only the first is used"
            );
        }
        Ok(())
    }

    /// Tells once when a topic that was there before is not compacted: it grows, and every start
    /// reads all of it, or it forgets. Not knowing that stops nothing.
    async fn check_cleanup(&self) -> Result<(), LogTrouble> {
        if self.checked_cleanup.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (topic, noun) = (&self.config.name, self.kind.noun);
        let policy = admin::topic_setting(&self.cluster, topic, "cleanup.policy").await;
        match policy {
            Ok(Some(policy)) if !policy.split(',').any(|part| part.trim() == "compact") => {
                let mend = format!(
                    "kafka-configs --alter --topic {topic} --add-config 'cleanup.policy=[{}]' \
                     mends that",
                    self.cleanup_policy()
                );
                if self.kind.is_strict {
                    let detail = format!("its cleanup.policy is {policy}; {mend}");
                    return Err(LogTrouble::new("it is not compacted", detail));
                }
                warn!(
                    topic,
                    "cleanup.policy" = policy,
                    "the {noun} is not compacted: it grows, and a start reads all of it; {mend}"
                );
            }
            Ok(_) => {}
            Err(error) => {
                debug!(topic, %error, "cleanup.policy of the {noun} is not known");
                return Ok(());
            }
        }
        self.checked_cleanup.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Creates it, with fewer replicas than configured if there are fewer brokers.
    async fn create(&self) -> Result<(), LogTrouble> {
        let (topic, noun) = (&self.config.name, self.kind.noun);
        let mut replication = self.config.replication_factor;
        let mut settings = self.settings();
        loop {
            let created =
                admin::create_topic_with(&self.cluster, topic, 1, replication, &settings).await;
            let error = match created {
                Ok(()) => {
                    info!(topic, replication, "the {noun} was created");
                    return Ok(());
                }
                Err(error) if error.already_exists() => return Ok(()),
                Err(error) => error,
            };
            let brokers = self.cluster.metadata().snapshot().brokers.len();
            let brokers = i16::try_from(brokers).unwrap_or(i16::MAX);
            if error.is_invalid_replication_factor() && replication > 1 {
                let fewer = brokers.clamp(1, replication - 1);
                warn!(
                    topic,
                    configured = self.config.replication_factor,
                    replication = fewer,
                    "there are fewer brokers than {}: the {noun} is kept on those that there are",
                    self.kind.replication_key
                );
                replication = fewer;
            } else if error.is_invalid_config() && settings.len() > 1 {
                warn!(topic, %error, "the {noun} is created with compaction alone");
                settings.truncate(1);
            } else {
                return Err(creation_trouble(&error));
            }
        }
    }

    /// The topic's settings; the first one is what it cannot do without.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let millis = |duration: Duration| duration.as_millis().to_string();
        let mut settings = vec![
            ("cleanup.policy", self.cleanup_policy().to_owned()),
            ("min.compaction.lag.ms", millis(COMPACTION_LAG)),
        ];
        let retention = self.config.retention;
        if retention.is_zero() {
            settings.push(("segment.ms", millis(SEGMENT_AGE)));
        } else {
            settings.push(("retention.ms", millis(retention)));
            settings.push(("segment.ms", millis(SEGMENT_AGE.min(retention))));
        }
        settings
    }

    fn cleanup_policy(&self) -> &'static str {
        match self.config.retention.is_zero() {
            true => "compact",
            false => "compact,delete",
        }
    }
}

fn creation_trouble(error: &AdminError) -> LogTrouble {
    LogTrouble::new("it cannot be created", error.to_string())
}
