//! The error objects of both endpoints: why a record was not produced or cannot be delivered,
//! or a commit or a command not done.
//!
//! ```text
//! {"error":{"code":"invalid_format","message":"…"},"messageId":"a"}
//! ```

use std::fmt::{self, Write};

use bytes::{BufMut, BytesMut};

use super::json::{self, EscapingWriter};

/// Why a record was not produced or cannot be delivered, or a commit or a command not done, for
/// programs.
/// All codes of produced records but [`SocketErrorCode::UnknownOutcome`] mean that the record is
/// not in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SocketErrorCode {
    /// The frame is not JSON.
    InvalidJson,
    /// JSON that is no record, or no commit.
    InvalidRecord,
    /// An unknown format, or a value that does not fit its format.
    InvalidFormat,
    /// Over the size that the topic or the producer allows.
    TooLarge,
    /// The credentials do not allow writing to the topic.
    NotAuthorized,
    /// Not written within the delivery timeout.
    TimedOut,
    /// The record may or may not be in the log.
    UnknownOutcome,
    /// The brokers refused it.
    BrokerError,
    /// A record without fault, of a transaction that was not committed.
    Aborted,
    /// A commit of a record that this socket did not get, or that the last commit covers.
    UnknownMessageId,
    /// A commit on a socket with `autoCommit=true`.
    AutoCommitEnabled,
    /// Records that cannot be delivered, reported in their place.
    Unreadable,
    /// There is no such command.
    UnknownCommand,
}

impl SocketErrorCode {
    /// All of them.
    pub(crate) const ALL: [Self; 13] = [
        Self::InvalidJson,
        Self::InvalidRecord,
        Self::InvalidFormat,
        Self::TooLarge,
        Self::NotAuthorized,
        Self::TimedOut,
        Self::UnknownOutcome,
        Self::BrokerError,
        Self::Aborted,
        Self::UnknownMessageId,
        Self::AutoCommitEnabled,
        Self::Unreadable,
        Self::UnknownCommand,
    ];

    /// Whether a record that was to be produced may be answered with it.
    pub(crate) fn is_of_produced_records(self) -> bool {
        !matches!(
            self,
            Self::UnknownMessageId
                | Self::AutoCommitEnabled
                | Self::Unreadable
                | Self::UnknownCommand
        )
    }

    /// The name in error objects.
    pub(crate) fn name(self) -> &'static str {
        match self {
            SocketErrorCode::InvalidJson => "invalid_json",
            SocketErrorCode::InvalidRecord => "invalid_record",
            SocketErrorCode::InvalidFormat => "invalid_format",
            SocketErrorCode::TooLarge => "too_large",
            SocketErrorCode::NotAuthorized => "not_authorized",
            SocketErrorCode::TimedOut => "timed_out",
            SocketErrorCode::UnknownOutcome => "unknown_outcome",
            SocketErrorCode::BrokerError => "broker_error",
            SocketErrorCode::Aborted => "aborted",
            SocketErrorCode::UnknownMessageId => "unknown_message_id",
            SocketErrorCode::AutoCommitEnabled => "auto_commit_enabled",
            SocketErrorCode::Unreadable => "unreadable",
            SocketErrorCode::UnknownCommand => "unknown_command",
        }
    }
}

