//! What sockets answer to commands.
//!
//! ```text
//! CommandMessage ─▶ SocketCommand ─┬ Authenticate ─▶ the session goes on with the token ─┬▶ expiresAt
//!                                  │                                                     └▶ not_authorized
//!                                  └ Unknown ──────▶ unknown_command
//! ```

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use secret::Secret;

use super::session::SocketSession;
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

    fn renewed(command: &CommandMessage<'_>, expires_at: SystemTime) -> Self {
        let since = expires_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let mut text = BytesMut::new();
        command.write_number(&mut text, "expiresAt", millis);
        Self(text)
    }
}

/// What is left to be done for a command once it is read.
#[derive(Debug)]
pub(super) enum CommandStep {
    /// It is answered.
    Answer(CommandAnswer),
    /// The client goes on with this token, if it is good.
    Renew(Secret),
}

/// Reads what a command asks for, as far as that is the same on every socket.
pub(super) fn begin(command: &CommandMessage<'_>) -> CommandStep {
    let error = |code, message| CommandStep::Answer(CommandAnswer::error(command, code, message));
    if command.is_ambiguous() {
        return error(SocketErrorCode::InvalidRecord, "\"command\" occurs twice");
    }
    match SocketCommand::of(command) {
        SocketCommand::Authenticate { token: None } => error(
            SocketErrorCode::NotAuthorized,
            "\"token\" must be a string, and be there once",
        ),
        SocketCommand::Authenticate { token: Some(token) } => CommandStep::Renew(token),
        SocketCommand::Unknown => error(
            SocketErrorCode::UnknownCommand,
            "there is no such command; there is authenticate",
        ),
    }
}

impl CommandStep {
    /// Does what is left. The socket does nothing else meanwhile: that ends in time.
    pub(super) async fn finish(
        self,
        command: &CommandMessage<'_>,
        session: &mut SocketSession,
    ) -> CommandAnswer {
        let token = match self {
            Self::Answer(answer) => return answer,
            Self::Renew(token) => token,
        };
        match session.renew_authentication(&token).await {
            Ok(expires_at) => CommandAnswer::renewed(command, expires_at),
            Err(error) => {
                let code = SocketErrorCode::NotAuthorized;
                CommandAnswer::error(command, code, &error.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::command;

    fn answer_to(message: &str) -> String {
        let step = begin(&command::parse(message.as_bytes()).expect(message));
        let CommandStep::Answer(answer) = step else {
            panic!("{step:?}");
        };
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
                r#"{"command":"a","command":"b"}"#,
                r#"{"command":"a","error":{"code":"invalid_record","#,
            ),
        ] {
            let answer = answer_to(message);
            assert!(answer.starts_with(begins), "{answer}");
            assert!(!answer.contains("hunter2"), "{answer}");
        }
    }

    #[test]
    fn a_token_is_asked_about_and_its_answer_says_until_when_it_is_good() {
        let message = r#"{"command":"authenticate","token":"hunter2"}"#;
        let command = command::parse(message.as_bytes()).expect(message);
        let step = begin(&command);
        assert!(matches!(&step, CommandStep::Renew(token) if token.reveal() == "hunter2"));
        assert!(!format!("{step:?}").contains("hunter2"));
        let expires_at = UNIX_EPOCH + std::time::Duration::from_millis(1_700_000_000_500);
        let answer = CommandAnswer::renewed(&command, expires_at);
        let expected = r#"{"command":"authenticate","expiresAt":1700000000500}"#;
        assert_eq!(answer.text(), expected.as_bytes());
    }
}
