//! A set of partitions that costs next to nothing when it is small: thousands of members
//! own one partition each. Sorted, as subscriptions name them.

use crate::TopicPartition;

/// Partitions in order, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartitionSet(Vec<TopicPartition>);

impl PartitionSet {
    pub(crate) fn contains(&self, tp: &TopicPartition) -> bool {
        self.0.binary_search(tp).is_ok()
    }

    /// Those that `other` lacks.
    pub(crate) fn without(&self, other: &Self) -> Vec<TopicPartition> {
        let missing = self.0.iter().filter(|tp| !other.contains(tp));
        missing.cloned().collect()
    }

    pub(crate) fn to_vec(&self) -> Vec<TopicPartition> {
        self.0.clone()
    }

    /// Gives its memory back as well.
    pub(crate) fn clear(&mut self) {
        self.0 = Vec::new();
    }
}

impl FromIterator<TopicPartition> for PartitionSet {
    fn from_iter<I: IntoIterator<Item = TopicPartition>>(partitions: I) -> Self {
        let mut list: Vec<_> = partitions.into_iter().collect();
        list.sort_unstable();
        list.dedup();
        list.shrink_to_fit();
        Self(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(list: &[i32]) -> PartitionSet {
        list.iter().map(|p| TopicPartition::new("t", *p)).collect()
    }

    #[test]
    fn it_is_sorted_and_holds_each_once() {
        let mut some = set(&[3, 1, 2, 3]);
        assert_eq!(some, set(&[1, 2, 3]));
        assert!(some.contains(&TopicPartition::new("t", 2)));
        assert_eq!(some.without(&set(&[1, 3, 4])), set(&[2]).to_vec());
        some.clear();
        assert_eq!(some, set(&[]));
    }
}
