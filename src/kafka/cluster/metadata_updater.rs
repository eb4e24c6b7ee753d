//! The task that asks the cluster for its metadata (Java's `MetadataUpdater`).

use std::sync::Arc;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::time::{Instant, sleep_until};

use super::any_broker::AnyBroker;
use crate::backoff::ExponentialBackoff;
use crate::config::ClientConfig;
use crate::error::RequestError;
use crate::metadata::{Metadata, PARTIAL_UPDATE_BURST, PARTIAL_UPDATE_INTERVAL};

/// Keeps a cluster's metadata up to date.
pub(super) struct MetadataUpdater {
    config: Arc<ClientConfig>,
    metadata: Metadata,
    any_broker: Arc<AnyBroker>,
    backoff: ExponentialBackoff,
    /// Since when no broker has answered.
    failing_since: Option<Instant>,
}

impl MetadataUpdater {
    pub(super) fn new(
        config: Arc<ClientConfig>,
        metadata: Metadata,
        any_broker: Arc<AnyBroker>,
    ) -> Self {
        Self {
            backoff: ExponentialBackoff::new(config.retry_backoff, config.retry_backoff_max),
            failing_since: None,
            config,
            metadata,
            any_broker,
        }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let max_age = self.config.metadata_max_age;
        // When a full update may begin, and when one is due.
        let (mut full_from, mut full_due) = (Instant::now(), Instant::now() + max_age);
        let mut rate = PartialUpdateRate::new(Instant::now());
        loop {
            rate.asked(Instant::now());
            let update = self.metadata.begin_update(Instant::now() >= full_from);
            let next_at = match self.send_request(&update.topics).await {
                Ok(response) => {
                    self.succeeded();
                    self.metadata.complete_update(&update, &response);
                    // After the metadata: a connection to the new cluster is never older than
                    // what is known of it.
                    self.any_broker.follow_cluster();
                    if update.is_full {
                        // However many request updates, and however often.
                        full_from = Instant::now() + self.config.retry_backoff;
                        full_due = Instant::now() + max_age;
                    }
                    rate.next_at()
                }
                Err(error) => {
                    self.log_failure(&error);
                    self.metadata.fail_update(&update, &error.to_string());
                    Instant::now() + self.backoff.after_failure()
                }
            };
            if next_at > Instant::now() {
                sleep_until(next_at).await;
            }
            tokio::select! {
                () = self.metadata.update_requested(full_from) => {}
                () = sleep_until(full_due) => {
                    self.metadata.request_update();
                }
                // Its partitions may have moved.
                () = self.any_broker.connection_lost() => {
                    self.metadata.request_update();
                    self.metadata.update_requested(full_from).await;
                }
            }
        }
    }

    async fn send_request(&self, topics: &[Arc<str>]) -> Result<MetadataResponse, RequestError> {
        let build = |_version| metadata_request(topics);
        // A broker that hangs must not keep what others know from us for that long.
        let timeout = self.config.request_timeout / 3;
        self.any_broker.metadata(build, timeout).await
    }

    fn succeeded(&mut self) {
        if let Some(since) = self.failing_since.take() {
            let seconds = since.elapsed().as_secs_f64();
            tracing::info!(seconds, "the cluster answers again");
            self.backoff.succeeded();
        }
    }

    fn log_failure(&mut self, error: &RequestError) {
        if self.failing_since.is_none() {
            self.failing_since = Some(Instant::now());
            tracing::warn!(%error, "the cluster does not answer; retrying");
        } else {
            tracing::debug!(%error, "the cluster does not answer");
        }
    }
}

/// When the next partial update may begin: one in [`PARTIAL_UPDATE_INTERVAL`] on average, and
/// [`PARTIAL_UPDATE_BURST`] at once.
struct PartialUpdateRate {
    /// When as many as that may be sent again.
    full_at: Instant,
}

impl PartialUpdateRate {
    fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    fn asked(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + PARTIAL_UPDATE_INTERVAL;
    }

    fn next_at(&self) -> Instant {
        let burst = PARTIAL_UPDATE_INTERVAL * (PARTIAL_UPDATE_BURST - 1);
        self.full_at.checked_sub(burst).unwrap_or(self.full_at)
    }
}

fn metadata_request(topics: &[Arc<str>]) -> MetadataRequest {
    let topics = topics
        .iter()
        .map(|name| {
            let name = TopicName(StrBytes::from_string(name.to_string()));
            MetadataRequestTopic::default().with_name(Some(name))
        })
        .collect();
    MetadataRequest::default()
        .with_topics(Some(topics))
        .with_allow_auto_topic_creation(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_partial_updates_begins_at_once_and_then_one_in_an_interval() {
        let now = Instant::now() + PARTIAL_UPDATE_INTERVAL * PARTIAL_UPDATE_BURST;
        let mut rate = PartialUpdateRate::new(now);
        for _ in 1..PARTIAL_UPDATE_BURST {
            rate.asked(now);
            assert!(rate.next_at() <= now);
        }
        rate.asked(now);
        assert_eq!(rate.next_at(), now + PARTIAL_UPDATE_INTERVAL);
        rate.asked(now + PARTIAL_UPDATE_INTERVAL);
        assert_eq!(rate.next_at(), now + PARTIAL_UPDATE_INTERVAL * 2);
        // After a rest the whole burst is there again.
        rate.asked(now + PARTIAL_UPDATE_INTERVAL * PARTIAL_UPDATE_BURST * 2);
        assert!(rate.next_at() <= now + PARTIAL_UPDATE_INTERVAL * (PARTIAL_UPDATE_BURST + 2));
    }
}
