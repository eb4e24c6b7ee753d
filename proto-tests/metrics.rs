//! `/metrics`: what it counts, and how it is written.

mod exposition;

use std::time::Duration;

use kafka_client::consumer::TopicPartition;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;
use memory_broker::{BrokerConfig, FaultAction, FaultRule, MemoryBroker};
use serde_json::Value;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::support::proxy::Proxy;
use crate::support::ws_client::WsClient;
use crate::support::{http, until, until_asked};
use exposition::Exposition;
use kafka_websocket_proxy::config::Config;

const OPEN_METRICS: &str = "Accept: application/openmetrics-text";

/// What is written now.
async fn scrape(proxy: &Proxy) -> Exposition {
    let answer = http::ask(&proxy.address, "GET", "/metrics", &[]).await;
    assert_eq!(answer.status, 200);
    Exposition::parse_prometheus(&answer.body)
}

/// Waits until a series is at that value.
async fn until_at(proxy: &Proxy, series: &str, value: f64) {
    until_asked(series, async || {
        scrape(proxy).await.value(series) == Some(value)
    })
    .await;
}

/// Sends a record with that key and value; awaits its answer.
async fn produce(client: &mut WsClient, key: &str, value: &str) -> Value {
    let record = serde_json::json!({"key": {"value": key}, "value": {"value": value}});
    client.ask(record.to_string()).await
}

