//! Why a socket closes, and the close frame that its client is sent.

use bytes::BytesMut;
use tokio::time::Duration;

use super::stream::WebSocketStream;
use kafka_client::consumer::ConsumerError;
use websocket::frame::{CloseCode, CloseFrame, ProtocolViolation};

/// How long a close frame may take to get out.
const SEND_MAX: Duration = Duration::from_secs(5);

/// Why a socket closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// The client sent a close frame.
    PeerClosed(Option<CloseFrame>),
    /// The connection broke or ended without a close frame.
    ConnectionLost,
    /// Nothing came from the client for two ping intervals.
    PingTimeout,
    /// The client takes nothing of what it is sent.
    SlowClient,
    /// The server is stopping.
    ServerStopping,
    /// The server fails the connection, with this code and reason.
    Fail(CloseFrame),
}

impl CloseReason {
    /// Sends what is left of `out` and the close frame, and waits for the client to close.
    pub(super) async fn close(self, socket: WebSocketStream, out: BytesMut) {
        let close = match self {
            CloseReason::ConnectionLost => return,
            // A client that answers no ping reads no close frame.
            CloseReason::PingTimeout => return socket.reset(),
            CloseReason::PeerClosed(Some(close)) => close,
            // A close frame without a status code is answered by one without.
            CloseReason::PeerClosed(None) => CloseFrame::new(CloseCode::NO_STATUS_RECEIVED, ""),
            CloseReason::SlowClient => {
                CloseFrame::new(CloseCode::TRY_AGAIN_LATER, "the client reads too slowly")
            }
            CloseReason::ServerStopping => {
                CloseFrame::new(CloseCode::SERVICE_RESTART, "the server is stopping")
            }
            CloseReason::Fail(close) => close,
        };
        socket.close(out, &close, SEND_MAX).await;
    }
}

impl From<ProtocolViolation> for CloseReason {
    fn from(violation: ProtocolViolation) -> Self {
        CloseReason::Fail(violation.into())
    }
}

impl From<ConsumerError> for CloseReason {
    fn from(error: ConsumerError) -> Self {
        let code = match &error {
            ConsumerError::Stopped => return CloseReason::ServerStopping,
            ConsumerError::Fenced { .. }
            | ConsumerError::GroupNotAuthorized { .. }
            | ConsumerError::TopicNotAuthorized { .. }
            | ConsumerError::UnknownTopic { .. }
            | ConsumerError::NoCommittedOffset { .. } => CloseCode::POLICY_VIOLATION,
            ConsumerError::Refused { .. } | ConsumerError::Corrupt { .. } => {
                CloseCode::INTERNAL_ERROR
            }
        };
        CloseReason::Fail(CloseFrame::new(code, &error.to_string()))
    }
}
