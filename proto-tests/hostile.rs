//! Clients that mean harm: what they cost, and that their neighbours are served.
//!
//! Memory and a neighbour's latency are printed; asserted are bounds of memory and of counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::program::Program;
use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, until};

/// Longer than a test may take.
const NEVER: Duration = Duration::from_secs(3_600);

async fn connect(address: &str) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// The status of `GET path`.
async fn get(address: &str, path: &str) -> String {
    let mut stream = connect(address).await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
    read.expect("no answer").unwrap();
    answer.split(' ').nth(1).unwrap_or("none").to_owned()
}

/// Waits until the server has closed the connection.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is an end too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("the connection stays open");
}

#[tokio::test]
async fn silent_connections_make_room_for_the_next_the_oldest_first() {
    let proxy = Proxy::with(|config| {
        config.server.limits.connections_max = 20;
        config.server.limits.header_timeout = NEVER;
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..60 {
        silent.push(connect(&proxy.address).await);
    }
    assert_eq!(get(&proxy.address, "/healthcheck").await, "200");
    for oldest in &mut silent[..40] {
        closed(oldest).await;
    }
    let newest = silent.last_mut().unwrap();
    newest
        .write_all(b"GET /healthcheck HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 12];
    timeout(PATIENCE, newest.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    proxy.stopped().await;
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_keeps_nobody_out() {
    let proxy = Proxy::with(|config| {
        config.server.limits.connections_max = 20;
        config.server.limits.header_timeout = NEVER;
    })
    .await;
    let mut slow = Vec::new();
    for _ in 0..60 {
        slow.push(connect(&proxy.address).await);
    }
    for byte in b"GET /healthcheck HTTP/1.1\r\nX: "
        .iter()
        .chain(&[b'x'; 20])
    {
        for stream in &mut slow {
            // It may have been closed.
            let _ = stream.write_all(&[*byte]).await;
        }
        assert_eq!(get(&proxy.address, "/healthcheck").await, "200");
    }
    closed(&mut slow[0]).await;
    proxy.stopped().await;
}

#[tokio::test]
async fn sockets_that_take_all_connections_leave_some_for_health_checks() {
    let proxy = Proxy::with(|config| config.server.limits.connections_max = 3).await;
    proxy.topic("t", 1);
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(proxy.connect("/socket/in?topic=t").await);
    }
    for _ in 0..50 {
        let refused = proxy.open("/socket/in?topic=t").await.err().unwrap();
        assert_eq!(refused.status, 429);
        let message = refused.message();
        assert!(
            message.contains("server.limits.connections-max"),
            "{message}"
        );
        assert_eq!(get(&proxy.address, "/healthcheck").await, "200");
    }
    let answer = sockets[0].ask(r#"{"value":{"value":"x"}}"#).await;
    assert_eq!(answer["offset"], 0);
    proxy.stopped().await;
}

#[tokio::test]
async fn with_few_descriptors_hundreds_of_silent_connections_keep_no_health_check_waiting() {
    const DESCRIPTORS: usize = 256;
    let program = Program::start_with_descriptors(
        DESCRIPTORS,
        &["--dev", "--limits-header-timeout", "1 hour"],
    );
    let mut silent = Vec::new();
    for _ in 0..355 {
        silent.push(connect(&program.address()).await);
    }
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(program.get("/healthcheck").await.0, 200);
    }
    eprintln!("20 health checks took {:?}", begun.elapsed());
    // The in-memory broker is a client and a server in the same process.
    until("descriptors are left", || {
        program.descriptors() < DESCRIPTORS - 32
    })
    .await;
    let mut socket = program.connect("/socket/in?topic=t").await;
    assert_eq!(socket.ask(r#"{"value":{"value":"x"}}"#).await["offset"], 0);
}

const RECORD: &str = r#"{"value":{"value":"x"}}"#;

/// A frame with this first byte that announces so many bytes, masked with zeros.
fn frame(first: u8, announced: usize, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match announced {
        0..126 => frame.push(0x80 | announced as u8),
        126..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(announced as u16).to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(announced as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// Waits until the proxy has taken what it takes: it sleeps, and its clients, which run in turns with
/// this, have no room to send more.
async fn at_rest(program: &Program, sent: &AtomicUsize) {
    let (mut before, mut looks) = (None, 0);
    until("the proxy is at rest", || {
        let now = program.is_asleep().then(|| sent.load(Ordering::Relaxed));
        looks = if now.is_some() && now == before {
            looks + 1
        } else {
            0
        };
        before = now;
        looks == 10
    })
    .await;
}

/// Opens `count` clients that send `bytes` and read nothing, each on a socket or before any
/// upgrade; an honest neighbour produces meanwhile. Gives the memory in KiB that the proxy took.
async fn memory_of(what: &str, count: usize, path: Option<&str>, bytes: &[u8]) -> u64 {
    let program = Program::start(&["--dev", "--limits-header-timeout", "1 hour"]);
    let mut neighbour = program.connect("/socket/in?topic=t").await;
    neighbour.ask(RECORD).await;
    let before = program.resident_kib();
    let mut hostile = Vec::new();
    let mut slowest = Duration::ZERO;
    let sent = Arc::new(AtomicUsize::new(0));
    for _ in 0..count {
        let mut stream = match path {
            Some(path) => program.connect(path).await.into_tcp(),
            None => connect(&program.address()).await,
        };
        let (bytes, sent) = (bytes.to_vec(), Arc::clone(&sent));
        hostile.push(tokio::spawn(async move {
            // What the proxy does not read waits here.
            let mut rest = &bytes[..];
            while let Ok(n @ 1..) = stream.write(rest).await {
                rest = &rest[n..];
                sent.fetch_add(n, Ordering::Relaxed);
            }
            std::future::pending::<()>().await;
        }));
        let asked = Instant::now();
        neighbour.ask(RECORD).await;
        slowest = slowest.max(asked.elapsed());
    }
    at_rest(&program, &sent).await;
    let took = program.resident_kib().saturating_sub(before);
    eprintln!("{count} {what}: {took} KiB, a neighbour waited {slowest:?} at most");
    for client in hostile {
        client.abort();
    }
    took
}

#[tokio::test]
async fn heads_that_do_not_end_cost_what_was_sent() {
    let head = "GET / HTTP/1.1\r\nHost: a\r\nX: ".to_owned() + &"x".repeat(30 << 10);
    let took = memory_of("long heads", 100, None, head.as_bytes()).await;
    assert!(took < 100 * 128, "{took} KiB");
}

#[tokio::test]
async fn a_message_that_is_announced_and_hardly_sent_costs_what_was_sent() {
    let bytes = frame(0x81, 1 << 20, &[b'x'; 1_000]);
    let took = memory_of("announced messages", 50, Some("/socket/in?topic=t"), &bytes).await;
    assert!(took < 50 * 128, "{took} KiB");
}

#[tokio::test]
async fn arrays_whose_answers_are_not_read_are_taken_to_a_bound() {
    let array = format!("[{}]", vec!["{}"; 300_000].join(","));
    let bytes = frame(0x81, array.len(), array.as_bytes()).repeat(2);
    let took = memory_of("unread arrays", 10, Some("/socket/in?topic=t"), &bytes).await;
    // A message, what was read with it, and a full write buffer; not 300,000 answers.
    assert!(took < 10 * (4 << 10), "{took} KiB");
}

#[tokio::test]
async fn pings_whose_answers_are_not_read_are_taken_to_a_bound() {
    let pings = [0x89, 0x80, 0, 0, 0, 0].repeat(500_000);
    let took = memory_of("ping floods", 10, Some("/socket/in?topic=t"), &pings).await;
    assert!(took < 10 << 10, "{took} KiB");
}

#[tokio::test]
async fn pings_are_all_answered_however_small_the_write_buffer_is() {
    const PINGS: usize = 2_000;
    let proxy = Proxy::with(|config| config.server.websocket.send_buffer = 4096).await;
    proxy.topic("t", 1);
    for path in ["/socket/in?topic=t", "/socket/out?topic=t&clientId=a"] {
        let mut client = proxy.connect(path).await.into_tcp();
        let (mut read, mut write) = client.split();
        let pings = frame(0x89, 100, &[b'p'; 100]).repeat(PINGS);
        let mut pongs = vec![0; (2 + 100) * PINGS];
        let answered = async {
            let (sent, answered) =
                tokio::join!(write.write_all(&pings), read.read_exact(&mut pongs));
            sent.unwrap();
            answered.unwrap();
        };
        // Sooner than the proxy pings by itself, which would have it look again.
        timeout(Duration::from_secs(19), answered)
            .await
            .expect(path);
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn sockets_that_are_refused_by_a_close_frame_count_until_they_are_closed() {
    const CONNECTIONS_MAX: usize = 20;
    let max = CONNECTIONS_MAX.to_string();
    let program = Program::start(&["--dev", "--limits-connections-max", &max]);
    program.ready().await;
    let before = program.descriptors();
    let mut refused = Vec::new();
    let mut most = 0;
    for _ in 0..60 {
        // It is told so, and does not close its side.
        refused.push(
            program
                .connect("/socket/in?topic=t&valType=x&errors=close")
                .await,
        );
        most = most.max(program.descriptors() - before);
    }
    assert!(most <= CONNECTIONS_MAX + 2, "{most} descriptors");
    assert_eq!(program.get("/healthcheck").await.0, 200);
}

#[tokio::test]
async fn fragments_without_an_end_are_cut_at_the_size_of_a_message() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut endless = proxy.connect("/socket/in?topic=t").await.into_tcp();
    let mut fragments = frame(0x01, 60_000, &[b'x'; 60_000]);
    for _ in 0..100 {
        fragments.extend(frame(0x00, 60_000, &[b'x'; 60_000]));
    }
    let (mut read, mut write) = endless.split();
    let mut answer = Vec::new();
    let ended = async {
        let _ = tokio::join!(write.write_all(&fragments), read.read_to_end(&mut answer));
    };
    timeout(PATIENCE, ended).await.expect("it is let go on");
    // A close frame with 1009.
    assert_eq!(
        (answer[0], &answer[2..4]),
        (0x88, &1009_u16.to_be_bytes()[..])
    );
    proxy.stopped().await;
}

#[tokio::test]
async fn a_client_that_goes_on_sending_after_the_close_frames_is_let_go() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut endless = proxy.connect("/socket/in?topic=t").await.into_tcp();
    endless.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
    let (_read, mut write) = endless.split();
    let flood = async { while write.write_all(&[b'x'; 60_000]).await.is_ok() {} };
    timeout(PATIENCE, flood).await.expect("it is read for ever");
    proxy.stopped().await;
}

#[tokio::test]
async fn a_client_that_has_ended_its_side_is_answered_and_let_go() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut client = proxy.connect("/socket/in?topic=t").await.into_tcp();
    client
        .write_all(&frame(0x81, RECORD.len(), RECORD.as_bytes()))
        .await
        .unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, client.read_to_end(&mut answer)).await;
    read.expect("it is kept").unwrap();
    assert!(String::from_utf8_lossy(&answer).contains(r#""offset":0"#));
    proxy.stopped().await;
}

#[tokio::test]
async fn control_frames_between_fragments_are_answered_before_the_message() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    let mut client = proxy.connect("/socket/in?topic=t").await.into_tcp();
    let (first, second) = RECORD.as_bytes().split_at(5);
    let mut bytes = frame(0x01, first.len(), first);
    for _ in 0..100 {
        bytes.extend([0x89, 0x81, 0, 0, 0, 0, b'p']);
    }
    bytes.extend(frame(0x80, second.len(), second));
    client.write_all(&bytes).await.unwrap();
    let mut pongs = vec![0; 300];
    let read = timeout(PATIENCE, client.read_exact(&mut pongs)).await;
    read.expect("no pongs").unwrap();
    assert!(pongs.chunks(3).all(|pong| pong == [0x8a, 1, b'p']));
    let mut ack = [0; 1];
    timeout(PATIENCE, client.read_exact(&mut ack))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(ack, [0x81]);
    proxy.stopped().await;
}
