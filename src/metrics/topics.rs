//! Counters per topic, for so many topics.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use runtime::counters::Counter;
use runtime::mutex::lock;

use super::snapshot::LabelValue;

/// The label of all topics beyond those that have counters of their own. No topic is called so.
pub(crate) const OTHER_TOPICS: &str = "(other)";

/// What went through one topic, or through those beyond the limit.
#[derive(Debug, Default)]
pub(crate) struct TopicCounters {
    pub(crate) produced_records: Counter,
    pub(crate) produced_bytes: Counter,
    pub(crate) consumed_records: Counter,
    pub(crate) consumed_bytes: Counter,
}

/// The counters of all topics: the first that are used have their own, for as long as the process
/// lives.
#[derive(Debug)]
pub(crate) struct TopicTable {
    own_max: usize,
    own: Mutex<HashMap<Arc<str>, Arc<TopicCounters>>>,
    other: Arc<TopicCounters>,
}

impl TopicTable {
    /// So many topics get counters of their own.
    pub(crate) fn new(own_max: usize) -> Self {
        Self {
            own_max,
            own: Mutex::default(),
            other: Arc::default(),
        }
    }

    /// The counters for that topic. To be asked for once per socket.
    pub(crate) fn counters(&self, topic: &Arc<str>) -> Arc<TopicCounters> {
        let mut own = lock(&self.own);
        if let Some(known) = own.get(topic) {
            return Arc::clone(known);
        }
        if own.len() >= self.own_max {
            return Arc::clone(&self.other);
        }
        let counters = own.entry(Arc::clone(topic)).or_default();
        Arc::clone(counters)
    }

    /// The label of that topic.
    pub(crate) fn label(&self, topic: &str) -> LabelValue {
        match lock(&self.own).contains_key(topic) {
            true => topic.to_owned().into(),
            false => OTHER_TOPICS.into(),
        }
    }

    /// The counters with their labels, in the order of the labels.
    pub(crate) fn all(&self) -> Vec<(LabelValue, Arc<TopicCounters>)> {
        let mut all: Vec<(LabelValue, Arc<TopicCounters>)> = {
            let own = lock(&self.own);
            let own = own.iter();
            own.map(|(topic, counters)| (topic.to_string().into(), Arc::clone(counters)))
                .collect()
        };
        all.push((OTHER_TOPICS.into(), Arc::clone(&self.other)));
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_beyond_the_limit_share_their_counters_and_those_within_keep_theirs() {
        let table = TopicTable::new(2);
        let counters = |topic: &str| table.counters(&topic.into());
        counters("b").produced_records.add(1);
        counters("a").produced_records.add(2);
        counters("c").produced_records.add(4);
        counters("d").produced_records.add(8);
        counters("b").produced_records.add(16);
        let all = table.all();
        let read: Vec<_> = all
            .iter()
            .map(|(label, counters)| (&**label, counters.produced_records.get()))
            .collect();
        assert_eq!(read, [(OTHER_TOPICS, 12), ("a", 2), ("b", 17)]);
        assert_eq!(table.label("a"), "a");
        assert_eq!(table.label("c"), OTHER_TOPICS);
        assert_eq!(table.label("never"), OTHER_TOPICS);
    }
}
