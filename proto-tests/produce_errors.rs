//! What the brokers do not take, and what it is unknown of whether they did: the code that a
//! record is answered by, on a socket that stays open.

use std::time::Duration;

use kafka_client::{BrokerId, TopicPartition};
use memory_broker::{ApiKey, FaultAction, FaultRule};
use serde_json::Value;

use crate::support::proxy::Proxy;
use crate::support::until;

const RECORD: &str = r#"{"value":{"value":"x"},"messageId":"m"}"#;

fn assert_is(answer: &Value, code: &str) {
    assert_eq!(answer["error"]["code"], code, "{answer}");
    assert_eq!(answer["messageId"], "m");
    let message = answer["error"]["message"].as_str();
    assert!(message.is_some_and(|message| !message.is_empty()));
}

#[tokio::test]
async fn what_the_brokers_refuse_is_told_by_code_and_the_next_record_is_taken() {
    for (error, code) in [
        // TOPIC_AUTHORIZATION_FAILED, MESSAGE_TOO_LARGE, POLICY_VIOLATION.
        (29, "not_authorized"),
        (10, "too_large"),
        (44, "broker_error"),
    ] {
        let proxy = Proxy::start().await;
        proxy.topic("t", 1);
        proxy.ready().await;
        let mut socket = proxy.connect("/socket/in?topic=t").await;
        let refusal = FaultRule::on(ApiKey::Produce, FaultAction::Error(error));
        proxy.broker.faults().add(refusal.always());
        assert_is(&socket.ask(RECORD).await, code);
        proxy.broker.faults().clear();
        assert_eq!(socket.ask(RECORD).await["offset"], 0, "{code}");
        proxy.stopped().await;
    }
}

#[tokio::test]
async fn what_was_never_sent_in_time_has_timed_out_and_is_not_in_the_log() {
    let proxy =
        Proxy::with(|config| config.producer.delivery_timeout = Duration::from_millis(500)).await;
    proxy.topic("t", 1);
    proxy.ready().await;
    let mut socket = proxy.connect("/socket/in?topic=t").await;
    assert!(proxy.broker.stop_node(BrokerId(1)).await);
    assert_is(&socket.ask(RECORD).await, "timed_out");
    proxy.broker.start_node(BrokerId(1)).await.unwrap();
    let tp = TopicPartition::new("t", 0);
    let is_empty = || proxy.broker.offsets(&tp).is_some_and(|(_, end)| end == 0);
    until("the partition is back, and empty", is_empty).await;
    proxy.stopped().await;
}

#[tokio::test]
async fn what_may_be_in_the_log_has_an_unknown_outcome() {
    let proxy = Proxy::with(|config| {
        config.producer.delivery_timeout = Duration::from_millis(1000);
        config.producer.requests.request_timeout = Some(Duration::from_millis(300));
    })
    .await;
    proxy.topic("t", 1);
    proxy.ready().await;
    let mut socket = proxy.connect("/socket/in?topic=t").await;
    let taken = FaultRule::on(ApiKey::Produce, FaultAction::SilenceAfter);
    proxy.broker.faults().add(taken.always());
    assert_is(&socket.ask(RECORD).await, "unknown_outcome");
    let tp = TopicPartition::new("t", 0);
    assert_eq!(proxy.broker.offsets(&tp).unwrap().1, 1, "it is in the log");
    proxy.broker.faults().clear();
    proxy.stopped().await;
}
