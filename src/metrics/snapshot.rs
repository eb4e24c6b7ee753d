//! The values of all metrics at one time.

use std::borrow::Cow;

use runtime::counters::HistogramReading;

use super::table::{METRICS, Metric, MetricSpec};

/// The value of a label.
pub(crate) type LabelValue = Cow<'static, str>;

/// The series of every metric.
#[derive(Debug)]
pub(crate) struct MetricsSnapshot {
    /// In the order of the table.
    series: Vec<Vec<MetricSeries>>,
}

/// One series: the values of its labels, in the order of the row, and its own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MetricSeries {
    pub(crate) labels: Vec<LabelValue>,
    pub(crate) value: MetricValue,
}

/// What a series is at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum MetricValue {
    Int(u64),
    Float(f64),
    Histogram(HistogramReading),
}

impl From<u64> for MetricValue {
    fn from(value: u64) -> Self {
        Self::Int(value)
    }
}

impl From<usize> for MetricValue {
    fn from(value: usize) -> Self {
        Self::Int(value as u64)
    }
}

impl From<f64> for MetricValue {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<HistogramReading> for MetricValue {
    fn from(value: HistogramReading) -> Self {
        Self::Histogram(value)
    }
}

impl MetricsSnapshot {
    /// Without any series.
    pub(crate) fn new() -> Self {
        Self {
            series: METRICS.iter().map(|_| Vec::new()).collect(),
        }
    }

    /// Adds a metric that has one series.
    pub(crate) fn set(&mut self, metric: Metric, value: impl Into<MetricValue>) {
        self.add(metric, [], value);
    }

    /// Adds the series with these values of the metric's labels.
    pub(crate) fn add<const N: usize>(
        &mut self,
        metric: Metric,
        labels: [LabelValue; N],
        value: impl Into<MetricValue>,
    ) {
        debug_assert_eq!(N, metric.spec().labels.len(), "{metric:?}");
        self.series[metric as usize].push(MetricSeries {
            labels: labels.into(),
            value: value.into(),
        });
    }

    /// Every row of the table, with its series.
    pub(crate) fn families(&self) -> impl Iterator<Item = (&'static MetricSpec, &[MetricSeries])> {
        METRICS.iter().zip(self.series.iter().map(Vec::as_slice))
    }
}
