//! Every metric: its name, its unit, its labels, and what it means.

/// One row of the table.
#[derive(Debug)]
pub(crate) struct MetricSpec {
    /// As Prometheus has it: a counter's ends in `_total`, and before that in the unit.
    pub(crate) name: &'static str,
    /// How its values behave.
    pub(crate) kind: MetricKind,
    /// What it is measured in, if it is not a number of things.
    pub(crate) unit: Option<MetricUnit>,
    /// The labels of its series.
    pub(crate) labels: &'static [&'static str],
    /// One line for people.
    pub(crate) help: &'static str,
}

/// How the values of a metric behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricKind {
    /// Only ever goes up, from the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How many events took how long.
    Histogram,
}

/// A base unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricUnit {
    /// Bytes; those of a record are the ones of its key and its value.
    Bytes,
    /// Seconds.
    Seconds,
}

impl MetricUnit {
    /// As names end in it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
        }
    }
}

impl MetricKind {
    #[cfg(test)]
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl MetricSpec {
    /// The name without `_total` and without the unit.
    pub(crate) fn stem(&self) -> &'static str {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        let unit = self.unit.and_then(|unit| name.strip_suffix(unit.name()));
        unit.map_or(name, |stem| stem.trim_end_matches('_'))
    }
}

/// An identifier and a row for each metric.
macro_rules! metrics {
    ($($metric:ident: $kind:ident $name:literal $([$unit:ident])? ($($label:literal),*) $help:literal;)*) => {
        /// A metric, by which its row is found.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Metric {
            $(#[doc = $help] $metric),*
        }

        /// The table.
        pub(crate) const METRICS: &[MetricSpec] = &[$(MetricSpec {
            name: $name,
            kind: MetricKind::$kind,
            unit: unit!($($unit)?),
            labels: &[$($label),*],
            help: $help,
        }),*];
    };
}

macro_rules! unit {
    () => {
        None
    };
    ($unit:ident) => {
        Some(MetricUnit::$unit)
    };
}

impl Metric {
    /// Its row of the table.
    pub(crate) fn spec(self) -> &'static MetricSpec {
        &METRICS[self as usize]
    }
}

metrics! {
    // The process.
    BuildInfo: Gauge "wsproxy_build_info" ("version") "Always 1; the version is in its label";
    Ready: Gauge "wsproxy_ready" () "1 where GET /ready answers 200, else 0";
    CpuSeconds: Counter "process_cpu_seconds_total" [Seconds] () "CPU time that the process has used";
    ResidentMemory: Gauge "process_resident_memory_bytes" [Bytes] () "Memory of the process that is resident";
    OpenDescriptors: Gauge "process_open_fds" () "File descriptors that are open";
    DescriptorsMax: Gauge "process_max_fds" () "File descriptors that may be open";
    StartTime: Gauge "process_start_time_seconds" [Seconds] () "When the process started, since 1970";
    DroppedLogLines: Counter "wsproxy_log_lines_dropped_total" () "Lines of the log that were dropped because nobody read standard error";

    // Sockets.
    Sockets: Gauge "wsproxy_sockets" ("endpoint") "Sockets that are open: in is /socket/in, out is /socket/out";
    SocketsMax: Gauge "wsproxy_sockets_max" () "Sockets that may be open; 0 is no limit";
    SocketsOpened: Counter "wsproxy_sockets_opened_total" ("endpoint") "Sockets that were opened";
    SocketsClosed: Counter "wsproxy_sockets_closed_total" ("endpoint", "code") "Sockets that were closed, by the code of the close frame; 1005: one without a code, 1006: none";
    SocketsRefused: Counter "wsproxy_sockets_refused_total" ("endpoint", "status") "Requests for a socket that were refused, by HTTP status";

    // Producing.
    ProducedRecords: Counter "wsproxy_produced_records_total" ("topic") "Records of clients that the brokers have acknowledged";
    ProducedBytes: Counter "wsproxy_produced_bytes_total" [Bytes] ("topic") "Keys and values of these records";
    ProduceErrors: Counter "wsproxy_produce_errors_total" ("code") "Records of clients that were answered with an error, by its code";
    ProduceLatency: Histogram "wsproxy_produce_latency_seconds" [Seconds] () "From the first record of a batch to the broker's acknowledgement, for each of its records";
    PendingAcks: Gauge "wsproxy_pending_acks" () "Records whose acknowledgement is not sent to the client yet";
    ProducerMemory: Gauge "wsproxy_producer_memory_bytes" [Bytes] () "Records that the brokers have not answered, in memory";
    ProducerMemoryMax: Gauge "wsproxy_producer_memory_max_bytes" [Bytes] () "What these may take (buffer.memory, once for each Kafka user); beyond it clients wait";

    // Consuming.
    ConsumedRecords: Counter "wsproxy_consumed_records_total" ("topic") "Records that were sent to clients; one that goes to two sockets counts twice";
    ConsumedBytes: Counter "wsproxy_consumed_bytes_total" [Bytes] ("topic") "Keys and values of these records";
    ConsumerLag: Gauge "wsproxy_consumer_lag_records" ("topic") "Offsets between where the sockets read and the end of what they may read, over all sockets and partitions";
    ReadPartitions: Gauge "wsproxy_read_partitions" () "Partitions that are read, or were in the last ten seconds";
    Cursors: Gauge "wsproxy_cursors" () "Positions of sockets in these partitions";
    FetchedRecords: Counter "wsproxy_fetched_records_total" () "Records that brokers sent; one serves all sockets that read there";
    FetchedBytes: Counter "wsproxy_fetched_bytes_total" [Bytes] () "Batches of these records, compressed as they came";
    UnreadableRecords: Counter "wsproxy_unreadable_records_total" () "Batches and single records that cannot be read, which clients are told in their place";
    ChunksServed: Counter "wsproxy_chunks_served_total" ("source") "Chunks of records that sockets took: tail_cache, shared near the end of a partition, or catch_up, fetched for those that lag";
    TailCacheChunks: Gauge "wsproxy_tail_cache_chunks" () "Chunks in the tail caches of all partitions";
    FetchMemory: Gauge "wsproxy_fetch_memory_bytes" [Bytes] ("pool") "Fetched records in memory, and frames made of them: tail or catch_up";
    FetchMemoryMax: Gauge "wsproxy_fetch_memory_max_bytes" [Bytes] ("pool") "What these may take; beyond it fetches wait";

    // Groups.
    GroupMembers: Gauge "wsproxy_group_members" ("state") "Members of consumer groups, by state";
    Rebalances: Counter "wsproxy_group_rebalances_total" () "Rebalances that members have completed";
    CommitLatency: Histogram "wsproxy_group_commit_latency_seconds" [Seconds] () "From when a member's commit is due until the coordinator has answered it";

    // Brokers.
    KafkaUsers: Gauge "wsproxy_kafka_users" () "Kafka users that sockets run under, beside the proxy's own, and those of the last five minutes";
    Brokers: Gauge "wsproxy_kafka_brokers" () "Brokers of the cluster, as its metadata lists them";
    BrokerConnections: Gauge "wsproxy_kafka_connections" ("purpose") "Connections to brokers that are open, by what they are for";
    BrokerConnectionsOpened: Counter "wsproxy_kafka_connections_opened_total" ("purpose") "Connections to brokers that were opened";
    Requests: Counter "wsproxy_kafka_requests_total" ("api") "Requests that brokers have answered";
    RequestErrors: Counter "wsproxy_kafka_errors_total" ("api", "error") "Kafka's error codes in answers, each partition's for itself; requests without an answer are NETWORK_EXCEPTION or REQUEST_TIMED_OUT";
    Authentications: Counter "wsproxy_kafka_authentications_total" ("result") "SASL exchanges: succeeded or failed";
    Reauthentications: Counter "wsproxy_kafka_reauthentications_total" () "Those among the succeeded ones that renewed a session";
}

