//! Names of things in a cluster.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

/// A broker's `node.id` (`broker.id` before KRaft).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BrokerId(pub i32);

impl fmt::Display for BrokerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One partition of one topic. Cloning shares the name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's index, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Names partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self {
            topic: topic.into(),
            partition,
        }
    }
}

/// Which topic of a name is meant: a topic that was deleted and created again is another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TopicIdentity {
    /// The topic's id; nil from brokers before 2.8, and while it is unknown.
    pub(crate) id: Uuid,
    /// Tells topics of one name apart whose ids are unknown, as far as metadata shows that they
    /// are not the same; 0 while it is unknown.
    pub(crate) incarnation: u64,
}

impl TopicIdentity {
    /// Whether two topics of one name are known to be different. An id that is unknown matches
    /// any.
    pub(crate) fn differs_from(self, other: Self) -> bool {
        if !self.id.is_nil() && !other.id.is_nil() {
            return self.id != other.id;
        }
        self.incarnation != other.incarnation && self.incarnation > 0 && other.incarnation > 0
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_differ_by_id_or_where_one_is_unknown_by_what_metadata_showed() {
        let topic = |id, incarnation| TopicIdentity {
            id: Uuid::from_u128(id),
            incarnation,
        };
        assert!(topic(1, 1).differs_from(topic(2, 1)));
        assert!(!topic(1, 1).differs_from(topic(1, 2)));
        assert!(topic(0, 1).differs_from(topic(0, 2)));
        // Brokers that were upgraded give an id to a topic that had none.
        assert!(!topic(0, 1).differs_from(topic(1, 1)));
        assert!(topic(1, 2).differs_from(topic(0, 1)));
        assert!(!topic(0, 0).differs_from(topic(0, 2)));
        assert!(!topic(1, 2).differs_from(topic(0, 0)));
    }
}
