//! Where a group at `latest` begins, as it was decided.

use std::sync::Arc;

use tokio::time::Instant;

use crate::fetcher::FetchPosition;
use crate::metadata::TopicMetadata;
use crate::{IsolationLevel, TopicIdentity, TopicPartition};

/// What was decided: every partition that the topics had has a committed offset, but for some,
/// whose ends are kept here, and for those that had no leader, whose leader epochs are.
#[derive(Debug)]
pub(crate) struct DecidedStart {
    topics: Vec<DecidedTopic>,
    ends: Vec<(TopicPartition, FetchPosition)>,
    leaderless: Vec<(TopicPartition, i32)>,
}

/// A topic as it was then.
#[derive(Clone, Debug)]
struct DecidedTopic {
    name: Arc<str>,
    identity: TopicIdentity,
    partitions: usize,
}

impl DecidedTopic {
    fn of(topic: &TopicMetadata) -> Self {
        Self {
            name: Arc::clone(&topic.name),
            identity: topic.identity(),
            partitions: topic.partitions.len(),
        }
    }

    fn is_same_as(&self, other: &Self) -> bool {
        self.name == other.name
            && !self.identity.differs_from(other.identity)
            && self.partitions == other.partitions
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
    pub(crate) fn end(
        &self,
        tp: &TopicPartition,
        identity: TopicIdentity,
    ) -> Option<FetchPosition> {
        self.topic(tp, identity)?;
        let found = self.ends.iter().find(|(of, _)| of == tp);
        found.map(|(_, end)| *end)
    }

    /// The leader epoch of a partition that had no leader then: its log ends where that does.
    pub(crate) fn leaderless_epoch(
        &self,
        tp: &TopicPartition,
        identity: TopicIdentity,
    ) -> Option<i32> {
        self.topic(tp, identity)?;
        let found = self.leaderless.iter().find(|(of, _)| of == tp);
        found.map(|(_, epoch)| *epoch)
    }

    /// Whether the partition was added to the topic since.
    pub(crate) fn is_added_since(&self, tp: &TopicPartition, identity: TopicIdentity) -> bool {
        self.topic(tp, identity)
            .is_some_and(|topic| tp.partition as usize >= topic.partitions)
    }

    fn topic(&self, tp: &TopicPartition, identity: TopicIdentity) -> Option<&DecidedTopic> {
        let mut topics = self.topics.iter();
        topics.find(|topic| topic.name == tp.topic && !topic.identity.differs_from(identity))
    }

    fn covers(&self, topics: &[Arc<TopicMetadata>]) -> bool {
        let is_decided = |asked: &DecidedTopic| {
            let mut topics = self.topics.iter();
            topics.any(|topic| topic.is_same_as(asked))
        };
        topics
            .iter()
            .all(|topic| is_decided(&DecidedTopic::of(topic)))
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

    const TOPIC: TopicIdentity = identity(7);

    const fn identity(id: u128) -> TopicIdentity {
        TopicIdentity {
            id: uuid::Uuid::from_u128(id),
            incarnation: 1,
        }
    }

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
                identity: TOPIC,
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
        assert_eq!(start.end(&tp(1), TOPIC).map(|end| end.offset), Some(5));
        assert_eq!(start.end(&tp(0), TOPIC), None, "committed");
        assert_eq!(start.leaderless_epoch(&tp(0), TOPIC), Some(4));
        assert_eq!(start.leaderless_epoch(&tp(1), TOPIC), None);
        assert!(!start.is_added_since(&tp(1), TOPIC));
        assert!(start.is_added_since(&tp(2), TOPIC));
        // Deleted and created again.
        let other = identity(8);
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
