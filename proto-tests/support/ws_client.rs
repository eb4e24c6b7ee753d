//! A WebSocket client that shares no code with the server: tungstenite's.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use rustls::ClientConfig;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::tls::{self, TestStream};
use super::{PATIENCE, secrets, until_asked};

/// An open socket.
pub(crate) struct WsClient {
    stream: WebSocketStream<TestStream>,
}

/// A refused upgrade.
#[derive(Debug)]
pub(crate) struct UpgradeRefused {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: String,
}

impl UpgradeRefused {
    pub(crate) fn message(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).expect("an HTTP error is JSON");
        body["message"].as_str().expect("with a message").to_owned()
    }
}

/// Opens a socket, again while it is refused for what others hold (400) or the brokers lack (503).
pub(crate) async fn let_in(open: impl AsyncFn() -> Result<WsClient, UpgradeRefused>) -> WsClient {
    let mut socket = None;
    until_asked("a socket is let in", async || {
        match open().await {
            Ok(opened) => socket = Some(opened),
            Err(refused) => assert!([400, 503].contains(&refused.status), "{refused:?}"),
        }
        socket.is_some()
    })
    .await;
    socket.unwrap()
}

impl WsClient {
    /// Opens `path` (with its query) at `address`.
    pub(crate) async fn connect(address: &str, path: &str) -> Result<Self, UpgradeRefused> {
        Self::connect_with(address, path, None).await
    }

    /// With one more header.
    pub(crate) async fn connect_with(
        address: &str,
        path: &str,
        header: Option<(&'static str, &str)>,
    ) -> Result<Self, UpgradeRefused> {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::upgrade(TestStream::Left(stream), address, path, header).await
    }

    /// By TLS.
    pub(crate) async fn connect_tls(
        address: &str,
        path: &str,
        config: &Arc<ClientConfig>,
    ) -> Result<Self, UpgradeRefused> {
        let stream = tls::connect(address, config).await.unwrap();
        Self::upgrade(TestStream::Right(Box::new(stream)), address, path, None).await
    }

    /// Over a connection that stands, with one more header.
    pub(crate) async fn upgrade(
        stream: TestStream,
        address: &str,
        path: &str,
        header: Option<(&'static str, &str)>,
    ) -> Result<Self, UpgradeRefused> {
        let url = format!("ws://{address}{path}");
        let mut request = url.into_client_request().unwrap();
        if let Some((name, value)) = header {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        match timeout(PATIENCE, client_async(request, stream))
            .await
            .unwrap()
        {
            Ok((stream, _)) => Ok(Self { stream }),
            Err(Error::Http(response)) => {
                let (head, body) = response.into_parts();
                let body = String::from_utf8(body.unwrap_or_default()).unwrap();
                secrets::assert_none_in(&format!("{:?} {body}", head.headers));
                Err(UpgradeRefused {
                    status: head.status.as_u16(),
                    headers: head.headers,
                    body,
                })
            }
            Err(error) => panic!("{path}: {error}"),
        }
    }

    pub(crate) async fn send(&mut self, text: impl Into<String>) {
        let message = Message::text(text.into());
        self.stream.send(message).await.unwrap();
    }

    pub(crate) async fn send_message(&mut self, message: Message) {
        self.stream.send(message).await.unwrap();
    }

    /// Sends a part of a text message, as a frame of its own.
    pub(crate) async fn send_fragment(&mut self, part: String, is_first: bool, is_last: bool) {
        let data = match is_first {
            true => Data::Text,
            false => Data::Continue,
        };
        let frame = Frame::message(part, OpCode::Data(data), is_last);
        self.send_message(Message::Frame(frame)).await;
    }

    /// Sends all of them before it gives way to others.
    ///
    /// # Errors
    /// The connection does not take them any more.
    pub(crate) async fn send_all(
        &mut self,
        messages: impl Iterator<Item = Message>,
    ) -> Result<(), Error> {
        for message in messages {
            self.stream.feed(message).await?;
        }
        self.stream.flush().await
    }

    /// The next message that is no ping or pong; `None` when the connection ended without
    /// a close frame. Pings do not lengthen the wait.
    pub(crate) async fn next_message(&mut self) -> Option<Message> {
        let next = async {
            loop {
                match self.stream.next().await {
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(message)) => return Some(message),
                    Some(Err(_)) | None => return None,
                }
            }
        };
        timeout(PATIENCE, next).await.expect("nothing came")
    }

    /// The next text message, as JSON.
    pub(crate) async fn next(&mut self) -> Value {
        match self.next_message().await {
            Some(Message::Text(text)) => serde_json::from_str(&text).expect("JSON"),
            other => panic!("a text was expected: {other:?}"),
        }
    }

    /// The next `n` records, whether they come alone or in arrays.
    pub(crate) async fn records(&mut self, n: usize) -> Vec<Value> {
        let mut records = Vec::new();
        while records.len() < n {
            match self.next().await {
                Value::Array(batch) => records.extend(batch),
                record => records.push(record),
            }
        }
        records
    }

    /// Sends one frame and gives its answer.
    pub(crate) async fn ask(&mut self, text: impl Into<String>) -> Value {
        self.send(text).await;
        self.next().await
    }

    /// Reads to the server's close frame.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.next_message().await {
                Some(Message::Close(Some(CloseFrame { code, reason }))) => {
                    secrets::assert_none_in(&reason);
                    return (code.into(), reason.to_string());
                }
                Some(Message::Close(None)) => return (1005, String::new()),
                Some(_) => {}
                None => panic!("the connection ended without a close frame"),
            }
        }
    }

    /// Sends a close frame and ends the connection without waiting for the answer.
    pub(crate) async fn abandon_with_a_close_frame(mut self) {
        self.send_message(Message::Close(None)).await;
    }

    /// Closes as a client should, and waits for the answer.
    pub(crate) async fn close(mut self) {
        self.stream.close(None).await.unwrap();
        while let Some(Ok(_)) = timeout(PATIENCE, self.stream.next()).await.unwrap() {}
    }

    /// The TCP connection, for bytes that are no valid frames.
    pub(crate) fn into_tcp(self) -> TcpStream {
        match self.stream.into_inner() {
            TestStream::Left(tcp) => tcp,
            TestStream::Right(_) => panic!("it speaks TLS"),
        }
    }

    /// The TLS connection.
    pub(crate) fn into_tls(self) -> TlsStream<TcpStream> {
        match self.stream.into_inner() {
            TestStream::Left(_) => panic!("it speaks no TLS"),
            TestStream::Right(tls) => *tls,
        }
    }
}