impl fmt::Display for SocketErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The id of the record or commit that an answer is for. Without one the field is left out.
///
/// Of JSON, it is a string as it came, quotes and escapes included, to be sent back as it is; of
/// Avro, its plain text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EchoedId<'a> {
    /// The client gave no id, or none that could be read.
    None,
    /// A record's `messageId`.
    MessageId(&'a [u8]),
    /// A commit's `wsProxyMessageId`.
    WsProxyMessageId(&'a [u8]),
    /// A record's `messageId`, of Avro.
    PlainMessageId(&'a str),
    /// A commit's `wsProxyMessageId`, of Avro.
    PlainWsProxyMessageId(&'a str),
}

impl<'a> EchoedId<'a> {
    /// A record's `messageId`, where it has one.
    pub(crate) fn message_id(text: Option<&'a [u8]>) -> EchoedId<'a> {
        text.map_or(EchoedId::None, EchoedId::MessageId)
    }
}

/// Begins an object with its field `error`.
pub(super) fn begin_error(out: &mut BytesMut, code: SocketErrorCode, message: impl fmt::Display) {
    out.put_u8(b'{');
    write_error_member(out, code, message);
}

/// Writes the field `error` of an object.
pub(super) fn write_error_member(
    out: &mut BytesMut,
    code: SocketErrorCode,
    message: impl fmt::Display,
) {
    out.put_slice(b"\"error\":{\"code\":\"");
    out.put_slice(code.name().as_bytes());
    out.put_slice(b"\",\"message\":\"");
    write!(EscapingWriter(out), "{message}").expect("a buffer in memory takes everything");
    out.put_slice(b"\"}");
}

/// Writes that a record was not produced, or a commit not done, and why.
pub(crate) fn write_error(
    out: &mut BytesMut,
    code: SocketErrorCode,
    message: impl fmt::Display,
    id: EchoedId<'_>,
) {
    begin_error(out, code, message);
    write_echoed_id(out, id);
    out.put_u8(b'}');
}

pub(super) fn write_echoed_id(out: &mut BytesMut, id: EchoedId<'_>) {
    match id {
        EchoedId::None => {}
        EchoedId::MessageId(text) => {
            out.put_slice(MESSAGE_ID);
            out.put_slice(text);
        }
        EchoedId::WsProxyMessageId(text) => {
            out.put_slice(WS_PROXY_MESSAGE_ID);
            out.put_slice(text);
        }
        EchoedId::PlainMessageId(text) => {
            out.put_slice(MESSAGE_ID);
            json::write_string(out, text.as_bytes());
        }
        EchoedId::PlainWsProxyMessageId(text) => {
            out.put_slice(WS_PROXY_MESSAGE_ID);
            json::write_string(out, text.as_bytes());
        }
    }
}

const MESSAGE_ID: &[u8] = b",\"messageId\":";
const WS_PROXY_MESSAGE_ID: &[u8] = b",\"wsProxyMessageId\":";

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What `write` leaves in a buffer.
    pub(in super::super) fn written(write: impl FnOnce(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        write(&mut out);
        String::from_utf8(out.to_vec()).expect("UTF-8")
    }

    #[test]
    fn an_error_has_a_code_and_a_message() {
        assert_eq!(
            written(|out| write_error(
                out,
                SocketErrorCode::InvalidFormat,
                "no \"such\"\nthing",
                EchoedId::None
            )),
            r#"{"error":{"code":"invalid_format","message":"no \"such\"\nthing"}}"#
        );
        assert_eq!(
            written(|out| write_error(
                out,
                SocketErrorCode::TimedOut,
                5,
                EchoedId::message_id(Some(b"\"a\""))
            )),
            r#"{"error":{"code":"timed_out","message":"5"},"messageId":"a"}"#
        );
        assert_eq!(
            written(|out| write_error(
                out,
                SocketErrorCode::UnknownMessageId,
                "not delivered here",
                EchoedId::WsProxyMessageId(b"\"t-0-1-2\"")
            )),
            r#"{"error":{"code":"unknown_message_id","message":"not delivered here"},"wsProxyMessageId":"t-0-1-2"}"#
        );
    }

    #[test]
    fn codes_have_the_documented_names() {
        for (code, name) in [
            (SocketErrorCode::InvalidJson, "invalid_json"),
            (SocketErrorCode::InvalidRecord, "invalid_record"),
            (SocketErrorCode::InvalidFormat, "invalid_format"),
            (SocketErrorCode::TooLarge, "too_large"),
            (SocketErrorCode::NotAuthorized, "not_authorized"),
            (SocketErrorCode::TimedOut, "timed_out"),
            (SocketErrorCode::UnknownOutcome, "unknown_outcome"),
            (SocketErrorCode::BrokerError, "broker_error"),
            (SocketErrorCode::Aborted, "aborted"),
            (SocketErrorCode::UnknownMessageId, "unknown_message_id"),
            (SocketErrorCode::AutoCommitEnabled, "auto_commit_enabled"),
            (SocketErrorCode::UnknownCommand, "unknown_command"),
        ] {
            assert_eq!(code.to_string(), name);
        }
    }
}
