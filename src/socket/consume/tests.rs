//! A consuming socket in front of an in-memory broker, polled by the test.

use std::future::Future;

use futures_util::FutureExt;
use kafka_client::TopicPartition;
use kafka_client::config::CompressionType;
use kafka_client::record::{NewRecord, RecordBatchBuilder};
use memory_broker::{BrokerConfig, MemoryBroker};
use tokio::net::{TcpListener, TcpStream};

use super::segment_buffer::SEGMENT_BYTES;
use super::*;
use crate::app::App;
use crate::codec::{Format, RecordFormats};
use crate::http_stream::HttpStream;
use crate::socket::params::SocketPayload;
use crate::socket::socket_log::SocketIdentity;
use crate::socket::stream::MessageLimits;
use kafka_client::consumer::OffsetResetStrategy;
use kafka_client::{IsolationLevel, Principal};

const STRINGS: RecordFormats = RecordFormats {
    key: None,
    value: Format::String,
};

/// A consuming socket whose client, which is given as well, has sent these bytes.
async fn socket(broker: &MemoryBroker, sent: Vec<u8>) -> (ConsumingSocket, TcpStream) {
    assert!(broker.create_topic("t", 1));
    let mut config = Config::default();
    config.client.bootstrap_servers = vec![broker.bootstrap()];
    let app = App::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    let stream = HttpStream::Left(accepted.unwrap().0);
    let stream = WebSocketStream::new(stream, sent.into(), MessageLimits::plain(1 << 20));
    let permit = app.registry.try_acquire_connection_permit(0).unwrap();
    let topics = [("t".into(), 1)];
    let group_permit = app
        .sessions
        .acquire_group_permit("g", (None, "a"), (&topics, 0), permit.handle())
        .await
        .unwrap();
    let params = ConsumeParams {
        client_id: "a".to_owned(),
        group_id: "g".to_owned(),
        topics: vec!["t".to_owned()],
        payload: SocketPayload::Json,
        formats: STRINGS,
        offset_reset_strategy: OffsetResetStrategy::Earliest,
        isolation_level: IsolationLevel::ReadUncommitted,
        rate: None,
        batch_size: None,
        auto_commit: false,
    };
    let identity = SocketIdentity {
        endpoint: "/socket/out",
        client_id: None,
        group: None,
        peer: None,
        principal: Principal::Proxy,
    };
    let log = SocketLog::open(identity, Arc::clone(&app.metrics));
    let (consumers, permits) = (app.client.consumers(), (permit, group_permit, None));
    let socket = ConsumingSocket::new(
        &app.config,
        consumers,
        stream,
        (params, FrameFormat::Json(STRINGS), AvroCommits::default()),
        None,
        permits,
        log,
    );
    (socket, client.unwrap())
}

#[tokio::test]
async fn commits_and_pings_are_handled_in_turns_with_other_tasks() {
    const TURNS: usize = 5;
    let commit = br#"{"wsProxyMessageId":"x"}"#;
    let commit = [&[0x81, 0x80 | commit.len() as u8, 0, 0, 0, 0], &commit[..]].concat();
    let ping = vec![0x89, 0x80, 0, 0, 0, 0];
    for frame in [commit, ping] {
        let broker = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
        let sent = frame.repeat(TURNS * STEPS_PER_TURN as usize);
        let (mut socket, _client) = socket(&broker, sent).await;
        let (mut handled, mut polls) = (Box::pin(socket.handle_messages()), 0);
        let all_taken = std::future::poll_fn(|cx| {
            polls += 1;
            handled.as_mut().poll(cx)
        });
        assert!(all_taken.await.unwrap());
        assert!(polls >= TURNS, "{polls} polls");
        drop(handled);
        broker.stop().await;
    }
}

#[tokio::test]
async fn long_messages_that_are_no_commits_wait_for_each_other() {
    let broker = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
    let (mut socket, client) = socket(&broker, Vec::new()).await;
    let _paused = LONG_COMMITS.pause().await;
    let message = |bytes: usize| {
        let length = (bytes as u64).to_be_bytes();
        let header = match bytes {
            ..0x1_0000 => [&[0x81, 0xFE], &length[6..], &[0; 4]].concat(),
            _ => [&[0x81, 0xFF], &length[..], &[0; 4]].concat(),
        };
        [header, vec![b' '; bytes]].concat()
    };
    for (bytes, waits) in [((64 << 10) - 1, false), (64 << 10, true)] {
        let message = message(bytes);
        let mut sent = &message[..];
        let handled = loop {
            sent = &sent[client.try_write(sent).unwrap_or(0)..];
            socket.session.readable().await.unwrap();
            socket.session.read_available().unwrap();
            match socket.take_message().now_or_never() {
                // Not all of it is here.
                Some(handled) if !handled.as_ref().unwrap() => {}
                handled => break handled,
            }
        };
        assert_eq!(handled.is_none(), waits, "{bytes} bytes");
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_long_chunk_is_sent_a_segment_per_turn() {
    const RECORDS: u64 = 100;
    const RECORD_BYTES: usize = 10_000;
    let broker = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
    let (mut socket, client) = socket(&broker, Vec::new()).await;
    let mut builder = RecordBatchBuilder::new(1024);
    for _ in 0..RECORDS {
        builder.append(&NewRecord {
            key: None,
            value: Some(&[b'x'; RECORD_BYTES]),
            headers: &[],
            timestamp: 7,
        });
    }
    let mut batch = builder.build(CompressionType::None);
    batch.set_producer_state(-1, -1, -1);
    let tp = TopicPartition::new("t", 0);
    assert_eq!(broker.append(&tp, &batch.bytes()), Some(0));
    let wake = Arc::clone(&socket.session.handle().wake);
    let (mut delivered, mut most, mut read) = (0, 0, vec![0; 1 << 20]);
    while delivered < RECORDS {
        let progress = socket.take_turn().unwrap();
        let now = socket.offsets.records_delivered();
        most = most.max(now - delivered);
        delivered = now;
        while client.try_read(&mut read).is_ok_and(|n| n > 0) {}
        match progress {
            SendProgress::TurnOver => {}
            SendProgress::Blocked => socket.session.writable().await.unwrap(),
            _ if delivered < RECORDS => wake.notified().await,
            _ => {}
        }
    }
    let most = most as usize * RECORD_BYTES;
    assert!(most <= SEGMENT_BYTES * 3 / 2, "{most} bytes in one turn");
    broker.stop().await;
}

#[test]
fn a_chunk_is_released_when_its_client_stops_or_others_have_waited_for_its_memory() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let released = |now, blocked_since, memory_awaited_since: Option<u64>| {
        let chunk = BlockedChunk {
            since: start,
            blocked_since: at(blocked_since),
            memory_awaited_since: memory_awaited_since.map(at),
        };
        chunk.must_be_released(at(now))
    };
    assert!(!released(1_499, 1_000, None));
    assert!(released(1_500, 1_000, None), "its client has stopped");
    assert!(!released(9_999, 9_900, None), "it goes on, slowly");
    assert!(released(10_000, 9_900, None));
    assert!(!released(1_499, 1_400, Some(1_000)));
    assert!(released(1_500, 1_400, Some(1_000)), "others wait");
    assert!(!released(400, 300, Some(0)), "it has just begun");
}
