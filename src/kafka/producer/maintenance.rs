//! The task beside the senders: timers, metadata, the producer id, topics that are deleted.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::InitProducerIdRequest;
use tokio::time::{Instant, sleep, sleep_until};

use super::ProducerShared;
use super::error::ProduceError;
use super::producer_id::ProducerIdAndEpoch;
use super::topic_lookup::look_up;
use crate::backoff::ExponentialBackoff;
use crate::cluster::Cluster;
use crate::error::RequestError;

/// Runs until the cluster is stopped; then fails all batches that are left.
pub(super) async fn run(shared: Arc<ProducerShared>) {
    let cluster = &shared.cluster;
    let stop = cluster.stop().clone();
    let mut snapshots = cluster.metadata().subscribe();
    // The metadata that is there already has not been followed either.
    snapshots.mark_changed();
    let mut producer_id = ProducerIdRequest::new(cluster);
    // Topics that are looked up, to learn whether they are deleted.
    let mut looked_up = HashSet::new();
    let mut lookups = FuturesUnordered::new();
    loop {
        let now = Instant::now();
        let (next, missing_topics, report) = shared.with_accumulator(|accumulator, effects| {
            let next = accumulator.tick(now, effects);
            let (report, report_at) = accumulator.expired_records(now);
            let next = [next, report_at].into_iter().flatten().min();
            if accumulator.needs_producer_id() {
                producer_id.start(accumulator.cluster_id().cloned());
            }
            (next, accumulator.take_missing_topics(), report)
        });
        if let Some(report) = report {
            tracing::warn!(
                records = report.records,
                topics = %report,
                "records were not written within delivery.timeout.ms"
            );
        }
        for topic in missing_topics {
            if looked_up.insert(topic.clone()) {
                lookups.push(look_up(cluster.metadata().clone(), topic));
            }
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep_until(next.unwrap_or(now + LONGEST_SLEEP)) => {}
            () = shared.wake_maintenance.notified() => {}
            response = producer_id.response() => producer_id.handle(response, &shared),
            changed = snapshots.changed() => {
                if changed.is_err() {
                    break; // the metadata is gone, and so is the cluster
                }
                let snapshot = Arc::clone(&snapshots.borrow_and_update());
                let now = Instant::now();
                shared.with_accumulator(|accumulator, effects| {
                    accumulator.update_metadata(&snapshot, now, effects);
                });
            }
            Some((topic, error)) = lookups.next(), if !lookups.is_empty() => {
                looked_up.remove(&topic);
                if let Some(error) = error {
                    tracing::warn!(%topic, %error, "records cannot be written");
                    let now = Instant::now();
                    shared.with_accumulator(|accumulator, effects| {
                        accumulator.fail_topic(&topic, &error, now, effects);
                    });
                }
            }
        }
    }
    shared.with_accumulator(|accumulator, effects| accumulator.stop(effects));
    shared.memory.close();
}

/// When no timer is set. Longer than any wait.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// How long a producer id may be wanting before it is worth a warning.
const COLD_START_MAX: Duration = Duration::from_secs(10);

/// The request for a producer id, sent again with backoff until there is one.
struct ProducerIdRequest<'a> {
    cluster: &'a Cluster,
    in_flight: Option<Pin<Box<dyn Future<Output = InitProducerIdResult> + Send>>>,
    backoff: ExponentialBackoff,
    /// Since when it is asked in vain.
    failing_since: Option<Instant>,
    /// The cluster that the producer knew when it began to ask.
    cluster_id: Option<Arc<str>>,
}

type InitProducerIdResult = Result<ProducerIdAndEpoch, InitProducerIdError>;

enum InitProducerIdError {
    /// Another request would fail as well.
    Fatal(ProduceError),
    /// Why it failed this time.
    Retriable(String),
}

impl<'a> ProducerIdRequest<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let config = cluster.config();
        Self {
            cluster,
            in_flight: None,
            backoff: ExponentialBackoff::new(config.retry_backoff, config.retry_backoff_max),
            failing_since: None,
            cluster_id: None,
        }
    }

    /// Sends the request if it is not in flight; after a fatal error not at once.
    fn start(&mut self, cluster_id: Option<Arc<str>>) {
        if self.in_flight.is_none() {
            self.cluster_id = cluster_id;
            let wait = match self.backoff.failures() {
                0 => Duration::ZERO,
                _ => self.cluster.config().retry_backoff,
            };
            self.send_after(wait);
        }
    }

    fn send_after(&mut self, wait: Duration) {
        let cluster = self.cluster.clone();
        self.in_flight = Some(Box::pin(async move {
            sleep(wait).await;
            init_producer_id(&cluster).await
        }));
    }

    /// Pends while no request is in flight; cancel-safe.
    async fn response(&mut self) -> InitProducerIdResult {
        match &mut self.in_flight {
            Some(in_flight) => in_flight.await,
            None => std::future::pending().await,
        }
    }

    fn handle(&mut self, response: InitProducerIdResult, shared: &Arc<ProducerShared>) {
        self.in_flight = None;
        match response {
            Ok(producer_id) => {
                self.backoff.succeeded();
                self.failing_since = None;
                tracing::debug!(%producer_id, "have a producer id");
                let now = Instant::now();
                let cluster_id = self.cluster_id.as_ref();
                shared.with_accumulator(|accumulator, effects| {
                    accumulator.set_producer_id(producer_id, cluster_id, now, effects);
                });
            }
            Err(InitProducerIdError::Fatal(error)) => {
                self.backoff.after_failure();
                tracing::warn!(%error, "no producer id");
                let now = Instant::now();
                shared.with_accumulator(|accumulator, effects| {
                    accumulator.fail_without_producer_id(&error, now, effects);
                });
            }
            Err(InitProducerIdError::Retriable(reason)) => {
                let now = Instant::now();
                let since = *self.failing_since.get_or_insert(now);
                // A broker that has just started loads its coordinators first.
                match now.duration_since(since) < COLD_START_MAX {
                    true => tracing::debug!(reason, "no producer id yet"),
                    false => tracing::warn!(reason, "no producer id yet"),
                }
                let wait = self.backoff.after_failure();
                self.send_after(wait);
            }
        }
    }
}

/// Requests a producer id. Whatever the version, a producer without transactions gets a
/// new one: it bumps epochs by itself.
async fn init_producer_id(cluster: &Cluster) -> InitProducerIdResult {
    use InitProducerIdError::{Fatal, Retriable};
    use ResponseError as E;

    let build = |_version| {
        InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(i32::MAX)
    };
    let timeout = cluster.config().request_timeout;
    let response = match cluster.call_any(build, timeout).await {
        Ok((_version, response)) => response,
        Err(error @ RequestError::UnsupportedVersion { .. }) => {
            return Err(Fatal(ProduceError::Rejected {
                code: E::UnsupportedVersion.code(),
                message: error.to_string().into(),
            }));
        }
        Err(error) => return Err(Retriable(error.to_string())),
    };
    match E::try_from_code(response.error_code) {
        None if response.error_code == 0 => Ok(ProducerIdAndEpoch {
            id: response.producer_id.0,
            epoch: response.producer_epoch,
        }),
        Some(E::ClusterAuthorizationFailed | E::TransactionalIdAuthorizationFailed) => {
            Err(Fatal(ProduceError::NotAuthorized {
                what: "the cluster".into(),
            }))
        }
        Some(error) => Err(Retriable(error.to_string())),
        None => Err(Retriable(format!("error {}", response.error_code))),
    }
}
