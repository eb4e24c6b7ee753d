//! Commands that clients send on either socket: `{"command":"authenticate","token":"…"}`.
//!
//! ```text
//! message ─▶ CommandMessage ─▶ {"command":"…",…}, or
//!                              {"command":"…","error":{"code":"unknown_command","message":"…"}}
//! ```
//!
//! # Decisions
//! - A command is an object with a string `command`. Fields that it does not know are ignored.
//! - A name is sent back as the text it came as, up to [`NAME_BYTES_MAX`].

use std::borrow::Cow;
use std::fmt::Write;

use bytes::{BufMut, BytesMut};
use secret::Secret;

use super::json::{self, JsonScanner, JsonType, RawJson, StringContent};
use super::socket_error::{self, SocketErrorCode};

/// The field that has the name of the command.
pub(super) const COMMAND_FIELD: &str = "command";

/// Bytes of a name, with its quotes, that are sent back; of a longer one its first characters are.
const NAME_BYTES_MAX: usize = 128;

/// A command, as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommandMessage<'m> {
    /// The whole object.
    object: RawJson<'m>,
    /// A string.
    name: RawJson<'m>,
    /// Whether there is more than one name: which of them was meant cannot be known.
    is_ambiguous: bool,
}

/// Reads a message, which must be UTF-8; `None`: it is no command.
pub(crate) fn parse(message: &[u8]) -> Option<CommandMessage<'_>> {
    let mut scanner = JsonScanner::new(message);
    let value = scanner.value().ok()?;
    scanner.expect_end().ok()?;
    CommandMessage::of(value)
}

impl<'m> CommandMessage<'m> {
    /// The command that the value is; `None`: it is none.
    pub(super) fn of(value: RawJson<'m>) -> Option<Self> {
        let (name, is_ambiguous) = find(value, COMMAND_FIELD, |name| {
            name.json_type() == JsonType::String
        });
        Some(Self {
            object: value,
            name: name?,
            is_ambiguous,
        })
    }

    /// What it is called.
    pub(crate) fn name(&self) -> Cow<'m, [u8]> {
        self.name.name()
    }

    /// Whether it has more than one name.
    pub(crate) fn is_ambiguous(&self) -> bool {
        self.is_ambiguous
    }

    /// Whether it has that field.
    pub(crate) fn has(&self, field: &str) -> bool {
        find(self.object, field, |_| true).0.is_some()
    }

    /// The secret that the field is; `None`: it is not there, no string, or there twice.
    pub(crate) fn secret(&self, field: &str) -> Option<Secret> {
        let (Some(raw), false) = find(self.object, field, |_| true) else {
            return None;
        };
        if raw.json_type() != JsonType::String {
            return None;
        }
        let mut unescaped = Vec::new();
        let text = match raw.string_content(&mut unescaped).ok()? {
            StringContent::Borrowed(text) => text.to_vec(),
            StringContent::Appended => unescaped,
        };
        String::from_utf8(text).ok().map(Secret::new)
    }

    /// Writes why it is not done.
    pub(crate) fn write_error(&self, out: &mut BytesMut, code: SocketErrorCode, message: &str) {
        self.begin_answer(out);
        out.put_u8(b',');
        socket_error::write_error_member(out, code, message);
        out.put_u8(b'}');
    }

    /// Writes what it has come to: one number.
    pub(crate) fn write_number(&self, out: &mut BytesMut, field: &str, number: u64) {
        self.begin_answer(out);
        // Writing to memory does not fail.
        let _ = write!(out, ",\"{field}\":{number}}}");
    }

    /// Begins the answer, an object: its other fields and its end are to follow.
    fn begin_answer(&self, out: &mut BytesMut) {
        out.put_slice(b"{\"command\":");
        let text = self.name.text();
        if text.len() <= NAME_BYTES_MAX {
            return out.put_slice(text);
        }
        let name = self.name.name();
        let name = String::from_utf8_lossy(&name);
        let end = name.floor_char_boundary(NAME_BYTES_MAX);
        json::write_string(out, format!("{}…", &name[..end]).as_bytes());
    }
}

