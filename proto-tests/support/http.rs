//! Plain HTTP requests, and their answers as they came.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{PATIENCE, secrets};

/// An answer, taken apart.
pub(crate) struct HttpAnswer {
    pub(crate) status: u16,
    /// Their names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl HttpAnswer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let of_that_name = |(known, _): &&(String, String)| known == name;
        let found: Vec<_> = self.headers.iter().filter(of_that_name).collect();
        assert!(found.len() < 2, "{name} is there twice");
        found.first().map(|(_, value)| value.as_str())
    }

    /// That of an error.
    pub(crate) fn message(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/json"));
        let body: Value = serde_json::from_str(&self.body).expect("JSON");
        body["message"].as_str().expect("a message").to_owned()
    }
}

/// Sends a request with these lines of headers.
pub(crate) async fn ask(address: &str, method: &str, path: &str, headers: &[&str]) -> HttpAnswer {
    send(address, method, path, headers, "").await
}

/// Sends a request with these lines of headers and that body.
pub(crate) async fn send(
    address: &str,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &str,
) -> HttpAnswer {
    let mut request = format!("{method} {path} HTTP/1.1\nHost: {address}\nConnection: close\n");
    for header in headers {
        request = request + header + "\n";
    }
    if !body.is_empty() {
        request = request + &format!("Content-Length: {}\n", body.len());
    }
    let request = (request + "\n").replace('\n', "\r\n") + body;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    timeout(PATIENCE, read).await.unwrap().unwrap();
    secrets::assert_none_in(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let (status, headers) = head.split_once("\r\n").expect("headers");
    let header = |line: &str| {
        let (name, value) = line.split_once(": ").expect("a header");
        (name.to_ascii_lowercase(), value.to_owned())
    };
    let mut answer = HttpAnswer {
        status: status.split(' ').nth(1).unwrap().parse().unwrap(),
        headers: headers.lines().map(header).collect(),
        body: body.to_owned(),
    };
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = unchunked(body).expect("the answer ends early");
    }
    answer
}

/// A chunked body in one piece; `None` without its last chunk.
fn unchunked(mut body: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole += rest.get(..size)?;
        body = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}
