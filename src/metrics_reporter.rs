//! Sends the metrics to a topic, of this cluster or another, from which OpenTelemetry's collector
//! reads them (`kafkareceiver` with `encoding: otlp_proto`).
//!
//! ```text
//! every 15 s: MetricsSnapshot ─▶ otlp ─▶ producer of its own ─▶ topic (key: server id)
//! ```
//!
//! # Invariants
//! - It shares nothing with the clients of the sockets: no connection, no memory, no metrics.
//! - At most one report is under way. One that is not acknowledged before the next is due is
//!   dropped; counters are cumulative, so the next one makes up for it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::app::App;
use crate::metrics::otlp::OtlpSource;
use kafka_client::admin;
use kafka_client::config::ProducerConfig;
use kafka_client::metadata::{MetadataError, TopicMetadata};
use kafka_client::metrics::ClientMetrics;
use kafka_client::record::NewRecord;
use kafka_client::{Cluster, Principal, Producer};
use runtime::panic_policy;

/// Bytes of reports that may wait to be acknowledged.
const MEMORY: usize = 8 << 20;
/// Partitions of the topic, if it is created.
const PARTITIONS: i32 = 1;
/// `retention.ms` of it: three days, as Confluent's reporter has it.
const RETENTION: Duration = Duration::from_secs(3 * 24 * 3_600);

/// The task that reports.
#[derive(Debug)]
pub(crate) struct MetricsReporter {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl MetricsReporter {
    /// Starts it, if `kafka-client.metrics-enabled` says so.
    pub(crate) fn start(app: &App) -> Option<Self> {
        let config = &app.config.metrics_reporter;
        if !config.enabled {
            return None;
        }
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let mut client = config.client.clone();
        let own = config.bootstrap_servers.as_ref();
        client.bootstrap_servers = own.unwrap_or(&app.config.client.bootstrap_servers).clone();
        client.request_timeout = client.request_timeout.min(config.interval);
        client.metrics = ClientMetrics::default();
        let cluster = Cluster::new(client, Principal::Proxy, tasks.clone(), stop.clone());
        let producer = ProducerConfig {
            delivery_timeout: config.interval,
            buffer_memory: MEMORY,
            ..config.producer.clone()
        };
        let reports = Reports {
            producer: Producer::new(cluster.clone(), producer),
            cluster,
            topic: config.topic.as_str().into(),
            interval: config.interval,
            source: OtlpSource {
                instance_id: app.config.server.server_id.clone(),
                started_at: app.started_at(),
            },
            app: app.clone(),
        };
        let reporting = stop
            .clone()
            .run_until_cancelled_owned(reports.send_for_ever());
        tasks.spawn(panic_policy::contain_panics(async move {
            reporting.await;
        }));
        Some(Self { tasks, stop })
    }

    /// Stops it, with what is under way.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// What is sent, and to where.
struct Reports {
    app: App,
    source: OtlpSource,
    cluster: Cluster,
    producer: Producer,
    topic: Arc<str>,
    interval: Duration,
}

/// Why a report was not delivered.
type ReportError = Box<dyn std::error::Error + Send + Sync>;

impl Reports {
    async fn send_for_ever(self) {
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_failing = false;
        loop {
            ticks.tick().await;
            let sent = timeout(self.interval, self.send()).await;
            let fault = match sent {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(match self.cluster.metadata().last_update_error() {
                    Some(reason) => reason.to_string(),
                    None => "no answer before the next report".to_owned(),
                }),
            };
            let topic = &self.topic;
            match &fault {
                Some(reason) if !is_failing => {
                    warn!(%topic, reason, "the metrics cannot be sent to their topic; trying on");
                }
                None if is_failing => info!(%topic, "the metrics are sent to their topic again"),
                _ => {}
            }
            is_failing = fault.is_some();
        }
    }

    /// Sends what all metrics are at.
    async fn send(&self) -> Result<(), ReportError> {
        let topic = self.topic().await?;
        let snapshot = self.app.read_metrics(|read| read).await?;
        let at = SystemTime::now();
        let timestamp = at.duration_since(UNIX_EPOCH)?.as_millis();
        let mut deliveries = Vec::new();
        for message in self.source.messages(&snapshot, at) {
            let record = NewRecord {
                key: Some(self.source.instance_id.as_bytes()),
                value: Some(&message),
                headers: &[],
                timestamp: i64::try_from(timestamp)?,
            };
            deliveries.push(self.producer.send(&topic, None, &record).await?);
        }
        for delivery in deliveries {
            delivery.await?;
        }
        Ok(())
    }

    /// The topic, which is created when it is absent.
    async fn topic(&self) -> Result<Arc<TopicMetadata>, ReportError> {
        let metadata = self.cluster.metadata();
        match metadata.topic(&self.topic).await {
            Err(MetadataError::UnknownTopic { .. }) => {}
            found => return Ok(found?),
        }
        let retention = ("retention.ms", RETENTION.as_millis().to_string());
        // As many replicas as the brokers have by default.
        let (cluster, settings) = (&self.cluster, [retention]);
        let created =
            admin::create_topic_with(cluster, &self.topic, PARTITIONS, -1, &settings).await;
        match created {
            Ok(()) => info!(topic = %self.topic, "the topic of the metrics was created"),
            Err(error) if error.already_exists() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(metadata.created_topic(&self.topic).await?)
    }
}
