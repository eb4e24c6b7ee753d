//! A producing socket in front of an in-memory broker, polled by the test.

use memory_broker::{BrokerConfig, MemoryBroker};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::app::App;
use crate::codec::Format;
use crate::socket::socket_log::SocketIdentity;
use kafka_client::Principal;

/// A producing socket of a client that reads nothing, which is given as well.
async fn socket(broker: &MemoryBroker) -> (ProducingSocket, TcpStream) {
    assert!(broker.create_topic("t", 1));
    let mut config = Config::default();
    config.client.bootstrap_servers = vec![broker.bootstrap()];
    let app = App::new(config);
    let topic = app.cluster().metadata().topic("t").await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    let stream = WebSocketStream::new(accepted.unwrap().0, Default::default(), 1 << 20);
    let permit = app.registry.try_acquire_connection_permit(0).unwrap();
    let formats = RecordFormats {
        key: None,
        value: Format::String,
    };
    let producer = app.client.producer().clone();
    let log = SocketLog::open(SocketIdentity {
        endpoint: "/socket/in",
        client_id: None,
        group: None,
        peer: None,
        principal: Principal::Proxy,
    });
    let socket = ProducingSocket::new(&app.config, producer, stream, formats, topic, permit, log);
    (socket, client.unwrap())
}

#[tokio::test]
async fn a_message_of_many_records_is_taken_in_turns_with_other_tasks() {
    const RECORDS: usize = 5_000;
    let broker = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
    let (mut socket, _client) = socket(&broker).await;
    for element in ["{}", r#"{"value":{"value":"x"}}"#] {
        let message = format!("[{}]", vec![element; RECORDS].join(","));
        let mut polls = 0;
        let mut taken = Box::pin(socket.produce(message.as_bytes()));
        std::future::poll_fn(|cx| {
            polls += 1;
            taken.as_mut().poll(cx)
        })
        .await
        .unwrap();
        drop(taken);
        // Once while it is checked, and once while it is produced.
        let turns = 2 * RECORDS / STEPS_PER_TURN as usize;
        assert!(polls >= turns, "{element}: {polls} polls, {turns} turns");
        socket.acks = PendingAcks::new("t".into(), usize::MAX);
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_flood_of_pings_is_answered_in_turns_with_other_tasks() {
    use tokio::io::AsyncWriteExt;

    let broker = MemoryBroker::start(BrokerConfig::default()).await.unwrap();
    let (mut socket, mut client) = socket(&broker).await;
    let ping = [0x89, 0x80, 0, 0, 0, 0];
    let pings = 2 * STEPS_PER_TURN;
    client
        .write_all(&ping.repeat(pings as usize))
        .await
        .unwrap();
    let mut handled = 0;
    // A pong has two bytes.
    while socket.session.out.len() < 2 * pings as usize {
        socket.session.readable().await.unwrap();
        socket.session.read_available().unwrap();
        socket.handle_messages().await.unwrap();
        handled += socket.session.take_control_frames();
    }
    assert_eq!(handled, pings, "each is a step of the task's turn");
    broker.stop().await;
}
