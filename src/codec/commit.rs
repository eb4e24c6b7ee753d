//! Commits that a client of `/socket/out` sends: `{"wsProxyMessageId":"t-0-1-1554402266846"}`.

use std::borrow::Cow;
use std::str::FromStr;

use super::answer::{Code, Echo};
use super::json::{Content, Kind, LoneSurrogate, Raw, Scanner};

/// Which record a `wsProxyMessageId` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageId<'a> {
    /// The topic.
    pub topic: Cow<'a, str>,
    /// The partition.
    pub partition: i32,
    /// The record's offset; committed is the one after it.
    pub offset: i64,
    /// The record's timestamp in milliseconds; -1 when it has none.
    pub timestamp: i64,
}

/// A commit frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit<'a> {
    /// The record that is done with.
    pub id: MessageId<'a>,
    /// The id as it came, to be sent back with a refusal.
    pub echo: Echo<'a>,
}

/// Why a frame is no commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// `invalid_json`, `invalid_record`, or `unknown_message_id` where no record can have
    /// that id.
    pub code: Code,
    /// For people.
    pub message: Cow<'static, str>,
    /// The id as it came, where it could be read.
    pub echo: Echo<'a>,
}

/// Reads a commit frame, which must be UTF-8. Unknown fields are ignored.
pub fn parse(frame: &[u8]) -> Result<Commit<'_>, Refusal<'_>> {
    let raw = read_id(frame)?;
    let echo = Echo::WsProxyMessageId(raw.text());
    let mut unescaped = Vec::new();
    let id = match raw.content(&mut unescaped) {
        Ok(Content::Borrowed(text)) => std::str::from_utf8(text).ok().and_then(MessageId::parse),
        Ok(Content::Appended) => std::str::from_utf8(&unescaped)
            .ok()
            .and_then(MessageId::parse)
            .map(MessageId::into_owned),
        Err(LoneSurrogate) => None,
    };
    match id {
        Some(id) => Ok(Commit { id, echo }),
        None => Err(Refusal {
            code: Code::UnknownMessageId,
            message: "no record has that id".into(),
            echo,
        }),
    }
}

fn read_id(frame: &[u8]) -> Result<Raw<'_>, Refusal<'_>> {
    let mut scanner = Scanner::new(frame);
    let scanned = scanner
        .value()
        .and_then(|value| scanner.end().map(|()| value));
    let value = scanned.map_err(|malformed| Refusal {
        code: Code::InvalidJson,
        message: format!("not JSON: {malformed}").into(),
        echo: Echo::Nothing,
    })?;
    let invalid = |message: &'static str| Refusal {
        code: Code::InvalidRecord,
        message: message.into(),
        echo: Echo::Nothing,
    };
    if value.kind() != Kind::Object {
        return Err(invalid("a commit is an object with a \"wsProxyMessageId\""));
    }
    let mut fields = Scanner::new(value.text());
    fields.begin_object().expect(SCANNED);
    let mut found = None;
    let mut first = true;
    while let Some(name) = fields.next_name(first).expect(SCANNED) {
        first = false;
        let value = fields.value().expect(SCANNED);
        if *name.name() == *b"wsProxyMessageId" && found.replace(value).is_some() {
            return Err(invalid("\"wsProxyMessageId\" occurs twice"));
        }
    }
    match found {
        Some(raw) if raw.kind() == Kind::String => Ok(raw),
        Some(_) => Err(invalid("\"wsProxyMessageId\" must be a string")),
        None => Err(invalid("a commit has a \"wsProxyMessageId\"")),
    }
}

const SCANNED: &str = "the frame was scanned before its fields are read";

impl<'a> MessageId<'a> {
    /// Takes an id apart from its end: topics may have dashes. `None` when it is not
    /// written as `outbound` writes them.
    pub fn parse(text: &'a str) -> Option<MessageId<'a>> {
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
        Some(MessageId {
            topic: Cow::Borrowed(topic),
            partition: natural(partition)?,
            offset: natural(offset)?,
            timestamp: sign * timestamp,
        })
        .filter(|id| !id.topic.is_empty())
    }

    fn into_owned(self) -> MessageId<'static> {
        MessageId {
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
    use proptest::prelude::*;

    fn id(topic: &str, partition: i32, offset: i64, timestamp: i64) -> MessageId<'_> {
        MessageId {
            topic: topic.into(),
            partition,
            offset,
            timestamp,
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
            assert_eq!(MessageId::parse(text), Some(expected), "{text}");
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
            assert_eq!(MessageId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_commit_is_an_object_with_an_id() {
        let frame = br#" {"x":[1],"wsProxyMessageId":"t-0-1-2"} "#;
        let commit = parse(frame).expect("a commit");
        assert_eq!(commit.id, id("t", 0, 1, 2));
        assert_eq!(commit.echo, Echo::WsProxyMessageId(b"\"t-0-1-2\""));
        let escaped = parse(br#"{"ws\u0050roxyMessageId":"t-0\u002d1-2"}"#).expect("a commit");
        assert_eq!(escaped.id, id("t", 0, 1, 2));
        assert_eq!(escaped.echo, Echo::WsProxyMessageId(br#""t-0\u002d1-2""#));
    }

    #[test]
    fn what_is_no_commit_says_why() {
        for (frame, code, echo) in [
            ("", Code::InvalidJson, Echo::Nothing),
            ("{", Code::InvalidJson, Echo::Nothing),
            (
                r#"{"wsProxyMessageId":"t-0-1-2"}x"#,
                Code::InvalidJson,
                Echo::Nothing,
            ),
            ("5", Code::InvalidRecord, Echo::Nothing),
            ("[]", Code::InvalidRecord, Echo::Nothing),
            (
                r#"[{"wsProxyMessageId":"t-0-1-2"}]"#,
                Code::InvalidRecord,
                Echo::Nothing,
            ),
            ("{}", Code::InvalidRecord, Echo::Nothing),
            (
                r#"{"wsProxyMessageId":5}"#,
                Code::InvalidRecord,
                Echo::Nothing,
            ),
            (
                r#"{"wsProxyMessageId":null}"#,
                Code::InvalidRecord,
                Echo::Nothing,
            ),
            (
                r#"{"wsProxyMessageId":"t-0-1-2","wsProxyMessageId":"t-0-2-2"}"#,
                Code::InvalidRecord,
                Echo::Nothing,
            ),
            (
                r#"{"wsProxyMessageId":"elsewhere"}"#,
                Code::UnknownMessageId,
                Echo::WsProxyMessageId(b"\"elsewhere\""),
            ),
            (
                r#"{"wsProxyMessageId":"\ud800"}"#,
                Code::UnknownMessageId,
                Echo::WsProxyMessageId(br#""\ud800""#),
            ),
        ] {
            let refusal = parse(frame.as_bytes()).expect_err(frame);
            assert_eq!((refusal.code, refusal.echo), (code, echo), "{frame}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            topic in "[a-zA-Z0-9._-]{1,20}",
            partition in 0..=i32::MAX,
            offset in 0..=i64::MAX,
            timestamp in -1..=i64::MAX,
        ) {
            let text = format!("{topic}-{partition}-{offset}-{timestamp}");
            prop_assert_eq!(
                MessageId::parse(&text),
                Some(id(&topic, partition, offset, timestamp))
            );
        }

        #[test]
        fn garbage_never_panics(text: String) {
            let _ = parse(text.as_bytes());
            let _ = MessageId::parse(&text);
        }
    }
}
