//! What a socket is told: results of produced records, and errors.
//!
//! ```text
//! {"topic":"t","partition":0,"offset":7,"timestamp":1554402266846,"messageId":"a"}
//! {"error":{"code":"invalid_format","message":"…"},"messageId":"a"}
//! ```
//!
//! Written piece by piece into the caller's buffer: nothing is allocated per answer.

use std::fmt::{self, Write};

use bytes::{BufMut, BytesMut};

use super::format::write_integer;
use super::json::{self, Escaping};

/// What went wrong with a record or a commit, for programs. All codes but
/// [`Code::UnknownOutcome`] mean that the record is not in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The frame is not JSON.
    InvalidJson,
    /// JSON of the wrong shape.
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
    /// A commit of a record that this socket did not get, or that is behind the last commit.
    UnknownMessageId,
    /// A commit on a socket whose offsets are committed by themselves.
    AutoCommitEnabled,
}

impl Code {
    /// The name in answers.
    pub fn name(self) -> &'static str {
        match self {
            Code::InvalidJson => "invalid_json",
            Code::InvalidRecord => "invalid_record",
            Code::InvalidFormat => "invalid_format",
            Code::TooLarge => "too_large",
            Code::NotAuthorized => "not_authorized",
            Code::TimedOut => "timed_out",
            Code::UnknownOutcome => "unknown_outcome",
            Code::BrokerError => "broker_error",
            Code::UnknownMessageId => "unknown_message_id",
            Code::AutoCommitEnabled => "auto_commit_enabled",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the client called the thing that is answered: a JSON string as it came, quotes
/// and escapes included, to be sent back as it is. Without one the field is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo<'a> {
    /// The client gave no name, or none that could be read.
    Nothing,
    /// A record's `messageId`.
    MessageId(&'a [u8]),
    /// A commit's `wsProxyMessageId`.
    WsProxyMessageId(&'a [u8]),
}

impl<'a> Echo<'a> {
    /// A record's `messageId`, where it has one.
    pub fn message_id(text: Option<&'a [u8]>) -> Echo<'a> {
        text.map_or(Echo::Nothing, Echo::MessageId)
    }
}

/// Writes where a produced record went. `offset` is -1 when the brokers no longer know it.
pub fn result(
    out: &mut BytesMut,
    topic: &str,
    partition: i32,
    offset: i64,
    timestamp: i64,
    echo: Echo<'_>,
) {
    out.put_slice(b"{\"topic\":");
    json::write_string(out, topic.as_bytes());
    out.put_slice(b",\"partition\":");
    write_integer(out, partition);
    out.put_slice(b",\"offset\":");
    write_integer(out, offset);
    out.put_slice(b",\"timestamp\":");
    write_integer(out, timestamp);
    write_echo(out, echo);
    out.put_u8(b'}');
}

/// Writes that a record was not produced, or a commit not done, and why.
pub fn error(out: &mut BytesMut, code: Code, message: impl fmt::Display, echo: Echo<'_>) {
    out.put_slice(b"{\"error\":{\"code\":\"");
    out.put_slice(code.name().as_bytes());
    out.put_slice(b"\",\"message\":\"");
    write!(Escaping(out), "{message}").expect("a buffer in memory takes everything");
    out.put_slice(b"\"}");
    write_echo(out, echo);
    out.put_u8(b'}');
}

fn write_echo(out: &mut BytesMut, echo: Echo<'_>) {
    let (name, text) = match echo {
        Echo::Nothing => return,
        Echo::MessageId(text) => (&b",\"messageId\":"[..], text),
        Echo::WsProxyMessageId(text) => (&b",\"wsProxyMessageId\":"[..], text),
    };
    out.put_slice(name);
    out.put_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        write(&mut out);
        String::from_utf8(out.to_vec()).expect("UTF-8")
    }

    #[test]
    fn a_result_says_where_the_record_went() {
        assert_eq!(
            written(|out| result(out, "foo", 2, 4, 1554896731782, Echo::Nothing)),
            r#"{"topic":"foo","partition":2,"offset":4,"timestamp":1554896731782}"#
        );
        assert_eq!(
            written(|out| result(out, "t", 0, -1, -1, Echo::message_id(Some(br#""\u00e9""#)))),
            r#"{"topic":"t","partition":0,"offset":-1,"timestamp":-1,"messageId":"\u00e9"}"#
        );
    }

    #[test]
    fn an_error_has_a_code_and_a_message() {
        assert_eq!(
            written(|out| error(
                out,
                Code::InvalidFormat,
                "no \"such\"\nthing",
                Echo::Nothing
            )),
            r#"{"error":{"code":"invalid_format","message":"no \"such\"\nthing"}}"#
        );
        assert_eq!(
            written(|out| error(out, Code::TimedOut, 5, Echo::message_id(Some(b"\"a\"")))),
            r#"{"error":{"code":"timed_out","message":"5"},"messageId":"a"}"#
        );
        assert_eq!(
            written(|out| error(
                out,
                Code::UnknownMessageId,
                "not delivered here",
                Echo::WsProxyMessageId(b"\"t-0-1-2\"")
            )),
            r#"{"error":{"code":"unknown_message_id","message":"not delivered here"},"wsProxyMessageId":"t-0-1-2"}"#
        );
    }

    #[test]
    fn codes_have_the_documented_names() {
        for (code, name) in [
            (Code::InvalidJson, "invalid_json"),
            (Code::InvalidRecord, "invalid_record"),
            (Code::InvalidFormat, "invalid_format"),
            (Code::TooLarge, "too_large"),
            (Code::NotAuthorized, "not_authorized"),
            (Code::TimedOut, "timed_out"),
            (Code::UnknownOutcome, "unknown_outcome"),
            (Code::BrokerError, "broker_error"),
            (Code::UnknownMessageId, "unknown_message_id"),
            (Code::AutoCommitEnabled, "auto_commit_enabled"),
        ] {
            assert_eq!(code.to_string(), name);
        }
    }
}
