//! Heads of HTTP requests: what is refused that some servers let pass, and how long one may be.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::PATIENCE;
use crate::support::proxy::Proxy;

const UPGRADE: &str = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Sends these bytes, and reads what comes until the server closes.
async fn last_answer_to(proxy: &Proxy, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(&proxy.address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    let read = timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
    read.expect("it stays open").unwrap();
    answer
}

#[tokio::test]
async fn a_request_that_cannot_be_read_is_answered_as_all_others_are() {
    let proxy = Proxy::start().await;
    let many = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "a: b\r\n".repeat(200)
    );
    for (request, status) in [
        (&b"no request\r\n\r\n"[..], "400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX Y: 1\r\n\r\n", "400"),
        (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
            "400",
        ),
        (many.as_bytes(), "431"),
        // Behind one that can be read.
        (
            b"GET /healthcheck HTTP/1.1\r\nHost: a\r\n\r\nno request\r\n\r\n",
            "400",
        ),
    ] {
        let answers = last_answer_to(&proxy, request).await;
        let last = &answers[answers.rfind("HTTP/1.1 4").expect(&answers)..];
        assert_eq!(self::status(last), status, "{last}");
        let (head, body) = last.split_once("\r\n\r\n").expect(last);
        for field in [
            "content-type: application/json",
            "x-content-type-options: nosniff",
            "connection: close",
            &format!("content-length: {}", body.len()),
        ] {
            assert!(head.lines().any(|line| line == field), "{field}: {head}");
        }
        let body: serde_json::Value = serde_json::from_str(body).expect(last);
        assert!(body["message"].is_string(), "{body}");
    }
    proxy.stopped().await;
}

/// What one server takes for a body may be a request to another.
#[tokio::test]
async fn nothing_behind_a_body_or_a_refused_upgrade_is_taken_for_a_request() {
    let proxy = Proxy::start().await;
    let next = "GET /healthcheck HTTP/1.1\r\nHost: a\r\n\r\n";
    for first in [
        "POST /healthcheck HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "GET /healthcheck HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "POST /healthcheck HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /healthcheck HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n",
    ] {
        let answers = last_answer_to(&proxy, format!("{first}{next}").as_bytes()).await;
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
        assert!(answers.contains("connection: close"), "{answers}");
    }
    proxy.stopped().await;
}

/// Sends these bytes, and reads the answer's head; what follows a 101 is not waited for.
async fn answer_to(proxy: &Proxy, request: &str) -> String {
    let mut stream = TcpStream::connect(&proxy.address).await.unwrap();
    // The server may close before it has read everything.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let head = async {
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            if matches!(stream.read_buf(&mut answer).await, Ok(0) | Err(_)) {
                break;
            }
        }
    };
    timeout(PATIENCE, head).await.expect("no answer");
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

#[tokio::test]
async fn a_head_that_proxies_read_differently_is_refused_with_400() {
    let proxy = Proxy::start().await;
    proxy.topic("t", 1);
    const GET: &str = "GET /socket/in?topic=t HTTP/1.1\r\n";
    for (what, request) in [
        (
            "two hosts",
            format!("{GET}Host: a\r\nHost: b\r\n{UPGRADE}\r\n"),
        ),
        (
            "the same host twice",
            format!("{GET}Host: a\r\nHost: a\r\n{UPGRADE}\r\n"),
        ),
        ("no host", format!("{GET}{UPGRADE}\r\n")),
        (
            "a body of known length",
            format!("{GET}Host: a\r\nContent-Length: 5\r\n{UPGRADE}\r\nhello"),
        ),
        (
            "a body in chunks",
            format!("{GET}Host: a\r\nTransfer-Encoding: chunked\r\n{UPGRADE}\r\n0\r\n\r\n"),
        ),
        (
            "bare line feeds",
            format!("{GET}Host: a\r\n{UPGRADE}\r\n").replace("\r\n", "\n"),
        ),
        ("one bare line feed", format!("{GET}Host: a\n{UPGRADE}\r\n")),
        (
            "a bare line feed at the end",
            format!("{GET}Host: a\r\n{UPGRADE}\n"),
        ),
        (
            "a folded line",
            format!("{GET}Host: a\r\nX-Long: a\r\n  b\r\n{UPGRADE}\r\n"),
        ),
        (
            "a space before the colon",
            format!("{GET}Host : a\r\n{UPGRADE}\r\n"),
        ),
        (
            "a name that is no token",
            format!("{GET}Host: a\r\nX(Y): a\r\n{UPGRADE}\r\n"),
        ),
        (
            "a carriage return in a value",
            format!("{GET}Host: a\r\nX: a\rb\r\n{UPGRADE}\r\n"),
        ),
        ("no colon", format!("{GET}Host: a\r\nX\r\n{UPGRADE}\r\n")),
        (
            "two lengths",
            format!("{GET}Host: a\r\nContent-Length: 0\r\nContent-Length: 1\r\n{UPGRADE}\r\n"),
        ),
    ] {
        let answer = answer_to(&proxy, &request).await;
        assert_eq!(status(&answer), "400", "{what}: {answer}");
    }
    for (what, request) in [
        ("as usual", format!("{GET}Host: a\r\n{UPGRADE}\r\n")),
        (
            "a body of no length",
            format!("{GET}Host: a\r\nContent-Length: 0\r\n{UPGRADE}\r\n"),
        ),
        (
            "an empty line in front",
            format!("\r\n{GET}Host: a\r\n{UPGRADE}\r\n"),
        ),
        (
            "a frame behind the head",
            format!("{GET}Host: a\r\n{UPGRADE}\r\n\u{1}\n\n"),
        ),
    ] {
        let answer = answer_to(&proxy, &request).await;
        assert_eq!(status(&answer), "101", "{what}: {answer}");
    }
    proxy.stopped().await;
}

#[tokio::test]
async fn a_head_is_as_long_as_the_limit_allows_and_a_longer_one_is_answered_431() {
    let proxy = Proxy::start().await;
    let with = |length| {
        let long = "x".repeat(length);
        format!("GET /healthcheck HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n")
    };
    let answer = answer_to(&proxy, &with(30 << 10)).await;
    assert_eq!(status(&answer), "200", "{answer}");
    for length in [33 << 10, 400 << 10] {
        let answer = answer_to(&proxy, &with(length)).await;
        assert_eq!(status(&answer), "431", "{answer}");
    }
    let many = "a:\r\n".repeat(10_000);
    let request = format!("GET /healthcheck HTTP/1.1\r\nHost: a\r\n{many}\r\n");
    let answer = answer_to(&proxy, &request).await;
    assert_eq!(status(&answer), "431", "{answer}");
    proxy.stopped().await;
}

#[tokio::test]
async fn no_answer_lets_a_browser_guess_its_type() {
    let proxy = Proxy::start().await;
    for path in ["/healthcheck", "/ready", "/nowhere", "/socket/in?topic=t"] {
        for origin in [
            "",
            "Origin: https://a.example\r\nOrigin: https://b.example\r\n",
        ] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{origin}\r\n");
            let answer = answer_to(&proxy, &request).await;
            let header = "\r\nx-content-type-options: nosniff\r\n";
            assert!(answer.contains(header), "{path}: {answer}");
        }
    }
    proxy.stopped().await;
}
