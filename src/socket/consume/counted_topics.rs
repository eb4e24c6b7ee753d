//! Where a consuming socket counts what it sends.

use std::sync::Arc;

use crate::metrics::sockets::SocketMetrics;
use crate::metrics::topics::TopicCounters;

/// The counters of the topics that one socket reads.
#[derive(Debug)]
pub(super) struct CountedTopics(Box<[(Arc<str>, Arc<TopicCounters>)]>);

impl CountedTopics {
    pub(super) fn new(topics: &[Arc<str>], metrics: &SocketMetrics) -> Self {
        let each = topics.iter();
        let counted = each.map(|topic| (Arc::clone(topic), metrics.topics.counters(topic)));
        Self(counted.collect())
    }

    /// So many records of that topic, of so many bytes, were sent.
    pub(super) fn count(&self, topic: &str, records: usize, bytes: u64) {
        let counted = self.0.iter().find(|(known, _)| **known == *topic);
        if let Some((_, counters)) = counted {
            counters.consumed_records.add(records as u64);
            counters.consumed_bytes.add(bytes);
        }
    }
}
