//! Metrics as OTLP: OpenTelemetry's protobuf messages, of which these are the parts that are used.
//! <https://github.com/open-telemetry/opentelemetry-proto>, `metrics/v1` and `collector/metrics/v1`.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message;
use runtime::counters::{HISTOGRAM_BOUNDS, HistogramReading};

use super::snapshot::{MetricSeries, MetricValue, MetricsSnapshot};
use super::table::{MetricKind, MetricSpec, MetricUnit};

/// Points in one message: at the longest names of topics, these have about 700 KB.
const POINTS_MAX: usize = 2_000;

/// Who reports, and since when it counts.
#[derive(Clone, Debug)]
pub(crate) struct OtlpSource {
    /// `service.instance.id`
    pub(crate) instance_id: String,
    /// When the counters were 0.
    pub(crate) started_at: SystemTime,
}

impl OtlpSource {
    /// The snapshot, which was taken then, as `ExportMetricsServiceRequest`s.
    pub(crate) fn messages(&self, snapshot: &MetricsSnapshot, at: SystemTime) -> Vec<Bytes> {
        let times = (unix_nanos(self.started_at), unix_nanos(at));
        let mut messages = Vec::new();
        let (mut metrics, mut points) = (Vec::new(), 0);
        for (spec, series) in snapshot.families() {
            let mut left = series;
            while !left.is_empty() {
                let (now, later) = left.split_at(left.len().min(POINTS_MAX - points));
                metrics.push(metric(spec, now, times));
                points += now.len();
                left = later;
                if points == POINTS_MAX {
                    messages.push(self.message(std::mem::take(&mut metrics)));
                    points = 0;
                }
            }
        }
        if !metrics.is_empty() {
            messages.push(self.message(metrics));
        }
        messages
    }

    fn message(&self, metrics: Vec<OtlpMetric>) -> Bytes {
        let attributes = [
            ("service.name", env!("CARGO_PKG_NAME")),
            ("service.instance.id", &self.instance_id),
            ("service.version", env!("CARGO_PKG_VERSION")),
        ];
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(Resource {
                    attributes: attributes.map(|(key, value)| attribute(key, value)).into(),
                }),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(InstrumentationScope {
                        name: env!("CARGO_PKG_NAME").to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                    }),
                    metrics,
                }],
            }],
        };
        request.encode_to_vec().into()
    }
}

fn metric(spec: &MetricSpec, series: &[MetricSeries], times: (u64, u64)) -> OtlpMetric {
    let numbers = || series.iter().map(|one| number_point(spec, one, times));
    let data = match spec.kind {
        MetricKind::Gauge => OtlpData::Gauge(OtlpGauge {
            data_points: numbers().collect(),
        }),
        MetricKind::Counter => OtlpData::Sum(OtlpSum {
            data_points: numbers().collect(),
            aggregation_temporality: CUMULATIVE,
            is_monotonic: true,
        }),
        MetricKind::Histogram => OtlpData::Histogram(OtlpHistogram {
            data_points: series
                .iter()
                .filter_map(|one| histogram_point(spec, one, times))
                .collect(),
            aggregation_temporality: CUMULATIVE,
        }),
    };
    OtlpMetric {
        name: spec.name.to_owned(),
        description: spec.help.to_owned(),
        // As UCUM has them.
        unit: match spec.unit {
            Some(MetricUnit::Bytes) => "By",
            Some(MetricUnit::Seconds) => "s",
            None => "1",
        }
        .to_owned(),
        data: Some(data),
    }
}

fn number_point(spec: &MetricSpec, series: &MetricSeries, times: (u64, u64)) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(spec, series),
        // What a gauge shows has no beginning.
        start_time_unix_nano: match spec.kind {
            MetricKind::Gauge => 0,
            MetricKind::Counter | MetricKind::Histogram => times.0,
        },
        time_unix_nano: times.1,
        value: Some(match &series.value {
            MetricValue::Int(value) => {
                NumberValue::AsInt(i64::try_from(*value).unwrap_or(i64::MAX))
            }
            MetricValue::Float(value) => NumberValue::AsDouble(*value),
            MetricValue::Histogram(reading) => NumberValue::AsDouble(reading.sum),
        }),
    }
}

