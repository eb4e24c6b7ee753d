//! Where a group at `latest` begins, as it was decided.

use std::sync::Arc;

use tokio::time::Instant;
use uuid::Uuid;

use crate::fetcher::FetchPosition;
use crate::metadata::TopicMetadata;
use crate::{IsolationLevel, TopicPartition};

/// What was decided: every partition that the topics had has a committed offset, but for some,
/// whose ends are kept here, and for those that had no leader, whose leader epochs are.
#[derive(Debug)]
pub(crate) struct DecidedStart {
    topics: Vec<DecidedTopic>,
    ends: Vec<(TopicPartition, FetchPosition)>,
    leaderless: Vec<(TopicPartition, i32)>,
}

/// A topic as it was then.
#[derive(Clone, Debug, PartialEq, Eq)]
struct DecidedTopic {
    name: Arc<str>,
    id: Uuid,
    partitions: usize,
}

impl DecidedTopic {
    fn of(topic: &TopicMetadata) -> Self {
        Self {
            name: Arc::clone(&topic.name),
            id: topic.id,
            partitions: topic.partitions.len(),
        }
    }
}

impl DecidedStart {
    pub(crate) fn new(
        topics: &[Arc<TopicMetadata>],
        ends: Vec<(TopicPartition, FetchPosition)>,
        leaderless: Vec<(TopicPartition, i32)>,
    ) -> Self {
        Self {
            topics: topics.iter().map(|topic| DecidedTopic::of(topic)).collect(),
            ends,
            leaderless,
        }
    }

    /// The end of the partition's log then, if it was not committed.
    pub(crate) fn end(&self, tp: &TopicPartition, topic_id: Uuid) -> Option<FetchPosition> {
        self.topic(tp, topic_id)?;
        let found = self.ends.iter().find(|(of, _)| of == tp);
        found.map(|(_, end)| *end)
    }

    /// The leader epoch of a partition that had no leader then: its log ends where that does.
    pub(crate) fn leaderless_epoch(&self, tp: &TopicPartition, topic_id: Uuid) -> Option<i32> {
        self.topic(tp, topic_id)?;
        let found = self.leaderless.iter().find(|(of, _)| of == tp);
        found.map(|(_, epoch)| *epoch)
    }

    /// Whether the partition was added to the topic since.
    pub(crate) fn is_added_since(&self, tp: &TopicPartition, topic_id: Uuid) -> bool {
        self.topic(tp, topic_id)
            .is_some_and(|topic| tp.partition as usize >= topic.partitions)
    }

    fn topic(&self, tp: &TopicPartition, id: Uuid) -> Option<&DecidedTopic> {
        let mut topics = self.topics.iter();
        topics.find(|topic| topic.name == tp.topic && topic.id == id)
    }

    fn covers(&self, topics: &[Arc<TopicMetadata>]) -> bool {
        let mut asked = topics.iter().map(|topic| DecidedTopic::of(topic));
        asked.all(|topic| self.topics.contains(&topic))
    }
}

/// The decision that was made last in this process.
#[derive(Debug)]
pub(super) struct LastGroupStart {
    pub(super) began_at: Instant,
    pub(super) isolation: IsolationLevel,
    pub(super) start: Arc<DecidedStart>,
}

impl LastGroupStart {
    /// Whether it answers who has asked for these topics since `asked_at`.
    pub(super) fn answers(
        &self,
        asked_at: Instant,
        isolation: IsolationLevel,
        topics: &[Arc<TopicMetadata>],
    ) -> bool {
        self.began_at >= asked_at && self.isolation == isolation && self.start.covers(topics)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ID: Uuid = Uuid::from_u128(7);

    fn start(ends: &[i32]) -> DecidedStart {
        let end = |partition: &i32| {
            let position = FetchPosition {
                offset: 5,
                leader_epoch: 1,
            };
            (TopicPartition::new("t", *partition), position)
        };
        DecidedStart {
            topics: vec![DecidedTopic {
                name: "t".into(),
                id: ID,
                partitions: 2,
            }],
            ends: ends.iter().map(end).collect(),
            leaderless: vec![(TopicPartition::new("t", 0), 4)],
        }
    }

    #[test]
    fn ends_and_added_partitions_are_those_of_the_topic_that_was_decided_about() {
        let start = start(&[1]);
        let tp = |partition| TopicPartition::new("t", partition);
        assert_eq!(start.end(&tp(1), ID).map(|end| end.offset), Some(5));
        assert_eq!(start.end(&tp(0), ID), None, "committed");
        assert_eq!(start.leaderless_epoch(&tp(0), ID), Some(4));
        assert_eq!(start.leaderless_epoch(&tp(1), ID), None);
        assert!(!start.is_added_since(&tp(1), ID));
        assert!(start.is_added_since(&tp(2), ID));
        // Deleted and created again.
        let other = Uuid::from_u128(8);
        assert_eq!(start.end(&tp(1), other), None);
        assert_eq!(start.leaderless_epoch(&tp(0), other), None);
        assert!(!start.is_added_since(&tp(2), other));
    }

    #[test]
    fn a_decision_answers_those_who_asked_before_it_began() {
        let now = Instant::now();
        let isolation = IsolationLevel::ReadUncommitted;
        let last = LastGroupStart {
            began_at: now,
            isolation,
            start: Arc::new(start(&[])),
        };
        assert!(last.answers(now, isolation, &[]));
        assert!(!last.answers(now + Duration::from_millis(1), isolation, &[]));
        assert!(!last.answers(now, IsolationLevel::ReadCommitted, &[]));
    }
}
