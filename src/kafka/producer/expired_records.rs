//! How many records of which topics the delivery timeout has failed, to be logged now and then.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tokio::time::{Duration, Instant};

/// From one report to the next.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// So many topics are named, those with the most records.
const TOPICS_NAMED_MAX: usize = 10;

/// Counts records that were not written within `delivery.timeout.ms`, and says when that is due to
/// be reported: at once, and then every five seconds.
#[derive(Debug, Default)]
pub(super) struct ExpiredRecords {
    by_topic: BTreeMap<Arc<str>, u64>,
    reported_at: Option<Instant>,
}

/// What there is to report. Prints as `orders: 12, payments: 3, and 4 topics more`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ExpiredReport {
    pub(super) records: u64,
    /// Most records first.
    topics: Vec<(Arc<str>, u64)>,
}

impl ExpiredRecords {
    pub(super) fn add(&mut self, topic: &Arc<str>, count: u32) {
        if count > 0 {
            *self.by_topic.entry(Arc::clone(topic)).or_default() += u64::from(count);
        }
    }

    /// When the next report is due; `None` while there is nothing to say.
    pub(super) fn due_at(&self, now: Instant) -> Option<Instant> {
        let after_last = self.reported_at.map_or(now, |at| at + REPORT_INTERVAL);
        (!self.by_topic.is_empty()).then_some(after_last)
    }

    /// The report, if it is due; counting starts again.
    pub(super) fn take_report(&mut self, now: Instant) -> Option<ExpiredReport> {
        if self.due_at(now)? > now {
            return None;
        }
        self.reported_at = Some(now);
        let mut topics: Vec<_> = std::mem::take(&mut self.by_topic).into_iter().collect();
        topics.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Some(ExpiredReport {
            records: topics.iter().map(|(_, count)| count).sum(),
            topics,
        })
    }
}

impl fmt::Display for ExpiredReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (topic, count)) in self.topics.iter().take(TOPICS_NAMED_MAX).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{topic}: {count}")?;
        }
        match self.topics.len().saturating_sub(TOPICS_NAMED_MAX) {
            0 => Ok(()),
            others => write!(f, ", and {others} topics more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expired_records_are_reported_at_once_and_then_together_every_five_seconds() {
        let mut expired = ExpiredRecords::default();
        let begin = Instant::now();
        assert_eq!(expired.due_at(begin), None);
        expired.add(&"a".into(), 3);
        assert_eq!(expired.take_report(begin).unwrap().to_string(), "a: 3");
        expired.add(&"a".into(), 1);
        expired.add(&"b".into(), 7);
        expired.add(&"c".into(), 0);
        assert_eq!(expired.take_report(begin + Duration::from_secs(4)), None);
        let due = expired.due_at(begin).unwrap();
        assert_eq!(due, begin + REPORT_INTERVAL);
        let report = expired.take_report(due).unwrap();
        assert_eq!((report.records, &*report.to_string()), (8, "b: 7, a: 1"));
        assert_eq!(expired.due_at(due), None);
    }

    #[test]
    fn a_report_names_ten_topics() {
        let mut expired = ExpiredRecords::default();
        for topic in 0..12 {
            expired.add(&format!("t{topic:02}").into(), 1);
        }
        let report = expired.take_report(Instant::now()).unwrap().to_string();
        assert!(report.starts_with("t00: 1, t01: 1"), "{report}");
        assert!(report.ends_with("t09: 1, and 2 topics more"), "{report}");
    }
}
