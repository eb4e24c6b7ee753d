//! What sockets answer to commands.
//!
//! ```text
//! CommandMessage ─▶ SocketCommand ─┬ Authenticate ─▶ not_authorized: no method that this server has
//!                                  │                 lets a client renew what it has authenticated by
//!                                  └ Unknown ──────▶ unknown_command
//! ```

use bytes::BytesMut;
use secret::Secret;

use crate::codec::command::CommandMessage;
use crate::codec::socket_error::SocketErrorCode;

/// What a command asks for.
#[derive(Debug)]
enum SocketCommand {
    /// The client goes on with these credentials.
    Authenticate {
        /// `None`: it has none, or none that is one string.
        token: Option<Secret>,
    },
    /// There is no such command.
    Unknown,
}

impl SocketCommand {
    fn of(command: &CommandMessage<'_>) -> Self {
        match &*command.name() {
            b"authenticate" => Self::Authenticate {
                token: command.secret("token"),
            },
            _ => Self::Unknown,
        }
    }
}

/// The answer to a command: a text message.
#[derive(Debug)]
pub(super) struct CommandAnswer(BytesMut);

impl CommandAnswer {
    /// JSON.
    pub(super) fn text(&self) -> &[u8] {
        &self.0
    }

    fn error(command: &CommandMessage<'_>, code: SocketErrorCode, message: &str) -> Self {
        let mut text = BytesMut::new();
        command.write_error(&mut text, code, message);
        Self(text)
    }
}

/// Does what a command asks for, as far as that is the same on every socket.
pub(super) fn answer(command: &CommandMessage<'_>) -> CommandAnswer {
    let error = |code, message| CommandAnswer::error(command, code, message);
    if command.is_ambiguous() {
        return error(SocketErrorCode::InvalidRecord, "\"command\" occurs twice");
    }
    match SocketCommand::of(command) {
        SocketCommand::Authenticate { token: None } => error(
            SocketErrorCode::NotAuthorized,
            "\"token\" must be a string, and be there once",
        ),
        SocketCommand::Authenticate { token: Some(_) } => error(
            SocketErrorCode::NotAuthorized,
            "this server takes no tokens: there is nothing to be renewed",
        ),
        SocketCommand::Unknown => error(
            SocketErrorCode::UnknownCommand,
            "there is no such command; there is authenticate",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::command;

    fn answer_to(message: &str) -> String {
        let answer = answer(&command::parse(message.as_bytes()).expect(message));
        String::from_utf8(answer.text().to_vec()).expect("UTF-8")
    }

    #[test]
    fn a_command_that_cannot_be_done_is_answered_by_name() {
        for (message, begins) in [
            (
                r#"{"command":"Seek"}"#,
                r#"{"command":"Seek","error":{"code":"unknown_command","#,
            ),
            (
                r#"{"command":"authenticate"}"#,
                r#"{"command":"authenticate","error":{"code":"not_authorized","#,
            ),
            (
                r#"{"command":"authenticate","token":["hunter2"]}"#,
                r#"{"command":"authenticate","error":{"code":"not_authorized","#,
            ),
            (
                r#"{"command":"authenticate","token":"hunter2"}"#,
                r#"{"command":"authenticate","error":{"code":"not_authorized","#,
            ),
            (
                r#"{"command":"a","command":"b"}"#,
                r#"{"command":"a","error":{"code":"invalid_record","#,
            ),
        ] {
            let answer = answer_to(message);
            assert!(answer.starts_with(begins), "{answer}");
            assert!(!answer.contains("hunter2"), "{answer}");
        }
    }
}
