//! The task that asks the cluster for its metadata (Java's `MetadataUpdater`), and so learns
//! whether it answers.
//!
//! ```text
//! requested, or too old ─▶ update ─┬─ answered ─▶ Metadata
//! nothing answered for 2 s ─▶ probe ┘  │
//!                                      ├─ silence for 2.5 s ─▶ outage, until something is answered
//!                                      └─ failed ─▶ outage, next update after a backoff
//! ```

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::time::{Instant, sleep_until};

use super::any_broker::AnyBroker;
use crate::backoff::ExponentialBackoff;
use crate::config::ClientConfig;
use crate::error::RequestError;
use crate::metadata::{Metadata, MetadataUpdate, PARTIAL_UPDATE_BURST, PARTIAL_UPDATE_INTERVAL};
use crate::principal::Principal;

/// When nothing has been asked and answered for so long, the brokers are asked whether they
/// are there.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// The same on behalf of a user, of whom there may be many: that all brokers are away, the proxy's
/// own client knows.
const USER_PROBE_INTERVAL: Duration = Duration::from_secs(30);
/// How long a broker may take for a probe, and the first wait when an attempt has failed.
const PROBE_TIMEOUT: Duration = Duration::from_millis(1_900);
/// When no broker has answered anything for so long after a request, none is expected to: two
/// may hang before a third one is asked.
const SUSPECT_AFTER: Duration = Duration::from_millis(2_500);

/// Keeps a cluster's metadata up to date.
pub(super) struct MetadataUpdater {
    config: Arc<ClientConfig>,
    metadata: Metadata,
    any_broker: Arc<AnyBroker>,
    principal: Principal,
    backoff: ExponentialBackoff,
    /// Since when no broker has answered.
    failing_since: Option<Instant>,
}

impl MetadataUpdater {
    pub(super) fn new(
        config: Arc<ClientConfig>,
        metadata: Metadata,
        any_broker: Arc<AnyBroker>,
        principal: Principal,
    ) -> Self {
        Self {
            principal,
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
        let probe_interval = match self.principal {
            Principal::Proxy => PROBE_INTERVAL,
            Principal::User(_) => USER_PROBE_INTERVAL,
        };
        // When a full update may begin, and when one is due.
        let (mut full_from, mut full_due) = (Instant::now(), Instant::now() + max_age);
        let mut rate = PartialUpdateRate::new(Instant::now());
        let mut is_probe = false;
        loop {
            rate.asked(Instant::now());
            let may_be_full = Instant::now() >= full_from;
            let update = match is_probe {
                true => self.metadata.begin_probe(may_be_full),
                false => self.metadata.begin_update(may_be_full),
            };
            let next_at = match self.send_request(&update).await {
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
            is_probe = false;
            tokio::select! {
                () = self.metadata.update_requested(full_from) => {}
                () = self.any_broker.silence(update.begun_at, probe_interval) => is_probe = true,
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

    async fn send_request(
        &mut self,
        update: &MetadataUpdate,
    ) -> Result<MetadataResponse, RequestError> {
        let any_broker = Arc::clone(&self.any_broker);
        // What the proxy itself may do, it finds out by doing it.
        let with_rights = self.principal.user().is_some();
        let build = |version| metadata_request(version, &update.topics, with_rights);
        let response = any_broker.metadata(build, self.timeout(update));
        tokio::pin!(response);
        // A broker that hangs is not waited for to know that it does.
        tokio::select! {
            biased;
            response = response.as_mut() => return response,
            () = any_broker.silence(update.begun_at, SUSPECT_AFTER) => {}
        }
        if self.metadata.suspect_outage("no broker answers") && self.failing_since.is_none() {
            self.failing_since = Some(Instant::now());
            self.log_outage(None, "waiting for it");
        }
        response.await
    }

    /// How long one broker may take. One that hangs must not keep what others know from us, and
    /// one whose connection leads nowhere any more is asked on a new one soon; but one that is
    /// slow is given more time each time.
    fn timeout(&self, update: &MetadataUpdate) -> Duration {
        let longest = self.config.request_timeout / 3;
        match (update.is_probe(), self.backoff.failures()) {
            (false, 0) => longest,
            (_, failures) => longest.min(PROBE_TIMEOUT * 2_u32.pow(failures.min(8))),
        }
    }

    fn succeeded(&mut self) {
        if let Some(since) = self.failing_since.take() {
            let seconds = since.elapsed().as_secs_f64();
            match &self.principal {
                Principal::Proxy => tracing::info!(seconds, "the cluster answers again"),
                user => tracing::debug!(%user, seconds, "the cluster answers again"),
            }
            self.backoff.succeeded();
        }
    }

    /// An operator is told once; what keeps a user from the cluster is told to the user.
    fn log_outage(&self, error: Option<&RequestError>, next: &str) {
        let error = error.map(tracing::field::display);
        match &self.principal {
            Principal::Proxy => tracing::warn!(error, "the cluster does not answer; {next}"),
            user => tracing::debug!(%user, error, "the cluster does not answer; {next}"),
        }
    }

    fn log_failure(&mut self, error: &RequestError) {
        if self.failing_since.is_none() {
            self.failing_since = Some(Instant::now());
            self.log_outage(Some(error), "retrying");
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

/// Asks for topics; with rights, also what the principal may do with them (KIP-430). Brokers before
/// 2.3 cannot say that: there, what is not allowed shows when it is done.
fn metadata_request(version: i16, topics: &[Arc<str>], with_rights: bool) -> MetadataRequest {
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
        .with_include_topic_authorized_operations(with_rights && version >= 8)
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
