//! Numbers that tasks count and somebody else reads now and then: plain relaxed atomics, without
//! names, locks or allocation. What they are called is decided where they are reported.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Counts events since the start of the process.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one more.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts so many more.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many there were so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many there are now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds so many, which may be negative.
    #[inline]
    pub fn add(&self, difference: i64) {
        self.0.fetch_add(difference, Ordering::Relaxed);
    }

    /// How many there are. One that is taken off may be seen before it is added.
    pub fn get(&self) -> u64 {
        u64::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(0)
    }
}

/// The upper bounds of a [`Histogram`]'s buckets but the last, in seconds.
pub const HISTOGRAM_BOUNDS: [f64; 15] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0,
];

/// Durations by how long they were.
#[derive(Debug, Default)]
pub struct Histogram {
    /// By bound, and those beyond the last one.
    buckets: [Counter; HISTOGRAM_BOUNDS.len() + 1],
    sum_micros: Counter,
}

/// What a [`Histogram`] held when it was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramReading {
    /// How many durations were within each of the [`HISTOGRAM_BOUNDS`] and beyond the bound before
    /// it; and, last, how many were beyond all.
    pub buckets: [u64; HISTOGRAM_BOUNDS.len() + 1],
    /// All durations together, in seconds.
    pub sum: f64,
}

impl Histogram {
    /// Counts `count` events that took that long each.
    pub fn observe(&self, duration: Duration, count: u64) {
        let seconds = duration.as_secs_f64();
        let bucket = HISTOGRAM_BOUNDS.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].add(count);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.sum_micros.add(micros.saturating_mul(count));
    }

    /// What it holds.
    pub fn read(&self) -> HistogramReading {
        HistogramReading {
            buckets: std::array::from_fn(|bucket| self.buckets[bucket].get()),
            sum: self.sum_micros.get() as f64 / 1e6,
        }
    }
}

impl HistogramReading {
    /// How many durations there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_bucket_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_millis(1), 2);
        histogram.observe(Duration::from_micros(1001), 1);
        histogram.observe(Duration::from_secs(121), 4);
        let reading = histogram.read();
        assert_eq!(reading.buckets[0], 2);
        assert_eq!(reading.buckets[1], 1);
        assert_eq!(reading.buckets[HISTOGRAM_BOUNDS.len()], 4);
        assert_eq!(reading.count(), 7);
        assert!((reading.sum - 484.003_001).abs() < 1e-6, "{}", reading.sum);
    }

    #[test]
    fn a_gauge_that_is_seen_between_two_changes_is_not_below_zero() {
        let gauge = Gauge::default();
        gauge.add(-1);
        assert_eq!(gauge.get(), 0);
        gauge.add(3);
        assert_eq!(gauge.get(), 2);
    }
}