/// The table in Markdown.
#[cfg(test)]
fn markdown_table() -> String {
    let mut text = "| metric | type | labels | |\n|---|---|---|---|\n".to_owned();
    for spec in METRICS {
        let labels: Vec<_> = spec
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let (name, kind) = (spec.name, spec.kind.name());
        let row = format!(
            "| `{name}` | {kind} | {} | {} |\n",
            labels.join(", "),
            spec.help
        );
        text.push_str(&row);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus_and_none_stands_twice() {
        let mut names = BTreeSet::new();
        for spec in METRICS {
            let MetricSpec { name, kind, .. } = spec;
            assert!(names.insert(name), "{name}");
            let is_of_process = name.starts_with("process_");
            assert!(is_of_process || name.starts_with("wsproxy_"), "{name}");
            assert_eq!(
                name.ends_with("_total"),
                *kind == MetricKind::Counter,
                "{name}"
            );
            let base = name.strip_suffix("_total").unwrap_or(name);
            let unit_of_name = [MetricUnit::Bytes, MetricUnit::Seconds]
                .into_iter()
                .find(|unit| base.ends_with(unit.name()));
            assert_eq!(unit_of_name, spec.unit, "{name}");
            assert!(!spec.labels.contains(&"le"), "{name}");
            // What a help text must escape is another thing in each format.
            assert!(!spec.help.contains(['"', '\\', '\n', '|']), "{name}");
        }
    }

    #[test]
    fn the_readme_has_the_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
        let readme = std::fs::read_to_string(&path).unwrap();
        let (begin, end) = ("<!-- metrics -->\n", "<!-- end of metrics -->");
        let (before, rest) = readme.split_once(begin).expect("no place for it");
        let (_, after) = rest.split_once(end).expect("no end of it");
        let expected = format!("{before}{begin}{}{end}{after}", markdown_table());
        if std::env::var_os("WRITE").is_some() {
            std::fs::write(&path, &expected).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap();
        assert!(
            found == expected,
            "README.md: `WRITE=1 cargo test --lib metrics::table` writes the table"
        );
    }

    /// The names of metrics in a text, as a query has them.
    fn names_in(text: &str) -> BTreeSet<String> {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let ours = words.filter(|word| {
            ["wsproxy_", "process_"]
                .iter()
                .any(|prefix| word.starts_with(prefix))
        });
        ours.map(str::to_owned).collect()
    }

    fn is_known(name: &str) -> bool {
        METRICS.iter().any(|spec| match spec.kind {
            MetricKind::Histogram => ["_bucket", "_sum", "_count"]
                .iter()
                .any(|end| name.strip_suffix(end) == Some(spec.name)),
            MetricKind::Counter | MetricKind::Gauge => name == spec.name,
        })
    }

    #[test]
    fn every_query_of_the_dashboard_and_of_the_alerts_is_about_metrics_that_there_are() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
        let dashboard: serde_json::Value =
            serde_json::from_str(&read("grafana-dashboard.json")).unwrap();
        let mut queries = Vec::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                queries.push(target["expr"].as_str().expect("a query").to_owned());
            }
        }
        assert!(queries.len() > 15, "{queries:?}");
        let alerts = read("prometheus-alerts.yaml");
        let alerts = alerts
            .lines()
            .filter_map(|line| line.trim().strip_prefix("expr: "));
        queries.extend(alerts.map(str::to_owned));
        for query in &queries {
            let names = names_in(query);
            assert!(!names.is_empty(), "{query}");
            for name in names {
                assert!(is_known(&name), "{name} in {query}");
            }
        }
    }
}
