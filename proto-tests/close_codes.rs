//! How sockets end: the close code and reason of each cause that no other test of an endpoint shows.

use memory_broker::{ApiKey, BrokerConfig, FaultAction, FaultRule, KafkaRelease};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::support::proxy::Proxy;
use crate::support::until_asked;

const BOTH: [&str; 2] = ["/socket/in?topic=t", "/socket/out?topic=t&clientId=a"];

#[tokio::test]
async fn with_errors_close_every_refusal_is_4000_and_its_status_and_says_the_same() {
    let proxy = Proxy::with(|config| config.server.websocket.max_connections = 1).await;
    proxy.topic("t", 1);
    let none = ("x-none", "");
    let unreadable = ("authorization", "Basic dXNlcg");
    let first = proxy.connect("/socket/in?topic=t").await;
    for (path, header, status) in [
        ("/socket/in?x=", none, 400),
        ("/socket/in?topic=t&valType=xml", none, 400),
        ("/socket/out?topic=t", none, 400),
        ("/socket/in?topic=__consumer_offsets", none, 403),
        ("/socket/out?topic=t&clientId=a", none, 429),
        ("/socket/in?topic=t", unreadable, 401),
    ] {
        let refused = proxy.open_with(path, header).await.err().expect(path);
        assert_eq!(refused.status, status, "{path}");
        let path = format!("{path}&errors=close");
        let mut socket = proxy.open_with(&path, header).await.expect("a 101");
        let (code, reason) = socket.closed().await;
        assert_eq!(code, 4000 + status, "{path}");
        assert!(!reason.is_empty() && refused.message().starts_with(&reason));
    }
    drop(first);
    assert!(proxy.broker.stop_node(kafka_client::BrokerId(1)).await);
    until_asked("the place is free, and the outage known", async || {
        let refused = proxy.open("/socket/in?topic=t").await.err();
        refused.is_some_and(|refused| refused.status == 503)
    })
    .await;
    let mut socket = proxy.connect("/socket/in?topic=t&errors=close").await;
    assert_eq!(socket.closed().await.0, 4503);
    proxy.stopped().await;
}

#[tokio::test]
async fn a_reason_is_cut_before_the_character_that_does_not_fit_into_123_bytes() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let long = "%E2%82%AC".repeat(60);
    for shift in ["", "a", "aa"] {
        let path = format!("/socket/in?topic=t&valType={shift}{long}");
        let message = proxy.open(&path).await.err().expect("a 400").message();
        let mut socket = proxy.connect(&format!("{path}&errors=close")).await;
        let (code, reason) = socket.closed().await;
        assert_eq!(code, 4400);
        assert!(message.starts_with(&reason), "{reason} / {message}");
        assert!((121..=123).contains(&reason.len()), "{}", reason.len());
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn a_message_of_the_longest_length_is_taken_and_one_byte_more_is_1009_in_whatever_frames() {
    let proxy = Proxy::with(|config| config.server.websocket.max_message_size = 1000).await;
    proxy.topic("t", 1);
    for path in BOTH {
        let mut socket = proxy.connect(path).await;
        let answer = socket.ask("x".repeat(1000)).await;
        assert_eq!(answer["error"]["code"], "invalid_json", "{path}");
        socket.send("x".repeat(1001)).await;
        let (code, reason) = socket.closed().await;
        assert_eq!(code, 1009, "{path}");
        assert!(reason.contains("server.websocket.max-message-size"));
        // In two fragments, of which none is too long.
        let mut socket = proxy.connect(path).await;
        let fragments = [("x".repeat(600), false), ("x".repeat(401), true)];
        for (first, (part, is_last)) in fragments.into_iter().enumerate() {
            socket.send_fragment(part, first == 0, is_last).await;
        }
        assert_eq!(socket.closed().await.0, 1009, "{path}");
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn a_client_gets_its_own_close_code_back() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    for path in BOTH {
        for code in [1000, 1001, 1008, 3000, 4999_u16] {
            let mut socket = proxy.connect(path).await;
            let close = CloseFrame {
                code: code.into(),
                reason: "bye".into(),
            };
            socket.send_message(Message::Close(Some(close))).await;
            assert_eq!(socket.closed().await, (code, "bye".to_owned()), "{path}");
        }
        let mut socket = proxy.connect(path).await;
        socket.send_message(Message::Close(None)).await;
        assert_eq!(socket.closed().await.0, 1005, "{path}");
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn a_stop_says_that_it_is_one_and_when_to_come_back() {
    for path in BOTH {
        let proxy = Proxy::start().await;
        proxy.topic("t", 1);
        let mut socket = proxy.connect(path).await;
        proxy.stop();
        let expected = (1012, "restarting; reconnect in 0 ms".to_owned());
        assert_eq!(socket.closed().await, expected, "{path}");
        drop(socket);
        proxy.stopped().await;
    }
}

#[tokio::test]
async fn what_a_reader_may_not_go_on_with_is_1008_and_says_what() {
    for (api, code, part) in [
        // GROUP_AUTHORIZATION_FAILED, FENCED_INSTANCE_ID.
        (ApiKey::JoinGroup, 30, "a-group"),
        (ApiKey::Heartbeat, 82, "a-group"),
        // TOPIC_AUTHORIZATION_FAILED.
        (ApiKey::Fetch, 29, "t"),
    ] {
        let proxy = Proxy::start().await;
        proxy.topic("t", 1);
        let refusal = FaultRule::on(api, FaultAction::Error(code)).always();
        // The session topic is fetched as well, and nobody is let in without it.
        let begins_later = api == ApiKey::Fetch;
        if !begins_later {
            proxy.broker.faults().add(refusal.clone());
        }
        let mut socket = proxy.connect("/socket/out?topic=t&clientId=a").await;
        if begins_later {
            proxy.broker.faults().add(refusal);
        }
        let (close_code, reason) = socket.closed().await;
        assert_eq!(close_code, 1008, "{api:?}: {reason}");
        assert!(reason.contains(part), "{api:?}: {reason}");
        proxy.broker.faults().clear();
        proxy.stopped().await;
    }
}

#[tokio::test]
async fn a_reader_that_fails_for_no_rule_is_1011_and_says_how() {
    let brokers = BrokerConfig {
        versions: KafkaRelease::V4.versions().without(ApiKey::SyncGroup),
        ..BrokerConfig::default()
    };
    let proxy = Proxy::with_broker(brokers, |_| {}).await;
    proxy.topic("t", 1);
    let mut socket = proxy.connect("/socket/out?topic=t&clientId=a").await;
    let (code, reason) = socket.closed().await;
    assert_eq!(code, 1011, "{reason}");
    assert!(
        reason.contains("a-group") && reason.contains("log"),
        "{reason}"
    );
    proxy.stopped().await;
}
