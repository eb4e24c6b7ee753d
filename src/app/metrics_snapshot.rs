//! The values of all metrics, read from whoever counts or holds them.
//!
//! No lock that is taken here is held for longer than it takes to copy a few numbers, and nothing
//! is done per socket.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use kafka_client::fetcher::PartitionReading;
use kafka_client::metrics::ClientMetrics;
use tokio::task::{JoinError, spawn_blocking};

use super::App;
use crate::log;
use crate::metrics::process;
use crate::metrics::snapshot::{LabelValue, MetricsSnapshot};
use crate::metrics::table::Metric;

impl App {
    /// Reads what all metrics are at, and hands it to `read`, on a thread that may block. Those who
    /// ask take turns.
    ///
    /// # Errors
    /// That it panicked.
    pub(crate) async fn read_metrics<T: Send + 'static>(
        &self,
        read: impl FnOnce(MetricsSnapshot) -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let _turn = self.metrics_turn.lock().await;
        let app = self.clone();
        spawn_blocking(move || read(app.metrics_snapshot())).await
    }

    /// Reads `/proc`, which may block.
    fn metrics_snapshot(&self) -> MetricsSnapshot {
        let mut snapshot = MetricsSnapshot::new();
        self.add_process(&mut snapshot);
        self.add_sockets(&mut snapshot);
        self.add_records(&mut snapshot);
        self.add_fetching(&mut snapshot);
        let metrics = &self.config.client.metrics;
        add_groups(&mut snapshot, metrics);
        let brokers = self.cluster().metadata().snapshot().brokers.len();
        snapshot.set(Metric::Brokers, brokers);
        add_brokers(&mut snapshot, metrics);
        snapshot
    }

    fn add_process(&self, snapshot: &mut MetricsSnapshot) {
        let version = env!("CARGO_PKG_VERSION").into();
        snapshot.add(Metric::BuildInfo, [version], 1_u64);
        let is_ready = self.reasons_not_ready().is_empty();
        snapshot.set(Metric::Ready, u64::from(is_ready));
        snapshot.set(Metric::CpuSeconds, process::cpu_seconds());
        for (metric, value) in [
            (Metric::ResidentMemory, process::resident_bytes()),
            (Metric::OpenDescriptors, process::open_descriptors()),
            (Metric::DescriptorsMax, process::descriptors_max()),
        ] {
            if let Some(value) = value {
                snapshot.set(metric, value);
            }
        }
        let started = self.started_at.duration_since(UNIX_EPOCH);
        let started = started.map_or(0.0, |since| since.as_secs_f64());
        snapshot.set(Metric::StartTime, started);
        snapshot.set(Metric::DroppedLogLines, log::dropped_lines());
    }

    fn add_sockets(&self, snapshot: &mut MetricsSnapshot) {
        for (endpoint, metrics) in self.metrics.endpoints() {
            let label = || LabelValue::from(endpoint);
            snapshot.add(Metric::Sockets, [label()], metrics.open.get());
            snapshot.add(Metric::SocketsOpened, [label()], metrics.opened.get());
            for (code, count) in metrics.closed() {
                snapshot.add(Metric::SocketsClosed, [label(), code.into()], count);
            }
            for (status, count) in metrics.refused() {
                snapshot.add(Metric::SocketsRefused, [label(), status.into()], count);
            }
        }
        let server = &self.config.server;
        let max = server.sockets_max().map_or(0, |(max, _)| max);
        snapshot.set(Metric::SocketsMax, max);
    }

    fn add_records(&self, snapshot: &mut MetricsSnapshot) {
        for (topic, counters) in self.metrics.topics.all() {
            for (metric, counter) in [
                (Metric::ProducedRecords, &counters.produced_records),
                (Metric::ProducedBytes, &counters.produced_bytes),
                (Metric::ConsumedRecords, &counters.consumed_records),
                (Metric::ConsumedBytes, &counters.consumed_bytes),
            ] {
                snapshot.add(metric, [topic.clone()], counter.get());
            }
        }
        for (code, count) in self.metrics.produce_errors() {
            snapshot.add(Metric::ProduceErrors, [code.into()], count);
        }
        let latency = self.config.client.metrics.produce.latency.read();
        snapshot.set(Metric::ProduceLatency, latency);
        snapshot.set(Metric::PendingAcks, self.metrics.pending_acks.get());
        let memory_max = self.config.producer.buffer_memory;
        let (mut clients, mut memory) = (0, 0);
        self.principals.for_each(|client| {
            clients += 1;
            memory += memory_max.saturating_sub(client.producer().memory_available());
        });
        snapshot.set(Metric::ProducerMemory, memory);
        snapshot.set(Metric::ProducerMemoryMax, memory_max * clients);
        snapshot.set(Metric::KafkaUsers, clients - 1);
    }

    fn add_fetching(&self, snapshot: &mut MetricsSnapshot) {
        let metrics = &self.config.client.metrics.fetch;
        snapshot.set(Metric::FetchedRecords, metrics.records.get());
        snapshot.set(Metric::FetchedBytes, metrics.bytes.get());
        snapshot.set(Metric::UnreadableRecords, metrics.unreadable.get());
        for (source, chunks) in [
            ("tail_cache", &metrics.tail_chunks),
            ("catch_up", &metrics.catch_up_chunks),
        ] {
            snapshot.add(Metric::ChunksServed, [source.into()], chunks.get());
        }
        // All clients share one.
        for (pool, used, max) in self.client.fetcher().budget().pools() {
            snapshot.add(Metric::FetchMemory, [pool.into()], used);
            snapshot.add(Metric::FetchMemoryMax, [pool.into()], max);
        }
        let mut read = Vec::new();
        self.principals
            .for_each(|client| read.extend(client.fetcher().partition_readings()));
        let sum = |of: fn(&PartitionReading) -> usize| read.iter().map(of).sum::<usize>();
        snapshot.set(Metric::ReadPartitions, read.len());
        snapshot.set(Metric::Cursors, sum(|partition| partition.cursors));
        snapshot.set(
            Metric::TailCacheChunks,
            sum(|partition| partition.tail_chunks),
        );
        let mut lag: BTreeMap<LabelValue, u64> = BTreeMap::new();
        for partition in &read {
            let topic = self.metrics.topics.label(&partition.topic);
            *lag.entry(topic).or_default() += partition.lag;
        }
        for (topic, lag) in lag {
            snapshot.add(Metric::ConsumerLag, [topic], lag);
        }
    }
}

