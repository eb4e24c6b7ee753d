//! Why a socket closes, and the close frame that its client is sent.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::metrics::sockets::NO_CLOSE_FRAME;
use kafka_client::consumer::ConsumerError;
use websocket::frame::{CloseCode, CloseFrame, ProtocolViolation};

/// Why a socket closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// The client sent a close frame.
    PeerClosed(Option<CloseFrame>),
    /// The client ended its side of the connection without a close frame: it sends nothing
    /// more, and may still read.
    HalfClosed,
    /// The connection broke.
    ConnectionLost,
    /// Nothing came from the client for two ping intervals.
    PingTimeout,
    /// The client takes nothing of what it is sent.
    SlowClient,
    /// A message that was partly sent cannot be completed: its record is gone.
    FrameLost,
    /// The client's token is not good any more.
    AuthenticationExpired,
    /// The server is stopping. The client is asked to connect again after that time, so that not
    /// all of them do at once.
    ServerStopping { reconnect_after: Duration },
    /// The server fails the connection, with this code and reason.
    Fail(CloseFrame),
}

impl CloseReason {
    /// A newer socket has the transactional id.
    pub(super) fn fenced() -> Self {
        Self::Fail(CloseFrame::new(CloseCode::POLICY_VIOLATION, "fenced"))
    }

    /// The close frame to send; `None` where the client cannot read it.
    pub(super) fn close_frame(&self) -> Option<CloseFrame> {
        Some(match self {
            CloseReason::ConnectionLost | CloseReason::PingTimeout | CloseReason::FrameLost => {
                return None;
            }
            CloseReason::PeerClosed(Some(close)) | CloseReason::Fail(close) => close.clone(),
            // A close frame without a status code is answered by one without.
            CloseReason::PeerClosed(None) | CloseReason::HalfClosed => {
                CloseFrame::new(CloseCode::NO_STATUS_RECEIVED, "")
            }
            CloseReason::SlowClient => {
                CloseFrame::new(CloseCode::TRY_AGAIN_LATER, "the client reads too slowly")
            }
            CloseReason::AuthenticationExpired => {
                CloseFrame::new(CloseCode::POLICY_VIOLATION, "authentication expired")
            }
            CloseReason::ServerStopping { reconnect_after } => {
                let after = reconnect_after.as_millis();
                let reason = format!("restarting; reconnect in {after} ms");
                CloseFrame::new(CloseCode::SERVICE_RESTART, &reason)
            }
        })
    }
}

impl CloseReason {
    /// The code of the close frame that was sent or came first, for the metrics.
    pub(super) fn code(&self) -> u16 {
        match self {
            CloseReason::HalfClosed => NO_CLOSE_FRAME,
            reason => reason
                .close_frame()
                .map_or(NO_CLOSE_FRAME, |close| close.code.0),
        }
    }
}

/// For the log. What a client says is quoted.
impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::PeerClosed(None) => f.write_str("the client closed"),
            CloseReason::PeerClosed(Some(CloseFrame { code, reason })) => {
                write!(f, "the client closed with {}", code.0)?;
                match &**reason {
                    "" => Ok(()),
                    reason => write!(f, " {reason:?}"),
                }
            }
            CloseReason::HalfClosed => f.write_str("the client ended the connection"),
            CloseReason::ConnectionLost => f.write_str("the connection was lost"),
            CloseReason::PingTimeout => f.write_str("the client answers no ping"),
            CloseReason::FrameLost => {
                f.write_str("the rest of a record that was partly sent is gone")
            }
            CloseReason::SlowClient
            | CloseReason::AuthenticationExpired
            | CloseReason::ServerStopping { .. }
            | CloseReason::Fail(_) => {
                let CloseFrame { code, reason } = self.close_frame().ok_or(fmt::Error)?;
                write!(f, "{} {reason}", code.0)
            }
        }
    }
}

impl From<io::Error> for CloseReason {
    fn from(_: io::Error) -> Self {
        CloseReason::ConnectionLost
    }
}

impl From<ProtocolViolation> for CloseReason {
    fn from(violation: ProtocolViolation) -> Self {
        CloseReason::Fail(match violation.code {
            CloseCode::MESSAGE_TOO_BIG => {
                let reason = format!("{} (server.websocket.max-message-size)", violation.reason);
                CloseFrame::new(violation.code, &reason)
            }
            _ => violation.into(),
        })
    }
}

impl From<ConsumerError> for CloseReason {
    fn from(error: ConsumerError) -> Self {
        let code = match &error {
            ConsumerError::Stopped => {
                let reconnect_after = Duration::ZERO;
                return CloseReason::ServerStopping { reconnect_after };
            }
            ConsumerError::Fenced { .. }
            | ConsumerError::GroupNotAuthorized { .. }
            | ConsumerError::TopicNotAuthorized { .. }
            | ConsumerError::UnknownTopic { .. }
            | ConsumerError::NoCommittedOffset { .. }
            | ConsumerError::Rejected { .. } => CloseCode::POLICY_VIOLATION,
            ConsumerError::Failed { .. }
            | ConsumerError::NoPosition { .. }
            | ConsumerError::Corrupt { .. } => CloseCode::INTERNAL_ERROR,
        };
        CloseReason::Fail(CloseFrame::new(code, &for_clients(&error)))
    }
}

/// What a client is told. Why a request to a broker has failed names the broker, and is in the log.
fn for_clients(error: &ConsumerError) -> String {
    match error {
        ConsumerError::Failed { group, .. } => {
            format!("group {group}: the brokers cannot be used as its members must (see the log)")
        }
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_broker_refuses_is_a_policy_violation_and_what_fails_an_internal_error_without_names()
     {
        let (group, reason) = ("g".into(), "it is full".into());
        let refused = ConsumerError::Rejected { group, reason };
        let expected = CloseFrame::new(CloseCode::POLICY_VIOLATION, &refused.to_string());
        assert_eq!(CloseReason::from(refused), CloseReason::Fail(expected));

        let reason = "broker 1 (kafka-1:9092) does not support JoinGroup".into();
        let group = "g".into();
        match CloseReason::from(ConsumerError::Failed { group, reason }) {
            CloseReason::Fail(close) => {
                assert_eq!(close.code, CloseCode::INTERNAL_ERROR);
                assert!(close.reason.contains("group g"), "{close:?}");
                assert!(!close.reason.contains("kafka-1"), "{close:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}
