//! The clusters of `scripts/kafka` themselves.

use crate::support::kafka::{Kafka, unique};

#[test]
fn a_real_cluster_carries_records_between_independent_clients() {
    let kafka = Kafka::shared("4.4", 1);
    let topic = unique("smoke");
    kafka.create_topic(&topic, 1, 1);
    kafka.kcat(&["-P", "-t", &topic], b"one\ntwo\n");
    let read = kafka.kcat(
        &["-C", "-t", &topic, "-o", "beginning", "-e", "-f", "%s\n"],
        b"",
    );
    assert_eq!(read, b"one\ntwo\n");
}
