//! A topic that is deleted and created again is another topic: no offset of the former one is
//! committed for it.

use kafka_client::consumer::{Consumer, ConsumerError, ConsumerEvent, FetchPosition};
use kafka_client::group::CommitError;
use memory_broker::KafkaRelease;

use crate::group_faults::{GroupFixture, next, quick};
use crate::support::reader::{Process, subscription};

/// Releases whose topics have ids in Metadata, and those whose groups know them, too.
const WITH_IDS: [KafkaRelease; 3] = [KafkaRelease::V2_8, KafkaRelease::V3_9, KafkaRelease::V4];

const AT_5: FetchPosition = FetchPosition {
    offset: 5,
    leader_epoch: 0,
};

/// Reads until there are records.
async fn started(consumer: &mut Consumer) {
    while !matches!(next(consumer).await, ConsumerEvent::Records(_)) {}
}

/// Deletes `t` and creates it again, with 8 records.
async fn recreate(fixture: &GroupFixture) -> Process {
    assert!(fixture.broker.delete_topic("t"));
    assert!(fixture.broker.create_topic("t", 1));
    // The fixture's own process knows the former topic.
    let fresh = Process::new(&fixture.broker.bootstrap(), quick());
    let tp = kafka_client::TopicPartition::new("t", 0);
    GroupFixture::produce_by(&fresh, &tp, 8).await;
    fresh
}

async fn assert_all_are_read(process: &Process) {
    let mut reader = process.reader(subscription("g", &["t"]));
    let seen = reader.until("the new records", |seen| seen.count() >= 8);
    let seen = seen.await;
    let offsets: Vec<_> = seen.values.values().flatten().map(|(at, _)| *at).collect();
    assert_eq!(offsets, [0, 1, 2, 3, 4, 5, 6, 7]);
    reader.close().await;
}

#[tokio::test]
async fn no_offset_of_a_deleted_topic_is_committed_for_the_new_one_of_its_name() {
    for release in WITH_IDS {
        let fixture = GroupFixture::with(1, release, quick()).await;
        let tp = &fixture.topic("t", 1).await[0];
        let mut consumer = fixture.process.consumer(subscription("g", &["t"]));
        started(&mut consumer).await;
        consumer.store_offset(tp, AT_5);
        let fresh = recreate(&fixture).await;
        let committed = consumer.commit().await;
        assert!(
            matches!(committed, Err(CommitError::Rejected { .. })),
            "{release:?}: {committed:?}"
        );
        assert_eq!(fixture.broker.committed("g", tp), None, "{release:?}");
        consumer.close().await;
        assert_eq!(fixture.broker.committed("g", tp), None, "{release:?}");
        assert_all_are_read(&fresh).await;
    }
}

#[tokio::test]
async fn the_last_commit_of_a_consumer_that_ends_with_its_topic_is_not_for_the_new_one() {
    for release in WITH_IDS {
        let fixture = GroupFixture::with(1, release, quick()).await;
        let tp = &fixture.topic("t", 1).await[0];
        let mut consumer = fixture.process.consumer(subscription("g", &["t"]));
        started(&mut consumer).await;
        consumer.store_offset(tp, AT_5);
        let fresh = recreate(&fixture).await;
        let error = loop {
            match next(&mut consumer).await {
                ConsumerEvent::Closed(error) => break error,
                ConsumerEvent::Records(records) => {
                    // Before 3.1 topics are fetched by name: these may be of the new one.
                    assert_eq!(release, KafkaRelease::V2_8, "{records:?}");
                    let offset = records.chunk.next_offset;
                    assert!(offset > 5, "{records:?}");
                    let next = FetchPosition { offset, ..AT_5 };
                    consumer.store_offset(tp, next);
                    consumer.request_commit();
                }
                _ => {}
            }
        };
        assert!(
            matches!(error, ConsumerError::UnknownTopic { .. }),
            "{release:?}: {error}"
        );
        consumer.close().await;
        assert_eq!(fixture.broker.committed("g", tp), None, "{release:?}");
        assert_all_are_read(&fresh).await;
    }
}
