//! A topic that is deleted and created again is another topic: no offset of the former one is
//! committed for it.

use kafka_client::TopicPartition;
use kafka_client::consumer::{Consumer, ConsumerError, ConsumerEvent, FetchPosition};
use kafka_client::group::CommitError;
use memory_broker::{ApiKey, FaultAction, FaultRule, KafkaRelease};
use tokio_util::sync::CancellationToken;

use crate::group_faults::{GroupFixture, next, quick};
use crate::support::reader::{Process, subscription};
use crate::support::until;

/// Without topic ids; with them in Metadata; in fetches, too; in commits, too.
const RELEASES: [KafkaRelease; 4] = [
    KafkaRelease::V2_1,
    KafkaRelease::V2_8,
    KafkaRelease::V3_9,
    KafkaRelease::V4,
];

const AT_5: FetchPosition = FetchPosition {
    offset: 5,
    leader_epoch: 0,
};

/// A consumer of `t` that has read its 5 records and has stored that.
struct Started {
    fixture: GroupFixture,
    consumer: Consumer,
    tp: TopicPartition,
    release: KafkaRelease,
}

impl Started {
    async fn new(release: KafkaRelease) -> Self {
        let fixture = GroupFixture::with(1, release, quick()).await;
        let tp = fixture.topic("t", 1).await.remove(0);
        let mut consumer = fixture.process.consumer(subscription("g", &["t"]));
        while !matches!(next(&mut consumer).await, ConsumerEvent::Records(_)) {}
        consumer.store_offset(&tp, AT_5);
        Self {
            fixture,
            consumer,
            tp,
            release,
        }
    }

    /// Has the partition fetched: else nobody sees what becomes of a topic without id.
    fn reads_on(&mut self) {
        let more = self.consumer.try_next();
        assert!(more.is_none(), "{more:?}");
    }

    /// Deletes `t` and creates it again, with `records` records.
    async fn recreate(&self, records: usize) -> Process {
        let broker = &self.fixture.broker;
        assert!(broker.delete_topic("t"));
        if self.release == KafkaRelease::V2_1 {
            let metadata = self.fixture.process.client.cluster().metadata();
            let is_forgotten = || metadata.snapshot().topic("t").is_none();
            until("the deletion is seen", is_forgotten).await;
        }
        assert!(broker.create_topic("t", 1));
        // The fixture's own process knows the former topic.
        let fresh = Process::new(&broker.bootstrap(), quick());
        GroupFixture::produce_by(&fresh, &self.tp, records).await;
        fresh
    }

    fn committed(&self) -> Option<i64> {
        self.fixture.broker.committed("g", &self.tp)
    }
}

async fn assert_all_are_read(process: &Process, count: usize) {
    let mut reader = process.reader(subscription("g", &["t"]));
    let seen = reader.until("the new records", |seen| seen.count() >= count);
    let seen = seen.await;
    let offsets = seen.values.values().flatten().map(|(at, _)| *at);
    let all: Vec<i64> = (0..).take(count).collect();
    assert_eq!(offsets.collect::<Vec<_>>(), all);
    reader.close().await;
}

#[tokio::test]
async fn no_offset_of_a_deleted_topic_is_committed_for_the_new_one_of_its_name() {
    for release in RELEASES {
        let mut test = Started::new(release).await;
        test.reads_on();
        let fresh = test.recreate(8).await;
        let committed = test.consumer.commit().await;
        assert!(
            matches!(committed, Err(CommitError::Rejected { .. })),
            "{release:?}: {committed:?}"
        );
        assert_eq!(test.committed(), None, "{release:?}");
        test.consumer.close().await;
        let committed = test.fixture.broker.committed("g", &test.tp);
        assert_eq!(committed, None, "{release:?}");
        assert_all_are_read(&fresh, 8).await;
    }
}

#[tokio::test]
async fn no_offset_is_committed_beyond_the_end_of_a_log_whose_topic_has_no_id() {
    let mut test = Started::new(KafkaRelease::V2_1).await;
    // Nobody sees that it is deleted.
    assert!(test.fixture.broker.delete_topic("t"));
    assert!(test.fixture.broker.create_topic("t", 1));
    let committed = test.consumer.commit().await;
    assert!(
        matches!(committed, Err(CommitError::Rejected { .. })),
        "{committed:?}"
    );
    assert_eq!(test.committed(), None);
}

#[tokio::test]
async fn an_offset_that_was_committed_by_name_for_a_new_topic_is_replaced_by_its_start() {
    for release in RELEASES {
        let mut test = Started::new(release).await;
        if release == KafkaRelease::V2_1 {
            test.reads_on();
        }
        let goes_on = CancellationToken::new();
        let hold = FaultAction::HoldBefore(goes_on.clone());
        let faults = test.fixture.broker.faults();
        faults.add(FaultRule::on(ApiKey::OffsetCommit, hold));
        test.consumer.request_commit();
        until("it is on its way", || faults.left() == 0).await;
        let fresh = test.recreate(8).await;
        goes_on.cancel();
        let committed = test.consumer.commit().await;
        assert!(
            matches!(committed, Err(CommitError::Rejected { .. })),
            "{release:?}: {committed:?}"
        );
        let committed = test.committed();
        match release {
            KafkaRelease::V4 => assert_eq!(committed, None),
            KafkaRelease::V2_8 | KafkaRelease::V3_9 => {
                assert_eq!(committed, Some(0), "{release:?}")
            }
            // Perhaps the group has been rebalanced before, since it has another topic.
            KafkaRelease::V2_1 => assert!(matches!(committed, None | Some(0)), "{committed:?}"),
        }
        test.consumer.close().await;
        assert_all_are_read(&fresh, 8).await;
    }
}

#[tokio::test]
async fn the_last_commit_of_a_consumer_that_ends_with_its_topic_is_not_for_the_new_one() {
    for release in RELEASES {
        let mut test = Started::new(release).await;
        test.reads_on();
        let fresh = test.recreate(8).await;
        let error = loop {
            match next(&mut test.consumer).await {
                ConsumerEvent::Closed(error) => break error,
                ConsumerEvent::Records(records) => {
                    // Before 3.1 topics are fetched by name: these may be of the new one.
                    assert_eq!(release, KafkaRelease::V2_8, "{records:?}");
                    let offset = records.chunk.next_offset;
                    assert!(offset > 5, "{records:?}");
                    let next = FetchPosition { offset, ..AT_5 };
                    test.consumer.store_offset(&test.tp, next);
                    test.consumer.request_commit();
                }
                _ => {}
            }
        };
        assert!(
            matches!(error, ConsumerError::UnknownTopic { .. }),
            "{release:?}: {error}"
        );
        test.consumer.close().await;
        let committed = test.fixture.broker.committed("g", &test.tp);
        assert_eq!(committed, None, "{release:?}");
        assert_all_are_read(&fresh, 8).await;
    }
}
