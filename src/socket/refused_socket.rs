//! A client that is refused after the 101 (`errors=close`), by a close frame.
//!
//! It has no socket that counts, so its connection goes on counting among those that speak HTTP
//! until it is closed, and makes room for another as one that is idle does.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::Notify;

use super::stream::WebSocketStream;
use websocket::frame::CloseFrame;

/// How long the close frame may take to be sent.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Counts the connection of a request among those that speak HTTP, as an extension of the request,
/// until it is dropped.
#[derive(Clone, Debug)]
pub(crate) struct HttpConnectionHold {
    _counted: Arc<dyn Any + Send + Sync>,
    closing: Arc<Notify>,
}

impl HttpConnectionHold {
    /// Holds `counted`, which may have to make room for another connection when `closing` is
    /// notified.
    pub(crate) fn new(counted: Arc<dyn Any + Send + Sync>, closing: Arc<Notify>) -> Self {
        Self {
            _counted: counted,
            closing,
        }
    }
}

/// Tells the client why it is refused, and waits until it closes, or has to make room.
pub(super) async fn close(
    socket: WebSocketStream,
    close: &CloseFrame,
    connection: Option<HttpConnectionHold>,
) {
    let closed = socket.close(BytesMut::new(), close, REFUSAL_TIMEOUT);
    match connection {
        None => closed.await,
        Some(connection) => tokio::select! {
            () = closed => {}
            () = connection.closing.notified() => {}
        },
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::Instant;

    use super::*;
    use crate::http_stream::HttpStream;
    use crate::socket::stream::MessageLimits;
    use websocket::frame::CloseCode;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_close_makes_room_as_soon_as_it_must() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        let limits = MessageLimits::plain(125);
        let stream = HttpStream::Left(accepted.unwrap().0);
        let socket = WebSocketStream::new(stream, Default::default(), limits);
        let (counted, closing) = (Arc::new(()), Arc::new(Notify::new()));
        let connection = HttpConnectionHold::new(counted.clone(), closing.clone());
        let refusal = CloseFrame::new(CloseCode(4400), "no such topic");
        let begin = Instant::now();
        let room = async {
            tokio::task::yield_now().await;
            assert_eq!(Arc::strong_count(&counted), 2, "it counts");
            closing.notify_one();
        };
        tokio::join!(close(socket, &refusal, Some(connection)), room);
        assert_eq!(begin.elapsed(), Duration::ZERO);
        assert_eq!(Arc::strong_count(&counted), 1);
        drop(client.unwrap());
    }
}
