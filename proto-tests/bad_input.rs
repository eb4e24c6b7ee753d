//! Invalid input on a socket: the specified answer, and no effect on anything else.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::support::PATIENCE;
use crate::support::proxy::Proxy;

#[tokio::test]
async fn every_kind_of_invalid_record_is_acked_in_its_place_and_affects_no_other() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut socket = proxy.connect("/socket/in?topic=t").await;
    let deep = "[".repeat(5000);
    let bad = [
        ("", "invalid_json"),
        ("not JSON", "invalid_json"),
        ("{\"value\":", "invalid_json"),
        ("[{\"value\":{\"value\":\"a\"}},", "invalid_json"),
        (deep.as_str(), "invalid_json"),
        ("7", "invalid_record"),
        ("{}", "invalid_record"),
        (r#"{"value":"bare"}"#, "invalid_record"),
        (r#"{"value":{}}"#, "invalid_record"),
        (r#"{"value":{"value":"v"},"partiton":0}"#, "invalid_record"),
        (r#"{"value":{"value":"v"},"topic":"u"}"#, "invalid_record"),
        (
            r#"{"value":{"value":"v","format":"xml"}}"#,
            "invalid_format",
        ),
        (r#"{"value":{"value":7}}"#, "invalid_format"),
        (
            r#"{"value":{"value":"@@@","format":"bytearray"}}"#,
            "invalid_format",
        ),
        (
            r#"{"value":{"value":2147483648,"format":"int"}}"#,
            "invalid_format",
        ),
        (
            r#"{"value":{"value":1.5,"format":"long"}}"#,
            "invalid_format",
        ),
        (
            r#"{"value":{"value":"1","format":"short"}}"#,
            "invalid_format",
        ),
        (
            r#"{"value":{"value":1e400,"format":"double"}}"#,
            "invalid_format",
        ),
        (
            r#"{"value":{"value":"v"},"partition":-1}"#,
            "invalid_record",
        ),
        (r#"{"value":{"value":"v"},"headers":{}}"#, "invalid_record"),
    ];
    for (offset, (frame, code)) in bad.into_iter().enumerate() {
        let answer = socket.ask(frame).await;
        let shown: String = frame.chars().take(80).collect();
        assert_eq!(answer["error"]["code"], code, "{shown}: {answer}");
        let good = json!({"value": {"value": "good"}}).to_string();
        assert_eq!(socket.ask(good).await["offset"], offset, "{shown}");
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn a_message_over_the_limit_closes_that_socket_with_1009() {
    let proxy = Proxy::with(|config| config.server.websocket.max_message_size = 1000).await;
    proxy.topic("t", 1);
    let mut other = proxy.connect("/socket/in?topic=t").await;
    let mut socket = proxy.connect("/socket/in?topic=t").await;
    socket.send("x".repeat(1001)).await;
    let reason = "the message is over 1000 bytes (server.websocket.max-message-size)";
    assert_eq!(socket.closed().await, (1009, reason.to_owned()));
    assert_eq!(other.ask(r#"{"value":{"value":"x"}}"#).await["offset"], 0);
    proxy.stopped().await;
}

#[tokio::test]
async fn violations_of_the_frame_rules_close_with_their_codes() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    for (bytes, code) in [
        // Not masked; a reserved bit; a text that is not UTF-8.
        (&[0x81, 0x01, b'x'][..], 1002_u16),
        (&[0xC1, 0x81, 0, 0, 0, 0, b'x'], 1002),
        (&[0x81, 0x81, 0, 0, 0, 0, 0xFF], 1007),
    ] {
        for path in ["/socket/in?topic=t", "/socket/out?topic=t&clientId=a"] {
            let mut stream = proxy.connect(path).await.into_tcp();
            stream.write_all(bytes).await.unwrap();
            let mut got = Vec::new();
            let read = stream.read_to_end(&mut got);
            timeout(PATIENCE, read).await.unwrap().unwrap();
            assert_eq!(got[0], 0x88, "{path}: {got:?}");
            assert_eq!(got[2..4], code.to_be_bytes(), "{path}");
            drop(stream);
        }
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn control_frames_between_fragments_are_answered_and_the_message_is_whole() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut stream = proxy.connect("/socket/in?topic=t").await.into_tcp();
    let text = br#"{"value":{"value":"x"}}"#;
    let (a, b) = text.split_at(9);
    let mut bytes = vec![0x01, 0x80 | a.len() as u8, 0, 0, 0, 0];
    bytes.extend_from_slice(a);
    bytes.extend_from_slice(&[0x89, 0x82, 0, 0, 0, 0, b'h', b'i']);
    bytes.extend_from_slice(&[0x80, 0x80 | b.len() as u8, 0, 0, 0, 0]);
    bytes.extend_from_slice(b);
    stream.write_all(&bytes).await.unwrap();
    let mut pong = [0; 4];
    timeout(PATIENCE, stream.read_exact(&mut pong))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&pong, b"\x8a\x02hi");
    let mut head = [0; 2];
    timeout(PATIENCE, stream.read_exact(&mut head))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(head[0], 0x81);
    let mut answer = vec![0; head[1] as usize];
    stream.read_exact(&mut answer).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["offset"], 0);
    drop(stream);
    proxy.stopped().await;
}

#[tokio::test]
async fn a_flood_of_pings_whose_pongs_are_not_read_takes_bounded_memory() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut flood = vec![];
    for _ in 0..2000 {
        flood.extend_from_slice(&[0x89, 0xFD, 0, 0, 0, 0]);
        flood.extend_from_slice(&[b'x'; 125]);
    }
    for path in ["/socket/in?topic=t", "/socket/out?topic=t&clientId=a"] {
        let mut other = proxy.connect("/socket/in?topic=t").await;
        let stream = proxy.connect(path).await.into_tcp();
        // The server stops reading: nothing more is taken however often it serves another
        // client meanwhile, on the one thread that this test has.
        let (mut sent, mut served) = (0, 0);
        while served < 50 {
            match stream.try_write(&flood[sent % flood.len()..]) {
                Ok(taken) => (sent, served) = (sent + taken, 0),
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{path}");
                    let answer = other.ask(r#"{"value":{"value":"x"}}"#).await;
                    assert!(answer["offset"].is_i64());
                    served += 1;
                }
            }
            assert!(sent < 64 << 20, "{path}");
        }
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn a_ping_is_answered() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut socket = proxy.connect("/socket/out?topic=t&clientId=a").await;
    socket.send_message(Message::Ping("hi".into())).await;
    let mut stream = socket.into_tcp();
    let mut pong = [0; 4];
    timeout(PATIENCE, stream.read_exact(&mut pong))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&pong, b"\x8a\x02hi");
    drop(stream);
    proxy.stopped().await;
}

#[tokio::test]
async fn an_idle_client_is_pinged_and_times_out_when_it_stays_silent() {
    let ping_interval = std::time::Duration::from_millis(300);
    let proxy = Proxy::with(|config| config.server.websocket.ping_interval = ping_interval).await;
    proxy.topic("t", 1);
    for path in ["/socket/in?topic=t", "/socket/out?topic=t&clientId=a"] {
        let mut stream = proxy.connect(path).await.into_tcp();
        let mut ping = [0; 2];
        timeout(PATIENCE, stream.read_exact(&mut ping))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&ping, b"\x89\x00", "{path}");
        let mut rest = Vec::new();
        // Ends, by a reset.
        let ended = timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .unwrap();
        assert!(ended.is_err() || rest.is_empty(), "{path}: {rest:?}");
    }
    proxy.stopped().await;
}
