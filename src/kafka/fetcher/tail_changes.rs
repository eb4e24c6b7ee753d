//! The partitions of one tail whose next fetch may begin elsewhere than the last one.

use std::collections::HashSet;
use std::sync::Mutex;

use runtime::mutex::lock;

use crate::TopicPartition;

/// Filled by whoever changes what the tail is to fetch of a partition; taken by the tail before
/// its next request. No other lock is taken under its own.
#[derive(Debug, Default)]
pub(super) struct TailChanges {
    changed: Mutex<HashSet<TopicPartition>>,
}

impl TailChanges {
    pub(super) fn add(&self, tp: &TopicPartition) {
        lock(&self.changed).insert(tp.clone());
    }

    pub(super) fn take(&self) -> HashSet<TopicPartition> {
        std::mem::take(&mut lock(&self.changed))
    }
}
