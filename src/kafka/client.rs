//! Everything that one principal does with one cluster, shared by all its sockets.
//!
//! ```text
//! Client ─┬─ Cluster         connections, metadata
//!         ├─ Producer        one idempotent stream
//!         ├─ Fetcher         one stream per partition
//!         └─ ConsumerGroups  coordinators, commits
//! ```
//!
//! Principals share no client: fetched records are shared by all who use a client, and one
//! principal must not read what only another may.

use std::sync::Arc;

use super::Cluster;
use super::config::{ConsumerConfig, ProducerConfig};
use super::fetcher::{FetchBudget, Fetcher};
use super::group::{ConsumerGroups, CoordinatorHandle};
use super::producer::Producer;

/// One principal's share of one cluster.
#[derive(Debug)]
pub struct Client {
    cluster: Cluster,
    producer: Producer,
    fetcher: Fetcher,
    groups: Arc<ConsumerGroups>,
    consumer: ConsumerConfig,
}

impl Client {
    /// Returns at once; works in the background.
    pub fn new(cluster: Cluster, producer: ProducerConfig, consumer: ConsumerConfig) -> Self {
        let budget = FetchBudget::new(consumer.fetch_memory);
        Self {
            producer: Producer::new(cluster.clone(), producer),
            fetcher: Fetcher::new(cluster.clone(), consumer.clone(), budget),
            groups: Arc::default(),
            cluster,
            consumer,
        }
    }

    /// Its connections and metadata.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Its producer.
    pub fn producer(&self) -> &Producer {
        &self.producer
    }

    /// Its fetcher.
    pub fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    /// How its consumers behave.
    pub(crate) fn consumer_config(&self) -> &ConsumerConfig {
        &self.consumer
    }

    pub(crate) fn coordinator_handle(&self, group: &Arc<str>) -> CoordinatorHandle {
        self.groups
            .coordinator_handle(&self.cluster, &self.fetcher, group)
    }
}