/// The first field of an object that is called so and fits, and whether there are more of that name;
/// none where the value is no object.
fn find<'m>(
    value: RawJson<'m>,
    field: &str,
    fits: impl Fn(RawJson<'m>) -> bool,
) -> (Option<RawJson<'m>>, bool) {
    let (mut found, mut count) = (None, 0);
    if value.json_type() != JsonType::Object {
        return (None, false);
    }
    let mut fields = JsonScanner::new(value.text());
    fields.begin_object().expect(SCANNED);
    let mut first = true;
    while let Some(name) = fields.next_name(first).expect(SCANNED) {
        first = false;
        let value = fields.value().expect(SCANNED);
        if *name.name() == *field.as_bytes() {
            count += 1;
            found = found.or(Some(value).filter(|value| fits(*value)));
        }
    }
    (found, count > 1)
}

const SCANNED: &str = "the message was scanned before its fields are read";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::socket_error::tests::written;

    fn answer(message: &str) -> String {
        let command = parse(message.as_bytes()).expect(message);
        let code = SocketErrorCode::UnknownCommand;
        written(|out| command.write_error(out, code, "no \"such\""))
    }

    #[test]
    fn a_command_is_an_object_with_a_name() {
        for message in [
            r#"{"command":"x"}"#,
            r#" {"a":[{"command":5}],"comm\u0061nd":"x"} "#,
            r#"{"command":"x","value":null}"#,
        ] {
            let command = parse(message.as_bytes()).expect(message);
            assert_eq!(*command.name(), *b"x");
            assert!(!command.is_ambiguous());
            assert_eq!(command.has("value"), message.contains("value"));
        }
        for message in [
            "",
            "{",
            "5",
            r#""command""#,
            r#"{"command":"x"}{}"#,
            r#"{"command":5}"#,
            r#"{"command":null}"#,
            r#"{"Command":"x"}"#,
            r#"{"a":{"command":"x"}}"#,
            r#"[{"command":"x"}]"#,
        ] {
            assert_eq!(parse(message.as_bytes()), None, "{message}");
        }
        for message in [
            r#"{"command":"x","command":"y"}"#,
            r#"{"command":5,"command":"y"}"#,
        ] {
            assert!(parse(message.as_bytes()).expect(message).is_ambiguous());
        }
    }

    #[test]
    fn a_secret_is_one_string() {
        let secret = |fields: &str| {
            let message = format!(r#"{{"command":"x",{fields}}}"#);
            let secret = parse(message.as_bytes()).unwrap().secret("token");
            secret.map(|secret| secret.reveal().to_owned())
        };
        assert_eq!(secret(r#""token":"a.b""#), Some("a.b".to_owned()));
        assert_eq!(secret(r#""token":"\u0061\n""#), Some("a\n".to_owned()));
        for none in [
            r#""a":1"#,
            r#""token":1"#,
            r#""token":null"#,
            r#""token":["a"]"#,
            r#""token":"\ud800""#,
            r#""token":"a","token":"a""#,
        ] {
            assert_eq!(secret(none), None, "{none}");
        }
    }

    #[test]
    fn an_answer_has_the_name_as_it_was_sent() {
        let error = r#""error":{"code":"unknown_command","message":"no \"such\""}}"#;
        for name in ["x", "", r"\u00e9\n", "é"] {
            let expected = format!("{{\"command\":\"{name}\",{error}");
            assert_eq!(answer(&format!(r#"{{"command":"{name}"}}"#)), expected);
        }
    }

    #[test]
    fn a_long_name_is_sent_back_in_part_as_a_string() {
        for (character, kept) in [("a", 128), ("é", 64), ("\u{1F600}", 32), (r"\u00e9", 64)] {
            for shift in ["", "x", "xx"] {
                let name = shift.to_owned() + &character.repeat(1000);
                let answer = answer(&format!(r#"{{"command":"{name}"}}"#));
                let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
                let echoed = answer["command"]
                    .as_str()
                    .expect("a string")
                    .chars()
                    .count();
                assert!(
                    (kept - 1..=kept + 2).contains(&echoed),
                    "{echoed} {character}"
                );
            }
        }
        // Half a pair of surrogates is no text.
        let answer = answer(&format!(r#"{{"command":"{}"}}"#, r"\ud800".repeat(1000)));
        assert!(serde_json::from_str::<serde_json::Value>(&answer).is_ok());
        assert!(answer.len() < 400, "{answer}");
    }
}