#[tokio::test]
async fn what_was_produced_and_consumed_is_counted_with_keys_and_values() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 2);
    let mut writer = proxy.connect("/socket/in?topic=t").await;
    for i in 0..20 {
        let answer = produce(&mut writer, "key", &format!("value-{:02}", i)).await;
        assert!(answer["offset"].is_i64(), "{answer}");
    }
    writer.ask(r#"{"value":{"value":null}}"#).await;
    let refused = writer.ask("no json").await;
    assert_eq!(refused["error"]["code"], "invalid_json");
    // 20 × ("key" and "value-00"), and a tombstone.
    let (records, bytes) = (21.0, 20.0 * 11.0);
    let mut single = proxy.connect("/socket/out?topic=t&clientId=a").await;
    single.records(21).await;
    let arrays = "/socket/out?topic=t&clientId=b&batchSize=4";
    let mut arrays = proxy.connect(arrays).await;
    arrays.records(21).await;
    let counted = scrape(&proxy).await;
    for (series, value) in [
        (r#"wsproxy_produced_records_total{topic="t"}"#, records),
        (r#"wsproxy_produced_bytes_total{topic="t"}"#, bytes),
        (r#"wsproxy_produce_errors_total{code="invalid_json"}"#, 1.0),
        (r#"wsproxy_produce_latency_seconds_count"#, records),
        ("wsproxy_pending_acks", 0.0),
        ("wsproxy_producer_memory_bytes", 0.0),
        (
            r#"wsproxy_consumed_records_total{topic="t"}"#,
            2.0 * records,
        ),
        (r#"wsproxy_consumed_bytes_total{topic="t"}"#, 2.0 * bytes),
        (r#"wsproxy_consumer_lag_records{topic="t"}"#, 0.0),
        ("wsproxy_read_partitions", 2.0),
        ("wsproxy_cursors", 4.0),
        (r#"wsproxy_group_members{state="stable"}"#, 2.0),
        ("wsproxy_kafka_brokers", 1.0),
        ("wsproxy_kafka_users", 0.0),
        (r#"wsproxy_sockets{endpoint="in"}"#, 1.0),
        (r#"wsproxy_sockets{endpoint="out"}"#, 2.0),
    ] {
        assert_eq!(counted.value(series), Some(value), "{series}");
    }
    let at_least = |series: &str, least: f64| {
        let value = counted.value(series).unwrap_or_else(|| panic!("{series}"));
        assert!(value >= least, "{series} is {value}");
    };
    at_least("wsproxy_fetched_records_total", records);
    at_least(r#"wsproxy_kafka_requests_total{api="Produce"}"#, 1.0);
    at_least(r#"wsproxy_kafka_connections{purpose="produce"}"#, 1.0);
    at_least(r#"wsproxy_fetch_memory_max_bytes{pool="tail"}"#, 1.0);
    at_least("process_resident_memory_bytes", 1e6);
    at_least("process_open_fds", 5.0);
    at_least("process_start_time_seconds", 1.7e9);
    until_at(&proxy, "wsproxy_ready", 1.0).await;
    proxy.stopped().await;
}

#[tokio::test]
async fn sockets_count_as_opened_closed_and_refused_with_their_codes() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let closed = |endpoint: &str, code: &str| {
        format!(r#"wsproxy_sockets_closed_total{{endpoint="{endpoint}",code="{code}"}}"#)
    };
    for (code, label) in [(1000, "1000"), (4321, "other")] {
        let mut client = proxy.connect("/socket/in?topic=t").await;
        let reason = Utf8Bytes::default();
        let code = code.into();
        client
            .send_message(Message::Close(Some(CloseFrame { code, reason })))
            .await;
        until_at(&proxy, &closed("in", label), 1.0).await;
    }
    drop(proxy.connect("/socket/out?topic=t&clientId=a").await);
    until_at(&proxy, &closed("out", "1006"), 1.0).await;
    assert!(proxy.open("/socket/in?topic=nowhere").await.is_err());
    http::ask(&proxy.address, "GET", "/socket/out?topic=t", &[]).await;
    let counted = scrape(&proxy).await;
    for (series, value) in [
        (r#"wsproxy_sockets{endpoint="in"}"#, 0.0),
        (r#"wsproxy_sockets{endpoint="out"}"#, 0.0),
        (r#"wsproxy_sockets_opened_total{endpoint="in"}"#, 2.0),
        (r#"wsproxy_sockets_opened_total{endpoint="out"}"#, 1.0),
        (
            r#"wsproxy_sockets_refused_total{endpoint="in",status="400"}"#,
            1.0,
        ),
        (
            r#"wsproxy_sockets_refused_total{endpoint="out",status="426"}"#,
            1.0,
        ),
    ] {
        assert_eq!(counted.value(series), Some(value), "{series}");
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn topics_beyond_the_limit_share_their_series() {
    let limit = |config: &mut Config| config.server.limits.metrics_topics_max = 2;
    let proxy = Proxy::with(limit).await;
    for topic in ["a", "b", "c", "d"] {
        proxy.topic(topic, 1);
        let mut writer = proxy.connect(&format!("/socket/in?topic={topic}")).await;
        produce(&mut writer, "k", "v").await;
        let reader = format!("/socket/out?topic={topic}&clientId={topic}");
        proxy.connect(&reader).await.next().await;
    }
    let counted = scrape(&proxy).await;
    for (topic, records) in [("a", 1.0), ("b", 1.0), ("(other)", 2.0)] {
        for name in ["produced", "consumed"] {
            let series = format!(r#"wsproxy_{name}_records_total{{topic="{topic}"}}"#);
            assert_eq!(counted.value(&series), Some(records), "{series}");
        }
    }
    for name in ["c", "d"] {
        assert!(
            !counted.has_label_value(name),
            "{name} has series of its own"
        );
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn a_reader_that_lags_is_seen_and_one_that_has_caught_up_lags_by_nothing() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut writer = proxy.connect("/socket/in?topic=t").await;
    for _ in 0..50 {
        produce(&mut writer, "k", "v").await;
    }
    let lag = r#"wsproxy_consumer_lag_records{topic="t"}"#;
    let mut reader = proxy.connect("/socket/out?topic=t&clientId=a").await;
    reader.records(50).await;
    until_at(&proxy, lag, 0.0).await;
    let source = |counted: &Exposition, source: &str| {
        let series = format!(r#"wsproxy_chunks_served_total{{source="{source}"}}"#);
        counted.value(&series).expect("it is counted")
    };
    let before = scrape(&proxy).await;
    assert!(source(&before, "catch_up") >= 1.0);
    produce(&mut writer, "k", "v").await;
    reader.next().await;
    let after = scrape(&proxy).await;
    assert!(source(&after, "tail_cache") > source(&before, "tail_cache"));
    proxy.stopped().await;
}

#[tokio::test]
async fn the_format_is_the_one_that_is_accepted_and_head_has_its_headers() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    produce(&mut proxy.connect("/socket/in?topic=t").await, "k", "v").await;
    let plain = http::ask(&proxy.address, "GET", "/metrics", &[]).await;
    let content_type = plain.header("content-type").unwrap_or_default();
    assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
    let prometheus = Exposition::parse_prometheus(&plain.body);
    let open = http::ask(&proxy.address, "GET", "/metrics", &[OPEN_METRICS]).await;
    let content_type = open.header("content-type").unwrap_or_default();
    assert!(content_type.starts_with("application/openmetrics-text; version=1.0.0"));
    let open_metrics = Exposition::parse_open_metrics(&open.body);
    // Errors of Kafka come and go in between.
    let but = "wsproxy_kafka_errors_total";
    let (known, written) = (prometheus.names_except(but), open_metrics.names_except(but));
    assert_eq!(known, written);
    for accept in [None, Some(OPEN_METRICS)] {
        let head = http::ask(&proxy.address, "HEAD", "/metrics", accept.as_slice()).await;
        assert_eq!((head.status, &*head.body), (200, ""));
        let expected = if accept.is_none() { &plain } else { &open };
        assert_eq!(head.header("content-type"), expected.header("content-type"));
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn what_goes_wrong_at_the_brokers_is_counted_by_the_names_that_kafka_has_for_it() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut writer = proxy.connect("/socket/in?topic=t").await;
    produce(&mut writer, "k", "v").await;
    let refuse = FaultAction::Error(ResponseError::NotLeaderOrFollower.code());
    let rule = FaultRule::on(ApiKey::Produce, refuse).times(3);
    proxy.broker.faults().add(rule);
    produce(&mut writer, "k", "v").await;
    let hang_up = FaultRule::on(ApiKey::Produce, FaultAction::CloseBefore);
    proxy.broker.faults().add(hang_up.times(1));
    produce(&mut writer, "k", "v").await;
    let counted = scrape(&proxy).await;
    let errors = |error: &str| {
        let labels = format!(r#"{{api="Produce",error="{error}"}}"#);
        counted.value(&format!("wsproxy_kafka_errors_total{labels}"))
    };
    assert_eq!(errors("NOT_LEADER_OR_FOLLOWER"), Some(3.0));
    assert_eq!(errors("NETWORK_EXCEPTION"), Some(1.0));
    let answered = r#"wsproxy_kafka_requests_total{api="Produce"}"#;
    assert!(counted.value(answered) >= Some(5.0));
    let latency = "wsproxy_produce_latency_seconds_count";
    assert_eq!(counted.value(latency), Some(3.0), "each record once");
    proxy.stopped().await;
}

/// The broker that metrics are sent to, and its topic.
fn report_to(broker: &MemoryBroker, topic: &str) -> impl FnOnce(&mut Config) {
    let (hosts, topic) = (vec![broker.bootstrap()], topic.to_owned());
    move |config| {
        config.server.server_id = "node-7".to_owned();
        let reporter = &mut config.metrics_reporter;
        reporter.enabled = true;
        reporter.bootstrap_servers = Some(hosts);
        reporter.topic = topic;
        reporter.interval = Duration::from_millis(200);
    }
}

/// Whether `part` is somewhere in the bytes.
fn has(bytes: &[u8], part: &str) -> bool {
    let mut windows = bytes.windows(part.len());
    windows.any(|window| window == part.as_bytes())
}

#[tokio::test]
async fn the_metrics_are_sent_to_a_topic_of_another_cluster_which_is_created() {
    let other = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
    let proxy = Proxy::with(report_to(&other, "m")).await;
    proxy.topic("shown", 1);
    let mut writer = proxy.connect("/socket/in?topic=shown").await;
    produce(&mut writer, "k", "v").await;
    let tp = TopicPartition::new("m", 0);
    let holds = |part: &str| has(&other.batches(&tp), part);
    until("a report names the topic", || {
        other.offsets(&tp).is_some() && holds("shown")
    })
    .await;
    for part in [
        "node-7",
        "service.name",
        "service.instance.id",
        "wsproxy_produced_records_total",
        "wsproxy_produce_latency_seconds",
    ] {
        assert!(holds(part), "{part}");
    }
    let (_, sent) = other.offsets(&tp).unwrap();
    until("another report", || other.offsets(&tp).unwrap().1 > sent).await;
    // Its connections and records are none of the sockets'.
    let counted = scrape(&proxy).await;
    let latency = "wsproxy_produce_latency_seconds_count";
    assert_eq!(counted.value(latency), Some(1.0));
    assert!(!counted.has_label_value("m"));
    proxy.stopped().await;
    other.stop().await;
}

#[tokio::test]
async fn a_cluster_that_takes_no_metrics_disturbs_nobody() {
    let other = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
    let proxy = Proxy::with(report_to(&other, "m")).await;
    other.stop().await;
    proxy.topic("t", 1);
    proxy.ready().await;
    let mut writer = proxy.connect("/socket/in?topic=t").await;
    let mut reader = proxy.connect("/socket/out?topic=t&clientId=a").await;
    for _ in 0..10 {
        produce(&mut writer, "k", "v").await;
        reader.next().await;
    }
    let counted = scrape(&proxy).await;
    assert_eq!(counted.value("wsproxy_ready"), Some(1.0));
    proxy.stopped().await;
}