fn add_groups(snapshot: &mut MetricsSnapshot, metrics: &ClientMetrics) {
    for (state, members) in metrics.groups.members() {
        snapshot.add(Metric::GroupMembers, [state.into()], members);
    }
    snapshot.set(Metric::Rebalances, metrics.groups.rebalances.get());
    let latency = metrics.groups.commit_latency.read();
    snapshot.set(Metric::CommitLatency, latency);
}

fn add_brokers(snapshot: &mut MetricsSnapshot, metrics: &ClientMetrics) {
    let connections = &metrics.connections;
    for (purpose, open, opened) in connections.by_purpose() {
        snapshot.add(Metric::BrokerConnections, [purpose.into()], open);
        snapshot.add(Metric::BrokerConnectionsOpened, [purpose.into()], opened);
    }
    for (api, count) in metrics.requests.responses() {
        snapshot.add(Metric::Requests, [api.into()], count);
    }
    for (api, error, count) in metrics.requests.errors() {
        snapshot.add(Metric::RequestErrors, [api.into(), error.into()], count);
    }
    for (result, counter) in [
        ("succeeded", &connections.authentications),
        ("failed", &connections.authentication_failures),
    ] {
        snapshot.add(Metric::Authentications, [result.into()], counter.get());
    }
    let renewed = connections.reauthentications.get();
    snapshot.set(Metric::Reauthentications, renewed);
}
