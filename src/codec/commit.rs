//! What a client of `/socket/out` sends: commits, `{"wsProxyMessageId":"t-0-1-1554402266846"}`, and
//! commands.

use std::borrow::Cow;
use std::str::FromStr;

use super::command::{COMMAND_FIELD, CommandMessage};
use super::json::{JsonScanner, JsonType, LoneSurrogate, RawJson, StringContent};
use super::socket_error::{EchoedId, SocketErrorCode};
use crate::near_miss;

/// A `wsProxyMessageId`, taken apart: the record that it identifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WsProxyMessageId<'a> {
    /// The topic.
    pub(crate) topic: Cow<'a, str>,
    /// The partition.
    pub(crate) partition: i32,
    /// The record's offset; committed is the one after it.
    pub(crate) offset: i64,
    /// The record's timestamp in milliseconds; -1 when it has none.
    pub(crate) timestamp: i64,
}

/// A commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommitMessage<'a> {
    /// The record that was processed: it and those before it are committed.
    pub(crate) id: WsProxyMessageId<'a>,
    /// The id as it came, to be sent back if the commit is rejected.
    pub(crate) echoed_id: EchoedId<'a>,
}

/// What a client may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CommitOrCommand<'a> {
    /// An object without a string `command`.
    Commit(CommitMessage<'a>),
    /// One with it.
    Command(CommandMessage<'a>),
}

/// Why a commit is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommitRejection<'a> {
    /// `invalid_json`, `invalid_record`, or `unknown_message_id` where no record can have
    /// that id.
    pub(crate) code: SocketErrorCode,
    /// For people.
    pub(crate) message: Cow<'static, str>,
    /// The id as it came, where it could be read.
    pub(crate) echoed_id: EchoedId<'a>,
}

/// Reads a message, which must be UTF-8. Unknown fields of a commit are ignored, unless one is a near
/// miss of the id's.
pub(crate) fn parse(message: &[u8]) -> Result<CommitOrCommand<'_>, CommitRejection<'_>> {
    let object = read_object(message)?;
    let Some(raw) = read_id(object)? else {
        let command = CommandMessage::of(object).expect("it has a string command");
        return Ok(CommitOrCommand::Command(command));
    };
    let echoed_id = EchoedId::WsProxyMessageId(raw.text());
    let mut unescaped = Vec::new();
    let id = match raw.string_content(&mut unescaped) {
        Ok(StringContent::Borrowed(text)) => std::str::from_utf8(text)
            .ok()
            .and_then(WsProxyMessageId::parse),
        Ok(StringContent::Appended) => std::str::from_utf8(&unescaped)
            .ok()
            .and_then(WsProxyMessageId::parse)
            .map(WsProxyMessageId::into_owned),
        Err(LoneSurrogate) => None,
    };
    match id {
        Some(id) => Ok(CommitOrCommand::Commit(CommitMessage { id, echoed_id })),
        None => Err(no_such_id(echoed_id)),
    }
}

