//! Metrics as text: Prometheus' format, and OpenMetrics where that is asked for.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use runtime::counters::HISTOGRAM_BOUNDS;

use super::snapshot::{MetricValue, MetricsSnapshot};
use super::table::{MetricKind, MetricSpec, MetricUnit};

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextFormat {
    /// Prometheus' own, 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl TextFormat {
    /// The one that a request accepts by its `Accept` header; Prometheus' own if none is named.
    pub(crate) fn accepted(header: &str) -> Self {
        let weight = |wanted: &str| {
            let ranges = header.split(',').map(|range| range.split(';'));
            let weights = ranges.filter_map(|mut range| {
                let name = range.next()?.trim();
                let is_wanted = name.eq_ignore_ascii_case(wanted);
                let weight = range.find_map(|parameter| parameter.trim().strip_prefix("q="));
                let weight = weight.and_then(|weight| weight.trim().parse::<f64>().ok());
                is_wanted.then_some(weight.unwrap_or(1.0))
            });
            weights.fold(0.0, f64::max)
        };
        let open_metrics = weight("application/openmetrics-text");
        match open_metrics > 0.0 && open_metrics >= weight("text/plain") {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }

    /// The `Content-Type` of a text in it.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Writes all metrics.
    pub(crate) fn write(self, snapshot: MetricsSnapshot) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(SnapshotCollector(Arc::new(snapshot))));
        let mut out = String::new();
        let written = match self {
            Self::Prometheus => prometheus_text::encode(&mut out, &registry),
            Self::OpenMetrics => text::encode(&mut out, &registry),
        };
        written.expect("a text in memory takes everything");
        out
    }
}

/// A snapshot as prometheus-client reads it.
#[derive(Debug)]
struct SnapshotCollector(Arc<MetricsSnapshot>);

impl Collector for SnapshotCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (spec, series) in self.0.families() {
            let unit = spec.unit.map(|unit| match unit {
                MetricUnit::Bytes => Unit::Bytes,
                MetricUnit::Seconds => Unit::Seconds,
            });
            let metric_type = match spec.kind {
                MetricKind::Counter => MetricType::Counter,
                MetricKind::Gauge => MetricType::Gauge,
                MetricKind::Histogram => MetricType::Histogram,
            };
            let mut family =
                encoder.encode_descriptor(spec.stem(), spec.help, unit.as_ref(), metric_type)?;
            for one in series {
                let labels: Vec<_> = spec
                    .labels
                    .iter()
                    .zip(&one.labels)
                    .map(|(name, value)| (*name, &**value))
                    .collect();
                if labels.is_empty() {
                    write_value(&mut family, spec, &one.value)?;
                } else {
                    let labels = labels.as_slice();
                    write_value(&mut family.encode_family(&labels)?, spec, &one.value)?;
                }
            }
        }
        Ok(())
    }
}

fn write_value(
    encoder: &mut MetricEncoder<'_>,
    spec: &MetricSpec,
    value: &MetricValue,
) -> fmt::Result {
    match (value, spec.kind) {
        (MetricValue::Int(value), MetricKind::Counter) => {
            encoder.encode_counter::<NoLabelSet, _, u64>(value, None)
        }
        (MetricValue::Float(value), MetricKind::Counter) => {
            encoder.encode_counter::<NoLabelSet, _, f64>(value, None)
        }
        (MetricValue::Int(value), _) => encoder.encode_gauge(value),
        (MetricValue::Float(value), _) => encoder.encode_gauge(value),
        (MetricValue::Histogram(reading), _) => {
            let bounds = HISTOGRAM_BOUNDS.into_iter().chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(reading.buckets).collect();
            let (sum, count) = (reading.sum, reading.count());
            encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::table::{METRICS, Metric};
    use runtime::counters::Histogram;

    fn some() -> MetricsSnapshot {
        let mut snapshot = MetricsSnapshot::new();
        let topic = || "a \"b\"\\\n".into();
        snapshot.add(Metric::ProducedRecords, ["plain".into()], 3_u64);
        snapshot.add(Metric::ProducedBytes, [topic()], 7_u64);
        snapshot.set(Metric::CpuSeconds, 1.5);
        snapshot.set(Metric::OpenDescriptors, 11_usize);
        let latency = Histogram::default();
        latency.observe(std::time::Duration::from_millis(3), 5);
        snapshot.set(Metric::ProduceLatency, latency.read());
        snapshot
    }

    #[test]
    fn prometheus_text_has_whole_names_escaped_labels_and_cumulative_buckets() {
        let text = TextFormat::Prometheus.write(some());
        for line in [
            "# TYPE wsproxy_produced_records_total counter",
            "wsproxy_produced_records_total{topic=\"plain\"} 3",
            r#"wsproxy_produced_bytes_total{topic="a \"b\"\\\n"} 7"#,
            "process_cpu_seconds_total 1.5",
            "process_open_fds 11",
            "wsproxy_produce_latency_seconds_bucket{le=\"0.002\"} 0",
            "wsproxy_produce_latency_seconds_bucket{le=\"0.005\"} 5",
            "wsproxy_produce_latency_seconds_bucket{le=\"+Inf\"} 5",
            "wsproxy_produce_latency_seconds_count 5",
            "wsproxy_produce_latency_seconds_sum 0.015",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
        for spec in METRICS {
            let help = format!("# HELP {} {}\n", spec.name, spec.help);
            assert!(text.contains(&help), "{}", spec.name);
        }
    }

    #[test]
    fn open_metrics_has_units_and_an_end() {
        let text = TextFormat::OpenMetrics.write(some());
        for line in [
            "# TYPE wsproxy_produced_bytes counter",
            "# UNIT wsproxy_produced_bytes bytes",
            r#"wsproxy_produced_bytes_total{topic="a \"b\"\\\n"} 7"#,
            "wsproxy_produce_latency_seconds_count 5",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn open_metrics_is_written_where_it_is_accepted_as_much_as_plain_text() {
        use TextFormat::{OpenMetrics, Prometheus};
        let of_prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
                             application/openmetrics-text;version=0.0.1;q=0.4,\
                             text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (header, format) in [
            (of_prometheus, OpenMetrics),
            ("application/openmetrics-text", OpenMetrics),
            ("Application/OpenMetrics-Text; q=1, text/plain", OpenMetrics),
            ("application/openmetrics-text;q=0", Prometheus),
            (
                "application/openmetrics-text;q=0.3, text/plain;q=0.9",
                Prometheus,
            ),
            ("text/plain", Prometheus),
            ("*/*", Prometheus),
            ("", Prometheus),
        ] {
            assert_eq!(TextFormat::accepted(header), format, "{header}");
        }
    }
}
