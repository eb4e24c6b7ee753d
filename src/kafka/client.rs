//! Everything that one principal does with one cluster, shared by all its producers and consumers.
//!
//! ```text
//! Client ─┬─ Cluster             connections, metadata
//!         ├─ Producer            one idempotent stream
//!         └─ ConsumerFactory ─┬─ Fetcher         one stream per partition
//!                             └─ ConsumerGroups  coordinators, commits
//! ```
//!
//! Principals share no client: fetched records are shared by all who use a client, and one
//! principal must not read what only another may.

use super::Cluster;
use super::config::{ConsumerConfig, ProducerConfig};
use super::consumer::ConsumerFactory;
use super::fetcher::{FetchBudget, Fetcher};
use super::producer::Producer;

/// One principal's share of one cluster.
#[derive(Debug)]
pub struct Client {
    cluster: Cluster,
    producer: Producer,
    consumers: ConsumerFactory,
}

impl Client {
    /// Returns at once; works in the background.
    pub fn new(cluster: Cluster, producer: ProducerConfig, consumer: ConsumerConfig) -> Self {
        let budget = FetchBudget::new(consumer.fetch_memory);
        Self::with_budget(cluster, producer, consumer, budget)
    }

    /// With fetched records in memory that others count in as well.
    pub(crate) fn with_budget(
        cluster: Cluster,
        producer: ProducerConfig,
        consumer: ConsumerConfig,
        budget: FetchBudget,
    ) -> Self {
        let fetcher = Fetcher::new(cluster.clone(), consumer.clone(), budget);
        Self {
            producer: Producer::new(cluster.clone(), producer),
            consumers: ConsumerFactory::new(cluster.clone(), fetcher, consumer),
            cluster,
        }
    }

    /// Its connections and metadata.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The producer, which all sockets share.
    pub fn producer(&self) -> &Producer {
        &self.producer
    }

    /// Makes the consumers.
    pub fn consumers(&self) -> &ConsumerFactory {
        &self.consumers
    }

    /// The fetcher, which all consumers share.
    pub fn fetcher(&self) -> &Fetcher {
        self.consumers.fetcher()
    }
}
