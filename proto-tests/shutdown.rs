//! Stopping: what was accepted is answered, what was delivered is committed.

use std::time::Duration;

use kafka_client::TopicPartition;
use memory_broker::{ApiKey, FaultAction, FaultRule};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, until, until_asked};

#[tokio::test]
async fn records_in_flight_are_answered_before_the_close_frame() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut socket = proxy.connect("/socket/in?topic=t").await;
    for i in 0..300 {
        let record = json!({"value": {"value": "x"}, "messageId": i.to_string()});
        socket.send(record.to_string()).await;
    }
    // Something of it has been taken when the first answer is there.
    assert_eq!(socket.next().await["messageId"], "0");
    proxy.stop();
    let mut answered = 1;
    let code = loop {
        match socket
            .next_message()
            .await
            .expect("a close frame ends the answers")
        {
            tokio_tungstenite::tungstenite::Message::Text(text) => {
                let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!(answer["messageId"], answered.to_string());
                assert_eq!(answer["offset"], answered);
                answered += 1;
            }
            tokio_tungstenite::tungstenite::Message::Close(Some(close)) => break close.code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(u16::from(code), 1012);
    // Every record in the log was answered.
    let tp = TopicPartition::new("t", 0);
    let (_, end) = proxy.broker.offsets(&tp).unwrap();
    assert_eq!(end, answered);
    drop(socket);
    proxy.stopped().await;
}

#[tokio::test]
async fn what_was_delivered_is_committed_before_the_close_frame_of_a_stop() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut reader = proxy.connect("/socket/out?topic=t&clientId=a").await;
    let mut writer = proxy.connect("/socket/in?topic=t").await;
    // A clock that only timers move: no busy machine makes the last commit late.
    tokio::time::pause();
    for offset in 0..10 {
        let ack = writer.ask(r#"{"value":{"value":"x"}}"#).await;
        assert_eq!(ack["offset"], offset);
    }
    assert_eq!(reader.records(10).await.len(), 10);
    proxy.stop();
    assert_eq!(reader.closed().await.0, 1012);
    let committed = proxy
        .broker
        .committed("a-group", &TopicPartition::new("t", 0));
    assert_eq!(committed, Some(10));
    tokio::time::resume();
    drop((reader, writer));
    proxy.stopped().await;
}

#[tokio::test]
async fn ready_says_503_on_connections_that_are_open_while_a_stop_waits_for_answers() {
    // Longer than a test waits for anything.
    let grace = Duration::from_secs(3600);
    let proxy = Proxy::with(|config| config.server.shutdown_grace = grace).await;
    proxy.topic("t", 1);
    proxy.ready().await;
    let mut health = TcpStream::connect(&proxy.address).await.unwrap();
    assert!(ready_on(&mut health).await.starts_with("HTTP/1.1 200"));
    let answer = CancellationToken::new();
    let held = FaultRule::on(ApiKey::Produce, FaultAction::Hold(answer.clone()));
    proxy.broker.faults().add(held.always());
    let mut socket = proxy.connect("/socket/in?topic=t").await;
    socket.send(r#"{"value":{"value":"x"}}"#).await;
    let tp = TopicPartition::new("t", 0);
    until("the record is in the log", || {
        proxy.broker.offsets(&tp).unwrap().1 == 1
    })
    .await;
    proxy.stop();
    // The server sees the stop, and the next request, in any order.
    until_asked("/ready says it", async || {
        let said = ready_on(&mut health).await;
        said.starts_with("HTTP/1.1 503") && said.contains("the server is stopping")
    })
    .await;
    answer.cancel();
    assert_eq!(socket.next().await["offset"], 0);
    assert_eq!(socket.closed().await.0, 1012);
    drop((socket, health));
    proxy.stopped().await;
}

/// `/ready`, as it answers on that connection, which stays open.
async fn ready_on(connection: &mut TcpStream) -> String {
    let request = b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\n";
    connection.write_all(request).await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with('}') {
        let mut part = [0; 1024];
        let read = timeout(PATIENCE, connection.read(&mut part)).await;
        let read = read.expect("an answer").unwrap();
        assert_ne!(read, 0, "the connection was closed: {answer}");
        answer.push_str(std::str::from_utf8(&part[..read]).unwrap());
    }
    answer
}

#[tokio::test]
async fn a_stop_with_idle_sockets_needs_no_grace_and_refuses_new_ones() {
    // Longer than a test waits for anything.
    let grace = Duration::from_secs(3600);
    let proxy = Proxy::with(|config| config.server.shutdown_grace = grace).await;
    proxy.topic("t", 20);
    let mut sockets = Vec::new();
    for i in 0..20 {
        let path = format!("/socket/out?topic=t&groupId=g&clientId=c{i}");
        sockets.push(proxy.connect(&path).await);
    }
    proxy.stop();
    for socket in &mut sockets {
        assert_eq!(socket.closed().await.0, 1012);
    }
    drop(sockets);
    let address = proxy.address.clone();
    proxy.stopped().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_client_that_does_not_close_is_waited_for_two_seconds_only() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let socket = proxy.connect("/socket/in?topic=t").await;
    let took = stopping(proxy).await;
    assert!(
        took >= Duration::from_secs(2) && took < Duration::from_secs(3),
        "{took:?}"
    );
    drop(socket);
}

#[tokio::test]
async fn half_a_request_does_not_hold_up_the_stop() {
    let proxy = Proxy::start().await;
    let mut stream = TcpStream::connect(&proxy.address).await.unwrap();
    stream.write_all(b"GET /re").await.unwrap();
    // Accepted by now, since this one, which came later, is answered.
    assert!(proxy.open("/socket/in").await.is_err());
    let took = stopping(proxy).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

/// How long the stop takes by a clock that only timers move: no byte is waited for in it.
async fn stopping(proxy: Proxy) -> Duration {
    tokio::time::pause();
    let begin = Instant::now();
    proxy.stopped().await;
    begin.elapsed()
}

#[tokio::test]
async fn the_drain_delay_goes_on_serving_old_and_new_sockets_while_ready_says_503() {
    let delay = Duration::from_secs(4);
    let proxy = Proxy::with(|config| config.server.drain_delay = delay).await;
    proxy.topic("t", 1);
    proxy.ready().await;
    let mut early = proxy.connect("/socket/in?topic=t").await;
    // A clock that only timers move: no busy machine is late.
    tokio::time::pause();
    let begin = Instant::now();
    proxy.stop();
    // The server sees the stop, and the next request, in any order.
    until_asked("/ready says it", async || {
        let mut health = TcpStream::connect(&proxy.address).await.unwrap();
        let said = ready_on(&mut health).await;
        said.starts_with("HTTP/1.1 503") && said.contains("the server is about to stop")
    })
    .await;
    let mut late = proxy.connect("/socket/in?topic=t").await;
    for (socket, offset) in [(&mut early, 0), (&mut late, 1)] {
        let ack = socket.ask(r#"{"value":{"value":"x"}}"#).await;
        assert_eq!(ack["offset"], offset);
    }
    for socket in [&mut early, &mut late] {
        assert_eq!(socket.closed().await.0, 1012);
        assert!(begin.elapsed() >= delay);
    }
    drop((early, late));
    proxy.stopped().await;
}

#[tokio::test]
async fn a_stop_closes_sockets_one_after_the_other_and_says_when_to_come_back() {
    let spread = Duration::from_secs(4);
    let proxy = Proxy::with(|config| config.server.drain_spread = spread).await;
    proxy.topic("t", 1);
    let mut sockets = Vec::new();
    for _ in 0..4 {
        sockets.push(proxy.connect("/socket/in?topic=t").await);
    }
    // A clock that only timers move: no busy machine is late.
    tokio::time::pause();
    proxy.stop();
    let begin = Instant::now();
    let closings = sockets.iter_mut().map(async |socket| {
        let (code, reason) = socket.closed().await;
        assert_eq!(code, 1012);
        let after = reason
            .strip_prefix("restarting; reconnect in ")
            .expect(&reason);
        let after: u64 = after.strip_suffix(" ms").unwrap().parse().unwrap();
        (
            begin.elapsed().div_duration_f64(spread / 4).round() as u32,
            after,
        )
    });
    let mut closed = futures_util::future::join_all(closings).await;
    closed.sort_unstable();
    let (quarters, after): (Vec<_>, Vec<_>) = closed.into_iter().unzip();
    assert_eq!(quarters, [0, 1, 2, 3]);
    assert_eq!(after, [0, 2472, 944, 3416]);
    drop(sockets);
    proxy.stopped().await;
}