fn histogram_point(
    spec: &MetricSpec,
    series: &MetricSeries,
    times: (u64, u64),
) -> Option<HistogramDataPoint> {
    let MetricValue::Histogram(reading) = &series.value else {
        return None;
    };
    let HistogramReading { buckets, sum } = reading;
    Some(HistogramDataPoint {
        attributes: attributes(spec, series),
        start_time_unix_nano: times.0,
        time_unix_nano: times.1,
        count: reading.count(),
        sum: Some(*sum),
        bucket_counts: buckets.to_vec(),
        explicit_bounds: HISTOGRAM_BOUNDS.to_vec(),
    })
}

fn attributes(spec: &MetricSpec, series: &MetricSeries) -> Vec<KeyValue> {
    let labels = spec.labels.iter().zip(&series.labels);
    labels.map(|(name, value)| attribute(name, value)).collect()
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            string_value: Some(value.to_owned()),
        }),
    }
}

fn unix_nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`
const CUMULATIVE: i32 = 2;

#[derive(Clone, PartialEq, Message)]
struct ExportMetricsServiceRequest {
    #[prost(message, repeated, tag = "1")]
    resource_metrics: Vec<ResourceMetrics>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceMetrics {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_metrics: Vec<ScopeMetrics>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeMetrics {
    #[prost(message, optional, tag = "1")]
    scope: Option<InstrumentationScope>,
    #[prost(message, repeated, tag = "2")]
    metrics: Vec<OtlpMetric>,
}

#[derive(Clone, PartialEq, Message)]
struct InstrumentationScope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct OtlpMetric {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    description: String,
    #[prost(string, tag = "3")]
    unit: String,
    #[prost(oneof = "OtlpData", tags = "5, 7, 9")]
    data: Option<OtlpData>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum OtlpData {
    #[prost(message, tag = "5")]
    Gauge(OtlpGauge),
    #[prost(message, tag = "7")]
    Sum(OtlpSum),
    #[prost(message, tag = "9")]
    Histogram(OtlpHistogram),
}

#[derive(Clone, PartialEq, Message)]
struct OtlpGauge {
    #[prost(message, repeated, tag = "1")]
    data_points: Vec<NumberDataPoint>,
}

#[derive(Clone, PartialEq, Message)]
struct OtlpSum {
    #[prost(message, repeated, tag = "1")]
    data_points: Vec<NumberDataPoint>,
    #[prost(int32, tag = "2")]
    aggregation_temporality: i32,
    #[prost(bool, tag = "3")]
    is_monotonic: bool,
}

#[derive(Clone, PartialEq, Message)]
struct OtlpHistogram {
    #[prost(message, repeated, tag = "1")]
    data_points: Vec<HistogramDataPoint>,
    #[prost(int32, tag = "2")]
    aggregation_temporality: i32,
}

#[derive(Clone, PartialEq, Message)]
struct NumberDataPoint {
    #[prost(fixed64, tag = "2")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "3")]
    time_unix_nano: u64,
    #[prost(oneof = "NumberValue", tags = "4, 6")]
    value: Option<NumberValue>,
    #[prost(message, repeated, tag = "7")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, Copy, PartialEq, prost::Oneof)]
enum NumberValue {
    #[prost(double, tag = "4")]
    AsDouble(f64),
    #[prost(sfixed64, tag = "6")]
    AsInt(i64),
}

#[derive(Clone, PartialEq, Message)]
struct HistogramDataPoint {
    #[prost(fixed64, tag = "2")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "3")]
    time_unix_nano: u64,
    #[prost(fixed64, tag = "4")]
    count: u64,
    #[prost(double, optional, tag = "5")]
    sum: Option<f64>,
    #[prost(fixed64, repeated, tag = "6")]
    bucket_counts: Vec<u64>,
    #[prost(double, repeated, tag = "7")]
    explicit_bounds: Vec<f64>,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

/// Of its alternatives there is one here.
#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(string, optional, tag = "1")]
    string_value: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runtime::counters::Histogram;

    use super::*;
    use crate::metrics::table::Metric;

    fn source() -> OtlpSource {
        OtlpSource {
            instance_id: "node-7".to_owned(),
            started_at: UNIX_EPOCH + Duration::from_secs(1),
        }
    }

    fn decoded(snapshot: &MetricsSnapshot) -> Vec<ExportMetricsServiceRequest> {
        let messages = source().messages(snapshot, UNIX_EPOCH + Duration::from_secs(2));
        let decode = |message: Bytes| ExportMetricsServiceRequest::decode(message).unwrap();
        messages.into_iter().map(decode).collect()
    }

    fn metrics(request: &ExportMetricsServiceRequest) -> &[OtlpMetric] {
        &request.resource_metrics[0].scope_metrics[0].metrics
    }

    #[test]
    fn counters_are_cumulative_sums_since_the_start_and_gauges_are_gauges() {
        let mut snapshot = MetricsSnapshot::new();
        snapshot.add(Metric::ProducedBytes, ["t".into()], 7_u64);
        snapshot.set(Metric::PendingAcks, 3_u64);
        let latency = Histogram::default();
        latency.observe(Duration::from_millis(3), 5);
        snapshot.set(Metric::ProduceLatency, latency.read());
        let requests = decoded(&snapshot);
        assert_eq!(requests.len(), 1);
        let resource = requests[0].resource_metrics[0].resource.as_ref().unwrap();
        assert!(
            resource
                .attributes
                .contains(&attribute("service.instance.id", "node-7"))
        );
        let find = |name: &str| {
            let metric = metrics(&requests[0]).iter().find(|m| m.name == name);
            metric.unwrap().clone()
        };
        let bytes = find("wsproxy_produced_bytes_total");
        assert_eq!(bytes.unit, "By");
        match bytes.data.unwrap() {
            OtlpData::Sum(sum) => {
                assert!(sum.is_monotonic);
                assert_eq!(sum.aggregation_temporality, CUMULATIVE);
                let point = &sum.data_points[0];
                assert_eq!(point.attributes, [attribute("topic", "t")]);
                assert_eq!(point.start_time_unix_nano, 1_000_000_000);
                assert_eq!(point.time_unix_nano, 2_000_000_000);
                assert_eq!(point.value, Some(NumberValue::AsInt(7)));
            }
            other => panic!("{other:?}"),
        }
        match find("wsproxy_pending_acks").data.unwrap() {
            OtlpData::Gauge(gauge) => {
                assert_eq!(gauge.data_points[0].value, Some(NumberValue::AsInt(3)));
            }
            other => panic!("{other:?}"),
        }
        match find("wsproxy_produce_latency_seconds").data.unwrap() {
            OtlpData::Histogram(histogram) => {
                let point = &histogram.data_points[0];
                assert_eq!((point.count, point.sum), (5, Some(0.015)));
                assert_eq!(point.bucket_counts[2], 5);
                assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn many_topics_are_reported_in_messages_that_brokers_take_and_none_is_left_out() {
        let mut snapshot = MetricsSnapshot::new();
        let topics = 3 * POINTS_MAX / 2;
        for topic in 0..topics {
            let topic = format!("{topic:0>249}");
            snapshot.add(Metric::ProducedRecords, [topic.clone().into()], 1_u64);
            snapshot.add(Metric::ConsumedRecords, [topic.into()], 1_u64);
        }
        let messages = source().messages(&snapshot, SystemTime::now());
        assert!(messages.iter().all(|message| message.len() < 1 << 20));
        let requests = decoded(&snapshot);
        assert_eq!(requests.len(), 3);
        let points =
            requests
                .iter()
                .flat_map(metrics)
                .map(|metric| match metric.data.as_ref().unwrap() {
                    OtlpData::Sum(sum) => sum.data_points.len(),
                    other => panic!("{other:?}"),
                });
        assert_eq!(points.sum::<usize>(), 2 * topics);
    }
}
