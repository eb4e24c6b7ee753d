//! Topic lookups without a cluster: the tests are its updater.

use futures_util::FutureExt;
use futures_util::future::join_all;

use super::*;
use crate::fake::{metadata_response, topic_error, topic_metadata};

const MAX_WAIT: Duration = Duration::from_secs(30);

fn names(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

/// Answers an update: `t` has that many partitions, and nothing else exists.
fn answer(metadata: &Metadata, update: &MetadataUpdate, partitions: usize) {
    let describe = |name: &Arc<str>| match &**name {
        "t" => topic_metadata("t", 1, &vec![(1, 1); partitions]),
        name => topic_error(name, 3),
    };
    let topics = update.topics.iter().map(describe).collect();
    let brokers = [(1, "127.0.0.1:9092".parse().unwrap())];
    metadata.complete_update(update, &metadata_response(&brokers, topics));
}

/// A cluster that knows `t`, with one partition, for a while.
async fn knowing_t() -> Metadata {
    let metadata = Metadata::new(MAX_WAIT);
    let asked = metadata.topic("t");
    let answering = async { answer(&metadata, &metadata.begin_update(true), 1) };
    let (topic, ()) = tokio::join!(asked, answering);
    topic.unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    metadata
}

#[tokio::test(start_paused = true)]
async fn a_topic_lookup_is_answered_only_by_requests_that_were_sent_after_it() {
    let metadata = knowing_t().await;
    let t = names(&["t"]);
    // A request is in flight when the lookup begins.
    let before = metadata.begin_update(true);
    tokio::time::advance(Duration::from_secs(1)).await;
    let asked_at = Instant::now();
    let mut asking = Box::pin(metadata.topics_refreshed_after(&t, asked_at));
    assert!((&mut asking).now_or_never().is_none(), "it is older");
    answer(&metadata, &before, 1);
    assert!((&mut asking).now_or_never().is_none(), "so is its answer");
    tokio::time::advance(Duration::from_secs(1)).await;
    let after = metadata.begin_update(true);
    assert_eq!((after.is_full, &after.topics), (false, &t));
    answer(&metadata, &after, 2);
    let topic = asking.now_or_never().unwrap().remove(0).unwrap();
    assert_eq!(topic.partitions.len(), 2);
    // Who asked before that request began needs no other.
    let shared = metadata.topics_refreshed_after(&t, asked_at).now_or_never();
    assert!(shared.unwrap()[0].is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_deleted_is_known_no_longer_to_those_who_ask_after() {
    let metadata = knowing_t().await;
    let t = names(&["t"]);
    let mut asking = Box::pin(metadata.topics_refreshed_after(&t, Instant::now()));
    for _ in 0..2 {
        assert!((&mut asking).now_or_never().is_none());
        tokio::time::advance(Duration::from_secs(1)).await;
        let update = metadata.begin_update(true);
        let gone = metadata_response(
            &[(1, "127.0.0.1:9092".parse().unwrap())],
            vec![topic_error("t", 3)],
        );
        metadata.complete_update(&update, &gone);
    }
    let found = asking.now_or_never().unwrap().remove(0);
    assert_eq!(
        found.unwrap_err(),
        MetadataError::UnknownTopic { topic: "t".into() }
    );
    assert!(metadata.snapshot().topic("t").is_none());
}

#[tokio::test(start_paused = true)]
async fn all_topics_of_a_lookup_and_all_lookups_share_one_update() {
    let metadata = knowing_t().await;
    let t = names(&["t", "t"]);
    let all = join_all((0..100).map(|_| metadata.topics_refreshed_after(&t, Instant::now())));
    let mut all = Box::pin(all);
    assert!((&mut all).now_or_never().is_none());
    tokio::time::advance(Duration::from_secs(1)).await;
    answer(&metadata, &metadata.begin_update(true), 1);
    let all = all.now_or_never().expect("one update answers all");
    assert!(all.iter().flatten().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn one_deadline_holds_for_all_topics_of_a_lookup() {
    let metadata = Metadata::new(MAX_WAIT);
    let many: Vec<Arc<str>> = (0..70).map(|i| format!("t{i}").into()).collect();
    let asked_at = Instant::now();
    let found = metadata.topics_refreshed_after(&many, asked_at).await;
    assert!(asked_at.elapsed() < 2 * MAX_WAIT);
    assert_eq!(found.len(), 70);
    for result in found {
        assert!(matches!(result, Err(MetadataError::Unavailable { .. })));
    }
}

#[tokio::test]
async fn a_cluster_that_takes_anothers_place_is_said_once_as_a_warning() {
    let warnings = crate::fake::Warnings::collect();
    let metadata = Metadata::new(MAX_WAIT);
    let answer_as = |cluster: &'static str| {
        let update = metadata.begin_update(true);
        let brokers = [(1, "127.0.0.1:9092".parse().unwrap())];
        let response = metadata_response(&brokers, vec![topic_metadata("t", 1, &[(1, 1)])]);
        let id = kafka_protocol::protocol::StrBytes::from_static_str(cluster);
        metadata.complete_update(&update, &response.with_cluster_id(Some(id)));
        warnings.count_of("another cluster answers")
    };
    assert_eq!(answer_as("old"), 0);
    assert_eq!(answer_as("old"), 0);
    for _ in 0..3 {
        assert_eq!(answer_as("new"), 1);
    }
    let named = warnings.count_of(r#"old="old" new="new""#);
    assert_eq!(named, 1, "which clusters these are");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_answered_changes_nothing_and_finds_brokers_that_have_come() {
    let metadata = Metadata::new(MAX_WAIT);
    let at = |port: u16| (i32::from(port), ([127, 0, 0, 1], port).into());
    let complete = |update: &MetadataUpdate, ports: &[u16], controller: i32| {
        let brokers: Vec<_> = ports.iter().copied().map(at).collect();
        let response = metadata_response(&brokers, Vec::new());
        metadata.complete_update(update, &response.with_controller_id(controller.into()));
    };
    complete(&metadata.begin_update(true), &[1, 2], 1);
    let changes = metadata.subscribe();
    metadata.suspect_outage("silence");
    // Another broker answers, in its own order; with KRaft it names any broker as the controller.
    complete(&metadata.begin_probe(true), &[2, 1], 2);
    assert_eq!(metadata.last_update_error(), None);
    assert!(!changes.has_changed().unwrap());
    complete(&metadata.begin_probe(true), &[2, 3], 2);
    assert!(!changes.has_changed().unwrap());
    assert!(metadata.begin_probe(true).is_full);
}
