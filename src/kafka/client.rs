//! Everything that one principal does with one cluster, shared by all its sockets.
//!
//! ```text
//! Clients ─of(principal)─▶ Client ─┬─ Cluster    connections, metadata
//!                                  ├─ Producer   one idempotent stream
//!                                  ├─ Fetcher    one stream per partition
//!                                  └─ ConsumerGroups     coordinators, commits
//! ```
//!
//! Principals share nothing but the memory that fetched records may take: sharing records
//! would let one read what another may.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::{ClientConfig, ConsumerConfig, ProducerConfig};
use super::group::{ConsumerGroups, CoordinatorHandle};
use super::lock::lock;
use super::{Cluster, Principal};
use crate::fetcher::{FetchBudget, Fetcher};
use crate::producer::Producer;

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
        Self::with_budget(cluster, producer, consumer, budget)
    }

    fn with_budget(
        cluster: Cluster,
        producer: ProducerConfig,
        consumer: ConsumerConfig,
        budget: FetchBudget,
    ) -> Self {
        Self {
            producer: Producer::new(cluster.clone(), producer),
            fetcher: Fetcher::with_budget(cluster.clone(), consumer.clone(), budget),
            groups: Arc::default(),
            cluster,
            consumer,
        }
    }

    /// Its connections and metadata.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Its writer.
    pub fn producer(&self) -> &Producer {
        &self.producer
    }

    /// Its reader.
    pub fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    /// How its consumers behave.
    pub fn consumer_config(&self) -> &ConsumerConfig {
        &self.consumer
    }

    pub(super) fn coordinator_handle(&self, group: &Arc<str>) -> CoordinatorHandle {
        self.groups
            .coordinator_handle(&self.cluster, &self.fetcher, group)
    }
}

/// The clients of one cluster, by principal.
#[derive(Debug)]
pub struct Clients {
    config: ClientConfig,
    producer: ProducerConfig,
    consumer: ConsumerConfig,
    budget: FetchBudget,
    tasks: TaskTracker,
    stop: CancellationToken,
    clients: Mutex<HashMap<Principal, Arc<Client>>>,
}

impl Clients {
    /// None yet. Everything they start is owned by `tasks` and ends with `stop`.
    pub fn new(
        config: ClientConfig,
        producer: ProducerConfig,
        consumer: ConsumerConfig,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self {
            budget: FetchBudget::new(consumer.fetch_memory),
            config,
            producer,
            consumer,
            tasks,
            stop,
            clients: Mutex::default(),
        }
    }

    /// The client of that principal, made when it is first asked for.
    pub fn of(&self, principal: &Principal) -> Arc<Client> {
        let mut clients = lock(&self.clients);
        let client = clients.entry(principal.clone()).or_insert_with(|| {
            let cluster = Cluster::new(
                self.config.clone(),
                principal.clone(),
                self.tasks.clone(),
                self.stop.clone(),
            );
            let (producer, consumer) = (self.producer.clone(), self.consumer.clone());
            let budget = self.budget.clone();
            Arc::new(Client::with_budget(cluster, producer, consumer, budget))
        });
        Arc::clone(client)
    }
}
