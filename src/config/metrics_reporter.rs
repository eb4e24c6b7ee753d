//! The settings of the metrics reporter: those of all clients, but for what is said of its own.

use std::time::Duration;

use kafka_client::config::{ClientConfig, ProducerConfig};

use super::security::SecurityProperties;

/// `kafka-client.metrics-enabled` and `kafka-client.confluent-metrics.*`
#[derive(Clone, Debug)]
pub struct MetricsReporterConfig {
    /// Whether metrics are sent at all.
    pub enabled: bool,
    /// The brokers to ask first; `None`: those of the other clients.
    pub bootstrap_servers: Option<Vec<String>>,
    /// The topic that they are sent to.
    pub topic: String,
    /// How often.
    pub interval: Duration,
    /// What its connections are configured with.
    pub client: ClientConfig,
    /// What `client.security` comes from.
    pub(crate) security: SecurityProperties,
    /// How its producer writes.
    pub producer: ProducerConfig,
}

impl Default for MetricsReporterConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            bootstrap_servers: None,
            topic: "_confluent-metrics".to_owned(),
            interval: Duration::from_secs(15),
            client: ClientConfig::default(),
            security: SecurityProperties::default(),
            producer: ProducerConfig::default(),
        }
    }
}

impl MetricsReporterConfig {
    /// Changes places with what is said of the other clients.
    pub(super) fn swap(
        &mut self,
        client: &mut ClientConfig,
        security: &mut SecurityProperties,
        producer: &mut ProducerConfig,
    ) {
        std::mem::swap(&mut self.client, client);
        std::mem::swap(&mut self.security, security);
        std::mem::swap(&mut self.producer, producer);
    }
}
