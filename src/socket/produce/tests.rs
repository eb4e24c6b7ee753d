//! A producing socket in front of an in-memory broker, polled by the test.

mod large_messages;

use futures_util::FutureExt;
use memory_broker::{BrokerConfig, MemoryBroker};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::app::App;
use crate::codec::Format;
use crate::codec::socket_error::SocketErrorCode;
use crate::http_stream::HttpStream;
use crate::metrics::sockets::SocketMetrics;
use crate::session::{InstanceSharing, ProducerIdentity};
use crate::socket::socket_log::SocketIdentity;
use crate::socket::stream::MessageLimits;
use kafka_client::Principal;

const STRINGS: RecordFormats = RecordFormats {
    key: None,
    value: Format::String,
};

/// A producing socket of a client that reads nothing, which is given as well, and that has sent
/// these bytes.
async fn socket(broker: &MemoryBroker, sent: Vec<u8>) -> (ProducingSocket, TcpStream) {
    socket_of(Config::default(), broker, sent).await
}

/// As [`socket`], of a proxy with that configuration.
async fn socket_of(
    mut config: Config,
    broker: &MemoryBroker,
    sent: Vec<u8>,
) -> (ProducingSocket, TcpStream) {
    assert!(broker.create_topic("t", 1));
    config.client.bootstrap_servers = vec![broker.bootstrap()];
    let app = App::new(config);
    let topic = app.cluster().metadata().topic("t").await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    let stream = HttpStream::Left(accepted.unwrap().0);
    let stream = WebSocketStream::new(stream, sent.into(), MessageLimits::plain(1 << 20));
    let permit = app.registry.try_acquire_connection_permit(0).unwrap();
    let formats = MessageFormat::Json(STRINGS);
    let producer = app.client.producer().clone();
    let identity = SocketIdentity {
        endpoint: "/socket/in",
        client_id: None,
        group: None,
        peer: None,
        principal: Principal::Proxy,
    };
    let log = SocketLog::open(identity, Arc::clone(&app.metrics));
    let producing = ProducerIdentity {
        client_id: None,
        instance_id: None,
        principal: None,
        sharing: InstanceSharing::Any,
        max_connections: 0,
    };
    let (sessions, counted) = (&app.sessions, ("t".into(), 1));
    let place = sessions.acquire_producer_permit(producing, counted, permit.handle());
    let place = place.await.unwrap();
    let (producers, permits) = ((producer, None), (permit, place, None));
    let socket = ProducingSocket::new(&app.config, producers, stream, formats, topic, permits, log);
    (socket, client.unwrap())
}

fn metrics() -> Arc<SocketMetrics> {
    Arc::new(SocketMetrics::new(1))
}

#[tokio::test]
async fn a_message_of_many_records_is_taken_in_turns_with_other_tasks() {
    const RECORDS: usize = 2_500;
    let broker = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
    let (mut socket, _client) = socket(&broker, Vec::new()).await;
    for element in ["{}", r#"{"value":{"value":"x"}}"#] {
        let message = format!("[{}]", vec![element; RECORDS].join(","));
        let (polls, taken) = polled(socket.produce(STRINGS, message.as_bytes())).await;
        taken.unwrap();
        // Once while it is checked, and once while it is produced.
        let turns = 2 * RECORDS / STEPS_PER_TURN as usize;
        assert!(polls >= turns, "{element}: {polls} polls, {turns} turns");
        socket.acks = PendingAcks::new("t".into(), metrics(), AvroFraming::Plain, usize::MAX);
    }
    broker.stop().await;
}

/// How often a future was polled until it was ready.
async fn polled<T>(future: impl Future<Output = T>) -> (usize, T) {
    let mut future = Box::pin(future);
    let mut polls = 0;
    let output = std::future::poll_fn(|cx| {
        polls += 1;
        future.as_mut().poll(cx)
    });
    let output = output.await;
    (polls, output)
}

#[tokio::test]
async fn long_records_of_an_array_take_a_turn_for_their_bytes() {
    const RECORDS: usize = 100;
    const RECORD_BYTES: usize = 10_000;
    let broker = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
    let (mut socket, _client) = socket(&broker, Vec::new()).await;
    let value = "x".repeat(RECORD_BYTES);
    for element in [
        format!(r#"{{"value":{{"value":"{value}"}}}}"#),
        format!(r#"{{"unknown":"{value}"}}"#),
    ] {
        let message = format!("[{}]", vec![element; RECORDS].join(","));
        let (polls, taken) = polled(socket.produce(STRINGS, message.as_bytes())).await;
        taken.unwrap();
        // While it is produced: all of it is checked at once.
        let turns = message.len() / BYTES_PER_TURN;
        assert!(polls >= turns, "{polls} polls, {turns} turns");
        socket.acks = PendingAcks::new("t".into(), metrics(), AvroFraming::Plain, usize::MAX);
    }
    broker.stop().await;
}

#[tokio::test]
async fn pings_and_short_messages_are_taken_in_turns_with_other_tasks() {
    const TURNS: usize = 5;
    let ping = vec![0x89, 0x80, 0, 0, 0, 0];
    let record = vec![0x81, 0x82, 0, 0, 0, 0, b'{', b'}'];
    let empty_array = vec![0x81, 0x82, 0, 0, 0, 0, b'[', b']'];
    for frame in [ping, record, empty_array] {
        let broker = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
        let sent = frame.repeat(TURNS * STEPS_PER_TURN as usize);
        let (mut socket, _client) = socket(&broker, sent).await;
        let (polls, all_taken) = polled(socket.handle_messages()).await;
        assert!(all_taken.unwrap());
        assert!(polls >= TURNS, "{polls} polls");
        broker.stop().await;
    }
}

#[tokio::test]
async fn many_write_buffers_of_acks_leave_in_turns_with_other_tasks() {
    const TURNS: usize = 5;
    let broker = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
    let mut config = Config::default();
    config.server.websocket.send_buffer = 4096;
    let (mut socket, client) = socket_of(config, &broker, Vec::new()).await;
    for _ in 0..TURNS {
        let error = (SocketErrorCode::InvalidRecord, "x".repeat(4096));
        let state = AckState::Rejected(Box::new(error));
        socket.acks.push(state, MessagePosition::Single, None, 0);
    }
    // The kernel takes them all.
    let (polls, sent) = polled(socket.send_ready_acks()).await;
    sent.unwrap();
    assert!(socket.acks.is_empty() && socket.session.out.is_empty());
    assert!(polls >= TURNS, "{polls} polls");
    drop(client);
    broker.stop().await;
}

#[tokio::test]
async fn the_answers_of_an_array_that_nobody_reads_stop_it_at_the_write_buffer() {
    let broker = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
    let (mut socket, client) = socket(&broker, Vec::new()).await;
    // More than the kernel takes.
    socket.session.out.append(|out| out.resize(64 << 20, 0));
    assert!(!socket.session.flush().unwrap());
    let message = format!("[{}]", vec!["{}"; 20_000].join(","));
    let mut taken = Box::pin(socket.produce(STRINGS, message.as_bytes()));
    for _ in 0..100 {
        let ended = (&mut taken).now_or_never();
        assert!(ended.is_none(), "its answers have no room");
    }
    drop(taken);
    let records = socket.records;
    assert!(records <= u64::from(STEPS_PER_TURN), "{records} are taken");
    drop(client);
    broker.stop().await;
}
