//! How a socket comes to its end, and what its client is told.

use bytes::BytesMut;
use tokio::time::Duration;

use super::ws::WebSocket;
use kafka_client::consumer::ConsumerError;
use websocket::frame::{CloseCode, CloseFrame, ProtocolViolation};

/// How long a close frame may take to get out.
const SEND_MAX: Duration = Duration::from_secs(5);

/// Why a socket ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client closed.
    Peer(Option<CloseFrame>),
    /// The connection broke or ended without a close frame.
    Lost,
    /// No sign of life for two ping intervals.
    Silent,
    /// The client does not read.
    Slow,
    /// The server stops.
    Stopping,
    /// We close, with this code and reason.
    Fault(CloseFrame),
}

impl End {
    /// Tells the client, after what is left of `out`, and waits for it to close.
    pub(super) async fn close(self, socket: WebSocket, out: BytesMut) {
        let close = match self {
            End::Lost => return,
            // Nobody is there to read a close frame.
            End::Silent => return socket.reset(),
            End::Peer(Some(close)) => close,
            // What was not said is not said back: gives an empty close frame.
            End::Peer(None) => CloseFrame::new(CloseCode::NO_STATUS_RECEIVED, ""),
            End::Slow => CloseFrame::new(CloseCode::TRY_AGAIN_LATER, "the client reads too slowly"),
            End::Stopping => CloseFrame::new(CloseCode::SERVICE_RESTART, "the server is stopping"),
            End::Fault(close) => close,
        };
        socket.close(out, &close, SEND_MAX).await;
    }
}

impl From<ProtocolViolation> for End {
    fn from(violation: ProtocolViolation) -> Self {
        End::Fault(violation.into())
    }
}

impl From<ConsumerError> for End {
    fn from(error: ConsumerError) -> Self {
        let code = match &error {
            ConsumerError::Stopped => return End::Stopping,
            ConsumerError::Fenced { .. }
            | ConsumerError::GroupNotAuthorized { .. }
            | ConsumerError::TopicNotAuthorized { .. }
            | ConsumerError::UnknownTopic { .. }
            | ConsumerError::NoCommittedOffset { .. } => CloseCode::POLICY_VIOLATION,
            ConsumerError::Refused { .. } | ConsumerError::Corrupt { .. } => {
                CloseCode::INTERNAL_ERROR
            }
        };
        End::Fault(CloseFrame::new(code, &error.to_string()))
    }
}