impl<'a> CommitMessage<'a> {
    /// The commit of the record with that id, which is not escaped.
    pub(super) fn of_text(id: &'a str) -> Result<Self, CommitRejection<'a>> {
        let echoed_id = EchoedId::PlainWsProxyMessageId(id);
        match WsProxyMessageId::parse(id) {
            Some(id) => Ok(Self { id, echoed_id }),
            None => Err(no_such_id(echoed_id)),
        }
    }
}

fn no_such_id(echoed_id: EchoedId<'_>) -> CommitRejection<'_> {
    CommitRejection {
        code: SocketErrorCode::UnknownMessageId,
        message: "no record has that id".into(),
        echoed_id,
    }
}

fn read_object(message: &[u8]) -> Result<RawJson<'_>, CommitRejection<'_>> {
    let mut scanner = JsonScanner::new(message);
    let scanned = scanner
        .value()
        .and_then(|value| scanner.expect_end().map(|()| value));
    let value = scanned.map_err(|error| CommitRejection {
        code: SocketErrorCode::InvalidJson,
        message: format!("not JSON: {error}; {EXAMPLE}").into(),
        echoed_id: EchoedId::None,
    })?;
    match value.json_type() {
        JsonType::Object => Ok(value),
        _ => Err(invalid(EXAMPLE)),
    }
}

/// The id of a commit; `None`: it is a command instead.
fn read_id(object: RawJson<'_>) -> Result<Option<RawJson<'_>>, CommitRejection<'_>> {
    let mut fields = JsonScanner::new(object.text());
    fields.begin_object().expect(SCANNED);
    let (mut found, mut first_fault) = (None, None);
    let mut first = true;
    while let Some(name) = fields.next_name(first).expect(SCANNED) {
        first = false;
        let value = fields.value().expect(SCANNED);
        let name = name.name();
        if *name == *ID_FIELD.as_bytes() {
            if found.replace(value).is_some() {
                first_fault.get_or_insert_with(|| invalid("\"wsProxyMessageId\" occurs twice"));
            }
        } else if *name == *COMMAND_FIELD.as_bytes() && value.json_type() == JsonType::String {
            return Ok(None);
        } else if near_miss::find_field(&name, &[ID_FIELD]).is_some() {
            first_fault.get_or_insert_with(|| {
                let name = String::from_utf8_lossy(&name);
                invalid(format!(
                    "there is no field \"{name}\"; did you mean \"{ID_FIELD}\"?"
                ))
            });
        }
    }
    if let Some(fault) = first_fault {
        return Err(fault);
    }
    match found {
        Some(raw) if raw.json_type() == JsonType::String => Ok(Some(raw)),
        Some(_) => Err(invalid("\"wsProxyMessageId\" must be a string")),
        None => Err(invalid(EXAMPLE)),
    }
}

#[cold]
fn invalid(message: impl Into<Cow<'static, str>>) -> CommitRejection<'static> {
    CommitRejection {
        code: SocketErrorCode::InvalidRecord,
        message: message.into(),
        echoed_id: EchoedId::None,
    }
}

const ID_FIELD: &str = "wsProxyMessageId";
/// For clients that send what is no commit.
const EXAMPLE: &str = r#"a commit is {"wsProxyMessageId":"<that of the record>"}"#;

const SCANNED: &str = "the message was scanned before its fields are read";

impl<'a> WsProxyMessageId<'a> {
    /// Parses an id from its end: topics may have dashes. `None` when it is not
    /// written as `outbound` writes them.
    pub(crate) fn parse(text: &'a str) -> Option<WsProxyMessageId<'a>> {
        let (rest, timestamp) = text.rsplit_once('-')?;
        // No offset is negative, so a second dash is the timestamp's sign.
        let (rest, sign) = match rest.strip_suffix('-') {
            Some(rest) => (rest, -1),
            None => (rest, 1),
        };
        let timestamp = natural::<i64>(timestamp)?;
        if sign < 0 && timestamp == 0 {
            return None;
        }
        let (rest, offset) = rest.rsplit_once('-')?;
        let (topic, partition) = rest.rsplit_once('-')?;
        Some(WsProxyMessageId {
            topic: Cow::Borrowed(topic),
            partition: natural(partition)?,
            offset: natural(offset)?,
            timestamp: sign * timestamp,
        })
        .filter(|id| !id.topic.is_empty())
    }

    fn into_owned(self) -> WsProxyMessageId<'static> {
        WsProxyMessageId {
            topic: Cow::Owned(self.topic.into_owned()),
            ..self
        }
    }
}

/// A number from 0 on, in digits and without zeros in front.
fn natural<T: FromStr>(text: &str) -> Option<T> {
    let canonical = text == "0" || !text.starts_with('0');
    (canonical && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(topic: &str, partition: i32, offset: i64, timestamp: i64) -> WsProxyMessageId<'_> {
        WsProxyMessageId {
            topic: topic.into(),
            partition,
            offset,
            timestamp,
        }
    }

    fn commit(message: &[u8]) -> CommitMessage<'_> {
        match parse(message) {
            Ok(CommitOrCommand::Commit(commit)) => commit,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_id_is_read_from_its_end() {
        for (text, expected) in [
            ("foo-0-1-1554402266846", id("foo", 0, 1, 1554402266846)),
            ("my-own-topic-12-0-0", id("my-own-topic", 12, 0, 0)),
            ("t-1-2-3-4-5", id("t-1-2", 3, 4, 5)),
            ("t-0-5--1", id("t", 0, 5, -1)),
            ("a--0-5-7", id("a-", 0, 5, 7)),
        ] {
            assert_eq!(WsProxyMessageId::parse(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "-",
            "---",
            "-0-5-7",
            "foo",
            "foo-0-1",
            "foo-0-1-",
            "foo-0-1-x",
            "foo-0--1-5",
            "foo--1-1-5-",
            "foo-00-1-5",
            "foo-0-01-5",
            "foo-0-+1-5",
            "foo-0-1--0",
            "foo-0-1---5",
            "foo-2147483648-1-5",
            "foo-0-9223372036854775808-5",
            "foo-0- 1-5",
            "foo-٣-1-5",
        ] {
            assert_eq!(WsProxyMessageId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_commit_is_an_object_with_an_id() {
        let frame = br#" {"x":[1],"wsProxyMessageId":"t-0-1-2"} "#;
        let plain = commit(frame);
        assert_eq!(plain.id, id("t", 0, 1, 2));
        assert_eq!(plain.echoed_id, EchoedId::WsProxyMessageId(b"\"t-0-1-2\""));
        let escaped = commit(br#"{"ws\u0050roxyMessageId":"t-0\u002d1-2"}"#);
        assert_eq!(escaped.id, id("t", 0, 1, 2));
        assert_eq!(
            escaped.echoed_id,
            EchoedId::WsProxyMessageId(br#""t-0\u002d1-2""#)
        );
    }

    #[test]
    fn an_object_with_a_string_command_is_no_commit() {
        for message in [
            r#"{"command":"x"}"#,
            r#"{"wsProxyMessageId":"t-0-1-2","command":"x"}"#,
            r#"{"wsProxyMessageID":"t-0-1-2","command":"x"}"#,
        ] {
            let CommitOrCommand::Command(command) = parse(message.as_bytes()).expect(message)
            else {
                panic!("{message} is a commit");
            };
            assert_eq!(*command.name(), *b"x");
        }
        let no_name = br#"{"wsProxyMessageId":"t-0-1-2","command":5}"#;
        assert_eq!(commit(no_name).id, id("t", 0, 1, 2));
        let rejection = parse(br#"{"command":5}"#).expect_err("no name");
        assert_eq!(rejection.code, SocketErrorCode::InvalidRecord);
    }

    #[test]
    fn what_is_no_commit_says_why() {
        for (frame, code, echo) in [
            ("", SocketErrorCode::InvalidJson, EchoedId::None),
            ("{", SocketErrorCode::InvalidJson, EchoedId::None),
            (
                r#"{"wsProxyMessageId":"t-0-1-2"}x"#,
                SocketErrorCode::InvalidJson,
                EchoedId::None,
            ),
            ("5", SocketErrorCode::InvalidRecord, EchoedId::None),
            ("[]", SocketErrorCode::InvalidRecord, EchoedId::None),
            (
                r#"[{"wsProxyMessageId":"t-0-1-2"}]"#,
                SocketErrorCode::InvalidRecord,
                EchoedId::None,
            ),
            ("{}", SocketErrorCode::InvalidRecord, EchoedId::None),
            (
                r#"{"wsProxyMessageId":5}"#,
                SocketErrorCode::InvalidRecord,
                EchoedId::None,
            ),
            (
                r#"{"wsProxyMessageId":null}"#,
                SocketErrorCode::InvalidRecord,
                EchoedId::None,
            ),
            (
                r#"{"wsProxyMessageId":"t-0-1-2","wsProxyMessageId":"t-0-2-2"}"#,
                SocketErrorCode::InvalidRecord,
                EchoedId::None,
            ),
            (
                r#"{"wsProxyMessageId":"elsewhere"}"#,
                SocketErrorCode::UnknownMessageId,
                EchoedId::WsProxyMessageId(b"\"elsewhere\""),
            ),
            (
                r#"{"wsProxyMessageId":"\ud800"}"#,
                SocketErrorCode::UnknownMessageId,
                EchoedId::WsProxyMessageId(br#""\ud800""#),
            ),
        ] {
            let rejection = parse(frame.as_bytes()).expect_err(frame);
            assert_eq!(
                (rejection.code, rejection.echoed_id),
                (code, echo),
                "{frame}"
            );
        }
    }

    #[test]
    fn a_near_miss_of_the_id_is_named_and_what_is_no_commit_gets_an_example() {
        for name in ["wsproxymessageid", "wsProxyMessageID", "wsProxyMesageId"] {
            let frame = format!(r#"{{"{name}":"t-0-1-2"}}"#);
            let rejection = parse(frame.as_bytes()).expect_err(name);
            assert_eq!(rejection.code, SocketErrorCode::InvalidRecord);
            let message = rejection.message;
            assert!(
                message.contains(name) && message.contains(ID_FIELD),
                "{message}"
            );
        }
        for frame in ["hello", "5", "{}"] {
            let message = parse(frame.as_bytes()).expect_err(frame).message;
            assert!(message.ends_with(EXAMPLE), "{message}");
        }
    }
}
