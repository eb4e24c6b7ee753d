//! Frames for tests.

use std::sync::Arc;

use super::frame::TransactionFrame;
use crate::fake::{metadata_response, topic_metadata};
use crate::metadata::{ClusterSnapshot, TopicMetadata};
use crate::record::NewRecord;

/// A topic whose partitions broker 1 leads.
pub(super) fn topic(name: &'static str, partitions: usize) -> Arc<TopicMetadata> {
    let address = "127.0.0.1:9092".parse().unwrap();
    let topic = topic_metadata(name, 5, &vec![(1, 0); partitions]);
    let response = metadata_response(&[(1, address)], vec![topic]);
    let snapshot = ClusterSnapshot::default().merge_with(&response).0;
    Arc::clone(snapshot.topic(name).unwrap())
}

/// Partition and value of each record.
pub(super) fn frame_of(
    topic: &Arc<TopicMetadata>,
    records: &[(Option<i32>, &str)],
) -> TransactionFrame {
    let mut frame = TransactionFrame::default();
    for (partition, value) in records {
        let record = NewRecord {
            key: None,
            value: Some(value.as_bytes()),
            headers: &[],
            timestamp: 1_000,
        };
        frame.push(topic, *partition, &record);
    }
    frame
}
