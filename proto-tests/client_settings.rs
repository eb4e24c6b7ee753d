//! Settings of one kind of Kafka client act for that kind: what it asks, and how long it waits.
//!
//! In each test the setting of all clients is longer than a test waits for anything.

use std::time::Duration;

use kafka_client::config::RequestOverrides;
use kafka_websocket_proxy::config::Config;
use memory_broker::{ApiKey, FaultAction, FaultRule};

use crate::support::proxy::Proxy;

const RECORD: &str = r#"{"value":{"value":"x"}}"#;

fn patient(config: &mut Config) {
    config.client.request_timeout = Duration::from_secs(3600);
}

fn impatient() -> RequestOverrides {
    RequestOverrides {
        request_timeout: Some(Duration::from_millis(300)),
        ..RequestOverrides::default()
    }
}

#[tokio::test]
async fn consumers_ask_again_after_their_own_request_time_out() {
    for api in [
        ApiKey::FindCoordinator,
        ApiKey::OffsetFetch,
        ApiKey::ListOffsets,
    ] {
        let proxy = Proxy::with(|config| {
            patient(config);
            config.consumer.requests = impatient();
        })
        .await;
        proxy.topic("t", 1);
        proxy.ready().await;
        let silence = FaultRule::on(api, FaultAction::Silence);
        proxy.broker.faults().add(silence);
        let mut reader = proxy.connect("/socket/out?topic=t&clientId=a").await;
        let mut writer = proxy.connect("/socket/in?topic=t").await;
        assert_eq!(writer.ask(RECORD).await["offset"], 0);
        assert_eq!(reader.next().await["offset"], 0, "{api:?}");
        proxy.stopped().await;
    }
}

#[tokio::test]
async fn the_producer_asks_again_after_its_own_request_time_out() {
    let proxy = Proxy::with(|config| {
        patient(config);
        config.producer.requests = impatient();
        config.producer.delivery_timeout = Duration::from_secs(3600);
    })
    .await;
    proxy.topic("t", 1);
    proxy.ready().await;
    let mut writer = proxy.connect("/socket/in?topic=t").await;
    assert_eq!(writer.ask(RECORD).await["offset"], 0);
    // Also for the session topic, whose requests have a bound of their own.
    let silence = FaultRule::on(ApiKey::Produce, FaultAction::Silence);
    proxy.broker.faults().add(silence.times(2));
    assert_eq!(writer.ask(RECORD).await["offset"], 1);
    proxy.stopped().await;
}

#[tokio::test]
async fn a_topic_is_created_within_the_request_time_out_of_the_admin_client() {
    let proxy = Proxy::with(|config| {
        patient(config);
        config.dev = true;
        config.admin = impatient();
    })
    .await;
    proxy.ready().await;
    // NOT_CONTROLLER, which is tried again for as long as a request may take.
    let moving = FaultRule::on(ApiKey::CreateTopics, FaultAction::Error(41));
    proxy.broker.faults().add(moving.always());
    let refused = proxy.open("/socket/in?topic=new").await.err().unwrap();
    assert_eq!(refused.status, 503);
    // Else: that the brokers did not answer in time.
    let message = refused.message();
    assert!(message.contains("topic new: error 41"), "{message}");
    proxy.broker.faults().clear();
    let mut writer = proxy.connect("/socket/in?topic=new").await;
    assert_eq!(writer.ask(RECORD).await["offset"], 0);
    proxy.stopped().await;
}
