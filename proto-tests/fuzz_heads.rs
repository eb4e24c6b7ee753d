//! Heads of requests, whole and damaged, in whatever pieces they arrive, to the running server.

use fuzzing::{FuzzInput, fuzz};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use crate::support::PATIENCE;
use crate::support::proxy::Proxy;

const PATHS: [&str; 8] = [
    "/healthcheck",
    "/ready",
    "/kafka/cluster/info",
    "/socket/in?topic=t",
    "/socket/in?topic=none&errors=close",
    "/socket/out?clientId=a",
    "/socket/echo",
    "/",
];

#[test]
fn fuzz_heads() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let proxy = runtime.block_on(Proxy::start());
    proxy.topic("t", 1);
    fuzz("heads", |input| {
        let mut head = any_head(input);
        if !input.one_in(4) {
            input.damage(&mut head);
        }
        runtime.block_on(check(input, &proxy, &head));
    });
    runtime.block_on(async {
        // Whatever came, it still serves.
        let mut socket = proxy.connect("/socket/in?topic=t").await;
        let answer = socket.ask(r#"{"value":{"value":"x"}}"#).await;
        assert_eq!(answer["offset"], 0);
        proxy.stopped().await;
    });
}

/// It is answered, or the connection is ended without an answer.
async fn check(input: &mut FuzzInput, proxy: &Proxy, head: &[u8]) {
    // Each from an address of its own, or a long run would use up the ports of one.
    let socket = TcpSocket::new_v4().unwrap();
    let [a, b, c, ..] = input.number_bytes();
    let address = std::net::Ipv4Addr::new(127, 1 + a % 250, b, 1 + c % 250);
    socket.bind((address, 0).into()).unwrap();
    let mut stream = socket
        .connect(proxy.address.parse().unwrap())
        .await
        .unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in input.cut(head, 3) {
        if stream.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    // A reset is an end, too: what was sent beyond the head is not read.
    let _ = read.unwrap_or_else(|_| panic!("neither answered nor closed: {head:02x?}"));
    let shown = String::from_utf8_lossy(&answer);
    assert!(
        answer.len() < 64 << 10,
        "{} bytes: {head:02x?}",
        answer.len()
    );
    if let Some(status) = shown
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5))
    {
        let status: u16 = status.parse().unwrap_or_else(|_| panic!("{shown}"));
        let expected = (100..500).contains(&status) || status == 501 || status == 503;
        assert!(expected, "{head:02x?}: {shown}");
    } else {
        assert!(answer.is_empty(), "{head:02x?}: {shown}");
    }
}

fn any_head(input: &mut FuzzInput) -> Vec<u8> {
    let method = *input.pick(&["GET", "GET", "GET", "HEAD", "POST", "OPTIONS", "PUT"]);
    let path = *input.pick(&PATHS);
    let version = *input.pick(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]);
    let mut head = format!("{method} {path} {version}\r\n").into_bytes();
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    for line in [
        "Host: localhost",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        key,
    ] {
        for _ in 0..input.below(2) + usize::from(!input.one_in(12)) {
            head.extend_from_slice(line.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
    }
    for line in [
        "Origin: http://localhost",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Expect: 100-continue",
        "Authorization: Basic YTpi",
        "Connection: close",
        "X-Forwarded-For: 10.0.0.1, 10.0.0.2",
    ] {
        if input.one_in(6) {
            head.extend_from_slice(line.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
    }
    if input.one_in(8) {
        let len = input.up_to_bits(15);
        head.extend_from_slice(b"X: ");
        head.extend((0..len).map(|_| b'x'));
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    if input.one_in(4) {
        let len = input.below(40);
        head.extend_from_slice(&input.bytes(len));
    }
    head
}
